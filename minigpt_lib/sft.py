"""Teach a text model to answer: rows for new tokens, dialogs packed into rows, and their training.

Shapes: B rows in a batch, T tokens in a row.

Written by notebooks/14_sft.ipynb (chapter 14): edit it there.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import datasets
import torch
from torch import Tensor, nn

from minigpt_lib.baselines import evaluating
from minigpt_lib.chat import ChatTokenizer, Dialog, fault_of
from minigpt_lib.model import MiniGPT
from minigpt_lib.packing import deal
from minigpt_lib.sources import stream_documents
from minigpt_lib.training import TrainConfig, Trainer

__all__ = [
    "DialogReader",
    "evaluate_dialogs",
    "InstructionDataset",
    "Item",
    "load_dialogs",
    "resize_embedding",
    "train_sft",
]


def resize_embedding(model: MiniGPT, vocab_size: int) -> MiniGPT:
    """Return a copy of the model with `vocab_size` ids: old rows as they were, new ones their mean.

    A tied head stays tied. With the mean, a new token's logit is at first the mean of all of them (Hewitt,
    2021, draws around it). Raises ValueError for fewer ids than the model has.
    """
    old = model.config.vocab_size
    if vocab_size < old:
        raise ValueError(f"{vocab_size} ids, but the model has {old}: rows would be lost.")

    larger = copy.deepcopy(model)
    larger.config = dataclasses.replace(model.config, vocab_size=vocab_size)
    larger.embedding.num_embeddings = vocab_size
    tables: list[nn.Embedding | nn.Linear] = [larger.embedding]
    if larger.head is not None:  # not tied: it grows too
        larger.head.out_features = vocab_size
        tables.append(larger.head)

    for table in tables:
        rows = table.weight.detach()
        new = rows.mean(dim=0, keepdim=True).expand(vocab_size - old, -1)
        table.weight = nn.Parameter(torch.cat([rows, new]))
    return larger


def _pack(sizes: Sequence[int], block_size: int) -> list[list[int]]:
    """Return which items share a row: the longest first, each where it leaves the least room."""
    rows: list[list[int]] = []
    by_room: list[list[list[int]]] = [[] for _ in range(block_size + 1)]
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        need = sizes[i]
        room = next((r for r in range(need, block_size) if by_room[r]), block_size)
        if by_room[room]:
            row = by_room[room].pop()
        else:
            row = []
            rows.append(row)
        row.append(i)
        by_room[room - need].append(row)
    return rows


Item = tuple[Tensor, Tensor]  # the ids and labels of a dialog, (n,) int64 each


def _stack(rows: Sequence[Sequence[Item]]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return inputs, targets and MiniGPT's options for rows of dialogs."""
    T = max(sum(len(ids) - 1 for ids, _ in row) for row in rows)
    x = torch.zeros(len(rows), T, dtype=torch.int64)
    y = torch.full((len(rows), T), -100)
    positions = torch.zeros(len(rows), T, dtype=torch.int64)
    owner = torch.full((len(rows), T), -1)  # which dialog of its row a token belongs to
    for b, row in enumerate(rows):
        at = 0
        for number, (ids, labels) in enumerate(row):
            place = slice(at, at + len(ids) - 1)
            x[b, place] = ids[:-1]
            y[b, place] = labels[1:]  # the one and only shift
            positions[b, place] = torch.arange(len(ids) - 1)
            owner[b, place] = number
            at = place.stop

    mask = owner[:, None, :, None] == owner[:, None, None, :]  # (B, 1, T, T)
    return x, y, {"mask": mask, "positions": positions}


class InstructionDataset:
    """Dialogs as rows of at most `block_size` tokens; `report` counts what became of each dialog.

    dialogs: lists of messages. Invalid ones are skipped and counted by reason. One that is too long loses
    whole turns at its end, up to the last answer that fits ("turns cut"); if no answer fits, it is skipped
    ("too long"). packed: several dialogs share a row, each sees only itself, at positions from 0;
    otherwise each has a row. `digest` is a checksum of the rows. Raises ValueError if no dialog is left.
    """

    def __init__(
        self,
        dialogs: Iterable[Dialog],
        chat: ChatTokenizer,
        block_size: int,
        packed: bool = True,
    ) -> None:
        self.block_size = block_size
        self.report: Counter[str] = Counter()
        self.items: list[Item] = []
        for dialog in dialogs:
            self.report["dialogs"] += 1
            if fault := fault_of(dialog):
                self.report[fault] += 1
            else:
                self._add(dialog, chat)
        if not self.items:
            raise ValueError(f"no dialog is left: {dict(self.report)}, block_size={block_size}.")

        sizes = [len(ids) - 1 for ids, _ in self.items]  # the last token is only a target
        self.rows = _pack(sizes, block_size) if packed else [[i] for i in range(len(sizes))]
        self.digest = _digest(self.rows, self.items)

    def _add(self, dialog: Dialog, chat: ChatTokenizer) -> None:
        """Keep a dialog, or as many of its turns as fit."""
        ids, labels = chat.render(dialog)
        after = 1 + len(chat.encode(chat.form.after))
        ends = [i + after for i, token in enumerate(ids) if token == chat.end]  # of each turn
        for n in range(len(dialog), 0, -1):
            may_end = n == len(dialog) or dialog[n - 1]["role"] == "assistant"
            stop = ends[n - 1]
            if may_end and stop <= self.block_size + 1:
                self.report.update({"kept": 1, "turns cut": len(dialog) - n})
                self.items.append((torch.tensor(ids[:stop]), torch.tensor(labels[:stop])))
                return
        self.report["too long"] += 1

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def batch(self, rows: Iterable[int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return (x, y, options) of some rows: inputs and shifted labels, (B, T) int64 each.

        T is the length of the longest of them; shorter ones are padded, with labels of -100. options are
        for MiniGPT.forward: mask (B, 1, T, T) bool, True within one dialog, and positions (B, T).
        """
        return _stack([[self.items[i] for i in self.rows[row]] for row in rows])


def _digest(rows: Sequence[Sequence[int]], items: Sequence[Item]) -> str:
    """Return a checksum of dialogs and of how they share rows."""
    found = hashlib.sha256(repr(rows).encode())
    for ids, labels in items:
        found.update(repr([ids.tolist(), labels.tolist()]).encode())
    return found.hexdigest()


class _Rows(Protocol):
    """Data in rows, such as an InstructionDataset."""

    def __len__(self) -> int: ...

    def batch(self, rows: Iterable[int], /) -> tuple[Tensor, Tensor, dict[str, Tensor]]: ...


class DialogReader:
    """Draw the rows of a data set, each once an epoch, in an order that changes: Trainer's `draw`.

    dataset: anything with a length and batch(rows). The seed decides the order; `position` counts the rows
    drawn, and is saved with the run.
    """

    def __init__(self, dataset: _Rows, seed: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed
        self.position = 0
        self._drawn: list[int] = []

    def __call__(
        self,
        tokens: object,
        batch_size: int,
        block_size: int,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the next batch of `batch_size` rows; the other arguments are not used."""
        self._drawn = deal(self.position, batch_size, len(self.dataset), self.seed)
        self.position += batch_size
        return self.dataset.batch(self._drawn)

    def describe(self) -> str:
        """Return which rows of the data set were drawn last, for error messages."""
        return f"rows {', '.join(map(str, self._drawn))} of the data set"

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data, for a checkpoint."""
        return {"position": self.position, "seed": self.seed} | self._data()

    def _data(self) -> dict[str, Any]:
        return {"rows": len(self.dataset), "digest": getattr(self.dataset, "digest", None)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place that state_dict returned. Raises ValueError for other data."""
        if {name: state[name] for name in self._data()} != self._data():
            raise ValueError(
                f"the run began with {state['rows']} rows, and these are {len(self.dataset)} others: go on "
                "with the same dialogs, or start anew."
            )
        self.position, self.seed = state["position"], state["seed"]


@torch.no_grad()
def evaluate_dialogs(
    model: nn.Module,
    dataset: _Rows,
    batch_size: int = 16,
    loss_of: Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor] | None = None,
) -> float:
    """Return the mean loss over all targets of a data set, nats per token, without dropout.

    loss_of(x, y, options): how to compute a batch's mean loss (default: the model's own).
    """
    device = next(model.parameters()).device
    nats = 0.0
    n = 0
    with evaluating(model):
        for at in range(0, len(dataset), batch_size):
            x, y, options = dataset.batch(range(at, min(at + batch_size, len(dataset))))
            if loss_of is None:
                moved = {name: value.to(device) for name, value in options.items()}
                loss = model(x.to(device), y.to(device), **moved)[1]
            else:
                loss = loss_of(x, y, options)
            count = int((y != -100).sum())
            nats += float(loss) * count
            n += count
    return nats / n


def train_sft(
    model: MiniGPT,
    config: TrainConfig,
    train: InstructionDataset,
    val: InstructionDataset | None = None,
    **options: Any,
) -> Trainer:
    """Train a model on the dialogs of an InstructionDataset, evaluate it on others, return the Trainer.

    config: as for Trainer; block_size is the data's. Loss is the mean over the targets of a step, however
    they are spread over its micro-batches. options: Trainer's folder, existing, optimizer, sample, on_step,
    change, skip. Raises ValueError for rows that the model cannot read, ids that it does not have, or a run
    in the folder whose model has other layers (LoRA or none, another rank).
    """
    for data in (train,) if val is None else (train, val):
        _refuse_misfit(model, data)

    def evaluate(run: Trainer) -> dict[str, float]:
        if val is None:
            return {}
        return {"val_loss": evaluate_dialogs(run.model, val, config.batch_size, run.loss)}

    reader = DialogReader(train, config.seed)
    run = Trainer(model, config, None, draw=reader, evaluate=evaluate, **options)
    run.train()
    return run


def _refuse_misfit(model: MiniGPT, data: InstructionDataset) -> None:
    """Raise ValueError for rows longer than the model reads, and for ids that it does not have."""
    if data.block_size > model.config.max_seq_len:
        raise ValueError(
            f"block_size={data.block_size} of the dialogs, but the model reads at most "
            f"{model.config.max_seq_len} tokens: make the data set with fewer."
        )
    largest = max(int(ids.max()) for ids, _ in data.items)
    if largest >= model.config.vocab_size:
        raise ValueError(
            f"the dialogs have the id {largest}, but the model has {model.config.vocab_size} ids: "
            "resize_embedding(model, chat.vocab_size) adds those of the control tokens."
        )


_SMOLTALK = ("HuggingFaceTB/smoltalk", "all")


def _stream(source: str) -> Iterable[dict[str, Any]]:
    """Yield the rows of a source."""
    if source not in ("smoltalk", _SMOLTALK[0]) or Path(source).exists():
        return stream_documents(source)
    try:
        return datasets.load_dataset(*_SMOLTALK, split="train", streaming=True)
    except OSError as error:
        raise ConnectionError(
            f"{_SMOLTALK[0]} cannot be reached ({error}). Offline, pass the path of a file or a folder of "
            "dialogs: rows with the column messages."
        ) from error


def load_dialogs(
    source: str | Path, limit: int | None = None
) -> tuple[list[list[dict[str, str]]], Counter[str]]:
    """Return the dialogs of a source, and how many rows it had, were kept, and had each fault, by name.

    source: smoltalk (HuggingFaceTB/smoltalk), a file or a folder of JSON lines or Parquet with the column
    messages, or another data set on the hub; limit: how many to keep at most. Raises ValueError without
    that column, for a row that cannot be read, or a limit below 1; FileNotFoundError, ConnectionError and
    others as stream_documents does.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: expected at least 1, or None for all.")

    dialogs: list[list[dict[str, str]]] = []
    report: Counter[str] = Counter()
    rows = iter(_stream(str(source)))
    while limit is None or len(dialogs) < limit:
        try:
            row = next(rows, None)
        except (ValueError, TypeError) as error:  # several libraries read, and each has its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{source}: after {report['rows']:,} rows something cannot be read ({reason}). Expected "
                "UTF-8, one JSON object a line, and in each row the same keys with the same types."
            ) from error
        if row is None:
            break
        if "messages" not in row:
            raise ValueError(f"{source} has no column 'messages', only {', '.join(row)}.")

        report["rows"] += 1
        fault = fault_of(row["messages"])
        report[fault or "kept"] += 1
        if not fault:
            dialogs.append(row["messages"])
    return dialogs, report
