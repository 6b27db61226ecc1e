"""Share keys and values among query heads, look back through a window, and keep less.

Shapes: B batch size, T sequence length, C = n_embd channels, H query heads, G heads of keys and values, D head width.

Written by notebooks/17_efficiency.ipynb (chapter 17): edit it there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt_lib.attention import CausalSelfAttention, attention_weights
from minigpt_lib.flash import flash_attention, window_mask
from minigpt_lib.model import ATTENTIONS, GPTConfig

__all__ = ["cache_bytes", "grouped", "GroupedQueryAttention", "RollingCache"]


def cache_bytes(
    config: GPTConfig, n_tokens: int, batch_size: int = 1, dtype: torch.dtype = torch.float32
) -> int:
    """Return the bytes of the keys and values of n_tokens tokens in all layers, as KVCache keeps them."""
    n_kv_head = config.n_kv_head or config.n_head
    numbers = 2 * config.n_layer * batch_size * n_kv_head * n_tokens * config.head_dim
    return numbers * dtype.itemsize


class _Cache(Protocol):
    """The keys and values of one layer, such as those of KVCache or RollingCache."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...


class GroupedQueryAttention(CausalSelfAttention):
    """Causal attention with G heads of keys and values for H query heads: (B, T, C) to (B, T, C).

    n_kv_head: G, which divides n_head; by default n_head itself, multi-head attention; 1 is multi-query attention
    (Shazeer, 2019). Neighbouring query heads share a key head, as in Ainslie et al. (2023). head_dim: D, by default
    n_embd / n_head. dropout: in training only, on weights and output. window, sinks: see `window_mask`; a text longer
    than the window is read in tiles, at a cost that grows with T * window, unless there is a mask or dropout.

    Weights and results are those of CausalSelfAttention; but for one new token, keys are not copied for each query
    head. Raises ValueError if the heads do not divide the channels or one another.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_kv_head: int | None = None,
        *,
        head_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        window: int | None = None,
        sinks: int = 0,
    ) -> None:
        super().__init__(n_embd, n_head, n_kv_head, bias=bias, dropout=dropout, head_dim=head_dim)
        window_mask(1, window=window, sinks=sinks)  # raises ValueError for a wrong window
        self.window = window
        self.sinks = sinks

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: Callable[[Tensor], Tensor] | None = None,
        cache: _Cache | None = None,
    ) -> Tensor:
        """Map x (B, T, C) to (B, T, C); see CausalSelfAttention for the other arguments."""
        q, k, v = self._heads(x, rotary, cache)
        y = self._attend(q, k, v, mask)  # (B, H, T, D)
        y = self.proj(y.transpose(1, 2).flatten(2))
        return F.dropout(y, self.dropout, self.training)

    def weights(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: Callable[[Tensor], Tensor] | None = None,
        cache: _Cache | None = None,
    ) -> Tensor:
        """Return the attention weights (B, H, T, Tk) that `forward` would use, without dropout."""
        q, k, _ = self._heads(x, rotary, cache)
        seen = window_mask(q.shape[2], k.shape[2], self.window, self.sinks, q.device)
        k = k.repeat_interleave(self.n_head // self.n_kv_head, dim=1)
        return attention_weights(q, k, seen if mask is None else mask & seen)

    def _heads(
        self, x: Tensor, rotary: Callable[[Tensor], Tensor] | None, cache: _Cache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Project x to q (B, H, T, D) and k, v (B, G, Tk, D), positions marked, the cache included."""
        H, G = self.n_head, self.n_kv_head
        heads = self.qkv(x).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        qk, v = heads.split([H + G, G], dim=1)
        q, k = (qk if rotary is None else rotary(qk)).split([H, G], dim=1)
        if cache is not None:
            k, v = cache.update(k, v)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weighted values (B, H, T, D), without copies of keys where that is possible."""
        H, G = self.n_head, self.n_kv_head
        T, Tk = q.shape[2], k.shape[2]
        dropout_p = self.dropout if self.training else 0.0
        window = self.window if self.window is not None and Tk > self.window else None

        if window and T > 1 and mask is None and not dropout_p:
            q = q.unflatten(1, (G, H // G))
            k, v = (heads.unsqueeze(2) for heads in (k, v))
            return flash_attention(q, k, v, window=window, sinks=self.sinks).flatten(1, 2)

        seen = mask
        if window or mask is not None or T not in (1, Tk):
            past = window_mask(T, Tk, window, self.sinks, q.device)
            seen = past if mask is None else mask & past

        if T == 1 and (seen is None or seen.ndim < 3 or seen.shape[-3] == 1):
            rows = q.view(len(q), G, H // G, self.head_dim)  # query heads as rows of one matrix
            y = F.scaled_dot_product_attention(rows, k, v, seen, dropout_p)
            return y.reshape(q.shape)

        return F.scaled_dot_product_attention(
            q, k, v, seen, dropout_p, is_causal=seen is None and T > 1, enable_gqa=G < H
        )


def grouped(window: int | None = None, sinks: int = 0) -> Callable[[GPTConfig], nn.Module]:
    """Return a builder for ATTENTIONS: GroupedQueryAttention with this window.

    ATTENTIONS["window_128"] = grouped(128) lets GPTConfig(..., attention="window_128") name it.
    """

    def build(c: GPTConfig) -> GroupedQueryAttention:
        return GroupedQueryAttention(
            c.n_embd, c.n_head, c.n_kv_head, head_dim=c.head_dim, bias=c.bias, dropout=c.dropout,
            window=window, sinks=sinks,
        )  # fmt: skip

    return build


ATTENTIONS["grouped"] = grouped()


class _RollingLayer:
    """The first keys and values of one layer, and the last ones."""

    def __init__(self, owner: "RollingCache", is_last: bool) -> None:
        self.owner = owner
        self.is_last = is_last
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is kept and the new k and v (B, G, T, D) behind it, then forget what a window leaves."""
        n_new = k.shape[2]
        if self.k is not None and self.v is not None:
            k = torch.cat([self.k, k.detach()], dim=2)
            v = torch.cat([self.v, v.detach()], dim=2)

        self.k = self._kept(k.detach())
        self.v = self._kept(v.detach())
        if self.is_last:
            self.owner.length += n_new
        return k, v

    def _kept(self, x: Tensor) -> Tensor:
        """Return the first `sinks` of x (B, G, n, D), and what the next token's window still reaches."""
        sinks, recent = self.owner.sinks, self.owner.window - 1
        if x.shape[2] <= sinks + recent:
            return x
        return torch.cat([x[:, :, :sinks], x[:, :, x.shape[2] - recent :]], dim=2)


class RollingCache:
    """Remember the first `sinks` tokens and the last `window`, however long the text becomes.

    Used as KVCache: cache[i] belongs to layer i, and `length` counts all tokens so far, so positions go on. With
    GroupedQueryAttention of the same window and sinks the results are those of a whole cache. Any other attention sees
    a window too if it reads one token at a time. Raises ValueError for a window below 1 or sinks below 0. Xiao et al.
    (2023), section 3.2; they count positions within the cache, while ours stay those of the text.
    """

    def __init__(self, config: GPTConfig, window: int, sinks: int = 0) -> None:
        window_mask(1, window=window, sinks=sinks)  # raises ValueError for a wrong window
        self.window = window
        self.sinks = sinks
        self.length = 0
        self.layers = [_RollingLayer(self, i == config.n_layer - 1) for i in range(config.n_layer)]

    def __getitem__(self, i: int) -> _RollingLayer:
        return self.layers[i]
