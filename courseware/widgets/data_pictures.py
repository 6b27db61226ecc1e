"""The drawings of chapter 03: targets, the split, a batch, and the last window of a text."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing
from courseware.widgets.tokens import visible


def shift(text: str) -> None:
    """Show a window of `text` as inputs, and below it the targets: the same text one character on."""
    block_size = len(text) - 1
    left, step = 44, 44
    letters = [visible(character) for character in text]
    d = Drawing(left + step * (block_size + 1) + 8, 172)

    for t in range(block_size):
        d.text(left + step * t + 17, 16, f"t = {t}", size=14)
    d.text(34, 52, "x", anchor="end", mono=True)
    d.text(34, 152, "y", anchor="end", mono=True)
    for t in range(block_size + 1):
        if t < block_size:
            d.cells(left + step * t, 28, [letters[t]], "query")
        else:  # the character after the window, which is a target only
            d.cells(left + step * t, 28, [letters[t]])
        if t > 0:
            d.cells(left + step * (t - 1), 128, [letters[t]], "key")
            d.arrow(left + step * t + 9, 64, left + step * (t - 1) + 25, 126)
    d.show(
        alt=f"The inputs x are the first {block_size} characters of {text!r}. An arrow leads from each later character "
        "to the target below the character before it.",
        caption="y[t] is x[t + 1]: the target at each place is the character that comes next.",
    )


def cut() -> None:
    """Show the text as a bar: nine tenths to train on, and the last tenth, in one piece, to validate."""
    d = Drawing(420, 96)
    d.box(4, 30, 371, 38, "to train: 90%", "query", radius=2)
    d.box(375, 30, 41, 38, "10%", "key", radius=2, size=14)
    d.text(416, 20, "to validate", size=14, anchor="end")
    for x, words in (
        (38, "comedies"),
        (132, "histories"),
        (222, "problems"),
        (300, "…"),
        (378, "tragedies"),
    ):
        d.text(x, 88, words, size=14)
    d.show(
        alt="A bar for the whole text. The first nine tenths are for training; the last tenth, within the tragedies, "
        "is for validation.",
        caption="Comedies come first and tragedies last; the cut falls into Macbeth.",
    )


def batch(text: str, starts: list[int], block_size: int) -> None:
    """Show windows in a text, and the table of inputs and the table of targets that they make."""
    letters = [visible(character) for character in text]
    colours = ("query", "key", "value")
    small = 25
    d = Drawing(small * len(text) + 4, 110 + 30 * len(starts))

    d.cells(2, 4, letters, size=small, font=14)
    for row, start in enumerate(starts):
        window = letters[start : start + block_size + 1]
        d.cells(2 + small * start, 4, window, colours[row], size=small, font=14)
    middle = small * len(text) / 2
    d.arrow(middle, 34, middle, 62)

    d.text(2, 84, "x (B, T)", anchor="start")
    right = small * len(text) - small * block_size
    d.text(right, 84, "y (B, T)", anchor="start")
    for row, start in enumerate(starts):
        top = 96 + 30 * row
        d.cells(2, top, letters[start : start + block_size], colours[row], size=small, font=14)
        targets = letters[start + 1 : start + block_size + 1]
        d.cells(right, top, targets, colours[row], size=small, font=14)
    d.show(
        alt=f"A line of text with {len(starts)} coloured windows. Below, the windows are the rows of two tables: the "
        "inputs x, and the targets y, one character further on.",
        caption=f"A batch: B = {len(starts)} windows of T = {block_size} characters, and their targets.",
    )


def moved_back() -> None:
    """Show eleven tokens in windows of four: the third is moved back, and two of its targets do not count."""
    left, size = 30, 32
    d = Drawing(left + size * 11 + 4, 222)
    d.cells(left, 4, range(11), "residual", size=size, font=14)
    for row, (start, hidden, colour) in enumerate(
        ((0, 0, "query"), (4, 0, "key"), (6, 2, "value"))
    ):
        top = 62 + 56 * row
        d.text(left + size * start, top - 6, f"window {row}", anchor="start", size=14)
        for t in range(4):
            at = left + size * (start + 1 + t)
            if t < hidden:
                d.box(at, top, size, size, "−100", "", size=11, radius=2)
            else:
                d.cells(at, top, [start + 1 + t], colour, size=size, font=14)
    d.show(
        alt="Eleven tokens, numbered 0 to 10. Below them are the targets of three windows of four: 1 to 4, 5 to 8, and "
        "a third window, moved back, with twice -100 and then 9 and 10.",
        caption="The targets of each window. The last one ends with the text, and what was asked already is −100.",
    )
