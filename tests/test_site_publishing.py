"""What a published site needs: cards for links, a site map, a feed of changes, print styles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest
import yaml
from docutils import nodes, utils
from nbformat.sign import NotebookNotary

from courseware import paths
from courseware.site.colab import BRANCH, FOLDERS, setup_cell, write_copies
from courseware.site.mending import mended
from courseware.site.publishing import (
    FEED,
    PICTURE,
    description,
    draw_card,
    feed,
    meta_tags,
    site_address,
    site_map,
)

ATOM = "{http://www.w3.org/2005/Atom}"
ADDRESS = "https://somebody.github.io/course/"


def document(*paragraphs: str) -> nodes.document:
    page = utils.new_document("page")
    page += [nodes.paragraph("", text) for text in paragraphs]
    return page


# ---------------------------------------------------------------- addresses, cards, maps and feeds


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("https://github.com/Somebody/course", ADDRESS),
        ("https://github.com/somebody/course.git", ADDRESS),
        ("https://github.com/somebody/somebody.github.io/", "https://somebody.github.io/"),
    ],
)
def test_the_sites_address_follows_from_the_repositorys(monkeypatch, repository, expected):
    monkeypatch.delenv("SITE_URL", raising=False)
    assert site_address(repository) == expected

    monkeypatch.setenv("SITE_URL", "https://elsewhere.org/gpt")
    assert site_address(repository) == "https://elsewhere.org/gpt/"


def test_a_page_describes_itself_by_its_first_sentence():
    long = "How does a program learn to write? " * 10

    assert description(document("Short.", long)).startswith("How does a program")
    assert len(description(document(long))) <= 200
    assert description(document(long)).endswith(" …")
    assert description(document("Short.")) == "" == description(None)


def test_the_tags_of_a_page_are_escaped_and_complete():
    tags = meta_tags(
        "notebooks/05_toy",
        'A "toy" <b>',
        document('Is it <b>, or is it "c"? Nobody knows it today.'),
        ADDRESS,
    )

    assert f'property="og:url" content="{ADDRESS}notebooks/05_toy.html"' in tags
    assert f'property="og:image" content="{ADDRESS}{PICTURE}"' in tags
    assert 'content="A &quot;toy&quot; &lt;b&gt;"' in tags
    assert 'content="Is it &lt;b&gt;, or is it &quot;c&quot;? Nobody knows it today."' in tags
    assert f'type="application/atom+xml" title="Changes" href="../{FEED}"' in tags


def test_the_site_map_lists_every_page_once():
    root = ElementTree.fromstring(site_map(["b.html", "a/c.html"], ADDRESS).encode())
    places = [entry[0].text for entry in root]

    assert places == [f"{ADDRESS}a/c.html", f"{ADDRESS}b.html"]


def test_the_feed_has_an_entry_for_each_release_and_none_for_what_is_to_come():
    changelog = (
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- Not yet.\n\n"
        "## [0.2.0] - 2026-12-24\n\n### Added\n\n- `x <y>`\n  over two lines.\n\n"
        "## [0.1.0] - 2026-11-21\n\nThe first.\n"
    )
    root = ElementTree.fromstring(feed(changelog, ADDRESS).encode())
    entries = root.findall(f"{ATOM}entry")

    assert [entry.findtext(f"{ATOM}title") for entry in entries] == [
        "Version 0.2.0",
        "Version 0.1.0",
    ]
    assert root.findtext(f"{ATOM}updated") == "2026-12-24T00:00:00Z"
    content = entries[0].findtext(f"{ATOM}content")
    assert content == "<h3>Added</h3><p>• <code>x &lt;y&gt;</code> over two lines.</p>"
    assert len({entry.findtext(f"{ATOM}id") for entry in entries}) == 2


def test_the_courses_own_changelog_makes_a_feed():
    changelog = (paths.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    root = ElementTree.fromstring(feed(changelog, ADDRESS).encode())

    assert len(root.findall(f"{ATOM}entry")) == len(re.findall(r"^## \[\d", changelog, re.M)) > 0


def test_the_picture_has_the_size_of_a_card(tmp_path):
    from PIL import Image

    draw_card(tmp_path / "card.png")
    with Image.open(tmp_path / "card.png") as picture:
        assert picture.size == (1200, 630)
    assert (tmp_path / "card.png").stat().st_size < 100_000


# ---------------------------------------------------------------- copies for Colab

# Stands before the cell: the course is not installed, and what pip would be asked for is printed.
EMPTY_MACHINE = """
import importlib.util, subprocess
real = subprocess.run
def run(command, **options):
    if "pip" in command:
        print("PIP", *command[4:])
    elif "courseware.material.corpus" in command:
        print("TEXT")
    else:
        return real(command, **options)
subprocess.run = run
importlib.util.find_spec = lambda name: None
"""
AFTERWARDS = """
import os
import courseware
print("HERE", os.getcwd())
print("FROM", courseware.__file__)
"""


def small_repository(folder: Path) -> Path:
    """Make a repository with what the cell touches."""
    for name, text in {
        "courseware/__init__.py": "",
        "notebooks/05_toy.ipynb": "{}",
        "requirements.txt": "torch>=2,<3  # big\n# a note\njupyterlab>=4\n\nregex\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-qm", "c"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_the_cell_for_colab_gets_the_course_into_an_empty_folder(tmp_path):
    source = small_repository(tmp_path / "somewhere" / "course")
    cell = setup_cell(source.as_uri(), "main", "notebooks")
    empty = tmp_path / "machine"
    empty.mkdir()

    for _ in range(2):  # the second time everything is there
        answer = subprocess.run(
            [sys.executable, "-c", EMPTY_MACHINE + cell + AFTERWARDS],
            cwd=empty,
            capture_output=True,
            encoding="utf-8",
        )
        assert answer.returncode == 0, answer.stderr
        said = dict(line.split(" ", 1) for line in answer.stdout.splitlines() if " " in line)
        assert said["PIP"] == "--quiet torch>=2,<3 regex"
        assert Path(said["HERE"]).resolve() == (empty / "course" / "notebooks").resolve()
        assert Path(said["FROM"]).resolve().is_relative_to((empty / "course").resolve())


def test_the_cell_for_colab_does_nothing_where_the_course_is(tmp_path):
    before = Path.cwd(), list(sys.path)
    exec(setup_cell("https://example.org/nothing.git", "main", "notebooks"), {})
    assert (Path.cwd(), list(sys.path)) == before


def test_every_notebook_has_a_copy_with_the_cell_after_its_title(tmp_path):
    copies = write_copies(tmp_path)
    assert len(copies) == sum(len(list((paths.ROOT / f).glob("*.ipynb"))) for f in FOLDERS)

    for copy in (copies[0], copies[-1]):
        original = nbformat.read(paths.ROOT / copy.relative_to(tmp_path), as_version=4)
        cells = nbformat.read(copy, as_version=4).cells
        assert [cell.source for cell in cells[:1] + cells[2:]] == [
            cell.source for cell in original.cells
        ]
        assert "git" in cells[1].source


def test_the_button_leads_to_the_copies():
    address = 'href="https://colab.research.google.com/github/o/r/blob/'
    button = f'{address}main/notebooks/05_toy.ipynb"'
    assert mended(button) == f'{address}{BRANCH}/notebooks/05_toy.ipynb"'


# ---------------------------------------------------------------- the built pages


@pytest.mark.slow
def test_the_built_site_has_its_files(pages):
    places = [entry[0].text for entry in ElementTree.parse(pages / "sitemap.xml").getroot()]
    chapters = [path.stem for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb")]

    for stem in chapters:
        assert sum(place.endswith(f"/notebooks/{stem}.html") for place in places) == 1
    assert (pages / FEED).is_file()
    assert (pages / PICTURE).is_file()
    assert (pages / ".nojekyll").is_file()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="mybinder.org's script needs bash")
def test_mybinder_signs_the_notebooks_so_that_their_figures_are_shown(tmp_path):
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "JUPYTER_DATA_DIR": str(tmp_path),
        "MINIGPT_DATA": str(tmp_path),
    }
    subprocess.run(["bash", "binder/postBuild"], cwd=paths.ROOT, env=environment, check=True)

    notary = NotebookNotary(data_dir=str(tmp_path))
    for folder in (paths.NOTEBOOKS, paths.ROOT / "exercises", paths.ROOT / "solutions"):
        for path in folder.glob("[0-9]*.ipynb"):
            assert notary.check_signature(nbformat.read(path, as_version=4)), path.name


@pytest.mark.slow
def test_every_chapter_can_be_shared_edited_and_launched(pages):
    config = yaml.safe_load((paths.ROOT / "_config.yml").read_text(encoding="utf-8"))
    repository, branch = config["repository"]["url"], config["repository"]["branch"]
    owner_and_name = repository.removeprefix("https://github.com/")

    for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"):
        page = (pages / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert page.count('property="og:title"') == 1
        assert page.count('property="og:image"') == 1
        assert page.count('rel="canonical"') == 1
        assert f"{repository}/edit/{branch}/notebooks/{path.name}" in page
        assert f"{repository}/issues/new" in page
        assert f"https://mybinder.org/v2/gh/{owner_and_name}/{branch}" in page
        assert f"notebooks/{path.name}" in page.partition("mybinder.org")[2].partition('"')[0]


@pytest.mark.slow
@pytest.mark.browser
def test_paper_gets_the_text_with_every_fold_open(chromium, address):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{address}notebooks/05_attention.html")
    page.wait_for_selector("html[data-ready]")
    closed = page.locator("details:not([open])").count()

    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert closed > 10
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator(".bd-sidebar-primary").first.is_visible()
    assert not page.locator(".bd-header-article").first.is_visible()
    wrap = page.evaluate("getComputedStyle(document.querySelector('.bd-article pre')).whiteSpace")
    assert wrap == "pre-wrap"

    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == closed
    context.close()
