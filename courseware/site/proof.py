"""How hard the checks look: mutants that each chapter notices, random inputs that nothing fell over, and kills.

All come from records in `benchmarks/results`. Which surviving mutants compute the same as the original is judged by
hand, in `benchmarks/equivalent_mutants.json`.
"""

from __future__ import annotations

import html
import json
from typing import Any

from courseware import paths
from courseware.export.notebooks import all_chapters, find_chapter

MUTANTS = paths.ROOT / "benchmarks" / "results" / "operators.json"
EQUIVALENT = paths.ROOT / "benchmarks" / "equivalent_mutants.json"
FUZZ = paths.ROOT / "benchmarks" / "results" / "fuzz.json"
KILLS = paths.ROOT / "benchmarks" / "results" / "kills.json"
KEY = ("module", "code", "was", "now")


def mutants() -> str:
    """Return the score of each chapter as a table, and the list of survivors, as Markdown."""
    record = json.loads(MUTANTS.read_text(encoding="utf-8"))
    reasons = equivalent()
    rows = []
    totals = [0, 0, 0, 0, 0, 0]
    for chapter in record["chapters"]:
        left = [place for place in record["survivors"] if place["chapter"] == chapter["chapter"]]
        same = sum(key(place) in reasons for place in left)
        noticed = chapter["noticed"] + chapter["too_long"]
        by_tests = chapter["noticed_by_tests"]
        numbers = [chapter["mutants"], chapter["tried"], noticed, by_tests, same, len(left) - same]
        totals = [total + number for total, number in zip(totals, numbers)]
        title = f"[{int(chapter['chapter'])}](../notebooks/{find_chapter(chapter['chapter']).stem}.ipynb)"
        rows.append([title, *numbers, f"{score(chapter['tried'], same, left):.1%}"])

    tried, same, open_ones = totals[1], totals[4], totals[5]
    rows.append(["all", *totals, f"{1 - open_ones / max(1, tried - same):.1%}"])
    head = ["chapter", "mutants", "tried", "checks", "tests", "same", "survived", "score"]
    table = _table("Mutants noticed, by chapter", head, rows)
    return "\n\n".join([table, _missing(record["chapters"]), _survivors(record, reasons)])


def _missing(rows: list[dict[str, Any]]) -> str:
    """Say what the record does not hold."""
    said = []
    alone = [row["chapter"] for row in rows if not row["with_tests"]]
    if alone:
        whose = "all chapters" if len(alone) == len(rows) else f"chapters {_numbers(alone)}"
        said.append(f"For {whose} only the checks were tried, so the tests could notice more.")

    there = {row["chapter"] for row in rows}
    with_modules = [chapter.stem[:2] for chapter in all_chapters() if chapter.modules]
    absent = [number for number in with_modules if number not in there]
    if absent:
        said.append(f"Not tried yet: {_numbers(absent)}.")
    return " ".join(said)


def _numbers(chapters: list[str]) -> str:
    return ", ".join(str(int(chapter)) for chapter in chapters)


def fuzz() -> str:
    """Return what was fuzzed, as a sentence and a table in Markdown."""
    record = json.loads(FUZZ.read_text(encoding="utf-8"))
    rows = [
        [target["what"], target["cases"], target["accepted"], target["faults"], target["seed"]]
        for target in record["targets"]
    ]
    cases = sum(target["cases"] for target in record["targets"])
    minutes = sum(target["seconds"] for target in record["targets"]) / 60
    faults = sum(target["faults"] for target in record["targets"])
    what = (
        f"The last run, on {record['hardware']['date']}, had {cases:,} cases in {minutes:.0f} minutes of one "
        f"{record['hardware']['processor']} core: {faults or 'none'} failed, and none hung."
    )
    return what + "\n\n" + _table("", ["input", "cases", "accepted", "faults", "seed"], rows)


def kills() -> str:
    """Return what was killed, and met a full disk, as a sentence and a table in Markdown."""
    record = json.loads(KILLS.read_text(encoding="utf-8"))
    works = record["works"]
    killed = sum(work["killed"]["kills"] for work in works)
    full = sum(work["full"]["full disks"] for work in works)
    what = (
        f"The last run, on {record['hardware']['date']}, had {killed} kills and {full} full disks. "
        "Nothing was lost."
    )
    rows = [
        [work["what"], work["killed"]["kills"], work["killed"]["ends"], work["full"]["full disks"]]
        for work in works
    ]
    return what + "\n\n" + _table("", ["saved", "kills", "ends", "full disks"], rows)


def equivalent() -> dict[tuple[str, ...], str]:
    """Return why a mutant computes the same, by module, line of code, and what was changed to what."""
    entries = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    return {key(entry): entry["why"] for entry in entries}


def key(place: dict[str, Any]) -> tuple[str, ...]:
    """Return what names a mutant, wherever its line has moved to."""
    return tuple(place[name] for name in KEY)


def score(tried: int, same: int, left: list[Any]) -> float:
    """Return the share of noticed mutants among those that change what is computed."""
    changing = tried - same
    return 1 - (len(left) - same) / changing if changing else 1.0


def _survivors(record: dict[str, Any], reasons: dict[tuple[str, ...], str]) -> str:
    rows = [
        [
            place["module"].rpartition(".")[2],
            place["line"],
            f"`{_cell(place['code'])}`",
            f"`{_cell(place['was'])}` → `{_cell(place['now'])}`",
            reasons.get(key(place), "–"),
        ]
        for place in record["survivors"]
    ]
    head = ["module", "line", "code", "change", "why it computes the same"]
    lines = _table("", head, rows, left=len(head))
    return f"````{{dropdown}} All {len(rows)} mutants that survived\n{lines}\n````" if rows else ""


def _cell(code: str) -> str:
    """Return code that can stand in a table."""
    short = code if len(code) <= 80 else code[:80].rstrip() + " …"
    return short.replace("|", "\\|").replace("`", "'")


def _table(caption: str, head: list[str], rows: list[list[Any]], left: int = 1) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * left + "|--:" * (len(head) - left) + "|"]
    for row in rows:
        cells = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    return f"```{{table}} {html.escape(caption)}\n{table}\n```" if caption else table
