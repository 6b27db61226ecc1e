"""Fine-tune few weights: low-rank detours beside frozen linear layers, merged into them in the end.

Written by notebooks/14_sft.ipynb (chapter 14): edit it there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt_lib.model import MiniGPT

__all__ = ["add_lora", "LoRALinear", "merge_lora"]


class LoRALinear(nn.Module):
    """A frozen linear layer and a learned detour of low rank: W x + alpha / rank * B A x.

    Hu et al. (2021). A starts random and B at 0, so at first nothing changes. Raises ValueError for a rank
    that is not a whole number from 1 to the smaller side of W, or an alpha that is not above 0.
    """

    def __init__(self, linear: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        most = min(linear.weight.shape)
        if not isinstance(rank, int) or not 1 <= rank <= most:
            raise ValueError(f"rank={rank}: expected 1 to {most}, a whole number.")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha={alpha}: expected a number above 0.")

        out_features, in_features = linear.weight.shape
        linear.requires_grad_(False)
        self.linear = linear
        self.scale = alpha / rank
        self.A = nn.Parameter(linear.weight.new_empty(rank, in_features))
        self.B = nn.Parameter(linear.weight.new_zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear starts

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return self.linear(x) + self.scale * F.linear(F.linear(x, self.A), self.B)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return the linear layer with the detour added to its weights, free to learn again; B is 0 then."""
        self.linear.weight += self.scale * self.B @ self.A
        self.B.zero_()
        return self.linear.requires_grad_(True)


def add_lora(model: MiniGPT, rank: int = 8, alpha: float = 16.0, embedding: bool = True) -> MiniGPT:
    """Freeze a model, put a LoRALinear in place of every linear layer of its blocks, and return it.

    embedding: train the token table as well, and a head that is not tied to it, since the rows of new
    control tokens must be learned. Call merge_lora before save_pretrained. Raises ValueError if the model
    has detours already, or as LoRALinear does.
    """
    if any(isinstance(part, LoRALinear) for part in model.modules()):
        raise ValueError("the model has LoRA layers already: merge_lora(model) first.")

    layers = [
        (part, name, child)
        for part in model.blocks.modules()
        for name, child in part.named_children()
        if isinstance(child, nn.Linear)
    ]
    detours = [LoRALinear(child, rank, alpha) for *_, child in layers]
    model.requires_grad_(False)
    for table in (model.embedding, model.head):
        if table is not None:
            table.requires_grad_(embedding)
    for (part, name, _), detour in zip(layers, detours):
        setattr(part, name, detour)
    return model


def merge_lora(model: MiniGPT) -> MiniGPT:
    """Put plain linear layers back, with the detours in their weights; return the model, all of it trainable."""
    for part in list(model.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, LoRALinear):
                setattr(part, name, child.merge())
    return model.requires_grad_(True)
