"""Exercises of chapter 05: weights under two masks, heads that share keys, and a merge that mixes tokens."""

from __future__ import annotations

import math

import torch

from courseware.exercises.engine import Exercise, WrongAnswer

# --- weights under a causal and a padding mask ---


def masked_weights(q, k, real):
    allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril() & real[:, None, :]
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~allowed, -math.inf).softmax(dim=-1).masked_fill(~allowed, 0.0)


def _weights(
    scale=math.sqrt,
    dim=-1,
    causal="tril",
    diagonal=0,
    pad="keys",
    fill=-math.inf,
    late="",
    empty=0.0,
):
    def answer(q, k, real):
        n = q.shape[-2]
        ones = torch.ones(n, n, dtype=torch.bool)
        past = {"tril": ones.tril(diagonal), "triu": ones.triu(), "none": ones}[causal]
        padding = {
            "keys": real[:, None, :],
            "queries": real[:, :, None],
            "inverted": ~real[:, None, :],
            "none": ones[None],
        }[pad]
        allowed = past & padding
        scores = q @ k.transpose(-2, -1) / scale(q.shape[-1])
        if late:
            weights = scores.softmax(dim=dim) * allowed
            return weights
        weights = scores.masked_fill(~allowed, fill).softmax(dim=dim)
        return weights if empty is None else weights.masked_fill(~allowed, empty)

    return answer


def _run_weights(answer):
    generator = torch.Generator().manual_seed(5)
    q, k = (torch.randn((2, 5, 16), generator=generator) * 1.5 for _ in range(2))
    yield "five real tokens in each text", answer(q, k, torch.ones(2, 5, dtype=torch.bool))
    real = torch.tensor([[True, True, True, False, False], [True] * 5])
    yield "the first text ends with two padded places", answer(q, k, real)
    left = torch.tensor([[False, False, True, True, True], [False, True, True, True, True]])
    yield "padded on the left, so that a query may see nothing", answer(q, k, left)
    q, k = (torch.randn((3, 4, 6), generator=generator) * 5 for _ in range(2))
    real = torch.tensor([[True] * 4, [True, True, False, True], [True, False, False, False]])
    yield "three texts of four tokens, large scores", answer(q, k, real)


MASKED_WEIGHTS = Exercise(
    name="masked_weights",
    chapter=5,
    title="attention weights for a padded batch",
    minutes=20,
    difficulty=2,
    hints=(
        "Two things forbid a key: it comes later than the query, or it is padding. Make one mask (B, T, T) of both.",
        "`real[:, None, :]` has a row of keys for each text; `&` with a lower triangle of True.",
        "Forbidden scores become -inf before the softmax. A row of nothing but -inf becomes nan: fill the forbidden weights with 0 afterwards.",
    ),
    run=_run_weights,
    reference=masked_weights,
    explanation="Padding is a matter of the keys: nobody may take from it. What a padded query takes does not matter, as its target is -100, but it must not be nan.",
    wrong=(
        WrongAnswer(
            "the causal mask is on the wrong side",
            "Your queries see the future and not the past: the upper triangle is where the causal mask must be False.",
            'chapter 5, "Who may see whom"',
            _weights(causal="triu"),
        ),
        WrongAnswer(
            "a token cannot see itself",
            "Your triangle begins one place too early, so a query does not see its own key, and the first sees nothing.",
            "the diagonal of the triangle: tril() with 0",
            _weights(diagonal=-1),
        ),
        WrongAnswer(
            "a token sees the next one",
            "Your triangle ends one place too late: every query sees one key of the future, which is its target.",
            "the diagonal of the triangle: tril() with 0",
            _weights(diagonal=1),
        ),
        WrongAnswer(
            "the causal mask is missing",
            "Padding is hidden, but every query sees the future.",
            'chapter 5, "Who may see whom"',
            _weights(causal="none"),
        ),
        WrongAnswer(
            "the padding mask is missing",
            "The future is hidden, but queries still take from the padded places.",
            "`real[:, None, :]`",
            _weights(pad="none"),
        ),
        WrongAnswer(
            "the padding mask is inverted",
            "You hide the real tokens and show the padding. `real` is True for what may be seen.",
            "the sense of `real`",
            _weights(pad="inverted"),
        ),
        WrongAnswer(
            "padded queries are hidden instead of padded keys",
            "You emptied the rows of padded queries. What must be hidden is the columns of padded keys, in every row.",
            "`real[:, None, :]`, not `real[:, :, None]`",
            _weights(pad="queries"),
        ),
        WrongAnswer(
            "softmax over the queries",
            "Your columns add up to 1. Each query shares out its own weight, so the rows must: dim=-1.",
            'chapter 5, "Break it"',
            _weights(dim=-2),
        ),
        WrongAnswer(
            "the square root of d is missing",
            "Your scores are not divided by √d; they spread too widely and the weights pick instead of weighing.",
            'chapter 5, "Why the square root"',
            _weights(scale=lambda d: 1.0),
        ),
        WrongAnswer(
            "divided by d",
            "You divided by d instead of √d; the weights are too even.",
            'chapter 5, "Why the square root"',
            _weights(scale=lambda d: d),
        ),
        WrongAnswer(
            "forbidden scores set to 0",
            "A score of 0 is not forbidden: its exponential is 1, so the others in the row get too little. Use -inf.",
            'chapter 5, "Why the square root"',
            _weights(fill=0.0),
        ),
        WrongAnswer(
            "masked after the softmax",
            "You removed forbidden weights after the softmax, so what is left of a row no longer adds up to 1.",
            "mask the scores, not the weights",
            _weights(late=True),
        ),
        WrongAnswer(
            "nan for a query that sees nothing",
            "A row in which everything is forbidden is 0 / 0, nan, and one nan spoils all weights of a model. Fill it with 0.",
            'chapter 5, "Why the square root"',
            _weights(empty=None),
        ),
    ),
)

# --- query heads that share key heads ---


def grouped_scores(q, k):
    group = q.shape[1] // k.shape[1]
    return q @ k.repeat_interleave(group, dim=1).transpose(-2, -1) / math.sqrt(q.shape[-1])


def _run_grouped(answer):
    generator = torch.Generator().manual_seed(6)
    for B, heads, kv_heads, D in ((2, 6, 2, 4), (3, 4, 4, 9), (1, 4, 1, 6)):
        q = torch.randn((B, heads, 3, D), generator=generator)
        k = torch.randn((B, kv_heads, 5, D), generator=generator)
        yield f"{heads} query heads, {kv_heads} key heads", answer(q, k)


def _tiled(q, k):
    return (
        q @ k.repeat(1, q.shape[1] // k.shape[1], 1, 1).transpose(-2, -1) / math.sqrt(q.shape[-1])
    )


def _all_channels(q, k):
    group = q.shape[1] // k.shape[1]
    scale = math.sqrt(q.shape[1] * q.shape[-1])
    return q @ k.repeat_interleave(group, dim=1).transpose(-2, -1) / scale


def _unscaled(q, k):
    return q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).transpose(-2, -1)


def _first_only(q, k):
    return q @ k[:, :1].transpose(-2, -1) / math.sqrt(q.shape[-1])


def _mean_of_queries(q, k):
    B, H, T, D = q.shape
    q = q.view(B, k.shape[1], H // k.shape[1], T, D).mean(dim=2)
    return q @ k.transpose(-2, -1) / math.sqrt(D)


GROUPED_SCORES = Exercise(
    name="grouped_scores",
    chapter=5,
    title="query heads that share key heads",
    minutes=15,
    difficulty=2,
    hints=(
        "How many query heads share one key head? That many copies of each key head are needed.",
        "The copies of a key head stand next to each other: query heads 0 and 1 use key head 0.",
        "`k.repeat_interleave(group, dim=1)`, then the scores of ordinary attention, with √d.",
    ),
    run=_run_grouped,
    reference=grouped_scores,
    explanation="repeat_interleave gives 0, 0, 1, 1; repeat gives 0, 1, 0, 1. Llama's weights are made for the first, and with the second they load without an error and speak nonsense.",
    wrong=(
        WrongAnswer(
            "key heads in turn",
            "You gave key heads 0, 1, 0, 1 to query heads 0, 1, 2, 3. Neighbours share: 0, 0, 1, 1.",
            "`repeat_interleave` instead of `repeat`",
            _tiled,
        ),
        WrongAnswer(
            "scaled by all channels",
            "You divided by the root of all channels of all heads. The dot product has only the D numbers of one head.",
            'chapter 5, "Why the square root"',
            _all_channels,
        ),
        WrongAnswer(
            "the square root is missing",
            "Your scores are not divided by √D.",
            'chapter 5, "Why the square root"',
            _unscaled,
        ),
        WrongAnswer(
            "every query head uses key head 0",
            "All your query heads read the first key head; the other key heads are never used.",
            'chapter 5, "Several heads"',
            _first_only,
        ),
        WrongAnswer(
            "the queries of a group averaged",
            "You averaged the queries of a group. They stay separate; only the keys are shared, so there are as many scores as query heads.",
            'chapter 5, "Several heads"',
            _mean_of_queries,
        ),
    ),
)

# --- find the bug: the merge of the heads ---


def _split(x, n_head):
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 2)


def multi_head(q, k, v, n_head):
    q, k, v = (_split(x, n_head) for x in (q, k, v))
    past = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril()
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    y = scores.masked_fill(~past, -math.inf).softmax(dim=-1) @ v
    return y.transpose(1, 2).flatten(2)


def given_multi_head(q, k, v, n_head):
    """Return causal attention with n_head heads; q, k, v and the result are (B, T, C)."""
    B, T, C = q.shape
    D = C // n_head
    q, k, v = (x.view(B, T, n_head, D).transpose(1, 2) for x in (q, k, v))
    past = torch.ones(T, T, dtype=torch.bool).tril()
    scores = q @ k.transpose(-2, -1) / D**0.5
    y = scores.masked_fill(~past, float("-inf")).softmax(dim=-1) @ v
    return y.reshape(B, T, C)


def _multi(split="right", merge="right", scale="head"):
    def cut(x, n_head):
        B, T, C = x.shape
        if split == "right":
            return _split(x, n_head)
        if split == "view":
            return x.reshape(B, n_head, T, C // n_head)
        return x.view(B, T, C // n_head, n_head).permute(0, 3, 1, 2)

    def answer(q, k, v, n_head):
        B, T, C = q.shape
        q, k, v = (cut(x, n_head) for x in (q, k, v))
        past = torch.ones(T, T, dtype=torch.bool).tril()
        scores = q @ k.transpose(-2, -1) / math.sqrt(C // n_head if scale == "head" else C)
        y = scores.masked_fill(~past, -math.inf).softmax(dim=-1) @ v
        if merge == "right":
            return y.transpose(1, 2).flatten(2)
        if merge == "mean":
            return y.mean(dim=1).repeat(1, 1, n_head)
        if merge == "interleaved":
            return y.permute(0, 2, 3, 1).flatten(2)
        return y.reshape(B, T, C)

    return answer


def _run_multi(answer):
    generator = torch.Generator().manual_seed(7)
    for shape, n_head in (((1, 2, 6), 3), ((2, 5, 12), 4), ((2, 4, 8), 1)):
        q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
        yield f"shape {shape}, {n_head} heads", answer(q, k, v, n_head)


MULTI_HEAD = Exercise(
    name="multi_head",
    chapter=5,
    title="find the bug: the model that cheats",
    minutes=15,
    difficulty=2,
    hints=(
        "Change the last token of the input and see which tokens of the output notice. With one head all is well.",
        "Follow the shapes: after the attention y is (B, H, T, D). Which axis has to be beside D before the two can be joined?",
        "transpose(1, 2) gives (B, T, H, D); only then flatten the last two.",
    ),
    run=_run_multi,
    reference=multi_head,
    explanation="reshape reads memory in its order, head by head, so without the transpose a token's row is filled from other tokens of the same head, also from later ones.",
    given=given_multi_head,
    wrong=(
        WrongAnswer(
            "heads merged without the transpose",
            "y is (B, H, T, D), and reshape reads it in that order: the first rows of the result are head 0 of several tokens. Move H beside D first.",
            'chapter 5, "Several heads"',
            _multi(merge="reshape"),
        ),
        WrongAnswer(
            "split without the transpose, too",
            "Now the split is wrong in the same way as the merge: view(B, H, T, D) cuts the text into pieces instead of the channels into heads.",
            'chapter 5, "Several heads"',
            _multi(split="view", merge="reshape"),
        ),
        WrongAnswer(
            "channels dealt out in turn",
            "The channels of a head must be neighbours, and so must they be in the result: (H, D), not (D, H).",
            'chapter 5, "Several heads"',
            _multi(merge="interleaved"),
        ),
        WrongAnswer(
            "heads averaged",
            "The heads are laid side by side, not averaged: each has fetched something else.",
            'chapter 5, "Several heads"',
            _multi(merge="mean"),
        ),
        WrongAnswer(
            "scaled by the width of all heads",
            "The merge is right now, but the scores are divided by the root of all channels; one head has only D of them.",
            'chapter 5, "Why the square root"',
            _multi(scale="all"),
        ),
    ),
)

# --- one step with a cache ---


def step_mask(n_new, n_cached):
    places = torch.arange(n_cached + n_new)
    return places <= places[n_cached:, None]


def _run_step(answer):
    for n_new, n_cached in ((1, 4), (3, 2), (4, 0), (2, 5)):
        yield f"{n_new} new tokens after {n_cached} in the cache", answer(n_new, n_cached)


STEP_MASK = Exercise(
    name="step_mask",
    chapter=5,
    title="who a new token may see",
    minutes=10,
    difficulty=1,
    hints=(
        "There are n_new rows and n_cached + n_new columns.",
        "New token i is token n_cached + i of the whole text. It sees all columns up to that one.",
        "`places = torch.arange(n_cached + n_new)`, then compare `places` with a column of the new places.",
    ),
    run=_run_step,
    reference=step_mask,
    explanation="The staircase is aligned at the lower right. With one new token it is a row of True: the newest token may see everything.",
    wrong=(
        WrongAnswer(
            "aligned at the upper left",
            "Your staircase begins at the first column, so a new token sees only the oldest tokens of the cache.",
            'chapter 5, "Who may see whom"',
            lambda n_new, n_cached: torch.ones(n_new, n_cached + n_new, dtype=torch.bool).tril(),
        ),
        WrongAnswer(
            "new tokens see one another's future",
            "Every new token sees everything. With several new tokens at once, the first must not see the later ones.",
            'chapter 5, "Who may see whom"',
            lambda n_new, n_cached: torch.ones(n_new, n_cached + n_new, dtype=torch.bool),
        ),
        WrongAnswer(
            "a new token cannot see itself",
            "Your staircase ends one column too early: each new token must see its own key as well.",
            'chapter 5, "Who may see whom"',
            lambda n_new, n_cached: torch.ones(n_new, n_cached + n_new, dtype=torch.bool).tril(
                n_cached - 1
            ),
        ),
        WrongAnswer(
            "the cache is hidden",
            "The new tokens see one another, but not the cache: the first n_cached columns must be True.",
            'chapter 5, "Who may see whom"',
            lambda n_new, n_cached: torch.cat(
                [
                    torch.zeros(n_new, n_cached, dtype=torch.bool),
                    torch.ones(n_new, n_new, dtype=torch.bool).tril(),
                ],
                dim=1,
            ),
        ),
        WrongAnswer(
            "True where it is forbidden",
            "Your mask has the opposite sense: here True means that a query may see a key.",
            "True = may attend",
            lambda n_new, n_cached: ~step_mask(n_new, n_cached),
        ),
    ),
)

EXERCISES = (STEP_MASK, MASKED_WEIGHTS, GROUPED_SCORES, MULTI_HEAD)
