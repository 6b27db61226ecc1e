"""Train models of six sizes on three lengths of text, for the scaling law that chapter 18 fits.

    python benchmarks/scaling_law.py [--seeds 2] [--out FILE]

The models are the laptop preset (Llama's parts, characters of Shakespeare) with 64 characters of context, narrower
and shallower or wider and deeper: 12 thousand to 0.9 million weights in the blocks. Every model reads 0.2, 0.6 and 1.8
million characters, in steps of 16 windows. Each budget is a run of its own, because the learning rate has to reach its
end together with the text: it rises for a twentieth of the steps, then falls to a tenth along a cosine. Its peak is
0.04 / sqrt(width), a guess; nothing is tuned. The result is the mean loss over the first 100,000 characters of the
validation part.

Models of less than 0.2 million weights are trained with each seed, the larger ones only with the first: the repetitions
show how much a point varies. One thread, float32, about ten minutes. The results go to FILE
(benchmarks/results/scaling_law.json) after every run, and finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import RESULTS, hardware, hardware_line, save, table
from torch import Tensor

from minigpt_lib.baselines import evaluate_loss
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.data import load_text, train_val_split
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig, Trainer

Run = dict[str, Any]  # what the file stores about a run, a JSON object

OUT = RESULTS / "scaling_law.json"
SIZES = ((3, 16), (3, 24), (3, 32), (4, 48), (4, 80), (6, 112))  # n_layer, n_embd
BUDGETS = (204_800, 614_400, 1_843_200)  # characters to train on
BATCH = 16
BLOCK = 64  # characters
VALIDATION = 100_000  # characters
REPEATED = 200_000  # models with fewer weights than this run with every seed


def config_of(n_layer: int, n_embd: int, vocab_size: int) -> GPTConfig:
    """Return the config of one size; heads are 8 wide in the narrow models, 16 in the others."""
    width = 8 if n_embd < 48 else 16
    sizes = {
        "n_layer": n_layer,
        "n_embd": n_embd,
        "n_head": n_embd // width,
        "max_seq_len": BLOCK,
    }
    return GPTConfig.preset("laptop", vocab_size=vocab_size, **sizes)


def weights_inside(config: GPTConfig) -> int:
    """Return the number of weights without embedding and head: the N of the law."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in MiniGPT(config).blocks.parameters())


def train(config: GPTConfig, tokens: int, seed: int, train_ids: Tensor, val_ids: Tensor) -> Run:
    """Train one model on `tokens` characters, and return what the file stores about it."""
    steps = tokens // (BATCH * BLOCK)
    settings = TrainConfig(
        steps=steps,
        batch_size=BATCH,
        block_size=BLOCK,
        lr=0.04 / math.sqrt(config.n_embd),
        warmup_steps=steps // 20,
        seed=seed,
        eval_every=0,
        progress=False,
        precision="float32",
        device="cpu",
    )
    torch.manual_seed(seed)
    model = MiniGPT(config)
    began = time.process_time()
    Trainer(model, settings, train_ids).train()
    seconds = time.process_time() - began
    return {
        "n_layer": config.n_layer,
        "n_embd": config.n_embd,
        "weights": weights_inside(config),
        "tokens": tokens,
        "seed": seed,
        "loss": evaluate_loss(model, val_ids, BLOCK),
        "seconds": round(seconds, 1),
    }


def jobs_left(
    seeds: int, vocab_size: int, runs: Sequence[Run]
) -> Iterator[tuple[GPTConfig, int, int]]:
    """Yield (config, tokens, seed) of each run that is missing."""
    done = {(run["n_embd"], run["tokens"], run["seed"]) for run in runs}
    for tokens in BUDGETS:
        for size in SIZES:
            config = config_of(*size, vocab_size)
            for seed in range(seeds if weights_inside(config) < REPEATED else 1):
                if (config.n_embd, tokens, seed) not in done:
                    yield config, tokens, seed


def loss_table(runs: Sequence[Run]) -> str:
    """Return the table of losses: a row for each size, a column for each budget, the seeds side by side."""
    rows = []
    for size in SIZES:
        mine = [run for run in runs if (run["n_layer"], run["n_embd"]) == size]
        cells = []
        for tokens in BUDGETS:
            losses = [run["loss"] for run in mine if run["tokens"] == tokens]
            cells.append(" ".join(f"{loss:.3f}" for loss in losses))
        rows.append([f"{mine[0]['weights']:,}", *cells])

    columns = ["weights in blocks", *(f"{tokens:,} characters" for tokens in BUDGETS)]
    return table("Validation loss, nats per character, each seed", columns, rows)


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)

    text = load_text()
    tokenizer = CharTokenizer.from_text(text)
    train_text, val_text = train_val_split(text)
    train_ids = torch.tensor(tokenizer.encode(train_text))
    val_ids = torch.tensor(tokenizer.encode(val_text[:VALIDATION]))

    runs: list[Run] = []
    if options.out.exists():
        runs = json.loads(options.out.read_text(encoding="utf-8"))["runs"]
    facts = {"hardware": hardware(), "validation": VALIDATION, "text": len(train_ids)}
    for config, tokens, seed in list(jobs_left(options.seeds, tokenizer.vocab_size, runs)):
        runs.append(train(config, tokens, seed, train_ids, val_ids))
        save(options.out, {**facts, "runs": runs})
        print(runs[-1])

    print(loss_table(runs))
    print(hardware_line())


if __name__ == "__main__":
    main()
