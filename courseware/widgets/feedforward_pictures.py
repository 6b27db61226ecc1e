"""The drawings of chapter 08: a layer that widens and narrows, a gated layer, and shares of a model's parameters."""

from __future__ import annotations

from collections.abc import Mapping

from courseware.widgets.drawings import Drawing


def widen_and_narrow() -> None:
    """Show C channels widened to 4 C hidden numbers and narrowed to C again, for C = 4."""
    d = Drawing(440, 262)
    size = 26
    middle = 220

    def row(y: int, n_cells: int, colour: str) -> None:
        d.cells(middle - n_cells * size / 2, y, [""] * n_cells, colour, size=size)

    row(24, 4, "residual")
    d.text(160, 42, "x  (C)", anchor="end")
    d.line(middle - 52, 54, middle - 208, 108, "residual")
    d.line(middle + 52, 54, middle + 208, 108, "residual")
    d.text(middle, 88, "up:  C × 4C")

    row(112, 16, "query")
    d.text(middle, 157, "4C hidden numbers")

    d.line(middle - 208, 142, middle - 52, 216, "residual")
    d.line(middle + 208, 142, middle + 52, 216, "residual")
    d.text(middle, 192, "down:  4C × C")
    row(220, 4, "residual")
    d.text(160, 238, "result  (C)", anchor="end")
    d.show(
        alt="A row of 4 cells, x, opens like a funnel into a row of 16 cells, the hidden numbers, and closes again to "
        "a row of 4. The way up is a matrix of C by 4C, the way down one of 4C by C.",
        caption="Widen and narrow, for C = 4. Every token goes through on its own.",
    )


def gated() -> None:
    """Show x taking two ways up, through the gate and its SiLU and through up, and their product going down."""
    d = Drawing(440, 322)
    d.box(150, 8, 140, 36, "x  (C)", "residual")
    d.arrow(205, 44, 120, 82)
    d.arrow(235, 44, 320, 82)
    d.box(50, 82, 140, 36, "gate  C × h", "query")
    d.box(250, 82, 140, 36, "up  C × h", "value")

    d.arrow(120, 118, 120, 150)
    d.box(50, 150, 140, 36, "SiLU", "query")
    d.arrow(120, 186, 205, 215)
    d.line(320, 118, 320, 186)
    d.arrow(320, 186, 235, 215)
    d.circle(220, 221, 14, "⊙")
    d.text(246, 227, "number by number", anchor="start", size=15)

    d.arrow(220, 235, 220, 266)
    d.box(150, 266, 140, 36, "down  h × C", "residual")
    d.show(
        alt="Two arrows lead from x, one to the matrix gate and on through SiLU, one to the matrix up. Both results, h "
        "numbers each, are multiplied number by number, and the matrix down narrows the product to C channels.",
        caption="A gated layer: two ways up, a product, one way down.",
    )


def shares(models: Mapping[str, Mapping[str, int]]) -> None:
    """Show for each model a bar of its parts: models maps a name to the parameters of each part."""
    colours = {"feed-forward": "query", "attention": "key"}
    d = Drawing(440, 50 + 84 * len(models))

    left = 0
    for part in next(iter(models.values())):
        d.box(left, 4, 18, 18, "", colours.get(part, "residual"), radius=2)
        d.text(left + 25, 19, part, anchor="start", size=15)
        left += 52 + 7.5 * len(part)

    words = []
    for i, (name, parts) in enumerate(models.items()):
        top = 44 + 84 * i
        total = sum(parts.values())
        d.text(0, top + 16, f"{name}, {total:,} parameters", anchor="start", size=15)

        left = 2.0
        said = []
        for part, n_parameters in parts.items():
            width = 436 * n_parameters / total
            share = f"{n_parameters / total:.0%}"
            d.box(left, top + 26, width, 34, share, colours.get(part, "residual"), radius=2)
            left += width
            said.append(f"{part} {share}")
        words.append(f"{name}: {', '.join(said)}")
    d.show(alt=f"A bar for each model, divided into the shares of its parts. {'; '.join(words)}.")
