"""What a successful export shows: a table of proofs that a reader can trust at a glance."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path

from courseware import paths
from courseware.export.build import Candidate
from courseware.export.notebooks import Chapter

_HEADS = ("proved", "against", "fails without", "time")


@dataclass(frozen=True)
class Proofs:
    """The outcome of one export; displays as a table."""

    chapter: Chapter
    candidates: list[Candidate]
    answer: dict
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
    def files(self) -> list[str]:
        """Return one line for each file that the chapter wrote."""
        lines = []
        for candidate in self.candidates:
            place = Path(os.path.relpath(candidate.path, paths.ROOT)).as_posix()
            n_lines = candidate.source.count("\n")
            lines.append(f"{place}: {n_lines} lines")
        return lines

    @property
    def summary(self) -> str:
        """Return what was exported, in one sentence."""
        names = len(self.answer["targets"])
        return (
            f"exported {', '.join(self.files)}, {len(self.rows)} checks passed, "
            f"{names} names shown to be watched, in {self.seconds:.1f} s"
        )

    def __repr__(self) -> str:
        table = [_HEADS, *self.rows]
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


def _short(names: list[str]) -> list[str]:
    """Write the methods of a class once each, without repeating the class."""
    seen: set[str] = set()
    short = []
    for name in names:
        owner, _, attribute = name.partition(".")
        short.append(f".{attribute}" if attribute and owner in seen else name)
        seen.add(owner)
    return short


def _codes(names: str) -> str:
    return ", ".join(f"<code>{html.escape(n)}</code>" for n in names.split(", ") if n)
