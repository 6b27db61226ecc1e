"""The packing explorer of chapter 13: documents of different lengths in rows of equal length, padded or packed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.markup import paragraphs
from courseware.widgets.tokens import colour_of

BLOCKS = (16, 32, 64, 128, 256, 512, 1024)
METHODS = ("padded", "packed")
SHOWN = 14  # rows


def packing_data(lengths: Sequence[int]) -> dict[str, Any]:
    """Return {"lengths", "blocks", "methods"}; lengths: the tokens of each document, END included."""
    return {"lengths": list(lengths), "blocks": list(BLOCKS), "methods": list(METHODS)}


def rows(lengths: Sequence[int], block: int, method: str) -> list[list[list[int]]]:
    """Return the rows of `block` places, each as a list of [document, tokens]; the rest of a row is empty.

    padded: every document begins a new row, and continues in the next. packed: each begins where the last one ended.
    """
    found: list[list[list[int]]] = []
    free = 0  # places in the last row
    for i, left in enumerate(lengths):
        if method == "padded":
            free = 0
        while left:
            if not free:
                found.append([])
                free = block
            taken = min(left, free)
            found[-1].append([i, taken])
            left -= taken
            free -= taken
    return found


def describe(data: dict[str, Any], block: int, method: str) -> list[str]:
    """Return two sentences: about the method that is shown, and about the other one."""
    methods = sorted(data["methods"], key=lambda name: name != method)
    return [_describe(data["lengths"], block, name) for name in methods]


def _describe(lengths: Sequence[int], block: int, method: str) -> str:
    tokens = sum(lengths)
    n = len(rows(lengths, block, method))
    empty = n * block - tokens
    share = math.floor(1000 * empty / (n * block) + 0.5) / 10  # rounded as the website rounds
    return (
        f"{method.capitalize()}: {len(lengths)} documents of {tokens} tokens need {n} "
        f"row{'' if n == 1 else 's'} of {block}; {empty} of {n * block} places ({share:.1f}%) are empty."
    )


def draw(data: dict[str, Any], block: int, method: str) -> str:
    """Return the first rows as HTML: a bar for each row, a colour for each document, blank where it is empty."""
    found = rows(data["lengths"], block, method)
    bars = "".join(_bar(row, block) for row in found[:SHOWN])
    more = len(found) - SHOWN
    note = f"and {more} more row{'' if more == 1 else 's'}" if more > 0 else "all rows"
    return f'<div aria-hidden="true">{bars}<small>{note}</small></div>'


def _bar(row: Sequence[Sequence[int]], block: int) -> str:
    parts = "".join(
        f'<span style="flex:{n};background:{colour_of(document)}"></span>' for document, n in row
    )
    parts += f'<span style="flex:{block - sum(n for _, n in row)}"></span>'
    return (
        '<div style="display:flex;gap:1px;height:14px;margin:3px 0;outline:1px dashed '
        f'currentColor;outline-offset:-1px">{parts}</div>'
    )


def packing(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the explorer: a choice of method, a slider for the block size, the rows, two sentences.

    data: that of `packing_data`.
    """
    wide = {"description_width": "6rem"}
    method = ipywidgets.ToggleButtons(options=data["methods"], description="Method", style=wide)
    block = ipywidgets.SelectionSlider(
        options=data["blocks"], value=128, description="Block size", style=wide
    )
    view = ipywidgets.HTML()

    def redraw() -> None:
        chosen = (block.value, method.value)
        view.value = draw(data, *chosen) + paragraphs(describe(data, *chosen))

    redraw_on_change([method, block], redraw)
    return ipywidgets.VBox([method, block, view])
