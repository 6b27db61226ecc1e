"""See what follows a character, and let a table of pairs write (twin: bigram-sampler.js)."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.tokens import visible

if TYPE_CHECKING:
    from torch import Tensor

    from minigpt_lib.char_tokenizer import CharTokenizer

_SHOWN = 10  # characters with a bar
_WIDTH = 300  # pixels of a bar for the probability 1


def bigram_sampler(logits: Tensor, tokenizer: CharTokenizer, start: str = "t") -> ipywidgets.VBox:
    """Return a choice of characters, a temperature, bars of what follows, and buttons that write.

    logits: (V, V), the row of a character holds the logits of the next one.
    """
    import torch

    wide = {"description_width": "7em"}
    choice = ipywidgets.Dropdown(
        options=[(visible(c), c) for c in tokenizer.alphabet],
        value=start,
        description="After",
        style=wide,
    )
    heat = ipywidgets.FloatSlider(
        value=1, min=0, max=2, step=0.1, description="Temperature", style=wide
    )
    bars = ipywidgets.HTML()
    page = ipywidgets.HTML()
    written: list[str] = []

    def probabilities() -> Tensor:
        row = logits[tokenizer.encode(choice.value)[0]]
        return sharpened(row, heat.value)

    def redraw() -> None:
        found = probabilities()
        likely = found.topk(min(_SHOWN, len(found)))
        rows = [
            _bar(tokenizer.decode([i]), p)
            for p, i in zip(likely.values.tolist(), likely.indices.tolist())
        ]
        bars.value = "<br>".join(rows)
        page.value = f"<pre>{html.escape(''.join(written))}</pre>"

    def write(count: int) -> None:
        for _ in range(count):
            drawn = torch.multinomial(probabilities(), 1).tolist()
            written.append(tokenizer.decode(drawn))
            choice.value = written[-1]
        redraw()

    def start_again() -> None:
        written.clear()
        redraw()

    buttons = []
    for words, action in (
        ("Write one character", lambda: write(1)),
        ("Write 200", lambda: write(200)),
        ("Start again", start_again),
    ):
        button = ipywidgets.Button(description=words, layout={"width": "auto"})
        button.on_click(lambda _, action=action: action())
        buttons.append(button)
    redraw_on_change([choice, heat], redraw)
    return ipywidgets.VBox([choice, heat, bars, ipywidgets.HBox(buttons), page])


def sharpened(row: Tensor, temperature: float) -> Tensor:
    """Return softmax(row / temperature); at temperature 0 the likeliest token has probability 1."""
    import torch

    if temperature == 0:
        return torch.nn.functional.one_hot(row.argmax(), len(row)).float()
    return (row / temperature).softmax(dim=0)


def _bar(character: str, probability: float) -> str:
    style = (
        f"background:{COLOURS['query']};display:inline-block;height:.8em;"
        f"width:{_WIDTH * probability:.0f}px"
    )
    shown = html.escape(visible(character))
    return f'<code>{shown}</code> <span style="{style}"></span> {100 * probability:.1f} %'
