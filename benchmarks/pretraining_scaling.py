"""Does preparation scale? Prepare a text with one process and with two, in turns, and profile where the time goes.

    python benchmarks/pretraining_scaling.py [--megabytes 40] [--rounds 5] [--processes 1 2] [--out FILE]

The text is made as in pretraining_memory.py: Parquet files like those of FineWeb-Edu, documents of 4,000 characters.
The tokenizer is learned once, before the clock starts. Each round prepares the text with each number of processes, each
in a fresh Python process, and notes:

- the wall time, from which the speed-up follows, and the load of the machine meanwhile: on a busy machine the processor
  is shared, and the speed-up says little;
- the processor time of the process that reads, sends and writes, and of those that tokenize. It hardly depends on what
  else runs. With enough free cores, a preparation takes as long as the slower of the two sides, which gives the bound
  for 16 processes.

It checks that the shards are the same, byte for byte, and prints two tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pretraining_memory import write_text
from rivals import RESULTS, hardware, hardware_line, save, table

from minigpt_lib.documents import DataConfig, prepare
from minigpt_lib.sources import cut_documents

Row = dict[str, Any]

OUT = RESULTS / "pretraining_scaling.json"
SETTINGS = DataConfig(vocab_size=1024, tokenizer_chars=500_000, shard_chars=25_000_000, num_proc=1)
DOCUMENT = 4000  # characters, about the mean of FineWeb-Edu


def child(source: str, folder: Path, num_proc: int) -> None:
    """Prepare in this process, and print wall time, processor times and peak memory as JSON."""
    config = dataclasses.replace(SETTINGS, num_proc=num_proc)
    began = time.perf_counter()
    own = time.process_time()
    prepare(source, folder, config, progress=False)

    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = {
        "processes": num_proc,
        "seconds": time.perf_counter() - began,
        "own": time.process_time() - own,
        "others": others.ru_utime + others.ru_stime,
        "peak": round(peak / (1e6 if sys.platform == "darwin" else 1e3)),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(answer))


def checksum(folder: Path) -> str:
    """Return one checksum of all shards in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.arrow")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def measure(megabytes: float, rounds: int, processes: Sequence[int]) -> list[Row]:
    """Return a row for each preparation: round, processes, seconds, own, others, peak, load."""
    acts = [row["text"] for row in cut_documents([None])]
    pieces = [act[i : i + DOCUMENT] for act in acts for i in range(0, len(act), DOCUMENT)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        source = home / "text"
        write_text(source, megabytes, pieces)
        first = home / "first"
        prepare(source, first, SETTINGS, progress=False)
        for turn in range(rounds):
            for num_proc in processes:
                row = {"round": turn, **_run_child(source, home / "out", first, num_proc)}
                assert checksum(home / "out") == checksum(first), "the shards differ"
                rows.append(row)
                print(row, flush=True)
    return rows


def _run_child(source: Path, folder: Path, first: Path, num_proc: int) -> Row:
    """Prepare in a fresh process, with the tokenizer that is there already, and return what it printed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    manifest = json.loads((first / "manifest.json").read_text(encoding="utf-8"))
    begun = manifest | {"shards": [], "counts": {}, "stream": None, "finished": False}
    (folder / "manifest.json").write_text(json.dumps(begun), encoding="utf-8")
    shutil.copy(first / "tokenizer.json", folder)
    command = [sys.executable, __file__, "--child", str(source), str(folder), str(num_proc)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


def profile(rows: Sequence[Row], megabytes: float) -> Row:
    """Return medians over the rounds: speed-up of 2 processes, processor seconds per megabyte, and the bounds."""

    def median(key: str, num_proc: int) -> float:
        return statistics.median(row[key] for row in rows if row["processes"] == num_proc)

    most = max(row["processes"] for row in rows)
    alone, own, others = median("own", 1), median("own", most), median("others", most)
    pairs = zip(
        [row["seconds"] for row in rows if row["processes"] == 1],
        [row["seconds"] for row in rows if row["processes"] == most],
    )
    return {
        "processes": most,
        "speedup": [round(one / several, 3) for one, several in pairs],
        "alone": alone / megabytes,
        "own": own / megabytes,
        "others": others / megabytes,
        "bounds": {n: round(alone / max(own, others / n), 2) for n in (2, 4, 8, 16)},
    }


def main() -> None:
    """Measure, write the file of results and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        source, folder, num_proc = options.child
        child(source, Path(folder), int(num_proc))
        return

    rows = measure(options.megabytes, options.rounds, options.processes)
    found = profile(rows, options.megabytes)
    results = {
        "hardware": hardware(),
        "megabytes": options.megabytes,
        "rows": rows,
        "profile": found,
    }
    save(options.out, results)

    print(hardware_line())
    columns = [
        "processes",
        "wall, s",
        "own processor time, s",
        "that of the others, s",
        "peak, MB",
        "load",
    ]
    keys = ("processes", "seconds", "own", "others", "peak", "load")
    body = [[round(row[key], 2) for key in keys] for row in rows]
    print(table("Preparing the same text", columns, body))
    bounds = [[n, bound] for n, bound in found["bounds"].items()]
    print(
        table("Bound of the speed-up, with a core for each process", ["processes", "times"], bounds)
    )


if __name__ == "__main__":
    main()
