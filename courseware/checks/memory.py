"""Measure what a computation allocates: its peak memory, and the operations that PyTorch runs for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Follow the tensors that are made inside `with Allocations() as seen`, until each is freed.

    seen.now and seen.peak are bytes; seen.operations lists the names of PyTorch's operations in their order, as the
    dispatcher knows them. Tensors from before do not count, nor does scratch memory inside a kernel, which no tensor
    holds.

    >>> with Allocations() as seen:
    ...     kept = torch.zeros(1000) + torch.ones(1000)
    >>> seen.now, seen.peak
    (4000, 12000)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self.operations: list[str] = []
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation, and note what it is called and which new storages it returns."""
        before = {
            id(leaf.untyped_storage())
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        self.operations.append(func.__name__.partition(".")[0])

        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in before:
                    self._follow(storage)
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        """Count a storage from now until it is freed."""
        name = id(storage)
        if name in self._known:
            return

        size = storage.nbytes()
        self._known.add(name)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, name, size)

    def _forget(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size
