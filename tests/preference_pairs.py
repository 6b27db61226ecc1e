"""Pairs of answers, small models and settings for the tests of chapter 15."""

from __future__ import annotations

from typing import Any

import torch

from minigpt_lib.bpe import train_bpe
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.preferences import PreferenceDataset
from minigpt_lib.training import TrainConfig

Messages = list[dict[str, str]]

TEXT = "where was it born? it was born in rome. it is so. user assistant system\n " * 3
CHAT = ChatTokenizer(train_bpe(TEXT, 330))


def message(role: str, content: str) -> dict[str, str]:
    """Return a message."""
    return {"role": role, "content": content}


def pair(prompt: str | Messages, chosen: str, rejected: str) -> dict[str, Messages]:
    """Return a row of a preference data set; a prompt that is a text is a user's message."""
    asked = prompt if isinstance(prompt, list) else [message("user", prompt)]
    return {
        "prompt": asked,
        "chosen": [message("assistant", chosen)],
        "rejected": [message("assistant", rejected)],
    }


TWO_TURNS = [message("user", "is it?"), message("assistant", "so."), message("user", "where?")]
WITH_SYSTEM = [message("system", "so it is."), message("user", "it?")]
ROWS = [
    pair("where was it born?", "in rome.", "so it is. it is so."),
    pair(TWO_TURNS, "rome.", "it was."),
    pair(WITH_SYSTEM, "it is so.", "was"),
    pair("so?", "it is <|im_end|> so.", "no"),
]


def dataset() -> PreferenceDataset:
    """Return the pairs of ROWS, without a reference."""
    return PreferenceDataset(ROWS, CHAT, 64)


def tiny(seed: int = 0, **changes: Any) -> MiniGPT:
    """Return a model with weights large enough for its predictions to differ."""
    torch.manual_seed(seed)
    options = {"max_seq_len": 64, "n_embd": 24, "n_layer": 2, "n_head": 3, "ffn": "gelu_tanh"}
    model = MiniGPT(GPTConfig(CHAT.vocab_size, **options | changes))
    for name, weight in model.named_parameters():
        is_gain = "norm" in name and "weight" in name
        torch.nn.init.normal_(weight, float(is_gain), 0.2)
    return model.eval()


def plan(**changes: Any) -> TrainConfig:
    """Return the settings of a short run, with these changes."""
    usual = {
        "warmup_steps": 0,
        "eval_every": 0,
        "progress": False,
        "precision": "float32",
        "device": "cpu",
        "lr": 3e-3,
        "batch_size": 2,
    }
    return TrainConfig(**usual | changes)
