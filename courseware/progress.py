"""Remember what a learner has done: chapters exported, exercises solved. Stays on their machine.

The file survives a crash (it is replaced in one step), two kernels that write at once (they take turns), damage (it
is set aside, not overwritten) and an update of the course (what this version does not know stays as it is).
"""

from __future__ import annotations

import sys
from typing import Any

from courseware import paths, state

FILE = "progress.json"
LOCK = "progress.lock"

# Old names and new ones, by kind, so that nobody has to solve an exercise again after it was renamed:
# RENAMED["exercise"]["old name"] = "new name"
RENAMED: dict[str, dict[str, str]] = {"chapter": {}, "exercise": {}}

_PATIENCE = state.PATIENCE


def read() -> dict[str, dict[str, str]]:
    """Return {"chapter": {stem: status}, "exercise": {name: status}}; a damaged file counts as empty."""
    return _known(state.load(paths.STATE / FILE) or {})


def record(kind: str, name: str, status: str) -> None:
    """Write down that the chapter or exercise `name` now has this status; never stops the learner."""
    if not state.is_learner():
        return
    before = read().get(kind, {}).get(name)
    if before == status or before == "right":
        return  # what was once right stays right

    def add(data: dict[str, Any]) -> bool:
        """Add the entry to what the file holds now, which another kernel may have changed since it was read."""
        if not isinstance(data.get(kind), dict):
            data[kind] = {}
        if _known(data)[kind].get(name) == "right":
            return False
        data[kind][name] = status
        return True

    try:
        state.change(paths.STATE / FILE, add, _PATIENCE)
    except OSError as error:
        print(f"(progress was not saved: {error})", file=sys.stderr)


def _known(data: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the entries that this version of the course understands, under their present names."""
    found: dict[str, dict[str, str]] = {}
    for kind, entries in data.items():
        if isinstance(entries, dict):
            known = {name: status for name, status in entries.items() if isinstance(status, str)}
            found[kind] = _renamed(kind, known)
    return found


def _renamed(kind: str, entries: dict[str, str]) -> dict[str, str]:
    """Return the entries under their present names; "right" wins if both names have one."""
    found = dict(entries)
    for old, new in RENAMED.get(kind, {}).items():
        if old in entries and found.get(new) != "right":
            found[new] = entries[old]
    return found
