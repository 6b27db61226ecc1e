"""The benchmarks of chapter 21: the questions they ask, and the clocks in their updates."""

from __future__ import annotations

import importlib
import random
import time

import pytest

import minigpt_lib.reasoning
from courseware import paths
from courseware.checks.toy_groups import run_groups, toy_dialogs
from courseware.checks.toy_pairs import eager
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
