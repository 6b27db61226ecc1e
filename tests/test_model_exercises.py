"""Chapter 09: the exercises answered in a different style, right and wrong."""

from __future__ import annotations

import pytest
import torch
from tools import judged


def count_on_meta(V, M, C, L, H, K, tie):
    """Count the parameters of PyTorch's layers."""
    with torch.device("meta"):
        layers = [torch.nn.Linear(C, C + 2 * K * (C // H)), torch.nn.Linear(C, C)]
        layers += [torch.nn.Linear(C, 4 * C), torch.nn.Linear(4 * C, C)]
        layers += [torch.nn.LayerNorm(C), torch.nn.LayerNorm(C)]
    one = sum(weight.numel() for layer in layers for weight in layer.parameters())
    return L * one + V * C * (2 - tie) + M * C + 2 * C


def loss_target_by_target(logits, ids):
    log_probs = logits.double().log_softmax(-1)
    places = [
        (b, t) for b in range(len(ids)) for t in range(ids.shape[1] - 1) if ids[b, t + 1] != -100
    ]

    if not places:
        return torch.tensor(0.0)
    return -sum(log_probs[b, t, ids[b, t + 1]] for b, t in places) / len(places)


def loss_by_pytorch(logits, ids):
    targets = ids[:, 1:]
    if (targets == -100).all():
        return torch.tensor(0.0)
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), targets)


def std_by_parts(name, n):
    parts = name.split(".")

    if parts[-1] == "bias" or parts[-2].startswith("norm"):
        return 0
    return 0.02 * (2 * n) ** -0.5 if parts[-2] in ("proj", "down") else 0.02


def run_with_einsum(ids, table, places, blocks, norm):
    x = table[ids] + places[: ids.shape[1]]
    for block in blocks:
        x = block(x)

    return torch.einsum("btc,vc->btv", norm(x), table)


def redraw_by_identity(weights, draw):
    fresh = {}
    for tensor in weights.values():
        if id(tensor) not in fresh:
            fresh[id(tensor)] = draw(tensor.shape)

    return {name: fresh[id(tensor)] for name, tensor in weights.items()}


ANSWERS = [
    ("count_gpt2", count_on_meta, ""),
    ("count_gpt2", lambda *sizes: count_on_meta(*sizes) + 1, "wrong value"),
    ("lm_loss", loss_target_by_target, ""),
    ("lm_loss", loss_by_pytorch, ""),
    ("lm_loss", lambda logits, ids: loss_by_pytorch(logits, ids) * 2, "wrong value"),
    ("first_std", std_by_parts, ""),
    ("first_std", lambda name, n: std_by_parts(name, n) / 2, "wrong value"),
    ("run_model", run_with_einsum, ""),
    (
        "run_model",
        lambda i, t, p, b, n: run_with_einsum(i, t, p, b[::-1], n),
        "the blocks in reverse",
    ),
    ("redraw", redraw_by_identity, ""),
]


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_an_answer_in_a_different_style_gets_its_verdict(name, answer, diagnosis):
    judged(name, answer, diagnosis)
