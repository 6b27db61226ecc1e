"""The chat of chapter 16: talk with a model and see what its last answer attended to; record talks for the website."""

from __future__ import annotations

import html
import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from courseware.widgets.tokens import visible

if TYPE_CHECKING:
    from minigpt_lib.assistant import Assistant

_TINT = "rgba(0,114,178,{:.2f})"  # the colour of queries in figures
_NAMES = {"system": "system", "user": "you", "assistant": "MiniGPT"}
_WIDE = {
    "style": {"description_width": "7rem"},
    "layout": {"width": "28rem", "max_width": "98%"},
}


# --- what the widget and its twin show ---


def attention_data(assistant: Assistant) -> dict[str, Any]:
    """Return {"tokens", "start", "weights"} of the last answer.

    start: where the answer begins among the tokens. weights[layer][i][j]: how much the answer's token i attended to
    token j, the mean of the heads, in thousandths.
    """
    from minigpt_lib.assistant import attention_of_last_answer

    found = attention_of_last_answer(assistant)
    weights = (1000 * found.weights.mean(dim=1)).round().int().tolist()
    return {"tokens": found.tokens, "start": found.start, "weights": weights}


def record(assistant: Assistant, scripts: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return a conversation for each script: {"title", "messages", "attention"}, the attention of its last answer.

    A line "/system TEXT" changes the first message; every other line is said by the user. If the last line gets no
    answer, the attention is that of the answer before.
    """
    talks = []
    for title, lines in scripts.items():
        assistant.system("You are MiniGPT, a small assistant.")
        assistant.reset()
        for line in lines:
            if line.startswith("/system "):
                assistant.system(line.removeprefix("/system "))
            else:
                assistant.say(line)
        messages = list(assistant.messages)
        talks.append({"title": title, "messages": messages, "attention": attention_data(assistant)})
    return talks


def looked(data: dict[str, Any], token: int, layer: int | None) -> list[float]:
    """Return how much the answer's token (from 0) attended to each token before it, in thousandths.

    layer: from 0; None for the mean of all layers.
    """
    rows = [weights[token] for weights in data["weights"]]
    chosen = rows if layer is None else [rows[layer]]
    means = [sum(column) / len(chosen) for column in zip(*chosen)]
    return means[: data["start"] + token]


def percent(thousandths: float) -> str:
    """Return a share in per cent with one decimal; a half is rounded up, as in JavaScript."""
    return f"{int(thousandths + 0.5) / 10:.1f}"


def describe(data: dict[str, Any], token: int, layer: int | None) -> str:
    """Return a sentence: which token was written, and the three tokens it attended to most."""
    weights = looked(data, token, layer)
    best = sorted(range(len(weights)), key=lambda j: (-weights[j], j))[:3]
    seen = [f"“{visible(data['tokens'][j])}” ({percent(weights[j])} %)" for j in best]
    where = "all layers" if layer is None else f"layer {layer + 1}"
    written = visible(data["tokens"][data["start"] + token])
    return (
        f"Before it wrote “{written}”, the model looked most at {', '.join(seen[:-1])} and {seen[-1]}: "
        f"mean of {where}."
    )


def draw(data: dict[str, Any], token: int, layer: int | None) -> str:
    """Return the conversation's tokens as HTML: shaded by weight, the written one framed, later ones pale."""
    weights = looked(data, token, layer)
    most = max(weights) or 1
    parts = []
    for j, text in enumerate(data["tokens"]):
        style = "border-radius:3px;padding:1px 0"
        if j < len(weights):
            style += f";background:{_TINT.format(0.75 * weights[j] / most)}"
        elif j == len(weights):
            style += ";outline:2px solid currentColor"
        else:
            style += ";opacity:.4"
        mark = html.escape(text).replace("\n", "⏎\n")
        parts.append(f'<span style="{style}">{mark}</span>')
    return (
        '<div aria-hidden="true" style="font-family:monospace;line-height:1.7;white-space:pre-wrap;'
        f'overflow-wrap:anywhere">{"".join(parts)}</div>'
    )


def transcript(messages: Sequence[Mapping[str, str]], unread: int = 0) -> str:
    """Return a conversation as HTML; `unread` says how many messages after the system's are no longer read."""
    rows = []
    said = 0  # messages so far, except the system's
    for message in messages:
        is_pale = False
        if message["role"] != "system":
            is_pale = said < unread
            said += 1
        opacity = ";opacity:.45" if is_pale else ""
        rows.append(
            f'<div style="margin:.3em 0;white-space:pre-wrap;overflow-wrap:anywhere{opacity}">'
            f"<b>{_NAMES[message['role']]}:</b> {html.escape(message['content'])}</div>"
        )
    return "".join(rows) or "<em>Nothing has been said yet.</em>"


# --- the chat window ---


class _Attention(ipywidgets.VBox):
    """The lower half: a slider over the answer's tokens, a menu of layers, the shaded tokens, a sentence."""

    def __init__(self) -> None:
        self.data: dict[str, Any] | None = None
        self.token = ipywidgets.IntSlider(min=0, max=0, description="Token written", **_WIDE)
        self.layer = ipywidgets.Dropdown(options=[("all", None)], description="Layer", **_WIDE)
        self.view = ipywidgets.HTML()
        super().__init__([self.token, self.layer, self.view])

        for control in (self.token, self.layer):
            control.observe(lambda change: self.redraw(), names="value")
        self.hide()

    def hide(self) -> None:
        """Show nothing, as long as there is no answer."""
        self.data = None
        self.layout.display = "none"

    def show(self, data: dict[str, Any]) -> None:
        """Show an answer, from its first token; data: that of `attention_data`."""
        self.data = None  # until the controls fit the new data
        self.token.max = len(data["tokens"]) - data["start"] - 1
        layers = [(str(i + 1), i) for i in range(len(data["weights"]))]
        self.layer.options = [("all", None), *layers]
        self.token.value = 0

        self.data = data
        self.layout.display = ""
        self.redraw()

    def redraw(self) -> None:
        """Draw the chosen token."""
        if self.data is not None:
            chosen = (self.data, self.token.value, self.layer.value)
            self.view.value = draw(*chosen) + f"<p>{html.escape(describe(*chosen))}</p>"


def _setting_controls(assistant: Assistant) -> dict[str, ipywidgets.Widget]:
    """Return sliders for how answers are drawn, by the names of the settings."""
    now = assistant.settings
    return {
        "temperature": ipywidgets.FloatSlider(
            value=now["temperature"], min=0, max=2, step=0.05, description="Temperature", **_WIDE
        ),
        "top_p": ipywidgets.FloatSlider(
            value=now["top_p"], min=0.05, max=1, step=0.05, description="Top-p", **_WIDE
        ),
        "max_new_tokens": ipywidgets.IntSlider(
            value=now["max_new_tokens"],
            min=1,
            max=assistant.context // 2,
            description="Longest answer",
            **_WIDE,
        ),
    }


class _Chat:
    """A conversation with an assistant, and the `window` that shows it."""

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant
        self.log = ipywidgets.HTML()
        self.note = ipywidgets.HTML()
        self.field = ipywidgets.Text(
            placeholder="Write something, then Enter",
            description="You",
            layout={"width": "28rem", "max_width": "98%"},
        )
        self.settings = _setting_controls(assistant)
        self.attention = _Attention()

        send = ipywidgets.Button(description="Send", button_style="primary")
        reset = ipywidgets.Button(description="Reset", button_style="")
        send.on_click(lambda _: self.answer())
        reset.on_click(lambda _: self.reset())
        with (
            warnings.catch_warnings()
        ):  # deprecated, but the only way to tell Enter from leaving the field
            warnings.simplefilter("ignore")
            self.field.on_submit(lambda _: self.answer())

        frame = ipywidgets.VBox([self.log], layout={"max_height": "24rem", "overflow": "auto"})
        buttons = ipywidgets.HBox([send, reset])
        sliders = ipywidgets.VBox(list(self.settings.values()))
        self.window = ipywidgets.VBox(
            [frame, self.note, self.field, buttons, sliders, self.attention]
        )
        self.redraw()

    def redraw(self, unread: int = 0) -> None:
        """Show the conversation; unread: how many of its messages do not fit into the model any more."""
        self.log.value = transcript(self.assistant.messages, unread)

    def reset(self) -> None:
        """Forget the conversation."""
        self.assistant.reset()
        self.note.value = ""
        self.attention.hide()
        self.redraw()

    def answer(self) -> None:
        """Say what is in the field, and show the answer while it is written."""
        text = self.field.value
        if not text.strip():
            return
        try:
            chosen = {name: control.value for name, control in self.settings.items()}
            self.assistant.set(**chosen)
            pieces = self.assistant.stream(text)
        except ValueError as error:
            self.note.value = f"<p><strong>Refused.</strong> {html.escape(str(error))}</p>"
            return

        self.field.value = ""
        self.note.value = ""
        self.attention.hide()
        self.redraw(len(self.assistant.messages) + 1 - len(self.assistant.window(text)))
        try:
            written = self._write(text, pieces)
        except Exception as error:  # no cell would show the traceback of a callback
            why = f"{type(error).__name__}: {error}"
            self.note.value = f"<p><strong>It failed.</strong> {html.escape(why)}</p>"
            self.redraw()
            return

        if written.strip():
            self.attention.show(attention_data(self.assistant))
        else:
            self.note.value = "<p>It had nothing to say; the question is not kept.</p>"
            self.redraw()

    def _write(self, text: str, pieces: Generator[str]) -> str:
        """Show the question and the answer, piece by piece; return the answer, or what there is of it on Ctrl-C."""
        before = self.log.value if self.assistant.messages else ""
        written = ""
        try:
            for piece in pieces:
                written += piece
                turn = [
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": written},
                ]
                self.log.value = before + transcript(turn)
        except KeyboardInterrupt:  # the kernel's interrupt: what was written stays
            pieces.close()
            self.note.value = "<p>Broken off.</p>"
        return written


def chat_window(assistant: Assistant) -> ipywidgets.VBox:
    """Return a chat: the conversation, a field, Send and Reset, settings, and what the last answer attended to."""
    return _Chat(assistant).window
