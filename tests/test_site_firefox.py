"""The website in Firefox: its figures start, its formulas are drawn, also straight from the disk."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import firefox as firefoxes
import pytest

NAMES = ("notebooks/05_attention.html", "book/live.html", "book/intro.html")
SEEN = """JSON.stringify({
  twins: document.querySelectorAll(".twin").length,
  started: document.querySelectorAll(".twin[data-mounted]").length,
  formulas: document.querySelectorAll(".math").length,
  drawn: [...document.querySelectorAll(".math math")]
    .filter((formula) => formula.getBoundingClientRect().height > 2).length,
  tooWide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
})"""
OPEN_A_CHOICE = """(() => {
  const choice = document.querySelector("details.choice");
  choice.querySelector("summary").click();
  return choice.open && choice.querySelector("p").offsetHeight > 0;
})()"""


async def visit(profile: Path, root: str) -> list[dict[str, Any]]:
    """Open some pages below a root, and return what is to be seen on each."""
    found = []
    async with firefoxes.running(profile) as firefox:
        for name in NAMES:
            await firefox.open(root + name)
            seen = json.loads(await firefox.evaluate(SEEN))
            has_quiz = name.startswith("notebooks/")
            seen["choice"] = await firefox.evaluate(OPEN_A_CHOICE) if has_quiz else True
            seen["errors"] = list(firefox.errors)
            own = (root, "data:", "blob:")
            seen["strangers"] = [url for url in firefox.requested if not url.startswith(own)]
            found.append({"name": name, **seen})
    return found


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("place", ["a server", "the disk"])
def test_firefox_shows_the_pages(pages, address, tmp_path, place):
    root = address if place == "a server" else pages.as_uri() + "/"

    for seen in asyncio.run(visit(tmp_path, root)):
        assert seen["started"] == seen["twins"] > 0, seen
        assert seen["drawn"] == seen["formulas"], seen
        assert seen["tooWide"] <= 0, seen
        assert seen["choice"], seen
        assert not seen["errors"], seen
        assert not seen["strangers"], seen
