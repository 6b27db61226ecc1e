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


def summary() -> str:
    """Return a table: each chapter, whether its module was exported here, and its exercises."""
    from courseware.chapters import all_chapters
    from courseware.exercises import exercises_of

    data = read()
    rows = []
    for chapter in all_chapters():
        done = data.get("chapter", {}).get(chapter.stem)
        state = "exported" if done else "not yet" if chapter.module else "-"
        names = exercises_of(chapter.number)
        right = sum(data.get("exercise", {}).get(name) == "right" for name in names)
        count = f"{right} of {len(names)}" if names else "-"
        rows.append((f"{chapter.number:02d}", chapter.title, state, count))
    table = [("", "chapter", "your module", "exercises right"), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    return "\n".join("  ".join(t.ljust(w) for t, w in zip(row, widths)).rstrip() for row in table)
