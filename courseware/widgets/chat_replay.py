"""The chat of chapter 16: talk with a model and see what its last answer attended to; record talks for the website."""

from __future__ import annotations

import asyncio
import html
import threading
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from courseware.widgets.tokens import visible
from minigpt_lib.generation import STRATEGIES

if TYPE_CHECKING:
    from minigpt_lib.assistant import Assistant

_TINT = "rgba(0,114,178,{:.2f})"  # the colour of queries in figures
_NAMES = {"system": "system", "user": "you", "assistant": "MiniGPT"}
# Seconds between two drawings of an answer. A browser draws about 100 times a second here; a small model writes 500
# tokens, and a browser that lags behind hears no click on Stop.
_PAUSE = 0.05
# Values of menus: None would mean that nothing is chosen, and the menu would be blank.
_ALL = "all"
_OWN = "this one"
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
            style += ";opacity:.65"
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
        opacity = ";opacity:.65" if is_pale else ""
        rows.append(
            f'<div style="margin:.3em 0;line-height:1.5;white-space:pre-wrap;overflow-wrap:anywhere{opacity}">'
            f"<b>{_NAMES[message['role']]}:</b> {html.escape(message['content'])}</div>"
        )
    return "".join(rows) or "<em>Nothing has been said yet.</em>"


# --- the chat window ---


class _Attention(ipywidgets.VBox):
    """The lower half: a slider over the answer's tokens, a menu of layers, the shaded tokens, a sentence."""

    def __init__(self) -> None:
        self.data: dict[str, Any] | None = None
        self.token = ipywidgets.IntSlider(min=0, max=0, description="Token written", **_WIDE)
        self.layer = ipywidgets.Dropdown(options=[(_ALL, _ALL)], description="Layer", **_WIDE)
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
        self.layer.options = [(_ALL, _ALL), *layers]
        self.token.value = 0

        self.data = data
        self.layout.display = ""
        self.redraw()

    def redraw(self) -> None:
        """Draw the chosen token."""
        data = self.data
        if data is not None:
            layer = None if self.layer.value == _ALL else self.layer.value
            chosen = (data, self.token.value, layer)
            self.view.value = draw(*chosen) + f"<p>{html.escape(describe(*chosen))}</p>"


def _setting_controls(assistant: Assistant) -> dict[str, ipywidgets.Widget]:
    """Return controls of how answers are drawn, by the names of the settings."""
    now = assistant.settings

    def share(name: str, title: str, low: float, high: float = 1.0) -> ipywidgets.FloatSlider:
        value = high if now[name] is None else now[name]
        return ipywidgets.FloatSlider(
            value=value, min=low, max=high, step=0.05, description=title, **_WIDE
        )

    most = assistant.context // 2
    return {
        "strategy": ipywidgets.Dropdown(
            options=STRATEGIES, value=now["strategy"], description="Strategy", **_WIDE
        ),
        "temperature": share("temperature", "Temperature", 0, 2),
        "top_p": share("top_p", "Top-p", 0.05),
        "top_k": ipywidgets.BoundedIntText(
            value=now["top_k"] or 50, min=1, max=1_000_000, description="Top-k", **_WIDE
        ),
        "min_p": share("min_p", "Min-p", 0),
        "repetition_penalty": share("repetition_penalty", "Repetition", 0.5, 2),
        "max_new_tokens": ipywidgets.IntSlider(
            value=now["max_new_tokens"], min=1, max=most, description="Longest answer", **_WIDE
        ),
    }


def _button(title: str, tip: str, style: str = "") -> ipywidgets.Button:
    return ipywidgets.Button(
        description=title, tooltip=tip, button_style=style, layout={"width": "auto"}
    )


class _Chat:
    """A conversation with an assistant, and the `window` that shows it.

    In a kernel the answers are written in the background, so that Stop is heard; without an event loop,
    as in tests, they are written at once. JupyterLab calls widgets from several threads, each with a loop
    of its own: what a user does waits for its turn in the thread that is writing.
    """

    def __init__(self, assistant: Assistant, names: Sequence[str]) -> None:
        self.assistant = assistant
        self.own = assistant  # the one that the window was opened with
        self.is_editing = False
        self.run = 0  # counts answers, so that one that was broken off knows it
        self.loop: asyncio.AbstractEventLoop | None = None  # where an answer is being written
        self.acting = threading.RLock()
        self.log = ipywidgets.HTML()
        self.note = ipywidgets.HTML()
        self.status = ipywidgets.HTML()
        self.field = ipywidgets.Text(
            placeholder="Write something, then Enter; /help lists commands",
            description="You",
            layout={"width": "28rem", "max_width": "98%"},
        )
        self.file = ipywidgets.Text(value="talk.json", description="File", **_WIDE)
        self.model = ipywidgets.Dropdown(
            options=[_OWN, *names],
            description="Model",
            **_WIDE,
        )
        self.examples = ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        self.settings = _setting_controls(assistant)
        self.attention = _Attention()
        self.window = self._arranged()

        # Deprecated, but the only way to tell Enter from leaving the field.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.field.on_submit(lambda _: self.in_turn(self.answer))
        self.model.observe(
            lambda change: self.in_turn(lambda: self.choose(change["new"])), names="value"
        )
        self.settings["strategy"].observe(lambda change: self._enable(), names="value")
        self._show_examples()
        self._enable()
        self.redraw()

    def _arranged(self) -> ipywidgets.VBox:
        """Return all parts, one below the other, with the buttons wired."""
        send = _button("Send", "say what is in the field", "primary")
        stop = _button("Stop", "break the answer off; what was written stays")
        retry = _button("Retry", "answer the last question again")
        edit = _button("Edit", "change the last question and ask it again")
        undo = _button("Undo", "take back the last question and its answer")
        reset = _button("Reset", "forget the conversation")
        save = _button("Save", "write the conversation into the file")
        load = _button("Load", "go on with the conversation in the file")
        for button, do in (
            (send, self.answer),
            (stop, self.stop),
            (retry, lambda: self.obey("/retry")),
            (edit, self.edit),
            (undo, lambda: self.obey("/undo")),
            (reset, self.reset),
            (save, lambda: self.obey(f"/save {self.file.value}")),
            (load, lambda: self.obey(f"/load {self.file.value}")),
        ):
            button.on_click(lambda _, do=do: self.in_turn(do))

        # A reversed column stays at its end, where the answer grows, until somebody scrolls up.
        frame = ipywidgets.VBox(
            [self.log],
            layout={"max_height": "24rem", "overflow": "auto", "flex_flow": "column-reverse"},
        )
        row = {"flex_flow": "row wrap"}
        settings = ipywidgets.Accordion([ipywidgets.VBox(list(self.settings.values()))])
        settings.set_title(0, "Settings")
        return ipywidgets.VBox(
            [
                frame,
                self.note,
                self.status,
                self.examples,
                self.field,
                ipywidgets.HBox([send, stop, retry, edit, undo, reset], layout=row),
                ipywidgets.HBox([self.file, save, load], layout=row),
                self.model,
                settings,
                self.attention,
            ]
        )

    # --- what is shown ---

    def redraw(self, unread: int = 0) -> None:
        """Show the conversation; unread: how many of its messages do not fit into the model any more."""
        self.log.value = transcript(self.assistant.messages, unread)

    def tell(self, title: str, text: str) -> None:
        """Show a line below the conversation, or several, such as a list of commands in two columns."""
        style = "line-height:1.5;white-space:pre-wrap;overflow-wrap:anywhere"
        if "\n" in text:
            style += ";font-family:monospace"
        start = f"<strong>{title}</strong> " if title else ""
        self.note.value = f'<p style="{style}">{start}{html.escape(text)}</p>'

    def _show_status(self) -> None:
        """Show how full the window is, and how fast the last answer came."""
        self.status.value = f"<small>{html.escape(_speed(self.assistant))}</small>"

    def _show_examples(self) -> None:
        """Show a button for each example question."""
        buttons = []
        for text in self.assistant.examples:
            button = _button(text, f"ask: {text}")  # a button cuts off what is too long
            button.on_click(lambda _, text=text: self.in_turn(lambda: self.obey(text)))
            buttons.append(button)
        self.examples.children = buttons

    def _enable(self) -> None:
        """Grey out the settings that have no effect under the chosen strategy."""
        strategy = self.settings["strategy"].value
        for name in ("top_k", "top_p", "min_p"):
            self.settings[name].disabled = name != strategy
        self.settings["temperature"].disabled = strategy in ("greedy", "beam")

    def _follow_settings(self) -> None:
        """Let the controls show the assistant's settings, which a command or a file may have changed."""
        for name, control in self.settings.items():
            if self.assistant.settings[name] is not None:
                control.value = self.assistant.settings[name]

    # --- what a user may do ---

    def in_turn(self, action: Callable[[], object]) -> None:
        """Carry out an action: now, or between two pieces of the answer that another thread is writing."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None

        with self.acting:
            loop = self.loop
            if loop is None or loop is here or not loop.is_running():
                action()
                return
        loop.call_soon_threadsafe(self.in_turn, action)

    def reset(self) -> None:
        """Forget the conversation."""
        self.obey("/reset")
        self.note.value = ""

    def stop(self) -> None:
        """Break the answer off; what was written stays."""
        self.assistant.stop()

    def edit(self) -> None:
        """Put the last question into the field, to be changed."""
        last = self.assistant.last_question()
        if last is None:
            self.tell("", "Nothing has been said yet.")
            return
        self.field.value = last
        self.field.focus()
        self.is_editing = True
        self.tell("", "Change the question, then press Enter.")

    def choose(self, name: str) -> None:
        """Go on with another model: the conversation and the settings stay."""
        from minigpt_lib.assistant import Assistant

        before = self.assistant
        before.stop()
        try:
            after = self.own if name == _OWN else Assistant.open(name)
            after.set(**before.settings)
        except (ValueError, OSError) as error:
            self.tell("Refused.", str(error))
            return
        after.messages = before.messages
        after.unanswered = before.unanswered
        self.assistant = after
        self.attention.hide()
        self._show_examples()
        self._show_status()
        self.tell("", "" if name == _OWN else "The next answer comes from the other model.")

    def answer(self) -> None:
        """Say what is in the field, or carry it out if it is a command."""
        text = self.field.value
        if not text.strip():
            return
        changes = self.is_editing and not text.startswith("/")
        if self.obey(f"/edit {text}" if changes else text):
            self.field.value = ""

    def obey(self, line: str) -> bool:
        """Carry out a line, and show the answer while it is written; return whether it was accepted."""
        from minigpt_lib.assistant import obey

        is_question = not line.startswith("/")
        try:
            chosen = {name: control.value for name, control in self.settings.items()}
            self.assistant.set(**chosen)
            unread = 0
            if is_question:
                unread = len(self.assistant.messages) + 1 - len(self.assistant.window(line))
            result = obey(self.assistant, line)
        except (ValueError, OSError) as error:
            self.tell("Refused.", str(error))
            return False

        self.run += 1
        self.is_editing = False
        self.attention.hide()
        if isinstance(result, str):
            self.tell("", result)
            self._follow_settings()
            self._show_status()
            self.redraw()
            return True

        self.note.value = ""
        self.redraw(unread)
        asked = self.assistant.last_question() if is_question else line.removeprefix("/edit ")
        if line.rstrip() == "/retry":
            asked = self.assistant.last_question()
        before = self.assistant.messages
        if not is_question and self.assistant.unanswered is None:
            before = before[:-2]  # the old turn stays until the new answer has a word
        self._begin(asked or "", result, transcript(before, unread) if before else "")
        return True

    def _begin(self, text: str, pieces: Generator[str], before: str) -> None:
        """Write an answer: in the background of a kernel, otherwise now."""
        writing = self._written(text, pieces, before, self.run)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            for _ in writing:
                pass
            return

        async def write(run: int) -> None:
            for _ in writing:
                await asyncio.sleep(0)  # so that the kernel hears Stop
            if run == self.run:
                self.loop = None

        self.loop = loop
        self.task = loop.create_task(write(self.run))

    def _written(
        self, text: str, pieces: Generator[str], before: str, run: int
    ) -> Generator[None, None, None]:
        """Show a question and its answer, piece by piece; pauses after each."""
        assistant = self.assistant
        written = ""
        drawn = -_PAUSE  # when it was drawn last

        def show() -> None:
            turn = [
                {"role": "user", "content": text},
                {"role": "assistant", "content": written},
            ]
            self.log.value = before + transcript(turn)

        try:
            for piece in pieces:
                written += piece
                if time.monotonic() - drawn >= _PAUSE:
                    show()
                    drawn = time.monotonic()
                yield
                if run != self.run:  # something else came
                    return
            show()
        except KeyboardInterrupt:  # the kernel's interrupt: what was written stays
            pieces.close()
            show()
            self.tell("", "Broken off.")
        except Exception as error:  # no cell would show the traceback of a callback
            self.tell("It failed.", f"{type(error).__name__}: {error}")
            self.redraw()
            return

        if written.strip():
            self.attention.show(attention_data(assistant))
            self._show_status()
        else:
            self.tell("", "It had nothing to say; the question is not kept.")
            self.redraw()


def _speed(assistant: Assistant) -> str:
    """Return how full the window is, and how fast the last answer came, in a line."""
    stats = assistant.stats()
    told = f"{stats.tokens} of {stats.room} tokens"
    if stats.tokens_per_second is not None:
        told += f" · {stats.tokens_per_second:.0f} tokens per second"
    return told


def chat_window(assistant: Assistant, names: Sequence[str] | None = None) -> ipywidgets.VBox:
    """Return a chat: the conversation, a field, buttons, settings, and what the last answer attended to.

    names: trained models to choose from, by default all that Assistant.open knows.
    """
    from minigpt_lib.assistant import trained_models

    return _Chat(assistant, list(trained_models()) if names is None else names).window
