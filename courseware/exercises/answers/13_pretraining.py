"""Exercises of chapter 13: the side of a document, filters, packing, reading by ranks, a restart, planning a run."""

from __future__ import annotations

import hashlib
import math
import random

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- the side of a document ---


def validation_ids(ids, fraction):
    chosen = []
    for identity in ids:
        digest = hashlib.sha256(identity.encode("utf-8")).digest()
        if int.from_bytes(digest[:8], "big") / 2**64 < fraction:
            chosen.append(identity)
    return chosen


def _by_lot(lot, below=True):
    return lambda ids, fraction: [i for i in ids if (lot(i) < fraction) == below]


def _hash_lot(identity, name="sha256", order="big", size=8):
    digest = hashlib.new(name, identity.encode()).digest()
    return int.from_bytes(digest[:size], order) / 2 ** (8 * size)


def _drawn_in_order(ids, fraction):
    chance = random.Random(0)
    return [i for i in ids if chance.random() < fraction]


def _lowest_lots(ids, fraction):
    chosen = set(sorted(ids, key=_hash_lot)[: round(len(ids) * fraction)])
    return [i for i in ids if i in chosen]


def _run_side(answer):
    pages = [f"<urn:uuid:{i}>" for i in range(300)]
    yield "300 pages, a tenth", [str(i) for i in answer(list(pages), 0.1)]
    yield "the same in reverse order", [str(i) for i in answer(pages[::-1], 0.1)]
    yield "half of them", [str(i) for i in answer(list(pages), 0.5)]
    yield "nearly all", [str(i) for i in answer(pages[:100], 0.95)]
    yield "a thousandth", [str(i) for i in answer([f"{i}" for i in range(4000)], 0.001)]
    yield "ids that are no ASCII", [str(i) for i in answer([f"é{i}ß" for i in range(60)], 0.3)]
    twice = pages[:40] + pages[:40]
    yield "every id twice", [str(i) for i in answer(twice, 0.3)]
    names = ["Hamlet", "hamlet", "HAMLET", " Hamlet", "Hamlet ", "HAMLET "]
    yield "names that differ in case and blanks", [str(i) for i in answer(names, 0.4)]
    numbers = [str(i) for i in range(50)]
    close = min(_hash_lot(i, size=4) for i in numbers) + 2**-34  # 4 bytes would say yes, 8 say no
    yield "a fraction very close to a lot", [str(i) for i in answer(numbers, close)]
    yield "no ids", [str(i) for i in answer([], 0.5)]


SIDE = Exercise(
    name="validation_ids",
    chapter=13,
    title="Which side?",
    minutes=15,
    difficulty=1,
    hints=(
        "Each id decides for itself. Nothing may depend on the order, on its place in the list, or on the other ids.",
        'hashlib.sha256(identity.encode("utf-8")).digest() gives 32 bytes. Take the first 8 as one number, the first byte counting most: int.from_bytes(digest[:8], "big").',
        "Divided by 2**64 it is a number from 0 to 1. Keep the ids for which it is below the fraction, in the order they came.",
    ),
    run=_run_side,
    reference=validation_ids,
    explanation="The hash draws a lot for each id, once and for ever. A larger fraction only adds ids, and nothing ever crosses over.",
    wrong=(
        WrongAnswer(
            "the last part of the list",
            "You cut the list by position. In another order, other documents are kept: ask the hash of each id.",
            'chapter 13, "Break it: split by position"',
            lambda ids, fraction: ids[len(ids) - round(len(ids) * fraction) :],
        ),
        WrongAnswer(
            "the first part of the list",
            "You took the first ids. In another order, other documents are kept: ask the hash of each id.",
            'chapter 13, "Break it: split by position"',
            lambda ids, fraction: ids[: round(len(ids) * fraction)],
        ),
        WrongAnswer(
            "drawn by a seeded generator",
            "A seeded generator gives the same lots in the same order, but to whichever id comes next. The lot must belong to the id.",
            'chapter 13, "Which side?"',
            _drawn_in_order,
        ),
        WrongAnswer(
            "Python's own hash",
            "hash() of a text is another number each time Python starts (PYTHONHASHSEED), so a restart would mix the two sides. Use hashlib.",
            'chapter 13, "Which side?"',
            _by_lot(lambda i: (hash(i) % 2**64) / 2**64),
        ),
        WrongAnswer(
            "the other side",
            "You returned the training ids. Keep those *below* the fraction.",
            "hint 3",
            _by_lot(_hash_lot, below=False),
        ),
        WrongAnswer(
            "the bytes in the other order",
            "Any order of the bytes would do, but ours has the first byte count most, so that the split agrees with is_validation.",
            "hint 2",
            _by_lot(lambda i: _hash_lot(i, order="little")),
        ),
        WrongAnswer(
            "MD5",
            "MD5 would do for a split, but ours is SHA-256: with another hash other documents are kept.",
            "hint 2",
            _by_lot(lambda i: _hash_lot(i, "md5")),
        ),
        WrongAnswer(
            "steps of a hundredth",
            "You took the hash modulo 100 (or a single digit of it), so fractions finer than that are lost, and the split is another one.",
            "hint 2",
            _by_lot(lambda i: int(hashlib.sha256(i.encode()).hexdigest(), 16) % 100 / 100),
        ),
        WrongAnswer(
            "the first byte only",
            "One byte has 256 values, so a fraction of 0.001 keeps 1 in 256 or none. Take 8 bytes.",
            "hint 2",
            _by_lot(lambda i: _hash_lot(i, size=1)),
        ),
        WrongAnswer(
            "four bytes",
            "You took fewer than 8 bytes. For nearly all ids that makes no difference, and for a lot that is close to the fraction it does.",
            "hint 2",
            _by_lot(lambda i: _hash_lot(i, size=4)),
        ),
        WrongAnswer(
            "so many of the lowest lots",
            "You sorted the ids by their lots and kept so many. Then an id's side depends on the others: compare each lot with the fraction.",
            "hint 1",
            _lowest_lots,
        ),
        WrongAnswer(
            "each id once",
            "You removed ids that come twice. Return each as often as it came: a list, not a set.",
            "hint 3",
            lambda ids, fraction: list(dict.fromkeys(validation_ids(ids, fraction))),
        ),
    ),
)

# --- filter and count ---

REASONS = ("empty", "too long", "low score", "kept")


def sort_documents(rows, min_score, max_chars):
    kept, counts = [], dict.fromkeys(REASONS, 0)
    for row in rows:
        text, score = row["text"], row["score"]
        if text is None or not text.strip():
            reason = "empty"
        elif len(text) > max_chars:
            reason = "too long"
        elif score is None or score < min_score:
            reason = "low score"
        else:
            reason = "kept"
            kept.append(row["id"])
        counts[reason] += 1
    return kept, counts


def _sorted(blank=True, length="chars", at_limit=True, at_score=True, order="empty length score", all_reasons=False, count_kept=True, seen=False, fixed=False):  # fmt: skip
    def answer(rows, min_score, max_chars):
        if fixed:
            min_score, max_chars = 2.5, 10
        kept, counts = [], dict.fromkeys(REASONS, 0)
        for row in rows:
            text, score = row["text"] or "", row["score"]
            size = len(text.encode()) if length == "bytes" else len(text)
            tests = {
                "empty": not (text.strip() if blank else text),
                "length": size > max_chars or (size == max_chars and not at_limit),
                "score": score is None
                or score < min_score
                or (score == min_score and not at_score),
            }
            names = {"empty": "empty", "length": "too long", "score": "low score"}
            found = [names[test] for test in order.split() if tests[test]]
            for reason in found if all_reasons else found[:1]:
                counts[reason] += 1
            if not found:
                kept.append(row["id"])
                counts["kept"] += 1
        if not count_kept:
            counts["kept"] = 0
        if seen:
            counts["kept"] = len(rows)
        return kept, counts

    return answer


def _run_sort(answer):
    def ask(rows, min_score, max_chars):
        rows = [
            {"id": str(i), "text": text, "score": score} for i, (text, score) in enumerate(rows)
        ]
        kept, counts = answer(rows, min_score, max_chars)
        return [[str(i) for i in kept], {str(k): int(v) for k, v in dict(counts).items()}]

    yield "three good pages", ask([("a b", 3.0), ("c", 4.0), ("d e f", 5.0)], 2.5, 10)
    yield (
        "empty, blank, missing",
        ask([("", 3.0), (" \n\t", 3.0), (None, 3.0), ("x", 3.0)], 2.5, 10),
    )
    yield "exactly as long as allowed", ask([("x" * 10, 3.0), ("x" * 11, 3.0)], 2.5, 10)
    yield "letters of two bytes", ask([("é" * 8, 3.0), ("é" * 12, 3.0)], 2.5, 10)
    yield "exactly the lowest score", ask([("a", 2.5), ("b", 2.49), ("c", 2.51)], 2.5, 10)
    yield "no score", ask([("a", None), ("b", 3.0)], 2.5, 10)
    yield "too long and a low score", ask([("x" * 20, 1.0), ("y", 1.0)], 2.5, 10)
    yield "empty and a low score", ask([("  ", 1.0), ("", None), (" " * 30, 3.0)], 2.5, 10)
    yield "a lowest score of 0", ask([("a", 0.0), ("b", None), ("c", 0.1)], 0.0, 10)
    yield "line breaks count as characters", ask([("x" * 9 + "\n\n", 3.0)], 2.5, 10)
    yield "blanks of other kinds", ask([("\r\n\x0c\u00a0\u3000", 3.0)], 2.5, 10)
    yield "no rows", ask([], 2.5, 10)
    rows = [("z9", "x" * 12, 3.4), ("b2", "y", 2.9), ("a7", "x" * 21, 4.0), ("m5", "abc", 3.2)]
    rows = [{"id": i, "text": text, "score": score} for i, text, score in rows]
    kept, counts = answer(rows, 3.2, 20)
    found = [[str(i) for i in kept], {str(k): int(v) for k, v in dict(counts).items()}]
    yield "other limits, and ids that are no numbers", found
    yield "all at once", ask([("a", 3.0), (None, None), ("z" * 99, 5.0), ("b", 0.0), ("c", 2.5)], 2.5, 10)  # fmt: skip


SORT = Exercise(
    name="sort_documents",
    chapter=13,
    title="What stays and what goes",
    minutes=15,
    difficulty=1,
    hints=(
        'Start with counts = {"empty": 0, "too long": 0, "low score": 0, "kept": 0}. Each row adds 1 to exactly one of them.',
        "Test in this order: empty (None counts, and text.strip() is empty for blanks), too long, low score. The first that applies is the reason.",
        "A text of exactly max_chars characters stays, and so does a score of exactly min_score. No score at all is a low score.",
    ),
    run=_run_sort,
    reference=sort_documents,
    explanation="One reason for each row: then the counts add up to the number of rows, and nothing can vanish unseen.",
    wrong=(
        WrongAnswer(
            "blanks are kept",
            "A text of blanks and line breaks is not empty for Python, but there is nothing in it to learn: test text.strip().",
            "hint 2",
            _sorted(blank=False),
        ),
        WrongAnswer(
            "bytes instead of characters",
            "For plain letters you are right, but you counted bytes, and é has two. max_chars counts characters.",
            'chapter 13, "What stays and what goes"',
            _sorted(length="bytes"),
        ),
        WrongAnswer(
            "exactly as long is too long",
            "A text of exactly max_chars characters is not longer than allowed: it stays.",
            "hint 3",
            _sorted(at_limit=False),
        ),
        WrongAnswer(
            "exactly the lowest score is too low",
            "A score of exactly min_score is not lower: it stays.",
            "hint 3",
            _sorted(at_score=False),
        ),
        WrongAnswer(
            "every reason counted",
            "A row with two faults is counted twice, so your counts add up to more than the rows. The first reason counts.",
            "hint 1",
            _sorted(all_reasons=True),
        ),
        WrongAnswer(
            "the score before the length",
            "What is kept is right, but a page that is too long and has a low score counts as too long: length is tested before the score.",
            "hint 2",
            _sorted(order="empty score length"),
        ),
        WrongAnswer(
            "the length before emptiness",
            "What is kept is right, but a very long row of blanks is empty first of all.",
            "hint 2",
            _sorted(order="length empty score"),
        ),
        WrongAnswer(
            "the kept ones not counted",
            'The list is right, but counts["kept"] stays 0. It is counted like the others, so that they add up.',
            "hint 1",
            _sorted(count_kept=False),
        ),
        WrongAnswer(
            "the limits of the example",
            "You compared with 2.5 and 10. The limits are the arguments min_score and max_chars.",
            "hint 3",
            _sorted(fixed=True),
        ),
        WrongAnswer(
            "all rows counted as kept",
            'counts["kept"] counts all rows. Only those that stay.',
            "hint 1",
            _sorted(seen=True),
        ),
    ),
)

# --- packing ---


def pack_documents(documents, end, block_size):
    tokens = [token for document in documents for token in [*document, end]]
    blocks, last = [], len(tokens) - block_size - 1
    for planned in range(0, len(tokens) - 1, block_size):
        start = min(planned, last)
        x = tokens[start : start + block_size]
        y = tokens[start + 1 : start + block_size + 1]
        asked = planned - start
        blocks.append((x, [-100] * asked + y[asked:]))
    return blocks


def _packed(end="after", tail="back", mask=True, shift=1, join=True, step=0):
    def answer(documents, end_id, block_size):
        rows = {
            "after": lambda d: [*d, end_id],
            "before": lambda d: [end_id, *d],
            "never": lambda d: [*d],
        }
        texts = [rows[end](document) for document in documents]
        if end == "between":
            texts = [[*d, end_id] for d in documents[:-1]] + [list(documents[-1])]
        texts = [sum(texts, [])] if join else texts
        blocks = []
        for tokens in texts:
            last = len(tokens) - block_size - 1
            for planned in range(0, len(tokens) - 1, block_size + step):
                start = planned if tail != "back" else max(0, min(planned, last))
                x = tokens[start : start + block_size]
                y = tokens[start + shift : start + block_size + shift]
                if tail == "drop" and planned > last:
                    continue
                if tail == "pad":
                    x = x + [end_id] * (block_size - len(x))
                    y = y + [-100] * (block_size - len(y))
                asked = planned - start if mask else 0
                blocks.append((x, [-100] * asked + y[asked:]))
        return blocks

    return answer


def _between(documents, end_id, block_size):
    joined = [*documents[:-1]]
    tokens = [t for d in joined for t in [*d, end_id]] + list(documents[-1])
    return _packed("never")([tokens], end_id, block_size)


def _run_pack(answer):
    def ask(documents, end, block_size):
        blocks = answer([list(d) for d in documents], end, block_size)
        return [([int(t) for t in x], [int(t) for t in y]) for x, y in blocks]

    yield "the three documents of the chapter", ask([[1, 2, 3], [4], [5, 6, 7, 8, 9]], 0, 4)
    yield "one document, blocks of 3", ask([[5, 6, 7, 8, 9, 10, 11]], 99, 3)
    yield "a tail of one target", ask([[1, 2], [3, 4, 5, 6], [7]], 0, 4)
    yield "all blocks full", ask([[1, 2, 3, 4], [5, 6, 7]], 50, 4)
    yield "documents longer than a block", ask([list(range(1, 12)), list(range(20, 33))], 0, 5)
    yield "blocks of one", ask([[3, 1], [2]], 9, 1)
    yield "one block exactly", ask([[1, 2, 3]], 7, 3)
    yield "many short documents", ask([[i] for i in range(1, 14)], 0, 6)
    yield "an empty document", ask([[1, 2], [], [3, 4, 5]], 0, 3)
    yield "a document that ends with `end`", ask([[1, 0], [2, 3, 0]], 0, 3)


PACK = Exercise(
    name="pack_documents",
    chapter=13,
    title="Pack documents into blocks",
    minutes=25,
    difficulty=3,
    hints=(
        "First make one row of tokens: each document, then `end`. Also after the last one.",
        "Block i begins at i * block_size. Its inputs are tokens[start : start + block_size], its targets the same places one further. There is a block as long as there is a target for it: range(0, len(tokens) - 1, block_size).",
        "If the last block is not full, it begins at len(tokens) - block_size - 1 in place of its planned start. Its first planned - start targets were asked before: -100.",
    ),
    run=_run_pack,
    reference=pack_documents,
    explanation="No place is empty, and every token but the first is a target once. The cost is a few inputs that the last block repeats.",
    wrong=(
        WrongAnswer(
            "no END",
            "You joined the documents without `end`, so the model cannot know where one stops.",
            "hint 1",
            _packed("never"),
        ),
        WrongAnswer(
            "an empty document has no END",
            "You left out documents without tokens. Their `end` stands in the row all the same: each document has one.",
            "hint 1",
            lambda documents, end, size: pack_documents([d for d in documents if d], end, size),
        ),
        WrongAnswer(
            "END before each document",
            "You put `end` before each document. Here it follows each, also the last.",
            "hint 1",
            _packed("before"),
        ),
        WrongAnswer(
            "no END after the last document",
            "Right, but for the last document: its end is missing.",
            "hint 1",
            _between,
        ),
        WrongAnswer(
            "each document in rows of its own",
            "You began a new block with each document. Then short documents leave most places empty, or go missing: join them first.",
            'chapter 13, "Blocks without waste"',
            _packed(tail="pad", join=False),
        ),
        WrongAnswer(
            "the tail is left out",
            "The tokens after the last full block are never asked. One more block must end with the text.",
            "hint 3",
            _packed(tail="drop"),
        ),
        WrongAnswer(
            "the tail is padded",
            "You filled the last block up with padding. Move it back until it is full.",
            'chapter 13, "Each target once"',
            _packed(tail="pad"),
        ),
        WrongAnswer(
            "the tail is short",
            "Your last block is shorter than block_size, so it cannot stand in a batch. Move it back until it is full.",
            "hint 3",
            _packed(tail="short"),
        ),
        WrongAnswer(
            "the tail asks again",
            "Your last block is moved back, but its first targets were asked by the block before: -100 for those.",
            "hint 3",
            _packed(mask=False),
        ),
        WrongAnswer(
            "targets not shifted",
            "Your targets are the inputs. The model would learn to copy: take the tokens one place further on.",
            "hint 2",
            _packed(shift=0),
        ),
        WrongAnswer(
            "a token lost between blocks",
            "Your blocks begin every block_size + 1 tokens, so one target in each is never asked. The last target of a block is the first input of the next.",
            "hint 2",
            _packed(step=1),
        ),
    ),
)

# --- find the bug: two ranks, one text ---


def given_positions(position, rank, world, batch_size, steps):
    drawn = []
    for _ in range(steps):
        first = position + rank * batch_size
        drawn.append(list(range(first, first + batch_size)))
        position += batch_size
    return drawn, position


def positions_of_rank(position, rank, world, batch_size, steps):
    drawn = []
    for _ in range(steps):
        first = position + rank * batch_size
        drawn.append(list(range(first, first + batch_size)))
        position += world * batch_size
    return drawn, position


def _positions(first=lambda p, r, w, b: p + r * b, stride=lambda r, w, b: w * b, places=None, end="global"):  # fmt: skip
    def answer(position, rank, world, batch_size, steps):
        drawn, start = [], position
        for _ in range(steps):
            at = first(position, rank, world, batch_size)
            row = places(at, world, batch_size) if places else range(at, at + batch_size)
            drawn.append(list(row))
            position += stride(rank, world, batch_size)
        own = {
            "global": position,
            "own": start + steps * batch_size,
            "steps": start + steps,
            "old": start,
        }
        return drawn, own[end]

    return answer


def _run_positions(answer):
    for position, rank, world, batch_size, steps in (
        (0, 0, 2, 3, 3), (0, 1, 2, 3, 3), (12, 2, 3, 4, 2), (7, 0, 1, 5, 2), (100, 3, 4, 1, 3), (24, 1, 3, 2, 4), (0, 0, 4, 2, 0),
    ):  # fmt: skip
        drawn, after = answer(position, rank, world, batch_size, steps)
        label = f"from {position}, rank {rank} of {world}, {batch_size} at a time, {steps} steps"
        yield label, [[[int(i) for i in row] for row in drawn], int(after)]


POSITIONS = Exercise(
    name="positions_of_rank",
    chapter=13,
    title="find the bug: two ranks, one text",
    minutes=15,
    difficulty=2,
    hints=(
        "With one rank everything is right. Write down what ranks 0 and 1 of 2 draw in two steps, 3 at a time.",
        "Rank 0 draws 0 1 2 and then 3 4 5, which rank 1 has drawn already. By how many does `position` move, and by how many should it?",
        "All ranks together draw world * batch_size blocks in a step.",
    ),
    run=_run_positions,
    reference=positions_of_rank,
    given=given_positions,
    explanation="`position` counts for all ranks together: then no two of them meet, and a saved position means the same to any number of ranks.",
    wrong=(
        WrongAnswer(
            "ranks wait for each other's blocks",
            "Each rank moves on by its own blocks alone, so in the next step it draws what its neighbour had.",
            'chapter 13, "Each target once"',
            _positions(stride=lambda r, w, b: b),
        ),
        WrongAnswer(
            "the rank in the stride",
            "You moved by (rank + 1) * batch_size. Every rank must move by the same amount, what all draw together.",
            "hint 3",
            _positions(stride=lambda r, w, b: (r + 1) * b),
        ),
        WrongAnswer(
            "every other block",
            "You dealt the blocks one by one, rank 0 the even ones. Nothing is read twice, but here each rank draws batch_size neighbours: rank r begins r * batch_size further on.",
            'chapter 13, "Each target once"',
            _positions(
                first=lambda p, r, w, b: p + r,
                places=lambda at, w, b: range(at, at + w * b, w),
            ),
        ),
        WrongAnswer(
            "a rank's own count returned",
            "What is drawn is right. But you return how far this rank alone has come; with another number of ranks that means another place.",
            'chapter 13, "Each target once"',
            _positions(end="own"),
        ),
        WrongAnswer(
            "steps counted",
            "What is drawn is right. But you return the number of steps, and a step is world * batch_size blocks.",
            "hint 3",
            _positions(end="steps"),
        ),
        WrongAnswer(
            "the old position returned",
            "What is drawn is right. But you return the position from before: after a restart all of it is read again.",
            "hint 3",
            _positions(end="old"),
        ),
        WrongAnswer(
            "all ranks draw the same",
            "You forgot the rank: all of them draw the same blocks, and the loss curve would look fine.",
            'chapter 13, "Each target once"',
            _positions(first=lambda p, r, w, b: p),
        ),
        WrongAnswer(
            "the rank not times the batch",
            "Rank r begins r further on, not r * batch_size: the ranks overlap.",
            "hint 1",
            _positions(first=lambda p, r, w, b: p + r),
        ),
        WrongAnswer(
            "a rank's own place returned",
            "What is drawn is right. But you added the rank's distance to `position` itself and return that: each rank would save another place.",
            'chapter 13, "Each target once"',
            lambda position, rank, world, batch_size, steps: (
                positions_of_rank(position, rank, world, batch_size, steps)[0],
                position + rank * batch_size + steps * world * batch_size,
            ),
        ),
        WrongAnswer(
            "a share of its own for each rank",
            "You gave each rank one stretch for all its steps. Then `position` does not say what has been read until all steps are over: deal in every step.",
            'chapter 13, "Each target once"',
            lambda position, rank, world, batch_size, steps: (
                [
                    list(range(at, at + batch_size))
                    for at in range(
                        position + rank * steps * batch_size,
                        position + (rank + 1) * steps * batch_size,
                        batch_size,
                    )
                ],
                position + world * steps * batch_size,
            ),
        ),
        WrongAnswer(
            "moved by the number of ranks",
            "You moved by `world`. Each of them draws batch_size blocks.",
            "hint 3",
            _positions(stride=lambda r, w, b: w),
        ),
    ),
)

# --- plan a run ---


def plan_run(total_bytes, sample_bytes, sample_tokens, batch_size, block_size, accumulate):
    tokens = round(total_bytes * sample_tokens / sample_bytes)
    steps = math.ceil(tokens / (batch_size * block_size * accumulate))
    return tokens, steps


def _plan(ratio=lambda b, t: t / b, per_step=lambda b, t, a: b * t * a, how=math.ceil):
    def answer(total_bytes, sample_bytes, sample_tokens, batch_size, block_size, accumulate):
        tokens = round(total_bytes * ratio(sample_bytes, sample_tokens))
        return tokens, how(tokens / per_step(batch_size, block_size, accumulate))

    return answer


def _run_plan(answer):
    for given in (
        (4_500_000_000, 1_000_000, 240_000, 16, 1024, 4), (1000, 100, 40, 2, 8, 1), (1000, 100, 40, 5, 10, 8), (999, 300, 100, 1, 9, 1),
        (100, 100, 130, 2, 5, 1), (12_345, 1000, 321, 3, 7, 2), (50, 100, 10, 1, 8, 2), (1000, 100, 40, 5, 10, 3), (6400, 100, 10, 4, 16, 10),
        (1234, 1000, 321, 2, 7, 3), (1_000_000, 700, 230, 4, 8, 2),
    ):  # fmt: skip
        tokens, steps = answer(*given)
        yield f"{given[0]:,} bytes, {given[2]:,} tokens in {given[1]:,}", [int(tokens), int(steps)]


PLAN = Exercise(
    name="plan_run",
    chapter=13,
    title="How many steps is a text?",
    minutes=10,
    difficulty=1,
    hints=(
        "In the sample, sample_tokens / sample_bytes is the number of tokens for each byte. Multiply by all bytes and round.",
        "A step reads batch_size * block_size * accumulate tokens.",
        "An epoch takes a last step even if it is not full: math.ceil.",
    ),
    run=_run_plan,
    reference=plan_run,
    explanation="Bytes to tokens by a sample, tokens to steps by what a step reads: enough to know the length of a run before it begins.",
    wrong=(
        WrongAnswer(
            "the ratio upside down",
            "You multiplied by bytes per token. Multiply by tokens per byte: there are fewer tokens than bytes.",
            "hint 1",
            _plan(lambda b, t: b / t),
        ),
        WrongAnswer(
            "bytes taken for tokens",
            "You used the bytes as if each were a token. Ask the sample how many tokens a byte makes.",
            "hint 1",
            _plan(lambda b, t: 1),
        ),
        WrongAnswer(
            "accumulation forgotten",
            "The tokens are right. But a step adds up the gradients of `accumulate` micro-batches, so it reads that many times more.",
            "hint 2",
            _plan(per_step=lambda b, t, a: b * t),
        ),
        WrongAnswer(
            "accumulation the wrong way",
            "The tokens are right. But you multiplied the steps by `accumulate`. A step reads that many times more, so there are fewer steps.",
            "hint 2",
            lambda b, sb, st, batch, block, accumulate: (
                round(b * st / sb),
                math.ceil(round(b * st / sb) / (batch * block)) * accumulate,
            ),
        ),
        WrongAnswer(
            "blocks instead of tokens",
            "The tokens are right. But you divided tokens by the blocks of a step: each block has block_size of them.",
            "hint 2",
            _plan(per_step=lambda b, t, a: b * a),
        ),
        WrongAnswer(
            "the batch forgotten",
            "The tokens are right. But a micro-batch has batch_size blocks, not one.",
            "hint 2",
            _plan(per_step=lambda b, t, a: t * a),
        ),
        WrongAnswer(
            "rounded down",
            "The tokens are right. But the last step counts though it is not full: round up.",
            "hint 3",
            _plan(how=math.floor),
        ),
        WrongAnswer(
            "rounded to the nearest",
            "The tokens are right. But the last step counts though it is less than half full: round up.",
            "hint 3",
            _plan(how=round),
        ),
        WrongAnswer(
            "always one more",
            "The tokens are right. But when they fill the steps exactly, there is no further one: math.ceil, not + 1.",
            "hint 3",
            _plan(how=lambda x: math.floor(x) + 1),
        ),
    ),
)

EXERCISES = (SIDE, SORT, PACK, POSITIONS, PLAN)
