"""Train every combination of position, norm, feed-forward layer and weight tying on Shakespeare, at equal compute.

    python benchmarks/ablations.py [--seeds 3] [--workers 2] [--out FILE]

36 models, each with every seed: width 64, 3 layers, 4 heads, 64 characters of context, 1,000 steps of 16 windows
with AdamW, the learning rate rising for 50 steps to 3e-3 and falling to a tenth along a cosine. The same seed draws
the same batches for every model. A gated layer has 2/3 of the width, so that the matrices of all models do the same
work per token to within 1 %; nothing is tuned for any of them. The result of a run is its mean loss over the first
100,000 characters of the validation part, and the processor time of its training.

Finished runs are appended to FILE (benchmarks/results/ablations.jsonl), one JSON object a line, and are not repeated:
stop it and start it again as you like. When all are there, the table is printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from courseware import ledger
from minigpt_lib.baselines import evaluate_loss
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.data import get_batch, load_text, train_val_split
from minigpt_lib.model import GPTConfig, MiniGPT

STEPS, WARMUP, BATCH, LEARNING_RATE = 1000, 50, 16, 3e-3
VALIDATION = 100_000  # characters


def config_of(choice: dict, vocab_size: int) -> GPTConfig:
    """Return the config of one combination."""
    sizes = {"max_seq_len": 64, "n_embd": 64, "n_layer": 3, "n_head": 4}
    hidden = 171 if choice["ffn"] == "swiglu" else 256  # 3 * 64 * 171 against 2 * 64 * 256 weights
    return GPTConfig(vocab_size=vocab_size, **sizes, ffn_hidden=hidden, bias=False, **choice)


def schedule(step: int) -> float:
    """Return the learning rate of a step as a share of the highest."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def run(job: tuple[dict, int]) -> dict:
    """Train one model with one seed on one thread; return what the ledger keeps of it."""
    choice, seed = job
    torch.set_num_threads(1)
    text = load_text()
    tokenizer = CharTokenizer.from_text(text)
    train, valid = train_val_split(torch.tensor(tokenizer.encode(text)))
    torch.manual_seed(seed)
    model = MiniGPT(config_of(choice, tokenizer.vocab_size))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.1
    )
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    for _ in range(STEPS):
        loss = model(*get_batch(train, BATCH, 64, generator))[1]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        falling.step()
    minutes = (time.process_time() - start) / 60
    parameters = sum(weight.numel() for weight in model.parameters())
    val_loss = evaluate_loss(model, valid[:VALIDATION], block_size=64)
    return {
        **choice,
        "seed": seed,
        "parameters": parameters,
        "val_loss": val_loss,
        "minutes": minutes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=ledger.RESULTS)
    arguments = parser.parse_args()
    done = ledger.load(arguments.out) if arguments.out.exists() else []
    finished = {ledger.key(result) for result in done}
    choices = [
        dict(zip(ledger.FACTORS, levels)) for levels in itertools.product(*ledger.FACTORS.values())
    ]
    jobs = [(c, seed) for seed in range(arguments.seeds) for c in choices]
    jobs = [(c, seed) for c, seed in jobs if ledger.key({**c, "seed": seed}) not in finished]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for n, result in enumerate(pool.imap_unordered(run, jobs), len(done) + 1):
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{n} of {len(done) + len(jobs)}: {json.dumps(result)}", flush=True)
    print(f"\n{platform.processor() or platform.machine()}, torch {torch.__version__}\n")
    print(ledger.report(ledger.load(arguments.out)))


if __name__ == "__main__":
    main()
