"""The map of a GGUF file of chapter 23: its bytes, piece by piece, and what each of them says."""

from __future__ import annotations

import html
import struct
from pathlib import Path
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import paragraphs, swatch

SECTIONS = ("head", "facts", "tensors", "padding", "numbers")
SHOWN = 24  # bytes of a field; of a longer one the map shows the beginning
ENTRIES = 3  # of a list
# Type codes of a fact's value, in struct's letters, and their names: ggml/docs/gguf.md.
_NUMBERS = {
    0: ("B", "uint8"),
    1: ("b", "int8"),
    2: ("H", "uint16"),
    3: ("h", "int16"),
    4: ("I", "uint32"),
    5: ("i", "int32"),
    6: ("f", "float32"),
    7: ("?", "bool"),
    10: ("Q", "uint64"),
    11: ("q", "int64"),
    12: ("d", "float64"),
}
_TEXT = 8
_LIST = 9
_NAMES = {code: name for code, (_, name) in _NUMBERS.items()} | {_TEXT: "text", _LIST: "a list"}
_TENSORS = {0: "F32", 1: "F16", 8: "Q8_0"}
_ALIGNMENT = 32  # bytes: the numbers of each tensor begin at a multiple of it
_COLOURS = [COLOURS[name] for name in ("query", "key", "value", "train", "valid")]


class _Pieces:
    """Reads a file from its beginning and writes down what it has read, piece by piece."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0
        self.found: list[dict[str, Any]] = []

    def begin(self, section: str, title: str = "") -> None:
        """Begin a piece of a section, an index of SECTIONS' names."""
        place = SECTIONS.index(section)
        self.found.append({"section": place, "title": title, "start": self.place, "fields": []})

    def name(self, title: str) -> None:
        """Give the piece a title."""
        self.found[-1]["title"] = title

    def field(self, size: int, what: str) -> bytes:
        """Take the next bytes, which mean `what`, and return them."""
        taken = self.data[self.place : self.place + size]
        self.place += size
        beginning = taken[:SHOWN].hex(" ") + (" …" if size > SHOWN else "")
        self.found[-1]["fields"].append({"hex": beginning, "size": size, "what": what})
        return taken

    def number(self, code: str, what: str) -> Any:
        """Take a number, which is written behind `what`, and return it."""
        size = struct.calcsize(f"<{code}")
        value = struct.unpack_from(f"<{code}", self.data, self.place)[0]
        shown = f"{value:.7g}" if isinstance(value, float) else str(value)
        self.field(size, f"{what}: {shown}")
        return value

    def text(self, what: str) -> str:
        """Take a length and so many bytes of text, and return the text."""
        size = self.number("Q", f"how long {what} is")
        text = self.data[self.place : self.place + size].decode("utf-8")
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        self.field(size, f"{what}: {shown}")
        return text

    def value(self) -> None:
        """Take the value of a fact: a type, and what it says."""
        kind = self._type("the type of the value")
        if kind in _NUMBERS:
            self.number(_NUMBERS[kind][0], "the value")
        elif kind == _TEXT:
            self.text("the value")
        else:
            self._list()

    def _type(self, what: str) -> int:
        """Take a type's code, and write its name behind it."""
        kind = self.number("I", what)
        self.found[-1]["fields"][-1]["what"] += f", {_NAMES[kind]}"
        return kind

    def _list(self) -> None:
        kind = self._type("the type of the entries")
        n = self.number("Q", "how many entries")
        first = self.place
        for i in range(n):
            if i == ENTRIES:
                first = self.place
            if i < ENTRIES and kind == _TEXT:
                self.text(f"entry {i}")
            elif i < ENTRIES:
                self.number(_NUMBERS[kind][0], f"entry {i}")
            elif kind == _TEXT:
                self.place += 8 + struct.unpack_from("<Q", self.data, self.place)[0]
            else:
                self.place += struct.calcsize(f"<{_NUMBERS[kind][0]}")
        if n > ENTRIES:
            size = self.place - first
            self.place = first
            self.field(size, f"{n - ENTRIES} more entries")


def gguf_data(path: str | Path) -> dict[str, Any]:
    """Return {"size", "sections", "pieces"} of a GGUF file with numbers in f32, f16 or q8_0.

    A piece has a section (an index), a title, the byte at which it starts, and fields: their first bytes in
    hexadecimal, their size, and what they say.
    """
    data = Path(path).read_bytes()
    pieces = _Pieces(data)
    pieces.begin("head", "the head of the file")
    pieces.field(4, "every GGUF file begins with these four letters: GGUF")
    pieces.number("I", "the version of the format")
    n_tensors = pieces.number("Q", "how many tensors")
    n_facts = pieces.number("Q", "how many facts")

    for _ in range(n_facts):
        pieces.begin("facts")
        pieces.name(f"the fact {pieces.text('the name')}")
        pieces.value()

    tensors = []
    for _ in range(n_tensors):
        pieces.begin("tensors")
        name = pieces.text("the name")
        pieces.name(f"an entry for {name}")
        n_axes = pieces.number("I", "how many axes")
        for axis in range(n_axes):
            pieces.number("Q", f"axis {axis}, the fastest first" if axis == 0 else f"axis {axis}")
        kind = pieces.number("I", "the type of its numbers")
        pieces.found[-1]["fields"][-1]["what"] += f", {_TENSORS[kind]}"
        tensors.append(
            (pieces.number("Q", "where they begin, counted from the first number"), name, kind)
        )

    padding = -pieces.place % _ALIGNMENT
    if padding:
        pieces.begin("padding", f"zeros up to a multiple of {_ALIGNMENT}")
        pieces.field(padding, "nothing")

    base = pieces.place
    tensors.sort()
    ends = [begin for begin, _, _ in tensors[1:]] + [len(data) - base]
    for (begin, name, kind), end in zip(tensors, ends, strict=True):
        pieces.place = base + begin
        pieces.begin("numbers", f"the numbers of {name}, {_TENSORS[kind]}")
        _numbers(pieces, kind, end - begin)
    return {"size": len(data), "sections": list(SECTIONS), "pieces": pieces.found}


def _numbers(pieces: _Pieces, kind: int, size: int) -> None:
    """Take the `size` bytes of a tensor: a block or some numbers one by one, and the rest."""
    end = pieces.place + size
    if _TENSORS[kind] == "Q8_0":
        pieces.number("e", "the factor of the first 32 numbers")
        for i in range(ENTRIES):
            pieces.number("b", f"number {i}, to be multiplied by it")
    else:
        code = "f" if _TENSORS[kind] == "F32" else "e"
        for i in range(ENTRIES):
            pieces.number(code, f"number {i}")
    pieces.field(end - pieces.place, "the rest")


def describe(data: dict[str, Any], piece: int) -> str:
    """Return the sentence: which bytes the piece has, and what it is."""
    chosen = data["pieces"][piece]
    n_bytes = sum(field["size"] for field in chosen["fields"])
    last = chosen["start"] + n_bytes - 1
    return (
        f"Piece {piece + 1} of {len(data['pieces'])}, bytes {chosen['start']:,} to {last:,} "
        f"of {data['size']:,}: {chosen['title']}."
    )


def _bar(data: dict[str, Any], section: int) -> str:
    """Return the file as a bar of its sections, wide as they are long, and their names below."""
    sizes = [0] * len(data["sections"])
    for piece in data["pieces"]:
        sizes[piece["section"]] += sum(field["size"] for field in piece["fields"])

    parts = []
    names = []
    for i, (name, size) in enumerate(zip(data["sections"], sizes, strict=True)):
        opacity = "1" if i == section else "0.35"
        parts.append(
            f'<span style="flex:{size} 1 0;min-width:5px;background:{_COLOURS[i]};opacity:{opacity}"></span>'
        )
        marked = f"<b>{name}</b>" if i == section else name
        names.append(f'<span style="margin-right:1rem">{swatch(_COLOURS[i])} {marked}</span>')
    return (
        f'<div style="display:flex;gap:2px;height:1.3rem;max-width:40rem;margin-top:.5rem">{"".join(parts)}</div>'
        f'<div style="display:flex;flex-wrap:wrap;margin:.3rem 0 .6rem">{"".join(names)}</div>'
    )


def _mark(colour: str) -> str:
    return f"border-bottom:3px solid {colour};margin-right:.6em"


def draw(data: dict[str, Any], piece: int) -> str:
    """Return the file as a bar, the piece's bytes, and what each field of it says."""
    chosen = data["pieces"][piece]
    shown = []
    said = []
    for i, field in enumerate(chosen["fields"]):
        colour = _COLOURS[i % len(_COLOURS)]
        shown.append(f'<span style="{_mark(colour)}">{field["hex"]}</span>')
        plural = "" if field["size"] == 1 else "s"
        what = html.escape(field["what"])
        said.append(
            f'<li style="overflow-wrap:anywhere">{swatch(colour)} {field["size"]:,} byte{plural}, {what}</li>'
        )
    return (
        f'<div aria-hidden="true">{_bar(data, chosen["section"])}'
        '<div style="font-family:monospace;line-height:2;overflow-wrap:anywhere">'
        f"{' '.join(shown)}</div></div>"
        f'<ul style="list-style:none;margin:.4rem 0 0;padding:0">{"".join(said)}</ul>'
    )


def gguf_map(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the map: a slider and two buttons for the piece, its bytes, and what they say.

    data: that of `gguf_data`.
    """
    last = len(data["pieces"]) - 1
    style = {"description_width": "4rem"}
    piece = ipywidgets.IntSlider(
        value=0, min=0, max=last, description="Piece", style=style, readout=False
    )
    before = ipywidgets.Button(description="Back")
    after = ipywidgets.Button(description="Next")
    view = ipywidgets.HTML()

    def redraw() -> None:
        view.value = paragraphs([describe(data, piece.value)]) + draw(data, piece.value)

    def move(step: int) -> None:
        piece.value = min(max(piece.value + step, 0), last)

    before.on_click(lambda _: move(-1))
    after.on_click(lambda _: move(1))
    redraw_on_change([piece], redraw)
    return ipywidgets.VBox([piece, ipywidgets.HBox([before, after]), view])
