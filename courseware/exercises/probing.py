"""Run an answer on the probes of its exercise and write down what it does, whatever it does.

An exception, an endless loop, a call of exit() or a result of the wrong type becomes one of the results. The random
states are fixed, so the same answer always gets the same verdict.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from courseware.exercises.compare import plain, same
from courseware.exercises.guards import MEMORY, guarded
from courseware.exercises.stubs import MESSAGE
from courseware.time_limit import TooLong

Probe = Callable[[Any], Iterator[tuple[str, Any]]]
Results = list[tuple[str, Any]]  # (description, result)

_WATCHED = 200  # calls; copying the arguments of thousands of draws would cost more than the draws
_PRINTED = 1000  # characters of an answer's own output that are shown
_OURS = str(Path(__file__).parent)
_LIBRARIES = tuple(
    path for path in map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")) if path
)


def normal(seed: int) -> Callable[..., torch.Tensor]:
    """Return a function that draws tensors of normal numbers by their shape, in each run the same ones."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class Raised:
    """Stands for a result that could not be computed."""

    kind: str
    message: str = ""
    line: str = ""
    number: int = 0
    inside: bool = True  # raised by the answer, not by the probe when it read the result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raised) and (other.kind, other.inside) == (self.kind, self.inside)

    def __hash__(self) -> int:
        return hash((self.kind, self.inside))


@dataclass
class Observation:
    """What an answer did on the probes, and what was noticed on the way."""

    results: Results
    returned: Any = None  # by the last call
    changed: str = ""  # the parameter whose value it changed
    printed: bool = False
    left_behind: tuple[str, ...] = ()  # library functions and settings that it had changed


class _Watched:
    """Calls an answer and notices which of its arguments it changes."""

    def __init__(self, answer: Callable) -> None:
        self.answer = answer
        self.calls = 0
        self.running = False
        self.returned: Any = None
        self.changed = ""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.calls += 1
        before = copy.deepcopy((args, keywords)) if self.calls <= _WATCHED else None

        self.returned = None
        self.running = True
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


class _Output:
    """Passes on the first of what an answer prints, and remembers that it printed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = _PRINTED
        self.printed = False

    def write(self, text: str) -> int:
        self.printed = self.printed or bool(text.strip())
        if self._left > 0:
            self._stream.write(text[: self._left])
            self._left -= len(text)
            if self._left <= 0:
                self._stream.write("\n… (it printed more than is shown here)\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def collect(probe: Probe, answer: Any, seconds: float | None = None) -> Results:
    """Return the results of a reference or a mistake on the probes."""
    results: Results = []
    with guarded(seconds) as guard:
        _collect(results, probe, answer, seconds, guard)
    return results


def observe(probe: Probe, answer: Callable, seconds: float) -> Observation:
    """Return what a learner's answer does within its limits of time and memory."""
    found = Observation([])
    watched = _Watched(answer)
    output = _Output(sys.stdout)

    with guarded(seconds, MEMORY) as guard, contextlib.redirect_stdout(output):
        _collect(found.results, probe, watched, seconds, guard)

    found.returned = watched.returned
    found.changed = watched.changed
    found.printed = output.printed
    found.left_behind = tuple(guard.left_behind)
    return found


def _collect(
    results: Results, probe: Probe, answer: Any, seconds: float | None, guard: Any
) -> None:
    """Append the results of the probes; what stops the answer becomes the last result, a `Raised`."""
    try:
        for label, value in probe(answer):
            results.append((label, plain(value)))
    except TooLong:
        results.append(("time", Raised("TimeoutError", f"still running after {seconds:.0f} s")))
    except BaseException as error:  # also SystemExit, and a KeyboardInterrupt of the answer's own
        if guard.interrupted:
            raise
        results.append(("raised", _raised(error, probe, getattr(answer, "running", True))))


def _raised(error: BaseException, probe: Probe, running: bool) -> Raised:
    frames = traceback.extract_tb(error.__traceback__)
    reader = (probe.__code__.co_filename, probe.__code__.co_name)
    apart = (_OURS, *_LIBRARIES, "<frozen")
    theirs = [
        f for f in frames if not f.filename.startswith(apart) and (f.filename, f.name) != reader
    ]

    shown = next((f for f in reversed(theirs) if f.line), None)
    unwritten = isinstance(error, NotImplementedError) and error.args in ((), (MESSAGE,))
    return Raised(
        kind="unwritten" if unwritten else type(error).__name__,
        message=_text(error),
        line=(shown.line or "") if shown else "",
        number=shown.lineno or 0 if shown else 0,
        inside=running or bool(theirs),
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception of the learner's own, with a faulty __str__
        return ""
