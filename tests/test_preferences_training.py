"""Chapter 15: a few steps teach the pairs, and a killed run goes on as if undisturbed."""

from __future__ import annotations

import copy
import math
import signal
import subprocess
import sys

import pytest
import torch
from preference_pairs import dataset, plan, tiny

from courseware import paths
from minigpt_lib.model import MiniGPT
from minigpt_lib.preferences import fingerprint, measure_preferences, train_dpo

KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
from preference_pairs import dataset, plan, tiny
from minigpt_lib.preferences import train_dpo

torch.set_num_threads({threads})  # the number of threads determines the order of sums

def stop(record):
    if record["step"] == {at}:
        os.kill(os.getpid(), signal.SIGKILL)

train_dpo(
    tiny(), tiny(), plan(steps=8, save_every=1), dataset(),
    folder={folder!r}, existing="resume", on_step=stop,
)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    for at in (3, 6):
        code = KILLED.format(
            tests=str(paths.ROOT / "tests"),
            at=at,
            folder=str(tmp_path / "killed"),
            threads=torch.get_num_threads(),
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode("utf-8", "replace")[-2000:]

    models = []
    for name in ("killed", "whole"):
        model = tiny()
        config = plan(steps=8, save_every=1)
        options = {"folder": tmp_path / name, "existing": "resume"}
        run = train_dpo(model, tiny(), config, dataset(), **options)
        assert [record["step"] for record in run.history] == list(range(1, 9))
        models.append(model)

    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_few_steps_teach_the_pairs_and_leave_the_reference_as_it_was(precision, dropout):
    reference = tiny(dropout=dropout)
    mark = fingerprint(reference)
    model = copy.deepcopy(reference)
    data = dataset()
    config = plan(steps=25, precision=precision, eval_every=25)

    run = train_dpo(model, reference, config, data, data, beta=0.2)

    assert run.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert run.history[-1]["val_accuracy"] == 1.0
    assert run.history[-1]["val_loss"] < 0.5
    assert fingerprint(reference) == mark != fingerprint(model)
    assert measure_preferences(model, data, 0.2).accuracy == 1.0


def test_a_run_need_not_begin_at_its_reference():
    reference = tiny()
    model = tiny(3)
    data = dataset()
    data.use_reference(reference)
    expected = measure_preferences(model, data).loss.item()

    run = train_dpo(model, reference, plan(steps=1, batch_size=4), data)

    assert run.history[0]["loss"] == pytest.approx(expected, abs=1e-4)


def test_the_best_model_on_validation_pairs_is_kept(tmp_path):
    data = dataset()
    config = plan(steps=6, eval_every=2, save_every=2)

    run = train_dpo(tiny(), tiny(), config, data, data, folder=tmp_path)

    losses = [record["val_loss"] for record in run.history if "val_loss" in record]
    best = MiniGPT.from_pretrained(tmp_path / "best")
    assert measure_preferences(best, data).loss.item() == pytest.approx(min(losses), abs=1e-5)


def test_a_bfloat16_run_that_is_resumed_has_the_same_reference(tmp_path):
    config = plan(steps=4, precision="bfloat16", save_every=2)
    whole = train_dpo(tiny(), tiny(), config, dataset(), folder=tmp_path / "whole")

    def stop(record):
        if record["step"] == 2:
            raise KeyboardInterrupt

    options = {"folder": tmp_path / "stopped", "existing": "resume"}
    with pytest.raises(KeyboardInterrupt):
        train_dpo(tiny(), tiny(), config, dataset(), on_step=stop, **options)
    train_dpo(
        tiny(), tiny(), plan(steps=4, precision="bfloat16", save_every=2), dataset(), **options
    )
    resumed = MiniGPT.from_pretrained(tmp_path / "stopped" / "last")

    for one, other in zip(whole.model.policy.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
