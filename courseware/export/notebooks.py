"""Read the chapters: which notebooks there are, and what each of their cells is for.

A code cell says what it is for in its first line:

    #| module: attention                        opens a module; the comment lines below become its docstring
    #| setup                                    imports and data that the checks need; not exported
    #| export                                   belongs to the module that is open
    #| check: causal | against: perturbation    proves it

All other cells stay in the notebook.
"""

from __future__ import annotations

import difflib
import json
import keyword
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from courseware import paths
from courseware.export.errors import ExportRefused

KINDS = ("module", "setup", "export", "check")
_NAME = re.compile(r"(\d\d)_([a-z0-9_]+)\.ipynb")
_MODULE = re.compile(r"[a-z][a-z0-9_]*")
_CELL_TYPES = ("code", "markdown", "raw")


@dataclass(frozen=True)
class Cell:
    """One code cell that takes part in the export; `number` counts the code cells from 1."""

    number: int
    kind: str
    argument: str
    source: str  # the whole cell, directive included

    @property
    def body(self) -> str:
        """Return the cell without its directive line."""
        return self.source.partition("\n")[2].rstrip("\n")

    @property
    def label(self) -> str:
        """Return how messages name this cell: its place and its first line of code."""
        lines = [line for line in self.body.split("\n") if line.strip()]
        first = lines[0].strip() if lines else "empty"
        return f"code cell {self.number} (`{first[:60]}`)"

    @property
    def claim(self) -> tuple[str, str]:
        """Split a check's title into what it proves and the reference it is proved against."""
        what, _, against = self.argument.partition("|")
        return what.strip(), against.strip().removeprefix("against:").strip()


@dataclass(frozen=True)
class Section:
    """One module of a chapter: the cell that opens it and the exported cells up to the next one."""

    opening: Cell
    exports: list[Cell]

    @property
    def name(self) -> str:
        return self.opening.argument


@dataclass(frozen=True)
class Chapter:
    """A notebook `NN_topic.ipynb` as it is saved on disk, or as `text` has it."""

    path: Path
    text: str | None = None

    @property
    def number(self) -> int:
        return int(self.path.name[:2])

    @property
    def stem(self) -> str:
        return self.path.stem

    @cached_property
    def _cells(self) -> list[tuple[str, str]]:
        """Return (type, source) of every cell, with `\\n` at the line ends."""
        return _read_cells(self.path, self.text)

    def _sources(self, cell_type: str) -> list[str]:
        return [source for found, source in self._cells if found == cell_type]

    @cached_property
    def title(self) -> str:
        """Return the first heading, without its number."""
        for text in self.markdown:
            if text.startswith("# "):
                return re.sub(r"^# (\d+\.\s*)?", "", text.split("\n")[0]).strip()
        return self.stem

    @cached_property
    def code(self) -> list[str]:
        """Return the source of every code cell, in order."""
        return self._sources("code")

    @cached_property
    def markdown(self) -> list[str]:
        """Return the source of every Markdown cell, in order."""
        return self._sources("markdown")

    @cached_property
    def cells(self) -> list[Cell]:
        """Return the cells that carry a directive, in order."""
        found = (parse_cell(n, source) for n, source in enumerate(self.code, 1))
        return [cell for cell in found if cell is not None]

    def of(self, kind: str) -> list[Cell]:
        """Return the cells with this directive, in order."""
        return [cell for cell in self.cells if cell.kind == kind]

    @cached_property
    def sections(self) -> list[Section]:
        """Return one section for each module of the chapter, in order; empty if it exports nothing."""
        sections: list[Section] = []
        for cell in self.cells:
            if cell.kind == "module":
                check_module_name(cell)
                _refuse_second_opening(cell, sections)
                sections.append(Section(cell, []))
            elif cell.kind == "export" and sections:
                sections[-1].exports.append(cell)
        return sections

    @property
    def modules(self) -> list[str]:
        """Return the names of the modules that this chapter exports, in order."""
        return [section.name for section in self.sections]

    @property
    def homeless(self) -> list[Cell]:
        """Return the exported cells that stand before the first `#| module:` cell."""
        housed = [cell for section in self.sections for cell in section.exports]
        return [cell for cell in self.of("export") if cell not in housed]


def _read_cells(path: Path, text: str | None) -> list[tuple[str, str]]:
    """Return (type, source) of every cell; refuse a file that is not a notebook of format 4."""
    try:
        if text is None:
            text = path.read_text(encoding="utf-8")
        notebook = json.loads(text)
    except OSError as error:
        raise ExportRefused(
            f"{path.name} cannot be read ({error.strerror or error})",
            remedy=f"make it a readable file, or move it away and run: make reset CH={path.name[:2]}",
        ) from None
    except (ValueError, RecursionError) as error:
        raise ExportRefused(
            f"{path.name} is not a readable notebook ({error})",
            remedy=f"open it in JupyterLab, or run: make reset CH={path.name[:2]}",
        ) from None

    fault = _fault(notebook)
    if fault:
        raise ExportRefused(
            f"{path.name} is not a notebook of format 4: {fault}",
            remedy="open it in JupyterLab and save it, convert it with "
            f"`jupyter nbconvert --to notebook --nbformat 4 --inplace {path.name}`, "
            f"or run: make reset CH={path.name[:2]}",
        )
    return [(cell["cell_type"], _source(cell)) for cell in notebook["cells"]]


def _source(cell: dict[str, Any]) -> str:
    """Return the text of a cell with `\\n` at the line ends, as Python reads them."""
    text = "".join(cell["source"])
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _fault(notebook: Any) -> str:
    """Return what is wrong with the structure of a notebook, or ''."""
    if not isinstance(notebook, dict):
        return f"it holds {_kind(notebook)} where a notebook's JSON object was expected"
    if "nbformat" not in notebook:
        return "it does not say its format (`nbformat` is missing)"
    if notebook["nbformat"] != 4:
        return f"its `nbformat` is {notebook['nbformat']!r}"
    if not isinstance(notebook.get("cells"), list):
        return f"its `cells` are {_kind(notebook.get('cells'))} where a list was expected"

    for number, cell in enumerate(notebook["cells"], 1):
        fault = _cell_fault(cell)
        if fault:
            return f"cell {number} {fault}"
    return ""


def _cell_fault(cell: Any) -> str:
    if not isinstance(cell, dict):
        return f"is {_kind(cell)} where a JSON object was expected"
    if "cell_type" not in cell:
        return "has no `cell_type`"
    if cell["cell_type"] not in _CELL_TYPES:
        return (
            f"has the `cell_type` {cell['cell_type']!r}, expected one of {', '.join(_CELL_TYPES)}"
        )
    if "source" not in cell:
        return "has no `source`"

    source = cell["source"]
    lines = source if isinstance(source, list) else [source]
    if not all(isinstance(line, str) for line in lines):
        return "has a `source` that is neither a string nor a list of strings"
    if any("\ud800" <= character <= "\udfff" for line in lines for character in line):
        return "has half a character in its `source` (a lone surrogate)"
    return ""


def _kind(value: Any) -> str:
    """Return what JSON calls a value."""
    if value is None:
        return "null"
    names = {bool: "a truth value", dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), "a number")


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


def _refuse_second_opening(cell: Cell, sections: list[Section]) -> None:
    for section in sections:
        if section.name == cell.argument:
            raise ExportRefused(
                f"the notebook opens the module {cell.argument!r} twice",
                where=f"{section.opening.label} and {cell.label}",
                remedy="keep one `#| module:` cell for each module, above its exported cells",
            )


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
    """Return the chapters in order of their numbers; copies and checkpoints are skipped."""
    found = [p for p in sorted(paths.NOTEBOOKS.glob("*.ipynb")) if _NAME.fullmatch(p.name)]
    return [Chapter(path) for path in found]


def find_chapter(which: str | int) -> Chapter:
    """Return the chapter called `which`: 5, "5", "05", "05_attention" or the notebook's path."""
    text = Path(str(which)).name.removesuffix(".ipynb")
    chapters = all_chapters()
    for chapter in chapters:
        if text == chapter.stem or (text.isdecimal() and int(text) == chapter.number):
            return chapter

    known = ", ".join(c.stem for c in chapters) or f"none in {paths.NOTEBOOKS}"
    raise ExportRefused(f"there is no chapter {str(which)!r}", remedy=f"the chapters are: {known}")


def module_numbers(course: list[Chapter] | None = None) -> dict[str, int]:
    """Map every module of the library to the number of the chapter that exports it, in the course's order."""
    numbers: dict[str, int] = {}
    for chapter in all_chapters() if course is None else course:
        for name in chapter.modules:
            if name in numbers:
                raise ExportRefused(
                    f"chapters {numbers[name]:02d} and {chapter.number:02d} both export the module {name!r}",
                    remedy="give one of them another name in its `#| module:` cell",
                )
            numbers[name] = chapter.number
    return numbers
