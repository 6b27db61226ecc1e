"""Chapter 02: a faulty tokenizer does not get past the chapter's own checks."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "ties go to the smaller pair": ("chr(255 - b) for b in token", "chr(b) for b in token"),
    "a longer piece that begins alike is smaller": ('+ "\\u0100"', '+ ""'),
    "each chunk counted once": (
        "self.times = list(chunk_counts.values())",
        "self.times = [1] * len(self.words)",
    ),
    "lost pairs keep their counts": (
        "self.counts[gone] -= self.times[i]",
        "self.counts[gone] -= 0",
    ),
    "pairs of the new token are not pushed": ("for found in created:", "for found in ():"),
    "new pairs are not indexed": ("self.where[found].append(i)", "self.where[found]"),
    "an entry that is out of date is believed": (
        "if -count == self.counts[pair]",
        "if True or self.counts[pair]",
    ),
    "an entry that is out of date is dropped": (
        "if self.counts[pair]:",
        "if False and self.counts[pair]:",
    ),
    "one merge too few": (
        "while len(merges) < n_merges and",
        "while len(merges) < n_merges - 1 and",
    ),
    "special tokens come first": ("name: len(tokens) + i", "name: i"),
    "documents are joined": (
        "for document in [text] if isinstance(text, str) else text:",
        'for document in [text if isinstance(text, str) else "".join(text)]:',
    ),
    "leftmost pair first": (
        "heap = [entry for entry in pairs if entry[0] is not None]",
        "heap = [(0 * rank, i, stop) for rank, i, stop in pairs if rank is not None]",
    ),
    "the rightmost of equals": ("(rank, i, end[stop])", "(rank, -i, end[stop])"),
    "a merge leaves its left neighbour alone": ("if i > 0 and", "if False and"),
    "a merge leaves its right neighbour alone": ("if stop < n and", "if False and"),
    "pieces that are gone merge again": ("if end[middle] != stop:", "if False:"),
    "a chunk that is a token is cut": ("whole = data in self.ranks", "whole = False"),
    "the cache confuses chunks": ("self[chunk] = ids", "self[chunk.lower()] = ids"),
    "the ASCII twin reads _ as a letter": (
        '.replace(r"\\p{L}", "[A-Za-z]")',
        '.replace(r"\\p{L}", "[A-Za-z_]")',
    ),
    "the ASCII twin for all text": ("if p.isascii() else full", "if True else full"),
    "cut anywhere": (r"(?<=\S)(?= \S)|(?<=\S\n)(?=\S)", r"(?= )"),
    "cut under any pattern": ("while pattern in _ASCII_TWIN and", "while"),
    "Llama 3 takes white space at the end whole": (
        r'r"|\s*[\r\n]+|\s+(?!\S)|\s"',
        r'r"|\s++$|\s*[\r\n]+|\s+(?!\S)|\s"',
    ),
    "SmolLM2's digits stay together": (r"\p{N}| ?[^\s", r"\p{N}++| ?[^\s"),
    "SmolLM2 leaves a space at a digit alone": (r"\s++(?=\p{N}|$)", r"\s++$"),
    "special tokens out of any text": (
        "allowed_special: Iterable[str] = ()\n    ) -> Iterator",
        'allowed_special: Iterable[str] = "all"\n    ) -> Iterator',
    ),
    "special tokens by default": (
        "def encode(self, text: str, allowed_special: Iterable[str] = ())",
        'def encode(self, text: str, allowed_special: Iterable[str] = "all")',
    ),
    "the shorter name wins": ("key=len, reverse=True", "key=len"),
    "a stream forgets its special tokens": (
        "yield from self._encode(held[:done], names, position)",
        "yield from self._encode(held[:done], [], position)",
    ),
    "a special token is cut": ("len(held) - max(map(len, names), default=1) + 1", "len(held)"),
    "a special token that may still grow is cut": (
        "if match.start() < end:",
        "if match.start() <= end:",
    ),
    "a stream is cut anywhere": ("return start + sum(map(len, done))", "return len(held)"),
    "a stream waits for its end": ("if len(held) >= limit:", "if False:"),
    "vocab_size counts tokens": ("return max(self._tokens) + 1", "return len(self._tokens)"),
    "unknown bytes are dropped": (
        "self.ranks.get(piece, self.unk_id) for piece in pieces",
        "self.ranks.get(piece, self.unk_id) for piece in pieces if piece in self.ranks",
    ),
    "an unknown byte at the wrong place": ("place = position + start +", "place = position +"),
    "invalid bytes stop the decoder": ('decode("utf-8", errors="replace")', 'decode("utf-8")'),
    "the file forgets the pattern": (
        "return BPETokenizer(ranks, special_tokens, pattern, *unk_token)",
        "return BPETokenizer(ranks, special_tokens)",
    ),
    "the file forgets the unknown token": ("content.append(self.unk_token)", "content"),
    "a copy takes the cache along": (
        '{**self.__dict__, "_cache": self._new_cache()}',
        "{**self.__dict__}",
    ),
    "tiktoken's special tokens get lost": (
        "super().__init__(vocabulary.ranks, vocabulary.special_tokens,",
        "super().__init__(vocabulary.ranks, {},",
    ),
    "a shared id is accepted": ("elif i in owners:", "elif False:"),
    "a surrogate is accepted": ("    _check_text(document)\n", "    pass\n"),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("02", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("02", tmp_path, *FAULTS[fault])
