"""Dialogs as tokens: two chat formats, which tokens are learned, and asking a model.

A dialog is a list of messages {"role": "system", "user" or "assistant", "content": str}. Labels stand under
their own token, -100 where nothing is learned; the shift by one happens in InstructionDataset.batch.

Written by notebooks/14_sft.ipynb (chapter 14): edit it there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.generation import TextGenerator
from minigpt_lib.model import MiniGPT

__all__ = [
    "FORMATS",
    "ROLES",
    "answer_ids",
    "chat_of",
    "ChatFormat",
    "ChatTokenizer",
    "Dialog",
    "fault_of",
    "format_chatml",
    "format_llama3",
    "reply",
]

ROLES = ("system", "user", "assistant")
Dialog = Sequence[dict[str, str]]  # messages, each with a role and content


@dataclass(frozen=True)
class ChatFormat:
    """How a dialog is written: control tokens, which are never text, around roles and words."""

    begin: str | None  # control token before the first turn
    open: str  # control token before the role
    close: str | None  # control token after the role
    gap: str  # text between the role, or its control token, and the words
    end: str  # control token after the words: the turn is over
    after: str  # text after that

    @property
    def controls(self) -> tuple[str, ...]:
        """Return the names of the control tokens, in the order in which a tokenizer gets them."""
        return tuple(name for name in (self.begin, self.open, self.close, self.end) if name)


FORMATS = {
    "chatml": ChatFormat(
        begin=None, open="<|im_start|>", close=None, gap="\n", end="<|im_end|>", after="\n"
    ),
    "llama3": ChatFormat(
        begin="<|begin_of_text|>",
        open="<|start_header_id|>",
        close="<|end_header_id|>",
        gap="\n\n",
        end="<|eot_id|>",
        after="",
    ),
}


def fault_of(dialog: object, part: bool = False) -> str | None:
    """Return what is wrong with a dialog, or None.

    A system message comes first if there is one. Then user and assistant take turns, the user first; every
    message says something, and the assistant speaks at least once. part: the beginning of a dialog will
    do, so there need not be an answer yet.
    """
    if not isinstance(dialog, list | tuple) or not dialog:
        return "not a list of messages"

    last = None
    for i, message in enumerate(dialog):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return "a message without role and content"
        role, content = message["role"], message["content"]
        if role not in ROLES:
            return "an unknown role"
        if not isinstance(content, str):
            return "a content that is no text"
        if not content.strip():
            return "an empty message"
        if any("\ud800" <= character <= "\udfff" for character in content):
            return "a text that is no Unicode"
        if role == "system" and i:
            return "a system message that is not the first"
        if role == last:
            return f"two turns of the {role} in a row"
        if role == "assistant" and last in (None, "system"):
            return "the assistant speaks first"
        last = role

    if part or any(message["role"] == "assistant" for message in dialog):
        return None
    return "no turn of the assistant"


@dataclass(frozen=True)
class _Piece:
    """A control token, or the text between two: what is given, and then what the assistant says."""

    given: str
    said: str = ""
    control: bool = False

    @property
    def text(self) -> str:
        return self.given + self.said


def _turn(form: ChatFormat, role: str, given: str, said: str = "") -> Iterator[_Piece]:
    """Yield the header of a turn and its words."""
    yield _Piece(form.open, control=True)
    if form.close:
        yield _Piece(role)
        yield _Piece(form.close, control=True)
        yield _Piece(form.gap + given, said)
    else:
        yield _Piece(role + form.gap + given, said)


def _pieces(messages: Dialog, form: ChatFormat, add_generation_prompt: bool) -> Iterator[_Piece]:
    """Yield a dialog piece by piece; ValueError for one with a fault."""
    _refuse_fault(messages, add_generation_prompt)
    if form.begin:
        yield _Piece(form.begin, control=True)

    for message in messages:
        role, content = message["role"], message["content"]
        if role == "assistant":
            yield from _turn(form, role, "", content)
            yield _Piece("", form.end, control=True)
        else:
            yield from _turn(form, role, content)
            yield _Piece(form.end, control=True)
        if form.after:
            yield _Piece(form.after)

    if add_generation_prompt:
        yield from _turn(form, "assistant", "")


def _refuse_fault(messages: Dialog, add_generation_prompt: bool) -> None:
    """Raise ValueError for messages with a fault; where an answer is to follow, with it."""
    if isinstance(messages, list | tuple) and messages and add_generation_prompt:
        messages = [*messages, {"role": "assistant", "content": "..."}]
    if fault := fault_of(messages, part=True):
        raise ValueError(f"this dialog cannot be written: {fault}.")


def _written(messages: Dialog, form: ChatFormat, add_generation_prompt: bool) -> str:
    return "".join(piece.text for piece in _pieces(messages, form, add_generation_prompt))


def format_chatml(messages: Dialog, add_generation_prompt: bool = False) -> str:
    """Return a dialog, or the beginning of one, as ChatML writes it, the format of Qwen2.5 and others.

    add_generation_prompt: end with the header of an answer, for the model to go on. Raises ValueError that
    names the fault of messages that cannot follow each other in a dialog.
    """
    return _written(messages, FORMATS["chatml"], add_generation_prompt)


def format_llama3(messages: Dialog, add_generation_prompt: bool = False) -> str:
    """Return a dialog, or the beginning of one, as Llama 3 writes it.

    Its template strips white space around the words; this function keeps it. add_generation_prompt and
    ValueError: as in format_chatml.
    """
    return _written(messages, FORMATS["llama3"], add_generation_prompt)


def _with_special_tokens(tokenizer: BPETokenizer, names: dict[str, int]) -> BPETokenizer:
    """Return a tokenizer of the same kind, such as one that normalises its text, with these special tokens."""
    other = copy.copy(tokenizer)
    BPETokenizer.__init__(other, tokenizer.ranks, names, tokenizer.pattern, tokenizer.unk_token)
    return other


class ChatTokenizer:
    """Dialogs as tokens, and which of them are learned: the assistant's words and the end of its turn.

    tokenizer: a BPETokenizer; control tokens that it lacks get the next free ids. What a message says is
    encoded as text, so a control token's name in it stays text. `end` is the id that ends a turn,
    `controls` those of the format's control tokens. Raises ValueError for a format not in FORMATS.
    """

    def __init__(self, tokenizer: BPETokenizer, format: str = "chatml") -> None:
        if format not in FORMATS:
            raise ValueError(f"format {format!r}: expected one of {', '.join(FORMATS)}.")
        self.format = format
        self.form = FORMATS[format]

        names = dict(tokenizer.special_tokens)
        free = tokenizer.vocab_size
        for name in self.form.controls:
            if name not in names:
                names[name] = free
                free += 1
        self.base = _with_special_tokens(tokenizer, names)
        self.end = names[self.form.end]
        self.controls = frozenset(names[name] for name in self.form.controls)
        self._sizes = {i: len(token) for token, i in tokenizer.ranks.items()}  # in bytes

    @property
    def vocab_size(self) -> int:
        """Return how many ids a model needs."""
        return self.base.vocab_size

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, no control token among them."""
        return self.base.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, control tokens by their names."""
        return self.base.decode(ids)

    def render(
        self, messages: Dialog, add_generation_prompt: bool = False
    ) -> tuple[list[int], list[int]]:
        """Return (ids, labels) of a dialog or the beginning of one, equally long; a label is its id, or -100.

        Text is encoded in one piece from control token to control token, as Hugging Face does, and a token
        is learned if any of it is the assistant's. add_generation_prompt: end with the header of an answer,
        for the model to go on. Raises ValueError as format_chatml does.
        """
        ids: list[int] = []
        labels: list[int] = []
        for piece in _pieces(messages, self.form, add_generation_prompt):
            found = self._ids(piece)
            ids += found
            labels += self._labels(found, piece)
        return ids, labels

    def _ids(self, piece: _Piece) -> list[int]:
        if piece.control:
            return [self.base.special_tokens[piece.text]]
        return self.base.encode(piece.text)

    def _labels(self, ids: list[int], piece: _Piece) -> list[int]:
        """Return the labels of a piece: -100 for tokens that end within what is given."""
        if not piece.said:
            return [-100] * len(ids)

        labels = []
        given = len(piece.given.encode("utf-8"))  # bytes that no token has covered yet
        for token in ids:
            given -= self._sizes.get(token, 1)
            labels.append(token if given < 0 else -100)
        return labels

    def prompt(self, question: str, system: str | None = None) -> list[int]:
        """Return the ids of a question up to where the answer begins."""
        messages = [{"role": "user", "content": question}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return self.render(messages, add_generation_prompt=True)[0]


def chat_of(tokenizer: BPETokenizer) -> ChatTokenizer | None:
    """Return the ChatTokenizer of the first format in FORMATS whose control tokens a tokenizer has, or None."""
    for name, form in FORMATS.items():
        if set(form.controls) <= tokenizer.special_tokens.keys():
            return ChatTokenizer(tokenizer, name)
    return None


def answer_ids(
    model: MiniGPT,
    chat: ChatTokenizer,
    dialogs: Iterable[Dialog],
    max_new_tokens: int = 64,
    strategy: str = "greedy",
    **options: Any,
) -> list[list[int]]:
    """Return the ids that the model answers to each dialog, with the special token that ended them.

    Without one, the answer was cut off after max_new_tokens. options: those of GenerationConfig except
    stop; the same seed gives the same answers. Raises ValueError for a dialog with a fault, or one that is
    too long.
    """
    prompts = [chat.render(dialog, add_generation_prompt=True)[0] for dialog in dialogs]
    longest = max(map(len, prompts), default=0)
    room = model.config.max_seq_len
    if longest > room:
        raise ValueError(
            f"a dialog of {longest} tokens, but the model reads {room}: leave turns out."
        )

    stop = frozenset(chat.base.special_tokens.values())
    seed = options.pop("seed", None)
    writer = TextGenerator(model, chat)
    answers: list[list[int]] = [[] for _ in prompts]
    done = 0
    for length in sorted(set(map(len, prompts))):
        rows = [b for b, prompt in enumerate(prompts) if len(prompt) == length]
        ids = torch.tensor([prompts[b] for b in rows]).to(model.embedding.weight.device)
        options["seed"] = None if seed is None else seed + done
        found = writer.generate_ids(ids, max_new_tokens, strategy, stop=tuple(stop), **options)
        for b, said in zip(rows, found[:, length:].tolist()):
            answers[b] = _up_to(said, stop)
        done += len(rows)
    return answers


def _up_to(ids: list[int], stop: frozenset[int]) -> list[int]:
    """Return the ids up to the first of `stop`, which is included, or all if there is none."""
    for i, token in enumerate(ids):
        if token in stop:
            return ids[: i + 1]
    return ids


def reply(
    model: MiniGPT,
    chat: ChatTokenizer,
    messages: Dialog,
    max_new_tokens: int = 64,
    strategy: str = "greedy",
    **options: Any,
) -> str:
    """Return the assistant's next turn as text, without special tokens. As answer_ids otherwise."""
    (ids,) = answer_ids(model, chat, [messages], max_new_tokens, strategy, **options)
    special = chat.base.special_tokens.values()
    return chat.decode([token for token in ids if token not in special])
