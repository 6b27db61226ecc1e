"""The ledger of ablations: a planted effect is found, noise is called noise, bad files are named."""

from __future__ import annotations

import itertools
import json
import math
import random

import pytest

from courseware import ledger


def made(effect: dict, spread: float, seeds: int = 3) -> list[dict]:
    """Return runs of all combinations whose loss is 2 plus the planted effects plus noise."""
    rng = random.Random(0)
    runs = []
    for levels in itertools.product(*ledger.FACTORS.values()):
        for seed in range(seeds):
            loss = 2 + sum(effect.get(level, 0.0) for level in levels) + rng.gauss(0, spread)
            run = dict(zip(ledger.FACTORS, levels)) | {"seed": seed, "parameters": 1}
            runs.append(run | {"val_loss": loss, "minutes": 0.5})
    return runs


def test_a_planted_effect_is_found_with_its_size_and_the_rest_is_noise():
    found = {
        (e.factor, e.level): e for e in ledger.effects(made({"rope": -0.1, "relu2": 0.05}, 0.01))
    }
    assert found["position", "rope"].verdict == "better"
    assert found["position", "rope"].difference == pytest.approx(-0.1, abs=0.01)
    assert found["ffn", "relu2"].verdict == "worse"
    assert found["norm", "rms"].verdict == "within noise"
    assert found["norm", "layer"].verdict == "-"
    assert found["norm", "rms"].runs == 54


def test_the_interval_covers_the_truth_about_nineteen_times_of_twenty():
    covered, tries = 0, 300
    for seed in range(tries):
        rng = random.Random(seed)
        runs = [run | {"val_loss": rng.gauss(2, 0.02)} for run in made({}, 0)]
        covered += ledger.effects(runs)[1].verdict == "within noise"
    assert 0.91 < covered / tries < 0.985


def test_the_spread_is_that_of_the_seeds_not_of_the_models():
    spread, freedom = ledger.seed_spread(made({"rope": -5.0}, 0.02))
    assert spread == pytest.approx(0.02, rel=0.25)
    assert freedom == 72


@pytest.mark.parametrize(
    ("freedom", "table"), [(10, 2.228), (20, 2.086), (72, 1.9935), (1000, 1.962)]
)
def test_students_t_agrees_with_the_printed_tables(freedom, table):
    assert ledger._student(freedom) == pytest.approx(table, abs=0.003)


def test_an_unfinished_ledger_is_refused():
    runs = made({}, 0.01)
    with pytest.raises(ValueError, match="unfinished"):
        ledger.effects(runs[:-1])
    with pytest.raises(ValueError, match="several seeds"):
        ledger.effects(made({}, 0.01, seeds=1))


def test_a_line_that_is_no_run_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps(made({}, 0.01)[0]) + "\n{torn\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2.*torn"):
        ledger.load(path)


def test_the_ledger_of_the_course_is_whole_and_its_models_cost_the_same():
    runs = ledger.load()
    assert len(runs) == 108 == len({ledger.key(run) for run in runs})
    sizes = [run["parameters"] for run in runs if run["tie_weights"]]
    assert max(sizes) / min(sizes) < 1.05
    report = ledger.report(runs)
    assert "108 runs of 36 models" in report
    assert all(math.isfinite(run["val_loss"]) for run in runs)
