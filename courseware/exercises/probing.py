"""Run an answer on the probes of its exercise and write down what it does, whatever it does.

An exception, an endless loop, a call of exit() or a result of the wrong kind becomes part of the results. Chance is fixed,
so that the same answer always gets the same verdict, and the learner's own random state is put back afterwards.
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

from courseware.limits import TooLong, time_limit

from courseware.exercises.compare import same

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
    inside: bool = True  # raised by the learner's code, not by our reading of its result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raised) and (other.kind, other.inside) == (self.kind, self.inside)

    def __hash__(self) -> int:
        return hash((self.kind, self.inside))


class Watched:
    """Call an answer and notice what its results do not show: changed arguments, and the last value returned."""

    def __init__(self, answer: Callable) -> None:
        self.answer, self.calls = answer, 0
        self.running, self.returned, self.changed, self.printed = False, None, "", False

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.calls += 1
        before = copy.deepcopy((args, keywords)) if self.calls <= _WATCHED else None
        self.running, self.returned = True, None
        self.returned = self.answer(*args, **keywords)
        self.running = False
        if before and not self.changed:
            self.changed = self._first_changed(before, args, keywords)
        return self.returned

    def _first_changed(self, before: tuple, args: tuple, keywords: dict) -> str:
        for i, (old, new) in enumerate(zip(before[0], args, strict=True)):
            if not same(old, new, 0.0):
                return _parameter(self.answer, i)
        return next((k for k, new in keywords.items() if not same(before[1][k], new, 0.0)), "")


def _parameter(function: Callable, i: int) -> str:
    try:
        return list(inspect.signature(function).parameters)[i]
    except (TypeError, ValueError, IndexError):
        return f"argument {i + 1}"


class _Tee:
    """Pass on what is printed, and remember that something was."""

    def __init__(self, real: Any, watched: Watched) -> None:
        self._real, self._watched = real, watched

    def write(self, text: str) -> int:
        self._watched.printed = self._watched.printed or bool(text.strip())
        return self._real.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@contextlib.contextmanager
def _fixed_chance() -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's CPU generators, and put their states back at the end."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def collect(run: Callable, answer: Any, seconds: float | None = None) -> list[tuple[str, Any]]:
    """Return the results of `answer` on the probes; what stops it becomes a last result, a `Raised`."""
    results: list[tuple[str, Any]] = []
    try:
        with _fixed_chance(), time_limit(seconds):
            for label, value in run(answer):
                results.append((label, copy.deepcopy(value)))
    except TooLong:
        results.append(("time", Raised("TimeoutError", f"still running after {seconds:.0f} s")))
    except (Exception, SystemExit) as error:
        results.append(("raised", _raised(error, run, getattr(answer, "running", True))))
    return results


def observe(run: Callable, answer: Callable, seconds: float) -> tuple[list, Watched]:
    """Return a learner's results within a time limit, and what was noticed on the way."""
    watched = Watched(answer)
    with contextlib.redirect_stdout(_Tee(sys.stdout, watched)):
        return collect(run, watched, seconds), watched


def _raised(error: BaseException, run: Callable, running: bool) -> Raised:
    frames = traceback.extract_tb(error.__traceback__)
    reader = run.__code__.co_filename, run.__code__.co_name
    apart = (*_OURS, *_LIBRARIES, "<frozen")
    theirs = [
        f for f in frames if not f.filename.startswith(apart) and (f.filename, f.name) != reader
    ]
    inside = running or bool(theirs)
    shown = next((f for f in reversed(theirs) if f.line), None)
    place = (shown.line, shown.lineno or 0) if shown else ("", 0)
    unwritten = isinstance(error, NotImplementedError) and error.args in ((), (STUB_MESSAGE,))
    name = "unwritten" if unwritten else type(error).__name__
    return Raised(name, str(error), *place, inside)
