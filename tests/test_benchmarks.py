"""The benchmark scripts: fair turns, tables for the book, FLOPs as PyTorch counts them, equal tokens."""

from __future__ import annotations

import dataclasses
import hashlib
import io
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


# ---------------------------------------------------------------- rivals.py


def test_programs_take_turns_and_every_second_round_is_reversed():
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "abc"}

    times = rivals.interleave(programs, repeat=3, warmup=1)

    assert "".join(calls) == "abc" + "cba" + "abc" + "cba"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert list(times) == ["a", "b", "c"]


def test_the_measured_time_is_that_of_the_call(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(rivals.time, "perf_counter", lambda: clock[0])

    def wait(seconds):
        clock[0] += seconds

    times = rivals.interleave({"slow": lambda: wait(2.0), "fast": lambda: wait(0.5)}, 3)

    assert times == {"slow": [2.0] * 3, "fast": [0.5] * 3}


def test_a_benchmark_without_a_round_is_refused():
    with pytest.raises(ValueError, match="repeat=0"):
        rivals.interleave({}, 0)


def test_a_ratio_is_taken_round_by_round():
    # In the second round the machine was ten times slower, and the medians of a and b come from different rounds.
    times = {"a": [1.0, 10.0, 3.0], "b": [2.0, 20.0, 1.5]}

    assert rivals.medians(times) == {"a": 3.0, "b": 2.0}
    assert rivals.times_as_fast(times, "a", "b") == 2.0
    assert rivals.times_as_fast(times, "b", "a") == 0.5


def test_a_ratio_of_unequal_numbers_of_rounds_is_refused():
    with pytest.raises(ValueError):
        rivals.times_as_fast({"a": [1.0], "b": [1.0, 2.0]}, "a", "b")


def test_a_table_has_the_format_of_the_book():
    assert rivals.table("Title", ["x", "n", "s"], [["a", 12345, "0.50"], ["b", 7, "1.0"]]) == (
        "```{table} Title\n| x | n | s |\n|---|--:|--:|\n| a | 12,345 | 0.50 |\n| b | 7 | 1.0 |\n```"
    )


def test_a_row_with_a_missing_cell_is_refused():
    with pytest.raises(ValueError, match="2 cells for 3 columns"):
        rivals.table("Title", ["x", "n", "s"], [["a", 1]])


def test_the_last_line_names_versions_and_threads():
    line = rivals.hardware_line()

    assert torch.__version__ in line
    assert f"{torch.get_num_threads()} threads" in line
    json.dumps(rivals.hardware())


def test_a_given_folder_of_nanogpt_must_contain_its_model(tmp_path):
    with pytest.raises(ValueError, match="no model.py"):
        rivals.nanogpt_folder(tmp_path)

    (tmp_path / "model.py").touch()
    assert rivals.nanogpt_folder(tmp_path) == tmp_path


@pytest.fixture
def git(monkeypatch):
    """Stand in for git: return the list of its commands and the list of errors that its next fetches raise."""
    commands = []
    errors = []

    def run(command, cwd, **options):
        commands.append(command)
        if command[1] == "checkout":
            (cwd / "model.py").touch()
        if command[1] == "fetch" and errors:
            raise errors.pop()

    monkeypatch.setattr(rivals.subprocess, "run", run)
    return commands, errors


@pytest.mark.parametrize(
    "error",
    [
        subprocess.CalledProcessError(128, "git"),
        subprocess.TimeoutExpired("git", 60),
        FileNotFoundError("git"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_clone_of_nanogpt_leaves_nothing_behind(tmp_path, git, error):
    _, errors = git
    errors.append(error)

    assert rivals.nanogpt_folder(rivals=tmp_path) is None

    assert not list(tmp_path.iterdir())


def test_nanogpt_is_cloned_at_our_commit_and_only_once(tmp_path, git):
    commands, _ = git

    found = rivals.nanogpt_folder(rivals=tmp_path)
    assert (found / "model.py").is_file()
    assert rivals.NANOGPT_COMMIT in commands[-2]

    commands.clear()
    assert rivals.nanogpt_folder(rivals=tmp_path) == found
    assert not commands


SPEECH = b"First Citizen:\n"


@pytest.fixture
def network(monkeypatch):
    """Let urlopen return SPEECH, which has the right checksum; return a function that cuts the connection."""

    def respond(*_, **__):
        return io.BytesIO(SPEECH)

    def fail(*_, **__):
        raise OSError

    monkeypatch.setattr(rivals.urllib.request, "urlopen", respond)
    monkeypatch.setattr(rivals, "TINYSHAKESPEARE_SHA256", hashlib.sha256(SPEECH).hexdigest())
    return lambda: monkeypatch.setattr(rivals.urllib.request, "urlopen", fail)


def test_without_a_network_there_is_no_tinyshakespeare(tmp_path, network):
    cut_connection = network
    cut_connection()

    assert rivals.tinyshakespeare(rivals=tmp_path) is None


def test_a_download_with_the_wrong_checksum_is_refused_and_not_kept(tmp_path, network, monkeypatch):
    monkeypatch.setattr(rivals, "TINYSHAKESPEARE_SHA256", hashlib.sha256(b"other").hexdigest())

    with pytest.raises(ValueError, match="checksum"):
        rivals.tinyshakespeare(rivals=tmp_path)

    assert not list(tmp_path.iterdir())


def test_tinyshakespeare_is_downloaded_only_once(tmp_path, network):
    cut_connection = network
    assert rivals.tinyshakespeare(rivals=tmp_path) == SPEECH.decode()

    cut_connection()
    assert rivals.tinyshakespeare(rivals=tmp_path) == SPEECH.decode()
    assert rivals.tinyshakespeare(tmp_path / "tinyshakespeare.txt") == SPEECH.decode()


def test_a_given_file_must_be_tinyshakespeare(tmp_path, network):
    (tmp_path / "other.txt").write_bytes(b"Second Citizen:\n")

    with pytest.raises(ValueError, match="other.txt"):
        rivals.tinyshakespeare(tmp_path / "other.txt")


# ---------------------------------------------------------------- scaling.py


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("T", [16, 40])
def test_the_formula_agrees_with_the_flops_that_pytorch_counts(family, T):
    config = FAMILIES[family]

    assert scaling.flops_per_token(config, T) == scaling.counted_flops_per_token(config, T)


def test_the_sizes_of_the_table_go_from_small_to_30_million_weights():
    weights = [scaling.matrix_weights(config) for config in scaling.size_configs()]

    assert weights == sorted(weights)
    assert weights[0] < 0.2e6
    assert 25e6 < weights[-1] < 35e6


def test_matrix_weights_agree_with_a_count_by_hand():
    laptop = scaling.size_configs()[2]
    assert scaling.matrix_weights(laptop) == 4 * (4 * 128 * 128 + 3 * 128 * 352) + 70 * 128

    gpt2 = GPTConfig.preset("gpt2_124m", vocab_size=50257)
    assert scaling.matrix_weights(gpt2) == 12 * 12 * 768**2 + 50257 * 768


def test_a_planted_law_is_found():
    flops = [1e6, 3e6, 1e7, 5e7, 2e8]

    law = scaling.fit_law(flops, [2e-6 + 1e-11 * f for f in flops])

    assert law.a == pytest.approx(2e-6)
    assert law.b == pytest.approx(1e-11)
    assert law.a_error < 1e-12
    assert law.b_error < 1e-17
    assert law.spread < 1e-6
    assert law(1e7) == pytest.approx(1.02e-4)


def test_a_law_needs_three_points():
    with pytest.raises(ValueError, match="three at least"):
        scaling.fit_law([1.0, 2.0], [1.0, 2.0])


def test_the_standard_errors_are_the_standard_deviations_of_the_estimates():
    flops = [1e6, 3e6, 1e7, 5e7, 2e8]
    generator = torch.Generator().manual_seed(0)

    laws = []
    for _ in range(400):
        noise = 1 + 0.03 * torch.randn(5, generator=generator)
        seconds = [(2e-5 + 1e-11 * f) * n.item() for f, n in zip(flops, noise)]
        laws.append(scaling.fit_law(flops, seconds))

    for name in ("a", "b"):
        estimates = torch.tensor([getattr(law, name) for law in laws], dtype=torch.float64)
        errors = torch.tensor([getattr(law, f"{name}_error") for law in laws], dtype=torch.float64)
        assert errors.square().mean().sqrt() == pytest.approx(estimates.std().item(), rel=0.15)
    assert sum(law.spread for law in laws) / 400 == pytest.approx(0.03, rel=0.15)


def test_a_step_trains_on_the_same_number_of_tokens_at_every_context_length(monkeypatch):
    shapes = []
    weights = []
    forward = MiniGPT.forward

    def recording(self, ids, targets):
        shapes.append(tuple(ids.shape))
        weights.append(next(self.parameters()).detach().clone())
        return forward(self, ids, targets)

    monkeypatch.setattr(MiniGPT, "forward", recording)
    for T in (8, 32):
        step = scaling.training_step(FAMILIES["gpt2"], T, tokens=64)
        step()
        step()

    assert shapes == [(8, 8), (8, 8), (2, 32), (2, 32)]
    assert not torch.equal(weights[0], weights[1])


def test_a_number_of_tokens_that_is_not_a_multiple_of_the_context_is_refused():
    with pytest.raises(ValueError, match="64 tokens"):
        scaling.training_step(FAMILIES["gpt2"], 24, tokens=64)


def test_the_tables_are_made_of_measured_rows():
    cases = [(FAMILIES["gpt2"], 32), (FAMILIES["llama"], 32), (FAMILIES["gpt2"], 16)]
    rows = scaling.rows_of(cases, 1)
    first = rows[0]
    law = scaling.Law(0.0, first["seconds_per_token"] / first["flops_per_token"], 0.0, 0.0, 0.0)

    lines = scaling.context_table(rows, law).splitlines()
    assert lines[3].split(" | ")[5] == "1.00"
    assert "Training at 32 tokens" in scaling.size_table(rows, law)
    assert first["attention_share"] == 12 * 3 * 32 * 24 / first["flops_per_token"]
    json.dumps(rows)


# ---------------------------------------------------------------- generation.py


@pytest.fixture(scope="module")
def pair():
    """Return our model and Hugging Face's GPT-2 with the same random weights."""
    return generation.build_pair(dataclasses.replace(FAMILIES["gpt2"], init_std=0.3), seed=3)


@pytest.fixture(scope="module")
def prompt():
    return torch.randint(71, (1, 9), generator=torch.Generator().manual_seed(1))


def test_the_two_models_generate_the_same_text(pair, prompt):
    ours, theirs = pair

    times, written = generation.measure(ours, theirs, prompt, 20, 1)

    assert list(times) == ["ours", "read", "theirs"]
    text = written["ours"]
    assert text.shape == (1, 29)
    assert torch.equal(text, written["theirs"])
    assert torch.equal(text[:, :9], prompt)
    assert len(text[0, 9:].unique()) > 3, "a text of one letter proves nothing"
    for model in pair:
        assert torch.equal(generation.next_tokens(model, text, 9), text[0, 9:])


def test_a_wrong_weight_changes_the_text(pair, prompt):
    ours, theirs = pair
    bias = theirs.transformer.h[1].mlp.c_fc.bias
    before = bias.detach().clone()
    right = generation.write_ours(ours, prompt, 20)

    try:
        bias.data.zero_()
        wrong = generation.write_theirs(theirs, prompt, 20)
    finally:
        bias.data.copy_(before)

    assert generation.common_start(right[0, 9:], wrong[0, 9:]) < 20


def test_the_common_start_ends_at_the_first_difference():
    a = torch.tensor([1, 2, 3, 4])

    assert generation.common_start(a, torch.tensor([1, 2, 0, 4])) == 2
    assert generation.common_start(a, a) == 4


def test_texts_of_different_lengths_have_no_common_start():
    a = torch.tensor([1, 2, 3, 4])

    with pytest.raises(ValueError, match="end token"):
        generation.common_start(a, a[:3])


def test_a_token_needs_every_weight_but_the_unused_positions_in_memory():
    with torch.device("meta"):
        model = MiniGPT(GPTConfig.preset("gpt2_124m", vocab_size=50257))

    assert generation.bytes_per_token(model) == 4 * (124_439_808 - 1023 * 768)
    assert generation.bytes_per_token(model.to(torch.bfloat16)) == 2 * (124_439_808 - 1023 * 768)
