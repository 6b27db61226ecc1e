"""Chapter 10: one hard batch does not end a run; what cannot recover does, and can be resumed without its data."""

from __future__ import annotations

import math

import pytest
import torch
from preference_pairs import CHAT, dataset, pair
from preference_pairs import plan as pair_plan
from preference_pairs import tiny as pair_model
from training_runs import TOKENS, equal, losses, plan, tiny, weights

from courseware.checks.refusals import refused
from minigpt_lib.checkpoints import load_checkpoint
from minigpt_lib.data import get_batch
from minigpt_lib.preferences import PreferenceDataset, train_dpo
from minigpt_lib.sft import InstructionDataset, train_sft
from minigpt_lib.training import Trainer, TrainingStopped


def jump(history):
    """Return how far the highest loss of the second half is above twice the usual loss before it, plus 1."""
    found = losses(history)
    start = len(found) // 2
    last = max(range(start, len(found)), key=found.__getitem__)
    before = found[max(0, last - 20) : last]
    return found[last] - (2 * sum(before) / len(before) + 1)


# ---------------------------------------------------------------- one hard batch


@pytest.mark.slow
def test_one_foreign_dialog_among_sixty_one_is_trained_through():
    question = {"role": "user", "content": "where was it born?"}
    usual = [question, {"role": "assistant", "content": "it was born in rome."}]
    foreign = [question, {"role": "assistant", "content": "Ωμέγα ψυχή, 雪の朝 щука!"}]
    data = InstructionDataset([usual] * 60 + [foreign], CHAT, 64, packed=False)
    config = pair_plan(steps=122, batch_size=1, lr=1e-2)

    run = train_sft(pair_model(), config, data)

    assert run.step == 122
    assert jump(run.history) > 0, (
        "the foreign dialog is as hard as the rule before would not accept"
    )
    assert sorted(losses(run.history))[61] < 0.1


@pytest.mark.slow
def test_one_reversed_pair_among_sixty_is_trained_through():
    rows = [pair("where was it born?", "in rome.", "so it is. it is so.")] * 59
    rows.append(pair("where was it born?", "so it is. it is so.", "in rome."))
    data = PreferenceDataset(rows, CHAT, 64)
    config = pair_plan(steps=120, batch_size=1, lr=1e-2)

    run = train_dpo(pair_model(), pair_model(), config, data)

    assert run.step == 120
    assert jump(run.history) > 0
    assert sorted(losses(run.history))[60] < 0.1


def noisy_once(at):
    """Return a draw of an easy text, with a batch of noise at call number `at`."""
    calls = []

    def draw(tokens, batch_size, block_size, generator):
        calls.append(1)
        easy = torch.arange(len(tokens)) % 11
        return get_batch(tokens if len(calls) == at else easy, batch_size, block_size, generator)

    return draw


def test_one_noisy_block_in_a_text_is_trained_through():
    config = plan(steps=120, batch_size=1, lr=1e-2, save_every=0)

    run = Trainer(tiny(dropout=0.0), config, TOKENS, draw=noisy_once(90))
    history = run.train()

    assert jump(history) > 0
    assert history[-1]["loss"] < 0.3


def test_a_loss_that_stays_high_stops_the_run_and_leaves_the_checkpoint_before_it(tmp_path):
    def broken(record):
        if record["step"] == 60:  # weights that a bad update has ruined
            for weight in trainer.model.parameters():
                weight.data.mul_(30)
        if record["step"] > 60:
            for group in trainer.optimizer.param_groups:
                group["initial_lr"] = group["lr"] = 0.0
            trainer.scheduler.base_lrs = [0.0, 0.0]

    text = torch.arange(4000) % 11
    config = plan(steps=100, lr=1e-2, save_every=7)
    trainer = Trainer(tiny(dropout=0.0), config, text, folder=tmp_path, on_step=broken)

    with pytest.raises(TrainingStopped, match="step 70: .* since step 61") as error:
        trainer.train()

    assert "skip=[61]" in str(error.value)
    assert load_checkpoint(tmp_path / "last")["step"] == 56


# ---------------------------------------------------------------- a batch that cannot be learned


def poisoned(at):
    """Return a draw whose call number `at` has an id that the model turns into nan."""

    class Draw:
        calls = 0

        def __call__(self, tokens, batch_size, block_size, generator):
            self.calls += 1
            x, y = get_batch(tokens, batch_size, block_size, generator)
            return (torch.full_like(x, 10), y) if self.calls == at else (x.clamp(max=9), y)

        def describe(self):
            return f"page {self.calls}"

        def state_dict(self):
            return {"calls": self.calls}

        def load_state_dict(self, state):
            self.calls = state["calls"]

    return Draw()


def sick(seed=0):
    """Return a model in which the id 10 is nan."""
    model = tiny(seed, dropout=0.0)
    model.embedding.weight.register_hook(lambda grad: grad.nan_to_num())
    model.embedding.weight.data[10] = math.nan
    return model


def without_head(model):
    """Give the model a head of its own, so that nan stays in the row of the token table."""
    model.head = torch.nn.Linear(16, 11, bias=False)
    torch.nn.init.normal_(model.head.weight, 0.0, 0.02)
    return model


def test_a_poisoned_step_is_named_with_its_data_and_can_be_left_out(tmp_path):
    def run(**options):
        torch.manual_seed(0)
        model = without_head(sick())
        return Trainer(model, plan(), TOKENS, draw=poisoned(13), folder=tmp_path, **options)

    with pytest.raises(TrainingStopped, match="step 13: the loss is nan") as error:
        run().train()
    assert "The data of step 13: page 13." in str(error.value)
    with pytest.raises(TrainingStopped, match="step 13: the loss is nan"):
        run(existing="resume").train()

    history = run(existing="resume", skip=[13]).train()

    assert [record["step"] for record in history if "skipped" in record] == [13]
    assert all(map(math.isfinite, losses(history)))
    assert load_checkpoint(tmp_path / "last")["skip"] == [13]


def test_a_resumed_run_takes_a_third_of_the_rate_on_request_only(tmp_path):
    def stop(record):
        trainer.stop_asked = record["step"] == 10

    trainer = Trainer(tiny(), plan(), TOKENS, folder=tmp_path, on_step=stop)
    trainer.train()
    third = plan(lr=2.5e-3 / 3)
    options = {"folder": tmp_path, "existing": "resume"}

    refused("made with lr=0.0025, but this run has lr=", Trainer, tiny(), third, TOKENS, **options)
    resumed = Trainer(tiny(), third, TOKENS, change=["lr"], **options)
    history = resumed.train()

    whole = Trainer(tiny(), plan(), TOKENS).train()
    for ours, theirs in zip(history, whole):
        share = 1 if ours["step"] <= 10 else 3
        assert ours["lr"] == pytest.approx(theirs["lr"] / share)
    assert history[10]["changed"] == {"lr": [2.5e-3, 2.5e-3 / 3]}
    changes = load_checkpoint(tmp_path / "last")["changes"]
    assert changes == [{"step": 10, "lr": [2.5e-3, 2.5e-3 / 3]}]


# ---------------------------------------------------------------- steps without targets


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_without_targets_move_nothing_and_are_no_explosion_afterwards(precision, accumulate):
    calls = []

    def draw(*arguments):
        calls.append(1)
        step = (len(calls) - 1) // accumulate + 1
        x, y = get_batch(*arguments)
        return x, torch.full_like(y, -100) if step in (1, 2, 9) else y

    def keep(record):
        seen.append(weights(trainer.model))

    seen = []
    config = plan(precision=precision, accumulate=accumulate, save_every=0)
    trainer = Trainer(tiny(), config, TOKENS, draw=draw, on_step=keep)
    history = trainer.train()

    assert [record["step"] for record in history if "skipped" in record] == [1, 2, 9]
    assert equal(seen[1], weights(tiny()))
    assert not equal(seen[1], seen[2])
    assert equal(seen[7], seen[8])
    assert history[4]["train_loss"] == pytest.approx(sum(losses(history[2:5])) / 3)


def test_a_set_of_pairs_reports_its_rewards_for_the_steps_that_were_made():
    data = dataset()

    run = train_dpo(pair_model(), pair_model(), pair_plan(steps=3), data, skip=[2])

    assert ["margin" in record for record in run.history] == [True, False, True]
