"""The RoPE clock of chapter 06: a dial for each pair, with one hand for the query and one for the key."""

from __future__ import annotations

import html
import math
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.lines import Axes, Series, plot

_QUERY, _KEY, _MARK = COLOURS["query"], COLOURS["key"], COLOURS["train"]
_WIDTH, _HEIGHT = 116, 152  # of a dial's SVG
_X, _Y, _RADIUS = 58, 56, 46  # the circle in it


def frequencies(dim: int, base: float) -> list[float]:
    """Return the radians per position by which each of the dim / 2 hands turns."""
    return [base ** (-2 * i / dim) for i in range(dim // 2)]


def fixed(value: float, digits: int = 2) -> str:
    """Return a number with fixed decimals, a true minus sign, and no minus before zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def speed(theta: float) -> str:
    """Return the speed of a hand, in radians per position, as text."""
    if theta < 0.001:
        return f"{theta:.5f}"
    return f"{theta:.3f}".rstrip("0").rstrip(".")


def scores(data: dict[str, Any], base: float, distance: int) -> list[float]:
    """Return the score of each pair: the cosine of the angle between its two hands."""
    return [math.cos(distance * theta) for theta in frequencies(data["dim"], base)]


def describe(data: dict[str, Any], base: int, query: int, key: int) -> str:
    """Return the sentence below the dials: the distance, the scores of the pairs, and their sum."""
    distance = query - key
    parts = scores(data, base, distance)
    shown = [fixed(part) for part in parts]
    terms = " + ".join(f"({text})" if text.startswith("−") else text for text in shown)
    return (
        f"Query at {query}, key at {key}: distance {fixed(distance, 0)}. "
        f"Score {terms} = {fixed(sum(parts))}."
    )


def _hand(angle: float, colour: str, length: float, width: int) -> str:
    x = _X + length * math.cos(angle)
    y = _Y - length * math.sin(angle)
    return (
        f'<line x1="{_X}" y1="{_Y}" x2="{x:.1f}" y2="{y:.1f}" stroke="{colour}" '
        f'stroke-width="{width}" stroke-linecap="round"/>'
    )


def _text(y: float, text: str) -> str:
    return f'<text x="{_X}" y="{y}" text-anchor="middle" font-size="16" fill="currentColor">{text}</text>'


def dials(data: dict[str, Any], base: int, query: int, key: int) -> str:
    """Return a row of dials (on a phone, two by two); a hand's angle is its position times the pair's speed."""
    parts = []
    pairs = zip(frequencies(data["dim"], base), scores(data, base, query - key))
    for theta, score in pairs:
        parts.append(
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true" style="flex:1 1 7.2rem;max-width:8.5rem">'
            f'<circle cx="{_X}" cy="{_Y}" r="{_RADIUS}" fill="none" stroke="currentColor" stroke-opacity="0.4"/>'
            + _hand(key * theta, _KEY, _RADIUS - 14, 8)
            + _hand(query * theta, _QUERY, _RADIUS - 4, 4)
            + _text(124, f"θ = {speed(theta)}")
            + _text(146, f"score {fixed(score)}")
            + "</svg>"
        )
    alt = html.escape(describe(data, base, query, key))
    return f'<div role="img" aria-label="{alt}" style="display:flex;flex-wrap:wrap">{"".join(parts)}</div>'


def curve(data: dict[str, Any], base: int, query: int, key: int) -> str:
    """Return the SVG of the score over the distance, with the present distance marked."""
    last = data["last"]
    pairs = data["dim"] // 2
    points = [[d, sum(scores(data, base, d))] for d in range(-last, last + 1)]
    here = points[query - key + last]

    line: Series = {"colour": _QUERY, "points": points, "width": 2.5, "opacity": 1, "dots": []}
    mark: Series = {"colour": _MARK, "points": [here], "width": 2.5, "opacity": 1, "dots": [here]}
    axes: Axes = {
        "x": [-last, last],
        "y": [-pairs, pairs],
        "log": False,
        "xticks": [-last, -last // 2, 0, last // 2, last],
        "yticks": [-pairs, -pairs // 2, 0, pairs // 2, pairs],
        "xlabel": "distance, query − key",
    }
    alt = f"Score over distance; at distance {here[0]} it is {fixed(here[1])}"
    return plot([line, mark], axes, alt)


def rope_clock(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the clock: sliders for the two positions, a button that moves both, a choice of base.

    data: {"dim", "bases", "base", "last", "query", "key"}; positions go from 0 to last.
    """
    wide = {"description_width": "5.5rem"}
    query, key = (
        ipywidgets.IntSlider(
            value=data[name], min=0, max=data["last"], description=name.capitalize(), style=wide
        )
        for name in ("query", "key")
    )
    base = ipywidgets.Dropdown(
        options=[(f"{b:,}", b) for b in data["bases"]],
        value=data["base"],
        description="Base",
        style=wide,
    )
    both = ipywidgets.Button(description="Move both by 1")
    view = ipywidgets.HTML()

    def redraw() -> None:
        chosen = (base.value, query.value, key.value)
        sentence = html.escape(describe(data, *chosen))
        view.value = (
            f'<p><b style="color:{_QUERY}">▬</b> query &nbsp; <b style="color:{_KEY}">▬</b> key</p>'
            f"{dials(data, *chosen)}<p>{sentence}</p>{curve(data, *chosen)}"
        )

    def move_both(_: ipywidgets.Button) -> None:
        """Move both hands one position on or, at the end, back to the start."""
        has_room = max(query.value, key.value) < data["last"]
        step = 1 if has_room else -min(query.value, key.value)
        query.value += step
        key.value += step

    both.on_click(move_both)
    redraw_on_change([query, key, base], redraw)
    return ipywidgets.VBox([query, key, both, base, view])
