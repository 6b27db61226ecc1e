"""Chapter 21's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, fsum, lgamma, prod

import pytest
import torch
from tools import judged
from torch.nn import functional as F


def gradient_by_autograd(logits, rewards, goal=lambda p, r: (p * r).sum()):
    weights = logits.clone().requires_grad_()
    goal(weights.softmax(0), rewards).backward()
    return weights.grad


def gradient_in_closed_form(logits, rewards, mean=None):
    """Each logit's slope is p times (its reward less the expected one)."""
    p = F.softmax(logits, dim=-1)
    expected = torch.dot(p, rewards) if mean is None else mean(rewards)
    return p * (rewards - expected)


def gradient_by_differences(logits, rewards):
    logits, rewards = logits.double(), rewards.double()

    def worth(move):
        return (logits + move).softmax(0) @ rewards

    steps = torch.eye(len(logits), dtype=torch.float64) * 1e-5
    return torch.stack([(worth(step) - worth(-step)) / 2e-5 for step in steps])


def draws_by_loops(logits, actions, rewards, below=0, sign=1):
    p = logits.softmax(0).tolist()
    N = len(actions)
    total = [0.0] * len(p)
    for i, a in enumerate(actions.tolist()):
        others = [r for j, r in enumerate(rewards.tolist()) if j != i]
        advantage = rewards[i].item() - sum(others) / (N - 1 + below)
        for k in range(len(p)):
            total[k] += sign * advantage * ((k == a) - p[k]) / N
    return torch.tensor(total)


def draws_without_p(logits, actions, rewards, mean=True):
    """These advantages add up to 0, so what all draws share drops out: also right."""
    N = len(actions)
    advantages = (rewards - rewards.mean()) * N / (N - 1)
    sums = torch.zeros_like(logits).index_add(0, actions, advantages)
    return sums / N if mean else sums


def draws_by_autograd(logits, actions, rewards, baseline=None):
    weights = logits.clone().requires_grad_()
    N = len(rewards)
    others = (torch.ones(N, N) - torch.eye(N)) @ rewards / (N - 1)
    if baseline:
        others = baseline(rewards, actions)
    loss = -((rewards - others) * weights.log_softmax(0)[actions]).mean()
    loss.backward()
    return -weights.grad


def of_the_same_answer(rewards, actions):
    same = (actions[:, None] == actions).float()
    return same @ rewards / same.sum(1)


def reward_by_splitting(text, city, cities, only=True):
    """Take words apart by hand, from the end of the text."""
    *_, last, rest = ["", *text.split(".")] if "." in text else ["", "", "unfinished"]
    words = last.replace(",", " ").replace("'", " ").split()
    found = [name for name in words if name in set(cities)]
    good = rest == "" and city in found and (len(found) == 1 or not only)
    return float(good)


def reward_by_counting(text, city, cities, letters=False):
    if text[-1:] != ".":
        return 0
    words = "".join(c if c.isalnum() else " " for c in text.split(".")[-2])
    if letters:
        counts = {name: words.count(name) for name in cities}
    else:
        counts = {name: words.split().count(name) for name in cities}
    return int(counts[city] == 1 and sum(counts.values()) == 1)


def reward_of_the_last_word(text, city, cities):
    words = text.split() or [""]
    return float(words[-1].removesuffix(".") == city)


def reward_by_spaces(text, city, cities):
    whole = text.endswith(".")
    sentences = text.split(".")[:-1]
    names = [word for word in sentences[-1].split(" ") if word in cities] if whole else []
    return 1.0 if len(names) == 1 and names[0] == city else 0.0


def mask_by_list(ids, start, end, count=1):
    answer = ids[start:]
    length = answer.index(end) + count if end in answer else len(answer)
    places = range(start, start + length)
    return torch.tensor([t in places for t in range(len(ids))])


def mask_by_cumsum(ids, start, end, shift=1):
    row = torch.tensor(ids)
    drawn = torch.arange(len(row)) >= start
    ends = ((row == end) & drawn).int()
    return drawn & (ends.cumsum(0) - shift * ends == 0)


def loss_by_loops(rewards, logprobs, old_logprobs, mask, clip, each=False, below=1):
    gains, averages = [], []
    for q in range(len(rewards)):
        row = rewards[q].tolist()
        mean = sum(row) / len(row)
        std = (sum((r - mean) ** 2 for r in row) / (len(row) - below)) ** 0.5
        for g, r in enumerate(row):
            a = (r - mean) / std if std else 0.0
            mine = []
            for t in mask[q, g].nonzero()[:, 0].tolist():
                ratio = torch.exp(logprobs[q, g, t] - old_logprobs[q, g, t])
                bounded = min(max(ratio, torch.tensor(1 - clip)), torch.tensor(1 + clip))
                mine.append(min(ratio * a, bounded * a))
            gains += mine
            averages.append(torch.stack(mine).mean())
    return -torch.stack(averages if each else gains).mean()


def loss_by_selecting(
    rewards, logprobs, old_logprobs, mask, clip, dims=1, pick=torch.where, small=0.0
):
    """Say where the clip takes the gradient away; the value there is a constant."""
    mean = rewards.mean(dims, True) if dims is not None else rewards.mean()
    std = rewards.std(dims, keepdim=True) if dims is not None else rewards.std()
    a = ((rewards - mean) / (std + small)).nan_to_num(0.0).unsqueeze(-1).expand_as(logprobs)[mask]
    ratio = (logprobs[mask] - old_logprobs[mask]).exp()
    bound = torch.where(a > 0, 1 + clip, 1 - clip)
    beyond = torch.where(a > 0, ratio > bound, ratio < bound)
    return -pick(beyond, bound * a, ratio * a).mean()


def loss_with_weights(rewards, logprobs, old_logprobs, mask, clip):
    """Weigh every place, those that were not drawn with 0, which is not enough for nan."""
    a = (rewards - rewards.mean(1, True)) / (rewards.std(1, keepdim=True) + 1e-4)
    ratio = torch.exp(logprobs - old_logprobs)
    worse = torch.maximum(-a[..., None] * ratio, -a[..., None] * ratio.clamp(1 - clip, 1 + clip))
    return (worse * (mask / mask.sum())).sum()


def never_clipped(beyond, bounded, free):
    return free


def leash_by_lists(logprobs, reference, mask, sign=1, half=2.0):
    drawn = mask.flatten().tolist()
    pairs = zip(logprobs.flatten().tolist(), reference.flatten().tolist())
    d = [sign * (q - p) for keep, (p, q) in zip(drawn, pairs) if keep]
    k3 = [exp(x) - 1 - x for x in d]
    return -sum(d) / len(d), sum(x * x for x in d) / half / len(d), sum(k3) / len(d)


def leash_by_weights(logprobs, reference, mask, below=None):
    d = (reference - logprobs).double()
    n = mask.sum() if below is None else below(mask)
    return [(k * mask).sum() / n for k in (-d, 0.5 * d**2, torch.expm1(d) - d)]


def steps_by_formula(logits, actions, advantages, clip, lr, steps, moving=False, sign=1):
    """The gradient in closed form: pushes along ln p, less what the softmax takes from all."""
    first, z, largest = logits.softmax(0), logits, []
    for _ in range(steps):
        p = z.softmax(0)
        ratio = p[actions] / (p if moving else first)[actions]
        stopped = torch.where(advantages > 0, ratio > 1 + clip, ratio < 1 - clip)
        push = torch.where(stopped, 0.0, ratio * advantages) / len(actions)
        slope = torch.zeros_like(z).index_add(0, actions, push) - p * push.sum()
        z = z + sign * lr * slope
        largest.append(float(ratio.max()))
    return largest, z


def steps_by_sgd(logits, actions, advantages, clip, lr, steps, bounded=True):
    weights = torch.nn.Parameter(logits.clone())
    with torch.no_grad():
        drawn_with = logits.log_softmax(-1)[actions]
    largest = []
    for _ in range(steps):
        ratio = torch.exp(weights.log_softmax(-1)[actions] - drawn_with)
        held = torch.clip(ratio, 1 - clip, 1 + clip) if bounded else ratio
        loss = torch.maximum(-ratio * advantages, -held * advantages).mean()
        (slope,) = torch.autograd.grad(loss, weights)
        weights = torch.nn.Parameter(weights.detach() - lr * slope)
        largest.append(max(ratio.tolist()))
    return largest, weights.data


def crossing_by_product(n, before, after, first=1, missing=None):
    """Multiply the share of wrong answers among those that are left, try by try."""

    def missed(c, k):
        return prod((n - c - i) / (n - i) for i in range(k))

    for k in range(first, n + 1):
        pairs = [[missed(c, k) for c in counts] for counts in (before, after)]
        if fsum(pairs[0]) <= fsum(pairs[1]):
            return k
    return missing


def crossing_by_fractions(n, before, after, best=min, enough=0):
    """Keep every chance as a fraction, and go on from one k to the next."""
    chances = [[Fraction(1)] * len(counts) for counts in (before, after)]
    found = []
    for k in range(1, n + 1):
        for row, counts in zip(chances, (before, after)):
            for i, c in enumerate(counts):
                row[i] *= Fraction(max(n - c - k + 1, 0), n - k + 1)
        if sum(chances[1]) - sum(chances[0]) >= enough:
            found.append(k)
    return best(found) if found else None


def crossing_by_logarithms(n, before, after, exact=True):
    """Go through the logarithms of factorials; 1e-9 makes up for their rounding."""

    def rate(counts, k):
        missed = [
            exp(lgamma(n - c + 1) - lgamma(n - c - k + 1) - lgamma(n + 1) + lgamma(n - k + 1))
            if n - c >= k
            else 0.0
            for c in counts
        ]
        if not exact:
            missed = [((n - c) / n) ** k for c in counts]
        return 1 - sum(missed) / len(missed)

    rows = (k for k in range(1, n + 1) if rate(before, k) >= rate(after, k) - 1e-9 * exact)
    return next(rows, None)


def crossing_of_pools(n, before, after):
    size = n * len(before)
    for k in range(1, n + 1):
        if comb(size - sum(before), k) <= comb(size - sum(after), k):
            return k
    return None


ANSWERS = [
    ("expected_gradient", gradient_by_autograd, ""),
    ("expected_gradient", gradient_in_closed_form, ""),
    ("expected_gradient", gradient_by_differences, ""),
    ("expected_gradient", lambda x, r: gradient_by_autograd(x, r, lambda p, r: -(p * r).sum()), "the sign"),
    ("expected_gradient", lambda x, r: gradient_by_autograd(x, r, lambda p, r: (p.log() * r).sum()),
     "not weighted by probability"),
    ("expected_gradient", lambda x, r: gradient_by_autograd(x, r, lambda p, r: (p.log() * r).mean()),
     "the mean over the answers"),
    ("expected_gradient", lambda x, r: gradient_in_closed_form(x, r, mean=lambda r: 0.0), "the minus p is missing"),
    ("expected_gradient", lambda x, r: gradient_in_closed_form(x, r, mean=torch.mean), "wrong value"),
    ("expected_gradient", lambda x, r: gradient_in_closed_form(x, r).tolist(), "wrong type"),
    ("expected_gradient", lambda x, r: -gradient_by_autograd(x, r, lambda p, r: (p.log() * r).sum()),
     "two things at once: not weighted by probability, and the sign"),
    ("baselined_gradient", draws_by_loops, ""),
    ("baselined_gradient", draws_without_p, ""),
    ("baselined_gradient", draws_by_autograd, ""),
    ("baselined_gradient", lambda *a: draws_by_loops(*a, below=1), "one too many below"),
    ("baselined_gradient", lambda *a: draws_by_loops(*a, sign=-1), "the sign"),
    ("baselined_gradient", lambda *a: draws_without_p(*a, mean=False), "the sum over the draws"),
    ("baselined_gradient", lambda *a: draws_by_autograd(*a, lambda r, _: r.mean()), "the draw's own reward"),
    ("baselined_gradient", lambda *a: draws_by_autograd(*a, lambda r, _: 0.0), "no baseline"),
    ("baselined_gradient", lambda *a: draws_by_autograd(*a, of_the_same_answer), "a baseline for each answer"),
    ("baselined_gradient", lambda z, a, r: draws_by_loops(z, a, r, below=1, sign=-len(a)),
     "wrong value"),
    ("baselined_gradient", lambda *a: -draws_by_autograd(*a, lambda r, _: r.mean()),
     "two things at once: the draw's own reward, and the sign"),
    ("strict_reward", reward_by_splitting, ""),
    ("strict_reward", reward_by_counting, ""),
    ("strict_reward", lambda text, city, cities: float(city in text), "named anywhere"),
    ("strict_reward", lambda *a: reward_by_splitting(*a, only=False), "other cities beside it"),
    ("strict_reward", lambda *a: reward_by_counting(*a, letters=True), "parts of words"),
    ("strict_reward", lambda text, *a: reward_by_splitting(text + "." * (text[-1:] != "."), *a),
     "an answer that was cut off"),
    ("strict_reward", lambda text, *a: reward_by_splitting(text.rstrip(".") + ".", *a),
     "two things at once: an empty last sentence is skipped, and an answer that was cut off"),
    ("strict_reward", reward_of_the_last_word, "only the last word is read"),
    ("strict_reward", reward_by_spaces, "a comma belongs to its word"),
    ("strict_reward", lambda text, *a: reward_by_counting(text.strip(), *a), "spaces at the end"),
    ("strict_reward", lambda text, *a: reward_by_splitting(text.rstrip(" "), *a), "spaces at the end"),
    ("strict_reward", lambda text, city, cities: reward_by_splitting(text.title(), city, cities), "capitals"),
    ("strict_reward", lambda *a: 1.0 - reward_by_splitting(*a), "turned around"),
    ("strict_reward", lambda *a: reward_by_splitting(*a) == 1, "wrong type"),
    ("drawn_mask", mask_by_list, ""),
    ("drawn_mask", mask_by_cumsum, ""),
    ("drawn_mask", lambda *a: mask_by_list(*a, count=0), "the end is left out"),
    ("drawn_mask", lambda *a: mask_by_list(*a, count=2), "one token too many"),
    ("drawn_mask", lambda *a: mask_by_cumsum(*a, shift=0), "the end is left out"),
    ("drawn_mask", lambda ids, start, end: torch.arange(len(ids)) >= start, "everything from start on"),
    ("drawn_mask", lambda *a: mask_by_list(*a).long(), "wrong dtype"),
    ("group_loss", loss_by_loops, ""),
    ("group_loss", loss_by_selecting, ""),
    ("group_loss", lambda r, *a: loss_by_selecting(r.double(), *a), ""),
    ("group_loss", lambda *a: loss_by_selecting(*a, small=1e-4), ""),
    ("group_loss", loss_with_weights, "nan times 0"),
    ("group_loss", lambda *a: -loss_by_selecting(*a, small=1e-4), "the sign"),
    ("group_loss", lambda *a: -loss_by_selecting(*a), "the sign"),
    ("group_loss", lambda *a: loss_by_selecting(*a, dims=None), "over the batch instead of the group"),
    ("group_loss", lambda *a: loss_by_selecting(*a, dims=0), "over the questions"),
    ("group_loss", lambda *a: loss_by_selecting(*a, pick=never_clipped), "no clip"),
    ("group_loss", lambda *a: loss_by_loops(*a, each=True), "the mean of each answer first"),
    ("group_loss", lambda *a: loss_by_loops(*a, below=0), "G below"),
    ("group_loss", torch.no_grad()(loss_by_loops), "no gradient"),
    ("group_loss", lambda *a: 2 * loss_by_selecting(*a), "wrong value"),
    ("group_loss", lambda r, new, old, *a: loss_by_selecting(r, old, new, *a), "the ratio upside down"),
    ("group_loss", lambda *a: -loss_by_selecting(*a, dims=None, pick=never_clipped), "wrong value"),
    ("group_loss", lambda *a: -loss_by_loops(*a, below=0),
     "two things at once: G below, and the sign"),
    ("leash_estimates", leash_by_lists, ""),
    ("leash_estimates", leash_by_weights, ""),
    ("leash_estimates", lambda *a: leash_by_lists(*a, sign=-1), "the difference turned around"),
    ("leash_estimates", lambda *a: leash_by_lists(*a, half=1.0), "k2 not halved"),
    ("leash_estimates", lambda p, q, m: leash_by_lists(p, q, torch.ones_like(m)), "places that were not drawn"),
    ("leash_estimates", lambda *a: leash_by_weights(*a, below=torch.numel), "zeros for places that were not drawn"),
    ("leash_estimates", lambda *a: leash_by_weights(*a, below=lambda m: 1), "sums"),
    ("leash_estimates", lambda *a: leash_by_weights(*a)[::-1], "wrong value"),
    ("leash_estimates", lambda *a: leash_by_lists(*a, sign=-1, half=1.0),
     "two things at once: the difference turned around, and k2 not halved"),
    ("several_steps", steps_by_formula, ""),
    ("several_steps", steps_by_sgd, ""),
    ("several_steps", lambda *a: steps_by_formula(*a, moving=True), "the old model moves along"),
    ("several_steps", lambda *a: steps_by_formula(*a, sign=-1), "downhill"),
    ("several_steps", lambda *a: steps_by_sgd(*a, bounded=False), "no clip"),
    ("several_steps", lambda *a: steps_by_sgd(*a)[1], "wrong type"),
    ("catches_up", crossing_by_product, ""),
    ("catches_up", crossing_by_fractions, ""),
    ("catches_up", crossing_by_logarithms, ""),
    ("catches_up", lambda *a: crossing_by_logarithms(*a, exact=False), "the share put into the formula"),
    ("catches_up", crossing_of_pools, "the counts are pooled"),
    ("catches_up", lambda n, b, a: crossing_by_fractions(n, a, b), "before and after exchanged"),
    ("catches_up", lambda *a: crossing_by_fractions(*a, best=max), "the largest k"),
    ("catches_up", lambda *a: crossing_by_fractions(*a, enough=Fraction(1, 10**900)), "only larger counts"),
    ("catches_up", lambda *a: crossing_by_product(*a, missing=0), "0 for none"),
    ("catches_up", lambda *a: crossing_by_product(*a, first=0), "from k = 0"),
    ("catches_up", lambda *a: crossing_by_product(*a, first=2), "wrong value"),
    ("catches_up", lambda *a: str(crossing_by_product(*a)), "wrong type"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
