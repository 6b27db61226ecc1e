"""What the benchmark scripts share: timing in turn, tables, the machine in one line, and where the rivals are.

Programs that are to be compared run in turn, round after round: a machine that is slow for a minute is then slow
for all of them. A ratio is the median of the ratios within the rounds, for the same reason.
"""

from __future__ import annotations

import datetime
import hashlib
import http.client
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

RIVALS = Path(__file__).resolve().parent.parent / "data" / "rivals"
NANOGPT = "https://github.com/karpathy/nanoGPT"
NANOGPT_COMMIT = "3adf61e154c3fe3fca428ad6bc3818b27a3b8291"
TINYSHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/370cbcd448eb7daf32f21a6be560b70e0b33c4e3"
    "/data/tinyshakespeare/input.txt"
)
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def interleave(
    programs: dict[str, Callable[[], object]], repeat: int = 5, warmup: int = 1
) -> dict[str, list[float]]:
    """Call every program in turn, `repeat` rounds after `warmup` uncounted ones; return each one's seconds by round.

    Every other round runs backwards, so that none always comes first.
    """
    if repeat < 1:
        raise ValueError(f"repeat={repeat}, expected at least 1 round.")
    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(warmup + repeat):
        for name in list(programs) if turn % 2 == 0 else reversed(programs):
            start = time.perf_counter()
            programs[name]()
            seconds = time.perf_counter() - start
            if turn >= warmup:
                times[name].append(seconds)
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the median seconds of each program."""
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def times_as_fast(times: dict[str, list[float]], name: str, rival: str) -> float:
    """Return how many times as fast as `rival` the program `name` is: the median of the rounds."""
    pairs = zip(times[rival], times[name], strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table for book/benchmarks.md: the first column to the left, the others to the right.

    Whole numbers get commas; of a fraction say yourself how many digits count.
    """
    lines = [f"```{{table}} {caption}", "| " + " | ".join(columns) + " |"]
    lines.append("|---|" + "--:|" * (len(columns) - 1))
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{len(row)} cells for {len(columns)} columns: {row}")
        cells = (f"{cell:,}" if type(cell) is int else str(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "```"])


def _processor() -> str:
    """Return the processor's own name, as far as the system tells."""
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
    """Return the last line of every benchmark: the day, and what it ran on.

    "load" is how many programs wanted a core in the last minute, this one's threads among them.
    """
    h = hardware()
    return (
        f"{h['date']}: {h['processor']}, {h['cores']} cores, {h['threads']} threads, load {h['load']}, {h['system']}, "
        f"Python {h['python']}, torch {h['torch']}, transformers {h['transformers']}"
    )


def nanogpt_folder(given: str | Path | None = None, rivals: Path = RIVALS) -> Path | None:
    """Return a checkout of nanoGPT: the folder given, else our clone, made now if missing, or None without a network.

    ValueError if the folder given is none.
    """
    if given is not None:
        if not (Path(given) / "model.py").is_file():
            raise ValueError(f"{given} is no checkout of {NANOGPT}: it has no model.py.")
        return Path(given)
    target = rivals / f"nanoGPT-{NANOGPT_COMMIT[:7]}"
    if target.is_dir():
        return target
    rivals.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(dir=rivals))  # gets its name when it is whole
    try:
        for command in (
            ["init", "--quiet"],
            ["fetch", "--quiet", "--depth", "1", NANOGPT, NANOGPT_COMMIT],
            ["checkout", "--quiet", "FETCH_HEAD"],
        ):
            subprocess.run(["git", *command], cwd=half, check=True, capture_output=True, timeout=60)
        half.rename(target)
    except (OSError, subprocess.SubprocessError):
        return None
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return target


def tinyshakespeare(given: str | Path | None = None, rivals: Path = RIVALS) -> str | None:
    """Return nanoGPT's text (1,115,394 characters): from the file given, else our copy, or None without a network.

    ValueError if the text is another.
    """
    path = Path(given) if given is not None else rivals / "tinyshakespeare.txt"
    if given is not None or path.is_file():
        raw = path.read_bytes()
    else:
        try:
            with urllib.request.urlopen(TINYSHAKESPEARE, timeout=60) as answer:
                raw = answer.read()
        except (OSError, http.client.HTTPException):
            return None
    if hashlib.sha256(raw).hexdigest() != TINYSHAKESPEARE_SHA256:
        raise ValueError(f"{path} is not the text of {TINYSHAKESPEARE} (its checksum differs).")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_bytes(raw)
        path.with_suffix(".part").replace(path)
    return raw.decode("utf-8")


if __name__ == "__main__":
    print(hardware_line())
