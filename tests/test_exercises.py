"""The exercises: solutions pass, stubs are not attempted, every recorded wrong answer gets its own diagnosis."""

from __future__ import annotations

import itertools
import linecache
import re

import nbformat
import pytest
import torch

from courseware import paths
from courseware.chapters import all_chapters
from courseware.exercises import find, generate, registry
from courseware.exercises.engine import judge, same_results
from courseware.exercises.warmup_mlp import HIGHEST, LOWEST, bigram_data

ALL = list(registry().values())
WRONG = [(e, w) for e in ALL for w in e.wrong]
NOTEBOOKS = sorted((paths.ROOT / "solutions").glob("*.ipynb"))
CHECK = re.compile(r'^check\("(\w+)", (\w+)\)$')
BUGS = [e for e in ALL if e.title.startswith("find the bug")]


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


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)
def test_the_reference_is_right_twice(exercise):
    assert judge(exercise, exercise.reference).kind == "right"
    assert judge(exercise, exercise.reference).kind == "right"


@pytest.mark.parametrize(("exercise", "wrong"), WRONG, ids=lambda x: x.name)
def test_every_wrong_answer_gets_its_own_diagnosis(exercise, wrong):
    verdict = judge(exercise, wrong.answer)
    assert verdict.kind == "wrong"
    assert verdict.diagnosis == wrong.name
    assert verdict.message == wrong.diagnosis and verdict.look


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)
def test_the_probes_tell_all_recorded_answers_apart(exercise):
    """With half as much tolerance again as a check grants, for those that are compared by their results."""
    recorded = {w.name: exercise.results_of(w.name, w.answer) for w in exercise.wrong}
    assert len(recorded) == len(exercise.wrong), "two wrong answers of one name"
    recorded["the reference"] = exercise.results_of("reference", exercise.reference)
    if exercise.name == "mlp_bigram":  # its wrong answers name themselves
        recorded = {str(results[-1][1]): results for results in recorded.values()}
        assert len(recorded) == len(exercise.wrong) + 1
    for one, other in itertools.combinations(recorded, 2):
        equal = same_results(recorded[one], recorded[other], 1.5 * exercise.tolerance)
        assert not equal, f"{one} and {other}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_solutions_are_right_and_stubs_are_not_attempted(path):
    solved = answers(path)
    stubs = answers(paths.ROOT / "exercises" / path.name)
    number = int(path.name[:2])
    assert list(solved) == [e.name for e in ALL if e.chapter == number] == list(stubs)
    for name, answer in solved.items():
        assert judge(find(name), answer).kind == "right", name
    for name, stub in stubs.items():
        assert judge(find(name), stub).kind == "not attempted", name


@pytest.mark.parametrize("exercise", BUGS, ids=lambda e: e.name)
def test_the_code_to_repair_has_a_bug_that_is_on_record(exercise):
    """Untouched it is not attempted; rewritten with the bug still in it, it is wrong."""

    def rewritten(*arguments):
        return exercise.given(*arguments)

    assert judge(exercise, exercise.given).kind == "not attempted"
    verdict = judge(exercise, rewritten)
    assert verdict.kind == "wrong" and verdict.diagnosis in {w.name for w in exercise.wrong}


def test_the_course_asks_enough():
    for chapter in sorted({0} | {found.number for found in all_chapters()}):
        mine = [e for e in ALL if e.chapter == chapter]
        assert len(mine) >= (5 if chapter == 0 else 3)
        assert chapter == 0 or any(e in BUGS for e in mine)
    for exercise in ALL:
        least = 6 if exercise.name in ("attention", "causal_mask", "sampler") else 3
        assert len(exercise.wrong) >= least, exercise.name
        assert len(exercise.hints) >= 3 and exercise.minutes > 0, exercise.name
        assert (exercise.given is not None) == (exercise in BUGS), exercise.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_notebook_says_minutes_and_difficulty_as_the_registry_does(path):
    cells = [c.source for c in nbformat.read(path, as_version=4).cells]
    words = {1: "easy (●○○)", 2: "medium (●●○)", 3: "hard (●●●)"}
    tasks = [source for source in cells if source.startswith("## ")]
    for exercise, task in zip((e for e in ALL if e.chapter == int(path.name[:2])), tasks):
        assert f"*{exercise.minutes} minutes, {words[exercise.difficulty]}." in task
        for call in ("hint", "solution"):
            assert f'# {call}("{exercise.name}")' in cells
    assert len(tasks) == sum(e.chapter == int(path.name[:2]) for e in ALL)


def test_where_to_look_is_a_place_that_exists():
    headings = {
        c.number: set(re.findall(r"^#{2,3} (.+)$", "\n".join(c.markdown), re.MULTILINE))
        for c in all_chapters()
    }
    places = [
        (int(n), h) for _, w in WRONG for n, h in re.findall(r'chapter (\d+), "(.+?)"', w.look)
    ]
    assert len(places) >= 8
    assert [place for place in places if place[1] not in headings[place[0]]] == []


def test_exercises_are_in_step_with_solutions():
    assert generate.out_of_step() == "", "run: python -m courseware generate"


def test_the_bounds_of_the_mlp_bigram_are_those_of_counted_bigrams():
    train, val, size = bigram_data()

    def loss(ids, add):
        counts = torch.full((size, size), add, dtype=torch.float64)
        counts.index_put_((ids[:-1], ids[1:]), torch.ones(len(ids) - 1).double(), accumulate=True)
        chosen = (counts / counts.sum(1, keepdim=True))[val[:-1], val[1:]]
        return float(-chosen.log().mean())

    assert round(loss(train, 0.1), 2) == 2.41
    assert round(loss(val, 0.0), 2) == 2.34  # no function of one character can be below this
    assert LOWEST < loss(val, 0.0) < loss(train, 0.1) < HIGHEST
