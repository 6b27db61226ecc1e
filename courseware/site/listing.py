"""Join generated modules into one listing: the whole model at a glance, its lines counted.

The listing keeps every line that the named classes need, and the blank lines between them. Imports are merged.
Docstrings, comments and the types in signatures are dropped, because the chapters have them, and so are definitions
that nothing in the listing calls. The result is valid Python: a test runs it and compares the models.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import io
import tokenize
from dataclasses import dataclass

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (ast.ClassDef, *_FUNCTIONS)


@dataclass(frozen=True)
class _Definition:
    """A class, function or constant of a module."""

    names: set[str]  # that it defines
    reads: set[str]
    lines: list[str]


def listing(*names: str, modules: tuple[str, ...]) -> str:
    """Return the code that `names` need from `modules` of minigpt_lib, in that order, as one text.

    Raises ValueError if none of the modules defines a name, if two of them define or import it differently (joined
    into one text, the later would take the place of the earlier), or if the code needs a name from a
    module of minigpt_lib that is not among `modules`.
    """
    imports: dict[str, str] = {}  # name -> the line that imports it
    of_the_course: dict[str, str] = {}  # name -> the module of minigpt_lib that it is imported from
    definitions: list[_Definition] = []

    for module in modules:
        source = inspect.getsource(importlib.import_module(f"minigpt_lib.{module}"))
        for node in ast.parse(source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                of_the_course |= _imported_from_course(node)
                found = _imported(node)
                _refuse({n for n, line in found.items() if imports.get(n, line) != line}, module)
                imports |= found
            elif _defined(node):
                _refuse(_defined(node) & _all_names(definitions), module)
                definitions.append(_Definition(_defined(node), _reads(node), _lines(source, node)))

    needed = _reached(set(names), definitions)
    _refuse_missing_modules(needed - _all_names(definitions), of_the_course)

    lines = dict.fromkeys(line for name, line in imports.items() if name in needed)
    pieces = ["\n".join(sorted(lines, key=lambda line: ("__future__" not in line, line)))]
    pieces += [
        "\n".join(definition.lines) for definition in definitions if definition.names & needed
    ]
    return "\n\n\n".join(piece for piece in pieces if piece)


def count_lines(page: str) -> int:
    """Return how many lines of code a listing has.

    A statement over several lines counts once; blank lines, imports and the lines that raise an error do not count.
    """
    count = 0
    is_first = True
    for token in tokenize.generate_tokens(io.StringIO(page).readline):
        if token.type == tokenize.NEWLINE:
            is_first = True
        elif is_first and token.type in (tokenize.NAME, tokenize.OP, tokenize.STRING):
            count += token.string not in ("import", "from", "raise")
            is_first = False
    return count


def _refuse(names: set[str], module: str) -> None:
    if names:
        raise ValueError(
            f"minigpt_lib.{module} gives {', '.join(sorted(names))} a meaning that differs from an earlier "
            "module's: expected each name once. Rename one of them."
        )


def _refuse_missing_modules(names: set[str], of_the_course: dict[str, str]) -> None:
    for name in sorted(names & of_the_course.keys()):
        raise ValueError(
            f"the listing needs {name} from minigpt_lib.{of_the_course[name]}, which is not among the modules "
            "given: add it to `modules`, before the module that imports it."
        )


def _all_names(definitions: list[_Definition]) -> set[str]:
    return {name for definition in definitions for name in definition.names}


def _is_of_course(module: str | None) -> bool:
    return (module or "").partition(".")[0] == "minigpt_lib"


def _imported_from_course(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Return {name: module} for what comes from a module of the course."""
    if isinstance(node, ast.ImportFrom) and _is_of_course(node.module):
        module = (node.module or "").partition(".")[2]
        return {alias.asname or alias.name: module or alias.name for alias in node.names}
    return {}


def _imported(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Return {name: line that imports it}; nothing for modules of the course."""
    if isinstance(node, ast.ImportFrom) and _is_of_course(node.module):
        return {}
    start = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
    bound = {alias: alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return {name: f"{start}import {ast.unparse(alias)}" for alias, name in bound.items()}


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, _DEFINITIONS):
        return {node.name}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {target.id for target in targets if isinstance(target, ast.Name)} - {"__all__"}


def _reads(node: ast.stmt) -> set[str]:
    """Return the names that a statement reads, and the import that lets annotations stay unread."""
    read = {inner.id for inner in ast.walk(_untyped(node)) if isinstance(inner, ast.Name)}
    return read | {"annotations"}


def _untyped(node: ast.stmt) -> ast.stmt:
    """Return a copy of a statement in which signatures have no types."""
    node = copy.deepcopy(node)
    for inner in ast.walk(node):
        if isinstance(inner, _FUNCTIONS):
            inner.returns = None
        elif isinstance(inner, ast.arg):
            inner.annotation = None
    return node


def _reached(names: set[str], definitions: list[_Definition]) -> set[str]:
    """Return the names together with all that their definitions read, directly or not."""
    missing = names - _all_names(definitions)
    if missing:
        raise ValueError(f"no module given defines {', '.join(sorted(missing))}.")

    while True:
        read = {name for d in definitions if d.names & names for name in d.reads}
        if read <= names:
            return names
        names = names | read


def _lines(source: str, node: ast.stmt) -> list[str]:
    """Return a statement's lines without docstrings, comments and the types in signatures."""
    lines = source.split("\n")
    dropped: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
            if not lines[row - 1]:
                dropped.add(row)

    for inner in ast.walk(_untyped(node)):
        if isinstance(inner, _FUNCTIONS) and inner.body[0].lineno > inner.lineno:
            keyword = "def" if isinstance(inner, ast.FunctionDef) else "async def"
            arguments = ast.unparse(inner.args)
            lines[inner.lineno - 1] = (
                f"{' ' * inner.col_offset}{keyword} {inner.name}({arguments}):"
            )
            dropped |= set(range(inner.lineno + 1, min(_rows_with_decorators(inner.body[0]))))
        if isinstance(inner, _DEFINITIONS) and ast.get_docstring(inner) and len(inner.body) > 1:
            dropped |= _rows(inner.body[0])

    rows = _rows_with_decorators(node) - dropped
    return _without_needless_blanks([lines[row - 1].rstrip() for row in sorted(rows)])


def _without_needless_blanks(lines: list[str]) -> list[str]:
    """Drop blank lines that follow another one or the head of a class or function, whose docstring is gone."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1] and not kept[-1].endswith(":")):
            kept.append(line)
    return kept


def _rows_with_decorators(node: ast.stmt) -> set[int]:
    return _rows(node).union(*map(_rows, getattr(node, "decorator_list", [])))


def _rows(node: ast.stmt | ast.expr) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
