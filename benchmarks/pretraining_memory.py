"""Does memory stay flat? Prepare texts of 5 to 320 MB, and note the most memory that each process ever held.

    python benchmarks/pretraining_memory.py [--sizes 5 20 80 320] [--steps 3] [--only memory|speed] [--out FILE]

The texts are Parquet files with the columns of FineWeb-Edu, filled with acts of Shakespeare (again and again, each time
under other ids). Each size is prepared twice, in a fresh process each: by minigpt_lib.documents.prepare, in shards of
4 million characters, with one process; and in the way that comes to mind first, with all documents in one list, all
tokens in another, and both written at once. The largest is prepared once more in shards of the default size, since a
shard decides how much is held. The peak is what the system reports (ru_maxrss), including Python, torch and libraries.

Then the speed: tokens per second of a few training steps of two presets, in micro-batches of one block, the median of
the steps after the first. Chapter 13 estimates from it how long the whole run would take here. --only renews one of the
two in FILE (benchmarks/results/pretraining_memory.json) and leaves the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# A waiting thread steps aside, so a busy machine does not slow down the others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pyarrow
import torch
from pyarrow import parquet
from rivals import RESULTS, hardware, hardware_line, save, table

from minigpt_lib.documents import DataConfig, prepare
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.packing import BlockReader
from minigpt_lib.pretraining import RECIPES
from minigpt_lib.sources import cut_documents, stream_documents
from minigpt_lib.training import Trainer

Row = dict[str, Any]  # a row of a table, a JSON object

OUT = RESULTS / "pretraining_memory.json"
PRESETS = ("laptop", "fineweb_44m")
SETTINGS = DataConfig(vocab_size=1024, tokenizer_chars=2_000_000, shard_chars=4_000_000, num_proc=1)
FILE_CHARS = 10e6  # of a Parquet file, at least
STRINGS = ("text", "id", "dump", "url", "file_path", "language")
SCHEMA = pyarrow.schema(
    [(name, pyarrow.string()) for name in STRINGS]
    + [("language_score", pyarrow.float64()), ("token_count", pyarrow.int64())]
    + [("score", pyarrow.float64()), ("int_score", pyarrow.int64())]
)


# --- memory ---


def write_text(folder: Path, megabytes: float, acts: Sequence[str]) -> int:
    """Write about `megabytes` as Parquet files of 10 MB with row groups of 100, and return the number of documents."""
    place = folder / "sample" / "10BT"
    place.mkdir(parents=True)
    count = 0
    for number, rows in enumerate(_files(megabytes, acts)):
        made = pyarrow.Table.from_pylist(rows, schema=SCHEMA)
        parquet.write_table(made, place / f"{number:03d}_00000.parquet", row_group_size=100)
        count += len(rows)
    return count


def _files(megabytes: float, acts: Sequence[str]) -> Iterator[list[Row]]:
    """Yield the rows of one file after another, until there is enough text."""
    total = 0  # characters, which are bytes in Shakespeare
    count = 0
    rows: list[Row] = []
    size = 0  # of these rows
    while total < megabytes * 1e6:
        text = acts[count % len(acts)]
        row = dict.fromkeys(SCHEMA.names) | {"text": text, "id": f"<urn:uuid:{count:08d}>"}
        rows.append(row | {"language": "en", "score": 3.0, "int_score": 3})
        count += 1
        total += len(text)
        size += len(text)
        if size > FILE_CHARS:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def load_everything(source: str, folder: Path, tokenizer_from: Path) -> None:
    """Prepare in the way that comes to mind first, with everything in memory."""
    import datasets

    from minigpt_lib.bpe import BPETokenizer

    tokenizer = BPETokenizer.load(tokenizer_from / "tokenizer.json")
    rows = list(stream_documents(source))
    ids = [tokenizer.encode(row["text"]) for row in rows]
    made = datasets.Dataset.from_dict({"id": [row["id"] for row in rows], "input_ids": ids})
    datasets.disable_progress_bars()
    made.save_to_disk(folder)


def child(way: str, source: str, folder: Path) -> None:
    """Do the work in this process, and print its peak in MB as JSON.

    way: "streamed" and "default" are shards of 4 million characters and of the default size, "loaded" is all at once.
    """
    if way == "streamed":
        prepare(source, folder, SETTINGS, progress=False)
    elif way == "default":
        usual = dataclasses.replace(SETTINGS, shard_chars=DataConfig().shard_chars)
        prepare(source, folder, usual, progress=False)
    else:
        load_everything(source, folder, folder.parent / "streamed")

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB; on macOS bytes
    megabytes = peak / (1e6 if sys.platform == "darwin" else 1e3)
    print(json.dumps({"peak": round(megabytes)}))


def measure_memory(sizes: Sequence[float]) -> list[Row]:
    """Return a row for each size: megabytes, documents, and the peak of each way."""
    acts = [row["text"] for row in cut_documents([None])]
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            home = Path(name)
            row = {"megabytes": size, "documents": write_text(home / "text", size, acts)}
            ways = ["streamed", "loaded"]
            if size == max(sizes):
                ways.append("default")
            for way in ways:
                row[f"peak_{way}"] = _run_child(way, home / "text", home / way)["peak"]
        found.append(row)
        print(row)
    return found


def _run_child(way: str, source: Path, folder: Path) -> dict[str, float]:
    """Prepare in a fresh process, and return what it printed."""
    command = [sys.executable, __file__, "--child", way, str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


def memory_table(rows: Sequence[Row]) -> str:
    """Return the table of peaks."""
    columns = ["text, MB", "documents", "peak in shards, MB", "peak all at once, MB"]
    columns.append("peak in shards of the default size, MB")
    keys = ("megabytes", "documents", "peak_streamed", "peak_loaded", "peak_default")
    cells = [[row.get(key, "") for key in keys] for row in rows]
    return table("Memory of a preparation", columns, cells)


# --- speed ---


def measure_speed(preset: str, steps: int) -> Row:
    """Return the median tokens per second of a preset on random tokens, over `steps` steps after a first one."""
    _, train, changes = RECIPES[preset]
    train = dataclasses.replace(
        train,
        steps=steps + 1,
        batch_size=1,
        accumulate=4,
        warmup_steps=0,
        eval_every=0,
        save_every=0,
        sample_every=0,
        progress=False,
        compile=False,
    )
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig.preset(preset, **{"max_seq_len": train.block_size, **changes}))
    text = torch.randint(model.config.vocab_size, (64 * train.block_size,))

    run = Trainer(model, train, text, draw=BlockReader())
    speeds = [record["tokens_per_second"] for record in run.train()[1:]]
    return {
        "preset": preset,
        "tokens_per_second": round(statistics.median(speeds), 1),
        "precision": run.precision,
        "threads": torch.get_num_threads(),
    }


def speed_table(rows: Sequence[Row]) -> str:
    """Return the table of speeds."""
    columns = ["preset", "precision", "threads", "tokens per second"]
    keys = ("preset", "precision", "threads", "tokens_per_second")
    return table("Speed of training steps", columns, [[row[key] for key in keys] for row in rows])


def main() -> None:
    """Measure memory and speed, write the file of results and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=float, nargs="+", default=[5, 20, 80, 320], help="megabytes"
    )
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed")
    parser.add_argument("--only", choices=("memory", "speed"), help="renew only one of the two")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, source, folder = options.child
        child(way, source, Path(folder))
        return

    results: dict[str, Any] = {}
    if options.only:  # "hardware" is then that of the other part
        results = json.loads(options.out.read_text(encoding="utf-8"))
        results[f"{options.only}_hardware"] = hardware()
    else:
        results["hardware"] = hardware()
    if options.only != "speed":
        sizes = [int(size) if size == int(size) else size for size in options.sizes]
        results["memory"] = measure_memory(sizes)
    if options.only != "memory":
        results["speed"] = [measure_speed(preset, options.steps) for preset in PRESETS]
    save(options.out, results)

    print(hardware_line())
    print(memory_table(results["memory"]))
    print(speed_table(results["speed"]))


if __name__ == "__main__":
    main()
