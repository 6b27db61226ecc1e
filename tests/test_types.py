"""Every public name of both packages has types, and `py.typed` tells type checkers to read them.

`make check` runs the type checker, which finds types that contradict each other. It accepts a missing type; these
tests do not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from courseware import paths

ANSWERS = paths.CODE / "courseware" / "exercises" / "answers"  # short, as learners write them
MODULES = [
    path
    for package in ("minigpt_lib", "courseware")
    for path in sorted((paths.CODE / package).rglob("*.py"))
    if ANSWERS not in path.parents
]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def untyped(source: str) -> list[str]:
    """Return a line for each public argument, result and class field of a module that has no type.

    Public means: functions, classes and methods whose names do not begin with an underscore, methods like
    `__init__`, and whatever a public class inherits from a private one in the same module.
    """
    tree = ast.parse(source)
    classes = {node.name: node for node in _statements(tree) if isinstance(node, ast.ClassDef)}
    public = [node for name, node in classes.items() if not name.startswith("_")]
    for node in public:  # the list grows: bases have bases
        bases = [classes.get(base.id) for base in node.bases if isinstance(base, ast.Name)]
        public += [base for base in bases if base is not None and base not in public]

    found = []
    for node in _statements(tree):
        if isinstance(node, _FUNCTIONS) and not node.name.startswith("_"):
            found += _untyped_parts(node, node.name)
        elif isinstance(node, ast.ClassDef) and node in public:
            found += _untyped_members(node)
    return found


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements of a module or class, also those below `if` and `try`."""
    for field in ("body", "orelse", "handlers", "finalbody"):
        for inner in getattr(node, field, []):
            if isinstance(inner, ast.stmt):
                yield inner
            if not isinstance(inner, (*_FUNCTIONS, ast.ClassDef)):
                yield from _statements(inner)


def _untyped_members(node: ast.ClassDef) -> Iterator[str]:
    is_enum = any("Enum" in ast.unparse(base) for base in node.bases)  # its members are values

    for member in _statements(node):
        if isinstance(member, _FUNCTIONS):
            is_special = member.name.startswith("__") and member.name.endswith("__")
            if is_special or not member.name.startswith("_"):
                yield from _untyped_parts(member, f"{node.name}.{member.name}", is_method=True)
        elif isinstance(member, ast.Assign) and not is_enum:
            for target in member.targets:
                if isinstance(target, ast.Name) and not target.id.startswith("_"):
                    yield f"line {member.lineno}: the field {node.name}.{target.id}"


def _untyped_parts(
    node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, is_method: bool = False
) -> Iterator[str]:
    for argument in _arguments(node, is_method):
        if argument.annotation is None:
            yield f"line {argument.lineno}: {argument.arg} of {name}"
    if node.returns is None:
        yield f"line {node.lineno}: the result of {name}"


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, is_method: bool) -> list[ast.arg]:
    """Return the arguments of a function, of a method without `self` or `cls`."""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    has_self = is_method and "staticmethod" not in decorators

    arguments = [*node.args.posonlyargs, *node.args.args][has_self:] + node.args.kwonlyargs
    return arguments + [extra for extra in (node.args.vararg, node.args.kwarg) if extra]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(paths.CODE).as_posix())
def test_every_public_name_has_types(path: Path):
    assert untyped(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("package", ["minigpt_lib", "courseware"])
def test_type_checkers_read_the_packages(package: str):
    assert (paths.CODE / package / "py.typed").is_file()


def test_all_modules_are_looked_at():
    names = {path.relative_to(paths.CODE).as_posix() for path in MODULES}
    assert {"minigpt_lib/model.py", "courseware/__main__.py", "courseware/runs/bands.py"} <= names
    assert not any("answers" in name for name in names)


def test_an_ignored_finding_says_which_and_why():
    marks = re.compile(r"#.*(?:type|pyrefly): ?ignore.*")
    good = re.compile(r"# pyrefly: ignore\[[a-z-]+\]  \w.*")
    for path in MODULES:
        for mark in marks.findall(path.read_text(encoding="utf-8")):
            assert good.fullmatch(mark), f"{path.name}: {mark}"


TYPED = """
class _Base:
    rows: int

    def total(self, start: int = 0) -> int: ...


class Public(_Base):
    rate: float = 0.1

    def __init__(self, x: int, /, *rest: int, flag: bool = False, **options: object) -> None: ...

    @staticmethod
    def made(x: int) -> "Public": ...

    @classmethod
    def read(cls, path: str) -> "Public": ...

    @property
    def size(self) -> int:
        def inner(x): ...

    def _helper(self, x): ...


class _Private:
    def anything(self, x): ...


def work(x: int) -> int: ...


def _helper(x): ...
"""


def test_typed_code_passes():
    assert untyped(TYPED) == []


@pytest.mark.parametrize(
    "before, after, found",
    [
        ("def work(x: int)", "def work(x)", "x of work"),
        ("def work(x: int) -> int", "def work(x: int)", "the result of work"),
        ("def work(x: int)", "async def work(x)", "x of work"),
        ("def work(x: int)", "if True:\n    def work(x)", "x of work"),
        ("*rest: int", "*rest", "rest of Public.__init__"),
        ("flag: bool", "flag", "flag of Public.__init__"),
        ("**options: object", "**options", "options of Public.__init__"),
        ("(self, x: int, /", "(self, x, /", "x of Public.__init__"),
        ("object) -> None", "object)", "the result of Public.__init__"),
        ("made(x: int)", "made(x)", "x of Public.made"),
        ("path: str", "path", "path of Public.read"),
        ("size(self) -> int", "size(self)", "the result of Public.size"),
        ("start: int = 0", "start=0", "start of _Base.total"),
        ("rate: float = 0.1", "rate = 0.1", "the field Public.rate"),
    ],
)
def test_a_missing_type_is_found(before: str, after: str, found: str):
    assert before in TYPED
    assert [line.partition(": ")[2] for line in untyped(TYPED.replace(before, after))] == [found]
