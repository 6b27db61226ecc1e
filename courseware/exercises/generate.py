"""Write exercises/ from solutions/: the same notebooks without the solutions and without outputs."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

import nbformat

from courseware import paths
from courseware.exercises.stubs import strip


def exercise_text(path: Path) -> str:
    """Return the text of the exercise notebook made from the solution notebook at `path`."""
    notebook = nbformat.read(path, as_version=4)

    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.source = strip(cell.source, f"{path.name}, cell {number}")
            cell.outputs = []
            cell.execution_count = None
        else:
            cell.source = cell.source.replace(" (solutions)", "")

    return nbformat.writes(notebook) + "\n"


def pairs() -> dict[Path, str]:
    """Return the text that each file of exercises/ should hold."""
    solutions = sorted((paths.ROOT / "solutions").glob("*.ipynb"))
    return {paths.ROOT / "exercises" / path.name: exercise_text(path) for path in solutions}


def out_of_step() -> str:
    """Return the differences between exercises/ and what solutions/ would write, or ''."""
    lines: list[str] = []
    wanted = pairs()

    for path, text in wanted.items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        lines += difflib.unified_diff(
            old.splitlines(True), text.splitlines(True), f"{path.name} (on disk)", path.name
        )

    strays = set((paths.ROOT / "exercises").glob("*.ipynb")) - set(wanted)
    lines += [f"exercises/{path.name}: no solution writes this file\n" for path in sorted(strays)]
    return "".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: write exercises/, or with --check only compare."""
    parser = argparse.ArgumentParser(description="write exercises/ from solutions/")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 if they differ")

    if parser.parse_args(arguments).check:
        difference = out_of_step()
        print(difference or "exercises/ is in step with solutions/")
        return 1 if difference else 0

    for path, text in pairs().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            paths.write_atomic(path, text)
            print(f"wrote {path.relative_to(paths.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
