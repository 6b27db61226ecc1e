"""Kill whatever saves something, at random moments, again and again, and see that nothing saved is ever lost.

    python tests/kills.py [WORK ...] [--kills 40] [--seed 0] [--full] [--save]

Each work runs in a process of its own that is killed (SIGKILL) at a random moment and started again in the same folder,
until it has been killed often enough. After every kill, what lies in the folder must be whole: everything that was
saved loads, and what was saved earlier has not gone. In the end the result is that of a run that nobody disturbed, byte
for byte. This is not part of `make test`, which kills each work three times; a few hundred kills take some minutes.

With --full, the disk fills up instead, at random places: each work runs on a small file system of its own (Linux, as
root) with a random number of free bytes. The work must end with a message that says so; what was saved before must be
whole, and with room enough the work must go on to the same result.

With --save, benchmarks/results/kills.json keeps how often each work was disturbed without a loss.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pretraining_texts import SMALL, fineweb, words
from safetensors.torch import load_file
from training_runs import TOKENS, plan, tiny

from courseware import paths
from courseware.checks import toy_groups, toy_pairs
from courseware.export import transaction
from minigpt_lib.assistant import Assistant
from minigpt_lib.checkpoints import find_checkpoint, load_checkpoint, save_checkpoint, sha256
from minigpt_lib.documents import prepare, read_manifest
from minigpt_lib.lora import add_lora, merge_lora
from minigpt_lib.model import MiniGPT
from minigpt_lib.reasoning import Question, train_grpo
from minigpt_lib.training import Trainer

sys.path.insert(0, str(paths.ROOT / "benchmarks"))
import rivals

RECORD = rivals.RESULTS / "kills.json"
FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


@dataclass(frozen=True)
class Work:
    """Something that saves: how to begin it or go on with it, and how to see that what it saved is whole."""

    go: Callable[[Path], object]  # runs in a folder from wherever it stands to its end
    look: Callable[[Path], int]  # returns how far the saved things are; raises if one is not whole
    files: str  # a pattern for the files whose bytes are the result
    what: str = ""  # what is saved, in words


def digest(work: Work, folder: Path) -> str:
    """Return a checksum of the result: names and bytes."""
    total = hashlib.sha256()
    for file in sorted(folder.glob(work.files)):
        if file.is_file():
            total.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def _quietly(go: Callable[[Path], object], folder: Path) -> None:
    torch.set_num_threads(1)
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        go(folder)


def start(work: Work, folder: Path) -> multiprocessing.process.BaseProcess:
    """Start the work in a process of its own."""
    assert FORK is not None
    process = FORK.Process(target=_quietly, args=(work.go, folder))
    process.start()
    return process


def kill_repeatedly(work: Work, home: Path, kills: int, generator: random.Random) -> int:
    """Kill a work so often; return how many runs came to their end. Raises AssertionError if anything is lost."""
    began = time.perf_counter()
    whole = start(work, home / "whole")
    whole.join()
    assert whole.exitcode == 0, "the undisturbed run failed"
    seconds = time.perf_counter() - began
    expected = digest(work, home / "whole")

    killed = finished = 0
    reached = -1
    folder = home / "killed-0"
    while killed < kills or reached >= 0:
        began = time.perf_counter()
        process = start(work, folder)
        if killed < kills:
            process.join(generator.uniform(0, seconds))
            process.kill()
        process.join()

        now = work.look(folder)
        assert now >= reached, f"{now} is saved, but before the last kill it was {reached}"
        reached = now
        if process.exitcode == 0:
            assert digest(work, folder) == expected, f"{folder}: another result than undisturbed"
            finished += 1
            seconds = min(seconds, time.perf_counter() - began)
            folder = home / f"killed-{finished}"
            reached = -1
        else:
            assert process.exitcode == -9, f"the work failed by itself: status {process.exitcode}"
            killed += 1
    return finished


# --- a full disk ---


@contextlib.contextmanager
def small_disk(place: Path, megabytes: int = 8) -> Iterator[None]:
    """Make a folder a file system of its own. Raises PermissionError where that is not allowed."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    is_root = getattr(os, "geteuid", lambda: 1)() == 0
    if not is_root or subprocess.run(mount, capture_output=True).returncode:
        raise PermissionError("only root can make a small file system, and only on Linux")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def room(disk: Path) -> int:
    """Return how many bytes are free."""
    return shutil.disk_usage(disk).free


def leave_room(disk: Path, free: int) -> None:
    """Fill the disk with a file until so many bytes are free."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, room(disk) - free))


def _report(go: Callable[[Path], object], folder: Path, answer: Connection) -> None:
    """Send what a work said at its end: the error, or nothing."""
    try:
        _quietly(go, folder)
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")
    else:
        answer.send("")


def outcome(work: Work, folder: Path) -> str:
    """Run a work in a process of its own; return the message of its error, or "" if it came to its end."""
    assert FORK is not None
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_report, args=(work.go, folder, send))
    process.start()
    send.close()
    said = receive.recv()
    process.join()
    return said


def fill_repeatedly(work: Work, disk: Path, times: int, generator: random.Random) -> int:
    """Let a work meet a full disk at least so often; return how often it did.

    disk: a small file system. Raises AssertionError if anything is lost, or if an error does not say what is wrong.
    """
    empty = room(disk)
    assert outcome(work, disk / "whole") == "", "the undisturbed run failed"
    needed = empty - room(disk)
    expected = digest(work, disk / "whole")

    met = 0
    while met < times:
        folder = disk / "full"
        reached = -1
        while True:
            leave_room(disk, int(generator.uniform(0, 2 * needed)))
            said = outcome(work, folder)
            now = work.look(folder)
            assert now >= reached, f"{now} is saved, but before the disk was full it was {reached}"
            reached = now
            if not said:
                break
            met += 1
            assert "space" in said or "full" in said, f"what is wrong? {said}"
            assert str(folder) in said, f"which file? {said}"

        assert digest(work, folder) == expected, "another result than undisturbed"
        shutil.rmtree(folder)
    return met


# --- the works ---


def _prepare(folder: Path) -> None:
    source = folder.parent / "source"
    if not source.exists():  # the undisturbed run, which is the first, writes it
        fineweb(source, words(300))
    prepare(source, folder / "data", SMALL, progress=False)


def _look_at_shards(folder: Path) -> int:
    if not (folder / "data" / "manifest.json").exists():
        return 0
    manifest = read_manifest(folder / "data")
    for shard in manifest["shards"]:
        file = folder / "data" / shard["name"] / shard["file"]
        assert sha256(file) == shard["sha256"], f"{file} is not what the manifest says"
    return len(manifest["shards"])


def _train(folder: Path) -> None:
    config = plan(steps=60, save_every=2, eval_every=6)
    Trainer(tiny(), config, TOKENS, TOKENS[:200], folder=folder / "run", existing="resume").train()


def _look_at_run(folder: Path) -> int:
    last = folder / "run" / "last"
    return load_checkpoint(last)["step"] if find_checkpoint(last).exists() else 0


def _save_often(folder: Path) -> None:
    model = MiniGPT(tiny().config)
    first = _look_at_checkpoint(folder)
    for step in range(first + 1, 41):
        torch.nn.init.constant_(model.embedding.weight, step)
        save_checkpoint(folder / "last", model, {"step": torch.tensor(step)}, step=step)


def _look_at_checkpoint(folder: Path) -> int:
    place = find_checkpoint(folder / "last")
    if not place.exists():
        return 0
    facts = load_checkpoint(folder / "last")
    weights = load_file(place / "model.safetensors")
    steps = {facts["step"], int(facts["state"]["step"]), int(weights["embedding.weight"][0, 0])}
    assert len(steps) == 1, f"a mixture of checkpoints: {steps}"
    return facts["step"]


def _merge(folder: Path) -> None:
    base = folder / "base"
    if not (base / "config.json").exists():
        tiny().save_pretrained(base)
    for rank in range(1, 13):
        torch.manual_seed(rank)
        model = add_lora(MiniGPT.from_pretrained(base), rank)
        for name, weight in model.named_parameters():
            if name.endswith(".B"):
                torch.nn.init.normal_(weight)
        merge_lora(model).save_pretrained(folder / f"merged-{rank:02d}")


def _look_at_merged(folder: Path) -> int:
    """Return how many models are whole. (Safetensors' own hidden files may be left; they are no models.)"""
    whole = [MiniGPT.from_pretrained(f.parent) for f in folder.glob("*/config.json")]
    return len(whole)


def _reason(folder: Path) -> None:
    model = toy_pairs.tiny()
    questions = [Question(dialog, "a") for dialog in toy_groups.toy_dialogs]
    toy_groups.run_groups(train_grpo, model, questions, steps=8, place=folder / "run")


def toy_assistant() -> Assistant:
    return Assistant(toy_pairs.tiny(), toy_pairs.toy_chat, max_new_tokens=8)


def _converse(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    assistant = toy_assistant()
    file = folder / "talk.json"
    if file.exists():
        assistant.load(file)
    for turn in range(len(assistant.messages) // 2, 40):
        assistant.messages += toy_pairs.asks(f"{turn}?") + toy_pairs.says("yes " * 50)
        assistant.save(file)


def _look_at_conversation(folder: Path) -> int:
    file = folder / "talk.json"
    if not file.exists():
        return 0
    assistant = toy_assistant()
    assistant.load(file)
    return len(assistant.messages)


MODULES = ("one.py", "two.py", "three.py")


@contextlib.contextmanager
def exporting_to(folder: Path) -> Iterator[None]:
    """Do what an export does when it replaces modules, but in this folder: first, finish what was left half done."""
    folder.mkdir(parents=True, exist_ok=True)
    here = mock.patch.multiple(transaction.paths, ROOT=folder, STATE=folder / ".course")
    with here, transaction.locked():
        yield


def _replace(folder: Path) -> None:
    """Replace three modules at once, forty times, each time by longer ones."""
    for size in range(_look_at_modules(folder) + 1, 41):
        with exporting_to(folder):
            transaction.replace_all({folder / name: "#" * 999 * size for name in MODULES})


def _look_at_modules(folder: Path) -> int:
    """Return the size of the modules."""
    with exporting_to(folder):
        texts = [(folder / name).read_text() for name in MODULES if (folder / name).exists()]
    sizes = {len(text) for text in texts}
    assert len(sizes) <= 1, f"a mixture of old and new modules: {sizes}"
    assert len(texts) in (0, len(MODULES)), "some of the modules are missing"
    return max(sizes, default=0) // 999


WORKS = {
    "preparation": Work(_prepare, _look_at_shards, "data/*/*.arrow", "shards of a prepared text"),
    "training": Work(_train, _look_at_run, "run/last/model.safetensors", "a training run"),
    "checkpoints": Work(_save_often, _look_at_checkpoint, "last/*", "one checkpoint after another"),
    "LoRA merging": Work(_merge, _look_at_merged, "merged-*/[!.]*", "models with LoRA merged in"),
    "GRPO": Work(_reason, _look_at_run, "run/last/model.safetensors", "a run with rewards (GRPO)"),
    "conversations": Work(_converse, _look_at_conversation, "talk.json", "a conversation"),
    "export": Work(_replace, _look_at_modules, "*.py", "exported modules, three at a time"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", nargs="*", help=f"{', '.join(WORKS)}; all of them by default")
    parser.add_argument("--kills", type=int, default=40, help="for each work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="fill the disk instead")
    parser.add_argument("--save", action="store_true", help=f"in {RECORD.relative_to(paths.ROOT)}")
    chosen = parser.parse_args()

    lost = 0
    for name in chosen.work or WORKS:
        with tempfile.TemporaryDirectory(prefix="kills-") as home:
            generator = random.Random(f"{chosen.seed} {name}")
            disturb = _fill if chosen.full else _kill
            began = time.perf_counter()
            try:
                done = disturb(WORKS[name], Path(home), chosen.kills, generator)
            except (AssertionError, ValueError, OSError, json.JSONDecodeError) as error:
                lost += 1
                print(f"{name:14} LOST: {error}", flush=True)
                continue

        counts = ", ".join(f"{number} {what}" for what, number in done.items())
        print(f"{name:14} {counts}, nothing lost", flush=True)
        if chosen.save:
            seconds = round(time.perf_counter() - began)
            _save(name, {**done, "seed": chosen.seed, "seconds": seconds}, chosen.full)
    sys.exit(bool(lost))


def _kill(work: Work, home: Path, times: int, generator: random.Random) -> dict[str, int]:
    ends = kill_repeatedly(work, home, times, generator)
    return {"kills": times, "ends": ends}


def _fill(work: Work, home: Path, times: int, generator: random.Random) -> dict[str, int]:
    with small_disk(home):
        met = fill_repeatedly(work, home, times, generator)
    return {"full disks": met}


def _save(name: str, done: dict[str, int], full: bool) -> None:
    """Put what a work has survived in the place of its older counts."""
    rows: dict[str, dict[str, Any]] = {}
    if RECORD.exists():
        old = json.loads(RECORD.read_text(encoding="utf-8"))["works"]
        rows = {row["work"]: row for row in old}
    row = rows.setdefault(name, {"work": name})
    row["what"] = WORKS[name].what
    row["full" if full else "killed"] = done

    content = {
        "what": "Kills at random moments, and full disks, of whatever saves something; nothing was lost.",
        "command": "python tests/kills.py --save, then with --full",
        "hardware": rivals.hardware(),
        "works": [rows[other] for other in WORKS if other in rows],
    }
    rivals.save(RECORD, content)


if __name__ == "__main__":
    main()
