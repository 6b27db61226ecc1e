"""Teach a text model to answer: dialogs as tokens, loss on the assistant's words alone, packing, LoRA.

Shapes: B rows in a batch, T tokens in a row. A dialog is a list of messages {"role": "system", "user" or
"assistant", "content": str}. Labels stand under their own token, -100 where nothing is learned; the shift
by one happens once, in InstructionDataset.batch.

Written by notebooks/14_sft.ipynb (chapter 14): edit it there.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import datasets
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.documents import stream_documents
from minigpt_lib.generation import TextGenerator
from minigpt_lib.model import MiniGPT
from minigpt_lib.packing import deal
from minigpt_lib.training import TrainConfig, Trainer

__all__ = [
    "FORMATS",
    "ROLES",
    "add_lora",
    "answer_ids",
    "ChatFormat",
    "ChatTokenizer",
    "Dialog",
    "DialogReader",
    "evaluate_dialogs",
    "fault_of",
    "format_chatml",
    "format_llama3",
    "InstructionDataset",
    "load_dialogs",
    "LoRALinear",
    "merge_lora",
    "reply",
    "resize_embedding",
    "train_sft",
]

ROLES = ("system", "user", "assistant")
Dialog = Sequence[dict[str, str]]  # messages, each with a role and content


@dataclass(frozen=True)
class ChatFormat:
    """How a dialog is written: control tokens, which are never text, around a role's name and its words."""

    begin: str | None  # once, before the first turn
    open: str  # before the role's name
    close: str | None  # after it
    gap: str  # text between the role's name and the words
    end: str  # after the words: the turn is over
    after: str  # text after that

    @property
    def controls(self) -> tuple[str, ...]:
        """Return the names of the control tokens, in the order in which a tokenizer gets them."""
        return tuple(name for name in (self.begin, self.open, self.close, self.end) if name)


FORMATS = {
    "chatml": ChatFormat(None, "<|im_start|>", None, "\n", "<|im_end|>", "\n"),
    "llama3": ChatFormat(
        "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "\n\n", "<|eot_id|>", ""
    ),
}


def fault_of(dialog: object) -> str | None:
    """Return what is wrong with a dialog, or None.

    A system message comes first if there is one; then user and assistant take turns, the user first; all
    say something; the assistant speaks at least once.
    """
    if not isinstance(dialog, list | tuple) or not dialog:
        return "not a list of messages"
    last = None
    for i, message in enumerate(dialog):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return "a message without role and content"
        role, content = message["role"], message["content"]
        if role not in ROLES:
            return "an unknown role"
        if not isinstance(content, str):
            return "a content that is no text"
        if not content.strip():
            return "an empty message"
        if any("\ud800" <= c <= "\udfff" for c in content):
            return "a text that is no Unicode"
        if role == "system" and i:
            return "a system message that is not the first"
        if role == last:
            return f"two turns of the {role} in a row"
        if role == "assistant" and last in (None, "system"):
            return "the assistant speaks first"
        last = role
    return None if any(m["role"] == "assistant" for m in dialog) else "no turn of the assistant"


def _refuse_fault(messages: Dialog, add_generation_prompt: bool) -> None:
    """Raise ValueError for a dialog with a fault; where an answer is to follow, with it."""
    if isinstance(messages, list | tuple) and messages and add_generation_prompt:
        messages = [*messages, {"role": "assistant", "content": "..."}]
    if fault := fault_of(messages):
        raise ValueError(f"this dialog cannot be written: {fault}.")


def _pieces(
    messages: Dialog, form: ChatFormat, add_generation_prompt: bool
) -> Iterator[tuple[str, bool, bool]]:
    """Yield a dialog as (text, is it a control token, is it learned)."""
    _refuse_fault(messages, add_generation_prompt)
    if form.begin:
        yield form.begin, True, False
    turns: list[tuple[str, str | None]] = [(m["role"], m["content"]) for m in messages]
    if add_generation_prompt:
        turns.append(("assistant", None))
    for role, content in turns:
        yield form.open, True, False
        if form.close:
            yield role, False, False
            yield form.close, True, False
            yield form.gap, False, False
        else:
            yield role + form.gap, False, False
        if content is not None:
            learned = role == "assistant"
            yield content, False, learned
            yield form.end, True, learned
            yield form.after, False, False


def _written(messages: Dialog, form: ChatFormat, add_generation_prompt: bool) -> str:
    return "".join(text for text, *_ in _pieces(messages, form, add_generation_prompt))


def format_chatml(messages: Dialog, add_generation_prompt: bool = False) -> str:
    """Return a dialog as ChatML writes it, the format of Qwen2.5 and others; ValueError names its fault.

    add_generation_prompt: end with the header of an answer, for the model to go on.
    """
    return _written(messages, FORMATS["chatml"], add_generation_prompt)


def format_llama3(messages: Dialog, add_generation_prompt: bool = False) -> str:
    """Return a dialog as Llama 3 writes it; its template strips blanks around the words, this does not.

    add_generation_prompt and ValueError: as in format_chatml.
    """
    return _written(messages, FORMATS["llama3"], add_generation_prompt)


class ChatTokenizer:
    """Dialogs as tokens, and which of them are learned: the assistant's words and the end of its turn.

    tokenizer: a BPETokenizer; the control tokens that it lacks get the next free ids. What a message says
    is encoded as text, so a control token's name in it stays text. `end` is the id that ends a turn,
    `controls` those of all control tokens. Raises ValueError for a format that is not in FORMATS.
    """

    def __init__(self, tokenizer: BPETokenizer, format: str = "chatml") -> None:
        if format not in FORMATS:
            raise ValueError(f"format {format!r}: expected one of {', '.join(FORMATS)}.")
        self.format, self.form = format, FORMATS[format]
        names, free = dict(tokenizer.special_tokens), tokenizer.vocab_size
        for name in self.form.controls:
            if name not in names:
                names[name], free = free, free + 1
        self.base = BPETokenizer(tokenizer.ranks, names, tokenizer.pattern)
        self.end = names[self.form.end]
        self.controls = frozenset(names[name] for name in self.form.controls)

    @property
    def vocab_size(self) -> int:
        """Return how many ids a model needs."""
        return self.base.vocab_size

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, no control token among them."""
        return self.base.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, control tokens by their names."""
        return self.base.decode(ids)

    def render(
        self, messages: Dialog, add_generation_prompt: bool = False
    ) -> tuple[list[int], list[int]]:
        """Return (ids, labels) of a dialog, equally long; a label is its id, or -100 if it is not learned.

        add_generation_prompt: end with the header of an answer, for the model to go on. Raises ValueError
        for a dialog with a fault, and names it.
        """
        ids, labels = [], []
        for text, control, learned in _pieces(messages, self.form, add_generation_prompt):
            piece = [self.base.special_tokens[text]] if control else self.base.encode(text)
            ids += piece
            labels += piece if learned else [-100] * len(piece)
        return ids, labels

    def prompt(self, question: str, system: str | None = None) -> list[int]:
        """Return the ids of a question up to where the answer begins."""
        messages = [{"role": "user", "content": question}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return self.render(messages, add_generation_prompt=True)[0]


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


def answer_ids(
    model: MiniGPT,
    chat: ChatTokenizer,
    dialogs: Iterable[Dialog],
    max_new_tokens: int = 64,
    strategy: str = "greedy",
    **options: Any,
) -> list[list[int]]:
    """Return the ids that the model answers to each dialog, the special token that ended them included.

    Without one, it was cut off after max_new_tokens. options: those of GenerationConfig but stop; the same
    seed gives the same answers. Raises ValueError for a dialog with a fault, or one that is too long.
    """
    prompts = [chat.render(dialog, add_generation_prompt=True)[0] for dialog in dialogs]
    longest, room = max(map(len, prompts), default=0), model.config.max_seq_len
    if longest > room:
        raise ValueError(
            f"a dialog of {longest} tokens, but the model reads {room}: leave turns out."
        )
    stop = frozenset(chat.base.special_tokens.values())
    writer, answers = TextGenerator(model, chat), [[] for _ in prompts]
    seed, done = options.pop("seed", None), 0
    for length in sorted(set(map(len, prompts))):  # those of one length together
        rows = [b for b, prompt in enumerate(prompts) if len(prompt) == length]
        options["seed"] = None if seed is None else seed + done
        found = writer.generate_ids(
            torch.tensor([prompts[b] for b in rows]).to(model.embedding.weight.device),
            max_new_tokens, strategy, stop=tuple(stop), **options,
        )[:, length:].tolist()  # fmt: skip
        for b, ids in zip(rows, found):
            ends = [i for i, token in enumerate(ids) if token in stop]
            answers[b] = ids[: ends[0] + 1] if ends else ids
        done += len(rows)
    return answers


def reply(
    model: MiniGPT,
    chat: ChatTokenizer,
    messages: Dialog,
    max_new_tokens: int = 64,
    strategy: str = "greedy",
    **options: Any,
) -> str:
    """Return the assistant's next turn as text, without special tokens: str. As answer_ids otherwise."""
    (ids,) = answer_ids(model, chat, [messages], max_new_tokens, strategy, **options)
    special = chat.base.special_tokens.values()
    return chat.decode([token for token in ids if token not in special])


class LoRALinear(nn.Module):
    """A frozen linear layer and a learned detour of low rank: W x + alpha / rank * B A x.

    Hu et al. (2021). A starts random and B at 0, so at first nothing changes. Raises ValueError for a rank
    that is no whole number from 1 to the smaller side of W, or an alpha that is not above 0.
    """

    def __init__(self, linear: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        out_features, in_features = linear.weight.shape
        if not isinstance(rank, int) or not 1 <= rank <= min(linear.weight.shape):
            raise ValueError(
                f"rank={rank}: expected 1 to {min(linear.weight.shape)}, a whole number."
            )
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha={alpha}: expected a number above 0.")
        self.linear, self.scale = linear, alpha / rank
        self.A = nn.Parameter(linear.weight.new_empty(rank, in_features))
        self.B = nn.Parameter(linear.weight.new_zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear starts
        linear.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return self.linear(x) + self.scale * F.linear(F.linear(x, self.A), self.B)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return the linear layer with the detour added to its weights, free to learn again; B is 0 then."""
        self.linear.weight += self.scale * self.B @ self.A
        self.B.zero_()
        return self.linear.requires_grad_(True)


def add_lora(model: MiniGPT, rank: int = 8, alpha: float = 16.0, embedding: bool = True) -> MiniGPT:
    """Freeze a model, put a LoRALinear in place of every linear layer of its blocks, and return it.

    embedding: train the token table as well, and a head that is not tied to it, as the rows of new control
    tokens must be learned. Call merge_lora before save_pretrained. Raises ValueError if the model has
    detours already, or as LoRALinear does.
    """
    if any(isinstance(part, LoRALinear) for part in model.modules()):
        raise ValueError("the model has LoRA layers already: merge_lora(model) first.")
    layers = [
        (part, name, child)
        for part in model.blocks.modules()
        for name, child in part.named_children()
        if isinstance(child, nn.Linear)
    ]
    detours = [LoRALinear(child, rank, alpha) for *_, child in layers]
    model.requires_grad_(False)
    for table in (model.embedding, model.head):
        if table is not None:
            table.requires_grad_(embedding)
    for (part, name, _), detour in zip(layers, detours):
        setattr(part, name, detour)
    return model


def merge_lora(model: MiniGPT) -> MiniGPT:
    """Put plain linear layers back, with the detours in their weights; return the model, all of it trainable."""
    for part in list(model.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, LoRALinear):
                setattr(part, name, child.merge())
    return model.requires_grad_(True)
