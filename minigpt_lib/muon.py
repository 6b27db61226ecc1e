"""Muon: move a matrix as far in its weak directions as in its strong ones.

A *direction* is a pair of singular vectors of a matrix; its singular value says how strong it is.

Written by notebooks/20_speedrun.ipynb (chapter 20): edit it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minigpt_lib.model import MiniGPT

__all__ = [
    "COEFFICIENTS",
    "Muon",
    "muon_groups",
    "muon_with_adamw",
    "OptimizerPair",
    "orthogonalize",
]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. (2024): steep at 0, near 1 after 5 steps


def orthogonalize(
    matrix: Tensor,
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float = 1e-7,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Return matrices with the same singular vectors, whose singular values are about 1.

    matrix (..., rows, columns), of any floating dtype, which the result keeps. It is divided by its
    Frobenius norm, or by eps if that is larger; then each Newton-Schulz step maps every singular value s
    to a s + b s^3 + c s^5, for coefficients (a, b, c). With the default ones, those that were at least
    1/100 of the norm end between 0.68 and 1.14, roundings aside; much smaller ones grow up to 485-fold.
    dtype: the products are computed in it. Jordan et al. (2024), "Muon"; equal to what torch.optim.Muon
    does to one matrix.

    Raises ValueError for a tensor that holds no matrices, and for steps below 0.
    """
    if matrix.ndim < 2 or not matrix.is_floating_point():
        raise ValueError(
            f"expected matrices (..., rows, columns) of floats, got {tuple(matrix.shape)} of "
            f"{matrix.dtype}."
        )
    if steps < 0:
        raise ValueError(f"steps={steps}: expected 0 or more.")

    a, b, c = coefficients
    x = matrix.to(dtype).reshape(-1, *matrix.shape[-2:])  # (N, rows, columns)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT  # the gram matrix is then the smaller one
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)  # no singular value is above 1 now

    for _ in range(steps):
        gram = x @ x.mT
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b gram + c gram gram
        x = torch.baddbmm(x, factor, x, beta=a)  # a x + factor x

    if tall:
        x = x.mT
    return x.reshape(matrix.shape).to(matrix.dtype)


class Muon(Optimizer):
    """Momentum whose every update is orthogonalized, for matrices: Jordan et al. (2024), by hand.

    For each weight it keeps m, a running mean of the gradient g. The update is the orthogonalized m, or,
    with nesterov, that of (1 - momentum) g + momentum m. The weight shrinks by lr * weight_decay, then
    moves by lr * update, times sqrt(max(1, rows / columns)) for adjust_lr="original", or times
    0.2 sqrt(max(rows, columns)) for "match_rms_adamw" (Liu et al., 2025, equation 4). steps, dtype: those
    of `orthogonalize`. parts: a weight is that many matrices above one another, each orthogonalized by
    itself: 3 for queries, keys and values. With parts=1 equal to torch.optim.Muon, whose momentum it can
    load.

    Raises ValueError for a weight that is no matrix or cannot be cut into its parts, and for settings out
    of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        steps: int = 5,
        adjust_lr: str = "original",
        dtype: torch.dtype = torch.bfloat16,
        parts: int = 1,
    ) -> None:
        if not (lr >= 0 and weight_decay >= 0 and 0 <= momentum < 1 and steps >= 0):
            raise ValueError(
                f"lr={lr}, momentum={momentum}, weight_decay={weight_decay}, steps={steps}: expected "
                "momentum from 0 to below 1 and nothing negative."
            )
        if adjust_lr not in ("original", "match_rms_adamw"):
            raise ValueError(f"adjust_lr={adjust_lr!r}: expected 'original' or 'match_rms_adamw'.")

        options = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "steps": steps,
            "adjust_lr": adjust_lr,
            "dtype": dtype,
            "parts": parts,
        }
        super().__init__(params, options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of weights; raises ValueError for one that is no matrix."""
        super().add_param_group(param_group)
        for weight in self.param_groups[-1]["params"]:
            if weight.ndim != 2:
                self.param_groups.pop()
                raise ValueError(
                    f"Muon moves matrices (rows, columns), got a weight of shape {tuple(weight.shape)}: "
                    "leave it to AdamW, as muon_groups does."
                )
            parts = self.param_groups[-1]["parts"]
            if parts < 1 or weight.shape[0] % parts:
                self.param_groups.pop()
                raise ValueError(
                    f"parts={parts}: the {weight.shape[0]} rows of a weight cannot be cut into as many equal parts."
                )

    @torch.no_grad()
    # pyrefly: ignore[bad-override]  torch has one overload with a closure and one without
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every weight that has a gradient; return the loss of `closure`, or None."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        for group in self.param_groups:
            same_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    same_shape.setdefault(weight.shape, []).append(weight)
            for weights in same_shape.values():
                self._move(weights, group)
        return loss

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Update weights of one shape together: a few large products are faster than many small ones."""
        updates = []
        for weight in weights:
            grad = weight.grad
            assert grad is not None  # `step` leaves the others out
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            mean = state["momentum_buffer"]
            mean.lerp_(grad, 1 - group["momentum"])
            updates.append(grad.lerp(mean, group["momentum"]) if group["nesterov"] else mean)

        rows, columns = weights[0].shape
        rows //= group["parts"]
        # (N, parts, rows, columns)
        parts = torch.stack(updates).unflatten(1, (group["parts"], rows))
        moves = orthogonalize(parts, steps=group["steps"], dtype=group["dtype"]).flatten(1, 2)

        scale = math.sqrt(max(1.0, rows / columns))
        if group["adjust_lr"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        for weight, move in zip(weights, moves):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(move, alpha=group["lr"] * scale)


def muon_groups(model: MiniGPT) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (matrices, others): what Muon moves, and what is left to AdamW.

    Matrices are the 2-D weights inside the model's blocks. The others are embeddings, the head, norms,
    biases and everything of another shape. Weights with requires_grad=False are in neither.
    """
    inside = {id(weight) for weight in model.blocks.parameters() if weight.ndim == 2}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in weights if id(weight) in inside]
    others = [weight for weight in weights if id(weight) not in inside]
    return matrices, others


class OptimizerPair(Optimizer):
    """Two optimizers that look like one, each with weights of its own.

    Its param_groups are those of the first and then those of the second, the same objects, so a schedule
    reaches both. Raises ValueError if a weight belongs to both.
    """

    def __init__(self, first: Optimizer, second: Optimizer) -> None:
        self.first = first
        self.second = second
        super().__init__([*first.param_groups, *second.param_groups], {})

    # pyrefly: ignore[bad-override]  torch has one overload with a closure and one without
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Let both make a step; return the loss of `closure`, or None."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        self.first.step()
        self.second.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both, by the names "first" and "second"."""
        return {"first": self.first.state_dict(), "second": self.second.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what state_dict returned."""
        self.first.load_state_dict(state_dict["first"])
        self.second.load_state_dict(state_dict["second"])
        self.param_groups = [*self.first.param_groups, *self.second.param_groups]


def muon_with_adamw(
    model: MiniGPT,
    lr: float = 0.02,
    adamw_lr: float = 3e-3,
    *,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.0,
    **options: Any,
) -> OptimizerPair:
    """Return the pair for a model: Muon for the matrices of its blocks, AdamW for everything else.

    Queries, keys and values share a weight; Muon takes it as three matrices where they are equally large.
    betas: AdamW's. weight_decay: that of the matrices; the others do not decay. options: those of Muon.
    """
    matrices, others = muon_groups(model)
    c = model.config
    parts = 3 if c.n_kv_head in (None, c.n_head) else 1
    stacked = {
        id(weight)
        for name, weight in model.named_parameters()
        if name.endswith("attention.qkv.weight")
    }
    groups = [
        {"params": [weight for weight in matrices if id(weight) in stacked], "parts": parts},
        {"params": [weight for weight in matrices if id(weight) not in stacked]},
    ]
    muon = Muon(groups, lr, weight_decay=weight_decay, **options)
    adamw = torch.optim.AdamW(others, adamw_lr, betas, weight_decay=0.0, fused=True)
    return OptimizerPair(muon, adamw)
