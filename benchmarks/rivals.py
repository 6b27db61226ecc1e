"""What the benchmark scripts share: fair timing, tables, files of results, the machine in one line, and the rivals.

Programs that are compared run in turn, round after round, so a machine that is slow for a minute is slow for all of
them. For the same reason, a ratio is the median of the ratios within the rounds.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import http.client
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from courseware import paths

RESULTS = Path(__file__).resolve().parent / "results"
RIVALS = paths.CODE / "data" / "rivals"
NANOGPT = "https://github.com/karpathy/nanoGPT"
NANOGPT_COMMIT = "3adf61e154c3fe3fca428ad6bc3818b27a3b8291"
TINYSHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/370cbcd448eb7daf32f21a6be560b70e0b33c4e3"
    "/data/tinyshakespeare/input.txt"
)
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
PATIENCE = 60  # seconds until a download counts as failed


# --- timing ---


def interleave(
    programs: dict[str, Callable[[], object]], repeat: int = 5, warmup: int = 1
) -> dict[str, list[float]]:
    """Call every program in turn for `repeat` rounds, and return the seconds of each one by round.

    `warmup` rounds before them are not counted. Every other round runs backwards, so none always comes first. Raises
    ValueError unless there is at least one round.
    """
    if repeat < 1:
        raise ValueError(f"repeat={repeat}: expected at least 1 round.")

    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(warmup + repeat):
        names = list(programs) if turn % 2 == 0 else list(reversed(programs))
        for name in names:
            seconds = seconds_of(programs[name])
            if turn >= warmup:
                times[name].append(seconds)
    return times


def seconds_of(program: Callable[[], object]) -> float:
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median seconds of each program."""
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def times_as_fast(times: Mapping[str, Sequence[float]], name: str, rival: str) -> float:
    """Return how many times as fast as `rival` the program `name` is: the median over the rounds."""
    pairs = zip(times[rival], times[name], strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


# --- reports ---


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table for book/benchmarks.md, with the first column on the left and the others on the right.

    Whole numbers get commas; fractions must be strings, rounded by the caller. Raises ValueError for a row with a
    wrong number of cells.
    """
    lines = [f"```{{table}} {caption}", "| " + " | ".join(columns) + " |"]
    lines.append("|---|" + "--:|" * (len(columns) - 1))
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{len(row)} cells for {len(columns)} columns: {row}")
        cells = (f"{cell:,}" if type(cell) is int else str(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "```"])


def save(path: Path, results: object) -> None:
    """Write results as JSON; a crash leaves the old file or the new one, never a part."""
    paths.write_atomic(path, json.dumps(results, indent=1) + "\n")


def earlier_runs(path: Path, quick: bool) -> Any:
    """Return the "runs" of a file of results, or None without a file.

    Raises ValueError if they were made with another `quick`: short and whole runs must not mix.
    """
    if not path.exists():
        return None
    old = json.loads(path.read_text(encoding="utf-8"))
    if old["quick"] != quick:
        raise ValueError(f"{path} holds runs with quick={old['quick']}: choose another --out.")
    return old["runs"]


def _processor() -> str:
    """Return the processor's own name if the system knows it, otherwise its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def hardware() -> dict[str, object]:
    """Return the date, the processor and the versions, for a file of results."""
    import torch

    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
    }


def hardware_line() -> str:
    """Return the last line of every benchmark: the date, and what it ran on.

    "load" is the mean number of threads that wanted a core in the last minute, this program's own among them.
    """
    h = hardware()
    return (
        f"{h['date']}: {h['processor']}, {h['cores']} cores, {h['threads']} threads, load {h['load']}, {h['system']}, "
        f"Python {h['python']}, torch {h['torch']}, transformers {h['transformers']}"
    )


# --- rivals ---


def clone(url: str, commit: str, target: Path) -> Path | None:
    """Clone one commit of a repository to `target`, which appears only when it is complete; None if git fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        for command in (
            ["init", "--quiet"],
            ["fetch", "--quiet", "--depth", "1", url, commit],
            ["checkout", "--quiet", "FETCH_HEAD"],
        ):
            subprocess.run(
                ["git", *command], cwd=half, check=True, capture_output=True, timeout=PATIENCE
            )
        half.rename(target)
    except (OSError, subprocess.SubprocessError):
        return None
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return target


def nanogpt_folder(given: str | Path | None = None, rivals: Path = RIVALS) -> Path | None:
    """Return a checkout of nanoGPT: the folder given, otherwise our clone, made now if it is missing.

    Returns None if there is no network. Raises ValueError if the folder given is not a checkout.
    """
    if given is not None:
        if not (Path(given) / "model.py").is_file():
            raise ValueError(f"{given} is not a checkout of {NANOGPT}: it has no model.py.")
        return Path(given)

    target = rivals / f"nanoGPT-{NANOGPT_COMMIT[:7]}"
    return target if target.is_dir() else clone(NANOGPT, NANOGPT_COMMIT, target)


def tinyshakespeare(given: str | Path | None = None, rivals: Path = RIVALS) -> str | None:
    """Return nanoGPT's text (1,115,394 characters): from the file given, otherwise our copy, downloaded if missing.

    Returns None if there is no network. Raises ValueError if the text is a different one.
    """
    path = Path(given) if given is not None else rivals / "tinyshakespeare.txt"
    if given is not None or path.is_file():
        raw = path.read_bytes()
    else:
        try:
            with urllib.request.urlopen(TINYSHAKESPEARE, timeout=PATIENCE) as answer:
                raw = answer.read()
        except (OSError, http.client.HTTPException):
            return None

    if hashlib.sha256(raw).hexdigest() != TINYSHAKESPEARE_SHA256:
        raise ValueError(f"{path} is not the text of {TINYSHAKESPEARE} (its checksum differs).")
    text = raw.decode("utf-8")
    if not path.is_file():
        paths.write_atomic(path, text)
    return text


if __name__ == "__main__":
    print(hardware_line())


# --- runs with several seeds ---


def seed_options(doc: str, path: Path, seeds: Sequence[int] = (1, 2, 3)) -> argparse.Namespace:
    """Read the command line of a script that trains with several seeds: --seeds and --save."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--save", action="store_true", help=f"write {path.name}")
    return parser.parse_args()


def record_seeds(
    options: argparse.Namespace, path: Path, runs: Callable[[int], Iterable[dict[str, Any]]]
) -> dict[str, Any]:
    """Return the record of all runs, {"hardware", "seeds", "runs"}; runs(seed) yields what one seed finds.

    Every run is printed when it is done. With --save the file is written after each seed, with the seeds that are
    done, so an interrupted script leaves whole seeds.
    """
    record: dict[str, Any] = {"hardware": hardware(), "seeds": [], "runs": []}
    for seed in options.seeds:
        for found in runs(seed):
            record["runs"].append(found)
            print({name: _short(value) for name, value in found.items()}, flush=True)
        record["seeds"].append(seed)
        if options.save:
            save(path, record)
    return record


def _short(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value
