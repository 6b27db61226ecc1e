"""Damaged files: each is read, or refused with a sentence, in little time and memory."""

from __future__ import annotations

import json
import random
import struct

import pytest
import torch
from damage import damaged, survives
from fuzz import run, whole_gguf

from minigpt_lib import interop
from minigpt_lib.weight_files import read_folder, read_gguf


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["own", "GGUF", "safetensors", "JSON"])
def test_thousands_of_damaged_files_are_read_or_refused(kind):
    """3,334 of each kind: more than 13,000 in all."""
    result = run(kind, 3334, seed=2)
    assert not result.faults, result.faults[0]
    assert 0.005 < result.accepted / result.cases < 0.9, "some changes are harmless, most are not"


def test_a_damaged_file_that_loads_has_the_shapes_it_says(tmp_path):
    """Whatever changes, a model that loads can be run."""
    data, header = whole_gguf(tmp_path)
    for i in range(60):
        (tmp_path / "a.gguf").write_bytes(damaged(data, random.Random(f"run {i}"), header))
        try:
            model, tokenizer = interop.load(tmp_path / "a.gguf")
        except (ValueError, OSError):
            continue
        with torch.inference_mode():
            assert model(torch.zeros(1, 2, dtype=torch.int64))[0].shape[:2] == (1, 2)
        tokenizer.decode(tokenizer.encode("a", "all"))


def test_files_of_absurd_sizes_take_no_memory(tmp_path):
    """A terabyte that is only claimed, in each kind of header."""
    claimed = {"t": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    text = json.dumps(claimed).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    size = len(text) + 8
    assert not survives(lambda: read_folder(tmp_path), size, "a claimed terabyte")

    lengths = (struct.pack("<IQQ", 3, 2**63, 2**63), struct.pack("<IQQ", 3, 0, 2**63))
    for numbers in lengths:
        (tmp_path / "a.gguf").write_bytes(b"GGUF" + numbers + bytes(64))
        assert not survives(lambda: read_gguf(tmp_path / "a.gguf"), 84, "claimed tensors")


@pytest.mark.parametrize("filler", [b"[],", b"{},", b"1,", b'"",', b"[[[["])
def test_json_of_many_small_values_is_refused_before_it_is_parsed(filler, tmp_path):
    data = b'{"a": [' + filler * (24_000_000 // len(filler)) + b"0]}"
    (tmp_path / "config.json").write_bytes(data)
    attempt = lambda: interop.load(tmp_path)  # noqa: E731
    assert not survives(attempt, len(data), "many values")
