"""Chapter 22: the ruler rounds as the library does, and its twin in JavaScript does the same."""

from __future__ import annotations

import re
from itertools import product

import pytest
import torch
from tools import in_node

from courseware.widgets.rounding_ruler import (
    BITS,
    GROUPS,
    bits_per_weight,
    describe,
    draw,
    rounded,
    rounding_ruler,
    ruler_data,
)
from minigpt_lib.quantization import quantize


@pytest.fixture(scope="module")
def data():
    return ruler_data()


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize(("bits", "size"), product((4, 8), GROUPS))
@pytest.mark.parametrize("counted", [0, 1])
def test_the_ruler_rounds_as_the_library_does(data, row, bits, size, counted):
    weights = data["rows"][row]["weights"]
    theirs = quantize(torch.tensor([weights]), bits, size, symmetric=counted == 0)

    groups = rounded(weights, bits, size, counted)

    steps = torch.tensor([group.step for group in groups])
    scales = theirs.scales[0].float()
    # The library keeps a scale and a lowest weight in bfloat16. It rounds the one up and the other down, each by less
    # than 2^-6 of its size, and a lower start makes the steps longer.
    lower = torch.tensor([abs(group.origin) * 2**-6 / group.highest for group in groups])
    assert (scales >= steps).all()
    assert (scales <= (steps + lower) * (1 + 2**-6)).all()
    back = torch.tensor([weight for group in groups for weight in group.restored])
    both = ((scales + steps) / 2).repeat_interleave(size)  # each is half a step from the weight
    assert ((theirs.dequantize()[0] - back).abs() <= both + 1e-6).all()
    assert theirs.bits_per_weight == bits_per_weight(bits, size, counted)


@pytest.mark.parametrize(("bits", "size", "counted"), product(BITS, GROUPS, (0, 1)))
def test_no_weight_moves_by_more_than_half_a_step(data, bits, size, counted):
    for row in data["rows"]:
        for group in rounded(row["weights"], bits, size, counted):
            assert all(group.lowest <= code <= group.highest for code in group.codes)
            for weight, back in zip(group.weights, group.restored, strict=True):
                assert abs(back - weight) <= group.step / 2 + 1e-12


def test_equal_weights_need_no_step():
    (group,) = rounded([0.0, 0.0], 4, 2, 0)
    assert group.restored == [0.0, 0.0]
    (group,) = rounded([0.7, 0.7], 4, 2, 1)
    assert group.restored == [0.7, 0.7]


def test_one_outlier_makes_the_error_of_the_whole_row(data):
    def error(row, size):
        return float(re.search(r"Typical error ([\d.]+)", describe(data, row, 4, size, 0)[1])[1])

    assert error(1, 32) > 3 * error(0, 32)
    assert error(1, 4) < error(1, 32) / 2


def test_the_sentences_count_levels_and_bytes(data):
    levels, _, n_bytes = describe(data, 1, 4, 8, 1)
    assert levels.startswith("4 bits, from the lowest weight: 16 levels for each 8 weights, steps")
    assert n_bytes == (
        "4 bits for a code, and a scale and a lowest weight of 16 bits for each 8: 8.00 bits per weight, "
        "32 bytes for the row instead of 128."
    )
    assert describe(data, 1, 4, 32, 0)[0] == (
        "4 bits, symmetric: 15 levels for each 32 weights, a step of 0.429."
    )


def test_the_twin_draws_and_describes_the_same_as_the_widget(data):
    keys = ("row", "bits", "size", "counted")
    places = list(product(range(3), BITS, GROUPS, (0, 1)))
    states = [dict(zip(keys, place, strict=True)) for place in places]
    call = "data.states.map((s) => [m.describe(data.knobs, s), m.draw(data.knobs, s)])"

    theirs = in_node("rounding-ruler.js", call, {"knobs": data, "states": states})

    assert theirs == [[describe(data, *place), draw(data, *place)] for place in places]


def test_the_widget_follows_its_controls(data):
    row, bits, size, counted, view = rounding_ruler(data).children
    assert "15 levels for each 32 weights" in view.value
    assert view.value.count("<circle") == 32

    bits.value = 3
    size.value = 16
    counted.value = 1
    row.value = 0
    assert "3 bits, from the lowest weight: 8 levels for each 16 weights" in view.value
    assert "5.00 bits per weight" in view.value
