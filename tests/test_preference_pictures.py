"""Chapter 15's drawings show the numbers that they are given."""

from __future__ import annotations

import pytest

from courseware.widgets import preference_pictures


@pytest.fixture
def shown(monkeypatch):
    """Collect the (markup, spoken description) of what is displayed."""
    found = []
    for module in ("drawings", "figures"):
        name = f"courseware.widgets.{module}.show_figure"
        monkeypatch.setattr(name, lambda markup, alt: found.append((markup, alt)))
    return found


def test_the_way_to_the_loss_has_all_its_numbers(shown):
    preference_pictures.pair_to_loss(now=(-2, -5), was=(-3, -4), beta=0.5)

    ((markup, alt),) = shown
    for number in ("ln p = −2", "ln p = −5", "ln p = −3", "ln p = −4", "= 0.5", "= −0.5", "0.313"):
        assert number in markup, number
    assert "the loss, 0.313" in alt


def test_the_bars_have_every_model_and_every_kind(shown):
    kinds = {"correct": (0.6, 0.02), "wrong": (0.4, 0.02)}

    preference_pictures.bars({"before": kinds, "after": kinds}, alt="Bars of two models.")

    ((markup, alt),) = shown
    assert alt == "Bars of two models."
    for word in ("before", "after", "correct", "wrong"):
        assert f">{word}<" in markup, word
