"""The activation explorer of chapter 08: value and slope of a bend, and SwiGLU's gate with its two inputs."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets

from courseware.explorer_lines import legend, number, plot

GATE = "SwiGLU's gate"
_VALUE, _SLOPE, _OTHERS = "#0072B2", "#E69F00", "#7F7F7F"


def describe(data: dict, name: str, i: int, up: float) -> str:
    """Return the sentence below the picture: value and slope at the i-th x, or what the gate lets through."""
    x = data["x"][i]
    if name == GATE:
        open_by = data["value"]["SiLU"][i]
        return (
            f"Gate {number(x)}: SiLU({number(x)}) = {number(open_by)}. "
            f"Times up {number(up)}, this lets {number(open_by * up)} through."
        )
    value, slope = data["value"][name][i], data["slope"][name][i]
    return f"{name} at x = {number(x)}: value {number(value)}, slope {number(slope)}."


def draw(data: dict, name: str, i: int, up: float) -> str:
    """Return the SVG: the chosen bend and its slope over x, or the gate's output for a fixed `up`."""
    x = data["x"]
    if name == GATE:
        bounds, ticks, label = [-8, 8], [-8, -4, 0, 4, 8], "gate"
    else:
        bounds, ticks, label = [-1, 4], [-1, 0, 1, 2, 3, 4], "x"

    def line(values: list[float], colour: str, width: int, opacity: float, dot: bool) -> dict:
        points = [[a, b] for a, b in zip(x, values)]
        inside = [p for p in points if bounds[0] <= p[1] <= bounds[1]]
        return {"colour": colour, "points": inside, "width": width, "opacity": opacity,
                "dots": [points[i]] if dot else []}  # fmt: skip

    if name == GATE:
        through = [v * up for v in data["value"]["SiLU"]]
        series = [line(through, _VALUE, 4, 1, True)]
    else:
        series = [line(v, _OTHERS, 1, 0.5, False) for n, v in data["value"].items() if n != name]
        series.append(line(data["slope"][name], _SLOPE, 2, 1, True))
        series.append(line(data["value"][name], _VALUE, 4, 1, True))
    axes = {"x": [x[0], x[-1]], "y": bounds, "log": False, "xticks": [-4, -2, 0, 2, 4],
            "yticks": ticks, "xlabel": label}  # fmt: skip
    return plot(series, axes, describe(data, name, i, up))


def meanings(name: str) -> list[tuple[str, str]]:
    """Return what the colours mean."""
    if name == GATE:
        return [(_VALUE, "what the gate lets through")]
    return [(_VALUE, "value"), (_SLOPE, "slope"), (_OTHERS, "the others")]


def activations(data: dict[str, Any]) -> ipywidgets.Widget:
    """Return the explorer: a choice, a slider for x (the gate), one for up, a picture.

    data: {"x": places, "value" and "slope": {name: one number for each place}}, with a name "SiLU".
    """
    wide = {"description_width": "7rem"}
    name = ipywidgets.Dropdown(
        options=[*data["value"], GATE], value="GELU", description="Show", style=wide
    )
    x = ipywidgets.SelectionSlider(
        options=[(number(v), i) for i, v in enumerate(data["x"])],
        value=data["x"].index(1.0), description="x, or the gate", style=wide,
    )  # fmt: skip
    up = ipywidgets.FloatSlider(
        value=2, min=-2, max=2, step=0.5, description="up (gate only)", style=wide
    )
    view = ipywidgets.HTML()

    def redraw(_=None) -> None:
        chosen = name.value, x.value, up.value
        up.disabled = name.value != GATE
        sentence = html.escape(describe(data, *chosen))
        view.value = f"<p>{legend(meanings(name.value))}</p>{draw(data, *chosen)}<p>{sentence}</p>"

    for control in (name, x, up):
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([name, x, up, view])
