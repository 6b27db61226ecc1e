"""Chapter 10: a full disk or a crash while a checkpoint is written leaves the one before it."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from training_runs import equal, tiny, weights

from courseware import paths
from minigpt_lib import checkpoints as module
from minigpt_lib.checkpoints import load_checkpoint, save_checkpoint
from minigpt_lib.training import RunFolder

# ---------------------------------------------------------------- a full disk

SAVE = """
import sys, torch
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.checkpoints import load_checkpoint, save_checkpoint
from minigpt_lib.training import RunFolder

folder, limit = sys.argv[1:]
torch.manual_seed(1)
model = MiniGPT(GPTConfig(11, 32, 16, 1, 2))
if limit != "0":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    save_checkpoint(folder, model, {"x": torch.zeros(30_000)}, step=2)
except OSError as error:
    print(error)
    sys.exit(3)
"""


def save_elsewhere(folder, limit):
    """Save a checkpoint in a process whose files may hold `limit` bytes; 0 sets no limit."""
    return subprocess.run(
        [sys.executable, "-c", SAVE, str(folder), str(limit)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(paths.ROOT)},
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("limit", [100, 10_000, 60_000])
def test_a_disk_that_fills_up_within_a_file_costs_nothing(tmp_path, limit):
    pytest.importorskip("resource")
    save_checkpoint(tmp_path / "last", tiny(dropout=0.0), step=1)

    done = save_elsewhere(tmp_path / "last", limit)

    assert done.returncode == 3, done.stderr
    assert "could not be written" in done.stdout
    assert "free some space" in done.stdout
    model = tiny(5, dropout=0.0)
    assert load_checkpoint(tmp_path / "last", model)["step"] == 1
    assert equal(weights(model), weights(tiny(0)))
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


@pytest.mark.slow
def test_a_full_file_system_costs_nothing(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)]
    is_root = getattr(os, "geteuid", lambda: 1)() == 0
    if not is_root or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small file system")

    try:
        save_checkpoint(tmp_path / "last", tiny(dropout=0.0), step=1)
        done = save_elsewhere(tmp_path / "last", 0)

        assert done.returncode == 3, done.stderr
        assert "could not be written" in done.stdout, done.stderr
        assert "; 0.0 MB are free). What was saved before is untouched" in done.stdout
        assert load_checkpoint(tmp_path / "last")["step"] == 1
        assert [path.name for path in tmp_path.iterdir()] == ["last"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_error_of_a_full_disk_names_the_file_and_the_room(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=1_234_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    file = tmp_path / "manifest.json"
    file.write_text("old", encoding="utf-8")

    with pytest.raises(OSError) as caught, module.atomic_write(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as writing does, without a name
    assert caught.value.errno == errno.ENOSPC
    assert f"the disk is full: 1.2 MB are free: {str(file)!r}" in str(caught.value)

    with pytest.raises(OSError) as caught, module.atomic_write(file):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert f"{file} could not be written (I/O error: No space left on" in str(caught.value)
    assert "; 1.2 MB are free)" in str(caught.value)

    with pytest.raises(OSError, match="^another$"), module.atomic_write(file):
        raise OSError("another")
    assert file.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_the_error_of_a_full_disk_names_the_run(tmp_path, monkeypatch):
    files = RunFolder(tmp_path / "run")

    with pytest.raises(OSError, match="run") as caught, files.diary(0, False):
        raise OSError(errno.ENOSPC, "no space")
    assert caught.value.filename == str(tmp_path / "run")

    with pytest.raises(OSError, match="^elsewhere$"), files.diary(0, False):
        raise OSError("elsewhere")


def test_the_room_is_that_of_the_folder_to_be_made(tmp_path, monkeypatch):
    asked = []

    def usage(folder):
        asked.append(folder)
        return SimpleNamespace(free=0)

    monkeypatch.setattr(module.shutil, "disk_usage", usage)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="0.0 MB are free"):
        save_checkpoint(tmp_path / "file" / "runs" / "last", tiny())
    assert asked == [tmp_path / "file"]


# ---------------------------------------------------------------- crashes


class TinyModel(torch.nn.Linear):
    """A model that is saved as two small files."""

    def __init__(self):
        super().__init__(1, 1)

    def save_pretrained(self, folder):
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("{}", encoding="utf-8")


class Crash:
    """Raise KeyboardInterrupt after `left` renames and removals of a checkpoint's folders."""

    def __init__(self, patch):
        self.left = math.inf
        self.armed = False
        patch.setattr(Path, "replace", self.counted(Path.replace))
        patch.setattr(module.shutil, "rmtree", self.counted(shutil.rmtree))

    def counted(self, function):
        def call(path, *arguments, **options):
            if self.armed and Path(path).name in ("last", "last.part", "last.old"):
                if self.left == 0:
                    raise KeyboardInterrupt
                self.left -= 1
            return function(path, *arguments, **options)

        return call


@given(st.lists(st.sampled_from([None, 0, 1, 2]), max_size=6))
@settings(max_examples=15, deadline=None)
def test_crashes_between_renames_leave_a_whole_checkpoint(crashes):
    """None is a save that works; a number is how many renames or removals happen before the crash."""
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        folder = Path(home) / "last"
        model = TinyModel()
        patch.setattr(module.os, "fsync", lambda number: None)
        save_checkpoint(folder, model, step=0)

        crash = Crash(patch)
        patch.setattr(module.torch, "save", lambda state, path: path.write_bytes(b"x"))
        before = 0
        for step, moves in enumerate(crashes, 1):
            crash.left = math.inf if moves is None else moves + 1
            crash.armed = True
            with contextlib.suppress(KeyboardInterrupt):
                save_checkpoint(folder, model, step=step)
            crash.armed = False

            found = module.find_checkpoint(folder)
            facts = json.loads((found / "checkpoint.json").read_text(encoding="utf-8"))
            assert (found / "SHA256SUMS").is_file()
            assert before <= facts["step"] <= step
            assert moves is not None or facts["step"] == step
            before = facts["step"]


def test_a_run_may_write_in_its_folder_by_default(tmp_path):
    (tmp_path / "last").mkdir()
    RunFolder(tmp_path, "replace").clear()
    assert not (tmp_path / "last").exists()


# ---------------------------------------------------------------- files with the right checksums


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("checkpoint.json", b"[]", "checkpoint.json: expected an object"),
        ("checkpoint.json", b"[" * 9999, "checkpoint.json is not JSON"),
        ("checkpoint.json", b'{"train": [1]}', "expected settings by name"),
        ("config.json", b"null", "config.json: expected an object"),
        ("state.pt", b"PK", "state.pt cannot be read"),
        ("model.safetensors", b"{}", "model.safetensors cannot be read"),
    ],
)
def test_a_checkpoint_that_somebody_made_up_is_refused(tmp_path, name, content, message):
    model = tiny()
    before = weights(model)
    save_checkpoint(tmp_path / "last", model, step=1, train={"lr": 0.1})
    (tmp_path / "last" / name).write_bytes(content)
    files = [path for path in (tmp_path / "last").iterdir() if path.name != "SHA256SUMS"]
    sums = "".join(f"{module.sha256(path)}  {path.name}\n" for path in files)
    (tmp_path / "last" / "SHA256SUMS").write_text(sums)

    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "last", model, {"lr": 0.1})
    assert equal(weights(model), before)
