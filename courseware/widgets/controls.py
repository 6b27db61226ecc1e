"""Connect the controls of a widget with its picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import ipywidgets


def redraw_on_change(controls: Iterable[ipywidgets.Widget], redraw: Callable[[], None]) -> None:
    """Call `redraw` now, and again whenever the value of one of the controls changes."""
    for control in controls:
        control.observe(lambda change: redraw(), names="value")
    redraw()
