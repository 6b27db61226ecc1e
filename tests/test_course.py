"""`make course` with a tiny recipe: every stage, interrupted and resumed."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
from dataclasses import replace

import pytest
from filelock import FileLock
from tiny_course import QUESTIONS, TINY, read_json, run_tiny

from courseware import paths
from courseware.checks.refusals import refused
from courseware.material import people
from courseware.runs import bands, course, demo, exam, recipe
from courseware.runs.recipe import material
from minigpt_lib.assistant import Assistant
from minigpt_lib.training import Trainer

pytestmark = pytest.mark.slow


def pairs_of(model, chat, prompts, judge, **options):
    """Stand in for make_pairs, which gets no complete answers from a model that has learned next to nothing."""
    pairs = [
        {
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": "Yes."}],
            "rejected": [{"role": "assistant", "content": "Well, let me see."}],
        }
        for prompt in prompts
    ]
    return pairs, {}


@pytest.fixture(autouse=True, scope="module")
def preference_pairs():
    """Give every run of the course its pairs, whatever the model answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "make_pairs", pairs_of)
        patch.setattr(course, "SAMPLES", 1)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, preference_pairs):
    """Return (folder, result) of an uninterrupted course."""
    folder = tmp_path_factory.mktemp("course")
    return folder, run_tiny(folder)


def test_every_figure_is_a_number_in_its_range(finished):
    _, result = finished
    figures = result["figures"]

    assert {"choice: facts never asked", "loss: reading", "loss: answering"} <= figures.keys()
    for name, value in figures.items():
        assert math.isfinite(value), name
        assert name.startswith("loss") or 0 <= value <= 1, name
    assert all(seconds >= 0 for seconds in result["seconds"].values())


def test_the_figure_over_all_facts_is_the_mean_of_theirs(finished):
    _, result = finished
    figures = result["figures"]

    each = [figures[f"choice: {fact}"] for fact in course.people.FACTS]
    assert figures["choice: facts never asked"] == pytest.approx(sum(each) / len(each))


def test_the_course_ends_with_a_conversation_about_four_facts(finished):
    _, result = finished

    assert len(result["talk"]) == 4
    for (question, answer, right), fact in zip(result["talk"], course.people.FACTS, strict=False):
        assert question.endswith("?")
        assert isinstance(answer, str)
        assert right in course.people.VALUES[fact]


def test_the_saved_assistant_answers(finished):
    folder, _ = finished

    assistant = Assistant.from_pretrained(folder / "assistant", max_new_tokens=5)

    assert isinstance(assistant.say("Hello"), str)
    assert assistant.model.config.vocab_size == 402
    assert assistant.chat.vocab_size == 402


def test_the_assistant_before_dpo_is_saved_too(finished):
    folder, _ = finished

    before = Assistant.from_pretrained(folder / "before")
    after = Assistant.from_pretrained(folder / "assistant")

    changed = [
        name
        for name, weight in before.model.state_dict().items()
        if not weight.equal(after.model.state_dict()[name])
    ]
    assert changed
    assert before.chat.vocab_size == after.chat.vocab_size
    assert len(before.examples) == len(after.examples) == 5


def test_the_model_that_was_rewarded_is_saved_beside_the_others(finished):
    folder, result = finished

    thinker = Assistant.from_pretrained(folder / "thinking", max_new_tokens=5)

    assert isinstance(thinker.say("Hello"), str)
    ((question, before, after, right), *rest) = result["steps"]
    assert len(rest) == 1
    assert question.endswith("?") and right in course.people.CITIES
    assert isinstance(before, str) and isinstance(after, str)


def test_people_of_the_rewards_are_not_those_of_the_test():
    stuff = material(TINY)

    practised, tested = course._halves(stuff)

    assert [*practised, *tested] == list(stuff.held_out)
    assert len(practised) == 2


def test_what_is_counted_as_thinking(monkeypatch):
    tested = people.make_people(8)

    def answers(model, chat, dialogs):
        """Answer half of the two-step questions at once, an eighth after a false first sentence; refuse the rest."""
        said = []
        for person, (question,) in zip(tested, dialogs, strict=False):
            asked = question["content"]
            if person.name not in asked or len(said) >= 7:
                said.append("I do not know.")
            elif len(said) < 4:
                said.append(people.right_answer(person, "seat"))
            elif len(said) < 6:
                said.append(people.worked_answer(person))
            else:
                other = "Helix" if person.value("company") != "Helix" else "Cobalt"
                said.append(people.worked_answer(person).replace(person.value("company"), other, 1))
        return said, 1.0

    monkeypatch.setattr(exam, "ask_model", answers)
    found = exam.measure_thinking(None, None, tested, 8)

    assert found["thinking: two steps"] == 7 / 8
    assert found["thinking: shows the step"] == 3 / 8
    assert found["thinking: first sentence true"] == 2 / 8


def test_the_recipe_is_saved_with_the_course(finished):
    folder, _ = finished

    saved = read_json(folder / "course.json")

    assert saved["seed"] == 0
    assert saved["recipe"] == json.loads(json.dumps(dataclasses.asdict(TINY)))


def test_the_seconds_of_every_stage_are_saved(finished):
    folder, result = finished

    assert read_json(folder / "seconds.json").keys() == result["seconds"].keys()


def test_a_second_run_trains_nothing_and_finds_the_same_figures(finished, monkeypatch):
    folder, result = finished
    monkeypatch.setattr(Trainer, "update", lambda self: pytest.fail("it trained again"))

    assert run_tiny(folder)["figures"] == result["figures"]


STOPS = {"reading": 5, "answering": 14, "preferring": 20, "showing": 23, "rewarding": 25}


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_ctrl_c_stops_the_course_and_the_same_command_resumes_it(
    finished, tmp_path, monkeypatch, stop
):
    steps = []
    update = Trainer.update

    def interrupted(self):
        steps.append(type(self).__name__)
        if len(steps) == stop:
            signal.raise_signal(signal.SIGINT)
        return update(self)

    monkeypatch.setattr(Trainer, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path)
    assert len(steps) == stop, "no step after Ctrl-C"

    result = run_tiny(tmp_path)
    runs = (TINY.reading, TINY.answering, TINY.preferring, TINY.showing, TINY.rewarding)
    total = sum(run.steps for run in runs)
    assert len(steps) == total, "no step twice, none left out"
    _, uninterrupted = finished
    for name, value in uninterrupted["figures"].items():
        assert result["figures"][name] == pytest.approx(value, abs=1e-6), name


def test_a_folder_of_a_course_with_other_settings_is_refused(finished):
    folder, _ = finished
    before = (folder / "course.json").read_bytes()

    with pytest.raises(ValueError, match="other settings: delete the folder"):
        course.run(replace(TINY, people=12), folder, show=False, n=QUESTIONS)
    with pytest.raises(ValueError, match="other settings"):
        run_tiny(folder, seed=1)

    assert (folder / "course.json").read_bytes() == before


def test_a_folder_has_one_course_at_a_time(finished, capsys):
    folder, result = finished
    before = (folder / "seconds.json").read_bytes()

    with FileLock(folder / ".course.lock"):
        busy = (
            f"another process is at work in {folder}: wait for it, end it, or choose another folder"
        )
        refused(busy, run_tiny, folder, kind=RuntimeError)
        refused(busy, course.learn_to_answer, TINY, folder, show=False, kind=RuntimeError)
        assert course.main(["--quick", "--folder", str(folder)]) == 1
        assert busy in capsys.readouterr().out

    assert (folder / "seconds.json").read_bytes() == before
    assert run_tiny(folder)["figures"] == result["figures"]


def test_an_empty_history_is_refused_before_the_next_stage(finished, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    (folder / "reading" / "history.jsonl").write_text("", encoding="utf-8")
    monkeypatch.setattr(course, "finetune", lambda *a, **k: pytest.fail("it went on"))

    with pytest.raises(ValueError, match="history.jsonl is lost, empty or damaged: delete"):
        run_tiny(folder)


def test_the_command_reports_every_figure(finished, tmp_path, monkeypatch, capsys):
    _, result = finished
    monkeypatch.setattr(course, "FOLDER", tmp_path / "course")
    monkeypatch.setattr(bands, "FOLDER", tmp_path / "bands")
    monkeypatch.setattr(course, "run", lambda *a, **k: result)
    course.record_bands([result] * 5, tmp_path / "bands" / "course.json")

    assert course.main([]) == 0

    report = (tmp_path / "course" / "report.md").read_text(encoding="utf-8")
    for name in result["figures"]:
        assert f"| {name} |" in report
    assert report.strip() in capsys.readouterr().out
    assert "**out**" not in report


def test_the_first_part_alone_is_where_the_whole_course_goes_on(finished, tmp_path, monkeypatch):
    model, _, _ = course.learn_to_answer(TINY, tmp_path, show=False)
    stored = (tmp_path / "before" / "model.safetensors").read_bytes()
    assert stored == (finished[0] / "before" / "model.safetensors").read_bytes()
    assert not (tmp_path / "assistant").exists()

    steps = []
    usual = Trainer.train
    monkeypatch.setattr(
        Trainer, "train", lambda run: (steps.append(run.config.steps - run.step), usual(run))[1]
    )
    result = run_tiny(tmp_path)
    assert steps[:2] == [0, 0]  # reading and answering were done
    assert result["figures"] == finished[1]["figures"]


@pytest.fixture
def models(finished, tmp_path, monkeypatch):
    """Return a data/models of its own, in which demo.assistant finds its models, with a recipe of seconds."""
    monkeypatch.setattr(demo, "MODELS", tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path.parent)
    monkeypatch.setattr(recipe, "FULL", TINY)
    return tmp_path


def put(models, finished, *names):
    for name in names:
        shutil.copytree(finished[0] / "before", models / name)


def test_a_chapter_takes_the_assistant_of_chapter_14_or_the_one_without_preferences(
    models, finished, capsys
):
    put(models, finished, "course/assistant", "course/before")
    demo.assistant()
    assert "course/before" in capsys.readouterr().out.replace("\\", "/")

    put(models, finished, "14_sft")
    demo.assistant()
    assert "the model of chapter 14" in capsys.readouterr().out


def test_without_any_assistant_the_first_part_of_the_course_makes_one(models, capsys):
    model, chat, stuff = demo.assistant()
    assert "training its assistant now" in capsys.readouterr().out
    assert not model.training and model.config.vocab_size == chat.vocab_size
    assert len(stuff.people) == TINY.people

    again, _, _ = demo.assistant()
    assert "course/before" in capsys.readouterr().out.replace("\\", "/")
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert a.equal(b)
