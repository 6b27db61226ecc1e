"""Race nanoGPT's demo for laptops with chapter 20's recipes, and measure what each change to a recipe is worth.

    python benchmarks/speedrun.py [--nanogpt FOLDER] [--text FILE] [--seeds 5] [--out FILE]
    python benchmarks/speedrun.py --marathon [--nanogpt FOLDER] [--text FILE] [--seeds 5] [--out FILE]
    python benchmarks/speedrun.py --changes [--text FILE] [--seeds 5] [--out FILE]

FOLDER is a checkout of github.com/karpathy/nanoGPT and FILE tiny Shakespeare; without them the script fetches both.

The race. nanoGPT runs its own train.py with the settings that its README gives for a processor; its time is the sum of
its steps as it prints them, as in training.py. Ours is chapter 20's `race` with the recipes SPRINT, to be compared with
a seventeenth of nanoGPT's time and its loss, and NGRAMS, which has tables that nanoGPT's model lacks. All are scored in
float32 on all of val.bin, each character predicted once, in blocks of 64. For every seed the runs follow one another.
(nanoGPT has no option for the seed.)

The marathon. The same for the recipe MARATHON, to be compared with all of nanoGPT's time and with 1.4697, which
nanoGPT's README reports for its larger model on an A100. It is scored in blocks of 256, as that larger model is.

The changes. SPRINT at 118 steps with one thing taken away, or one thing added, for every seed; the runs of a seed
follow one another. What is recorded is the loss, the seconds, and the processor's seconds.

Finished runs are saved at once, and are not repeated: the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pickle
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy
import rivals
import torch
import training

from minigpt_lib.speedrun import RECIPES, Recipe, Track, paired_t_test, race

OUT = rivals.RESULTS / "speedrun.json"
A100 = 1.4697  # the validation loss in nanoGPT's README, of its larger model on an A100
SPRINT = RECIPES["sprint"]
MARATHON = RECIPES["marathon"]
NGRAMS = RECIPES["ngrams"]

CHANGED = dataclasses.replace(SPRINT, steps=118)  # what the changes are changes of

# What differs from it in each run.
CHANGES: dict[str, dict[str, Any]] = {
    "sprint": {},
    "AdamW for all": {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.1},
    "learned positions": {"position": "learned"},
    "tied head": {"tie_weights": True, "embedding_std": None},
    "no token shift": {"token_shift": False},
    "GELU": {"ffn": "gelu"},
    "no zero init": {"zero_init": False},
    "QK-norm": {"qk_norm": True},
    "QK-norm, value residual": {"qk_norm": True, "value_residual": True},
    "four heads": {"n_head": 4},
    "RMSNorm": {"norm": "rms"},
    "the rate falls to 0": {"min_lr_ratio": 0.0},
    "cosine schedule": {"schedule": "cosine"},
    "warm-up of 12 steps": {"warmup_steps": 12},
    "3 Newton-Schulz steps": {"newton_steps": 3},
    "soft cap 15": {"soft_cap": 15.0},
    "batch 8, then 16": {"stages": ((0.3, 8, 64),)},
    "float32": {"precision": "float32"},
    "compile": {"compile": True},
}


def bins_track(folder: Path) -> Track:
    """Return the ids that nanoGPT's prepare.py wrote."""
    data = folder / "data" / "shakespeare_char"
    train, val = (
        torch.from_numpy(numpy.fromfile(data / f"{part}.bin", dtype=numpy.uint16).astype("int64"))
        for part in ("train", "val")
    )
    vocab_size = pickle.loads((data / "meta.pkl").read_bytes())["vocab_size"]
    return Track(train, val, vocab_size)


def run(recipe: Recipe, track: Track, seed: int) -> dict[str, Any]:
    """Return what one run of a recipe gives, for the record."""
    began = time.process_time()
    result = race(recipe, track, seed)
    cpu = time.process_time() - began
    return {
        "seconds": result.seconds,
        "loss": result.loss,
        "cpu_seconds_with_score": cpu,
        "precision": result.precision,
    }


def load(path: Path) -> dict[str, Any]:
    """Return the record so far."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"race": {}, "changes": {}}


def save(path: Path, record: dict[str, Any], part: str) -> None:
    """Write the record; note the hardware of this part."""
    record[f"hardware of the {part}"] = rivals.hardware()
    rivals.save(path, record)


def run_race(
    record: dict[str, Any], path: Path, folder: Path, part: str, recipes: list[Recipe], seeds: int
) -> None:
    """Run what this part of the record lacks: for each seed nanoGPT, then the recipes."""
    track = bins_track(folder)
    runs = record.setdefault(part, {})
    described = record.setdefault("recipes", {})
    for recipe in recipes:
        described[recipe.name] = dataclasses.asdict(recipe)

    for seed in range(seeds):
        done = runs.setdefault(str(seed), {})
        if "nanoGPT" not in done:
            seconds, loss = training.run_nanogpt(folder, track.val)
            done["nanoGPT"] = {"seconds": seconds, "loss": loss}
        for recipe in recipes:
            if recipe.name not in done:
                done[recipe.name] = run(recipe, track, seed)
                save(path, record, part)
        print(
            seed,
            {name: (round(r["seconds"], 1), round(r["loss"], 4)) for name, r in done.items()},
            flush=True,
        )


def run_changes(record: dict[str, Any], path: Path, track: Track, seeds: int) -> None:
    """Run what the changes lack, seed by seed."""
    runs = record["changes"]
    for seed in range(seeds):
        for name, changes in CHANGES.items():
            done = runs.setdefault(name, {})
            if str(seed) in done:
                continue
            recipe = dataclasses.replace(CHANGED, name=name, **changes)
            done[str(seed)] = run(recipe, track, seed)
            save(path, record, "changes")
            print(
                seed,
                name,
                {k: v for k, v in done[str(seed)].items() if k != "precision"},
                flush=True,
            )


def print_race(runs: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the table of the race, and whether the targets are met."""
    rows = []
    for name in ("nanoGPT", "sprint", "marathon", "ngrams"):
        pairs = [(done[name], done["nanoGPT"]) for done in runs.values() if name in done]
        if not pairs:
            continue
        losses = [ours["loss"] for ours, _ in pairs]
        share = statistics.median(nano["seconds"] / ours["seconds"] for ours, nano in pairs)
        rows.append(
            [
                name,
                len(pairs),
                f"{statistics.median(ours['seconds'] for ours, _ in pairs):.1f}",
                f"1 / {share:.1f}",
                f"{statistics.median(losses):.4f}",
                f"{min(losses):.4f} to {max(losses):.4f}",
            ]
        )
    columns = ["run", "seeds", "seconds", "of nanoGPT's time", "loss, nats", "over the seeds"]
    print(rivals.table("The speedrun: medians over the seeds", columns, rows))

    goals = (("sprint", 1 / 17, None), ("marathon", 1.0, A100), ("ngrams", 1 / 17, None))
    for name, most, goal in goals:
        pairs = [(done[name], done["nanoGPT"]) for done in runs.values() if name in done]
        if not pairs:
            continue
        in_time = sum(ours["seconds"] <= most * nano["seconds"] for ours, nano in pairs)
        reached = sum(
            ours["loss"] <= (nano["loss"] if goal is None else goal) for ours, nano in pairs
        )
        print(
            f"{name}: {in_time} of {len(pairs)} in time, {reached} of {len(pairs)} reach the loss."
        )


def print_changes(runs: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print what each change does to loss and seconds, seed by seed."""
    base = runs["sprint"]
    rows = []
    for name, done in runs.items():
        seeds = [seed for seed in done if seed in base]
        losses = [done[seed]["loss"] - base[seed]["loss"] for seed in seeds]
        share = statistics.median(done[s]["seconds"] / base[s]["seconds"] for s in seeds)
        p = "" if name == "sprint" or len(seeds) < 2 else f"{paired_t_test(losses).p:.3f}"
        mean = statistics.fmean(done[seed]["loss"] for seed in seeds)
        rows.append(
            [name, len(seeds), f"{mean:.3f}", f"{statistics.fmean(losses):+.3f}", p, f"{share:.2f}"]
        )
    columns = ["change", "seeds", "loss", "difference", "p", "of the sprint's seconds"]
    print(rivals.table("One change to the sprint at a time", columns, rows))


def main() -> int:
    """Run what the record lacks, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nanogpt", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--text", help="tiny Shakespeare, as nanoGPT's prepare.py downloads it")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--changes", action="store_true", help="one change at a time, instead of the race"
    )
    parser.add_argument("--marathon", action="store_true", help="the race of the long recipe")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()

    text = rivals.tinyshakespeare(options.text)
    nanogpt = None if options.changes else rivals.nanogpt_folder(options.nanogpt)
    if text is None or (nanogpt is None and not options.changes):
        print(
            "nanoGPT or its text is missing and cannot be fetched: give --nanogpt FOLDER and --text FILE"
        )
        return 0

    torch.set_num_threads(2)
    record = load(options.out)
    if options.changes:
        run_changes(record, options.out, Track.from_text(text), options.seeds)
        print_changes(record["changes"])
    else:
        assert nanogpt is not None
        with tempfile.TemporaryDirectory() as workplace:
            folder = training.prepare(nanogpt, text, Path(workplace))
            part, recipes = (
                ("marathon", [MARATHON]) if options.marathon else ("race", [SPRINT, NGRAMS])
            )
            run_race(record, options.out, folder, part, recipes, options.seeds)
        print_race(record[part])
    print(rivals.hardware_line())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
