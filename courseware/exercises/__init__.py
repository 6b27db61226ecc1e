"""Exercises that answer: not attempted, wrong and why, or right.

check("attention", my_attention)    hint("attention")    solution("attention")
"""

from courseware.exercises.engine import Exercise, WrongAnswer
from courseware.exercises.learner import check, exercises_of, find, hint, registry, solution

__all__ = [
    "Exercise",
    "WrongAnswer",
    "check",
    "exercises_of",
    "find",
    "hint",
    "registry",
    "solution",
]
