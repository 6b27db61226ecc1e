"""Short runs of training on groups of answers, with plain SGD, for the checks and tests of chapter 21."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from courseware.checks.short_runs import quiet
from courseware.checks.toy_pairs import toy_chat, toy_rows
from minigpt_lib.model import MiniGPT
from minigpt_lib.training import TrainConfig

LR = 0.3
toy_dialogs = [row["prompt"] for row in toy_rows]


def wordy(question: Any, text: str) -> float:
    """Reward every character."""
    return float(len(text))


def run_groups(
    train: Callable[..., Any],
    model: MiniGPT,
    questions: Sequence[Any],
    steps: int = 3,
    place: Path | None = None,
    **options: Any,
) -> Any:
    """Call train_grpo for a few steps: groups of 4 answers of at most 6 tokens to 2 questions, saved at each step.

    options: those of train_grpo; "reward", by default `wordy`; "settings", a dict of fields of TrainConfig.
    """
    settings: dict[str, Any] = {
        "steps": steps,
        "batch_size": 2,
        "lr": LR,
        "min_lr_ratio": 1.0,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "eval_every": 0,
        "save_every": 1,
        "precision": "float32",
        "device": "cpu",
        "progress": False,
    }
    config = TrainConfig(**settings | options.pop("settings", {}))
    reward = options.pop("reward", wordy)
    usual: dict[str, Any] = {
        "group_size": 4,
        "max_new_tokens": 6,
        "folder": place,
        "existing": "resume",
        "optimizer": torch.optim.SGD(model.parameters(), lr=LR),
    }
    return quiet(train, model, toy_chat, config, questions, reward, **usual | options)
