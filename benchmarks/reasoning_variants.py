"""Train the model after twenty demonstrations with each variant of GRPO, and time what an update is made of.

    python benchmarks/reasoning_variants.py [--seeds 1 2 3] [--save]

Needs the model of chapter 14. Every variant begins with the same weights and asks the same questions in the same
order, so what differs is the variant: 20 updates of 1e-4, as in benchmarks/reasoning.py, whose shares these are.
"seconds" are those of the updates, and "sampling", "rewarding" their shares; the rest is the update proper.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from reasoning import NEW, demonstrate, measure, plan
from rivals import RESULTS as FOLDER
from rivals import hardware_line, record_seeds, seed_options, table

import minigpt_lib.reasoning
from courseware.checks.short_runs import quiet
from courseware.runs import demo
from courseware.runs.course import two_step_questions
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import MiniGPT
from minigpt_lib.reasoning import train_grpo

RESULTS = FOLDER / "reasoning_variants.json"
VARIANTS: dict[str, dict[str, Any]] = {
    "GRPO, the mean over all tokens": {},
    "the mean of each answer": {"per": "sequence"},
    "without the deviation, constant length (Dr. GRPO)": {
        "divide_by_std": False,
        "per": "constant",
    },
    "the mean of the others (RLOO)": {"leave_one_out": True, "divide_by_std": False},
    "over the batch": {"over_batch": True},
    "each draw used twice": {"reuse": 2},
    "used twice, clip higher (DAPO)": {"reuse": 2, "clip_high": 0.28},
    "a leash of 0.05": {"leash": 0.05},
    "groups of 4": {"group_size": 4},
    "groups of 16": {"group_size": 16},
}
SHOWN = ("right", "two sentences", "true first step", "facts", "sums")
COSTS = ("tokens", "seconds", "sampling")


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Add up the seconds that sampling and rewarding take inside this context."""
    seconds: dict[str, float] = defaultdict(float)
    kept = {name: getattr(minigpt_lib.reasoning, name) for name in ("sample_groups", "score")}

    def timed(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return kept[name](*arguments, **options)
            finally:
                seconds[name] += time.perf_counter() - began

        return call

    try:
        for name in kept:
            setattr(minigpt_lib.reasoning, name, timed(name))
        yield seconds
    finally:
        for name, function in kept.items():
            setattr(minigpt_lib.reasoning, name, function)


def run(
    model: MiniGPT, chat: ChatTokenizer, stuff: Any, seed: int, options: dict[str, Any]
) -> dict[str, float]:
    """Return the shares after the updates of one variant, and where its seconds went."""
    half = len(stuff.held_out) // 2
    model = copy.deepcopy(model)
    questions = two_step_questions(stuff.held_out[:half], seed)
    settings = {"group_size": 8, "max_new_tokens": NEW} | options

    began = time.perf_counter()
    with clocks() as spent:
        trainer = quiet(train_grpo, model, chat, plan(20, 1e-4, seed), questions, **settings)
    seconds = time.perf_counter() - began

    found = measure(model, chat, stuff.held_out[half:])
    last = [record["answer_tokens"] for record in trainer.history[-5:]]
    return {
        **{name: found[name] for name in SHOWN},
        "tokens": statistics.fmean(last),
        "seconds": seconds,
        "sampling": spent["sample_groups"] / seconds,
        "rewarding": spent["score"] / seconds,
    }


def report(record: dict[str, Any]) -> str:
    """Return the table of a record: means over the seeds."""
    rows = []
    for name in VARIANTS:
        runs = [one for one in record["runs"] if one["variant"] == name]
        means = {key: statistics.fmean(one[key] for one in runs) for key in (*SHOWN, *COSTS)}
        rows.append(
            (
                name,
                *(f"{means[key]:.1%}" for key in SHOWN),
                f"{means['tokens']:.1f}",
                f"{means['seconds']:.0f}",
                f"{means['sampling']:.0%}",
            )
        )
    return table("Variants of GRPO", ("variant", *SHOWN, *COSTS), rows)


def main() -> None:
    """Run every variant with every seed, print a table, and save the record if asked to."""
    options = seed_options(__doc__, RESULTS)
    torch.set_num_threads(1)
    model, chat, stuff = demo.assistant()

    def runs(seed: int) -> Iterator[dict[str, Any]]:
        shown = copy.deepcopy(model)
        demonstrate(shown, chat, stuff.asked, 20, seed)
        for name, settings in VARIANTS.items():
            yield {"variant": name, "seed": seed} | run(shown, chat, stuff, seed, settings)

    record = record_seeds(options, RESULTS, runs)
    print(report(record))
    print(hardware_line())


if __name__ == "__main__":
    main()
