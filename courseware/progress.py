"""Remember what a learner has done: chapters exported, exercises solved. Stays on their machine.

The file survives a crash (it is replaced in one step), two kernels that write at once (they take turns), damage (it
is set aside, not overwritten) and an update of the course (what this version does not know stays as it is).
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from courseware import paths

FILE = "progress.json"
DAMAGED = "progress.json.damaged"
LOCK = "progress.lock"

# Old names and new ones, by kind, so that nobody has to solve an exercise again after it was renamed:
# RENAMED["exercise"]["old name"] = "new name"
RENAMED: dict[str, dict[str, str]] = {"chapter": {}, "exercise": {}}

_PATIENCE = 2.0  # seconds to wait for another kernel; writing takes milliseconds


def read() -> dict[str, dict[str, str]]:
    """Return {"chapter": {stem: status}, "exercise": {name: status}}; a damaged file counts as empty."""
    found: dict[str, dict[str, str]] = {}
    for kind, entries in (_load() or {}).items():
        if isinstance(entries, dict):
            known = {name: status for name, status in entries.items() if isinstance(status, str)}
            found[kind] = _renamed(kind, known)
    return found


def record(kind: str, name: str, status: str) -> None:
    """Write down that the chapter or exercise `name` now has this status; never stops the learner."""
    before = read().get(kind, {}).get(name)
    if before == status or before == "right":
        return  # what was once right stays right

    try:
        paths.STATE.mkdir(parents=True, exist_ok=True)
        with _locked(paths.STATE / LOCK):
            _write(kind, name, status)
    except OSError as error:
        print(f"(progress was not saved: {error})", file=sys.stderr)


def _write(kind: str, name: str, status: str) -> None:
    """Add an entry to what the file holds now, which another kernel may have changed since it was read."""
    path = paths.STATE / FILE
    data = _load()
    if data is None:
        path.replace(paths.STATE / DAMAGED)
        print(f"({FILE} was damaged; it is kept as {DAMAGED})", file=sys.stderr)
        data = {}

    entries = data.get(kind)
    if not isinstance(entries, dict):
        entries = data[kind] = {}
    if read().get(kind, {}).get(name) == "right":
        return

    entries[name] = status
    paths.write_atomic(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def _load() -> dict[str, Any] | None:
    """Return what the file holds, {} if there is none, or None if it is damaged."""
    try:
        data = json.loads((paths.STATE / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _renamed(kind: str, entries: dict[str, str]) -> dict[str, str]:
    """Return the entries under their present names; "right" wins if both names have one."""
    found = dict(entries)
    for old, new in RENAMED.get(kind, {}).items():
        if old in entries and found.get(new) != "right":
            found[new] = entries[old]
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that other kernels respect; after a while without it, go on all the same."""
    lock = FileLock(path, timeout=_PATIENCE)
    with contextlib.suppress(Timeout):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
