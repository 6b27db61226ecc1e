"""What the tests that need a GPU share: when they run, and small models and runs for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig

DEVICE = "cuda"
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.slow,  # compiling, and whole chapters
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="this machine has no GPU that torch can use"
    ),
]

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "max_seq_len": 128,
    "n_embd": 128,
    "n_layer": 3,
    "n_head": 4,
}
LLAMA: dict[str, Any] = {
    "position": "rope",
    "norm": "rms",
    "ffn": "swiglu",
    "bias": False,
    "tie_weights": False,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"ffn": "gelu_tanh"},
    "sinusoidal": {"position": "sinusoidal", "ffn": "relu"},
    "llama": LLAMA,
    "grouped heads": LLAMA | {"n_kv_head": 2},
}


def make_model(family: str, **changes: Any) -> MiniGPT:
    """Return a small model of a family with these changes to its config, the same each time, on the processor."""
    torch.manual_seed(0)
    return MiniGPT(GPTConfig(**(SIZES | FAMILIES[family] | changes)))


def tokens() -> Tensor:
    """Return tokens in which each id always has the same follower, so that a small model learns them quickly."""
    order = torch.randperm(SIZES["vocab_size"], generator=torch.Generator().manual_seed(3))
    return order.repeat(200)


def settings(**changes: Any) -> TrainConfig:
    """Return the settings of a short run on the GPU with these changes."""
    usual: dict[str, Any] = {
        "steps": 60,
        "batch_size": 16,
        "block_size": 64,
        "lr": 3e-3,
        "warmup_steps": 5,
        "eval_every": 0,
        "device": DEVICE,
        "progress": False,
    }
    return TrainConfig(**(usual | changes))
