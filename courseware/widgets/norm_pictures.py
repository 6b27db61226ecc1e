"""The drawings of chapter 07: a sublayer that replaces or adds, and where the norm stands."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing


def residual() -> None:
    """Show a sublayer that replaces its input beside one that adds to it."""
    d = Drawing(420, 250)

    d.text(85, 22, "replace", bold=True)
    d.text(85, 52, "x")
    d.arrow(85, 60, 85, 96)
    d.box(35, 96, 100, 36, "branch f", "query")
    d.arrow(85, 132, 85, 214)
    d.text(85, 236, "f(x)")

    d.text(310, 22, "add", bold=True)
    d.text(250, 52, "x")
    d.line(250, 60, 250, 170, "residual", 5)
    d.line(250, 82, 345, 82)
    d.arrow(345, 82, 345, 98)
    d.box(295, 98, 100, 36, "branch f", "query")
    d.line(345, 134, 345, 183)
    d.arrow(345, 183, 264, 183)
    d.circle(250, 183, 13, "+")
    d.line(250, 196, 250, 206, "residual", 5)
    d.arrow(250, 206, 250, 216, "residual")
    d.text(250, 238, "x + f(x)")
    d.show(
        alt="Left: x goes into the branch f, and only f(x) comes out. Right: x runs straight down as a thick grey "
        "stream, the branch f reads it from the side, and its result is added to the stream.",
        caption="A branch that replaces its input, and one that adds to it. The thick line is the residual stream.",
    )


def schools() -> None:
    """Show post-norm and pre-norm side by side: a norm on the stream, or inside the branch."""
    d = Drawing(430, 300)
    for left, name in ((60, "post-norm"), (275, "pre-norm")):
        d.text(left + 48, 22, name, bold=True)
        d.text(left, 52, "x")
        d.line(left, 60, left, 185, "residual", 5)
        d.line(left, 78, left + 95, 78)
        d.circle(left, 198, 13, "+")
        d.arrow(left + 95, 198, left + 14, 198)

    # post-norm: the stream itself passes the norm
    d.arrow(155, 78, 155, 118)
    d.box(105, 118, 100, 34, "branch f", "query")
    d.line(155, 152, 155, 198)
    d.arrow(60, 211, 60, 230, "residual")
    d.box(25, 230, 70, 32, "norm", "key")
    d.arrow(60, 262, 60, 290, "residual")

    # pre-norm: only the branch does
    d.arrow(370, 78, 370, 92)
    d.box(335, 92, 70, 32, "norm", "key")
    d.arrow(370, 124, 370, 140)
    d.box(320, 140, 100, 34, "branch f", "query")
    d.line(370, 174, 370, 198)
    d.line(275, 211, 275, 276, "residual", 5)
    d.arrow(275, 276, 275, 290, "residual")
    d.show(
        alt="Post-norm: the grey stream is added to the branch's result and then passes through the norm. Pre-norm: "
        "the norm stands inside the branch, before f, and the stream goes straight through with additions only.",
        caption="The norm stands on the stream (left), or only in the branch (right).",
    )
