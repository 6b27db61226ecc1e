"""A chapter with several modules: built in order, proved together, compared and replaced together."""

from __future__ import annotations

import pytest
from conftest import CHECK, EXPORT, Course

from courseware.export import exporting
from courseware.export.build import build
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import find_chapter
from courseware.site import reference

FIRST = EXPORT
SECOND = "#| module: more\n# Work with more numbers."
IMPORT = "#| export\nfrom minigpt_lib.toy import double\n"
FOUR = (
    IMPORT
    + '''

def four(x: float) -> float:
    """Return x times four."""
    return double(double(x))
'''
)
CHECK_FOUR = "#| check: four times | against: by hand\nassert four(3) == 12"
OLD = '"""As it was."""\n'


def two_modules(course: Course, *cells: str) -> None:
    """Write chapter 05 with the modules toy and more, and these cells at the end."""
    course.chapter(FIRST, CHECK, SECOND, FOUR, CHECK_FOUR, *cells)


def test_each_module_holds_the_cells_below_its_opening(course):
    two_modules(course, "#| export\nHALF = 0.5", "#| check: half\nassert HALF == 0.5")
    exporting.export("05")
    assert exporting.verify() == {}

    files = course.files()
    assert set(files) == {"__init__.py", "toy.py", "more.py"}
    assert files["toy.py"].startswith('"""Double and halve numbers.\n')
    assert '__all__ = ["double"]' in files["toy.py"] and "four" not in files["toy.py"]
    assert files["more.py"] == (
        '"""Work with more numbers.\n\n'
        'Written by notebooks/05_toy.ipynb (chapter 05): edit it there.\n"""\n\n'
        "from __future__ import annotations\n\nfrom minigpt_lib.toy import double\n\n"
        '__all__ = ["HALF", "four"]\n\n\n'
        'def four(x: float) -> float:\n    """Return x times four."""\n    return double(double(x))\n\n\n'
        "HALF = 0.5\n"
    )


def test_the_report_lists_each_file_and_what_was_watched(course):
    two_modules(course)
    proofs = exporting.export("05")
    assert "minigpt_lib/toy.py: 17 lines, minigpt_lib/more.py: 15 lines" in repr(proofs)
    assert [row[:3] for row in proofs.rows] == [
        ("doubles", "by hand", "double"),
        ("four times", "by hand", "four"),
    ]
    assert "minigpt_lib/more.py" in proofs._repr_html_()


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("import minigpt_lib.toy", "minigpt_lib.toy.double"),
        ("import minigpt_lib.toy as first", "first.double"),
        ("from minigpt_lib import toy", "toy.double"),
        ("from minigpt_lib.toy import double as twice", "twice"),
    ],
)
def test_a_later_module_imports_an_earlier_one(course, line, call):
    (course.library / "toy.py").write_text("def double(x):\n    return 0\n", encoding="utf-8")
    four = f"#| export\n{line}\n\n\ndef four(x):\n    return {call}({call}(x))"
    course.chapter(FIRST, CHECK, SECOND, four, CHECK_FOUR)
    exporting.export("05")


def test_a_check_before_a_later_module_sees_it(course):
    course.chapter(FIRST, CHECK_FOUR, CHECK, SECOND, FOUR)
    proofs = exporting.export("05")
    assert {t["name"]: t["by"] for t in proofs.answer["targets"]} == {"double": [4], "four": [3]}


def test_checks_may_use_the_imports_of_every_module(course):
    two_modules(course, "#| check: operator is there\nassert operator.mul(four(1), double(1)) == 8")
    exporting.export("05")


def test_a_function_is_stubbed_in_every_module_that_imports_it(course):
    """`double` is watched by a check that names it and fails only through the other module."""
    course.chapter(FIRST, SECOND, FOUR, "#| check: four times\ndouble\nassert four(3) == 12")
    exporting.export("05")


def test_a_method_of_a_private_base_in_an_earlier_module_needs_a_check(course):
    course.chapter(
        "#| export\nclass _Base:\n    def one(self):\n        return 1\n\n\ndef double(x):\n    return 2 * x",
        SECOND,
        "#| export\nfrom minigpt_lib.toy import _Base\n\n\nclass Box(_Base):\n    pass",
        CHECK,
        "#| check: it exists\nassert Box()",
    )
    with pytest.raises(ExportRefused, match="no check would notice if Box.one"):
        exporting.export("05")


def test_private_names_may_be_the_same(course):
    helper = "#| export\ndef _helper(x):\n    return x"
    two_modules(course, helper.replace("_helper", "_other"))
    course.chapter(FIRST, helper, CHECK, SECOND, FOUR, helper, CHECK_FOUR)
    exporting.export("05")


REFUSALS = {
    "an export cell before the first module": (
        ["#| export\nX = 1", "#| module: toy", FIRST, CHECK],
        ["above the first `#| module:` cell", "code cell 1 (`X = 1`)", "move it below"],
    ),
    "a module opened twice": (
        ["#| module: toy", FIRST, SECOND, FOUR, "#| module: toy", CHECK],
        ["opens the module 'toy' twice", "code cell 1", "code cell 5", "keep one"],
    ),
    "a module without cells": (
        ["#| module: toy", FIRST, CHECK, "#| module: more", CHECK_FOUR],
        ["no cell that begins with `#| export` for the module more", "code cell 4"],
    ),
    "a module without public names": (
        ["#| module: toy", FIRST, CHECK, SECOND, "#| export\n_X = 1"],
        ["nothing in the exported cells is public", "the module more"],
    ),
    "a public name of two modules": (
        ["#| module: toy", FIRST, CHECK, SECOND, FIRST],
        ["`double` is a public name of two modules", "toy and more", "import it from toy"],
    ),
    "an earlier module that imports a later one": (
        ["#| module: more", FOUR, "#| module: toy", FIRST, CHECK, CHECK_FOUR],
        ["imports minigpt_lib.toy", "a later module of chapter 05", "code cell 2"],
    ),
    "an earlier module that names a later one": (
        ["#| module: more", '#| export\nNAME = "minigpt_lib.toy"', "#| module: toy", FIRST, CHECK],
        ["names minigpt_lib.toy in a string", "a later module of chapter 05", "code cell 2"],
    ),
    "a module that imports itself": (
        ["#| module: toy", FIRST, "#| export\nimport minigpt_lib.toy as me\n\nX = me", CHECK],
        ["imports minigpt_lib.toy", "that module itself", "code cell 3"],
    ),
    "a name of an earlier module that is not imported": (
        ["#| module: toy", FIRST, CHECK, SECOND, FOUR.replace(IMPORT, "#| export\n"), CHECK_FOUR],
        ["`double`, which belongs to the module toy", "code cell 5", "from minigpt_lib.toy import"],
    ),
    "a failure in the second module": (
        ["#| module: toy", FIRST, CHECK, SECOND, FOUR.replace("(x))", "(x), 1)"), CHECK_FOUR],
        ["a check failed", "code cell 6", "raised from code cell 5", "minigpt_lib.more, line"],
    ),
    "a wrong answer of the second module": (
        ["#| module: toy", FIRST, CHECK, SECOND, FOUR, CHECK_FOUR.replace("12", "13")],
        ["a check failed", "code cell 6", "assert four(3) == 13"],
    ),
    "a second module that cannot be imported": (
        ["#| module: toy", FIRST, CHECK, SECOND, FOUR + "\n\nX = 1 / 0", CHECK_FOUR],
        ["the module or a setup cell failed", "ZeroDivisionError", "raised from code cell 5"],
    ),
    "a function of the second module that nothing watches": (
        ["#| module: toy", FIRST, CHECK, SECOND, FOUR],
        ["no check would notice if four were broken", "no check names it"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_and_no_module_is_touched(course, name):
    cells, words = REFUSALS[name]
    course.target.write_text(OLD, encoding="utf-8")
    before = course.files()
    module, *others = cells
    course.chapter(*others, module=module)

    with pytest.raises(ExportRefused) as caught:
        exporting.export("05")

    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} not in:\n{message}"
    assert course.files() == before


def test_two_chapters_may_not_share_a_later_module(course):
    two_modules(course)
    course.chapter(FIRST, CHECK, name="04_twin", module=SECOND)
    with pytest.raises(ExportRefused, match="chapters 04 and 05 both export the module 'more'"):
        exporting.export("05")


def test_a_later_chapter_may_import_every_module(course):
    two_modules(course)
    exporting.export("05")
    use = "#| export\nfrom minigpt_lib.more import four\nfrom minigpt_lib.toy import double\n\n\n"
    use += "def eight(x):\n    return four(double(x))"
    check = "#| check: eight times\nassert eight(2) == 16"
    course.chapter(use, check, name="06_eight", module="#| module: eight\n# Eight.")
    exporting.export("06")
    assert [c.module for c in build(find_chapter("06"))] == ["eight"]


def test_verify_names_each_module_that_differs(course):
    two_modules(course)
    exporting.export("05")
    more = course.library / "more.py"
    more.write_text(more.read_text(encoding="utf-8").replace("(x))", "( x ))"), encoding="utf-8")
    assert set(exporting.verify()) == {"more.py"}
    course.target.unlink()
    assert set(exporting.verify(["05"])) == {"toy.py", "more.py"}


def test_a_renamed_module_is_found_and_not_removed(course):
    two_modules(course)
    exporting.export("05")
    course.chapter(FIRST, CHECK, SECOND.replace("more", "extra"), FOUR, CHECK_FOUR)
    exporting.export("05")

    assert {"toy.py", "more.py", "extra.py"} <= set(course.files())
    assert exporting.verify() == {"more.py": "minigpt_lib/more.py: no chapter writes this file\n"}


def test_the_reference_has_the_order_of_the_chapters_and_their_notebooks(course):
    two_modules(course)
    exporting.export("05")
    course.chapter(
        "#| export\ndef thrice(x):\n    return 3 * x",
        "#| check: thrice\nassert thrice(2) == 6",
        name="04_zebra",
        module="#| module: zebra\n# Thrice.",
    )
    exporting.export("04")
    left_over = '"""Old.\n\nWritten by notebooks/05_toy.ipynb."""\n\n\ndef f():\n    pass\n'
    (course.library / "also.py").write_text(left_over, encoding="utf-8")

    headings = [line for line in reference.reference().split("\n") if line.startswith("## ")]
    assert headings == ["## zebra", "## toy", "## more", "## also"]
