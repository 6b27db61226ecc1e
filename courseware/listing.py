"""Join generated modules into one listing: the whole model at a glance, its lines counted.

The listing keeps every line that the named classes need. Imports are merged; docstrings, comments and
blank lines go, for the chapters have them; so do definitions that nothing in the listing calls. What is
printed is valid Python: a test runs it and compares the models.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import tokenize

_DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


def listing(*names: str, modules: tuple[str, ...]) -> str:
    """Return the code that `names` need from `modules` of minigpt_lib, in that order, as one text.

    Raises ValueError for a name that none of the modules defines, and for one that two of them define
    or import differently: joined into one text, the later would take the place of the earlier.
    """
    imports, definitions = {}, []
    for module in modules:
        source = inspect.getsource(importlib.import_module(f"minigpt_lib.{module}"))
        for node in ast.parse(source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                clash = {n for n, line in _imported(node).items() if imports.get(n, line) != line}
                _refuse(clash, module)
                imports |= _imported(node)
            elif _defined(node):
                _refuse(_defined(node) & set().union(*(d for d, _, _ in definitions)), module)
                definitions.append((_defined(node), _names(node), _lines(source, node)))
    needed = _reached(set(names), definitions)
    lines = dict.fromkeys(line for name, line in imports.items() if name in needed)
    ordered = sorted(lines, key=lambda line: ("__future__" not in line, line))
    for defined, _, code in definitions:
        ordered += code if defined & needed else []
    return "\n".join(ordered)


def _refuse(names: set[str], module: str) -> None:
    if names:
        raise ValueError(
            f"minigpt_lib.{module} gives {', '.join(sorted(names))} a meaning that differs from an earlier "
            "module's: expected each name once. Rename one of them."
        )


def _imported(node) -> dict[str, str]:
    """Return {name: line that imports it}; nothing for modules of the course."""
    if isinstance(node, ast.ImportFrom) and node.module.startswith("minigpt_lib"):
        return {}
    start = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
    bound = {a: a.asname or a.name.partition(".")[0] for a in node.names}
    return {name: f"{start}import {ast.unparse(a)}" for a, name in bound.items()}


def _defined(node) -> set[str]:
    if isinstance(node, _DEFINITIONS):
        return {node.name}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {target.id for target in targets if isinstance(target, ast.Name)} - {"__all__"}


def _names(node) -> set[str]:
    """Return the names a statement reads, and the import that lets annotations stay unread."""
    read = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return read | {"annotations"}


def _reached(names: set[str], definitions) -> set[str]:
    missing = names - set().union(*(defined for defined, _, _ in definitions))
    if missing:
        raise ValueError(f"no module given defines {', '.join(sorted(missing))}.")
    while True:
        found = set().union(*(read for defined, read, _ in definitions if defined & names))
        if found <= names:
            return names
        names = names | found


def _lines(source: str, node) -> list[str]:
    """Return a statement's lines without docstrings, comments and blank lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    dropped = set()
    for inner in ast.walk(node):
        if isinstance(inner, _DEFINITIONS) and ast.get_docstring(inner) and len(inner.body) > 1:
            dropped |= set(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    first = min(part.lineno for part in [node, *getattr(node, "decorator_list", [])])
    kept = [
        n for n in range(first, node.end_lineno + 1) if n not in dropped and lines[n - 1].strip()
    ]
    return [lines[n - 1] for n in kept]
