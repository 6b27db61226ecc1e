"""Every figure that the course has measured and kept, as one page: what, when, on which machine.

The figures come from `benchmarks/results` and `courseware/runs/recorded` each time the site is built, so no number is
copied by hand, and a new record appears on the page by itself.
"""

from __future__ import annotations

import ast
import html
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from courseware import paths

RESULTS = paths.ROOT / "benchmarks" / "results"
BANDS = paths.ROOT / "courseware" / "runs" / "recorded"
_ABOUT_MACHINE = ("hardware", "memory_hardware", "versions", "date", "command", "name")
_FEW = 4  # so many numbers of a list are shown one by one
_LONGEST = 160  # characters of a text
_FOLDED = 12  # a longer table is folded
_WIDE = 9  # a table with more columns than this, and fewer rows than columns, is turned


def record_files() -> list[Path]:
    """Return the files of record: those of the benchmarks, then those of training runs."""
    return [*sorted(RESULTS.glob("*.json*")), *sorted(BANDS.glob("*.json"))]


def records() -> str:
    """Return all records as Markdown with tables in HTML, a section for each file."""
    return "\n\n".join(record(path) for path in record_files())


def record(path: Path) -> str:
    """Return one record as a section of its own."""
    data = _read(path)
    parts = [f"## {_title(path)}", _about(path, data)]
    if isinstance(data, Mapping):
        data = {name: value for name, value in data.items() if name not in _ABOUT_MACHINE}

    for caption, rows in tables(data):
        table = _html(caption, rows)
        if len(rows) > _FOLDED:
            summary = f"{html.escape(caption or 'All rows')}: {len(rows)} rows"
            table = f"<details class='record'><summary>{summary}</summary>\n{table}\n</details>"
        parts.append(table)
    return "\n\n".join(parts)


def tables(data: Any, caption: str = "") -> list[tuple[str, list[dict[str, Any]]]]:
    """Return nested data as tables, each a caption and its rows; every row maps the names of columns to values."""
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [(caption, [_flat(entry) for entry in data])] if data else []

    found: list[tuple[str, list[dict[str, Any]]]] = []
    series = _series(data)
    if series:
        found.append((_joined(caption, "step by step"), series))
        data = {name: value for name, value in data.items() if not _is_series(value, len(series))}

    alone = {name: value for name, value in data.items() if _is_leaf(value)}
    if alone:
        found.append((caption, [{"figure": name, "value": value} for name, value in alone.items()]))

    nested = {name: value for name, value in data.items() if name not in alone}
    if len(nested) > 1 and _are_rows(list(nested.values())):
        rows = [{"name": name} | _flat(value) for name, value in nested.items()]
        return [*found, (caption, rows)]
    for name, value in nested.items():
        found += tables(value, _joined(caption, name))
    return found


def shown(value: Any) -> str:
    """Return a value as the page shows it: four digits, lists of numbers by their median and range."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, str):
        text = value.replace("\n", " ⏎ ")
        return text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + " …"
    if len(value) <= _FEW or not all(_is_number(entry) for entry in value):
        return " · ".join(shown(entry) for entry in value)

    middle = shown(float(statistics.median(value)))
    return f"{middle} ({shown(min(value))} to {shown(max(value))}, n = {len(value)})"


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    return json.loads(text)


def _title(path: Path) -> str:
    if path.parent == BANDS:
        number = path.stem[:2]
        return f"Chapter {int(number)}: {path.stem[3:]}" if number.isdigit() else "make course"
    return path.stem.replace("_", " ").capitalize()


def _about(path: Path, data: Any) -> str:
    """Say what was measured, by which command, when and on what."""
    script = paths.ROOT / "benchmarks" / f"{path.stem}.py"
    about = data if isinstance(data, Mapping) else {}
    lines = [str(about.get("what", ""))]
    command = about.get("command")
    if path.parent == RESULTS and script.is_file():
        docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        lines.append(docstring.partition("\n\n")[0].replace("\n", " "))
        command = command or f"python benchmarks/{script.name}"

    said = f"<code>{html.escape(command)}</code>, " if command else ""
    said += _machine(about) or (
        'without a note of the machine, which <a href="benchmarks.html">Benchmarks</a> names'
    )
    lines.append(f"Recorded by {said}.")
    texts = [line if "<code>" in line else html.escape(line) for line in lines if line]
    return f"<p>{' '.join(texts)}</p>"


def _machine(about: Mapping[str, Any]) -> str:
    hardware = about.get("hardware", "")
    parts: list[str] = []
    if "date" in about:
        parts.append(str(about["date"]))
    if isinstance(hardware, Mapping):
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in hardware.items()]
    elif hardware:
        parts.append(str(hardware))
    parts += [f"{name} {version}" for name, version in about.get("versions", {}).items()]
    return html.escape(", ".join(part.removeprefix("date ") for part in parts))


# ---------------------------------------------------------------- nested data as rows


def _joined(caption: str, name: str) -> str:
    return f"{caption}, {name}" if caption else name


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_leaf(value: Any) -> bool:
    """Is it one value, or a list of them?"""
    if isinstance(value, Mapping):
        return False
    if isinstance(value, Sequence) and not isinstance(value, str):
        return not value or not any(isinstance(entry, Mapping | list) for entry in value)
    return True


def _are_rows(values: list[Any]) -> bool:
    """Do they fit into the rows of one table, with their own mappings flattened?"""
    if not all(isinstance(value, Mapping) for value in values):
        return False
    rows = [_flat(value) for value in values]
    return all(row.keys() == rows[0].keys() and all(map(_is_leaf, row.values())) for row in rows)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return nested mappings as one; the names of the inner ones follow those of the outer ones."""
    if isinstance(value, Mapping):
        rows: dict[str, Any] = {}
        for inner, entry in value.items():
            rows |= _flat(entry, _joined(name, inner))
        return rows
    if not name and isinstance(value, list):
        return {str(i): entry for i, entry in enumerate(value, 1)}
    return {name or "value": value}


def _is_series(value: Any, length: int) -> bool:
    lists = list(_flat(value).values()) if isinstance(value, Mapping) else [value]
    return all(isinstance(entry, list) and len(entry) == length for entry in lists)


def _series(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each of `steps`, if there is such a list, from all lists of its length."""
    steps = data.get("steps")
    if not isinstance(steps, list):
        return []

    fitting = {name: value for name, value in data.items() if _is_series(value, len(steps))}
    columns = _flat(fitting)
    return [{name: values[i] for name, values in columns.items()} for i in range(len(steps))]


def _turned(names: list[str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table with rows and columns exchanged; its first column becomes its head."""
    heads = [shown(row.get(names[0], "")) for row in rows]
    return [
        {names[0]: name} | {head: row.get(name, "") for head, row in zip(heads, rows)}
        for name in names[1:]
    ]


def _html(caption: str, rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    # The first column is the head of each row, so it is one that no row lacks.
    names.sort(key=lambda name: any(name not in row for row in rows))
    first = {shown(row.get(names[0], "")) for row in rows}
    if len(names) > _WIDE and len(rows) < len(names) and len(first) == len(rows):
        rows = _turned(names, rows)
        names = list(rows[0])
    head = "".join(f"<th scope='col'>{html.escape(name.replace('_', ' '))}</th>" for name in names)
    lines = []
    for row in rows:
        cells = [html.escape(shown(row.get(name, ""))) for name in names]
        rest = "".join(f"<td>{cell}</td>" for cell in cells[1:])
        lines.append(f"<tr><th scope='row'>{cells[0]}</th>{rest}</tr>")

    title = f"<caption>{html.escape(caption.replace('_', ' '))}</caption>" if caption else ""
    body = "\n".join(lines)
    return (
        "<div class='pst-scrollable-table-container'><table class='table record'>"
        f"{title}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )
