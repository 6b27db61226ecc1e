"""Judge an answer by its behaviour: run it on probes and compare it with the reference and with known mistakes.

An exercise carries the wrong answers that learners really give. If the results of an answer on the probes are those
of a recorded wrong answer, the learner gets its diagnosis; otherwise a general one (raised, returned None, wrong
shape, first differing value). How an answer is written never matters, with one exception: a function that the learner
was given to repair is compared with its original source, to tell "not attempted" from "wrong".
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from courseware.exercises.compare import TOLERANCE, brief, difference, kind, same
from courseware.exercises.probing import Raised, Watched, collect, observe

Results = list[tuple[str, Any]]


@dataclass(frozen=True)
class WrongAnswer:
    """A common mistake: its name, what to tell the learner, where to look, and an answer that makes it."""

    name: str
    diagnosis: str
    look: str
    answer: Any


@dataclass(frozen=True)
class Broken:
    """A result that names the recorded mistake it reveals, where right answers differ in their results."""

    name: str


@dataclass(frozen=True)
class Exercise:
    """One task. `run(answer)` yields (description, result) pairs, the same for every right answer.

    `run` calls the learner's function on inputs of its own choice; `reference` is a right answer; `hints` go from a
    nudge to nearly everything; `explanation` is shown with the solution. Where right answers differ in their results
    (a trained model), `run` tests the properties that all of them share and yields a `Broken` for one that fails.
    """

    name: str
    chapter: int
    title: str
    minutes: int
    difficulty: int  # 1 easy, 2 medium, 3 hard
    hints: tuple[str, ...]
    run: Callable[[Any], Iterator[tuple[str, Any]]]
    reference: Any
    explanation: str
    wrong: tuple[WrongAnswer, ...] = ()
    tolerance: float = TOLERANCE
    seconds: float = 10.0  # the time limit of an answer; all but two need milliseconds
    given: Callable | None = None  # the code to repair, as the learner finds it
    memory: dict[str, Results] = field(default_factory=dict, compare=False, repr=False)

    def results_of(self, key: str, answer: Any) -> Results:
        """Return the results of the reference or of a recorded wrong answer, computed only once."""
        if key not in self.memory:
            self.memory[key] = collect(self.run, answer)
        return self.memory[key]


@dataclass(frozen=True)
class Verdict:
    """The result of `check`."""

    kind: str  # not attempted, wrong, right
    diagnosis: str = ""  # the name of a recorded wrong answer or of a general diagnosis
    message: str = ""
    look: str = ""


def judge(exercise: Exercise, answer: Any) -> Verdict:
    """Return the verdict on a learner's answer."""
    untouched = exercise.given is not None and same_code(answer, exercise.given)
    if answer is None or answer is ... or untouched:
        return Verdict("not attempted")

    if not callable(answer):
        text = (
            f"check was given {kind(answer)}, {brief(answer)}. Give it the function itself, without "
            f'parentheses: check("{exercise.name}", your_function).'
        )
        return Verdict("wrong", "not a function", text)

    mine, watched = observe(exercise.run, answer, exercise.seconds)
    if isinstance(mine[0][1], Raised) and mine[0][1].kind == "unwritten":
        return Verdict("not attempted")

    named = _named(exercise, mine)
    if named:
        return Verdict("wrong", named.name, named.diagnosis, named.look)

    expected = exercise.results_of("reference", exercise.reference)
    if not same_results(mine, expected, exercise.tolerance):
        return general(mine, expected, exercise.tolerance, watched)

    if watched.changed:
        text = (
            f"The result is right, but your function changed `{watched.changed}`, which belongs to the caller. "
            "Work on a copy, or make a new value."
        )
        return Verdict("wrong", "changed its input", text)

    return Verdict("right")


def _named(exercise: Exercise, mine: Results) -> WrongAnswer | None:
    """Return the recorded wrong answer that has these results, or None if they are right or unknown."""
    broken = [value.name for _, value in mine if isinstance(value, Broken)]
    if broken:
        return next(wrong for wrong in exercise.wrong if wrong.name == broken[0])

    reference = exercise.results_of("reference", exercise.reference)
    if same_results(mine, reference, exercise.tolerance):
        return None

    for wrong in exercise.wrong:
        theirs = exercise.results_of(wrong.name, wrong.answer)
        if same_results(mine, theirs, exercise.tolerance):
            return wrong
    return None


def same_results(one: Results, other: Results, tolerance: float) -> bool:
    """Return whether two lists of (description, result) pairs are the same."""
    return len(one) == len(other) and all(
        a[0] == b[0] and same(a[1], b[1], tolerance) for a, b in zip(one, other, strict=True)
    )


def general(mine: Results, expected: Results, tolerance: float, watched: Watched) -> Verdict:
    """Describe the first difference when no recorded wrong answer explains it."""
    for (label, got), (wanted_label, want) in zip(mine, expected, strict=False):
        if isinstance(got, Raised):
            return _stopped(got, wanted_label, watched)

        found = difference(got, want, tolerance)
        if found and got is None:
            return _nothing(label, watched)
        if found:
            return Verdict("wrong", found.diagnosis, f"{label}: {found.text}.")

    return Verdict(
        "wrong", "wrong value", "It returned a different number of results than expected."
    )


def _stopped(got: Raised, label: str, watched: Watched) -> Verdict:
    """Describe an answer that ran too long, raised an exception, or returned something that cannot be compared."""
    if got.kind == "TimeoutError" and not got.line:
        text = f"{label}: {got.message}. Is there a loop that never ends?"
        return Verdict("wrong", "too slow or endless", text)

    if got.inside:
        line = f" in line {got.number}, `{got.line}`" if got.line else ""
        name = "NotImplementedError" if got.kind == "unwritten" else got.kind
        ending = f": {got.message}" if got.message else "."
        return Verdict("wrong", "raised", f"{label}: it raised {name}{line}{ending}")

    if watched.returned is None:
        return _nothing(label, watched)

    text = (
        f"{label}: it returned {kind(watched.returned)}, {brief(watched.returned)}, "
        f"which the check could not use: {got.message}"
    )
    return Verdict("wrong", "wrong type", text)


def _nothing(label: str, watched: Watched) -> Verdict:
    """Describe an answer that returned None."""
    if watched.printed:
        text = f"{label}: it printed something and returned None. Replace print(...) by return ..."
        return Verdict("wrong", "printed instead of returned", text)

    text = f"{label}: it returned None. Is there a return statement?"
    return Verdict("wrong", "returned None", text)


def same_code(one: Any, other: Any) -> bool:
    """Return whether two functions consist of the same statements, whatever their names, comments and docstrings."""
    first = _statements(one)
    second = _statements(other)
    return first is not None and first == second


def _statements(function: Any) -> list[str] | None:
    """Return the syntax trees of a function's parameters and statements, or None if it has no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):  # not a function, or its source is not available
        return None

    if not isinstance(tree, ast.FunctionDef):
        return None

    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    return [ast.dump(node) for node in (tree.args, *body)]
