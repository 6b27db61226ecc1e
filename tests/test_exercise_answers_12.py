"""Chapter 12's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from tools import judged
from torch.nn import functional as F

from minigpt_lib.evaluation import calibration


def perplexity_by_products(blocks):
    n = sum(len(block) for block in blocks)
    return math.prod(math.exp(price / n) for block in blocks for price in block)


def perplexity_by_running_mean(blocks, base=math.e, sign=1):
    mean, n = 0.0, 0
    for block in blocks:
        for price in block:
            n += 1
            mean += (price - mean) / n
    return base ** (sign * mean)


def perplexity_in_numpy(blocks):
    """Average the blocks with their lengths as weights."""
    blocks = [np.array(block) for block in blocks if len(block) > 0]
    means = [block.mean() for block in blocks]
    return np.exp(np.average(means, weights=[len(block) for block in blocks]))


def perplexity_of_blocks(blocks):
    return statistics.mean(perplexity_by_products([block]) for block in blocks if block)


def perplexity_of_block_means(blocks):
    return 2 ** statistics.mean(statistics.mean(block) for block in blocks if block)


def bits_by_logarithms(text, loss, n):
    return float(loss * n * math.log2(math.e) / len(bytearray(text, "utf-8")))


def bits_byte_by_byte(text, loss, n_tokens, size=lambda c: len(c.encode())):
    """Count the bytes of each character, and spread the bits of the text over them."""
    bits = n_tokens * math.log2(math.exp(loss))
    return bits / sum(size(character) for character in text)


def bits_per_character(text, loss, n_tokens):
    return loss * n_tokens / len(list(text)) / math.log(2)


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


def plan_from_the_end(n, block, stride):
    """Ask for each token which window predicts it first."""
    block = min(block, n - 1)
    begins = list(range(0, n - block, stride))
    if begins[-1] + block < n - 1:
        begins.append(n - 1 - block)

    first = {t: next(b for b in begins if b < t <= b + block) for t in range(1, n)}
    return [(b, [t for t in first if first[t] == b]) for b in begins]


def plan_of_full_windows(n, block, stride):
    """Only windows a whole stride apart."""
    block = min(block, n - 1)
    plan = [(0, [*range(1, block + 1)])]
    while plan[-1][0] + stride + block < n:
        begin = plan[-1][0] + stride
        plan.append((begin, [*range(begin + block + 1 - stride, begin + block + 1)]))
    return plan


def plan_with_overlaps(n, block, stride):
    return [
        (b, [*range(b + 1, b + min(block, n - 1) + 1)]) for b, _ in plan_by_sets(n, block, stride)
    ]


def plan_of_inputs(n, block, stride, new=plan_by_sets):
    return [(b, [t - 1 for t in counted]) for b, counted in new(n, block, stride)]


def plan_of_tokens_read(n, block, stride):
    """Windows of `block` tokens in all, with the last target among them, as in Hugging Face's manual."""
    begins = sorted({*range(0, n - block, stride), max(0, n - block)})
    seen = {0}
    plan = []
    for begin in begins:
        new = [t for t in range(begin, min(begin + block, n)) if t not in seen]
        seen.update(new)
        plan.append((begin, new))
    return plan


def score_by_cross_entropy(logits, ids, n_prompt):
    return -F.cross_entropy(logits[n_prompt - 1 : -1].double(), ids[n_prompt:])


def score_by_gather(logits, ids, n_prompt, first=0, dim=1):
    """Gather the prices of all ids but the first, then take those of the answer."""
    prices = F.log_softmax(logits[:-1], dim).gather(1, ids[1:, None]).squeeze(1)
    return prices[n_prompt - 1 + first :].mean()


def score_by_sums(logits, ids, n_prompt, lookup=lambda t: t - 1, least=None):
    """Use ln p = logit - log of the sum of exponentials."""
    total = 0
    for t in range(n_prompt if least is None else least, len(ids)):
        row = logits[lookup(t)].double()
        total += row[ids[t]] - torch.logsumexp(row, 0)
    return float(total) / (len(ids) - n_prompt)


def accuracy_of_tensors(totals, lengths, answers):
    right = []
    for row, sizes, answer in zip(totals, lengths, answers, strict=True):
        best = max(range(len(row)), key=lambda i: (row[i] / sizes[i], -i))
        right.append(float(best == answer))

    right = torch.tensor(right, dtype=torch.float64)
    return right.mean(), right.std() / len(right) ** 0.5


def accuracy_of_hits(totals, lengths, answers, divide=True, ddof=1):
    """Use numpy, with ddof for the standard deviation."""
    hits = np.zeros(len(answers))
    for q in range(len(answers)):
        scores = np.array(totals[q])
        if divide:
            scores = scores / np.array(lengths[q])
        hits[q] = int(scores.argmax()) == answers[q]
    return hits.mean(), hits.std(ddof=ddof) / math.sqrt(hits.size)


def accuracy_by_counting(totals, lengths, answers, power=0.5):
    """Count the right ones: the variance of zeros and ones follows from their number."""
    n = len(answers)
    k = 0
    for row, sizes, answer in zip(totals, lengths, answers):
        means = [a / b for a, b in zip(row, sizes)]
        k += max(means) not in means[:answer] and means[answer] == max(means)
    return k / n, (k * (n - k) / n / (n - 1)) ** 0.5 / n**power


def calibration_by_library(confidence, correct, bins):
    return calibration(confidence, correct, bins).error


def calibration_by_sums(confidence, correct, bins):
    """|sum of confidence - number right| in each bin is its gap times its count."""
    c, r = np.array(confidence), np.array(correct)
    places = np.ceil(c * bins).astype(int)
    gaps = np.bincount(places, weights=c - r, minlength=bins + 1)
    return np.abs(gaps).sum() / len(c)


def calibration_with_digitize(confidence, correct, bins, middle=False):
    """Bins that begin at their lower border."""
    c, r = np.array(confidence), np.array(correct)
    places = np.minimum(np.floor(c * bins), bins - 1)
    error = 0.0
    for place in set(places):
        inside = places == place
        sure = (place + 0.5) / bins if middle else c[inside].mean()
        error += abs(sure - r[inside].mean()) * inside.mean()
    return error


def calibration_of_gaps(confidence, correct, bins):
    gaps = {}
    for c, r in zip(confidence, correct):
        gaps.setdefault(math.ceil(c * bins), []).append(c - r)
    return statistics.mean(abs(statistics.mean(gap)) for gap in gaps.values())


def calibration_of_signed_gaps(confidence, correct, bins):
    gaps = {}
    for c, r in zip(confidence, correct):
        gaps.setdefault(math.ceil(c * bins), []).append(c - r)
    return statistics.mean(statistics.mean(gap) for gap in gaps.values())


ANSWERS = [
    ("text_perplexity", perplexity_by_products, ""),
    ("text_perplexity", perplexity_by_running_mean, ""),
    ("text_perplexity", perplexity_in_numpy, ""),
    ("text_perplexity", lambda blocks: 1 / perplexity_by_products(blocks), "the sign reversed"),
    ("text_perplexity", lambda blocks: perplexity_by_products([{*sum(blocks, [])}]), "wrong value"),
    ("text_perplexity", lambda blocks: min(perplexity_by_products(blocks), 150.0), "wrong value"),
    ("text_perplexity",  # infinite where math.exp would raise
     lambda b: math.prod(map(math.exp, sum(b, []))) ** (1 / len(sum(b, []))), "the root at the end"),
    ("text_perplexity", lambda blocks: perplexity_by_running_mean(blocks, base=2), "two to the power of nats"),
    ("text_perplexity", perplexity_of_blocks, "a mean of block perplexities"),
    ("text_perplexity", perplexity_of_block_means,
     "two things at once: a mean of block means, and two to the power of nats"),
    ("to_bits_per_byte", bits_by_logarithms, ""),
    ("to_bits_per_byte", bits_byte_by_byte, ""),
    ("to_bits_per_byte", lambda *a: 8 / bits_by_logarithms(*a), "wrong value"),
    ("to_bits_per_byte", lambda text, *a: bits_by_logarithms(text.replace("\r\n", "\n"), *a), "wrong value"),
    ("to_bits_per_byte", lambda t, *a: bits_by_logarithms(t.replace("e\u0301", "é"), *a), "wrong value"),
    ("to_bits_per_byte", bits_per_character, "characters instead of bytes"),
    ("to_bits_per_byte", lambda t, *a: bits_byte_by_byte(t, *a, size=lambda c: len(c.encode("utf-16-be"))),
     "bytes of UTF-16"),
    ("to_bits_per_byte", lambda t, loss, n: bits_by_logarithms(t, loss, 1), "the tokens are forgotten"),
    ("to_bits_per_byte", lambda t, loss, n: bits_per_character(t, loss, n) * math.log(2),
     "two things at once: characters instead of bytes, and nats per byte"),
    ("window_plan", plan_by_sets, ""),
    ("window_plan", plan_from_the_end, ""),
    ("window_plan", lambda n, b, s: plan_by_sets(n, b, max(1, s - 1)), "wrong length"),
    ("window_plan", lambda *a: [(b, range(t[0], t[-1] + 1)) for b, t in plan_by_sets(*a)], "wrong type"),
    ("window_plan", lambda *a: (window for window in plan_by_sets(*a)), "returned a generator"),
    ("window_plan", plan_of_full_windows, "the tail is left out"),
    ("window_plan", plan_with_overlaps, "the overlap counted twice"),
    ("window_plan", plan_of_inputs, "inputs instead of targets"),
    ("window_plan", plan_of_tokens_read, "the token after the window left out"),
    ("window_plan", lambda *a: plan_of_inputs(*a, new=plan_of_full_windows),
     "two things at once: the tail is left out, and inputs instead of targets"),
    ("answer_score", score_by_cross_entropy, ""),
    ("answer_score", score_by_gather, ""),
    ("answer_score", score_by_sums, ""),
    ("answer_score", lambda *a: -score_by_cross_entropy(*a), "the loss, not the score"),
    ("answer_score", lambda x, *a: score_by_cross_entropy(x.softmax(1).log(), *a), "wrong value"),
    ("answer_score", lambda *a: score_by_gather(*a, dim=0), "wrong value"),
    ("answer_score", lambda *a: score_by_sums(*a, lookup=lambda t: t), "compared with the logits after it"),
    ("answer_score", lambda *a: score_by_sums(*a, least=1), "the prompt scored too"),
    ("answer_score", lambda *a: score_by_sums(*a, lookup=lambda t: t, least=1),
     "two things at once: compared with the logits after it, and the prompt scored too"),
    ("accuracy_with_error", accuracy_of_tensors, ""),
    ("accuracy_with_error", accuracy_of_hits, ""),
    ("accuracy_with_error", accuracy_by_counting, ""),
    ("accuracy_with_error", lambda t, n, a: accuracy_of_tensors(t, n, a)[::-1], "wrong value"),
    ("accuracy_with_error", lambda t, n, a: accuracy_of_tensors([x[:3] for x in t], n, a), "wrong value"),
    ("accuracy_with_error",
     lambda t, n, a: accuracy_of_tensors([[math.exp(x) for x in row] for row in t], n, a),
     "probabilities divided by the length"),
    ("accuracy_with_error", lambda *a: accuracy_of_hits(*a, ddof=0), "divided by n instead of n - 1"),
    ("accuracy_with_error", lambda *a: accuracy_by_counting(*a, power=1), "divided by n instead of its root"),
    ("accuracy_with_error", lambda *a: [100 * x for x in accuracy_of_hits(*a)], "in percent"),
    ("accuracy_with_error", lambda *a: accuracy_of_hits(*a, divide=False, ddof=0),
     "two things at once: not divided by the length, and divided by n instead of n - 1"),
    ("calibration_error", calibration_by_library, ""),
    ("calibration_error", calibration_by_sums, ""),
    ("calibration_error", lambda *a: 1 - calibration_by_library(*a), "wrong value"),
    ("calibration_error", calibration_with_digitize, "borders belong to the bin above"),
    ("calibration_error", calibration_of_gaps, "every bin counts the same"),
    ("calibration_error", lambda *a: calibration_with_digitize(*a, middle=True),
     "two things at once: the middle of the bin, and borders belong to the bin above"),
    ("calibration_error", calibration_of_signed_gaps,
     "two things at once: every bin counts the same, and gaps cancel out"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
