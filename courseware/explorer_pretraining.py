"""The packing explorer of chapter 13: documents of different lengths in rows of equal length, padded or packed."""

from __future__ import annotations

import html
import math
from typing import Any

import ipywidgets

BLOCKS = (16, 32, 64, 128, 256, 512, 1024)
METHODS = ("padded", "packed")
SHOWN = 14  # rows
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7")


def packing_data(lengths: list[int]) -> dict:
    """Return {"lengths", "blocks", "methods"} for documents of so many tokens, END included."""
    return {"lengths": list(lengths), "blocks": list(BLOCKS), "methods": list(METHODS)}


def rows(lengths: list[int], block: int, method: str) -> list[list[list[int]]]:
    """Return the rows of `block` places: lists of [document, tokens]; what they do not fill is empty.

    padded: every document begins a row, and goes on in the next. packed: each begins where the one before ends.
    """
    found, free = [], 0
    for i, left in enumerate(lengths):
        if method == "padded":
            free = 0
        while left:
            if not free:
                found.append([])
                free = block
            taken = min(left, free)
            found[-1].append([i, taken])
            left, free = left - taken, free - taken
    return found


def describe(data: dict, block: int, method: str) -> list[str]:
    """Return two sentences: what is shown, and how it compares with the other method."""
    tokens, said = sum(data["lengths"]), []
    for name in sorted(data["methods"], key=lambda name: name != method):
        n = len(rows(data["lengths"], block, name))
        empty = n * block - tokens
        share = math.floor(1000 * empty / (n * block) + 0.5) / 10  # as the website rounds
        said.append(
            f"{name.capitalize()}: {len(data['lengths'])} documents of {tokens} tokens need {n} "
            f"row{'' if n == 1 else 's'} of {block}; {empty} of {n * block} places ({share:.1f}%) are empty."
        )
    return said


def draw(data: dict, block: int, method: str) -> str:
    """Return the first rows as HTML: a bar a row, a colour a document, what is empty left blank."""
    found = rows(data["lengths"], block, method)
    lines = []
    for row in found[:SHOWN]:
        bars = "".join(
            f'<span style="flex:{n};background:{_COLOURS[i % 6]}"></span>' for i, n in row
        )
        bars += f'<span style="flex:{block - sum(n for _, n in row)}"></span>'
        lines.append(
            '<div style="display:flex;gap:1px;height:14px;margin:3px 0;outline:1px dashed '
            f'currentColor;outline-offset:-1px">{bars}</div>'
        )
    more = len(found) - SHOWN
    note = f"and {more} more row{'' if more == 1 else 's'}" if more > 0 else "all rows"
    return f'<div aria-hidden="true">{"".join(lines)}<small>{note}</small></div>'


def packing(data: dict[str, Any]) -> ipywidgets.Widget:
    """Return the explorer: a choice of method, a slider for the block size, the rows, two sentences."""
    wide = {"description_width": "6rem"}
    method = ipywidgets.ToggleButtons(options=data["methods"], description="Method", style=wide)
    block = ipywidgets.SelectionSlider(
        options=data["blocks"], value=128, description="Block size", style=wide
    )
    view = ipywidgets.HTML()

    def redraw(_=None) -> None:
        chosen = block.value, method.value
        sentences = "".join(f"<p>{html.escape(s)}</p>" for s in describe(data, *chosen))
        view.value = draw(data, *chosen) + sentences

    for control in (method, block):
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([method, block, view])
