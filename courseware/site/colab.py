"""Copies of the notebooks for Google Colab, each with a first cell that gets the course.

Colab opens one notebook of a repository on a fresh machine, without the files around it, so a chapter's first import
fails there. The cell that helps would be clutter everywhere else. So the notebooks stay as they are, and the workflow
that publishes the website puts these copies on a branch of their own, to which the buttons of the pages lead.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import yaml

from courseware import paths

BRANCH = "colab"
FOLDERS = ("notebooks", "exercises", "solutions")
_CELL = """\
# Colab starts with an empty machine: get the course, and install what Colab lacks. It takes some minutes, once.
# If Colab asks you to restart the session, do so, and run this cell again.
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "{repository}"
COURSE = Path("{name}").resolve()
NOT_FOR_COLAB = ("jupyterlab", "jupyter-book", "nbval")  # of no use there

if importlib.util.find_spec("courseware") is None:
    if not COURSE.is_dir():
        clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", "{branch}", REPOSITORY, str(COURSE)]
        subprocess.run(clone, check=True)

    lines = (COURSE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    packages = [line.partition("#")[0].strip() for line in lines]
    packages = [package for package in packages if package and not package.startswith(NOT_FOR_COLAB)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], check=True)

    sys.path.insert(0, str(COURSE))
    os.environ["PYTHONPATH"] = str(COURSE)
    if not (COURSE / "data" / "shakespeare.txt").is_file():
        subprocess.run([sys.executable, "-m", "courseware.material.corpus"], cwd=COURSE, check=True)
    os.chdir(COURSE / "{folder}")
"""


def setup_cell(repository: str, branch: str, folder: str) -> str:
    """Return the first cell of a copy: it does nothing where the course is already there.

    repository: what git clones. folder: the one in which the notebook lies, where it will run.
    """
    name = repository.rstrip("/").removesuffix(".git").rpartition("/")[2]
    return _CELL.format(repository=repository, branch=branch, name=name, folder=folder).rstrip()


def write_copies(target: Path) -> list[Path]:
    """Write a copy of every notebook below `target`, in the same folders, and return their paths."""
    config = yaml.safe_load((paths.ROOT / "_config.yml").read_text(encoding="utf-8"))
    repository = config["repository"]["url"]
    branch = config["repository"]["branch"]

    written = []
    for folder in FOLDERS:
        (target / folder).mkdir(parents=True, exist_ok=True)
        cell = setup_cell(repository, branch, folder)
        for path in sorted((paths.ROOT / folder).glob("*.ipynb")):
            notebook = nbformat.read(path, as_version=4)
            first = nbformat.v4.new_code_cell(cell, id="colab-setup")
            notebook.cells.insert(1, first)  # after the title
            copy = target / folder / path.name
            copy.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
            written.append(copy)
    return written
