"""`make code-along`: the library code of a chapter, left to be written; the chapter's own checks decide."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECK, EXPORT, SETUP, Course

from courseware import paths
from courseware.export import exporting, reset
from courseware.export.blanks import blank, unwritten
from courseware.export.build import build
from courseware.export.code_along import code_along
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import Chapter, all_chapters, parse_cell

CHAPTERS = [chapter.stem for chapter in all_chapters() if chapter.modules]


# ---------------------------------------------------------------- what is blanked in a cell

CELL = '''import math
from typing import Protocol

# Gradients vanish without it.
SCALE = 2  # measured


# Half of it is enough, because it is even.
# So stop early.
@staticmethod
def first(
    x: int,  # (B, T)
) -> int:
    # The trick: halve it.
    y = x // 2
    return y  # the other half is the same


# About a class.
class Thing(Base):
    """A thing, größer als 1."""

    # About a field.
    width: int = 3

    # How it is done: a loop.
    def grow(self) -> None:
        """Grow."""
        # A comment in the body.
        self.width += 1

        def inner():
            return 1

    @property
    def area(self) -> int: return self.width**2


class Shape(Protocol):
    def area(self) -> int: ...

    def name(self) -> str:
        """Return its name."""
        ...


async def wait(): await nothing()
# The last word.
'''

BLANK = '''import math
from typing import Protocol

# Gradients vanish without it.
SCALE = 2  # measured


@staticmethod
def first(
    x: int,  # (B, T)
) -> int:
    raise NotImplementedError("chapter 7: write first")


class Thing(Base):
    """A thing, größer als 1."""

    # About a field.
    width: int = 3

    def grow(self) -> None:
        """Grow."""
        raise NotImplementedError("chapter 7: write Thing.grow")

    @property
    def area(self) -> int:
        raise NotImplementedError("chapter 7: write Thing.area")


class Shape(Protocol):
    def area(self) -> int: ...

    def name(self) -> str:
        """Return its name."""
        ...


async def wait():
    raise NotImplementedError("chapter 7: write wait")
'''


def test_bodies_and_what_tells_about_them_go_and_the_rest_stays():
    assert blank(CELL, 7) == BLANK
    assert blank(BLANK, 7) == BLANK


def test_what_is_unwritten_is_named_in_order():
    names = ["first", "Thing.grow", "Thing.area", "wait"]
    assert unwritten(ast.parse(BLANK)) == names
    assert unwritten(ast.parse(CELL)) == []
    left = BLANK.replace('raise NotImplementedError("chapter 7: write Thing.grow")', "pass")
    assert unwritten(ast.parse(left)) == ["first", "Thing.area", "wait"]


@pytest.mark.parametrize(
    "line",
    [
        "raise NotImplementedError",
        "raise NotImplementedError()",
        'raise NotImplementedError("no such layer")',
        "raise NotImplementedError(3)",
        "raise",
        "raise error from None",
    ],
)
def test_errors_that_the_code_raises_itself_are_not_blanks(line):
    assert unwritten(ast.parse(f"def f():\n    {line}")) == []


# ---------------------------------------------------------------- every chapter of the course


def signatures(source: str) -> list[str]:
    """Return what a cell says to its users: every import, constant, field, signature and docstring."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            keep = node.body[:1] if ast.get_docstring(node) is not None else []
            node.body = [*keep, ast.Pass()]
    return [ast.dump(node) for node in tree.body]


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the course's chapters, modules and list into a temporary folder; return the folder."""
    for name in ("notebooks", "minigpt_lib"):
        (tmp_path / name).mkdir()
        for file in (paths.CODE / name).glob("*.*"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "LIBRARY", tmp_path / "minigpt_lib")
    monkeypatch.setattr(paths, "ORIGINALS", tmp_path / "originals.json")
    monkeypatch.setattr(paths, "STATE", tmp_path / ".course")
    reset.write_list()
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_chapter_is_blanked_refused_and_restored(real, stem):
    path = real / "notebooks" / f"{stem}.ipynb"
    before = path.read_bytes()
    library = {file.name: file.read_bytes() for file in (real / "minigpt_lib").iterdir()}

    done = code_along(stem[:2])

    old, new = json.loads(before), json.loads(path.read_bytes())
    changed = [i for i, pair in enumerate(zip(old["cells"], new["cells"])) if pair[0] != pair[1]]
    assert changed
    for i in changed:
        cell = parse_cell(1, "".join(old["cells"][i]["source"]))
        assert cell is not None and cell.kind == "export"
        after = parse_cell(1, "".join(new["cells"][i].pop("source")))
        assert signatures(after.body) == signatures(cell.body)
        old["cells"][i].pop("source")
    assert old == new  # the metadata, the outputs and every other cell
    assert {f.name: f.read_bytes() for f in (real / "minigpt_lib").iterdir()} == library

    chapter = Chapter(path)
    with pytest.raises(ExportRefused) as caught:
        build(chapter)
    parts = "1 part" if len(done.names) == 1 else f"{len(done.names)} parts"
    assert f"write {parts} of it" in caught.value.why
    for name in done.names:
        assert name in caught.value.details
    assert f"make reset CH={stem[:2]}" in caught.value.remedy
    assert all(_is_blank(chapter, name) for name in _callables(stem))

    reset.reset(stem[:2])
    assert path.read_bytes() == before


def _callables(stem: str) -> list[str]:
    """Return the public functions of a chapter's modules."""
    names = []
    for candidate in build(Chapter(paths.CODE / "notebooks" / f"{stem}.ipynb")):
        tree = ast.parse(candidate.source)
        names += [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"]
    return names


def _is_blank(chapter: Chapter, name: str) -> bool:
    return any(name in unwritten(ast.parse(cell.body)) for cell in chapter.of("export"))


def test_there_is_nothing_to_write_in_chapter_0(real):
    with pytest.raises(ExportRefused, match="00_start_here has no code"):
        code_along(0)


# ---------------------------------------------------------------- a small course, all the way

BODY = "    return operator.mul(x, 2)\n"
LINE = '    raise NotImplementedError("chapter 5: write double")\n'


@pytest.fixture
def shipped(course: Course, monkeypatch: pytest.MonkeyPatch) -> Course:
    """A course as it is unpacked from an archive, without git and without kept copies."""
    monkeypatch.setattr(paths, "ORIGINALS", course.root / "courseware/export/originals.json")
    course.good()
    exporting.export("05")
    reset.write_list()
    return course


def notebook_of(course: Course) -> Path:
    return course.root / "notebooks" / "05_toy.ipynb"


def rewrite(course: Course, old: str, new: str) -> None:
    """Replace code in the chapter, as a learner does who saves the notebook."""
    notebook = json.loads(notebook_of(course).read_text("utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert sum(old in source for source in sources) == 1
    for cell, source in zip(notebook["cells"], sources):
        cell["source"] = source.replace(old, new)
    notebook_of(course).write_text(json.dumps(notebook), encoding="utf-8")


def test_blanked_and_written_again_it_exports(shipped):
    module = shipped.target.read_text("utf-8")
    code_along("05")
    with pytest.raises(ExportRefused, match="still waits for you to write 1 part of it"):
        exporting.export("05")
    assert shipped.target.read_text("utf-8") == module

    rewrite(shipped, LINE.strip(), BODY.strip())
    exporting.export("05")
    assert shipped.target.read_text("utf-8") == module


def test_written_wrong_the_check_refuses_it(shipped):
    module = shipped.target.read_text("utf-8")
    code_along("05")
    rewrite(shipped, LINE.strip(), "return operator.mul(x, 3)")
    with pytest.raises(ExportRefused, match="a check failed"):
        exporting.export("05")
    assert shipped.target.read_text("utf-8") == module


def test_an_edited_chapter_is_kept_beside(shipped):
    original = notebook_of(shipped).read_bytes()
    mine = shipped.chapter(SETUP, EXPORT.replace("mul(x, 2)", "add(x, x)"), CHECK).read_bytes()
    with pytest.raises(ExportRefused, match="is not on this computer"):
        code_along("05")  # it would be lost for good: nobody has the original

    assert notebook_of(shipped).read_bytes() == mine

    notebook_of(shipped).write_bytes(original)
    reset.keep_copies()
    notebook_of(shipped).write_bytes(mine)
    done = code_along("05")

    assert done.kept.startswith(".course/before-reset/")
    assert done.kept in str(done)
    assert (shipped.root / done.kept).read_bytes() == mine
    assert unwritten(ast.parse(Chapter(notebook_of(shipped)).of("export")[0].body)) == ["double"]


def test_begun_work_is_kept_beside_and_a_second_blank_is_not(shipped):
    assert code_along("05").kept == ""
    assert code_along("05").kept == ""

    rewrite(shipped, LINE.strip(), "return x + 1  # not yet")
    mine = notebook_of(shipped).read_bytes()
    kept = code_along("05").kept
    assert (shipped.root / kept).read_bytes() == mine
    assert len(list((shipped.root / ".course/before-reset").iterdir())) == 1


def test_the_original_survives_where_the_notebook_was_its_only_copy(shipped):
    before = notebook_of(shipped).read_bytes()
    code_along("05")
    assert notebook_of(shipped).read_bytes() != before

    (line,) = reset.reset("05")

    assert "yours is kept as" in line
    assert notebook_of(shipped).read_bytes() == before


def test_a_lost_notebook_comes_back_blank(shipped):
    reset.keep_copies()
    notebook_of(shipped).write_text("{broken", encoding="utf-8")
    assert code_along("05").kept
    notebook_of(shipped).unlink()
    assert code_along("05").kept == ""
    assert unwritten(ast.parse(Chapter(notebook_of(shipped)).of("export")[0].body)) == ["double"]


@pytest.mark.slow
def test_the_command_blanks(shipped):
    command = [sys.executable, "-m", "courseware", "code-along", "05"]
    done = subprocess.run(
        command,
        cwd=shipped.root,
        env=shipped.environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "05_toy.ipynb is yours to write: one function, beginning with double." in done.stdout
    assert "make reset CH=05" in done.stdout

    command[-1] = "42"
    done = subprocess.run(
        command, env=shipped.environment, capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 1
    assert "05_toy" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_chapter_7_blanked_and_written_by_hand_exports(real, monkeypatch):
    """The bodies are put back one by one, as somebody would who types them from a book."""
    monkeypatch.setenv("MINIGPT_ROOT", str(real))
    modules = {c.module: c.source for c in build(Chapter(real / "notebooks/07_norms.ipynb"))}
    original = [cell.body for cell in Chapter(real / "notebooks/07_norms.ipynb").of("export")]
    bodies = {}
    for code in original:
        for node in ast.parse(code).body:
            for method in getattr(node, "body", []):
                if isinstance(method, ast.FunctionDef):
                    has_docstring = ast.get_docstring(method) is not None
                    first, last = method.body[int(has_docstring)], method.body[-1]
                    lines = code.split("\n")[first.lineno - 1 : last.end_lineno]
                    bodies[f"{node.name}.{method.name}"] = inspect.cleandoc("\n" + "\n".join(lines))

    done = code_along("07")
    assert set(done.names) == set(bodies)
    path = real / "notebooks" / "07_norms.ipynb"
    notebook = json.loads(path.read_text("utf-8"))
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        for name in done.names:
            line = f'        raise NotImplementedError("chapter 7: write {name}")'
            body = "\n".join(f"        {text}".rstrip() for text in bodies[name].split("\n"))
            source = source.replace(line, body)
        cell["source"] = source
    path.write_text(json.dumps(notebook), encoding="utf-8")

    exporting.export("07")
    for name, source in modules.items():
        written = (real / "minigpt_lib" / f"{name}.py").read_text("utf-8")
        assert ast.dump(ast.parse(written)) == ast.dump(ast.parse(source))
