"""Chapter 05: a head from scratch, weights under two masks, heads that share keys, and a merge that mixes tokens."""

import torch

from courseware.exercises import Exercise, Mistake, normal

SCORES = 'chapter 5, "Weights from scores"'
MASK = 'chapter 5, "The mask"'
ROOT = 'chapter 5, "Why the square root"'
PADDING = 'chapter 5, "The weights"'


def _probe_head(answer):
    draw = normal(4)
    for B, T, C, D in ((1, 1, 3, 2), (2, 5, 6, 4), (2, 7, 4, 9)):
        weights = [0.5 * draw(C, D) for _ in range(3)]
        yield f"x of shape {(B, T, C)}, head width {D}", answer(draw(B, T, C), *weights)


ATTENTION_HEAD = Exercise(
    "attention_head", _probe_head,
    hints=(
        "Compare, weigh, average. Make q, k and v first; every step after that is one line.",
        "Scores (B, T, T) are q times k with its last two axes exchanged, divided by √D. Set them to -inf where a query would see a later key.",
        "`scores.masked_fill(~past, -math.inf).softmax(dim=-1) @ v`, with `past` a lower triangle of True.",
    ),
    explanation="The first token sees only itself, so it must get exactly its own value. That test alone finds most mistakes with masks.",
    look='chapter 5, "A head"',
    mistakes=(
        Mistake("the square root is missing", "Your scores are not divided by √D; they spread too widely, and the weights pick instead of weighing.",
                edit=("/ math.sqrt(q.shape[-1])", ""), look=ROOT),
        Mistake("divided by D", "You divided by D instead of √D; the weights are too even.",
                edit=("math.sqrt(q.shape[-1])", "q.shape[-1]"), look=ROOT),
        Mistake("the mask is missing", "Every token sees the whole text, the future too.",
                edit=(".masked_fill(~past, -math.inf)", ""), look=SCORES),
        Mistake("the mask is on the wrong side", "Your queries see the future and not the past: the lower triangle (tril) is what may be seen.",
                edit=("tril()", "triu()"), look=SCORES),
        Mistake("the mask is inverted", "What may be seen got -inf. masked_fill fills where its mask is True, so it needs the forbidden places.",
                edit=("~past", "past"), look=SCORES),
        Mistake("a token sees the next one", "Your triangle ends one place too late: every query sees the key of its target.",
                edit=("tril()", "tril(1)"), look=SCORES),
        Mistake("a token cannot see itself", "Your triangle begins one place too early, so a query does not see its own key, and the first sees nothing.",
                edit=("tril()", "tril(-1)"), look=SCORES),
        Mistake("forbidden scores set to 0", "A score of 0 is not forbidden: its exponential is 1. Use -inf.",
                edit=("-math.inf", "0.0"), look=SCORES),
        Mistake("masked after the softmax", "You removed forbidden weights after the softmax, so what is left of a row no longer adds up to 1. Mask the scores.",
                edit=(".masked_fill(~past, -math.inf).softmax(dim=-1)", ".softmax(dim=-1).masked_fill(~past, 0.0)")),
        Mistake("softmax over the queries", "Your columns add up to 1. Each query shares out its own weight, so the rows must: dim=-1.",
                edit=("dim=-1", "dim=-2"), look='chapter 5, "Break it"'),
        Mistake("queries and keys exchanged", "The rows of your scores are keys. Each query shares out its weight over the keys: q @ kᵀ.",
                edit=("q @ k.transpose(1, 2)", "k @ q.transpose(1, 2)")),
        Mistake("the tokens averaged", "You averaged x itself. Each token hands over its value, x @ w_v.",
                edit=("v = x @ w_v", "v = x")),
        Mistake("no softmax", "You averaged with the bare scores. Softmax makes them positive and lets each row add up to 1.",
                edit=(("-math.inf", "0.0"), (".softmax(dim=-1)", ""))),
        Mistake("divided by the root of C", "You divided by the root of C, the width of the tokens. The dot product has D numbers, the width of a query.",
                edit=("math.sqrt(q.shape[-1])", "math.sqrt(x.shape[-1])"), look=ROOT),
    ),
)  # fmt: skip


def _probe_step(answer):
    for n_new, n_cached in ((1, 4), (3, 2), (4, 0), (2, 5)):
        yield f"{n_new} new and {n_cached} cached tokens", answer(n_new, n_cached)


STEP_MASK = Exercise(
    "step_mask", _probe_step,
    hints=(
        "There are n_new rows and n_cached + n_new columns.",
        "New token i is token n_cached + i of the whole text. It sees all columns up to that one.",
        "`places = torch.arange(n_cached + n_new)`, then compare `places` with a column of the new places.",
    ),
    explanation="The staircase is aligned at the lower right. With one new token it is a row of True: the newest token may see everything.",
    look=MASK,
    mistakes=(
        Mistake("aligned at the upper left", "Your staircase begins at the first column, so a new token sees only the oldest tokens of the cache.",
                edit=("places[n_cached:, None]", "places[:n_new, None]")),
        Mistake("a new token cannot see itself", "Your staircase ends one column too early: each new token must see its own key as well.",
                edit=("<=", "<")),
        Mistake("a new token sees the next one", "Your staircase ends one column too late: each new token sees the one after it, which it should predict.",
                edit=("places[n_cached:, None]", "places[n_cached:, None] + 1")),
        Mistake("new tokens see one another's future", "Every new token sees everything. With several new tokens at once, the first must not see the later ones.",
                edit=("places <= places[n_cached:, None]", "torch.ones(n_new, len(places)).bool()")),
        Mistake("the future in place of the past", "Each new token sees itself and what comes after it: the upper triangle (triu) in place of the lower one (tril).",
                edit=("<=", ">=")),
        Mistake("True where it is forbidden", "Your mask has the opposite sense: here True means that a query may see a key.",
                edit=("<=", ">")),
        Mistake("the cache is hidden", "The new tokens see one another, but not the cache: the first n_cached columns must be True.",
                edit=(("return places", "return (places >= n_cached) & (places"), ("None]", "None])"))),
        Mistake("rows for the cached tokens, too", "Your mask has a row for every token. The cached ones were read before: only the new ones ask.",
                edit=("places[n_cached:, None]", "places[:, None]")),
    ),
)  # fmt: skip


def _probe_weights(answer):
    draw = normal(5)
    for label, scale, real in (
        ("the first text ends with two padded places", 1.5, [[1, 1, 1, 0, 0], [1] * 5]),
        ("padded on the left, so that a query may see nothing", 1.5, [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]),
        ("three texts of four tokens, large scores", 5, [[1] * 4, [1, 1, 0, 1], [1, 0, 0, 0]]),
    ):  # fmt: skip
        q, k = scale * draw(2, len(real), len(real[0]), 16)
        yield label, answer(q, k, torch.tensor(real).bool())


MASKED_WEIGHTS = Exercise(
    "masked_weights", _probe_weights,
    hints=(
        "Two things forbid a key: it comes later than the query, or it is padding. Make one mask (B, T, T) of both.",
        "`real[:, None, :]` has a row of keys for each text; `&` with a lower triangle of True.",
        "Forbidden scores become -inf before the softmax. A row with nothing but -inf becomes nan: fill the forbidden weights with 0 afterwards.",
    ),
    explanation="Padding concerns the keys: nobody may take from it. What a padded query takes does not matter, because nobody uses its prediction, but it must not be nan.",
    mistakes=(
        Mistake("the causal mask is on the wrong side", "Your queries see the future and not the past: the upper triangle is where the causal mask must be False.",
                edit=("tril()", "triu()"), look=MASK),
        Mistake("a token cannot see itself", "Your triangle begins one place too early, so a query does not see its own key, and the first sees nothing.",
                edit=("tril()", "tril(-1)"), look=MASK),
        Mistake("a token sees the next one", "Your triangle ends one place too late: every query sees one key of the future, which is its target.",
                edit=("tril()", "tril(1)"), look=MASK),
        Mistake("the causal mask is missing", "Padding is hidden, but every query sees the future.",
                edit=(".tril()", ""), look=MASK),
        Mistake("the padding mask is missing", "The future is hidden, but queries still take from the padded places.",
                edit=("& real[:, None, :]", "")),
        Mistake("the padding mask is inverted", "You hide the real tokens and show the padding. `real` is True for what may be seen.",
                edit=("real[:, None, :]", "~real[:, None, :]")),
        Mistake("padded queries are hidden instead of padded keys", "You emptied the rows of padded queries. What must be hidden is the columns of padded keys, in every row: `real[:, None, :]`.",
                edit=("real[:, None, :]", "real[:, :, None]")),
        Mistake("padded queries are hidden, too", "You emptied the rows of padded queries as well. Only the keys need hiding; a row is 0 where a query sees nothing.",
                edit=("real[:, None, :]", "real[:, None, :] & real[:, :, None]")),
        Mistake("the whole mask is inverted", "What is allowed got -inf, and what is forbidden got the weights. masked_fill fills where its mask is True.",
                edit=("real[:, None, :]", "real[:, None, :]\nallowed = ~allowed"), look=MASK),
        Mistake("softmax over the queries", "Your columns add up to 1. Each query shares out its own weight, so the rows must: dim=-1.",
                edit=("dim=-1", "dim=-2"), look='chapter 5, "Break it"'),
        Mistake("the square root of D is missing", "Your scores are not divided by √D; they spread too widely, and the weights pick instead of weighing.",
                edit=("/ math.sqrt(q.shape[-1])", ""), look=ROOT),
        Mistake("divided by D", "You divided by D instead of √D; the weights are too even.",
                edit=("math.sqrt(q.shape[-1])", "q.shape[-1]"), look=ROOT),
        Mistake("queries and keys exchanged", "The rows of your scores are keys. Each query shares out its weight over the keys: q @ kᵀ.",
                edit=("q @ k.transpose(-2, -1)", "k @ q.transpose(-2, -1)")),
        Mistake("forbidden scores set to 0", "A score of 0 is not forbidden: its exponential is 1, so the others in the row get too little. Use -inf.",
                edit=("-math.inf", "0.0"), also=((("-math.inf", "0.0"), (".masked_fill(~allowed, 0.0)", "")),), look=ROOT),
        Mistake("a large negative number in place of -inf", "Where a query sees nothing, all its scores are the same -1e9, and the softmax gives every key the same weight. It should be a row of zeros.",
                edit=(("-math.inf", "-1e9"), (".masked_fill(~allowed, 0.0)", "")), look=PADDING),
        Mistake("masked after the softmax", "You removed forbidden weights after the softmax, so what is left of a row no longer adds up to 1. Mask the scores.",
                edit=(".masked_fill(~allowed, -math.inf)", "")),
        Mistake("nan for a query that sees nothing", "A row in which everything is forbidden is 0 / 0, nan, and one nan spoils all weights of a model. Fill it with 0.",
                edit=(".masked_fill(~allowed, 0.0)", ""), look=PADDING),
    ),
)  # fmt: skip


def _probe_grouped(answer):
    draw = normal(6)
    for B, heads, kv_heads, D in ((2, 6, 2, 4), (3, 4, 4, 9), (1, 4, 1, 6)):
        q, k = draw(B, heads, 3, D), draw(B, kv_heads, 5, D)
        yield f"{heads} query heads, {kv_heads} key heads", answer(q, k)


GROUPED_SCORES = Exercise(
    "grouped_scores", _probe_grouped,
    hints=(
        "How many query heads share one key head? That many copies of each key head are needed.",
        "The copies of a key head stand next to each other: query heads 0 and 1 use key head 0.",
        "`k.repeat_interleave(group, dim=1)`, then the scores of ordinary attention, with √D.",
    ),
    explanation="repeat_interleave gives 0, 0, 1, 1; repeat gives 0, 1, 0, 1. Llama's weights are made for the first; with the second they load without an error and speak nonsense.",
    mistakes=(
        Mistake("key heads in turn", "You gave key heads 0, 1, 0, 1 to query heads 0, 1, 2, 3. Neighbours share: 0, 0, 1, 1. Use `repeat_interleave` instead of `repeat`.",
                edit=("repeat_interleave(group, dim=1)", "repeat(1, group, 1, 1)")),
        Mistake("the square root is missing", "Your scores are not divided by √D.",
                edit=("/ math.sqrt(q.shape[-1])", ""), look=ROOT),
        Mistake("divided by D", "You divided by D instead of √D.",
                edit=("math.sqrt(q.shape[-1])", "q.shape[-1]"), look=ROOT),
        Mistake("a softmax as well", "You returned weights. The task asks for the scores, before any softmax.",
                wrap=lambda right: lambda q, k: right(q, k).softmax(dim=-1)),
    ),
)  # fmt: skip


def _probe_multi(answer):
    draw = normal(7)
    for shape, n_head in (((1, 2, 6), 3), ((2, 5, 12), 4), ((2, 4, 8), 1)):
        yield f"shape {shape}, {n_head} heads", answer(*draw(3, *shape), n_head)


MULTI_HEAD = Exercise(
    "multi_head", _probe_multi,
    hints=(
        "Change the last token of the input and see which tokens of the output notice. With one head all is well.",
        "Follow the shapes: after the attention y is (B, H, T, D). Which axis has to be beside D before the two can be joined?",
        "transpose(1, 2) gives (B, T, H, D); only then flatten the last two.",
    ),
    explanation="reshape reads memory in its order, head by head, so without the transpose a token's row is filled from other tokens of the same head, later ones among them.",
    look='chapter 5, "All heads in one go"',
    mistakes=(
        Mistake("heads merged without the transpose", "y is (B, H, T, D), and reshape reads it in that order: the first rows of the result are head 0 of several tokens. Move H beside D first.",
                of="given"),
        Mistake("split without the transpose, too", "Now the split is wrong in the same way as the merge: view(B, H, T, D) cuts the text into pieces instead of the channels into heads.",
                of="given", edit=("x.view(B, T, n_head, D).transpose(1, 2)", "x.reshape(B, n_head, T, D)")),
        Mistake("scaled by the width of all heads", "The scores are divided by the root of all channels; one head has only D of them.",
                edit=("D**0.5", "C**0.5"), look=ROOT),
        Mistake("a single head", "You treat all channels as one head. Then nothing is mixed up, but each head must weigh by its own D channels.",
                edit=("D = C // n_head", "n_head, D = 1, C")),
        Mistake("queries and keys exchanged", "The rows of your scores are keys. Each query shares out its weight over the keys: q @ kᵀ.",
                edit=("q @ k.transpose(-2, -1)", "k @ q.transpose(-2, -1)")),
        Mistake("without the mask", "The merge is not the only thing that changed: now every token sees the future.",
                edit=(".tril()", ""), look=MASK),
    ),
)  # fmt: skip
