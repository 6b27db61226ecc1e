"""Exercises of chapter 12: perplexity, bits per byte, windows, the price of an answer, accuracy, calibration."""

from __future__ import annotations

import math
import statistics

import torch

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- the perplexity of a text in blocks ---


def text_perplexity(blocks):
    prices = [price for block in blocks for price in block]
    return math.exp(sum(prices) / len(prices))


def _flat(blocks):
    return [price for block in blocks for price in block]


def _mean_of_exp(blocks):
    return statistics.fmean(math.exp(price) for price in _flat(blocks))


def _mean_of_means(blocks):
    return math.exp(statistics.fmean(statistics.fmean(block) for block in blocks if len(block)))


def _mean_of_perplexities(blocks):
    return statistics.fmean(math.exp(statistics.fmean(block)) for block in blocks if len(block))


def _root_at_the_end(blocks):
    return math.exp(sum(_flat(blocks))) ** (1 / len(_flat(blocks)))


def _or_infinite(answer, blocks):
    """Take math.exp's OverflowError for the infinity that other libraries return."""
    try:
        return float(answer(blocks))
    except OverflowError:
        return math.inf


def _run_perplexity(answer):
    yield "the letters of the chapter", float(answer([[math.log(2), math.log(4), math.log(8)]]))
    yield "two blocks, the second shorter", float(answer([[1.0, 2.0, 3.0, 0.5], [4.0, 2.5]]))
    yield (
        "blocks of 1, 5 and 2 tokens",
        float(answer([[6.0], [0.1, 0.2, 0.3, 0.4, 0.5], [2.0, 0.0]])),
    )
    yield "an empty block among others", float(answer([[0.7, 1.9], [], [2.2]]))
    yield "one token", float(answer([[0.25]]))
    yield "800 tokens", _or_infinite(answer, [[1.5] * 500, [2.5] * 300])
    yield "equal prices", float(answer([[1.0, 1.0, 1.0], [4.0]]))
    yield "a very high price", float(answer([[9.0, 8.0]]))
    yield "certainty", float(answer([[0.0, 0.0], [0.0]]))
    yield "an empty block first", float(answer([[], [1.0, 2.0]]))


PERPLEXITY = Exercise(
    name="text_perplexity",
    chapter=12,
    title="The perplexity of a text in blocks",
    minutes=10,
    difficulty=1,
    hints=(
        "Which numbers may be averaged: probabilities, their logarithms, or perplexities?",
        "A token counts the same whether its block is long or short. So add up all tokens first.",
        "math.exp(total / count), where total and count go over all blocks.",
    ),
    run=_run_perplexity,
    reference=text_perplexity,
    explanation="Predictions multiply, so their logarithms add: one sum, one count, and a single exponential at the end.",
    wrong=(
        WrongAnswer(
            "the mean of exponentials",
            "You turned each token into a perplexity and averaged those. Average the nats first, then take the exponential once.",
            'chapter 12, "Three predictions on paper"',
            _mean_of_exp,
        ),
        WrongAnswer(
            "a mean of block means",
            "You averaged each block and then the blocks, so a token of a short block weighs more. Add up all tokens of all blocks.",
            'chapter 12, "Break it: count the overlap twice"',
            _mean_of_means,
        ),
        WrongAnswer(
            "a mean of block perplexities",
            "You averaged the perplexities of the blocks. Perplexities cannot be averaged; the nats of all tokens can.",
            'chapter 12, "Three predictions on paper"',
            _mean_of_perplexities,
        ),
        WrongAnswer(
            "the sum instead of the mean",
            "You took the exponential of the sum, which is 1 / the probability of the whole text. Divide by the number of tokens first.",
            'chapter 12, "Three predictions on paper"',
            lambda blocks: math.exp(sum(_flat(blocks))),
        ),
        WrongAnswer(
            "the root at the end",
            "On paper you are right, but the exponential of a long text's sum is more than a float can hold. Divide by the number of tokens first.",
            "hint 3",
            _root_at_the_end,
        ),
        WrongAnswer(
            "divided by the number of blocks",
            "You divided by the number of blocks. The mean is per token.",
            "hint 2",
            lambda blocks: math.exp(sum(_flat(blocks)) / len(blocks)),
        ),
        WrongAnswer(
            "the loss, not the perplexity",
            "That is the mean loss in nats. The perplexity is e to this power.",
            'chapter 12, "Three predictions on paper"',
            lambda blocks: statistics.fmean(_flat(blocks)),
        ),
        WrongAnswer(
            "two to the power of nats",
            "You raised 2 to a number of nats. Two belongs to bits; nats want e.",
            'chapter 12, "Three predictions on paper"',
            lambda blocks: 2 ** statistics.fmean(_flat(blocks)),
        ),
        WrongAnswer(
            "the first block alone",
            "Only the first block counted. The text is all of them.",
            "hint 2",
            lambda blocks: math.exp(sum(blocks[0]) / len(blocks[0])),
        ),
    ),
)

# --- nats per token to bits per byte ---


def to_bits_per_byte(text, loss, n_tokens):
    return loss * n_tokens / math.log(2) / len(text.encode("utf-8"))


_PER_NAT = 1 / math.log(2)  # bits


def _bits(size, factor=_PER_NAT, total=True):
    return lambda text, loss, n: loss * (n if total else 1) * factor / size(text)


def _run_bits(answer):
    yield "plain letters", float(answer("to be", 1.2, 5))
    yield "letters with accents", float(answer("déjà vu à Nîmes", 1.7, 9))
    yield "euro signs and a smile", float(answer("5 € für 🙂", 2.25, 4))
    yield "spaces and line breaks", float(answer("  one\n\ntwo \t three\n", 0.9, 7))
    yield "one token for all", float(answer("κόσμος", 3.5, 1))
    yield "a long text", float(answer("abc ü" * 500, 2.0, 700))
    yield "an accent of its own", float(answer("e\u0301a", 2.0, 3))
    yield "a line break of two characters", float(answer("a\r\nb", 2.0, 3))
    yield "Japanese", float(answer("日本語", 3.0, 2))


BITS = Exercise(
    name="to_bits_per_byte",
    chapter=12,
    title="Nats per token to bits per byte",
    minutes=10,
    difficulty=1,
    hints=(
        "Nats per token, times the number of tokens, are the nats of the whole text.",
        "1 bit is ln 2 = 0.693 nats. So the number of bits is larger than the number of nats.",
        'The bytes are len(text.encode("utf-8")), not len(text): é has two.',
    ),
    run=_run_bits,
    reference=to_bits_per_byte,
    explanation="The tokens cancel: what is left is the price of the text, divided by something that no tokenizer can change.",
    wrong=(
        WrongAnswer(
            "characters instead of bytes",
            "For plain English you are right, but you divided by characters. UTF-8 needs two bytes for é and four for a smile.",
            'chapter 12, "A currency for all tokenizers"',
            _bits(len),
        ),
        WrongAnswer(
            "nats per byte",
            "These are nats per byte. Divide by ln 2 to get bits.",
            'chapter 12, "A currency for all tokenizers"',
            _bits(lambda text: len(text.encode()), 1.0),
        ),
        WrongAnswer(
            "multiplied by ln 2",
            "You multiplied by ln 2. A nat is more than a bit, so there must be more bits than nats: divide.",
            "hint 2",
            _bits(lambda text: len(text.encode()), math.log(2)),
        ),
        WrongAnswer(
            "the tokens are forgotten",
            "You divided the loss of one token by the bytes of the whole text. Multiply by n_tokens first.",
            "hint 1",
            _bits(lambda text: len(text.encode()), total=False),
        ),
        WrongAnswer(
            "bits per token",
            "These are bits per token, and tokens differ between tokenizers. Multiply by n_tokens and divide by the bytes.",
            'chapter 12, "A currency for all tokenizers"',
            lambda text, loss, n: loss / math.log(2),
        ),
        WrongAnswer(
            "bytes of UTF-16",
            "You counted the bytes of UTF-16. The convention is UTF-8.",
            "hint 3",
            _bits(lambda text: len(text.encode("utf-16-le"))),
        ),
        WrongAnswer(
            "nats per character",
            "Two things are missing: these are nats, not bits, and characters, not bytes.",
            'chapter 12, "A currency for all tokenizers"',
            _bits(len, 1.0),
        ),
        WrongAnswer(
            "divided by the bytes of each token",
            "You divided by n_tokens, too. Nats per token are to be multiplied by the number of tokens.",
            "hint 1",
            lambda text, loss, n: loss / math.log(2) / n / len(text.encode()),
        ),
    ),
)

# --- the plan of a sliding window ---


def window_plan(n, block, stride):
    block = min(block, n - 1)
    last = n - block - 1
    plan, done = [], 1
    for begin in [*range(0, last, stride), last]:
        plan.append((begin, list(range(done, begin + block + 1))))
        done = begin + block + 1
    return plan


def _plan(*, last="full", count="new", first=1, step=0, short=True, tail=True):
    def answer(n, block, stride):
        block = min(block, n - 1) if short else block
        stride = stride or step
        begins = list(range(0, n - block - 1, stride))
        if tail:
            begins.append(
                n - block - 1 if last == "full" else (begins[-1] + stride if begins else 0)
            )
        plan, done = [], first
        for begin in begins:
            end = min(begin + block + 1, n)
            if count == "new":
                counted = range(done, end)
            elif count == "all":
                counted = range(begin + 1, end)
            elif count == "stride":
                counted = range(max(end - stride, begin + 1), end)
            elif count == "inputs":
                counted = range(max(done, begin + 1) - 1, end - 1)
            elif count == "last":
                counted = range(done if not begin else end - min(stride, end - 1), end)
            plan.append((begin, list(counted)))
            done = end
        return plan

    return answer


def _run_plan(answer):
    for n, block, stride in (
        (11, 4, 2), (11, 4, 4), (12, 4, 2), (14, 5, 3), (10, 3, 1), (9, 8, 5), (5, 8, 4), (6, 8, 8), (2, 3, 1), (23, 6, 5), (5, 1, 1), (40, 20, 13),
    ):  # fmt: skip
        plan = answer(n, block, stride)
        label = f"{n} tokens, block {block}, stride {stride}"
        yield label, [(int(begin), [int(i) for i in counted]) for begin, counted in plan]


PLAN = Exercise(
    name="window_plan",
    chapter=12,
    title="The plan of a sliding window",
    minutes=25,
    difficulty=3,
    hints=(
        "A window that begins at b reads the tokens b to b + block - 1 and can predict b + 1 to b + block.",
        "Keep a number `done`: the first token that nobody has counted. It starts at 1. A window counts from `done` to its own end.",
        "The last window begins at n - block - 1, so that it ends with the text: begins = [*range(0, last, stride), last]. "
        "If the text is shorter than a block, the block shrinks to n - 1.",
    ),
    run=_run_plan,
    reference=window_plan,
    explanation="One number, `done`, is enough to count each token once, whatever the block, the stride and the tail are.",
    wrong=(
        WrongAnswer(
            "the overlap counted twice",
            "Each window counts all its targets, so those in the overlap count twice. Count only what no window before has counted.",
            'chapter 12, "Break it: count the overlap twice"',
            _plan(count="all"),
        ),
        WrongAnswer(
            "the first window counts a stride only",
            "Your windows count their last `stride` targets. In the first window nothing was counted before, so all of it counts.",
            'chapter 12, "A text that is longer than the model"',
            _plan(count="stride"),
        ),
        WrongAnswer(
            "the tail counted as a whole stride",
            "All is right until the last window, which was moved back: you count a whole stride there, but part of it was counted before.",
            "hint 2",
            _plan(count="last"),
        ),
        WrongAnswer(
            "the last window hangs over",
            "Your last window begins a stride after the one before, so it is not full. Move it back until it ends with the text.",
            'chapter 12, "A text that is longer than the model"',
            _plan(last="planned"),
        ),
        WrongAnswer(
            "the tail is left out",
            "The tokens after the last full stride are never counted. One more window must end with the text.",
            'chapter 12, "A text that is longer than the model"',
            _plan(tail=False),
        ),
        WrongAnswer(
            "the first token is predicted",
            "You count token 0. Nothing stands before it, so it is given: `done` starts at 1.",
            "hint 2",
            _plan(first=0),
        ),
        WrongAnswer(
            "inputs instead of targets",
            "You list the tokens that are read. Counted are those that are predicted: one further on.",
            "hint 1",
            _plan(count="inputs"),
        ),
        WrongAnswer(
            "a short text is not thought of",
            "When the text is shorter than a block, your window begins before the text. The block shrinks to n - 1 then.",
            "hint 3",
            _plan(short=False),
        ),
    ),
)

# --- find the bug: the price of an answer ---


def given_answer_score(logits, ids, n_prompt):
    log_probs = logits.log_softmax(dim=-1)
    total = 0.0
    for t in range(n_prompt, len(ids)):
        total += log_probs[t, ids[t]].item()
    return total / (len(ids) - n_prompt)


def answer_score(logits, ids, n_prompt):
    log_probs = logits.log_softmax(dim=-1)
    total = 0.0
    for t in range(n_prompt, len(ids)):
        total += log_probs[t - 1, ids[t]].item()
    return total / (len(ids) - n_prompt)


def _score(
    where="answer", divide="answer", shift=1, values=lambda logits: logits.log_softmax(dim=-1)
):
    def answer(logits, ids, n_prompt):
        T, prices = len(ids), values(logits)
        places = range({"answer": n_prompt, "all": 1, "late": n_prompt + 1}[where], T)
        total = sum(float(prices[t - shift, ids[t]]) for t in places)
        sizes = {"answer": T - n_prompt, "all": T, "none": 1, "counted": max(1, len(places))}
        return total / sizes[divide]

    return answer


def _run_score(answer):
    generator = torch.Generator().manual_seed(12)
    for T, V, n_prompt in ((5, 7, 2), (9, 4, 6), (6, 11, 1), (4, 3, 3), (12, 5, 4)):
        logits = 2 * torch.randn(T, V, generator=generator)
        ids = torch.randint(V, (T,), generator=generator)
        value = answer(logits.clone(), ids.clone(), n_prompt)
        yield f"{T} ids, {n_prompt} of them the prompt", float(value)
    for spread in (60, 200):
        logits = spread * torch.randn(8, 5, generator=generator)
        ids = torch.randint(5, (8,), generator=generator)
        yield f"logits around ±{spread}", float(answer(logits.clone(), ids.clone(), 3))


SCORE = Exercise(
    name="answer_score",
    chapter=12,
    title="find the bug: the price of an answer",
    minutes=15,
    difficulty=2,
    hints=(
        "logits[t] is what the model says after it has read ids[t]. Which id is it about?",
        "Print t and ids[t] for a prompt of two ids. Where do the logits stand that predict the first id of the answer?",
        "The id at place t is predicted by the logits at place t - 1.",
    ),
    run=_run_score,
    reference=answer_score,
    given=given_answer_score,
    explanation="Logits at a place are about the next one, so the first token of the answer is priced by the last token of the prompt.",
    wrong=(
        WrongAnswer(
            "compared with the logits after it",
            "You look up each id in the logits of its own place. Those come after the id was read and are about the next one.",
            'chapter 12, "The price of each token"',
            _score(shift=0),
        ),
        WrongAnswer(
            "the first token of the answer left out",
            "Your prices are right, but the first token of the answer is missing. It is predicted from the last token of the prompt.",
            "hint 2",
            _score("late"),
        ),
        WrongAnswer(
            "the first token left out, and not divided by",
            "The first token of the answer is missing, in the sum and in the number that you divide by.",
            "hint 2",
            _score("late", divide="counted"),
        ),
        WrongAnswer(
            "the prompt scored too",
            "You added the prices of the prompt. Only those of the answer say how well it follows.",
            'chapter 12, "Questions with a few answers"',
            _score("all"),
        ),
        WrongAnswer(
            "the mean over prompt and answer",
            "You scored the whole text, prompt and answer. Only the tokens of the answer count, above and below the line.",
            'chapter 12, "Questions with a few answers"',
            _score("all", divide="counted"),
        ),
        WrongAnswer(
            "divided by the whole length",
            "You divided by the length of prompt and answer. A long question would make every answer look likely.",
            'chapter 12, "Questions with a few answers"',
            _score(divide="all"),
        ),
        WrongAnswer(
            "not divided at all",
            "You returned the sum. Here the score is the mean per token of the answer.",
            'chapter 12, "Break it: long answers never win"',
            _score(divide="none"),
        ),
        WrongAnswer(
            "logits instead of log-probabilities",
            "You added raw logits. Keep log_softmax: only then are numbers from different places comparable.",
            'chapter 12, "The price of each token"',
            _score(values=lambda logits: logits),
        ),
        WrongAnswer(
            "probabilities instead of logarithms",
            "You averaged probabilities. They multiply; it is their logarithms that add.",
            'chapter 12, "Three predictions on paper"',
            _score(values=lambda logits: logits.softmax(dim=-1)),
        ),
        WrongAnswer(
            "two places back",
            "You went one place too far: the logits at t - 1 are about the id at t.",
            "hint 3",
            lambda logits, ids, n: given_answer_score(logits.roll(2, 0), ids, n),
        ),
    ),
)

# --- accuracy with an error bar ---


def accuracy_with_error(totals, lengths, answers):
    right = []
    for row, sizes, answer in zip(totals, lengths, answers):
        scores = [total / size for total, size in zip(row, sizes)]
        right.append(scores.index(max(scores)) == answer)
    n = len(right)
    share = sum(right) / n
    variance = sum((r - share) ** 2 for r in right) / (n - 1)
    return share, math.sqrt(variance / n)


def _accuracy(score=lambda total, size: total / size, best=max, last=False, error="right"):
    def answer(totals, lengths, answers):
        right = []
        for row, sizes, correct in zip(totals, lengths, answers):
            scores = [score(total, size) for total, size in zip(row, sizes)]
            places = [i for i, s in enumerate(scores) if s == best(scores)]
            right.append(float(places[-1 if last else 0] == correct))
        n, share = len(right), statistics.fmean(right)
        errors = {
            "right": statistics.stdev(right) / math.sqrt(n),
            "population": statistics.pstdev(right) / math.sqrt(n),
            "deviation": statistics.stdev(right),
            "by n": statistics.stdev(right) / n,
            "variance": statistics.variance(right) / n,
            "double": 1.96 * statistics.stdev(right) / math.sqrt(n),
        }
        return share, errors[error]

    return answer


def _run_accuracy(answer):
    def ask(totals, lengths, answers):
        share, error = answer(
            [list(row) for row in totals], [list(row) for row in lengths], list(answers)
        )
        return [float(share), float(error)]

    yield "no or yes", ask([(-2.30, -2.59), (-4.0, -9.0)], [(2, 3), (2, 3)], [1, 1])
    yield (
        "three, four and two choices",
        ask(
            [(-9.0, -4.0, -6.0), (-5.0, -8.0, -3.0, -7.5), (-2.0, -6.6)],
            [(9, 2, 4), (5, 4, 1, 5), (1, 6)],
            [0, 0, 0],
        ),
    )
    yield (
        "equal scores",
        ask(
            [(-2.0, -4.0, -6.0), (-3.0, -2.0), (-1.0, -2.0)], [(1, 2, 3), (3, 2), (1, 2)], [0, 1, 0]
        ),
    )
    yield "all right", ask([(-1.0, -9.0)] * 4, [(3, 3)] * 4, [0] * 4)
    yield "all wrong", ask([(-1.0, -9.0)] * 3, [(3, 3)] * 3, [1] * 3)
    yield (
        "the last of four is right",
        ask([(-9.0, -8.0, -7.0, -1.0), (-3.0, -2.0)], [(1, 1, 1, 1), (1, 1)], [3, 0]),
    )
    yield (
        "scores that are close together",
        ask([(-1.24, -1.19), (-2.5, -2.45), (-1.0, -3.0)], [(1, 1)] * 3, [1, 1, 1]),
    )
    yield "a longer answer that wins", ask([(-2.0, -2.3), (-4.0, -1.0)], [(3, 1), (2, 1)], [0, 0])
    totals = [
        (-float(7 * i % 11) - 1, -float(5 * i % 13) - 2, -float(3 * i % 7) - 3) for i in range(25)
    ]
    lengths = [(1 + i % 4, 2 + i % 3, 1 + i % 6) for i in range(25)]
    yield "25 questions", ask(totals, lengths, [i % 3 for i in range(25)])
    totals = [(-1.0 - 0.05 * (7 * i % 13), -1.27) for i in range(40)]
    yield "40 questions", ask(totals, [(1, 1)] * 40, [i % 2 for i in range(40)])


ACCURACY = Exercise(
    name="accuracy_with_error",
    chapter=12,
    title="Accuracy with an error bar",
    minutes=25,
    difficulty=2,
    hints=(
        "For each question divide each sum by its own length; the largest score wins. row.index(max(row)) takes the first of equals.",
        "Make a list of 1 for each right answer and 0 for each wrong one. Its mean is the accuracy.",
        "The standard error is the sample's standard deviation (it divides by n - 1), over sqrt(n): statistics.stdev(right) / math.sqrt(n).",
    ),
    run=_run_accuracy,
    reference=accuracy_with_error,
    explanation="The mean of zeros and ones is the accuracy, and the same list knows how far it may be off.",
    wrong=(
        WrongAnswer(
            "not divided by the length",
            "You compared the sums. A long answer has a lower sum because it has more factors: divide by its length.",
            'chapter 12, "Break it: long answers never win"',
            _accuracy(lambda total, size: total),
        ),
        WrongAnswer(
            "multiplied by the length",
            "You multiplied by the length, which punishes long answers twice. Divide.",
            'chapter 12, "Questions with a few answers"',
            _accuracy(lambda total, size: total * size),
        ),
        WrongAnswer(
            "probabilities divided by the length",
            "You divided probabilities by the length. Divide their logarithms: the mean of ln p is what is compared.",
            'chapter 12, "Questions with a few answers"',
            _accuracy(lambda total, size: math.exp(total) / size),
        ),
        WrongAnswer(
            "the least likely answer",
            "You took the lowest score. Log-probabilities are negative, and the likeliest answer is nearest to 0: the largest.",
            'chapter 12, "Questions with a few answers"',
            _accuracy(best=min),
        ),
        WrongAnswer(
            "the last of equal scores",
            "When scores are equal you take the last choice. The first one counts.",
            "hint 1",
            _accuracy(last=True),
        ),
        WrongAnswer(
            "divided by n instead of n - 1",
            "The accuracy is right. For the error, the standard deviation of a sample divides by n - 1, since the mean was estimated, too.",
            'chapter 12, "How sure may we be?"',
            _accuracy(error="population"),
        ),
        WrongAnswer(
            "the deviation of one question",
            "The accuracy is right. You returned how far one question is off; the mean of n questions is off by sqrt(n) times less.",
            'chapter 12, "How sure may we be?"',
            _accuracy(error="deviation"),
        ),
        WrongAnswer(
            "divided by n instead of its root",
            "The accuracy is right. Errors shrink with the square root of n, not with n.",
            'chapter 12, "How sure may we be?"',
            _accuracy(error="by n"),
        ),
        WrongAnswer(
            "the variance",
            "The accuracy is right. You returned the square of the standard error: take the root.",
            'chapter 12, "How sure may we be?"',
            _accuracy(error="variance"),
        ),
        WrongAnswer(
            "a 95% interval",
            "The accuracy is right. You returned half of a 95% interval, 1.96 standard errors; asked was one.",
            'chapter 12, "Is the difference real?"',
            _accuracy(error="double"),
        ),
    ),
)

# --- find the bug: the calibration error ---


def given_calibration_error(confidence, correct, bins):
    gaps = []
    for i in range(bins):
        inside = [(c, r) for c, r in zip(confidence, correct) if i / bins < c <= (i + 1) / bins]
        if inside:
            sure = sum(c for c, r in inside) / len(inside)
            right = sum(r for c, r in inside) / len(inside)
            gaps.append(abs(sure - right))
    return sum(gaps) / len(gaps)


def calibration_error(confidence, correct, bins):
    error = 0.0
    for i in range(bins):
        inside = [(c, r) for c, r in zip(confidence, correct) if i / bins < c <= (i + 1) / bins]
        if inside:
            sure = sum(c for c, r in inside) / len(inside)
            right = sum(r for c, r in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(sure - right)
    return error


def _ece(weigh="counts", gap=abs, middle=False, left=False):
    def answer(confidence, correct, bins):
        gaps, counts = [], []
        for i in range(bins):
            low, high = i / bins, (i + 1) / bins
            inside = [
                (c, r)
                for c, r in zip(confidence, correct)
                if (low <= c < high or i == bins - 1 and c == 1 if left else low < c <= high)
            ]
            counts.append(len(inside))
            if not inside:
                gaps.append(0.0)
                continue
            sure = (low + high) / 2 if middle else statistics.fmean(c for c, r in inside)
            gaps.append(gap(sure - statistics.fmean(r for c, r in inside)))
        total = sum(g * n for g, n in zip(gaps, counts))
        return {"counts": total / len(confidence), "full bins": sum(gaps) / sum(map(bool, counts)), "bins": sum(gaps) / bins, "sum": total, "max": max(gaps),
                "gaps": sum(gaps)}[weigh]  # fmt: skip

    return answer


def _run_ece(answer):
    yield "the five of the chapter", float(answer([0.55, 0.55, 0.9, 0.9, 0.9], [1, 0, 1, 1, 1], 10))
    yield "unequal bins", float(answer([0.3, 0.95, 0.96, 0.97, 0.98, 0.99], [1, 1, 1, 0, 1, 1], 5))
    yield (
        "too sure here, too modest there",
        float(answer([0.9, 0.8, 0.95, 0.3, 0.35], [0, 1, 0, 1, 1], 4)),
    )
    yield "on the borders", float(answer([0.25, 0.5, 0.75, 1.0, 0.5, 0.26], [1, 0, 1, 1, 1, 0], 4))
    yield "one bin", float(answer([0.2, 0.6, 0.7], [0, 1, 1], 1))
    sure = [0.01 + (37 * i % 97) / 98 for i in range(60)]
    yield "sixty predictions", float(answer(sure, [int(i % 7 < 4) for i in range(60)], 8))


CALIBRATION = Exercise(
    name="calibration_error",
    chapter=12,
    title="find the bug: the calibration error",
    minutes=20,
    difficulty=2,
    hints=(
        "Take four predictions in one bin and a single one in another. Which of the two gaps should count more?",
        "The error is the gap that a prediction meets on average. A bin with 100 predictions is met 100 times.",
        "Weigh each gap by len(inside) / len(confidence), and add.",
    ),
    run=_run_ece,
    reference=calibration_error,
    given=given_calibration_error,
    explanation="Weighted by counts, a bin with one lucky prediction no longer speaks as loudly as one with thousands.",
    wrong=(
        WrongAnswer(
            "every bin counts the same",
            "You average the gaps over the bins that hold something. A bin with one prediction then weighs as much as one with a thousand.",
            'chapter 12, "Does it know what it does not know?"',
            _ece("full bins"),
        ),
        WrongAnswer(
            "divided by all bins",
            "You divided by the number of bins, the empty ones too. Weigh each gap by its share of the predictions instead.",
            "hint 3",
            _ece("bins"),
        ),
        WrongAnswer(
            "the sum of the gaps",
            "You added the gaps without weights. Each one counts as often as there are predictions in its bin.",
            "hint 3",
            _ece("gaps"),
        ),
        WrongAnswer(
            "not divided by the predictions",
            "You weighed each gap by its count, but did not divide by the number of all predictions.",
            "hint 3",
            _ece("sum"),
        ),
        WrongAnswer(
            "gaps cancel out",
            "You weighed right, but lost abs: a bin that is too sure cancels one that is too modest.",
            'chapter 12, "Does it know what it does not know?"',
            _ece(gap=lambda gap: gap),
        ),
        WrongAnswer(
            "the largest gap",
            "That is the largest gap, known as the maximum calibration error. Asked is the mean one.",
            'chapter 12, "Does it know what it does not know?"',
            _ece("max"),
        ),
        WrongAnswer(
            "the middle of the bin",
            "You compare with the middle of the bin. Take the mean confidence of the predictions that are in it.",
            'chapter 12, "Does it know what it does not know?"',
            _ece(middle=True),
        ),
        WrongAnswer(
            "borders belong to the bin above",
            "A confidence on a border went to the bin above. Here bin i holds i/bins < c <= (i+1)/bins.",
            'chapter 12, "Does it know what it does not know?"',
            _ece(left=True),
        ),
        WrongAnswer(
            "squared gaps",
            "You squared the gaps. The error is the mean of their absolute values.",
            'chapter 12, "Does it know what it does not know?"',
            _ece(gap=lambda gap: gap * gap),
        ),
    ),
)

EXERCISES = (PERPLEXITY, BITS, PLAN, SCORE, ACCURACY, CALIBRATION)
