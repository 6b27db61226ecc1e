"""Chapter 16's chat as a reader meets it: in JupyterLab, in a browser, with the mouse and the keyboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser as browsers
import nbformat
import pytest
from assistant_models import CHAT, chatterer
from lab import PATIENCE, copy_course, idle, jupyterlab, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.browser]

# Long answers have time for Stop. The whole file takes about a minute.
CELL = """
from courseware.widgets.chat_replay import chat_window
from courseware.widgets.show import show
from minigpt_lib.assistant import Assistant

own = Assistant.open("preferences", context=8192, strategy="greedy", max_new_tokens=3)
show(chat_window(own, ["sft"]), "chat-replay", {}, alt="A chat.")
"""
EXAMPLES = {"preferences": ["Who are you?", "What is 7 plus 5?"], "sft": ["Really?"]}


def save_models(root: Path) -> None:
    """Write two models where Assistant.open finds them: one says "a", the other one "b"."""
    models = root / "data" / "models"
    shutil.rmtree(models, ignore_errors=True)
    for name, letter in (("preferences", "a"), ("sft", "b")):
        chatterer(letter, max_seq_len=8192).save_pretrained(models / name)
        CHAT.base.save(models / name / "tokenizer.json")
        examples = json.dumps(EXAMPLES[name])
        (models / name / "examples.json").write_text(examples, encoding="utf-8")


def write_notebook(path: Path) -> None:
    """Write a notebook with nothing but the chat."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.strip())])
    # Without the name of a kernel, JupyterLab would ask for one.
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    path.write_text(nbformat.writes(notebook), encoding="utf-8")


class Chat:
    """The chat in a notebook, with names for what one sees and does."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.cell = page.locator(".jp-CodeCell").first
        self.field = self.cell.get_by_label("You", exact=True)
        self.frame = self.cell.locator(".widget-vbox .widget-vbox").first
        self.log, self.note, self.status = [
            self.cell.locator(".widget-html .widget-html-content").nth(i) for i in range(3)
        ]

    def say(self, text: str) -> None:
        """Type a line and press Enter."""
        self.field.fill(text)
        self.field.press("Enter")

    def press(self, name: str) -> None:
        self.cell.get_by_role("button", name=name, exact=True).click()

    def turns(self) -> list[str]:
        """Return what was said, a line for each message."""
        return self.log.locator("> div").all_inner_texts()

    def wait(self, *turns: str) -> None:
        """Wait until these are the messages after the first one."""
        wait_for(lambda: self.turns()[1:] == list(turns), lambda: (self.turns(), self.told()))

    def wait_for_note(self, words: str) -> None:
        wait_for(lambda: words in self.told(), lambda: (self.turns(), self.told()))

    def told(self) -> str:
        return self.note.inner_text()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    """Open a notebook with the chat in JupyterLab, and run its cell."""
    home = tmp_path_factory.mktemp("lab")
    root = home / "course"
    copy_course(root)
    save_models(root)
    notebook = root / "notebooks" / "chat.ipynb"
    write_notebook(notebook)

    with browsers.launched() as chromium, jupyterlab(root, home / "jupyter") as address:
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE * 1000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{address}/lab/tree/notebooks/{notebook.name}?reset")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        wait_for(lambda: idle(address), lambda: "the kernel did not become idle")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.locator(".jp-CodeCell .widget-vbox").first.wait_for()

        yield Chat(page, notebook.parent)
        assert not problems


@pytest.fixture
def chat(lab: Chat) -> Chat:
    """Return the chat at the beginning of a conversation, with answers of three tokens."""
    lab.cell.get_by_label("Model", exact=True).select_option("this one")
    lab.say("/set max_new_tokens 3")
    lab.wait_for_note("is now 3")
    lab.say("/system You are MiniGPT, a small assistant.")
    lab.wait_for_note("the first message is now: You are")
    lab.press("Reset")
    lab.wait()
    return lab


def test_an_answer_streams_and_stop_breaks_it_off(chat):
    chat.say("/set max_new_tokens 4000")
    chat.wait_for_note("is now 4000")
    chat.say("Go on")
    wait_for(lambda: len(chat.turns()[-1]) > 100, chat.turns)

    chat.press("Stop")
    chat.cell.get_by_label("Layer", exact=True).wait_for()  # what it looked at is shown at the end
    assert "tokens per second" in chat.status.inner_text()

    question, answer = chat.turns()[1:]
    assert question == "you: Go on"
    assert 100 < len(answer) < 4000
    frame = chat.frame.evaluate("(e) => [e.scrollTop, e.scrollHeight, e.clientHeight]")
    assert frame[0] == 0, "a reversed column begins at its end, where the answer grows"

    chat.say("/set max_new_tokens 3")
    chat.say("And?")
    chat.wait(question, answer, "you: And?", "MiniGPT: aaa")


def test_retry_edit_and_undo(chat):
    chat.say("Hello?")
    chat.wait("you: Hello?", "MiniGPT: aaa")

    chat.say("/set max_new_tokens 5")
    chat.wait_for_note("is now 5")
    chat.press("Retry")
    chat.wait("you: Hello?", "MiniGPT: aaaaa")

    chat.press("Edit")
    wait_for(lambda: chat.field.input_value() == "Hello?", chat.told)
    wait_for(lambda: chat.field.evaluate("(e) => e === document.activeElement"), chat.told)
    chat.say("Changed?")
    chat.wait("you: Changed?", "MiniGPT: aaaaa")

    chat.press("Undo")
    chat.wait_for_note("(taken back: Changed?)")
    chat.wait()


def test_a_conversation_is_saved_and_loaded(chat):
    chat.say("Hello?")
    chat.wait("you: Hello?", "MiniGPT: aaa")

    chat.press("Save")
    chat.wait_for_note("(saved to talk.json)")
    file = chat.folder / "talk.json"
    messages = json.loads(file.read_text(encoding="utf-8"))["messages"]
    assert [message["content"] for message in messages[1:]] == ["Hello?", "aaa"]

    chat.press("Reset")
    chat.wait()
    chat.press("Load")
    chat.wait_for_note("(going on with talk.json)")
    chat.wait("you: Hello?", "MiniGPT: aaa")


def test_another_model_goes_on_and_examples_are_buttons(chat):
    chat.press("Who are you?")
    chat.wait("you: Who are you?", "MiniGPT: aaa")

    model = chat.cell.get_by_label("Model", exact=True)
    model.select_option("sft")
    chat.wait_for_note("from the other model")
    chat.press("Really?")
    chat.wait("you: Who are you?", "MiniGPT: aaa", "you: Really?", "MiniGPT: bbb")

    model.select_option("this one")
    chat.cell.get_by_role("button", name="Who are you?", exact=True).wait_for()
    assert model.evaluate("(e) => e.selectedIndex") == 0, "a menu without a choice is blank"
    layer = chat.cell.get_by_label("Layer", exact=True)
    chat.say("And?")
    layer.wait_for()
    assert layer.evaluate("(e) => e.selectedIndex") == 0


def test_commands_are_obeyed_and_settings_are_shown(chat):
    chat.say("/system Be kind.")
    chat.wait_for_note("(the first message is now: Be kind.)")
    assert chat.turns() == ["system: Be kind."]

    chat.say("/set temperature 0.7")
    chat.wait_for_note("temperature is now 0.7")
    settings = chat.cell.get_by_text("Settings", exact=True)
    settings.click()
    shown = chat.cell.locator(".widget-slider", has_text="Temperature").locator(".widget-readout")
    wait_for(lambda: shown.inner_text() == "0.70", shown.all_inner_texts)
    settings.click()

    chat.say("/set temperature hot")
    chat.wait_for_note("Refused.")
    assert chat.field.input_value() == "/set temperature hot"
    chat.say("/stats")
    chat.wait_for_note("window: ")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_chat_fits_a_narrow_window_in_both_themes(chat, theme):
    page = chat.page
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.get_by_text("Theme", exact=True).hover()
    page.get_by_text(theme, exact=True).click()
    page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
    chat.say("Is this wide? " + "wide" * 30)
    wait_for(lambda: "MiniGPT: aaa" in chat.turns(), chat.turns)

    before = page.viewport_size
    page.set_viewport_size({"width": 700, "height": 900})
    try:
        output = chat.cell.locator(".jp-OutputArea-output").first
        # A pixel more or less is a matter of rounding.
        wait_for(
            lambda: output.evaluate("(e) => e.scrollWidth - e.clientWidth") <= 1,
            lambda: output.evaluate("(e) => [e.scrollWidth, e.clientWidth]"),
        )
    finally:
        page.set_viewport_size(before)


def test_the_arrow_of_a_list_is_light_in_the_dark_theme(chat):
    model = chat.cell.get_by_label("Model", exact=True)
    read = """(e, light) => {
        document.body.dataset.jpThemeLight = light;
        return getComputedStyle(e).backgroundImage;
    }"""

    dark = model.evaluate(read, "false")
    light = model.evaluate(read, "true")

    assert "fill='%23e0e0e0'" in dark
    assert "svg" in light
    assert "e0e0e0" not in light
