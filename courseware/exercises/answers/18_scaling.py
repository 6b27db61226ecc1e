"""Exercises of chapter 18: gradients of unequal ranks, traffic, shards of another number, the optimum, days and euros."""

from __future__ import annotations

import math

import torch

from courseware.exercises.legacy import Exercise, WrongAnswer


def _number(value):
    """Return any kind of number as a float, so that it can be compared; a text stays what it is."""
    return value if isinstance(value, (str, bytes, bool)) else float(value)


def _many(n, word, plural="s"):
    return f"{n} {word}" + plural * (n != 1)


# --- the gradient of all ranks ---


def combined_gradient(gradients, counts):
    total = torch.zeros_like(gradients[0])
    for gradient, count in zip(gradients, counts):
        if count:
            total += gradient * count
    return total / sum(counts)


def _combined(weigh, divide, skip=True):
    def answer(gradients, counts):
        total = torch.zeros_like(gradients[0])
        for gradient, count in zip(gradients, counts):
            if count or not skip:
                total = total + gradient * weigh(count, counts)
        return total / divide(counts)

    return answer


def _swept(gradients, counts):
    return sum(torch.nan_to_num(g) * n for g, n in zip(gradients, counts)) / sum(counts)


def _without_nan(whole):
    def answer(gradients, counts):
        kept = [(g, n) for g, n in zip(gradients, counts) if not g.isnan().any()]
        total = sum((g * n for g, n in kept), torch.zeros_like(gradients[0]))
        return total / (sum(counts) if whole else max(1, sum(n for _, n in kept)))

    return answer


def _run_combined(answer):
    generator = torch.Generator().manual_seed(18)

    def ranks(*counts, shape=(3,)):
        gradients = [torch.randn(shape, generator=generator) for _ in counts]
        return gradients, list(counts)

    one = [torch.tensor([4.0]), torch.tensor([20.0])]
    yield "the two ranks of the chapter", answer(one, [3, 1])
    yield "three ranks, unequal counts", answer(*ranks(5, 1, 7))
    yield "a matrix", answer(*ranks(2, 9, shape=(2, 3)))
    yield "equal counts", answer(*ranks(4, 4, 4, 4))
    yield "one rank", answer(*ranks(6))
    gradients, counts = ranks(3, 0, 2)
    gradients[1] = torch.full((3,), math.nan)  # the mean of nothing
    yield "a rank without a target", answer(gradients, counts)
    gradients, counts = ranks(0, 5)
    gradients[0] = torch.full((3,), math.nan)
    yield "the first rank without a target", answer(gradients, counts)
    nan, fine = torch.tensor([1.0, math.nan]), torch.tensor([2.0, 3.0])
    yield "a nan on a rank with 2 targets", answer([nan, fine.clone()], [2, 2])
    yield "nothing but nan on a rank with 3 targets", answer([fine, nan * math.nan], [1, 3])


COMBINED = Exercise(
    name="combined_gradient",
    chapter=18,
    title="The gradient of all ranks",
    minutes=10,
    difficulty=1,
    hints=(
        "One process would take the mean over all targets. How many targets stand behind each rank's mean?",
        "A rank's mean times its count is the sum over its targets. Add up the sums, then divide once.",
        "A rank without targets brings nan, and 0 * nan is nan: leave it out, by its count. Any other nan must stay.",
    ),
    run=_run_combined,
    reference=combined_gradient,
    explanation="Sums may be added; means may not. Every target weighs the same, whatever rank it is on.",
    wrong=(
        WrongAnswer(
            "a mean of means",
            "You gave each rank the same weight. A target on a rank with few targets then weighs more than others: weigh by the counts.",
            'chapter 18, "Two ranks on paper"',
            _combined(lambda n, all_: 1, lambda all_: sum(1 for n in all_ if n)),
        ),
        WrongAnswer(
            "a mean of means, over all ranks",
            "You gave each rank the same weight, and counted those without a target too. Weigh by the counts.",
            'chapter 18, "Two ranks on paper"',
            _combined(lambda n, all_: 1, len),
        ),
        WrongAnswer(
            "summed, not averaged",
            "You added the ranks' means. The result grows with the number of ranks; divide the sum over all targets by their number.",
            "hint 2",
            _combined(lambda n, all_: 1, lambda all_: 1),
        ),
        WrongAnswer(
            "not divided",
            "You added up the sums, which is right, but did not divide by the number of all targets.",
            "hint 2",
            _combined(lambda n, all_: n, lambda all_: 1),
        ),
        WrongAnswer(
            "divided by the ranks",
            "You weighed by the counts, then divided by the number of ranks. Divide by the number of all targets.",
            "hint 2",
            _combined(lambda n, all_: n, len),
        ),
        WrongAnswer(
            "nothing times nan",
            "Where every rank has targets you are right. A rank without any has nan for its mean, and 0 * nan is nan.",
            "hint 3",
            _combined(lambda n, all_: n, sum, skip=False),
        ),
        WrongAnswer(
            "nan swept away",
            "You made every nan a 0. On a rank with targets a nan says that the run has diverged, and nobody would hear of it. Leave out the ranks with a count of 0, and nothing else.",
            "hint 3",
            _swept,
        ),
        WrongAnswer(
            "left out for its nan",
            "You left out every rank with a nan. If it has targets, its nan says that the run has diverged, and must stay. Ask for the count, not for nan.",
            "hint 3",
            _without_nan(whole=True),
        ),
        WrongAnswer(
            "left out for its nan, and its targets too",
            "You left out every rank with a nan, and did not count its targets. If it has any, its nan says that the run has diverged, and must stay. Ask for the count, not for nan.",
            "hint 3",
            _without_nan(whole=False),
        ),
        WrongAnswer(
            "weighed the wrong way round",
            "You divided each rank's mean by its count. A mean of many targets must weigh more, not less.",
            "hint 2",
            _combined(lambda n, all_: 1 / n, lambda all_: sum(1 / n for n in all_ if n)),
        ),
    ),
)

# --- bytes on the wire ---


def bytes_sent(weights, ranks, parallel, micro_batches):
    ring = (ranks - 1) / ranks
    if parallel == "ddp":
        return 2 * ring * 4 * weights
    return ring * (4 * weights + micro_batches * 2 * 2 * weights)


def _sent(
    *, ddp=2, fsdp=1, each=lambda W: (W - 1) / W, gathers=2, grads=4, size=2, often=(), once=False
):
    def answer(weights, ranks, parallel, micro_batches):
        times = micro_batches if parallel in often else 1
        if parallel == "ddp":
            return ddp * each(ranks) * grads * weights * times
        gathered = (1 if once else micro_batches) * gathers * size * weights
        return each(ranks) * (fsdp * grads * weights * times + gathered)

    return answer


def _in_pieces(size_of):
    def answer(weights, ranks, parallel, micro_batches):
        return bytes_sent(size_of(weights, ranks) * ranks, ranks, parallel, micro_batches)

    return answer


def _run_sent(answer):
    for weights, ranks, parallel, micro_batches in (
        (1000, 2, "ddp", 1), (1000, 4, "ddp", 3), (12, 3, "ddp", 1), (124_000_000, 8, "ddp", 5),
        (1000, 2, "fsdp", 1), (1000, 4, "fsdp", 3), (8_000_000_000, 64, "fsdp", 2), (500, 1, "ddp", 2), (500, 1, "fsdp", 4),
        (1001, 2, "ddp", 1), (1001, 2, "fsdp", 3),
    ):  # fmt: skip
        turns = _many(micro_batches, "micro-batch", "es")
        words = f"{weights} weights, {_many(ranks, 'rank')}, {parallel}, {turns}"
        yield words, _number(answer(weights, ranks, parallel, micro_batches))


SENT = Exercise(
    name="bytes_sent",
    chapter=18,
    title="Bytes on the wire",
    minutes=15,
    difficulty=2,
    hints=(
        "An all-reduce is a reduce-scatter and an all-gather, and each of the two sends (W - 1) / W of the numbers.",
        "Gradients travel once a step, 4 bytes each. With FSDP they need the reduce-scatter alone.",
        "FSDP: (W - 1) / W * (4 * weights + micro_batches * 2 * 2 * weights): two gatherings of 2 bytes a weight.",
    ),
    run=_run_sent,
    reference=bytes_sent,
    explanation="DDP sends the same for any number of micro-batches; FSDP pays for its small memory with every one.",
    wrong=(
        WrongAnswer(
            "half a ring for DDP",
            "FSDP is right. DDP has half of what it should: you counted one half of the ring (after adding up, the sums must travel back to all), or 2 bytes for a gradient (it has 4).",
            'chapter 18, "What travels"',
            _sent(ddp=1),
        ),
        WrongAnswer(
            "a whole copy to everyone",
            "You took (W - 1) copies, or the bytes of all ranks together. You are asked for one rank: in a ring it sends (W - 1) pieces of 1 / W each.",
            'chapter 18, "What travels"',
            _sent(each=lambda W: W - 1),
        ),
        WrongAnswer(
            "without the (W - 1) / W",
            "For many ranks you are nearly right, but each rank keeps its own piece: it sends (W - 1) / W, and nothing when it is alone.",
            'chapter 18, "What travels"',
            _sent(each=lambda W: 1),
        ),
        WrongAnswer(
            "gathered once",
            "You gathered the weights once for each micro-batch. They are forgotten after forward, and gathered again for backward.",
            "hint 3",
            _sent(gathers=1),
        ),
        WrongAnswer(
            "gathered in float32",
            "You gathered the weights with 4 bytes each. They travel in bfloat16, 2 bytes.",
            "hint 3",
            _sent(size=4),
        ),
        WrongAnswer(
            "gradients in bfloat16",
            "You counted 2 bytes for a gradient. Gradients are summed in float32, 4 bytes.",
            "hint 2",
            _sent(grads=2),
        ),
        WrongAnswer(
            "gradients after every micro-batch",
            "You sent the gradients after every micro-batch. They stay at home until the last one.",
            'chapter 18, "Break it: talk after every micro-batch"',
            _sent(often=("ddp", "fsdp")),
        ),
        WrongAnswer(
            "DDP after every micro-batch",
            "FSDP is right. With DDP you sent the gradients after every micro-batch. They stay at home until the last one.",
            'chapter 18, "Break it: talk after every micro-batch"',
            _sent(often=("ddp",)),
        ),
        WrongAnswer(
            "FSDP's gradients after every micro-batch",
            "DDP is right. With FSDP you sent the gradients after every micro-batch too. Only the weights are gathered so often.",
            "hint 2",
            _sent(often=("fsdp",)),
        ),
        WrongAnswer(
            "a whole ring for FSDP's gradients",
            "DDP is right. With FSDP you sent the gradients by a whole ring. Each sum stays with the rank that owns the weight, so half a ring is enough.",
            "hint 2",
            _sent(fsdp=2),
        ),
        WrongAnswer(
            "pieces rounded down",
            "You rounded the pieces down, so the rest is never sent. All shares are equal here, even if that makes half a weight: divide with /, not with //.",
            "hint 1",
            _in_pieces(lambda n, W: n // W),
        ),
        WrongAnswer(
            "pieces rounded up",
            "You rounded the pieces up. PyTorch does pad them so, but here all shares are equal, even if that makes half a weight: divide with /.",
            "hint 1",
            _in_pieces(lambda n, W: -(-n // W)),
        ),
        WrongAnswer(
            "one micro-batch",
            "DDP is right. For FSDP you left out micro_batches, in each of which the weights are gathered, or you did not ask for `parallel` at all: both give twice (W - 1) / W * 4 * weights.",
            "hint 3",
            _sent(once=True),
        ),
    ),
)

# --- find the bug: shards for another number of ranks ---


def given_reshard(shards, world):
    numbers = [number for shard in shards for number in shard]
    size = len(numbers) // world
    return [numbers[rank * size : (rank + 1) * size] for rank in range(world)]


def reshard(shards, world):
    numbers = [number for shard in shards for number in shard]
    size = -(-len(numbers) // world)
    return [numbers[rank * size : (rank + 1) * size] for rank in range(world)]


def _run_reshard(answer):
    for shards, world in (
        ([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]], 2), ([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], 4), ([[7, 5, 3], [1]], 1),
        ([[4], [8], [6]], 3), ([[1, 2], [3, 4], [5], []], 3), ([[1, 2, 3]], 5), ([[1, 2, 3, 4, 5, 6, 7]], 3), ([[], []], 2),
        ([[1, 2, 3], [4]], 2), ([[0, 0, 1], [0, 1]], 2), ([[7]], 1024),
    ):  # fmt: skip
        found = answer([list(shard) for shard in shards], world)
        words = (
            f"{_many(sum(map(len, shards)), 'number')} from {_many(len(shards), 'rank')} to {world}"
        )
        yield words, [[int(number) for number in shard] for shard in found]


def _last_takes_rest(shards, world):
    found = given_reshard(shards, world)
    kept = sum(map(len, found))
    found[-1] = found[-1] + [n for shard in shards for n in shard][kept:]
    return found


def _even(shards, world):
    numbers = [number for shard in shards for number in shard]
    small, more = divmod(len(numbers), world)
    bounds = [0]
    for rank in range(world):
        bounds.append(bounds[-1] + small + (rank < more))
    return [numbers[a:b] for a, b in zip(bounds, bounds[1:])]


def _dealt(shards, world):
    numbers = [number for shard in shards for number in shard]
    return [numbers[rank::world] for rank in range(world)]


def _without_empty(shards, world):
    return [shard for shard in reshard(shards, world) if shard]


RESHARD = Exercise(
    name="reshard",
    chapter=18,
    title="find the bug: shards for another number of ranks",
    minutes=15,
    difficulty=2,
    hints=(
        "Ten numbers for four ranks: what does the given code give to each, and how many are there in all?",
        "// rounds down. What becomes of the rest?",
        "Round up: -(-n // world). The last ranks then have less, or nothing.",
    ),
    run=_run_reshard,
    reference=reshard,
    given=given_reshard,
    explanation="Rounding down loses the last n mod W numbers without a word: weights that no rank would ever load. Rounding up never does.",
    wrong=(
        WrongAnswer(
            "numbers lost",
            "When world does not divide the numbers, the last ones are on no rank at all. Print the shares of ten numbers on four ranks.",
            "hint 2",
            lambda shards, world: given_reshard(shards, world),
        ),
        WrongAnswer(
            "the last rank takes the rest",
            "Nothing is lost any more, but the last rank has the most, which it must have room for, and PyTorch cuts otherwise: ceil(n / world) each, the last ones less.",
            'chapter 18, "Who gets what"',
            _last_takes_rest,
        ),
        WrongAnswer(
            "as even as can be",
            "Your shares are as even as can be, and nothing is lost. But PyTorch gives every rank ceil(n / world) until nothing is left, and the shards must be those that it expects.",
            'chapter 18, "Who gets what"',
            _even,
        ),
        WrongAnswer(
            "dealt like cards",
            "You dealt the numbers one by one. A shard is a run of neighbours.",
            'chapter 18, "Who gets what"',
            _dealt,
        ),
        WrongAnswer(
            "ranks without numbers left out",
            "A rank with nothing is missing from your list. It needs its empty shard: all ranks take part.",
            "hint 3",
            _without_empty,
        ),
        WrongAnswer(
            "one number too many",
            "You added 1 to the quotient always. Where world divides the numbers, that is one too many for each rank: round up.",
            "hint 3",
            lambda shards, world: _cut(shards, world, lambda n: n // world + 1),
        ),
        WrongAnswer(
            "each shard cut by itself",
            "You cut every old shard by itself. Put all numbers together first, then cut.",
            "hint 1",
            lambda shards, world: [
                [n for shard in shards for n in reshard([shard], world)[rank]]
                for rank in range(world)
            ],
        ),
        WrongAnswer(
            "rounded to the nearest",
            "You rounded to the nearest whole number: 9 numbers on 4 ranks make 2 each, and one is lost. Round up.",
            "hint 3",
            lambda shards, world: _cut(shards, world, lambda n: round(n / world)),
        ),
        WrongAnswer(
            "not quite rounded up",
            "You added nearly 1 and cut off the fraction. One number on 1,024 ranks is lost that way: round up with -(-n // world) or math.ceil.",
            "hint 3",
            lambda shards, world: _cut(shards, world, lambda n: int(n / world + 0.99)),
        ),
        WrongAnswer(
            "the old shards kept",
            "You left the shards as they were when the number of ranks stays the same. They may have been cut in another way: cut them again.",
            "hint 1",
            lambda shards, world: shards if len(shards) == world else reshard(shards, world),
        ),
        WrongAnswer(
            "equal numbers dropped",
            "You kept each number once. Two weights may have the same value, and both must stay: what counts is the place.",
            "hint 1",
            lambda shards, world: reshard([list(dict.fromkeys(sum(shards, [])))], world),
        ),
    ),
)


def _cut(shards, world, size_of):
    numbers = [number for shard in shards for number in shard]
    size = size_of(len(numbers))
    return [numbers[rank * size : (rank + 1) * size] for rank in range(world)]


# --- the best size for a budget ---


def best_size(flops, A, B, alpha, beta):
    n = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (flops / 6) ** (beta / (alpha + beta))
    return n, flops / 6 / n


def _best(
    *,
    cost=6,
    ratio=lambda A, B, a, b: a * A / (b * B),
    root=lambda a, b: 1 / (a + b),
    power=lambda a, b: b / (a + b),
    tokens=None,
    swap=False,
):
    def answer(flops, A, B, alpha, beta):
        n = ratio(A, B, alpha, beta) ** root(alpha, beta) * (flops / cost) ** power(alpha, beta)
        d = tokens(flops, n) if tokens else flops / cost / n
        return (d, n) if swap else (n, d)

    return answer


def _run_best(answer):
    for words, flops, law in (
        ("the law of Hoffmann et al.", 5.76e23, (406.4, 410.7, 0.34, 0.28)),
        ("the law of Besiroglu et al.", 5.76e23, (482.01, 2085.43, 0.3478, 0.3658)),
        ("numbers for paper", 6e4, (1.0, 1.0, 0.5, 0.5)),
        ("words are dear", 6e10, (2.0, 50.0, 0.3, 0.5)),
        ("a small budget", 1e12, (30.0, 7.0, 0.6, 0.2)),
    ):
        n, d = answer(flops, *law)
        yield f"{words}: weights", _number(n)
        yield f"{words}: tokens", _number(d)


BEST = Exercise(
    name="best_size",
    chapter=18,
    title="The best size for a budget",
    minutes=25,
    difficulty=3,
    hints=(
        "Put D = flops / (6 N) into A / N^alpha + B / D^beta. Now only N is left.",
        "Set the derivative to zero: alpha * A * N^-alpha = beta * B * D^-beta. Both sides fall by the same share.",
        "N^(alpha + beta) = alpha * A / (beta * B) * (flops / 6)^beta. Take the root of order alpha + beta.",
    ),
    run=_run_best,
    tolerance=1e-4,  # rounded to whole numbers, or the best of a fine grid, is right too
    reference=best_size,
    explanation="At the best size the two terms have equal slopes, not equal values. E plays no part: it cannot be bought.",
    wrong=(
        WrongAnswer(
            "the exponent of the tokens",
            "Your budget has the exponent alpha / (alpha + beta). That is the one of the tokens: weights grow with beta / (alpha + beta).",
            "hint 3",
            _best(power=lambda a, b: a / (a + b)),
        ),
        WrongAnswer(
            "equal terms instead of equal slopes",
            "You made the two terms equal: A / N^alpha = B / D^beta. The best is where their slopes are equal: alpha and beta come down as factors.",
            "hint 2",
            _best(ratio=lambda A, B, a, b: A / B),
        ),
        WrongAnswer(
            "the ratio upside down",
            "Your ratio is upside down. The larger A is, the dearer is a small model, so N must grow with A.",
            "hint 3",
            _best(ratio=lambda A, B, a, b: b * B / (a * A)),
        ),
        WrongAnswer(
            "the root forgotten",
            "The ratio needs the root too: it stands inside N^(alpha + beta).",
            "hint 3",
            _best(root=lambda a, b: 1),
        ),
        WrongAnswer(
            "without the 6",
            "You set N D = flops. A weight costs 6 FLOPs for each token.",
            'chapter 18, "How long should the text be?"',
            _best(cost=1),
        ),
        WrongAnswer(
            "tokens before weights",
            "Both numbers are right, in the wrong order: return weights, then tokens.",
            "hint 3",
            _best(swap=True),
        ),
        WrongAnswer(
            "half and half",
            "You gave weights and tokens equal exponents, 1/2. That is so only if alpha = beta.",
            "hint 3",
            _best(power=lambda a, b: 0.5),
        ),
        WrongAnswer(
            "twenty tokens for each weight",
            "That is the rule of thumb, whatever the law says. Here you are asked for the optimum of the law that is given.",
            'chapter 18, "How long should the text be?"',
            lambda flops, *law: (math.sqrt(flops / 120), 20 * math.sqrt(flops / 120)),
        ),
        WrongAnswer(
            "twenty tokens for each of the best weights",
            "The weights are right. For the tokens you took the rule of thumb, and 6 N D is not your budget any more: D = flops / (6 N).",
            "hint 1",
            _best(tokens=lambda flops, n: 20 * n),
        ),
        WrongAnswer(
            "tokens without the 6",
            "The weights are right. Your tokens are flops / N, six times what the budget pays for: D = flops / (6 N).",
            "hint 1",
            _best(tokens=lambda flops, n: flops / n),
        ),
        WrongAnswer(
            "without the ratio",
            "Your exponents are right, but A and B play no part. A large A makes a small model dear: the ratio alpha * A / (beta * B) is missing.",
            "hint 3",
            _best(ratio=lambda A, B, a, b: 1),
        ),
    ),
)

# --- days and euros ---


def days_and_euros(weights, tokens, gpus, peak, utilisation, price):
    days = 6 * weights * tokens / (gpus * peak * utilisation) / 86_400
    return days, 24 * days * gpus * price


def _bill(
    *, cost=6, use=lambda u: u, divide=86_400, hours=24, fleet=True, all_gpus=True, swap=False
):
    def answer(weights, tokens, gpus, peak, utilisation, price):
        speed = (gpus if all_gpus else 1) * peak * use(utilisation)
        days = cost * weights * tokens / speed / divide
        euros = hours * days * (gpus if fleet else 1) * price
        return (euros, days) if swap else (days, euros)

    return answer


def _run_bill(answer):
    for words, *case in (
        ("GPT-2 on one machine", 124e6, 1e10, 8, 989e12, 0.4, 2.5),
        ("Llama 3 8B", 8.03e9, 15e12, 1024, 989e12, 0.35, 3.0),
        ("one slow GPU", 44e6, 6e8, 1, 20e12, 0.25, 0.4),
        ("a large fleet", 405e9, 15.6e12, 16_384, 989e12, 0.41, 2.0),
        ("for nothing", 1e9, 1e10, 4, 312e12, 0.5, 0.0),
    ):
        days, euros = answer(*case)
        yield f"{words}: days", _number(days)
        yield f"{words}: euros", _number(euros)


BILL = Exercise(
    name="days_and_euros",
    chapter=18,
    title="Days and euros",
    minutes=10,
    difficulty=1,
    hints=(
        "6 FLOPs for each weight and token: how many in all?",
        "The fleet does gpus * peak * utilisation of them in a second. A day has 86,400 seconds.",
        "You pay for each GPU and each hour: 24 * days * gpus * price.",
    ),
    run=_run_bill,
    tolerance=1e-4,  # euros rounded to the cent are right too
    reference=days_and_euros,
    explanation="More GPUs make it faster, not cheaper: the number of GPUs cancels out of the price, as long as the utilisation stays the same.",
    wrong=(
        WrongAnswer(
            "forward alone",
            "You counted 2 FLOPs for each weight and token. That is forward; backward costs twice as much again.",
            'chapter 18, "How long should the text be?"',
            _bill(cost=2),
        ),
        WrongAnswer(
            "the 6 forgotten",
            "You counted 1 FLOP for each weight and token. It is 6: 2 forward, 4 backward.",
            "hint 1",
            _bill(cost=1),
        ),
        WrongAnswer(
            "the promise of the data sheet",
            "You took the peak of the data sheet. A run gets only a share of it: the utilisation.",
            'chapter 18, "The bill"',
            _bill(use=lambda u: 1),
        ),
        WrongAnswer(
            "multiplied by the utilisation",
            "A lower utilisation makes your run shorter. It must make it longer: divide by it.",
            "hint 2",
            _bill(use=lambda u: 1 / u),
        ),
        WrongAnswer(
            "one GPU pays for all",
            "The days are right. You paid for one GPU only; each of them costs its price an hour.",
            "hint 3",
            _bill(fleet=False),
        ),
        WrongAnswer(
            "one GPU works alone",
            "You let one GPU do all the work. Divide the time by their number.",
            "hint 2",
            _bill(all_gpus=False),
        ),
        WrongAnswer(
            "the price of a day",
            "The days are right, but price is for an hour: a day has 24.",
            "hint 3",
            _bill(hours=1),
        ),
        WrongAnswer(
            "hours for days",
            "Your days are hours: you divided the seconds by 3,600.",
            "hint 2",
            _bill(divide=3600),
        ),
        WrongAnswer(
            "hours for days, with the right price",
            "The euros are right. But your days are hours: you divided the seconds by 3,600.",
            "hint 2",
            _bill(divide=3600, hours=1),
        ),
        WrongAnswer(
            "euros before days",
            "Both numbers are right, in the wrong order: return days, then euros.",
            'chapter 18, "The bill"',
            _bill(swap=True),
        ),
    ),
)

EXERCISES = (COMBINED, SENT, RESHARD, BEST, BILL)
