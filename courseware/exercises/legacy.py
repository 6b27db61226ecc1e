"""Take exercises in the old form until their chapter is rewritten. Remove this file with the last of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from courseware.exercises import engine
from courseware.exercises.compare import TOLERANCE
from courseware.exercises.mistakes import Mistake


class WrongAnswer(NamedTuple):
    """A mistake as a whole function."""

    name: str
    diagnosis: str
    look: str
    answer: Any


def Exercise(
    name: str,
    run: Any,
    hints: tuple[str, ...],
    explanation: str,
    wrong: tuple[WrongAnswer, ...] = (),
    tolerance: float = TOLERANCE,
    seconds: float = 10.0,
    **_: Any,
) -> engine.Exercise:
    """Return an exercise of the new form."""
    mistakes = tuple(Mistake(w.name, w.diagnosis, answer=w.answer, look=w.look) for w in wrong)
    return engine.Exercise(
        name, run, hints, explanation, mistakes, tolerance=tolerance, seconds=seconds
    )
