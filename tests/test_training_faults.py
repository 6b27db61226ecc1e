"""Chapter 10: its checks accept the module and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import noticed_by

FAULTS = {
    "no bias correction": ('m = state["m"] / (1 - beta1 ** state["step"])', 'm = state["m"]'),
    "decay in the gradient": (
        'weight.mul_(1 - lr * group["weight_decay"])',
        'm = m + group["weight_decay"] * weight',
    ),
    "eps under the root": ('(v.sqrt() + group["eps"])', '(v + group["eps"]).sqrt()'),
    "norms decay": ("if w.ndim >= 2]", "]"),
    "the first step has a learning rate of 0": (
        "return (step + 1) / warmup_steps",
        "return step / warmup_steps",
    ),
    "the floor is never reached": ("total_steps - 1 - warmup_steps", "total_steps - warmup_steps"),
    "the mean of the micro-batches' means": ("(count / sum(counted))", "(1 / len(counted))"),
    "-100 is counted": ("int((batch[1] != -100).sum())", "batch[1].numel()"),
    "options are dropped": ("self.forward(x, y, **options)", "self.forward(x, y)"),
    "options are dropped in 16 bits": ("copy, (x, y), options)", "copy, (x, y))"),
    "the state of the reader is not restored": ('self.draw.load_state_dict(state["draw"])', "pass"),
    "all processes write the history": (
        "if self.run.folder and self.run.main:",
        "if self.run.folder:",
    ),
    "gradients are never cleared": ("self.optimizer.zero_grad(set_to_none=True)", "pass"),
    "the schedule advances with each micro-batch": (
        "            self.scheduler.step()",
        "            [self.scheduler.step() for _ in range(self.config.accumulate)]",
    ),
    "the schedule advances when a step is skipped": (
        "if self.scaler.get_scale() >= scale:",
        "if True:",
    ),
    "clipped before unscaling": ("self.scaler.unscale_(self.optimizer)", "pass"),
    "no clipping": ("(self.model.parameters(), c.clip)", "(self.model.parameters(), 1e9)"),
    "weights change before the loss is checked": (
        "        _refuse_bad(self, record)\n        scale",
        "        self.optimizer.step()\n        _refuse_bad(self, record)\n        scale",
    ),
    "evaluated in float32": ("loss_of=self._loss)", "loss_of=None)"),
    "no dropout in training": ("        self.model.train()\n", "        self.model.eval()\n"),
    "the best loss is wrong": ("self.best = min(before,", "self.best = max(0 * before or 0,"),
    "the optimizer is not restored": (
        'self.optimizer.load_state_dict(facts["state"]["optimizer"])',
        "pass",
    ),
    "the schedule is not restored": ("self.scheduler.load_state_dict(", "dict("),
    "the generator of the batches is not restored": (
        'self.generator.set_state(state["data"])',
        "pass",
    ),
    "torch's random state is not restored": ('torch.set_rng_state(states["torch"])', "pass"),
    "Python's random state is not restored": ('random.setstate(states["python"])', "pass"),
    "NumPy's random state is not restored": ("numpy.random.set_state((name,", "str((name,"),
    "the scaler is not restored": ('self.scaler.load_state_dict(state["scaler"])', "pass"),
    "a checkpoint without a scaler is not accepted": ('if state["scaler"]:', "if True:"),
    "the history is not cut back": ('if record["step"] <= last_step]', "]"),
    "a checkpoint is written in place": (
        'part, old = (folder.with_name(f"{folder.name}.{end}") for end in ("part", "old"))',
        'part, old = folder, folder.with_name(f"{folder.name}.old")',
    ),
    "the last good checkpoint is removed first": (
        "    if folder.exists():  # else `old`, if there is one, is the last good one\n        shutil",
        "    shutil.rmtree(old, ignore_errors=True)\n    if folder.exists():\n        shutil",
    ),
    "checksums are not compared": (
        'if f"{_sha256(folder / name)}  {name}" not in sums:',
        "if False:",
    ),
    "the model's config is not compared": (
        '        _refuse_difference(folder, saved, dataclasses.asdict(model.config), "model")\n',
        "",
    ),
    "other settings are accepted": ("if train is not None:", "if False:"),
    "a second Ctrl-C is ignored": (
        "        if self.stop_asked:\n            raise KeyboardInterrupt\n",
        "        if self.stop_asked:\n            return\n",
    ),
    "a swallowed Ctrl-C is lost": ("self.stop_asked = interrupted()", "self.stop_asked = False"),
    "the signal handler stays": (
        "finally:\n        signal.signal(signal.SIGINT, before)",
        "finally:\n        pass",
    ),
    "the weights are in bfloat16": (
        "self.model = model.to(self.device)",
        "self.model = model.bfloat16()",
    ),
    "no copy of the weights in 16 bits": (
        'if self.device == "cpu" and dtype != torch.float32:',
        "if False:",
    ),
}


def check_that_notices(folder, before="", after=""):
    """Return the cell of a check that fails, or None; functions of set-up cells see the faulty module too."""
    return noticed_by("10", folder, before, after, in_setup=True)


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert check_that_notices(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert check_that_notices(tmp_path, *FAULTS[fault]) is not None
