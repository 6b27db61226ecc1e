"""Record the bands of `make course`: run it with several seeds and store mean and standard deviation of each figure.

    python -m courseware.runs.course_bands --seeds 5 --workers 2

Each run uses one thread. What an interrupted recording left in the folder is used. The losses of both trainings also
become the bands 14_reading and 14_sft, with which chapter 14 compares the learner's curves, and the rewards become the
band 21_reasoning of chapter 21, whose run has the same settings.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from courseware import paths
from courseware.runs import bands, course
from courseware.runs.recipe import FULL

TRAININGS = {
    "reading": ("14_reading", FULL.reading),
    "answering": ("14_sft", FULL.answering),
}


def one_seed(seed: int, folder: Path) -> dict[str, Any]:
    """Return what course.run returns for a seed, with the records of both trainings."""
    result = course.run(FULL, folder / str(seed), seed, show=False)
    for name in TRAININGS:
        records = course.read_history(folder / str(seed) / name)
        result[name] = [record for record in records if "train_loss" in record]
    result["rewarding"] = course.read_history(folder / str(seed) / "rewarding")
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

    runs: list[dict[str, Any]] = []
    work = functools.partial(one_seed, folder=chosen.folder)
    for run in bands.run_seeds(work, chosen.seeds, chosen.workers):
        print(f"seed {len(runs)}: {run['figures']}", flush=True)
        runs.append(run)

    facts = bands.origin(f"python -m courseware.runs.course_bands --seeds {chosen.seeds}")
    course.record_bands(runs, bands.FOLDER / "course.json", **facts)
    for name, (band, config) in TRAININGS.items():
        histories = [run[name] for run in runs]
        bands.record_band(band, histories, **facts, warmup_steps=config.warmup_steps)
    bands.record_band("21_reasoning", [run["rewarding"] for run in runs], **facts)


if __name__ == "__main__":
    main()
