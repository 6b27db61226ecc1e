"""Chapter 11: two filters, a stop, a beam step, padding on the left, and a cached loop with a bug."""

import torch

from courseware.exercises import Exercise, Mistake, normal

CHOOSE = 'chapter 11, "Three ways to cut"'
FORGET = 'chapter 11, "Break it: forget where you are"'


def _probe_penalty(answer):
    logits = [3.0, -1.0, 0.5, -2.5, 4.0, -0.25, 0.0]
    yield "positive and negative logits", answer(list(logits), [0, 1], 2.0)
    yield "an id that comes three times", answer(list(logits), [4, 3, 4, 3, 3, 4, 2], 1.5)
    yield "a penalty of 1", answer(list(logits), [0, 3], 1.0)
    yield "nothing so far", answer(list(logits), [], 2.0)
    yield "a penalty below 1", answer(list(logits), [0, 1, 6], 0.5)

    more = [1.5, -2.0, 7.25, -4.0, 5.0, -6.5, 0.75, 8.0, -9.0, 10.5, 0.25]
    yield "eleven logits, thirty ids so far", answer(list(more), [10, 9, 8, *[1, 2, 3] * 9], 1.25)


PENALISE = Exercise(
    "penalise", _probe_penalty,
    hints=(
        "An id should become less likely. What happens to -1 when you divide it by 2?",
        "Divide positive logits by the penalty, and multiply negative ones by it.",
        "An id that comes several times is penalised once: go through set(previous).",
    ),
    explanation="Both cases move the logit down. A penalty below 1 does the opposite, and invites repetition.",
    look=CHOOSE,
    mistakes=(
        Mistake("divided whatever the sign", "You divide negative logits too. That moves them up, towards 0: the id becomes more likely.",
                edit=("logits[i] > 0", "True")),
        Mistake("the signs exchanged", "You multiply positive logits and divide negative ones: that rewards repetition.",
                edit=("> 0", "< 0")),
        Mistake("once for each time", "An id that comes three times got the penalty three times. It counts once, however often it came.",
                edit=(("result = list(logits)", "logits = result = list(logits)"), ("set(previous)", "previous"))),
        Mistake("every id penalised", "You changed all logits. Only ids that are in `previous` get the penalty.",
                edit=("set(previous)", "range(len(logits))")),
        Mistake("only the last id", "Only the last id got the penalty. All ids in `previous` count.",
                edit=("set(previous)", "previous[-1:]")),
        Mistake("subtracted", "You subtracted the penalty. This one divides and multiplies, so that a penalty of 1 changes nothing.",
                edit=("logits[i] / penalty if logits[i] > 0 else logits[i] * penalty", "logits[i] - penalty")),
    ),
)  # fmt: skip


def _probe_top_p(answer):
    rows = torch.tensor([[2.0, 8.0, 1.0, 4.0, 1.0], [4.0, 1.0, 8.0, 1.0, 2.0]]) / 16
    for p in (0.7, 0.75, 0.3, 0.8, 1.0):  # equal numbers are always both kept or both dropped
        yield f"p = {p}", answer(rows.clone(), p)

    left = torch.as_tensor(answer(rows.clone(), 0.9))
    yield "p = 0.9, one of two equals is kept: the rows, sorted", left.sort(dim=-1).values
    yield "one row", answer(rows[:1].clone(), 0.8)

    many = (2 * normal(5)(2, 60)).softmax(dim=-1)
    for p in (0.95, 0.05):
        yield f"60 ids, p = {p}", answer(many.clone(), p)


TOP_P = Exercise(
    "keep_top_p", _probe_top_p,
    hints=(
        "Sort each row downwards and take the running sum. A token stays if what came before it is still less than p.",
        "The sum before a token is cumsum minus the token itself.",
        "torch.zeros_like(probabilities).scatter(1, ids, kept) puts sorted values back where they came from. Divide by the sum at the end.",
    ),
    explanation="Asking what came before a token, and not what the sum is with it, keeps the token that crosses p, and always at least one.",
    look=CHOOSE,
    mistakes=(
        Mistake("the crossing token dropped", "You keep tokens while the sum with them is below p. The token that reaches or crosses p stays too.",
                edit=("- ordered", ""),
                also=((("- ordered", ""), ("(before < p)", "((before < p) | (before == before[:, :1]))")),
                      (("- ordered", ""), ("kept / kept.sum(dim=-1, keepdim=True)", "(kept / kept.sum(dim=-1, keepdim=True)).nan_to_num()")))),
        Mistake("the sum must not pass p", "You keep tokens while the sum with them is at most p, so together they hold less than p. The crossing token stays.",
                edit=(("- ordered", ""), ("before < p", "before <= p")),
                also=((("- ordered", ""), ("(before < p)", "((before <= p) | (before == before[:, :1]))")),
                      (("- ordered", ""), ("before < p", "before <= p"), ("kept / kept.sum(dim=-1, keepdim=True)", "(kept / kept.sum(dim=-1, keepdim=True)).nan_to_num()")))),
        Mistake("one too many at the border", "Where the sum is exactly p, the tokens so far are enough. You kept one more: a token stays if the sum before it is below p.",
                edit=("before < p", "before <= p")),
        Mistake("each token compared with p", "You compare each probability with p. What counts is the sum of the best ones.",
                edit=("before < p", "ordered >= p")),
        Mistake("not put back", "Your rows come out sorted. Each probability belongs to its id: put it back with scatter.",
                edit=("torch.zeros_like(probabilities).scatter(1, ids,", "(")),
        Mistake("gathered in place of scattered", "You used gather with the places of the sort, which sorts once more. To undo a sort, scatter: the value at i goes to ids[i].",
                edit=(("torch.zeros_like(probabilities).scatter(1, ids,", "("), (") return kept", ").gather(1, ids)\nreturn kept"))),
        Mistake("not normalised", "What is left does not add up to 1. Divide each row by its sum.",
                edit=("/ kept.sum(dim=-1, keepdim=True)", "")),
        Mistake("a softmax of probabilities", "You normalised with a softmax. It takes logits, and gives each dropped token a part again, since exp(0) is 1. Divide by the sum.",
                edit=("kept / kept.sum(dim=-1, keepdim=True)", "kept.softmax(dim=-1)")),
    ),
)  # fmt: skip

FOUND = "text.find(stop) for stop in stops if stop in text"


def _probe_stop(answer):
    tokens = ["To ", "be", ",", " or", " not", " to ", "be", "."]
    yield "a stop over two tokens", answer(list(tokens), ["r no"])
    yield "a stop inside a token", answer(list(tokens), ["r"])
    yield "the earliest stop listed last", answer(list(tokens), ["or", "to", " not", "be,"])
    yield "a stop that comes twice", answer(list(tokens), ["be"])
    for stops in (["e,", "be, or"], ["be, or", "e,"], ["be, o", "or"]):
        yield f"overlapping stops, {stops}", answer(list(tokens), stops)
    yield "a stop at the very beginning", answer(list(tokens), ["To"])
    yield "a full stop", answer(list(tokens), ["."])
    yield "no stop in the text", answer(list(tokens), ["xyz", "To be or"])
    yield "one of two stops in the text", answer(list(tokens), ["xyz", "not"])
    yield "no stops", answer(list(tokens), [])
    yield "no tokens", answer([], ["be"])


STOP = Exercise(
    "cut_at_stop", _probe_stop,
    hints=(
        "A stop text may begin in one token and end in another. Where do you have to look for it?",
        "Join the tokens first. text.find(stop) says where a stop begins, or -1 if it does not occur.",
        "Of all stops that occur in the whole text, the smallest place wins; the text before it is the result.",
    ),
    explanation="A user who asks to stop at a text means the text, however it is cut into tokens. "
    "A stream cannot wait for the whole of it, so it may cut at another stop that is complete earlier.",
    look='chapter 11, "When is a piece of text certain?"',
    mistakes=(
        Mistake("compared with whole tokens", "You compare the stops with whole tokens. A stop may be a part of a token, or spread over several.",
                edit=(FOUND, 'len("".join(tokens[:i])) for i, token in enumerate(tokens) if token in stops')),
        Mistake("looked for inside single tokens", "You look into each token alone. A stop that begins in one token and ends in the next is missed.",
                edit=(FOUND, 'len("".join(tokens[:i])) for i, t in enumerate(tokens) if any(stop in t for stop in stops)'),
                also=((FOUND, 'len("".join(tokens[:i])) + t.find(stop) for i, t in enumerate(tokens) for stop in stops if stop in t'),)),
        Mistake("cut at the last token's border", "You cut before the token that completes the stop, so pieces of the stop, or too few letters, are left.",
                edit=(FOUND, 'len("".join(tokens[:i])) for stop in stops for i in range(len(tokens)) if stop in "".join(tokens[: i + 1])')),
        Mistake("joined with blanks", 'You joined the tokens with blanks between them. They have their own: "".join(tokens).',
                edit=('"".join', '" ".join')),
        Mistake("the stop is kept", "The stop itself is still at the end of your text. It is not part of the result.",
                edit=(("text.find(stop)", "(text.find(stop), len(stop))"), ("min(found)", "sum(min(found))")),
                also=(("text.find(stop)", "text.find(stop) + len(stop)"),)),
        Mistake("the first in the list", "You take the first stop of the list that occurs. The one that begins earliest in the text counts.",
                edit=("min(found)", "found[0]")),
        Mistake("only the first stop looked for", "You look for the first stop of the list only. Any of them may end the text.",
                edit=("for stop in stops", "for stop in stops[:1]")),
        Mistake("one stop after another", "You cut at one stop and look for the next in what is left. The cut may have taken away the end of a stop that begins earlier: look for all of them in the whole text.",
                edit=("found = [text.find(stop) for stop in stops if stop in text]", "found = []\nfor stop in stops:\n    text = text.split(stop)[0]")),
        Mistake("the stop completed first", "Where two stops overlap you cut at the one that is complete first, as a stream would. Here the whole text is known: the one that begins first counts.",
                edit=(("text.find(stop)", "(text.find(stop) + len(stop), text.find(stop))"), ("min(found)", "min(found)[1]"))),
        Mistake("a stop at place 0 is missed", "A stop at the very beginning was not found. text.find gives 0 for it, and -1 only if there is none.",
                edit=("stop in text", "text.find(stop) > 0")),
        Mistake("a missing stop found at -1", "For a stop that does not occur text.find gives -1, the smallest of all places, and text[:-1] loses a letter. Leave those stops out.",
                edit=("if stop in text", "")),
        Mistake("blanks cut off", "You cut blanks off the end of the text. Keep everything that stands before the stop.",
                edit=("text[: min(found)] if found else text", "(text[: min(found)] if found else text).rstrip()")),
    ),
)  # fmt: skip


def _probe_pad(answer):
    yield "two prompts", answer([[5, 6, 7, 8], [3, 4]], 0)
    yield "three prompts, the pad among their ids", answer([[2], [0, 1, 0], [4, 0]], 0)
    yield "another pad, the longest prompt last", answer([[5], [6, 7, 8]], 9)
    yield "a large vocabulary", answer([[300, 70000], [1]], 65536)


PAD = Exercise(
    "pad_left", _probe_pad,
    hints=(
        "How many pads does each row need in front? Everything follows from that number.",
        "The mask is True where a place is at least that number; the pad's id may also be an ordinary id, so do not look at ids.",
        "A position is the place minus the number of pads, and 0 for the pads themselves: max(0, place - pads).",
    ),
    explanation="Whatever stands in front, a row's first real token has position 0, as if the row were alone.",
    look='chapter 11, "Several prompts at once"',
    mistakes=(
        Mistake("padded on the right", "Your padding is on the right. There the next token would come after the padding, in another column for each row.",
                edit=(("[pad] * space + list(prompt)", "list(prompt) + [pad] * space"),
                      ("place >= space", "place < longest - space"),
                      ("max(0, place - space)", "place * (place < longest - space)"))),
        Mistake("mask the wrong way round", "Your mask is True for the padding. Here True marks a token that may be seen.",
                edit=(">= space", "< space")),
        Mistake("hidden by its id", "You hide every id that equals the pad. It may be an ordinary id of a prompt too, and then you hide real text: ask for the place, not for the id.",
                edit=("place >= space for place in range(longest)] for space in spaces", "i != pad for i in row] for row in ids"),
                also=((("place >= space for place in range(longest)] for space in spaces", "i != pad for i in row] for row in ids"),
                       ("max(0, place - space) for place in range(longest)] for space in spaces",
                        "max(0, sum(i != pad for i in row[: place + 1]) - 1) for place in range(longest)] for row in ids")),)),
        Mistake("a mask of 0 and 1", "Your mask holds the numbers 0 and 1. The task asks for True and False: on whole numbers `~mask` gives -1 and -2.",
                edit=("torch.tensor(mask)", "torch.tensor(mask).long()"), also=(("torch.tensor(mask)", "torch.tensor(mask).float()"),)),
        Mistake("positions are columns", "Your positions count the columns, so a short prompt begins at a later position than it would alone.",
                edit=("max(0, place - space)", "place")),
        Mistake("negative positions", "Your padding has negative positions, and no table has such a row. Give it 0: it is hidden anyway.",
                edit=("max(0, place", "(place"), also=(("max(0,", "max(-1,"),)),
        Mistake("padding at position 1", "Your padding has position 1, as in some libraries. Here it has 0.",
                edit=("max(0, place - space)", "place - space if place >= space else 1")),
        Mistake("always padded with 0", "Your padding is 0 whatever `pad` is.",
                edit=("[pad]", "[0]")),
    ),
)  # fmt: skip


def _probe_beam(answer):
    scores = torch.tensor([0.5, 0.4]).log()
    table = torch.tensor([[0.3, 0.2, 0.4, 0.1], [0.04, 0.02, 0.9, 0.04]]).log()
    yield "the chapter's example", answer(scores.clone(), table.clone())

    draw = normal(2)
    for V, scores in (
        (3, [-1.0, -2.0, -0.5]),
        (6, [-200.0, -201.0]),
        (50, [-21.0, -22.0, -1.0, -20.0]),
    ):
        table = draw(len(scores), V).log_softmax(-1)
        yield f"{V} ids, beams of {scores}", answer(torch.tensor(scores), table)


BEAM = Exercise(
    "beam_step", _probe_beam,
    hints=(
        "Logarithms of probabilities add: the new text's score is its beam's score plus the log probability of the new id.",
        "All candidates of all beams compete in one list: flatten the (N, V) totals and take the N best.",
        "In the flat list, place i belongs to beam i // V and to the id i % V.",
    ),
    explanation="A beam may have several children or none. That competition is what makes it a search.",
    look='chapter 11, "Search instead of drawing"',
    mistakes=(
        Mistake("each beam keeps its own best", "Each of your beams has exactly one child, sorted or not. All candidates must compete in one list, where a beam may have several, or none.",
                edit=("best, flat = totals.flatten().topk(len(scores))", "best, flat = totals.max(dim=1)\nflat = flat + torch.arange(len(scores)) * log_probs.shape[1]"),
                also=(("best, flat = totals.flatten().topk(len(scores))", "best, flat = totals.max(dim=1)\nbest, beams = best.sort(descending=True)\nflat = flat[beams] + beams * log_probs.shape[1]"),)),
        Mistake("the score so far is forgotten", "You ranked the new ids alone. The score of the text so far counts as well: add it.",
                edit=("scores[:, None] +", "")),
        Mistake("scores added to the columns", "You added scores to log_probs as it is, so PyTorch lines the scores up with the ids. Give each row its score: scores[:, None].",
                edit=("scores[:, None] +", "scores +")),
        Mistake("logarithms multiplied", "You multiplied. Probabilities multiply, so their logarithms add.",
                edit=("[:, None] +", "[:, None] *")),
        Mistake("probabilities multiplied", "You went back to probabilities and multiplied them. On paper that is right, but exp(-200) is 0 in float32, and then all candidates look alike. Add the logarithms.",
                edit=("scores[:, None] + log_probs", "(scores[:, None].exp() * log_probs.exp()).log()"),
                also=(("scores[:, None] + log_probs", "scores[:, None].exp() * log_probs.exp()"),)),
        Mistake("divided by the number of beams", "You cut the flat places by the number of beams. A row of the flat list has V places.",
                edit=(("// log_probs.shape[1]", "// len(scores)"), ("% log_probs.shape[1]", "% len(scores)"))),
        Mistake("beam and id exchanged", "You exchanged the beams and the ids: i // V is the beam, i % V the id.",
                edit=(("flat //", "flat %"), ("flat %", "flat //"))),
        Mistake("only the last step's score", "Beams and ids are right, but the scores you return are those of the last id alone. Return the totals.",
                edit=(", best", ", log_probs.flatten()[flat]")),
        Mistake("the worst are kept", "You kept the smallest scores. Logarithms are negative: the best is the largest, nearest to 0.",
                edit=("topk(len(scores))", "topk(len(scores), largest=False)")),
        Mistake("the best comes last", "The right ones are there, but in the wrong order: the best must come first.",
                edit=("return", "best, flat = best.flip(0), flat.flip(0)\nreturn")),
    ),
)  # fmt: skip


def _model(V=7, equals=False):
    """Stand in for a model: the scores depend on every id and its position, and on their order."""

    def forward(ids, positions, cache):
        cache.extend(zip(ids, positions))
        total = [0.0] * V
        for age, (i, position) in enumerate(reversed(cache)):
            for j in range(V):
                total[j] += ((3 * i + 5 * position * (j + 1) + 2 * j) % 11) / (1 + age)
        return [x // 4 if equals else x + 0.001 * j for j, x in enumerate(total)]

    return forward


def _probe_cached(answer):
    for prompt, n in (([3, 1, 4], 6), ([2], 8), ([6, 5, 4, 3, 2, 1], 5), ([1, 1], 1)):
        yield f"a prompt of {len(prompt)}, {n} new", answer(_model(), list(prompt), n)

    forward, given = _model(), ([], [])

    def watched(ids, positions, cache):
        given[0].extend(ids)
        given[1].extend(positions)
        return forward(ids, positions, cache)

    answer(watched, [3, 1, 4], 4)  # in one call or in several, as long as each id comes once
    yield "the ids that the model was given, all calls together", given[0]
    yield "the positions that the model was given, all calls together", given[1]
    yield "eleven ids, 20 new", answer(_model(V=11), [9, 8, 7, 10], 20)
    yield "equal scores", answer(_model(equals=True), [2, 6], 9)
    yield "a prompt of 2, none new", answer(_model(), [1, 2], 0)


CACHED = Exercise(
    "write_cached", _probe_cached,
    hints=(
        "Print the positions that `forward` gets in the first, second and third step. Which should they be?",
        "The cache holds the tokens so far. How many are there when the second step begins?",
        "Keep a number `start`, and use range(start, start + len(new)). After each step it grows by len(new).",
    ),
    explanation="A token's position is the number of tokens before it, wherever they are kept.",
    look='chapter 11, "Keep what you computed"',
    mistakes=(
        Mistake("positions restart", "From the second step on, every new token is said to stand at position 0. Count on from the tokens in the cache.",
                edit=("start, new = start + len(new)", "start, new = 0"), look=FORGET),
        Mistake("one position too late", "After the prompt your positions are one too high. The first new token stands at len(prompt).",
                edit=("start, new = start + len(new)", "start, new = len(prompt) + len(written)")),
        Mistake("one position too early", "Your first new token has the position of the prompt's last one. It comes after it, at len(prompt).",
                edit=("start, new = start + len(new)", "start, new = len(prompt) + len(written) - 2")),
        Mistake("positions stand still", "All your new tokens have the same position. It must grow with every step.",
                edit=("start, new = start + len(new)", "start, new = len(prompt)"), look=FORGET),
        Mistake("the prompt is not counted", "Your positions count the steps. The prompt's tokens come before them and count too.",
                edit=("start, new = start + len(new)", "start, new = len(written)"), look=FORGET),
        Mistake("everything again", "You send the whole text in every step, and the cache still holds it: every token is there twice and more.",
                edit=("start, new = start + len(new), written[-1:]", "new = [*prompt, *written]")),
        Mistake("no cache at all", "The text is right, but you read all of it again in every step. Send only what is new, and keep the cache.",
                edit=(("positions =", "cache = []\npositions ="), ("start, new = start + len(new), written[-1:]", "new = [*prompt, *written]"))),
        Mistake("one call too many", "The text is right, but you send the last id too, and nobody needs the scores after it: that is one call too many.",
                edit=(("range(n)", "range(n + 1)"), ("return written", "return written[:n]"))),
        Mistake("an id for n = 0", "For n = 0 you still write an id. Nothing was asked for: the list must be empty.",
                edit=("range(n)", "range(max(n, 1))")),
        Mistake("the last of equal scores", "Of equal scores you take the highest id. The lowest counts.",
                edit=("range(len(scores))", "reversed(range(len(scores)))")),
        Mistake("the prompt comes back", "You return the prompt as well. Only the new ids were asked for.",
                edit=("return written", "return [*prompt, *written]")),
    ),
)  # fmt: skip
