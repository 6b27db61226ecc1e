"""Warm-up 4: a sampler with temperature, top-k and top-p, judged by the frequencies of what it draws."""

from __future__ import annotations

from functools import partial

import torch

from courseware.exercises.engine import Exercise, WrongAnswer

_LOGITS = torch.tensor([2.0, 3.0, 0.5, 1.0, -1.0, 2.5])
# The frequency of a token then has a standard error of at most 0.0092. The tolerance, 0.035 of the whole and 0.035 of the frequency,
# is five of them, so a right sampler is rejected less than once in a hundred thousand times; the mistakes are further apart.
_DRAWS = 3000
_SETTINGS = (
    ("plain", {}),
    ("temperature 0.5", {"temperature": 0.5}),
    ("temperature 2", {"temperature": 2.0}),
    ("temperature 0", {"temperature": 0.0}),
    ("top_k=2", {"top_k": 2}),
    ("top_p=0.7", {"top_p": 0.7}),
    ("temperature 2 and top_p=0.6", {"temperature": 2.0, "top_p": 0.6}),
)


def sample(logits, temperature=1.0, top_k=None, top_p=None):
    if temperature == 0:
        return int(logits.argmax())
    logits = logits / temperature
    if top_k is not None:
        smallest_kept = logits.topk(min(top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < smallest_kept, float("-inf"))
    probs = torch.softmax(logits, dim=-1)
    if top_p is not None:
        ordered, order = probs.sort(descending=True)
        before = ordered.cumsum(-1) - ordered  # the probability of all that are likelier
        probs[order[before >= top_p]] = 0
    return int(torch.multinomial(probs, 1))


def _probabilities(logits, temperature=1.0, top_k=None, top_p=None, mistake=None):
    """Return the distribution that a sampler with one mistake in it, or none, draws from."""
    raw = logits
    if temperature == 0 and mistake != "zero":
        return _only(int(logits.argmax()), logits)
    if mistake == "multiplied":
        logits = logits * temperature
    elif mistake not in ("ignored", "late") and temperature > 0:
        logits = logits / temperature
    if top_k is not None and mistake != "k ignored":
        k = top_k + (mistake == "k + 1")
        kept = logits.topk(k, largest=mistake != "least likely").indices
        rest = torch.ones_like(logits, dtype=torch.bool)
        rest[kept] = False
        logits = logits.masked_fill(rest, float("-inf"))
    probs = torch.softmax(logits, dim=-1)
    if top_p is not None:
        kept = _nucleus(torch.softmax(raw, -1) if mistake == "order" else probs, top_p, mistake)
        probs = probs * (kept > 0) if mistake == "order" else kept
    if mistake == "late":
        probs = torch.softmax(torch.where(probs > 0, probs, -torch.inf) / temperature, dim=-1)
    if mistake == "greedy":
        return _only(int(probs.argmax()), probs)
    if mistake == "places":
        probs = probs.sort(descending=True).values
    return probs / probs.sum()


def _only(token, like):
    return torch.nn.functional.one_hot(torch.tensor(token), len(like)).float()


def _nucleus(probs, top_p, mistake):
    if mistake == "unsorted":
        keep = probs.cumsum(-1) - probs < top_p
        return probs * keep
    ordered, order = probs.sort(descending=mistake != "ascending")
    total = ordered.cumsum(-1)
    dropped = total > top_p if mistake == "crossing" else total - ordered >= top_p
    dropped[0] = False
    ordered = ordered.masked_fill(dropped, 0.0)
    if mistake == "ranks":
        return ordered
    return torch.zeros_like(probs).scatter(0, order, ordered)


def _sampler(mistake):
    """Return a sampler with one mistake in it; it can also say its probabilities outright."""

    def answer(logits, **setting):
        return int(torch.multinomial(_probabilities(logits, **setting, mistake=mistake), 1))

    answer.probabilities = partial(_probabilities, mistake=mistake)
    return answer


sample.probabilities = _probabilities


def _run_sampler(answer):
    """Yield how often each token is drawn; our own samplers say it exactly, which is quicker and has no noise."""
    exact = getattr(answer, "probabilities", None)
    for name, setting in _SETTINGS:
        draws = 20 if name == "temperature 0" else _DRAWS
        if exact:
            frequencies = exact(_LOGITS.clone(), **setting)
        else:
            counts = [0] * len(_LOGITS)
            for _ in range(draws):
                counts[answer(_LOGITS.clone(), **setting)] += 1
            frequencies = torch.tensor(counts) / draws
        if name == "temperature 0":
            yield "temperature 0 always gives token 1", bool(frequencies[1] == 1)
        else:
            yield f"frequencies, {name}", frequencies


_SAMPLER = "the worked example in the task: divide, cut, softmax, draw"
SAMPLER = Exercise(
    name="sampler",
    chapter=0,
    title="a sampler with temperature, top-k and top-p",
    minutes=30,
    difficulty=3,
    hints=(
        "Four steps in this order: divide the logits by the temperature, cut with top-k, softmax, cut with top-p.",
        "Temperature 0 means: take the most likely token. Treat it first, so that nothing is divided by 0.",
        "Top-k: find the k-th largest logit with topk and set everything below it to -inf.",
        "Top-p: sort the probabilities, largest first. Drop a token if those *before* it already reach top_p.",
        "probs[order[before >= top_p]] = 0 writes back through the sorting order; multinomial needs no rescaling.",
    ),
    run=_run_sampler,
    reference=sample,
    explanation="The token that crosses top_p is kept: otherwise a very sure model would have nothing left to draw.",
    tolerance=0.035,
    seconds=60.0,
    wrong=(
        WrongAnswer(
            "multiplied by the temperature",
            "A low temperature makes your sampler more random. Divide the logits by it.",
            _SAMPLER,
            _sampler("multiplied"),
        ),
        WrongAnswer(
            "temperature is ignored",
            "All temperatures give the same frequencies.",
            _SAMPLER,
            _sampler("ignored"),
        ),
        WrongAnswer(
            "temperature after the softmax",
            "You divided probabilities, not logits, by the temperature. Even temperature 1 then changes them.",
            _SAMPLER,
            _sampler("late"),
        ),
        WrongAnswer(
            "temperature 0 still draws",
            "Temperature 0 should always return the most likely token.",
            "hint 2",
            _sampler("zero"),
        ),
        WrongAnswer(
            "one too many in top-k", "top_k=2 keeps three tokens.", "hint 3", _sampler("k + 1")
        ),
        WrongAnswer(
            "top_k is ignored", "top_k=2 changes nothing.", "hint 3", _sampler("k ignored")
        ),
        WrongAnswer(
            "top-k keeps the least likely",
            "top_k=2 keeps the two least likely tokens.",
            "topk has an argument `largest`; the values must be kept, not removed",
            _sampler("least likely"),
        ),
        WrongAnswer(
            "top-p without sorting",
            "You summed the probabilities in the order of the ids. The nucleus is made of the most likely tokens.",
            "hint 4",
            _sampler("unsorted"),
        ),
        WrongAnswer(
            "top-p before the temperature",
            "You chose the set for top_p before dividing by the temperature, which changes how many tokens it takes.",
            _SAMPLER,
            _sampler("order"),
        ),
        WrongAnswer(
            "top-p begins with the least likely",
            "You sorted upwards, so the set is filled with the least likely tokens first.",
            "hint 4: sort(descending=True)",
            _sampler("ascending"),
        ),
        WrongAnswer(
            "top-p drops the token that crosses the threshold",
            "The set that you keep has less probability than top_p: the token that reaches it belongs to it.",
            "hint 4: compare with the sum *before* each token",
            _sampler("crossing"),
        ),
        WrongAnswer(
            "ranks instead of ids",
            "After sorting for top-p, place 0 is the most likely token, whatever its id. You returned the place.",
            "hint 5: go back through the sorting order",
            _sampler("ranks"),
        ),
        WrongAnswer(
            "ranks instead of ids, always",
            "You sort in every case and return a place in the sorted order: 0 for the most likely token, whatever its id.",
            "hint 5: order[place] is the id",
            _sampler("places"),
        ),
        WrongAnswer(
            "always the most likely token",
            "It never draws: the same token comes every time.",
            "torch.multinomial draws with given probabilities",
            _sampler("greedy"),
        ),
    ),
)
