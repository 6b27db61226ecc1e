"""Chapter 01: the character tokenizer round-trips any text and refuses bad input."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import survives

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
    "content",
    ["", "{", "[]", "{}", '{"type": "Other"}', '{"type": "CharTokenizer"}', "[" * 9999],
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


# ---------------------------------------------------------------- faults that the chapter's checks must notice

FAULTS = {
    "ids in order of appearance": ("characters = sorted(set(alphabet))", "characters = list(dict.fromkeys(alphabet))"),
    "the alphabet is sorted backwards": ("sorted(set(alphabet))", "sorted(set(alphabet), reverse=True)"),
    "characters that occur twice are kept twice": ("sorted(set(alphabet))", "sorted(alphabet)"),
    "ids begin at 1": ("in enumerate(characters)}", "in enumerate(characters, 1)}"),
    "one token too many": ("return len(self.alphabet)", "return len(self.alphabet) + 1"),
    "one token too few": ("return len(self.alphabet)", "return len(self.alphabet) - 1"),
    "unknown characters are skipped": ("for character in text]", "for character in text if character in self._id_of]"),
    "unknown characters get id 0": ("self._id_of[character] for", "self._id_of.get(character, 0) for"),
    "upper and lower case are the same": ("return cls(text)", "return cls(text.lower())"),
    "the text is encoded backwards": ("for character in text]", "for character in reversed(text)]"),
    "the last unknown character is named": (
        "next(i for i, character in enumerate(text) if character not in known)",
        "[i for i, character in enumerate(text) if character not in known][-1]"),
    "the position of an unknown character counts from 1": (
        "got {character!r} (U+{ord(character):04X}) at position {position}",
        "got {character!r} (U+{ord(character):04X}) at position {position + 1}"),
    "negative ids are accepted": ("if not 0 <= i < self.vocab_size", "if not i < self.vocab_size"),
    "the id after the last is not caught": ("0 <= i < self.vocab_size", "0 <= i <= self.vocab_size"),
    "characters are joined by spaces": ('return "".join(characters)', 'return " ".join(characters)'),
    "an empty alphabet is accepted": ("if not characters:", "if False:"),
    "pieces longer than a character are accepted": ("or len(item) != 1", ""),
    "only ASCII is saved": (
        '"alphabet": self.alphabet}', '"alphabet": self.alphabet.encode("ascii", "ignore").decode()}'),
    "the old file is overwritten in place": (
        'temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")', "temporary = path"),
    "the file keeps its temporary name": ("os.replace(temporary, path)", ""),
    "any JSON file is accepted": ('if content["type"] != "CharTokenizer":', "if False:"),
    "load returns the alphabet": ('return cls(content["alphabet"])', 'return content["alphabet"]'),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("01", tmp_path, *FAULTS[fault])
