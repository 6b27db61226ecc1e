"""Chapter 18: gradients of unequal ranks, traffic, shards for another number of ranks, the optimum, and the bill."""

import math

import torch

from courseware.exercises import Exercise, Mistake

TALK = 'chapter 18, "Break it: talk after every micro-batch"'
SHARDS = 'chapter 18, "Two ways to share a model"'
LENGTH = 'chapter 18, "How much should a model read?"'


def _number(value):
    """Return any kind of number as a float, so that it can be compared; a text stays what it is."""
    return value if isinstance(value, (str, bytes, bool)) else float(value)


def _probe_combined(answer):
    generator = torch.Generator().manual_seed(18)

    def ranks(*counts, shape=(3,)):
        gradients = [torch.randn(shape, generator=generator) for _ in counts]
        return [g if n else g * math.nan for g, n in zip(gradients, counts)], list(counts)

    one = [torch.tensor([4.0]), torch.tensor([20.0])]
    yield "the two ranks of the chapter", answer(one, [3, 1])
    yield "three ranks, unequal counts", answer(*ranks(5, 1, 7))
    yield "a matrix", answer(*ranks(2, 9, shape=(2, 3)))
    yield "one rank", answer(*ranks(6))
    yield "a rank without a target", answer(*ranks(3, 0, 2))
    yield "the first rank without a target", answer(*ranks(0, 5))

    nan, fine = torch.tensor([1.0, math.nan]), torch.tensor([2.0, 3.0])
    yield "a nan on a rank with 2 targets", answer([nan, fine.clone()], [2, 2])
    yield "all nan on a rank with 3 targets", answer([fine, nan * math.nan], [1, 3])


COMBINED = Exercise(
    "combined_gradient", _probe_combined,
    hints=(
        "One process would take the mean over all targets. How many targets stand behind each rank's mean?",
        "A rank's mean times its count is the sum over its targets. Add up the sums, then divide once.",
        "A rank without targets brings nan, and 0 * nan is nan: leave it out, by its count. Any other nan must stay.",
    ),
    explanation="Sums may be added; means may not. Every target weighs the same, whatever rank it is on.",
    look='chapter 18, "Two ranks on paper"',
    mistakes=(
        Mistake("a mean of means", "You gave each rank the same weight. A target on a rank with few targets then weighs more than others: weigh by the counts.",
                edit=(("* count", ""), ("sum(counts)", "sum(n > 0 for n in counts)"))),
        Mistake("a mean of means, over all ranks", "You gave each rank the same weight, and counted those without a target, too. Weigh by the counts.",
                edit=(("* count", ""), ("sum(counts)", "len(counts)")),
                also=((("if count:", "if True:"), ("* count", ""), ("sum(counts)", "len(counts)")),)),
        Mistake("summed, not averaged", "You added the ranks' means. The result grows with the number of ranks; divide the sum over all targets by their number.",
                edit=(("* count", ""), ("/ sum(counts)", ""))),
        Mistake("not divided", "You added up the sums, which is right, but did not divide by the number of all targets.",
                edit=("/ sum(counts)", "")),
        Mistake("nothing times nan", "Where every rank has targets you are right. A rank without any has nan for its mean, and 0 * nan is nan: leave it out.",
                edit=("if count:", "if True:")),
        Mistake("nan swept away", "You made every nan a 0. On a rank with targets a nan says that the run has diverged, and nobody would hear of it. Leave out only the ranks with a count of 0.",
                edit=("+= gradient", "+= torch.nan_to_num(gradient)")),
        Mistake("left out for its nan", "You left out every rank with a nan. If it has targets, its nan says that the run has diverged, and must stay. Ask for the count, not for nan.",
                edit=("if count:", "if not gradient.isnan().any():"),
                also=((("if count:", "if not gradient.isnan().any():"), ("sum(counts)", "sum(n for g, n in zip(gradients, counts) if not g.isnan().any())")),)),
    ),
)  # fmt: skip


def _probe_sent(answer):
    for weights, ranks, parallel, micro_batches in (
        (1000, 2, "ddp", 1), (1000, 4, "ddp", 3), (124_000_000, 8, "ddp", 5), (500, 1, "ddp", 2), (1001, 2, "ddp", 1),
        (1000, 2, "fsdp", 1), (1000, 4, "fsdp", 3), (8_000_000_000, 64, "fsdp", 2), (500, 1, "fsdp", 4), (1001, 2, "fsdp", 3),
    ):  # fmt: skip
        label = f"weights={weights}, ranks={ranks}, {parallel}, micro_batches={micro_batches}"
        yield label, _number(answer(weights, ranks, parallel, micro_batches))


SENT = Exercise(
    "bytes_sent", _probe_sent,
    hints=(
        "An all-reduce is a reduce-scatter and an all-gather, and each of the two sends (W - 1) / W of the numbers.",
        "Gradients travel once a step, 4 bytes each. With FSDP they need the reduce-scatter alone.",
        "FSDP: (W - 1) / W * (4 * weights + micro_batches * 2 * 2 * weights): two gatherings of 2 bytes a weight.",
    ),
    explanation="DDP sends the same for any number of micro-batches; FSDP pays for its small memory with every one.",
    look='chapter 18, "How a sum travels"',
    mistakes=(
        Mistake("half a ring for DDP", "FSDP is right. DDP has half of what it should: you counted one half of the ring (after adding up, the sums must travel back to all), or 2 bytes for a gradient (it has 4).",
                edit=("return 2 *", "return")),
        Mistake("a whole copy to everyone", "You took (W - 1) copies, or the bytes of all ranks together. You are asked for one rank: in a ring it sends (W - 1) pieces of 1 / W each.",
                edit=("/ ranks", "")),
        Mistake("without the (W - 1) / W", "For many ranks you are nearly right, but each rank keeps its own piece: it sends (W - 1) / W, and nothing when it is alone.",
                edit=("(ranks - 1) / ranks", "1")),
        Mistake("gathered once", "You gathered the weights once for each micro-batch. They are freed after forward, and gathered again for backward.",
                edit=("micro_batches * 2 * 2", "micro_batches * 2")),
        Mistake("gathered in float32", "You gathered the weights with 4 bytes each. They travel in bfloat16, 2 bytes.",
                edit=("2 * 2", "2 * 4")),
        Mistake("gradients in bfloat16", "You counted 2 bytes for a gradient. Gradients are summed in float32, 4 bytes.",
                edit=(("ring * 4", "ring * 2"), ("(4 * weights", "(2 * weights"))),
        Mistake("gradients after every micro-batch", "You sent the gradients after every micro-batch. They stay on their rank until the last one.",
                edit=(("return 2 *", "return micro_batches * 2 *"), ("(4 * weights", "(micro_batches * 4 * weights")), look=TALK),
        Mistake("DDP after every micro-batch", "FSDP is right. With DDP you sent the gradients after every micro-batch. They stay on their rank until the last one.",
                edit=("return 2 *", "return micro_batches * 2 *"), look=TALK),
        Mistake("a whole ring for FSDP's gradients", "DDP is right. With FSDP you sent the gradients by a whole ring. Each sum stays with the rank that owns the weight, so half a ring is enough.",
                edit=("(4 * weights", "(2 * 4 * weights")),
        Mistake("one micro-batch", "DDP is right. For FSDP you left out micro_batches, in each of which the weights are gathered, or you did not ask for `parallel` at all: both give twice (W - 1) / W * 4 * weights.",
                edit=("micro_batches *", "")),
    ),
)  # fmt: skip


def _probe_reshard(answer):
    for shards, world in (
        ([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]], 2), ([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], 4), ([[7, 5, 3], [1]], 1),
        ([[4], [8], [6]], 3), ([[1, 2], [3, 4], [5], []], 3), ([[1, 2, 3]], 5), ([[1, 2, 3, 4, 5, 6, 7]], 3), ([[], []], 2),
        ([[1, 2, 3], [4]], 2), ([[0, 0, 1], [0, 1]], 2), ([[7]], 128),
    ):  # fmt: skip
        yield f"{shards}, world={world}", answer(shards, world)


RESHARD = Exercise(
    "reshard", _probe_reshard,
    hints=(
        "Ten numbers for four ranks: what does the given code give to each, and how many are there in all?",
        "// rounds down. What becomes of the rest?",
        "Round up: -(-n // world). The last ranks then have less, or nothing.",
    ),
    explanation="Rounding down silently loses the last n mod W numbers: weights that no rank would ever load. Rounding up never does.",
    mistakes=(
        Mistake("numbers lost", "When world does not divide the numbers, the last ones are on no rank at all. Print the shares of ten numbers on four ranks.",
                of="given"),
        Mistake("the last rank takes the rest", "Nothing is lost any more, but the last rank has the most, which it must have room for, and PyTorch cuts otherwise: ceil(n / world) each, the last ones less.",
                of="given", edit=("(rank + 1) * size", "(rank + 1) * size if rank < world - 1 else None"), look=SHARDS),
        Mistake("as even as can be", "Your shares are as even as can be, and nothing is lost. But PyTorch gives every rank ceil(n / world) until nothing is left, and the shards must be those that it expects.",
                edit=(("size = -(-len(numbers) // world)", "size, more = divmod(len(numbers), world)"),
                      ("rank * size :", "rank * size + min(rank, more) :"),
                      ("(rank + 1) * size", "(rank + 1) * size + min(rank + 1, more)")),
                also=((("rank * size :", "rank * len(numbers) // world :"), ("(rank + 1) * size", "(rank + 1) * len(numbers) // world")),),
                look=SHARDS),
        Mistake("dealt like cards", "You dealt the numbers one by one. A shard is a run of neighbours.",
                edit=("rank * size : (rank + 1) * size", "rank::world"), look=SHARDS),
        Mistake("ranks without numbers left out", "A rank with nothing is missing from your list. It needs its empty shard: all ranks take part.",
                edit=("range(world)]", "range(world) if rank * size < len(numbers)]"),
                also=(("numbers[rank * size : (rank + 1) * size] for rank in range(world)", "numbers[i : i + size] for i in range(0, len(numbers), size)"),)),
        Mistake("one number too many", "You added 1 to the quotient always. Where world divides the numbers, that is one too many for each rank: round up.",
                edit=("-(-len(numbers) // world)", "len(numbers) // world + 1")),
        Mistake("rounded down, at least 1", "You rounded down, but to no less than 1, so ten numbers on four ranks still lose two. Round up.",
                edit=("-(-len(numbers) // world)", "max(1, len(numbers) // world)")),
    ),
)  # fmt: skip


def _probe_best(answer):
    for label, flops, law in (
        ("the law of Hoffmann et al.", 5.76e23, (406.4, 410.7, 0.34, 0.28)),
        ("numbers for paper", 6e4, (1.0, 1.0, 0.5, 0.5)),
        ("a small budget", 1e12, (30.0, 7.0, 0.6, 0.2)),
    ):
        weights, tokens = answer(flops, *law)
        yield f"{label}: weights", _number(weights)
        yield f"{label}: tokens", _number(tokens)


BEST = Exercise(
    "best_size", _probe_best,
    hints=(
        "Put D = flops / (6 N) into A / N^alpha + B / D^beta. Now only N is left.",
        "Set the derivative to zero: alpha * A * N^-alpha = beta * B * D^-beta. Both sides fall by the same share.",
        "N^(alpha + beta) = alpha * A / (beta * B) * (flops / 6)^beta. Take the root of order alpha + beta.",
    ),
    explanation="At the best size the two terms have equal slopes, not equal values. E plays no part: no budget lowers it.",
    tolerance=1e-4,  # rounded to whole numbers, or the best of a fine grid, is right too
    mistakes=(
        Mistake("the exponent of the tokens", "Your budget has the exponent alpha / (alpha + beta). That is the one of the tokens: weights grow with beta / (alpha + beta).",
                edit=("(beta /", "(alpha /")),
        Mistake("equal terms instead of equal slopes", "You made the two terms equal: A / N^alpha = B / D^beta. The best is where their slopes are equal: alpha and beta come down as factors.",
                edit=("alpha * A / (beta * B)", "A / B")),
        Mistake("the ratio upside down", "Your ratio is upside down. The larger A is, the more a small model costs in loss, so N must grow with A.",
                edit=("alpha * A / (beta * B)", "beta * B / (alpha * A)")),
        Mistake("without the 6", "You set N D = flops. A weight costs 6 FLOPs for each token.",
                edit=(("(flops / 6)", "flops"), ("flops / 6 / n", "flops / n")), look=LENGTH),
        Mistake("tokens before weights", "Both numbers are right, in the wrong order: return weights, then tokens.",
                wrap=lambda right: lambda *a: right(*a)[::-1]),
        Mistake("half and half", "You gave weights and tokens equal exponents, 1/2. That is so only if alpha = beta.",
                edit=("(beta / (alpha + beta))", "0.5")),
        Mistake("twenty tokens for each weight", "That is the rule of thumb, whatever the law says. Here you are asked for the optimum of the law that is given.",
                edit=("(alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (flops / 6) ** (beta / (alpha + beta))", "(flops / 120) ** 0.5"),
                look=LENGTH),
        Mistake("without the ratio", "Your exponents are right, but A and B play no part. A large A makes a small model bad: the ratio alpha * A / (beta * B) is missing.",
                edit=("(alpha * A / (beta * B)) ** (1 / (alpha + beta)) *", "")),
    ),
)  # fmt: skip


def _probe_bill(answer):
    for label, *case in (
        ("GPT-2 on one machine", 124e6, 1e10, 8, 989e12, 0.4, 2.5),
        ("Llama 3 8B", 8.03e9, 15e12, 1024, 989e12, 0.35, 3.0),
        ("a large fleet", 405e9, 15.6e12, 16_384, 989e12, 0.41, 2.0),
        ("for nothing", 1e9, 1e10, 4, 312e12, 0.5, 0.0),
    ):
        days, euros = answer(*case)
        yield f"{label}: days", _number(days)
        yield f"{label}: euros", _number(euros)


BILL = Exercise(
    "days_and_euros", _probe_bill,
    hints=(
        "6 FLOPs for each weight and token: how many in all?",
        "The fleet does gpus * peak * utilisation of them in a second. A day has 86,400 seconds.",
        "You pay for each GPU and each hour: 24 * days * gpus * price.",
    ),
    explanation="More GPUs make it faster, not cheaper: the number of GPUs cancels out of the price, as long as the utilisation stays the same.",
    tolerance=1e-4,  # euros rounded to the cent are right too
    look='chapter 18, "The bill"',
    mistakes=(
        Mistake("forward alone", "You counted 2 FLOPs for each weight and token. That is forward; backward costs twice as much again.",
                edit=("6 * weights", "2 * weights"), look=LENGTH),
        Mistake("the 6 forgotten", "You counted 1 FLOP for each weight and token. It is 6: 2 forward, 4 backward.",
                edit=("6 * weights", "weights"), look=LENGTH),
        Mistake("the promise of the data sheet", "You took the peak of the data sheet. A run gets only a share of it: the utilisation.",
                edit=("* utilisation", "")),
        Mistake("multiplied by the utilisation", "A lower utilisation makes your run shorter. It must make it longer: divide by it.",
                edit=("* utilisation", "/ utilisation")),
        Mistake("one GPU pays for all", "The days are right. You paid for one GPU only; each of them costs its price an hour.",
                edit=("* gpus", "")),
        Mistake("one GPU works alone", "You let one GPU do all the work. Divide the time by their number.",
                edit=("(gpus * peak", "(peak")),
        Mistake("the price of a day", "The days are right, but price is for an hour: a day has 24.",
                edit=("24 *", "")),
        Mistake("hours for days", "Your days are hours: you divided the seconds by 3,600.",
                edit=("86_400", "3600")),
        Mistake("euros before days", "Both numbers are right, in the wrong order: return days, then euros.",
                wrap=lambda right: lambda *a: right(*a)[::-1]),
    ),
)  # fmt: skip
