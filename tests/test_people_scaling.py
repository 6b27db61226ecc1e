"""The benchmark of more people: the same steps for all, or the same number of readings."""

from __future__ import annotations

import importlib

import pytest

from courseware import paths
from courseware.checks.refusals import refused


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.CODE / "benchmarks"))
    return importlib.import_module("people_scaling")


def test_the_budgets_hold_the_steps_or_the_readings_constant(benchmark):
    full = benchmark.FULL

    for n in benchmark.PEOPLE:
        same_steps, same_readings = (benchmark.recipe_of(n, name) for name in benchmark.BUDGETS)
        quick = benchmark.recipe_of(n, "same steps", quick=True)

        assert same_steps.people == same_readings.people == n
        assert same_steps.reading.steps == full.reading.steps
        expected = full.reading.steps * n / full.people
        assert same_readings.reading.steps == pytest.approx(expected, abs=0.5)
        assert same_steps.answering.steps == full.answering.steps
        assert same_readings.answering.steps == full.answering.steps
        assert quick.reading.steps == full.reading.steps // 10


def test_an_unknown_budget_is_refused(benchmark):
    refused("same steps, same readings", benchmark.recipe_of, 250, "steps")
