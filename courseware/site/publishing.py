"""What a published site needs beside its pages: cards for links, a picture, a site map, a feed of changes.

All of it needs the site's address. It is the environment variable SITE_URL if that is set, as in the workflow that
deploys the site, and otherwise what GitHub Pages makes of the repository's address in `_config.yml`.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes

PICTURE = "_static/card.png"
FEED = "changes.xml"
_ABOUT = "Build a language model from the first character to an assistant that answers, and prove every line of it."
_LONGEST = 200  # characters of a description


def site_address(repository: str) -> str:
    """Return the address of the published site, with a slash at its end.

    repository: the address of the repository, https://github.com/OWNER/NAME.
    """
    given = os.environ.get("SITE_URL", "").strip()
    if given:
        return given.rstrip("/") + "/"

    owner, _, name = repository.rstrip("/").removesuffix(".git").rpartition("/")
    owner = owner.rpartition("/")[2].lower()
    if name.lower() == f"{owner}.github.io":
        return f"https://{owner}.github.io/"
    return f"https://{owner}.github.io/{name}/"


def meta_tags(page: str, title: str, doctree: nodes.document | None, address: str) -> str:
    """Return the tags that say what a link to a page shows, where its site map's entry is, and where the feed is."""
    about = description(doctree) or _ABOUT
    properties = {
        "og:type": "article",
        "og:site_name": "MiniGPT from scratch",
        "og:title": title,
        "og:description": about,
        "og:url": f"{address}{page}.html",
        "og:image": f"{address}{PICTURE}",
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": "MiniGPT from scratch: " + _ABOUT,
    }
    names = {"description": about, "twitter:card": "summary_large_image"}

    tags = [f'<meta property="{key}" content="{_quoted(v)}" />' for key, v in properties.items()]
    tags += [f'<meta name="{key}" content="{_quoted(value)}" />' for key, value in names.items()]
    tags.append(f'<link rel="canonical" href="{address}{page}.html" />')
    feed_from_here = "../" * page.count("/") + FEED
    tags.append(
        f'<link rel="alternate" type="application/atom+xml" title="Changes" href="{feed_from_here}" />'
    )
    return "\n    ".join(tags)


def description(doctree: nodes.document | None) -> str:
    """Return the first paragraph of a page that is a sentence, cut at a word after 200 characters."""
    if doctree is None:
        return ""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) > 40 and text[0].isalnum():
            return text if len(text) <= _LONGEST else text[: _LONGEST - 2].rpartition(" ")[0] + " …"
    return ""


def site_map(pages: Iterable[str], address: str) -> str:
    """Return sitemap.xml for pages, given by their addresses below the root."""
    entries = "\n".join(
        f"  <url><loc>{html.escape(address + page)}</loc></url>" for page in sorted(pages)
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{entries}\n</urlset>\n'
    )


def feed(changelog: str, address: str) -> str:
    """Return an Atom feed with an entry for each release of a changelog in the form of Keep a Changelog.

    What has not been released has no date, so it is not in the feed.
    """
    parts = re.split(r"^## \[([^\]]+)\] - (\d{4}-\d\d-\d\d)\n", changelog, flags=re.M)[1:]
    releases = list(zip(parts[0::3], parts[1::3], parts[2::3]))
    updated = max((date for _, date, _ in releases), default="1970-01-01")

    entries = []
    for version, date, body in releases:
        entries.append(
            f"  <entry>\n    <title>Version {html.escape(version)}</title>\n"
            f"    <id>{html.escape(address)}{FEED}#{html.escape(version)}</id>\n"
            f'    <link href="{html.escape(address)}" />\n'
            f"    <updated>{date}T00:00:00Z</updated>\n"
            f'    <content type="html">{html.escape(_listed(body))}</content>\n  </entry>'
        )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">\n'
        f"  <title>MiniGPT from scratch: changes</title>\n  <id>{html.escape(address)}{FEED}</id>\n"
        f'  <link rel="self" href="{html.escape(address)}{FEED}" />\n'
        "  <author><name>The authors of MiniGPT from scratch</name></author>\n"
        f"  <updated>{updated}T00:00:00Z</updated>\n" + "\n".join(entries) + "\n</feed>\n"
    )


def draw_card(target: Path) -> None:
    """Draw the picture that a link to the site shows, 1,200 by 630 pixels."""
    from matplotlib.figure import Figure  # it takes a second to import
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="#fdfdfb")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 12), ylim=(0, 6.3))
    axes.axis("off")

    axes.text(
        0.8, 4.75, "MiniGPT from scratch", size=50, family="serif", weight="bold", color="#1f2328"
    )
    axes.text(
        0.8,
        3.6,
        "Build a language model, from the first character\nto an assistant that answers. Prove every line.",
        size=24,
        color="#545b63",
        linespacing=1.5,
        va="center",
    )
    stations = ("text", "tokens", "attention", "training", "assistant")
    for i, station in enumerate(stations):
        left = 0.8 + 2.15 * i
        box = Rectangle((left, 1.05), 1.8, 0.9, facecolor="white", edgecolor="#0072b2", lw=3)
        axes.add_patch(box)
        axes.text(left + 0.9, 1.5, station, size=20, ha="center", va="center", color="#1f2328")
        if i:
            axes.plot((left - 0.35, left), (1.5, 1.5), color="#545b63", lw=3)
    figure.savefig(target, metadata={"Software": None})


def _quoted(text: str) -> str:
    return html.escape(text, quote=True)


def _listed(body: str) -> str:
    """Return the Markdown of a release as HTML: headings, lists and paragraphs."""
    found: list[str] = []
    for block in re.split(r"\n(?=- |### )|\n\n", body.strip()):
        text = " ".join(block.split())
        if text.startswith("### "):
            found.append(f"<h3>{_code(text[4:])}</h3>")
        elif text.startswith("- "):
            found.append(f"<p>• {_code(text[2:])}</p>")
        elif text:
            found.append(f"<p>{_code(text)}</p>")
    return "".join(found)


def _code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def add_meta_tags(
    app: Any, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Add its tags to a page; for Sphinx's event html-page-context."""
    if doctree is not None:
        title = html.unescape(re.sub(r"<[^>]+>", "", str(context.get("title", ""))))
        address = site_address(app.config.html_theme_options["repository_url"])
        context["metatags"] = context.get("metatags", "") + meta_tags(page, title, doctree, address)


def write_site_files(app: Any, error: Exception | None) -> None:
    """Write site map, feed and picture beside the pages; for Sphinx's event build-finished."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    address = site_address(app.config.html_theme_options["repository_url"])
    pages = [f"{name}.html" for name in app.env.found_docs if (out / f"{name}.html").is_file()]
    changelog = Path(app.srcdir) / "CHANGELOG.md"

    (out / "sitemap.xml").write_text(site_map(pages, address), encoding="utf-8")
    (out / FEED).write_text(feed(changelog.read_text(encoding="utf-8"), address), encoding="utf-8")
    (out / ".nojekyll").touch()  # or GitHub leaves out every folder whose name begins with _
    draw_card(out / PICTURE)
