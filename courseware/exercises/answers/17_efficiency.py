"""Chapter 17: heads that share their keys, a softmax in parts, a window with sinks, queues for experts, a router."""

import torch

from courseware.exercises import Exactly, Exercise, Mistake, normal

SHARED = 'chapter 17, "Fewer keys than queries"'
PIECES = 'chapter 17, "A softmax in pieces"'
WINDOWS = 'chapter 17, "Windows"'
SINKS = 'chapter 17, "Break it: forget the first token"'
EXPERTS = 'chapter 17, "Experts"'
FULL = 'chapter 17, "Break it: a full expert"'


def _probe_attend_one(answer):
    draw = normal(17)
    for B, H, G, T, D in ((2, 6, 2, 5, 4), (1, 4, 4, 3, 9), (3, 4, 1, 7, 2), (1, 6, 3, 1, 4)):
        case = f"{H} query heads, {G} key heads, {T} tokens"
        yield case, answer(draw(B, H, D), draw(B, G, T, D), draw(B, G, T, D))


ATTEND_ONE = Exercise(
    "attend_one", _probe_attend_one,
    hints=(
        "The H / G queries of a group all search the same keys. Lay them out as the rows of one matrix.",
        "Cut H into (G, H / G): neighbours stay together, and each group meets its own head of keys in one product.",
        "rows (B, G, H / G, D) @ k.mT gives (B, G, H / G, T); after softmax and values, reshape to (B, H, D).",
    ),
    explanation="The keys are read once for the whole group. That is all that makes shared keys fast: a copy for each query head would be written and read again.",
    look=SHARED,
    mistakes=(
        Mistake("key heads in turn", "Your query heads take turns with the key heads. Neighbours share one: cut H into (G, H / G), in this order.",
                edit=(("q.reshape(B, G, H // G, D)", "q.reshape(B, H // G, G, D).transpose(1, 2)"),
                      ("(weights @ v)", "(weights @ v).transpose(1, 2)"))),
        Mistake("key heads in turn, and another order", "Your query heads take turns with the key heads, and the heads come back in another order. Neighbours share a key head: cut H into (G, H / G), and no axis changes its place.",
                edit=("q.reshape(B, G, H // G, D)", "q.reshape(B, H // G, G, D).transpose(1, 2)")),
        Mistake("heads come back in another order", "The groups are right, but the heads come back in another order: head h of the result must belong to head h of q.",
                edit=("(weights @ v)", "(weights @ v).transpose(1, 2)")),
        Mistake("the square root is missing", "The scores are not divided by √D.",
                edit=("/ math.sqrt(D)", "")),
        Mistake("divided by D", "You divided by D instead of √D; the weights are too even.",
                edit=("math.sqrt(D)", "D")),
        Mistake("softmax over the heads", "Your softmax runs over the queries of a group. Each query shares out its own weight over the tokens: dim=-1.",
                edit=("dim=-1", "dim=-2")),
        Mistake("values of the keys", "You averaged the keys. The weights belong to the values.",
                edit=("weights @ v", "weights @ k")),
        Mistake("no softmax", "You averaged with the bare scores. Softmax makes them positive and lets them add up to 1.",
                edit=(".softmax(dim=-1)", "")),
    ),
)  # fmt: skip


def _half(draw, T, n, D, shift):
    """Return (top, total, mix) of n random scores and values for each of T queries."""
    scores, values = 3 * draw(T, n) + shift, draw(n, D)
    top = scores.amax(dim=-1, keepdim=True)
    weights = (scores - top).exp()
    return top, weights.sum(dim=-1, keepdim=True), weights @ values


def _probe_join(answer):
    draw = normal(18)
    for T, D, shifts in ((4, 3, (0, 0)), (3, 2, (5, -5)), (2, 4, (-300, 300)), (5, 1, (400, 100))):
        first, second = (_half(draw, T, n, D, shift) for n, shift in zip((3, 6), shifts))
        case = f"{T} queries, scores around {shifts[0]} and {shifts[1]}"
        yield case, answer(first, second)


JOIN = Exercise(
    "join", _probe_join,
    hints=(
        "Both halves were made with their own largest score. Which one would have been used if one processor had read all keys?",
        "A half whose `top` was too small by d has weights that are too large by e^d, all of them. Shrink its total and its mix.",
        "top = torch.maximum(...); each half's total and mix times (its top - top).exp(); then add. Nothing is divided yet.",
    ),
    explanation="Joining is the same for two halves as for one more tile. It does not matter in which order the pieces come, so many processors can read one long text.",
    look=PIECES,
    mistakes=(
        Mistake("nothing is shrunk", "You added totals and mixes as they are. Each half was made with its own largest score: shrink it by exp(its top - the common top) first.",
                edit=(("shrink1 * total1 + shrink2 * total2", "total1 + total2"), ("shrink1 * mix1 + shrink2 * mix2", "mix1 + mix2"))),
        Mistake("only the total is shrunk", "The total is right, but the mix was made with the same weights and must shrink with it.",
                edit=("shrink1 * mix1 + shrink2 * mix2", "mix1 + mix2")),
        Mistake("only the mix is shrunk", "The mix is right, but the total was made with the same weights and must shrink with it.",
                edit=("shrink1 * total1 + shrink2 * total2", "total1 + total2")),
        Mistake("the second half is not shrunk", "You shrink the first half only. The second one may have met the smaller scores.",
                edit=("(top2 - top).exp()", "torch.ones_like(top2)")),
        Mistake("the first half is not shrunk", "You shrink the second half only. The first one may have met the smaller scores.",
                edit=("(top1 - top).exp()", "torch.ones_like(top1)")),
        Mistake("grown in place of shrunk", "Your exponent has the wrong sign: a half must shrink by exp(its top - the common top), which is at most 1.",
                edit=(("(top1 - top)", "(top - top1)"), ("(top2 - top)", "(top - top2)"))),
        Mistake("halves exchanged", "Each half is shrunk by the factor of the other.",
                edit=(("(top1 - top)", "(top2 - top)"), ("(top2 - top).exp()\n", "(top1 - top).exp()\n"))),
        Mistake("the smaller of the two tops", "You took the smaller top. Exponentials of the other half then overflow; the larger one is the reference.",
                edit=("torch.maximum", "torch.minimum")),
        Mistake("the mix is divided", "You divided the mix by the total. More pieces may come: divide once, when all are joined.",
                edit=("return top, total, mix", "return top, total, mix / total")),
    ),
)  # fmt: skip


def _probe_sink_mask(answer):
    for n_queries, n_keys, window, sinks in (
        (6, 6, 2, 1), (5, 5, 3, 0), (3, 9, 4, 2), (1, 8, 2, 3), (7, 7, 1, 2), (4, 4, 9, 0), (2, 3, 2, 9),
    ):  # fmt: skip
        case = f"{n_queries} of {n_keys} tokens, window {window}, {sinks} sinks"
        yield case, answer(n_queries, n_keys, window, sinks)


SINK_MASK = Exercise(
    "sink_mask", _probe_sink_mask,
    hints=(
        "Write down the position of each key, and that of each query among all tokens. The first query is token n_keys - n_queries.",
        "The distance is query - key. A window of 1 sees distance 0 only.",
        "Past and (near or sink): `(keys <= queries) & ((queries - keys < window) | (keys < sinks))`.",
    ),
    explanation="The brackets matter: a sink is seen by later tokens only, so the mask of the past holds for sinks as well.",
    look=WINDOWS,
    mistakes=(
        Mistake("the window is one too long", "Your window holds one token too many: with the token itself it has `window` tokens, so the distance is at most window - 1.",
                edit=("< window", "<= window")),
        Mistake("the window is one too short", "Your window holds one token too few: the token itself is one of them, so distances up to window - 1 count.",
                edit=("< window", "< window - 1")),
        Mistake("sinks of the future", "A token sees sinks that come after it. The past holds for sinks, too.",
                edit=("(keys <= queries) & (near | (keys < sinks))", "((keys <= queries) & near) | (keys < sinks)")),
        Mistake("no sinks", "The sinks are hidden as soon as the window has passed them.",
                edit=("(near | (keys < sinks))", "near"), look=SINKS),
        Mistake("one sink too many", "You show one sink too many: keys 0 to sinks - 1 are sinks.",
                edit=("keys < sinks", "keys <= sinks"), look=SINKS),
        Mistake("the future is seen", "Tokens see what comes after them: distances below 0 are below the window as well.",
                edit=("(keys <= queries) & (near | (keys < sinks))", "near | (keys < sinks)")),
        Mistake("a token cannot see itself", "A query must see its own key: keys <= queries.",
                edit=("keys <= queries", "keys < queries")),
        Mistake("aligned at the upper left", "Your queries are the first tokens. They are the last: the first of them is token n_keys - n_queries.",
                edit=("keys[n_keys - n_queries :, None]", "keys[:n_queries, None]")),
        Mistake("sinks inside the window only", "Your sinks must also be near. Near or sink is enough.",
                edit=("near | (keys", "near & (keys"), look=SINKS),
        Mistake("True where it is forbidden", "Your mask has the opposite sense: here True means that a query may see a key.",
                edit=("return (keys <= queries) & (near | (keys < sinks))", "return ~((keys <= queries) & (near | (keys < sinks)))")),
    ),
)  # fmt: skip


def _probe_queues(answer):
    cases = (
        ([[2], [0], [2], [1], [0], [2]], 3, 9),
        ([[0, 2], [2, 1], [2, 0], [1, 2]], 4, 2),
        ([[1, 0], [0, 1], [0, 1]], 2, 2),
        ([[3, 1, 0]], 5, 1),
        ([[0], [0], [0], [1]], 2, 1),
    )
    for chosen, n_expert, capacity in cases:
        found = answer(torch.tensor(chosen), n_expert, capacity)
        yield f"{chosen}, {n_expert} experts, capacity {capacity}", Exactly(found)


QUEUES = Exercise(
    "queues", _probe_queues,
    hints=(
        "Make an empty list for each expert, and go through the tokens in order.",
        "Each of a token's choices puts the token's number into the list of that expert, as long as there is room.",
        "`if len(lists[expert]) < capacity: lists[expert].append(token)`.",
    ),
    explanation="Who comes first is served, so no later token changes what an earlier one gets. With thousands of tokens the same queue is made by one stable sort.",
    look=EXPERTS,
    mistakes=(
        Mistake("no capacity", "Your experts take everyone. Each takes at most `capacity` tokens.",
                edit=("if len(lists[expert]) < capacity:", "if True:"), look=FULL),
        Mistake("one token too many", "Your experts take one token more than their capacity.",
                edit=("< capacity", "<= capacity"), look=FULL),
        Mistake("the last tokens", "A full expert keeps the tokens that came first, not the last ones: otherwise later tokens push earlier ones out.",
                edit=(("if len(lists[expert]) < capacity:", "if True:"), ("return lists", "return [own[-capacity:] for own in lists]")), look=FULL),
        Mistake("first choices only", "Only the first choice of each token has got a place. Each token has K experts.",
                edit=("in experts:", "in experts[:1]:")),
        Mistake("all first choices before the second", "You served all first choices before any second one. Then a later token's first choice takes the place of an earlier token's second: serve token by token.",
                edit=(("for token, experts in enumerate(chosen.tolist()):", "for experts in chosen.T.tolist():"),
                      ("for expert in experts:", "for token, expert in enumerate(experts):")), look=FULL),
        Mistake("places in the flattened list", "Your numbers count choices, not tokens: with K choices each, token t has the places K·t to K·t + K - 1.",
                edit=(("enumerate(chosen.tolist())", "enumerate(chosen.flatten().tolist())"), ("in experts:", "in [experts]:"))),
        Mistake("unused experts are missing", "An expert that nobody wants has an empty list: there must be n_expert of them.",
                edit=("return lists", "return [own for own in lists if own]")),
        Mistake("tokens and experts exchanged", "You listed experts for each token. The task asks for the tokens of each expert.",
                edit=("return lists", "return chosen.tolist()")),
    ),
)  # fmt: skip


def _probe_mixed(answer):
    draw = normal(19)
    for N, E, C, top_k in ((5, 4, 3, 2), (7, 3, 2, 1), (2, 6, 4, 3), (1, 4, 3, 2)):
        yield f"{N} tokens, {top_k} of {E} experts", answer(2 * draw(N, E), draw(E, N, C), top_k)


_SHARES = "scores.softmax(dim=-1)"

MIXED = Exercise(
    "mixed", _probe_mixed,
    hints=(
        "Change the scores of the last token. Whose result changes?",
        "Which numbers does `softmax(dim=0)` compare with one another?",
        "A token chooses among experts, which are the last axis of scores.",
    ),
    explanation="A softmax over the tokens lets tokens compete for an expert. There are models that route so, but a token then needs to know the later ones, and a language model must not.",
    look=EXPERTS,
    mistakes=(
        Mistake("tokens compete for experts", "The probabilities still add up to 1 over the tokens, so each token's result depends on the others. A token chooses among experts.",
                of="given"),
        Mistake("the scores as they are", "Scores are no probabilities: they may be negative, and then the shares are, too.",
                edit=(_SHARES, "scores")),
        Mistake("shares that do not add up to 1", "Your shares are the bare probabilities. Divide them by their sum, so that the best experts' shares add up to 1.",
                edit=("    shares = shares / shares.sum(dim=-1, keepdim=True)\n", "")),
        Mistake("a sigmoid for each expert", "You look at each expert by itself. Softmax compares the experts of a token with one another.",
                edit=(_SHARES, "scores.sigmoid()")),
        Mistake("the sign turned", "Your tokens get their worst experts: the larger score is the better one.",
                edit=(_SHARES, "(-scores).softmax(dim=-1)")),
        Mistake("softmax twice", "A second softmax makes the shares too even.",
                edit=(_SHARES, "scores.softmax(dim=-1).softmax(dim=-1)")),
    ),
)  # fmt: skip
