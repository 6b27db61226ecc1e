"""Check that our result agrees with that of a reference, and say where it does not."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

# (rtol, atol) as torch.testing.assert_close documents its defaults; every other dtype must be equal.
_DEFAULTS = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
    torch.complex64: (1.3e-6, 1e-5),
    torch.complex128: (1e-7, 1e-7),
}


@dataclass(frozen=True)
class _Tolerance:
    """How far a number may be off; None for both means the default of its dtype."""

    rtol: float | None
    atol: float | None
    of_largest: float | None

    def __post_init__(self) -> None:
        given = [value for value in (self.rtol, self.atol, self.of_largest) if value is not None]
        if any(not value >= 0 for value in given):
            raise ValueError(f"expected tolerances of 0 or more, got {given}")
        if self.of_largest is not None and len(given) > 1:
            raise ValueError("expected either of_largest or rtol and atol, got both")

    def allowed(self, theirs: Tensor) -> Tensor:
        """Return the difference that is allowed at each place, in float64."""
        size = _wide(theirs).abs()
        if self.of_largest is not None:
            return (self.of_largest * size.max()).expand_as(size)
        if self.rtol is None and self.atol is None:
            rtol, atol = _DEFAULTS.get(theirs.dtype, (0.0, 0.0))
        else:
            rtol, atol = self.rtol or 0.0, self.atol or 0.0
        return atol + rtol * size


def agree(
    ours: Any,
    theirs: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    of_largest: float | None = None,
    what: str = "result",
) -> None:
    """Check that `ours` is what the reference `theirs` is: structure, shapes, dtypes and numbers.

    ours, theirs: tensors or numbers; lists, tuples or dicts of these; anything else must be equal. A number may be off
    by atol + rtol * |theirs|. If only one of the two is given, the other is 0; if neither is, the defaults of
    torch.testing.assert_close for the dtype hold. atol=0 asks for equality. of_largest: instead, the
    difference allowed everywhere as a share of the largest |theirs|, for logits and gradients of any size. NaN agrees
    with nothing. what: how the message calls the result.

    Raises AssertionError that names the place that is furthest off with both its values, or the difference in
    structure; also if there was no number to compare, because then nothing was checked. ValueError for tolerances that
    are negative or contradict each other.

    >>> agree(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), atol=0.1, what="loss")
    Traceback (most recent call last):
    AssertionError: loss: 1 of 2 numbers differ, most of all at [1]: expected 2.5, got 2.0 (off by 0.5, allowed 0.1)
    """
    compared = _compare(ours, theirs, _Tolerance(rtol, atol, of_largest), what)
    if not compared:
        raise AssertionError(f"{what}: expected numbers to compare, got none on both sides")


def _compare(ours: Any, theirs: Any, tolerance: _Tolerance, what: str) -> int:
    """Compare two things of any kind, and return how many numbers were compared."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        if set(ours) != set(theirs):
            missing = sorted(set(theirs) - set(ours), key=str)
            unexpected = sorted(set(ours) - set(theirs), key=str)
            raise AssertionError(f"{what}: missing keys {missing}, unexpected keys {unexpected}")
        return sum(
            _compare(ours[key], theirs[key], tolerance, f"{what}[{key!r}]") for key in theirs
        )

    if _is_list(theirs) and _is_list(ours):
        if len(ours) != len(theirs):
            raise AssertionError(f"{what}: expected {len(theirs)} entries, got {len(ours)}")
        pairs = zip(ours, theirs)
        return sum(
            _compare(mine, other, tolerance, f"{what}[{i}]")
            for i, (mine, other) in enumerate(pairs)
        )

    if _is_numeric(theirs) and _is_numeric(ours):
        mine, other = _as_tensors(ours, theirs)
        _compare_tensors(mine, other, tolerance, what)
        return other.numel()

    if type(ours) is not type(theirs) or ours != theirs:
        raise AssertionError(f"{what}: expected {theirs!r}, got {ours!r}")
    return 1


def _is_list(thing: object) -> bool:
    return isinstance(thing, (list, tuple))


def _is_numeric(thing: object) -> bool:
    return isinstance(thing, (Tensor, numbers.Number))


def _as_tensors(ours: Any, theirs: Any) -> tuple[Tensor, Tensor]:
    """Return both as tensors; a plain number takes the dtype of the tensor that it is compared with."""
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return ours.detach(), theirs.detach()
    if isinstance(ours, Tensor):
        return ours.detach(), torch.tensor(theirs, dtype=ours.dtype, device=ours.device)
    if isinstance(theirs, Tensor):
        return torch.tensor(ours, dtype=theirs.dtype, device=theirs.device), theirs.detach()
    if isinstance(ours, int) and isinstance(theirs, int):
        return torch.tensor(ours), torch.tensor(theirs)
    wide = torch.complex128 if complex in (type(ours), type(theirs)) else torch.float64
    return torch.tensor(ours, dtype=wide), torch.tensor(theirs, dtype=wide)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _compare_tensors(ours: Tensor, theirs: Tensor, tolerance: _Tolerance, what: str) -> None:
    if ours.shape != theirs.shape:
        raise AssertionError(
            f"{what}: expected shape {tuple(theirs.shape)}, got {tuple(ours.shape)}"
        )
    if ours.dtype != theirs.dtype:
        raise AssertionError(f"{what}: expected {theirs.dtype}, got {ours.dtype}")
    if ours.device != theirs.device:
        raise AssertionError(
            f"{what}: expected a tensor on {theirs.device}, got one on {ours.device}"
        )
    if theirs.numel() == 0:
        return

    allowed = tolerance.allowed(theirs)
    difference = (_wide(ours) - _wide(theirs)).abs()
    # Equal are infinities too, whose difference is NaN. Unequal are integers that float64 cannot tell apart.
    equal = ours == theirs
    close = (difference <= allowed) & (allowed > 0)
    wrong = ~(equal | close)
    if not wrong.any():
        return

    excess = (difference - allowed).nan_to_num(nan=torch.inf).where(wrong, -torch.inf)
    place = _place_of_largest(excess)
    where = ""
    if place:
        count = int(wrong.sum())
        where = f"{count} of {wrong.numel()} numbers differ, most of all at {list(place)}: "
    raise AssertionError(
        f"{what}: {where}expected {theirs[place].item()}, got {ours[place].item()} "
        f"(off by {difference[place].item():.3g}, allowed {allowed[place].item():.3g})"
        + _common_factor(_wide(ours), _wide(theirs))
    )


def _place_of_largest(values: Tensor) -> tuple[int, ...]:
    """Return the index of the largest value, which is () for a scalar."""
    if values.ndim == 0:
        return ()
    return tuple(int(i) for i in torch.unravel_index(values.argmax(), values.shape))


def _common_factor(ours: Tensor, theirs: Tensor) -> str:
    """Return a hint if every number of ours is the same multiple of theirs, of which there are several."""
    size = theirs.abs().square().sum()
    if theirs.numel() < 2 or not size > 0:
        return ""

    factor = (ours * theirs.conj()).sum() / size
    off = (ours - factor * theirs).abs().max()
    if not off < 1e-3 * ours.abs().max() or (factor - 1).abs() < 1e-3:
        return ""
    return f". Every number is {factor.item():.4g} times the expected one: is a factor wrong?"


@overload
def gradients(result: Tensor, inputs: Tensor) -> Tensor: ...
@overload
def gradients(result: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
@overload
def gradients(result: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]: ...
def gradients(
    result: Tensor, inputs: Tensor | Mapping[str, Tensor] | Sequence[Tensor]
) -> Tensor | dict[str, Tensor] | list[Tensor]:
    """Return the gradients of a result with respect to its inputs, in the form in which the inputs came.

    A scalar is differentiated as it is. Any other result is first multiplied by fixed random numbers and summed, the
    same ones for every result of this shape, so gradients of two implementations can be compared:

        agree(gradients(y, our_weights), gradients(z, their_weights), what="gradient")

    The graph is kept, so a result can be differentiated again. Raises AssertionError for a result without gradients,
    and for one that does not depend on an input.
    """
    if isinstance(inputs, Tensor):
        return gradients(result, [inputs])[0]
    if isinstance(inputs, Mapping):
        found = gradients(result, list(inputs.values()))
        return dict(zip(inputs, found))

    if not result.requires_grad:
        raise AssertionError(
            "the result has no gradient: was it detached, or computed under no_grad?"
        )
    slopes = torch.autograd.grad(
        result, list(inputs), _direction(result), retain_graph=True, allow_unused=True
    )
    for i, slope in enumerate(slopes):
        if slope is None:
            raise AssertionError(
                f"the result does not depend on input {i}, of shape {tuple(inputs[i].shape)}"
            )
    return list(slopes)


def _direction(result: Tensor) -> Tensor:
    if result.ndim == 0:
        return torch.ones_like(result)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(result.shape, generator=generator).to(result)


def roughen(model: M, std: float = 0.3, generator: torch.Generator | None = None) -> M:
    """Draw all weights of a model anew, large enough for errors to show, and return the model.

    The weights of norms get mean 1 and all others mean 0, with standard deviation `std`. A fresh model hides errors:
    its logits are small, its biases 0 and its norms 1. Without a generator, torch's global one draws.
    """
    for name, weight in model.named_parameters():
        is_scale = "norm" in name and "weight" in name
        nn.init.normal_(weight, 1.0 if is_scale else 0.0, std, generator)
    return model
