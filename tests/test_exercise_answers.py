"""The other exercises answered rightly in other ways than ours, and two answers that nobody put on record."""

from __future__ import annotations

import importlib
import random
from collections import Counter

import numpy as np
import pytest
import torch

from courseware.exercises import find, registry
from courseware.exercises.engine import judge


def encode_with_a_table(text, alphabet):
    table = {c: i for i, c in enumerate(alphabet)}
    try:
        return list(map(table.__getitem__, text))
    except KeyError as error:
        unknown = error.args[0]
        raise ValueError(f"at {text.index(unknown)}: {unknown}") from error


def merge_by_recursion(ids, pair, new):
    if len(ids) < 2:
        return list(ids)
    if tuple(ids[:2]) == pair:
        return [new, *merge_by_recursion(ids[2:], pair, new)]
    return [ids[0], *merge_by_recursion(ids[1:], pair, new)]


def merge_in_place(ids, pair, new):
    for i in range(len(ids)):
        if tuple(ids[i : i + 2]) == pair:
            ids[i : i + 2] = [new]
    return ids


def encode_by_rank(word, ranks):
    parts = list(word)
    while True:
        found = [
            (ranks[a + b], i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ranks
        ]
        if not found:
            return tuple(parts)
        i = min(found)[1]
        parts = parts[:i] + ["".join(parts[i : i + 2])] + parts[i + 2 :]


def count_with_counter(words):
    return Counter(pair for word, n in words.items() for pair in list(zip(word, word[1:])) * n)


def unfolded(tokens, starts, block_size):
    rows = tokens.unfold(0, block_size + 1, 1)[starts]
    return rows[:, :-1], rows[:, 1:].to(torch.int32)


def bigram_with_lists(ids, vocab_size, alpha):
    table = [[alpha] * vocab_size for _ in range(vocab_size)]
    for i in range(len(ids) - 1):
        table[ids[i]][ids[i + 1]] += 1
    return np.array([[n / sum(row) for n in row] for row in table])


OTHERS = {
    "char_codec": lambda t: (
        lambda s: [sorted(set(t)).index(c) for c in s],
        lambda i: "".join(sorted(set(t))[x] for x in i),
    ),
    "extend_alphabet": lambda a, t: a + "".join(c for c in sorted(set(t)) if a.find(c) < 0),
    "encode_unknown": lambda t, a: [dict(zip(a, range(99))).get(c, len(a)) for c in t],
    "encode_strictly": encode_with_a_table,
    "count_pairs": count_with_counter,
    "best_pair": lambda counts: (
        sorted(counts, key=lambda p: (counts[p], p))[-1] if counts else None
    ),
    "merge_pair": merge_by_recursion,
    "encode_word": encode_by_rank,
    "split": lambda t, f: torch.split(t, [len(t) - int(len(t) * f), int(len(t) * f)]),
    "batch": unfolded,
    "window_starts": lambda n, b, s: [i for i in range(0, n, s) if i + b + 1 <= n],
    "cross_entropy": lambda x, y: (
        x.double().logsumexp(1) - x.double().gather(1, y[:, None])[:, 0]
    ).mean(),
    "units": lambda loss, t, c: [np.exp(loss), np.log2(np.exp(loss)) * t / c],
    "bigram_probs": bigram_with_lists,
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_right_answer_is_right(name):
    verdict = judge(find(name), OTHERS[name])
    assert verdict.kind == "right", verdict.message


def test_every_exercise_was_answered_in_another_way():
    elsewhere = {"attention", "causal_mask", "sampler", "mlp_bigram"}
    for chapter in (
        "attention",
        "positions",
        "norms",
        "feedforward",
        "model",
        "training",
        "generation",
        "evaluation",
        "pretraining",
        "sft",
        "preferences",
        "assistant",
        "scaling",
    ):
        answers = importlib.import_module(f"test_{chapter}").ANSWERS
        elsewhere |= {name for name, _, diagnosis in answers if not diagnosis}
    assert set(registry()) == set(OTHERS) | elsewhere


def test_merging_in_place_changes_the_callers_list():
    assert judge(find("merge_pair"), merge_in_place).diagnosis == "changed its input"


@pytest.mark.parametrize(("steps", "sure"), [(400, True), (2, False)])
def test_a_model_of_another_make_with_a_batched_loss(steps, sure):
    functional = torch.nn.functional

    def answer(train_ids, val_ids, vocab_size):
        layers = torch.nn.Linear(vocab_size, 96), torch.nn.Linear(96, vocab_size)

        def model(ids):
            return layers[1](torch.tanh(layers[0](functional.one_hot(ids, vocab_size).float())))

        parameters = [p for layer in layers for p in layer.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        for _ in range(steps):
            i = torch.tensor(random.sample(range(len(train_ids) - 1), 512))
            optimizer.zero_grad()
            functional.cross_entropy(model(train_ids[i]), train_ids[i + 1]).backward()
            optimizer.step()
        pieces = val_ids.unfold(0, 101, 100)
        losses = [functional.cross_entropy(model(a[:-1]), a[1:]).item() for a in pieces]
        return model, sum(losses) / len(losses)

    verdict = judge(find("mlp_bigram"), answer)
    assert verdict.diagnosis == ("" if sure else "the model did not learn")
