"""Warm-up 3: a 2-layer MLP that predicts the next character of Shakespeare from the present one.

Trained models differ between right answers, so this exercise is judged by what must hold: what the model returns, whether
the reported loss is the model's loss, and whether that loss is where it must be.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F

from courseware.exercises.engine import Broken, Exercise, WrongAnswer

CHARACTERS = 200_000  # of the plays; enough for a bigram, and quick
# The counted bigram of the training part has 2.41 nats per character on the validation part, and that of the validation
# part itself 2.34, the least that any function of one character can reach. A trained model is a little above the first.
LOWEST, HIGHEST = 2.3, 2.75


@cache
def bigram_data():
    """Return (train ids, validation ids, vocabulary size) of the beginning of the plays, split 9 to 1."""
    from courseware.material import corpus

    text = corpus.shakespeare()[:CHARACTERS]
    alphabet = sorted(set(text))
    id_of = {character: i for i, character in enumerate(alphabet)}
    ids = torch.tensor([id_of[character] for character in text])
    cut = len(ids) * 9 // 10
    return ids[:cut], ids[cut:], len(alphabet)


def train_mlp_bigram(train_ids, val_ids, vocab_size):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(vocab_size, 32),
        torch.nn.Linear(32, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, vocab_size),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(400):
        i = torch.randint(len(train_ids) - 1, (1024,))
        loss = F.cross_entropy(model(train_ids[i]), train_ids[i + 1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        val_loss = F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item()
    return model, val_loss


def _variant(mistake):
    """Return a training with one mistake in it."""

    def answer(train_ids, val_ids, vocab_size):
        torch.manual_seed(0)
        layers = [torch.nn.Embedding(vocab_size, 32), torch.nn.Linear(32, 64), torch.nn.ReLU()]
        layers.append(torch.nn.Linear(64, vocab_size))
        if mistake == "softmax":
            layers.append(torch.nn.Softmax(dim=-1))
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        shift = 0 if mistake == "no shift" else 1
        for _ in range(400):
            i = torch.randint(len(train_ids) - 1, (1024,))
            loss = F.cross_entropy(model(train_ids[i]), train_ids[i + shift])
            loss.backward()
            if mistake != "no step":
                optimizer.step()
            optimizer.zero_grad()
        ids = train_ids if mistake == "train loss" else val_ids
        kind = "sum" if mistake == "sum" else "mean"
        with torch.no_grad():
            targets = ids[shift : len(ids) - 1 + shift]
            loss = F.cross_entropy(model(ids[:-1]), targets, reduction=kind).item()
        return model, loss / math.log(2) if mistake == "bits" else loss

    return answer


def _run(answer):
    """Train once; yield what is returned, and the mistake that it shows, if any."""
    train_ids, val_ids, vocab_size = bigram_data()
    model, reported = answer(train_ids.clone(), val_ids.clone(), vocab_size)
    yield "val_loss is a float", type(reported).__name__
    logits = model(val_ids[:6].view(2, 3))
    yield "the shape of model(ids) for ids of shape (2, 3)", tuple(logits.shape)
    mistake = _mistake(model, reported)
    if mistake:
        yield "what must hold", Broken(mistake)


def _mistake(model, reported):
    """Return the name of the mistake that a model and its reported loss show, or None."""
    train_ids, val_ids, _ = bigram_data()
    with torch.no_grad():
        logits = model(val_ids[:-1])
        val_loss = F.cross_entropy(logits, val_ids[1:]).item()
        train_loss = F.cross_entropy(model(train_ids[:-1]), train_ids[1:]).item()
        copying = F.cross_entropy(logits, val_ids[:-1]).item()
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(-1), torch.tensor(1.0), atol=1e-3):
        return "softmax before the loss"
    if copying < 0.5 < val_loss:
        return "the target is the input"
    if not val_loss <= HIGHEST:  # so that NaN counts as not learned
        return "the model did not learn"
    for name, value in (
        ("the loss of the training part", train_loss),
        ("a sum instead of a mean", val_loss * (len(val_ids) - 1)),
        ("bits instead of nats", val_loss / math.log(2)),
    ):
        if _equal(reported, value) and not _equal(reported, val_loss):
            return name
    if not math.isclose(
        reported, val_loss, rel_tol=2e-2
    ):  # a sample of val_ids may be a little off
        return "another loss than the model's"
    return "too good to be true" if val_loss < LOWEST else None


def _equal(one, other):
    """Strict, since a bigram does not overfit: its losses on the two parts differ only in the fourth digit."""
    return math.isclose(one, other, rel_tol=1e-5)


def _misreported(train_ids, val_ids, vocab_size):
    model, val_loss = train_mlp_bigram(train_ids, val_ids, vocab_size)
    return model, val_loss / 2


def _peeked(train_ids, val_ids, vocab_size):
    """Remember the validation text itself: what happens when the answer can see the test."""
    train_mlp_bigram(train_ids, val_ids, vocab_size)

    def model(ids):
        logits = torch.zeros(*ids.shape, vocab_size)
        if ids.shape == val_ids[:-1].shape and bool((ids == val_ids[:-1]).all()):
            logits.scatter_(-1, val_ids[1:, None], 8.0)
        return logits

    return model, F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item()


MLP_BIGRAM = Exercise(
    name="mlp_bigram",
    chapter=0,
    title="a 2-layer MLP bigram on Shakespeare",
    minutes=30,
    difficulty=2,
    hints=(
        "The model: Embedding(vocab_size, 32), Linear(32, 64), ReLU, Linear(64, vocab_size). It returns logits.",
        "One step: draw random positions i, predict train_ids[i + 1] from train_ids[i], cross-entropy, backward, step.",
        "AdamW with lr=1e-2 and 400 steps of 1024 positions come below 2.7 nats in a few seconds.",
        "The validation loss: F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item(), without gradients.",
    ),
    run=_run,
    reference=train_mlp_bigram,
    explanation="One character in, logits for the next one out; the target is the input shifted by one.",
    seconds=120.0,  # ours takes about two seconds on two free cores
    wrong=(
        WrongAnswer(
            "the target is the input",
            "Your model predicts the character that it was given. The target is the *next* one: ids shifted by one.",
            "train_ids[i] is the input, train_ids[i + 1] the target",
            _variant("no shift"),
        ),
        WrongAnswer(
            "softmax before the loss",
            "Your model returns probabilities. F.cross_entropy takes logits and applies the softmax itself.",
            "leave the last layer linear",
            _variant("softmax"),
        ),
        WrongAnswer(
            "the model did not learn",
            f"Its validation loss is above {HIGHEST} nats per character. Does the optimizer step after backward()?",
            "hint 2, and the learning rate",
            _variant("no step"),
        ),
        WrongAnswer(
            "the loss of the training part",
            "The number that you report is the loss on the training text.",
            "evaluate on val_ids",
            _variant("train loss"),
        ),
        WrongAnswer(
            "a sum instead of a mean",
            "The number that you report is summed over all positions; it would grow with the text.",
            "the default reduction of F.cross_entropy is the mean",
            _variant("sum"),
        ),
        WrongAnswer(
            "bits instead of nats",
            "You divided by ln 2. That is bits per character, a fine unit, but the task asks for nats.",
            'chapter 4, "Two other ways to say it"',
            _variant("bits"),
        ),
        WrongAnswer(
            "another loss than the model's",
            "The number that you report is not the loss of the model that you return, measured on all of val_ids.",
            "return F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item()",
            _misreported,
        ),
        WrongAnswer(
            "too good to be true",
            f"Below {LOWEST} nats: one character does not tell that much about the next. Has it seen val_ids?",
            'chapter 3, "Set a part aside"',
            _peeked,
        ),
    ),
)
