"""Go through `make course` with several seeds, and keep mean and spread of every figure as the course's bands.

    python -m courseware.course_bands --seeds 5 --workers 2

Each run has a thread of its own. What an interrupted recording left in the folder is used. The losses of both runs
also become the bands 14_reading and 14_sft, on which chapter 14 lays the reader's curves.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
from pathlib import Path

import torch

from courseware import bands, course, paths
from courseware.recipe import FULL


def one_seed(seed: int, folder: Path) -> dict:
    """Return what course.run returns for a seed, with the records of both runs."""
    result = course.run(FULL, folder / str(seed), seed, show=False)
    for name in ("reading", "answering"):
        records = course.read_history(folder / str(seed) / name)
        result[name] = [record for record in records if "train_loss" in record]
    return result


def main() -> None:
    """Record the bands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, default=paths.ROOT / "data" / "models" / "course_bands"
    )
    chosen = parser.parse_args()
    runs, context = [], multiprocessing.get_context("spawn")
    work = functools.partial(one_seed, folder=chosen.folder)
    with context.Pool(chosen.workers, torch.set_num_threads, (1,)) as pool:
        for run in pool.imap(work, range(chosen.seeds)):
            print(f"seed {len(runs)}: {run['figures']}", flush=True)
            runs.append(run)
    facts = bands.origin(f"python -m courseware.course_bands --seeds {chosen.seeds}")
    course.record_bands(runs, bands.FOLDER / "course.json", **facts)
    for name, band, recipe in (
        ("reading", "14_reading", FULL.reading),
        ("answering", "14_sft", FULL.answering),
    ):
        warmup = {"warmup_steps": recipe.warmup_steps}
        bands.record_band(band, [run[name] for run in runs], **facts, **warmup)


if __name__ == "__main__":
    main()
