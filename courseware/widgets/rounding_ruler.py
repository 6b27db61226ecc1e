"""The ruler of chapter 22: a row of weights, the levels that a few bits give it, and what rounding costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import paragraphs

BITS = (2, 3, 4, 5, 6, 7, 8)
GROUPS = (32, 16, 8, 4)
COUNTED = ("symmetric", "from the lowest weight")
_NUMBER = 16  # bits of a scale, or of a lowest weight
_WEIGHT = COLOURS["train"]
_LEVEL = COLOURS["valid"]
# Of the line, in an SVG 340 units wide:
_LEFT = 10
_WIDE = 320
_CLOSE = 2.5  # units between levels; those that lie closer are drawn as a bar


@dataclass(frozen=True)
class Rounded:
    """A group of weights, counted in steps from `origin`: weight is about code * step + origin."""

    weights: list[float]
    codes: list[int]
    step: float
    origin: float
    lowest: int  # code
    highest: int

    @property
    def restored(self) -> list[float]:
        """Return the weights after the round trip."""
        return [code * self.step + self.origin for code in self.codes]


def ruler_data() -> dict[str, Any]:
    """Return three rows of 32 weights with two decimals, and the choices."""
    import torch

    generator = torch.Generator().manual_seed(0)
    around = 0.3 * torch.randn(32, generator=generator)
    outlier = around.clone()
    outlier[20] = 3.0
    rows = {
        "around 0": around,
        "with one outlier": outlier,
        "all positive": around.abs() + 0.4,
    }
    return {
        "rows": [
            {"name": name, "weights": [round(w, 2) for w in row.tolist()]}
            for name, row in rows.items()
        ],
        "bits": list(BITS),
        "groups": list(GROUPS),
        "counted": list(COUNTED),
    }


def rounded(weights: list[float], bits: int, size: int, counted: int) -> list[Rounded]:
    """Return the groups of `size` weights, rounded to `bits` bits.

    counted: 0 for symmetric codes around 0, 1 for codes from 0 up, counted from the lowest weight of the group.
    """
    found = []
    for first in range(0, len(weights), size):
        group = weights[first : first + size]
        if counted == 0:
            highest = 2 ** (bits - 1) - 1
            lowest = -highest
            origin = 0.0
            width = max(abs(weight) for weight in group)
        else:
            lowest, highest = 0, 2**bits - 1
            origin = min(group)
            width = max(group) - origin
        step = width / highest if width > 0 else 1.0
        codes = [math.floor((weight - origin) / step + 0.5) for weight in group]
        found.append(Rounded(group, codes, step, origin, lowest, highest))
    return found


def bits_per_weight(bits: int, size: int, counted: int) -> float:
    """Return the bits of a code and its share of the scale, or of the scale and the lowest weight."""
    return bits + _NUMBER * (1 + counted) / size


def _three(x: float) -> str:
    """Return a number with three decimals; a half is rounded up."""
    return f"{math.floor(1000 * x + 0.5) / 1000:.3f}"


def describe(data: dict[str, Any], row: int, bits: int, size: int, counted: int) -> list[str]:
    """Return three sentences: the levels, the error, the bytes."""
    weights = data["rows"][row]["weights"]
    groups = rounded(weights, bits, size, counted)
    n_levels = groups[0].highest - groups[0].lowest + 1
    steps = [group.step for group in groups]
    errors = [
        restored - weight
        for group in groups
        for restored, weight in zip(group.restored, group.weights)
    ]
    squares = 0.0
    for error in errors:
        squares += error * error
    most = max(abs(error) for error in errors)

    several = f"{_three(min(steps))} to {_three(max(steps))}"
    widths = f"a step of {_three(steps[0])}" if len(steps) == 1 else f"steps of {several}"
    per = bits_per_weight(bits, size, counted)
    n_bytes = math.ceil(per * len(weights) / 8)
    scales = "a scale" if counted == 0 else "a scale and a lowest weight"
    return [
        f"{bits} bits, {data['counted'][counted]}: {n_levels} levels for each {size} weights, {widths}.",
        f"Typical error {_three(math.sqrt(squares / len(errors)))}, at most {_three(most)}.",
        f"{bits} bits for a code, and {scales} of 16 bits for each {size}: {per:.2f} bits per weight, "
        f"{n_bytes} bytes for the row instead of {4 * len(weights)}.",
    ]


def _bounds(weights: list[float]) -> tuple[float, float]:
    """Return the ends of the number line, which shows 0 and every weight."""
    low, high = min(0.0, *weights), max(0.0, *weights)
    far = max(-low, high)
    return (-far if low < 0 else 0.0, far)


def _x(value: float, bounds: tuple[float, float]) -> float:
    """Return a place on the line, in tenths of a unit; a half is rounded up."""
    low, high = bounds
    return math.floor(10 * (_LEFT + _WIDE * (value - low) / (high - low)) + 0.5) / 10


def _strip(group: Rounded, top: int, bounds: tuple[float, float]) -> str:
    """Return one group: its weights as dots above, its levels as ticks below, and where each dot goes."""
    low, high = bounds
    levels = [code * group.step + group.origin for code in range(group.lowest, group.highest + 1)]
    seen = [_x(level, bounds) for level in levels if low - 1e-9 <= level <= high + 1e-9]
    line = top + 34
    parts = [
        f'<path d="M{_LEFT} {line}h{_WIDE}" stroke="currentColor" stroke-opacity="0.35"/>',
    ]
    if _WIDE * group.step / (high - low) < _CLOSE:
        parts.append(
            f'<rect x="{seen[0]:.1f}" y="{line - 5}" width="{seen[-1] - seen[0]:.1f}" height="10" fill="{_LEVEL}"/>'
        )
    else:
        ticks = "".join(f"M{x:.1f} {line - 5}v10" for x in seen)
        parts.append(f'<path d="{ticks}" stroke="{_LEVEL}" stroke-width="1.6"/>')
    for weight, restored in zip(group.weights, group.restored):
        x = _x(weight, bounds)
        parts.append(
            f'<path d="M{x:.1f} {top + 10}L{_x(restored, bounds):.1f} {line - 5}" stroke="{_WEIGHT}"/>'
            f'<circle cx="{x:.1f}" cy="{top + 8}" r="3" fill="{_WEIGHT}"/>'
        )
    return "".join(parts)


def draw(data: dict[str, Any], row: int, bits: int, size: int, counted: int) -> str:
    """Return the picture: a number line for each group, with the same bounds."""
    weights = data["rows"][row]["weights"]
    bounds = _bounds(weights)
    groups = rounded(weights, bits, size, counted)
    strips = "".join(_strip(group, 46 * i, bounds) for i, group in enumerate(groups))
    below = 46 * len(groups) + 20

    labels = ""
    ends = ((bounds[0], "start"), (bounds[1], "end"))
    for value, anchor in (*ends, (0.0, "middle")):
        if value == 0.0 and anchor == "middle" and bounds[0] == 0.0:
            continue
        words = f"{value:.2f}".replace("-", "−") if value else "0"
        labels += (
            f'<text x="{_x(value, bounds):.1f}" y="{below}" font-size="14" text-anchor="{anchor}" '
            f'fill="currentColor">{words}</text>'
        )
    return (
        f'<svg viewBox="0 0 340 {below + 6}" aria-hidden="true" style="display:block;width:100%;'
        f'max-width:28rem;height:auto">{strips}{labels}</svg>'
    )


def legend() -> str:
    """Return what the colours mean."""
    return (
        f'<p aria-hidden="true"><b style="color:{_WEIGHT}">●</b> weights &nbsp; '
        f'<b style="color:{_LEVEL}">▮</b> levels</p>'
    )


def rounding_ruler(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the ruler: a menu of rows, sliders for bits and group, how codes are counted; picture and sentences.

    data: that of `ruler_data`.
    """
    wide = {"description_width": "6rem"}
    names = [(row["name"], i) for i, row in enumerate(data["rows"])]
    row = ipywidgets.Dropdown(options=names, value=1, description="Weights", style=wide)
    bits = ipywidgets.SelectionSlider(options=data["bits"], value=4, description="Bits", style=wide)
    size = ipywidgets.SelectionSlider(
        options=data["groups"], value=32, description="Group", style=wide
    )
    kinds = [(name, i) for i, name in enumerate(data["counted"])]
    counted = ipywidgets.Dropdown(options=kinds, value=0, description="Counted", style=wide)
    view = ipywidgets.HTML()

    def redraw() -> None:
        chosen = (row.value, bits.value, size.value, counted.value)
        view.value = legend() + draw(data, *chosen) + paragraphs(describe(data, *chosen))

    redraw_on_change([row, bits, size, counted], redraw)
    return ipywidgets.VBox([row, bits, size, counted, view])
