"""The front page: what it draws fits, what it links to exists, and it says what the course takes."""

from __future__ import annotations

import re

import pytest

from courseware import paths

PAGE = paths.ROOT / "book" / "intro.md"
WIDTHS = (360, 390, 700, 820, 1000, 1200, 1600)  # phones, the theme's breakpoints, a desktop


def stations() -> list[tuple[str, str]]:
    """Return the name and the address of each station of the pipeline."""
    text = PAGE.read_text(encoding="utf-8")
    figure = text.partition('<figure class="pipeline">')[2].partition("</figure>")[0]
    return re.findall(r'<li><a href="([^"]+)"><b>([^<]+)</b>', figure)


def test_every_station_leads_to_a_chapter():
    found = stations()
    assert len(found) == 10

    for address, _ in found:
        assert (PAGE.parent / address).with_suffix(".ipynb").is_file(), address


def test_the_chapters_of_a_station_are_in_order_after_the_text():
    numbers = [int(re.search(r"/(\d\d)_", address)[1]) for address, _ in stations()]

    assert numbers[1:] == sorted(numbers[1:])


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_words_stay_inside_their_boxes(chromium, address, width):
    context = chromium.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(address + "book/intro.html")
    page.wait_for_selector("html[data-ready]")

    outside = page.evaluate(
        """() => [...document.querySelectorAll(".pipeline a")].flatMap((box) => {
          const edge = box.getBoundingClientRect();
          return [...box.children].filter((part) => {
            const range = document.createRange();
            range.selectNodeContents(part);
            const words = range.getBoundingClientRect();
            return words.right > edge.right - 3 || words.bottom > edge.bottom - 3;
          }).map((part) => part.textContent);
        })"""
    )
    lines = page.evaluate(
        """() => [...document.querySelectorAll(".pipeline b")].map((name) => {
          const range = document.createRange();
          range.selectNodeContents(name);
          return [name.textContent, range.getClientRects().length];
        })"""
    )
    context.close()

    assert len(lines) == 10
    assert not outside
    assert not [name for name, n in lines if n != 1], "a name is broken over two lines"
