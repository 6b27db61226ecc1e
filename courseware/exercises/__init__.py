"""Exercises that answer: not attempted, wrong and why, or right.

check("attention", my_attention)    hint("attention")    solution("attention")
"""

from courseware.exercises.compare import Exactly
from courseware.exercises.engine import Broken, Exercise
from courseware.exercises.learner import check, exercises_of, find, hint, registry, solution
from courseware.exercises.mistakes import Mistake
from courseware.exercises.probing import normal

__all__ = [
    "Broken",
    "Exactly",
    "Exercise",
    "Mistake",
    "check",
    "exercises_of",
    "find",
    "hint",
    "normal",
    "registry",
    "solution",
]
