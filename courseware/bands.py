"""Loss bands: is a training run all right?

A band is the mean and the spread of a run's losses over several seeds, at fixed steps. It is recorded once, with

    python -m courseware.bands record 04_baselines

and kept in `courseware/loss_bands/`. `compare_run` lays a reader's history on it and, where the history
leaves the band, names what is most likely wrong.

A history is a list of {"step": int, "train_loss": float | None, "val_loss": float | None}, in nats per token.

How wide is a band? Ten seeds estimate a mean and a standard deviation s; one new run then lies within
4.78 * sqrt(1 + 1/10) * s = 5.0 s of that mean with probability 99.9 per cent (Student's t, 9 degrees of freedom), so
a sound run almost never leaves it at any of its sixteen points. Fewer seeds make a wider band. Another processor
or version of torch adds in another order; for this no band is narrower than 0.2 per cent of the loss on either side.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from courseware import paths
from courseware.diagnosis import likely_causes

FOLDER = paths.CODE / "courseware" / "loss_bands"
# Student's t at 99.9 per cent for 5, 6, ... seeds; see above. From ten on, that of ten.
STUDENT = {5: 8.61, 6: 6.87, 7: 5.96, 8: 5.41, 9: 5.04, 10: 4.78}
FLOOR = 0.002  # of the mean
MIN_SEEDS = 5
CURVES = {"train_loss": "train", "val_loss": "valid"}  # a history's key and its colour


@dataclass(frozen=True)
class Verdict:
    """What `compare_run` found: `ok`, the likely `causes` (most likely first), and a sentence."""

    ok: bool
    causes: list[str]
    summary: str

    def __str__(self) -> str:
        return "\n".join([self.summary, *(f"  {i}. {c}" for i, c in enumerate(self.causes, 1))])


def record_band(
    name: str, runs: list[list[dict]], path: Path | None = None, **metadata: object
) -> dict:
    """Write the band of `runs`, one history for each seed, and return it.

    ValueError if there are fewer than five runs, if they differ in their steps, or if a loss is not finite.
    """
    if len(runs) < MIN_SEEDS:
        raise ValueError(f"expected at least {MIN_SEEDS} runs for a band, got {len(runs)}")
    steps = [record["step"] for record in runs[0]]
    if not steps or any([record["step"] for record in run] != steps for run in runs):
        raise ValueError("expected runs with the same steps; record each with the same settings")
    band = {"name": name, "seeds": len(runs), "steps": steps, **metadata}
    for key in CURVES:
        columns = list(zip(*[[record.get(key) for record in run] for run in runs], strict=True))
        if any(loss is None for column in columns for loss in column):
            continue
        if not all(math.isfinite(loss) for column in columns for loss in column):
            raise ValueError(f"a {key} is not finite; a band is made of sound runs")
        band[key] = {
            "mean": [round(statistics.fmean(column), 5) for column in columns],
            "std": [round(statistics.stdev(column), 6) for column in columns],
        }
    target = path or FOLDER / f"{name}.json"
    paths.write_atomic(target, json.dumps(band, indent=1) + "\n")
    return band


def origin(command: str) -> dict:
    """Return what a recorded band says of itself: the command, the date, the machine, the versions."""
    import torch

    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()}-core CPU, {platform.machine()}, {platform.system()}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def load_band(name: str, path: Path | None = None) -> dict:
    """Read a band; ValueError names the bands there are."""
    target = path or FOLDER / f"{name}.json"
    if not target.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json"))) or "none"
        raise ValueError(f"expected the name of a recorded band ({known}), got {name!r}")
    return json.loads(target.read_text(encoding="utf-8"))


def half_widths(curve: dict, seeds: int = 10) -> list[float]:
    """Return how far a sound run may lie from the mean at each step, in nats, in a band of so many seeds."""
    seeds = min(seeds, 10)
    width = STUDENT[seeds] * math.sqrt(1 + 1 / seeds)
    return [max(width * s, FLOOR * m) for m, s in zip(curve["mean"], curve["std"], strict=True)]


def compare_run(
    history: list[dict], name: str, show: bool = True, path: Path | None = None
) -> Verdict:
    """Compare a run with its recorded band; draw both and print the verdict unless `show` is False.

    Only the steps that both have are compared. ValueError if there is none.
    """
    band = load_band(name, path)
    excess = _excess(history, band)
    if not excess:
        got = [record["step"] for record in history if any(record.get(key) for key in CURVES)]
        raise ValueError(
            f"expected losses at steps {band['steps']} of the band {name!r}, got losses at steps "
            f"{got}; keep the chapter's `eval_every`"
        )
    verdict = _judge(band, excess)
    if show:
        print(verdict)
        _draw(history, band, verdict)
    return verdict


def _excess(history: list[dict], band: dict) -> dict[str, list[tuple[float, float]]]:
    """Return for each curve, at each shared step, (loss - mean, the same in half-widths)."""
    at = {record["step"]: record for record in history}
    found: dict[str, list[tuple[float, float]]] = {}
    for key in CURVES:
        if key not in band:
            continue
        rows = zip(
            band["steps"], band[key]["mean"], half_widths(band[key], band["seeds"]), strict=True
        )
        points = [
            (at[step][key] - mean, (at[step][key] - mean) / half)
            for step, mean, half in rows
            if step in at and at[step].get(key) is not None
        ]
        if points:
            found[key] = points
    return found


def _judge(band: dict, excess: dict) -> Verdict:
    points = [point for curve in excess.values() for point in curve]
    outside = sum(not abs(share) <= 1 for _, share in points)  # a nan is outside
    if not outside:
        count = f"all {len(points)} losses lie in the band of {band['seeds']} seeds"
        return Verdict(True, [], f"{band['name']}: a normal run; {count}.")
    causes = likely_causes(band, excess)
    return Verdict(
        False,
        causes,
        f"{band['name']}: {outside} of {len(points)} losses outside the band. Likely:",
    )


def _draw(history: list[dict], band: dict, verdict: Verdict) -> None:
    from matplotlib import pyplot

    from courseware import figures

    figures.style()
    known = [key for key in CURVES if key in band or any(record.get(key) for record in history)]
    fig, axes = pyplot.subplots(1, len(known), figsize=(figures.WIDTH, 3.2), squeeze=False)
    for ax, key in zip(axes[0], known, strict=True):
        colour = CURVES[key]
        title = {"train_loss": "training loss", "val_loss": "validation loss"}[key]
        ax.set(title=title, xlabel="step", ylabel="nats per token")
        if key in band:
            mean, half = band[key]["mean"], half_widths(band[key], band["seeds"])
            low = [m - h for m, h in zip(mean, half, strict=True)]
            high = [m + h for m, h in zip(mean, half, strict=True)]
            colour_of_band = figures.COLOURS["band"]
            ax.fill_between(band["steps"], low, high, color=colour_of_band, label="band", lw=0)
        mine = [(r["step"], r[key]) for r in history if r.get(key) is not None]
        ax.plot(*zip(*mine), color=figures.COLOURS[colour], marker="o", ms=4, label="your run")
        ax.legend()
    last = {
        title: history[-1].get(key)
        for key, title in (("train_loss", "training"), ("val_loss", "validation"))
    }
    ends = ", ".join(f"{title} {loss:.2f}" for title, loss in last.items() if loss is not None)
    place = "inside" if verdict.ok else "outside"
    what = "Two curves" if len(known) == 2 else "A curve"
    figures.show(fig, alt=f"{what} over the steps, ending at {ends}; {place} the shaded band.")


def _shakespeare():
    """Return (vocab_size, (train_tokens, val_tokens)): all the plays in characters."""
    import torch

    from minigpt_lib.char_tokenizer import CharTokenizer
    from minigpt_lib.data import load_text, train_val_split

    text = load_text()
    tokenizer = CharTokenizer.from_text(text)
    return tokenizer.vocab_size, train_val_split(torch.tensor(tokenizer.encode(text)))


def _run_baselines(seed: int) -> list[dict]:
    """Chapter 04's run, as its notebook does it."""
    import torch

    from minigpt_lib.baselines import MLPLM, train_baseline

    vocab_size, parts = _shakespeare()
    torch.manual_seed(seed)
    return train_baseline(MLPLM(vocab_size), *parts, seed=seed)


def training_config(seed: int = 0, **changes):
    """Return the settings of chapter 10's run."""
    from minigpt_lib.training import TrainConfig

    return TrainConfig(
        steps=1500, batch_size=16, block_size=128, eval_tokens=50_000, seed=seed, **changes
    )  # fmt: skip


def _run_training(seed: int) -> list[dict]:
    """Chapter 10's run, as its notebook does it."""
    import torch

    from minigpt_lib.model import GPTConfig, MiniGPT
    from minigpt_lib.training import Trainer

    vocab_size, parts = _shakespeare()
    torch.manual_seed(seed)
    model = MiniGPT(GPTConfig.preset("laptop", vocab_size=vocab_size))
    history = Trainer(model, training_config(seed, progress=False), *parts).train()
    return [record for record in history if "train_loss" in record]


RECIPES: dict[str, Callable[[int], list[dict]]] = {
    "04_baselines": _run_baselines,
    "10_training": _run_training,
}
SETTINGS = {"10_training": {"warmup_steps": 100}}  # what the diagnosis asks about


def main(arguments: list[str] | None = None) -> int:
    """Record a band, or list those there are."""
    parser = argparse.ArgumentParser(prog="python -m courseware.bands", description=main.__doc__)
    parser.add_argument("action", choices=["record", "list"])
    parser.add_argument("name", nargs="?", choices=sorted(RECIPES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at the same time, a thread each"
    )
    chosen = parser.parse_args(arguments)
    if chosen.action == "list":
        print("\n".join(sorted(file.stem for file in FOLDER.glob("*.json"))))
        return 0
    if chosen.name is None:
        parser.error("record needs the name of a band")
    import torch

    context, runs = multiprocessing.get_context("spawn"), []
    with context.Pool(chosen.workers, torch.set_num_threads, (1,)) as pool:
        for run in pool.imap(RECIPES[chosen.name], range(chosen.seeds)):
            print(f"seed {len(runs)}: {run[-1]}", flush=True)
            runs.append(run)
    band = record_band(
        chosen.name,
        runs,
        **origin(f"python -m courseware.bands record {chosen.name} --seeds {chosen.seeds}"),
        **SETTINGS.get(chosen.name, {}),
    )
    for key in CURVES:
        print(f"{key}: {band[key]['mean'][-1]:.4f} ± {band[key]['std'][-1]:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
