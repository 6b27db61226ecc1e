"""Cells to write yourself: exported code without the bodies of its functions.

What stays is what a reader needs to know before writing: imports, constants, signatures, docstrings and the fields of
classes. Each body becomes `raise NotImplementedError("chapter 5: write causal_mask")`, and the comments above
functions, classes and methods go, because they tell how it is done.
"""

from __future__ import annotations

import ast
import re

from courseware.export.statements import last_line

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_COMMENT_LINES = re.compile(rb"^[ \t]*#[^\n]*(\n|\Z)", re.MULTILINE)
_BESIDE = re.compile(rb"([ \t]*#[^\n]*)?")
_SENTENCE = re.compile(r"chapter \d+: write (?P<name>[\w.]+)")

Edit = tuple[int, int, bytes]  # first byte, the byte after the last, what takes their place


def blank(code: str, chapter: int) -> str:
    """Return the code of an exported cell with every function and method still to be written.

    Bodies without a statement, as in protocols and overloads, stay. Raises SyntaxError if `code` is not Python.
    """
    edits = _Blanking(code, chapter).edits(ast.parse(code), 0, "")
    data = code.encode("utf-8")
    for start, end, text in sorted(edits, reverse=True):
        data = data[:start] + text + data[end:]
    return data.decode("utf-8")


def unwritten(tree: ast.AST) -> list[str]:
    """Return what a cell's code still leaves to be written, such as "CausalSelfAttention.forward", in its order."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    names = [_named(node) for node in sorted(nodes, key=lambda node: node.lineno)]
    return [name for name in names if name]


def _named(node: ast.Raise) -> str:
    """Return the name that a `raise` of ours says, or ""."""
    call = node.exc
    if not isinstance(call, ast.Call) or not call.args:
        return ""
    text = call.args[0]
    if not isinstance(text, ast.Constant) or not isinstance(text.value, str):
        return ""
    found = _SENTENCE.fullmatch(text.value)
    return found["name"] if found else ""


class _Blanking:
    """Find the bytes of a cell that must go, and what takes their place."""

    def __init__(self, code: str, chapter: int) -> None:
        self.data = code.encode("utf-8")
        self.chapter = chapter
        self.starts = [0, *(match.end() for match in re.finditer(rb"\n", self.data))]

    def edits(self, block: ast.Module | ast.ClassDef, start: int, owner: str) -> list[Edit]:
        """Return the edits of a block whose first byte is `start`; `owner` is "" or a class's name and a dot."""
        found: list[Edit] = []
        for node in block.body:
            if isinstance(node, _DEFINITIONS):
                found += self._comments(start, self._start(node))
                found += self._inside(node, f"{owner}{node.name}")
            start = self._end(node)

        if isinstance(block, ast.Module):
            found += self._comments(start, len(self.data))
        return found

    def _inside(self, node: ast.stmt, name: str) -> list[Edit]:
        """Return the edits of one function or class."""
        if isinstance(node, ast.ClassDef):
            return self.edits(node, self._header(node), f"{name}.")

        assert isinstance(node, _FUNCTIONS)
        statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if not statements or all(_says_nothing(statement) for statement in statements):
            return []

        kept = self._end(node.body[0]) if statements is not node.body else self._header(node)
        line = f'raise NotImplementedError("chapter {self.chapter}: write {name}")'
        indent = " " * (node.col_offset + 4)
        beside = _BESIDE.match(self.data, self._end(node))
        assert beside is not None  # it may be empty
        return [(kept, beside.end(), f"\n{indent}{line}".encode())]

    def _comments(self, start: int, end: int) -> list[Edit]:
        """Return the edits that remove the lines of comments between two places."""
        line_end = self.data.find(b"\n", start, end)
        first = start if start == 0 else line_end + 1
        if start and line_end < 0:  # both on one line
            return []
        gap = self.data[first:end]
        return [
            (first + match.start(), first + match.end(), b"")
            for match in _COMMENT_LINES.finditer(gap)
        ]

    def _header(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
        """Return where the line with the colon ends, before the comments that precede the body."""
        text = self.data[: self._start(node.body[0])]
        lines = text.rstrip().split(b"\n")
        while lines[-1].lstrip().startswith(b"#"):
            lines.pop()
        return len(b"\n".join(lines).rstrip())

    def _start(self, node: ast.stmt) -> int:
        """Return the first byte of a statement, decorators included."""
        decorators = getattr(node, "decorator_list", [])
        if decorators:
            line = min(decorator.lineno for decorator in decorators)
            return self.starts[line - 1] + node.col_offset
        return self._offset(node)

    def _offset(self, node: ast.stmt) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.stmt) -> int:
        """Return the byte after the last one of a statement."""
        assert node.end_col_offset is not None  # every parsed tree has it
        return self.starts[last_line(node) - 1] + node.end_col_offset


def _says_nothing(node: ast.stmt) -> bool:
    """Return whether a statement is `...` or `pass`."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and node.value.value is ...
    return isinstance(node, ast.Pass)
