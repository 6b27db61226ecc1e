"""The drawings of chapter 06: vectors that are turned, and the two ways to make pairs."""

from __future__ import annotations

import math

from courseware.widgets.drawings import Drawing

_UNIT = 38  # pixels for a length of 1


def turning() -> None:
    """Show (2, 1) turned by a right angle, and a query and a key turned by the same angle."""
    d = Drawing(440, 250)

    d.text(105, 20, "one vector, a right angle", bold=True, size=15)
    _axes(d, 75, 190)
    _vector(d, 75, 190, 2, 1, "residual", "(2, 1)", 28, 4)
    _vector(d, 75, 190, -1, 2, "query", "(−1, 2)", 0, -8)

    d.text(330, 20, "two vectors, both by 70°", bold=True, size=15)
    _axes(d, 310, 190)
    for degrees, name, dash in ((0, "", True), (70, "′", False)):
        for start, length, letter, colour in ((8, 2.4, "q", "query"), (38, 2.9, "k", "key")):
            angle = math.radians(start + degrees)
            x = length * math.cos(angle)
            y = length * math.sin(angle)
            _vector(d, 310, 190, x, y, colour, letter + name, 10, -3, dashed=dash)
    d.show(
        alt="Left: an arrow to (2, 1), and the same arrow turned anticlockwise by a right angle, to (-1, 2). Right: a "
        "query and a key, dashed, and both turned by 70 degrees; the angle between the two is the same as before.",
        caption="Turning keeps the length. Turning both keeps the angle between them.",
    )


def _axes(d: Drawing, x: float, y: float) -> None:
    d.line(x - 1.4 * _UNIT, y, x + 3 * _UNIT, y, "residual", 0.8)
    d.line(x, y + 0.6 * _UNIT, x, y - 3.4 * _UNIT, "residual", 0.8)


def _vector(
    d: Drawing,
    x: float,
    y: float,
    right: float,
    up: float,
    colour: str,
    words: str,
    dx: float,
    dy: float,
    dashed: bool = False,
) -> None:
    """Draw the vector (right, up) from (x, y) in pixels, with its name (dx, dy) pixels from its tip."""
    tip_x = x + right * _UNIT
    tip_y = y - up * _UNIT
    d.arrow(x, y, tip_x, tip_y, colour, dashed=dashed)
    d.text(tip_x + dx, tip_y + dy, words)


def pairs() -> None:
    """Show the order of three pairs in memory: interleaved and half-split."""
    colour = {"0": "query", "1": "key", "2": "value"}
    d = Drawing(420, 190)
    for top, name, order in (
        (8, "interleaved: neighbours are partners", "a₀ b₀ a₁ b₁ a₂ b₂"),
        (104, "half-split: partners are D/2 apart", "a₀ a₁ a₂ b₀ b₁ b₂"),
    ):
        values = order.split()
        d.text(60, top + 16, name, anchor="start")
        colours = [colour[str("₀₁₂".index(value[1]))] for value in values]
        d.cells(60, top + 26, values, colours, size=50, font=18)
    d.show(
        alt="Two rows of six cells for three pairs, one colour for each pair. Interleaved: a0 b0 a1 b1 a2 b2. "
        "Half-split: first a0 a1 a2, then b0 b1 b2.",
        caption="A head of width D = 6, three pairs: the same numbers in two orders.",
    )
