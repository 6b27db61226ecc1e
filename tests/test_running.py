"""Running a notebook from a clean kernel: what is stored of its outputs."""

from __future__ import annotations

import nbformat
import pytest

from courseware import paths
from courseware.setup.running import drop_views

VIEW = "application/vnd.jupyter.widget-view+json"


def notebook_with(data: dict) -> nbformat.NotebookNode:
    output = nbformat.v4.new_output("display_data", data)
    cell = nbformat.v4.new_code_cell("show()", outputs=[output])
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 5. Toy"), cell])


def test_the_view_of_a_widget_is_not_stored_because_it_ends_with_the_kernel():
    notebook = notebook_with({VIEW: {"model_id": "1"}, "text/html": "<p>a widget</p>"})

    drop_views(notebook)

    assert notebook.cells[1].outputs[0].data == {"text/html": "<p>a widget</p>"}


def test_a_view_without_a_description_stays():
    notebook = notebook_with({VIEW: {"model_id": "1"}})

    drop_views(notebook)

    assert VIEW in notebook.cells[1].outputs[0].data


@pytest.mark.parametrize("path", sorted(paths.NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_no_chapter_stores_a_view_that_jupyterlab_cannot_show(path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]

    assert not [output for output in outputs if VIEW in output.get("data", {})]
