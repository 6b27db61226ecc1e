"""The drawings of chapter 05: what a head does, and how heads are cut and merged."""

from __future__ import annotations

from collections.abc import Sequence

from courseware.widgets.drawings import Drawing


def head() -> None:
    """Show how x becomes queries, keys and values, then scores, weights and a mixture."""
    d = Drawing(440, 372)
    d.box(130, 8, 180, 36, "x  (T, C)", "residual")

    for x, name, words in (
        (20, "query", "Q  (T, D)"),
        (160, "key", "K  (T, D)"),
        (300, "value", "V  (T, D)"),
    ):
        d.arrow(220, 44, x + 60, 84)
        d.box(x, 84, 120, 36, words, name)

    d.arrow(80, 120, 130, 160)
    d.arrow(220, 120, 170, 160)
    d.box(60, 160, 180, 36, "scores  Q Kᵀ / √D")
    d.text(252, 183, "compare", anchor="start")

    d.arrow(150, 196, 150, 230)
    d.box(60, 230, 180, 36, "weights  (T, T)")
    d.text(252, 246, "mask, softmax:", anchor="start")
    d.text(252, 264, "weigh", anchor="start")

    d.arrow(150, 266, 190, 322)
    d.line(400, 120, 400, 290)
    d.arrow(400, 290, 250, 322)
    d.box(130, 322, 180, 36, "weights · V  (T, D)", "value")
    d.text(322, 345, "average", anchor="start")
    d.show(
        alt="Three arrows lead from x to queries Q, keys K and values V. Q and K are compared into scores, Q times K "
        "transposed over the root of D. Mask and softmax turn the scores into weights, which average the values V.",
        caption="A head: three views of each token; compare, weigh, average.",
    )


def one_query(
    words: Sequence[str],
    scores: Sequence[float],
    weights: Sequence[float],
    values: Sequence[Sequence[float]],
) -> None:
    """Show how the query of the last word meets every key, and what it takes home."""
    n_words = len(words)
    bottom = 74 + 44 * n_words
    d = Drawing(440, bottom + 56)
    d.box(8, 8, 92, 34, words[-1], "query")
    d.text(54, 60, "its query", size=14)
    for x, title in ((208, "score"), (262, "weight"), (382, "value")):
        d.text(x, 30, title, size=14)

    for i, (word, score, weight, value) in enumerate(zip(words, scores, weights, values)):
        y = 46 + 44 * i
        d.line(100, 25, 118, y + 17, "query", 1.2)
        d.box(118, y, 60, 34, word, "key", size=15)
        d.text(208, y + 22, f"{score:.2f}", size=15)
        d.box(236, y + 6, max(1.0, 60 * weight), 22, colour="residual", radius=2)
        d.text(304, y + 22, f"{weight:.2f}", anchor="start", size=15)
        d.box(346, y, 86, 34, ", ".join(f"{v:.2f}" for v in value), "value", size=14)

    result = [sum(w * v[i] for w, v in zip(weights, values)) for i in range(len(values[0]))]
    d.arrow(389, bottom - 30, 389, bottom)
    d.box(330, bottom, 104, 34, ", ".join(f"{v:.2f}" for v in result), "value", size=15)
    d.text(318, bottom + 22, "the values, mixed by their weights", anchor="end", size=15)
    d.show(
        alt=f"The query of {words[-1]} is compared with the keys of {', '.join(words)}. The scores are "
        f"{', '.join(f'{score:.2f}' for score in scores)}; softmax makes them the weights "
        f"{', '.join(f'{weight:.2f}' for weight in weights)}, which mix the four values into one.",
        caption="One query: compare, weigh, average.",
    )


def split_and_merge() -> None:
    """Show two tokens of six channels cut into three heads, and laid side by side again."""
    colours = ["query", "query", "key", "key", "value", "value"]
    tokens = [[10, 11, 12, 13, 14, 15], [20, 21, 22, 23, 24, 25]]
    d = Drawing(440, 400)

    d.text(10, 22, "(B, T, C): a row for each token", anchor="start")
    for row, values in enumerate(tokens):
        d.cells(118, 34 + 36 * row, values, colours)
        d.text(106, 56 + 36 * row, f"token {row}", anchor="end")

    d.arrow(220, 112, 220, 142)
    d.text(236, 132, "view, transpose", anchor="start", mono=True, size=15)
    d.text(10, 166, "(B, H, T, D): each head has both tokens", anchor="start")
    for head_number, colour in enumerate(("query", "key", "value")):
        left = 40 + 136 * head_number
        for row, values in enumerate(tokens):
            cut = values[2 * head_number : 2 * head_number + 2]
            d.cells(left, 178 + 36 * row, cut, colour)
        d.text(left + 34, 270, f"head {head_number}")

    d.arrow(220, 282, 220, 312)
    d.text(236, 302, "transpose, flatten", anchor="start", mono=True, size=15)
    for row, values in enumerate(tokens):
        d.cells(118, 322 + 36 * row, values, colours)
        d.text(106, 344 + 36 * row, f"token {row}", anchor="end")
    d.show(
        alt="Two tokens as rows of six numbered channels, coloured in pairs. Cutting gives three heads, each with two "
        "channels of both tokens. Transposing and flattening puts the pairs side by side again, as they were.",
        caption="Six channels, three heads: cut, and laid side by side again.",
    )
