"""A short run on random tokens, for checks that compare one way of training with another."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from minigpt_lib.data import get_batch
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig, Trainer

R = TypeVar("R")

TOKENS = torch.randint(31, (3000,), generator=torch.Generator().manual_seed(1))


def small_model(seed: int = 0, **choices: Any) -> MiniGPT:
    """Return a model of 15,624 weights, drawn with this seed; choices: fields of GPTConfig."""
    torch.manual_seed(seed)
    return MiniGPT(GPTConfig(31, 16, 24, 2, 3, **choices))


def settings(**changes: Any) -> TrainConfig:
    """Return a short run's settings: 5 steps of 12 texts, in micro-batches of 4."""
    usual: dict[str, Any] = {
        "steps": 5,
        "batch_size": 4,
        "accumulate": 3,
        "block_size": 8,
        "warmup_steps": 1,
        "device": "cpu",
        "precision": "float32",
        "progress": False,
        "eval_every": 2,
    }
    return TrainConfig(**{**usual, **changes})


def quiet(function: Callable[..., R], *arguments: Any, **options: Any) -> R:
    """Call the function without letting it print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return function(*arguments, **options)


def losses(history: Any) -> Tensor:
    """Return loss, gradient's norm and validation loss of each record (0 where there is none): (steps, 3)."""
    return torch.tensor([[r["loss"], r["grad_norm"], r.get("val_loss", 0.0)] for r in history])


def with_holes(
    tokens: Tensor, batch_size: int, block_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Draw a batch in which many targets do not count, and whose positions are unusual."""
    x, y = get_batch(tokens, batch_size, block_size, generator)
    y = y.clone()
    y[: len(y) // 2, 2:] = -100
    y[-1] = -100
    return x, y, {"positions": torch.arange(block_size).expand(batch_size, -1) % 5}


def trained(
    kind: Callable[..., Trainer], config: TrainConfig, **options: Any
) -> tuple[Tensor, dict[str, Tensor], bool, list[float]]:
    """Train a small model with this kind of trainer.

    Returns its losses, its whole weights, whether it was left in evaluation mode, and its speeds.
    """
    run = kind(small_model(), config, TOKENS[:2500], TOKENS[2400:2600], **options)
    history = run.train()
    whole = {
        name: (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach()
        for name, weight in run.model.named_parameters()
    }
    speeds = [record["tokens_per_second"] for record in history]
    return losses(history), whole, not run.model.training, speeds
