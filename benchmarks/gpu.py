"""Measure on one GPU: training against nanoGPT, generation against Hugging Face, number types, ranks, preparation.

    python benchmarks/gpu.py [--nanogpt FOLDER] [--parts NAME ...] [--minutes 8] [--small] [--out FILE]

FOLDER is a checkout of github.com/karpathy/nanoGPT. Nothing is downloaded: without FOLDER, nanoGPT is left out. The
text is random tokens, a cycle of tokens, or acts of Shakespeare's plays, so no part needs a network.

Every part runs in a process of its own with a limit of time. A part that fails or takes too long is reported, and the
others go on. FILE (benchmarks/results/gpu.json) is written after each part; --parts renews those named there and
keeps the others. --small runs the same code on a processor with tiny sizes, which shows that it works and measures
nothing: its results go to a temporary file unless --out names one.

nanogpt      nanoGPT's own train.py: GPT-2 124M, compiled, bfloat16, micro-batches of 32 × 1,024 tokens, 4 a step
gpt          the same model (vocabulary of 50,304, no bias), by `Trainer`
preset       our preset gpt2_124m, with biases
llama        the same size in Llama's style: rotation, RMSNorm, SwiGLU
fineweb      the preset fineweb_44m, micro-batches of 64 × 1,024 tokens, one a step
generation   greedy decoding with GPT-2 124M in bfloat16, batches of 1 and 64, ours and Hugging Face's in turn
precision    a small model in float32, bfloat16 and float16: speed, and whether it learns
resume       a run that dies after step 13 and goes on to step 30, against one that runs through
ranks        one process of `DistributedTrainer`, DDP and FSDP2, against `Trainer`
preparation  text to tokens with 1, 2, 4, 8 and 16 processes

A training speed is the median of the steps after the first five, as `Trainer` and nanoGPT report them. FLOPs per token
are counted as nanoGPT counts them: 6 N + 12 n_layer T C, N without the position table.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy
import rivals
import torch
from torch import Tensor

from courseware import paths
from minigpt_lib.generation import TextGenerator
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig, Trainer

Row = dict[str, Any]  # what a part measured, a JSON object

OUT = rivals.RESULTS / "gpu.json"
WARMUP = 5  # steps that are not counted: the first ones compile
DIED_AT, RESUMED_TO = 13, 30  # steps
H100_FLOPS = 989e12  # bfloat16 without sparsity, by the data sheets of the H100 SXM and the H200


@dataclass(frozen=True)
class Sizes:
    """How large everything is: FULL for a GPU, SMALL to try the code on a processor."""

    device: str
    compile: bool
    precision: str
    model: dict[str, int]  # n_layer, n_head and n_embd of GPT-2 124M
    vocab_size: int
    block: int
    batch: int
    accumulate: int
    steps: int
    fineweb: dict[str, int]  # changes to the preset
    fineweb_batch: int
    prompt: int
    new_tokens: int
    batches: tuple[int, ...]  # of prompts
    learner: dict[str, int]  # the model of the parts precision, resume and ranks
    learning_steps: int
    megabytes: float  # of text to prepare
    processes: tuple[int, ...]


FULL = Sizes(
    device="cuda",
    compile=True,
    precision="bfloat16",
    model={"n_layer": 12, "n_head": 12, "n_embd": 768},
    vocab_size=50304,
    block=1024,
    batch=32,
    accumulate=4,
    steps=20,
    fineweb={},
    fineweb_batch=64,
    prompt=32,
    new_tokens=128,
    batches=(1, 64),
    learner={"vocab_size": 512, "max_seq_len": 128, "n_layer": 4, "n_head": 4, "n_embd": 256},
    learning_steps=60,
    megabytes=60,
    processes=(1, 2, 4, 8, 16),
)

SMALL = Sizes(
    device="cpu",
    compile=False,
    precision="float32",
    model={"n_layer": 1, "n_head": 2, "n_embd": 16},
    vocab_size=64,
    block=16,
    batch=2,
    accumulate=2,
    steps=WARMUP + 2,
    fineweb={"n_layer": 1, "n_head": 2, "n_embd": 16, "ffn_hidden": 32, "max_seq_len": 16},
    fineweb_batch=2,
    prompt=4,
    new_tokens=4,
    batches=(1, 2),
    learner={"vocab_size": 32, "max_seq_len": 16, "n_layer": 1, "n_head": 2, "n_embd": 16},
    learning_steps=WARMUP + 2,
    megabytes=0.2,
    processes=(1, 2),
)


# --- training ---


def flops_per_token(model: MiniGPT, block: int) -> int:
    """Return the FLOPs of a training step per token as nanoGPT counts them: 6 N + 12 n_layer T C."""
    config = model.config
    positions = sum(weight.numel() for weight in model.position.parameters())
    n_weights = sum(weight.numel() for weight in model.parameters()) - positions
    return 6 * n_weights + 12 * config.n_layer * block * config.n_embd


def speed_row(seconds: Sequence[float], tokens: int, flops: int) -> Row:
    """Return the speed of steps that took these seconds: the median after WARMUP, tokens per step, FLOPs per token."""
    median = statistics.median(seconds[WARMUP:])
    return {
        "step_ms": 1000 * median,
        "tokens_per_second": tokens / median,
        "teraflops": tokens * flops / median / 1e12,
        "share_of_989": tokens * flops / median / H100_FLOPS,
        "first_step_seconds": seconds[0],
    }


def quietly(run: Callable[[], Any]) -> Any:
    """Call a function without its output on the screen, and return its result."""
    with contextlib.redirect_stdout(io.StringIO()):
        return run()


def peak_gigabytes(device: str) -> float | None:
    """Return the most memory that this process held on the GPU since the last call, None without one."""
    if device == "cpu":
        return None
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return peak


def train_speed(config: GPTConfig, sizes: Sizes, batch: int, accumulate: int) -> Row:
    """Train a new model for some steps on random tokens with `Trainer`, and return its speed and losses."""
    torch.manual_seed(0)
    model = MiniGPT(config)
    tokens = torch.randint(config.vocab_size, (4_000_000,))
    train = TrainConfig(
        steps=sizes.steps,
        batch_size=batch,
        block_size=sizes.block,
        accumulate=accumulate,
        lr=6e-4,
        warmup_steps=2,
        eval_every=0,
        device=sizes.device,
        precision=sizes.precision,
        compile=sizes.compile,
        progress=False,
    )
    peak_gigabytes(sizes.device)
    history = quietly(Trainer(model, train, tokens).train)

    per_step = batch * accumulate * sizes.block
    seconds = [per_step / record["tokens_per_second"] for record in history]
    row = speed_row(seconds, per_step, flops_per_token(model, sizes.block))
    return row | {
        "weights": sum(weight.numel() for weight in model.parameters()),
        "peak_gigabytes": peak_gigabytes(sizes.device),
        "first_loss": history[0]["loss"],
        "last_loss": history[-1]["loss"],
    }


def gpt_config(sizes: Sizes, **changes: Any) -> GPTConfig:
    """Return the config of GPT-2 124M with nanoGPT's vocabulary and without biases, and these changes to it."""
    same = {"vocab_size": sizes.vocab_size, "max_seq_len": sizes.block, "bias": False}
    return GPTConfig.preset("gpt2_124m", **(same | sizes.model | changes))


def run_gpt(sizes: Sizes, nanogpt: str | None) -> Row:
    """Train the model that nanoGPT trains."""
    return train_speed(gpt_config(sizes), sizes, sizes.batch, sizes.accumulate)


def run_preset(sizes: Sizes, nanogpt: str | None) -> Row:
    """Train the preset gpt2_124m as it is."""
    changes = {} if sizes.device == "cuda" else {**sizes.model, "vocab_size": sizes.vocab_size}
    config = GPTConfig.preset("gpt2_124m", **changes)
    row = train_speed(config, sizes, sizes.batch, sizes.accumulate)
    return row | {"vocab_size": config.vocab_size, "bias": config.bias}


def run_llama(sizes: Sizes, nanogpt: str | None) -> Row:
    """Train a model of the same size in Llama's style, with the embedding as its head."""
    config = gpt_config(sizes, position="rope", norm="rms", ffn="swiglu")
    return train_speed(config, sizes, sizes.batch, sizes.accumulate)


def run_fineweb(sizes: Sizes, nanogpt: str | None) -> Row:
    """Train the preset fineweb_44m."""
    config = GPTConfig.preset("fineweb_44m", **sizes.fineweb)
    return train_speed(config, sizes, sizes.fineweb_batch, 1)


def nanogpt_command(sizes: Sizes) -> list[str]:
    """Return the command that runs nanoGPT's train.py with these sizes on the data set "random"."""
    options = {
        "dataset": "random",
        "device": sizes.device,
        "dtype": sizes.precision,
        "compile": sizes.compile,
        **sizes.model,
        "block_size": sizes.block,
        "batch_size": sizes.batch,
        "gradient_accumulation_steps": sizes.accumulate,
        "max_iters": sizes.steps,
        "log_interval": 1,
        "eval_interval": 1_000_000,  # step 0 evaluates nevertheless
        "eval_iters": 1,
        "always_save_checkpoint": False,
    }
    return [sys.executable, "train.py", *(f"--{name}={value}" for name, value in options.items())]


def run_nanogpt(sizes: Sizes, nanogpt: str | None) -> Row:
    """Run nanoGPT's train.py on random tokens. It pads its own vocabulary to 50,304."""
    if nanogpt is None:
        return {"skipped": "give --nanogpt FOLDER, a checkout of github.com/karpathy/nanoGPT"}

    source = rivals.nanogpt_folder(nanogpt)
    with tempfile.TemporaryDirectory() as workplace:
        folder = Path(workplace) / "nanoGPT"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".git", "out*", "assets"))
        data = folder / "data" / "random"
        data.mkdir(parents=True)
        random = numpy.random.default_rng(0)
        for part, size in (("train", 4_000_000), ("val", 200_000)):
            random.integers(50257, size=size, dtype=numpy.uint16).tofile(data / f"{part}.bin")
        done = subprocess.run(
            nanogpt_command(sizes), cwd=folder, capture_output=True, text=True, encoding="utf-8"
        )

    if done.returncode:
        raise RuntimeError(f"nanoGPT's train.py failed: {done.stderr[-2000:]}")
    found = re.findall(r"iter \d+: loss ([\d.]+), time ([\d.]+)ms", done.stdout)
    seconds = [float(milliseconds) / 1000 for _, milliseconds in found]
    flops = flops_per_token(MiniGPT(gpt_config(sizes)), sizes.block)
    row = speed_row(seconds, sizes.batch * sizes.accumulate * sizes.block, flops)
    return row | {"first_loss": float(found[0][0]), "last_loss": float(found[-1][0])}


# --- generation ---


def run_generation(sizes: Sizes, nanogpt: str | None) -> Row:
    """Write with GPT-2 124M, ours and Hugging Face's with the same random weights, in turn."""
    from courseware.material.peers import as_gpt2  # it loads transformers, which takes seconds

    torch.manual_seed(0)
    config = gpt_config(sizes, bias=True, init_std=0.05, max_seq_len=sizes.block)
    dtype = getattr(torch, sizes.precision)
    ours = MiniGPT(config).to(sizes.device, dtype).eval()
    theirs = as_gpt2(ours).to(sizes.device)
    generator = TextGenerator(ours, SimpleNamespace(vocab_size=config.vocab_size, decode=str))

    row: Row = {}
    for batch in sizes.batches:
        ids = torch.randint(config.vocab_size, (batch, sizes.prompt), device=sizes.device)
        written: dict[str, Tensor] = {}
        programs = {
            "ours": lambda ids=ids, written=written: written.update(
                ours=generator.generate_ids(ids, sizes.new_tokens, "greedy").cpu()
            ),
            "theirs": lambda ids=ids, written=written: written.update(
                theirs=theirs.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=sizes.new_tokens,
                    do_sample=False,
                    use_cache=True,
                ).cpu()
            ),
        }
        times = rivals.interleave(programs, repeat=3)
        tokens = batch * sizes.new_tokens
        for name, seconds in rivals.medians(times).items():
            row[f"{name}, batch {batch}"] = tokens / seconds
        first = slice(sizes.prompt, sizes.prompt + 1)
        same = written["ours"][:, first] == written["theirs"][:, first]
        row[f"equal first tokens, batch {batch}"] = same.float().mean().item()
    return row


# --- small models: number types, resuming, ranks ---


def cycle_of_tokens(vocab_size: int) -> Tensor:
    """Return 100,000 tokens in which each id always has the same follower, so that a small model can learn them."""
    order = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(3))
    return order.repeat(100_000 // vocab_size + 1)[:100_000]


def learner(sizes: Sizes) -> MiniGPT:
    """Return the small model, the same each time."""
    torch.manual_seed(0)
    return MiniGPT(GPTConfig(**sizes.learner))


def learning(sizes: Sizes, **changes: Any) -> TrainConfig:
    """Return the settings of a short run of the small model, with these changes."""
    usual: dict[str, Any] = {
        "steps": sizes.learning_steps,
        "batch_size": 32,
        "block_size": sizes.learner["max_seq_len"],
        "lr": 2e-3,
        "warmup_steps": 5,
        "eval_every": 0,
        "device": sizes.device,
        "precision": sizes.precision,
        "progress": False,
    }
    return TrainConfig(**(usual | changes))


def run_precision(sizes: Sizes, nanogpt: str | None) -> Row:
    """Train the small model in each number type."""
    names = ("float32", "bfloat16", "float16") if sizes.device == "cuda" else ("float32",)
    tokens = cycle_of_tokens(sizes.learner["vocab_size"])
    row: Row = {}
    for name in names:
        model = learner(sizes)
        config = learning(sizes, precision=name)
        history = quietly(Trainer(model, config, tokens).train)
        per_step = config.batch_size * config.block_size
        seconds = [per_step / record["tokens_per_second"] for record in history]
        row[name] = speed_row(seconds, per_step, flops_per_token(model, config.block_size))
        row[name] |= {"first_loss": history[0]["loss"], "last_loss": history[-1]["loss"]}
    return row


class Crash(RuntimeError):
    """The end of a run that is to be resumed."""


def crash(record: Mapping[str, Any]) -> None:
    """End the run in the step after DIED_AT, before it is saved."""
    if record["step"] == DIED_AT + 1:
        raise Crash


def run_resume(sizes: Sizes, nanogpt: str | None) -> Row:
    """Compare a run that died and was resumed with one that ran through."""
    tokens = cycle_of_tokens(sizes.learner["vocab_size"])
    config = learning(sizes, steps=RESUMED_TO, save_every=DIED_AT)
    whole = quietly(Trainer(learner(sizes), config, tokens).train)
    with tempfile.TemporaryDirectory() as folder:
        dying = Trainer(learner(sizes), config, tokens, folder=folder, on_step=crash)
        with contextlib.suppress(Crash):
            quietly(dying.train)
        torch.manual_seed(1)  # the checkpoint must bring its own random numbers
        resumed = Trainer(learner(sizes), config, tokens, folder=folder, existing="resume")
        began = len(resumed.history)
        resumed_history = quietly(resumed.train)

    pairs = list(zip(whole, resumed_history, strict=True))
    return {
        "resumed_at": began,
        "steps": len(pairs),
        "equal_losses": sum(a["loss"] == b["loss"] for a, b in pairs),
        "largest_difference": max(abs(a["loss"] - b["loss"]) for a, b in pairs),
    }


RANK_SCRIPT = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import gpu

print("RESULT " + json.dumps(gpu.train_as_rank(sys.argv[2], small=sys.argv[3] == "small")))
"""


def train_as_rank(parallel: str, small: bool) -> list[float]:
    """Train the small model for 20 steps in this process, which torchrun started unless parallel is "plain"."""
    sizes = SMALL if small else FULL
    config = learning(sizes, steps=20)
    tokens = cycle_of_tokens(sizes.learner["vocab_size"])
    if parallel == "plain":
        trainer = Trainer(learner(sizes), config, tokens)
    else:
        from minigpt_lib.distributed import DistributedTrainer

        trainer = DistributedTrainer(learner(sizes), config, tokens, parallel=parallel)
    return [record["loss"] for record in quietly(trainer.train)]


def run_ranks(sizes: Sizes, nanogpt: str | None) -> Row:
    """Compare DDP and FSDP2 on one rank with a plain run."""
    small = sizes is SMALL
    plain = train_as_rank("plain", small)
    folders = json.dumps([str(Path(__file__).resolve().parent), str(paths.CODE)])
    row: Row = {"steps": len(plain)}
    with tempfile.TemporaryDirectory() as workplace:
        script = Path(workplace) / "rank.py"
        script.write_text(RANK_SCRIPT, encoding="utf-8")
        for parallel in ("ddp", "fsdp"):
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", "1", str(script), folders, parallel]
            done = subprocess.run(
                [*command, "small" if small else "full"],
                capture_output=True,
                text=True,
                encoding="utf-8",
            )
            if done.returncode:
                raise RuntimeError(f"{parallel} failed: {done.stderr[-2000:]}")
            losses = json.loads(done.stdout.rpartition("RESULT ")[2])
            row[parallel] = {
                "largest_difference": max(abs(a - b) for a, b in zip(losses, plain, strict=True)),
                "warns_of_a_guessed_device": "guess" in done.stderr.lower(),
            }
    return row


# --- preparation ---


def run_preparation(sizes: Sizes, nanogpt: str | None) -> Row:
    """Turn the same text into tokens with several numbers of processes, and return the speed of each."""
    import pretraining_memory as memory  # it loads `datasets`, which only this part needs

    acts = [row["text"] for row in memory.cut_documents([None])]
    processes = [n for n in sizes.processes if n <= (os.cpu_count() or 1)]
    row: Row = {"megabytes": sizes.megabytes, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as workplace:
        folder = Path(workplace)
        memory.write_text(folder / "text", sizes.megabytes, acts)
        config = dataclasses.replace(memory.SETTINGS, tokenizer_chars=500_000)
        bytes_of = {}
        for n in processes:
            prepared = folder / f"prepared_{n}"
            seconds = rivals.seconds_of(
                lambda prepared=prepared, n=n: memory.prepare(
                    folder / "text", prepared, dataclasses.replace(config, num_proc=n), False
                )
            )
            row[f"{n} processes"] = {
                "seconds": seconds,
                "characters_per_second": sizes.megabytes * 1e6 / seconds,
            }
            manifest = json.loads((prepared / "manifest.json").read_text(encoding="utf-8"))
            bytes_of[n] = [shard["sha256"] for shard in manifest["shards"]]
    row["same_bytes"] = all(sums == bytes_of[processes[0]] for sums in bytes_of.values())
    return row


# --- all parts ---


PARTS: dict[str, tuple[Callable[[Sizes, str | None], Row], int]] = {  # and its limit in seconds
    "gpt": (run_gpt, 90),
    "nanogpt": (run_nanogpt, 100),
    "llama": (run_llama, 90),
    "preset": (run_preset, 90),
    "fineweb": (run_fineweb, 90),
    "generation": (run_generation, 60),
    "resume": (run_resume, 40),
    "precision": (run_precision, 40),
    "ranks": (run_ranks, 90),
    "preparation": (run_preparation, 120),
}


def machine(small: bool) -> dict[str, object]:
    """Return the date, the versions, the processor, and the card with its driver."""
    found = rivals.hardware()
    if small:
        return found | {"card": None}
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        encoding="utf-8",
    ).stdout.strip()
    card = torch.cuda.get_device_properties(0)
    return found | {
        "card": card.name,
        "card_gigabytes": round(card.total_memory / 1e9),
        "driver": driver,
        "cuda": torch.version.cuda,
    }


def matmul_teraflops() -> float:
    """Return the speed of an 8192 × 8192 × 8192 product in bfloat16, the mean of twenty."""
    a, b = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()

    start = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12


def run_part(name: str, limit: float, options: argparse.Namespace) -> Row:
    """Run one part in a process of its own, and return its row; one with "failed" if it failed or took too long."""
    with tempfile.TemporaryDirectory() as workplace:
        answer = Path(workplace) / "row.json"
        command = [sys.executable, __file__, "--inside", name, "--out", str(answer)]
        command += ["--small"] if options.small else []
        command += ["--nanogpt", options.nanogpt] if options.nanogpt else []
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, encoding="utf-8", timeout=limit
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not finished after {limit:.0f} seconds"}
        if done.returncode or not answer.is_file():
            return {"failed": done.stderr[-3000:] or f"exit status {done.returncode}"}
        return json.loads(answer.read_text(encoding="utf-8"))


def run_parts(options: argparse.Namespace) -> dict[str, Row]:
    """Run the parts asked for one after another within the time, save after each, and return all rows of the file."""
    end = time.monotonic() + 60 * options.minutes
    results: dict[str, Any] = {"hardware": machine(options.small), "parts": {}}
    if options.parts and options.out.is_file():
        old = json.loads(options.out.read_text(encoding="utf-8"))
        results["parts"] = old["parts"]
    if not options.small:
        results["hardware"]["matmul_teraflops"] = matmul_teraflops()
        torch.cuda.empty_cache()

    for name in options.parts or PARTS:
        left = end - time.monotonic()
        start = time.monotonic()
        if left < 10:
            row: Row = {"failed": f"not started: {options.minutes} minutes are over"}
        else:
            # The limits are for a GPU: a busy processor may take long to import torch.
            limit = left if options.small else min(left, PARTS[name][1])
            row = run_part(name, limit, options)
        row["seconds"] = time.monotonic() - start
        results["parts"][name] = row
        rivals.save(options.out, results)
        print(f"{name}: {row['seconds']:.0f} s  {json.dumps(row)}", flush=True)
    return results["parts"]


# --- tables ---

LABELS = {
    "nanogpt": "nanoGPT's train.py, vocabulary of 50,304, no bias",
    "gpt": "ours, vocabulary of 50,304, no bias",
    "preset": "ours, preset `gpt2_124m`",
    "llama": "ours, Llama's style, vocabulary of 50,304",
    "fineweb": "ours, preset `fineweb_44m`, 64 × 1,024",
}


def done_parts(parts: Mapping[str, Row], names: Sequence[str]) -> list[str]:
    """Return those of the names whose part was measured."""
    return [
        name for name in names if name in parts and not {"failed", "skipped"} & parts[name].keys()
    ]


def training_table(parts: Mapping[str, Row]) -> str:
    """Return the table of training speeds."""
    rows = []
    for name in done_parts(parts, list(LABELS)):
        row = parts[name]
        peak = row.get("peak_gigabytes")
        rows.append(
            [
                LABELS[name],
                round(row["tokens_per_second"]),
                f"{row['step_ms']:.1f}",
                f"{row['teraflops']:.0f}",
                f"{row['share_of_989']:.3f}",
                "" if peak is None else f"{peak:.1f}",
            ]
        )
    columns = [
        "GPT-2 124M, compiled, bfloat16, 4 × 32 × 1,024 tokens a step",
        "tokens a second",
        "ms a step",
        "TFLOP/s",
        "of 989",
        "peak memory, GB",
    ]
    return rivals.table("Training on one GPU", columns, rows)


def generation_table(row: Row) -> str:
    """Return the table of the speeds of writing."""
    batches = [int(name.rpartition(" ")[2]) for name in row if name.startswith("ours")]
    rows = []
    for batch in batches:
        ours, theirs = row[f"ours, batch {batch}"], row[f"theirs, batch {batch}"]
        rows.append([f"batch {batch}", round(ours), round(theirs), f"{ours / theirs:.2f}"])
    columns = ["tokens a second, all rows together", "ours", "Hugging Face", "ratio"]
    return rivals.table("Greedy decoding with GPT-2 124M in bfloat16", columns, rows)


def precision_table(row: Row) -> str:
    """Return the table of number types."""
    rows = [
        [
            name,
            round(found["tokens_per_second"]),
            f"{found['first_loss']:.2f}",
            f"{found['last_loss']:.3f}",
        ]
        for name, found in row.items()
        if isinstance(found, dict)
    ]
    columns = ["type", "tokens a second", "first loss", "last loss"]
    return rivals.table("A small model in three types of number", columns, rows)


def preparation_table(row: Row) -> str:
    """Return the table of the preparation."""
    cases = {name: found for name, found in row.items() if name.endswith(" processes")}
    one = next(iter(cases.values()))["seconds"] if cases else 1.0
    rows = [
        [
            name.removesuffix(" processes"),
            f"{found['seconds']:.1f}",
            f"{found['characters_per_second'] / 1e6:.1f}",
            f"{one / found['seconds']:.2f}",
        ]
        for name, found in cases.items()
    ]
    columns = ["processes", "seconds", "million characters a second", "times as fast as one"]
    return rivals.table(f"Preparing {row['megabytes']} MB of text", columns, rows)


def tables(parts: Mapping[str, Row]) -> list[str]:
    """Return the tables of all parts that were measured, and a line for the checks."""
    found = []
    if done_parts(parts, list(LABELS)):
        found.append(training_table(parts))
    makers = {
        "generation": generation_table,
        "precision": precision_table,
        "preparation": preparation_table,
    }
    found += [makers[name](parts[name]) for name in done_parts(parts, list(makers))]

    for name in done_parts(parts, ["resume"]):
        row = parts[name]
        found.append(
            f"Resumed at step {row['resumed_at']}: {row['equal_losses']} of {row['steps']} losses are equal, bit for "
            "bit."
        )
    for name in done_parts(parts, ["ranks"]):
        ddp, fsdp = (parts[name][key]["largest_difference"] for key in ("ddp", "fsdp"))
        found.append(
            f"One rank against a plain run, {parts[name]['steps']} steps: the losses differ by {ddp:.2g} with DDP, "
            f"by {fsdp:.2g} with FSDP2."
        )
    return found


def main() -> int:
    """Run the parts and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nanogpt", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--parts", nargs="+", choices=PARTS, metavar="NAME", help="only these")
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together")
    parser.add_argument("--small", action="store_true", help="tiny sizes, on a processor")
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument("--inside", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.inside:
        sizes = SMALL if options.small else FULL
        rivals.save(options.out, PARTS[options.inside][0](sizes, options.nanogpt))
        return 0
    if not options.small and not torch.cuda.is_available():
        print("there is no GPU here: --small tries the code on the processor")
        return 0
    if options.out is None:
        options.out = Path(tempfile.gettempdir()) / "gpu_small.json" if options.small else OUT

    parts = run_parts(options)
    print("\n" + "\n\n".join(tables(parts)))
    if options.small:
        print(
            "\nThese were tiny sizes on a processor: the code works, and the figures mean nothing."
        )
    print(f"\n{rivals.hardware_line()}; {options.out}")
    return 1 if any("failed" in row for row in parts.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
