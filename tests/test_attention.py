"""Chapter 05: attention agrees with PyTorch on any input; faults, the attention map and its twin, exercises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, survives
from torch.nn import functional as F

from courseware.widgets.attention_map import attention_map, colour
from minigpt_lib.attention import (
    CausalSelfAttention,
    attention_weights,
    causal_mask,
    scaled_dot_product_attention,
)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(1, 9), st.integers(0, 2**32))
def test_values_and_gradients_agree_with_pytorch_under_any_mask(Tq, more, D, seed):
    torch.manual_seed(seed)
    shapes = ((2, 3, Tq, D), (2, 3, Tq + more, D), (2, 3, Tq + more, D + 1))
    qkv = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = torch.rand(2, 1, Tq, Tq + more) < 0.6

    ours = scaled_dot_product_attention(*qkv, mask=mask)
    theirs = F.scaled_dot_product_attention(*qkv, attn_mask=mask)

    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    our_gradients = torch.autograd.grad(ours, qkv, upstream)
    their_gradients = torch.autograd.grad(theirs, qkv, upstream)
    for mine, other in zip(our_gradients, their_gradients):
        torch.testing.assert_close(mine, other)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 2**32))
def test_a_causal_call_with_a_mask_attends_where_both_allow_it(Tq, more, seed):
    torch.manual_seed(seed)
    q = torch.randn(2, Tq, 4)
    k = torch.randn(2, Tq + more, 4)
    mask = torch.rand(2, Tq, Tq + more) < 0.5

    weights = attention_weights(q, k, mask, is_causal=True)

    allowed = mask & causal_mask(Tq, Tq + more)
    assert (weights[~allowed] == 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), allowed.any(dim=-1).float())


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(4, 4), (4, 2), (6, 3), (4, 1)]),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_the_fused_layer_agrees_with_the_explicit_one(heads, T, bias, padded, seed):
    torch.manual_seed(seed)
    n_head, n_kv_head = heads
    fused = CausalSelfAttention(4 * n_head, n_head, n_kv_head, bias=bias, fused=True)
    explicit = CausalSelfAttention(4 * n_head, n_head, n_kv_head, bias=bias, fused=False)
    explicit.load_state_dict(fused.state_dict())
    x = torch.randn(2, T, 4 * n_head)
    mask = (torch.rand(2, 1, 1, T) < 0.7) if padded else None

    torch.testing.assert_close(fused(x, mask), explicit(x, mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_scores_do_not_overflow(dtype):
    q = torch.full((1, 2, 4), 1e4)
    k = torch.stack([torch.full((1, 4), 1e4), torch.full((1, 4), -1e4)], dim=1)

    weights = attention_weights(q.to(dtype), k.to(dtype))

    assert torch.equal(weights.float(), torch.tensor([[[1.0, 0], [1, 0]]]))


# ---------------------------------------------------------------- faults

FAULTS = {
    "the mask allows one column too many": ("places <= places[", "places <= 1 + places["),
    "a query does not see itself": ("places <= places[", "places < places["),
    "the mask starts at the upper left": ("places[n_keys - n_queries :, None]", "places[:n_queries, None]"),
    "no root": ("/ math.sqrt(q.shape[-1])", "/ q.shape[-1]"),
    "no scale": (" / math.sqrt(q.shape[-1])", ""),
    "softmax over the queries": ("return scores.softmax(dim=-1)", "return scores.softmax(dim=-2)"),
    "softmax over the queries, causal": (".to(scores.dtype)).softmax(dim=-1)", ".to(scores.dtype)).softmax(dim=-2)"),
    "forbidden scores are -1": ("torch.where(past, 0.0, -math.inf)", "torch.where(past, 0.0, -1.0)"),
    "nan where nothing is allowed": ("weights.masked_fill(~allowed, 0.0)", "weights"),
    "heads are merged without the transpose": ("y.transpose(1, 2).flatten(2)", "y.reshape(x.shape)"),
    "values are rotated": ("q, k = rotary(qk)", "v = rotary(v); q, k = rotary(qk)"),
    "only queries rotated": ("= rotary(qk)", "= torch.cat([rotary(qk[:, :H]), qk[:, H:]], 1)"),
    "key heads take turns": ("k.repeat_interleave(H // G, dim=1)", "k.repeat(1, H // G, 1, 1)"),
    "value heads take turns": ("v.repeat_interleave(H // G, dim=1)", "v.repeat(1, H // G, 1, 1)"),
    "the cache is ignored": ("k, v = cache.update(k, v)", "cache.update(k, v)"),
    "dropout also in evaluation": ("self.dropout if self.training else 0.0", "self.dropout"),
    "no dropout on the output": ("F.dropout(y, self.dropout, self.training)", "y"),
    "queries and keys are swapped": ("q, k, v = heads.split", "k, q, v = heads.split"),
    "a mask that replaces causality": (
        "mask & causal_mask(q.shape[-2], k.shape[-2], q.device) if is_causal",
        "mask if is_causal",
    ),
    "a mask that replaces causality in the kernel": ("else mask & past", "else mask"),
}  # fmt: skip


def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("05", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("05", tmp_path, *FAULTS[fault])


# ---------------------------------------------------------------- the attention map and its twin


def test_the_twin_has_the_colours_of_the_widget():
    weights = [i / 40 for i in range(41)]

    theirs = in_node("attention-map.js", "data.map(m.viridis)", weights)

    for weight, text in zip(weights, theirs):
        ours = [int(colour(weight)[i : i + 2], 16) for i in (1, 3, 5)]
        found = [int(part) for part in text[4:-1].split(",")]
        assert all(abs(a - b) <= 5 for a, b in zip(found, ours)), (weight, text)


LAST_ROW = [0.5, 0.1, 0.4]


def test_the_widget_follows_its_controls():
    data = {"text": "aba", "weights": [[[1.0], [0.25, 0.75], LAST_ROW]] * 2, "query": 1}
    _, query, view = attention_map(data).children
    assert "“b” at 1: 0.75" in view.value
    assert view.value.count("<rect") == 6 + 1

    query.value = 2
    assert "“a” at 0: 0.50, “a” at 2: 0.40" in view.value


def test_the_widget_takes_tokens_and_begins_with_the_head_that_it_is_told():
    data = {"text": ["Mr.", " <Q>", "."], "weights": [[[1.0], [0.25, 0.75], LAST_ROW]] * 3}

    head, _, view = attention_map({**data, "query": 1, "head": 2}).children

    assert head.value == 2
    assert "“ &lt;Q&gt;” at 1: 0.75, “Mr.” at 0: 0.25" in view.value
    assert attention_map({**data, "query": 1}).children[0].value == 0


def test_the_twin_lists_the_largest_weights_first():
    assert sum(LAST_ROW) == pytest.approx(1)
    assert in_node("attention-map.js", "m.largest(data)", LAST_ROW) == [0, 2, 1]
