"""Check that no token of a sequence sees the future, and say which one does.

Shapes: B batch size, T sequence length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def sees_only_the_past(
    function: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    reach: int | None = None,
    dim: int = 1,
    atol: float = 0.0,
) -> None:
    """Check that a token reaches itself and later ones but never an earlier one, by changing one token at a time.

    function: a layer or a model, (B, T, ...) to (B, T, ...), such as `lambda ids: model(ids)[0]`. inputs: vectors, or
    token ids, which are replaced by others that occur. dim: the axis of T in inputs and result; axis 0 is the batch.
    reach: how many places notice a changed token, its own included: 1 for a layer that keeps tokens apart, n for a
    model that reads n tokens, None for all later places. atol: a change up to this size does not count.

    Raises AssertionError that names the two tokens; also if a token fails to reach a place that must notice it, or if
    one text of the batch reaches another. ValueError if the function is random, if its result does not have the axis of
    T, or if all ids are equal.

    >>> sees_only_the_past(lambda x: x.flip(1).cumsum(1).flip(1), torch.ones(1, 3))
    Traceback (most recent call last):
    AssertionError: token 1 reached token 0: its result changed by 1 when only token 1 was changed. Look at the mask
    """
    n_tokens = inputs.shape[dim]
    if reach is None:
        reach = n_tokens

    with torch.no_grad():
        before = function(inputs)
        if before.ndim <= dim or before.shape[dim] != n_tokens:
            raise ValueError(
                f"expected a result with {n_tokens} places on axis {dim}, got shape {tuple(before.shape)}"
            )
        if before.isnan().any():
            raise AssertionError("the result contains NaN")
        if not torch.equal(before, function(inputs)):
            raise ValueError("expected the same result twice: is dropout on? Call eval() first")

        changes = []
        for token in range(n_tokens):
            row = token % len(inputs)
            after = function(_with_another_token(inputs, row, token, dim))
            changes.append(_change_by_token(before, after, dim))

    for token, change in enumerate(changes):
        _refuse_mixed_texts(change, token % len(inputs), atol)
    own = [change[token % len(inputs)] for token, change in enumerate(changes)]
    for refuse in (_refuse_leak, _refuse_far_reach, _refuse_blindness):  # the likeliest cause first
        for token, change in enumerate(own):
            refuse(change.tolist(), token, reach, atol)


def _with_another_token(inputs: Tensor, row: int, token: int, dim: int) -> Tensor:
    """Return a copy of the inputs in which one token of one row is another one."""
    changed = inputs.clone()
    part = changed[row].select(dim - 1, token)
    if inputs.is_floating_point():
        # A different change for each channel: a norm takes out one that is the same for all.
        part += torch.linspace(1, 2, part.numel()).view(part.shape).to(part)
        return changed

    ids = inputs.unique()
    if len(ids) < 2:
        raise ValueError(f"expected at least two different ids, got only {ids.tolist()}")
    part.copy_(ids[(torch.searchsorted(ids, part) + 1) % len(ids)])
    return changed


def _change_by_token(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """Return the largest change of each place, (B, T); a change to NaN is infinite."""
    change = (after.double() - before.double()).abs().nan_to_num(nan=torch.inf).movedim(dim, 1)
    return change.reshape(*change.shape[:2], -1).amax(dim=-1)


def _refuse_mixed_texts(change: Tensor, row: int, atol: float) -> None:
    for other, size in enumerate(change.amax(dim=1).tolist()):
        if other != row and size > atol:
            raise AssertionError(
                f"text {row} of the batch reached text {other}, whose result changed by {size:.3g}"
            )


def _reached(token: int, place: int, size: float) -> str:
    return (
        f"token {token} reached token {place}: its result changed by {size:.3g} when only "
        f"token {token} was changed"
    )


def _refuse_leak(change: Sequence[float], token: int, reach: int, atol: float) -> None:
    """Raise AssertionError if a changed token reached an earlier place."""
    for place, size in enumerate(change[:token]):
        if size > atol:
            raise AssertionError(f"{_reached(token, place, size)}. Look at the mask")


def _refuse_far_reach(change: Sequence[float], token: int, reach: int, atol: float) -> None:
    """Raise AssertionError if a changed token reached a place too far behind it."""
    only = "itself" if reach == 1 else f"{reach} places, its own included"
    for place in range(token + reach, len(change)):
        if change[place] > atol:
            raise AssertionError(
                f"{_reached(token, place, change[place])}, but it should reach only {only}"
            )


def _refuse_blindness(change: Sequence[float], token: int, reach: int, atol: float) -> None:
    """Raise AssertionError if a place that should notice a changed token did not."""
    for place in range(token, min(token + reach, len(change))):
        if change[place] <= atol:
            raise AssertionError(
                f"token {token} did not reach token {place}: its result stayed the same when "
                f"token {token} was changed"
            )
