"""Chapter 13: documents are split by their ids and prepared without loss; texts that cannot be used are refused."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pretraining_texts import SMALL, documents_of, fineweb, run_of, same_files, words

from courseware import paths
from courseware.checks.refusals import refused
from minigpt_lib import documents
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.documents import END, is_validation, prepare
from minigpt_lib.pretraining import pretrain
from minigpt_lib.sources import cut_documents, stream_documents

# ---------------------------------------------------------------- training or validation


@settings(deadline=None, max_examples=80)
@given(st.lists(st.text(max_size=20), max_size=30), st.floats(0.01, 0.9), st.floats(0.0, 0.09))
def test_whether_a_document_is_for_validation_depends_on_its_id_alone(ids, fraction, more):
    chosen = {i for i in ids if is_validation(i, fraction)}

    assert chosen == {i for i in reversed(ids) if is_validation(i, fraction)}
    assert chosen <= {i for i in ids if is_validation(i, fraction + more)}
    for identity in ids:
        lot = int.from_bytes(hashlib.sha256(identity.encode()).digest(), "big") / 2**256
        assert (identity in chosen) == (lot < fraction)


@pytest.mark.parametrize("fraction", [0.0005, 0.01, 0.1, 0.5])
def test_the_share_of_validation_documents_is_close_to_the_fraction(fraction):
    share = sum(is_validation(f"<urn:uuid:{i}>", fraction) for i in range(100_000)) / 100_000

    assert abs(share - fraction) < 4 * math.sqrt(fraction * (1 - fraction) / 100_000)


# ---------------------------------------------------------------- documents

PIECES = st.lists(
    st.sampled_from(["a", "bc d", "\n", "\n\n", "\n\n\n", "é"]), min_size=1, max_size=40
)


@settings(deadline=None, max_examples=60)
@given(PIECES.map("".join), st.integers(1, 30))
def test_the_documents_cut_from_a_text_join_to_the_text(tmp_path_factory, text, size):
    assume(text.strip())
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(text, encoding="utf-8")

    found = list(cut_documents([path], size))

    assert "".join(row["text"] for row in found) == text
    assert all(len(row["text"]) >= size for row in found[:-1])
    assert all(row["text"].endswith("\n\n") for row in found[:-1])
    assert len({row["id"] for row in found}) == len(found)


def test_the_end_token_in_a_text_stays_text(tmp_path):
    source = fineweb(tmp_path / "t", [f"a {END} b {i}" for i in range(30)])

    prepare(str(source), tmp_path / "d", SMALL, progress=False)

    tokenizer = BPETokenizer.load(tmp_path / "d" / "tokenizer.json")
    for row in documents_of(tmp_path / "d", "train"):
        assert row["input_ids"].count(tokenizer.special_tokens[END]) == 1
        assert re.fullmatch(rf"a {re.escape(END)} b \d+", tokenizer.decode(row["input_ids"][:-1]))


def test_skipped_documents_of_a_compressed_file_are_counted_by_reason(tmp_path):
    texts = ["good " * 30, "", "  ", "x" * 5001, "also good", None]
    rows = [{"text": text, "score": score} for text in texts for score in (3.0, 1.0, None)]
    data = "\n".join(json.dumps(row) for row in rows).encode()
    source = tmp_path / "x.jsonl.gz"
    source.write_bytes(gzip.compress(data))
    config = dataclasses.replace(SMALL, min_score=2.0, max_chars=5000, val_fraction=0.5)

    manifest = prepare(str(source), tmp_path / "out", config, progress=False)

    expected = {"seen": 18, "empty": 9, "too long": 3, "low score": 4, "kept": 2}
    assert manifest["counts"] == expected


def test_a_document_without_a_score_is_below_any_limit(tmp_path):
    rows = [{"text": f"good {i}", "score": score} for i, score in enumerate((None, 0.1, 0.3, 1.0))]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = dataclasses.replace(SMALL, min_score=0.2, val_fraction=0.5)

    manifest = prepare(str(tmp_path / "x.jsonl"), tmp_path / "out", config, progress=False)

    assert manifest["counts"] == {"seen": 4, "low score": 2, "kept": 2}


def test_a_fraction_just_above_all_but_one_document_is_kept_as_it_is(tmp_path):
    lots = {
        f"{i}": int.from_bytes(hashlib.sha256(f"{i}".encode()).digest()[:8], "big")
        for i in range(20_000)
    }
    # A float holds 53 of its 64 bits, so the last ones have to be zeros.
    highest = next(i for i, lot in lots.items() if lot % 2**12 == 0 and lot > 2**63)
    lower = [i for i, lot in lots.items() if lot < lots[highest]][:5]
    rows = [{"text": f"text {i}", "id": i} for i in (*lower, highest)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = dataclasses.replace(SMALL, val_fraction=lots[highest] / 2**64)

    manifest = prepare(str(tmp_path / "x.jsonl"), tmp_path / "out", config, progress=False)

    assert "split" not in manifest
    assert len(documents_of(tmp_path / "out", "train")) == 1


# ---------------------------------------------------------------- sources that cannot be used


def test_a_hub_that_cannot_be_reached_or_lacks_the_data_is_reported(monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)

    with pytest.raises(
        (ConnectionError, FileNotFoundError), match="no-such-data.*(Offline|on the hub)"
    ):
        stream_documents("nobody-at-all/no-such-data")


OFFLINE = """
from minigpt_lib.sources import stream_documents

try:
    stream_documents("fineweb-edu")
except ConnectionError as error:
    print(error)
"""


@pytest.mark.slow
def test_offline_mode_is_reported():
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(paths.ROOT)},
    )

    assert "fineweb-edu cannot be reached" in done.stdout, done
    assert "Offline" in done.stdout, done


def test_a_damaged_file_is_named_and_can_be_replaced(tmp_path):
    source = fineweb(tmp_path / "text", words(60))
    file = sorted(source.rglob("*.parquet"))[1]
    whole = file.read_bytes()

    def prepare_in(name):
        prepare(str(source), tmp_path / name, SMALL, progress=False)

    for broken in (whole[: len(whole) // 2], b"", whole[:-1], b"<html>404</html>"):
        file.write_bytes(broken)
        refused(f"001_00000.parquet ({len(broken):,} bytes)", prepare_in, "damaged")

    file.write_bytes(whole)
    prepare_in("damaged")
    prepare_in("undisturbed")
    assert same_files(tmp_path / "damaged", tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"text": "a"}\n{"text": "b', "cannot be read: JSON parse error in row 2"),
        ('{"text": "fine"}\n{"text": "\\ud800"}', "surrogate pair in string is invalid"),
        ('{"content": "a"}', "no column 'text', only content"),
        ('{"text": 5}', "expected a str"),
        ("", "x.jsonl is empty."),
    ],
)
def test_json_lines_that_cannot_be_used_are_refused(tmp_path, lines, message):
    source = tmp_path / "x.jsonl"
    source.write_text(lines, encoding="utf-8")

    refused(message, prepare, str(source), tmp_path / "out", SMALL, progress=False)


def test_latin_1_text_is_refused_with_advice(tmp_path):
    (tmp_path / "x.txt").write_bytes("café".encode("latin-1"))

    with pytest.raises(ValueError, match="x.txt.*not UTF-8.*cp1252"):
        prepare(str(tmp_path / "x.txt"), tmp_path / "out", SMALL, progress=False)


def test_a_text_shorter_than_a_block_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("to be", encoding="utf-8")
    config = run_of(tmp_path / "run", tmp_path / "x.txt", 5)

    with pytest.raises(ValueError, match="too few for block_size=16"):
        pretrain(config)


def test_a_preparation_that_has_all_its_documents_reads_no_more(tmp_path):
    source = fineweb(tmp_path / "source", words(5))
    config = dataclasses.replace(SMALL, max_documents=3)
    rows = documents._open(str(source), config)
    assert list(documents._kept(rows, config, Counter(kept=3))) == []


@pytest.mark.parametrize(("vocab_size", "kind"), [(2**16, "uint16"), (2**16 + 1, "int32")])
def test_ids_take_two_bytes_as_long_as_two_bytes_hold_them_all(vocab_size, kind):
    last = {END: vocab_size - 1}
    tokenizer = SimpleNamespace(vocab_size=vocab_size, special_tokens=last, encode=lambda text: [7])
    (ids,) = documents._encode(["a"], tokenizer)

    assert ids.dtype == kind
    assert ids.tolist() == [7, vocab_size - 1]


def test_a_thread_has_started_before_it_gets_work(tmp_path, monkeypatch):
    """Else a Ctrl-C may come while it starts, and Python does not wait for it at the end."""
    given = []

    class Watched(documents.ThreadPoolExecutor):
        def submit(self, work, *arguments):
            given.append((work.__name__, len(self._threads)))
            return super().submit(work, *arguments)

    monkeypatch.setattr(documents, "ThreadPoolExecutor", Watched)
    source = fineweb(tmp_path / "t", words(400))
    prepare(str(source), tmp_path / "out", SMALL, progress=False)
    assert given[0] == ("int", 0)
    assert len(given) > 1 and set(given[1:]) == {("_add_shards", 1)}
