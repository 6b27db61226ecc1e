"""`make course` without its training: damaged files, the clock, the bands, the report and the command line."""

from __future__ import annotations

import json
import math
import time

import pytest
from tiny_course import TINY, read_json, run_tiny

from courseware import paths
from courseware.runs import bands, course
from courseware.runs.recipe import material

# ---------------------------------------------------------------- files and seconds


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[]", b"[" * 100_000])
@pytest.mark.parametrize("name", ["course.json", "seconds.json"])
def test_a_damaged_file_is_refused_by_name_and_left_alone(tmp_path, raw, name):
    course._claim(tmp_path, TINY, 0)
    (tmp_path / name).write_bytes(raw)

    with pytest.raises(ValueError, match=f"{name} is damaged: delete"):
        run_tiny(tmp_path)

    assert (tmp_path / name).read_bytes() == raw


def test_seconds_that_are_not_numbers_are_damaged(tmp_path):
    (tmp_path / "seconds.json").write_text('{"reading": "long"}', encoding="utf-8")

    with pytest.raises(ValueError, match="seconds.json is damaged"):
        run_tiny(tmp_path)


@pytest.mark.parametrize("name", ["reading", "answering", "preferring", "assistant", "rewarding"])
def test_a_folder_with_models_but_without_their_recipe_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()

    with pytest.raises(ValueError, match=f"has {name}, but no course.json"):
        run_tiny(tmp_path)

    assert not (tmp_path / "course.json").exists()


@pytest.mark.parametrize("raw", [None, "", "{", "[1]\n", '{"step": 1}\n'])
def test_a_missing_or_damaged_history_is_refused(tmp_path, raw):
    if raw is not None:
        (tmp_path / "history.jsonl").write_text(raw, encoding="utf-8")

    with pytest.raises(ValueError, match="history.jsonl is lost, empty or damaged: delete"):
        course.read_history(tmp_path)


def test_the_seconds_of_several_runs_are_added_up(tmp_path):
    stages = course._Stages({"reading": 1}, show=False)
    file = tmp_path / "seconds.json"

    def interrupted(on_step):
        time.sleep(0.02)
        raise KeyboardInterrupt

    with stages:
        course._Clock(stages, file)("reading", lambda on_step: time.sleep(0.02))
        with pytest.raises(KeyboardInterrupt):
            course._Clock(stages, file)("reading", interrupted)
        clock = course._Clock(stages, file)

    assert clock.seconds["reading"] >= 0.04
    assert clock.seconds["reading"] == read_json(file)["reading"]


def test_half_of_the_people_are_held_out():
    stuff = material(TINY)

    assert len(stuff.held_out) == 5
    assert len(stuff.asked) == 5
    assert {p.name for p in stuff.held_out}.isdisjoint(p.name for p in stuff.asked)


# ---------------------------------------------------------------- bands and report


def result_with(**figures):
    return {
        "figures": figures,
        "seconds": {"reading": 61.4},
        "talk": [("Who?", "Ada.", "Ada")],
        "steps": [("Where?", "Oslo.", "For Bo. Bo is in Rome.", "Rome")],
    }


def test_bands_hold_mean_and_standard_deviation_of_at_least_five_seeds(tmp_path):
    runs = [result_with(**{"choice: city": 0.9 + 0.01 * i, "loss: reading": 2.0}) for i in range(5)]

    band = course.record_bands(runs, tmp_path / "course.json", date="today")

    assert band == read_json(tmp_path / "course.json")
    assert band["seeds"] == 5
    assert band["date"] == "today"
    entry = band["figures"]["choice: city"]
    assert entry["mean"] == pytest.approx(0.92)
    assert entry["std"] == pytest.approx(0.015811, abs=1e-5)
    with pytest.raises(ValueError, match="at least 5 runs, got 4"):
        course.record_bands(runs[:4], tmp_path / "course.json")


HALF_WIDTH = bands.STUDENT[5] * math.sqrt(1.2) * 0.01


@pytest.mark.parametrize(
    ("name", "mean", "std", "expected"),
    [
        ("choice: city", 0.5, 0.01, (0.5 - HALF_WIDTH, 0.5 + HALF_WIDTH)),
        ("choice: city", 0.5, 0.0, (0.48, 0.52)),
        ("choice: city", 0.995, 0.0, (0.975, 1.0)),
        ("loss: reading", 1.3, 0.0, (1.3 * (1 - bands.FLOOR), 1.3 * (1 + bands.FLOOR))),
    ],
    ids=["five seeds", "minimum of a share", "a share is at most 1", "minimum of a loss"],
)
def test_limits_have_a_minimum_width_and_stay_in_range(name, mean, std, expected):
    limits = course.limits(name, {"mean": mean, "std": std}, 5)

    assert limits == pytest.approx(expected)
    if name.startswith("choice"):
        assert all(0 <= limit <= 1 for limit in limits)


@pytest.mark.parametrize(
    ("value", "inside"),
    [(0.9, True), (0.92, True), (0.929, False), (0.5, False), (float("nan"), False)],
)
def test_a_figure_outside_its_band_makes_the_report_fail(value, inside):
    figures = {
        "choice: city": {"mean": 0.9, "std": 0.0},
        "loss: reading": {"mean": 2.0, "std": 0.1},
    }
    result = result_with(**{"choice: city": value, "loss: reading": 2.05})

    text, ok = course.report(result, {"seeds": 5, "figures": figures})

    assert ok == inside
    assert text.count("**out**") == (0 if inside else 1)
    row = next(line for line in text.splitlines() if "choice: city" in line)
    assert "88.0% to 92.0%" in row
    assert row.count("|") == 5
    assert "- Who? *Ada.* (Ada)" in text
    assert "- Where? *Oslo.* / *For Bo. Bo is in Rome.* (Rome)" in text
    assert "61 s" in text


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("own words: sums never asked", 0.1),  # it repeats one number, or adds at random
        ("choice: sums never asked", 0.25),  # chance
        ("own words: fourth question", 0.3),  # it answers about somebody else
        ("own words: two steps, step by step", 0.3),
        ("own words: facts never asked", 0.4),
        ("sampled: turn ended", 0.9),
        ("thinking: two steps", 0.3),
        ("thinking: first sentence true", 0.3),
        ("loss: answering", 0.2),
    ],
)
def test_the_recorded_bands_notice_what_is_broken(name, broken):
    band = bands.load_band("course")
    sound = band["figures"][name]["mean"]

    for value, inside in ((sound, True), (broken, False)):
        low, high = course.limits(name, band["figures"][name], band["seeds"])
        assert (low <= value <= high) == inside, (name, low, high)


def test_the_books_table_is_that_of_the_recorded_bands():
    band = bands.load_band("course")
    page = (paths.CODE / "book" / "benchmarks.md").read_text(encoding="utf-8")
    table = page.partition("The course's assistant\n")[2].partition("```")[0]

    rows = [
        f"| {name} | {course._shown(name, entry['mean'])} | {course._shown(name, entry['std'])} |"
        for name, entry in band["figures"].items()
    ]
    assert table.splitlines()[2:] == rows
    assert f"over {band['seeds']} seeds" in page and str(band["date"]) in page


def test_a_report_without_bands_is_a_table_that_cannot_fail():
    text, ok = course.report(result_with(**{"choice: city": 0.123}), None)

    assert ok
    assert "12.3%" in text
    assert "**out**" not in text


# ---------------------------------------------------------------- the command


RESULT = result_with(**{"choice: city": 0.9, "loss: reading": 2.0})


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Let `course.main` find a result without any training, in folders of its own, with bands around it."""
    monkeypatch.setattr(course, "FOLDER", tmp_path / "course")
    monkeypatch.setattr(bands, "FOLDER", tmp_path / "bands")
    monkeypatch.setattr(course, "run", lambda *a, **k: RESULT)
    course.record_bands([RESULT] * 5, tmp_path / "bands" / "course.json")
    return tmp_path


def test_the_command_returns_0_if_every_figure_is_inside_its_band(command, capsys):
    assert course.main([]) == 0

    report = (command / "course" / "report.md").read_text(encoding="utf-8")
    for name in RESULT["figures"]:
        assert f"| {name} |" in report
    assert report.strip() in capsys.readouterr().out
    assert "**out**" not in report


def test_the_command_returns_1_if_a_figure_is_outside_its_band(command):
    file = command / "bands" / "course.json"
    band = read_json(file)
    band["figures"]["loss: reading"]["mean"] += 3
    file.write_text(json.dumps(band), encoding="utf-8")

    assert course.main([]) == 1

    assert "**out**" in (command / "course" / "report.md").read_text(encoding="utf-8")


def test_the_command_says_how_to_resume_after_ctrl_c(command, monkeypatch, capsys):
    def interrupted(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(course, "run", interrupted)

    assert course.main(["--quick", "--folder", str(command / "q")]) not in (0, None)

    assert "goes on" in capsys.readouterr().out
    assert not (command / "q" / "report.md").exists()


@pytest.mark.parametrize("error", [ValueError("of other settings"), OSError("no such disk")])
def test_an_error_is_shown_as_one_line(command, monkeypatch, capsys, error):
    def fails(*a, **k):
        raise error

    monkeypatch.setattr(course, "run", fails)

    assert course.main(["--quick", "--folder", str(command / "q")]) == 1

    assert capsys.readouterr().out.splitlines()[-1] == str(error)


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_file_in_place_of_the_folder_is_named_and_left_alone(tmp_path, capsys, folder):
    (tmp_path / "file").write_text("my thesis", encoding="utf-8")

    assert course.main(["--quick", "--folder", str(tmp_path / folder)]) == 1

    assert str(tmp_path / "file") in capsys.readouterr().out
    assert (tmp_path / "file").read_text(encoding="utf-8") == "my thesis"


def test_missing_bands_are_noticed_before_the_training(command, monkeypatch):
    (command / "bands" / "course.json").unlink()
    monkeypatch.setattr(course, "run", lambda *a, **k: pytest.fail("it trained first"))

    with pytest.raises((FileNotFoundError, ValueError, SystemExit)):
        course.main([])
