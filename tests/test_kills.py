"""Whatever saves something survives kills and full disks: three of each here, hundreds with tests/kills.py."""

from __future__ import annotations

import contextlib
import random
import time

import pytest
from kills import FORK, WORKS, Work, fill_repeatedly, kill_repeatedly, small_disk
from pretraining_texts import needs_fork


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("name", WORKS)
def test_nothing_that_was_saved_is_lost_when_a_process_is_killed(tmp_path, name):
    assert FORK is not None
    kill_repeatedly(WORKS[name], tmp_path, 3, random.Random(name))


@pytest.fixture
def disk(tmp_path):
    """Give a small file system, where that is allowed."""
    with contextlib.ExitStack() as mounted:
        try:
            mounted.enter_context(small_disk(tmp_path / "disk"))
        except PermissionError as error:
            pytest.skip(str(error))
        yield tmp_path / "disk"


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("name", WORKS)
def test_nothing_that_was_saved_is_lost_when_the_disk_is_full(disk, name):
    fill_repeatedly(WORKS[name], disk, 3, random.Random(name))


def _rewrite_long(folder):
    """Save as one should not: over the old file."""
    folder.mkdir(exist_ok=True)
    for step in range(8):
        _write(folder, f"{step} " + "x" * 99_999 * step + "whole")


def _write(folder, text):
    try:
        (folder / "saved.txt").write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(f"{folder}: no space") from error


def _say_nothing(folder):
    """Save carefully, and say nothing of use when that fails."""
    folder.mkdir(exist_ok=True)
    part = folder / "part"
    try:
        part.write_text("x" * 99_999 + "whole", encoding="utf-8")
        part.replace(folder / "saved.txt")
    except OSError:
        raise RuntimeError("that did not work") from None
    finally:
        part.unlink(missing_ok=True)


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize(
    ("go", "found"), [(_rewrite_long, "torn"), (_say_nothing, "what is wrong")]
)
def test_full_disks_find_what_saves_carelessly(disk, go, found):
    with pytest.raises(AssertionError, match=found):
        fill_repeatedly(Work(go, _whole_or_not, "saved.txt"), disk, 40, random.Random(0))


def _rewrite_in_place(folder):
    """Save as one should not: over the old file, with a pause in the middle."""
    folder.mkdir(exist_ok=True)
    for step in range(4):
        with open(folder / "saved.txt", "w", encoding="utf-8") as file:
            file.write(f"{step} ")
            file.flush()
            time.sleep(0.1)
            file.write("whole")


def _whole_or_not(folder):
    file = folder / "saved.txt"
    assert not file.exists() or file.read_text(encoding="utf-8").endswith("whole"), "torn"
    return 0


def _delete_first(folder):
    """Save as one should not: the old file goes before the new one is there."""
    folder.mkdir(exist_ok=True)
    file = folder / "saved.txt"
    for step in range(1, 5):
        file.unlink(missing_ok=True)
        time.sleep(0.1)
        file.write_text(str(step), encoding="utf-8")
        time.sleep(0.1)


def _reached(folder):
    file = folder / "saved.txt"
    return int(file.read_text(encoding="utf-8")) if file.exists() else 0


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize(
    ("go", "look", "found"),
    [(_rewrite_in_place, _whole_or_not, "torn"), (_delete_first, _reached, "before the last kill")],
)
def test_kills_find_what_saves_carelessly(tmp_path, go, look, found):
    with pytest.raises(AssertionError, match=found):
        kill_repeatedly(Work(go, look, "saved.txt"), tmp_path, 40, random.Random(0))
