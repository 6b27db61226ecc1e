"""Warm-ups 1 and 2: scaled dot-product attention and the causal mask."""

from __future__ import annotations

import math

import torch

from courseware.exercises.engine import Exercise, WrongAnswer

# --- 1. scaled dot-product attention ---


def attention(q, k, v, is_causal=False):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    return torch.softmax(scores, dim=-1) @ v


def _variant(scale=None, dim=-1, diagonal=0, side="tril", late=False, ignore=False, weights=False):
    """Return an attention with one mistake in it."""

    def answer(q, k, v, is_causal=False):
        scores = q @ k.transpose(-2, -1) / (scale(q) if scale else math.sqrt(q.shape[-1]))
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool)
        allowed = ones.tril(diagonal) if side == "tril" else ones.triu(diagonal)
        masked = is_causal and not ignore
        if masked and not late:
            scores = scores.masked_fill(~allowed, float("-inf"))
        result = torch.softmax(scores, dim=dim)
        if masked and late:
            result = result * allowed
        return result if weights else result @ v

    return answer


def _run_attention(answer):
    generator = torch.Generator().manual_seed(1)
    for name, shape, width in (("one head", (5, 4), 3), ("a batch of heads", (2, 3, 6, 16), 8)):
        q = torch.randn(shape, generator=generator) * 2
        k = torch.randn(shape, generator=generator)
        v = torch.randn((*shape[:-1], width), generator=generator)
        yield f"{name}, every position sees every other", answer(q, k, v)
        yield f"{name}, is_causal=True", answer(q, k, v, is_causal=True)


_LOOK = "chapter 5, or the formula softmax(q kᵀ / √d) v above"
ATTENTION = Exercise(
    name="attention",
    chapter=0,
    title="scaled dot-product attention",
    minutes=20,
    difficulty=2,
    hints=(
        "Three steps: scores between every query and every key, weights from the scores, a weighted sum of values.",
        "`q @ k.transpose(-2, -1)` has one row for each query and one column for each key. Divide by √d.",
        "For the causal case, set the scores of later keys to -inf before the softmax: exp(-inf) is 0.",
        "`torch.ones(T, T, dtype=torch.bool).tril()` is True where a query may look; the softmax runs over dim=-1.",
    ),
    run=_run_attention,
    reference=attention,
    explanation="Scores, scaled by √d; future keys at -inf; softmax over the keys; weighted sum of the values.",
    wrong=(
        WrongAnswer(
            "the √d is missing",
            "The weights are too sharp: the scores were not divided by √d, so their spread grows with the width.",
            _LOOK,
            _variant(scale=lambda q: 1.0),
        ),
        WrongAnswer(
            "divided by d instead of √d",
            "The weights are too flat: you divided by d. The spread of a sum of d products is √d, not d.",
            _LOOK,
            _variant(scale=lambda q: q.shape[-1]),
        ),
        WrongAnswer(
            "divided by the square root of the sequence length",
            "You scaled by √T. The size that matters is the width of a query, its last dimension.",
            "q.shape[-1] against q.shape[-2]",
            _variant(scale=lambda q: math.sqrt(q.shape[-2])),
        ),
        WrongAnswer(
            "softmax over the queries",
            "Each column of your weights sums to 1 instead of each row: the softmax ran over the queries.",
            "the softmax runs over the keys, dim=-1",
            _variant(dim=-2),
        ),
        WrongAnswer(
            "the mask hides the past",
            "With is_causal=True, each position sees the future and not the past: the mask is on the wrong side.",
            "warm-up 2; tril keeps what is on and below the diagonal",
            _variant(side="triu"),
        ),
        WrongAnswer(
            "the mask is off by one: a position cannot see itself",
            "The diagonal is masked too. The first row then has nothing to look at, and its softmax is NaN.",
            "warm-up 2; tril() without an argument keeps the diagonal",
            _variant(diagonal=-1),
        ),
        WrongAnswer(
            "the mask is off by one: a position sees one step ahead",
            "Each position also sees the next one, the very token it should predict. Training would look wonderful.",
            "warm-up 2; tril() without an argument",
            _variant(diagonal=1),
        ),
        WrongAnswer(
            "masked after the softmax",
            "The masked weights are 0, but the others no longer sum to 1: mask the scores, before the softmax.",
            "use masked_fill(..., float('-inf')) on the scores",
            _variant(late=True),
        ),
        WrongAnswer(
            "is_causal is ignored",
            "With is_causal=True nothing changes.",
            "warm-up 2",
            _variant(ignore=True),
        ),
        WrongAnswer(
            "returned the weights",
            "You returned the attention weights; the last step, the weighted sum of the values, is missing.",
            _LOOK,
            _variant(weights=True),
        ),
    ),
)

# --- 2. the causal mask ---


def causal_weights(scores):
    mask = torch.tensor(
        [
            [True, False, False, False],
            [True, True, False, False],
            [True, True, True, False],
            [True, True, True, True],
        ]
    )
    weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)
    return mask, weights


def _mask_variant(make, fill=float("-inf"), multiply=False, late=False, dim=-1, invert=False):
    def answer(scores):
        mask = make(torch.ones(4, 4, dtype=torch.bool))
        if multiply:
            return mask, torch.softmax(scores * mask, dim=dim)
        if late:
            return mask, torch.softmax(scores, dim=dim) * mask
        weights = torch.softmax(scores.masked_fill(~mask, fill), dim=dim)
        return (~mask if invert else mask), weights

    return answer


def _additive(scores):
    mask = torch.full((4, 4), float("-inf")).triu(1)
    return mask, torch.softmax(scores + mask, dim=-1)


def _run_mask(answer):
    toy = torch.tensor([[1.0, 2, 3, 4], [0, 0, 5, 5], [2, 1, 0, 9], [1, 1, 1, 1]])
    mask, weights = answer(toy.clone())
    yield "the mask", mask
    yield "the weights of the toy matrix", weights


_TRIL = "row = who looks, column = what is looked at: row 0 may see only column 0"
CAUSAL_MASK = Exercise(
    name="causal_mask",
    chapter=0,
    title="the causal mask by hand",
    minutes=10,
    difficulty=1,
    hints=(
        "Row i says what position i may look at: itself and everything before it. Row 0 has one True.",
        "Write the four rows out: 1, 2, 3, 4 times True, and the rest False.",
        "`scores.masked_fill(~mask, float('-inf'))` puts -inf where the mask is False.",
    ),
    run=_run_mask,
    reference=causal_weights,
    explanation="True on and below the diagonal; -inf elsewhere before a softmax over each row.",
    wrong=(
        WrongAnswer(
            "the mask hides the past",
            "It is True above the diagonal.",
            _TRIL,
            _mask_variant(torch.triu),
        ),
        WrongAnswer(
            "the diagonal is missing",
            "No position may look at itself, so row 0 sees nothing and its weights are NaN.",
            _TRIL,
            _mask_variant(lambda ones: ones.tril(-1)),
        ),
        WrongAnswer(
            "one step too far",
            "Each position sees the next one as well.",
            _TRIL,
            _mask_variant(lambda ones: ones.tril(1)),
        ),
        WrongAnswer(
            "True and False swapped",
            "The weights are right, but your mask is True where looking is forbidden. Here True means allowed.",
            "the task's first sentence",
            _mask_variant(torch.tril, invert=True),
        ),
        WrongAnswer(
            "multiplied instead of filled",
            "You multiplied the scores by the mask. A masked score became 0, and exp(0) = 1 is a real weight.",
            "-inf is what makes the weight 0",
            _mask_variant(torch.tril, multiply=True),
        ),
        WrongAnswer(
            "masked after the softmax",
            "Rows of your weights do not sum to 1: mask the scores first, then take the softmax.",
            "the order of the two steps",
            _mask_variant(torch.tril, late=True),
        ),
        WrongAnswer(
            "softmax over the columns",
            "Columns sum to 1 instead of rows.",
            "dim=-1",
            _mask_variant(torch.tril, dim=0),
        ),
        WrongAnswer(
            "an additive mask",
            "The weights are right; the mask was asked for as True and False, and yours holds 0 and -inf.",
            "PyTorch accepts both kinds, but they must not be mixed up",
            _additive,
        ),
    ),
)
