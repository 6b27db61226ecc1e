"""Loss bands: a correct run is inside the band, and each common mistake, really trained, is named first."""

from __future__ import annotations

import json

import pytest
import torch
from tools import backwards, shifted_twice, unshifted

from courseware.runs import bands, diagnosis
from minigpt_lib.baselines import MLPLM, train_baseline
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.data import load_text, train_val_split

STEPS = 240


@pytest.fixture(scope="module")
def text():
    """Return a twelfth of the plays, from both ends of the corpus, as training and validation tokens."""
    whole = load_text()
    tokenizer = CharTokenizer.from_text(whole)
    train, valid = train_val_split(torch.tensor(tokenizer.encode(whole)))
    return train[:360_000], valid[:40_000]


def run(text, seed=0, train=None, valid=None, **changes):
    """Train a small bigram MLP as chapter 04 does, with one thing changed; return its history."""
    train = text[0] if train is None else train
    valid = text[1] if valid is None else valid

    torch.manual_seed(seed)
    model = MLPLM(70, n_embd=16, n_hidden=48)
    options = {"steps": STEPS, "eval_every": STEPS // 8, "seed": seed} | changes
    return train_baseline(model, train, valid, **options)


@pytest.fixture(scope="module")
def band(text, tmp_path_factory):
    """Return the path of a band recorded over eight seeds."""
    path = tmp_path_factory.mktemp("bands") / "small.json"
    bands.record_band("small", [run(text, seed) for seed in range(8)], path, command="a test")
    return path


@pytest.fixture(scope="module")
def correct_run(text):
    """Return the history of a run with a seed that the band has not seen."""
    return run(text, 100)


def judge(history, band):
    return bands.compare_run(history, "small", show=False, path=band)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101, 102])
def test_a_correct_run_with_a_new_seed_is_inside(text, band, seed):
    verdict = judge(run(text, seed), band)

    assert verdict.ok, str(verdict)
    assert verdict.causes == []
    assert "a normal run" in str(verdict)


MISTAKES = {
    "rate a tenth": ({"lr": 1e-3}, diagnosis.LOW_RATE),
    "rate a hundredth": ({"lr": 1e-4}, diagnosis.LOW_RATE),
    "rate three times": ({"lr": 3e-2}, diagnosis.FASTER),
    "rate thirty times": ({"lr": 0.3}, "learning rate too high"),
    "rate a hundred times": ({"lr": 1.0}, "learning rate too high"),
    "no shift": ({"draw": unshifted}, diagnosis.NO_SHIFT),
    "shifted twice": ({"draw": shifted_twice}, diagnosis.TWICE_SHIFTED),
    "shifted backwards": ({"draw": backwards}, diagnosis.WRONG_SHIFT),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_first(text, band, mistake):
    changes, expected = MISTAKES[mistake]

    verdict = judge(run(text, 7, **changes), band)

    assert not verdict.ok
    assert verdict.causes[0].startswith(expected), str(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize("cause", ["ON_VALIDATION", "LITTLE_TEXT", "LEAK"])
def test_training_or_validating_on_the_wrong_text_is_named_first(text, band, cause, seed):
    train, valid = text
    changes = {
        "ON_VALIDATION": {"train": valid},
        "LITTLE_TEXT": {"train": train[:10_000]},
        "LEAK": {"valid": train[100_000:140_000]},
    }[cause]

    verdict = judge(run(text, seed, **changes), band)

    assert not verdict.ok
    assert verdict.causes[0] == getattr(diagnosis, cause), str(verdict)


@pytest.mark.slow
def test_a_loss_of_nan_means_that_the_learning_rate_is_too_high(correct_run, band):
    history = [*correct_run[:-1], {**correct_run[-1], "val_loss": float("nan")}]

    verdict = judge(history, band)

    assert not verdict.ok
    assert verdict.causes[0].startswith("learning rate too high")


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["train_loss", "val_loss"])
def test_a_run_with_only_one_of_the_losses_is_judged_by_it(correct_run, band, missing):
    assert judge([{**record, missing: None} for record in correct_run], band).ok


@pytest.mark.slow
def test_a_mistake_is_named_from_the_training_loss_alone(text, band):
    history = [{**record, "val_loss": None} for record in run(text, lr=1e-4)]

    assert judge(history, band).causes[0] == diagnosis.LOW_RATE


@pytest.mark.slow
def test_a_shorter_run_is_compared_at_the_steps_that_it_has(correct_run, band):
    assert judge(correct_run[:3], band).ok


@pytest.mark.slow
def test_a_run_with_other_steps_is_refused(band):
    with pytest.raises(ValueError, match=r"expected losses at steps \[30, 60"):
        judge([{"step": 31, "train_loss": 1.0, "val_loss": 1.0}], band)


@pytest.mark.slow
def test_the_plot_is_shown_with_the_verdict(correct_run, band, capsys):
    verdict = bands.compare_run(correct_run, "small", path=band)

    assert str(verdict) in capsys.readouterr().out


CORRECT = {"step": 1, "train_loss": 2.0, "val_loss": 2.5}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([[CORRECT]] * 4, "at least 5 runs for a band, got 4"),
        ([[CORRECT]] * 4 + [[{**CORRECT, "step": 2}]], "same steps"),
        ([[CORRECT]] * 4 + [[{**CORRECT, "val_loss": float("inf")}]], "not finite"),
    ],
    ids=["four runs", "other steps", "a loss of infinity"],
)
def test_a_band_of_unsuitable_runs_is_refused(tmp_path, runs, message):
    target = tmp_path / "b.json"

    with pytest.raises(ValueError, match=message):
        bands.record_band("b", runs, target)

    assert not target.exists()


def test_a_band_of_five_equal_runs_has_the_minimum_width(tmp_path):
    target = tmp_path / "b.json"

    written = bands.record_band("b", [[CORRECT]] * 5, target, command="by hand")

    assert json.loads(target.read_text(encoding="utf-8")) == written
    assert written["seeds"] == 5
    assert written["command"] == "by hand"
    assert bands.half_widths(written["val_loss"]) == [pytest.approx(0.002 * 2.5)]


def test_an_unknown_band_is_refused_with_the_names_of_all_bands():
    with pytest.raises(ValueError, match="04_baselines"):
        bands.compare_run([], "no such band")


def test_the_recorded_band_says_how_it_was_made():
    band = bands.load_band("04_baselines")

    assert band["seeds"] >= 5
    assert band["steps"][-1] == 800
    assert band["command"].startswith("python -m courseware.runs.bands record 04_baselines")
    assert {"date", "hardware", "versions"} <= band.keys()
    assert 2.47 < band["val_loss"]["mean"][-1] < 2.51


@pytest.mark.slow
def test_the_run_of_chapter_04_with_a_new_seed_is_inside_its_band():
    verdict = bands.compare_run(bands.RECIPES["04_baselines"](1234), "04_baselines", show=False)

    assert verdict.ok, str(verdict)
