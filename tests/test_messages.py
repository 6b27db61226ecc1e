"""What a tired person reads when something of theirs is wrong: a sentence that helps, and no traceback of our code."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import CHECK, EXPORT, SETUP, Course

from courseware import paths
from courseware.export import reset
from courseware.misused import Misused
from courseware.runs import bands

pytestmark = pytest.mark.slow

SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance(colors="NoColor")
said = []
for cell in json.load(sys.stdin):
    with capture_output() as captured:
        result = shell.run_cell(cell, store_history=True)
    said.append(captured.stdout)
json.dump(said, sys.stdout)
"""
IMPORTS = """
from courseware.exercises import check, hint, solution
from courseware.export import export
from courseware.runs.bands import compare_run, load_band
from courseware.runs.forecast import predict
band = load_band("04_baselines")
curves = zip(band["steps"], band["train_loss"]["mean"], band["val_loss"]["mean"])
high = [{"step": s, "train_loss": t + 1, "val_loss": v + 1} for s, t, v in curves]
wild = [{**record, "train_loss": float("nan"), "val_loss": float("nan")} for record in high]
"""
CASES = {
    # a wrong call
    'hint("step_maks")': "did you mean step_mask?",
    'check("step_maks", len)': "did you mean step_mask?",
    'solution("step_maks")': "did you mean step_mask?",
    'predict("loss", 1.9, "x")': 'expected a sentence such as "loss after 500 steps"',
    'predict("loss after 5 steps", -1, "x")': "expected a loss in nats per token, above 0",
    'predict("loss after 5 steps", 2)': 'run="10_training"',
    "export()": 'What to do: name it, for example export("05")',
    'export("77")': "What to do: the chapters are: 05_toy",
    # a wrong answer
    'check("step_mask", 3)': "Give it the function itself, without parentheses",
    'check("step_mask", lambda new, cached: None)': "Is there a return statement?",
    'check("step_mask", lambda new, cached: 1 / 0)': "it raised ZeroDivisionError in line 1",
    # a run outside its band
    'print(compare_run(high, "04_baselines", show=False))': "1. learning rate too low",
    'print(compare_run(wild, "04_baselines", show=False))': "the loss is no longer a number",
    'compare_run(high, "04_baseline")': "expected the name of a recorded band (04_baselines, ",
    'compare_run([], "04_baselines")': "keep the chapter's `eval_every`",
    'compare_run(high[-1], "04_baselines")': "expected the whole history of a run, a list of records",
    'compare_run(None, "04_baselines")': "got NoneType None. Pass what the training returned.",
    'compare_run([{"val_loss": 2.0}], "04_baselines")': "expected the whole history of a run",
}
TOO_MUCH = EXPORT.replace("operator.mul(x, 2)", "operator.mul(x, 3)")
NAMED = CHECK.replace("double(3) == 6", 'double(3) == 6, "three times: once too often"')


@pytest.fixture
def said(course: Course):
    """Return a function that runs cells in one IPython and returns what each of them printed."""

    def run(cells: list[str]) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", SHELL],
            input=json.dumps(cells),
            env={k: v for k, v in course.environment.items() if k != "JPY_SESSION_NAME"},
            cwd=course.root,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_no_mistake_ends_in_a_traceback_of_ours(course, said):
    course.good()
    (course.root / "solutions").mkdir()
    notebook = (paths.CODE / "solutions" / "05_attention.ipynb").read_bytes()
    (course.root / "solutions" / "05_attention.ipynb").write_bytes(notebook)

    outputs = said([IMPORTS, *CASES])[1:]

    for (call, words), text in zip(CASES.items(), outputs, strict=True):
        assert words in " ".join(text.split()), (call, text)
        assert "Traceback" not in text and "courseware/" not in text.replace(os.sep, "/"), text


def test_a_wrong_export_names_the_cause_and_the_cell(course, said):
    cells = [SETUP, TOO_MUCH, NAMED]
    course.chapter(*cells)
    text = said(["from courseware.export import export", *cells, 'export("05")'])[-1]
    assert text.startswith("Not exported: a check failed\nWhere: code cell 4 (`assert double(3)")
    assert "AssertionError: three times: once too often" in text
    assert "What to do: correct the code, run its cell and its check again, save" in text
    assert "Traceback" not in text


def test_a_chapter_to_be_written_says_what_is_left(course, said, monkeypatch):
    from courseware.export.code_along import code_along

    path = course.good()
    course.target.write_text("", encoding="utf-8")
    monkeypatch.setattr(paths, "ORIGINALS", course.root / "courseware/export/originals.json")
    reset.write_list()
    code_along("05")
    cells = ["".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"]]

    text = said(["from courseware.export import export", *cells[2:4], 'export("05")'])[-1]

    assert "what was executed is not what is saved" in text  # the check has not run
    text = said(["from courseware.export import export", *cells[2:], 'export("05")'])[-1]
    assert "chapter 05 still waits for you to write 1 part of it" in text
    assert "double" in text and "Traceback" not in text


@pytest.mark.parametrize(
    "history", [{"step": 1}, "text", [1], [{"val_loss": 1.0}], [{"step": 1, "val_loss": "2"}]]
)
def test_what_is_not_a_history_is_refused(history):
    with pytest.raises(Misused, match="expected the whole history of a run"):
        bands.compare_run(history, "04_baselines", show=False)
