"""Give each token a few experts out of many: a feed-forward layer with more weights for the same work.

Shapes: N tokens (all those of a batch), C = n_embd channels, E = n_expert experts, K = top_k experts for each token.

Written by notebooks/17_efficiency.ipynb (chapter 17): edit it there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt_lib.feedforward import swiglu_hidden
from minigpt_lib.model import FFNS, GPTConfig

__all__ = ["balance_loss", "mixture", "MoEFFN", "route", "routing"]


def route(logits: Tensor, top_k: int, normalize: bool = True) -> tuple[Tensor, Tensor]:
    """Return the shares (N, K), float32, and the ids (N, K), int64, of each token's experts, the best first.

    logits (N, E): the router's scores. The shares are the experts' probabilities; with `normalize` they are divided by
    their sum, as in Mixtral (Jiang et al., 2024, section 2.1). For top_k = 1 that makes every share 1, and the router
    learns nothing from the loss: normalize=False keeps the probability, as in Switch (Fedus et al., 2022, equation 2).
    """
    shares, chosen = logits.float().softmax(dim=-1).topk(top_k)
    if normalize:
        shares = shares / shares.sum(dim=-1, keepdim=True)
    return shares, chosen


def balance_loss(logits: Tensor, top_k: int) -> Tensor:
    """Return E times the sum over experts of (share of the tokens) x (mean probability), a scalar.

    logits (N, E): the router's scores. The loss is 1 if all experts get the same, and E if one gets everything. Only
    the probabilities have a gradient. Fedus et al. (2022), equations 4 to 6; shares of tokens add up to 1 here, where
    Hugging Face's add up to top_k.
    """
    n_expert = logits.shape[-1]
    probabilities = logits.float().softmax(dim=-1)
    chosen = probabilities.topk(top_k).indices.flatten()
    used = torch.bincount(chosen, minlength=n_expert) / len(chosen)
    return n_expert * (used * probabilities.mean(dim=0)).sum()


class _Stack(nn.Module):
    """The weights of E linear layers without bias, (E, n_out, n_in)."""

    def __init__(self, n_expert: int, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(n_in)  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(n_expert, n_out, n_in).uniform_(-bound, bound))


class MoEFFN(nn.Module):
    """A mixture of E gated feed-forward layers, of which each token uses the top_k best: (..., C) to (..., C).

    hidden: the width of one expert; swiglu_hidden(C) // top_k by default, so that a token costs as much as in
    SwiGLUFFN. capacity: in training, each expert takes at most capacity * N * K / E tokens, the first ones in the
    batch; a token that finds an expert full goes without it. None: no limit. normalize: see `route`. dropout: in
    training only, on the output.

    Raises ValueError for a width below 1, for top_k outside 1 .. n_expert, or a capacity that is not above 0.
    Jiang et al. (2024), section 2.1; capacity as in Fedus et al. (2022), equation 3.
    """

    def __init__(
        self,
        n_embd: int,
        hidden: int | None = None,
        n_expert: int = 8,
        top_k: int = 2,
        *,
        capacity: float | None = None,
        normalize: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= n_expert:
            raise ValueError(f"top_k={top_k}: expected 1 to n_expert={n_expert}.")
        if capacity is not None and not capacity > 0:
            raise ValueError(f"capacity={capacity}: expected a number above 0, or None.")
        hidden = swiglu_hidden(n_embd) // top_k if hidden is None else hidden
        if min(n_embd, hidden) < 1:
            raise ValueError(f"n_embd={n_embd} and hidden={hidden} must both be at least 1.")

        self.n_expert = n_expert
        self.top_k = top_k
        self.capacity = capacity
        self.normalize = normalize
        self.dropout = dropout
        self.router = nn.Linear(n_embd, n_expert, bias=False)
        self.gate = _Stack(n_expert, n_embd, hidden)
        self.up = _Stack(n_expert, n_embd, hidden)
        self.down = _Stack(n_expert, hidden, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C) to the same shape, each vector by itself unless there is a capacity."""
        tokens = x.reshape(-1, x.shape[-1])  # (N, C)
        shares, chosen = route(self.router(tokens), self.top_k, self.normalize)
        order, counts = self._queue(chosen)
        owner = order // self.top_k  # the token of each place in the queue

        parts = tokens[owner].split(counts)
        done = torch.cat([self._expert(e, part) for e, part in enumerate(parts)])
        done = done * shares.flatten()[order, None].to(done.dtype)

        y = done.new_zeros(tokens.shape).index_add(0, owner, done)
        return F.dropout(y.view(x.shape), self.dropout, self.training)

    def _expert(self, e: int, x: Tensor) -> Tensor:
        """Map the tokens of expert e, (n, C), to (n, C)."""
        hidden = F.silu(F.linear(x, self.gate.weight[e])) * F.linear(x, self.up.weight[e])
        return F.linear(hidden, self.down.weight[e])

    def _queue(self, chosen: Tensor) -> tuple[Tensor, list[int]]:
        """Return the places of `chosen` (N, K), flattened, sorted by expert, and how many belong to each.

        Within an expert they are in the order of the tokens, so a capacity never lets a later token take the place of
        an earlier one.
        """
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=self.n_expert)
        if self.capacity is None or not self.training:
            return order, counts.tolist()

        limit = math.ceil(self.capacity * chosen.numel() / self.n_expert)
        first = counts.cumsum(dim=0) - counts
        place = torch.arange(len(order), device=order.device) - first.repeat_interleave(counts)
        return order[place < limit], counts.clamp(max=limit).tolist()


@contextlib.contextmanager
def routing(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the logits (N, E) of each router that runs inside, in the order in which the layers run.

    >>> with routing(model) as logits:
    ...     loss = model(x, y)[1]
    >>> loss = loss + 0.01 * sum(balance_loss(l, 2) for l in logits) / len(logits)
    """
    seen: list[Tensor] = []
    layers = [layer for layer in model.modules() if isinstance(layer, MoEFFN)]
    hooks = [
        layer.router.register_forward_hook(lambda _, inputs, logits: seen.append(logits))
        for layer in layers
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def mixture(
    n_expert: int, top_k: int, capacity: float | None = None
) -> Callable[[GPTConfig], MoEFFN]:
    """Return a builder for FFNS: ffn_hidden is the width of one expert.

    FFNS["moe_64_6"] = mixture(64, 6) lets GPTConfig(..., ffn="moe_64_6") name 64 experts, 6 for each token.
    """

    def build(c: GPTConfig) -> MoEFFN:
        return MoEFFN(c.n_embd, c.ffn_hidden, n_expert, top_k, capacity=capacity, dropout=c.dropout)

    return build


FFNS["moe"] = mixture(8, 2)  # Mixtral's numbers
