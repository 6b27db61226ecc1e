"""Chapter 23: the map of a GGUF file says what gguf's own reader says, and its twin draws the same."""

from __future__ import annotations

import json

import gguf
import pytest
from tools import in_node

from courseware.checks.conversations import tiny
from courseware.widgets.gguf_map import SECTIONS, describe, draw, gguf_data, gguf_map
from minigpt_lib.bpe import train_bpe
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.exports import export_gguf

KINDS = ("f32", "f16", "q8_0")
LLAMA = {"position": "rope", "norm": "rms", "ffn": "swiglu", "bias": False, "n_kv_head": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a small Llama in a file of each kind, and what the map says of it."""
    tokenizer = ChatTokenizer(train_bpe("to be or not to be", 262, ["<|endoftext|>"]))
    model = tiny(vocab_size=tokenizer.vocab_size, n_embd=32, n_head=2, ffn_hidden=64, **LLAMA)
    folder = tmp_path_factory.mktemp("gguf")
    found = {}
    for kind in KINDS:
        export_gguf(model, tokenizer, folder / f"{kind}.gguf", kind)
        found[kind] = folder / f"{kind}.gguf", gguf_data(folder / f"{kind}.gguf")
    return found


def pieces_of(data, section):
    return [piece for piece in data["pieces"] if piece["section"] == SECTIONS.index(section)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_are_the_whole_file_without_a_gap(files, kind):
    file, data = files[kind]
    place = 0

    for piece in data["pieces"]:
        assert piece["start"] == place, piece["title"]
        place += sum(field["size"] for field in piece["fields"])

    assert place == data["size"] == file.stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_the_bytes_of_the_file(files, kind):
    file, data = files[kind]
    content = file.read_bytes()

    for piece in data["pieces"]:
        place = piece["start"]
        for field in piece["fields"]:
            shown = content[place : place + min(field["size"], 24)].hex(" ")
            assert field["hex"].removesuffix(" …") == shown
            assert field["hex"].endswith("…") == (field["size"] > 24)
            place += field["size"]


@pytest.mark.parametrize("kind", KINDS)
def test_facts_and_tensors_are_those_of_gguf(files, kind):
    file, data = files[kind]
    reader = gguf.GGUFReader(file)

    facts = [name for name in reader.fields if not name.startswith("GGUF.")]
    assert [p["title"] for p in pieces_of(data, "facts")] == [f"the fact {name}" for name in facts]
    for name, piece in zip(facts, pieces_of(data, "facts"), strict=True):
        value = reader.fields[name].contents()
        last = piece["fields"][-1]["what"]
        if isinstance(value, list):
            assert last == f"{len(value) - 3} more entries" or len(value) <= 3
        elif isinstance(value, str):
            assert last == f"the value: {value if len(value) <= 40 else value[:40] + '…'}"
        else:
            assert float(last.split(": ")[1].replace("True", "1").replace("False", "0")) == (
                pytest.approx(float(value))
            )

    entries = [piece["title"] for piece in pieces_of(data, "tensors")]
    assert entries == [f"an entry for {tensor.name}" for tensor in reader.tensors]
    for tensor, piece in zip(reader.tensors, pieces_of(data, "numbers"), strict=True):
        assert piece["title"] == f"the numbers of {tensor.name}, {tensor.tensor_type.name}"
        assert piece["start"] == tensor.data_offset
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).flatten()[:3]
        said = [float(field["what"].split(": ")[1]) for field in piece["fields"][:-1]]
        if tensor.tensor_type.name == "Q8_0":
            factor, *said = said
            said = [factor * code for code in said]
        assert said == pytest.approx(numbers.tolist(), rel=1e-3)


def test_the_sentence_counts_pieces_and_bytes(files):
    _, data = files["q8_0"]

    assert describe(data, 0) == (
        f"Piece 1 of {len(data['pieces'])}, bytes 0 to 23 of {data['size']:,}: the head of the file."
    )
    assert "four letters: GGUF" in draw(data, 0)
    assert "47 47 55 46" in draw(data, 0)


def test_the_data_of_a_page_stay_small(files):
    _, data = files["q8_0"]
    assert len(json.dumps(data)) < 40_000


@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_draws_and_describes_the_same_as_the_widget(files, kind):
    _, data = files[kind]
    call = "data.pieces.map((_, i) => [m.describe(data, i), m.draw(data, i)])"

    theirs = in_node("gguf-map.js", call, data)

    assert theirs == [[describe(data, i), draw(data, i)] for i in range(len(data["pieces"]))]


def test_text_from_the_file_is_escaped(files):
    _, data = files["f32"]
    template = next(piece for piece in data["pieces"] if "chat_template" in piece["title"])
    template["fields"][-1]["what"] = "<b>'&\"</b>"
    place = data["pieces"].index(template)

    assert "<b>'" not in draw(data, place)
    call = "m.draw(data.map, data.at)"
    assert in_node("gguf-map.js", call, {"map": data, "at": place}) == draw(data, place)


def test_the_widget_follows_its_controls(files):
    _, data = files["q8_0"]
    piece, buttons, view = gguf_map(data).children
    before, after = buttons.children
    assert "the head of the file" in view.value

    after.click()
    assert piece.value == 1
    assert "the fact general.architecture" in view.value
    before.click()
    before.click()
    assert piece.value == 0, "there is nothing before the head"

    piece.value = len(data["pieces"]) - 1
    after.click()
    assert piece.value == len(data["pieces"]) - 1
    assert "the numbers of" in view.value
