"""A model that says what a check wants to hear, and a keyboard that types what a check wants typed."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import GPTConfig, MiniGPT

# Every byte is a token, so tokens can be counted by hand: 259 ids with the control tokens.
BYTES = BPETokenizer({bytes([b]): b for b in range(256)}, {"<|endoftext|>": 256})
CHAT = ChatTokenizer(BYTES)

# An environment without colours; a kernel asks for them.
PLAIN = {"NO_COLOR": "1", "FORCE_COLOR": ""}

Piece = int | BaseException | Callable[[], int]


def said(*texts: str) -> list[dict[str, str]]:
    """Return messages, user and assistant by turns; a first text that begins with # is the system's."""
    head = [{"role": "system", "content": texts[0][1:]}] if texts[0][0] == "#" else []
    turns = zip(itertools.cycle(["user", "assistant"]), texts[len(head) :])
    return head + [{"role": role, "content": text} for role, text in turns]


def tiny(max_seq_len: int = 256, vocab_size: int = 259, **choices: Any) -> MiniGPT:
    """Return a small model with large random weights, the same every time."""
    choices = {"n_embd": 24, "n_layer": 2, "n_head": 3, "tie_weights": False, **choices}
    model = MiniGPT(GPTConfig(vocab_size, max_seq_len, **choices)).eval()
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        nn.init.normal_(weight, float("norm" in name and "weight" in name), 0.4, generator)
    return model


class Scripted(MiniGPT):
    """A model that gives prepared `answers`, one after another; `read` collects the prompts as text.

    An answer is a text, or a list of ids; an error among the ids is raised, and a function is called for its id.
    """

    def __init__(self, *answers: str | Sequence[Piece], max_seq_len: int = 256) -> None:
        super().__init__(GPTConfig(259, max_seq_len, n_embd=4, n_layer=1, n_head=1))
        self.answers = list(answers)
        self.read: list[str] = []
        self.now: list[Piece] = []

    def forward(
        self, input_ids: Tensor, targets: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """Return logits for the next id of the script; a prompt ends with the header of an answer."""
        ids = input_ids[0].tolist()
        header = [CHAT.base.special_tokens["<|im_start|>"], *BYTES.encode("assistant\n")]
        if ids[-len(header) :] == header:
            self.read.append(CHAT.decode(ids))
            answer = self.answers.pop(0) if self.answers else ""
            pieces = BYTES.encode(answer) if isinstance(answer, str) else answer
            self.now = [*pieces, CHAT.end]

        token = self.now.pop(0)
        if isinstance(token, BaseException):
            raise token
        if callable(token):
            token = token()
        return nn.functional.one_hot(torch.tensor([[token]]), 259).float() * 1e4, None


def scripted(
    cls: Callable[..., Any],
    *answers: str | Sequence[Piece],
    max_seq_len: int = 256,
    **options: Any,
) -> tuple[Any, Scripted]:
    """Return (an assistant of this class, its scripted model)."""
    model = Scripted(*answers, max_seq_len=max_seq_len)
    return cls(model, CHAT, **{"max_new_tokens": 40, **options}), model


# --- a keyboard ---


def typed_line(prompt: str = "") -> str:
    """Read a line as input does outside a notebook, where it would ask the reader."""
    print(prompt, end="")
    if line := sys.stdin.readline():
        return line.rstrip("\n")
    raise EOFError


class Typing(io.StringIO):
    """Standard input that gives, or raises, one event after another."""

    def __init__(self, *events: str | BaseException) -> None:
        super().__init__()
        self.events = list(events)

    def readline(self, *_: object) -> str:
        """Return the next event, or raise it if it is an error."""
        event = self.events.pop(0) if self.events else ""
        if isinstance(event, str):
            return event
        raise event


class Screen(io.StringIO):
    """Standard output that calls itself a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@contextlib.contextmanager
def in_modules(things: Sequence[Any], **names: object) -> Iterator[None]:
    """Let these names mean something else in the modules of these classes and functions."""
    with contextlib.ExitStack() as stack:
        for module in {thing.__module__ for thing in things}:
            for name, meaning in names.items():
                patch = mock.patch.object(sys.modules[module], name, meaning, create=True)
                stack.enter_context(patch)
        yield


def command(
    main: Callable[..., Any],
    cls: Any,
    lines: Sequence[str],
    *answers: str | Sequence[Piece],
    argv: Sequence[str] = (),
    reader: io.StringIO | None = None,
    **options: Any,
) -> tuple[str, Any, Any, Scripted]:
    """Return what main prints when a user types these lines and the model gives these answers.

    The other three: the assistant, the call of from_pretrained that made it, and its model.
    """
    made, model = scripted(cls, *answers, **options)
    stdin = io.StringIO("".join(line + "\n" for line in lines)) if reader is None else reader
    arguments = ["--model", "there", *argv]
    if "--keep" not in argv:
        arguments.append("--forget")
    with (
        mock.patch.dict(os.environ, PLAIN),
        in_modules((main, cls), find_model=Path),
        mock.patch.object(cls, "from_pretrained", return_value=made) as opened,
        mock.patch("sys.stdin", stdin),
        mock.patch.multiple("builtins", input=typed_line),
        contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
        main(arguments)
    return printed.getvalue(), made, opened.call_args, model
