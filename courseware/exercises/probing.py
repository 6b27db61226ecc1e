"""Run an answer on the probes of its exercise and record everything that it does.

An exception, an endless loop, a call of exit() or a result of the wrong type becomes part of the results. The random
generators are seeded, so that an answer always gets the same verdict, and the learner's own random state is restored.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import random
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from courseware.exercises.compare import same
from courseware.time_limit import TooLong, time_limit

STUB_MESSAGE = "write this"
_WATCHED = 200  # calls; copying the arguments of thousands of draws would cost more than the draws
_OURS = (str(Path(__file__).parent),)
_LIBRARIES = tuple(
    path for path in map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")) if path
)


@dataclass(frozen=True)
class Raised:
    """Stands for a result that could not be computed."""

    kind: str
    message: str = ""
    line: str = ""
    number: int = 0
    inside: bool = True  # raised by the learner's code, not by the check that reads its result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raised) and (other.kind, other.inside) == (self.kind, self.inside)

    def __hash__(self) -> int:
        return hash((self.kind, self.inside))


class Watched:
    """Call an answer and record what its results do not show: changed arguments, and the last value returned."""

    def __init__(self, answer: Callable) -> None:
        self.answer = answer
        self.calls = 0
        self.running = False
        self.returned: Any = None
        self.changed = ""  # the name of an argument
        self.printed = False

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.calls += 1
        before = copy.deepcopy((args, keywords)) if self.calls <= _WATCHED else None

        self.running = True
        self.returned = None
        self.returned = self.answer(*args, **keywords)
        self.running = False

        if before and not self.changed:
            self.changed = self._first_changed(before, args, keywords)
        return self.returned

    def _first_changed(self, before: tuple, args: tuple, keywords: dict[str, Any]) -> str:
        """Return the name of the first argument that differs from its copy, or ''."""
        old_args, old_keywords = before

        for i, (old, new) in enumerate(zip(old_args, args, strict=True)):
            if not same(old, new, 0.0):
                return _parameter(self.answer, i)
        for name, new in keywords.items():
            if not same(old_keywords[name], new, 0.0):
                return name
        return ""


def _parameter(function: Callable, i: int) -> str:
    """Return the name of a function's parameter number i."""
    try:
        return list(inspect.signature(function).parameters)[i]
    except (TypeError, ValueError, IndexError):
        return f"argument {i + 1}"


class _Tee:
    """Pass on what is printed, and remember that something was."""

    def __init__(self, real: Any, watched: Watched) -> None:
        self._real = real
        self._watched = watched

    def write(self, text: str) -> int:
        self._watched.printed = self._watched.printed or bool(text.strip())
        return self._real.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Seed the CPU generators of Python, NumPy and PyTorch, and restore their states at the end."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state()

    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


def collect(run: Callable, answer: Any, seconds: float | None = None) -> list[tuple[str, Any]]:
    """Return the results of `answer` on the probes; if something stops it, the last result is a `Raised`."""
    results: list[tuple[str, Any]] = []

    try:
        with _seeded(), time_limit(seconds):
            for label, value in run(answer):
                results.append((label, copy.deepcopy(value)))
    except TooLong:
        results.append(("time", Raised("TimeoutError", f"still running after {seconds:.0f} s")))
    except (Exception, SystemExit) as error:
        results.append(("raised", _raised(error, run, getattr(answer, "running", True))))

    return results


def observe(
    run: Callable, answer: Callable, seconds: float
) -> tuple[list[tuple[str, Any]], Watched]:
    """Return a learner's results within a time limit, and what was observed meanwhile."""
    watched = Watched(answer)
    with contextlib.redirect_stdout(_Tee(sys.stdout, watched)):
        return collect(run, watched, seconds), watched


def _raised(error: BaseException, run: Callable, running: bool) -> Raised:
    """Describe an exception, with the last line of the learner's code that it passed."""
    reader = (run.__code__.co_filename, run.__code__.co_name)
    not_theirs = (*_OURS, *_LIBRARIES, "<frozen")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(not_theirs) and (frame.filename, frame.name) != reader
    ]

    shown = next((frame for frame in reversed(frames) if frame.line), None)
    line = shown.line if shown else ""
    number = (shown.lineno or 0) if shown else 0

    unwritten = isinstance(error, NotImplementedError) and error.args in ((), (STUB_MESSAGE,))
    name = "unwritten" if unwritten else type(error).__name__
    return Raised(name, str(error), line, number, inside=running or bool(frames))
