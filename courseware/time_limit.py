"""Stop what runs too long: a check under a stub, or an exercise's answer with an endless loop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class TooLong(BaseException):
    """Raised when the time is over; no `except Exception` of the stopped code catches it."""


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TooLong after `seconds`, where the system has timers and this is the main thread."""

    def stop(*_: object) -> None:
        raise TooLong

    if not seconds:
        yield
        return
    try:
        previous = signal.signal(signal.SIGALRM, stop)
    except (AttributeError, ValueError):  # Windows; not in the main thread
        yield
        return

    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
