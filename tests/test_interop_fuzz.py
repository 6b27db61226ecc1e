"""Thousands of damaged files: each is read, or refused with a sentence, in little time and memory."""

from __future__ import annotations

import copy
import json
import random
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
import torch

from courseware.checks.published import save, trained_tokenizer, write_gguf
from minigpt_lib import families, interop
from minigpt_lib.weight_files import read_folder, read_gguf

# What reading needs whatever the file: buffers, the tables of 256 bytes, error messages. Measured below 0.3 MB.
_ALWAYS = 2_000_000
_SECONDS = 5.0  # a hang; the slowest takes a tenth of it on a busy machine


def _numbers(chance: random.Random) -> bytes:
    """Return a number that a program might trip over, in 1, 2, 4 or 8 bytes."""
    code = chance.choice("bhiqBHIQfd")
    if code in "fd":
        return struct.pack(f"<{code}", chance.choice([float("nan"), float("inf"), -1.0, 0.0]))
    bits = 8 * struct.calcsize(code)
    edges = [0, 1, 2, 7, 2 ** (bits - 1) - 1, 2 ** (bits // 2)]
    edges += [-1, -(2 ** (bits - 1))] if code.islower() else [2**bits - 1, 2 ** (bits - 1)]
    return struct.pack(f"<{code}", chance.choice(edges))


def _damaged(data: bytes, chance: random.Random, header: int) -> bytes:
    """Return the file with one to four changes, most of them in its first `header` bytes."""
    found = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        end = header if chance.random() < 0.9 else len(found)
        place = chance.randrange(max(1, min(end, len(found))))
        kind = chance.randrange(7)
        if kind == 0:
            found[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            number = _numbers(chance)
            found[place : place + len(number)] = number
        elif kind == 2:
            del found[place:]
        elif kind == 3:
            del found[place : place + chance.randrange(1, 40)]
        elif kind == 4:
            other = chance.randrange(len(found))
            found[place:place] = found[other : other + chance.randrange(1, 40)]
        elif kind == 5:
            found[place:place] = chance.randbytes(chance.randrange(1, 20))
        else:
            found[place : place + 8] = chance.randbytes(8)
        if not found:
            return b""
    return bytes(found)


_VALUES = [None, True, -1, 0, 1, 3, 2**31, 2**62, 10**18, 1.5, 1e308, "", "x", "../x", [], {}, [[]]]


def _damaged_json(values: dict, chance: random.Random) -> dict:
    """Return a copy with one to three values replaced, removed, or moved elsewhere."""
    found = json.loads(json.dumps(values))
    for _ in range(chance.randrange(1, 4)):
        place = found
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = chance.choice(list(keys))
            inside = place[key]
            if isinstance(inside, dict | list) and inside and chance.random() < 0.7:
                place = inside
                continue
            if chance.random() < 0.2:
                del place[key]
            else:
                place[key] = copy.deepcopy(chance.choice([*_VALUES, inside]))
            break
    return found


def _survives(attempt, size: int, what: str) -> bool:
    """Return whether the attempt succeeded; fail for any error but ValueError or OSError, a hang, or memory."""
    tracemalloc.start()
    began = time.process_time()
    try:
        attempt()
        fine = True
    except (ValueError, OSError) as error:
        assert str(error), what
        fine = False
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    seconds = time.process_time() - began
    assert seconds < _SECONDS, f"{what}: {seconds:.1f} s"
    assert fine or peak < 2 * size + _ALWAYS, f"{what}: {peak:,} bytes for a file of {size:,}"
    return fine


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A GGUF file, and the folder of a sharded model, both small and with a vocabulary."""
    home = tmp_path_factory.mktemp("originals")
    save("llama 3.1", home / "hf", "30KB")
    ours, _ = interop.load(home / "hf")
    state = ours.state_dict()
    tensors = {
        part.name: part.to_theirs(state[part.ours]) for part in families.parts(ours.config, "gguf")
    }
    tensors["rope_freqs.weight"] = families.rope_factors(ours.config)
    facts = families.config_to_gguf(ours.config)
    write_gguf(home / "a.gguf", facts, tensors, trained_tokenizer())
    return home


def _fuzz_gguf(home: Path, folder: Path, n: int, seed: int) -> list[bool]:
    data = (home / "a.gguf").read_bytes()
    entries = read_gguf(home / "a.gguf").entries
    header = min(entry.start for entry in entries.values())
    path = folder / "a.gguf"
    fine = []
    for i in range(n):
        chance = random.Random(f"{seed} {i}")
        changed = _damaged(data, chance, header)
        path.write_bytes(changed)
        fine.append(_survives(lambda: interop.load(path), len(changed), f"GGUF {seed} {i}"))
    return fine


def _copied(home: Path, folder: Path) -> Path:
    copy = folder / "hf"
    copy.mkdir(exist_ok=True)
    for file in (home / "hf").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def _fuzz_safetensors(home: Path, folder: Path, n: int, seed: int) -> list[bool]:
    copy = _copied(home, folder)
    shards = sorted(copy.glob("*.safetensors"))
    total = sum(file.stat().st_size for file in copy.iterdir())
    fine = []
    for i in range(n):
        chance = random.Random(f"{seed} {i}")
        shard = chance.choice(shards)
        before = shard.read_bytes()
        header = 8 + int.from_bytes(before[:8], "little")
        shard.write_bytes(_damaged(before, chance, header))
        fine.append(_survives(lambda: interop.load(copy), total, f"safetensors {seed} {i}"))
        shard.write_bytes(before)
    return fine


def _fuzz_json(home: Path, folder: Path, n: int, seed: int) -> list[bool]:
    copy = _copied(home, folder)
    names = ["config.json", "tokenizer.json", "model.safetensors.index.json"]
    total = sum(file.stat().st_size for file in copy.iterdir())
    fine = []
    for i in range(n):
        chance = random.Random(f"{seed} {i}")
        file = copy / chance.choice(names)
        before = file.read_bytes()
        if chance.random() < 0.3:
            file.write_bytes(_damaged(before, chance, len(before)))
        else:
            changed = _damaged_json(json.loads(before), chance)
            file.write_text(json.dumps(changed), encoding="utf-8")
        fine.append(_survives(lambda: interop.load(copy), total, f"JSON {seed} {i}: {file.name}"))
        file.write_bytes(before)
    return fine


def _fuzz_own(home: Path, folder: Path, n: int, seed: int) -> list[bool]:
    """Change the files that this course saves: they may be somebody else's."""
    copy = folder / "own"
    model, tokenizer = interop.load(home / "hf")
    model.save_pretrained(copy)
    tokenizer.save(copy / "tokenizer.json")
    files = sorted(copy.iterdir())
    total = sum(file.stat().st_size for file in files)
    fine = []
    for i in range(n):
        chance = random.Random(f"{seed} {i}")
        file = chance.choice(files)
        before = file.read_bytes()
        if file.suffix == ".json" and chance.random() < 0.7:
            changed = _damaged_json({"": json.loads(before)}, chance).get("")
            file.write_text(json.dumps(changed), encoding="utf-8")
        else:
            file.write_bytes(_damaged(before, chance, min(len(before), 3000)))
        fine.append(_survives(lambda: interop.load(copy), total, f"own {seed} {i}: {file.name}"))
        file.write_bytes(before)
    return fine


FUZZERS = {
    "own": _fuzz_own,
    "GGUF": _fuzz_gguf,
    "safetensors": _fuzz_safetensors,
    "JSON": _fuzz_json,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUZZERS)
def test_damaged_files_are_read_or_refused(kind, originals, tmp_path):
    fine = FUZZERS[kind](originals, tmp_path, 25, seed=1)
    assert not all(fine), "no change was noticed: does the test change anything?"


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUZZERS)
def test_thousands_of_damaged_files_are_read_or_refused(kind, originals, tmp_path):
    """3,334 of each kind: more than 13,000 in all."""
    fine = FUZZERS[kind](originals, tmp_path, 3334, seed=2)
    assert 0.005 < sum(fine) / len(fine) < 0.9, "some changes are harmless, most are not"


def test_a_damaged_file_that_loads_has_the_shapes_it_says(originals, tmp_path):
    """Whatever changes, a model that loads can be run."""
    data = (originals / "a.gguf").read_bytes()
    header = min(e.start for e in read_gguf(originals / "a.gguf").entries.values())
    for i in range(60):
        (tmp_path / "a.gguf").write_bytes(_damaged(data, random.Random(f"run {i}"), header))
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
    assert not _survives(lambda: read_folder(tmp_path), size, "a claimed terabyte")

    lengths = (struct.pack("<IQQ", 3, 2**63, 2**63), struct.pack("<IQQ", 3, 0, 2**63))
    for numbers in lengths:
        (tmp_path / "a.gguf").write_bytes(b"GGUF" + numbers + bytes(64))
        assert not _survives(lambda: read_gguf(tmp_path / "a.gguf"), 84, "claimed tensors")


@pytest.mark.parametrize("filler", [b"[],", b"{},", b"1,", b'"",', b"[[[["])
def test_json_of_many_small_values_is_refused_before_it_is_parsed(filler, tmp_path):
    data = b'{"a": [' + filler * (24_000_000 // len(filler)) + b"0]}"
    (tmp_path / "config.json").write_bytes(data)
    attempt = lambda: interop.load(tmp_path)  # noqa: E731
    assert not _survives(attempt, len(data), "many values")
