"""The drawings of chapter 16: what fits the window, and which row of attention wrote which token."""

from __future__ import annotations

from collections.abc import Sequence

from courseware.widgets.drawings import Drawing


def window(parts: Sequence[tuple[str, int, bool]], room: int, answer: int) -> None:
    """Show which parts of a conversation fit the window, as boxes whose widths are tokens.

    parts: a name, its tokens, and whether it stays, in the order in which they were said. room, answer: how many
    tokens a prompt and an answer may have.
    """
    scale = 400 / (sum(n for _, n, _ in parts) + answer)
    d = Drawing(440, 150)
    d.text(16, 20, "everything that was said", anchor="start", size=14)
    x = 16.0
    for _name, n, stays in parts:
        d.box(x, 30, scale * n, 34, colour="query" if stays else "", radius=3)
        d.text(x + scale * n / 2, 51, str(n), size=14)
        x += scale * n

    d.text(
        16,
        88,
        f"the window: {room} for the prompt, {answer} for the answer",
        anchor="start",
        size=14,
    )
    x = 16.0
    for _name, n, stays in parts:
        if stays:
            d.box(x, 98, scale * n, 34, str(n), "query", size=14, radius=3)
            x += scale * n
    d.box(16 + scale * room, 98, scale * answer, 34, str(answer), "value", size=14, radius=3)

    kept = ", ".join(f"{name} ({n})" for name, n, stays in parts if stays)
    lost = ", ".join(f"{name} ({n})" for name, n, stays in parts if not stays)
    d.show(
        alt=f"Two rows of boxes as wide as their tokens. Above, all parts of the conversation. Below, the window: "
        f"{kept} stay, {lost} is left out, and {answer} tokens are free for the answer.",
        caption="From left to right: the system message, three turns, the question with the header of its answer. "
        "The grey turn is left out.",
    )


def rows(tokens: Sequence[str], start: int) -> None:
    """Show from which position each token of an answer was written; start: the position of the answer's first."""
    d = Drawing(440, 132)
    step = 400 / len(tokens)
    for i, token in enumerate(tokens):
        x = 20 + step * i
        colour = "value" if i >= start else "query"
        d.text(x + step / 2 - 10, 20, f"position {i}", size=14)
        d.box(x, 30, step - 20, 34, token, colour, radius=3)
        if i >= start:
            begin = x - step / 2 - 2
            end = x + step / 2 - 18
            d.line(begin, 66, begin, 92, "value")
            d.line(begin, 92, end, 92, "value")
            d.arrow(end, 92, end, 66, "value")
            d.text(x - 10, 112, f"row {i - 1}", size=14)

    written = "; ".join(
        f"{tokens[i]} at position {i} was written from row {i - 1}"
        for i in range(start, len(tokens))
    )
    d.show(
        alt=f"A row of {len(tokens)} tokens with arrows from each position to the next. {written}.",
        caption="An arrow leads from the position whose row was used to the token that it wrote.",
    )
