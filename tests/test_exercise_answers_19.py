"""Chapter 19's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import pytest
import torch
from tools import judged

from minigpt_lib.positions import half_split_to_interleaved


def bytes_by_table(token, first=33, gap=(173,)):
    plain = {b for b in range(first, 256) if not 127 <= b <= 160 and b not in gap}
    table, free = {}, 256
    for byte in range(256):
        if byte in plain:
            table[chr(byte)] = byte
        else:
            table[chr(free)] = byte
            free += 1
    return [table[character] for character in token]


def bytes_by_search(token):
    from tokenizers import pre_tokenizers

    written = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    texts = [chr(i) for i in range(128)] + [chr(0x80), chr(0xC0), "é"]
    found = {}
    for text in texts:
        for shown, byte in zip(written.pre_tokenize_str(text)[0][0], text.encode()):
            found[shown] = byte
    return [found.get(character, bytes_by_table(character)[0]) for character in token]


def q4_by_loops(d, packed, offset=8):
    rows = []
    for scale, block in zip(d.tolist(), packed.tolist()):
        steps = [byte % 16 for byte in block] + [byte // 16 for byte in block]
        rows.append([scale * (step - offset) for step in steps])
    return torch.tensor(rows)


def q4_by_stacking(d, packed, order=(0, 1), scale=lambda d: d):
    halves = [packed % 16, packed // 16]
    numbers = torch.stack([halves[i] for i in order], dim=1).flatten(1).to(torch.int16) - 8
    return numbers * scale(d).unsqueeze(1)


def q4_side_by_side(d, packed, offset=8.0):
    pairs = torch.stack([packed.int() & 0xF, packed.int() >> 4], dim=-1)
    return (pairs.reshape(len(packed), 32) - offset) * d[:, None]


def rows_by_index(qkv, n_head, n_kv_head, also_values=False, order=(0, 1)):
    width = qkv.shape[0] // (n_head + n_kv_head + n_kv_head)
    half = width // 2
    places = [i + half * part for i in range(half) for part in order]
    heads = list(qkv.split(width))
    turned = n_head + n_kv_head * (2 if also_values else 1)
    heads = [head[places] if i < turned else head for i, head in enumerate(heads)]
    cut = n_head + n_kv_head
    return torch.cat(heads[:n_head]), torch.cat(heads[n_head:cut]), torch.cat(heads[cut:])


def rows_by_library(qkv, n_head, n_kv_head, keys=True, alone=True):
    D = len(qkv) // (n_head + 2 * n_kv_head)
    q, k, v = qkv[: n_head * D], qkv[n_head * D : -n_kv_head * D], qkv[-n_kv_head * D :]
    q = half_split_to_interleaved(q.unflatten(0, (n_head if alone else 1, -1)), 1).flatten(0, 1)
    if keys:
        k = half_split_to_interleaved(k.unflatten(0, (n_kv_head if alone else 1, -1)), 1).flatten(
            0, 1
        )
    return q, k, v


def sound_by_steps(shape, itemsize, start, end, file_size):
    needed = itemsize
    for size in shape:
        if size < 1:
            return False
        needed *= size
    if start < 0 or end > file_size:
        return False
    return start + needed == end


def sound_by_ranges(shape, itemsize, start, end, file_size, first=1):
    inside = range(start, end)
    claimed = torch.Size([max(0, size) for size in shape]).numel() * itemsize
    positive = all(size >= first for size in shape)
    return positive and len(inside) == claimed and start >= 0 and not end > file_size


ANSWERS = [
    ("token_bytes", bytes_by_table, ""),
    ("token_bytes", bytes_by_search, ""),
    ("token_bytes", lambda token: bytes_by_table(token, gap=()), "raised"),
    ("token_bytes", lambda token: [ord(c) % 256 for c in token], "256 subtracted"),
    ("token_bytes", lambda token: [ord(c) for c in token], "the disguise left on"),
    ("token_bytes", lambda token: list(reversed(bytes_by_table(token))), "backwards"),
    ("token_bytes", lambda token: bytes(bytes_by_table(token)), "wrong type"),
    ("unpack_q4_0", q4_by_loops, ""),
    ("unpack_q4_0", q4_by_stacking, ""),
    ("unpack_q4_0", lambda d, p: q4_by_loops(d, p, offset=0), "no eight subtracted"),
    ("unpack_q4_0", lambda d, p: q4_by_stacking(d, p, order=(1, 0)), "high halves first"),
    ("unpack_q4_0", q4_side_by_side, "halves interleaved"),
    ("unpack_q4_0", lambda d, p: q4_by_stacking(d, p, scale=lambda d: d[:1]), "the first scale for all"),
    ("unpack_q4_0", lambda d, p: q4_side_by_side(d, p, 7.5),
     "two things at once: halves interleaved, and seven and a half subtracted"),
    ("rows_for_gguf", rows_by_index, ""),
    ("rows_for_gguf", rows_by_library, ""),
    ("rows_for_gguf", lambda *a: rows_by_index(*a, also_values=True), "values interleaved too"),
    ("rows_for_gguf", lambda *a: rows_by_library(*a, keys=False), "keys left as they are"),
    ("rows_for_gguf", lambda *a: rows_by_library(*a, alone=False), "heads mixed"),
    ("rows_for_gguf", lambda *a: rows_by_index(*a, order=(1, 0)), "halves swapped"),
    ("rows_for_gguf", lambda *a: rows_by_index(*a, order=(1, 0), also_values=True),
     "two things at once: values interleaved too, and halves swapped"),
    ("is_sound", sound_by_steps, ""),
    ("is_sound", sound_by_ranges, ""),
    ("is_sound", lambda *a: sound_by_ranges(*a, first=0), "empty sizes"),
    ("is_sound", lambda *a: sound_by_steps(*a[:3], a[3] + 1, a[4]), "wrong value"),
    ("is_sound", lambda s, i, a, b, n: sound_by_steps(s, i, a, b, b), "beyond the file"),
    ("is_sound", lambda s, i, a, b, n: sound_by_steps(s, i, a, b, n - 1), "the last byte refused"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
