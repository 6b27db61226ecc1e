"""Tokens as tinted boxes, for every figure that shows text in pieces."""

from __future__ import annotations

import html

# Okabe and Ito's colours, as in figures.py, and their purple.
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7")


def visible(text: str) -> str:
    """Return a text with visible spaces and line breaks."""
    return text.replace(" ", "␣").replace("\n", "⏎")


def token_box(text: str, note: str, colour: str) -> str:
    """Return the HTML of one token: its text in a tinted box, with a small note below."""
    return (
        f'<span style="display:inline-block;margin:2px;padding:1px 5px;border-radius:4px;'
        f'border:1px solid {colour};background:{colour}26;text-align:center;line-height:1.25">'
        f'<span style="font-family:monospace;font-size:1.1em">{html.escape(visible(text))}</span><br>'
        f'<span style="font-size:.75em;opacity:.85">{html.escape(note)}</span></span>'
    )


def colour_of(i: int) -> str:
    """Return a colour of the house palette for the i-th kind of thing."""
    return _PALETTE[i % len(_PALETTE)]
