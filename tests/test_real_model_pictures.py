"""What chapter 19 draws of the heads of a model: a cell for each, the best named in the text."""

from __future__ import annotations

import pytest

from courseware.widgets import figures, real_model_pictures


def test_the_picture_of_heads_has_a_row_for_each_head_and_names_the_best(monkeypatch):
    shown = {}

    def show(fig, alt, caption):
        shown.update(image=fig.axes[0].images[0], axes=fig.axes[0], alt=alt)

    monkeypatch.setattr(figures, "show", show)

    real_model_pictures.head_scores([[0.0, 0.1], [0.35, 0.2], [0.05, 0.9]])  # 3 layers of 2 heads

    assert shown["image"].get_array().tolist() == [
        pytest.approx([0.0, 0.35, 0.05]),
        pytest.approx([0.1, 0.2, 0.9]),
    ]
    assert shown["image"].get_clim() == (0, 1)
    assert (shown["axes"].get_xlabel(), shown["axes"].get_ylabel()) == ("layer", "head")
    assert "each of 6 heads" in shown["alt"]
    assert "0.90, of head 1 in layer 2; 2 heads have more than 0.3" in shown["alt"]


def test_layers_with_different_numbers_of_heads_are_refused():
    with pytest.raises(ValueError):
        real_model_pictures.head_scores([[0.1, 0.2], [0.3]])
