"""The depth explorer of chapter 07: gradient and size, layer by layer, for four ways to stack branches."""

from __future__ import annotations

import html
import math
from typing import Any

import ipywidgets

from courseware.explorer_lines import legend, number, plot

STACKS = {"pre": "pre-norm", "post": "post-norm", "none": "no norm", "plain": "no residual"}
_COLOURS = {"pre": "#0072B2", "post": "#D55E00", "none": "#E69F00", "plain": "#009E73"}
_QUANTITIES = {"gradient": "gradient norm at the stream", "size": "size of the stream"}


def describe(data: dict, quantity: str, stack: str, depth: int, steps: int) -> str:
    """Return the sentence below the picture: what is at the bottom, at the top, and their ratio."""
    values = data[quantity][f"{stack}-{depth}-{steps}"]
    low, high = values[0], values[-1]
    ratio = max(low, high) / min(low, high)
    where = f"{number(ratio)} times {'smaller' if low < high else 'larger'}"
    where = "about as large" if ratio < 1.5 else where
    words = "gradient" if quantity == "gradient" else "stream"
    name = STACKS[stack].capitalize()
    return (
        f"{name}, {depth} layers, after {steps} steps: the {words} is {number(low)} at the bottom and "
        f"{number(high)} at the top; the bottom is {where}."
    )


def draw(data: dict, quantity: str, stack: str, depth: int, steps: int) -> str:
    """Return the SVG: all four stacks over the layers, the chosen one strong."""
    series = []
    for name in [*(s for s in STACKS if s != stack), stack]:
        values = data[quantity][f"{name}-{depth}-{steps}"]
        chosen = name == stack
        points = [[i, v] for i, v in enumerate(values)]
        series.append(
            {"colour": _COLOURS[name], "points": points, "width": 4 if chosen else 2,
             "opacity": 1 if chosen else 0.7, "dots": [points[0], points[-1]] if chosen else []}
        )  # fmt: skip
    every = [v for values in data[quantity].values() for v in values]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high = max(high, low + 1)
    axes = {
        "x": [0, depth], "y": [low, high], "log": True, "xticks": [0, depth // 2, depth],
        "yticks": [p for p in range(low, high + 1) if p % 2 == 0], "xlabel": "layers passed",
    }  # fmt: skip
    return plot(series, axes, describe(data, quantity, stack, depth, steps))


def norm_depth(data: dict[str, Any]) -> ipywidgets.Widget:
    """Return the explorer: choices of quantity, stack and steps, a slider for the depth, a picture.

    data: {"depths", "steps", "gradient", "size"}, the last two from "stack-depth-steps" to one number for each
    place in the stream.
    """
    wide = {"description_width": "7rem"}
    quantity = ipywidgets.Dropdown(
        options=[(label, key) for key, label in _QUANTITIES.items()], description="Show", style=wide
    )
    stack = ipywidgets.Dropdown(
        options=[(label, key) for key, label in STACKS.items()],
        value="post", description="Stack", style=wide,
    )  # fmt: skip
    steps = ipywidgets.Dropdown(
        options=data["steps"], value=data["steps"][-1], description="Training steps", style=wide
    )
    depth = ipywidgets.SelectionSlider(
        options=data["depths"], value=12, description="Layers", style=wide
    )
    names = legend([(_COLOURS[key], label) for key, label in STACKS.items()])
    view = ipywidgets.HTML()

    def redraw(_=None) -> None:
        chosen = quantity.value, stack.value, depth.value, steps.value
        sentence = html.escape(describe(data, *chosen))
        view.value = f"<p>{names}</p>{draw(data, *chosen)}<p>{sentence}</p>"

    for control in (quantity, stack, depth, steps):
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([quantity, stack, steps, depth, view])
