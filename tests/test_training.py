"""Chapter 10: the optimizer, the schedule, micro-batches, precision; the settings of the chapter's own run."""

from __future__ import annotations

import ast

import nbformat
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from training_runs import TOKENS, equal, losses, plan, tiny, weights

from courseware import paths
from courseware.runs import bands
from minigpt_lib.data import get_batch
from minigpt_lib.optimizer import AdamW, get_cosine_schedule_with_warmup
from minigpt_lib.training import TrainConfig, Trainer, accumulate_gradients

# ---------------------------------------------------------------- the optimizer and the schedule


@settings(max_examples=40, deadline=None)
@given(
    lr=st.floats(1e-5, 1.0),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
    eps=st.floats(1e-12, 1.0),
    decay=st.floats(0, 1),
    steps=st.integers(1, 8),
    seed=st.integers(0, 2**31),
)
def test_adamw_agrees_with_pytorchs_for_any_settings(lr, betas, eps, decay, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(5, generator=generator).double()

    found = []
    for kind in (AdamW, torch.optim.AdamW):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], lr=lr, betas=betas, eps=eps, weight_decay=decay)
        generator = torch.Generator().manual_seed(seed + 1)
        for step in range(steps):
            size = 10.0 ** (step % 5 - 2)
            weight.grad = torch.randn(5, generator=generator).double() * size
            optimizer.step()
        found.append(weight.detach())

    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_adamw_goes_on_from_a_saved_state():
    model = tiny(0)
    other = tiny(0)
    one = AdamW(model.parameters(), lr=0.01)
    two = AdamW(other.parameters(), lr=0.01)

    def update(model, optimizer, step):
        torch.manual_seed(step)
        optimizer.zero_grad()
        batch = get_batch(TOKENS, 2, 8, torch.Generator().manual_seed(step))
        model(*batch)[1].backward()
        optimizer.step()

    for step in range(6):
        update(model, one, step)
        update(other, two, step)
        if step == 2:
            saved = two.state_dict()
            two = AdamW(other.parameters(), lr=0.5)
            two.load_state_dict(saved)

    assert equal(weights(model), weights(other))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data(), st.floats(0, 1))
def test_the_learning_rate_rises_to_its_maximum_and_falls_to_its_floor(total, data, floor):
    warmup = data.draw(st.integers(0, total - 1))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, total, floor)

    rates = []
    for _ in range(total + 3):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()

    assert all(a <= b + 1e-12 for a, b in zip(rates[:warmup], rates[1 : warmup + 1]))
    assert all(a >= b - 1e-12 for a, b in zip(rates[warmup:], rates[warmup + 1 :]))
    assert min(rates) > 0 or floor == 0
    assert warmup == 0 or (rates[0] == 1 / warmup and rates[warmup - 1] == 1)
    assert rates[warmup] == pytest.approx(1)
    assert total - 1 <= warmup or rates[total - 1] == pytest.approx(floor)
    assert rates[-1] == pytest.approx(floor)


# ---------------------------------------------------------------- micro-batches

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.floats(0, 1))  # B, T, share masked


@settings(max_examples=30, deadline=None)
@given(st.lists(SHAPES, min_size=1, max_size=5), st.integers(0, 2**31), st.booleans())
def test_micro_batches_of_any_lengths_give_the_gradient_of_one_batch(shapes, seed, double):
    dtype, tolerance = (torch.float64, 1e-12) if double else (torch.float32, 1e-6)
    model = tiny(seed, dropout=0.0).to(dtype)
    generator = torch.Generator().manual_seed(seed)

    def loss_of(x, y, reduction="mean"):  # MiniGPT's own loss is always in float32
        return cross_entropy(model(x)[0].flatten(0, 1), y.flatten(), reduction=reduction)

    batches = []
    for rows, length, share in shapes:
        x, y = get_batch(TOKENS, rows, length, generator)
        masked = torch.rand(y.shape, generator=generator) < share
        batches.append((x, y.masked_fill(masked, -100)))

    total = torch.zeros((), dtype=dtype)
    count = 0
    for x, y in batches:
        total = total + loss_of(x, y, "sum")
        count += int((y != -100).sum())

    loss = accumulate_gradients(loss_of, batches)

    found = [weight.grad for weight in model.parameters()]
    if not count:
        assert loss.item() == 0
        assert found == [None] * len(found)
        return
    expected = torch.autograd.grad(total / count, list(model.parameters()), allow_unused=True)
    assert abs(loss.item() - total.item() / count) < tolerance * 5
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=tolerance * 5, atol=tolerance)


def test_three_micro_batches_train_like_one_batch_of_three_times_the_size():
    """The weights agree after 20 steps, within the precision of float32."""
    generator = torch.Generator().manual_seed(3)
    batches = [get_batch(TOKENS, 6, 8, generator) for _ in range(20)]
    masks = torch.rand(20, 6, 8, generator=generator) < 0.5
    batches = [(x, y.masked_fill(mask, -100)) for (x, y), mask in zip(batches, masks)]

    results = []
    for pieces in (1, 3):
        parts = iter([part for x, y in batches for part in zip(x.chunk(pieces), y.chunk(pieces))])
        trainer = Trainer(
            tiny(dropout=0.0),
            plan(accumulate=pieces, save_every=0),
            TOKENS,
            draw=lambda *_, parts=parts: next(parts),
        )
        results.append((losses(trainer.train()), weights(trainer.model)))

    (whole_losses, whole_weights), (cut_losses, cut_weights) = results
    assert whole_losses == pytest.approx(cut_losses, abs=1e-5)
    for one, other in zip(whole_weights, cut_weights):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


# ---------------------------------------------------------------- precision and compilation


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bits_learn_as_well_as_32(precision):
    text = torch.arange(4000) % 11

    ends = []
    for kind in (precision, "float32"):
        config = plan(steps=60, precision=kind, lr=1e-2, save_every=0)
        history = Trainer(tiny(dropout=0.0), config, text, text[:200]).train()
        ends.append(history[-1]["val_loss"])

    assert max(ends) < 1.0
    assert abs(ends[0] - ends[1]) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_model_has_the_same_losses(monkeypatch, precision):
    """The model is traced by torch.compile, without a compiler behind it."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="eager"))

    runs = []
    for option in (True, False):
        config = plan(compile=option, steps=5, precision=precision, save_every=0)
        trainer = Trainer(tiny(dropout=0.0), config, TOKENS, TOKENS[:99])
        runs.append(losses(trainer.train()))

    assert runs[0] == pytest.approx(runs[1], abs=1e-3)


# ---------------------------------------------------------------- the chapter's own run


def notebook_call(name):
    """Return the keyword arguments of the notebook's call of `name`, as plain values."""
    cells = nbformat.read(paths.NOTEBOOKS / "10_training.ipynb", 4).cells
    for cell in cells:
        if cell.cell_type != "code":
            continue
        if not cell.source.startswith("config = "):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
                return {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    raise AssertionError(f"the notebook has no {name}")


def test_the_band_was_recorded_with_the_settings_of_the_notebook():
    changes = {"sample_every": 100, "save_every": 500, "progress": False}

    assert TrainConfig(**notebook_call("TrainConfig")) == bands.training_config(**changes)
