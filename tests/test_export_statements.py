"""The export keeps what was written: every statement, decorator, default, docstring and comment of the cells.

The reference is Python itself: syntax trees without positions, and the comments that `tokenize` finds.
"""

from __future__ import annotations

import ast
import inspect
import io
import itertools
import json
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from courseware.export.build import Candidate, build
from courseware.export.notebooks import Chapter, all_chapters
from courseware.export.statements import cut

MODULE = "#| module: toy\n# A toy."
IMPORTS = (ast.Import, ast.ImportFrom)


def chapter_of(*cells: str) -> Chapter:
    """Return chapter 05 with these exported cells, without a file."""
    sources = [MODULE, *(f"#| export\n{cell}" for cell in cells)]
    found = [{"cell_type": "code", "metadata": {}, "source": source} for source in sources]
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": found}
    return Chapter(Path("05_toy.ipynb"), json.dumps(notebook))


def built(*cells: str) -> str:
    """Return the source of the module that these exported cells make."""
    chapter = chapter_of(*cells)
    (candidate,) = build(chapter, [chapter])
    return candidate.source


# --- what Python says about cells and modules ---


class Plain(ast.NodeTransformer):
    """Leave out what a formatter may change: the layout of docstrings and the u of u"text"."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines = inspect.cleandoc(node.value.value).strip().split("\n")
            node.value.value = "\n".join(line.rstrip() for line in lines)
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        node.kind = None
        return node


def trees(nodes: list[ast.stmt]) -> list[str]:
    """Return the syntax trees of the statements that are not imports."""
    return [ast.dump(Plain().visit(node)) for node in nodes if not isinstance(node, IMPORTS)]


def body_of(source: str) -> list[ast.stmt]:
    """Return the statements of a module that come from cells: not the docstring, `__all__` and the command."""
    nodes = ast.parse(source).body
    return [
        node
        for place, node in enumerate(nodes)
        if place > 0
        and not ast.unparse(node).startswith("__all__ = ")
        and not isinstance(node, ast.If)
    ]


def imports(nodes: list[ast.stmt]) -> set[tuple[str, str, str | None]]:
    """Return what is imported at the top level as (module, name, new name)."""
    return {
        (getattr(node, "module", ""), alias.name, alias.asname)
        for node in nodes
        if isinstance(node, IMPORTS)
        for alias in node.names
    }


def comments(source: str) -> list[tuple[str, int]]:
    """Return each comment with the number of its line; ruff writes two of one import side by side."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [
        (re.sub(r"^#+\s*", "", text).strip(), token.start[0])
        for token in tokens
        if token.type == tokenize.COMMENT
        for text in token.string.split("  #")
    ]


def anchored(source: str, nodes: list[ast.stmt]) -> list[tuple[str, int]]:
    """Return each comment with the number of statements that begin before it or on its line.

    Imports do not count: what stands above one may go with it or stay above the next statement.
    """
    starts = [node.lineno for node in nodes if not isinstance(node, IMPORTS)]
    return [(text, sum(start <= line for start in starts)) for text, line in comments(source)]


def is_subsequence(part: list, whole: list) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def assert_keeps(candidate: Candidate, cells: list[str]) -> None:
    """Assert that a module holds the statements, the imports and the comments of its cells, and no others."""
    source = candidate.source
    parsed = [ast.parse(cell) for cell in cells]
    nodes = [node for tree in parsed for node in tree.body]
    body = body_of(source)

    assert trees(body) == trees([node for cell in cells for node in ast.parse(cell).body])
    assert imports(body) == imports(nodes) | {("__future__", "annotations", None)}

    written = Counter(text for cell in cells for text, _ in comments(cell))
    assert Counter(text for text, _ in comments(source)) == written

    # Beside the statement that they stood with; those of imports are among the imports.
    expected: list[tuple[str, int]] = []
    offset = 0
    for cell, tree in zip(cells, parsed):
        expected += [(text, place + offset) for text, place in anchored(cell, tree.body)]
        offset += sum(not isinstance(node, IMPORTS) for node in tree.body)
    found = anchored(source, body)
    start = next(n.lineno for n in ast.parse(source).body if isinstance(n, ast.Assign))
    below = sum(line > start for _, line in comments(source))
    assert is_subsequence(found[len(found) - below :], expected)


# --- the chapters of the course ---


@pytest.mark.slow
@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.stem)
def test_every_chapter_keeps_its_statements(chapter):
    if not chapter.modules:
        pytest.skip("this chapter exports nothing")
    for section, candidate in zip(chapter.sections, build(chapter), strict=True):
        assert_keeps(candidate, [cell.body for cell in section.exports])


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.stem)
def test_no_other_cell_takes_the_name_of_an_exported_function_or_class(chapter):
    """A later cell with `train = …` would make the exported code call a number."""
    exported = {cell.number for section in chapter.sections for cell in section.exports}
    functions: set[str] = set()
    assigned: dict[str, int] = {}
    for number, source in enumerate(code_cells(chapter), 1):
        tree = ast.parse(re.sub(r"(?m)^\s*[%!].*", "", source))
        if number in exported:
            functions |= {
                n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))
            }
        else:
            assigned |= dict.fromkeys(names_assigned(tree), number)

    assert {name: cell for name, cell in assigned.items() if name in functions} == {}


def code_cells(chapter: Chapter) -> list[str]:
    cells = json.loads(chapter.path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def names_assigned(tree: ast.Module) -> Iterator[str]:
    """Yield the names that the top level of a cell assigns or defines."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif not isinstance(
            node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
        ):
            todo += ast.iter_child_nodes(node)


# --- small inputs, each of which was once lost or refused ---

USES_MATH = "def area(r):\n    return math.pi * r**2"
KEPT = {
    "two imports on a line above a decorated function": (
        "import math; import functools\n@functools.lru_cache(maxsize=3)\ndef area(r):\n"
        "    return math.pi * r**2",
        "@functools.lru_cache(maxsize=3)\ndef area(r):",
    ),
    "an import before a constant": ("import math; TWO_PI = 2 * math.pi", "TWO_PI = 2 * math.pi"),
    "an import after a constant": (
        f"SIZE = 3; import math\n\n\n{USES_MATH}",
        "SIZE = 3\n",
    ),
    "an import between constants": (
        "A = 1; import math; B = math.pi;",
        "A = 1\nB = math.pi\n",
    ),
    "two imports directly above a function": (
        "import math\nimport os\ndef area(r):\n    return math.pi * len(os.sep)",
        "def area(r):\n    return math.pi * len(os.sep)",
    ),
    "a backslash before the next statement": (
        f"import math; \\\nSIZE = 3\n{USES_MATH}",
        "SIZE = 3\n",
    ),
    "a statement continued with a backslash": (
        f"import math\nSIZE = 1 + \\\n    2; import os\n{USES_MATH}, os.sep",
        "SIZE = 1 + 2\n",
    ),
    "a statement continued in brackets": (
        f"SIZES = [\n    1,  # one\n    2,\n]; import math\n{USES_MATH}",
        "SIZES = [\n    1,  # one\n    2,\n]\n",
    ),
    "an import continued with a backslash": (
        "from math import \\\n    pi\nTWO_PI = 2 * pi",
        "from math import pi\n",
    ),
    "an import in brackets with comments": (
        "from math import (  # constants\n    pi,  # of the circle\n    # Euler's\n    e,\n)\nBOTH = pi + e",
        "    # Euler's\n    e,\n    pi,  # of the circle\n",
    ),
    "an import with a comment": (
        f"import math  # noqa: F401, for the reader\nimport os  # paths\n{USES_MATH}, os.sep",
        "import math  # noqa: F401, for the reader\nimport os  # paths\n",
    ),
    "a comment above an import": (
        f"import os\n\n# For the number pi.\nimport math\n\nSEP = os.sep\n\n\n{USES_MATH}",
        "# For the number pi.\nimport math\nimport os\n",
    ),
    "a heading above imports": (
        f"# Circles.\n\nimport math\n\n\n{USES_MATH}",
        "# Circles.\n\n\ndef area(r):",
    ),
    "comments between decorators": (
        "import functools\n\n\n# Above.\n@functools.cache  # remembers\n# Between.\n@staticmethod\n"
        "def area(r):\n    return r",
        "# Above.\n@functools.cache  # remembers\n# Between.\n@staticmethod\ndef area(r):",
    ),
    "a decorator in brackets after a comment with an @": (
        "import functools\n# a @ b\n@(  # c @ d\n    functools.cache\n)\ndef area(r):\n    return r",
        "def area(r):",
    ),
    "a comment at the end of a cell": (
        "def area(r):\n    return r\n    # still inside\n\n\n# The end.",
        "    # still inside\n\n\n# The end.\n",
    ),
    "non-ASCII text before an import": (
        f"NAME = 'größe 😀'; import math  # für π\n{USES_MATH}",
        "import math  # für π\n",
    ),
    "line separators in a string": (
        "SEPARATORS = 'a\u2028b\u2029c\x85d'; import math\n" + USES_MATH,
        "'a\u2028b\u2029c\x85d'".replace("'", '"'),
    ),
    "a form feed between statements": (
        f"import math\n\x0c\nA = 1\n\x0cB = 2\n{USES_MATH}",
        "A = 1\n",
    ),
    "tabs": ("import math\ndef area(r):\n\tif r:\n\t\treturn math.pi\n\treturn 0", "        return"),
    "line ends of Windows": (
        "import math\r\nA = 1; B = 2\r\ndef area(r):\r\n\treturn math.pi\r\n",
        "A = 1\nB = 2\n",
    ),
    "a string that looks like imports": (
        'TEXT = """\nimport os\n# not a comment\n@decorator\n"""; import math\n' + USES_MATH,
        '"""\nimport os\n# not a comment\n@decorator\n"""\n',
    ),
    "an import inside a function": (
        "def area(r):\n    import os, math\n    import abc; import ast  # late\n    return math, os, abc, ast",
        "    import os, math\n    import abc\n    import ast  # late\n",
    ),
    "annotations postponed in a cell": (
        "from __future__ import annotations  # for the class's own name\nclass Node:\n    child: Node",
        "from __future__ import annotations  # for the class's own name\n\n__all__",
    ),
    "a walrus in a constant": ("A = (B := 2) + 1", '__all__ = ["A", "B"]\n\nA = (B := 2) + 1\n'),
    "defaults of a lambda": ("pick = lambda x={}, *, y=[1]: (x, y)", "pick = lambda x={}, *, y=[1]"),
    "an annotation alone": ("size: int\nsize = 3", "size: int\nsize = 3\n"),
    "a type alias by assignment": (
        "from typing import TypeAlias\nVector: TypeAlias = 'list[float]'",
        'Vector: TypeAlias = "list[float]"\n',
    ),
    "a class body with semicolons": (
        "class Box:\n    a = 1; b = 2  # both\n    def f(self): return self.a; # one",
        "    a = 1\n    b = 2  # both\n",
    ),
    "an asynchronous function": (
        "import asyncio\nasync def area(r): await asyncio.sleep(0); return r  # late",
        "async def area(r):\n    await asyncio.sleep(0)\n    return r  # late\n",
    ),
    "formatting switched off": (
        "import math\n# fmt: off\nTABLE = [1,0,\n         0,1]\n# fmt: on\n" + USES_MATH,
        "# fmt: off\nTABLE = [1,0,\n         0,1]\n# fmt: on\n",
    ),
    "formatting switched off above an import": (
        "# fmt: off\nimport math\nTABLE = [1,0,\n         0,1]\n# fmt: on\n" + USES_MATH,
        "# fmt: off\nTABLE = [1,0,\n         0,1]\n# fmt: on\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_a_small_input_is_kept(name):
    cell, expected = KEPT[name]
    chapter = chapter_of(cell)
    (candidate,) = build(chapter, [chapter])
    assert_keeps(candidate, [chapter.of("export")[0].body])
    assert expected in candidate.source


@pytest.mark.skipif(not hasattr(ast, "TypeAlias"), reason="needs the syntax of Python 3.12")
def test_the_syntax_of_newer_versions_is_kept():
    cells = [
        "type Pair[T] = tuple[T, T]  # both of one type",
        "import math; type Number = int\ndef first[T](pair: Pair[T]) -> T:\n    return pair[0]",
        'class Box[T: Number]:\n    content: T\n\n\nSHOWN = f"{math.pi!r:>{len("ab")}}"',
    ]
    chapter = chapter_of(*cells)
    (candidate,) = build(chapter, [chapter])
    assert_keeps(candidate, cells)
    assert candidate.public == ["SHOWN", "Box", "first", "Number", "Pair"]


def test_imports_of_several_cells_are_sorted_and_merged_with_their_comments():
    source = built(
        "import re  # patterns\nfrom math import pi  # circle\nAREA = re, pi",
        "import ast\nfrom math import e  # growth\nimport re  # patterns\nGROWTH = ast, e, re",
    )
    assert (
        "import ast\nimport re  # patterns  # patterns\n"
        "from math import (\n    e,  # growth\n    pi,  # circle\n)\n"
    ) in source


# --- generated cells ---

SIMPLE = [
    "A{n} = 1",
    "A{n}: int = -1",
    "A{n} = (B{n} := 2)",
    "A{n} = _B{n} = [1, 2]",
    "A{n}, (B{n}, *C{n}) = 1, (2, 3)",
    "A{n} = (\n    1,  # inside {n}\n    2,\n)",
    "A{n} = 1 + \\\n    2",
    "A{n} = '''\nimport os\n# no comment\n@no.decorator\n'''",
    "A{n} = 'größe 😀 \u2028 \x0c'",
    "A{n} = u'a' \"b\" f'{{1 + 1!r:>{{5}}}}'",
    "A{n} = lambda x={{}}, *, y='#': (x, y)",
    "A{n} = [_x for _x in range(3) if (_y{n} := _x)]",
    "A{n} = {{'#': \"@\", 'k': 0XFF}}",
]
IMPORT = [
    "import math",
    "import os.path, json as _json",
    "from math import pi as _pi",
    "from math import (\n    e,  # e {n}\n    tau,\n)",
    "from math import (  # open {n}\n    # own line {n}\n    tau as _tau,\n)",
    "from math import \\\n    inf",
    "from __future__ import annotations",
]
IMPORTED = ["math", "os", "_json", "_pi", "e", "tau", "_tau", "inf"]
COMPOUND = [
    "def f{n}(a, /, b=(1, 2), *c, d: 'int' = 3, **e) -> 'int':\n    '''Return.\n\n      More.  \n    '''\n    return b",
    "def f{n}(): return 1",
    "async def f{n}():\n\timport json, abc\n\timport ast; return [json, abc, ast]  # late {n}",
    "@_same\n@_same  # why {n}\n# between {n}\ndef f{n}():\n    return 1  # end {n}",
    "@_same\n@(\n    # at @ {n}\n    _same\n)\nclass F{n}(object, metaclass=type):\n    '''Doc.'''\n"
    "    x = 1; y = 2\n\n"
    "    def g(self): return self.x;\n    # inside {n}",
    "class F{n}:\n    x: int\n    z = [\n        1,\n    ]  # z {n}",
    "def f{n}():\n    def g():\n        from math import pi\n        return pi\n\n    return g\n    # last {n}",
]
COMMENTS = ["# own {n}", "#own {n} @ 'quoted", "# own {n} \\", "#: own {n}", "# größe {n} 😀"]
SWITCHES = [
    "# fmt: off",
    "# fmt: on",
    "# fmt: skip",
    "# isort: off",
    "# isort: skip_file",
    "# type: ignore",
]


@st.composite
def lines_of_code(draw) -> str:
    """Return one logical line: simple statements and imports in any mixture, or a compound statement."""
    if draw(st.integers(0, 2)) == 0:
        return draw(st.sampled_from(COMPOUND)) + draw(st.sampled_from(["", "  # beside {n}"]))

    parts = draw(st.lists(st.sampled_from(SIMPLE + IMPORT), min_size=1, max_size=3))
    semicolon = draw(st.sampled_from(["; ", ";", " ;  ", "; \\\n", " \\\n  ; "]))
    end = draw(
        st.sampled_from(["", ";", "  # beside {n}", ";# beside {n}", " ; \x0c # beside {n}"])
    )
    return semicolon.join(parts) + end


@st.composite
def cells_of_code(draw) -> list[str]:
    """Return exported cells; every name and every comment has a number of its own."""
    numbers = itertools.count(1)
    cells = ["def _same(thing):\n    return thing"]
    for _ in range(draw(st.integers(1, 3))):
        lines = []
        for _ in range(draw(st.integers(1, 5))):
            lines += draw(st.lists(st.sampled_from(["", "\x0c", *COMMENTS, *SWITCHES]), max_size=3))
            lines.append(draw(lines_of_code()))
        lines += draw(st.lists(st.sampled_from(["", *COMMENTS]), max_size=2))
        cells.append(_with_numbers("\n".join(lines), numbers))

    used = [name for name in IMPORTED if any(_binds(cell, name) for cell in cells)]
    return [*cells, f"def uses():\n    return [{', '.join(used)}]"]


def _with_numbers(cell: str, numbers: Iterator[int]) -> str:
    """Put a new number in the place of each `{n}`; `{{` and `}}` become single braces."""
    numbered = re.sub(r"\{n\}", lambda _: str(next(numbers)), cell)
    return numbered.replace("{{", "{").replace("}}", "}")


def _binds(cell: str, name: str) -> bool:
    for node in ast.parse(cell).body:
        for alias in node.names if isinstance(node, IMPORTS) else []:
            if (alias.asname or alias.name).partition(".")[0] == name:
                return True
    return False


@pytest.mark.slow
@given(cells_of_code())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_generated_cells_keep_their_statements(cells):
    chapter = chapter_of(*cells)
    (candidate,) = build(chapter, [chapter])
    assert_keeps(candidate, [cell.body for cell in chapter.of("export")])


@pytest.mark.slow
@given(cells_of_code())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_cell_is_cut_without_loss(cells):
    for cell in cells:
        tree = ast.parse(cell)
        statements, rest = cut(cell, tree)
        assert [ast.dump(ast.parse(s.code).body[0]) for s in statements] == [
            ast.dump(node) for node in tree.body
        ]
        together = "\n".join([*(s.text for s in statements), rest])
        assert [text for text, _ in comments(together)] == [text for text, _ in comments(cell)]
        assert ast.dump(ast.parse(together)) == ast.dump(tree)
