"""What a learner has done so far: `make progress` in a terminal, a cell in chapter 00."""

from __future__ import annotations

from courseware import progress
from courseware.exercises import exercises_of
from courseware.export.notebooks import Chapter, all_chapters

_HEADER = ("", "chapter", "your module", "exercises right")


def summary() -> str:
    """Return a table with a line for each chapter: is its module exported, how many exercises are solved."""
    done = progress.read()
    rows = [_HEADER] + [_row(chapter, done) for chapter in all_chapters()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]

    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(chapter: Chapter, done: dict[str, dict[str, str]]) -> tuple[str, str, str, str]:
    if not chapter.modules:
        state = "-"
    elif chapter.stem in done.get("chapter", {}):
        state = "exported"
    else:
        state = "not yet"

    names = exercises_of(chapter.number)
    right = [name for name in names if done.get("exercise", {}).get(name) == "right"]
    solved = f"{len(right)} of {len(names)}" if names else "-"

    return f"{chapter.number:02d}", chapter.title, state, solved
