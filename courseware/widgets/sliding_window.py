"""The window explorer of chapter 12: which characters a model saw before each prediction, and what it cost."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.markup import paragraphs
from courseware.widgets.tokens import visible

if TYPE_CHECKING:
    from minigpt_lib.char_tokenizer import CharTokenizer
    from minigpt_lib.model import MiniGPT

BLOCKS = (2, 4, 8, 16, 32, 64)
STRIDES = (1, 2, 4, 8, 16, 32, 64)
_TINT = "rgba(213,94,0,{:.2f})"  # the colour of the training loss in figures
_DARKEST = 6  # nats, and more, have the darkest tint


def window_data(model: MiniGPT, tokenizer: CharTokenizer, text: str) -> dict[str, Any]:
    """Return {"text", "blocks", "strides", "nats"}.

    nats["block-stride"] holds the cost of each character except the first, in nats, to two decimals.
    """
    import torch

    from minigpt_lib.evaluation import token_log_probs

    ids = torch.tensor(tokenizer.encode(text))
    nats = {}
    for block in BLOCKS:
        windows = ids.unfold(0, block + 1, 1)
        costs = -token_log_probs(model, windows[:, :-1], windows[:, 1:])
        for stride in STRIDES:
            if stride <= block:
                places = [(i, begin_of(len(text), block, stride, i)) for i in range(1, len(text))]
                nats[f"{block}-{stride}"] = [
                    round(float(costs[begin, i - begin - 1]), 2) for i, begin in places
                ]
    return {"text": text, "blocks": list(BLOCKS), "strides": list(STRIDES), "nats": nats}


def begins(n: int, block: int, stride: int) -> list[int]:
    """Return where the windows over n characters begin; the last one ends with the text."""
    last = n - block - 1
    return [*range(0, last, stride), last]


def begin_of(n: int, block: int, stride: int, i: int) -> int:
    """Return where the window begins in which character i counts: the first window that reaches it."""
    return next(begin for begin in begins(n, block, stride) if begin + block >= i)


def bits(nats: float) -> str:
    """Return nats as bits with two decimals."""
    return f"{nats / math.log(2):.2f}"


def describe(data: dict[str, Any], block: int, stride: int, i: int) -> list[str]:
    """Return two sentences: about character i, and about the whole text."""
    text = data["text"]
    n = len(text)
    stride = min(stride, block)
    nats = data["nats"][f"{block}-{stride}"]
    windows = len(begins(n, block, stride))
    seen = text[begin_of(n, block, stride, i) : i]
    return [
        f"Character {i}, “{visible(text[i])}”, cost {bits(nats[i - 1])} bits after {len(seen)} "
        f"character{'' if len(seen) == 1 else 's'}: “{visible(seen)}”.",
        f"Block {block}, stride {stride}: {bits(sum(nats) / len(nats))} bits per character. {windows} windows "
        f"read {windows * block} characters to predict {n - 1}.",
    ]


def draw(data: dict[str, Any], block: int, stride: int, i: int) -> str:
    """Return the text as HTML: tinted by cost, what was seen underlined, and a frame around character i."""
    text = data["text"]
    stride = min(stride, block)
    nats = data["nats"][f"{block}-{stride}"]
    begin = begin_of(len(text), block, stride, i)

    parts = []
    for k, character in enumerate(text):
        tint = min(nats[k - 1] / _DARKEST, 1) * 0.6 if k else 0
        line = "currentColor" if begin <= k < i else "transparent"
        style = f"background:{_TINT.format(tint)};border-bottom:3px solid {line}"
        if k == i:
            style += ";outline:2px solid currentColor"
        mark = {" ": " ", "\n": "⏎\n"}.get(character, html.escape(character))
        parts.append(f'<span style="{style}">{mark}</span>')
    return (
        '<div aria-hidden="true" style="font-family:monospace;font-size:1.05em;line-height:2;'
        f'white-space:pre-wrap;overflow-wrap:anywhere">{"".join(parts)}</div>'
    )


def sliding_window(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the explorer: sliders for block, stride and a character, the tinted text, two sentences.

    data: that of `window_data`.
    """
    wide = {"description_width": "5rem"}
    block = ipywidgets.SelectionSlider(
        options=data["blocks"], value=8, description="Block", style=wide
    )
    stride = ipywidgets.SelectionSlider(
        options=data["strides"], value=8, description="Stride", style=wide
    )
    place = ipywidgets.IntSlider(
        min=1, max=len(data["text"]) - 1, value=17, description="Character", style=wide
    )
    view = ipywidgets.HTML()

    def redraw() -> None:
        chosen = (block.value, stride.value, place.value)
        view.value = draw(data, *chosen) + paragraphs(describe(data, *chosen))

    redraw_on_change([block, stride, place], redraw)
    return ipywidgets.VBox([block, stride, place, view])
