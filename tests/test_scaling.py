"""Chapter 18: ranks that equal one process, deaths and restarts under torchrun, estimators, faults, the planner."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, survives

from courseware import paths
from courseware.widgets.run_planner import compute, describe, draw, limits, planner, planner_data
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.scaling import (
    BESIROGLU,
    GPUS,
    HOFFMANN,
    LossLaw,
    flops_per_token,
    memory_per_rank,
    plan,
    share_of,
    traffic_per_step,
)
from minigpt_lib.training import TrainConfig, Trainer

# --- under torchrun: processes of their own ---

SCRIPT = """
import json, os, signal, sys, time
import torch
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.scaling import DistributedTrainer
from minigpt_lib.training import TrainConfig

how = json.loads(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(0)
model = MiniGPT(GPTConfig(31, 16, 24, 2, 3))
tokens = torch.randint(31, (3000,), generator=torch.Generator().manual_seed(1))
config = TrainConfig(**how["config"])

def on_step(record):
    if record["step"] == how.get("at") and run.rank == run.world - 1 and not os.path.exists("done"):
        open("done", "w").close()
        if how["what"] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep({"hangs": 60, "waits": 0}[how["what"]])
    if how.get("what") == "is interrupted":
        print("step", record["step"], flush=True)
        end = time.monotonic() + 60
        while record["step"] == 2 and not run._wish and time.monotonic() < end:
            time.sleep(0.01)  # on every rank, until torchrun has passed Ctrl-C on

run = DistributedTrainer(model, config, tokens[:2500], tokens[2400:2600], on_step=on_step, **how["options"])
history = run.train()
if run.main:
    keys = ("loss", "grad_norm", "val_loss")
    print(json.dumps([[record.get(key) or 0.0 for key in keys] for record in history]))
"""
CONFIG = {
    "steps": 6, "batch_size": 5, "accumulate": 1, "block_size": 8, "warmup_steps": 2, "eval_every": 2, "save_every": 2,
    "device": "cpu", "precision": "float32", "progress": False,
}  # fmt: skip


def command(folder, ranks, how, *launcher):
    (folder / "train.py").write_text(SCRIPT)
    how = {"config": CONFIG, "options": {}} | how
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc-per-node", str(ranks), *launcher, "train.py", json.dumps(how)]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.ROOT)}


def torchrun(folder, ranks, how, *launcher):
    options = {"cwd": folder, "env": environment(), "capture_output": True, "text": True}
    return subprocess.run(command(folder, ranks, how, *launcher), timeout=90, **options)


def numbers(done):
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.tensor(json.loads(done.stdout.splitlines()[-1]))


@cache
def alone():
    """Return the losses of one process."""
    torch.manual_seed(0)
    tokens = torch.randint(31, (3000,), generator=torch.Generator().manual_seed(1))
    model = MiniGPT(GPTConfig(31, 16, 24, 2, 3))
    config = TrainConfig(**{**CONFIG, "save_every": 0})
    torch.set_num_threads(1)
    history = Trainer(model, config, tokens[:2500], tokens[2400:2600]).train()
    keys = ("loss", "grad_norm", "val_loss")
    return torch.tensor([[record.get(key) or 0.0 for key in keys] for record in history])


def equal(found):
    torch.testing.assert_close(found, alone(), rtol=3e-6, atol=3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_four_ranks_then_two_are_one_process(tmp_path, parallel):
    options = {"parallel": parallel, "folder": "run", "existing": "resume"}
    first = {**CONFIG, "steps": 6}
    dies = {"options": options, "config": first, "what": "dies", "at": 5}
    done = torchrun(tmp_path, 4, dies)
    assert done.returncode != 0
    report = done.stderr[done.stderr.index("Root Cause") :]
    assert "rank      : 3" in report and "exitcode  : -9" in report, report
    assert re.search(r"RankLost: rank \d of 4, after step 5: another rank died", done.stderr)
    assert 'Saved in run: existing="resume" goes on from there' in done.stderr
    done = torchrun(tmp_path, 2, {"options": options})
    equal(numbers(done))
    assert "from step 4 to 6" in done.stdout
    assert MiniGPT.from_pretrained(tmp_path / "run" / "last").config.n_embd == 24


@pytest.mark.slow
def test_torchrun_restarts_a_run_that_lost_a_rank(tmp_path):
    options = {"parallel": "fsdp", "folder": "run", "existing": "resume"}
    how = {"options": options, "what": "dies", "at": 3}
    done = torchrun(tmp_path, 2, how, "--max-restarts", "1")
    equal(numbers(done))
    assert "from step 0 to 6" in done.stdout and "from step 2 to 6" in done.stdout


@pytest.mark.slow
def test_a_rank_that_hangs_is_an_error_after_the_timeout(tmp_path):
    began = time.monotonic()
    done = torchrun(tmp_path, 2, {"options": {"timeout": 3}, "what": "hangs", "at": 3})
    assert done.returncode != 0 and time.monotonic() - began < 50
    assert "RankLost: rank 0 of 2, after step 3" in done.stderr
    assert "Timed out waiting 3000ms" in done.stderr


@pytest.mark.slow
def test_ctrl_c_saves_the_same_step_on_all_ranks(tmp_path):
    options = {"folder": "run", "existing": "resume"}
    config = {**CONFIG, "save_every": 100}
    how = {"options": options, "config": config, "what": "is interrupted"}
    place = {"cwd": tmp_path, "env": environment(), "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    run = subprocess.Popen(command(tmp_path, 2, how), **place, **pipes)
    for line in run.stdout:
        if line == "step 2\n":
            run.send_signal(signal.SIGINT)
            break
    run.communicate(timeout=60)
    facts = json.loads((tmp_path / "run" / "last" / "checkpoint.json").read_text())
    assert facts["step"] == 3, "the wish travels with the next step"
    done = torchrun(tmp_path, 2, {"options": options, "config": {**config, "eval_every": 2}})
    equal(numbers(done))
    assert f"from step {facts['step']} to 6" in done.stdout


@pytest.mark.slow
def test_ctrl_c_before_the_training_is_told_once(tmp_path):
    (tmp_path / "a.txt").write_text("To be or not to be.\n\n" * 200_000)
    given = ["--data", "a.txt", "--folder", "run", "--vocab-size", "270", "--num-proc", "1"]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    launch += ["-m", "minigpt_lib.scaling", *given, "--shard-chars", "20_000", "--no-progress"]
    place = {"cwd": tmp_path, "env": environment(), "text": True, "start_new_session": True}
    run = subprocess.Popen(launch, **place, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list(tmp_path.glob("run/data/train-*")) and run.poll() is None:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does; torchrun passes it on once more
    out, errors = run.communicate(timeout=60)
    assert errors.count("stopped: the same command goes on from here.") == 1, errors
    assert run.returncode != 0 and out == ""


# --- estimators ---


@given(st.integers(0, 200), st.integers(1, 40))
def test_shares_are_complete_and_in_order(n, world):
    shares = [share_of(n, rank, world) for rank in range(world)]
    assert [i for share in shares for i in share] == list(range(n))
    assert len({len(share) for share in shares if len(share)}) <= 2


@given(
    st.floats(0.1, 1e4), st.floats(0.1, 1e4), st.floats(0.1, 1.2), st.floats(0.1, 1.2), st.floats(1e6, 1e26),
    st.floats(0.2, 5.0).filter(lambda f: abs(f - 1) > 0.01),
)  # fmt: skip
def test_no_other_size_of_the_same_budget_is_better(A, B, alpha, beta, flops, factor):
    law = LossLaw(0.0, A, B, alpha, beta)
    n, d = law.optimal(flops)
    assert 6 * n * d == pytest.approx(flops)
    assert law.predict(n, d) <= law.predict(n * factor, d / factor) * (1 + 1e-9)


CONFIGS = st.builds(
    lambda heads, width, layers, vocab, kv, preset: GPTConfig.preset(
        preset, n_embd=8 * heads * width, n_head=heads, n_layer=layers, vocab_size=vocab, n_kv_head=heads if kv else 1,
        max_seq_len=16, ffn_hidden=24,
    ),
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(5, 90), st.booleans(),
    st.sampled_from(["laptop", "gpt2_124m", "fineweb_44m"]),
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(CONFIGS, st.integers(1, 9))
def test_shards_add_up_and_more_ranks_never_need_more(config, ranks):
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in MiniGPT(config).parameters())
    one = memory_per_rank(config, 1, "fsdp", precision="float32")
    many = memory_per_rank(config, ranks, "fsdp", precision="float32")
    assert one["weights"] == one["gradients"] == one["optimizer"] / 2 == 4 * weights
    assert weights * 4 <= many["weights"] * ranks and many["weights"] <= one["weights"]
    assert many["copies"] == one["copies"] <= 4 * weights
    whole = memory_per_rank(config, ranks, "fsdp", precision="float32", reshard=False)
    assert whole["copies"] == 4 * weights
    saved = memory_per_rank(config, ranks, "fsdp", precision="float32", recompute=True)
    if config.n_layer > 1:
        assert saved["activations"] < many["activations"]


@settings(deadline=None, max_examples=40)
@given(CONFIGS, st.integers(1, 9), st.integers(1, 5))
def test_traffic_grows_with_ranks_and_micro_batches(config, ranks, micro):
    ddp = traffic_per_step(config, ranks, micro_batches=micro)
    assert ddp == traffic_per_step(config, ranks) <= traffic_per_step(config, ranks + 1)
    fsdp = traffic_per_step(config, ranks, "fsdp", micro_batches=micro)
    assert fsdp >= traffic_per_step(config, ranks, "fsdp", micro_batches=micro, reshard=False)
    assert fsdp <= traffic_per_step(config, ranks, "fsdp", micro_batches=micro + 1)
    assert (ranks > 1) == (fsdp > 0) == (ddp > 0)


def test_published_figures():
    llama = GPTConfig.preset("llama3_8b")
    assert pytest.approx(3.14e23, rel=0.01) == 6 * 174.6e9 * 300e9  # GPT-3, appendix D
    assert pytest.approx(3.8e25, rel=0.01) == 6 * 405e9 * 15.6e12  # Llama 3 405B
    assert BESIROGLU.optimal(5.76e23)[0] == pytest.approx(70e9, rel=0.05)  # Chinchilla
    assert HOFFMANN.optimal(5.76e23)[0] == pytest.approx(
        32e9, rel=0.02
    )  # its own law: not Chinchilla
    hours = plan(llama, 15e12, 8)["gpu_hours"]
    assert 1.3e6 / hours == pytest.approx(
        2.13, abs=0.02
    )  # the model card's hours are not explained
    published = 1.3e6 * 3600 * GPUS["H100 SXM"].flops
    assert 15e12 * flops_per_token(llama) / published == pytest.approx(0.19, abs=0.005)


def test_the_scaling_law_has_all_its_points():
    path = paths.ROOT / "benchmarks" / "results" / "scaling_law.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    points = {(run["weights"], run["tokens"]) for run in runs}
    sizes, budgets = ({point[i] for point in points} for i in (0, 1))
    assert len(sizes) >= 5 and len(budgets) >= 3 and len(points) == len(sizes) * len(budgets)
    assert all(1.4 < run["loss"] < 2.6 for run in runs)


# --- faults: each must be noticed by the chapter's own check of that name ---

FAULTS = {
    "shares rounded down": ("size = -(-n // world)", "size = max(1, n // world)", "shares are"),
    "shares of another rank": ("min(rank * size, n), min(", "min((world - 1 - rank) * size, n), min(", "shares are"),
    "no room for the dead": ('os.environ.get("GROUP_WORLD_SIZE") == "1"', "False", "joining"),
    "the usual timeout": ('"timeout": wait}', '"timeout": None}', "joining"),
    "every rank keeps its own weights": (
        "if dist.get_rank() == 0:\n        whole",
        "if dist.get_rank() == 9:\n        whole",
        "shards: rows",
    ),
    "blocks are no units": (
        "for block in model.blocks:\n        fully_shard",
        "for block in ():\n        fully_shard",
        "the bytes of a step",
    ),
    "half precision for the sums": ("reduce_dtype=torch.float32", "reduce_dtype=None", "the bytes of a step"),
    "always float32": ("param_dtype=PRECISIONS[precision]", "param_dtype=torch.float32", "shards: rows"),
    "always resharded": ("reshard_after_forward=reshard", "reshard_after_forward=True", "shards: rows"),
    "the gradients not summed": ("(part * self.world).backward()", "part.backward()", "W ranks are"),
    "a mean of means": (
        "count / max(counted, 1)",
        "count / max(self.world * sum(n for n, _ in batches), 1)",
        "W ranks are",
    ),
    "everyone reads everything": (
        "share_of(len(drawn[0]), self.rank, self.world)",
        "share_of(len(drawn[0]), 0, 1)",
        "W ranks are",
    ),
    "the rank's own loss": ("return self._sum(loss.item())[0], norm", "return loss.item(), norm", "W ranks are"),
    "options left behind": ("for named in options", "for named in ()", "W ranks are"),
    "idle ranks count": ("if rows else 0, batch))", "if rows else 1, batch))", "W ranks are"),
    "validated by one rank": (
        "share = share_of(len(windows), self.rank, self.world)",
        "share = share_of(len(windows), 0, self.world)",
        "W ranks are",
    ),
    "validated twice": (
        "total += loss * int((y != -100).sum()) if mine else 0.0",
        "total += loss * int((y != -100).sum())",
        "W ranks are",
    ),
    "blocks stay in training": (
        "        self.model.eval()\n        for start",
        "        for start",
        "precision, dropout",
    ),
    "talkative": ("return self.engine.no_sync()", "return contextlib.nullcontext()", "the bytes of a step"),
    "talkative shards": (
        "set_requires_gradient_sync(last)",
        "set_requires_gradient_sync(True)",
        "the bytes of a step",
    ),
    "the same dropout": (
        "torch.manual_seed(config.seed + 2**32 * self.rank + self.step)",
        "pass",
        "precision, dropout",
    ),
    "one stops alone": ("self._agreed = value and self._agreed", "self._agreed = value", "precision, dropout"),
    "everyone writes samples": (
        'return sample(model) if self.main else ""',
        "return sample(model)",
        "precision, dropout",
    ),
    "samples of different luck": (
        "            torch.manual_seed(self.config.seed + self.step)  #",
        "            #",
        "precision, dropout",
    ),
    "Ctrl-C twice": (
        "        self.stop_asked = True",
        "        super()._interrupted(number, frame)",
        "precision, dropout",
    ),
    "shards not verified": ("        if digest != sums[name]:", "        if False:", "checkpoints"),
    "an optimizer that forgets": ("optim_state_dict=optimizer", "optim_state_dict={}", "checkpoints"),
    "any error is a lost rank": (
        'if not (isinstance(error, dist.DistError) or "gloo" in str(error)):',
        "if False:",
        "a rank that dies",
    ),
    "no advice": ("torchrun --max-restarts 3 does so", "somebody does so", "a rank that dies"),
    "backward forgotten": ("return 6 * matrix_weights", "return 2 * matrix_weights", "FLOPs of forward"),
    "attention forgotten": ("+ 12 * config.n_layer", "+ 0 * config.n_layer", "FLOPs of forward"),
    "exponents swapped": (
        "** (self.beta / (self.alpha + self.beta))",
        "** (self.alpha / (self.alpha + self.beta))",
        "the law, its",
    ),
    "the promise of the data sheet": ("/ (gpus * peak * utilisation)", "/ (gpus * peak)", "FLOPs and hours"),
    "half a ring": ("return 2 * (ranks - 1)", "return (ranks - 1)", "the bytes of a step"),
    "gathered once": ("(inside if reshard else 0)", "0", "the bytes of a step"),
    "norms keep half": ("norm = 2 * size * (C + 1)", "norm = size * (C + 1)", "memory of a rank"),
    "one mean": ('"optimizer": 8 * kept', '"optimizer": 4 * kept', "memory of a rank"),
    "euros of one GPU": ("24 * days * gpus * euros_per_hour", "24 * days * euros_per_hour", "a plan is"),
    "too seldom": ("math.sqrt(2 * write * mtbf)", "math.sqrt(4 * write * mtbf)", "the interval"),
    "nothing done twice": ("(interval / 2 + restart)", "restart", "the interval"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_check(tmp_path, fault):
    before, after, title = FAULTS[fault]
    assert not survives("18", tmp_path, before, after, title)


# --- the planner and its twin ---


@cache
def knobs():
    return planner_data()


def test_the_planner_says_what_the_library_says():
    data = knobs()
    for model, fleet, sharing in product((1, 3), (0, 3, 6), (0, 1)):
        preset = {1: "gpt2_124m", 3: "llama3_8b"}[model]
        how, gpus = data["sharing"][sharing], data["fleets"][fleet]
        found = compute(data, model, 2, 4, fleet, sharing)
        expected = plan(GPTConfig.preset(preset), data["tokens"][4], gpus, parallel=how)
        for key in ("days", "euros", "memory", "flops"):
            assert found[key] == pytest.approx(expected[key])
        assert found["sends"] == pytest.approx(expected["bandwidth"])


def test_limits_come_in_order():
    assert "fit" in limits({"fits": 1.1, "batch": 2, "sent": 2})
    assert "batch" in limits({"fits": 1.0, "batch": 2, "sent": 2})
    assert "network" in limits({"fits": 1.0, "batch": 1, "sent": 2})
    assert "Computing" in limits({"fits": 1.0, "batch": 1, "sent": 1.0})


def test_the_twin_says_and_draws_the_same():
    keys = ("model", "gpu", "tokens", "fleet", "sharing")
    places = list(product(range(6), range(4), (0, 3, 9), range(0, 10, 3), (0, 1)))
    states = [dict(zip(keys, place, strict=True)) for place in places]
    expression = "data.states.map((s) => [m.describe(data.knobs, s), m.draw(data.knobs, s)])"
    theirs = in_node("run-planner.js", expression, {"knobs": knobs(), "states": states})
    assert theirs == [[describe(knobs(), *place), draw(knobs(), *place)] for place in places]


def test_the_widget_answers_its_controls():
    *controls, view = planner(knobs()).children
    assert "Llama 3 8B on 15.0 trillion tokens" in view.value and "1024 × H100 SXM" in view.value
    for control, value in zip(controls, (0, 0, 1, 0, 0), strict=True):
        control.value = value
    assert "MiniGPT 44M on 1.0 billion tokens" in view.value and "1 × RTX 4090" in view.value
    assert "Computing is the limit" in view.value
