"""The drawings of chapter 19: a block of half bytes, three tensors of a file that make one of ours, heads that copy."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt

from courseware.widgets import figures
from courseware.widgets.drawings import Drawing


def q4_1_block() -> None:
    """Show the 20 bytes of a Q4_1 block, and which numbers the two halves of a byte belong to."""
    d = Drawing(430, 190)
    d.text(8, 18, "one block: 20 bytes for 32 numbers", anchor="start", size=15)
    d.box(8, 28, 44, 34, "d", "key", size=15)
    d.box(56, 28, 44, 34, "m", "value", size=15)
    for i in range(16):
        x = 106 + 20 * i
        d.box(x, 28, 18, 17, "", "query", radius=2)
        d.box(x, 45, 18, 17, "", "residual", radius=2)
    d.text(54, 80, "2 + 2 bytes", size=13)
    d.text(266, 80, "16 bytes, two steps in each", size=13)

    d.arrow(115, 66, 115, 112, "residual")
    d.box(40, 116, 170, 30, "high half: number 17", "query", size=14)
    d.box(220, 116, 170, 30, "low half: number 1", "residual", size=14)
    d.text(215, 172, "w = d q + m, with a step q from 0 to 15", size=15)
    d.show(
        alt="A block of 20 bytes: two for the scale d, two for the minimum m, and sixteen with two steps in each. "
        "Of the first of these, the low half is the step of number 1, and the high half that of number 17. "
        "A number is w = d q + m.",
        caption="Thirty-two weights share a scale and a minimum.",
    )


def three_in_one(n_head: int = 9, n_kv_head: int = 3, head_dim: int = 64) -> None:
    """Show how the queries, keys and values of a file lie on top of one another in our qkv."""
    heights = {"q": 96.0, "k": 40.0, "v": 40.0}
    colours = {"q": "query", "k": "key", "v": "value"}
    heads = {"q": n_head, "k": n_kv_head, "v": n_kv_head}
    d = Drawing(430, 268)
    d.text(85, 18, "in the file", size=15)
    d.text(345, 18, "in MiniGPT", size=15)

    top, ours = 30.0, 46.0
    for name, height in heights.items():
        rows = heads[name] * head_dim
        d.box(8, top, 154, height, f"attn_{name}, {rows} rows", colours[name], size=14)
        d.box(268, ours, 154, height, "", colours[name], radius=0)
        d.arrow(166, top + height / 2, 262, ours + height / 2, colours[name])
        told = "as it is" if name == "v" else "reorder"
        d.text(214, (top + ours + height) / 2 - 8, told, size=13)
        top += height + 16
        ours += height
    total = sum(heads.values()) * head_dim
    d.text(345, ours + 22, f"attention.qkv, {total} rows", size=14)
    d.show(
        alt=f"Three tensors of the file, attn_q with {n_head * head_dim} rows, attn_k and attn_v with "
        f"{n_kv_head * head_dim} each, lie on top of one another in our attention.qkv with {total} rows. The rows "
        "of the first two are reordered on the way.",
        caption="Three tensors of the file make one of ours.",
    )


def head_scores(scores: Sequence[Sequence[float]]) -> None:
    """Show how much every head copies: a row for each head, a column for each layer, from 0 to 1."""
    figures.style()
    fig, ax = plt.subplots(figsize=(6.5, 2.6))
    by_head = list(zip(*scores, strict=True))
    image = ax.imshow(by_head, vmin=0, vmax=1, cmap=figures.ATTENTION_MAP, aspect="auto")
    ax.set(xlabel="layer", ylabel="head")
    ax.grid(False)
    fig.colorbar(image, label="score", pad=0.02)

    flat = [
        (score, layer, head) for layer, row in enumerate(scores) for head, score in enumerate(row)
    ]
    best, layer, head = max(flat)
    figures.show(
        fig,
        alt=f"A score from 0 to 1 for each of {len(flat)} heads. The largest is {best:.2f}, of head {head} in layer "
        f"{layer}; {sum(score > 0.3 for score, *_ in flat)} heads have more than 0.3.",
        caption="How much of its attention each head pays to the token that should be copied.",
    )
