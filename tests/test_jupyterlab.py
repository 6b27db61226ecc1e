"""A reader's first fifteen minutes: open chapter 1 in JupyterLab, run all cells, export it, type into a widget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import browser as browsers
import pytest
from lab import PATIENCE, copy_course, idle, jupyterlab, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.browser]

NOTEBOOK = "notebooks/01_characters.ipynb"  # the whole test takes about 20 s


@pytest.fixture
def course_copy(tmp_path: Path) -> Path:
    """Copy the course to a temporary folder, with the chapter's module removed from the library."""
    root = tmp_path / "course"
    copy_course(root)
    (root / "minigpt_lib" / "char_tokenizer.py").unlink(missing_ok=True)
    return root


def run_all_cells(page: Any) -> None:
    """Choose Run All Cells in JupyterLab's menu, and wait until the last cell has an output."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()

    outputs = page.locator(".jp-NotebookPanel .jp-OutputArea-output")
    last = page.locator(".jp-CodeCell").last.locator(".jp-OutputArea-output")
    wait_for(last.count, lambda: outputs.all_inner_texts()[-3:])
    assert "exported" in last.first.inner_text()


def type_into_widget(page: Any, text: str) -> None:
    """Type a text into the chapter's first text field and leave the field."""
    field = page.locator(".widget-text input").first
    field.fill(text)
    field.press("Tab")


def test_a_reader_runs_chapter_one_and_exports_it(course_copy, tmp_path):
    home = tmp_path / "jupyter"
    with browsers.launched() as chromium, jupyterlab(course_copy, home) as address:
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        own = (address, address.replace("http", "ws"), "data:", "blob:")
        strangers = []

        def note_strangers(request):
            if not request.url.startswith(own):
                strangers.append(request.url)

        page.on("request", note_strangers)
        page.goto(f"{address}/lab/tree/{NOTEBOOK}?reset")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=PATIENCE * 1000)
        # Before the kernel is idle, Run All Cells would ask for a kernel and run nothing.
        wait_for(lambda: idle(address), lambda: "the kernel did not become idle")

        run_all_cells(page)
        errors = page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
        assert errors.all_inner_texts() == []
        module = course_copy / "minigpt_lib" / "char_tokenizer.py"
        assert "class CharTokenizer" in module.read_text(encoding="utf-8")

        # The text reaches Python, and Python's answer comes back.
        type_into_widget(page, "to€")
        answer = page.locator(".widget-html").filter(has_text="Refused")
        answer.first.wait_for(timeout=20_000)
        assert "U+20AC" in answer.first.inner_text()

        type_into_widget(page, "to be")
        page.locator(".widget-html").filter(has_text="5 tokens").first.wait_for(timeout=20_000)
        assert not strangers
