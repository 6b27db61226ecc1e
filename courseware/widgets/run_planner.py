"""The planner of chapter 18: choose a model, GPUs and a text; see days, euros, memory, and what limits the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from courseware.widgets.controls import redraw_on_change
from courseware.widgets.figures import COLOURS
from courseware.widgets.markup import paragraphs

if TYPE_CHECKING:
    from minigpt_lib.model import GPTConfig

FLEETS = (1, 2, 4, 8, 64, 512, 1024, 4096, 10_000, 16_384)  # GPUs
TOKENS = (1e8, 1e9, 2.5e9, 1e10, 3e10, 1e11, 3e11, 1.4e12, 5e12, 1.5e13)
SHARING = ("ddp", "fsdp")
UTILISATION = 0.4  # the share of a GPU's peak speed; Meta published 38 to 43% for Llama 3 405B
EUROS = 2.5  # for one GPU and one hour, an assumption
NETWORK = 50e9  # bytes per second between machines: a card of 400 Gbit/s
BATCH = (
    16e6  # tokens, the largest batch of Llama 3; beyond some size, more text makes no better step
)
MACHINE = 8  # GPUs in one machine, which do not need the network
_GOOD, _BAD = COLOURS["value"], COLOURS["train"]
_SECONDS_A_DAY = 86_400


def _models() -> dict[str, GPTConfig]:
    from minigpt_lib.model import GPTConfig

    llama3: dict[str, Any] = {
        "rope_base": 500000.0,
        "n_kv_head": 8,
        "position": "rope",
        "norm": "rms",
        "ffn": "swiglu",
        "tie_weights": False,
        "bias": False,
    }
    gpt2 = {"vocab_size": 50257}  # as published, where the preset pads to a multiple of 64
    return {
        "MiniGPT 44M": GPTConfig.preset("fineweb_44m"),
        "GPT-2 124M": GPTConfig.preset("gpt2_124m", **gpt2),
        "GPT-2 XL 1.6B": GPTConfig.preset("gpt2_124m", **gpt2, n_embd=1600, n_layer=48, n_head=25),
        "Llama 3 8B": GPTConfig.preset("llama3_8b"),
        "Llama 3 70B": GPTConfig(128256, 8192, 8192, 80, 64, ffn_hidden=28672, **llama3),
        "Llama 3 405B": GPTConfig(128256, 8192, 16384, 126, 128, ffn_hidden=53248, **llama3),
    }


def planner_data() -> dict[str, Any]:
    """Return everything that the planner and its twin compute from: models, GPUs and the choices.

    A model's memory and traffic are tables in bytes: a row for each number of GPUs, a column for each way of sharing.
    """
    from minigpt_lib.costs import GPUS

    return {
        "models": [_model_sheet(name, config) for name, config in _models().items()],
        "gpus": [
            {"name": name, "flops": gpu.flops, "memory": gpu.memory, "link": gpu.link}
            for name, gpu in GPUS.items()
        ],
        "fleets": list(FLEETS),
        "tokens": list(TOKENS),
        "sharing": list(SHARING),
        "utilisation": UTILISATION,
        "euros": EUROS,
        "network": NETWORK,
        "batch": BATCH,
    }


def _model_sheet(name: str, config: GPTConfig) -> dict[str, Any]:
    import torch

    from minigpt_lib.costs import flops_per_token, memory_per_rank, traffic_per_step
    from minigpt_lib.model import MiniGPT, count_parameters

    with torch.device("meta"):
        weights = count_parameters(MiniGPT(config))["total"]
    return {
        "name": name,
        "weights": weights,
        "context": config.max_seq_len,
        "flops": flops_per_token(config),
        "memory": [
            [memory_per_rank(config, n, how, recompute=True)["total"] for how in SHARING]
            for n in FLEETS
        ],
        "traffic": [[round(traffic_per_step(config, n, how)) for how in SHARING] for n in FLEETS],
    }


def amount(x: float) -> str:
    """Return a number in words with one decimal, such as "1.5 trillion"."""
    for word, unit in (("trillion", 1e12), ("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if x >= unit:
            return f"{x / unit:.1f} {word}"
    return f"{x:.1f}"


def compute(
    data: dict[str, Any], model: int, gpu: int, tokens: int, fleet: int, sharing: int
) -> dict[str, float]:
    """Return what the chapter's formulas say about these choices, which are indices into the lists of `data`.

    "flops", "days" and "euros" are those of the whole run; "memory" is in bytes, "sends" and "link" in bytes per
    second, all for one GPU. "fits", "sent" and "batch" are shares of the memory, of the link and of the largest useful
    batch: above 1 is too much.
    """
    m, g, n = data["models"][model], data["gpus"][gpu], data["fleets"][fleet]
    flops = m["flops"] * data["tokens"][tokens]
    days = flops / (n * g["flops"] * data["utilisation"]) / _SECONDS_A_DAY

    memory = m["memory"][fleet][sharing]
    # The seconds of a step with one text on each GPU.
    step = m["context"] * m["flops"] / (g["flops"] * data["utilisation"])
    sends = m["traffic"][fleet][sharing] / step
    link = g["link"] if n <= MACHINE else min(g["link"], data["network"])
    return {
        "flops": flops,
        "days": days,
        "euros": 24 * days * n * data["euros"],
        "memory": memory,
        "fits": memory / g["memory"],
        "sends": sends,
        "sent": sends / link,
        "link": link,
        "batch": n * m["context"] / data["batch"],
    }


def limits(found: dict[str, float]) -> str:
    """Return the sentence about what limits the run; found: what `compute` returned."""
    if found["fits"] > 1:
        return "It does not fit: share the model further, or take a larger GPU."
    if found["batch"] > 1:
        return "The batch is the limit: even one text on each GPU makes steps of more than 16 million tokens."
    if found["sent"] > 1:
        return "The network is the limit, unless each GPU reads several micro-batches a step."
    return "Computing is the limit, as it should be."


def describe(
    data: dict[str, Any], model: int, gpu: int, tokens: int, fleet: int, sharing: int
) -> list[str]:
    """Return four sentences: time and money; memory; network; what limits the run. Arguments as in `compute`."""
    m, g, n = data["models"][model], data["gpus"][gpu], data["fleets"][fleet]
    read = data["tokens"][tokens]
    found = compute(data, model, gpu, tokens, fleet, sharing)
    days = found["days"]
    time = f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} hours"
    return [
        f"{m['name']} on {amount(read)} tokens, {read / m['weights']:.1f} for each weight: {time} on "
        f"{n} × {g['name']}, {amount(found['euros'])} euros.",
        f"Memory on each GPU: {found['memory'] / 1e9:.1f} GB of {g['memory'] / 1e9:.0f}, with "
        f"{data['sharing'][sharing].upper()}, one text of {m['context']} tokens and recomputation.",
        f"Each GPU would send {found['sends'] / 1e9:.1f} GB/s, with one text a step; its link carries "
        f"{found['link'] / 1e9:.0f}.",
        limits(found),
    ]


def draw(data: dict[str, Any], model: int, gpu: int, tokens: int, fleet: int, sharing: int) -> str:
    """Return three bars as HTML: memory, network and batch, each as a share of what there is."""
    found = compute(data, model, gpu, tokens, fleet, sharing)
    shares = {"memory": found["fits"], "network": found["sent"], "batch": found["batch"]}
    bars = "".join(_bar(name, share) for name, share in shares.items())
    return f'<div aria-hidden="true">{bars}</div>'


def _bar(name: str, share: float) -> str:
    colour = _BAD if share > 1 else _GOOD
    width = 100 * min(share, 1)
    words = f"{share * 100:.0f} %" if share < 10 else f"{share:.0f} ×"
    return (
        f'<div style="display:flex;gap:.6rem;align-items:center;margin:.25rem 0"><span style="width:4.5rem">{name}'
        '</span><span style="flex:1;max-width:26rem;height:1rem;border:1px solid currentColor">'
        f'<span style="display:block;height:100%;width:{width:.1f}%;background:{colour}"></span></span>'
        f'<span style="width:4.5rem;font-variant-numeric:tabular-nums">{words}</span></div>'
    )


def planner(data: dict[str, Any]) -> ipywidgets.VBox:
    """Return the planner: three menus, two sliders, the bars and the sentences; data: that of `planner_data`."""
    wide = {"description_width": "6rem"}

    def menu(label: str, names: Sequence[str], value: int) -> ipywidgets.Dropdown:
        options = [(name, i) for i, name in enumerate(names)]
        return ipywidgets.Dropdown(options=options, value=value, description=label, style=wide)

    def slider(label: str, names: Sequence[str], value: int) -> ipywidgets.SelectionSlider:
        options = [(name, i) for i, name in enumerate(names)]
        return ipywidgets.SelectionSlider(
            options=options, value=value, description=label, style=wide
        )

    controls = [
        menu("Model", [model["name"] for model in data["models"]], 3),
        menu("GPU", [gpu["name"] for gpu in data["gpus"]], 2),
        slider("Tokens", [amount(tokens) for tokens in data["tokens"]], 9),
        slider("GPUs", [str(n) for n in data["fleets"]], 6),
        menu("Sharing", [sharing.upper() for sharing in data["sharing"]], 1),
    ]
    view = ipywidgets.HTML()

    def redraw() -> None:
        chosen = [control.value for control in controls]
        view.value = draw(data, *chosen) + paragraphs(describe(data, *chosen))

    redraw_on_change(controls, redraw)
    return ipywidgets.VBox([*controls, view])
