"""Whatever saves something survives being killed: three kills of each work here, hundreds with tests/kills.py."""

from __future__ import annotations

import random
import time

import pytest
from kills import FORK, WORKS, Work, kill_repeatedly
from pretraining_texts import needs_fork


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("name", WORKS)
def test_nothing_that_was_saved_is_lost_when_a_process_is_killed(tmp_path, name):
    assert FORK is not None
    kill_repeatedly(WORKS[name], tmp_path, 3, random.Random(name))


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
