"""The website: built without a warning, asks no other server for anything, and works for everybody."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import browser as browsers
import pytest

from courseware import paths, site

pytestmark = pytest.mark.slow
EXTERNAL = re.compile(r"^(https?:)?//", re.IGNORECASE)
AXE_PAGES = ("book/intro.html", "notebooks/01_characters.html", "book/how-it-works.html")


@pytest.fixture(scope="session")
def pages(tmp_path_factory) -> Path:
    """Build the site once, every warning an error, and return its folder."""
    return site.build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def chromium():
    with browsers.launched() as running:
        yield running


@pytest.fixture(scope="module")
def address(pages):
    with browsers.served(pages) as root:
        yield root


def every_page(pages: Path) -> list[Path]:
    return sorted(path for path in pages.rglob("*.html") if "_static" not in path.parts)


class Tags(HTMLParser):
    """Collect the start tags of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {name: value or "" for name, value in attributes}))


# ---------------------------------------------------------------- without a browser


def test_every_notebook_has_its_page(pages):
    for folder in ("notebooks", "exercises", "solutions"):
        for notebook in (paths.ROOT / folder).glob("*.ipynb"):
            assert (pages / folder / f"{notebook.stem}.html").exists(), notebook


def test_the_reference_names_every_public_name(pages):
    text = (pages / "book" / "reference.html").read_text(encoding="utf-8")
    for module in paths.LIBRARY.glob("[a-z]*.py"):
        namespace = re.search(r"__all__ = \[(.*?)\]", module.read_text(encoding="utf-8"), re.S)
        for name in re.findall(r'"(\w+)"', namespace[1]) if namespace else ():
            assert f">{name}<" in text, f"{module.stem}.{name} is not in the reference"


def test_the_address_of_the_repository_is_everywhere_the_same():
    configured = re.search(r"^  url: (\S+)", (paths.ROOT / "_config.yml").read_text("utf-8"), re.M)[
        1
    ]
    for page in [*(paths.ROOT / "book").glob("*.md"), *paths.ROOT.glob("README.md")]:
        text = page.read_text(encoding="utf-8")
        for url in re.findall(r"https://github\.com/[\w.-]+/minigpt-from-scratch", text):
            assert url == configured, page.name


def test_no_page_refers_to_another_server(pages):
    found = []
    for page in every_page(pages):
        for tag, attributes in Tags(page).tags:
            loads = tag in (
                "script",
                "img",
                "iframe",
                "source",
                "video",
                "audio",
                "object",
                "embed",
            )
            if tag == "link":
                loads = attributes.get("rel") not in ("canonical", "next", "prev", "author")
            for name in ("src", "href", "srcset", "data"):
                if loads and EXTERNAL.match(attributes.get(name, "")):
                    found.append((page.name, tag, attributes[name]))
    for sheet in pages.rglob("*.css"):
        for url in re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s;]+)", sheet.read_text("utf-8")):
            if EXTERNAL.match(url):
                found.append((sheet.name, "css", url))
    assert not found


def test_every_picture_is_described(pages):
    for page in every_page(pages):
        for tag, attributes in Tags(page).tags:
            if tag == "img":
                assert "alt" in attributes, (page.name, attributes)
            if tag == "svg" and attributes.get("role") == "img":
                assert attributes.get("aria-label") or attributes.get("aria-labelledby"), page.name
            if tag == "svg":
                assert attributes.get("role") == "img" or "aria-hidden" in attributes, (
                    page.name,
                    attributes,
                )


def test_the_words_of_a_twin_are_on_the_page_without_javascript(pages):
    for page in every_page(pages):
        text = page.read_text(encoding="utf-8")
        assert text.count('class="twin"') == len(re.findall(r'class="twin-alt">[^<]+<', text))


# ---------------------------------------------------------------- with a browser


class Visit:
    """One page opened, with everything that went wrong on the way."""

    def __init__(self, context, root: str, name: str) -> None:
        self.page = context.new_page()
        self.problems: list[str] = []
        self.strangers: list[str] = []
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
    found = [path.relative_to(pages).as_posix() for path in every_page(pages)]
    found.remove("index.html")  # only sends the reader on to the first page
    return found


@dataclass(frozen=True)
class Seen:
    """What a browser met on one page."""

    name: str
    strangers: list[str]
    problems: list[str]
    idle_twins: int
    too_wide: int


@pytest.fixture(scope="module")
def crawl(pages, chromium, address) -> list[Seen]:
    """Open every page once, first on a desk and then on a phone."""
    context = chromium.new_context()
    seen = []
    for name in names(pages):
        visit = Visit(context, address, name)
        idle = visit.page.locator(".twin:not([data-mounted])").count()
        visit.page.set_viewport_size({"width": 390, "height": 844})
        wide = visit.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        seen.append(Seen(name, visit.strangers, visit.problems, idle, wide))
        visit.page.close()
    context.close()
    return seen


@pytest.mark.browser
def test_no_page_asks_another_server(crawl):
    assert not [(page.name, page.strangers) for page in crawl if page.strangers]


@pytest.mark.browser
def test_no_page_has_an_error_and_every_twin_starts(crawl):
    assert not [page for page in crawl if page.problems or page.idle_twins]


@pytest.mark.browser
def test_no_page_is_wider_than_a_phone(crawl):
    assert not [(page.name, page.too_wide) for page in crawl if page.too_wide > 0]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", AXE_PAGES)
def test_axe_finds_nothing_serious(chromium, address, name, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python",
        reason="axe-playwright-python, which brings axe-core, is not installed",
    )
    script = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    context = chromium.new_context(color_scheme=scheme)
    visit = Visit(context, address, name)
    visit.page.evaluate(script)
    found = visit.page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [
        (item["id"], [node["html"][:120] for node in item["nodes"]])
        for item in found
        if item["impact"] in ("serious", "critical")
    ]
    context.close()
    assert not serious


def twin_page(tmp_path: Path, pages: Path, twin: str, data: dict) -> Path:
    """Write a bare page with one twin beside the site's own scripts."""
    from courseware.widgets import twin_html

    page = pages / f"twin-{twin}.html"
    page.write_text(
        '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>t</title>'
        '<link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="_static/custom.css">'
        f'<main class="bd-article">{twin_html(twin, data, "What it is.")}</main>'
        '<script type="module" src="_static/site.js"></script>'
    )
    return page


@pytest.fixture
def twin(tmp_path, pages, chromium, address):
    """Return a function that mounts a twin on a page of its own and returns the page."""
    context = chromium.new_context()
    visits = []

    def mount(name, data):
        file = twin_page(tmp_path, pages, name, data)
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
def test_char_ids_shows_and_refuses(twin):
    page = twin("char-ids", {"alphabet": "abn", "text": "banana"})
    assert page.locator(".token small").all_inner_texts() == ["1", "0", "2", "0", "2", "0"]
    page.get_by_label("Text").fill("nab")
    assert page.locator(".token small").all_inner_texts() == ["2", "0", "1"]
    page.get_by_label("Text").fill("na€")
    assert page.locator(".token").count() == 0
    assert "'€' (U+20AC) at position 2" in page.get_by_role("status").inner_text()


@pytest.mark.browser
def test_char_ids_escapes_what_is_typed(twin):
    page = twin("char-ids", {"alphabet": "<>b/", "text": "<b></b>"})
    assert page.locator(".token b").all_inner_texts() == list("<b></b>")


@pytest.mark.browser
def test_batch_slicer_shifts_by_one(twin):
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
def test_bigram_sampler_follows_the_table(twin):
    page = twin("bigram-sampler", {"alphabet": "abn", "probs": [[0, 0, 9], [9, 0, 0], [3, 1, 0]]})
    page.get_by_label("After the character").select_option("b")
    page.get_by_role("button", name="Write one character").click()
    assert page.get_by_role("region", name="Generated text").text_content() == "a"
    page.get_by_role("button", name="Write 200").click()
    text = page.get_by_role("region", name="Generated text").text_content()
    assert len(text) == 201 and set(text) <= set("abn")
    assert not re.search("aa|ab|bb|bn|nn", text), "the table forbids these pairs"
    page.get_by_label("After the character").select_option("n")
    assert page.locator(".bars [role=listitem]").first.inner_text().split() == ["a", "75.0", "%"]
    page.get_by_label("Temperature").press("Home")
    assert page.locator(".bars [role=listitem]").count() == 1


@pytest.mark.browser
def test_every_twin_of_the_chapters_reacts_to_a_key(pages, chromium, address):
    context = chromium.new_context()
    tried = 0
    for path in sorted((pages / "notebooks").glob("*.html")):
        if 'class="twin"' not in path.read_text(encoding="utf-8"):
            continue
        visit = Visit(context, address, f"notebooks/{path.name}")
        for place in visit.page.locator(".twin[data-mounted]").all():
            seen = {place.inner_html()}
            fields = place.locator("input[type=range], input[type=text], textarea")
            (fields if fields.count() else place.locator("button")).first.focus()
            for key in ("ArrowLeft", "ArrowRight", "End", "x", "Enter"):
                visit.page.keyboard.press(key)
                seen.add(place.inner_html())
            assert len(seen) > 1, f"{path.name}: {place.get_attribute('data-twin')}"
            tried += 1
        assert not visit.problems
        visit.page.close()
    context.close()
    assert tried >= 1
