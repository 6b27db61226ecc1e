"""The ledger of ablations: a planted effect is found, noise is called noise, and bad files are named."""

from __future__ import annotations

import itertools
import json
import math
import random

import pytest

from courseware.runs import ledger


def planted_runs(effect: dict, noise: float, seeds: int = 3) -> list[dict]:
    """Return runs of every combination, with a loss of 2 plus the effects plus noise of this standard deviation."""
    rng = random.Random(0)
    runs = []

    for levels in itertools.product(*ledger.FACTORS.values()):
        for seed in range(seeds):
            loss = 2 + sum(effect.get(level, 0.0) for level in levels) + rng.gauss(0, noise)
            run = dict(zip(ledger.FACTORS, levels)) | {"seed": seed, "parameters": 1}
            runs.append(run | {"val_loss": loss, "minutes": 0.5})

    return runs


def test_a_planted_effect_is_found_with_its_size_and_the_rest_is_called_noise():
    effects = ledger.effects(planted_runs({"rope": -0.1, "relu2": 0.05}, noise=0.01))

    found = {(effect.factor, effect.level): effect for effect in effects}
    assert found["position", "rope"].verdict == "better"
    assert found["position", "rope"].difference == pytest.approx(-0.1, abs=0.01)
    assert found["ffn", "relu2"].verdict == "worse"
    assert found["norm", "rms"].verdict == "within noise"
    assert found["norm", "layer"].verdict == "-"
    assert found["norm", "rms"].runs == 54


def test_the_95_percent_interval_covers_the_true_effect_in_about_95_percent_of_the_ledgers():
    ledgers = 300
    covered = 0
    without_loss = planted_runs({}, noise=0)

    for seed in range(ledgers):
        rng = random.Random(seed)
        runs = [run | {"val_loss": rng.gauss(2, 0.02)} for run in without_loss]
        covered += ledger.effects(runs)[1].verdict == "within noise"

    assert 0.91 < covered / ledgers < 0.985


def test_the_standard_deviation_is_that_of_the_seeds_not_of_the_models():
    spread, freedom = ledger.seed_spread(planted_runs({"rope": -5.0}, noise=0.02))

    assert spread == pytest.approx(0.02, rel=0.25)
    assert freedom == 72


@pytest.mark.parametrize(
    ("freedom", "table"), [(10, 2.228), (20, 2.086), (72, 1.9935), (1000, 1.962)]
)
def test_students_t_agrees_with_published_tables(freedom, table):
    assert ledger._student(freedom) == pytest.approx(table, abs=0.003)


def test_an_unfinished_ledger_is_refused():
    with pytest.raises(ValueError, match="unfinished"):
        ledger.effects(planted_runs({}, noise=0.01)[:-1])


def test_a_ledger_with_one_seed_is_refused():
    with pytest.raises(ValueError, match="several seeds"):
        ledger.effects(planted_runs({}, noise=0.01, seeds=1))


def test_a_line_that_does_not_hold_a_run_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    run = json.dumps(planted_runs({}, noise=0.01)[0])
    path.write_text(run + "\n{torn\n", encoding="utf-8")

    with pytest.raises(ValueError, match="line 2.*torn"):
        ledger.load(path)


def test_the_report_names_the_best_and_the_worst_model_in_words():
    report = ledger.report(planted_runs({"rope": -0.1, "sinusoidal": 0.1}, noise=0.01))

    best, worst = report.splitlines()[-1].split(". Worst: ")
    assert best.startswith("Best: rope · ") and worst.startswith("sinusoidal · ")
    for name in (best, worst):
        assert name.split(", ")[0].endswith((" · tied", " · untied")), name


def test_the_ledger_of_the_course_is_complete():
    runs = ledger.load()

    assert len(runs) == 108
    assert len({ledger.key(run) for run in runs}) == 108
    assert all(math.isfinite(run["val_loss"]) for run in runs)
    assert "108 runs of 36 models" in ledger.report(runs)


def test_the_models_of_the_ledger_have_nearly_the_same_size():
    sizes = [run["parameters"] for run in ledger.load() if run["tie_weights"]]

    assert max(sizes) / min(sizes) < 1.05
