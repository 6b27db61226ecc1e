"""Chapter 23's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from tools import judged


def varint_by_recursion(data, bits=7):
    byte, *rest = data
    if byte < 128:
        return byte, 1
    n, used = varint_by_recursion(rest, bits)
    return byte - 128 + n * 2**bits, used + 1


def varint_by_text(data, order=-1, extra=0):
    used = next(i for i, byte in enumerate(data) if byte < 128) + 1
    digits = "".join(f"{byte % 128:07b}" for byte in data[:used][::order])
    return int(digits, 2), used - extra


def pieces_by_joining(chunks, ends=lambda data: data == "[DONE]", blank=False):
    *events, _ = "".join(chunks).split("\n\n")
    found = []
    for event in events:
        data = event[len("data: ") :]
        if ends(data):
            break
        text = json.loads(data)["choices"][0]["delta"].get("content", "" if blank else None)
        found += [] if text is None else [text]
    return found


def pieces_by_characters(chunks, stop=True):
    held, found = "", []
    for character in itertools.chain(*chunks):
        held += character
        if not held.endswith("\n\n"):
            continue
        event, held = held, ""
        if event.strip() == "data: [DONE]":
            if stop:
                break
            continue
        found += json.loads(event[6:])["choices"][0]["delta"].values()
    return [text for text in found if text != "assistant"]


def pieces_chunkwise(chunks):
    found = []
    for chunk in chunks:
        if chunk.startswith("data: {") and chunk.endswith("\n\n"):
            found += pieces_by_joining([chunk])
    return found


def int8_by_rows(w, own=True):
    rows, scales = [], []
    for row in w:
        scale = float((row if own else w).abs().max()) / 127 or 1.0
        rows.append([round(x / scale) for x in row.tolist()])
        scales.append(scale)
    return torch.tensor(rows, dtype=torch.int8), torch.tensor(scales)


def int8_by_norm(w, steps=127, whole=torch.round, floor=True):
    scale = torch.linalg.vector_norm(w, math.inf, dim=1) / steps
    if floor:
        scale = scale + (scale == 0).float()
    return whole(w / scale.unsqueeze(1)).char(), scale


ANSWERS = [
    ("read_varint", varint_by_recursion, ""),
    ("read_varint", varint_by_text, ""),
    ("read_varint", lambda data: varint_by_text(data, order=1), "the highest bits first"),
    ("read_varint", lambda data: varint_by_text(data, extra=1), "one byte too few"),
    ("read_varint", lambda data: varint_by_recursion(data, bits=8), "eight bits each"),
    ("read_varint", lambda data: varint_by_text(data, order=1, extra=1),
     "two things at once: the highest bits first, and one byte too few"),
    ("pieces_of", pieces_by_joining, ""),
    ("pieces_of", pieces_by_characters, ""),
    ("pieces_of", lambda chunks: pieces_by_characters(chunks, stop=False), "goes on after the end"),
    ("pieces_of", lambda chunks: pieces_by_joining(chunks, blank=True), "an empty piece for the role"),
    ("pieces_of", lambda chunks: pieces_by_joining(chunks, lambda data: "[DONE]" in data), "an end inside a text"),
    ("pieces_of", pieces_chunkwise, "wrong length"),
    ("int8_rows", int8_by_rows, ""),
    ("int8_rows", int8_by_norm, ""),
    ("int8_rows", lambda w: int8_by_norm(w, whole=torch.trunc), "cut off"),
    ("int8_rows", lambda w: int8_by_norm(w, steps=128), "128 steps"),
    ("int8_rows", lambda w: int8_by_norm(w, floor=False), "zeros divided by zero"),
    ("int8_rows", lambda w: int8_by_rows(w, own=False), "one scale for all"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
