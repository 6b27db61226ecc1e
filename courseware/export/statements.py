"""Cut the code of a cell into its statements, exactly as written, each with the comments beside it.

Python's syntax trees say where a statement ends, in lines and UTF-8 bytes. What lies between two statements is
white space, comments, semicolons and backslashes at line ends, so the next statement begins after the
longest run of those. A decorator is therefore part of its statement, and no comment is lost.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass

_GAP = re.compile(rb"(?: [\s;] | \\\n | \#[^\n]* )*", re.VERBOSE)
_END_OF_LINE = re.compile(
    rb"(?: [ \t\f;] | \\\n )* (?P<comment> \#[^\n]* )? (?: \n | \Z )", re.VERBOSE
)
_SWITCH = re.compile(r"#\s*(fmt|isort|ruff)\s*:")
_BINDING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@dataclass(frozen=True)
class Statement:
    """One statement at the top level of a cell."""

    node: ast.stmt
    above: list[str]  # the lines above it that no other statement has: comments and blank lines
    code: str  # as written, decorators included
    beside: str  # the comment after it on its last line, with the white space before it, or ""

    @property
    def is_import(self) -> bool:
        return isinstance(self.node, (ast.Import, ast.ImportFrom))

    @property
    def text(self) -> str:
        """Return the statement as written, with its comments."""
        return "\n".join([*self.above, self.code + self.beside])


def cut(code: str, tree: ast.Module) -> tuple[list[Statement], str]:
    """Return the statements of `code`, whose syntax tree is `tree`, and what stands after the last one."""
    data = code.encode("utf-8")
    line_starts = [0, *(match.end() for match in re.finditer(rb"\n", data))]
    statements = []
    position = 0
    new_line = True

    for node in tree.body:
        gap = _GAP.match(data, position)
        assert gap is not None and node.end_col_offset is not None
        start = gap.end()
        end = line_starts[last_line(node) - 1] + node.end_col_offset
        above = _whole_lines(data[position:start]) if new_line else []

        line_end = _END_OF_LINE.match(data, end)
        new_line = line_end is not None
        beside = _comment(data, end, line_end) if line_end else ""
        position = line_end.end() if line_end else end

        statements.append(Statement(node, above, data[start:end].decode("utf-8"), beside))

    return statements, data[position:].decode("utf-8")


def _whole_lines(gap: bytes) -> list[str]:
    """Return the comments and blank lines of a gap; a backslash on a line of its own counts as blank."""
    lines = gap.decode("utf-8").split("\n")[:-1]
    return ["" if line.strip(" \t\f\\") == "" else line for line in lines]


def _comment(data: bytes, end: int, line_end: re.Match[bytes]) -> str:
    """Return the comment at the end of a statement's line with the blanks before it."""
    comment = line_end["comment"]
    if comment is None:
        return ""

    blanks = data[end : line_end.start("comment")]
    if blanks.strip(b" \t"):  # a semicolon, a backslash or a form feed
        blanks = b"  "
    return (blanks + comment).decode("utf-8")


def hoisted(statement: Statement) -> tuple[list[str], str]:
    """Split an import into the lines that stay in their place and the text that moves to the imports.

    The comments directly above an import move with it: those at the left margin with no blank line between.
    A switch of a formatter (`# fmt: off`) stays, because it is about all lines that follow.
    """
    above = list(statement.above)
    comments: list[str] = []
    while above and above[-1].startswith("#") and not _SWITCH.match(above[-1]):
        comments.insert(0, above.pop())

    code = statement.code if "#" in statement.code else ast.unparse(statement.node)
    beside = f"  {statement.beside.strip()}" if statement.beside else ""
    return above, "\n".join([*comments, code + beside])


def defined(statements: list[ast.stmt]) -> list[str]:
    """Return the names that these statements bind at the top level, imports aside, in order."""
    names: list[str] = []
    for node in statements:
        if isinstance(node, _BINDING):
            names.append(node.name)
        elif isinstance(node, ast.AnnAssign) and node.value is None:
            continue  # an annotation alone binds nothing

        for part in _in_module_scope(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.append(part.id)
    return names


def _in_module_scope(node: ast.stmt) -> list[ast.AST]:
    """Return the parts of a statement that are evaluated in the module's scope."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [node]
    while waiting:
        part = waiting.pop(0)
        found.append(part)
        if isinstance(part, ast.comprehension):  # its variable is its own
            waiting += [part.iter, *part.ifs]
        elif isinstance(part, _SCOPES):
            waiting += _evaluated_outside(part)
        else:
            waiting += ast.iter_child_nodes(part)
    return found


def _evaluated_outside(node: ast.AST) -> list[ast.AST]:
    """Return the parts of a function, class or lambda that are evaluated where it is defined."""
    outside: list[ast.AST] = list(getattr(node, "decorator_list", []))
    if isinstance(node, ast.ClassDef):
        outside += [*node.bases, *(keyword.value for keyword in node.keywords)]
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        outside += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
    return outside


def last_line(node: ast.stmt) -> int:
    """Return the number of a statement's last line."""
    assert node.end_lineno is not None  # every parsed tree has it
    return node.end_lineno


def aliases(node: ast.stmt) -> list[ast.alias]:
    """Return what an import names; empty for other statements."""
    return node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []


def imported(node: ast.stmt) -> dict[str, str]:
    """Return {name that an import binds: what it stands for}; empty for other statements."""
    if isinstance(node, ast.Import):
        whole = {a.asname: a.name for a in node.names if a.asname}
        tops = [a.name.partition(".")[0] for a in node.names if not a.asname]
        return {**whole, **dict(zip(tops, tops))}
    if isinstance(node, ast.ImportFrom):
        return {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return {}


def meaning(node: ast.stmt) -> str:
    """Return the syntax tree of a statement as text, without what a formatter may change.

    That is the place in the file, the kind of quotes, and the indentation of docstrings.
    """
    return ast.dump(_Plain().visit(node))


class _Plain(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        self.generic_visit(node)
        text = node.value
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            lines = inspect.cleandoc(text.value).strip().split("\n")
            text.value = "\n".join(line.rstrip() for line in lines)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        node.kind = None  # the u of u"text"
        return node
