"""Let every token look back at the tokens before it, and fetch what it needs.

Shapes: B texts, T tokens, C = n_embd channels, H heads of width D = C / n_head, Tq queries, Tk keys.
A mask is boolean, True = may attend; it must broadcast to (B, H, Tq, Tk).

Written by notebooks/05_attention.ipynb (chapter 05): edit it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "attention_weights",
    "causal_mask",
    "CausalSelfAttention",
    "scaled_dot_product_attention",
]


def causal_mask(
    n_queries: int, n_keys: int | None = None, device: str | torch.device | None = None
) -> Tensor:
    """Return the mask (n_queries, n_keys), True where a query may see a key: bool.

    The queries are the last n_queries of the n_keys tokens (all of them by default), so with a cache
    the newest token sees everything. Raises ValueError for fewer keys than queries.
    """
    n_keys = n_queries if n_keys is None else n_keys
    if n_queries > n_keys:
        raise ValueError(
            f"{n_queries} queries but {n_keys} keys: expected a key for every query, and the cache's."
        )
    places = torch.arange(n_keys, device=device)
    return places <= places[n_keys - n_queries :, None]


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Return softmax(q k^T / sqrt(D)), (..., Tq, Tk): how much each query takes of each key.

    q (..., Tq, D), k (..., Tk, D). Rows add up to 1; the row of a query that may see nothing is all
    zeros. Vaswani et al. (2017), equation 1.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., Tq, Tk)
    if is_causal and mask is None:  # the usual case: adding costs less than masked_fill
        past = torch.where(causal_mask(q.shape[-2], k.shape[-2], q.device), 0.0, -math.inf)
        return (scores + past.to(scores.dtype)).softmax(dim=-1)
    if mask is None:
        return scores.softmax(dim=-1)
    allowed = mask & causal_mask(q.shape[-2], k.shape[-2], q.device) if is_causal else mask
    # twice, for a row without any key: 0, where softmax says nan
    return scores.masked_fill(~allowed, -math.inf).softmax(dim=-1).masked_fill(~allowed, 0.0)


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Return for each query the mean of the values, weighted by `attention_weights`: (..., Tq, D).

    v (..., Tk, D). dropout_p is the share of weights set to 0, the others growing by 1 / (1 - p).
    Unlike torch's function, is_causal aligns the last query with the last key, not the first with
    the first; they agree for Tq = Tk.
    """
    weights = F.dropout(attention_weights(q, k, mask, is_causal), dropout_p)
    return weights @ v


class _Cache(Protocol):
    """The keys and values of one layer, as chapter 11 keeps them."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...


class CausalSelfAttention(nn.Module):
    """Multi-head attention of each token over itself and the tokens before: (B, T, C) to (B, T, C).

    n_kv_head: how many heads of keys and values there are, each serving n_head / n_kv_head query
    heads (Ainslie et al., 2023); all by default. `fused` takes torch's kernel, otherwise the explicit
    form above runs; both give the same. Dropout, in training only, on the weights and the output.
    Raises ValueError if the heads do not divide the channels or one another.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_kv_head: int | None = None,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        n_kv_head = n_head if n_kv_head is None else n_kv_head
        if n_head < 1 or n_embd < 1 or n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} cannot be cut into n_head={n_head} equal heads.")
        if n_kv_head < 1 or n_head % n_kv_head:
            raise ValueError(f"n_head={n_head} cannot share n_kv_head={n_kv_head} heads evenly.")
        self.n_head, self.n_kv_head, self.head_dim = n_head, n_kv_head, n_embd // n_head
        self.dropout, self.fused = dropout, fused
        self.qkv = nn.Linear(n_embd, (n_head + 2 * n_kv_head) * self.head_dim, bias=bias)
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)

    def _heads(
        self, x: Tensor, rotary: Callable[[Tensor], Tensor] | None, cache: _Cache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Project x to q, k, v of (B, H, T, D), turn q and k, add what the cache holds."""
        heads, H, kv = self.qkv(x).unflatten(2, (-1, self.head_dim)), self.n_head, self.n_kv_head
        if rotary is None:
            q, k, v = (part.transpose(1, 2) for part in heads.split([H, kv, kv], dim=2))
        else:  # one rotation for queries and keys is faster than two
            qk, v = (part.transpose(1, 2) for part in heads.split([H + kv, kv], dim=2))
            q, k = rotary(qk).split([H, kv], dim=1)
        if cache is not None:
            k, v = cache.update(k, v)
        if kv < H:  # query heads 0 .. H / kv - 1 use key head 0, and so on
            k, v = (part.repeat_interleave(H // kv, dim=1) for part in (k, v))
        return q, k, v

    def weights(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: Callable[[Tensor], Tensor] | None = None,
        cache: _Cache | None = None,
    ) -> Tensor:
        """Return the attention weights (B, H, T, Tk) that `forward` would use, without dropout."""
        q, k, _ = self._heads(x, rotary, cache)
        return attention_weights(q, k, mask, is_causal=True)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: Callable[[Tensor], Tensor] | None = None,
        cache: _Cache | None = None,
    ) -> Tensor:
        """Map x (B, T, C) to (B, T, C).

        mask forbids more than causality does: padding (B, 1, 1, Tk), other documents (B, 1, T, Tk).
        rotary(q) returns q with its positions marked. cache.update(k, v) keeps the new keys and values,
        (B, n_kv_head, T, D), and returns those of all tokens so far.
        """
        q, k, v = self._heads(x, rotary, cache)
        dropout_p, T = self.dropout if self.training else 0.0, q.shape[-2]
        slow = q.is_cpu and q.dtype == torch.bfloat16 and T <= 256  # there, torch's kernel is
        if slow and self.fused and T == 1 and mask is None and not dropout_p:  # one query: float32
            y = F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
        elif slow or not self.fused:
            y = scaled_dot_product_attention(q, k, v, mask, is_causal=True, dropout_p=dropout_p)
        elif mask is None and T in (1, k.shape[-2]):  # torch's two fast cases
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, is_causal=T > 1)
        else:
            past = causal_mask(T, k.shape[-2], q.device)
            mask = past if mask is None else mask & past
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
        y = self.proj(y.transpose(1, 2).flatten(2))  # heads side by side again: (B, T, C)
        return F.dropout(y, self.dropout, self.training)
