"""SmolLM2-135M-Instruct in the course's own classes, where `make real` has installed it."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.interop import find_smollm2
from minigpt_lib.interop import load as load_published
from minigpt_lib.model import MiniGPT


@dataclass(frozen=True)
class RealModel:
    """A model in float32 and its tokenizer."""

    model: MiniGPT
    tokenizer: BPETokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; names of control tokens become control tokens."""
        return self.tokenizer.encode(text, allowed_special="all")


def installed() -> bool:
    """Return whether the model is there."""
    try:
        find_smollm2()
    except FileNotFoundError:
        return False
    return True


def load() -> RealModel:
    """Return SmolLM2-135M-Instruct, restored to float32, in evaluation mode.

    Raises FileNotFoundError with what to do if it is not installed.
    """
    model, tokenizer = load_published(find_smollm2())
    return RealModel(model.eval().requires_grad_(False), tokenizer)
