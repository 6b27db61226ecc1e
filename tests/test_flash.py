"""Chapter 17: tiles agree with the plain form for any sizes, and shared heads fit into models, texts and files."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from courseware.checks.memory import Allocations
from minigpt_lib.attention import CausalSelfAttention, scaled_dot_product_attention
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.flash import flash_attention, window_mask
from minigpt_lib.generation import KVCache, TextGenerator
from minigpt_lib.grouped import GroupedQueryAttention, RollingCache, cache_bytes, grouped
from minigpt_lib.model import ATTENTIONS, GPTConfig, MiniGPT

TOKENIZER = CharTokenizer("abcdefghijklm")
windows = st.none() | st.integers(1, 40)


def model_of(attention="grouped", **changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 13, "max_seq_len": 48, "n_embd": 24, "n_layer": 2, "n_head": 4}
    config = GPTConfig.preset("laptop", **{**sizes, "n_kv_head": 2, **changes}, attention=attention)
    return MiniGPT(config).eval()


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(0, 20),
    windows,
    st.integers(0, 9),
    st.integers(1, 50),
    st.integers(0, 10_000),
)
def test_tiles_of_any_size_agree_with_the_plain_form(T, cached, window, sinks, block_size, seed):
    torch.manual_seed(seed)
    Tk = T + cached
    q, k, v = (2 * torch.randn(2, n, 3, dtype=torch.float64) for n in (T, Tk, Tk))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    mask = window_mask(T, Tk, window, sinks)

    y = flash_attention(*inputs, window=window, sinks=sinks, block_size=block_size)
    z = scaled_dot_product_attention(*inputs, mask)

    torch.testing.assert_close(y, z)
    slope = torch.randn_like(y)
    ours = torch.autograd.grad(y, inputs, slope)
    torch.testing.assert_close(ours, torch.autograd.grad(z, inputs, slope))


@given(st.integers(1, 12), st.integers(0, 12), windows, st.integers(0, 5))
def test_a_window_shows_what_its_definition_says(n_queries, cached, window, sinks):
    n_keys = n_queries + cached
    mask = window_mask(n_queries, n_keys, window, sinks)

    for row in range(n_queries):
        place = cached + row
        seen = {
            key for key in range(place + 1) if window is None or place - key < window or key < sinks
        }
        assert set(mask[row].nonzero().flatten().tolist()) == seen


def test_without_a_gradient_the_memory_of_tiles_does_not_hold_a_table():
    q, k, v = torch.randn(3, 1, 2, 3000, 16)
    with Allocations() as seen:
        flash_attention(q, k, v, window=100)

    assert seen.peak < 8 * q.nbytes
    assert seen.peak < 3000 * 3000  # bytes: not even a mask


@settings(max_examples=20)
@given(
    st.sampled_from((4, 2, 1)), windows, st.integers(0, 4), st.integers(1, 30), st.integers(0, 99)
)
def test_shared_heads_agree_with_chapter_5(n_kv_head, window, sinks, T, seed):
    torch.manual_seed(seed)
    ours = GroupedQueryAttention(16, 4, n_kv_head, window=window, sinks=sinks)
    theirs = CausalSelfAttention(16, 4, n_kv_head, fused=False)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, T, 16)

    expected = theirs(x, window_mask(T, window=window, sinks=sinks))
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_with_shared_heads_is_the_same_model(dtype):
    ours = model_of().to(dtype)
    theirs = model_of("causal").to(dtype)
    theirs.load_state_dict(ours.state_dict())
    ids = torch.randint(13, (2, 30))

    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    found, expected = ours(ids)[0].float(), theirs(ids)[0].float()
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("strategy", ["greedy", "beam", "top_p"])
def test_both_layers_write_the_same_texts(strategy):
    ours, theirs = model_of(), model_of("causal")
    theirs.load_state_dict(ours.state_dict())
    prompts = ["abc", "kdfacgb"]

    texts = [
        [
            TextGenerator(model, TOKENIZER).generate(
                prompt, max_new_tokens=20, strategy=strategy, seed=3
            )
            for prompt in prompts
        ]
        for model in (ours, theirs)
    ]
    assert texts[0] == texts[1]


def test_saving_and_loading_keeps_the_attention(tmp_path):
    model = model_of()
    model.save_pretrained(tmp_path)
    loaded = MiniGPT.from_pretrained(tmp_path)

    assert type(loaded.blocks[0].attention) is GroupedQueryAttention
    ids = torch.randint(13, (1, 9))
    assert torch.equal(loaded(ids)[0], model(ids)[0])


def test_a_window_trains_as_its_mask_does(monkeypatch):
    monkeypatch.setitem(ATTENTIONS, "window_5", grouped(5, 1))
    ours, theirs = model_of("window_5"), model_of("causal")
    theirs.load_state_dict(ours.state_dict())
    ids = torch.randint(13, (2, 30))

    ours(ids, ids)[1].backward()
    theirs(ids, ids, mask=window_mask(30, window=5, sinks=1))[1].backward()
    pairs = zip(ours.parameters(), theirs.parameters())
    for mine, other in pairs:
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-3)


def test_a_rolling_cache_goes_on_after_a_prompt_longer_than_the_window(monkeypatch):
    monkeypatch.setitem(ATTENTIONS, "window_6", grouped(6, 2))
    model = model_of("window_6")
    ids = torch.randint(13, (3, 40))
    cache = RollingCache(model.config, 6, 2)

    parts = [model(ids[:, :25], cache=cache)[0]]
    parts += [model(ids[:, i : i + 1], cache=cache)[0] for i in range(25, 40)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids)[0], atol=1e-5, rtol=1e-4)
    assert cache.length == 40
    assert [layer.v.shape[2] for layer in cache.layers] == [7, 7]


def test_cache_bytes_are_those_of_a_cache_in_every_size():
    for n_kv_head in (4, 2, 1):
        config = model_of(n_kv_head=n_kv_head, head_size=10).config
        cache = KVCache(config, 3, 17, torch.bfloat16)
        held = sum(layer.k.nbytes + layer.v.nbytes for layer in cache.layers)
        assert cache_bytes(config, 17, 3, torch.bfloat16) == held


def test_a_second_derivative_is_refused_not_wrong():
    x = torch.randn(1, 4, 2, requires_grad=True)
    y = flash_attention(x, x, x)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        slope.sum().backward()
