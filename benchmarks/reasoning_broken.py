"""Break chapter 21's run in seven ways, and see which of them a curve of the reward gives away.

    python benchmarks/reasoning_broken.py [--seeds 1 2] [--save]

Needs the model of chapter 14. Every run begins with 20 demonstrations, as in benchmarks/reasoning.py, and makes 12
updates of 32 questions with 8 answers each, at a rate of 1e-4 where nothing else is said. FAULTS below says what is
wrong. The record has the curves of each run, and the shares of right greedy answers to 200 tested questions before and
after; tests/test_bands_rewards.py shows the curves to `compare_run`.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from reasoning import demonstrate, plan
from rivals import RESULTS as FOLDER
from rivals import hardware_line, record_seeds, seed_options, table
from torch import Tensor

import minigpt_lib.reasoning
from courseware.material import people
from courseware.runs import demo
from courseware.runs.course import two_step_questions
from courseware.runs.thinking import NEW, rewarded
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import MiniGPT
from minigpt_lib.reasoning import Question, Reward, Rollouts, exact_reward, mean_reward

RESULTS = FOLDER / "reasoning_broken.json"
CURVES = ("reward", "shows a step", "answer_tokens")
UPDATES = 12

real_advantages = minigpt_lib.reasoning.group_advantages
real_sample = minigpt_lib.reasoning.sample_groups


def friendly(question: Question, text: str) -> float:
    """Reward a closing phrase."""
    return float(any(closing in text for closing in people.CLOSINGS))


def turned(rewards: Tensor, **options: Any) -> Tensor:
    """Return advantages with the wrong sign."""
    return -real_advantages(rewards, **options)


def no_baseline(rewards: Tensor, **options: Any) -> Tensor:
    """Return the rewards themselves."""
    return rewards.detach().clone()


def with_prompts(model: MiniGPT, *arguments: Any, **options: Any) -> Rollouts:
    """Draw answers, but say that the prompts' tokens were drawn as well."""
    found = real_sample(model, *arguments, **options)
    places = torch.arange(found.ids.shape[1])
    last = (found.mask * places).amax(dim=1, keepdim=True)
    mask = (places > 0) & (places <= last)
    with torch.no_grad():
        logs = minigpt_lib.reasoning.token_log_probs(model, found.ids)
    logprobs = torch.where(found.mask, found.logprobs, logs * mask)
    return replace(found, mask=mask, logprobs=logprobs)


@dataclass(frozen=True)
class Fault:
    """What is wrong with a run: how it judges, its options, its rate, and what stands in for the library's parts."""

    judge: Reward = exact_reward
    options: dict[str, Any] = field(default_factory=dict)
    lr: float = 1e-4
    parts: dict[str, Any] = field(default_factory=dict)


BASELINE = {"group_advantages": no_baseline}
PROMPTS = {"sample_groups": with_prompts}
FAULTS = {
    "the sign is turned": Fault(parts={"group_advantages": turned}),
    "advantages over the batch": Fault(options={"over_batch": True}),
    "prompts count": Fault(parts=PROMPTS),
    "prompts count, over the batch": Fault(options={"over_batch": True}, parts=PROMPTS),
    "prompts count, no baseline": Fault(parts=PROMPTS | BASELINE),
    "a phrase is rewarded, twice the rate": Fault(judge=friendly, lr=2e-4),
    "no leash, twenty times the rate": Fault(lr=2e-3),
}


def run(name: str, model: MiniGPT, chat: ChatTokenizer, stuff: Any, seed: int) -> dict[str, Any]:
    """Return the curves of a run, its right answers before and after, and its seconds; the model is left as it was."""
    fault = FAULTS[name]
    half = len(stuff.held_out) // 2
    model = copy.deepcopy(model)
    tested = two_step_questions(stuff.held_out[half:], 3)
    practised = two_step_questions(stuff.held_out[:half], seed)
    before = mean_reward(model, chat, tested, max_new_tokens=NEW)[0]

    began = time.perf_counter()
    with ExitStack() as changes:
        for part, other in fault.parts.items():
            changes.enter_context(patch.object(minigpt_lib.reasoning, part, other))
        config = plan(UPDATES, fault.lr, seed)
        history = rewarded(model, chat, config, practised, fault.judge, **fault.options)
    seconds = time.perf_counter() - began

    curves = {key: [round(record[key], 3) for record in history] for key in CURVES}
    after = mean_reward(model, chat, tested, max_new_tokens=NEW)[0]
    return {
        "fault": name,
        "seed": seed,
        "curves": curves,
        "before": before,
        "after": after,
        "seconds": seconds,
    }


def report(record: dict[str, Any]) -> str:
    """Return the table of a record: means over the seeds."""
    rows = []
    for name in FAULTS:
        runs = [one for one in record["runs"] if one["fault"] == name]
        reward, steps = (
            statistics.fmean(value for one in runs for value in one["curves"][key][-3:])
            for key in ("reward", "shows a step")
        )
        right = [statistics.fmean(one[when] for one in runs) for when in ("before", "after")]
        rows.append((name, f"{reward:.2f}", f"{steps:.0%}", *(f"{share:.1%}" for share in right)))
    columns = ("what is wrong", "last rewards", "show a step", "right before", "right after")
    return table("Runs that are broken on purpose: mean of two seeds", columns, rows)


def main() -> None:
    """Run every fault with every seed, print a table, and save the record if asked to."""
    options = seed_options(__doc__, RESULTS, (1, 2))
    torch.set_num_threads(1)
    model, chat, stuff = demo.assistant()

    def runs(seed: int) -> Iterator[dict[str, Any]]:
        shown = copy.deepcopy(model)
        demonstrate(shown, chat, stuff.asked, 20, seed)
        for name in FAULTS:
            yield run(name, shown, chat, stuff, seed)

    record = record_seeds(options, RESULTS, runs)
    print(report(record))
    print(hardware_line())


if __name__ == "__main__":
    main()
