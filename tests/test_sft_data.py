"""Chapter 14: malformed dialogs are skipped and counted, and packing changes neither loss nor report."""

from __future__ import annotations

import json
import random

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sft_dialogs import CHATS, TALK, model_of

from courseware.material import people
from minigpt_lib.chat import FORMATS, fault_of
from minigpt_lib.sft import InstructionDataset, _pack, evaluate_dialogs, load_dialogs

# ---------------------------------------------------------------- loading


def test_malformed_dialogs_are_skipped_and_counted_by_reason(tmp_path):
    good = TALK[:3]
    question = {"role": "user", "content": "a"}
    answer = {"role": "assistant", "content": "b"}
    bad = [
        ([], "not a list of messages"),
        ("Is it late?", "not a list of messages"),
        (None, "not a list of messages"),
        ([question], "no turn of the assistant"),
        ([question, question], "two turns of the user in a row"),
        ([question | {"content": ""}, answer], "an empty message"),
        ([question | {"role": "human"}, answer], "an unknown role"),
        ([{"role": "user"}, answer], "a message without role and content"),
    ]
    rows = [*good, *(messages for messages, _ in bad)]
    lines = [json.dumps({"messages": messages, "source": "x"}) for messages in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")

    dialogs, report = load_dialogs(tmp_path)

    assert dialogs == good
    assert report["kept"] == 3
    assert report["rows"] == 3 + len(bad)
    for _, fault in bad:
        assert report[fault] == sum(other == fault for _, other in bad)
    assert sum(report.values()) == 2 * report["rows"]


def test_dialogs_are_read_from_parquet_with_the_columns_of_smoltalk(tmp_path):
    rows = [{"messages": dialog, "source": "smol-magpie-ultra"} for dialog in TALK[:7]]
    (tmp_path / "data").mkdir()
    pandas.DataFrame(rows).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")

    assert load_dialogs(tmp_path, limit=5)[0] == TALK[:5]
    assert load_dialogs(tmp_path)[1] == {"rows": 7, "kept": 7}


def test_the_courses_own_dialogs_have_no_faults():
    assert {fault_of(dialog) for dialog in people.small_talk()} == {None}
    assert {fault_of(dialog) for dialog in TALK} == {None}


# ---------------------------------------------------------------- packing


@settings(deadline=None, max_examples=25)
@given(
    chosen=st.lists(st.sampled_from(range(len(TALK))), min_size=1, max_size=9),
    room=st.integers(40, 128),
    name=st.sampled_from(sorted(FORMATS)),
)
def test_packing_changes_neither_the_loss_nor_the_report(chosen, room, name):
    dialogs = [TALK[i] for i in chosen]
    chat = CHATS[name]
    model = model_of(chat.vocab_size)

    try:
        packed = InstructionDataset(dialogs, chat, room)
    except ValueError as error:
        assert "no dialog is left" in str(error)
        return
    alone = InstructionDataset(dialogs, chat, room, packed=False)

    assert packed.report == alone.report
    assert packed.report["kept"] + packed.report["too long"] == len(dialogs)
    expected = evaluate_dialogs(model, alone, 3)
    assert evaluate_dialogs(model, packed, 2) == pytest.approx(expected, rel=1e-4)

    assert sorted(i for row in packed.rows for i in row) == list(range(len(packed.items)))
    assert all(sum(len(packed.items[i][0]) - 1 for i in row) <= room for row in packed.rows)
    for ids, labels in packed.items:  # a dialog that was cut ends with an answer or a whole turn
        assert (labels >= 0).any()
        assert len(ids) == len(labels) <= room + 1


@pytest.mark.slow
def test_a_hundred_thousand_dialogs_are_packed_with_less_than_one_percent_of_padding():
    generator = random.Random(0)
    sizes = [generator.randint(9, 399) for _ in range(100_000)]

    rows = _pack(sizes, 512)

    assert max(sum(sizes[i] for i in row) for row in rows) <= 512
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert len(rows) < 1.01 * sum(sizes) / 512
