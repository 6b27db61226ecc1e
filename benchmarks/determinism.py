"""Train with the same seed again and again: on one and two threads, in two precisions, with two instruction sets.

    python benchmarks/determinism.py [--quick] [--out FILE]

Chapter 10's run with seed 0, stopped early: after 100 steps, or after 20 where avx2 has to imitate bfloat16, which
takes several times as long. Each setting runs twice, each time in a new process, and its weights must have the same
bits both times. The settings are compared with float32 on one thread, with the instructions that torch chooses by
itself: how far do the losses lie apart, and do all of them stay in chapter 10's band? "avx2" holds torch
(ATEN_CPU_CAPABILITY) and oneDNN (ONEDNN_MAX_CPU_ISA) to the instructions of a processor from 2013. --quick stops after
a step, to try it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave a busy machine alone
import torch
from rivals import RESULTS, hardware, hardware_line, save, table

from courseware.runs import bands

Run = dict[str, Any]  # what the file stores about a setting, a JSON object

OUT = RESULTS / "determinism.json"
INSTRUCTIONS = {
    "chosen by torch": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
SETTINGS = [
    {"precision": "float32", "instructions": "chosen by torch", "threads": 1, "steps": 100},
    {"precision": "float32", "instructions": "chosen by torch", "threads": 2, "steps": 100},
    {"precision": "float32", "instructions": "avx2", "threads": 1, "steps": 100},
    {"precision": "float32", "instructions": "avx2", "threads": 2, "steps": 100},
    {"precision": "bfloat16", "instructions": "chosen by torch", "threads": 1, "steps": 100},
    {"precision": "bfloat16", "instructions": "chosen by torch", "threads": 2, "steps": 100},
    {"precision": "bfloat16", "instructions": "avx2", "threads": 1, "steps": 20},
]


def train(precision: str, threads: int, steps: int) -> Run:
    """Train for some steps in this process; return its losses and a checksum of its weights."""
    from minigpt_lib.model import GPTConfig, MiniGPT
    from minigpt_lib.training import Trainer

    torch.set_num_threads(threads)
    vocab_size, parts = bands.shakespeare()
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig.preset("laptop", vocab_size=vocab_size))
    config = bands.training_config(precision=precision, progress=False, device="cpu")

    def stop_in_time(record: dict[str, Any]) -> None:
        trainer.stop_asked = record["step"] == steps

    trainer = Trainer(model, config, *parts, on_step=stop_in_time)
    history = trainer.train()
    checksum = hashlib.sha256()
    for weight in model.state_dict().values():
        checksum.update(weight.numpy().tobytes())
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "weights": checksum.hexdigest(),
        "losses": [record["loss"] for record in history],
        "evaluations": [_without_speed(record) for record in history if "val_loss" in record],
    }


def _without_speed(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("step", "train_loss", "val_loss")}


def train_elsewhere(setting: Run) -> Run:
    """Train in a process of its own: instruction sets are chosen when torch is loaded."""
    command = [sys.executable, __file__, "--only", json.dumps(setting)]
    environ = {**os.environ, **INSTRUCTIONS[setting["instructions"]]}
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, encoding="utf-8", check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(setting: Run, twice: Sequence[Run], reference: Run) -> Run:
    """Return what the file stores about a setting that ran twice.

    The differences are those of the losses from the reference's, in nats: of the first step, which sees the same
    weights, and the largest of all. "widths": the farthest that an evaluation lies from the middle of chapter 10's
    band, in half-widths of the band: above 1 is outside. None if no evaluation was due.
    """
    run = twice[0]
    apart = [abs(loss - other) for loss, other in zip(run["losses"], reference["losses"])]
    return {
        **setting,
        "capability": run["capability"],
        "same_bits": all(again["weights"] == run["weights"] for again in twice),
        "weights": run["weights"],
        "first_difference": apart[0],
        "largest_difference": max(apart),
        "evaluations": {
            f"step {record['step']}": {key: record[key] for key in bands.LOSSES}
            for record in run["evaluations"]
        },
        "widths": max(widths(run["evaluations"]), default=None),
    }


def widths(evaluations: Sequence[dict[str, Any]]) -> list[float]:
    """Return how far each loss lies from the middle of chapter 10's band, in half-widths."""
    band = bands.load_band("10_training")
    found = []
    for key in bands.LOSSES:
        halves = bands.half_widths(band[key], band["seeds"])
        for step, mean, half in zip(band["steps"], band[key]["mean"], halves, strict=True):
            losses = [record[key] for record in evaluations if record["step"] == step]
            found += [abs(loss - mean) / half for loss in losses]
    return found


def results_table(runs: Sequence[Run]) -> str:
    """Return the table of all settings."""
    rows = []
    for run in runs:
        rows.append(
            [
                f"{run['precision']}, {run['capability']}",
                run["threads"],
                run["steps"],
                "yes" if run["same_bits"] else "no",
                f"{run['first_difference']:.1e}",
                f"{run['largest_difference']:.1e}",
                "" if run["widths"] is None else f"{run['widths']:.2f}",
            ]
        )
    columns = ["precision, instructions", "threads", "steps", "same bits twice"]
    columns += ["first loss apart, nats", "at most apart, nats", "share of the band's half-width"]
    return table("Chapter 10's run with seed 0, on one processor", columns, rows)


def main() -> None:
    """Run every setting twice, save what was found, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one step of each setting")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    parser.add_argument("--only", type=json.loads, help=argparse.SUPPRESS)  # one run, as JSON
    options = parser.parse_args()

    if options.only:
        setting = options.only
        print(json.dumps(train(setting["precision"], setting["threads"], setting["steps"])))
        return

    runs: list[Run] = []
    reference: Run = {}
    for setting in SETTINGS:
        if options.quick:
            setting = {**setting, "steps": 1}
        twice = [train_elsewhere(setting) for _ in range(2)]
        reference = reference or twice[0]
        runs.append(compare(setting, twice, reference))
        print(runs[-1], file=sys.stderr, flush=True)

    print(results_table(runs))
    print(hardware_line())
    if not options.quick:
        save(options.out, {"hardware": hardware(), "runs": runs})


if __name__ == "__main__":
    main()
