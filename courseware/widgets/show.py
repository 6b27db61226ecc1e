"""Show a widget in JupyterLab and its twin, which needs no Python, on the website."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

from courseware.widgets.markup import described

if TYPE_CHECKING:
    from ipywidgets import Widget

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def show(widget: Widget, twin: str, data: Any, alt: str) -> None:
    """Display `widget`; on the website, `book/_static/twins/<twin>.js` is mounted in its place with `data`.

    data: anything that JSON can hold. Where neither Python nor JavaScript runs, readers see `alt`. Raises ValueError
    if `twin` is not a lower-case name with hyphens, `alt` is empty, or `data` holds what JSON cannot.
    """
    import ipywidgets
    from IPython.display import display

    from courseware.widgets.controls import light_arrows

    if isinstance(widget, ipywidgets.Box):
        widget.children = (*widget.children, light_arrows())
    display(mime_bundle(widget, twin, data, alt), raw=True)


def mime_bundle(widget: Widget, twin: str, data: Any, alt: str) -> dict[str, Any]:
    """Return what `show` displays, by MIME type: the widget, its twin, and `alt` as plain text."""
    bundle = {"text/html": twin_html(twin, data, alt), "text/plain": alt}
    view = widget._repr_mimebundle_() or {}
    if isinstance(view, tuple):  # (data, metadata), which IPython allows too
        view = view[0]
    if _WIDGET in view:
        bundle[_WIDGET] = view[_WIDGET]
    return bundle


def twin_html(twin: str, data: Any, alt: str) -> str:
    """Return the element in which the website mounts a twin: its name, its data, and `alt` until then.

    Raises ValueError as `show` does.
    """
    if not _NAME.fullmatch(twin):
        raise ValueError(f"expected a twin's name such as 'bpe-merges', got {twin!r}")
    described(alt, "widget")
    return (
        f'<div class="twin" data-twin="{twin}">'
        f'<script type="application/json">{_safe_json(data)}</script>'
        f'<p class="twin-alt">{html.escape(alt)}</p></div>'
    )


def _safe_json(data: Any) -> str:
    """Return `data` as JSON that no HTML parser can mistake for markup such as `</script>`."""
    try:
        text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected data of lists, dicts, strings and numbers: {error}") from None
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
