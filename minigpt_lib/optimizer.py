"""AdamW, its groups of weights, and a learning rate that warms up and cools down.

A *step* is one update of the weights; it may add up the gradients of several micro-batches.

Written by notebooks/10_training.ipynb (chapter 10): edit it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["AdamW", "get_cosine_schedule_with_warmup", "param_groups"]


class AdamW(Optimizer):
    """Adam with decoupled weight decay, by hand: Loshchilov and Hutter (2019), algorithm 2.

    For each weight it keeps m, a running mean of the gradient, and v, a running mean of its square, both
    corrected for starting at 0. The weight shrinks by lr * weight_decay, then moves by
    lr * m / (sqrt(v) + eps). Equal to torch.optim.AdamW, which is faster. Raises ValueError for settings
    out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        if not (min(lr, eps, weight_decay) >= 0 and all(0 <= beta < 1 for beta in betas)):
            raise ValueError(
                f"lr={lr}, betas={betas}, eps={eps}, weight_decay={weight_decay}: expected betas "
                "from 0 to below 1 and nothing negative."
            )
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, options)

    @torch.no_grad()
    # pyrefly: ignore[bad-override]  torch has one overload with a closure and one without
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; return the loss of `closure`, or None."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        lr = group["lr"]
        beta1, beta2 = group["betas"]
        grad = weight.grad
        state = self.state[weight]
        if not state:
            state["step"] = 0
            state["m"] = torch.zeros_like(weight)
            state["v"] = torch.zeros_like(weight)

        state["step"] += 1
        state["m"].mul_(beta1).add_(grad, alpha=1 - beta1)
        state["v"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        m = state["m"] / (1 - beta1 ** state["step"])
        v = state["v"] / (1 - beta2 ** state["step"])

        weight.mul_(1 - lr * group["weight_decay"])
        weight.sub_(lr * m / (v.sqrt() + group["eps"]))


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups for an optimizer: matrices, which decay, and vectors (biases, norms), which do not.

    Weights with requires_grad=False are in neither.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr_ratio: float = 0.1
) -> LambdaLR:
    """Return a scheduler whose rate rises linearly over warmup_steps, then falls along half a cosine.

    Call its step() once per *optimizer* step, however many micro-batches that took. The first step has
    1 / warmup_steps of the rate, the last min_lr_ratio of it. Loshchilov and Hutter (2017), without
    restarts. Raises ValueError unless 0 <= warmup_steps < total_steps and 0 <= min_lr_ratio <= 1.
    """
    if not 0 <= warmup_steps < total_steps or not 0 <= min_lr_ratio <= 1:
        raise ValueError(
            f"warmup_steps={warmup_steps}, total_steps={total_steps}, min_lr_ratio={min_lr_ratio}: "
            "expected 0 <= warmup_steps < total_steps and a ratio from 0 to 1."
        )

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
        return min_lr_ratio + (1 - min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, share)
