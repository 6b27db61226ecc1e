"""Chapter 17's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tools import judged
from torch.nn import functional as F


def attended_by_head(q, k, v, owner=lambda h, R, G: h // R, scale=math.sqrt):
    """Go through the query heads one by one."""
    B, H, D = q.shape
    G = k.shape[1]
    found = []
    for h in range(H):
        g = owner(h, H // G, G)
        scores = torch.einsum("bd,btd->bt", q[:, h], k[:, g]) / scale(D)
        found.append(torch.einsum("bt,btd->bd", F.softmax(scores, dim=1), v[:, g]))
    return torch.stack(found, dim=1)


def attended_by_torch(q, k, v):
    return F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True)[:, :, 0]


def attended_by_copies(q, k, v, copies=torch.Tensor.repeat_interleave):
    R = q.shape[1] // k.shape[1]
    k, v = (copies(x, R, 1) for x in (k, v))
    weights = (q.unsqueeze(2) * k).sum(-1).div(q.shape[-1] ** 0.5).softmax(-1)
    return (weights.unsqueeze(-1) * v).sum(2)


def attended_in_turn(q, k, v):
    """Cut the query heads the other way round, and never turn them back."""
    rows = q.view(len(q), -1, k.shape[1], q.shape[-1]).transpose(1, 2)
    return F.scaled_dot_product_attention(rows, k, v).reshape(q.shape)


def attended_to_newest(q, k, v):
    return v[:, :, -1].repeat_interleave(q.shape[1] // k.shape[1], dim=1)


def joined_by_logs(first, second):
    """Let logaddexp find the total."""
    top = torch.stack([first[0], second[0]]).amax(0)
    log_total = torch.logaddexp(first[0] + first[1].log(), second[0] + second[1].log())
    mix = sum(part[2] * torch.exp(part[0] - top) for part in (first, second))
    return top, (log_total - top).exp(), mix


def joined_by_where(first, second, shrink_mix=True):
    """Put the half with the larger score first, for each query, so that only the other one shrinks."""
    larger = first[0] >= second[0]
    a, b = (
        [torch.where(larger == flag, x, y) for x, y in zip(first, second)] for flag in (True, False)
    )
    factor = torch.exp(b[0] - a[0])
    return a[0], a[1] + factor * b[1], a[2] + (factor if shrink_mix else 1) * b[2]


def joined_as_mean(first, second):
    top, total, mix = joined_by_where(first, second)
    return top, total, mix / total


def joined_by_total_of_tops(first, second):
    return tuple(x + y for x, y in zip(first, second))


def sink_mask_by_loops(n_queries, n_keys, window, sinks):
    mask = torch.zeros(n_queries, n_keys, dtype=torch.bool)
    for row in range(n_queries):
        place = n_keys - n_queries + row
        mask[row, max(0, place - window + 1) : place + 1] = True
        mask[row, : min(sinks, place + 1)] = True
    return mask


def sink_mask_by_triangles(n_queries, n_keys, window, sinks, longer=0, whole=False):
    """Cut a band out of the square of all tokens, and take its last rows."""
    ones = torch.ones(n_keys, n_keys, dtype=torch.bool)
    band = ones.tril() & ones.triu(1 - window - longer)
    first = ones.clone()
    first[:, sinks:] = False
    seen = band | first if whole else band | (first & ones.tril())
    return seen[n_keys - n_queries :]


def sink_mask_by_numpy(n_queries, n_keys, window, sinks):
    places = np.arange(n_keys)
    distance = places[-n_queries:, None] - places
    return torch.from_numpy((distance >= 0) & ((distance < window) | (places < sinks)))


def queues_by_comprehension(chosen, n_expert, capacity):
    return [torch.where((chosen == e).any(dim=1))[0].tolist()[:capacity] for e in range(n_expert)]


def queues_by_sorting(chosen, n_expert, capacity, last=False):
    flat = chosen.flatten()
    order = flat.argsort(stable=True) // chosen.shape[1]
    parts = order.split(flat.bincount(minlength=n_expert).tolist())
    return [(part[-capacity:] if last else part[:capacity]).tolist() for part in parts]


def queues_of_first_choices(chosen, n_expert, capacity):
    return queues_by_comprehension(chosen[:, :1], n_expert, capacity)


def queues_as_tensors(*arguments):
    return [torch.tensor(own) for own in queues_by_sorting(*arguments)]


def mixed_by_tokens(scores, results, top_k, key=lambda s: s.softmax(0)):
    rows = []
    for n, own in enumerate(scores):
        share, expert = key(own).topk(top_k)
        rows.append((share / share.sum()) @ results[expert, n])
    return torch.stack(rows)


def mixed_by_masking(scores, results, top_k):
    """Leave only the best scores, and let softmax share out the weight among them."""
    kth = scores.topk(top_k).values[:, -1:]
    shares = scores.masked_fill(scores < kth, -math.inf).softmax(1)
    return torch.einsum("ne,enc->nc", shares, results)


def mixed_without_sharing(scores, results, top_k):
    shares, chosen = scores.softmax(1).topk(top_k)
    return sum(shares[:, i, None] * results[chosen[:, i], range(len(scores))] for i in range(top_k))


def mixed_evenly(scores, results, top_k):
    chosen = scores.topk(top_k).indices
    return results[chosen, torch.arange(len(scores))[:, None]].mean(dim=1)


ANSWERS = [
    ("attend_one", attended_by_head, ""),
    ("attend_one", attended_by_torch, ""),
    ("attend_one", attended_by_copies, ""),
    ("attend_one", lambda q, k, v: attended_by_copies(q, k, v, lambda x, R, d: x.repeat(1, R, 1, 1)),
     "key heads in turn"),
    ("attend_one", lambda *a: attended_by_head(*a, owner=lambda h, R, G: h % G), "key heads in turn"),
    ("attend_one", attended_in_turn, "key heads in turn, and another order"),
    ("attend_one", lambda *a: attended_by_head(*a, scale=lambda D: D), "divided by D"),
    ("attend_one", lambda q, k, v: attended_by_torch(q, k, k), "values of the keys"),
    ("attend_one", attended_to_newest, "wrong value"),
    ("attend_one", lambda q, k, v: attended_by_head(q, k, k, scale=lambda D: 1),
     "two things at once: the square root is missing, and values of the keys"),
    ("join", joined_by_logs, ""),
    ("join", joined_by_where, ""),
    ("join", joined_as_mean, "the mix is divided"),
    ("join", lambda *a: joined_by_where(*a, shrink_mix=False), "only the total is shrunk"),
    ("join", joined_by_total_of_tops, "wrong value"),
    ("sink_mask", sink_mask_by_loops, ""),
    ("sink_mask", sink_mask_by_triangles, ""),
    ("sink_mask", sink_mask_by_numpy, ""),
    ("sink_mask", lambda *a: sink_mask_by_triangles(*a, longer=1), "the window is one too long"),
    ("sink_mask", lambda *a: sink_mask_by_triangles(*a, whole=True), "sinks of the future"),
    ("sink_mask", lambda q, k, w, s: sink_mask_by_loops(q, k, w, 0), "no sinks"),
    ("sink_mask", lambda *a: ~sink_mask_by_numpy(*a), "True where it is forbidden"),
    ("sink_mask", lambda *a: sink_mask_by_numpy(*a)[None], "wrong shape"),
    ("sink_mask", lambda q, k, w, s: sink_mask_by_triangles(q, k, w, s + 1, longer=1),
     "two things at once: the window is one too long, and one sink too many"),
    ("queues", queues_by_comprehension, ""),
    ("queues", queues_by_sorting, ""),
    ("queues", lambda *a: queues_by_sorting(*a, last=True), "the last tokens"),
    ("queues", queues_of_first_choices, "first choices only"),
    ("queues", lambda c, n, k: queues_by_comprehension(c, n, 99), "no capacity"),
    ("queues", queues_as_tensors, "wrong type"),
    ("mixed", mixed_by_tokens, ""),
    ("mixed", mixed_by_masking, ""),
    ("mixed", lambda *a: mixed_by_tokens(*a, key=torch.sigmoid), "a sigmoid for each expert"),
    ("mixed", lambda *a: mixed_by_tokens(*a, key=lambda s: s), "the scores as they are"),
    ("mixed", lambda s, r, k: mixed_by_masking(-s, r, k), "the sign turned"),
    ("mixed", mixed_without_sharing, "shares that do not add up to 1"),
    ("mixed", mixed_evenly, "wrong value"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
