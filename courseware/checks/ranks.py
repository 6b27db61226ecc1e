"""Run a function in several processes that hear each other, and write down what they say."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the optimizers load it: once here, and not again in every copy of this process
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

_LONGEST = 60  # seconds until a process that has not ended is killed


def ranks(
    world: int,
    work: Callable[..., Any],
    *args: Any,
    seconds: float = 30,
    failing: bool = False,
) -> list[Any]:
    """Run work(*args) in `world` forked processes joined by gloo, and return what each returned.

    seconds: how long a collective waits. failing: return each error as a dict (its "error", "kind" and traceback,
    "told"), and None for a process that died. Otherwise raises AssertionError with the first error's traceback.
    """
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        options = (world, folder, seconds, work, args)
        group = [fork.Process(target=_one_rank, args=(rank, *options)) for rank in range(world)]
        try:
            for process in group:
                process.start()
            for process in group:
                process.join(_LONGEST)
        finally:
            for process in group:
                process.kill()
        files = [Path(folder, f"{rank}.pt") for rank in range(world)]
        answers = [torch.load(f, weights_only=False) if f.exists() else None for f in files]

    if not failing:
        for rank, answer in enumerate(answers):
            assert answer is not None, f"rank {rank} of {world} died"
            assert not (isinstance(answer, dict) and "told" in answer), answer["told"]
    return answers


def _one_rank(
    rank: int, world: int, folder: str, seconds: float, work: Callable[..., Any], args: Any
) -> None:
    """Be rank `rank` of `world`: meet the others, work, leave the result in the folder."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stdout = sys.stderr = io.StringIO()
    try:
        meeting = f"file://{folder}/meet"
        wait = timedelta(seconds=seconds)
        dist.init_process_group("gloo", meeting, wait, world_size=world, rank=rank)
        answer = work(*args)
    except Exception as error:
        told = "".join(traceback.format_exception(error))
        answer = {"error": str(error), "kind": type(error).__name__, "told": told}

    torch.save(answer, f"{folder}/{rank}.part")
    os.rename(f"{folder}/{rank}.part", f"{folder}/{rank}.pt")
    os._exit(0)


class Collectives(TorchDispatchMode):
    """Write down the messages of this process: `log` holds (name, bytes of each tensor).

    with Collectives() as seen:
        step()
    print(seen.log)
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, list[int]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "c10d":
            listed = [a if isinstance(a, (list, tuple)) else [a] for a in args]
            tensors = [t for part in listed for t in part if isinstance(t, torch.Tensor)]
            name = func._schema.name.removeprefix("c10d::").strip("_")
            self.log.append((name, [t.numel() * t.element_size() for t in tensors]))
        return func(*args, **(kwargs or {}))
