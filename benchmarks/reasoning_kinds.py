"""Reward other kinds of questions: sums of two and of three numbers, and who of two people was born earlier.

    python benchmarks/reasoning_kinds.py [--seeds 1 2 3] [--save]

Needs the model of chapter 14. "two numbers": the sums that no dialog asks, half of them practised, half tested, nothing
demonstrated. "three numbers" and "born earlier" take two steps that no dialog shows: first 20, or 150, steps of
`train_sft` on 100 dialogs that show them, then rewards. Every kind gets 20 updates of 1e-4, 32 questions and groups of
8. Shares are those of greedy answers to questions that were not practised; guessing who was born earlier is right in
half of the cases.
"""

from __future__ import annotations

import copy
import itertools
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from reasoning import Dialog, answers, plan, user
from rivals import RESULTS as FOLDER
from rivals import hardware_line, record_seeds, seed_options, table

from courseware.checks.short_runs import quiet
from courseware.material import people
from courseware.runs import demo
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import MiniGPT
from minigpt_lib.reasoning import Question, train_grpo
from minigpt_lib.sft import InstructionDataset, train_sft

RESULTS = FOLDER / "reasoning_kinds.json"
NEW = 40  # tokens of an answer: two sentences about two people are long
STEPS = {"two numbers": (0,), "three numbers": (20, 150), "born earlier": (20, 150)}

Task = tuple[Question, str]  # what is asked, and an answer that shows its steps


def two_numbers(stuff: Any, chance: random.Random) -> list[Task]:
    """Return the sums that no dialog asks."""
    tasks = []
    for left, total in people.sums()[people.ASKED_SUMS :]:
        text = chance.choice(people.ASKED["sum"]).format(n=left)
        tasks.append((Question(user(text), total), people.SAID["sum"].format(n=left, v=total)))
    return tasks


def three_numbers(stuff: Any, chance: random.Random) -> list[Task]:
    """Return sums of three numbers whose first two sums are among those that were read."""
    tasks = []
    for a, b, c in itertools.product(range(1, 13), range(1, 13), range(1, 7)):
        if a + b > 12:
            continue
        text = chance.choice(people.ASKED["sum"]).format(n=f"{a} plus {b} plus {c}")
        steps = f"{a} plus {b} is {a + b}. {a + b} plus {c} is {a + b + c}."
        tasks.append((Question(user(text), str(a + b + c)), steps))
    chance.shuffle(tasks)
    return tasks[:400]


def born_earlier(stuff: Any, chance: random.Random) -> list[Task]:
    """Return questions about pairs of people whom no dialog asks about; a right answer ends with the surname."""
    tasks = []
    while len(tasks) < 400:
        one, other = chance.sample(list(stuff.held_out), 2)
        surnames = [person.name.split()[-1] for person in (one, other)]
        if one.value("year") == other.value("year") or len(set(surnames)) == 1:
            continue
        first = min((one, other), key=lambda person: int(person.value("year")))
        text = f"Who was born earlier, {one.name} or {other.name}?"
        steps = [people.right_answer(person, "year") for person in (one, other)]
        answer = f"{steps[0]} {steps[1]} Earlier was {first.name}."
        tasks.append((Question(user(text), first.name.split()[-1]), answer))
    return tasks


KINDS = {"two numbers": two_numbers, "three numbers": three_numbers, "born earlier": born_earlier}


def right(model: MiniGPT, chat: ChatTokenizer, tasks: Sequence[Task]) -> float:
    """Return the share of greedy answers that end with the right word."""
    said = answers(model, chat, [list(question.dialog) for question, _ in tasks])
    ends = [text.removesuffix(".").split()[-1:] for text in said]
    return statistics.fmean([q.answer] == end for (q, _), end in zip(tasks, ends))


def demonstrate(
    model: MiniGPT, chat: ChatTokenizer, tasks: Sequence[Task], steps: int, seed: int
) -> None:
    """Train the model on answers that show their steps."""
    dialogs: list[Dialog] = [
        [*question.dialog, {"role": "assistant", "content": answer}] for question, answer in tasks
    ]
    config = plan(steps, 3e-4, seed, batch_size=16, block_size=96, warmup_steps=2, min_lr_ratio=0.1)
    quiet(train_sft, model, config, InstructionDataset(dialogs, chat, config.block_size))


def run(
    kind: str, steps: int, model: MiniGPT, chat: ChatTokenizer, stuff: Any, seed: int
) -> dict[str, Any]:
    """Return the shares of one kind: before anything, after the demonstrations, after the rewards."""
    tasks = KINDS[kind](stuff, random.Random(seed))
    half = len(tasks) // 2
    practised, tested = tasks[:half], tasks[half:][:200]
    model = copy.deepcopy(model)
    found: dict[str, Any] = {"kind": kind, "steps": steps, "seed": seed}
    found["before"] = right(model, chat, tested)
    if steps:
        demonstrate(model, chat, practised[:100], steps, seed)
    found["shown"] = right(model, chat, tested)

    began = time.perf_counter()
    config = plan(20, 1e-4, seed)
    questions = [question for question, _ in practised]
    trainer = quiet(train_grpo, model, chat, config, questions, max_new_tokens=NEW)
    found["seconds"] = time.perf_counter() - began
    found["rewarded"] = right(model, chat, tested)
    rewards = [record["reward"] for record in trainer.history]
    return found | {"first rewards": rewards[0], "last rewards": statistics.fmean(rewards[-3:])}


def report(record: dict[str, Any]) -> str:
    """Return the table of a record: means over the seeds."""
    rows = []
    for kind, lengths in STEPS.items():
        for steps in lengths:
            runs = [one for one in record["runs"] if (one["kind"], one["steps"]) == (kind, steps)]
            means = (
                statistics.fmean(one[when] for one in runs)
                for when in ("before", "shown", "rewarded")
            )
            rows.append((kind, steps, *(f"{mean:.1%}" for mean in means)))
    columns = ("kind", "steps of demonstrations", "before", "after them", "after rewards")
    return table("Shares of greedy answers: mean of three seeds", columns, rows)


def main() -> None:
    """Run every kind with every seed, print a table, and save the record if asked to."""
    options = seed_options(__doc__, RESULTS)
    torch.set_num_threads(1)
    model, chat, stuff = demo.assistant()

    def runs(seed: int) -> Iterator[dict[str, Any]]:
        for kind, lengths in STEPS.items():
            for steps in lengths:
                yield run(kind, steps, model, chat, stuff, seed)

    record = record_seeds(options, RESULTS, runs)
    print(report(record))
    print(hardware_line())


if __name__ == "__main__":
    main()
