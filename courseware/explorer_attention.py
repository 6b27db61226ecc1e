"""The attention map of chapter 05 as a widget: a line of text, its weights for one query, and the whole map."""

from __future__ import annotations

import html

import ipywidgets

from courseware.figures import ATTENTION_MAP


def attention_map(data: dict) -> ipywidgets.Widget:
    """Return the widget. data: {text, weights: (H, T, 1..T) nested lists, query: the place shown first}."""
    heads, text = data["weights"], data["text"]
    names = [(f"head {i}", i) for i in range(len(heads))]
    head = ipywidgets.ToggleButtons(
        options=names, description="Head", style={"button_width": "5em"}
    )
    query = ipywidgets.IntSlider(
        value=data["query"], min=0, max=len(text) - 1, description="Query", continuous_update=True
    )
    view = ipywidgets.HTML()

    def show(_=None) -> None:
        rows, place = heads[head.value], query.value
        view.value = line_html(text, rows[place]) + said(text, rows[place]) + map_svg(rows, place)

    head.observe(show, names="value")
    query.observe(show, names="value")
    show()
    return ipywidgets.VBox([head, query, view])


def colour(weight: float) -> str:
    """Return viridis at a weight from 0 to 1."""
    import matplotlib

    return matplotlib.colors.to_hex(matplotlib.colormaps[ATTENTION_MAP](weight))


def line_html(text: str, row: list[float]) -> str:
    """Return the line of text; what the query may see is tinted by its weight."""
    boxes = []
    for place, character in enumerate(text):
        shown = html.escape("␣" if character == " " else character)
        if place < len(row):
            ink = "#000" if row[place] > 0.6 else "#fff"
            tint = f"background:{colour(row[place])};color:{ink}"
        else:
            tint = "opacity:.45"
        frame = "outline:3px solid #0072B2" if place == len(row) - 1 else ""
        boxes.append(
            f'<span style="display:inline-block;min-width:1.15em;text-align:center;'
            f'font-family:monospace;font-size:1.1em;margin:1px;{tint};{frame}">{shown}</span>'
        )
    return f'<div style="line-height:1.7">{"".join(boxes)}</div>'


def said(text: str, row: list[float]) -> str:
    """Return a sentence with the three largest weights of a query."""
    ranked = sorted(range(len(row)), key=lambda place: (-row[place], place))[:3]
    parts = [f"“{'space' if text[p] == ' ' else text[p]}” at {p}: {row[p]:.2f}" for p in ranked]
    return f"<p>Largest weights: {html.escape(', '.join(parts))}</p>"


def map_svg(rows: list[list[float]], place: int) -> str:
    """Return the whole map, a row for each query; the row shown above is framed."""
    cells = "".join(
        f'<rect x="{j}" y="{i}" width="1.03" height="1.03" fill="{colour(weight)}"/>'
        for i, row in enumerate(rows)
        for j, weight in enumerate(row)
    )
    size = len(rows)
    frame = (
        f'<rect x="0" y="{place}" width="{place + 1}" height="1" fill="none" stroke="#D55E00" '
        'stroke-width=".3"/>'
    )
    return (
        f'<svg viewBox="-0.3 -0.3 {size + 0.6} {size + 0.6}" style="width:100%;max-width:420px" role="img" '
        f'aria-label="Rows are queries, columns are keys">{cells}{frame}</svg>'
    )
