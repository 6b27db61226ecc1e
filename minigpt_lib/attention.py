"""Let every token look back at the tokens before it, and fetch what it needs.

Shapes: B batch size, T sequence length, C = n_embd channels, H heads of width D = C / n_head,
Tq queries, Tk keys. A mask is boolean, True = may attend; it must broadcast to (B, H, Tq, Tk).

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
    """Return the mask (n_queries, n_keys), bool, True where a query may see a key.

    The queries are the last n_queries of the n_keys tokens (all of them by default), so with a cache
    the newest token sees everything. Raises ValueError for fewer keys than queries.
    """
    n_keys = n_queries if n_keys is None else n_keys
    if n_queries > n_keys:
        raise ValueError(
            f"expected at least one key for each of the {n_queries} queries, got {n_keys} keys: "
            "the cache's keys belong to them too"
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
    if mask is None and not is_causal:
        return scores.softmax(dim=-1)

    if mask is None:  # every query sees itself, and adding -inf costs less than masked_fill
        past = causal_mask(q.shape[-2], k.shape[-2], q.device)
        return (scores + torch.where(past, 0.0, -math.inf).to(scores.dtype)).softmax(dim=-1)

    allowed = mask & causal_mask(q.shape[-2], k.shape[-2], q.device) if is_causal else mask
    weights = scores.masked_fill(~allowed, -math.inf).softmax(dim=-1)
    return weights.masked_fill(~allowed, 0.0)  # 0 where softmax says nan: a row without any key


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Return for each query the mean of the values, weighted by `attention_weights`: (..., Tq, D).

    v (..., Tk, D). dropout_p is the fraction of weights set to 0; the others grow by 1 / (1 - p).
    Unlike torch's function, is_causal aligns the last query with the last key, not the first with
    the first; they agree for Tq = Tk.
    """
    weights = F.dropout(attention_weights(q, k, mask, is_causal), dropout_p)
    return weights @ v


def _fastest_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float, fused: bool
) -> Tensor:
    """Return the weighted values (B, H, T, D), causal, by the fastest way that gives the same numbers."""
    T, Tk = q.shape[-2], k.shape[-2]
    # On a processor torch's kernel is slower than the explicit form in bfloat16, up to about 256 tokens.
    slow_kernel = q.is_cpu and q.dtype == torch.bfloat16 and T <= 256

    if fused and slow_kernel and T == 1 and mask is None and not dropout_p:
        # One new token after a cache, nothing forbidden: the kernel of float32 is fastest.
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)

    if slow_kernel or not fused:
        return scaled_dot_product_attention(q, k, v, mask, is_causal=True, dropout_p=dropout_p)

    if mask is None and T in (1, Tk):
        # A single query sees everything, and a whole text is what torch means by is_causal.
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, is_causal=T > 1)

    past = causal_mask(T, Tk, q.device)
    allowed = past if mask is None else mask & past
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout_p)


class _Cache(Protocol):
    """The keys and values of one layer, as chapter 11 keeps them."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...


class CausalSelfAttention(nn.Module):
    """Multi-head attention of each token to itself and the tokens before: (B, T, C) to (B, T, C).

    n_kv_head: the number of heads of keys and values, each serving n_head / n_kv_head neighbouring
    query heads (Ainslie et al., 2023); n_head by default. fused: use torch's kernel; otherwise the
    explicit form runs, with the same result. dropout: in training only, on weights and output.
    head_dim: the width of a head, n_embd / n_head by default.
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
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        n_kv_head = n_head if n_kv_head is None else n_kv_head
        if n_head < 1 or n_embd < 1 or (head_dim is None and n_embd % n_head):
            raise ValueError(f"n_embd={n_embd} cannot be cut into n_head={n_head} equal heads.")
        if n_kv_head < 1 or n_head % n_kv_head:
            raise ValueError(f"n_head={n_head} cannot share n_kv_head={n_kv_head} heads evenly.")

        self.n_head = n_head
        self.n_kv_head = n_kv_head
        self.head_dim = n_embd // n_head if head_dim is None else head_dim
        self.dropout = dropout
        self.fused = fused
        self.qkv = nn.Linear(n_embd, (n_head + 2 * n_kv_head) * self.head_dim, bias=bias)
        self.proj = nn.Linear(n_head * self.head_dim, n_embd, bias=bias)

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
        dropout_p = self.dropout if self.training else 0.0
        y = _fastest_attention(q, k, v, mask, dropout_p, self.fused)
        y = self.proj(y.transpose(1, 2).flatten(2))  # heads side by side again: (B, T, C)
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
        return attention_weights(q, k, mask, is_causal=True)

    def _heads(
        self, x: Tensor, rotary: Callable[[Tensor], Tensor] | None, cache: _Cache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Project x to q (B, H, T, D) and k, v (B, H, Tk, D), positions marked, the cache included."""
        H, G = self.n_head, self.n_kv_head
        heads = self.qkv(x).unflatten(2, (-1, self.head_dim)).transpose(1, 2)  # (B, H + 2G, T, D)
        if rotary is None:
            q, k, v = heads.split([H, G, G], dim=1)
        else:  # one rotation for queries and keys is faster than two
            qk, v = heads.split([H + G, G], dim=1)
            q, k = rotary(qk).split([H, G], dim=1)

        if cache is not None:
            k, v = cache.update(k, v)
        if G < H:  # query heads 0 .. H / G - 1 use key head 0, and so on
            k = k.repeat_interleave(H // G, dim=1)
            v = v.repeat_interleave(H // G, dim=1)
        return q, k, v
