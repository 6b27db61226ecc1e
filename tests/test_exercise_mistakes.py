"""A mistake is an edit: how edits apply, what is refused, and how two are found together."""

from __future__ import annotations

import pytest

from courseware.exercises.engine import Exercise, judge
from courseware.exercises.mistakes import EditError, Mistake, edited, make
from courseware.exercises.tasks import Task

SOURCE = """
def count(words, least, most):
    found = [w for w in words
             if least <= len(w) < most]  # a comment
    found.sort()
    return found, len(found),
""".strip()


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("< most", "<= most", "             if least <= len(w) <= most]  # a comment"),
        ("for w in words if least", "for w in words[1:] if least", "    found = [w for w in words[1:] if least"),
        ("found.sort()", "found.sort()\nfound.reverse()", "    found.reverse()"),
        ("return found, len(found)", "return len(found), found", "    return len(found), found,"),
        ("found . sort( )", "pass", "    pass"),
    ],
)  # fmt: skip
def test_layout_and_comments_do_not_count(before, after, line):
    assert any(row.startswith(line) for row in edited(SOURCE, [(before, after)]).split("\n"))


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("<= room", "")], "occurs 0 times"),
        ([("found", "lost")], "occurs 4 times"),
        ([("", "x")], "nothing to replace by"),
        ([("wor", "x")], "occurs 0 times"),
        ([("len(w) < most", "x"), ("< most", "y")], "two edits touch '< most'"),
    ],
)
def test_an_edit_that_is_not_clear_is_refused(pairs, words):
    with pytest.raises(EditError, match="times|touch|nothing") as error:
        edited(SOURCE, pairs)
    assert words in str(error.value)


def probe(answer):
    words = ["to", "be", "or", "not", "that", "is", "the", "question"]
    yield "2 to 3", answer(list(words), 2, 3)
    yield "3 to 8", answer(list(words), 3, 8)
    yield "no words", answer([], 1, 3)


TASK = Task(
    "count", "Find the bug: count", 5, 1, "count", SOURCE, SOURCE.replace("found.sort()", "")
)
COUNT = Exercise(
    "count",
    probe,
    ("a",),
    "b",
    mistakes=(
        Mistake("unsorted", "Sort them.", of="given"),
        Mistake("most included", "most is excluded.", edit=("< most", "<= most")),
        Mistake("least excluded", "least is included.", edit=("<=", "<")),
        Mistake("all of them", "Some are too short.", edit=("if least <= len(w) < most", "")),
        Mistake("backwards", "From a to z.", edit=("sort()", "sort(reverse=True)")),
        Mistake("no count", "And their number.", wrap=lambda right: lambda *a: right(*a)[:1]),
        Mistake("nothing", "It is empty.", answer=lambda words, least, most: ([], 0)),
        Mistake("never made", "…", edit=("no such code", "")),
    ),
    look="chapter 1",
    own_task=TASK,
)


def other(words, least, most, top=0, order=sorted, count=True):
    found = [w for w in words if len(w) in range(least, most + top)]
    return (order(found), len(found)) if count else (order(found),)


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (other, ()),
        (lambda *a: other(*a, top=1), ("most included",)),
        (lambda *a: other(*a, order=list), ("unsorted",)),
        (lambda *a: other(*a, count=False), ("no count",)),
        (lambda *a: ([], 0), ("nothing",)),
        (lambda *a: other(*a, top=1, count=False), ("most included", "no count")),
        (lambda w, a, b: other(w, a + 1, b + 1), ("most included", "least excluded")),
        (lambda w, a, b: other(w, 0, 99, order=lambda f: sorted(f)[::-1]), ("all of them", "backwards")),
        (lambda w, a, b: other(w, a, b - 2), ()),
    ],
)  # fmt: skip
def test_one_mistake_or_two_are_named(answer, names):
    verdict = judge(COUNT, answer)
    assert verdict.mistakes == names, verdict
    if len(names) == 2:
        assert verdict.diagnosis == f"two things at once: {names[0]}, and {names[1]}"
        assert verdict.message.startswith("First: ") and " Second: " in verdict.message
    if names:
        assert verdict.look == "chapter 1"


def test_what_cannot_be_combined():
    by_name = {m.name: m for m in COUNT.mistakes}
    for one, two in (
        ("unsorted", "backwards"),
        ("nothing", "no count"),
        ("least excluded", "all of them"),
    ):
        with pytest.raises(EditError):
            make(TASK, (by_name[one], by_name[two]))
        assert COUNT.results_of(by_name[one], by_name[two]) is None
    with pytest.raises(EditError, match="does not run"):
        make(TASK, (Mistake("a", "b", edit=("return", "retur n")),))


def divided(answer):
    yield "6 and 3", answer(6, 3)


DIVIDE_SOURCE = """
def divide(high, low):
    first = 0
    second = 0
    return high / (low - first - second)
""".strip()
DIVIDE = Exercise(
    "divide",
    divided,
    ("a",),
    "b",
    mistakes=(
        Mistake("one less", "It is one too small.", edit=("first = 0", "first = 1")),
        Mistake("two less", "It is two too small.", edit=("second = 0", "second = 2")),
    ),
    own_task=Task("divide", "Divide", 5, 1, "divide", DIVIDE_SOURCE, DIVIDE_SOURCE),
)


def test_an_answer_that_only_raises_is_not_taken_for_two_mistakes():
    """Both mistakes together raise ZeroDivisionError as well, but nothing else speaks for them."""
    assert judge(DIVIDE, lambda high, low: high / (low - 2)).diagnosis == "two less"
    assert judge(DIVIDE, lambda high, low: high / (high - high)).diagnosis == "raised"
