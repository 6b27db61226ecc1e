"""Race nanoGPT's demo for laptops: the same text, the same split, the same loss; then compare plain training steps.

    python benchmarks/training.py [--nanogpt FOLDER] [--text FILE] [--seeds 5] [--steps-only]

FOLDER is a checkout of github.com/karpathy/nanoGPT and FILE tiny Shakespeare; without them the script fetches both.

The race. nanoGPT runs its own train.py with the settings its README gives for a processor (4 layers, 4 heads, width
128, 12 blocks of 64 characters, 2,000 steps). Its time is the sum of its steps as it prints them, without its
evaluations and checkpoints. Our side is `Trainer` with its default recipe and the preset `laptop`, on the
characters in nanoGPT's own train.bin: SHORT steps, to be compared with a quarter of nanoGPT's time, and LONG steps,
to be compared with all of it. Our time is that of `Trainer.train` as a whole. Both are scored by the same function:
the mean loss over all of val.bin in blocks of 64, each character predicted once, in float32. For every seed the three
runs follow one another. (nanoGPT has no option for the seed.)

The steps. The same architecture, batch and type, forward, backward, clipping and AdamW: ours against nanoGPT's and
Hugging Face's model, taking turns; the median counts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy
import rivals
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from minigpt_lib.baselines import evaluate_loss
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig, Trainer, param_groups

SHORT, LONG = 420, 1600
RESULTS = Path(__file__).resolve().parent / "results" / "training.json"
DEMO = {
    "device": "cpu", "compile": False, "eval_iters": 1, "eval_interval": 2000, "always_save_checkpoint": True,
    "log_interval": 1, "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128,
    "max_iters": 2000, "lr_decay_iters": 2000, "dropout": 0.0,
}  # fmt: skip


class NanoGPT(torch.nn.Module):
    """nanoGPT's model in our terms: -100 is the target that does not count."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return self.model(x, y.masked_fill(y == -100, -1))


def prepare(nanogpt: Path, text: str, workplace: Path) -> Path:
    """Copy nanoGPT to a workplace, put the text there and let nanoGPT cut it."""
    folder = workplace / "nanoGPT"
    shutil.copytree(nanogpt, folder, ignore=shutil.ignore_patterns(".git", "out*"))
    data = folder / "data" / "shakespeare_char"
    (data / "input.txt").write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "prepare.py"], cwd=data, check=True, capture_output=True)
    return folder


def run_nanogpt(folder: Path, val_tokens) -> tuple[float, float]:
    """Return (seconds of its steps, loss) of nanoGPT's demo."""
    done = subprocess.run(
        [
            sys.executable,
            "train.py",
            "config/train_shakespeare_char.py",
            *(f"--{k}={v}" for k, v in DEMO.items()),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    times = {
        int(n): float(ms)
        for n, ms in re.findall(r"iter (\d+): loss .*?, time ([\d.]+)ms", done.stdout)
    }
    steps = [times[n] for n in range(1, 2000)]  # 0 and 2000 contain an evaluation
    saved = torch.load(folder / "out-shakespeare-char" / "ckpt.pt", weights_only=False)
    assert saved["iter_num"] == 2000, (
        f"expected the last checkpoint, got that of {saved['iter_num']}"
    )
    model = module(folder).GPT(module(folder).GPTConfig(**saved["model_args"]))
    model.load_state_dict(saved["model"])
    return sum(steps) / 1000 * 2000 / len(steps), evaluate_loss(NanoGPT(model), val_tokens, 64)


def module(folder: Path):
    """Return nanoGPT's model.py as a module."""
    sys.path.insert(0, str(folder))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import model
    finally:
        sys.path.remove(str(folder))
    return model


def run_ours(
    train_tokens, val_tokens, vocab_size: int, steps: int, seed: int
) -> tuple[float, float]:
    """Return (seconds, loss) of our recipe."""
    torch.manual_seed(seed)
    model = MiniGPT(GPTConfig.preset("laptop", vocab_size=vocab_size))
    config = TrainConfig(
        steps=steps, warmup_steps=steps // 10, eval_every=0, seed=seed, progress=False
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(model, config, train_tokens)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return seconds, evaluate_loss(model, val_tokens, 64)


def race(folder: Path, seeds: int, long_seeds: int) -> dict:
    """Run the race; return the times and losses of every run."""
    data = folder / "data" / "shakespeare_char"
    train, val = (
        torch.from_numpy(numpy.fromfile(data / f"{part}.bin", dtype=numpy.uint16).astype("int64"))
        for part in ("train", "val")
    )
    vocab_size = pickle.loads((data / "meta.pkl").read_bytes())["vocab_size"]
    found = {"nanoGPT": [], "short": [], "long": []}
    for seed in range(seeds):
        found["nanoGPT"].append(run_nanogpt(folder, val))
        found["short"].append(run_ours(train, val, vocab_size, SHORT, seed))
        if seed < long_seeds:
            found["long"].append(run_ours(train, val, vocab_size, LONG, seed))
        print(f"seed {seed}: " + ", ".join(
            f"{name} {runs[-1][0]:.1f} s {runs[-1][1]:.4f}" for name, runs in found.items()), flush=True)  # fmt: skip
    return found


def print_race(found: dict) -> None:
    """Print the table of the race and whether the targets are met."""
    nano = [seconds for seconds, _ in found["nanoGPT"]]
    rows = []
    for name, label in (("nanoGPT", "nanoGPT's demo, 2,000 steps"), ("short", f"ours, {SHORT:,} steps"),
                        ("long", f"ours, {LONG:,} steps")):  # fmt: skip
        times, losses = zip(*found[name], strict=True)
        share = statistics.median(t / n for t, n in zip(times, nano))
        rows.append([label, f"{statistics.median(times):.1f}", f"{share:.2f}", f"{statistics.median(losses):.3f}",
                     f"{min(losses):.3f} to {max(losses):.3f}"])  # fmt: skip
    header = ["run", "seconds", "of nanoGPT's time", "loss, nats", "over the seeds"]
    print(rivals.table("The race: median of all seeds", header, rows))
    reached = [
        loss <= goal and t <= n / 4
        for (t, loss), (n, goal) in zip(found["short"], found["nanoGPT"], strict=True)
    ]
    lower = [goal - loss for (t, loss), (n, goal) in zip(found["long"], found["nanoGPT"]) if t <= n]
    print(
        f"nanoGPT's loss within a quarter of its time: {sum(reached)} of {len(reached)} seeds. Within its whole "
        f"time: {len(lower)} of {len(found['long'])} seeds, lower by {min(lower, default=0):.3f} nats at least."
    )


def stepper(model, x, y, dtype):
    """Return a function that makes one plain training step of a model whose call gives the loss."""
    model = model.to(dtype).train()
    optimizer = torch.optim.AdamW(param_groups(model, 0.1), lr=1e-4, fused=True)

    def step():
        model(x, y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class Loss(torch.nn.Module):
    """A model whose call returns the loss alone, whoever wrote it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        if hasattr(self.model, "lm_head") and hasattr(self.model.config, "model_type"):
            return torch.nn.functional.cross_entropy(
                self.model(x).logits.flatten(0, 1).float(), y.flatten()
            )
        return self.model(x, y)[1]


def plain_steps(folder: Path, batch: int, block: int, repeats: int) -> dict:
    """Return the median seconds of a step for each model: GPT-2's family and Llama's, 4 layers of width 128."""
    torch.manual_seed(0)
    x, y = torch.randint(65, (2, batch, block))
    sizes = {"n_embd": 128, "n_layer": 4, "n_head": 4}
    gpt = GPTConfig(65, block, **sizes, bias=False)
    llama = GPTConfig.preset("laptop", vocab_size=65, max_seq_len=block)
    nano = module(folder)
    nano_config = nano.GPTConfig(block_size=block, vocab_size=65, dropout=0.0, bias=False, **sizes)
    hf_gpt = GPT2Config(vocab_size=65, n_positions=block, **sizes, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
                        activation_function="gelu", bos_token_id=0, eos_token_id=0)  # fmt: skip
    hidden = MiniGPT(llama).blocks[0].ffn.down.in_features
    hf_llama = LlamaConfig(vocab_size=65, hidden_size=128, intermediate_size=hidden, num_hidden_layers=4,
                           num_attention_heads=4, max_position_embeddings=block, tie_word_embeddings=False)  # fmt: skip
    steps = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        with contextlib.redirect_stdout(io.StringIO()):
            models = {"GPT, ours": MiniGPT(gpt), "GPT, nanoGPT": nano.GPT(nano_config),
                      "GPT, Hugging Face": GPT2LMHeadModel(hf_gpt), "Llama, ours": MiniGPT(llama),
                      "Llama, Hugging Face": LlamaForCausalLM(hf_llama)}  # fmt: skip
        for label, model in models.items():
            steps[f"{label}, {name}"] = stepper(Loss(model), x, y, dtype)
    return rivals.interleave(steps, repeats, warmup=3)


def print_steps(times: dict, batch: int, block: int) -> None:
    """Print tokens per second, and how many times nanoGPT's in float32 and its own family's rival's in its own type."""
    rows = []
    for name, seconds in rivals.medians(times).items():
        family, who, dtype = name.split(", ")
        rival = f"{family}, {'nanoGPT' if family == 'GPT' else 'Hugging Face'}, {dtype}"
        ratios = [
            rivals.times_as_fast(times, name, other) for other in ("GPT, nanoGPT, float32", rival)
        ]
        rows.append(
            [
                f"{family}, {who}",
                dtype,
                round(batch * block / seconds),
                *(f"{r:.2f}" for r in ratios),
            ]
        )
    columns = [
        "model",
        "type",
        "tokens per second",
        "of nanoGPT in float32",
        "of the first rival in this type",
    ]
    print(rivals.table(f"Plain training steps: {batch} blocks of {block}", columns, rows))


def main() -> int:
    """Run both comparisons and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nanogpt", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--text", help="tiny Shakespeare, as nanoGPT's prepare.py downloads it")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--long-seeds", type=int, default=5, help="for how many of them to run LONG"
    )
    parser.add_argument("--repeats", type=int, default=40, help="steps of each model")
    parser.add_argument("--steps-only", action="store_true", help="leave the race out")
    chosen = parser.parse_args()
    nanogpt, text = rivals.nanogpt_folder(chosen.nanogpt), rivals.tinyshakespeare(chosen.text)
    if nanogpt is None or text is None:
        print(
            "nanoGPT or its text is missing and cannot be fetched: give --nanogpt FOLDER and --text FILE"
        )
        return 0
    results = {"hardware": rivals.hardware()}
    with tempfile.TemporaryDirectory() as workplace:
        folder = prepare(nanogpt, text, Path(workplace))
        for batch, block in ((12, 64), (32, 64)):
            times = plain_steps(folder, batch, block, chosen.repeats)
            print_steps(times, batch, block)
            results[f"steps {batch} x {block}"] = times
        if not chosen.steps_only:
            found = race(folder, chosen.seeds, chosen.long_seeds)
            print_race(found)
            results["race"] = found
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(rivals.hardware_line())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
