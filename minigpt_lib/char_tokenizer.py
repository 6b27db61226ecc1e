"""Text as characters: the smallest tokenizer that can train a language model.

A token is one character; its id is the character's place in the sorted alphabet.

Written by notebooks/01_characters.ipynb (chapter 01): edit it there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable
from pathlib import Path

__all__ = ["CharTokenizer"]


def _unknown_character(text: str, known: Container[str], vocab_size: int) -> ValueError:
    """Return the error for the first character of `text` that is not in `known`."""
    position = next(i for i, character in enumerate(text) if character not in known)
    character = text[position]
    around = text[max(0, position - 10) : position + 11]
    return ValueError(
        f"expected characters of this tokenizer's alphabet ({vocab_size} of them), got {character!r} "
        f"(U+{ord(character):04X}) at position {position}, in {around!r}; "
        "remove it, or build the tokenizer from text that contains it"
    )


class CharTokenizer:
    """Turn text into the ids of its characters, and back.

    The id of a character is its place in the sorted alphabet: 0 .. vocab_size - 1, in the order of
    Unicode code points.

    >>> tokenizer = CharTokenizer.from_text("banana")
    >>> tokenizer.encode("nab")
    [2, 0, 1]
    >>> tokenizer.decode([1, 0, 0])
    'baa'
    """

    def __init__(self, alphabet: Iterable[str]) -> None:
        """Sort the distinct characters; raises ValueError if there are none, or one is not a single character."""
        characters = sorted(set(alphabet))
        if not characters:
            raise ValueError(
                "expected at least one character, got an empty alphabet; pass some text"
            )
        for item in characters:
            if not isinstance(item, str) or len(item) != 1:
                raise ValueError(
                    f"expected single characters, got {item!r}; use a string or list('...')"
                )

        self.alphabet = "".join(characters)
        self._id_of = {character: i for i, character in enumerate(characters)}

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """Return a tokenizer for every character that occurs in `text`."""
        return cls(text)

    @property
    def vocab_size(self) -> int:
        """Return the number of tokens: one for each character."""
        return len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """Return the id of each character; raises ValueError that names the first unknown one and its position."""
        try:
            return [self._id_of[character] for character in text]
        except KeyError:
            raise _unknown_character(text, self._id_of, self.vocab_size) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; raises ValueError that names the first id outside 0 .. vocab_size - 1."""
        characters = []
        for position, i in enumerate(ids):
            if not 0 <= i < self.vocab_size:
                raise ValueError(
                    f"expected ids from 0 to {self.vocab_size - 1}, got {i} at position {position}; "
                    "were these ids made by another tokenizer?"
                )
            characters.append(self.alphabet[i])
        return "".join(characters)

    def save(self, path: str | Path) -> None:
        """Write the alphabet to `path` as JSON; if the save is interrupted, the old file stays whole."""
        path = Path(path)
        content = {"type": "CharTokenizer", "alphabet": self.alphabet}

        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content, ensure_ascii=True), encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | Path) -> "CharTokenizer":
        """Return the tokenizer that `save` wrote; raises ValueError if the file holds anything else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["type"] != "CharTokenizer":
                raise ValueError(f"type is {content['type']!r}")
            return cls(content["alphabet"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"expected a file written by CharTokenizer.save, got {path} ({error}); save it again"
            ) from None
