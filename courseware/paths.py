"""Where things are: the folders of the course, found from this file and never from the working folder."""

from __future__ import annotations

import os
from pathlib import Path

CODE = Path(__file__).resolve().parent.parent
ROOT = Path(os.environ.get("MINIGPT_ROOT", CODE))
NOTEBOOKS = ROOT / "notebooks"
LIBRARY = ROOT / "minigpt_lib"
ORIGINALS = ROOT / "courseware" / "export" / "originals.json"
STATE = ROOT / ".course"


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 so that a crash leaves the old file or the new one, never a part.

    The text goes to a temporary neighbour first, reaches the disk, and then takes the name in one step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_to_disk(temporary, text.encode("utf-8"))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_to_disk(path: Path, content: bytes) -> None:
    """Write `content` to `path` and return when it has reached the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
