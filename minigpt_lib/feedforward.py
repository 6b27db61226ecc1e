"""Process each token on its own: widen, apply a nonlinear activation, narrow.

Shapes: x (..., C), C = n_embd channels; hidden = width between the two layers. FLOPs count a
multiplication and an addition as two.

Written by notebooks/08_feedforward.ipynb (chapter 08): edit it there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ACTIVATIONS",
    "GELU",
    "GPTFFN",
    "activation",
    "ffn_cost",
    "ReLU2",
    "swiglu_hidden",
    "SwiGLUFFN",
]


class GELU(nn.Module):
    """Multiply x by the probability that a standard normal draw is below x.

    approximate: "none" for the exact form, 0.5 x (1 + erf(x / sqrt(2))), or "tanh" for GPT-2's approximation.
    fused: use torch's kernel; otherwise the formula runs, with the same result. Raises ValueError for any
    other name. Hendrycks and Gimpel (2016), section 2.
    """

    def __init__(self, approximate: str = "none", *, fused: bool = True) -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate={approximate!r}: expected 'none' or 'tanh'.")

        self.approximate = approximate
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """Map x of any shape to the same shape."""
        if self.fused:
            return F.gelu(x, approximate=self.approximate)
        if self.approximate == "none":
            return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class ReLU2(nn.Module):
    """Square what ReLU lets through: So et al. (2021), "Primer"."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x of any shape to the same shape: x squared where positive, 0 elsewhere."""
        return x.relu().square()


ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "relu2")


def activation(name: str, fused: bool = True) -> nn.Module:
    """Return the module of a name in ACTIVATIONS; raises ValueError for any other name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r}: expected one of {', '.join(ACTIVATIONS)}.")

    if name.startswith("gelu"):
        return GELU("tanh" if name == "gelu_tanh" else "none", fused=fused)
    return nn.ReLU() if name == "relu" else ReLU2()


class GPTFFN(nn.Module):
    """Widen C channels to `hidden`, apply an activation, and narrow them again: GPT-2's MLP.

    hidden: 4 C by default. activation_name: one of ACTIVATIONS. dropout: in training only, on the output.
    fused: use torch's kernel for GELU. Raises ValueError for an unknown activation or a width below 1.
    Vaswani et al. (2017), equation 2, which has ReLU.
    """

    def __init__(
        self,
        n_embd: int,
        hidden: int | None = None,
        activation_name: str = "gelu",
        *,
        bias: bool = True,
        dropout: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        hidden = 4 * n_embd if hidden is None else hidden
        if min(n_embd, hidden) < 1:
            raise ValueError(f"n_embd={n_embd} and hidden={hidden} must both be at least 1.")

        self.up = nn.Linear(n_embd, hidden, bias=bias)
        self.activation = activation(activation_name, fused)
        self.down = nn.Linear(hidden, n_embd, bias=bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C) to the same shape, each vector by itself."""
        y = self.down(self.activation(self.up(x)))
        return F.dropout(y, self.dropout, self.training)


def swiglu_hidden(n_embd: int, multiple_of: int = 32, multiplier: float = 1.0) -> int:
    """Return the width at which a gated layer costs as much as an ungated one of width 4 C.

    That is 2/3 of 4 C, times `multiplier` (Llama's ffn_dim_multiplier), rounded up to a multiple of
    `multiple_of`. swiglu_hidden(4096, 1024, 1.3) is Llama 3 8B's 14336.
    """
    hidden = int(multiplier * int(2 * 4 * n_embd / 3))
    return math.ceil(hidden / multiple_of) * multiple_of


class SwiGLUFFN(nn.Module):
    """Widen twice, let one side gate the other, and narrow: down(silu(gate(x)) * up(x)), as in Llama.

    silu(z) = z sigmoid(z). hidden: `swiglu_hidden(n_embd)` by default. dropout: in training only, on the
    output. Raises ValueError for a width below 1. Shazeer (2020), equation 6, FFN_SwiGLU.
    """

    def __init__(
        self, n_embd: int, hidden: int | None = None, *, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        hidden = swiglu_hidden(n_embd) if hidden is None else hidden
        if min(n_embd, hidden) < 1:
            raise ValueError(f"n_embd={n_embd} and hidden={hidden} must both be at least 1.")

        self.gate = nn.Linear(n_embd, hidden, bias=bias)
        self.up = nn.Linear(n_embd, hidden, bias=bias)
        self.down = nn.Linear(hidden, n_embd, bias=bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C) to the same shape, each vector by itself."""
        y = self.down(F.silu(self.gate(x)) * self.up(x))
        return F.dropout(y, self.dropout, self.training)


def ffn_cost(n_embd: int, hidden: int, gated: bool = False, bias: bool = True) -> tuple[int, int]:
    """Return (parameters, FLOPs per token of a forward pass) of a feed-forward layer.

    FLOPs are those of the matrices, two for each weight. Activations and biases are left out, as in
    torch.utils.flop_counter.
    """
    matrices = 3 if gated else 2
    weights = matrices * n_embd * hidden
    biases = (matrices - 1) * hidden + n_embd if bias else 0
    return weights + biases, 2 * weights
