"""Train small models on Shakespeare that differ in one part: shared key heads, a window, or a mixture of experts.

    python benchmarks/efficiency.py [--seeds 3] [--quick] [--out FILE]

Every model has width 64, 3 layers, 4 heads and 64 characters of context, and makes 1,000 steps of 16 windows with
AdamW; the learning rate rises to 3e-3 over 50 steps and then falls to a tenth along a cosine. A seed draws the same
batches for every model. Two experts of 96 do the work of one layer of 192, so a token costs the mixtures as many
multiplications as the dense model, apart from the router's. "twice the steps" is the dense model after 2,000 steps.

A run's result is its mean loss over the first 100,000 characters of the validation part, in nats per character, the
processor time of its training, and for mixtures how many tokens the most and the least popular expert get, as multiples
of an equal share. Every run is added to FILE (benchmarks/results/efficiency.json) as soon as it is done, and is not
repeated. When all are there, the table is printed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rivals import RESULTS, earlier_runs, hardware, hardware_line, save, table
from torch import Tensor

from minigpt_lib.baselines import evaluate_loss, evaluating
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.data import get_batch, load_text, train_val_split
from minigpt_lib.model import FFNS, GPTConfig, MiniGPT
from minigpt_lib.moe import balance_loss, mixture, routing

Run = dict[str, Any]

OUT = RESULTS / "efficiency.json"
STEPS = 1000
WARMUP = 50
BATCH = 16
BLOCK = 64  # characters
LEARNING_RATE = 3e-3
VALIDATION = 100_000  # characters
TOP_K = 2


@dataclass(frozen=True)
class Variant:
    """One model: its changes to the dense one, its balancing coefficient, and its steps as a multiple."""

    changes: dict[str, Any]
    balance: float = 0.0
    steps: int = 1


EXPERTS = {"ffn": "moe", "ffn_hidden": 96}
CAPPED = {"ffn": "moe_capped", "ffn_hidden": 96}
VARIANTS = {
    "dense": Variant({}),
    "dense, twice the steps": Variant({}, steps=2),
    "2 key heads": Variant({"n_kv_head": 2}),
    "1 key head": Variant({"n_kv_head": 1}),
    "8 experts": Variant(EXPERTS, balance=0.01),
    "8 experts, not balanced": Variant(EXPERTS),
    "8 experts, capacity 1": Variant(CAPPED, balance=0.01),
}


def config_of(variant: Variant, vocab_size: int) -> GPTConfig:
    """Return the config of one variant."""
    FFNS["moe_capped"] = mixture(8, TOP_K, capacity=1.0)
    sizes = {"max_seq_len": BLOCK, "n_embd": 64, "n_layer": 3, "n_head": 4, "ffn_hidden": 192}
    return GPTConfig.preset("laptop", vocab_size=vocab_size, **{**sizes, **variant.changes})


def schedule(step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of the highest."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


def train(model: MiniGPT, tokens: Tensor, seed: int, steps: int, balance: float) -> float:
    """Train a model, and return the processor time in seconds."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.1
    )
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps))
    generator = torch.Generator().manual_seed(seed)

    start = time.process_time()
    for _ in range(steps):
        x, y = get_batch(tokens, BATCH, BLOCK, generator)
        with routing(model) as logits:
            loss = model(x, y)[1]
        if balance:
            loss = loss + balance * sum(balance_loss(one, TOP_K) for one in logits) / len(logits)

        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
    return time.process_time() - start


def popularity(model: MiniGPT, tokens: Tensor) -> list[float]:
    """Return what the least and the most popular expert of any layer gets, in equal shares; [] without experts."""
    ids = tokens[: 64 * BLOCK].view(64, BLOCK)
    with torch.no_grad(), evaluating(model), routing(model) as logits:
        model(ids)
    if not logits:
        return []

    chosen = [one.topk(TOP_K).indices.flatten() for one in logits]
    shares = [8 * one.bincount(minlength=8) / len(one) for one in chosen]
    return [
        round(min(s.min().item() for s in shares), 2),
        round(max(s.max().item() for s in shares), 2),
    ]


def run(name: str, seed: int, quick: bool) -> Run:
    """Train one variant with one seed on one thread, and return what the file stores about it."""
    torch.set_num_threads(1)
    variant = VARIANTS[name]
    text = load_text()
    tokenizer = CharTokenizer.from_text(text)
    train_tokens, val_tokens = train_val_split(torch.tensor(tokenizer.encode(text)))

    torch.manual_seed(seed)
    model = MiniGPT(config_of(variant, tokenizer.vocab_size))
    steps = variant.steps * (STEPS // 10 if quick else STEPS)
    seconds = train(model, train_tokens, seed, steps, variant.balance)
    return {
        "model": name,
        "seed": seed,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "loss": round(evaluate_loss(model, val_tokens[:VALIDATION], block_size=BLOCK), 4),
        "seconds": round(seconds, 1),
        "popularity": popularity(model, val_tokens),
    }


def results_table(runs: Sequence[Run]) -> str:
    """Return the table of all models: mean and standard deviation of the loss over the seeds, and the time."""
    rows = []
    for name in VARIANTS:
        own = [made for made in runs if made["model"] == name]
        if not own:
            continue
        losses = [made["loss"] for made in own]
        spread = f"{statistics.stdev(losses):.3f}" if len(losses) > 1 else "–"
        seconds = statistics.median(made["seconds"] for made in own)
        mean = f"{statistics.fmean(losses):.3f}"
        rows.append([name, own[0]["parameters"], mean, spread, f"{seconds:.0f}"])
    columns = ["model", "parameters", "loss", "standard deviation", "seconds"]
    return table("One part changed, the same batches", columns, rows)


def main() -> None:
    """Make the runs that are missing in the file of results, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    options = parser.parse_args()

    try:
        runs: list[Run] = earlier_runs(options.out, options.quick) or []
    except ValueError as error:
        parser.error(str(error))

    facts = {"hardware": hardware(), "quick": options.quick}
    for seed in range(options.seeds):
        for name in VARIANTS:
            if any(made["model"] == name and made["seed"] == seed for made in runs):
                continue
            runs.append(run(name, seed, options.quick))
            save(options.out, {**facts, "runs": runs})
            print(runs[-1], flush=True)

    print(results_table(runs))
    print(hardware_line())


if __name__ == "__main__":
    main()
