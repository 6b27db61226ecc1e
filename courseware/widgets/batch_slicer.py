"""Slide a window over a text and see its inputs and targets (twin: batch-slicer.js)."""

from __future__ import annotations

import html

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS

_ROWS = (
    ("x, what the model reads", "query", 0),
    ("y, what it must predict at each place", "key", 1),
)


def batch_slicer(text: str, block_size: int = 8) -> ipywidgets.VBox:
    """Return two sliders, where the window starts and how long it is, above the text with x and y marked."""
    longest = 16
    start = ipywidgets.IntSlider(value=0, min=0, max=len(text) - longest - 1, description="Start")
    block = ipywidgets.IntSlider(value=block_size, min=1, max=longest, description="Block size")
    view = ipywidgets.HTML()

    def redraw() -> None:
        rows = (
            f"{label}\n<code>{_marked(text, start.value + shift, block.value, COLOURS[colour])}</code>"
            for label, colour, shift in _ROWS
        )
        view.value = f'<div style="white-space:pre-wrap">{chr(10).join(rows)}</div>'

    redraw_on_change([start, block], redraw)
    return ipywidgets.VBox([start, block, view])


def _marked(text: str, start: int, length: int, colour: str) -> str:
    """Return the text as HTML with `length` characters from `start` on in a tinted box."""
    before = html.escape(text[:start])
    inside = html.escape(text[start : start + length])
    after = html.escape(text[start + length :])
    return f"{before}<b style='background:{colour}66'>{inside}</b>{after}"
