"""Exercises of chapter 02 about order: which pair training merges next, and which one encoding does."""

from __future__ import annotations

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- the next pair to merge ---


def best_pair(counts):
    return max(counts, key=lambda pair: (counts[pair], pair), default=None)


def _best(key, choose=max):
    """Return a best_pair that ranks pairs by key(times, pair)."""

    def answer(counts):
        return choose(counts, key=lambda pair: key(counts[pair], pair), default=None)

    return answer


def _run_best(answer):
    a, b, c = b"a", b"b", b"c"
    yield "best_pair, one pair is the most frequent", answer({(a, b): 2, (b, c): 5, (c, a): 1})
    yield "best_pair, a tie of (a, b) and (b, a)", answer({(a, b): 3, (b, a): 3, (c, c): 2})
    yield "best_pair, a tie; the greater stands first", answer({(b, a): 3, (a, b): 3})
    yield "best_pair, a tie of (ab, c) and (a, bc)", answer({(a, b"bc"): 4, (b"ab", c): 4})
    yield "best_pair, a tie of (a, bcd) and (b, c)", answer({(a, b"bcd"): 4, (b, c): 4})
    yield "best_pair of no pairs", answer({})


BEST = Exercise(
    name="best_pair",
    chapter=2,
    title="the next pair to merge",
    minutes=10,
    difficulty=1,
    hints=(
        "max(counts, key=...) gives the key of the dictionary for which the function `key` is largest.",
        "A tuple as key compares its first part first and its second only in a tie: (counts[pair], pair).",
        "max of nothing raises an error, unless it has a `default`.",
    ),
    run=_run_best,
    reference=best_pair,
    explanation="The rule for ties makes the vocabulary a fact of the counts; without it the order of the text would decide.",
    wrong=(
        WrongAnswer(
            "a tie goes to the first",
            "Of equally frequent pairs you take the one that was counted first. Then the order of the text decides the ids.",
            'chapter 2, "By hand: hot, hotter, hottest"',
            _best(lambda times, pair: times),
        ),
        WrongAnswer(
            "a tie goes to the smaller",
            "Of equally frequent pairs you take the lexicographically smaller; our rule takes the greater.",
            "hint 2",
            _best(lambda times, pair: (-times, pair), min),
        ),
        WrongAnswer(
            "a tie goes to the longer",
            "Of equally frequent pairs you prefer the longer piece. Only the count decides, then the bytes.",
            "hint 2",
            _best(lambda times, pair: (times, len(pair[0] + pair[1]), pair)),
        ),
        WrongAnswer(
            "the joined bytes are compared",
            "You compare the joined bytes, where (ab, c) and (a, bc) are both abc. Compare the pairs themselves.",
            "hint 2",
            _best(lambda times, pair: (times, pair[0] + pair[1])),
        ),
        WrongAnswer(
            "the greatest pair, whatever its count",
            "You take the lexicographically greatest of all pairs; the count comes first.",
            "the order inside the key",
            _best(lambda times, pair: (pair, times)),
        ),
        WrongAnswer(
            "the rarest pair",
            "You take the least frequent pair.",
            "max instead of min",
            _best(lambda times, pair: (times, pair), min),
        ),
        WrongAnswer(
            "no pair is an error",
            "Right, except when there is no pair left: then the task asks for None.",
            "hint 3",
            lambda counts: max(counts, key=lambda pair: (counts[pair], pair)),
        ),
    ),
)

# --- find the bug: the order of merges ---


def encode_word(word, ranks):
    parts = list(word)
    while len(parts) > 1:
        pairs = [a + b for a, b in zip(parts, parts[1:], strict=False)]
        best = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], float("inf")))
        if pairs[best] not in ranks:
            break
        parts[best : best + 2] = [pairs[best]]
    return parts


def _given(word, ranks):
    """Return the pieces of `word` after all possible merges, in the order in which they were learned."""
    parts = list(word)
    merged = True
    while merged:
        merged = False
        for i in range(len(parts) - 1):
            if parts[i] + parts[i + 1] in ranks:
                parts[i : i + 2] = [parts[i] + parts[i + 1]]
                merged = True
                break
    return parts


def _encoded(choose):
    def answer(word, ranks):
        parts = list(word)
        while len(parts) > 1:
            pairs = [a + b for a, b in zip(parts, parts[1:], strict=False)]
            known = [i for i, pair in enumerate(pairs) if pair in ranks]
            if not known:
                break
            best = choose(known, pairs, ranks)
            parts[best : best + 2] = [pairs[best]]
        return parts

    return answer


def _one_pass(word, ranks):
    parts = list(word)
    pairs = [a + b for a, b in zip(parts, parts[1:], strict=False)]
    known = [i for i, pair in enumerate(pairs) if pair in ranks]
    if known:
        best = min(known, key=lambda i: ranks[pairs[i]])
        parts[best : best + 2] = [pairs[best]]
    return parts


def _greedy_longest(word, ranks):
    parts, i = [], 0
    while i < len(word):
        n = next(n for n in range(len(word) - i, 0, -1) if n == 1 or word[i : i + n] in ranks)
        parts.append(word[i : i + n])
        i += n
    return parts


_RANKS = {"th": 0, "in": 1, "the": 2, "st": 3, "sthe": 4, "er": 5}


def _run_encode(answer):
    for word in ("sth", "sthe", "ther", "h", "xyz", "inin"):
        yield f"encode_word({word!r}, ranks)", list(answer(word, dict(_RANKS)))


ENCODE = Exercise(
    name="encode_word",
    chapter=2,
    title="find the bug: the order of merges",
    minutes=20,
    difficulty=3,
    hints=(
        "Follow the buggy function through 'sth' with ranks th: 0, st: 3. Which of the two was learned first?",
        "Among all neighbouring pairs that are known, the one with the lowest rank is merged first, wherever it stands.",
        "min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], float('inf'))) finds it, leftmost among equals.",
    ),
    run=_run_encode,
    reference=encode_word,
    given=_given,
    explanation="Encoding replays training: the pair that was merged first in training is merged first here.",
    wrong=(
        WrongAnswer(
            "leftmost first",
            "You merge the leftmost known pair. In training 'th' was merged before 'st', so 'sth' must give s + th.",
            'chapter 2, "Break it"',
            _encoded(lambda known, pairs, ranks: known[0]),
        ),
        WrongAnswer(
            "highest rank first",
            "You merge the pair that was learned last. The rank counts from the first merge, so take the lowest.",
            "min instead of max",
            _encoded(lambda known, pairs, ranks: max(known, key=lambda i: ranks[pairs[i]])),
        ),
        WrongAnswer(
            "only one merge",
            "Only one pair was merged. After a merge new pairs appear: repeat until none is known.",
            "while, not if",
            _one_pass,
        ),
        WrongAnswer(
            "longest match",
            "You cut the longest known piece from the left. That is another algorithm (WordPiece works so), with other ids.",
            "merges join neighbours; they never look at longer pieces",
            _greedy_longest,
        ),
    ),
)
