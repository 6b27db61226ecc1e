"""The weight of pages: the search index, unused icons and most of MathJax stay away until they are needed."""

from __future__ import annotations

import pytest

from courseware import paths
from courseware.site.weight import without_search, without_unused_icons


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
        kind = "mathjax" if "/mathjax/" in address else address.rpartition(".")[2]
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
    drawn = page.locator(".math mjx-container").count()
    spoken = page.locator("mjx-container mjx-assistive-mml math").count()
    wrong = page.locator("mjx-merror").count()
    context.close()

    around = (
        sum(sizes.values()) - sizes["html"]
    )  # scripts and styles, which a browser loads once for all chapters
    assert around < (1_420_000 if formulas else 670_000), sizes
    assert (drawn, spoken, wrong) == (formulas, formulas, 0)
    assert ("mathjax" in sizes) == bool(formulas)


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
