"""Compare two results and say how they differ: type, shape, dtype, or the first value that is not the same."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

TOLERANCE = 1e-5  # float32 keeps about seven digits; another order of summation costs one or two
_LONGEST = 90  # characters of a value that are shown


class Difference(NamedTuple):
    """How a result differs from what was expected."""

    diagnosis: str  # wrong type, wrong shape, wrong dtype, wrong length, wrong keys, wrong value
    text: str


@dataclass(frozen=True)
class Exactly:
    """A result whose type and dtype count, too, since the task states them: int64 is not int32, a list no tuple."""

    value: Any


@dataclass(frozen=True)
class Stream:
    """Stands for a generator or another iterator, which has no values yet."""

    kind: str


def plain(value: Any) -> Any:
    """Return a copy made of Python's and PyTorch's own types only.

    A subclass becomes what it inherits from, so an `==` of its own plays no part. Values of other types are copied
    as they are, and an iterator becomes a `Stream`.
    """
    if isinstance(value, Exactly):
        return Exactly(plain(value.value))
    if isinstance(value, torch.Tensor):
        return torch.Tensor.as_subclass(value, torch.Tensor).detach().clone()
    if isinstance(value, np.ndarray):
        return np.array(value, copy=True, subok=False)
    if isinstance(value, np.generic):
        return value.item()

    if isinstance(value, dict):
        return {key: plain(item) for key, item in dict.items(value)}
    if isinstance(value, list):
        return [plain(item) for item in list.__iter__(value)]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in tuple.__iter__(value))

    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Iterator):
        return Stream(type(value).__name__)
    return copy.deepcopy(value)


def same(one: Any, other: Any, tolerance: float = TOLERANCE) -> bool:
    """Return whether two results are equal; floats within `tolerance`, absolute and relative."""
    return difference(one, other, tolerance) is None


def difference(got: Any, want: Any, tolerance: float = TOLERANCE) -> Difference | None:
    """Return how `got` differs from `want`, or None: tensors, arrays, numbers, texts, containers of them.

    A NumPy array may stand for a tensor, a tuple for a list, and an int for a float, but not a float for an int.
    float32 and float64 count as the same, as do int32 and int64, unless `want` is `Exactly` a value.
    """
    if isinstance(want, Exactly):
        got = got.value if isinstance(got, Exactly) else got
        return _difference(got, want.value, tolerance) or _of_types(got, want.value)
    return _difference(got, want, tolerance)


def _difference(got: Any, want: Any, tolerance: float) -> Difference | None:
    got = got.item() if isinstance(got, np.generic) else got
    want = want.item() if isinstance(want, np.generic) else want

    if _is_array(want):
        return _of_arrays(got, want, tolerance)
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)):
        return _of_lists(got, want, tolerance)
    if isinstance(want, dict) and isinstance(got, dict):
        return _of_dicts(got, want, tolerance)
    if _is_number(want) and _is_number(got):
        return _of_numbers(got, want, tolerance)

    if type(got) is not type(want):
        return Difference("wrong type", f"expected {kind(want)}, got {kind(got)}: {brief(got)}")
    return None if got == want else Difference("wrong value", _both(got, want))


def _of_types(got: Any, want: Any) -> Difference | None:
    """Return how the types of two equal values differ."""
    if type(got) is not type(want):
        return Difference("wrong type", f"expected {kind(want)}, got {kind(got)}: {brief(got)}")
    if _is_array(want) and got.dtype != want.dtype:
        return Difference("wrong dtype", f"expected {want.dtype}, got {got.dtype}")

    if isinstance(want, (list, tuple)):
        found = (_of_types(mine, theirs) for mine, theirs in zip(got, want, strict=True))
        return next((difference for difference in found if difference), None)
    if isinstance(want, dict):
        found = (_of_types(got[key], want[key]) for key in want)
        return next((difference for difference in found if difference), None)
    return None


def _of_numbers(got: float, want: float, tolerance: float) -> Difference | None:
    if not _close(got, want, tolerance):
        return Difference("wrong value", _both(got, want))
    if isinstance(want, int) and isinstance(got, float):
        return Difference("wrong type", f"expected an int, {brief(want)}, got a float: {got!r}")
    return None


def _of_arrays(got: Any, want: Any, tolerance: float) -> Difference | None:
    if not _is_array(got):
        text = f"expected {kind(want)} of shape {tuple(want.shape)}, got {kind(got)}: {brief(got)}"
        return Difference("wrong type", text)

    mine = _tensor(got)
    theirs = _tensor(want)
    if mine.shape != theirs.shape:
        text = f"expected shape {tuple(theirs.shape)}, got {tuple(mine.shape)}"
        return Difference("wrong shape", text)
    if _dtype_kind(mine) != _dtype_kind(theirs):
        text = f"expected {_dtype_kind(theirs)}, got {_dtype_kind(mine)} ({got.dtype})"
        return Difference("wrong dtype", text)

    first = mine.double()
    second = theirs.double()
    equal = torch.isclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)
    if bool(equal.all()):
        return None

    text = _both(got, want)
    index = tuple(int(i) for i in (~equal).nonzero()[0])
    if index:
        text += f". At {list(index)}: {brief(theirs[index])} expected, {brief(mine[index])} found"
    return Difference("wrong value", text)


def _of_lists(got: Any, want: Any, tolerance: float) -> Difference | None:
    if len(got) != len(want):
        text = f"expected {len(want)} items, got {len(got)}: {_both(got, want)}"
        return Difference("wrong length", text)

    for i, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        found = difference(mine, theirs, tolerance)
        if found and found.diagnosis == "wrong value" and not _is_array(theirs):
            text = f"{_near(got, want, i)}. At [{i}]: {brief(theirs)} expected, {brief(mine)} found"
            return Difference("wrong value", text)
        if found:
            return Difference(found.diagnosis, f"item {i}: {found.text}")
    return None


def _near(got: Any, want: Any, i: int) -> str:
    """Return both lists; if they are long, what stands around place i."""
    if len(repr(_rounded(want))) <= _LONGEST:
        return _both(got, want)
    around = slice(max(0, i - 2), i + 3)
    return f"around place {i} {_both(got[around], want[around])}"


def _of_dicts(got: dict, want: dict, tolerance: float) -> Difference | None:
    missing = [key for key in want if key not in got]
    extra = [key for key in got if key not in want]

    parts = []
    if missing:
        parts.append(f"{brief(missing)} missing")
    if extra:
        parts.append(f"{brief(extra)} not expected")
    if parts:
        return Difference("wrong keys", f"keys {' and '.join(parts)}: {_both(got, want)}")

    for key in want:
        found = difference(got[key], want[key], tolerance)
        if found:
            return Difference(found.diagnosis, f"for {brief(key)}, {found.text}")
    return None


def _is_array(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _close(one: float, other: float, tolerance: float) -> bool:
    if one == other or (one != one and other != other):
        return True
    if math.isinf(one) or math.isinf(other):
        return False
    return abs(one - other) <= tolerance * max(1.0, abs(other))


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    return torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))


def _dtype_kind(value: torch.Tensor) -> str:
    if value.dtype == torch.bool:
        return "True and False"
    return "floating-point numbers" if value.is_floating_point() else "whole numbers"


def kind(value: Any) -> str:
    """Return the name of a value's type with its article: a list, an int, a tensor."""
    name = type(value).__name__
    if isinstance(value, torch.Tensor):
        name = "tensor"
    if isinstance(value, Stream):
        name = value.kind
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def brief(value: Any) -> str:
    """Return a value as one short line, floats rounded to four decimals."""
    if isinstance(value, Exactly):
        value = value.value
    if _is_array(value):
        value = _tensor(value).tolist()

    try:
        text = repr(_rounded(value))
    except Exception as error:  # a type of the learner's own, with a faulty __repr__
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _both(got: Any, want: Any) -> str:
    return f"expected {brief(want)}, got {brief(got)}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if type(value) in (list, tuple):
        return type(value)(_rounded(item) for item in value)
    return value
