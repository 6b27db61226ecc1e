"""Run a function in several processes that hear each other, and write down what they say."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
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
        pipes = [fork.Pipe() for _ in range(world)]
        options = (world, folder, seconds, work, args)
        group = [
            fork.Process(target=_one_rank, args=(rank, theirs, *options))
            for rank, (_, theirs) in enumerate(pipes)
        ]
        try:
            for process in group:
                process.start()
            answers = _receive([ours for ours, _ in pipes], group)
        finally:
            for process in group:
                process.kill()

    if not failing:
        for rank, answer in enumerate(answers):
            assert answer is not None, f"rank {rank} of {world} died"
            assert not (isinstance(answer, dict) and "told" in answer), answer["told"]
    return answers


def _receive(pipes: Sequence[Connection], group: Sequence[BaseProcess]) -> list[Any]:
    """Return what each process sends, or None for one that ends without a word or takes too long."""
    end = time.monotonic() + _LONGEST
    answers: list[Any] = [None] * len(pipes)
    waiting = set(range(len(pipes)))
    while waiting and time.monotonic() < end:
        for rank in sorted(waiting):
            ended = not group[rank].is_alive()
            if pipes[rank].poll(0.0 if ended else 0.005):
                answers[rank] = pipes[rank].recv()
                pipes[rank].send("received")
                waiting.discard(rank)
            elif ended:
                waiting.discard(rank)
    return answers


def _one_rank(
    rank: int,
    pipe: Connection,
    world: int,
    folder: str,
    seconds: float,
    work: Callable[..., Any],
    args: Any,
) -> None:
    """Be rank `rank` of `world`: meet the others, work, send the result."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stdout = sys.stderr = io.StringIO()
    try:
        meeting = f"file://{folder}/meet"
        wait = timedelta(seconds=seconds)
        dist.init_process_group("gloo", meeting, wait, world_size=world, rank=rank)
        pipe.send(work(*args))
    except Exception as error:
        told = "".join(traceback.format_exception(error))
        pipe.send({"error": str(error), "kind": type(error).__name__, "told": told})

    pipe.recv()  # tensors are fetched from this process: it must not end before
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
