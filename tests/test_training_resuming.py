"""Chapter 10: a run that was killed, damaged or changed goes on as if nothing had happened, or is refused."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from training_runs import TOKENS, equal, losses, plan, tiny, weights

from courseware import paths
from courseware.checks.refusals import refused
from minigpt_lib.checkpoints import load_checkpoint
from minigpt_lib.training import Trainer, TrainingStopped

# ---------------------------------------------------------------- killed and interrupted

CHILD = """
import random, sys, time
import numpy, torch
from minigpt_lib.data import get_batch
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.optimizer import AdamW, param_groups
from minigpt_lib.training import TrainConfig, Trainer

folder, precision, own_optimizer = sys.argv[1:]
torch.set_num_threads(1)
tokens = torch.randint(11, (5000,), generator=torch.Generator().manual_seed(0))
torch.manual_seed(0)
random.seed(0)
numpy.random.seed(0)

model = MiniGPT(GPTConfig(11, 32, 16, 1, 2, dropout=0.2))
config = TrainConfig(
    steps=160, batch_size=4, block_size=8, warmup_steps=3, eval_every=7, save_every=3,
    device="cpu", precision=precision, progress=False, accumulate=2,
)
optimizer = None
if own_optimizer == "1":
    optimizer = AdamW(param_groups(model, 0.1), lr=config.lr)

def draw(*arguments):
    x, y = get_batch(*arguments)
    return x, (y + int(3 * random.random()) + numpy.random.randint(2)) % 11

def on_step(record):
    # A pipe holds 8 lines of this length, so the run cannot get far ahead of its reader.
    print(str(record["step"]).ljust(8000), flush=True)
    time.sleep(0.001)

run = Trainer(
    model, config, tokens, tokens[:300],
    folder=folder, existing="resume", optimizer=optimizer, draw=draw, on_step=on_step,
)
run.train()
"""

PATIENT_CHILD = CHILD.replace(
    "    time.sleep(0.001)",
    """    end = time.monotonic() + 60
    while record["step"] >= 12 and not run.stop_asked and time.monotonic() < end:
        time.sleep(0.01)""",
)


def start(folder, precision="float32", own_optimizer=False, script=CHILD, **streams):
    """Start a process that trains in `folder`; its standard output is a pipe by default."""
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder), precision, str(int(own_optimizer))],
        env={**os.environ, "PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"},
        encoding="utf-8",
        **{"stdout": subprocess.PIPE} | streams,
    )


def kill_after(process, step, seconds):
    """Kill a run some time after it reports `step`: within a step, a write, or between two renames."""
    for line in process.stdout:
        if line.strip().isdigit() and int(line) >= step:
            break
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"


def history_of(folder):
    """Return the history of a run on disk, without its speed."""
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in record.items() if k != "tokens_per_second"} for record in records]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "own_optimizer"), [("float32", False), ("bfloat16", True)])
def test_a_run_killed_at_random_moments_ends_bit_for_bit_like_an_undisturbed_one(
    tmp_path, precision, own_optimizer
):
    torn_folder = tmp_path / "torn"
    whole_folder = tmp_path / "whole"
    whole = start(whole_folder, precision, own_optimizer, stdout=subprocess.DEVNULL)
    generator = random.Random(precision)

    reached = 0
    for _ in range(3):
        process = start(torn_folder, precision, own_optimizer)
        kill_after(process, reached + generator.randint(4, 30), generator.random() * 0.02)
        reached = load_checkpoint(torn_folder / "last")["step"]
    assert 0 < reached < 160

    last = start(torn_folder, precision, own_optimizer)
    last.communicate(timeout=120)
    whole.communicate(timeout=120)
    assert last.returncode == whole.returncode == 0

    assert history_of(torn_folder) == history_of(whole_folder)
    torn = load_checkpoint(torn_folder / "last")
    undisturbed = load_checkpoint(whole_folder / "last")
    assert torn["step"] == undisturbed["step"] == 160
    assert torn["best"] == undisturbed["best"]
    assert torch.equal(torn["state"]["data"], undisturbed["state"]["data"])
    assert torch.equal(torn["state"]["random"]["torch"], undisturbed["state"]["random"]["torch"])
    torn_weights = (torn_folder / "last" / "model.safetensors").read_bytes()
    assert torn_weights == (whole_folder / "last" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_ctrl_c_saves_and_ends_the_run_without_an_error(tmp_path):
    process = start(tmp_path, script=PATIENT_CHILD, stderr=subprocess.PIPE)
    for line in process.stdout:
        if line.strip() == "11":
            break

    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()  # communicate() would not see what was read ahead of line 11
    errors = process.stderr.read()

    assert process.wait(60) == 0, errors
    assert "Traceback" not in errors
    steps = [int(line) for line in rest.split() if line.isdigit()]
    reached = max([11, *steps])
    assert f"stopped after step {reached}, as asked, and saved" in rest
    assert load_checkpoint(tmp_path / "last")["step"] == reached < 160


# ---------------------------------------------------------------- two at once


def steps_of(process):
    """Yield the steps that a process reports."""
    return (int(line) for line in process.stdout if line.strip().isdigit())


@pytest.mark.slow
def test_of_two_processes_in_one_folder_the_second_is_refused(tmp_path):
    first = start(tmp_path / "run", script=PATIENT_CHILD)
    next(step for step in steps_of(first) if step == 11)  # a checkpoint is there

    second = start(tmp_path / "run", stderr=subprocess.PIPE)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    busy = f"another process is at work in {tmp_path / 'run'}: wait for it, end it, or choose another folder"
    assert busy in errors
    for existing in ("resume", "replace"):
        options = {"folder": tmp_path / "run", "existing": existing}
        refused(busy, Trainer, tiny(), plan(), TOKENS, kind=RuntimeError, **options)

    first.send_signal(signal.SIGINT)
    reached = max(steps_of(first), default=12)
    assert first.wait(60) == 0
    assert load_checkpoint(tmp_path / "run" / "last")["step"] == reached
    assert [record["step"] for record in history_of(tmp_path / "run")] == [*range(1, reached + 1)]


def test_a_trainer_does_not_add_to_what_another_has_written_in_the_meantime(tmp_path):
    early, late = (Trainer(tiny(), plan(), TOKENS, folder=tmp_path / "run") for _ in range(2))
    early.train()
    before = history_of(tmp_path / "run")

    words = [f"another run has written to {tmp_path / 'run'} since", "Make it again"]
    refused(words, late.train, kind=RuntimeError)
    refused(words, late.train, kind=RuntimeError)  # it does not forget

    assert history_of(tmp_path / "run") == before
    assert losses(early.train()) == losses(before), "the run itself may be called again"


def test_a_trainer_that_is_made_and_does_not_train_stops_no_other(tmp_path):
    Trainer(tiny(), plan(steps=10), TOKENS, folder=tmp_path / "run").train()
    options = {"folder": tmp_path / "run", "existing": "resume", "change": ["steps"]}
    early, _ = (Trainer(tiny(), plan(), TOKENS, **options) for _ in range(2))

    early.train()

    assert [record["step"] for record in history_of(tmp_path / "run")] == [*range(1, 21)]


def test_a_run_that_failed_can_be_called_again(tmp_path):
    def fail(record):
        if record["step"] == 7:
            raise InterruptedError

    run = Trainer(tiny(), plan(), TOKENS, folder=tmp_path / "run", on_step=fail)
    with pytest.raises(InterruptedError):
        run.train()

    run.on_step = None
    run.train()
    assert [record["step"] for record in history_of(tmp_path / "run")] == [*range(1, 21)]


def test_the_folder_of_a_run_may_be_deleted_before_it_begins(tmp_path):
    Trainer(tiny(), plan(), TOKENS, folder=tmp_path / "run").train()
    run = Trainer(tiny(), plan(), TOKENS, folder=tmp_path / "run", existing="resume")
    shutil.rmtree(tmp_path / "run")

    run.train()
    assert not history_of(tmp_path / "run")


# ---------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a complete run."""
    folder = tmp_path_factory.mktemp("run")
    Trainer(tiny(), plan(), TOKENS, TOKENS[:200], folder=folder).train()
    return folder


def damage_file(path, damage):
    """Damage a file in the named way, at a place that depends on its name."""
    data = path.read_bytes()
    place = random.Random(path.name).randrange(len(data))

    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(data[:place])
    elif damage == "one byte":
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
    else:
        path.write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "state.pt", "checkpoint.json", "SHA256SUMS"]
)
@pytest.mark.parametrize("damage", ["cut short", "one byte", "empty", "missing"])
def test_a_damaged_checkpoint_is_refused_and_the_best_one_takes_its_place(
    finished, tmp_path, name, damage
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    last = run / "last"
    damage_file(last / name, damage)
    model = tiny(7)
    before = weights(model)

    with pytest.raises((ValueError, FileNotFoundError)) as error:
        Trainer(model, plan(), TOKENS, TOKENS[:200], folder=run, existing="resume")
    assert str(last) in str(error.value)
    assert equal(before, weights(model))
    assert name in str(error.value) or name == "SHA256SUMS"

    shutil.rmtree(last)
    (run / "best").rename(last)
    trainer = Trainer(tiny(7), plan(), TOKENS, TOKENS[:200], folder=run, existing="resume")
    assert losses(trainer.train()) == losses(history_of(finished))


def test_a_damaged_history_is_cut_back_to_the_checkpoint(tmp_path):
    Trainer(tiny(), plan(), TOKENS, folder=tmp_path).train()
    log = tmp_path / "history.jsonl"
    text = log.read_text(encoding="utf-8")

    for rest in (
        '{"step": 21, "loss"',
        '{"step": 21, "loss": 1.0}\n{"st',
        "\n",
        '{"step": 21}\n' * 3,
    ):
        log.write_text(text + rest, encoding="utf-8")
        trainer = Trainer(tiny(), plan(), TOKENS, folder=tmp_path, existing="resume")

        assert log.read_text(encoding="utf-8") == text
        assert len(trainer.history) == 20


# ---------------------------------------------------------------- other settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 21}, "made with steps=20, but this run has steps=21"),
        ({"accumulate": 2}, "made with accumulate=1, but this run has accumulate=2"),
        ({"betas": (0.9, 0.99)}, "made with betas=[0.9, 0.95], but this run has betas=[0.9, 0.99]"),
    ],
)
def test_a_run_with_other_settings_is_refused(finished, changes, message):
    model = tiny()
    config = plan(**changes)

    refused(message, Trainer, model, config, TOKENS, folder=finished, existing="resume")


def test_a_run_can_go_on_in_any_precision(tmp_path):
    def stop(record):
        trainer.stop_asked = True

    precisions = ["float16", "float32", "bfloat16", "float16", "float16", "bfloat16"]
    for step, precision in enumerate(precisions):
        trainer = Trainer(
            tiny(step),
            plan(precision=precision),
            TOKENS,
            folder=tmp_path,
            existing="resume",
            on_step=stop,
        )
        assert trainer.step == step
        trainer.train()

    assert [record["step"] for record in trainer.history] == [1, 2, 3, 4, 5, 6]


# ---------------------------------------------------------------- runs that diverge


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_nan_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path, precision):
    def sabotage(record):
        if record["step"] == 12:
            trainer.model.embedding.weight.data[0, 0] = math.nan

    config = plan(precision=precision)
    trainer = Trainer(tiny(), config, TOKENS, folder=tmp_path, on_step=sabotage)

    with pytest.raises(TrainingStopped, match="step 13: the loss is nan") as error:
        trainer.train()
    assert f"the last good checkpoint is {tmp_path / 'last'}" in str(error.value)
    assert ("65,504" in str(error.value)) == (precision == "float16")
    assert load_checkpoint(tmp_path / "last")["step"] == 10

    resumed = Trainer(tiny(), config, TOKENS, folder=tmp_path, existing="resume")
    assert len(resumed.train()) == 20


def test_a_learning_rate_of_thirty_diverges_and_is_named_as_the_cause(tmp_path):
    config = plan(lr=30.0, warmup_steps=0, clip=1e9, steps=100)
    trainer = Trainer(tiny(dropout=0.0), config, TOKENS, folder=tmp_path)

    refused(
        ["no warm-up to speak of", "lr=30.0", "clip=1000000000.0"],
        trainer.train,
        kind=TrainingStopped,
    )

    assert all(torch.isfinite(weight).all() for weight in trainer.model.parameters())
