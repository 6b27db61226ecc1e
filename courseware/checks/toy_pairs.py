"""A small chat tokenizer, three pairs of answers and small models, for checks of training on preferences.

`toy_rows` has a plain question, one with an earlier turn, and one under a system message.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from courseware.checks.agreement import roughen
from minigpt_lib.bpe import train_bpe
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import GPTConfig, MiniGPT

Messages = list[dict[str, str]]

_TEXT = "where was it born? it was born in rome. it is so. user assistant system\n " * 3
toy_chat = ChatTokenizer(train_bpe(_TEXT, 330))


def asks(text: str) -> Messages:
    """Return a prompt: a list of one message of the user."""
    return [{"role": "user", "content": text}]


def says(text: str) -> Messages:
    """Return an answer: a list of one message of the assistant."""
    return [{"role": "assistant", "content": text}]


def toy_pair(prompt: Messages, chosen: str, rejected: str) -> dict[str, Messages]:
    """Return a pair as a row of a data set."""
    return {"prompt": prompt, "chosen": says(chosen), "rejected": says(rejected)}


toy_rows = [
    toy_pair(asks("where was it born?"), "in rome.", "so it is. it is so."),
    toy_pair(asks("is it so?") + says("it is.") + asks("where?"), "rome.", "it was."),
    toy_pair([{"role": "system", "content": "so it is."}] + asks("it?"), "it is so.", "was"),
]


def swapped(rows: list[dict[str, Messages]]) -> list[dict[str, Messages]]:
    """Return the rows with chosen and rejected answers exchanged."""
    return [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]


def tiny(seed: int = 0, **choices: Any) -> MiniGPT:
    """Return a small model of GPT-2's family for `toy_chat`, with rough weights, in evaluation mode.

    choices: fields of GPTConfig.
    """
    torch.manual_seed(seed)
    usual: dict[str, Any] = {
        "vocab_size": toy_chat.vocab_size,
        "max_seq_len": 48,
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 3,
        "ffn": "gelu_tanh",
    }
    return roughen(MiniGPT(GPTConfig(**{**usual, **choices})), 0.2).eval()


class EagerModel(MiniGPT):
    """A model that likes to end its turn, and sometimes begins another one without ending it."""

    def forward(self, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        """Return what MiniGPT does, with higher logits for three tokens."""
        logits, loss = super().forward(*arguments, **options)
        lift = torch.zeros(self.config.vocab_size)
        lift[toy_chat.end] = 4.5
        lift[toy_chat.encode("\n")[0]] = 4.5
        lift[toy_chat.base.special_tokens["<|im_start|>"]] = 3.0
        return logits + lift, loss


def eager() -> EagerModel:
    """Return a random EagerModel, in evaluation mode."""
    torch.manual_seed(0)
    return EagerModel(GPTConfig(toy_chat.vocab_size, 48, 24, 1, 3)).eval()
