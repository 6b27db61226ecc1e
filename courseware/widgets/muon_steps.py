"""The Newton-Schulz steps of chapter 20: a gradient with uneven singular values, and what each step makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ipywidgets

from courseware.widgets import lines
from courseware.widgets import show as shows
from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import paragraphs

RATIOS = (1, 3, 10, 30, 100, 300, 1000)  # the largest singular value over the smallest
STEPS = 10  # at most
ROWS, COLUMNS = 5, 7
_BEFORE, _AFTER = COLOURS["residual"], COLOURS["query"]
_POSITIVE, _NEGATIVE = COLOURS["query"], COLOURS["train"]
_CURVE = COLOURS["valid"]
_LOWEST = -3.2  # the power of ten at which the curve begins
_POINTS = 154  # two units apart
_CELL = 23  # pixels of a grid's cell, in an SVG 340 units wide
_SCALE = 165  # units of a bar that stands for 1
ALT = (
    "The singular values of a small gradient before and after some Newton-Schulz steps: a curve from each starting "
    "value to its result, bars, and the matrix as two grids. After five steps of the quintic all values are near 1."
)

Numbers = Sequence[float]


def muon_data() -> dict[str, Any]:
    """Return the singular vectors of a gradient (5, 7) with 12 decimals, and the choices.

    `left` are 5 columns and `right` 5 rows, each of length 1 and orthogonal to the others.
    """
    import torch

    generator = torch.Generator().manual_seed(20)

    def orthonormal(n: int) -> torch.Tensor:
        drawn = torch.randn(n, ROWS, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(drawn).Q

    left, right = orthonormal(ROWS), orthonormal(COLUMNS).T
    return {
        "left": [[round(x, 12) for x in row] for row in left.tolist()],
        "right": [[round(x, 12) for x in row] for row in right.tolist()],
        "ratios": list(RATIOS),
        "kinds": [
            {"name": "Muon's quintic", "coefficients": [3.4445, -4.775, 2.0315]},
            {"name": "the classic cubic", "coefficients": [1.5, -0.5, 0.0]},
        ],
        "steps": STEPS,
    }


def singular_values(ratio: float) -> list[float]:
    """Return five singular values, each the same share of the one before, divided by their Frobenius norm."""
    values = [ratio ** (-i / (ROWS - 1)) for i in range(ROWS)]
    norm = math.sqrt(sum(value * value for value in values))
    return [value / norm for value in values]


def stepped(value: float, coefficients: Numbers, steps: int) -> float:
    """Return what `steps` steps make of a singular value: each turns s into a s + b s^3 + c s^5."""
    a, b, c = coefficients
    for _ in range(steps):
        square = value * value
        value = value * (a + square * (b + square * c))
    return value


def composed(data: dict[str, Any], values: Numbers) -> list[list[float]]:
    """Return the matrix (5, 7) with these singular values and the singular vectors of the data."""
    matrix = []
    for row in data["left"]:
        cells = []
        for j in range(COLUMNS):
            cell = 0.0
            for k, value in enumerate(values):
                cell += row[k] * value * data["right"][k][j]
            cells.append(cell)
        matrix.append(cells)
    return matrix


def describe(data: dict[str, Any], ratio: float, kind: int, steps: int) -> list[str]:
    """Return three sentences: the values at the start, after the steps, and what a step does near 0."""
    before = singular_values(ratio)
    coefficients = data["kinds"][kind]["coefficients"]
    after = [stepped(value, coefficients, steps) for value in before]
    uneven = "all equal" if ratio == 1 else f"the largest {ratio} times the smallest"
    several = "1 step" if steps == 1 else f"{steps or 'no'} steps"
    low, high = min(after), max(after)
    return [
        f"Five singular values, {uneven}; divided by the norm: {_listed(before)}.",
        f"After {several} of {data['kinds'][kind]['name']}: {_listed(after)}. "
        f"The largest is {_rounded(high / low, 1)} times the smallest.",
        f"Near 0, a step multiplies by {_rounded(coefficients[0], 2)}.",
    ]


def _listed(values: Numbers) -> str:
    return ", ".join(_rounded(value, 3) for value in values)


def _rounded(x: float, decimals: int) -> str:
    """Return a number with these decimals; a half is rounded up."""
    factor = 10**decimals
    return f"{math.floor(factor * x + 0.5) / factor:.{decimals}f}"


def curve(data: dict[str, Any], ratio: float, kind: int, steps: int) -> str:
    """Return the plot: what the steps make of each value, and the five values as dots."""
    coefficients = data["kinds"][kind]["coefficients"]
    points = []
    for i in range(_POINTS + 1):
        power = _LOWEST - _LOWEST * i / _POINTS
        points.append([power, stepped(10.0**power, coefficients, steps)])
    dots = [
        [math.log10(value), stepped(value, coefficients, steps)] for value in singular_values(ratio)
    ]

    series: list[lines.Series] = [
        {"colour": _CURVE, "points": points, "width": 2.5, "opacity": 1, "dots": []},
        {"colour": _AFTER, "points": [], "width": 2.5, "opacity": 1, "dots": dots},
    ]
    axes: lines.Axes = {
        "x": [_LOWEST, 0],
        "y": [0, 1.3],
        "log": False,
        "xticks": [-3, -2, -1, 0],
        "yticks": [0, 0.5, 1],
        "xlabel": "power of ten of the value at the start",
    }
    return lines.plot(series, axes, _alt(data, kind, steps))


def _alt(data: dict[str, Any], kind: int, steps: int) -> str:
    times = "once" if steps == 1 else f"{steps} times"
    return f"A curve with five dots on it: {data['kinds'][kind]['name']}, applied {times}."


def bars(before: Numbers, after: Numbers) -> str:
    """Return two bars for each singular value, before and after the steps, and a line at 1."""
    parts = []
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        top = 34 * i
        parts.append(
            f'<rect x="4" y="{top + 4}" width="{_rounded(_SCALE * old, 1)}" height="11" fill="{_BEFORE}"/>'
            f'<rect x="4" y="{top + 16}" width="{_rounded(_SCALE * new, 1)}" height="11" fill="{_AFTER}"/>'
            f'<text x="336" y="{top + 21}" font-size="16" text-anchor="end" fill="currentColor">'
            f"{_rounded(old, 3)} → {_rounded(new, 3)}</text>"
        )
    height = 34 * len(before)
    parts.append(
        f'<path d="M{4 + _SCALE} 0v{height}" stroke="currentColor" stroke-dasharray="4 3" stroke-opacity="0.6"/>'
    )
    return _svg("".join(parts), height)


def grids(one: Sequence[Numbers], other: Sequence[Numbers]) -> str:
    """Return two matrices side by side, each in shades of its own largest entry."""
    words = (("the gradient", 4), ("after the steps", 175))
    parts = "".join(
        f'<text x="{left}" y="16" font-size="16" fill="currentColor">{text}</text>'
        for text, left in words
    )
    return _svg(parts + _grid(one, 4) + _grid(other, 175), 26 + _CELL * ROWS)


def _grid(matrix: Sequence[Numbers], left: int) -> str:
    most = max(abs(cell) for row in matrix for cell in row)
    parts = []
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            colour = _POSITIVE if cell > 0 else _NEGATIVE
            parts.append(
                f'<rect x="{left + _CELL * j}" y="{24 + _CELL * i}" width="{_CELL - 1}" height="{_CELL - 1}" '
                f'fill="{colour}" fill-opacity="{_rounded(abs(cell) / most, 2)}"/>'
            )
    return "".join(parts)


def _svg(body: str, height: int) -> str:
    return (
        f'<svg viewBox="0 0 340 {height}" aria-hidden="true" style="display:block;width:100%;'
        f'max-width:28rem;height:auto;margin:.6em 0">{body}</svg>'
    )


def legend() -> str:
    """Return what the colours mean."""
    marks = (
        (_BEFORE, "before"),
        (_AFTER, "after; positive entry"),
        (_NEGATIVE, "negative entry"),
    )
    return f'<p aria-hidden="true">{lines.legend(marks)}</p>'


def draw(data: dict[str, Any], ratio: float, kind: int, steps: int) -> str:
    """Return the curve, the bars and the grids."""
    before = singular_values(ratio)
    coefficients = data["kinds"][kind]["coefficients"]
    after = [stepped(value, coefficients, steps) for value in before]
    matrices = grids(composed(data, before), composed(data, after))
    return curve(data, ratio, kind, steps) + legend() + bars(before, after) + matrices


def muon_steps(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the widget: a slider for how uneven the values are, a menu of polynomials, a slider for the steps.

    data: that of `muon_data`.
    """
    wide = {"description_width": "9rem"}
    ratio = ipywidgets.SelectionSlider(
        options=data["ratios"], value=100, description="Largest / smallest", style=wide
    )
    names = [(kind["name"], i) for i, kind in enumerate(data["kinds"])]
    kind = ipywidgets.Dropdown(options=names, value=0, description="Polynomial", style=wide)
    steps = ipywidgets.IntSlider(value=1, min=0, max=data["steps"], description="Steps", style=wide)
    view = ipywidgets.HTML()

    def redraw() -> None:
        chosen = (ratio.value, kind.value, steps.value)
        view.value = draw(data, *chosen) + paragraphs(describe(data, *chosen))

    redraw_on_change([ratio, kind, steps], redraw)
    return ipywidgets.VBox([ratio, kind, steps, view])


def show(alt: str = ALT) -> None:
    """Display the widget; on the website, its twin."""
    data = muon_data()
    shows.show(muon_steps(data), twin="muon-steps", data=data, alt=alt)
