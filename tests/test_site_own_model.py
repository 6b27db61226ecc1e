"""A reader's own model on the page: whole files are run, and broken, huge or foreign ones refused with the reason."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browser as browsers
import pytest
from web_pages import CHAT, MOUNT, model_of, page_of, site_of

from courseware.site.models import ship_models
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.chat import reply
from minigpt_lib.exports import export_hf, export_web
from minigpt_lib.model import GPTConfig, MiniGPT

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "web"
    export_web(model_of("llama"), CHAT, folder)
    return folder


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    """Open a page with nothing but the figure, on a site without models."""
    site = site_of(tmp_path_factory.mktemp("site") / "pages")
    ship_models(site / "_static" / "models", site / "nothing")
    with page_of(chromium, site) as opened:
        opened.evaluate(MOUNT, "talk")
        opened.locator("summary", has_text="Bring your own model").click()
        yield opened


def verdict(page, files: list[Any]) -> str:
    """Choose files, and return what the page says of them."""
    page.get_by_label("Your own model").set_input_files(files)
    page.wait_for_function(
        "/^(Refused|Your model is here)/.test(document.querySelector('[role=status]').textContent)"
    )
    said = page.get_by_role("status").inner_text()
    page.evaluate("document.querySelector('[role=status]').textContent = ''")
    return said


def file(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def test_a_readers_model_answers_as_in_python(page, exported):
    said = verdict(page, sorted(exported.iterdir()))  # README.md among them
    assert said.startswith("Your model is here: ") and "2 layers" in said

    page.get_by_label("Your question").fill("Who are you?")
    page.get_by_label("Your question").press("Enter")
    page.get_by_text("tokens in").wait_for()
    answer = page.locator(".talk-turn span").last.text_content()
    assert answer == reply(model_of("llama"), CHAT, [{"role": "user", "content": "Who are you?"}])


def test_a_model_that_was_not_taught_to_answer_goes_on_with_the_text(page, tmp_path):
    letters = CharTokenizer.from_text("To be, or not to be")
    export_web(MiniGPT(GPTConfig(letters.vocab_size, 32, 8, 1, 2)), letters, tmp_path / "web")
    assert "goes on with a text" in verdict(page, sorted((tmp_path / "web").iterdir()))

    page.get_by_label("Your question").fill("to be")
    page.get_by_label("Your question").press("Enter")
    page.get_by_text("wrote 27").wait_for()  # up to the 32 that it reads


def test_files_can_be_dropped(page, exported):
    page.evaluate(
        """([header, numbers]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([header], "model.json"));
            transfer.items.add(new File([new Uint8Array(numbers)], "model.bin"));
            const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
            document.querySelector(".twin").dispatchEvent(drop);
            if (!drop.defaultPrevented) throw new Error("the browser would leave the page");
        }""",
        [
            (exported / "model.json").read_text(encoding="utf-8"),
            list((exported / "model.bin").read_bytes()),
        ],
    )
    page.get_by_text("Your model is here").wait_for()
    page.evaluate("document.querySelector('[role=status]').textContent = ''")


def test_the_exported_folder_can_be_dropped(page, exported):
    box = page.locator(".twin").bounding_box()
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(exported)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"type": kind, "x": box["x"] + 20, "y": box["y"] + 20}
        session.send("Input.dispatchDragEvent", {**place, "data": data})
    session.detach()

    page.get_by_text("Your model is here").wait_for()
    page.evaluate("document.querySelector('[role=status]').textContent = ''")


def test_files_of_other_programs_are_refused_by_name(page, exported, tmp_path):
    export_hf(model_of("llama"), CHAT, tmp_path / "hf")
    numbers = exported / "model.bin"

    assert "is a safetensors file" in verdict(page, [tmp_path / "hf" / "model.safetensors"])
    assert "is a GGUF file" in verdict(page, [file("m.gguf", b"GGUF" + bytes(40))])
    assert "is a PyTorch checkpoint" in verdict(page, [file("state.pt", b"PK\x03\x04" + bytes(40))])
    said = verdict(page, [tmp_path / "hf" / "tokenizer.json", numbers])
    assert 'the format is nothing: expected "minigpt-web 1"' in said
    assert "python -m minigpt_lib.exports web" in said


def test_missing_files_are_named(page, exported):
    header, numbers = exported / "model.json", exported / "model.bin"

    assert "expected two files" in verdict(page, [header])
    assert "got model.bin" in verdict(page, [numbers])
    assert "got photo.jpg" in verdict(page, [file("photo.jpg", b"\xff\xd8\xff")])


def test_a_huge_file_is_refused_before_it_is_read(page):
    said = page.evaluate(
        """async () => {
            const { chooseFiles } = await import("/_static/live/reading.js");
            const read = () => { throw new Error("it was read"); };
            const huge = (name, size) => ({ name, size, slice: read, arrayBuffer: read, text: read });
            const tried = (...files) => chooseFiles(files).catch((error) => error.message);
            return [await tried(huge("model.json", 65e6), huge("model.bin", 1)),
                    await tried(huge("model.json", 1), huge("model.bin", 5e9))];
        }"""
    )
    assert "model.json has 65 MB: a header has at most 64 MB" in said[0]
    assert "model.bin has 5000 MB: this page takes at most 600 MB" in said[1]


def nothing(numbers: bytes) -> bytes:
    return numbers


def with_nan(numbers: bytes) -> bytes:
    return numbers[:400] + struct.pack("<f", float("nan")) + numbers[404:]


def moved(header: dict[str, Any]) -> None:
    header["tensors"]["norm.weight"]["offset"] += 2


Break = Callable[[dict[str, Any]], Any]
BROKEN: dict[str, tuple[Break, Callable[[bytes], bytes], str]] = {
    "cut off": (lambda h: None, lambda n: n[:-8], "was cut off"),
    "empty": (lambda h: None, lambda n: b"", "model.bin ends after 0 bytes"),
    "not a number": (lambda h: None, with_nan, "not finite"),
    "another version": (lambda h: h.update(format="minigpt-web 2"), nothing, "minigpt-web 2"),
    "no config": (lambda h: h.pop("config"), nothing, "has no config"),
    "layers": (lambda h: h["config"].update(n_layer=3), nothing, "blocks.2"),
    "endless": (lambda h: h["config"].update(n_layer=1e308), nothing, "n_layer is"),
    "text for a size": (lambda h: h["config"].update(n_embd="64"), nothing, 'n_embd is "64"'),
    "heads": (lambda h: h["config"].update(n_kv_head=3), nothing, "can't share 3 key heads"),
    "attention": (lambda h: h["config"].update(attention="window_8"), nothing, '"window_8"'),
    "activation": (lambda h: h["config"].update(ffn="constructor"), nothing, "this page can run"),
    "shape": (lambda h: h["tensors"]["norm.weight"].update(shape=[65]), nothing, "shape [65]"),
    "extra tensor": (lambda h: h["tensors"].update(x={}), nothing, 'a tensor "x"'),
    "missing tensor": (lambda h: h["tensors"].pop("head.weight"), nothing, "no head.weight"),
    "misaligned": (moved, nothing, "a multiple of 4"),
    "negative": (lambda h: h["tensors"]["norm.weight"].update(offset=-4), nothing, "at -4"),
    "half precision": (
        lambda h: h["tensors"]["norm.weight"].update(dtype="float16"),
        nothing,
        '"float16"',
    ),
    "no angles": (lambda h: h.pop("frequencies"), nothing, "8 frequencies"),
    "short vocabulary": (lambda h: h["tokenizer"]["tokens"].pop(), nothing, "don't belong"),
    "wide token": (
        lambda h: h["tokenizer"]["tokens"].__setitem__(0, "€"),
        nothing,
        "not made of bytes",
    ),
    "special id": (
        lambda h: h["tokenizer"]["special"].update({"<|x|>": 9999}),
        nothing,
        "the model doesn't know",
    ),
    "pattern": (lambda h: h["tokenizer"].update(pattern="(?P<x>"), nothing, "no regular"),
    "unknown": (lambda h: h["tokenizer"].update(unk="toString"), nothing, "unknown bytes"),
    "chat": (lambda h: h["chat"].update(end="<|nowhere|>"), nothing, "chat format's end"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_model_is_refused_with_the_reason(fault, page, exported):
    spoil, cut, reason = BROKEN[fault]
    header = copy.deepcopy(json.loads((exported / "model.json").read_text(encoding="utf-8")))
    spoil(header)
    numbers = cut((exported / "model.bin").read_bytes())

    text = json.dumps(header).encode()
    said = verdict(page, [file("model.json", text), file("model.bin", numbers)])
    assert said.startswith("Refused: ") and reason in said, said


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"3", b'{"format": {}}', b"\xff\xfe"])
def test_text_that_is_no_header_is_refused(text, page):
    said = verdict(page, [file("model.json", text), file("model.bin", bytes(8))])
    assert "is not JSON" in said or "the format is" in said


def test_a_stopped_answer_does_not_cost_the_model_while_another_one_is_read(
    chromium, exported, tmp_path
):
    site = site_of(tmp_path / "site")
    ship_models(site / "_static" / "models", site / "nothing")
    with page_of(chromium, site) as page:
        page.evaluate(MOUNT, "talk")
        page.locator("summary", has_text="Bring your own model").click()
        verdict(page, sorted(exported.iterdir()))
        page.evaluate(
            """() => {
                const [stop] = [...document.querySelectorAll("button")].filter((one) => one.textContent === "Stop");
                const press = () => stop.hidden || stop.click();
                new MutationObserver(press).observe(stop, { attributes: true });
            }"""
        )  # at once: an answer can be shorter than a click
        page.get_by_label("Your question").fill("Who are you?")
        page.get_by_label("Your question").press("Enter")
        page.get_by_text("tokens in").wait_for()

        held = browsers.hold_the_first(page, "worker.js")
        page.get_by_label("Your own model").set_input_files(
            [file("model.gguf", b"GGUF" + bytes(12))]
        )
        page.get_by_text("Reading your model").wait_for()
        page.wait_for_timeout(3200)  # longer than Stop waits for a model that does not hear
        browsers.let_go(page, held, "worker.js")
        page.wait_for_selector(".twin-error")

        page.get_by_label("Your question").fill("Who are you?")
        page.get_by_label("Your question").press("Enter")
        page.get_by_text("tokens in").wait_for()
