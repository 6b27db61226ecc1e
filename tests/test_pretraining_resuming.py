"""Chapter 13: a preparation or a run that was killed goes on as if undisturbed; memory does not grow with the text."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter

import filelock
import pytest
from pretraining_texts import (
    FORK,
    SMALL,
    documents_of,
    fineweb,
    needs_fork,
    run_of,
    same_files,
    words,
)
from tqdm.auto import tqdm

from courseware import paths
from courseware.checks.refusals import refused
from minigpt_lib import pretraining
from minigpt_lib.checkpoints import load_checkpoint
from minigpt_lib.documents import prepare, read_manifest
from minigpt_lib.packing import BlockReader, PackedTokens, shuffle_index
from minigpt_lib.pretraining import pretrain


@pytest.fixture(autouse=True, scope="module")
def _share_no_lock_with_a_child():
    """A child that is killed while it holds tqdm's lock between processes would block its parent forever."""
    before = tqdm.get_lock()
    tqdm.set_lock(threading.RLock())
    yield
    tqdm.set_lock(before)


# ---------------------------------------------------------------- a killed preparation


@pytest.mark.slow
@needs_fork
def test_a_preparation_killed_many_times_ends_like_an_undisturbed_one(tmp_path):
    source = str(fineweb(tmp_path / "text", words(400), files=4, row_group=11))
    prepare(source, tmp_path / "undisturbed", SMALL, progress=False)
    folder = tmp_path / "killed"
    generator = random.Random(1)

    def count_shards():
        exists = (folder / "manifest.json").exists()
        return len(read_manifest(folder)["shards"]) if exists else 0

    stages = []
    while True:  # kill it after up to four more shards, at a random moment
        child = FORK.Process(target=prepare, args=(source, folder, SMALL, False))
        child.start()
        goal = count_shards() + generator.randint(0, 4)
        while child.is_alive() and count_shards() < goal:
            time.sleep(0.001)
        child.join(generator.uniform(0, 0.03))
        if not child.is_alive():
            break
        child.kill()
        child.join()
        stages.append(count_shards())
        assert len(stages) < 200, "it never ends"

    assert child.exitcode == 0, stages
    assert len(stages) >= 3, stages
    assert len(set(stages)) >= 2, stages
    assert same_files(tmp_path / "undisturbed", folder)


# ---------------------------------------------------------------- a killed run


class Logged(BlockReader):
    """A reader that writes each block to `log`: its position, its targets, and the documents that they are from."""

    log = None

    def __call__(self, tokens, batch_size, block_size, generator=None):
        first = self.position + self.rank * batch_size
        batch = super().__call__(tokens, batch_size, block_size, generator)

        with open(self.log, "a", encoding="utf-8") as file:
            for i in range(first, first + batch_size):
                epoch, place = divmod(i, self.blocks)
                start = shuffle_index(place, self.blocks, f"{self.seed} {epoch}") * block_size
                targets = [t for t in range(start + 1, start + block_size + 1) if t < len(tokens)]
                owners = tokens.documents(targets[0], targets[-1] + 1)
                file.write(json.dumps([i, targets, owners]) + "\n")
        return batch


def lines_of(path):
    """Return the JSON values in a file, one from each line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@needs_fork
def test_a_killed_run_goes_on_and_reads_each_token_once(tmp_path, monkeypatch, capsys):
    source = fineweb(tmp_path / "text", words(32))
    home = tmp_path / "killed"
    prepare(str(source), home / "data", SMALL, progress=False)
    tokens = PackedTokens(home / "data")
    blocks = -(-(len(tokens) - 1) // 16)
    steps = blocks // 8  # of 8 blocks each: an epoch, except for a remainder
    assert 10 < steps < 60
    config = run_of(home, source, steps)
    monkeypatch.setattr(pretraining, "BlockReader", Logged)

    # Kill a run in the middle.
    def slowly(record):
        time.sleep(0.01 if record["step"] < steps // 2 + 2 else 60)  # by then it is killed

    Logged.log = tmp_path / "first.log"
    child = FORK.Process(target=pretrain, args=(config, slowly))
    child.start()
    history = home / "run" / "history.jsonl"
    while (
        not history.exists() or len(history.read_text(encoding="utf-8").splitlines()) < steps // 2
    ):
        assert child.is_alive(), child.exitcode
        time.sleep(0.01)
    child.kill()
    child.join()
    saved = load_checkpoint(home / "run" / "last")["state"]["draw"]
    assert 0 < saved["position"] < 8 * steps

    # Go on with it.
    Logged.log = tmp_path / "second.log"
    run = pretrain(config)
    assert run.step == steps
    first = lines_of(tmp_path / "first.log")
    second = lines_of(tmp_path / "second.log")
    learned = [row for row in first if row[0] < saved["position"]] + second
    assert [row[0] for row in learned] == list(range(8 * steps)), "each position once, in order"
    times = Counter(target for _, targets, _ in learned for target in targets)
    assert max(times.values()) == 1
    assert len(times) > 0.9 * (len(tokens) - 1)
    owners = {owner for _, _, owners in learned for owner in owners}
    assert owners <= {row["id"] for row in documents_of(home / "data", "train")}

    # An undisturbed run reads and learns the same.
    Logged.log = tmp_path / "undisturbed.log"
    data = str(home / "data")
    undisturbed = pretrain(run_of(tmp_path / "undisturbed", source, steps, data_folder=data))
    losses = [record["loss"] for record in undisturbed.history]
    assert losses == [record["loss"] for record in run.history]
    assert lines_of(tmp_path / "undisturbed.log") == learned
    assert "from step" in capsys.readouterr().out


def test_a_folder_has_one_run_at_a_time(tmp_path):
    source = fineweb(tmp_path / "text", words(40))
    config = run_of(tmp_path / "run", source, 3)
    (tmp_path / "run").mkdir()

    with filelock.FileLock(tmp_path / "run" / ".run.lock"):
        refused("another process is at work", pretrain, config, kind=RuntimeError)

    assert pretrain(config).step == 3


# ---------------------------------------------------------------- memory


@pytest.mark.slow
def test_a_longer_text_needs_no_more_memory(tmp_path):
    """Compare 15 MB with 5 MB; the bound leaves room for what the allocator keeps."""
    from pretraining_memory import write_text

    texts = words(400, seed=2)
    acts = [" ".join(texts[i : i + 40]) for i in range(0, 400, 40)]
    script = paths.CODE / "benchmarks" / "pretraining_memory.py"

    peaks = []
    for megabytes in (5, 15):
        source = tmp_path / str(megabytes)
        write_text(source, megabytes, acts)
        done = subprocess.run(
            [sys.executable, script, "--child", "streamed", source, source / "out"],
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(json.loads(done.stdout)["peak"])

    assert peaks[1] < peaks[0] + 60, peaks  # with all documents in memory it would be 150 more
