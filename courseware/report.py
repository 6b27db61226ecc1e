"""What a successful export shows: a table of proofs that a reader can trust at a glance."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path

from courseware import paths
from courseware.build import Candidate
from courseware.chapters import Chapter


@dataclass(frozen=True)
class Proofs:
    """The outcome of one export; displays as a table."""

    chapter: Chapter
    candidate: Candidate
    answer: dict
    target: Path
    seconds: float

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return (what was proved, against what, names it watches over, time) for every check."""
        watches: dict[int, list[str]] = {}
        for target in self.answer["targets"]:
            for number in target["by"]:
                watches.setdefault(number, []).append(target["name"])
        cells = {cell.number: cell for cell in self.chapter.of("check")}
        rows = []
        for check in self.answer["checks"]:
            what, against = cells[check["number"]].claim
            names = ", ".join(_short(watches.get(check["number"], [])))
            rows.append((what, against or "by hand", names, f"{check['seconds']:.2f} s"))
        return rows

    @property
    def place(self) -> str:
        return Path(os.path.relpath(self.target, paths.ROOT)).as_posix()

    @property
    def summary(self) -> str:
        targets = len(self.answer["targets"])
        lines = len(self.candidate.source.splitlines())
        return (
            f"exported {self.place}: {lines} lines, {len(self.rows)} checks passed, "
            f"{targets} names shown to be watched, in {self.seconds:.1f} s"
        )

    def __repr__(self) -> str:
        table = [("proved", "against", "fails without", "time"), *self.rows]
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, [*widths, 0])).rstrip() for row in table]
        return "\n".join([*lines, "", self.summary])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" style="text-align:left">{t}</th>' for t in _HEADS)
        body = "".join(
            "<tr>"
            + f'<td style="text-align:left">{html.escape(what)}</td>'
            + f'<td style="text-align:left">{html.escape(against)}</td>'
            + f'<td style="text-align:left">{_codes(names)}</td>'
            + f'<td style="text-align:right;white-space:nowrap">{seconds}</td></tr>'
            for what, against, names, seconds in self.rows
        )
        caption = f"<p><strong>&#10003;</strong> {html.escape(self.summary)}</p>"
        return (
            f'<div class="proofs">{caption}<table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )


_HEADS = ("proved", "against", "fails without", "time")


def _short(names: list[str]) -> list[str]:
    """Write the methods of a class once each, without repeating the class."""
    seen, out = set(), []
    for name in names:
        owner, _, attribute = name.partition(".")
        out.append(f".{attribute}" if attribute and owner in seen else name)
        seen.add(owner)
    return out


def _codes(names: str) -> str:
    return ", ".join(f"<code>{html.escape(n)}</code>" for n in names.split(", ") if n)
