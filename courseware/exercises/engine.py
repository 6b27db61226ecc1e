"""Judge an answer by what it does: run it on probes and compare with the reference and with known mistakes.

An exercise carries the mistakes that people really make, as edits of its reference answer. If a learner's results
on the probes are those of a mistake, or of two made together, they get its diagnosis; otherwise a general one (raised,
returned None, wrong shape, first differing value). What counts is what an answer does, not how it is written; only a
function that the learner was given to repair is compared with its first state, to tell "not attempted" from "wrong".
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from courseware.exercises.compare import TOLERANCE, Stream, brief, difference, kind, same
from courseware.exercises.mistakes import EditError, Mistake, Pair, make
from courseware.exercises.probing import Observation, Probe, Raised, Results, collect, observe
from courseware.exercises.tasks import Task, task

PAIR_SECONDS = 3.0  # of the processor, for all pairs of mistakes that are tried in one check
_MISTAKE_SECONDS = 5.0  # a mistake that runs longer is an endless loop


@dataclass(frozen=True)
class Broken:
    """A result that names the mistake it shows, where right answers differ in their results."""

    name: str


@dataclass
class Exercise:
    """One task, its probes, hints and mistakes; what the solutions notebook says is in `task`.

    probe: calls the answer on inputs that it makes anew each time, and yields (description, result) pairs, the same
        for every right answer. Where right answers differ in their results (a trained model), it tests what must hold
        and yields a `Broken` when something does not.
    hints: from a nudge to nearly everything.
    explanation: shown when the answer is right, and with the solution.
    look: a place in a chapter that explains the task, for mistakes that do not name another.
    tolerance: for floats, absolute and relative.
    seconds: an answer that runs longer is stopped; nearly all need milliseconds.
    exact: edits a reference that draws at random so that it returns probabilities instead; the probe then finds
        `answer.exact` set.
    """

    name: str
    probe: Probe
    hints: tuple[str, ...]
    explanation: str
    mistakes: tuple[Mistake, ...] = ()
    look: str = ""
    tolerance: float = TOLERANCE
    seconds: float = 10.0
    exact: tuple[Pair, ...] = ()
    stem: str = ""  # the notebook, as in "05_attention"; set by the registry
    own_task: Task | None = field(default=None, repr=False)  # instead of one from a notebook
    memory: dict[tuple, Results | None] = field(default_factory=dict, repr=False)

    @property
    def task(self) -> Task:
        """Title, minutes, difficulty and code. Raises SolutionsError if the notebook is missing or damaged."""
        return self.own_task or task(self.stem, self.name)

    @property
    def chapter(self) -> int:
        """The number of the chapter."""
        return int(self.stem[:2])

    def results_of(self, *mistakes: Mistake) -> Results | None:
        """Return the results of the reference with these mistakes in it, computed once; None if it cannot be made.

        Without mistakes, the results of the reference itself.
        """
        key = tuple((mistake.name, mistake.edit) for mistake in mistakes)
        if key not in self.memory:
            self.memory[key] = self._results_of(mistakes)
        return self.memory[key]

    def _results_of(self, mistakes: tuple[Mistake, ...]) -> Results | None:
        try:
            answer = make(self.task, mistakes, self.exact)
        except EditError:  # a learner who changed the notebook goes on without this mistake
            return None

        if self.exact:
            answer.exact = True
        seconds = min(self.seconds, _MISTAKE_SECONDS) if mistakes else self.seconds
        return collect(self.probe, answer, seconds)


@dataclass(frozen=True)
class Verdict:
    """What `check` found."""

    kind: str  # not attempted, wrong, right
    diagnosis: str = ""  # the name of a mistake, of two, or of a general diagnosis
    message: str = ""
    look: str = ""
    mistakes: tuple[str, ...] = ()  # the names of the recorded mistakes that explain the answer


def judge(exercise: Exercise, answer: Any) -> Verdict:
    """Return the verdict on a learner's answer. Raises SolutionsError if there is nothing to compare it with."""
    given = exercise.task.given
    untouched = given is not None and same_code(answer, given)
    if answer is None or answer is ... or untouched:
        return Verdict("not attempted")
    if not callable(answer):
        return _not_a_function(exercise, answer)

    found = observe(exercise.probe, answer, exercise.seconds)
    first = found.results[0][1] if found.results else None
    if isinstance(first, Raised) and first.kind == "unwritten":
        return Verdict("not attempted")

    expected = exercise.results_of()
    if same_results(found.results, expected, exercise.tolerance):
        return _side_effects(found) or Verdict("right")

    named = _named(exercise, found.results)
    if named:
        return _explained(exercise, named)
    return _side_effects(found, replaced_only=True) or _general(exercise, found)


def same_results(one: Results | None, other: Results | None, tolerance: float) -> bool:
    """Return whether two lists of (description, result) pairs are the same."""
    if one is None or other is None or len(one) != len(other):
        return False
    return all(a[0] == b[0] and same(a[1], b[1], tolerance) for a, b in zip(one, other))


def _named(exercise: Exercise, mine: Results) -> tuple[Mistake, ...]:
    """Return the mistake, or the two, that explain these results; () if none does."""
    broken = [value.name for _, value in mine if isinstance(value, Broken)]
    if broken:
        return tuple(m for m in exercise.mistakes if m.name == broken[0])

    possible = [version for m in exercise.mistakes if m.can_be_made for version in m.versions]
    for mistake in possible:
        if same_results(mine, exercise.results_of(mistake), exercise.tolerance):
            return (mistake,)

    deadline = time.process_time() + PAIR_SECONDS
    for pair in _pairs(exercise, possible, mine):
        if time.process_time() > deadline:
            break
        if same_results(mine, exercise.results_of(*pair), exercise.tolerance):
            return pair
    return ()


def _pairs(
    exercise: Exercise, mistakes: list[Mistake], mine: Results
) -> Iterator[tuple[Mistake, Mistake]]:
    """Yield pairs of mistakes, those first which, each by itself, explain most of the results that are wrong.

    No pairs if nothing is wrong but an error that was raised: that two answers raise at one place says too little.
    """
    right = _places(exercise, mine, exercise.results_of())
    if all(i in right or isinstance(result, Raised) for i, (_, result) in enumerate(mine)):
        return

    whole = [m for m in mistakes if m.answer is None]
    explained = [_places(exercise, mine, exercise.results_of(m)) for m in whole]

    def left_open(pair: tuple[int, int]) -> int:
        return -len(right | explained[pair[0]] | explained[pair[1]])

    for i, j in sorted(itertools.combinations(range(len(whole)), 2), key=left_open):
        if whole[i].name != whole[j].name:
            yield whole[i], whole[j]


def _places(exercise: Exercise, mine: Results, theirs: Results | None) -> set[int]:
    """Return the numbers of the probes on which two answers have the same result."""
    pairs = enumerate(zip(mine, theirs or ()))
    return {i for i, (a, b) in pairs if a[0] == b[0] and same(a[1], b[1], exercise.tolerance)}


def _explained(exercise: Exercise, named: tuple[Mistake, ...]) -> Verdict:
    """Return the verdict that names one mistake, or two."""
    names = tuple(mistake.name for mistake in named)
    looks = dict.fromkeys(mistake.look or exercise.look for mistake in named)
    look = "; ".join(place for place in looks if place)
    if len(named) == 1:
        return Verdict("wrong", names[0], named[0].diagnosis, look, names)

    diagnosis = f"two things at once: {names[0]}, and {names[1]}"
    message = f"First: {named[0].diagnosis} Second: {named[1].diagnosis}"
    return Verdict("wrong", diagnosis, message, look, names)


def _not_a_function(exercise: Exercise, answer: Any) -> Verdict:
    text = (
        f"check was given {kind(answer)}, {brief(answer)}. Give it the function itself, without "
        f'parentheses: check("{exercise.name}", your_function).'
    )
    return Verdict("wrong", "not a function", text)


def _side_effects(found: Observation, replaced_only: bool = False) -> Verdict | None:
    """Return what is wrong with an answer apart from its results."""
    if found.left_behind:
        names = ", ".join(f"`{name}`" for name in found.left_behind[:3])
        text = (
            f"Your function changed {names} for everything that runs after it. We have put it back. "
            "Use a name of your own, or undo the change before you return."
        )
        return Verdict("wrong", "changed something global", text)

    if found.changed and not replaced_only:
        text = (
            f"The result is right, but your function changed `{found.changed}`, which belongs to the caller. "
            "Work on a copy, or make a new value."
        )
        return Verdict("wrong", "changed its input", text)
    return None


def _general(exercise: Exercise, found: Observation) -> Verdict:
    """Describe the first difference when no known mistake explains it."""
    expected = exercise.results_of()
    for (label, got), (wanted_label, want) in zip(found.results, expected or ()):
        if isinstance(got, Raised):
            return _stopped(got, wanted_label, found)

        differs = difference(got, want, exercise.tolerance)
        if differs and got is None:
            return _nothing(label, found)
        if differs and isinstance(got, Stream) and not isinstance(want, Stream):
            return _stream(label, got)
        if differs:
            return Verdict("wrong", differs.diagnosis, f"{label}: {differs.text}.")

    return Verdict("wrong", "wrong value", "It returned another number of results than expected.")


def _stopped(got: Raised, label: str, found: Observation) -> Verdict:
    """Describe what stopped an answer."""
    if got.kind == "TimeoutError" and not got.line:
        text = f"{label}: {got.message}. Is there a loop that never ends?"
        return Verdict("wrong", "too slow or endless", text)

    if not got.inside:
        return _unusable(got, label, found)

    where = f" in line {got.number}, `{got.line}`" if got.line else ""
    if got.kind == "SystemExit":
        text = f"{label}: it called exit(){where}, which ends the whole program. Return a value instead."
        return Verdict("wrong", "left the program", text)
    if got.kind == "RecursionError":
        text = f"{label}: it calls itself without end{where}. Which case should end the recursion?"
        return Verdict("wrong", "endless recursion", text)
    if got.kind == "MemoryError" or "allocate memory" in got.message:  # PyTorch's is a RuntimeError
        text = f"{label}: it asked for more than 1.5 GB of memory{where}. Is a shape, or a loop, too large?"
        return Verdict("wrong", "too much memory", text)

    name = "NotImplementedError" if got.kind == "unwritten" else got.kind
    ending = f": {got.message}" if got.message else "."
    return Verdict("wrong", "raised", f"{label}: it raised {name}{where}{ending}")


def _unusable(got: Raised, label: str, found: Observation) -> Verdict:
    """Describe a result that the probe could not read."""
    returned = found.returned
    if returned is None:
        return _nothing(label, found)
    if isinstance(returned, Iterator):
        return _stream(label, Stream(type(returned).__name__))

    text = (
        f"{label}: it returned {kind(returned)}, {brief(returned)}, "
        f"which the check could not use: {got.message}"
    )
    return Verdict("wrong", "wrong type", text)


def _stream(label: str, got: Stream) -> Verdict:
    text = (
        f"{label}: it returned {kind(got)}, which has computed nothing yet. Return the values themselves: "
        "`return` in place of `yield`, or list(...) around it."
    )
    return Verdict("wrong", "returned a generator", text)


def _nothing(label: str, found: Observation) -> Verdict:
    if found.printed:
        text = f"{label}: it printed something and returned None. Replace print(...) by return ..."
        return Verdict("wrong", "printed instead of returned", text)
    text = f"{label}: it returned None. Is there a return statement?"
    return Verdict("wrong", "returned None", text)


def same_code(one: Any, other: Any) -> bool:
    """Return whether two functions consist of the same statements; names, comments and docstrings are free."""
    first = _statements(one)
    return first is not None and first == _statements(other)


def _statements(function: Any) -> list[str] | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):  # not a function, or one without source
        return None

    if not isinstance(tree, ast.FunctionDef):
        return None
    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    return [ast.dump(node) for node in (tree.args, *body)]
