"""The engine of the exercises: general diagnoses, comparison, cards, hints and progress."""

from __future__ import annotations

import html.parser
import math
import random
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from courseware import paths, progress
from courseware.exercises import check, find, hint, learner, registry, solution
from courseware.exercises.compare import Exactly, difference, same
from courseware.exercises.engine import Exercise, Verdict, judge
from courseware.exercises.tasks import Task


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "STATE", tmp_path / ".course")
    monkeypatch.setattr(learner, "_given", {})


SOURCE = "def f(x):\n    return x + 1"
TASK = Task("one", "One", 1, 1, "f", SOURCE, SOURCE.replace("x + 1", "x / 0"))


def one(reference=None, probe=1, task=TASK, **more):
    def run(answer):
        yield "f(1)", answer(probe)

    if reference is not None:
        task = Stand(reference)
    return Exercise("one", run, ("a",), "Because.", own_task=task, **more)


class Stand:
    """A task whose reference is a function of ours, with no source."""

    title, repair, given, source = "One", False, None, ""

    def __init__(self, reference):
        self.reference = reference

    def compiled(self, source):
        return self.reference


def fails(x):
    unused = x + 1
    return unused / 0


def prints(x):
    print(x + 1)


def leaves(x):
    raise SystemExit


def recurses(x):
    return recurses(x + 1)


def interrupts(x):
    raise KeyboardInterrupt


def stops(x):
    raise StopIteration


class Sure(int):
    """Claims to equal everything."""

    __hash__ = int.__hash__

    def __eq__(self, other):
        return True


class Mute:
    def __repr__(self):
        raise ValueError


def calls_torch(x):
    return torch.softmax(torch.ones(3, dtype=torch.long), 0)  # raises NotImplementedError


@pytest.mark.parametrize(
    ("answer", "diagnosis", "words"),
    [
        (lambda x: None, "returned None", "return statement"),
        (prints, "printed instead of returned", "Replace print"),
        (fails, "raised", "it raised ZeroDivisionError in line 3, `return unused / 0`: division"),
        (calls_torch, "raised", "`return torch.softmax(torch.ones(3, dtype=torch.long), 0)"),
        (lambda x: torch.nn.functional.linear(x, x), "raised", "`(lambda x: torch.nn"),
        (leaves, "left the program", "it called exit()"),
        (recurses, "endless recursion", "calls itself without end"),
        (interrupts, "raised", "KeyboardInterrupt"),
        (stops, "raised", "StopIteration"),
        (lambda: 1, "raised", "TypeError"),
        (lambda x: "2", "wrong type", "expected an int, got a str: '2'"),
        (lambda x: 3, "wrong value", "f(1): expected 2, got 3"),
        (lambda x: 2.0, "wrong type", "expected an int, 2, got a float: 2.0"),
        (lambda x: (n for n in [x]), "returned a generator", "has computed nothing yet"),
        (lambda x: Sure(7), "wrong value", "expected 2, got 7"),
        (lambda x: Mute(), "wrong type", "got a Mute: <Mute, whose repr raises ValueError>"),
        (5, "not a function", 'check("one", your_function)'),
    ],
)
def test_general_diagnoses(answer, diagnosis, words):
    verdict = judge(one(), answer)
    message = re.sub(r"in line \d+", "in line 3", verdict.message)
    assert (verdict.kind, verdict.diagnosis) == ("wrong", diagnosis), verdict
    assert words in message


@pytest.mark.parametrize("returned", [7, (1, 2, 3), None])
def test_a_result_that_cannot_be_unpacked_is_not_called_an_exception(returned):
    def run(answer):
        first, second = answer(1)
        yield "a pair", [first, second]

    exercise = Exercise("pair", run, ("a",), "", own_task=Stand(lambda x: (x, x)))
    verdict = judge(exercise, lambda x: returned)
    assert verdict.diagnosis == ("returned None" if returned is None else "wrong type")
    assert returned is None or repr(returned) in verdict.message


def test_a_changed_input_is_named_though_the_result_is_right():
    def in_place(values):
        values.sort()
        return values

    exercise = one(reference=sorted, probe=[3, 1, 2])
    assert judge(exercise, lambda values: sorted(values)).kind == "right"
    verdict = judge(exercise, in_place)
    assert verdict.diagnosis == "changed its input" and "`values`" in verdict.message


def test_an_endless_loop_is_stopped():
    def loop_forever(x):
        while True:
            x += 1

    begin = time.perf_counter()
    verdict = judge(one(seconds=0.2), loop_forever)
    assert verdict.diagnosis == "too slow or endless" and "never ends" in verdict.message
    assert time.perf_counter() - begin < 5


def test_chance_is_fixed_and_the_learners_own_is_left_alone():
    def draw(x):
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate()
    assert judge(one(), draw) == judge(one(), draw)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def todo(x):
    raise NotImplementedError("write this")


def same_as_given(x):
    """The code to repair under another name, with a docstring."""
    return x / 0  # and a comment


def half_done(x):
    if x > 1:
        raise NotImplementedError("write this")
    return x + 1


@pytest.mark.parametrize("answer", [None, ..., todo])
def test_not_attempted_is_not_wrong(answer):
    assert judge(one(), answer).kind == "not attempted"


def test_half_a_stub_is_wrong_and_code_to_repair_counts_when_it_changes():
    def run(answer):
        yield "f(1)", answer(1)
        yield "f(2)", answer(2)

    task = replace(TASK, title="Find the bug: two")
    exercise = Exercise("two", run, ("a",), "", own_task=task)
    assert judge(exercise, half_done).diagnosis == "raised"
    assert "f(2): it raised NotImplementedError" in judge(exercise, half_done).message
    assert judge(exercise, same_as_given).kind == "not attempted"
    assert judge(exercise, fails).kind == "wrong"


def values(*items):
    return torch.tensor(items)


@pytest.mark.parametrize(
    ("got", "want", "diagnosis"),
    [
        (values(1.0), np.array([1.0]), None),
        (values(1.0), values(1.1), "wrong value"),
        (values(math.nan), values(math.nan), None),
        (values(-math.inf), values(-math.inf), None),
        (values(1.0), values(-math.inf), "wrong value"),
        (values(1.0).double(), values(1.0), None),
        (values(1, 0), values(True, False), "wrong dtype"),
        (values(1), values(1.0), "wrong dtype"),
        (torch.ones(2), torch.ones(2, 1), "wrong shape"),
        ([1, 1], torch.ones(2), "wrong type"),
        (torch.ones(2), [1, 1], "wrong type"),
        (True, 1, "wrong type"),
        (np.int64(1), 1, None),
        (1, 1.0, None),
        (1.0, 1, "wrong type"),
        (1.5, 1, "wrong value"),
        (torch.ones(2, dtype=torch.int32), Exactly(values(1, 1)), "wrong dtype"),
        (torch.ones(2, dtype=torch.int32), values(1, 1), None),
        (values(1.0).double(), Exactly(values(1.0)), "wrong dtype"),
        ((1, 2), Exactly([1, 2]), "wrong type"),
        ([1, [values(2)]], Exactly([1, [values(2)]]), None),
        ({"a": 1.0}, Exactly({"a": 1.0}), None),
        ("a", b"a", "wrong type"),
        ([1, (2, 3)], [1, [2, 3]], None),
        ([1, 2], [1, 2, 3], "wrong length"),
        ([1, "2"], [1, 2], "wrong type"),
        ({"a": 1}, {"a": 2}, "wrong value"),
        ({"a": 1}, {"b": 1}, "wrong keys"),
        (math.inf, math.inf, None),
        (1.0, -math.inf, "wrong value"),
        (math.inf, 1.0, "wrong value"),
        (math.inf, -math.inf, "wrong value"),
        (math.nan, math.nan, None),
        (np.ones(4)[::-2], values(1.0, 1.0), None),
        (values(), values(), None),
    ],
)
def test_comparison(got, want, diagnosis):
    found = difference(got, want)
    assert (found and found.diagnosis) == diagnosis
    assert same(got, want) is (diagnosis is None)


def test_the_first_difference_is_shown_with_its_place():
    want = torch.arange(12.0).view(3, 4)
    got = want.clone()
    got[1, 2] = -1
    assert "At [1, 2]: 6.0 expected, -1.0 found" in difference(got, want).text
    assert "At [1]: 2 expected, 5 found" in difference([1, 5], [1, 2]).text
    assert "expected shape (3, 4), got (12,)" in difference(want.flatten(), want).text


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_cards_and_progress():
    shown = check("char_codec", find("char_codec").task.reference)
    assert "Sorting makes the ids depend on the text" in repr(shown)
    assert "Right" in repr(shown) and "Right" in shown._repr_html_()
    assert progress.read()["exercise"]["char_codec"] == "right"
    wrong = check("extend_alphabet", lambda alphabet, text: "<script>")
    assert repr(wrong).startswith("Not yet") and "expected" in repr(wrong)
    assert "<script>" not in wrong._repr_html_()
    assert progress.read()["exercise"]["extend_alphabet"] == "wrong"
    assert "Fill" in repr(check("attention", None))
    assert "Repair" in repr(check("window_starts", None))
    for card in (shown, wrong, hint("attention"), solution("attention")):
        parser = Tags()
        parser.feed(card._repr_html_())
        assert not parser.open and "color:" not in card._repr_html_().replace("border-color:", "")


def test_a_title_that_ends_with_a_mark_gets_no_full_stop_behind_it():
    for exercise in registry().values():
        title = exercise.task.title
        shown = learner.card(exercise, Verdict("right")).heading
        assert shown == (f"Right: {title}" if title[-1] in ".?!" else f"Right: {title}.")


def test_hints_come_one_by_one_and_end():
    count = len(find("attention").hints)
    texts = [repr(hint("attention")) for _ in range(count)]
    assert len(set(texts)) == count and texts[0].startswith(f"Hint 1 of {count}")
    assert repr(hint("sampler")).startswith("Hint 1 of")
    for _ in range(2):
        assert "no more hints" in repr(hint("attention"))
    assert "def attention(q, k, v" in repr(solution("attention"))


@pytest.mark.parametrize("call", [lambda name: check(name, None), hint, solution])
def test_an_unknown_name_lists_the_nearest(call):
    with pytest.raises(ValueError, match="did you mean attention"):
        call("atention")
    with pytest.raises(ValueError, match="there is no exercise 'zzz'; did you mean .*attention, "):
        call("zzz")
