"""Questions at the end of a chapter's page, for readers who want to know whether they have understood it.

They lie in `book/quizzes/NN_topic.yml`. Every choice is a fold of plain HTML, so that a page needs no script for them,
and a wrong choice explains itself just as the right one does.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from courseware import paths

FOLDER = paths.ROOT / "book" / "quizzes"
_TITLE = "## Check yourself"
_ABOUT = "*Open an answer to see what is right or wrong about it. The wrong ones are worth opening, too.*"
_EXERCISES = re.compile(r"^## Exercises$", re.M)


@dataclass(frozen=True)
class Choice:
    """One answer of a question, and why it is right or wrong."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question with its choices; `place` is the heading in the chapter where the answer can be found."""

    text: str
    place: str
    choices: tuple[Choice, ...]


def read_quiz(path: Path) -> list[Question]:
    """Return the questions of a file.

    Raises ValueError if the file has fewer than three questions, or if a question has fewer than three choices, a
    choice without an explanation, or not exactly one right choice.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    questions = [_question(entry, path) for entry in entries]
    if len(questions) < 3:
        raise ValueError(f"{path.name}: expected at least 3 questions, got {len(questions)}")
    return questions


def with_quiz(text: str, stem: str) -> str:
    """Return the chapter's notebook `text` with its quiz before the exercises; unchanged if it has no quiz.

    stem: the notebook's name, as in "05_attention". Raises ValueError if the notebook has no exercises.
    """
    path = FOLDER / f"{stem}.yml"
    if not path.is_file():
        return text

    notebook = nbformat.reads(text, as_version=4)
    places = headings(notebook)
    parts = [_TITLE, _ABOUT]
    parts += [_shown(question, i, places) for i, question in enumerate(read_quiz(path), 1)]
    quiz = "\n\n".join(parts)

    for cell in notebook.cells:
        start = _EXERCISES.search(cell.source) if cell.cell_type == "markdown" else None
        if start:
            before, after = cell.source[: start.start()], cell.source[start.start() :]
            cell.source = f"{before}{quiz}\n\n{after}"
            return nbformat.writes(notebook)
    raise ValueError(f"{stem} has no heading '## Exercises', before which its quiz would stand")


def headings(notebook: Any) -> list[str]:
    """Return the headings of a notebook, of the second and third level."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return re.findall(r"^#{2,3} (.+?)\s*$", "\n".join(texts), re.M)


def inline(text: str) -> str:
    """Return plain text as HTML; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _question(entry: Any, path: Path) -> Question:
    choices = tuple(
        Choice(str(choice["text"]), str(choice.get("why") or ""), choice.get("right", False))
        for choice in entry["choices"]
    )
    question = Question(entry["question"], entry["place"], choices)

    if len(choices) < 3:
        raise ValueError(
            f"{path.name}: expected at least 3 choices, got {len(choices)}: {question.text}"
        )
    if not all(choice.why for choice in choices):
        raise ValueError(f"{path.name}: a choice lacks its `why`: {question.text}")
    n_right = sum(choice.right for choice in choices)
    if n_right != 1:
        raise ValueError(f"{path.name}: expected one right choice, got {n_right}: {question.text}")
    return question


def _shown(question: Question, number: int, places: list[str]) -> str:
    """Return a question as Markdown: its text, a fold for each choice, and a link to its place."""
    name = f"check-yourself-{number}"
    parts = [
        f'<div class="question" role="group" aria-labelledby="{name}">\n'
        f'<p id="{name}"><b>{number}.</b> {inline(question.text)}</p>'
    ]

    for choice in question.choices:
        kind, verdict = ("right", "Right.") if choice.right else ("wrong", "Not quite.")
        start = f'<details class="choice {kind}"><summary>{inline(choice.text)}</summary>'
        parts += [start, f"**{verdict}** {choice.why}", "</details>"]

    if question.place in places:
        parts.append(f"Look again: [{question.place}](#{_anchor(question.place)})")
    return "\n\n".join([*parts, "</div>"])


def _anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
