"""Small texts and runs for the tests of chapter 13, and how to read what a preparation wrote."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from courseware import paths
from minigpt_lib.documents import DataConfig, read_manifest
from minigpt_lib.pretraining import PretrainConfig
from minigpt_lib.training import TrainConfig

sys.path.insert(0, str(paths.CODE / "benchmarks"))
from pretraining_memory import SCHEMA

FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
needs_fork = pytest.mark.skipif(FORK is None, reason="only where processes can be forked")
SMALL = DataConfig(
    vocab_size=300, tokenizer_chars=5000, shard_chars=4000, val_fraction=0.2, num_proc=1
)


def words(n: int, seed: int = 0) -> list[str]:
    """Return n texts of 3 to 120 words."""
    generator = random.Random(seed)
    vocabulary = ["to", "be", "or", "not", "that", "is", "the", "question", "whether", "mind"]
    texts = [generator.choices(vocabulary, k=generator.randint(3, 120)) for _ in range(n)]
    return [" ".join(text) + "." for text in texts]


def fineweb(folder: Path, texts: Sequence[str | None], files: int = 3, row_group: int = 5) -> Path:
    """Write Parquet files with exactly the columns and types of FineWeb-Edu's sample-10BT; return the folder."""
    place = folder / "sample" / "10BT"
    place.mkdir(parents=True)

    rows = []
    for i, text in enumerate(texts):
        row = {
            "text": text,
            "id": f"<urn:uuid:{i:06d}>",
            "dump": "CC-MAIN-2013-20",
            "url": f"http://example.org/{i}",
            "file_path": "s3://x",
            "language": "en",
            "language_score": 0.9,
            "token_count": 7,
            "score": 3.0,
            "int_score": 3,
        }
        rows.append(dict.fromkeys(SCHEMA.names) | row)

    size = -(-len(rows) // files)
    for i in range(files):
        table = pyarrow.Table.from_pylist(rows[i * size : (i + 1) * size], schema=SCHEMA)
        parquet.write_table(table, place / f"{i:03d}_00000.parquet", row_group_size=row_group)
    return folder


def run_of(folder: Path, source: Path, steps: int, **changes: Any) -> PretrainConfig:
    """Return the settings of a run of the laptop preset in `folder`."""
    train = TrainConfig(
        steps=steps,
        batch_size=4,
        block_size=16,
        accumulate=2,
        warmup_steps=2,
        eval_every=0,
        save_every=3,
        precision="float32",
        progress=False,
    )
    settings = {"tokens": SMALL, "train": train, **changes}
    return PretrainConfig.recipe("laptop", data=str(source), folder=str(folder), **settings)


def documents_of(folder: Path, part: str) -> list[dict[str, Any]]:
    """Return the documents of a prepared text, from its shards as `datasets` reads them."""
    shards = read_manifest(folder)["shards"]
    names = [shard["name"] for shard in shards if shard["part"] == part]
    return [row for name in names for row in datasets.load_from_disk(folder / name)]


def same_files(one: Path, other: Path) -> bool:
    """Return whether two folders hold the same files, more than three."""

    def contents(folder: Path) -> dict[Path, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder): path.read_bytes() for path in files}

    return contents(one) == contents(other) and len(contents(one)) > 3
