"""Chapter 16: the chat in a notebook, the conversations it records, and its twin in JavaScript."""

from __future__ import annotations

import asyncio
import html
import json
import re
import threading

import pytest
from assistant_models import CHAT, chatterer, scripted, tiny
from tools import in_node

from courseware import paths
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

    def __init__(self, assistant, names=()):
        self.assistant = assistant
        self.box = chat_replay.chat_window(assistant, names)
        self.field, self.file = parts(self.box, "Text")
        self.send = self.button("Send")
        self.reset = self.button("Reset")
        self.log, self.note, self.status, self.view = parts(self.box, "HTML")
        self.attention = self.box.children[-1]

    def button(self, title):
        """Return the button with this title."""
        (found,) = [b for b in parts(self.box, "Button") if b.description == title]
        return found

    def control(self, title):
        """Return the control with this title."""
        kinds = ("Dropdown", "FloatSlider", "IntSlider", "BoundedIntText")
        found = [c for kind in kinds for c in parts(self.box, kind) if c.description == title]
        return found[0]

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
    assert "tokens per second" in window.status.value

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
    assert "opacity:.65" in window.log.value

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


def test_retry_edit_and_undo(window):
    scripted(window.assistant, ["1."], ["2."], ["3."], [], ["4."])
    window.say("One?")

    window.button("Retry").click()
    assert window.said() == ["One?", "2."]

    window.button("Edit").click()
    assert window.field.value == "One?"
    window.say("Two?")
    assert window.said() == ["Two?", "3."]
    assert "One?" not in window.log.value
    assert "3." in window.log.value

    window.button("Retry").click()
    assert window.said() == ["Two?", "3."]
    assert "nothing to say" in window.note.value
    assert "3." in window.log.value

    window.say("Three?")
    window.button("Undo").click()
    assert window.said() == ["Two?", "3."]
    assert "taken back: Three?" in window.note.value
    window.button("Undo").click()
    window.button("Edit").click()
    assert "Nothing has been said yet" in window.note.value
    window.button("Retry").click()
    assert "Refused" in window.note.value


def test_commands_are_not_sent_to_the_model(window):
    window.say("/system Be <kind>.")
    assert window.assistant.messages == [{"role": "system", "content": "Be <kind>."}]
    assert "Be &lt;kind&gt;." in window.note.value
    assert window.field.value == ""

    window.say("/set temperature 0.7")
    window.say("/set strategy top_k")
    assert window.control("Temperature").value == 0.7
    assert window.control("Strategy").value == "top_k"
    window.say("Hm?")
    assert window.assistant.settings["temperature"] == 0.7

    window.say("/set temperature hot")
    assert "Refused" in window.note.value
    assert window.field.value == "/set temperature hot"
    window.say("/stats")
    assert "tokens per second" in window.note.value


def test_settings_without_effect_are_greyed_out(window):
    titles = ["Temperature", "Top-k", "Top-p", "Min-p"]

    def usable(strategy):
        window.control("Strategy").value = strategy
        return [title for title in titles if not window.control(title).disabled]

    assert usable("greedy") == []
    assert usable("top_k") == ["Temperature", "Top-k"]
    assert usable("min_p") == ["Temperature", "Min-p"]
    assert usable("sample") == ["Temperature"]


def test_a_conversation_is_saved_and_loaded(window, tmp_path):
    window.file.value = str(tmp_path / "talk.json")
    window.say("Hm?")
    window.button("Save").click()
    window.reset.click()
    assert window.said() == []

    window.button("Load").click()
    assert window.said() == ["Hm?", "aaaaaa"]
    assert "Hm?" in window.log.value

    window.file.value = str(tmp_path / "none.json")
    window.button("Load").click()
    assert "Refused" in window.note.value
    assert f"{tmp_path / 'none.json'}: No such file or directory." in window.note.value
    assert "Errno" not in window.note.value
    assert window.said() == ["Hm?", "aaaaaa"]


def test_a_list_of_commands_keeps_its_two_columns_and_its_lines():
    window = Window(Assistant(chatterer(), CHAT))

    window.say("/help")

    assert "white-space:pre-wrap" in window.note.value
    assert "font-family:monospace" in window.note.value
    assert "\n/undo            take back" in window.note.value


def test_a_question_that_is_too_long_for_its_button_is_read_in_its_tooltip():
    assistant = Assistant(chatterer(), CHAT)
    assistant.examples = ["In which city does somebody work, and for which company is it?"]

    window = Window(assistant)

    assert window.button(assistant.examples[0]).tooltip.endswith(assistant.examples[0])


def test_examples_are_buttons():
    window = Window(Assistant(chatterer(), CHAT, max_new_tokens=3, examples=["Who?", "Where?"]))

    window.button("Where?").click()

    assert window.said() == ["Where?", "aaa"]


def test_another_model_goes_on_with_the_same_conversation(window, monkeypatch):
    other = Assistant(chatterer("b"), CHAT, examples=["Really?"])
    monkeypatch.setattr(Assistant, "open", lambda name: {"sft": other}[name])
    window = Window(window.assistant, ["sft"])
    window.say("One?")

    window.control("Model").value = "sft"
    window.say("Two?")

    said = [m["content"] for m in other.messages[1:]]
    assert said == ["One?", "aaaaaa", "Two?", "bbbbbb"]
    window.button("Really?").click()
    window.control("Model").value = "this one"
    assert window.control("Model").label == "this one"
    window.say("Three?")
    assert window.said()[-4:] == ["Really?", "bbbbbb", "Three?", "aaaaaa"]


def test_anything_but_a_new_question_ends_an_edit(window):
    scripted(window.assistant, ["1."], ["2."], ["3."])
    window.say("One?")

    window.button("Edit").click()
    window.say("/stats")
    assert "tokens per second" in window.note.value
    window.say("Two?")
    assert window.said() == ["One?", "1.", "Two?", "2."]

    window.button("Edit").click()
    window.reset.click()
    window.say("Three?")
    assert window.said() == ["Three?", "3."]


def test_the_count_of_the_window_follows_what_is_taken_back(window):
    window.reset.click()
    empty = window.status.value.partition(" tokens")[0]
    window.say("One?")
    assert not window.status.value.startswith(f"{empty} ")

    window.button("Undo").click()
    assert window.status.value.startswith(f"{empty} ")


def test_a_menu_shows_what_is_chosen(window):
    window.say("One?")
    layer = window.attention.layer

    layer.value = 0
    assert "mean of layer 1" in window.view.value
    layer.index = 0

    assert layer.label == "all"
    assert "mean of all layers" in window.view.value


@pytest.mark.parametrize("after", [0, 1, 5])
def test_stop_is_heard_while_an_answer_is_written(window, after):
    async def conversation():
        window.assistant.set(max_new_tokens=100)
        window.control("Longest answer").value = 100
        window.say("Go on")
        for _ in range(after):
            await asyncio.sleep(0)
        window.button("Stop").click()
        for _ in range(200):
            await asyncio.sleep(0)
        window.say("And?")
        for _ in range(200):
            await asyncio.sleep(0)

    asyncio.run(conversation())

    said = window.said()
    assert said[-2:] == ["And?", "a" * 100]
    if after:
        assert said[:2] == ["Go on", "a" * after]
    else:
        assert len(said) == 2


def test_a_question_breaks_off_the_answer_before_it(window):
    async def conversation():
        window.control("Longest answer").value = 100
        window.say("One")
        for _ in range(3):
            await asyncio.sleep(0)
        window.say("Two")
        for _ in range(200):
            await asyncio.sleep(0)

    asyncio.run(conversation())

    assert window.said() == ["One", "aaa", "Two", "a" * 100]
    assert window.log.value.count("<b>you:</b>") == 2


def test_stop_is_heard_from_another_thread(window):
    """JupyterLab hands what a user does to several threads; one of them is writing."""

    async def conversation():
        window.assistant.set(max_new_tokens=100)
        window.control("Longest answer").value = 100
        window.say("Go on")
        for _ in range(3):
            await asyncio.sleep(0)
        other = threading.Thread(target=window.button("Stop").click)
        other.start()
        other.join()
        for _ in range(200):
            await asyncio.sleep(0)

    asyncio.run(conversation())
    question, answer = window.said()
    assert question == "Go on" and 3 <= len(answer) < 10

    # The thread that wrote has ended: the next one goes on.
    window.control("Longest answer").value = 2
    window.say("And?")
    assert window.said()[2:] == ["And?", "aa"]


def test_an_action_of_another_thread_waits_for_the_one_before_it(window):
    began = threading.Event()
    go_on = threading.Event()
    done = []

    def slowly():
        began.set()
        go_on.wait(10)
        done.append("first")

    chat = chat_replay._Chat(window.assistant, [])
    first = threading.Thread(target=chat.in_turn, args=[slowly])
    second = threading.Thread(target=chat.in_turn, args=[lambda: done.append("second")])
    first.start()
    began.wait(10)
    second.start()
    second.join(0.05)
    assert done == []

    go_on.set()
    first.join()
    second.join()
    assert done == ["first", "second"]


def test_an_answer_is_not_drawn_more_often_than_a_browser_can(window):
    drawn = []
    window.log.observe(lambda change: drawn.append(change["new"]), names="value")
    window.assistant.set(max_new_tokens=100)
    window.control("Longest answer").value = 100

    window.say("Go on")

    assert len(drawn) < 50
    assert "a" * 100 in drawn[-1]


IN_A_KERNEL = """
import sys
sys.path.insert(0, {tests!r})
from assistant_models import CHAT, chatterer
from courseware.widgets import chat_replay
from minigpt_lib.assistant import Assistant

assistant = Assistant(chatterer(max_seq_len=8192), CHAT, max_new_tokens=4000, strategy="greedy")
chat = chat_replay._Chat(assistant, [])
chat.settings["max_new_tokens"].value = 4000
chat.obey("Go on")
"""


@pytest.mark.slow
def test_a_real_kernel_hears_stop_while_an_answer_is_written():
    """Messages of the page are read between two pieces of an answer, as those of the next cell are."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(paths.ROOT))

    def run(code):
        shown = []

        def note(message):
            if message["msg_type"] == "stream":
                shown.append(message["content"]["text"])

        reply = client.execute_interactive(code, timeout=200, output_hook=note)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(shown)

    try:
        run(IN_A_KERNEL.format(tests=str(paths.ROOT / "tests")))
        run("import asyncio; await asyncio.sleep(0.5)")
        run("chat.stop()")
        shown = run(
            "import asyncio; await asyncio.sleep(0.1); print(len(assistant.messages[-1]['content']))"
        )
        run("chat.settings['max_new_tokens'].value = 3; chat.obey('And?')")
        last = run("await asyncio.sleep(1); print(assistant.messages[-1]['content'])")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    assert 0 < int(shown) < 4000
    assert last == "aaa\n"


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
