"""Exercises of chapter 01: alphabets, unknown characters, and an error that helps."""

from __future__ import annotations

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- extend an alphabet ---


def extend(alphabet, text):
    return alphabet + "".join(sorted(set(text) - set(alphabet)))


def _run_extend(answer):
    yield "extend('abn', 'banana')", answer("abn", "banana")
    yield "extend('abn', 'a zebra')", answer("abn", "a zebra")
    yield "extend('ba', 'cabbac')", answer("ba", "cabbac")
    yield "extend('', 'to be')", answer("", "to be")


EXTEND = Exercise(
    name="extend_alphabet",
    chapter=1,
    title="new characters, old ids",
    minutes=10,
    difficulty=1,
    hints=(
        "The old alphabet must stay as it is, at the front: its places are the ids that a model was trained with.",
        "The new characters are set(text) - set(alphabet). A set has no order, so sort them.",
        "alphabet + ''.join(sorted(new))",
    ),
    run=_run_extend,
    reference=extend,
    explanation="Old characters keep their places; new ones follow, sorted, so that the result is always the same.",
    wrong=(
        WrongAnswer(
            "old ids changed",
            "You sorted all characters together, so old ones moved to other places: a trained model would read nonsense.",
            'chapter 1, "Break it"',
            lambda alphabet, text: "".join(sorted(set(alphabet + text))),
        ),
        WrongAnswer(
            "characters twice",
            "Some characters stand in the alphabet twice, so one of their ids can never be produced.",
            "add each new character once",
            lambda alphabet, text: alphabet + "".join(c for c in sorted(text) if c not in alphabet),
        ),
        WrongAnswer(
            "new characters in front",
            "The new characters come first and push every old id up.",
            "the order of the two parts",
            lambda alphabet, text: "".join(sorted(set(text) - set(alphabet))) + alphabet,
        ),
        WrongAnswer(
            "in order of appearance",
            "The new characters follow the text's order. Another text with the same letters would number them differently.",
            "sort the new ones",
            lambda alphabet, text: (
                alphabet + "".join(dict.fromkeys(c for c in text if c not in alphabet))
            ),
        ),
    ),
)

# --- an unknown token ---


def encode_unknown(text, alphabet):
    unknown = len(alphabet)
    return [alphabet.index(c) if c in alphabet else unknown for c in text]


def _run_unknown(answer):
    yield "encode_unknown('banana', 'abn')", answer("banana", "abn")
    yield "encode_unknown('bandana!', 'abn')", answer("bandana!", "abn")
    yield "encode_unknown('', 'abn')", answer("", "abn")


UNKNOWN = Exercise(
    name="encode_unknown",
    chapter=1,
    title="one id for everything unknown",
    minutes=10,
    difficulty=1,
    hints=(
        "Ids 0 to len(alphabet) - 1 are taken by the known characters. Which is the next free one?",
        "len(alphabet) is free. Every character outside the alphabet gets it.",
        "[alphabet.index(c) if c in alphabet else len(alphabet) for c in text]",
    ),
    run=_run_unknown,
    reference=encode_unknown,
    explanation="Real tokenizers call this token <unk>. It keeps the length of the text, and loses which character it was.",
    wrong=(
        WrongAnswer(
            "the unknown id is a known one",
            "Unknown characters got id 0, which belongs to the first character: decoding would show that instead.",
            "the next free id",
            lambda text, alphabet: [alphabet.index(c) if c in alphabet else 0 for c in text],
        ),
        WrongAnswer(
            "the unknown id is the last known one",
            "Unknown characters got len(alphabet) - 1, which belongs to the last character.",
            "ids begin at 0, so n characters use 0 to n - 1",
            lambda text, alphabet: [
                alphabet.index(c) if c in alphabet else len(alphabet) - 1 for c in text
            ],
        ),
        WrongAnswer(
            "the unknown vanishes",
            "Unknown characters were left out, so the ids no longer line up with the text.",
            "one id for every character of the text",
            lambda text, alphabet: [alphabet.index(c) for c in text if c in alphabet],
        ),
        WrongAnswer(
            "minus one",
            "Unknown characters got -1. str.find says so, but a table has no row -1, and Python would take the last.",
            "the next free id",
            lambda text, alphabet: [alphabet.find(c) for c in text],
        ),
    ),
)

# --- find the bug: an error that helps ---


def encode_strictly(text, alphabet):
    ids = []
    for position, character in enumerate(text):
        if character not in alphabet:
            raise ValueError(f"{character!r} at position {position} is not in the alphabet")
        ids.append(alphabet.index(character))
    return ids


def _run_strictly(answer):
    yield "encode_strictly('banana', 'abn')", answer("banana", "abn")
    for text, character, position in (("ban!na", "!", 3), ("xxban", "x", 0), ("banané?", "é", 5)):
        try:
            outcome = ("returned", answer(text, "abn"))
        except ValueError as error:
            message = str(error)
            known = [f"names {character!r}"] * (character in message) + ["names the position"] * (
                str(position) in message
            )
            outcome = ("ValueError", known)
        yield f"encode_strictly({text!r}, 'abn')", outcome


def _given(text, alphabet):
    """Return the id of each character; ValueError names the first unknown one and its position."""
    ids = []
    for character in text:
        ids.append(alphabet.find(character))
    return ids


def _strictly(find):
    def answer(text, alphabet):
        unknown = [(i, c) for i, c in enumerate(text) if c not in alphabet]
        if unknown:
            raise ValueError(find(text, unknown))
        return [alphabet.index(c) for c in text]

    return answer


STRICTLY = Exercise(
    name="encode_strictly",
    chapter=1,
    title="find the bug: the silent -1",
    minutes=10,
    difficulty=2,
    hints=(
        "Run the buggy function on 'ban!na' and look at the fourth id. What does str.find return for a missing character?",
        "Test `character not in alphabet` before looking it up; enumerate(text) gives the position.",
        "raise ValueError(f'{character!r} at position {position} is not in the alphabet')",
    ),
    run=_run_strictly,
    reference=encode_strictly,
    given=_given,
    explanation="str.find answers -1 instead of failing, and alphabet[-1] is a real character: the mistake stays hidden.",
    wrong=(
        WrongAnswer(
            "still -1",
            "An unknown character still becomes -1, and decoding it gives the last character of the alphabet.",
            "what str.find returns when it finds nothing",
            lambda text, alphabet: [alphabet.find(c) for c in text],
        ),
        WrongAnswer(
            "the unknown vanishes",
            "The unknown character is skipped silently; the task asks for a ValueError.",
            "raise ValueError(...)",
            lambda text, alphabet: [alphabet.index(c) for c in text if c in alphabet],
        ),
        WrongAnswer(
            "no position",
            "The error does not say where. In five million characters, that is the first thing one wants to know.",
            "enumerate(text)",
            _strictly(lambda text, unknown: f"unknown character {unknown[0][1]!r}"),
        ),
        WrongAnswer(
            "the error of str.index",
            "It fails, but with Python's own 'substring not found', which names neither the character nor the position.",
            "raise your own ValueError",
            lambda text, alphabet: [alphabet.index(c) for c in text],
        ),
    ),
)

EXERCISES = (EXTEND, UNKNOWN, STRICTLY)
