"""Read the chapters: which notebooks there are, and what each of their cells is for.

A code cell says what it is for in its first line:

    #| module: attention                        the module's name; the comment lines below become its docstring
    #| setup                                    imports and data that the checks need; not exported
    #| export                                   belongs to the library
    #| check: causal | against: perturbation    proves it

All other cells are the chapter's own and never leave it.
"""

from __future__ import annotations

import difflib
import json
import keyword
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from courseware import paths
from courseware.errors import ExportRefused

KINDS = ("module", "setup", "export", "check")
_NAME = re.compile(r"(\d\d)_([a-z0-9_]+)\.ipynb")
_MODULE = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Cell:
    """One code cell that takes part in the export; `number` counts the code cells from 1."""

    number: int
    kind: str
    argument: str
    source: str  # the whole cell, directive included

    @property
    def body(self) -> str:
        """Return the cell without its directive line, with no blank lines around."""
        return self.source.partition("\n")[2].strip("\n")

    @property
    def label(self) -> str:
        """Return how messages name this cell: its place and its first line of code."""
        lines = [line for line in self.body.splitlines() if line.strip()]
        first = lines[0].strip() if lines else "empty"
        return f"code cell {self.number} (`{first[:60]}`)"

    @property
    def claim(self) -> tuple[str, str]:
        """Split a check's title into what it proves and the reference it is proved against."""
        what, _, against = self.argument.partition("|")
        return what.strip(), against.strip().removeprefix("against:").strip()


@dataclass(frozen=True)
class Chapter:
    """A notebook `NN_topic.ipynb` as it is saved on disk."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name[:2])

    @property
    def stem(self) -> str:
        return self.path.stem

    @cached_property
    def _notebook(self) -> dict:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ExportRefused(
                f"{self.path.name} is not a readable notebook ({error})",
                remedy=f"open it in JupyterLab, or run: make reset CH={self.path.name[:2]}",
            ) from None

    @cached_property
    def title(self) -> str:
        """Return the first heading, without its number."""
        for cell in self._notebook["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown" and text.startswith("# "):
                return re.sub(r"^# (\d+\.\s*)?", "", text.splitlines()[0]).strip()
        return self.stem

    @cached_property
    def code(self) -> list[str]:
        """Return the source of every code cell, in order."""
        cells = self._notebook["cells"]
        sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        return [source.replace("\r\n", "\n") for source in sources]

    @cached_property
    def markdown(self) -> list[str]:
        """Return the source of every Markdown cell, in order."""
        cells = self._notebook["cells"]
        return ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]

    @cached_property
    def cells(self) -> list[Cell]:
        """Return the cells that carry a directive, in order."""
        found = (parse_cell(n, source) for n, source in enumerate(self.code, 1))
        return [cell for cell in found if cell is not None]

    def of(self, kind: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == kind]

    @cached_property
    def module(self) -> str | None:
        """Return the name of the module that this chapter exports, or None if it exports nothing."""
        cells = self.of("module")
        if not cells:
            return None
        if len(cells) > 1:
            raise ExportRefused(
                "the notebook names its module twice",
                where=" and ".join(cell.label for cell in cells),
                remedy="keep one `#| module:` cell, at the top of the notebook",
            )
        return check_module_name(cells[0])


def check_module_name(cell: Cell) -> str:
    """Return the module name of a `#| module:` cell; refuse anything that is not a plain lower-case name."""
    name = cell.argument
    ok = _MODULE.fullmatch(name) and not keyword.iskeyword(name)
    if not ok or (paths.LIBRARY / f"{name}.py").resolve().parent != paths.LIBRARY.resolve():
        raise ExportRefused(
            f"{name!r} cannot be a module name: it must be one lower-case word such as attention, "
            "with no dots and no slashes, so that the file stays inside minigpt_lib",
            where=f"code cell {cell.number}",
            remedy="write for example `#| module: attention` in that cell's first line",
        )
    return name


def parse_cell(number: int, source: str) -> Cell | None:
    """Read the directive in a code cell's first line; return None if it has none."""
    first = source.partition("\n")[0].strip()
    if not first.startswith("#|"):
        return None
    word, _, argument = first[2:].strip().partition(":")
    word, argument = word.strip(), argument.strip()
    where = f"code cell {number}, first line: `{first}`"
    if word not in KINDS:
        near = difflib.get_close_matches(word, KINDS, n=1) or ["export"]
        raise ExportRefused(
            f"`#| {word}` is not a directive of this course",
            where=where,
            remedy=f"did you mean `#| {near[0]}`? There are four: {', '.join(KINDS)}",
        )
    if word == "check" and not argument.partition("|")[0].strip():
        raise ExportRefused(
            "a check must say what it proves",
            where=where,
            remedy="write `#| check: what it proves | against: the reference` in the first line",
        )
    return Cell(number, word, argument, source)


def all_chapters() -> list[Chapter]:
    """Return the chapters in order of their numbers; copies and checkpoints are passed over."""
    found = [p for p in sorted(paths.NOTEBOOKS.glob("*.ipynb")) if _NAME.fullmatch(p.name)]
    return [Chapter(path) for path in found]


def find_chapter(which: str | int) -> Chapter:
    """Return the chapter called `which`: 5, "5", "05", "05_attention" or the notebook's path."""
    text = Path(str(which)).name.removesuffix(".ipynb")
    chapters = all_chapters()
    for chapter in chapters:
        if text == chapter.stem or (text.isdigit() and int(text) == chapter.number):
            return chapter
    known = ", ".join(c.stem for c in chapters) or f"none in {paths.NOTEBOOKS}"
    raise ExportRefused(f"there is no chapter {str(which)!r}", remedy=f"the chapters are: {known}")


def module_numbers() -> dict[str, int]:
    """Map every module of the library to the number of the chapter that exports it."""
    numbers: dict[str, int] = {}
    for chapter in all_chapters():
        name = chapter.module
        if name in numbers:
            raise ExportRefused(
                f"chapters {numbers[name]:02d} and {chapter.number:02d} both export the module {name!r}",
                remedy="give one of them another name in its `#| module:` cell",
            )
        if name:
            numbers[name] = chapter.number
    return numbers
