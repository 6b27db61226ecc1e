"""The weight of pages: a page loads no search index, no unused icon, and no script for its formulas."""

from __future__ import annotations

import pytest

from courseware import paths
from courseware.site.weight import without_search, without_unused_icons

MOST = 1_500_000  # bytes of a chapter's first load as stored, without fonts and models
AROUND = 670_000  # of them, scripts and styles, which a browser loads once for all chapters
# These have more text, code and stored figures than fit; none of it can wait until it is used.
LARGE = {
    "10_training": 1.65e6,
    "13_pretraining": 1.75e6,
    "19_real_models": 1.6e6,
    "23_sharing": 1.65e6,
}


def test_a_page_gives_up_the_search_index_and_nothing_else():
    page = (
        '<script src="../_static/doctools.js?v=1"></script>\n'
        '    <script src="../_static/searchtools.js"></script>\n'
        '    <script src="../_static/language_data.js"></script>\n'
        '    <script src="../searchindex.js"></script>\n<p>'
    )
    assert without_search(page) == '<script src="../_static/doctools.js?v=1"></script>\n<p>'


def test_only_the_rules_of_unused_icons_go():
    sheet = (
        '.a{x:y}.fa-rocket:before{content:"1"}.fa-cow:before,.fa-ox:before{content:"2"}'
        '.fa-cat,.fa-star{content:"3"}.fa-bird .b{x:y}'
    )
    assert without_unused_icons(sheet, {"fa-rocket", "fa-star"}) == (
        '.a{x:y}.fa-rocket:before{content:"1"}.fa-cat,.fa-star{content:"3"}.fa-bird .b{x:y}'
    )


# ---------------------------------------------------------------- the built pages


def first_load(page) -> dict[str, int]:
    """Return the bytes of what a page has loaded, as they are stored, without fonts and models, by kind."""
    entries = page.evaluate(
        """() => ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
        .map((entry) => [entry.name.split("?")[0], entry.decodedBodySize])"""
    )
    sizes: dict[str, int] = {}
    for address, size in entries:
        kind = address.rpartition(".")[2]
        if not address.endswith((".woff", ".woff2")) and "/models/" not in address:
            sizes[kind] = sizes.get(kind, 0) + size
    return sizes


@pytest.mark.slow
def test_only_the_page_of_results_loads_the_search_index(pages):
    for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"):
        page = (pages / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert "searchindex.js" not in page
    assert "searchindex.js" in (pages / "search.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_chapter_and_what_it_loads_is_light(pages):
    heavy = {}
    for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"):
        size = (pages / "notebooks" / f"{path.stem}.html").stat().st_size + AROUND
        if size > LARGE.get(path.stem, MOST):
            heavy[path.stem] = size
    assert not heavy


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize(
    "stem", ["01_characters", "05_attention", "15_preferences", "21_reasoning"]
)
def test_a_chapter_loads_little_at_first(chromium, address, stem):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{address}notebooks/{stem}.html")
    page.wait_for_selector("html[data-ready]")
    sizes = first_load(page)
    formulas = page.locator(".math").count()
    drawn = page.locator(".math math").evaluate_all(
        "all => all.filter((formula) => formula.getBoundingClientRect().height > 2).length"
    )
    context.close()

    assert sum(sizes.values()) - sizes["html"] < AROUND, sizes
    assert drawn == formulas


@pytest.mark.slow
@pytest.mark.browser
def test_a_search_finds_a_chapter(chromium, address):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{address}notebooks/05_attention.html")
    page.wait_for_selector("html[data-ready]")
    page.evaluate(
        """() => {
          const form = document.querySelector("form.bd-search");
          form.querySelector("input[name=q]").value = "softmax";
          form.submit();
        }"""
    )
    page.wait_for_selector("#search-results li a:has-text('Attention')")
    found = page.locator("#search-results li a").all_inner_texts()
    context.close()

    assert any("Attention" in text for text in found)
