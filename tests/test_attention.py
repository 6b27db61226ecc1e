"""Chapter 05: attention against PyTorch on any input, faults that the checks catch, the twin."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, judged, survives
from torch.nn import functional as F

from courseware.explorer_attention import attention_map, colour
from minigpt_lib.attention import (
    CausalSelfAttention,
    attention_weights,
    causal_mask,
    scaled_dot_product_attention,
)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(1, 9), st.integers(0, 2**32))
def test_any_mask_gives_pytorchs_values_and_gradients(Tq, more, D, seed):
    torch.manual_seed(seed)
    shapes = ((2, 3, Tq, D), (2, 3, Tq + more, D), (2, 3, Tq + more, D + 1))
    ours = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    mask = torch.rand(2, 1, Tq, Tq + more) < 0.6
    y = scaled_dot_product_attention(*ours, mask=mask)
    z = F.scaled_dot_product_attention(*ours, attn_mask=mask)
    torch.testing.assert_close(y, z)
    upstream = torch.randn_like(y)
    first, second = (torch.autograd.grad(out, ours, upstream) for out in (y, z))
    for a, b in zip(first, second):
        torch.testing.assert_close(a, b)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 2**32))
def test_a_mask_and_causality_together_are_their_intersection(Tq, more, seed):
    torch.manual_seed(seed)
    q, k = torch.randn(2, Tq, 4), torch.randn(2, Tq + more, 4)
    mask = torch.rand(2, Tq, Tq + more) < 0.5
    both = attention_weights(q, k, mask, is_causal=True)
    allowed = mask & causal_mask(Tq, Tq + more)
    assert (both[~allowed] == 0).all()
    rows = allowed.any(dim=-1).float()
    torch.testing.assert_close(both.sum(dim=-1), rows)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(4, 4), (4, 2), (6, 3), (4, 1)]),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_both_forms_of_the_layer_agree(heads, T, bias, padded, seed):
    torch.manual_seed(seed)
    n_head, n_kv_head = heads
    layer = CausalSelfAttention(4 * n_head, n_head, n_kv_head, bias=bias, fused=True)
    other = CausalSelfAttention(4 * n_head, n_head, n_kv_head, bias=bias, fused=False)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, T, 4 * n_head)
    mask = (torch.rand(2, 1, 1, T) < 0.7) if padded else None
    torch.testing.assert_close(layer(x, mask), other(x, mask), atol=1e-5, rtol=1e-5)


def test_large_scores_do_not_overflow():
    q = torch.full((1, 2, 4), 1e4)
    k = torch.stack([torch.full((1, 4), 1e4), torch.full((1, 4), -1e4)], dim=1)
    for dtype in (torch.float32, torch.bfloat16):
        weights = attention_weights(q.to(dtype), k.to(dtype))
        assert torch.equal(weights.float(), torch.tensor([[[1.0, 0], [1, 0]]]))


FAULTS = {
    "the mask one column too generous": ("places <= places[", "places <= 1 + places["),
    "aligned at the upper left": ("places[n_keys - n_queries :, None]", "places[:n_queries, None]"),
    "no root": ("/ math.sqrt(q.shape[-1])", "/ q.shape[-1]"),
    "no scale": (" / math.sqrt(q.shape[-1])", ""),
    "softmax over the queries": ("scores.dtype)).softmax(dim=-1)", "scores.dtype)).softmax(dim=-2)"),
    "0 for forbidden scores": ("q.device), 0.0, -math.inf)", "q.device), 0.0, -1.0)"),
    "nan for an empty row": (".softmax(dim=-1).masked_fill(~allowed, 0.0)", ".softmax(dim=-1)"),
    "merged without the transpose": ("y.transpose(1, 2).flatten(2)", "y.reshape(x.shape)"),
    "rotated values": ("q, k = rotary(qk)", "v = rotary(v); q, k = rotary(qk)"),
    "only queries rotated": ("= rotary(qk)", "= torch.cat([rotary(qk[:, :H]), qk[:, H:]], 1)"),
    "key heads in turn": ("part.repeat_interleave(H // kv, dim=1)", "part.repeat(1, H // kv, 1, 1)"),
    "the cache ignored": ("k, v = cache.update(k, v)", "cache.update(k, v)"),
    "dropout also in evaluation": ("self.dropout if self.training else 0.0", "self.dropout"),
    "no dropout on the output": ("F.dropout(y, self.dropout, self.training)", "y"),
    "queries and keys exchanged": ("q, k, v = (part", "k, q, v = (part"),
    "a mask that replaces causality": ("mask & causal_mask(q.shape[-2], k.shape[-2], q.device) if is", "mask if is"),
}  # fmt: skip


def test_the_module_itself_passes(tmp_path):
    assert survives("05", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_checks(tmp_path, fault):
    assert not survives("05", tmp_path, *FAULTS[fault])


def test_the_twin_has_the_widgets_colours():
    weights = [i / 40 for i in range(41)]
    theirs = in_node("attention-map.js", "data.map(m.viridis)", weights)
    for weight, text in zip(weights, theirs):
        red, green, blue = (int(colour(weight)[i : i + 2], 16) for i in (1, 3, 5))
        found = [int(part) for part in text[4:-1].split(",")]
        assert all(abs(a - b) <= 5 for a, b in zip(found, (red, green, blue))), (weight, text)


def test_the_widget_answers_its_controls():
    data = {"text": "aba", "weights": [[[1.0], [0.25, 0.75], [0.5, 0.1, 0.4]]] * 2, "query": 1}
    box = attention_map(data)
    head, query, view = box.children
    assert "“b” at 1: 0.75" in view.value and view.value.count("<rect") == 6 + 1
    query.value = 2
    assert "“a” at 0: 0.50, “a” at 2: 0.40" in view.value
    assert in_node("attention-map.js", "m.largest(data)", data["weights"][0][2]) == [0, 2, 1]
    assert math.isclose(sum(data["weights"][0][2]), 1)


def weights_by_hand(q, k, real):
    """Return the weights of the padded batch, number by number."""
    weights = torch.zeros(q.shape[0], q.shape[1], k.shape[1])
    for b, i in itertools.product(range(q.shape[0]), range(q.shape[1])):
        seen = [j for j in range(i + 1) if real[b, j]]
        if seen:
            scores = torch.stack([(q[b, i] * k[b, j]).sum() / q.shape[-1] ** 0.5 for j in seen])
            weights[b, i, seen] = scores.softmax(0)
    return weights


def by_torch(q, k, v, n_head):
    q, k, v = (x.unflatten(-1, (n_head, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)


def head_by_head(q, k):
    group = q.shape[1] // k.shape[1]
    heads = [q[:, i] @ k[:, i // group].mT for i in range(q.shape[1])]
    return torch.stack(heads, dim=1) * q.shape[-1] ** -0.5


ANSWERS = [
    ("step_mask", lambda n, c: torch.tensor([[j <= c + i for j in range(c + n)] for i in range(n)]), ""),
    ("step_mask", lambda n, c: torch.ones(n, n + c).tril(c).bool(), ""),
    ("step_mask", lambda n, c: torch.ones(n, n + c, dtype=torch.bool).tril(c + 1), "wrong value"),
    ("masked_weights", weights_by_hand, ""),
    ("masked_weights", lambda q, k, real: weights_by_hand(q, k, real) * 2, "wrong value"),
    ("masked_weights", lambda q, k, real: weights_by_hand(k, q, real), "wrong value"),
    ("masked_weights", lambda q, k, real: weights_by_hand(q, k, ~real), "the padding mask is inverted"),
    ("grouped_scores", head_by_head, ""),
    ("grouped_scores", lambda q, k: head_by_head(q.flip(1), k.flip(1)).flip(1), ""),
    ("grouped_scores", lambda q, k: head_by_head(q.flip(1), k), "wrong value"),
    ("multi_head", by_torch, ""),
    ("multi_head", lambda q, k, v, n: by_torch(q, k, v, 1), "wrong value"),
    ("multi_head", lambda q, k, v, n: by_torch(k, q, v, n), "wrong value"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_in_another_style(name, answer, diagnosis):
    judged(name, answer, diagnosis)
