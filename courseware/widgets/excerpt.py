"""Show the source of functions and methods that stand in a folded cell, so that what is read is what runs."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

_FOR_THE_CHECKER = "# pyrefly:"


def excerpt(*functions: Callable[..., Any]) -> None:
    """Display the source of functions or methods, one below the other, with Python's colours.

    Raises ValueError as `source_of` does.
    """
    from IPython.display import display

    code = source_of(*functions)
    display({"text/markdown": f"```python\n{code}\n```", "text/plain": code}, raw=True)


def source_of(*functions: Callable[..., Any]) -> str:
    """Return the source of functions or methods, at the left margin, with a blank line between two.

    Lines that only tell the type checker what to overlook are left out.

    Raises ValueError if none is given, or if one has no source in Python.
    """
    if not functions:
        raise ValueError("expected a function or method to show, got none")
    return "\n\n".join(map(_source, functions))


def _source(function: Callable[..., Any]) -> str:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"{function!r} has no source to show: expected a function or method written in Python"
        ) from error
    lines = textwrap.dedent(source).rstrip().split("\n")
    return "\n".join(line for line in lines if not line.lstrip().startswith(_FOR_THE_CHECKER))
