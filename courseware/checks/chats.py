"""Dialogs, small models and Hugging Face's tokenizers for checks of chat formats and fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from courseware.checks.agreement import roughen
from minigpt_lib.bpe import GPT2_PATTERN, LLAMA3_PATTERN, BPETokenizer
from minigpt_lib.model import GPTConfig, MiniGPT

Message = dict[str, str]

# Qwen2.5's chat template, without its default system message and its tools.
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Llama 3's chat template, with its text cut in two so that {% generation %} can mark what the assistant says.
LLAMA3_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first %}{{ '<|begin_of_text|>' }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% set said = message['content'] | trim + '<|eot_id|>' %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ said }}{% endgeneration %}"
    "{% else %}{{ said }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML_TEMPLATE, "llama3": LLAMA3_TEMPLATE}

# As tokenizer.json of Llama 3 spells it.
_LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def user(text: str) -> Message:
    """Return a turn of the user."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """Return a turn of the assistant."""
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    """Return a system message."""
    return {"role": "system", "content": text}


LATE = [user("Is it late?"), assistant("Yes.")]
TALK = [
    system("Be brief."),
    *LATE,
    user("How late? Say it in words."),
    assistant("Past eleven, I fear."),
]


def tiny_model(vocab_size: int, seed: int = 0, **changes: Any) -> MiniGPT:
    """Return a model of one layer, 24 channels and 96 positions, with weights large enough for errors to show.

    changes: fields of GPTConfig that differ.
    """
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"max_seq_len": 96, "n_embd": 24, "n_layer": 1, "n_head": 2}
    sizes |= changes
    return roughen(MiniGPT(GPTConfig(vocab_size, **sizes)), std=0.2)


def as_hugging_face(base: BPETokenizer, template: str | None = None) -> Any:
    """Return Hugging Face's tokenizer with the vocabulary and pattern of ours, and a chat template.

    Raises ValueError for patterns other than GPT-2's and Llama 3's.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shown = _shown_bytes()
    ranks = {_spelled(token, shown): i for token, i in base.ranks.items()}
    merges = [(_spelled(left, shown), _spelled(right, shown)) for left, right in base.merges]
    fast = Tokenizer(models.BPE(ranks, merges))

    if base.pattern == GPT2_PATTERN:
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif base.pattern == LLAMA3_PATTERN:
        cut = pre_tokenizers.Split(Regex(_LLAMA3_REGEX), behavior="isolated")
        spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        fast.pre_tokenizer = pre_tokenizers.Sequence([cut, spell])
    else:
        raise ValueError(f"expected the pattern of GPT-2 or Llama 3, got {base.pattern!r}")

    fast.decoder = decoders.ByteLevel()
    controls = sorted(base.special_tokens, key=lambda name: base.special_tokens[name])
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in controls])
    return PreTrainedTokenizerFast(tokenizer_object=fast, chat_template=template)


def _shown_bytes() -> dict[int, str]:
    """Return the character with which byte-level BPE writes each byte: itself where that can be seen."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


def _spelled(token: bytes, shown: dict[int, str]) -> str:
    return "".join(shown[byte] for byte in token)


def same_tokens(
    ours: Sequence[int], theirs: Sequence[int], chat: Any, what: str = "the dialog"
) -> None:
    """Check that two lists of ids are equal, and name the first token that is not, with what stands before it.

    chat: a ChatTokenizer, or anything with decode.
    """
    for i, (mine, other) in enumerate(zip(ours, theirs)):
        if mine != other:
            before = chat.decode(ours[max(0, i - 3) : i])
            raise AssertionError(
                f"{what}: after {before!r}, token {i} is {chat.decode([mine])!r}, expected {chat.decode([other])!r}"
            )
    if len(ours) != len(theirs):
        more, which = (ours, "too many") if len(ours) > len(theirs) else (theirs, "missing")
        rest = chat.decode(more[min(len(ours), len(theirs)) :])
        raise AssertionError(f"{what}: tokens are {which} at the end: {rest!r}")


def learned_text(chat: Any, ids: Sequence[int], labels: Sequence[int]) -> list[str]:
    """Return the stretches of a dialog that are learned, as text; a label that is not its id raises AssertionError."""
    stretches: list[list[int]] = []
    last = -100
    assert len(ids) == len(labels), f"{len(ids)} ids, but {len(labels)} labels"
    for i, (token, label) in enumerate(zip(ids, labels)):
        if label not in (-100, token):
            raise AssertionError(
                f"the label of token {i}, {chat.decode([token])!r}, is {label}: expected its id {token}, or -100 "
                "where nothing is learned"
            )
        if label >= 0 and last < 0:
            stretches.append([])
        if label >= 0:
            stretches[-1].append(token)
        last = label
    return [chat.decode(stretch) for stretch in stretches]


def same_text(ours: str, theirs: str, what: str = "the text") -> None:
    """Check that two texts are equal, and show the first place where they are not."""
    if ours == theirs:
        return
    i = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs))
    )
    before, mine, other = ours[max(0, i - 20) : i], ours[i : i + 20], theirs[i : i + 20]
    raise AssertionError(f"{what}: after {before!r} comes {mine!r}, expected {other!r}")
