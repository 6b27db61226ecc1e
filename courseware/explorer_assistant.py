"""The chat of chapter 16: talk with a model, then see what its last answer looked at; and records for the website."""

from __future__ import annotations

import html
import warnings
from typing import Any

import ipywidgets

_TINT = "rgba(0,114,178,{:.2f})"
_NAMES = {"system": "system", "user": "you", "assistant": "MiniGPT"}


def attention_data(assistant: Any) -> dict[str, Any]:
    """Return {"tokens", "start", "weights"} of the last answer; weights[layer][i][j] is in thousandths."""
    from minigpt_lib.assistant import attention_of_last_answer

    found = attention_of_last_answer(assistant)
    weights = (1000 * found.weights.mean(dim=1)).round().int().tolist()
    return {"tokens": found.tokens, "start": found.start, "weights": weights}


def record(assistant: Any, scripts: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return a conversation for each script: {"title", "messages", "attention"} of its last answer.

    A line "/system TEXT" changes the first message; every other one is said. A script whose last line gets no
    answer shows what was said before.
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
        said = {"messages": list(assistant.messages), "attention": attention_data(assistant)}
        talks.append({"title": title, **said})
    return talks


def looked(data: dict[str, Any], token: int, layer: int | None) -> list[float]:
    """Return how much the answer's token (from 0) looked at each token before it, in thousandths; None: all layers."""
    rows = [weights[token] for weights in data["weights"]]
    chosen = rows if layer is None else [rows[layer]]
    return [sum(column) / len(chosen) for column in zip(*chosen)][: data["start"] + token]


def shown(text: str) -> str:
    """Return a token with its spaces and line breaks visible."""
    return text.replace(" ", "␣").replace("\n", "⏎")


def percent(thousandths: float) -> str:
    """Return a share with one decimal; a half goes up, as in JavaScript."""
    return f"{int(thousandths + 0.5) / 10:.1f}"


def describe(data: dict[str, Any], token: int, layer: int | None) -> str:
    """Return the sentence: which token was written, and the three that were looked at most."""
    weights = looked(data, token, layer)
    best = sorted(range(len(weights)), key=lambda j: (-weights[j], j))[:3]
    seen = [f"“{shown(data['tokens'][j])}” ({percent(weights[j])} %)" for j in best]
    where = "all layers" if layer is None else f"layer {layer + 1}"
    written = shown(data["tokens"][data["start"] + token])
    return (
        f"Before it wrote “{written}”, the model looked most at {', '.join(seen[:-1])} and {seen[-1]}: "
        f"mean of {where}."
    )


def draw(data: dict[str, Any], token: int, layer: int | None) -> str:
    """Return the conversation's tokens as HTML: shaded by weight, the written one framed, later ones pale."""
    weights, parts = looked(data, token, layer), []
    most = max(weights) or 1
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


def transcript(messages: list[dict], unread: int = 0) -> str:
    """Return the conversation as HTML; of the messages that are not the system's, the first `unread` are pale."""
    rows, seen = [], 0
    for message in messages:
        pale = message["role"] != "system" and seen < unread
        seen += message["role"] != "system"
        rows.append(
            f'<div style="margin:.3em 0;white-space:pre-wrap;overflow-wrap:anywhere{";opacity:.45" * pale}">'
            f"<b>{_NAMES[message['role']]}:</b> {html.escape(message['content'])}</div>"
        )
    return "".join(rows) or "<em>Nothing has been said yet.</em>"


class _Attention(ipywidgets.VBox):
    """The lower half: a slider over the answer's tokens, a menu of layers, shaded tokens, a sentence."""

    def __init__(self):
        wide = {
            "style": {"description_width": "7rem"},
            "layout": {"width": "28rem", "max_width": "98%"},
        }
        self.token = ipywidgets.IntSlider(min=0, max=0, description="Token written", **wide)
        self.layer = ipywidgets.Dropdown(options=[("all", None)], description="Layer", **wide)
        self.view, self.data = ipywidgets.HTML(), None
        for control in (self.token, self.layer):
            control.observe(self.redraw, names="value")
        super().__init__([self.token, self.layer, self.view])
        self.show(None)

    def show(self, data: dict | None) -> None:
        """Show another answer, from its first token; None hides the view."""
        self.data, self.layout.display = None, "none" if data is None else ""
        if data is not None:
            self.token.max = len(data["tokens"]) - data["start"] - 1
            layers = [(str(i + 1), i) for i in range(len(data["weights"]))]
            self.layer.options = [("all", None), *layers]
            self.token.value, self.data = 0, data
            self.redraw()

    def redraw(self, _=None) -> None:
        """Draw the chosen token."""
        if self.data is not None:
            chosen = self.data, self.token.value, self.layer.value
            self.view.value = draw(*chosen) + f"<p>{html.escape(describe(*chosen))}</p>"


class _Settings(ipywidgets.VBox):
    """Sliders for how the answers are drawn; `chosen` returns them as settings."""

    def __init__(self, assistant: Any):
        now = assistant.settings
        wide = {
            "style": {"description_width": "7rem"},
            "layout": {"width": "28rem", "max_width": "98%"},
        }
        most = assistant.context // 2
        self.controls = {
            "temperature": ipywidgets.FloatSlider(
                value=now["temperature"], min=0, max=2, step=0.05, description="Temperature", **wide
            ),
            "top_p": ipywidgets.FloatSlider(
                value=now["top_p"], min=0.05, max=1, step=0.05, description="Top-p", **wide
            ),
            "max_new_tokens": ipywidgets.IntSlider(
                value=now["max_new_tokens"], min=1, max=most, description="Longest answer", **wide
            ),
        }
        super().__init__(list(self.controls.values()))

    def chosen(self) -> dict:
        """Return the settings."""
        return {name: control.value for name, control in self.controls.items()}


def chat_window(assistant: Any) -> ipywidgets.Widget:
    """Return a chat: the conversation, a field, Send and Reset, settings, and what the last answer attended to."""
    log, note, attention = ipywidgets.HTML(), ipywidgets.HTML(), _Attention()
    field = ipywidgets.Text(
        placeholder="Write something, then Enter",
        description="You",
        layout={"width": "28rem", "max_width": "98%"},
    )
    send, reset = (
        ipywidgets.Button(description=name, button_style=style)
        for name, style in (("Send", "primary"), ("Reset", ""))
    )
    settings = _Settings(assistant)

    def redraw(said: str = "") -> None:
        unread = 0
        if said:
            unread = len(assistant.messages) + 1 - len(assistant.window(said))
        log.value = transcript(assistant.messages, unread)

    def answer(_=None) -> None:
        text = field.value
        if not text.strip():
            return
        try:
            assistant.set(**settings.chosen())
            pieces = assistant.stream(text)
        except ValueError as error:
            note.value = f"<p><strong>Refused.</strong> {html.escape(str(error))}</p>"
            return
        field.value, note.value, written = "", "", ""
        attention.show(None)
        redraw(text)
        before = log.value if assistant.messages else ""
        try:
            for piece in pieces:
                written += piece
                turn = [
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": written},
                ]
                log.value = before + transcript(turn)
        except KeyboardInterrupt:  # the kernel's interrupt: what was written stays
            pieces.close()
            note.value = "<p>Broken off.</p>"
        except Exception as error:  # a traceback of a callback would be seen in no cell
            why = f"{type(error).__name__}: {error}"
            note.value = f"<p><strong>It failed.</strong> {html.escape(why)}</p>"
            redraw()
            return
        if not written.strip():
            note.value = "<p>It had nothing to say; the question is not kept.</p>"
            redraw()
        else:
            attention.show(attention_data(assistant))

    def forget(_=None) -> None:
        assistant.reset()
        note.value = ""
        attention.show(None)
        redraw()

    send.on_click(answer)
    with (
        warnings.catch_warnings()
    ):  # deprecated, but nothing else tells Enter from leaving the field
        warnings.simplefilter("ignore")
        field.on_submit(answer)
    reset.on_click(forget)
    redraw()
    frame = ipywidgets.VBox([log], layout={"max_height": "24rem", "overflow": "auto"})
    return ipywidgets.VBox(
        [frame, note, field, ipywidgets.HBox([send, reset]), settings, attention]
    )
