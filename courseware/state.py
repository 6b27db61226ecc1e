"""Files of the learner's own, in `.course`: replaced in one step, shared by several kernels, never lost to damage."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from courseware import paths

# Seconds to wait for another kernel: writing takes milliseconds, on a busy disk seconds.
PATIENCE = 10.0


def is_learner() -> bool:
    """Return whether a learner is at work. A notebook that pytest compares with its stored outputs is not theirs."""
    tested_file = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    return not tested_file.endswith(".ipynb")


def load(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that a file holds, {} if there is no file, or None if it is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def change(path: Path, edit: Callable[[dict[str, Any]], bool], patience: float = PATIENCE) -> None:
    """Let `edit` change the JSON object of a file, and write it if `edit` returns True.

    What the file holds is read while no other kernel writes. A damaged file is set aside as `NAME.damaged`, with a
    line that says so. Raises OSError if the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock"), patience):
        data = load(path)
        if data is None:
            kept = path.with_name(f"{path.name}.damaged")
            path.replace(kept)
            print(f"({path.name} was damaged; it is kept as {kept.name})", file=sys.stderr)
            data = {}
        if edit(data):
            paths.write_atomic(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def _locked(path: Path, patience: float) -> Iterator[None]:
    """Hold a lock that other kernels respect; after a while without it, go on all the same."""
    lock = FileLock(path, timeout=patience)
    with contextlib.suppress(Timeout):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
