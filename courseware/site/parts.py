"""Where a part of the course stands: the strip of all parts on each part's page, drawn while the site is built.

The parts are those of `book/_toc.yml` that begin with a page in `book/parts`. On such a page one comment says what
goes into the part and what comes out of it; here it becomes the strip, and below it the way through this part:

    <!-- way: `banana` → `1 0 2 0 2 0` → `x 1 0 2 0 2` -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import yaml

from courseware import paths
from courseware.site.quizzes import inline

FOLDER = "book/parts"
_TOC = paths.ROOT / "book" / "_toc.yml"
_WAY = re.compile(r"^<!-- way: (.+?) -->$", re.M)


@dataclass(frozen=True)
class Part:
    """One part of the book: the name of its page in `book/parts`, and the stems of its chapters."""

    number: int
    title: str
    slug: str
    chapters: tuple[str, ...]


def read_parts() -> list[Part]:
    """Return the parts of the book that have a page of their own, in order."""
    found: list[Part] = []
    for entry in yaml.safe_load(_TOC.read_text(encoding="utf-8"))["parts"]:
        files = [PurePosixPath(chapter["file"]) for chapter in entry["chapters"]]
        if str(files[0].parent) != FOLDER:
            continue

        chapters = tuple(file.name for file in files if file.parent.name == "notebooks")
        found.append(Part(len(found) + 1, entry["caption"], files[0].name, chapters))
    return found


def with_strip(text: str, slug: str) -> str:
    """Return the Markdown of a part's page with the strip in place of its comment.

    Raises ValueError unless the page has exactly one such comment and is the page of a part.
    """
    ways = _WAY.findall(text)
    if len(ways) != 1:
        raise ValueError(f"{FOLDER}/{slug}.md: expected one comment `way`, got {len(ways)}")

    drawn = f"```{{raw}} html\n{strip(slug, ways[0].split(' → '))}\n```"
    return _WAY.sub(lambda _: drawn, text)


def strip(slug: str, way: list[str]) -> str:
    """Return HTML: a link to each part, the one called `slug` marked, and the stations of the way through it."""
    parts = read_parts()
    if slug not in [part.slug for part in parts]:
        raise ValueError(f"{slug} is the page of no part in {_TOC.name}")

    links = []
    for part in parts:
        here = ' aria-current="page"' if part.slug == slug else ""
        name = f"<b>{part.number}</b> <span>{inline(part.title)}</span>"
        links.append(f'<li><a href="{part.slug}.html"{here}>{name}</a></li>')

    stations = [f"<li>{inline(station)}</li>" for station in way]
    lines = ['<div class="whereabouts">', '<nav aria-label="Parts of the course">', "<ol>"]
    lines += [*links, "</ol>", "</nav>"]
    lines += ['<ol class="way" aria-label="What goes in, and what comes out">', *stations, "</ol>"]
    return "\n".join([*lines, "</div>"])
