"""What a reader of the chapters would stumble over: torn comments, and messages below a folded proof."""

from __future__ import annotations

import re

import nbformat
import pytest

from courseware import paths

CHAPTERS = sorted((paths.CODE / "notebooks").glob("*.ipynb"))
# A comment behind nothing but a closing bracket, or behind a lone None: the formatter broke the line because of it.
TORN = re.compile(r"\s*(?:[)\]}]+[,:]?|None)  # (?!fmt: |noqa|\()")

every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


@every_chapter
def test_no_comment_has_torn_the_expression_before_it(path):
    lines = [line for cell in code_cells(path) for line in cell.source.split("\n")]

    assert [line for line in lines if TORN.match(line)] == []


@every_chapter
def test_a_proof_that_holds_says_nothing(path):
    proofs = [cell for cell in code_cells(path) if cell.source.startswith("#| check")]

    assert [cell.source.split("\n")[0] for cell in proofs if cell.outputs] == []


@every_chapter
def test_the_verdict_on_a_run_is_shown_once(path):
    shown = [cell for cell in code_cells(path) if "compare_run(" in cell.source]

    assert [
        c.source for c in shown if any(o.output_type == "execute_result" for o in c.outputs)
    ] == []
