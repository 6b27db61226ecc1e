"""How the course's assistant is made: one set of values for chapter 14, for `make course` and for their bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from courseware.material import people
from courseware.material.people import Dialog, Person
from minigpt_lib.bpe import BPETokenizer, train_bpe
from minigpt_lib.documents import END
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig

TELLINGS = 40  # different wordings of everything that is read; a longer run sees them again
CONTEXT = 256  # tokens that the model can read
SMALL_TALK_COPIES = 3  # how often each everyday dialog occurs among the others
TOKENIZER_DIALOGS = 2000  # dialogs whose messages the tokenizer is trained on


def _run(**values: Any) -> TrainConfig:
    settings: dict[str, Any] = {"eval_every": 50, "chars_per_token": 3.0, "progress": False}
    return TrainConfig(**(settings | values))


def _reading() -> TrainConfig:
    return _run(steps=2200, batch_size=16, block_size=128, lr=3e-3)


def _answering() -> TrainConfig:
    return _run(steps=300, batch_size=16, block_size=256, lr=7e-4, warmup_steps=20)


def _preferring() -> TrainConfig:
    return _run(
        steps=50,
        batch_size=32,
        block_size=160,
        lr=2e-5,
        warmup_steps=5,
        weight_decay=0.0,
        precision="float32",
    )


def _showing() -> TrainConfig:
    return _run(
        steps=20,
        batch_size=16,
        block_size=64,
        lr=3e-4,
        warmup_steps=2,
        weight_decay=0.0,
        precision="float32",
    )


def _rewarding() -> TrainConfig:
    return _run(
        steps=20,
        batch_size=32,
        lr=1e-4,
        warmup_steps=0,
        min_lr_ratio=1.0,
        weight_decay=0.0,
        precision="float32",
    )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the assistant becomes, except the seed.

    people: how many lives are read; dialogs ask about the first half of them. rounds: how often each fact is asked.
    wordy_share: the share of wordy answers in the dialogs. reading, answering, preferring: the settings of
    pretraining, fine-tuning and DPO. prompts: how many questions the model answers before it is told which answers are
    wanted. beta: DPO's. two_steps, shown: how many two-step questions are answered before the rewards, and how many of
    these answers show their step. showing, rewarding: the settings of this short fine-tuning and of the rewards.
    """

    people: int = 800
    rounds: int = 1
    wordy_share: float = 0.5
    vocab_size: int = 1024
    model: dict[str, int] = field(
        default_factory=lambda: {"n_embd": 128, "n_layer": 4, "n_head": 4}
    )
    reading: TrainConfig = field(default_factory=_reading)
    answering: TrainConfig = field(default_factory=_answering)
    prompts: int = 400
    beta: float = 0.1
    preferring: TrainConfig = field(default_factory=_preferring)
    two_steps: int = 100
    shown: int = 20
    showing: TrainConfig = field(default_factory=_showing)
    rewarding: TrainConfig = field(default_factory=_rewarding)


FULL = Recipe()
QUICK = replace(
    FULL,
    people=40,
    reading=replace(FULL.reading, steps=400, warmup_steps=40),
    answering=replace(FULL.answering, steps=80, warmup_steps=8),
    prompts=40,
    preferring=replace(FULL.preferring, steps=15, warmup_steps=2),
    two_steps=20,
    shown=4,
    rewarding=replace(FULL.rewarding, steps=3, batch_size=8),
)


@dataclass(frozen=True)
class Material:
    """Everything there is to read and to answer; `asked` and `held_out` are the two halves of `people`.

    dialogs: about the asked half, mixed with small talk. tokens (N,) int64: all that is read, with END after each
    document.
    """

    recipe: Recipe
    people: Sequence[Person]
    asked: Sequence[Person]
    held_out: Sequence[Person]
    dialogs: list[Dialog]
    tokenizer: BPETokenizer
    tokens: torch.Tensor

    @property
    def readings(self) -> float:
        """How often each life is read in the recipe's run."""
        run = self.recipe.reading
        tokens_read = run.steps * run.accumulate * run.batch_size * run.block_size
        return tokens_read / (len(self.tokens) / TELLINGS)


def material(recipe: Recipe = FULL, seed: int = 0) -> Material:
    """Return everything that a recipe reads and answers: people, dialogs, tokenizer and tokens, all from the seed."""
    everybody = people.make_people(recipe.people, seed)
    half = recipe.people // 2
    asked, held_out = everybody[:half], everybody[half:]

    talk = people.small_talk()
    dialogs = people.dialogs(
        asked, seed, recipe.rounds, recipe.wordy_share, SMALL_TALK_COPIES * talk
    )
    tokenizer = _tokenizer(recipe, everybody, dialogs[:TOKENIZER_DIALOGS] + talk, seed)
    tokens = _tokens(tokenizer, everybody, seed + 1)
    return Material(recipe, everybody, asked, held_out, dialogs, tokenizer, tokens)


def _tokenizer(
    recipe: Recipe,
    everybody: Sequence[Person],
    dialogs: Sequence[Dialog],
    seed: int,
) -> BPETokenizer:
    """Train a tokenizer on one telling of everything and on the messages of these dialogs."""
    told = list(people.documents(everybody, 1, seed))
    said = [message["content"] for dialog in dialogs for message in dialog]
    return train_bpe(told + said, recipe.vocab_size, special_tokens=[END])


def _tokens(tokenizer: BPETokenizer, everybody: Sequence[Person], seed: int) -> torch.Tensor:
    """Return all that is read as one stream of ids (N,), with END after each document."""
    end = tokenizer.special_tokens[END]
    ids: list[int] = []
    for document in people.documents(everybody, TELLINGS, seed):
        ids += tokenizer.encode(document)
        ids.append(end)
    return torch.tensor(ids)


def new_model(tokenizer: BPETokenizer, recipe: Recipe = FULL, seed: int = 0) -> MiniGPT:
    """Return the recipe's model with random weights from the seed; it can read 256 tokens."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": tokenizer.vocab_size, "max_seq_len": CONTEXT, **recipe.model}
    return MiniGPT(GPTConfig.preset("laptop", **sizes))
