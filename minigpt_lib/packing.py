"""All tokens as one row, and blocks of it in an order that changes from epoch to epoch.

Shapes: N tokens in a part of the data, T tokens in a block, B blocks in a batch, W ranks (processes that
train together).

Written by notebooks/13_pretraining.ipynb (chapter 13): edit it there.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import torch
from torch import Tensor

from minigpt_lib.checkpoints import sha256
from minigpt_lib.documents import read_manifest

__all__ = ["BlockReader", "deal", "PackedTokens", "shuffle_index", "Text"]


def _read_shard(file: Path) -> pyarrow.Table:
    """Return a shard as a memory-mapped table; ValueError, with its name, unless it holds documents."""
    try:
        table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()
        table.validate()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None

    kinds = dict(zip(table.column_names, table.schema.types))
    tokens = kinds.get("input_ids")
    is_lists = tokens is not None and pyarrow.types.is_list(tokens)
    if (
        not is_lists
        or not pyarrow.types.is_integer(tokens.value_type)
        or kinds.get("id") != pyarrow.string()
    ):
        raise ValueError(
            f"{file} holds no documents: expected ids and lists of tokens, got {kinds}."
        )
    return table


def _open_shard(folder: Path, shard: dict[str, Any], verify: bool) -> pyarrow.Table:
    """Return a shard as a memory-mapped table; ValueError, with its name, if it is not as it was written."""
    file = folder / shard["name"] / shard["file"]
    if not file.is_file():
        problem = "is missing"
    elif file.stat().st_size != shard["size"]:
        problem = f"has {file.stat().st_size:,} bytes in place of {shard['size']:,}"
    elif verify and sha256(file) != shard["sha256"]:
        problem = "is altered: its checksum differs"
    else:
        return _read_shard(file)
    raise ValueError(
        f"{file} {problem}. Copy it again from where it came, or delete {folder} and prepare anew."
    )


class PackedTokens:
    """All shards of a part ("train" or "val") as one row of N tokens, without copying: tokens[a:b].

    The files are memory-mapped: opening them reads nothing, except for the checksums unless
    verify is False, and a slice reads what it needs. Raises ValueError if the preparation is not finished, if a
    shard is torn, altered or missing (by name), or if the part is empty.
    """

    def __init__(self, folder: str | Path, part: str = "train", verify: bool = True) -> None:
        folder = Path(folder)
        manifest = read_manifest(folder)
        if not manifest["finished"]:
            raise ValueError(f"{folder} is not finished: prepare it with the same settings again.")

        self.lists: list[pyarrow.ListArray] = []  # of each chunk, its documents' tokens
        self.ids: list[pyarrow.StringArray] = []
        for shard in manifest["shards"]:
            if shard["part"] == part:
                table = _open_shard(folder, shard, verify)
                self.lists += table["input_ids"].chunks
                self.ids += table["id"].chunks
        if not self.lists:
            raise ValueError(
                f"{folder} has no part {part!r}: of {manifest['counts']['kept']} documents none came to "
                f"be there, with val_fraction={manifest['settings']['val_fraction']}: choose another "
                "val_fraction, and another folder."
            )

        flat = [pyarrow.compute.list_flatten(chunk) for chunk in self.lists]
        self.values = [tokens.to_numpy(zero_copy_only=True) for tokens in flat]
        self.starts = [0, *itertools.accumulate(map(len, self.values))]

    def __len__(self) -> int:
        return self.starts[-1]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (i, from, to) for each chunk i that holds tokens from start to stop."""
        i = bisect.bisect_right(self.starts, start) - 1
        while start < stop:
            begin, end = self.starts[i], min(stop, self.starts[i + 1])
            yield i, start - begin, end - begin
            i, start = i + 1, end

    def __getitem__(self, where: slice) -> Tensor:
        """Return the tokens of a slice, int64; TypeError for anything but tokens[a:b]."""
        if not isinstance(where, slice) or where.step not in (None, 1):
            raise TypeError(f"expected a slice as in tokens[10:20], got {where!r}.")

        start, stop, _ = where.indices(len(self))
        pieces = [self.values[i][a:b] for i, a, b in self._pieces(start, stop)]
        joined = numpy.concatenate(pieces) if pieces else numpy.empty(0)
        return torch.from_numpy(joined.astype(numpy.int64))

    def documents(self, start: int, stop: int) -> list[str]:
        """Return the ids of the documents of which tokens[start:stop] holds at least a token."""
        found: list[str] = []
        start, stop, _ = slice(start, stop).indices(len(self))
        for i, a, b in self._pieces(start, stop):
            ends = self.lists[i].offsets.to_numpy()[1:] - self.lists[i].offsets[0].as_py()
            first, last = numpy.searchsorted(ends, [a, b - 1], side="right")
            found += self.ids[i][first : last + 1].to_pylist()
        return found


def shuffle_index(i: int, n: int, key: object) -> int:
    """Return the place of i in a pseudorandom permutation of 0 to n - 1, computed without storing it.

    key: which permutation. A Feistel network of four rounds on the next power of 4, walked until the
    number is below n again: Luby and Rackoff (1988), Black and Rogaway (2002). Raises ValueError unless
    0 <= i < n.
    """
    if not 0 <= i < n:
        raise ValueError(f"i={i}: expected a whole number from 0 to {n - 1}.")

    half = max(1, ((n - 1).bit_length() + 1) // 2)  # the bits of each half
    mask = (1 << half) - 1
    while True:
        left, right = i >> half, i & mask
        for turn in range(4):
            digest = hashlib.blake2b(f"{key} {turn} {right}".encode(), digest_size=8).digest()
            left, right = right, left ^ int.from_bytes(digest, "big") & mask
        i = left << half | right
        if i < n:
            return i


def deal(position: int, count: int, n: int, seed: int) -> list[int]:
    """Return which of n items come at `count` positions from `position` on.

    Each comes once an epoch (n positions), and each epoch has its own order, decided by the seed. The
    position is all that a reader has to save.
    """
    items = []
    for at in range(position, position + count):
        epoch, place = divmod(at, n)
        items.append(shuffle_index(place, n, f"{seed} {epoch}"))
    return items


Text = PackedTokens | Tensor | Sequence[int]  # N ids


def _block(tokens: Text, i: int, block_size: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of block i, (T,) int64 each."""
    planned = i * block_size
    start = min(planned, len(tokens) - block_size - 1)
    window = torch.as_tensor(tokens[start : start + block_size + 1]).long()
    x, y = window[:-1], window[1:].clone()
    y[: planned - start] = -100
    return x, y


def _count_blocks(tokens: Text, batch_size: int, block_size: int) -> int:
    """Return how many blocks a text has. Raises ValueError if it is too short, or for sizes below 1."""
    if min(batch_size, block_size) < 1:
        raise ValueError(f"batch_size={batch_size}, block_size={block_size}: expected 1 or more.")
    if len(tokens) <= block_size:
        raise ValueError(
            f"{len(tokens)} tokens are too few for block_size={block_size}: a block needs one more."
        )
    return -(-(len(tokens) - 1) // block_size)


class BlockReader:
    """Draw the blocks of a text, each once an epoch, in an order that changes: Trainer's `draw`.

    Block i has the targets i T + 1 to (i + 1) T; the last one is moved back to be full, and those of its
    targets that block i - 1 has are -100. So every token but the first is a target once an epoch. Of W
    ranks, rank r draws B blocks from r B behind `position`, which counts the blocks that all of them have
    drawn, so a run can go on with another number of ranks. The seed decides the order.
    Raises ValueError for a rank outside 0 to world_size - 1.
    """

    def __init__(self, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(
                f"rank={rank}: expected 0 to {world_size - 1}, as world_size={world_size}."
            )
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.position = 0
        self.blocks: int | None = None  # how many the text has, and of what size
        self.block_size: int | None = None
        self._drawn: list[int] = []

    def __call__(
        self,
        tokens: Text,
        batch_size: int,
        block_size: int,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the next inputs and targets of this rank, (B, T) int64 each.

        Raises ValueError if B or T is below 1, if N <= T, or if the text has another number of blocks, or
        T another value, than when it was begun.
        """
        blocks = _count_blocks(tokens, batch_size, block_size)
        if self.blocks is not None and (self.blocks, self.block_size) != (blocks, block_size):
            raise ValueError(
                f"the text has {blocks} blocks of {block_size} tokens, but the run began with "
                f"{self.blocks} of {self.block_size}: go on with the same data, or start anew."
            )

        self.blocks, self.block_size = blocks, block_size
        first = self.position + self.rank * batch_size
        self._drawn = deal(first, batch_size, blocks, self.seed)
        rows = [_block(tokens, i, block_size) for i in self._drawn]
        self.position += self.world_size * batch_size
        return torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows])

    def describe(self) -> str:
        """Return which blocks were drawn last, as an error message names them."""
        numbers = ", ".join(str(i) for i in self._drawn)
        return f"blocks {numbers} of the text (of {self.block_size} tokens each)"

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the text, for a checkpoint: the same on every rank."""
        names = ("position", "blocks", "block_size", "seed")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place that state_dict returned, on any rank of any number of ranks."""
        self.position, self.seed = state["position"], state["seed"]
        self.blocks, self.block_size = state["blocks"], state["block_size"]
