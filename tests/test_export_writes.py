"""Verified export on disk: old or new and never a mixture, whatever fails, whoever interrupts, in any locale."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CHECK, EXPORT, SETUP, Course

from courseware.export import exporting, transaction
from courseware.export.build import build
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import find_chapter

OLD = '"""The module as it was."""\n'
NOBODY = 65534
SECOND = "#| module: more\n# Work with more numbers."
FOUR = (
    "#| export\nfrom minigpt_lib.toy import double\n\n\ndef four(x):\n    return double(double(x))"
)
CHECK_FOUR = "#| check: four times\nassert four(3) == 12"


def two_modules(course: Course) -> dict[Path, str]:
    """Write a chapter with two modules, an old version of both, and return what the new ones will hold."""
    course.chapter(SETUP, EXPORT, CHECK, SECOND, FOUR, CHECK_FOUR)
    new = {c.path: c.source for c in build(find_chapter("05"))}
    write_old(new)
    return new


def write_old(new: dict[Path, str]) -> None:
    for path in new:
        path.write_text(OLD, encoding="utf-8")


def on_disk(new: dict[Path, str]) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in new}


def left_over(course: Course) -> list[str]:
    """Return the temporary files and the journal."""
    hidden = [path.name for path in course.library.glob(".*")]
    return hidden + [path.name for path in (course.root / ".course").glob("replacing*")]


# --- the system says no ---


@pytest.fixture
def others_course(monkeypatch: pytest.MonkeyPatch) -> Iterator[Course]:
    """A course in a folder that every user can reach, and that belongs to nobody where this test is root.

    Permissions do not bind root, so an export must not be root when it writes.
    """
    folder = Path(tempfile.mkdtemp())
    course = Course(folder)
    course.good()
    four = FOUR.replace("minigpt_lib.toy", "minigpt_lib.base")
    cells = [SETUP, EXPORT, CHECK, SECOND, four, CHECK_FOUR]
    course.chapter(*cells, name="06_more", module="#| module: base")
    (folder / ".course").mkdir()
    folder.chmod(0o755)
    if os.getuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
    yield course
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


EXPORT_AS_NOBODY = f"""
import os, sys
from courseware.export import exporting, transaction
from courseware.export.errors import ExportRefused

replace_all = transaction.replace_all

def as_nobody(texts):
    if os.getuid() == 0:
        os.setgid({NOBODY})
        os.setuid({NOBODY})
    return replace_all(texts)

transaction.replace_all = as_nobody
try:
    exporting.export(sys.argv[1])
except ExportRefused as refusal:
    print(refusal)
    sys.exit(1)
"""


def export_as_nobody(course: Course, chapter: str) -> tuple[int, str]:
    """Export with the rights of an ordinary user at the moment of writing; return status and message."""
    done = subprocess.run(
        [sys.executable, "-c", EXPORT_AS_NOBODY, chapter],
        env=course.environment,
        cwd=course.root,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this root may not become an ordinary user")
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout


needs_users = pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs the users of Unix")


@needs_users
def test_a_writable_target_is_written_by_an_ordinary_user(others_course):
    status, message = export_as_nobody(others_course, "05")
    assert status == 0, message
    assert "def double" in others_course.target.read_text(encoding="utf-8")


@needs_users
def test_a_read_only_target_is_refused(others_course):
    others_course.target.write_text(OLD, encoding="utf-8")
    others_course.target.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    before = others_course.files()

    status, message = export_as_nobody(others_course, "05")

    assert status == 1
    assert f"{others_course.target} cannot be written to (Permission denied)" in message
    assert "chmod u+w" in message
    assert others_course.files() == before


@needs_users
def test_a_read_only_folder_is_refused(others_course):
    others_course.library.chmod(0o555)
    before = others_course.files()

    status, message = export_as_nobody(others_course, "05")

    assert status == 1
    assert f"{others_course.library} cannot be written to (Permission denied)" in message
    assert others_course.files() == before


@needs_users
def test_a_read_only_second_module_keeps_the_first_as_it_was(others_course):
    more = others_course.library / "more.py"
    for path in (others_course.library / "base.py", more):
        path.write_text(OLD, encoding="utf-8")
        path.chmod(0o666)
    more.chmod(0o444)
    before = others_course.files()

    status, message = export_as_nobody(others_course, "06")

    assert status == 1
    assert f"{more} cannot be written to (Permission denied)" in message
    assert others_course.files() == before


@pytest.mark.parametrize("chapter", [Course.good, two_modules], ids=["one module", "two modules"])
def test_full_disk_leaves_the_old_modules(course, monkeypatch, chapter):
    chapter(course)
    course.target.write_text(OLD, encoding="utf-8")
    before = course.files()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportRefused, match="No space left"):
        exporting.export("05")
    assert course.files() == before
    assert left_over(course) == []


def test_a_renaming_that_fails_is_undone(course, monkeypatch):
    new = two_modules(course)
    (course.library / "more.py").unlink()  # undoing deletes what was not there
    new_first = dict(reversed(new.items()))
    before = course.files()
    real = os.replace

    def busy(source: Path, target: Path) -> None:
        if Path(target).name == "toy.py":
            raise PermissionError(
                13, "The file is used by another program", str(source), None, str(target)
            )
        real(source, target)

    monkeypatch.setattr(os, "replace", busy)
    with (
        transaction.locked(),
        pytest.raises(ExportRefused, match="toy.py cannot be .*another program"),
    ):
        transaction.replace_all(new_first)
    assert course.files() == before
    assert left_over(course) == []


def test_ctrl_c_between_two_files_finishes_the_work(course, monkeypatch):
    new = two_modules(course)
    real = os.replace
    done = []

    def interrupted(source: Path, target: Path) -> None:
        real(source, target)
        done.append(target)
        if done == [course.root / ".course/replacing.json", course.target]:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with transaction.locked(), pytest.raises(KeyboardInterrupt):
        transaction.replace_all(new)
    assert on_disk(new) == new
    assert left_over(course) == []


# --- killed ---


@pytest.mark.slow
def test_killed_at_any_moment_leaves_old_or_new(course):
    course.good()
    new = build(find_chapter("05"))[0].source
    start = time.perf_counter()
    assert course.command("export", "05").wait() == 0
    whole = time.perf_counter() - start

    seen = set()
    for step in range(16):
        course.target.write_text(OLD, encoding="utf-8")
        running = course.command("export", "05")
        time.sleep(whole * (0.15 + 1.0 * step / 15))
        running.send_signal(signal.SIGKILL)
        running.wait()
        text = course.target.read_text(encoding="utf-8")
        assert text in (OLD, new), text
        seen.add(text)
    assert OLD in seen

    assert course.command("export", "05").wait() == 0  # no lock and no litter stays behind
    assert course.target.read_text(encoding="utf-8") == new
    assert left_over(course) == []
    assert list((course.root / ".course").glob("proof-*")) == []


MOMENTS = {
    "before the temporary file is whole": "paths.os.fsync = lambda fd: os._exit(9)",
    "before the rename": "paths.os.replace = lambda a, b: os._exit(9)",
    "after the rename": "real = os.replace; paths.os.replace = lambda a, b: (real(a, b), os._exit(9))",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_inside_the_write_of_one_module(course, moment):
    """The narrow window that random kills rarely hit: die inside `write_atomic` itself."""
    course.good()
    course.target.write_text(OLD, encoding="utf-8")
    imports = "import os\nfrom courseware import paths\nfrom courseware.export import exporting"
    code = f"{imports}\n{MOMENTS[moment]}\nexporting.export('05')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=course.environment, cwd=course.root, capture_output=True
    )
    assert done.returncode == 9, done.stderr

    new = build(find_chapter("05"))[0].source
    text = course.target.read_text(encoding="utf-8")
    assert text == (new if moment == "after the rename" else OLD)
    exporting.export("05")
    assert course.target.read_text(encoding="utf-8") == new
    assert left_over(course) == []


CALLS = ("fsync", "replace", "unlink")  # what a write asks of the system, apart from writing bytes


def killed_at(k: int, after: bool, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed before or after its k-th such call; return whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def deadly(real: Callable) -> Callable:
            def call(*arguments: object, **options: object) -> object:
                nonlocal count
                count += 1
                if count == k and not after:
                    os._exit(9)
                try:
                    return real(*arguments, **options)
                finally:
                    if count == k:
                        os._exit(9)

            return call

        for name in CALLS:
            setattr(os, name, deadly(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def write_all(texts: dict[Path, str]) -> None:
    with transaction.locked():
        transaction.replace_all(texts)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_around_every_step_of_two_modules(course, after):
    """Kill before or after each call in turn; whoever comes next sees all files old or all new, and no litter."""
    new = two_modules(course)
    old = on_disk(new)
    outcomes = []
    mixtures = 0

    for k in range(1, 100):
        write_old(new)
        if not killed_at(k, after, lambda: write_all(new)):
            break
        mixtures += on_disk(new) not in (old, new)
        transaction.recover()
        found = on_disk(new)
        assert found in (old, new)

        with transaction.locked():
            pass
        assert on_disk(new) == found
        assert left_over(course) == []
        outcomes.append(found == new)

    assert outcomes == sorted(outcomes)  # there is one moment from which the new files count
    assert {False, True} == set(outcomes)
    assert mixtures > 0  # the recovery had something to do
    assert on_disk(new) == new


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_around_every_step_of_the_recovery(course):
    new = two_modules(course)
    with transaction.locked():
        journal = transaction._prepare({path: text.encode("utf-8") for path, text in new.items()})
    state = {
        path: path.read_bytes()
        for path in (course.root / ".course/replacing.json", *(t for t, _ in journal))
    }

    for k in range(1, 100):
        write_old(new)
        for path, content in state.items():
            path.write_bytes(content)
        killed = killed_at(k, False, transaction.recover)
        transaction.recover()
        assert on_disk(new) == new
        assert left_over(course) == []
        if not killed:
            break
    assert k > 3


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_while_a_failed_renaming_is_undone(course, monkeypatch):
    new = two_modules(course)
    old = on_disk(new)
    real = os.replace

    def busy_once(source: Path, target: Path) -> None:
        if Path(target).name == "more.py" and not (course.root / "was busy").exists():
            (course.root / "was busy").touch()
            raise PermissionError(13, "The file is used by another program")
        real(source, target)

    monkeypatch.setattr(os, "replace", busy_once)
    for k in range(1, 100):
        write_old(new)
        (course.root / "was busy").unlink(missing_ok=True)
        killed = killed_at(k, False, lambda: write_all(new))
        (course.root / "was busy").touch()
        transaction.recover()
        assert on_disk(new) in (old, new)
        if not killed:
            break
    assert k > 8 and on_disk(new) == old


KILLED_EXPORT = """
import os
from courseware.export import exporting
real = os.replace
def deadly(source, target):
    real(source, target)
    if str(target).endswith("toy.py"):
        os._exit(9)
os.replace = deadly
exporting.export("05")
"""


@pytest.mark.parametrize("next_command", ["verify", "export", "export of another chapter"])
def test_the_next_command_finishes_a_killed_export(course, next_command):
    new = two_modules(course)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_EXPORT],
        env=course.environment,
        cwd=course.root,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 9, done.stderr
    assert on_disk(new) not in (new, dict.fromkeys(new, OLD))

    if next_command == "verify":
        process = course.command("verify")
        assert process.communicate(timeout=120)[0] == "every module is what its chapter says\n"
    elif next_command == "export":
        exporting.export("05")
    else:
        course.chapter(EXPORT, CHECK, name="04_base", module="#| module: base")
        exporting.export("04")
    assert on_disk(new) == new
    assert left_over(course) == []


@pytest.mark.parametrize(
    "journal",
    [
        "",
        "{",
        "[]",
        '{"replace": null}',
        '{"replace": [["a"]]}',
        '{"replace": [[1, 2]]}',
        '{"replace": [["../x", "../y"]]}',
        '{"replace": [["/tmp/x", "/tmp/y"]]}',
    ],
)
def test_a_damaged_journal_is_discarded(course, journal):
    new = two_modules(course)
    (course.library / ".toy.py.123.tmp").write_text(new[course.target], encoding="utf-8")
    (course.root / ".course").mkdir(exist_ok=True)
    (course.root / ".course/replacing.json").write_text(journal, encoding="utf-8")

    exporting.verify()

    assert on_disk(new) == dict.fromkeys(new, OLD)
    assert left_over(course) == []


def test_unchanged_modules_are_not_written(course):
    new = two_modules(course)
    exporting.export("05")
    times = {path: path.stat().st_mtime_ns for path in new}
    exporting.export("05")
    assert {path: path.stat().st_mtime_ns for path in new} == times
    course.target.write_text(OLD, encoding="utf-8")
    with transaction.locked():
        assert transaction.replace_all(new) == [course.target]


def test_verify_needs_no_right_to_write(course):
    course.good()
    exporting.export("05")
    shutil.rmtree(course.root / ".course")
    assert exporting.verify() == {}
    assert not (course.root / ".course").exists()


# --- several at once ---


@pytest.mark.slow
def test_two_exports_at_once(course):
    course.good()
    running = [course.command("export", "05") for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    assert course.target.read_text(encoding="utf-8") == build(find_chapter("05"))[0].source


def test_two_chapters_are_exported_at_once(course):
    course.good()
    waiting = course.root / ".course" / "proof-06_other-x"  # another chapter's proof, under way
    waiting.mkdir(parents=True, exist_ok=True)
    abandoned = course.root / ".course" / "proof-05_toy-y"
    abandoned.mkdir()
    exporting.export("05")
    assert waiting.is_dir() and not abandoned.exists()


def test_an_export_that_waits_too_long_is_refused(course, monkeypatch):
    course.good()
    monkeypatch.setattr(transaction, "LOCK_SECONDS", 0.2)
    with (
        transaction.locked(),
        pytest.raises(ExportRefused, match=r"another export has held the library for 0.2 seconds"),
    ):
        exporting.export("05")


# --- verify ---


def test_verify_finds_hand_edits_and_strays(course):
    course.good()
    exporting.export("05")
    assert exporting.verify() == {}
    edited = course.target.read_text(encoding="utf-8").replace("mul(x, 2)", "mul(2, x)")
    course.target.write_text(edited, encoding="utf-8")
    (course.library / "stray.py").write_text("x = 1\n", encoding="utf-8")

    problems = exporting.verify()
    assert set(problems) == {"toy.py", "stray.py"}
    assert "-    return operator.mul(2, x)" in problems["toy.py"]
    assert "+    return operator.mul(x, 2)" in problems["toy.py"]

    process = course.command("verify")
    out, _ = process.communicate()
    assert process.returncode == 1
    assert "+    return operator.mul(x, 2)" in out and "make reset" in out


def test_verify_finds_a_missing_module(course):
    course.good()
    assert "+def double" in exporting.verify()["toy.py"]


def test_verify_compares_bytes_that_are_not_text_and_ignores_the_line_ends_of_windows(course):
    course.good()
    exporting.export("05")
    content = course.target.read_bytes()
    course.target.write_bytes(content.replace(b"\n", b"\r\n"))
    assert exporting.verify() == {}
    course.target.write_bytes(content + b"# \xff\n")
    assert "-# \\xff" in exporting.verify()["toy.py"]
    course.target.write_bytes(content.removesuffix(b"\n"))
    assert set(exporting.verify()) == {"toy.py"}


@pytest.mark.slow
def test_every_committed_module_is_what_its_chapter_writes():
    problems = exporting.verify()
    assert problems == {}, "\n".join(problems.values())
