"""Type a text and see the id of each character (twin: char-ids.js)."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.tokens import colour_of, token_box

if TYPE_CHECKING:
    from minigpt_lib.char_tokenizer import CharTokenizer


def char_ids(tokenizer: CharTokenizer, text: str = "To be, or not to be") -> ipywidgets.VBox:
    """Return a text field that shows the id of each character, or the tokenizer's error message."""
    field = ipywidgets.Text(value=text, description="Text", continuous_update=True)
    boxes = ipywidgets.HTML()

    def redraw() -> None:
        try:
            ids = tokenizer.encode(field.value)
        except ValueError as error:
            boxes.value = f"<p><strong>Refused.</strong> {html.escape(str(error))}</p>"
            return

        cells = [token_box(c, str(i), colour_of(i)) for c, i in zip(field.value, ids)]
        boxes.value = "".join(cells) + f"<p>{len(ids)} tokens</p>"

    redraw_on_change([field], redraw)
    return ipywidgets.VBox([field, boxes])
