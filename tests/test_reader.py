"""A reader's weekend in JupyterLab: the dashboard, a mask that is off by one, its repair, and an exercise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import browser as browsers
import nbformat
import pytest
from lab import PATIENCE, ask, copy_course, idle, jupyterlab, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.browser]

RIGHT = "return places <= places[n_keys - n_queries :, None]"
OFF_BY_ONE = "return places <= places[n_keys - n_queries :, None] + 1"
MINE = "return places[n_keys - n_queries :, None] >= places  # my own way to say it"
ANSWER = """def step_mask(n_new, n_cached):
    places = torch.arange(n_cached + n_new)
    return places {sign} places[n_cached:, None]
"""
USED = """import inspect
import torch
from minigpt_lib.model import *
from minigpt_lib import attention
assert TransformerBlock.__module__ == "minigpt_lib.model"
print(inspect.getsource(attention.causal_mask))
block = TransformerBlock(GPTConfig(vocab_size=10, fused=False))
attention.causal_mask = lambda *sizes: print("chapter 9 calls it") or torch.ones(sizes[:2]).tril() > 0
block(torch.randn(1, 4, 128))
"""


class Reader:
    """Somebody who reads a notebook in JupyterLab and types into it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address

    def open(self, notebook: str) -> None:
        """Open a notebook by itself, and wait for its kernel."""
        self.page.goto(f"{self.address}/lab/tree/{notebook}?reset")
        self.ready(notebook)

    def ready(self, notebook: str) -> None:
        """Wait until a notebook is shown and its kernel idle: until then, nothing that is run would run."""
        self.page.wait_for_selector(
            ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", timeout=PATIENCE * 1000
        )

        def started() -> bool:
            paths = [session["path"] for session in ask(f"{self.address}/api/sessions") or []]
            return notebook in paths and idle(self.address)

        wait_for(started, lambda: f"the kernel of {notebook} did not become idle")

    def cell(self, words: str) -> Any:
        """Return the code cell of the notebook on the screen whose text has these words."""
        cells = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell")
        editors = self.page.locator(".cm-content:visible").filter(has_text=words)
        return cells.filter(has=editors).first

    def write(self, cell: Any, text: str) -> None:
        """Replace the text of a cell."""
        cell.locator(".cm-content").fill(text)

    def text_of(self, cell: Any) -> str:
        """Return the text of a cell, as it is on the screen."""
        return "\n".join(cell.locator(".cm-line").all_inner_texts())

    def run(self, cell: Any, expected: str) -> str:
        """Run a cell with Shift+Enter, and return its output when it says what is expected."""
        cell.locator(".cm-content").press("Shift+Enter")
        output = cell.locator(".jp-OutputArea-output")

        def said() -> str:
            text = "\n".join(output.all_inner_texts())
            return text if expected in text and idle(self.address) else ""

        return wait_for(said, lambda: (expected, output.all_inner_texts()))

    def run_both(self, answer: Any, check: Any, expected: str) -> str:
        """Run an answer and then its check, and return what the check says."""
        answer.locator(".cm-content").press("Shift+Enter")
        return self.run(check, expected)

    def run_all(self, expected: str) -> None:
        """Choose Run All Cells, and wait until the last code cell says what is expected."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        last = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").last

        def said() -> bool:
            return expected in "\n".join(last.locator(".jp-OutputArea-output").all_inner_texts())

        wait_for(lambda: said() and idle(self.address), self.errors)

    def errors(self) -> list[str]:
        """Return what went wrong in the notebook on the screen."""
        error = "[data-mime-type='application/vnd.jupyter.error']"
        return self.page.locator(error).all_inner_texts()

    def save(self) -> None:
        """Press Ctrl+S, and wait until the notebook is saved."""
        self.page.keyboard.press("Control+s")
        dirty = self.page.locator(".jp-mod-dirty")
        wait_for(lambda: dirty.count() == 0, lambda: "the notebook was not saved")


@pytest.fixture
def course_copy(tmp_path: Path) -> Path:
    """Copy the course to a temporary folder, with chapter 5 reduced to what its export needs.

    Its experiments train for half a minute and have no part in this. Chapter 0 has lost its stored outputs, so that
    what is seen is new.
    """
    root = tmp_path / "course"
    copy_course(root)
    path = root / "notebooks" / "00_start_here.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(notebook, path)

    path = root / "notebooks" / "05_attention.ipynb"
    notebook = nbformat.read(path, as_version=4)
    wanted = ("#|", "export(")
    notebook.cells = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "markdown" or cell.source.startswith(wanted)
    ]
    nbformat.write(notebook, path)
    return root


def test_a_reader_breaks_attention_repairs_it_and_solves_an_exercise(course_copy, tmp_path):
    module = course_copy / "minigpt_lib" / "attention.py"
    before = module.read_text(encoding="utf-8")
    with browsers.launched() as chromium, jupyterlab(course_copy, tmp_path / "lab") as address:
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        reader = Reader(page, address)

        # The course opens on the dashboard, which leads to chapter 5.
        reader.open("notebooks/00_start_here.ipynb")
        said = reader.run(reader.cell("dashboard.show()"), "Next step:")
        assert "chapter 1, Characters" in said and "not verified yet" in said
        page.locator(".jp-OutputArea-output a[href*='05_attention']").first.click()
        reader.ready("notebooks/05_attention.ipynb")
        reader.run_all("exported")

        # A query that sees one token too many is refused, and the message names the cause.
        mask = reader.cell("def causal_mask(")
        source = reader.text_of(mask)
        assert RIGHT in source
        reader.write(mask, source.replace(RIGHT, OFF_BY_ONE))
        page.keyboard.press("Shift+Enter")
        reader.save()
        export = reader.cell("export(")
        said = reader.run(export, "Not exported")
        assert "query 0 is token 0 and must not see key 1" in said
        assert "What to do: correct the code" in said and "Traceback" not in said
        assert module.read_text(encoding="utf-8") == before

        # The repair goes into the library, in the reader's own words, and chapter 9 uses it.
        reader.write(mask, source.replace(RIGHT, MINE))
        page.keyboard.press("Shift+Enter")
        reader.save()
        reader.run(export, "exported minigpt_lib/attention.py")
        assert MINE in module.read_text(encoding="utf-8")

        reader.open("notebooks/09_model.ipynb")
        reader.write(reader.cell("letters ="), USED)
        said = reader.run(reader.cell("import *"), "chapter 9 calls it")
        assert MINE in said and "Traceback" not in said

        # An exercise: a wrong try with its diagnosis, a hint, the right answer.
        reader.open("exercises/05_attention.ipynb")
        page.locator(".jp-CodeCell").first.locator(".cm-content").press("Shift+Enter")
        answer = reader.cell("def step_mask(")
        check = reader.cell('check("step_mask"')
        assert "Not attempted yet" in reader.run_both(answer, check, "Not attempted")

        reader.write(answer, ANSWER.format(sign="<"))
        said = reader.run_both(answer, check, "Not yet")
        assert "a new token cannot see itself" in said
        hint = reader.cell('hint("step_mask")')
        reader.write(hint, 'hint("step_mask")')
        assert "There are n_new rows" in reader.run(hint, "Hint 1 of 3")
        reader.write(answer, ANSWER.format(sign="<="))
        reader.run_both(answer, check, "Right: Who a new token may see")
        reader.save()

        # The dashboard keeps score.
        reader.open("notebooks/00_start_here.ipynb")
        said = reader.run(reader.cell("dashboard.show()"), "✓ verified")
        assert "✓ verified · 1 of 5 exercises" in said
