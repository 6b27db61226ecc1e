"""Teach a text model to answer: dialogs from files, rows of packed dialogs, and their training.

Shapes: B rows in a batch, T tokens in a row.

Written by notebooks/14_sft.ipynb (chapter 14): edit it there.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import datasets
import torch
from torch import Tensor, nn

from minigpt_lib.chat import ChatTokenizer, Dialog, fault_of
from minigpt_lib.documents import stream_documents
from minigpt_lib.model import MiniGPT
from minigpt_lib.packing import deal
from minigpt_lib.training import TrainConfig, Trainer

__all__ = [
    "DialogReader",
    "evaluate_dialogs",
    "InstructionDataset",
    "load_dialogs",
    "resize_embedding",
    "train_sft",
]


def resize_embedding(model: MiniGPT, vocab_size: int) -> MiniGPT:
    """Return a copy of the model with `vocab_size` ids: old rows as they were, new ones the mean of them.

    A tied head stays tied. With the mean, a new token's logit is at first the mean of all of them
    (Hewitt, 2021, draws around it). Raises ValueError for fewer ids than the model has.
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


class InstructionDataset:
    """Dialogs as rows of at most `block_size` tokens; `report` says what became of each dialog.

    dialogs: lists of messages. One with a fault is left out and counted by its name. One that is too long
    loses whole turns at its end, up to the last answer that fits; "turns cut" counts them; if no answer
    fits, it is left out as "too long". packed: several dialogs share a row, each seeing only itself, its
    positions from 0; otherwise one dialog a row. `digest` tells these rows from others. Raises ValueError
    if no dialog is left.
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
        self.items: list[tuple[Tensor, Tensor]] = []  # the ids and labels of each dialog
        for dialog in dialogs:
            self.report["dialogs"] += 1
            if fault := fault_of(dialog):
                self.report[fault] += 1
            else:
                self._add(dialog, chat)
        if not self.items:
            raise ValueError(f"no dialog is left: {dict(self.report)}, block_size={block_size}.")
        self.rows = self._pack() if packed else [[i] for i in range(len(self.items))]
        told = repr([self.rows, *([ids.tolist(), labels.tolist()] for ids, labels in self.items)])
        self.digest = hashlib.sha256(told.encode()).hexdigest()

    def _add(self, dialog: Dialog, chat: ChatTokenizer) -> None:
        """Keep a dialog, or what fits of it; the last token is only a target and needs no room."""
        ids, labels = chat.render(dialog)
        after = 1 + len(chat.encode(chat.form.after))
        ends = [i + after for i, token in enumerate(ids) if token == chat.end]  # of each turn
        for n in range(len(dialog), 0, -1):
            may_end = n == len(dialog) or dialog[n - 1]["role"] == "assistant"
            if may_end and (stop := ends[n - 1]) <= self.block_size + 1:
                self.report.update({"kept": 1, "turns cut": len(dialog) - n})
                self.items.append((torch.tensor(ids[:stop]), torch.tensor(labels[:stop])))
                return
        self.report["too long"] += 1

    def _pack(self) -> list[list[int]]:
        """Return which dialogs share a row: the longest first, each where it leaves the least room."""
        rows, by_room = [], [[] for _ in range(self.block_size + 1)]
        for i in sorted(range(len(self.items)), key=lambda i: -len(self.items[i][0])):
            need = len(self.items[i][0]) - 1
            room = next((r for r in range(need, self.block_size) if by_room[r]), self.block_size)
            if by_room[room]:
                row = by_room[room].pop()
            else:
                row = []
                rows.append(row)
            row.append(i)
            by_room[room - need].append(row)
        return rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def batch(self, rows: Iterable[int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return (x, y, options) of some rows: inputs and shifted labels, (B, T) int64 each.

        T is the length of the longest row; what a shorter one lacks is padded, with labels of -100. options
        are for MiniGPT.forward: mask (B, 1, T, T) bool, True within one dialog, and positions (B, T).
        """
        chosen = [[self.items[i] for i in self.rows[row]] for row in rows]
        T = max(sum(len(ids) - 1 for ids, _ in row) for row in chosen)
        x = torch.zeros(len(chosen), T, dtype=torch.int64)
        y, positions, owner = torch.full_like(x, -100), x.clone(), torch.full_like(x, -1)
        for b, row in enumerate(chosen):
            at = 0
            for number, (ids, labels) in enumerate(row):
                place = b, slice(at, at := at + len(ids) - 1)
                x[place], y[place] = ids[:-1], labels[1:]  # the one and only shift
                positions[place], owner[place] = torch.arange(len(ids) - 1), number
        mask = owner[:, None, :, None] == owner[:, None, None, :]
        return x, y, {"mask": mask, "positions": positions}


class _Rows(Protocol):
    """Data in rows, as InstructionDataset has them."""

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
        self._rows: list[int] = []  # drawn last

    def __call__(
        self,
        tokens: object,
        batch_size: int,
        block_size: int,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the next batch of `batch_size` rows; the other arguments are not used."""
        self._rows = deal(self.position, batch_size, len(self.dataset), self.seed)
        self.position += batch_size
        return self.dataset.batch(self._rows)

    def describe(self) -> str:
        """Return which rows of the data set were drawn last, for error messages."""
        return f"rows {', '.join(map(str, self._rows))} of the data set"

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data, for a checkpoint."""
        return {"position": self.position, "seed": self.seed} | self._data()

    def _data(self) -> dict[str, Any]:
        return {"rows": len(self.dataset), "digest": getattr(self.dataset, "digest", None)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place that state_dict returned. ValueError for other data."""
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

    loss_of(x, y, options): how to compute a batch's mean loss; by the model itself unless told.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    nats, n = 0.0, 0
    for at in range(0, len(dataset), batch_size):
        x, y, options = dataset.batch(range(at, min(at + batch_size, len(dataset))))
        count = int((y != -100).sum())
        if loss_of is None:
            moved = {name: value.to(device) for name, value in options.items()}
            loss = model(x.to(device), y.to(device), **moved)[1]
        else:
            loss = loss_of(x, y, options)
        nats, n = nats + float(loss) * count, n + count
    model.train(training)
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

    def evaluate(run: Trainer) -> dict[str, float]:
        if val is None:
            return {}
        return {"val_loss": evaluate_dialogs(run.model, val, config.batch_size, run.loss)}

    reader = DialogReader(train, config.seed)
    run = Trainer(model, config, None, draw=reader, evaluate=evaluate, **options)
    run.train()
    return run


_SMOLTALK = ("HuggingFaceTB/smoltalk", "all")


def _rows(source: str) -> Iterable[dict[str, Any]]:
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
    others as pretraining's stream_documents.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: expected at least 1, or None for all.")
    dialogs: list[list[dict[str, str]]] = []
    report: Counter[str] = Counter()
    rows = iter(_rows(str(source)))
    while True:
        try:
            row = next(rows, None)
        except (ValueError, TypeError) as error:  # of many kinds, from several libraries
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{source}: behind {report['rows']:,} rows something cannot be read ({reason}). Expected "
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
        if limit is not None and len(dialogs) >= limit:
            break
    return dialogs, report
