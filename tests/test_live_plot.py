"""Chapter 10: the live plot of a training run, and its twin in JavaScript."""

from __future__ import annotations

import json
import re
import time

import pytest
from tools import in_node
from training_runs import plan

from courseware.runs import live

NUMBER = r"\d+\.?\d*"


def records(steps=320, samples=True):
    """Yield the records of a run that goes well, with a sample text at steps 1 and 128."""
    for step in range(1, steps + 1):
        record = {
            "step": step,
            "loss": 4 / step**0.2,
            "lr": 2.5e-3 * step / steps,
            "tokens_per_second": 9000 + step,
        }
        if step % 64 == 0 or step == steps:
            record |= {"val_loss": 4.1 / step**0.2, "bits_per_char": 5.9 / step**0.2}
        if samples and step in (1, 128):
            record["sample"] = f"KING <{step}> & so on:\nI am"
        yield record


def test_a_long_run_is_thinned_without_losing_evaluations_or_samples():
    data = {"steps": 320, "points": [], "evals": [], "samples": []}
    recent = []

    for record in records():
        live.collect(data, record, recent)

    points = data["points"]
    assert len(points) == 107 <= live.POINTS
    assert not recent
    assert [point[0] for point in points[:2]] == [3, 6]
    assert points[-1][0] == 320
    mean = sum(4 / step**0.2 for step in (1, 2, 3)) / 3
    assert points[0][1:] == [round(mean, 3), 0.02, 9002]
    assert [row[0] for row in data["evals"]] == [64, 128, 192, 256, 320]
    assert [row[0] for row in data["samples"]] == [1, 128]
    assert len(json.dumps(data)) < 60_000


def test_a_skipped_step_does_not_pull_the_curve_down():
    data = {"steps": 3, "points": [], "evals": [], "samples": []}
    recent = []

    common = {"lr": 1e-3, "tokens_per_second": 900}
    live.collect(data, {"step": 1, "loss": 4.0, **common}, recent)
    live.collect(data, {"step": 2, "loss": 0.0, "skipped": "no targets", **common}, recent)
    live.collect(
        data, {"step": 3, "loss": 0.0, "skipped": "as asked", "val_loss": 3.5, **common}, recent
    )

    assert data["points"] == [[1, 4.0, 1.0, 900]]
    assert data["evals"] == [[3, 3.5]]


@pytest.fixture(scope="module")
def shown():
    """Return the plot of a run, and what it sent to the notebook: each thing with its options."""
    sent = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "display", lambda thing, **options: sent.append((thing, options)))
        plot = live.LivePlot(plan(steps=320))
        for record in records():
            plot(record)
    return plot, sent


def test_the_plot_becomes_a_slider_and_stores_its_twin(shown):
    plot, sent = shown
    assert len(sent) == 2
    (widget, first_options), (final, last_options) = sent

    assert widget is plot.widget
    assert last_options["update"]
    assert first_options["display_id"] == last_options["display_id"]
    assert 'data-twin="training-run"' in final["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in final

    assert not plot.slider.disabled
    assert plot.slider.value == plot.slider.max == 106
    assert "KING &lt;128&gt; &amp; so on" in plot.view.value
    assert "Step 320 of 320" in plot.view.value

    plot.slider.value = 5
    assert "Step 18 of 320" in plot.view.value
    assert "text at step 1" in plot.view.value
    assert "validation loss 0" not in plot.view.value
    assert "left." not in plot.view.value


def test_the_plot_is_drawn_at_most_twice_a_second_and_costs_little_time(monkeypatch):
    drawn = []
    monkeypatch.setattr(live, "display", lambda *_, **__: None)
    monkeypatch.setattr(live, "draw", lambda data, index: drawn.append(index) or "")
    plot = live.LivePlot(plan(steps=2000))

    began = time.perf_counter()
    busy = time.process_time()
    for record in list(records(2000))[:-1]:
        plot(record)

    assert len(drawn) <= 2 + 2 * (time.perf_counter() - began)
    assert time.process_time() - busy < 2


def test_the_twin_says_and_draws_the_same(shown):
    data = shown[0].data
    places = [0, 1, 20, 21, 64, 106]
    call = f"{places}.map((i) => [m.describe(data, i), m.draw(data, i)])"

    theirs = in_node("training-run.js", call, data)

    for index, (said, drawn) in zip(places, theirs, strict=True):
        ours = live.draw(data, index)
        assert said == live.describe(data, index)
        assert re.sub(NUMBER, "N", drawn) == re.sub(NUMBER, "N", ours)
        pairs = zip(re.findall(NUMBER, drawn), re.findall(NUMBER, ours), strict=True)
        # JavaScript rounds halves in the other direction.
        assert all(abs(float(a) - float(b)) < 0.11 for a, b in pairs)


def test_the_twin_finds_the_latest_evaluation(shown):
    data = shown[0].data
    call = "[m.latest(data.evals, 63) ?? null, m.latest(data.evals, 130)]"

    assert in_node("training-run.js", call, data) == [None, live.latest(data["evals"], 130)]


def test_the_twin_says_the_same_without_bits_per_character_and_samples(shown):
    data = shown[0].data
    dialogs = data | {"evals": [row[:2] for row in data["evals"]], "samples": []}

    (said,) = in_node("training-run.js", "[m.describe(data, 64)]", dialogs)

    assert said == live.describe(dialogs, 64)
    assert "validation loss 1" in said
    assert "bits" not in said
