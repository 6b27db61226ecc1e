"""The website: it builds without a warning, makes no request to another server, and works for everybody."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import accessibility
import pytest

from courseware import paths
from courseware.site.mending import mended
from courseware.widgets.show import twin_html

pytestmark = pytest.mark.slow

EXTERNAL = re.compile(r"^(https?:)?//", re.IGNORECASE)
REPOSITORY = re.compile(r"https://github\.com/[\w.-]+/minigpt-from-scratch")
LOADING_TAGS = ("script", "img", "iframe", "source", "video", "audio", "object", "embed", "link")
NOT_LOADED = ("canonical", "next", "prev", "author")  # the rel of a link that nobody loads
PHONE = {"width": 360, "height": 740}
SETTLED = 400  # milliseconds: the theme waits for 300 after a change of size
# What reacts to a click, is visible, and is passed over by Tab or taken out of its order.
CLICKED = "a[href], button, input, select, textarea, summary, [role=button]"
UNREACHABLE = f"""() => [...document.querySelectorAll("{CLICKED}")]
  .filter((el) => el.tabIndex !== 0 && !el.disabled && el.checkVisibility({{ visibilityProperty: true }}))
  .filter((el) => !el.closest("dialog:not([open])"))
  .map((el) => el.outerHTML.slice(0, 120))"""


def every_page(pages: Path) -> list[Path]:
    """Return the HTML files of the site, without those that its libraries and the tests bring."""
    found = sorted(path for path in pages.rglob("*.html") if "_static" not in path.parts)
    return [path for path in found if not path.name.startswith("twin-")]


class StartTags(HTMLParser):
    """Collect the pictures of a page, the tags that load something, the links, and the places they can lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.links: set[str] = set()
        self.places: set[str] = set()

    def handle_starttag(self, tag, attributes):
        known = {name: value or "" for name, value in attributes}
        if tag in LOADING_TAGS or tag == "svg":
            self.found.append((tag, known))
        if tag == "a":
            self.links.add(known.get("href", ""))
        self.places |= {known[name] for name in ("id", "name") if name in known}


@cache
def read_page(page: Path) -> StartTags:
    """Return what several tests ask of a page."""
    parser = StartTags()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def start_tags(page: Path) -> list[tuple[str, dict[str, str]]]:
    """Return the pictures of a page and the tags that load something."""
    return read_page(page).found


# ---------------------------------------------------------------- without a browser


def test_every_notebook_has_a_page(pages):
    for folder in ("notebooks", "exercises", "solutions"):
        for notebook in (paths.ROOT / folder).glob("*.ipynb"):
            assert (pages / folder / f"{notebook.stem}.html").exists(), notebook


def test_the_reference_lists_every_public_name(pages):
    text = (pages / "book" / "reference.html").read_text(encoding="utf-8")

    for module in paths.LIBRARY.glob("[a-z]*.py"):
        namespace = re.search(r"__all__ = \[(.*?)\]", module.read_text(encoding="utf-8"), re.S)
        names = re.findall(r'"(\w+)"', namespace[1]) if namespace else []
        for name in names:
            assert f">{name}<" in text, f"{module.stem}.{name} is not in the reference"


def test_the_address_of_the_repository_is_the_same_everywhere():
    config = (paths.ROOT / "_config.yml").read_text(encoding="utf-8")
    configured = re.search(r"^  url: (\S+)", config, re.M)[1]

    for page in [*(paths.ROOT / "book").glob("*.md"), *paths.ROOT.glob("README.md")]:
        for url in REPOSITORY.findall(page.read_text(encoding="utf-8")):
            assert url == configured, page.name


def loaded_by(tag: str, attributes: dict[str, str]) -> list[str]:
    """Return the addresses that a browser loads because of a tag."""
    if tag not in LOADING_TAGS or attributes.get("rel") in NOT_LOADED:
        return []
    return [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]


def test_no_page_refers_to_another_server(pages):
    found = []

    for page in every_page(pages):
        for tag, attributes in start_tags(page):
            for url in loaded_by(tag, attributes):
                if EXTERNAL.match(url):
                    found.append((page.name, tag, url))

    for sheet in pages.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        for url in re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s;]+)", text):
            if EXTERNAL.match(url):
                found.append((sheet.name, "css", url))

    assert not found


def missing(page: Path, link: str) -> str:
    """Return what a link of a page lacks on this site: "file", "place" in the file, or nothing."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""

    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file():
        return "file"
    if parts.fragment and target.suffix == ".html":
        return "" if unquote(parts.fragment) in read_page(target).places else "place"
    return ""


def test_every_link_within_the_site_leads_somewhere(pages):
    links = [(page, link) for page in every_page(pages) for link in sorted(read_page(page).links)]
    assert len(links) > 5000
    broken = [(page.name, missing(page, link), link) for page, link in links]
    assert not [found for found in broken if found[1]]


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "a.html"
    page.write_text('<h1 id="b">B</h1>', encoding="utf-8")

    assert [missing(page, link) for link in ("#b", "a.html#b", "https://c.org")] == ["", "", ""]
    assert [missing(page, link) for link in ("#c", "a.html#c", "c.html")] == [
        "place",
        "place",
        "file",
    ]


def test_drawings_lead_to_pages_and_an_empty_corner_is_no_heading():
    page = '<th class="head"><p></p></th><th></th><th>a</th><a href="05_attention.ipynb#x">A</a>'
    drawing = '<svg><a xlink:href="06_positions.ipynb">B</a></svg>'
    download = '<a href="../_sources/notebooks/05_attention.ipynb">C</a>'

    assert mended(page + drawing + download) == (
        '<td></td><td></td><th>a</th><a href="05_attention.html#x">A</a>'
        '<svg><a xlink:href="06_positions.html">B</a></svg>' + download
    )


def test_every_picture_has_a_text_alternative(pages):
    for page in every_page(pages):
        for tag, attributes in start_tags(page):
            if tag == "img":
                assert "alt" in attributes, (page.name, attributes)

            if tag == "svg" and "aria-hidden" not in attributes:
                assert attributes.get("role") in ("img", "group"), (page.name, attributes)
                assert attributes.get("aria-label") or attributes.get("aria-labelledby"), page.name


def test_every_twin_has_a_text_alternative_without_javascript(pages):
    for page in every_page(pages):
        text = page.read_text(encoding="utf-8")
        assert text.count('class="twin"') == len(re.findall(r'class="twin-alt">[^<]+<', text))


# ---------------------------------------------------------------- with a browser


class Visit:
    """An open page, with everything that went wrong while it loaded."""

    def __init__(self, context, root: str, name: str) -> None:
        self.page = context.new_page()
        self.problems: list[str] = []
        self.strangers: list[str] = []  # addresses on other servers
        self.root = root

        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._request)
        self.page.on("response", self._response)

        self.page.goto(root + name)
        self.page.wait_for_selector("html[data-ready]")

    def _console(self, message):
        if message.type == "error":
            self.problems.append(message.text)

    def _request(self, request):
        if not request.url.startswith((self.root, "data:", "blob:")):
            self.strangers.append(request.url)

    def _response(self, response):
        if response.status >= 400:
            self.problems.append(f"{response.status} {response.url}")


def names(pages: Path) -> list[str]:
    """Return the address of every page, relative to the root."""
    found = [path.relative_to(pages).as_posix() for path in every_page(pages)]
    found.remove("index.html")  # it only redirects to the first page
    return found


@dataclass(frozen=True)
class Seen:
    """What a browser found on one page."""

    name: str
    strangers: list[str]
    problems: list[str]
    twins: list[tuple[str, bool, bool]]  # does it react to the keyboard, does Tab lead out of it
    idle_twins: int
    unreachable: list[str]
    too_wide: int
    violations: list[accessibility.Violation]
    cut_off: list[str]  # words that run out of their drawing


# A letter's box is taller than its ink: a pixel or two outside cut nothing off.
CUT_OFF = """() => [...document.querySelectorAll("svg")].flatMap((drawing) => {
    const edge = drawing.getBoundingClientRect();
    return [...drawing.querySelectorAll("text")].filter((words) => {
        const box = words.getBoundingClientRect();
        const outside = [edge.left - box.left, box.right - edge.right, edge.top - box.top, box.bottom - edge.bottom];
        return edge.width > 0 && Math.max(...outside) > 2.5;
    }).map((words) => words.textContent);
})"""


@pytest.fixture(scope="module")
def crawl(pages, chromium, address) -> list[Seen]:
    """Open every page once, with all its folds: in a desktop window, then on a phone, then in light and in dark."""
    context = chromium.new_context(color_scheme="light")
    known: set[str] = set()
    seen = []

    for name in names(pages):
        visit = Visit(context, address, name)
        page = visit.page
        idle = page.locator(".twin:not([data-mounted])").count()
        twins = [
            (
                place.get_attribute("data-twin"),
                reacts_to_the_keyboard(page, place),
                lets_go(page, place),
            )
            for place in page.locator(".twin[data-mounted]").all()
        ]

        cut = page.evaluate(CUT_OFF)
        accessibility.prepare(page)
        unreachable = page.evaluate(UNREACHABLE)
        found = accessibility.contrast(page, known)
        found += accessibility.violations(page)

        page.set_viewport_size(PHONE)
        page.wait_for_timeout(SETTLED)
        found += [(f"{rule}, phone", where) for rule, where in accessibility.violations(page)]
        wide = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

        seen.append(
            Seen(name, visit.strangers, visit.problems, twins, idle, unreachable, wide, found, cut)
        )
        page.close()

    context.close()
    return seen


def reacts_to_the_keyboard(page, place) -> bool:
    """Press some keys in the first field of a twin; return whether anything in the twin has changed."""
    seen = {place.inner_html()}
    fields = place.locator("input[type=range], input[type=text], textarea")
    (fields if fields.count() else place.locator("button")).first.focus()

    for key in ("ArrowLeft", "ArrowRight", "End", "x", "Enter"):
        page.keyboard.press(key)
        seen.add(place.inner_html())

    return len(seen) > 1


def lets_go(page, place) -> bool:
    """Does Tab lead out of a twin at its end, and Shift+Tab at its beginning?"""
    page.wait_for_function(
        "(twin) => !twin.querySelector('button[type=submit]:disabled')", arg=place.element_handle()
    )
    fields = place.locator("input, select, textarea, button, summary, a[href], [tabindex='0']")
    shown = [field for field in fields.all() if field.is_visible() and field.is_enabled()]
    for field, key in ((shown[-1], "Tab"), (shown[0], "Shift+Tab")):
        field.focus()
        page.keyboard.press(key)
        if place.evaluate("(twin) => twin.contains(document.activeElement)"):
            return False
    return True


@pytest.mark.browser
def test_no_page_makes_a_request_to_another_server(crawl):
    assert not [(page.name, page.strangers) for page in crawl if page.strangers]


@pytest.mark.browser
def test_every_twin_starts_and_no_page_has_an_error(crawl):
    assert not [page for page in crawl if page.problems or page.idle_twins]


@pytest.mark.browser
def test_every_twin_reacts_to_the_keyboard(crawl):
    twins = [(page.name, *twin) for page in crawl for twin in page.twins]

    assert twins
    assert not [(page, name) for page, name, reacts, _ in twins if not reacts]
    assert not [(page, name) for page, name, _, lets_go in twins if not lets_go]


@pytest.mark.browser
def test_the_keyboard_reaches_everything_that_can_be_clicked(crawl):
    assert not [(page.name, page.unreachable) for page in crawl if page.unreachable]


@pytest.mark.browser
def test_no_page_is_wider_than_a_phone(crawl):
    assert not [(page.name, page.too_wide) for page in crawl if page.too_wide > 0]


@pytest.mark.browser
def test_no_words_run_out_of_their_drawing(crawl):
    assert not [(page.name, page.cut_off) for page in crawl if page.cut_off]


@pytest.mark.browser
def test_axe_finds_nothing_on_any_page_in_light_and_in_dark(crawl):
    assert not [(page.name, page.violations) for page in crawl if page.violations]


@pytest.mark.browser
def test_the_axe_checks_notice_a_fault(chromium):
    page = chromium.new_page(color_scheme="light")
    page.set_content(
        '<!doctype html><html lang="en" data-theme="light"><title>t</title><main><h1>a</h1>'
        '<details><summary>b</summary><p style="color: #ccc">pale</p></details><button></button></main>'
    )
    page.evaluate(
        """() => matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) => {
          document.documentElement.dataset.theme = matches ? "dark" : "light";
        })"""
    )
    accessibility.prepare(page)
    known: set[str] = set()

    assert accessibility.contrast(page, known)[0][0] == "color-contrast, light"
    assert accessibility.contrast(page, known) == [], "it looks at each kind once"
    assert "button-name" in [rule for rule, _ in accessibility.violations(page)]
    page.close()


@pytest.mark.browser
def test_axe_notices_a_fault_that_only_a_phone_shows(chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_content(
        '<!doctype html><html lang="en"><title>t</title>'
        "<style>@media (min-width: 600px) { button { display: none } }</style>"
        "<main><h1>a</h1><button></button></main>"
    )
    accessibility.prepare(page)
    assert accessibility.violations(page) == []

    page.set_viewport_size(PHONE)
    assert [rule for rule, _ in accessibility.violations(page)] == ["button-name"]
    page.close()


def twin_page(pages: Path, twin: str, data: dict) -> Path:
    """Write a bare page with one twin, next to the site's scripts."""
    page = pages / f"twin-{twin}.html"
    page.write_text(
        '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>t</title>'
        '<link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="_static/custom.css">'
        f'<main class="bd-article">{twin_html(twin, data, "What it is.")}</main>'
        '<script type="module" src="_static/site.js"></script>',
        encoding="utf-8",
    )
    return page


@pytest.fixture
def twin(pages, chromium, address):
    """Return a function that opens a page with one twin on it."""
    context = chromium.new_context()
    visits = []

    def mount(name, data):
        file = twin_page(pages, name, data)
        visit = Visit(context, address, file.name)
        visit.page.wait_for_selector(".twin[data-mounted]", timeout=5000)
        file.unlink()

        visits.append(visit)
        return visit.page

    yield mount

    for visit in visits:
        assert not visit.problems
    context.close()


@pytest.mark.browser
def test_char_ids_shows_the_ids_and_refuses_an_unknown_character(twin):
    page = twin("char-ids", {"alphabet": "abn", "text": "banana"})
    assert page.locator(".token small").all_inner_texts() == ["1", "0", "2", "0", "2", "0"]

    page.get_by_label("Text").fill("nab")
    assert page.locator(".token small").all_inner_texts() == ["2", "0", "1"]

    page.get_by_label("Text").fill("na€")
    assert page.locator(".token").count() == 0
    assert "'€' (U+20AC) at position 2" in page.get_by_role("status").inner_text()


@pytest.mark.browser
def test_char_ids_escapes_html_in_the_text(twin):
    page = twin("char-ids", {"alphabet": "<>b/", "text": "<b></b>"})

    assert page.locator(".token b").all_inner_texts() == list("<b></b>")


@pytest.mark.browser
def test_batch_slicer_shifts_the_targets_by_one(twin):
    page = twin("batch-slicer", {"text": "To be, or not to be", "block_size": 4})

    for _ in range(2):
        page.get_by_label("Start").press("ArrowRight")
    chosen = [
        "".join(strip.locator(".token:not(.out) b").all_text_contents())
        for strip in page.locator(".strip").all()
    ]
    assert chosen == ["␣be,", "be,␣"]

    page.get_by_label("Block size").press("End")
    assert page.locator(".strip").first.locator(".token:not(.out)").count() == 16
    assert "x is tokens[2:18], y is tokens[3:19]" in page.get_by_role("status").inner_text()


@pytest.mark.browser
def test_bigram_sampler_follows_its_table(twin):
    page = twin("bigram-sampler", {"alphabet": "abn", "probs": [[0, 0, 9], [9, 0, 0], [3, 1, 0]]})

    page.get_by_label("After the character").select_option("b")
    page.get_by_role("button", name="Write one character").click()
    assert page.get_by_role("region", name="Generated text").text_content() == "a"

    page.get_by_role("button", name="Write 200").click()
    text = page.get_by_role("region", name="Generated text").text_content()
    assert len(text) == 201
    assert set(text) <= set("abn")
    assert not re.search("aa|ab|bb|bn|nn", text), "the table forbids these pairs"

    page.get_by_label("After the character").select_option("n")
    assert page.locator(".bars [role=listitem]").first.inner_text().split() == ["a", "75.0", "%"]

    page.get_by_label("Temperature").press("Home")
    assert page.locator(".bars [role=listitem]").count() == 1
