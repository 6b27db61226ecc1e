"""Chapter 18's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tools import judged

from minigpt_lib.costs import LossLaw


def combined_by_stack(gradients, counts):
    kept = [(g, n) for g, n in zip(gradients, counts, strict=True) if n]
    shares = torch.tensor([n / sum(counts) for _, n in kept])
    return torch.einsum("r,r...->...", shares, torch.stack([g for g, _ in kept]))


def combined_in_numpy(gradients, counts, weights=None):
    kept = [i for i, n in enumerate(counts) if n > 0]
    weights = np.array(weights or counts)[kept]
    average = np.average([gradients[i].numpy() for i in kept], axis=0, weights=weights)
    return torch.from_numpy(average)


def combined_in_place(gradients, counts):
    for gradient, count in zip(gradients, counts, strict=True):
        gradient *= count
    return sum(g for g, n in zip(gradients, counts, strict=True) if n) / sum(counts)


def combined_by_nansum(gradients, counts):
    stacked = torch.stack(gradients)
    shares = torch.tensor(counts).view(-1, *[1] * (stacked.ndim - 1))
    return torch.nansum(stacked * shares, dim=0) / shares.sum()


def bytes_by_pieces(weights, ranks, parallel, micro_batches):
    piece, rounds = weights / ranks, ranks - 1
    if parallel == "ddp":
        return sum(piece * 4 for _ in range(2 * rounds))
    return rounds * piece * 4 * (1 + micro_batches)


def bytes_by_events(weights, ranks, parallel, micro_batches, gradient=4, every=False, gathers=2):
    """List what is sent, collective by collective."""
    half_ring = weights * (ranks - 1) / ranks
    sent = []
    for step in range(micro_batches):
        if parallel == "fsdp":
            sent += [2 * half_ring] * gathers
        if every or step == micro_batches - 1:
            sent += [gradient * half_ring] * (2 if parallel == "ddp" else 1)
    return math.fsum(sent)


def reshard_by_tensor(shards, world):
    numbers = torch.tensor([n for shard in shards for n in shard], dtype=torch.int64)
    chunks = [chunk.tolist() for chunk in numbers.chunk(world)] if len(numbers) else []
    return chunks + [[] for _ in range(world - len(chunks))]


def reshard_one_by_one(shards, world):
    numbers = list(itertools.chain.from_iterable(shards))
    new = [[] for _ in range(world)]
    for place, number in enumerate(numbers):
        new[place // math.ceil(len(numbers) / world)].append(number)
    return new


def reshard_by_numpy(shards, world):
    return [part.tolist() for part in np.array_split(np.array(sum(shards, []), dtype=int), world)]


def reshard_until_empty(shards, world):
    numbers = sum(shards, [])
    size, new = math.ceil(len(numbers) / world), []
    while numbers:
        new.append(numbers[:size])
        numbers = numbers[size:]
    return new


def reshard_in_strides(shards, world):
    """Cut as one usually cuts a list; without any numbers the stride is 0, which range refuses."""
    numbers = [number for shard in shards for number in shard]
    size = -(-len(numbers) // world)
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def cut_while_numbers_are_left(shards, world):
    numbers = sum(shards, [])
    size = len(numbers) // world or 1
    return [numbers[i : i + size] for i in range(0, len(numbers), size)][:world]


def best_by_law(flops, A, B, alpha, beta):
    return LossLaw(0.0, A, B, alpha, beta).optimal(flops)


def best_by_search(flops, A, B, alpha, beta, cost=6):
    """Search for the minimum over the logarithm of N, third by third."""

    def loss(x):
        return A * math.exp(-alpha * x) + B * (cost * math.exp(x) / flops) ** beta

    low, high = 0.0, math.log(flops)
    for _ in range(200):
        left, right = (2 * low + high) / 3, (low + 2 * high) / 3
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp(low), flops / cost / math.exp(low)


def best_by_logarithms(flops, A, B, alpha, beta, factors=True):
    ratio = math.log(A / B) + (math.log(alpha / beta) if factors else 0)
    n = math.exp((ratio + beta * math.log(flops / 6)) / (alpha + beta))
    return n, flops / (6 * n)


def bill_by_hours(weights, tokens, gpus, peak, utilisation, price):
    gpu_hours = 6 * weights * tokens / peak / utilisation / 3600
    return gpu_hours / gpus / 24, gpu_hours * price


def bill_by_seconds(weights, tokens, gpus, peak, utilisation, price, flops=6, paid=None):
    seconds = flops * weights * tokens / (gpus * peak * utilisation)
    return torch.tensor(seconds / 86400).double(), (paid or gpus) * price * seconds / 3600


ANSWERS = [
    ("combined_gradient", combined_by_stack, ""),
    ("combined_gradient", combined_in_numpy, ""),
    ("combined_gradient", lambda g, n: -combined_by_stack(g, n), "wrong value"),
    ("combined_gradient", lambda g, n: combined_by_stack(g[::-1], n), "wrong value"),
    ("combined_gradient", combined_in_place, "changed its input"),
    ("combined_gradient", combined_by_nansum, "nan swept away"),
    ("combined_gradient", lambda g, n: torch.stack(g).mean(dim=0), "a mean of means, over all ranks"),
    ("combined_gradient", lambda g, n: torch.stack(g).nanmean(dim=0), "wrong value"),
    ("combined_gradient", lambda g, n: combined_in_numpy(g, n, [1] * len(n)), "a mean of means"),
    ("combined_gradient", lambda g, n: torch.einsum("r...,r->...", torch.stack(g), torch.tensor(n).float()),
     "two things at once: not divided, and nothing times nan"),
    ("bytes_sent", bytes_by_pieces, ""),
    ("bytes_sent", bytes_by_events, ""),
    ("bytes_sent", lambda *a: str(bytes_by_pieces(*a)), "wrong type"),
    ("bytes_sent", lambda w, r, p, m: bytes_by_pieces(w, r, p, m) / 4, "wrong value"),
    ("bytes_sent", lambda w, r, p, m: bytes_by_pieces(w, r, p, m) + w, "wrong value"),
    ("bytes_sent", lambda *a: bytes_by_events(*a, gradient=2), "gradients in bfloat16"),
    ("bytes_sent", lambda *a: bytes_by_events(*a, every=True), "gradients after every micro-batch"),
    ("bytes_sent", lambda w, r, *a: r * bytes_by_pieces(w, r, *a), "a whole copy to everyone"),
    ("bytes_sent", lambda *a: bytes_by_events(*a, gradient=2, gathers=1),
     "two things at once: gathered once, and gradients in bfloat16"),
    ("reshard", reshard_by_tensor, ""),
    ("reshard", reshard_one_by_one, ""),
    ("reshard", lambda shards, world: reshard_by_tensor(shards, world)[::-1], "wrong value"),
    ("reshard", lambda shards, world: (part for part in reshard_by_tensor(shards, world)), "returned a generator"),
    ("reshard", lambda *a: [torch.tensor(part) for part in reshard_by_tensor(*a)], "wrong type"),
    ("reshard", reshard_by_numpy, "as even as can be"),
    ("reshard", reshard_until_empty, "ranks without numbers left out"),
    ("reshard", reshard_in_strides, "ranks without numbers left out"),
    ("reshard", lambda shards, world: reshard_by_tensor([sorted(set(sum(shards, [])))], world), "wrong value"),
    ("reshard", lambda shards, world: shards if len(shards) == world else reshard_one_by_one(shards, world),
     "wrong length"),
    ("reshard", cut_while_numbers_are_left,
     "two things at once: ranks without numbers left out, and rounded down, at least 1"),
    ("best_size", best_by_law, ""),
    ("best_size", best_by_search, ""),
    ("best_size", best_by_logarithms, ""),
    ("best_size", lambda f, *law: [round(n) for n in best_by_law(f, *law)], ""),
    ("best_size", lambda f, *law: [math.sqrt(f / 6)] * 2,
     "two things at once: half and half, and without the ratio"),
    ("best_size", lambda *a: best_by_search(*a, cost=1), "without the 6"),
    ("best_size", lambda *a: best_by_logarithms(*a, factors=False), "equal terms instead of equal slopes"),
    ("best_size", lambda *a: best_by_logarithms(*a, factors=False)[::-1],
     "two things at once: equal terms instead of equal slopes, and tokens before weights"),
    ("days_and_euros", bill_by_hours, ""),
    ("days_and_euros", bill_by_seconds, ""),
    ("days_and_euros", lambda *a: (bill_by_hours(*a)[0], round(bill_by_hours(*a)[1], 2)), ""),
    ("days_and_euros", lambda *a: (bill_by_hours(*a)[0] / 7, bill_by_hours(*a)[1]), "wrong value"),
    ("days_and_euros", lambda *a: bill_by_seconds(*a, flops=2), "forward alone"),
    ("days_and_euros", lambda *a: bill_by_seconds(*a, paid=1), "one GPU pays for all"),
    ("days_and_euros", lambda w, t, gpus, *a: bill_by_seconds(w, t, 1, *a, flops=1, paid=gpus),
     "two things at once: the 6 forgotten, and one GPU works alone"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
