"""The drawings of chapter 02: how hotter merges, which words contain a pair, and from text to ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from courseware.widgets.drawings import Drawing
from courseware.widgets.tokens import colour_of, visible

_CELL = 58  # width of a letter's cell in pixels


def merge_tree() -> None:
    """Show the letters of hotter at the bottom and the pieces that they become above, merge by merge."""
    d = Drawing(420, 300)
    left = 14
    letters = [left + (_CELL + 9) * i for i in range(6)]
    for x, letter in zip(letters, "hotter"):
        d.box(x, 252, _CELL, 34, letter)

    def joined(
        words: str, first: int, last: int, y: float, note: str, parts: list[tuple[float, float]]
    ) -> float:
        """Draw a piece over letters `first` to `last`, with a line to each part; return its middle."""
        x = letters[first]
        width = letters[last] + _CELL - x
        middle = x + width / 2
        for part_x, part_y in parts:
            d.line(part_x, part_y, part_x, y + 34)
        d.box(x, y, width, 34, words, "query")
        d.text(x + width - 8, y + 22, note, anchor="end", size=13)
        return middle

    centres = [x + _CELL / 2 for x in letters]
    ot = joined("ot", 1, 2, 194, "1st", [(centres[1], 252), (centres[2], 252)])
    te = joined("te", 3, 4, 194, "3rd", [(centres[3], 252), (centres[4], 252)])
    hot = joined("hot", 0, 2, 122, "2nd", [(centres[0], 252), (ot, 194)])
    joined("hotte", 0, 4, 50, "4th", [(hot, 122), (te, 194)])
    d.line(centres[5], 252, centres[5], 84)
    d.box(letters[5], 50, _CELL, 34, "r", "key")
    d.text(left, 28, "two tokens:", anchor="start")
    d.show(
        alt="A tree over the letters of hotter. First o and t join to ot, second h and ot to hot, third t and e to te, "
        "fourth hot and te to hotte. The r stays alone, so hotter is two tokens.",
        caption="hotter: four merges, two tokens.",
    )


def index() -> None:
    """Show the pairs of four words with their counts, and arrows to the words that have them."""
    d = Drawing(420, 350)
    words = ["hot", "hotter", "hottest", "hotel"]
    pairs: dict[str, list[int]] = {}
    for i, word in enumerate(words):
        for first, second in zip(word, word[1:]):
            pairs.setdefault(f"{first} {second}", []).append(i)

    d.text(14, 24, "pair, count", anchor="start")
    d.text(300, 24, "words", anchor="start")
    places = [70, 142, 214, 286]
    for word, y in zip(words, places):
        d.box(300, y, 104, 36, word, "value" if word == "hottest" else "residual")
    for row, (pair, where) in enumerate(pairs.items()):
        y = 38 + 38 * row
        chosen = pair == "e s"
        d.box(14, y, 100, 30, pair, "query" if chosen else "residual")
        d.text(126, y + 21, str(len(where)), anchor="start", bold=chosen)
        for i in where:
            if chosen:
                d.arrow(146, y + 15, 298, places[i] + 18, "query")
            else:
                d.line(146, y + 15, 298, places[i] + 18, "#7F7F7F60", 1)
    d.show(
        alt="On the left the eight pairs of hot, hotter, hottest and hotel with their counts, on the right the four "
        "words. Lines lead from each pair to the words that contain it; the only line of the pair e s, to hottest, "
        "is highlighted.",
        caption="The index: merging e s visits hottest, and no other word.",
    )


def stages(
    line: str, chunks: Sequence[str], pieces: Sequence[Sequence[str]], ids: Mapping[bytes, int]
) -> None:
    """Show a line on its way: its chunks, the tokens of each chunk, and their ids."""
    width = 420
    d = Drawing(width, 242)
    flat = [piece for chunk in pieces for piece in chunk]
    gap = 4
    unit = (width - 20 - gap * (len(flat) - 1)) / sum(len(visible(piece)) + 1.6 for piece in flat)

    def wide(piece: str) -> float:
        return unit * (len(visible(piece)) + 1.6)

    d.text(10, 20, "text", anchor="start", size=14)
    d.box(10, 28, width - 20, 34, visible(line))
    for y, name in ((78, "chunks"), (144, "tokens"), (210, "ids")):
        d.text(10, y, name, anchor="start", size=14)

    x = 10.0
    for chunk, cut in zip(chunks, pieces):
        start = x
        for piece in cut:
            number = ids[piece.encode("utf-8")]
            d.box(x, 152, wide(piece), 34, visible(piece), colour_of(number), size=14, radius=4)
            d.text(x + wide(piece) / 2, 232, str(number), size=13)
            x += wide(piece) + gap
        d.box(start, 86, x - gap - start, 34, visible(chunk), size=14, radius=4)
    d.show(
        alt=f"The text {line!r} in four rows: the whole line, its {len(chunks)} chunks, their {len(flat)} tokens, and "
        "a number below each token.",
        caption="Split into chunks, merge inside each chunk, look up the ids.",
    )
