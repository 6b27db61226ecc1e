"""`make course` with a very small recipe: the whole way, interrupted and resumed, and a report that can fail."""

import dataclasses
import json
import math
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch

from courseware import bands, course
from courseware.recipe import QUICK, material
from minigpt_lib.assistant import Assistant
from minigpt_lib.training import Trainer

SMALL = {"batch_size": 4, "block_size": 64, "precision": "float32"}
TINY = replace(
    QUICK,
    people=10,
    vocab_size=400,
    model={"n_embd": 16, "n_layer": 1, "n_head": 2},
    reading=replace(QUICK.reading, steps=12, warmup_steps=2, **SMALL),
    answering=replace(QUICK.answering, steps=6, warmup_steps=1, **SMALL | {"block_size": 256}),
    prompts=8,
    preferring=replace(QUICK.preferring, steps=3, warmup_steps=1, block_size=256),
)
N = 5


def pairs_of(model, chat, prompts, judge, **options):
    """Stand in for make_pairs, which finds no whole answers of a model that has learned next to nothing."""
    answers = [[{"role": "assistant", "content": text}] for text in ("Yes.", "Well, let me see.")]
    return [dict(zip(("prompt", "chosen", "rejected"), (p, *answers))) for p in prompts], {}


@pytest.fixture(autouse=True, scope="module")
def small():
    """One thread, and pairs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "make_pairs", pairs_of)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small):
    """Return (folder, result) of an uninterrupted course."""
    folder = tmp_path_factory.mktemp("course")
    return folder, course.run(TINY, folder, show=False, n=N)


def test_every_figure_is_a_number_in_its_range(whole):
    _, result = whole
    figures = result["figures"]
    assert {"choice: facts never asked", "loss: reading", "loss: answering"} <= figures.keys()
    for name, value in figures.items():
        assert math.isfinite(value) and (name.startswith("loss") or 0 <= value <= 1), name
    facts = [figures[f"choice: {fact}"] for fact in course.people.FACTS]
    assert figures["choice: facts never asked"] == pytest.approx(sum(facts) / len(facts))
    assert all(seconds >= 0 for seconds in result["seconds"].values())
    assert len(result["talk"]) == 4
    for (question, answer, right), fact in zip(result["talk"], course.people.FACTS, strict=False):
        assert question.endswith("?") and isinstance(answer, str)
        assert right in course.people.VALUES[fact]


def test_the_assistant_that_it_leaves_can_be_talked_with(whole):
    folder, _ = whole
    a = Assistant.from_pretrained(folder / "assistant", max_new_tokens=5)
    assert isinstance(a.say("Hello"), str)
    assert a.model.config.vocab_size == a.chat.vocab_size == 402


def test_a_second_run_trains_nothing_and_finds_the_same(whole, monkeypatch):
    folder, result = whole
    monkeypatch.setattr(Trainer, "_update", lambda self: pytest.fail("it trained again"))
    assert course.run(TINY, folder, show=False, n=N)["figures"] == result["figures"]


@pytest.mark.parametrize("stop", [5, 14, 20])  # while it reads, learns to answer, prefers
def test_ctrl_c_stops_and_the_same_command_goes_on(whole, tmp_path, monkeypatch, stop):
    steps, update = [], Trainer._update

    def interrupted(self):
        steps.append(type(self).__name__)
        if len(steps) == stop:
            signal.raise_signal(signal.SIGINT)
        return update(self)

    monkeypatch.setattr(Trainer, "_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        course.run(TINY, tmp_path, show=False, n=N)
    assert len(steps) == stop, "nothing is trained after it"
    result = course.run(TINY, tmp_path, show=False, n=N)
    total = TINY.reading.steps + TINY.answering.steps + TINY.preferring.steps
    assert len(steps) == total, "no step is made twice, none is left out"
    for name, value in whole[1]["figures"].items():
        assert result["figures"][name] == pytest.approx(value, abs=1e-6), name


def test_a_folder_of_another_course_is_refused(whole, tmp_path):
    folder, _ = whole
    before = (folder / "course.json").read_text()
    with pytest.raises(ValueError, match="other settings: delete the folder"):
        course.run(replace(TINY, people=12), folder, show=False, n=N)
    with pytest.raises(ValueError, match="other settings"):
        course.run(TINY, folder, seed=1, show=False, n=N)
    assert (folder / "course.json").read_text() == before


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[]", b"[" * 100_000])
@pytest.mark.parametrize("name", ["course.json", "seconds.json"])
def test_a_damaged_file_is_named(tmp_path, raw, name):
    course._claim(tmp_path, TINY, 0)
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=f"{name} is damaged: delete"):
        course.run(TINY, tmp_path, show=False, n=N)
    assert (tmp_path / name).read_bytes() == raw


def test_seconds_that_are_no_numbers_are_damaged(tmp_path):
    (tmp_path / "seconds.json").write_text('{"reading": "long"}')
    with pytest.raises(ValueError, match="seconds.json is damaged"):
        course.run(TINY, tmp_path, show=False, n=N)


@pytest.mark.parametrize("name", ["reading", "answering", "preferring", "assistant"])
def test_a_folder_with_models_of_nobody_knows_which_course_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"has {name}, but no course.json"):
        course.run(TINY, tmp_path, show=False, n=N)
    assert not (tmp_path / "course.json").exists()


@pytest.mark.parametrize("raw", [None, "", "{", "[1]\n", '{"step": 1}\n'])
def test_a_lost_history_is_refused_right_after_its_stage(whole, tmp_path, monkeypatch, raw):
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    file = folder / "reading" / "history.jsonl"
    file.unlink() if raw is None else file.write_text(raw)
    with pytest.raises(ValueError, match="history.jsonl is lost, empty or damaged: delete"):
        course.read_history(folder / "reading")
    if raw == "":
        monkeypatch.setattr(course, "finetune", lambda *a, **k: pytest.fail("it went on"))
        with pytest.raises(ValueError):
            course.run(TINY, folder, show=False, n=N)


def test_the_time_of_all_runs_is_added_up(whole, tmp_path):
    stages, file = course._Stages({"reading": 1}, show=False), tmp_path / "seconds.json"
    with stages:
        course._Clock(stages, file)("reading", lambda on_step: time.sleep(0.02))
        with pytest.raises(KeyboardInterrupt):
            course._Clock(stages, file)("reading", interrupted)
        clock = course._Clock(stages, file)
        assert 0.04 <= clock.seconds["reading"] == json.loads(file.read_text())["reading"]
    assert set(json.loads((whole[0] / "seconds.json").read_text())) == set(whole[1]["seconds"])


def interrupted(on_step):
    time.sleep(0.02)
    raise KeyboardInterrupt


def test_measuring_takes_no_more_questions_than_there_are():
    stuff = material(TINY)
    assert len(stuff.held_out) == 5 and len(stuff.asked) == 5
    assert {p.name for p in stuff.held_out}.isdisjoint(p.name for p in stuff.asked)


# --- bands and report ---


def result_with(**figures):
    return {"figures": figures, "seconds": {"reading": 61.4}, "talk": [("Who?", "Ada.", "Ada")]}


def test_bands_hold_mean_and_spread_of_at_least_five_seeds(tmp_path):
    runs = [result_with(**{"choice: city": 0.9 + 0.01 * i, "loss: reading": 2.0}) for i in range(5)]
    band = course.record_bands(runs, tmp_path / "course.json", date="today")
    assert band == json.loads((tmp_path / "course.json").read_text())
    assert band["seeds"] == 5 and band["date"] == "today"
    entry = band["figures"]["choice: city"]
    assert entry["mean"] == pytest.approx(0.92) and entry["std"] == pytest.approx(
        0.015811, abs=1e-5
    )
    with pytest.raises(ValueError, match="at least 5 runs, got 4"):
        course.record_bands(runs[:4], tmp_path / "course.json")


def test_limits_are_never_narrower_than_chance_and_stay_shares():
    wide = course.limits("choice: city", {"mean": 0.5, "std": 0.01}, 5)
    few = bands.STUDENT[5] * math.sqrt(1.2) * 0.01
    assert wide == pytest.approx((0.5 - few, 0.5 + few))
    assert course.limits("choice: city", {"mean": 0.5, "std": 0.0}, 5) == pytest.approx(
        (0.48, 0.52)
    )
    assert course.limits("choice: city", {"mean": 0.995, "std": 0.0}, 5)[1] == 1.0
    low, high = course.limits("loss: reading", {"mean": 1.3, "std": 0.0}, 5)
    assert low == pytest.approx(1.3 * (1 - bands.FLOOR)) and high == pytest.approx(
        1.3 * (1 + bands.FLOOR)
    )


@pytest.mark.parametrize(
    ("value", "sound"),
    [(0.9, True), (0.92, True), (0.929, False), (0.5, False), (float("nan"), False)],
)
def test_a_figure_outside_its_band_makes_the_report_fail(value, sound):
    entry = {"mean": 0.9, "std": 0.0}
    band = {
        "seeds": 5,
        "figures": {"choice: city": entry, "loss: reading": {"mean": 2.0, "std": 0.1}},
    }
    text, ok = course.report(result_with(**{"choice: city": value, "loss: reading": 2.05}), band)
    assert ok == sound and text.count("**out**") == (not sound)
    row = next(line for line in text.splitlines() if "choice: city" in line)
    assert "88.0% to 92.0%" in row and row.count("|") == 5
    assert "- Who? *Ada.* (Ada)" in text and "61 s" in text


def test_a_report_without_bands_is_only_a_table():
    text, ok = course.report(result_with(**{"choice: city": 0.123}), None)
    assert ok and "12.3%" in text and "**out**" not in text


@pytest.fixture
def command(whole, tmp_path, monkeypatch):
    """Run main with the result of the fixture `whole` in place of the work."""
    monkeypatch.setattr(course, "FOLDER", tmp_path / "course")
    monkeypatch.setattr(bands, "FOLDER", tmp_path / "bands")
    monkeypatch.setattr(course, "run", lambda *a, **k: whole[1])
    figures = whole[1]["figures"]
    runs = [{"figures": figures} for _ in range(5)]
    course.record_bands(runs, tmp_path / "bands" / "course.json")
    return tmp_path


def test_the_command_ends_with_0_inside_all_bands_and_1_outside_one(command, whole, capsys):
    assert course.main([]) == 0
    report = (command / "course" / "report.md").read_text()
    for name in whole[1]["figures"]:
        assert f"| {name} |" in report
    assert report.strip() in capsys.readouterr().out and "**out**" not in report
    file = command / "bands" / "course.json"
    band = json.loads(file.read_text())
    band["figures"]["loss: reading"]["mean"] += 3
    file.write_text(json.dumps(band))
    assert course.main([]) == 1 and "**out**" in (command / "course" / "report.md").read_text()


def test_the_command_says_how_to_go_on_after_ctrl_c(command, monkeypatch, capsys):
    def stopped(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(course, "run", stopped)
    assert course.main(["--quick", "--folder", str(command / "q")]) not in (0, None)
    assert "goes on" in capsys.readouterr().out
    assert not (command / "q" / "report.md").exists()


@pytest.mark.parametrize("error", [ValueError("of other settings"), OSError("no such disk")])
def test_an_error_is_a_line(command, monkeypatch, capsys, error):
    def fails(*a, **k):
        raise error

    monkeypatch.setattr(course, "run", fails)
    assert course.main(["--quick", "--folder", str(command / "q")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == str(error)


def test_a_folder_that_is_a_file_is_a_line(tmp_path, capsys):
    (tmp_path / "file").write_text("my thesis")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert course.main(["--quick", "--folder", str(folder)]) == 1
        assert str(tmp_path / "file") in capsys.readouterr().out
    assert (tmp_path / "file").read_text() == "my thesis"


def test_the_command_misses_its_bands_before_the_work(command, monkeypatch):
    (command / "bands" / "course.json").unlink()
    monkeypatch.setattr(course, "run", lambda *a, **k: pytest.fail("it worked first"))
    with pytest.raises((FileNotFoundError, ValueError, SystemExit)):
        course.main([])


def test_the_recipe_is_written_with_the_course(whole):
    saved = json.loads((whole[0] / "course.json").read_text())
    assert saved["seed"] == 0 and saved["recipe"] == json.loads(
        json.dumps(dataclasses.asdict(TINY))
    )
