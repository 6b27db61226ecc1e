"""Predict, then train: forecasts are written down before a run, kept for good, and shown beside it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from test_live_plot import records
from tools import in_node
from training_runs import plan

from courseware import paths, progress
from courseware.runs import bands, forecast, live
from courseware.runs.forecast import predict

RUN = "10_training"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "STATE", tmp_path / ".course")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return tmp_path / ".course"


def test_a_forecast_is_stored_with_its_time(state):
    noted = predict("loss after 500 steps", 1.9, RUN)

    stored = json.loads((state / "forecasts.json").read_text("utf-8"))
    (entry,) = stored[RUN]["forecasts"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", entry.pop("time"))
    assert entry == {"loss": "val_loss", "step": 500, "value": 1.9, "knowing": False}
    assert forecast.firsts(RUN) == [noted.forecast]
    for text in (str(noted), noted._repr_html_()):
        assert "the validation loss after 500 steps will be 1.9" in text
        assert "Now train, and see." in text


@pytest.mark.parametrize(
    ("what", "loss", "step"),
    [
        ("loss after 500 steps", "val_loss", 500),
        ("Validation loss  at step 20", "val_loss", 20),
        ("training loss after 1 step", "train_loss", 1),
    ],
)
def test_a_sentence_says_which_loss_and_when(what, loss, step):
    found = predict(what, 2, RUN).forecast
    assert (found.loss, found.step, found.value) == (loss, step, 2.0)


@pytest.mark.parametrize("what", ["", "loss", "accuracy after 5 steps", "loss after 0 steps", 500])
def test_a_sentence_that_says_nothing_is_refused(state, what):
    with pytest.raises(ValueError, match='expected a sentence such as "loss after 500 steps"'):
        predict(what, 1.9, RUN)
    assert not state.exists()


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), 101, True, None, "1.9"])
def test_a_number_that_no_loss_can_be_is_refused(state, value):
    with pytest.raises(ValueError, match="expected a loss in nats per token, above 0"):
        predict("loss after 500 steps", value, RUN)
    assert not state.exists()


def test_the_run_is_the_notebooks_unless_it_is_named(monkeypatch):
    with pytest.raises(ValueError, match='run="10_training"'):
        predict("loss after 5 steps", 1.9)
    for name in ("../10", "a b", 10):
        with pytest.raises(ValueError, match="expected the name of the run"):
            predict("loss after 5 steps", 1.9, name)
    monkeypatch.setenv("JPY_SESSION_NAME", "/course/notebooks/04_baselines.ipynb")
    assert predict("loss after 5 steps", 1.9).forecast.run == "04_baselines"


def test_a_notebook_that_is_only_compared_with_its_outputs_leaves_no_trace(state, monkeypatch):
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "notebooks/10_training.ipynb::Cell 7 (call)")
    predict("loss after 500 steps", 1.9, RUN)
    forecast.see(RUN)
    progress.record("chapter", RUN, "exported")
    assert not state.exists()

    monkeypatch.setenv("PYTEST_CURRENT_TEST", "tests/test_forecast.py::test[10.ipynb] (call)")
    predict("loss after 500 steps", 1.9, RUN)
    assert len(forecast.firsts(RUN)) == 1


def test_the_same_forecast_again_changes_nothing(state):
    predict("loss after 500 steps", 1.9, RUN)
    before = (state / "forecasts.json").read_bytes()
    assert "You have said so before" in str(predict("loss after 500 steps", 1.9, RUN))
    forecast.see(RUN)
    before_and_seen = json.loads(before)[RUN] | {"seen": True}
    assert "You have said so before" in str(predict("validation loss after 500 steps", 1.9, RUN))
    stored = json.loads((state / "forecasts.json").read_text("utf-8"))
    assert stored == {RUN: before_and_seen}


def test_a_second_forecast_is_kept_beside_the_first_which_counts():
    predict("loss after 500 steps", 1.9, RUN)
    noted = predict("loss after 500 steps", 1.7, RUN)

    assert "The new value, 1.7, is kept beside this one. The first one counts" in str(noted)
    assert noted.forecast.value == 1.9
    assert [f.value for f in forecast.forecasts(RUN)] == [1.9, 1.7]
    assert [f.value for f in forecast.firsts(RUN)] == [1.9]
    assert "1.7 is kept beside this one already" in str(predict("loss after 500 steps", 1.7, RUN))


def test_after_the_run_nothing_can_be_changed_silently():
    predict("loss after 500 steps", 1.9, RUN)
    forecast.see(RUN)

    late = predict("loss after 500 steps", 1.77, RUN)
    assert "You had seen this run already. The new value, 1.77, is kept beside the first" in str(
        late
    )
    assert [f.value for f in forecast.firsts(RUN)] == [1.9]
    assert [f.knowing for f in forecast.forecasts(RUN)] == [False, True]

    other = predict("loss after 600 steps", 1.73, RUN)
    assert "You had seen this run already, so it is kept but not compared." in str(other)
    assert "after you had seen this run" in str(other)
    assert [f.step for f in forecast.firsts(RUN)] == [500]


def test_a_damaged_file_is_set_aside(state, capsys):
    state.mkdir()
    (state / "forecasts.json").write_text("{", encoding="utf-8")
    assert forecast.forecasts(RUN) == []
    predict("loss after 500 steps", 1.9, RUN)
    assert (state / "forecasts.json.damaged").read_text("utf-8") == "{"
    assert "it is kept as forecasts.json.damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "entry",
    [[], "text", {"forecasts": 3}, {"forecasts": [3, {}, {"loss": "val_loss", "value": "x"}]}],
)
def test_entries_that_cannot_be_read_are_left_out(state, entry):
    state.mkdir()
    (state / "forecasts.json").write_text(json.dumps({RUN: entry, "new": 1}), encoding="utf-8")
    assert forecast.forecasts(RUN) == []
    predict("loss after 500 steps", 1.9, RUN)
    assert [f.value for f in forecast.forecasts(RUN)] == [1.9]
    assert json.loads((state / "forecasts.json").read_text("utf-8"))["new"] == 1


def test_a_folder_that_cannot_be_written_is_said_and_no_error(state, capsys):
    state.write_text("a file where the folder should be", encoding="utf-8")
    assert "It could not be saved" in str(predict("loss after 500 steps", 1.9, RUN))
    assert "the forecast was not saved" in capsys.readouterr().err


@pytest.mark.slow
def test_several_kernels_lose_nothing(state):
    code = (
        "import pathlib, sys; from courseware import paths; from courseware.runs.forecast import predict\n"
        "paths.STATE = pathlib.Path(sys.argv[1])\n"
        "for i in range(1, 21): predict(f'loss after {i} steps', float(sys.argv[2]), 'x')"
    )
    kernels = [subprocess.Popen([sys.executable, "-c", code, str(state), v]) for v in "123"]
    assert [kernel.wait(120) for kernel in kernels] == [0, 0, 0]
    assert len(forecast.forecasts("x")) == 60
    assert len(forecast.firsts("x")) == 20


# ---------------------------------------------------------------- beside the run


@pytest.fixture
def band(tmp_path):
    """Return the path of a band over steps 100 and 200."""
    runs = [
        [
            {"step": s, "train_loss": 300 / s + i / 50, "val_loss": 301 / s + i / 50}
            for s in (100, 200)
        ]
        for i in range(5)
    ]
    path = tmp_path / "band.json"
    bands.record_band("small", runs, path)
    return path


def history(*losses):
    return [
        {"step": 100 * i, "train_loss": loss, "val_loss": loss + 0.01}
        for i, loss in enumerate(losses, 1)
    ]


def test_compare_run_says_how_far_off_the_forecasts_were(band, capsys):
    predict("loss after 200 steps", 2.0, "small")
    predict("loss after 100 steps", 3.05, "small")
    predict("training loss after 100 steps", 2.5, "small")
    predict("loss after 300 steps", 1.0, "small")

    bands.compare_run(history(3.04, 1.54), "small", path=band)

    lines = [line for line in capsys.readouterr().out.splitlines() if "forecast" in line]
    assert lines[:3] == [
        "Your forecast: the validation loss after 200 steps, 2. It came to 1.550: 0.45 nats too high.",
        "Your forecast: the validation loss after 100 steps, 3.05. It came to 3.050: spot on.",
        "Your forecast: the training loss after 100 steps, 2.5. It came to 3.040: 0.54 nats too low.",
    ]
    assert "had seen" in str(predict("loss after 200 steps", 1.55, "small"))


def test_the_figure_shows_forecasts_beside_run_and_band(band):
    from matplotlib import pyplot

    predict("loss after 200 steps", 2.0, "small")
    fig, axes = pyplot.subplots(1, 2)
    stored = bands.load_band("small", band)
    for ax, key in zip(axes, bands.CURVES):
        bands._draw_curve(ax, key, history(3.04, 1.54), stored)

    labels = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in axes]
    assert labels == [["band", "your run"], ["band", "your run", "your forecast"]]
    assert axes[1].lines[1].get_xydata().tolist() == [[200.0, 2.0]]
    pyplot.close(fig)


def test_without_show_nothing_is_said_and_nothing_is_noted(band, capsys, state):
    bands.compare_run(history(3.04, 1.54), "small", show=False, path=band)
    assert capsys.readouterr().out == ""
    assert not state.exists()


def run_of(monkeypatch, name):
    monkeypatch.setattr(live, "display", lambda *_, **__: None)
    plot = live.LivePlot(plan(steps=320), name)
    for record in records():
        plot(record)
    return plot


def test_the_live_plot_shows_forecasts_and_its_twin_the_same(monkeypatch):
    predict("loss after 64 steps", 6.5, "small")
    predict("loss after 5000 steps", 1.5, "small")
    plot = run_of(monkeypatch, "small")

    assert plot.data["forecasts"] == [[64, 6.5]]
    assert "your forecast" in plot.view.value
    ours = live.draw(plot.data, 9)
    assert ours.count("<circle") == 1  # no evaluation yet
    assert f">{7}</text>" in ours  # the scale reaches it
    theirs = in_node("training-run.js", "m.draw(data, 9)", plot.data)
    assert re.sub(r"\d+\.?\d*", "N", theirs) == re.sub(r"\d+\.?\d*", "N", ours)

    assert forecast._seen("small")
    assert "your forecast" not in run_of(monkeypatch, "other").view.value


def test_a_plot_without_a_name_notes_nothing(monkeypatch, state):
    run_of(monkeypatch, "")
    assert not state.exists()
