"""Small pieces of HTML that several figures contain."""

from __future__ import annotations

import html
from collections.abc import Iterable


def paragraphs(sentences: Iterable[str]) -> str:
    """Return each text as a paragraph, escaped."""
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)


def swatch(colour: str) -> str:
    """Return a small filled square, for legends."""
    box = "display:inline-block;width:.9em;height:.9em;border-radius:2px"
    return f'<span style="{box};background:{colour}"></span>'
