"""Files that are whole or not there at all: checksums, atomic writes, checkpoints, and a lock.

Written by notebooks/10_training.ipynb (chapter 10): edit it there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file

from minigpt_lib.model import GPTConfig

__all__ = [
    "atomic_write",
    "find_checkpoint",
    "load_checkpoint",
    "locked",
    "save_checkpoint",
    "sha256",
    "writing_in",
]


class _Storable(Protocol):
    """What a checkpoint asks of a model. MiniGPT has it."""

    @property
    def config(self) -> GPTConfig: ...

    def save_pretrained(self, folder: Path) -> None: ...

    def load_state_dict(self, weights: Mapping[str, Any], /) -> Any: ...


def sha256(path: str | Path) -> str:
    """Return the SHA-256 checksum of a file: 64 hexadecimal digits, as `sha256sum` prints them."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all: yield a path beside it to write to, then rename it into place.

        with atomic_write("manifest.json") as part:
            part.write_text("{}", encoding="utf-8")

    The folder is made if missing. The new content is on the disk before it takes the old one's place, and
    its name is when the block has ended; if the block raises, the old file stays as it was and the new
    one is removed. The OSError of a full disk names the file and how much room there is; safetensors' own
    error for it becomes such an OSError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        _flush(part)
        part.replace(path)
    except BaseException as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        room = _room(path.parent)  # before the unfinished file goes
        part.unlink(missing_ok=True)
        if full:
            raise OSError(errno.ENOSPC, f"the disk is full: {room}", str(path)) from error
        if isinstance(error, SafetensorError):
            raise OSError(f"{path} could not be written ({error}; {room}).") from error
        raise
    _flush_names(path.parent)


def _room(folder: Path) -> str:
    """Say how much room is left on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free"


def _flush(path: Path) -> None:
    """Wait until a file has reached the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_names(folder: Path) -> None:
    """Wait until the names in a folder have reached the disk, where the system can say so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_checkpoint(
    folder: str | Path, model: _Storable, state: dict[str, Any] | None = None, **facts: Any
) -> None:
    """Write a checkpoint as `folder`, whole or not at all: an older one stays until the new one is whole.

    config.json and model.safetensors are what MiniGPT.from_pretrained reads; state.pt holds `state`
    (tensors and plain values), checkpoint.json the `facts`, and SHA256SUMS the checksum of each file, as
    the command `sha256sum -c` reads it. Raises OSError, with everything saved before untouched, if the
    files cannot be written; it says how much room the disk has.
    """
    folder = Path(folder)
    part = folder.with_name(f"{folder.name}.part")
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(part, ignore_errors=True)

    try:
        model.save_pretrained(part)
        torch.save(state or {}, part / "state.pt")
        (part / "checkpoint.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
        sums = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(part.iterdir()))
        (part / "SHA256SUMS").write_text(sums, encoding="utf-8")
        for path in part.iterdir():
            _flush(path)
        _flush_names(part)
    except Exception as error:  # a full disk: torch and safetensors have their own errors for it
        room = _room(folder.parent)  # before the unfinished files go
        shutil.rmtree(part, ignore_errors=True)
        reason = error.__cause__ or error  # the model says where and how much room, as we do
        raise OSError(
            f"the checkpoint {folder} could not be written ({reason}; {room}). What was saved before is "
            "untouched: free some space, then resume from it."
        ) from error

    if folder.exists():  # else `old`, if there is one, is the last good one
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    part.replace(folder)
    _flush_names(folder.parent)  # before the older checkpoint goes
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: str | Path,
    model: _Storable | None = None,
    train: dict[str, Any] | None = None,
    *,
    free: Collection[str] = (),
    check: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Verify a checkpoint, load its weights into `model` if given, and return its facts and its "state".

    train: settings of a run that must equal those of the checkpoint's run, except the names in `free`.
    check(facts) may raise ValueError for a checkpoint that does not fit; it runs before a weight changes.
    Raises FileNotFoundError if there is no checkpoint; ValueError if a file is missing, cut short or
    altered (the message names it), if a setting or the model's config differs (the message names the
    field), or if the model has other layers. In the first three cases `model` keeps its weights.
    """
    folder = find_checkpoint(folder)
    _verify(folder)
    facts = _read_json(folder / "checkpoint.json")
    facts["state"] = _read_state(folder / "state.pt")
    if train is not None:
        _refuse_difference(folder, facts.get("train", {}), train, "this run has", free)
    if model is not None:
        saved = _read_json(folder / "config.json")
        _refuse_difference(folder, saved, dataclasses.asdict(model.config), "this model has")
    if check is not None:
        check(facts)

    if model is not None:
        _load_weights(folder, model)
    return facts


def find_checkpoint(folder: str | Path) -> Path:
    """Return the checkpoint's folder, or the older one if a crash came between the two renames."""
    folder = Path(folder)
    old = folder.with_name(f"{folder.name}.old")
    return old if old.exists() and not folder.exists() else folder


def _verify(folder: Path) -> None:
    if not (folder / "SHA256SUMS").is_file():
        raise FileNotFoundError(f"{folder} holds no checkpoint: expected SHA256SUMS in it.")
    sums = (folder / "SHA256SUMS").read_text(encoding="utf-8", errors="replace").splitlines()
    for name in ("config.json", "model.safetensors", "state.pt", "checkpoint.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: {name} is missing. Use an older checkpoint.")
        if f"{sha256(folder / name)}  {name}" not in sums:
            raise ValueError(f"{folder}: {name} is cut short or altered. Use an older checkpoint.")


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file of JSON; ValueError for any other content, which a person must have put there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}. Use an older checkpoint.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, got {content!r:.40}.")
    return content


def _read_state(path: Path) -> Any:
    """Return the state in a file of torch.save; ValueError if it holds anything but tensors and plain values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged file leads to
        raise ValueError(f"{path} cannot be read: {error}") from error


def _refuse_difference(
    folder: Path,
    saved: dict[str, Any],
    ours: dict[str, Any],
    we_have: str,
    free: Collection[str] = (),
) -> None:
    if not isinstance(saved, dict):
        raise ValueError(f"checkpoint {folder}: expected settings by name, got {saved!r:.40}.")
    ours = json.loads(json.dumps(ours))  # tuples become lists, as they did in the file
    for name in {**saved, **ours}:
        if name not in free and saved.get(name) != ours.get(name):
            raise ValueError(
                f"checkpoint {folder} was made with {name}={saved.get(name)}, but {we_have} "
                f"{name}={ours.get(name)}. Use the same, or another folder."
            )


def _load_weights(folder: Path, model: _Storable) -> None:
    try:
        weights = load_file(folder / "model.safetensors")
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{folder}: model.safetensors cannot be read: {error}") from error

    try:
        model.load_state_dict(weights)
    except RuntimeError as error:  # names or shapes of weights differ
        raise ValueError(
            f"{folder} holds a model with other layers: build the same one, with the same LoRA "
            "detours if it had any, or choose another folder."
        ) from error


@contextlib.contextmanager
def writing_in(folder: str | Path) -> Iterator[None]:
    """Name the folder in the errors of a disk that is full or may not be written, and say what to do."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise OSError(
            f"{folder} cannot be written ({error}): a file is in the place of a folder. Move it, or choose "
            "another folder."
        ) from error
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error}): free some space, or choose another folder. What was "
            "finished before is untouched."
        ) from error


@contextlib.contextmanager
def locked(folder: str | Path, name: str = ".lock") -> Iterator[None]:
    """Let one process at a time work in a folder; the system opens the lock if the process dies.

    The folder is made if missing; `name` is the lock's file in it. Raises RuntimeError if the lock is
    taken, and OSError if the folder cannot be written.
    """
    folder = Path(folder)
    with writing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(folder / name).acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"another process is at work in {folder}: wait for it, end it, or choose another folder."
            ) from None
    with held:
        yield
