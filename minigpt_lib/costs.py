"""Say beforehand what a training run needs: tokens, FLOPs, days, memory, traffic, checkpoints.

N weights, D tokens, C = n_embd channels, T sequence length, W ranks. Losses are nats per token, memory is
bytes, compute is FLOPs (a multiplication and an addition are two).

Written by notebooks/18_scaling.ipynb (chapter 18): edit it there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import PRECISIONS, choose_precision

__all__ = [
    "BESIROGLU",
    "GPU",
    "GPUS",
    "HOFFMANN",
    "activation_bytes",
    "checkpoint_interval",
    "chinchilla_optimal_tokens",
    "flops_per_token",
    "LossLaw",
    "lost_share",
    "matrix_weights",
    "memory_per_rank",
    "plan",
    "traffic_per_step",
    "training_days",
]


def _check_positive(**numbers: float) -> None:
    """Raise ValueError for a number that is not above 0 and finite."""
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value!r}: expected a number above 0.")


def chinchilla_optimal_tokens(n_params: int, tokens_per_weight: float = 20.0) -> int:
    """Return how many tokens a model of n_params weights should read to make the most of its compute.

    The rule of thumb from Hoffmann et al. (2022), table 3: about 20 tokens for each weight, at every
    size. Raises ValueError if either number is not above 0.
    """
    _check_positive(n_params=n_params, tokens_per_weight=tokens_per_weight)
    return round(n_params * tokens_per_weight)


@dataclass(frozen=True)
class LossLaw:
    """A scaling law: E + A / N^alpha + B / D^beta nats per token, for N weights and D tokens.

    Hoffmann et al. (2022), equation 2. E is what no model can learn; the other terms are the price of
    a small model and of a short text. HOFFMANN has their constants (appendix D.3), BESIROGLU those that
    Besiroglu et al. (2024) found in the same data.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def predict(self, n_params: float, tokens: float) -> float:
        """Return the loss of a model of n_params weights that has read `tokens` tokens, in nats per token."""
        _check_positive(n_params=n_params, tokens=tokens)
        return self.E + self.A / n_params**self.alpha + self.B / tokens**self.beta

    def optimal(self, flops: float) -> tuple[float, float]:
        """Return the (weights, tokens) with the least loss and 6 * weights * tokens = flops: equation 4."""
        _check_positive(flops=flops)
        both = self.alpha + self.beta
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / both)
        n_params = ratio * (flops / 6) ** (self.beta / both)
        return n_params, flops / 6 / n_params


HOFFMANN = LossLaw(1.69, 406.4, 410.7, 0.34, 0.28)
BESIROGLU = LossLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)


@functools.cache
def _weights(config: GPTConfig) -> dict[str, torch.Size]:
    """Return the shapes of a model's weights by name, without making any."""
    with torch.device("meta"):
        return {name: weight.shape for name, weight in MiniGPT(config).named_parameters()}


def _total(shapes: dict[str, torch.Size]) -> int:
    return sum(shape.numel() for shape in shapes.values())


def _in_blocks(shapes: dict[str, torch.Size]) -> dict[str, torch.Size]:
    return {name: shape for name, shape in shapes.items() if name.startswith("blocks.")}


def matrix_weights(config: GPTConfig) -> int:
    """Return how many weights each token is multiplied with: all matrices and the head, no lookup table."""
    blocks = _in_blocks(_weights(config)).values()
    return sum(s.numel() for s in blocks if len(s) == 2) + config.vocab_size * config.n_embd


def flops_per_token(config: GPTConfig, context: int | None = None) -> int:
    """Return the FLOPs of a training step per token: 6 for each matrix weight, 12 L T C for attention.

    context: the sequence length T, by default max_seq_len. Backward costs twice as much as forward;
    masked keys count too: Chowdhery et al. (2022), appendix B.
    """
    T = config.max_seq_len if context is None else context
    return 6 * matrix_weights(config) + 12 * config.n_layer * T * config.n_embd


def training_days(flops: float, gpus: int, peak: float, utilisation: float = 0.4) -> float:
    """Return the days that `gpus` GPUs of `peak` FLOP/s each need for `flops`.

    utilisation: the fraction of the peak that a run really gets (MFU). Raises ValueError unless it is
    above 0 and at most 1, and the others are above 0.
    """
    _check_positive(flops=flops, gpus=gpus, peak=peak)
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation={utilisation}: expected a share above 0, at most 1.")
    return flops / (gpus * peak * utilisation) / 86_400


@dataclass(frozen=True)
class GPU:
    """What a data sheet says: FLOP/s in bfloat16 without sparsity, bytes of memory, bytes/s of the link.

    link: to the other GPUs of the same machine, in one direction. None of it was measured here.
    """

    flops: float
    memory: float
    link: float


GPUS = {
    "RTX 4090": GPU(165e12, 24e9, 32e9),  # PCIe 4.0, 16 lanes
    "A100 80GB": GPU(312e12, 80e9, 300e9),
    "H100 SXM": GPU(989e12, 80e9, 450e9),
    "H200": GPU(989e12, 141e9, 450e9),
}


def _bytes_of(precision: str) -> int:
    return PRECISIONS[choose_precision("cpu", precision)[0]].itemsize


def _shard_size(shape: Sequence[int], world: int) -> int:
    """Return how many numbers of a weight the first of `world` ranks keeps: whole rows, rounded up."""
    return -(-shape[0] // world) * math.prod(shape[1:])


def _check_parallel(parallel: str) -> None:
    if parallel not in ("ddp", "fsdp"):
        raise ValueError(f"parallel={parallel!r}: expected ddp or fsdp.")


def activation_bytes(
    config: GPTConfig,
    batch_size: int = 1,
    context: int | None = None,
    precision: str = "bfloat16",
    recompute: bool = False,
) -> int:
    """Return the bytes that forward keeps for backward, for `batch_size` texts of `context` tokens.

    Counted from what torch's fused kernels keep on the CPU, without dropout, rotary tables and
    temporary tensors. recompute: the inputs of all blocks, and the inside of one.
    """
    context = config.max_seq_len if context is None else context
    _check_positive(batch_size=batch_size, context=context)
    size = _bytes_of(precision)
    C = config.n_embd
    kv = (config.n_kv_head or config.n_head) * config.head_dim
    hidden = _weights(config)["blocks.0.ffn.down.weight"][1]

    norm = size * C + 4 * (2 * C + 1)
    if config.norm == "layer":
        norm = 2 * size * (C + 1)

    repeated = 2 * C if kv < C else 0  # keys and values, once for each query head
    attention = C + 2 * kv + repeated + C
    if config.position == "rope":
        attention = C + kv + (repeated or C + 2 * kv) + 2 * C

    ffn = hidden * {"swiglu": 4, "relu": 1}.get(config.ffn, 2)
    block = 2 * norm + size * (attention + ffn) + 4 * config.n_head
    blocks = config.n_layer * block
    if recompute:
        blocks = config.n_layer * size * C + block
    return batch_size * context * (blocks + norm + 4 * config.vocab_size)


def memory_per_rank(
    config: GPTConfig,
    ranks: int = 1,
    parallel: str = "ddp",
    *,
    batch_size: int = 1,
    context: int | None = None,
    precision: str = "bfloat16",
    reshard: bool = True,
    recompute: bool = False,
) -> dict[str, int]:
    """Return the bytes that training needs on each rank, by kind, and their "total".

    weights, gradients, optimizer: float32, and AdamW's two means. copies: weights in `precision`; with
    fsdp the gathered ones (two blocks, one in use and one on its way, and everything outside the
    blocks). activations: see `activation_bytes`. Buffers of the libraries and fragmentation come on top.
    Raises ValueError for a parallel other than ddp and fsdp, and for a number that is not above 0.
    """
    _check_parallel(parallel)
    _check_positive(ranks=ranks)
    shapes = _weights(config)
    kept = copies = _total(shapes)
    if parallel == "fsdp":
        kept = sum(_shard_size(shape, ranks) for shape in shapes.values())
        if reshard:
            gathered = min(2, config.n_layer) / config.n_layer
            copies -= _total(_in_blocks(shapes)) * (1 - gathered)
    elif precision == "float32":
        copies = 0

    memory = {
        "weights": 4 * kept,
        "gradients": 4 * kept,
        "optimizer": 8 * kept,
        "copies": round(copies * _bytes_of(precision)),
        "activations": activation_bytes(config, batch_size, context, precision, recompute),
    }
    return memory | {"total": sum(memory.values())}


def traffic_per_step(
    config: GPTConfig,
    ranks: int,
    parallel: str = "ddp",
    *,
    micro_batches: int = 1,
    precision: str = "bfloat16",
    reshard: bool = True,
) -> float:
    """Return the bytes that each rank sends in a step with ring algorithms; it receives as many.

    ddp: all gradients once, in float32, each number (W - 1) / W times on its way to the sum and as often
    on the way back. fsdp: gradients to their owners, (W - 1) / W of them, and for every micro-batch the
    weights in `precision`: those in blocks twice with reshard, everything else once. Raises ValueError
    for a parallel other than ddp and fsdp, and for a number that is not above 0.
    """
    _check_parallel(parallel)
    _check_positive(ranks=ranks, micro_batches=micro_batches)
    size = _bytes_of(precision)
    shapes = _weights(config)
    others = (ranks - 1) / ranks
    if parallel == "ddp":
        return 2 * others * 4 * _total(shapes)

    padded = {name: _shard_size(shape, ranks) * ranks for name, shape in shapes.items()}
    total = sum(padded.values())
    inside = sum(n for name, n in padded.items() if name.startswith("blocks."))
    gathered = micro_batches * size * (total + (inside if reshard else 0))
    return others * (gathered + 4 * total)


def plan(
    config: GPTConfig,
    tokens: float,
    gpus: int,
    gpu: str = "H100 SXM",
    *,
    utilisation: float = 0.4,
    euros_per_hour: float = 2.5,
    parallel: str = "fsdp",
    batch_size: int = 1,
    recompute: bool = True,
) -> dict[str, float]:
    """Return what it takes to train a model of this config on `tokens` tokens with a fleet of GPUs.

    flops, days, gpu_hours, euros; memory, in bytes on each GPU; bandwidth, in bytes/s: what each GPU
    must send if a step of one micro-batch of `batch_size` texts is not to wait for the others; loss, by
    BESIROGLU's law, for a tokenizer like theirs. Raises ValueError for a GPU that is not in GPUS, and
    as its parts do.
    """
    if gpu not in GPUS:
        raise ValueError(f"gpu={gpu!r}: expected one of {', '.join(GPUS)}.")
    _check_positive(tokens=tokens, gpus=gpus, euros_per_hour=euros_per_hour, batch_size=batch_size)
    per_token = flops_per_token(config)
    days = training_days(per_token * tokens, gpus, GPUS[gpu].flops, utilisation)
    tokens_per_step = batch_size * config.max_seq_len
    seconds_per_step = tokens_per_step * per_token / (GPUS[gpu].flops * utilisation)
    memory = memory_per_rank(config, gpus, parallel, batch_size=batch_size, recompute=recompute)
    return {
        "flops": per_token * tokens,
        "days": days,
        "gpu_hours": 24 * days * gpus,
        "euros": 24 * days * gpus * euros_per_hour,
        "memory": memory["total"],
        "bandwidth": traffic_per_step(config, gpus, parallel) / seconds_per_step,
        "loss": BESIROGLU.predict(_total(_weights(config)), tokens),
    }


def checkpoint_interval(write: float, mtbf: float) -> float:
    """Return how long to train between two checkpoints: sqrt(2 * write * mtbf), Young (1974).

    write: how long saving takes; mtbf: the mean time between two failures of the whole machine; all in
    one unit of time. Raises ValueError unless both are above 0.
    """
    _check_positive(write=write, mtbf=mtbf)
    return math.sqrt(2 * write * mtbf)


def lost_share(interval: float, write: float, mtbf: float, restart: float = 0.0) -> float:
    """Return the fraction of the time that saving and failures cost: saving, work done twice, restarts.

    A first-order formula: good where the interval is long against writing and short against mtbf.
    Raises ValueError unless the first three are above 0.
    """
    _check_positive(interval=interval, write=write, mtbf=mtbf)
    return write / interval + (interval / 2 + restart) / mtbf
