"""Chapter 02: saved tokenizers, exchange with tiktoken, and OpenAI's own vocabularies."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import tiktoken
from bpe_samples import PATTERNS, SAMPLE, tokenizer_with
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt_lib.bpe import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer, GPTTokenizer, train_bpe

SINGLE_BYTES = {bytes([b]): b for b in range(256)}

# ---------------------------------------------------------------- files


@settings(max_examples=10, deadline=None)
@given(vocab_size=st.integers(259, 330))
def test_a_saved_tokenizer_can_be_loaded(tmp_path_factory, vocab_size):
    folder = tmp_path_factory.mktemp("saved")
    tokenizer = train_bpe(SAMPLE, vocab_size, ["<|é\n|>", "<|b|>"], GPT4_PATTERN)

    tokenizer.save(folder / "t.json")
    loaded = BPETokenizer.load(folder / "t.json")

    assert loaded.ranks == tokenizer.ranks
    assert loaded.special_tokens == tokenizer.special_tokens
    assert loaded.pattern == GPT4_PATTERN
    assert loaded.encode(SAMPLE) == tokenizer.encode(SAMPLE)
    assert [path.name for path in folder.iterdir()] == ["t.json"]


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "t.json"
    train_bpe("to be or not to be", 270).save(path)
    content = path.read_bytes()

    for n in range(0, len(content), 37):
        path.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"BPETokenizer.save, got .*t\.json"):
            BPETokenizer.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"{}",
        b"[1, 2, 3, 4]",
        b'{"type": "CharTokenizer", "alphabet": "ab"}',
        json.dumps(["BPETokenizer 2", {}, {}, GPT2_PATTERN]).encode(),
        json.dumps(["BPETokenizer 1", {}, {}, GPT2_PATTERN]).encode(),
        json.dumps(["BPETokenizer 1", {"a": 0}, {}, GPT2_PATTERN, "<unk>"]).encode(),
        json.dumps(["BPETokenizer 1", {"a": 0}, {"<unk>": 1}, "x", "<unk>", 2]).encode(),
        json.dumps(["BPETokenizer 1", {chr(b): b for b in range(256)}, {"<s>": 5}, "x"]).encode(),
        json.dumps(["BPETokenizer 1", {chr(b): str(b) for b in range(256)}, {}, "x"]).encode(),
        json.dumps(["BPETokenizer 1", {chr(b): b - 1 for b in range(256)}, {}, "x"]).encode(),
        json.dumps(["BPETokenizer 1", {"\u4e2d": 0}, {}, "x"]).encode(),
        json.dumps(["BPETokenizer 1", [1], {}, "x"]).encode(),
        json.dumps(["BPETokenizer 1", {"a": 0}, {}, "*"]).encode(),
        b"[" * 9999,
    ],
)
def test_a_file_that_does_not_hold_a_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="expected a file of BPETokenizer.save"):
        BPETokenizer.load(path)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        BPETokenizer.load(tmp_path / "none.json")


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.json"
    train_bpe("ab", 257).save(path)
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        train_bpe("abc", 258).save(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("ranks", "special", "part"),
    [
        ({}, {}, "at least one token"),
        (SINGLE_BYTES | {b"ab": 255}, {}, "id >= 0 of its own"),
        ({bytes([b]): b - 1 for b in range(256)}, {}, "id >= 0 of its own"),
        (SINGLE_BYTES, {"<s>": 7}, "id >= 0 of its own"),
        (SINGLE_BYTES | {b"": 256}, {}, "none of them empty"),
    ],
)
def test_an_invalid_vocabulary_is_refused(ranks, special, part):
    with pytest.raises(ValueError, match=part):
        BPETokenizer(ranks, special)


def test_a_vocabulary_that_lacks_bytes_survives_a_file_and_a_pickle(tmp_path):
    tokenizer = BPETokenizer({b"a": 5, b"\xff": 9}, {"<unk>": 2}, GPT4_PATTERN, unk_token="<unk>")
    tokenizer.save(tmp_path / "t.json")

    for copy in (BPETokenizer.load(tmp_path / "t.json"), pickle.loads(pickle.dumps(tokenizer))):
        assert (copy.ranks, copy.special_tokens) == (tokenizer.ranks, tokenizer.special_tokens)
        assert (copy.pattern, copy.unk_token) == (GPT4_PATTERN, "<unk>")
        assert copy.encode("ab") == [5, 2]


def test_an_unknown_token_must_be_special():
    with pytest.raises(ValueError, match="'<unk>'"):
        BPETokenizer(SINGLE_BYTES, unk_token="<unk>")


# ---------------------------------------------------------------- tiktoken and OpenAI


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_tokenizer_survives_the_way_to_tiktoken_and_back(pattern):
    tokenizer = tokenizer_with(pattern)

    encoding = tokenizer.to_tiktoken("x")
    back = BPETokenizer.from_tiktoken(encoding)

    assert back.ranks == tokenizer.ranks
    assert back.special_tokens == tokenizer.special_tokens
    assert back.pattern == tokenizer.pattern
    assert back.vocab_size == encoding.n_vocab


def test_offline_the_error_says_what_to_do(monkeypatch):
    import requests

    def unreachable(*_, **__):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    monkeypatch.setattr(requests, "get", unreachable)
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})

    with pytest.raises(ConnectionError) as error:
        GPTTokenizer("gpt2")

    for part in ("'gpt2'", "TIKTOKEN_CACHE_DIR", "train_bpe"):
        assert part in str(error.value)


def test_a_name_that_tiktoken_does_not_know_is_refused():
    with pytest.raises(ValueError, match="gpt9"):
        GPTTokenizer("gpt9")


@pytest.fixture(scope="module")
def gpt2() -> GPTTokenizer:
    try:
        return GPTTokenizer("gpt2")
    except ConnectionError as error:
        pytest.skip(f"GPT-2's vocabulary is not cached and cannot be downloaded: {error}")


def test_gpt2_has_its_published_vocabulary(gpt2):
    assert gpt2.vocab_size == 50257
    assert gpt2.special_tokens == {"<|endoftext|>": 50256}
    assert len(gpt2.merges) == 50000
    assert all(len(pair) == 2 for pair in gpt2.merges)


@pytest.mark.parametrize("text", [SAMPLE, "z" * 5000], ids=["sample", "one letter"])
def test_gpt2_encodes_as_tiktoken_does(gpt2, text):
    ids = gpt2.encode(text)

    assert ids == gpt2.encoding.encode_ordinary(text)
    assert gpt2.decode(ids) == text


def test_gpt2_gives_the_published_ids(gpt2):
    assert gpt2.encode("To be, or not to be") == [2514, 307, 11, 393, 407, 284, 307]


def test_gpt2_can_be_pickled(gpt2):
    copy = pickle.loads(pickle.dumps(gpt2))

    assert copy.encode(SAMPLE) == gpt2.encode(SAMPLE)
