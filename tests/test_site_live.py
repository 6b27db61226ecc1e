"""The live figures show what the library computes for the reader's own text, and load nothing before they are asked."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import browser as browsers
import pytest
import torch
from web_pages import CHAT, MOUNT, model_of, page_of, site_of

from courseware import paths
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.exports import export_web
from minigpt_lib.model import GPTConfig, MiniGPT

pytestmark = [pytest.mark.slow, pytest.mark.browser]

LETTERS = CharTokenizer("abeorTtn ,")
FIGURES = ("live-tokens", "live-attention", "live-next")
MOST_FIRST_LOAD = 1.5e6  # bytes


def small_writer() -> MiniGPT:
    torch.manual_seed(2)
    return MiniGPT(GPTConfig(LETTERS.vocab_size, 64, 16, 1, 2)).eval()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("live")
    export_web(model_of("llama"), CHAT, home / "assistant")
    export_web(small_writer(), LETTERS, home / "shakespeare")
    folder = site_of(home / "site", assistant=home / "assistant", shakespeare=home / "shakespeare")
    about = {name: {"bytes": 1, "examples": []} for name in ("assistant", "shakespeare")}
    index = folder / "_static" / "models" / "index.json"
    index.write_text(json.dumps(about), encoding="utf-8")
    return folder


@pytest.fixture
def figure(chromium, site):
    """Return a function that mounts a figure on an empty page."""
    with page_of(chromium, site) as page:

        def mount(name):
            page.evaluate(MOUNT, name)
            return page

        yield mount


def asked(page, text: str, button: str) -> str:
    """Ask about a text; return what the page says when it is done."""
    page.locator("form input[type=text]").fill(text)
    page.get_by_role("button", name=button, exact=True).click()
    page.wait_for_function("!document.querySelector('button[type=submit]').disabled")
    return page.get_by_role("status").first.inner_text()


def test_the_tokens_are_the_tokenizers_and_the_slider_undoes_their_merges(figure):
    page = figure("live-tokens")
    text = "To be, or not café"
    ids = CHAT.encode(text)

    said = asked(page, text, "Cut it")
    assert page.locator(".token small").all_inner_texts() == [str(i) for i in ids]
    n_bytes = len(text.encode())
    assert said.startswith(
        f"{len(text)} characters are {n_bytes} bytes; {n_bytes - len(ids)} merges"
    )

    page.get_by_label("Merges").press("Home")
    assert page.locator(".token").count() == n_bytes
    page.get_by_label("Merges").press("ArrowRight")
    assert page.locator(".token").count() == n_bytes - 1
    assert "\\xc3" in page.locator(".token b").all_inner_texts()


def test_the_attention_is_that_of_the_model_for_the_sentence(figure):
    page = figure("live-attention")
    text = "To be, or not to be"
    asked(page, text, "Look")
    page.get_by_label("Layer").select_option("1")
    page.get_by_label("Head", exact=True).select_option("2")
    found = [float(box) for box in page.locator(".twin-boxes span").evaluate_all(
        "boxes => boxes.map((box) => box.title)"
    )]  # fmt: skip

    model = model_of("llama")
    with torch.inference_mode():
        x, rotary = model._embed(torch.tensor([CHAT.encode(text)]), None, 0)
        x = model.blocks[0](x, rotary=rotary)
        block = model.blocks[1]
        expected = block.attention.weights(block.norm1(x), rotary=rotary)[0, 2, -1]
    assert torch.tensor(found).sub(expected).abs().max() < 6e-4  # shown with three decimals


def test_the_next_characters_are_the_models_and_writing_goes_on(figure):
    page = figure("live-next")
    model = small_writer()
    asked(page, "to be", "Show")
    with torch.inference_mode():
        logits = model(torch.tensor([LETTERS.encode("to be")]))[0][0, -1]
    best = logits.softmax(-1).max().item()
    assert f"{100 * best:.1f} %" in page.locator(".bars [role=listitem]").first.inner_text()

    for n in (6, 7):
        page.get_by_role("button", name="Draw one and go on").click()
        page.wait_for_function(
            f"document.querySelector('form input').value.length === {n} "
            "&& !document.querySelector('button[type=submit]').disabled"
        )
    assert set(page.locator("form input[type=text]").input_value()) <= set(LETTERS.alphabet)


def test_what_may_follow_an_old_text_is_not_written_after_a_new_one(figure):
    page = figure("live-next")
    field = page.locator("form input[type=text]")
    draw = page.get_by_role("button", name="Draw one and go on")
    held = browsers.hold_the_first(page, "index.json")
    field.fill("to be")
    page.get_by_role("button", name="Show", exact=True).click()
    page.get_by_text("One moment").wait_for()
    field.fill("not to")

    browsers.let_go(page, held, "index.json")
    page.get_by_text("expects after “to be”").wait_for()
    assert draw.is_disabled()

    asked(page, "not to", "Show")
    assert draw.is_enabled()


@pytest.mark.parametrize(
    "name, button", [("live-tokens", "Cut it"), ("live-attention", "Look"), ("live-next", "Show")]
)
def test_what_a_model_cannot_read_is_said_in_words(name, button, figure):
    page = figure(name)
    said = asked(page, "" if name != "live-next" else "xyz", button)
    if name == "live-tokens":
        assert said.startswith("0 characters")
    else:
        assert page.locator(".twin-error").count() == 1
        assert "expected some text" in said or "can't write" in said


NAMES = {"live-tokens": "Cut it", "live-attention": "Look", "live-next": "Show"}
AROUND = """() => {
  document.querySelector("main").before(Object.assign(document.createElement("button"), { id: "before" }));
  document.querySelector("main").after(Object.assign(document.createElement("button"), { id: "after" }));
}"""


def passes_through(page, key: str, start: str, end: str) -> int:
    """Press a key, from one element to the other; return how many stops lie between them."""
    page.locator(start).focus()
    for stops in range(30):
        page.keyboard.press(key)
        if page.evaluate("(end) => document.activeElement?.matches(end)", end):
            return stops
    raise AssertionError(f"{key} did not lead from {start} to {end}")


@pytest.mark.parametrize("name", FIGURES)
def test_tab_passes_through_a_figure_before_and_after_its_answer(name, figure):
    page = figure(name)
    page.evaluate(AROUND)
    before = passes_through(page, "Tab", "#before", "#after")
    assert before == passes_through(page, "Shift+Tab", "#after", "#before") >= 2

    asked(page, "to be", NAMES[name])
    after = passes_through(page, "Tab", "#before", "#after")
    assert after == passes_through(page, "Shift+Tab", "#after", "#before") > before


@pytest.mark.parametrize("name", FIGURES)
def test_the_button_that_asked_has_the_focus_when_the_answer_is_there(name, figure):
    page = figure(name)
    page.locator("form input[type=text]").fill("to be")
    button = page.get_by_role("button", name=NAMES[name], exact=True)
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("!document.querySelector('button[type=submit]').disabled")

    assert button.evaluate("(button) => button === document.activeElement")


def test_nothing_loads_before_it_is_asked_for(chromium, site):
    with page_of(chromium, site) as page:
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        for name in FIGURES:
            page.evaluate(MOUNT, name)
        page.wait_for_timeout(300)

    assert not [url for url in requests if "/models/" in url or "worker" in url]


# ---------------------------------------------------------------- the weight of the built pages


def test_the_first_load_of_every_chapter_is_light(chromium, address):
    """Without models and fonts, compressed as any web server sends them."""
    sent: dict[str, int] = {}
    packed: dict[str, int] = {}  # files that all pages share are compressed once
    context = chromium.new_context()
    print(f"\n{'chapter':24} {'stored':>8} {'sent':>8}")

    for notebook in sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb")):
        page = context.new_page()
        answers: list[Any] = []
        page.on("response", lambda answer, found=answers: found.append(answer))
        page.goto(f"{address}notebooks/{notebook.stem}.html")
        page.wait_for_selector("html[data-ready]")

        stored = 0
        total = 0
        for answer in answers:
            if answer.request.resource_type == "font":
                continue
            if answer.url not in packed:
                packed[answer.url] = len(gzip.compress(answer.body()))
            total += packed[answer.url]
            stored += int(answer.headers["content-length"])
        page.close()
        sent[notebook.stem] = total
        print(f"{notebook.stem:24} {stored / 1e6:5.2f} MB {total / 1e6:5.2f} MB")

    context.close()
    assert not {name: size for name, size in sent.items() if size > MOST_FIRST_LOAD}
