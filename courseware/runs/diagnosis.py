"""Name the likely causes of a training run that leaves its band.

Each mistake has its own shape. Without the shift between inputs and targets, the loss is far too good. If the
validation text was seen in training, the training loss is normal and the validation loss is better than it can be.
A mask that lets the future through makes both losses far too good. With a learning rate that is too low, the loss
starts above the band and creeps towards it; with one that is too high, it jumps up and down above the band, or
starts fast and then stays behind. Without warm-up, only the beginning differs.

A curve of rewards has shapes of its own, see `causes_of_rewards`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

HIGH_RATE = "learning rate too high: the loss {} Try a third of it."
LOW_RATE = (
    "learning rate too low: the loss is still above the band and falling. Try three times as much."
)
NO_SHIFT = (
    "the targets are not shifted, or backwards: the model copies its input, so its loss is far too good. "
    "y must be the text one token further on than x."
)
NO_MASK = (
    "the model sees the future: both losses are far too good. Is the causal mask missing, transposed, "
    "or off by one?"
)
NO_WARMUP = (
    "no warm-up, or a warm-up counted in micro-batches: the run starts faster than usual and then continues "
    "normally. Harmless here, but at a higher learning rate the same run would diverge."
)
WRONG_SHIFT = (
    "training and validation use different targets: the training loss is normal, the validation loss is not. "
    "Are the training targets the previous tokens instead of the next ones?"
)
TWICE_SHIFTED = (
    "the targets are shifted twice: the model learns the token after the next one. "
    "Shift in the batch or in the model, not in both."
)
LITTLE_TEXT = (
    "too little training text: the training loss is better than normal, the validation loss is worse. "
    "Was the text cut short, or were the two parts of the split swapped?"
)
ON_VALIDATION = (
    "trained on the validation text: both losses are lower than an honest run can reach. "
    "Pass the training part to the training function."
)
LEAK = (
    "the validation text was seen in training, or is not the course's: the training loss is normal, but the "
    "validation loss is better than an honest run can reach. Split before you train."
)
FASTER = (
    "a higher learning rate or a larger model than the chapter's: the run starts faster and ends the same, "
    "which is not a mistake."
)
OTHER = "a different text, tokenizer or model size from the chapter's: no common mistake looks like this."

TURNED = (
    "the sign is turned: right answers become rarer. Is there a minus in front of the loss, and does the "
    "advantage say how much better than its group an answer is, not how much worse?"
)
OTHER_REWARD = (
    "another reward than the chapter's, or other questions: the first answers, from before any update, are "
    "already rewarded more than right ones would be. Such a reward can be gamed: read the answers."
)
GAMED = (
    "a reward that can be gamed: the reward rises, but hardly an answer shows a step any more. Read the "
    "answers, and measure something that is not rewarded."
)
TOO_GOOD = (
    "too good for right answers, which are drawn at random and slip now and then: the reward can be gamed. "
    "Read the answers, and measure something that is not rewarded."
)
ASTRAY = (
    "the model has gone astray: the reward jumped up and fell again. The learning rate is too high, and no "
    "leash holds the model near the one it started from. Try a tenth of the rate."
)
SLOW = (
    "hardly anything is learned: the reward rises too slowly. Is the learning rate too low, are the "
    "demonstrations missing, or do the advantages not compare answers to the same question?"
)
OTHER_MODEL = (
    "another model, other questions or other demonstrations than the chapter's: no common mistake looks "
    "like this."
)


class Point(NamedTuple):
    """How far a loss lies above the mean of its band (below: negative), in two units."""

    nats: float
    widths: float  # half-widths of the band; from -1 to 1 is inside


def likely_causes(band: Mapping[str, Any], excess: Mapping[str, Sequence[Point]]) -> list[str]:
    """Return what is most likely wrong with a run, the likeliest cause first.

    excess: the points of "train_loss" and "val_loss", one or both, one point for each step. Every rule below is proved
    by a test that trains the mistake.
    """
    if not all(math.isfinite(point.nats) for curve in excess.values() for point in curve):
        return [HIGH_RATE.format("is no longer a number.")]

    causes = _copying(band, excess) or _wrong_parts(excess)
    if causes:
        return causes

    key = "val_loss" if "val_loss" in excess else "train_loss"
    if band.get("warmup_steps") and _only_starts_faster(excess, key):
        return [NO_WARMUP, FASTER]
    return _rate(excess[key], band[key]["mean"][: len(excess[key])])


def causes_of_rewards(
    band: Mapping[str, Any], curve: Sequence[Point], steps: Sequence[float] = ()
) -> list[str]:
    """Return what is most likely wrong with a run that learns from rewards, the likeliest cause first.

    curve: how far its mean rewards are off; steps: the share of answers that show a step in each update, if it is
    known. Each rule is proved by a test on runs that were broken on purpose.
    """
    means = band["reward"]["mean"][: len(curve)]
    rewards = [mean + point.nats for mean, point in zip(means, curve, strict=True)]
    first, last = statistics.fmean(rewards[:2]), statistics.fmean(rewards[-3:])
    rises = last > first + 0.1

    if curve[0].widths > 1:
        return [OTHER_REWARD, GAMED]
    if rises and steps and statistics.fmean(steps[-3:]) < 0.5 * last:
        return [GAMED, OTHER_REWARD]
    if rises and not steps and max(point.widths for point in curve) > 1:
        return [TOO_GOOD, OTHER_MODEL]
    if min(rewards) < 0:
        return [TURNED, OTHER_REWARD]
    if not rises and (_collapses(rewards, 0.05) or (steps and _collapses(steps, 0.2))):
        return [ASTRAY, TURNED]
    if last < first or (not rises and steps and _fades(steps)):
        return [TURNED, SLOW]
    if curve[-1].widths < 0:
        return [SLOW, TURNED]
    return [OTHER_MODEL]


def _collapses(shares: Sequence[float], least: float) -> bool:
    """Return whether shares jump up by twice `least` in the first half, and later fall from there by `least`."""
    peak = max(shares[: max(1, len(shares) // 2)])
    return peak > shares[0] + 2 * least and statistics.fmean(shares[-3:]) < peak - least


def _fades(steps: Sequence[float]) -> bool:
    """Return whether answers that show a step become rarer."""
    return statistics.fmean(steps[-3:]) < 0.5 * statistics.fmean(steps[:2])


def _copying(band: Mapping[str, Any], excess: Mapping[str, Sequence[Point]]) -> list[str]:
    """Return the causes if a final loss is so low (half the mean) that the model must see its targets."""
    copied = [key for key, curve in excess.items() if curve[-1].nats < -0.5 * band[key]["mean"][-1]]
    if not copied:
        return []

    is_transformer = "warmup_steps" in band  # only a transformer has a mask that can be missing
    if is_transformer and "val_loss" in copied:
        return [NO_MASK, NO_SHIFT]
    return [NO_SHIFT]


def _wrong_parts(excess: Mapping[str, Sequence[Point]]) -> list[str]:
    """Return the causes if training and validation differ from their bands in different ways, or are both too good."""
    unknown = [Point(0.0, 0.0)]
    train = excess.get("train_loss") or unknown
    valid = excess.get("val_loss") or unknown
    trained = _side(train)
    tested = _side(valid) if "val_loss" in excess else trained
    gap = valid[-1].nats - train[-1].nats  # how much further off validation is than training

    if tested == 1 and trained == 0 and gap > 0.05:
        return [WRONG_SHIFT, LITTLE_TEXT]
    if tested == 1 and trained == -1:
        return [LITTLE_TEXT]
    if tested == 1 and trained == 1 and gap > 0.2:
        return [TWICE_SHIFTED, WRONG_SHIFT]
    if tested == -1 and trained == -1:
        return [ON_VALIDATION, LEAK]
    if tested == -1:
        return [LEAK, ON_VALIDATION]
    return []


def _only_starts_faster(excess: Mapping[str, Sequence[Point]], key: str) -> bool:
    """Return whether a run begins below its band, much more so at the first step than later, and ends inside it."""
    start = excess.get("train_loss", excess[key])
    ends_inside = excess[key][-1].widths <= 1
    return ends_inside and start[0].widths < min(-1, 2 * start[1].widths)


def _side(curve: Sequence[Point]) -> int:
    """Return 1 if a curve as a whole lies above its band, -1 if below, 0 if neither.

    The errors of n points partly cancel, so their mean is compared with a width that is sqrt(n) times smaller; this
    detects a small shift that no single point proves. Only the second half counts, where runs are steady.
    """
    later = [point.widths for point in curve[len(curve) // 2 :]]
    combined = statistics.fmean(later) * math.sqrt(len(later))
    return (combined > 1) - (combined < -1)


def _rate(curve: Sequence[Point], mean: Sequence[float]) -> list[str]:
    """Tell a learning rate that is too high, which makes the loss jump, from one that is too low, which creeps.

    mean: the band's mean at the same steps, in nats.
    """
    first, last = curve[0], curve[-1]
    losses = [middle + point.nats for middle, point in zip(mean, curve, strict=True)]
    rises = sum(later > before for before, later in pairwise(losses))
    stands_still = losses[0] - losses[-1] < 0.1 * last.nats

    if last.widths > 1:
        if rises >= 2 or (rises and stands_still):
            return [HIGH_RATE.format("jumps up and down above the band."), OTHER]
        if first.widths < 0:
            return [HIGH_RATE.format("falls fast at first and then stays above the band."), OTHER]
        return [LOW_RATE, OTHER]

    if first.widths > 1:
        return [HIGH_RATE.format("was above the band until the rate had fallen."), LOW_RATE]
    return [FASTER, OTHER]
