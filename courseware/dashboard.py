"""What a learner has done so far, and what to do next: the first cell of chapter 00, and `make progress`."""

from __future__ import annotations

import ast
import html
import re
from dataclasses import dataclass

from courseware import progress
from courseware.exercises import Exercise, exercises_of, registry
from courseware.export.blanks import unwritten
from courseware.export.notebooks import Chapter, all_chapters

_SHORT = 15  # minutes; an exercise that fits into a short evening
_DIFFICULTIES = {1: "easy", 2: "medium", 3: "hard"}
_HEADER = ("", "chapter", "time", "your module", "exercises right")
_TIME = re.compile(r"\*\*Time:\*\* ([^,;.(]+)")  # as the first cell of every chapter says it


@dataclass(frozen=True)
class Stage:
    """A weekend's worth of chapters, and what you have at its end."""

    first: int
    last: int
    goal: str


STAGES = (
    Stage(0, 4, "text becomes numbers, and your first language models write bad Shakespeare"),
    Stage(
        5, 9, "attention and its companions become a GPT, with the same numbers as Hugging Face's"
    ),
    Stage(10, 12, "your GPT trains on all of Shakespeare, writes, and is measured"),
    Stage(13, 16, "it reads documents, learns to answer, and becomes your own assistant"),
    Stage(17, 99, "several processes train one model, and you know what a larger one costs"),
)


def summary() -> str:
    """Return what to do tonight and this weekend, and a table with a line for each chapter."""
    done = progress.read()
    rows = [_HEADER] + [_row(chapter, done) for chapter in all_chapters()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]

    lines = [f"{when} {what}" for when, what in _suggestions(done)] + [""]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def show() -> None:
    """Display the same in a notebook: two cards, and a bar for each chapter."""
    from IPython.display import display

    display({"text/html": to_html(), "text/plain": summary()}, raw=True)


def to_html() -> str:
    """Return the dashboard as HTML, in the colours of the page."""
    done = progress.read()
    card = "flex:1 1 15em;padding:.6em .9em;border:1px solid #80808066;border-radius:8px"
    cards = "".join(
        f'<div style="{card}"><strong>{html.escape(when)}</strong><br>{html.escape(what)}</div>'
        for when, what in _suggestions(done)
    )
    lines = "".join(_line(chapter, done) for chapter in all_chapters())
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:.8em;margin-bottom:.8em">{cards}</div>'
        '<div role="list" style="display:grid;grid-template-columns:2.2em minmax(8em,auto) minmax(3em,1fr);'
        f'gap:.3em .7em;align-items:center;max-width:44em">{lines}</div>'
    )


def _suggestions(done: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Return what fits into ten minutes, what into a weekend, and which chapter comes next."""
    return [
        ("Ten minutes tonight:", _tonight(done)),
        ("This weekend:", _weekend(done)),
        ("Next step:", _next_step(done)),
    ]


def _tonight(done: dict[str, dict[str, str]]) -> str:
    if not done.get("chapter") and not done.get("exercise"):
        return "run chapter 0, and let its six lines write Shakespeare."

    exercise = _next_exercise(done)
    if exercise is None:
        return "talk to your assistant: python -m minigpt_lib.terminal."
    task = exercise.task
    title = task.title.split(". ", 1)[-1]
    difficulty = _DIFFICULTIES[task.difficulty]
    return f"the exercise “{title}” of chapter {exercise.chapter} ({task.minutes} minutes, {difficulty})."


def _next_exercise(done: dict[str, dict[str, str]]) -> Exercise | None:
    """Return the first short exercise that is open in the chapters reached so far, or any open one of them."""
    solved = {name for name, state in done.get("exercise", {}).items() if state == "right"}
    reached = {chapter.number for chapter in all_chapters() if _is_done(chapter, done)} | {0}
    open_ones = [e for e in registry().values() if e.chapter in reached and e.name not in solved]
    short = [e for e in open_ones if e.task.minutes <= _SHORT]
    return next(iter(short or open_ones), None)


def _weekend(done: dict[str, dict[str, str]]) -> str:
    todo = [c.number for c in all_chapters() if not _is_done(c, done) and c.modules]
    for stage in STAGES:
        left = [number for number in todo if stage.first <= number <= stage.last]
        if left:
            which = f"chapter {left[0]}" if len(left) == 1 else f"chapters {left[0]} to {left[-1]}"
            return f"{which}: {stage.goal}."
    return "everything is exported: take your library to a GPU and real data."


def _next_step(done: dict[str, dict[str, str]]) -> str:
    """Return the chapter to open next: one that is being written, or the first that is not exported."""
    builders = [chapter for chapter in all_chapters() if chapter.modules]
    for chapter in builders:
        left = _left_to_write(chapter)
        if left:
            parts = "one part is" if left == 1 else f"{left} parts are"
            return f"go on writing chapter {chapter.number}, {chapter.title}: {parts} left."

    for chapter in builders:
        if not _is_done(chapter, done):
            return f"chapter {chapter.number}, {chapter.title} ({_time(chapter)})."
    return "have all of it proved again: make certificate."


def _left_to_write(chapter: Chapter) -> int:
    """Return how many parts of a chapter of `make code-along` are still to be written."""
    count = 0
    for cell in chapter.of("export"):
        if "NotImplementedError" not in cell.body:  # most chapters: no need to parse them
            continue
        try:
            count += len(unwritten(ast.parse(cell.body)))
        except SyntaxError:  # half written; the export will say where
            continue
    return count


def _time(chapter: Chapter) -> str:
    """Return how long reading a chapter takes, as its first cell says, or "-"."""
    found = _TIME.search(chapter.markdown[0]) if chapter.markdown else None
    return found[1].strip() if found else "-"


def _state(chapter: Chapter, done: dict[str, dict[str, str]]) -> str:
    """Return what has become of a chapter's module."""
    if not chapter.modules:
        return "-"
    left = _left_to_write(chapter)
    if left:
        return f"{left} to write"
    return "exported" if _is_done(chapter, done) else "not yet"


def _is_done(chapter: Chapter, done: dict[str, dict[str, str]]) -> bool:
    return chapter.stem in done.get("chapter", {})


def _solved(chapter: Chapter, done: dict[str, dict[str, str]]) -> tuple[int, int]:
    """Return how many exercises of a chapter are right, and how many there are."""
    names = exercises_of(chapter.number)
    states = done.get("exercise", {})
    return sum(states.get(name) == "right" for name in names), len(names)


def _row(chapter: Chapter, done: dict[str, dict[str, str]]) -> tuple[str, ...]:
    right, total = _solved(chapter, done)
    solved = f"{right} of {total}" if total else "-"
    return f"{chapter.number:02d}", chapter.title, _time(chapter), _state(chapter, done), solved


def _line(chapter: Chapter, done: dict[str, dict[str, str]]) -> str:
    """Return a chapter's line: its number, its title as a link, what is done and how long it takes, and a bar."""
    right, total = _solved(chapter, done)
    steps = total + bool(chapter.modules)
    finished = right + (bool(chapter.modules) and _is_done(chapter, done))
    share = finished / steps if steps else 0.0
    said = f"{finished} of {steps} done"
    bar = (
        f'<span role="img" aria-label="{said}" title="{said}" style="display:block;height:.6em;border-radius:.3em;'
        f'background:linear-gradient(90deg,#009E73 {share:.0%},#80808040 {share:.0%})"></span>'
    )

    state = {"exported": "&#10003; verified", "not yet": "not verified yet"}.get(
        _state(chapter, done), _state(chapter, done)
    )
    facts = [_time(chapter)]
    if chapter.modules:
        facts.append(state)
    if total:
        facts.append(f"{right} of {total} exercises")
    title = f'<a href="{chapter.path.stem}.ipynb">{html.escape(chapter.title)}</a>'
    small = f'<br><span style="font-size:.85em">{" · ".join(facts)}</span>'
    cells = f"<span>{chapter.number:02d}</span><span>{title}{small}</span>{bar}"
    return f'<div role="listitem" style="display:contents">{cells}</div>'
