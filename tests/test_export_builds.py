"""Verified export: what a chapter's cells become, and the table of proofs that they earn."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECK, EXPORT, SETUP

from courseware.export import exporting
from courseware.export.build import module_source
from courseware.export.errors import ExportRefused


def test_success_writes_a_tidy_module(course):
    course.good()
    proofs = exporting.export("05")
    text = course.target.read_text(encoding="utf-8")
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
    assert json.loads((course.root / ".course/progress.json").read_text(encoding="utf-8"))[
        "chapter"
    ] == {"05_toy": "exported"}
    assert list(course.library.glob(".*")) == []


def test_a_chapter_with_a_main_becomes_a_command(course):
    course.chapter(
        "#| export\nimport sys\n\n\ndef main(arguments=None):\n"
        "    print('said', arguments or sys.argv[1:])\n    return 3 if arguments else None",
        "#| check: it speaks\nassert main(['x']) == 3",
    )
    exporting.export("05")
    command = [sys.executable, "-m", f"minigpt_lib.{course.target.stem}", "a", "b"]
    done = subprocess.run(
        command, cwd=course.root, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "said ['a', 'b']\n"


def test_a_chapter_with_two_commands_names_each_after_its_module(course):
    cells = []
    for module in ("toy", "toys"):
        cells += [
            f"#| module: {module}",
            f"#| export\ndef {module}_main():\n    print('{module}')",
            f"#| check: {module} speaks\nassert {module}_main() is None",
        ]
        cells[-1] += (
            "\nimport contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as said:\n"
            f"    {module}_main()\nassert said.getvalue() == '{module}\\n'"
        )
    course.chapter(*cells[1:], module=cells[0])
    exporting.export("05")
    for module in ("toy", "toys"):
        command = [sys.executable, "-m", f"minigpt_lib.{module}"]
        done = subprocess.run(
            command, cwd=course.root, capture_output=True, encoding="utf-8", check=True
        )
        assert done.stdout == f"{module}\n"


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
    text = course.target.read_text(encoding="utf-8")
    assert "import ast\nimport re\nfrom math import e, pi\n\n__all__" in text
    assert text.count("import ") == 4  # with __future__


@pytest.mark.slow
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
    with pytest.raises(ExportRefused, match="no check would notice if Box.one"):
        exporting.export("05")
    assert not course.target.exists()


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
    assert '__all__ = ["double"]' in course.target.read_text(encoding="utf-8")


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
    assert (
        "operator.add" in Path(module.__file__).read_text(encoding="utf-8")
        and module.double(2) == 4
    )
    code = "from minigpt_lib.toy import double; import inspect; print(inspect.getsource(double))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=course.environment,
        cwd=course.root,
        capture_output=True,
        encoding="utf-8",
    )
    assert "operator.add" in done.stdout
    sys.modules.pop("minigpt_lib.toy"), sys.modules.pop("minigpt_lib")


def test_the_source_of_a_module_by_its_name(course):
    course.good()
    source = module_source("toy")
    exporting.export("05")
    assert course.target.read_text(encoding="utf-8") == source
    with pytest.raises(ExportRefused, match="no chapter exports the module 'ghost'.*\n.*: toy"):
        module_source("ghost")
