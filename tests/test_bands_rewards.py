"""The band of chapter 21: sound runs are inside, and runs that were broken on purpose are named first."""

from __future__ import annotations

import ast
import json
import sys

import nbformat
import pytest

from courseware import paths
from courseware.checks.toy_groups import toy_dialogs
from courseware.checks.toy_pairs import eager, toy_chat
from courseware.runs import bands, course, course_bands, diagnosis, thinking
from courseware.runs.recipe import FULL
from minigpt_lib.reasoning import Question
from minigpt_lib.training import TrainConfig

RESULTS = paths.CODE / "benchmarks" / "results"
SOUND = json.loads((RESULTS / "reasoning.json").read_text(encoding="utf-8"))
BROKEN = json.loads((RESULTS / "reasoning_broken.json").read_text(encoding="utf-8"))


def history(curves, keys=("reward", bands.STEP)):
    """Return the records of a run from its recorded curves."""
    steps = range(1, len(curves["reward"]) + 1)
    known = [key for key in keys if key in curves]
    return [{"step": n} | {key: curves[key][n - 1] for key in known} for n in steps]


def judge(curves, **options):
    return bands.compare_run(history(curves, **options), "21_reasoning", show=False)


def runs_with(fault):
    found = [one for one in BROKEN["runs"] if one["fault"] == fault]
    assert len(found) >= 2
    return found


def test_the_band_has_ten_seeds_and_as_many_updates_as_the_recipe():
    band = bands.load_band("21_reasoning")

    assert band["seeds"] == 10
    assert band["steps"] == list(range(1, FULL.rewarding.steps + 1))
    assert band["reward"]["mean"][0] < 0.15 and band["reward"]["mean"][-1] > 0.6


def test_the_chapters_run_has_the_settings_of_the_recipe():
    path = paths.CODE / "notebooks" / "21_reasoning.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    tree = ast.parse(source)

    functions = {node.name: node.args for node in ast.walk(tree) if type(node) is ast.FunctionDef}
    learn, update = functions["learn"], functions["update"]
    names = [argument.arg for argument in learn.args[-len(learn.defaults) :]]
    defaults = {name: ast.unparse(value) for name, value in zip(names, learn.defaults)}
    rewarding, showing = FULL.rewarding, FULL.showing
    assert float(defaults["lr"]) == rewarding.lr and int(defaults["n"]) == rewarding.batch_size
    assert ast.unparse(update.defaults[-1]) == "8"
    assert f"thinker_history = learn(shown, {rewarding.steps}, every=4)" in source
    assert f"train_sft, shown, TrainConfig(steps={showing.steps}, **plan)" in source
    plan = f'"batch_size": {showing.batch_size}, "block_size": {showing.block_size}, "lr": 3e-4'
    assert plan in source and showing.lr == 3e-4


@pytest.mark.parametrize("seed", SOUND["seeds"])
def test_a_sound_run_of_another_script_is_inside(seed):
    (one,) = [one for one in SOUND["runs"]["shown"] if one["seed"] == seed]

    verdict = judge(one["curves"])

    assert verdict.ok, str(verdict)
    assert "all 20 mean rewards" in str(verdict)


@pytest.mark.parametrize("seed", SOUND["seeds"])
def test_without_demonstrations_hardly_anything_is_learned(seed):
    (one,) = [one for one in SOUND["runs"]["alone"] if one["seed"] == seed]

    verdict = judge(one["curves"])

    assert not verdict.ok
    assert verdict.causes[0] == diagnosis.SLOW, str(verdict)


NAMED = {
    "the sign is turned": diagnosis.TURNED,
    "a phrase is rewarded, twice the rate": diagnosis.GAMED,
    "no leash, twenty times the rate": diagnosis.ASTRAY,
}
INVISIBLE = [
    "advantages over the batch",
    "prompts count",
    "prompts count, over the batch",
]
HALF_HIDDEN = "prompts count, no baseline"  # one of two runs stays inside


@pytest.mark.parametrize("fault", NAMED)
def test_a_fault_is_named_first(fault):
    for one in runs_with(fault):
        verdict = judge(one["curves"])

        assert not verdict.ok, one["curves"]
        assert verdict.causes[0] == NAMED[fault], str(verdict)


@pytest.mark.parametrize("fault", INVISIBLE)
def test_a_fault_that_costs_little_here_stays_inside(fault):
    for one in runs_with(fault):
        assert judge(one["curves"]).ok


def test_prompts_without_a_baseline_leave_the_band_with_one_seed_and_are_named():
    verdicts = [judge(one["curves"]) for one in runs_with(HALF_HIDDEN)]

    assert [verdict.ok for verdict in verdicts] == [True, False]
    assert verdicts[1].causes[0] == diagnosis.SLOW


def test_every_recorded_fault_has_a_test():
    assert {one["fault"] for one in BROKEN["runs"]} == {*NAMED, *INVISIBLE, HALF_HIDDEN}


FROM_REWARDS = NAMED | {"a phrase is rewarded, twice the rate": diagnosis.TOO_GOOD}


@pytest.mark.parametrize("fault", FROM_REWARDS)
def test_a_fault_is_named_from_the_rewards_alone(fault):
    for one in runs_with(fault):
        assert judge(one["curves"], keys=["reward"]).causes[0] == FROM_REWARDS[fault]


def test_a_reward_below_zero_is_a_turned_sign():
    one = SOUND["runs"]["shown"][0]["curves"]["reward"]

    verdict = judge({"reward": [-value for value in one]})

    assert verdict.causes[0] == diagnosis.TURNED


def test_a_reward_that_first_answers_earn_already_can_be_gamed():
    verdict = judge({"reward": [0.45 + 0.02 * n for n in range(20)]})

    assert verdict.causes[0] == diagnosis.OTHER_REWARD


def test_a_run_that_thinks_and_is_better_than_the_band_is_another_models():
    steps = [min(1.0, 0.2 + 0.1 * n) for n in range(20)]

    verdict = judge({"reward": [min(0.99, 0.1 + 0.12 * n) for n in range(20)], bands.STEP: steps})

    assert verdict.causes == [diagnosis.OTHER_MODEL]


def test_a_single_update_outside_the_band_is_judged():
    assert not judge({"reward": [0.9]}).ok


def test_a_history_without_rewards_is_refused():
    with pytest.raises(ValueError, match='expected a "reward" at steps'):
        bands.compare_run([{"step": 1, "val_loss": 1.0}], "21_reasoning", show=False)


def test_no_band_of_shares_is_narrower_than_chance():
    curve = {"mean": [1.0], "std": [0.0]}

    assert bands.half_widths(curve, 10, share=True) == [bands.SHARE_FLOOR]


def test_both_curves_are_drawn_and_the_verdict_is_printed(capsys):
    one = runs_with("the sign is turned")[0]

    verdict = bands.compare_run(history(one["curves"]), "21_reasoning")

    assert str(verdict) in capsys.readouterr().out


# ---------------------------------------------------------------- recording


def test_recording_the_course_records_this_band_too(tmp_path, monkeypatch):
    losses = [{"step": 50, "train_loss": 2.0, "val_loss": 2.5}]
    rewards = [{"step": n, "loss": 0.1, "reward": 0.25 * n} for n in (1, 2, 3)]
    histories = {"reading": losses, "answering": losses, "rewarding": rewards}
    monkeypatch.setattr(bands, "FOLDER", tmp_path)
    monkeypatch.setattr(bands, "run_seeds", lambda work, seeds, workers: map(work, range(seeds)))
    monkeypatch.setattr(course, "run", lambda *a, **k: {"figures": {"a share": 0.5}})
    monkeypatch.setattr(course, "read_history", lambda folder: histories[folder.name])
    monkeypatch.setattr(sys, "argv", ["course_bands", "--folder", str(tmp_path)])

    course_bands.main()

    band = json.loads((tmp_path / "21_reasoning.json").read_text(encoding="utf-8"))
    assert band["steps"] == [1, 2, 3] and band["seeds"] == 5
    assert band["reward"]["mean"] == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("text", "shows"),
    [
        ("Ida Zander works for Cobalt. Cobalt is in Juniper.", True),
        ("Ida Zander works in Juniper.", False),
        ("Cobalt is in Juniper.", False),
        ("", False),
    ],
)
def test_a_step_is_a_company_and_where_it_is(text, shows):
    assert thinking.shows_step(text) == shows


def test_every_drawn_answer_counts_in_the_share_that_shows_a_step(monkeypatch):
    monkeypatch.setattr(thinking, "shows_step", lambda text: True)
    config = TrainConfig(
        steps=3, batch_size=2, lr=1e-3, warmup_steps=0, eval_every=0, device="cpu", progress=False
    )
    questions = [Question(dialog, "rome") for dialog in toy_dialogs]

    records = thinking.rewarded(eager(), toy_chat, config, questions, max_new_tokens=6)

    assert [record["step"] for record in records] == [1, 2, 3]
    assert all(record[bands.STEP] == pytest.approx(record["ended"]) for record in records)
    assert any(0 < record[bands.STEP] < 1 for record in records)
