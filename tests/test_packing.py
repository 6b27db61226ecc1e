"""Chapter 13: the packing explorer and its twin in JavaScript."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node

from courseware.widgets.packing import describe, draw, packing, packing_data, rows

DATA = packing_data([5, 1, 300, 17, 128, 129, 64, 2, 1000, 33])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
    st.integers(1, 40),
    st.sampled_from(["padded", "packed"]),
)
def test_rows_hold_every_token_once_and_in_order(lengths, block, method):
    found = rows(lengths, block, method)

    owners = [i for row in found for i, n in row for _ in range(n)]
    assert owners == [i for i, n in enumerate(lengths) for _ in range(n)]
    assert all(sum(n for _, n in row) <= block for row in found)
    if method == "packed":
        assert len(found) == -(-sum(lengths) // block)
    else:
        assert len(found) == sum(-(-n // block) for n in lengths)
        assert all(len(row) == 1 for row in found)


def test_the_twin_says_and_draws_the_same():
    states = [{"block": b, "method": m} for b in DATA["blocks"] for m in DATA["methods"]]
    each = "[m.describe(data, s), m.draw(data, s), m.rows(data.lengths, s.block, s.method)]"

    theirs = in_node("packing.js", f"data.states.map((s) => {each})", {**DATA, "states": states})

    ours = [[describe(DATA, **s), draw(DATA, **s), rows(DATA["lengths"], **s)] for s in states]
    assert theirs == json.loads(json.dumps(ours))


def test_the_widget_follows_its_controls():
    method, block, view = packing(DATA).children
    assert "Padded: 10 documents of 1679 tokens need" in view.value

    method.value = "packed"
    block.value = 1024

    words = "Packed: 10 documents of 1679 tokens need 2 rows of 1024; 369 of 2048 places (18.0%)"
    assert f"{words} are empty." in view.value
    assert view.value.count("display:flex") == 2
    assert "all rows" in view.value
