"""The record of operator mutants: trying its survivors once more, and moving the counts."""

from __future__ import annotations

import argparse

import operators
import pytest

SOURCE = "def one(x):\n    return x + 1\n\n\ndef two(x):\n    x = x * 2\n    return x + 1\n"


def place(line, code, was, now):
    names = {"chapter": "05", "module": "minigpt_lib.x", "line": line}
    return {**names, "code": code, "was": was, "now": now}


PLACES = [
    place(7, "return x + 1", "x + 1", "x - 1"),
    place(2, "return x + 1", "x + 1", "x - 1"),
    place(6, "x = x * 2", "2", "3"),
    place(6, "x = x * 3", "3", "4"),  # the line is another one by now
]
ROW = {"chapter": "05", "mutants": 9, "tried": 20, "noticed": 16, "too_long": 0}
ROW |= {"noticed_by_tests": 0, "survived": 4}
OPTIONS = argparse.Namespace(minutes=1.0, tests=True)


@pytest.fixture
def tried(monkeypatch):
    """Record four survivors, one of them judged the same; return the list of what is tried."""
    seen = []
    monkeypatch.setattr(operators, "_read", lambda: {"chapters": [ROW], "survivors": PLACES})
    monkeypatch.setattr(operators, "_commit", lambda: "abc")
    monkeypatch.setattr(operators.tools, "sources", lambda number: {"minigpt_lib.x": SOURCE})
    same = {operators.proof.key(PLACES[2]): "because"}
    monkeypatch.setattr(operators.proof, "equivalent", lambda: same)
    return seen


def answer(seen, n_tried, n_noticed, monkeypatch):
    """Let a check reach some mutants and notice the first of these; the others survive."""

    def check(number, mutants, minutes, tests):
        seen.extend(mutant.line for mutant in mutants)
        left = [{"chapter": number, **m.place()} for m in mutants[n_noticed:n_tried]]
        counts = {"tried": n_tried, "noticed": n_noticed, "too_long": 0, "noticed_by_tests": 0}
        return {**counts, "survivors": left}

    monkeypatch.setattr(operators, "check", check)


def test_of_equal_lines_each_is_tried_and_a_line_that_is_gone_leaves_the_count(tried, monkeypatch):
    answer(tried, 2, 1, monkeypatch)
    row = operators.again("05", OPTIONS)

    assert tried == [7, 2]
    assert [place["line"] for place in row["survivors"]] == [6, 2]
    assert (row["tried"], row["noticed"], row["survived"]) == (19, 17, 2)
    assert (row["survived_first"], row["commit"]) == (4, "abc")


def test_survivors_that_time_did_not_reach_stay_survivors(tried, monkeypatch):
    answer(tried, 1, 1, monkeypatch)
    row = operators.again("05", OPTIONS)

    assert [place["line"] for place in row["survivors"]] == [6, 2]
    assert (row["tried"], row["noticed"], row["survived"]) == (19, 17, 2)
