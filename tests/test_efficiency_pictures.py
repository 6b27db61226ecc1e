"""What chapter 17 measures memory with, and what it draws: tensors that are followed, tiles, coloured texts."""

from __future__ import annotations

import pytest
import torch

from courseware.checks.memory import Allocations
from courseware.checks.refusals import refused
from courseware.widgets import expert_text, tile_pictures


def test_tensors_are_counted_until_they_are_freed():
    with Allocations() as seen:
        first = torch.zeros(1000)
        second = first + 1
        assert seen.now == 8000
        del first
        assert seen.now == 4000
        second.add_(1)
        view = second[:10].reshape(2, 5).T
        assert (seen.now, seen.peak) == (4000, 8000)
        del second
        assert seen.now == 4000, "a view keeps the whole storage"
        del view
        assert seen.now == 0
        torch.zeros(250)
        torch.zeros(250)
    assert (seen.now, seen.peak) == (0, 8000)
    assert seen.operations[:3] == ["zeros", "add", "add_"]


def test_what_the_gradient_needs_is_counted():
    x = torch.randn(1000, requires_grad=True)
    with Allocations() as seen:
        y = (x.exp() * 2).sum()
    assert 4000 <= seen.now <= 4100
    with seen:
        y.backward()
    assert seen.now >= 4000, "the gradient stays"
    assert x.grad is not None


def test_storages_from_before_do_not_count():
    x = torch.randn(1000)
    with Allocations() as seen:
        x.mul_(2)
        _ = x[5:].view(5, 199)
    assert seen.peak == 0


def test_a_text_is_coloured_character_by_character():
    html = expert_text.to_html(["a", "<", "\n"], [0, 7, 0], "three characters", "a caption")
    assert html.count('<span style="background:#0072B266"') == 2
    assert "&lt;" in html
    assert "⏎\n" in html
    assert "<figcaption>a caption</figcaption>" in html
    assert 'aria-label="three characters"' in html


def test_wrong_texts_are_refused():
    refused(["2 tokens", "1 experts"], expert_text.to_html, ["a", "b"], [0], "alt")
    refused(["0 to 7", "8"], expert_text.to_html, ["a"], [8], "alt")
    refused("description", expert_text.to_html, ["a"], [0], " ")


@pytest.mark.parametrize(
    "draw",
    [
        tile_pictures.shared_heads,
        tile_pictures.tiles,
        lambda: tile_pictures.tiles(6, window=2, sinks=1),
        tile_pictures.queue,
    ],
)
def test_drawings_fit_on_a_phone_and_say_what_they_show(draw, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "courseware.widgets.drawings.show_figure", lambda html, alt: shown.append((html, alt))
    )
    draw()
    ((html, alt),) = shown
    assert "max-width:440px" in html
    assert len(alt) > 60


def test_rows_of_heads_are_counted_in_words_that_one_would_say(monkeypatch):
    shown = []
    monkeypatch.setattr(
        "courseware.widgets.drawings.show_figure", lambda html, alt: shown.append(html)
    )
    tile_pictures.shared_heads()
    for words in ("4 key heads", "2 key heads", "1 key head<"):
        assert f">{words}" in shown[0], words
