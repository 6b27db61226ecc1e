"""Verified export: everything that must be refused is refused by name, and the library stays as it was."""

from __future__ import annotations

import json
import subprocess
import sys

import nbformat
import pytest
from conftest import CHECK, EXPORT, SETUP, Course

from courseware.export import exporting
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import find_chapter

OLD = '"""The module as it was."""\n'

# name: (cells of the notebook, words that the message must hold: what, which cell, remedy)
REFUSALS = {
    "failing check": (
        [SETUP, EXPORT, CHECK.replace("== 6", "== 7")],
        ["check failed", "code cell 4", "assert double(3) == 7", "correct the code"],
    ),
    "check that raises": (
        [EXPORT, "#| check: doubles\nassert double('a', 'b') == 2"],
        ["check failed", "TypeError", "code cell 3"],
    ),
    "syntax error": (
        [EXPORT.replace("return operator", "retrun operator"), CHECK],
        ["not valid Python", "code cell 2", "retrun", "correct that line"],
    ),
    "unexported helper": (
        [
            "def helper(x):\n    return x + x",
            EXPORT.replace("operator.mul(x, 2)", "helper(x)").replace("import operator\n", ""),
            CHECK,
        ],
        ["`helper`, which is not exported", "code cell 3", "defined in code cell 2", "#| export"],
    ),
    "forgotten import": (
        [
            SETUP,
            EXPORT.replace("operator.mul(x, 2)", "math.fsum([x, x])").replace(
                "import operator\n", ""
            ),
            CHECK,
        ],
        ["`math`", "no exported cell imports it", "code cell 3", "code cell 2 imports"],
    ),
    "name defined nowhere": (
        [EXPORT.replace("operator.mul(x, 2)", "twice(x)").replace("import operator\n", ""), CHECK],
        ["`twice`", "defined nowhere", "code cell 2"],
    ),
    "shell line": (
        ["#| export\n!pip install torch\n\n\ndef double(x):\n    return 2 * x", CHECK],
        ["shell or magic line", "code cell 2", "move the line"],
    ),
    "magic line": (
        ["#| export\n%matplotlib inline\n\n\ndef double(x):\n    return 2 * x", CHECK],
        ["shell or magic line", "code cell 2"],
    ),
    "assigned shell line": (
        ["#| export\nFILES = !ls\n\n\ndef double(x):\n    return 2 * x", CHECK],
        ["shell or magic line", "code cell 2"],
    ),
    "get_ipython": (
        ["#| export\ndef double(x):\n    get_ipython()\n    return 2 * x", CHECK],
        ["get_ipython", "code cell 2"],
    ),
    "same name twice": (
        [EXPORT, "#| export\ndef double(x):\n    return x + x", CHECK],
        ["`double` is exported twice", "code cell 2", "code cell 3", "keep one"],
    ),
    "same name twice in one cell": (
        [EXPORT + "\n\ndef double(x):\n    return x + x", CHECK],
        ["`double` is exported twice", "code cell 2"],
    ),
    "later chapter": (
        [
            "#| export\nfrom minigpt_lib.late import thing\n\n\ndef double(x):\n    return thing(x)",
            CHECK,
        ],
        ["minigpt_lib.late", "chapter 09", "code cell 2", "earlier chapter"],
    ),
    "later chapter, inside a function": (
        [
            "#| export\ndef double(x):\n    from minigpt_lib import late\n\n    return late.thing(x)",
            CHECK,
        ],
        ["minigpt_lib.late", "chapter 09", "code cell 2"],
    ),
    "own module": (
        [
            "#| export\nimport minigpt_lib.toy\n\n\ndef double(x):\n    return minigpt_lib.toy.double(x)",
            CHECK,
        ],
        ["minigpt_lib.toy", "chapter 05", "code cell 2"],
    ),
    "module of no chapter": (
        ["#| export\nfrom minigpt_lib.ghost import x\n\n\ndef double(y):\n    return x(y)", CHECK],
        ["minigpt_lib.ghost", "no chapter exports it", "code cell 2"],
    ),
    "courseware": (
        [
            "#| export\nimport courseware\n\n\ndef double(x):\n    return courseware.double(x)",
            CHECK,
        ],
        ["imports courseware", "code cell 2", "#| setup"],
    ),
    "star import": (
        ["#| export\nfrom math import *\n\n\ndef double(x):\n    return 2 * x", CHECK],
        ["does not say where", "code cell 2"],
    ),
    "relative import": (
        ["#| export\nfrom . import late\n\n\ndef double(x):\n    return late.thing(x)", CHECK],
        ["does not say where", "code cell 2"],
    ),
    "work at import": (
        [EXPORT + "\n\nprint(double(2))", CHECK],
        ["when it is imported", "print(double(2))", "code cell 2", "cell of its own"],
    ),
    "unused import": (
        [EXPORT.replace("import operator", "import operator\nimport string"), CHECK],
        ["linter", "F401", "code cell 2"],
    ),
    "no check": ([SETUP, EXPORT], ["proves nothing", "#| check:"]),
    "no export cell": ([SETUP, CHECK], ["no cell that begins with `#| export`"]),
    "nothing public": (
        ["#| export\ndef _double(x):\n    return 2 * x", "#| check: x\nassert True"],
        ["nothing in the exported cells is public"],
    ),
    "unknown directive": (
        [EXPORT.replace("#| export", "#| exprot"), CHECK],
        ["`#| exprot` is not a directive", "code cell 2", "did you mean `#| export`"],
    ),
    "check without a claim": (
        [EXPORT, "#| check\nassert double(1) == 2"],
        ["must say what it proves", "code cell 3"],
    ),
    "check leaning on a plain cell": (
        [EXPORT, "expected = 6", "#| check: doubles\nassert double(3) == expected"],
        ["check failed", "`expected` is not known to the check", "code cell 4"],
    ),
    "setup that fails": (
        ["#| setup\nimport no_such_package_at_all", EXPORT, CHECK],
        ["setup cell failed", "no_such_package_at_all"],
    ),
    "check that ends the process": (
        [EXPORT, "#| check: x\nimport os\n\nos._exit(3)\ndouble(1)"],
        ["stopped before it could answer"],
    ),
    "syntax error in a check": (
        [EXPORT, "#| check: x\nassert double(3 == 6"],
        ["a check is not valid Python", "code cell 3", "never closed"],
    ),
    "magic line in a check": (
        [EXPORT, "#| check: x\n%time double(3)\nassert double(3) == 6"],
        ["a check holds a shell or magic line", "code cell 3"],
    ),
    "shell line in a setup cell": (
        ["#| setup\n!ls", EXPORT, CHECK],
        ["a setup cell holds a shell or magic line", "code cell 2"],
    ),
    # several meanings of one name
    "a name imported and defined": (
        [
            "#| export\nfrom math import tau\n\n\ndef double(x):\n    return tau",
            "#| export\ntau = 6",
            CHECK,
        ],
        ["`tau` is imported and given a second meaning", "code cell 2", "code cell 3", "rename"],
    ),
    "a name imported from two modules": (
        [
            "#| export\nfrom math import pi\n\n\ndef double(x):\n    return pi",
            "#| export\nfrom cmath import pi\n\n\ndef half(x):\n    return pi",
            CHECK,
        ],
        ["`pi` is imported and given a second meaning", "code cell 2", "code cell 3", "rename"],
    ),
    "a constant defined by a walrus and again": (
        [EXPORT, "#| export\nA = (B := 2)\nB = 3", CHECK],
        ["`B` is exported twice", "code cell 3"],
    ),
    "__all__": (
        [EXPORT + '\n\n__all__ = ["double"]', CHECK],
        ["`__all__`, which the export writes itself", "code cell 2", "remove it"],
    ),
    "work behind a condition": (
        [
            "#| export\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import ast\n\n\n"
            "def double(x: ast.AST):\n    return x",
            CHECK,
        ],
        ["when it is imported", "if TYPE_CHECKING", "code cell 2"],
    ),
    "an addition to a constant": (
        [EXPORT, "#| export\nTOTAL = 1\nTOTAL += 1", CHECK],
        ["when it is imported", "TOTAL += 1", "code cell 3"],
    ),
    "await outside a function": (
        ["#| export\ndef double(x):\n    return 2 * x\n\n\nSIX = await double(3)", CHECK],
        ["linter", "code cell 2"],
    ),
    "a null character": (
        ["#| export\nNULL = '\0'\n\n\ndef double(x):\n    return 2 * x", CHECK],
        ["an exported cell", "Python", "code cell 2"],
    ),
    "brackets nested too deeply": (
        [f"#| export\nDEEP = {'(' * 300}1{')' * 300}\n\n\ndef double(x):\n    return 2 * x", CHECK],
        ["an exported cell", "Python", "code cell 2"],
    ),
    # checks that cannot fail
    "check that asserts nothing": (
        [EXPORT, "#| check: doubles\ndouble(3)"],
        ["`double", "no check would notice", "returns None"],
    ),
    "check of the type only": (
        [EXPORT, "#| check: doubles\nassert isinstance(double(3), int)"],
        ["no check would notice", "code cell 3", "returns a wrong value"],
    ),
    "check that catches everything": (
        [EXPORT, "#| check: doubles\ntry:\n    assert double(3) == 6\nexcept Exception:\n    pass"],
        ["no check would notice", "when it raises"],
    ),
    "check that compares it with itself": (
        [EXPORT, "#| check: doubles\nassert double(3) == double(3)"],
        ["no check would notice", "code cell 3"],
    ),
    "check that never names it": (
        [EXPORT, "#| check: arithmetic\nassert 3 * 2 == 6"],
        ["no check names it", "double"],
    ),
    "method without a check": (
        [
            "#| export\nclass Pair:\n    def first(self):\n        return 1\n\n"
            "    def second(self):\n        return 2",
            "#| check: first\nassert Pair().first() == 1",
        ],
        ["no check would notice if Pair.second", "#| check:"],
    ),
    "property checked for its type": (
        [
            "#| export\nclass One:\n    @property\n    def size(self):\n        return 1",
            "#| check: size\nassert isinstance(One().size, int)",
        ],
        ["no check would notice if One.size", "wrong value"],
    ),
}
MODULE_NAMES = [
    "../escape",
    "a/b",
    "a.b",
    "/etc/passwd",
    "..",
    "Class",
    "import",
    "a b",
    "",
    "toy.py",
    "_toy",
    "été",
]


def refused(course: Course, words: list[str]) -> str:
    """Export chapter 05, expect a refusal with these words, and the library byte for byte as before."""
    course.target.write_text(OLD, encoding="utf-8")
    before = course.files()
    with pytest.raises(ExportRefused) as caught:
        exporting.export("05")

    message = str(caught.value)
    for word in words:
        assert word.strip("`") in message or word in message, f"{word!r} not in:\n{message}"
    assert course.files() == before
    assert "Traceback" not in message and "courseware/" not in message
    return message


def late(course: Course) -> None:
    """Write chapter 09 with the module `late`."""
    thing = "#| export\ndef thing(x):\n    return x"
    course.chapter(thing, name="09_late", module="#| module: late")


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_with_the_cell_and_the_remedy(course, name):
    cells, words = REFUSALS[name]
    late(course)
    course.chapter(*cells)
    message = refused(course, words)
    assert "What to do: " in message


@pytest.mark.parametrize("module", MODULE_NAMES)
def test_module_names_cannot_leave_the_folder(course, module):
    course.chapter(EXPORT, CHECK, module=f"#| module: {module}\n# Toy.")
    refused(course, ["module name", "code cell 1", "minigpt_lib"])
    assert not (course.root.parent / "escape.py").exists()


def test_code_in_a_module_cell_is_refused(course):
    course.chapter(EXPORT, CHECK, module="#| module: toy\n# Toy.\n\nimport math")
    refused(course, ["`#| module:` cell holds code", "import math", "code cell 1", "#| export"])


def test_a_null_character_in_a_module_cell_is_refused(course):
    course.chapter(EXPORT, CHECK, module="#| module: toy\n# To\0y.")
    refused(course, ["a module cell", "Python", "code cell 1"])


def test_two_chapters_one_module(course):
    course.good()
    course.chapter(EXPORT, CHECK, name="04_twin")
    refused(course, ["both export the module 'toy'", "another name"])


@pytest.mark.parametrize("which", ["17", "²", "-5", "", "05_toy.py"])
def test_unknown_chapter_lists_those_there_are(course, which):
    course.good()
    with pytest.raises(ExportRefused, match="05_toy"):
        exporting.export(which)


# --- modules that a module may not import, however it tries ---

USES = "#| export\nimport importlib\nimport importlib.util\n\n\ndef double(x):\n    return {code}"
FORBIDDEN = {
    "import_module": ('importlib.import_module("minigpt_lib.late").thing(x)', "chapter 09"),
    "import_module under another name": ('(importlib.import_module)("minigpt_lib.late")', "chapter 09"),
    "__import__": ('__import__("minigpt_lib.late"), importlib', "chapter 09"),
    "find_spec": ('importlib.util.find_spec("minigpt_lib.late")', "chapter 09"),
    "find_spec of a name inside": ('importlib.util.find_spec("minigpt_lib.late.thing")', "no chapter"),
    "a keyword argument": ('importlib.import_module(name="minigpt_lib.late")', "chapter 09"),
    "the package": ('importlib.import_module("minigpt_lib").late', "no chapter exports it"),
    "a module that no chapter writes": ('importlib.import_module("minigpt_lib.ghost")', "no chapter"),
    "the module itself": ('importlib.import_module("minigpt_lib.toy")', "that module itself"),
    "a relative name": ('importlib.import_module(".late", "minigpt_lib")', "does not say which module"),
    "a level": ('__import__("late", globals(), level=1), importlib', "does not say which module"),
    "a sum": ('importlib.import_module("minigpt_lib." + x)', "does not say which module"),
    "an f-string": ('importlib.import_module(f"minigpt_lib.{x}")', "does not say which module"),
    "an f-string in full": ('importlib.import_module(f"minigpt_lib.late{x}")', "minigpt_lib.late"),
    "courseware": ('importlib.import_module("courseware.paths")', "imports courseware"),
    "the name of a later module": ('importlib, "minigpt_lib.late"', "in a string"),
    "a later object": ('importlib, "minigpt_lib.late.thing"', "in a string"),
    "a help text about a later chapter": ('importlib, "run python -m minigpt_lib.late now"', "in a string"),
    "strings side by side": ('importlib, "mini" "gpt_lib.late"', "in a string"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_no_way_round_the_order_of_the_chapters(course, name):
    code, words = FORBIDDEN[name]
    late(course)
    course.chapter(USES.format(code=code), CHECK)
    refused(course, [words, "code cell 2"])


def test_a_module_reached_through_the_package_is_refused(course):
    late(course)
    course.chapter("#| export\nX = 1", name="04_early", module="#| module: early")
    code = "#| export\nimport minigpt_lib.early\n\n\ndef double(x):\n    return minigpt_lib.late.thing(x)"
    course.chapter(code, CHECK)
    refused(course, ["imports minigpt_lib.late", "chapter 09", "code cell 2"])


ALLOWED = {
    "a docstring": '"""Used by minigpt_lib.late.\n\n    minigpt_lib.late\n    """\n    return 2 * x',
    "a help text": 'return (2 * x, "python -m minigpt_lib.toy --help; after minigpt_lib.early")[0]',
    "its own name": 'return (2 * x, "minigpt_lib.toy")[0]',
    "an earlier module": 'return (2 * x, __import__("minigpt_lib.early"))[0]',
    "where the package is": 'import importlib.util\n\n    importlib.util.find_spec("minigpt_lib")\n    return 2 * x',
    "another package": 'import importlib\n\n    importlib.import_module("math")\n    return 2 * x',
    "a comment": "return 2 * x  # minigpt_lib.late does this faster",
    "a file": 'return (2 * x, "minigpt_lib.zip")[0]',
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_what_may_be_named(course, name):
    late(course)
    course.chapter("#| export\nX = 1", name="04_early", module="#| module: early")
    (course.library / "early.py").write_text("X = 1\n", encoding="utf-8")
    course.chapter(f"#| export\ndef double(x):\n    {ALLOWED[name]}", CHECK)
    exporting.export("05")


# --- files that are no notebooks ---

CELL = {"cell_type": "code", "metadata": {}, "outputs": [], "source": ""}
FAULTY = {
    "nothing": b"",
    "no JSON": b"{not json",
    "not UTF-8": b'{"nbformat": 4, "cells": [], "title": "gr\xf6sse"}',
    "nested too deeply": b"[" * 100_000,
    "an empty object": {},
    "a list": [],
    "null": None,
    "a number": 4,
    "a truth value": True,
    "a string": "notebook",
    "no nbformat": {"cells": []},
    "format 3": {"nbformat": 3, "worksheets": [{"cells": []}]},
    "format as a string": {"nbformat": "4", "cells": []},
    "no cells": {"nbformat": 4},
    "cells null": {"nbformat": 4, "cells": None},
    "cells an object": {"nbformat": 4, "cells": {}},
    "a cell that is a string": {"nbformat": 4, "cells": ["#| export"]},
    "a cell that is null": {"nbformat": 4, "cells": [CELL, None]},
    "a cell without a type": {"nbformat": 4, "cells": [{"source": ""}]},
    "a cell of another type": {"nbformat": 4, "cells": [{**CELL, "cell_type": "heading"}]},
    "a cell whose type is a list": {"nbformat": 4, "cells": [{**CELL, "cell_type": ["code"]}]},
    "a cell without a source": {"nbformat": 4, "cells": [{"cell_type": "code"}]},
    "a source that is null": {"nbformat": 4, "cells": [{**CELL, "source": None}]},
    "a source that is a number": {"nbformat": 4, "cells": [{**CELL, "source": 4}]},
    "a source with numbers": {"nbformat": 4, "cells": [{**CELL, "source": ["a", 4]}]},
    "half a character": {"nbformat": 4, "cells": [{**CELL, "source": "# \ud83d"}]},
}
COMMANDS = {
    "export": lambda: exporting.export("05"),
    "export another chapter": lambda: exporting.export("06"),
    "verify": exporting.verify,
    "verify a chapter": lambda: exporting.verify(["05"]),
    "title": lambda: find_chapter("05").title,
}


def test_an_unreadable_notebook_leaves_the_library_alone(course):
    course.good().write_text("{not json", encoding="utf-8")
    refused(course, ["not a readable notebook", "reset"])


@pytest.mark.parametrize("name", FAULTY)
def test_a_file_that_is_no_notebook_is_refused_by_every_command(course, name):
    content = FAULTY[name]
    if not isinstance(content, bytes):
        content = json.dumps(content).encode("utf-8")
    course.good().write_bytes(content)
    course.chapter(EXPORT, CHECK, name="06_other", module="#| module: other")

    for command in COMMANDS.values():
        with pytest.raises(ExportRefused, match="05_toy.ipynb is not a") as caught:
            command()
        assert "JupyterLab" in str(caught.value) and "make reset CH=05" in str(caught.value)


def test_a_folder_with_the_name_of_a_notebook_is_refused(course):
    course.good().unlink()
    (course.root / "notebooks" / "05_toy.ipynb").mkdir()
    course.chapter(EXPORT, CHECK, name="06_other", module="#| module: other")
    for command in COMMANDS.values():
        with pytest.raises(ExportRefused, match="05_toy.ipynb cannot be read"):
            command()


@pytest.mark.slow
def test_the_conversion_that_the_remedy_names_works(course):
    """`jupyter nbconvert` turns a notebook of format 3 into one of format 4."""
    notebook = nbformat.v3.new_notebook()
    cells = [nbformat.v3.new_code_cell(input=text) for text in (EXPORT, CHECK)]
    notebook.worksheets = [nbformat.v3.new_worksheet(cells=cells)]
    path = course.good()
    path.write_text(nbformat.v3.writes_json(notebook), encoding="utf-8")

    arguments = "--to notebook --nbformat 4 --inplace 05_toy.ipynb"
    with pytest.raises(ExportRefused, match=f"jupyter nbconvert {arguments}"):
        exporting.verify()
    command = [sys.executable, "-m", "nbconvert", *arguments.split()]
    subprocess.run(command, cwd=path.parent, check=True, capture_output=True, timeout=120)

    assert [cell.kind for cell in find_chapter("05").cells] == ["export", "check"]
