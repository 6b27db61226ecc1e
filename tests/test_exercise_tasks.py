"""Tasks are read from the solutions notebooks; a missing or damaged one is named, and harms only its own chapter."""

from __future__ import annotations

import inspect
import json
import traceback

import pytest

from courseware import paths
from courseware.exercises import check, find, solution
from courseware.exercises.tasks import SolutionsError, task, tasks


@pytest.fixture
def solutions(tmp_path, monkeypatch):
    """A course with one solutions notebook of our own; return a function that writes its cells."""
    (tmp_path / "solutions").mkdir()
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "STATE", tmp_path / ".course")
    tasks.cache_clear()

    def write(*cells, raw=None):
        data = {
            "cells": [{"cell_type": kind, "source": text.splitlines(True)} for kind, text in cells]
        }
        path = tmp_path / "solutions" / "05_attention.ipynb"
        path.write_text(raw if raw is not None else json.dumps(data), encoding="utf-8")
        tasks.cache_clear()

    yield write
    tasks.cache_clear()


HEADING = ("markdown", "## 1. Twice as much\n\n*5 minutes, hard (●●●). Chapter 5.*\n\nDouble x.")
ANSWER = (
    "code",
    "def double(x):\n    ### BEGIN SOLUTION\n    return FACTOR * x\n    ### END SOLUTION",
)
CHECK = ("code", 'check("step_mask", double)')


def test_a_notebook_says_it_all(solutions):
    solutions(("code", "FACTOR = 2"), HEADING, ANSWER, CHECK, ("code", '# hint("step_mask")'))
    found = task("05_attention", "step_mask")
    assert (found.title, found.minutes, found.difficulty) == ("Twice as much", 5, 3)
    assert found.reference(4) == 8 and found.given is None
    assert found.source == "def double(x):\n    return FACTOR * x"
    assert inspect.getsource(found.reference).rstrip() == found.source
    with pytest.raises(TypeError) as error:
        found.reference(None)
    assert "return FACTOR * x" in "".join(traceback.format_exception(error.value))


def test_a_bug_to_find_is_the_stub(solutions):
    heading = ("markdown", "## 1. Find the bug: half as much\n\n*5 minutes, easy (●○○).*")
    stub = ANSWER[1].replace("    return", "    ### STUB: return x\n    return")
    solutions(("code", "FACTOR = 2"), heading, ("code", stub), CHECK)
    found = task("05_attention", "step_mask")
    assert found.given(4) == 4 and found.reference(4) == 8
    assert inspect.getsource(found.given).rstrip() == "def double(x):\n    return x"


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([HEADING, ANSWER], 'no check("step_mask"'),
        ([HEADING, CHECK], "cell 2 cannot be used: there is no ### BEGIN SOLUTION before"),
        ([ANSWER, CHECK], "should have a heading"),
        ([("markdown", "## 1. A\n\n*5 minutes, tough (●●●).*"), ANSWER, CHECK], "hard (●●●)"),
        ([("markdown", "## 1. A\n\n*Easy.*"), ANSWER, CHECK], "*20 minutes, medium"),
        ([HEADING, ("code", ANSWER[1].replace("    ### END", "    # END")), CHECK], "without ### END"),
        ([HEADING, ANSWER, ("code", 'check("step_mask", triple)')], "defines no triple"),
        ([("code", "import torhc"), HEADING, ANSWER, CHECK], "No module named 'torhc'"),
        ([HEADING, ("code", ANSWER[1] + "\n)"), CHECK], "SyntaxError"),
    ],
)  # fmt: skip
def test_a_damaged_notebook_is_named_with_a_remedy(solutions, cells, words):
    solutions(*cells)
    with pytest.raises(SolutionsError) as error:
        task("05_attention", "step_mask").reference(1)
    text = str(error.value)
    assert text.startswith("solutions/05_attention.ipynb") and words in text
    assert "Bring back the course's own copy" in text


@pytest.mark.parametrize("raw", ["", "{", "[]", "{}", '{"cells": null}', '{"cells": [{}]}', "null"])
def test_a_file_that_is_no_notebook(solutions, raw):
    solutions(raw=raw)
    with pytest.raises(SolutionsError, match="solutions/05_attention.ipynb cannot be used"):
        tasks("05_attention")


def test_a_learner_reads_a_card_and_not_a_traceback(solutions):
    exercise = find("step_mask")
    assert exercise.memory is not None
    for card in (check("step_mask", lambda n_new, n_cached: 1), solution("step_mask")):
        assert "solutions/05_attention.ipynb cannot be used: it is missing" in repr(card).replace(
            "\n", " "
        )
    assert not (paths.STATE / "progress.json").exists()
