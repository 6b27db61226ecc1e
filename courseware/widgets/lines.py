"""Draw lines as SVG for the interactive figures; `book/_static/twins/plot-lines.js` draws the same."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TypedDict

from courseware.widgets.markup import swatch

WIDTH, HEIGHT = 370, 280  # units of the SVG's view box
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 50  # margins
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALLEST = 1e-300  # a logarithmic axis shows 0 as this


class Series(TypedDict):
    """One line of a plot: its points [x, y], and those that are marked with a dot."""

    colour: str
    points: Sequence[Sequence[float]]
    width: float
    opacity: float
    dots: Sequence[Sequence[float]]


class Axes(TypedDict):
    """The ranges [low, high] and ticks of a plot; on a logarithmic axis, those of y are powers of ten."""

    x: Sequence[float]
    y: Sequence[float]
    log: bool
    xticks: Sequence[float]
    yticks: Sequence[float]
    xlabel: str


def number(value: float) -> str:
    """Return a number with about three significant digits, as a person would write it."""
    if value == 0:
        return "0"

    power = math.floor(math.log10(abs(value)) + 1e-12)
    if -4 <= power < 5:
        text = f"{value:.{max(0, 2 - power)}f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return _true_minus(text)

    head = _true_minus(f"{value / 10.0**power:.1f}")
    return f"{head} · {_power_of_ten(power)}"


def _true_minus(text: str) -> str:
    return text.replace("-", "−")


def _power_of_ten(power: float) -> str:
    return "10" + str(power).translate(_RAISED)


def legend(meanings: Sequence[tuple[str, str]]) -> str:
    """Return HTML that shows (colour, meaning) pairs in a row."""
    return " &nbsp; ".join(f"{swatch(colour)} {meaning}" for colour, meaning in meanings)


class _Scale:
    """Where a point lies in the SVG."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes

    def across(self, x: float) -> float:
        low, high = self.axes["x"]
        return LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def up(self, y: float) -> float:
        """Return the height of a value; one outside the range is moved to its border."""
        low, high = self.axes["y"]
        if self.axes["log"]:
            y = math.log10(max(y, _SMALLEST))
        y = min(max(y, low), high)
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def plot(series: Sequence[Series], axes: Axes, alt: str) -> str:
    """Return an SVG of lines and dots; `alt` is its spoken description."""
    scale = _Scale(axes)
    parts = _frame(axes, scale)
    for line in series:
        parts += _curve(line, scale)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(alt)}" '
        f'style="display:block;width:100%;max-width:30rem">{"".join(parts)}</svg>'
    )


def _frame(axes: Axes, scale: _Scale) -> list[str]:
    """Return the grid, the labels of the ticks and the label of the x axis."""
    parts = []
    for tick in axes["yticks"]:
        height = scale.up(10.0**tick if axes["log"] else tick)
        label = _power_of_ten(tick) if axes["log"] else _true_minus(f"{tick:g}")
        parts.append(_line(LEFT, height, WIDTH - RIGHT, height, 0.35 if tick == 0 else 0.15))
        parts.append(_text(LEFT - 7, height + 5, label, "end"))

    for tick in axes["xticks"]:
        label = _true_minus(f"{tick:g}")
        parts.append(_text(scale.across(tick), HEIGHT - BOTTOM + 23, label, "middle"))

    low, high = axes["x"]
    if low < 0 < high:
        parts.append(_line(scale.across(0), TOP, scale.across(0), HEIGHT - BOTTOM, 0.35))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, axes["xlabel"], "middle"))
    return parts


def _curve(line: Series, scale: _Scale) -> list[str]:
    points = " ".join(f"{scale.across(x):.1f},{scale.up(y):.1f}" for x, y in line["points"])
    parts = [
        f'<polyline fill="none" stroke="{line["colour"]}" stroke-width="{line["width"]}" '
        f'stroke-opacity="{line["opacity"]}" stroke-linejoin="round" points="{points}"/>'
    ]
    for x, y in line["dots"]:
        parts.append(
            f'<circle cx="{scale.across(x):.1f}" cy="{scale.up(y):.1f}" r="5" fill="{line["colour"]}"/>'
        )
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, opacity: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="currentColor" stroke-opacity="{opacity}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="16" '
        f'fill="currentColor">{html.escape(text)}</text>'
    )
