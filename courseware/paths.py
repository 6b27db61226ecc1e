"""Where things are: the folders of the course, found from this file and never from the working folder."""

from __future__ import annotations

import os
from pathlib import Path

CODE = Path(__file__).resolve().parent.parent
ROOT = Path(os.environ.get("MINIGPT_ROOT", CODE))
NOTEBOOKS = ROOT / "notebooks"
LIBRARY = ROOT / "minigpt_lib"
ORIGINALS = ROOT / "courseware" / "originals"
STATE = ROOT / ".course"


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 so that a crash leaves the old file or the new one, never a part.

    The text goes to a temporary neighbour first, reaches the disk, and then takes the name in one step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
