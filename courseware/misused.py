"""The error for calls of the course that cannot be right: in a notebook, its message stands alone."""

from __future__ import annotations


class Misused(ValueError):
    """Say what was expected, what came, and what to do; IPython prints that without the traceback of our code."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]
