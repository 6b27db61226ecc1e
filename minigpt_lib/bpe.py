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
    "LLAMA3_PATTERN",
    "SMOLLM2_PATTERN",
    "BPETokenizer",
    "GPTTokenizer",
    "split_text",
    "train_bpe",
]

# GPT-2's and GPT-4's as tiktoken spells them: openai_public.py, encodings gpt2 and cl100k_base.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
GPT4_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
# Llama 3's tokenizer.json: GPT-4's, except for white space at the end of a text.
LLAMA3_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s*[\r\n]+|\s+(?!\S)|\s"
)
# SmolLM2's tokenizer.json: every digit is a chunk, and GPT-2's pattern splits what lies between digits.
SMOLLM2_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++|\p{N}| ?[^\s\p{L}\p{N}]++|\s++(?=\p{N}|$)|\s+(?!\S)|\s"
)

# Under these patterns a chunk begins at a single space between visible characters, and after a
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
    for pattern in (GPT2_PATTERN, GPT4_PATTERN, LLAMA3_PATTERN, SMOLLM2_PATTERN)
}


def _pieces(text: str, pattern: str) -> Iterator[str]:
    """Cut `text` where no chunk crosses, every 8192 characters or a little later."""
    start = 0
    while pattern in _ASCII_TWIN and (cut := _SAFE_CUT.search(text, start + _PIECE)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def split_text(text: str, pattern: str = GPT2_PATTERN) -> Iterator[str]:
    """Yield the chunks of `text`, as `regex.findall(pattern, text)` gives them, only faster.

    "It's 1603" gives "It", "'s" and " 1603".
    """
    full = regex.compile(pattern)
    twin = _ASCII_TWIN.get(pattern, full)
    pieces = _pieces(text, pattern)
    return chain.from_iterable((twin if p.isascii() else full).findall(p) for p in pieces)


def _flipped(token: bytes) -> str:
    """Return a string that sorts in reverse: the greater the token, the smaller the string."""
    return "".join(chr(255 - b) for b in token) + "\u0100"  # the end is larger than any byte


class _PairIndex:
    """The chunks of a text while they merge, with the count and the words of each pair.

    Token i stands in a word as the character chr(i). `where` may name a word that has lost the pair.
    """

    def __init__(self, chunk_counts: Mapping[str, int]) -> None:
        self.words = [chunk.encode("utf-8").decode("latin-1") for chunk in chunk_counts]
        self.times = list(chunk_counts.values())
        self.tokens = [bytes([b]) for b in range(256)]
        self.flipped = [_flipped(token) for token in self.tokens]
        self.counts: dict[str, int] = defaultdict(int)
        self.where: dict[str, list[int]] = defaultdict(list)
        for i, word in enumerate(self.words):
            for pair in map(str.__add__, word, word[1:]):
                self.counts[pair] += self.times[i]
                self.where[pair].append(i)

        self.heap = [self._entry(pair) for pair in self.counts]
        heapq.heapify(self.heap)

    def _entry(self, pair: str) -> tuple[int, str, str, str]:
        """Return what the heap sorts by: the greatest count, then the lexicographically greatest pair."""
        left, right = pair
        return -self.counts[pair], self.flipped[ord(left)], self.flipped[ord(right)], pair

    def pop_best(self) -> str | None:
        """Remove the best pair from the heap and return it, or None if no pair is left."""
        while self.heap:
            count, _, _, pair = heapq.heappop(self.heap)
            if -count == self.counts[pair]:
                return pair
            if self.counts[pair]:  # out of date: back with the true count
                heapq.heappush(self.heap, self._entry(pair))
        return None

    def merge(self, pair: str) -> tuple[bytes, bytes]:
        """Make the pair a token, correct the counts in the words that have it, and return its two parts."""
        left, right = (self.tokens[ord(half)] for half in pair)
        new = chr(len(self.tokens))
        self.tokens.append(left + right)
        self.flipped.append(_flipped(left + right))

        created = set()
        for i in set(self.where.pop(pair)):
            old = self.words[i]
            word = old.replace(pair, new)
            for gone in map(str.__add__, old, old[1:]):
                self.counts[gone] -= self.times[i]
            for found in map(str.__add__, word, word[1:]):
                self.counts[found] += self.times[i]
                if new in found:
                    self.where[found].append(i)
                    created.add(found)
            self.words[i] = word

        for found in created:
            heapq.heappush(self.heap, self._entry(found))
        return left, right


def _learn_merges(chunk_counts: Mapping[str, int], n_merges: int) -> list[tuple[bytes, bytes]]:
    """Return up to n_merges merges in order, learned from chunks and how often each occurs."""
    index = _PairIndex(chunk_counts)
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < n_merges and (pair := index.pop_best()) is not None:
        merges.append(index.merge(pair))
    return merges


def _merge_chunk(data: bytes, ranks: Mapping[bytes, int], n_pieces: int = 1) -> list[bytes]:
    """Merge neighbours, lowest rank first, then from the left; stop at `n_pieces`. O(n log n)."""
    n = len(data)
    rank_of = ranks.get
    end = [*range(1, n + 1), 0]  # where the piece that begins here ends; -1 if none begins here
    start = [*range(-1, n)]  # where the piece that ends here begins
    pairs = ((rank_of(data[i : i + 2]), i, i + 2) for i in range(n - 1))
    heap = [entry for entry in pairs if entry[0] is not None]
    heapq.heapify(heap)

    left = n
    while heap and left > n_pieces:
        _, i, stop = heapq.heappop(heap)
        middle = end[i]
        if end[middle] != stop:  # one of the two is gone (end[n] and end[-1] are 0, never a stop)
            continue

        end[i] = stop
        end[middle] = -1
        start[stop] = i
        left -= 1
        if stop < n and (rank := rank_of(data[i : end[stop]])) is not None:
            heapq.heappush(heap, (rank, i, end[stop]))
        if i > 0 and (rank := rank_of(data[start[i] : stop])) is not None:
            heapq.heappush(heap, (rank, start[i], stop))
    return [data[i:stop] for i, stop in enumerate(end[:n]) if stop > 0]


class _ChunkCache(dict[str, tuple[int, ...]]):
    """Map a chunk to its ids; a missing chunk is merged when it is first asked for.

    unk_id stands for a byte without a token. If it is None, such a byte is a KeyError.
    """

    def __init__(self, ranks: Mapping[bytes, int], unk_id: int | None) -> None:
        self.ranks = ranks
        self.unk_id = unk_id

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        data = chunk.encode("utf-8")
        whole = data in self.ranks  # a chunk that is a token is not cut, as in tiktoken
        pieces = [data] if whole else _merge_chunk(data, self.ranks)
        found = [self.ranks.get(piece, self.unk_id) for piece in pieces]
        ids = tuple([i for i in found if i is not None])
        if len(ids) < len(found):
            raise KeyError(chunk)

        if len(self) >= 2**17:  # about 30 MB; all of Shakespeare has some 34,000 different chunks
            self.clear()
        if len(chunk) <= 128:  # longer ones hardly ever come back
            self[chunk] = ids
        return ids


def _finished(held: str, names: list[str], pattern: str) -> int:
    """Return how many characters of `held` have their final ids, whatever text follows."""
    # A special token may have begun in the last characters, and its name may hold a safe cut.
    end = max(len(held) - max(map(len, names), default=1) + 1, 0)
    start = 0
    if names:
        for match in re.finditer("|".join(map(re.escape, names)), held):
            if match.start() < end:
                start = match.end()

    *done, _ = _pieces(held[start:end], pattern)
    return start + sum(map(len, done))


def _check_text(text: str, offset: int = 0) -> None:
    """Raise ValueError for a lone surrogate, with its position; `offset` characters came before."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        what = f"U+{ord(text[error.start]):04X} at position {offset + error.start}"
        raise ValueError(f"expected Unicode text, got a lone surrogate, {what}") from None


def _allowed_names(allowed: Iterable[str], special_tokens: Mapping[str, int]) -> list[str]:
    """Return the names of the special tokens that may come from text, longest first."""
    if isinstance(allowed, str) and allowed != "all":
        raise ValueError(
            f'expected a set of names or "all", got {allowed!r}: write {{{allowed!r}}}'
        )

    names = set(special_tokens if allowed == "all" else allowed)
    unknown = names - special_tokens.keys()
    if unknown:
        raise ValueError(f"expected names in {special_tokens}, got {unknown}")
    return sorted(names, key=len, reverse=True)


def _check_vocabulary(ranks: Mapping[bytes, int], special_tokens: Mapping[str, int]) -> None:
    """Raise ValueError for a vocabulary without tokens, an empty token, or an id that does not fit."""
    if not ranks:
        raise ValueError("expected ranks of at least one token, got none")

    owners: dict[int, bytes | str] = {}
    for token, i in chain(ranks.items(), special_tokens.items()):
        wrong = ""
        if not token:
            wrong = "is empty"
        elif i < 0:
            wrong = f"has the id {i}"
        elif i in owners:
            wrong = f"has the id {i} of {owners[i]!r}"
        if wrong:
            raise ValueError(
                "expected tokens, none of them empty, each with an id >= 0 of its own, "
                f"but {token!r} {wrong}"
            )
        owners[i] = token


def _missing_byte(part: str, chunk: str, position: int, tokenizer: "BPETokenizer") -> ValueError:
    """Return the error for the first chunk of `part`, which starts at `position`, with an unknown byte."""
    start = 0
    for before in split_text(part, tokenizer.pattern):
        start = part.index(before, start)  # a pattern may leave characters out
        if before == chunk:
            break
        start += len(before)

    read = b""
    for piece in _merge_chunk(chunk.encode("utf-8"), tokenizer.ranks):
        if piece not in tokenizer.ranks:
            break
        read += piece
    place = position + start + len(read.decode("utf-8", errors="ignore"))
    return ValueError(
        f"expected bytes that have a token, got 0x{piece[0]:02X} at position {place}; "
        "with unk_token, a special token would stand for it"
    )


class BPETokenizer:
    """Encode text as ids of byte strings, and back.

    Args:
        ranks: the id of each token, which is also its turn to merge. Single bytes may be missing and
            ids may have gaps, as in the vocabularies of real models.
        special_tokens: names and their ids; `encode` produces them only where they are allowed.
        pattern: the regular expression that cuts a text into chunks.
        unk_token: the special token that stands for a byte without a token; without one, encoding
            such a byte raises ValueError.

    Raises ValueError if two tokens share an id, an id is negative or a token empty, if the pattern
    has groups or is no regular expression, or if unk_token is not a special token.
    """

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int] | None = None,
        pattern: str = GPT2_PATTERN,
        unk_token: str | None = None,
    ) -> None:
        self.ranks = dict(ranks)
        self.special_tokens = dict(special_tokens or {})
        self.pattern = pattern
        self.unk_token = unk_token
        try:
            groups = regex.compile(pattern).groups
        except regex.error as error:
            raise ValueError(f"expected a regular expression, got {pattern!r}: {error}") from None
        if groups:
            raise ValueError(f"expected a pattern without groups, got {pattern!r}: write (?:...)")
        if unk_token is not None and unk_token not in self.special_tokens:
            raise ValueError(
                f"expected unk_token among the special tokens {list(self.special_tokens)}, "
                f"got {unk_token!r}"
            )

        _check_vocabulary(self.ranks, self.special_tokens)
        self._tokens = {i: token for token, i in self.ranks.items()}
        self._tokens |= {i: name.encode("utf-8") for name, i in self.special_tokens.items()}
        self._cache = self._new_cache()

    def _new_cache(self) -> _ChunkCache:
        unk_id = None if self.unk_token is None else self.special_tokens[self.unk_token]
        return _ChunkCache(self.ranks, unk_id)

    def __getstate__(self) -> dict[str, object]:
        # A copy for another process starts with an empty cache.
        return {**self.__dict__, "_cache": self._new_cache()}

    @property
    def vocab_size(self) -> int:
        """Return the number of rows that a model needs: the largest id plus one."""
        return max(self._tokens) + 1

    @cached_property
    def merges(self) -> list[tuple[bytes, ...]]:
        """Return the two parts of every token of two bytes or more, in order of rank."""
        tokens = sorted((t for t in self.ranks if len(t) > 1), key=self.ranks.__getitem__)
        return [tuple(_merge_chunk(token, self.ranks, n_pieces=2)) for token in tokens]

    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        """Return the ids of `text`; names in `allowed_special` (or "all") become special tokens.

        Raises ValueError for a lone surrogate, a name that is not a special token, or a byte that has
        no token while there is no unk_token.
        """
        names = _allowed_names(allowed_special, self.special_tokens)
        _check_text(text)
        return self._encode(text, names)

    def encode_iterable(
        self, chunks: Iterable[str], allowed_special: Iterable[str] = ()
    ) -> Iterator[int]:
        """Yield the ids of the joined `chunks`, holding only the text after the last safe cut.

        They are the ids that `encode` gives for the whole text, special tokens included. Only the
        patterns of this module have known safe cuts; with any other, all text between two special
        tokens is held. Raises ValueError as `encode` does.
        """
        names = _allowed_names(allowed_special, self.special_tokens)
        held = ""
        position = 0  # of the held text in the whole
        limit = 2 * _PIECE
        for chunk in chunks:
            _check_text(chunk, position + len(held))
            held += chunk
            if len(held) >= limit:
                done = _finished(held, names, self.pattern)
                yield from self._encode(held[:done], names, position)
                held = held[done:]
                position += done
                limit = 2 * (len(held) + _PIECE)
        yield from self._encode(held, names, position)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, a list, array or tensor; bytes that are not UTF-8 become U+FFFD.

        Raises ValueError for an id that no token has, with its position.
        """
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        try:
            return b"".join(map(self._tokens.__getitem__, ids)).decode("utf-8", errors="replace")
        except KeyError as error:
            bad = error.args[0]
            what = f"{bad} at position {ids.index(bad)}"
            if bad in range(self.vocab_size):
                what += ", which no token has"
            raise ValueError(f"expected ids below {self.vocab_size}, got {what}") from None

    def to_tiktoken(self, name: str) -> tiktoken.Encoding:
        """Return the same vocabulary for tiktoken: the same ids, computed in Rust.

        tiktoken has no unknown token: it panics on a byte that the vocabulary lacks.
        """
        vocabulary = {"mergeable_ranks": self.ranks, "special_tokens": self.special_tokens}
        return tiktoken.Encoding(name, pat_str=self.pattern, **vocabulary)

    @staticmethod
    def from_tiktoken(encoding: tiktoken.Encoding) -> "BPETokenizer":
        """Return a tokenizer with the vocabulary of a tiktoken encoding."""
        # tiktoken has no public way to ask for these three.
        return BPETokenizer(encoding._mergeable_ranks, encoding._special_tokens, encoding._pat_str)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary to `path` as JSON; an interrupted save leaves the old file whole."""
        ranks = {token.decode("latin-1"): i for token, i in self.ranks.items()}
        content = ["BPETokenizer 1", ranks, self.special_tokens, self.pattern]
        if self.unk_token is not None:
            content.append(self.unk_token)
        temporary = Path(f"{path}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, path)

    @staticmethod
    def load(path: str | Path) -> "BPETokenizer":
        """Read what `save` wrote; raises ValueError if the file holds anything else."""
        try:
            content = Path(path).read_text(encoding="utf-8")
            kind, ranks, special_tokens, pattern, *unk_token = json.loads(content)
            if kind != "BPETokenizer 1":
                raise ValueError(f"it begins with {kind!r}")
            ranks = {token.encode("latin-1"): i for token, i in ranks.items()}
            return BPETokenizer(ranks, special_tokens, pattern, *unk_token)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"expected a file of BPETokenizer.save, got {path}: {error}") from None

    def _encode(self, text: str, names: list[str], position: int = 0) -> list[int]:
        """Return the ids of `text`, which begins at `position`; `names` become special tokens."""
        special = "|".join(map(re.escape, names))
        parts = re.split(f"({special})", text) if names else [text]
        ids: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:  # re.split puts what it found between what it did not
                ids.append(self.special_tokens[part])
            else:
                try:
                    found = map(self._cache.__getitem__, split_text(part, self.pattern))
                    ids.extend(chain.from_iterable(found))
                except KeyError as error:
                    raise _missing_byte(part, error.args[0], position, self) from None
            position += len(part)
        return ids


def train_bpe(
    text: str | Iterable[str],
    vocab_size: int,
    special_tokens: Iterable[str] = (),
    pattern: str = GPT2_PATTERN,
) -> BPETokenizer:
    """Learn a vocabulary of `vocab_size` tokens from a text (str), or from an iterable of texts.

    The most frequent pair of neighbours in a chunk merges first; of equally frequent pairs the
    lexicographically greater. Ids: the 256 bytes, the merges in order, the special tokens (names)
    last. A text with too few pairs gives a smaller vocabulary. Raises ValueError if vocab_size has no
    room for the bytes and the special tokens, or for a text with a lone surrogate.
    """
    names = list(dict.fromkeys(special_tokens))
    if vocab_size < 256 + len(names) or isinstance(special_tokens, str):
        what = f"got {vocab_size} and {special_tokens!r}"
        raise ValueError(
            f"expected vocab_size >= 256 + the number of special_tokens, a list; {what}"
        )

    counts: Counter[str] = Counter()
    for document in [text] if isinstance(text, str) else text:
        _check_text(document)
        counts.update(split_text(document, pattern))

    tokens = [bytes([b]) for b in range(256)]
    tokens += map(b"".join, _learn_merges(counts, vocab_size - 256 - len(names)))
    special = {name: len(tokens) + i for i, name in enumerate(names)}
    return BPETokenizer({token: i for i, token in enumerate(tokens)}, special, pattern)


class GPTTokenizer(BPETokenizer):
    """One of OpenAI's vocabularies, as tiktoken fetches it: "gpt2", "cl100k_base", ...

    Raises ConnectionError if it is not stored on this computer and cannot be downloaded.
    """

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
