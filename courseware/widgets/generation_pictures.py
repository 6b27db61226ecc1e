"""The drawings of chapter 11: filters, the cache, the sliding window, and beams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from courseware.widgets.drawings import Drawing
from courseware.widgets.sampler import spoken
from courseware.widgets.tokens import visible

SHOWN = 12  # characters with a bar
_COLOURS = ("query", "train", "value")  # of the filters, in the order of `kept`


def cut_lines(
    panels: Sequence[tuple[str, Sequence[tuple[str, float]]]],
    kept: Sequence[Mapping[str, int]],
) -> None:
    """Show the likeliest characters after some prompts, and where each filter cuts.

    panels: a prompt and its characters with their probabilities, the likeliest first. kept: for each panel, the name
    of each filter and how many characters it keeps.
    """
    height = 196
    d = Drawing(440, height * len(panels))
    for i, (prompt, characters) in enumerate(panels):
        _sorted_bars(d, height * i, prompt, characters[:SHOWN], kept[i])

    parts = [
        f"After {prompt!r} the likeliest character is {spoken(characters[0][0])} with {characters[0][1]:.2f}; "
        + ", ".join(f"{name} keeps {n}" for name, n in kept[i].items())
        for i, (prompt, characters) in enumerate(panels)
    ]
    d.show(
        alt=f"Bars of the {SHOWN} likeliest characters, sorted, with a line where each filter cuts. "
        + ". ".join(parts)
        + ".",
        caption="Everything to the left of a line stays. Top-k always cuts at the same place; the others move.",
    )


def _sorted_bars(
    d: Drawing,
    top: float,
    prompt: str,
    characters: Sequence[tuple[str, float]],
    kept: Mapping[str, int],
) -> None:
    left = 16
    width = 34
    floor = top + 160
    d.text(left, top + 18, f"after “{visible(prompt)}”", anchor="start", bold=True, size=15)

    largest = characters[0][1]
    for i, (character, chance) in enumerate(characters):
        bar = max(1.0, 96 * chance / largest)
        x = left + width * i
        d.box(x + 5, floor - bar, width - 10, bar, colour="residual", radius=2)
        d.text(x + width / 2, floor + 18, visible(character), mono=True, size=15)
    d.text(left - 4, floor - 102, f"{largest:.2f}", anchor="start", size=14)

    colours = dict(zip(kept, _COLOURS))
    by_number = sorted(kept.items(), key=lambda item: item[1])  # so no line crosses a label
    for row, (name, n) in enumerate(by_number):
        x = left + width * min(n, SHOWN) - 3 + 3 * row
        y = top + 36 + 20 * row
        colour = colours[name]
        further = "" if n <= SHOWN else " →"
        d.line(x, y - 8, x, floor, colour, 2)
        anchor = "end" if n > SHOWN - 4 else "start"
        shift = -6 if anchor == "end" else 6
        d.text(x + shift, y + 5, f"{name}: {n}{further}", anchor=anchor, size=14, colour=colour)


def computed_and_kept(letters: str = "to be") -> None:
    """Show which tokens pass through the model at each step, without a cache and with one."""
    n = len(letters)
    cell = 32
    d = Drawing(440, 112 + cell * n)
    counts = []
    for left, title, cached in ((34, "without a cache", False), (254, "with a cache", True)):
        d.text(left + cell * n / 2, 20, title, bold=True, size=15)
        computed = 0
        for step in range(n):
            y = 34 + cell * step
            if not cached:
                d.text(26, y + 21, str(step + 1), size=14, anchor="end")
            for place in range(step + 1):
                is_new = place == step or not cached
                computed += is_new
                colour = "train" if is_new else ""
                d.cells(left + cell * place, y, [visible(letters[place])], colour, size=cell)
        counts.append(computed)
        d.text(left + cell * n / 2, 58 + cell * n, f"{computed} tokens computed", size=15)

    y = 82 + cell * n
    d.box(94, y, 18, 18, colour="train", radius=2)
    d.text(118, y + 15, "computed", anchor="start", size=15)
    d.box(224, y, 18, 18, radius=2)
    d.text(248, y + 15, "keys and values kept", anchor="start", size=15)
    d.show(
        alt=f"Two triangles with a row for each step of writing {letters!r}. Without a cache, every token of every row "
        f"is computed, {counts[0]} in all. With a cache only the last token of each row is, {counts[1]} in all; "
        "of the others, keys and values are kept.",
        caption="Each row is a step. The newest token is all that has to be computed.",
    )


def sliding_window() -> None:
    """Show the four stages of a window of eight tokens that slides: full, cut, read again, go on."""
    stages = (
        ("1. The window is full.", "to be or", 0, 0, "query"),
        ("2. The first half is forgotten.", "e or", 4, 4, "residual"),
        ("3. The rest is read again, from position 0.", "e or", 4, 0, "train"),
        ("4. Writing goes on until it is full again.", "e or not", 4, 0, "query"),
    )
    cell = 32
    left = 20
    d = Drawing(440, 88 * len(stages) - 8)
    for row, (title, letters, start, first_position, colour) in enumerate(stages):
        top = 88 * row
        d.text(left, top + 16, title, anchor="start", size=15)
        for i in range(12):
            x = left + cell * i
            inside = start <= i < start + len(letters)
            if inside:
                letter = visible(letters[i - start])
                is_new = row == 3 and i >= 8
                d.cells(x, top + 24, [letter], "value" if is_new else colour, size=cell)
                d.text(x + cell / 2, top + 72, str(first_position + i - start), size=13)
            elif i < start:
                d.text(x + cell / 2, top + 45, visible("to b"[i]), size=15, colour="residual")
    d.show(
        alt="Four rows of a text in a window of eight tokens. First the window holds to be or at positions 0 to 7. "
        "Then its first four tokens are forgotten. The other four are read again at positions 0 to 3. Then four new "
        "tokens follow at positions 4 to 7, and the window is full again.",
        caption="The window slides by half its size; the numbers are positions.",
    )


def beam_tree() -> None:
    """Show two steps of the example with two beams: a (0.5) and b (0.4), then their children."""
    d = Drawing(440, 316)
    d.box(8, 134, 62, 34, "start", size=15)
    first = (("a", 0.5, 40), ("b", 0.4, 176), (". or c", 0.1, 272))
    for name, chance, y in first:
        is_kept = chance >= 0.4
        colour = "query" if is_kept else "residual"
        d.arrow(70, 151, 138, y + 17, colour, dashed=not is_kept)
        d.box(140, y, 108, 34, f"{name}  {chance:.2f}", colour, size=15)
    d.text(194, 20, "first step", bold=True, size=15)
    d.text(372, 20, "second step", bold=True, size=15)
    d.text(256, 294, "dropped", anchor="start", size=14, colour="residual")

    children = (
        (57, "ac  0.5 × 0.4 = 0.20", 34, "query"),
        (57, "aa  0.5 × 0.3 = 0.15", 80, "residual"),
        (193, "bc  0.4 × 0.9 = 0.36", 164, "value"),
        (193, "ba  0.4 × 0.04 = 0.02", 210, "residual"),
    )
    for parent_y, words, y, colour in children:
        d.arrow(248, parent_y, 272, y + 17, colour, dashed=colour == "residual")
        d.box(274, y, 160, 34, words, colour, size=14)
    d.show(
        alt="A tree. From the start, a with 0.50 and b with 0.40 are kept, the rest is dropped. In the second step a "
        "grows to ac with 0.20 and aa with 0.15, and b to bc with 0.36 and ba with 0.02. The best two are bc and ac.",
        caption="Two beams. Greedy choice sees only the branch of a, and ends with 0.20.",
    )
