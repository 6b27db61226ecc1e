"""Chapter 02: training merges the same pairs as a naive trainer, and numbers the tokens as documented."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from bpe_samples import SAMPLE, TEXT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigpt_lib.bpe import split_text, train_bpe


def naive_merges(chunks: list[str], n_merges: int) -> list[tuple[bytes, bytes]]:
    """Count all pairs anew for each merge."""
    words = [[bytes([b]) for b in chunk.encode()] for chunk in chunks]
    merges: list[tuple[bytes, bytes]] = []

    while len(merges) < n_merges:
        counts = Counter(pair for word in words for pair in itertools.pairwise(word))
        if not counts:
            break

        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        for word in words:
            merge_in_place(word, best)

    return merges


def merge_in_place(word: list[bytes], pair: tuple[bytes, bytes]) -> None:
    i = 0
    while i < len(word) - 1:
        if (word[i], word[i + 1]) == pair:
            word[i : i + 2] = [word[i] + word[i + 1]]
        i += 1


@settings(deadline=None)
@given(st.text("ab c", max_size=60) | TEXT, st.integers(0, 40))
@example("aaaa aaa aa abab baba", 20)
@example("a\x00 a \x00a \x00\x00a b\x00", 20)
def test_the_merges_are_those_of_a_naive_trainer(text, n_merges):
    tokenizer = train_bpe(text, 256 + n_merges)

    expected = naive_merges(list(split_text(text)), n_merges)
    assert tokenizer.merges == expected
    assert list(tokenizer.ranks)[256:] == [left + right for left, right in expected]


@settings(deadline=None)
@given(
    TEXT,
    st.integers(256, 300),
    st.lists(st.sampled_from(["<|a|>", "<|b|>", "<|a|>x"]), unique=True),
)
def test_bytes_come_first_then_merges_then_special_tokens(text, vocab_size, special):
    if vocab_size < 256 + len(special):
        vocab_size += 3

    tokenizer = train_bpe(text, vocab_size, special)

    assert [tokenizer.ranks[bytes([b])] for b in range(256)] == list(range(256))
    ids = [*tokenizer.ranks.values(), *tokenizer.special_tokens.values()]
    assert ids == list(range(tokenizer.vocab_size))
    assert tokenizer.vocab_size <= vocab_size
    assert list(tokenizer.special_tokens) == special


def test_no_pair_spans_two_documents():
    assert train_bpe(["ab", "ab"], 258).ranks == train_bpe("ab!ab", 257).ranks
    assert train_bpe(iter(["ab cd", "ab"]), 260).ranks == train_bpe("ab cd\nab", 260).ranks


def test_a_text_with_too_few_pairs_gives_a_smaller_vocabulary():
    assert train_bpe("hi", 1000, ["<|end|>"]).vocab_size == 258
    assert train_bpe("hot", 1000).vocab_size == 258  # when o t and h ot have merged, no h o is left
    assert train_bpe("", 300).vocab_size == 256


def test_the_order_of_the_documents_does_not_matter():
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
def test_invalid_arguments_are_refused(arguments, part):
    with pytest.raises(ValueError) as error:
        train_bpe(*arguments)

    assert part in str(error.value)
