"""The sampler of chapter 11: a model's real probabilities for the next character, and what filters make of them."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets

SHOWN = 12
_COLOUR = "#0072B2"


def sampler_data(model: Any, tokenizer: Any, prompts: list[str]) -> dict[str, Any]:
    """Return {"alphabet", "prompts", "logits"}: the model's answer to each prompt, to three decimals."""
    import torch

    rows = []
    for prompt in prompts:
        with torch.inference_mode():
            logits, _ = model(torch.tensor([tokenizer.encode(prompt)]), last_only=True)
        rows.append([round(x, 3) for x in logits[0, -1].tolist()])
    alphabet = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    return {"alphabet": alphabet, "prompts": prompts, "logits": rows}


def spoken(character: str) -> str:
    """Return how a character is listed."""
    return {"\n": "line break", " ": "space"}.get(character, character)


def visible(text: str) -> str:
    """Return the text with spaces and line breaks that can be seen."""
    return text.replace(" ", "␣").replace("\n", "⏎")


def settings(temperature: float, top_k: int, top_p: float, min_p: float, size: int) -> dict:
    """Return the sliders' positions as arguments of filter_logits; at their ends they filter nothing."""
    return {
        "temperature": temperature,
        "top_k": top_k if top_k < size else None,
        "top_p": top_p if top_p < 1 else None,
        "min_p": min_p if min_p > 0 else None,
    }


def probabilities(
    logits: list[float], filter_logits: Callable, **chosen
) -> tuple[list[float], list[int]]:
    """Return softmax of the filtered logits, and the ids that are left."""
    import torch

    scores = filter_logits(torch.tensor([logits], dtype=torch.float32), **chosen)[0]
    left = [i for i, score in enumerate(scores.tolist()) if score > float("-inf")]
    return scores.softmax(dim=-1).tolist(), left


def describe(alphabet: list[str], before: list[float], after: list[float], left: list[int]) -> str:
    """Return the sentence below the bars: how many are left, what they held, who leads."""
    best = max(left, key=lambda i: (after[i], -i))
    held = sum(before[i] for i in left)
    verb = "character is left; it" if len(left) == 1 else "characters are left; they"
    return (
        f"{len(left)} of {len(after)} {verb} held {100 * held:.1f} % of the model's probability. "
        f"First is “{spoken(alphabet[best])}”, now with {100 * after[best]:.1f} %."
    )


def ranked(before: list[float]) -> list[int]:
    """Return the ids that get a bar, the most likely first."""
    return sorted(range(len(before)), key=lambda i: (-before[i], i))[:SHOWN]


def _bars(alphabet: list[str], before: list[float], after: list[float], left: list[int]) -> str:
    top = max(max(before), max(after))
    rows = []
    for i in ranked(before):
        pale, strong = 100 * before[i] / top, 100 * after[i] / top
        box = "position:absolute;left:0;height:100%;border-radius:2px;background:"
        rows.append(
            f'<span style="font-family:monospace;text-align:right">{html.escape(visible(alphabet[i]))}</span>'
            f'<span style="position:relative;height:1.05rem">'
            f'<span style="{box}{_COLOUR}40;width:{pale:.1f}%"></span>'
            f'<span style="{box}{_COLOUR};width:{strong:.1f}%;height:60%;top:20%"></span></span>'
            f"<span>{f'{100 * after[i]:.1f} %' if i in left else 'out'}</span>"
        )
    grid = "display:grid;grid-template-columns:2rem 1fr 4rem;gap:3px .6rem;max-width:36rem"
    return f'<div style="{grid}">{"".join(rows)}</div>'


def sampler(data: dict[str, Any], filter_logits: Callable) -> ipywidgets.Widget:
    """Return a menu of prompts, four sliders, bars, a sentence, and a button that draws 20 times."""
    wide = {
        "style": {"description_width": "7rem"},
        "layout": {"width": "32rem", "max_width": "98%"},
    }
    size = len(data["alphabet"])
    names = [visible(prompt) for prompt in data["prompts"]]
    prompt = ipywidgets.Dropdown(
        options=list(zip(names, range(len(names)))), description="After", **wide
    )
    temperature = ipywidgets.FloatSlider(
        value=1, min=0, max=2, step=0.05, description="Temperature", **wide
    )
    top_k = ipywidgets.IntSlider(value=size, min=1, max=size, description="Top-k", **wide)
    top_p = ipywidgets.FloatSlider(value=1, min=0.05, max=1, step=0.05, description="Top-p", **wide)
    min_p = ipywidgets.FloatSlider(value=0, min=0, max=0.5, step=0.01, description="Min-p", **wide)
    view, drawn = ipywidgets.HTML(), ipywidgets.HTML()
    button = ipywidgets.Button(description="Draw 20 times")
    sliders = (temperature, top_k, top_p, min_p)

    def now() -> tuple[list[float], list[float], list[int]]:
        logits = data["logits"][prompt.value]
        chosen = settings(*(slider.value for slider in sliders), size)
        before, _ = probabilities(logits, filter_logits)
        return before, *probabilities(logits, filter_logits, **chosen)

    def redraw(_=None) -> None:
        before, after, left = now()
        sentence = html.escape(describe(data["alphabet"], before, after, left))
        view.value = f"{_bars(data['alphabet'], before, after, left)}<p>{sentence}</p>"
        drawn.value = ""

    def draw(_=None) -> None:
        import torch

        ids = torch.multinomial(torch.tensor(now()[1]), 20, replacement=True).tolist()
        text = html.escape(" ".join(visible(data["alphabet"][i]) for i in ids))
        drawn.value = f'<p style="font-family:monospace">{text}</p>'

    for control in (prompt, *sliders):
        control.observe(redraw, names="value")
    button.on_click(draw)
    redraw()
    return ipywidgets.VBox([prompt, *sliders, view, button, drawn])
