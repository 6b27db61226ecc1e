"""Documents to tokens: filter and split them, and write them as shards that survive a crash.

The token END follows each document.

Written by notebooks/13_pretraining.ipynb (chapter 13): edit it there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import datasets
import numpy
import pyarrow
from tqdm.auto import tqdm

from minigpt_lib.bpe import BPETokenizer, GPTTokenizer, train_bpe
from minigpt_lib.checkpoints import atomic_write, locked, sha256, writing_in
from minigpt_lib.sources import Row, Rows, list_files, open_rows
from minigpt_lib.training import interrupted, on_interrupt

__all__ = [
    "END",
    "DataConfig",
    "is_finished",
    "is_validation",
    "load_tokenizer",
    "prepare",
    "read_manifest",
]

END = "<|endoftext|>"


@dataclass(frozen=True)
class DataConfig:
    """How documents become tokens. Raises ValueError for invalid settings, and quotes them."""

    tokenizer: Literal["bpe", "gpt2"] = "bpe"  # bpe learns from the first documents; or GPT-2's
    vocab_size: int = 1024  # how many tokens a bpe tokenizer learns
    tokenizer_chars: int = 10_000_000  # how many characters it learns from
    min_score: float = 0.0  # leave out documents with a lower score; 0 keeps all, scored or not
    max_chars: int = 2_000_000  # leave out documents with more characters
    max_documents: int | None = None  # stop after this many documents; None takes all
    val_fraction: float = 0.1  # the share of documents that is kept for validation
    shard_chars: int = 50_000_000  # close a shard when it has this many characters
    num_proc: int = os.cpu_count() or 1  # how many processes tokenize
    text_column: str = "text"  # the column that holds the text

    def __post_init__(self) -> None:
        lows = dict.fromkeys(("tokenizer_chars", "max_chars", "shard_chars", "num_proc"), 1)
        lows["vocab_size"] = 257
        if self.max_documents is not None:
            lows["max_documents"] = 1
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


def _fault(text: str | None, score: float | None, config: DataConfig) -> str | None:
    """Return why a document is left out, or None."""
    if text is None or not text.strip():
        return "empty"
    if len(text) > config.max_chars:
        return "too long"
    if config.min_score > 0 and (score or 0) < config.min_score:
        return "low score"
    return None


def _lot(identity: str) -> int:
    """Return the first 64 bits of the hash of an id: a number drawn for it once and for all."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")


def is_validation(identity: str, fraction: float) -> bool:
    """Return whether the document of this id is kept for validation: by its hash, so always the same.

    About `fraction` of all ids are. A larger fraction only adds to them.
    """
    return _lot(identity) < fraction * 2**64


def _split_at(ids: Iterable[str], fraction: float) -> float | None:
    """Return `fraction` or, if one part would be empty, the nearest fraction that leaves neither empty.

    Reads ids only until both parts have one. Returns None if there are no two different ids.
    """
    border = fraction * 2**64
    lots = set()
    lowest, highest = 2**64, -1
    for identity in ids:
        lot = _lot(identity)
        lowest, highest = min(lowest, lot), max(highest, lot)
        if lowest < border <= highest:
            return fraction
        lots.add(lot)

    if len(lots) < 2:
        return None
    ordered = sorted(lots)
    nearest = ordered[:2] if lowest >= border else ordered[-2:]
    return sum(nearest) / 2 / 2**64


@dataclass
class _Document:
    """A document that stays. Its text is dropped once it has been tokenized."""

    identity: str
    text: str
    n_chars: int
    n_bytes: int


def _column(row: Row, name: str, kind: Any, expected: str) -> Any:
    """Return a value of a row. Raises ValueError if it is not there, or not of this kind."""
    if name not in row:
        raise ValueError(
            f"no column {name!r}, only {', '.join(row)}: expected the text (text_column says where), id if "
            "there is one, and score if min_score is set."
        )
    if not isinstance(row[name], kind):
        raise ValueError(f"{name} is {row[name]!r:.40}, expected {expected}.")
    return row[name]


def _judge(row: Row, config: DataConfig) -> tuple[_Document | None, str]:
    """Return the document of a row, None if it is left out, and what it counts as."""
    text = _column(row, config.text_column, str | None, "a str")
    score = None
    if config.min_score > 0:
        score = _column(row, "score", int | float | None, "a number")
    if fault := _fault(text, score, config):
        return None, fault

    identity = row.get("id")
    try:
        raw = text.encode()
        str(identity).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair in string is invalid.") from None
    if identity in (None, ""):  # equal texts share an id, so they stay together
        identity = hashlib.sha256(raw).hexdigest()[:32]
    return _Document(str(identity), text, len(text), len(raw)), "kept"


def _open(source: str, config: DataConfig, place: dict[str, Any] | None = None) -> Rows:
    """Return the rows of a source from a place on, with the columns that these settings need."""
    score = ["score"] if config.min_score > 0 else []
    return open_rows(source, [config.text_column, "id", *score], place)


def _kept(rows: Rows, config: DataConfig, counts: Counter[str]) -> Iterator[_Document]:
    """Yield the documents that stay; count all of them in `counts`. Errors name the file and the row."""
    if config.max_documents is not None and counts["kept"] >= config.max_documents:
        return

    for row in rows:
        try:
            document, verdict = _judge(row, config)
        except ValueError as error:
            raise ValueError(f"{rows.where()}: {error}") from None
        counts["seen"] += 1
        counts[verdict] += 1
        if document:
            yield document
        if counts["kept"] == config.max_documents:
            return


_BATCH_CHARS = 250_000  # of a batch: enough to outweigh the cost of sending it, 0.05 s of work


@dataclass
class _Batch:
    """Documents that are tokenized together, and what the manifest will say if they close a shard."""

    documents: list[_Document]
    closes: dict[str, Any] | None = None


def _write_shard(
    folder: Path, name: str, documents: list[_Document], tokens: list[numpy.ndarray]
) -> dict[str, Any]:
    """Write a shard under another name, and give it its own when all of it is on the disk.

    Returns what the manifest says of it.
    """
    part = folder / f"{name}.part"
    _dataset(documents, tokens).save_to_disk(part, num_shards=1)

    for file in part.iterdir():  # on the disk, not only on its way: a power cut may follow
        with file.open("rb+") as written:
            os.fsync(written.fileno())

    part.replace(folder / name)

    (file,) = (folder / name).glob("*.arrow")
    return {
        "name": name,
        "part": name.partition("-")[0],
        "documents": len(documents),
        "tokens": sum(map(len, tokens)),
        "chars": sum(document.n_chars for document in documents),
        "bytes": sum(document.n_bytes for document in documents),
        "file": file.name,
        "size": file.stat().st_size,
        "sha256": sha256(file),
    }


def _add_shards(
    folder: Path,
    documents: list[_Document],
    tokens: list[numpy.ndarray],
    manifest: dict[str, Any],
    closes: dict[str, Any],
) -> None:
    """Write the shards of these documents, and then a manifest that knows them and the place behind them."""
    numbers = [int(shard["name"][-5:]) for shard in manifest["shards"]]
    split = manifest.get("split", manifest["settings"]["val_fraction"])
    with writing_in(folder):
        if documents:
            number = 1 + max(numbers, default=-1)
            manifest["shards"] += _write_shards(folder, documents, tokens, number, split)

        manifest.update(closes)  # the counts, and the place in the source
        _write_manifest(folder, manifest)


def _fill(
    source: str, folder: Path, config: DataConfig, manifest: dict[str, Any], bar: tqdm
) -> None:
    """Write all shards that are not yet there: while one is written, the next is read and tokenized."""
    tokenizer = _set_up(source, folder, config, manifest, bar)
    counts = Counter(manifest["counts"])
    batches = _batches(_open(source, config, manifest["stream"]), config, counts, bar)

    documents: list[_Document] = []
    tokens: list[numpy.ndarray] = []
    with _finishing(), ThreadPoolExecutor(1) as thread:
        # It starts with nothing to write: Python does not wait for a thread that Ctrl-C caught at its start.
        written = thread.submit(int)
        for batch, ids in _encoded(batches, tokenizer, config.num_proc):
            for document in batch.documents:
                document.text = ""  # its tokens are all that we need
            documents += batch.documents
            tokens += ids

            if batch.closes:
                written.result()  # raises the error of the shard before, if there was one
                written = thread.submit(
                    _add_shards, folder, documents, tokens, manifest, batch.closes
                )
                documents, tokens = [], []
            if interrupted():
                raise KeyboardInterrupt
        written.result()


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
    for byte, as it is for any number of processes. Ctrl-C lets it finish the shard that it is writing.
    Memory depends on shard_chars, not on the text.

    Raises ValueError if the folder holds other things or text prepared in another way, naming the
    difference, if files that were read have changed, or if fewer than two documents are left; RuntimeError
    if another process works there; OSError if it cannot be written; and as stream_documents does.
    """
    source, folder, config = str(source), Path(folder), config or DataConfig()
    bar = tqdm(unit=" chars", unit_scale=True, disable=not progress, mininterval=0.5)
    with locked(folder), _quiet_datasets(), bar:
        manifest = _begin(source, folder, config)
        if not manifest["finished"]:
            _make_room(folder, manifest)
            _fill(source, folder, config, manifest, bar)
    return manifest


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with atomic_write(folder / "manifest.json") as part:
        part.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


_IN_MANIFEST = {"settings": dict, "files": list, "counts": dict, "shards": list, "finished": bool}
_IN_SHARD = {
    **dict.fromkeys(("name", "part", "file", "sha256"), str),
    **dict.fromkeys(("documents", "tokens", "chars", "bytes", "size"), int),
}


def _check_kinds(entries: dict[str, Any], kinds: dict[str, type]) -> None:
    """Raise ValueError, KeyError or TypeError unless the entries have these kinds."""
    for name, kind in kinds.items():
        if not isinstance(entries[name], kind):
            raise ValueError(f"{name} is {entries[name]!r:.40}")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return what `prepare` wrote about its folder: settings, counts, shards, finished.

    Raises FileNotFoundError if there is none, ValueError if it is torn or not ours.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no prepared text: expected manifest.json in it.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        _check_kinds(manifest, _IN_MANIFEST)
        for shard in manifest["shards"]:
            _check_kinds(shard, _IN_SHARD)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged, or is not ours ({error!r:.80}): choose another folder, or delete what is "
            "in this one, and prepare again."
        ) from None
    return manifest


def _refuse_changes(
    source: str, folder: Path, manifest: dict[str, Any], files: list[list[Any]]
) -> None:
    """Raise ValueError if files that were read are others now; a finished preparation says so only."""
    before = manifest["files"]
    if manifest["finished"]:
        if files and files != before:
            print(
                f"{source} has changed since: {folder} keeps the documents prepared before.",
                file=sys.stderr,
            )
        return

    begun = (manifest["stream"] or {}).get("file", len(before)) + 1  # this many files were opened
    if before[:begun] != files[:begun]:
        raise ValueError(
            f"{source} has changed since {folder} was begun: other files, or other sizes. Put back what was "
            "there, or prepare into another folder."
        )


def _begin(source: str, folder: Path, config: DataConfig) -> dict[str, Any]:
    """Return the manifest of a preparation to go on with, or a new one; refuse that of another text."""
    settings = {"source": os.path.normpath(source), **vars(config)}
    del settings["num_proc"]  # it makes no difference to the result
    files = [[str(file), file.stat().st_size] for file in list_files(source)]
    new = {"settings": settings, "files": files, "counts": {}, "shards": []}
    new |= {"stream": None, "finished": False}
    if not (folder / "manifest.json").exists():
        return new
    manifest = read_manifest(folder)
    if not manifest["shards"]:  # nothing is lost
        return new

    saved = manifest["settings"]
    for name, value in settings.items():
        if saved.get(name) != value:
            raise ValueError(
                f"{folder} holds text prepared in another way: {name} is {saved.get(name)!r} there and "
                f"{value!r} here. Use the same, or another folder (existing=replace concerns the run, not "
                "its text)."
            )
    _refuse_changes(source, folder, manifest, files)
    return manifest if manifest["finished"] else manifest | {"files": files}


def _is_shard(path: Path) -> bool:
    """Return whether a folder is a shard, whole or not, by its name and by what it holds."""
    named = re.fullmatch(r"(train|val)-\d{5}(\.part)?", path.name)
    return bool(named) and {file.suffix for file in path.iterdir()} <= {".arrow", ".json"}


def _make_room(folder: Path, manifest: dict[str, Any]) -> None:
    """Delete what an interrupted preparation left beside its manifest; refuse a folder of other things."""
    there = sorted(path.name for path in folder.iterdir())
    others = [name for name in there if name[0] != "." and name != "manifest.json.part"]
    if others and not (folder / "manifest.json").exists():
        raise ValueError(
            f"{folder} holds other things ({', '.join(others[:3])}): choose a new or an empty folder."
        )

    before = read_manifest(folder) if others else manifest
    if not manifest["shards"] and any(before[k] != manifest[k] for k in ("settings", "files")):
        (folder / "tokenizer.json").unlink(missing_ok=True)  # it was learned from another text
    whole = {shard["name"] for shard in manifest["shards"]}
    for path in [path for path in folder.iterdir() if path.is_dir() and path.name not in whole]:
        if _is_shard(path):
            shutil.rmtree(path)


def load_tokenizer(folder: Path) -> BPETokenizer:
    """Return the tokenizer of a prepared folder. Raises FileNotFoundError or ValueError without a good one."""
    path, advice = folder / "tokenizer.json", f"copy it again, or delete {folder} and prepare anew."
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {advice}")
    tokenizer = BPETokenizer.load(path)
    if END not in tokenizer.special_tokens:
        raise ValueError(f"{path} has no token {END}: {advice}")
    return tokenizer


def _first_texts(documents: Iterable[_Document], split: float, chars: int) -> Iterator[str]:
    """Yield the texts of the first training documents, `chars` characters in all."""
    for document in documents:
        if not is_validation(document.identity, split):
            yield document.text[:chars]
            chars -= document.n_chars
        if chars <= 0:
            return


def _get_tokenizer(
    source: str, folder: Path, config: DataConfig, split: float, bar: tqdm
) -> BPETokenizer:
    """Return the folder's tokenizer; learn it from the first training documents if there is none."""
    if (folder / "tokenizer.json").exists():
        return load_tokenizer(folder)

    if config.tokenizer == "gpt2":
        tokenizer = GPTTokenizer("gpt2")
    else:
        bar.set_description_str("learning the tokenizer")
        documents = _kept(_open(source, config), config, Counter())
        texts = _first_texts(documents, split, config.tokenizer_chars)
        tokenizer = train_bpe(texts, config.vocab_size, [END])
        if tokenizer.vocab_size < config.vocab_size and not bar.disable:
            print(
                f"The text has pieces for {tokenizer.vocab_size} tokens, not {config.vocab_size}.",
                file=sys.stderr,
            )
    with atomic_write(folder / "tokenizer.json") as part:
        tokenizer.save(part)
    return tokenizer


def _choose_split(source: str, config: DataConfig) -> float:
    """Return the fraction by which to split: that of the settings, if it leaves neither part empty."""
    counts: Counter[str] = Counter()
    documents = _kept(_open(source, config), config, counts)
    split = _split_at((document.identity for document in documents), config.val_fraction)
    if not counts["kept"]:
        raise ValueError(f"{source}: no document is left to train on; {dict(counts)}.")
    if split is None:
        raise ValueError(
            f"{source}: there is only one document, or all have the same id: expected two, one to train "
            "on, one to validate on. A text (.txt, .md) is cut into several."
        )
    if split != config.val_fraction:
        print(
            f"val_fraction={config.val_fraction} would leave one part of these few documents empty: the "
            "document whose hash comes next is moved there.",
            file=sys.stderr,
        )
    return split


def _set_up(
    source: str, folder: Path, config: DataConfig, manifest: dict[str, Any], bar: tqdm
) -> BPETokenizer:
    """Write the manifest of a folder that is still empty; return the tokenizer, learned if there is none."""
    with writing_in(folder):
        _write_manifest(folder, manifest)  # whatever follows belongs to these settings
    if not manifest["shards"]:
        split = _choose_split(source, config)
        if split != config.val_fraction:
            manifest["split"] = split

    split = manifest.get("split", config.val_fraction)
    tokenizer = _get_tokenizer(source, folder, config, split, bar)
    bar.update(sum(shard["chars"] for shard in manifest["shards"]))
    bar.set_description_str("preparing")
    return tokenizer


def _encode(texts: list[str], tokenizer: BPETokenizer) -> list[numpy.ndarray]:
    """Return the ids of each text, END included: arrays of uint16 where these suffice, else int32."""
    dtype = numpy.uint16 if tokenizer.vocab_size <= 2**16 else numpy.int32
    end = [tokenizer.special_tokens[END]]
    return [numpy.array(tokenizer.encode(text) + end, dtype) for text in texts]


_tokenizer: BPETokenizer | None = None  # in a process that tokenizes


def _begin_process(tokenizer: BPETokenizer) -> None:
    """Keep the tokenizer, leave Ctrl-C to the process that writes, and end when that one has died."""
    global _tokenizer
    _tokenizer = tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _encode_there(texts: list[str]) -> list[numpy.ndarray]:
    """Return the ids of each text, in a process that has kept its tokenizer."""
    assert _tokenizer is not None
    return _encode(texts, _tokenizer)


def _encoded(
    batches: Iterable[_Batch], tokenizer: BPETokenizer, num_proc: int
) -> Iterator[tuple[_Batch, list[numpy.ndarray]]]:
    """Yield each batch with its ids, in order, from processes that live until the last one is done.

    While they work, this process reads the next batches: two for each of them, so memory stays flat.
    """
    if num_proc == 1:
        for batch in batches:
            yield batch, _encode([document.text for document in batch.documents], tokenizer)
        return

    fork = "fork" in multiprocessing.get_all_start_methods()  # a function of a notebook needs it
    context = multiprocessing.get_context("fork" if fork else None)
    waiting: deque[tuple[_Batch, Future[list[numpy.ndarray]]]] = deque()
    with ProcessPoolExecutor(num_proc, context, _begin_process, (tokenizer,)) as pool:
        for batch in batches:
            texts = [document.text for document in batch.documents]
            waiting.append((batch, pool.submit(_encode_there, texts)))
            if len(waiting) > 2 * num_proc:
                done, ids = waiting.popleft()
                yield done, ids.result()
        for done, ids in waiting:
            yield done, ids.result()


def _batches(rows: Rows, config: DataConfig, counts: Counter[str], bar: tqdm) -> Iterator[_Batch]:
    """Yield the documents that stay, in batches; the last one of each shard has the place behind it."""
    documents: list[_Document] = []
    chars = shard_chars = 0
    for document in _kept(rows, config, counts):
        documents.append(document)
        chars += document.n_chars
        shard_chars += document.n_chars
        bar.update(document.n_chars)
        if shard_chars >= config.shard_chars:
            sums = dict(sorted(counts.items()))
            yield _Batch(documents, {"counts": sums, "stream": rows.state_dict()})
            documents, chars, shard_chars = [], 0, 0
        elif chars >= _BATCH_CHARS:
            yield _Batch(documents)
            documents, chars = [], 0
    sums = dict(sorted(counts.items()))
    yield _Batch(documents, {"counts": sums, "stream": None, "finished": True})


def _dataset(documents: list[_Document], tokens: list[numpy.ndarray]) -> datasets.Dataset:
    """Return documents as rows of id and input_ids."""
    small = datasets.Value(tokens[0].dtype.name)
    features = datasets.Features(
        {"id": datasets.Value("string"), "input_ids": datasets.List(small)}
    )
    columns = {"id": [document.identity for document in documents], "input_ids": tokens}
    table = pyarrow.table(columns, schema=features.arrow_schema)
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint="tokens")


def _write_shards(
    folder: Path, documents: list[_Document], tokens: list[numpy.ndarray], number: int, split: float
) -> list[dict[str, Any]]:
    """Write shard `number` of both parts, each whole or not at all; return what the manifest says of them."""
    parts: dict[str, list[int]] = {"train": [], "val": []}
    for i, document in enumerate(documents):
        parts["val" if is_validation(document.identity, split) else "train"].append(i)

    shards = []
    for part, places in parts.items():
        if places:
            name = f"{part}-{number:05d}"
            chosen = [documents[i] for i in places]
            shards.append(_write_shard(folder, name, chosen, [tokens[i] for i in places]))
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


class _RaiseOnce:
    """A handler for Ctrl-C that raises KeyboardInterrupt at the first press only, and sets `pressed`."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        first = not self.pressed
        self.pressed = True
        if first:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _finishing() -> Iterator[None]:
    """Let Ctrl-C end the work in this context, and no further press what is then being finished.

    Where Ctrl-C is switched off, it stays off.
    """
    if not callable(signal.getsignal(signal.SIGINT)):
        yield
        return
    if interrupted():  # before, and another library swallowed the exception
        raise KeyboardInterrupt

    handler = _RaiseOnce()
    with on_interrupt(handler):
        yield
    if handler.pressed:
        raise KeyboardInterrupt


def is_finished(source: str | Path, folder: str | Path, config: DataConfig) -> bool:
    """Return whether this preparation is finished. Raises ValueError as prepare does, for another text."""
    folder = Path(folder)
    if not (folder / "manifest.json").exists():
        return False
    return _begin(str(source), folder, config)["finished"]
