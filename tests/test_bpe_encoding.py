"""Chapter 02: encoding agrees with tiktoken on any text, with special tokens and in a stream; decoding restores it."""

from __future__ import annotations

import pickle
import time
import tracemalloc

import pytest
import tiktoken
import tokenizers
import torch
from bpe_samples import PATTERNS, SAMPLE, TEXT, VOCAB_SIZE, tokenizer_with
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigpt_lib import bpe
from minigpt_lib.bpe import GPT4_PATTERN, BPETokenizer, train_bpe

SINGLE_BYTES = {bytes([b]): b for b in range(256)}


@pytest.fixture(scope="module", params=PATTERNS)
def tokenizer(request) -> BPETokenizer:
    return tokenizer_with(request.param)


@pytest.fixture(scope="module")
def theirs(tokenizer) -> tiktoken.Encoding:
    """Return tiktoken's encoding with the same vocabulary."""
    return tokenizer.to_tiktoken("x")


# ---------------------------------------------------------------- encoding and decoding


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(TEXT)
@example("z" * 1000)
@example("'S 'LL it'ſ \u212a's")
@example("a\r\n\r\n b \n\n\n  c   ")
def test_the_ids_are_tiktokens_and_decoding_restores_the_text(tokenizer, theirs, text):
    ids = tokenizer.encode(text)

    assert ids == theirs.encode_ordinary(text)
    assert tokenizer.decode(ids) == text


@settings(max_examples=60, deadline=None)
@given(TEXT.filter(str.strip), TEXT)
def test_the_ids_are_tiktokens_for_a_vocabulary_trained_on_the_text_itself(text, other):
    tokenizer = train_bpe(text * 3, 320, pattern=GPT4_PATTERN)
    theirs = tokenizer.to_tiktoken("x")

    for one in (text, other + text, text * 2):
        assert tokenizer.encode(one) == theirs.encode_ordinary(one)


@pytest.mark.slow
@settings(deadline=None)
@given(st.binary(max_size=30), st.data())
def test_the_ids_are_tiktokens_for_ranks_that_no_training_gives(extra, data):
    """The ranks come in any order, and no sequence of merges leads to some of the tokens."""
    tokens = {extra[i : i + n] for i in range(len(extra)) for n in (2, 3, 4)} - {b""}
    tokens = sorted(tokens | SINGLE_BYTES.keys())
    ids = range(len(tokens))
    if len(tokens) < 300:
        ids = data.draw(st.permutations(ids))
    tokenizer = BPETokenizer(dict(zip(tokens, ids)), pattern=r"(?s:.+)")

    text = extra.decode("utf-8", "replace") * 2

    assert tokenizer.encode(text) == tokenizer.to_tiktoken("x").encode_ordinary(text)


@settings(deadline=None)
@given(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=40))
def test_any_ids_decode_as_in_tiktoken(tokenizer, theirs, ids):
    assert tokenizer.decode(ids) == theirs.decode(ids)


def test_decode_accepts_tensors_and_arrays():
    tokenizer = train_bpe(SAMPLE, 300)
    ids = torch.tensor(tokenizer.encode("once more"))

    assert tokenizer.decode(ids) == "once more"
    assert tokenizer.decode(ids.numpy()) == "once more"


@pytest.mark.parametrize("bad", [-1, VOCAB_SIZE, 10**12])
def test_an_unknown_id_is_refused_with_its_position(tokenizer, bad):
    with pytest.raises(ValueError, match=rf"below {VOCAB_SIZE}, got {bad} at position 2"):
        tokenizer.decode([65, 66, bad, 67])


@settings(deadline=None)
@given(TEXT, TEXT, st.integers(0xD800, 0xDFFF))
def test_a_lone_surrogate_is_refused_with_its_position(tokenizer, before, after, code):
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

    assert len(tokenizer._cache) == 1
    assert "b" * 1000 not in tokenizer._cache


def test_a_pickled_tokenizer_works_and_leaves_its_cache_behind(tokenizer):
    tokenizer.encode(SAMPLE)
    size = len(pickle.dumps(tokenizer))
    tokenizer.encode("a quite different text")
    assert len(pickle.dumps(tokenizer)) == size

    copy = pickle.loads(pickle.dumps(tokenizer))

    assert copy.encode(SAMPLE) == tokenizer.encode(SAMPLE)
    assert copy._cache is not tokenizer._cache


@pytest.mark.slow
@pytest.mark.parametrize(
    ("letter", "size"),
    [("a", 1_000_000), ("中", 200_000), (" ", 200_000)],
)
def test_a_long_run_of_one_letter_takes_seconds(letter, size):
    data = letter.encode()
    ranks = dict(SINGLE_BYTES)
    for token in [data[:2], data, *(data * 2**k for k in range(1, 11))]:
        ranks.setdefault(token, len(ranks))
    tokenizer = BPETokenizer(ranks)
    text = letter * (size // len(data))

    start = time.process_time()
    ids = tokenizer.encode(text)
    elapsed = time.process_time() - start

    assert elapsed < 30
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text) / 100


# ---------------------------------------------------------------- vocabularies of real models

SMOLLM2_LACKS = {4, 6, 19, 20, 22, 29, 192, 193, 241, 242, *range(245, 256)}


def _without_bytes(missing: set[int], unk_token: str | None) -> BPETokenizer:
    """Return a tokenizer that lacks these bytes, with a gap after every seventh id."""
    tokens = [t for t in tokenizer_with("smollm2").ranks if not missing & set(t)]
    ranks = {token: 17 + i + i // 7 for i, token in enumerate(tokens)}
    return BPETokenizer(ranks, {"<unk>": 3}, bpe.SMOLLM2_PATTERN, unk_token)


def _as_hugging_face(tokenizer: BPETokenizer) -> tokenizers.Tokenizer:
    """Return Hugging Face's tokenizer with the same vocabulary; its bytes are shown by GPT-2's alphabet."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in own]
    shown = {b: chr(b) for b in own} | {b: chr(256 + i) for i, b in enumerate(others)}
    vocab = {"".join(map(shown.get, token)): i for token, i in tokenizer.ranks.items()}
    merges = [tuple("".join(map(shown.get, part)) for part in pair) for pair in tokenizer.merges]
    model = tokenizers.models.BPE(vocab | tokenizer.special_tokens, merges, unk_token="<unk>")
    rival = tokenizers.Tokenizer(model)
    pre = tokenizers.pre_tokenizers
    rival.pre_tokenizer = pre.Sequence(
        [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]
    )
    return rival


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(TEXT, st.sets(st.integers(0, 255), max_size=40))
def test_a_vocabulary_without_some_bytes_gives_the_ids_of_hugging_face(text, missing):
    ours = _without_bytes(missing | SMOLLM2_LACKS, "<unk>")

    assert ours.encode(text) == _as_hugging_face(ours).encode(text).ids


@settings(deadline=None)
@given(TEXT, TEXT, st.sampled_from(sorted(b for b in SMOLLM2_LACKS if b < 128)))
def test_a_byte_without_a_token_is_refused_with_its_position(before, after, byte):
    before = "".join(c for c in before if not SMOLLM2_LACKS & set(c.encode()))
    tokenizer = _without_bytes(SMOLLM2_LACKS, None)
    text = before + chr(byte) + after
    message = rf"got 0x{byte:02X} at position {len(before)};"

    with pytest.raises(ValueError, match=message):
        tokenizer.encode(text)
    with pytest.raises(ValueError, match=message):
        list(tokenizer.encode_iterable(text))


def test_a_missing_byte_far_into_a_stream_is_refused_with_its_position():
    tokenizer = _without_bytes(SMOLLM2_LACKS, None)

    with pytest.raises(ValueError, match="got 0x04 at position 80003;"):
        list(tokenizer.encode_iterable(["x y "] * 20_000 + ["abc\x04"]))


def test_a_missing_byte_that_the_pattern_left_out_before_is_not_named():
    tokenizer = BPETokenizer({b"b": 0}, pattern=r"b|(?<=b)\x04")

    with pytest.raises(ValueError, match="got 0x04 at position 2;"):
        tokenizer.encode("\x04b\x04")


def test_an_id_in_a_gap_is_no_row_of_the_vocabulary():
    tokenizer = BPETokenizer(SINGLE_BYTES | {b"ab": 300}, {"<e>": 310})

    assert tokenizer.vocab_size == 311
    assert tokenizer.encode("ab<e>", "all") == [300, 310]
    with pytest.raises(ValueError, match="305 at position 1, which no token has"):
        tokenizer.decode([300, 305])


# ---------------------------------------------------------------- special tokens


@settings(deadline=None)
@given(TEXT)
def test_by_default_no_text_gives_a_special_token(tokenizer, text):
    ids = tokenizer.encode(f"{text}<|endoftext|>{text}<|end|>")

    assert not set(tokenizer.special_tokens.values()) & set(ids)


@settings(deadline=None)
@given(st.lists(TEXT | st.sampled_from(["<|endoftext|>", "<|end|>", "<|end", "|>"]), max_size=6))
def test_allowed_special_tokens_are_encoded_as_in_tiktoken(tokenizer, theirs, parts):
    text = "".join(parts)

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
    with pytest.raises(ValueError, match="pad"):
        list(tokenizer.encode_iterable(["a"], {"<|pad|>"}))
    with pytest.raises(ValueError, match="a set of names"):
        tokenizer.encode("a", "<|end|>")


# ---------------------------------------------------------------- streams


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, max_size=8), st.integers(1, 12))
def test_a_stream_gives_the_ids_of_the_whole_text(tokenizer, chunks, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "_PIECE", size)  # small, so that even a short text is cut often
        streamed = list(tokenizer.encode_iterable(chunks))

    assert streamed == tokenizer.encode("".join(chunks))


NAMES = ["<|end|>", "<|end|>s", "<|e n d|>", "x", "a\nb"]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(TEXT | st.sampled_from([*NAMES, "<|end", "<|e n", "a b", "a\n"]), max_size=10),
    st.integers(1, 12),
    st.integers(1, 9),
    st.sets(st.sampled_from(NAMES)),
)
def test_a_stream_with_special_tokens_gives_the_ids_of_the_whole_text(parts, piece, size, allowed):
    base = tokenizer_with("gpt4")
    tokenizer = BPETokenizer(base.ranks, {name: 1000 + i for i, name in enumerate(NAMES)})
    text = "".join(parts)
    chunks = [text[i : i + size] for i in range(0, len(text), size)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "_PIECE", piece)
        streamed = list(tokenizer.encode_iterable(chunks, allowed))

    assert streamed == tokenizer.encode(text, allowed)


def test_a_special_token_that_is_cut_after_its_shorter_namesake_is_waited_for():
    tokenizer = BPETokenizer({bytes([b]): b for b in range(256)}, {"<a>": 256, "<a>b": 257})
    chunks = ["to be " * 3000 + "<a>", "b or not"]

    found = list(tokenizer.encode_iterable(chunks, "all"))

    assert found == tokenizer.encode("".join(chunks), "all")
    assert 257 in found


def test_a_stream_with_a_custom_pattern_gives_the_ids_of_the_whole_text():
    tokenizer = train_bpe(SAMPLE, 400, pattern=r"\S+\s*|\s+")

    assert list(tokenizer.encode_iterable(SAMPLE)) == tokenizer.encode(SAMPLE)


@pytest.mark.slow
def test_a_long_stream_needs_little_memory(tokenizer):
    line = "Once more unto the breach, dear friends, once more;\n"
    lines = 40_000  # 2 MB

    tracemalloc.start()
    n_ids = sum(1 for _ in tokenizer.encode_iterable(line for _ in range(lines)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert n_ids == lines * len(tokenizer.encode(line + line)) // 2
    assert peak < 1_500_000, f"{peak:,} bytes at the peak"


@pytest.mark.slow
def test_a_stream_without_a_safe_cut_takes_seconds(tokenizer):
    start = time.process_time()
    ids = list(tokenizer.encode_iterable("z" for _ in range(300_000)))
    elapsed = time.process_time() - start

    assert elapsed < 20
    assert tokenizer.decode(ids) == "z" * 300_000
