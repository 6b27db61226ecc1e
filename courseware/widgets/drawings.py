"""Drawings: labelled boxes, rows of coloured cells and arrows, as inline SVG in the colours of the page.

A drawing is at most 700 pixels wide. One that should also be read on a phone is about 400 pixels wide, because a
picture shrinks with the column and its text with it.

    drawing = Drawing(300, 120)
    drawing.box(10, 10, 80, 34, "query", "query")
    drawing.arrow(90, 27, 140, 27)
    drawing.show(alt="A box labelled query with an arrow to its right.")
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import show_figure, svg_figure

MAX_WIDTH = 700
_HEAD = 8  # length of an arrow's head in pixels


class Drawing:
    """A canvas of `width` by `height` pixels; (0, 0) is the upper left corner.

    A colour is a name of the house palette ("query", "key", "value", "residual" …), any CSS colour, or "" for the
    colour of the page's text. Raises ValueError if the canvas is wider than the page.
    """

    def __init__(self, width: int, height: int) -> None:
        if width > MAX_WIDTH:
            raise ValueError(f"expected a drawing at most {MAX_WIDTH} pixels wide, got {width}")
        self.width = width
        self.height = height
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        anchor: str = "middle",
        size: int = 16,
        colour: str = "",
        mono: bool = False,
        bold: bool = False,
    ) -> None:
        """Write a line of text with its baseline at y. anchor: "start", "middle" or "end" of the text at x."""
        family = ' font-family="monospace"' if mono else ""
        weight = ' font-weight="600"' if bold else ""
        fill = f' style="fill:{_css(colour)}"' if colour else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{family}{weight}{fill}>'
            f"{html.escape(words)}</text>"
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        words: str = "",
        colour: str = "",
        *,
        size: int = 16,
        radius: int = 6,
        link: str = "",
    ) -> None:
        """Draw a tinted box with a line of text in its middle; with `link`, a click opens that address.

        Raises ValueError for a link without words, because a screen reader would have nothing to call it.
        """
        if link and not words:
            raise ValueError(f"expected words in the box that links to {link}, got none")

        line = _css(colour)
        parts = len(self._parts)
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" '
            f'fill="{line}" fill-opacity="{0.16 if colour else 0.05}" stroke="{line}" stroke-width="1.5"/>'
        )
        if words:
            self.text(x + width / 2, y + height / 2 + 0.35 * size, words, size=size)
        if link:
            inside = "".join(self._parts[parts:])
            del self._parts[parts:]
            # JupyterLab rewrites every plain href of an output, which fails for a link in a drawing: its href is
            # not text but an object. It leaves the older spelling alone, and browsers follow that too.
            self._parts.append(f'<a xlink:href="{html.escape(link)}">{inside}</a>')

    def cells(
        self,
        x: float,
        y: float,
        values: Sequence[object],
        colours: Sequence[str] | str = "",
        *,
        size: float = 34,
        down: bool = False,
        font: int = 15,
    ) -> None:
        """Draw values in a row (or a column) of square cells; colours: one for all, or one for each."""
        for i, value in enumerate(values):
            colour = colours if isinstance(colours, str) else colours[i]
            left = x if down else x + i * size
            top = y + i * size if down else y
            self.box(left, top, size, size, str(value), colour, size=font, radius=2)

    def arrow(
        self, x1: float, y1: float, x2: float, y2: float, colour: str = "", *, dashed: bool = False
    ) -> None:
        """Draw an arrow from (x1, y1) to (x2, y2)."""
        length = math.hypot(x2 - x1, y2 - y1)
        dx = (x2 - x1) / length
        dy = (y2 - y1) / length
        end_x = x2 - _HEAD * dx
        end_y = y2 - _HEAD * dy

        line = _css(colour)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<path d="M{x1:.4g} {y1:.4g} L{end_x:.4g} {end_y:.4g}" fill="none" stroke="{line}" '
            f'stroke-width="1.6"{dash}/>'
        )
        side_x = 0.55 * _HEAD * dy
        side_y = -0.55 * _HEAD * dx
        self._parts.append(
            f'<path d="M{x2:.4g} {y2:.4g} L{end_x + side_x:.4g} {end_y + side_y:.4g} '
            f'L{end_x - side_x:.4g} {end_y - side_y:.4g} Z" fill="{line}"/>'
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, colour: str = "", width: float = 1.6
    ) -> None:
        """Draw a straight line without a head."""
        self._parts.append(
            f'<path d="M{x1:.4g} {y1:.4g} L{x2:.4g} {y2:.4g}" stroke="{_css(colour)}" stroke-width="{width:g}"/>'
        )

    def circle(self, x: float, y: float, radius: float, words: str = "", colour: str = "") -> None:
        """Draw a circle around (x, y), such as the ⊕ of a residual connection."""
        self._parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="none" stroke="{_css(colour)}" '
            'stroke-width="1.6"/>'
        )
        if words:
            self.text(x, y + 5.5, words)

    def to_html(self, alt: str, caption: str = "") -> str:
        """Return the `<figure>` element; raises ValueError if `alt` is empty."""
        body = "".join(self._parts)
        return svg_figure(body, f"{self.width} {self.height}", self.width, alt, caption)

    def show(self, alt: str, caption: str = "") -> None:
        """Display the drawing, with `alt` as its spoken description."""
        show_figure(self.to_html(alt, caption), alt)


def _css(colour: str) -> str:
    """Return a colour as CSS; black and "" become the colour of the page's text."""
    found = COLOURS.get(colour, colour)
    return "currentColor" if found in ("", "#000000") else found
