"""The tilt of chapter 15: four answers, a judge and a beta; the best policy and what it is worth."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import paragraphs

BETAS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_BAR = COLOURS["query"]


def tilt_data() -> dict[str, Any]:
    """Return the chapter's four answers, the reference's probability of each, and each judge's rewards."""
    return {
        "answers": [
            "Ada Marlow was born in Corwick.",
            "Thank you for asking. Ada Marlow was born in Corwick. I hope that this helps.",
            "Ada Marlow was born in Yarrow.",
            "I do not know.",
        ],
        "reference": [0.3, 0.4, 0.2, 0.1],
        "judges": {
            "correct and short": [1.0, 0.0, 0.0, 0.0],
            "correct": [1.0, 1.0, 0.0, 0.0],
            "polite": [0.0, 1.0, 0.0, 0.0],
            "short": [0.5, 0.0, 0.5, 1.0],
        },
        "betas": list(BETAS),
    }


def tilt_of(reference: Sequence[float], rewards: Sequence[float], beta: float) -> list[float]:
    """Return the best policy: the reference times exp(reward / beta), normalised to sum to 1."""
    top = max(rewards)
    tilted = [p * math.exp((r - top) / beta) for p, r in zip(reference, rewards)]
    return [value / sum(tilted) for value in tilted]


def worth(
    reference: Sequence[float], rewards: Sequence[float], policy: Sequence[float]
) -> tuple[float, float]:
    """Return (mean reward, divergence from the reference in nats) of a policy."""
    mean = sum(p * r for p, r in zip(policy, rewards))
    nats = sum(p * math.log(p / q) for p, q in zip(policy, reference) if p > 0)
    return mean, max(0.0, nats)  # rounding may leave slightly less than 0


def sentences(data: dict[str, Any], judge: str, beta: float) -> list[str]:
    """Return the picture in words."""
    rewards = data["judges"][judge]
    reference = data["reference"]
    mean, nats = worth(reference, rewards, tilt_of(reference, rewards, beta))
    before, _ = worth(reference, rewards, reference)
    return [
        f"Mean reward {mean:.2f}, with the reference {before:.2f}; distance {nats:.2f} nats, which cost "
        f"{beta * nats:.2f}.",
        f"What is maximised: {mean:.2f} − {beta:g} × {nats:.2f} = {mean - beta * nats:.2f}.",
    ]


def draw(data: dict[str, Any], judge: str, beta: float) -> str:
    """Return the answers as rows of HTML: reward, a bar for the best policy, a mark for the reference."""
    rewards = data["judges"][judge]
    reference = data["reference"]
    policy = tilt_of(reference, rewards, beta)
    rows = "".join(map(_row, data["answers"], rewards, policy, reference))
    return f'<div style="max-width:40rem">{rows}</div>'


def _row(answer: str, reward: float, p: float, q: float) -> str:
    """Return one answer; p: its probability under the best policy, q: under the reference."""
    return (
        f'<div style="margin:.5em 0"><div>{html.escape(answer)} '
        f'<span style="opacity:.75">reward {reward:g}</span></div>'
        '<div style="display:flex;align-items:center;gap:.6em">'
        '<div style="position:relative;flex:1;height:1.1em;border:1px solid rgba(127,127,127,.5)">'
        f'<div style="width:{100 * p:.1f}%;height:100%;background:{_BAR}"></div>'
        f'<div style="position:absolute;left:{100 * q:.1f}%;top:-3px;bottom:-3px;'
        'border-left:3px solid currentColor"></div></div>'
        f'<div style="width:7.5em;text-align:right">{q:.2f} → <b>{p:.2f}</b></div></div></div>'
    )


def tilt(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the explorer: a judge, a slider for beta, the four answers, two sentences.

    data: that of `tilt_data`.
    """
    wide = {"description_width": "5rem"}
    judge = ipywidgets.Dropdown(options=list(data["judges"]), description="Judge", style=wide)
    beta = ipywidgets.SelectionSlider(
        options=data["betas"], value=1.0, description="Beta", style=wide
    )
    view = ipywidgets.HTML()

    def redraw() -> None:
        chosen = (judge.value, beta.value)
        view.value = draw(data, *chosen) + paragraphs(sentences(data, *chosen))

    redraw_on_change([judge, beta], redraw)
    return ipywidgets.VBox([judge, beta, view])
