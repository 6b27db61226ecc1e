"""benchmarks/gpu.py, tried on the processor: every part runs, a part that fails stops no other, the file is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from courseware import paths
from minigpt_lib.model import GPTConfig, MiniGPT

sys.path.insert(0, str(paths.CODE / "benchmarks"))
import gpu

QUICK = ("gpt", "preset", "llama", "fineweb", "generation", "resume", "precision")


@pytest.fixture(scope="module")
def parts():
    """Return the rows of the parts that need no other process."""
    return {name: gpu.PARTS[name][0](gpu.SMALL, None) for name in QUICK}


def test_every_training_part_has_a_row_in_the_table(parts):
    json.dumps(parts)
    lines = gpu.training_table(parts).splitlines()

    rows = [line.split(" | ") for line in lines[3:-1]]
    assert [row[0].removeprefix("| ") for row in rows] == [
        gpu.LABELS[name] for name in ("gpt", "preset", "llama", "fineweb")
    ]
    speeds = [int(row[1].replace(",", "")) for row in rows]
    assert speeds == [
        round(parts[name]["tokens_per_second"]) for name in ("gpt", "preset", "llama", "fineweb")
    ]


def test_the_models_are_those_that_the_labels_name(parts):
    assert parts["preset"]["bias"]
    assert parts["preset"]["weights"] > parts["gpt"]["weights"]

    llama = gpu.gpt_config(gpu.FULL, position="rope", norm="rms", ffn="swiglu")
    assert (llama.vocab_size, llama.bias, llama.tie_weights) == (50304, False, True)


def test_flops_are_counted_as_nanogpt_counts_them():
    with torch.device("meta"):
        model = MiniGPT(gpu.gpt_config(gpu.FULL))

    n_weights = 50304 * 768 + 12 * 12 * 768**2 + 25 * 768
    assert gpu.flops_per_token(model, 1024) == 6 * n_weights + 12 * 12 * 1024 * 768


def test_a_speed_is_the_median_after_the_first_steps():
    row = gpu.speed_row([30.0, *[9.0] * (gpu.WARMUP - 1), 2.0, 1.0, 7.0], 100, 10**12)

    assert row["step_ms"] == 2000
    assert row["tokens_per_second"] == 50
    assert row["teraflops"] == 50
    assert row["first_step_seconds"] == 30


def test_a_resumed_run_equals_one_that_ran_through(parts):
    row = parts["resume"]

    assert (row["resumed_at"], row["steps"]) == (13, 30)
    assert row["equal_losses"] == 30
    assert row["largest_difference"] == 0
    assert "30 of 30 losses are equal, bit for bit" in gpu.tables(parts)[-1]


def test_both_programs_write_the_same_first_token(parts):
    row = parts["generation"]

    assert row["equal first tokens, batch 2"] == 1
    assert "| batch 2 |" in gpu.generation_table(row)


# ---------------------------------------------------------------- nanoGPT

NANOGPT = """
import sys
from pathlib import Path

assert Path("data/random/train.bin").stat().st_size == 8_000_000
assert "--dataset=random" in sys.argv and "--compile=False" in sys.argv
for step in range(8):
    print(f"iter {step}: loss {11 - step / 8:.4f}, time {[9000, 20][step > 4]:.2f}ms, mfu -100.00%")
"""


def test_nanogpt_is_left_out_without_its_folder(parts):
    row = gpu.run_nanogpt(gpu.SMALL, None)

    assert "--nanogpt FOLDER" in row["skipped"]
    assert "nanoGPT" not in gpu.training_table({**parts, "nanogpt": row})


def test_the_speed_of_nanogpt_is_read_from_its_own_output(tmp_path):
    (tmp_path / "model.py").touch()
    (tmp_path / "train.py").write_text(NANOGPT, encoding="utf-8")

    row = gpu.run_nanogpt(gpu.SMALL, str(tmp_path))

    assert row["step_ms"] == pytest.approx(20)
    tokens = gpu.SMALL.batch * gpu.SMALL.accumulate * gpu.SMALL.block
    assert row["tokens_per_second"] == pytest.approx(tokens / 0.02)
    assert (row["first_loss"], row["last_loss"]) == (11, 10.125)


def test_a_failure_of_nanogpt_is_shown(tmp_path):
    (tmp_path / "model.py").touch()
    (tmp_path / "train.py").write_text("raise SystemExit('out of memory')", encoding="utf-8")

    with pytest.raises(RuntimeError, match="out of memory"):
        gpu.run_nanogpt(gpu.SMALL, str(tmp_path))


# ---------------------------------------------------------------- all parts


def options(path, **changes):
    """Return the options of the command line, for tiny sizes and this file of results."""
    usual = {"nanogpt": None, "parts": None, "minutes": 8, "small": True, "out": path}
    return SimpleNamespace(**(usual | changes))


@pytest.fixture
def processes(monkeypatch):
    """Stand in for the processes of the parts: gpt takes too long, llama fails, the others succeed."""
    started = []

    def run(command, **_):
        name = command[command.index("--inside") + 1]
        started.append(name)
        if name == "gpt":
            raise subprocess.TimeoutExpired(command, 90)
        if name == "llama":
            return SimpleNamespace(returncode=1, stderr="CUDA out of memory")
        answer = command[command.index("--out") + 1]
        paths.write_atomic(paths.Path(answer), json.dumps({"skipped": f"a stub of {name}"}))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(gpu.subprocess, "run", run)
    return started


def test_a_part_that_fails_is_reported_and_the_others_go_on(tmp_path, processes, capsys):
    found = gpu.run_parts(options(tmp_path / "gpu.json"))

    assert processes == list(gpu.PARTS)
    assert found["gpt"]["failed"].startswith("not finished after")
    assert found["llama"]["failed"] == "CUDA out of memory"
    assert found["fineweb"]["skipped"] == "a stub of fineweb"
    printed = capsys.readouterr().out
    assert all(f"{name}: 0 s" in printed for name in gpu.PARTS)
    saved = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert saved["parts"] == found
    assert saved["hardware"]["torch"] == torch.__version__


def test_parts_that_are_not_renewed_stay_in_the_file(tmp_path, processes):
    out = tmp_path / "gpu.json"
    gpu.run_parts(options(out))
    processes.clear()

    found = gpu.run_parts(options(out, parts=["ranks"]))

    assert processes == ["ranks"]
    assert list(found) == list(gpu.PARTS)


def test_no_part_starts_when_the_time_is_over(tmp_path, processes):
    found = gpu.run_parts(options(tmp_path / "gpu.json", minutes=0.1))

    assert processes == []
    assert all("not started" in row["failed"] for row in found.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])

    assert gpu.main() == 0
    assert "there is no GPU here" in capsys.readouterr().out


@pytest.mark.slow
def test_ranks_and_preparation_run_from_the_command_line(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(paths.CODE / "benchmarks" / "gpu.py"), "--small"]
    command += ["--parts", "ranks", "preparation", "--out", str(out)]

    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(out.read_text(encoding="utf-8"))["parts"]
    assert found["ranks"]["ddp"]["largest_difference"] == 0
    assert found["ranks"]["fsdp"]["largest_difference"] < 1e-5
    assert found["preparation"]["same_bytes"]
    assert "| 1 |" in done.stdout
    assert "the figures mean nothing" in done.stdout


def test_the_preset_of_the_book_is_measured_as_it_is():
    config = GPTConfig.preset("gpt2_124m")

    sizes = {name: getattr(config, name) for name in gpu.FULL.model}
    assert sizes == gpu.FULL.model
    assert config.max_seq_len == gpu.FULL.block
