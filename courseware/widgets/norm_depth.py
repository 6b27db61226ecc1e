"""The depth explorer of chapter 07: gradient and size, layer by layer, for four ways to stack branches."""

from __future__ import annotations

import html
import math
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.lines import Axes, Series, legend, number, plot

STACKS = {"pre": "pre-norm", "post": "post-norm", "none": "no norm", "plain": "no residual"}
_COLOURS = {
    "pre": COLOURS["query"],
    "post": COLOURS["train"],
    "none": COLOURS["key"],
    "plain": COLOURS["value"],
}
_QUANTITIES = {"gradient": "size of the gradient", "size": "size of the stream"}


def _values(data: dict[str, Any], quantity: str, stack: str, depth: int, steps: int) -> list[float]:
    return data[quantity][f"{stack}-{depth}-{steps}"]


def describe(data: dict[str, Any], quantity: str, stack: str, depth: int, steps: int) -> str:
    """Return the sentence below the picture: the values at the bottom and at the top, and their ratio."""
    values = _values(data, quantity, stack, depth, steps)
    low, high = values[0], values[-1]
    ratio = max(low, high) / min(low, high)
    where = "about as large"
    if ratio >= 1.5:
        where = f"{number(ratio)} times {'smaller' if low < high else 'larger'}"

    name = STACKS[stack].capitalize()
    words = "gradient" if quantity == "gradient" else "stream"
    return (
        f"{name}, {depth} layers, after {steps} steps: the {words} is {number(low)} at the bottom and "
        f"{number(high)} at the top; the bottom is {where}."
    )


def draw(data: dict[str, Any], quantity: str, stack: str, depth: int, steps: int) -> str:
    """Return the SVG: all four stacks over the layers, with the chosen one in bold."""
    others = [name for name in STACKS if name != stack]
    series = []
    for name in [*others, stack]:  # the chosen one on top
        values = _values(data, quantity, name, depth, steps)
        series.append(_curve(_COLOURS[name], values, chosen=name == stack))

    every = [value for values in data[quantity].values() for value in values]
    low = math.floor(math.log10(min(every)))
    high = max(math.ceil(math.log10(max(every))), low + 1)
    axes: Axes = {
        "x": [0, depth],
        "y": [low, high],
        "log": True,
        "xticks": [0, depth // 2, depth],
        "yticks": [power for power in range(low, high + 1) if power % 2 == 0],
        "xlabel": "layers passed",
    }
    return plot(series, axes, describe(data, quantity, stack, depth, steps))


def _curve(colour: str, values: list[float], chosen: bool) -> Series:
    points = [[layer, value] for layer, value in enumerate(values)]
    return {
        "colour": colour,
        "points": points,
        "width": 4 if chosen else 2,
        "opacity": 1 if chosen else 0.7,
        "dots": [points[0], points[-1]] if chosen else [],
    }


def norm_depth(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the explorer: choices of quantity, stack and steps, a slider for the depth, a picture.

    data: {"depths", "steps", "gradient", "size"}; the last two map "stack-depth-steps" to one number for each place in
    the stream.
    """
    wide = {"description_width": "7rem"}
    quantity = ipywidgets.Dropdown(
        options=[(label, key) for key, label in _QUANTITIES.items()], description="Show", style=wide
    )
    stack = ipywidgets.Dropdown(
        options=[(label, key) for key, label in STACKS.items()],
        value="post",
        description="Stack",
        style=wide,
    )
    steps = ipywidgets.Dropdown(
        options=data["steps"], value=data["steps"][-1], description="Training steps", style=wide
    )
    depth = ipywidgets.SelectionSlider(
        options=data["depths"], value=12, description="Layers", style=wide
    )
    view = ipywidgets.HTML()
    names = legend([(_COLOURS[key], label) for key, label in STACKS.items()])

    def redraw() -> None:
        chosen = (quantity.value, stack.value, depth.value, steps.value)
        sentence = html.escape(describe(data, *chosen))
        view.value = f"<p>{names}</p>{draw(data, *chosen)}<p>{sentence}</p>"

    redraw_on_change([quantity, stack, depth, steps], redraw)
    return ipywidgets.VBox([quantity, stack, steps, depth, view])
