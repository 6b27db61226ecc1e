"""Damage files as a bad disk or a bad person would, and see that a reader refuses them in little time and memory."""

from __future__ import annotations

import copy
import json
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

# What reading needs whatever the file: buffers, the tables of 256 bytes, error messages. Measured below 0.3 MB.
_ALWAYS = 2_000_000
_SECONDS = 5.0  # a hang; the slowest takes a tenth of it on a busy machine

_VALUES = [None, True, -1, 0, 1, 3, 2**31, 2**62, 10**18, 1.5, 1e308, "", "x", "../x", [], {}, [[]]]


def damaged(data: bytes, chance: random.Random, header: int) -> bytes:
    """Return the file with one to four changes, most of them in its first `header` bytes."""
    found = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        end = header if chance.random() < 0.9 else len(found)
        place = chance.randrange(max(1, min(end, len(found))))
        kind = chance.randrange(7)
        if kind == 0:
            found[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            number = _number(chance)
            found[place : place + len(number)] = number
        elif kind == 2:
            del found[place:]
        elif kind == 3:
            del found[place : place + chance.randrange(1, 40)]
        elif kind == 4:
            other = chance.randrange(len(found))
            found[place:place] = found[other : other + chance.randrange(1, 40)]
        elif kind == 5:
            found[place:place] = chance.randbytes(chance.randrange(1, 20))
        else:
            found[place : place + 8] = chance.randbytes(8)
        if not found:
            return b""
    return bytes(found)


def _number(chance: random.Random) -> bytes:
    """Return a number that a program might trip over, in 1, 2, 4 or 8 bytes."""
    code = chance.choice("bhiqBHIQfd")
    if code in "fd":
        return struct.pack(f"<{code}", chance.choice([float("nan"), float("inf"), -1.0, 0.0]))
    bits = 8 * struct.calcsize(code)
    edges = [0, 1, 2, 7, 2 ** (bits - 1) - 1, 2 ** (bits // 2)]
    edges += [-1, -(2 ** (bits - 1))] if code.islower() else [2**bits - 1, 2 ** (bits - 1)]
    return struct.pack(f"<{code}", chance.choice(edges))


def damaged_json(values: Any, chance: random.Random) -> Any:
    """Return a copy with one to three values replaced, removed, or moved elsewhere."""
    found = {"": json.loads(json.dumps(values))}
    for _ in range(chance.randrange(1, 4)):
        place: Any = found
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = chance.choice(list(keys))
            inside = place[key]
            deeper = 0.95 if place is found else 0.7
            if isinstance(inside, dict | list) and inside and chance.random() < deeper:
                place = inside
                continue
            if chance.random() < 0.2:
                del place[key]
            else:
                place[key] = copy.deepcopy(chance.choice([*_VALUES, inside]))
            break
    return found.get("")


def survives(
    attempt: Callable[[], object], size: int, what: str, count_memory: bool = True
) -> bool:
    """Return whether the attempt succeeded; fail for any error but ValueError or OSError, a hang, or memory.

    Counting memory makes it several times as slow.
    """
    if count_memory:
        tracemalloc.start()
    began = time.process_time()
    try:
        attempt()
        fine = True
    except (ValueError, OSError) as error:
        assert str(error), what
        fine = False
    finally:
        _, peak = tracemalloc.get_traced_memory()  # (0, 0) if it is not counted
        tracemalloc.stop()
    seconds = time.process_time() - began
    assert seconds < _SECONDS, f"{what}: {seconds:.1f} s"
    assert fine or peak < 2 * size + _ALWAYS, f"{what}: {peak:,} bytes for a file of {size:,}"
    return fine
