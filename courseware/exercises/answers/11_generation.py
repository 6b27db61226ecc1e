"""Exercises of chapter 11: two filters, a stop, a beam step, padding on the left, and a cached loop with a bug."""

from __future__ import annotations

import re

import torch

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- the repetition penalty ---


def penalise(logits, previous, penalty):
    result = list(logits)
    for i in set(previous):
        result[i] = logits[i] / penalty if logits[i] > 0 else logits[i] * penalty
    return result


def _penalty(
    sign=True, each=False, flip=False, everywhere=False, subtract=False, last=False, zero=False
):
    def answer(logits, previous, penalty):
        result = list(logits)
        seen = previous if each else set(previous[-1:] if last else previous)
        for i in range(len(logits)) if everywhere else seen:
            positive = not sign or result[i] > 0
            if subtract:
                result[i] -= penalty
            elif zero:
                result[i] = 0.0
            elif positive != flip:
                result[i] /= penalty
            else:
                result[i] *= penalty
        return result

    return answer


def _run_penalty(answer):
    logits = [3.0, -1.0, 0.5, -2.5, 4.0, -0.25, 0.0]
    yield "positive and negative logits", answer(list(logits), [0, 1], 2.0)
    yield "an id that comes three times", answer(list(logits), [4, 3, 4, 3, 3, 4, 2], 1.5)
    yield "a penalty of 1", answer(list(logits), [0, 3], 1.0)
    yield "nothing so far", answer(list(logits), [], 2.0)
    yield "a penalty below 1", answer(list(logits), [0, 1, 6], 0.5)
    more = [1.5, -2.0, 7.25, -4.0, 5.0, -6.5, 0.75, 8.0, -9.0, 10.5, 0.25]
    yield "eleven logits, thirty ids so far", answer(list(more), [10, 9, 8, *[1, 2, 3] * 9], 1.25)


PENALISE = Exercise(
    name="penalise",
    chapter=11,
    title="Say it only once",
    minutes=10,
    difficulty=1,
    hints=(
        "An id should become less likely. What happens to -1 when you divide it by 2?",
        "Positive logits are divided by the penalty, negative ones multiplied with it.",
        "An id that comes several times is penalised once: go through set(previous).",
    ),
    run=_run_penalty,
    reference=penalise,
    explanation="Both cases move the logit down. A penalty below 1 does the contrary, and invites repetition.",
    wrong=(
        WrongAnswer(
            "divided whatever the sign",
            "You divide negative logits too. That moves them up, towards 0: the id becomes more likely.",
            'chapter 11, "Choose by hand"',
            _penalty(sign=False),
        ),
        WrongAnswer(
            "the signs exchanged",
            "You multiply positive logits and divide negative ones: that rewards repetition.",
            'chapter 11, "Choose by hand"',
            _penalty(flip=True),
        ),
        WrongAnswer(
            "once for each time",
            "An id that comes three times got the penalty three times. It counts once, however often it came.",
            'chapter 11, "Choose by hand"',
            _penalty(each=True),
        ),
        WrongAnswer(
            "every id penalised",
            "You changed all logits. Only ids that are in `previous` get the penalty.",
            'chapter 11, "Choose by hand"',
            _penalty(everywhere=True),
        ),
        WrongAnswer(
            "subtracted",
            "You subtracted the penalty. This one divides and multiplies, so that 1 changes nothing.",
            'chapter 11, "Choose by hand"',
            _penalty(subtract=True),
        ),
        WrongAnswer(
            "only the last id",
            "Only the last id got the penalty. All ids in `previous` count.",
            'chapter 11, "Choose by hand"',
            _penalty(last=True),
        ),
        WrongAnswer(
            "set to 0",
            "You set the logits to 0. That is no low score: a negative logit even rises. Divide, or multiply.",
            'chapter 11, "Choose by hand"',
            _penalty(zero=True),
        ),
    ),
)

# --- top-p ---


def keep_top_p(probabilities, p):
    ordered, ids = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    kept = torch.zeros_like(probabilities).scatter(1, ids, ordered * (before < p))
    return kept / kept.sum(dim=-1, keepdim=True)


def _top_p(rule="before", back=True, normalise=True, descending=True, one_order=False):
    def answer(probabilities, p):
        ordered, ids = probabilities.sort(dim=-1, descending=descending)
        if one_order:
            ids = ids[:1].expand_as(ids)
            ordered = probabilities.gather(1, ids)
        total = ordered.cumsum(dim=-1)
        keep = {
            "before": total - ordered < p,
            "dropped": total < p,
            "at most": total <= p,
            "one more": torch.cat([torch.ones_like(total[:, :1]) > 0, (total <= p)[:, :-1]], 1),
            "each": ordered >= p,
            "share": ordered >= p * ordered.amax(dim=-1, keepdim=True),
        }[rule]
        kept = ordered * keep
        if back:
            kept = torch.zeros_like(probabilities).scatter(1, ids, kept)
        return kept / kept.sum(dim=-1, keepdim=True) if normalise else kept

    return answer


def _run_top_p(answer):
    rows = torch.tensor([[2.0, 8.0, 1.0, 4.0, 1.0], [4.0, 1.0, 8.0, 1.0, 2.0]]) / 16
    for p in (0.7, 0.75, 0.3, 0.8, 1.0):  # equal numbers are always both kept or both dropped
        yield f"p = {p}", answer(rows.clone(), p)
    left = torch.as_tensor(answer(rows.clone(), 0.9))
    yield "p = 0.9, one of two equals is kept: the rows, sorted", left.sort(dim=-1).values
    yield "one row", answer(rows[:1].clone(), 0.8)
    generator = torch.Generator().manual_seed(5)
    yield "random", answer((2 * torch.randn(3, 9, generator=generator)).softmax(dim=-1), 0.8)
    many = (2 * torch.randn(2, 60, generator=generator)).softmax(dim=-1)
    for p in (0.95, 0.05):
        yield f"60 ids, p = {p}", answer(many.clone(), p)


TOP_P = Exercise(
    name="keep_top_p",
    chapter=11,
    title="Top-p",
    minutes=20,
    difficulty=2,
    hints=(
        "Sort each row downwards and take the running sum. A token stays if what came before it is still less than p.",
        "The sum before a token is cumsum minus the token itself.",
        "torch.zeros_like(probabilities).scatter(1, ids, kept) puts sorted values back where they came from. Divide by the sum at the end.",
    ),
    run=_run_top_p,
    reference=keep_top_p,
    explanation="Asking what came before a token, and not what the sum is with it, keeps the token that crosses p, and always at least one.",
    wrong=(
        WrongAnswer(
            "the crossing token dropped",
            "You keep tokens while the sum with them is below p. The token that reaches or crosses p stays too.",
            'chapter 11, "Choose by hand"',
            _top_p("dropped"),
        ),
        WrongAnswer(
            "the sum must not pass p",
            "You keep tokens while the sum with them is at most p, so together they hold less than p. The crossing token stays.",
            'chapter 11, "Choose by hand"',
            _top_p("at most"),
        ),
        WrongAnswer(
            "one too many at the border",
            "Where the sum is exactly p, the tokens before are enough. You kept one more.",
            "hint 1",
            _top_p("one more"),
        ),
        WrongAnswer(
            "each token compared with p",
            "You compare each probability with p. What counts is the sum of the best ones.",
            'chapter 11, "Choose by hand"',
            _top_p("each"),
        ),
        WrongAnswer(
            "min-p instead",
            "You keep what has at least the share p of the best one: that is min-p.",
            'chapter 11, "Choose by hand"',
            _top_p("share"),
        ),
        WrongAnswer(
            "not put back",
            "Your rows come out sorted. Each probability belongs to its id: put it back with scatter.",
            "hint 3",
            _top_p(back=False),
        ),
        WrongAnswer(
            "not normalised",
            "What is left does not add up to 1. Divide each row by its sum.",
            'chapter 11, "Choose by hand"',
            _top_p(normalise=False),
        ),
        WrongAnswer(
            "the least likely kept",
            "You sorted upwards and kept the least likely tokens.",
            'chapter 11, "Choose by hand"',
            _top_p(descending=False),
        ),
        WrongAnswer(
            "one order for all rows",
            "You used the order of the first row for all rows. Each row has its own.",
            "hint 1",
            _top_p(one_order=True),
        ),
    ),
)

# --- stop texts ---


def cut_at_stop(tokens, stops):
    text = "".join(tokens)
    found = [text.find(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else text


def _stop(where="earliest", inside=False, keep=False):
    def answer(tokens, stops):
        text = "".join(tokens)
        if inside:
            hits = [i for i, token in enumerate(tokens) if any(s in token for s in stops)]
            return "".join(tokens[: hits[0]]) if hits else text
        if where == "token":
            hits = [i for i, token in enumerate(tokens) if token in stops]
            return "".join(tokens[: hits[0]]) if hits else text
        places = [
            (text.rfind(s) if where == "last" else text.find(s), s) for s in stops if s in text
        ]
        if not places:
            return text
        place, stop = {"first": places[0], "latest": max(places)}.get(where, min(places))
        return text[: place + len(stop) * keep]

    return answer


def _whole_tokens(tokens, stops):
    """Cut before the token in which a stop text becomes complete."""
    text = ""
    for token in tokens:
        if any(stop in text + token for stop in stops):
            return text
        text += token
    return text


def _completed_first(tokens, stops):
    """Cut at the stop that ends earliest, as someone does who looks at the text while it grows."""
    text = "".join(tokens)
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(found)[1]] if found else text


def _one_after_another(tokens, stops):
    text = "".join(tokens)
    for stop in stops:
        text = text.split(stop)[0]
    return text


def _not_at_0(tokens, stops):
    text = "".join(tokens)
    places = [text.find(stop) for stop in stops if text.find(stop) > 0]
    return text[: min(places)] if places else text


def _pattern(tokens, stops):
    text = "".join(tokens)
    return re.split("|".join(stops), text)[0] if stops else text


def _longest_first(tokens, stops):
    return _stop("first")(tokens, sorted(stops, key=len, reverse=True))


def _run_stop(answer):
    tokens = ["To ", "be", ",", " or", " not", " to ", "be", "."]
    yield "a stop over two tokens", answer(list(tokens), ["r no"])
    yield "a stop over four tokens", answer(list(tokens), ["e, or n"])
    yield "a stop that is a token", answer(list(tokens), [" not"])
    yield "a stop inside a token", answer(list(tokens), ["r"])
    yield "the earliest stop listed last", answer(list(tokens), ["or", "to", " not", "be,"])
    yield "three stops in one token", answer(["one two three four"], ["four", "three", "two"])
    yield "a stop that comes twice", answer(list(tokens), ["be"])
    for stops in (["e,", "be, or"], ["be, or", "e,"], ["be, o", "or"]):
        yield f"overlapping stops, {stops}", answer(list(tokens), stops)
    yield "a stop at the very beginning", answer(list(tokens), ["To"])
    yield "a full stop", answer(list(tokens), ["."])
    yield "no stop in the text", answer(list(tokens), ["xyz", "To be or"])
    yield "no stops", answer(list(tokens), [])
    yield "no tokens", answer([], ["be"])


STOP = Exercise(
    name="cut_at_stop",
    chapter=11,
    title="Stop here",
    minutes=10,
    difficulty=1,
    hints=(
        "A stop text may begin in one token and end in another. Where do you have to look for it?",
        "Join the tokens first. text.find(stop) says where a stop begins, or -1 if it does not occur.",
        "Of all stops that occur in the whole text, the smallest place wins; the text before it is the result.",
    ),
    run=_run_stop,
    reference=cut_at_stop,
    explanation="Tokens are the model's affair. A user who asks to stop at a text means the text. "
    "A stream cannot wait for the whole of it, so it may cut at another stop that is complete earlier.",
    wrong=(
        WrongAnswer(
            "compared with whole tokens",
            "You compare the stops with whole tokens. A stop may be a part of a token, or spread over several.",
            'chapter 11, "When is a piece of text certain?"',
            _stop("token"),
        ),
        WrongAnswer(
            "looked for inside single tokens",
            "You look into each token alone. A stop that begins in one token and ends in the next is missed.",
            'chapter 11, "When is a piece of text certain?"',
            _stop(inside=True),
        ),
        WrongAnswer(
            "cut at the last token's border",
            "You cut before the token that completes the stop, so pieces of the stop, or too few letters, are left.",
            'chapter 11, "When is a piece of text certain?"',
            _whole_tokens,
        ),
        WrongAnswer(
            "the stop is kept",
            "The stop itself is still at the end of your text. It is not part of the result.",
            'chapter 11, "When is a piece of text certain?"',
            _stop(keep=True),
        ),
        WrongAnswer(
            "the first in the list",
            "You take the first stop of the list that occurs. The one that begins earliest in the text counts.",
            "hint 3",
            _stop("first"),
        ),
        WrongAnswer(
            "the longest stop first",
            "You try the longest stop first. Length does not count: of all that occur, the one that begins earliest does.",
            "hint 3",
            _longest_first,
        ),
        WrongAnswer(
            "one stop after another",
            "You cut at one stop and look for the next in what is left. The cut may have taken away the end of a stop that begins earlier: look for all of them in the whole text.",
            "hint 3",
            _one_after_another,
        ),
        WrongAnswer(
            "the stop completed first",
            "Where two stops overlap you cut at the one that is complete first, as a stream would. Here the whole text is known: the one that begins first counts.",
            "hint 3",
            _completed_first,
        ),
        WrongAnswer(
            "a stop at place 0 is missed",
            "A stop at the very beginning was not found. text.find gives 0 for it, and -1 only if there is none.",
            "hint 2",
            _not_at_0,
        ),
        WrongAnswer(
            "the stops read as patterns",
            "You read the stops as regular expressions, where a dot stands for any character. Use text.find, or re.escape.",
            "hint 2",
            _pattern,
        ),
        WrongAnswer(
            "the latest stop",
            "You cut at the stop that begins latest. The text ends where the first stop begins.",
            "hint 3",
            _stop("latest"),
        ),
        WrongAnswer(
            "the last occurrence",
            "A stop that comes twice was cut at its last place. The writing should have ended at the first.",
            "hint 2",
            _stop("last"),
        ),
    ),
)

# --- padding on the left ---


def pad_left(prompts, pad):
    longest = max(map(len, prompts))
    spaces = [longest - len(prompt) for prompt in prompts]
    ids = [[pad] * space + list(prompt) for space, prompt in zip(spaces, prompts)]
    mask = [[place >= space for place in range(longest)] for space in spaces]
    positions = [[max(0, place - space) for place in range(longest)] for space in spaces]
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(positions)


def _pad(side="left", mask="real", positions="own", cut=False, zero=False):
    def answer(prompts, pad):
        pad = 0 if zero else pad
        size = (min if cut else max)(map(len, prompts))
        ids, seen, places = [], [], []
        for prompt in prompts:
            prompt = list(prompt)[-size:]
            space = size - len(prompt)
            real = [True] * len(prompt)
            filled, shown = [pad] * space, [False] * space
            left = side == "left"
            ids.append(filled + prompt if left else prompt + filled)
            shown = shown + real if left else real + shown
            if mask == "by id":
                shown = [i != pad for i in ids[-1]]
            seen.append(
                [not s for s in shown]
                if mask == "inverted"
                else [True] * size
                if mask == "none"
                else shown
            )
            first = space if left else 0
            places.append(
                {
                    "own": [max(0, j - first) for j in range(size)] if left
                    else [j if j < len(prompt) else 0 for j in range(size)],
                    "columns": list(range(size)),
                    "from 1": [max(0, j - first + 1) for j in range(size)],
                    "negative": [j - first for j in range(size)],
                    "last": [j + size - len(prompt) if j >= first else 0 for j in range(size)],
                }[positions]
            )  # fmt: skip
        return torch.tensor(ids), torch.tensor(seen), torch.tensor(places)

    return answer


def _run_pad(answer):
    yield "two prompts", answer([[5, 6, 7, 8], [3, 4]], 0)
    yield "three prompts, the pad among their ids", answer([[2], [0, 1, 0], [4, 0]], 0)
    yield "equal lengths", answer([[1, 2], [3, 4]], 9)
    yield "one prompt", answer([[8, 0, 8]], 8)
    yield "another pad, the longest prompt last", answer([[5], [6, 7, 8]], 9)
    yield "a large vocabulary", answer([[300, 70000], [1]], 65536)


PAD = Exercise(
    name="pad_left",
    chapter=11,
    title="A rectangle of prompts",
    minutes=15,
    difficulty=2,
    hints=(
        "How many pads does each row need in front? Everything follows from that number.",
        "The mask is True where a place is at least that number; the pad's id may also be an ordinary id, so do not look at ids.",
        "A position is the place minus the number of pads, and 0 for the pads themselves: max(0, place - pads).",
    ),
    run=_run_pad,
    reference=pad_left,
    explanation="Whatever stands in front, a row's first real token has position 0, as if the row were alone.",
    wrong=(
        WrongAnswer(
            "padded on the right",
            "Your padding is on the right. There the next token would come after the padding, in another column for each row.",
            'chapter 11, "One step after another, for many texts"',
            _pad("right"),
        ),
        WrongAnswer(
            "mask the wrong way round",
            "Your mask is True for the padding. Here True means: may be looked at.",
            'chapter 11, "One step after another, for many texts"',
            _pad(mask="inverted"),
        ),
        WrongAnswer(
            "nothing hidden",
            "Your mask hides nothing, so the model reads the padding as text.",
            'chapter 11, "Break it: padding without a mask"',
            _pad(mask="none"),
        ),
        WrongAnswer(
            "hidden by its id",
            "You hide every id that equals the pad. It may be an ordinary id of a prompt too, and then you hide real text.",
            "hint 2",
            _pad(mask="by id"),
        ),
        WrongAnswer(
            "positions are columns",
            "Your positions count the columns, so a short prompt begins at a later position than it would alone.",
            'chapter 11, "One step after another, for many texts"',
            _pad(positions="columns"),
        ),
        WrongAnswer(
            "positions from 1",
            "Your first real token has position 1. Positions count from 0.",
            'chapter 11, "One step after another, for many texts"',
            _pad(positions="from 1"),
        ),
        WrongAnswer(
            "negative positions",
            "Your padding has negative positions, and no table has such a row. Give it 0: it is hidden anyway.",
            "hint 3",
            _pad(positions="negative"),
        ),
        WrongAnswer(
            "always padded with 0",
            "Your padding is 0 whatever `pad` is.",
            'chapter 11, "One step after another, for many texts"',
            _pad(zero=True),
        ),
        WrongAnswer(
            "cut to the shortest",
            "You cut all prompts to the length of the shortest. Nothing may be lost: pad to the longest.",
            'chapter 11, "One step after another, for many texts"',
            _pad(cut=True),
        ),
    ),
)

# --- a step of beam search ---


def beam_step(scores, log_probs):
    totals = scores[:, None] + log_probs
    best, flat = totals.flatten().topk(len(scores))
    return flat // log_probs.shape[1], flat % log_probs.shape[1], best


def _beam(kind):
    def answer(scores, log_probs):
        N, V = log_probs.shape
        totals = scores[:, None] + log_probs
        if kind.startswith("own"):
            best, tokens = totals.max(dim=1)
            order = best.argsort(descending=True) if "sorted" in kind else torch.arange(N)
            return order, tokens[order], best[order]
        if kind == "forgotten":
            totals = log_probs
        if kind == "product":
            totals = scores[:, None] * log_probs
        if kind == "minus":
            totals = log_probs - scores[:, None]
        if kind == "exp":
            totals = scores[:, None].exp() + log_probs.exp()
        if kind == "back":
            totals = (scores[:, None].exp() * log_probs.exp()).log()
        if kind == "mean":
            totals = totals / 2
        best, flat = totals.flatten().topk(N, largest=kind != "worst")
        if kind == "by N":
            return flat // N, flat % N, best
        if kind == "exchanged":
            return flat % V, flat // V, best
        if kind == "gain":
            return flat // V, flat % V, log_probs.flatten()[flat]
        return flat // V, flat % V, best

    return answer


def _run_beam(answer):
    scores = torch.tensor([0.5, 0.4]).log()
    table = torch.tensor([[0.3, 0.2, 0.4, 0.1], [0.04, 0.02, 0.9, 0.04]]).log()
    yield "the chapter's example", answer(scores.clone(), table.clone())
    generator = torch.Generator().manual_seed(2)
    scores = -3 * torch.rand(3, generator=generator)
    table = torch.randn(3, 5, generator=generator).log_softmax(-1)
    yield "three beams, five ids", answer(scores.clone(), table.clone())
    table[1] = torch.tensor([0.9, 0.04, 0.03, 0.02, 0.01]).log()
    scores = torch.tensor([-9.0, -1.0, -9.5])
    yield "one beam has all children", answer(scores.clone(), table.clone())
    yield "one beam", answer(scores[1:2].clone(), table[1:2].clone())
    for N, V, scores in (
        (3, 3, [-1.0, -2.0, -0.5]), (4, 2, [-1.0, -2.0, -0.5, -0.75]),
        (2, 6, [-200.0, -201.0]), (4, 50, [-21.0, -22.0, -1.0, -20.0]),
    ):  # fmt: skip
        table = torch.randn(N, V, generator=generator).log_softmax(-1)
        label = f"{N} beams, {V} ids, scores {scores}"
        yield label, answer(torch.tensor(scores), table.clone())


BEAM = Exercise(
    name="beam_step",
    chapter=11,
    title="One step of a search",
    minutes=20,
    difficulty=3,
    hints=(
        "Logarithms of probabilities add: the new text's score is its beam's score plus the log probability of the new id.",
        "All candidates of all beams compete in one list: flatten the (N, V) totals and take the N best.",
        "In the flat list, place i belongs to beam i // V and to the id i % V.",
    ),
    run=_run_beam,
    reference=beam_step,
    explanation="A beam may have several children or none. That competition is what makes it a search.",
    wrong=(
        WrongAnswer(
            "each beam keeps its own best",
            "Each of your beams has exactly one child. All candidates must compete in one list, where a beam may have several, or none.",
            'chapter 11, "Search instead of drawing"',
            _beam("own"),
        ),
        WrongAnswer(
            "each beam's own best, sorted",
            "Each of your beams still has exactly one child; sorting them does not change that. Sort, or take the best, among all N times V candidates.",
            'chapter 11, "Search instead of drawing"',
            _beam("own sorted"),
        ),
        WrongAnswer(
            "the score so far is forgotten",
            "You ranked the new ids alone. The score of the text so far counts as well: add it.",
            "hint 1",
            _beam("forgotten"),
        ),
        WrongAnswer(
            "logarithms multiplied",
            "You multiplied. Probabilities multiply, so their logarithms add.",
            'chapter 11, "Search instead of drawing"',
            _beam("product"),
        ),
        WrongAnswer(
            "the score subtracted",
            "You subtracted the score so far, so the worst beam came out best.",
            "hint 1",
            _beam("minus"),
        ),
        WrongAnswer(
            "probabilities added",
            "You added probabilities. They multiply; it is their logarithms that add.",
            'chapter 11, "Search instead of drawing"',
            _beam("exp"),
        ),
        WrongAnswer(
            "probabilities multiplied",
            "You went back to probabilities and multiplied them. On paper that is right, but exp(-200) is 0 in float32, and then all candidates look alike. Add the logarithms.",
            "hint 1",
            _beam("back"),
        ),
        WrongAnswer(
            "divided too early",
            "You divided the scores. Only finished texts are divided by their length, at the end.",
            'chapter 11, "Search instead of drawing"',
            _beam("mean"),
        ),
        WrongAnswer(
            "divided by the number of beams",
            "You cut the flat places by the number of beams. A row of the flat list has V places.",
            "hint 3",
            _beam("by N"),
        ),
        WrongAnswer(
            "beam and id exchanged",
            "You exchanged the beams and the ids: i // V is the beam, i % V the id.",
            "hint 3",
            _beam("exchanged"),
        ),
        WrongAnswer(
            "only the last step's score",
            "Beams and ids are right, but the scores you return are those of the last id alone. Return the totals.",
            "hint 1",
            _beam("gain"),
        ),
        WrongAnswer(
            "the worst are kept",
            "You kept the smallest scores. Logarithms are negative: the best is the largest, nearest to 0.",
            'chapter 11, "Search instead of drawing"',
            _beam("worst"),
        ),
    ),
)

# --- find the bug: a cached loop ---


def write_cached(forward, prompt, n):
    cache, new, start, written = [], list(prompt), 0, []
    for _ in range(n):
        positions = range(start, start + len(new))
        scores = forward(new, list(positions), cache)
        written.append(max(range(len(scores)), key=scores.__getitem__))
        start, new = start + len(new), written[-1:]
    return written


def _given_cached(forward, prompt, n):
    """Return the n ids that greedy choice writes after the prompt, a list."""
    cache, new, written = [], list(prompt), []
    for _ in range(n):
        positions = range(len(new))
        scores = forward(new, list(positions), cache)
        written.append(max(range(len(scores)), key=scores.__getitem__))
        new = written[-1:]
    return written


def _cached(
    positions="on", feed="new", cache="one", result="written", choice=max, least=0, extra=0
):
    def answer(forward, prompt, n):
        store, ids, done = [], list(prompt), 0
        n = max(n, least)
        for step in range(n + extra):
            if cache == "fresh":
                store = []
            new = ids if feed == "all" or cache == "fresh" and feed == "again" else ids[done:]
            start = {"on": len(ids) - len(new), "late": len(ids) - len(new) + (step > 0),
                     "early": len(ids) - len(new) - (step > 0), "stuck": len(prompt) * (step > 0),
                     "steps": step, "restart": 0, "whole": 0}[positions]  # fmt: skip
            end = len(ids) if positions == "whole" else start + len(new)
            scores = forward(list(new), list(range(start, end)), store)
            done = len(ids)
            ids.append(choice(range(len(scores)), key=scores.__getitem__))
        return ids if result == "all" else ids[len(prompt) : len(prompt) + n]

    return answer


def _all_written(forward, prompt, n):
    """Send all written ids in every step: `new = written`, which also makes them one list."""
    cache, new, start, written = [], list(prompt), 0, []
    for _ in range(n):
        scores = forward(list(new), list(range(start, start + len(new))), cache)
        written.append(max(range(len(scores)), key=scores.__getitem__))
        start, new = start + len(new), written
    return written


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


def _run_cached(answer):
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
    name="write_cached",
    chapter=11,
    title="find the bug: the forgetful loop",
    minutes=15,
    difficulty=2,
    hints=(
        "Print the positions that `forward` gets in the first, second and third step. Which should they be?",
        "The cache holds the tokens so far. How many are there when the second step begins?",
        "Keep a number `start`, and use range(start, start + len(new)). After each step it grows by len(new).",
    ),
    run=_run_cached,
    reference=write_cached,
    given=_given_cached,
    explanation="A token's position is the number of tokens before it, wherever they are kept.",
    wrong=(
        WrongAnswer(
            "positions restart",
            "From the second step on, every new token is said to stand at position 0. Count on from the tokens in the cache.",
            'chapter 11, "Break it: forget where you are"',
            _cached("restart"),
        ),
        WrongAnswer(
            "one position too late",
            "After the prompt your positions are one too high. The first new token stands at len(prompt).",
            "hint 2",
            _cached("late"),
        ),
        WrongAnswer(
            "one position too early",
            "Your first new token has the position of the prompt's last one. It comes after it.",
            "hint 2",
            _cached("early"),
        ),
        WrongAnswer(
            "positions stand still",
            "All your new tokens have the same position. It must grow with every step.",
            'chapter 11, "Break it: forget where you are"',
            _cached("stuck"),
        ),
        WrongAnswer(
            "the prompt is not counted",
            "Your positions count the steps. The prompt's tokens come before them and count too.",
            'chapter 11, "Break it: forget where you are"',
            _cached("steps"),
        ),
        WrongAnswer(
            "everything again",
            "You send the whole text in every step, and the cache still holds it: every token is there twice and more.",
            'chapter 11, "A memory for keys and values"',
            _cached(feed="all"),
        ),
        WrongAnswer(
            "a new cache in every step",
            "You begin each step with an empty cache and the new token alone: the model forgets the prompt.",
            'chapter 11, "A memory for keys and values"',
            _cached(cache="fresh"),
        ),
        WrongAnswer(
            "no cache at all",
            "The text is right, but you read all of it again in every step. Send only what is new, and keep the cache.",
            'chapter 11, "A memory for keys and values"',
            _cached(cache="fresh", feed="again"),
        ),
        WrongAnswer(
            "all that was written, again",
            "You send all the written ids in every step. The cache holds all of them but the last: send only that, written[-1:].",
            'chapter 11, "A memory for keys and values"',
            _all_written,
        ),
        WrongAnswer(
            "positions of the whole text",
            "You give the positions of the whole text with the new id alone. There must be one position for each id that you send.",
            "hint 3",
            _cached("whole"),
        ),
        WrongAnswer(
            "one call too many",
            "The text is right, but you send the last id too, and nobody needs the scores after it: that is one call too many.",
            'chapter 11, "A memory for keys and values"',
            _cached(extra=1),
        ),
        WrongAnswer(
            "an id for n = 0",
            "For n = 0 you still write an id. Nothing was asked for: the list must be empty.",
            "hint 1",
            _cached(least=1),
        ),
        WrongAnswer(
            "the prompt comes back",
            "You return the prompt as well. Only the new ids were asked for.",
            "hint 1",
            _cached(result="all"),
        ),
        WrongAnswer(
            "the least likely id",
            "You choose the lowest score. Greedy choice takes the highest.",
            'chapter 11, "Search instead of drawing"',
            _cached(choice=min),
        ),
    ),
)

EXERCISES = (PENALISE, TOP_P, STOP, PAD, BEAM, CACHED)
