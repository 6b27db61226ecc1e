"""Chapter 22: quantization over generated input, other layouts in memory, and the real model where it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from courseware import paths
from courseware.material import smollm2
from minigpt_lib.generation import KVCache, TextGenerator
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.quantization import (
    PRODUCTS,
    QuantizedKVCache,
    pack_nibbles,
    quantize,
    quantize_weights,
    unpack_nibbles,
    usable_products,
    weight_bytes,
)


def model_of(**choices) -> MiniGPT:
    torch.manual_seed(1)
    config = GPTConfig(
        48, 40, 64, 2, 4, **{"norm": "rms", "ffn": "swiglu", "bias": False} | choices
    )
    return MiniGPT(config).eval()


@settings(max_examples=60)
@given(
    st.integers(1, 9), st.integers(1, 12), st.sampled_from([1, 2, 4, 8]), st.sampled_from([4, 8]),
    st.booleans(), st.floats(-8, 8), st.floats(-30, 30), st.integers(0, 2**30),
)  # fmt: skip
def test_no_weight_moves_by_more_than_half_a_step(N, n, group, bits, symmetric, size, middle, seed):
    generator = torch.Generator().manual_seed(seed)
    w = (torch.randn(N, n * group, generator=generator) + middle) * 10**size

    found = quantize(w, bits, group, symmetric)

    steps = found.scales.float().repeat_interleave(group, dim=1)
    rounding = 2**-22 * w.abs().max()  # of float32: the codes are made and restored with it
    assert ((found.dequantize() - w).abs() <= 0.5 * steps + rounding).all()
    codes = found.codes.int()  # no int8 is 128
    assert codes.max() < 2 ** (bits - 1) and codes.min() >= -(2 ** (bits - 1))


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**30))
def test_codes_of_4_bits_survive_their_bytes(N, pairs, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-8, 8, (N, 2 * pairs), generator=generator, dtype=torch.int8)

    assert torch.equal(unpack_nibbles(pack_nibbles(codes)), codes)


def test_quantizing_what_was_quantized_changes_little():
    once = quantize(torch.randn(16, 64), 4, 32).dequantize()
    again = quantize(once, 4, 32)

    step = again.scales.float().repeat_interleave(32, dim=1)
    assert ((again.dequantize() - once).abs() <= 0.08 * step * 7).all()


def test_weights_in_any_order_in_memory_give_the_same_codes():
    w = torch.randn(64, 48)
    turned = w.t().contiguous().t()

    for bits, group in ((8, None), (4, 16)):
        assert torch.equal(quantize(turned, bits, group).codes, quantize(w, bits, group).codes)


@pytest.mark.parametrize("bits", [4, 8])
def test_no_kernel_is_used_where_it_would_read_beyond_the_end(bits):
    # torch's 8-bit kernel ends the process for such shapes, without an error message
    for K in (1, 7, 12, 20, 24, 100):
        assert usable_products(quantize(torch.randn(16, K), bits)) == ["plain"]


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_kernel_takes_slices_that_begin_anywhere(name):
    matrix = quantize(torch.randn(32, 64), 8 if name == "int8" else 4)
    if name not in usable_products(matrix):
        pytest.skip("this torch has no such kernel")
    product = PRODUCTS[name](matrix)
    storage = torch.randn(5 * 64 + 64).bfloat16()

    for shift in (0, 1, 3, 8, 31):
        x = storage[shift : shift + 5 * 64].view(5, 64)
        expected = x.float() @ matrix.dequantize().T
        torch.testing.assert_close(product(x).float(), expected, rtol=0.02, atol=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_the_kernels_agree_on_older_processors(capability):
    script = """
import torch
from minigpt_lib.quantization import PRODUCTS, quantize, usable_products
torch.manual_seed(0)
for bits, group in ((8, None), (4, 32)):
    matrix = quantize(torch.randn(48, 96), bits, group)
    x = torch.randn(3, 96)
    for name in usable_products(matrix):
        error = (PRODUCTS[name](matrix)(x) - x @ matrix.dequantize().T).abs().max()
        assert error < 0.3, (name, error)
print("agreed")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=paths.CODE,
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout.strip() == "agreed", done.stderr


def test_a_quantized_model_generates_like_the_rounded_one():
    model = model_of(position="rope", n_kv_head=2)
    copy = quantize_weights(model, 8, product="plain")
    tokenizer = SimpleNamespace(vocab_size=48, decode=str)
    ids = torch.randint(48, (2, 5))

    with_cache = TextGenerator(copy, tokenizer).generate_ids(ids, 12, "greedy")
    without = TextGenerator(copy, tokenizer).generate_ids(ids, 12, "greedy", use_cache=False)

    assert torch.equal(with_cache, without)
    assert weight_bytes(copy) < 0.45 * weight_bytes(model)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 3), st.integers(0, 99))
def test_the_cache_of_bytes_returns_what_it_got_within_half_a_step(sizes, B, seed):
    generator = torch.Generator().manual_seed(seed)
    config = GPTConfig(9, 64, 16, 1, 2)
    cache, exact = QuantizedKVCache(config, B), KVCache(config, B)

    for size in sizes:
        k, v = torch.randn(2, B, 2, size, 8, generator=generator) * 10 ** (seed % 5 - 2)
        found, expected = cache[0].update(k, v), exact[0].update(k, v)

    for ours, true in zip(found, expected):
        step = true.abs().amax(dim=-1, keepdim=True) / 127 * 1.02
        assert ((ours - true).abs() <= 0.501 * step).all()
    assert cache.length == exact.length == sum(sizes)


@pytest.mark.slow
def test_the_real_model_answers_and_survives_8_bits():
    if not smollm2.installed():
        pytest.skip("SmolLM2 is not installed (make real)")
    real = smollm2.load()
    question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor(real.encode(question))
    small = quantize_weights(real.model.bfloat16(), 8)

    said = TextGenerator(small, real.tokenizer).generate(ids, 12, "greedy", stop="<|im_end|>")

    assert "Paris" in said


def test_a_missing_real_model_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert not smollm2.installed()
    with pytest.raises(FileNotFoundError, match="make real"):
        smollm2.load()


def test_in_the_record_four_bits_are_faster_than_sixteen_and_half_as_fast_as_llama_cpp():
    file = paths.CODE / "benchmarks" / "results" / "quantization.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    programs = found["programs"]
    rival = programs["llama.cpp, q8_0"]["token"]

    shares = {
        name: sorted(slow / fast for slow, fast in zip(rival, row["token"], strict=True))
        for name, row in programs.items()
    }
    medians = {name: pairs[len(pairs) // 2] for name, pairs in shares.items()}
    best = max(share for name, share in medians.items() if name.startswith("4 bits"))
    assert best > medians["8 bits per row"] > medians["bfloat16"]
    assert best > 0.5
    assert found["hardware"] and found["threads"] >= 1
