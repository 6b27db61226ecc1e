"""Chapter 15's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
import torch
from tools import judged
from torch.nn import functional as F


def loss_by_softplus(c, d, rc, rd, beta):
    return torch.nn.Softplus()(-beta * (c - d) + beta * (rc - rd)).sum() / len(c)


def loss_by_cross_entropy(c, d, rc, rd, beta, reduction="mean"):
    """Classify which of two rewards is the chosen one's."""
    rewards = torch.stack([c - rc, d - rd], dim=-1) * beta
    return F.cross_entropy(rewards, torch.zeros(len(c), dtype=torch.int64), reduction=reduction)


def loss_by_exp(c, d, rc, rd, beta):
    return (1 + (-beta * ((c - rc) - (d - rd))).exp()).log().mean()


def price_by_cross_entropy(logits, ids, start, reduction="sum"):
    return -F.cross_entropy(logits[start - 1 : -1], ids[start:], reduction=reduction)


def price_by_logsumexp(logits, ids, start):
    rows = logits[start - 1 : -1]
    return (rows.gather(1, ids[start:, None])[:, 0] - rows.logsumexp(-1)).sum()


def price_by_product(logits, ids, start):
    return logits[start - 1 : -1].softmax(-1).gather(1, ids[start:, None]).prod().log()


def price_by_division(logits, ids, start):
    e = logits.exp()
    p = (e / e.sum(1)[:, None])[torch.arange(start - 1, len(ids) - 1), ids[start:]]
    return p.log().sum()


def tilt_by_torch(reference, rewards, beta):
    logs = torch.tensor(reference, dtype=torch.float64).log()
    return (logs + torch.tensor(rewards, dtype=torch.float64) / beta).softmax(0).tolist()


def tilt_by_decimals(reference, rewards, beta):
    """Numbers without a largest exponent need nothing subtracted."""
    weights = [Decimal(p) * (Decimal(r) / Decimal(beta)).exp() for p, r in zip(reference, rewards)]
    return [float(w / sum(weights)) for w in weights]


def tilt_in_float32(reference, rewards, beta):
    return (torch.tensor(reference).log() + torch.tensor(rewards) / beta).softmax(0)


def tilt_by_exp(reference, rewards, beta):
    weights = torch.tensor(reference) * (torch.tensor(rewards) / beta).exp()
    return weights / weights.sum()


def tilt_less_the_mean(reference, rewards, beta):
    mean = sum(rewards) / len(rewards)
    weights = [p * math.exp((r - mean) / beta) for p, r in zip(reference, rewards)]
    return [w / sum(weights) for w in weights]


def tilt_less_the_largest(reference, rewards, beta):
    shifted = torch.tensor(rewards) - max(rewards)
    weights = torch.tensor(reference) * (shifted / beta).exp()
    return [w.item() / weights.sum().item() for w in weights]


def pairs_by_index(answers, scores):
    pairs = []
    for texts, numbers in zip(answers, scores):
        left = [i for i, text in enumerate(texts) if text is not None]
        if len({numbers[i] for i in left}) > 1:
            order = sorted(left, key=lambda i: numbers[i])
            low = [i for i in left if numbers[i] == numbers[order[0]]]
            high = [i for i in left if numbers[i] == numbers[order[-1]]]
            pairs.append((texts[high[0]], texts[low[0]]))
    return pairs


def pairs_by_scanning(answers, scores, later=False, equal=False):
    """Keep the best and the worst so far; with `later`, one as good takes its place."""
    pairs = []
    for row in zip(answers, scores):
        best = worst = None
        for text, score in zip(*row):
            if text is None:
                continue
            if best is None or score > best[1] or later and score == best[1]:
                best = text, score
            if worst is None or score < worst[1] or later and score == worst[1]:
                worst = text, score
        if best and (equal or best[1] != worst[1]):
            pairs.append((best[0], worst[0]))
    return pairs


def pairs_by_comparing_tuples(answers, scores):
    rows = [[pair for pair in zip(s, a) if pair[1] is not None] for a, s in zip(answers, scores)]
    return [(max(r)[1], min(r)[1]) for r in rows if r and max(r)[0] > min(r)[0]]


def pairs_with_nothing_to_choose_from(answers, scores):
    pairs = []
    for texts, numbers in zip(answers, scores):
        known = {i: n for i, n in enumerate(numbers) if texts[i] is not None}
        best, worst = max(known, key=known.get), min(known, key=known.get)
        if known[best] > known[worst]:
            pairs += [(texts[best], texts[worst])]
    return pairs


def training_by_sgd(policy, reference, beta, lr, steps):
    weights = torch.nn.Parameter(policy.clone())
    update, losses = torch.optim.SGD([weights], lr=lr), []
    fixed = reference.log_softmax(0)
    for _ in range(steps):
        update.zero_grad()
        moved = weights.log_softmax(0) - fixed
        loss = F.softplus(-beta * (moved[0] - moved[1]))
        loss.backward()
        update.step()
        losses.append(loss.item())
    return losses, weights.detach()


def training_of_logits(policy, reference, beta, lr, steps):
    """The missing constant cancels in the margin: also right."""
    losses, policy = [], policy.clone()
    for _ in range(steps):
        moved = policy - reference
        margin = beta * (moved[0] - moved[1])
        losses.append(F.softplus(-margin).item())
        pull = lr * beta * torch.sigmoid(-margin)
        policy = policy + torch.cat([pull[None], -pull[None], torch.zeros(len(policy) - 2)])
    return losses, policy


def training_with_tensors(policy, *settings):
    losses, policy = training_of_logits(policy, *settings)
    return [torch.tensor(loss) for loss in losses], policy


ANSWERS = [
    ("preference_loss", loss_by_softplus, ""),
    ("preference_loss", loss_by_cross_entropy, ""),
    ("preference_loss", lambda *a: loss_by_softplus(*a).double(), ""),
    ("preference_loss", lambda *a: loss_by_softplus(*a) + 0.1, "wrong value"),
    ("preference_loss", lambda *a: 2 * loss_by_softplus(*a), "wrong value"),
    ("preference_loss", lambda c, d, rc, rd, b: loss_by_softplus(d, c, rd, rc, b), "the wrong sign"),
    ("preference_loss", lambda c, d, rc, rd, b: loss_by_softplus(c, d, rd, rc, b), "the reference turned around"),
    ("preference_loss", lambda *a: loss_by_softplus(*a).item(), "no gradient"),
    ("preference_loss", torch.no_grad()(loss_by_softplus), "no gradient"),
    ("preference_loss", lambda c, d, rc, rd, b: loss_by_softplus(c, torch.tensor(d.tolist()), rc, rd, b),
     "the rejected answer has no gradient"),
    ("preference_loss", loss_by_exp, "the logarithm of 0"),
    ("preference_loss", lambda *a: loss_by_cross_entropy(*a, reduction="none"), "a loss for each pair"),
    ("preference_loss", lambda *a: loss_by_cross_entropy(*a[:4], 1.0, reduction="sum"),
     "two things at once: beta is forgotten, and the sum over pairs"),
    ("answer_log_prob", price_by_cross_entropy, ""),
    ("answer_log_prob", price_by_logsumexp, ""),
    ("answer_log_prob", lambda x, i, s: price_by_cross_entropy(x.double(), i, s), ""),
    ("answer_log_prob", lambda x, i, s: price_by_cross_entropy(x, i, s).item(), ""),
    ("answer_log_prob", lambda *a: -price_by_cross_entropy(*a), "a loss returned"),
    ("answer_log_prob", lambda *a: price_by_cross_entropy(*a).exp(), "a probability returned"),
    ("answer_log_prob", lambda x, i, s: price_by_cross_entropy(x / 2, i, s), "wrong value"),
    ("answer_log_prob", lambda *a: price_by_cross_entropy(*a, reduction="none"), "wrong shape"),
    ("answer_log_prob", price_by_product, "the product underflows"),
    ("answer_log_prob", lambda x, i, s: price_by_product(x.double(), i, s), "the product underflows"),
    ("answer_log_prob", price_by_division, "e to the power of 200"),
    ("answer_log_prob", lambda *a: -price_by_cross_entropy(*a, reduction="mean"),
     "two things at once: a mean per token, and a loss returned"),
    ("answer_log_prob", lambda x, i, s: price_by_cross_entropy(x, i, 1, reduction="mean"),
     "two things at once: the prompt counted, and a mean per token"),
    ("tilted", tilt_by_torch, ""),
    ("tilted", tilt_by_decimals, ""),
    ("tilted", lambda *a: tuple(tilt_by_torch(*a)), ""),
    ("tilted", tilt_in_float32, ""),
    ("tilted", lambda p, r, b: tilt_by_torch([x + 1e-12 for x in p], r, b), "a tiny number in place of 0"),
    ("tilted", tilt_by_exp, "too large for a tensor"),
    ("tilted", tilt_less_the_mean, "too large for a float"),
    ("tilted", tilt_less_the_largest, "an answer that is never given decides"),
    ("tilted", lambda p, r, b: tilt_by_torch(p, r, 1 / b), "multiplied by beta"),
    ("tilted", lambda p, r, b: tilt_by_torch(p, r, b / 2), "wrong value"),
    ("tilted", lambda p, r, b: tilt_by_torch(p, r, b)[::-1], "wrong value"),
    ("tilted", lambda p, r, b: tilt_by_decimals(p, [-x for x in r], 1),
     "two things at once: the reward is punished, and beta is forgotten"),
    ("choose_pairs", pairs_by_index, ""),
    ("choose_pairs", pairs_by_scanning, ""),
    ("choose_pairs", lambda a, s: pairs_by_index(a, s)[:1], "wrong length"),
    ("choose_pairs", lambda a, s: (p for p in pairs_by_index(a, s)), "returned a generator"),
    ("choose_pairs", lambda a, s: [p[::-1] for p in pairs_by_index(a, s)], "chosen and rejected swapped"),
    ("choose_pairs", lambda *a: pairs_by_scanning(*a, later=True), "the last of equals"),
    ("choose_pairs", pairs_by_comparing_tuples, "texts decide between equals"),
    ("choose_pairs", pairs_with_nothing_to_choose_from, "a question without answers"),
    ("choose_pairs", lambda *a: pairs_by_scanning(*a, later=True, equal=True),
     "two things at once: pairs without a preference, and the last of equals"),
    ("preference_training", training_by_sgd, ""),
    ("preference_training", training_of_logits, ""),
    ("preference_training", lambda p, r, b, lr, n: training_by_sgd(p, r, b, lr / 2, n), "wrong value"),
    ("preference_training", lambda p, r, *a: training_by_sgd(p, p, *a), "the policy's own start"),
    ("preference_training", training_with_tensors, "wrong type"),
    ("preference_training", lambda p, r, b, lr, n: training_of_logits(p, 0 * r, b, -lr, n),
     "two things at once: no reference at all, and uphill"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
