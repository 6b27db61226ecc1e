"""Run an exercise notebook from a clean kernel: `python -m courseware.certificate.replay STEM`.

A cell that raises does not stop the others. What its checks say is remembered in the progress of the course that
`MINIGPT_ROOT` names, as it is for a learner.
"""

from __future__ import annotations

import sys

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError

from courseware import paths

CELL_SECONDS = 120


def replay(stem: str) -> None:
    """Execute `exercises/STEM.ipynb` up to a cell that takes too long."""
    path = paths.ROOT / "exercises" / f"{stem}.ipynb"
    client = NotebookClient(
        nbformat.read(path, as_version=4),
        timeout=CELL_SECONDS,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellTimeoutError as error:
        print(f"{path.name}: {str(error).splitlines()[0]}", file=sys.stderr)


if __name__ == "__main__":
    replay(sys.argv[1])
