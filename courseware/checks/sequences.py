"""Check that a sequence, such as chunks, merges or token ids, is that of a reference, and say where it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_AROUND = 2  # how many items are shown before and after the first difference


def same_sequence(
    ours: Sequence[Any],
    theirs: Sequence[Any],
    *,
    what: str,
    show: Callable[[Any], object] = lambda item: item,
) -> None:
    """Check that two sequences have equal items, and show the first place where they differ.

    what: how the message calls the sequence. show: turns an item into what a reader understands, such as an id into
    its token. Raises AssertionError with the items around the first difference on both sides; also if both sequences
    are empty, because then nothing was checked.

    >>> same_sequence(["ab", "c"], ["a", "bc"], what="chunks")
    Traceback (most recent call last):
    AssertionError: chunks: number 0 of 2 differs: expected 'a', 'bc', got 'ab', 'c'
    """
    if not len(ours) and not len(theirs):
        raise AssertionError(f"{what}: expected items to compare, got none on both sides")
    if len(ours) == len(theirs) and all(mine == other for mine, other in zip(ours, theirs)):
        return

    common = min(len(ours), len(theirs))
    place = next((i for i in range(common) if ours[i] != theirs[i]), common)
    raise AssertionError(
        f"{what}: number {place} of {len(theirs)} differs: expected {_around(theirs, place, show)}, "
        f"got {_around(ours, place, show)}"
    )


def _around(items: Sequence[Any], place: int, show: Callable[[Any], object]) -> str:
    """Return the items around a place, with dots where there are more."""
    start = max(place - _AROUND, 0)
    stop = place + _AROUND + 1
    shown = [repr(_shown(item, show)) for item in items[start:stop]]
    before = ["…"] if start else []
    after = ["…"] if stop < len(items) else []
    return ", ".join(before + shown + after) or "nothing"


def _shown(item: Any, show: Callable[[Any], object]) -> object:
    """Return an item as `show` says it, or as it is if it is nothing that `show` knows."""
    try:
        return show(item)
    except Exception:
        return item
