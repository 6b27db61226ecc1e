"""Chapter 13: the shuffle is a permutation, and each block of the packed tokens is read once an epoch."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter

import numpy
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretraining_texts import SMALL, documents_of, fineweb, words

from minigpt_lib.baselines import evaluate_loss
from minigpt_lib.checkpoints import sha256
from minigpt_lib.data import TextDataset
from minigpt_lib.documents import prepare
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.packing import BlockReader, PackedTokens, shuffle_index

# ---------------------------------------------------------------- the shuffle


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400), st.integers(0, 10**9))
def test_a_shuffle_contains_every_number_once(n, key):
    assert sorted(shuffle_index(i, n, key) for i in range(n)) == list(range(n))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 10**12), st.sets(st.integers(0, 10**12), min_size=2, max_size=30))
def test_no_two_of_a_trillion_numbers_go_to_the_same_place(n, places):
    places = {i % n for i in places}

    assert len({shuffle_index(i, n, "a") for i in places}) == len(places)


def test_the_shuffle_of_three_billion_numbers_takes_microseconds_each():
    began = time.process_time()  # of this process: others may keep it waiting

    for i in range(1000):
        shuffle_index(i, 3 * 10**9, "0 0")

    assert time.process_time() - began < 0.5  # 7 µs each


@pytest.mark.parametrize("i", [0, 5, 11])
def test_every_place_is_equally_likely(i):
    """Over many keys, a number goes to each place equally often (chi-square, 11 degrees of freedom)."""
    counts = Counter(shuffle_index(i, 12, key) for key in range(2400))

    assert sum((counts[place] - 200) ** 2 / 200 for place in range(12)) < 35  # p = 0.0002


# ---------------------------------------------------------------- blocks


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 90),
    T=st.integers(1, 9),
    B=st.integers(1, 5),
    worlds=st.lists(st.integers(1, 4), min_size=1, max_size=30),
)
def test_each_block_is_read_once_an_epoch_though_the_number_of_ranks_changes(n, T, B, worlds):
    T = min(T, n - 1)
    tokens = torch.arange(n)
    windows = sorted((x.tolist(), y.tolist()) for x, y in TextDataset(tokens, T))

    state = BlockReader(5).state_dict()
    drawn = []
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


@pytest.mark.parametrize("world", [2, 4])
def test_several_ranks_together_read_what_one_process_reads(world):
    tokens = torch.arange(1000)
    alone = BlockReader(1)
    ranks = [BlockReader(1, rank, world) for rank in range(world)]

    for _ in range(5):
        x, y = alone(tokens, 3 * world, 7)
        parts = [rank(tokens, 3, 7) for rank in ranks]
        assert torch.equal(x, torch.cat([part[0] for part in parts]))
        assert torch.equal(y, torch.cat([part[1] for part in parts]))


# ---------------------------------------------------------------- packed tokens


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return the folder of a prepared text of 150 documents; three more are empty."""
    folder = tmp_path_factory.mktemp("prepared")
    source = fineweb(folder / "text", [*words(150), "", None, "  "])
    prepare(str(source), folder / "data", SMALL, progress=False)
    return folder / "data"


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_slices_and_their_documents_are_those_of_the_shards(prepared, data):
    part = data.draw(st.sampled_from(["train", "val"]))
    packed = PackedTokens(prepared, part, verify=False)
    documents = documents_of(prepared, part)
    flat = numpy.concatenate([row["input_ids"] for row in documents])
    owners = [row["id"] for row in documents for _ in row["input_ids"]]

    a = data.draw(st.integers(0, len(flat)))
    b = data.draw(st.integers(a, min(len(flat), a + 3000)))

    assert packed[a:b].tolist() == flat[a:b].tolist()
    assert packed.documents(a, b) == list(dict.fromkeys(owners[a:b]))


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: "[" * 9999,
        lambda manifest: json.dumps(manifest | {"shards": [0]}),
        lambda manifest: json.dumps(manifest | {"shards": [{"name": True}]}),
        lambda manifest: json.dumps(manifest | {"shards": [manifest["shards"][0] | {"size": "1"}]}),
    ],
)
def test_a_manifest_with_damaged_shards_is_refused(tmp_path, prepared, change):
    manifest = json.loads((prepared / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").write_text(change(manifest), encoding="utf-8")

    with pytest.raises(ValueError, match="manifest.json is damaged"):
        PackedTokens(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"], "input_ids": [[1.5]]}, "holds no documents"),
        ({"id": [1], "input_ids": [[1]]}, "holds no documents"),
        ({"id": ["a"]}, "holds no documents"),
        (None, "cannot be read"),
    ],
)
def test_a_shard_that_holds_something_else_is_refused(tmp_path, prepared, columns, message):
    """Its size and its checksum are right: somebody made it."""
    folder = tmp_path / "data"
    shutil.copytree(prepared, folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    shard = next(shard for shard in manifest["shards"] if shard["part"] == "train")
    file = folder / shard["name"] / shard["file"]
    if columns is None:
        file.write_bytes(b"\xff" * 100)
    else:
        table = pyarrow.table(columns)
        with pyarrow.ipc.new_stream(str(file), table.schema) as writer:
            writer.write_table(table)
    shard |= {"size": file.stat().st_size, "sha256": sha256(file)}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")

    with pytest.raises(ValueError, match=message):
        PackedTokens(folder)


def test_an_epoch_has_every_token_as_a_target_once(prepared):
    packed = PackedTokens(prepared)
    reader = BlockReader(2)
    blocks = -(-(len(packed) - 1) // 32)

    targets = Counter()
    for place in range(blocks):
        start = shuffle_index(place, blocks, "2 0") * 32
        assert reader(packed, 1, 32)[0].shape == (1, 32)
        targets.update(range(start + 1, min(start + 33, len(packed))))

    assert targets == dict.fromkeys(range(1, len(packed)), 1)
    assert reader.state_dict()["position"] == blocks


def test_packed_tokens_can_be_evaluated(prepared):
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig(300, 16, 16, 1, 2))
    packed = PackedTokens(prepared, "val")

    assert math.isfinite(evaluate_loss(model, packed[:500], 16))
