"""Chapter 16: the chat in a notebook, the conversations it records, and its twin in JavaScript."""

from __future__ import annotations

import html
import json
import re

import pytest
from assistant_models import CHAT, chatterer, scripted, tiny
from tools import in_node

from courseware.widgets import chat_replay
from minigpt_lib.assistant import SYSTEM, Assistant

# ---------------------------------------------------------------- the chat


def parts(widget, kind):
    """Return a widget and its descendants, as far as they are of this kind."""
    found = [widget] if type(widget).__name__ == kind else []
    for child in getattr(widget, "children", ()):
        found += parts(child, kind)
    return found


class Window:
    """The chat with an assistant, with names for its parts."""

    def __init__(self, assistant):
        self.assistant = assistant
        self.box = chat_replay.chat_window(assistant)
        (self.field,) = parts(self.box, "Text")
        self.send, self.reset = parts(self.box, "Button")
        self.log, self.note, self.view = parts(self.box, "HTML")
        self.attention = self.box.children[-1]

    def say(self, text):
        self.field.value = text
        self.send.click()

    def said(self):
        """Return the texts of all messages after the system message."""
        return [message["content"] for message in self.assistant.messages[1:]]


@pytest.fixture
def window():
    """Return the chat with an assistant that says nothing but "a"."""
    return Window(Assistant(chatterer(), CHAT, max_new_tokens=6, strategy="greedy"))


def test_an_answer_and_its_attention_are_shown(window):
    assert window.attention.layout.display == "none"
    assert "Be" not in window.log.value

    window.say("Hi <b>you</b>")

    assert "aaaaaa" in window.log.value
    assert "Hi &lt;b&gt;you&lt;/b&gt;" in window.log.value
    assert window.field.value == ""
    assert len(window.assistant.messages) == 3
    assert window.attention.layout.display == ""
    assert "Before it wrote" in window.view.value

    first = window.view.value
    window.attention.token.value = 3
    assert window.view.value != first


def test_a_question_that_is_too_long_is_refused_and_stays_in_the_field(window):
    window.say("Hi <b>you</b>")

    window.say("x" * 300)

    assert "Refused" in window.note.value
    assert len(window.assistant.messages) == 3
    assert window.field.value == "x" * 300


def test_the_sliders_change_the_settings(window):
    window.say("x" * 300)
    parts(window.box, "FloatSlider")[0].value = 1.5
    parts(window.box, "IntSlider")[0].value = 2

    window.say("Again")

    assert window.assistant.settings["temperature"] == 1.5
    assert window.assistant.messages[-1]["content"] == "aa"
    assert window.note.value == ""


def test_messages_that_are_no_longer_read_are_pale_and_reset_forgets_all(window):
    for _ in range(8):
        window.say("And once more, to fill the context")
    assert "opacity:.45" in window.log.value

    window.reset.click()

    assert len(window.assistant.messages) == 1
    assert window.attention.layout.display == "none"


def test_an_interrupted_answer_is_kept_and_an_empty_one_is_not(window):
    scripted(window.assistant, ["Yes", KeyboardInterrupt()], [])

    window.say("One")
    assert "Broken off" in window.note.value

    window.say("Two")
    assert "nothing to say" in window.note.value
    assert window.said() == ["One", "Yes"]


def test_errors_of_the_model_are_shown(window):
    failures = (["Well", RuntimeError("a <bad> weight")], [OverflowError("too big")])
    scripted(window.assistant, *failures)

    window.say("Go")
    assert "It failed" in window.note.value
    assert "RuntimeError: a &lt;bad&gt; weight" in window.note.value
    assert window.attention.layout.display == "none"

    window.say("On")
    assert "It failed" in window.note.value
    assert "OverflowError: too big" in window.note.value
    assert window.attention.layout.display == "none"

    assert window.said() == ["Go", "Well"]
    assert "Well" in window.log.value


def test_invalid_settings_are_refused_and_the_question_is_not_kept(window):
    scripted(window.assistant, ["Yes"], ["Well"])
    window.say("One")
    window.say("Two")
    window.assistant.settings["seed"] = "1"

    window.say("Hm")

    assert "Refused" in window.note.value
    assert "seed=" in window.note.value
    assert len(window.assistant.messages) == 5


# ---------------------------------------------------------------- records and the twin


@pytest.fixture(scope="module")
def talks():
    """Return two recorded conversations, with the attention of their last answers."""
    scripts = {"One": ["Hi", "Who?"], "Two": ["/system Be\nkind.", "A b"]}
    answers = ("Hello", list("It\nis <i> I."), ["Ja ", "wohl."])
    return chat_replay.record(scripted(Assistant(tiny(), CHAT), *answers), scripts)


def test_a_record_holds_what_was_said_and_attention_that_adds_up_to_1000(talks):
    assert [talk["title"] for talk in talks] == ["One", "Two"]
    assert talks[0]["messages"][0]["content"] == SYSTEM
    assert talks[1]["messages"][0]["content"] == "Be\nkind."

    for talk in talks:
        found = talk["attention"]
        assert "".join(found["tokens"][found["start"] :]) == talk["messages"][-1]["content"]
        for weights in found["weights"]:
            assert all(abs(sum(row) - 1000) < len(row) for row in weights)

    json.dumps(talks, allow_nan=False)


def styled_texts(drawn):
    """Return the texts of a widget's boxes with their styles."""
    found = re.findall(r'<span style="(.*?)">(.*?)</span>', drawn, re.DOTALL)
    return [(html.unescape(text), style) for style, text in found]


def test_the_twin_says_and_shades_the_same(talks):
    each = "[m.describe(data.found, i, layer), m.boxes(data.found, i, layer)]"
    call = f"data.places.map(([i, layer]) => {each})"

    for talk in talks:
        data = talk["attention"]
        n = len(data["tokens"]) - data["start"]
        places = [(i, layer) for i in range(n) for layer in (None, 0, 1)]

        theirs = in_node("chat-replay.js", call, {"found": data, "places": places})

        for (i, layer), (sentence, boxes) in zip(places, theirs):
            assert sentence == chat_replay.describe(data, i, layer)
            ours = styled_texts(chat_replay.draw(data, i, layer))
            for (text, style), (our_text, our_style) in zip(boxes, ours, strict=True):
                assert text == our_text
                head, _, tint = style.rstrip(")").rpartition(",")
                our_head, _, our_tint = our_style.rstrip(")").rpartition(",")
                assert head == our_head
                # JavaScript rounds halves in the other direction.
                assert tint == our_tint or abs(float(tint) - float(our_tint)) < 0.011
