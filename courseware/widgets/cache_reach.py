"""The reach explorer of chapter 17: which keys a token may read, and how many bytes a cache keeps."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import paragraphs

TOKENS = 24  # in the picture
TEXTS = (1024, 4096, 8192, 32_768, 131_072)  # lengths of texts, in tokens
KEY_HEADS = (1, 2, 4, 8, 16, 32)
_QUERY = COLOURS["query"]
_KEY = COLOURS["key"]
_VALUE = COLOURS["value"]
# Of the table of pairs and of the row of heads, in an SVG 340 units wide:
_LEFT = 30
_WIDE = 288
_CELL = _WIDE // TOKENS


def reach_data() -> dict[str, Any]:
    """Return the sizes of Llama 3 8B with a cache in bfloat16, and the choices."""
    from minigpt_lib.model import GPTConfig

    config = GPTConfig.preset("llama3_8b")
    return {
        "model": "Llama 3 8B",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "head_dim": config.head_dim,
        "number": 2,  # bytes
        "tokens": TOKENS,
        "key_heads": list(KEY_HEADS),
        "texts": list(TEXTS),
    }


def reads(data: dict[str, Any], window: int, sinks: int, token: int) -> list[int]:
    """Return the places that a token may read; a window of all tokens in the picture is the whole past."""
    whole = window == data["tokens"]
    return [j for j in range(token + 1) if whole or token - j < window or j < sinks]


def kept(data: dict[str, Any], window: int, sinks: int, token: int) -> list[int]:
    """Return the places that a rolling cache keeps after a token: what the next one may read, but for itself."""
    whole = window == data["tokens"]
    return [j for j in range(token + 1) if whole or token + 1 - j < window or j < sinks]


def held(data: dict[str, Any], window: int, sinks: int, n_tokens: int) -> int:
    """Return how many tokens of a text of n_tokens the cache holds in the end."""
    whole = window == data["tokens"]
    return n_tokens if whole else min(n_tokens, window - 1 + sinks)


def per_token(data: dict[str, Any], n_kv_head: int) -> int:
    """Return the bytes that a cache takes for one token: keys and values of all layers."""
    return 2 * data["n_layer"] * n_kv_head * data["head_dim"] * data["number"]


def size(n_bytes: int) -> str:
    """Return bytes in kB, MB or GB, with one decimal; a half is rounded up."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{math.floor(10 * n_bytes / factor + 0.5) / 10:.1f} {unit}"
    return f"{n_bytes} bytes"


def _ranges(places: list[int]) -> str:
    """Return ascending places in words, such as "0, and 4 to 7"."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return ", and ".join(f"{a} to {b}" if a < b else f"{a}" for a, b in runs)


def describe(
    data: dict[str, Any], n_kv_head: int, window: int, sinks: int, token: int, text: int
) -> list[str]:
    """Return three sentences: what a token reads, the bytes of one token, and those of a whole text."""
    places = reads(data, window, sinks, token)
    n_head = data["n_head"]
    one = per_token(data, n_kv_head)
    n_held = held(data, window, sinks, text)
    whole = text * per_token(data, n_head)
    now = n_held * one

    if now == 0:
        share = "nothing at all"
    elif now == whole:
        share = f"{size(now)}, all that multi-head attention keeps"
    else:
        share = (
            f"{size(now)}, 1/{math.floor(whole / now + 0.5):,} of what multi-head attention keeps"
        )
    return [
        f"Token {token} reads {len(places)} of {token + 1} key{'' if token == 0 else 's'}: {_ranges(places)}.",
        f"{data['model']} with {n_kv_head} key head{'' if n_kv_head == 1 else 's'}: a token takes "
        f"2 × {data['n_layer']} layers × {n_kv_head} × {data['head_dim']} numbers of {data['number']} bytes, "
        f"{one:,} bytes.",
        f"After {text:,} tokens the cache holds {n_held:,}: {share}.",
    ]


def _cells(cells: list[tuple[int, int]], top: int) -> str:
    """Return the path of square cells (row, column) of the table, whose first row is at `top`."""
    side = _CELL - 1
    return "".join(
        f"M{_LEFT + _CELL * column} {top + _CELL * row}h{side}v{side}h-{side}z"
        for row, column in cells
    )


def _words(x: int, y: int, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" font-size="15" text-anchor="{anchor}" fill="currentColor">{text}</text>'


def _heads(data: dict[str, Any], n_kv_head: int) -> str:
    """Return the row of query heads above the heads of keys and values that they share."""
    n_head = data["n_head"]
    parts = [_words(_LEFT, 16, f"{n_head} query heads, {n_kv_head} of keys and values")]
    narrow = _WIDE / n_head
    wide = _WIDE / n_kv_head
    for head in range(n_head):
        x = _LEFT + narrow * head
        parts.append(
            f'<rect x="{x:.1f}" y="24" width="{narrow - 1.5:.1f}" height="12" fill="{_QUERY}"/>'
        )
    for group in range(n_kv_head):
        x = _LEFT + wide * group
        parts.append(
            f'<rect x="{x:.1f}" y="41" width="{wide - 1.5:.1f}" height="12" fill="{_KEY}"/>'
        )
    return "".join(parts)


def draw(
    data: dict[str, Any], n_kv_head: int, window: int, sinks: int, token: int, text: int
) -> str:
    """Return the picture: the heads, the table of pairs with one token's row, what is kept, and a bar of bytes."""
    n = data["tokens"]
    top = 88
    below = top + _CELL * n + 8  # the row of what is kept
    bar = below + 52
    others = [
        (row, column)
        for row in range(n)
        if row != token
        for column in reads(data, window, sinks, row)
    ]
    mine = [(token, column) for column in reads(data, window, sinks, token)]
    later = [(0, column) for column in kept(data, window, sinks, token)]
    whole = text * per_token(data, data["n_head"])
    share = held(data, window, sinks, text) * per_token(data, n_kv_head) / whole

    return (
        f'<svg viewBox="0 0 340 {bar + 34}" aria-hidden="true" style="display:block;width:100%;'
        'max-width:25rem;height:auto">'
        f"{_heads(data, n_kv_head)}"
        f"{_words(_LEFT, 80, 'keys 0 to ' + str(n - 1) + ' →')}"
        f"{_words(_LEFT - 6, top + _CELL * token + 11, str(token), 'end')}"
        f'<path d="{_cells(others, top)}" fill="currentColor" fill-opacity="0.22"/>'
        f'<path d="{_cells(mine, top)}" fill="{_QUERY}"/>'
        f'<path d="{_cells(later, below)}" fill="{_KEY}"/>'
        f"{_words(_LEFT, below + 30, 'orange: kept for the next token')}"
        f'<rect x="{_LEFT}" y="{bar}" width="{_WIDE}" height="12" fill="none" stroke="currentColor"/>'
        f'<rect x="{_LEFT}" y="{bar}" width="{max(math.floor(_WIDE * share + 0.5), 1)}" height="12" fill="{_VALUE}"/>'
        f"{_words(_LEFT, bar + 29, f'the cache after {text:,} tokens')}</svg>"
    )


def cache_reach(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the explorer: sliders for key heads, window, sinks, a token and a text; the picture, three sentences.

    data: that of `reach_data`.
    """
    wide = {"description_width": "6rem"}
    n = data["tokens"]
    heads = ipywidgets.SelectionSlider(
        options=data["key_heads"], value=8, description="Key heads", style=wide
    )
    windows = [(str(w), w) for w in range(1, n)] + [("whole past", n)]
    window = ipywidgets.SelectionSlider(options=windows, value=n, description="Window", style=wide)
    sinks = ipywidgets.IntSlider(value=0, min=0, max=4, description="Sinks", style=wide)
    token = ipywidgets.IntSlider(value=17, min=0, max=n - 1, description="Token", style=wide)
    lengths = [(f"{length:,}", length) for length in data["texts"]]
    text = ipywidgets.SelectionSlider(options=lengths, value=8192, description="Text", style=wide)
    view = ipywidgets.HTML()

    def redraw() -> None:
        chosen = (heads.value, window.value, sinks.value, token.value, text.value)
        view.value = draw(data, *chosen) + paragraphs(describe(data, *chosen))

    redraw_on_change([heads, window, sinks, token, text], redraw)
    return ipywidgets.VBox([heads, window, sinks, token, text, view])
