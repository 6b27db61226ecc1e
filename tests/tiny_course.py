"""A recipe of `make course` that is trained in a second, and how to run it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from courseware.runs import course
from courseware.runs.recipe import QUICK

SMALL = {"batch_size": 4, "block_size": 64, "precision": "float32"}
TINY = replace(
    QUICK,
    people=10,
    vocab_size=400,
    model={"n_embd": 16, "n_layer": 1, "n_head": 2},
    reading=replace(QUICK.reading, steps=12, warmup_steps=2, **SMALL),
    answering=replace(QUICK.answering, steps=6, warmup_steps=1, **SMALL | {"block_size": 256}),
    prompts=8,
    preferring=replace(QUICK.preferring, steps=3, warmup_steps=1, block_size=256),
    two_steps=4,
    shown=1,
    showing=replace(QUICK.showing, steps=2, warmup_steps=1, batch_size=4, block_size=256),
    rewarding=replace(QUICK.rewarding, steps=2, batch_size=2),
)
QUESTIONS = 3  # for each figure


def run_tiny(folder: Path, **options: Any) -> dict[str, Any]:
    """Run the course with the tiny recipe."""
    return course.run(TINY, folder, show=False, n=QUESTIONS, **options)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
