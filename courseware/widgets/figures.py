"""The house style of plots: one palette, and inline SVG that takes the page's text colour in light and dark.

`style()` sets matplotlib's defaults, and `show(fig, alt=...)` displays a figure. A figure is at most 7 inches wide, and
an inch is 100 pixels on the page, so a 700-pixel column shows it at full size, with text as large as the page's.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from courseware.widgets.markup import described, show_figure, svg_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color Universal Design": distinguishable with every common kind of colour blindness.
COLOURS = {
    "query": "#0072B2",
    "key": "#E69F00",
    "value": "#009E73",
    "residual": "#7F7F7F",
    "train": "#D55E00",
    "valid": "#56B4E9",
    "reference": "#000000",  # drawn in the page's text colour: dark on light, light on dark
    "band": "#56B4E940",  # 0x40 / 0xFF = 25% opacity
}
ATTENTION_MAP = "viridis"  # always scaled from 0 to 1
LIGHT_WEIGHT = 0.6  # weights above this have a colour so light that they need black text

WIDTH = 7.0  # inches, the most that fits: 700 px on the page
PIXELS_PER_INCH = 100
POINTS_PER_INCH = 72  # in which matplotlib writes SVG
# 11.6 points are 16.1 px on the page, the size of its text.
_FONT_SIZE = 11.6
_INK = "#000000"  # black becomes the page's text colour
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_NUMBER = re.compile(r"-?\d+\.\d+")
_SIZES = ("d", "x", "y", "width", "height", "points")  # attributes that hold lengths


def style() -> None:
    """Set matplotlib's defaults to the house style."""
    import matplotlib
    from matplotlib.rcsetup import cycler

    matplotlib.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.6),
            "figure.constrained_layout.use": True,
            "font.size": _FONT_SIZE,
            "axes.titlesize": _FONT_SIZE,
            "axes.titlelocation": "left",
            "axes.labelsize": _FONT_SIZE,
            "xtick.labelsize": _FONT_SIZE,
            "ytick.labelsize": _FONT_SIZE,
            "legend.fontsize": _FONT_SIZE,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": _INK,
            "grid.alpha": 0.13,
            "grid.linewidth": 0.7,
            "axes.linewidth": 0.9,
            "lines.linewidth": 2.0,
            "lines.solid_capstyle": "round",
            "image.cmap": ATTENTION_MAP,
            "axes.prop_cycle": cycler(
                color=[COLOURS[name] for name in ("query", "key", "value", "train", "valid")]
            ),
        }
    )


def show(fig: Figure, alt: str, caption: str | None = None) -> None:
    """Display `fig` as inline SVG with `alt` as its spoken description, and close it.

    Black in the figure becomes the colour of the page's text, and the background is transparent. The same figure
    always gives the same bytes. Raises ValueError if `alt` is empty or the figure is wider than the page.
    """
    import matplotlib.pyplot as plt

    markup = to_html(fig, alt, caption)
    plt.close(fig)
    show_figure(markup, alt)


def to_html(fig: Figure, alt: str, caption: str | None = None) -> str:
    """Return the `<figure>` element that `show` displays; raises ValueError as `show` does."""
    described(alt, "figure")
    width, height = fig.get_size_inches()
    if width > WIDTH + 1e-6:
        raise ValueError(
            f"expected a figure at most {WIDTH:g} inches wide, got {width:g}; "
            "make it narrower, or its text becomes smaller than the page's"
        )

    root = _draw(fig)
    _drop_page_wide_parts(root)
    _take_page_colours(root)
    _round(root)
    _rename_ids(root, salt=alt)

    points = " ".join(f"{POINTS_PER_INCH * inches:.4g}" for inches in (width, height))
    body = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return svg_figure(
        f"\n{body.strip()}",
        points,
        round(width * PIXELS_PER_INCH),
        alt,
        caption,
        attributes=' stroke-linejoin="round" stroke-linecap="butt"',
    )


def _draw(fig: Figure) -> ElementTree.Element:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "minigpt", "svg.image_inline": True}
    ):
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return ElementTree.fromstring(buffer.getvalue())


def _drop_page_wide_parts(root: ElementTree.Element) -> None:
    """Remove <style>, which selects `*` and so would style the whole page, and <metadata>, which nobody reads."""
    _remove(root, lambda child: child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"))
    _remove(root, lambda child: child.tag == f"{{{_SVG}}}defs" and len(child) == 0)


def _remove(root: ElementTree.Element, unwanted: Callable[[ElementTree.Element], bool]) -> None:
    for parent in root.iter():
        for child in list(parent):
            if unwanted(child):
                parent.remove(child)


def _take_page_colours(root: ElementTree.Element) -> None:
    """Make black the page's text colour, and drop namespaces and fonts, which the page sets."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        link = element.attrib.pop(f"{{{_XLINK}}}href", None)
        if link is not None:
            element.set("href", link)

        css = element.get("style")
        if css is not None:
            css = re.sub(rf"{_INK}(?![0-9a-f])", "currentColor", css)
            css = re.sub(r"font-family: [^;]*;?\s*", "", css).strip()
            element.set("style", css)


def _round(root: ElementTree.Element) -> None:
    """Round lengths to a hundredth of a point, which is invisible: machines differ in the sixth decimal."""
    for element in root.iter():
        for name in _SIZES:
            if name in element.attrib:
                short = _NUMBER.sub(_shorter, element.attrib[name])
                element.set(name, re.sub(r"\s+", " ", short).strip())

        transform = _rounded_transform(element.attrib.pop("transform", ""))
        if transform:
            element.set("transform", transform)


def _rounded_transform(transform: str) -> str:
    """Round lengths and angles, and drop rotations by 0; a scale stays, because its small decimals matter."""
    rounded = re.sub(
        r"(translate|rotate)\([^)]*\)", lambda match: _NUMBER.sub(_shorter, match[0]), transform
    )
    return re.sub(r"rotate\(-?0( [^)]*)?\)", "", rounded).strip()


def _shorter(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _rename_ids(root: ElementTree.Element, salt: str) -> None:
    """Keep only the ids that the figure refers to, with a prefix made from the figure's content.

    Without the prefix, two figures on a page could use the same id.
    """
    new = {old: str(i) for i, old in enumerate(sorted(_used_ids(root)))}
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in new:
            element.set("id", old)

    content = ElementTree.tostring(root) + salt.encode("utf-8")
    prefix = "mg" + hashlib.sha256(content).hexdigest()[:8]
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                value = f"{prefix}-{new[value]}"
            elif name == "href" and value.startswith("#"):
                value = f"#{prefix}-{new[value[1:]]}"
            else:
                value = _REFERENCE.sub(lambda m: f"url(#{prefix}-{new[m[1]]})", value)
            element.set(name, value)


def _used_ids(root: ElementTree.Element) -> set[str]:
    used = set()
    for element in root.iter():
        for value in element.attrib.values():
            used.update(_REFERENCE.findall(value))
        if element.get("href", "").startswith("#"):
            used.add(element.attrib["href"][1:])
    return used
