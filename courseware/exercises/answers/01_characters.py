"""Chapter 01: alphabets that grow, unknown characters, and an error that helps."""

import re

from courseware.exercises import Exercise, Mistake


def _probe_extend(answer):
    yield "extend('abn', 'banana')", answer("abn", "banana")
    yield "extend('ba', 'cabbac')", answer("ba", "cabbac")
    yield "extend('xyz', …), seven new characters", answer("xyz", "Why, Äsop?")


EXTEND = Exercise(
    "extend_alphabet", _probe_extend,
    hints=(
        "The old alphabet must stay as it is, at the front: its places are the ids that a model was trained with.",
        "The new characters are set(text) - set(alphabet). A set has no order, so sort them.",
        "alphabet + ''.join(sorted(new))",
    ),
    explanation="Old characters keep their places; new ones follow, sorted, so that the result is always the same.",
    mistakes=(
        Mistake("old ids changed", "You sorted all characters together, so old ones moved to other places: a trained model would read nonsense.",
                edit=(("alphabet +", ""), ("set(text) - set(alphabet)", "set(text) | set(alphabet)")), look='chapter 1, "Break it"'),
        Mistake("characters twice", "Some characters stand in the alphabet twice, so one of their ids can never be produced. Add each new character once.",
                edit=("set(text) - set(alphabet)", "c for c in text if c not in alphabet")),
        Mistake("old characters once more", "You added the characters that the alphabet already has a second time. Add only those that it lacks.",
                edit=("- set(alphabet)", "")),
        Mistake("in order of appearance", "The new characters follow the text's order. Another text with the same letters would number them differently: sort them.",
                edit=("sorted(set(text) - set(alphabet))", "dict.fromkeys(c for c in text if c not in alphabet)")),
        Mistake("appended as they come", "You append every character that the alphabet lacks, in the text's order and as often as it occurs. Take each new character once, and sort them.",
                edit=("sorted(set(text) - set(alphabet))", "c for c in text if c not in alphabet")),
        Mistake("in the order of a set", "You joined a set as it comes. Its order changes from one start of Python to the next, and the ids with it: sort it.",
                edit=("sorted(set(text) - set(alphabet))", "set(text) - set(alphabet)")),
        Mistake("only the new characters", "The old alphabet is missing from your result. The model still needs all of its characters.",
                edit=("alphabet +", "")),
    ),
)  # fmt: skip


def _probe_unknown(answer):
    yield "encode_unknown('banana', 'abn')", answer("banana", "abn")
    yield "encode_unknown('bandana!', 'abn')", answer("bandana!", "abn")
    yield "encode_unknown('hello', 'eh')", answer("hello", "eh")


UNKNOWN = Exercise(
    "encode_unknown", _probe_unknown,
    hints=(
        "Ids 0 to len(alphabet) - 1 are taken by the known characters. Which is the next free one?",
        "len(alphabet) is free. Every character outside the alphabet gets it.",
        "[alphabet.index(c) if c in alphabet else len(alphabet) for c in text]",
    ),
    explanation="Real tokenizers call this token <unk>. It keeps the length of the text, and loses which character it was.",
    mistakes=(
        Mistake("the unknown id is a known one", "Unknown characters got id 0, which belongs to the first character: decoding would show that instead.",
                edit=("len(alphabet)", "0")),
        Mistake("the unknown id is the last known one", "Unknown characters got len(alphabet) - 1, which belongs to the last character. Ids begin at 0, so n characters use 0 to n - 1.",
                edit=("len(alphabet)", "len(alphabet) - 1")),
        Mistake("minus one", "Unknown characters got -1, which str.find returns for them. A table has no row -1, so Python would take the last one.",
                edit=("len(alphabet)", "-1")),
        Mistake("None in place of an id", "Unknown characters got None, which is what dict.get returns for them. Give it the free id as its second argument.",
                edit=("len(alphabet)", "None")),
        Mistake("always 3", "You wrote the number 3 of the example. With another alphabet another id is free: len(alphabet).",
                edit=("len(alphabet)", "3")),
        Mistake("the unknown vanishes", "Unknown characters were left out, so the ids no longer line up with the text. Each character needs an id.",
                edit=("if c in alphabet else unknown for c in text", "for c in text if c in alphabet")),
        Mistake("the unknown raises an error", "Your function stops at the first unknown character, as str.index and dict[...] do. Here it should go on, with the extra id.",
                edit=("if c in alphabet else unknown", ""),
                also=(("alphabet.index(c) if c in alphabet else unknown", "dict(zip(alphabet, range(99)))[c]"),)),
        Mistake("an id for each unknown character", "Different unknown characters got different ids. They share a single one: a model's table cannot grow with each new text.",
                edit=("unknown =", 'alphabet += "".join(dict.fromkeys(d for d in text if d not in alphabet))\nunknown ='),
                also=(("unknown =", 'alphabet += "".join(sorted(set(text) - set(alphabet)))\nunknown ='),)),
        Mistake("all known ids moved up", "You gave 0 to the unknown and moved all known characters up by one. Their ids must stay, since a model was trained with them.",
                edit=(("len(alphabet)", "0"), ("alphabet.index(c)", "alphabet.index(c) + 1"))),
    ),
)  # fmt: skip


def _probe_strictly(answer):
    cases = (("banana", "a", 1), ("ban!na", "!", 3), ("§§ban", "§", 0), ("banané?", "é", 5))
    for text, character, position in (*cases, ("ban" * 40 + "€", "€", 120)):
        yield f"encode_strictly({text[-9:]!r}, 'abn')", _outcome(answer, text, character, position)


def _outcome(answer, text, character, position):
    """Return what the answer did: ("returned", ids), or the error and what its message names."""
    try:
        return "returned", answer(text, "abn")
    except (ValueError, LookupError, AssertionError) as error:
        found = [f"names {character!r}"] if character in str(error) else []
        numbers = re.findall(r"\d+", str(error))
        named = [n for n in (position, position + 1) if str(n) in numbers]
        return type(error).__name__, found + [f"names position {n}" for n in named[:1]]


STRICTLY = Exercise(
    "encode_strictly", _probe_strictly,
    hints=(
        "Run the buggy function on 'ban!na' and look at the fourth id. What does str.find return for a missing character?",
        "Test `character not in alphabet` before looking it up; enumerate(text) gives the position.",
        "raise ValueError(f'{character!r} at position {position} is not in the alphabet')",
    ),
    explanation="str.find answers -1 instead of failing, and alphabet[-1] is a real character: the mistake stays hidden.",
    mistakes=(
        Mistake("still -1", "An unknown character still becomes -1, which str.find returns for it, and decoding gives the last character of the alphabet.",
                of="given"),
        Mistake("the unknown vanishes", "The unknown character is skipped silently; the task asks for a ValueError.",
                edit=('raise ValueError(f"{character!r} at position {position} is not in the alphabet")', "continue")),
        Mistake("no position", "The error does not say where. In five million characters, that is the first thing one wants to know: enumerate(text).",
                edit=('f"{character!r} at position {position} is not in the alphabet"', 'f"unknown: {character!r}"')),
        Mistake("no character", "The error says where, but not which character is unknown.",
                edit=('f"{character!r} at position {position} is not in the alphabet"', 'f"unknown at {position}"')),
        Mistake("counted from 1", "Your positions begin at 1. text[position] should be the unknown character, so count from 0.",
                edit=("enumerate(text)", "enumerate(text, 1)")),
        Mistake("the error of str.index", "It fails, but with Python's own 'substring not found', which names neither the character nor the position. Raise your own.",
                edit=('if character not in alphabet: raise ValueError(f"{character!r} at position {position} is not in the alphabet")', "")),
        Mistake("another error than ValueError", "Your function raises, but not a ValueError, which is what its caller expects. A dictionary raises a KeyError: catch it, or test before.",
                edit=("ValueError(", "KeyError("),
                also=(('ValueError(f"{character!r} at position {position} is not in the alphabet")', "KeyError(character)"),
                      ("raise ValueError(", "assert False, ("))),
        Mistake("0 taken for nothing", "Your function refuses the first character of the alphabet: its id is 0, which counts as False. Compare with -1, or use `in`.",
                edit=("character not in alphabet", "alphabet.find(character) < 1")),
    ),
)  # fmt: skip
