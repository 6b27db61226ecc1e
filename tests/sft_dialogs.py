"""Dialogs, chat tokenizers and small models for the tests of chapter 14."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from courseware.material import people
from minigpt_lib.bpe import train_bpe
from minigpt_lib.chat import FORMATS, ChatTokenizer
from minigpt_lib.model import GPTConfig, MiniGPT

TALK = people.dialogs(people.make_people(6), rounds=1)
BASE = train_bpe([m["content"] for d in TALK for m in d], 400, special_tokens=["<|endoftext|>"])
CHATS = {name: ChatTokenizer(BASE, name) for name in FORMATS}


def model_of(vocab_size: int, seed: int = 0, **choices: Any) -> MiniGPT:
    """Return a model with weights large enough for its predictions to differ."""
    torch.manual_seed(seed)
    usual = {"max_seq_len": 128, "n_embd": 16, "n_layer": 2, "n_head": 2}
    model = MiniGPT(GPTConfig(vocab_size, **usual | choices))
    for name, weight in model.named_parameters():
        is_gain = "norm" in name and "weight" in name
        nn.init.normal_(weight, float(is_gain), 0.25)
    return model.eval()
