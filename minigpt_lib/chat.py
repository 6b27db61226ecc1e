"""Dialogs as tokens: two chat formats, which tokens are learned, and asking a model.

A dialog is a list of messages {"role": "system", "user" or "assistant", "content": str}. Labels stand under
their own token, -100 where nothing is learned; the shift by one happens in InstructionDataset.batch.

Written by notebooks/14_sft.ipynb (chapter 14): edit it there.
"""

from __future__ import annotations

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
    """How a dialog is written: control tokens, which are never text, around a role's name and its words."""

    begin: str | None  # once, before the first turn
    open: str  # before the role's name
    close: str | None  # after it
    gap: str  # text between the role's name and the words
    end: str  # after the words: the turn is over
    after: str  # text after that

    @property
    def controls(self) -> tuple[str, ...]:
        """Return the names of the control tokens, in the order in which a tokenizer gets them."""
        return tuple(name for name in (self.begin, self.open, self.close, self.end) if name)


FORMATS = {
    "chatml": ChatFormat(None, "<|im_start|>", None, "\n", "<|im_end|>", "\n"),
    "llama3": ChatFormat(
        "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "\n\n", "<|eot_id|>", ""
    ),
}


def fault_of(dialog: object) -> str | None:
    """Return what is wrong with a dialog, or None.

    A system message comes first if there is one; then user and assistant take turns, the user first; all
    say something; the assistant speaks at least once.
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
        if any("\ud800" <= c <= "\udfff" for c in content):
            return "a text that is no Unicode"
        if role == "system" and i:
            return "a system message that is not the first"
        if role == last:
            return f"two turns of the {role} in a row"
        if role == "assistant" and last in (None, "system"):
            return "the assistant speaks first"
        last = role
    return None if any(m["role"] == "assistant" for m in dialog) else "no turn of the assistant"


def _refuse_fault(messages: Dialog, add_generation_prompt: bool) -> None:
    """Raise ValueError for a dialog with a fault; where an answer is to follow, with it."""
    if isinstance(messages, list | tuple) and messages and add_generation_prompt:
        messages = [*messages, {"role": "assistant", "content": "..."}]
    if fault := fault_of(messages):
        raise ValueError(f"this dialog cannot be written: {fault}.")


def _pieces(
    messages: Dialog, form: ChatFormat, add_generation_prompt: bool
) -> Iterator[tuple[str, bool, bool]]:
    """Yield a dialog as (text, is it a control token, is it learned)."""
    _refuse_fault(messages, add_generation_prompt)
    if form.begin:
        yield form.begin, True, False
    turns: list[tuple[str, str | None]] = [(m["role"], m["content"]) for m in messages]
    if add_generation_prompt:
        turns.append(("assistant", None))
    for role, content in turns:
        yield form.open, True, False
        if form.close:
            yield role, False, False
            yield form.close, True, False
            yield form.gap, False, False
        else:
            yield role + form.gap, False, False
        if content is not None:
            learned = role == "assistant"
            yield content, False, learned
            yield form.end, True, learned
            yield form.after, False, False


def _written(messages: Dialog, form: ChatFormat, add_generation_prompt: bool) -> str:
    return "".join(text for text, *_ in _pieces(messages, form, add_generation_prompt))


def format_chatml(messages: Dialog, add_generation_prompt: bool = False) -> str:
    """Return a dialog as ChatML writes it, the format of Qwen2.5 and others; ValueError names its fault.

    add_generation_prompt: end with the header of an answer, for the model to go on.
    """
    return _written(messages, FORMATS["chatml"], add_generation_prompt)


def format_llama3(messages: Dialog, add_generation_prompt: bool = False) -> str:
    """Return a dialog as Llama 3 writes it; its template strips blanks around the words, this does not.

    add_generation_prompt and ValueError: as in format_chatml.
    """
    return _written(messages, FORMATS["llama3"], add_generation_prompt)


class ChatTokenizer:
    """Dialogs as tokens, and which of them are learned: the assistant's words and the end of its turn.

    tokenizer: a BPETokenizer; the control tokens that it lacks get the next free ids. What a message says
    is encoded as text, so a control token's name in it stays text. `end` is the id that ends a turn,
    `controls` those of all control tokens. Raises ValueError for a format that is not in FORMATS.
    """

    def __init__(self, tokenizer: BPETokenizer, format: str = "chatml") -> None:
        if format not in FORMATS:
            raise ValueError(f"format {format!r}: expected one of {', '.join(FORMATS)}.")
        self.format, self.form = format, FORMATS[format]
        names, free = dict(tokenizer.special_tokens), tokenizer.vocab_size
        for name in self.form.controls:
            if name not in names:
                names[name], free = free, free + 1
        self.base = BPETokenizer(tokenizer.ranks, names, tokenizer.pattern)
        self.end = names[self.form.end]
        self.controls = frozenset(names[name] for name in self.form.controls)

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
        """Return (ids, labels) of a dialog, equally long; a label is its id, or -100 if it is not learned.

        add_generation_prompt: end with the header of an answer, for the model to go on. Raises ValueError
        for a dialog with a fault, and names it.
        """
        ids, labels = [], []
        for text, control, learned in _pieces(messages, self.form, add_generation_prompt):
            piece = [self.base.special_tokens[text]] if control else self.base.encode(text)
            ids += piece
            labels += piece if learned else [-100] * len(piece)
        return ids, labels

    def prompt(self, question: str, system: str | None = None) -> list[int]:
        """Return the ids of a question up to where the answer begins."""
        messages = [{"role": "user", "content": question}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return self.render(messages, add_generation_prompt=True)[0]


def answer_ids(
    model: MiniGPT,
    chat: ChatTokenizer,
    dialogs: Iterable[Dialog],
    max_new_tokens: int = 64,
    strategy: str = "greedy",
    **options: Any,
) -> list[list[int]]:
    """Return the ids that the model answers to each dialog, the special token that ended them included.

    Without one, it was cut off after max_new_tokens. options: those of GenerationConfig but stop; the same
    seed gives the same answers. Raises ValueError for a dialog with a fault, or one that is too long.
    """
    prompts = [chat.render(dialog, add_generation_prompt=True)[0] for dialog in dialogs]
    longest, room = max(map(len, prompts), default=0), model.config.max_seq_len
    if longest > room:
        raise ValueError(
            f"a dialog of {longest} tokens, but the model reads {room}: leave turns out."
        )
    stop = frozenset(chat.base.special_tokens.values())
    writer, answers = TextGenerator(model, chat), [[] for _ in prompts]
    seed, done = options.pop("seed", None), 0
    for length in sorted(set(map(len, prompts))):  # those of one length together
        rows = [b for b, prompt in enumerate(prompts) if len(prompt) == length]
        options["seed"] = None if seed is None else seed + done
        found = writer.generate_ids(
            torch.tensor([prompts[b] for b in rows]).to(model.embedding.weight.device),
            max_new_tokens, strategy, stop=tuple(stop), **options,
        )[:, length:].tolist()  # fmt: skip
        for b, ids in zip(rows, found):
            ends = [i for i, token in enumerate(ids) if token in stop]
            answers[b] = ids[: ends[0] + 1] if ends else ids
        done += len(rows)
    return answers


def reply(
    model: MiniGPT,
    chat: ChatTokenizer,
    messages: Dialog,
    max_new_tokens: int = 64,
    strategy: str = "greedy",
    **options: Any,
) -> str:
    """Return the assistant's next turn as text, without special tokens: str. As answer_ids otherwise."""
    (ids,) = answer_ids(model, chat, [messages], max_new_tokens, strategy, **options)
    special = chat.base.special_tokens.values()
    return chat.decode([token for token in ids if token not in special])
