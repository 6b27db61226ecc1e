"""Loss bands of a transformer: each common mistake, really trained by `Trainer`, is named first."""

from __future__ import annotations

import ast
import re

import nbformat
import pytest
import torch
import torch.nn.functional as F
from tools import backwards, shifted_twice, unshifted

from courseware import paths
from courseware.runs import bands, diagnosis
from minigpt_lib.attention import CausalSelfAttention
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.data import get_batch, load_text, train_val_split
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig, Trainer

STEPS = 300


@pytest.fixture(scope="module")
def text():
    """Return a twelfth of the plays, as training and validation tokens."""
    whole = load_text()
    tokenizer = CharTokenizer.from_text(whole)
    train, valid = train_val_split(torch.tensor(tokenizer.encode(whole)))
    return train[:360_000], valid[:20_000]


def run(text, seed=0, train=None, valid=None, draw=get_batch, **changes):
    """Train a small transformer as chapter 10 does, with one thing changed; return the losses that a band compares."""
    train = text[0] if train is None else train
    valid = text[1] if valid is None else valid
    options = {
        "steps": STEPS,
        "warmup_steps": STEPS // 10,
        "eval_every": STEPS // 10,
        "batch_size": 16,
        "block_size": 32,
        "lr": 5e-3,
        "precision": "float32",
        "seed": seed,
        "progress": False,
    }

    torch.manual_seed(seed)
    model = MiniGPT(
        GPTConfig.preset("laptop", n_embd=48, n_layer=2, n_head=3, max_seq_len=32, init_std=0.14)
    )
    history = Trainer(model, TrainConfig(**options | changes), train, valid, draw=draw).train()
    return [record for record in history if "train_loss" in record]


@pytest.fixture(scope="module")
def band(text, tmp_path_factory):
    """Return the path of a band recorded over six seeds."""
    path = tmp_path_factory.mktemp("bands") / "small.json"
    histories = [run(text, seed) for seed in range(6)]
    bands.record_band("small", histories, path, warmup_steps=STEPS // 10)
    return path


def judge(history, band):
    return bands.compare_run(history, "small", show=False, path=band)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101])
def test_a_correct_run_with_a_new_seed_is_inside(text, band, seed):
    verdict = judge(run(text, seed), band)

    assert verdict.ok, str(verdict)


MISTAKES = {
    "rate a tenth": ({"lr": 5e-4}, diagnosis.LOW_RATE),
    "rate ten times": ({"lr": 5e-2}, "learning rate too high"),
    "rate a hundred times": ({"lr": 0.5}, "learning rate too high"),
    "no warm-up": ({"warmup_steps": 0}, diagnosis.NO_WARMUP),
    "no warm-up, three times the rate": ({"warmup_steps": 0, "lr": 1.5e-2}, diagnosis.NO_WARMUP),
    "no shift": ({"draw": unshifted}, diagnosis.NO_SHIFT),
    "shifted backwards": ({"draw": backwards}, diagnosis.NO_SHIFT),
    "shifted twice": ({"draw": shifted_twice}, diagnosis.TWICE_SHIFTED),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_first(text, band, mistake):
    changes, expected = MISTAKES[mistake]

    verdict = judge(run(text, 100, **changes), band)

    assert not verdict.ok
    assert verdict.causes[0].startswith(expected), str(verdict)


@pytest.mark.slow
def test_a_missing_mask_is_named_first(text, band, monkeypatch):
    def sees_all(self, x, mask=None, rotary=None, cache=None):
        y = F.scaled_dot_product_attention(*self._heads(x, rotary, cache))
        return self.proj(y.transpose(1, 2).flatten(2))

    monkeypatch.setattr(CausalSelfAttention, "forward", sees_all)
    verdict = judge(run(text, 100), band)

    assert not verdict.ok
    assert verdict.causes[0] == diagnosis.NO_MASK, str(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("cause", ["ON_VALIDATION", "LITTLE_TEXT", "LEAK"])
def test_training_or_validating_on_the_wrong_text_is_named_first(text, band, cause):
    train, valid = text
    changes = {
        "ON_VALIDATION": {"train": valid},
        "LITTLE_TEXT": {"train": train[:10_000]},
        "LEAK": {"valid": train[100_000:120_000]},
    }[cause]

    verdict = judge(run(text, 100, **changes), band)

    assert not verdict.ok
    assert verdict.causes[0] == getattr(diagnosis, cause), str(verdict)


def test_a_band_of_fewer_seeds_is_wider_until_ten_seeds():
    curve = {"mean": [2.0], "std": [0.1]}

    widths = [bands.half_widths(curve, seeds)[0] for seeds in (5, 6, 8, 10, 30)]

    assert widths == sorted(widths, reverse=True)
    assert widths[0] == pytest.approx(8.61 * (1 + 1 / 5) ** 0.5 * 0.1)
    assert widths[3] == widths[4]
    assert widths[4] == pytest.approx(0.5013, abs=1e-4)


def test_the_recorded_band_is_clearly_below_the_baselines():
    band = bands.load_band("10_training")

    assert band["seeds"] >= 5
    assert band["steps"][-1] == bands.training_config().steps
    assert band["val_loss"]["mean"][-1] < 1.6, "the baselines of chapter 04 reach 2.49 and 1.87"


def config_of_chapter_10() -> dict:
    """Return the arguments of `config = TrainConfig(...)` in the notebook."""
    notebook = nbformat.read(paths.NOTEBOOKS / "10_training.ipynb", as_version=4)
    source = next(
        cell.source
        for cell in notebook.cells
        if re.search(r"^config = TrainConfig\(", cell.source, re.M)
    )
    call = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "config"
    )
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}


def test_the_band_was_recorded_with_the_settings_of_chapter_10():
    only_shown = {"sample_every", "save_every", "progress"}  # no influence on what is learned
    expected = {
        name: value for name, value in config_of_chapter_10().items() if name not in only_shown
    }

    config = bands.training_config()

    assert {name: getattr(config, name) for name in expected} == expected
