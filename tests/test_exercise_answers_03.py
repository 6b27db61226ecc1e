"""Chapter 03's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import random

import pytest
import torch
from tools import judged


def split_by_torch(tokens, fraction):
    n = int(len(tokens) * fraction)
    return torch.split(tokens, [len(tokens) - n, n])


def split_one_by_one(tokens, fraction, rounded=int, order=lambda parts: parts):
    n = rounded(tokens.numel() * fraction)
    parts = [], []
    for i, token in enumerate(tokens):
        parts[i >= len(tokens) - n].append(token.item())
    return [torch.tensor(part, dtype=torch.long) for part in order(parts)]


def split_from_the_end(tokens, fraction):
    n = int(len(tokens) * fraction)
    return tokens[:-n], tokens[-n:]


def split_at_random(tokens, fraction):
    mixed = tokens.tolist()
    random.shuffle(mixed)
    return split_by_torch(torch.tensor(mixed), fraction)


def batch_by_unfold(tokens, starts, block_size):
    rows = tokens.unfold(0, block_size + 1, 1)[starts]
    return rows[:, :-1], rows[:, 1:].to(torch.int32)


def batch_by_index(tokens, starts, block_size, shift=1, more=0):
    at = torch.tensor(starts)[:, None] + torch.arange(block_size + more)
    return tokens[at], tokens[at[:, : block_size + more] + shift]


def batch_number_by_number(tokens, starts, block_size, targets=None):
    x = torch.zeros(len(starts), block_size, dtype=tokens.dtype)
    y = torch.zeros_like(x)
    for row, start in enumerate(starts):
        for t in range(block_size):
            x[row, t] = tokens[start + t]
            y[row, t] = tokens[start + t + 1]
    return x, y if targets is None else targets(x, y)


def windows_by_while(n_tokens, block_size, stride, needed=1):
    starts, s = [], 0
    while s + block_size + needed <= n_tokens:
        starts.append(s)
        s += stride
    return starts


ANSWERS = [
    ("split", split_by_torch, ""),
    ("split", split_one_by_one, ""),
    ("split", split_from_the_end, "tokens[-0:] is everything"),
    ("split", split_at_random, "shuffled before splitting"),
    ("split", lambda t, f: split_one_by_one(t, f, round), "rounded to the nearest"),
    ("split", lambda t, f: split_by_torch(t, f)[::-1], "validation returned first"),
    ("split", lambda t, f: split_one_by_one(t, 1 - f), "the parts are swapped"),
    ("split", lambda t, f: split_one_by_one(t, f, round, lambda parts: parts[::-1]),
     "two things at once: validation returned first, and rounded to the nearest"),
    ("split", lambda t, f: tuple(part.tolist() for part in split_by_torch(t, f)), "wrong type"),
    ("batch", batch_by_unfold, ""),
    ("batch", batch_by_index, ""),
    ("batch", batch_number_by_number, ""),
    ("batch", lambda *a: batch_by_index(*a, shift=2), "shifted twice"),
    ("batch", lambda *a: batch_by_index(*a, shift=-1), "shifted backwards"),
    ("batch", lambda *a: batch_number_by_number(*a, targets=lambda x, y: torch.cat([x[:, 1:], x[:, :1]], 1)),
     "the first token as the last target"),
    ("batch", lambda *a: batch_number_by_number(*a, targets=lambda x, y: x[:, 1:]), "the last target is missing"),
    ("batch", lambda *a: [part.flatten() for part in batch_by_index(*a, shift=0)],
     "two things at once: y is x, and all rows in one"),
    ("batch", lambda *a: [part.mT for part in batch_by_index(*a, shift=2)],
     "two things at once: shifted twice, and time before batch"),
    ("batch", lambda *a: [part.float() for part in batch_by_index(*a)], "wrong dtype"),
    ("window_starts", lambda n, b, s: [i for i in range(0, n, s) if i + b + 1 <= n], ""),
    ("window_starts", windows_by_while, ""),
    ("window_starts", lambda n, b, s: windows_by_while(n, b, s, 0), "a window without its last target"),
    ("window_starts", lambda n, b, s: windows_by_while(n, b, s, 2), "the last window is lost"),
    ("window_starts", lambda n, b, s: windows_by_while(n, b, b), "the stride is ignored"),
    ("window_starts", lambda n, b, s: windows_by_while(n, b, b, 0),
     "two things at once: a window without its last target, and the stride is ignored"),
    ("window_starts", lambda n, b, s: windows_by_while(n, b, 1, 2),
     "two things at once: the last window is lost, and the stride is ignored"),
    ("window_starts", lambda n, b, s: range(0, n - b, s), "wrong type"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
