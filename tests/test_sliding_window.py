"""Chapter 12: the sliding window and its twin show the library's numbers."""

from __future__ import annotations

import pytest
from small_models import ALPHABET, bigram
from tools import in_node

from courseware.widgets.sliding_window import (
    begin_of,
    begins,
    describe,
    draw,
    sliding_window,
    window_data,
)
from minigpt_lib.evaluation import compute_perplexity


@pytest.fixture(scope="module")
def data():
    return window_data(bigram(5), ALPHABET, "a bad cab  " * 7)


def test_the_losses_are_those_of_the_library(data):
    for key, nats in data["nats"].items():
        block, stride = map(int, key.split("-"))
        found = compute_perplexity(
            bigram(5), ALPHABET, data["text"], block_size=block, stride=stride
        )
        assert sum(nats) / len(nats) == pytest.approx(found.loss, abs=0.005)


@pytest.mark.parametrize(("n", "block", "stride"), [(77, 8, 3), (11, 4, 2), (12, 4, 4), (9, 8, 8)])
def test_every_character_belongs_to_the_first_window_that_reaches_it(n, block, stride):
    for i in range(1, n):
        begin = begin_of(n, block, stride, i)
        earlier = [b for b in begins(n, block, stride) if b < begin]

        assert begin < i <= begin + block
        assert all(b + block < i for b in earlier)
        assert i - begin >= min(i, block - stride + 1)


def test_the_twin_draws_and_describes_the_same_as_the_widget(data):
    shown = {**data, "text": "a bad <b>\n& 'cab'" * 4 + "x" * 9}
    states = [
        {"block": block, "stride": stride, "i": i}
        for block in (2, 8, 64)
        for stride in (1, 4, 64)
        for i in (1, 9, 40, 76)
    ]

    expression = "data.states.map((s) => [m.describe(data, s), m.draw(data, s)])"
    theirs = in_node("sliding-window.js", expression, {**shown, "states": states})

    assert theirs == [[describe(shown, **s), draw(shown, **s)] for s in states]


def test_the_widget_follows_its_controls(data):
    block, stride, place, view = sliding_window(data).children
    assert "Block 8, stride 8" in view.value
    assert "Character 17" in view.value

    block.value = 4
    stride.value = 64
    place.value = 5
    assert "Block 4, stride 4" in view.value
    assert "after 1 character:" in view.value

    stride.value = 1
    assert "after 4 characters" in view.value
    assert "73 windows" in view.value
