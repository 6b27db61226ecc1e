"""Exercises of chapter 02: count pairs, choose one, merge it, and apply merges in the right order."""

from __future__ import annotations

from courseware.exercises.answers.bpe_order import BEST, ENCODE
from courseware.exercises.legacy import Exercise, WrongAnswer

# --- count pairs ---


def count_pairs(words):
    counts = {}
    for word, times in words.items():
        for pair in zip(word, word[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + times
    return counts


def _counted(pairs_of, weighted=True):
    def answer(words):
        counts = {}
        for word, times in words.items():
            for pair in pairs_of(word):
                counts[pair] = counts.get(pair, 0) + (times if weighted else 1)
        return counts

    return answer


def _pairs(word):
    return zip(word, word[1:], strict=False)


def _apart(word):
    """Yield pairs without overlap: the next pair begins after the last."""
    return zip(word[::2], word[1::2], strict=False)


def _run_count(answer):
    yield "count_pairs({(1, 2, 3): 1})", answer({(1, 2, 3): 1})
    yield "count_pairs({(1, 2): 3, (2, 1, 2): 2})", answer({(1, 2): 3, (2, 1, 2): 2})
    yield "count_pairs({(7, 7, 7): 1, (7,): 9})", answer({(7, 7, 7): 1, (7,): 9})


COUNT = Exercise(
    name="count_pairs",
    chapter=2,
    title="count the neighbouring pairs",
    minutes=10,
    difficulty=1,
    hints=(
        "zip(word, word[1:]) walks over the neighbours of one word.",
        "A word that occurs three times in the text adds 3 to each of its pairs.",
        "counts[pair] = counts.get(pair, 0) + times",
    ),
    run=_run_count,
    reference=count_pairs,
    explanation="Words are counted once, so each pair is weighed by how often its word occurs; no pair spans two words.",
    wrong=(
        WrongAnswer(
            "the words' counts are forgotten",
            "Each word counted once. A word that occurs 1,000 times has to weigh 1,000 times as much.",
            "add `times`, not 1",
            _counted(_pairs, weighted=False),
        ),
        WrongAnswer(
            "pairs do not overlap",
            "You stepped over two symbols at a time. In (1, 2, 3) both (1, 2) and (2, 3) are pairs.",
            "zip(word, word[1:])",
            _counted(_apart),
        ),
        WrongAnswer(
            "the last pair is missing",
            "The last pair of each word was not counted.",
            "a word of n symbols has n - 1 pairs",
            _counted(lambda word: list(_pairs(word))[:-1]),
        ),
        WrongAnswer(
            "pairs are unordered",
            "(1, 2) and (2, 1) were counted together, but 'th' is not 'ht'.",
            "leave the pair in its order",
            _counted(lambda word: [tuple(sorted(pair)) for pair in _pairs(word)]),
        ),
    ),
)

# --- merge one pair ---


def merge(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _merge_overlapping(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new)
            i += 1 if i + 2 < len(ids) and (ids[i + 1], ids[i + 2]) == pair else 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _merge_from_right(ids, pair, new):
    return merge(list(ids)[::-1], pair[::-1], new)[::-1]


def _merge_once(ids, pair, new):
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return [*ids[:i], new, *ids[i + 2 :]]
    return list(ids)


def _merge_not_last(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if i + 2 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _merge_keeping(ids, pair, new):
    out = []
    for i, current in enumerate(ids):
        out.append(new if i + 1 < len(ids) and (current, ids[i + 1]) == pair else current)
    return out


def _run_merge(answer):
    yield "merge([1, 2, 3, 1, 2], (1, 2), 9)", list(answer([1, 2, 3, 1, 2], (1, 2), 9))
    yield "merge([7, 7, 7, 5], (7, 7), 9)", list(answer([7, 7, 7, 5], (7, 7), 9))
    yield "merge([1, 2, 1, 2, 3], (1, 2), 9)", list(answer([1, 2, 1, 2, 3], (1, 2), 9))
    yield "merge([2, 1], (1, 2), 9)", list(answer([2, 1], (1, 2), 9))
    yield "merge([], (1, 2), 9)", list(answer([], (1, 2), 9))


MERGE = Exercise(
    name="merge_pair",
    chapter=2,
    title="merge one pair",
    minutes=15,
    difficulty=2,
    hints=(
        "Walk from left to right with an index that moves by 2 after a merge and by 1 otherwise.",
        "Before looking at ids[i + 1], make sure that it exists.",
        "In [7, 7, 7] the first two are merged and the third stays: [new, 7].",
    ),
    run=_run_merge,
    reference=merge,
    explanation="A while loop, because the step varies; left to right, because training and encoding must agree.",
    wrong=(
        WrongAnswer(
            "merges overlap",
            "In [7, 7, 7] the middle 7 was used twice, so decoding would give four 7s.",
            "step over both symbols after a merge",
            _merge_overlapping,
        ),
        WrongAnswer(
            "from right to left",
            "[7, 7, 7] became [7, new]. Left to right is the convention; training and encoding must share it.",
            "start at index 0",
            _merge_from_right,
        ),
        WrongAnswer(
            "only the first",
            "Only the first occurrence was merged.",
            "go on after a merge",
            _merge_once,
        ),
        WrongAnswer(
            "the last pair is missed",
            "A pair at the very end was not merged.",
            "i + 1 < len(ids) is enough",
            _merge_not_last,
        ),
        WrongAnswer(
            "the second symbol stays",
            "You wrote the new id but kept the second symbol of the pair.",
            "step over both symbols after a merge",
            _merge_keeping,
        ),
    ),
)

EXERCISES = (COUNT, BEST, MERGE, ENCODE)
