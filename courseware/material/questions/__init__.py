"""Our own multiple-choice questions, across twelve topics: what does a language model know?

Each has four choices, and exactly one of them is right. `TOPIC.jsonl` beside this file holds the questions of
TOPIC, one JSON object a line:

    level: 1 (a child knows it), 2 (general knowledge) or 3 (a specialist's knowledge, or several steps of thought)
    question, choices: texts; the choices read well as the answer to the question
    answer: the index of the right choice
    reason: why this choice is right
    check (where it can be computed): a Python condition on the choice `x` that is true of the right one alone

All were written for this course, none is taken from another set, and the facts do not change with the news. The
right choice stands in each of the four places about equally often, and it is neither the longest nor the shortest
more often than chance would have it: `tests/test_questions.py` measures this, and evaluates every condition.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
TOPICS = (
    "arithmetic",
    "geography",
    "biology",
    "physics",
    "chemistry",
    "history",
    "literature",
    "language",
    "arts",
    "everyday",
    "computing",
    "reasoning",
)


def load_questions(topics: str | Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Return the questions of some topics (default: all), in the form that `multiple_choice_accuracy` takes.

    topics: one of TOPICS, or several. Each question is a dict {"topic", "level", "question", "choices", "answer",
    "reason"}, with "check" where the answer can be computed. Raises ValueError for an unknown topic.
    """
    if topics is None:
        topics = TOPICS
    elif isinstance(topics, str):
        topics = [topics]

    questions = []
    for topic in topics:
        if topic not in TOPICS:
            raise ValueError(f"expected topics among {', '.join(TOPICS)}; got {topic!r}.")
        lines = (FOLDER / f"{topic}.jsonl").read_text(encoding="utf-8").splitlines()
        questions += [{"topic": topic, **json.loads(line)} for line in lines]
    return questions
