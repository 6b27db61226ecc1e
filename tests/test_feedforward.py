"""Chapter 08: the layers on any shape, widths and costs on any size, faults that the checks catch, the twin."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, judged, survives
from torch.nn import functional as F

from courseware.explorer_feedforward import GATE, activations, describe, draw
from minigpt_lib.feedforward import (
    ACTIVATIONS,
    GELU,
    GPTFFN,
    SwiGLUFFN,
    activation,
    ffn_cost,
    swiglu_hidden,
)

NUMBER = re.compile(r"\d+\.\d")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.sampled_from(("none", "tanh")))
def test_gelu_is_pytorchs_everywhere(values, approximate):
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    ours, theirs = GELU(approximate, fused=False)(x), F.gelu(x, approximate=approximate)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-9)


def test_the_two_forms_of_gelu_differ_as_the_chapter_says():
    x = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    difference = float((GELU()(x) - GELU("tanh")(x)).abs().max())
    assert 4e-4 < difference < 5e-4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 4), max_size=3), st.integers(1, 9), st.integers(1, 20),
    st.sampled_from((*ACTIVATIONS, "swiglu")), st.booleans(),
)  # fmt: skip
def test_any_shape_passes_and_each_vector_is_by_itself(shape, width, hidden, name, bias):
    torch.manual_seed(0)
    if name == "swiglu":
        layer = SwiGLUFFN(width, hidden, bias=bias).double()
    else:
        layer = GPTFFN(width, hidden, name, bias=bias).double()
    x = torch.randn(*shape, width, dtype=torch.float64)
    y = layer(x)
    assert y.shape == x.shape
    alone = torch.stack([layer(vector) for vector in x.reshape(-1, width)])
    torch.testing.assert_close(y.reshape(-1, width), alone, rtol=1e-12, atol=1e-12)
    price = ffn_cost(width, hidden, gated=name == "swiglu", bias=bias)
    assert price[0] == sum(p.numel() for p in layer.parameters())
    assert price[1] == 2 * sum(p.numel() for p in layer.parameters() if p.ndim == 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 1024))
def test_the_gated_width_is_the_first_multiple_that_is_wide_enough(n_embd, multiple_of):
    hidden = swiglu_hidden(n_embd, multiple_of)
    assert hidden % multiple_of == 0
    assert hidden - multiple_of < (8 * n_embd) // 3 <= hidden


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 4096))
def test_gated_and_ungated_cost_the_same_to_within_the_rounding(n_embd):
    gated = ffn_cost(n_embd, swiglu_hidden(n_embd, 1), gated=True, bias=False)[0]
    plain = ffn_cost(n_embd, 4 * n_embd, bias=False)[0]
    assert plain - 3 * n_embd < gated <= plain


def test_published_models_to_the_last_parameter():
    assert 12 * ffn_cost(768, 3072)[0] == 56_669_184  # GPT-2 small
    assert 32 * ffn_cost(4096, 14336, gated=True, bias=False)[0] == 5_637_144_576  # Llama 3 8B


def test_a_gate_can_multiply_what_a_sum_cannot():
    """silu(z) - silu(-z) = z, so two gated channels make the exact product of gate and up."""
    layer = SwiGLUFFN(2, 2).double()
    layer.gate.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()
    layer.up.weight.data = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).double()
    layer.down.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]]).double()
    x = torch.randn(50, 2, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[:, 0], x[:, 0] * x[:, 1])


def test_errors_quote_what_came_and_what_was_expected():
    with pytest.raises(ValueError, match="'GELU': expected one of relu, gelu, gelu_tanh, relu2"):
        activation("GELU")
    for layer in (GPTFFN, SwiGLUFFN):
        with pytest.raises(ValueError, match="n_embd=4 and hidden=-1 must both be at least 1"):
            layer(4, -1)


_UP = "self.activation(self.up(x))"
_DROP = "F.dropout({}, self.dropout, {})"
_DOWN = "self.down = nn.Linear(hidden, n_embd, bias={})"
FAULTS = {
    "tanh and exact mixed up": ('name == "gelu_tanh"', 'name != "gelu_tanh"'),
    "the 0.5 is forgotten": ("0.5 * x * (1 + torch.tanh", "x * (1 + torch.tanh"),
    "a square for the cube": ("0.044715 * x**3", "0.044715 * x**2"),
    "relu of the square": ("x.relu().square()", "x.square().relu()"),
    "gate and up swapped": ("silu(self.gate(x)) * self.up(x)", "silu(self.up(x)) * self.gate(x)"),
    "sigmoid for silu": ("F.silu(", "torch.sigmoid("),
    "two thirds forgotten": ("2 * 4 * n_embd / 3", "4 * n_embd"),
    "rounded down": ("math.ceil(", "math.floor("),
    "multiplications only": ("biases, 2 * weights", "biases, weights"),
    "biases in the FLOPs": ("biases, 2 * weights", "biases, 2 * (weights + biases)"),
    "dropout in evaluation": (_DROP.format("y", "self.training"), _DROP.format("y", "True")),
    "dropout on the hidden numbers": (_UP, _DROP.format(_UP, "self.training")),
    "no second bias": (_DOWN.format("bias"), _DOWN.format("False")),
}


def test_the_module_itself_passes(tmp_path):
    assert survives("08", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_checks(tmp_path, fault):
    assert not survives("08", tmp_path, *FAULTS[fault])


def table() -> dict:
    places = [round(-4 + i / 2, 1) for i in range(17)]
    x = torch.tensor(places, dtype=torch.float64, requires_grad=True)
    data = {"x": places, "value": {}, "slope": {}}
    for name, bend in {"ReLU": F.relu, "GELU": F.gelu, "SiLU": F.silu}.items():
        y = bend(x)
        data["value"][name] = [float(f"{v:.4g}") for v in y.tolist()]
        slopes = torch.autograd.grad(y.sum(), x)[0].tolist()
        data["slope"][name] = [float(f"{v:.4g}") for v in slopes]
    return data


def test_the_twin_draws_and_says_what_the_widget_does():
    data = table()
    names = (*data["value"], GATE)
    states = [
        {"name": n, "i": i, "up": u} for n in names for i in (0, 8, 10, 16) for u in (-1.5, 2)
    ]
    expression = "data[1].map((s) => [m.describe(data[0], s), m.draw(data[0], s)])"
    theirs = in_node("activations.js", expression, [data, states])
    for state, (sentence, picture) in zip(states, theirs):
        assert sentence == describe(data, **state)
        mine = draw(data, **state)
        assert NUMBER.sub("#", picture) == NUMBER.sub("#", mine)
        for a, b in zip(NUMBER.findall(picture), NUMBER.findall(mine)):
            assert abs(float(a) - float(b)) < 0.11  # of a pixel: 0.05 is rounded up or to even


def test_the_widget_answers_its_controls():
    name, x, up, view = activations(table()).children
    assert "GELU at x = 1: value 0.841, slope 1.08." in view.value and up.disabled
    x.value = 6
    assert "GELU at x = −1: value −0.159" in view.value
    name.value, x.value, up.value = GATE, 10, -1.0
    silu = 1 / (1 + math.exp(-1))
    assert f"SiLU(1) = {silu:.3f}. Times up −1, this lets −{silu:.3f} through." in view.value
    assert not up.disabled


def priced(n_embd, multiple_of):
    hidden = 8 * n_embd // 3
    while hidden % multiple_of:
        hidden += 1
    return hidden, hidden * n_embd * 3, hidden * n_embd * 6


ANSWERS = [
    ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), ""),
    ("gelu_tanh", lambda x: x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)), ""),
    ("gelu_tanh", F.gelu, "the exact GELU"),
    ("gelu_tanh", lambda x: x.relu(), "wrong value"),
    ("swiglu", lambda x, g, u, d: F.linear(F.silu(F.linear(x, g)) * F.linear(x, u), d), ""),
    ("swiglu", lambda x, g, u, d: F.linear(F.glu(torch.cat([x @ u.T, x @ g.T], -1)), d),
     "sigmoid instead of silu"),
    ("swiglu", lambda x, g, u, d: (F.silu(x @ u.T) * (x @ g.T)) @ d.T, "gate and up swapped"),
    ("swiglu", lambda x, g, u, d: F.silu((F.silu(x @ g.T) * (x @ u.T)) @ d.T), "wrong value"),
    ("gated_price", priced, ""),
    ("gated_price", lambda c, m: (priced(c, m)[0], *priced(c, m)[:0:-1]), "wrong value"),
    ("gated_price", lambda c, m: (*priced(c, m)[:2], priced(c, m)[1]),
     "FLOPs count multiplications only"),
    ("relu2_layer", lambda x, u, a, d, b: F.linear(F.linear(x, u, a).clamp(min=0) ** 2, d, b), ""),
    ("relu2_layer", lambda x, u, a, d, b: F.linear(F.gelu(F.linear(x, u, a)) ** 2, d, b), "wrong value"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_in_another_style(name, answer, diagnosis):
    judged(name, answer, diagnosis)
