"""The planner of chapter 18: a model, a fleet and a text; days, euros, memory, and what limits the run."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets

FLEETS = (1, 2, 4, 8, 64, 512, 1024, 4096, 10_000, 16_384)
TOKENS = (1e8, 1e9, 2.5e9, 1e10, 3e10, 1e11, 3e11, 1.4e12, 5e12, 1.5e13)
SHARING = ("ddp", "fsdp")
UTILISATION, EUROS, NETWORK, BATCH = 0.4, 2.5, 50e9, 16e6  # share, per hour, bytes/s, tokens
_GOOD, _BAD = "#009E73", "#D55E00"


def _models() -> dict[str, Any]:
    from minigpt_lib.model import GPTConfig

    llama = {
        "position": "rope",
        "norm": "rms",
        "ffn": "swiglu",
        "tie_weights": False,
        "bias": False,
    }
    sizes = {"rope_base": 500000.0, "n_kv_head": 8, **llama}
    return {
        "MiniGPT 44M": GPTConfig.preset("fineweb_44m"),
        "GPT-2 124M": GPTConfig.preset("gpt2_124m"),
        "GPT-2 XL 1.6B": GPTConfig.preset("gpt2_124m", n_embd=1600, n_layer=48, n_head=25),
        "Llama 3 8B": GPTConfig.preset("llama3_8b"),
        "Llama 3 70B": GPTConfig(128256, 8192, 8192, 80, 64, ffn_hidden=28672, **sizes),
        "Llama 3 405B": GPTConfig(128256, 8192, 16384, 126, 128, ffn_hidden=53248, **sizes),
    }


def planner_data() -> dict:
    """Return all that the planner and its twin compute from: sheets of models and GPUs, and the choices.

    A model's memory and traffic are lists: one row for each fleet, a number for each way of sharing.
    """
    import torch

    from minigpt_lib.model import MiniGPT, count_parameters
    from minigpt_lib.scaling import GPUS, flops_per_token, memory_per_rank, traffic_per_step

    models = []
    for name, config in _models().items():
        with torch.device("meta"):
            weights = count_parameters(MiniGPT(config))["total"]
        memory = [
            [memory_per_rank(config, n, how, recompute=True)["total"] for how in SHARING]
            for n in FLEETS
        ]
        traffic = [[round(traffic_per_step(config, n, how)) for how in SHARING] for n in FLEETS]
        sheet = {"name": name, "weights": weights, "context": config.max_seq_len}
        sheet |= {"flops": flops_per_token(config), "memory": memory, "traffic": traffic}
        models.append(sheet)
    gpus = [
        {"name": name, "flops": gpu.flops, "memory": gpu.memory, "link": gpu.link}
        for name, gpu in GPUS.items()
    ]
    return {
        "models": models,
        "gpus": gpus,
        "fleets": list(FLEETS),
        "tokens": list(TOKENS),
        "sharing": list(SHARING),
        "utilisation": UTILISATION,
        "euros": EUROS,
        "network": NETWORK,
        "batch": BATCH,
    }


def amount(x: float) -> str:
    """Return a number in words with at most one decimal: 1.5 trillion."""
    for word, unit in (("trillion", 1e12), ("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if x >= unit:
            return f"{x / unit:.1f} {word}"
    return f"{x:.1f}"


def compute(data: dict, model: int, gpu: int, tokens: int, fleet: int, sharing: int) -> dict:
    """Return what the formulas of the chapter say about these choices, given as places in the lists."""
    m, g, n = data["models"][model], data["gpus"][gpu], data["fleets"][fleet]
    seconds = m["context"] * m["flops"] / (g["flops"] * data["utilisation"])
    days = m["flops"] * data["tokens"][tokens] / (n * g["flops"] * data["utilisation"]) / 86_400
    link = g["link"] if n <= 8 else min(g["link"], data["network"])
    return {
        "flops": m["flops"] * data["tokens"][tokens],
        "days": days,
        "euros": 24 * days * n * data["euros"],
        "memory": m["memory"][fleet][sharing],
        "fits": m["memory"][fleet][sharing] / g["memory"],
        "sends": m["traffic"][fleet][sharing] / seconds,
        "sent": m["traffic"][fleet][sharing] / seconds / link,
        "link": link,
        "batch": n * m["context"] / data["batch"],
    }


def limits(found: dict) -> str:
    """Return the sentence on what stands in the way, the worst first."""
    if found["fits"] > 1:
        return "It does not fit: share the model further, or take a larger GPU."
    if found["batch"] > 1:
        return "The batch is the limit: even one text on each GPU makes steps of more than 16 million tokens."
    if found["sent"] > 1:
        return "The network is the limit, unless each GPU reads several micro-batches a step."
    return "Computing is the limit, as it should be."


def describe(data: dict, model: int, gpu: int, tokens: int, fleet: int, sharing: int) -> list[str]:
    """Return four sentences: time and money; memory; network; what limits the run."""
    m, g, n = data["models"][model], data["gpus"][gpu], data["fleets"][fleet]
    found = compute(data, model, gpu, tokens, fleet, sharing)
    time = f"{found['days']:.1f} days" if found["days"] >= 1 else f"{24 * found['days']:.1f} hours"
    rule = data["tokens"][tokens] / m["weights"]
    return [
        f"{m['name']} on {amount(data['tokens'][tokens])} tokens, {rule:.1f} for each weight: {time} on "
        f"{n} × {g['name']}, {amount(found['euros'])} euros.",
        f"Memory on each GPU: {found['memory'] / 1e9:.1f} GB of {g['memory'] / 1e9:.0f}, with "
        f"{data['sharing'][sharing].upper()}, one text of {m['context']} tokens and recomputation.",
        f"Each GPU would send {found['sends'] / 1e9:.1f} GB/s, with one text a step; its link carries "
        f"{found['link'] / 1e9:.0f}.",
        limits(found),
    ]


def draw(data: dict, model: int, gpu: int, tokens: int, fleet: int, sharing: int) -> str:
    """Return three bars as HTML: memory, network and batch, each as a share of what there is."""
    found = compute(data, model, gpu, tokens, fleet, sharing)
    rows = ""
    for name, key in (("memory", "fits"), ("network", "sent"), ("batch", "batch")):
        share = found[key]
        colour, width = _BAD if share > 1 else _GOOD, min(share, 1) * 100
        words = f"{share * 100:.0f} %" if share < 10 else f"{share:.0f} ×"
        rows += (
            f'<div style="display:flex;gap:.6rem;align-items:center;margin:.25rem 0"><span style="width:4.5rem">{name}'
            '</span><span style="flex:1;max-width:26rem;height:1rem;border:1px solid currentColor">'
            f'<span style="display:block;height:100%;width:{width:.1f}%;background:{colour}"></span></span>'
            f'<span style="width:4.5rem;font-variant-numeric:tabular-nums">{words}</span></div>'
        )
    return f'<div aria-hidden="true">{rows}</div>'


def planner(data: dict[str, Any]) -> ipywidgets.Widget:
    """Return the planner: three menus, two sliders, bars and sentences."""
    wide = {"description_width": "6rem"}

    def menu(label: str, names: list[str], value: int) -> ipywidgets.Widget:
        options = [(name, i) for i, name in enumerate(names)]
        return ipywidgets.Dropdown(options=options, value=value, description=label, style=wide)

    def choice(label: str, names: list[str], value: int) -> ipywidgets.Widget:
        options = [(name, i) for i, name in enumerate(names)]
        return ipywidgets.SelectionSlider(
            options=options, value=value, description=label, style=wide
        )

    controls = [
        menu("Model", [m["name"] for m in data["models"]], 3),
        menu("GPU", [g["name"] for g in data["gpus"]], 2),
        choice("Tokens", [amount(t) for t in data["tokens"]], 9),
        choice("GPUs", [str(n) for n in data["fleets"]], 6),
        menu("Sharing", [s.upper() for s in data["sharing"]], 1),
    ]
    view = ipywidgets.HTML()

    def redraw(_=None) -> None:
        chosen = [control.value for control in controls]
        sentences = "".join(f"<p>{html.escape(s)}</p>" for s in describe(data, *chosen))
        view.value = draw(data, *chosen) + sentences

    for control in controls:
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([*controls, view])
