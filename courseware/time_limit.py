"""Stop what runs too long: a check under a stub, or an exercise's answer with an endless loop."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

AGAIN = 0.2  # seconds after which code that swallowed a TooLong gets another
LEAVING = 5.0  # seconds that `finally` clauses and with blocks have to put things back
_OURS = (str(Path(__file__).parent), contextlib.__file__)


class TooLong(BaseException):
    """Raised when the time is over; no `except Exception` of the stopped code catches it."""


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TooLong after `seconds`, where the system has timers and this is the main thread.

    Code that is left cleans up undisturbed, such as a with block that resets a device, if that takes no longer than
    LEAVING. A loop around a bare `except:` swallows it. From then on it is raised at every line of the stopped code,
    also at the lines of the handler itself, until the code is left.
    """
    over = False
    swallowed = False
    first = 0.0  # when TooLong was raised for the first time

    def at_every_line(frame: FrameType, event: str, argument: Any) -> Any:
        if over or _ours(frame):
            return None
        if event == "line":
            raise TooLong
        return at_every_line

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal swallowed, first

        is_leaving = isinstance(sys.exc_info()[1], TooLong)
        if is_leaving and time.monotonic() < first + LEAVING:
            return

        if over or swallowed and _ours(frame):  # the stopped code has been left already
            return

        if swallowed:
            sys.settrace(at_every_line)
            while frame is not None and not _ours(frame):
                frame.f_trace = at_every_line
                frame = frame.f_back

        if not swallowed:
            first = time.monotonic()
        swallowed = True
        raise TooLong

    previous: Any = None
    try:
        previous = signal.signal(signal.SIGALRM, stop) if seconds else None
    except (AttributeError, ValueError):  # Windows; not in the main thread
        seconds = None
    if not seconds:
        yield
        return

    tracer = sys.gettrace()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        sys.settrace(tracer)


def _ours(frame: FrameType | None) -> bool:
    return frame is None or frame.f_code.co_filename.startswith(_OURS)
