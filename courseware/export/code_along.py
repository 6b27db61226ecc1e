"""`make code-along CH=05`: a chapter whose library code is yours to write.

The exported cells of the course's own notebook become signatures and docstrings (`courseware.export.blanks`); every
other cell stays as it is, outputs included. The chapter's checks decide, as always, when `export()` is called. `make
reset CH=05` brings the course's version back.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import nbformat

from courseware.export import reset, transaction
from courseware.export.blanks import blank, unwritten
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import Chapter, parse_cell


@dataclass(frozen=True)
class Blanked:
    """What `code_along` did."""

    notebook: str  # its path below the root
    names: list[str]  # what is to be written, in the notebook's order
    kept: str  # where the learner's own version was kept, "" if there was none

    def __str__(self) -> str:
        count = (
            f"{len(self.names)} functions and methods" if len(self.names) > 1 else "one function"
        )
        lines = [f"{self.notebook} is yours to write: {count}, beginning with {self.names[0]}."]
        if self.kept:
            lines.append(f"Your version was kept as {self.kept}.")
        number = Path(self.notebook).name[:2]
        lines += [
            "If the notebook is open in JupyterLab, choose File > Reload Notebook from Disk.",
            "The chapter's own checks tell you whether it is right, and export() puts it into your library.",
            f"To go back to the course's version: make reset CH={number}",
        ]
        return "\n".join(lines)


def code_along(which: str | int) -> Blanked:
    """Replace a chapter's notebook by the course's own one with its exported cells to be written.

    A notebook that is not the course's own is copied to `.course/before-reset` first. The library is not touched: the
    course's modules serve until yours are exported.

    Args:
        which: "05", 5 or "05_attention".

    Raises:
        ExportRefused: if there is no such chapter, it exports nothing, or its original is not on this computer.
    """
    original = reset.original_notebook(which)
    text, names = _blanked(original)
    if not names:
        raise ExportRefused(
            f"{original.stem} has no code for the library, so there is nothing to write",
            remedy="choose a chapter that builds a part of the library, such as 05",
        )

    reset.keep_copies()  # the notebook in its place may be the only copy of the original
    with transaction.locked():
        kept = reset.set_aside(original.path, [original.text or "", text])
        transaction.replace_all({original.path: text})
    return Blanked(reset.name_of(original.path), names, kept)


def _blanked(chapter: Chapter) -> tuple[str, list[str]]:
    """Return the text of a notebook with its exported cells blanked, and the names that are to be written."""
    assert chapter.text is not None
    notebook = nbformat.reads(chapter.text, as_version=4)
    names: list[str] = []

    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code_cells, 1):
        parsed = parse_cell(number, cell.source)
        if parsed is None or parsed.kind != "export":
            continue

        directive = cell.source.partition("\n")[0]
        body = blank(parsed.body, chapter.number)
        cell.source = f"{directive}\n{body}"
        names += unwritten(ast.parse(body))

    return nbformat.writes(notebook) + "\n", names
