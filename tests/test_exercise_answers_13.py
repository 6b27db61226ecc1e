"""Chapter 13's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import hashlib
import random
import struct
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from tools import judged

from minigpt_lib.data import TextDataset


def side_by_hex(ids, fraction, digits=16, divisor=16):
    share = 16**digits / 16**divisor
    return [
        i
        for i in ids
        if int(hashlib.sha256(i.encode()).hexdigest()[:digits], 16) / 16**digits * share < fraction
    ]


def side_by_struct(ids, fraction, order=">", keep=lambda lot, fraction: lot < fraction):
    """Read the first eight bytes as an unsigned long."""

    def kept(identity):
        (number,) = struct.unpack_from(f"{order}Q", hashlib.sha256(str.encode(identity)).digest())
        return keep(Fraction(number, 2**64), fraction)

    return list(filter(kept, ids))


def side_by_position(ids, fraction):
    n_train = int(len(ids) * (1 - fraction))
    return ids[n_train:]


def side_by_chance(ids, fraction):
    random.seed(42)
    return [i for i in ids if random.random() < fraction]


def side_by_remainder(ids, fraction):
    numbers = [int(hashlib.sha256(i.encode("utf-8")).hexdigest(), 16) for i in ids]
    return [i for i, number in zip(ids, numbers) if number % 100 < 100 * fraction]


def sorted_by_names(found_rows, min_score, max_chars):
    def reason(row):
        text = (row["text"] or "").strip()
        checks = {
            "empty": not text,
            "too long": len(row["text"] or "") > max_chars,
            "low score": (row["score"] if row["score"] is not None else -1) < min_score,
            "kept": True,
        }
        return next(name for name in checks if checks[name])

    reasons = [reason(row) for row in found_rows]
    counted = {name: reasons.count(name) for name in ("kept", "low score", "too long", "empty")}
    kept = [row["id"] for row, name in zip(found_rows, reasons, strict=True) if name == "kept"]
    return kept, counted


def sorted_in_rounds(rows, min_score, max_chars, size=len, all_keys=True, low=None):
    """Sort out one reason after another."""
    low = low or (lambda score: score is None or score < min_score)
    counts = Counter()
    if all_keys:
        counts.update({"empty": 0, "too long": 0, "low score": 0, "kept": 0})

    for name, bad in (
        ("empty", lambda row: row["text"] is None or row["text"].isspace() or row["text"] == ""),
        ("too long", lambda row: size(row["text"]) > max_chars),
        ("low score", lambda row: low(row["score"])),
    ):
        rest = [row for row in rows if not bad(row)]
        if all_keys or len(rest) < len(rows):
            counts[name] = len(rows) - len(rest)
        rows = rest

    if all_keys or rows:
        counts["kept"] = len(rows)
    return [row["id"] for row in rows], dict(counts)


def packed_by_dataset(documents, end, block_size):
    row = [token for document in documents for token in (*document, end)]
    return [(x.tolist(), y.tolist()) for x, y in TextDataset(row, block_size)]


def joined(documents, end):
    row = []
    for document in documents:
        row += document
        row.append(end)
    return row


def packed_backwards(documents, end, block_size, join=joined, tail=True, mask=True):
    """Cut full blocks; then take the last block_size + 1 tokens for what is left."""
    row = join(documents, end)
    full, left = divmod(len(row) - 1, block_size)
    blocks = []
    for i in range(full):
        piece = row[i * block_size : (i + 1) * block_size + 1]
        blocks.append((piece[:-1], piece[1:]))

    if left and tail:
        piece = row[-block_size - 1 :]
        seen = block_size - left if mask else 0
        blocks.append((piece[:-1], [-100] * seen + piece[1 + seen :]))
    return blocks


def packed_in_numpy(documents, end, block_size):
    """Number the targets: one that was asked by an earlier block is not asked again."""
    row = np.array(joined(documents, end))
    starts = np.minimum(np.arange(0, len(row) - 1, block_size), len(row) - 1 - block_size)
    asked, blocks = set(), []
    for start in starts:
        places = range(start + 1, start + 1 + block_size)
        y = [-100 if place in asked else int(row[place]) for place in places]
        asked.update(places)
        blocks.append((row[start : start + block_size].tolist(), y))
    return blocks


def joined_bare(documents, end):
    return [token for document in documents for token in document]


def joined_between(documents, end):
    return joined(documents, end)[:-1]


def positions_by_arange(position, rank, world, batch_size, steps):
    grid = position + torch.arange(steps * world * batch_size).view(steps, world, batch_size)
    return grid[:, rank].tolist(), position + grid.numel()


def positions_by_formula(position, rank, world, batch_size, steps, after=None, flat=False):
    """Say where each draw of each step is."""
    drawn = [
        [position + (step * world + rank) * batch_size + i for i in range(batch_size)]
        for step in range(steps)
    ]
    end = position + steps * world * batch_size if after is None else after
    return sum(drawn, []) if flat else drawn, end


def positions_of_all(position, rank, world, batch_size, steps):
    """Deal the cards as all ranks see it."""
    mine = []
    for _ in range(steps):
        for dealt_to in range(world):
            hand = [position + i for i in range(batch_size)]
            position += batch_size
            if dealt_to == rank:
                mine.append(hand)
    return mine, position


def positions_in_turn(position, rank, world, batch_size, steps):
    """Deal one by one."""
    end = position + steps * world * batch_size
    mine = list(range(position + rank, end, world))
    return [mine[i * batch_size : (i + 1) * batch_size] for i in range(steps)], end


def plan_by_integers(total, sample_bytes, sample_tokens, B, T, accumulate):
    tokens = round(total / sample_bytes * sample_tokens)
    return tokens, (tokens + B * T * accumulate - 1) // (B * T * accumulate)


def plan_by_counting(total, sample_bytes, sample_tokens, B, T, accumulate, whole=round, extra=True):
    """Add half a token and cut; then divmod."""
    tokens = whole(Fraction(total * sample_tokens, sample_bytes))
    steps, left = divmod(tokens, B * T * accumulate)
    return tokens, steps + (1 if left and extra else 0)


def plan_in_floats(total, sample_bytes, sample_tokens, B, T, accumulate):
    tokens = np.round(total * sample_tokens / sample_bytes)
    return float(tokens), float(np.ceil(tokens / (B * T * accumulate)))


ANSWERS = [
    ("validation_ids", side_by_hex, ""),
    ("validation_ids", side_by_struct, ""),
    ("validation_ids", lambda ids, f: side_by_hex(ids, min(0.9, 1.1 * f)), "wrong length"),
    ("validation_ids", lambda ids, f: sorted(side_by_hex(ids, f)), "wrong value"),
    ("validation_ids", lambda ids, f: set(side_by_hex(ids, f)), "wrong type"),
    ("validation_ids", side_by_position, "a part of the list"),
    ("validation_ids", side_by_chance, "drawn at random"),
    ("validation_ids", side_by_remainder, "steps of a hundredth"),
    ("validation_ids", lambda ids, f: side_by_hex(ids, f, digits=8), "eight hexadecimal digits"),
    ("validation_ids", lambda ids, f: side_by_struct(ids, f, keep=lambda lot, f: lot >= f), "the other side"),
    ("validation_ids", lambda ids, f: side_by_struct(ids, f, "<", keep=lambda lot, f: lot >= f),
     "two things at once: the other side, and the bytes in the other order"),
    ("sort_documents", sorted_by_names, ""),
    ("sort_documents", sorted_in_rounds, ""),
    ("sort_documents", lambda *a: (sorted_by_names(*a)[0][:2], sorted_by_names(*a)[1]), "wrong length"),
    ("sort_documents", lambda *a: sorted_in_rounds(*a, all_keys=False), "keys without rows are missing"),
    ("sort_documents", lambda *a: sorted_in_rounds(*a, size=lambda t: len(bytes(t, "utf-8"))),
     "bytes instead of characters"),
    ("sort_documents", lambda rows, low, most: sorted_in_rounds(rows, low, most - 1), "exactly as long is too long"),
    ("sort_documents", lambda rows, low, n: sorted_in_rounds(rows, low, n, low=lambda s: not s or s < low),
     "a score of 0 taken for none"),
    ("sort_documents", lambda rows, low, n: sorted_in_rounds(rows, low, n, low=lambda s: low > 0 and (s or 0) < low),
     "no score taken for 0"),
    ("sort_documents", lambda *a: sorted_in_rounds(*a, size=lambda t: len(t.encode()), all_keys=False),
     "two things at once: bytes instead of characters, and keys without rows are missing"),
    ("pack_documents", packed_by_dataset, ""),
    ("pack_documents", packed_backwards, ""),
    ("pack_documents", packed_in_numpy, ""),
    ("pack_documents", lambda d, e, b: packed_by_dataset(d, e, b)[:-1], "the tail is left out"),
    ("pack_documents", lambda *a: [[torch.tensor(x) for x in xy] for xy in packed_in_numpy(*a)], "wrong type"),
    ("pack_documents", lambda *a: packed_backwards(*a, tail=False), "the tail is left out"),
    ("pack_documents", lambda *a: packed_backwards(*a, mask=False), "the tail asks again"),
    ("pack_documents", lambda *a: packed_backwards(*a, join=joined_bare), "no END"),
    ("pack_documents", lambda *a: packed_backwards(*a, join=joined_between), "no END after the last document"),
    ("pack_documents", lambda *a: packed_backwards(*a, join=lambda d, end: [end, *joined(d, end)[:-1]], mask=False),
     "two things at once: END before each document, and the tail asks again"),
    ("positions_of_rank", positions_by_arange, ""),
    ("positions_of_rank", positions_by_formula, ""),
    ("positions_of_rank", positions_of_all, ""),
    ("positions_of_rank", lambda p, r, w, b, s: positions_by_arange(p, w - 1 - r, w, b, s), "wrong value"),
    ("positions_of_rank", positions_in_turn, "every other block"),
    ("positions_of_rank", lambda p, *a: positions_by_formula(p, *a, after=p), "the old position returned"),
    ("positions_of_rank", lambda *a: positions_by_formula(*a, flat=True), "one list for all steps"),
    ("positions_of_rank", lambda p, *a: positions_by_formula(p, *a, after=p + a[-1], flat=True),
     "two things at once: steps counted, and one list for all steps"),
    ("plan_run", plan_by_integers, ""),
    ("plan_run", plan_by_counting, ""),
    ("plan_run", lambda *a: plan_by_integers(*a)[::-1], "wrong value"),
    ("plan_run", plan_in_floats, "wrong type"),
    ("plan_run", lambda *a: plan_by_counting(*a, extra=False), "steps rounded down"),
    ("plan_run", lambda *a: plan_by_counting(*a, whole=int), "tokens rounded down"),
    ("plan_run", lambda *a: plan_by_integers(*a[:-1], 1), "accumulation forgotten"),
    ("plan_run", lambda total, b, t, *a: plan_by_counting(total, t, b, *a[:-1], 1),
     "two things at once: the ratio upside down, and accumulation forgotten"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
