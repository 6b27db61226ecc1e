"""How soon a page of the website shows its text, and how soon it reacts: in headless Chromium, from this computer.

    python benchmarks/website.py [--pages FOLDER] [--repeat 7] [--save]

Without --pages the site is built first. Every load starts with an empty cache; the server is Python's own, without
compression, and there is no network between them, so this measures the page and not a reader's connection. A reaction
is the time from the event of a click or a key, as the browser stamps it, until the frame with what it changed has been
drawn. All times are medians of the loads; the worst is shown beside them.

Run it on a machine with nothing else to do. With --save the results go to benchmarks/results/website.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rivals import RESULTS, hardware, hardware_line, save, table

from courseware import paths
from courseware.site import site

sys.path.insert(0, str(paths.CODE / "tests"))

from browser import launched, served

OUT = RESULTS / "website.json"
GOALS = {"first content": 1000, "reaction": 100}  # milliseconds
PAGES = (
    "book/intro",
    "notebooks/01_characters",
    "notebooks/05_attention",
    "notebooks/09_model",
    "notebooks/14_sft",
    "notebooks/21_reasoning",
)
LOADS = ("first content", "largest content", "DOM ready", "figures ready")
# The first of these elements is pressed, in this order: the search dialog covers the page.
ACTIONS = {
    "fold": ".bd-article details:not(.choice):not(.twin details) > summary",
    "quiz": ".bd-article details.choice > summary",
    "figure": ".twin input[type=range], .twin input[type=text], .twin select, .twin button",
    "search": ".bd-header .search-button, .search-button-field, .search-button__button",
}
WATCH = """
  window.largest = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.largest = entry.startTime;
  }).observe({ type: "largest-contentful-paint", buffered: true });

  // A task that is posted from a frame's callback runs when the frame has been drawn.
  window.reaction = (kind) => new Promise((done) => {
    addEventListener(kind, (event) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => done(performance.now() - event.timeStamp);
      requestAnimationFrame(() => port2.postMessage(null));
    }, { capture: true, once: true });
  });
"""
LOADED = """() => ({
  "first content": performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
  "largest content": window.largest,
  "DOM ready": performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd,
  "figures ready": performance.now(),
})"""


def one_load(browser: Any, address: str) -> dict[str, float]:
    """Load a page with an empty cache and press what it has; return milliseconds by name."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    found: dict[str, float] = page.evaluate(LOADED)

    for name, selector in ACTIONS.items():
        shown = page.locator(selector).locator("visible=true")
        if shown.count():
            found[name] = reaction(page, shown.first, name)
    context.close()
    return found


def reaction(page: Any, element: Any, name: str) -> float:
    """Press an element, with the key of an arrow if it belongs to a figure; return the milliseconds to its frame."""
    element.scroll_into_view_if_needed()
    kind = "keydown" if name == "figure" else "click"
    page.evaluate(f"() => {{ window.pending = window.reaction('{kind}'); }}")
    if kind == "click":
        element.click()
    else:
        element.press("ArrowRight")
    return page.evaluate("() => window.pending")


def measure(
    browser: Any, root: str, pages: Sequence[str] = PAGES, repeat: int = 7
) -> dict[str, dict[str, list[float]]]:
    """Return the milliseconds of every load by page and name; the pages take turns. One load of each warms up."""
    found: dict[str, dict[str, list[float]]] = {page: {} for page in pages}
    for turn in range(repeat + 1):
        for page in pages:
            times = one_load(browser, f"{root}{page}.html")
            if turn == 0:
                continue
            for name, milliseconds in times.items():
                found[page].setdefault(name, []).append(round(milliseconds, 1))
    return found


def report(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the table: median and worst of every time, in milliseconds."""
    columns = [*LOADS, *ACTIONS]

    def cell(times: list[float] | None) -> str:
        return f"{statistics.median(times):.0f} ({max(times):.0f})" if times else ""

    rows = [[page, *(cell(times.get(name)) for name in columns)] for page, times in found.items()]
    return table("Milliseconds, median (worst)", ["page", *columns], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, default=None, metavar="FOLDER")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        pages = options.pages or site.build(Path(folder))
        with launched() as browser, served(pages) as root:
            found = measure(browser, root, repeat=options.repeat)
            version = browser.version

    print(report(found))
    print(f"\nmedian of {options.repeat} loads; Chromium {version}; {hardware_line()}")
    if options.save:
        machine = {**hardware(), "chromium": version}
        save(OUT, {"hardware": machine, "repeat": options.repeat, "goals": GOALS, "pages": found})


if __name__ == "__main__":
    main()
