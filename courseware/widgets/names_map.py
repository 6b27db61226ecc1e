"""The map of names of chapter 19: a tensor of a published file, and the rows of ours that hold its numbers."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import paragraphs

if TYPE_CHECKING:
    from minigpt_lib.families import Part

_CHOSEN = COLOURS["train"]
_PART = COLOURS["query"]
# Of the two tensors, in an SVG 340 units wide:
_THEIRS = 26  # left
_OURS = 200  # left
_WIDE = 112
_TOP = 30


def map_data() -> dict[str, Any]:
    """Return a toy Llama's and a toy GPT-2's tensors as two file formats name and order them, and as ours."""
    from minigpt_lib.families import parts
    from minigpt_lib.model import GPTConfig, MiniGPT

    sizes: dict[str, Any] = {"n_embd": 12, "n_layer": 1, "n_head": 2, "ffn_hidden": 16}
    llama = GPTConfig(
        10, 8, **sizes, n_kv_head=1, position="rope", norm="rms", ffn="swiglu", bias=False
    )
    gpt2 = GPTConfig(10, 8, **sizes, position="learned", norm="layer", ffn="gelu_tanh", bias=True)
    forms = []
    for name, config, style in (
        ("Llama, GGUF", llama, "gguf"),
        ("Llama, Hugging Face", llama, "hf"),
        ("GPT-2, Hugging Face", gpt2, "hf"),
    ):
        shapes = {key: list(value.shape) for key, value in MiniGPT(config).state_dict().items()}
        forms.append(
            {"name": name, "parts": [_sheet(part, shapes) for part in parts(config, style)]}
        )
    return {"forms": forms}


def _sheet(part: Part, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """Return what the map shows of a tensor; order[i] is their row (or column) of our row first + i."""
    import torch

    n_rows = part.rows[1] - part.rows[0]
    numbers = torch.arange(n_rows).view(-1, *[1] * (len(part.shape) - 1))
    order = part.to_ours(numbers.T if part.transposed else numbers).flatten().tolist()
    return {
        "name": part.name,
        "shape": list(part.shape),
        "ours": part.ours,
        "whole": shapes[part.ours],
        "first": part.rows[0],
        "order": order,
        "transposed": part.transposed,
        "heads": part.heads,
    }


def _shape(sizes: list[int]) -> str:
    return " × ".join(str(size) for size in sizes)


def describe(data: dict[str, Any], form: int, part: int, row: int) -> list[str]:
    """Return three sentences: what the tensor holds, in which order, and where one row goes.

    row: counted within the part.
    """
    sheet = data["forms"][form]["parts"][part]
    n_rows = len(sheet["order"])
    last = sheet["first"] + n_rows - 1
    held = (
        "all of it"
        if n_rows == sheet["whole"][0]
        else f"rows {sheet['first']} to {last} of {sheet['whole'][0]}"
    )
    if sheet["transposed"]:
        order = "It is transposed: its columns are our rows."
    elif sheet["heads"]:
        each = n_rows // sheet["heads"]
        heads = f"{sheet['heads']} head" + ("" if sheet["heads"] == 1 else "s")
        order = (
            f"{heads} of {each} rows: in theirs, the two rows of a pair are neighbours; "
            "in ours they are half a head apart."
        )
    else:
        order = "The rows are in the same order."
    kind = "column" if sheet["transposed"] else "row"
    return [
        f"{sheet['name']}, {_shape(sheet['shape'])}, holds {held}: {sheet['ours']}, {_shape(sheet['whole'])}.",
        order,
        f"Their {kind} {sheet['order'][row]} is our row {sheet['first'] + row}.",
    ]


def _rect(x: float, y: float, width: float, height: float, colour: str, opacity: float) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colour}" fill-opacity="{opacity}"/>'
    )


def _words(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="15" text-anchor="{anchor}" '
        f'fill="currentColor">{text}</text>'
    )


def _theirs(sheet: dict[str, Any], row: int, step: int) -> str:
    """Return their tensor as stripes, the chosen one in another colour: rows, or columns if it is transposed."""
    n = len(sheet["order"])
    parts = []
    for i in range(n):
        colour = _CHOSEN if i == sheet["order"][row] else _PART
        opacity = 1 if colour == _CHOSEN else 0.35
        if sheet["transposed"]:
            wide = _WIDE / n
            parts.append(_rect(_THEIRS + wide * i, _TOP, wide - 1, 12 * step, colour, opacity))
        else:
            parts.append(_rect(_THEIRS, _TOP + step * i, _WIDE, step - 1, colour, opacity))
    return "".join(parts)


def _links(sheet: dict[str, Any], row: int, step: int) -> str:
    """Return the lines from their rows to ours; of a transposed tensor only the chosen one's."""
    parts = []
    for i, theirs in enumerate(sheet["order"]):
        chosen = i == row
        if sheet["transposed"] and not chosen:
            continue
        start = _TOP + step * (theirs + 0.5)
        if sheet["transposed"]:
            start = _TOP + 6.0 * step
        end = _TOP + step * (sheet["first"] + i + 0.5)
        colour = _CHOSEN if chosen else "currentColor"
        look = 'stroke-width="2"' if chosen else 'stroke-opacity="0.3"'
        parts.append(
            f'<path d="M{_THEIRS + _WIDE + 2} {start:.1f}L{_OURS - 2} {end:.1f}" stroke="{colour}" {look}/>'
        )
    return "".join(parts)


def draw(data: dict[str, Any], form: int, part: int, row: int) -> str:
    """Return the two names, and the picture: their tensor, ours, and which row goes where."""
    sheet = data["forms"][form]["parts"][part]
    n_ours = sheet["whole"][0]
    step = 10 if n_ours <= 24 else 6
    first, n = sheet["first"], len(sheet["order"])
    ours = []
    for i in range(n_ours):
        chosen = i == first + row
        inside = first <= i < first + n
        colour = _CHOSEN if chosen else _PART if inside else "currentColor"
        opacity = 1 if chosen else 0.35 if inside else 0.12
        ours.append(_rect(_OURS, _TOP + step * i, _WIDE, step - 1, colour, opacity))

    height = _TOP + step * n_ours + 8
    if sheet["transposed"]:
        height = max(height, _TOP + 12 * step + 8)
    their = sheet["order"][row]
    place = 6.0 * step if sheet["transposed"] else step * (their + 0.5)
    return (
        f'<p style="overflow-wrap:anywhere"><code>{html.escape(sheet["name"])}</code> → '
        f"<code>{html.escape(sheet['ours'])}</code></p>"
        f'<svg viewBox="0 0 340 {height}" aria-hidden="true" style="display:block;width:100%;'
        'max-width:25rem;height:auto">'
        f"{_words(_THEIRS, 18, 'in the file')}{_words(_OURS, 18, 'in MiniGPT')}"
        f"{_theirs(sheet, row, step)}{''.join(ours)}{_links(sheet, row, step)}"
        f"{_words(_THEIRS - 6, _TOP + place + 5, str(their), 'end')}"
        f"{_words(_OURS + _WIDE + 6, _TOP + step * (first + row + 0.5) + 5, str(first + row))}"
        "</svg>"
    )


def names_map(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the map: a menu of formats, sliders for the tensor and one of its rows, the picture, three sentences.

    data: that of `map_data`.
    """
    wide = {"description_width": "5rem"}
    names = [(form["name"], i) for i, form in enumerate(data["forms"])]
    form = ipywidgets.Dropdown(options=names, value=0, description="Format", style=wide)
    part = ipywidgets.IntSlider(value=3, min=0, max=3, description="Tensor", style=wide)
    row = ipywidgets.IntSlider(value=1, min=0, max=1, description="Row", style=wide)
    view = ipywidgets.HTML()

    def redraw() -> None:
        sheets = data["forms"][form.value]["parts"]
        part.max = len(sheets) - 1  # a value beyond the end is moved to it
        row.max = len(sheets[part.value]["order"]) - 1
        chosen = (form.value, part.value, row.value)
        view.value = draw(data, *chosen) + paragraphs(describe(data, *chosen))

    redraw_on_change([form, part, row], redraw)
    return ipywidgets.VBox([form, part, row, view])
