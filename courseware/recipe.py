"""How the course's assistant is made: one set of values for chapter 14, for `make course` and for their bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from courseware import people
from minigpt_lib.bpe import BPETokenizer, train_bpe
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.pretraining import END
from minigpt_lib.training import TrainConfig


def _run(**values) -> TrainConfig:
    return TrainConfig(**{"eval_every": 50, "chars_per_token": 3.0, "progress": False, **values})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the assistant becomes, but for the seed.

    people: how many lives are read; dialogs ask about the first half of them. rounds: how often each fact is asked.
    reading, answering, preferring: the settings of pretraining, of fine-tuning and of DPO; prompts: how many questions
    the model answers to be told which of its answers is wanted; beta: DPO's.
    """

    people: int = 800
    rounds: int = 1
    wordy_share: float = 0.5
    vocab_size: int = 1024
    model: dict = field(default_factory=lambda: {"n_embd": 128, "n_layer": 4, "n_head": 4})
    reading: TrainConfig = field(
        default_factory=lambda: _run(steps=2200, batch_size=16, block_size=128, lr=3e-3)
    )
    answering: TrainConfig = field(
        default_factory=lambda: _run(
            steps=300, batch_size=16, block_size=256, lr=7e-4, warmup_steps=20
        )
    )
    prompts: int = 400
    beta: float = 0.1
    preferring: TrainConfig = field(
        default_factory=lambda: _run(
            steps=50,
            batch_size=32,
            block_size=160,
            lr=2e-5,
            warmup_steps=5,
            weight_decay=0.0,
            precision="float32",
        )
    )


FULL = Recipe()
QUICK = replace(
    FULL,
    people=40,
    reading=replace(FULL.reading, steps=400, warmup_steps=40),
    answering=replace(FULL.answering, steps=80, warmup_steps=8),
    prompts=40,
    preferring=replace(FULL.preferring, steps=15, warmup_steps=2),
)


@dataclass(frozen=True)
class Material:
    """What there is to read and to answer; `asked` and `held_out` are the two halves of `people`.

    dialogs: about the asked half, small talk among them. tokens (N,) int64: all that is read, END after each document.
    """

    recipe: Recipe
    people: Sequence[people.Person]
    asked: Sequence[people.Person]
    held_out: Sequence[people.Person]
    dialogs: list[list[dict]]
    tokenizer: BPETokenizer
    tokens: torch.Tensor

    @property
    def readings(self) -> float:
        """Return how often each life is read."""
        c = self.recipe.reading
        return c.steps * c.accumulate * c.batch_size * c.block_size / self._one_telling

    @property
    def _one_telling(self) -> float:
        return len(self.tokens) / TELLINGS


TELLINGS = 40  # different wordings of everything; a longer run meets them again


def material(recipe: Recipe = FULL, seed: int = 0) -> Material:
    """Return everything that a recipe reads and answers: people, dialogs, tokenizer and tokens, all from the seed."""
    everybody = people.make_people(recipe.people, seed)
    half = recipe.people // 2
    talk = people.small_talk()
    dialogs = people.dialogs(everybody[:half], seed, recipe.rounds, recipe.wordy_share, 3 * talk)
    said = (message["content"] for dialog in dialogs[:2000] + talk for message in dialog)
    sample = [*people.documents(everybody, 1, seed), *said]
    tokenizer = train_bpe(sample, recipe.vocab_size, special_tokens=[END])
    end = tokenizer.special_tokens[END]
    ids = []
    for document in people.documents(everybody, TELLINGS, seed + 1):
        ids += tokenizer.encode(document)
        ids.append(end)
    return Material(
        recipe, everybody, everybody[:half], everybody[half:], dialogs, tokenizer, torch.tensor(ids)
    )


def new_model(tokenizer: BPETokenizer, recipe: Recipe = FULL, seed: int = 0) -> MiniGPT:
    """Return the recipe's model with random weights from the seed: it can read 256 tokens."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": tokenizer.vocab_size, "max_seq_len": 256, **recipe.model}
    return MiniGPT(GPTConfig.preset("laptop", **sizes))
