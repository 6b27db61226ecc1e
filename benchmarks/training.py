"""Race nanoGPT's demo for laptops: the same text, the same split, the same loss; then compare plain training steps.

    python benchmarks/training.py [--nanogpt FOLDER] [--text FILE] [--seeds 5] [--steps-only]

FOLDER is a checkout of github.com/karpathy/nanoGPT and FILE tiny Shakespeare; without them the script fetches both.

The race. nanoGPT runs its own train.py with the settings that its README gives for a processor (4 layers, 4 heads,
width 128, 12 blocks of 64 characters, 2,000 steps). Its time is the sum of its steps as it prints them, without
evaluations and checkpoints. Our side is `Trainer` with its default recipe and the preset `laptop`, on the characters in
nanoGPT's own train.bin: SHORT steps, to be compared with a quarter of nanoGPT's time, once in the precision that
`Trainer` chooses and once in float32; and LONG steps, to be compared with all of it. Our time is that of
`Trainer.train` as a whole. Both are scored by the same function: the mean loss over all of val.bin in blocks of 64,
each character predicted once, in float32. For every seed the four runs follow one another. (nanoGPT has no option for
the seed.)

The steps. The same architecture, batch and number type; forward, backward, clipping and AdamW; our model, nanoGPT's and
Hugging Face's, taking turns; the median counts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy
import rivals
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from minigpt_lib.baselines import evaluate_loss
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.optimizer import param_groups
from minigpt_lib.training import TrainConfig, Trainer

Result = tuple[float, float]  # the seconds of a run, and its loss in nats per character
LossOf = Callable[[Any, Tensor, Tensor], Tensor]  # of a model, inputs and targets

SHORT, LONG = 420, 1600
BLOCK = 64  # characters in which the losses are measured
OUT = rivals.RESULTS / "training.json"
DEMO = {
    "device": "cpu",
    "compile": False,
    "eval_iters": 1,
    "eval_interval": 2000,
    "always_save_checkpoint": True,
    "log_interval": 1,
    "block_size": 64,
    "batch_size": 12,
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "max_iters": 2000,
    "lr_decay_iters": 2000,
    "dropout": 0.0,
}
LABELS = {
    "nanoGPT": "nanoGPT's demo, 2,000 steps",
    "short": f"ours, {SHORT:,} steps",
    "short, float32": f"ours, {SHORT:,} steps, float32",
    "long": f"ours, {LONG:,} steps",
}


# --- the race ---


class NanoGPT(nn.Module):
    """nanoGPT's model with our convention: a target of -100 does not count (there it is -1)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return (logits, loss)."""
        return self.model(x, y.masked_fill(y == -100, -1))


def prepare(nanogpt: Path, text: str, workplace: Path) -> Path:
    """Copy nanoGPT to a workplace, put the text there and let nanoGPT split it."""
    folder = workplace / "nanoGPT"
    shutil.copytree(nanogpt, folder, ignore=shutil.ignore_patterns(".git", "out*"))
    data = folder / "data" / "shakespeare_char"
    (data / "input.txt").write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "prepare.py"], cwd=data, check=True, capture_output=True)
    return folder


def run_nanogpt(folder: Path, val_tokens: Tensor) -> Result:
    """Run nanoGPT's demo, and return the seconds of its steps and its loss."""
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py"]
    command += [f"--{name}={value}" for name, value in DEMO.items()]
    done = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8"
    )
    milliseconds = {
        int(step): float(taken)
        for step, taken in re.findall(r"iter (\d+): loss .*?, time ([\d.]+)ms", done.stdout)
    }
    # Steps 0 and 2000 contain an evaluation, so they count as the mean of the others.
    steps = [milliseconds[step] for step in range(1, 2000)]
    seconds = sum(steps) / 1000 * 2000 / len(steps)

    saved = torch.load(folder / "out-shakespeare-char" / "ckpt.pt", weights_only=False)
    last = saved["iter_num"]
    assert last == 2000, f"expected the last checkpoint, got that of {last}"
    nano = nanogpt_module(folder)
    model = nano.GPT(nano.GPTConfig(**saved["model_args"]))
    model.load_state_dict(saved["model"])
    return seconds, evaluate_loss(NanoGPT(model), val_tokens, BLOCK)


def nanogpt_module(folder: Path) -> ModuleType:
    """Return nanoGPT's model.py as a module."""
    sys.path.insert(0, str(folder))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import model
    finally:
        sys.path.remove(str(folder))
    return model


def run_ours(
    train_tokens: Tensor,
    val_tokens: Tensor,
    vocab_size: int,
    steps: int,
    seed: int,
    precision: str = "auto",
) -> Result:
    """Train with our recipe, and return the seconds and the loss."""
    torch.manual_seed(seed)
    model = MiniGPT(GPTConfig.preset("laptop", vocab_size=vocab_size))
    config = TrainConfig(
        steps=steps,
        warmup_steps=steps // 10,
        eval_every=0,
        seed=seed,
        precision=precision,
        progress=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(model, config, train_tokens)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return seconds, evaluate_loss(model, val_tokens, BLOCK)


def race(folder: Path, seeds: int, long_seeds: int) -> dict[str, list[Result]]:
    """Run the race, and return the results of each run of LABELS by seed."""
    data = folder / "data" / "shakespeare_char"
    train, val = (
        torch.from_numpy(numpy.fromfile(data / f"{part}.bin", dtype=numpy.uint16).astype("int64"))
        for part in ("train", "val")
    )
    vocab_size = pickle.loads((data / "meta.pkl").read_bytes())["vocab_size"]

    found: dict[str, list[Result]] = {name: [] for name in LABELS}
    for seed in range(seeds):
        found["nanoGPT"].append(run_nanogpt(folder, val))
        found["short"].append(run_ours(train, val, vocab_size, SHORT, seed))
        found["short, float32"].append(
            run_ours(train, val, vocab_size, SHORT, seed, precision="float32")
        )
        if seed < long_seeds:
            found["long"].append(run_ours(train, val, vocab_size, LONG, seed))

        last = [
            f"{name} {runs[-1][0]:.1f} s {runs[-1][1]:.4f}" for name, runs in found.items() if runs
        ]
        print(f"seed {seed}: {', '.join(last)}", flush=True)
    return found


def print_race(found: Mapping[str, Sequence[Result]]) -> None:
    """Print the table of the race and whether the targets are met."""
    nano_seconds = [seconds for seconds, _ in found["nanoGPT"]]
    rows = []
    for name, label in LABELS.items():
        if not found[name]:
            continue
        times = [seconds for seconds, _ in found[name]]
        losses = [loss for _, loss in found[name]]
        share = statistics.median(ours / nano for ours, nano in zip(times, nano_seconds))
        rows.append(
            [
                label,
                f"{statistics.median(times):.1f}",
                f"{share:.2f}",
                f"{statistics.median(losses):.3f}",
                f"{min(losses):.3f} to {max(losses):.3f}",
            ]
        )
    columns = ["run", "seconds", "of nanoGPT's time", "loss, nats", "over the seeds"]
    print(rivals.table("The race: median of all seeds", columns, rows))

    for name in ("short", "short, float32"):
        reached = [
            loss <= goal and seconds <= nano / 4
            for (seconds, loss), (nano, goal) in zip(found[name], found["nanoGPT"], strict=True)
        ]
        print(
            f"{LABELS[name]}: nanoGPT's loss within a quarter of its time for {sum(reached)} of {len(reached)} seeds."
        )
    lower = [
        goal - loss
        for (seconds, loss), (nano, goal) in zip(found["long"], found["nanoGPT"])
        if seconds <= nano
    ]
    print(
        f"{LABELS['long']}: within nanoGPT's time for {len(lower)} of {len(found['long'])} seeds, lower by "
        f"{min(lower, default=0):.3f} nats at least."
    )


# --- plain steps ---


def second_output(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of a model that returns (logits, loss), as ours and nanoGPT's do."""
    return model(x, y)[1]


def loss_of_logits(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of one of Hugging Face's models, which would shift the targets itself."""
    logits = model(x).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), y.flatten())


def stepper(
    model: nn.Module, loss_of: LossOf, x: Tensor, y: Tensor, dtype: torch.dtype
) -> Callable[[], None]:
    """Return a function that makes one plain training step of a model on the batch (x, y)."""
    model = model.to(dtype).train()
    optimizer = torch.optim.AdamW(param_groups(model, 0.1), lr=1e-4, fused=True)

    def step() -> None:
        loss_of(model, x, y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def build_models(folder: Path, block: int) -> dict[str, tuple[nn.Module, LossOf]]:
    """Return the rivals of both families, each with the function that gives its loss: 4 layers of width 128."""
    sizes: dict[str, Any] = {"n_embd": 128, "n_layer": 4, "n_head": 4}
    gpt = GPTConfig(65, block, **sizes, bias=False)
    llama = GPTConfig.preset("laptop", vocab_size=65, max_seq_len=block)
    nano = nanogpt_module(folder)
    nano_gpt = nano.GPTConfig(block_size=block, vocab_size=65, dropout=0.0, bias=False, **sizes)
    hf_gpt = GPT2Config(
        vocab_size=65,
        n_positions=block,
        **sizes,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        activation_function="gelu",
        bos_token_id=0,
        eos_token_id=0,
    )
    our_llama = MiniGPT(llama)
    hf_llama = LlamaConfig(
        vocab_size=65,
        hidden_size=128,
        intermediate_size=our_llama.blocks[0].ffn.down.in_features,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=block,
        tie_word_embeddings=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # nanoGPT prints its size
        return {
            "GPT, ours": (MiniGPT(gpt), second_output),
            "GPT, nanoGPT": (nano.GPT(nano_gpt), second_output),
            "GPT, Hugging Face": (GPT2LMHeadModel(hf_gpt), loss_of_logits),
            "Llama, ours": (our_llama, second_output),
            "Llama, Hugging Face": (LlamaForCausalLM(hf_llama), loss_of_logits),
        }


def plain_steps(folder: Path, batch: int, block: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of a step by round, for each model ("family, who") in each number type."""
    torch.manual_seed(0)
    x, y = torch.randint(65, (2, batch, block))
    steps = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for label, (model, loss_of) in build_models(folder, block).items():
            steps[f"{label}, {name}"] = stepper(model, loss_of, x, y, dtype)
    return rivals.interleave(steps, repeats, warmup=3)


def print_steps(times: Mapping[str, Sequence[float]], batch: int, block: int) -> None:
    """Print tokens per second, as a multiple of nanoGPT's in float32 and of the family's rival in the same type."""
    rows = []
    for name, seconds in rivals.medians(times).items():
        family, who, dtype = name.split(", ")
        rival = f"{family}, {'nanoGPT' if family == 'GPT' else 'Hugging Face'}, {dtype}"
        nano_ratio = rivals.times_as_fast(times, name, "GPT, nanoGPT, float32")
        rival_ratio = rivals.times_as_fast(times, name, rival)
        speed = round(batch * block / seconds)
        rows.append([f"{family}, {who}", dtype, speed, f"{nano_ratio:.2f}", f"{rival_ratio:.2f}"])

    columns = [
        "model",
        "type",
        "tokens per second",
        "of nanoGPT in float32",
        "of the first rival in this type",
    ]
    print(rivals.table(f"Plain training steps: {batch} blocks of {block}", columns, rows))
    print(
        f"A Llama step takes {llama_by_gpt(times, 'ours'):.2f} times as long as a GPT step with our models, and"
    )
    print(f"{llama_by_gpt(times, 'Hugging Face'):.2f} times with Hugging Face's, in float32.\n")


def llama_by_gpt(times: Mapping[str, Sequence[float]], who: str, dtype: str = "float32") -> float:
    """Return how many times as long as a GPT step a Llama step takes: the median over the rounds."""
    return rivals.times_as_fast(times, f"GPT, {who}, {dtype}", f"Llama, {who}, {dtype}")


def main() -> int:
    """Run both comparisons and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nanogpt", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--text", help="tiny Shakespeare, as nanoGPT's prepare.py downloads it")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--long-seeds", type=int, default=5, help="how many of them also run LONG")
    parser.add_argument("--repeats", type=int, default=40, help="steps of each model")
    parser.add_argument("--steps-only", action="store_true", help="leave the race out")
    options = parser.parse_args()

    nanogpt = rivals.nanogpt_folder(options.nanogpt)
    text = rivals.tinyshakespeare(options.text)
    if nanogpt is None or text is None:
        print(
            "nanoGPT or its text is missing and cannot be fetched: give --nanogpt FOLDER and --text FILE"
        )
        return 0

    results: dict[str, object] = {"hardware": rivals.hardware()}
    with tempfile.TemporaryDirectory() as workplace:
        folder = prepare(nanogpt, text, Path(workplace))
        for batch, block in ((12, 64), (32, 64)):
            times = plain_steps(folder, batch, block, options.repeats)
            print_steps(times, batch, block)
            results[f"steps {batch} x {block}"] = times
        if not options.steps_only:
            found = race(folder, options.seeds, options.long_seeds)
            print_race(found)
            results["race"] = found
            rivals.save(OUT, results)

    print(rivals.hardware_line())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
