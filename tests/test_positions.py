"""Chapter 06: the rotation against Hugging Face and its own promises, faults that the checks catch, the twin."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, judged, survives

from courseware.explorer_positions import curve, describe, dials, fixed, rope_clock, speed
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
def test_a_shift_of_the_whole_text_changes_no_score(width, shift, base, scaling, seed, neighbours):
    torch.manual_seed(seed)
    q, k = torch.randn(2, 2, 3, 5, width, dtype=torch.float64)
    places = torch.randint(0, 100, (2, 5))
    turn = lambda x, at: apply_rotary(x, at, base, scaling, neighbours)  # noqa: E731
    scores = turn(q, places) @ turn(k, places).mT
    shifted = turn(q, places + shift) @ turn(k, places + shift).mT
    torch.testing.assert_close(shifted, scores, rtol=0, atol=1e-4 * width)
    torch.testing.assert_close(turn(q, places).norm(dim=-1), q.norm(dim=-1), rtol=1e-6, atol=0)


@settings(max_examples=60, deadline=None)
@given(WIDTHS, st.lists(st.integers(1, 4), max_size=3), st.data(), SEEDS)
def test_the_two_orders_undo_each_other_on_any_axis(width, shape, data, seed):
    torch.manual_seed(seed)
    axis = data.draw(st.integers(0, len(shape)))
    x = torch.randn(*shape[:axis], width, *shape[axis:])
    there = interleaved_to_half_split(x, dim=axis)
    assert there.shape == x.shape
    assert torch.equal(half_split_to_interleaved(there, dim=axis), x)
    assert torch.equal(there.narrow(axis, 0, 1), x.narrow(axis, 0, 1)), "the first number stays"
    assert torch.equal(interleaved_to_half_split(half_split_to_interleaved(x, axis), axis), x)


@settings(max_examples=40, deadline=None)
@given(WIDTHS, st.floats(2, 1e6), SEEDS)
def test_the_gradient_is_the_turn_backwards(width, base, seed):
    torch.manual_seed(seed)
    x = torch.randn(1, 2, 4, width, dtype=torch.float64, requires_grad=True)
    upstream, places = torch.randn_like(x), torch.randint(0, 50, (4,))
    gradient = torch.autograd.grad(apply_rotary(x, places, base), x, upstream)[0]
    torch.testing.assert_close(
        gradient, apply_rotary(upstream, -places, base), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_rotation_is_llamas(dtype, scaled):
    """In bfloat16 Hugging Face narrows cosine and sine first, so the last bits may differ."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 500.0}
    if scaled:
        rope |= {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                 "original_max_position_embeddings": 16}  # fmt: skip
    config = llama.LlamaConfig(
        hidden_size=72,
        num_attention_heads=3,
        head_dim=24,
        max_position_embeddings=128,
        rope_parameters=rope,
    )
    q, k = torch.randn(2, 2, 3, 7, 24).to(dtype)
    places = torch.randint(0, 128, (2, 7))
    theirs = llama.apply_rotary_pos_emb(q, k, *llama.LlamaRotaryEmbedding(config)(q, places))
    scaling = RopeScaling(original_max_seq_len=16) if scaled else None
    turn = RotaryEmbedding(24, 128, 500.0, scaling).at(places)
    tolerance = 2e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    for ours, other in zip((turn(q), turn(k)), theirs):
        assert ours.dtype == other.dtype == dtype
        torch.testing.assert_close(ours, other, rtol=tolerance, atol=tolerance)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(0, 50), SEEDS)
def test_a_cached_run_in_any_chunks_is_the_whole_run(chunks, shift, seed):
    torch.manual_seed(seed)
    total = sum(chunks)
    layer, rope = CausalSelfAttention(12, 3, fused=False), RotaryEmbedding(4, 100)
    x = torch.randn(2, total, 12)

    class Cache:
        kept = None

        def update(self, k, v):
            self.kept = (
                [k, v] if self.kept is None else [torch.cat(p, 2) for p in zip(self.kept, (k, v))]
            )
            return self.kept

    cache, start, parts = Cache(), 0, []
    for n in chunks:
        places = torch.arange(start, start + n) + shift
        parts.append(layer(x[:, start : start + n], rotary=rope.at(places), cache=cache))
        start += n
    whole = layer(x, rotary=rope.at(torch.arange(total)))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-3, atol=1e-4)


def test_float32_angles_survive_a_bfloat16_model():
    rope = RotaryEmbedding(8, 10000).to(torch.bfloat16)
    places = torch.tensor([[5000, 5001], [9998, 9999]])
    x = torch.randn(2, 3, 2, 8).bfloat16()
    wide = apply_rotary(x.float(), places)
    assert torch.equal(rope(x, places), wide.bfloat16())
    assert not torch.equal(wide[:, :, 0], wide[:, :, 1])


@pytest.mark.parametrize("compiled", [False, True])
def test_positions_are_checked_only_where_there_are_numbers(compiled, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)
    for module in (SinusoidalPositionalEncoding(5, 4), RotaryEmbedding(4, 5).at):
        if compiled:
            module(torch.tensor([5]))
        else:
            with pytest.raises(ValueError, match=r"from 5 to 5, but max_seq_len is 5"):
                module(torch.tensor([5]))
    with pytest.raises((ValueError, IndexError)):
        LearnedPositionalEmbedding(5, 4)(torch.tensor([5]))


def test_slowed_hands_lie_between_the_plain_ones_and_those_divided_by_the_factor():
    plain = rotary_frequencies(128, 500000.0)
    slow = rotary_frequencies(128, 500000.0, RopeScaling())
    assert (slow <= plain).all() and (slow >= plain / 8 * 0.99999).all() and (slow.diff() < 0).all()


FAULTS = {
    "the other way": (
        "a * self.cos - b * self.sin, a * self.sin + b",
        "a * self.cos + b * self.sin, b * self.cos - a * self.sin + 0 * b",
    ),
    "sine and cosine swapped": ("angles.cos(), angles.sin()", "angles.sin(), angles.cos()"),
    "neighbours": ("a, b = x.chunk(2, dim=-1)  #", "a, b = x[..., 0::2], x[..., 1::2]  #"),
    "no factor 2": (
        "torch.arange(0, dim, 2, device=device, dtype=torch.float32)",
        "torch.arange(dim // 2, device=device)",
    ),
    "positions in bfloat16": (
        "return _Rotation(positions[..., None] *",
        "return _Rotation(positions[..., None].bfloat16().float() *",
    ),
    "the dtype is lost": ("return turned.to(x.dtype)", "return turned"),
    "narrow angles": (
        "angles.cos(), angles.sin()\n\n    def",
        "angles.bfloat16().cos(), angles.bfloat16().sin()\n\n    def",
    ),
    "heads as batches": ("angles[:, None]  #", "angles  #"),
    "the base is ignored": (
        "rotary_frequencies(self.dim, self.base,",
        "rotary_frequencies(self.dim, 10000.0,",
    ),
    "no scaling": ("self.base, self.scaling, positions", "self.base, None, positions"),
    "wavelengths for turns": ("seq_len * frequencies /", "seq_len / frequencies /"),
    "no limits on the blend": ("blend.clamp(0, 1)", "blend"),
    "the blend is turned round": (
        "torch.lerp(frequencies / scaling.factor, frequencies,",
        "torch.lerp(frequencies, frequencies / scaling.factor,",
    ),
    "restarts at 0": (
        "_Rotation(positions[..., None] * frequencies)",
        "_Rotation((positions - positions.min())[..., None] * frequencies)",
    ),
    "cosine first": (
        "torch.stack([angles.sin(), angles.cos()]",
        "torch.stack([angles.cos(), angles.sin()]",
    ),
    "waves in halves": (
        "torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)",
        "torch.cat([angles.sin(), angles.cos()], dim=-1)",
    ),
    "one place too many": ("high >= max_seq_len", "high > max_seq_len"),
    "the conversions swapped": (
        "half_split_to_interleaved(rotation(interleaved_to_half_split(x)))",
        "interleaved_to_half_split(rotation(half_split_to_interleaved(x)))",
    ),
    "the axis is ignored": ("x[..., 1::2]], dim=-1).movedim(-1, dim)", "x[..., 1::2]], dim=-1)"),
    "a louder table": ("* 0.02)", "* 0.2)"),
}


def test_the_module_itself_passes(tmp_path):
    assert survives("06", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_checks(tmp_path, fault):
    assert not survives("06", tmp_path, *FAULTS[fault])


DATA = {"dim": 8, "bases": [100, 10000, 500000], "base": 10000, "last": 60, "query": 12, "key": 7}
STATES = [
    {"base": base, "query": query, "key": key}
    for base in DATA["bases"] for query, key in ((0, 0), (12, 7), (7, 12), (60, 0), (0, 60), (33, 31))
]  # fmt: skip


def test_the_twin_draws_and_says_what_the_widget_does():
    expression = "data.states.map((s) => [m.describe(data, s), m.dials(data, s), m.curve(data, s)])"
    theirs = in_node("rope-clock.js", expression, {**DATA, "states": STATES})
    ours = [[describe(DATA, **s), dials(DATA, **s), curve(DATA, **s)] for s in STATES]
    assert theirs == ours


def test_numbers_are_written_alike():
    values = [0.0, 1.0, -1.0, -0.001, 0.284, 3.162, -0.951]
    assert in_node("rope-clock.js", "data.map((x) => m.fixed(x))", values) == [
        fixed(v) for v in values
    ]
    speeds = [1.0, 0.1, 0.01, 0.001, 0.316, 0.0376, 0.00141, 0.0000532]
    assert in_node("rope-clock.js", "data.map((x) => m.speed(x))", speeds) == [
        speed(v) for v in speeds
    ]


def test_the_widget_says_what_our_rotation_computes():
    start = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]).view(1, 1, 1, 8)
    for state in STATES:
        q, k = (
            apply_rotary(start, torch.tensor([state[n]]), state["base"]).flatten()
            for n in ("query", "key")
        )
        assert describe(DATA, **state).endswith(f"= {fixed(float(q @ k))}.")


def test_the_widget_answers_its_controls():
    query, key, both, base, view = rope_clock(DATA).children
    assert (
        "Query at 12, key at 7: distance 5. Score 0.28 + 0.88 + 1.00 + 1.00 = 3.16." in view.value
    )
    both.click()
    assert (query.value, key.value) == (13, 8) and "distance 5. Score 0.28" in view.value
    query.value = 60
    both.click()
    assert (query.value, key.value) == (52, 0), "at the end, back to the start"
    base.value = 100
    assert "θ = 0.316" in view.value
    key.value = 60
    assert "distance −8" in view.value


def by_loops(positions, dim, base=10000.0):
    rows = []
    for p in positions.tolist():
        angles = [p / base ** (2 * i / dim) for i in range(dim // 2)]
        rows.append([f(a) for a in angles for f in (math.sin, math.cos)])
    return torch.tensor(rows)


def by_matrices(x, positions, base=10000.0):
    half = x.shape[-1] // 2
    out = torch.empty_like(x, dtype=torch.float32)
    for t, p in enumerate(positions.tolist()):
        for i in range(half):
            c, s = math.cos(p * base ** (-i / half)), math.sin(p * base ** (-i / half))
            matrix = torch.tensor([[c, -s], [s, c]])
            out[..., t, [i, i + half]] = x[..., t, [i, i + half]].float() @ matrix.T
    return out.to(x.dtype)


def by_rows(weight, n_head):
    width = len(weight) // n_head
    within = [*range(0, width, 2), *range(1, width, 2)]
    return weight[[h * width + r for h in range(n_head) for r in within]]


def all_at_once(q, k, v, turn):
    places = torch.arange(len(q)) + 5  # a shift does not matter
    scores = turn(q, places) @ turn(k, places).T / math.sqrt(q.shape[1])
    later = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf).softmax(-1) @ v


ANSWERS = [
    ("waves", by_loops, ""),
    ("waves", lambda at, dim, base=1e4: by_loops(at, dim, base)[:, : dim - 1], "wrong shape"),
    ("rotate", by_matrices, ""),
    ("rotate", lambda x, at, base=1e4: apply_rotary(x, at, base), ""),
    ("rotate", lambda x, at, base=1e4: apply_rotary(x, at, base, RopeScaling()), "wrong value"),
    ("to_half_split", by_rows, ""),
    ("to_half_split", lambda w, n_head: w.flip(0), "wrong value"),
    ("write_along", all_at_once, ""),
    (
        "write_along",
        lambda q, k, v, turn: all_at_once(q, k, v, lambda x, at: x),
        "every step restarts at 0",
    ),
]


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_in_another_style(name, answer, diagnosis):
    judged(name, answer, diagnosis)
