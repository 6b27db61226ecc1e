"""Chapter 21's run, a few demonstrations and then rewards, with one more figure in its records.

The band 21_reasoning is made of these records. The share of answers that show a step is not rewarded, so it tells a
model that thinks from one that has found another way to its reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from courseware.checks.short_runs import quiet
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import MiniGPT
from minigpt_lib.reasoning import Question, Reward, exact_reward, train_grpo
from minigpt_lib.training import TrainConfig

NEW = 24  # tokens of an answer
STEP = "shows a step"  # a record's key


def shows_step(text: str) -> bool:
    """Return whether an answer names a company and where something is."""
    return " works for " in text and " is in " in text


def rewarded(
    model: MiniGPT,
    chat: ChatTokenizer,
    config: TrainConfig,
    questions: Sequence[Question],
    judge: Reward = exact_reward,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train `model` in place on what `judge` says of its answers, and return the records of the updates.

    Each record also has "shows a step", a share of all answers that were drawn for this update. options: those of
    train_grpo but `reuse` and `val`.
    """
    group = options.setdefault("group_size", 8)
    options.setdefault("max_new_tokens", NEW)
    steps: list[bool] = []

    def judge_and_look(question: Question, text: str) -> float:
        steps.append(shows_step(text))
        return judge(question, text)

    def note(record: dict[str, Any]) -> None:
        record[STEP] = sum(steps) / (config.batch_size * group)
        steps.clear()

    trainer = quiet(
        train_grpo, model, chat, config, questions, judge_and_look, on_step=note, **options
    )
    return trainer.history
