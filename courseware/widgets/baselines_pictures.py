"""The drawings of chapter 04: a loss from scores, and a model with one hidden layer."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing


def from_scores() -> None:
    """Show three scores, their probabilities, and the penalty of the target in the middle."""
    d = Drawing(420, 214)
    for row, (label, values, colour) in enumerate(
        (
            ("scores", ("2.0", "1.0", "0.1"), ""),
            ("exponentials", ("7.39", "2.72", "1.11"), ""),
            ("probabilities", ("0.66", "0.24", "0.10"), "query"),
        )
    ):
        top = 6 + 58 * row
        d.text(114, top + 23, label, anchor="end")
        for i, value in enumerate(values):
            d.box(
                126 + 66 * i,
                top,
                60,
                34,
                value,
                "train" if row == 2 and i == 1 else colour,
                radius=2,
            )
        if row < 2:
            words = ("exp", "÷ their sum, 11.21")[row]
            d.arrow(222, top + 36, 222, top + 56)
            d.text(234, top + 52, words, anchor="start", size=14)
    d.arrow(222, 158, 222, 180)
    d.text(222, 204, "the target: penalty −ln 0.24 = 1.42 nats")
    d.show(
        alt="The scores 2.0, 1.0 and 0.1 become exponentials, 7.39, 2.72 and 1.11. Divided by their sum they are the "
        "probabilities 0.66, 0.24 and 0.10. The one of the target, 0.24, costs 1.42 nats.",
        caption="From scores to a penalty: exponentials, shares, and minus a logarithm.",
    )


def mlp() -> None:
    """Show how a model with a context of three tokens makes scores for the next one."""
    d = Drawing(420, 366)
    for i, token in enumerate(("t", "h", "e")):
        left = 22 + 130 * i
        d.box(left + 38, 6, 40, 34, token, "residual")
        d.arrow(left + 58, 40, left + 58, 66)
        if i == 0:
            d.text(left + 66, 58, "embedding", anchor="start", size=14)
        d.box(left, 66, 116, 34, "32 numbers", "query", size=15)
        d.arrow(left + 58, 100, left + 58, 126)
    d.box(22, 126, 376, 34, "side by side: 3 × 32 = 96 numbers", "query")
    d.arrow(210, 160, 210, 196)
    d.text(222, 183, "linear, then ReLU", anchor="start", size=14)
    d.box(82, 196, 256, 34, "hidden layer: 128 numbers", "key")
    d.arrow(210, 230, 210, 266)
    d.text(222, 253, "linear", anchor="start", size=14)
    d.box(82, 266, 256, 34, "70 scores, one for each token", "value")
    d.arrow(210, 300, 210, 330)
    d.text(210, 352, "softmax: what comes after “the”?")
    d.show(
        alt="Three tokens, t, h and e, become 32 numbers each by an embedding. Side by side they are 96 numbers. A "
        "linear layer with ReLU makes 128 hidden numbers of them, and another one 70 scores for the next token.",
        caption="A model with one hidden layer, for a context of three tokens.",
    )
