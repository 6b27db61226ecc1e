"""Loss bands: a sound run is inside, and each usual mistake, really trained, is named first."""

import json

import pytest
import torch
from tools import backwards, shifted_twice, unshifted

from courseware import bands, diagnosis
from minigpt_lib.baselines import MLPLM, train_baseline
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.data import load_text, train_val_split

STEPS = 240


@pytest.fixture(scope="module")
def text():
    """A twelfth of the plays, from two ends of the corpus, as tokens to train and to validate."""
    whole = load_text()
    tokenizer = CharTokenizer.from_text(whole)
    train, valid = train_val_split(torch.tensor(tokenizer.encode(whole)))
    return train[:360_000], valid[:40_000]


def run(text, seed=0, train=None, valid=None, **changes):
    """Train a small bigram MLP as chapter 04 does, with one thing changed."""
    torch.manual_seed(seed)
    model = MLPLM(70, n_embd=16, n_hidden=48)
    options = {"steps": STEPS, "eval_every": STEPS // 8, "seed": seed} | changes
    parts = (text[0] if train is None else train, text[1] if valid is None else valid)
    return train_baseline(model, *parts, **options)


@pytest.fixture(scope="module")
def band(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("bands") / "small.json"
    bands.record_band("small", [run(text, seed) for seed in range(8)], path, command="a test")
    return path


def judge(history, band):
    return bands.compare_run(history, "small", show=False, path=band)


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_a_sound_run_with_a_new_seed_is_inside(text, band, seed):
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


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_first(text, band, mistake):
    changes, expected = MISTAKES[mistake]
    verdict = judge(run(text, 7, **changes), band)
    assert not verdict.ok
    assert verdict.causes[0].startswith(expected), str(verdict)


@pytest.mark.parametrize("seed", [7, 8])
def test_wrong_parts_of_the_text_are_named_first(text, band, seed):
    train, valid = text
    cases = {
        diagnosis.ON_VALIDATION: {"train": valid},
        diagnosis.LITTLE_TEXT: {"train": train[:10_000]},
        diagnosis.LEAK: {"valid": train[100_000:140_000]},
    }
    for expected, changes in cases.items():
        verdict = judge(run(text, seed, **changes), band)
        assert not verdict.ok and verdict.causes[0] == expected, f"{changes.keys()}: {verdict}"


def test_a_loss_that_is_not_a_number_is_a_rate_too_high(text, band):
    history = run(text)
    history[-1]["val_loss"] = float("nan")
    verdict = judge(history, band)
    assert not verdict.ok and verdict.causes[0].startswith("learning rate too high")


def test_a_run_with_only_one_of_the_losses_is_judged_by_it(text, band):
    whole = run(text, 100)
    for key in ("train_loss", "val_loss"):
        assert judge([{**record, key: None} for record in whole], band).ok
    slow = [{**record, "val_loss": None} for record in run(text, lr=1e-4)]
    assert judge(slow, band).causes[0] == diagnosis.LOW_RATE


def test_a_shorter_run_is_compared_at_the_steps_it_has(text, band):
    assert judge(run(text, 100)[:3], band).ok
    with pytest.raises(ValueError, match=r"expected losses at steps \[30, 60"):
        judge([{"step": 31, "train_loss": 1.0, "val_loss": 1.0}], band)


def test_the_picture_shows_band_and_run(text, band, capsys):
    verdict = bands.compare_run(run(text, 100), "small", path=band)
    assert str(verdict) in capsys.readouterr().out


def test_a_band_needs_five_equal_sound_runs(tmp_path):
    sound = [{"step": 1, "train_loss": 2.0, "val_loss": 2.5}]
    target = tmp_path / "b.json"
    with pytest.raises(ValueError, match="at least 5 runs for a band, got 4"):
        bands.record_band("b", [sound] * 4, target)
    with pytest.raises(ValueError, match="same steps"):
        bands.record_band("b", [sound] * 4 + [[{**sound[0], "step": 2}]], target)
    with pytest.raises(ValueError, match="not finite"):
        bands.record_band("b", [sound] * 4 + [[{**sound[0], "val_loss": float("inf")}]], target)
    assert not target.exists()
    written = bands.record_band("b", [sound] * 5, target, command="by hand")
    assert json.loads(target.read_text()) == written
    assert written["seeds"] == 5 and written["command"] == "by hand"
    assert bands.half_widths(written["val_loss"]) == [pytest.approx(0.002 * 2.5)]  # the floor


def test_an_unknown_band_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="04_baselines"):
        bands.compare_run([], "no such band")


def test_the_recorded_band_says_how_it_was_made():
    band = bands.load_band("04_baselines")
    assert band["seeds"] >= 5 and band["steps"][-1] == 800
    assert band["command"].startswith("python -m courseware.bands record 04_baselines")
    assert {"date", "hardware", "versions"} <= band.keys()
    assert 2.47 < band["val_loss"]["mean"][-1] < 2.51


@pytest.mark.slow
def test_the_chapters_run_with_a_new_seed_is_inside_its_band():
    verdict = bands.compare_run(bands.RECIPES["04_baselines"](1234), "04_baselines", show=False)
    assert verdict.ok, str(verdict)
