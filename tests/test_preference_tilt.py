"""Chapter 15: the explorer of the optimal policy, and its twin in JavaScript."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from tools import in_node

from courseware.widgets.preference_tilt import (
    BETAS,
    draw,
    sentences,
    tilt,
    tilt_data,
    tilt_of,
    worth,
)
from minigpt_lib.preferences import optimal_policy

DATA = tilt_data()
STATES = list(product(DATA["judges"], BETAS))


def test_the_explorers_data_are_probabilities_and_the_chapters_betas():
    assert sum(DATA["reference"]) == pytest.approx(1)
    assert DATA["betas"] == list(BETAS)


@pytest.mark.parametrize(("judge", "beta"), STATES)
def test_the_explorer_tilts_like_the_chapter(judge, beta):
    reference = DATA["reference"]
    rewards = DATA["judges"][judge]

    found = tilt_of(reference, rewards, beta)

    expected = optimal_policy(torch.tensor(reference).log(), torch.tensor(rewards), beta).exp()
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    mean, nats = worth(reference, rewards, found)
    assert nats >= 0
    assert mean >= worth(reference, rewards, reference)[0] - 1e-9


def test_the_twin_computes_and_says_the_same():
    each = "[m.tiltOf(data.reference, data.judges[j], b), m.sentences(data, j, b)]"
    call = f"data.states.map(([j, b]) => {each})"

    theirs = in_node("preference-tilt.js", call, DATA | {"states": STATES})

    for (judge, beta), (policy, said) in zip(STATES, theirs, strict=True):
        assert policy == pytest.approx(tilt_of(DATA["reference"], DATA["judges"][judge], beta))
        assert said == sentences(DATA, judge, beta)


def test_the_widget_follows_its_controls():
    judge, beta, view = tilt(tilt_data()).children
    assert "0.30 → <b>0.54</b>" in view.value
    assert "Mean reward 0.54" in view.value

    judge.value = "short"
    beta.value = 0.1

    assert "0.10 → <b>0.97</b>" in view.value
    assert draw(tilt_data(), "short", 0.1) in view.value
