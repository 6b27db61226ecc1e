"""The way back to the course's own version of a chapter: `make reset CH=05`.

`originals.json` lists, for each chapter, its notebook and its modules with their checksums. A checksum is
the one that git gives a file, so git can be asked for exactly that content whatever has been committed
since. Set-up also keeps a copy of every file that is still as the course ships it, for folders without
git. Content is accepted only if it has the listed checksum, so an edited notebook is never taken for an original.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path

from courseware import paths
from courseware.export import transaction
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import Chapter, all_chapters

Originals = dict[str, dict[str, str]]  # chapter -> path below the root -> checksum


def checksum(content: bytes) -> str:
    """Return git's object name of a file with this content, 40 hex digits; line ends count as `\\n`."""
    content = content.replace(b"\r\n", b"\n")
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def read_list() -> Originals:
    """Return the committed list of the course's own files; ExportRefused if it is missing or damaged."""
    try:
        return json.loads(paths.ORIGINALS.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportRefused(
            f"the list of the course's own files, {paths.ORIGINALS.name}, cannot be read ({error})",
            remedy="bring that file back with git, or download the course again",
        ) from None


def make_list() -> Originals:
    """Return the list that describes the files as they are now."""
    found: Originals = {}
    for chapter in all_chapters():
        files = [chapter.path, *(paths.LIBRARY / f"{name}.py" for name in chapter.modules)]
        found[chapter.stem] = {name_of(file): checksum(file.read_bytes()) for file in files}
    return found


def write_list() -> list[str]:
    """Make the present chapters and modules the course's own; return the chapters that changed."""
    old = read_list() if paths.ORIGINALS.exists() else {}
    new = make_list()
    changed = sorted(stem for stem in old.keys() | new.keys() if old.get(stem) != new.get(stem))

    if changed:
        paths.write_atomic(paths.ORIGINALS, json.dumps(new, indent=1) + "\n")
    return changed


def differing() -> list[str]:
    """Return the paths of the files that are not as the course ships them."""
    listed = _flat(read_list())
    present = _flat(make_list())
    return sorted(
        name for name in listed.keys() | present.keys() if listed.get(name) != present.get(name)
    )


def keep_copies() -> list[str]:
    """Copy every file that is as the course ships it into `.course/originals`; return the new copies.

    Copies that the list no longer names, from before an update, are removed.
    """
    listed = _flat(read_list())
    added = []
    for name, wanted in listed.items():
        copy = _kept() / name
        if _content(copy, wanted) is not None:
            continue
        content = _content(paths.ROOT / name, wanted)
        if content is not None:
            paths.write_atomic(copy, content.decode("utf-8"))
            added.append(name)

    for copy in _kept().glob("*/*"):
        if copy.relative_to(_kept()).as_posix() not in listed:
            copy.unlink()
    return added


def reset(which: str | int) -> list[str]:
    """Bring back the course's own notebook and modules of a chapter.

    Args:
        which: "05", 5 or "05_attention".

    Returns:
        One line for each file that changed: what it is, and where the learner's version was kept.

    Raises:
        ExportRefused: if there is no such chapter, its original is not on this computer, or a file cannot
            be written. Nothing has been changed then.
    """
    originals = read_list()
    stem = _find(which, originals)
    contents = {
        paths.ROOT / name: _original(name, wanted) for name, wanted in originals[stem].items()
    }

    with transaction.locked():
        kept = {
            file: _set_aside(file) for file, content in contents.items() if _differs(file, content)
        }
        texts = {file: content.decode("utf-8") for file, content in contents.items()}
        changed = transaction.replace_all(texts)

    return [_report(file, kept.get(file)) for file in changed]


def original_notebook(which: str | int) -> Chapter:
    """Return the course's own notebook of a chapter, whatever is in its place now; ExportRefused as for `reset`."""
    originals = read_list()
    stem = _find(which, originals)
    name = f"notebooks/{stem}.ipynb"
    content = _original(name, originals[stem][name])
    return Chapter(paths.ROOT / name, content.decode("utf-8"))


def set_aside(file: Path, replaceable: list[str]) -> str:
    """Copy a file to `.course/before-reset` unless it holds one of these texts; return the copy's name, "" if none.

    Raises ExportRefused if the file is a folder.
    """
    if not all(_differs(file, text.encode("utf-8")) for text in replaceable):
        return ""
    return name_of(_set_aside(file))


def _find(which: str | int, originals: Originals) -> str:
    text = Path(str(which)).name.removesuffix(".ipynb")
    for stem in originals:
        if text == stem or (text.isdigit() and int(text) == int(stem[:2])):
            return stem
    raise ExportRefused(
        f"the course has no chapter {str(which)!r}",
        remedy=f"its chapters are: {', '.join(originals)}",
    )


def _original(name: str, wanted: str) -> bytes:
    """Return the content with this checksum: from its place, from the kept copy, or from git."""
    for file in (paths.ROOT / name, _kept() / name):
        content = _content(file, wanted)
        if content is not None:
            return content

    content = _from_git(wanted)
    if content is not None and checksum(content) == wanted:
        return content

    raise ExportRefused(
        f"the course's own {name} is not on this computer",
        details="It was already changed when the course was set up, and git does not have it either.",
        remedy="download the course again into another folder and copy that file from there",
    )


def _content(file: Path, wanted: str) -> bytes | None:
    try:
        content = file.read_bytes()
    except OSError:
        return None
    return content.replace(b"\r\n", b"\n") if checksum(content) == wanted else None


def _from_git(wanted: str) -> bytes | None:
    command = ["git", "-C", str(paths.ROOT), "cat-file", "blob", wanted]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _differs(file: Path, content: bytes) -> bool:
    if file.is_dir():
        raise ExportRefused(
            f"{name_of(file)} is a folder, but it should be a file",
            remedy="rename that folder, then run the same command again",
        )
    return file.exists() and file.read_bytes() != content


def _report(file: Path, kept: Path | None) -> str:
    note = f"; yours is kept as {name_of(kept)}" if kept else ""
    return f"{name_of(file)} is the course's own again{note}"


def _set_aside(file: Path) -> Path:
    folder = paths.STATE / "before-reset"
    folder.mkdir(parents=True, exist_ok=True)

    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = folder / f"{stamp}-{file.name}"
    copies = 1
    while target.exists():  # two resets within a second
        copies += 1
        target = folder / f"{stamp}-{copies}-{file.name}"
    shutil.copy2(file, target)
    return target


def _kept() -> Path:
    return paths.STATE / "originals"


def name_of(file: Path) -> str:
    """Return a file's path below the root, with forward slashes."""
    return file.relative_to(paths.ROOT).as_posix()


def _flat(originals: Originals) -> dict[str, str]:
    return {name: wanted for files in originals.values() for name, wanted in files.items()}
