"""Chapter 13: the side of a document, filters, packing, two ranks that read one text, planning a run."""

import hashlib

from courseware.exercises import Exercise, Mistake

POSITION = 'chapter 13, "Break it: split by position"'
ONCE = 'chapter 13, "Each target once"'

NUMBER = 'int.from_bytes(digest[:8], "big") / 2**64'


def _probe_side(answer):
    pages = [f"<urn:uuid:{i}>" for i in range(300)]
    yield "300 pages, a tenth", answer(list(pages), 0.1)
    yield "the same in reverse order", answer(pages[::-1], 0.1)
    yield "a thousandth", answer([f"{i}" for i in range(4000)], 0.001)
    yield "ids that are not ASCII", answer([f"é{i}ß" for i in range(60)], 0.3)
    yield "every id twice", answer(pages[:40] + pages[:40], 0.3)

    numbers = [str(i) for i in range(50)]
    first = min(hashlib.sha256(i.encode()).digest()[:4] for i in numbers)
    close = int.from_bytes(first, "big") / 2**32 + 2**-34  # 4 bytes would say yes, 8 say no
    yield "a fraction very close to one of the numbers", answer(numbers, close)


SIDE = Exercise(
    "validation_ids", _probe_side,
    hints=(
        "Each id decides for itself. Nothing may depend on the order, on its place in the list, or on the other ids.",
        'hashlib.sha256(identity.encode("utf-8")).digest() gives 32 bytes. Take the first 8 as one number, the first byte counting most: int.from_bytes(digest[:8], "big").',
        "Divided by 2**64 it is a number from 0 to 1. Keep the ids for which it is below the fraction, in the order they came.",
    ),
    explanation="The hash gives each id a number that never changes. A larger fraction only adds ids, and none ever crosses over.",
    look='chapter 13, "Which side?"',
    mistakes=(
        Mistake("a part of the list", "You cut the list by position. In another order, other documents are kept: ask the hash of each id.",
                edit=("return chosen", "return ids[len(ids) - round(len(ids) * fraction) :]"),
                also=(("return chosen", "return ids[int(len(ids) * (1 - fraction)) :]"), ("return chosen", "return ids[: round(len(ids) * fraction)]")),
                look=POSITION),
        Mistake("drawn at random", "You drew a number for each id. A generator gives its numbers to whichever id comes next, seeded or not: the number must belong to the id.",
                edit=((NUMBER, "chance.random()"), ("chosen = []", "chosen = []\nimport random\nchance = random.Random(0)")),
                also=(((NUMBER, "random.random()"), ("chosen = []", "chosen = []\nimport random")),
                      ((NUMBER, "chance.random()"), ("chosen = []", "chosen = []\nimport random\nchance = random.Random(42)")))),
        Mistake("Python's own hash", "hash() of a text is another number each time Python starts (PYTHONHASHSEED), so a restart would mix the two sides. Use hashlib.",
                edit=('int.from_bytes(digest[:8], "big")', "hash(identity) % 2**64"), also=((NUMBER, "hash(identity) % 100 / 100"),)),
        Mistake("the other side", "You returned the training ids. Keep those *below* the fraction.",
                edit=("< fraction", ">= fraction")),
        Mistake("the bytes in the other order", "Any order of the bytes would do, but ours has the first byte count most, so that the split agrees with is_validation.",
                edit=('"big"', '"little"')),
        Mistake("steps of a hundredth", "You took the hash modulo 100, so fractions finer than that are lost, and the split is another one. Divide 8 bytes by 2**64.",
                edit=(NUMBER, 'int.from_bytes(digest, "big") % 100 / 100'), also=(("/ 2**64", "% 100 / 100"),)),
        Mistake("four bytes", "You took fewer than 8 bytes. That matters for an id whose number is close to the fraction.",
                edit=(("[:8]", "[:4]"), ("2**64", "2**32"))),
        Mistake("eight hexadecimal digits", "Eight hexadecimal digits are 4 bytes, but you divided by 2**64, so nearly every id is kept. Take 8 bytes, or 16 digits.",
                edit=("[:8]", "[:4]")),
    ),
)  # fmt: skip


def _probe_sort(answer):
    for label, min_score, max_chars, pages in (
        ("three good pages", 2.5, 10, [("a b", 3.0), ("c", 4.0), ("d e f", 5.0)]),
        ("empty, blank, missing", 2.5, 10, [("", 3.0), (" \n\t", 3.0), (None, 3.0), ("x", 3.0)]),
        ("exactly as long as allowed", 2.5, 10, [("x" * 10, 3.0), ("x" * 11, 3.0)]),
        ("letters of two bytes", 2.5, 10, [("é" * 8, 3.0), ("é" * 12, 3.0)]),
        ("exactly the lowest score", 2.5, 10, [("a", 2.5), ("b", 2.49), ("c", 2.51)]),
        ("no score", 2.5, 10, [("a", None), ("b", 3.0)]),
        ("too long and a low score", 2.5, 10, [("x" * 20, 1.0), ("y", 1.0)]),
        ("empty and a low score", 2.5, 10, [("  ", 1.0), ("", None), (" " * 30, 3.0)]),
        ("a lowest score of 0", 0.0, 10, [("a", 0.0), ("b", None), ("c", 0.1)]),
        ("line breaks count as characters", 2.5, 10, [("x" * 9 + "\n\n", 3.0)]),
        ("blanks of other kinds", 2.5, 10, [("\r\n\x0c\u00a0\u3000", 3.0)]),
        ("other limits", 3.2, 20, [("x" * 12, 3.4), ("y", 2.9), ("x" * 21, 4.0), ("abc", 3.2)]),
    ):
        names = ["z9", "b2", "a7", "m5", "c0"]
        rows = [{"id": i, "text": text, "score": score} for i, (text, score) in zip(names, pages)]
        yield label, answer(rows, min_score, max_chars)


SORT = Exercise(
    "sort_documents", _probe_sort,
    hints=(
        'Start with counts = {"empty": 0, "too long": 0, "low score": 0, "kept": 0}. Each row adds 1 to exactly one of them.',
        "Test in this order: empty (None counts, and text.strip() is empty for blanks), too long, low score. The first that applies is the reason.",
        "A text of exactly max_chars characters stays, and so does a score of exactly min_score. No score at all is a low score.",
    ),
    explanation="One reason for each row: then the counts add up to the number of rows, and nothing can vanish unseen.",
    look='chapter 13, "What stays and what goes"',
    mistakes=(
        Mistake("blanks are kept", "A text of blanks and line breaks is not empty for Python, but there is nothing in it to learn: test text.strip().",
                edit=(".strip()", "")),
        Mistake("bytes instead of characters", "For plain letters you are right, but you counted bytes, and é has two. max_chars counts characters.",
                edit=("len(text)", "len(text.encode())")),
        Mistake("length without blanks", "You measured the text after strip(). All its characters count, blanks and line breaks too.",
                edit=("len(text)", "len(text.strip())")),
        Mistake("exactly as long is too long", "A text of exactly max_chars characters is not longer than allowed: it stays.",
                edit=("> max_chars", ">= max_chars")),
        Mistake("exactly the lowest score is too low", "A score of exactly min_score is not lower: it stays.",
                edit=("< min_score", "<= min_score")),
        Mistake("a score of 0 taken for none", "`not score` is true for None and for 0.0. A score of 0 is a score: test `score is None`.",
                edit=("score is None", "not score")),
        Mistake("no score taken for 0", "You take a missing score for 0, so where the lowest score is 0 such a page stays, as in the chapter. Here a page without a score goes, whatever the limit.",
                edit=("score is None or score < min_score", "(score or 0) < min_score")),
        Mistake("every reason counted", "A row with two faults is counted twice, so your counts add up to more than the rows. Only the first reason counts.",
                edit=("counts[reason] += 1", 'counts[reason] += 1\ncounts["too long"] += reason == "empty" and len(text or "") > max_chars\ncounts["low score"] += reason in ("empty", "too long") and (score is None or score < min_score)')),
        Mistake("the score before the length", "What is kept is right, but a page that is too long and has a low score counts as too long: length is tested before the score.",
                edit=("> max_chars", "> max_chars and score is not None and score >= min_score")),
        Mistake("the length before emptiness", "What is kept is right, but a very long row of blanks is empty first of all.",
                edit=("not text.strip()", "not text.strip() and len(text) <= max_chars")),
        Mistake("keys without rows are missing", "A reason that no row has is missing from your counts. All four keys are always there, with a count of 0 where no row has that reason.",
                edit=("return kept, counts", "return kept, {reason: n for reason, n in counts.items() if n}")),
    ),
)  # fmt: skip

PADDED = (
    ("min(planned, last)", "planned"),
    ("asked =", "x += [end] * (block_size - len(x))\ny += [-100] * (block_size - len(y))\nasked ="),
)


def _probe_pack(answer):
    yield "the documents of the chapter", answer([[1, 2, 3], [4], [5, 6, 7, 8, 9]], 0, 4)
    yield "a tail of one target", answer([[1, 2], [3, 4, 5, 6], [7]], 0, 4)
    yield "all blocks full", answer([[1, 2, 3, 4], [5, 6, 7]], 50, 4)
    yield "blocks of one", answer([[3, 1], [2]], 9, 1)
    yield "an empty document", answer([[1, 2], [], [3, 4, 5]], 0, 3)
    yield "a document that ends with `end`", answer([[1, 0], [2, 3, 0]], 0, 3)


PACK = Exercise(
    "pack_documents", _probe_pack,
    hints=(
        "First make one row of tokens: each document, then `end`. Also after the last one.",
        "Block i begins at i * block_size. Its inputs are tokens[start : start + block_size], its targets the ids one place later. How many targets are there in all, and so how many blocks?",
        "There is a block as long as there is a target for it: range(0, len(tokens) - 1, block_size). If the last block is not full, it begins at len(tokens) - block_size - 1 in place of its planned start. Its first planned - start targets were asked before: -100.",
    ),
    explanation="No place is empty, and every token but the first is a target once. The cost is a few inputs that the last block repeats.",
    look=ONCE,
    mistakes=(
        Mistake("no END", "You joined the documents without `end`, so the model cannot know where one stops.",
                edit=("[*document, end]", "document")),
        Mistake("an empty document has no END", "You left out documents without tokens. Each document has its `end`, even an empty one.",
                edit=("in documents", "in documents if document")),
        Mistake("END before each document", "You put `end` before each document. Here it follows each, also the last.",
                edit=("[*document, end]", "[end, *document]")),
        Mistake("no END after the last document", "The last document has no `end`. It follows each of them, also the last.",
                edit=("blocks, last", "tokens = tokens[:-1]\nblocks, last")),
        Mistake("each document in its own rows", "You began a new block with each document. Then short documents leave most places empty, or go missing: join them first.",
                edit=PADDED, wrap=lambda right: lambda documents, *a: sum((right([d], *a) for d in documents), []), look='chapter 13, "Blocks without waste"'),
        Mistake("the tail is left out", "The last block is missing, so the tokens after the full ones are never asked. One more block must end with the text.",
                edit=("len(tokens) - 1, block_size)", "last + 1, block_size)"), also=(("len(tokens) - 1, block_size)", "last, block_size)"),)),
        Mistake("the tail is padded", "You filled the last block up with padding. Move it back until it is full.",
                edit=PADDED),
        Mistake("the tail is short", "Your last block is shorter than block_size, so it cannot stand in a batch. Move it back until it is full.",
                edit=("min(planned, last)", "planned")),
        Mistake("the tail asks again", "Your last block is moved back, but its first targets were asked by the block before: -100 for those.",
                edit=("[-100] * asked + y[asked:]", "y")),
        Mistake("one block too many", "Where the blocks are full exactly, you add one in which no target is new. There is a block for each planned start below len(tokens) - 1.",
                edit=("len(tokens) - 1, block_size)", "len(tokens), block_size)")),
        Mistake("targets not shifted", "Your targets are the inputs. The model would learn to copy: take the tokens one place later.",
                edit=("start + 1 : start + block_size + 1", "start : start + block_size")),
        Mistake("a token lost between blocks", "Your blocks begin every block_size + 1 tokens, so one target in each is never asked. The last target of a block is the first input of the next.",
                edit=("1, block_size)", "1, block_size + 1)")),
    ),
)  # fmt: skip


def _probe_positions(answer):
    cases = (0, 0, 2, 3, 3), (0, 1, 2, 3, 3), (12, 2, 3, 4, 2), (24, 1, 3, 2, 4), (0, 0, 4, 2, 0)
    for position, rank, world, batch_size, steps in cases:
        label = f"from {position}, rank {rank} of {world}, {batch_size} at a time, {steps} steps"
        yield label, answer(position, rank, world, batch_size, steps)


POSITIONS = Exercise(
    "positions_of_rank", _probe_positions,
    hints=(
        "With one rank everything is right. Write down what ranks 0 and 1 of 2 draw in two steps, 3 at a time.",
        "Rank 0 draws 0 1 2 and then 3 4 5, which rank 1 has drawn already. By how many does `position` move, and by how many should it?",
        "All ranks together draw world * batch_size blocks in a step.",
    ),
    explanation="`position` counts for all ranks together: then no two of them meet, and a saved position means the same to any number of ranks.",
    look=ONCE,
    mistakes=(
        Mistake("ranks draw each other's blocks", "Each rank moves on by its own blocks alone, so in the next step it draws what its neighbour had.",
                edit=("world * batch_size", "batch_size")),
        Mistake("every other block", "You dealt the blocks one by one, rank 0 the even ones. Nothing is read twice, but here each rank draws batch_size neighbours: rank r begins r * batch_size after `position`.",
                edit=(("rank * batch_size", "rank"), ("first + batch_size", "first + batch_size * world, world"))),
        Mistake("a rank's own count returned", "You return how far this rank alone has come; with another number of ranks that means another place.",
                edit=(("drawn = []", "drawn, begin = [], position"), ("drawn, position", "drawn, begin + steps * batch_size"))),
        Mistake("steps counted", "You return a number of steps, and a step is world * batch_size blocks.",
                edit=(("drawn = []", "drawn, begin = [], position"), ("drawn, position", "drawn, begin + steps"))),
        Mistake("the old position returned", "You return the position from before: after a restart all of it is read again.",
                edit=(("drawn = []", "drawn, begin = [], position"), ("drawn, position", "drawn, begin"))),
        Mistake("all ranks draw the same", "You forgot the rank: all of them draw the same blocks, and the loss curve would look fine.",
                edit=("+ rank * batch_size", "")),
        Mistake("the rank not times the batch", "Your rank r begins r places after `position`, so the ranks overlap. It should begin r * batch_size places after it.",
                edit=("rank * batch_size", "rank")),
        Mistake("one stretch for each rank", "You gave each rank one stretch for all its steps. Then `position` does not say what has been read until all steps are over. Divide the blocks among the ranks anew in every step.",
                edit=(("rank *", "rank * steps *"),
                      ("world * batch_size", "batch_size"),
                      ("drawn, position", "drawn, position + steps * (world - 1) * batch_size"))),
        Mistake("one list for all steps", "You joined the positions of all steps. Each step has a list of its own: append, not extend.",
                edit=("append", "extend")),
    ),
)  # fmt: skip


def _probe_run(answer):
    for given in (
        (4_500_000_000, 1_000_000, 240_000, 16, 1024, 4), (1000, 100, 40, 2, 8, 1),
        (12_345, 1000, 321, 3, 7, 2), (50, 100, 10, 1, 8, 2), (1000, 100, 40, 5, 10, 3),
        (6400, 100, 10, 4, 16, 10), (1234, 1000, 321, 2, 7, 3),
    ):  # fmt: skip
        yield f"{given[0]:,} bytes, {given[2]:,} tokens in {given[1]:,}", answer(*given)


RUN = Exercise(
    "plan_run", _probe_run,
    hints=(
        "In the sample, sample_tokens / sample_bytes is the number of tokens for each byte. Multiply by all bytes and round.",
        "A step reads batch_size * block_size * accumulate tokens.",
        "An epoch takes a last step even if it is not full: math.ceil.",
    ),
    explanation="Bytes to tokens by a sample, tokens to steps by what a step reads: enough to know the length of a run before it begins.",
    mistakes=(
        Mistake("the ratio upside down", "You multiplied by bytes per token. Multiply by tokens per byte: there are fewer tokens than bytes.",
                edit=("sample_tokens / sample_bytes", "sample_bytes / sample_tokens")),
        Mistake("bytes taken for tokens", "You used the bytes as if each were a token. Ask the sample how many tokens a byte makes.",
                edit=("* sample_tokens / sample_bytes", "")),
        Mistake("tokens rounded down", "You cut the fraction of a token off. Round to the nearest whole number.",
                edit=("round(", "int(")),
        Mistake("tokens rounded up", "You rounded the tokens up. Round to the nearest whole number; only the steps are rounded up.",
                edit=("round(", "math.ceil(")),
        Mistake("accumulation forgotten", "A step adds up the gradients of `accumulate` micro-batches, so it reads that many times more.",
                edit=("* accumulate", "")),
        Mistake("accumulation the wrong way", "You multiplied the steps by `accumulate`. A step reads that many times more, so there are fewer steps.",
                edit=(("* accumulate", ""), ("tokens, steps", "tokens, steps * accumulate")), also=(("* accumulate", "/ accumulate"),)),
        Mistake("blocks instead of tokens", "You divided tokens by the blocks of a step: each block has block_size of them.",
                edit=("* block_size", "")),
        Mistake("the batch forgotten", "A micro-batch has batch_size blocks, not one.",
                edit=("batch_size *", "")),
        Mistake("steps rounded down", "The last step counts though it is not full: round up.",
                edit=("math.ceil", "math.floor")),
        Mistake("always one more", "When the tokens fill the steps exactly, no other step follows: use math.ceil, not + 1.",
                edit=("math.ceil(", "1 + math.floor(")),
    ),
)  # fmt: skip
