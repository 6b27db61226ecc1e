"""Chapter 20: the Newton-Schulz steps, against torch on the whole matrix, and their twin in JavaScript."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from tools import in_node

from courseware.widgets import muon_steps
from courseware.widgets.muon_steps import (
    COLUMNS,
    RATIOS,
    ROWS,
    STEPS,
    composed,
    describe,
    draw,
    muon_data,
    singular_values,
    stepped,
)

DATA = muon_data()
KINDS = [tuple(kind["coefficients"]) for kind in DATA["kinds"]]
STATES = list(product(RATIOS, range(len(KINDS)), (0, 1, 2, 5, STEPS)))


def iterated(matrix: torch.Tensor, coefficients, steps: int) -> torch.Tensor:
    """Return the matrix after the same steps, without taking it apart."""
    a, b, c = coefficients
    for _ in range(steps):
        gram = matrix @ matrix.T
        matrix = a * matrix + (b * gram + c * gram @ gram) @ matrix
    return matrix


def test_the_singular_vectors_are_orthonormal():
    left, right = (torch.tensor(DATA[name], dtype=torch.float64) for name in ("left", "right"))

    assert left.shape == (ROWS, ROWS)
    assert right.shape == (ROWS, COLUMNS)
    eye = torch.eye(ROWS, dtype=torch.float64)
    assert torch.allclose(left.T @ left, eye, atol=1e-11)
    assert torch.allclose(right @ right.T, eye, atol=1e-11)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_values_are_uneven_by_the_ratio_and_have_a_norm_of_1(ratio):
    values = singular_values(ratio)

    assert max(values) / min(values) == pytest.approx(ratio)
    assert sum(value * value for value in values) == pytest.approx(1)


@pytest.mark.parametrize(("ratio", "kind", "steps"), STATES)
def test_stepping_the_values_is_stepping_the_matrix(ratio, kind, steps):
    before = singular_values(ratio)
    gradient = torch.tensor(composed(DATA, before), dtype=torch.float64)

    after = [stepped(value, KINDS[kind], steps) for value in before]

    expected = iterated(gradient, KINDS[kind], steps)
    assert torch.allclose(
        torch.tensor(composed(DATA, after), dtype=torch.float64), expected, rtol=0, atol=1e-9
    )
    found = torch.linalg.svdvals(expected).tolist()
    assert sorted(after) == pytest.approx(sorted(found), rel=0, abs=1e-9)


def test_the_sentences_name_the_values():
    start, after, near = describe(DATA, 100, 0, 5)

    assert start.startswith("Five singular values, the largest 100 times the smallest; divided")
    assert after.startswith("After 5 steps of Muon's quintic: 0.")
    assert near == "Near 0, a step multiplies by 3.44."
    assert "After no steps of the classic cubic" in describe(DATA, 3, 1, 0)[1]
    assert "After 1 step of" in describe(DATA, 3, 1, 1)[1]
    assert describe(DATA, 1, 1, STEPS)[1].endswith("1.000. The largest is 1.0 times the smallest.")


def test_the_twin_computes_says_and_draws_the_same():
    names = ("ratio", "kind", "steps")
    states = [dict(zip(names, state, strict=True)) for state in STATES]
    each = (
        "[m.beforeAndAfter(data, s), m.composed(data, m.beforeAndAfter(data, s)[1]), "
        "m.describe(data, s), m.draw(data, s)]"
    )

    theirs = in_node("muon-steps.js", f"data.states.map((s) => {each})", DATA | {"states": states})

    for state, ((before, after), matrix, said, drawn) in zip(STATES, theirs, strict=True):
        ratio, kind, steps = state
        mine = [stepped(value, KINDS[kind], steps) for value in singular_values(ratio)]
        assert before == pytest.approx(singular_values(ratio), rel=0, abs=1e-9)
        assert after == pytest.approx(mine, rel=0, abs=1e-9)
        for row, my_row in zip(matrix, composed(DATA, mine), strict=True):
            assert row == pytest.approx(my_row, rel=0, abs=1e-9)
        assert said == describe(DATA, *state)
        assert drawn == draw(DATA, *state)


def test_the_picture_has_every_value_and_every_entry():
    picture = draw(DATA, 100, 0, 5)

    assert picture.count("<circle") == ROWS
    assert picture.count("fill-opacity") == 2 * ROWS * COLUMNS
    assert picture.count('role="img"') == 1
    assert picture.count("<svg") == picture.count('role="img"') + picture.count(
        '<svg viewBox="0 0 340'
    )


def test_the_widget_follows_its_controls():
    ratio, kind, steps, view = muon_steps.muon_steps(DATA).children
    assert "After 1 step of Muon&#x27;s quintic" in view.value

    steps.value = 5
    kind.value = 1
    ratio.value = 10
    assert "the largest 10 times the smallest" in view.value
    assert "After 5 steps of the classic cubic" in view.value
    assert draw(DATA, 10, 1, 5) in view.value


def test_show_displays_the_widget_and_its_twin(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))

    muon_steps.show()

    (bundle,) = shown
    assert 'data-twin="muon-steps"' in bundle["text/html"]
    assert bundle["text/plain"] == muon_steps.ALT
