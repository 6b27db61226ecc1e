"""The certificate as a page: one file, no scripts, nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; }
h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top; border-bottom: 1px solid #80808040; }
code { font-size: .85em; overflow-wrap: anywhere; }
.box { overflow-x: auto; }
"""
_WHOSE = {
    ("exported", True): "the learner's own code, proved",
    ("exported", False): "the course's code, exported and proved",
    ("course", False): "the course's own",
}


def to_html(data: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Return the page of a certificate; `titles` names its exercises."""
    exported = [c for c in data["chapters"] if c["status"] == "exported"]
    own = sum(chapter["own"] for chapter in exported)
    day = data["made"][:10]
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MiniGPT from scratch: certificate</title>
<style>{_STYLE}</style>
<main>
<h1>MiniGPT from scratch</h1>
<p>On {html.escape(day)}, {count(len(exported), "chapter")} of the library and
{count(len(data["exercises"]), "exercise")} were proved again from a clean copy of this learner's work.
{count(own, "chapter")} {"is" if own == 1 else "are"} the learner's own code.</p>
<h2>Chapters</h2>
<div class="box" tabindex="0" role="region" aria-label="Chapters">{_chapters(data["chapters"])}</div>
<h2>Exercises</h2>
<div class="box" tabindex="0" role="region" aria-label="Exercises">{_exercises(data["exercises"], titles)}</div>
<h2>What this proves, and what it does not</h2>
<p>It proves that the notebooks with these digests pass the checks of the chapters and exercises listed above. Whoever
has them can prove it again, on any computer and without a network. Doing so runs the learner's code:</p>
<p><code>python -m courseware certificate --verify certificate.json</code></p>
<p>To trust as little as possible, download the course yourself, put the learner's folders <code>notebooks</code>,
<code>exercises</code> and <code>minigpt_lib</code> into it, and run the command there: then your copy does the
checking.</p>
<p>It does not prove who wrote the code, how long it took, or whether it was looked up: the course shows its solutions
to everybody. It does not stop a person who sets out to cheat, since a notebook is a program. Nothing here is signed and
no server knows about it, so without the notebooks, this page is only a claim.</p>
<h2>Made with</h2>
<div class="box" tabindex="0" role="region" aria-label="Made with">{_table(("what", "which"), _versions(data))}</div>
</main>
</html>
"""


def count(number: int, noun: str) -> str:
    """Return such as "1 chapter" or "2 chapters"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _chapters(chapters: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for chapter in chapters:
        digests = [f"notebook {_short(chapter['notebook'])}"]
        digests += [f"{name} {_short(digest)}" for name, digest in chapter["modules"].items()]
        whose = _WHOSE[chapter["status"], chapter["own"]]
        if chapter["own_checks"]:
            whose += ", by checks that differ from the course's"
        rows.append((html.escape(chapter["chapter"]), whose, "<br>".join(digests)))
    return _table(("chapter", "whose", "SHA-256, first 16 digits"), rows)


def _exercises(exercises: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    if not exercises:
        return "<p>None yet.</p>"
    rows = [
        (html.escape(e["chapter"]), html.escape(titles.get(e["name"], e["name"])))
        for e in exercises
    ]
    return _table(("chapter", "solved"), rows)


def _versions(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    course = data["course"]
    found = {
        "course": course["version"],
        "commit of the course": course["commit"] or "no git repository",
        "code that checks (SHA-256)": course["checks"],
        "Python": data["versions"]["python"],
        "PyTorch": data["versions"]["torch"],
        "system": data["versions"]["system"],
        "time": data["made"],
    }
    return [(name, f"<code>{html.escape(value)}</code>") for name, value in found.items()]


def _short(digest: str) -> str:
    return f'<code title="{html.escape(digest)}">{html.escape(digest[:16])}</code>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
