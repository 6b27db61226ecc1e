"""Chapter 21: the loss and its gradient are trl's; advantages, rollouts and rewards over generated input."""

from __future__ import annotations

import itertools
import json
import math
import signal
import time
import types
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import help_of

from courseware import paths
from courseware.checks.toy_groups import run_groups, toy_dialogs
from courseware.checks.toy_pairs import eager, tiny, toy_chat
from minigpt_lib.bpe import BPETokenizer, train_bpe
from minigpt_lib.chat import FORMATS, ChatTokenizer
from minigpt_lib.checkpoints import locked
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.reasoning import (
    Question,
    exact_reward,
    group_advantages,
    grpo_loss,
    pass_at_k,
    read_questions,
    reasoning_main,
    sample_groups,
    token_log_probs,
    train_grpo,
)
from minigpt_lib.training import Trainer

# ---------------------------------------------------------------- the loss, compared with trl


class Accelerator:
    """What trl's trainer needs of Accelerate on one CPU."""

    device = "cpu"
    num_processes = 1
    sync_gradients = True

    def gather(self, values):
        return values

    def reduce(self, values, reduction):
        return values

    gather_for_metrics = gather


KINDS = {"token": "bnpo", "sequence": "grpo", "constant": "dr_grpo"}


def trl_loss(now, was, advantages, mask, per, clips, reference, leash):
    """Return the loss that trl's GRPOTrainer computes from these log-probabilities (N, T)."""
    grpo = pytest.importorskip("trl.trainer.grpo_trainer")
    trainer = types.SimpleNamespace(
        model=torch.nn.Linear(1, 1),
        accelerator=Accelerator(),
        _get_per_token_logps_and_entropies=lambda *_, **__: (now, torch.zeros_like(now), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=leash,
        loss_type=KINDS[per],
        epsilon_low=clips[0],
        epsilon_high=clips[1],
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=now.shape[1],
        _entropy_bonus_enabled=False,
        use_adaptive_entropy=False,
        entropy_coef=0.0,
        args=types.SimpleNamespace(
            delta=None, use_bias_correction_kl=False, steps_per_generation=1
        ),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
    )
    N, T = now.shape
    inputs = {
        "prompt_ids": torch.zeros(N, 1, dtype=torch.int64),
        "prompt_mask": torch.ones(N, 1, dtype=torch.int64),
        "completion_ids": torch.zeros(N, T, dtype=torch.int64),
        "completion_mask": mask.to(now.dtype),
        "advantages": advantages,
        "old_per_token_logps": was,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    return grpo.GRPOTrainer._compute_loss(trainer, trainer.model, inputs)


@pytest.mark.slow  # importing trl takes seconds
@pytest.mark.parametrize("per", KINDS)
@pytest.mark.parametrize("leash", [0.0, 0.3])
@pytest.mark.parametrize("clips", [(0.2, 0.2), (0.2, 0.28), (0.5, 0.1)])
def test_loss_and_gradient_agree_with_trl(per, leash, clips):
    generator = torch.Generator().manual_seed(0)
    was = -torch.rand(6, 5, generator=generator, dtype=torch.float64) * 3
    moved = torch.randn(6, 5, generator=generator, dtype=torch.float64) * 0.4
    reference = was + torch.randn(6, 5, generator=generator, dtype=torch.float64) * 0.5
    advantages = torch.randn(6, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([5, 4, 1, 3, 2, 5])
    mask = torch.arange(5) < lengths[:, None]
    ours, theirs = (was + moved).clone().requires_grad_(), (was + moved).clone().requires_grad_()

    options = {"clip_low": clips[0], "clip_high": clips[1], "reference": reference, "leash": leash}
    found = grpo_loss(ours, was, advantages, mask, per=per, **options)
    expected = trl_loss(theirs, was, advantages, mask, per, clips, reference, leash)
    found.backward()
    expected.backward()

    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_advantages_are_those_of_trls_formula():
    rewards = torch.rand(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    # trl's _generate_and_score_completions with scale_rewards="group"
    mean = rewards.mean(dim=1).repeat_interleave(8)
    std = rewards.std(dim=1).repeat_interleave(8)
    expected = (rewards.flatten() - mean) / (std + 1e-4)

    torch.testing.assert_close(group_advantages(rewards).flatten(), expected)


# ---------------------------------------------------------------- properties

REWARDS = st.floats(-100, 100)
GROUPS = st.integers(1, 6).flatmap(
    lambda G: st.lists(st.lists(REWARDS, min_size=G, max_size=G), min_size=1, max_size=5)
)


@settings(max_examples=80, deadline=None)
@given(GROUPS, st.booleans(), st.booleans(), st.booleans())
def test_advantages_are_finite_add_up_to_zero_and_keep_the_order(
    rows, divide_by_std, leave_one_out, over_batch
):
    rewards = torch.tensor(rows, dtype=torch.float64)

    found = group_advantages(
        rewards, divide_by_std=divide_by_std, leave_one_out=leave_one_out, over_batch=over_batch
    )

    assert found.isfinite().all()
    sums = found.sum() if over_batch else found.sum(dim=1)
    assert sums.abs().max() < 1e-6 * (1 + rewards.abs().max())
    for row, advantages in zip(rewards, found):
        for i, j in itertools.combinations(range(len(row)), 2):
            if row[i] > row[j]:
                assert advantages[i] >= advantages[j]
            if row[i] == row[j]:
                assert advantages[i] == pytest.approx(advantages[j].item(), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 5), st.sampled_from(["token", "sequence", "constant"]),
    st.floats(0, 2), st.integers(0, 2**30),
)  # fmt: skip
def test_what_stands_outside_the_mask_changes_nothing(N, T, per, leash, seed):
    generator = torch.Generator().manual_seed(seed)
    now, was, reference, other = torch.randn(4, N, T, generator=generator, dtype=torch.float64)
    advantages = torch.randn(N, generator=generator, dtype=torch.float64)
    mask = torch.rand(N, T, generator=generator) < 0.6
    options = {"per": per, "leash": leash}

    one = grpo_loss(now, was, advantages, mask, reference=reference, **options)
    changed = [torch.where(mask, values, other * 1000) for values in (now, was, reference)]
    leaf = changed[0].requires_grad_()
    two = grpo_loss(leaf, changed[1], advantages, mask, reference=changed[2], **options)
    two.backward()

    assert one.item() == pytest.approx(two.item(), rel=1e-12, abs=1e-12)
    assert not leaf.grad[~mask].any()


@settings(max_examples=100)
@given(st.integers(1, 40), st.data())
def test_pass_at_k_grows_with_k_and_with_right_answers(n, data):
    c = data.draw(st.integers(0, n))
    rates = [pass_at_k(n, c, k) for k in range(1, n + 1)]

    assert rates[0] == pytest.approx(c / n) and rates == sorted(rates)
    assert rates[-1] == float(c > 0)
    if c < n:
        assert all(a <= b for a, b in zip(rates, (pass_at_k(n, c + 1, k) for k in range(1, n + 1))))


@given(st.text(), st.sampled_from(["Rome", "17", "Ida"]))
def test_a_reward_looks_at_the_last_word_alone(text, answer):
    question = Question([], answer)

    assert exact_reward(question, f"{text} {answer}.") == exact_reward(question, answer) == 1.0
    assert exact_reward(question, f"{answer} {text} no") == 0.0


# ---------------------------------------------------------------- rollouts


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_a_group_is_the_same_whoever_is_asked_beside_it(position):
    model = tiny(position=position)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    together = sample_groups(
        model, toy_chat, toy_dialogs, 3, max_new_tokens=9, generator=generators[0]
    )
    for q, dialog in enumerate(toy_dialogs):
        # the random numbers of a row come in the order of the rows
        alone = sample_groups(
            model, toy_chat, [dialog], 3, max_new_tokens=9, generator=generators[1]
        )
        rows = together.select(together.groups == q)
        assert rows.texts == alone.texts
        for row, single, mask, single_mask in zip(rows.ids, alone.ids, rows.mask, alone.mask):
            assert row[mask].tolist() == single[single_mask].tolist()


def test_a_group_is_drawn_on_the_device_of_the_model():
    """Between the first two passes, a tensor that is made without naming a device lands elsewhere."""
    model = tiny()
    passes = []

    def begin(*_):
        passes.append(1)
        torch.set_default_device("cpu")

    def end(*_):
        torch.set_default_device("meta" if len(passes) == 1 else "cpu")

    model.register_forward_pre_hook(begin)
    model.register_forward_hook(end)
    generator = torch.Generator().manual_seed(0)
    try:
        found = sample_groups(
            model, toy_chat, toy_dialogs, 3, max_new_tokens=4, generator=generator
        )
    finally:
        torch.set_default_device(None)

    again = torch.Generator().manual_seed(0)
    expected = sample_groups(tiny(), toy_chat, toy_dialogs, 3, max_new_tokens=4, generator=again)
    assert len(passes) > 2 and found.texts == expected.texts


def test_log_probs_are_those_of_the_softmax_and_have_a_gradient():
    model = tiny()
    ids = torch.randint(toy_chat.vocab_size, (3, 7), generator=torch.Generator().manual_seed(0))

    found = token_log_probs(model, ids)
    expected = model(ids)[0].log_softmax(-1)

    assert not found[:, 0].any() and found.shape == (3, 7) and found.requires_grad
    for n, t in itertools.product(range(3), range(1, 7)):
        assert found[n, t].item() == pytest.approx(expected[n, t - 1, ids[n, t]].item(), abs=1e-5)


@pytest.mark.slow
def test_groups_are_drawn_at_least_three_times_as_fast_as_one_answer_at_a_time():
    model = tiny(max_seq_len=128, n_embd=64, n_layer=4, n_head=4)
    dialogs = toy_dialogs * 8

    def seconds(groups):
        began = time.perf_counter()
        for some, size in groups:
            sample_groups(model, toy_chat, some, size, max_new_tokens=24)
        return time.perf_counter() - began

    seconds([(dialogs, 8)])
    batched = min(seconds([(dialogs, 8)]) for _ in range(3))
    single = min(seconds([([dialog], 1) for dialog in dialogs[:12]]) for _ in range(3)) / 12

    assert single * 8 * len(dialogs) > 3 * batched


# ---------------------------------------------------------------- training


def test_accumulated_micro_batches_make_one_step_of_their_mean():
    """Two micro-batches of other lengths and shares weigh by what counts in them."""
    questions = [Question(dialog, "rome") for dialog in toy_dialogs] * 2
    for per in KINDS:
        options = {"per": per, "settings": {"accumulate": 2, "batch_size": 2}}
        run = run_groups(train_grpo, eager(), questions, 2, **options)

        assert all(math.isfinite(record["loss"]) for record in run.history)
        assert run.draw.position == 8


@pytest.mark.slow
def test_the_leash_holds_the_model_back():
    questions = [Question(dialog, "rome") for dialog in toy_dialogs]
    away = []
    for leash in (0.0, 2.0):
        model = eager()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        run_groups(train_grpo, model, questions, 25, leash=leash, optimizer=optimizer)
        drawn = sample_groups(
            model,
            toy_chat,
            toy_dialogs,
            40,
            max_new_tokens=6,
            generator=torch.Generator().manual_seed(1),
        )
        with torch.no_grad():
            far = drawn.logprobs - token_log_probs(eager(), drawn.ids)
        away.append(far[drawn.mask].mean().item())  # nats per token

    assert 0 < away[1] < 0.5 * away[0]


# ---------------------------------------------------------------- the record


def test_the_record_has_five_whole_seeds_and_what_the_chapter_says_of_them():
    path = paths.CODE / "benchmarks" / "results" / "reasoning.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    alone, shown = record["runs"]["alone"], record["runs"]["shown"]

    assert [one["seed"] for one in alone] == [one["seed"] for one in shown] == record["seeds"]
    assert len(record["seeds"]) >= 5 and record["hardware"]["processor"]
    assert record["speed"]["one by one"] > 3 * record["speed"]["batched"]
    assert all(one["after"]["right"] < 0.1 for one in alone)
    for one in shown:
        assert one["before"]["right"] < 0.1 and one["after"]["right"] > 0.85
        assert one["after"]["true first step"] > 0.85 and one["after"]["edited, follows"] < 0.05
        assert one["after"]["edited, right"] > 0.85


# ---------------------------------------------------------------- the command


def test_ctrl_c_in_the_command_ends_it_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    tiny().save_pretrained(tmp_path / "model")
    toy_chat.base.save(tmp_path / "model" / "tokenizer.json")
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "where was it born?", "answer": "rome"}\n', encoding="utf-8")
    words = [str(questions), str(tmp_path / "new"), "--model", str(tmp_path / "model")]
    words += ["--max-new-tokens", "4", "--updates", "3"]
    steps = []
    update = Trainer.update

    def pressed(self):
        steps.append(self.step)
        if len(steps) == 3:  # in the last one, after which nothing is left to do
            signal.raise_signal(signal.SIGINT)
        return update(self)

    monkeypatch.setattr(Trainer, "update", pressed)
    with pytest.raises(SystemExit) as ended:
        reasoning_main(words)
    assert ended.value.code == 130
    assert "stopped: the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "new" / "model.safetensors").exists()

    reasoning_main(words)
    assert steps == [0, 1, 2]
    assert (tmp_path / "new" / "model.safetensors").exists()


@pytest.mark.parametrize("where", ["find_model", "read_questions", "mean_reward"])
def test_ctrl_c_at_any_moment_of_the_command_is_one_line(tmp_path, monkeypatch, capsys, where):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    tiny().save_pretrained(tmp_path)
    toy_chat.base.save(tmp_path / "tokenizer.json")
    (tmp_path / "q.jsonl").write_text('{"question": "a", "answer": "b"}', encoding="utf-8")
    monkeypatch.setattr(f"minigpt_lib.reasoning.{where}", pressed)

    with pytest.raises(SystemExit) as ended:
        reasoning_main([str(tmp_path / "q.jsonl"), str(tmp_path / "new"), "--model", str(tmp_path)])
    assert ended.value.code == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_compares_answers_of_the_length_asked_for(tmp_path, monkeypatch):
    tiny().save_pretrained(tmp_path)
    toy_chat.base.save(tmp_path / "tokenizer.json")
    (tmp_path / "q.jsonl").write_text('{"question": "a", "answer": "b"}', encoding="utf-8")
    lengths = []

    def noted(model, chat, questions, *, max_new_tokens=32):
        lengths.append(max_new_tokens)
        return 0.0, ["so"]

    monkeypatch.setattr("minigpt_lib.reasoning.mean_reward", noted)
    words = [str(tmp_path / "q.jsonl"), str(tmp_path / "new"), "--model", str(tmp_path)]
    reasoning_main([*words, "--updates", "1", "--group-size", "2", "--max-new-tokens", "4"])

    assert lengths == [4, 4], "before and after the training"


def test_a_folder_in_use_is_refused_in_one_line(tmp_path):
    tiny().save_pretrained(tmp_path)
    toy_chat.base.save(tmp_path / "tokenizer.json")
    (tmp_path / "q.jsonl").write_text('{"question": "a", "answer": "b"}', encoding="utf-8")
    words = [str(tmp_path / "q.jsonl"), str(tmp_path / "new"), "--model", str(tmp_path)]

    with locked(tmp_path / "new" / "run"), pytest.raises(SystemExit) as ended:
        reasoning_main([*words, "--updates", "1", "--group-size", "2", "--max-new-tokens", "4"])
    assert "RuntimeError: another process is at work" in ended.value.code


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_trains_a_model_of_each_chat_format(tmp_path, form):
    chat = ChatTokenizer(train_bpe("what is it?", 260), form)
    model = MiniGPT(GPTConfig(chat.vocab_size, max_seq_len=64, n_embd=16, n_layer=1, n_head=2))
    model.save_pretrained(tmp_path)
    chat.base.save(tmp_path / "tokenizer.json")
    (tmp_path / "q.jsonl").write_text('{"question": "a", "answer": "b"}', encoding="utf-8")
    words = [str(tmp_path / "q.jsonl"), str(tmp_path / "new"), "--model", str(tmp_path)]

    reasoning_main([*words, "--updates", "1", "--group-size", "2", "--max-new-tokens", "4"])

    assert BPETokenizer.load(tmp_path / "new" / "tokenizer.json").ranks == chat.base.ranks
    assert BPETokenizer.load(tmp_path / "new" / "tokenizer.json").vocab_size == chat.vocab_size


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_a_question_may_hold_other_line_separators_and_its_file_a_byte_order_mark(tmp_path, mark):
    row = json.dumps({"question": f"one{mark}two", "answer": "b"}, ensure_ascii=False)
    (tmp_path / "q.jsonl").write_text(f"{row}\r\n\r\n{row}\r\n", encoding="utf-8-sig", newline="")

    found = read_questions(tmp_path / "q.jsonl")

    assert [question.dialog[0]["content"] for question in found] == [f"one{mark}two"] * 2


def test_brackets_without_end_are_no_question(tmp_path):
    (tmp_path / "q.jsonl").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: expected"):
        read_questions(tmp_path / "q.jsonl")


def test_a_model_in_bfloat16_answers():
    found = sample_groups(tiny().bfloat16(), toy_chat, toy_dialogs, 2, max_new_tokens=3)
    assert found.logprobs.dtype == torch.float32
    assert (found.logprobs[found.mask] < 0).all()


def test_the_help_names_what_stands_where(capsys):
    with pytest.raises(SystemExit):
        reasoning_main(["--help"])
    assert "QUESTIONS OUT" in capsys.readouterr().out


def test_the_module_is_a_program():
    assert help_of("minigpt_lib.reasoning").startswith("usage: python -m minigpt_lib.reasoning ")
