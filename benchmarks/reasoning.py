"""Train chapter 14's assistant on rewards alone, and after twenty demonstrations: five seeds each, with its price.

    python benchmarks/reasoning.py [--seeds 1 2 3 4 5] [--save]

Needs the model of chapter 14. The two-step questions are about people of whom no dialog has asked: 200 are asked in
training, 200 tested. "alone": 30 updates of 3e-4 with `train_grpo`, 32 questions and groups of 8. "shown": 20 steps
of `train_sft` on 100 dialogs, 20 of which show their step, then 20 updates of 1e-4. Shares are those of
greedy answers; "edited" counts answers after a false first step:
those that follow it, and those that are right all the same. The seed decides demonstrations, the
order of questions and the random numbers of the answers. --save writes the record after each seed, with the seeds
that are done.

Speed: 32 questions with 8 answers each, drawn by `sample_groups` in one batch, and one answer at a time.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import hardware, hardware_line, save, table

from courseware.checks.short_runs import quiet
from courseware.material import people
from courseware.runs import demo
from courseware.runs.course import two_step_questions
from minigpt_lib.chat import ChatTokenizer, answer_ids
from minigpt_lib.model import MiniGPT
from minigpt_lib.reasoning import exact_reward, sample_groups, train_grpo
from minigpt_lib.sft import InstructionDataset, train_sft
from minigpt_lib.training import TrainConfig

RESULTS = Path(__file__).parent / "results" / "reasoning.json"
NEW = 24  # tokens of an answer
# demonstrations that show their step, updates, learning rate
RUNS = {"alone": (0, 30, 3e-4), "shown": (20, 20, 1e-4)}

Dialog = list[dict[str, str]]


def user(text: str) -> Dialog:
    """Return a dialog of one question."""
    return [{"role": "user", "content": text}]


def demonstrate(
    model: MiniGPT, chat: ChatTokenizer, persons: Sequence[people.Person], with_step: int, seed: int
) -> None:
    """Train the model on 100 dialogs, of which this many show their step."""
    dialogs = people.two_step_dialogs(persons, 100, with_step, seed)
    config = plan(20, 3e-4, seed, batch_size=16, block_size=64, warmup_steps=2, min_lr_ratio=0.1)
    quiet(train_sft, model, config, InstructionDataset(dialogs, chat, 64))


def plan(steps: int, lr: float, seed: int, **changes: Any) -> TrainConfig:
    """Return the settings of a run at a constant rate on one CPU."""
    values: dict[str, Any] = {
        "steps": steps, "lr": lr, "seed": seed, "batch_size": 32, "warmup_steps": 0, "min_lr_ratio": 1.0,
        "weight_decay": 0.0, "eval_every": 0, "precision": "float32", "device": "cpu", "progress": False,
    }  # fmt: skip
    return TrainConfig(**values | changes)


def answers(model: MiniGPT, chat: ChatTokenizer, dialogs: Sequence[Dialog]) -> list[str]:
    """Return the greedy answers, "" for one that did not end its turn."""
    found = answer_ids(model, chat, dialogs, 40)
    return [chat.decode(ids[:-1]) if ids[-1] == chat.end else "" for ids in found]


def measure(
    model: MiniGPT, chat: ChatTokenizer, persons: Sequence[people.Person]
) -> dict[str, float]:
    """Return the shares of greedy answers that the script's docstring names."""
    asked = two_step_questions(persons, 3)
    said = answers(model, chat, [list(q.dialog) for q in asked])
    chance = random.Random(11)
    topics: dict[str, list[tuple[str, str]]] = {"facts": [], "sums": [], "strangers": []}
    for person in persons:
        fact = chance.choice(people.FACTS)
        topics["facts"].append(
            (people.ask(person, fact, chance), people.right_answer(person, fact))
        )
    for left, total in people.sums()[people.ASKED_SUMS :]:
        text = chance.choice(people.ASKED["sum"]).format(n=left)
        topics["sums"].append((text, people.SAID["sum"].format(n=left, v=total)))
    for person in people.make_strangers(people.STRANGERS)[people.ASKED_STRANGERS :]:
        text = people.ask(person, chance.choice(people.FACTS), chance)
        topics["strangers"].append((text, people.UNKNOWN))

    n = len(persons)
    true = [people.right_answer(person, "company") for person in persons]
    figures = {
        "right": sum(exact_reward(q, text) for q, text in zip(asked, said)) / n,
        "two sentences": sum(text.count(".") >= 2 for text in said) / n,
        "true first step": sum(text.startswith(first) for text, first in zip(said, true)) / n,
    }
    figures["edited, follows"], figures["edited, right"] = edited(model, chat, persons)
    for topic, pairs in topics.items():
        texts = answers(model, chat, [user(text) for text, _ in pairs])
        figures[topic] = sum(w in text for text, (_, w) in zip(texts, pairs)) / len(pairs)
    return figures


@torch.no_grad()
def edited(
    model: MiniGPT, chat: ChatTokenizer, persons: Sequence[people.Person]
) -> tuple[float, float]:
    """Return how often the city follows a false first step put into the model's mouth, and how often it is right."""
    chance = random.Random(7)
    follows = right = 0
    for person in persons[:100]:
        others = [c for c in people.COMPANIES if c != person.value("company")]
        company = chance.choice(others)
        asked = user(people.ask(person, "seat", chance))
        row = chat.render(asked, add_generation_prompt=True)[0]
        row = row + chat.encode(people.SAID["company"].format(n=person.name, v=company))
        said: list[int] = []
        while len(said) < 12 and chat.end not in said:
            logits = model(torch.tensor([row + said]), last_only=True)[0]
            said.append(int(logits[0, -1].argmax()))
        text = chat.decode(said[:-1])
        follows += text.endswith(f" {people.SEATS[company]}.")
        right += text.endswith(f" {person.value('seat')}.")
    n = len(persons[:100])
    return follows / n, right / n


def run(name: str, model: MiniGPT, chat: ChatTokenizer, stuff: Any, seed: int) -> dict[str, Any]:
    """Return the figures of one run before and after its updates, its curves and its seconds."""
    with_step, updates, lr = RUNS[name]
    half = len(stuff.held_out) // 2
    model = copy.deepcopy(model)
    if with_step:
        demonstrate(model, chat, stuff.asked, with_step, seed)
    before = measure(model, chat, stuff.held_out[half:])

    began = time.perf_counter()
    questions = two_step_questions(stuff.held_out[:half], seed)
    options = {"group_size": 8, "max_new_tokens": NEW}
    trainer = quiet(train_grpo, model, chat, plan(updates, lr, seed), questions, **options)
    seconds = time.perf_counter() - began
    curves = {
        key: [round(record[key], 3) for record in trainer.history]
        for key in ("reward", "useful_groups", "answer_tokens")
    }
    after = measure(model, chat, stuff.held_out[half:])
    return {"seed": seed, "before": before, "after": after, "curves": curves, "seconds": seconds}


def speed(model: MiniGPT, chat: ChatTokenizer, stuff: Any) -> dict[str, float]:
    """Return the seconds in which 256 answers are drawn: in one batch, and one at a time (from 16 of them)."""
    dialogs = [q.dialog for q in two_step_questions(stuff.held_out[:32], 0)]
    times = {"batched": [], "one by one": []}
    for repeat in range(4):
        generator = torch.Generator().manual_seed(repeat)
        options: dict[str, Any] = {"max_new_tokens": NEW, "generator": generator}
        began = time.perf_counter()
        sample_groups(model, chat, dialogs, 8, **options)
        times["batched"].append(time.perf_counter() - began)

        began = time.perf_counter()
        for dialog in dialogs[:16]:
            sample_groups(model, chat, [dialog], 1, **options)
        times["one by one"].append((time.perf_counter() - began) * 256 / 16)
    return {name: min(values) for name, values in times.items()}


def main() -> None:
    """Run every seed, print a table, and save the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, chat, stuff = demo.assistant()

    record: dict[str, Any] = {"hardware": hardware(), "seeds": []}
    record["speed"] = speed(model, chat, stuff)
    record["runs"] = {name: [] for name in options.runs}
    for seed in options.seeds:
        for name in options.runs:
            found = run(name, model, chat, stuff, seed)
            record["runs"][name].append(found)
            print(name, seed, f"{found['seconds']:.0f} s", found["after"], flush=True)
        record["seeds"].append(seed)
        if options.save:
            save(RESULTS, record)

    rows = []
    for name, runs in record["runs"].items():
        for key in runs[0]["after"]:
            for when in ("before", "after"):
                values = [one[when][key] for one in runs]
                mean = sum(values) / len(values)
                rows.append(
                    (name, key, when, f"{mean:.1%}", f"{min(values):.1%}", f"{max(values):.1%}")
                )
    print(table("Reasoning by reward", ("run", "share", "", "mean", "least", "most"), rows))
    print({name: round(value, 2) for name, value in record["speed"].items()}, hardware_line())


if __name__ == "__main__":
    main()
