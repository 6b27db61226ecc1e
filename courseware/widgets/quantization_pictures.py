"""The drawings of chapter 22: few bits, and guesses that are checked."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from courseware.widgets.drawings import Drawing
from courseware.widgets.tokens import visible


def steps_of_groups(row: Tensor, bits: int, groups: Sequence[int]) -> None:
    """Show a row of weights, and the steps that its groups get: the levels that each weight may take.

    row (N,). groups: the sizes of groups to compare, each in a panel of its own.
    """
    width, panel = 440, 190
    d = Drawing(width, panel * len(groups))
    left, right = 14, width - 14
    largest = row.abs().max().item()
    most = 2 ** (bits - 1) - 1

    for i, size in enumerate(groups):
        top = panel * i
        middle = top + 104
        high = 66 / largest  # pixels per unit of weight
        words = f"a scale for {'the whole row' if size == len(row) else f'each {size} weights'}"
        d.text(left, top + 20, words, anchor="start", bold=True, size=15)

        place = (right - left) / len(row)
        for first in range(0, len(row), size):
            step = row[first : first + size].abs().max().item() / most
            x1 = left + place * first + 1
            x2 = left + place * (first + size) - 1
            for level in range(-most, most + 1):
                y = middle - high * step * level
                d.line(x1, y, x2, y, "valid", 0.7 if level else 1.4)
        for j, weight in enumerate(row.tolist()):
            d.circle(left + place * (j + 0.5), middle - high * weight, 2.2, colour="train")

    shown = ", ".join(f"{size}" for size in groups)
    d.show(
        alt=f"{len(row)} weights as dots, one of them ten times as high as the rest, in panels for groups of {shown}. "
        f"Lines are the {2 * most + 1} levels that {bits} bits can name: with one scale for the row they lie far apart "
        "and most weights fall on the same few; with small groups only the outlier's own group has such coarse levels.",
        caption="Dots are weights, lines the levels to which they are rounded.",
    )


def rounds(prompt: str, pieces: Sequence[tuple[Sequence[str], str]]) -> None:
    """Show what each round of speculative decoding wrote.

    prompt: the text before. pieces: for each round the accepted guesses and the token that the model added itself.
    """
    d = Drawing(440, 34 * len(pieces) + 40)
    d.text(8, 20, f"after “{visible(prompt)}”", anchor="start", size=15, bold=True)
    for i, (accepted, own) in enumerate(pieces):
        y = 32 + 34 * i
        d.text(30, y + 20, f"{i + 1}", anchor="end", size=14)
        x = 40.0
        for text, colour in [*((text, "value") for text in accepted), (own, "train")]:
            words = visible(text)
            wide = 12 + 9 * len(words)
            d.box(x, y, wide, 27, words, colour, size=14, radius=3)
            x += wide + 3
    total = sum(len(accepted) + 1 for accepted, _ in pieces)
    d.show(
        alt=f"{len(pieces)} rounds that wrote {total} tokens. "
        "Each row: the guesses that the model accepted, then the token that it added.",
        caption="One row is one pass of the model: accepted guesses in green, the model's own token in orange.",
    )
