"""The website is quick: its text is there within a second, and what is pressed reacts within a tenth of one."""

from __future__ import annotations

import json
import sys

import pytest
from web_pages import site_of

from courseware import paths

sys.path.insert(0, str(paths.CODE / "benchmarks"))
import browser as browsers
import website

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SLOW = """<!doctype html><html lang="en" data-ready="true"><title>t</title><link rel="icon" href="data:,">
<div class="bd-article"><p>text</p><details class="fold"><summary>open</summary></details></div>
<script>
document.querySelector("summary").addEventListener("click", () => {
  const end = performance.now() + 300;
  while (performance.now() < end);
});
</script>"""


@pytest.mark.parametrize("page", ["book/intro", "notebooks/05_attention"])
def test_the_text_comes_at_once_and_what_is_pressed_reacts(chromium, address, page):
    """The best of some loads is compared: other tests run beside this one, and they can only make a load slower."""
    times = website.measure(chromium, address, [page], repeat=5)[page]

    assert min(times["first content"]) < website.GOALS["first content"], times
    pressed = {name: min(times[name]) for name in website.ACTIONS if name in times}
    assert {"figure", "search"} <= set(pressed)
    assert max(pressed.values()) < website.GOALS["reaction"], times


def test_a_slow_reaction_is_noticed(chromium, tmp_path):
    folder = site_of(tmp_path / "site")
    (folder / "slow.html").write_text(SLOW, encoding="utf-8")
    with browsers.served(folder) as root:
        times = website.one_load(chromium, root + "slow.html")

    assert times["fold"] > 300
    assert times["first content"] > 0


def test_the_table_in_the_book_is_the_record():
    record = json.loads(website.OUT.read_text(encoding="utf-8"))
    book = (paths.CODE / "book" / "benchmarks.md").read_text(encoding="utf-8")
    assert website.report(record["pages"]) in book
