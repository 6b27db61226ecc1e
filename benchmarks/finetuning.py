"""Fine-tune chapter 14's model on other data and with another loss, one change at a time, and see what it answers.

    python benchmarks/finetuning.py [--only NAME ...] [--quick] [--threads N] [--out FILE]

Every variant begins with the same model, which has read the recipe's texts and seen no dialog. "the recipe" is chapter
14's own fine-tuning. The others change one thing: "everything learned" puts the loss on every token, the user's among
them; "bare words" teaches "Dunmere." where the recipe teaches "Ada Lang was born in Dunmere."; "500 strangers" has five
hundred dialogs about people of whom nothing was read, instead of one hundred. One seed each.

Every variant is added to FILE (benchmarks/results/finetuning.json) as soon as it is done. On two cores it takes about a
quarter of an hour. --quick reads and trains for a tenth of the steps, to try it.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import RESULTS, earlier_runs, hardware, hardware_line, save, table

from courseware import paths
from courseware.material import people
from courseware.runs.recipe import FULL, Material, material, new_model
from minigpt_lib.chat import ChatTokenizer, answer_ids
from minigpt_lib.generation import TextGenerator
from minigpt_lib.model import MiniGPT
from minigpt_lib.sft import InstructionDataset, resize_embedding, train_sft
from minigpt_lib.training import TrainConfig, Trainer

OUT = RESULTS / "finetuning.json"
RECIPE, EVERYTHING, BARE, STRANGERS = (
    "the recipe",
    "everything learned",
    "bare words",
    "500 strangers",
)
VARIANTS = (RECIPE, EVERYTHING, BARE, STRANGERS)
QUESTIONS = 200  # about each group of people
BARE_WORDS = dict.fromkeys(people.FACTS, "{v}.")
MORE_STRANGERS = 400  # beside the hundred that the recipe asks about


# --- what the variants change ---


def more_strangers(stuff: Material) -> list[people.Dialog]:
    """Return dialogs about people of whom nothing was read, a question each: the answer is that nobody knows."""
    chance = random.Random(0)
    read = len(stuff.people)
    unread = people.make_people(read + MORE_STRANGERS)[read:]
    made = []
    for person in unread:
        question = people.ask(person, chance.choice(people.FACTS), chance)
        made.append(
            [
                {"role": "user", "content": question},
                {"role": "assistant", "content": people.UNKNOWN},
            ]
        )
    return made


def dialogs_of(variant: str, stuff: Material) -> list[people.Dialog]:
    """Return the dialogs that a variant learns from."""
    recipe = stuff.recipe
    talk = 3 * people.small_talk()
    if variant == BARE:
        with mock.patch.dict(people.SAID, BARE_WORDS):
            return people.dialogs(stuff.asked, 0, recipe.rounds, recipe.wordy_share, talk)
    if variant == STRANGERS:
        dialogs = stuff.dialogs + more_strangers(stuff)
        random.Random(0).shuffle(dialogs)
        return dialogs
    return stuff.dialogs


def data_of(variant: str, stuff: Material, chat: ChatTokenizer) -> InstructionDataset:
    """Return the rows that a variant trains on."""
    data = InstructionDataset(dialogs_of(variant, stuff), chat, stuff.recipe.answering.block_size)
    if variant == EVERYTHING:
        data.items = [(ids, ids) for ids, _ in data.items]
    return data


# --- what is measured ---


def answers(model: MiniGPT, chat: ChatTokenizer, questions: Sequence[str]) -> list[str]:
    """Return what the model answers to each question, greedily, as text."""
    dialogs = [[{"role": "user", "content": question}] for question in questions]
    found = answer_ids(model, chat, dialogs)
    return [chat.decode([i for i in ids if i not in chat.controls]) for ids in found]


def own_words(
    model: MiniGPT, chat: ChatTokenizer, group: Sequence[people.Person], bare: bool
) -> float:
    """Return the share of people about whom the model says the right fact, as it was taught to say facts."""
    chance = random.Random(5)
    asked = [(person, chance.choice(people.FACTS)) for person in group]
    said = answers(model, chat, [people.ask(*pair, chance) for pair in asked])
    with mock.patch.dict(people.SAID, BARE_WORDS if bare else {}):
        wanted = [people.right_answer(*pair) for pair in asked]
    return sum(right in text for right, text in zip(wanted, said)) / len(asked)


def refusals(model: MiniGPT, chat: ChatTokenizer) -> float:
    """Return the share of new strangers about whom the model says that it does not know."""
    chance = random.Random(2)
    strangers = people.make_strangers(people.STRANGERS)[people.ASKED_STRANGERS :]
    said = answers(model, chat, [people.ask(person, "city", chance) for person in strangers])
    return sum(people.UNKNOWN in text for text in said) / len(said)


def asks_by_itself(
    model: MiniGPT, chat: ChatTokenizer, group: Sequence[people.Person]
) -> tuple[float, str]:
    """Return how often a model that may go on after its own turn opens a turn of the user, and one such text."""
    chance = random.Random(3)
    writer = TextGenerator(model, chat)
    header = chat.prompt("a")[:2]  # the control token and "user"
    opened, shown = 0, ""
    for person in group:
        fact = chance.choice(people.FACTS)
        dialog = [
            {"role": "user", "content": people.ask(person, fact, chance)},
            {"role": "assistant", "content": people.right_answer(person, fact)},
        ]
        ids = torch.tensor([chat.render(dialog)[0]])
        more = writer.generate_ids(ids, 24, "greedy")[0, ids.shape[1] :].tolist()
        if more[: len(header)] == header:
            opened += 1
            shown = shown or chat.decode(more)
    return opened / len(group), shown


def measure(
    variant: str, model: MiniGPT, chat: ChatTokenizer, stuff: Material
) -> dict[str, float | str]:
    """Return what the file stores about a trained variant."""
    bare = variant == BARE
    share, text = asks_by_itself(model, chat, stuff.held_out[:50])
    return {
        "asked": own_words(model, chat, stuff.asked[:QUESTIONS], bare),
        "held_out": own_words(model, chat, stuff.held_out[:QUESTIONS], bare),
        "strangers_refused": refusals(model, chat),
        "asks_by_itself": share,
        "it_goes_on": text,
    }


# --- the runs ---


def shorter(config: TrainConfig, quick: bool) -> TrainConfig:
    """Return the settings of a run that is evaluated at its end only, or of a tenth of it."""
    steps = config.steps // 10 if quick else config.steps
    warmup = min(config.warmup_steps, steps // 10)
    return dataclasses.replace(config, steps=steps, warmup_steps=warmup, eval_every=steps)


def reader(stuff: Material, quick: bool) -> MiniGPT:
    """Return the model that has read: chapter 14's if it is stored here, otherwise one that reads now."""
    model = new_model(stuff.tokenizer)
    stored = paths.ROOT / "data" / "models" / "14_reading"
    if stored.is_dir() and not quick:
        config = dataclasses.replace(stuff.recipe.reading, save_every=500)
        Trainer(model, config, stuff.tokens, folder=stored, existing="resume").train()
    else:
        Trainer(model, shorter(stuff.recipe.reading, quick), stuff.tokens).train()
    return model


def run(
    variant: str, model: MiniGPT, chat: ChatTokenizer, stuff: Material, quick: bool
) -> dict[str, Any]:
    """Train a variant, and return what the file stores about it."""
    began = time.perf_counter()
    torch.manual_seed(0)
    tuned = resize_embedding(model, chat.vocab_size)
    data = data_of(variant, stuff, chat)
    train_sft(tuned, shorter(stuff.recipe.answering, quick), data)
    found = measure(variant, tuned, chat, stuff)
    return {"variant": variant, **found, "seconds": round(time.perf_counter() - began)}


def results_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of all variants."""
    columns = {
        "asked about": "asked",
        "held out": "held_out",
        "strangers: does not know": "strangers_refused",
        "goes on as the user": "asks_by_itself",
    }
    rows = [[r["variant"], *(f"{r[key]:.0%}" for key in columns.values())] for r in runs]
    return table("fine-tuned on", ["variant", *columns], rows)


def main() -> None:
    """Train the variants that are missing in the file of results, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    try:
        runs: list[dict[str, Any]] = earlier_runs(options.out, options.quick) or []
    except ValueError as error:
        parser.error(str(error))

    missing = [name for name in options.only if name not in [r["variant"] for r in runs]]
    if missing:
        stuff = material(FULL)
        chat = ChatTokenizer(stuff.tokenizer)
        model = reader(stuff, options.quick)
        facts = {"hardware": hardware(), "quick": options.quick}
    for variant in missing:
        runs.append(run(variant, model, chat, stuff, options.quick))
        runs.sort(key=lambda r: VARIANTS.index(r["variant"]))
        save(options.out, {**facts, "runs": runs})
        print(variant, flush=True)

    print(results_table(runs))
    print(hardware_line())


if __name__ == "__main__":
    main()
