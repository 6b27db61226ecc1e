"""Chapter 08: the layers, their widths and their costs; faults, the widget and its twin."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, survives
from torch.nn import functional as F

from courseware.widgets.activations import GATE, activations, describe, draw
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
def test_gelu_and_its_gradient_agree_with_pytorch(values, approximate):
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)

    ours = GELU(approximate, fused=False)(x)
    theirs = F.gelu(x, approximate=approximate)

    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_the_two_forms_of_gelu_differ_by_less_than_a_thousandth():
    x = torch.linspace(-10, 10, 4001, dtype=torch.float64)

    difference = float((GELU()(x) - GELU("tanh")(x)).abs().max())

    assert 4e-4 < difference < 5e-4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 4), max_size=3),
    st.integers(1, 9),
    st.integers(1, 20),
    st.sampled_from((*ACTIVATIONS, "swiglu")),
    st.booleans(),
)
def test_every_vector_is_transformed_independently_and_the_cost_is_that_of_the_weights(
    shape, width, hidden, name, bias
):
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
    parameters, flops = ffn_cost(width, hidden, gated=name == "swiglu", bias=bias)
    assert parameters == sum(p.numel() for p in layer.parameters())
    assert flops == 2 * sum(p.numel() for p in layer.parameters() if p.ndim == 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 1024))
def test_the_gated_width_is_the_smallest_multiple_that_is_wide_enough(n_embd, multiple_of):
    hidden = swiglu_hidden(n_embd, multiple_of)

    assert hidden % multiple_of == 0
    assert hidden - multiple_of < (8 * n_embd) // 3 <= hidden


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 4096))
def test_gated_and_ungated_layers_have_the_same_size_up_to_rounding(n_embd):
    gated, _ = ffn_cost(n_embd, swiglu_hidden(n_embd, 1), gated=True, bias=False)
    plain, _ = ffn_cost(n_embd, 4 * n_embd, bias=False)

    assert plain - 3 * n_embd < gated <= plain


def test_the_layers_of_published_models_have_their_published_size():
    assert 12 * ffn_cost(768, 3072)[0] == 56_669_184  # GPT-2 small
    assert 32 * ffn_cost(4096, 14336, gated=True, bias=False)[0] == 5_637_144_576  # Llama 3 8B


def test_two_gated_channels_multiply_exactly():
    """Because silu(z) - silu(-z) = z, their difference is the product of gate and up."""
    layer = SwiGLUFFN(2, 2).double()
    layer.gate.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()
    layer.up.weight.data = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).double()
    layer.down.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]]).double()
    x = torch.randn(50, 2, dtype=torch.float64)

    torch.testing.assert_close(layer(x)[:, 0], x[:, 0] * x[:, 1])


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'GELU': expected one of relu, gelu, gelu_tanh, relu2"):
        activation("GELU")


@pytest.mark.parametrize("layer", [GPTFFN, SwiGLUFFN])
def test_an_invalid_width_is_refused_with_both_widths(layer):
    with pytest.raises(ValueError, match="n_embd=4 and hidden=-1 must both be at least 1"):
        layer(4, -1)


# ---------------------------------------------------------------- faults

_DROP = "F.dropout({}, self.dropout, {})"
_DOWN = "self.down = nn.Linear(hidden, n_embd, bias={})"
_UP = "self.up = nn.Linear(n_embd, hidden, bias={})"
_GPT = "self.activation(self.up(x))"
_GATED = "F.silu(self.gate(x)) * self.up(x)"
FAULTS = {
    "the tanh form and the exact one are swapped": ('name == "gelu_tanh"', 'name != "gelu_tanh"'),
    "the forms are swapped inside GELU": (
        'self.approximate == "none"',
        'self.approximate == "tanh"',
    ),
    "the factor 0.5 is missing": ("0.5 * x * (1 + torch.tanh", "x * (1 + torch.tanh"),
    "the factor 0.5 is missing in the exact form": (
        "0.5 * x * (1 + torch.erf",
        "x * (1 + torch.erf",
    ),
    "erf of x itself": ("torch.erf(x / math.sqrt(2))", "torch.erf(x)"),
    "a square instead of the cube": ("0.044715 * x**3", "0.044715 * x**2"),
    "2 / pi without its root": ("math.sqrt(2 / math.pi) *", "2 / math.pi *"),
    "fused is ignored": ("if self.fused:", "if True:"),
    "fused does not reach GELU": ('else "none", fused=fused)', 'else "none")'),
    "an unknown form of GELU is accepted": ('not in ("none", "tanh")', "is None"),
    "the square before the ReLU": ("x.relu().square()", "x.square().relu()"),
    "ReLU is not squared": ("x.relu().square()", "x.relu()"),
    "relu and relu2 are swapped": ('if name == "relu"', 'if name != "relu"'),
    "no activation": (_GPT, "self.up(x)"),
    "the activation after the way down": (
        f"self.down({_GPT})",
        "self.activation(self.down(self.up(x)))",
    ),
    "3 C wide": ("hidden = 4 * n_embd", "hidden = 3 * n_embd"),
    "the exact GELU is not the default": (
        'activation_name: str = "gelu"',
        'activation_name: str = "gelu_tanh"',
    ),
    "no first bias": (_UP.format("bias"), _UP.format("False")),
    "no second bias": (_DOWN.format("bias"), _DOWN.format("False")),
    "dropout in evaluation": (_DROP.format("y", "self.training"), _DROP.format("y", "True")),
    "dropout on the hidden units": (_GPT, _DROP.format(_GPT, "self.training")),
    "tokens are mixed": (_GPT, f"{_GPT}.roll(1, -2)"),
    "the factor 2/3 is missing": ("2 * 4 * n_embd / 3", "4 * n_embd"),
    "rounded down": ("math.ceil(", "math.floor("),
    "rounded to the nearest": ("math.ceil(", "round("),
    "the multiplier before the cut": (
        "int(multiplier * int(2 * 4 * n_embd / 3))",
        "int(multiplier * 2 * 4 * n_embd / 3)",
    ),
    "gate and up are swapped": (_GATED, "F.silu(self.up(x)) * self.gate(x)"),
    "sigmoid instead of silu": ("F.silu(", "torch.sigmoid("),
    "GELU instead of silu": ("F.silu(", "F.gelu("),
    "no silu": (_GATED, "self.gate(x) * self.up(x)"),
    "silu on the product": (_GATED, "F.silu(self.gate(x) * self.up(x))"),
    "gate and up are added": (_GATED, "F.silu(self.gate(x)) + self.up(x)"),
    "the gated layer is 4 C wide": ("hidden = swiglu_hidden(n_embd)", "hidden = 4 * n_embd"),
    "a width of 0 is accepted": ("min(n_embd, hidden) < 1", "min(n_embd, hidden) < 0"),
    "only multiplications are counted": ("biases, 2 * weights", "biases, weights"),
    "biases are counted in the FLOPs": ("biases, 2 * weights", "biases, 2 * (weights + biases)"),
    "two matrices of a gated layer": ("3 if gated else 2", "2"),
    "one bias of a gated layer is forgotten": (
        "(matrices - 1) * hidden + n_embd",
        "hidden + n_embd",
    ),
}


def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("08", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("08", tmp_path, *FAULTS[fault])


# ---------------------------------------------------------------- the widget and its twin


def rounded(tensor) -> list[float]:
    """Return the numbers with four significant digits."""
    return [float(f"{value:.4g}") for value in tensor.tolist()]


def table() -> dict:
    """Return the values and slopes of three activations from -4 to 4."""
    places = [round(-4 + i / 2, 1) for i in range(17)]
    x = torch.tensor(places, dtype=torch.float64, requires_grad=True)
    data = {"x": places, "value": {}, "slope": {}}

    for name, function in {"ReLU": F.relu, "GELU": F.gelu, "SiLU": F.silu}.items():
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        data["value"][name] = rounded(y)
        data["slope"][name] = rounded(slope)

    return data


def test_the_twin_draws_and_describes_the_same_as_the_widget():
    data = table()
    states = [
        {"name": name, "i": i, "up": up}
        for name in (*data["value"], GATE)
        for i in (0, 8, 10, 16)
        for up in (-1.5, 2)
    ]

    expression = "data[1].map((s) => [m.describe(data[0], s), m.draw(data[0], s)])"
    theirs = in_node("activations.js", expression, [data, states])

    for state, (sentence, picture) in zip(states, theirs):
        assert sentence == describe(data, **state)
        mine = draw(data, **state)
        assert NUMBER.sub("#", picture) == NUMBER.sub("#", mine)
        for a, b in zip(NUMBER.findall(picture), NUMBER.findall(mine)):
            assert (
                abs(float(a) - float(b)) < 0.11
            )  # pixels; one of the two rounds 0.05 up, the other to even


def test_the_widget_follows_its_controls():
    name, x, up, view = activations(table()).children
    assert "GELU at x = 1: value 0.841, slope 1.08." in view.value
    assert up.disabled

    x.value = 6
    assert "GELU at x = −1: value −0.159" in view.value

    name.value = GATE
    x.value = 10
    up.value = -1.0
    silu = 1 / (1 + math.exp(-1))
    assert f"SiLU(1) = {silu:.3f}. Times up −1, this lets −{silu:.3f} through." in view.value
    assert not up.disabled
