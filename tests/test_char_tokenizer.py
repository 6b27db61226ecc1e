"""Chapter 01: the character tokenizer round-trips any text and refuses bad input."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt_lib.char_tokenizer import CharTokenizer

any_text = st.text(min_size=1)


@settings(deadline=None)
@given(any_text)
def test_decoding_restores_the_text(text):
    tokenizer = CharTokenizer.from_text(text)

    ids = tokenizer.encode(text)

    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert set(ids) == set(range(tokenizer.vocab_size))


@settings(deadline=None)
@given(any_text, st.randoms())
def test_the_alphabet_depends_only_on_which_characters_occur(text, random):
    characters = list(text * 2)
    random.shuffle(characters)

    shuffled = CharTokenizer.from_text("".join(characters))

    assert shuffled.alphabet == CharTokenizer.from_text(text).alphabet


@settings(deadline=None)
@given(any_text, any_text)
def test_the_first_unknown_character_is_named(known, text):
    tokenizer = CharTokenizer.from_text(known)
    unknown = [i for i, character in enumerate(text) if character not in known]

    if not unknown:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        return

    i = unknown[0]
    expected = f"got {text[i]!r} (U+{ord(text[i]):04X}) at position {i}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        tokenizer.encode(text)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_saved_tokenizer_can_be_loaded(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("t") / "tokenizer.json"
    original = CharTokenizer.from_text(text)

    original.save(path)

    assert CharTokenizer.load(path).alphabet == original.alphabet


def test_an_empty_text_has_no_tokens():
    tokenizer = CharTokenizer.from_text("abc")

    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("alphabet", ["", [], ["ab"], ["a", ""], [1, 2]])
def test_an_invalid_alphabet_is_refused(alphabet):
    with pytest.raises((ValueError, TypeError), match="expected"):
        CharTokenizer(alphabet)


@pytest.mark.parametrize("wrong", [-1, 3, 10**9])
def test_an_id_outside_the_vocabulary_is_refused_with_its_position(wrong):
    with pytest.raises(ValueError, match=f"from 0 to 2, got {wrong} at position 1"):
        CharTokenizer.from_text("abc").decode([0, wrong])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"type": "Other"}', '{"type": "CharTokenizer"}']
)
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(ValueError, match="CharTokenizer.save"):
        CharTokenizer.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    CharTokenizer.from_text("old").save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        CharTokenizer.from_text("new").save(path)

    assert path.read_bytes() == before
