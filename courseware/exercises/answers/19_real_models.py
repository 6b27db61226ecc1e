"""Chapter 19: tokens written as characters, blocks of half bytes, a Llama's rows in GGUF, a header that lies."""

import torch

from courseware.exercises import Exercise, Mistake, normal

PLAIN = 'chapter 19, "Forty plain lines"'
BLOCKS = 'chapter 19, "Thirty-two numbers in twenty bytes"'
ORDER = 'chapter 19, "An order that no shape shows"'
FILES = 'chapter 19, "Into the library: files that nobody vouches for"'

TOKENS = {
    "letters": "Hamlet",
    "a space in front": "Ġthe",
    "a line break and a tab": "Ċĉ",
    "two bytes of one letter": "Ã¼",
    "the bytes 127 and 128": "ġĢ",
    "the byte 160": "ł",
    "the byte 173": "Ń",
    "the first and the last that are visible": "!~¡¬®ÿ",
    "the byte 0": "Ā",
    "an empty token": "",
}


def _probe_bytes(answer):
    for name, token in TOKENS.items():
        yield name, answer(token)


BYTES = Exercise(
    "token_bytes", _probe_bytes,
    hints=(
        "Make two lists first: the bytes that stand for themselves, and the 68 others in rising order.",
        "A character whose number is below 256 is a byte that stands for itself. Any other is number 256 + i, and stands for the i-th of the others.",
        "hidden = [b for b in range(256) if b not in visible], and then hidden[ord(character) - 256].",
    ),
    explanation="Every byte has a character that can be seen and printed, so a vocabulary of bytes fits into a text file.",
    look=PLAIN,
    mistakes=(
        Mistake("the disguise left on", "You return the numbers of the characters. From 256 on a character stands for one of the 68 hidden bytes.",
                edit=("number if number < 256 else hidden[number - 256]", "number")),
        Mistake("256 subtracted", "A character from 256 on does not stand for the byte 256 below it, but for the hidden byte in that place of the list: number 288, Ġ, is the 33rd of them, byte 32, and from 289 on the two part.",
                edit=("hidden[number - 256]", "number - 256")),
        Mistake("the soft hyphen is visible", "Byte 173, the soft hyphen, cannot be seen, so it is one of the hidden bytes. It has the last character, Ń.",
                edit=("*range(161, 173), *range(174, 256)", "*range(161, 256)")),
        Mistake("the space is visible", "Byte 32, the space, is hidden: it is written Ġ. The visible ones begin at 33.",
                edit=("range(33, 127)", "range(32, 127)")),
        Mistake("the last of a range left out", "range(33, 126) ends at 125. Byte 126, ~, is visible too.",
                edit=("range(33, 127)", "range(33, 126)")),
        Mistake("bytes 128 to 160 visible", "You took every byte from 128 on for visible. Those from 127 to 160 are control characters and are hidden.",
                edit=("range(161, 173)", "range(128, 173)")),
        Mistake("encoded as UTF-8", "You encoded the characters. They only stand for bytes: Ã stands for the byte 195, and its own UTF-8 does not matter.",
                edit=("return found", 'return list(token.encode("utf-8"))')),
        Mistake("backwards", "The bytes come in the wrong order: the first character is the first byte.",
                edit=("return found", "return found[::-1]")),
    ),
)  # fmt: skip


def _probe_q4(answer):
    steps = torch.arange(16, dtype=torch.uint8)
    rising = (steps | steps.flip(0) << 4)[None]
    yield "steps rising, then falling; d = 1", answer(torch.tensor([1.0]), rising)
    generator = torch.Generator().manual_seed(0)
    packed = torch.randint(256, (3, 16), generator=generator, dtype=torch.uint8)
    yield "three blocks with scales of their own", answer(torch.tensor([0.5, -2.0, 0.01]), packed)
    yield "many blocks", answer(normal(1)(40), packed[:1].expand(40, 16))


Q4 = Exercise(
    "unpack_q4_0", _probe_q4,
    hints=(
        "byte & 15 is the low half of a byte, byte >> 4 the high half. Both work on whole tensors.",
        "Join the two halves along the second dimension, the low ones first, and turn them into floats before you subtract: uint8 knows no negative numbers.",
        "d[:, None] gives every number of a block the scale of its own block.",
    ),
    explanation="Four and a half bits a number: 16 bytes of steps, and two for the scale that 32 numbers share.",
    look=BLOCKS,
    mistakes=(
        Mistake("high halves first", "The halves are the wrong way round: the low halves are the first 16 numbers of a block.",
                edit=("[low, high]", "[high, low]")),
        Mistake("halves interleaved", "You put the two halves of a byte side by side. In the block, all low halves come first, then all high ones.",
                edit=("torch.cat([low, high], dim=1)", "torch.stack([low, high], dim=2).flatten(1)")),
        Mistake("no eight subtracted", "The steps 0 to 15 stand for −8 to 7: subtract 8 before you multiply.",
                edit=("(q - 8)", "q")),
        Mistake("eight subtracted after the scale", "You multiply first and subtract 8 from the product. It is the step that is shifted: d (q − 8).",
                edit=("d[:, None] * (q - 8)", "d[:, None] * q - 8")),
        Mistake("seven and a half subtracted", "You subtract 7.5, the middle of the steps. The format has 8, so that 0 can be written exactly.",
                edit=("q - 8", "q - 7.5")),
        Mistake("subtracted in uint8", "uint8 has no negative numbers, so 3 − 8 became 251. Turn the steps into floats before you subtract.",
                edit=(".float()", "")),
        Mistake("high halves not moved down", "byte & 240 leaves the high half where it is, so it counts sixteenfold. Shift it down: byte >> 4.",
                edit=("packed >> 4", "packed & 240")),
        Mistake("one bit too many", "byte & 31 takes five bits. The low half has four: & 15.",
                edit=("packed & 15", "packed & 31")),
        Mistake("the first scale for all", "Every block has a scale of its own, but you use the first one for all.",
                edit=("d[:, None]", "d[0]")),
    ),
)  # fmt: skip


def _probe_rows(answer):
    one = torch.arange(12.0)[:, None]
    for name, part in zip("qkv", answer(one, 1, 1)):
        yield f"{name} of one head of width 4, each row its number", part
    two = torch.arange(48.0)[:, None].expand(48, 2) * torch.tensor([1.0, -1.0])
    for name, part in zip("qkv", answer(two, 4, 2)):
        yield f"{name} of four query heads and two key heads, of width 6", part
    for name, part in zip("qkv", answer(normal(2)(24, 5), 2, 1)):
        yield f"{name} of two query heads that share a key head", part


ROWS = Exercise(
    "rows_for_gguf", _probe_rows,
    hints=(
        "First find D, the width of a head: there are n_head + 2 n_kv_head heads in all.",
        "View the rows of a projection as (heads, 2, D/2, C): the first half of each head, then the second. Neighbours are to be one row of each half.",
        "Swap the two middle dimensions and go back to (rows, C) with reshape. Values are not rotated, so they stay.",
    ),
    explanation="No number changes and no shape does. Only somebody who knows which pairs are rotated can tell the two orders apart.",
    look=ORDER,
    mistakes=(
        Mistake("values interleaved too", "Only queries and keys are rotated, so only their pairs matter. The values stay as they are.",
                edit=("k, n_kv_head), v", "k, n_kv_head), interleaved(v, n_kv_head)")),
        Mistake("the other direction", "You undid the order instead of making it: GGUF's rows are interleaved, ours are in halves. View the rows as (H, 2, D/2, C), then swap.",
                edit=("heads, 2, D // 2, -1", "heads, D // 2, 2, -1")),
        Mistake("keys left as they are", "The keys are rotated too, so their rows must be interleaved like those of the queries.",
                edit=("interleaved(k, n_kv_head)", "k")),
        Mistake("queries left as they are", "The queries are rotated too, so their rows must be interleaved like those of the keys.",
                edit=("interleaved(q, n_head)", "q")),
        Mistake("nothing interleaved", "The three parts are right, but in our order of rows. GGUF pairs neighbours.",
                edit=(("interleaved(q, n_head)", "q"), ("interleaved(k, n_kv_head)", "k"))),
        Mistake("heads mixed", "You interleave all rows of a projection at once, so rows of different heads become neighbours. Each head is reordered by itself.",
                edit=("rows.reshape(heads, 2, D // 2, -1)", "rows.reshape(1, 2, len(rows) // 2, -1)")),
        Mistake("halves swapped", "The second half of each head comes first: row D/2 stands before row 0.",
                edit=("halves.transpose(1, 2)", "halves.flip(1).transpose(1, 2)")),
        Mistake("columns instead of rows", "You reordered the columns, the channels that come in. It is the rows, what comes out, that are rotated.",
                edit=("return halves.transpose(1, 2).reshape(rows.shape)", "return rows.reshape(len(rows), -1).flip(1)")),
        Mistake("keys and values exchanged", "Keys and values are the wrong way round: in our layer the rows of the keys come before those of the values.",
                edit=("q, k, v = qkv", "q, v, k = qkv")),
    ),
)  # fmt: skip

CLAIMS = {
    "what is true": ([3, 4], 4, 8, 56, 100),
    "a single number": ([], 4, 8, 12, 100),
    "at the start of the file": ([3, 4], 4, 0, 48, 100),
    "to the end of the file": ([3, 4], 4, 52, 100, 100),
    "beyond the end of the file": ([3, 4], 4, 60, 108, 100),
    "a terabyte": ([10**12], 1, 0, 10**12, 100),
    "more bytes than the shape needs": ([3, 4], 4, 8, 60, 100),
    "fewer bytes than the shape needs": ([3, 4], 4, 8, 50, 100),
    "an end before the start": ([3, 4], 4, 56, 8, 100),
    "a start before the file": ([3, 4], 4, -8, 40, 100),
    "an empty tensor": ([0, 4], 4, 8, 8, 100),
    "two negative sizes": ([-2, -8], 4, 8, 72, 100),
    "half numbers": ([3, 4], 2, 8, 32, 100),
}


def _probe_sound(answer):
    for name, (shape, *numbers) in CLAIMS.items():
        yield name, bool(answer(list(shape), *numbers))


SOUND = Exercise(
    "is_sound", _probe_sound,
    hints=(
        "Make up lies: a start before the file, a span of bytes that is too long, sizes whose product is fine although none of them is.",
        "A tensor takes exactly the bytes of its shape, so compare with ==. And what does `start` have to be?",
        "min(shape, default=1) > 0 refuses empty and negative sizes; a shape without sizes is a single number.",
    ),
    explanation="A header is a claim. Each part of it is compared with what you can measure yourself, and then only the file decides how much memory you take.",
    look=FILES,
    mistakes=(
        Mistake("nothing corrected", "It still believes a span that is too long, a start before the file, and sizes that are negative or zero.",
                of="given"),
        Mistake("a span that is too long", "A span of more bytes than the shape needs is still believed: what lies in the rest? Compare with ==.",
                edit=("end - start == size", "end - start >= size")),
        Mistake("a span that is too short", "A span of fewer bytes than the shape needs is believed: the rest would be read from the next tensor. Compare with ==.",
                edit=("end - start == size", "end - start <= size")),
        Mistake("a start before the file", "A negative start is believed, and Python would count it from the end. It must be at least 0.",
                edit=("start >= 0 and end", "end")),
        Mistake("beyond the file", "A tensor that ends behind the file is believed, and you would wait for bytes that never come.",
                edit=("start >= 0 and end <= file_size", "start >= 0")),
        Mistake("the last byte refused", "A tensor may end where the file ends: `end` is the byte after the last one, so end == file_size is fine.",
                edit=("end <= file_size", "end < file_size")),
        Mistake("the first byte refused", "A tensor may begin at byte 0.",
                edit=("start >= 0", "start > 0")),
        Mistake("negative and empty sizes", "Two negative sizes have a positive product, and a size of 0 makes an empty tensor. Look at each size, not only at the product.",
                edit=(" and min(shape, default=1) > 0", "")),
        Mistake("negative sizes", "Two negative sizes have a positive product. Look at each size, not only at the product.",
                edit=("min(shape, default=1) > 0", "size > 0")),
        Mistake("empty sizes", "A size of 0 makes a tensor without a number, and a task said that it must not be empty.",
                edit=("> 0", ">= 0")),
        Mistake("a single number refused", "A shape without sizes is a single number, and that is sound: math.prod([]) is 1.",
                edit=("min(shape, default=1) > 0", "min(shape, default=0) > 0")),
    ),
)  # fmt: skip
