"""The warm-ups, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import bisect
import itertools
import math
import random

import numpy as np
import pytest
import torch
from tools import judged

from courseware.exercises import find
from courseware.exercises.engine import judge


def loops(scale=lambda size, width: math.sqrt(width), keys=True, allowed=lambda i, j: j <= i):
    """Attention with Python loops, one head at a time."""

    def attention(q, k, v, is_causal=False):
        if q.dim() > 2:
            return torch.stack([attention(a, b, c, is_causal) for a, b, c in zip(q, k, v)])
        size, width = q.shape
        table = np.zeros((size, size))
        for i, j in itertools.product(range(size), range(size)):
            score = float((q[i] * k[j]).sum()) / scale(size, width)
            table[i, j] = -math.inf if is_causal and not allowed(i, j) else score
        with np.errstate(invalid="ignore"):
            weights = np.exp(table)
            weights = weights / weights.sum(axis=1 if keys else 0, keepdims=True)
        return torch.from_numpy(weights).float() @ v

    return attention


def einsum_attention(q, k, v, is_causal=False, erase=False, no_values=False):
    scores = torch.einsum("...id,...jd->...ij", q, k) * q.size(-1) ** -0.5
    hidden = torch.ones(scores.shape[-2:]).triu(1) * is_causal
    scores = scores if erase else scores - 1e9 * hidden
    scores = scores.exp()
    weights = scores / scores.sum(-1, keepdim=True)
    weights = weights * (1 - hidden) if erase else weights
    return weights if no_values else torch.einsum("...ij,...jd->...id", weights, v)


def library_attention(q, k, v, is_causal=False):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


ATTENTION = [
    (loops(), None),
    (einsum_attention, None),
    (library_attention, None),
    (loops(scale=lambda size, width: 1), "the √d is missing"),
    (loops(scale=lambda size, width: width), "divided by d instead of √d"),
    (
        loops(scale=lambda size, width: size**0.5),
        "divided by the square root of the sequence length",
    ),
    (loops(keys=False), "softmax over the queries"),
    (loops(allowed=lambda i, j: j >= i), "the mask hides the past"),
    (
        loops(allowed=lambda i, j: j < i),
        "the mask is off by one: a position cannot see itself",
    ),
    (
        loops(allowed=lambda i, j: j < i + 2),
        "the mask is off by one: a position sees one step ahead",
    ),
    (lambda q, k, v, is_causal=False: library_attention(q, k, v), "is_causal is ignored"),
    (lambda *a, **k: einsum_attention(*a, **k, erase=True), "masked after the softmax"),
    (lambda *a, **k: einsum_attention(*a, **k, no_values=True), "returned the weights"),
    (lambda q, k, v, is_causal=False: library_attention(q, k, v)[..., :-1], "wrong shape"),
    (lambda q, k, v, is_causal=False: library_attention(q, k, v, True), "always causal"),
    (
        loops(scale=lambda size, width: width, allowed=lambda i, j: j >= i),
        "two things at once: divided by d instead of √d, and the mask hides the past",
    ),
    (
        loops(keys=False, allowed=lambda i, j: True),
        "two things at once: softmax over the queries, and is_causal is ignored",
    ),
]


def np_mask(scores, see=lambda i, j: j <= i, fill=-np.inf, axis=1, shown=lambda mask: mask):
    array = scores.numpy().astype(float)
    mask = np.array([[see(i, j) for j in range(4)] for i in range(4)])
    with np.errstate(invalid="ignore"):
        weights = np.exp(np.where(mask, array, fill))
        weights = weights / weights.sum(axis=axis, keepdims=True)
    return shown(mask), weights


def erased(scores):
    rows = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    mask = torch.tensor(rows) == 1
    return mask, torch.where(mask, scores.exp() / scores.exp().sum(1)[:, None], torch.zeros(4, 4))


def in_place(scores):
    mask = torch.ones(4, 4).tril() == 1
    scores[~mask] = -torch.inf
    return mask, torch.softmax(scores, 1)


CAUSAL_MASK = [
    (np_mask, None),
    (lambda s: in_place(s.clone()), None),
    (in_place, "changed its input"),
    (lambda s: np_mask(s, see=lambda i, j: j >= i), "the mask hides the past"),
    (lambda s: np_mask(s, see=lambda i, j: j < i), "the diagonal is missing"),
    (lambda s: np_mask(s, see=lambda i, j: j <= i + 1), "one step too far"),
    (lambda s: np_mask(s, shown=np.logical_not), "True and False swapped"),
    (lambda s: np_mask(s, fill=0.0), "multiplied instead of filled"),
    (lambda s: np_mask(s, axis=0), "softmax over the columns"),
    (lambda s: np_mask(s, shown=lambda m: np.where(m, 0.0, -np.inf)), "an additive mask"),
    (lambda s: np_mask(s, shown=lambda m: m.astype(int)), "wrong dtype"),
    (erased, "masked after the softmax"),
    (
        lambda s: np_mask(s, axis=0, shown=np.logical_not),
        "two things at once: True and False swapped, and softmax over the columns",
    ),
]


def plain_sampler(mistake=None):
    """Draw by looking up a random number in the running sum, with lists only."""

    def sample(logits, temperature=1.0, top_k=None, top_p=None):
        values = logits.tolist()
        if temperature == 0:
            if mistake != "draws at 0":
                return values.index(max(values))
            temperature = 1.0
        if mistake != "no temperature":
            values = [v * temperature if mistake == "times" else v / temperature for v in values]
        order = sorted(range(len(values)), key=lambda i: -values[i])
        if top_k and mistake != "no k":
            order = order[::-1] if mistake == "least" else order
            order = order[: top_k + (mistake == "k + 1")]
        if mistake == "no p":
            top_p = None
        if top_p is not None and mistake in ("by id", "upwards"):
            order = sorted(order) if mistake == "by id" else order[::-1]
        weights = [math.exp(values[i]) for i in order]
        shares = [weight / sum(weights) for weight in weights]
        if top_p is not None:
            sums = list(itertools.accumulate(shares))
            size = bisect.bisect_left(sums, top_p) + (mistake != "short")
            order, shares = order[: max(size, 1)], shares[: max(size, 1)]
        sums = list(itertools.accumulate(shares))
        place = min(bisect.bisect(sums, random.random() * sums[-1]), len(order) - 1)
        return place if mistake == "place" else order[place]

    return sample


def gumbel_sampler(logits, temperature=1.0, top_k=None, top_p=None):
    """Draw by the largest of the log probabilities with Gumbel noise, in NumPy."""
    values = logits.double().numpy()
    if not temperature:
        return int(values.argmax())
    ranked = np.argsort(-values)[: top_k or len(values)]
    scaled = values[ranked] / temperature
    shares = np.exp(scaled - scaled.max())
    shares /= shares.sum()
    if top_p is not None:
        size = int(np.searchsorted(np.cumsum(shares), top_p)) + 1
        ranked, shares = ranked[:size], shares[:size]
    uniform = torch.rand(len(ranked)).numpy()
    return int(ranked[np.argmax(np.log(shares) - np.log(-np.log(uniform)))])


SAMPLER = [
    (plain_sampler(), None),
    (gumbel_sampler, None),
    (plain_sampler("times"), "multiplied by the temperature"),
    (plain_sampler("no temperature"), "temperature is ignored"),
    (plain_sampler("draws at 0"), "temperature 0 still draws"),
    (plain_sampler("k + 1"), "one too many in top-k"),
    (plain_sampler("no k"), "top_k is ignored"),
    (plain_sampler("least"), "top-k keeps the least likely"),
    (plain_sampler("by id"), "top-p without sorting"),
    (plain_sampler("upwards"), "top-p begins with the least likely"),
    (plain_sampler("short"), "top-p drops the token that crosses the threshold"),
    (plain_sampler("place"), "ranks instead of ids, always"),
    (plain_sampler("no p"), "top_p is ignored"),
    (lambda logits, **_: int(logits.argmax()), "always the most likely token"),
    (lambda logits, **_: random.randrange(len(logits)), "wrong value"),
]


def codec_by_lists(text):
    alphabet = sorted(set(text))
    return lambda s: [alphabet.index(c) for c in s], lambda ids: "".join(alphabet[i] for i in ids)


class Codec:
    """Ids by bisection of the sorted alphabet; an unknown character is a KeyError, as in a dict."""

    def __init__(self, text):
        self.letters = sorted(dict.fromkeys(text))

    def encode(self, text):
        ids = [bisect.bisect_left(self.letters, character) for character in text]
        for character, i in zip(text, ids):
            if i == len(self.letters) or self.letters[i] != character:
                raise KeyError(character)
        return ids

    def decode(self, ids):
        return "".join(map(self.letters.__getitem__, ids))


def codec_by_bisection(text):
    codec = Codec(text)
    return codec.encode, codec.decode


def codec_by_find(text, alphabet=sorted):
    letters = "".join(alphabet(set(text)))
    return lambda s: [letters.find(c) for c in s], lambda ids: "".join(letters[i] for i in ids)


def codec_from_one(text):
    table = {c: n for n, c in enumerate(sorted(set(text)), start=1)}
    back = {n: c for c, n in table.items()}
    return lambda s: [table[c] for c in s], lambda ids: [back[i] for i in ids]


def codec_of_a_list(text):
    letters = list(text)
    letters.sort()
    return lambda s: [letters.index(c) for c in s], lambda ids: "".join(letters[i] for i in ids)


def codec_of_a_list_by_dictionary(text):
    back = dict(enumerate(sorted(text)))
    ids_of = {c: i for i, c in back.items()}
    return lambda s: [ids_of[c] for c in s], lambda ids: "".join(map(back.get, ids))


def mlp_of_functions(
    train_ids,
    val_ids,
    vocab_size,
    steps=400,
    shift=1,
    ending=lambda x: x,
    report=lambda x: x,
    zeroed=True,
):
    """Train a model that is a plain function, with batches of positions drawn by Python, and a batched loss."""
    functional = torch.nn.functional
    layers = torch.nn.Linear(vocab_size, 96), torch.nn.Linear(96, vocab_size)

    def model(ids):
        one_hot = functional.one_hot(ids, vocab_size).float()
        return ending(layers[1](torch.tanh(layers[0](one_hot))))

    parameters = [p for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(steps):
        i = torch.tensor(random.sample(range(len(train_ids) - 1), 512))
        if zeroed:
            optimizer.zero_grad()
        functional.cross_entropy(model(train_ids[i]), train_ids[i + shift]).backward()
        optimizer.step()

    pieces = val_ids.unfold(0, 101, 100)
    losses = [functional.cross_entropy(model(a[:-1]), a[shift:][:100]).item() for a in pieces]
    return model, report(sum(losses) / len(losses))


class TwoLayers(torch.nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.table = torch.nn.Embedding(vocab_size, 48)
        self.hidden = torch.nn.Linear(48, 48)
        self.output = torch.nn.Linear(48, vocab_size)

    def forward(self, ids):
        return self.output(torch.nn.functional.gelu(self.hidden(self.table(ids))))


def mlp_by_sgd(train_ids, val_ids, vocab_size):
    """Train with SGD and momentum on runs of neighbours, and measure with the negative log likelihood."""
    model = TwoLayers(vocab_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for _ in range(400):
        starts = torch.randint(0, len(train_ids) - 17, (64, 1))
        run = train_ids[starts + torch.arange(17)]
        scores = model(run[:, :-1]).log_softmax(-1)
        loss = -scores.gather(-1, run[:, 1:, None]).mean()
        model.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        scores = model(val_ids).log_softmax(-1)
    return model, -float(scores[torch.arange(len(val_ids) - 1), val_ids[1:]].mean())


MLP = [
    (mlp_of_functions, None),
    (mlp_by_sgd, None),
    (lambda *a: mlp_of_functions(*a, steps=2), "the model did not learn"),
    (lambda *a: mlp_of_functions(*a, ending=lambda x: x.softmax(-1)), "softmax before the loss"),
    (
        lambda *a: mlp_of_functions(*a, report=lambda loss: loss / 2),
        "another loss than the model's",
    ),
    (lambda *a: mlp_of_functions(*a, report=torch.tensor), "wrong value"),
]

CODEC = [
    (codec_by_lists, None),
    (codec_by_bisection, None),
    (codec_by_find, "the unknown becomes -1"),
    (
        lambda text: codec_by_find(text, alphabet=lambda s: dict.fromkeys(text)),
        "two things at once: in order of appearance, and the unknown becomes -1",
    ),
    (codec_from_one, "two things at once: ids begin at 1, and decode returns a list"),
    (codec_of_a_list, "a character stands more than once"),
    (codec_of_a_list_by_dictionary, "a character stands more than once"),
    (
        lambda text: (lambda s: [*map(ord, s)], lambda ids: "".join(map(chr, ids))),
        "Unicode numbers as ids",
    ),
]

ANSWERS = [
    (name, answer, diagnosis or "")
    for name, cases in (
        ("attention", ATTENTION),
        ("causal_mask", CAUSAL_MASK),
        ("mlp_bigram", MLP),
        ("sampler", SAMPLER),
        ("char_codec", CODEC),
    )
    for answer, diagnosis in cases
]


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)


def test_gradients_that_pile_up_are_among_the_causes_of_a_model_that_did_not_learn():
    verdict = judge(find("mlp_bigram"), lambda *a: mlp_of_functions(*a, zeroed=False))
    assert verdict.diagnosis == "the model did not learn"
    assert "set to zero before each backward()" in verdict.message
