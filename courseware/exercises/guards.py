"""Keep an answer from harming what comes after it: its time and memory, the random states, the libraries, the settings.

with guarded(seconds=10) as guard:
    ...                       # the answer runs
guard.left_behind             # ["torch.softmax"]: what it had replaced; it has been put back
"""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from courseware.time_limit import time_limit

MEMORY = 3 << 29  # bytes (1.5 GiB) that an answer may take; the largest of ours takes a tenth of it

_LIBRARIES = {
    "builtins", "math", "random", "statistics", "itertools", "functools", "operator", "collections", "heapq", "bisect",
    "copy", "json", "re", "hashlib", "string", "time", "inspect", "numpy", "numpy.random", "numpy.linalg", "torch",
    "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.utils", "torch.optim", "torch.linalg", "torch.random",
    "minigpt_lib", "courseware",
}  # fmt: skip
_CLASSES = (torch.Tensor, torch.nn.Module, torch.nn.Linear, torch.nn.Parameter, torch.Generator)
_MISSING = object()


class _Setting(NamedTuple):
    """Something global that an answer could leave changed."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]


_SETTINGS = (
    _Setting("torch.set_default_dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Setting("torch.set_grad_enabled", torch.is_grad_enabled, torch.set_grad_enabled),
    _Setting("torch.set_num_threads", torch.get_num_threads, torch.set_num_threads),
    _Setting("torch.set_default_device", torch.get_default_device, torch.set_default_device),
    _Setting(
        "torch.use_deterministic_algorithms",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    _Setting("np.seterr", np.geterr, lambda modes: np.seterr(**modes)),
    _Setting("sys.setrecursionlimit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Setting("os.chdir", os.getcwd, os.chdir),
)


class Guard:
    """What was noticed while an answer ran."""

    def __init__(self) -> None:
        self.left_behind: list[str] = []  # library functions and settings that it had changed
        self.interrupted = False  # whether the learner pressed Ctrl-C


@contextlib.contextmanager
def guarded(seconds: float | None = None, memory: int | None = None) -> Iterator[Guard]:
    """Limit time and memory, fix the random states, and put everything global back at the end."""
    guard = Guard()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # exercises are small: a second thread gains nothing and needs memory
    world = _World()

    try:
        with (
            warnings.catch_warnings(),
            _fixed_chance(),
            _own_streams(),
            _noticed_interrupts(guard),
            _memory_limit(memory),
            time_limit(seconds),
        ):
            yield guard
    finally:
        guard.left_behind = world.restore()
        torch.set_num_threads(threads)


class _World:
    """A snapshot of library functions and global settings."""

    def __init__(self) -> None:
        modules = [module for name, module in sys.modules.items() if _is_library(name)]
        self.spaces = {owner: dict(vars(owner)) for owner in (*modules, *_CLASSES)}
        self.settings = [(setting, setting.get()) for setting in _SETTINGS]

    def restore(self) -> list[str]:
        """Put everything back; return the names of what had changed."""
        found = []

        for setting, before in self.settings:
            if setting.get() != before:
                setting.put(before)
                found.append(setting.name)

        for owner, before in self.spaces.items():
            now = dict(vars(owner))
            for name, value in before.items():
                if callable(value) and _replaced(value, now.get(name, _MISSING)):
                    setattr(owner, name, value)
                    found.append(f"{owner.__name__}.{name}")

            added = now.keys() - before.keys() if isinstance(owner, type) else ()
            for name in added:  # hides what the class inherits
                delattr(owner, name)
                found.append(f"{owner.__module__}.{owner.__name__}.{name}")

        return found


def _replaced(before: Any, now: Any) -> bool:
    """Return whether a function is another one now; wrapped, as PyTorch's compiler does, it is the same."""
    return now is not before and not (callable(now) and inspect.unwrap(now) is before)


def _is_library(name: str) -> bool:
    ours = name.startswith(("minigpt_lib.", "courseware."))
    return (name in _LIBRARIES or ours) and isinstance(sys.modules[name], types.ModuleType)


@contextlib.contextmanager
def _fixed_chance() -> Iterator[None]:
    """Seed the random states of Python, NumPy and PyTorch (CPU), and put them back at the end."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)

    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextlib.contextmanager
def _own_streams() -> Iterator[None]:
    """Put the standard streams and the environment's variables back at the end."""
    streams = sys.stdin, sys.stdout, sys.stderr
    variables = dict(os.environ)

    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        if variables != dict(os.environ):
            os.environ.clear()
            os.environ.update(variables)


@contextlib.contextmanager
def _noticed_interrupts(guard: Guard) -> Iterator[None]:
    """Tell the learner's Ctrl-C from a KeyboardInterrupt that the answer raises itself."""
    previous = signal.getsignal(signal.SIGINT)

    def pressed(signum: int, frame: types.FrameType | None) -> None:
        guard.interrupted = True
        if callable(previous):
            previous(signum, frame)

    try:
        signal.signal(signal.SIGINT, pressed)
    except ValueError:  # not in the main thread, where signals never arrive
        yield
        return

    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def _memory_limit(extra: int | None) -> Iterator[None]:
    """Let this process have at most `extra` bytes of memory more than now, where the system can tell and limit it."""
    size = _size_of_this_process() if extra else None
    if not extra or size is None:
        yield
        return

    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = size + extra
    allowed = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([most, *allowed]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _size_of_this_process() -> int | None:
    """Return the bytes of address space that this process has, or None where the system does not say."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return None
