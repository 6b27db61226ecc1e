"""Replace several files, all or none, even if the process is killed in between.

The new files are written beside their targets first. Then a journal in `.course` names them, and from that moment
the new files count: they take their targets' names one by one, and the journal is removed. Whoever enters
`locked()` next finds the journal of a killed process and finishes its work. Without a journal, what a killed
process left are only temporary files, and they are deleted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from courseware import paths
from courseware.export.errors import ExportRefused

LOCK_SECONDS = 120

# No two journals of a process name the same temporary file: one that undoes another would change its meaning.
_number = itertools.count()

# (temporary file, the file that it becomes); without a temporary file, the other is deleted
Pair = tuple[Path | None, Path]


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Let one process at a time write to the library, and finish first what a killed one left."""
    lock_path = paths.STATE / "export.lock"
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path, timeout=LOCK_SECONDS)
        lock.acquire()
    except Timeout:
        raise ExportRefused(
            f"another export has held the library for {LOCK_SECONDS} seconds",
            remedy="let it finish, or restart the kernel of the other notebook",
        ) from None
    except OSError as error:
        raise _not_writable(lock_path.parent, error) from None

    try:
        _finish()
        yield
    finally:
        lock.release()


def recover() -> None:
    """Finish what a killed process left; only reads, and takes no lock, if there is nothing to finish."""
    if _journal().exists():
        with locked():
            pass


def replace_all(texts: Mapping[Path, str]) -> list[Path]:
    """Write each text to its path, below paths.ROOT, all of them or none; call it inside `locked()`.

    Files that hold their text already are left alone.

    Returns:
        The paths that changed.

    Raises:
        ExportRefused: if a file cannot be written; all files are then as they were before.
    """
    contents = {path: text.encode("utf-8") for path, text in texts.items()}
    try:
        changed = {path: new for path, new in contents.items() if _read(path) != new}
        for path in changed:
            _refuse_read_only(path)
        if len(changed) == 1:  # one renaming is all or nothing without a journal
            (path,) = changed
            paths.write_atomic(path, texts[path])
        elif changed:
            _replace_several(changed)
    except OSError as error:
        raise _not_writable(_place(error) or next(iter(texts)), error) from None

    for path in changed:
        _forget_compiled(path)
    return list(changed)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _refuse_read_only(path: Path) -> None:
    """Raise OSError for a file that may not be changed: renaming another over it would ignore that."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b"):
        pass


def _place(error: OSError) -> Path | None:
    """Return the file that an error is about, if it says so: of a renaming, the new name."""
    name = error.filename2 or error.filename
    return Path(os.fsdecode(name)) if isinstance(name, (str, bytes)) else None


def _not_writable(place: Path, error: OSError) -> ExportRefused:
    if not place.exists():
        place = place.parent
    return ExportRefused(
        f"{place} cannot be written to ({error.strerror or error})",
        remedy="make it writable (chmod u+w), free some disk space, "
        "or clone the course to a folder of your own",
    )


def _replace_several(contents: Mapping[Path, bytes]) -> None:
    before = {path: _read(path) for path in contents}
    pairs = _prepare(contents)
    try:
        _carry_out(pairs)
    except OSError:
        done = {path: before[path] for temporary, path in pairs if not _waits(temporary)}
        _carry_out(_prepare(done))
        _delete(temporary for temporary, _ in pairs)
        raise
    except KeyboardInterrupt:
        _finish()
        raise


def _prepare(contents: Mapping[Path, bytes | None]) -> list[Pair]:
    """Write the temporary files and the journal, which takes the place of an earlier one."""
    pairs: list[Pair] = []
    try:
        for path, content in contents.items():
            temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_number)}.tmp")
            pairs.append((None if content is None else temporary, path))
            if content is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                paths.write_to_disk(temporary, content)
        _write_journal(pairs)
    except BaseException:
        if not _journal().exists():  # with a journal, they are the files that count
            _delete(temporary for temporary, _ in pairs)
        raise
    return pairs


def _carry_out(pairs: list[Pair]) -> None:
    """Give each temporary file its target's name, then remove the journal."""
    for temporary, target in pairs:
        if temporary is None:
            target.unlink(missing_ok=True)
        elif _waits(temporary):  # otherwise this was done before the process was killed
            os.replace(temporary, target)
    for folder in {target.parent for _, target in pairs}:
        _sync(folder)
    _journal().unlink()


def _waits(temporary: Path | None) -> bool:
    """Return whether a temporary file has not taken its target's name yet."""
    return temporary is not None and temporary.exists()


def _delete(files: Iterable[Path | None]) -> None:
    for file in files:
        if file is not None:
            file.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make sure that the new names in a folder have reached the disk, where the system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _forget_compiled(path: Path) -> None:
    """Delete Python's compiled copy: it is trusted if the source's size and second of writing agree."""
    if path.suffix == ".py":
        with contextlib.suppress(OSError):
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


# --- the journal ---


def _journal() -> Path:
    return paths.STATE / "replacing.json"


def _write_journal(pairs: list[Pair]) -> None:
    names = [[temporary and _name(temporary), _name(target)] for temporary, target in pairs]
    paths.write_atomic(_journal(), json.dumps({"replace": names}) + "\n")


def _name(path: Path) -> str:
    return path.relative_to(paths.ROOT).as_posix()


def _read_journal() -> list[Pair]:
    """Return the pairs of a complete journal; empty if there is none or it is damaged."""
    try:
        names = json.loads(_journal().read_text(encoding="utf-8"))["replace"]
        return [(temporary and _path(temporary), _path(target)) for temporary, target in names]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _path(name: str) -> Path:
    """Return the path with this name in the journal; it may not leave the course."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"expected a path below {paths.ROOT}, got {name!r}")
    return paths.ROOT / name


def _finish() -> None:
    """Finish a complete journal and delete the temporary files of a killed process."""
    try:
        pairs = _read_journal()
        if pairs:
            _carry_out(pairs)
        _journal().unlink(missing_ok=True)
        for folder, pattern in (
            (paths.LIBRARY, ".*.py.*.tmp"),
            (paths.NOTEBOOKS, ".*.ipynb.*.tmp"),
        ):
            _delete(folder.glob(pattern))
    except OSError as error:
        raise _not_writable(_place(error) or paths.LIBRARY, error) from None

    for _, target in pairs:
        _forget_compiled(target)
