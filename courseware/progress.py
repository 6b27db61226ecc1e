"""Remember what a learner has done: chapters exported, exercises solved. Stays on their machine."""

from __future__ import annotations

import json
import sys

from courseware import paths

FILE = "progress.json"


def read() -> dict[str, dict[str, str]]:
    """Return {"chapter": {stem: status}, "exercise": {name: status}}; a damaged file counts as empty."""
    try:
        data = json.loads((paths.STATE / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def record(kind: str, name: str, status: str) -> None:
    """Write down that the chapter or exercise `name` now has this status; never stops the learner."""
    data = read()
    entries = data.setdefault(kind, {})
    if entries.get(name) == status or (entries.get(name) == "right" and status != "right"):
        return  # what was once right stays right
    entries[name] = status
    try:
        text = json.dumps(data, indent=1, sort_keys=True) + "\n"
        paths.write_atomic(paths.STATE / FILE, text)
    except OSError as error:
        print(f"(progress was not saved: {error})", file=sys.stderr)
