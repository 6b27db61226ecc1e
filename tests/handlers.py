"""The handlers of Ctrl-C and SIGTERM, which code under test may change: put back, or found fault with."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def handlers_put_back() -> Iterator[dict[signal.Signals, Any]]:
    """Put the handlers of Ctrl-C and SIGTERM back, however the block ends.

    Yields a dict that holds, after the block, the handlers that it left by their signals.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    left: dict[signal.Signals, Any] = {}
    try:
        yield left
    finally:
        for number, handler in before.items():
            now = signal.getsignal(number)
            if now is not handler:
                left[number] = now
                signal.signal(number, handler)


@contextlib.contextmanager
def keeping_signals() -> Iterator[None]:
    """Put the handlers of Ctrl-C and SIGTERM back, and fail if there was need to."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    with handlers_put_back() as left:
        yield

    # Where the tests were started with Ctrl-C ignored, nbclient leaves Python's own handler.
    if ignored and left.get(signal.SIGINT) == signal.default_int_handler:
        del left[signal.SIGINT]
    assert not left, f"the test leaves other handlers: {left}"
