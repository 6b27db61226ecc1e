"""Exercises for readers without a kernel: hints and a solution, folded under each task.

In JupyterLab an exercise ends with three cells, `check(…)`, `# hint(…)` and `# solution(…)`. On a page nobody can run
them. So the website shows what they would say, in folds that open with a click and need no script.
"""

from __future__ import annotations

import re
from typing import Any

import nbformat

from courseware.exercises.engine import Exercise
from courseware.exercises.learner import registry
from courseware.exercises.tasks import SolutionsError
from courseware.site.quizzes import inline

_CALL = re.compile(r'(# ?)?(?P<what>check|hint|solution)\("(?P<name>\w+)"(, [^\n]+)?\)')
_IMPORT = "from courseware.exercises import check, hint, solution"
_ABOUT = (
    "*On this page, hints and a solution are folded under each task. In JupyterLab the same notebook checks your "
    "answers, and names what went wrong.*"
)


def folded(text: str, stem: str) -> str:
    """Return the exercise notebook `text` with folds in place of the cells that call the checker.

    stem: the notebook's name, as in "05_attention".
    """
    notebook = nbformat.reads(text, as_version=4)
    known = registry()
    cells = []

    for cell in notebook.cells:
        call = _CALL.fullmatch(cell.source.strip()) if cell.cell_type == "code" else None
        if call is None or call["name"] not in known:
            cell.source = cell.source.replace(_IMPORT, "").strip()
            if cell.source:
                cells.append(cell)
        elif call["what"] == "solution":
            cells.append(_markdown(folds(known[call["name"]]), cell))

    if cells and cells[0].cell_type == "markdown":
        cells[0].source += f"\n\n{_ABOUT}"
    link = f"[All solutions of this page](../solutions/{stem}.ipynb), run, with their outputs."
    cells.append(nbformat.v4.new_markdown_cell(link, id="all-solutions"))
    notebook.cells = cells
    return nbformat.writes(notebook)


def folds(exercise: Exercise) -> str:
    """Return an exercise's hints and solution as Markdown, each folded."""
    parts = [
        _fold(f"Hint {number} of {len(exercise.hints)}", _prose(hint))
        for number, hint in enumerate(exercise.hints, 1)
    ]
    try:
        code = f"```python\n{exercise.task.source.strip()}\n```"
        parts.append(_fold("Solution", f"{_prose(exercise.explanation)}\n\n{code}"))
    except SolutionsError:
        pass  # the notebook of the solutions is missing: there is none to show
    return "\n\n".join(parts)


def _markdown(source: str, cell: Any) -> Any:
    return nbformat.v4.new_markdown_cell(source, id=cell.id)


def _fold(summary: str, body: str) -> str:
    return f'<details class="help"><summary>{summary}</summary>\n\n{body}\n\n</details>'


def _prose(text: str) -> str:
    """Return plain text as an HTML paragraph; what stands between backticks is code."""
    return f"<p>{inline(text)}</p>"
