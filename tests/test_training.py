"""Chapter 10: a run that is killed, damaged, starved of disk or interrupted; the optimizer; faults; the live plot."""

import ast
import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
import tools
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node
from torch.nn.functional import cross_entropy

from courseware import paths
from courseware.runs import bands, live
from minigpt_lib import training as module
from minigpt_lib.data import get_batch
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import (
    AdamW,
    TrainConfig,
    Trainer,
    TrainingStopped,
    accumulate_gradients,
    get_cosine_schedule_with_warmup,
    load_checkpoint,
    save_checkpoint,
)

NUMBER = r"\d+\.?\d*"
TOKENS = torch.randint(11, (5000,), generator=torch.Generator().manual_seed(0))


def tiny(seed=0, dropout=0.1, n_embd=16):
    torch.manual_seed(seed)
    return MiniGPT(GPTConfig(11, 32, n_embd, 1, 2, dropout=dropout))


def plan(**changes):
    usual = {"steps": 20, "batch_size": 4, "block_size": 8, "warmup_steps": 3, "eval_every": 5}
    usual |= {"device": "cpu", "precision": "float32", "progress": False, "save_every": 5}
    return TrainConfig(**{**usual, **changes})


def losses(history):
    return [record["loss"] for record in history]


def weights(model):
    return [weight.detach().clone() for weight in model.parameters()]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- the optimizer, the schedule, the micro-batches ---


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1e-5, 1.0), st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)), st.floats(1e-12, 1.0),
    st.floats(0, 1), st.integers(1, 8), st.integers(0, 2**31),
)  # fmt: skip
def test_adamw_is_torchs_for_any_settings(lr, betas, eps, decay, steps, seed):
    noise = torch.Generator().manual_seed(seed)
    start = torch.randn(5, generator=noise).double()
    found = []
    for kind in (AdamW, torch.optim.AdamW):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], lr=lr, betas=betas, eps=eps, weight_decay=decay)
        noise = torch.Generator().manual_seed(seed + 1)
        for step in range(steps):
            weight.grad = torch.randn(5, generator=noise).double() * 10.0 ** (step % 5 - 2)
            optimizer.step()
        found.append(weight.detach())
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_adamws_state_is_saved_and_loaded():
    model, other = tiny(0), tiny(0)
    one, two = AdamW(model.parameters(), lr=0.01), AdamW(other.parameters(), lr=0.01)
    for step in range(6):
        for m, optimizer in ((model, one), (other, two)):
            torch.manual_seed(step)
            optimizer.zero_grad()
            m(*get_batch(TOKENS, 2, 8, torch.Generator().manual_seed(step)))[1].backward()
            optimizer.step()
        if step == 2:
            saved, two = two.state_dict(), AdamW(other.parameters(), lr=0.5)
            two.load_state_dict(saved)
    assert equal(weights(model), weights(other))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data(), st.floats(0, 1))
def test_the_schedule_climbs_then_falls_and_touches_both_ends(total, data, floor):
    warmup = data.draw(st.integers(0, total - 1))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = get_cosine_schedule_with_warmup(optimizer, warmup, total, floor), []
    for _ in range(total + 3):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert all(a <= b + 1e-12 for a, b in zip(rates[:warmup], rates[1 : warmup + 1]))
    assert all(a >= b - 1e-12 for a, b in zip(rates[warmup:], rates[warmup + 1 :]))
    assert min(rates) > 0 or floor == 0
    assert warmup == 0 or (rates[0] == 1 / warmup and rates[warmup - 1] == 1)
    assert rates[warmup] == pytest.approx(1)
    assert total - 1 <= warmup or rates[total - 1] == pytest.approx(floor)
    assert rates[-1] == pytest.approx(floor)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=5),
    st.integers(0, 2**31), st.booleans(),
)  # fmt: skip
def test_micro_batches_are_one_batch_whatever_their_lengths(shapes, seed, double):
    kind, tolerance = (torch.float64, 1e-12) if double else (torch.float32, 1e-6)
    model, noise = tiny(seed, dropout=0.0).to(kind), torch.Generator().manual_seed(seed)
    batches, total, count = [], torch.zeros((), dtype=kind), 0

    def loss_of(x, y, reduction="mean"):  # MiniGPT's own loss is always in float32
        return cross_entropy(model(x)[0].flatten(0, 1), y.flatten(), reduction=reduction)

    for rows, length, share in shapes:
        x, y = get_batch(TOKENS, rows, length, noise)
        batches.append((x, y.masked_fill(torch.rand(y.shape, generator=noise) < share, -100)))
    for x, y in batches:
        total = total + loss_of(x, y, "sum")
        count += int((y != -100).sum())
    loss = accumulate_gradients(loss_of, batches)
    found = [w.grad for w in model.parameters()]
    if not count:
        assert loss.item() == 0 and found == [None] * len(found)
        return
    expected = torch.autograd.grad(total / count, list(model.parameters()), allow_unused=True)
    assert abs(loss.item() - total.item() / count) < tolerance * 5
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=tolerance * 5, atol=tolerance)


def test_a_step_of_three_micro_batches_is_a_step_of_one_batch_of_three_times_the_size():
    """The texts of one draw, cut into three: the same weights after 20 steps, to float32's precision."""
    noise = torch.Generator().manual_seed(3)
    texts = [get_batch(TOKENS, 6, 8, noise) for _ in range(20)]
    mask = torch.rand(20, 6, 8, generator=noise) < 0.5
    texts = [(x, y.masked_fill(hide, -100)) for (x, y), hide in zip(texts, mask)]
    results = []
    for pieces in (1, 3):
        parts = iter([p for x, y in texts for p in zip(x.chunk(pieces), y.chunk(pieces))])
        config = plan(accumulate=pieces, save_every=0)
        trainer = Trainer(
            tiny(dropout=0.0), config, TOKENS, draw=lambda *_, parts=parts: next(parts)
        )
        results.append((losses(trainer.train()), weights(trainer.model)))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    for one, other in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


# --- killed with SIGKILL ---

CHILD = """
import random, sys, time
import numpy, torch
from minigpt_lib.data import get_batch
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import AdamW, TrainConfig, Trainer, param_groups
torch.set_num_threads(1)
folder, precision, by_hand = sys.argv[1:]
tokens = torch.randint(11, (5000,), generator=torch.Generator().manual_seed(0))
torch.manual_seed(0), random.seed(0), numpy.random.seed(0)
model = MiniGPT(GPTConfig(11, 32, 16, 1, 2, dropout=0.2))
config = TrainConfig(steps=160, batch_size=4, block_size=8, warmup_steps=3, eval_every=7, save_every=3, device="cpu",
                     precision=precision, progress=False, accumulate=2)
optimizer = AdamW(param_groups(model, 0.1), lr=config.lr) if by_hand == "1" else None
def draw(*arguments):
    x, y = get_batch(*arguments)
    return x, (y + int(3 * random.random()) + numpy.random.randint(2)) % 11
def on_step(record):
    print(str(record["step"]).ljust(8000), flush=True)  # so the pipe holds 8 lines: nobody runs far ahead of its reader
    time.sleep(0.001)
run = Trainer(model, config, tokens, tokens[:300], folder=folder, existing="resume", optimizer=optimizer, draw=draw,
              on_step=on_step)
run.train()
"""


def child(folder, precision, by_hand, stdout=subprocess.PIPE):
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(folder), precision, str(int(by_hand))]
    return subprocess.Popen(command, stdout=stdout, text=True, env=environment)


def diary(folder):
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(t).items() if k != "tokens_per_second"} for t in lines]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "by_hand"), [("float32", False), ("bfloat16", True)])
def test_killed_at_random_moments_and_resumed_the_run_is_the_same_bit_for_bit(
    tmp_path, precision, by_hand
):
    whole = child(tmp_path / "whole", precision, by_hand, stdout=subprocess.DEVNULL)
    chance, kills, reached = random.Random(precision), 0, 0
    while kills < 3:
        process = child(tmp_path / "torn", precision, by_hand)
        goal = reached + chance.randint(4, 30)
        for line in process.stdout:
            if line.strip().isdigit() and int(line) >= goal:
                break
        time.sleep(chance.random() * 0.02)  # anywhere: in a step, in a write, between two renames
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL, "it was over before it was killed"
        reached, kills = load_checkpoint(tmp_path / "torn" / "last")["step"], kills + 1
    assert 0 < reached < 160
    last = child(tmp_path / "torn", precision, by_hand)
    last.communicate(timeout=120)
    whole.communicate(timeout=120)
    assert last.returncode == whole.returncode == 0
    assert diary(tmp_path / "torn") == diary(tmp_path / "whole")
    one, other = (load_checkpoint(tmp_path / name / "last") for name in ("torn", "whole"))
    assert one["step"] == other["step"] == 160 and one["best"] == other["best"]
    assert torch.equal(one["state"]["data"], other["state"]["data"])
    assert torch.equal(one["state"]["random"]["torch"], other["state"]["random"]["torch"])
    files = [
        (tmp_path / name / "last" / "model.safetensors").read_bytes() for name in ("torn", "whole")
    ]
    assert files[0] == files[1]


# --- damage, another config, a full disk, a crash while saving ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("run")
    Trainer(tiny(), plan(), TOKENS, TOKENS[:200], folder=folder).train()
    return folder


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "state.pt", "checkpoint.json", "SHA256SUMS"]
)
@pytest.mark.parametrize("damage", ["cut short", "one byte", "empty", "missing"])
def test_a_damaged_checkpoint_is_refused_and_the_best_one_goes_on(finished, tmp_path, name, damage):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "last" / name
    data = path.read_bytes()
    place = random.Random(name).randrange(len(data))
    path.write_bytes({
        "cut short": data[:place], "one byte": data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :],
    }.get(damage, b""))  # fmt: skip
    if damage == "missing":
        path.unlink()
    model = tiny(7)
    before = weights(model)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        Trainer(model, plan(), TOKENS, TOKENS[:200], folder=tmp_path / "run", existing="resume")
    assert str(path.parent) in str(error.value) and equal(before, weights(model))
    assert name in str(error.value) or name == "SHA256SUMS"
    shutil.rmtree(path.parent)
    (tmp_path / "run" / "best").rename(path.parent)
    trainer = Trainer(
        tiny(7), plan(), TOKENS, TOKENS[:200], folder=tmp_path / "run", existing="resume"
    )
    history = trainer.train()
    whole = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    assert losses(history) == losses(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 21}, "run: steps is 20 there and 21 here"),
        ({"accumulate": 2}, "run: accumulate is 1 there and 2 here"),
        ({"betas": (0.9, 0.99)}, r"run: betas is \[0.9, 0.95\] there and \[0.9, 0.99\] here"),
    ],
)
def test_a_run_of_other_settings_is_refused(finished, changes, message):
    with pytest.raises(ValueError, match=message):
        Trainer(tiny(), plan(**changes), TOKENS, folder=finished, existing="resume")


def test_a_run_goes_on_in_any_other_precision(tmp_path):
    def stop(record):
        trainer.stop_asked = True

    precisions = ["float16", "float32", "bfloat16", "float16", "float16", "bfloat16"]
    for step, precision in enumerate(precisions):
        options = {"folder": tmp_path, "existing": "resume", "on_step": stop}
        trainer = Trainer(tiny(step), plan(precision=precision), TOKENS, **options)
        assert trainer.step == step
        trainer.train()
    assert [r["step"] for r in trainer.history] == [1, 2, 3, 4, 5, 6]


def test_a_torn_diary_is_cut_back_to_the_checkpoint(tmp_path):
    Trainer(tiny(), plan(), TOKENS, folder=tmp_path).train()
    log = tmp_path / "history.jsonl"
    text = log.read_text()
    for rest in (
        '{"step": 21, "loss"',
        '{"step": 21, "loss": 1.0}\n{"st',
        "\n",
        '{"step": 21}\n' * 3,
    ):
        log.write_text(text + rest)
        trainer = Trainer(tiny(), plan(), TOKENS, folder=tmp_path, existing="resume")
        assert log.read_text() == text and len(trainer.history) == 20


FULL = """
import sys, torch
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import load_checkpoint, save_checkpoint
folder, limit = sys.argv[1:]
torch.manual_seed(1)
model = MiniGPT(GPTConfig(11, 32, 16, 1, 2))
if limit != "0":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    save_checkpoint(folder, model, {"x": torch.zeros(30_000)}, step=2)
except OSError as error:
    print(error)
    sys.exit(3)
"""


def starved(folder, limit):
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT)}
    command = [sys.executable, "-c", FULL, str(folder), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("limit", [100, 10_000, 60_000])
def test_a_disk_that_is_full_in_the_middle_of_a_file_loses_nothing(tmp_path, limit):
    pytest.importorskip("resource")
    save_checkpoint(tmp_path / "last", tiny(dropout=0.0), step=1)
    done = starved(tmp_path / "last", limit)
    assert done.returncode == 3, done.stderr
    assert "could not be written" in done.stdout and "free some space" in done.stdout
    model = tiny(5, dropout=0.0)
    assert load_checkpoint(tmp_path / "last", model)["step"] == 1
    assert equal(weights(model), weights(tiny(0)))
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_file_system_that_is_really_full_loses_nothing(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)]
    if getattr(os, "geteuid", lambda: 1)() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small file system")
    try:
        save_checkpoint(tmp_path / "last", tiny(dropout=0.0), step=1)
        done = starved(tmp_path / "last", 0)
        assert done.returncode == 3 and "could not be written" in done.stdout, done.stderr
        assert load_checkpoint(tmp_path / "last")["step"] == 1
        assert [path.name for path in tmp_path.iterdir()] == ["last"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@given(st.lists(st.sampled_from([None, 0, 1, 2]), max_size=6))
@settings(max_examples=15, deadline=None)
def test_any_row_of_crashes_between_renames_leaves_a_whole_checkpoint(crashes):
    """None is a save that works; a number is how many renames or removals happen before the crash."""
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        folder, counter = Path(home) / "last", {"left": math.inf}
        model = torch.nn.Linear(1, 1)
        model.save_pretrained = lambda part: [
            part.mkdir(), *((part / n).write_text("{}") for n in ("config.json", "model.safetensors"))
        ]  # fmt: skip
        patch.setattr(module.os, "fsync", lambda number: None)
        save_checkpoint(folder, model, step=0)
        whole, rename, remove = 0, Path.replace, shutil.rmtree

        def counted(function):
            def call(self, *arguments, **options):
                if Path(self).name in ("last", "last.part", "last.old") and saving["done"]:
                    if counter["left"] == 0:
                        raise KeyboardInterrupt
                    counter["left"] -= 1
                return function(self, *arguments, **options)

            return call

        saving = {"done": False}
        patch.setattr(Path, "replace", counted(rename))
        patch.setattr(module.shutil, "rmtree", counted(remove))
        patch.setattr(module.torch, "save", lambda state, path: path.write_bytes(b"x"))
        for step, crash in enumerate(crashes, 1):
            counter["left"], saving["done"] = math.inf if crash is None else crash + 1, True
            with contextlib.suppress(KeyboardInterrupt):
                save_checkpoint(folder, model, step=step)
            saving["done"] = False
            found = module._find(folder)
            step_found = json.loads((found / "checkpoint.json").read_text())["step"]
            assert (found / "SHA256SUMS").is_file() and whole <= step_found <= step
            assert crash is not None or step_found == step
            whole = step_found


# --- stopped ---

PATIENT = CHILD.replace(
    "    time.sleep(0.001)",
    """    end = time.monotonic() + 60
    while record["step"] >= 12 and not run.stop_asked and time.monotonic() < end:
        time.sleep(0.01)""",
)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_saves_and_exits_cleanly(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PATIENT, str(tmp_path), "float32", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
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


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_broken_weight_stops_the_run_with_the_last_good_checkpoint(tmp_path, precision):
    def sabotage(record):
        if record["step"] == 12:
            trainer.model.embedding.weight.data[0, 0] = math.nan

    trainer = Trainer(tiny(), plan(precision=precision), TOKENS, folder=tmp_path, on_step=sabotage)
    with pytest.raises(TrainingStopped, match="step 13: the loss is nan") as error:
        trainer.train()
    assert f"the last good checkpoint is {tmp_path / 'last'}" in str(error.value)
    assert ("65,504" in str(error.value)) == (precision == "float16")
    assert load_checkpoint(tmp_path / "last")["step"] == 10
    resumed = Trainer(tiny(), plan(precision=precision), TOKENS, folder=tmp_path, existing="resume")
    assert len(resumed.train()) == 20


def test_a_rate_of_thirty_explodes_and_says_so(tmp_path):
    config = plan(lr=30.0, warmup_steps=0, clip=1e9, steps=100)
    trainer = Trainer(tiny(dropout=0.0), config, TOKENS, folder=tmp_path)
    with pytest.raises(TrainingStopped, match="no warm-up to speak of") as error:
        trainer.train()
    assert "lr=30.0" in str(error.value) and "clip=1000000000.0" in str(error.value)
    assert all(torch.isfinite(weight).all() for weight in trainer.model.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_sixteen_bits_learn_what_thirty_two_do(precision):
    text = torch.arange(4000) % 11
    results = []
    for kind in (precision, "float32"):
        config = plan(steps=60, precision=kind, lr=1e-2, save_every=0)
        results.append(Trainer(tiny(dropout=0.0), config, text, text[:200]).train())
    ends = [history[-1]["val_loss"] for history in results]
    assert max(ends) < 1.0 and abs(ends[0] - ends[1]) < 0.05


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_model_trains_alike(monkeypatch, precision):
    """With torch's own tracing, and no compiler behind it."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="eager"))
    runs = []
    for option in (True, False):
        config = plan(compile=option, steps=5, precision=precision, save_every=0)
        runs.append(losses(Trainer(tiny(dropout=0.0), config, TOKENS, TOKENS[:99]).train()))
    assert runs[0] == pytest.approx(runs[1], abs=1e-3)


# --- faults, the chapter, the live plot ---

FAULTS = {
    "no bias correction": ('m = state["m"] / (1 - beta1 ** state["step"])', 'm = state["m"]'),
    "decay in the gradient": (
        'weight.mul_(1 - lr * group["weight_decay"])',
        'm = m + group["weight_decay"] * weight',
    ),
    "eps in the root": ('(v.sqrt() + group["eps"])', '(v + group["eps"]).sqrt()'),
    "norms decay": ("if w.ndim >= 2]", "]"),
    "the first update wasted": ("return (step + 1) / warmup_steps", "return step / warmup_steps"),
    "the floor never reached": ("total_steps - 1 - warmup_steps", "total_steps - warmup_steps"),
    "a mean of means": ("(count / sum(counted))", "(1 / len(counted))"),
    "-100 counted": ("int((batch[1] != -100).sum())", "batch[1].numel()"),
    "options left behind": ("self.forward(x, y, **options)", "self.forward(x, y)"),
    "options left behind in 16 bits": ("copy, (x, y), options)", "copy, (x, y))"),
    "the reader starts anew": ('self.draw.load_state_dict(state["draw"])', "pass"),
    "all processes write the diary": ("if self.run.folder and self.run.main:", "if self.run.folder:"),
    "gradients never cleared": ("self.optimizer.zero_grad(set_to_none=True)", "pass"),
    "the schedule in micro-batches": (
        "            self.scheduler.step()",
        "            [self.scheduler.step() for _ in range(self.config.accumulate)]",
    ),
    "the schedule does not wait": ("if self.scaler.get_scale() >= scale:", "if True:"),
    "clipped before unscaling": ("self.scaler.unscale_(self.optimizer)", "pass"),
    "no clipping": ("(self.model.parameters(), c.clip)", "(self.model.parameters(), 1e9)"),
    "weights change first": (
        "        _refuse_bad(self, record)\n        scale",
        "        self.optimizer.step()\n        _refuse_bad(self, record)\n        scale",
    ),
    "evaluated in float32": ("loss_of=self._loss)", "loss_of=None)"),
    "no dropout in training": ("        self.model.train()\n", "        self.model.eval()\n"),
    "best saved with the wrong loss": ("self.best = min(before,", "self.best = max(0 * before or 0,"),
    "momentum forgotten": ('self.optimizer.load_state_dict(facts["state"]["optimizer"])', "pass"),
    "the schedule starts anew": ("self.scheduler.load_state_dict(", "dict("),
    "the data start anew": ('self.generator.set_state(state["data"])', "pass"),
    "dropout starts anew": ('torch.set_rng_state(states["torch"])', "pass"),
    "Python's chance forgotten": ('random.setstate(states["python"])', "pass"),
    "numpy's chance forgotten": ("numpy.random.set_state((name,", "str((name,"),
    "the scaler forgotten": ('self.scaler.load_state_dict(state["scaler"])', "pass"),
    "the scaler must be there": ('if state["scaler"]:', "if True:"),
    "the diary not cut back": ('if record["step"] <= last_step]', "]"),
    "written in place": (
        'part, old = (folder.with_name(f"{folder.name}.{end}") for end in ("part", "old"))',
        'part, old = folder, folder.with_name(f"{folder.name}.old")',
    ),
    "the last good one removed first": (
        "    if folder.exists():  # else `old`, if there is one, is the last good one\n        shutil",
        "    shutil.rmtree(old, ignore_errors=True)\n    if folder.exists():\n        shutil",
    ),
    "sums not looked at": ('if f"{_sha256(folder / name)}  {name}" not in sums:', "if False:"),
    "weights before the config": (
        '        _refuse_difference(folder, saved, dataclasses.asdict(model.config), "model")\n',
        "",
    ),
    "other settings accepted": ("if train is not None:", "if False:"),
    "Ctrl-C once and for all": (
        "        if self.stop_asked:\n            raise KeyboardInterrupt\n",
        "        if self.stop_asked:\n            return\n",
    ),
    "Ctrl-C that was swallowed is lost": ("self.stop_asked = interrupted()", "self.stop_asked = False"),
    "the handler stays": ("finally:\n        signal.signal(signal.SIGINT, before)", "finally:\n        pass"),
    "bfloat16 weights": ("self.model = model.to(self.device)", "self.model = model.bfloat16()"),
    "no copy in 16 bits": ("if self.device == \"cpu\" and dtype != torch.float32:", "if False:"),
}  # fmt: skip


def caught(folder, before="", after=""):
    """Return a check that notices the fault, or None; functions of set-up cells see the faulty module too."""
    return tools.noticed_by("10", folder, before, after, in_setup=True)


@pytest.mark.slow
def test_the_module_itself_passes(tmp_path):
    assert caught(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_checks(tmp_path, fault):
    assert caught(tmp_path, *FAULTS[fault]) is not None


def notebook_call(name):
    """Return the keyword arguments of the notebook's call of `name`, as plain values."""
    cells = nbformat.read(paths.NOTEBOOKS / "10_training.ipynb", 4).cells
    for cell in cells:
        if (
            cell.cell_type == "code"
            and cell.source.startswith("text = corpus")
            or "\nconfig = " in cell.source
        ):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
                    return {k.arg: ast.literal_eval(k.value) for k in node.keywords}
    raise AssertionError(f"the notebook has no {name}")


def test_the_notebook_makes_the_run_that_the_band_was_recorded_of():
    changes = {"sample_every": 100, "save_every": 500, "progress": False}
    assert TrainConfig(**notebook_call("TrainConfig")) == bands.training_config(**changes)


def records(steps=320, samples=True):
    for step in range(1, steps + 1):
        record = {
            "step": step,
            "loss": 4 / step**0.2,
            "lr": 2.5e-3 * step / steps,
            "tokens_per_second": 9000 + step,
        }
        if step % 64 == 0 or step == steps:
            record |= {"val_loss": 4.1 / step**0.2, "bits_per_char": 5.9 / step**0.2}
        if samples and step in (1, 128):
            record["sample"] = f"KING <{step}> & so on:\nI am"
        yield record


def test_a_long_run_is_thinned_and_nothing_is_lost():
    data, recent = {"steps": 320, "points": [], "evals": [], "samples": []}, []
    for record in records():
        live.collect(data, record, recent)
    assert len(data["points"]) == 107 <= live.POINTS and not recent
    assert [p[0] for p in data["points"][:2]] == [3, 6] and data["points"][-1][0] == 320
    mean = sum(4 / step**0.2 for step in (1, 2, 3)) / 3
    assert data["points"][0][1:] == [round(mean, 3), 0.02, 9002]
    assert [e[0] for e in data["evals"]] == [64, 128, 192, 256, 320]
    assert [s[0] for s in data["samples"]] == [1, 128]
    assert len(json.dumps(data)) < 60_000


@pytest.fixture(scope="module")
def shown():
    """The data of a run, and what was sent to the notebook while it went on."""
    sent = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "display", lambda thing, **options: sent.append((thing, options)))
        plot = live.LivePlot(plan(steps=320))
        for record in records():
            plot(record)
    return plot, sent


def test_the_live_plot_ends_as_a_slider_and_leaves_its_twin(shown):
    plot, sent = shown
    assert len(sent) == 2 and sent[0][0] is plot.widget and sent[1][1]["update"]
    assert sent[0][1]["display_id"] == sent[1][1]["display_id"]
    assert 'data-twin="training-run"' in sent[1][0]["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in sent[1][0]
    assert not plot.slider.disabled and plot.slider.value == plot.slider.max == 106
    assert (
        "KING &lt;128&gt; &amp; so on" in plot.view.value and "Step 320 of 320" in plot.view.value
    )
    plot.slider.value = 5
    assert "Step 18 of 320" in plot.view.value and "text at step 1" in plot.view.value
    assert "validation loss 0" not in plot.view.value and "left." not in plot.view.value


def test_the_live_plot_draws_at_most_twice_a_second_and_costs_little(monkeypatch):
    monkeypatch.setattr(live, "display", lambda *_, **__: None)
    drawn = []
    monkeypatch.setattr(live, "draw", lambda data, index: drawn.append(index) or "")
    plot = live.LivePlot(plan(steps=2000))
    began, busy = time.perf_counter(), time.process_time()
    for record in list(records(2000))[:-1]:
        plot(record)
    assert len(drawn) <= 2 + 2 * (time.perf_counter() - began)
    assert time.process_time() - busy < 2


def test_the_twin_says_and_draws_what_the_live_plot_does(shown):
    data, places = shown[0].data, [0, 1, 20, 21, 64, 106]
    call = f"{places}.map((i) => [m.describe(data, i), m.draw(data, i)])"
    theirs = in_node("training-run.js", call, data)
    for index, (said, drawn) in zip(places, theirs, strict=True):
        ours = live.draw(data, index)
        assert said == live.describe(data, index)
        assert re.sub(NUMBER, "N", drawn) == re.sub(NUMBER, "N", ours)
        pairs = zip(re.findall(NUMBER, drawn), re.findall(NUMBER, ours), strict=True)
        assert all(
            abs(float(a) - float(b)) < 0.11 for a, b in pairs
        )  # halves are rounded otherwise
    dialogs = data | {
        "evals": [row[:2] for row in data["evals"]],
        "samples": [],
    }  # no bits, no text
    (said,) = in_node("training-run.js", "[m.describe(data, 64)]", dialogs)
    assert said == live.describe(dialogs, 64) and "validation loss 1" in said and "bits" not in said
    call = "[m.latest(data.evals, 63) ?? null, m.latest(data.evals, 130)]"
    assert in_node("training-run.js", call, data) == [None, live.latest(data["evals"], 130)]
