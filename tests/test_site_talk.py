"""Talking with a model on the page: the shipped one, and a site that has none."""

from __future__ import annotations

import json
from pathlib import Path

import browser as browsers
import pytest
from web_pages import CHAT, MOUNT, model_of, page_of, site_of

from courseware.site.models import ship_models
from minigpt_lib.assistant import fit_history
from minigpt_lib.chat import reply
from minigpt_lib.exports import export_web

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def shipped(tmp_path) -> Path:
    """Return a folder with the site's scripts and a small assistant, as a built site has them."""
    export_web(model_of("llama"), CHAT, tmp_path / "assistant")
    site = site_of(tmp_path / "site", assistant=tmp_path / "assistant")
    about = {"bytes": 1_234_567, "examples": ["Who <b>are</b> you?", "To be?"], "context": 224}
    index = json.dumps({"assistant": about})
    (site / "_static" / "models" / "index.json").write_text(index, encoding="utf-8")
    return site


def test_a_question_is_answered_as_in_python_and_the_turn_is_remembered(chromium, shipped):
    model = model_of("llama")
    with page_of(chromium, shipped) as page:
        page.evaluate(MOUNT, "talk")
        talk = page.locator(".twin")
        loaded = []
        page.on("request", lambda asked: loaded.append(asked.url.rpartition("/")[2]))
        page.wait_for_timeout(300)
        assert "model.bin" not in loaded, "a model loads when it is first used"

        talk.get_by_role("button", name="Who <b>are</b> you?").click()
        talk.get_by_text("tokens in").wait_for()
        talk.get_by_label("Your question").fill("Why?")
        talk.get_by_label("Your question").press("Enter")
        page.wait_for_function("document.querySelectorAll('.talk-turn').length === 4")
        page.wait_for_function("!document.querySelector('button[type=submit]').disabled")
        turns = talk.locator(".talk-turn span").all_text_contents()
        assert loaded.count("model.bin") == 1

    messages = [{"role": "user", "content": "Who <b>are</b> you?"}]
    first = reply(model, CHAT, messages)
    assert first.strip(), "the second turn needs an answer before it"
    messages += [
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Why?"},
    ]
    read = fit_history(messages, CHAT, 224 - 64)  # room for the longest answer
    assert turns == [messages[0]["content"], first, "Why?", reply(model, CHAT, read)]


def test_the_button_that_asked_has_the_focus_when_the_answer_is_there(chromium, shipped):
    with page_of(chromium, shipped) as page:
        page.evaluate(MOUNT, "talk")
        page.get_by_label("Your question").fill("Why?")
        page.locator("button[type=submit]").focus()
        page.keyboard.press("Enter")
        page.get_by_text("tokens in").wait_for()
        page.wait_for_function("!document.querySelector('button[type=submit]').disabled")
        assert page.evaluate("document.activeElement.type") == "submit"


def set_temperature(page, value: float, seed: int) -> None:
    """Move the slider, as a reader does with the keyboard, and write the seed."""
    page.locator("summary", has_text="Temperature").click()
    slider = page.get_by_label("Temperature")
    for _ in range(round(10 * value)):
        slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == f"{value:.1f}"
    page.get_by_label("Seed").fill(str(seed))


def answer_of(page, question: str) -> str:
    """Ask, and return the answer when it is complete."""
    page.get_by_label("Your question").fill(question)
    page.get_by_label("Your question").press("Enter")
    page.wait_for_function("!document.querySelector('button[type=submit]').disabled")
    return page.locator(".talk-turn span").last.text_content()


def test_drawn_answers_are_the_same_for_the_same_seed(chromium, shipped):
    answers = []
    for seed in (7, 7, 8):
        with page_of(chromium, shipped) as page:
            page.evaluate(MOUNT, "talk")
            set_temperature(page, 1.2, seed)
            answers.append(answer_of(page, "Who are you?"))

    assert answers[0] == answers[1]
    assert answers[0] != answers[2]
    greedy = reply(model_of("llama"), CHAT, [{"role": "user", "content": "Who are you?"}])
    assert greedy not in answers


def test_at_temperature_zero_there_is_no_seed_and_the_answer_is_pythons(chromium, shipped):
    with page_of(chromium, shipped) as page:
        page.evaluate(MOUNT, "talk")
        set_temperature(page, 0.1, 3)
        page.get_by_label("Temperature").press("Home")
        assert not page.get_by_label("Seed").is_visible()
        answer = answer_of(page, "Who are you?")

    assert answer == reply(model_of("llama"), CHAT, [{"role": "user", "content": "Who are you?"}])


def test_a_site_without_a_model_says_what_is_missing(chromium, tmp_path):
    site = site_of(tmp_path / "site")
    ship_models(site / "_static" / "models", tmp_path / "nothing")

    with page_of(chromium, site) as page:
        page.evaluate(MOUNT, "talk")
        status = page.locator(".twin").get_by_role("status")
        page.wait_for_function("document.querySelector('[role=status]').textContent")
        assert "built without a trained model" in status.inner_text()

        page.get_by_label("Your question").fill("Hello?")
        page.get_by_label("Your question").press("Enter")
        page.wait_for_selector(".twin-error")
        assert page.locator(".talk-turn").count() == 1, "no answer is made up"


def test_a_question_that_is_too_long_is_refused_in_words(chromium, shipped):
    with page_of(chromium, shipped) as page:
        page.evaluate(MOUNT, "talk")
        page.get_by_label("Your question").fill("x " * 900)
        page.get_by_label("Your question").press("Enter")
        page.wait_for_selector(".twin-error")
        assert "too long" in page.get_by_role("status").inner_text()


def test_a_late_list_of_models_does_not_take_back_a_refusal(chromium, tmp_path):
    site = site_of(tmp_path / "site")
    ship_models(site / "_static" / "models", tmp_path / "nothing")

    with page_of(chromium, site) as page:
        held = browsers.hold_the_first(page, "index.json")
        page.evaluate(MOUNT, "talk")
        page.locator("summary", has_text="Bring your own model").click()
        wrong = {"name": "model.gguf", "mimeType": "", "buffer": b"GGUF" + bytes(12)}
        page.get_by_label("Your own model").set_input_files([wrong])
        page.wait_for_selector(".twin-error")

        browsers.let_go(page, held, "index.json")
        assert page.get_by_role("status").inner_text().startswith("Refused: model.gguf")


def test_a_list_of_models_that_did_not_come_is_asked_for_again(chromium, shipped):
    with page_of(chromium, shipped) as page:
        page.evaluate(
            """() => {
                const real = window.fetch;
                window.fetch = () => Promise.reject(new Error("offline"));
                window.online = () => { window.fetch = real; };
            }"""
        )
        page.evaluate(MOUNT, "talk")
        page.get_by_label("Your question").fill("Why?")
        page.get_by_label("Your question").press("Enter")
        page.wait_for_selector(".twin-error")
        assert "did not come (offline)" in page.get_by_role("status").inner_text()

        page.evaluate("window.online()")
        page.get_by_label("Your question").fill("Why?")
        page.get_by_label("Your question").press("Enter")
        page.get_by_text("tokens in").wait_for()


def test_files_that_come_while_an_answer_is_written_can_be_chosen_again(
    chromium, shipped, tmp_path
):
    with page_of(chromium, shipped) as page:
        held = browsers.hold_the_first(page, "index.json")
        page.evaluate(MOUNT, "talk")
        page.locator("summary", has_text="Bring your own model").click()
        page.get_by_label("Your question").fill("Why?")
        page.get_by_label("Your question").press("Enter")
        page.locator(".talk-turn").first.wait_for()
        files = [tmp_path / "assistant" / name for name in ("model.json", "model.bin")]
        page.get_by_label("Your own model").set_input_files(files)
        page.get_by_text("One thing at a time").wait_for()

        browsers.let_go(page, held, "index.json")
        page.get_by_text("tokens in").wait_for()
        page.get_by_label("Your own model").set_input_files(files)
        page.get_by_text("Your model is here").wait_for()
