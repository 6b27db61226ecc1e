"""Reward sums of two numbers for longer, at a higher rate, and with more sums to practise.

    python benchmarks/reasoning_sums.py [--seeds 1 2 3] [--save]

Needs the model of chapter 14. Of the 144 sums, no dialog asks 72: 36 of them are tested and never practised. "36 sums"
practises the other 36, "108 sums" also the 72 that dialogs ask. Nothing is demonstrated. Every run makes 40 updates of
32 questions with groups of 8, at a rate of 1e-4 or 3e-4, and is tested after every 10 of them; shares are those of
greedy answers. benchmarks/reasoning_kinds.py has the 36 sums at 1e-4.
"""

from __future__ import annotations

import copy
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from reasoning import plan, user
from rivals import RESULTS as FOLDER
from rivals import hardware_line, record_seeds, seed_options, table

from courseware.checks.short_runs import quiet
from courseware.material import people
from courseware.runs import demo
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import MiniGPT
from minigpt_lib.reasoning import Question, mean_reward, train_grpo

RESULTS = FOLDER / "reasoning_sums.json"
NEW = 24  # tokens of an answer
UPDATES, EVERY = 40, 10
SETTINGS: dict[str, dict[str, Any]] = {
    "36 sums, three times the rate": {"practised": 36, "lr": 3e-4, "group_size": 8},
    "108 sums": {"practised": 108, "lr": 1e-4, "group_size": 8},
    "108 sums, three times the rate": {"practised": 108, "lr": 3e-4, "group_size": 8},
}


def sums(seed: int) -> tuple[list[Question], list[Question], list[Question]]:
    """Return 36 sums to practise, 36 to test, and the 72 that dialogs ask, in random wordings."""
    chance = random.Random(seed)
    questions = []
    for left, total in people.sums():
        text = chance.choice(people.ASKED["sum"]).format(n=left)
        questions.append(Question(user(text), total))
    asked, others = questions[: people.ASKED_SUMS], questions[people.ASKED_SUMS :]
    half = len(others) // 2
    return others[:half], others[half:], asked


def run(name: str, model: MiniGPT, chat: ChatTokenizer, seed: int) -> dict[str, Any]:
    """Return the shares of right answers to tested sums after every 10 updates, the first before any."""
    settings = SETTINGS[name]
    practised, tested, asked = sums(seed)
    if settings["practised"] > len(practised):
        practised = practised + asked
    model = copy.deepcopy(model)
    shares = [mean_reward(model, chat, tested, max_new_tokens=NEW)[0]]

    began = time.perf_counter()
    trainer = quiet(
        train_grpo,
        model,
        chat,
        plan(UPDATES, settings["lr"], seed, eval_every=EVERY),
        practised,
        val=tested,
        group_size=settings["group_size"],
        max_new_tokens=NEW,
    )
    seconds = time.perf_counter() - began

    shares += [record["val_reward"] for record in trainer.history if "val_reward" in record]
    last = statistics.fmean(record["reward"] for record in trainer.history[-3:])
    return {
        "setting": name,
        "seed": seed,
        "right": shares,
        "seconds": seconds,
        "last rewards": last,
    }


def report(record: dict[str, Any]) -> str:
    """Return the table of a record: the mean over seeds, at the end with the least and the most."""
    rows = []
    for name in SETTINGS:
        runs = [one for one in record["runs"] if one["setting"] == name]
        ends = [one["right"][-1] for one in runs]
        means = [statistics.fmean(values) for values in zip(*(one["right"] for one in runs))]
        rows.append(
            (
                name,
                *(f"{mean:.1%}" for mean in means),
                f"{min(ends):.1%} to {max(ends):.1%}",
                f"{statistics.fmean(one['seconds'] for one in runs):.0f}",
            )
        )
    steps = range(0, UPDATES + 1, EVERY)
    columns = ("setting", *(f"after {step}" for step in steps), "least to most", "seconds")
    return table("Sums of two numbers that were never asked", columns, rows)


def main() -> None:
    """Run every setting with every seed, print a table, and save the record if asked to."""
    options = seed_options(__doc__, RESULTS)
    torch.set_num_threads(1)
    model, chat, _ = demo.assistant()

    def runs(seed: int) -> Iterator[dict[str, Any]]:
        for name in SETTINGS:
            yield run(name, model, chat, seed)

    record = record_seeds(options, RESULTS, runs)
    print(report(record))
    print(hardware_line())


if __name__ == "__main__":
    main()
