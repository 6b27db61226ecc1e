"""Chapter 20: recipes, runs, the paired test and the leaderboard, over generated input."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import statistics
import subprocess
import sys

import pytest
import torch
from handlers import handlers_put_back
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import help_of

from courseware import paths
from minigpt_lib import speedrun
from minigpt_lib.speedrun import (
    RECIPES,
    NgramEmbedding,
    Recipe,
    Result,
    Track,
    board_table,
    build,
    code_of,
    enter,
    judge,
    paired_t_test,
    race,
    read_board,
    recipe_of,
    student_p,
    time_to,
)

TINY = Recipe(
    "tiny",
    steps=3,
    batch_size=2,
    block_size=8,
    n_layer=2,
    n_head=2,
    n_embd=16,
    warmup_steps=0,
    precision="float32",
)
TRACK = Track.from_text("to be or not to be, that is the question. " * 30)


def result(seconds, loss):
    return Result("one", 0, seconds, loss, "float32", ((seconds, loss),))


# ---------------------------------------------------------------- recipes and runs


# nanoGPT, README: `train.py config/train_shakespeare_char.py` with the options for a laptop's processor.
NANOGPT = {"steps": 2000, "batch_size": 12, "block_size": 64, "n_layer": 4, "n_head": 4}
NANOGPT |= {"n_embd": 128, "lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1, "clip": 1.0}
NANOGPT |= {"warmup_steps": 100, "min_lr_ratio": 0.1, "schedule": "cosine", "optimizer": "adamw"}
NANOGPT |= {"tie_weights": True, "init_std": 0.02, "stages": (), "precision": "float32"}
SPRINT = Recipe(
    "sprint",
    steps=130,
    batch_size=16,
    block_size=64,
    n_head=2,
    position="rope",
    norm="layer",
    ffn="relu2",
    tie_weights=False,
    init_std=0.044,
    embedding_std=1.0,
    zero_init=True,
    token_shift=True,
    optimizer="muon",
    lr=0.08,
    adamw_lr=0.02,
    betas=(0.9, 0.95),
    momentum=0.8,
    newton_steps=5,
    weight_decay=0.0,
    schedule="linear",
    warmup_steps=0,
    min_lr_ratio=0.1,
    precision="auto",
)


def test_the_recipes_are_those_that_were_measured():
    nanogpt = dataclasses.asdict(RECIPES["nanogpt"])
    assert {name: nanogpt[name] for name in NANOGPT} == NANOGPT
    unused = ("zero_init", "qk_norm", "value_residual", "token_shift", "soft_cap", "compile")
    assert not any(nanogpt[name] for name in unused)
    assert nanogpt["ngrams"] == 1

    expected = [
        Recipe(),
        Recipe("muon", optimizer="muon", lr=0.03, betas=(0.9, 0.95), weight_decay=0.0),
        SPRINT,
        dataclasses.replace(
            SPRINT,
            name="marathon",
            steps=1300,
            batch_size=8,
            block_size=256,
            n_head=4,
            qk_norm=True,
            lr=0.03,
            adamw_lr=0.01,
            momentum=0.95,
            weight_decay=0.1,
            min_lr_ratio=0.0,
            stages=((0.4, 32, 64),),
        ),
        dataclasses.replace(
            SPRINT,
            name="ngrams",
            steps=43,
            batch_size=32,
            token_shift=False,
            ngrams=5,
            adamw_lr=0.03,
        ),
    ]
    assert list(RECIPES.values()) == expected
    assert list(RECIPES) == [recipe.name for recipe in expected]


def test_ngrams_of_a_large_vocabulary_have_rows_although_their_numbers_overflow():
    embedding = NgramEmbedding(200_000, 4, longest=6, rows=30)
    with torch.no_grad():
        for table in embedding.tables:
            torch.nn.init.normal_(table.weight)
    ids = torch.randint(199_000, 200_000, (3, 40), generator=torch.Generator().manual_seed(0))
    found = embedding(ids)
    assert torch.isfinite(found).all()

    later = ids.clone()
    later[:, 20] += 1
    changed = (embedding(later) != found).any(dim=-1).any(dim=0)
    assert not changed[:20].any(), "a token may only see what stands before it"
    assert changed[20:26].all() and not changed[26:].any(), "an n-gram has at most 6 tokens"


def test_a_recipe_with_a_tied_head_starts_at_zero_elsewhere():
    model = build(dataclasses.replace(TINY, ffn="relu2", tie_weights=True, zero_init=True), 9)
    assert model.head is None
    assert model.embedding.weight.any()
    assert not any(block.attention.proj.weight.any() for block in model.blocks)


def test_every_recipe_builds_and_its_code_gives_it_back():
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe_of(code_of(name)) == recipe
        model = build(recipe, 65)
        logits, loss = model(
            torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long)
        )
        assert logits.shape == (1, 8, 65)
        assert math.isfinite(loss.item())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 300), st.integers(0, 50), st.sampled_from(["cosine", "linear"]), st.floats(0, 1)
)
def test_the_rate_rises_then_falls_to_its_end(steps, warmup, schedule, ratio):
    recipe = Recipe(
        steps=steps, warmup_steps=min(warmup, steps - 1), schedule=schedule, min_lr_ratio=ratio
    )
    shares = [recipe.share_at(step) for step in range(steps)]
    peak = recipe.warmup_steps

    assert all(0 <= share <= 1 + 1e-12 for share in shares)
    assert shares[:peak] == sorted(shares[:peak])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert shares[peak] == pytest.approx(1.0)
    if steps - 1 > peak:
        assert shares[-1] == pytest.approx(ratio)


def test_a_run_is_the_same_twice_and_differs_with_the_seed():
    first = race(TINY, TRACK, seed=1)
    again = race(TINY, TRACK, seed=1)
    other = race(TINY, TRACK, seed=2)

    assert first.loss == again.loss
    assert first.loss != other.loss
    assert first.curve == ((first.seconds, first.loss),)


@pytest.mark.parametrize("changes", [{"optimizer": "muon", "lr": 0.05}, {"lr": 0.01}])
def test_a_longer_run_learns(changes):
    recipe = dataclasses.replace(TINY, steps=40, batch_size=8, **changes)
    curve = race(recipe, TRACK, eval_every=10).curve
    losses = [loss for _, loss in curve]

    assert len(curve) == 4
    assert losses[-1] < losses[0] - 0.1
    assert [seconds for seconds, _ in curve] == sorted(seconds for seconds, _ in curve)


def test_the_clock_counts_steps_and_not_evaluations(monkeypatch):
    ticks = iter(range(10**6))
    monkeypatch.setattr("minigpt_lib.training.time.perf_counter", lambda: float(next(ticks)))

    # The Trainer reads its clock twice in a step, so each step takes one second of this clock.
    assert race(TINY, TRACK, eval_every=1).seconds == pytest.approx(3.0)
    staged = dataclasses.replace(TINY, stages=((0.5, 5, 4),))
    assert race(staged, TRACK, eval_every=1).seconds == pytest.approx(3.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=8), st.floats(0, 5))
def test_the_time_to_a_loss_lies_where_the_curve_first_passes_it(losses, goal):
    curve = tuple((float(i + 1), loss) for i, loss in enumerate(losses))
    found = time_to(curve, goal)

    first = next((i for i, loss in enumerate(losses) if loss <= goal), None)
    if first is None:
        assert found == math.inf
    else:
        assert max(1.0, first) <= found <= first + 1


# ---------------------------------------------------------------- the test


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 50), st.integers(1, 60))
def test_p_is_a_probability_that_falls_with_t_and_with_the_degrees(t, freedom):
    assert 0 <= student_p(t, freedom) <= 1
    assert student_p(1.1 * t, freedom) <= student_p(t, freedom) + 1e-12
    assert student_p(t, freedom + 1) <= student_p(t, freedom) + 1e-12
    assert student_p(t, 100_000) >= math.erfc(t / math.sqrt(2)) - 1e-4  # the normal distribution


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=12), st.integers(1, 50))
def test_the_unit_does_not_matter_and_the_sign_only_turns_t(values, unit):
    test = paired_t_test(values)
    scaled = paired_t_test(value * unit for value in values)
    turned = paired_t_test(-value for value in values)

    assert scaled.p == pytest.approx(test.p, abs=1e-9)
    assert turned.p == pytest.approx(test.p, abs=1e-9)
    assert turned.t == pytest.approx(-test.t)
    assert test.mean == pytest.approx(statistics.fmean(values))


def test_under_no_difference_five_in_a_hundred_are_significant():
    draws = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    found = sum(paired_t_test(row.tolist()).p < 0.05 for row in draws)

    assert 0.04 < found / 4000 < 0.06


# ---------------------------------------------------------------- the leaderboard


def test_a_verdict_needs_every_loss_and_a_clear_time():
    good = [(result(1.0 + i / 50, 1.8), result(15.0 + i, 1.9)) for i in range(5)]

    assert judge(good).passed
    assert not judge([*good[:4], (result(1.0, 1.95), result(15.0, 1.9))]).passed
    assert not judge([(theirs, ours) for ours, theirs in good]).passed
    noisy = [(result(seconds, 1.8), result(10.0, 1.9)) for seconds in (1.0, 30.0, 2.0, 25.0, 9.0)]
    assert not judge(noisy).passed


def test_an_entry_is_run_again_from_the_code_on_the_board(tmp_path, monkeypatch):
    board = tmp_path / "board.jsonl"
    seen = []

    def in_turns(recipe, baseline, seeds, track):
        seen.append((recipe.lr, list(seeds)))
        if (
            len(seen) == 1
        ):  # between the two rounds somebody may edit a file; the board is what counts
            (tmp_path / "mine.py").write_text("RECIPE = None", encoding="utf-8")
        return [(result(1.0 + i / 50, 1.8), result(15.0, 1.9)) for i in seeds]

    monkeypatch.setattr(speedrun, "paired", in_turns)
    file = tmp_path / "mine.py"
    file.write_text(
        "from minigpt_lib.speedrun import Recipe\nRECIPE = Recipe('mine', lr=0.5)\n",
        encoding="utf-8",
    )
    entry = enter(code_of(str(file)), board, 3, tell=lambda line: None)

    assert seen == [(0.5, [0, 1, 2]), (0.5, [3, 4, 5])]
    assert entry["counts"]
    (read,) = read_board(board)
    assert read == json.loads(json.dumps(entry))
    assert board_table([read]).startswith("  1")


def test_a_damaged_board_is_named_and_left_alone(tmp_path):
    board = tmp_path / "board.jsonl"
    board.write_text('{"name": "x"}\n', encoding="utf-8")

    with pytest.raises(ValueError, match="line 1"):
        read_board(board)
    assert board.read_text(encoding="utf-8") == '{"name": "x"}\n'


@pytest.mark.slow
def press_ctrl_c_at(monkeypatch, step):
    """Let the batch of this step, the first is 0, come with Ctrl-C."""
    usual = speedrun.get_batch
    calls = iter(range(10_000))

    def pressed(*arguments):
        if next(calls) == step:
            signal.raise_signal(signal.SIGINT)
        return usual(*arguments)

    monkeypatch.setattr(speedrun, "get_batch", pressed)


@pytest.mark.parametrize(("step", "eval_every"), [(0, 0), (1, 1)])
def test_a_run_that_was_broken_off_is_no_result(monkeypatch, step, eval_every):
    press_ctrl_c_at(monkeypatch, step)
    with handlers_put_back():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            race(TINY, TRACK, eval_every=eval_every)


def test_ctrl_c_ends_the_command_with_a_line_and_leaves_the_board(monkeypatch, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("to be or not to be " * 50, encoding="utf-8")
    code = f"from minigpt_lib.speedrun import Recipe\nRECIPE = {TINY!r}\n"
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    press_ctrl_c_at(monkeypatch, 1)
    arguments = ["--recipe", "mine.py", "--baseline", "mine.py", "--text", "text.txt"]
    monkeypatch.chdir(tmp_path)
    with handlers_put_back():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(SystemExit) as stopped:
            speedrun.speedrun_main(arguments)

    assert stopped.value.code == 130
    assert "doesn't count" in capsys.readouterr().out
    assert not (tmp_path / "leaderboard.jsonl").exists()


def test_the_command_takes_a_file_that_imports_the_library(tmp_path):
    recipe = (
        "from minigpt_lib.speedrun import Recipe\n"
        "RECIPE = Recipe({name!r}, steps={steps}, batch_size=2, block_size=8, n_layer=1, n_head=1, n_embd=8,\n"
        "                warmup_steps=0, lr={lr})\n"
    )
    for name, steps, lr in (("fast", 2, 1e-2), ("slow", 30, 1e-5)):
        code = recipe.format(name=name, steps=steps, lr=lr)
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    (tmp_path / "text.txt").write_text("to be or not to be. " * 40, encoding="utf-8")
    words = ["--recipe", "fast.py", "--baseline", "slow.py", "--text", "text.txt", "--seeds", "2"]

    done = subprocess.run(
        [sys.executable, "-m", "minigpt_lib.speedrun", *words, "--threads", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(paths.CODE)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    assert "of slow's time" in done.stdout
    assert len(read_board(tmp_path / "leaderboard.jsonl")) == 1


def test_the_module_is_a_program():
    assert help_of("minigpt_lib.speedrun").startswith("usage: python -m minigpt_lib.speedrun ")
