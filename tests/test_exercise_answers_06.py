"""Chapter 06's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tools import judged

from minigpt_lib.attention import scaled_dot_product_attention
from minigpt_lib.positions import RopeScaling, apply_rotary

# ---------------------------------------------------------------- rotary_head


def head_from_the_library(x, w_q, w_k, w_v, positions, base=10000.0, turned=(True, True, False)):
    q, k, v = ((x @ w)[:, None] for w in (w_q, w_k, w_v))  # one head
    q, k, v = (
        apply_rotary(heads, positions, base) if turn else heads
        for heads, turn in zip((q, k, v), turned)
    )
    return scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]


def head_in_complex(
    x, w_q, w_k, w_v, positions, base=10000.0, scale=0.5, neighbours=False, width=None
):
    D = w_q.shape[1]
    turn = torch.exp(1j * positions[:, None] / base ** (torch.arange(D // 2) * 2 / (width or D)))

    def numbers(heads):
        if neighbours:
            return torch.view_as_complex(heads.unflatten(-1, (-1, 2)).contiguous()) * turn
        return torch.complex(heads[..., : D // 2], heads[..., D // 2 :]) * turn

    scores = torch.einsum("bid,bjd->bij", numbers(x @ w_q), numbers(x @ w_k).conj()).real / D**scale
    future = torch.triu(torch.full_like(scores, -torch.inf), diagonal=1)
    return torch.einsum("bij,bjd->bid", torch.softmax(scores + future, -1), x @ w_v)


def head_by_distance(x, w_q, w_k, w_v, positions, base=10000.0, causal=True):
    """Turn the query by the distance alone, pair of tokens by pair of tokens."""
    half = w_q.shape[1] // 2
    out = torch.zeros(len(x), x.shape[1], w_v.shape[1])
    for i in range(x.shape[1]):
        scores = []
        for j in range(i + 1 if causal else x.shape[1]):
            angle = (positions[i] - positions[j]) / base ** (torch.arange(half) / half)
            q = x[:, i] @ w_q
            a, b = q[:, :half], q[:, half:]
            turned = torch.cat(
                [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], 1
            )
            scores.append((turned * (x[:, j] @ w_k)).sum(-1) / math.sqrt(2 * half))
        weights = torch.stack(scores, -1).softmax(-1)
        out[:, i] = (weights[..., None] * (x @ w_v)[:, : len(scores)]).sum(1)
    return out


# ---------------------------------------------------------------- waves


def sinusoids_with_loops(positions, dim, base=10000.0, curves=(math.sin, math.cos), share=2):
    rows = []
    for position in positions.tolist():
        angles = [position / base ** (share * i / dim) for i in range(dim // 2)]
        rows.append([f(angle) for angle in angles for f in curves])
    return torch.tensor(rows)


def sinusoids_in_place(positions, dim, base=10000.0, start=0):
    speeds = torch.exp(torch.arange(0, dim, 2) * -(math.log(base) / dim))
    out = torch.zeros(len(positions), dim)
    out[:, 0::2] = torch.sin(torch.outer(positions.float() + start, speeds))
    out[:, 1::2] = torch.cos(torch.outer(positions.float() + start, speeds))
    return out


def sinusoids_in_numpy(positions, dim, base=10000.0):
    angles = positions.numpy()[:, None] / base ** (np.arange(0, dim, 2) / dim)
    both = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return torch.from_numpy(both.reshape(len(positions), dim))


def sinusoids_in_halves(positions, dim, base=10000.0, first=torch.sin, second=torch.cos):
    angles = torch.outer(positions.float(), 1 / base ** (torch.arange(dim // 2) * 2 / dim))
    return torch.hstack([first(angles), second(angles)])


# ---------------------------------------------------------------- rotate


def rotated_by_matrices(x, positions, base=10000.0, power=1, sign=1):
    half = x.shape[-1] // 2
    out = torch.empty_like(x, dtype=torch.float32)

    for t, position in enumerate(positions.tolist()):
        for i in range(half):
            angle = position * base ** (-i * power / half)
            cosine = math.cos(angle)
            sine = math.sin(angle) * sign
            matrix = torch.tensor([[cosine, -sine], [sine, cosine]])
            out[..., t, [i, i + half]] = x[..., t, [i, i + half]].float() @ matrix.T

    return out.to(x.dtype)


def rotated_as_llama(x, positions, base=10000.0, repeat=None, dtype=None):
    D = x.shape[-1]
    inv_freq = 1.0 / base ** (torch.arange(0, D, 2).float() / D)
    freqs = torch.outer(positions.to(dtype or torch.float32).float(), inv_freq)
    emb = repeat(freqs) if repeat else torch.cat([freqs, freqs], dim=-1)
    first, second = x[..., : D // 2], x[..., D // 2 :]
    turned = torch.cat([-second, first], dim=-1)
    return (x * emb.cos() + turned * emb.sin()).type_as(x)


def rotated_in_complex(x, positions, base=10000.0, neighbours=False, narrow=True):
    half = x.shape[-1] // 2
    angles = positions.view(-1, 1) / base ** (torch.arange(half) / half)
    turn = torch.exp(1j * angles)
    a, b = (
        x.float().unflatten(-1, (half, 2)).unbind(-1) if neighbours else x.float().split(half, -1)
    )
    y = torch.complex(a, b) * turn
    y = torch.view_as_real(y).flatten(-2) if neighbours else torch.cat([y.real, y.imag], -1)
    return y.to(x.dtype) if narrow else y


# ---------------------------------------------------------------- to_half_split


def reordered_by_rows(weight, n_head, first=0):
    width = len(weight) // n_head
    within = [*range(first, width, 2), *range(1 - first, width, 2)]
    return weight[[h * width + r for h in range(n_head) for r in within]]


def reordered_by_transpose(weight, n_head):
    pairs = weight.view(n_head, -1, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def reordered_backwards(weight, n_head):
    halves = weight.view(n_head, 2, -1, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)


def reordered_in_place(weight, n_head):
    weight[:] = reordered_by_rows(weight, n_head)
    return weight


# ---------------------------------------------------------------- write_along


def attended_at_once(q, k, v, turn, start=5, apart=1, scale=None, values=lambda v, turn, at: v):
    positions = torch.arange(len(q)) * apart + start  # a shift does not matter
    scores = turn(q, positions) @ turn(k, positions).T / (scale or math.sqrt(q.shape[1]))
    later = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf).softmax(-1) @ values(v, turn, positions)


def attended_from_scratch(q, k, v, turn, query=lambda t: t, key=lambda j: j):
    rows = []
    for t in range(len(q)):
        at = torch.tensor([key(j) for j in range(t + 1)])
        turned = turn(q[t].view(1, -1), torch.tensor([query(t)]))
        weights = torch.softmax(turn(k[: t + 1], at) @ turned[0] * q.shape[1] ** -0.5, 0)
        rows.append(weights @ v[: t + 1])
    return torch.stack(rows)


ANSWERS = [
    ("rotary_head", head_from_the_library, ""),
    ("rotary_head", head_in_complex, ""),
    ("rotary_head", head_by_distance, ""),
    ("rotary_head", lambda *a: head_from_the_library(*a).transpose(1, 2), "wrong shape"),
    ("rotary_head", lambda *a: -head_in_complex(*a), "wrong value"),
    ("rotary_head", lambda *a: head_in_complex(*a, neighbours=True), "neighbours are paired"),
    ("rotary_head", lambda *a: head_in_complex(*a, scale=0), "the square root is missing"),
    ("rotary_head", lambda *a: head_in_complex(*a, width=a[0].shape[-1]), "the width of x in the exponent"),
    ("rotary_head", lambda *a: head_by_distance(*a, causal=False), "the mask is missing"),
    ("rotary_head", lambda x, q, k, v, at, base=1e4: head_from_the_library(x, q, k, v, at, base, (True,) * 3),
     "the values are turned too"),
    ("rotary_head", lambda x, q, k, v, at, base=1e4: head_from_the_library(x, q, k, v, at, base, (True, False, False)),
     "only the queries are turned"),
    ("rotary_head", lambda x, q, k, v, at, base=1e4: head_by_distance(x, q, k, v, torch.arange(x.shape[1]), base),
     "positions are counted, not read"),
    ("rotary_head", lambda x, q, k, v, at, base=1e4: head_by_distance(x, q, k, v, at, causal=False),
     "two things at once: the base is ignored, and the mask is missing"),
    ("rotary_head", lambda x, q, k, v, at, base=1e4: head_in_complex(x, q, k, v, at, scale=0),
     "two things at once: the base is ignored, and the square root is missing"),
    ("waves", sinusoids_with_loops, ""),
    ("waves", sinusoids_in_place, ""),
    ("waves", sinusoids_in_numpy, "float64 in place of float32"),
    ("waves", lambda at, dim, base=1e4: sinusoids_in_numpy(at, dim, base).float(), ""),
    ("waves", lambda at, dim, base=1e4: sinusoids_with_loops(at, dim, base)[:, : dim - 1], "wrong shape"),
    ("waves", sinusoids_in_halves, "all sines, then all cosines"),
    ("waves", lambda *a: sinusoids_in_halves(*a, torch.cos, torch.sin) if len(a) == 3 else
     sinusoids_in_halves(*a, 1e4, torch.cos, torch.sin),
     "two things at once: all sines, then all cosines, and cosine first"),
    ("waves", lambda at, dim, base=1e4: sinusoids_in_place(at, dim), "the base is ignored"),
    ("waves", lambda at, dim, base=1e4: sinusoids_in_place(at, dim, base, start=1), "counted from 1"),
    ("waves", lambda at, dim, base=1e4: sinusoids_with_loops(at, dim, base, share=4),
     "the 2 in the exponent counted twice"),
    ("waves", lambda at, dim, base=1e4: sinusoids_with_loops(at, dim, base, (math.cos, math.sin), 1),
     "two things at once: the 2 in the exponent is missing, and cosine first"),
    ("rotate", rotated_by_matrices, ""),
    ("rotate", lambda x, at, base=1e4: apply_rotary(x, at, base), ""),
    ("rotate", rotated_as_llama, ""),
    ("rotate", rotated_in_complex, ""),
    ("rotate", lambda x, at, base=1e4: apply_rotary(x, at, base, RopeScaling()), "wrong value"),
    ("rotate", lambda *a: rotated_by_matrices(*a, sign=-1), "it turns the wrong way"),
    ("rotate", lambda *a: rotated_by_matrices(*a, power=2), "the 2 in the exponent counted twice"),
    ("rotate", lambda *a: rotated_in_complex(*a, neighbours=True), "neighbours are paired"),
    ("rotate", lambda *a: rotated_in_complex(*a, narrow=False), "the result stays wide"),
    ("rotate", lambda *a: rotated_as_llama(*a, repeat=lambda f: f.repeat_interleave(2, -1)),
     "the angles are repeated in the wrong order"),
    ("rotate", lambda x, at, base=1e4: rotated_as_llama(x, at, base, dtype=x.dtype), "angles in the dtype of x"),
    ("rotate", lambda x, at, base=1e4: rotated_as_llama(x, torch.arange(x.size(2)), base), "positions restart at 0"),
    ("rotate", lambda x, at, base=1e4: rotated_by_matrices(x, at, base, sign=-1, power=0.5),
     "two things at once: it turns the wrong way, and the 2 in the exponent is missing"),
    ("rotate", lambda x, at, base=1e4: rotated_in_complex(x, at, neighbours=True),
     "two things at once: neighbours are paired, and the base is ignored"),
    ("to_half_split", reordered_by_rows, ""),
    ("to_half_split", reordered_by_transpose, ""),
    ("to_half_split", lambda w, n_head: w.flip(0), "wrong value"),
    ("to_half_split", reordered_in_place, "changed its input"),
    ("to_half_split", reordered_backwards, "the wrong direction"),
    ("to_half_split", lambda w, n_head: reordered_by_rows(w, 1), "across the heads"),
    ("to_half_split", lambda w, n_head: reordered_by_rows(w, n_head, first=1), "second halves first"),
    ("to_half_split", lambda w, n_head: reordered_by_rows(w, 1, first=1),
     "two things at once: across the heads, and second halves first"),
    ("write_along", attended_at_once, ""),
    ("write_along", attended_from_scratch, ""),
    ("write_along", lambda q, k, v, turn: attended_at_once(q, k, v, lambda x, at: x), "every step restarts at 0"),
    ("write_along", lambda *a: attended_at_once(*a, apart=2), "places two apart"),
    ("write_along", lambda *a: attended_at_once(*a, start=0, values=lambda v, turn, at: turn(v, at)),
     "the values are turned too"),
    ("write_along", lambda *a: attended_from_scratch(*a, query=lambda t: t + 1), "the query is one place too far"),
    ("write_along", lambda *a: attended_from_scratch(*a, key=lambda j: 0), "only the query knows its place"),
    ("write_along", lambda *a: attended_from_scratch(*a, query=lambda t: 0), "only the keys know their places"),
    ("write_along", lambda *a: attended_at_once(*a, apart=2, scale=1),
     "two things at once: places two apart, and the √d is missing"),
    ("write_along", lambda q, k, v, turn: attended_at_once(q, k, v, lambda x, at: x, scale=1),
     "two things at once: every step restarts at 0, and the √d is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
