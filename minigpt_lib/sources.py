"""Documents from anywhere: files of several kinds, folders, texts, data sets on the hub, one row at a time.

A document is a row {"id": str, "text": str}; real sources have more columns.

Written by notebooks/13_pretraining.ipynb (chapter 13): edit it there.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import itertools
import json
import lzma
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow
from pyarrow import parquet

from minigpt_lib.data import load_text

__all__ = ["cut_documents", "list_files", "open_rows", "Row", "Rows", "stream_documents"]


def cut_documents(
    files: Iterable[str | Path | None], size: int = 20_000, gap: str = r"\n\n+"
) -> Iterator[dict[str, str]]:
    """Yield texts as documents of about `size` characters, cut at blank lines: {"id", "text"}.

    files: paths of UTF-8 texts; None stands for the plays of Shakespeare. gap: a regular expression for
    the places where a text may be cut. A document ends with the first gap that makes it long enough.
    """
    for file in files:
        text = load_text(file)
        name = Path(file or "shakespeare").name
        start = 0
        for found in re.finditer(rf"{gap}|\Z", text):
            end = found.end()
            if end > start and (end - start >= size or end == len(text)):
                yield {"id": f"{name}:{start}", "text": text[start:end]}
                start = end


_KINDS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".txt": "text",
    ".md": "text",
}
_PACKED = (".gz", ".bz2", ".xz", ".zst")


def _kind(path: Path) -> str | None:
    """Return what sort of file this is by the end of its name: story.jsonl.gz is json."""
    *_, before, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    if last not in _PACKED:
        return _KINDS.get(last)

    kind = _KINDS.get(before)
    return "packed text" if kind == "text" else kind


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files under a folder, linked folders included, but no hidden ones and none of our own.

    `datasets` would find them too, but for linked folders, and it would read our own shards.
    """
    seen = {folder.resolve()}
    for place, folders, names in os.walk(folder, followlinks=True):
        kept = []
        for name in folders:
            inside = Path(place, name)
            ours = any(inside.glob(".*lock"))
            if name[0] != "." and not ours and inside.resolve() not in seen:
                seen.add(inside.resolve())
                kept.append(name)
        folders[:] = kept
        yield from (Path(place, name) for name in names if name[0] != ".")


def _is_empty(file: Path) -> bool:
    """Return whether a file has no rows; one that is damaged counts as full, so that it is reported."""
    if file.is_symlink() and not file.exists():
        raise FileNotFoundError(
            f"{file} is a link to {file.readlink()}, which does not exist: remove the link, or bring back "
            "the file."
        )
    if file.suffix.lower() != ".parquet":
        return not file.stat().st_size
    try:
        return not parquet.read_metadata(file).num_rows
    except (pyarrow.ArrowException, OSError):
        return False


def _find_files(source: str) -> tuple[str, list[Path]]:
    """Return the kind and the files, in order, of a file or folder; raises unless they are of one kind."""
    path = Path(source)
    kinds: dict[str, list[Path]] = {}
    for file in sorted(_walk(path)) if path.is_dir() else [path]:
        if name := _kind(file):
            kinds.setdefault(name, []).append(file)

    if len(kinds) > 1 and "text" in kinds:  # a licence beside the data is not data
        beside = ("LICENSE", "README")
        texts = [f for f in kinds.pop("text") if not f.name.upper().startswith(beside)]
        if texts:
            kinds["text"] = texts

    expected = f"expected {', '.join(_KINDS)}"
    if not kinds and path.is_dir():
        raise FileNotFoundError(f"{source}: there is no file with data here, {expected}.")
    if not kinds:
        raise ValueError(f"{source} cannot be read: the name ends in {path.suffix!r}, {expected}.")
    if len(kinds) > 1:
        found = ", ".join(f"{len(f)} {kind} ({f[0].name})" for kind, f in kinds.items())
        raise ValueError(
            f"{source} holds files of several kinds: {found}. Put those to read into a folder of their own."
        )

    ((kind, files),) = kinds.items()
    if kind == "packed text":
        raise ValueError(f"{files[0]} is a packed text: unpack it first.")
    files = [file for file in files if not _is_empty(file)]
    if not files:
        raise ValueError(f"{source} is empty.")
    return kind, files


Row = dict[str, Any]  # a document, as its source has it

_BROKEN = (pyarrow.ArrowException, OSError, EOFError, zlib.error, lzma.LZMAError)


def _parquet_rows(file: Path, columns: Collection[str] = ()) -> Iterator[Row]:
    """Yield the rows of a file; of these columns only, if all but the id are there."""
    opened = parquet.ParquetFile(file)
    there = [name for name in opened.schema_arrow.names if name in columns]
    chosen = there if {*columns} - {*there} <= {"id"} and columns else None
    for batch in opened.iter_batches(1000, columns=chosen):
        yield from batch.to_pylist()


def _json_rows(file: Path) -> Iterator[Row]:
    """Yield the objects of a file: one a line, or all in one list."""
    opened = fsspec.open(str(file), "rt", encoding="utf-8-sig", compression="infer")
    with opened as stream:
        lines: Any = stream  # fsspec types it as a list of files
        for number, line in enumerate(lines, 1):
            if number == 1 and line.lstrip().startswith("["):
                yield from _json_list(line + lines.read())
                return
            if line.strip():
                yield _json_object(line.strip(), number)


def _json_list(text: str) -> list[Row]:
    rows = json.loads(text)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(
                f"JSON parse error in row {number}: {row!r:.40} is no object; expected a list of objects"
            )
    return rows


def _json_object(line: str, number: int) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        reason = str(error)
    else:
        if isinstance(row, dict):
            return row
        reason = f"{row!r:.40} is no object"
    raise ValueError(
        f"JSON parse error in row {number}: {reason}; expected one object on each line"
    )


def _csv_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a table; each value stays the text that it is, except for scores."""
    csv.field_size_limit(2**31 - 1)  # the default, 128 kB, is short for a document
    options = {"encoding": "utf-8-sig", "newline": "", "compression": "infer"}
    with fsspec.open(str(file), "rt", **options) as lines:
        for number, row in enumerate(csv.DictReader(lines), 1):
            if None in row:
                raise ValueError(
                    f'row {number} has more values than the header: put texts with commas into ""'
                )
            if "score" in row:
                row["score"] = float(row["score"]) if row["score"] else None
            yield row


def _text_rows(file: Path, **cut: Any) -> Iterator[Row]:
    if b"\0" in file.read_bytes():
        raise ValueError(
            "it holds a NUL byte: expected UTF-8, and this may be UTF-16, or no text at all"
        )
    yield from cut_documents([file], **cut)


_READERS: dict[str, Callable[..., Iterator[Row]]] = {
    "parquet": _parquet_rows,
    "json": _json_rows,
    "csv": _csv_rows,
    "text": _text_rows,
}


def _read_files(files: Iterable[str], read: Callable[[Path], Iterator[Row]]) -> Iterator[Row]:
    """Yield the rows of files; an error names the file, and says what to do about it."""
    for file in map(Path, files):
        try:
            yield from read(file)
        except (*_BROKEN, ValueError, RecursionError) as error:
            size = f"{file} ({file.stat().st_size:,} bytes)"
            reason = str(error).splitlines()[0].rstrip(".")
            advice = ""
            if isinstance(error, _BROKEN):
                advice = " If it was downloaded, fetch it again: half of it may be missing."
            raise ValueError(f"{size} cannot be read: {reason}.{advice}") from error


_FINEWEB_EDU = ("HuggingFaceFW/fineweb-edu", "sample-10BT")


def _is_local(source: str) -> bool:
    named = ("", "shakespeare", "fineweb-edu")
    return source.strip() not in named and Path(source).exists()


def _looks_like_a_path(source: str) -> bool:
    """Return whether this can only be a path: a data set on the hub is called name, or owner/name."""
    return (
        source.startswith((".", "~", os.sep))
        or source.endswith(("/", os.sep))
        or source.count("/") > 1
        or _kind(Path(source)) is not None
    )


@contextlib.contextmanager
def _hub_errors(source: str, what: str) -> Iterator[None]:
    """Turn the errors of the hub into ones that say what to do; they begin with `what`."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{source}: there is no such file or folder here, nor a data set of this name on the hub "
            f"({error})."
        ) from error
    except OSError as error:
        raise ConnectionError(
            f"{what} cannot be reached ({type(error).__name__}: {error}). Offline, pass the path of a file "
            "or a folder. If the connection broke, run the same command again and it goes on."
        ) from error
    except (pyarrow.ArrowException, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"{source} cannot be read: {reason}.") from error


def stream_documents(source: str | Path) -> datasets.IterableDataset:
    """Return the rows of a source one by one, nothing kept in memory.

    source: shakespeare; fineweb-edu (HuggingFaceFW/fineweb-edu, sample-10BT); a file (Parquet, JSON
    lines, CSV) or a folder of such, with all that is below it; a text, or a folder of texts (.txt, .md),
    cut by cut_documents; or the name of another data set on the hub. Raises FileNotFoundError if there is
    no such thing, ConnectionError if the hub cannot be reached, ValueError, with its name, for a file that
    cannot be read or a folder with files of several kinds.
    """
    source = str(source)
    if not source.strip():
        raise ValueError("the source is empty: expected a file, a folder or a name.")

    if source == "shakespeare":
        plays = {"files": [None]}
        return datasets.IterableDataset.from_generator(cut_documents, gen_kwargs=plays)

    if _is_local(source):
        kind, files = _find_files(source)
        local = {"files": [str(file) for file in files], "read": _READERS[kind]}
        next(_read_files(**local), None)  # a first file that is damaged is reported here
        return datasets.IterableDataset.from_generator(_read_files, gen_kwargs=local)

    if source != "fineweb-edu" and _looks_like_a_path(source):
        raise FileNotFoundError(f"{source}: there is no such file or folder.")
    name, subset, what = source, None, source
    if source == "fineweb-edu":
        name, subset = _FINEWEB_EDU
    else:
        what = f"{source}: there is no such file or folder here, and as a data set on the hub it"
    with _hub_errors(source, what):
        return datasets.load_dataset(name, subset, split="train", streaming=True)


_FEW = 10  # a text of fewer documents than this is cut into smaller ones


def _smaller_cut(files: list[Path]) -> dict[str, Any]:
    """Return how to cut texts: as usual or, if they made few documents, into about twice as many as that.

    Even a text of a few kilobytes then has documents for both parts. It is cut at lines where there are
    no blank lines, between words where there are no lines, and anywhere if need be.
    """
    if len(list(itertools.islice(cut_documents(files), _FEW))) == _FEW:
        return {}

    characters = sum(len(load_text(file)) for file in files)
    size = min(20_000, characters // (2 * _FEW) + 1)
    for gap in (r"\n\n+", r"\n+", r"\s+", ""):
        if len(list(cut_documents(files, size, gap))) >= _FEW:
            break
    return {"size": size, "gap": gap}


class _LocalRows:
    """The rows of local files, with the place reached: a number of files, and rows of the next one."""

    def __init__(self, source: str, columns: Collection[str] = ()) -> None:
        kind, self.files = _find_files(source)
        self.read = _READERS[kind]
        if kind == "parquet":
            self.read = functools.partial(_parquet_rows, columns=columns)
        if kind == "text":
            self.read = functools.partial(_text_rows, **_smaller_cut(self.files))
        self.file = self.row = 0

    def __iter__(self) -> Iterator[Row]:
        while self.file < len(self.files):
            rows = _read_files([str(self.files[self.file])], self.read)
            for row in itertools.islice(rows, self.row, None):
                self.row += 1
                yield row
            self.file += 1
            self.row = 0

    def where(self) -> str:
        """Return which row was read last, as an error names it."""
        return f"{self.files[self.file]}, row {self.row}"

    def state_dict(self) -> dict[str, int]:
        """Return the place reached, for a manifest."""
        return {"file": self.file, "row": self.row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a place that state_dict returned."""
        self.file, self.row = state["file"], state["row"]


class _NamedRows:
    """The rows of a source that has a name: Shakespeare, or a data set on the hub."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.stream = stream_documents(source)

    def __iter__(self) -> Iterator[Row]:
        rows = iter(self.stream)
        while True:
            with _hub_errors(self.source, self.source):
                row = next(rows, None)
            if row is None:
                return
            yield row

    def where(self) -> str:
        """Return what an error names; the hub does not say which file a row is from."""
        return self.source

    def state_dict(self) -> dict[str, Any]:
        """Return the place reached, for a manifest."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place that state_dict returned."""
        self.stream.load_state_dict(state)


def list_files(source: str) -> list[Path]:
    """Return the files that a local source reads, in order; of one that has only a name, none.

    Raises as stream_documents does.
    """
    return _find_files(source)[1] if _is_local(source) else []


Rows = _LocalRows | _NamedRows  # rows that know the place reached


def open_rows(
    source: str, columns: Collection[str] = (), place: dict[str, Any] | None = None
) -> Rows:
    """Return the rows of a source from a place on, one that their state_dict returned, or all of them.

    columns: read only these from Parquet files, if all of them but "id" are there. A text that would make
    few documents is cut into smaller ones. Raises as stream_documents does, also while the rows are read.
    """
    rows = _LocalRows(source, columns) if _is_local(source) else _NamedRows(source)
    if place:
        rows.load_state_dict(place)
    return rows
