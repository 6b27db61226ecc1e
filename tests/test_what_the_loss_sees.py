"""Chapter 14: the explorer of labels, and its twin in JavaScript."""

from __future__ import annotations

import pytest
from sft_dialogs import CHATS
from tools import in_node

from courseware.widgets.what_the_loss_sees import (
    DIALOGS,
    describe,
    draw,
    loss_data,
    loss_view,
    row_of,
)


@pytest.fixture(scope="module")
def data():
    """Return the explorer's data, with a dialog whose characters HTML must escape."""
    odd = [
        {"role": "user", "content": "a < b & 'c'"},
        {"role": "assistant", "content": '"\n d"'},
    ]
    return loss_data(CHATS, {**DIALOGS, "<b>": odd})


@pytest.mark.parametrize("form", CHATS)
@pytest.mark.parametrize("name", DIALOGS)
def test_the_explorer_shows_which_tokens_are_learned(data, form, name):
    chat = CHATS[form]
    ids, labels = chat.render(DIALOGS[name])

    row = row_of(data, form, name, False)

    assert [token[2] for token in row] == [int(label >= 0) for label in labels]
    assert "".join(token[0] for token in row) == chat.decode(ids)
    assert sum(token[1] for token in row) == sum(i in chat.controls for i in ids)


def test_the_twin_says_and_draws_the_same(data):
    states = [
        {"form": form, "dialog": dialog, "packed": packed, "i": i}
        for form in data["formats"]
        for dialog in data["dialogs"]
        for packed in (False, True)
        for i in (0, 1, 12, 20, 400)
    ]
    call = "data.states.map((s) => [m.describe(data, s), m.draw(data, s)])"

    theirs = in_node("what-the-loss-sees.js", call, {**data, "states": states})

    assert theirs == [[describe(data, **state), draw(data, **state)] for state in states]


def test_the_widget_follows_its_controls(data):
    dialog, form, packed, place, view = loss_view(data).children
    assert "Token 12, “Yes" in view.value or "Token 12" in view.value

    form.value = "llama3"
    assert "begin_of_text" in view.value

    dialog.value = "system and two turns"
    packed.value = True
    place.value = place.max
    assert "none of the" in view.value
    assert f"Token {place.max}" in view.value

    packed.value = False
    assert "none of the" not in view.value
