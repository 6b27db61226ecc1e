"""Verified export: everything that must be refused is refused by name, and the library stays as it was."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import CHECK, EXPORT, SETUP

from courseware import exporting, originals, progress, session
from courseware.build import build
from courseware.chapters import find_chapter
from courseware.errors import ExportRefused

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


def refused(course, words: list[str]) -> str:
    """Export chapter 05, expect a refusal with these words, and the library byte for byte as before."""
    course.target.write_text(OLD)
    before = {p: p.read_bytes() for p in sorted(course.library.iterdir())}
    with pytest.raises(ExportRefused) as caught:
        exporting.export("05")
    message = str(caught.value)
    for word in words:
        assert word.strip("`") in message or word in message, f"{word!r} not in:\n{message}"
    assert {p: p.read_bytes() for p in sorted(course.library.iterdir())} == before
    assert "Traceback" not in message and "courseware/" not in message
    return message


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_with_the_cell_and_the_remedy(course, name):
    cells, words = REFUSALS[name]
    course.chapter(
        "#| export\ndef thing(x):\n    return x", name="09_late", module="#| module: late"
    )
    course.chapter(*cells)
    message = refused(course, words)
    assert "What to do: " in message


@pytest.mark.parametrize("module", MODULE_NAMES)
def test_module_names_cannot_leave_the_folder(course, module):
    course.chapter(EXPORT, CHECK, module=f"#| module: {module}\n# Toy.")
    refused(course, ["module name", "code cell 1", "minigpt_lib"])
    assert not (course.root.parent / "escape.py").exists()


def test_two_chapters_one_module(course):
    course.good()
    course.chapter(EXPORT, CHECK, name="04_twin")
    refused(course, ["both export the module 'toy'", "another name"])


def test_unknown_chapter_lists_those_there_are(course):
    course.good()
    with pytest.raises(ExportRefused, match="05_toy"):
        exporting.export("17")


def test_unreadable_notebook(course):
    course.good().write_text("{not json")
    refused(course, ["not a readable notebook", "reset"])


def test_success_writes_a_tidy_module(course):
    course.good()
    proofs = exporting.export("05")
    text = course.target.read_text()
    assert text == (
        '"""Double and halve numbers.\n\nTwo lines of text.\n\n'
        'Written by notebooks/05_toy.ipynb (chapter 05): edit it there.\n"""\n\n'
        "from __future__ import annotations\n\nimport operator\n\n"
        '__all__ = ["double"]\n\n\n'
        'def double(x: float) -> float:\n    """Return x times two."""\n    return operator.mul(x, 2)\n'
    )
    shown = repr(proofs)
    assert "doubles" in shown and "by hand" in shown and "minigpt_lib/toy.py" in shown
    assert "<table>" in proofs._repr_html_() and proofs.rows[0][2] == "double"
    assert json.loads((course.root / ".course/progress.json").read_text())["chapter"] == {
        "05_toy": "exported"
    }
    assert list(course.library.glob(".*")) == []


def test_a_chapter_with_a_main_becomes_a_command(course):
    course.chapter(
        "#| export\nimport sys\n\n\ndef main(arguments=None):\n"
        "    print('said', arguments or sys.argv[1:])\n    return 3 if arguments else None",
        "#| check: it speaks\nassert main(['x']) == 3",
    )
    exporting.export("05")
    command = [sys.executable, "-m", f"minigpt_lib.{course.target.stem}", "a", "b"]
    done = subprocess.run(command, cwd=course.root, capture_output=True, text=True, check=True)
    assert done.stdout == "said ['a', 'b']\n"


def test_same_bytes_and_same_table_twice(course):
    course.good()
    first, text = repr(exporting.export("05")), course.target.read_bytes()
    second = repr(exporting.export("05"))
    assert course.target.read_bytes() == text
    timeless = [re.sub(r"\d+\.\d+ s", "T s", shown) for shown in (first, second)]
    assert timeless[0] == timeless[1]


def test_imports_are_hoisted_sorted_and_merged(course):
    course.chapter(
        "#| export\nimport re\nfrom math import pi\n\n\ndef area(r):\n    return pi * r * r",
        "#| export\nimport ast\nfrom math import e\n\n\ndef parsed(t):\n"
        "    return ast.literal_eval(re.sub('e', str(e), t))",
        "#| check: area\nassert abs(area(2) - 12.566370614359172) < 1e-12",
        "#| check: parsed\nassert parsed('1') == 1",
    )
    exporting.export("05")
    text = course.target.read_text()
    assert "import ast\nimport re\nfrom math import e, pi\n\n__all__" in text
    assert text.count("import ") == 4  # with __future__


@pytest.mark.parametrize(
    ("code", "check"),
    [
        (
            "async def double(x):\n    return 2 * x",
            "import asyncio\nassert asyncio.run(double(3)) == 6",
        ),
        ("def twice(x):\n    yield x\n    yield x", "assert list(twice(3)) == [3, 3]"),
        ("from enum import Enum\n\n\nclass Kind(Enum):\n    A = 1", "assert Kind.A.value == 1"),
        (
            "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Config:\n    n: int = 2\n\n"
            "    def twice(self):\n        return 2 * self.n",
            "assert Config(3).twice() == 6 and Config().n == 2",
        ),
        (
            "from functools import lru_cache\n\n\n@lru_cache\ndef double(x):\n    return 2 * x",
            "assert double(3) == 6",
        ),
        (
            "from torch import nn\n\n\nclass Twice(nn.Module):\n    def forward(self, x):\n        return 2 * x",
            "import torch\n\nassert Twice()(torch.ones(2)).tolist() == [2, 2]",
        ),
        ("# only a remark\n\n\ndef double(x):\r\n\treturn 2 * x", "assert double(3) == 6"),
        (
            "def mark():\n    return 'a\u2028b'\n\n\nimport math\n\n\ndef pi():\n    return math.pi",
            "assert mark() == 'a\u2028b' and round(pi(), 2) == 3.14",
        ),
        (
            "class _Base:\n    def one(self):\n        return 1\n\n\nclass Box(_Base):\n"
            "    @classmethod\n    def new(cls):\n        return cls()\n\n    @property\n    def two(self):\n"
            "        return 2\n\n    @staticmethod\n    def three():\n        return 3",
            "box = Box.new()\nassert [type(box), box.one(), box.two, Box.three()] == [Box, 1, 2, 3]",
        ),
    ],
)
def test_all_kinds_of_code_can_be_exported(course, code, check):
    course.chapter(f"#| export\n{code}", f"#| check: works\n{check}")
    proofs = exporting.export("05")
    assert all(target["by"] == [3] for target in proofs.answer["targets"])


def test_a_method_of_a_private_base_needs_a_check_too(course):
    course.chapter(
        "#| export\nclass _Base:\n    def one(self):\n        return 1\n\n\nclass Box(_Base):\n    pass",
        "#| check: works\nassert Box()",
    )
    refused(course, ["Box.one"])


def test_private_helpers_and_earlier_chapters_are_allowed(course):
    course.chapter(
        EXPORT.replace("double", "base"),
        CHECK.replace("double", "base"),
        name="04_base",
        module="#| module: base",
    )
    exporting.export("04")
    course.chapter(
        "#| export\nfrom minigpt_lib.base import base\n\n\ndef _twice(x):\n    return base(x)",
        "#| export\ndef double(x):\n    return _twice(x)",
        CHECK,
    )
    exporting.export("05")
    assert '__all__ = ["double"]' in course.target.read_text()


def test_changed_code_reaches_the_next_import(course, monkeypatch):
    monkeypatch.syspath_prepend(str(course.root))
    for name in [m for m in sys.modules if m.partition(".")[0] == "minigpt_lib"]:
        monkeypatch.delitem(sys.modules, name)
    course.good()
    exporting.export("05")
    assert importlib.import_module("minigpt_lib.toy").double(2) == 4
    course.chapter(SETUP, EXPORT.replace("operator.mul(x, 2)", "operator.add(x, x)"), CHECK)
    exporting.export("05")
    module = importlib.import_module("minigpt_lib.toy")
    assert "operator.add" in Path(module.__file__).read_text() and module.double(2) == 4
    code = "from minigpt_lib.toy import double; import inspect; print(inspect.getsource(double))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=course.environment,
        cwd=course.root,
        capture_output=True,
        text=True,
    )
    assert "operator.add" in done.stdout
    sys.modules.pop("minigpt_lib.toy"), sys.modules.pop("minigpt_lib")


def test_read_only_target(course):
    course.good()
    course.target.write_text(OLD)
    course.target.chmod(stat.S_IRUSR)
    real = os.access
    try:
        exporting.os.access = lambda path, mode: (
            False if str(path) == str(course.target) else real(path, mode)
        )
        with pytest.raises(ExportRefused, match="cannot be written to.*read-only"):
            exporting.export("05")
    finally:
        exporting.os.access = real
    assert course.target.read_text() == OLD


def test_full_disk_leaves_the_old_module(course, monkeypatch):
    course.good()
    course.target.write_text(OLD)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting.paths.os, "fsync", full)
    with pytest.raises(ExportRefused, match="No space left"):
        exporting.export("05")
    assert course.target.read_text() == OLD
    assert list(course.library.glob(".*")) == []


def command(course, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "courseware", *arguments],
        env=course.environment,
        cwd=course.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_any_moment_leaves_old_or_new(course):
    course.good()
    new = build(find_chapter("05")).source
    start = time.perf_counter()
    assert command(course, "export", "05").wait() == 0
    whole = time.perf_counter() - start
    seen = set()
    for step in range(16):
        course.target.write_text(OLD)
        running = command(course, "export", "05")
        time.sleep(whole * (0.15 + 1.0 * step / 15))
        running.send_signal(signal.SIGKILL)
        running.wait()
        text = course.target.read_text()
        assert text in (OLD, new), text
        seen.add(text)
    assert OLD in seen
    assert command(course, "export", "05").wait() == 0  # no lock and no litter stays behind
    assert course.target.read_text() == new
    assert list(course.library.glob(".*")) == []
    assert list((course.root / ".course").glob("proof-*")) == []


@pytest.mark.parametrize(
    "moment", ["before the temporary file is whole", "before the rename", "after the rename"]
)
def test_killed_inside_the_write(course, moment):
    """The narrow window that random kills rarely hit: die inside `write_atomic` itself."""
    course.good()
    course.target.write_text(OLD)
    place = {
        "before the temporary file is whole": "paths.os.fsync = lambda fd: os._exit(9)",
        "before the rename": "paths.os.replace = lambda a, b: os._exit(9)",
        "after the rename": "real = os.replace; paths.os.replace = lambda a, b: (real(a, b), os._exit(9))",
    }[moment]
    code = f"import os\nfrom courseware import exporting, paths\n{place}\nexporting.export('05')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=course.environment, cwd=course.root, capture_output=True
    )
    assert done.returncode == 9, done.stderr
    new = build(find_chapter("05")).source
    assert course.target.read_text() == (new if moment == "after the rename" else OLD)
    exporting.export("05")
    assert course.target.read_text() == new and list(course.library.glob(".*.tmp")) == []


def test_two_exports_at_once(course):
    course.good()
    running = [command(course, "export", "05") for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    assert course.target.read_text() == build(find_chapter("05")).source


def test_two_chapters_are_exported_at_once(course):
    course.good()
    waiting = course.root / ".course" / "proof-06_other-x"  # another chapter's proof, under way
    waiting.mkdir(parents=True, exist_ok=True)
    left_over = course.root / ".course" / "proof-05_toy-y"
    left_over.mkdir()
    exporting.export("05")
    assert waiting.is_dir() and not left_over.exists()


def test_verify_finds_hand_edits_and_strays(course):
    course.good()
    exporting.export("05")
    assert exporting.verify() == {}
    course.target.write_text(
        course.target.read_text().replace("operator.mul(x, 2)", "operator.mul(2, x)")
    )
    (course.library / "stray.py").write_text("x = 1\n")
    problems = exporting.verify()
    assert set(problems) == {"toy.py", "stray.py"}
    assert "-    return operator.mul(2, x)" in problems["toy.py"]
    assert "+    return operator.mul(x, 2)" in problems["toy.py"]
    process = command(course, "verify")
    out, _ = process.communicate()
    assert (
        process.returncode == 1 and "+    return operator.mul(x, 2)" in out and "make reset" in out
    )


def test_verify_finds_a_missing_module(course):
    course.good()
    assert "+def double" in exporting.verify()["toy.py"]


def test_reset_brings_back_the_course_and_keeps_the_learners(course):
    path = course.good()
    exporting.export("05")
    originals.freeze()
    assert originals.differing() == []
    course.chapter(SETUP, EXPORT.replace("operator.mul(x, 2)", "operator.add(x, x)"), CHECK)
    mine = path.read_text()
    exporting.export("05")
    assert originals.differing() == ["05_toy.ipynb"]
    lines = originals.reset("05")
    assert "operator.mul" in course.target.read_text() and "operator.mul" in path.read_text()
    assert len(lines) == 2 and exporting.verify() == {}
    kept = [p.read_text() for p in (course.root / ".course/before-reset").iterdir()]
    assert mine in kept and len(kept) == 2
    assert originals.reset("5") == []
    with pytest.raises(ExportRefused, match="05_toy"):
        originals.reset("11")


def test_reset_revives_a_deleted_or_broken_notebook(course):
    path = course.good()
    exporting.export("05")
    originals.freeze()
    text = path.read_text()
    path.write_text("{broken")
    originals.reset("05")
    assert path.read_text() == text
    path.unlink()
    originals.reset("05")
    assert path.read_text() == text


# --- a notebook in a kernel: what was executed must be what is saved ---


def cells_of(path):
    return [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def test_run_as_saved_is_accepted(course):
    path = course.good()
    session.refuse_other_state(find_chapter("05"), cells_of(path))


def test_saved_but_not_run(course):
    path = course.good()
    with pytest.raises(
        ExportRefused, match=r"saved but not run as saved: code cell 3 .`import operator"
    ):
        session.refuse_other_state(find_chapter("05"), [c for c in cells_of(path) if c != EXPORT])


def test_edited_run_but_not_saved(course):
    path = course.good()
    edited = EXPORT.replace("mul(x, 2)", "add(x, x)")
    ran = [*cells_of(path), edited]
    with pytest.raises(ExportRefused, match=r"run but not saved: `import operator") as caught:
        session.refuse_other_state(find_chapter("05"), ran)
    assert "Ctrl+S" in str(caught.value)


def test_an_older_version_does_no_harm(course):
    path = course.good()
    older = EXPORT.replace("mul(x, 2)", "add(x, x)")
    session.refuse_other_state(find_chapter("05"), [older, *cells_of(path)])


def test_other_notebook_is_refused(course, monkeypatch):
    course.good()
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/notebooks/05_toy-Copy1.ipynb")
    with pytest.raises(ExportRefused, match="05_toy-Copy1.ipynb"):
        session.refuse_other_notebook(find_chapter("05"))


@pytest.mark.slow
def test_in_a_real_kernel(course):
    """Run a notebook whose file differs from what is executed, then one that is as saved."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    path = course.chapter(SETUP, EXPORT, CHECK, "from courseware import export\n\nexport('05')")
    notebook = nbformat.read(path, as_version=4)
    os.environ["PYTHONPATH"] = course.environment["PYTHONPATH"]
    try:
        course.chapter(SETUP, EXPORT.replace("x, 2", "2, x"), CHECK, "export('05')")
        with pytest.raises(CellExecutionError, match="what was executed is not what is saved"):
            NotebookClient(notebook, kernel_name="python3").execute()
        assert not course.target.exists()
        course.chapter(SETUP, EXPORT, CHECK, "from courseware import export\n\nexport('05')")
        NotebookClient(notebook, kernel_name="python3").execute()
    finally:
        os.environ.pop("PYTHONPATH")
    assert course.target.exists()
    data = notebook.cells[-1].outputs[0]["data"]
    assert "<table>" in data["text/html"] and "doubles" in data["text/plain"]


def test_progress_survives_damage(course):
    course.good()
    progress.record("exercise", "softmax", "wrong")
    progress.record("exercise", "softmax", "right")
    progress.record("exercise", "softmax", "wrong")
    assert progress.read()["exercise"]["softmax"] == "right"
    (course.root / ".course/progress.json").write_text("{")
    assert progress.read() == {}
    progress.record("chapter", "05_toy", "exported")
    assert progress.read() == {"chapter": {"05_toy": "exported"}}


def test_every_committed_module_is_what_its_chapter_writes():
    problems = exporting.verify()
    assert problems == {}, "\n".join(problems.values())


@pytest.mark.skipif(
    not os.environ.get("CI"), reason="a learner's own chapters may differ; CI compares"
)
def test_the_originals_are_in_step():
    assert originals.differing() == [], "run: python -m courseware freeze"
