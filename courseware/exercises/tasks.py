"""What the notebooks in solutions/ say about each exercise: task, given code and reference answer.

In a solutions notebook an exercise is a heading, a line in italics, a cell with the answer, and a check:

    ## 2. Attention weights for a padded batch
    *20 minutes, medium (●●○).*

    def masked_weights(q, k, real):
        ### BEGIN SOLUTION
        ...
        ### END SOLUTION

    check("masked_weights", masked_weights)

Under a heading that begins with "Find the bug" the lines `### STUB: code` are the code to repair.
"""

from __future__ import annotations

import json
import linecache
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from courseware import paths
from courseware.exercises.stubs import BEGIN, StubError, solved, strip

DIFFICULTIES = {"easy (●○○)": 1, "medium (●●○)": 2, "hard (●●●)": 3}

_HEADING = re.compile(r"^## \d+\. (?P<title>.+)$", re.MULTILINE)
_EFFORT = re.compile(r"^\*(?P<minutes>\d+) minutes, (?P<difficulty>.+? \(.{3}\))\.", re.MULTILINE)
_CHECK = re.compile(r'^check\("(?P<name>\w+)", (?P<function>\w+)\)$')
_CALL = re.compile(r"^(# )?(check|hint|solution)\(")


class SolutionsError(ValueError):
    """A notebook in solutions/ is missing or damaged."""


@dataclass(frozen=True)
class Task:
    """One exercise as its solutions notebook has it."""

    name: str
    title: str
    minutes: int
    difficulty: int  # 1 easy, 2 medium, 3 hard
    function: str  # the name of the function that the learner writes
    source: str  # the cell with the reference answer
    stub: str  # the same cell as the learner finds it
    earlier: tuple[str, ...] = ()  # the cells before it: imports and constants
    notebook: str = "solutions"

    @property
    def repair(self) -> bool:
        """Whether the learner is given code with a bug in it, rather than an empty function."""
        return self.title.lower().startswith("find the bug")

    @property
    def reference(self) -> Any:
        """The reference answer, a function."""
        return self.compiled(self.source)

    @property
    def given(self) -> Any:
        """The function to repair, or None if the learner starts from an empty one."""
        return self.compiled(self.stub) if self.repair else None

    def compiled(self, source: str) -> Any:
        """Execute a version of the answer's cell after the cells before it; return its function.

        Raises SolutionsError if the code does not run.
        """
        space: dict[str, Any] = {"__name__": f"solution_{self.name}"}

        for i, cell in enumerate((*self.earlier, source)):
            place = self._place(cell, i)
            linecache.cache[place] = (len(cell), None, cell.splitlines(True), place)
            try:
                exec(compile(cell, place, "exec", dont_inherit=True), space)
            except Exception as error:
                what = f"{type(error).__name__} in {place}: {error}"
                raise _damaged(self.notebook, what) from error

        if self.function not in space:
            raise _damaged(self.notebook, f"its answer to {self.name!r} defines no {self.function}")
        return space[self.function]

    def _place(self, cell: str, i: int) -> str:
        """Return a file name for the code of a cell, which tracebacks and inspect.getsource look up."""
        if i < len(self.earlier):
            return f"<{self.notebook}, code cell {i + 1}>"
        known = {self.source: "answer to", self.stub: "stub of"}
        return f"<{self.notebook}, {known.get(cell, 'edited answer to')} {self.name}>"


def task(stem: str, name: str) -> Task:
    """Return the task called `name` of the notebook `stem`, as in task("05_attention", "step_mask").

    Raises SolutionsError if the notebook is missing or damaged, or has no such task.
    """
    found = tasks(stem)
    if name not in found:
        raise _damaged(f"solutions/{stem}.ipynb", f'it has no check("{name}", …)')
    return found[name]


@cache
def tasks(stem: str) -> dict[str, Task]:
    """Return the tasks of a solutions notebook by name, in order.

    Raises SolutionsError if the notebook is missing or damaged.
    """
    place = f"solutions/{stem}.ipynb"
    try:
        text = (paths.ROOT / "solutions" / f"{stem}.ipynb").read_text(encoding="utf-8")
        cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads(text)["cells"]]
    except FileNotFoundError as error:
        raise _damaged(place, "it is missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(place, f"{type(error).__name__}: {error}") from error

    return {found.name: found for found in _tasks(cells, place)}


def _tasks(cells: list[tuple[str, str]], place: str) -> Iterator[Task]:
    """Yield the tasks of a notebook's cells."""
    heading = ""
    answer = ""
    earlier: list[str] = []

    for number, (kind, source) in enumerate(cells, 1):
        where = f"{place}, cell {number}"
        if kind == "markdown":
            heading = source if _HEADING.search(source) else heading
            continue

        check = _CHECK.match(source)
        if check:
            if not answer:
                raise _damaged(where, f"there is no {BEGIN} before {source}")
            yield _task(check, heading, answer, tuple(earlier), place, where)
            answer = ""
        elif BEGIN in source:
            answer = source
        elif kind == "code" and not _CALL.match(source):
            earlier.append(source)


def _task(
    check: re.Match, heading: str, answer: str, earlier: tuple[str, ...], place: str, where: str
) -> Task:
    """Return the task of a check, the heading before it and the answer before it."""
    title, effort = _HEADING.search(heading), _EFFORT.search(heading)
    if not title or not effort or effort["difficulty"] not in DIFFICULTIES:
        raise _damaged(
            where,
            f"the text before {check[0]} should have a heading `## 1. Title` and a line "
            f"`*20 minutes, medium (●●○).*` with one of {', '.join(DIFFICULTIES)}",
        )

    try:
        source, stub = solved(answer), strip(answer, where)
    except StubError as error:
        raise _damaged(where, str(error)) from error

    return Task(
        name=check["name"],
        title=title["title"],
        minutes=int(effort["minutes"]),
        difficulty=DIFFICULTIES[effort["difficulty"]],
        function=check["function"],
        source=source,
        stub=stub,
        earlier=earlier,
        notebook=place,
    )


def _damaged(place: str, what: str) -> SolutionsError:
    return SolutionsError(
        f"{place} cannot be used: {what}. The checks compare your answer with this notebook. "
        "Bring back the course's own copy of it (`git checkout solutions`, or from the archive), "
        "and restart the kernel."
    )
