"""What `make test` and `make check` run, part by part, with the time of each and one closing line."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from courseware import paths
from courseware.export.notebooks import all_chapters

# These train for minutes and keep a model, so they start first; the others use such a model.
TRAINING = ("14_sft", "10_training")
USING = (
    "11_generation",
    "12_evaluation",
    "15_preferences",
    "16_assistant",
    "17_efficiency",
    "21_reasoning",
)

Part = tuple[str, list[str]]


def quick_parts() -> list[Part]:
    """Return (name, command) of the parts that take seconds, for `make check`."""
    tests = [*_pytest(), "-m", "not slow and not browser", "tests"]
    return [*_static_parts(), ("quick tests", tests)]


def all_parts() -> list[Part]:
    """Return (name, command) of every part, for `make test`.

    Chapters, solutions and tests share one queue, since a queue of their own would leave a processor
    idle at its end. The library is in step with all chapters by then, so their order decides no more
    than how long it takes.
    """
    chapters = sorted(all_chapters(), key=lambda chapter: _place(chapter.stem))
    notebooks = [chapter.path for chapter in chapters]
    notebooks += sorted(paths.ROOT.glob("solutions/*.ipynb"))

    nbval = ["--nbval", "--nbval-sanitize-with", "tests/nbval.cfg", "--nbval-cell-timeout", "600"]
    everything = [*_pytest(), *nbval, *_below_root(notebooks), "tests"]
    return [*_static_parts(), ("chapters, solutions and tests", everything)]


def _static_parts() -> list[Part]:
    python = sys.executable
    return [
        ("linter", [python, "-m", "ruff", "check", "."]),
        ("formatter", [python, "-m", "ruff", "format", "--check", "."]),
        ("types", [python, "-m", "pyrefly", "check"]),
        ("library in step", [python, "-m", "courseware", "verify"]),
        ("exercises in step", [python, "-m", "courseware", "generate", "--check"]),
    ]


def _pytest() -> list[str]:
    """Return pytest's command with a worker for each processor, at most four."""
    command = [sys.executable, "-m", "pytest", "-rs"]
    if importlib.util.find_spec("xdist"):
        workers = min(4, os.cpu_count() or 1)
        command += ["-n", str(workers), "--dist", "loadscope", "--no-loadscope-reorder"]
    return command


def _place(stem: str) -> tuple[int, str]:
    """Return a key that sorts chapters that train to the front and chapters that need their models to the end."""
    if stem in TRAINING:
        return -1, str(TRAINING.index(stem))
    return int(stem in USING), stem


def _below_root(files: Iterable[Path]) -> list[str]:
    return [file.relative_to(paths.ROOT).as_posix() for file in files]


def run(parts: list[Part]) -> int:
    """Run the parts one after the other, whatever fails; return 1 if any did."""
    environment = os.environ | {
        "PYTHONPATH": str(paths.ROOT),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",  # two small models side by side are faster than one on two threads
    }
    failed = []
    begin = time.perf_counter()

    for name, command in parts:
        print(f"\n== {name}", flush=True)
        start = time.perf_counter()
        if subprocess.run(command, cwd=paths.ROOT, env=environment).returncode:
            failed.append(name)
        print(f"== {name}: {time.perf_counter() - start:.0f} s", flush=True)

    minutes = (time.perf_counter() - begin) / 60
    print(f"\nAll parts took {minutes:.1f} minutes.")
    if failed:
        print("Failed: " + ", ".join(failed))
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: `python -m courseware.setup.testing [--quick]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what takes seconds")
    chosen = parser.parse_args(arguments)
    return run(quick_parts() if chosen.quick else all_parts())


if __name__ == "__main__":
    sys.exit(main())
