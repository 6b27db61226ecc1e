"""The parameter counter of chapter 09: rebuild a config from sliders and see where its parameters are."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets

USUAL = "usual"  # how None is shown
SIZES = {
    "vocab_size": [64, 70, 256, 1024, 4096, 9157, 32000, 50257, 128256],
    "max_seq_len": [64, 128, 256, 512, 1024, 2048, 4096, 8192],
    "n_embd": [32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096],
    "n_layer": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32],
    "n_head": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32],
    "n_kv_head": [None, 1, 2, 3, 4, 6, 8, 12, 16],
    "ffn_hidden": [None, 128, 256, 512, 1024, 2048, 3072, 4096, 8192, 14336],
}
COLOURS = {
    "embedding": "#56B4E9",
    "position": "#CC79A7",
    "attention": "#0072B2",
    "ffn": "#E69F00",
    "norm": "#7F7F7F",
    "head": "#009E73",
}


def counter_data(presets: dict, **parts: dict) -> dict[str, Any]:
    """Return what the widget and its twin show: sizes on sliders, names of parts, states of the presets.

    presets: name to the choices of a config; parts: `position`, `norm`, `ffn`, each by its names.
    """
    usual = dict.fromkeys(SIZES) | {"tie_weights": True, "bias": True}
    known = [*SIZES, *parts, "tie_weights", "bias"]
    states = {
        name: {key: {**usual, **preset}[key] for key in known} for name, preset in presets.items()
    }
    choices = {key: list(names) for key, names in parts.items()}
    return {"sizes": SIZES, "choices": choices, "presets": states, "colours": COLOURS}


def tenths(numerator: int, denominator: int) -> str:
    """Return a quotient with one decimal place, rounded half up from whole numbers."""
    n = (20 * numerator + denominator) // (2 * denominator)
    return f"{n // 10:,}.{n % 10}"


def memory(size: int) -> str:
    """Return a number of bytes in kB, MB or GB (powers of 1000)."""
    for name, unit in (("GB", 10**9), ("MB", 10**6)):
        if size >= unit:
            return f"{tenths(size, unit)} {name}"
    return f"{tenths(size, 10**3)} kB"


def describe(counts: dict[str, int]) -> str:
    """Return the sentence below the bar."""
    total = counts["total"]
    return f"{total:,} parameters: {memory(4 * total)} in float32, {memory(2 * total)} in bfloat16."


def draw(counts: dict[str, int]) -> str:
    """Return the bar as SVG and the parts as a table, both as HTML."""
    total, x, bar, rows = counts["total"], 0, "", ""
    for part, colour in COLOURS.items():
        n = counts[part]
        share, width = tenths(100 * n, total), (4600 * n + total // 2) // total
        bar += f'<rect x="{x}" y="0" width="{width}" height="360" fill="{colour}"></rect>'
        x += width
        box = "display:inline-block;width:.9em;height:.9em;border-radius:2px"
        swatch = f'<span style="{box};background:{colour}"></span>'
        number = '<td style="text-align:right;padding:0 0 0 1rem">'
        rows += f"<tr><td>{swatch} {part}</td>{number}{n:,}</td>{number}{share} %</td></tr>"
    label = html.escape(describe(counts))
    return (
        f'<svg viewBox="0 0 4600 360" role="img" aria-label="{label}" preserveAspectRatio="none" '
        f'style="width:100%;max-width:46rem;height:2.25rem">{bar}</svg>'
        f'<table style="font-variant-numeric:tabular-nums;margin:.4rem 0"><tbody>{rows}</tbody></table>'
    )


def parameter_counter(
    data: dict[str, Any], count: Callable[..., dict[str, int]]
) -> ipywidgets.Widget:
    """Return the counter. count(**choices) returns parameters by part, or raises ValueError saying why not."""
    wide = {"description_width": "7rem"}
    controls: dict[str, Any] = {}
    for name, sizes in data["sizes"].items():
        options = [(USUAL if n is None else f"{n:,}", n or 0) for n in sizes]
        controls[name] = ipywidgets.SelectionSlider(options=options, description=name, style=wide)
    for name, words in data["choices"].items():
        controls[name] = ipywidgets.Dropdown(options=words, description=name, style=wide)
    for name in ("tie_weights", "bias"):
        controls[name] = ipywidgets.Checkbox(description=name, indent=True, style=wide)
    view, busy = ipywidgets.HTML(), []

    def choice_of(name: str) -> Any:
        value = controls[name].value
        return None if name in data["sizes"] and value == 0 else value

    def redraw(_=None) -> None:
        if busy:
            return
        try:
            counts = count(**{name: choice_of(name) for name in controls})
        except ValueError as error:
            view.value = f"<p><b>Refused:</b> {html.escape(str(error))}</p>"
        else:
            view.value = f"{draw(counts)}<p>{html.escape(describe(counts))}</p>"

    def choose(name: str) -> None:
        busy.append(name)  # one picture for all changes together
        for key, value in data["presets"][name].items():
            controls[key].value = 0 if value is None else value
        busy.clear()
        redraw()

    buttons = []
    for name in data["presets"]:
        button = ipywidgets.Button(description=name)
        button.on_click(lambda _, name=name: choose(name))
        buttons.append(button)
    for control in controls.values():
        control.observe(redraw, names="value")
    choose(next(iter(data["presets"])))
    return ipywidgets.VBox([ipywidgets.HBox(buttons), view, *controls.values()])
