"""Chapter 15: DPO against trl's own code, pairs, kept references, runs that stop, faults the checks catch, the twin."""

import copy
import math
import signal
import subprocess
import sys
import types
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, survives

from courseware.material.peers import as_gpt2
from courseware.widgets.preference_tilt import (
    BETAS,
    draw,
    sentences,
    tilt,
    tilt_data,
    tilt_of,
    worth,
)
from minigpt_lib.bpe import train_bpe
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.preferences import (
    PreferenceDataset,
    dpo_loss,
    fault_of_pair,
    fingerprint,
    make_pairs,
    measure_preferences,
    optimal_policy,
    sample_answers,
    sequence_log_probs,
    train_dpo,
)
from minigpt_lib.sft import ChatTokenizer
from minigpt_lib.training import TrainConfig

TEXT = "where was it born? it was born in rome. it is so. user assistant system\n " * 3
CHAT = ChatTokenizer(train_bpe(TEXT, 330))


def message(role, content):
    return {"role": role, "content": content}


def pair(prompt, chosen, rejected):
    asked = prompt if isinstance(prompt, list) else [message("user", prompt)]
    return {
        "prompt": asked,
        "chosen": [message("assistant", chosen)],
        "rejected": [message("assistant", rejected)],
    }


ROWS = [
    pair("where was it born?", "in rome.", "so it is. it is so."),
    pair([message("user", "is it?"), message("assistant", "so."), message("user", "where?")], "rome.", "it was."),
    pair([message("system", "so it is."), message("user", "it?")], "it is so.", "was"),
    pair("so?", "it is <|im_end|> so.", "no"),
]  # fmt: skip


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    options = {"max_seq_len": 64, "n_embd": 24, "n_layer": 2, "n_head": 3, "ffn": "gelu_tanh"}
    model = MiniGPT(GPTConfig(CHAT.vocab_size, **options | changes))
    for name, weight in model.named_parameters():
        center = 1.0 if "norm" in name and "weight" in name else 0.0
        torch.nn.init.normal_(weight, center, 0.2)
    return model.eval()


def plan(**changes):
    usual = {"warmup_steps": 0, "eval_every": 0, "progress": False, "precision": "float32"}
    return TrainConfig(**usual | {"device": "cpu", "lr": 3e-3, "batch_size": 2} | changes)


# --- the loss, against trl ---


class Accelerator:
    device = "cpu"

    def gather(self, values):
        return values

    gather_for_metrics = gather


def trl_loss(policy, reference, data, beta, precomputed):
    """Return (loss, metrics) as trl's DPOTrainer computes them from the same tokens, by its own code."""
    dpo = pytest.importorskip("trl.trainer.dpo_trainer")
    from trl.trainer.utils import add_fused_lm_head

    rows = []
    for i, two in enumerate(data.items):
        (cx, cy), (rx, ry) = ((x.tolist(), y.tolist()) for x, y in two)
        start = next(t for t, label in enumerate(cy) if label != -100)
        answer = [[label for label in y if label != -100] for y in (cy, ry)]
        row = {"prompt_ids": cx[: start + 1], "chosen_ids": answer[0], "rejected_ids": answer[1]}
        if precomputed:
            numbers = zip(("ref_chosen_logps", "ref_rejected_logps"), data.reference[i].tolist())
            row |= dict(numbers)
        rows.append(row)
    models = as_gpt2(policy), as_gpt2(reference)
    fields = ("log_probs", "entropy", "mean_logits", "is_top1")
    add_fused_lm_head(models[0], outputs=fields)
    add_fused_lm_head(models[1])
    inputs = dpo.DataCollatorForPreference(pad_token_id=0)(rows)
    trainer = types.SimpleNamespace(
        model=models[0].train(False), ref_model=models[1], accelerator=Accelerator(), beta=beta,
        aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=precomputed, label_smoothing=0.0,
        f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0], use_weighting=False,
        args=types.SimpleNamespace(gradient_checkpointing=False, gradient_checkpointing_kwargs=None),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    loss = dpo.DPOTrainer._compute_loss(trainer, models[0], inputs, False)
    loss.backward()
    return loss.item(), trainer._metrics["eval"], models[0].transformer.wte.weight.grad


@pytest.mark.parametrize("precomputed", [True, False])
@pytest.mark.parametrize("beta", [0.1, 0.6])
def test_loss_rewards_and_gradient_are_trls(beta, precomputed):
    reference, policy = tiny(0), tiny(1)
    data = PreferenceDataset(ROWS, CHAT, 64)
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


numbers = st.floats(-80, 80)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=6),
    st.floats(0.01, 2),
)
def test_the_loss_is_finite_and_falls_with_the_margin(rows, beta):
    four = [torch.tensor(column, dtype=torch.float64) for column in zip(*rows)]
    result = dpo_loss(*four, beta)
    assert math.isfinite(result.loss) and result.loss >= 0
    better = dpo_loss(four[0] + 1, *four[1:], beta)
    assert better.loss < result.loss or result.loss < 1e-12
    both = dpo_loss(
        four[0] - 9, four[1] - 9, *four[2:], beta
    )  # both answers fall: all the same to the loss
    assert both.loss.item() == pytest.approx(result.loss.item(), rel=1e-9, abs=1e-9)
    assert both.chosen_reward.mean() < result.chosen_reward.mean()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 5))
def test_enough_choices_lead_to_the_tilt(seed, beta):
    """Bradley and Terry's choices between all pairs, weighted as they happen: the best policy has slope 0."""
    chance = torch.Generator().manual_seed(seed)
    reference = torch.randn(5, generator=chance, dtype=torch.float64).log_softmax(-1)
    rewards = torch.randn(5, generator=chance, dtype=torch.float64)
    policy = optimal_policy(reference, rewards, beta).requires_grad_()
    total = 0.0
    for i in range(5):
        for j in range(5):
            often = torch.sigmoid(rewards[i] - rewards[j])
            four = (values[k].reshape(1) for values in (policy, reference) for k in (i, j))
            total = total + often * dpo_loss(*four, beta).loss
    (slope,) = torch.autograd.grad(total, policy)
    assert slope.abs().max() < 1e-9


# --- pairs and references ---


@settings(max_examples=50, deadline=None)
@given(
    st.text(max_size=12),
    st.text(max_size=12),
    st.lists(st.sampled_from(["system", "user", "assistant", "cook"]), max_size=4),
)
def test_a_pair_without_a_fault_can_be_rendered_and_no_text_is_control(chosen, rejected, roles):
    row = pair([message(role, "so it is <|im_end|>") for role in roles], chosen, rejected)
    if fault_of_pair(row):
        with pytest.raises(ValueError, match="no pair is left"):
            PreferenceDataset([row], CHAT, 512)
        return
    _, y = PreferenceDataset([row], CHAT, 512).items[0][0]
    learned = [label for label in y.tolist() if label != -100]
    assert learned == [*CHAT.encode(chosen), CHAT.end]
    assert not CHAT.controls & set(learned[:-1])


def test_rows_of_the_hub_may_have_more_columns_and_bad_ones_are_counted():
    rows = [ROWS[0] | {"score_chosen": 8.0}, ROWS[1] | {"chosen": None}, None, {}, ROWS[2]]
    report = PreferenceDataset(rows, CHAT, 64).report
    assert report == {
        "pairs": 5,
        "kept": 2,
        "not a list of messages": 1,
        "a row without prompt, chosen and rejected": 2,
    }


def test_a_reference_is_bound_to_its_weights_and_pairs(tmp_path):
    model, data = tiny(), PreferenceDataset(ROWS, CHAT, 64)
    data.use_reference(model, tmp_path / "kept.pt")
    with torch.no_grad():
        model.embedding.weight[0, 0] += 1e-6
    again = PreferenceDataset(ROWS, CHAT, 64)
    with pytest.raises(ValueError, match="another reference model"):
        again.use_reference(model, tmp_path / "kept.pt")
    with pytest.raises(ValueError, match="another reference"):
        train_dpo(model, model, plan(steps=1), data)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_saved_model_keeps_its_fingerprint(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    assert fingerprint(MiniGPT.from_pretrained(tmp_path)) == fingerprint(model)


# --- training ---

KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch, test_preferences as t
torch.set_num_threads({threads})  # the number of threads decides the order of sums
def stop(record):
    if record["step"] == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
model = t.tiny()
t.train_dpo(model, t.tiny(), t.plan(steps=8, save_every=1), t.PreferenceDataset(t.ROWS, t.CHAT, 64),
            folder={folder!r}, existing="resume", on_step=stop)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    from courseware import paths

    for at in (3, 6):
        code = KILLED.format(
            tests=str(paths.ROOT / "tests"),
            at=at,
            folder=str(tmp_path / "killed"),
            threads=torch.get_num_threads(),
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    models = []
    for name in ("killed", "whole"):
        models.append(tiny())
        data = PreferenceDataset(ROWS, CHAT, 64)
        options = {"folder": tmp_path / name, "existing": "resume"}
        run = train_dpo(models[-1], tiny(), plan(steps=8, save_every=1), data, **options)
        assert [record["step"] for record in run.history] == list(range(1, 9))
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_few_steps_teach_the_pairs_and_leave_the_reference(precision):
    reference = tiny()
    mark, model = fingerprint(reference), copy.deepcopy(reference)
    data = PreferenceDataset(ROWS, CHAT, 64)
    run = train_dpo(
        model, reference, plan(steps=25, precision=precision, eval_every=25), data, data, beta=0.2
    )
    assert run.history[0]["loss"] == pytest.approx(math.log(2), abs=0.05)
    assert run.history[-1]["val_accuracy"] == 1.0 and run.history[-1]["val_loss"] < 0.5
    assert fingerprint(reference) == mark != fingerprint(model)
    assert measure_preferences(model, data, 0.2).accuracy == 1.0


def test_a_run_may_begin_elsewhere_than_at_its_reference():
    reference, model = tiny(), tiny(3)
    data = PreferenceDataset(ROWS, CHAT, 64)
    data.use_reference(reference)
    expected = measure_preferences(model, data).loss.item()
    run = train_dpo(model, reference, plan(steps=1, batch_size=4), data)
    assert run.history[0]["loss"] == pytest.approx(expected, abs=1e-4)


def test_the_best_model_on_held_out_pairs_is_kept(tmp_path):
    model, data = tiny(), PreferenceDataset(ROWS, CHAT, 64)
    config = plan(steps=6, eval_every=2, save_every=2)
    run = train_dpo(model, tiny(), config, data, data, folder=tmp_path)
    losses = [record["val_loss"] for record in run.history if "val_loss" in record]
    best = MiniGPT.from_pretrained(tmp_path / "best")
    assert measure_preferences(best, data).loss.item() == pytest.approx(min(losses), abs=1e-5)


def test_answers_are_reproducible_and_pairs_obey_the_judge():
    model, prompts = tiny(), [row["prompt"] for row in ROWS]
    answers = sample_answers(model, CHAT, prompts, 3, max_new_tokens=6)
    assert answers == sample_answers(model, CHAT, prompts, 3, max_new_tokens=6)
    texts = [["short", "a longer answer", None], ["same", "size"], [None] * 3, ["x"]]
    pairs, report = make_pairs(model, CHAT, prompts, lambda p, text: -len(text), answers=texts)
    assert [(p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in pairs] == [
        ("short", "a longer answer")
    ]
    assert report == {"prompts": 4, "pairs": 1, "no whole turn": 4, "all equally good": 3}
    assert not any(map(fault_of_pair, pairs))


# --- faults that the chapter's own checks catch ---

FAULTS = {
    "wrong sign": ("margin = chosen - rejected", "margin = rejected - chosen"),
    "reference forgotten": (
        "beta * (policy_chosen - reference_chosen)",
        "beta * policy_chosen",
    ),
    "beta outside": (
        "loss = -F.logsigmoid(margin).mean()",
        "loss = -beta * F.logsigmoid(margin / beta).mean()",
    ),
    "log of sigmoid": ("F.logsigmoid(margin)", "torch.sigmoid(margin).log()"),
    "sum over pairs": ("F.logsigmoid(margin).mean()", "F.logsigmoid(margin).sum()"),
    "rewards with a gradient": ("chosen.detach(), ", "chosen, "),
    "ties are right": ("(self.margin > 0)", "(self.margin >= 0)"),
    "tilt multiplied by beta": ("rewards / beta)", "rewards * beta)"),
    "tilt not normalised": (".log_softmax(dim=-1)\n\n\n", "\n\n\n"),
    "mean per token": (
        "-losses.view(targets.shape).sum(dim=1)",
        "-losses.view(targets.shape).mean(dim=1)",
    ),
    "bfloat16 logarithms": ("model(input_ids)[0].float()", "model(input_ids)[0]"),
    "bfloat16 logarithms, cast afterwards": (
        "model(input_ids)[0].float()", "model(input_ids)[0].log_softmax(-1).float()"
    ),
    "lost answers pass": ("if not (targets != -100)", "if False and (targets != -100)"),
    "prompt counted": ("            labels[:start] = -100", "            labels[:0] = -100"),
    "first token of the answer hidden": ("labels[:start] = -100", "labels[: start + 1] = -100"),
    "not shifted": ("pair.append((ids[:-1], labels[1:]))", "pair.append((ids[:-1], labels[:-1]))"),
    "padding counted": ("True, -100)", "True, 0)"),
    "one token too many": ("self.block_size + 1:", "self.block_size + 2:"),
    "chosen and rejected interleaved": (
        "[pair[0] for pair in pairs] + [pair[1] for pair in pairs]",
        "[answer for pair in pairs for answer in pair]",
    ),
    "reference of other pairs": ("self.reference[numbers]}", "self.reference[: len(numbers)]}"),
    "reference with dropout": (
        "        model.eval()\n        try:\n            with torch.no_grad()",
        "        try:\n            with torch.no_grad()",
    ),
    "reference recomputed though kept": ("file is not None and file.exists()", "False"),
    "file of another model accepted": ("if ours != theirs:", "if False:"),
    "another reference accepted": ("elif pairs.mark != mark or ", "elif "),
    "reference from the moving model": (
        "{\"targets\": y, \"reference\": self.reference[numbers]}",
        "{\"targets\": y, \"reference\": self.reference[numbers] * 0}",
    ),
    "unfinished answers kept": ('if ids[-1] == tokenizer.end else ""', 'if ids else ""'),
    "worst chosen": ("for find in (max, min))", "for find in (min, max))"),
    "ties make pairs": ("if not scores or max(scores) == min(scores):", "if not scores:"),
    "greedy samples": ('{"strategy": "sample", ', '{"strategy": "greedy", '),
    "tokens weight the pairs": ("return x, torch.tensor(numbers), {", "return x, y, {"),
    "another beta resumed": ('if state["run"][name] != value:', "if False:"),
    "beta not passed on": (
        "_PreferenceTrainer(_Learner(model, beta)",
        "_PreferenceTrainer(_Learner(model, 0.1)",
    ),
    "only the last micro-batch reported": ("for result in self.model.seen", "for result in self.model.seen[-1:]"),
    "fingerprint of names": (".numpy().tobytes())", ".numpy().tobytes()[:0])"),
    "fingerprint without the type": (" {value.dtype} ", " "),
    "fingerprint without the configuration": ("sha256(repr(config).encode())", "sha256()"),
    "fingerprint with dropout": (' | {"dropout": None}', ""),
    "the model is its own reference": (
        "pairs.use_reference(reference)", "pairs.use_reference(model)"
    ),
    "another model's mark after an error": (
        "_refuse_infinite(found, len", "self.mark = mark; _refuse_infinite(found, len"
    ),
    "half a file": ('file.with_name(file.name + ".part")', "file"),
    "a kept file cut short": ("log_probs.shape != (n, 2) or ", ""),
    "a kept nan": (" or not log_probs.isfinite().all()", ""),
    "seed forgotten": ("_PairReader(train, config.seed, beta)", "_PairReader(train, 0, beta)"),
    "place forgotten": ('{"run": self.run}', '{"run": self.run, "position": 0}'),
    "weights not resumed": ("return self.policy.load_state_dict(state)", "return None"),
    "only rejected answers too long": (
        "+ 1:\n                return", '+ 1 and answer is row["rejected"]:\n                return'
    ),
    "only training pairs too long": (
        '_refuse_unreadable(pairs, model, "model")',
        'pairs is train and _refuse_unreadable(pairs, model, "model")',
    ),
    "a short reference": ('        _refuse_unreadable(pairs, reference, "reference")\n', ""),
    "ids that the model lacks": ("config.vocab_size:", "config.vocab_size + 1:"),
    "pairs reordered": (" or pairs.pairs_mark != pairs._fingerprint()", ""),
    "another trainer's run resumed": ('if "run" not in state:', "if False:"),
    "a refused run has moved the model": (
        "        self.draw.refuse_other(",
        "        super()._load(last)\n        self.draw.refuse_other(",
    ),
    "beta looked at too late": ("    _refuse_beta(beta)\n    mark =", "    mark ="),
    "a judge's nan": ("if math.isnan(number):", "if False:"),
    "scores rounded": ("else float(score)", "else int(score)"),
    "the judge sees the question alone": ("judge(prompt, text)", "judge(prompt[-1:], text)"),
    "6 samples": ("samples: int = 8", "samples: int = 6"),
    "no sample": ("if samples < 1:", "if samples < 0:"),
    "letters judged": ("if not lists == len(answers) ==", "if not len(answers) =="),
    "equal but for a further key": ('row[name][0]["content"] for', "repr(row[name]) for"),
    "any end is the end of the turn": (
        "if ids[-1] == tokenizer.end", "if ids[-1] in tokenizer.base.special_tokens.values()"
    ),
    "infinity less infinity": ("if margin.isnan().any() and", "if False and"),
    "other shapes of rewards": ("if shapes[0] != shapes[1]:", "if False:"),
    "other shapes of targets": ("input_ids.shape != targets.shape or ", ""),
    "tilt that vanishes": (".log_softmax(dim=-1)\n\n\n", ".softmax(dim=-1).log()\n\n\n"),
    "no dropout in training": ("sequence_log_probs(self.policy,", "sequence_log_probs(self.policy.eval(),"),
}  # fmt: skip


def test_the_checks_pass_as_they_are(tmp_path):
    assert survives("15", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_checks(tmp_path, fault):
    assert not survives("15", tmp_path, *FAULTS[fault])


# --- the explorer and its twin ---


def test_the_tilt_of_the_explorer_is_the_chapters():
    data = tilt_data()
    assert sum(data["reference"]) == pytest.approx(1) and data["betas"] == list(BETAS)
    for rewards in data["judges"].values():
        for beta in BETAS:
            found = tilt_of(data["reference"], rewards, beta)
            logs = optimal_policy(
                torch.tensor(data["reference"]).log(), torch.tensor(rewards), beta
            )
            assert found == pytest.approx(logs.exp().tolist(), abs=1e-5)
            mean, nats = worth(data["reference"], rewards, found)
            assert (
                nats >= 0 and mean >= worth(data["reference"], rewards, data["reference"])[0] - 1e-9
            )


def test_the_twin_says_the_same():
    data = tilt_data()
    states = [(judge, beta) for judge in data["judges"] for beta in BETAS]
    expression = "data.states.map(([j, b]) => [m.tiltOf(data.reference, data.judges[j], b), m.sentences(data, j, b)])"
    theirs = in_node("preference-tilt.js", expression, data | {"states": states})
    for (judge, beta), (policy, said) in zip(states, theirs, strict=True):
        assert policy == pytest.approx(tilt_of(data["reference"], data["judges"][judge], beta))
        assert said == sentences(data, judge, beta)


def test_the_widget_answers_its_controls():
    judge, beta, view = tilt(tilt_data()).children
    assert "0.30 → <b>0.54</b>" in view.value and "Mean reward 0.54" in view.value
    judge.value, beta.value = "short", 0.1
    assert "0.10 → <b>0.97</b>" in view.value and draw(tilt_data(), "short", 0.1) in view.value
