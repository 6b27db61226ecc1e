"""Small pieces of HTML that several figures contain."""

from __future__ import annotations

import html
from collections.abc import Iterable


def paragraphs(sentences: Iterable[str]) -> str:
    """Return each text as a paragraph, escaped."""
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)


def swatch(colour: str) -> str:
    """Return a small filled square, for legends."""
    box = "display:inline-block;width:.9em;height:.9em;border-radius:2px"
    return f'<span style="{box};background:{colour}"></span>'


def described(alt: str, what: str) -> str:
    """Return `alt`, the spoken description of `what` ("figure", "widget"); raises ValueError if it is empty."""
    if not alt or not alt.strip():
        raise ValueError(
            f"expected a description in alt, got nothing; say in a sentence what the {what} shows"
        )
    return alt


def svg_figure(
    body: str,
    view_box: str,
    pixels: int,
    alt: str,
    caption: str | None = None,
    attributes: str = "",
) -> str:
    """Return a `<figure>` around the inside of an SVG, in the page's colour and at most `pixels` wide.

    A picture is one thing to a screen reader, so what stands inside an image can't be reached. A figure with links is
    therefore a group. view_box: its width and height in the units of `body`. attributes: further ones of `<svg>`.
    Raises ValueError if `alt` is empty.
    """
    role = "group" if "<a " in body else "img"
    opening = (
        f'<svg role="{role}" aria-label="{html.escape(described(alt, "figure"))}" viewBox="0 0 {view_box}" '
        f'style="display:block;width:100%;max-width:{pixels}px;height:auto;font-family:inherit" '
        f'fill="currentColor"{attributes}>'
    )
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="mg-figure" style="margin:0">{opening}{body}</svg>{below}</figure>'


def show_figure(markup: str, alt: str) -> None:
    """Display a figure's markup in a notebook, with `alt` where no HTML can be shown."""
    from IPython.display import display

    display({"text/html": markup, "text/plain": f"Figure: {alt}"}, raw=True)
