"""The course's own version of every chapter, and the way back to it.

`courseware/originals/` holds a copy of each notebook exactly as the course ships it, so that `make reset CH=05`
works without a network and without git; the module is built from it again. Whoever changes the course
runs `freeze`.
"""

from __future__ import annotations

import filecmp
import shutil
import time
from pathlib import Path

from courseware import paths
from courseware.build import build
from courseware.chapters import all_chapters, find_chapter
from courseware.errors import ExportRefused


def freeze() -> list[str]:
    """Make the present notebooks the course's own; return the names that changed."""
    wanted = {paths.ORIGINALS / chapter.path.name: chapter.path for chapter in all_chapters()}
    changed = []
    for original, mine in wanted.items():
        if not original.exists() or not filecmp.cmp(mine, original, shallow=False):
            paths.write_atomic(original, mine.read_text(encoding="utf-8"))
            changed.append(original.name)
    for old in sorted(paths.ORIGINALS.glob("[0-9a-z]*")):
        if old not in wanted:
            old.unlink()
            changed.append(f"{old.name} (removed)")
    return changed


def differing() -> list[str]:
    """Return the names of the notebooks that are not as the course ships them."""
    pairs = [(chapter.path, paths.ORIGINALS / chapter.path.name) for chapter in all_chapters()]
    return [
        mine.name
        for mine, original in pairs
        if not (original.exists() and filecmp.cmp(mine, original, shallow=False))
    ]


def reset(which: str | int) -> list[str]:
    """Bring back the course's own notebook and module of a chapter, keeping the learner's under another name.

    Returns one line for each file that was changed: what it is, and where the learner's version went.
    """
    text = str(which).removesuffix(".ipynb")
    number = f"{int(text):02d}" if text.isdigit() else text
    notebooks = sorted(paths.ORIGINALS.glob(f"{number}*.ipynb"))
    if len(notebooks) != 1:
        known = ", ".join(p.stem for p in sorted(paths.ORIGINALS.glob("*.ipynb")))
        raise ExportRefused(
            f"the course has no original of chapter {which!r}", remedy=f"its chapters are: {known}"
        )
    original = notebooks[0].read_text(encoding="utf-8")
    lines = _restore(original, paths.NOTEBOOKS / notebooks[0].name)
    chapter = find_chapter(notebooks[0].stem)
    if chapter.module:
        lines += _restore(build(chapter).source, paths.LIBRARY / f"{chapter.module}.py")
    return lines


def _restore(original: str, mine: Path) -> list[str]:
    note = ""
    if mine.exists():
        if mine.read_text(encoding="utf-8", errors="replace") == original:
            return []
        kept = paths.STATE / "before-reset" / f"{time.strftime('%Y%m%d-%H%M%S')}-{mine.name}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(mine, kept)
        note = f"; yours is kept as {kept.relative_to(paths.ROOT)}"
    paths.write_atomic(mine, original)
    return [f"{mine.relative_to(paths.ROOT)} is the course's own again{note}"]
