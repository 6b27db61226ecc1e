"""Chapter 01's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import bisect

import pytest
from tools import judged


def extended_by_insertion(alphabet, text):
    new = []
    for c in text:
        if c not in alphabet and c not in new:
            bisect.insort(new, c)
    return alphabet + "".join(new)


def extended_in_order(alphabet, text):
    for c in text:
        if alphabet.find(c) == -1:
            alphabet += c
    return alphabet


def encoded_with_try(text, alphabet, unknown=len):
    ids = []
    for c in text:
        try:
            ids.append(alphabet.index(c))
        except ValueError:
            ids.append(unknown(alphabet))
    return ids


def encoded_by_a_growing_table(text, alphabet):
    table = {c: i for i, c in enumerate(alphabet)}
    return [table.setdefault(c, len(table)) for c in text]


def encoded_behind_the_unknown(text, alphabet):
    table = dict(zip(alphabet, range(1, 99)))
    return [table.get(c, 0) for c in text]


def strict_with_a_table(text, alphabet):
    table = {c: i for i, c in enumerate(alphabet)}
    try:
        return list(map(table.__getitem__, text))
    except KeyError as error:
        unknown = error.args[0]
        raise ValueError(f"at {text.index(unknown)}: {unknown}") from error


def strict_afterwards(text, alphabet, error=ValueError, first=0, say="index {i} has {c}"):
    ids = [alphabet.find(c) for c in text]
    if -1 in ids:
        i = ids.index(-1)
        raise error(say.format(i=i + first, c=text[i]))
    return ids


def strict_by_truth(text, alphabet):
    for i, c in enumerate(text):
        if alphabet.find(c) <= 0:
            raise ValueError(f"{c} ({i})")
    return [alphabet.find(c) for c in text]


ANSWERS = [
    ("extend_alphabet", lambda a, t: a + "".join(c for c in sorted(set(t)) if a.find(c) < 0), ""),
    ("extend_alphabet", extended_by_insertion, ""),
    ("extend_alphabet", lambda a, t: "".join([*a, *sorted({*t}.difference(a))]), ""),
    ("extend_alphabet", extended_in_order, "in order of appearance"),
    ("extend_alphabet", lambda a, t: a + t.translate({ord(c): None for c in a}), "appended as they come"),
    ("extend_alphabet", lambda a, t: "".join(sorted({*a, *t})), "old ids changed"),
    ("extend_alphabet", lambda a, t: "".join(sorted({*t}.difference(a))), "only the new characters"),
    ("extend_alphabet", lambda a, t: "".join(sorted(c for c in t if c not in a)),
     "two things at once: characters twice, and only the new characters"),
    ("extend_alphabet", lambda a, t: [*a, *sorted({*t}.difference(a))], "wrong type"),
    ("encode_unknown", lambda t, a: [dict(zip(a, range(99))).get(c, len(a)) for c in t], ""),
    ("encode_unknown", encoded_with_try, ""),
    ("encode_unknown", lambda t, a: [(a + c).index(c) for c in t], ""),
    ("encode_unknown", lambda t, a: encoded_with_try(t, a, lambda a: a.index(a[-1])),
     "the unknown id is the last known one"),
    ("encode_unknown", lambda t, a: encoded_with_try(t, a, lambda a: 3), "always 3"),
    ("encode_unknown", encoded_by_a_growing_table, "an id for each unknown character"),
    ("encode_unknown", encoded_behind_the_unknown, "all known ids moved up"),
    ("encode_unknown", lambda t, a: [dict(zip(a, range(99))).get(c) for c in t], "None in place of an id"),
    ("encode_unknown", lambda t, a: [dict(zip(a, range(99)))[c] for c in t], "the unknown raises an error"),
    ("encode_strictly", strict_with_a_table, ""),
    ("encode_strictly", strict_afterwards, ""),
    ("encode_strictly", lambda t, a: strict_afterwards(t, a, say="unknown {c}"), "no position"),
    ("encode_strictly", lambda t, a: strict_afterwards(t, a, first=1), "counted from 1"),
    ("encode_strictly", lambda t, a: strict_afterwards(t, a, KeyError), "another error than ValueError"),
    ("encode_strictly", lambda t, a: [dict(zip(a, range(99)))[c] for c in t], "another error than ValueError"),
    ("encode_strictly", strict_by_truth, "0 taken for nothing"),
    ("encode_strictly", lambda t, a: strict_afterwards(t, a, KeyError, 1),
     "two things at once: counted from 1, and another error than ValueError"),
    ("encode_strictly", lambda t, a: strict_afterwards(t, a, say="{i}", first=1),
     "two things at once: no character, and counted from 1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
