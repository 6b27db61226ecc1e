"""Byte pair encoding: properties over any text, faults, and agreement with tiktoken and a naive trainer."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import sys
import time
import tracemalloc
import unicodedata
from collections import Counter

import pytest
import regex
import tiktoken
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minigpt_lib import bpe
from minigpt_lib.bpe import (
    GPT2_PATTERN,
    GPT4_PATTERN,
    BPETokenizer,
    GPTTokenizer,
    split_text,
    train_bpe,
)

PATTERNS = (GPT2_PATTERN, GPT4_PATTERN)
SAMPLE = (
    "KING HENRY:\nOnce more unto the breach, dear friends, once more;\nOr close the wall up with our "
    "English dead. It's 1599; they'll say 'twas LEAR'S.\n\n  naïve café — 中文字中文, 日本語 "
    "👩‍👩‍👧 😀😀 e\u0301e\u0301 मनुष्य עברית\r\n\tx = y[10] + 12345  \n"
) * 3


def _disputed() -> set[str]:
    """Return the characters that the regular expressions of `regex` and tiktoken class differently.

    Both carry Unicode's tables, of the version that was new when they were made. A character that only
    the newer one knows as a letter or a digit may be split otherwise; everything else must agree.
    """
    every = "".join(chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000)
    differ = set()
    for kind in (r"\p{L}", r"\p{N}", r"\s"):
        single = {bytes([b]): b for b in range(256)}
        rust = tiktoken.Encoding("x", pat_str=kind, mergeable_ranks=single, special_tokens={})
        theirs = rust.decode(rust.encode_ordinary(every))
        differ |= set(theirs) ^ set(regex.findall(kind, every))
    return differ


DISPUTED = _disputed()
# Weighted towards what the patterns treat in its own way, but every character can come.
TEXT = st.text(
    st.one_of(
        st.sampled_from(
            "'sStTlLvVrReEdmM aAbB09 \n\r\t\x0b\x0c\x1c\x85\u00a0\u2028\u3000.,!-éſ中字😀\u0301\u200d"
        ),
        st.characters(exclude_categories=["Cs"]).filter(lambda c: c not in DISPUTED),
    ),
    max_size=60,
)


@pytest.fixture(scope="module", params=PATTERNS, ids=["gpt2", "gpt4"])
def tokenizer(request) -> BPETokenizer:
    return train_bpe(SAMPLE, 420, ["<|endoftext|>", "<|end|>"], request.param)


def naive_merges(chunks, n_merges: int) -> list[tuple[bytes, bytes]]:
    words = [[bytes([b]) for b in chunk.encode()] for chunk in chunks]
    merges = []
    while len(merges) < n_merges:
        counts = Counter(pair for word in words for pair in itertools.pairwise(word))
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [word[i] + word[i + 1]]
                i += 1
    return merges


# Splitting


def test_only_characters_unknown_to_this_python_are_disputed():
    assert all(unicodedata.category(c) == "Cn" for c in DISPUTED)


def test_the_patterns_are_tiktokens_own():
    from tiktoken_ext import openai_public

    assert openai_public.r50k_pat_str == GPT2_PATTERN


def test_ascii_twin_splits_every_short_string_alike():
    letters = "sL' 0!\n\r\t\x1c"  # one of each kind that the patterns tell apart
    strings = ["".join(p) for n in range(6) for p in itertools.product(letters, repeat=n)]
    for pattern in PATTERNS:
        full, twin = regex.compile(pattern), bpe._ASCII_TWIN[pattern]
        for text in strings:
            assert twin.findall(text) == full.findall(text), repr(text)


def test_ascii_twin_knows_every_ascii_character():
    for pattern in PATTERNS:
        full, twin = regex.compile(pattern), bpe._ASCII_TWIN[pattern]
        for a, b in itertools.product(map(chr, range(128)), repeat=2):
            for text in (a + b, "x" + a + b, f"'{a}{b}"):
                assert twin.findall(text) == full.findall(text), repr(text)


def test_a_safe_cut_never_changes_the_chunks():
    letters = "sL' 0!\n\r\té"
    for pattern in PATTERNS:
        full = regex.compile(pattern)
        for parts in itertools.product(letters, repeat=5):
            text = "".join(parts)
            for cut in bpe._SAFE_CUT.finditer(text):
                i = cut.start()
                assert full.findall(text[:i]) + full.findall(text[i:]) == full.findall(text)


@given(
    st.lists(TEXT, min_size=2, max_size=2),
    st.sampled_from(PATTERNS),
    st.sampled_from(["x y", "x\ny", "é 中", "! 1", "9\n'"]),
)
def test_a_safe_cut_is_safe_in_any_text(sides, pattern, middle):
    text = middle.join(sides)
    expected = regex.findall(pattern, text)
    for cut in bpe._SAFE_CUT.finditer(text):
        i = cut.start()
        assert regex.findall(pattern, text[:i]) + regex.findall(pattern, text[i:]) == expected


@given(TEXT, st.sampled_from(PATTERNS), st.integers(1, 20))
def test_split_text_is_the_plain_pattern(text, pattern, size):
    previous, bpe._PIECE = bpe._PIECE, size
    try:
        assert list(split_text(text, pattern)) == regex.findall(pattern, text)
    finally:
        bpe._PIECE = previous


# Learning


@given(st.text("ab c", max_size=60) | TEXT, st.integers(0, 40))
@example("aaaa aaa aa abab baba", 20)
@example("a\x00 a \x00a \x00\x00a b\x00", 20)
def test_merges_equal_the_naive_ones(text, n):
    tokenizer = train_bpe(text, 256 + n)
    merges = naive_merges(list(split_text(text)), n)
    assert [left + right for left, right in merges] == list(tokenizer.ranks)[256:]
    assert tokenizer.merges == merges


@given(
    TEXT,
    st.integers(256, 300),
    st.lists(st.sampled_from(["<|a|>", "<|b|>", "<|a|>x"]), unique=True),
)
def test_numbering(text, vocab_size, special):
    if vocab_size < 256 + len(special):
        vocab_size += 3
    tokenizer = train_bpe(text, vocab_size, special)
    assert [tokenizer.ranks[bytes([b])] for b in range(256)] == list(range(256))
    ids = [*tokenizer.ranks.values(), *tokenizer.special_tokens.values()]
    assert ids == list(range(tokenizer.vocab_size))
    assert tokenizer.vocab_size <= vocab_size and list(tokenizer.special_tokens) == special


def test_documents_are_learned_from_one_by_one():
    assert train_bpe(["ab", "ab"], 258).ranks == train_bpe("ab!ab", 257).ranks
    assert train_bpe(iter(["ab cd", "ab"]), 260).ranks == train_bpe("ab cd\nab", 260).ranks


def test_a_text_with_too_few_pairs_gives_a_smaller_vocabulary():
    assert train_bpe("hi", 1000, ["<|end|>"]).vocab_size == 258
    assert train_bpe("", 300).vocab_size == 256


def test_the_order_of_the_text_does_not_matter():
    words = SAMPLE.split(" ")
    assert train_bpe(words, 400).ranks == train_bpe(words[::-1], 400).ranks


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("a", 255), "got 255"),
        (("a", 257, ["<a>", "<b>"]), "got 257"),
        (("a", 300, "<|end|>"), "a list"),
        (("a\ud83d", 300), "U+D83D at position 1"),
        (("a", 300, ["<\udc00>"]), "surrogates"),
        (("a", 300, [""]), "none of them empty"),
        (("a", 300, [], r"(\w+)"), "without groups"),
    ],
)
def test_refused_training(arguments, part):
    with pytest.raises(ValueError) as error:
        train_bpe(*arguments)
    assert part in str(error.value)


# Encoding and decoding


@settings(max_examples=400)
@given(TEXT)
@example("z" * 1000)
@example("'S 'LL it'ſ \u212a's")
@example("a\r\n\r\n b \n\n\n  c   ")
def test_ids_are_tiktokens_and_the_round_trip_is_exact(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids == tokenizer.to_tiktoken("x").encode_ordinary(text)
    assert tokenizer.decode(ids) == text


@settings(max_examples=60)
@given(TEXT.filter(str.strip), TEXT)
def test_ids_are_tiktokens_for_a_vocabulary_of_the_text_itself(text, other):
    tokenizer = train_bpe(text * 3, 320, pattern=GPT4_PATTERN)
    theirs = tokenizer.to_tiktoken("x")
    for one in (text, other + text, text * 2):
        assert tokenizer.encode(one) == theirs.encode_ordinary(one)


@given(st.binary(max_size=30), st.data())
def test_ids_are_tiktokens_for_ranks_that_nobody_trained(extra, data):
    """Ranks in any order, with tokens that no merge leads to: the rule is tiktoken's all the same."""
    tokens = {extra[i : i + n] for i in range(len(extra)) for n in (2, 3, 4)} - {b""}
    tokens = sorted(tokens | {bytes([b]) for b in range(256)})
    ids = (
        data.draw(st.permutations(range(len(tokens)))) if len(tokens) < 300 else range(len(tokens))
    )
    tokenizer = BPETokenizer(dict(zip(tokens, ids)), pattern=r"(?s:.+)")
    text = extra.decode("utf-8", "replace") * 2
    assert tokenizer.encode(text) == tokenizer.to_tiktoken("x").encode_ordinary(text)


@given(st.lists(st.integers(0, 419), max_size=40))
def test_any_ids_decode_as_tiktoken_decodes_them(tokenizer, ids):
    assert tokenizer.decode(ids) == tokenizer.to_tiktoken("x").decode(ids)


def test_decode_accepts_arrays():
    torch = pytest.importorskip("torch")
    tokenizer = train_bpe(SAMPLE, 300)
    ids = tokenizer.encode("once more")
    assert (
        tokenizer.decode(torch.tensor(ids))
        == tokenizer.decode(torch.tensor(ids).numpy())
        == "once more"
    )


@pytest.mark.parametrize("bad", [-1, 420, 10**12])
def test_an_id_of_nobody_is_refused_by_name_and_place(tokenizer, bad):
    tokens = [65, 66, bad, 67]
    with pytest.raises(ValueError, match=rf"below 420, got {bad} at position 2"):
        tokenizer.decode(tokens)


@given(TEXT, TEXT, st.integers(0xD800, 0xDFFF))
def test_a_lone_surrogate_is_refused_by_name_and_place(tokenizer, before, after, code):
    text = before + chr(code) + after
    message = rf"surrogate, U\+{code:04X} at position {len(before)}$"
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(text)
    with pytest.raises(ValueError, match=message):
        list(tokenizer.encode_iterable(text))


def test_the_cache_is_bounded_and_keeps_no_long_chunk():
    tokenizer = train_bpe("", 256)
    text = " ".join(f"{a}x{b}" for a in range(700) for b in range(300))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    tokenizer.encode("b" * 1000)
    tokenizer._cache.update({str(i): () for i in range(2**17)})
    tokenizer.encode("new")
    assert len(tokenizer._cache) == 1 and "b" * 1000 not in tokenizer._cache


def test_a_copy_for_another_process_is_the_same_without_the_cache(tokenizer):
    tokenizer.encode(SAMPLE)
    size = len(pickle.dumps(tokenizer))
    tokenizer.encode("a quite different text")
    assert len(pickle.dumps(tokenizer)) == size
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode(SAMPLE) == tokenizer.encode(SAMPLE) and copy._cache is not tokenizer._cache


@pytest.mark.parametrize(("letter", "size"), [("a", 1_000_000), ("中", 200_000), (" ", 200_000)])
def test_a_megabyte_of_one_letter_takes_seconds(letter, size):
    data = letter.encode()
    ranks = {bytes([b]): b for b in range(256)}
    for token in [data[:2], data, *(data * 2**k for k in range(1, 11))]:
        ranks.setdefault(token, len(ranks))
    tokenizer, text = BPETokenizer(ranks), letter * (size // len(data))
    start = time.perf_counter()
    ids = tokenizer.encode(text)
    assert time.perf_counter() - start < 30
    assert tokenizer.decode(ids) == text and len(ids) < len(text) / 100


# Special tokens


@given(TEXT)
def test_ordinary_text_never_gives_a_special_token(tokenizer, text):
    special = set(tokenizer.special_tokens.values())
    assert not special & set(tokenizer.encode(f"{text}<|endoftext|>{text}<|end|>"))


@given(st.lists(TEXT | st.sampled_from(["<|endoftext|>", "<|end|>", "<|end", "|>"]), max_size=6))
def test_special_tokens_where_allowed_as_tiktoken(tokenizer, parts):
    text, theirs = "".join(parts), tokenizer.to_tiktoken("x")
    for allowed in ("all", {"<|end|>"}, set()):
        ids = tokenizer.encode(text, allowed_special=allowed)
        assert ids == theirs.encode(text, allowed_special=allowed, disallowed_special=())
        assert tokenizer.decode(ids) == text


def test_the_longest_special_token_wins():
    tokenizer = train_bpe("", 259, ["<s>", "<s><s>", "<s>x"])
    assert tokenizer.encode("<s><s><s>x<s>", "all") == [257, 258, 256]


def test_an_unknown_special_token_is_refused(tokenizer):
    with pytest.raises(ValueError, match="pad"):
        tokenizer.encode("a", {"<|pad|>"})


# Streaming


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, max_size=8), st.integers(1, 12))
def test_a_stream_gives_the_ids_of_the_whole(tokenizer, chunks, size):
    previous, bpe._PIECE = bpe._PIECE, size  # small pieces, so that a short text is cut often
    try:
        streamed = list(tokenizer.encode_iterable(chunks))
    finally:
        bpe._PIECE = previous
    assert streamed == tokenizer.encode("".join(chunks))


def test_a_stream_under_an_unknown_pattern_gives_the_ids_of_the_whole():
    tokenizer = train_bpe(SAMPLE, 400, pattern=r"\S+\s*|\s+")
    assert list(tokenizer.encode_iterable(SAMPLE)) == tokenizer.encode(SAMPLE)


def test_a_stream_of_any_length_needs_little_memory(tokenizer):
    line = "Once more unto the breach, dear friends, once more;\n"
    tracemalloc.start()
    n = sum(1 for _ in tokenizer.encode_iterable(line for _ in range(40_000)))  # 2 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 40_000 * len(tokenizer.encode(line + line)) // 2
    assert peak < 1_500_000, f"{peak:,} bytes at the peak"


def test_a_stream_without_a_safe_cut_is_not_quadratic(tokenizer):
    start = time.perf_counter()
    ids = list(tokenizer.encode_iterable("z" for _ in range(300_000)))
    assert time.perf_counter() - start < 20
    assert tokenizer.decode(ids) == "z" * 300_000


# Files and exchange


@given(vocab_size=st.integers(259, 330))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_saved_and_loaded_unchanged(tmp_path, vocab_size):
    tokenizer = train_bpe(SAMPLE, vocab_size, ["<|é\n|>", "<|b|>"], GPT4_PATTERN)
    tokenizer.save(tmp_path / "t.json")
    loaded = BPETokenizer.load(tmp_path / "t.json")
    assert (
        vars(loaded)["ranks"] == tokenizer.ranks
        and loaded.special_tokens == tokenizer.special_tokens
    )
    assert loaded.pattern == GPT4_PATTERN and loaded.encode(SAMPLE) == tokenizer.encode(SAMPLE)
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_a_file_cut_anywhere_is_refused(tmp_path):
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
        json.dumps(["BPETokenizer 1", {"a": 0}, {}, GPT2_PATTERN]).encode(),
        json.dumps(["BPETokenizer 1", {chr(b): b for b in range(256)}, {"<s>": 5}, "x"]).encode(),
        json.dumps(["BPETokenizer 1", {chr(b): str(b) for b in range(256)}, {}, "x"]).encode(),
        json.dumps(["BPETokenizer 1", {chr(b): b - 1 for b in range(256)}, {}, "x"]).encode(),
        json.dumps(["BPETokenizer 1", {"\u4e2d": 0}, {}, "x"]).encode(),
        json.dumps(["BPETokenizer 1", [1], {}, "x"]).encode(),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected a file of BPETokenizer.save"):
        BPETokenizer.load(path)


def test_a_missing_file_is_reported_as_such(tmp_path):
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


def test_to_tiktoken_and_back(tokenizer):
    back = BPETokenizer.from_tiktoken(tokenizer.to_tiktoken("x"))
    assert (back.ranks, back.special_tokens) == (tokenizer.ranks, tokenizer.special_tokens)
    assert (
        back.pattern == tokenizer.pattern and back.vocab_size == tokenizer.to_tiktoken("x").n_vocab
    )


@pytest.mark.parametrize(
    ("ranks", "special", "part"),
    [
        ({b"a": 0}, {}, "256 bytes"),
        ({bytes([b]): b for b in range(256)} | {b"ab": 255}, {}, "id >= 0 of its own"),
        ({bytes([b]): b - 1 for b in range(256)}, {}, "id >= 0 of its own"),
        ({bytes([b]): b for b in range(256)}, {"<s>": 7}, "id >= 0 of its own"),
        ({bytes([b]): b for b in range(256)} | {b"": 256}, {}, "none of them empty"),
    ],
)
def test_a_broken_vocabulary_is_refused(ranks, special, part):
    with pytest.raises(ValueError, match=part):
        BPETokenizer(ranks, special)


# OpenAI's vocabularies


def test_offline_the_message_says_what_to_do(monkeypatch):
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


def test_gpt2s_own_vocabulary():
    try:
        gpt2 = GPTTokenizer("gpt2")
    except ConnectionError as error:
        pytest.skip(f"GPT-2's vocabulary is not here and cannot be downloaded: {error}")
    assert gpt2.vocab_size == 50257 and gpt2.special_tokens == {"<|endoftext|>": 50256}
    assert gpt2.encode("To be, or not to be") == [2514, 307, 11, 393, 407, 284, 307]
    for text in (SAMPLE, "z" * 5000):
        assert gpt2.encode(text) == gpt2.encoding.encode_ordinary(text)
        assert gpt2.decode(gpt2.encode(text)) == text
    assert len(gpt2.merges) == 50000 and all(len(pair) == 2 for pair in gpt2.merges)
    copy = pickle.loads(pickle.dumps(gpt2))
    assert copy.encode(SAMPLE) == gpt2.encode(SAMPLE)
