"""Attend tile by tile, without a table of weights: a softmax that reads its scores in pieces.

Shapes: T queries, Tk keys, D head width; ... stands for batch and heads. The queries are the last T of the Tk tokens.

Written by notebooks/17_efficiency.ipynb (chapter 17): edit it there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["flash_attention", "window_mask"]


def window_mask(
    n_queries: int,
    n_keys: int | None = None,
    window: int | None = None,
    sinks: int = 0,
    device: str | torch.device | None = None,
) -> Tensor:
    """Return the mask (n_queries, n_keys), bool, True where a query may see a key.

    A query sees itself, the window - 1 tokens before it, and the first `sinks` tokens; None sees the whole past. The
    queries are the last n_queries of the n_keys tokens, by default all of them. Raises ValueError for fewer keys than
    queries, a window below 1 or sinks below 0. Beltagy et al. (2020), section 3.1; sinks as in Xiao et al. (2023).
    """
    n_keys = n_queries if n_keys is None else n_keys
    _check(n_queries, n_keys, window, sinks)
    keys = torch.arange(n_keys, device=device)
    return _sees(keys[n_keys - n_queries :, None], keys, window, sinks)


def _sees(queries: Tensor, keys: Tensor, window: int | None, sinks: int) -> Tensor:
    """Return whether tokens at these positions may see keys at those, by broadcasting."""
    past = keys <= queries
    if window is None:
        return past
    return past & ((queries - keys < window) | (keys < sinks))


def _check(n_queries: int, n_keys: int, window: int | None, sinks: int) -> None:
    if n_queries > n_keys:
        raise ValueError(
            f"expected at least one key for each of the {n_queries} queries, got {n_keys} keys: "
            "the cache's keys belong to them too."
        )
    if window is not None and window < 1:
        raise ValueError(f"window={window}: expected at least 1 token, or None for the whole past.")
    if sinks < 0:
        raise ValueError(f"sinks={sinks}: expected at least 0 tokens.")


def _tiles(
    T: int, Tk: int, size: int, window: int | None, sinks: int
) -> Iterator[tuple[slice, list[slice]]]:
    """Yield each block of queries, with the blocks of keys of which it may see any."""
    shift = Tk - T  # the position of the first query
    for start in range(0, T, size):
        stop = min(start + size, T)
        n_seen = stop + shift
        oldest = 0 if window is None else start + shift - window + 1
        columns = [
            slice(left, min(left + size, n_seen))
            for left in range(0, n_seen, size)
            if left + size > oldest or left < sinks
        ]
        yield slice(start, stop), columns


def _tile_scores(
    q: Tensor, k: Tensor, rows: slice, columns: slice, window: int | None, sinks: int
) -> Tensor:
    """Return the scores of one tile, with -inf where a query may not see a key."""
    scores = q[..., rows, :] @ k[..., columns, :].mT
    places = torch.arange(k.shape[-2], device=q.device)
    queries = places[k.shape[-2] - q.shape[-2] :][rows, None]
    return scores.masked_fill(~_sees(queries, places[columns], window, sinks), -math.inf)


class _Tiled(torch.autograd.Function):
    """Attention over tiles; q is already divided by sqrt(D). Keeps (..., T) numbers more than its result."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, size: int, window: int | None, sinks: int
    ) -> Tensor:
        y = q.new_empty(*q.shape[:-1], v.shape[-1])
        log_total = q.new_empty(*q.shape[:-1], 1)

        for rows, several in _tiles(q.shape[-2], k.shape[-2], size, window, sinks):
            top = torch.full_like(log_total[..., rows, :], torch.finfo(q.dtype).min)
            total = torch.zeros_like(top)
            mix = torch.zeros_like(y[..., rows, :])

            for columns in several:
                scores = _tile_scores(q, k, rows, columns, window, sinks)
                new_top = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
                weights = (scores - new_top).exp()
                shrink = (top - new_top).exp()
                total = shrink * total + weights.sum(dim=-1, keepdim=True)
                mix = shrink * mix + weights @ v[..., columns, :]
                top = new_top

            y[..., rows, :] = mix / total
            log_total[..., rows, :] = top + total.log()

        ctx.save_for_backward(q, k, v, y, log_total)
        ctx.settings = (size, window, sinks)
        return y

    @staticmethod
    @once_differentiable
    # pyrefly: ignore[bad-override]  the decorator hides the names of the arguments
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, log_total = ctx.saved_tensors
        size, window, sinks = ctx.settings
        dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
        mean = (slope * y).sum(dim=-1, keepdim=True)  # of slope @ v under the weights

        for rows, several in _tiles(q.shape[-2], k.shape[-2], size, window, sinks):
            for columns in several:
                scores = _tile_scores(q, k, rows, columns, window, sinks)
                weights = (scores - log_total[..., rows, :]).exp()
                dv[..., columns, :] += weights.mT @ slope[..., rows, :]

                pull = slope[..., rows, :] @ v[..., columns, :].mT - mean[..., rows, :]
                d_scores = weights * pull
                dq[..., rows, :] += d_scores @ k[..., columns, :]
                dk[..., columns, :] += d_scores.mT @ q[..., rows, :]

        return dq, dk, dv, None, None, None


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    sinks: int = 0,
    block_size: int = 64,
) -> Tensor:
    """Return causal attention, (..., T, Dv), computed in tiles of block_size x block_size scores.

    q (..., T, D), k (..., Tk, D), v (..., Tk, Dv); the leading dimensions of k and v are broadcast to those of q, so a
    key head can serve several query heads. window, sinks: see `window_mask`; tiles that no query may see are skipped.
    The memory beyond the result grows with T, not with T * Tk, also for the gradient, which computes every tile again.
    Numbers are summed in float32, or float64 for float64 input; the result has q's dtype.

    Raises ValueError for fewer keys than queries, and for a window, sinks or a block_size that make no sense.
    Dao et al. (2022), algorithm 1, with the loops exchanged as in Dao (2023), algorithm 1.
    """
    _check(q.shape[-2], k.shape[-2], window, sinks)
    if block_size < 1:
        raise ValueError(f"block_size={block_size}: expected at least 1 token.")

    dtype = torch.promote_types(q.dtype, torch.float32)
    k, v = (x.to(dtype).expand(*q.shape[:-2], *x.shape[-2:]) for x in (k, v))
    scaled = q.to(dtype) / math.sqrt(q.shape[-1])
    return _Tiled.apply(scaled, k, v, block_size, window, sinks).to(q.dtype)
