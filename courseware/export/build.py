"""Turn the exported cells of a chapter into the source of its modules, or say which cell stands in the way.

Every statement arrives as it was written, in the order of the cells, with its comments; only imports move to
the top, where they are sorted. `ruff` formats the result, and a module whose statements would then
mean something else is refused.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ruff.__main__ import find_ruff_bin

from courseware import paths
from courseware.export import rules
from courseware.export.blanks import unwritten
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import Cell, Chapter, Section, all_chapters, module_numbers
from courseware.export.statements import (
    Statement,
    aliases,
    cut,
    defined,
    hoisted,
    imported,
    last_line,
    meaning,
)

_MAGIC = re.compile(r"^\s*(%|!|\?)|\?\s*$|=\s*(!|%)\w")
_NOUNS = {
    "export": "an exported cell",
    "check": "a check",
    "setup": "a setup cell",
    "module": "a module cell",
}

# `python -m minigpt_lib.<module>` calls main, or <module>_main where a chapter has several commands; a cell cannot
# hold it, as a notebook's __name__ is "__main__" too.
_COMMAND = 'if __name__ == "__main__":\n    raise SystemExit({name}())'


@dataclass(frozen=True)
class Candidate:
    """A module that has been built but not yet proved."""

    module: str
    source: str
    public: list[str]
    owners: list[tuple[int, int, Cell]]  # first line, last line, the cell they came from

    @property
    def path(self) -> Path:
        """Return the file that this module is in when it has been exported."""
        return paths.LIBRARY / f"{self.module}.py"

    @property
    def imports(self) -> str:
        """Return the module's own imports, which its checks may use too."""
        nodes = [node for node in ast.parse(self.source).body if imported(node)]
        lines = [ast.unparse(node) for node in nodes]
        return "\n".join(line for line in lines if not line.startswith("from __future__"))

    def cell_at(self, line: int) -> Cell | None:
        """Return the cell that wrote this line of the module."""
        return next((cell for first, last, cell in self.owners if first <= line <= last), None)


# A cell with its syntax tree, as the rules want it.
Parsed = tuple[Cell, ast.Module]


def build(chapter: Chapter, course: list[Chapter] | None = None) -> list[Candidate]:
    """Build the candidate modules of a chapter, in the order of the notebook.

    Args:
        chapter: the chapter to build.
        course: the chapters that say which module belongs to which chapter; those on disk by default.

    Raises:
        ExportRefused: if a cell cannot be exported; it names the cell and the remedy.
    """
    _refuse_missing_cells(chapter)
    for cell in [*chapter.of("setup"), *chapter.of("check")]:
        _parse(cell)
    _refuse_unwritten(chapter)

    numbers = module_numbers(all_chapters() if course is None else course)
    candidates = []
    for section in chapter.sections:
        place = rules.Place(chapter.number, section.name, chapter.modules, numbers)
        candidates.append(_build_module(chapter, section, place))

    rules.refuse_shared_names({c.module: c.public for c in candidates})
    return candidates


def module_source(name: str) -> str:
    """Return the source that the chapter of the module `name` would write into it today."""
    for chapter in all_chapters():
        if name in chapter.modules:
            return build(chapter)[chapter.modules.index(name)].source
    raise ExportRefused(
        f"no chapter exports the module {name!r}",
        remedy=f"the modules are: {', '.join(module_numbers())}",
    )


def _refuse_missing_cells(chapter: Chapter) -> None:
    if not chapter.modules:
        raise ExportRefused(
            f"{chapter.stem} exports nothing: it has no `#| module:` cell",
            remedy="only chapters that build a part of the library end with export()",
        )
    if chapter.homeless:
        raise ExportRefused(
            "an exported cell stands above the first `#| module:` cell, so it belongs to no module",
            where=chapter.homeless[0].label,
            remedy="move it below the `#| module:` cell of the module that it belongs to",
        )
    for section in chapter.sections:
        if not section.exports:
            name = "" if len(chapter.sections) == 1 else f" for the module {section.name}"
            raise ExportRefused(
                f"{chapter.stem} has no cell that begins with `#| export`{name}",
                where=section.opening.label,
                remedy="mark the cells that belong to the library with `#| export` in their first line",
            )


def _refuse_unwritten(chapter: Chapter) -> None:
    """Refuse a chapter of `make code-along` until everything in it has been written."""
    cells = [(cell, unwritten(_parse(cell))) for cell in chapter.of("export")]
    waiting = [(cell, names) for cell, names in cells if names]
    if not waiting:
        return

    number = f"{chapter.number:02d}"
    left = sum(len(names) for _, names in waiting)
    raise ExportRefused(
        f"chapter {number} still waits for you to write {left} {'part' if left == 1 else 'parts'} of it",
        where=waiting[0][0].label,
        details="\n".join(f"  {cell.label}: {', '.join(names)}" for cell, names in waiting),
        remedy="write the code in place of each `raise NotImplementedError(...)`. A helper whose name begins with "
        "an underscore may go if yours does without it. "
        f"The course's own version comes back with: make reset CH={number}",
    )


def _build_module(chapter: Chapter, section: Section, place: rules.Place) -> Candidate:
    docstring = _docstring(chapter, section)
    trees = [(cell, _parse(cell)) for cell in section.exports]
    for cell, tree in trees:
        rules.refuse_foreign_code(cell, tree)
        rules.refuse_imports(cell, tree, place)
    rules.refuse_duplicates(trees)
    public = rules.public_names(trees, section.name)

    command = next((name for name in ("main", f"{section.name}_main") if name in public), "")
    source = _format(_assemble(docstring, trees, public, command))
    candidate = Candidate(section.name, source, public, _owners(source, trees))
    _refuse_lint(candidate, trees, chapter)
    return candidate


def _parse(cell: Cell) -> ast.Module:
    try:
        return ast.parse(cell.body)
    except SyntaxError as error:
        number = error.lineno or 0
        line = "".join(cell.body.split("\n")[number - 1 : number])
        if _MAGIC.search(line):
            raise ExportRefused(
                f"{_NOUNS[cell.kind]} holds a shell or magic line, which only a notebook understands",
                where=cell.label,
                remedy=f"move the line that starts with % or ! to a cell without `#| {cell.kind}`",
            ) from None
        raise ExportRefused(
            f"{_NOUNS[cell.kind]} is not valid Python: {error.msg}",
            where=f"{cell.label}, line {number + 1}: {line.strip()}",
            remedy="correct that line and run the cell again",
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExportRefused(
            f"{_NOUNS[cell.kind]} cannot be read as Python: {error}",
            where=cell.label,
            remedy="remove the characters or the nesting that Python cannot read",
        ) from None


# --- the source of a module ---


def _docstring(chapter: Chapter, section: Section) -> str:
    """Return the module's docstring: the comments of its opening cell, and where the module is written."""
    cell = section.opening
    code = _parse(cell).body
    if code:
        first = ast.unparse(code[0]).split("\n")[0]
        raise ExportRefused(
            f"a `#| module:` cell holds code, which would not reach the library: `{first[:60]}`",
            where=cell.label,
            remedy="keep only comment lines there; put code into a cell of its own with `#| export`",
        )

    lines = [line.strip().removeprefix("#").removeprefix(" ") for line in cell.body.split("\n")]
    text = "\n".join(lines).strip() or f"{chapter.title}."
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    origin = (
        f"Written by notebooks/{chapter.path.name} (chapter {chapter.number:02d}): edit it there."
    )
    return f'"""{escaped}\n\n{origin}\n"""'


def _assemble(docstring: str, trees: list[Parsed], public: list[str], command: str) -> str:
    """Join docstring, sorted imports, `__all__` and the rest of the cells, not yet formatted."""
    imports: list[str] = []
    blocks: list[str] = []
    for cell, tree in trees:
        moved, block = _split(cell, tree)
        imports += moved
        blocks.append(block)

    names = "__all__ = [" + ", ".join(f'"{name}"' for name in public) + "]"
    parts = [docstring, _sorted_imports(imports), names, *filter(None, blocks)]
    if command:
        parts.append(_COMMAND.format(name=command))
    return "\n\n".join(parts) + "\n"


def _split(cell: Cell, tree: ast.Module) -> tuple[list[str], str]:
    """Return the imports of a cell, each with its comments, and the cell without them."""
    statements, rest = cut(cell.body, tree)
    imports: list[str] = []
    lines: list[str] = []
    for statement in statements:
        if statement.is_import:
            above, text = hoisted(statement)
            imports.append(text)
            lines += above
        else:
            lines.append(statement.text)
    return imports, "\n".join([*lines, rest]).strip("\n")


def _sorted_imports(imports: list[str]) -> str:
    future = [text for text in imports if "__future__" in text]
    others = [text for text in imports if "__future__" not in text]
    text = "\n".join(["from __future__ import annotations", *future, *others]) + "\n"
    return _ruff(["check", "--quiet", "--select", "I", "--fix", "--exit-zero"], text).strip("\n")


def _format(source: str) -> str:
    return _ruff(["format", "--quiet"], source)


def _ruff(arguments: list[str], source: str) -> str:
    """Run ruff with the course's settings on `source` and return what it prints.

    Both ways in UTF-8, whatever the system's encoding, and with the line ends as they are.
    """
    command = [find_ruff_bin(), *arguments, "--config", str(paths.CODE / "pyproject.toml")]
    command += ["--stdin-filename", "minigpt_lib/module.py", "-"]
    done = subprocess.run(
        command, input=source.encode("utf-8"), capture_output=True, cwd=paths.ROOT
    )
    if done.returncode not in (0, 1) or (done.returncode and not done.stdout):
        raise ExportRefused(
            f"`ruff {arguments[0]}` cannot read the exported cells as one module",
            details=done.stderr.decode("utf-8", errors="replace"),
            remedy="write the statement that it names in a simpler way",
        )
    return done.stdout.decode("utf-8")


# --- which cell wrote which line ---


def _owners(source: str, trees: list[Parsed]) -> list[tuple[int, int, Cell]]:
    """Match the module's statements with those of the cells, and refuse if one has changed its meaning."""
    written = [
        (cell, statement)
        for cell, tree in trees
        for statement in cut(cell.body, tree)[0]
        if not statement.is_import
    ]
    nodes = [node for node in ast.parse(source).body if not imported(node)]
    nodes = nodes[2 : len(written) + 2]  # after the docstring and `__all__`, before the command

    lines = source.split("\n")
    owners = []
    for (cell, statement), node in zip(written, nodes):
        decorators = getattr(node, "decorator_list", [])
        first = min(part.lineno for part in [node, *decorators])
        last = last_line(node)
        owners.append((first, last, cell))
        untouched = "\n".join(lines[first - 1 : last]) == statement.code
        if not untouched and not _same(statement, node):
            _refuse_changed(cell, statement)
    if len(nodes) < len(written):
        _refuse_changed(*written[len(nodes)])
    return owners


def _same(statement: Statement, node: ast.stmt) -> bool:
    (original,) = ast.parse(statement.code).body
    return meaning(original) == meaning(node)


def _refuse_changed(cell: Cell, statement: Statement) -> None:
    first = statement.code.split("\n")[0].strip()
    raise ExportRefused(
        f"the formatter would change the meaning of a statement: `{first[:60]}`",
        where=cell.label,
        remedy="write that statement in a simpler layout: one statement per line, comments on lines of their own",
    )


# --- mistakes that a linter sees ---


def _refuse_lint(candidate: Candidate, trees: list[Parsed], chapter: Chapter) -> None:
    """Refuse what is surely a mistake (pyflakes); matters of taste are left to the course's own tests."""
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    arguments = ["check", "--select", "F", "--target-version", version, "--output-format", "json"]
    findings = json.loads(_ruff(arguments, candidate.source))

    for finding in sorted(findings, key=lambda found: found["code"] != "F821"):
        row = finding["location"]["row"]
        cell = candidate.cell_at(row)
        where = cell.label if cell else _importing_cell(candidate.source, row, trees)
        if finding["code"] == "F821":
            refuse_missing_name(_text_at(candidate.source, finding), where, chapter)
        raise ExportRefused(
            f"the exported code has a mistake that a linter sees: {finding['message']} ({finding['code']})",
            where=where,
            remedy="correct that cell, run it again, save, and export again",
        )


def _text_at(source: str, finding: dict) -> str:
    """Return the part of a line that a finding of ruff is about."""
    start, end = finding["location"], finding["end_location"]
    line = source.split("\n")[start["row"] - 1]
    return line[start["column"] - 1 : end["column"] - 1]


def _importing_cell(source: str, row: int, trees: list[Parsed]) -> str:
    """Return the label of the cell that holds the import on this line, or say that it is among them."""
    names = {
        alias.asname or alias.name
        for node in ast.parse(source).body
        for alias in aliases(node)
        if alias.lineno <= row <= (alias.end_lineno or row)
    }
    for cell, tree in trees:
        for node in tree.body:
            if names & {alias.asname or alias.name for alias in aliases(node)}:
                return cell.label
    line = source.split("\n")[row - 1].strip()
    return f"the imports of the exported cells: `{line}`"


def refuse_missing_name(name: str, where: str, chapter: Chapter) -> None:
    """Raise the refusal for a name that a module uses but does not define, with where the notebook has it."""
    for section in chapter.sections:
        for cell in section.exports:
            if name in defined(_parse(cell).body):
                raise ExportRefused(
                    f"the exported code uses `{name}`, which belongs to the module {section.name}",
                    where=where,
                    remedy=f"write `from minigpt_lib.{section.name} import {name}` in an exported cell; "
                    "a module may import the earlier modules of its chapter",
                )

    for number, source in enumerate(chapter.code, 1):
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        if any(name in imported(node) for node in tree.body):
            raise ExportRefused(
                f"the exported code uses `{name}`, but no exported cell imports it",
                where=where,
                remedy=f"code cell {number} imports `{name}` for the notebook only: "
                "repeat the import in an exported cell",
            )
        if name in defined(tree.body):
            raise ExportRefused(
                f"the exported code uses `{name}`, which is not exported",
                where=where,
                remedy=f"`{name}` is defined in code cell {number}: "
                "put `#| export` in that cell's first line",
            )
    raise ExportRefused(
        f"the exported code uses `{name}`, which is defined nowhere in this notebook",
        where=where,
        remedy="import or define it in an exported cell",
    )
