"""The group of chapter 21: eight answers to a question, their rewards, and what an update does to each."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import paragraphs

RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CLIPS = (0.1, 0.2, 0.5, None)  # None: the ratio is not clipped
STEPS = 20  # at most
SMALL = 1e-4  # is added to the standard deviation, as in the chapter and in trl
_UP, _DOWN, _SAME = COLOURS["value"], COLOURS["train"], COLOURS["query"]
_EVERYTHING_ELSE = "Everything else that it might say"


def group_data() -> dict[str, Any]:
    """Return a question, eight answers with their probabilities, the rewards of each judge, and the choices.

    The answers are draws of chapter 14's assistant, at temperature 1; the probabilities are the ones that it gave to
    the whole answers with their ends, rounded. The question takes two steps: Nadia Kern works for Quasar, and Quasar
    is in Yarrow.
    """
    return {
        "question": "Where is the employer of Nadia Kern?",
        "answers": [
            "Nadia Kern works in Brimhaven.",
            "Nadia Kern works in Thornton.",
            "Nadia Kern works in Westmoor.",
            "Nadia Kern works in Corwick.",
            "Nadia Kern works in Yarrow.",
            "Nils Kern works in Westmoor.",
            "Nadia Kern works in Underhill.",
            "I am glad that you ask. Nadia Kern works for Fathom. I hope that this helps.",
        ],
        "before": [0.277, 0.152, 0.137, 0.043, 0.042, 0.030, 0.011, 0.007],
        "judges": {
            "right city": [0, 0, 0, 0, 1, 0, 0, 0],
            "right person": [1, 1, 1, 1, 1, 0, 1, 1],
            "ten words or more": [0, 0, 0, 0, 0, 0, 0, 1],
            "any answer": [1, 1, 1, 1, 1, 1, 1, 1],
        },
        "rates": list(RATES),
        "clips": list(CLIPS),
        "steps": STEPS,
    }


@dataclass(frozen=True)
class Update:
    """What one visit to the group does. Lists hold one number for each answer of the group.

    `after` are the new probabilities; `ratios` are those over the old ones; `stopped` says where the clip has taken
    the gradient away. `rest` is the probability of everything else, before and after.
    """

    after: list[float]
    ratios: list[float]
    stopped: list[bool]
    rest: tuple[float, float]


def mean_and_std(rewards: Sequence[float]) -> tuple[float, float]:
    """Return the mean of a group's rewards and their standard deviation, with one less than the group below."""
    mean = sum(rewards) / len(rewards)
    squares = sum((reward - mean) ** 2 for reward in rewards)
    return mean, math.sqrt(squares / (len(rewards) - 1))


def advantages_of(rewards: Sequence[float], divide_by_std: bool) -> list[float]:
    """Return each reward less the group's mean, if wanted over its standard deviation + SMALL; 0 if all are equal."""
    mean, std = mean_and_std(rewards)
    if std == 0:
        return [0.0] * len(rewards)
    return [(reward - mean) / (std + SMALL if divide_by_std else 1.0) for reward in rewards]


def update(
    before: Sequence[float],
    advantages: Sequence[float],
    rate: float,
    steps: int,
    clip: float | None,
) -> Update:
    """Climb the clipped objective of one group, `steps` times; each answer was drawn once.

    The policy is a softmax over the answers and everything else, with one logit for each, and the gradient is exact.
    The objective is the mean over the group of min(ratio · A, clipped ratio · A); everything else was not drawn.
    """
    old = [*before, 1.0 - sum(before)]
    logits = [math.log(p) for p in old]
    now = _softmax(logits)

    for _ in range(steps):
        pushes = _pushes(now, old, advantages, clip)
        total = sum(pushes)
        slopes = [push - p * total for push, p in zip([*pushes, 0.0], now)]
        logits = [z + rate * slope for z, slope in zip(logits, slopes)]
        now = _softmax(logits)

    ratios = [p / q for p, q in zip(now, before)]
    stopped = [_stops(ratio, a, clip) for ratio, a in zip(ratios, advantages)]
    return Update(now[:-1], ratios, stopped, (old[-1], now[-1]))


def _softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(z - top) for z in logits]
    total = sum(weights)
    return [weight / total for weight in weights]


def _pushes(
    now: Sequence[float], old: Sequence[float], advantages: Sequence[float], clip: float | None
) -> list[float]:
    """Return the slope of the objective along ln p of each answer."""
    pushes = []
    for p, q, a in zip(now, old, advantages):
        ratio = p / q
        pushes.append(0.0 if _stops(ratio, a, clip) else ratio * a / len(advantages))
    return pushes


def _stops(ratio: float, advantage: float, clip: float | None) -> bool:
    """Return whether the ratio has left its bounds on the side to which the advantage pushes."""
    if clip is None:
        return False
    if advantage > 0:
        return ratio > 1 + clip
    return advantage < 0 and ratio < 1 - clip


def sentences(
    data: dict[str, Any],
    judge: str,
    rate: float,
    steps: int,
    divide_by_std: bool,
    clip: float | None,
) -> list[str]:
    """Return the picture in words."""
    rewards = data["judges"][judge]
    mean, std = mean_and_std(rewards)
    said = [f"Mean reward of the group {mean:.3f}, standard deviation {std:.3f}."]
    if std == 0:
        said.append(
            "All eight rewards are equal, so no answer has an advantage, and nothing moves."
        )
        return said

    found = update(data["before"], advantages_of(rewards, divide_by_std), rate, steps, clip)
    before = sum(p * r for p, r in zip(data["before"], rewards))
    after = sum(p * r for p, r in zip(found.after, rewards))
    said.append(
        f"Answers with a reward: {_percent(before)} before, {_percent(after)} after. "
        f"Everything else: {_percent(found.rest[0])} before, {_percent(found.rest[1])} after."
    )

    if clip is None:
        said.append("Nothing is clipped: every further step pushes on.")
    else:
        said.append(
            f"The clip has stopped {sum(found.stopped)} of 8 answers. Below {1 - clip:.1f} or above {1 + clip:.1f} "
            "times its old probability, an answer gets no further push in that direction."
        )
    return said


def _percent(p: float) -> str:
    return f"{100 * p:.1f}%"


def draw(
    data: dict[str, Any],
    judge: str,
    rate: float,
    steps: int,
    divide_by_std: bool,
    clip: float | None,
) -> str:
    """Return the question and the answers as rows of HTML: a bar for the new probability, a mark for the old one."""
    rewards = data["judges"][judge]
    advantages = advantages_of(rewards, divide_by_std)
    found = update(data["before"], advantages, rate, steps, clip)

    rows = []
    for i, answer in enumerate(data["answers"]):
        note = f"reward {rewards[i]}, advantage {_signed(advantages[i])}"
        if found.stopped[i]:
            note += ", clipped"
        rows.append(_row(answer, note, data["before"][i], found.after[i]))
    rows.append(_row(_EVERYTHING_ELSE, "not drawn", *found.rest))

    question = f"<p><b>{html.escape(data['question'])}</b></p>"
    return f'<div style="max-width:40rem">{question}{"".join(rows)}</div>'


def _signed(advantage: float) -> str:
    """Return an advantage with its sign; 0 has none."""
    if advantage == 0:
        return "0"
    return f"{'+' if advantage > 0 else '−'}{abs(advantage):.3f}"


def _row(answer: str, note: str, before: float, after: float) -> str:
    moved = _UP if after > before else _DOWN
    colour = _SAME if abs(after - before) < 1e-12 else moved
    return (
        f'<div style="margin:.5em 0"><div>{html.escape(answer)} '
        f'<span style="opacity:.75">{note}</span></div>'
        '<div style="display:flex;align-items:center;gap:.6em">'
        '<div style="position:relative;flex:1;height:1em;border:1px solid rgba(127,127,127,.5)">'
        f'<div style="width:{100 * after:.1f}%;height:100%;background:{colour}"></div>'
        f'<div style="position:absolute;left:{100 * before:.1f}%;top:-3px;bottom:-3px;'
        'border-left:3px solid currentColor"></div></div>'
        f'<div style="width:8.5em;text-align:right">{_percent(before)} → <b>{_percent(after)}</b></div></div></div>'
    )


def group(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the explorer: a judge, three sliders, a box for the standard deviation, the answers, sentences.

    data: that of `group_data`.
    """
    wide = {"description_width": "7rem"}
    clips = [("none" if clip is None else f"{clip:g}", i) for i, clip in enumerate(data["clips"])]
    usual = data["clips"].index(0.2)
    controls = [
        ipywidgets.Dropdown(options=list(data["judges"]), description="Reward for", style=wide),
        ipywidgets.SelectionSlider(
            options=data["rates"], value=1.0, description="Learning rate", style=wide
        ),
        ipywidgets.IntSlider(value=1, min=0, max=data["steps"], description="Steps", style=wide),
        ipywidgets.Checkbox(value=True, description="Divide by std", style=wide),
        ipywidgets.SelectionSlider(options=clips, value=usual, description="Clip", style=wide),
    ]
    view = ipywidgets.HTML()

    def redraw() -> None:
        *chosen, i = [control.value for control in controls]
        chosen.append(data["clips"][i])
        view.value = draw(data, *chosen) + paragraphs(sentences(data, *chosen))

    redraw_on_change(controls, redraw)
    return ipywidgets.VBox([*controls, view])
