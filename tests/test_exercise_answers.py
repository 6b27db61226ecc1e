"""Every exercise has been answered by others (test_exercise_answers_NN.py)."""

from __future__ import annotations

import importlib
from pathlib import Path

from courseware.exercises import registry


def test_every_exercise_was_answered_by_others():
    answered = set()
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if "\nANSWERS = [" in path.read_text(encoding="utf-8"):
            module = importlib.import_module(path.stem)
            answered |= {name for name, _, diagnosis in module.ANSWERS if not diagnosis}
    assert answered == set(registry())
