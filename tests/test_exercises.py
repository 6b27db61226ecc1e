"""All exercises: solutions are right, stubs are not attempted, every mistake can be made and told from the others.

That wrong answers are rejected is proved elsewhere, by answers that others wrote (test_exercise_answers_NN.py): a
recorded mistake would only be recognised by itself.
"""

from __future__ import annotations

import importlib
import itertools
import linecache
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import torch

from courseware import paths
from courseware.exercises import find, generate, registry
from courseware.exercises.engine import judge, same_results
from courseware.exercises.mistakes import make
from courseware.exercises.probing import Raised
from courseware.export.notebooks import all_chapters

ALL = list(registry().values())
NOTEBOOKS = sorted((paths.ROOT / "solutions").glob("*.ipynb"))
CHECK = re.compile(r'^check\("(\w+)", (\w+)\)$')
BUGS = [e for e in ALL if e.task.repair]
COSTLY = {"mlp_bigram", "sampler"}  # they train or draw thousands of times
EACH = [
    pytest.param(e, id=e.name, marks=[pytest.mark.slow] if e.name in COSTLY else []) for e in ALL
]
EACH_NOTEBOOK = [
    pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem == "00_warmups" else [])
    for p in NOTEBOOKS
]
SLIPS = {"NameError", "SyntaxError", "UnboundLocalError", "AttributeError"}  # of an edit's author


def answers(path) -> dict:
    """Run a notebook's code without its checks; return what each check would be given, by exercise."""
    space: dict = {}
    found: dict = {}
    for i, cell in enumerate(nbformat.read(path, as_version=4).cells):
        check = CHECK.match(cell.source)
        if check:
            found[check[1]] = space[check[2]]
        elif cell.cell_type == "code":
            name = f"<{path} {i}>"  # with its source, as in a notebook's kernel
            linecache.cache[name] = (1, None, cell.source.splitlines(True), name)
            exec(compile(cell.source, name, "exec", dont_inherit=True), space)
    return found


def made(exercise) -> list:
    """Return the versions of the mistakes that say how they are made."""
    return [v for m in exercise.mistakes if m.can_be_made for v in m.versions]


@pytest.mark.parametrize("path", EACH_NOTEBOOK)
def test_solutions_are_right_and_stubs_are_not_attempted(path):
    solved = answers(path)
    stubs = answers(paths.ROOT / "exercises" / path.name)
    number = int(path.name[:2])
    assert list(solved) == [e.name for e in ALL if e.chapter == number] == list(stubs)
    for name, answer in solved.items():
        assert judge(find(name), answer).kind == "right", name
        assert judge(find(name), answer).kind == "right", name
    for name, stub in stubs.items():
        assert judge(find(name), stub).kind == "not attempted", name


def test_every_exercise_was_answered_by_others_rightly_and_wrongly():
    right: Counter = Counter()
    wrong: Counter = Counter()
    for path in sorted(Path(__file__).parent.glob("test_exercise_answers_*.py")):
        for name, _, diagnosis in importlib.import_module(path.stem).ANSWERS:
            (wrong if diagnosis else right)[name] += 1

    for exercise in ALL:
        counts = f"{right[exercise.name]} right and {wrong[exercise.name]} wrong"
        enough = min(right[exercise.name], wrong[exercise.name]) >= 2
        assert enough, (
            f"{exercise.name} has {counts} answers of others; at least 2 of each are needed"
        )


@pytest.mark.slow
@pytest.mark.parametrize("exercise", EACH)
def test_every_mistake_can_be_made(exercise):
    names = [m.name for m in exercise.mistakes]
    assert len(set(names)) == len(names) >= 3
    for mistake in exercise.mistakes:
        assert mistake.diagnosis[-1] in ".?!)", mistake.name

    for mistake in made(exercise):
        make(exercise.task, (mistake,), exercise.exact)
        raised = [v.kind for _, v in exercise.results_of(mistake) if isinstance(v, Raised)]
        assert not SLIPS & set(raised), mistake.name


@pytest.mark.parametrize("exercise", EACH)
def test_the_probes_tell_all_mistakes_apart(exercise):
    """With half as much tolerance again as a check grants."""
    recorded = {(m.name, m.edit): exercise.results_of(m) for m in made(exercise)}
    recorded["the reference", ()] = exercise.results_of()
    for one, other in itertools.combinations(recorded, 2):
        equal = same_results(recorded[one], recorded[other], 1.5 * exercise.tolerance)
        assert not equal, f"{one} and {other}"


def spoil(value) -> None:
    """Destroy an argument in place."""
    if isinstance(value, torch.Tensor) and not value.requires_grad:
        value.zero_()
    if isinstance(value, (list, tuple)):
        for item in value:
            spoil(item)
    if isinstance(value, (list, dict)):
        value.clear()


@pytest.mark.slow
@pytest.mark.parametrize("exercise", EACH)
def test_an_answer_that_destroys_its_arguments_harms_no_later_check(exercise):
    reference = exercise.task.reference

    def vandal(*arguments):
        result = reference(*arguments)
        spoil(arguments)
        return result

    judge(exercise, vandal)
    assert judge(exercise, lambda *a, **k: reference(*a, **k)).kind == "right"


@pytest.mark.parametrize("exercise", BUGS, ids=lambda e: e.name)
def test_the_code_to_repair_has_a_bug_that_is_named(exercise):
    """Untouched it is not attempted; rewritten with the bug still in it, it is wrong."""
    given = exercise.task.given

    def rewritten(*arguments):
        return given(*arguments)

    assert judge(exercise, given).kind == "not attempted"
    verdict = judge(exercise, rewritten)
    assert verdict.kind == "wrong" and len(verdict.mistakes) == 1


def test_the_course_asks_enough():
    for chapter in sorted({0} | {found.number for found in all_chapters()}):
        mine = [e for e in ALL if e.chapter == chapter]
        assert len(mine) >= (5 if chapter == 0 else 3)
        assert chapter == 0 or any(e in BUGS for e in mine)
    for exercise in ALL:
        least = 6 if exercise.name in ("attention", "causal_mask", "sampler") else 3
        assert len(exercise.mistakes) >= least, exercise.name
        assert len(exercise.hints) >= 3 and exercise.task.minutes > 0, exercise.name
        assert exercise.explanation, exercise.name


@pytest.mark.parametrize("path", EACH_NOTEBOOK)
def test_every_task_offers_its_hints_and_its_solution(path):
    cells = [c.source for c in nbformat.read(path, as_version=4).cells]
    mine = [e for e in ALL if e.stem == path.stem]
    for exercise in mine:
        for call in ("hint", "solution"):
            assert f'# {call}("{exercise.name}")' in cells
    assert sum(source.startswith("## ") for source in cells) == len(mine)


def test_where_to_look_is_a_place_that_exists():
    headings = {
        c.number: set(re.findall(r"^#{2,3} (.+)$", "\n".join(c.markdown), re.MULTILINE))
        for c in all_chapters()
    }
    looks = {look for e in ALL for look in (e.look, *(m.look for m in e.mistakes))}
    places = [(int(n), h) for look in looks for n, h in re.findall(r'chapter (\d+), "(.+?)"', look)]
    assert len(places) >= 8
    assert [place for place in places if place[1] not in headings[place[0]]] == []


def test_exercises_are_in_step_with_solutions():
    assert generate.out_of_step() == "", "run: python -m courseware generate"


@pytest.mark.slow
def test_the_bounds_of_the_mlp_bigram_are_those_of_counted_bigrams():
    warmups = importlib.import_module("courseware.exercises.answers.00_warmups")
    train, val, size = warmups.bigram_data()

    def loss(ids, add):
        counts = torch.full((size, size), add, dtype=torch.float64)
        counts.index_put_((ids[:-1], ids[1:]), torch.ones(len(ids) - 1).double(), accumulate=True)
        chosen = (counts / counts.sum(1, keepdim=True))[val[:-1], val[1:]]
        return float(-chosen.log().mean())

    assert round(loss(train, 0.1), 2) == 2.41
    assert round(loss(val, 0.0), 2) == 2.34  # no function of one character can be below this
    assert warmups.LOWEST < loss(val, 0.0) < loss(train, 0.1) < warmups.HIGHEST
