"""Assistants for the tests of chapter 16: random, repeating one letter, or saying what a test wants to hear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from minigpt_lib.assistant import Assistant
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import GPTConfig, MiniGPT

BYTES = BPETokenizer({bytes([b]): b for b in range(256)}, {"<|endoftext|>": 256})
CHAT = ChatTokenizer(BYTES)


def tiny(seed: int = 3, max_seq_len: int = 256, **choices: Any) -> MiniGPT:
    """Return a model with weights large enough for its predictions to differ."""
    torch.manual_seed(seed)
    choices = {"n_embd": 12, "n_layer": 2, "n_head": 3, "tie_weights": False} | choices
    model = MiniGPT(GPTConfig(259, max_seq_len, **choices)).eval()
    for name, weight in model.named_parameters():
        is_gain = "norm" in name and "weight" in name
        torch.nn.init.normal_(weight, float(is_gain), 0.4)
    return model


def chatterer(letter: str = "a", max_seq_len: int = 256) -> MiniGPT:
    """Return a model that repeats one letter forever."""
    model = MiniGPT(GPTConfig(259, max_seq_len, 8, 1, 1, tie_weights=False)).eval()
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.fill_(1.0)
        model.head.weight.zero_()
        model.head.weight[ord(letter)] = 9.0
    return model


def scripted(assistant: Assistant, *answers: Iterable[str | BaseException]) -> Assistant:
    """Let an assistant say these answers, each a series of pieces; an error among them is raised."""
    script = list(answers)

    def stream(prompt: torch.Tensor, **_: Any) -> Iterator[str]:
        for piece in script.pop(0):
            if not isinstance(piece, str):
                raise piece
            yield piece

    assistant.writer.stream = stream
    return assistant


def user(text: str) -> dict[str, str]:
    """Return a user's message."""
    return {"role": "user", "content": text}
