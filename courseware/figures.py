"""The house style of plots: one palette, and inline SVG that takes the page's text colour in light and dark.

`style()` sets matplotlib's defaults, `show(fig, alt=...)` displays a figure. A figure is at most 7 inches
wide, and an inch is 100 pixels on the page, so that a 700-pixel column shows it at full size with text of the
page's size.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color Universal Design": told apart with every common kind of colour blindness.
COLOURS = {
    "query": "#0072B2",
    "key": "#E69F00",
    "value": "#009E73",
    "residual": "#7F7F7F",
    "train": "#D55E00",
    "valid": "#56B4E9",
    "reference": "#000000",  # drawn in the page's text colour: dark on light, light on dark
    "band": "#56B4E940",  # 0x40 / 0xFF = 25 per cent
}
ATTENTION_MAP = "viridis"  # always from 0 to 1

WIDTH = 7.0  # inches; 700 px on the page
PIXELS_PER_INCH = 100
# Matplotlib writes SVG in points, 72 to the inch, so a font of 11.6 pt is 16.1 px on the page.
_FONT_SIZE = 11.6
_INK = "#000000"  # black becomes the page's text colour
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_NUMBER = re.compile(r"-?\d+\.\d+")
_SIZES = ("d", "x", "y", "width", "height", "points")


def style() -> None:
    """Set matplotlib's defaults to the house style."""
    import matplotlib

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
            "axes.prop_cycle": matplotlib.cycler(
                color=[COLOURS[name] for name in ("query", "key", "value", "train", "valid")]
            ),
        }
    )


def show(fig: Figure, alt: str, caption: str | None = None) -> None:
    """Display `fig` as inline SVG with `alt` as its spoken description, and close it.

    Black in the figure becomes the colour of the page's text, and the background is transparent. The same
    figure always gives the same bytes. ValueError if `alt` is empty or the figure is wider than the page.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    markup = to_html(fig, alt, caption)
    plt.close(fig)
    display({"text/html": markup, "text/plain": f"Figure: {alt}"}, raw=True)


def to_html(fig: Figure, alt: str, caption: str | None = None) -> str:
    """Return the `<figure>` element that `show` displays."""
    if not alt or not alt.strip():
        raise ValueError(
            "expected a description in alt, got nothing; say in a sentence what the figure shows"
        )
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
    pixels = round(width * PIXELS_PER_INCH)
    points = " ".join(f"{72 * value:.4g}" for value in (width, height))
    opening = (
        f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {points}" '
        f'style="display:block;width:100%;max-width:{pixels}px;height:auto;font-family:inherit" '
        'fill="currentColor" stroke-linejoin="round" stroke-linecap="butt">'
    )
    body = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    body = re.sub(r"\s*\n\s*", "\n", re.sub(r' xmlns(:\w+)?="[^"]*"', "", body))
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="mg-figure" style="margin:0">{opening}\n{body.strip()}</svg>{below}</figure>'


def _draw(fig: Figure) -> ElementTree.Element:
    import matplotlib

    buffer = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "minigpt", "svg.image_inline": True}
    with matplotlib.rc_context(settings):
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return ElementTree.fromstring(buffer.getvalue())


def _drop_page_wide_parts(root: ElementTree.Element) -> None:
    # Matplotlib's <style> selects `*`, which inside HTML is the whole page; <metadata> is of no use there.
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)
    for parent in root.iter():
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}defs" and len(child) == 0:
                parent.remove(child)


def _take_page_colours(root: ElementTree.Element) -> None:
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
    # A hundredth of a point is invisible; the sixth decimal is where machines differ.
    for element in root.iter():
        for name in _SIZES:
            if name in element.attrib:
                short = _NUMBER.sub(_shorter, element.get(name))
                element.set(name, re.sub(r"\s+", " ", short).strip())
        turn = element.attrib.pop("transform", "")
        # Only lengths are shortened: a scale of 0.01 would lose its meaning.
        turn = re.sub(r"(translate|rotate)\([^)]*\)", lambda m: _NUMBER.sub(_shorter, m[0]), turn)
        turn = re.sub(r"rotate\(-?0( [^)]*)?\)", "", turn).strip()
        if turn:
            element.set("transform", turn)


def _shorter(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _rename_ids(root: ElementTree.Element, salt: str) -> None:
    """Keep only the ids that the figure refers to, and give them a prefix made from its content."""
    used = set()
    for element in root.iter():
        for value in element.attrib.values():
            used.update(_REFERENCE.findall(value))
        if element.get("href", "").startswith("#"):
            used.add(element.get("href")[1:])
    new = {old: str(i) for i, old in enumerate(sorted(used))}
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in new:
            element.set("id", old)
    content = ElementTree.tostring(root) + salt.encode()
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
