"""`make reset`: the course's own chapter comes back, from git or from the copies that set-up keeps."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from conftest import CHECK, EXPORT, SETUP, Course

from courseware import paths
from courseware.export import exporting, reset
from courseware.export.errors import ExportRefused

EDITED = EXPORT.replace("operator.mul(x, 2)", "operator.add(x, x)")


def git(course: Course, *arguments: str) -> None:
    identity = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    subprocess.run(
        ["git", *identity, *arguments], cwd=course.root, check=True, capture_output=True, timeout=60
    )


@pytest.fixture
def shipped(course: Course, monkeypatch: pytest.MonkeyPatch) -> Course:
    """A course as it is unpacked from an archive: chapters, modules and the list of both, without git."""
    listing = course.root / "courseware" / "export" / "originals.json"
    monkeypatch.setattr(paths, "ORIGINALS", listing)

    course.good()
    exporting.export("05")
    reset.write_list()
    return course


def edit(course: Course) -> str:
    """Rewrite the chapter and export it, as a learner does; return the notebook's text."""
    path = course.chapter(SETUP, EDITED, CHECK)
    exporting.export("05")
    assert "operator.add" in course.target.read_text(encoding="utf-8")
    return path.read_text(encoding="utf-8")


def is_original(course: Course) -> bool:
    notebook = (course.root / "notebooks" / "05_toy.ipynb").read_text(encoding="utf-8")
    module = course.target.read_text(encoding="utf-8")
    return "operator.mul" in notebook and "operator.mul" in module and exporting.verify() == {}


def test_checksums_are_those_of_git(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for content in (b"", b"one\ntwo\n", "größe\n".encode()):
        (tmp_path / "file").write_bytes(content)
        done = subprocess.run(
            ["git", "hash-object", "--no-filters", "file"],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        assert reset.checksum(content) == done.stdout.decode().strip()


def test_line_ends_of_windows_make_no_difference():
    assert reset.checksum(b"one\r\ntwo\r\n") == reset.checksum(b"one\ntwo\n")
    assert reset.checksum(b"one\ntwo\n") != reset.checksum(b"one\ntwo")


def test_an_edited_chapter_comes_back_from_the_kept_copy(shipped):
    assert reset.keep_copies() == ["notebooks/05_toy.ipynb", "minigpt_lib/toy.py"]
    mine = edit(shipped)
    assert reset.differing() == ["minigpt_lib/toy.py", "notebooks/05_toy.ipynb"]

    lines = reset.reset("05")

    assert is_original(shipped)
    assert len(lines) == 2
    assert all(".course/before-reset/" in line for line in lines)
    kept = [
        p.read_text(encoding="utf-8") for p in (shipped.root / ".course/before-reset").iterdir()
    ]
    assert mine in kept and len(kept) == 2
    assert reset.differing() == []


def test_an_edited_chapter_comes_back_from_git(shipped):
    git(shipped, "init", "-q")
    git(shipped, "add", ".")
    git(shipped, "commit", "-q", "-m", "The course")
    edit(shipped)
    git(shipped, "commit", "-q", "-a", "-m", "My own version, committed")

    reset.reset(5)

    assert is_original(shipped)


def test_deleted_and_broken_notebooks_come_back(shipped):
    reset.keep_copies()
    notebook = shipped.root / "notebooks" / "05_toy.ipynb"
    text = notebook.read_text(encoding="utf-8")

    notebook.write_text("{broken", encoding="utf-8")
    reset.reset("05")
    assert notebook.read_text(encoding="utf-8") == text

    notebook.unlink()
    shipped.target.unlink()
    reset.reset("05_toy")
    assert is_original(shipped)


def test_other_chapters_may_be_missing_or_broken(shipped):
    later = EXPORT.replace("import operator", "from minigpt_lib.toy import double as twice")
    later = later.replace("double(x: float)", "four(x: float)")
    later = later.replace("operator.mul(x, 2)", "twice(twice(x))")
    check = "#| check: four times | against: by hand\nassert four(3) == 12"
    chapter = shipped.chapter(later, check, name="06_four", module="#| module: four\n# Four.")
    exporting.export("06")
    reset.write_list()
    reset.keep_copies()
    text = chapter.read_text(encoding="utf-8")

    chapter.unlink()
    (shipped.root / "notebooks" / "05_toy.ipynb").write_text("[]", encoding="utf-8")
    reset.reset("06")

    assert chapter.read_text(encoding="utf-8") == text


def test_a_chapter_that_is_the_courses_own_is_left_alone(shipped):
    before = shipped.target.stat().st_mtime_ns
    assert reset.reset("5") == []
    assert shipped.target.stat().st_mtime_ns == before
    assert not (shipped.root / ".course/before-reset").exists()


def test_an_edited_notebook_is_never_kept_as_an_original(shipped):
    edit(shipped)
    assert reset.keep_copies() == []

    with pytest.raises(ExportRefused, match="is not on this computer") as caught:
        reset.reset("05")

    assert "download the course again" in str(caught.value)
    assert "operator.add" in shipped.target.read_text(encoding="utf-8")


def test_an_edited_copy_is_refused(shipped):
    reset.keep_copies()
    edit(shipped)
    copy = shipped.root / ".course/originals/notebooks/05_toy.ipynb"
    copy.write_text(copy.read_text(encoding="utf-8") + " ", encoding="utf-8")

    with pytest.raises(ExportRefused, match="is not on this computer"):
        reset.reset("05")

    assert "operator.add" in shipped.target.read_text(encoding="utf-8")


def test_a_damaged_copy_is_made_again(shipped):
    reset.keep_copies()
    copy = shipped.root / ".course/originals/minigpt_lib/toy.py"
    copy.write_text("damaged", encoding="utf-8")
    assert reset.keep_copies() == ["minigpt_lib/toy.py"]


def test_after_an_update_the_new_version_is_the_original(shipped):
    reset.keep_copies()
    shipped.chapter(SETUP, EDITED, CHECK)  # the course's next version, unpacked over the old one
    exporting.export("05")
    assert reset.write_list() == ["05_toy"]
    reset.keep_copies()
    shipped.good()
    exporting.export("05")

    reset.reset("05")

    assert "operator.add" in shipped.target.read_text(encoding="utf-8")
    assert reset.differing() == []


def test_copies_of_files_that_an_update_dropped_are_removed(shipped):
    reset.keep_copies()
    old = shipped.root / ".course/originals/notebooks/04_gone.ipynb"
    old.write_text("{}", encoding="utf-8")
    reset.keep_copies()
    assert not old.exists()


def test_a_folder_in_the_place_of_a_notebook_is_refused(shipped):
    reset.keep_copies()
    edit(shipped)
    notebook = shipped.root / "notebooks" / "05_toy.ipynb"
    notebook.unlink()
    notebook.mkdir()

    with pytest.raises(ExportRefused, match="05_toy.ipynb is a folder"):
        reset.reset("05")

    assert "operator.add" in shipped.target.read_text(encoding="utf-8")


def test_an_unknown_chapter_lists_those_there_are(shipped):
    with pytest.raises(ExportRefused, match="05_toy"):
        reset.reset("11")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_missing_or_damaged_list_is_named(shipped, content):
    if content is None:
        paths.ORIGINALS.unlink()
    else:
        paths.ORIGINALS.write_text(content, encoding="utf-8")
    with pytest.raises(ExportRefused, match="originals.json, cannot be read"):
        reset.reset("05")


def test_two_resets_within_a_second_keep_both_versions(shipped, monkeypatch):
    monkeypatch.setattr(reset.time, "strftime", lambda _: "20260101-120000")
    reset.keep_copies()
    for cell in (EDITED, EDITED.replace("add(x, x)", "add(x, +x)")):
        shipped.chapter(SETUP, cell, CHECK)
        exporting.export("05")
        reset.reset("05")
    assert len(list((shipped.root / ".course/before-reset").iterdir())) == 4


def test_the_command_resets(shipped):
    reset.keep_copies()
    edit(shipped)
    done = subprocess.run(
        [sys.executable, "-m", "courseware", "reset", "05"],
        cwd=shipped.root,
        env=shipped.environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "notebooks/05_toy.ipynb is the course's own again; yours is kept as" in done.stdout
    assert is_original(shipped)


def test_the_courses_own_files_are_in_the_list():
    """Every chapter and module is listed, and git or the working tree can give the listed content."""
    listed = reset.read_list()
    assert set(listed) == set(reset.make_list())
    for stem, files in listed.items():
        assert f"notebooks/{stem}.ipynb" in files
