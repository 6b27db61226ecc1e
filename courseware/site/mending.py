"""Mend what Sphinx leaves in the pages: nameless headings in tables, and links to notebooks in drawings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from courseware.site.colab import BRANCH

_CORNER = re.compile(r"<th(?: class=\"head\")?>(?:\s|<p>\s*</p>)*</th>")
_COLAB = re.compile(
    r'(href="https://colab\.research\.google\.com/github/[^/"]+/[^/"]+/blob/)[^/"]+'
)
_NOTEBOOK = re.compile(r'href="(\d\d_\w+)\.ipynb(#[^"]*)?"')


def mended(page: str) -> str:
    """Return a page whose empty headings are plain cells, whose drawings link to pages, and whose Colab button works.

    A screen reader announces an empty heading for each cell of its column. A drawing is HTML in the output of a cell,
    where its links name the notebooks beside it; Sphinx follows only those of the text. The theme's button opens the
    notebook itself in Colab, where it lacks the course; see `courseware.site.colab`.
    """
    page = _CORNER.sub("<td></td>", page)
    page = _COLAB.sub(rf"\1{BRANCH}", page)
    return _NOTEBOOK.sub(lambda link: f'href="{link[1]}.html{link[2] or ""}"', page)


def mend(app: Any, error: Exception | None) -> None:
    """Mend all pages of a built site; for Sphinx's event build-finished."""
    if error is not None or app.builder.format != "html":
        return

    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        better = mended(text)
        if better != text:
            path.write_text(better, encoding="utf-8")
