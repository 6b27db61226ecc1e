"""A learner's progress survives damage, a crash, two kernels at once, and a change of the course."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from courseware import paths, progress


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "STATE", tmp_path / ".course")
    return tmp_path / ".course"


def test_what_was_right_stays_right(state):
    for status in ("wrong", "right", "wrong", "not attempted"):
        progress.record("exercise", "clip", status)
    assert progress.read() == {"exercise": {"clip": "right"}}


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"exercise": {"a": "ri', "\udcff"])
def test_a_damaged_file_is_set_aside(state, damaged, capsys):
    state.mkdir()
    data = damaged.encode("utf-8", "surrogateescape")
    (state / "progress.json").write_bytes(data)
    assert progress.read() == {}
    progress.record("exercise", "clip", "right")
    assert progress.read() == {"exercise": {"clip": "right"}}
    assert (state / "progress.json.damaged").read_bytes() == data
    assert "kept as progress.json.damaged" in capsys.readouterr().err


def test_what_a_newer_course_wrote_is_kept(state):
    state.mkdir()
    newer = {
        "version": 7,
        "exercise": {"clip": "right", "later": {"status": "right", "minutes": 12}},
        "streak": ["mon", "tue"],
    }
    (state / "progress.json").write_text(json.dumps(newer), encoding="utf-8")
    assert progress.read() == {"exercise": {"clip": "right"}}
    progress.record("exercise", "unscale", "wrong")
    saved = json.loads((state / "progress.json").read_text(encoding="utf-8"))
    assert saved == newer | {"exercise": newer["exercise"] | {"unscale": "wrong"}}


def test_a_renamed_exercise_stays_solved(state, monkeypatch):
    progress.record("exercise", "old", "right")
    monkeypatch.setitem(progress.RENAMED["exercise"], "old", "new")
    assert progress.read()["exercise"]["new"] == "right"
    progress.record("exercise", "new", "wrong")
    assert progress.read()["exercise"]["new"] == "right"


def test_several_kernels_lose_nothing(state):
    code = (
        "import pathlib, sys; from courseware import paths, progress\n"
        "paths.STATE = pathlib.Path(sys.argv[1])\n"
        "for i in range(25): progress.record('exercise', f'{sys.argv[2]} {i}', 'right')"
    )
    kernels = [subprocess.Popen([sys.executable, "-c", code, str(state), name]) for name in "abc"]
    assert [kernel.wait(120) for kernel in kernels] == [0, 0, 0]
    assert len(progress.read()["exercise"]) == 75


def test_a_lock_that_is_never_given_back_does_not_stop_the_learner(state, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    state.mkdir()
    monkeypatch.setattr(progress, "_PATIENCE", 0.2)
    with open(state / progress.LOCK, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        begin = time.monotonic()
        progress.record("exercise", "clip", "right")
        assert time.monotonic() - begin < 5
    assert progress.read() == {"exercise": {"clip": "right"}}


def test_a_folder_that_cannot_be_written_is_a_line_and_no_error(state, capsys):
    state.write_text("a file where the folder should be", encoding="utf-8")
    progress.record("exercise", "clip", "right")
    assert "progress was not saved" in capsys.readouterr().err
