"""Give the course's assistant more and more people to know, and see how many facts it can still fetch.

    python benchmarks/people_scaling.py [--people 800 2000 ...] [--budgets ...] [--quick] [--threads N] [--out FILE]

Chapter 14's recipe with up to 4,000 people: with the same number of steps, so that each life is read less often the
more there are; or, if asked for, with the same number of readings of each life as 800 people get, so that the run
grows with the people (4,000 then take about half an hour). Fine-tuning has the recipe's steps every time. Half of the
people are held out: dialogs never ask about them. Measured are the five facts about held-out people, chosen from four
sentences (chance 25%), and said in the model's own words.

Every run is added to FILE (benchmarks/results/people_scaling.json) as soon as it is done, and an interrupted
benchmark goes on there. On two cores it takes about a quarter of an hour. --quick trains for a tenth of the steps, to
try it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import hardware, hardware_line, table

from courseware import people
from courseware.recipe import FULL, Recipe, material, new_model
from minigpt_lib.evaluation import multiple_choice_accuracy
from minigpt_lib.sft import (
    ChatTokenizer,
    InstructionDataset,
    answer_ids,
    resize_embedding,
    train_sft,
)
from minigpt_lib.training import Trainer

OUT = Path(__file__).resolve().parent / "results" / "people_scaling.json"
PEOPLE = (800, 2000, 4000)
QUESTIONS = 200  # about each fact, or all there are
BUDGETS = ("same steps", "same readings")


def recipe_of(n: int, budget: str, quick: bool = False) -> Recipe:
    """Return the recipe for n people; ValueError for a budget that is not in BUDGETS."""
    if budget not in BUDGETS:
        raise ValueError(f"budget={budget!r}: expected one of {', '.join(BUDGETS)}.")
    reading, answering = FULL.reading, FULL.answering
    steps = reading.steps if budget == "same steps" else round(reading.steps * n / FULL.people)
    changes = [{"steps": steps}, {"steps": answering.steps}]
    for change in changes if quick else ():
        change["steps"] //= 10
    for change, config in zip(changes, (reading, answering)):
        change["warmup_steps"] = min(config.warmup_steps, change["steps"] // 10)
        change["eval_every"] = change["steps"]
    return dataclasses.replace(
        FULL,
        people=n,
        reading=dataclasses.replace(reading, **changes[0]),
        answering=dataclasses.replace(answering, **changes[1]),
    )


def assistant(recipe: Recipe):
    """Return (model, chat, material, seconds) of a recipe."""
    began, stuff = time.perf_counter(), material(recipe)
    chat, model = ChatTokenizer(stuff.tokenizer), new_model(stuff.tokenizer, recipe)
    Trainer(model, recipe.reading, stuff.tokens).train()
    model = resize_embedding(model, chat.vocab_size)
    data = InstructionDataset(stuff.dialogs, chat, recipe.answering.block_size)
    train_sft(model, recipe.answering, data)
    return model, chat, stuff, time.perf_counter() - began


def measure(model, chat, stuff) -> dict:
    """Return the mean accuracy over the five facts with its standard error, and the share said in its own words."""
    n, results = min(QUESTIONS, len(stuff.held_out)), []
    for fact in people.FACTS:
        asked = people.questions(stuff.held_out, fact, n)
        options = {"template": chat.prompt, "batch_size": 64}
        results.append(multiple_choice_accuracy(model, chat, asked, **options))
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


def main() -> None:
    """Measure what is missing in the file of results, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE)
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=BUDGETS[:1])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {
        "hardware": hardware(), "quick": options.quick, "runs": {budget: [] for budget in BUDGETS}
    }  # fmt: skip
    if options.out.exists():
        old = json.loads(options.out.read_text(encoding="utf-8"))
        if old["quick"] != options.quick:
            parser.error(
                f"{options.out} is of runs with quick={old['quick']}: choose another --out."
            )
        results["runs"] = old["runs"]
    for budget in options.budgets:
        for n in options.people:
            if n in [run["people"] for run in results["runs"][budget]]:
                continue
            recipe = recipe_of(n, budget, options.quick)
            *made, seconds = assistant(recipe)
            run = {
                "people": n,
                "steps": recipe.reading.steps,
                "readings": round(made[-1].readings, 1),
            }
            run |= measure(*made) | {"seconds": round(seconds)}
            results["runs"][budget] = sorted(
                [*results["runs"][budget], run], key=lambda r: r["people"]
            )
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(budget, run, flush=True)
    for budget in options.budgets:
        rows, runs = [], results["runs"][budget]
        for r in runs:
            chosen = f"{r['accuracy']:.1%} ± {r['standard_error']:.1%}"
            rows.append(
                [f"{r['people']:,}", f"{r['readings']:.0f}", chosen, f"{r['own_words']:.0%}"]
            )
        print(table(budget, ["people", "readings", "chosen from four", "own words"], rows))
    print(hardware_line())


if __name__ == "__main__":
    main()
