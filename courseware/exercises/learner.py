"""What a learner calls: `check`, `hint` and `solution`, each showing a small card."""

from __future__ import annotations

import difflib
import html
import importlib
import pkgutil
import textwrap
from functools import cache
from typing import Any

from courseware import progress
from courseware.exercises import answers
from courseware.exercises.engine import Exercise, Verdict, judge
from courseware.exercises.tasks import SolutionsError
from courseware.misused import Misused

_COLOURS = {"right": "#009E73", "wrong": "#D55E00", "not attempted": "#7F7F7F", "hint": "#0072B2"}
_given: dict[str, int] = {}  # how many hints this kernel has shown, by exercise


class Card:
    """A message that reads well in a notebook, on the website and in a terminal."""

    def __init__(self, kind: str, heading: str, body: str = "", code: str = "") -> None:
        self.kind = kind
        self.heading = heading
        self.body = body
        self.code = code

    def __repr__(self) -> str:
        parts = [self.heading, textwrap.fill(self.body, 96), self.code]
        return "\n".join(part for part in parts if part)

    def _repr_html_(self) -> str:
        colour = _COLOURS.get(self.kind, _COLOURS["hint"])
        body = f"<p style='margin:.3em 0 0'>{html.escape(self.body)}</p>" if self.body else ""
        code = f"<pre style='margin:.5em 0 0'>{html.escape(self.code)}</pre>" if self.code else ""
        return (
            f'<div role="status" style="border-left:4px solid {colour};padding:.4em .9em;margin:.3em 0">'
            f"<strong>{html.escape(self.heading)}</strong>{body}{code}</div>"
        )


@cache
def registry() -> dict[str, Exercise]:
    """Return every exercise of the course by name, in the order of the chapters."""
    found: dict[str, Exercise] = {}

    for info in pkgutil.iter_modules(answers.__path__):
        module = importlib.import_module(f"{answers.__name__}.{info.name}")
        for exercise in [value for value in vars(module).values() if isinstance(value, Exercise)]:
            if exercise.name in found:
                raise ValueError(f"two exercises are called {exercise.name!r}")
            exercise.stem = info.name
            found[exercise.name] = exercise

    return found


def exercises_of(chapter: int) -> list[str]:
    """Return the names of a chapter's exercises, in order."""
    return [e.name for e in registry().values() if e.chapter == chapter]


def find(name: str) -> Exercise:
    """Return the exercise; Misused, a ValueError, names the nearest ones if there is none of that name."""
    names = registry()
    if name not in names:
        near = difflib.get_close_matches(f"{name}", names, n=3) or sorted(names)
        raise Misused(f"there is no exercise {name!r}; did you mean {', '.join(near)}?")
    return names[name]


def check(name: str, answer: Any) -> Card:
    """Judge `answer`, show the verdict, and remember it in the learner's progress."""
    exercise = find(name)
    try:
        verdict = judge(exercise, answer)
    except SolutionsError as error:
        return Card("hint", "Your answer could not be checked.", str(error))

    progress.record("exercise", name, verdict.kind)
    return card(exercise, verdict)


def card(exercise: Exercise, verdict: Verdict) -> Card:
    """Return the card for a verdict."""
    title = exercise.task.title
    if not title.endswith(("?", "!", ".")):
        title += "."
    if verdict.kind == "right":
        return Card("right", f"Right: {title}", exercise.explanation)

    if verdict.kind == "not attempted":
        verb = "Repair" if exercise.task.repair else "Fill"
        text = f'{verb} the function above, run its cell, then this one. hint("{exercise.name}") helps.'
        return Card("not attempted", f"Not attempted yet: {title}", text)

    look = f" Where to look: {verdict.look}" if verdict.look else ""
    return Card("wrong", f"Not yet: {verdict.diagnosis}.", verdict.message + look)


def hint(name: str) -> Card:
    """Show the next hint of an exercise; after the last one, say so."""
    exercise = find(name)
    shown = _given.get(name, 0)
    if shown >= len(exercise.hints):
        text = f'There are no more hints. solution("{name}") shows ours.'
        return Card("hint", f"You have seen all {len(exercise.hints)} hints.", text)

    _given[name] = shown + 1
    return Card("hint", f"Hint {shown + 1} of {len(exercise.hints)}", exercise.hints[shown])


def solution(name: str) -> Card:
    """Show a right answer and why it is right."""
    exercise = find(name)
    try:
        task = exercise.task
    except SolutionsError as error:
        return Card("hint", "There is no solution to show.", str(error))
    return Card("hint", f"A solution: {task.title}", exercise.explanation, task.source)
