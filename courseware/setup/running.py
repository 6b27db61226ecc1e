"""Execute a notebook from a clean kernel and store its outputs as the course commits them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from courseware import paths
from courseware.export.notebooks import find_chapter

_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_VIEW = "application/vnd.jupyter.widget-view+json"
_KEPT = ("tags", "jupyter")  # what a cell's metadata may say: how it is shown and compared


def run_notebook(name: str, timeout: int = 600) -> str:
    """Execute a notebook and write it back with its outputs.

    Outputs of one stream are joined; timings, the author's environment and the views of widgets are left out. The
    file is replaced only if every cell ran, so an error leaves the notebook as it was.

    Args:
        name: a chapter's number or a notebook's path.
        timeout: seconds that a single cell may take.

    Returns:
        A line with the number of code cells and the seconds they took.
    """
    path = Path(name) if name.endswith(".ipynb") else find_chapter(name).path
    notebook = nbformat.read(path, as_version=4)
    _clean(notebook)

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        coalesce_streams=True,
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    start = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - start

    notebook.metadata = nbformat.from_dict(_METADATA)  # the kernel has added its version
    notebook.nbformat_minor = 5
    drop_views(notebook)
    paths.write_atomic(path, nbformat.writes(notebook) + "\n")
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    return f"{path.name}: {cells} cells in {seconds:.1f} s"


def drop_views(notebook: Any) -> None:
    """Remove the views of widgets from the outputs, in place.

    A widget ends with its kernel. JupyterLab would show "Error displaying widget: model not found" until the cell is
    run; without the view it shows the widget's description.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if len(data) > 1:  # there is something else to show
                data.pop(_VIEW, None)


def _clean(notebook: Any) -> None:
    """Remove outputs, counters and whatever an editor has written into the metadata."""
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in _KEPT if key in cell.metadata}
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
