"""Time a training step for models of several sizes and contexts, and compare with the FLOPs.

    python benchmarks/scaling.py [--repeat 7] [--threads N] [--out FILE]

Seven models of 0.1 to 31 million matrix weights with 128 tokens of context, then the laptop preset with 64 to 2,048.
A step is forward, backward and AdamW (torch's, fused), in float32, on 2,048 random tokens whatever the context. The
steps run in turn; the median of the rounds counts.

On paper a token costs 6 N + 12 n_layer T C FLOPs, where N is the number of weights in all matrices (the head included,
the embedding not), T the context and C the width. Forward takes two FLOPs for each weight and, in each layer, 4 T C for
queries times keys and weights times values; backward takes twice as many (Chowdhery et al., 2022, appendix B). The
script checks this against torch's counter. All T keys count for every query, although causality needs only half.

Then seconds per token = a + b * FLOPs is fitted to the models of the first table, by least squares of the relative
errors, so that small models count as much as large ones. The fit predicts the second table, which it has not seen. The
results go to FILE (benchmarks/results/scaling.json).

What bends the law, as the GFLOP/s in the tables show: the work of norms, activations, rotations and AdamW, which the
FLOPs leave out, most of all in narrow models; matrices, which keep the processor busier the wider they are; and, beyond
about 500 tokens, torch's attention, which skips the keys of the future that the formula counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import RESULTS, hardware, hardware_line, interleave, medians, save, table
from torch.utils.flop_counter import FlopCounterMode

from minigpt_lib.model import GPTConfig, MiniGPT

Row = dict[str, Any]  # a measured model, a JSON object

OUT = RESULTS / "scaling.json"
TOKENS = 2048  # in a step
BLOCK = 128  # context of the models of the first table
SIZES = ((2, 64), (3, 96), (4, 128), (5, 192), (6, 256), (6, 384), (10, 512))  # n_layer, n_embd
CONTEXTS = (64, 128, 256, 512, 1024, 2048)
COLUMNS = (
    "MFLOPs a token",
    "attention's share",
    "tokens a second",
    "the law's",
    "ratio",
    "GFLOP/s",
)


# --- FLOPs ---


def matrix_weights(config: GPTConfig) -> int:
    """Return the number of weights that every token is multiplied by: those of all matrices, but not of tables."""
    with torch.device("meta"):
        model = MiniGPT(config)
    inside = sum(weight.numel() for weight in model.blocks.parameters() if weight.ndim == 2)
    return inside + config.vocab_size * config.n_embd  # the head, tied or not


def attention_flops(config: GPTConfig, T: int) -> int:
    """Return the FLOPs per token of a training step that attention spends on T keys: 12 n_layer T C."""
    return 12 * config.n_layer * T * config.n_embd


def flops_per_token(config: GPTConfig, T: int) -> int:
    """Return the FLOPs of a training step per token, by the formula, with T tokens of context."""
    return 6 * matrix_weights(config) + attention_flops(config, T)


def counted_flops_per_token(config: GPTConfig, T: int) -> float:
    """Return the same as torch counts it, without computing anything.

    The explicit attention is counted, because torch cannot count its fused one on the CPU.
    """
    with torch.device("meta"):
        model = MiniGPT(dataclasses.replace(config, fused=False, max_seq_len=T))
        ids = torch.zeros(1, T, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(ids, ids)[1].backward()
    return counter.get_total_flops() / T


# --- measuring ---


def training_step(config: GPTConfig, T: int, tokens: int = TOKENS) -> Callable[[], object]:
    """Return a function that trains a new model for one step on tokens / T random windows.

    Raises ValueError if T does not divide the number of tokens.
    """
    if tokens % T:
        raise ValueError(f"{tokens} tokens cannot be cut into windows of {T}.")

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (tokens // T, T + 1), generator=generator)
    torch.manual_seed(0)
    model = MiniGPT(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        _, loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def size_configs() -> list[GPTConfig]:
    """Return the models of the first table: the laptop preset, narrower and wider, shallower and deeper."""
    return [
        GPTConfig.preset(
            "laptop", n_layer=layers, n_embd=width, n_head=max(2, width // 64), max_seq_len=BLOCK
        )
        for layers, width in SIZES
    ]


def rows_of(cases: Sequence[tuple[GPTConfig, int]], repeat: int) -> list[Row]:
    """Measure the training steps of all (config, context) in turn, and return a row for each."""
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


# --- the law ---


@dataclass(frozen=True)
class Law:
    """seconds per token = a + b * FLOPs per token, with both standard errors.

    spread: the standard deviation of predicted / measured.
    """

    a: float
    b: float
    a_error: float
    b_error: float
    spread: float

    def __call__(self, flops: float) -> float:
        """Return the predicted seconds per token."""
        return self.a + self.b * flops


def fit_law(flops: Sequence[float], seconds: Sequence[float]) -> Law:
    """Return the law with the least squares of (predicted - measured) / measured.

    Raises ValueError unless there are equally many of both, at least three.
    """
    if len(flops) != len(seconds) or len(flops) < 3:
        raise ValueError(
            f"{len(flops)} and {len(seconds)} numbers: expected equally many, three at least."
        )

    x, y = torch.tensor([flops, seconds], dtype=torch.float64)
    scale = x.mean()  # FLOPs are millions, seconds millionths: numbers near 1 are safer to invert
    design = torch.stack([torch.ones_like(x), x / scale], dim=1) / y[:, None]
    inverse = torch.linalg.inv(design.T @ design)
    a, b = inverse @ design.sum(dim=0)

    residuals = design @ torch.stack([a, b]) - 1
    variance = residuals.square().sum() / (len(x) - 2)
    a_error, b_error = (variance * inverse.diagonal()).sqrt()
    return Law(
        a=a.item(),
        b=(b / scale).item(),
        a_error=a_error.item(),
        b_error=(b_error / scale).item(),
        spread=variance.sqrt().item(),
    )


# --- tables ---


def cells(row: Row, law: Law) -> list[str]:
    """Return the cells of a row under COLUMNS; the ratio is that of the measured speed to the predicted one."""
    measured = row["seconds_per_token"]
    flops = row["flops_per_token"]
    return [
        f"{flops / 1e6:.1f}",
        f"{row['attention_share']:.0%}",
        f"{1 / measured:,.0f}",
        f"{1 / law(flops):,.0f}",
        f"{law(flops) / measured:.2f}",
        f"{flops / measured / 1e9:.0f}",
    ]


def size_table(rows: Sequence[Row], law: Law) -> str:
    """Return the table of several models with the same context."""
    names = [f"{r['matrix_weights'] / 1e6:.2f} M, {r['n_layer']} × {r['n_embd']}" for r in rows]
    lines = [[name, *cells(row, law)] for name, row in zip(names, rows)]
    columns = ["weights, layers × width", *COLUMNS]
    return table(f"Training at {rows[0]['context']} tokens of context", columns, lines)


def context_table(rows: Sequence[Row], law: Law) -> str:
    """Return the table of one model with several contexts."""
    lines = [[f"{row['context']:,}", *cells(row, law)] for row in rows]
    return table("Training the laptop preset", ["context", *COLUMNS], lines)


def refuse_wrong_formula(configs: Sequence[GPTConfig]) -> None:
    """Raise SystemExit if the formula and torch's counter disagree about one of the models."""
    for config in configs:
        if counted_flops_per_token(config, BLOCK) != flops_per_token(config, BLOCK):
            raise SystemExit(
                "the formula and torch's counter disagree: see tests/test_benchmarks.py"
            )


def main() -> None:
    """Measure both tables, fit the law, print all three and write them to the file of results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7, help="rounds, of which the median counts")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    sizes = size_configs()
    laptop = GPTConfig.preset("laptop", max_seq_len=max(CONTEXTS))
    refuse_wrong_formula([sizes[0], GPTConfig.preset("gpt2_124m")])
    by_size = rows_of([(config, BLOCK) for config in sizes], options.repeat)
    by_context = rows_of([(laptop, T) for T in CONTEXTS], options.repeat)
    law = fit_law(
        [row["flops_per_token"] for row in by_size], [row["seconds_per_token"] for row in by_size]
    )

    print(size_table(by_size, law) + "\n")
    print(context_table(by_context, law))
    print(
        f"\nseconds per token = {law.a * 1e6:.2f} µs ± {law.a_error * 1e6:.2f} + FLOPs / {1e-9 / law.b:.0f} GFLOP/s "
        f"(± {law.b_error / law.b:.0%}); the models of the first table scatter about it by {law.spread:.0%}."
    )
    print(f"median of {options.repeat} rounds; {hardware_line()}")
    save(
        options.out,
        {
            "hardware": hardware(),
            "repeat": options.repeat,
            "tokens_per_step": TOKENS,
            "law": dataclasses.asdict(law),
            "by_size": by_size,
            "by_context": by_context,
        },
    )


if __name__ == "__main__":
    main()
