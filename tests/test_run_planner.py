"""Chapter 18: the planner says what the library says, and so does its twin in JavaScript."""

from __future__ import annotations

from itertools import product

import pytest
from tools import in_node

from courseware.widgets.run_planner import compute, describe, draw, limits, planner, planner_data
from minigpt_lib.costs import plan
from minigpt_lib.model import GPTConfig

CONFIGS = {  # by their position among the planner's models
    1: GPTConfig.preset("gpt2_124m", vocab_size=50257),
    3: GPTConfig.preset("llama3_8b"),
}


@pytest.fixture(scope="module")
def data():
    return planner_data()


@pytest.mark.parametrize("model", CONFIGS)
@pytest.mark.parametrize("fleet", [0, 3, 6])
@pytest.mark.parametrize("sharing", [0, 1])
def test_the_planner_computes_what_the_library_plans(data, model, fleet, sharing):
    found = compute(data, model, 2, 4, fleet, sharing)

    expected = plan(
        CONFIGS[model],
        data["tokens"][4],
        data["fleets"][fleet],
        parallel=data["sharing"][sharing],
    )
    for key in ("days", "euros", "memory", "flops"):
        assert found[key] == pytest.approx(expected[key])
    assert found["sends"] == pytest.approx(expected["bandwidth"])


@pytest.mark.parametrize(
    ("found", "limit"),
    [
        ({"fits": 1.1, "batch": 2, "sent": 2}, "fit"),
        ({"fits": 1.0, "batch": 2, "sent": 2}, "batch"),
        ({"fits": 1.0, "batch": 1, "sent": 2}, "network"),
        ({"fits": 1.0, "batch": 1, "sent": 1.0}, "Computing"),
    ],
)
def test_the_first_limit_is_named(found, limit):
    assert limit in limits(found)


def test_the_twin_says_and_draws_the_same(data):
    keys = ("model", "gpu", "tokens", "fleet", "sharing")
    places = list(product(range(6), range(4), (0, 3, 9), range(0, 10, 3), (0, 1)))
    states = [dict(zip(keys, place, strict=True)) for place in places]
    call = "data.states.map((s) => [m.describe(data.knobs, s), m.draw(data.knobs, s)])"

    theirs = in_node("run-planner.js", call, {"knobs": data, "states": states})

    assert theirs == [[describe(data, *place), draw(data, *place)] for place in places]


def test_the_widget_follows_its_controls(data):
    *controls, view = planner(data).children
    assert "Llama 3 8B on 15.0 trillion tokens" in view.value
    assert "1024 × H100 SXM" in view.value

    for control, value in zip(controls, (0, 0, 1, 0, 0), strict=True):
        control.value = value

    assert "MiniGPT 44M on 1.0 billion tokens" in view.value
    assert "1 × RTX 4090" in view.value
    assert "Computing is the limit" in view.value
