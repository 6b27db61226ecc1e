"""The page of references: the entries of `book/references.bib`, each with the chapters whose sources name it."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

from courseware import paths

FILE = paths.ROOT / "book" / "references.bib"
_ENTRY = re.compile(r"@(\w+)\{([\w-]+),\n(.*?)\n\}", re.S)
_FIELD = re.compile(r"^\s*(\w+) = \{(.*)\},?$", re.M)


@dataclass(frozen=True)
class Reference:
    """An entry of the bibliography."""

    key: str
    fields: dict[str, str]

    @property
    def address(self) -> str:
        """Where to find it, or an empty text."""
        if "eprint" in self.fields:
            return f"https://arxiv.org/abs/{self.fields['eprint']}"
        if "doi" in self.fields:
            return f"https://doi.org/{self.fields['doi']}"
        return self.fields.get("url", "")

    def is_named_in(self, sources: str) -> bool:
        """Does a chapter's list of sources name it, by its address or by a title of three words or more?"""
        if self.address and self.address in sources:
            return True
        title = self.fields["title"].lower()
        return len(title.split()) >= 3 and title in sources.lower()


def read_references(path: Path = FILE) -> list[Reference]:
    """Return the entries of a .bib file; each field stands on a line of its own."""
    found = _ENTRY.findall(path.read_text(encoding="utf-8"))
    return [Reference(key, dict(_FIELD.findall(body))) for _, key, body in found]


def chapter_sources() -> dict[str, str]:
    """Return the section Sources of every chapter, by the name of its notebook."""
    found = {}
    for path in sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found[path.stem] = text.rpartition("\n## Sources\n")[2]
    return found


def bibliography() -> str:
    """Return all references as Markdown, by the first author's name."""
    sources = chapter_sources()
    entries = sorted(read_references(), key=lambda entry: (_authors(entry).lower(), entry.key))
    return "\n".join(f"* {_shown(entry, sources)}" for entry in entries)


def _shown(entry: Reference, sources: dict[str, str]) -> str:
    fields = entry.fields
    title = f"*{_escaped(fields['title'])}*"
    if entry.address:
        title = f"[{title}]({entry.address})"
    parts = [_escaped(_authors(entry)), title]

    if "journal" in fields:
        parts.append(f"{fields['journal']} {fields['volume']}")
    parts += [fields[name] for name in ("booktitle", "howpublished") if name in fields]
    if "year" in fields:
        parts.append(fields["year"])

    stems = [stem for stem, text in sources.items() if entry.is_named_in(text)]
    links = [f"[{int(stem[:2])}](../notebooks/{stem}.ipynb)" for stem in stems]
    where = f" Chapter{'s' if len(links) > 1 else ''} {', '.join(links)}." if links else ""
    return f"{', '.join(parts)}.{where}"


def _authors(entry: Reference) -> str:
    """Return "A. Vaswani et al." for "Vaswani, Ashish and others"."""
    names = [_name(name) for name in entry.fields["author"].split(" and ") if name != "others"]
    if entry.fields["author"].endswith(" and others"):
        return f"{names[0]} et al."
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _name(name: str) -> str:
    last, _, first = name.strip("{}").partition(", ")
    initials = [f"{part[0]}." for part in first.split()]
    return " ".join([last, *initials]) if initials else last


def _escaped(text: str) -> str:
    return re.sub(r"([*_\[\]])", r"\\\1", html.escape(text, quote=False))
