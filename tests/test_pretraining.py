"""Chapter 13: killed preparations and runs, each block once, clear errors, the command, faults, the twin."""

import dataclasses
import gzip
import hashlib
import json
import math
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import datasets
import filelock
import numpy
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tools import in_node, survives
from tqdm.auto import tqdm

from courseware import paths
from courseware.widgets.packing import describe, draw, packing, packing_data, rows
from minigpt_lib import pretraining
from minigpt_lib.baselines import evaluate_loss
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.data import TextDataset
from minigpt_lib.model import MiniGPT
from minigpt_lib.pretraining import (
    END,
    BlockReader,
    DataConfig,
    PackedTokens,
    PretrainConfig,
    cut_documents,
    is_validation,
    prepare,
    pretrain,
    read_manifest,
    shuffle_index,
    stream_documents,
)
from minigpt_lib.scaling import DistributedConfig
from minigpt_lib.training import TrainConfig, load_checkpoint

sys.path.insert(0, str(paths.CODE / "benchmarks"))
from pretraining_memory import SCHEMA

FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
needs_fork = pytest.mark.skipif(FORK is None, reason="only where processes can be forked")
SMALL = DataConfig(
    vocab_size=300, tokenizer_chars=5000, shard_chars=4000, val_fraction=0.2, num_proc=1
)


def fineweb(folder: Path, texts, files=3, row_group=5, score=3.0) -> Path:
    """Write Parquet files with exactly the columns and types of FineWeb-Edu's sample-10BT."""
    place = folder / "sample" / "10BT"
    place.mkdir(parents=True)
    made = []
    for i, text in enumerate(texts):
        row = dict.fromkeys(SCHEMA.names) | {"text": text, "id": f"<urn:uuid:{i:06d}>"}
        row |= {"dump": "CC-MAIN-2013-20", "url": f"http://example.org/{i}", "file_path": "s3://x"}
        row |= {
            "language": "en",
            "language_score": 0.9,
            "token_count": 7,
            "score": score,
            "int_score": 3,
        }
        made.append(row)
    size = -(-len(made) // files)
    for i in range(files):
        table = pyarrow.Table.from_pylist(made[i * size : (i + 1) * size], schema=SCHEMA)
        parquet.write_table(table, place / f"{i:03d}_00000.parquet", row_group_size=row_group)
    return folder


def words(n: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    vocabulary = ["to", "be", "or", "not", "that", "is", "the", "question", "whether", "mind"]
    return [" ".join(chance.choices(vocabulary, k=chance.randint(3, 120))) + "." for _ in range(n)]


def same_files(one: Path, other: Path) -> bool:
    found = [
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (one, other)
    ]
    return found[0] == found[1] and len(found[0]) > 3


def part_of(folder: Path, part: str) -> list[dict]:
    names = [s["name"] for s in read_manifest(folder)["shards"] if s["part"] == part]
    return [row for name in names for row in datasets.load_from_disk(folder / name)]


# --- properties ---


@settings(deadline=None, max_examples=80)
@given(st.lists(st.text(max_size=20), max_size=30), st.floats(0.01, 0.9), st.floats(0.0, 0.09))
def test_the_side_belongs_to_the_id(ids, fraction, more):
    chosen = {i for i in ids if is_validation(i, fraction)}
    assert chosen == {i for i in reversed(ids) if is_validation(i, fraction)}
    assert chosen <= {i for i in ids if is_validation(i, fraction + more)}
    for identity in ids:
        lot = int.from_bytes(hashlib.sha256(identity.encode()).digest(), "big") / 2**256
        assert (identity in chosen) == (lot < fraction)


def test_the_share_is_close_to_the_fraction():
    for fraction in (0.0005, 0.01, 0.1, 0.5):
        share = sum(is_validation(f"<urn:uuid:{i}>", fraction) for i in range(100_000)) / 100_000
        assert abs(share - fraction) < 4 * math.sqrt(fraction * (1 - fraction) / 100_000)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(["a", "bc d", "\n", "\n\n", "\n\n\n", "é"]), min_size=1, max_size=40
    ).map("".join),
    st.integers(1, 30),
)
def test_cut_documents_join_to_the_text(text, size):
    if not text.strip():
        return
    path = Path(os.environ["PYTEST_TMP"]) / "text.txt"
    path.write_text(text, encoding="utf-8")
    found = list(cut_documents([path], size))
    assert "".join(row["text"] for row in found) == text
    assert all(len(row["text"]) >= size and row["text"].endswith("\n\n") for row in found[:-1])
    assert len({row["id"] for row in found}) == len(found)


@pytest.fixture(autouse=True, scope="module")
def _folder_for_hypothesis(tmp_path_factory):
    os.environ["PYTEST_TMP"] = str(tmp_path_factory.mktemp("texts"))
    yield
    del os.environ["PYTEST_TMP"]


@pytest.fixture(autouse=True, scope="module")
def _no_lock_is_shared_with_a_child():
    """A child that is killed while it holds tqdm's lock between processes would stop its parent for ever."""
    before = tqdm.get_lock()
    tqdm.set_lock(threading.RLock())
    yield
    tqdm.set_lock(before)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400), st.integers(0, 10**9))
def test_a_shuffle_meets_every_number_once(n, key):
    assert sorted(shuffle_index(i, n, key) for i in range(n)) == list(range(n))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 10**12), st.sets(st.integers(0, 10**12), min_size=2, max_size=30))
def test_no_two_numbers_meet_among_a_million_million(n, places):
    places = {i % n for i in places}
    assert len({shuffle_index(i, n, "a") for i in places}) == len(places)


def test_the_shuffle_needs_no_memory_and_little_time():
    began = time.process_time()  # of this process: others may keep it waiting
    for i in range(1000):
        shuffle_index(i, 3 * 10**9, "0 0")
    assert time.process_time() - began < 0.5  # 7 µs each


def test_every_place_is_as_likely_as_every_other():
    """First numbers, last numbers: over many keys each goes everywhere (chi-square, 11 degrees of freedom)."""
    for i in (0, 5, 11):
        counts = Counter(shuffle_index(i, 12, key) for key in range(2400))
        assert sum((counts[p] - 200) ** 2 / 200 for p in range(12)) < 35  # p = 0.0002


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 90),
    st.integers(1, 9),
    st.integers(1, 5),
    st.lists(st.integers(1, 4), min_size=1, max_size=30),
)
def test_each_block_once_an_epoch_whatever_the_ranks(n, T, B, worlds):
    T = min(T, n - 1)
    tokens = torch.arange(n)
    windows = sorted((x.tolist(), y.tolist()) for x, y in TextDataset(tokens, T))
    state, drawn = BlockReader(5).state_dict(), []
    for world in worlds:
        readers = [BlockReader(5, rank, world) for rank in range(world)]
        for reader in readers:
            reader.load_state_dict(state)
            x, y = reader(tokens, B, T)
            drawn += list(zip(x.tolist(), y.tolist(), strict=True))
        assert len({json.dumps(reader.state_dict()) for reader in readers}) == 1
        state = readers[0].state_dict()
    assert state["position"] == len(drawn)
    for start in range(0, len(drawn) - len(windows) + 1, len(windows)):
        assert sorted(drawn[start : start + len(windows)]) == windows


def test_one_process_reads_what_two_and_four_ranks_read_together():
    tokens = torch.arange(1000)
    for world in (2, 4):
        alone = BlockReader(1)
        ranks = [BlockReader(1, rank, world) for rank in range(world)]
        for _ in range(5):
            x, y = alone(tokens, 3 * world, 7)
            parts = [rank(tokens, 3, 7) for rank in ranks]
            assert torch.equal(x, torch.cat([part[0] for part in parts]))
            assert torch.equal(y, torch.cat([part[1] for part in parts]))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(
        str(fineweb(folder / "text", words(150) + ["", None, "  "])),
        folder / "data",
        SMALL,
        progress=False,
    )
    return folder / "data"


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_slices_and_owners_are_those_of_the_shards(prepared, data):
    part = data.draw(st.sampled_from(["train", "val"]))
    packed, documents = PackedTokens(prepared, part, verify=False), part_of(prepared, part)
    flat = numpy.concatenate([row["input_ids"] for row in documents])
    owners = [row["id"] for row in documents for _ in row["input_ids"]]
    a = data.draw(st.integers(0, len(flat)))
    b = data.draw(st.integers(a, min(len(flat), a + 3000)))
    assert packed[a:b].tolist() == flat[a:b].tolist()
    assert packed.documents(a, b) == list(dict.fromkeys(owners[a:b]))


def test_end_in_a_text_stays_text(tmp_path):
    source = fineweb(tmp_path / "t", [f"a {END} b {i}" for i in range(30)])
    prepare(str(source), tmp_path / "d", SMALL, progress=False)
    tokenizer = BPETokenizer.load(tmp_path / "d" / "tokenizer.json")
    for row in part_of(tmp_path / "d", "train"):
        assert row["input_ids"].count(tokenizer.special_tokens[END]) == 1
        assert re.fullmatch(rf"a {re.escape(END)} b \d+", tokenizer.decode(row["input_ids"][:-1]))


def test_evaluation_reads_packed_tokens(prepared):
    torch.manual_seed(0)
    model = MiniGPT(pretraining.GPTConfig(300, 16, 16, 1, 2))
    packed = PackedTokens(prepared, "val")
    assert math.isfinite(evaluate_loss(model, packed[:500], 16))


# --- accidents ---


@pytest.mark.slow
@needs_fork
def test_killed_again_and_again_a_preparation_ends_as_if_undisturbed(tmp_path):
    source = str(fineweb(tmp_path / "text", words(400), files=4, row_group=11))
    prepare(source, tmp_path / "calm", SMALL, progress=False)
    chance, stages, manifest = random.Random(1), [], tmp_path / "killed" / "manifest.json"

    def shards() -> int:
        return len(read_manifest(manifest.parent)["shards"]) if manifest.exists() else 0

    while True:  # kill it after some shards more, or none, at a random moment
        child = FORK.Process(target=prepare, args=(source, manifest.parent, SMALL, False))
        child.start()
        goal = shards() + chance.randint(0, 4)
        while child.is_alive() and shards() < goal:
            time.sleep(0.001)
        child.join(chance.uniform(0, 0.03))
        if not child.is_alive():
            break
        child.kill()
        child.join()
        stages.append(shards())
        assert len(stages) < 200, "it never comes to an end"
    assert child.exitcode == 0 and len(stages) >= 3 and len(set(stages)) >= 2, stages
    assert same_files(tmp_path / "calm", tmp_path / "killed")


class Logged(BlockReader):
    """A reader that notes, on the disk, each block it deals: its position, and whose tokens it holds."""

    log = None

    def __call__(self, tokens, batch_size, block_size, generator=None):
        first = self.position + self.rank * batch_size
        answer = super().__call__(tokens, batch_size, block_size, generator)
        with open(self.log, "a") as file:
            for i in range(batch_size):
                epoch, place = divmod(first + i, self.blocks)
                start = shuffle_index(place, self.blocks, f"{self.seed} {epoch}") * block_size
                asked = [t for t in range(start + 1, start + block_size + 1) if t < len(tokens)]
                owners = tokens.documents(asked[0], asked[-1] + 1)
                file.write(json.dumps([first + i, asked, owners]) + "\n")
        return answer


def run_of(folder: Path, source: Path, steps: int, **changes) -> PretrainConfig:
    train = TrainConfig(
        steps=steps, batch_size=4, block_size=16, accumulate=2, warmup_steps=2, eval_every=0,
        save_every=3, precision="float32", progress=False,
    )  # fmt: skip
    settings = {"tokens": SMALL, "train": train, **changes}
    return PretrainConfig.recipe("laptop", data=str(source), folder=str(folder), **settings)


@needs_fork
def test_a_killed_run_goes_on_and_has_read_each_document_once(tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    source = fineweb(tmp_path / "text", words(32))
    prepare(str(source), tmp_path / "run" / "data", SMALL, progress=False)
    tokens = PackedTokens(tmp_path / "run" / "data")
    blocks = -(-(len(tokens) - 1) // 16)
    steps = blocks // 8  # 8 blocks a step: an epoch, but for a rest
    assert 10 < steps < 60
    config = run_of(tmp_path / "run", source, steps)
    monkeypatch.setattr(pretraining, "BlockReader", Logged)
    Logged.log = tmp_path / "first.log"

    def slowly(record):
        time.sleep(0.01 if record["step"] < steps // 2 + 2 else 60)  # by then it is killed

    child = FORK.Process(target=pretrain, args=(config, slowly))
    child.start()
    diary = tmp_path / "run" / "run" / "history.jsonl"
    while not diary.exists() or len(diary.read_text().splitlines()) < steps // 2:
        assert child.is_alive(), child.exitcode
        time.sleep(0.01)
    child.kill()
    child.join()
    saved = load_checkpoint(tmp_path / "run" / "run" / "last")["state"]["draw"]
    assert 0 < saved["position"] < 8 * steps
    Logged.log = tmp_path / "second.log"
    run = pretrain(config)
    assert run.step == steps
    first, second = (
        [json.loads(line) for line in (tmp_path / f"{name}.log").read_text().splitlines()]
        for name in ("first", "second")
    )
    learned = [row for row in first if row[0] < saved["position"]] + second
    assert [row[0] for row in learned] == list(range(8 * steps)), "each position once, in order"
    asked = Counter(t for _, targets, _ in learned for t in targets)
    assert max(asked.values()) == 1 and len(asked) > 0.9 * (len(tokens) - 1)
    owners = Counter(owner for _, _, owners in learned for owner in owners)
    assert set(owners) <= {row["id"] for row in part_of(tmp_path / "run" / "data", "train")}
    Logged.log = tmp_path / "calm.log"
    calm = pretrain(
        run_of(tmp_path / "calm", source, steps, data_folder=str(tmp_path / "run" / "data"))
    )
    assert [r["loss"] for r in calm.history] == [r["loss"] for r in run.history]
    assert [
        json.loads(line) for line in (tmp_path / "calm.log").read_text().splitlines()
    ] == learned
    assert "from step" in capsys.readouterr().out


def test_an_epoch_asks_for_every_document(prepared):
    packed, reader = PackedTokens(prepared), BlockReader(2)
    blocks = -(-(len(packed) - 1) // 32)
    seen = Counter()
    for place in range(blocks):
        start = shuffle_index(place, blocks, "2 0") * 32
        assert reader(packed, 1, 32)[0].shape == (1, 32)
        seen.update(range(start + 1, min(start + 33, len(packed))))
    assert seen == dict.fromkeys(range(1, len(packed)), 1)
    assert reader.state_dict()["position"] == blocks


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    """Twelve megabytes may not need more than three, but for what the allocator keeps."""
    from pretraining_memory import write_text

    peaks, script = [], paths.CODE / "benchmarks" / "pretraining_memory.py"
    acts = words(400, seed=2)
    acts = [" ".join(acts[i : i + 40]) for i in range(0, 400, 40)]
    for megabytes in (5, 15):
        source = tmp_path / str(megabytes)
        write_text(source, megabytes, acts)
        command = [sys.executable, script, "--child", "streamed", source, source / "out"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        peaks.append(json.loads(done.stdout)["peak"])
    assert peaks[1] < peaks[0] + 60, peaks  # all at once it would be 150 more


# --- errors ---


def test_the_hub_cannot_be_reached_or_has_no_such_data(monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(
        (ConnectionError, FileNotFoundError), match="no-such-data.*(Offline|on the hub)"
    ):
        stream_documents("nobody-at-all/no-such-data")


@pytest.mark.slow
def test_offline_mode_is_said_at_once():
    code = "from minigpt_lib.pretraining import stream_documents as s\ntry: s('fineweb-edu')\n"
    code += "except ConnectionError as error: print(error)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(paths.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert "fineweb-edu cannot be reached" in done.stdout and "Offline" in done.stdout, done


def test_damaged_files_are_named(tmp_path):
    source = fineweb(tmp_path / "text", words(60))
    files = sorted(source.rglob("*.parquet"))
    whole = files[1].read_bytes()
    for broken in (whole[: len(whole) // 2], b"", whole[:-1], b"<html>404</html>"):
        files[1].write_bytes(broken)
        with pytest.raises(ValueError, match=rf"001_00000.parquet \({len(broken):,} bytes\)"):
            prepare(str(source), tmp_path / "out", SMALL, progress=False)
    files[1].write_bytes(whole)
    prepare(str(source), tmp_path / "out", SMALL, progress=False)
    prepare(str(source), tmp_path / "calm", SMALL, progress=False)
    assert same_files(tmp_path / "out", tmp_path / "calm")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('{"text": "a"}\n{"text": "b', "x.jsonl cannot be read: JSON parse error"),
        ('{"text": "fine"}\n{"text": "\\ud800"}', "surrogate pair in string is invalid"),
        ('{"content": "a"}', "no column 'text', only content"),
        ('{"text": 5}', "expected a str"),
        ("", "x.jsonl is empty."),
    ],
)
def test_json_lines_that_cannot_be_used(tmp_path, lines, words):
    (tmp_path / "x.jsonl").write_text(lines)
    with pytest.raises(ValueError, match=re.escape(words)):
        prepare(str(tmp_path / "x.jsonl"), tmp_path / "out", SMALL, progress=False)


def test_compressed_lines_and_skips_are_counted(tmp_path):
    texts = ["good " * 30, "", "  ", "x" * 5001, "also good", None]
    lines = [{"text": t, "score": s} for t in texts for s in (3.0, 1.0, None)]
    data = "\n".join(map(json.dumps, lines)).encode()
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(data))
    config = dataclasses.replace(SMALL, min_score=2.0, max_chars=5000, val_fraction=0.5)
    counts = prepare(str(tmp_path / "x.jsonl.gz"), tmp_path / "out", config, progress=False)[
        "counts"
    ]
    assert counts == {"seen": 18, "empty": 9, "too long": 3, "low score": 4, "kept": 2}


def test_latin_1_text_is_refused_with_advice(tmp_path):
    (tmp_path / "x.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match="x.txt.*not UTF-8.*cp1252"):
        prepare(str(tmp_path / "x.txt"), tmp_path / "out", SMALL, progress=False)


def test_a_text_too_short_for_a_block(tmp_path):
    (tmp_path / "x.txt").write_text("to be\n\nor not\n\n" * 3)
    config = run_of(tmp_path / "run", tmp_path / "x.txt", 5)
    with pytest.raises(ValueError, match="no part|too few"):
        pretrain(config)


# --- the command ---


def command(*arguments, module=("-m", "minigpt_lib.pretraining"), **environment):
    environment = {
        **os.environ,
        "PYTHONPATH": str(paths.ROOT),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    return subprocess.run(
        [sys.executable, *module, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )


SETTINGS = (PretrainConfig, DataConfig, TrainConfig)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "kinds"), [("pretraining", SETTINGS), ("scaling", (*SETTINGS, DistributedConfig))]
)
def test_help_explains_every_option(module, kinds):
    of_module = ("-m", f"minigpt_lib.{module}")
    done = command("--preset", "gpt2_124m", "--help", module=of_module, COLUMNS="300")
    assert done.returncode == 0, done.stderr
    text = re.sub(r"[│╭╮╰╯─]", " ", done.stdout)
    options = re.findall(r"--[a-z-]+", text.split("defaults below", 1)[1])
    fields = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    for name in set(fields) - {"tokens", "train", "run"}:
        assert f"--{name.replace('_', '-')}" in options, name
        option = rf"\n\s*--{name.replace('_', '-')}[ ,].*?\(default: "
        line = re.search(option, text, re.DOTALL)[0]
        explanation = re.sub(r"--\S+|\b[A-Z]{3,}\b|\{.*?\}|\(default.*", "", line)
        assert len(explanation.split()) >= 2, line
    assert "(default: 19000)" in text and "(default: gpt2)" in text


@pytest.mark.slow
def test_the_same_command_again_goes_on(tmp_path):
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(words(12)):
        (tmp_path / "texts" / f"{i:02d}.txt").write_text(text * 3)
    given = [
        "--data",
        tmp_path / "texts",
        "--folder",
        tmp_path / "run",
        "--steps",
        4,
        "--warmup-steps",
        1,
    ]
    given += [
        "--block-size",
        16,
        "--vocab-size",
        280,
        "--val-fraction",
        0.4,
        "--save-every",
        2,
        "--no-progress",
    ]
    first, second = command(*given), command(*given)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "from step 0 to 4" in first.stdout and "from step 4 to 4" in second.stdout
    assert first.stdout.splitlines()[1:] == second.stdout.splitlines()[1:]
    code = re.findall(r"MiniGPT.from_pretrained\(.*\)|BPETokenizer.load\(.*\)", first.stdout)
    model, tokenizer = (eval(line) for line in code)  # what the report says works
    assert model.config.vocab_size == tokenizer.vocab_size
    other = command(*given, "--vocab-size", 290)
    assert other.returncode == 1 and "vocab_size is 280 there and 290 here" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.slow
def test_under_torchrun_the_losses_are_those_of_one_process(tmp_path):
    source = fineweb(tmp_path / "text", words(60))
    given = [
        "--data",
        source,
        "--steps",
        4,
        "--warmup-steps",
        1,
        "--block-size",
        16,
        "--batch-size",
        8,
    ]
    given += [
        "--vocab-size",
        280,
        "--val-fraction",
        0.2,
        "--precision",
        "float32",
        "--device",
        "cpu",
    ]
    given += [
        "--eval-every",
        2,
        "--eval-tokens",
        300,
        "--sample-every",
        0,
        "--save-every",
        4,
        "--no-progress",
    ]
    alone = command(*given, "--folder", tmp_path / "one")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch += ["-m", "minigpt_lib.scaling"]
    both = command(*given, "--folder", tmp_path / "two", module=launch)
    assert alone.returncode == both.returncode == 0, alone.stderr + both.stderr
    one, two = (
        [
            json.loads(line)
            for line in (tmp_path / name / "run" / "history.jsonl").read_text().splitlines()
        ]
        for name in ("one", "two")
    )
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-5)
    assert one[-1]["val_loss"] == pytest.approx(two[-1]["val_loss"], abs=2e-5)
    assert same_files(tmp_path / "one" / "data", tmp_path / "two" / "data")


def parquet_of(path: Path, **columns) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def foreign_manifest(home: Path, content="{}") -> list:
    (home / "data").mkdir()
    (home / "data" / "manifest.json").write_text(content)
    return []


def without_end(home: Path) -> list:
    prepare(parquet_of(home / "x.parquet", text=words(30)), home / "data", SMALL, progress=False)
    old = (home / "data" / "tokenizer.json").read_text()
    (home / "data" / "tokenizer.json").write_text(old.replace(END, "<other>"))
    given = ["--data", home / "x.parquet", "--vocab-size", 300, "--tokenizer-chars", 5000]
    return [*given, "--shard-chars", 4000, "--val-fraction", 0.2]


def scores_as_text(home: Path) -> list:
    path = parquet_of(home / "x.parquet", text=["a", "b"], score=["3.5", "4"])
    return ["--data", path, "--min-score", 2]


def on_a_file(home: Path) -> list:
    (home / "data").write_text("mine")
    return []


MISTAKES = {
    "a manifest of others": (foreign_manifest, "manifest.json is damaged, or is not ours"),
    "a list": (
        lambda home: foreign_manifest(home, "[]"),
        "manifest.json is damaged, or is not ours",
    ),
    "no END": (without_end, "tokenizer.json has no token <|endoftext|>"),
    "scores as text": (scores_as_text, "score is '3.5' in a document, expected a number"),
    "no source": (lambda home: ["--data", ""], "the source is empty"),
    "a file in its place": (on_a_file, "data cannot be written"),
    "no such device": (lambda home: ["--device", "cuda:99"], ""),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_command_answers_mistakes_in_a_line(tmp_path, mistake):
    arrange, said = MISTAKES[mistake]
    given = ["--folder", tmp_path, "--no-progress", "--num-proc", 1, "--max-documents", 40]
    if mistake == "no such device":
        given += ["--vocab-size", 280, "--tokenizer-chars", 9000]
    given += arrange(tmp_path)
    given = (
        [a for a in given if a not in ("--max-documents", 40)] if arrange is without_end else given
    )
    with pytest.raises(SystemExit) as stopped:
        pretraining.main([str(a) for a in given])
    assert isinstance(stopped.value.code, str) and said in stopped.value.code
    assert re.match(r"\w+: ", stopped.value.code), "the kind of error, and what it is"


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("ctrl_c", [signal.SIG_DFL, signal.SIG_IGN], ids=["usual", "switched off"])
def test_ctrl_c_among_several_processes_is_one_line(tmp_path, ctrl_c):
    (tmp_path / "a.txt").write_text("\n\n".join(words(12_000, seed=3)))
    given = ["--data", tmp_path / "a.txt", "--folder", tmp_path, "--prepare-only", "--no-progress"]
    given += ["--vocab-size", 280, "--num-proc", 2, "--shard-chars", 400_000]
    child = subprocess.Popen(
        [sys.executable, "-m", "minigpt_lib.pretraining", *map(str, given)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(paths.ROOT)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),  # `command &` in a script: SIG_IGN
    )
    while not list(tmp_path.glob("data/train-*")) and child.poll() is None:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to all of them
    assert child.communicate(timeout=60)[1] == "stopped: the same command goes on from here.\n"
    assert child.returncode == 130 and not read_manifest(tmp_path / "data")["finished"]


def test_one_run_at_a_time_in_a_folder(tmp_path):
    source = fineweb(tmp_path / "text", words(40))
    config = run_of(tmp_path / "run", source, 3)
    (tmp_path / "run").mkdir()
    lock = filelock.FileLock(tmp_path / "run" / ".run.lock")
    with lock, pytest.raises(RuntimeError, match="another process is at work"):
        pretrain(config)
    assert pretrain(config).step == 3


# --- faults ---

FAULTS = {
    "Ctrl-C during a shard is lost": (
        "if callable(before) and (pressed or interrupted()):",
        "if callable(before) and interrupted():",
    ),
    "Ctrl-C that was swallowed is lost": (
        "if callable(before) and (pressed or interrupted()):",
        "if callable(before) and pressed:",
    ),
    "Ctrl-C again has to wait": ('if pressed and "RANK" not in os.environ:', "if False:"),
    "Ctrl-C from torchrun is another": ('if pressed and "RANK" not in os.environ:', "if pressed:"),
    "Ctrl-C stays off": ("with on_interrupt():", "with contextlib.nullcontext():"),
    "every rank tells": ('if os.environ.get("RANK", "0") == "0":', "if True:"),
    "interrupted, and yet a success": ("if trained is not None and trained.stop_asked:", "if False:"),
    "one trainer for many processes": ("if world > 1 and trainer is Trainer:", "if False:"),
    "documents overlap": ("start = end\n", "start = end - 1\n"),
    "the first sample of the hub": ('"sample-10BT"', '"default"'),
    "half a file is nameless": ('f"{_unreadable(source)} cannot be read', 'f"{source} cannot be read'),
    "blanks are text": ("not text.strip()", "not text"),
    "as long as allowed is too long": ("len(text) > config.max_chars", "len(text) >= config.max_chars"),
    "the lowest score is too low": (">= config.min_score", "> config.min_score"),
    "no id: a number": ('hashlib.sha256(row["text"].encode()).hexdigest()[:32]', 'str(counts["seen"])'),
    "split by Python's hash": ('int.from_bytes(digest[:8], "big")', "hash(identity) % 2**64"),
    "split by little ends": ('digest[:8], "big"', 'digest[:8], "little"'),
    "END is left out": ("tokenizer.encode(text) + end", "tokenizer.encode(text)"),
    "END in a text is END": ("tokenizer.encode(text) + end", 'tokenizer.encode(text, "all") + end'),
    "16 bits for all": ("tokenizer.vocab_size <= 2**16", "tokenizer.vocab_size <= 2**20"),
    "the tokenizer sees validation": ('if not is_validation(row["id"], config.val_fraction)', "if True"),
    "the stream begins anew": ("stream.load_state_dict(manifest[\"stream\"])", "pass"),
    "counts begin anew": ('Counter(manifest["counts"])', "Counter()"),
    "left-overs stay": ("shutil.rmtree(path)", "pass"),
    "other settings are taken": ("if saved != value", "if False"),
    "sizes are enough": ("elif verify and", "elif False and"),
    "never verified": ('shard["size"]:\n        problem', 'shard["size"] * 0:\n        problem'),
    "one chunk too late": ("bisect.bisect_right(", "bisect.bisect_left("),
    "owners one too few": ("self.ids[i][first : last + 1]", "self.ids[i][first:last]"),
    "no walk": ("if i < n:\n            return i", "return i % n"),
    "two rounds": ("for turn in range(4)", "for turn in range(2)"),
    "one order for all epochs": ('f"{self.seed} {epoch}"', 'f"{self.seed}"'),
    "ranks meet": ("self.position += self.world_size * batch_size", "self.position += batch_size"),
    "ranks read the same": ("self.position + self.rank * batch_size", "self.position"),
    "the tail asks again": ("y[: planned - start] = -100", "y[:0] = -100"),
    "the tail is lost": ("-(-(len(tokens) - 1) // block_size)", "(len(tokens) - 1) // block_size"),
    "the place is forgotten": ('self.seed = state["position"]', 'self.seed = 0 * state["position"]'),
    "every rank prepares": ("    if draw.rank == 0:\n", "    if True:\n"),
    "a folder of others is taken": ("if others and not ours.exists()", "if False"),
    "folders of texts are deleted": ('<= {".arrow", ".json"}', '<= {".arrow", ".json", ".txt"}'),
    "any number is a shard": (r"(train|val)-\d{5}", r"(train|val)-\d+"),
    "an old tokenizer stays": ('(folder / "tokenizer.json").unlink(missing_ok=True)', "pass"),
    "changed files are taken": ('[:n] != files[:n]', '[:n] != manifest["files"][:n]'),
    "a finished text is not compared": ('files != manifest.get("files")', "False"),
    "a name is a pattern": ("glob.escape(str(file))", "str(file)"),
    "stray commas are taken": ('if kind == "csv" else ()', 'if kind == "none" else ()'),
    "the first folder only": ("folders[:] = [", "folders[:] = [] and ["),
    "our own folders are read": ("and name not in ours", ""),
    "a licence is data": ('startswith(("LICENSE", "README"))', "startswith(())"),
    "no rows, no data": ("if not _is_empty(file)", "if True"),
    "0 is no id": ('if name in (None, "")', "if not name"),
    "negative starts": ("start, stop, _ = slice(start, stop).indices(len(self))", "stop = min(stop, len(self))"),
    "another T is taken": ("(self.blocks, self.block_size) != (blocks, block_size)", "self.blocks != blocks"),
    "nothing waits for the disk": ("os.fsync(file.fileno())", "pass"),
    "only some errors are lines": ("except Exception as error:\n        if", "except OSError as error:\n        if"),
    "two runs in a folder": (
        '_locked(Path(config.folder), ".run.lock") if', "contextlib.nullcontext() if"
    ),
    "any tokenizer will do": ("if END not in tokenizer.special_tokens", "if False"),
    "a slash is another folder": ("os.path.normpath(source)", "source"),
    "a rank of no world waits": (
        "BlockReader(config.train.seed, rank, world)", "BlockReader(config.train.seed, 0, 1)"
    ),
    "models differ": ("torch.manual_seed(train.seed)", "pass"),
    "bits per token": ("bits_per_byte(losses[-1] * tokens, n_bytes)", "bits_per_byte(losses[-1], 1)"),
    "the preset is not looked up": ('named[-1] if named else "laptop"', '"laptop"'),
}  # fmt: skip


@pytest.mark.slow
def test_the_module_itself_passes(tmp_path):
    assert survives("13", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_checks(tmp_path, fault):
    assert not survives("13", tmp_path, *FAULTS[fault])


# --- the explorer and its twin ---

DATA = packing_data([5, 1, 300, 17, 128, 129, 64, 2, 1000, 33])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
    st.integers(1, 40),
    st.sampled_from(["padded", "packed"]),
)
def test_rows_hold_every_token_once_in_order(lengths, block, method):
    found = rows(lengths, block, method)
    held = [i for row in found for i, n in row for _ in range(n)]
    assert held == [i for i, n in enumerate(lengths) for _ in range(n)]
    assert all(sum(n for _, n in row) <= block for row in found)
    if method == "packed":
        assert len(found) == -(-sum(lengths) // block)
    else:
        assert len(found) == sum(-(-n // block) for n in lengths)
        assert all(len(row) == 1 for row in found)


def test_the_twin_says_and_draws_the_same():
    states = [{"block": b, "method": m} for b in DATA["blocks"] for m in DATA["methods"]]
    one = "[m.describe(data, s), m.draw(data, s), m.rows(data.lengths, s.block, s.method)]"
    expression = f"data.states.map((s) => {one})"
    theirs = in_node("packing.js", expression, {**DATA, "states": states})
    ours = [[describe(DATA, **s), draw(DATA, **s), rows(DATA["lengths"], **s)] for s in states]
    assert theirs == json.loads(json.dumps(ours))


def test_the_widget_answers_its_controls():
    box = packing(DATA)
    method, block, view = box.children
    assert "Padded: 10 documents of 1679 tokens need" in view.value
    method.value, block.value = "packed", 1024
    words = "Packed: 10 documents of 1679 tokens need 2 rows of 1024; 369 of 2048 places (18.0%)"
    assert f"{words} are empty." in view.value
    assert view.value.count("display:flex") == 2 and "all rows" in view.value
