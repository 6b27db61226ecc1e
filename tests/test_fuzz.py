"""A small part of what `python tests/fuzz.py` runs: each target, and what becomes of a fault."""

from __future__ import annotations

import os
import random
import time

import fuzz
import pytest
from fuzz import TARGETS, Target, run, watched


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_few_cases_of_each_target(name):
    is_cheap = TARGETS[name].cases > 20_000
    cases = 150 if is_cheap else 30
    result = run(name, cases, seed=0)
    assert not result.faults, result.faults[0]
    assert result.cases == cases
    assert result.accepted or not is_cheap, "all of the inputs were refused"


def test_a_whole_run_has_a_million_cases_and_ten_thousand_of_each_loader():
    assert sum(target.cases for target in TARGETS.values()) >= 1_000_000
    assert min(target.cases for target in TARGETS.values()) >= 10_000


def _ends_badly(folder):
    def case(chance: random.Random) -> bool:
        number = chance.random()
        if number < 0.2:
            raise KeyError(f"{number}")
        return True

    return case


def test_a_fault_is_found_again_by_its_number_alone(monkeypatch):
    monkeypatch.setitem(TARGETS, "bad", Target("a fault now and then", 1, _ends_badly))
    result = run("bad", 40, seed=5)
    assert 0 < len(result.faults) < 20
    assert result.accepted == 40 - len(result.faults)

    for i, error in result.faults:
        (found,) = run("bad", 1, seed=5, first=i).faults
        assert found[0] == i
        assert found[1].splitlines()[-1] == error.splitlines()[-1]


def _dies(name, cases, seed, first, place, sender):
    place.value = first + 3
    os._exit(9)


def _hangs(name, cases, seed, first, place, sender):
    place.value = first + 3
    time.sleep(600)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "fault"), [(_dies, "the process died: status 9"), (_hangs, "hung")]
)
def test_a_case_that_kills_its_process_or_hangs_is_named(monkeypatch, work, fault):
    monkeypatch.setattr(fuzz, "_work", work)
    monkeypatch.setattr(fuzz, "HANG", 0.5)
    ((number, error),) = watched("characters", 10, first=40).faults
    assert number == 43
    assert error.startswith(fault)
