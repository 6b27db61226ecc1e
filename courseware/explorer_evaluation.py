"""The window explorer of chapter 12: which characters a model had seen when it named each one, and what it paid."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets

BLOCKS = (2, 4, 8, 16, 32, 64)
STRIDES = (1, 2, 4, 8, 16, 32, 64)
_TINT = "rgba(213,94,0,{:.2f})"  # the colour of losses in the figures


def window_data(model: Any, tokenizer: Any, text: str) -> dict:
    """Return {"text", "blocks", "strides", "nats"}: nats["block-stride"] has each character's price but the first's."""
    import torch

    from minigpt_lib.evaluation import token_log_probs

    ids, nats = torch.tensor(tokenizer.encode(text)), {}
    for block in BLOCKS:
        windows = ids.unfold(0, block + 1, 1)
        prices = -token_log_probs(model, windows[:, :-1], windows[:, 1:])
        for stride in (s for s in STRIDES if s <= block):
            places = [(i, begin_of(len(text), block, stride, i)) for i in range(1, len(text))]
            nats[f"{block}-{stride}"] = [
                round(float(prices[begin, i - begin - 1]), 2) for i, begin in places
            ]
    return {"text": text, "blocks": list(BLOCKS), "strides": list(STRIDES), "nats": nats}


def begins(n: int, block: int, stride: int) -> list[int]:
    """Return where the windows over n characters begin; the last one ends with the text."""
    last = n - block - 1
    return [*range(0, last, stride), last]


def begin_of(n: int, block: int, stride: int, i: int) -> int:
    """Return where the window begins in which character i counts: the first one that reaches it."""
    return next(begin for begin in begins(n, block, stride) if begin + block >= i)


def shown(text: str) -> str:
    """Return characters with spaces and line breaks made visible."""
    return text.replace(" ", "␣").replace("\n", "⏎")


def bits(nats: float) -> str:
    """Return nats as bits with two decimals."""
    return f"{nats / 0.6931471805599453:.2f}"


def describe(data: dict, block: int, stride: int, i: int) -> list[str]:
    """Return two sentences: about the chosen character, and about the whole text."""
    text, stride = data["text"], min(stride, block)
    nats, n = data["nats"][f"{block}-{stride}"], len(data["text"])
    begin, windows = begin_of(n, block, stride, i), len(begins(n, block, stride))
    seen = text[begin:i]
    return [
        f"Character {i}, “{shown(text[i])}”, cost {bits(nats[i - 1])} bits after {len(seen)} "
        f"character{'' if len(seen) == 1 else 's'}: “{shown(seen)}”.",
        f"Block {block}, stride {stride}: {bits(sum(nats) / len(nats))} bits per character. {windows} windows "
        f"read {windows * block} characters to predict {n - 1}.",
    ]


def draw(data: dict, block: int, stride: int, i: int) -> str:
    """Return the text as HTML: tinted by price, what was seen underlined, the chosen character framed."""
    text, stride = data["text"], min(stride, block)
    nats = data["nats"][f"{block}-{stride}"]
    begin, parts = begin_of(len(text), block, stride, i), []
    for k, character in enumerate(text):
        tint = min(nats[k - 1] / 6, 1) * 0.6 if k else 0
        style = f"background:{_TINT.format(tint)};border-bottom:3px solid "
        style += "currentColor" if begin <= k < i else "transparent"
        style += ";outline:2px solid currentColor" if k == i else ""
        mark = {" ": " ", "\n": "⏎\n"}.get(character, html.escape(character))
        parts.append(f'<span style="{style}">{mark}</span>')
    return (
        '<div aria-hidden="true" style="font-family:monospace;font-size:1.05em;line-height:2;'
        f'white-space:pre-wrap;overflow-wrap:anywhere">{"".join(parts)}</div>'
    )


def sliding_window(data: dict[str, Any]) -> ipywidgets.Widget:
    """Return the explorer: sliders for block, stride and a character, the tinted text, two sentences."""
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

    def redraw(_=None) -> None:
        chosen = block.value, stride.value, place.value
        sentences = "".join(f"<p>{html.escape(s)}</p>" for s in describe(data, *chosen))
        view.value = draw(data, *chosen) + sentences

    for control in (block, stride, place):
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([block, stride, place, view])
