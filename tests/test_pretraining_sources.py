"""Chapter 13: texts of any size and shape are prepared, and those that cannot be are named, by file and row."""

from __future__ import annotations

import dataclasses
import json
import os

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pretraining_texts import SMALL, documents_of, words
from pyarrow import parquet

from courseware.checks.refusals import refused
from minigpt_lib import sources
from minigpt_lib.documents import is_validation, prepare
from minigpt_lib.packing import PackedTokens
from minigpt_lib.sources import stream_documents

needs_links = pytest.mark.skipif(
    not hasattr(os, "symlink"), reason="only where files can be linked"
)


def texts_of(source):
    return [row["text"] for row in stream_documents(source)]


def prepared(source, folder, **changes):
    """Prepare a source with small settings, and return the ids of its documents by part."""
    prepare(source, folder, dataclasses.replace(SMALL, **changes), progress=False)
    return {part: [row["id"] for row in documents_of(folder, part)] for part in ("train", "val")}


# ---------------------------------------------------------------- small texts

PROSE = "\n\n".join(words(400, seed=4))


@pytest.mark.parametrize(
    "files",
    [
        {"a.txt": PROSE[:10_000], "b.txt": PROSE[10_000:20_000], "c.txt": PROSE[20_000:30_000]},
        {"a.txt": PROSE[:15_000]},
        {"a.txt": PROSE[:3000]},
        {"lines.txt": PROSE[:3000].replace("\n\n", "\n")},
        {"one-paragraph.txt": PROSE[:3000].replace("\n\n", " ")},
        {"one-word.txt": "x" * 3000},
    ],
    ids=["three files", "one file", "three kilobytes", "no blank lines", "no lines", "no blanks"],
)
def test_a_small_text_has_documents_in_both_parts(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    parts = prepared(tmp_path, tmp_path / "out", val_fraction=0.1)

    assert len(parts["train"]) > len(parts["val"]) > 0
    assert len(PackedTokens(tmp_path / "out", "val")) > 1
    assert 9 <= len(parts["train"]) + len(parts["val"]) <= 30


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    texts=st.lists(st.sampled_from(words(20)), min_size=2, max_size=8, unique=True),
    fraction=st.sampled_from([0.0005, 0.1, 0.5, 0.9, 0.9995]),
)
def test_neither_part_is_ever_empty(tmp_path_factory, texts, fraction):
    home = tmp_path_factory.mktemp("few")
    lines = [json.dumps({"text": text, "id": f"document {text}"}) for text in texts]
    (home / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")

    parts = prepared(home / "x.jsonl", home / "out", val_fraction=fraction)

    assert parts["train"]
    assert parts["val"]
    assert sorted(parts["train"] + parts["val"]) == sorted(f"document {text}" for text in texts)
    by_hash = {i for i in parts["train"] + parts["val"] if is_validation(i, fraction)}
    if 0 < len(by_hash) < len(texts):
        assert set(parts["val"]) == by_hash
    else:
        assert 1 in (len(parts["train"]), len(parts["val"])), "only the nearest one is moved"


def test_the_tokenizer_of_a_small_text_is_not_trained_on_the_document_moved_to_validation(tmp_path):
    lines = [json.dumps({"text": letter * 50, "id": letter}) for letter in "abc"]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")

    parts = prepared(tmp_path / "x.jsonl", tmp_path / "out", val_fraction=0.0005)

    (moved,) = parts["val"]
    from minigpt_lib.bpe import BPETokenizer

    tokens = BPETokenizer.load(tmp_path / "out" / "tokenizer.json").ranks
    assert (moved * 2).encode() not in tokens
    assert all((letter * 2).encode() in tokens for letter in parts["train"])


def test_a_single_document_of_data_is_refused_with_advice(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "to be or not to be"}', encoding="utf-8")

    refused(
        ["x.jsonl", "only one document", ".txt"], prepared, tmp_path / "x.jsonl", tmp_path / "o"
    )


# ---------------------------------------------------------------- sources that are not there


@pytest.mark.parametrize("source", ["my_texts/", "./my_texts", "~/texts", "a/b/c", "texts.jsonl"])
def test_a_missing_folder_is_reported_without_asking_the_hub(monkeypatch, source):
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: pytest.fail("the hub was asked"))

    message = refused("there is no such file or folder", stream_documents, source, kind=OSError)

    assert message.startswith(f"{source}: there is no such file or folder")


def test_a_name_that_may_be_on_the_hub_is_first_said_not_to_be_a_folder(monkeypatch):
    def offline(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", offline)

    message = refused("cannot be reached", stream_documents, "my_texts", kind=ConnectionError)

    assert message.startswith("my_texts: there is no such file or folder here")


# ---------------------------------------------------------------- links


@needs_links
def test_linked_folders_and_files_are_read_and_a_circle_of_links_ends(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("linked", encoding="utf-8")
    home = tmp_path / "texts"
    home.mkdir()
    (home / "a.txt").write_text("here", encoding="utf-8")
    (home / "folder").symlink_to(tmp_path / "elsewhere")
    (home / "c.txt").symlink_to(tmp_path / "elsewhere" / "b.txt")
    (home / "again").symlink_to(home)

    assert texts_of(home) == ["here", "linked", "linked"]


@needs_links
def test_a_dangling_link_is_named_with_its_target(tmp_path):
    (tmp_path / "a.txt").write_text("here", encoding="utf-8")
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone.txt")

    refused(["b.txt is a link to", "gone.txt", "remove"], stream_documents, tmp_path, kind=OSError)


# ---------------------------------------------------------------- values


def test_texts_and_ids_of_a_csv_stay_what_they_are(tmp_path):
    rows = [("null", "NA"), ("NA", "007"), ("None", "1"), ("nan", ""), ("5", "2024-01-01")]
    lines = "".join(f"{text},{identity}\n" for text, identity in rows)
    (tmp_path / "x.csv").write_text("text,id\n" + lines, encoding="utf-8")

    assert [(row["text"], row["id"]) for row in stream_documents(tmp_path / "x.csv")] == rows
    parts = prepared(tmp_path / "x.csv", tmp_path / "out")
    found = parts["train"] + parts["val"]
    assert {"NA", "007", "1", "2024-01-01"} < set(found)
    assert len(found) == 5


def test_scores_of_a_csv_are_numbers_and_long_fields_are_read(tmp_path):
    (tmp_path / "x.csv").write_text(
        f"text,score\n{'y' * 200_000},3.5\nb,1\nc,\nd,9\n", encoding="utf-8"
    )

    assert [row["score"] for row in stream_documents(tmp_path / "x.csv")] == [3.5, 1.0, None, 9.0]
    parts = prepared(tmp_path / "x.csv", tmp_path / "out", min_score=2.0)
    assert len(parts["train"] + parts["val"]) == 2


def test_another_text_column_is_read(tmp_path):
    rows = [{"content": f"document {i}", "text": 5} for i in range(20)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    parts = prepared(tmp_path / "x.jsonl", tmp_path / "out", text_column="content")

    assert len(parts["train"] + parts["val"]) == 20
    words = ["text_column is 'content' there and 'text' here"]
    refused(words, prepared, tmp_path / "x.jsonl", tmp_path / "out")


# ---------------------------------------------------------------- faults, by file and row


def save(path, **columns):
    parquet.write_table(pyarrow.table(columns), path)


def test_files_of_different_schemas_are_read_if_they_have_the_text(tmp_path):
    save(tmp_path / "a.parquet", text=["one"] * 10, id=list(range(10)))
    save(tmp_path / "b.parquet", url=["u"] * 10, text=["two"] * 10, id=[f"b{i}" for i in range(10)])

    parts = prepared(tmp_path, tmp_path / "out")

    assert len(parts["train"] + parts["val"]) == 20


def test_a_file_without_the_text_is_named_with_its_columns(tmp_path):
    save(tmp_path / "a.parquet", text=["one", "two"])
    save(tmp_path / "b.parquet", content=["three"])

    words = ["b.parquet, row 1", "no column 'text', only content"]
    refused(words, prepared, tmp_path, tmp_path / "out")


def test_a_column_that_changes_its_type_is_named_with_its_file(tmp_path):
    save(tmp_path / "a.parquet", text=["one", "two"])
    save(tmp_path / "b.parquet", text=[3, 4])

    refused(["b.parquet, row 1", "text is 3, expected a str"], prepared, tmp_path, tmp_path / "out")


def test_a_nul_byte_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"to be\0or not to be")

    message = refused(["a.txt", "NUL byte"], prepared, tmp_path, tmp_path / "out")

    assert "cp1252" not in message


@pytest.mark.parametrize("item", ["1", "null", '"a text"', '["text"]'])
def test_an_item_of_a_json_list_that_is_no_object_is_named_by_file_and_row(tmp_path, item):
    (tmp_path / "a.json").write_text(f'[{{"text": "one"}},\n{item}]', encoding="utf-8")

    words = ["a.json", "row 2", "is no object", "expected a list of objects"]
    refused(words, prepared, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_brackets_without_end_are_named_by_their_file(tmp_path, name):
    (tmp_path / name).write_text("[" * 100_000, encoding="utf-8")

    refused([name, "cannot be read", "recursion"], prepared, tmp_path, tmp_path / "out")


def test_half_of_a_surrogate_pair_in_an_id_is_named_by_file_and_row(tmp_path):
    rows = '{"text": "one", "id": "1"}\n{"text": "two", "id": "\\udc00"}\n'
    (tmp_path / "a.jsonl").write_text(rows, encoding="utf-8")

    words = ["a.jsonl, row 2", "half of a surrogate pair"]
    refused(words, prepared, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "reason"),
    [('{"text": "b', "Unterminated string"), ("[1]", "is no object"), ("b", "Expecting value")],
)
def test_a_broken_json_line_is_named_by_file_and_row(tmp_path, line, reason):
    good = json.dumps({"text": "a"})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{good}\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(f"{good}\n{good}\n{line}\n{good}\n", encoding="utf-8")

    words = ["b.jsonl", "row 3", reason, "one object on each line"]
    message = refused(words, prepared, tmp_path, tmp_path / "out")

    assert "fetch it again" not in message


def test_columns_that_nobody_asks_for_are_not_read(tmp_path):
    path = tmp_path / "x.parquet"
    save(path, text=["a"], url=["b"], score=[1.0])

    assert list(sources._parquet_rows(path, {"text", "id"})) == [{"text": "a"}]
    everything = [{"text": "a", "url": "b", "score": 1.0}]
    assert list(sources._parquet_rows(path)) == everything
    assert list(sources._parquet_rows(path, {"body"})) == everything, "what is there, an error says"
