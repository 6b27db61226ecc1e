"""The parameter counter of chapter 09: rebuild a config from sliders and see where its parameters are."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.markup import swatch

USUAL = "usual"  # how None is shown
SIZES = {
    "vocab_size": [64, 70, 256, 1024, 4096, 9157, 32000, 50257, 50304, 128256],
    "max_seq_len": [64, 128, 256, 512, 1024, 2048, 4096, 8192],
    "n_embd": [32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096],
    "n_layer": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32],
    "n_head": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32],
    "n_kv_head": [None, 1, 2, 3, 4, 6, 8, 12, 16],
    "ffn_hidden": [None, 128, 256, 512, 1024, 2048, 3072, 4096, 8192, 14336],
}
FLAGS = ("tie_weights", "bias")
COLOURS = {
    "embedding": "#56B4E9",
    "position": "#CC79A7",
    "attention": "#0072B2",
    "ffn": "#E69F00",
    "norm": "#7F7F7F",
    "head": "#009E73",
}
_BAR = 4600  # units of the bar's width


def counter_data(
    presets: Mapping[str, Mapping[str, Any]], **parts: Iterable[str]
) -> dict[str, Any]:
    """Return what the widget and its twin show: the sizes on sliders, the names of parts, the presets in full.

    presets: for each name, the fields of a config that differ from the default. parts: the names of the `position`,
    `norm` and `ffn` parts.
    """
    usual = {**dict.fromkeys(SIZES), **dict.fromkeys(FLAGS, True)}
    known = [*SIZES, *parts, *FLAGS]
    full = {name: {**usual, **preset} for name, preset in presets.items()}
    states = {name: {key: preset[key] for key in known} for name, preset in full.items()}
    choices = {key: list(names) for key, names in parts.items()}
    return {"sizes": SIZES, "choices": choices, "presets": states, "colours": COLOURS}


def tenths(numerator: int, denominator: int) -> str:
    """Return a quotient with one decimal place, rounded half up in whole numbers, as the website does."""
    n = (20 * numerator + denominator) // (2 * denominator)
    return f"{n // 10:,}.{n % 10}"


def memory(size: int) -> str:
    """Return a number of bytes in kB, MB or GB (powers of 1000)."""
    for name, unit in (("GB", 10**9), ("MB", 10**6)):
        if size >= unit:
            return f"{tenths(size, unit)} {name}"
    return f"{tenths(size, 10**3)} kB"


def describe(counts: Mapping[str, int]) -> str:
    """Return the sentence below the bar; counts: parameters by part, and their "total"."""
    total = counts["total"]
    return f"{total:,} parameters: {memory(4 * total)} in float32, {memory(2 * total)} in bfloat16."


def draw(counts: Mapping[str, int]) -> str:
    """Return the parts as an SVG bar and as a table, both as HTML."""
    total = counts["total"]
    x = 0
    bar = ""
    rows = ""
    for part, colour in COLOURS.items():
        n = counts[part]
        width = (_BAR * n + total // 2) // total
        bar += f'<rect x="{x}" y="0" width="{width}" height="360" fill="{colour}"></rect>'
        x += width

        number = '<td style="text-align:right;padding:0 0 0 1rem">'
        share = tenths(100 * n, total)
        rows += f"<tr><td>{swatch(colour)} {part}</td>{number}{n:,}</td>{number}{share} %</td></tr>"

    label = html.escape(describe(counts))
    return (
        f'<svg viewBox="0 0 {_BAR} 360" role="img" aria-label="{label}" preserveAspectRatio="none" '
        f'style="width:100%;max-width:46rem;height:2.25rem">{bar}</svg>'
        f'<table style="font-variant-numeric:tabular-nums;margin:.4rem 0"><tbody>{rows}</tbody></table>'
    )


def _controls(data: dict[str, Any]) -> dict[str, ipywidgets.Widget]:
    """Return a control for each field of a config; a slider's value 0 stands for None."""
    wide = {"description_width": "7rem"}
    controls: dict[str, ipywidgets.Widget] = {}
    for name, sizes in data["sizes"].items():
        options = [(USUAL if n is None else f"{n:,}", n or 0) for n in sizes]
        controls[name] = ipywidgets.SelectionSlider(options=options, description=name, style=wide)
    for name, words in data["choices"].items():
        controls[name] = ipywidgets.Dropdown(options=words, description=name, style=wide)
    for name in FLAGS:
        controls[name] = ipywidgets.Checkbox(description=name, indent=True, style=wide)
    return controls


def parameter_counter(
    data: dict[str, Any], count: Callable[..., dict[str, int]]
) -> ipywidgets.VBox:
    """Return the counter: a button for each preset, the bar and the table, and a control for each field.

    data: that of `counter_data`. count(**fields) returns the parameters by part and in "total", or raises ValueError
    that says why there is no such model.
    """
    controls = _controls(data)
    view = ipywidgets.HTML()
    is_choosing = False

    def fields() -> dict[str, Any]:
        values = {name: control.value for name, control in controls.items()}
        for name in data["sizes"]:
            values[name] = values[name] or None
        return values

    def redraw() -> None:
        if is_choosing:
            return
        try:
            counts = count(**fields())
        except ValueError as error:
            view.value = f"<p><b>Refused:</b> {html.escape(str(error))}</p>"
        else:
            view.value = f"{draw(counts)}<p>{html.escape(describe(counts))}</p>"

    def choose(name: str) -> None:
        """Set all controls to those of a preset, and draw once."""
        nonlocal is_choosing
        is_choosing = True
        for key, value in data["presets"][name].items():
            controls[key].value = 0 if value is None else value
        is_choosing = False
        redraw()

    buttons = []
    for name in data["presets"]:
        button = ipywidgets.Button(description=name)
        button.on_click(lambda _, name=name: choose(name))
        buttons.append(button)

    choose(next(iter(data["presets"])))
    redraw_on_change(controls.values(), redraw)
    return ipywidgets.VBox([ipywidgets.HBox(buttons), view, *controls.values()])
