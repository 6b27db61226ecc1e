"""Give the course's assistant more and more people to know, and see how many facts it can still retrieve.

    python benchmarks/people_scaling.py [--people 800 2000 ...] [--budgets ...] [--quick] [--threads N] [--out FILE]

Chapter 14's recipe with up to 4,000 people. With "same steps", the run has the same length for any number of people, so
each life is read less often the more there are. With "same readings", each life is read as often as one of 800 people,
so the run grows with the people (4,000 take about half an hour). Fine-tuning always has the recipe's steps. Half of the
people are held out: dialogs never ask about them. What is measured are the five facts about held-out people, chosen
from four sentences (chance 25%), and said in the model's own words.

Every run is added to FILE (benchmarks/results/people_scaling.json) as soon as it is done, so an interrupted benchmark
resumes there. On two cores it takes about a quarter of an hour. --quick trains for a tenth of the steps, to try it.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import RESULTS, earlier_runs, hardware, hardware_line, save, table

from courseware.material import people
from courseware.runs.recipe import FULL, Material, Recipe, material, new_model
from minigpt_lib.chat import ChatTokenizer, answer_ids
from minigpt_lib.evaluation import multiple_choice_accuracy
from minigpt_lib.model import MiniGPT
from minigpt_lib.sft import InstructionDataset, resize_embedding, train_sft
from minigpt_lib.training import TrainConfig, Trainer

Run = dict[str, Any]  # what the file stores about a run, a JSON object

OUT = RESULTS / "people_scaling.json"
PEOPLE = (800, 2000, 4000)
QUESTIONS = 200  # about each fact, or all there are
BUDGETS = ("same steps", "same readings")


def recipe_of(n: int, budget: str, quick: bool = False) -> Recipe:
    """Return the recipe for n people; ValueError for a budget that is not in BUDGETS."""
    if budget not in BUDGETS:
        raise ValueError(f"budget={budget!r}: expected one of {', '.join(BUDGETS)}.")

    reading_steps = FULL.reading.steps
    if budget == "same readings":
        reading_steps = round(reading_steps * n / FULL.people)
    answering_steps = FULL.answering.steps
    if quick:
        reading_steps //= 10
        answering_steps //= 10
    return dataclasses.replace(
        FULL,
        people=n,
        reading=_with_steps(FULL.reading, reading_steps),
        answering=_with_steps(FULL.answering, answering_steps),
    )


def _with_steps(config: TrainConfig, steps: int) -> TrainConfig:
    """Return the settings for a run of this length, evaluated only at its end."""
    warmup = min(config.warmup_steps, steps // 10)
    return dataclasses.replace(config, steps=steps, warmup_steps=warmup, eval_every=steps)


def assistant(recipe: Recipe) -> tuple[MiniGPT, ChatTokenizer, Material]:
    """Make the assistant of a recipe, without its preferences; return (model, chat, material)."""
    stuff = material(recipe)
    chat = ChatTokenizer(stuff.tokenizer)
    model = new_model(stuff.tokenizer, recipe)
    Trainer(model, recipe.reading, stuff.tokens).train()

    model = resize_embedding(model, chat.vocab_size)
    data = InstructionDataset(stuff.dialogs, chat, recipe.answering.block_size)
    train_sft(model, recipe.answering, data)
    return model, chat, stuff


def measure(model: MiniGPT, chat: ChatTokenizer, stuff: Material) -> dict[str, float]:
    """Return how well facts about held-out people are known.

    "accuracy": the mean share of right choices over the five facts, with its "standard_error" and the number of
    "questions"; "own_words": the share that the model says rightly by itself.
    """
    n = min(QUESTIONS, len(stuff.held_out))
    results = []
    for fact in people.FACTS:
        asked = people.questions(stuff.held_out, fact, n)
        results.append(
            multiple_choice_accuracy(model, chat, asked, template=chat.prompt, batch_size=64)
        )

    chance = random.Random(0)
    pairs = [(person, chance.choice(people.FACTS)) for person in stuff.held_out[:n]]
    dialogs = [[{"role": "user", "content": people.ask(*pair, chance)}] for pair in pairs]
    said = [chat.decode(ids) for ids in answer_ids(model, chat, dialogs)]
    right = [people.right_answer(*pair) in text for pair, text in zip(pairs, said)]

    return {
        "accuracy": sum(result.accuracy for result in results) / len(results),
        "standard_error": math.sqrt(sum(r.standard_error**2 for r in results)) / len(results),
        "own_words": sum(right) / len(right),
        "questions": n * len(results),
    }


def run(n: int, budget: str, quick: bool) -> Run:
    """Make an assistant that knows n people, and return what the file stores about it."""
    recipe = recipe_of(n, budget, quick)
    began = time.perf_counter()
    model, chat, stuff = assistant(recipe)
    seconds = time.perf_counter() - began
    return {
        "people": n,
        "steps": recipe.reading.steps,
        "readings": round(stuff.readings, 1),
        **measure(model, chat, stuff),
        "seconds": round(seconds),
    }


def results_table(budget: str, runs: Sequence[Run]) -> str:
    """Return the table of one budget."""
    rows = []
    for r in runs:
        chosen = f"{r['accuracy']:.1%} ± {r['standard_error']:.1%}"
        rows.append([f"{r['people']:,}", f"{r['readings']:.0f}", chosen, f"{r['own_words']:.0%}"])
    return table(budget, ["people", "readings", "chosen from four", "own words"], rows)


def main() -> None:
    """Measure what is missing in the file of results, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE)
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=BUDGETS[:1])
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    try:
        runs: dict[str, list[Run]] = earlier_runs(options.out, options.quick) or {
            budget: [] for budget in BUDGETS
        }
    except ValueError as error:
        parser.error(str(error))

    facts = {"hardware": hardware(), "quick": options.quick}
    for budget in options.budgets:
        for n in options.people:
            if n in [made["people"] for made in runs[budget]]:
                continue
            made = run(n, budget, options.quick)
            runs[budget] = sorted([*runs[budget], made], key=lambda r: r["people"])
            save(options.out, {**facts, "runs": runs})
            print(budget, made, flush=True)

    for budget in options.budgets:
        print(results_table(budget, runs[budget]))
    print(hardware_line())


if __name__ == "__main__":
    main()
