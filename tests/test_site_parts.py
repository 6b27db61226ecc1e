"""The pages of the parts: each begins its part, names its chapters with their times, and marks where it stands."""

from __future__ import annotations

import re

import nbformat
import pytest
import yaml

from courseware import paths
from courseware.export.notebooks import find_chapter
from courseware.site.parts import Part, read_parts, strip, with_strip

BOOK = paths.ROOT / "book"
PARTS = read_parts()
MOST_WORDS = 220  # a screen and a half
EACH_PART = pytest.mark.parametrize("part", PARTS, ids=lambda part: part.slug)
_ENTRY = re.compile(
    r"^\[(\d+) · [^\]]+\]\(\.\./\.\./notebooks/(\w+)\.ipynb\), (.+)\n: (.+\?) Adds (.+)\.$", re.M
)
_TIME = re.compile(r"\*\*Time:\*\* ([^,;.(]+)")


def page_of(part: Part) -> str:
    return (BOOK / "parts" / f"{part.slug}.md").read_text(encoding="utf-8")


def said_in(stem: str) -> str:
    """Return the text of a chapter, and what its code has printed."""
    cells = nbformat.read(find_chapter(stem).path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    printed = [output.text for output in outputs if output.output_type == "stream"]
    return "\n".join(find_chapter(stem).markdown + printed)


def time_of(stem: str) -> str:
    """Return the time that the first cell of a chapter says."""
    return _TIME.search(find_chapter(stem).markdown[0])[1].strip()


def names_of(stem: str) -> set[str]:
    """Return the public names of a chapter's modules."""
    found: set[str] = set()
    for module in find_chapter(stem).modules:
        source = (paths.LIBRARY / f"{module}.py").read_text(encoding="utf-8")
        namespace = re.search(r"__all__ = \[(.*?)\]", source, re.S)
        found |= set(re.findall(r'"(\w+)"', namespace[1]))
    return found


# ---------------------------------------------------------------- what is wrong with a page


def faults_of_chapters(page: str, part: Part) -> list[str]:
    """Return what a page says otherwise than the chapters of its part do."""
    entries = _ENTRY.findall(page)
    linked = re.findall(r"notebooks/(\w+)\.ipynb", page)
    if not [stem for _, stem, *_ in entries] == linked == list(part.chapters):
        return [f"links to {linked}, and the part has {list(part.chapters)}"]

    found = []
    for number, stem, time, _, added in entries:
        if int(number) != int(stem[:2]):
            found.append(f"{stem} is called chapter {number}")
        if time != time_of(stem):
            found.append(f"{stem} takes {time} here, and {time_of(stem)} there")
        unknown = set(re.findall(r"`(\w+)`", added)) - names_of(stem)
        if unknown or "`" not in added:
            found.append(f"{stem} does not add {unknown or 'anything'}")
    return found


def faults_of_facts(page: str, part: Part) -> list[str]:
    """Return the sections, quotations and decimal numbers of a page that none of its chapters has."""
    prose, _, short = page.partition("## Short of time?")
    said = "\n".join(said_in(stem) for stem in part.chapters)
    titles = set(re.findall(r"^## (.+)$", said, re.M))
    titles |= {title.partition(":")[0] for title in titles}  # a chapter may name its sections so

    sections = re.findall(r"\*([^*]+)\*", short)
    facts = re.findall(r'"([^"]+)"', prose) + re.findall(r"\d+\.\d+", prose)
    unsaid = [f for f in facts if not re.search(rf"(?<!\w){re.escape(f)}(?!\w)", said)]
    return [name for name in sections if name not in titles] + unsaid


def length(page: str) -> int:
    """Return how many words a reader of a page reads, without the strip."""
    page = re.sub(r"<!--.*?-->", "", page)
    page = re.sub(r"\]\([^)]*\)", "]", page)
    return sum(bool(re.search(r"\w", word)) for word in page.split())


def marked(drawn: str) -> list[str]:
    """Return the pages that a strip marks as the present one."""
    return re.findall(r'<a href="([^"]+)" aria-current="page">', drawn)


# ---------------------------------------------------------------- the pages


def test_every_part_begins_with_its_page():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    captions = [entry["caption"] for entry in toc]
    assert (captions[0], captions[-1]) == ("Start", "Reference")

    assert [part.title for part in PARTS] == captions[1:-1]
    assert sorted(path.stem for path in (BOOK / "parts").iterdir()) == sorted(
        part.slug for part in PARTS
    )
    for part, entry in zip(PARTS, toc[1:-1]):
        assert page_of(part).startswith(f"# Part {part.number}: {part.title}\n")
        assert entry["chapters"][0]["title"] == f"Part {part.number}", "short, for the side bar"


@EACH_PART
def test_a_page_names_the_chapters_of_its_part_as_they_are(part):
    assert not faults_of_chapters(page_of(part), part)


@EACH_PART
def test_what_a_page_quotes_stands_in_its_chapters(part):
    assert not faults_of_facts(page_of(part), part)


@EACH_PART
def test_a_page_is_short_and_says_three_things_that_you_can_do(part):
    page = page_of(part)
    abilities = page.partition("## After this part you can\n\n")[2].partition("\n\n")[0]

    assert length(page) <= MOST_WORDS
    assert len(re.findall(r"^- ", abilities, re.M)) == 3


@EACH_PART
def test_the_strip_marks_one_part(part):
    drawn = with_strip(page_of(part), part.slug)
    links = re.findall(r'<li><a href="(\S+)\.html"', drawn)

    assert links == [other.slug for other in PARTS]
    assert marked(drawn) == [f"{part.slug}.html"]
    assert "<!--" not in drawn


def test_what_goes_through_a_part_is_drawn_in_order():
    drawn = strip("text", ["`a<b`", "ids"])

    assert "<li><code>a&lt;b</code></li>\n<li>ids</li>" in drawn


def test_a_page_without_a_way_and_a_page_of_no_part_are_refused():
    with pytest.raises(ValueError, match="expected one comment `way`, got 0"):
        with_strip("# Part 1: Text", "text")
    with pytest.raises(ValueError, match="nowhere is the page of no part"):
        with_strip("<!-- way: a → b -->", "nowhere")


DAMAGES = {
    "another time": (", an hour\n", ", two hours\n", "03_data takes two hours here, and an hour"),
    "another number": ("[3 ·", "[4 ·", "03_data is called chapter 4"),
    "a name that the library lacks": ("`get_batch`", "`batches`", "03_data does not add"),
    "a chapter of the next part": ("03_data", "04_baselines", "the part has"),
    "a chapter is left out": ("[3 · Data](../../notebooks/03_data.ipynb)", "Data", "the part has"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_wrong_page_is_noticed(damage):
    was, now, complaint = DAMAGES[damage]
    page = page_of(PARTS[0])
    assert was in page

    found = faults_of_chapters(page.replace(was, now), PARTS[0])
    assert complaint in "\n".join(found)


def test_what_no_chapter_says_is_noticed():
    page = 'It costs 9.87 and "so much".\n\n## Short of time?\n\nLeave out *What is not there*.'

    assert faults_of_facts(page, PARTS[1]) == ["What is not there", "so much", "9.87"]


# ---------------------------------------------------------------- where the pages are linked


def test_the_front_page_groups_the_chapters_by_part():
    front = (BOOK / "intro.md").read_text(encoding="utf-8").partition("## The chapters")[2]
    groups = re.split(r"^### ", front, flags=re.M)[2:]  # the first is Start

    assert len(groups) == len(PARTS)
    for part, group in zip(PARTS, groups):
        assert group.startswith(f"[{part.title}](parts/{part.slug}.md)\n")
        assert re.findall(r"^:link: \S+/(\d\d_\w+)$", group, re.M) == list(part.chapters)


@pytest.mark.slow
def test_every_page_of_the_site_has_the_parts_in_its_side_bar(pages):
    page = (pages / "notebooks" / "05_attention.html").read_text(encoding="utf-8")

    for part in PARTS:
        link = rf'href="\.\./book/parts/{part.slug}\.html">\s*Part {part.number}\s*<'
        assert re.search(link, page), part.slug
