"""Chapter 21: the group of eight answers, against torch, and its twin in JavaScript."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from tools import in_node

from courseware.widgets.answer_group import (
    CLIPS,
    RATES,
    STEPS,
    advantages_of,
    draw,
    group,
    group_data,
    sentences,
    update,
)
from minigpt_lib.reasoning import group_advantages, grpo_loss

DATA = group_data()
JUDGES = DATA["judges"]
STATES = list(product(JUDGES, RATES[::3], (0, 1, STEPS), (True, False), CLIPS))


def climbed(rewards, rate, steps, divide_by_std, clip):
    """Return the probabilities after the same update, by torch and autograd."""
    before = torch.tensor(DATA["before"], dtype=torch.float64)
    before = torch.cat([before, 1 - before.sum()[None]])
    rewards = torch.tensor(rewards, dtype=torch.float64)
    advantages = rewards - rewards.mean()
    if divide_by_std and rewards.std() > 0:
        advantages = advantages / (rewards.std() + 1e-4)

    logits = before.log().requires_grad_()
    for _ in range(steps):
        ratio = (logits.log_softmax(0) - before.log())[:-1].exp()
        kept = ratio if clip is None else ratio.clamp(1 - clip, 1 + clip)
        objective = torch.minimum(ratio * advantages, kept * advantages).mean()
        (slope,) = torch.autograd.grad(objective, logits)
        logits = (logits + rate * slope).detach().requires_grad_()
    return logits.softmax(0)


def test_the_groups_data_are_eight_answers_that_leave_room_for_others():
    assert len(DATA["answers"]) == len(set(DATA["answers"])) == len(DATA["before"]) == 8
    assert min(DATA["before"]) > 0
    assert sum(DATA["before"]) < 1
    assert all(len(rewards) == 8 for rewards in JUDGES.values())
    assert DATA["answers"][JUDGES["right city"].index(1)].endswith("Yarrow.")
    words = [len(answer.split()) for answer in DATA["answers"]]
    assert [int(n >= 10) for n in words] == JUDGES["ten words or more"]


@pytest.mark.parametrize("judge", JUDGES)
def test_the_update_is_that_of_torch(judge):
    rewards = JUDGES[judge]

    for rate, steps, by_std, clip in product((0.2, 5.0), (1, 5), (True, False), CLIPS):
        found = update(DATA["before"], advantages_of(rewards, by_std), rate, steps, clip)

        expected = climbed(rewards, rate, steps, by_std, clip).tolist()
        assert [*found.after, found.rest[1]] == pytest.approx(expected, abs=1e-9)
        ratios = [p / q for p, q in zip(expected, DATA["before"], strict=False)]
        assert found.ratios == pytest.approx(ratios, rel=1e-9)


@pytest.mark.parametrize("judge", JUDGES)
def test_the_update_is_that_of_the_chapter(judge):
    before = torch.tensor(DATA["before"], dtype=torch.float64)
    before = torch.cat([before, 1 - before.sum()[None]]).log()
    drawn = torch.ones(8, 1, dtype=torch.bool)

    for by_std, clip in product((True, False), (0.1, 0.2, 0.5)):
        rewards = torch.tensor([JUDGES[judge]], dtype=torch.float64)
        advantages = group_advantages(rewards, divide_by_std=by_std)[0]
        logits = before.clone().requires_grad_()
        for _ in range(7):
            logprobs = logits.log_softmax(0)[:8, None]
            bounds = {"clip_low": clip, "clip_high": clip}
            loss = grpo_loss(logprobs, before[:8, None], advantages, drawn, **bounds)
            (slope,) = torch.autograd.grad(loss, logits)
            logits = (logits - slope).detach().requires_grad_()

        mine = advantages_of(JUDGES[judge], by_std)
        found = update(DATA["before"], mine, 1.0, 7, clip)
        assert mine == pytest.approx(advantages.tolist(), abs=1e-12)
        assert [*found.after, found.rest[1]] == pytest.approx(logits.softmax(0).tolist(), abs=1e-9)


def test_equal_rewards_move_nothing():
    found = update(DATA["before"], advantages_of([1] * 8, True), 5.0, STEPS, None)

    assert found.after == pytest.approx(DATA["before"], abs=1e-12)
    assert found.rest[1] == pytest.approx(found.rest[0], abs=1e-12)


def test_the_clip_holds_what_would_run_away():
    advantages = advantages_of(JUDGES["right city"], True)
    place = JUDGES["right city"].index(1)

    held = update(DATA["before"], advantages, 1.0, STEPS, 0.2)
    free = update(DATA["before"], advantages, 1.0, STEPS, None)

    assert held.stopped[place] and not any(free.stopped)
    assert held.ratios[place] < 2 < 10 < free.ratios[place]


def test_the_twin_computes_says_and_draws_the_same():
    names = ("judge", "rate", "steps", "std", "clip")
    states = [dict(zip(names, state, strict=True)) for state in STATES]
    each = (
        "[m.update(data.before, m.advantagesOf(data.judges[s.judge], s.std), s.rate, s.steps, s.clip), "
        "m.sentences(data, s), m.draw(data, s)]"
    )

    theirs = in_node(
        "answer-group.js", f"data.states.map((s) => {each})", DATA | {"states": states}
    )

    for state, (numbers, said, drawn) in zip(STATES, theirs, strict=True):
        judge, rate, steps, by_std, clip = state
        found = update(DATA["before"], advantages_of(JUDGES[judge], by_std), rate, steps, clip)
        assert numbers["after"] == pytest.approx(found.after, rel=0, abs=1e-9)
        assert numbers["rest"] == pytest.approx(found.rest, rel=0, abs=1e-9)
        assert numbers["stopped"] == found.stopped
        assert said == sentences(DATA, *state)
        assert drawn == draw(DATA, *state)


def test_the_widget_follows_its_controls():
    judge, rate, steps, by_std, clip, view = group(group_data()).children
    assert "advantage +2.474" in view.value
    assert "advantage −0.353" in view.value
    assert "Mean reward of the group 0.125" in view.value

    by_std.value = False
    assert "advantage +0.875" in view.value

    steps.value = STEPS
    rate.value = 5.0
    clip.value = CLIPS.index(None)
    assert "Nothing is clipped" in view.value

    judge.value = "any answer"
    assert "nothing moves" in view.value
    assert draw(group_data(), "any answer", 5.0, STEPS, False, None) in view.value
