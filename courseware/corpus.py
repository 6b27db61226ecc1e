"""The text that every chapter reads."""

from functools import cache


@cache
def shakespeare() -> str:
    """Return the 38 plays of Shakespeare as chapter 03's `load_text` gives them, read once."""
    from minigpt_lib.data import load_text

    return load_text()
