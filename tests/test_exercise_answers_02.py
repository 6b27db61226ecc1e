"""Chapter 02's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import pytest
from tools import judged

# ---------------------------------------------------------------- count_pairs


def counted_with_counter(words):
    return Counter(pair for word, n in words.items() for pair in list(zip(word, word[1:])) * n)


def counted_by_index(words, end=1, weigh=True, change=lambda pair: pair):
    counts = defaultdict(int)
    for word in words:
        for i in range(len(word) - end):
            counts[change(word[i : i + 2])] += words[word] if weigh else 1
    return counts


def counted_in_one_text(words):
    text = list(itertools.chain.from_iterable(word * n for word, n in words.items()))
    return dict(Counter(itertools.pairwise(text)))


# ---------------------------------------------------------------- best_pair


def best_by_sorting(counts):
    return sorted(counts, key=lambda p: (counts[p], p))[-1] if counts else None


def best_by_loop(counts, better=lambda n, p, best_n, best: (n, p) > (best_n, best)):
    best_n, best = 0, ()
    for pair, n in counts.items():
        if better(n, pair, best_n, best):
            best_n, best = n, pair
    return best or None


# ---------------------------------------------------------------- merge_pair


def merged_by_recursion(ids, pair, new):
    if len(ids) < 2:
        return list(ids)
    if tuple(ids[:2]) == pair:
        return [new, *merged_by_recursion(ids[2:], pair, new)]
    return [ids[0], *merged_by_recursion(ids[1:], pair, new)]


def merged_on_a_stack(ids, pair, new):
    out, fresh = [], True  # fresh: the last item of `out` is not used yet
    for n in ids:
        if out and not fresh and (out[-1], n) == pair:
            out[-1] = new
            fresh = True
        else:
            out.append(n)
            fresh = False
    return out


def merged_in_place(ids, pair, new):
    for i in range(len(ids)):
        if tuple(ids[i : i + 2]) == pair:
            ids[i : i + 2] = [new]
    return ids


def merged_as_text(ids, pair, new):
    changed = str(ids).replace(f"{pair[0]}, {pair[1]}", str(new))
    return [int(n) for n in changed.strip("[]").split(",") if n]


def merged_backwards(ids, pair, new):
    ids = list(ids)
    for i in reversed(range(len(ids) - 1)):
        if tuple(ids[i : i + 2]) == pair:
            ids[i : i + 2] = [new]
    return ids


def merged_by_pairwise(ids, pair, new, last=True):
    out, skip = [], False
    for now, following in itertools.pairwise(ids):
        if skip:
            skip = False
        elif (now, following) == pair:
            out.append(new)
            skip = True
        else:
            out.append(now)
    if last and ids and not skip:
        out.append(ids[-1])
    return out


# ---------------------------------------------------------------- encode_word


def encoded_by_rank(word, ranks, skip=lambda rank: rank is None, order=min):
    parts = list(word)
    while True:
        places = range(len(parts) - 1)
        found = [(ranks.get(parts[i] + parts[i + 1]), i) for i in places]
        found = [(rank, i) for rank, i in found if not skip(rank)]
        if not found:
            return tuple(parts)
        i = order(found)[1]
        parts = parts[:i] + ["".join(parts[i : i + 2])] + parts[i + 2 :]


def encoded_piece_by_piece(word, ranks, pieces=lambda ranks: sorted(ranks, key=ranks.get)):
    parts = list(word)
    for piece in pieces(ranks):
        i = 0
        while i < len(parts) - 1:
            if parts[i] + parts[i + 1] == piece:
                parts[i : i + 2] = [piece]
            i += 1
    return parts


def encoded_with_a_lowest(word, ranks, lowest=10**9, at_most=False):
    parts = list(word)
    while len(parts) > 1:
        low, place = lowest, None
        for i in range(len(parts) - 1):
            r = ranks.get(parts[i] + parts[i + 1], lowest)
            if r < low or at_most and r == low < lowest:
                low, place = r, i
        if place is None:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


ANSWERS = [
    ("count_pairs", counted_with_counter, ""),
    ("count_pairs", counted_by_index, ""),
    ("count_pairs", lambda words: counted_by_index(words, end=2), "the last pair is missing"),
    ("count_pairs", lambda words: counted_by_index(words, weigh=False), "the words' counts are forgotten"),
    ("count_pairs", counted_in_one_text, "pairs that span two words"),
    ("count_pairs", lambda words: {p: n for w, n in words.items() for p in zip(w, w[1:])},
     "the last word's count replaces the others"),
    ("count_pairs", lambda words: counted_by_index(words, weigh=False, change=lambda p: (min(p), max(p))),
     "two things at once: the words' counts are forgotten, and pairs are unordered"),
    ("count_pairs", lambda words: {p: float(n) for p, n in counted_by_index(words).items()}, "wrong type"),
    ("best_pair", best_by_sorting, ""),
    ("best_pair", best_by_loop, ""),
    ("best_pair", lambda c: max(c, key=lambda p: (c[p], p[0]), default=None), "only the first symbols are compared"),
    ("best_pair", lambda c: best_by_loop(c, lambda n, p, m, best: n > m), "a tie goes to the first"),
    ("best_pair", lambda c: best_by_loop(c, lambda n, p, m, best: n >= m), "a tie goes to the last"),
    ("best_pair", lambda c: best_by_loop(c, lambda n, p, m, best: n > m or n == m and b"".join(p) > b"".join(best)),
     "the joined bytes are compared"),
    ("best_pair", lambda c: sorted(c, key=lambda p: (c[p], p))[-1], "no pair is an error"),
    ("best_pair", lambda c: Counter(c).most_common(1)[0][0],
     "two things at once: a tie goes to the first, and no pair is an error"),
    ("merge_pair", merged_by_recursion, ""),
    ("merge_pair", merged_on_a_stack, ""),
    ("merge_pair", merged_by_pairwise, ""),
    ("merge_pair", merged_in_place, "changed its input"),
    ("merge_pair", merged_as_text, "digits are replaced"),
    ("merge_pair", merged_backwards, "from right to left"),
    ("merge_pair", lambda *a: merged_by_pairwise(*a, last=False), "the last item is lost"),
    ("merge_pair", lambda ids, pair, new: [new if (a, b) == pair else a for a, b in zip(ids, [*ids[1:], None])],
     "the second symbol stays"),
    ("merge_pair", lambda ids, pair, new: [new if p == pair else p[0] for p in zip(ids, ids[1:])],
     "two things at once: the second symbol stays, and the last item is lost"),
    ("merge_pair", lambda *a: (n for n in merged_by_recursion(*a)), "returned a generator"),
    ("encode_word", encoded_by_rank, ""),
    ("encode_word", encoded_piece_by_piece, ""),
    ("encode_word", encoded_with_a_lowest, ""),
    ("encode_word", lambda w, r: encoded_piece_by_piece(w, r, list), "the order of the dictionary"),
    ("encode_word", lambda w, r: encoded_by_rank(w, r, skip=lambda rank: not rank), "rank 0 taken for nothing"),
    ("encode_word", lambda w, r: encoded_by_rank(w, r, order=lambda found: found[0]), "leftmost first"),
    ("encode_word", lambda w, r: encoded_with_a_lowest(w, r, at_most=True), "the rightmost of equals"),
    ("encode_word", lambda w, r: encoded_with_a_lowest(w, r, lowest=100), "an unknown pair before a known one"),
    ("encode_word", lambda w, r: encoded_by_rank(w, r, order=max),
     "two things at once: highest rank first, and the rightmost of equals"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
