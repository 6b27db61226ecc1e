"""The drawings of chapter 12: what is scored of a question and its answer, and what each window counts."""

from __future__ import annotations

from collections.abc import Sequence

from courseware.widgets import figures
from courseware.widgets.drawings import Drawing
from courseware.widgets.tokens import visible


def scored(prompt: str, answer: str, log_probs: Sequence[float]) -> None:
    """Show a prompt and an answer character by character, with ln p below each character of the answer.

    log_probs: one for each character of the answer.
    """
    size = 34
    left = 12
    start = left + size * len(prompt)
    d = Drawing(left + size * (len(prompt) + len(answer)) + 12, 144)

    d.text(left, 20, "only read", anchor="start", size=14)
    d.text(start, 20, "scored", anchor="start", size=14)
    d.cells(left, 32, [visible(character) for character in prompt], "residual", size=size)
    d.cells(start, 32, [visible(character) for character in answer], "value", size=size)
    for i, value in enumerate(log_probs):
        middle = start + size * (i + 0.5)
        d.line(middle, 70, middle, 82)
        d.text(middle, 98, _signed(value), size=13)
    d.text(start, 132, f"sum of ln p: {_signed(sum(log_probs))}", anchor="start", size=15)
    d.show(
        alt=f"The prompt {prompt!r} is only read. Below each character of the answer {answer!r} stands ln p: "
        f"{', '.join(f'{value:.1f}' for value in log_probs)}, together {sum(log_probs):.1f}.",
        caption="The score of an answer: ln p of each of its characters, added up. The prompt itself has no score.",
    )


def windows(text: str, block: int, stride: int) -> None:
    """Show each window over `text` as a strip below it: what is counted there, and what is only read."""
    size = 28
    left = 96
    last = len(text) - block - 1
    begins = [*range(0, last, stride), last]
    d = Drawing(left + size * len(text) + 10, 74 + 36 * len(begins))

    d.text(left - 10, 25, "the text", anchor="end", size=15)
    d.cells(left, 6, list(text), size=size, font=14)
    done = 1
    said = []
    for row, begin in enumerate(begins):
        top = 46 + 36 * row
        end = begin + block + 1
        d.text(left - 10, top + 19, f"window {row + 1}", anchor="end", size=15)
        d.cells(left + size * begin, top, list(text[begin:done]), "residual", size=size, font=14)
        d.cells(left + size * done, top, list(text[done:end]), "value", size=size, font=14)
        said.append(f"window {row + 1} counts {text[done:end]}")
        done = end

    bottom = 52 + 36 * len(begins)
    d.box(left, bottom, 16, 14, colour="residual", radius=2)
    d.text(left + 22, bottom + 12, "only read", anchor="start", size=14)
    d.box(left + 110, bottom, 16, 14, colour="value", radius=2)
    d.text(left + 132, bottom + 12, "predicted and counted", anchor="start", size=14)
    d.show(
        alt=f"The text {text} with windows of {block} that move by {stride}: {'; '.join(said)}.",
        caption=f"Block {block}, stride {stride}: every letter but the first is counted once.",
    )


def two_results(n: int, yours: int, theirs: int) -> None:
    """Show two results of n questions each, and their difference, with error bars of one standard error."""
    import matplotlib.pyplot as plt

    figures.style()
    shares = [yours / n, theirs / n]
    errors = [(share * (1 - share) / (n - 1)) ** 0.5 for share in shares]
    difference = shares[0] - shares[1]
    of_difference = (errors[0] ** 2 + errors[1] ** 2) ** 0.5

    fig, (above, below) = plt.subplots(2, 1, figsize=(4.4, 3.4), height_ratios=[2, 1.2])
    for row, (share, error, colour) in enumerate(zip(shares, errors, ("query", "key"))):
        above.errorbar(
            100 * share,
            1 - row,
            xerr=100 * error,
            fmt="o",
            capsize=5,
            color=figures.COLOURS[colour],
        )
    above.set(
        xlabel="right answers (%)", xlim=(30, 70), ylim=(-0.6, 1.6), yticks=[1, 0],
        yticklabels=["yours", "theirs"],
    )  # fmt: skip

    below.axvline(0, color=figures.COLOURS["reference"], linestyle="--", linewidth=1.4)
    below.errorbar(
        100 * difference,
        0,
        xerr=100 * of_difference,
        fmt="o",
        capsize=5,
        color=figures.COLOURS["value"],
    )
    below.set(
        xlabel="difference (percentage points)", xlim=(-20, 20), ylim=(-0.6, 0.6), yticks=[0],
        yticklabels=["difference"],
    )  # fmt: skip
    figures.show(
        fig,
        alt=f"Above, two dots with error bars that overlap: {shares[0]:.0%} ± {errors[0]:.0%} and {shares[1]:.0%} ± "
        f"{errors[1]:.0%}. Below, their difference of {100 * difference:.0f} points ± {100 * of_difference:.0f}; the "
        "bar covers 0.",
        caption="Dots are results, and bars are one standard error to each side.",
    )


def _signed(value: float) -> str:
    """Return a number with one decimal and a real minus sign."""
    return f"{value:.1f}".replace("-", "−")
