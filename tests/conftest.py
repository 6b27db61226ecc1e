"""Shared by all tests: a small course in a temporary folder, with one chapter to export."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import browser as browsers
import hypothesis
import nbformat
import pytest
from filelock import FileLock
from handlers import keeping_signals

from courseware import paths
from courseware.site import site

MODULE = "#| module: toy\n# Double and halve numbers.\n#\n# Two lines of text."
# A busy machine is slow; what a test proves does not depend on the time that it takes.
hypothesis.settings.register_profile("course", deadline=None)
hypothesis.settings.load_profile("course")

# A system whose encoding is ASCII, as strict as CP1252 of Windows about everything beyond it.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SETUP = "#| setup\nimport math"
EXPORT = '''#| export
import operator


def double(x: float) -> float:
    """Return x times two."""
    return operator.mul(x, 2)
'''
CHECK = "#| check: doubles | against: by hand\nassert double(3) == 6\nassert double(0.5) == 1.0"


# Tables of hundreds of cases, each of them quick: faults of the chapters, and exercises answered by others.
TABLES = ("test_the_checks_of_the_chapter_notice_every_fault", "test_answers_of_others")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long tables slow, so that the quick tests stay quick."""
    for item in items:
        if getattr(item, "originalname", "") in TABLES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models as small as those of the tests gain nothing from a second thread, and lose much on a busy machine."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def signals_as_before():
    """Fail the test that leaves another handler for Ctrl-C or SIGTERM: a later one would suffer from it."""
    with keeping_signals():
        yield


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site once, with every warning an error, for all processes; return the folder of its pages."""
    home = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        home = home.parent  # the one that all workers see

    with FileLock(home / "site.lock"):
        built = home / "site" / "built"
        if not built.is_file():
            site.build(home / "site")
            built.touch()
    return home / "site" / "_build" / "html"


@pytest.fixture(scope="module")
def chromium():
    """Run a browser."""
    with browsers.launched() as running:
        yield running


@pytest.fixture(scope="module")
def address(pages: Path):
    """Serve the site, and return the address of its root."""
    with browsers.served(pages) as root:
        yield root


def write_notebook(path: Path, cells: list[str], title: str = "# 5. Toy") -> Path:
    """Write a notebook of one heading and these code cells."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell(title)]
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
    return path


class Course:
    """A course folder with notebooks and a library of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.library = root / "minigpt_lib"
        self.library.mkdir()
        (self.library / "__init__.py").write_text('"""A library under test."""\n', encoding="utf-8")
        self.target = self.library / "toy.py"
        self.environment = {
            **os.environ,
            "MINIGPT_ROOT": str(root),
            "PYTHONPATH": os.pathsep.join([str(root), str(paths.CODE)]),
        }

    def chapter(self, *cells: str, name: str = "05_toy", module: str = MODULE) -> Path:
        """Write a chapter that opens `module` and goes on with these cells; return its path."""
        path = self.root / "notebooks" / f"{name}.ipynb"
        return write_notebook(path, [module, *cells])

    def good(self) -> Path:
        """Write a chapter that can be exported; return its path."""
        return self.chapter(SETUP, EXPORT, CHECK)

    def files(self) -> dict[str, str]:
        """Return the library as it is on disk: the text of every file by its name, hidden ones included."""
        found = (path for path in self.library.iterdir() if path.is_file())
        return {path.name: path.read_bytes().decode("utf-8") for path in found}

    def command(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `python -m courseware` in this course, with these additions to the environment."""
        return subprocess.Popen(
            [sys.executable, "-m", "courseware", *arguments],
            env={**self.environment, **environment},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    """Point courseware at an empty course in a temporary folder."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "LIBRARY", tmp_path / "minigpt_lib")
    monkeypatch.setattr(paths, "ORIGINALS", tmp_path / "originals.json")
    monkeypatch.setattr(paths, "STATE", tmp_path / ".course")
    monkeypatch.setenv("MINIGPT_ROOT", str(tmp_path))
    for name in [m for m in sys.modules if m.startswith("minigpt_lib.toy")]:
        del sys.modules[name]
    return Course(tmp_path)
