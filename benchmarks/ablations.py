"""Train every combination of position, norm, feed-forward layer and weight tying on Shakespeare, at equal compute.

    python benchmarks/ablations.py [--seeds 3] [--workers 2] [--out FILE]

36 models, each with every seed: width 64, 3 layers, 4 heads, 64 characters of context, 1,000 steps of 16 windows with
AdamW. The learning rate rises to 3e-3 over 50 steps and then falls to a tenth along a cosine. A seed draws the same
batches for every model. A gated layer has 2/3 of the width, so the matrices of all models do the same work per token to
within 1%; nothing is tuned for any of them. The result of a run is its mean loss over the first 100,000 characters of
the validation part, and the processor time of its training.

Finished runs are appended to FILE (benchmarks/results/ablations.jsonl), one JSON object per line, and are not repeated,
so the script can be stopped and started again at any time. When all runs are there, the table is printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import hardware_line
from torch import Tensor

from courseware.runs import ledger
from minigpt_lib.baselines import evaluate_loss
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.data import get_batch, load_text, train_val_split
from minigpt_lib.model import GPTConfig, MiniGPT

Choice = dict[str, Any]  # a level for each of the ledger's FACTORS
Job = tuple[Choice, int]  # with a seed

STEPS = 1000
WARMUP = 50
BATCH = 16
BLOCK = 64  # characters
LEARNING_RATE = 3e-3
VALIDATION = 100_000  # characters


def config_of(choice: Choice, vocab_size: int) -> GPTConfig:
    """Return the config of one combination."""
    sizes: dict[str, Any] = {"max_seq_len": BLOCK, "n_embd": 64, "n_layer": 3, "n_head": 4}
    hidden = 171 if choice["ffn"] == "swiglu" else 256  # 3 * 64 * 171 and 2 * 64 * 256 weights
    return GPTConfig(vocab_size=vocab_size, **sizes, ffn_hidden=hidden, bias=False, **choice)


def schedule(step: int) -> float:
    """Return the learning rate of a step as a share of the highest."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def train(model: MiniGPT, tokens: Tensor, seed: int) -> float:
    """Train a model, and return the processor time in minutes."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.1
    )
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    generator = torch.Generator().manual_seed(seed)

    start = time.process_time()
    for _ in range(STEPS):
        x, y = get_batch(tokens, BATCH, BLOCK, generator)
        _, loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
    return (time.process_time() - start) / 60


def run(job: Job) -> ledger.Run:
    """Train one model with one seed on one thread, and return what the ledger stores about it."""
    choice, seed = job
    torch.set_num_threads(1)
    text = load_text()
    tokenizer = CharTokenizer.from_text(text)
    train_tokens, val_tokens = train_val_split(torch.tensor(tokenizer.encode(text)))

    torch.manual_seed(seed)
    model = MiniGPT(config_of(choice, tokenizer.vocab_size))
    minutes = train(model, train_tokens, seed)
    return {
        **choice,
        "seed": seed,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "val_loss": evaluate_loss(model, val_tokens[:VALIDATION], block_size=BLOCK),
        "minutes": minutes,
    }


def jobs_left(seeds: int, done: Collection[ledger.Run]) -> list[Job]:
    """Return the runs that are not in the ledger yet, seed by seed."""
    finished = {ledger.key(result) for result in done}
    combinations = itertools.product(*ledger.FACTORS.values())
    choices = [dict(zip(ledger.FACTORS, levels)) for levels in combinations]
    jobs = [(choice, seed) for seed in range(seeds) for choice in choices]
    return [job for job in jobs if ledger.key({**job[0], "seed": job[1]}) not in finished]


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", type=Path, default=ledger.RESULTS, help="the ledger")
    options = parser.parse_args()

    done = ledger.load(options.out) if options.out.exists() else []
    jobs = jobs_left(options.seeds, done)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for n, result in enumerate(pool.imap_unordered(run, jobs), len(done) + 1):
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{n} of {len(done) + len(jobs)}: {json.dumps(result)}", flush=True)

    print(f"\n{ledger.report(ledger.load(options.out))}")
    print(f"\n{hardware_line()}")


if __name__ == "__main__":
    main()
