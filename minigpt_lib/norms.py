"""Keep the numbers that flow through a deep model at a steady size.

Shapes: x (..., C), normalised over its last axis, each vector by itself.

Written by notebooks/07_norms.ipynb (chapter 07): edit it there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LayerNorm", "RMSNorm"]


class LayerNorm(nn.Module):
    """Shift each vector to mean 0 and scale it to variance 1, then scale and shift as learned.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with the variance divided by C: Ba et al.
    (2016). n_embd is C. bias=False leaves the bias out. fused: use torch's kernel; otherwise the
    formula runs as written, with the same result. Statistics are float32 for half-precision x.
    """

    def __init__(
        self, n_embd: int, eps: float = 1e-5, bias: bool = True, *, fused: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.bias = nn.Parameter(torch.zeros(n_embd)) if bias else None
        self.eps = eps
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C) to the same shape and dtype."""
        if self.fused:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        centred = wide - wide.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        y = centred * torch.rsqrt(variance + self.eps) * self.weight
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype)


class RMSNorm(nn.Module):
    """Scale each vector to a root mean square of 1, then scale as learned: no mean, no bias.

    y = x / sqrt(mean(x^2) + eps) * weight: Zhang and Sennrich (2019), with eps inside the root as in
    Llama. n_embd is C. fused: use torch's function; otherwise the formula runs as written, with
    the same result. Statistics are float32 for half-precision x.
    """

    def __init__(self, n_embd: int, eps: float = 1e-5, *, fused: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.eps = eps
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C) to the same shape and dtype."""
        if self.fused:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)

        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight).to(x.dtype)
