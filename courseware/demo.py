"""A trained model for the chapters that need one: the reader's own of chapter 10, or a small one trained now."""

from __future__ import annotations

import os

import torch

from courseware import corpus, paths

OWN = paths.ROOT / "data" / "models" / "10_training" / "best"
QUICK = paths.ROOT / "data" / "models" / "quick"


def shakespeare_model(steps: int = 300):
    """Return (model, tokenizer): a MiniGPT that has read Shakespeare, in evaluation mode.

    The model that chapter 10 trained and kept, if it is there; else one of the same kind after `steps` steps (half a
    minute on two cores), which is kept for the next time. Prints which of the two it is.
    """
    from minigpt_lib.char_tokenizer import CharTokenizer
    from minigpt_lib.model import MiniGPT

    text = corpus.shakespeare()
    tokenizer = CharTokenizer.from_text(text)
    for folder, whose in ((OWN, "the model of chapter 10"), (QUICK, "a quick model")):
        if (folder / "model.safetensors").is_file():
            print(f"{whose}, from {folder.relative_to(paths.ROOT)}")
            return MiniGPT.from_pretrained(folder), tokenizer
    print(f"chapter 10 has not been run here: training a quick model for {steps} steps")
    return _train(text, tokenizer, steps), tokenizer


def _train(text: str, tokenizer, steps: int):
    """Train a small model with chapter 10's trainer and keep it."""
    from minigpt_lib.data import train_val_split
    from minigpt_lib.model import GPTConfig, MiniGPT
    from minigpt_lib.training import TrainConfig, Trainer

    tokens, _ = train_val_split(torch.tensor(tokenizer.encode(text)))
    config = TrainConfig(
        steps=steps, batch_size=32, warmup_steps=steps // 10, eval_every=0, progress=False
    )
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):  # the chapter's own random numbers stay as they were
        torch.manual_seed(0)
        model = MiniGPT(GPTConfig.preset("laptop", vocab_size=tokenizer.vocab_size))
        try:
            torch.set_num_threads(min(4, os.cpu_count() or 1))
            Trainer(model, config, tokens).train()
        finally:
            torch.set_num_threads(threads)
    model.cpu().save_pretrained(QUICK)
    return model.eval()


def assistant(*names: str):
    """Return (model, chat, stuff): a MiniGPT that answers in its role, its ChatTokenizer, and what it was made of.

    names: folders of data/models, the best first ("14_sft" unless told): the first that a chapter has left there is
    taken, then that of `make course`; else a small one is trained now (about a minute on two cores) and kept. Prints
    which of them it is. stuff: the recipe's Material, so stuff.held_out are the people who were never asked about.
    """
    from courseware.recipe import FULL, QUICK, material
    from minigpt_lib.bpe import BPETokenizer
    from minigpt_lib.model import MiniGPT
    from minigpt_lib.sft import ChatTokenizer

    models = paths.ROOT / "data" / "models"
    chapters = [
        (models / name, FULL, f"the model of chapter {name[:2]}") for name in names or ("14_sft",)
    ]
    places = [
        *chapters,
        (models / "course" / "assistant", FULL, "the model of `make course`"),
        (models / "quick_assistant" / "assistant", QUICK, "a quick model"),
    ]
    for folder, recipe, whose in places:
        if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file():
            print(f"{whose}, from {folder.relative_to(paths.ROOT)}")
            chat = ChatTokenizer(BPETokenizer.load(folder / "tokenizer.json"))
            return MiniGPT.from_pretrained(folder), chat, material(recipe)
    print("chapter 14 has not been run here: training a small assistant")
    return _train_assistant(models / "quick_assistant", material(QUICK))


def _train_assistant(folder, stuff):
    """Make the quick assistant and keep it."""
    from courseware import course
    from minigpt_lib.sft import ChatTokenizer

    chat, threads = ChatTokenizer(stuff.tokenizer), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.set_num_threads(min(4, os.cpu_count() or 1))
            model = course.pretrain(stuff, folder / "reading")
            model = course.finetune(model, chat, stuff, folder / "answering")
        finally:
            torch.set_num_threads(threads)
    course.save_assistant(folder / "assistant", model, chat)
    return model.eval(), chat, stuff
