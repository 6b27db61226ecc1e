"""Chapter 09: the parameter counter and its twin count, draw and refuse as the library does."""

from __future__ import annotations

import random
from typing import Any

import pytest
from small_models import on_meta
from tools import in_node

from courseware.widgets.parameter_counter import (
    SIZES,
    counter_data,
    describe,
    draw,
    memory,
    parameter_counter,
    tenths,
)
from minigpt_lib.feedforward import ACTIVATIONS
from minigpt_lib.model import NORMS, POSITIONS, PRESETS, GPTConfig, count_parameters

FFNS = (*ACTIVATIONS, "swiglu")  # chapter 09's own: later chapters add to the registry
DATA = counter_data(PRESETS, position=POSITIONS, norm=NORMS, ffn=FFNS)


def counted(**choices) -> dict[str, int]:
    return count_parameters(on_meta(**choices))


def states() -> list[dict[str, Any]]:
    """Return the presets, 400 random positions of the controls, valid and invalid, and two odd widths."""
    generator = random.Random(0)
    choices = {
        **SIZES,
        "position": [*POSITIONS],
        "norm": [*NORMS],
        "ffn": [*FFNS],
        "tie_weights": [True, False],
        "bias": [True, False],
    }
    drawn = [
        {name: generator.choice(values) for name, values in choices.items()} for _ in range(400)
    ]
    odd = [
        {**drawn[0], "n_embd": 15, "n_head": 3, "n_kv_head": 3, "position": position}
        for position in ("rope", "sinusoidal")
    ]

    return [*DATA["presets"].values(), *drawn, *odd]


def expected_in(state: dict[str, Any]) -> list:
    """Return the error message, or the counts with their picture and their sentence."""
    try:
        counts = counted(**{**state, "n_layer": 1})  # more layers only multiply
    except ValueError as error:
        return [str(error), None, None, None]
    return ["", counts, draw(counts), describe(counts)]


@pytest.mark.slow
def test_the_twin_counts_draws_and_refuses_as_the_library_does():
    expected = [expected_in(state) for state in states()]
    refused = sum(bool(message) for message, *_ in expected)
    assert 50 < refused < 350, "the sample should contain both kinds"

    expression = (
        "data.states.map((s) => { s.n_layer = 1; const p = m.problems(s); if (p) return [p, null, null, null];"
        "const n = m.count(s); return ['', n, m.draw(data.colours, n), m.describe(n)]; })"
    )
    data = {"states": states(), "colours": DATA["colours"]}
    theirs = in_node("parameter-counter.js", expression, data)

    assert theirs == expected


def test_the_twin_gives_the_published_totals():
    presets = DATA["presets"]

    expression = "Object.values(data).map((s) => m.count(s).total)"
    totals = in_node("parameter-counter.js", expression, presets)

    assert dict(zip(presets, totals)) == {
        "laptop": 821_888,
        "gpt2_124m": 124_439_808 + 47 * 768,  # 47 rows of padding
        "fineweb_44m": 42_518_016,
        "llama3_8b": 8_030_261_248,
    }


def test_the_twin_formats_numbers_like_the_widget():
    values = [0, 1, 49, 50, 51, 999, 1000, 1250, 999_949, 999_950, 999_999]
    values += [10**6, 1_250_000, 32_121_044_992]

    theirs = in_node("parameter-counter.js", "data.map(m.memory)", values)

    assert theirs == [memory(value) for value in values]


def test_numbers_are_rounded_to_tenths():
    assert tenths(1, 4) == "0.3"
    assert tenths(12345, 10) == "1,234.5"
    assert memory(4 * 124_439_808) == "497.8 MB"


def test_the_widget_follows_its_controls_and_refuses_as_the_config_does():
    buttons, view, *controls = parameter_counter(DATA, counted).children
    control = {one.description: one for one in controls}
    assert "821,888 parameters: 3.3 MB in float32" in view.value

    next(button for button in buttons.children if button.description == "gpt2_124m").click()
    assert "124,475,904" in view.value
    assert control["position"].value == "learned"

    control["tie_weights"].value = False
    assert "163,109,376" in view.value

    control["n_head"].value = 32
    control["n_embd"].value = 1024
    control["n_kv_head"].value = 12
    with pytest.raises(ValueError) as error:
        GPTConfig(50304, 1024, 1024, 12, 32, 12)
    assert "Refused" in view.value
    assert str(error.value) in view.value
