"""Check that bad input is refused with an error message that helps."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from typing import Any


def refused(
    words: str | Sequence[str],
    function: Callable[..., Any],
    /,
    *arguments: Any,
    kind: type[BaseException] | tuple[type[BaseException], ...] = ValueError,
    **options: Any,
) -> str:
    """Check that function(*arguments, **options) raises an error with these words, and return its message.

    words: a phrase that the message must contain, or several. kind: the error expected, or a tuple of kinds; a subclass
    counts. Raises AssertionError that says what happened instead: nothing was raised, another kind of error was, or
    some words are missing.

    >>> refused("invalid literal", int, "twelve")
    "invalid literal for int() with base 10: 'twelve'"
    >>> refused(["expected", "12"], int, "12")
    Traceback (most recent call last):
    AssertionError: int('12') was accepted and returned 12; expected a ValueError that says 'expected' and '12'

    A generator does nothing until it is read: check `refused(words, lambda: list(pieces(text)))`.
    """
    phrases = [words] if isinstance(words, str) else list(words)
    call = _written(function, arguments, options)
    expected = f"expected {_names(kind)}{_saying(phrases)}"

    try:
        result = function(*arguments, **options)
    except kind as error:
        message = str(error)
    except Exception as error:
        raise AssertionError(
            f"{call} raised {type(error).__name__}: {error}; {expected}"
        ) from error
    else:
        raise AssertionError(f"{call} was accepted and returned {_short(result)}; {expected}")

    missing = [phrase for phrase in phrases if phrase not in message]
    if missing:
        raise AssertionError(f"{call} was refused with {message!r}, without {_listed(missing)}")
    return message


def _written(
    function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]
) -> str:
    """Return a call as one would write it, with long arguments shortened."""
    parts = [_short(argument) for argument in arguments]
    parts += [f"{name}={_short(value)}" for name, value in options.items()]
    name = getattr(function, "__qualname__", None) or type(function).__name__
    return f"{name}({', '.join(parts)})"


def _short(thing: object) -> str:
    """Return how a thing is shown: a tensor by its shape, anything else by at most about 60 characters."""
    if hasattr(thing, "shape") and hasattr(thing, "dtype"):
        return f"{type(thing).__name__} of shape {tuple(thing.shape)}"

    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = 60
    return brief.repr(thing)


def _names(kind: type[BaseException] | tuple[type[BaseException], ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(one.__name__ for one in kinds)
    return f"{'an' if names[0] in 'AEIOU' else 'a'} {names}"


def _saying(phrases: Sequence[str]) -> str:
    return f" that says {_listed(phrases)}" if any(phrases) else ""


def _listed(phrases: Sequence[str]) -> str:
    return " and ".join(repr(phrase) for phrase in phrases)
