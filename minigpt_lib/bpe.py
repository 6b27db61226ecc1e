"""Byte pair encoding: learn the pieces of words that text is made of, and cut any text into them.

Text is cut into chunks (about words), chunks into UTF-8 bytes, and bytes merge pair by pair. A token
is a byte string; its rank is its id and its turn to merge. Sennrich et al. 2016; Radford et al. 2019.

Written by notebooks/02_bpe.ipynb (chapter 02): edit it there.
"""

from __future__ import annotations

import heapq
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path

import regex
import tiktoken

__all__ = [
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "BPETokenizer",
    "GPTTokenizer",
    "split_text",
    "train_bpe",
]

# Both as tiktoken spells them: openai_public.py, encodings gpt2 and cl100k_base.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
GPT4_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
# Under both patterns a chunk begins at a single space between visible characters, and after a
# single line break between them; text cut there splits into the same chunks as the whole.
_SAFE_CUT = re.compile(r"(?<=\S)(?= \S)|(?<=\S\n)(?=\S)")
_PIECE = 8192  # characters: enough to hide the cost of a piece


# What `regex` does for all scripts, `re` does for ASCII; the class inside [^...] is replaced first.
_ASCII_TWIN = {
    pattern: re.compile(
        pattern.replace(r"\s\p{L}\p{N}", r"\sA-Za-z0-9")
        .replace(r"\n\p{L}\p{N}", r"\nA-Za-z0-9")
        .replace(r"\p{L}", "[A-Za-z]")
        .replace(r"\p{N}", "[0-9]"),
        re.ASCII,
    )
    for pattern in (GPT2_PATTERN, GPT4_PATTERN)
}


def _pieces(text: str, pattern: str) -> Iterator[str]:
    """Cut `text` where no chunk crosses, every 8192 characters or a little later."""
    start = 0
    while pattern in _ASCII_TWIN and (cut := _SAFE_CUT.search(text, start + _PIECE)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def split_text(text: str, pattern: str = GPT2_PATTERN) -> Iterator[str]:
    """Yield the chunks of `text`: "It's 1603" gives "It", "'s" and " 1603"."""
    full = regex.compile(pattern)
    twin = _ASCII_TWIN.get(pattern, full)
    pieces = _pieces(text, pattern)
    return chain.from_iterable((twin if p.isascii() else full).findall(p) for p in pieces)


def _learn_merges(chunk_counts: Mapping[str, int], n_merges: int) -> list[tuple[bytes, bytes]]:
    words, times = [""] * len(chunk_counts), list(chunk_counts.values())
    tokens = [bytes([b]) for b in range(256)]  # token i stands in a word as the character chr(i)
    flipped = [chr(255 - b) + "\u0100" for b in range(256)]  # sorts in reverse: see the chapter
    counts, where, heap, merges = defaultdict(int), defaultdict(list), [], []

    def entry(pair: str) -> tuple[int, str, str, str]:
        return -counts[pair], flipped[ord(pair[0])], flipped[ord(pair[1])], pair

    new, changed = "", {i: c.encode().decode("latin-1") for i, c in enumerate(chunk_counts)}
    while len(merges) < n_merges:
        born = set()  # the pairs with the new token in them; "" is in every pair
        for i, word in changed.items():
            for pair in map(str.__add__, words[i], words[i][1:]):
                counts[pair] -= times[i]
            for pair in map(str.__add__, word, word[1:]):
                counts[pair] += times[i]
                if new in pair:
                    where[pair].append(i)
                    born.add(pair)
            words[i] = word
        for pair in born:
            heapq.heappush(heap, entry(pair))
        while heap and -heap[0][0] != counts[heap[0][-1]]:  # out of date: renew it, or drop it at 0
            if counts[pair := heapq.heappop(heap)[-1]]:
                heapq.heappush(heap, entry(pair))
        if not heap:
            break
        _, left, right, pair = heapq.heappop(heap)
        merges.append((tokens[ord(pair[0])], tokens[ord(pair[1])]))
        new = chr(len(tokens))
        tokens.append(b"".join(merges[-1]))
        flipped.append(left[:-1] + right)
        changed = {i: words[i].replace(pair, new) for i in where.pop(pair)}
    return merges


def _merge_chunk(data: bytes, ranks: Mapping[bytes, int], n_pieces: int = 1) -> list[bytes]:
    """Merge neighbours, lowest rank first, then from the left; stop at `n_pieces`. O(n log n)."""
    n, get = len(data), ranks.get
    end = [*range(1, n + 1), 0]  # where the piece that begins here ends; -1 if none begins here
    start = [*range(-1, n)]  # where the piece that ends here begins
    heap = [(rank, i, i + 2) for i in range(n - 1) if (rank := get(data[i : i + 2])) is not None]
    heapq.heapify(heap)
    left = n
    while heap and left > n_pieces:
        _, i, stop = heapq.heappop(heap)
        middle = end[i]
        if end[middle] != stop:  # one of the two is gone (end[n] and end[-1] are 0, never a stop)
            continue
        end[i], end[middle], start[stop] = stop, -1, i
        left -= 1
        if stop < n and (rank := get(data[i : end[stop]])) is not None:
            heapq.heappush(heap, (rank, i, end[stop]))
        if i > 0 and (rank := get(data[start[i] : stop])) is not None:
            heapq.heappush(heap, (rank, start[i], stop))
    return [data[i:stop] for i, stop in enumerate(end[:n]) if stop > 0]


class _ChunkCache(dict[str, tuple[int, ...]]):
    """Map a chunk to its ids; a chunk that is missing is merged when it is first asked for."""

    def __init__(self, ranks: Mapping[bytes, int]) -> None:
        self.ranks = ranks

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        data, ranks = chunk.encode(), self.ranks
        pieces = [data] if data in ranks else _merge_chunk(data, ranks)  # as tiktoken does
        ids = tuple([ranks[piece] for piece in pieces])
        if len(self) >= 2**17:  # about 30 MB; all of Shakespeare has some 30,000 different chunks
            self.clear()
        if len(chunk) <= 128:  # longer ones hardly ever come back
            self[chunk] = ids
        return ids


def _check_text(text: str, offset: int = 0) -> None:
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        what = f"U+{ord(text[error.start]):04X} at position {offset + error.start}"
        raise ValueError(f"expected Unicode text, got a lone surrogate, {what}") from None


class _Exchange:
    ranks: dict[bytes, int]
    special_tokens: dict[str, int]
    pattern: str

    def to_tiktoken(self, name: str) -> tiktoken.Encoding:
        """Return the same vocabulary for tiktoken: the same ids, computed in Rust."""
        vocabulary = {"mergeable_ranks": self.ranks, "special_tokens": self.special_tokens}
        return tiktoken.Encoding(name, pat_str=self.pattern, **vocabulary)

    @staticmethod
    def from_tiktoken(encoding: tiktoken.Encoding) -> "BPETokenizer":
        """Return a tokenizer with the vocabulary of a tiktoken encoding."""
        return BPETokenizer(encoding._mergeable_ranks, encoding._special_tokens, encoding._pat_str)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary to `path` as JSON; an interrupted save leaves the old file whole."""
        ranks = {token.decode("latin-1"): i for token, i in self.ranks.items()}
        content = ["BPETokenizer 1", ranks, self.special_tokens, self.pattern]
        temporary = Path(f"{path}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content))
        os.replace(temporary, path)

    @staticmethod
    def load(path: str | Path) -> "BPETokenizer":
        """Read what `save` wrote; ValueError if the file holds anything else."""
        try:
            kind, ranks, special_tokens, pattern = json.loads(Path(path).read_text())
            if kind != "BPETokenizer 1":
                raise ValueError(f"it begins with {kind!r}")
            ranks = {token.encode("latin-1"): i for token, i in ranks.items()}
            return BPETokenizer(ranks, special_tokens, pattern)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a file of BPETokenizer.save, got {path}: {error}") from None


class BPETokenizer(_Exchange):
    """Encode text as ids of byte strings, and back.

    `ranks`: the id of each token, all 256 bytes among them. `special_tokens`: names with ids of
    their own, which come from text only where they are allowed.
    """

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int] | None = None,
        pattern: str = GPT2_PATTERN,
    ) -> None:
        self.ranks, self.special_tokens = dict(ranks), dict(special_tokens or {})
        self.pattern = pattern
        if regex.compile(pattern).groups:
            raise ValueError(f"expected a pattern without groups, got {pattern!r}: write (?:...)")
        self._tokens = {i: token for token, i in self.ranks.items()}
        self._tokens |= {i: name.encode() for name, i in self.special_tokens.items()}
        if missing := {bytes([b]) for b in range(256)} - self.ranks.keys():
            raise ValueError(f"expected ranks for all 256 bytes, got none for {min(missing)}")
        n = len(self.ranks) + len(self.special_tokens)
        if len(self._tokens) < n or min(self._tokens) < 0 or not all(self._tokens.values()):
            raise ValueError(
                f"expected {n} tokens, none of them empty, each with an id >= 0 of its own"
            )
        self._cache = _ChunkCache(self.ranks)

    def __getstate__(self) -> dict[str, object]:
        # A copy for another process starts with an empty cache.
        return {**self.__dict__, "_cache": _ChunkCache(self.ranks)}

    @property
    def vocab_size(self) -> int:
        """Return the number of rows that a model needs: the largest id plus one."""
        return max(self._tokens) + 1

    @cached_property
    def merges(self) -> list[tuple[bytes, ...]]:
        """Return the two pieces of every longer token, in order of rank."""
        tokens = sorted((t for t in self.ranks if len(t) > 1), key=self.ranks.__getitem__)
        return [tuple(_merge_chunk(token, self.ranks, n_pieces=2)) for token in tokens]

    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        """Return the ids of `text`; names in `allowed_special` (or "all") become special tokens."""
        _check_text(text)
        names = set(self.special_tokens if allowed_special == "all" else allowed_special)
        if unknown := names - self.special_tokens.keys():
            raise ValueError(f"expected names in {self.special_tokens}, got {unknown}")
        special = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        ids, lookup = [], self._cache.__getitem__
        for i, part in enumerate(re.split(f"({special})", text) if names else [text]):
            if i % 2:  # re.split puts what it found between what it did not
                ids.append(self.special_tokens[part])
            else:
                ids.extend(chain.from_iterable(map(lookup, split_text(part, self.pattern))))
        return ids

    def encode_iterable(self, chunks: Iterable[str]) -> Iterator[int]:
        """Yield the ids of the joined `chunks`, holding only the text after the last safe cut.

        Only GPT2_PATTERN and GPT4_PATTERN have known safe cuts; under another, all is held.
        """
        held, limit, position = "", 2 * _PIECE, 0
        for chunk in chunks:
            _check_text(chunk, position)
            held, position = held + chunk, position + len(chunk)
            if len(held) >= limit:
                *done, held = _pieces(held, self.pattern)
                yield from chain.from_iterable(map(self.encode, done))
                limit = 2 * (len(held) + _PIECE)
        yield from self.encode(held)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; what is no UTF-8 becomes U+FFFD, an unknown id a ValueError."""
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        try:
            return b"".join(map(self._tokens.__getitem__, ids)).decode(errors="replace")
        except KeyError as error:
            what = f"{error.args[0]} at position {ids.index(error.args[0])}"
            raise ValueError(f"expected ids below {self.vocab_size}, got {what}") from None


def train_bpe(
    text: str | Iterable[str],
    vocab_size: int,
    special_tokens: Iterable[str] = (),
    pattern: str = GPT2_PATTERN,
) -> BPETokenizer:
    """Learn a vocabulary of `vocab_size` tokens from a text (str), or from an iterable of texts.

    The most frequent pair of neighbours in a chunk merges first; of equally frequent pairs the
    lexicographically greater. Ids: the 256 bytes, the merges in order, the special tokens (names)
    last. A text with too few pairs gives a smaller vocabulary.
    """
    names = list(dict.fromkeys(special_tokens))
    if vocab_size < 256 + len(names) or isinstance(special_tokens, str):
        what = f"got {vocab_size} and {special_tokens!r}"
        raise ValueError(
            f"expected vocab_size >= 256 + the number of special_tokens, a list; {what}"
        )
    counts = Counter()
    for document in [text] if isinstance(text, str) else text:
        _check_text(document)
        counts.update(split_text(document, pattern))
    tokens = [bytes([b]) for b in range(256)]
    tokens += map(b"".join, _learn_merges(counts, vocab_size - 256 - len(names)))
    special = {name: len(tokens) + i for i, name in enumerate(names)}
    return BPETokenizer({token: i for i, token in enumerate(tokens)}, special, pattern)


class GPTTokenizer(BPETokenizer):
    """One of OpenAI's vocabularies, as tiktoken fetches it: "gpt2", "cl100k_base", ..."""

    def __init__(self, name: str = "gpt2") -> None:
        try:
            self.encoding = tiktoken.get_encoding(name)
        except OSError as error:
            raise ConnectionError(
                f"could not download the vocabulary {name!r} ({type(error).__name__}). Offline, set "
                "TIKTOKEN_CACHE_DIR to a folder in which tiktoken has stored it, or learn one of "
                "your own: train_bpe(text, vocab_size)"
            ) from error
        vocabulary = BPETokenizer.from_tiktoken(self.encoding)
        super().__init__(vocabulary.ranks, vocabulary.special_tokens, vocabulary.pattern)
