"""Connect the controls of a widget with its picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import ipywidgets

# ipywidgets draws the arrow of a list in dark grey, which can't be seen on JupyterLab's dark theme.
_LIGHT_ARROW = (
    "data:image/svg+xml,"
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 18 18'%3E"
    "%3Cpath fill='%23e0e0e0' d='M5.2 5.9 9 9.7l3.8-3.8L14 7.1l-5 5-5-5z'/%3E%3C/svg%3E"
)
_DARK_THEME = 'body[data-jp-theme-light="false"]'


def redraw_on_change(controls: Iterable[ipywidgets.Widget], redraw: Callable[[], None]) -> None:
    """Call `redraw` now, and again whenever the value of one of the controls changes."""
    for control in controls:
        control.observe(lambda change: redraw(), names="value")
    redraw()


def light_arrows() -> ipywidgets.HTML:
    """Return a widget that nobody sees; where it is displayed, lists have a light arrow in JupyterLab's dark theme."""
    rule = f'{_DARK_THEME} {{ --jp-widgets-dropdown-arrow: url("{_LIGHT_ARROW}"); }}'
    return ipywidgets.HTML(f"<style>{rule}</style>", layout={"display": "none"})
