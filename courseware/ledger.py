"""Read the ledger of ablations: what each choice of the model does to the loss, and what is only noise.

The runs are made by `python benchmarks/ablations.py`: every combination of FACTORS with several seeds. The
effect of a level, such as norm "rms", is the mean loss of the models that have it minus the mean loss of those
that have the factor's first level, everything else alike. Its uncertainty comes from the seeds alone: the
spread between runs that differ in nothing but the seed, pooled over all combinations, gives a 95 % interval for
the difference of the two means.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from courseware import paths

RESULTS = paths.ROOT / "benchmarks" / "results" / "ablations.jsonl"
FACTORS = {
    "position": ("learned", "sinusoidal", "rope"),
    "norm": ("layer", "rms"),
    "ffn": ("gelu", "relu2", "swiglu"),
    "tie_weights": (True, False),
}


@dataclass(frozen=True)
class Effect:
    """What changing a factor from its first level to `level` does; loss in nats per character."""

    factor: str
    level: object
    runs: int
    loss: float  # mean validation loss of the runs with this level
    minutes: float  # mean processor time of a run's training
    difference: float | None  # None for the first level itself
    interval: float | None  # half the width of the 95 % interval

    @property
    def verdict(self) -> str:
        """Return "better", "worse" or "within noise", or "-" for what the others are compared with."""
        if self.difference is None:
            return "-"
        if abs(self.difference) <= self.interval:
            return "within noise"
        return "better" if self.difference < 0 else "worse"


def key(result: dict) -> tuple:
    """Return what tells a run from all others: its levels and its seed."""
    return (*(result[factor] for factor in FACTORS), result["seed"])


def load(path: Path = RESULTS) -> list[dict]:
    """Return the runs of a ledger. ValueError, naming the line, for one that is not a run."""
    runs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            run = json.loads(line)
            key(run), float(run["val_loss"]), float(run["minutes"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path.name}, line {number}: expected a run as benchmarks/ablations.py writes it, "
                f"got {line[:60]!r} ({error!r}); delete the line and run the script again."
            ) from None
        runs.append(run)
    return runs


def seed_spread(runs: list[dict]) -> tuple[float, int]:
    """Return the standard deviation of the loss from seed to seed, pooled, and its degrees of freedom."""
    cells = _losses_by_model(runs)
    squares = sum(sum((x - sum(c) / len(c)) ** 2 for x in c) for c in cells.values())
    freedom = sum(len(cell) - 1 for cell in cells.values())
    if freedom < 10:
        raise ValueError(
            f"{len(runs)} runs are too few for a spread: expected several seeds of each model. Run "
            "benchmarks/ablations.py again."
        )
    return math.sqrt(squares / freedom), freedom


def effects(runs: list[dict]) -> list[Effect]:
    """Return the effect of each level of each factor, in the order of FACTORS."""
    spread, freedom = seed_spread(runs)
    table = []
    for factor, levels in FACTORS.items():
        groups = {level: [run for run in runs if run[factor] == level] for level in levels}
        sizes = {level: len(group) for level, group in groups.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"the ledger is unfinished: runs by {factor}: {sizes}, expected as many of each. Run "
                "benchmarks/ablations.py again."
            )
        first = groups[levels[0]]
        for level, group in groups.items():
            loss, base = _mean(group, "val_loss"), _mean(first, "val_loss")
            half = _student(freedom) * spread * math.sqrt(1 / len(group) + 1 / len(first))
            compared = (None, None) if group is first else (loss - base, half)
            table.append(
                Effect(factor, level, len(group), loss, _mean(group, "minutes"), *compared)
            )
    return table


def report(runs: list[dict]) -> str:
    """Return the ledger as Markdown: a table of effects, the spread between seeds, the best and the worst model."""
    spread, freedom = seed_spread(runs)
    lines = [
        "| choice | level | mean loss | against the first level, with 95 % interval | verdict | minutes a run |",
        "|---|---|--:|--:|---|--:|",
    ]
    for e in effects(runs):
        change = "" if e.difference is None else f"{e.difference:+.4f} ± {e.interval:.4f}"
        lines.append(
            f"| {e.factor} | {e.level} | {e.loss:.4f} | {change} | {e.verdict} | {e.minutes:.2f} |"
        )
    cells = _losses_by_model(runs)
    ranked = sorted((sum(losses) / len(losses), cell) for cell, losses in cells.items())
    name = " · ".join
    best, worst = ranked[0], ranked[-1]
    lines += [
        "",
        f"{len(runs)} runs of {len(cells)} models. From seed to seed the loss of the same model spreads by "
        f"{spread:.4f} nats (standard deviation, {freedom} degrees of freedom).",
        "",
        f"Best: {name(map(str, best[1]))}, {best[0]:.4f}. Worst: {name(map(str, worst[1]))}, {worst[0]:.4f}.",
    ]
    return "\n".join(lines)


def figure(runs: list[dict]):
    """Return a matplotlib figure: each effect as a dot with its 95 % interval, 0 as the line of no change."""
    import matplotlib.pyplot as plt

    from courseware.figures import COLOURS

    shown = [effect for effect in effects(runs) if effect.difference is not None]
    fig, axes = plt.subplots(figsize=(7, 0.42 * len(shown) + 1.1))
    axes.axvline(0, color=COLOURS["reference"], linestyle="--", linewidth=1)
    for row, effect in enumerate(reversed(shown)):
        noise = effect.verdict == "within noise"
        colour = COLOURS["residual" if noise else "query"]
        axes.errorbar(
            effect.difference, row, xerr=effect.interval, fmt="o", color=colour, capsize=4
        )
    names = [f"{e.factor} {e.level}, not {FACTORS[e.factor][0]}" for e in reversed(shown)]
    axes.set_yticks(range(len(shown)), names)
    axes.set_xlabel("change of the validation loss (nats per character)")
    return fig


def _losses_by_model(runs: list[dict]) -> dict[tuple, list[float]]:
    cells = defaultdict(list)
    for run in runs:
        cells[key(run)[:-1]].append(run["val_loss"])
    return cells


def _mean(runs: list[dict], name: str) -> float:
    return sum(run[name] for run in runs) / len(runs)


def _student(freedom: int) -> float:
    """Return the 97.5 % point of Student's t distribution, by the expansion of Abramowitz and Stegun (26.7.5)."""
    z = 1.959964
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + terms[0] / freedom + terms[1] / freedom**2
