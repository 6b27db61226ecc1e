"""Read files of weights that somebody else has made, GGUF and safetensors, and doubt every number in them.

A header is checked against the size of its file before a tensor is read: nothing that it says is allocated
on trust. No file is ever unpickled.

Written by notebooks/19_real_models.ipynb (chapter 19): edit it there.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

__all__ = ["Entry", "read_folder", "read_gguf", "read_json", "read_safetensors", "WeightFile"]

_PLAIN = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a file: `size` bytes from `start`, in the format `kind`, such as F32 or Q4_1."""

    path: Path
    shape: tuple[int, ...]
    kind: str
    start: int
    size: int

    def read(self) -> Tensor:
        """Return the tensor: in its own dtype, or dequantised to float32.

        Raises ValueError for a format that the package gguf cannot dequantise.
        """
        with self.path.open("rb") as file:
            file.seek(self.start)
            data = bytearray(file.read(self.size))
        if len(data) != self.size:
            raise ValueError(f"{self.path} has become shorter while it was read.")

        if self.kind in _PLAIN:
            numbers = torch.frombuffer(data, dtype=_PLAIN[self.kind])
        else:
            numbers = torch.from_numpy(_dequantised(data, self.kind))
        return numbers.reshape(self.shape)


_AT_ONCE = 2**15  # blocks: a few megabytes, so that what is needed in between stays small


def _dequantised(data: bytearray, kind: str) -> np.ndarray:
    """Return the numbers (n,) float32 of blocks that share a scale."""
    quantisation = GGMLQuantizationType[kind]
    block, block_bytes = GGML_QUANT_SIZES[quantisation]
    blocks = np.frombuffer(data, np.uint8).reshape(-1, block_bytes)
    numbers = np.empty((len(blocks), block), np.float32)
    try:
        for start in range(0, len(blocks), _AT_ONCE):
            some = blocks[start : start + _AT_ONCE]
            row = dequantize(some.reshape(1, -1), quantisation)
            numbers[start : start + _AT_ONCE] = row.reshape(len(some), block)
    except NotImplementedError:
        raise ValueError(f"the package gguf cannot turn {kind} into float32") from None
    return numbers.reshape(-1)


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file, or of several that belong together, by name, and what it says about itself."""

    entries: dict[str, Entry]
    metadata: dict[str, Any] = field(default_factory=dict)


# Type codes of GGUF's metadata, as struct spells them: ggml/docs/gguf.md.
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_MOST_TEXTS = 2**20  # entries of a list of texts; the largest vocabulary we know of has 262,144


class _Cursor:
    """Reads one value after the other from bytes, and never beyond their end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.place = 0

    def take(self, size: int, what: str) -> int:
        """Move over `size` bytes and return where they begin."""
        left = len(self.data) - self.place
        if size > left:
            raise ValueError(f"{what} would take {size:,} bytes, but only {left:,} are left")
        start = self.place
        self.place += size
        return start

    def number(self, code: str, what: str) -> Any:
        start = self.take(struct.calcsize(f"<{code}"), what)
        return struct.unpack_from(f"<{code}", self.data, start)[0]

    def text(self, what: str) -> str:
        size = self.number("Q", f"the length of {what}")
        start = self.take(size, what)
        return self.data[start : start + size].decode("utf-8")

    def value(self, what: str) -> Any:
        """Return a value of metadata; an array of numbers as numpy's, one of texts as a list."""
        kind = self.number("I", f"the type of {what}")
        if kind == _TEXT:
            return self.text(what)
        if kind != _ARRAY:
            return self.number(self._code(kind, what), what)

        kind = self.number("I", f"the type of {what}")
        count = self.number("Q", f"the length of {what}")
        if kind == _TEXT:
            if count > _MOST_TEXTS:
                raise ValueError(f"{what} has {count:,} texts, expected at most {_MOST_TEXTS:,}")
            return [self.text(what) for _ in range(count)]

        dtype = np.dtype(self._code(kind, what)).newbyteorder("<")
        start = self.take(count * dtype.itemsize, what)
        return np.frombuffer(self.data[start : self.place], dtype)

    def _code(self, kind: int, what: str) -> str:
        if kind not in _CODES:
            raise ValueError(f"{what} has the type {kind}, which GGUF does not know")
        return _CODES[kind]


def read_gguf(path: str | Path) -> WeightFile:
    """Return what a GGUF file (version 2 or 3) holds; no tensor is read yet.

    Raises ValueError, which says what is wrong, for a file that is cut short or contradicts itself.
    """
    path = Path(path)
    if path.stat().st_size < 24:
        raise ValueError(f"{path} is no GGUF file: it is shorter than a header.")

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _gguf(path, _Cursor(data))
        except ValueError as error:
            raise ValueError(f"{path} is no sound GGUF file: {error}.") from None


def _gguf(path: Path, cursor: _Cursor) -> WeightFile:
    magic = cursor.data[: cursor.take(4, "the magic") + 4]
    version = cursor.number("I", "the version")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(
            f"it begins with {magic!r} and version {version}, expected b'GGUF' and 2 or 3"
        )
    n_tensors = cursor.number("Q", "the number of tensors")
    n_values = cursor.number("Q", "the number of values")

    metadata: dict[str, Any] = {}
    for _ in range(n_values):  # ends with the file, whatever the number says
        key = cursor.text("a key")
        if key in metadata:
            raise ValueError(f"{key} is there twice")
        metadata[key] = cursor.value(key)

    if metadata.get("split.count", 1) != 1:
        raise ValueError("it is one of several parts: join them with llama-gguf-split --merge")

    found: dict[str, tuple[tuple[int, ...], str, int, int]] = {}
    for _ in range(n_tensors):
        name = cursor.text("the name of a tensor")
        if name in found:
            raise ValueError(f"tensor {name} is there twice")
        found[name] = _tensor_info(cursor, name)

    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment not in [2**i for i in range(17)]:
        raise ValueError(f"general.alignment is {alignment!r}, expected a power of 2")
    base = math.ceil(cursor.place / alignment) * alignment
    entries = {
        name: Entry(path, shape, kind, base + offset, size)
        for name, (shape, kind, offset, size) in found.items()
    }
    _refuse_lies(entries, len(cursor.data))
    return WeightFile(entries, metadata)


def _tensor_info(cursor: _Cursor, name: str) -> tuple[tuple[int, ...], str, int, int]:
    """Return shape, format, offset and size in bytes of the next tensor."""
    n_dims = cursor.number("I", f"the dimensions of {name}")
    if not 1 <= n_dims <= 4:
        raise ValueError(f"tensor {name} has {n_dims} dimensions, expected 1 to 4")
    dims = [cursor.number("Q", f"the shape of {name}") for _ in range(n_dims)]
    code = cursor.number("I", f"the type of {name}")
    offset = cursor.number("Q", f"the place of {name}")

    try:
        kind = GGMLQuantizationType(code)
    except ValueError:
        raise ValueError(f"tensor {name} has the type {code}, which is unknown") from None
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if dims[0] % block:
        raise ValueError(
            f"tensor {name} has rows of {dims[0]} numbers, but {kind.name} packs {block}"
        )
    return tuple(reversed(dims)), kind.name, offset, math.prod(dims) // block * block_bytes


def _refuse_lies(entries: Mapping[str, Entry], file_size: int) -> None:
    """Raise ValueError for a tensor that is empty, ends behind the file, or overlaps with another one."""
    end, before = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        if not entry.size:
            raise ValueError(f"tensor {name} has the shape {list(entry.shape)}, so it is empty")
        if entry.start + entry.size > file_size:
            raise ValueError(
                f"tensor {name} of shape {list(entry.shape)} would end at byte "
                f"{entry.start + entry.size:,}, but the file has {file_size:,}"
            )
        if entry.start < end:
            raise ValueError(f"tensors {before} and {name} overlap")
        end, before = entry.start + entry.size, name


_MOST_BYTES = 2**25  # of JSON; Llama 3's tokenizer.json has 9 MB
_MOST_VALUES = 2**21  # in JSON; Llama 3's tokenizer.json has 0.8 million


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises ValueError for anything else, and for a file of an absurd size (32 MB or two million values).
    """
    path = Path(path)
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, expected at most {_MOST_BYTES:,}.")
    try:
        return _json_object(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from None


def _whole_number(digits: str) -> int:
    """Return the number; ValueError for one that no size or offset could have."""
    if len(digits) > 19:  # of 2^63
        raise ValueError(f"the number {digits[:20]}... is absurd")
    return int(digits)


def _json_object(data: bytes) -> dict[str, Any]:
    values = sum(data.count(mark) for mark in b",[{")  # each begins a value
    if values > _MOST_VALUES:
        raise ValueError(f"{values:,} values, expected at most {_MOST_VALUES:,}")
    try:
        found = json.loads(data.decode("utf-8"), parse_int=_whole_number)
    except RecursionError:
        raise ValueError("brackets within brackets without end") from None
    if not isinstance(found, dict):
        raise ValueError(f"expected an object {{...}}, got {str(found)[:40]!r}")
    return found


def read_safetensors(path: str | Path) -> WeightFile:
    """Return what a safetensors file holds; no tensor is read yet.

    Raises ValueError, which says what is wrong, for a file that is cut short or contradicts itself.
    """
    path = Path(path)
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MOST_BYTES):
                raise ValueError(f"its header would have {length:,} bytes, the file has {size:,}")
            header = _json_object(file.read(length))

        metadata = header.pop("__metadata__", {})
        entries = {name: _entry(path, name, facts, 8 + length) for name, facts in header.items()}
        _refuse_lies(entries, size)
    except ValueError as error:
        raise ValueError(f"{path} is no sound safetensors file: {error}.") from None
    return WeightFile(entries, metadata)


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _entry(path: Path, name: str, facts: Any, base: int) -> Entry:
    """Return the entry that a header describes; its data begin at `base`."""
    if not isinstance(facts, dict):
        raise ValueError(f"tensor {name} is described by {str(facts)[:40]!r}")
    kind, shape, offsets = (facts.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in _PLAIN:
        raise ValueError(f"tensor {name} has the dtype {str(kind)[:40]!r}, which is unknown")
    if not isinstance(shape, list) or len(shape) > 8 or not all(map(_is_size, shape)):
        raise ValueError(f"tensor {name} has the shape {str(shape)[:40]}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise ValueError(f"tensor {name} has the offsets {str(offsets)[:40]}")

    start, end = offsets
    size = math.prod(shape) * _PLAIN[kind].itemsize
    if end - start != size:
        raise ValueError(
            f"tensor {name} of shape {shape} needs {size:,} bytes, but its offsets span {end - start:,}"
        )
    return Entry(path, tuple(shape), kind, base + start, size)


def read_folder(folder: str | Path) -> WeightFile:
    """Return the tensors of a Hugging Face folder: model.safetensors, or the shards that an index names.

    Raises FileNotFoundError if a file is missing; ValueError for a folder that holds only pickled weights,
    an index that leads out of the folder, or one that its shards contradict.
    """
    folder = Path(folder)
    if (folder / "model.safetensors").is_file():
        return read_safetensors(folder / "model.safetensors")

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _read_shards(folder, read_json(index).get("weight_map"))

    if [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]:
        raise ValueError(
            f"{folder} has only pickled weights (.bin, .pt), and unpickling a file lets it run any program. "
            "Ask for safetensors, or convert it where nothing can be harmed."
        )
    raise FileNotFoundError(f"{folder} has no model.safetensors.")


def _read_shards(folder: Path, weight_map: Any) -> WeightFile:
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{folder}: the index has no weight_map.")

    entries: dict[str, Entry] = {}
    for shard in _file_names(folder, weight_map.values()):
        for name, entry in read_safetensors(folder / shard).entries.items():
            if weight_map.get(name) != shard:
                raise ValueError(f"{folder}: {shard} has {name}, but the index says otherwise.")
            entries[name] = entry

    missing = sorted(weight_map.keys() - entries.keys())
    if missing:
        raise ValueError(f"{folder}: no shard has {missing[0]}, which the index names.")
    return WeightFile(entries)


def _file_names(folder: Path, names: Iterable[Any]) -> list[str]:
    """Return the different names of shards; ValueError unless each is a plain name of a file."""
    found = list(dict.fromkeys(str(name) for name in names))
    for name in found:
        if not name.endswith(".safetensors") or any(mark in name for mark in "/\\:\0"):
            raise ValueError(
                f"{folder}: the index names {name[:60]!r}, expected a file of this folder."
            )
    return found
