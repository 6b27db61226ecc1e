"""Show a text in the colours of the experts that read it."""

from __future__ import annotations

import html
from collections.abc import Sequence

from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import described, show_figure, swatch

# Okabe and Ito's eight colours, one for each expert.
PALETTE = (
    *(COLOURS[name] for name in ("query", "key", "value", "train", "valid", "residual")),
    "#CC79A7",
    "#F0E442",
)


def expert_text(tokens: Sequence[str], experts: Sequence[int], alt: str, caption: str = "") -> None:
    """Display the tokens one after another, each on the colour of its expert, with a legend.

    tokens: what each token says. experts: a number from 0 to 7 for each. Raises ValueError for lists of different
    lengths, or a number for which there is no colour.
    """
    show_figure(to_html(tokens, experts, alt, caption), alt)


def to_html(tokens: Sequence[str], experts: Sequence[int], alt: str, caption: str = "") -> str:
    """Return the `<figure>` element that `expert_text` displays; raises ValueError as it does."""
    if len(tokens) != len(experts):
        raise ValueError(f"{len(tokens)} tokens but {len(experts)} experts: expected one for each.")
    if not set(experts) <= set(range(len(PALETTE))):
        raise ValueError(
            f"expected experts from 0 to {len(PALETTE) - 1}, got {sorted(set(experts))}"
        )

    spans = "".join(_span(token, expert) for token, expert in zip(tokens, experts))
    legend = " ".join(f"{swatch(PALETTE[e])} {e}" for e in sorted(set(experts)))
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="mg-figure" style="margin:0" aria-label="{html.escape(described(alt, "figure"))}">'
        f'<div style="font-family:monospace;white-space:pre-wrap;line-height:1.7">{spans}</div>'
        f'<div style="margin-top:.4em">expert: {legend}</div>{below}</figure>'
    )


def _span(token: str, expert: int) -> str:
    # 0x66 / 0xFF = 40% opacity: the text on it stays readable, light and dark.
    shown = html.escape(token).replace("\n", "⏎\n")
    return f'<span style="background:{PALETTE[expert]}66" title="expert {expert}">{shown}</span>'
