"""Chapter 04: cross-entropy, units of loss, and the counted bigram."""

import math

import torch
from torch.overrides import TorchFunctionMode

from courseware.exercises import Exercise, Mistake

OVERFLOW = 'chapter 4, "Break it: a softmax without the subtraction"'
UNITS_OF_LOSS = 'chapter 4, "Two other ways to say it"'


class _Calls(TorchFunctionMode):
    """Note the names of the PyTorch functions that are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.add(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def _probe_entropy(answer):
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 3.0, -2.0], [0.5, 0.0, 4.0], [-1.0, 2.0, 0.0]])
    with _Calls() as calls:
        loss = answer(logits, torch.tensor([2, 1, 0, 1]))
    yield "four rows of three logits", loss

    yield "logits of 1000", answer(torch.tensor([[1000.0, 0.0]]), torch.tensor([0]))
    yield "a target 2000 below the largest logit", answer(torch.tensor([[-1000.0, 1000.0]]), torch.tensor([0]))
    mixed = torch.tensor([[1000.0, 999.0], [-1000.0, -1001.0]])
    yield "a row near 1000 and one near -1000", answer(mixed, torch.tensor([0, 1]))
    called = bool({"cross_entropy", "log_softmax"} & calls.names)
    yield "F.cross_entropy or log_softmax called", called


CROSS_ENTROPY = Exercise(
    "cross_entropy", _probe_entropy,
    hints=(
        "The loss of one row is minus the log-probability of its target.",
        "log softmax = logits - log(sum(exp(logits))). exp(1000) overflows; softmax does not change if you "
        "subtract the largest logit of each row first.",
        "log_probs[torch.arange(N), targets] picks one number from each row; then the mean, with a minus.",
    ),
    explanation="Subtracting the row's maximum changes nothing but the size of the numbers: the largest exp is then exp(0) = 1.",
    look='chapter 4, "From scores to penalties"',
    mistakes=(
        Mistake("overflow", "Right for small logits, but exp(1000) is infinite in float32. Subtract each row's largest logit first.",
                edit=("logits - highest", "logits"),
                also=(("shifted - shifted.exp().sum(dim=-1, keepdim=True).log()", "(logits.exp() / logits.exp().sum(dim=-1, keepdim=True)).log()"),),
                look=OVERFLOW),
        Mistake("the logarithm of a probability that became 0", "Softmax gives 0 for a target 2000 below the largest logit, and log(0) is infinite. Simplify the logarithm first: shifted - log(sum(exp(shifted))).",
                edit=("shifted - shifted.exp().sum(dim=-1, keepdim=True).log()", "torch.softmax(logits, dim=-1).log()"), look=OVERFLOW),
        Mistake("a small number added before the logarithm", "A small number inside the logarithm bounds the loss: yours stays near 20, where 2000 is right. Simplify the logarithm instead: shifted - log(sum(exp(shifted))).",
                edit=("shifted - shifted.exp().sum(dim=-1, keepdim=True).log()", "(torch.softmax(logits, dim=-1) + 1e-9).log()"), look=OVERFLOW),
        Mistake("one maximum for all rows", "You subtracted the largest logit of the whole batch. In a row far below it every exp is 0, and the loss infinite: each row needs its own.",
                edit=("logits.max(dim=-1, keepdim=True).values", "logits.max()"),
                also=((("logits.max(dim=-1, keepdim=True).values", "logits.max()"),
                       ("shifted - shifted.exp().sum(dim=-1, keepdim=True).log()", "(shifted.exp() / shifted.exp().sum(dim=-1, keepdim=True)).log()")),),
                look=OVERFLOW),
        Mistake("the maximum subtracted only once", "You subtracted the maximum inside the logarithm but not from the logits themselves. log softmax is shifted - log(sum(exp(shifted))).",
                edit=("log_probs = shifted", "log_probs = logits"), look=OVERFLOW),
        Mistake("the sum instead of the mean", "You summed over the rows. The mean does not depend on the batch size.",
                edit=(".mean()", ".sum()")),
        Mistake("the minus is missing", "Your loss is negative: a log-probability is at most 0, and the loss is minus that.",
                edit=("-log_probs", "log_probs")),
        Mistake("softmax over the rows", "The probabilities of a *column* sum to 1. Each row is one prediction: dim=-1.",
                edit=(("max(dim=-1", "max(dim=0"), ("sum(dim=-1", "sum(dim=0"))),
        Mistake("bits instead of nats", "You used the logarithm to base 2. The task asks for nats, the natural logarithm.",
                edit=(".mean()", ".mean() / math.log(2)"), look=UNITS_OF_LOSS),
        Mistake("the logarithm is missing", "You averaged probabilities, not their logarithms. The loss is minus the *log* of the target's probability.",
                edit=("shifted - shifted.exp().sum(dim=-1, keepdim=True).log()", "shifted.exp() / shifted.exp().sum(dim=-1, keepdim=True)")),
        Mistake("every row asked for all targets", "log_probs[:, targets] takes the targets of all rows from each row, N * N numbers. Row i needs its own: log_probs[torch.arange(N), targets].",
                edit=("torch.arange(len(targets)), targets", ":, targets")),
        Mistake("F.cross_entropy or log_softmax called", "PyTorch's function does the work. Here the point is to write it: use only exp, log, sum and max.",
                edit=("return", "torch.log_softmax(logits, dim=-1)\nreturn")),
    ),
)  # fmt: skip


def _probe_units(answer):
    for loss, n_tokens, n_chars in ((math.log(4), 100, 100), (2.0, 100, 400), (0.0, 5, 7)):
        yield f"units({loss:.4f}, {n_tokens}, {n_chars})", answer(loss, n_tokens, n_chars)


UNITS = Exercise(
    "units", _probe_units,
    hints=(
        "Perplexity is e to the power of the loss in nats per token.",
        "The whole text costs loss * n_tokens nats. Spread that over its characters, then turn nats into bits.",
        "One bit is ln 2 = 0.693 nats, so there are more bits than nats: divide by ln 2.",
    ),
    explanation="Bits per character compares models with different tokenizers; loss per token does not.",
    look=UNITS_OF_LOSS,
    mistakes=(
        Mistake("bits per token", "Your second number is per token. A token can be several characters: weigh by n_tokens / n_chars.",
                edit=("* n_tokens / n_chars", "")),
        Mistake("the ratio upside down", "You multiplied by n_chars / n_tokens. Fewer tokens than characters must make the number smaller.",
                edit=("n_tokens / n_chars", "n_chars / n_tokens")),
        Mistake("nats instead of bits", "Your second number is in nats per character; divide by ln 2.",
                edit=("/ math.log(2)", "")),
        Mistake("multiplied by ln 2", "You multiplied by ln 2. A bit is smaller than a nat, so the number of bits is larger: divide.",
                edit=("/ math.log(2)", "* math.log(2)")),
        Mistake("2 to the power of nats", "Perplexity is e**loss when the loss is in nats; 2**loss is for bits.",
                edit=("math.exp(loss)", "2**loss")),
        Mistake("a probability in place of perplexity", "e**-loss is the probability that the model gives a token. Perplexity is its inverse, at least 1.",
                edit=("math.exp(loss)", "math.exp(-loss)")),
        Mistake("the pair the other way round", "You return bits per character first. The task asks for (perplexity, bits per character).",
                wrap=lambda right: lambda *arguments: right(*arguments)[::-1]),
    ),
)  # fmt: skip


def _probe_bigram(answer):
    ids = [0, 1, 1, 2, 0, 1, 2, 2, 2, 1, 0, 0, 1]
    yield "three tokens, alpha=1", answer(list(ids), 3, 1.0)
    yield "a token that never occurs, alpha=0.5", answer([0, 1, 0, 1, 1, 0], 3, 0.5)


BIGRAM = Exercise(
    "bigram_probs", _probe_bigram,
    hints=(
        "What should sum to 1: the probabilities of all next tokens after one token, or those of one token after all?",
        "Print probs.sum(dim=1) and probs.sum(dim=0) of the buggy function.",
        "Row i belongs to the token that was seen; divide each row by its sum, counts.sum(dim=1, keepdim=True).",
    ),
    explanation="Each row is a distribution over what follows. alpha keeps unseen pairs possible, so that no loss is infinite.",
    look='chapter 4, "The model that only counts"',
    mistakes=(
        Mistake("columns sum to 1", "You divided by the sum of each column. Row i is the distribution over what follows token i: dim=1.",
                edit=("dim=1", "dim=0")),
        Mistake("the sums lie across", "Without keepdim=True the sums are a row, so column i is divided by the sum of row i. keepdim=True makes them a column.",
                edit=("dim=1, keepdim=True", "dim=1")),
        Mistake("the whole table sums to 1", "You divided by the number of all pairs: that is the probability of a pair, not of the next token. Each row needs its own sum.",
                edit=("counts.sum(dim=1, keepdim=True)", "counts.sum()")),
        Mistake("the table is transposed", "counts[i, j] counts how often j comes *before* i. Rows are the present token, columns the next.",
                edit=("counts[now, following]", "counts[following, now]")),
        Mistake("alpha is missing", "You left out alpha, so unseen pairs have probability 0 and an infinite loss, and a token that never occurs gives nan.",
                edit=("float(alpha)", "0.0")),
        Mistake("rows do not sum to 1", "You divided by the sum of the counts before alpha was added, so rows sum to more than 1. Add alpha first, then take the sum.",
                edit=("counts.sum(dim=1", "(counts - alpha).sum(dim=1")),
        Mistake("alpha added once to each sum", "alpha was added to all vocab_size counts of a row, so the row's sum grows by vocab_size * alpha. Take the sum of the smoothed counts.",
                edit=("counts.sum(dim=1", "(counts - alpha + alpha / vocab_size).sum(dim=1")),
        Mistake("a pair counts once, however often it occurs", "A pair that occurs three times counted once. counts[a, b] += 1 with whole tensors does that: an index that appears twice is written once.",
                edit=("+= 1", "= alpha + 1")),
        Mistake("the end is followed by the beginning", "You counted a pair of the last token and the first. n tokens have n - 1 pairs.",
                edit=("ids[1:]", "ids[1:] + ids[:1]")),
        Mistake("counts instead of probabilities", "You return the counts. Divide each row by its sum.",
                edit=("/ counts.sum(dim=1, keepdim=True)", "")),
    ),
)  # fmt: skip
