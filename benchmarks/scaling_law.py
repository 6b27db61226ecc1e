"""Train models of six sizes on three lengths of text, for the scaling law that chapter 18 fits.

    python benchmarks/scaling_law.py [--seeds 2] [--out FILE]

The models are the laptop preset (Llama's parts, characters of Shakespeare) with 64 characters of context, narrower
and shallower or wider and deeper: 12 thousand to 0.9 million weights in the blocks. Every model reads 0.2, 0.6 and 1.8
million characters, in steps of 16 windows, each budget in a run of its own, since the learning rate has to arrive at
its end with the text: it rises for a twentieth of the steps, then falls along a cosine to a tenth. Its peak is
0.04 / sqrt(width), a guess; nothing is tuned. The result is the mean loss over the first 100,000 characters of the
validation part.

Models of less than 0.2 million weights are trained with each seed, the larger ones with the first: their repetitions
say how much chance there is in a point. One thread, float32; about ten minutes. The results go to FILE
(benchmarks/results/scaling_law.json) after every run, and finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import hardware, hardware_line, table

from minigpt_lib.baselines import evaluate_loss
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.data import load_text, train_val_split
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig, Trainer

OUT = Path(__file__).resolve().parent / "results" / "scaling_law.json"
SIZES = ((3, 16), (3, 24), (3, 32), (4, 48), (4, 80), (6, 112))  # n_layer, n_embd
BUDGETS = (204_800, 614_400, 1_843_200)  # characters to train on
BATCH, BLOCK, VALIDATION = 16, 64, 100_000
REPEATED = 200_000  # models with fewer weights than this run with every seed


def config_of(n_layer: int, n_embd: int, vocab_size: int) -> GPTConfig:
    """Return the config of one size; heads of 8 numbers in the narrow ones, of 16 in the others."""
    heads = n_embd // (8 if n_embd < 48 else 16)
    sizes = {"n_layer": n_layer, "n_embd": n_embd, "n_head": heads, "max_seq_len": BLOCK}
    return GPTConfig.preset("laptop", vocab_size=vocab_size, **sizes)


def weights_inside(config: GPTConfig) -> int:
    """Return the number of weights without embedding and head: N of the law."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in MiniGPT(config).blocks.parameters())


def train(config: GPTConfig, tokens: int, seed: int, train_ids, val_ids) -> dict:
    """Train one model and return what the file keeps of it."""
    torch.manual_seed(seed)
    steps = tokens // (BATCH * BLOCK)
    settings = TrainConfig(
        steps=steps, batch_size=BATCH, block_size=BLOCK, lr=0.04 / math.sqrt(config.n_embd),
        warmup_steps=steps // 20, seed=seed, eval_every=0, progress=False, precision="float32", device="cpu",
    )  # fmt: skip
    model, began = MiniGPT(config), time.process_time()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = load_text()
    tokenizer = CharTokenizer.from_text(text)
    train_text, val_text = train_val_split(text)
    train_ids = torch.tensor(tokenizer.encode(train_text))
    val_ids = torch.tensor(tokenizer.encode(val_text[:VALIDATION]))

    results = {"hardware": hardware(), "validation": VALIDATION, "text": len(train_ids), "runs": []}
    if options.out.exists():
        results["runs"] = json.loads(options.out.read_text(encoding="utf-8"))["runs"]
    done = {(run["n_embd"], run["tokens"], run["seed"]) for run in results["runs"]}
    for tokens in BUDGETS:
        for size in SIZES:
            config = config_of(*size, tokenizer.vocab_size)
            for seed in range(options.seeds if weights_inside(config) < REPEATED else 1):
                if (config.n_embd, tokens, seed) not in done:
                    results["runs"].append(train(config, tokens, seed, train_ids, val_ids))
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                    print(results["runs"][-1])

    rows = []
    for size in SIZES:
        mine = [run for run in results["runs"] if (run["n_layer"], run["n_embd"]) == size]
        cells = []
        for tokens in BUDGETS:
            losses = [run["loss"] for run in mine if run["tokens"] == tokens]
            cells.append(" ".join(f"{loss:.3f}" for loss in losses))
        rows.append([f"{mine[0]['weights']:,}", *cells])
    columns = ["weights in blocks", *(f"{tokens:,} characters" for tokens in BUDGETS)]
    print(table("Validation loss, nats per character, each seed", columns, rows))
    print(hardware_line())


if __name__ == "__main__":
    main()
