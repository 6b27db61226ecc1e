"""Pretrain on any amount of text: stream, filter, split, tokenize into shards, pack, train, resume.

Shapes: N tokens in a part of the data, T tokens in a block, B blocks in a batch, W ranks (processes that
train together). Losses are nats per token. A document is a row {"id": str, "text": str}; the token END
follows each one.

Written by notebooks/13_pretraining.ipynb (chapter 13): edit it there.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import datasets
import filelock
import multiprocess
import numpy
import pandas
import pyarrow
import torch
from pyarrow import parquet
from torch import Tensor
from tqdm.auto import tqdm

from minigpt_lib.baselines import perplexity
from minigpt_lib.bpe import BPETokenizer, GPTTokenizer, train_bpe
from minigpt_lib.data import load_text
from minigpt_lib.evaluation import bits_per_byte
from minigpt_lib.generation import TextGenerator
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig, Trainer, interrupted, on_interrupt

__all__ = [
    "END",
    "RECIPES",
    "BlockReader",
    "cut_documents",
    "DataConfig",
    "is_validation",
    "main",
    "PackedTokens",
    "prepare",
    "pretrain",
    "PretrainConfig",
    "read_manifest",
    "run_command",
    "shuffle_index",
    "stream_documents",
]

END = "<|endoftext|>"


def cut_documents(
    files: Iterable[str | Path | None], size: int = 20_000
) -> Iterator[dict[str, str]]:
    """Yield texts as documents of about `size` characters, cut at blank lines: {"id", "text"}.

    files: paths of UTF-8 texts; None stands for the plays of Shakespeare.
    """
    for file in files:
        text, start = load_text(file), 0
        for gap in re.finditer(r"\n\n+|\Z", text):
            end = gap.end()
            if end > start and (end - start >= size or end == len(text)):
                yield {"id": f"{Path(file or 'shakespeare').name}:{start}", "text": text[start:end]}
                start = end


_FINEWEB_EDU = ("HuggingFaceFW/fineweb-edu", "sample-10BT")

_KINDS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".txt": "text",
    ".md": "text",
}


def _kind(path: Path) -> str | None:
    """Return what sort of file this is by the end of its name: story.jsonl.gz is json."""
    *_, before, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    packed = last in (".gz", ".bz2", ".xz", ".zst")
    kind = _KINDS.get(before if packed else last)
    return "packed text" if packed and kind == "text" else kind


def _is_local(source: str) -> bool:
    return source.strip() not in ("", "shakespeare", "fineweb-edu") and Path(source).exists()


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files under a folder, but for hidden ones and for the folders that we write."""
    for place, folders, names in os.walk(folder):
        ours = {name for name in folders if any(Path(place, name).glob(".*lock"))}
        folders[:] = [name for name in folders if name[0] != "." and name not in ours]
        yield from (Path(place, name) for name in names if name[0] != ".")


def _is_empty(file: Path) -> bool:
    """Return whether a file has no rows; of a Parquet file that is damaged, no: its turn will come."""
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
    if len(kinds) > 1 and "text" in kinds:  # what lies beside data is not data
        texts = [
            f for f in kinds.pop("text") if not f.name.upper().startswith(("LICENSE", "README"))
        ]
        kinds |= {"text": texts} if texts else {}
    if not kinds and path.is_dir():
        raise FileNotFoundError(
            f"{source}: there is no file with data here, expected {', '.join(_KINDS)}."
        )
    if not kinds:
        raise ValueError(
            f"{source} cannot be read: the name ends in {path.suffix!r}, expected {', '.join(_KINDS)}."
        )
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


def _refuse_stray_commas(file: Path) -> None:
    """Raise ValueError if a row has more values than the header: they would be mixed up."""
    if not isinstance(pandas.read_csv(file, nrows=1).index, pandas.RangeIndex):
        raise ValueError(
            f'the first row of {file.name} has more values than the header: put texts with commas into ""'
        )


def _open(source: str) -> datasets.IterableDataset:
    options = {"split": "train", "streaming": True}
    if not _is_local(source) and source != "shakespeare":
        name, subset = _FINEWEB_EDU if source == "fineweb-edu" else (source, None)
        with _clear_errors(source):
            return datasets.load_dataset(name, subset, **options)
    if source == "shakespeare":
        return datasets.IterableDataset.from_generator(cut_documents, gen_kwargs={"files": [None]})
    kind, files = _find_files(source)
    if kind == "text":
        texts = {"files": [str(file) for file in files]}
        return datasets.IterableDataset.from_generator(cut_documents, gen_kwargs=texts)
    with _clear_errors(source):
        for file in files if kind == "csv" else ():
            _refuse_stray_commas(file)
        names = [glob.escape(str(file)) for file in files]  # as it is, [1] would be a pattern
        return datasets.load_dataset(kind, data_files=names, **options)


def _unreadable(source: str) -> str:
    """Return the first Parquet file of a local source that cannot be read, or the source itself."""
    path = Path(source)
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        try:
            for batch in (
                parquet.ParquetFile(file).iter_batches() if file.suffix == ".parquet" else ()
            ):
                batch.validate(full=True)
        except (pyarrow.ArrowException, OSError):
            return f"{file} ({file.stat().st_size:,} bytes)"
    return source


@contextlib.contextmanager
def _clear_errors(source: str) -> Iterator[None]:
    """Turn the errors of a source into ones that say what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{source}: there is no such file or folder with data here, nor a data set of this name on "
            f"the hub ({error})."
        ) from error
    except StopIteration as error:  # what `datasets` says of an empty JSON file
        raise ValueError(f"{source} is empty.") from error
    except (pyarrow.ArrowException, ValueError, RuntimeError) as error:
        half = " If it was downloaded, fetch it again: half of it may be missing."
        advice = half if isinstance(error, pyarrow.ArrowException) else ""
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"{_unreadable(source)} cannot be read: {reason}.{advice}") from error
    except OSError as error:
        raise ConnectionError(
            f"{source} cannot be reached ({type(error).__name__}: {error}). Offline, pass the path of a "
            "file or a folder; if the connection broke, run the same command again and it goes on."
        ) from error


def stream_documents(source: str | Path) -> datasets.IterableDataset:
    """Return the rows of a source one by one, nothing kept in memory, through datasets.load_dataset.

    source: shakespeare; fineweb-edu (HuggingFaceFW/fineweb-edu, sample-10BT); a file (Parquet, JSON
    lines, CSV) or a folder of such, with all that is below it; a text, or a folder of texts (.txt, .md),
    cut by cut_documents; or the name of another data set on the hub. Raises FileNotFoundError if there is
    no such thing, ConnectionError if the hub cannot be reached, ValueError, with its name, for a file that
    cannot be read or a folder with files of several kinds.
    """
    source = str(source)
    path = Path(source)
    if not source.strip():
        raise ValueError("the source is empty: expected a file, a folder, or a data set's name.")
    if (_kind(path) or path.is_absolute() or source.startswith(".")) and not path.exists():
        raise FileNotFoundError(f"{source}: there is no such file or folder.")
    return _open(source)


@dataclass(frozen=True)
class DataConfig:
    """How documents become tokens, checked: raises ValueError for what cannot work, quoting it."""

    tokenizer: Literal["bpe", "gpt2"] = "bpe"  # learned from the first documents, or GPT-2's
    vocab_size: int = 1024  # of a tokenizer that is learned
    tokenizer_chars: int = 10_000_000  # how much text it learns from
    min_score: float = 0.0  # leave out documents whose "score" is lower; 0: do not look at it
    max_chars: int = 2_000_000  # leave out longer documents
    max_documents: int | None = None  # stop after so many; None: take all
    val_fraction: float = 0.1  # how many documents of all are kept for validation
    shard_chars: int = 50_000_000  # a shard is closed when it has so many characters
    num_proc: int = os.cpu_count() or 1  # processes that tokenize

    def __post_init__(self) -> None:
        lows = {
            "vocab_size": 257,
            "tokenizer_chars": 1,
            "max_chars": 1,
            "shard_chars": 1,
            "num_proc": 1,
        }
        lows |= {} if self.max_documents is None else {"max_documents": 1}
        for name, low in lows.items():
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise ValueError(f"{name}={value!r}: expected a whole number of at least {low}.")
        if self.tokenizer not in ("bpe", "gpt2"):
            raise ValueError(f"tokenizer={self.tokenizer!r}: expected bpe or gpt2.")
        if not self.min_score >= 0:
            raise ValueError(f"min_score={self.min_score!r}: expected 0 or more.")
        if not 0 < self.val_fraction < 1:
            raise ValueError(
                f"val_fraction={self.val_fraction!r}: expected a number between 0 and 1."
            )


def is_validation(identity: str, fraction: float) -> bool:
    """Return whether the document of this id is kept for validation: by its hash, so always the same.

    About `fraction` of all ids are. A larger fraction only adds to them.
    """
    digest = hashlib.sha256(identity.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _fault(row: dict[str, Any], config: DataConfig) -> str | None:
    """Return why a document is left out, or None."""
    text = row["text"]
    if text is None or not text.strip():
        return "empty"
    if len(text) > config.max_chars:
        return "too long"
    score = row["score"] or 0 if config.min_score > 0 else 0
    if not isinstance(score, int | float):
        raise ValueError(f"score is {score!r:.40} in a document, expected a number.")
    return None if score >= config.min_score else "low score"


def _kept(
    source: str, stream: Iterable[dict[str, Any]], config: DataConfig, counts: Counter[str]
) -> Iterator[dict[str, str]]:
    """Yield the documents that stay, as {"id", "text"}; count all of them in `counts`."""
    needed = {"text"} | ({"score"} if config.min_score > 0 else set())
    rows = iter(stream)
    while config.max_documents is None or counts["kept"] < config.max_documents:
        with _clear_errors(source):
            row = next(rows, None)
        if row is None:
            return
        if missing := needed - row.keys():
            raise ValueError(
                f"{source} has no column {min(missing)!r}, only {', '.join(row)}: expected text, id if "
                "there is one, and score if min_score is set."
            )
        text = row["text"]
        if not isinstance(text, str | None):
            raise ValueError(f"{source}: text is {text!r:.40}, expected a str.")
        fault = _fault(row, config)
        counts["seen"] += 1
        counts[fault or "kept"] += 1
        if not fault:  # without an id, equal texts share one: they stay on the same side
            name = row.get("id")
            if name in (None, ""):
                name = hashlib.sha256(row["text"].encode()).hexdigest()[:32]
            yield {"id": str(name), "text": row["text"]}


def _sync(path: Path) -> None:
    """Wait until a file is on the disk, not only on its way: a power cut may follow."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _write_json(path: Path, value: object) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    _sync(part)
    part.replace(path)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return what `prepare` wrote about its folder: settings, counts, shards, finished.

    Raises FileNotFoundError if there is none, ValueError if it is torn or not ours.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no prepared text: expected manifest.json in it.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in {
            "settings": dict,
            "counts": dict,
            "shards": list,
            "finished": bool,
        }.items():
            if not isinstance(manifest[name], kind):
                raise ValueError(f"{name} is {manifest[name]!r:.40}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, or is not ours ({error!r:.80}): choose another folder, or delete what is "
            "in this one, and prepare again."
        ) from None
    return manifest


def _refuse_changes(
    source: str, folder: Path, manifest: dict[str, Any], files: list[list[Any]]
) -> None:
    """Raise ValueError if files that were read are others now; a finished preparation says so only."""
    if manifest["finished"]:
        if files and files != manifest.get("files"):
            print(
                f"{source} has changed since: {folder} keeps the documents prepared before.",
                file=sys.stderr,
            )
        return
    places = re.findall(r'"shard_idx": (\d+)', json.dumps(manifest["stream"]))
    n = 1 + max(map(int, places), default=-1)  # so many files were begun
    if manifest.get("files", [])[:n] != files[:n]:
        raise ValueError(
            f"{source} has changed since {folder} was begun: other files, or other sizes. Put back what was "
            "there, or prepare into another folder."
        )


def _begin(source: str, folder: Path, config: DataConfig) -> dict[str, Any]:
    """Return the manifest of a preparation to go on with, or a new one; refuse that of another text."""
    settings = {"source": os.path.normpath(source), **dataclasses.asdict(config)}
    del settings["num_proc"]  # it makes no difference to the result
    found = _find_files(source)[1] if _is_local(source) else []
    files = [[str(file), file.stat().st_size] for file in found]
    new: dict[str, Any] = {
        "settings": settings,
        "files": files,
        "counts": {},
        "shards": [],
        "stream": None,
    }
    new["finished"] = False
    if not (folder / "manifest.json").exists():
        return new
    manifest = read_manifest(folder)
    if not manifest["shards"]:  # nothing is lost
        return new
    for name, value in settings.items():
        saved = manifest["settings"].get(name)
        if saved != value:
            raise ValueError(
                f"{folder} holds text prepared in another way: {name} is {saved!r} there and {value!r} "
                "here. Use the same, or another folder (existing=replace concerns the run, not its text)."
            )
    _refuse_changes(source, folder, manifest, files)
    return manifest if manifest["finished"] else manifest | {"files": files}


def _make_room(folder: Path, manifest: dict[str, Any]) -> None:
    """Delete what an interrupted preparation left beside its manifest; refuse a folder of other things."""
    ours, there = folder / "manifest.json", sorted(path.name for path in folder.iterdir())
    others = [name for name in there if name[0] != "." and name != "manifest.json.part"]
    if others and not ours.exists():
        raise ValueError(
            f"{folder} holds other things ({', '.join(others[:3])}): choose a new or an empty folder."
        )
    before = read_manifest(folder) if others else manifest
    if not manifest["shards"] and any(before.get(k) != manifest[k] for k in ("settings", "files")):
        (folder / "tokenizer.json").unlink(missing_ok=True)  # it was learned from another text
    whole = {shard["name"] for shard in manifest["shards"]}
    for path in [path for path in folder.iterdir() if path.is_dir() and path.name not in whole]:
        shard = re.fullmatch(r"(train|val)-\d{5}(\.part)?", path.name)
        if shard and {file.suffix for file in path.iterdir()} <= {".arrow", ".json"}:
            shutil.rmtree(path)


def _load_tokenizer(folder: Path) -> BPETokenizer:
    path, advice = folder / "tokenizer.json", f"copy it again, or delete {folder} and prepare anew."
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {advice}")
    tokenizer = BPETokenizer.load(path)
    if END not in tokenizer.special_tokens:
        raise ValueError(f"{path} has no token {END}: {advice}")
    return tokenizer


def _get_tokenizer(source: str, folder: Path, config: DataConfig, bar: tqdm) -> BPETokenizer:
    """Return the folder's tokenizer; learn it from the first training documents if there is none."""
    path, part = folder / "tokenizer.json", folder / "tokenizer.json.part"
    if not path.exists() and config.tokenizer == "gpt2":
        GPTTokenizer("gpt2").save(part)
        part.replace(path)
    elif not path.exists():

        def texts() -> Iterator[str]:
            left = config.tokenizer_chars
            for row in _kept(source, stream_documents(source), config, Counter()):
                if not is_validation(row["id"], config.val_fraction):
                    yield row["text"][:left]
                    left -= len(row["text"])
                if left <= 0:
                    return

        bar.set_description_str("learning the tokenizer")
        learned = train_bpe(texts(), config.vocab_size, [END])
        if learned.vocab_size < config.vocab_size and not bar.disable:
            print(
                f"The text has pieces for {learned.vocab_size} tokens, not {config.vocab_size}.",
                file=sys.stderr,
            )
        learned.save(part)
        part.replace(path)
    return _load_tokenizer(folder)


@contextlib.contextmanager
def _finish_first() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the block; a second one is obeyed at once. Workers ignore it.

    An exception that comes while processes are started or ended may be ignored, or leave a lock behind
    for which everybody waits forever: it may hit the callbacks that Python runs around a fork. Under
    torchrun the second one waits too, because torchrun passes the first on.
    """
    parent, before, pressed = os.getpid(), signal.getsignal(signal.SIGINT), False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if os.getpid() == parent and callable(before):
            if pressed and "RANK" not in os.environ:
                before(number, frame)
            pressed = True

    with on_interrupt(note):
        try:
            yield
        except multiprocess.TimeoutError as error:  # `datasets` tidies up after an interrupt
            raise (error.__context__ or error) from None
    if callable(before) and (pressed or interrupted()):
        before(signal.SIGINT, None)


def _encode(batch: dict[str, list[str]], tokenizer: BPETokenizer) -> dict[str, list[list[int]]]:
    end = [tokenizer.special_tokens[END]]
    return {"input_ids": [tokenizer.encode(text) + end for text in batch["text"]]}


def _tokenize(
    rows: list[dict[str, str]], tokenizer: BPETokenizer, num_proc: int
) -> datasets.Dataset:
    """Return the columns id and input_ids of the documents, in their order."""
    table = datasets.table.InMemoryTable.from_pylist(rows)
    small = datasets.Value("uint16" if tokenizer.vocab_size <= 2**16 else "int32")
    processes = min(num_proc, len(rows))
    tokens = datasets.Dataset(table, fingerprint="documents").map(
        _encode,
        batched=True,
        remove_columns=["text"],
        features=datasets.Features(
            {"id": datasets.Value("string"), "input_ids": datasets.List(small)}
        ),
        fn_kwargs={"tokenizer": tokenizer},
        num_proc=processes if processes > 1 else None,
        new_fingerprint="tokens",  # else `datasets` would hash all of the text
    )
    whole = tokens.data.table.combine_chunks()  # the same bytes for any number of processes
    return datasets.Dataset(datasets.table.InMemoryTable(whole), fingerprint="tokens")


def _write_shards(
    folder: Path,
    rows: list[dict[str, str]],
    tokenizer: BPETokenizer,
    config: DataConfig,
    number: int,
) -> list[dict[str, Any]]:
    """Write shard `number` of both parts, each whole or not at all; return what the manifest says of them."""
    parts: dict[str, list[dict[str, str]]] = {"train": [], "val": []}
    for row in rows:
        parts["val" if is_validation(row["id"], config.val_fraction) else "train"].append(row)
    tokens = _tokenize(parts["train"] + parts["val"], tokenizer, config.num_proc)
    shards, start = [], 0
    for part, rows in parts.items():
        if not rows:
            continue
        chosen = tokens.select(range(start, start + len(rows)))
        start += len(rows)
        name = f"{part}-{number:05d}"
        chosen.save_to_disk(folder / f"{name}.part", num_shards=1)
        for file in (folder / f"{name}.part").iterdir():
            _sync(file)
        (folder / f"{name}.part").replace(folder / name)
        (file,) = (folder / name).glob("*.arrow")
        shards.append(
            {
                "name": name,
                "part": part,
                "documents": len(rows),
                "tokens": pyarrow.compute.sum(
                    pyarrow.compute.list_value_length(chosen.data.table["input_ids"])
                ).as_py(),
                "chars": sum(len(row["text"]) for row in rows),
                "bytes": sum(len(row["text"].encode()) for row in rows),
                "file": file.name,
                "size": file.stat().st_size,
                "sha256": _file_sha256(file),
            }
        )
    return shards


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Hide the progress bars of `datasets`, one a shard, as we have one for all."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Name the folder in the errors of a disk that is full or may not be written, and say what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error}): free some space, or choose another folder. What was "
            "finished before is untouched."
        ) from error


@contextlib.contextmanager
def _locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Let one process at a time work in a folder; the system opens the lock if the process dies."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    lock = filelock.FileLock(folder / name)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(
            f"another process is at work in {folder}: wait for it, or end it."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _take(
    documents: Iterator[dict[str, str]], config: DataConfig, bar: tqdm
) -> list[dict[str, str]]:
    """Return the documents of the next shard, none if there are no more."""
    rows, chars = [], 0
    bar.set_description_str("reading")
    while chars < config.shard_chars and (row := next(documents, None)):
        rows.append(row)
        chars += len(row["text"])
        bar.update(len(row["text"]))
    return rows


def _fill(
    source: str, folder: Path, config: DataConfig, manifest: dict[str, Any], bar: tqdm
) -> None:
    """Write all shards that are not yet there."""
    counts, path = Counter(manifest["counts"]), folder / "manifest.json"
    with _writing(folder):
        _write_json(path, manifest)  # first of all: whatever follows belongs to these settings
    tokenizer = _get_tokenizer(source, folder, config, bar)
    stream = stream_documents(source)
    if manifest["stream"]:
        stream.load_state_dict(manifest["stream"])
    bar.update(sum(shard["chars"] for shard in manifest["shards"]))
    documents = _kept(source, stream, config, counts)
    for number in itertools.count(
        1 + max([int(s["name"][-5:]) for s in manifest["shards"]], default=-1)
    ):
        rows = _take(documents, config, bar)
        if not rows:
            break
        bar.set_description_str(f"tokenizing shard {number}")
        with _finish_first(), _writing(folder):
            manifest["shards"] += _write_shards(folder, rows, tokenizer, config, number)
            manifest |= {"counts": dict(sorted(counts.items())), "stream": stream.state_dict()}
            _write_json(path, manifest)
    if not manifest["shards"]:
        raise ValueError(f"{source}: no document is left to train on; {dict(counts)}.")
    manifest |= {"counts": dict(sorted(counts.items())), "stream": None, "finished": True}
    with _writing(folder):
        _write_json(path, manifest)


def prepare(
    source: str | Path,
    folder: str | Path,
    config: DataConfig | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Turn the documents of a source into shards of tokens in `folder`; return the manifest.

    In the folder: tokenizer.json; train-00000/, val-00000/ and so on, data sets of Hugging Face with the
    columns id and input_ids, END after each document; manifest.json, written anew when a shard is whole.
    If interrupted, call it again: it goes on after the last whole shard, and the result is the same, byte
    for byte. Ctrl-C lets it finish the shard that it is writing; a second one does not. Memory depends
    on shard_chars, not on the text.

    Raises ValueError if the folder holds other things or text prepared in another way, naming the
    difference, if files that were read have changed, or if no document is left; RuntimeError if another
    process works there; OSError if it cannot be written; and as stream_documents does.
    """
    source, folder, config = str(source), Path(folder), config or DataConfig()
    bar = tqdm(unit=" chars", unit_scale=True, disable=not progress, mininterval=0.5)
    with _locked(folder), _quiet_datasets(), bar:
        manifest = _begin(source, folder, config)
        if not manifest["finished"]:
            _make_room(folder, manifest)
            _fill(source, folder, config, manifest, bar)
    return manifest


def _open_shard(folder: Path, shard: dict[str, Any], verify: bool) -> pyarrow.Table:
    """Return a shard as a memory-mapped table; ValueError, with its name, if it is not as it was written."""
    file = folder / shard["name"] / shard["file"]
    if not file.is_file():
        problem = "is missing"
    elif file.stat().st_size != shard["size"]:
        problem = f"has {file.stat().st_size:,} bytes in place of {shard['size']:,}"
    elif verify and _file_sha256(file) != shard["sha256"]:
        problem = "is altered: its checksum differs"
    else:
        return pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()
    raise ValueError(
        f"{file} {problem}. Copy it again from where it came, or delete {folder} and prepare anew."
    )


class PackedTokens:
    """All shards of a part ("train" or "val") as one row of N tokens, without copying: tokens[a:b].

    The files are memory-mapped: opening them reads nothing (but for the checksums, unless verify is
    False), and a slice reads what it needs. Raises ValueError if the preparation is not finished, if a
    shard is torn, altered or missing (by name), or if the part is empty.
    """

    def __init__(self, folder: str | Path, part: str = "train", verify: bool = True) -> None:
        folder, self.lists, self.ids = Path(folder), [], []
        manifest = read_manifest(folder)
        if not manifest["finished"]:
            raise ValueError(f"{folder} is not finished: prepare it with the same settings again.")
        for shard in manifest["shards"]:
            if shard["part"] == part:
                table = _open_shard(folder, shard, verify)
                self.lists += table["input_ids"].chunks
                self.ids += table["id"].chunks
        if not self.lists:
            raise ValueError(
                f"{folder} has no part {part!r}: of {manifest['counts']['kept']} documents none came to "
                f"be there, with val_fraction={manifest['settings']['val_fraction']}: choose another "
                "val_fraction, and another folder."
            )
        self.values = [chunk.flatten().to_numpy(zero_copy_only=True) for chunk in self.lists]
        self.starts = [0, *itertools.accumulate(map(len, self.values))]

    def __len__(self) -> int:
        return self.starts[-1]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (i, from, to) for each chunk i that holds tokens from start to stop."""
        i = bisect.bisect_right(self.starts, start) - 1
        while start < stop:
            begin, end = self.starts[i], min(stop, self.starts[i + 1])
            yield i, start - begin, end - begin
            i, start = i + 1, end

    def __getitem__(self, where: slice) -> Tensor:
        """Return the tokens of a slice, int64; TypeError for anything but tokens[a:b]."""
        if not isinstance(where, slice) or where.step not in (None, 1):
            raise TypeError(f"expected a slice as in tokens[10:20], got {where!r}.")
        start, stop, _ = where.indices(len(self))
        pieces = [self.values[i][a:b] for i, a, b in self._pieces(start, stop)]
        joined = numpy.concatenate(pieces) if pieces else numpy.empty(0)
        return torch.from_numpy(joined.astype(numpy.int64))

    def documents(self, start: int, stop: int) -> list[str]:
        """Return the ids of the documents of which tokens[start:stop] holds at least a token."""
        found: list[str] = []
        start, stop, _ = slice(start, stop).indices(len(self))
        for i, a, b in self._pieces(start, stop):
            ends = self.lists[i].offsets.to_numpy()[1:] - self.lists[i].offsets[0].as_py()
            first, last = numpy.searchsorted(ends, [a, b - 1], side="right")
            found += self.ids[i][first : last + 1].to_pylist()
        return found


def shuffle_index(i: int, n: int, key: object) -> int:
    """Return the place of i in a shuffle of 0 to n - 1 that is written down nowhere; key: which shuffle.

    A Feistel network of four rounds on the next power of 4, walked until the number is below n again:
    Luby and Rackoff (1988), Black and Rogaway (2002). Raises ValueError unless 0 <= i < n.
    """
    if not 0 <= i < n:
        raise ValueError(f"i={i}: expected a whole number from 0 to {n - 1}.")
    half = max(1, ((n - 1).bit_length() + 1) // 2)  # the bits of each half
    while True:
        left, right = i >> half, i & (1 << half) - 1
        for turn in range(4):
            digest = hashlib.blake2b(f"{key} {turn} {right}".encode(), digest_size=8).digest()
            left, right = right, left ^ int.from_bytes(digest, "big") & (1 << half) - 1
        i = left << half | right
        if i < n:
            return i


class BlockReader:
    """Draw the blocks of a text, each once an epoch, in an order that changes: Trainer's `draw`.

    Block i has the targets i T + 1 to (i + 1) T; the last one is moved back to be full, and those of its
    targets that block i - 1 has are -100. So every token but the first is a target once an epoch. Of W
    ranks, rank r draws B blocks where rank 0 stopped r B before; `position` counts the blocks that all
    of them have drawn, so a run can go on with another number of ranks. The seed decides the order.
    Raises ValueError for a rank outside 0 to world_size - 1.
    """

    def __init__(self, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(
                f"rank={rank}: expected 0 to {world_size - 1}, as world_size={world_size}."
            )
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.position = 0
        self.blocks: int | None = None  # how many the text has, and of what size
        self.block_size: int | None = None

    def __call__(
        self,
        tokens: PackedTokens | Tensor | Sequence[int],
        batch_size: int,
        block_size: int,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the next inputs and targets of this rank, (B, T) int64 each.

        tokens: N ids, PackedTokens, a tensor or a list. Raises ValueError if B or T is below 1, if N <= T,
        or if the text has another number of blocks, or T another value, than when it was begun.
        """
        if min(batch_size, block_size) < 1:
            raise ValueError(
                f"batch_size={batch_size}, block_size={block_size}: expected 1 or more."
            )
        if len(tokens) <= block_size:
            raise ValueError(
                f"{len(tokens)} tokens are too few for block_size={block_size}: a block needs one more."
            )
        blocks = -(-(len(tokens) - 1) // block_size)
        if self.blocks is not None and (self.blocks, self.block_size) != (blocks, block_size):
            raise ValueError(
                f"the text has {blocks} blocks of {block_size} tokens, but the run began with "
                f"{self.blocks} of {self.block_size}: go on with the same data, or start anew."
            )
        self.blocks, self.block_size = blocks, block_size
        first = self.position + self.rank * batch_size
        rows = [self._block(tokens, first + i, blocks, block_size) for i in range(batch_size)]
        self.position += self.world_size * batch_size
        return torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows])

    def _block(
        self,
        tokens: PackedTokens | Tensor | Sequence[int],
        position: int,
        blocks: int,
        block_size: int,
    ) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(position, blocks)
        planned = shuffle_index(place, blocks, f"{self.seed} {epoch}") * block_size
        start = min(planned, len(tokens) - block_size - 1)
        window = torch.as_tensor(tokens[start : start + block_size + 1]).long()
        x, y = window[:-1], window[1:].clone()
        y[: planned - start] = -100
        return x, y

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the text, for a checkpoint: the same on every rank."""
        names = ("position", "blocks", "block_size", "seed")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place that state_dict returned, on any rank of any number of ranks."""
        self.position, self.seed = state["position"], state["seed"]
        self.blocks, self.block_size = state["blocks"], state["block_size"]


# preset: (how documents become tokens, how to train, changes to the model's preset)
RECIPES: dict[str, tuple[DataConfig, TrainConfig, dict[str, Any]]] = {
    "laptop": (
        DataConfig(),
        TrainConfig(
            steps=600, batch_size=16, block_size=128, warmup_steps=60, eval_every=100,
            eval_tokens=40_000, sample_every=200, save_every=100,
        ),
        {},
    ),
    "fineweb_44m": (
        DataConfig(vocab_size=9157, val_fraction=0.002, max_documents=700_000),
        TrainConfig(
            steps=10_000, batch_size=16, block_size=1024, accumulate=4, lr=6e-4, warmup_steps=500,
            eval_every=500, eval_tokens=500_000, sample_every=1000, save_every=500,
        ),
        {},
    ),
    "gpt2_124m": (
        DataConfig(tokenizer="gpt2", val_fraction=0.0005),
        TrainConfig(
            steps=19_000, batch_size=16, block_size=1024, accumulate=32, lr=6e-4, warmup_steps=700,
            eval_every=500, eval_tokens=500_000, sample_every=1000, save_every=500, compile=True,
        ),
        {},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class PretrainConfig:
    """All settings of a pretraining run. The same command again goes on where it stopped."""

    data: str = "shakespeare"  # or fineweb-edu, a file, a folder, a data set on the hub
    preset: str = "laptop"  # the model and its recipe: laptop, fineweb_44m, gpt2_124m
    folder: str = "runs/pretraining"  # receives data/ (the shards) and run/ (diary, checkpoints)
    data_folder: str | None = None  # shards that several runs share; None: data/ in the folder
    existing: Literal["resume", "replace"] = "resume"  # the run that is there, or start anew
    prepare_only: bool = False  # write the shards, and do not train
    verify: bool = True  # compare the checksums of all shards before the run
    tokens: DataConfig = field(default_factory=lambda: RECIPES["laptop"][0])
    train: TrainConfig = field(default_factory=lambda: RECIPES["laptop"][1])

    @classmethod
    def recipe(cls, preset: str, **settings: Any) -> "PretrainConfig":
        """Return the settings of a preset in RECIPES, with others on top. ValueError for another name."""
        if preset not in RECIPES:
            raise ValueError(f"preset={preset!r}: expected one of {', '.join(RECIPES)}.")
        tokens, train, _ = RECIPES[preset]
        values: dict[str, Any] = {"preset": preset, "tokens": tokens, "train": train}
        return cls(**(values | settings))


def _write_sample(tokenizer: BPETokenizer, n_tokens: int = 60) -> Callable[[MiniGPT], str]:
    """Return a function of the model that writes the beginning of a document."""
    end = tokenizer.special_tokens[END]

    def sample(model: MiniGPT) -> str:
        ids = TextGenerator(model, tokenizer).generate_ids(
            torch.tensor([[end]]), n_tokens, seed=0, stop=end
        )
        return tokenizer.decode(ids[0, 1:].tolist()).removesuffix(END)

    return sample


def _wait_for(source: str, folder: Path, config: DataConfig) -> dict[str, Any]:
    """Return the manifest when rank 0 has finished it; if rank 0 fails, torchrun ends this process too."""
    while not (folder / "manifest.json").exists() or not _begin(source, folder, config)["finished"]:
        time.sleep(1)
    return read_manifest(folder)


def _total(manifest: dict[str, Any], part: str, what: str) -> int:
    return sum(shard[what] for shard in manifest["shards"] if shard["part"] == part)


def _summary(run: Trainer, manifest: dict[str, Any], folder: Path, data: Path) -> str:
    """Return what a run came to, in four lines."""
    c, history = run.config, run.history
    per_step = c.batch_size * c.block_size * c.accumulate  # of all ranks together
    seconds = sum(per_step / record["tokens_per_second"] for record in history)
    seen, there = per_step * run.step, _total(manifest, "train", "tokens")
    lines = [
        f"{run.step:,} steps, {seen:,} tokens ({seen / there:.2f} of the {there:,} there are), "
        f"{seconds / 60:.1f} minutes of training"
    ]
    losses = [record["val_loss"] for record in history if "val_loss" in record]
    if losses:
        tokens, n_bytes = (_total(manifest, "val", what) for what in ("tokens", "bytes"))
        bits = bits_per_byte(losses[-1] * tokens, n_bytes)
        lines.append(
            f"validation loss {losses[-1]:.3f} nats per token (best {min(losses):.3f}), perplexity "
            f"{perplexity(losses[-1]):.1f}, {bits:.3f} bits per byte"
        )
    kept = "best" if (folder / "best").exists() else "last"
    lines.append(f'MiniGPT.from_pretrained("{folder / kept}")')
    lines.append(f'BPETokenizer.load("{data / "tokenizer.json"}")')
    return "\n".join(lines)


def _pretrain(
    config: PretrainConfig,
    draw: BlockReader,
    on_step: Callable[[dict[str, Any]], object] | None,
    trainer: Callable[..., Trainer],
) -> Trainer | None:
    folder = Path(config.folder) / "run"
    data = Path(config.data_folder or Path(config.folder) / "data")
    if draw.rank == 0:
        manifest = prepare(config.data, data, config.tokens, config.train.progress)
    else:
        manifest = _wait_for(config.data, data, config.tokens)
    if config.prepare_only:
        return None
    tokenizer = _load_tokenizer(data)
    train_tokens, val_tokens = (
        PackedTokens(data, part, config.verify and draw.rank == 0) for part in ("train", "val")
    )
    chars_per_token = _total(manifest, "val", "chars") / _total(manifest, "val", "tokens")
    train = dataclasses.replace(config.train, chars_per_token=chars_per_token)
    sizes = {"vocab_size": tokenizer.vocab_size, "max_seq_len": train.block_size}
    torch.manual_seed(train.seed)
    model = MiniGPT(GPTConfig.preset(config.preset, **{**sizes, **RECIPES[config.preset][2]}))
    run = trainer(
        model,
        train,
        train_tokens,
        val_tokens,
        folder=folder,
        existing=config.existing,
        sample=_write_sample(tokenizer),
        on_step=on_step,
        draw=draw,
    )
    run.train()
    if run.main and run.history:
        print(_summary(run, manifest, folder, data))
    return run


def pretrain(
    config: PretrainConfig | None = None,
    on_step: Callable[[dict[str, Any]], object] | None = None,
    trainer: Callable[..., Trainer] = Trainer,
) -> Trainer | None:
    """Prepare the data, train a model on it, and return the Trainer; every stage goes on where it stopped.

    on_step(record) follows every step. trainer makes the Trainer from the arguments that Trainer takes.
    Under torchrun (the environment has RANK and WORLD_SIZE) rank 0 prepares, in a folder that all ranks
    must see, and `trainer` must be one for several processes. Returns None if config.prepare_only.
    Raises as prepare, PackedTokens and Trainer do; RuntimeError if another run works in the folder;
    ValueError for several processes with the plain Trainer.
    """
    config = config or PretrainConfig()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and trainer is Trainer:
        raise ValueError(
            f"torchrun started {world} processes, but Trainer trains in one: run the command of "
            "chapter 18 (the module `scaling`) with the same options, or pass another trainer."
        )
    draw = BlockReader(config.train.seed, rank, world)  # refuses a rank that would wait for ever
    alone = _locked(Path(config.folder), ".run.lock") if rank == 0 else contextlib.nullcontext()
    with alone:
        return _pretrain(config, draw, on_step, trainer)


_DESCRIPTION = """Prepare a text, train a model on it, and report. Every stage goes on where it stopped.

Shakespeare, in a few minutes: python -m minigpt_lib.pretraining

Your own texts: python -m minigpt_lib.pretraining --data my_texts/ --folder runs/mine

A GPU: python -m minigpt_lib.pretraining --data fineweb-edu --preset fineweb_44m --folder runs/44m

Many GPUs: chapter 18 has the command for several processes, which takes the same options.

The preset decides all defaults below: see them with --preset NAME --help.
"""


_INTERRUPTED = 130  # the exit status: 128 + 2, the number of Ctrl-C's signal


def _read_settings(
    recipe: Callable[[str], Any], argv: list[str] | None, prog: str, description: str
) -> Any:
    """Return recipe(preset), changed by the options of a command line."""
    try:
        import tyro
    except ImportError:
        raise SystemExit("the command line needs tyro: pip install tyro") from None

    argv = sys.argv[1:] if argv is None else argv
    named = [b for a, b in itertools.pairwise(argv) if a == "--preset"]
    named += [a.removeprefix("--preset=") for a in argv if a.startswith("--preset=")]
    defaults = recipe(named[-1] if named else "laptop")
    return tyro.cli(
        type(defaults),
        args=argv,
        default=defaults,
        prog=prog,
        description=description,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def run_command(
    run: Callable[[Any], Trainer | None],
    recipe: Callable[[str], Any],
    argv: list[str] | None,
    prog: str,
    description: str,
) -> None:
    """Read settings from the command line and call run(settings); errors and Ctrl-C end in one line.

    recipe(preset) returns a dataclass with the default settings of a preset; its fields become options.
    argv: the options, or None for those of this process; prog and description: for --help. Raises
    SystemExit with the error's line, or with status 130 after Ctrl-C; with python -X dev, errors keep
    their traceback. Of several ranks, only rank 0 tells of Ctrl-C.
    """
    try:
        with on_interrupt():
            trained = run(_read_settings(recipe, argv, prog, description))
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("stopped: the same command goes on from here.", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    if trained is not None and trained.stop_asked:
        raise SystemExit(_INTERRUPTED)


def main(argv: list[str] | None = None) -> None:
    """Run the command line: python -m minigpt_lib.pretraining --help."""
    prog = "python -m minigpt_lib.pretraining"
    run_command(pretrain, PretrainConfig.recipe, argv, prog, _DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
