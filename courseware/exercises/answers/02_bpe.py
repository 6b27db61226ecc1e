"""Chapter 02: count pairs, choose one, merge it, and apply merges in the order in which they were learned."""

import re

from courseware.exercises import Exercise, Mistake

BY_HAND = 'chapter 2, "By hand: hot, hotter, hottest"'


def _probe_count(answer):
    yield "count_pairs({(1, 2, 3): 1})", answer({(1, 2, 3): 1})
    yield "count_pairs({(1, 2): 3, (2, 1, 2): 2})", answer({(1, 2): 3, (2, 1, 2): 2})
    yield "count_pairs({(7, 7, 7): 1, (7,): 9})", answer({(7, 7, 7): 1, (7,): 9})


COUNT = Exercise(
    "count_pairs", _probe_count,
    hints=(
        "zip(word, word[1:]) walks over the neighbours of one word.",
        "A word that occurs three times in the text adds 3 to each of its pairs.",
        "counts[pair] = counts.get(pair, 0) + times",
    ),
    explanation="Words are counted once, so each pair is weighed by how often its word occurs; no pair spans two words.",
    look=BY_HAND,
    mistakes=(
        Mistake("the words' counts are forgotten", "Each word counted once. A word that occurs 1,000 times has to weigh 1,000 times as much: add `times`, not 1.",
                edit=("+ times", "+ 1")),
        Mistake("the last word's count replaces the others", "A pair of several words got the count of the last one only. Add to what is there: counts.get(pair, 0) + times.",
                edit=("counts.get(pair, 0) + times", "times")),
        Mistake("pairs do not overlap", "You stepped over two symbols at a time. In (1, 2, 3) both (1, 2) and (2, 3) are pairs.",
                edit=("word, word[1:]", "word[::2], word[1::2]")),
        Mistake("the last pair is missing", "The last pair of each word was not counted. A word of n symbols has n - 1 pairs.",
                edit=("word[1:]", "word[1:-1]")),
        Mistake("a repeated pair counts once", "In (7, 7, 7) the pair (7, 7) occurs twice. A set, or `if pair in word`, counts it once.",
                edit=("zip(word, word[1:], strict=False)", "set(zip(word, word[1:]))")),
        Mistake("pairs are unordered", "(1, 2) and (2, 1) were counted together, but 'th' is not 'ht'. Leave a pair in its order.",
                edit=("counts[pair] =", "pair = tuple(sorted(pair))\ncounts[pair] =")),
        Mistake("pairs that span two words", "You joined the words to one sequence, so the end of one and the beginning of the next make pairs. No merge crosses words.",
                edit=("for word, times in", "words = {tuple(s for w, n in words.items() for s in w * n): 1}\nfor word, times in")),
    ),
)  # fmt: skip


def _probe_best(answer):
    a, b, c = b"a", b"b", b"c"
    yield "one pair is the most frequent", answer({(a, b): 2, (b, c): 5, (c, a): 1})
    yield "a tie of (a, b) and (b, a)", answer({(a, b): 3, (b, a): 3, (c, c): 2})
    yield "a tie of (a, bc) and (ab, c)", answer({(a, b"bc"): 4, (b"ab", c): 4})
    yield "a tie of (a, bcd) and (b, c)", answer({(a, b"bcd"): 4, (b, c): 4})
    yield "a tie of (b, a), (b, c) and (b, b)", answer({(b, a): 2, (b, c): 2, (b, b): 2})
    yield "a tie of (z, a) and (\\xc3, a)", answer({(b"\xc3", a): 2, (b"z", a): 2})
    yield "no pairs", answer({})


BEST = Exercise(
    "best_pair", _probe_best,
    hints=(
        "max(counts, key=...) gives the key of the dictionary for which the function `key` is largest.",
        "A tuple as key compares its first part first and its second only in a tie: (counts[pair], pair).",
        "max of nothing raises an error, unless it has a `default`.",
    ),
    explanation="The rule for ties makes the vocabulary a fact of the counts; without it the order of the text would decide.",
    mistakes=(
        Mistake("a tie goes to the first", "Of equally frequent pairs you take the one that was counted first. Then the order of the text decides the ids.",
                edit=("(counts[pair], pair)", "counts[pair]"), look=BY_HAND),
        Mistake("a tie goes to the last", "Of equally frequent pairs you take the one that was counted last. Then the order of the text decides the ids.",
                edit=(("max(counts", "max(reversed(counts)"), ("(counts[pair], pair)", "counts[pair]")), look=BY_HAND),
        Mistake("a tie goes to the smaller", "Of equally frequent pairs you take the lexicographically smaller; our rule takes the greater.",
                edit=(("max(counts", "min(counts"), ("(counts[pair], pair)", "(-counts[pair], pair)"))),
        Mistake("the joined bytes are compared", "You compare the joined bytes, where (ab, c) and (a, bc) are both abc. Compare the pairs themselves.",
                edit=(", pair)", ", pair[0] + pair[1])")),
        Mistake("only the first symbols are compared", "Of equally frequent pairs you compare the first symbols, and where they are the same the order of the text decides. Compare the whole pair.",
                edit=(", pair)", ", pair[0])")),
        Mistake("no pair is an error", "Right, except when there is no pair left: then the task asks for None, which `default=None` gives.",
                edit=(", default=None", ""), also=((", default=None)", ", default=None) if counts else [][0]"),)),
    ),
)  # fmt: skip


def _probe_merge(answer):
    yield "merge([1, 2, 3, 1, 2], (1, 2), 9)", answer([1, 2, 3, 1, 2], (1, 2), 9)
    yield "merge([7, 7, 7, 5], (7, 7), 9)", answer([7, 7, 7, 5], (7, 7), 9)
    yield "merge([1, 2, 1, 2, 3], (1, 2), 9)", answer([1, 2, 1, 2, 3], (1, 2), 9)
    yield "merge([2, 1], (1, 2), 9)", answer([2, 1], (1, 2), 9)
    yield "merge([], (1, 2), 9)", answer([], (1, 2), 9)
    yield "merge([11, 2, 1, 21], (1, 2), 9)", answer([11, 2, 1, 21], (1, 2), 9)
    yield "merge([300, 0, 300], (300, 0), 256)", answer([300, 0, 300], (300, 0), 256)


MERGE = Exercise(
    "merge_pair", _probe_merge,
    hints=(
        "Walk from left to right with an index that moves by 2 after a merge and by 1 otherwise.",
        "Before looking at ids[i + 1], make sure that it exists.",
        "In [7, 7, 7] the first two are merged and the third stays: [new, 7].",
    ),
    explanation="A while loop, because the step varies; left to right, because training and encoding must agree.",
    look=BY_HAND,
    mistakes=(
        Mistake("the second symbol stays", "You wrote the new id but kept the second symbol of the pair. Step over both after a merge.",
                edit=("i += 2", "i += 1")),
        Mistake("merges overlap", "In [7, 7, 7] the middle 7 was used twice, so decoding would give four 7s. Step over both symbols after a merge.",
                edit=("i += 2", "i += 1 if tuple(ids[i + 1 : i + 3]) == pair else 2")),
        Mistake("from right to left", "[7, 7, 7] became [7, new]. Left to right is the convention; training and encoding must share it.",
                wrap=lambda right: lambda ids, pair, new: right(ids[::-1], pair[::-1], new)[::-1]),
        Mistake("only the first", "Only the first occurrence was merged. Go on after a merge.",
                edit=("out.append(new)", "return [*out, new, *ids[i + 2 :]]")),
        Mistake("the last pair is missed", "A pair at the very end was not merged: i + 1 < len(ids) is enough.",
                edit=("i + 1 < len(ids)", "i + 2 < len(ids)")),
        Mistake("the last item is lost", "Your loop ends before the last item, so where it is not part of a pair it is missing from the result.",
                edit=("while i < len(ids)", "while i < len(ids) - 1")),
        Mistake("digits are replaced", "You replaced text, so 11, 2 became 19: the end of one number and the beginning of the next look like a pair. Compare the ids.",
                edit=("out, i = [], 0", 'text = " ".join(map(str, ids)).replace("%d %d" % pair, str(new))\nreturn [int(n) for n in text.split()]\nout, i = [], 0')),
    ),
)  # fmt: skip


def _probe_encode(answer):
    ranks = {"th": 0, "in": 1, "the": 2, "st": 3, "sthe": 4, "er": 5, "aa": 6}
    for word in ("sth", "sthe", "ther", "h", "xyz", "inin", "aaa", "xaaaaa", "ester"):
        yield f"encode_word({word!r}, ranks)", answer(word, dict(ranks))

    mixed = {"st": 3, "in": 1, "th": 0, "er": 5, "the": 2, "sthe": 4}
    for word in ("sthe", "ther"):
        yield f"encode_word({word!r}, ranks), the ranks in another order", answer(word, dict(mixed))

    large = {"th": 40_000, "st": 49_999}
    yield "encode_word('asthma', ranks), ranks of 40,000 and more", answer("asthma", large)


ENCODE = Exercise(
    "encode_word", _probe_encode,
    hints=(
        "Follow the buggy function through 'sth' with ranks th: 0, st: 3. Which of the two was learned first?",
        "Among all neighbouring pairs that are known, the one with the lowest rank is merged first, wherever it stands.",
        "min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], float('inf'))) finds it, leftmost among equals.",
    ),
    explanation="Encoding replays training: the pair that was merged first in training is merged first here.",
    look='chapter 2, "Cutting a word by rank"',
    mistakes=(
        Mistake("leftmost first", "You merge the leftmost known pair. In training 'th' was merged before 'st', so 'sth' must give s + th.",
                of="given", look='chapter 2, "Break it"'),
        Mistake("highest rank first", "You merge the pair that was learned last. The rank counts from the first merge, so take the lowest.",
                edit=(("min(", "max("), ('float("inf")', "-1"))),
        Mistake("the order of the dictionary", "You merge the pair that stands first in the dictionary. Its order means nothing; the numbers in it are the ranks.",
                edit=('ranks.get(pairs[i], float("inf"))', "[*ranks, pairs[i]].index(pairs[i])")),
        Mistake("rank 0 taken for nothing", "'th' with rank 0 is never merged, since 0 counts as False. Ask `pair in ranks`, or compare with None.",
                edit=(('ranks.get(pairs[i], float("inf"))', 'ranks.get(pairs[i]) or float("inf")'),
                      ("pairs[best] not in ranks", "not ranks.get(pairs[best])")),
                also=(("pairs[best] not in ranks", "not ranks.get(pairs[best])"),)),
        Mistake("an unknown pair before a known one", "Your number for unknown pairs is not larger than all ranks. GPT-2 has ranks up to 49,999; float('inf') is always larger.",
                edit=('float("inf")', "1000")),
        Mistake("the rightmost of equals", "Of two places with the same rank you take the right one: 'aaa' became a + aa. Training merges from left to right.",
                edit=("range(len(pairs))", "reversed(range(len(pairs)))")),
        Mistake("only one merge", "Only one pair was merged. After a merge new pairs appear: repeat until none is known.",
                edit=("parts[best : best + 2] = [pairs[best]]", "parts[best : best + 2] = [pairs[best]]\nbreak")),
        Mistake("longest match", "You cut the longest known piece from the left. That is another algorithm, WordPiece's, and gives other ids. Merges join neighbours.",
                answer=lambda word, ranks: re.findall("|".join([*sorted(ranks, key=len, reverse=True), "."]), word)),
    ),
)  # fmt: skip
