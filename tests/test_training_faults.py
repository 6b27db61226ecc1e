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
    "the mean of the micro-batches' means": ("(count / sum(counts))", "(1 / len(counts))"),
    "-100 is counted": ("int((batch[1] != -100).sum())", "batch[1].numel()"),
    "options are dropped": ("self.forward(x, y, **options)", "self.forward(x, y)"),
    "options are dropped in 16 bits": ("copy, (x, y), options)", "copy, (x, y))"),
    "the state of the reader is not restored": ("self.draw.load_state_dict(place)", "pass"),
    "another kind of run is resumed": ("if keeps_place != bool(place):", "if False:"),
    "every process prints": (
        "if self.main:\n            steps =",
        "if True:\n            steps =",
    ),
    "all processes write the history": (
        "if self.path is not None and self.writes:\n                self.path.mkdir",
        "if self.path is not None:\n                self.path.mkdir",
    ),
    "gradients are never cleared": (
        "self.optimizer.zero_grad(set_to_none=True)\n\n        batches",
        "pass\n\n        batches",
    ),
    "the schedule advances with each micro-batch": (
        "if self.scaler.get_scale() >= scale:\n            self.scheduler.step()",
        "if self.scaler.get_scale() >= scale:\n"
        "            [self.scheduler.step() for _ in range(self.config.accumulate)]",
    ),
    "the schedule advances when a step is skipped": (
        "if self.scaler.get_scale() >= scale:",
        "if True:",
    ),
    "clipped before unscaling": ("self.scaler.unscale_(self.optimizer)", "pass"),
    "no clipping": ("clip(self.model, self.config.clip)", "clip(self.model, 1e9)"),
    "weights change before the loss is checked": (
        "            self._refuse_bad(record, batches)\n            self._move()",
        "            self._move()\n            self._refuse_bad(record, batches)",
    ),
    "evaluated in float32": ("loss_of=run.loss)", "loss_of=None)"),
    "no dropout in training": ("        self.model.train()\n", "        self.model.eval()\n"),
    "the best loss is wrong": ("self.best = min(self.best,", "self.best = max(0,"),
    "the best model is not kept": ('self.save("best")', "pass"),
    "the optimizer is not restored": (
        'run.optimizer.load_state_dict(facts["state"]["optimizer"])',
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
        'part = folder.with_name(f"{folder.name}.part")',
        "part = folder",
    ),
    "the last good checkpoint is removed first": (
        "    if folder.exists():  # else `old`, if there is one, is the last good one\n        shutil",
        "    shutil.rmtree(old, ignore_errors=True)\n    if folder.exists():\n        shutil",
    ),
    "checksums are not compared": (
        'if f"{sha256(folder / name)}  {name}" not in sums:',
        "if False:",
    ),
    "the model's config is not compared": (
        '        _refuse_difference(folder, saved, dataclasses.asdict(model.config), "this model has")\n',
        "",
    ),
    "other settings are accepted": ("if train is not None:", "if False:"),
    "a second Ctrl-C is ignored": (
        "stops_at_once:\n            raise KeyboardInterrupt\n",
        "stops_at_once:\n            return\n",
    ),
    "a swallowed Ctrl-C is lost": ("self.stop_asked = interrupted()", "self.stop_asked = False"),
    "the signal handler stays": (
        "finally:\n        signal.signal(signal.SIGINT, before)",
        "finally:\n        pass",
    ),
    "the weights are in bfloat16": (
        "return model.to(device)",
        "return model.bfloat16()",
    ),
    "no copy of the weights in 16 bits": (
        'if self.device == "cpu":  # casting',
        "if False:  # casting",
    ),
    "one high loss stops the run": ("_PATIENCE = 10", "_PATIENCE = 1"),
    "a high loss never stops the run": ("self._high >= _PATIENCE:", "False:"),
    "the high losses count as usual": (
        "before = losses[-n - _USUAL : -n]",
        "before = losses[-n - _USUAL :]",
    ),
    "any number of usual losses": ("losses[-n - _USUAL : -n]", "losses[:-n]"),
    "a checkpoint is written amid high losses": ("(not self._high or", "(True or"),
    "a checkpoint that was due is forgotten": (
        "self._unsaved = self._unsaved or self._due",
        "self._unsaved = self._due",
    ),
    "the error does not say which data": ("self._suspect = self._describe(batches)", "pass"),
    "the error does not ask draw": (
        "            self._drawn.append(self.draw.describe())",
        "            pass",
    ),
    "draw is quoted for all steps": ("self._drawn.clear()", "pass"),
    "a step without targets moves the weights": (
        "        self.optimizer.zero_grad(set_to_none=True)\n        self.optimizer.step()  # moves",
        "        self._move()  # moves",
    ),
    "the schedule waits in a step without targets": (
        "        self.optimizer.step()  # moves nothing, but the schedule counts the step\n"
        "        self.scheduler.step()",
        "        pass",
    ),
    "a loss of 0 in the mean": (
        'losses = [past["loss"] for past in recent if "skipped" not in past]',
        'losses = [past["loss"] for past in recent]',
    ),
    "data of a skipped step are not drawn": (
        "return self.processes.draw(self)",
        "return [] if self._skips() else self.processes.draw(self)",
    ),
    "steps to skip are forgotten": ("self.skip |= kept", "pass"),
    "a step of the past may be skipped": ("        if late:", "        if False:"),
    "a refused checkpoint changes the model": (
        "    if check is not None:\n        check(facts)\n",
        '    if model is not None:\n        model.load_state_dict(load_file(folder / "model.safetensors"))\n'
        "    if check is not None:\n        check(facts)\n",
    ),
    "any setting may change": ("        if unknown:", "        if False:"),
    "a change of the rate is not carried out": (
        'group["initial_lr"] *= c.lr / saved["lr"]',
        "pass",
    ),
    "the rate changes a step late": (
        '            group["lr"] = group["initial_lr"] * share(self.scheduler.last_epoch)\n',
        "",
    ),
    "the schedule keeps the old rate": ("self.scheduler.base_lrs = [", "_ = ["),
    "norms decay after a change": (' and group["weight_decay"]:', ":"),
    "changes are not noted in the checkpoint": ('"changes": self.changes,', ""),
    "changes are not noted in the history": ('self._news = {"changed": changed}', "pass"),
    "a file is written in place": ('part = path.with_name(f"{path.name}.part")', "part = path"),
    "a torn file is left behind": ("        part.unlink(missing_ok=True)\n", ""),
    "a file is renamed before it is on the disk": ("        _flush(part)\n", ""),
    "a new name is not on the disk": ("    _flush_names(path.parent)\n", ""),
    "the older checkpoint goes before the new name is on the disk": (
        "    _flush_names(folder.parent)  # before the older checkpoint goes\n",
        "",
    ),
    "the unmeasured precision": ("faster = exact >= 1.2 * half", "faster = True"),
    "bfloat16 where it is hardly faster": ("exact >= 1.2 * half", "exact >= half"),
    "measured on other shapes": (
        'seconds_of("bfloat16", rows, width)',
        'seconds_of("bfloat16", width, rows)',
    ),
    "measured again and again": ("@functools.cache\n", ""),
    "the whole of a large shape is measured": ("min(rows, most // (4 * width * width))", "rows"),
    "a process that only looks deletes": (
        "for path in self._files() if self.writes else []:",
        "for path in self._files():",
    ),
    "two runs write at once": (
        "self.files.alone(),\n            self.processes.watch(self),",
        "self.processes.watch(self),",
    ),
    "another run is taken up while it is at work": (
        "            with self.files.alone():\n                self._resume",
        "            if True:\n                self._resume",
    ),
    "a run at work is deleted": (
        "        with self.alone():\n            for path",
        "        if True:\n            for path",
    ),
    "a folder takes two processes": (
        "held = FileLock(folder / name).acquire(timeout=0)",
        "held = contextlib.nullcontext()",
    ),
    "all locks of a folder are one": ("FileLock(folder / name)", 'FileLock(folder / ".lock")'),
    "a folder that cannot be made is not named": (
        "    with writing_in(folder):\n        folder.mkdir",
        "    if True:\n        folder.mkdir",
    ),
    "a file in the place of a folder is taken for a full disk": (
        "except (FileExistsError, NotADirectoryError) as error:",
        "except ZeroDivisionError as error:",
    ),
    "what another run has written is not noticed": ('not in ("", self._known)', "is None"),
    "a run does not know what it has written itself": (
        "self._known = self._diary_sum()\n\n    def",
        "pass\n\n    def",
    ),
    "a model is deleted unasked": ('elif self.existing == "replace":', "else:"),
    "no numbers of one's own": (
        "            extras = extras | self.observe(self)",
        "            self.observe(self)",
    ),
}


def check_that_notices(folder, before="", after=""):
    """Return the cell of a check that fails, or None; functions of set-up cells see the faulty module too."""
    return noticed_by("10", folder, before, after, in_setup=True)


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert check_that_notices(tmp_path) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert check_that_notices(tmp_path, *FAULTS[fault]) is not None
