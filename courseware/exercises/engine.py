"""Judge an answer by what it does: run it on probes and compare with the reference and with known mistakes.

An exercise carries the wrong answers that people really give. If a learner's results on the probes are those
of a recorded wrong answer, they get that answer's diagnosis; otherwise a general one (raised, returned None, wrong
shape, first differing value). Nothing here looks at the learner's source, only at its results.
"""

from __future__ import annotations

import contextlib
import copy
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

SECONDS = 120.0  # the slowest reference takes 6 s on two free cores
TOLERANCE = (
    1e-5  # float32 keeps about seven digits; other orders of summation cost the last one or two
)


@dataclass(frozen=True)
class WrongAnswer:
    """A mistake that people make: a name, what to tell them, where to look, and an answer that makes it."""

    name: str
    diagnosis: str
    look: str
    answer: Any


@dataclass(frozen=True)
class Exercise:
    """One task. `run(answer)` yields (description, result) pairs, the same for every right answer.

    `run` calls the learner's function on inputs of its own choice; `reference` is a right answer; `hints` go
    from a nudge to nearly everything; `explanation` is shown with the solution. Where right answers differ in
    their results (a trained model), `laws` says which recorded mistake an answer shows, or None.
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
    laws: Callable[[Any], str | None] | None = (
        None  # for answers that are not unique: what is broken, or None
    )
    memory: dict = field(default_factory=dict, compare=False, repr=False)

    def results_of(self, key: str, answer: Any) -> list[tuple[str, Any]]:
        """Return the results of the reference or of a recorded wrong answer, computed once."""
        if key not in self.memory:
            self.memory[key] = collect(self.run, answer)
        return self.memory[key]


@dataclass(frozen=True)
class Verdict:
    """What `check` found."""

    kind: str  # not attempted, wrong, right
    diagnosis: str = ""  # the name of a recorded wrong answer or of a general diagnosis
    message: str = ""
    look: str = ""


@dataclass(frozen=True)
class Raised:
    """Stands for a result that could not be computed."""

    kind: str
    message: str
    line: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raised) and other.kind == self.kind

    def __hash__(self) -> int:
        return hash(self.kind)


class _TooLong(BaseException):
    pass


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    try:
        previous = signal.signal(signal.SIGALRM, stop)
    except ValueError:  # not in the main thread: no limit is possible
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def collect(run: Callable, answer: Any, seconds: float = SECONDS) -> list[tuple[str, Any]]:
    """Run an answer on its exercise's probes; an exception ends the list with a `Raised`."""
    results: list[tuple[str, Any]] = []
    try:
        with _time_limit(seconds):
            for label, value in run(answer):
                results.append((label, copy.deepcopy(value)))
    except NotImplementedError:
        results.append(("not attempted", Raised("NotImplementedError", "", "")))
    except _TooLong:
        results.append(("time", Raised("TimeoutError", f"still running after {seconds:.0f} s", "")))
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        mine = [f for f in frames if "courseware" not in f.filename and f.line]
        line = f"{mine[-1].line}" if mine else ""
        results.append(("raised", Raised(type(error).__name__, str(error), line)))
    return results


def judge(exercise: Exercise, answer: Any) -> Verdict:
    """Return the verdict on a learner's answer."""
    if answer is None or answer is ...:
        return Verdict("not attempted")
    mine = collect(exercise.run, answer)
    last = mine[-1][1] if mine else None
    if isinstance(last, Raised) and last.kind == "NotImplementedError":
        return Verdict("not attempted")
    expected = exercise.results_of("reference", exercise.reference)
    if same_results(mine, expected, exercise.tolerance):
        broken = exercise.laws(answer) if exercise.laws else None
        return _diagnosed(exercise, broken) if broken else Verdict("right")
    for wrong in exercise.wrong if exercise.laws is None else ():
        theirs = exercise.results_of(wrong.name, wrong.answer)
        if same_results(mine, theirs, exercise.tolerance):
            return _diagnosed(exercise, wrong.name)
    return general(mine, expected, exercise.tolerance)


def _diagnosed(exercise: Exercise, name: str) -> Verdict:
    wrong = next(w for w in exercise.wrong if w.name == name)
    return Verdict("wrong", wrong.name, wrong.diagnosis, wrong.look)


def same_results(one: list, other: list, tolerance: float) -> bool:
    return len(one) == len(other) and all(
        a[0] == b[0] and same(a[1], b[1], tolerance) for a, b in zip(one, other, strict=True)
    )


def same(one: Any, other: Any, tolerance: float = TOLERANCE) -> bool:
    """Compare values of the kinds that exercises use: tensors, arrays, numbers, texts, containers of them."""
    import numpy as np
    import torch

    if isinstance(one, (torch.Tensor, np.ndarray)) or isinstance(other, (torch.Tensor, np.ndarray)):
        first, second = _tensor(one), _tensor(other)
        if first is None or second is None or first.shape != second.shape:
            return False
        first, second = first.double(), second.double()
        return torch.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same(a, b, tolerance) for a, b in pairs)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k], tolerance) for k in one)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        bothnan = one != one and other != other
        return bothnan or abs(one - other) <= tolerance * max(1.0, abs(other)) or one == other
    return type(one) is type(other) and one == other


def _tensor(value: Any) -> Any:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return None


def general(mine: list, expected: list, tolerance: float) -> Verdict:
    """Describe the first difference when no recorded wrong answer explains it."""
    for (label, got), (_, want) in zip(mine, expected, strict=False):
        if isinstance(got, Raised):
            line = f" at `{got.line}`" if got.line else ""
            return Verdict("wrong", "raised", f"It raised {got.kind}{line}: {got.message}")
        if same(got, want, tolerance):
            continue
        if got is None:
            text = f"{label}: it returned None. Is there a return statement?"
            return Verdict("wrong", "returned None", text)
        shape, wanted = getattr(got, "shape", None), getattr(want, "shape", None)
        if wanted is not None and shape != wanted:
            text = f"{label}: expected shape {tuple(wanted)}, got {_shape(got)}."
            return Verdict("wrong", "wrong shape", text)
        if type(got) is not type(want) and not _numbers(got, want):
            text = (
                f"{label}: expected {type(want).__name__}, got {type(got).__name__}: {_brief(got)}."
            )
            return Verdict("wrong", "wrong type", text)
        text = f"{label}: expected {_brief(want)}, got {_brief(got)}."
        return Verdict("wrong", "wrong value", text)
    return Verdict("wrong", "wrong value", "It returned another number of results than expected.")


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if hasattr(value, "shape") else f"a {type(value).__name__}"


def _brief(value: Any) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()
        if isinstance(value, list) and value and isinstance(value[0], list):
            value = value[:4]
    text = repr(_rounded(value))
    return text if len(text) <= 160 else text[:157] + "..."


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, (list, tuple)):
        return type(value)(_rounded(item) for item in value)
    return value
