"""Chapter 08's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tools import judged

ROOT = math.sqrt(2 / math.pi)


def gelu_number_by_number(x, root=ROOT, half=2, power=3):
    numbers = [
        z * (math.tanh(root * (z + 0.044715 * z**power)) + 1) / half for z in x.flatten().tolist()
    ]
    return torch.tensor(numbers).reshape(x.shape)


def gelu_by_exponentials(x):
    z = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x.pow(3))
    up, down = torch.exp(z), torch.exp(-z)
    return x / 2 * (1 + (up - down) / (up + down))


def swiglu_by_einsum(x, gate, up, down, act=F.silu):
    z = torch.einsum("...c,hc->...h", x, gate)
    return torch.einsum("...h,...h,ch->...c", act(z), torch.einsum("...c,hc->...h", x, up), down)


def swiglu_in_numpy(x, gate, up, down, transposed=True):
    x, gate, up, down = (a.numpy() for a in (x, gate, up, down))
    if transposed:
        gate, up, down = gate.T, up.T, down.T
    z = x @ gate
    return torch.from_numpy(z / (1 + np.exp(-z)) * (x @ up) @ down)


def price_by_search(n_embd, multiple_of, wide=8, matrices=3, flops=2):
    hidden = wide * n_embd // 3
    while hidden % multiple_of:
        hidden += 1
    return hidden, hidden * n_embd * matrices, hidden * n_embd * matrices * flops


def price_by_negative_division(n_embd, multiple_of):
    two_thirds = 2 * (4 * n_embd) // 3
    hidden = -(-two_thirds // multiple_of) * multiple_of
    return [hidden, n_embd * hidden * 3, n_embd * hidden * 6]


def price_in_floats(n_embd, multiple_of):
    hidden = np.ceil(8 * n_embd // 3 / multiple_of) * multiple_of
    return hidden, 3 * n_embd * hidden, 6 * n_embd * hidden


def relu2_by_where(x, up, up_bias, down, down_bias):
    z = F.linear(x, up, up_bias)
    return F.linear(torch.where(z > 0, z * z, 0.0), down, down_bias)


def relu2_vector_by_vector(x, up, up_bias, down, down_bias, act=lambda z: max(z, 0.0) ** 2):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        hidden = torch.tensor([act(float(z)) for z in up @ row + up_bias])
        rows.append(down @ hidden + down_bias)
    return torch.stack(rows).reshape(x.shape)


ANSWERS = [
    ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), ""),
    ("gelu_tanh", lambda x: x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)), ""),
    ("gelu_tanh", gelu_number_by_number, ""),
    ("gelu_tanh", gelu_by_exponentials, "a tanh by hand that overflows"),
    ("gelu_tanh", F.gelu, "the exact GELU"),
    ("gelu_tanh", lambda x: torch.distributions.Normal(0, 1).cdf(x) * x, "the exact GELU"),
    ("gelu_tanh", lambda x: gelu_number_by_number(x, root=2**0.5 / math.pi), "the root of 2 alone"),
    ("gelu_tanh", lambda x: x / 2 * (1 + torch.tanh(ROOT * x + 0.044715 * x**3)), "the root multiplies x alone"),
    ("gelu_tanh", lambda x: gelu_number_by_number(x, half=1, power=2),
     "two things at once: the factor 0.5 is forgotten, and a square for the cube"),
    ("gelu_tanh", lambda x: 2 * F.gelu(x), "two things at once: the exact GELU, and the factor 0.5 is forgotten"),
    ("gelu_tanh", lambda x: x.relu(), "wrong value"),
    ("swiglu", lambda x, g, u, d: F.linear(F.silu(F.linear(x, g)) * F.linear(x, u), d), ""),
    ("swiglu", swiglu_by_einsum, ""),
    ("swiglu", swiglu_in_numpy, ""),
    ("swiglu", lambda x, g, u, d: F.linear(F.glu(torch.cat([x @ u.T, x @ g.T], -1)), d),
     "sigmoid instead of silu"),
    ("swiglu", lambda x, g, u, d: (F.silu(x @ u.T) * (x @ g.T)) @ d.T, "gate and up swapped"),
    ("swiglu", lambda x, g, u, d: F.linear(torch.sigmoid(F.linear(x, g)) * x * F.linear(x, u), d),
     "x times the sigmoid"),
    ("swiglu", lambda x, g, u, d: (F.silu(torch.mm(x, g.T)) * torch.mm(x, u.T)) @ d.T, "raised"),
    ("swiglu", lambda *a: swiglu_by_einsum(*a, act=lambda z: F.gelu(z, approximate="tanh")), "GELU in the gate"),
    ("swiglu", lambda *a: swiglu_by_einsum(*a, act=F.elu), "wrong value"),
    ("swiglu", lambda x, g, u, d: (F.silu(x @ g) * (x @ u)) @ d, "the matrices are not transposed"),
    ("swiglu", lambda x, g, u, d: swiglu_by_einsum(x, u, g, d, torch.sigmoid),
     "two things at once: gate and up swapped, and sigmoid instead of silu"),
    ("swiglu", lambda x, g, u, d: F.silu((F.silu(x @ g.T) * (x @ u.T)) @ d.T), "wrong value"),
    ("gated_price", price_by_search, ""),
    ("gated_price", price_by_negative_division, ""),
    ("gated_price", price_in_floats, "wrong type"),
    ("gated_price", lambda c, m: (n for n in price_by_search(c, m)), "returned a generator"),
    ("gated_price", lambda c, m: (price_by_search(c, m)[0], *price_by_search(c, m)[:0:-1]), "FLOPs before weights"),
    ("gated_price", lambda *a: (lambda h, w, f: (h, w + 1, f))(*price_by_search(*a)), "wrong value"),
    ("gated_price", lambda *a: price_by_search(*a, flops=1), "FLOPs count multiplications only"),
    ("gated_price", lambda *a: price_by_search(*a, flops=6), "FLOPs of training"),
    ("gated_price", lambda *a: price_by_search(*a, wide=2), "two thirds of n_embd"),
    ("gated_price", lambda *a: price_by_search(*a, wide=12, matrices=2),
     "two things at once: the two thirds are forgotten, and two matrices"),
    ("relu2_layer", lambda x, u, a, d, b: F.linear(F.linear(x, u, a).clamp(min=0) ** 2, d, b), ""),
    ("relu2_layer", relu2_by_where, ""),
    ("relu2_layer", relu2_vector_by_vector, ""),
    ("relu2_layer", lambda x, u, a, d, b: F.linear(F.linear(x, u, a).abs().pow(2), d, b),
     "squared before ReLU"),
    ("relu2_layer", lambda *a: relu2_vector_by_vector(*a, act=lambda z: z * abs(z)), "the sign is kept"),
    ("relu2_layer", lambda x, u, a, d, b: relu2_by_where(x, u, 0 * a, d, 0 * b),
     "two things at once: the first bias is missing, and the last bias is missing"),
    ("relu2_layer", lambda x, u, a, d, b: F.linear(F.gelu(F.linear(x, u, a)) ** 2, d, b), "wrong value"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
