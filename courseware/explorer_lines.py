"""Draw lines into an SVG for the interactive figures; `book/_static/twins/plot-lines.js` draws the same."""

from __future__ import annotations

import html
import math

WIDTH, HEIGHT = 370, 280
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 50
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float) -> str:
    """Return a number with about three digits that count, as a person would write it."""
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)) + 1e-12)
    if -4 <= power < 5:
        text = f"{value:.{max(0, 2 - power)}f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")
    head = f"{value / 10.0**power:.1f}".replace("-", "−")
    return f"{head} · 10{str(power).translate(_RAISED)}"


def legend(meanings: list[tuple[str, str]]) -> str:
    """Return HTML that shows (colour, meaning) pairs in a row."""
    swatch = '<span style="display:inline-block;width:.9em;height:.9em;border-radius:2px;background:{}"></span> {}'
    return " &nbsp; ".join(swatch.format(*pair) for pair in meanings)


def plot(series: list[dict], axes: dict, alt: str) -> str:
    """Return an SVG of lines and dots.

    series: {"colour", "points": [[x, y], ...], "width", "opacity", "dots"}; axes: {"x": [low, high], "y":
    [low, high], "log": bool, "xticks", "yticks", "xlabel", "ylabel"}. On a log axis y is a power of ten.
    """

    def across(x: float) -> float:
        low, high = axes["x"]
        return LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        low, high = axes["y"]
        y = math.log10(max(y, 1e-300)) if axes["log"] else y
        y = min(max(y, low), high)
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in axes["yticks"]:
        place = up(10.0**tick) if axes["log"] else up(tick)
        label = (
            "10" + str(tick).translate(_RAISED) if axes["log"] else f"{tick:g}".replace("-", "−")
        )
        parts.append(_line(LEFT, place, WIDTH - RIGHT, place, 0.35 if tick == 0 else 0.15))
        parts.append(_text(LEFT - 7, place + 5, label, "end"))
    for tick in axes["xticks"]:
        label = f"{tick:g}".replace("-", "−")
        parts.append(_text(across(tick), HEIGHT - BOTTOM + 23, label, "middle"))
    if axes["x"][0] < 0 < axes["x"][1]:
        parts.append(_line(across(0), TOP, across(0), HEIGHT - BOTTOM, 0.35))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, axes["xlabel"], "middle"))
    for line in series:
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line["points"])
        parts.append(
            f'<polyline fill="none" stroke="{line["colour"]}" stroke-width="{line["width"]}" '
            f'stroke-opacity="{line["opacity"]}" stroke-linejoin="round" points="{points}"/>'
        )
        for x, y in line["dots"]:
            parts.append(
                f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="5" fill="{line["colour"]}"/>'
            )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(alt)}" '
        f'style="display:block;width:100%;max-width:30rem">{"".join(parts)}</svg>'
    )


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
