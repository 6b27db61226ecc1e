"""Chapter 13: its checks accept the pretraining and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
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
    "blanks count as text": ("not text.strip()", "not text"),
    "the greatest length is too long": (
        "len(text) > config.max_chars",
        "len(text) >= config.max_chars",
    ),
    "END is left out": ("tokenizer.encode(text) + end", "tokenizer.encode(text)"),
    "END in a text becomes a control token": (
        "tokenizer.encode(text) + end",
        'tokenizer.encode(text, "all") + end',
    ),
    "16 bits for any vocabulary": (
        "tokenizer.vocab_size <= 2**16",
        "tokenizer.vocab_size <= 2**20",
    ),
    "the counts are not restored": ('Counter(manifest["counts"])', "Counter()"),
    "half-written shards stay": ("shutil.rmtree(path)", "pass"),
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
    "every rank prepares": ("    if rank == 0:\n", "    if True:\n"),
    "folders of texts are deleted": ('<= {".arrow", ".json"}', '<= {".arrow", ".json", ".txt"}'),
    "a number of any length names a shard": (r"(train|val)-\d{5}", r"(train|val)-\d+"),
    "an old tokenizer is kept": ('(folder / "tokenizer.json").unlink(missing_ok=True)', "pass"),
    "files without rows are read": ("if not _is_empty(file)", "if True"),
    "a negative start of a slice": (
        "start, stop, _ = slice(start, stop).indices(len(self))",
        "stop = min(stop, len(self))",
    ),
    "another block size is accepted": (
        "(self.blocks, self.block_size) != (blocks, block_size)",
        "self.blocks != blocks",
    ),
    "files are not synced to disk": ("os.fsync(written.fileno())", "pass"),
    "only an OSError is reported in one line": (
        "except Exception as error:\n        if",
        "except OSError as error:\n        if",
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
    "a Ctrl-C that was swallowed before is lost": (
        "    if interrupted():  # before",
        "    if False:  # before",
    ),
    "a swallowed Ctrl-C is lost": (
        "            if interrupted():\n                raise",
        "            if False:\n                raise",
    ),
    "a second Ctrl-C leaves the shard that is being written": (
        "        if first:\n",
        "        if True:\n",
    ),
    "a file that is cut short is not named": ('size = f"{file} (', 'size = f"{file.parent} ('),
    "the least score is too low": (
        "(score or 0) < config.min_score",
        "(score or 0) <= config.min_score",
    ),
    "a document without an id is numbered": (
        "identity = hashlib.sha256(raw).hexdigest()[:32]",
        "identity = repr(id(row))",
    ),
    "split by Python's hash": (
        'int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")',
        "hash(identity) % 2**64",
    ),
    "the hash is read in little-endian order": ('digest()[:8], "big"', 'digest()[:8], "little"'),
    "the tokenizer is trained on validation texts": (
        "if not is_validation(document.identity, split)",
        "if True",
    ),
    "the stream is not restored": ("rows.load_state_dict(place)", "pass"),
    "other settings are accepted": ("if saved.get(name) != value", "if False"),
    "all epochs have the same order": ('f"{seed} {epoch}"', 'f"{seed}"'),
    "a foreign folder is accepted": (
        'if others and not (folder / "manifest.json").exists()',
        "if False",
    ),
    "changed files are accepted": ("if before[:begun] != files[:begun]", "if False"),
    "the files of a finished text are not compared": ("if files and files != before", "if False"),
    "stray commas are accepted": ("if None in row:", "if False:"),
    "subfolders are not read": ("folders[:] = kept", "folders[:] = []"),
    "our own folders are read": ("and not ours", ""),
    "a licence counts as data": ("startswith(beside)", "startswith(())"),
    "an id of 0 counts as missing": ('if identity in (None, "")', "if not identity"),
    "the preset is not looked up": ('_option(argv, "--preset") or "laptop"', '"laptop"'),
    "two runs in a folder": (
        'locked(Path(config.folder), ".run.lock") if',
        "contextlib.nullcontext() if",
    ),
    "an error of the last shard is lost": (
        "                raise KeyboardInterrupt\n        written.result()\n",
        "                raise KeyboardInterrupt\n",
    ),
    "an error of an earlier shard is lost": ("written.result()  # raises", "written  # raises"),
    "a part may stay empty": ("return sum(nearest) / 2 / 2**64", "return fraction"),
    "linked folders are left out": ("followlinks=True", "followlinks=False"),
    "another text column is ignored": (
        "_column(row, config.text_column, str",
        "_column(row, 'text', str",
    ),
    "the warm-up does not fit a short run": ("args=_fit_warmup(argv, preset)", "args=argv"),
    "characters per token are always measured": ("if train.chars_per_token == 1.0:", "if True:"),
    "a device is not looked at before the preparation": (
        "_refuse_device(config.train.device)",
        "pass",
    ),
    "a run cannot be made longer": ('{"change": ["steps"]}', "{}"),
    "Ctrl-C does not say what was saved": (
        "raise KeyboardInterrupt(_after_interrupt(config)) from None",
        "raise",
    ),
    "one document more than asked is kept": (
        'if counts["kept"] == config.max_documents:',
        'if counts["kept"] == (config.max_documents or -2) + 1:',
    ),
    "a NUL byte is text": ('if b"\\0" in file.read_bytes():', "if False:"),
    "rows are counted from 0": ("enumerate(lines, 1)", "enumerate(lines)"),
    "the place in a file is lost": ("itertools.islice(rows, self.row, None)", "rows"),
    "documents drawn last are not named": (
        "self._drawn = deal(first",
        "_ = self._drawn = [] or deal(0",
    ),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("13", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("13", tmp_path, *FAULTS[fault])
