"""Time a training step against the size of the model and against the context, and compare with the FLOPs.

    python benchmarks/scaling.py [--repeat 7] [--threads N] [--out FILE]

Seven models of 0.1 to 31 million matrix weights at 128 tokens of context, then the laptop preset with 64 to 2,048.
A step is forward, backward and AdamW (torch's, fused), in float32, on 2,048 random tokens whatever the context.
The steps run in turn; the median of the rounds counts.

On paper a token costs 6 N + 12 n_layer T C FLOPs, N the weights of all matrices (the head among them, the embedding
not), T the context, C the width. Forward is two for each weight and, in each layer, 4 T C for queries with keys and
for weights with values; backward is twice that (Chowdhery et al., 2022, appendix B). The script checks it against
torch's counter. All T keys count for every query, though causality needs only half.

Then seconds per token = a + b * FLOPs is fitted to the models of the first table, by least squares of the relative
errors, so that small models count as much as large ones; and the second table, which the fit has not seen,
is predicted. The results go to FILE (benchmarks/results/scaling.json).

What bends the law, as the GFLOP/s of the tables show: norms, activations, rotations and AdamW work that the FLOPs leave
out, most of all in narrow models; matrices that keep the processor busier the wider they are; and, beyond some
500 tokens, torch's attention, which skips the keys of the future that the formula counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import hardware, hardware_line, interleave, medians, table
from torch.utils.flop_counter import FlopCounterMode

from minigpt_lib.model import GPTConfig, MiniGPT

OUT = Path(__file__).resolve().parent / "results" / "scaling.json"
TOKENS = 2048  # in a step
BLOCK = 128  # context of the models of the first table
SIZES = ((2, 64), (3, 96), (4, 128), (5, 192), (6, 256), (6, 384), (10, 512))  # n_layer, n_embd
CONTEXTS = (64, 128, 256, 512, 1024, 2048)


def matrix_weights(config: GPTConfig) -> int:
    """Return the weights that every token is multiplied with: those of all matrices, tables left out."""
    with torch.device("meta"):
        model = MiniGPT(config)
    inside = sum(weight.numel() for weight in model.blocks.parameters() if weight.ndim == 2)
    return inside + config.vocab_size * config.n_embd  # the head, tied or not


def attention_flops(config: GPTConfig, T: int) -> int:
    """Return the FLOPs per token of a training step that attention spends on T keys: 12 n_layer T C."""
    return 12 * config.n_layer * T * config.n_embd


def flops_per_token(config: GPTConfig, T: int) -> int:
    """Return the FLOPs of a training step per token, by the formula."""
    return 6 * matrix_weights(config) + attention_flops(config, T)


def counted_flops_per_token(config: GPTConfig, T: int) -> float:
    """Return the same as torch's counter sees it, without computing anything.

    The explicit attention is counted: torch has no count of its fused one for the CPU.
    """
    with torch.device("meta"):
        model = MiniGPT(dataclasses.replace(config, fused=False, max_seq_len=T))
        ids = torch.zeros(1, T, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(ids, ids)[1].backward()
    return counter.get_total_flops() / T


def training_step(config: GPTConfig, T: int, tokens: int = TOKENS) -> Callable[[], object]:
    """Return a function that trains a new model for one step, on tokens / T random windows."""
    if tokens % T:
        raise ValueError(f"{tokens} tokens cannot be cut into windows of {T}.")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (tokens // T, T + 1), generator=generator)
    torch.manual_seed(0)
    model = MiniGPT(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        model(ids[:, :-1], ids[:, 1:])[1].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


@dataclass(frozen=True)
class Law:
    """seconds per token = a + b * FLOPs per token, with the standard errors of both; spread is that of the ratios."""

    a: float
    b: float
    a_error: float
    b_error: float
    spread: float

    def __call__(self, flops: float) -> float:
        """Return the seconds per token that it predicts."""
        return self.a + self.b * flops


def fit_law(flops: Sequence[float], seconds: Sequence[float]) -> Law:
    """Return the law with the least squares of (predicted - measured) / measured; three points at least."""
    if len(flops) != len(seconds) or len(flops) < 3:
        raise ValueError(
            f"{len(flops)} and {len(seconds)} numbers: expected as many, three at least."
        )
    x, y = torch.tensor([flops, seconds], dtype=torch.float64)
    scale = x.mean()  # FLOPs are millions, seconds millionths: numbers near 1 are safer to invert
    design = torch.stack([torch.ones_like(x), x / scale], dim=1) / y[:, None]
    inverse = torch.linalg.inv(design.T @ design)
    a, b = inverse @ design.sum(dim=0)
    residuals = design @ torch.stack([a, b]) - 1
    variance = residuals.square().sum() / (len(x) - 2)
    a_error, b_error = (variance * inverse.diagonal()).sqrt()
    values = (a, b / scale, a_error, b_error / scale, variance.sqrt())
    return Law(*(value.item() for value in values))


def size_configs() -> list[GPTConfig]:
    """Return the models of the first table: the laptop preset, wider and deeper."""
    return [
        GPTConfig.preset(
            "laptop", n_layer=layers, n_embd=width, n_head=max(2, width // 64), max_seq_len=BLOCK
        )
        for layers, width in SIZES
    ]


def rows_of(cases: list[tuple[GPTConfig, int]], repeat: int) -> list[dict]:
    """Measure the steps of all (config, T) in turn; return what the tables and the file need."""
    programs = {str(i): training_step(config, T) for i, (config, T) in enumerate(cases)}
    seconds = medians(interleave(programs, repeat, warmup=2)).values()
    return [
        {
            "n_layer": config.n_layer,
            "n_embd": config.n_embd,
            "context": T,
            "matrix_weights": matrix_weights(config),
            "flops_per_token": flops_per_token(config, T),
            "attention_share": attention_flops(config, T) / flops_per_token(config, T),
            "seconds_per_token": step / TOKENS,
        }
        for (config, T), step in zip(cases, seconds)
    ]


COLUMNS = (
    "MFLOPs a token",
    "attention's share",
    "tokens a second",
    "the law's",
    "ratio",
    "GFLOP/s",
)


def cells(row: dict, law: Law) -> list[str]:
    """Return the cells of a line under COLUMNS; the ratio is measured speed to predicted."""
    measured, flops = row["seconds_per_token"], row["flops_per_token"]
    return [
        f"{flops / 1e6:.1f}",
        f"{row['attention_share']:.0%}",
        f"{1 / measured:,.0f}",
        f"{1 / law(flops):,.0f}",
        f"{law(flops) / measured:.2f}",
        f"{flops / measured / 1e9:.0f}",
    ]


def size_table(rows: list[dict], law: Law) -> str:
    """Return the table of the models at one context."""
    names = [f"{r['matrix_weights'] / 1e6:.2f} M, {r['n_layer']} × {r['n_embd']}" for r in rows]
    lines = [[name, *cells(row, law)] for name, row in zip(names, rows)]
    columns = ["weights, layers × width", *COLUMNS]
    return table(f"Training at {rows[0]['context']} tokens of context", columns, lines)


def context_table(rows: list[dict], law: Law) -> str:
    """Return the table of one model at several contexts."""
    lines = [[f"{row['context']:,}", *cells(row, law)] for row in rows]
    return table("Training the laptop preset", ["context", *COLUMNS], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--threads", type=int, help="all cores unless told")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    sizes = size_configs()
    laptop = GPTConfig.preset("laptop", max_seq_len=max(CONTEXTS))
    for config in (sizes[0], GPTConfig.preset("gpt2_124m")):
        if counted_flops_per_token(config, BLOCK) != flops_per_token(config, BLOCK):
            raise SystemExit(
                "the formula and torch's counter disagree: see tests/test_benchmarks.py"
            )

    by_size = rows_of([(config, BLOCK) for config in sizes], options.repeat)
    by_context = rows_of([(laptop, T) for T in CONTEXTS], options.repeat)
    law = fit_law(
        *([row[key] for row in by_size] for key in ("flops_per_token", "seconds_per_token"))
    )

    print(size_table(by_size, law) + "\n")
    print(context_table(by_context, law))
    print(
        f"\nseconds per token = {law.a * 1e6:.2f} µs ± {law.a_error * 1e6:.2f} + FLOPs / {1e-9 / law.b:.0f} GFLOP/s "
        f"(± {law.b_error / law.b:.0%}); the models of the first table scatter about it by {law.spread:.0%}."
    )
    print(f"median of {options.repeat} rounds; {hardware_line()}")
    results = {"hardware": hardware(), "repeat": options.repeat, "tokens_per_step": TOKENS}
    results |= {"law": dataclasses.asdict(law), "by_size": by_size, "by_context": by_context}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
