"""Make the pages lighter: what a page loads at once is what it needs at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_SEARCH = re.compile(
    r'[ \t]*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\n?'
)
_ICON = re.compile(r"\bfa-[a-z0-9-]+")
_ICON_RULE = re.compile(r"(?<=[}/;\n])((?:\.fa-[a-z0-9-]+(?:::?before)?,?)+)\{[^{}]*\}")
_SHEET = "_static/styles/pydata-sphinx-theme.css"


def without_search(page: str) -> str:
    """Return a page without the search index; the form leads to the page of results, which loads it."""
    return _SEARCH.sub("", page)


def without_unused_icons(sheet: str, used: set[str]) -> str:
    """Return a style sheet without the rules of icons that nothing uses.

    used: names such as "fa-rocket". A rule goes only if all its selectors are icons that are not used.
    """

    def kept(rule: re.Match[str]) -> str:
        return rule[0] if set(_ICON.findall(rule[1])) & used else ""

    return _ICON_RULE.sub(kept, sheet)


def lighten(app: Any, error: Exception | None) -> None:
    """Apply both to a built site; for Sphinx's event build-finished."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    used: set[str] = set()

    for path in out.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        used |= set(_ICON.findall(text))
        lighter = without_search(text)
        if path.name != "search.html" and lighter != text:
            path.write_text(lighter, encoding="utf-8")
    for path in out.rglob("*.js"):
        used |= set(_ICON.findall(path.read_text(encoding="utf-8")))

    sheet = out / _SHEET
    if sheet.is_file():
        text = sheet.read_text(encoding="utf-8")
        sheet.write_text(without_unused_icons(text, used), encoding="utf-8")
