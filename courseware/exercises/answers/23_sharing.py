"""Chapter 23: whole numbers of any length, an answer in events, integers with a scale."""

import json

import torch

from courseware.exercises import Exercise, Mistake, normal

GRAPH = 'chapter 23, "ONNX: the computation itself"'
STREAM = 'chapter 23, "An answer that arrives in pieces"'
PAGE = 'chapter 23, "For a web page: a header and a block of numbers"'


def _probe_varint(answer):
    yield "300, and another byte", answer([172, 2, 8])
    yield "a single byte, and more", answer([5, 200, 1])
    yield "127, the largest of one byte", answer([127])
    yield "128, the smallest of two", answer([128, 1])
    yield "0", answer([0, 0])
    yield "a million", answer([192, 132, 61])
    yield "64 bits", answer([255] * 9 + [1])
    yield "zeros in the middle", answer([129, 128, 128, 1, 128])


VARINT = Exercise(
    "read_varint", _probe_varint,
    hints=(
        "byte & 127 takes the highest bit away, and byte < 128 says that this byte is the last one.",
        "The first byte holds the lowest 7 bits, so byte i counts 128 ** i times as much as byte 0.",
        "n += (byte & 127) << (7 * i), and return n with i + 1 as soon as a byte is below 128.",
    ),
    explanation="Small numbers, which are the most frequent, take a single byte. A reader never needs to know how long a number will be.",
    look=GRAPH,
    mistakes=(
        Mistake("the highest bit kept", "You count the bit that only says that more follows. Take it away: byte & 127.",
                edit=("(byte & 127)", "byte")),
        Mistake("the highest bits first", "You read the first byte as the highest 7 bits. It holds the lowest.",
                edit=("n += (byte & 127) << (7 * i)", "n = n * 128 + (byte & 127)")),
        Mistake("eight bits each", "You move each byte by 8 bits. It brings only 7.",
                edit=("7 * i", "8 * i")),
        Mistake("one byte too few", "The number is right, but not its length: the last byte counts too.",
                edit=("i + 1", "i")),
        Mistake("reads to the end", "You read all of data. A byte below 128 is the number's last one, and what follows belongs to something else.",
                edit=("if byte < 128", "if i == len(data) - 1")),
        Mistake("127 goes on", "127 is below 128, so it has no highest bit and is a last byte.",
                edit=("byte < 128", "byte < 127")),
        Mistake("length before number", "Both are right, in the wrong order: return the number, then its length.",
                wrap=lambda right: lambda data: right(data)[::-1]),
    ),
)  # fmt: skip


def _event(**delta):
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}) + "\n\n"


def _probe_pieces(answer):
    told = [_event(role="assistant"), *(_event(content=text) for text in ("To", " be", ", or\n\n"))]
    whole = "".join(told)
    yield "one event in each chunk", answer([*told, "data: [DONE]\n\n"])
    yield "all events in one chunk", answer([whole + "data: [DONE]\n\n"])
    yield "a chunk for each character", answer([*whole, *"data: [DONE]\n\n"])
    yield "cut between the two line breaks", answer([whole[:-1], "\n" + _event(content="not"), "data: [DONE]\n\n"])
    yield "something after the end", answer([whole, "data: [DONE]\n\n" + _event(content="more"), _event(content="!")])
    yield "a connection that breaks", answer([whole, _event(content="half")[:30]])
    yield "text that looks like an end", answer([_event(content="[DONE]"), _event(content="data: "), "data: [DONE]\n\n"])
    yield "nothing", answer([])


PIECES = Exercise(
    "pieces_of", _probe_pieces,
    hints=(
        "Keep what has arrived and isn't used up yet in a text of its own, and append each chunk to it.",
        "As long as there are two line breaks in it, everything before them is an event; keep the rest.",
        'while "\\n\\n" in held: event, held = held.split("\\n\\n", 1)',
    ),
    explanation="Whoever reads from a network reads a stream of bytes. Where a message ends is for the format to say, never for the network.",
    look=STREAM,
    mistakes=(
        Mistake("each chunk is an event", "You forget what was left of the chunk before. An event may be cut anywhere: append the new chunk to the rest.",
                edit=("held += chunk", "held = chunk")),
        Mistake("one event a chunk", "You take one event from each chunk, but there may be several: go on while there is another end.",
                edit=('while "\\n\\n" in held', 'if "\\n\\n" in held')),
        Mistake("goes on after the end", "After [DONE] nothing belongs to the answer, even if more arrives.",
                edit=('if data == "[DONE]": return pieces', 'if data == "[DONE]": continue')),
        Mistake("an end inside a text", "A piece may contain the characters [DONE]. Only an event that is nothing else ends the answer.",
                edit=('data == "[DONE]"', '"[DONE]" in data')),
        Mistake("an empty piece for the role", "An event without content brings no piece, not an empty one.",
                edit=('if "content" in delta: pieces.append(delta["content"])', 'pieces.append(delta.get("content", ""))')),
        Mistake("one text", "You return the whole answer as one text. Asked are its pieces, a list.",
                wrap=lambda right: lambda chunks: "".join(right(chunks))),
        Mistake("data: removed everywhere", "You remove \"data: \" from the text of the answer too. It is only the beginning of the event that has to go.",
                edit=('event.removeprefix("data: ")', 'event.replace("data: ", "")')),
    ),
)  # fmt: skip


def _probe_int8(answer):
    draw = normal(3)
    for name, w in (
        ("rows of very different size", torch.tensor([[1.0, -0.4, 0.004], [0.001, 0.0004, -0.0002]])),
        ("nine tenths of a step", torch.tensor([[1.27, 0.009, -0.009, 0.026], [127.0, 0.6, -0.6, 2.9]])),
        ("a row of zeros", torch.tensor([[0.0, 0.0], [3.0, -3.0]])),
        ("random numbers", draw(5, 8)),
        ("more rows than columns", draw(6, 2)),
    ):
        q, scale = answer(w)
        yield f"{name}: whole numbers", q.to(torch.int64)
        yield f"{name}: their dtype", str(q.dtype)
        yield f"{name}: scales", scale


INT8 = Exercise(
    "int8_rows", _probe_int8,
    hints=(
        "Print q * scale[:, None] - w for a matrix whose second row is a thousand times smaller than the first.",
        "Each row has a scale of its own: the largest absolute value along dim 1, divided by 127. And .to(torch.int8) cuts off what stands behind the point.",
        "largest = w.abs().amax(dim=1, keepdim=True), torch.where(largest > 0, largest / 127, 1.0), and .round() before .to(torch.int8).",
    ),
    explanation="A step is as large as the largest number demands, so a scale should serve as few numbers as possible. llama.cpp's q8_0 has one for every 32.",
    look=PAGE,
    mistakes=(
        Mistake("nothing corrected", "There is still one scale for the whole matrix, numbers are still cut off, and zeros are still divided by zero.",
                of="given"),
        Mistake("one scale for all", "There is one scale for the whole matrix, so a row of small numbers keeps hardly any of its digits. Each row needs its own: amax(dim=1, keepdim=True).",
                edit=("w.abs().amax(dim=1, keepdim=True)", "w.abs().amax().expand(len(w), 1)")),
        Mistake("cut off", "0.9 of a step becomes 0, because .to(torch.int8) cuts off. Round first.",
                edit=(".round()", "")),
        Mistake("zeros divided by zero", "A row of zeros has no largest number to divide by. Its scale should be 1.",
                edit=("torch.where(largest > 0, largest / 127, 1.0)", "largest / 127")),
        Mistake("128 steps", "The largest number of a row should become 127: divide by that.",
                edit=("largest / 127", "largest / 128")),
        Mistake("without the sign", "The largest number of a row may be negative: compare absolute values.",
                edit=("w.abs()", "w")),
    ),
)  # fmt: skip
