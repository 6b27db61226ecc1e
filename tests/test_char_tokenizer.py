"""Properties of the character tokenizer over text of any kind, and what it does with bad input."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt_lib.char_tokenizer import CharTokenizer

any_text = st.text(min_size=1)


@given(any_text)
def test_round_trip(text):
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text) and set(ids) == set(range(tokenizer.vocab_size))


@given(any_text, st.randoms())
def test_the_alphabet_depends_on_the_characters_alone(text, random):
    letters = list(text * 2)
    random.shuffle(letters)
    assert (
        CharTokenizer.from_text("".join(letters)).alphabet == CharTokenizer.from_text(text).alphabet
    )


@given(any_text, any_text)
def test_the_first_unknown_character_is_named(known, text):
    tokenizer = CharTokenizer.from_text(known)
    unknown = [i for i, character in enumerate(text) if character not in known]
    if unknown:
        expected = (
            f"got {text[unknown[0]]!r} (U+{ord(text[unknown[0]]):04X}) at position {unknown[0]}"
        )
        with pytest.raises(ValueError, match=re.escape(expected)):
            tokenizer.encode(text)
    else:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_saved_and_loaded(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("t") / "tokenizer.json"
    original = CharTokenizer.from_text(text)
    original.save(path)
    assert CharTokenizer.load(path).alphabet == original.alphabet


def test_empty_text_gives_no_tokens():
    tokenizer = CharTokenizer.from_text("abc")
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


@pytest.mark.parametrize("alphabet", ["", [], ["ab"], ["a", ""], [1, 2]])
def test_impossible_alphabets(alphabet):
    with pytest.raises((ValueError, TypeError), match="expected"):
        CharTokenizer(alphabet)


@pytest.mark.parametrize("wrong", [-1, 3, 10**9])
def test_ids_outside(wrong):
    with pytest.raises(ValueError, match=f"from 0 to 2, got {wrong} at position 1"):
        CharTokenizer.from_text("abc").decode([0, wrong])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"type": "Other"}', '{"type": "CharTokenizer"}']
)
def test_damaged_files(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="CharTokenizer.save"):
        CharTokenizer.load(path)


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    CharTokenizer.from_text("old").save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        CharTokenizer.from_text("new").save(path)
    assert path.read_bytes() == before
