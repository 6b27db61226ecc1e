"""Chapter 04's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tools import judged


def entropy_row_by_row(logits, targets):
    losses = []
    for row, target in zip(logits.tolist(), targets.tolist()):
        top = max(row)
        total = sum(math.exp(x - top) for x in row)
        losses.append(math.log(total) - (row[target] - top))
    return torch.tensor(losses).mean()


def entropy_by_logsumexp(logits, targets):
    logits = logits.double()
    return (logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]).mean()


def entropy_of_softmax(logits, targets, small=0.0, reduce=torch.mean, log=torch.log):
    chosen = torch.softmax(logits, 1)[range(len(targets)), targets]
    return reduce(-log(chosen + small))


def entropy_of_shares(logits, targets):
    exponentials = (logits - logits.max()).exp()
    shares = exponentials / exponentials.sum(1)[:, None]
    return -shares.gather(1, targets[:, None]).log().mean()


def entropy_by_masking(logits, targets, shift=lambda x: x.amax(1, keepdim=True)):
    x = logits - shift(logits)
    one_hot = torch.nn.functional.one_hot(targets, x.shape[1])
    return (x.exp().sum(1).log() - (x * one_hot).sum(1)).sum() / len(x)


def units_of_sums(loss, n_tokens, n_chars, base=2.0, swap=False):
    total = loss * n_tokens
    bits = total / math.log(base) / n_chars
    perplexity = base ** (loss / math.log(base))
    return (bits, perplexity) if swap else (perplexity, bits)


def bigram_with_lists(ids, vocab_size, alpha):
    table = [[alpha] * vocab_size for _ in range(vocab_size)]
    for i in range(len(ids) - 1):
        table[ids[i]][ids[i + 1]] += 1
    return np.array([[n / sum(row) for n in row] for row in table])


def bigram_with_counter(ids, vocab_size, alpha, axis=1):
    counts = Counter(zip(ids, ids[1:]))
    table = np.array([[counts[i, j] for j in range(vocab_size)] for i in range(vocab_size)]) + alpha
    return torch.from_numpy(table / table.sum(axis, keepdims=True))


def bigram_by_index(ids, vocab_size, alpha, transpose=False):
    ids = torch.tensor(ids)
    counts = torch.zeros(vocab_size, vocab_size)
    counts[ids[:-1], ids[1:]] += 1
    counts = counts.T if transpose else counts
    return (counts + alpha) / (counts + alpha).sum(1)[:, None]


def bigram_by_one_hot(ids, vocab_size, alpha, sums=lambda c, alpha: (c + alpha).sum(1)):
    rows = torch.eye(vocab_size)[ids]
    counts = rows[:-1].T @ rows[1:]
    return (counts + alpha) / sums(counts, alpha)[:, None]


ANSWERS = [
    ("cross_entropy", entropy_by_logsumexp, ""),
    ("cross_entropy", entropy_row_by_row, ""),
    ("cross_entropy", entropy_by_masking, ""),
    ("cross_entropy", F.cross_entropy, "F.cross_entropy or log_softmax called"),
    ("cross_entropy", torch.nn.CrossEntropyLoss(), "F.cross_entropy or log_softmax called"),
    ("cross_entropy", lambda x, y: F.cross_entropy(x, y, reduction="sum"),
     "two things at once: the sum instead of the mean, and F.cross_entropy or log_softmax called"),
    ("cross_entropy", entropy_of_softmax, "the logarithm of a probability that became 0"),
    ("cross_entropy", lambda x, y: entropy_of_softmax(x, y, 1e-9), "a small number added before the logarithm"),
    ("cross_entropy", lambda x, y: entropy_of_softmax(x, y, log=lambda p: p), "the logarithm is missing"),
    ("cross_entropy", lambda x, y: entropy_by_masking(x, y, torch.max), "one maximum for all rows"),
    ("cross_entropy", entropy_of_shares, "one maximum for all rows"),
    ("cross_entropy", lambda x, y: entropy_by_masking(x, y, lambda x: 0), "overflow"),
    ("cross_entropy", lambda x, y: entropy_of_softmax(x, y, reduce=lambda loss: loss, log=torch.log2), "wrong shape"),
    ("cross_entropy", lambda x, y: entropy_by_masking(x, y) * -len(x),
     "two things at once: the sum instead of the mean, and the minus is missing"),
    ("cross_entropy", lambda x, y: entropy_row_by_row(x, y).item(), "wrong type"),
    ("units", lambda loss, t, c: [np.exp(loss), np.log2(np.exp(loss)) * t / c], ""),
    ("units", units_of_sums, ""),
    ("units", lambda loss, t, c: (math.e**loss, loss / c * t * math.log2(math.e)), ""),
    ("units", lambda loss, t, c: units_of_sums(loss, t, c, swap=True), "the pair the other way round"),
    ("units", lambda loss, t, c: units_of_sums(loss, t, c, math.e), "nats instead of bits"),
    ("units", lambda loss, t, c: units_of_sums(loss, c, t), "the ratio upside down"),
    ("units", lambda loss, t, c: (2**loss, loss * t / c),
     "two things at once: nats instead of bits, and 2 to the power of nats"),
    ("units", lambda loss, t, c: units_of_sums(loss, c, t, swap=True),
     "two things at once: the ratio upside down, and the pair the other way round"),
    ("units", lambda loss, t, c: torch.tensor(units_of_sums(loss, t, c)), "wrong type"),
    ("bigram_probs", bigram_with_lists, ""),
    ("bigram_probs", bigram_with_counter, ""),
    ("bigram_probs", bigram_by_one_hot, ""),
    ("bigram_probs", bigram_by_index, "a pair counts once, however often it occurs"),
    ("bigram_probs", lambda *a: bigram_with_counter(*a, axis=0), "columns sum to 1"),
    ("bigram_probs", lambda *a: bigram_by_one_hot(*a, lambda c, alpha: c.sum(1)), "rows do not sum to 1"),
    ("bigram_probs", lambda *a: bigram_by_one_hot(*a, lambda c, alpha: c.sum(1) + alpha),
     "alpha added once to each sum"),
    ("bigram_probs", lambda ids, v, alpha: bigram_with_counter(ids[::-1], v, alpha), "the table is transposed"),
    ("bigram_probs", lambda *a: bigram_by_index(*a, transpose=True),
     "two things at once: the table is transposed, and a pair counts once, however often it occurs"),
    ("bigram_probs", lambda ids, v, alpha: bigram_by_one_hot([*ids, ids[0]], v, 0.0),
     "two things at once: alpha is missing, and the end is followed by the beginning"),
    ("bigram_probs", lambda ids, v, alpha: bigram_with_counter(ids[::-1], v, alpha, axis=0),
     "two things at once: columns sum to 1, and the table is transposed"),
    ("bigram_probs", lambda *a: bigram_with_counter(*a).int(), "wrong dtype"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
