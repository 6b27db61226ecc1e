"""The sampler of chapter 11: a model's real probabilities for the next character, and what filters make of them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.tokens import visible

if TYPE_CHECKING:
    from torch import Tensor

    from minigpt_lib.char_tokenizer import CharTokenizer
    from minigpt_lib.model import MiniGPT

SHOWN = 12  # characters with a bar
_COLOUR = COLOURS["query"]


def sampler_data(
    model: MiniGPT, tokenizer: CharTokenizer, prompts: Sequence[str]
) -> dict[str, Any]:
    """Return {"alphabet", "prompts", "logits"}: the model's logits after each prompt, to three decimals."""
    import torch

    rows = []
    for prompt in prompts:
        with torch.inference_mode():
            logits, _ = model(torch.tensor([tokenizer.encode(prompt)]), last_only=True)
        rows.append([round(x, 3) for x in logits[0, -1].tolist()])

    alphabet = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    return {"alphabet": alphabet, "prompts": list(prompts), "logits": rows}


def spoken(character: str) -> str:
    """Return a character as a sentence names it."""
    return {"\n": "line break", " ": "space"}.get(character, character)


def settings(
    temperature: float, top_k: int, top_p: float, min_p: float, size: int
) -> dict[str, float | None]:
    """Return the positions of the sliders as arguments of filter_logits; at its end, a slider filters nothing.

    size: the number of characters, the end of the slider for top_k.
    """
    return {
        "temperature": temperature,
        "top_k": top_k if top_k < size else None,
        "top_p": top_p if top_p < 1 else None,
        "min_p": min_p if min_p > 0 else None,
    }


def probabilities(
    logits: Sequence[float], filter_logits: Callable[..., Tensor], **chosen: float | None
) -> tuple[list[float], list[int]]:
    """Return the softmax of the filtered logits, and the ids that are left."""
    import torch

    scores = filter_logits(torch.tensor([logits], dtype=torch.float32), **chosen)[0]
    left = [i for i, score in enumerate(scores.tolist()) if score > float("-inf")]
    return scores.softmax(dim=-1).tolist(), left


def describe(
    alphabet: Sequence[str],
    before: Sequence[float],
    after: Sequence[float],
    left: Sequence[int],
) -> str:
    """Return the sentence below the bars: how many characters are left, what they held, and which one leads."""
    best = max(left, key=lambda i: (after[i], -i))
    held = sum(before[i] for i in left)
    verb = "character is left; it" if len(left) == 1 else "characters are left; they"
    return (
        f"{len(left)} of {len(after)} {verb} held {100 * held:.1f} % of the model's probability. "
        f"First is “{spoken(alphabet[best])}”, now with {100 * after[best]:.1f} %."
    )


def ranked(before: Sequence[float]) -> list[int]:
    """Return the ids that get a bar, the likeliest first."""
    return sorted(range(len(before)), key=lambda i: (-before[i], i))[:SHOWN]


def _bars(
    alphabet: Sequence[str],
    before: Sequence[float],
    after: Sequence[float],
    left: Sequence[int],
) -> str:
    """Return a pale bar for each probability of the model, and a strong one for what the filters made of it."""
    top = max(*before, *after)
    box = "position:absolute;left:0;height:100%;border-radius:2px;background:"
    rows = []
    for i in ranked(before):
        pale = 100 * before[i] / top
        strong = 100 * after[i] / top
        share = f"{100 * after[i]:.1f} %" if i in left else "out"
        rows.append(
            f'<span style="font-family:monospace;text-align:right">{html.escape(visible(alphabet[i]))}</span>'
            f'<span style="position:relative;height:1.05rem">'
            f'<span style="{box}{_COLOUR}40;width:{pale:.1f}%"></span>'
            f'<span style="{box}{_COLOUR};width:{strong:.1f}%;height:60%;top:20%"></span></span>'
            f"<span>{share}</span>"
        )
    grid = "display:grid;grid-template-columns:2rem 1fr 4rem;gap:3px .6rem;max-width:36rem"
    return f'<div style="{grid}">{"".join(rows)}</div>'


def sampler(data: dict[str, Any], filter_logits: Callable[..., Tensor]) -> ipywidgets.VBox:
    """Return a menu of prompts, four sliders, the bars, a sentence, and a button that draws 20 characters.

    data: that of `sampler_data`. filter_logits: chapter 11's.
    """
    wide = {
        "style": {"description_width": "7rem"},
        "layout": {"width": "32rem", "max_width": "98%"},
    }
    alphabet = data["alphabet"]
    size = len(alphabet)
    prompt = ipywidgets.Dropdown(
        options=[(visible(text), i) for i, text in enumerate(data["prompts"])],
        description="After",
        **wide,
    )
    temperature = ipywidgets.FloatSlider(
        value=1, min=0, max=2, step=0.05, description="Temperature", **wide
    )
    top_k = ipywidgets.IntSlider(value=size, min=1, max=size, description="Top-k", **wide)
    top_p = ipywidgets.FloatSlider(value=1, min=0.05, max=1, step=0.05, description="Top-p", **wide)
    min_p = ipywidgets.FloatSlider(value=0, min=0, max=0.5, step=0.01, description="Min-p", **wide)
    view = ipywidgets.HTML()
    button = ipywidgets.Button(description="Draw 20 times")
    drawn = ipywidgets.HTML()

    def filtered() -> tuple[list[float], list[int]]:
        chosen = settings(temperature.value, top_k.value, top_p.value, min_p.value, size)
        return probabilities(data["logits"][prompt.value], filter_logits, **chosen)

    def redraw() -> None:
        before, _ = probabilities(data["logits"][prompt.value], filter_logits)
        after, left = filtered()
        sentence = html.escape(describe(alphabet, before, after, left))
        view.value = f"{_bars(alphabet, before, after, left)}<p>{sentence}</p>"
        drawn.value = ""

    def draw(_: ipywidgets.Button) -> None:
        import torch

        after, _left = filtered()
        ids = torch.multinomial(torch.tensor(after), 20, replacement=True).tolist()
        text = html.escape(" ".join(visible(alphabet[i]) for i in ids))
        drawn.value = f'<p style="font-family:monospace">{text}</p>'

    button.on_click(draw)
    redraw_on_change([prompt, temperature, top_k, top_p, min_p], redraw)
    return ipywidgets.VBox([prompt, temperature, top_k, top_p, min_p, view, button, drawn])
