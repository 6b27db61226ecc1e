"""What the tests of byte pair encoding share: the patterns, a sample text, and a strategy for any text."""

from __future__ import annotations

import sys
from functools import cache

import regex
import tiktoken
from hypothesis import strategies as st

from minigpt_lib.bpe import (
    GPT2_PATTERN,
    GPT4_PATTERN,
    LLAMA3_PATTERN,
    SMOLLM2_PATTERN,
    BPETokenizer,
    train_bpe,
)

PATTERNS = {
    "gpt2": GPT2_PATTERN,
    "gpt4": GPT4_PATTERN,
    "llama3": LLAMA3_PATTERN,
    "smollm2": SMOLLM2_PATTERN,
}
SAMPLE = (
    "KING HENRY:\nOnce more unto the breach, dear friends, once more;\nOr close the wall up with our "
    "English dead. It's 1599; they'll say 'twas LEAR'S.\n\n  naïve café — 中文字中文, 日本語 "
    "👩‍👩‍👧 😀😀 e\u0301e\u0301 मनुष्य עברית\r\n\tx = y[10] + 12345  \n"
) * 3
VOCAB_SIZE = 400
SPECIAL_TOKENS = ["<|endoftext|>", "<|end|>"]


def _disputed() -> set[str]:
    """Return the characters that `regex` and tiktoken classify differently.

    Each has the tables of the Unicode version that was current when it was built. A character that only the newer
    one knows as a letter or a digit may be split differently; they must agree on all others.
    """
    characters = "".join(chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000)
    single_bytes = {bytes([b]): b for b in range(256)}
    disputed = set()

    for kind in (r"\p{L}", r"\p{N}", r"\s"):
        rust = tiktoken.Encoding("x", pat_str=kind, mergeable_ranks=single_bytes, special_tokens={})
        theirs = rust.decode(rust.encode_ordinary(characters))
        disputed |= set(theirs) ^ set(regex.findall(kind, characters))

    return disputed


DISPUTED = _disputed()

# Any character may occur, but those that the patterns treat specially are more likely.
TEXT = st.text(
    st.one_of(
        st.sampled_from(
            "'sStTlLvVrReEdmM aAbB09 \n\r\t\x0b\x0c\x1c\x85\u00a0\u2028\u3000.,!-éſ中字😀\u0301\u200d"
        ),
        st.characters(exclude_categories=["Cs"]).filter(lambda c: c not in DISPUTED),
    ),
    max_size=60,
)


@cache
def tokenizer_with(pattern: str) -> BPETokenizer:
    """Return a tokenizer that was trained on the sample, with two special tokens."""
    return train_bpe(SAMPLE, VOCAB_SIZE, SPECIAL_TOKENS, PATTERNS[pattern])
