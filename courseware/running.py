"""Execute a notebook from a clean kernel and store its outputs as the course commits them."""

from __future__ import annotations

import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from courseware import paths
from courseware.chapters import find_chapter

_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def run_notebook(name: str, timeout: int = 600) -> str:
    """Run `name` (a chapter's number or a notebook's path), write it back, and return a line with its time.

    Outputs of one stream are joined, timings and the author's environment are left out, and the file is
    replaced only if every cell ran: an error leaves the notebook as it was.
    """
    path = Path(name) if name.endswith(".ipynb") else find_chapter(name).path
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
    notebook.metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    start = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        coalesce_streams=True,
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    client.execute()
    seconds = time.perf_counter() - start
    notebook.metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    notebook.nbformat_minor = 5
    paths.write_atomic(path, nbformat.writes(notebook) + "\n")
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    return f"{path.name}: {cells} cells in {seconds:.1f} s"
