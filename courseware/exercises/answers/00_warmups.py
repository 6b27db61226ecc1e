"""The warm-ups: five short exercises that need no chapter. The fifth, a character tokenizer, is here."""

from __future__ import annotations

from courseware.exercises.engine import Exercise, WrongAnswer
from courseware.exercises.answers.warmup_attention import ATTENTION, CAUSAL_MASK
from courseware.exercises.answers.warmup_mlp import MLP_BIGRAM
from courseware.exercises.answers.warmup_sampler import SAMPLER


def char_codec(text):
    alphabet = sorted(set(text))
    id_of = {character: i for i, character in enumerate(alphabet)}

    def encode(text):
        return [id_of[character] for character in text]

    def decode(ids):
        return "".join(alphabet[i] for i in ids)

    return encode, decode


def _codec(order=lambda text: sorted(set(text)), first=0, join="".join, skip=False):
    def answer(text):
        alphabet = list(order(text))
        id_of = {character: i for i, character in enumerate(alphabet, first)}

        def encode(text):
            return [id_of[c] for c in text if c in id_of or not skip]

        def decode(ids):
            return join([alphabet[i - first] for i in ids])

        return encode, decode

    return answer


def _ordinals(text):
    return lambda text: [ord(c) for c in text], lambda ids: "".join(map(chr, ids))


def _run_codec(answer):
    encode, decode = answer("hello, world")
    yield "encode('hello')", list(encode("hello"))
    yield "decode(encode('low dell'))", decode(encode("low dell"))
    yield "encode('')", list(encode(""))
    try:
        encode("hex")
        yield "an unknown character", "accepted"
    except (KeyError, ValueError):
        yield "an unknown character", "refused"


CODEC = Exercise(
    name="char_codec",
    chapter=0,
    title="a character tokenizer that round-trips",
    minutes=10,
    difficulty=1,
    hints=(
        "The alphabet is every distinct character of the text, sorted. A character's id is its place in it.",
        "`{character: i for i, character in enumerate(alphabet)}` finds an id; `alphabet[i]` goes back.",
        "Look the id up with `[...]`, not `.get`: an unknown character must raise, not vanish.",
    ),
    run=_run_codec,
    reference=char_codec,
    explanation="Sorting makes the ids a fact of the text; a dictionary makes looking up quick.",
    wrong=(
        WrongAnswer(
            "in order of appearance",
            "The ids follow the first appearance of each character, so another text renumbers everything.",
            'chapter 1, "Break it"',
            _codec(order=dict.fromkeys),
        ),
        WrongAnswer(
            "the alphabet is not sorted",
            "You used a set as it comes. Its order changes from one start of Python to the next, and the ids with it.",
            "sorted(set(text))",
            _codec(order=lambda text: list(set(text))),
        ),
        WrongAnswer(
            "ids begin at 1",
            "Your smallest id is 1. Ids index the rows of a table, which begin at 0.",
            "enumerate(alphabet)",
            _codec(first=1),
        ),
        WrongAnswer(
            "decode returns a list",
            "decode gives a list of characters; the task asks for text.",
            "str.join",
            _codec(join=list),
        ),
        WrongAnswer(
            "the unknown vanishes",
            "encode('hex') skipped the x. A tokenizer that drops characters can never give the text back.",
            'chapter 1, "The checks"',
            _codec(skip=True),
        ),
        WrongAnswer(
            "Unicode numbers as ids",
            "Your ids are ord(character). They round-trip, but the vocabulary would need over a million rows.",
            "the ids must run from 0 to the number of different characters - 1",
            _ordinals,
        ),
    ),
)

EXERCISES = (ATTENTION, CAUSAL_MASK, MLP_BIGRAM, SAMPLER, CODEC)
