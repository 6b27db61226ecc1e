"""Feed a million random inputs to whatever reads text, tokens, files or requests; none may be lost, none may hang.

    python tests/fuzz.py                                    all targets, a million cases, some minutes
    python tests/fuzz.py templates GGUF --cases 5000
    python tests/fuzz.py GGUF --seed 1 --first 4711 --cases 1    repeat one case
    python tests/fuzz.py --save                             write benchmarks/results/fuzz.json

Case i of a target depends on nothing but the target's name, the seed and i. Each target runs in a process of its own:
a case that raises is listed with the command that repeats it, and so is one that kills the process, or that takes
longer than half a minute. A small part of all this is in `make test` (tests/test_fuzz.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import assistant_models
import bpe_samples
import torch
from damage import damaged, damaged_json, survives
from pretraining_texts import SMALL, documents_of, fineweb, words
from sft_dialogs import CHATS, TALK
from torch.nn import functional as F
from training_runs import tiny

from courseware import paths
from courseware.checks.published import save, trained_tokenizer, write_gguf
from minigpt_lib import families, interop
from minigpt_lib.assistant import Assistant
from minigpt_lib.attention import attention_weights, causal_mask, scaled_dot_product_attention
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.chat import ChatTokenizer, fault_of, format_chatml, format_llama3
from minigpt_lib.checkpoints import load_checkpoint, save_checkpoint, sha256
from minigpt_lib.documents import prepare
from minigpt_lib.generation import filter_logits, sample
from minigpt_lib.packing import BlockReader, PackedTokens, deal, shuffle_index
from minigpt_lib.server import Engine, Limits, application
from minigpt_lib.sft import InstructionDataset
from minigpt_lib.weight_files import read_gguf

sys.path.insert(0, str(paths.ROOT / "benchmarks"))
import rivals

RECORD = rivals.RESULTS / "fuzz.json"
HANG = 30.0  # seconds; the slowest case takes less than one
_MOST_FAULTS = 20  # then a target is given up

Case = Callable[[random.Random], bool]


@dataclass(frozen=True)
class Target:
    """What is fuzzed: `prepare(folder)` returns a function that makes and judges one case.

    The function returns whether the input was accepted, and raises if something is wrong.
    """

    what: str
    cases: int  # of a whole run
    prepare: Callable[[Path], Case]


@dataclass
class Result:
    """How many cases ran, how many of their inputs were accepted, and the faults: (case, error)."""

    cases: int = 0
    accepted: int = 0
    seconds: float = 0.0
    faults: list[tuple[int, str]] = field(default_factory=list)


# --- texts ---

_LIKELY = (
    "'sStTlLvVrReEdmM aAbB09 \n\r\t\x0b\x0c\x1c\x85\u00a0\u2028\u3000.,!-éſ中字😀\u0301\u200d<|>\0"
)
_NAMES = (*bpe_samples.SPECIAL_TOKENS, "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|end")


def _character(chance: random.Random) -> str:
    """Return any character but half of a pair, with the difficult ones more often."""
    if chance.random() < 0.7:
        return chance.choice(_LIKELY)
    code = chance.randrange(0x110000 - 0x800)
    return chr(code if code < 0xD800 else code + 0x800)


def _text(chance: random.Random, longest: int = 40) -> str:
    """Return a text in which names of special tokens occur."""
    pieces = [_character(chance) for _ in range(chance.randrange(longest))]
    for _ in range(chance.randrange(3)):
        pieces.insert(chance.randrange(len(pieces) + 1), chance.choice(_NAMES))
    return "".join(pieces)


def _cut(chance: random.Random, text: str) -> list[str]:
    places = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(5)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)])]


def _refused(attempt: Callable[[], object]) -> None:
    """Fail unless the attempt raises ValueError with a message."""
    try:
        attempt()
    except ValueError as error:
        assert str(error)
        return
    raise AssertionError("what is wrong was accepted")


def _reads(attempt: Callable[[], object], size: int, what: str, chance: random.Random) -> bool:
    """Return whether a file was accepted; count the memory of every fifth attempt."""
    return survives(attempt, size, what, count_memory=chance.random() < 0.2)


# --- tokenizers ---


def _characters(folder: Path) -> Case:
    def case(chance: random.Random) -> bool:
        alphabet = {_character(chance) for _ in range(chance.randrange(1, 20))}
        tokenizer = CharTokenizer.from_text("".join(alphabet))
        text = "".join(chance.choices(tokenizer.alphabet, k=chance.randrange(40)))

        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.vocab_size == len(alphabet) for i in ids)
        assert sorted(alphabet) == [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]

        foreign = _character(chance)
        if foreign not in alphabet:
            _refused(lambda: tokenizer.encode(text + foreign))
        wrong = chance.choice([-1, tokenizer.vocab_size, 2**62])
        _refused(lambda: tokenizer.decode([*ids, wrong]))
        return True

    return case


def _bpe(folder: Path) -> Case:
    tokenizers = [bpe_samples.tokenizer_with(name) for name in bpe_samples.PATTERNS]
    theirs = [tokenizer.to_tiktoken(f"fuzz {i}") for i, tokenizer in enumerate(tokenizers)]
    names = re.compile("|".join(map(re.escape, bpe_samples.SPECIAL_TOKENS)))

    def case(chance: random.Random) -> bool:
        which = chance.randrange(len(tokenizers))
        tokenizer = tokenizers[which]
        special = set(tokenizer.special_tokens.values())
        text = _text(chance, 40 if chance.random() < 0.999 else 40_000)

        plain = tokenizer.encode(text)
        assert tokenizer.decode(plain) == text
        assert special.isdisjoint(plain)

        ids = tokenizer.encode(text, "all")
        assert tokenizer.decode(ids) == text
        assert sum(i in special for i in ids) == len(names.findall(text))
        assert list(tokenizer.encode_iterable(_cut(chance, text), "all")) == ids
        if bpe_samples.DISPUTED.isdisjoint(text):
            assert theirs[which].encode(text, allowed_special="all") == ids

        data = chance.randbytes(chance.randrange(20))
        read = tokenizer.decode([tokenizer.ranks[bytes([byte])] for byte in data])
        assert read == data.decode("utf-8", errors="replace")
        any_ids = [chance.randrange(tokenizer.vocab_size) for _ in range(chance.randrange(10))]
        read = tokenizer.decode(any_ids)
        assert tokenizer.decode(tokenizer.encode(read)) == read

        half = chr(chance.randrange(0xD800, 0xE000))
        _refused(lambda: tokenizer.encode(text + half))
        return True

    return case


def _tokenizer_files(folder: Path) -> Case:
    """Damage the files that the two tokenizers save."""
    CharTokenizer.from_text(bpe_samples.SAMPLE).save(folder / "characters.json")
    bpe_samples.tokenizer_with("gpt2").save(folder / "bpe.json")
    kinds = [(CharTokenizer, "characters.json"), (BPETokenizer, "bpe.json")]
    originals = [(kind, (folder / name).read_bytes()) for kind, name in kinds]
    path = folder / "damaged.json"

    def case(chance: random.Random) -> bool:
        kind, data = chance.choice(originals)
        size = _write_damaged(path, data, chance)

        def attempt() -> None:
            tokenizer = kind.load(path)
            tokenizer.decode(range(0))
            assert tokenizer.vocab_size > 0

        return _reads(attempt, size, kind.__name__, chance)

    return case


def _write_damaged(path: Path, data: bytes, chance: random.Random) -> int:
    """Write a file of JSON with changes to its bytes or to its values; return its size."""
    if chance.random() < 0.4:
        data = damaged(data, chance, len(data))
    elif chance.random() < 0.05:
        data = chance.choice([b"[", b'{"a":']) * chance.randrange(1, 20_000)
    else:
        data = json.dumps(damaged_json(json.loads(data), chance)).encode()
    path.write_bytes(data)
    return len(data)


# --- dialogs ---


def _templates(folder: Path) -> Case:
    written = {"chatml": format_chatml, "llama3": format_llama3}

    def case(chance: random.Random) -> bool:
        messages: Any = _dialog(chance)
        prompt = messages[-1]["role"] != "assistant" and chance.random() < 0.5
        if chance.random() < 0.3:
            messages = damaged_json(messages, chance)
        name = chance.choice(sorted(CHATS))
        chat = CHATS[name]

        answered = messages
        if prompt and isinstance(messages, list) and messages:
            answered = [*messages, {"role": "assistant", "content": "..."}]
        if fault_of(answered, part=True):
            _refused(lambda: chat.render(messages, prompt))
            _refused(lambda: written[name](messages, prompt))
            return False

        ids, labels = chat.render(messages, prompt)
        assert chat.decode(ids) == written[name](messages, prompt)
        assert len(ids) == len(labels)
        assert all(label in (-100, i) for i, label in zip(ids, labels))
        _check_controls(chat, messages, prompt, ids, labels)
        return True

    return case


def _dialog(chance: random.Random) -> list[dict[str, str]]:
    """Return the beginning of a dialog, whose words may name control tokens."""
    messages = []
    if chance.random() < 0.3:
        messages.append({"role": "system", "content": _text(chance, 12) + "."})
    for turn in range(chance.randrange(1, 6)):
        role = ("user", "assistant")[turn % 2]
        messages.append({"role": role, "content": _text(chance, 12) + "."})
    return messages


def _check_controls(
    chat: ChatTokenizer, messages: Any, prompt: bool, ids: list[int], labels: list[int]
) -> None:
    """Assert that no message added a control token, and that each answer is learned with its end."""
    form = chat.form
    turns = len(messages) + prompt
    expected = bool(form.begin) + turns * (1 + bool(form.close)) + len(messages)
    assert sum(i in chat.controls for i in ids) == expected

    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    learned = b""
    ends = 0
    for label in labels:
        assert label not in chat.controls or label == chat.end
        learned += b"" if label == -100 else chat.base._tokens[label]
        if label == chat.end:
            assert learned.endswith((answers[ends] + form.end).encode())
            learned = b""
            ends += 1
    assert ends == len(answers) and not learned


def _conversations(folder: Path) -> Case:
    """Damage the conversations that an assistant saves."""
    assistant = Assistant(assistant_models.tiny(), assistant_models.CHAT, max_new_tokens=8)
    for turn in range(3):
        assistant.add(f"{turn}?", "yes " * turn + "!")
    assistant.save(folder / "talk.json")
    data = (folder / "talk.json").read_bytes()
    path = folder / "damaged.json"

    def case(chance: random.Random) -> bool:
        size = _write_damaged(path, data, chance)
        before = (list(assistant.messages), dict(assistant.settings))
        fine = _reads(lambda: assistant.load(path), size, "a conversation", chance)
        if not fine:
            assert (assistant.messages, assistant.settings) == before
        assert fault_of(assistant.messages, part=True) is None or not assistant.messages
        return fine

    return case


# --- masks and samplers ---


def _masks(folder: Path) -> Case:
    def case(chance: random.Random) -> bool:
        n_queries, n_keys = chance.randrange(1, 12), chance.randrange(1, 12)
        if n_queries > n_keys:
            _refused(lambda: causal_mask(n_queries, n_keys))
            n_queries, n_keys = n_keys, n_queries
        past = causal_mask(n_queries, n_keys)
        first = n_keys - n_queries  # the place of the first query among the keys
        rows = [[key <= first + query for key in range(n_keys)] for query in range(n_queries)]
        assert past.tolist() == rows

        generator = torch.Generator().manual_seed(chance.getrandbits(32))
        q = torch.randn(n_queries, 4, generator=generator) * chance.choice([1e-3, 1.0, 30.0])
        k, v = torch.randn(2, n_keys, 4, generator=generator)
        mask = torch.rand(n_queries, n_keys, generator=generator) < chance.random()
        is_causal = chance.random() < 0.5

        weights = attention_weights(q, k, mask, is_causal)
        allowed = mask & past if is_causal else mask
        assert not weights[~allowed].any() and not weights.isnan().any()
        sums = weights.sum(-1)
        torch.testing.assert_close(sums, allowed.any(-1).float())

        found = scaled_dot_product_attention(q, k, v, mask, is_causal)
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        torch.testing.assert_close(found, expected.nan_to_num(), rtol=1e-4, atol=1e-5)

        if chance.random() < 0.02:
            _check_packed_dialogs(chance)
        return True

    return case


def _check_packed_dialogs(chance: random.Random) -> None:
    """Assert that of dialogs that share a row, each sees itself and nothing else."""
    chat = CHATS[chance.choice(sorted(CHATS))]
    dialogs = chance.choices(TALK, k=chance.randrange(1, 7))
    data = InstructionDataset(dialogs, chat, chance.randrange(60, 200))
    x, y, options = data.batch(range(len(data)))
    mask, positions = options["mask"][:, 0], options["positions"]

    for b in range(len(x)):
        owners = [n for n, i in enumerate(data.rows[b]) for _ in data.items[i][0][1:]]
        T = len(owners)
        same = [[one == other for other in owners] for one in owners]
        assert mask[b, :T, :T].tolist() == same
        assert not mask[b, :T, T:].any() and (y[b, T:] == -100).all()
        starts = [owners.index(owner) for owner in owners]
        assert positions[b, :T].tolist() == [t - start for t, start in enumerate(starts)]


_BAD = {
    "temperature": [-1.0, math.inf, math.nan],
    "top_k": [0, -3, 1.5, True],
    "top_p": [0.0, -0.1, 1.1, math.nan],
    "min_p": [-0.1, 1.1, math.nan],
    "repetition_penalty": [0.0, -1.0, math.inf, math.nan],
}


def _samplers(folder: Path) -> Case:
    def case(chance: random.Random) -> bool:
        B, V = chance.randrange(1, 4), chance.randrange(1, 12)
        generator = torch.Generator().manual_seed(chance.getrandbits(32))
        logits = torch.randn(B, V, generator=generator) * chance.choice([0, 0.01, 1, 5, 1e4, 1e30])
        if chance.random() < 0.3:  # ruled out before; one token of each row is always possible
            out = torch.rand(B, V, generator=generator) < 0.5
            out[torch.arange(B), torch.randint(V, (B,), generator=generator)] = False
            logits = logits.masked_fill(out, -math.inf)

        options: dict[str, Any] = {}
        if chance.random() < 0.6:
            options["temperature"] = chance.choice([0, 1e-30, 1e-3, 0.5, 1.0, 2.0, 1e30])
        if chance.random() < 0.4:
            options["top_k"] = chance.randrange(1, 15)
        if chance.random() < 0.4:
            options["top_p"] = chance.choice([1e-9, 0.1, 0.5, 0.9, 1.0, 1 - chance.random()])
        if chance.random() < 0.4:
            options["min_p"] = chance.choice([0.0, 0.1, 1.0, chance.random()])
        if chance.random() < 0.3:
            options["repetition_penalty"] = chance.choice([1e-3, 0.7, 1.3, 50.0])
            previous = torch.randint(V, (B, chance.randrange(1, 6)), generator=generator)
            options["previous"] = previous

        scores = filter_logits(logits, **options)
        _check_filtered(logits, scores, options)
        row = chance.randrange(B)
        alone = {**options}
        if "previous" in options:
            alone["previous"] = options["previous"][row : row + 1]
        assert torch.equal(filter_logits(logits[row : row + 1], **alone)[0], scores[row])

        ids = sample(scores, generator)
        assert (scores[torch.arange(B), ids] > -math.inf).all()

        name = chance.choice(sorted(_BAD))
        _refused(lambda: filter_logits(logits, **{name: chance.choice(_BAD[name])}))
        return True

    return case


def _check_filtered(logits: torch.Tensor, scores: torch.Tensor, options: dict[str, Any]) -> None:
    """Assert what filter_logits promises, from the probabilities in double precision."""
    assert scores.shape == logits.shape and scores.dtype == torch.float32
    kept = scores > -math.inf
    assert kept.any(-1).all() and not scores.isnan().any() and not (scores == math.inf).any()
    assert not kept[logits == -math.inf].any()
    if "repetition_penalty" in options:
        return  # it changes the order, so nothing below holds

    for row, chosen in zip(logits.double(), kept):
        dropped = row[~chosen]
        assert not len(dropped) or dropped.max() <= row[chosen].min()  # the best are kept

    temperature = options.get("temperature", 1.0)
    if temperature == 0:
        assert (kept.sum(-1) == 1).all()
        assert torch.equal(scores.argmax(-1), logits.argmax(-1))
        return

    if "top_k" in options:
        for row, chosen in zip(logits.float(), kept):
            kth = row.sort(descending=True).values[min(options["top_k"], len(row)) - 1]
            # Division by a huge temperature may round different logits to equals of the k-th.
            assert temperature > 2 or row[chosen].min() >= kth

    alone = options.keys() - {"temperature"}
    probabilities = (logits.double() / temperature).softmax(-1)
    masses = torch.where(kept, probabilities, 0.0)
    if alone == {"top_p"} and 1e-3 <= temperature <= 2:
        least = torch.where(kept, probabilities, math.inf).amin(-1)
        assert (masses.sum(-1) >= options["top_p"] - 1e-5).all()
        assert (masses.sum(-1) - least <= options["top_p"] + 1e-5).all()
    if alone == {"min_p"} and 1e-3 <= temperature <= 2:
        shares = probabilities / probabilities.amax(-1, keepdim=True)
        assert (shares[kept] >= options["min_p"] - 1e-4).all()
        ruled_in = ~kept & (logits > -math.inf)
        assert (shares[ruled_in] <= options["min_p"] + 1e-4).all()


# --- packed tokens ---


def _prepared(folder: Path) -> Path:
    prepare(fineweb(folder / "source", words(60)), folder / "data", SMALL, progress=False)
    return folder / "data"


def _readers(folder: Path) -> Case:
    data = _prepared(folder)
    parts = {}
    for part in ("train", "val"):
        documents = documents_of(data, part)
        ids = [i for document in documents for i in document["input_ids"]]
        owners = [document["id"] for document in documents for _ in document["input_ids"]]
        parts[part] = (PackedTokens(data, part), ids, owners)

    def case(chance: random.Random) -> bool:
        tokens, ids, owners = parts[chance.choice(sorted(parts))]
        edges = [None, 0, len(ids), -1, len(ids) + 5, *(chance.randrange(len(ids)) for _ in "123")]
        a, b = chance.choice(edges), chance.choice(edges)
        assert len(tokens) == len(ids)
        assert tokens[a:b].tolist() == ids[a:b]
        if a is not None and b is not None:
            b = min(b, a + 300) if b > 0 else b
            assert tokens.documents(a, b) == list(dict.fromkeys(owners[a:b]))

        n, key = chance.randrange(1, 60), chance.getrandbits(32)
        assert sorted(shuffle_index(i, n, key) for i in range(n)) == list(range(n))
        position = chance.randrange(3 * n)
        order = deal(0, 4 * n, n, key)
        assert deal(position, n, n, key) == order[position : position + n]
        _check_blocks(chance)
        return True

    return case


def _check_blocks(chance: random.Random) -> None:
    """Assert that every token but the first is a target once an epoch, on any number of ranks."""
    N, T = chance.randrange(1, 60), chance.randrange(1, 12)
    B, W = chance.randrange(1, 4), chance.randrange(1, 4)
    seed = chance.getrandbits(32)
    text = list(range(N))
    readers = [BlockReader(seed, rank, W) for rank in range(W)]
    if N <= T:
        _refused(lambda: readers[0](text, B, T))
        return

    blocks = -(-(N - 1) // T)
    seen: list[int] = []
    drawn = 0
    while drawn < blocks:
        for reader in readers:
            x, y = reader(text, B, T)
            for block_x, block_y in zip(x.tolist(), y.tolist()):
                if drawn < blocks:
                    targets = [t for t in block_y if t != -100]
                    assert all(t == i + 1 for i, t in zip(block_x, block_y) if t != -100)
                    seen += targets
                drawn += 1
    assert sorted(seen) == text[1:]

    other = BlockReader(0, 0, W)
    other.load_state_dict(json.loads(json.dumps(readers[0].state_dict())))
    assert all(map(torch.equal, other(text, B, T), readers[0](text, B, T)))


def _packed(folder: Path) -> Case:
    """Damage a prepared text: the manifest, or a shard, with or without its checksum put right."""
    data = _prepared(folder)
    manifest = data / "manifest.json"
    written = manifest.read_bytes()
    shards = json.loads(written)["shards"]
    total = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())

    def case(chance: random.Random) -> bool:
        shard = chance.choice(shards)
        file = data / shard["name"] / shard["file"]
        before = file.read_bytes()
        if chance.random() < 0.4:
            _write_damaged(manifest, written, chance)
        else:
            file.write_bytes(damaged(before, chance, min(len(before), 1000)))
            if chance.random() < 0.7:
                facts = json.loads(written)
                for entry in facts["shards"]:
                    if entry["name"] == shard["name"]:
                        entry |= {"sha256": sha256(file), "size": file.stat().st_size}
                manifest.write_text(json.dumps(facts), encoding="utf-8")

        def attempt() -> None:
            tokens = PackedTokens(data, shard["part"])
            tokens.documents(0, len(tokens[:50]))

        try:
            return _reads(attempt, total, "a prepared text", chance)
        finally:
            file.write_bytes(before)
            manifest.write_bytes(written)

    return case


# --- models ---


def _published(folder: Path) -> Path:
    save("llama 3.1", folder / "hf", "30KB")
    return folder / "hf"


def whole_gguf(folder: Path) -> tuple[bytes, int]:
    """Return a GGUF file of a small model with a vocabulary, and the length of its header."""
    model, _ = interop.load(_published(folder))
    state = model.state_dict()
    tensors = {
        part.name: part.to_theirs(state[part.ours]) for part in families.parts(model.config, "gguf")
    }
    tensors["rope_freqs.weight"] = families.rope_factors(model.config)
    facts = families.config_to_gguf(model.config)
    path = folder / "whole.gguf"
    write_gguf(path, facts, tensors, trained_tokenizer())
    return path.read_bytes(), min(entry.start for entry in read_gguf(path).entries.values())


def _gguf(folder: Path) -> Case:
    data, header = whole_gguf(folder)
    path = folder / "damaged.gguf"

    def case(chance: random.Random) -> bool:
        changed = damaged(data, chance, header)
        path.write_bytes(changed)
        return _reads(lambda: interop.load(path), len(changed), "GGUF", chance)

    return case


def _safetensors(folder: Path) -> Case:
    copy = _published(folder)
    files = sorted(copy.glob("*.safetensors"))
    return _folder_case(copy, files, lambda content: 8 + int.from_bytes(content[:8], "little"))


def _json(folder: Path) -> Case:
    copy = _published(folder)
    names = ("config.json", "tokenizer.json", "model.safetensors.index.json")
    return _folder_case(copy, [copy / name for name in names])


def _own(folder: Path) -> Case:
    """Change the files that this course saves: they may be somebody else's."""
    model, tokenizer = interop.load(_published(folder))
    model.save_pretrained(folder / "own")
    tokenizer.save(folder / "own" / "tokenizer.json")
    return _folder_case(folder / "own", sorted((folder / "own").iterdir()))


def _start(content: bytes) -> int:
    return min(len(content), 3000)


def _folder_case(folder: Path, files: list[Path], head: Callable[[bytes], int] = _start) -> Case:
    """Return cases that damage one of the files of a model; head(content): how many bytes most damage is done to."""
    originals = {file: file.read_bytes() for file in files}
    total = sum(file.stat().st_size for file in folder.iterdir())

    def case(chance: random.Random) -> bool:
        file = chance.choice(files)
        before = originals[file]
        if file.suffix == ".json":
            _write_damaged(file, before, chance)
        else:
            file.write_bytes(damaged(before, chance, head(before)))
        try:
            return _reads(lambda: interop.load(folder), total, file.name, chance)
        finally:
            file.write_bytes(before)

    return case


def _checkpoints(folder: Path) -> Case:
    """Damage a checkpoint, with or without its checksums put right, as only a person would."""
    model = tiny()
    place = folder / "last"
    state = {"step": torch.tensor(7), "numbers": [1, 2.5, "three"], "moments": torch.randn(9, 9)}
    save_checkpoint(place, model, state, step=7, train={"steps": 20, "lr": 0.1})
    originals = {file: file.read_bytes() for file in sorted(place.iterdir())}
    total = sum(map(len, originals.values()))

    def case(chance: random.Random) -> bool:
        file = chance.choice(list(originals))
        before = originals[file]
        if file.suffix == ".json":
            _write_damaged(file, before, chance)
        else:
            file.write_bytes(damaged(before, chance, len(before)))
        forged = chance.random() < 0.7 and file.name != "SHA256SUMS"
        if forged:
            files = [other for other in originals if other.name != "SHA256SUMS"]
            sums = "".join(f"{sha256(other)}  {other.name}\n" for other in files)
            (place / "SHA256SUMS").write_text(sums, encoding="utf-8")

        unchanged = file.read_bytes() == before
        try:
            fine = _reads(
                lambda: load_checkpoint(place, model, {"steps": 20}), total, file.name, chance
            )
        finally:
            file.write_bytes(before)
            (place / "SHA256SUMS").write_bytes(originals[place / "SHA256SUMS"])
        assert forged or unchanged or not fine or file.name == "SHA256SUMS", "damage not noticed"
        return fine

    return case


# --- the server ---


def _server(folder: Path) -> Case:
    limits = Limits(bytes=5000, tokens=3)
    engine = Engine(assistant_models.tiny(), assistant_models.CHAT, limits=limits)
    app = application(engine, "tiny")
    loop = asyncio.new_event_loop()
    usual = {"max_tokens": 3, "temperature": 1.0, "top_p": 0.9, "seed": 1, "stop": ["z"]}

    def case(chance: random.Random) -> bool:
        chat = chance.random() < 0.6
        asked: Any = {"model": "tiny", "stream": chance.random() < 0.3, **usual}
        asked |= {"messages": _dialog(chance)} if chat else {"prompt": _text(chance) + "."}
        kind = chance.random()
        if kind < 0.5:
            asked = damaged_json(asked, chance)
        body = json.dumps(asked).encode()
        if kind > 0.8:
            body = damaged(body, chance, len(body))
        elif kind > 0.79:
            body = b"[" * chance.randrange(1, 6000)

        path = "/v1/chat/completions" if chat else "/v1/completions"
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        if chance.random() < 0.05:
            path = chance.choice(["/", "/v1", "/v1/models/" + _text(chance), path + "/", "/docs"])
        if chance.random() < 0.05:
            headers[chance.randrange(2)] = (b"host", chance.randbytes(9))
        status, answer = loop.run_until_complete(_request(app, path, headers, body, chance))

        assert 200 <= status < 500, f"{status}: {answer!r}"
        if status >= 400 and answer.startswith(b"{"):
            assert json.loads(answer)["error"]["message"]
        return status == 200

    return case


async def _request(
    app: Any, path: str, headers: list[tuple[bytes, bytes]], body: bytes, chance: random.Random
) -> tuple[int, bytes]:
    """Send one request to the application, its body in pieces, and return status and answer."""
    cuts = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(3)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)])]
    sent: list[dict[str, Any]] = []
    ended = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if pieces:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        sent.append(event)
        if event["type"] == "http.response.body" and not event.get("more_body"):
            ended.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    async with asyncio.timeout(HANG):
        await app(scope, receive, send)
    answer = b"".join(event.get("body", b"") for event in sent)
    return sent[0]["status"], answer


# --- running ---

TARGETS = {
    "characters": Target("character tokenizer, round trips", 800_000, _characters),
    "BPE": Target("BPE tokenizers, round trips and tiktoken", 200_000, _bpe),
    "templates": Target("chat templates and labels", 60_000, _templates),
    "masks": Target("causal, random and packed masks", 20_000, _masks),
    "samplers": Target("filters of logits, and sampling", 20_000, _samplers),
    "readers": Target("packed tokens, blocks and their order", 10_000, _readers),
    "tokenizer files": Target("files of our tokenizers", 10_000, _tokenizer_files),
    "conversations": Target("saved conversations", 10_000, _conversations),
    "packed": Target("prepared texts: manifest and shards", 10_000, _packed),
    "checkpoints": Target("checkpoints", 10_000, _checkpoints),
    "own": Target("folders of our models", 10_000, _own),
    "GGUF": Target("GGUF files", 10_000, _gguf),
    "safetensors": Target("safetensors of a published model", 10_000, _safetensors),
    "JSON": Target("JSON of a published model", 10_000, _json),
    "server": Target("requests to the server", 10_000, _server),
}


def run(
    name: str,
    cases: int,
    seed: int = 1,
    first: int = 0,
    begins: Callable[[int], object] = lambda i: None,
) -> Result:
    """Run cases of a target in this process; begins(i) is called before case i."""
    result = Result()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        case = TARGETS[name].prepare(Path(folder))
        for i in range(first, first + cases):
            begins(i)
            result.cases += 1
            try:
                result.accepted += case(random.Random(f"{name} {seed} {i}"))
            except Exception:
                result.faults.append((i, traceback.format_exc()))
                if len(result.faults) == _MOST_FAULTS:
                    break
    result.seconds = time.monotonic() - began
    return result


def _work(name: str, cases: int, seed: int, first: int, place: Any, sender: Any) -> None:
    torch.set_num_threads(1)

    def begins(i: int) -> None:
        place.value = i

    sender.send(run(name, cases, seed, first, begins))


def watched(name: str, cases: int, seed: int = 1, first: int = 0) -> Result:
    """Run cases in a process of their own; a case that kills it, or hangs, is a fault too."""
    # A fork has all imports already. What is imported has started no thread that it could miss.
    context: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    place = context.Value("q", -1, lock=False)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, cases, seed, first, place, sender))
    process.start()
    sender.close()

    began = last = time.monotonic()
    reached = -1
    fault = ""
    while not fault and not receiver.poll(1):
        now = time.monotonic()
        if place.value != reached:
            reached, last = place.value, now
        if now - last > HANG + 60 * (reached < 0):  # it begins with imports and preparations
            fault = f"hung for {now - last:.0f} seconds"
            process.kill()

    try:
        result = receiver.recv() if not fault else None
    except EOFError:
        process.join()
        fault = f"the process died: status {process.exitcode}"
        result = None
    process.join()
    if result is None:
        done = max(0, place.value - first)
        result = Result(done, 0, time.monotonic() - began, [(place.value, fault)])
    return result


def _save(row: dict[str, Any]) -> None:
    """Put the row of a target in the place of its older one."""
    rows = []
    if RECORD.exists():
        rows = json.loads(RECORD.read_text(encoding="utf-8"))["targets"]
    rows = [other for other in rows if other["target"] != row["target"]] + [row]
    order = list(TARGETS)
    content = {
        "what": "Random inputs for whatever reads text, tokens, files or requests.",
        "command": "python tests/fuzz.py --save",
        "hardware": rivals.hardware(),
        "targets": sorted(rows, key=lambda row: order.index(row["target"])),
    }
    rivals.save(RECORD, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", help=f"{', '.join(TARGETS)}; all by default")
    parser.add_argument("--cases", type=int, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--save", action="store_true", help=f"in {RECORD.relative_to(paths.ROOT)}")
    chosen = parser.parse_args()

    failed = False
    for name in chosen.targets or TARGETS:
        cases = chosen.cases or TARGETS[name].cases
        result = watched(name, cases, chosen.seed, chosen.first)
        print(
            f"{name:16} {result.cases:9,} cases, {result.accepted:9,} accepted, "
            f"{len(result.faults)} faults, {result.seconds:.0f} s",
            flush=True,
        )
        for i, error in result.faults:
            repeat = f"python tests/fuzz.py '{name}' --seed {chosen.seed} --first {i} --cases 1"
            print(f"{error}\nrepeat with: {repeat}\n", flush=True)
        failed = failed or bool(result.faults)

        if chosen.save:
            _save(
                {
                    "target": name,
                    "what": TARGETS[name].what,
                    "cases": result.cases,
                    "accepted": result.accepted,
                    "faults": len(result.faults),
                    "seed": chosen.seed,
                    "seconds": round(result.seconds),
                }
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
