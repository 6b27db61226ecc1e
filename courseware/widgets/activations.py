"""The activation explorer of chapter 08: value and slope of an activation, and SwiGLU's gate with its two inputs."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.lines import Axes, Series, legend, number, plot

GATE = "SwiGLU's gate"
_VALUE, _SLOPE, _OTHERS = COLOURS["query"], COLOURS["key"], COLOURS["residual"]


def describe(data: dict[str, Any], name: str, i: int, up: float) -> str:
    """Return the sentence below the picture: value and slope at the i-th x, or what the gate lets through."""
    x = data["x"][i]
    if name == GATE:
        open_by = data["value"]["SiLU"][i]
        return (
            f"Gate {number(x)}: SiLU({number(x)}) = {number(open_by)}. "
            f"Times up {number(up)}, this lets {number(open_by * up)} through."
        )

    value = data["value"][name][i]
    slope = data["slope"][name][i]
    return f"{name} at x = {number(x)}: value {number(value)}, slope {number(slope)}."


def draw(data: dict[str, Any], name: str, i: int, up: float) -> str:
    """Return the SVG: the chosen activation and its slope over x, or the gate's output for a fixed `up`."""
    if name == GATE:
        series, axes = _gate(data, i, up)
    else:
        series, axes = _activation(data, name, i)
    return plot(series, axes, describe(data, name, i, up))


def _gate(data: dict[str, Any], i: int, up: float) -> tuple[list[Series], Axes]:
    axes = _axes(data["x"], [-8, 8], [-8, -4, 0, 4, 8], "gate")
    through = [value * up for value in data["value"]["SiLU"]]
    return [_curve(axes, data["x"], through, _VALUE, 4, dot=i)], axes


def _activation(data: dict[str, Any], name: str, i: int) -> tuple[list[Series], Axes]:
    x = data["x"]
    axes = _axes(x, [-1, 4], [-1, 0, 1, 2, 3, 4], "x")
    series = [
        _curve(axes, x, values, _OTHERS, 1, opacity=0.5)
        for other, values in data["value"].items()
        if other != name
    ]
    series.append(_curve(axes, x, data["slope"][name], _SLOPE, 2, dot=i))
    series.append(_curve(axes, x, data["value"][name], _VALUE, 4, dot=i))
    return series, axes


def _axes(x: Sequence[float], y: Sequence[float], yticks: Sequence[float], label: str) -> Axes:
    return {
        "x": [x[0], x[-1]],
        "y": y,
        "log": False,
        "xticks": [-4, -2, 0, 2, 4],
        "yticks": yticks,
        "xlabel": label,
    }


def _curve(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    colour: str,
    width: int,
    opacity: float = 1,
    dot: int | None = None,
) -> Series:
    """Return the part of a curve that lies inside the axes, with a dot at the given place."""
    low, high = axes["y"]
    points = [[a, b] for a, b in zip(x, y)]
    return {
        "colour": colour,
        "points": [point for point in points if low <= point[1] <= high],
        "width": width,
        "opacity": opacity,
        "dots": [] if dot is None else [points[dot]],
    }


def meanings(name: str) -> list[tuple[str, str]]:
    """Return (colour, meaning) pairs for the legend."""
    if name == GATE:
        return [(_VALUE, "what the gate lets through")]
    return [(_VALUE, "value"), (_SLOPE, "slope"), (_OTHERS, "the others")]


def activations(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the explorer: a choice, a slider for x (the gate), one for up, a picture.

    data: {"x": places; "value" and "slope": for each name, one number for each place}; one name is "SiLU".
    """
    wide = {"description_width": "7rem"}
    name = ipywidgets.Dropdown(
        options=[*data["value"], GATE], value="GELU", description="Show", style=wide
    )
    x = ipywidgets.SelectionSlider(
        options=[(number(value), i) for i, value in enumerate(data["x"])],
        value=data["x"].index(1.0),
        description="x, or the gate",
        style=wide,
    )
    up = ipywidgets.FloatSlider(
        value=2, min=-2, max=2, step=0.5, description="up (gate only)", style=wide
    )
    view = ipywidgets.HTML()

    def redraw() -> None:
        chosen = (name.value, x.value, up.value)
        up.disabled = name.value != GATE
        sentence = html.escape(describe(data, *chosen))
        view.value = f"<p>{legend(meanings(name.value))}</p>{draw(data, *chosen)}<p>{sentence}</p>"

    redraw_on_change([name, x, up], redraw)
    return ipywidgets.VBox([name, x, up, view])
