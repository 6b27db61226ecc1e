"""Compare two results and describe how they differ: in kind, shape, dtype, or the first value that is not the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

TOLERANCE = 1e-5  # float32 has about seven digits; a different order of summation costs one or two
_LONGEST = 90  # characters of a value that a message shows


class Difference(NamedTuple):
    """How a result differs from the expected one."""

    diagnosis: str  # wrong type, wrong shape, wrong dtype, wrong length, wrong keys, wrong value
    text: str
    place: str = ""  # the index of the first difference inside a container, as in "[1, 2]"


def same(one: Any, other: Any, tolerance: float = TOLERANCE) -> bool:
    """Return whether two results are equal, with floats within `tolerance`, absolute and relative."""
    return difference(one, other, tolerance) is None


def difference(got: Any, want: Any, tolerance: float = TOLERANCE) -> Difference | None:
    """Return how `got` differs from `want`, or None; for tensors, arrays, numbers, strings, and containers of them.

    A NumPy array counts as a tensor, a tuple as a list, and float32 and float64 as the same dtype.
    """
    got = got.item() if isinstance(got, np.generic) else got
    want = want.item() if isinstance(want, np.generic) else want

    if _is_array(want):
        return _of_arrays(got, want, tolerance)
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)):
        return _of_lists(got, want, tolerance)
    if isinstance(want, dict) and isinstance(got, dict):
        return _of_dicts(got, want, tolerance)
    if _is_number(want) and _is_number(got):
        return None if _close(got, want, tolerance) else Difference("wrong value", _both(got, want))

    if type(got) is not type(want):
        text = f"expected {kind(want)}, got {kind(got)}: {brief(got)}"
        return Difference("wrong type", text)
    return None if got == want else Difference("wrong value", _both(got, want))


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

    equal = torch.isclose(
        mine.double(), theirs.double(), rtol=tolerance, atol=tolerance, equal_nan=True
    )
    if bool(equal.all()):
        return None

    index = tuple(int(i) for i in (~equal).nonzero()[0])
    text = _both(got, want)
    if index:
        text += f". At {list(index)}: {brief(theirs[index])} expected, {brief(mine[index])} found"
    return Difference("wrong value", text, str(list(index)))


def _of_lists(got: list | tuple, want: list | tuple, tolerance: float) -> Difference | None:
    if len(got) != len(want):
        text = f"expected {len(want)} items, got {len(got)}: {_both(got, want)}"
        return Difference("wrong length", text)

    for i, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        found = difference(mine, theirs, tolerance)
        if found and found.diagnosis == "wrong value" and not _is_array(theirs):
            text = f"{_near(got, want, i)}. At [{i}]: {brief(theirs)} expected, {brief(mine)} found"
            return Difference("wrong value", text, f"[{i}]")
        if found:
            return Difference(found.diagnosis, f"item {i}: {found.text}", f"[{i}]")
    return None


def _near(got: list | tuple, want: list | tuple, i: int) -> str:
    """Return both lists or, if they are long, the part around place i."""
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
            return Difference(found.diagnosis, f"for {brief(key)}, {found.text}", f"[{key!r}]")
    return None


def _is_array(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _close(one: float, other: float, tolerance: float) -> bool:
    if one == other:
        return True
    if one != one and other != other:  # both are nan
        return True
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
    name = "tensor" if isinstance(value, torch.Tensor) else type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _both(got: Any, want: Any) -> str:
    return f"expected {brief(want)}, got {brief(got)}"


def brief(value: Any) -> str:
    """Return a value as one short line, with floats rounded to four decimals."""
    if _is_array(value):
        value = _tensor(value).tolist()
    text = repr(_rounded(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if type(value) in (list, tuple):
        return type(value)(_rounded(item) for item in value)
    return value
