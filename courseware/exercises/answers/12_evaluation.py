"""Chapter 12: perplexity, bits per byte, windows, the score of an answer, accuracy, calibration."""

import math

import torch

from courseware.exercises import Exercise, Mistake

PAPER = 'chapter 12, "Three predictions on paper"'
QUIZ = 'chapter 12, "A quiz"'
TWICE = 'chapter 12, "Break it: count the overlap twice"'
LONG = 'chapter 12, "Break it: long answers never win"'


def _probe_perplexity(answer):
    for label, blocks in (
        ("the letters of the chapter", [[math.log(2), math.log(4), math.log(8)]]),
        ("blocks of 1, 5 and 2 tokens", [[6.0], [0.1, 0.2, 0.3, 0.4, 0.5], [2.0, 0.0]]),
        ("an empty block among others", [[0.7, 1.9], [], [2.2]]),
        ("800 tokens", [[1.5] * 500, [2.5] * 300]),
        ("a very high loss", [[9.0, 8.0]]),
    ):
        try:
            yield label, float(answer(blocks))
        except OverflowError:  # math.exp's word for the infinity that other libraries return
            yield label, math.inf


PERPLEXITY = Exercise(
    "text_perplexity", _probe_perplexity,
    hints=(
        "Which numbers may be averaged: probabilities, their logarithms, or perplexities?",
        "A token counts the same whether its block is long or short. So add up all tokens first.",
        "math.exp(total / count), where total and count go over all blocks.",
    ),
    explanation="Predictions multiply, so their logarithms add: one sum, one count, and a single exponential at the end.",
    look=PAPER,
    mistakes=(
        Mistake("the mean of exponentials", "You turned each token into a perplexity and averaged those. Average the nats first, then take the exponential once.",
                edit=("math.exp(sum(losses)", "(sum(map(math.exp, losses))")),
        Mistake("a mean of block means", "You averaged each block and then the blocks, so a token of a short block weighs more. Add up all tokens of all blocks.",
                edit=("loss for block in blocks for loss in block", "sum(block) / len(block) for block in blocks if block"),
                also=(("loss for block in blocks for loss in block", "sum(block) / len(block) for block in blocks"),), look=TWICE),
        Mistake("a mean of block perplexities", "You averaged the perplexities of the blocks. Perplexities cannot be averaged; the nats of all tokens can.",
                edit=(("loss for block in blocks for loss in block", "math.exp(sum(block) / len(block)) for block in blocks if block"),
                      ("math.exp(sum(losses)", "(sum(losses)"))),
        Mistake("the sum instead of the mean", "You took the exponential of the sum, which is 1 / the probability of the whole text. Divide by the number of tokens first.",
                edit=("/ len(losses)", "")),
        Mistake("the root at the end", "On paper you are right, but the exponential of a long text's sum is more than a float can hold. Divide by the number of tokens first.",
                edit=("/ len(losses))", ") ** (1 / len(losses))")),
        Mistake("the loss, not the perplexity", "That is the mean loss in nats. The perplexity is e to this power.",
                edit=("math.exp(", "(")),
        Mistake("the sign reversed", "You took the exponential of minus the mean: the probability of a token, not its perplexity. The losses are positive already.",
                edit=("exp(", "exp(-")),
        Mistake("two to the power of nats", "You raised 2 to a number of nats. 2 goes with bits; with nats it is e.",
                edit=("math.exp(", "2 ** (")),
    ),
)  # fmt: skip


def _probe_bits(answer):
    yield "plain letters", float(answer("to be", 1.2, 5))
    yield "letters with accents", float(answer("déjà vu à Nîmes", 1.7, 9))
    yield "a combining accent", float(answer("e\u0301a", 2.0, 3))
    yield "a line break of two characters", float(answer("a\r\nb", 2.0, 3))
    yield "Japanese", float(answer("日本語", 3.0, 2))


BITS = Exercise(
    "to_bits_per_byte", _probe_bits,
    hints=(
        "Nats per token, times the number of tokens, are the nats of the whole text.",
        "1 bit is ln 2 = 0.693 nats. So the number of bits is larger than the number of nats.",
        'The bytes are len(text.encode("utf-8")), not len(text): é has two.',
    ),
    explanation="The tokens cancel: what is left is the loss of the text, divided by something that no tokenizer can change.",
    look='chapter 12, "One unit for all tokenizers"',
    mistakes=(
        Mistake("characters instead of bytes", "For plain English you are right, but you divided by characters. UTF-8 needs two bytes for é and four for a smile.",
                edit=('text.encode("utf-8")', "text")),
        Mistake("nats per byte", "You stayed with nats. Divide by ln 2 to get bits.",
                edit=("/ math.log(2)", "")),
        Mistake("multiplied by ln 2", "You multiplied by ln 2. A nat is more than a bit, so there must be more bits than nats: divide.",
                edit=("/ math.log(2)", "* math.log(2)")),
        Mistake("the tokens are forgotten", "You divided the loss of one token by the bytes of the whole text. Multiply by n_tokens first.",
                edit=("* n_tokens", "")),
        Mistake("bits per token", "These are bits per token, and tokens differ between tokenizers. Multiply by n_tokens and divide by the bytes.",
                edit=(("* n_tokens", ""), ('/ len(text.encode("utf-8"))', ""))),
        Mistake("bytes of UTF-16", "You counted the bytes of UTF-16. The convention is UTF-8.",
                edit=('"utf-8"', '"utf-16-le"')),
    ),
)  # fmt: skip


def _probe_plan(answer):
    for n, block, stride in ((11, 4, 2), (14, 5, 3), (5, 8, 4), (2, 3, 1), (40, 20, 13)):
        yield f"{n} tokens, block {block}, stride {stride}", answer(n, block, stride)


PLAN = Exercise(
    "window_plan", _probe_plan,
    hints=(
        "A window that begins at b reads the tokens b to b + block - 1 and can predict b + 1 to b + block.",
        "Keep a number `done`: the first token that nobody has counted. It starts at 1. A window counts from `done` to its own end.",
        "The last window begins at n - block - 1, so that it ends with the text: begins = [*range(0, last, stride), last]. "
        "If the text is shorter than a block, the block shrinks to n - 1.",
    ),
    explanation="One number, `done`, is enough to count each token once, whatever the block, the stride and the tail are.",
    look='chapter 12, "A text that is longer than the model"',
    mistakes=(
        Mistake("the overlap counted twice", "Each window counts all its targets, so those in the overlap count twice. Count only what no window before has counted.",
                edit=("range(done", "range(begin + 1"), look=TWICE),
        Mistake("the first window counts a stride only", "Your windows count their last `stride` targets. In the first window nothing was counted before, so all of it counts.",
                edit=("range(done", "range(begin + 1 + max(0, block - stride)")),
        Mistake("the tail counted as a whole stride", "All is right until the last window, which was moved back: you count a whole stride there, but part of it was counted before.",
                edit=("range(done", "range(begin + block + 1 - stride if begin else 1")),
        Mistake("the last window hangs over", "Your last window begins a stride after the one before, so it is not full. Move it back until it ends with the text.",
                edit=(("[*range(0, last, stride), last]", "range(0, last + stride, stride)"),
                      ("begin + block + 1)))", "min(n, begin + block + 1))))")),
                also=(("[*range(0, last, stride), last]", "range(0, last + stride, stride)"),)),
        Mistake("the last window one too late", "Your last window reads the last token, after which there is nothing to predict. It begins at n - block - 1.",
                edit=(("n - block - 1", "n - block"), ("begin + block + 1)))", "min(n, begin + block + 1))))")),
                also=(("n - block - 1", "n - block"),)),
        Mistake("the tail is left out", "The tokens after the last full stride are never counted. One more window must end with the text.",
                edit=("[*range(0, last, stride), last]", "range(0, last + 1, stride)"), also=((", last]", "]"),)),
        Mistake("the first token is predicted", "You count token 0. Nothing stands before it, so it is given: `done` starts at 1.",
                edit=("[], 1", "[], 0")),
        Mistake("inputs instead of targets", "You list the tokens that are read. Count the tokens that are predicted, each one place later.",
                edit=("range(done, begin + block + 1)", "range(done - 1, begin + block)")),
        Mistake("the token after the window left out", "Your windows count only tokens that they read. A window of `block` tokens predicts one more: the token after the last that it reads.",
                edit=(("min(block, n - 1)", "min(block, n)"), ("n - block - 1", "n - block"),
                      ("range(done, begin + block + 1)", "range(done, begin + block)"), ("done = begin + block + 1", "done = begin + block"))),
        Mistake("a short text is forgotten", "When the text is shorter than a block, your window begins before the text. The block shrinks to n - 1 then.",
                edit=("min(block, n - 1)", "block")),
    ),
)  # fmt: skip


def _probe_score(answer):
    generator = torch.Generator().manual_seed(12)
    for T, V, n_prompt, spread in ((5, 7, 2, 2), (9, 4, 6, 2), (4, 3, 3, 2), (8, 5, 3, 60)):
        logits = spread * torch.randn(T, V, generator=generator)
        ids = torch.randint(V, (T,), generator=generator)
        label = f"{T} ids, {n_prompt} of them the prompt, logits around ±{spread}"
        yield label, float(answer(logits, ids, n_prompt))


SCORE = Exercise(
    "answer_score", _probe_score,
    hints=(
        "logits[t] is what the model says after it has read ids[t]. Which id is it about?",
        "Print t and ids[t] for a prompt of two ids. Where do the logits stand that predict the first id of the answer?",
        "The id at place t is predicted by the logits at place t - 1.",
    ),
    explanation="Logits at a place are about the next one, so the first token of the answer is predicted at the last place of the prompt.",
    look=QUIZ,
    mistakes=(
        Mistake("compared with the logits after it", "You look up each id in the logits of its own place. Those come after the id was read and are about the next one.",
                edit=("t - 1", "t"), look=QUIZ),
        Mistake("the first token of the answer left out", "The first token of the answer is missing. It is predicted from the last token of the prompt.",
                edit=("range(n_prompt", "range(n_prompt + 1"),
                also=((("range(n_prompt", "range(n_prompt + 1"), ("(len(ids) - n_prompt)", "max(1, len(ids) - n_prompt - 1)")),
                      (("range(n_prompt", "range(n_prompt + 1"), ("- n_prompt", "- n_prompt - 1")))),
        Mistake("the prompt scored too", "You added the logarithms of the prompt. Only those of the answer say how well it follows.",
                edit=("range(n_prompt", "range(1")),
        Mistake("the mean over prompt and answer", "You scored the whole text, prompt and answer. Only the tokens of the answer count, above and below the line.",
                edit=(("range(n_prompt", "range(1"), ("- n_prompt", "- 1"))),
        Mistake("divided by the whole length", "You divided by the length of prompt and answer. A long question would make every answer look likely.",
                edit=("- n_prompt", "")),
        Mistake("not divided at all", "You returned the sum. Here the score is the mean per token of the answer.",
                edit=("/ (len(ids) - n_prompt)", ""), look=LONG),
        Mistake("the loss, not the score", "You reversed the sign. Log-probabilities are negative, and so is their mean; the largest is the best.",
                edit=("return total", "return -total")),
        Mistake("probabilities instead of logarithms", "You averaged probabilities. They multiply; it is their logarithms that add.",
                edit=("log_softmax", "softmax"), look=PAPER),
    ),
)  # fmt: skip


def _probe_accuracy(answer):
    many = [(-(7 * i % 11) - 1.0, -(5 * i % 13) - 2.0, -(3 * i % 7) - 3.0) for i in range(25)]
    sizes = [(1 + i % 4, 2 + i % 3, 1 + i % 6) for i in range(25)]
    three = [(-9.0, -4.0, -6.0), (-5.0, -8.0, -3.0, -7.5), (-2.0, -6.6)]
    equal = [(-2.0, -4.0, -6.0), (-3.0, -2.0), (-1.0, -2.0)]

    for label, totals, lengths, answers in (
        ("three, four and two choices", three, [(9, 2, 4), (5, 4, 1, 5), (1, 6)], [0, 0, 0]),
        ("equal scores", equal, [(1, 2, 3), (3, 2), (1, 2)], [0, 1, 0]),
        ("all wrong", [(-1.0, -9.0)] * 3, [(3, 3)] * 3, [1] * 3),
        ("the last of four is right", [(-9.0, -8.0, -7.0, -1.0), (-3.0, -2.0)], [(1,) * 4, (1, 1)], [3, 0]),
        ("a longer answer that wins", [(-2.0, -2.3), (-4.0, -1.0)], [(3, 1), (2, 1)], [0, 0]),
        ("25 questions", many, sizes, [i % 3 for i in range(25)]),
    ):  # fmt: skip
        share, error = answer([*map(list, totals)], [*map(list, lengths)], answers)
        yield label, [float(share), float(error)]


ACCURACY = Exercise(
    "accuracy_with_error", _probe_accuracy,
    hints=(
        "For each question divide each sum by its own length; the largest score wins. row.index(max(row)) takes the first of equals.",
        "Make a list of 1 for each right answer and 0 for each wrong one. Its mean is the accuracy.",
        "The standard error is the sample's standard deviation (it divides by n - 1), over sqrt(n): statistics.stdev(right) / math.sqrt(n).",
    ),
    explanation="The mean of zeros and ones is the accuracy, and the standard deviation of the same list gives its error.",
    look='chapter 12, "How sure may we be?"',
    mistakes=(
        Mistake("not divided by the length", "You compared the sums. A long answer has a lower sum because it has more factors: divide by its length.",
                edit=("total / size", "total"), look=LONG),
        Mistake("probabilities divided by the length", "You divided probabilities by the length. Divide their logarithms: the mean of ln p is what is compared.",
                edit=("total / size", "math.exp(total) / size"), look=LONG),
        Mistake("the last of equal scores", "When scores are equal you take the last choice. The first one counts: scores.index(max(scores)).",
                edit=("scores.index(max(scores))", "max(range(len(scores)), key=lambda i: (scores[i], i))"), look=QUIZ),
        Mistake("divided by n instead of n - 1", "The standard deviation of a sample divides by n - 1, since the mean was estimated from it, too.",
                edit=("(n - 1)", "n")),
        Mistake("the deviation of one question", "As the error you returned how far one question is off; the mean of n questions is off by sqrt(n) times less.",
                edit=("variance / n", "variance")),
        Mistake("divided by n instead of its root", "You divided the standard deviation by n. Errors shrink with the square root of n.",
                edit=("math.sqrt(variance / n)", "math.sqrt(variance) / n")),
        Mistake("in percent", "You returned percentages. The accuracy is a share from 0 to 1, and so is its error.",
                edit=("return share, math", "return 100 * share, 100 * math"), also=(("return share", "return 100 * share"),)),
    ),
)  # fmt: skip


def _probe_calibration(answer):
    many = [0.01 + (37 * i % 97) / 98 for i in range(60)]
    for label, confidence, correct, bins in (
        ("the five of the chapter", [0.55, 0.55, 0.9, 0.9, 0.9], [1, 0, 1, 1, 1], 10),
        ("unequal bins", [0.3, 0.95, 0.96, 0.97, 0.98, 0.99], [1, 1, 1, 0, 1, 1], 5),
        ("on the borders", [0.25, 0.5, 0.75, 1.0, 0.5, 0.26], [1, 0, 1, 0, 1, 0], 4),
        ("sixty predictions", many, [int(i % 7 < 4) for i in range(60)], 8),
    ):
        yield label, float(answer(confidence, correct, bins))


CALIBRATION = Exercise(
    "calibration_error", _probe_calibration,
    hints=(
        "Take four predictions in one bin and a single one in another. Which of the two gaps should count more?",
        "The error is the gap that a prediction meets on average. A bin with 100 predictions is met 100 times.",
        "Weigh each gap by len(inside) / len(confidence), and add.",
    ),
    explanation="Weighted by counts, a bin with one lucky prediction no longer counts as much as one with thousands.",
    look='chapter 12, "Is it right as often as it says?"',
    mistakes=(
        Mistake("every bin counts the same", "You average the gaps over the bins that hold something. A bin with one prediction then weighs as much as one with a thousand.",
                edit=(("error = 0.0", "error, used = 0.0, 0"),
                      ("error += len(inside) / len(confidence) *", "used += 1\nerror +="),
                      ("return error", "return error / used"))),
        Mistake("divided by all bins", "You divided by the number of bins, the empty ones too. Weigh each gap by its share of the predictions instead.",
                edit=("len(inside) / len(confidence) *", "1 / bins *")),
        Mistake("the sum of the gaps", "You added the gaps without weights. Each one counts as often as there are predictions in its bin.",
                edit=("len(inside) / len(confidence) *", "")),
        Mistake("gaps cancel out", "You lost abs: a bin that is too sure cancels one that is too modest.",
                edit=("abs(", "(")),
        Mistake("the middle of the bin", "You compare with the middle of the bin. Take the mean confidence of the predictions that are in it.",
                edit=("sum(c for c, r in inside) / len(inside)", "(i + 0.5) / bins")),
        Mistake("borders belong to the bin above", "A confidence on a border went to the bin above. Here bin i holds i/bins < c <= (i+1)/bins.",
                edit=("i / bins < c <= (i + 1) / bins", "i / bins <= c < (i + 1) / bins or c == (i + 1) / bins == 1"),
                also=(("i / bins < c <= (i + 1) / bins", "i / bins <= c < (i + 1) / bins"),)),
    ),
)  # fmt: skip
