"""The quizzes: every question can be answered, every choice explains itself, and the page needs no script for it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from courseware import paths
from courseware.site.quizzes import FOLDER, Question, headings, read_quiz, with_quiz

FILES = sorted(FOLDER.glob("*.yml"))
CHAPTERS = [path.stem for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb") if path.stem[:2] != "00"]


def questions() -> list[Question]:
    return [question for path in FILES for question in read_quiz(path)]


def place_of_right(question: Question) -> int:
    return [choice.right for choice in question.choices].index(True)


def test_every_chapter_has_a_quiz():
    assert set(CHAPTERS) <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_questions_lead_to_places_in_the_chapter(path):
    chapter = paths.NOTEBOOKS / f"{path.stem}.ipynb"
    assert chapter.is_file()

    places = headings(nbformat.read(chapter, as_version=4))
    for question in read_quiz(path):
        assert question.place in places, question.text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_choices_are_distinct_and_explained(path):
    for question in read_quiz(path):
        texts = [choice.text for choice in question.choices]
        assert len(set(texts)) == len(texts)
        assert question.text.rstrip().endswith(("?", "."))
        for choice in question.choices:
            assert len(choice.why.split()) >= 5, choice
            assert choice.why.rstrip().endswith((".", "!", "?")), choice


def test_the_right_choice_cannot_be_guessed_from_its_place():
    for path in FILES:
        places = {place_of_right(question) for question in read_quiz(path)}
        assert len(places) > 1, path.name

    counts = Counter(map(place_of_right, questions()))
    assert min(counts[place] for place in range(3)) >= 0.25 * len(questions()), counts


def test_the_right_choice_cannot_be_guessed_from_its_length():
    def is_extreme(question: Question, best) -> bool:
        lengths = [len(choice.text) for choice in question.choices]
        return lengths[place_of_right(question)] == best(lengths)

    for best in (max, min):
        share = sum(is_extreme(question, best) for question in questions()) / len(questions())
        assert 0.15 <= share <= 0.5, (best.__name__, share)


# ---------------------------------------------------------------- reading and showing


GOOD = """
- question: What does `x` do?
  place: Somewhere
  choices:
    - {text: "Nothing <b>", why: "It does something, look again."}
    - {text: "Something", why: "Yes.", right: true}
    - {text: "Much", why: "Not so much, and *never* quickly."}
"""


def quiz_file(folder: Path, text: str) -> Path:
    path = folder / "05_toy.yml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (", right: true", "", "one right choice, got 0"),
        ('again."', 'again.", right: true', "one right choice, got 2"),
        ('why: "Yes.", ', "", "lacks its `why`"),
        ('    - {text: "Much"', '#   - {text: "Much"', "at least 3 choices, got 2"),
    ],
)
def test_a_quiz_with_a_fault_is_refused(tmp_path, old, new, complaint):
    assert old in GOOD
    with pytest.raises(ValueError, match=re.escape(complaint)):
        read_quiz(quiz_file(tmp_path, 3 * GOOD.replace(old, new)))


def test_three_questions_are_the_least(tmp_path):
    with pytest.raises(ValueError, match="at least 3 questions, got 2"):
        read_quiz(quiz_file(tmp_path, 2 * GOOD))

    assert len(read_quiz(quiz_file(tmp_path, 3 * GOOD))) == 3


def test_the_quiz_stands_before_the_exercises(tmp_path, monkeypatch):
    monkeypatch.setattr("courseware.site.quizzes.FOLDER", tmp_path)
    quiz_file(tmp_path, 3 * GOOD)
    notebook = nbformat.v4.new_notebook()
    for source in ("# 5. Toy", "## Somewhere", "Around it.\n\n## Exercises\n\nAll of them."):
        notebook.cells.append(nbformat.v4.new_markdown_cell(source))
    text = nbformat.writes(notebook)

    cells = json.loads(with_quiz(text, "05_toy"))["cells"]
    assert len(cells) == 3
    shown = "".join(cells[2]["source"])
    assert shown.index("Around it") < shown.index("## Check yourself") < shown.index("## Exercises")
    assert shown.count("<details") == shown.count("</details>") == 9
    assert "<summary>Nothing &lt;b&gt;</summary>" in shown, "a choice is text, not markup"
    assert "What does <code>x</code> do?" in shown
    assert "[Somewhere](#somewhere)" in shown
    assert with_quiz(text, "06_other") == text
    with pytest.raises(ValueError, match="no heading '## Exercises'"):
        with_quiz(text.replace("## Exercises", "## Others"), "05_toy")


# ---------------------------------------------------------------- the built pages


@pytest.mark.slow
@pytest.mark.parametrize("stem", [path.stem for path in FILES])
def test_the_page_shows_the_quiz_before_the_exercises(pages, stem):
    page = (pages / "notebooks" / f"{stem}.html").read_text(encoding="utf-8")
    quiz = page.partition('<section id="check-yourself">')[2].partition("</section>")[0]

    assert quiz.count('role="group"') == len(read_quiz(FOLDER / f"{stem}.yml"))
    assert page.index('id="check-yourself"') < page.index('<section id="exercises">')
    for target in re.findall(r'Look again: <a class="reference internal" href="#([^"]+)"', quiz):
        assert f'id="{target}"' in page


@pytest.mark.slow
@pytest.mark.browser
def test_choices_open_with_the_keyboard_and_without_a_script(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}notebooks/05_attention.html")
    question = page.get_by_role("group", name=re.compile("Queries and keys hold 64"))
    why = question.get_by_text("64 products have variance 64")
    assert not why.is_visible()

    question.locator("summary").nth(1).press("Enter")
    assert why.is_visible()
    assert question.get_by_text("Right.").is_visible()
    context.close()
