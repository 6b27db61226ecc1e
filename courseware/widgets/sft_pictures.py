"""The drawings of chapter 14: dialogs padded and packed, and the detour of LoRA."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing

_COLOURS = ("query", "key", "value", "train")


def padded_and_packed(lengths: list[int], rows: list[list[int]], block_size: int) -> None:
    """Show dialogs of these lengths one to a row, and packed: `rows` says which dialogs share a row."""
    size, left = 26, 92
    d = Drawing(left + size * block_size + 60, 42 + (size + 8) * (len(lengths) + len(rows)) + 26)

    top = 8
    for words, layout in (
        ("padded", [[i] for i in range(len(lengths))]),
        ("packed", rows),
    ):
        d.text(8, top + 19, words, anchor="start")
        for row in layout:
            at = 0
            for i in row:
                d.cells(
                    left + size * at,
                    top,
                    [i + 1] * lengths[i],
                    _COLOURS[i % len(_COLOURS)],
                    size=size,
                )
                at += lengths[i]
            if at < block_size:
                d.cells(left + size * at, top, ["·"] * (block_size - at), size=size)
            top += size + 8
        top += 26
    places = block_size * len(lengths), block_size * len(rows)
    d.show(
        alt=f"{len(lengths)} dialogs of {', '.join(map(str, lengths))} tokens. Padded, each has a row of {block_size} "
        f"places. Packed, they fill {len(rows)} rows.",
        caption=f"{sum(lengths)} tokens take {places[0]} places when padded, and {places[1]} when packed.",
    )


def detour() -> None:
    """Show LoRA: x goes through the frozen W, and beside it through A, narrow, and B; the two are added."""
    d = Drawing(420, 176)
    d.text(24, 66, "x", mono=True)
    d.arrow(36, 60, 96, 60)
    d.box(98, 24, 196, 72, "W (frozen)", "residual")
    d.arrow(294, 60, 346, 60)
    d.circle(358, 60, 11, "+")
    d.arrow(370, 60, 412, 60)

    d.line(60, 60, 60, 142)
    d.arrow(60, 142, 96, 142)
    d.box(98, 122, 70, 40, "A", "query")
    d.arrow(168, 142, 222, 142)
    d.text(195, 132, "r", mono=True, size=14)
    d.box(224, 122, 70, 40, "B", "key")
    d.line(294, 142, 358, 142)
    d.arrow(358, 142, 358, 73)
    d.text(330, 132, "α / r", size=14)
    d.show(
        alt="A vector x goes to the right through a large grey box W, which is frozen. Below it, a second way leads "
        "from x through a small box A, a narrow channel of width r, and a small box B. Scaled by alpha over r, its "
        "result is added to that of W.",
        caption="The large matrix stays as it is; only A and B learn.",
    )
