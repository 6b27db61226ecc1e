"""A reader who has not run chapter 10 gets a quick model in its place: with it, too, chapters run to their end."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

from courseware import paths
from courseware.export.notebooks import all_chapters
from courseware.runs import demo

pytestmark = pytest.mark.slow

# Those that compare what the model loses to one trick with what it loses to another. The others (11, 12, 19)
# only show what the model does.
COMPARING = [chapter for chapter in all_chapters() if chapter.number in (17, 22)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a folder with nothing but the quick model."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", folder)
        patch.setattr(demo, "OWN", folder / "none")
        patch.setattr(demo, "QUICK", folder / "quick")
        demo.shakespeare_model()
    return folder


@pytest.mark.parametrize("chapter", COMPARING, ids=lambda chapter: chapter.stem)
def test_a_chapter_runs_with_the_quick_model(chapter, models):
    notebook = nbformat.read(chapter.path, as_version=4)
    begin = nbformat.v4.new_code_cell(
        "from pathlib import Path\n"
        "from courseware.runs import demo\n"
        f"demo.OWN, demo.QUICK = Path({str(models)!r}, 'none'), Path({str(models)!r}, 'quick')\n"
        "demo._announce = lambda folder, whose: print(whose)\n"
    )
    notebook.cells = [begin, *(c for c in notebook.cells if not c.source.startswith("export("))]

    home = {"metadata": {"path": str(chapter.path.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=home).execute()
    printed = [
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    assert any("a quick model" in text for text in printed)
