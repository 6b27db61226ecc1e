"""The drawings of chapter 15: from a pair of answers to the loss, and what a model says before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from courseware.widgets import figures
from courseware.widgets.drawings import Drawing


def pair_to_loss(now: Sequence[float], was: Sequence[float], beta: float) -> None:
    """Show the way from a pair to its loss: four log-probabilities, two rewards, a margin.

    now, was: ln p of the chosen and of the rejected answer, of the model and of the reference.
    """
    rewards = [beta * (mine - theirs) for mine, theirs in zip(now, was)]
    margin = rewards[0] - rewards[1]
    loss = math.log1p(math.exp(-margin))

    def said(value: float) -> str:
        return f"{value:g}".replace("-", "−")

    def taken(value: float) -> str:
        """Return a number as it is written behind a minus sign."""
        return f"({said(value)})" if value < 0 else said(value)

    d = Drawing(440, 356)
    for i, (name, colour) in enumerate((("chosen answer", "value"), ("rejected answer", "train"))):
        left = 8 + 224 * i
        d.box(left, 8, 200, 36, name, colour)
        for x, whose, value in ((left, "model", now[i]), (left + 104, "reference", was[i])):
            d.arrow(left + 100, 44, x + 48, 76)
            d.box(x, 76, 96, 54, colour=colour)
            d.text(x + 48, 97, whose, size=14)
            d.text(x + 48, 120, f"ln p = {said(value)}", size=15)
            d.arrow(x + 48, 130, left + 100, 164)
        d.box(left, 164, 200, 54, colour="residual")
        d.text(left + 100, 185, "its reward", size=14)
        worked = f"{beta:g} · ({said(now[i])} − {taken(was[i])}) = {said(rewards[i])}"
        d.text(left + 100, 208, worked, size=15)
        d.arrow(left + 100, 218, 220, 250)

    difference = f"margin {said(rewards[0])} − {taken(rewards[1])} = {said(margin)}"
    d.box(110, 250, 220, 36, difference, "query", size=15)
    d.arrow(220, 286, 220, 314)
    d.box(110, 314, 220, 36, f"loss −ln σ({said(margin)}) = {loss:.3f}", "train", size=15)
    d.show(
        alt=f"Each answer has two log-probabilities, the model's and the reference's: {now[0]:g} and {was[0]:g} for "
        f"the chosen, {now[1]:g} and {was[1]:g} for the rejected one. Beta = {beta:g} times their difference is "
        f"the answer's reward, {rewards[0]:g} and {rewards[1]:g}. The difference of the rewards is the margin, "
        f"{margin:g}, and minus the logarithm of its sigmoid is the loss, {loss:.3f}.",
        caption="From a pair to its loss: four numbers, two rewards, one margin.",
    )


def bars(results: Mapping[str, Mapping[str, tuple[float, float]]], alt: str) -> None:
    """Draw shares as groups of bars with error bars of two standard errors.

    results: for each model, by its name, (share, standard error) of each kind of answer, by its name.
    """
    import matplotlib.pyplot as plt

    figures.style()
    fig, ax = plt.subplots(figsize=(figures.WIDTH, 3.0))
    kinds = list(next(iter(results.values())))
    width = 0.8 / len(results)
    colours = ("residual", "value", "key", "query")
    for i, ((model, shares), colour) in enumerate(zip(results.items(), colours)):
        at = [place + (i - (len(results) - 1) / 2) * width for place in range(len(kinds))]
        heights = [shares[kind][0] for kind in kinds]
        errors = [2 * shares[kind][1] for kind in kinds]
        ax.bar(
            at, heights, width, yerr=errors, color=figures.COLOURS[colour], label=model, capsize=3
        )
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set(ylabel="share of answers", ylim=(0, 1))
    ax.legend(loc="upper right")
    figures.show(fig, alt=alt)
