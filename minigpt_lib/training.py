"""Train a model: micro-batches, mixed precision, runs that stop in time and can be resumed.

Shapes: B = batch size, T = sequence length, V = vocabulary size. Losses are nats per token. A *step* is
one update of the weights; it may add up the gradients of several micro-batches.

Written by notebooks/10_training.ipynb (chapter 10): edit it there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import math
import random
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from minigpt_lib.baselines import bits_per_char, evaluate_loss, evaluating
from minigpt_lib.checkpoints import (
    atomic_write,
    find_checkpoint,
    load_checkpoint,
    locked,
    save_checkpoint,
    sha256,
)
from minigpt_lib.data import get_batch
from minigpt_lib.model import MiniGPT
from minigpt_lib.optimizer import get_cosine_schedule_with_warmup, param_groups

__all__ = [
    "PRECISIONS",
    "accumulate_gradients",
    "Alone",
    "Batch",
    "choose_device",
    "choose_precision",
    "interrupted",
    "on_interrupt",
    "Record",
    "RunFolder",
    "time_product",
    "TrainConfig",
    "Trainer",
    "TrainingStopped",
]

Batch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, dict[str, Tensor]]  # x, y, perhaps options


def accumulate_gradients(
    loss_of: Callable[..., Tensor],
    batches: Sequence[Batch],
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Tensor:
    """Add up the gradients of micro-batches as if they were one batch; return its mean loss, a scalar.

    loss_of(*batch) returns the mean loss of a micro-batch (x, y, ...) over its targets y other than
    -100. All these targets count the same, however they are spread. Without any, the loss is 0 and no
    gradient is computed. scale(loss): what to call backward on.
    """
    counts = [_count_targets(batch) for batch in batches]
    total = torch.zeros(())
    for batch, count in zip(batches, counts, strict=True):
        if count:
            part = loss_of(*batch) * (count / sum(counts))
            scale(part).backward()
            total = total + part.detach()
    return total


def _count_targets(batch: Batch) -> int:
    """Return how many targets of a micro-batch (x, y, ...) count: those other than -100."""
    return int((batch[1] != -100).sum())


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str = "auto") -> str:
    """Return the device asked for, or for "auto" the first that there is: "cuda", "mps", "cpu"."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def time_product(precision: str, rows: int, width: int) -> float:
    """Return the seconds that a linear layer takes on the CPU: (rows, width) to (rows, 4 * width).

    The weight is kept in float32 and cast first, as in a training step. The fastest of four, measured
    once per process; large shapes are measured on fewer rows, so that it stays a matter of milliseconds.
    """
    most = 2**27  # multiplications: about 4 ms on one core of an AMD EPYC in float32
    rows = max(1, min(rows, most // (4 * width * width)))
    kind = PRECISIONS[precision]
    x = torch.zeros(rows, width, dtype=kind)
    weight = torch.zeros(4 * width, width)

    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        torch.nn.functional.linear(x, weight.to(kind))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def choose_precision(
    device: str,
    precision: str = "auto",
    rows: int = 1024,
    width: int = 128,
    seconds_of: Callable[[str, int, int], float] = time_product,
) -> tuple[str, str]:
    """Return (precision, reason) for a device.

    On a CPU, "auto" measures: bfloat16 must be 1.2 times as fast as float32 in a layer of this width
    (the model's n_embd) on this many rows (tokens in a micro-batch). seconds_of(precision, rows, width)
    measures. Raises ValueError for a name that is not in PRECISIONS.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r}: expected auto, {', '.join(PRECISIONS)}.")
        return precision, "as asked"

    if device == "cpu":
        exact = seconds_of("float32", rows, width)
        half = seconds_of("bfloat16", rows, width)
        figures = f"{1e3 * exact:.2g} ms in float32, {1e3 * half:.2g} ms in bfloat16"
        faster = exact >= 1.2 * half  # the rest of a step gains less than its products
        return "bfloat16" if faster else "float32", f"a layer takes {figures}"

    if not device.startswith("cuda"):
        return "float32", "half precision gains little or nothing on this device"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", "this GPU multiplies it much faster, and it has the range of float32"
    return "float16", "this GPU has no bfloat16; small gradients are saved by scaling the loss"


def _refuse_invalid(config: "TrainConfig") -> None:
    """Raise ValueError for settings with which no run can work, quoting them."""
    for name in ("steps", "batch_size", "block_size", "accumulate"):
        _refuse_unless_whole(name, getattr(config, name), 1)
    for name in ("warmup_steps", "eval_every", "sample_every", "save_every"):
        _refuse_unless_whole(name, getattr(config, name), 0)
    if config.warmup_steps >= config.steps:
        raise ValueError(
            f"warmup_steps={config.warmup_steps} leaves nothing of steps={config.steps}: both count "
            "optimizer steps, and the warm-up is the shorter."
        )

    for name in ("lr", "clip", "chars_per_token"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name}={getattr(config, name)!r}: expected a number above 0.")
    for name in ("min_lr_ratio", "weight_decay"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name}={getattr(config, name)!r}: expected a number from 0 to 1.")
    if config.eval_tokens is not None and config.eval_tokens < 2:
        raise ValueError(f"eval_tokens={config.eval_tokens}: expected 2 or more, or None.")
    if config.precision != "auto":
        choose_precision("cpu", config.precision)  # raises for an unknown name


def _refuse_unless_whole(name: str, value: object, low: int) -> None:
    if type(value) is not int or value < low:
        raise ValueError(f"{name}={value!r}: expected a whole number of at least {low}.")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run, checked: raises ValueError for invalid ones, quoting them.

    Fields ending in `steps` or `_every` count optimizer steps; `_every=0` disables. The end of a run
    always counts as due.
    """

    steps: int = 1000  # updates of the weights
    batch_size: int = 16  # texts in a micro-batch
    block_size: int = 64  # tokens in a text
    accumulate: int = 1  # micro-batches in a step
    lr: float = 2.5e-3  # the learning rate at its highest
    min_lr_ratio: float = 0.1  # what is left of it at the end
    warmup_steps: int = 100  # steps until the rate is at its highest
    weight_decay: float = 0.1  # for matrices only
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW's memory of gradients and of their squares
    clip: float = 1.0  # the largest norm that a gradient may have
    seed: int = 0  # decides the batches
    device: str = "auto"  # cuda, cuda:1, mps, cpu; auto: the first that there is
    precision: str = "auto"  # float32, bfloat16, float16; auto: what the device is good at
    compile: bool = False  # with torch.compile: pays in long runs
    eval_every: int = 100  # steps between evaluations
    eval_tokens: int | None = None  # how much of the validation text they read; None: all of it
    sample_every: int = 0  # steps between samples
    save_every: int = 0  # steps between checkpoints
    chars_per_token: float = 1.0  # turns losses into bits per character
    tensorboard: bool = False  # write TensorBoard's files too
    progress: bool = True  # show a bar, and print the samples

    def __post_init__(self) -> None:
        _refuse_invalid(self)


def _random_states() -> dict[str, Any]:
    """Return the state of every generator that a run may draw from, as tensors and plain values."""
    numpy_state: Any = numpy.random.get_state()  # a tuple; numpy types it as a dict or a tuple
    name, keys, *rest = numpy_state
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype("int64")), *rest),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore_random_states(states: dict[str, Any]) -> None:
    """Put the generators back to where _random_states found them; those of GPUs if there are as many."""
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    numpy.random.set_state((name, keys.numpy().astype("uint32"), *rest))
    if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


_USUAL = 20  # losses whose mean is the usual loss
_PATIENCE = 10  # steps with a high loss until a run is stopped


class TrainingStopped(RuntimeError):
    """A loss or gradient is not finite, or the loss stays high. The message says where, and what to do."""


def _high_losses(losses: Sequence[float]) -> int:
    """Return how many losses at the end are high, all of them at most _PATIENCE; 0 if the last is not.

    High is above twice the mean of the _USUAL losses before them, plus 1. A single hard batch is high
    once; after an explosion every loss is.
    """
    for n in range(min(_PATIENCE, len(losses) - 1), 0, -1):
        before = losses[-n - _USUAL : -n]
        if min(losses[-n:]) > 2 * sum(before) / len(before) + 1:
            return n
    return 0


def _likely_causes(config: TrainConfig, precision: str) -> list[str]:
    """Return what usually makes a run of these settings fail, a line each, with what to try."""
    causes = []
    if precision == "float16":
        causes.append("a value beyond float16's 65,504: use bfloat16 or float32")
    if config.warmup_steps < 10:
        causes.append(f"no warm-up to speak of (warmup_steps={config.warmup_steps})")
    if config.clip > 10:
        causes.append(f"gradients hardly clipped (clip={config.clip}; 1.0 is usual)")
    causes.append(f"a learning rate too high for this model (lr={config.lr}): try a third of it")
    causes.append("in code of your own: a log of 0, a division by 0, a row masked completely")
    return causes


class _RaiseAndRemember:
    """A handler for Ctrl-C that raises KeyboardInterrupt, and sets `pressed`."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        raise KeyboardInterrupt


def interrupted() -> bool:
    """Return whether Ctrl-C was pressed in the `with on_interrupt()` around us, although we still run.

    Python swallows an exception that is raised in a callback ("Exception ignored in ..."), and so do
    libraries that catch everything. Ask at a safe point, and such a press is not lost.
    """
    return getattr(signal.getsignal(signal.SIGINT), "pressed", False)


@contextlib.contextmanager
def on_interrupt(
    handler: Callable[[int, FrameType | None], object] | None = None,
) -> Iterator[None]:
    """Let Ctrl-C call handler(number, frame) inside this context; by default it raises KeyboardInterrupt.

    It works even where Ctrl-C was switched off: a shell does that to a command that a script starts
    with `&`, and every process started from there inherits it. Outside the main thread, where Python
    delivers no signals, nothing changes.
    """
    try:
        before = signal.signal(signal.SIGINT, handler or _RaiseAndRemember())
    except ValueError:  # not in the main thread
        yield
        return

    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


Record = dict[str, Any]  # what a run says about one step


class RunFolder:
    """Where a run keeps history.jsonl, one line for each step, and the checkpoints `last` and `best`.

    path=None keeps nothing. existing says what to do with a run that is there already: "refuse" raises
    FileExistsError, "resume" keeps it, "replace" deletes it when the new run begins. writes: whether
    this process may write there, or only look.
    """

    def __init__(
        self, path: str | Path | None = None, existing: str = "refuse", writes: bool = True
    ) -> None:
        if existing not in ("refuse", "resume", "replace"):
            raise ValueError(f"existing={existing!r}: expected refuse, resume or replace.")
        self.path = None if path is None else Path(path)
        self.existing = existing
        self.writes = writes
        if existing == "refuse" and self.path and self._files():
            raise FileExistsError(
                f'{path} holds a run already: existing="resume" goes on with it, '
                'existing="replace" deletes it; or choose another folder.'
            )
        self._known = self._diary_sum()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out of the folder in this context.

        Raises RuntimeError if another run is at work in the folder, or has been since this one looked.
        """
        if self.path is None or not self.writes:
            yield
            return

        with locked(self.path):
            if self._diary_sum() not in ("", self._known):
                raise RuntimeError(
                    f"another run has written to {self.path} since this Trainer was made. Make it again: "
                    "`existing` says what becomes of that run."
                )
            try:
                yield
            finally:
                self._known = self._diary_sum()

    def _diary_sum(self) -> str:
        """Return the checksum of history.jsonl, which every run changes; "" without one.

        Its time would tell too much: a Trainer that is made, and does not train, writes it anew as it was.
        """
        diary = self.path / "history.jsonl" if self.path else None
        return sha256(diary) if diary and diary.exists() else ""

    def checkpoint(self) -> Path | None:
        """Return the checkpoint `last` if there is one to resume from."""
        if self.path is None or self.existing == "replace":
            return None
        last = find_checkpoint(self.path / "last")
        return last if last.exists() else None

    def clear(self) -> None:
        """Delete what a new run would mix with: all of the old run, or a history without a checkpoint."""
        if not self._files():
            return
        with self.alone():
            for path in self._files() if self.writes else []:
                if path.suffix == ".jsonl":
                    path.unlink()
                elif self.existing == "replace":
                    shutil.rmtree(path)

    def _files(self) -> list[Path]:
        if self.path is None:
            return []
        names = ("last", "last.old", "best", "best.old", "history.jsonl")
        return [self.path / name for name in names if (self.path / name).exists()]

    def history(self, last_step: int) -> list[Record]:
        """Return the records up to last_step, and cut off what a killed run wrote after its checkpoint."""
        path = Path(self.path or ".") / "history.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        records = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):  # the last line may be torn
                records.append(json.loads(line))

        records = [record for record in records if record["step"] <= last_step]
        if self.writes:
            with atomic_write(path) as part:
                lines = [json.dumps(record) + "\n" for record in records]
                part.write_text("".join(lines), encoding="utf-8")
        return records

    @contextlib.contextmanager
    def diary(self, step: int, tensorboard: bool) -> Iterator[Callable[[Record], None]]:
        """Yield write(record), which appends to history.jsonl at once: a crash loses at most that line.

        tensorboard: write TensorBoard's files too, from the next step on. ImportError if it is missing.
        """
        with self._naming_full_disk(), contextlib.ExitStack() as files:
            board = None
            if tensorboard and self.writes:
                board = files.enter_context(contextlib.closing(_tensorboard(self.path, step + 1)))
            file = None
            if self.path is not None and self.writes:
                self.path.mkdir(parents=True, exist_ok=True)
                log = self.path / "history.jsonl"
                file = files.enter_context(log.open("a", encoding="utf-8"))

            def write(record: Record) -> None:
                if file is not None:
                    file.write(json.dumps(record) + "\n")
                    file.flush()
                if board is not None:
                    for name, value in record.items():
                        if isinstance(value, float):
                            board.add_scalar(name, value, record["step"])

            yield write

    @contextlib.contextmanager
    def _naming_full_disk(self) -> Iterator[None]:
        """Name the folder in the error of a full disk: the one that writing to an open file raises does not."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOSPC and error.filename is None:
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise


def _tensorboard(folder: Path | None, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard=True needs it: pip install tensorboard") from error
    return SummaryWriter(folder, purge_step=first_step)


class Alone:
    """How one process makes the steps of a run: Trainer's default for `processes`.

    Chapter 18 has others, with the same methods, for several processes that share each step.
    """

    main: bool = True  # of several processes, one prints and writes
    casts: bool = False  # whether the placed model computes in the run's precision by itself
    stops_at_once: bool = True  # whether a second Ctrl-C ends the process in the middle of a step

    def agree(self, value: Any) -> Any:
        """Return the main process's value on every process, once the main process has come this far."""
        return value

    def place(self, model: nn.Module, device: str, precision: str) -> nn.Module:
        """Return the model on this process's device."""
        return model.to(device)

    def engine(self, run: "Trainer") -> Callable[..., Tensor]:
        """Return loss_of(*batch) for the steps of a run that is otherwise ready, new or resumed."""
        return run.loss

    def draw(self, run: "Trainer") -> list[Batch]:
        """Return this process's micro-batches of a step."""
        return [run.draw_batch() for _ in range(run.config.accumulate)]

    def gradients(self, run: "Trainer", batches: Sequence[Batch]) -> tuple[float, int, int]:
        """Put the gradients of a step in place; return its mean loss, its targets, the tokens read."""
        loss = accumulate_gradients(run.loss_of, batches, run.scaler.scale)
        targets = sum(_count_targets(batch) for batch in batches)
        return loss.item(), targets, sum(batch[0].numel() for batch in batches)

    def clip(self, model: nn.Module, norm: float) -> float:
        """Scale the gradients down to this norm if theirs is larger; return theirs."""
        return nn.utils.clip_grad_norm_(model.parameters(), norm).item()

    def stops(self, asked: bool) -> bool:
        """Return whether the run stops now. asked: whether this process was asked to stop it."""
        return asked

    def watch(self, run: "Trainer") -> contextlib.AbstractContextManager[object]:
        """Return a context for the loop; chapter 18 notices in it that another process died."""
        return contextlib.nullcontext()

    def save(self, folder: Path, run: "Trainer") -> None:
        """Write a checkpoint of the run."""
        state = {"optimizer": run.optimizer.state_dict(), **run.state()}
        save_checkpoint(folder, run.model, state, **run.facts())

    def load(
        self,
        folder: Path,
        run: "Trainer",
        check: Callable[[dict[str, Any]], object],
        **options: Any,
    ) -> dict[str, Any]:
        """Load weights and optimizer from a checkpoint that check(facts) accepts; return its facts.

        options: those of load_checkpoint.
        """

        def is_ours(facts: dict[str, Any]) -> None:
            if "optimizer" not in facts["state"]:
                raise ValueError(
                    f"{folder} was saved by another kind of trainer: resume with that one."
                )
            check(facts)

        facts = load_checkpoint(folder, run.model, check=is_ours, **options)
        run.optimizer.load_state_dict(facts["state"]["optimizer"])
        return facts


# What may always differ when a run is resumed: where and how fast it runs, and what it reports.
_FREE = {
    *("device", "precision", "compile", "chars_per_token", "tensorboard", "progress"),
    *("eval_every", "eval_tokens", "sample_every", "save_every"),
}
# What may differ on request: what optimizer and schedule can take up in the middle of a run.
_CHANGEABLE = ("lr", "min_lr_ratio", "warmup_steps", "steps", "weight_decay", "betas", "clip")


def _evaluate_tokens(run: "Trainer") -> dict[str, float]:
    """Return the mean loss over val_tokens, each predicted once, if there are any."""
    if run.val_tokens is None:
        return {}
    c = run.config
    tokens = run.val_tokens[: c.eval_tokens]
    loss = evaluate_loss(run.model, tokens, c.block_size, loss_of=run.loss)
    return {"val_loss": loss, "bits_per_char": bits_per_char(loss, c.chars_per_token)}


class Trainer:
    """Train a model, with all that a long run needs: `train` does it, `history` keeps it.

    model(x, y) returns (logits, loss).

    draw(train_tokens, batch_size, block_size, generator) returns a micro-batch (x, y), or (x, y, options)
    with tensors that the model takes by name. If it has state_dict and load_state_dict, its place in
    the data is saved with the run; if it has describe(), error messages quote what that says of its
    last batch. evaluate(run) returns numbers for the record, such as "val_loss", by which the best
    checkpoint is chosen; the default reads val_tokens. observe(run) returns numbers for every record.

    folder receives history.jsonl and the checkpoints `last` and `best`; existing says what to do with a
    run that is there already: "refuse" (FileExistsError), "resume" or "replace". One process at a time may
    train there; a second one gets a RuntimeError. change names settings that may differ from those of the
    resumed run (lr, min_lr_ratio, warmup_steps, steps, weight_decay, betas, clip), and skip the steps whose
    data are left out; checkpoints and history note both.

    sample(model) returns the text to show; on_step(record) follows every step. processes: how several
    processes share a step, by default `Alone`.
    """

    def __init__(
        self,
        model: MiniGPT,
        config: TrainConfig,
        train_tokens: Any,
        val_tokens: Any = None,
        *,
        folder: str | Path | None = None,
        existing: str = "refuse",
        optimizer: Optimizer | None = None,
        sample: Callable[[MiniGPT], str] | None = None,
        on_step: Callable[[Record], object] | None = None,
        draw: Callable[..., Batch] = get_batch,
        evaluate: Callable[["Trainer"], dict[str, float]] | None = None,
        observe: Callable[["Trainer"], dict[str, float]] | None = None,
        processes: Alone | None = None,
        change: Collection[str] = (),
        skip: Collection[int] = (),
    ) -> None:
        self.config = config
        self.train_tokens = train_tokens
        self.val_tokens = val_tokens
        self.draw: Any = draw  # may also have state_dict, load_state_dict and describe
        self.sample = sample
        self.on_step = on_step
        self.measure = evaluate or _evaluate_tokens
        self.observe = observe
        self.processes = processes or Alone()
        self.files = RunFolder(folder, existing, self.processes.main)
        self.folder = self.files.path
        last = self.files.checkpoint()

        self.device = choose_device(config.device)
        self.precision, self.reason = self.processes.agree(self._choose_precision(model, last))
        self.model: Any = self.processes.place(model, self.device, self.precision)
        self.forward: Any = torch.compile(self.model) if config.compile else self.model
        self.optimizer = optimizer or torch.optim.AdamW(
            param_groups(self.model, config.weight_decay),
            lr=config.lr,
            betas=config.betas,
            fused=self.device != "mps",
        )
        self.scheduler = get_cosine_schedule_with_warmup(
            self.optimizer, config.warmup_steps, config.steps, config.min_lr_ratio
        )
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.precision == "float16")
        self.generator = torch.Generator().manual_seed(config.seed)

        self.step = 0
        self.best = math.inf  # the lowest validation loss so far
        self.history: list[Record] = []
        self.skip = set(skip)
        self.changes: list[dict[str, Any]] = []  # of settings, each with its step
        self.stop_asked = False
        self._drawn: list[str] = []  # what draw says of the data of this step
        self._high = 0  # how many losses in a row are high by now
        self._suspect = ""  # the data of the first of them
        self._unsaved = False  # whether a checkpoint is due that waits for the loss to recover
        self._news: Record = {}  # what the next record has to tell
        if last is None:
            self.files.clear()
        else:
            with self.files.alone():
                self._resume(last, change)
        self.processes.agree(None)  # nobody begins before the folder is ready
        self.loss_of = self.processes.engine(self)

    @property
    def main(self) -> bool:
        """Whether this process prints and writes: one of several does."""
        return self.processes.main

    def train(self) -> list[Record]:
        """Train up to config.steps and return the history, a dict for each step.

        Always "step", "loss", "lr", "grad_norm", "tokens_per_second"; at an evaluation also
        "train_loss" (the mean loss since the one before) and what `evaluate` returns; "sample" where
        one was written; "skipped", with the reason, where the weights did not move; "changed" after a
        change of settings. Ctrl-C saves, and returns after the present step. Raises TrainingStopped if
        the loss does not recover, OSError if it cannot save, RuntimeError if another run uses the folder.
        """
        c = self.config
        self._announce()
        self.stop_asked = interrupted()
        with (
            on_interrupt(self._interrupted),
            self.files.alone(),
            self.processes.watch(self),
            self.files.diary(self.step, c.tensorboard) as write,
            self._bar() as bar,
        ):
            stopping = self.processes.stops(self.stop_asked)
            while self.step < c.steps and not stopping:
                record = self.update()
                self._judge(record)
                self._report(record, write, bar)
                if self._should_save():
                    self.save("last")
                stopping = self.processes.stops(self.stop_asked)

            if stopping and self.folder:
                self.save("last")

        self.stop_asked = stopping
        if stopping and self.main:
            saved = ", and saved" if self.folder else ""
            print(f"stopped after step {self.step}, as asked{saved}")
        self.model.eval()
        return self.history

    def update(self) -> Record:
        """Make one optimizer step and return its record."""
        began = time.perf_counter()
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)

        batches = self._draw()
        loss, targets, tokens = self._gradients(batches)
        norm = self._clip() if targets else 0.0
        lr = self.optimizer.param_groups[0]["lr"]
        record = {"step": self.step + 1, "loss": loss, "lr": lr, "grad_norm": norm}

        if targets:
            self._refuse_bad(record, batches)
            self._move()
        else:
            self._stay(record)

        self.step += 1
        record["tokens_per_second"] = tokens / (time.perf_counter() - began)
        return record | self._extras()

    def _draw(self) -> list[Batch]:
        """Return this process's micro-batches of a step."""
        self._drawn.clear()
        return self.processes.draw(self)

    def _gradients(self, batches: Sequence[Batch]) -> tuple[float, int, int]:
        """Compute the gradients of a step; return its mean loss, its targets, the tokens read."""
        if self._skips():
            return 0.0, 0, 0
        return self.processes.gradients(self, batches)

    def _skips(self) -> bool:
        """Whether the step that begins now is to be left out."""
        return self.step + 1 in self.skip

    def _clip(self) -> float:
        """Scale the gradients down to the norm `clip` if theirs is larger; return theirs."""
        self.scaler.unscale_(self.optimizer)
        return self.processes.clip(self.model, self.config.clip)

    def _move(self) -> None:
        """Move the weights along their gradients, and the schedule by one step."""
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else float16 overflowed, and the step was left out
            self.scheduler.step()

    def _stay(self, record: Record) -> None:
        """Let the weights stay as they are, note why, and move the schedule by one step."""
        record["skipped"] = "as asked" if self._skips() else "no targets"
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.step()  # moves nothing, but the schedule counts the step
        self.scheduler.step()

    def _extras(self) -> Record:
        """Return what else the record of this step has to tell."""
        extras = self._news
        self._news = {}
        if self.observe:
            extras = extras | self.observe(self)
        return extras

    def draw_batch(self) -> Batch:
        """Return the next micro-batch from `draw`."""
        c = self.config
        batch = self.draw(self.train_tokens, c.batch_size, c.block_size, self.generator)
        if hasattr(self.draw, "describe"):
            self._drawn.append(self.draw.describe())
        return batch

    def loss(self, x: Tensor, y: Tensor, options: dict[str, Tensor] | None = None) -> Tensor:
        """Return the mean loss of a micro-batch, computed in the run's precision."""
        x = x.to(self.device)
        y = y.to(self.device)
        options = {name: value.to(self.device) for name, value in (options or {}).items()}
        kind = PRECISIONS[self.precision]
        if kind == torch.float32 or self.processes.casts:
            return self.forward(x, y, **options)[1]

        if self.device == "cpu":  # casting in each operation would cost what 16 bits gain
            copy = {name: weight.to(kind) for name, weight in self.model.named_parameters()}
            return torch.func.functional_call(self.forward, copy, (x, y), options)[1]
        with torch.autocast(self.device.split(":")[0], kind):
            return self.forward(x, y, **options)[1]

    def evaluate(self) -> dict[str, float]:
        """Return the numbers of an evaluation, such as "val_loss" in nats per token."""
        return self.measure(self)

    def _judge(self, record: Record) -> None:
        """Evaluate, keep the best model and write a sample, where that is due."""
        c = self.config
        best = self.best
        if self._due(c.eval_every):
            self._evaluate(record)
        if self.sample and self._due(c.sample_every):
            self._write_sample(record)
        if self.best < best and self.folder and c.save_every:
            self.save("best")

    def _report(self, record: Record, write: Callable[[Record], None], bar: tqdm) -> None:
        """Keep a record: in the history, in the run's diary, on the bar."""
        self.history.append(record)
        write(record)
        if self.on_step:
            self.on_step(record)
        speed = f"{record['tokens_per_second']:,.0f} tokens/s"
        bar.update()
        bar.set_postfix_str(f"loss {record['loss']:.3f}, {speed}")

    def _evaluate(self, record: Record) -> None:
        """Add an evaluation to the record."""
        last = max((past["step"] for past in self.history if "train_loss" in past), default=0)
        recent = [past for past in [*self.history, record] if past["step"] > last]
        losses = [past["loss"] for past in recent if "skipped" not in past]
        record["train_loss"] = sum(losses) / max(1, len(losses))

        record |= self.evaluate()
        self.best = min(self.best, record.get("val_loss", math.inf))

    def _write_sample(self, record: Record) -> None:
        assert self.sample is not None
        with evaluating(self.model):
            record["sample"] = self.sample(self.model)
        if self.config.progress and self.main:
            tqdm.write(f"--- step {self.step}\n{record['sample']}")

    def _refuse_bad(self, record: Record, batches: Sequence[Batch]) -> None:
        """Raise TrainingStopped, before the weights move, if the run cannot recover from this step."""
        finite = math.isfinite(record["loss"])
        if self.precision != "float16":  # there an infinite gradient only means: scale less
            finite = finite and math.isfinite(record["grad_norm"])

        losses = [old["loss"] for old in self._recent()]
        self._high = _high_losses([*losses, record["loss"]])
        if self._high == 1 or not finite:
            self._suspect = self._describe(batches)
        if not finite or self._high >= _PATIENCE:
            raise TrainingStopped(self._diagnose(record, finite))

    def _recent(self) -> list[Record]:
        """Return the last records that tell whether a loss is high."""
        past = self.history[-_USUAL - _PATIENCE :]
        return [record for record in past if "skipped" not in record]

    def _diagnose(self, record: Record, finite: bool) -> str:
        """Say in which step the run went wrong, on which data, and what to do."""
        first = record["step"] - max(0, self._high - 1) if finite else record["step"]
        before = [old["loss"] for old in self._recent() if old["step"] < first]
        before = before[-_USUAL:]
        usual = sum(before) / len(before) if before else math.inf
        numbers = (
            f"the loss is {record['loss']:.4g} and the gradient's norm {record['grad_norm']:.4g}"
        )
        if finite:
            numbers += f", and the loss has stayed high since step {first}"

        saved = find_checkpoint(self.folder / "last") if self.folder else Path("nowhere")
        where = (
            f"the last good checkpoint is {saved}" if saved.exists() else "no checkpoint was kept"
        )
        causes = "\n- ".join(_likely_causes(self.config, self.precision))
        return (
            f"step {record['step']}: {numbers}, after losses of about {usual:.4g}. The weights are "
            f"those of step {self.step}; {where}. The data of step {first}: {self._suspect}. "
            f'Trainer(..., existing="resume") goes on from a checkpoint, with skip=[{first}] without these '
            f'data, with change=["lr"] at the learning rate of a new config. Likely causes:\n- {causes}'
        )

    def _describe(self, batches: Sequence[Batch]) -> str:
        """Return in words which data this step reads."""
        if self._drawn:
            return "; ".join(self._drawn)
        rows = [row for batch in batches for row in batch[0]]
        firsts = ", ".join(str(row[:8].tolist()) for row in rows[:3])
        more = f", and {len(rows) - 3} more" if len(rows) > 3 else ""
        return f"rows that begin with the ids {firsts}{more}"

    def save(self, name: str) -> None:
        """Write the checkpoint `name` into the run's folder: all that it takes to resume."""
        if self.folder is None:
            raise ValueError(f"nowhere to save {name!r}: give the run a folder, folder=...")
        self.processes.save(self.folder / name, self)

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint says about the run, in plain values."""
        return {
            "step": self.step,
            "best": self.best,
            "train": dataclasses.asdict(self.config),
            "device": self.device,
            "precision": self.precision,
            "skip": sorted(self.skip),
            "changes": self.changes,
        }

    def state(self) -> dict[str, Any]:
        """Return where the run stands, besides weights and optimizer: tensors and plain values."""
        return {
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "data": self.generator.get_state(),
            "draw": self.draw.state_dict() if hasattr(self.draw, "state_dict") else {},
            "random": _random_states(),
        }

    def _resume(self, last: Path, change: Collection[str]) -> None:
        unknown = set(change) - set(_CHANGEABLE)
        if unknown:
            raise ValueError(f"change={sorted(unknown)}: expected names of {_CHANGEABLE}.")
        settings = dataclasses.asdict(self.config)
        free = {*_FREE, *change}
        facts = self.processes.load(last, self, train=settings, free=free, check=self._check)

        state = facts["state"]
        self.step = facts["step"]
        self.best = facts["best"]
        self.scheduler.load_state_dict(state["scheduler"])
        if state["scaler"]:  # empty unless the run was in float16
            self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["data"])
        _restore_random_states(state["random"])
        self.history = self.files.history(self.step)
        kept = set(facts.get("skip", ()))
        late = sorted(number for number in self.skip - kept if number <= self.step)
        if late:
            raise ValueError(
                f"skip={late}: the checkpoint is of step {self.step}, which is after those steps. Resume "
                "from an older checkpoint."
            )
        self.skip |= kept
        self.changes = facts.get("changes", [])
        self._change(facts["train"], change)

    def _check(self, facts: dict[str, Any]) -> None:
        """Raise ValueError if a checkpoint is not of such a run; else find the place in its data."""
        place = facts["state"].get("draw", {})
        keeps_place = hasattr(self.draw, "load_state_dict")
        if keeps_place != bool(place):
            raise ValueError(
                f"the run in {self.folder} was saved by another kind of training, whose batches came from "
                "elsewhere: choose another folder."
            )
        if keeps_place:
            self.draw.load_state_dict(place)

    def _change(self, saved: dict[str, Any], names: Collection[str]) -> None:
        """Let optimizer and schedule take up settings that differ from the saved ones; note which."""
        ours = json.loads(json.dumps(dataclasses.asdict(self.config)))
        changed = {name: [saved[name], ours[name]] for name in names if saved[name] != ours[name]}
        if not changed:
            return
        self.changes = [*self.changes, {"step": self.step, **changed}]
        self._news = {"changed": changed}

        c = self.config
        for group, share in zip(self.optimizer.param_groups, self.scheduler.lr_lambdas):
            group["initial_lr"] *= c.lr / saved["lr"]
            group["lr"] = group["initial_lr"] * share(self.scheduler.last_epoch)
            if "betas" in changed:
                group["betas"] = c.betas
            if "weight_decay" in changed and group["weight_decay"]:
                group["weight_decay"] = c.weight_decay
        self.scheduler.base_lrs = [group["initial_lr"] for group in self.optimizer.param_groups]

    def _choose_precision(self, model: nn.Module, last: Path | None) -> tuple[str, str]:
        """Choose the precision, that of the checkpoint if it was chosen on such a device."""
        c = self.config
        if c.precision == "auto" and last is not None:
            with contextlib.suppress(OSError, ValueError):  # a damaged file is refused later
                facts = json.loads((last / "checkpoint.json").read_text(encoding="utf-8"))
                if facts.get("device", "").split(":")[0] == self.device.split(":")[0]:
                    return facts["precision"], "as before"
        width = getattr(getattr(model, "config", None), "n_embd", 128)
        return choose_precision(self.device, c.precision, c.batch_size * c.block_size, width)

    def _announce(self) -> None:
        if self.main:
            steps = f"from step {self.step} to {self.config.steps}"
            print(f"{self.device}, {self.precision} ({self.reason}), {steps}")

    def _bar(self) -> tqdm:
        hidden = not (self.config.progress and self.main)
        options = {"unit": "step", "disable": hidden, "mininterval": 0.5}
        return tqdm(total=self.config.steps, initial=self.step, **options)

    def _due(self, every: int) -> bool:
        return bool(every) and (self.step % every == 0 or self.step == self.config.steps)

    def _should_save(self) -> bool:
        """Whether to save `last` now: a checkpoint waits until the loss is no longer high."""
        if not self.folder:
            return False
        self._unsaved = self._unsaved or self._due(self.config.save_every)
        now = self._unsaved and (not self._high or self.step == self.config.steps)
        self._unsaved = self._unsaved and not now
        return now

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """Stop after the present step; if that has been asked for already, stop at once."""
        if self.stop_asked and self.processes.stops_at_once:
            raise KeyboardInterrupt
        self.stop_asked = True
