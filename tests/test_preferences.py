"""Chapter 15: the loss and its gradient are trl's; pairs and references are checked."""

from __future__ import annotations

import contextlib
import math
import types
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from preference_pairs import CHAT, ROWS, dataset, message, pair, plan, tiny

from courseware.checks.refusals import refused
from courseware.material.peers import as_gpt2
from minigpt_lib import preferences
from minigpt_lib.model import MiniGPT
from minigpt_lib.preferences import (
    PreferenceDataset,
    dpo_loss,
    fault_of_pair,
    fingerprint,
    make_pairs,
    optimal_policy,
    sample_answers,
    sequence_log_probs,
    train_dpo,
)

# ---------------------------------------------------------------- the loss, compared with trl


class Accelerator:
    """What trl's trainer needs of Accelerate on one CPU."""

    device = "cpu"

    def gather(self, values):
        return values

    gather_for_metrics = gather


def rows_for_trl(data, precomputed):
    """Return the pairs of a data set as trl wants them, perhaps with the reference's log-probabilities."""
    rows = []
    for i, ((x, y), (_, rejected_y)) in enumerate(data.items):
        start = next(t for t, label in enumerate(y.tolist()) if label != -100)
        row = {
            "prompt_ids": x.tolist()[: start + 1],
            "chosen_ids": [label for label in y.tolist() if label != -100],
            "rejected_ids": [label for label in rejected_y.tolist() if label != -100],
        }
        if precomputed:
            chosen, rejected = data.reference[i].tolist()
            row |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        rows.append(row)
    return rows


def trl_loss(policy, reference, data, beta, precomputed):
    """Return loss, metrics and the gradient of the token table, as trl's DPOTrainer computes them."""
    dpo = pytest.importorskip("trl.trainer.dpo_trainer")
    from trl.trainer.utils import add_fused_lm_head

    model = as_gpt2(policy)
    reference_model = as_gpt2(reference)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    add_fused_lm_head(reference_model)
    inputs = dpo.DataCollatorForPreference(pad_token_id=0)(rows_for_trl(data, precomputed))

    trainer = types.SimpleNamespace(
        model=model.train(False),
        ref_model=reference_model,
        accelerator=Accelerator(),
        beta=beta,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=precomputed,
        label_smoothing=0.0,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        use_weighting=False,
        args=types.SimpleNamespace(
            gradient_checkpointing=False, gradient_checkpointing_kwargs=None
        ),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    loss = dpo.DPOTrainer._compute_loss(trainer, model, inputs, False)
    loss.backward()
    return loss.item(), trainer._metrics["eval"], model.transformer.wte.weight.grad


@pytest.mark.parametrize("precomputed", [True, False])
@pytest.mark.parametrize("beta", [0.1, 0.6])
def test_loss_rewards_and_gradient_agree_with_trl(beta, precomputed):
    reference = tiny(0)
    policy = tiny(1)
    data = dataset()
    data.use_reference(reference)
    theirs, metrics, gradient = trl_loss(policy, reference, data, beta, precomputed)

    x, numbers, options = data.batch(range(4))
    sums = sequence_log_probs(policy, x, options["targets"])
    ours = dpo_loss(*sums.chunk(2), *options["reference"].T, beta)
    ours.loss.backward()

    assert ours.loss.item() == pytest.approx(theirs, rel=1e-4, abs=1e-4)
    for name, value in (
        ("rewards/chosen", ours.chosen_reward.mean()),
        ("rewards/rejected", ours.rejected_reward.mean()),
        ("rewards/margins", ours.margin.mean()),
        ("rewards/accuracies", ours.accuracy),
        ("logps/chosen", sums[:4].mean().item()),
        ("logps/rejected", sums[4:].mean().item()),
    ):
        assert float(value) == pytest.approx(metrics[name][0], rel=1e-4, abs=1e-3), name
    torch.testing.assert_close(policy.embedding.weight.grad, gradient, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- properties of the loss

LOG_PROBS = st.floats(-80, 80)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(LOG_PROBS, LOG_PROBS, LOG_PROBS, LOG_PROBS), min_size=1, max_size=6),
    st.floats(0.01, 2),
)
def test_the_loss_falls_with_the_margin_and_ignores_a_fall_of_both_answers(rows, beta):
    chosen, rejected, *reference = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*rows)
    )

    result = dpo_loss(chosen, rejected, *reference, beta)
    better = dpo_loss(chosen + 1, rejected, *reference, beta)
    both_fall = dpo_loss(chosen - 9, rejected - 9, *reference, beta)

    assert math.isfinite(result.loss)
    assert result.loss >= 0
    assert better.loss < result.loss or result.loss < 1e-12
    assert both_fall.loss.item() == pytest.approx(result.loss.item(), rel=1e-9, abs=1e-9)
    assert both_fall.chosen_reward.mean() < result.chosen_reward.mean()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 5))
def test_the_optimal_policy_minimizes_the_expected_loss(seed, beta):
    """Under choices between all pairs with the probabilities of Bradley and Terry, its gradient is 0."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(-1)
    rewards = torch.randn(5, generator=generator, dtype=torch.float64)
    policy = optimal_policy(reference, rewards, beta).requires_grad_()

    total = 0.0
    for i in range(5):
        for j in range(5):
            probability = torch.sigmoid(rewards[i] - rewards[j])
            four = (values[k].reshape(1) for values in (policy, reference) for k in (i, j))
            total = total + probability * dpo_loss(*four, beta).loss
    (gradient,) = torch.autograd.grad(total, policy)

    assert gradient.abs().max() < 1e-9


# ---------------------------------------------------------------- pairs


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.text(max_size=12),
    st.text(max_size=12),
    st.lists(st.sampled_from(["system", "user", "assistant", "cook"]), max_size=4),
)
def test_only_the_text_and_the_end_of_an_answer_are_learned(chosen, rejected, roles):
    row = pair([message(role, "so it is <|im_end|>") for role in roles], chosen, rejected)
    if fault_of_pair(row):
        refused("no pair is left", PreferenceDataset, [row], CHAT, 512)
        return

    _, y = PreferenceDataset([row], CHAT, 512).items[0][0]

    learned = [label for label in y.tolist() if label != -100]
    assert learned == [*CHAT.encode(chosen), CHAT.end]
    assert not CHAT.controls & set(learned[:-1])


def test_rows_may_have_more_columns_and_malformed_ones_are_counted():
    rows = [ROWS[0] | {"score_chosen": 8.0}, ROWS[1] | {"chosen": None}, None, {}, ROWS[2]]

    report = PreferenceDataset(rows, CHAT, 64).report

    assert report == {
        "pairs": 5,
        "kept": 2,
        "not a list of messages": 1,
        "a row without prompt, chosen and rejected": 2,
    }


def test_sampled_answers_are_reproducible():
    model = tiny()
    prompts = [row["prompt"] for row in ROWS]

    answers = sample_answers(model, CHAT, prompts, 3, max_new_tokens=6)

    assert answers == sample_answers(model, CHAT, prompts, 3, max_new_tokens=6)


def test_pairs_are_made_of_the_answers_that_the_judge_likes_most_and_least():
    prompts = [row["prompt"] for row in ROWS]
    texts = [["short", "a longer answer", None], ["same", "size"], [None] * 3, ["x"]]

    pairs, report = make_pairs(tiny(), CHAT, prompts, lambda p, text: -len(text), answers=texts)

    made = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in pairs]
    assert made == [("short", "a longer answer")]
    assert report == {"prompts": 4, "pairs": 1, "no whole turn": 4, "all equally good": 3}
    assert not any(map(fault_of_pair, pairs))


# ---------------------------------------------------------------- references


def test_a_reference_belongs_to_its_model_and_pairs(tmp_path):
    model = tiny()
    data = dataset()
    data.use_reference(model, tmp_path / "kept.pt")

    with torch.no_grad():
        model.embedding.weight[0, 0] += 1e-6

    refused("another reference model", dataset().use_reference, model, tmp_path / "kept.pt")
    refused("another reference", train_dpo, model, model, plan(steps=1), data)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_saved_model_keeps_its_fingerprint(tmp_path):
    model = tiny()

    model.save_pretrained(tmp_path)

    assert fingerprint(MiniGPT.from_pretrained(tmp_path)) == fingerprint(model)


def test_a_reference_on_a_gpu_is_asked_in_the_precision_of_the_run(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch, "autocast", lambda *given: contextlib.nullcontext(asked.append(given))
    )
    model = torch.nn.Embedding(5, 2, device="meta")  # a stand-in for a GPU
    ids = torch.zeros(1, 3, dtype=torch.long, device="meta")

    assert preferences._in_precision(model, "bfloat16")(ids).shape == (1, 3, 2)
    assert asked == [("meta", torch.bfloat16)]
