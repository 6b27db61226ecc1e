"""The benchmark scripts: fair turns, tables that the book can take, FLOPs that torch counts too, equal tokens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys

import pytest
import torch

from courseware import paths
from minigpt_lib.model import GPTConfig, MiniGPT

sys.path.insert(0, str(paths.CODE / "benchmarks"))
import generation
import rivals
import scaling

SIZES = {"vocab_size": 71, "max_seq_len": 40, "n_embd": 24, "n_layer": 3, "n_head": 6}
FAMILIES = {
    "gpt2": GPTConfig(**SIZES, ffn="gelu_tanh"),
    "llama": GPTConfig(
        **SIZES,
        n_kv_head=2,
        position="rope",
        norm="rms",
        ffn="swiglu",
        bias=False,
        tie_weights=False,
    ),
}


# rivals.py


def test_programs_run_in_turn_and_every_other_round_backwards():
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = rivals.interleave(programs, repeat=3, warmup=1)
    assert "".join(calls) == "abc" + "cba" + "abc" + "cba"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert list(times) == ["a", "b", "c"]


def test_the_seconds_are_those_of_the_call(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(rivals.time, "perf_counter", lambda: clock[0])

    def wait(seconds):
        clock[0] += seconds

    times = rivals.interleave({"slow": lambda: wait(2.0), "fast": lambda: wait(0.5)}, 3)
    assert times == {"slow": [2.0] * 3, "fast": [0.5] * 3}
    with pytest.raises(ValueError, match="repeat=0"):
        rivals.interleave({}, 0)


def test_a_ratio_is_taken_within_the_rounds():
    # In the second round the machine was ten times as slow, and a's median is that of another round than b's.
    times = {"a": [1.0, 10.0, 3.0], "b": [2.0, 20.0, 1.5]}
    assert rivals.medians(times) == {"a": 3.0, "b": 2.0}
    assert rivals.times_as_fast(times, "a", "b") == 2.0
    assert rivals.times_as_fast(times, "b", "a") == 0.5
    with pytest.raises(ValueError):
        rivals.times_as_fast({"a": [1.0], "b": [1.0, 2.0]}, "a", "b")


def test_a_table_is_one_that_the_book_can_take():
    assert rivals.table("Title", ["x", "n", "s"], [["a", 12345, "0.50"], ["b", 7, "1.0"]]) == (
        "```{table} Title\n| x | n | s |\n|---|--:|--:|\n| a | 12,345 | 0.50 |\n| b | 7 | 1.0 |\n```"
    )
    with pytest.raises(ValueError, match="2 cells for 3 columns"):
        rivals.table("Title", ["x", "n", "s"], [["a", 1]])


def test_the_last_line_says_when_and_on_what():
    line = rivals.hardware_line()
    assert torch.__version__ in line and f"{torch.get_num_threads()} threads" in line
    json.dumps(rivals.hardware())


def test_nanogpt_is_the_folder_given_or_our_clone_or_none(tmp_path, monkeypatch):
    (tmp_path / "given").mkdir()
    with pytest.raises(ValueError, match="no model.py"):
        rivals.nanogpt_folder(tmp_path / "given")
    (tmp_path / "given" / "model.py").touch()
    assert rivals.nanogpt_folder(tmp_path / "given") == tmp_path / "given"

    calls, errors = [], []

    def git(command, cwd, **options):
        calls.append(command)
        if command[1] == "checkout":
            (cwd / "model.py").touch()
        if command[1] == "fetch" and errors:
            raise errors.pop()

    monkeypatch.setattr(rivals.subprocess, "run", git)
    for error in (
        subprocess.CalledProcessError(128, "git"),
        subprocess.TimeoutExpired("git", 60),
        FileNotFoundError("git"),
    ):
        errors.append(error)
        assert rivals.nanogpt_folder(rivals=tmp_path / "rivals") is None
        assert not list(
            (tmp_path / "rivals").iterdir()
        )  # no half clone to be taken for a whole one
    found = rivals.nanogpt_folder(rivals=tmp_path / "rivals")
    assert (found / "model.py").is_file() and rivals.NANOGPT_COMMIT in calls[-2]
    calls.clear()
    assert rivals.nanogpt_folder(rivals=tmp_path / "rivals") == found and not calls


def test_tinyshakespeare_is_checked_and_kept(tmp_path, monkeypatch):
    raw = b"First Citizen:\n"

    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self):
            return raw

    def no_network(*_, **__):
        raise OSError

    monkeypatch.setattr(rivals.urllib.request, "urlopen", no_network)
    assert rivals.tinyshakespeare(rivals=tmp_path) is None
    monkeypatch.setattr(rivals.urllib.request, "urlopen", lambda *_, **__: Answer())
    with pytest.raises(ValueError, match="checksum"):
        rivals.tinyshakespeare(rivals=tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(rivals, "TINYSHAKESPEARE_SHA256", hashlib.sha256(raw).hexdigest())
    assert rivals.tinyshakespeare(rivals=tmp_path) == raw.decode()
    monkeypatch.setattr(rivals.urllib.request, "urlopen", no_network)
    assert rivals.tinyshakespeare(rivals=tmp_path) == raw.decode()
    assert rivals.tinyshakespeare(tmp_path / "tinyshakespeare.txt") == raw.decode()
    (tmp_path / "other.txt").write_bytes(b"Second Citizen:\n")
    with pytest.raises(ValueError, match="other.txt"):
        rivals.tinyshakespeare(tmp_path / "other.txt")


# scaling.py


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("T", [16, 40])
def test_the_formula_is_what_torch_counts(family, T):
    config = FAMILIES[family]
    assert scaling.flops_per_token(config, T) == scaling.counted_flops_per_token(config, T)


def test_the_sizes_of_the_table():
    weights = [scaling.matrix_weights(config) for config in scaling.size_configs()]
    assert weights == sorted(weights) and weights[0] < 0.2e6 and 25e6 < weights[-1] < 35e6
    by_hand = 4 * (4 * 128 * 128 + 3 * 128 * 352) + 70 * 128  # the laptop preset
    assert weights[2] == by_hand
    gpt2 = GPTConfig.preset("gpt2_124m")
    assert scaling.matrix_weights(gpt2) == 12 * 12 * 768**2 + 50257 * 768


def test_a_planted_law_is_found():
    flops = [1e6, 3e6, 1e7, 5e7, 2e8]
    law = scaling.fit_law(flops, [2e-6 + 1e-11 * f for f in flops])
    assert law.a == pytest.approx(2e-6) and law.b == pytest.approx(1e-11)
    assert law.a_error < 1e-12 and law.b_error < 1e-17 and law.spread < 1e-6
    assert law(1e7) == pytest.approx(1.02e-4)
    with pytest.raises(ValueError, match="three at least"):
        scaling.fit_law([1.0, 2.0], [1.0, 2.0])


def test_the_standard_errors_are_as_large_as_the_estimates_scatter():
    flops, found = [1e6, 3e6, 1e7, 5e7, 2e8], []
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        noise = 1 + 0.03 * torch.randn(5, generator=generator)
        found.append(
            scaling.fit_law(flops, [(2e-5 + 1e-11 * f) * n.item() for f, n in zip(flops, noise)])
        )
    for name in ("a", "b"):
        estimates = torch.tensor([getattr(law, name) for law in found], dtype=torch.float64)
        errors = torch.tensor([getattr(law, f"{name}_error") for law in found], dtype=torch.float64)
        assert errors.square().mean().sqrt() == pytest.approx(estimates.std().item(), rel=0.15)
    assert sum(law.spread for law in found) / 400 == pytest.approx(0.03, rel=0.15)


def test_a_step_trains_on_as_many_tokens_at_every_context(monkeypatch):
    seen = []
    forward = MiniGPT.forward

    def watched(self, ids, targets):
        seen.append((tuple(ids.shape), next(self.parameters()).detach().clone()))
        return forward(self, ids, targets)

    monkeypatch.setattr(MiniGPT, "forward", watched)
    for T in (8, 32):
        step = scaling.training_step(FAMILIES["gpt2"], T, tokens=64)
        step()
        step()
    assert [shape for shape, _ in seen] == [(8, 8), (8, 8), (2, 32), (2, 32)]
    assert not torch.equal(seen[0][1], seen[1][1])
    with pytest.raises(ValueError, match="64 tokens"):
        scaling.training_step(FAMILIES["gpt2"], 24, tokens=64)


def test_rows_and_tables():
    cases = [(FAMILIES["gpt2"], 32), (FAMILIES["llama"], 32), (FAMILIES["gpt2"], 16)]
    rows = scaling.rows_of(cases, 1)
    law = scaling.Law(0.0, rows[0]["seconds_per_token"] / rows[0]["flops_per_token"], 0.0, 0.0, 0.0)
    lines = scaling.context_table(rows, law).splitlines()
    assert lines[3].split(" | ")[5] == "1.00"
    assert "Training at 32 tokens" in scaling.size_table(rows, law)
    assert rows[0]["attention_share"] == 12 * 3 * 32 * 24 / rows[0]["flops_per_token"]
    json.dumps(rows)


# generation.py


@pytest.fixture(scope="module")
def pair():
    return generation.build_pair(dataclasses.replace(FAMILIES["gpt2"], init_std=0.3), seed=3)


def test_the_two_models_write_the_same(pair):
    ours, theirs = pair
    ids = torch.randint(71, (1, 9), generator=torch.Generator().manual_seed(1))
    times, written = generation.measure(ours, theirs, ids, 20, 1)
    assert list(times) == ["ours", "read", "theirs"]
    a, b = written["ours"], written["theirs"]
    assert a.shape == (1, 29) and torch.equal(a, b) and torch.equal(a[:, :9], ids)
    assert len(a[0, 9:].unique()) > 3, "a text of one letter proves nothing"
    for model in (ours, theirs):
        assert torch.equal(generation.next_tokens(model, a, 9), a[0, 9:])


def test_a_wrong_weight_would_be_seen(pair):
    ours, theirs = pair
    ids = torch.randint(71, (1, 9), generator=torch.Generator().manual_seed(1))
    right = generation.write_ours(ours, ids, 20)
    before = theirs.transformer.h[1].mlp.c_fc.bias.detach().clone()
    try:
        theirs.transformer.h[1].mlp.c_fc.bias.data.zero_()
        wrong = generation.write_theirs(theirs, ids, 20)
    finally:
        theirs.transformer.h[1].mlp.c_fc.bias.data.copy_(before)
    assert generation.common_start(right[0, 9:], wrong[0, 9:]) < 20


def test_a_common_start_ends_where_texts_part():
    a = torch.tensor([1, 2, 3, 4])
    assert generation.common_start(a, torch.tensor([1, 2, 0, 4])) == 2
    assert generation.common_start(a, a) == 4
    with pytest.raises(ValueError, match="end token"):
        generation.common_start(a, a[:3])


def test_the_bytes_that_a_token_needs(pair):
    with torch.device("meta"):
        model = MiniGPT(GPTConfig.preset("gpt2_124m"))
    assert generation.bytes_per_token(model) == 4 * (124_439_808 - 1023 * 768)
    assert generation.bytes_per_token(model.to(torch.bfloat16)) == 2 * (124_439_808 - 1023 * 768)
