"""`make certificate`: a learner's work is proved again from a clean copy, and whatever is wrong is named in a line."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from conftest import EXPORT, Course

from courseware import paths, progress
from courseware.__main__ import parser
from courseware.certificate import deriving, making
from courseware.certificate.making import make_certificate, verify_certificate
from courseware.exercises import registry
from courseware.export import reset
from courseware.export.build import build
from courseware.export.notebooks import Chapter, all_chapters

pytestmark = pytest.mark.slow

OTHER = "#| export\nfrom minigpt_lib.toy import double\n\n\ndef four(x: float) -> float:\n    return double(double(x))"


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder of a course of two chapters, in git, with one exercise notebook of the real course."""
    root = tmp_path_factory.mktemp("shipped") / "course"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        course = _enter(root, patch)
        course.good()
        check = "#| check: four times | against: by hand\nassert four(3) == 12"
        course.chapter(OTHER, check, name="06_four", module="#| module: four\n# Four.")
        for chapter in all_chapters():
            for candidate in build(chapter):
                candidate.path.write_text(candidate.source, encoding="utf-8")
        reset.write_list()

    for name in ("solutions", "exercises"):
        (root / name).mkdir()
        shutil.copy(paths.CODE / name / "05_attention.ipynb", root / name)
    (root / ".gitignore").write_text("/.course/\n/certificate/\n", encoding="utf-8")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "The course")
    return root


def _enter(root: Path, patch: pytest.MonkeyPatch) -> Course:
    """Point courseware at a course in this folder; its library is made if it is not there."""
    patch.setattr(paths, "ROOT", root)
    patch.setattr(paths, "NOTEBOOKS", root / "notebooks")
    patch.setattr(paths, "LIBRARY", root / "minigpt_lib")
    patch.setattr(paths, "ORIGINALS", root / "courseware/export/originals.json")
    patch.setattr(paths, "STATE", root / ".course")
    return Course(root)


@pytest.fixture
def work(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    """The course of somebody who has exported chapter 5 as it is, and nothing else."""
    root = tmp_path / "course"
    shutil.copytree(shipped, root)
    shutil.rmtree(root / "minigpt_lib")
    course = _enter(root, monkeypatch)
    shutil.copytree(shipped / "minigpt_lib", root / "minigpt_lib", dirs_exist_ok=True)
    progress.record("chapter", "05_toy", "exported")
    return course


def edit(course: Course, old: str, new: str, name: str = "05_toy") -> None:
    """Replace code in a chapter that is otherwise as it was."""
    path = course.root / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert sum(old in cell.source for cell in notebook.cells) == 1
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def export(course: Course) -> None:
    """Write the module that the chapter describes, without the proof, to save time."""
    (candidate,) = build(Chapter(course.root / "notebooks" / "05_toy.ipynb"))
    course.target.write_text(candidate.source, encoding="utf-8")


def certify(course: Course) -> Path:
    written = make_certificate(say=lambda line: None)
    assert written.proof.failures == []
    return course.root / "certificate" / "certificate.json"


def problems_of(file: Path) -> str:
    return "; ".join(verify_certificate(file, say=lambda line: None))


def chapters_of(file: Path) -> dict[str, dict]:
    return {c["chapter"]: c for c in json.loads(file.read_text("utf-8"))["chapters"]}


# ---------------------------------------------------------------- what it says


def test_it_says_what_was_proved_and_holds(work, capsys):
    before = {path: path.read_bytes() for path in work.root.glob("*/*.*")}
    written = make_certificate()
    file = work.root / "certificate" / "certificate.json"

    assert "05_toy: proved (" in capsys.readouterr().out
    assert str(written).startswith("Proved again: 1 chapter and 0 exercises.\nLook at it: ")
    assert {path: path.read_bytes() for path in before} == before

    chapters = chapters_of(file)
    assert chapters["05_toy"]["status"] == "exported" and not chapters["05_toy"]["own"]
    assert chapters["06_four"]["status"] == "course"
    assert chapters["05_toy"]["modules"] == {"toy": deriving.sha256(work.target)}
    notebook = work.root / "notebooks" / "05_toy.ipynb"
    assert chapters["05_toy"]["notebook"] == deriving.sha256(notebook)

    data = json.loads(file.read_text("utf-8"))
    assert set(data["versions"]) == {"python", "torch", "system"}
    assert set(data["course"]) == {"version", "commit", "checks"}
    assert re.fullmatch("[0-9a-f]{64}", data["course"]["checks"])
    assert problems_of(file) == ""


def test_the_page_is_whole_and_says_what_it_does_not_prove(work):
    edit(work, "operator.mul(x, 2)", "operator.add(x, x)")
    export(work)
    page = certify(work).with_suffix(".html").read_text("utf-8")

    assert "<script" not in page and not re.search(r'(src|href)="', page)
    for words in (
        "the learner's own code, proved",
        "the course's own",
        "It does not prove who wrote the code",
    ):
        assert words in page
    assert deriving.sha256(work.target) in page


def test_own_code_is_told_from_the_courses(work):
    edit(work, "operator.mul(x, 2)", "operator.add(x, x)")
    export(work)
    file = certify(work)
    assert chapters_of(file)["05_toy"]["own"] and not chapters_of(file)["05_toy"]["own_checks"]


def test_own_checks_are_told_from_the_courses(work):
    edit(work, "assert double(0.5) == 1.0", "assert double(1) == 2")
    file = certify(work)
    assert chapters_of(file)["05_toy"]["own_checks"]
    page = file.with_suffix(".html").read_text("utf-8")
    assert "by checks that differ from the course's" in page


def test_without_git_the_folder_itself_is_copied(work):
    shutil.rmtree(work.root / ".git")
    for name in ("runs", "courseware/runs"):
        (work.root / name).mkdir()
        (work.root / name / "file.txt").touch()

    with deriving.clean_copy() as copy:
        assert (copy / "courseware" / "runs" / "file.txt").exists()
        assert not (copy / "runs").exists() and not (copy / ".course").exists()
    assert problems_of(certify(work)) == ""


# ---------------------------------------------------------------- what makes it fail


def test_a_chapter_whose_export_fails_is_not_certified(work):
    edit(work, "operator.mul(x, 2)", "operator.mul(x, 3)")

    written = make_certificate(say=lambda line: None)

    (failure,) = written.proof.failures
    assert re.fullmatch(r"chapter 05: a check failed; code cell 4 .*; AssertionError", failure)
    assert f"Not certified: {failure}" in str(written)
    assert list(chapters_of(written.folder / "certificate.json")) == ["06_four"]


def test_a_notebook_that_cannot_be_read_is_not_certified(work):
    (work.root / "notebooks" / "05_toy.ipynb").write_text("{", encoding="utf-8")
    (failure,) = make_certificate(say=lambda line: None).proof.failures
    assert failure.startswith("chapter 05: 05_toy.ipynb is not a readable notebook")


def test_a_module_that_was_edited_by_hand_is_not_certified(work):
    work.target.write_text(work.target.read_text("utf-8") + "# mine\n", encoding="utf-8")
    (failure,) = make_certificate(say=lambda line: None).proof.failures
    assert "minigpt_lib/toy.py is not what notebooks/05_toy.ipynb exports" in failure

    progress_file = paths.STATE / "progress.json"
    progress_file.unlink()
    (failure,) = make_certificate(say=lambda line: None).proof.failures
    assert "differs from the course's, but was never exported" in failure


def test_a_changed_notebook_is_named(work):
    file = certify(work)
    edit(work, "# 5. Toy", "# 5. A toy")
    assert problems_of(file) == "chapter 05: the notebook has changed"


def test_an_export_that_fails_later_is_named(work):
    file = certify(work)
    edit(work, "operator.mul(x, 2)", "operator.mul(x, 3)")
    found = problems_of(file)
    assert "chapter 05: a check failed; code cell 4" in found


def test_a_chapter_of_the_course_that_changed_is_named(work):
    file = certify(work)
    (work.library / "four.py").write_text("x = 1\n", encoding="utf-8")
    assert "chapter 06: its part of the library differs from the course's" in problems_of(file)


PROVED = deriving.ChapterProof("05_toy", "exported", True, False, "a" * 64, {"toy": "b" * 64})
SOLVED = deriving.ExerciseProof("step_mask", "05_attention", "right", "c" * 64)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, []),
        ({"notebook": "0" * 64}, ["chapter 05: the notebook has changed"]),
        ({"modules": {"toy": "0" * 64}}, ["chapter 05: the module toy is another one"]),
        ({"modules": {}}, ["chapter 05: the module toy is another one"]),
        ({"chapter": "09_model"}, ["chapter 09: this course has no 09_model"]),
        ({"own": False}, ["chapter 05: the code is the learner's own"]),
    ],
)
def test_a_forged_chapter_is_named(values, found):
    claimed = dataclasses.replace(PROVED, **values)
    assert making.problems_of([claimed], [], deriving.Proof([PROVED], [])) == found


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, []),
        ({"notebook": "0" * 64}, ["exercise step_mask: the notebook has changed"]),
        ({"name": "fly"}, ["exercise fly: this course has none of that name in 05_attention"]),
        ({"chapter": "06_x"}, ["exercise step_mask: this course has none of that name in 06_x"]),
    ],
)
def test_a_forged_exercise_is_named(values, found):
    claimed = dataclasses.replace(SOLVED, **values)
    assert making.problems_of([], [claimed], deriving.Proof([], [SOLVED])) == found


def test_what_failed_this_time_is_named():
    failed = dataclasses.replace(PROVED, status="failed", why="a check failed", modules={})
    wrong = dataclasses.replace(SOLVED, status="failed")
    proof = deriving.Proof([failed], [wrong])
    found = ["chapter 05: a check failed", "exercise step_mask: it is not right"]
    assert making.problems_of([PROVED], [SOLVED], proof) == found
    honest = dataclasses.replace(PROVED, own_checks=True)
    assert making.problems_of([PROVED], [], deriving.Proof([honest], [])) == [
        "chapter 05: its checks are not the course's"
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "cannot be read as a certificate"),
        ("[]", "is not a certificate"),
        ('{"format": "minigpt-certificate 2"}', "is not a certificate"),
        ('{"format": "minigpt-certificate 1"}', "is not a whole certificate"),
        (
            '{"format": "minigpt-certificate 1", "chapters": [{"chapter": "05"}], "exercises": []}',
            "is not a whole certificate",
        ),
        (
            '{"format": "minigpt-certificate 1", "chapters": [], "exercises": []}',
            "certifies nothing",
        ),
    ],
)
def test_a_file_that_is_no_certificate_is_refused(work, text, found):
    file = work.root / "x.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=found):
        verify_certificate(file)


@pytest.mark.parametrize(
    "values", [{"status": "failed"}, {"status": 3}, {"own": "no"}, {"modules": []}, {"extra": 1}]
)
def test_entries_that_make_no_sense_are_refused(work, values):
    file = work.root / "x.json"
    entry = dataclasses.asdict(deriving.ChapterProof("05_toy", "exported", False, False, "", {}))
    data = {"format": making.FORMAT, "chapters": [entry | values], "exercises": []}
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match="is not a whole certificate"):
        making.read(file)


def test_what_is_only_in_the_working_tree_does_not_help(work):
    """A helper that lies beside the notebooks is not in the clean copy."""
    (work.root / "helper.py").write_text("FACTOR = 2\n", encoding="utf-8")
    code = EXPORT.replace("import operator", "import helper\nimport operator")
    edit(work, EXPORT.strip(), code.replace("(x, 2)", "(x, helper.FACTOR)").strip())
    (failure,) = make_certificate(say=lambda line: None).proof.failures
    assert "No module named 'helper'" in failure


def test_refusals_become_one_line():
    message = "Not exported: a check failed\nWhere: code cell 4 (`x`)\n\nline 1\nValueError: no\n\nWhat to do: mend"
    assert deriving.in_one_line(message) == "a check failed; code cell 4 (`x`); ValueError: no"
    assert deriving.in_one_line("") == "the export stopped without a message"
    assert deriving.in_one_line("Killed\n") == "Killed"


# ---------------------------------------------------------------- exercises


@pytest.fixture
def solver(work: Course) -> Course:
    """The learner has also solved an exercise, the course's own `step_mask`."""
    solve(work, registry()["step_mask"].task.source)
    progress.record("exercise", "step_mask", "right")
    return work


def solve(course: Course, answer: str) -> None:
    """Write an answer into the learner's notebook, after a cell that fails."""
    path = course.root / "exercises" / "05_attention.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith(("def step_mask", "1 / 0")):
            cell.source = answer
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def test_solved_exercises_are_solved_again(solver):
    file = certify(solver)
    data = json.loads(file.read_text("utf-8"))
    assert [(e["name"], e["status"]) for e in data["exercises"]] == [("step_mask", "right")]
    assert problems_of(file) == ""

    solve(solver, "1 / 0\ndef step_mask(*arguments):\n    return None")
    assert problems_of(file) == "exercise step_mask: it is not right"
    (failure,) = make_certificate(say=lambda line: None).proof.failures
    assert failure == "exercise step_mask of chapter 05 is not right"


# ---------------------------------------------------------------- the command


def test_the_command_makes_and_verifies(work):
    process = work.command("certificate")
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "05_toy: proved" in out and "certificate.html" in out

    file = work.root / "certificate" / "certificate.json"
    process = work.command("certificate", "--verify", str(file))
    assert process.communicate(timeout=300)[0] == "It holds: all of it was proved again.\n"
    assert process.returncode == 0

    edit(work, "operator.mul(x, 2)", "operator.mul(x, 3)")
    process = work.command("certificate", "--verify", str(file))
    out, _ = process.communicate(timeout=300)
    assert out.count("\n") == 1 and out.startswith("It does not hold: chapter 05: the notebook")
    assert process.returncode == 1

    process = work.command("certificate", "--verify", str(work.target))
    out, errors = process.communicate(timeout=300)
    assert out.startswith("It does not hold: ") and "cannot be read as a certificate" in out
    assert process.returncode == 1 and "Traceback" not in errors


def test_the_command_fails_where_something_is_not_certified(monkeypatch, capsys, tmp_path):
    failed = dataclasses.replace(PROVED, status="failed", why="a check failed")
    written = making.Written(tmp_path, deriving.Proof([failed], []))
    monkeypatch.setattr(making, "make_certificate", lambda: written)
    arguments = parser().parse_args(["certificate"])
    assert arguments.action(arguments) == 1
    assert "Not certified: chapter 05: a check failed" in capsys.readouterr().out
