"""The benchmark of SmolLM2: on a small Llama, both programs write the same, and the figures are what they say."""

from __future__ import annotations

import importlib

import pytest
import torch

from courseware import paths
from minigpt_lib.model import GPTConfig, MiniGPT


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.CODE / "benchmarks"))
    return importlib.import_module("real_model")


@pytest.fixture
def model():
    torch.manual_seed(0)
    choices = {"ffn_hidden": 48, "tie_weights": True, "init_std": 0.3, "n_kv_head": 2}
    return MiniGPT(
        GPTConfig.preset("laptop", n_embd=32, n_layer=2, vocab_size=71, max_seq_len=64, **choices)
    ).eval()


def test_both_models_write_the_same_text(benchmark, model, monkeypatch):
    monkeypatch.setattr(benchmark, "PROMPT", 9)
    monkeypatch.setattr(benchmark, "TOKENS", 20)
    ids = torch.randint(71, (1, 30), generator=torch.Generator().manual_seed(1))

    times = benchmark.measure(model, benchmark.as_llama(model), ids, 1)

    assert times["same"] == 20
    assert list(times["writing"]) == ["ours", "read", "theirs"]
    assert list(times["reading"]) == ["ours", "theirs"]


def test_the_figures_follow_from_the_seconds(benchmark):
    writing = {"ours": [2.0, 4.0, 2.0], "theirs": [3.0, 4.0, 4.0], "read": [0.01, 0.01, 0.01]}
    reading = {"ours": [1.0, 1.0, 1.0], "theirs": [1.0, 1.5, 2.0]}

    found = benchmark.results_of({"writing": writing, "reading": reading, "same": 5}, 2**28)

    assert found["tokens_per_second"] == {"ours": 64.0, "theirs": 32.0}
    assert found["times_as_fast"] == 1.5
    assert found["reading_times_as_fast"] == 1.5
    assert found["of_memory"] == {"ours": 0.64, "theirs": 0.32}
    results = {
        "dtypes": {"float32": found},
        "loading": {"core_seconds": 1.0, "clock_seconds": 2.0, "megabytes": 1234.0},
    }
    told = benchmark.report(results)
    assert "| float32, ours | 64.0 | 1.50 | 64% | 1.00 | 1.50 |" in told
    assert "loading: 1.0 s of a core, 2.0 s of the clock, 1,234 MB" in told


def test_without_the_model_it_says_how_to_install_it(benchmark, monkeypatch, capsys):
    def missing():
        raise FileNotFoundError("SmolLM2 is not installed.")

    monkeypatch.setattr(benchmark, "find_smollm2", missing)
    monkeypatch.setattr("sys.argv", ["real_model.py"])

    benchmark.main()

    assert capsys.readouterr().out == "SmolLM2 is not installed.\n"
