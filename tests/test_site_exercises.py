"""Exercises on the website: hints and solution are folded under each task, and the side bar leads to them."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import nbformat
import pytest

from courseware import paths
from courseware.exercises.engine import Exercise
from courseware.exercises.learner import exercises_of, find, registry
from courseware.site.folding import folded, folds

NOTEBOOKS = sorted((paths.ROOT / "exercises").glob("*.ipynb"))


def folded_text(path: Path) -> str:
    text = folded(path.read_text(encoding="utf-8"), path.stem)
    nbformat.validate(nbformat.reads(text, as_version=4))
    return "\n\n".join(cell["source"] for cell in nbformat.reads(text, as_version=4).cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_task_has_its_hints_and_its_solution_under_it(path):
    text = folded_text(path)
    assert not re.search(r"^(# )?(check|hint|solution)\(", text, re.M), (
        "a cell for the kernel is left"
    )

    names = exercises_of(int(path.stem[:2]))
    parts = re.split(r"^## (?=\d)", text, flags=re.M)[1:]
    assert len(parts) == len(names)
    for part, name in zip(parts, names):
        exercise = find(name)
        assert part.count("<summary>Hint ") == len(exercise.hints)
        assert part.count("<summary>Solution</summary>") == 1
        assert exercise.task.source.strip() in part
        assert part.index("<summary>Hint 1") > part.index("\n"), "the task comes first"


def test_hints_are_text_and_never_markup():
    exercise = Exercise(
        name="toy",
        probe=lambda answer: iter(()),
        hints=("Use `a <b>`, not **c**.", "Then <script>."),
        explanation="Because.",
        stem="nowhere",
    )
    text = folds(exercise)

    assert "<p>Use <code>a &lt;b&gt;</code>, not **c**.</p>" in text
    assert "<script" not in text
    assert "Solution" not in text, "there is no notebook that could have one"


def test_other_cells_stay_as_they_are():
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# Exercises"),
        nbformat.v4.new_code_cell('x = 1  # hint("step_mask")'),
        nbformat.v4.new_code_cell('# hint("no_such_exercise")'),
        nbformat.v4.new_code_cell('check("step_mask", step_mask)'),
    ]
    cells = json.loads(folded(nbformat.writes(notebook), "05_attention"))["cells"]

    assert ["".join(cell["source"]) for cell in cells[1:3]] == [
        'x = 1  # hint("step_mask")',
        '# hint("no_such_exercise")',
    ]
    assert len(cells) == 4 and "../solutions/05_attention.ipynb" in "".join(cells[3]["source"])


# ---------------------------------------------------------------- the built pages


@pytest.mark.slow
def test_the_side_bar_lists_chapters_with_their_exercises_and_no_solutions(pages):
    page = (pages / "notebooks" / "05_attention.html").read_text(encoding="utf-8")
    bar = page.partition("bd-sidebar-primary")[2].partition("bd-main")[0]
    links = [html.unescape(link) for link in re.findall(r'href="([^"#]+\.html)', bar)]

    stems = [Path(link).stem for link in links if "exercises/" in link]
    assert sorted(stems) == [path.stem for path in NOTEBOOKS]  # 21 follows 16 in the book
    for path in NOTEBOOKS:
        chapter = "00_start_here" if path.stem == "00_warmups" else path.stem
        before = next(
            i for i, link in enumerate(links) if Path(link).stem == path.stem and "exer" in link
        )
        assert chapter in links[before - 1] or chapter == "05_attention", "beneath its chapter"
    assert not [link for link in links if "solutions/" in link]


@pytest.mark.slow
def test_solutions_are_reached_from_the_exercises(pages):
    for path in NOTEBOOKS:
        page = (pages / "exercises" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert f'href="../solutions/{path.stem}.html"' in page
        assert page.count("<details") == page.count("</details>")
        assert "<summary>Solution</summary>" in page


def test_every_exercise_is_on_a_page():
    assert {exercise.stem for exercise in registry().values()} == {path.stem for path in NOTEBOOKS}


@pytest.mark.slow
@pytest.mark.browser
def test_a_wide_solution_can_be_scrolled_with_the_keyboard(chromium, address):
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{address}exercises/05_attention.html")
    page.wait_for_selector("html[data-ready]")
    solution = page.locator("details.help", has_text="Solution").first

    solution.locator("summary").press("Enter")
    page.wait_for_function("document.querySelector('details.help[open] pre')?.tabIndex === 0")
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    context.close()
    assert wide <= 0
