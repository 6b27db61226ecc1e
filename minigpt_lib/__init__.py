"""The library that a reader of MiniGPT from scratch builds, one verified module a chapter.

Every other file in this folder is written by a chapter's last cell, after its checks have passed.
"""

import sys
from types import TracebackType


def _end_in_one_line(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report Ctrl-C in one line instead of a traceback, and leave all other errors to Python."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # so it is while `python -m minigpt_lib.…` imports this package
    sys.excepthook = (
        _end_in_one_line  # its imports take seconds, before it can handle Ctrl-C itself
    )
