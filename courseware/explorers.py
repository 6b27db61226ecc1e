"""The interactive figures of the chapters as ipywidgets; the website has twins of the same names."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets

_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7")


def token_box(text: str, note: str, colour: str) -> str:
    """Return the HTML of one token: its text in a tinted box, a small note below."""
    shown = html.escape(text).replace(" ", "␣").replace("\n", "⏎")
    return (
        f'<span style="display:inline-block;margin:2px;padding:1px 5px;border-radius:4px;'
        f'border:1px solid {colour};background:{colour}26;text-align:center;line-height:1.25">'
        f'<span style="font-family:monospace;font-size:1.1em">{shown}</span><br>'
        f'<span style="font-size:.75em;opacity:.85">{html.escape(note)}</span></span>'
    )


def colour_of(i: int) -> str:
    """Return a colour of the house palette for the i-th kind of thing."""
    return _PALETTE[i % len(_PALETTE)]


def char_ids(tokenizer: Any, text: str = "To be, or not to be") -> ipywidgets.Widget:
    """Return a text field that shows the id of each character, or the tokenizer's refusal."""
    field = ipywidgets.Text(value=text, description="Text", continuous_update=True)
    boxes = ipywidgets.HTML()

    def show(_=None) -> None:
        try:
            ids = tokenizer.encode(field.value)
        except ValueError as error:
            boxes.value = f"<p><strong>Refused.</strong> {html.escape(str(error))}</p>"
            return
        cells = [token_box(c, str(i), colour_of(i)) for c, i in zip(field.value, ids)]
        boxes.value = "".join(cells) + f"<p>{len(ids)} tokens</p>"

    field.observe(show, names="value")
    show()
    return ipywidgets.VBox([field, boxes])
