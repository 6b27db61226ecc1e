"""Read the ledger of ablations: what each choice of the model does to the loss, and what is only noise.

`python benchmarks/ablations.py` makes the runs: every combination of FACTORS, each with several seeds. The effect of
a level, such as norm "rms", is the mean loss of the models that have it, minus the mean loss of those that have the
factor's first level, everything else being equal. Its uncertainty comes from the seeds alone: the standard deviation
between runs that differ only in the seed, pooled over all combinations, gives a 95% interval for the difference of
the two means.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from courseware import paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Run = dict[str, Any]  # a line of the ledger, a JSON object

RESULTS = paths.ROOT / "benchmarks" / "results" / "ablations.jsonl"
FACTORS: dict[str, tuple[str | bool, ...]] = {
    "position": ("learned", "sinusoidal", "rope"),
    "norm": ("layer", "rms"),
    "ffn": ("gelu", "relu2", "swiglu"),
    "tie_weights": (True, False),
}
MIN_FREEDOM = 10  # degrees of freedom, below which a standard deviation is too uncertain to be used


@dataclass(frozen=True)
class Effect:
    """What changing a factor from its first level to `level` does; losses in nats per character."""

    factor: str
    level: str | bool
    runs: int
    loss: float  # mean validation loss of the runs with this level
    minutes: float  # mean processor time for training one of them
    difference: float | None  # None for the first level itself
    interval: float | None  # half the width of the 95% interval

    @property
    def verdict(self) -> str:
        """Return "better", "worse" or "within noise"; "-" for the first level, which is the reference."""
        if self.difference is None or self.interval is None:
            return "-"
        if abs(self.difference) <= self.interval:
            return "within noise"
        return "better" if self.difference < 0 else "worse"


def key(result: Run) -> tuple[str | bool | int, ...]:
    """Return what identifies a run: its levels and its seed."""
    return (*_levels(result), result["seed"])


def _levels(run: Run) -> tuple[str | bool, ...]:
    return tuple(run[factor] for factor in FACTORS)


def load(path: Path = RESULTS) -> list[Run]:
    """Return the runs of a ledger; ValueError names the first line that is not a run."""
    runs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            runs.append(_parse(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path.name}, line {number}: expected a run as benchmarks/ablations.py writes it, "
                f"got {line[:60]!r} ({error!r}); delete the line and run the script again."
            ) from None
    return runs


def _parse(line: str) -> Run:
    """Return the run in a line; KeyError, TypeError or ValueError if a field is missing or is not a number."""
    run = json.loads(line)
    key(run)
    float(run["val_loss"])
    float(run["minutes"])
    return run


def seed_spread(runs: Sequence[Run]) -> tuple[float, int]:
    """Return the pooled standard deviation of the loss between seeds, and its degrees of freedom.

    Raises ValueError if there are too few runs of the same model.
    """
    cells = _losses_by_model(runs).values()
    squares = sum(_squares_about_mean(losses) for losses in cells)
    freedom = sum(len(losses) - 1 for losses in cells)
    if freedom < MIN_FREEDOM:
        raise ValueError(
            f"{len(runs)} runs are too few for a standard deviation: expected several seeds of each "
            "model. Run benchmarks/ablations.py again."
        )
    return math.sqrt(squares / freedom), freedom


def _squares_about_mean(losses: Sequence[float]) -> float:
    mean = sum(losses) / len(losses)
    return sum((loss - mean) ** 2 for loss in losses)


def effects(runs: Sequence[Run]) -> list[Effect]:
    """Return the effect of each level of each factor, in the order of FACTORS.

    Raises ValueError if there are too few runs, or not equally many of each level.
    """
    spread, freedom = seed_spread(runs)
    quantile = _student(freedom)

    table = []
    for factor, levels in FACTORS.items():
        groups = {level: [run for run in runs if run[factor] == level] for level in levels}
        sizes = {level: len(group) for level, group in groups.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"the ledger is unfinished: runs by {factor}: {sizes}, expected equally many of each. "
                "Run benchmarks/ablations.py again."
            )

        first = groups[levels[0]]
        for level, group in groups.items():
            loss = _mean(group, "val_loss")
            difference: float | None = None
            interval: float | None = None
            if level != levels[0]:
                difference = loss - _mean(first, "val_loss")
                interval = quantile * spread * math.sqrt(1 / len(group) + 1 / len(first))
            minutes = _mean(group, "minutes")
            table.append(Effect(factor, level, len(group), loss, minutes, difference, interval))
    return table


def report(runs: Sequence[Run]) -> str:
    """Return the ledger as Markdown: a table of effects, the noise between seeds, the best and the worst model."""
    spread, freedom = seed_spread(runs)
    lines = [
        "| choice | level | mean loss | difference from the first level, with 95 % interval | verdict "
        "| minutes per run |",
        "|---|---|--:|--:|---|--:|",
    ]
    for e in effects(runs):
        change = "" if e.difference is None else f"{e.difference:+.4f} ± {e.interval:.4f}"
        lines.append(
            f"| {e.factor} | {e.level} | {e.loss:.4f} | {change} | {e.verdict} | {e.minutes:.2f} |"
        )

    cells = _losses_by_model(runs)
    ranked = sorted((sum(losses) / len(losses), levels) for levels, losses in cells.items())
    best, worst = ranked[0], ranked[-1]
    lines += [
        "",
        f"{len(runs)} runs of {len(cells)} models. From seed to seed, the loss of the same model has a "
        f"standard deviation of {spread:.4f} nats ({freedom} degrees of freedom).",
        "",
        f"Best: {_name(best[1])}, {best[0]:.4f}. Worst: {_name(worst[1])}, {worst[0]:.4f}.",
    ]
    return "\n".join(lines)


def _name(levels: Sequence[str | bool]) -> str:
    words = {True: "tied", False: "untied"}  # of tie_weights, the only factor that is a switch
    return " · ".join(words[level] if isinstance(level, bool) else level for level in levels)


def figure(runs: Sequence[Run]) -> Figure:
    """Return a matplotlib figure: each effect as a dot with its 95% interval; the line at 0 means no change."""
    import matplotlib.pyplot as plt

    from courseware.widgets.figures import COLOURS

    shown = [effect for effect in effects(runs) if effect.difference is not None]
    shown.reverse()  # the first one at the top
    fig, axes = plt.subplots(figsize=(4.6, 0.42 * len(shown) + 1.3))
    axes.axvline(0, color=COLOURS["reference"], linestyle="--", linewidth=1)
    for row, effect in enumerate(shown):
        assert effect.difference is not None  # the reference levels were left out above
        colour = COLOURS["residual" if effect.verdict == "within noise" else "query"]
        axes.errorbar(
            effect.difference, row, xerr=effect.interval, fmt="o", color=colour, capsize=4
        )

    names = [f"{e.factor} {e.level},\nnot {FACTORS[e.factor][0]}" for e in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set_xlabel("change of validation loss\n(nats per character)")
    return fig


def _losses_by_model(runs: Sequence[Run]) -> dict[tuple[str | bool, ...], list[float]]:
    cells = defaultdict(list)
    for run in runs:
        cells[_levels(run)].append(run["val_loss"])
    return cells


def _mean(runs: Sequence[Run], name: str) -> float:
    return sum(run[name] for run in runs) / len(runs)


def _student(freedom: int) -> float:
    """Return the 97.5% point of Student's t distribution, by the expansion of Abramowitz and Stegun (26.7.5)."""
    z = 1.959964  # the 97.5% point of the normal distribution
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
