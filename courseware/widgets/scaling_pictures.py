"""The drawings of chapter 18: a step of two ranks, a sum around a ring, and two ways to share a model."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing

_PIECES = ("query", "key", "value")  # a colour for each third of the numbers


def data_parallel() -> None:
    """Show a step of two ranks: own texts, own gradients, one sum, the same update."""
    d = Drawing(440, 330)
    for left, rank, texts in ((10, 0, "texts 0 to 7"), (240, 1, "texts 8 to 15")):
        middle = left + 95
        d.text(middle, 20, f"rank {rank}", bold=True)
        d.box(left, 32, 190, 34, texts)
        d.arrow(middle, 66, middle, 94)
        d.box(left, 94, 190, 34, "the whole model", "residual")
        d.arrow(middle, 128, middle, 156)
        d.box(left, 156, 190, 34, "its gradients", "train")
        d.arrow(middle, 190, middle, 220)
        d.arrow(middle, 254, middle, 284)
        d.box(left, 284, 190, 34, "the same step", "residual")

    d.box(10, 220, 420, 34, "all-reduce: add up, on both", "train")
    d.show(
        alt="Two columns, rank 0 and rank 1. Each reads its own eight texts, has the whole model and computes its own "
        "gradients. One box across both columns, the all-reduce, adds the gradients up. Then both make the same step.",
        caption="Data parallelism: different texts, one gradient, equal weights.",
    )


def ring() -> None:
    """Show how three ranks add up three pieces: in the beginning, after two rounds, after four."""
    d = Drawing(440, 362)
    before = [["a₀", "b₀", "c₀"], ["a₁", "b₁", "c₁"], ["a₂", "b₂", "c₂"]]
    added = [["", "Σb", ""], ["", "", "Σc"], ["Σa", "", ""]]
    whole = [["Σa", "Σb", "Σc"]] * 3
    frames = (
        (0, "before", before),
        (132, "after 2 rounds of adding (reduce-scatter)", added),
        (264, "after 2 more of passing on (all-gather)", whole),
    )
    for top, title, rows in frames:
        d.text(220, top + 20, title, bold=True)
        for rank, cells in enumerate(rows):
            x = 20 + 146 * rank
            colours = [name if words else "" for name, words in zip(_PIECES, cells)]
            d.cells(x, top + 32, cells, colours)
            d.text(x + 51, top + 88, f"rank {rank}", size=14)
            if rank < 2 and top < 264:
                d.arrow(x + 106, top + 49, x + 142, top + 49)
        if top < 264:
            d.line(415, top + 66, 415, top + 104)
            d.line(415, top + 104, 26, top + 104)
            d.arrow(26, top + 104, 26, top + 70)
    d.show(
        alt="Three ranks in a ring, each with three pieces a, b and c. Arrows lead from rank 0 to 1, from 1 to 2 and "
        "from 2 back to 0. After two rounds each rank holds the complete sum of one piece: rank 0 of b, rank 1 of c, "
        "rank 2 of a. After two more rounds every rank holds the sums of all three pieces.",
        caption="In each round, each rank sends one piece to its right neighbour.",
    )


def ways_to_share() -> None:
    """Show what each of two ranks keeps with DDP and with FSDP."""
    d = Drawing(440, 342)
    kinds = (("weights", "residual"), ("gradients", "train"), ("AdamW's m and v", "value"))
    for top, title in ((0, "DDP: each rank keeps everything"), (172, "FSDP: each keeps its share")):
        d.text(220, top + 20, title, bold=True)
        for rank in range(2):
            left = 10 + 230 * rank
            d.text(left + 95, top + 42, f"rank {rank}", size=14)
            for i, (words, colour) in enumerate(kinds):
                y = top + 50 + 36 * i
                if top == 0:
                    d.box(left, y, 190, 32, words, colour, size=15)
                    continue

                d.box(left, y, 190, 32, radius=2)
                d.box(left + 95 * rank, y, 95, 32, words.split("'s ")[-1], colour, size=15)
    d.show(
        alt="Above, DDP: both ranks keep all weights, all gradients and all of AdamW's running means. Below, FSDP: "
        "rank 0 keeps the first half of each, rank 1 the second half; the other half of each box is empty.",
        caption="With FSDP, a block's weights are whole only while it computes.",
    )
