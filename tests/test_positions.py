"""Chapter 06: the rotation agrees with Hugging Face and keeps its invariants; faults and the clock."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, survives

from courseware.widgets.rope_clock import curve, describe, dials, fixed, rope_clock, speed
from minigpt_lib.attention import CausalSelfAttention
from minigpt_lib.positions import (
    LearnedPositionalEmbedding,
    RopeScaling,
    RotaryEmbedding,
    SinusoidalPositionalEncoding,
    apply_rotary,
    half_split_to_interleaved,
    interleaved_to_half_split,
    rotary_frequencies,
)

WIDTHS = st.integers(1, 20).map(lambda n: 2 * n)
SEEDS = st.integers(0, 2**32)
SCALINGS = st.none() | st.builds(
    RopeScaling, st.floats(1, 20), st.floats(0.5, 1), st.floats(2, 8), st.integers(8, 500)
)


@settings(max_examples=80, deadline=None)
@given(WIDTHS, st.integers(0, 300), st.floats(2, 1e6), SCALINGS, SEEDS, st.booleans())
def test_shifting_the_text_changes_neither_scores_nor_norms(
    width, shift, base, scaling, seed, interleaved
):
    torch.manual_seed(seed)
    q, k = torch.randn(2, 2, 3, 5, width, dtype=torch.float64)
    positions = torch.randint(0, 100, (2, 5))

    def turned(x, at):
        return apply_rotary(x, at, base, scaling, interleaved)

    scores = turned(q, positions) @ turned(k, positions).mT
    shifted = turned(q, positions + shift) @ turned(k, positions + shift).mT

    torch.testing.assert_close(shifted, scores, rtol=0, atol=1e-4 * width)
    torch.testing.assert_close(turned(q, positions).norm(dim=-1), q.norm(dim=-1), rtol=1e-6, atol=0)


@settings(max_examples=60, deadline=None)
@given(WIDTHS, st.lists(st.integers(1, 4), max_size=3), st.data(), SEEDS)
def test_the_two_conversions_are_inverse_on_any_axis(width, shape, data, seed):
    torch.manual_seed(seed)
    axis = data.draw(st.integers(0, len(shape)))
    x = torch.randn(*shape[:axis], width, *shape[axis:])

    split = interleaved_to_half_split(x, dim=axis)

    assert split.shape == x.shape
    assert torch.equal(split.narrow(axis, 0, 1), x.narrow(axis, 0, 1)), "the first number stays"
    assert torch.equal(half_split_to_interleaved(split, dim=axis), x)
    assert torch.equal(interleaved_to_half_split(half_split_to_interleaved(x, axis), axis), x)


@settings(max_examples=40, deadline=None)
@given(WIDTHS, st.floats(2, 1e6), SEEDS)
def test_the_gradient_is_the_inverse_rotation(width, base, seed):
    torch.manual_seed(seed)
    x = torch.randn(1, 2, 4, width, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    positions = torch.randint(0, 50, (4,))

    (gradient,) = torch.autograd.grad(apply_rotary(x, positions, base), x, upstream)

    expected = apply_rotary(upstream, -positions, base)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_rotation_agrees_with_llama(dtype, scaled):
    """In bfloat16, Hugging Face rounds cosine and sine first, so the last bits may differ."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 500.0}
    if scaled:
        rope |= {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    config = llama.LlamaConfig(
        hidden_size=72,
        num_attention_heads=3,
        head_dim=24,
        max_position_embeddings=128,
        rope_parameters=rope,
    )
    q, k = torch.randn(2, 2, 3, 7, 24).to(dtype)
    positions = torch.randint(0, 128, (2, 7))

    scaling = RopeScaling(original_max_seq_len=16) if scaled else None
    rotation = RotaryEmbedding(24, 128, 500.0, scaling).at(positions)
    theirs = llama.apply_rotary_pos_emb(q, k, *llama.LlamaRotaryEmbedding(config)(q, positions))

    tolerance = 2e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    for mine, other in zip((rotation(q), rotation(k)), theirs):
        assert mine.dtype == dtype
        assert other.dtype == dtype
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


class Cache:
    """Keep all keys and values, as chapter 11's cache does."""

    kept = None

    def update(self, k, v):
        if self.kept is None:
            self.kept = [k, v]
        else:
            self.kept = [torch.cat([old, new], dim=2) for old, new in zip(self.kept, (k, v))]
        return self.kept


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(0, 50), SEEDS)
def test_attention_over_cached_chunks_agrees_with_attention_over_the_whole(chunks, shift, seed):
    torch.manual_seed(seed)
    total = sum(chunks)
    layer = CausalSelfAttention(12, 3, fused=False)
    rope = RotaryEmbedding(4, 100)
    x = torch.randn(2, total, 12)

    cache = Cache()
    parts = []
    start = 0
    for n in chunks:
        positions = torch.arange(start, start + n) + shift
        parts.append(layer(x[:, start : start + n], rotary=rope.at(positions), cache=cache))
        start += n

    whole = layer(x, rotary=rope.at(torch.arange(total)))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-3, atol=1e-4)


def test_a_bfloat16_model_still_computes_its_angles_in_float32():
    rope = RotaryEmbedding(8, 10000).to(torch.bfloat16)
    positions = torch.tensor([[5000, 5001], [9998, 9999]])
    x = torch.randn(2, 3, 2, 8).bfloat16()

    expected = apply_rotary(x.float(), positions)

    assert torch.equal(rope(x, positions), expected.bfloat16())
    assert not torch.equal(expected[:, :, 0], expected[:, :, 1])


@pytest.fixture(params=["sinusoidal", "rotary"])
def encoding(request):
    """Return a function of positions below 5."""
    if request.param == "sinusoidal":
        return SinusoidalPositionalEncoding(5, 4)
    return RotaryEmbedding(4, 5).at


def test_a_position_beyond_the_end_is_refused(encoding):
    with pytest.raises(ValueError, match=r"from 5 to 5, but max_seq_len is 5"):
        encoding(torch.tensor([5]))


def test_positions_are_not_checked_while_pytorch_compiles(encoding, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)

    encoding(torch.tensor([5]))


def test_a_learned_embedding_has_no_position_beyond_the_end():
    with pytest.raises((ValueError, IndexError)):
        LearnedPositionalEmbedding(5, 4)(torch.tensor([5]))


def test_a_wrong_kind_of_number_is_refused_with_the_right_one():
    with pytest.raises(ValueError, match="factor='8', expected a positive finite number"):
        RopeScaling(factor="8")
    with pytest.raises(ValueError, match="original_max_seq_len=8.5, expected a positive integer"):
        RopeScaling(original_max_seq_len=8.5)


def test_scaled_frequencies_lie_between_the_plain_ones_and_those_divided_by_the_factor():
    plain = rotary_frequencies(128, 500000.0)
    scaled = rotary_frequencies(128, 500000.0, RopeScaling())

    assert (scaled <= plain).all()
    assert (scaled >= plain / 8 * 0.99999).all()
    assert (scaled.diff() < 0).all()


# ---------------------------------------------------------------- faults

FAULTS = {
    "the rotation is reversed": (
        "a * self.cos - b * self.sin, a * self.sin + b",
        "a * self.cos + b * self.sin, b * self.cos - a * self.sin + 0 * b",
    ),
    "sine and cosine swapped": (
        "self.cos = angles.cos()\n        self.sin = angles.sin()",
        "self.cos = angles.sin()\n        self.sin = angles.cos()",
    ),
    "neighbours are paired": (
        "a, b = x.chunk(2, dim=-1)  #",
        "a, b = x[..., 0::2], x[..., 1::2]  #",
    ),
    "no factor 2": (
        "torch.arange(0, dim, 2, device=device, dtype=torch.float32)",
        "torch.arange(dim // 2, device=device)",
    ),
    "positions in bfloat16": (
        "return _Rotation(positions[..., None] *",
        "return _Rotation(positions[..., None].bfloat16().float() *",
    ),
    "the dtype is lost": ("return turned.to(x.dtype)", "return turned"),
    "angles in bfloat16": (
        "self.cos = angles.cos()\n        self.sin = angles.sin()",
        "self.cos = angles.bfloat16().cos()\n        self.sin = angles.bfloat16().sin()",
    ),
    "positions of heads and batches are mixed up": ("angles[:, None]  #", "angles  #"),
    "the base is ignored": (
        "rotary_frequencies(self.dim, self.base,",
        "rotary_frequencies(self.dim, 10000.0,",
    ),
    "no scaling": ("self.base, self.scaling, positions", "self.base, None, positions"),
    "wavelengths in place of turns": (
        "original_max_seq_len * frequencies /",
        "original_max_seq_len / frequencies /",
    ),
    "no limits on the blend": ("blend.clamp(0, 1)", "blend"),
    "the blend is reversed": (
        "torch.lerp(frequencies / scaling.factor, frequencies,",
        "torch.lerp(frequencies, frequencies / scaling.factor,",
    ),
    "positions restart at 0": (
        "_Rotation(positions[..., None] * frequencies)",
        "_Rotation((positions - positions.min())[..., None] * frequencies)",
    ),
    "cosine first": (
        "torch.stack([angles.sin(), angles.cos()]",
        "torch.stack([angles.cos(), angles.sin()]",
    ),
    "all sines, then all cosines": (
        "torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)",
        "torch.cat([angles.sin(), angles.cos()], dim=-1)",
    ),
    "one position too many": ("high >= max_seq_len", "high > max_seq_len"),
    "the conversions swapped": (
        "half_split_to_interleaved(rotation(interleaved_to_half_split(x)))",
        "interleaved_to_half_split(rotation(half_split_to_interleaved(x)))",
    ),
    "the axis is ignored": ("x[..., 1::2]], dim=-1).movedim(-1, dim)", "x[..., 1::2]], dim=-1)"),
    "a table ten times as large": ("* 0.02)", "* 0.2)"),
    "negative positions are accepted": (
        "if low < 0 or high >= max_seq_len",
        "if high >= max_seq_len",
    ),
    "a factor of 0 is accepted": ("not 0 < value < math.inf", "not 0 <= value < math.inf"),
    "an infinite factor is accepted": ("not 0 < value < math.inf", "not 0 < value"),
    "equal limits are accepted": ("self.low_freq_factor >= self", "self.low_freq_factor > self"),
    "a fraction of a token is accepted": (
        "kinds = int if",
        "kinds = (int, float) if",
    ),
    "a dict is accepted where the model is built": (
        "rotary_frequencies(dim, base, scaling)\n        self.dim",
        '_check_even("dim", dim)\n        self.dim',
    ),
    "turns without 2 pi": ("frequencies / (2 * math.pi)", "frequencies"),
    "the way back is the way there": (
        "torch.stack(x.chunk(2, dim=-1), dim=-1).flatten(-2)",
        "torch.cat([x[..., 0::2], x[..., 1::2]], dim=-1)",
    ),
    "values are scaled, not turned": ("a * self.sin + b * self.cos", "b * self.sin + b * self.cos"),
}


def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("06", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("06", tmp_path, *FAULTS[fault])


# ---------------------------------------------------------------- the clock and its twin

DATA = {"dim": 8, "bases": [100, 10000, 500000], "base": 10000, "last": 60, "query": 12, "key": 7}
STATES = [
    {"base": base, "query": query, "key": key}
    for base in DATA["bases"] for query, key in ((0, 0), (12, 7), (7, 12), (60, 0), (0, 60), (33, 31))
]  # fmt: skip


def test_the_twin_draws_and_describes_the_same_as_the_widget():
    expression = "data.states.map((s) => [m.describe(data, s), m.dials(data, s), m.curve(data, s)])"

    theirs = in_node("rope-clock.js", expression, {**DATA, "states": STATES})

    ours = [[describe(DATA, **s), dials(DATA, **s), curve(DATA, **s)] for s in STATES]
    assert theirs == ours


def test_the_twin_formats_numbers_like_the_widget():
    values = [0.0, 1.0, -1.0, -0.001, 0.284, 3.162, -0.951]
    theirs = in_node("rope-clock.js", "data.map((x) => m.fixed(x))", values)
    assert theirs == [fixed(value) for value in values]

    speeds = [1.0, 0.1, 0.01, 0.001, 0.316, 0.0376, 0.00141, 0.0000532]
    theirs = in_node("rope-clock.js", "data.map((x) => m.speed(x))", speeds)
    assert theirs == [speed(value) for value in speeds]


def test_the_widget_shows_the_score_that_our_rotation_computes():
    start = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]).view(1, 1, 1, 8)

    for state in STATES:
        q = apply_rotary(start, torch.tensor([state["query"]]), state["base"]).flatten()
        k = apply_rotary(start, torch.tensor([state["key"]]), state["base"]).flatten()
        assert describe(DATA, **state).endswith(f"= {fixed(float(q @ k))}.")


def test_the_widget_follows_its_controls():
    query, key, both, base, view = rope_clock(DATA).children
    score = "Query at 12, key at 7: distance 5. Score 0.28 + 0.88 + 1.00 + 1.00 = 3.16."
    assert score in view.value

    both.click()
    assert (query.value, key.value) == (13, 8)
    assert "distance 5. Score 0.28" in view.value

    query.value = 60
    both.click()
    assert (query.value, key.value) == (52, 0), "at the end, back to the start"

    base.value = 100
    assert "θ = 0.316" in view.value

    key.value = 60
    assert "distance −8" in view.value
