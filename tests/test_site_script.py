"""What site.js makes of a page: labels above cells, messages that wrap, names and formulas that stay whole."""

from __future__ import annotations

import io
import itertools

import pytest
from PIL import Image
from web_pages import page_of, site_of

pytestmark = [pytest.mark.slow, pytest.mark.browser]

FOLD = (
    '<div class="cell docutils container"><details class="admonition hide above-input">'
    '<summary aria-label="Toggle hidden content"><p class="admonition-title">Show code cell source</p></summary>'
    '<div class="cell_input"><pre>{source}</pre></div></details></div>'
)
OUTPUT = '<div class="cell"><div class="cell_output"><div class="output"><pre>{text}</pre></div></div></div>'
PAGE = (
    '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>t</title>'
    '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    '<link rel="stylesheet" href="_static/custom.css"><main class="bd-article">{body}</main>'
    '<script type="module" src="_static/site.js"></script>'
)


@pytest.fixture(scope="module")
def open_body(chromium, tmp_path_factory):
    """Return a function that shows HTML on a page of the site, as wide as a phone."""
    folder = site_of(tmp_path_factory.mktemp("script"))

    with page_of(chromium, folder) as page:
        page.set_viewport_size({"width": 390, "height": 844})
        root = page.url.removesuffix("empty.html")

        numbers = itertools.count()

        def show(body):
            name = f"body{next(numbers)}.html"  # a new one each time: a browser keeps what it has read this second
            (folder / name).write_text(PAGE.format(body=body), encoding="utf-8")
            page.goto(root + name)
            page.wait_for_selector("html[data-ready]")
            return page

        yield show


def proof(claim: str, against: str = "") -> str:
    title = f"#| check: {claim}" + (f" | against: {against}" if against else "")
    return FOLD.format(source=f"{title}\nassert True\n")


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("", "worked out by hand"),
        ("by hand", "worked out by hand"),
        ("worked by hand", "worked out by hand"),
        ("counted by hand", "counted by hand"),
        (
            "by hand, and groups without a difference",
            "worked out by hand, and against groups without a difference",
        ),
        ("by hand, numpy", "worked out by hand, and against numpy"),
        ("a calculation by hand", "against a calculation by hand"),
        ("F.gelu", "against F.gelu"),
    ],
)
def test_a_folded_proof_says_what_it_was_compared_with(open_body, against, said):
    page = open_body("<p>A sentence.</p>" + proof("a claim", against))

    assert page.locator("summary .cell-role").inner_text().split() == ["Proof", *said.split()]


def test_a_proof_without_a_sentence_above_it_says_its_claim(open_body):
    body = "<p>A sentence.</p>" + proof("one", "the messages") + proof("two", "the messages")
    page = open_body(body)

    first, second = page.locator("summary .cell-role").all_inner_texts()
    assert "one" not in first
    assert "two, against the messages" in second


def test_what_to_click_stands_behind_the_last_word_of_a_folded_cell(open_body):
    page = open_body("<p>A sentence.</p>" + proof("a claim", "a rather long reference " * 4))

    shape = page.locator("summary .cell-role").evaluate("el => getComputedStyle(el).display")
    assert shape == "inline"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import math", "imports, 1 line"),
        ("_A: int = 1\nB = 2\nb = B == 2", "B, b, _A, 3 lines"),
        ("_A = 1\n\nclass _B:\n    C = 1\n\nasync def d(x):\n    e = x", "d, _B, 7 lines"),
        ("\n".join(f"def f{i}(): ..." for i in range(9)), "f0, f1, f2 and 6 more, 9 lines"),
    ],
    ids=["imports", "constants", "private", "many"],
)
def test_a_folded_cell_of_the_library_says_what_it_defines(open_body, code, said):
    page = open_body("<p>A sentence.</p>" + FOLD.format(source=f"#| export\n{code}\n"))

    assert (
        page.locator("summary .cell-role").inner_text().strip() == f"Library {said} of minigpt_lib"
    )


@pytest.mark.parametrize(
    ("text", "wraps"),
    [
        ("ValueError: " + "expected something else " * 9, True),
        ("\n".join(["step  100  train 2.641  valid 2.520   " * 2] * 6), False),
        ("step 100\nstep 200\nstep 300\n" + "1. the targets are not shifted, " * 4, True),
        ("\n".join(["def f(x): return x  # " + "a long line of code " * 5] * 40), False),
        (
            "\n".join(["asked plainly      right  5.5%   a step  0.0%   first step  0.0%"] * 2),
            False,
        ),
    ],
    ids=["message", "table", "verdict", "listing", "two rows"],
)
def test_a_message_wraps_and_a_table_scrolls(open_body, text, wraps):
    page = open_body(OUTPUT.format(text=text))

    wide = page.locator("pre").evaluate("el => el.scrollWidth > el.clientWidth")
    assert wide is not wraps


def test_a_full_stop_stays_with_its_formula(open_body):
    page = open_body('<p>You take home <span class="math">x + 1</span>. And <em>this</em>.</p>')

    assert page.locator(".together").all_inner_texts() == ["x + 1."]
    assert page.locator("p").inner_text() == "You take home x + 1. And this."


def test_a_name_with_a_number_stays_whole(open_body):
    page = open_body("<p>GPT-2’s text is UTF-8.</p><pre>GPT-2</pre>")

    assert page.locator(".together").all_inner_texts() == ["GPT-2", "UTF-8"]
    assert page.locator("p").inner_text() == "GPT-2’s text is UTF-8."
    broken = page.locator(".together").first.evaluate("el => getComputedStyle(el).whiteSpace")
    assert broken == "nowrap"


def test_a_name_or_number_with_a_hyphen_stays_whole(open_body):
    page = open_body("<p>DeepSeek-R1 at 2e-4, an end-user, and SmolLM2-135M-Instruct.</p>")

    assert page.locator(".together").all_inner_texts() == ["DeepSeek-R1", "2e-4", "SmolLM2-135M"]


def test_a_short_option_in_code_stays_whole_and_a_long_one_may_break(open_body):
    words = ["--help", "--" + "very-long-" * 9]
    code = " ".join(
        f'<code class="literal"><span class="pre">{word}</span></code>' for word in words
    )
    page = open_body(f'<div style="width: 100px">write xx {code}</div>')

    lines = [
        word.evaluate("el => el.getClientRects().length") for word in page.locator(".pre").all()
    ]
    assert lines[0] == 1
    assert lines[1] > 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [390, 1280])
def test_the_sign_behind_a_heading_begins_no_line(open_body, width):
    sign = '<a class="headerlink" href="#">#</a>'
    page = open_body(
        f'<h2 style="width: fit-content">A long_heading</h2><h2>A long_heading{sign}</h2>'
    )
    page.set_viewport_size({"width": width, "height": 844})
    page.evaluate(
        "() => { const [a, b] = document.querySelectorAll('h2'); b.style.width = `${a.clientWidth + 1}px`; }"
    )

    bare, signed = [box.bounding_box()["height"] for box in page.locator("h2").all()]
    shown = page.locator(".headerlink").is_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    assert signed == bare
    assert shown is (width > 600)


@pytest.mark.parametrize("terms", [3, 5, 40])
def test_no_formula_loses_its_last_digits(open_body, terms):
    tex = "".join("<mn>0.345</mn><mo>+</mo>" for _ in range(terms))
    math = f'<span class="math"><math>{tex}<mn>0.3397</mn></math></span>'
    # The theme lets no formula out of its line.
    theme = "<style>span.math { display: inline-flex; max-width: 100%; overflow-y: hidden }</style>"
    page = open_body(f"{theme}<p>{math}.</p>")

    formula = page.locator("span.math")
    cut = formula.evaluate("el => el.scrollWidth > el.clientWidth")
    if cut:
        formula.evaluate("el => el.scrollTo(el.scrollWidth, 0)")
        assert formula.evaluate("el => el.scrollLeft") > 0
        assert formula.get_attribute("tabindex") == "0"
    assert cut is (terms == 40)
    size = formula.evaluate("el => parseFloat(getComputedStyle(el).fontSize)")
    assert size >= 12


def test_the_space_at_the_beginning_of_code_is_shown(open_body):
    code = '<code class="literal"> <span class="pre">?a+</span></code>'
    page = open_body(f"<p>{code}</p><p>{code.replace('> <', '><')}</p>")

    spaced, bare = [box.bounding_box()["width"] for box in page.locator("code").all()]
    assert spaced > bare + 3


def test_the_words_of_a_wide_figure_stay_readable_on_a_phone(open_body):
    svg = '<svg role="img" aria-label="a" viewBox="0 0 {0} 300" style="max-width: 100%; width: {0}px">'
    text = '<text x="9" y="99" style="font-size: 12px">a word</text></svg>'
    figures = [
        f'<div class="cell_output"><figure class="mg-figure">{svg.format(width)}{text}</figure></div>'
        for width in (300, 700, 500)
    ]
    page = open_body("".join(figures))

    small, wide, almost = [box.bounding_box()["width"] for box in page.locator("svg").all()]
    assert small == 300
    assert 12 * wide / 700 >= 9.4
    # At 9.5 pixels it would be 396 wide, which the page all but has.
    assert almost == page.locator("main").evaluate("el => el.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def edge(output):
    """Return how far the colours of a row differ at the right edge from those in the middle."""
    picture = Image.open(io.BytesIO(output.screenshot())).convert("L")
    row = 100
    return abs(
        picture.getpixel((picture.width - 2, row)) - picture.getpixel((picture.width // 2, row))
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_shadow_says_that_a_figure_goes_on_behind_the_edge(open_body, theme):
    figure = '<figure class="mg-figure"><svg viewBox="0 0 9 3" style="width: {0}px; height: 200px"></svg></figure>'
    output = '<div class="cell_output"><div class="output text_html" style="overflow-x: auto">{0}</div></div>'
    page = open_body("".join(output.format(figure.format(width)) for width in (200, 700)))
    page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    page.evaluate("() => document.body.style.background = 'var(--pst-color-background)'")

    narrow, wide = page.locator(".text_html").all()
    assert edge(narrow) == 0
    assert edge(wide) > 30

    wide.evaluate("el => el.scrollTo(el.scrollWidth, 0)")
    assert edge(wide) == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "box",
    [
        '<div class="highlight"><pre style="overflow: auto; height: 200px">{0}</pre></div>',
        '<div class="pst-scrollable-table-container"><table style="width: 100%; border-collapse: collapse">'
        '<tr style="height: 200px; background: var(--pst-color-table-row-zebra-low-bg)"><td>{0}</td></tr>'
        "</table></div>",
    ],
    ids=["code", "table"],
)
def test_a_shadow_says_that_code_or_a_table_goes_on_behind_the_edge(open_body, box, theme):
    inside = '<div style="width: {0}px">x</div>'
    page = open_body("".join(box.format(inside.format(width)) for width in (200, 700)))
    page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    page.evaluate("() => document.body.style.background = 'var(--pst-color-background)'")

    narrow, wide = page.locator(".highlight pre, .pst-scrollable-table-container").all()
    assert edge(narrow) < 5
    assert edge(wide) > 15

    wide.evaluate("el => el.scrollTo(el.scrollWidth, 0)")
    assert edge(wide) < 5
