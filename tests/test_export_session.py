"""A notebook in a kernel: what was executed must be what is saved."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from conftest import CHECK, EXPORT, SETUP

from courseware import progress
from courseware.export import session
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import find_chapter


def cells_of(path: Path) -> list[str]:
    return [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def test_run_as_saved_is_accepted(course):
    path = course.good()
    session.refuse_other_state(find_chapter("05"), cells_of(path))


def test_saved_but_not_run(course):
    path = course.good()
    with pytest.raises(
        ExportRefused, match=r"saved but not run as saved: code cell 3 .`import operator"
    ):
        session.refuse_other_state(find_chapter("05"), [c for c in cells_of(path) if c != EXPORT])


def test_edited_run_but_not_saved(course):
    path = course.good()
    edited = EXPORT.replace("mul(x, 2)", "add(x, x)")
    ran = [*cells_of(path), edited]
    with pytest.raises(ExportRefused, match=r"run but not saved: `import operator") as caught:
        session.refuse_other_state(find_chapter("05"), ran)
    assert "Ctrl+S" in str(caught.value)


def test_an_older_version_does_no_harm(course):
    path = course.good()
    older = EXPORT.replace("mul(x, 2)", "add(x, x)")
    session.refuse_other_state(find_chapter("05"), [older, *cells_of(path)])


def test_line_ends_and_blanks_at_the_end_make_no_difference(course):
    path = course.good()
    ran = [text.replace("\n", "\r\n") + "  \n" for text in cells_of(path)]
    session.refuse_other_state(find_chapter("05"), ran)


def test_other_notebook_is_refused(course, monkeypatch):
    course.good()
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/notebooks/05_toy-Copy1.ipynb")
    with pytest.raises(ExportRefused, match="05_toy-Copy1.ipynb"):
        session.refuse_other_notebook(find_chapter("05"))


@pytest.mark.slow
def test_in_a_real_kernel(course, monkeypatch):
    """Run a notebook whose file differs from what is executed, then one that is as saved."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    path = course.chapter(
        SETUP, EXPORT, CHECK, "from courseware.export import export\n\nexport('05')"
    )
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("PYTHONPATH", course.environment["PYTHONPATH"])

    course.chapter(SETUP, EXPORT.replace("x, 2", "2, x"), CHECK, "export('05')")
    with pytest.raises(CellExecutionError, match="what was executed is not what is saved"):
        NotebookClient(notebook, kernel_name="python3").execute()
    assert not course.target.exists()

    course.chapter(SETUP, EXPORT, CHECK, "from courseware.export import export\n\nexport('05')")
    NotebookClient(notebook, kernel_name="python3").execute()
    assert course.target.exists()
    data = notebook.cells[-1].outputs[0]["data"]
    assert "<table>" in data["text/html"] and "doubles" in data["text/plain"]


def test_progress_survives_damage(course):
    course.good()
    progress.record("exercise", "softmax", "wrong")
    progress.record("exercise", "softmax", "right")
    progress.record("exercise", "softmax", "wrong")
    assert progress.read()["exercise"]["softmax"] == "right"
    (course.root / ".course/progress.json").write_text("{", encoding="utf-8")
    assert progress.read() == {}
    progress.record("chapter", "05_toy", "exported")
    assert progress.read() == {"chapter": {"05_toy": "exported"}}
