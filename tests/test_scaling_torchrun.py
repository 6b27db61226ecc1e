"""Chapter 18: under torchrun, several ranks train like one process; a rank that dies or hangs loses no saved step."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache

import pytest
import torch

from courseware import paths
from minigpt_lib.lora import add_lora
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig, Trainer

SCRIPT = """
import json, os, signal, sys, time
import torch
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.distributed import DistributedTrainer
from minigpt_lib.lora import add_lora
from minigpt_lib.training import TrainConfig

how = json.loads(sys.argv[1])
if how.get("what") == "dies":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the others: let them speak first
torch.set_num_threads(1)
torch.manual_seed(0)
model = MiniGPT(GPTConfig(31, 16, 24, 2, 3))
if how.get("lora"):
    add_lora(model, 4)
tokens = torch.randint(31, (3000,), generator=torch.Generator().manual_seed(1))
config = TrainConfig(**how["config"])

def on_step(record):
    if record["step"] == how.get("at") and run.processes.rank == run.processes.world - 1 and not os.path.exists("done"):
        open("done", "w").close()
        if how["what"] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep({"hangs": 60, "waits": 0}[how["what"]])
    if how.get("what") == "is interrupted":
        print("step", record["step"], flush=True)
        end = time.monotonic() + 60
        while record["step"] == 2 and not run.stop_asked and time.monotonic() < end:
            time.sleep(0.01)  # on every rank, until torchrun has passed Ctrl-C on

run = DistributedTrainer(
    model, config, tokens[:2500], tokens[2400:2600], on_step=on_step, **how["options"]
)
history = run.train()
if run.main:
    keys = ("loss", "grad_norm", "val_loss")
    print(json.dumps([[record.get(key) or 0.0 for key in keys] for record in history]))
"""

CONFIG = {
    "steps": 6,
    "batch_size": 5,
    "accumulate": 1,
    "block_size": 8,
    "warmup_steps": 2,
    "eval_every": 2,
    "save_every": 2,
    "device": "cpu",
    "precision": "float32",
    "progress": False,
}

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def start(folder, arguments, **options):
    """Start torchrun in `folder`, with its output in pipes."""
    return subprocess.Popen(
        [*TORCHRUN, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **options,
    )


def arguments_of(folder, ranks, how, *options):
    """Write the script into `folder`; return torchrun's arguments for it.

    how: "options" for DistributedTrainer, "config", and "what" happens "at" which step.
    """
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    how = {"config": CONFIG, "options": {}} | how
    return [str(ranks), *options, "train.py", json.dumps(how)]


def torchrun(folder, ranks, how, *options):
    """Run the script on so many ranks; return the finished process."""
    process = start(folder, arguments_of(folder, ranks, how, *options))
    try:
        out, errors = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def history_of(done):
    """Return loss, gradient norm and validation loss of each step, from the output of the main rank."""
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.tensor(json.loads(done.stdout.splitlines()[-1]))


@cache
def history_of_one_process(lora=False):
    """Return loss, gradient norm and validation loss of each step, trained without torchrun."""
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig(31, 16, 24, 2, 3))
    if lora:
        add_lora(model, 4)
    tokens = torch.randint(31, (3000,), generator=torch.Generator().manual_seed(1))
    config = TrainConfig(**{**CONFIG, "save_every": 0})
    torch.set_num_threads(1)

    history = Trainer(model, config, tokens[:2500], tokens[2400:2600]).train()

    keys = ("loss", "grad_norm", "val_loss")
    return torch.tensor([[record.get(key) or 0.0 for key in keys] for record in history])


def trained_like_one_process(done, lora=False):
    """Assert that a run has the history of one process, within the precision of float32."""
    expected = history_of_one_process(lora)
    torch.testing.assert_close(history_of(done), expected, rtol=3e-6, atol=3e-6)


# ---------------------------------------------------------------- ranks that die or hang


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_on_four_ranks_that_lost_one_goes_on_with_two(tmp_path, parallel):
    options = {"parallel": parallel, "folder": "run", "existing": "resume"}

    done = torchrun(tmp_path, 4, {"options": options, "what": "dies", "at": 5})
    assert done.returncode != 0
    report = done.stderr[done.stderr.index("Root Cause") :]
    assert "rank      : 3" in report, report
    assert "exitcode  : -9" in report, report
    assert re.search(r"RankLost: rank \d of 4, after step 5: another rank died", done.stderr)
    assert 'Saved in run: existing="resume" goes on from there' in done.stderr

    done = torchrun(tmp_path, 2, {"options": options})
    trained_like_one_process(done)
    assert "from step 4 to 6" in done.stdout
    assert MiniGPT.from_pretrained(tmp_path / "run" / "last").config.n_embd == 24


@pytest.mark.slow
def test_torchrun_restarts_a_run_that_lost_a_rank(tmp_path):
    options = {"parallel": "fsdp", "folder": "run", "existing": "resume"}
    how = {"options": options, "what": "dies", "at": 3}

    done = torchrun(tmp_path, 2, how, "--max-restarts", "1")

    trained_like_one_process(done)
    assert "from step 0 to 6" in done.stdout
    assert "from step 2 to 6" in done.stdout


@pytest.mark.slow
def test_a_rank_that_hangs_is_an_error_after_the_timeout(tmp_path):
    began = time.monotonic()

    done = torchrun(tmp_path, 2, {"options": {"timeout": 3}, "what": "hangs", "at": 3})

    assert done.returncode != 0
    assert time.monotonic() - began < 50
    assert "RankLost: rank 0 of 2, after step 3" in done.stderr
    assert "Timed out waiting 3000ms" in done.stderr


@pytest.mark.slow
def test_a_model_with_lora_detours_is_sharded_saved_and_resumed(tmp_path):
    options = {"parallel": "fsdp", "folder": "run", "existing": "resume"}
    how = {"options": options, "lora": True}

    done = torchrun(tmp_path, 2, {**how, "what": "dies", "at": 3})
    assert done.returncode != 0
    done = torchrun(tmp_path, 2, how)

    trained_like_one_process(done, lora=True)
    assert "from step 2 to 6" in done.stdout
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".lock",
        "best",
        "history.jsonl",
        "last",
    ]


# ---------------------------------------------------------------- Ctrl-C


@pytest.mark.slow
def test_ctrl_c_saves_the_same_step_on_all_ranks(tmp_path):
    options = {"folder": "run", "existing": "resume"}
    config = {**CONFIG, "save_every": 100}
    how = {"options": options, "config": config}

    run = start(tmp_path, arguments_of(tmp_path, 2, {**how, "what": "is interrupted"}))
    for line in run.stdout:
        if line == "step 2\n":
            run.send_signal(signal.SIGINT)
            break
    run.communicate(timeout=60)

    path = tmp_path / "run" / "last" / "checkpoint.json"
    step = json.loads(path.read_text(encoding="utf-8"))["step"]
    assert step == 3, "the ranks agree on the end at the next step"

    done = torchrun(tmp_path, 2, how)
    trained_like_one_process(done)
    assert f"from step {step} to 6" in done.stdout


@pytest.mark.slow
def test_ctrl_c_before_the_training_is_reported_once(tmp_path):
    (tmp_path / "a.txt").write_text("To be or not to be.\n\n" * 200_000, encoding="utf-8")
    command = ["2", "-m", "minigpt_lib.distributed", "--data", "a.txt", "--folder", "run"]
    command += ["--vocab-size", "270", "--num-proc", "1", "--shard-chars", "20_000"]

    run = start(tmp_path, [*command, "--no-progress"], start_new_session=True)
    while not list(tmp_path.glob("run/data/train-*")) and run.poll() is None:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does; torchrun passes it on once more
    out, errors = run.communicate(timeout=60)

    stopped = "stopped: the same command goes on with the preparation of the text."
    assert errors.count(stopped) == errors.count("stopped:") == 1, errors
    assert run.returncode != 0
    assert out == ""
