"""Compare what a running notebook executed with what is saved on disk.

The kernel knows the text of every cell that it ran, and the file holds the text of every cell that is saved.
An export reads the file; so each exported cell, check and setup must have been run as it is saved, and
nothing newer may have been run that is not saved.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from courseware.export.errors import ExportRefused
from courseware.export.notebooks import KINDS, Cell, Chapter

_watched: list[str] = []


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def watch() -> None:
    """Note every cell that runs from now on; called when courseware is imported.

    A kernel keeps the history itself, but a runner such as nbval asks it not to.
    """
    shell = _shell()
    if shell is not None:
        shell.events.register("post_run_cell", lambda result: _watched.append(result.info.raw_cell))


def executed_cells() -> list[str] | None:
    """Return the source of every cell that this kernel ran, oldest first, or None outside a notebook."""
    shell = _shell()
    if shell is None:
        return None
    history = [text for text in shell.history_manager.input_hist_raw if text.strip()]
    return history if len(history) > 1 else list(_watched)


def refuse_other_notebook(chapter: Chapter) -> None:
    """Refuse when JupyterLab says that this kernel belongs to another file, such as a copy."""
    session = os.environ.get("JPY_SESSION_NAME", "")
    if session.endswith(".ipynb") and Path(session).name != chapter.path.name:
        raise ExportRefused(
            f"this notebook is {Path(session).name}, but export() was asked for {chapter.path.name}",
            remedy=f"work in notebooks/{chapter.path.name}, or rename your copy to that",
        )


def refuse_other_state(chapter: Chapter, executed: list[str]) -> None:
    """Refuse if a directive cell was not run as saved, or if what was run last is not saved."""
    last_run = {_comparable(text): order for order, text in enumerate(executed)}
    saved = {_comparable(cell.source): cell for cell in chapter.cells}

    stale = [cell for text, cell in saved.items() if text not in last_run and cell.kind != "module"]
    unsaved = [text for text in last_run if _is_directive(text) and text not in saved]
    newest = [text for text in unsaved if not _superseded(text, last_run, saved)]
    if not stale and not newest:
        return

    lines = [f"  saved but not run as saved: {cell.label}" for cell in stale]
    lines += [f"  run but not saved: `{_first_code(text)}`" for text in newest]
    raise ExportRefused(
        "what was executed is not what is saved",
        details="\n".join(lines),
        remedy="save the notebook (Ctrl+S, or Cmd+S on a Mac), then Kernel > Restart Kernel and "
        "Run All Cells",
    )


def _comparable(text: str) -> str:
    """Return the text of a cell without what makes no difference to Python: line ends, and blanks at the end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip()


def _is_directive(text: str) -> bool:
    first = text.partition("\n")[0].strip()
    return first.startswith("#|") and first[2:].strip().partition(":")[0] in KINDS


def _superseded(text: str, last_run: dict[str, int], saved: dict[str, Cell]) -> bool:
    """Return whether the saved version of the same cell was run later: then the old one does no harm."""
    later = [t for t in saved if last_run.get(t, -1) > last_run[text]]
    return any(_first_code(t) == _first_code(text) or _similar(t, text) for t in later)


def _similar(one: str, other: str) -> bool:
    first, second = set(one.split("\n")), set(other.split("\n"))
    return len(first & second) >= 0.5 * max(len(first), len(second))


def _first_code(text: str) -> str:
    lines = [line.strip() for line in text.split("\n")[1:] if line.strip()]
    return (lines or [text.strip()])[0][:60]
