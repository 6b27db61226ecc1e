"""The drawings of chapter 17: shared key heads, tiles of scores, and a queue of tokens for experts."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing


def shared_heads() -> None:
    """Show four query heads with four, two and one heads of keys and values."""
    d = Drawing(440, 268)
    kinds = ((4, "multi-head"), (2, "grouped"), (1, "multi-query"))
    for row, (n_kv_head, name) in enumerate(kinds):
        top = 6 + 90 * row
        d.text(8, top + 22, name, anchor="start", size=15, bold=True)
        heads = "key heads" if n_kv_head > 1 else "key head"
        d.text(8, top + 62, f"{n_kv_head} {heads}", anchor="start", size=14)
        for head in range(4):
            left = 120 + 80 * head
            d.box(left, top, 66, 30, f"query {head}", "query", size=13)
            group = head * n_kv_head // 4
            width = 320 / n_kv_head
            middle = 120 + width * group + (width - 14) / 2
            d.line(left + 33, top + 30, middle, top + 46, width=1.2)
        for group in range(n_kv_head):
            width = 320 / n_kv_head
            d.box(120 + width * group, top + 46, width - 14, 28, f"k v {group}", "key", size=13)

    d.show(
        alt="Four query heads three times. With multi-head attention each has its own head of keys and values; "
        "grouped, two neighbours share one; with multi-query attention all four share a single one.",
        caption="Fewer heads of keys and values: the cache holds only the yellow boxes.",
    )


def tiles(n: int = 8, window: int = 0, sinks: int = 0) -> None:
    """Show which tiles of the score table are computed, masked, or skipped.

    n: blocks along each side. window: blocks of the past that a query may see, 0 for all. sinks: blocks at the start.
    """
    size = 30
    d = Drawing(440, 24 + size * n + 44)
    left = 100
    d.text(left + size * n / 2, 16, "blocks of keys", size=14)
    d.text(left - 12, 24 + size * n / 2, "queries", anchor="end", size=14)
    for row in range(n):
        for column in range(n):
            distance = row - column
            is_edge = distance == 0 or (window and distance == window)
            seen = distance >= 0 and (not window or distance <= window or column < sinks)
            if not seen:
                continue
            colour = "key" if is_edge else "value"
            x, y = left + size * column, 24 + size * row
            d.box(x, y, size - 2, size - 2, "", colour, radius=2)

    y = 24 + size * n + 14
    for x, colour, words in ((40, "value", "computed"), (165, "key", "partly masked")):
        d.box(x, y, 20, 20, "", colour, radius=2)
        d.text(x + 28, y + 15, words, anchor="start", size=14)
    d.text(325, y + 15, "empty: skipped", anchor="start", size=14)
    past = f"a window of {window} blocks" if window else "the whole past"
    d.show(
        alt=f"A grid of {n} by {n} tiles for {past}. Tiles right of the diagonal are skipped, those on its edge are "
        "partly masked, the others are computed.",
    )


def queue() -> None:
    """Show how six choices are sorted by expert, and how the results go back."""
    d = Drawing(440, 250)
    chosen = [2, 0, 2, 1, 0, 2]
    colours = ("query", "key", "value")
    d.text(10, 20, "tokens, and the expert of each", anchor="start", size=14)
    for i, expert in enumerate(chosen):
        d.box(20 + 66 * i, 30, 56, 32, f"{'abcdef'[i]} → {expert}", colours[expert], size=14)

    order = sorted(range(6), key=lambda i: chosen[i])
    for place, i in enumerate(order):
        x = 20 + 66 * place
        d.box(x, 138, 56, 32, "abcdef"[i], colours[chosen[i]], size=14)
        d.line(20 + 66 * i + 28, 62, x + 28, 138, colours[chosen[i]], width=1.4)

    place = 0
    for expert in range(3):
        n = chosen.count(expert)
        d.box(20 + 66 * place, 194, 66 * n - 10, 34, f"expert {expert}", colours[expert], size=13)
        place += n
    d.show(
        alt="Six tokens a to f with the experts 2, 0, 2, 1, 0, 2. Lines lead to the same tokens sorted by expert: "
        "b and e, then d, then a, c and f. Under each group stands its expert.",
        caption="Sorted by expert, so that each expert multiplies its tokens in one go.",
    )
