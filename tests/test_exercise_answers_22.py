"""Chapter 22's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from tools import judged

from courseware.exercises import find


def trip_by_loops(w, n_bits, group, most=None, size=abs):
    most = most or 2 ** (n_bits - 1) - 1
    rows = []
    for row in w.tolist():
        out = []
        for i in range(0, len(row), group):
            part = row[i : i + group]
            scale = max(size(x) for x in part) / most
            out += [round(x / scale) * scale for x in part]
        rows.append(out)
    return torch.tensor(rows)


def trip_by_numpy(w, n_bits, group, whole=np.rint):
    parts = w.numpy().reshape(-1, group)
    scale = np.abs(parts).max(axis=1, keepdims=True) / np.float32(2 ** (n_bits - 1) - 1)
    return torch.from_numpy((whole(parts / scale) * scale).astype(np.float32)).view(w.shape)


def codes_by_minmax(w, n_bits, steps=None, low_of=torch.amin):
    low = low_of(w, 1, True)
    scale = (w.amax(1, True) - low) / (steps or (1 << n_bits) - 1)
    return torch.round((w - low) / scale).byte(), scale, low


def codes_by_nearest(w, n_bits):
    """Try every code, and take the closest."""
    low, high = w.aminmax(dim=1, keepdim=True)
    scale = (high - low) / (2**n_bits - 1)
    levels = low + scale * torch.arange(2**n_bits)
    distance = (w[:, :, None] - levels[:, None, :]).abs()
    return distance.argmin(-1).to(torch.uint8), scale, low


def codes_by_clip(w, n_bits, steps):
    """Cut off the codes that do not fit."""
    rows = w.numpy()
    low = rows.min(axis=1, keepdims=True)
    scale = (rows.max(axis=1, keepdims=True) - low) / np.float32(steps)
    codes = np.clip(np.rint((rows - low) / scale), 0, 2**n_bits - 1).astype(np.uint8)
    return tuple(map(torch.from_numpy, (codes, scale, low)))


def lookup_by_scores(ids, n, longest):
    """Give each earlier place the number of ids that agree with the end."""
    best, found = 0, None
    for after in range(1, len(ids)):
        size = 0
        while size < min(longest, after) and ids[after - 1 - size] == ids[-1 - size]:
            size += 1
        if size and size >= best:
            best, found = size, after
    return [] if found is None else ids[found : found + n]


def lookup_by_text(ids, n, longest, find=str.rfind):
    text = "".join(map(chr, ids))
    for length in range(longest, 0, -1):
        if length < len(ids):
            place = find(text[:-1], text[-length:])
            if place >= 0:
                return [ord(c) for c in text[place + length :][:n]]
    return []


def keep_by_where(p, q, guess, luck):
    hit = torch.arange(len(p)) == guess
    rest = torch.relu(p - q)
    return torch.where(
        torch.tensor(luck * q[guess] < p[guess]), hit.float(), rest / rest.sum().clamp(min=1e-30)
    )


def keep_by_lists(
    p,
    q,
    guess,
    luck,
    ratio=lambda p, q: min(1.0, p / q),
    left=lambda p, q: max(0.0, p - q),
    below=operator.lt,
):
    p, q = p.tolist(), q.tolist()
    if below(luck, ratio(p[guess], q[guess])):
        return torch.tensor([1.0 if i == guess else 0.0 for i in range(len(p))])
    rest = [left(a, b) for a, b in zip(p, q)]
    return torch.tensor([r / sum(rest) for r in rest])


ANSWERS = [
    ("round_trip", trip_by_loops, ""),
    ("round_trip", trip_by_numpy, ""),
    ("round_trip", lambda w, b, g: trip_by_loops(w, b, g, most=2 ** (b - 1)), "one step too many"),
    ("round_trip", lambda w, b, g: trip_by_loops(w, b, w.shape[1]), "a scale for the whole row"),
    ("round_trip", lambda w, b, g: trip_by_numpy(w, b, g, np.floor), "rounded down"),
    ("round_trip", lambda w, b, g: trip_by_numpy(w, b, w.shape[1], np.trunc),
     "two things at once: a scale for the whole row, and cut off, not rounded"),
    ("codes_from_low", codes_by_minmax, ""),
    ("codes_from_low", codes_by_nearest, ""),
    ("codes_from_low", lambda w, b: codes_by_minmax(w, b, steps=2**b), "one step too many"),
    ("codes_from_low", lambda w, b: codes_by_minmax(w, b, steps=2 ** (b - 1) - 1), "symmetric steps"),
    ("codes_from_low", lambda w, b: codes_by_clip(w, b, steps=2**b - 1), ""),
    ("codes_from_low", lambda w, b: codes_by_clip(w, b, steps=2**b), "clamped, but one step too many"),
    ("look_up", lookup_by_scores, ""),
    ("look_up", lookup_by_text, ""),
    ("look_up", lambda *a: lookup_by_text(*a, find=str.find), "the first occurrence"),
    ("look_up", lambda ids, n, longest: lookup_by_scores(ids, len(ids), longest), "all that followed"),
    ("look_up", lambda ids, n, longest: tuple(lookup_by_scores(ids, n, longest)), "wrong type"),
    ("keep_or_correct", keep_by_where, ""),
    ("keep_or_correct", keep_by_lists, ""),
    ("keep_or_correct", lambda *a: keep_by_lists(*a, left=lambda p, q: p), "drawn from p again"),
    ("keep_or_correct", lambda *a: keep_by_lists(*a, left=lambda p, q: abs(p - q)), "the size of the difference"),
    ("keep_or_correct", lambda *a: keep_by_lists(*a, ratio=lambda p, q: p), "accepted by p alone"),
    ("keep_or_correct", lambda *a: keep_by_lists(*a, below=operator.le), "at most, not below"),
    ("keep_or_correct", lambda *a: keep_by_lists(*a, ratio=lambda p, q: p, left=lambda p, q: p),
     "two things at once: drawn from p again, and accepted by p alone"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)


def test_the_codes_to_repair_fail_as_the_task_says():
    exercise = find("codes_from_low")
    w = torch.randn(50, 24, generator=torch.Generator().manual_seed(0)) + 1.5
    largest = w.argmax(dim=1, keepdim=True)
    for n_bits, code in ((8, 0), (4, 16)):
        codes, _, _ = exercise.task.given(w, n_bits)
        assert (codes.gather(1, largest) == code).all(), f"{n_bits} bits"

    one_step_more = exercise.task.source.replace("(2**n_bits - 1)", "2**n_bits")
    assert one_step_more == exercise.task.stub, "the number of steps is its only bug"
    said = " ".join(exercise.hints)
    assert "round" not in said and "fraction" not in said, (
        f"a hint names a bug that is not there: {said}"
    )
