"""Does memory stay flat? Prepare texts of 5, 20 and 80 MB, and note the most memory each process ever held.

    python benchmarks/pretraining_memory.py [--sizes 5 20 80] [--steps 3] [--only memory|speed] [--out FILE]

The texts are Parquet files with the columns of FineWeb-Edu, filled with acts of Shakespeare (again and again, each time
under other ids). Each size is prepared twice, in a fresh process each: by minigpt_lib.pretraining.prepare, in shards of
4 million characters, with one process; and in the way that comes to mind first, all documents in a list, all tokens
in another, both written at once. The peak is what the system reports (ru_maxrss), Python, torch and libraries included.

Then the speed: tokens per second of a few training steps of two presets, in micro-batches of one block, the median
of the steps after the first. From it chapter 13 says how long the whole run would take here. --only renews one
of the two in FILE (benchmarks/results/pretraining_memory.json) and leaves the other.
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
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # a waiting thread steps aside, also on a busy machine

import pyarrow
import torch
from pyarrow import parquet
from rivals import hardware, hardware_line, table

from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.pretraining import (
    RECIPES,
    BlockReader,
    DataConfig,
    cut_documents,
    prepare,
    stream_documents,
)
from minigpt_lib.training import Trainer

RESULTS = Path(__file__).resolve().parent / "results" / "pretraining_memory.json"
SETTINGS = DataConfig(vocab_size=1024, tokenizer_chars=2_000_000, shard_chars=4_000_000, num_proc=1)
STRINGS = ("text", "id", "dump", "url", "file_path", "language")
SCHEMA = pyarrow.schema(
    [(name, pyarrow.string()) for name in STRINGS]
    + [("language_score", pyarrow.float64()), ("token_count", pyarrow.int64())]
    + [("score", pyarrow.float64()), ("int_score", pyarrow.int64())]
)


def write_text(folder: Path, megabytes: float, acts: list[str]) -> int:
    """Write about so many megabytes as Parquet files of 10 MB with row groups of 100; return the documents."""
    (folder / "sample" / "10BT").mkdir(parents=True)
    total, count, rows, files = 0, 0, [], 0

    def close():
        nonlocal rows, files
        made = pyarrow.Table.from_pylist(rows, schema=SCHEMA)
        path = folder / "sample" / "10BT" / f"{files:03d}_00000.parquet"
        parquet.write_table(made, path, row_group_size=100)
        rows, files = [], files + 1

    while total < megabytes * 1e6:
        text = acts[count % len(acts)]
        row = dict.fromkeys(SCHEMA.names) | {"text": text, "id": f"<urn:uuid:{count:08d}>"}
        rows.append(row | {"language": "en", "score": 3.0, "int_score": 3})
        total, count = total + len(text), count + 1
        if sum(len(r["text"]) for r in rows) > 10e6:
            close()
    if rows:
        close()
    return count


def load_everything(source: str, folder: Path, tokenizer_from: Path) -> None:
    """Prepare the way that comes to mind first: everything in memory."""
    import datasets

    from minigpt_lib.bpe import BPETokenizer

    tokenizer = BPETokenizer.load(tokenizer_from / "tokenizer.json")
    rows = list(stream_documents(source))
    ids = [tokenizer.encode(row["text"]) for row in rows]
    made = datasets.Dataset.from_dict({"id": [row["id"] for row in rows], "input_ids": ids})
    datasets.disable_progress_bars()
    made.save_to_disk(folder)


def child(way: str, source: str, folder: Path) -> None:
    """Do the work in this process and print the peak and the time."""
    began = time.perf_counter()
    if way == "streamed":
        prepare(source, folder, SETTINGS, progress=False)
    else:
        load_everything(source, folder, folder.parent / "streamed")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB; on macOS bytes
    megabytes = peak / (1e6 if sys.platform == "darwin" else 1e3)
    print(json.dumps({"peak": round(megabytes), "seconds": time.perf_counter() - began}))


def measure_memory(sizes: list[float]) -> list[dict]:
    """Return a row for each size: megabytes, documents, and peak and seconds of both ways."""
    acts, found = [row["text"] for row in cut_documents([None])], []
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            home = Path(name)
            row = {"megabytes": size, "documents": write_text(home / "text", size, acts)}
            for way in ("streamed", "loaded"):
                command = [sys.executable, __file__, "--child", way, str(home / "text"), str(home / way)]  # fmt: skip
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                answer = json.loads(done.stdout)
                row |= {f"peak_{way}": answer["peak"], f"seconds_{way}": answer["seconds"]}
            found.append(row)
            print(row)
    return found


def measure_speed(preset: str, steps: int) -> dict:
    """Return tokens per second of a few steps of a preset on random tokens, the first one left out."""
    _, train, changes = RECIPES[preset]
    train = dataclasses.replace(
        train, steps=steps + 1, batch_size=1, accumulate=4, warmup_steps=0, eval_every=0, save_every=0,
        sample_every=0, progress=False, compile=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig.preset(preset, **{"max_seq_len": train.block_size, **changes}))
    text = torch.randint(model.config.vocab_size, (64 * train.block_size,))
    run = Trainer(model, train, text, draw=BlockReader())
    speeds = [record["tokens_per_second"] for record in run.train()[1:]]
    row = {"preset": preset, "tokens_per_second": round(statistics.median(speeds), 1)}
    return row | {"precision": run.precision, "threads": torch.get_num_threads()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[5, 20, 80])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", choices=("memory", "speed"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, source, folder = options.child
        child(way, source, Path(folder))
        return
    result = json.loads(options.out.read_text()) if options.only else {}
    result["hardware"] = hardware()
    if options.only != "speed":
        result["memory"] = measure_memory([int(s) if s == int(s) else s for s in options.sizes])
    if options.only != "memory":
        result["speed"] = [measure_speed(name, options.steps) for name in ("laptop", "fineweb_44m")]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(hardware_line())
    head = ["text, MB", "documents", "peak in shards, MB", "peak all at once, MB"]
    rows = [
        [r["megabytes"], r["documents"], r["peak_streamed"], r["peak_loaded"]]
        for r in result["memory"]
    ]
    print(table("Memory of a preparation", head, rows))
    head = ["preset", "precision", "threads", "tokens per second"]
    rows = [
        [r["preset"], r["precision"], r["threads"], r["tokens_per_second"]] for r in result["speed"]
    ]
    print(table("Speed of training steps", head, rows))


if __name__ == "__main__":
    main()
