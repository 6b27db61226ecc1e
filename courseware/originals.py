"""The course's own version of every chapter, and the way back to it.

`courseware/originals/` holds a copy of each notebook and module exactly as the course ships them, so that
`make reset CH=05` works without a network and without git. Whoever changes the course runs `freeze`.
"""

from __future__ import annotations

import filecmp
import shutil
import time
from pathlib import Path

from courseware import paths
from courseware.chapters import Chapter, all_chapters, find_chapter
from courseware.errors import ExportRefused


def _pairs(chapter: Chapter) -> list[tuple[Path, Path]]:
    """Return (the working file, the course's own) for a chapter's notebook and module."""
    pairs = [(chapter.path, paths.ORIGINALS / chapter.path.name)]
    if chapter.module:
        name = f"{chapter.module}.py"
        pairs.append((paths.LIBRARY / name, paths.ORIGINALS / name))
    return pairs


def freeze() -> list[str]:
    """Make the present chapters and modules the course's own; return the names that changed."""
    wanted = {original: mine for chapter in all_chapters() for mine, original in _pairs(chapter)}
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
    """Return the names of chapters and modules that are not as the course ships them."""
    return [
        mine.name
        for chapter in all_chapters()
        for mine, original in _pairs(chapter)
        if not (original.exists() and mine.exists() and filecmp.cmp(mine, original, shallow=False))
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
    lines = _restore(notebooks[0], paths.NOTEBOOKS / notebooks[0].name)
    module = find_chapter(notebooks[0].stem).module
    if module:
        lines += _restore(paths.ORIGINALS / f"{module}.py", paths.LIBRARY / f"{module}.py")
    return lines


def _restore(original: Path, mine: Path) -> list[str]:
    if mine.exists():
        if filecmp.cmp(original, mine, shallow=False):
            return []
        stamp = time.strftime("%Y%m%d-%H%M%S")
        kept = paths.STATE / "before-reset" / f"{stamp}-{mine.name}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(mine, kept)
        note = f"; yours is kept as {kept.relative_to(paths.ROOT)}"
    else:
        note = ""
    paths.write_atomic(mine, original.read_text(encoding="utf-8"))
    return [f"{mine.relative_to(paths.ROOT)} is the course's own again{note}"]
