"""The benchmark of determinism: what it compares, and that the book shows what it recorded."""

from __future__ import annotations

import importlib
import json

import pytest

from courseware import paths
from courseware.runs import bands


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.CODE / "benchmarks"))
    return importlib.import_module("determinism")


@pytest.fixture
def recorded(benchmark):
    return json.loads(benchmark.OUT.read_text(encoding="utf-8"))["runs"]


def test_the_book_shows_the_recorded_table(benchmark, recorded):
    page = (paths.CODE / "book" / "benchmarks.md").read_text(encoding="utf-8")
    assert benchmark.results_table(recorded) in page


def test_every_recorded_run_repeats_itself_and_is_in_its_band(recorded):
    assert all(run["same_bits"] for run in recorded)
    assert all(run["widths"] <= 1 for run in recorded if run["widths"] is not None)
    assert len({run["weights"] for run in recorded}) > 1, "the settings must make a difference"


def test_other_bits_and_distances_are_noticed(benchmark):
    def run(weights, losses):
        return {"capability": "x", "weights": weights, "losses": losses, "evaluations": []}

    setting = {"precision": "float32", "threads": 1, "steps": 2}
    found = benchmark.compare(
        setting, [run("a", [3.0, 2.5]), run("b", [3.0, 2.5])], run("c", [3.0, 2.0, 1.0])
    )
    assert found["same_bits"] is False
    assert (found["first_difference"], found["largest_difference"]) == (0.0, 0.5)
    assert found["widths"] is None


def test_the_distance_is_counted_in_half_widths_of_the_band(benchmark):
    band = bands.load_band("10_training")
    halves = bands.half_widths(band["val_loss"], band["seeds"])
    record = {"step": 200, "train_loss": band["train_loss"]["mean"][1]}
    record["val_loss"] = band["val_loss"]["mean"][1] - 1.5 * halves[1]
    assert benchmark.widths([record]) == pytest.approx([0.0, 1.5])
