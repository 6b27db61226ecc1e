"""Chapter 22: a trip through a few bits, codes from the lowest weight, a lookup, a guess kept or corrected."""

import torch

from courseware.exercises import Exactly, Exercise, Mistake, normal

HAND = 'chapter 22, "Eight bits by hand"'
GROUPS = 'chapter 22, "One large weight sets the step for all"'
CENTRED = 'chapter 22, "A range that is not centred"'
BREAK_BITS = 'chapter 22, "Break it: divide by 128"'
GUESS = 'chapter 22, "Guess, then check"'
DRAW = 'chapter 22, "Guesses, and drawing all the same"'
BREAK_DRAW = 'chapter 22, "Break it: draw again"'


def _probe_round_trip(answer):
    draw = normal(1)
    for N, K, n_bits, group in ((3, 8, 4, 4), (2, 12, 8, 12), (4, 6, 3, 2), (1, 16, 2, 8), (5, 4, 4, 1)):
        w = draw(N, K) - 0.2
        w[0, -1] = -3.0  # an outlier below zero
        yield f"w {N} x {K}, {n_bits} bits, groups of {group}", answer(w, n_bits, group)


ROUND_TRIP = Exercise(
    "round_trip", _probe_round_trip,
    hints=(
        "Give the groups a dimension of their own: w.unflatten(1, (-1, group)) is (N, K / group, group).",
        "The scale of a group is its largest absolute value over 2 ** (n_bits - 1) - 1; keepdim=True lets it divide the group.",
        "Divide, round, multiply by the scale again, and flatten(1).",
    ),
    explanation="A weight moves by half a scale at most, and the scale follows the largest of its own group only.",
    look=HAND,
    mistakes=(
        Mistake("one step too many", "You divide by 2^(b-1). The largest code is one less; otherwise the largest weight gets a code that does not fit.",
                edit=("2 ** (n_bits - 1) - 1", "2 ** (n_bits - 1)"), look=BREAK_BITS),
        Mistake("twice the codes", "You divide by 2^b - 1, as if all codes were positive. Half of them are below zero.",
                edit=("2 ** (n_bits - 1) - 1", "2**n_bits - 1"), look=CENTRED),
        Mistake("the largest, not the largest size", "The scale follows the largest weight, but a negative one may be larger in size: take abs() first.",
                edit=("groups.abs().amax", "groups.amax")),
        Mistake("a scale for the whole row", "One scale serves the whole row. Each group has its own.",
                edit=("groups.abs().amax(dim=2, keepdim=True)", "groups.abs().amax(dim=(1, 2), keepdim=True)"), look=GROUPS),
        Mistake("a scale for the whole matrix", "One scale serves the whole matrix. Each group has its own.",
                edit=("groups.abs().amax(dim=2, keepdim=True)", "groups.abs().amax()"), look=GROUPS),
        Mistake("groups down the columns", "Your groups run down a column. Neighbours in a *row* share a scale.",
                edit=(("w.unflatten(1, (-1, group))", "w.T.reshape(-1, group, 1).transpose(1, 2)"), (".flatten(1)", ".reshape(w.T.shape).T"))),
        Mistake("cut off, not rounded", "You cut the fraction off. Rounding moves a weight by half a step at most, cutting by a whole one.",
                edit=(".round()", ".trunc()")),
        Mistake("rounded down", "You round down, so weights move by up to a whole step. Round to the nearest.",
                edit=(".round()", ".floor()")),
        Mistake("not restored", "You return the codes. Multiply them by the scale again.",
                edit=("codes * scale", "codes")),
        Mistake("divided once more", "You divide the codes by the scale. The way back is to multiply.",
                edit=("codes * scale", "codes / scale")),
        Mistake("not flattened", "The result still has a dimension for the groups. Return (N, K).",
                edit=(".flatten(1)", "")),
    ),
)  # fmt: skip


def _probe_codes(answer):
    draw = normal(2)
    for N, K, n_bits in ((3, 9, 4), (2, 40, 8), (4, 6, 2), (3, 5, 3)):
        w = draw(N, K) + 1.5
        codes, scale, low = answer(w, n_bits)
        yield f"codes of w {N} x {K}, {n_bits} bits", Exactly(codes)
        yield f"scale of w {N} x {K}, {n_bits} bits", scale
        yield f"low of w {N} x {K}, {n_bits} bits", low
        yield f"restored w {N} x {K}, {n_bits} bits", codes * scale + low


CODES_FROM_LOW = Exercise(
    "codes_from_low", _probe_codes,
    hints=(
        "How many steps are there from code 0 to the largest code that fits into n_bits?",
        "The largest weight is high, and (high - low) / scale is its code. Which code is that now, and which should it be?",
        "Divide by 2**n_bits - 1.",
    ),
    explanation="2^b codes have 2^b - 1 steps between them, and only the nearest code is within half a step.",
    look=CENTRED,
    mistakes=(
        Mistake("one step too many", "With 2^b steps the largest weight gets the code 2^b, which does not fit: with 8 bits it wraps around to 0. Between 2^b codes there are 2^b - 1 steps.",
                edit=("2**n_bits - 1", "2**n_bits"), look=BREAK_BITS),
        Mistake("clamped, but one step too many", "The codes fit now, but there are still 2^b steps, one more than lie between 2^b codes. So the largest weight comes back a whole step too low. Change the scale, and there is nothing left to clamp.",
                edit=(("2**n_bits - 1", "2**n_bits"), (".round()", ".round().clamp(max=2**n_bits - 1)")), look=BREAK_BITS),
        Mistake("cut off, not rounded", "`.to(torch.uint8)` cuts the fraction off, so nearly every weight comes back too small. Round first.",
                edit=(".round()", ""), look=HAND),
        Mistake("rounded up", "You round up, so nearly every weight comes back too large. Round to the nearest.",
                edit=(".round()", ".ceil()"), look=HAND),
        Mistake("symmetric steps", "That is the largest code of the symmetric way. From the lowest weight up there are 2^b - 1 steps.",
                edit=("2**n_bits - 1", "2 ** (n_bits - 1) - 1")),
        Mistake("not counted from the lowest", "The codes count steps from the lowest weight: subtract it first.",
                edit=("(w - low) / scale", "w / scale")),
        Mistake("the range forgotten", "The steps must reach from the lowest weight to the highest: high - low, not high.",
                edit=("(high - low)", "high")),
        Mistake("signed codes", "The codes are not uint8. From 0 to 255 they need the unsigned byte.",
                edit=("torch.uint8", "torch.int16")),
    ),
)  # fmt: skip

_TEXTS = (
    ([1, 2, 3, 9, 1, 2, 3], 2, 3),
    ([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], 5, 3),
    ([1, 2, 5, 7, 2, 6, 1, 2], 1, 3),
    ([1, 2, 5, 7, 2, 6, 1, 2], 2, 1),
    ([1, 2, 3, 4], 4, 3),
    ([5, 5, 5], 4, 3),
    ([5, 5, 5, 9, 5, 5, 5], 2, 2),
    ([4], 4, 3),
    ([7, 1, 7], 0, 2),
    ([0, 3, 0, 3, 0], 3, 2),
    ([2, 2], 3, 5),
)


def _probe_look_up(answer):
    for ids, n, longest in _TEXTS:
        yield f"{ids}, n={n}, longest={longest}", Exactly(answer(list(ids), n, longest))


LOOK_UP = Exercise(
    "look_up", _probe_look_up,
    hints=(
        "Two loops: over the length, from `longest` down to 1, and over the starts, from the last to the first.",
        "The last `length` ids are ids[-length:]. They start at len(ids) - length, so an earlier occurrence starts before that.",
        "At the first match return ids[start + length : start + length + n].",
    ),
    explanation="The longest context is the best evidence, and the last occurrence is the most recent one.",
    look=GUESS,
    mistakes=(
        Mistake("the first occurrence", "You found the first occurrence. The last one is closer to what is being written.",
                edit=("range(len(ids) - length - 1, -1, -1)", "range(len(ids) - length)")),
        Mistake("the shortest context", "You begin with one id and so return its last occurrence, though a longer piece of the end has occurred too.",
                edit=("range(min(longest, len(ids) - 1), 0, -1)", "range(1, min(longest, len(ids) - 1) + 1)")),
        Mistake("found itself", "The end of the text has found itself, and nothing follows it. Search before len(ids) - length.",
                edit=("range(len(ids) - length - 1, -1, -1)", "range(len(ids) - length, -1, -1)")),
        Mistake("the match itself", "You return the ids that matched. Return those that followed.",
                edit=("after = start + length", "after = start")),
        Mistake("one too far", "You skip the first id that followed.",
                edit=("after = start + length", "after = start + length + 1")),
        Mistake("all that followed", "You return everything that followed. At most n ids are wanted.",
                edit=("ids[after : after + n]", "ids[after:]")),
        Mistake("only the longest", "You try only the longest piece. If it has not occurred, try shorter ones.",
                edit=("range(min(longest, len(ids) - 1), 0, -1)", "[longest] if len(ids) > longest else []")),
        Mistake("no overlap", "An occurrence may overlap with the end: in 5, 5, 5 the piece 5, 5 occurs at 0 too.",
                edit=("range(len(ids) - length - 1, -1, -1)", "range(len(ids) - 2 * length, -1, -1)")),
    ),
)  # fmt: skip


def _probe_keep(answer):
    p = torch.tensor([0.5, 0.3, 0.2])
    q = torch.tensor([0.2, 0.6, 0.2])
    for guess, luck in ((1, 0.49), (1, 0.51), (0, 0.99), (2, 0.999), (1, 0.0)):
        yield f"p 0.5 0.3 0.2, q 0.2 0.6 0.2, guess {guess}, luck {luck}", answer(p.clone(), q.clone(), guess, luck)
    draw = normal(3)
    for i in range(6):
        p, q = draw(5).softmax(-1), draw(5).softmax(-1)
        guess = int((q - p).argmax())
        luck = float(p[guess] / q[guess]) * (0.9 if i % 2 else 1.05)
        yield f"five tokens ({i + 1})", answer(p.clone(), q.clone(), guess, luck)
    sure = torch.eye(4)
    yield "both are sure, and agree", answer(sure[2], sure[2], 2, 0.5)
    yield "both are sure, and disagree", answer(sure[1], sure[2], 2, 0.0)
    yield "the model rules the guess out", answer(torch.tensor([0.5, 0.0, 0.5]), torch.tensor([0.2, 0.8, 0.0]), 1, 0.0)


_IF = "luck < p[guess] / q[guess]"
_LEFT = "(p - q).clamp(min=0)"

KEEP = Exercise(
    "keep_or_correct", _probe_keep,
    hints=(
        "A guess is accepted with probability min(1, p / q) of that token: that is, if luck is below p[guess] / q[guess].",
        "What is left after a rejection is p - q where that is positive, and 0 elsewhere.",
        "Divide what is left by its sum.",
    ),
    explanation="What q proposes too often is thinned out, and what it proposes too seldom is made up for after a rejection.",
    look=DRAW,
    mistakes=(
        Mistake("drawn from p again", "After a rejection you draw from p. What q proposes too seldom would then stay too rare: draw from what is left, p - q.",
                edit=(_LEFT, "p"), look=BREAK_DRAW),
        Mistake("all but the guess", "After a rejection you rule out the guess alone. What is left is p - q where that is positive.",
                edit=(_LEFT, "p.scatter(0, torch.tensor([int(guess)]), 0.0)")),
        Mistake("the quotient upside down", "You accept with q / p. A guess that the draft proposes too often must be accepted less often: p / q.",
                edit=("p[guess] / q[guess]", "q[guess] / p[guess]")),
        Mistake("accepted by p alone", "You accept with probability p. The guess has passed q already: divide by q.",
                edit=("p[guess] / q[guess]", "p[guess]")),
        Mistake("accepted only if it is the best", "You accept only the model's favourite. That is right for greedy text only.",
                edit=(_IF, "guess == int(p.argmax())")),
        Mistake("turned around", "You accept where you should reject: luck must be *below* the quotient.",
                edit=(_IF, "luck >= p[guess] / q[guess]")),
        Mistake("at most, not below", "You accept a luck that equals the quotient. luck can be 0, and so can p of the guess: a token that the model rules out would be kept. luck must be *below* the quotient.",
                edit=(_IF, "luck <= p[guess] / q[guess]")),
        Mistake("what q has too much of", "You kept what q has too much of. What is missing is p - q.",
                edit=("(p - q)", "(q - p)")),
        Mistake("the size of the difference", "You took the size of the difference. Where q is larger nothing is left: clamp(min=0).",
                edit=(_LEFT, "(p - q).abs()")),
        Mistake("does not add up to 1", "What is left does not add up to 1. Divide it by its sum.",
                edit=("left / left.sum()", "left")),
        Mistake("p for an accepted guess", "An accepted guess is kept: its probability is 1 now, and that of all else 0.",
                edit=("return kept", "return p")),
    ),
)  # fmt: skip
