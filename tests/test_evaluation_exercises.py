"""Chapter 12: the exercises answered in a different style, right and wrong."""

from __future__ import annotations

import math

import pytest
import torch
from tools import judged
from torch.nn import functional as F

from minigpt_lib.evaluation import calibration


def perplexity_by_products(blocks):
    n = sum(len(block) for block in blocks)
    return math.prod(math.exp(price / n) for block in blocks for price in block)


def bits_by_logarithms(text, loss, n):
    return float(loss * n * math.log2(math.e) / len(bytearray(text, "utf-8")))


def plan_by_sets(n, block, stride):
    block = min(block, n - 1)
    last = n - 1 - block
    begin = 0
    counted = {0}
    plan = []

    while True:
        begin = min(begin, last)
        new = sorted(set(range(begin + 1, begin + block + 1)) - counted)
        counted |= set(new)
        plan.append([begin, new])
        if begin == last:
            return plan
        begin += stride


def score_by_cross_entropy(logits, ids, n_prompt):
    return -F.cross_entropy(logits[n_prompt - 1 : -1].double(), ids[n_prompt:])


def accuracy_of_tensors(totals, lengths, answers):
    right = []
    for row, sizes, answer in zip(totals, lengths, answers, strict=True):
        best = max(range(len(row)), key=lambda i: (row[i] / sizes[i], -i))
        right.append(float(best == answer))

    right = torch.tensor(right, dtype=torch.float64)
    return right.mean(), right.std() / len(right) ** 0.5


def calibration_by_library(confidence, correct, bins):
    return calibration(confidence, correct, bins).error


ANSWERS = [
    ("text_perplexity", perplexity_by_products, ""),
    ("text_perplexity", lambda blocks: 1 / perplexity_by_products(blocks), "wrong value"),
    ("text_perplexity", lambda blocks: perplexity_by_products([{*sum(blocks, [])}]), "wrong value"),
    ("text_perplexity", lambda blocks: min(perplexity_by_products(blocks), 150.0), "wrong value"),
    (
        "text_perplexity",  # infinite where math.exp would raise
        lambda b: math.prod(map(math.exp, sum(b, []))) ** (1 / len(sum(b, []))),
        "the root at the end",
    ),
    ("to_bits_per_byte", bits_by_logarithms, ""),
    ("to_bits_per_byte", lambda *a: 8 / bits_by_logarithms(*a), "wrong value"),
    (
        "to_bits_per_byte",
        lambda text, *a: bits_by_logarithms(text.replace("\r\n", "\n"), *a),
        "wrong value",
    ),
    (
        "to_bits_per_byte",
        lambda t, *a: bits_by_logarithms(t.replace("e\u0301", "é"), *a),
        "wrong value",
    ),
    ("window_plan", plan_by_sets, ""),
    ("window_plan", lambda n, b, s: plan_by_sets(n, b, max(1, s - 1)), "wrong length"),
    ("answer_score", score_by_cross_entropy, ""),
    ("answer_score", lambda *a: -score_by_cross_entropy(*a), "wrong value"),
    (
        "answer_score",
        lambda x, *a: score_by_cross_entropy(x.softmax(1).log(), *a),
        "wrong value",
    ),
    ("accuracy_with_error", accuracy_of_tensors, ""),
    ("accuracy_with_error", lambda t, n, a: accuracy_of_tensors(t, n, a)[::-1], "wrong value"),
    (
        "accuracy_with_error",
        lambda t, n, a: accuracy_of_tensors([x[:3] for x in t], n, a),
        "wrong value",
    ),
    (
        "accuracy_with_error",
        lambda t, n, a: accuracy_of_tensors([[math.exp(x) for x in row] for row in t], n, a),
        "probabilities divided by the length",
    ),
    ("calibration_error", calibration_by_library, ""),
    ("calibration_error", lambda *a: 1 - calibration_by_library(*a), "wrong value"),
]


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_an_answer_in_a_different_style_gets_its_verdict(name, answer, diagnosis):
    judged(name, answer, diagnosis)
