"""Chapter 07: both norms agree with PyTorch and Hugging Face; faults, the widget and its twin."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, survives
from torch.nn import functional as F

from courseware.widgets.lines import number
from courseware.widgets.norm_depth import STACKS, describe, draw, norm_depth
from minigpt_lib.norms import LayerNorm, RMSNorm

SHAPES = st.lists(st.integers(1, 5), max_size=3)


def by_pytorch(norm, x):
    if isinstance(norm, LayerNorm):
        return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)


@settings(max_examples=80, deadline=None)
@given(SHAPES, st.integers(2, 33), st.floats(1e-4, 1e4), st.integers(0, 2**32), st.booleans())
def test_values_and_gradients_agree_with_pytorch(shape, width, size, seed, layer):
    torch.manual_seed(seed)
    norm = (LayerNorm if layer else RMSNorm)(width, eps=1e-3, fused=False).double()
    for parameter in norm.parameters():
        parameter.data.normal_()
    x = (torch.randn(*shape, width, dtype=torch.float64) * size).requires_grad_()

    ours = norm(x)
    theirs = by_pytorch(norm, x)

    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    inputs = (x, *norm.parameters())
    upstream = torch.randn_like(x)
    our_gradients = torch.autograd.grad(ours, inputs, upstream)
    their_gradients = torch.autograd.grad(theirs, inputs, upstream)
    for mine, other in zip(our_gradients, their_gradients):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.floats(0.1, 1e3), st.integers(0, 2**32), st.booleans())
def test_the_gradient_has_no_component_that_the_norm_removes(width, size, seed, layer):
    """Scaling x changes nothing, so the gradient along x is 0; for LayerNorm, shifting x changes nothing either."""
    torch.manual_seed(seed)
    norm = (LayerNorm if layer else RMSNorm)(width, eps=0.0, fused=False).double()
    x = (torch.randn(width, dtype=torch.float64) * size).requires_grad_()

    (gradient,) = torch.autograd.grad(norm(x) @ torch.randn(width, dtype=torch.float64), x)

    x = x.detach()
    scale = float(gradient.norm() * x.norm())
    assert abs(float(gradient @ x)) < 1e-6 * max(scale, 1.0)
    if layer:
        assert abs(float(gradient.sum())) < 1e-6 * max(float(gradient.norm()), 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_agrees_with_llama(dtype):
    """In bfloat16, Llama's code also rounds before it multiplies by the weight, so the last bit may differ."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    torch.manual_seed(0)
    theirs = llama.LlamaRMSNorm(24, eps=1e-5).to(dtype)
    theirs.weight.data.normal_()
    x = torch.randn(2, 5, 24).to(dtype) * 3

    for fused in (True, False):
        ours = RMSNorm(24, fused=fused).to(dtype)
        ours.load_state_dict(theirs.state_dict())
        tolerance = 1e-6 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(ours(x), theirs(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_half_precision_inputs_are_normalised_in_float32(kind, dtype):
    x = torch.full((4, 8), 300.0, dtype=dtype)
    x[:, ::2] = -299.0

    y = kind(8, fused=False)(x).detach().float()

    assert torch.isfinite(y).all()
    assert abs(float(y.square().mean()) - 1) < 0.01


# ---------------------------------------------------------------- faults

FAULTS = {
    "eps outside the root": ("torch.rsqrt(variance + self.eps)", "(1 / (variance.sqrt() + self.eps))"),
    "unbiased variance": ("centred.square().mean(dim=-1, keepdim=True)", "wide.var(-1, keepdim=True)"),
    "the mean over the batch": ("wide.mean(dim=-1, keepdim=True)", "wide.mean(dim=0, keepdim=True)"),
    "one mean for all": ("wide.mean(dim=-1, keepdim=True)", "wide.mean()"),
    "the mean stays": ("wide - wide.mean(dim=-1, keepdim=True)", "wide"),
    "no square root": ("torch.rsqrt(variance + self.eps)", "(1 / (variance + self.eps))"),
    "the weight is left out": ("torch.rsqrt(variance + self.eps) * self.weight", "torch.rsqrt(variance + self.eps)"),
    "the bias before the weight": ("y = y + self.bias", "y = y + self.bias * self.weight"),
    "a constant variance": ("variance = centred.square()", "variance = centred.detach().square()"),
    "half-precision statistics": ("x.float() if x.dtype in (torch.float16, torch.bfloat16) else x", "x"),
    "the result stays wide": ("return y.to(x.dtype)", "return y"),
    "RMSNorm removes the mean": ("scale = torch", "wide = wide - wide.mean(-1, keepdim=True)\n        scale = torch"),
    "eps outside RMSNorm's root": (
        "torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)",
        "(1 / (wide.square().mean(dim=-1, keepdim=True).sqrt() + self.eps))",
    ),
    "the sum of squares": ("wide.square().mean(dim=-1", "wide.square().sum(dim=-1"),
    "one size for all": ("wide.square().mean(dim=-1, keepdim=True)", "wide.square().mean()"),
    "RMSNorm's root is left out": ("torch.rsqrt(wide.square()", "1 / (wide.square()"),
    "RMSNorm's weight is left out": ("wide * scale * self.weight", "wide * scale"),
    "rounded before the weight": ("wide * scale * self.weight", "(wide * scale).to(x.dtype) * self.weight"),
    "the kernel without the bias": ("self.weight, self.bias, self.eps", "self.weight, None, self.eps"),
    "the kernel with its own eps": (
        "F.rms_norm(x, self.weight.shape, self.weight, self.eps)",
        "F.rms_norm(x, self.weight.shape, self.weight)",
    ),
    "another default": ("eps: float = 1e-5", "eps: float = 1e-6"),
    "the formula never runs": ("if self.fused:", "if True:"),
}  # fmt: skip


def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("07", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("07", tmp_path, *FAULTS[fault])


# ---------------------------------------------------------------- the widget and its twin

DATA = {
    "depths": [2, 12],
    "steps": [0, 10],
    "gradient": {
        f"{s}-{d}-{n}": [10.0 ** (i - 3) * (1 + n) for i in range(d + 1)]
        for s in STACKS for d in (2, 12) for n in (0, 10)
    },
    "size": {f"{s}-{d}-{n}": [1.0] * (d + 1) for s in STACKS for d in (2, 12) for n in (0, 10)},
}  # fmt: skip


def test_the_twin_draws_and_describes_the_same_as_the_widget():
    states = [
        {"quantity": q, "stack": s, "depth": d, "steps": n}
        for q in ("gradient", "size") for s in STACKS for d in (2, 12) for n in (0, 10)
    ]  # fmt: skip

    expression = "data.states.map((s) => [m.describe(data, s), m.draw(data, s)])"
    theirs = in_node("norm-depth.js", expression, {**DATA, "states": states})

    ours = [[describe(DATA, **state), draw(DATA, **state)] for state in states]
    assert theirs == ours


def test_the_twin_formats_numbers_like_the_widget():
    values = [0, 1, 0.117, 1.04, 12345.6, 3.27e6, 4.5e-7, -2.5, 100, 0.001234, 99999]

    theirs = in_node("plot-lines.js", "data.map(m.number)", values)

    assert theirs == [number(value) for value in values]


def test_numbers_have_two_or_three_significant_digits():
    assert [number(v) for v in (0.117, 3.27e6, 12, -2.5)] == ["0.117", "3.3 · 10⁶", "12", "−2.5"]


def test_the_widget_follows_its_controls():
    quantity, stack, steps, depth, view = norm_depth(DATA).children
    assert "Post-norm, 12 layers, after 10 steps" in view.value
    assert "10¹⁰" in view.value

    stack.value = "pre"
    depth.value = 2
    steps.value = 0
    assert "Pre-norm, 2 layers, after 0 steps: the gradient is 0.001 at the bottom" in view.value

    quantity.value = "size"
    assert "the bottom is about as large" in view.value
