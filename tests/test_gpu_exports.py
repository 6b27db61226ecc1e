"""The chapters export on a machine that has a GPU: their checks choose the processor where they mean it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from gpu_runs import NEEDS_GPU

from courseware import paths

pytestmark = NEEDS_GPU

CHAPTERS = ("05", "09", "10", "11", "18")  # their checks build models, train, write or join ranks


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_exports_beside_a_gpu(chapter, tmp_path):
    for name in ("courseware", "minigpt_lib", "notebooks"):
        shutil.copytree(paths.ROOT / name, tmp_path / name)
    shutil.copy(paths.ROOT / "pyproject.toml", tmp_path)  # how the modules are formatted
    before = {path.name: path.read_bytes() for path in (tmp_path / "minigpt_lib").glob("*.py")}

    python_path = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "courseware", "export", chapter],
        cwd=tmp_path,
        env={
            **os.environ,
            "MINIGPT_ROOT": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(python_path),
        },
        capture_output=True,
        encoding="utf-8",
    )

    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    after = {path.name: path.read_bytes() for path in (tmp_path / "minigpt_lib").glob("*.py")}
    assert after == before
