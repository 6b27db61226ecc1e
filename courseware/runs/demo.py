"""A trained model for the chapters that need one: the learner's own if there is one, or one trained now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from courseware import paths
from courseware.material import corpus

if TYPE_CHECKING:
    from courseware.runs.recipe import Material
    from minigpt_lib.char_tokenizer import CharTokenizer
    from minigpt_lib.chat import ChatTokenizer
    from minigpt_lib.model import MiniGPT

MODELS = paths.ROOT / "data" / "models"
OWN = MODELS / "10_training" / "best"
QUICK = MODELS / "quick"
MAX_THREADS = 4  # models this small do not need more


@contextlib.contextmanager
def _training_conditions() -> Iterator[None]:
    """Use several threads, and leave the chapter's own random numbers as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.set_num_threads(min(MAX_THREADS, os.cpu_count() or 1))
            yield
        finally:
            torch.set_num_threads(threads)


def _announce(folder: Path, whose: str) -> None:
    print(f"{whose}, from {folder.relative_to(paths.ROOT)}")


def shakespeare_model(steps: int = 300) -> tuple[MiniGPT, CharTokenizer]:
    """Return (model, tokenizer): a MiniGPT that has read Shakespeare, in evaluation mode.

    It is the model that chapter 10 trained and stored, if there is one. Otherwise a small one is trained now for
    `steps` steps (half a minute on two cores) and stored for the next call. Prints which of the two it is.
    """
    from minigpt_lib.char_tokenizer import CharTokenizer
    from minigpt_lib.model import MiniGPT

    text = corpus.shakespeare()
    tokenizer = CharTokenizer.from_text(text)
    for folder, whose in ((OWN, "the model of chapter 10"), (QUICK, "a quick model")):
        if (folder / "model.safetensors").is_file():
            _announce(folder, whose)
            return MiniGPT.from_pretrained(folder), tokenizer

    print(f"chapter 10 has not been run here: training a quick model for {steps} steps")
    return _train(text, tokenizer, steps), tokenizer


def _train(text: str, tokenizer: CharTokenizer, steps: int) -> MiniGPT:
    """Train a small model with chapter 10's trainer, and store it."""
    from minigpt_lib.data import train_val_split
    from minigpt_lib.model import GPTConfig, MiniGPT
    from minigpt_lib.training import TrainConfig, Trainer

    tokens, _ = train_val_split(torch.tensor(tokenizer.encode(text)))
    config = TrainConfig(
        steps=steps, batch_size=32, warmup_steps=steps // 10, eval_every=0, progress=False
    )
    with _training_conditions():
        torch.manual_seed(0)
        model = MiniGPT(GPTConfig.preset("laptop", vocab_size=tokenizer.vocab_size))
        Trainer(model, config, tokens).train()

    model.cpu().save_pretrained(QUICK)
    return model.eval()


def assistant(*names: str) -> tuple[MiniGPT, ChatTokenizer, Material]:
    """Return (model, chat, stuff): a MiniGPT that answers as an assistant, its ChatTokenizer, and what it was made of.

    names: folders of data/models, the best first; by default chapter 14's assistant and, from `make course`, the one
    that has not seen any preferences. The first one that is there is used. If none is, `make course` goes its first
    part now (about six minutes on two cores) and stores it, so this happens once. Prints which of them it is.
    stuff.held_out are the people about whom no dialog asked. Example questions about some of them are written beside
    the model, if there are none yet.
    """
    from courseware.runs import course, examples
    from courseware.runs import recipe as recipes
    from minigpt_lib.bpe import BPETokenizer
    from minigpt_lib.chat import ChatTokenizer
    from minigpt_lib.model import MiniGPT

    for name in names or ("14_sft", "course/before"):
        folder = MODELS / name
        if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file():
            of_the_course = name.startswith("course/")
            whose = (
                "the model of `make course`"
                if of_the_course
                else f"the model of chapter {name[:2]}"
            )
            _announce(folder, whose)
            chat = ChatTokenizer(BPETokenizer.load(folder / "tokenizer.json"))
            model = MiniGPT.from_pretrained(folder)
            stuff = recipes.material(recipes.FULL)
            if not (folder / examples.FILE).is_file():
                examples.write_examples(folder, model, chat, stuff.held_out)
            return model, chat, stuff

    print(
        "chapter 14 has not been run here: training its assistant now, once. That takes about six minutes on two "
        "cores. If you stop it, run this cell again, and it goes on."
    )
    with _training_conditions():
        model, chat, stuff = course.learn_to_answer(recipes.FULL, MODELS / "course")
    return model.eval(), chat, stuff
