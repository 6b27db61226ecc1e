"""The attention map of chapter 05: a line of text, its weights for one query, and the whole map."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import ATTENTION_MAP, COLOURS, LIGHT_WEIGHT


def attention_map(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the widget: a choice of heads, a slider for the query, the line and the map.

    data: {"text": a text, or a list of tokens; "weights": for each head and each query, the weights of the keys it may
    see; "query" and, if it is not 0, "head": the place and the head that are shown first}.
    """
    heads = data["weights"]
    text = data["text"]
    names = [(f"head {i}", i) for i in range(len(heads))]
    head = ipywidgets.ToggleButtons(
        options=names,
        value=data.get("head", 0),
        description="Head",
        style={"button_width": "5em"},
    )
    query = ipywidgets.IntSlider(
        value=data["query"], min=0, max=len(text) - 1, description="Query", continuous_update=True
    )
    view = ipywidgets.HTML()

    def redraw() -> None:
        rows = heads[head.value]
        row = rows[query.value]
        view.value = line_html(text, row) + said(text, row) + map_svg(rows, query.value)

    redraw_on_change([head, query], redraw)
    return ipywidgets.VBox([head, query, view])


def colour(weight: float) -> str:
    """Return viridis at a weight from 0 to 1."""
    import matplotlib

    return matplotlib.colors.to_hex(matplotlib.colormaps[ATTENTION_MAP](weight))


def line_html(text: str, row: Sequence[float]) -> str:
    """Return the line of text; the characters that the query may see are tinted by their weights."""
    query = len(row) - 1
    boxes = []
    for place, character in enumerate(text):
        shown = html.escape("␣" if character == " " else character)
        if place < len(row):
            ink = "#000" if row[place] > LIGHT_WEIGHT else "#fff"
            tint = f"background:{colour(row[place])};color:{ink}"
        else:
            tint = "opacity:.45"
        frame = f"outline:3px solid {COLOURS['query']}" if place == query else ""
        boxes.append(
            f'<span style="display:inline-block;min-width:1.15em;text-align:center;'
            f'font-family:monospace;font-size:1.1em;margin:1px;{tint};{frame}">{shown}</span>'
        )
    return f'<div style="line-height:1.7">{"".join(boxes)}</div>'


def said(text: str, row: Sequence[float]) -> str:
    """Return a sentence with the three largest weights of a query."""
    ranked = sorted(range(len(row)), key=lambda place: (-row[place], place))[:3]
    parts = [f"“{'space' if text[p] == ' ' else text[p]}” at {p}: {row[p]:.2f}" for p in ranked]
    return f"<p>Largest weights: {html.escape(', '.join(parts))}</p>"


def map_svg(rows: Sequence[Sequence[float]], place: int) -> str:
    """Return the whole map, a row for each query, with a frame around the row at `place`."""
    cells = "".join(
        f'<rect x="{j}" y="{i}" width="1.03" height="1.03" fill="{colour(weight)}"/>'
        for i, row in enumerate(rows)
        for j, weight in enumerate(row)
    )
    size = len(rows)
    frame = (
        f'<rect x="0" y="{place}" width="{place + 1}" height="1" fill="none" '
        f'stroke="{COLOURS["train"]}" stroke-width=".3"/>'
    )
    return (
        f'<svg viewBox="-0.3 -0.3 {size + 0.6} {size + 0.6}" style="width:100%;max-width:420px" role="img" '
        f'aria-label="Rows are queries, columns are keys">{cells}{frame}</svg>'
    )
