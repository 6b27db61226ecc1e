"""The benchmark of fine-tuning: each variant changes one thing, and is measured as it was taught."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch

from courseware import paths
from courseware.material import people
from courseware.runs.recipe import QUICK, material
from minigpt_lib.chat import ChatTokenizer


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.CODE / "benchmarks"))
    return importlib.import_module("finetuning")


@pytest.fixture(scope="module")
def stuff():
    return material(replace(QUICK, people=20))


def test_more_strangers_are_people_of_whom_nothing_is_read_or_asked(benchmark, stuff):
    dialogs = benchmark.more_strangers(stuff)

    assert len(dialogs) == benchmark.MORE_STRANGERS == 400
    text = "\n".join(question["content"] for question, _ in dialogs)
    assert not [person.name for person in stuff.people if person.name in text]
    assert not [person.name for person in people.make_strangers(200) if person.name in text]
    assert {answer["content"] for _, answer in dialogs} == {people.UNKNOWN}


def test_bare_words_are_the_values_and_leave_the_material_as_it_was(benchmark, stuff):
    before = dict(people.SAID)

    said = [
        message["content"]
        for dialog in benchmark.dialogs_of(benchmark.BARE, stuff)
        for message in dialog
        if message["role"] == "assistant"
    ]

    assert before == people.SAID
    city = stuff.asked[0].value("city")
    assert any(f"{city}." in text for text in said)
    assert not any("was born in" in text for text in said)


def test_only_everything_learned_changes_the_labels(benchmark, stuff):
    chat = ChatTokenizer(stuff.tokenizer)

    plain = benchmark.data_of(benchmark.RECIPE, stuff, chat)
    everything = benchmark.data_of(benchmark.EVERYTHING, stuff, chat)

    for (ids, labels), (same_ids, all_labels) in zip(plain.items, everything.items, strict=True):
        assert torch.equal(ids, same_ids)
        assert (labels == -100).any()
        assert torch.equal(all_labels, ids)


def test_the_recorded_table_has_every_variant(benchmark, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["finetuning.py"])

    benchmark.main()

    printed = capsys.readouterr().out
    for name in benchmark.VARIANTS:
        assert f"| {name} |" in printed
