"""One rank on a GPU under torchrun: data parallel like a plain run, sharded close to it, nccl guesses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from gpu_runs import NEEDS_GPU, make_model, settings, tokens

from courseware import paths
from minigpt_lib.distributed import DistributedTrainer
from minigpt_lib.training import Trainer

pytestmark = NEEDS_GPU

SCRIPT = (
    f"from {DistributedTrainer.__module__} import DistributedTrainer"
    + """
import json, sys
from gpu_runs import make_model, settings, tokens

how = json.loads(sys.argv[1])
run = DistributedTrainer(
    make_model(how["family"]),
    settings(**how["settings"]),
    tokens(),
    parallel=how["parallel"],
    folder=how["folder"],
    existing="resume",
)
history = run.train()
print("RESULT " + json.dumps([[record["loss"] for record in history], str(run.device)]))
"""
)
# Sums of products in another order: float32 and bfloat16 as autocast rounds it, after 20 steps.
FAR = {"float32": 1e-3, "bfloat16": 3e-2}


def torchrun(workplace, **how):
    """Run the script on one rank in `workplace`; return the losses, the device and what stood on stderr."""
    (workplace / "train.py").write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "1", "train.py", json.dumps(how)]
    python_path = [str(paths.ROOT), str(paths.ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command,
        cwd=workplace,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(python_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    losses, device = json.loads(done.stdout.rpartition("RESULT ")[2])
    return losses, device, done.stderr


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_one_rank_trains_like_a_plain_run(parallel, precision, tmp_path):
    changes = {"steps": 20, "accumulate": 2, "precision": precision}
    plain = Trainer(make_model("llama"), settings(**changes), tokens()).train()

    losses, device, errors = torchrun(
        tmp_path, family="llama", parallel=parallel, settings=changes, folder=None
    )

    far = max(abs(a - b["loss"]) for a, b in zip(losses, plain, strict=True))
    assert far <= (0 if parallel == "ddp" else FAR[precision])
    assert device == "cuda:0"
    assert "guess" not in errors.lower(), errors[-2000:]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_rank_saves_and_goes_on(parallel, tmp_path):
    how = {"family": "gpt2", "parallel": parallel, "folder": str(tmp_path / "run")}
    changes = {"steps": 8, "save_every": 4, "precision": "bfloat16"}

    first, _, _ = torchrun(tmp_path, settings=changes, **how)
    again, _, _ = torchrun(tmp_path, settings=changes, **how)

    assert len(first) == 8
    assert again == first
    assert (tmp_path / "run" / "last" / "model.safetensors").is_file()
