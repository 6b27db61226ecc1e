"""Exercises of chapter 04: cross-entropy, units of loss, and the counted bigram."""

from __future__ import annotations

import math

import torch

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- cross-entropy ---


def cross_entropy(logits, targets):
    highest = logits.max(dim=-1, keepdim=True).values
    shifted = logits - highest
    log_probs = shifted - shifted.exp().sum(dim=-1, keepdim=True).log()
    return -log_probs[torch.arange(len(targets)), targets].mean()


def _entropy(stable=True, reduce=torch.mean, sign=-1.0, dim=-1, unit=1.0, probs=False):
    def answer(logits, targets):
        rows = torch.arange(len(targets))
        if probs:
            return sign * reduce(torch.softmax(logits, dim)[rows, targets])
        if not stable:
            log_probs = (logits.exp() / logits.exp().sum(dim, keepdim=True)).log()
        else:
            log_probs = torch.log_softmax(logits, dim)
        return sign * reduce(log_probs[rows, targets]) / unit

    return answer


def _run_entropy(answer):
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 3.0, -2.0], [0.5, 0.0, 4.0], [-1.0, 2.0, 0.0]])
    targets = torch.tensor([2, 1, 0, 1])
    yield "the four rows of the task", torch.as_tensor(answer(logits.clone(), targets))
    large = torch.tensor([[1000.0, 0.0], [-1000.0, 1000.0]])
    yield "logits of 1000", torch.as_tensor(answer(large, torch.tensor([0, 0])))


CROSS_ENTROPY = Exercise(
    name="cross_entropy",
    chapter=4,
    title="cross-entropy that does not overflow",
    minutes=20,
    difficulty=2,
    hints=(
        "The loss of one row is minus the log-probability of its target.",
        "log softmax = logits - log(sum(exp(logits))). exp(1000) overflows; softmax does not change if you "
        "subtract the largest logit of each row first.",
        "log_probs[torch.arange(N), targets] picks one number from each row; then the mean, with a minus.",
    ),
    run=_run_entropy,
    reference=cross_entropy,
    explanation="Subtracting the row's maximum changes nothing but the size of the numbers: the largest exp is then exp(0) = 1.",
    wrong=(
        WrongAnswer(
            "overflow",
            "Right for small logits, but exp(1000) is infinite in float32. Subtract each row's largest logit first.",
            'chapter 4, "Break it: a softmax without the subtraction"',
            _entropy(stable=False),
        ),
        WrongAnswer(
            "the sum instead of the mean",
            "You summed over the rows. The mean does not depend on the batch size.",
            ".mean()",
            _entropy(reduce=torch.sum),
        ),
        WrongAnswer(
            "the minus is missing",
            "Your loss is negative: a log-probability is at most 0, and the loss is minus that.",
            "the sign",
            _entropy(sign=1.0),
        ),
        WrongAnswer(
            "softmax over the rows",
            "The probabilities of a *column* sum to 1. Each row is one prediction: dim=-1.",
            "dim=-1",
            _entropy(dim=0),
        ),
        WrongAnswer(
            "bits instead of nats",
            "You used the logarithm to base 2. The task asks for nats, the natural logarithm.",
            'chapter 4, "Two other ways to say it"',
            _entropy(unit=math.log(2)),
        ),
        WrongAnswer(
            "the logarithm is missing",
            "You averaged probabilities, not their logarithms.",
            "minus the *log* of the target's probability",
            _entropy(probs=True),
        ),
    ),
)

# --- units ---


def units(loss, n_tokens, n_chars):
    return math.exp(loss), loss * n_tokens / n_chars / math.log(2)


def _run_units(answer):
    for arguments in ((math.log(4), 100, 100), (2.0, 100, 400), (0.0, 5, 7)):
        result = answer(*arguments)
        yield f"units{tuple(round(a, 4) for a in arguments)}", [float(value) for value in result]


_LN2 = math.log(2)
UNITS = Exercise(
    name="units",
    chapter=4,
    title="perplexity and bits per character",
    minutes=10,
    difficulty=1,
    hints=(
        "Perplexity is e to the power of the loss in nats per token.",
        "The whole text costs loss * n_tokens nats. Spread that over its characters, then turn nats into bits.",
        "One bit is ln 2 = 0.693 nats, so there are more bits than nats: divide by ln 2.",
    ),
    run=_run_units,
    reference=units,
    explanation="Bits per character compares models with different tokenizers; loss per token does not.",
    wrong=(
        WrongAnswer(
            "bits per token",
            "Your second number is per token. A token can be several characters: weigh by n_tokens / n_chars.",
            "hint 2",
            lambda loss, t, c: (math.exp(loss), loss / _LN2),
        ),
        WrongAnswer(
            "the ratio upside down",
            "You multiplied by n_chars / n_tokens. Fewer tokens than characters must make the number smaller.",
            "hint 2",
            lambda loss, t, c: (math.exp(loss), loss * c / t / _LN2),
        ),
        WrongAnswer(
            "nats instead of bits",
            "Your second number is in nats per character; divide by ln 2.",
            "hint 3",
            lambda loss, t, c: (math.exp(loss), loss * t / c),
        ),
        WrongAnswer(
            "2 to the power of nats",
            "Perplexity is e**loss when the loss is in nats; 2**loss is for bits.",
            "hint 1",
            lambda loss, t, c: (2**loss, loss * t / c / _LN2),
        ),
        WrongAnswer(
            "multiplied by ln 2",
            "You multiplied by ln 2. A bit is smaller than a nat, so the number of bits is larger.",
            "hint 3",
            lambda loss, t, c: (math.exp(loss), loss * t / c * _LN2),
        ),
    ),
)

# --- find the bug: the counted bigram ---


def bigram_probs(ids, vocab_size, alpha):
    counts = torch.full((vocab_size, vocab_size), float(alpha))
    for now, following in zip(ids, ids[1:], strict=False):
        counts[now, following] += 1
    return counts / counts.sum(dim=1, keepdim=True)


def _given(ids, vocab_size, alpha):
    """Return the (V, V) table of probabilities: row = present token, column = next token."""
    counts = torch.full((vocab_size, vocab_size), float(alpha))
    for now, following in zip(ids, ids[1:], strict=False):
        counts[now, following] += 1
    return counts / counts.sum(dim=0, keepdim=True)


def _counted(ids, vocab_size, alpha, dim=1, where="all", swap=False, denominator=True):
    counts = torch.zeros(vocab_size, vocab_size)
    for now, following in zip(ids, ids[1:], strict=False):
        counts[(following, now) if swap else (now, following)] += 1
    smoothed = counts + alpha * ((counts > 0) if where == "seen" else 1)
    base = smoothed if denominator else counts
    return smoothed / (base.sum() if dim is None else base.sum(dim=dim, keepdim=True))


def _run_bigram(answer):
    ids = [0, 1, 1, 2, 0, 1, 2, 2, 2, 1, 0, 0, 1]
    yield "alpha=1, the ids of the task", answer(list(ids), 3, 1.0)
    yield "alpha=0.5, a token that never occurs", answer([0, 1, 0, 1, 1, 0], 3, 0.5)


BIGRAM = Exercise(
    name="bigram_probs",
    chapter=4,
    title="find the bug: the counted bigram",
    minutes=15,
    difficulty=2,
    hints=(
        "What should sum to 1: the probabilities of all next tokens after one token, or those of one token after all?",
        "Print probs.sum(dim=1) and probs.sum(dim=0) of the buggy function.",
        "Row i belongs to the token that was seen; divide each row by its sum, counts.sum(dim=1, keepdim=True).",
    ),
    run=_run_bigram,
    reference=bigram_probs,
    given=_given,
    explanation="Each row is a distribution over what follows. alpha keeps unseen pairs possible, so that no loss is infinite.",
    wrong=(
        WrongAnswer(
            "columns sum to 1",
            "You divided by the sum of each column. Row i is the distribution over what follows token i.",
            "dim=1, keepdim=True",
            lambda ids, v, a: _counted(ids, v, a, dim=0),
        ),
        WrongAnswer(
            "the table is transposed",
            "counts[i, j] counts how often j comes *before* i. Rows are the present token, columns the next.",
            "the order of the two indices",
            lambda ids, v, a: _counted(ids, v, a, swap=True),
        ),
        WrongAnswer(
            "only seen pairs are smoothed",
            "alpha was added only where a pair was seen, so unseen pairs still have probability 0 and an infinite loss.",
            "add alpha to every entry",
            lambda ids, v, a: _counted(ids, v, a, where="seen"),
        ),
        WrongAnswer(
            "rows do not sum to 1",
            "You divided by the sum of the counts before alpha was added, so rows sum to more than 1.",
            "add alpha first, then take the sum",
            lambda ids, v, a: _counted(ids, v, a, denominator=False),
        ),
        WrongAnswer(
            "the whole table sums to 1",
            "You divided by the number of all pairs: that is the probability of a pair, not of the next token.",
            "one sum for each row",
            lambda ids, v, a: _counted(ids, v, a, dim=None),
        ),
    ),
)

EXERCISES = (CROSS_ENTROPY, UNITS, BIGRAM)
