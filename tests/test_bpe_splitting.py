"""Chapter 02: texts are split as the patterns of four models say, also by the fast way for ASCII and in pieces."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
import regex
import tokenizers
from bpe_samples import DISPUTED, PATTERNS, TEXT
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt_lib import bpe
from minigpt_lib.bpe import GPT2_PATTERN, split_text

each_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
any_pattern = st.sampled_from([*PATTERNS.values()])


def test_only_characters_unknown_to_this_python_are_disputed():
    assert all(unicodedata.category(c) == "Cn" for c in DISPUTED)


def test_the_pattern_of_gpt2_is_tiktokens():
    from tiktoken_ext import openai_public

    assert openai_public.r50k_pat_str == GPT2_PATTERN


PUBLISHED_LLAMA3 = (  # the `pre_tokenizer` of Llama 3's tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split_at(pattern: str) -> tokenizers.pre_tokenizers.PreTokenizer:
    return tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")


def _rivals() -> dict[str, tokenizers.pre_tokenizers.PreTokenizer]:
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    return {
        "gpt2": byte_level,
        # Their engine reads {1,3}+ as "one to three digits, again and again".
        "gpt4": _split_at(PATTERNS["gpt4"].replace("{1,3}+", "{1,3}")),
        "llama3": _split_at(PUBLISHED_LLAMA3),
        "smollm2": tokenizers.pre_tokenizers.Sequence([digits, byte_level]),
    }


RIVALS = _rivals()


@settings(max_examples=300, deadline=None)
@given(TEXT, st.sampled_from([*PATTERNS]))
def test_hugging_face_splits_in_the_same_places(text, name):
    theirs = [text[start:end] for _, (start, end) in RIVALS[name].pre_tokenize_str(text)]

    assert list(split_text(text, PATTERNS[name])) == theirs


@each_pattern
def test_the_ascii_pattern_splits_every_short_string_like_the_full_one(pattern):
    full = regex.compile(pattern)
    ascii_only = bpe._ASCII_TWIN[pattern]
    letters = "sL' 0!\n\r\t\x1c"  # one of each class that the patterns distinguish

    for length in range(6):
        for parts in itertools.product(letters, repeat=length):
            text = "".join(parts)
            assert ascii_only.findall(text) == full.findall(text), repr(text)


@each_pattern
def test_the_ascii_pattern_classifies_every_ascii_character_like_the_full_one(pattern):
    full = regex.compile(pattern)
    ascii_only = bpe._ASCII_TWIN[pattern]

    for a, b in itertools.product(map(chr, range(128)), repeat=2):
        for text in (a + b, "x" + a + b, f"'{a}{b}"):
            assert ascii_only.findall(text) == full.findall(text), repr(text)


@each_pattern
def test_a_safe_cut_does_not_change_the_chunks_of_any_short_string(pattern):
    full = regex.compile(pattern)

    for parts in itertools.product("sL' 0!\n\r\té", repeat=5):
        text = "".join(parts)
        for cut in bpe._SAFE_CUT.finditer(text):
            i = cut.start()
            assert full.findall(text[:i]) + full.findall(text[i:]) == full.findall(text)


@settings(deadline=None)
@given(
    st.lists(TEXT, min_size=2, max_size=2),
    any_pattern,
    st.sampled_from(["x y", "x\ny", "é 中", "! 1", "9\n'"]),
)
def test_a_safe_cut_does_not_change_the_chunks_of_any_text(sides, pattern, middle):
    text = middle.join(sides)
    expected = regex.findall(pattern, text)

    for cut in bpe._SAFE_CUT.finditer(text):
        i = cut.start()
        assert regex.findall(pattern, text[:i]) + regex.findall(pattern, text[i:]) == expected


@settings(deadline=None)
@given(TEXT, any_pattern, st.integers(1, 20))
def test_a_text_is_split_like_the_plain_pattern_whatever_the_size_of_the_pieces(
    text, pattern, size
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "_PIECE", size)
        chunks = list(split_text(text, pattern))

    assert chunks == regex.findall(pattern, text)
