"""Chapter 13: its checks accept the pretraining and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "Ctrl-C during a shard is lost": (
        "if callable(before) and (pressed or interrupted()):",
        "if callable(before) and interrupted():",
    ),
    "a swallowed Ctrl-C is lost": (
        "if callable(before) and (pressed or interrupted()):",
        "if callable(before) and pressed:",
    ),
    "a second Ctrl-C has to wait": ('if pressed and "RANK" not in os.environ:', "if False:"),
    "torchrun's Ctrl-C counts as a second one": (
        'if pressed and "RANK" not in os.environ:',
        "if pressed:",
    ),
    "the signal handler is not installed": (
        "with on_interrupt():",
        "with contextlib.nullcontext():",
    ),
    "every rank reports Ctrl-C": ('if os.environ.get("RANK", "0") == "0":', "if True:"),
    "an interrupted run ends with status 0": (
        "if trained is not None and trained.stop_asked:",
        "if False:",
    ),
    "several processes get the trainer for one": (
        "if world > 1 and trainer is Trainer:",
        "if False:",
    ),
    "documents overlap": ("start = end\n", "start = end - 1\n"),
    "the hub's default configuration": ('"sample-10BT"', '"default"'),
    "a file that is cut short is not named": (
        'f"{_unreadable(source)} cannot be read',
        'f"{source} cannot be read',
    ),
    "blanks count as text": ("not text.strip()", "not text"),
    "the greatest length is too long": (
        "len(text) > config.max_chars",
        "len(text) >= config.max_chars",
    ),
    "the least score is too low": (">= config.min_score", "> config.min_score"),
    "a document without an id is numbered": (
        'hashlib.sha256(row["text"].encode()).hexdigest()[:32]',
        'str(counts["seen"])',
    ),
    "split by Python's hash": ('int.from_bytes(digest[:8], "big")', "hash(identity) % 2**64"),
    "the hash is read in little-endian order": ('digest[:8], "big"', 'digest[:8], "little"'),
    "END is left out": ("tokenizer.encode(text) + end", "tokenizer.encode(text)"),
    "END in a text becomes a control token": (
        "tokenizer.encode(text) + end",
        'tokenizer.encode(text, "all") + end',
    ),
    "16 bits for any vocabulary": (
        "tokenizer.vocab_size <= 2**16",
        "tokenizer.vocab_size <= 2**20",
    ),
    "the tokenizer is trained on validation texts": (
        'if not is_validation(row["id"], config.val_fraction)',
        "if True",
    ),
    "the stream is not restored": ('stream.load_state_dict(manifest["stream"])', "pass"),
    "the counts are not restored": ('Counter(manifest["counts"])', "Counter()"),
    "half-written shards stay": ("shutil.rmtree(path)", "pass"),
    "other settings are accepted": ("if saved != value", "if False"),
    "only the sizes of shards are verified": ("elif verify and", "elif False and"),
    "sizes of shards are not verified": (
        'shard["size"]:\n        problem',
        'shard["size"] * 0:\n        problem',
    ),
    "the chunk before a document's first token": ("bisect.bisect_right(", "bisect.bisect_left("),
    "the last document of a slice is missing": (
        "self.ids[i][first : last + 1]",
        "self.ids[i][first:last]",
    ),
    "no cycle walking": ("if i < n:\n            return i", "return i % n"),
    "two Feistel rounds instead of four": ("for turn in range(4)", "for turn in range(2)"),
    "all epochs have the same order": ('f"{self.seed} {epoch}"', 'f"{self.seed}"'),
    "ranks overlap": (
        "self.position += self.world_size * batch_size",
        "self.position += batch_size",
    ),
    "ranks read the same": ("self.position + self.rank * batch_size", "self.position"),
    "the targets before the last block count twice": (
        "y[: planned - start] = -100",
        "y[:0] = -100",
    ),
    "the last block is dropped": (
        "-(-(len(tokens) - 1) // block_size)",
        "(len(tokens) - 1) // block_size",
    ),
    "the position is not restored": (
        'self.seed = state["position"]',
        'self.seed = 0 * state["position"]',
    ),
    "every rank prepares": ("    if draw.rank == 0:\n", "    if True:\n"),
    "a foreign folder is accepted": ("if others and not ours.exists()", "if False"),
    "folders of texts are deleted": ('<= {".arrow", ".json"}', '<= {".arrow", ".json", ".txt"}'),
    "a number of any length names a shard": (r"(train|val)-\d{5}", r"(train|val)-\d+"),
    "an old tokenizer is kept": ('(folder / "tokenizer.json").unlink(missing_ok=True)', "pass"),
    "changed files are accepted": ("[:n] != files[:n]", '[:n] != manifest["files"][:n]'),
    "the files of a finished text are not compared": ('files != manifest.get("files")', "False"),
    "a file name is read as a pattern": ("glob.escape(str(file))", "str(file)"),
    "stray commas are accepted": ('if kind == "csv" else ()', 'if kind == "none" else ()'),
    "subfolders are not read": ("folders[:] = [", "folders[:] = [] and ["),
    "our own folders are read": ("and name not in ours", ""),
    "a licence counts as data": ('startswith(("LICENSE", "README"))', "startswith(())"),
    "files without rows are read": ("if not _is_empty(file)", "if True"),
    "an id of 0 counts as missing": ('if name in (None, "")', "if not name"),
    "a negative start of a slice": (
        "start, stop, _ = slice(start, stop).indices(len(self))",
        "stop = min(stop, len(self))",
    ),
    "another block size is accepted": (
        "(self.blocks, self.block_size) != (blocks, block_size)",
        "self.blocks != blocks",
    ),
    "files are not synced to disk": ("os.fsync(file.fileno())", "pass"),
    "only an OSError is reported in one line": (
        "except Exception as error:\n        if",
        "except OSError as error:\n        if",
    ),
    "two runs in a folder": (
        '_locked(Path(config.folder), ".run.lock") if',
        "contextlib.nullcontext() if",
    ),
    "a tokenizer without END is accepted": ("if END not in tokenizer.special_tokens", "if False"),
    "a final slash makes another folder": ("os.path.normpath(source)", "source"),
    "the reader ignores its rank": (
        "BlockReader(config.train.seed, rank, world)",
        "BlockReader(config.train.seed, 0, 1)",
    ),
    "the model is not seeded": ("torch.manual_seed(train.seed)", "pass"),
    "the loss per token, not the bits per byte": (
        "bits_per_byte(losses[-1] * tokens, n_bytes)",
        "bits_per_byte(losses[-1], 1)",
    ),
    "the preset is not looked up": ('named[-1] if named else "laptop"', '"laptop"'),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("13", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("13", tmp_path, *FAULTS[fault])
