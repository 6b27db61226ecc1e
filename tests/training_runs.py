"""A small model and short runs of it, for the tests of chapter 10."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig

TOKENS = torch.randint(11, (5000,), generator=torch.Generator().manual_seed(0))


def tiny(seed: int = 0, dropout: float = 0.1, n_embd: int = 16) -> MiniGPT:
    """Return a model of one layer for 11 tokens."""
    torch.manual_seed(seed)
    return MiniGPT(GPTConfig(11, 32, n_embd, 1, 2, dropout=dropout))


def plan(**changes: Any) -> TrainConfig:
    """Return the settings of a run of 20 steps, with these changes."""
    usual = {
        "steps": 20,
        "batch_size": 4,
        "block_size": 8,
        "warmup_steps": 3,
        "eval_every": 5,
        "save_every": 5,
        "device": "cpu",
        "precision": "float32",
        "progress": False,
    }
    return TrainConfig(**usual | changes)


def losses(history: Iterable[dict]) -> list[float]:
    """Return the training losses of a history."""
    return [record["loss"] for record in history]


def weights(model: nn.Module) -> list[Tensor]:
    """Return a copy of a model's weights."""
    return [weight.detach().clone() for weight in model.parameters()]


def equal(one: Iterable[Tensor], other: Iterable[Tensor]) -> bool:
    """Return whether two lists of tensors hold the same numbers."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
