"""Everything that `make test` runs, in order, with the time of each part and one closing line."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time

from courseware import paths
from courseware.chapters import all_chapters

NBVAL = ["--nbval", "--nbval-sanitize-with", "tests/nbval.cfg", "--nbval-cell-timeout", "600"]


def parts() -> list[tuple[str, list[str]]]:
    """Return (name, command) of each part."""
    pytest = [sys.executable, "-m", "pytest", "-rs"]
    workers = ["-n", str(min(4, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
    chapters = [str(c.path.relative_to(paths.ROOT)) for c in all_chapters()]
    solutions = sorted(str(p.relative_to(paths.ROOT)) for p in paths.ROOT.glob("solutions/*.ipynb"))
    return [
        ("linter", [sys.executable, "-m", "ruff", "check", "."]),
        ("formatter", [sys.executable, "-m", "ruff", "format", "--check", "."]),
        ("library in step", [sys.executable, "-m", "courseware", "verify"]),
        ("chapters under nbval, in order", [*pytest, "-p", "no:xdist", *NBVAL, *chapters]),
        ("solutions under nbval", [*pytest, "-p", "no:xdist", *NBVAL, *solutions]),
        ("tests", [*pytest, *workers, "--dist", "loadscope", "tests"]),
    ]


def main() -> int:
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT), "PYTHONHASHSEED": "0"}
    failed, begin = [], time.perf_counter()
    for name, command in parts():
        print(f"\n== {name}", flush=True)
        start = time.perf_counter()
        if subprocess.run(command, cwd=paths.ROOT, env=environment).returncode:
            failed.append(name)
        print(f"== {name}: {time.perf_counter() - start:.0f} s", flush=True)
    whole = time.perf_counter() - begin
    print(f"\nAll parts took {whole / 60:.1f} minutes.")
    if failed:
        print("Failed: " + ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
