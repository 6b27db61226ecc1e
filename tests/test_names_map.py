"""Chapter 19: the map of names leads every number where the library puts it, and its twin draws the same."""

from __future__ import annotations

import pytest
import torch
from tools import in_node

from courseware.widgets.names_map import describe, draw, map_data, names_map
from minigpt_lib.families import parts
from minigpt_lib.model import GPTConfig, MiniGPT

TOY = {"n_embd": 12, "n_layer": 1, "n_head": 2, "ffn_hidden": 16}
LLAMA = GPTConfig(10, 8, **TOY, n_kv_head=1, position="rope", norm="rms", ffn="swiglu", bias=False)
GPT2 = GPTConfig(10, 8, **TOY, position="learned", norm="layer", ffn="gelu_tanh", bias=True)
FORMS = [(LLAMA, "gguf"), (LLAMA, "hf"), (GPT2, "hf")]


@pytest.fixture(scope="module")
def data():
    return map_data()


@pytest.mark.parametrize("form", range(3))
def test_every_row_goes_where_the_library_reads_it(data, form):
    config, style = FORMS[form]
    torch.manual_seed(0)
    ours = {name: torch.randn_like(value) for name, value in MiniGPT(config).state_dict().items()}
    sheets = data["forms"][form]["parts"]

    published = parts(config, style)
    assert [sheet["name"] for sheet in sheets] == [part.name for part in published]
    for part, sheet in zip(published, sheets, strict=True):
        theirs = part.to_theirs(ours[part.ours])
        assert list(theirs.shape) == sheet["shape"]
        assert list(ours[part.ours].shape) == sheet["whole"]

        rows = theirs.T if sheet["transposed"] else theirs
        held = ours[part.ours][sheet["first"] : sheet["first"] + len(sheet["order"])]
        assert torch.equal(rows[sheet["order"]], held), sheet["name"]


def test_the_rows_of_all_parts_fill_ours(data):
    for form in data["forms"]:
        filled = {}
        for sheet in form["parts"]:
            rows = range(sheet["first"], sheet["first"] + len(sheet["order"]))
            filled.setdefault(sheet["ours"], []).extend(rows)
            assert filled[sheet["ours"]][-1] < sheet["whole"][0]
        wholes = {sheet["ours"]: sheet["whole"][0] for sheet in form["parts"]}
        assert filled == {name: list(range(n)) for name, n in wholes.items()}


def test_the_sentences_tell_the_three_orders(data):
    assert describe(data, 0, 4, 1) == [
        "blk.0.attn_k.weight, 6 × 12, holds rows 12 to 17 of 24: blocks.0.attention.qkv.weight, 24 × 12.",
        "1 head of 6 rows: in theirs, the two rows of a pair are neighbours; in ours they are half a head apart.",
        "Their row 2 is our row 13.",
    ]
    assert describe(data, 1, 3, 1)[1:] == [
        "The rows are in the same order.",
        "Their row 1 is our row 1.",
    ]
    names = [sheet["name"] for sheet in data["forms"][2]["parts"]]
    fused = names.index("transformer.h.0.attn.c_attn.weight")
    assert describe(data, 2, fused, 35) == [
        "transformer.h.0.attn.c_attn.weight, 12 × 36, holds all of it: blocks.0.attention.qkv.weight, 36 × 12.",
        "It is transposed: its columns are our rows.",
        "Their column 35 is our row 35.",
    ]


def test_the_twin_draws_and_describes_the_same_as_the_widget(data):
    states = [
        {"form": i, "part": j, "row": row}
        for i, form in enumerate(data["forms"])
        for j, sheet in enumerate(form["parts"])
        for row in range(len(sheet["order"]))
    ]
    call = "data.states.map((s) => [m.describe(data.map, s), m.draw(data.map, s)])"

    theirs = in_node("names-map.js", call, {"map": data, "states": states})

    assert theirs == [[describe(data, **s), draw(data, **s)] for s in states]


def test_the_widget_follows_its_controls(data):
    form, part, row, view = names_map(data).children
    assert "Their row 2 is our row 1." in view.value

    row.value = 11
    part.value = 4
    assert row.value == 5, "a shorter tensor has fewer rows"
    assert "Their row 5 is our row 17." in view.value

    form.value = 2
    part.value = 15
    assert "transformer.ln_f.bias" in view.value
    form.value = 0
    assert part.value == 10, "a format with fewer tensors"
    assert "output_norm.weight" in view.value
