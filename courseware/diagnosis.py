"""Name the likely causes of a training run that leaves its band.

Each mistake has its own shape. A missing shift makes the loss far too good. A validation text that was seen in
training leaves the training loss normal and makes validation better than it can be. A mask that lets the future
through makes both losses far too good. A learning rate that is too low starts above the band and creeps towards
it; one that is too high jumps up and down above it, or starts fast and then stays behind. Without a warm-up only the
beginning is different.
"""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

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
    "no warm-up, or one counted in micro-batches: the run starts faster than usual and then goes its usual way. "
    "Harmless here; at a higher learning rate the same run breaks."
)
WRONG_SHIFT = (
    "training and validation ask for different targets: the training loss is normal, the validation "
    "loss is not. Are the training targets the tokens before instead of after?"
)
TWICE_SHIFTED = (
    "the targets are shifted twice: the model learns the token after the next one. "
    "Shift in the batch or in the model, not in both."
)
LITTLE_TEXT = (
    "too little training text: the training loss is better than normal, the validation loss is worse. "
    "Was the text cut short, or the split turned round?"
)
ON_VALIDATION = (
    "trained on the validation text: both losses are lower than an honest run can reach. "
    "Pass the training part to the training function."
)
LEAK = (
    "the validation text was seen in training, or is not the course's: training is normal, but "
    "validation is better than an honest run can reach. Split before you train."
)
FASTER = (
    "a higher learning rate or a larger model than the chapter's: it starts faster and ends the same, "
    "which is no mistake."
)
OTHER = (
    "another text, tokenizer or model size than the chapter's: no usual mistake looks like this."
)


def likely_causes(band: dict, excess: dict) -> list[str]:
    """Name what is most likely wrong, the likeliest first.

    excess: for "train_loss" and "val_loss", as far as known, a list of (loss - mean of the band, the same in
    half-widths of the band), one for each step. Every rule below is proved by a test that trains the mistake.
    """
    if not all(math.isfinite(difference) for curve in excess.values() for difference, _ in curve):
        return [HIGH_RATE.format("is no longer a number.")]
    train, valid = (excess.get(key) or [(0.0, 0.0)] for key in ("train_loss", "val_loss"))
    copied = {key: curve[-1][0] < -0.5 * band[key]["mean"][-1] for key, curve in excess.items()}
    if any(copied.values()):
        sees_future = copied.get("val_loss") and "warmup_steps" in band  # a transformer's
        return [NO_MASK, NO_SHIFT] if sees_future else [NO_SHIFT]
    trained, tested = _side(train), _side(valid)
    if "val_loss" not in excess:
        tested = trained
    gap = valid[-1][0] - train[-1][0]  # how much farther validation is off than training
    if tested == 1 and trained == 0 and gap > 0.05:
        return [WRONG_SHIFT, LITTLE_TEXT]
    if tested == 1 and trained == -1:
        return [LITTLE_TEXT]
    if tested == 1 and trained == 1 and gap > 0.2:
        return [TWICE_SHIFTED, WRONG_SHIFT]
    if tested == -1:
        return [ON_VALIDATION, LEAK] if trained == -1 else [LEAK, ON_VALIDATION]
    key = "val_loss" if "val_loss" in excess else "train_loss"
    start = excess.get("train_loss", excess[key])
    if (
        band.get("warmup_steps")
        and excess[key][-1][1] <= 1
        and start[0][1] < min(-1, 2 * start[1][1])
    ):
        return [NO_WARMUP, FASTER]
    return _rate(excess[key], band[key]["mean"][: len(excess[key])])


def _side(curve: list[tuple[float, float]]) -> int:
    """Return 1 if a curve lies above its band on the whole, -1 if below, 0 if neither.

    The errors of n points cancel in part, so their mean is judged by a width that is sqrt(n) smaller: this
    sees a small shift that no single point proves. Only the later half counts, where runs are steady.
    """
    later = [share for _, share in curve[len(curve) // 2 :]]
    combined = statistics.fmean(later) * math.sqrt(len(later))
    return (combined > 1) - (combined < -1)


def _rate(curve: list[tuple[float, float]], mean: list[float]) -> list[str]:
    """Tell too high a learning rate, which jumps up and down, from too low a one, which creeps."""
    own = [m + difference for m, (difference, _) in zip(mean, curve, strict=True)]
    rises = sum(later > before for before, later in pairwise(own))
    standing = own[0] - own[-1] < 0.1 * curve[-1][0]
    if curve[-1][1] > 1:
        if rises >= 2 or (rises and standing):
            return [HIGH_RATE.format("jumps up and down above the band."), OTHER]
        if curve[0][1] < 0:
            return [HIGH_RATE.format("falls fast at first and then stays above the band."), OTHER]
        return [LOW_RATE, OTHER]
    if curve[0][1] > 1:
        return [HIGH_RATE.format("was above the band until the rate had fallen."), LOW_RATE]
    return [FASTER, OTHER]
