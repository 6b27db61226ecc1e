"""Chapter 17: a mixture of experts fits into models, trainers, caches and files, whatever its sizes."""

from __future__ import annotations

import copy
import importlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from courseware import paths
from minigpt_lib.generation import KVCache
from minigpt_lib.model import GPTConfig, MiniGPT, count_parameters
from minigpt_lib.moe import MoEFFN, balance_loss, route, routing
from minigpt_lib.training import TrainConfig, Trainer


def model_of(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 13, "max_seq_len": 32, "n_embd": 24, "n_layer": 2, "n_head": 4}
    return MiniGPT(
        GPTConfig.preset("laptop", **{**sizes, "ffn": "moe", "ffn_hidden": 16, **changes})
    )


def by_hand(layer, x):
    """Compute every expert for every token, and weigh them: no queue at all."""
    gate, up, down = layer.gate.weight, layer.up.weight, layer.down.weight
    hidden = F.silu(torch.einsum("nc,ehc->neh", x, gate)) * torch.einsum("nc,ehc->neh", x, up)
    results = torch.einsum("neh,ech->nec", hidden, down)
    shares, chosen = route(layer.router(x), layer.top_k, layer.normalize)
    weights = torch.zeros(len(x), layer.n_expert).scatter(1, chosen, shares)
    return torch.einsum("ne,nec->nc", weights, results)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 9), st.data(), st.booleans(), st.integers(0, 999))
def test_a_queue_of_any_size_agrees_with_every_expert_for_every_token(
    n_tokens, n_expert, data, normalize, seed
):
    top_k = data.draw(st.integers(1, n_expert))
    torch.manual_seed(seed)
    layer = MoEFFN(6, 5, n_expert, top_k, normalize=normalize)
    x = torch.randn(n_tokens, 6)

    torch.testing.assert_close(layer(x), by_hand(layer, x), atol=1e-6, rtol=1e-4)


@settings(max_examples=30)
@given(st.integers(1, 20), st.floats(0.1, 3), st.integers(0, 999))
def test_no_expert_takes_more_than_its_capacity(n_tokens, capacity, seed):
    torch.manual_seed(seed)
    layer = MoEFFN(6, 5, 4, 2, capacity=capacity)
    x = torch.randn(n_tokens, 6)
    _, chosen = route(layer.router(x), 2)
    limit = -(-capacity * n_tokens * 2 // 4)
    room = dict.fromkeys(range(4), limit)
    shares = torch.zeros(n_tokens, 4)
    for token, (values, experts) in enumerate(zip(*route(layer.router(x), 2))):
        for share, expert in zip(values.tolist(), experts.tolist()):
            if room[expert] >= 1:
                room[expert] -= 1
                shares[token, expert] = share

    gate, up, down = layer.gate.weight, layer.up.weight, layer.down.weight
    hidden = F.silu(torch.einsum("nc,ehc->neh", x, gate)) * torch.einsum("nc,ehc->neh", x, up)
    expected = torch.einsum("ne,neh,ech->nc", shares, hidden, down)
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-4)


def test_a_cache_changes_nothing():
    model = model_of().eval()
    ids = torch.randint(13, (2, 20))
    cache = KVCache(model.config, 2)

    parts = [model(part, cache=cache)[0] for part in ids.split([7, 1, 1, 11], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids)[0], atol=1e-5, rtol=1e-4)


def test_saving_loading_and_copying_keep_the_model(tmp_path):
    model = model_of().eval()
    ids = torch.randint(13, (1, 9))
    model.save_pretrained(tmp_path)

    with routing(model):  # nothing of a forward pass stays in the model
        model(ids)
    for other in (MiniGPT.from_pretrained(tmp_path), copy.deepcopy(model)):
        assert torch.equal(other(ids)[0], model(ids)[0])


def test_parameters_are_counted_as_feed_forward():
    model = model_of()
    expected = 2 * (8 * 3 * 24 * 16 + 8 * 24)
    assert count_parameters(model)["ffn"] == expected


def test_the_trainer_trains_a_mixture():
    tokens = torch.arange(13).repeat(200)
    config = TrainConfig(
        steps=60, batch_size=8, block_size=16, lr=1e-2, warmup_steps=5, eval_every=0, progress=False
    )
    history = Trainer(model_of(), config, tokens).train()

    assert history[-1]["loss"] < 0.5 < history[0]["loss"]


def test_a_layer_without_experts_has_no_routing():
    model = model_of(ffn="swiglu")
    with routing(model) as logits:
        model(torch.randint(13, (1, 4)))
    assert logits == []


def test_hooks_go_even_after_an_error():
    model = model_of()
    with pytest.raises(ValueError, match="expected ids"), routing(model):
        model(torch.zeros(3, dtype=torch.long))
    assert not any(block.ffn.router._forward_hooks for block in model.blocks)


@given(st.integers(1, 6), st.integers(1, 50), st.integers(0, 999))
def test_the_balancing_loss_lies_between_its_ends(top_k, n_tokens, seed):
    torch.manual_seed(seed)
    logits = 5 * torch.randn(n_tokens, 6)
    loss = balance_loss(logits, top_k).item()
    assert 0 < loss <= 6 / top_k + 1e-4
    assert balance_loss(torch.zeros(n_tokens, 6), top_k).item() == pytest.approx(1, abs=1e-5)


# --- the benchmark that chapter 17 quotes ---


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.CODE / "benchmarks"))
    return importlib.import_module("efficiency")


def test_the_variants_cost_a_token_the_same(benchmark):
    def work(name):
        config = benchmark.config_of(benchmark.VARIANTS[name], 70)
        experts = 2 if config.ffn.startswith("moe") else 1
        return experts * config.ffn_hidden

    assert {work(name) for name in benchmark.VARIANTS} == {192}


@pytest.mark.slow
def test_a_quick_run_of_a_mixture_is_measured(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "STEPS", 20)
    monkeypatch.setattr(benchmark, "VALIDATION", 2000)
    made = benchmark.run("8 experts, capacity 1", 0, quick=True)

    assert made["parameters"] == 502_464
    assert 3 < made["loss"] < 6
    least, most = made["popularity"]
    assert 0 <= least <= 1 <= most <= 4


def test_three_seeds_of_each_variant_are_recorded(benchmark):
    results = json.loads(benchmark.OUT.read_text(encoding="utf-8"))
    found = sorted((run["model"], run["seed"]) for run in results["runs"])
    assert found == sorted((name, seed) for name in benchmark.VARIANTS for seed in range(3))
    assert not results["quick"]
