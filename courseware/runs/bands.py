"""Bands: is a training run all right?

A band holds the mean and the standard deviation of a run's losses over several seeds, at fixed steps. Of a run that
learns from rewards it holds the mean reward of each update. It is recorded once, with

    python -m courseware.runs.bands record 04_baselines

and stored in `courseware/runs/recorded/`. `compare_run` compares a learner's history with it and, where the history
leaves the band, names the likely causes.

A history is a list of {"step": int, "train_loss": float | None, "val_loss": float | None}, in nats per token, or of
{"step": int, "reward": float}. The latter may also have "shows a step", the share of answers that show one: it is drawn
and helps to name a cause, but there is no band of it.

How wide is a band? Ten seeds estimate a mean and a standard deviation s. One new run then lies within
4.78 * sqrt(1 + 1/10) * s = 5.0 s of that mean with probability 99.9% (Student's t, 9 degrees of freedom), so a sound
run almost never leaves the band at any of its sixteen points. Fewer seeds make a wider band. Another processor or
version of torch adds numbers in another order, so no band is narrower than 0.2% of the loss on either side. A share of
256 drawn answers has a standard error of up to 0.03, so no band of shares is narrower than 0.05.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from courseware import paths
from courseware.misused import Misused
from courseware.runs import forecast
from courseware.runs.diagnosis import Point, causes_of_rewards, likely_causes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from minigpt_lib.training import TrainConfig

Record = dict[str, Any]  # one step of a history, a JSON object
Band = dict[str, Any]  # what a recorded file holds, a JSON object
T = TypeVar("T")

FOLDER = Path(__file__).resolve().parent / "recorded"
# Student's t at 99.9% (two-sided) for 5, 6, ... 10 seeds; more seeds than ten use the value of ten.
STUDENT = {5: 8.61, 6: 6.87, 7: 5.96, 8: 5.41, 9: 5.04, 10: 4.78}
FLOOR = 0.002  # the least half-width, as a share of the mean; see above
MIN_SEEDS = 5
SHARE_FLOOR = 0.05  # the same for shares; see above
LOSSES = {"train_loss": "train", "val_loss": "valid"}  # a history's key and its colour in figures
STEP = "shows a step"
SHARES = {"reward": "train", STEP: "valid"}  # of runs that learn from rewards
CURVES = LOSSES | SHARES
TITLES = {
    "train_loss": "training",
    "val_loss": "validation",
    "reward": "mean reward",
    STEP: "answers that show a step",
}


@dataclass(frozen=True)
class Verdict:
    """What `compare_run` found: whether the run is `ok`, the likely `causes` (likeliest first), a sentence."""

    ok: bool
    causes: list[str]
    summary: str

    def __str__(self) -> str:
        numbered = [f"  {i}. {cause}" for i, cause in enumerate(self.causes, 1)]
        return "\n".join([self.summary, *numbered])


# --- recorded bands ---


def record_band(
    name: str, runs: Sequence[Sequence[Record]], path: Path | None = None, **metadata: object
) -> Band:
    """Write the band of `runs`, one history for each seed, and return it.

    A curve that some history does not have gets no band. Raises ValueError if there are fewer than five runs, if their
    steps differ, or if a value is not finite.
    """
    if len(runs) < MIN_SEEDS:
        raise ValueError(f"expected at least {MIN_SEEDS} runs for a band, got {len(runs)}")
    steps = [record["step"] for record in runs[0]]
    if not steps or any([record["step"] for record in run] != steps for run in runs):
        raise ValueError("expected runs with the same steps; record each with the same settings")

    band: Band = {"name": name, "seeds": len(runs), "steps": steps, **metadata}
    for key in CURVES:
        losses = [[record.get(key) for record in run] for run in runs]
        columns = list(zip(*losses, strict=True))  # one for each step
        if any(loss is None for column in columns for loss in column):
            continue
        if not all(math.isfinite(loss) for column in columns for loss in column):
            raise ValueError(f"a {key} is not finite; a band is made of sound runs")
        spreads = [mean_and_std(column) for column in columns]
        band[key] = {part: [spread[part] for spread in spreads] for part in ("mean", "std")}

    target = path or FOLDER / f"{name}.json"
    paths.write_atomic(target, json.dumps(band, indent=1) + "\n")
    return band


def mean_and_std(values: Sequence[float]) -> dict[str, float]:
    """Return {"mean", "std"} of the values of at least two seeds, rounded as recorded bands are."""
    return {
        "mean": round(statistics.fmean(values), 5),
        "std": round(statistics.stdev(values), 6),
    }


def origin(command: str) -> dict[str, Any]:
    """Return how a band was recorded: the command, the date, the machine and the versions."""
    import torch

    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()}-core CPU, {platform.machine()}, {platform.system()}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def load_band(name: str, path: Path | None = None) -> Band:
    """Read a recorded band; ValueError lists the bands there are."""
    target = path or FOLDER / f"{name}.json"
    if not target.is_file():
        raise Misused(
            f"expected the name of a recorded band ({', '.join(_recorded()) or 'none'}), got {name!r}"
        )
    return json.loads(target.read_text(encoding="utf-8"))


def _recorded() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def half_widths(
    curve: Mapping[str, Sequence[float]], seeds: int = 10, share: bool = False
) -> list[float]:
    """Return how far a sound run may lie from the mean at each step, in nats or as a share.

    curve: {"mean", "std"}, one value for each step, of a band recorded from `seeds` seeds.
    """
    seeds = min(seeds, 10)
    factor = STUDENT[seeds] * math.sqrt(1 + 1 / seeds)
    pairs = zip(curve["mean"], curve["std"], strict=True)
    return [max(factor * std, SHARE_FLOOR if share else FLOOR * mean) for mean, std in pairs]


# --- comparing a run with its band ---


def compare_run(
    history: Sequence[Record], name: str, show: bool = True, path: Path | None = None
) -> Verdict:
    """Compare a run with its recorded band; print the verdict and draw both, unless `show` is False.

    Only steps that both have are compared, and what you have predicted of the run (`courseware.runs.forecast`) is shown
    beside it. Raises Misused, a ValueError, if no steps are shared, or for what is not a history.
    """
    _refuse_other_than_history(history)
    band = load_band(name, path)
    excess = _excess(history, band)
    if not excess:
        keys = _family(band)
        got = [r["step"] for r in history if any(r.get(key) is not None for key in keys)]
        what = "losses" if keys is LOSSES else 'a "reward"'
        keep = "eval_every" if keys is LOSSES else "learn"
        raise Misused(
            f"expected {what} at steps {band['steps']} of the band {name!r}, got {what} at steps "
            f"{got}; keep the chapter's `{keep}`"
        )

    verdict = _judge(band, excess, history)
    if show:
        print(verdict)
        for line in forecast.compare(history, name):
            print(line)
        _draw(history, band, verdict)
        forecast.see(name)
    return verdict


def _refuse_other_than_history(history: Sequence[Record]) -> None:
    """Refuse what is not a list of records with a step and losses, such as the last record alone."""
    is_list = isinstance(history, (list, tuple))
    if is_list and all(_is_record(record) for record in history):
        return
    raise Misused(
        "expected the whole history of a run, a list of records such as "
        '{"step": 100, "train_loss": 2.7, "val_loss": 2.2}, '
        f"got {type(history).__name__} {str(history)[:60]}. Pass what the training returned."
    )


def _is_record(record: Any) -> bool:
    """Return whether a record of a history has a step, and losses that are numbers."""
    if not isinstance(record, dict) or "step" not in record:
        return False
    losses = [record.get(key) for key in CURVES]
    return all(loss is None or hasattr(loss, "__float__") for loss in losses)


def _family(band: Band) -> dict[str, str]:
    """Return the curves that a band is made of, losses or shares, with their colours."""
    return SHARES if "reward" in band else LOSSES


def _excess(history: Sequence[Record], band: Band) -> dict[str, list[Point]]:
    """Return, for each curve that both have, how far the run is off at each shared step."""
    records = {record["step"]: record for record in history}
    found: dict[str, list[Point]] = {}
    for key in CURVES:
        if key not in band:
            continue

        points = []
        halves = half_widths(band[key], band["seeds"], key in SHARES)
        for step, mean, half in zip(band["steps"], band[key]["mean"], halves, strict=True):
            loss = records.get(step, {}).get(key)
            if loss is not None:
                points.append(Point(nats=loss - mean, widths=(loss - mean) / half))
        if points:
            found[key] = points
    return found


def _judge(band: Band, excess: Mapping[str, Sequence[Point]], history: Sequence[Record]) -> Verdict:
    points = [point for curve in excess.values() for point in curve]
    outside = sum(not abs(point.widths) <= 1 for point in points)  # written so that NaN is outside
    what = "losses" if _family(band) is LOSSES else "mean rewards"
    if not outside:
        count = f"all {len(points)} {what} lie in the band of {band['seeds']} seeds"
        return Verdict(True, [], f"{band['name']}: a normal run; {count}.")

    summary = f"{band['name']}: {outside} of {len(points)} {what} outside the band. Likely:"
    if "reward" in excess:
        looks = [record[STEP] for record in history if record.get(STEP) is not None]
        return Verdict(False, causes_of_rewards(band, excess["reward"], looks), summary)
    return Verdict(False, likely_causes(band, excess), summary)


def _draw(history: Sequence[Record], band: Band, verdict: Verdict) -> None:
    from matplotlib import pyplot

    from courseware.widgets import figures

    figures.style()
    family = _family(band)
    known = [key for key in family if key in band or any(record.get(key) for record in history)]
    fig, axes = pyplot.subplots(1, len(known), figsize=(figures.WIDTH, 3.2), squeeze=False)
    for ax, key in zip(axes[0], known, strict=True):
        _draw_curve(ax, key, history, band)

    ends = [
        f"{TITLES[key]} {history[-1][key]:.2f}" for key in known if history[-1].get(key) is not None
    ]
    what = "Two curves" if len(known) == 2 else "A curve"
    place = "inside" if verdict.ok else "outside"
    figures.show(
        fig, alt=f"{what} over the steps, ending at {', '.join(ends)}; {place} the shaded band."
    )


def _draw_curve(ax: Axes, key: str, history: Sequence[Record], band: Band) -> None:
    from courseware.widgets.figures import COLOURS

    if key in SHARES:
        ax.set(title=TITLES[key], xlabel="update", ylabel="share", ylim=(-0.05, 1.05))
    else:
        ax.set(title=f"{TITLES[key]} loss", xlabel="step", ylabel="nats per token")
    if key in band:
        halves = half_widths(band[key], band["seeds"], key in SHARES)
        pairs = list(zip(band[key]["mean"], halves, strict=True))
        low = [mean - half for mean, half in pairs]
        high = [mean + half for mean, half in pairs]
        if key in SHARES:  # a share cannot leave 0 to 1
            low = [max(0.0, value) for value in low]
            high = [min(1.0, value) for value in high]
        ax.fill_between(band["steps"], low, high, color=COLOURS["band"], label="band", lw=0)

    mine = [(record["step"], record[key]) for record in history if record.get(key) is not None]
    ax.plot(*zip(*mine), color=COLOURS[CURVES[key]], marker="o", ms=4, label="your run")

    predicted = [(f.step, f.value) for f in forecast.firsts(band["name"]) if f.loss == key]
    if predicted:
        style = {"ls": "none", "marker": "D", "ms": 7, "color": COLOURS["reference"]}
        ax.plot(*zip(*predicted), label="your forecast", **style)
    ax.legend()


# --- recording ---


def shakespeare() -> tuple[int, tuple[Tensor, Tensor]]:
    """Return (vocab_size, (train_tokens, val_tokens)) of all the plays, with one token for each character."""
    import torch

    from minigpt_lib.char_tokenizer import CharTokenizer
    from minigpt_lib.data import load_text, train_val_split

    text = load_text()
    tokenizer = CharTokenizer.from_text(text)
    return tokenizer.vocab_size, train_val_split(torch.tensor(tokenizer.encode(text)))


def _run_baselines(seed: int) -> list[Record]:
    """Train as chapter 04's notebook does."""
    import torch

    from minigpt_lib.baselines import MLPLM, train_baseline

    vocab_size, parts = shakespeare()
    torch.manual_seed(seed)
    return train_baseline(MLPLM(vocab_size), *parts, seed=seed)


def training_config(seed: int = 0, **changes: Any) -> TrainConfig:
    """Return the settings of chapter 10's run; `changes` are fields of TrainConfig."""
    from minigpt_lib.training import TrainConfig

    return TrainConfig(
        steps=1500, batch_size=16, block_size=128, eval_tokens=50_000, seed=seed, **changes
    )


def _run_training(seed: int) -> list[Record]:
    """Train as chapter 10's notebook does."""
    import torch

    from minigpt_lib.model import GPTConfig, MiniGPT
    from minigpt_lib.training import Trainer

    vocab_size, parts = shakespeare()
    torch.manual_seed(seed)
    model = MiniGPT(GPTConfig.preset("laptop", vocab_size=vocab_size))
    history = Trainer(model, training_config(seed, progress=False), *parts).train()
    return [record for record in history if "train_loss" in record]


RECIPES: dict[str, Callable[[int], list[Record]]] = {
    "04_baselines": _run_baselines,
    "10_training": _run_training,
}
SETTINGS = {"10_training": {"warmup_steps": 100}}  # what the diagnosis needs to know about a run


def run_seeds(run: Callable[[int], T], seeds: int, workers: int) -> Iterator[T]:
    """Yield run(0), run(1), ... in this order, computed in `workers` processes of one thread each."""
    import torch

    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, torch.set_num_threads, (1,)) as pool:
        yield from pool.imap(run, range(seeds))


def main(arguments: list[str] | None = None) -> int:
    """Record a band, or list the recorded ones."""
    parser = argparse.ArgumentParser(
        prog="python -m courseware.runs.bands", description=main.__doc__
    )
    parser.add_argument("action", choices=["record", "list"])
    parser.add_argument("name", nargs="?", choices=sorted(RECIPES))
    parser.add_argument("--seeds", type=int, default=10, help="how many runs (default: 10)")
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at the same time, with one thread each"
    )
    chosen = parser.parse_args(arguments)
    if chosen.action == "list":
        print("\n".join(_recorded()))
        return 0
    if chosen.name is None:
        parser.error(f"record needs the name of a band: {', '.join(sorted(RECIPES))}")

    runs: list[list[Record]] = []
    for run in run_seeds(RECIPES[chosen.name], chosen.seeds, chosen.workers):
        print(f"seed {len(runs)}: {run[-1]}", flush=True)
        runs.append(run)

    command = f"python -m courseware.runs.bands record {chosen.name} --seeds {chosen.seeds}"
    facts: dict[str, Any] = origin(command) | SETTINGS.get(chosen.name, {})
    band = record_band(chosen.name, runs, **facts)
    for key in CURVES:
        if key in band:
            print(f"{key}: {band[key]['mean'][-1]:.4f} ± {band[key]['std'][-1]:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
