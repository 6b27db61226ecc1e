"""Train a model: AdamW, a schedule, clipping, mixed precision, checkpoints that survive a crash.

Shapes: B texts in a batch, T tokens each, V ids. Losses are nats per token. A *step* is one update of
the weights; it may add up the gradients of several micro-batches.

Written by notebooks/10_training.ipynb (chapter 10): edit it there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TextIO

import numpy
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from minigpt_lib.baselines import bits_per_char, evaluate_loss
from minigpt_lib.data import get_batch
from minigpt_lib.model import GPTConfig, MiniGPT

__all__ = [
    "PRECISIONS",
    "accumulate_gradients",
    "AdamW",
    "Batch",
    "choose_device",
    "choose_precision",
    "get_cosine_schedule_with_warmup",
    "interrupted",
    "load_checkpoint",
    "on_interrupt",
    "param_groups",
    "save_checkpoint",
    "TrainConfig",
    "Trainer",
    "TrainingStopped",
]


class AdamW(Optimizer):
    """Adam with decoupled weight decay, by hand: Loshchilov and Hutter (2019), algorithm 2.

    Per weight: a running mean m of the gradient, a running mean v of its square, both corrected for
    their start at 0; the weight shrinks by lr * weight_decay, then moves by lr * m / (sqrt(v) + eps).
    Equal to torch.optim.AdamW, which is faster. Raises ValueError for values out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        if not (min(lr, eps, weight_decay) >= 0 and all(0 <= beta < 1 for beta in betas)):
            raise ValueError(
                f"lr={lr}, betas={betas}, eps={eps}, weight_decay={weight_decay}: expected betas "
                "from 0 to below 1 and nothing negative."
            )
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, options)

    @torch.no_grad()
    # pyrefly: ignore[bad-override]  torch has one overload with a closure and one without
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; return the loss of `closure`, or None."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for weight in (w for w in group["params"] if w.grad is not None):
                state, grad = self.state[weight], weight.grad
                if not state:
                    state["step"] = 0
                    state["m"], state["v"] = torch.zeros_like(weight), torch.zeros_like(weight)
                state["step"] += 1
                state["m"].mul_(beta1).add_(grad, alpha=1 - beta1)
                state["v"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                m = state["m"] / (1 - beta1 ** state["step"])
                v = state["v"] / (1 - beta2 ** state["step"])
                weight.mul_(1 - lr * group["weight_decay"])
                weight.sub_(lr * m / (v.sqrt() + group["eps"]))
        return loss


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups for an optimizer: matrices, which decay; vectors (biases, norms), which do not.

    Weights with requires_grad=False are in neither.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr_ratio: float = 0.1
) -> LambdaLR:
    """Return a scheduler: the rate rises in a line over warmup_steps, then falls along half a cosine.

    Call its step() once per *optimizer* step, however many micro-batches that took. The first step has
    1 / warmup_steps of the rate, the last min_lr_ratio of it. Loshchilov and Hutter (2017), without
    restarts. Raises ValueError unless 0 <= warmup_steps < total_steps and 0 <= min_lr_ratio <= 1.
    """
    if not 0 <= warmup_steps < total_steps or not 0 <= min_lr_ratio <= 1:
        raise ValueError(
            f"warmup_steps={warmup_steps}, total_steps={total_steps}, min_lr_ratio={min_lr_ratio}: "
            "expected 0 <= warmup_steps < total_steps and a ratio from 0 to 1."
        )

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
        return min_lr_ratio + (1 - min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, share)


Batch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, dict[str, Tensor]]  # x, y, perhaps options


def accumulate_gradients(
    loss_of: Callable[..., Tensor],
    batches: Sequence[Batch],
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Tensor:
    """Add up the gradients of micro-batches as if they were one batch; return its mean loss, a scalar.

    loss_of(*batch) returns the mean loss of a micro-batch (x, y, ...) over its targets y other than
    -100. All these targets count the same, however they are spread. scale(loss): what to call
    backward on.
    """
    counted = [int((batch[1] != -100).sum()) for batch in batches]
    total = torch.zeros(())
    for batch, count in zip(batches, counted, strict=True):
        if count:
            part = loss_of(*batch) * (count / sum(counted))
            scale(part).backward()
            total = total + part.detach()
    return total


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str = "auto") -> str:
    """Return the device asked for, or for "auto" the first that there is: "cuda", "mps", "cpu"."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _multiplies_bfloat16() -> bool:
    """Return whether this processor has instructions for bfloat16: recent x86 servers and laptops do."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def choose_precision(device: str, precision: str = "auto") -> tuple[str, str]:
    """Return (precision, reason) for a device. ValueError for a name that is not in PRECISIONS."""
    if precision != "auto":
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r}: expected auto, {', '.join(PRECISIONS)}.")
        return precision, "as asked"
    if device == "cpu" and _multiplies_bfloat16():
        return "bfloat16", "this processor multiplies it twice as fast; the weights stay float32"
    if not device.startswith("cuda"):
        return "float32", "half precision gains little or nothing on this device"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", "this GPU multiplies it much faster, and it has the range of float32"
    return "float16", "this GPU has no bfloat16; small gradients are saved by scaling the loss"


@dataclass(frozen=True)
class TrainConfig:
    """A run's settings, checked: raises ValueError for what cannot work, quoting it.

    What ends in steps or every counts optimizer steps; 0 for an every means never (the end of a run
    always counts).
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
        lows = {"steps": 1, "batch_size": 1, "block_size": 1, "accumulate": 1, "warmup_steps": 0}
        for name, low in (lows | {"eval_every": 0, "sample_every": 0, "save_every": 0}).items():
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise ValueError(f"{name}={value!r}: expected a whole number of at least {low}.")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} leaves nothing of steps={self.steps}: both count "
                "optimizer steps, and the warm-up is the shorter."
            )
        for name in ("lr", "clip", "chars_per_token"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a number above 0.")
        for name in ("min_lr_ratio", "weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a number from 0 to 1.")
        if self.eval_tokens is not None and self.eval_tokens < 2:
            raise ValueError(f"eval_tokens={self.eval_tokens}: expected 2 or more, or None.")
        choose_precision("cpu", self.precision)


class _Storable(Protocol):
    """What a checkpoint asks of a model: MiniGPT has it."""

    @property
    def config(self) -> GPTConfig: ...

    def save_pretrained(self, folder: Path) -> None: ...

    def load_state_dict(self, weights: Mapping[str, Any], /) -> Any: ...


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(
    folder: str | Path, model: _Storable, state: dict[str, Any] | None = None, **facts: Any
) -> None:
    """Write a checkpoint as `folder`, whole or not at all: an older one stays until the new one is whole.

    config.json and model.safetensors are what MiniGPT.from_pretrained reads; state.pt holds `state`
    (tensors and plain values), checkpoint.json the `facts`, SHA256SUMS the sum of each file, as the
    command `sha256sum -c` reads it. Raises OSError, with everything saved before untouched, if the files
    cannot be written.
    """
    folder = Path(folder)
    part, old = (folder.with_name(f"{folder.name}.{end}") for end in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    try:
        model.save_pretrained(part)
        torch.save(state or {}, part / "state.pt")
        (part / "checkpoint.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
        sums = "".join(f"{_sha256(path)}  {path.name}\n" for path in sorted(part.iterdir()))
        (part / "SHA256SUMS").write_text(sums, encoding="utf-8")
        for path in part.iterdir():  # on the disk, not only on its way
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    except Exception as error:  # a full disk: torch and safetensors have their own errors for it
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            f"the checkpoint {folder} could not be written ({error}). What was saved before is "
            "untouched: free some space, then go on from it."
        ) from error
    if folder.exists():  # else `old`, if there is one, is the last good one
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    part.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _find(folder: str | Path) -> Path:
    """Return the checkpoint's folder, or the older one if a crash came between two renames."""
    folder = Path(folder)
    old = folder.with_name(f"{folder.name}.old")
    return old if old.exists() and not folder.exists() else folder


def _refuse_difference(
    folder: Path,
    saved: dict[str, Any],
    ours: dict[str, Any],
    what: str,
    free: Collection[str] = (),
) -> None:
    ours = json.loads(json.dumps(ours))
    for name in {**saved, **ours}:
        if name not in free and saved.get(name) != ours.get(name):
            raise ValueError(
                f"{folder} is of another {what}: {name} is {saved.get(name)} there and "
                f"{ours.get(name)} here. Use the same, or another folder."
            )


# What may differ when a run goes on: it changes where and how fast it runs, or what it reports.
_FREE = (
    *("device", "precision", "compile", "chars_per_token", "tensorboard", "progress"),
    *("eval_every", "eval_tokens", "sample_every", "save_every"),
)


def load_checkpoint(
    folder: str | Path, model: _Storable | None = None, train: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Verify a checkpoint, load its weights into `model` if given, return its facts and its "state".

    train: settings that those of the checkpoint's run must agree with, as far as they change the run.
    Raises FileNotFoundError if there is none; ValueError if a file is missing, cut short or altered, or
    if the model or a setting is another: the message names the file, or the field. `model` then keeps
    its weights.
    """
    folder = _find(folder)
    if not (folder / "SHA256SUMS").is_file():
        raise FileNotFoundError(f"{folder} holds no checkpoint: expected SHA256SUMS in it.")
    sums = (folder / "SHA256SUMS").read_text(encoding="utf-8", errors="replace").splitlines()
    for name in ("config.json", "model.safetensors", "state.pt", "checkpoint.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: {name} is missing. Use an older checkpoint.")
        if f"{_sha256(folder / name)}  {name}" not in sums:
            raise ValueError(f"{folder}: {name} is cut short or altered. Use an older checkpoint.")
    facts = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
    if train is not None:
        _refuse_difference(folder, facts.get("train", {}), train, "run", _FREE)
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    if model is not None:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        _refuse_difference(folder, saved, dataclasses.asdict(model.config), "model")
        model.load_state_dict(load_file(folder / "model.safetensors"))
    return {**facts, "state": state}


def _random_states() -> dict[str, Any]:
    """Return the state of every generator that a run may draw from, as tensors and plain values."""
    numpy_state: Any = numpy.random.get_state()  # a tuple; numpy types it as a dict or a tuple
    name, keys, *rest = numpy_state
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    states["numpy"] = (name, torch.from_numpy(keys.astype("int64")), *rest)
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    numpy.random.set_state((name, keys.numpy().astype("uint32"), *rest))
    if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


class TrainingStopped(RuntimeError):
    """The loss is not a number, or explodes. The message: step, last good checkpoint, likely causes."""


def _likely_causes(config: TrainConfig, precision: str) -> list[str]:
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


def _refuse_bad(run: "_Step", record: dict[str, Any]) -> None:
    """Raise TrainingStopped, before the weights change, if this step's loss or gradient is bad."""
    losses = [past["loss"] for past in run.history[-20:]]
    usual = sum(losses) / len(losses) if losses else math.inf
    bad = not math.isfinite(record["loss"]) or record["loss"] > 2 * usual + 1
    if run.precision != "float16":  # there an infinite gradient only means: scale less
        bad = bad or not math.isfinite(record["grad_norm"])
    if bad:
        saved = _find(run.folder / "last") if run.folder else Path("nowhere")
        where = (
            f"the last good checkpoint is {saved}" if saved.exists() else "no checkpoint was kept"
        )
        raise TrainingStopped(
            f"step {record['step']}: the loss is {record['loss']:.4g} and the gradient's norm "
            f"{record['grad_norm']:.4g}, after losses of about {usual:.4g}. The weights are still those "
            f"of step {run.step}; {where}. Likely causes:\n- "
            + "\n- ".join(_likely_causes(run.config, run.precision))
        )


class _Step:
    """The lowest storey of a Trainer: a model, its optimizer and schedule, and how they make a step."""

    main: bool = True  # of several processes that train together, one prints and writes

    def __init__(
        self,
        model: MiniGPT,
        config: TrainConfig,
        train_tokens: Any,
        optimizer: Optimizer | None = None,
        draw: Callable[..., Batch] = get_batch,
    ) -> None:
        self.config, self.train_tokens = config, train_tokens
        self.draw: Any = draw  # may also have state_dict and load_state_dict
        self.device = choose_device(config.device)
        self.precision, self.reason = choose_precision(self.device, config.precision)
        self.model = model.to(self.device)
        self.forward: Any = torch.compile(self.model) if config.compile else self.model
        self.optimizer = optimizer or torch.optim.AdamW(
            param_groups(model, config.weight_decay),
            lr=config.lr,
            betas=config.betas,
            fused=self.device != "mps",
        )
        self.scheduler = get_cosine_schedule_with_warmup(
            self.optimizer, config.warmup_steps, config.steps, config.min_lr_ratio
        )
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.precision == "float16")
        self.generator = torch.Generator().manual_seed(config.seed)
        self.folder: Path | None = None
        self.step = 0
        self.history: list[dict[str, Any]] = []

    def _loss(self, x: Tensor, y: Tensor, options: dict[str, Tensor] | None = None) -> Tensor:
        """Return the mean loss of a micro-batch, computed in the run's precision."""
        x, y, dtype = x.to(self.device), y.to(self.device), PRECISIONS[self.precision]
        options = {name: value.to(self.device) for name, value in (options or {}).items()}
        if self.device == "cpu" and dtype != torch.float32:
            copy = {name: weight.to(dtype) for name, weight in self.model.named_parameters()}
            return torch.func.functional_call(self.forward, copy, (x, y), options)[1]
        with torch.autocast(self.device.split(":")[0], dtype, enabled=dtype != torch.float32):
            return self.forward(x, y, **options)[1]

    def _gradients(self) -> tuple[float, float, int]:
        """Put a step's gradients in place, clipped; return the mean loss, their norm, the tokens read."""
        c = self.config
        batches = [
            self.draw(self.train_tokens, c.batch_size, c.block_size, self.generator)
            for _ in range(c.accumulate)
        ]
        loss = accumulate_gradients(self._loss, batches, self.scaler.scale)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), c.clip)
        return loss.item(), norm.item(), sum(batch[0].numel() for batch in batches)

    def _update(self) -> dict[str, Any]:
        """Make one optimizer step and return its record."""
        began = time.perf_counter()
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss, norm, tokens = self._gradients()
        lr = self.scheduler.get_last_lr()[0]
        record = {"step": self.step + 1, "loss": loss, "lr": lr, "grad_norm": norm}
        _refuse_bad(self, record)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else float16 overflowed, and the step was left out
            self.scheduler.step()
        self.step += 1
        return record | {"tokens_per_second": tokens / (time.perf_counter() - began)}


def _read_history(path: Path, last_step: int) -> list[dict[str, Any]]:
    """Return the records up to last_step and cut off what a killed run wrote after its checkpoint."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):  # the last line may be torn
            records.append(json.loads(line))
    records = [record for record in records if record["step"] <= last_step]
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    part.replace(path)
    return records


class _Run(_Step):
    """The middle storey: a run with a folder, which can be saved and picked up."""

    def __init__(
        self, *step: Any, folder: str | Path | None = None, existing: str = "refuse"
    ) -> None:
        super().__init__(*step)
        self.folder = Path(folder) if folder else None
        self.best = math.inf
        if existing not in ("refuse", "resume", "replace"):
            raise ValueError(f"existing={existing!r}: expected refuse, resume or replace.")
        if self.folder:
            self._meet(existing, _find(self.folder / "last"), self.folder / "history.jsonl")

    def _place(self) -> dict[str, Any]:
        """Return where the run stands, besides weights and optimizer: tensors and plain values."""
        return {
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "data": self.generator.get_state(),
            "draw": self.draw.state_dict() if hasattr(self.draw, "state_dict") else {},
            "random": _random_states(),
        }

    def save(self, name: str) -> None:
        """Write the checkpoint `name` into the run's folder: all that it takes to go on."""
        if self.folder is None:
            raise ValueError(f"nowhere to save {name!r}: give the run a folder, folder=...")
        state = {"optimizer": self.optimizer.state_dict(), **self._place()}
        facts = {"step": self.step, "best": self.best, "train": dataclasses.asdict(self.config)}
        save_checkpoint(self.folder / name, self.model, state, **facts)

    def _meet(self, existing: str, last: Path, log: Path) -> None:
        """Refuse, resume or replace the run that is in the folder already, if any."""
        if existing == "replace":
            for name in ("last", "best", "last.old", "best.old"):
                shutil.rmtree(log.with_name(name), ignore_errors=True)
            log.unlink(missing_ok=True)
        elif existing == "refuse" and (last.exists() or log.exists()):
            raise FileExistsError(
                f'{self.folder} holds a run already: existing="resume" goes on with it, '
                'existing="replace" deletes it; or choose another folder.'
            )
        elif last.exists():
            self._resume(last, log)
        elif log.exists():  # it never came as far as a checkpoint
            log.unlink()

    def _load(self, last: Path) -> dict[str, Any]:
        """Load the weights and the optimizer from a checkpoint, and return its facts."""
        facts = load_checkpoint(last, self.model, train=dataclasses.asdict(self.config))
        if "optimizer" not in facts["state"]:
            raise ValueError(f"{last} was saved by another kind of trainer: go on with that one.")
        self.optimizer.load_state_dict(facts["state"]["optimizer"])
        return facts

    def _resume(self, last: Path, log: Path) -> None:
        facts = self._load(last)
        state = facts["state"]
        self.step, self.best = facts["step"], facts["best"]
        self.scheduler.load_state_dict(state["scheduler"])
        if state["scaler"]:  # empty unless the run was in float16
            self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["data"])
        if state["draw"]:
            self.draw.load_state_dict(state["draw"])
        _restore_random_states(state["random"])
        self.history = _read_history(log, self.step)


class _Log:
    """The run's diary: history.jsonl, one line a step, and TensorBoard if asked for."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.file: TextIO | None = None
        self.board: Any = None  # TensorBoard's SummaryWriter, which not everybody has

    def __enter__(self) -> "_Log":
        if self.run.config.tensorboard and self.run.main:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError("tensorboard=True needs it: pip install tensorboard") from error
            self.board = SummaryWriter(self.run.folder, purge_step=self.run.step + 1)
        if self.run.folder and self.run.main:
            self.run.folder.mkdir(parents=True, exist_ok=True)
            self.file = (self.run.folder / "history.jsonl").open("a", encoding="utf-8")
        return self

    def write(self, record: dict[str, Any]) -> None:
        """Append a record, at once: a crash loses at most the line being written."""
        if self.file:
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()
        for name, value in record.items() if self.board else ():
            if isinstance(value, float):
                self.board.add_scalar(name, value, record["step"])

    def __exit__(self, *_: object) -> None:
        for log in (self.file, self.board):
            if log:
                log.close()


class _RaiseAndRemember:
    """A handler for Ctrl-C that raises KeyboardInterrupt, and sets `pressed`."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        raise KeyboardInterrupt


def interrupted() -> bool:
    """Return whether Ctrl-C has been pressed in the `with on_interrupt()` around, and we are still here.

    Python swallows an exception that comes in a callback ("Exception ignored in ..."), and so do
    libraries that catch everything. Ask at a safe point, and such a press is not lost.
    """
    return getattr(signal.getsignal(signal.SIGINT), "pressed", False)


@contextlib.contextmanager
def on_interrupt(
    handler: Callable[[int, FrameType | None], object] | None = None,
) -> Iterator[None]:
    """Let Ctrl-C call handler(number, frame) inside this context; by default it raises KeyboardInterrupt.

    It works even where Ctrl-C was switched off: a shell does that to a command which a script starts
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


class Trainer(_Run):
    """Train a model on tokens, with all that a long run needs: `train` does it, `history` keeps it.

    model(x, y) returns (logits, loss); draw(train_tokens, batch_size, block_size, generator) returns
    a micro-batch (x, y), or (x, y, options) with tensors that the model takes by name. If draw has
    state_dict and load_state_dict, its place in the text is saved with the run. `folder` receives
    history.jsonl and the checkpoints `last` and `best`; existing says what to do with a run that is
    there already: "refuse" (FileExistsError), "resume" or "replace". `sample`, a function of the
    model, returns the text to show; on_step(record) follows every step.
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
        on_step: Callable[[dict[str, Any]], object] | None = None,
        draw: Callable[..., Batch] = get_batch,
    ) -> None:
        step = (model, config, train_tokens, optimizer, draw)
        super().__init__(*step, folder=folder, existing=existing)
        self.val_tokens, self.sample, self.on_step = val_tokens, sample, on_step
        self.stop_asked = False

    def train(self) -> list[dict[str, Any]]:
        """Train up to config.steps and return the history, a dict for each step.

        Always "step", "loss", "lr", "grad_norm", "tokens_per_second"; at an evaluation also
        "train_loss" (the mean loss since the one before), and "val_loss" and "bits_per_char" if there
        are val_tokens; "sample" where one was written. Ctrl-C saves, and returns after the present
        step. Raises TrainingStopped when the loss goes wrong, OSError if it cannot save.
        """
        c, start = self.config, self.step
        if self.main:
            print(
                f"{self.device}, {self.precision} ({self.reason}), from step {start} to {c.steps}"
            )
        shown = c.progress and self.main
        options = {"unit": "step", "disable": not shown, "mininterval": 0.5}
        bar = tqdm(total=c.steps, initial=start, **options)
        self.stop_asked = interrupted()
        with on_interrupt(self._interrupted), _Log(self) as log, bar:
            while self.step < c.steps and not self.stop_asked:
                record = self._update()
                self._report(record)
                self.history.append(record)
                log.write(record)
                if self.on_step:
                    self.on_step(record)
                speed = f"{record['tokens_per_second']:,.0f} tokens/s"
                bar.update()
                bar.set_postfix_str(f"loss {record['loss']:.3f}, {speed}")
                if self.folder and self._due(c.save_every):
                    self.save("last")
            if self.stop_asked and self.folder:
                self.save("last")
        if self.stop_asked and self.main:
            print(f"stopped after step {self.step}, as asked" + (", and saved" * bool(self.folder)))
        self.model.eval()
        return self.history

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """Stop after the present step; if that has been asked for already, stop at once."""
        if self.stop_asked:
            raise KeyboardInterrupt
        self.stop_asked = True

    def _due(self, every: int) -> bool:
        return bool(every) and (self.step % every == 0 or self.step == self.config.steps)

    def _report(self, record: dict[str, Any]) -> None:
        """Evaluate and sample if it is time, into the record; keep the best model."""
        c, before = self.config, self.best
        if self._due(c.eval_every):
            last = max((past["step"] for past in self.history if "train_loss" in past), default=0)
            recent = [past["loss"] for past in self.history if past["step"] > last]
            record["train_loss"] = (sum(recent) + record["loss"]) / (len(recent) + 1)
            if self.val_tokens is not None:
                record["val_loss"] = self.evaluate()
                record["bits_per_char"] = bits_per_char(record["val_loss"], c.chars_per_token)
                self.best = min(before, record["val_loss"])
        if self.sample and self._due(c.sample_every):
            self.model.eval()
            record["sample"] = self.sample(self.model)
            if c.progress and self.main:
                tqdm.write(f"--- step {self.step}\n{record['sample']}")
        if self.best < before and self.folder and c.save_every:
            self.save("best")

    def evaluate(self) -> float:
        """Return the mean loss over val_tokens (config.eval_tokens of them), nats per token, each once."""
        tokens = self.val_tokens[: self.config.eval_tokens]
        return evaluate_loss(self.model, tokens, self.config.block_size, loss_of=self._loss)
