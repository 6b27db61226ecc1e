"""The simplest caches of keys and values, for checks that read a text one token at a time.

Shapes: B batch size, H heads of keys and values, T tokens so far, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """Keep the keys and values of one layer, (B, H, T, D) each, in tensors that grow with every call.

    >>> cache = LayerCache()
    >>> one = torch.ones(1, 2, 1, 4)
    >>> _ = cache.update(one, one)
    >>> k, v = cache.update(one, one)
    >>> cache.length, tuple(k.shape)
    (2, (1, 2, 2, 4))
    """

    def __init__(self) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    @property
    def length(self) -> int:
        """Return the number of tokens so far."""
        return 0 if self.k is None else self.k.shape[2]

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens, (B, H, Tnew, D), and return those of all tokens so far."""
        if self.k is not None and self.v is not None:
            k = torch.cat([self.k, k], dim=2)
            v = torch.cat([self.v, v], dim=2)

        self.k = k
        self.v = v
        return k, v


class ModelCache:
    """Hold a LayerCache for each layer: cache[i] belongs to layer i."""

    def __init__(self, n_layer: int) -> None:
        self.layers = [LayerCache() for _ in range(n_layer)]

    @property
    def length(self) -> int:
        """Return the number of tokens that the first layer has seen: every layer sees all of them."""
        return self.layers[0].length

    def __getitem__(self, i: int) -> LayerCache:
        return self.layers[i]
