"""Chapter 09's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from tools import judged

from minigpt_lib.model import GPTConfig, MiniGPT


def gpt2_by_the_library(ids, w, n_layer, n_head, **choices):
    V, C = w["embedding.weight"].shape
    T = len(w["position.weight"])
    sizes = {"n_embd": C, "n_layer": n_layer, "n_head": n_head, "max_seq_len": T}
    model = MiniGPT(GPTConfig(V, **sizes, **{"ffn": "gelu_tanh", **choices}))
    model.load_state_dict(w)
    return model(ids)[0].detach()


def gpt2_text_by_text(
    ids, w, n_layer, n_head, last=0, add=True, positions=True, final=True, act=None
):
    """Compute everything without PyTorch's layers; queries see `last` tokens beyond their own."""

    def dot(x, name):
        return x @ w[name + ".weight"].mT + w[name + ".bias"]

    def normed(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    def gelu(x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    texts = []
    for text in ids:
        x = w["embedding.weight"][text]
        if positions:
            x = x + w["position.weight"][torch.arange(len(text))]
        for b in (f"blocks.{i}." for i in range(n_layer)):
            q, k, v = dot(normed(x, b + "norm1"), b + "attention.qkv").chunk(3, -1)
            D = q.shape[1] // n_head
            mixed = torch.zeros_like(q)
            for h in range(n_head):
                cut = slice(h * D, (h + 1) * D)
                for t in range(len(text)):
                    seen = slice(0, t + 1 + last)
                    weights = torch.softmax(k[seen, cut] @ q[t, cut] / D**0.5, 0)
                    mixed[t, cut] = weights @ v[seen, cut]
            attended = dot(mixed, b + "attention.proj")
            x = x + attended if add else attended
            x = x + dot((act or gelu)(dot(normed(x, b + "norm2"), b + "ffn.up")), b + "ffn.down")
        texts.append((normed(x, "norm") if final else x) @ w["embedding.weight"].mT)
    return torch.stack(texts)


def gpt2_by_functions(ids, w, n_layer, n_head, attend):
    """Compute everything but the heads with PyTorch's functions; attend(qkv, n_head) returns (B, T, C)."""

    def layer(function, x, name):
        return function(x, *(w[f"{name}.{kind}"] for kind in ("weight", "bias")))

    def normed(x, weight, bias):
        return F.layer_norm(x, weight.shape, weight, bias)

    x = w["embedding.weight"][ids] + w["position.weight"][: ids.shape[1]]
    for i in range(n_layer):
        b = f"blocks.{i}."
        qkv = layer(F.linear, layer(normed, x, b + "norm1"), b + "attention.qkv")
        x = x + layer(F.linear, attend(qkv, n_head), b + "attention.proj")
        wide = layer(F.linear, layer(normed, x, b + "norm2"), b + "ffn.up")
        x = x + layer(F.linear, F.gelu(wide, approximate="tanh"), b + "ffn.down")
    return layer(normed, x, "norm") @ w["embedding.weight"].T


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def heads_in_order(qkv, n_head):
    q, k, v = (part.unflatten(2, (n_head, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    return attend(q, k, v).transpose(1, 2).flatten(2)


def heads_scattered(qkv, n_head):
    q, k, v = (part.unflatten(2, (-1, n_head)).permute(0, 3, 1, 2) for part in qkv.chunk(3, dim=2))
    return attend(q, k, v).permute(0, 2, 3, 1).flatten(2)


def heads_cut_scattered(qkv, n_head):
    q, k, v = (
        part.unflatten(2, (-1, n_head)).movedim(3, 1) for part in qkv.split(qkv.shape[2] // 3, 2)
    )
    return torch.cat(attend(q, k, v).unbind(dim=1), dim=2)


def heads_merged_scattered(qkv, n_head):
    q, k, v = (part.unflatten(2, (n_head, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    return torch.stack(attend(q, k, v).unbind(dim=1), dim=3).flatten(2)


def heads_among_themselves(qkv, n_head):
    q, k, v = (part.unflatten(2, (n_head, -1)) for part in qkv.chunk(3, dim=2))
    return attend(q, k, v).flatten(2)


def heads_first(qkv, n_head):
    pieces = [head.chunk(3, dim=2) for head in qkv.chunk(n_head, dim=2)]
    return torch.cat([attend(q, k, v) for q, k, v in pieces], dim=2)


def count_on_meta(V, M, C, L, H, K, tie, bias=True, norms=True, positions=True):
    """Count the parameters of PyTorch's layers."""
    with torch.device("meta"):
        layers = [torch.nn.Linear(C, C + 2 * K * (C // H), bias), torch.nn.Linear(C, C, bias)]
        layers += [torch.nn.Linear(C, 4 * C, bias), torch.nn.Linear(4 * C, C, bias)]
        layers += [torch.nn.LayerNorm(C), torch.nn.LayerNorm(C)]
    one = sum(weight.numel() for layer in layers for weight in layer.parameters())
    return L * one + V * C * (2 - tie) + M * C * positions + 2 * C * norms


def count_by_shapes(V, M, C, L, H, K, tie):
    kv = C / H * K
    block = [
        (C, C + 2 * kv),
        (1, C + 2 * kv),
        (C, C),
        (1, C),
        (C, 4 * C),
        (1, 4 * C),
        (4 * C, C),
        (1, C),
        (4, C),
    ]
    shapes = block * L + [(V, C), (M, C), (2, C)] + ([] if tie else [(V, C)])
    return sum(math.prod(shape) for shape in shapes)


def loss_target_by_target(logits, ids, ahead=1, base=math.e):
    log_probs = logits.double().log_softmax(-1)
    T = ids.shape[1]
    positions = [
        (b, t) for b in range(len(ids)) for t in range(T - ahead) if ids[b, t + ahead] != -100
    ]

    if not positions:
        return torch.tensor(0.0)
    total = sum(log_probs[b, t, ids[b, t + ahead]] for b, t in positions)
    return -total / len(positions) / math.log(base)


def loss_by_pytorch(logits, ids):
    targets = ids[:, 1:]
    if (targets == -100).all():
        return torch.tensor(0.0)
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), targets)


def loss_by_gather(logits, ids):
    targets = ids[:, 1:]
    real = (targets >= 0).float()
    logits = logits[:, :-1]
    chosen = logits.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    losses = (torch.logsumexp(logits, -1) - chosen) * real
    return losses.sum() / real.sum().clamp(min=1)


def loss_of_a_padded_copy(logits, ids):
    """Shift the ids and fill up with what is ignored, as Hugging Face does."""
    targets = F.pad(ids, (0, 1), value=-100)[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    return torch.nan_to_num(loss)


def std_by_parts(name, n, tail=("proj", "down"), plain=0.02):
    parts = name.split(".")

    if parts[-1] == "bias" or parts[-2].startswith("norm"):
        return 0
    return 0.02 * (2 * n) ** -0.5 if parts[-2] in tail else plain


def std_by_pattern(name, n_layer):
    if re.search(r"norm\d?\.|bias$", name):
        return 0.0
    last = re.fullmatch(r"blocks\.\d+\.(attention\.proj|ffn\.down)\.weight", name)
    return 0.02 / math.sqrt(n_layer * (2 if last else 0) or 1)


def std_of_the_last_block(name, n_layer):
    ends = [f"blocks.{n_layer - 1}.{part}.weight" for part in ("attention.proj", "ffn.down")]
    if name in ends:
        return 0.02 / math.sqrt(2 * n_layer)
    return 0.0 if "norm" in name or "bias" in name else 0.02


def run_with_einsum(ids, table, positions, blocks, norm):
    x = table[ids] + positions[: ids.shape[1]]
    for block in blocks:
        x = block(x)

    return torch.einsum("btc,vc->btv", norm(x), table)


def run_with_embedding(ids, embedding, positions, blocks, norm):
    x = F.embedding(ids, embedding)
    x = x + F.embedding(torch.arange(ids.size(1)), positions)
    return F.linear(norm(torch.nn.Sequential(*map(AsModule, blocks))(x)), embedding)


class AsModule(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def run_with_positions_at_the_first_block(ids, embedding, positions, blocks, norm):
    x = embedding[ids]
    for i, block in enumerate(blocks):
        x = block(x + positions[: ids.shape[1]] if i == 0 else x)
    return norm(x) @ embedding.T


def run_recursively(ids, embedding, positions, blocks, norm):
    def after(n):
        bottom = embedding[ids] + positions[: ids.shape[1]]
        return blocks[n - 1](after(n - 1) + positions[: ids.shape[1]]) if n else bottom

    return norm(after(len(blocks))) @ embedding.mT


def redraw_by_identity(weights, draw):
    fresh = {}
    for tensor in weights.values():
        if id(tensor) not in fresh:
            fresh[id(tensor)] = draw(tensor.shape)

    return {name: fresh[id(tensor)] for name, tensor in weights.items()}


def redraw_by_first_name(weights, draw, same=lambda a, b: a is b):
    fresh = {}
    for name, tensor in weights.items():
        first = next(other for other in weights if same(weights[other], tensor))
        fresh[name] = fresh[first] if first in fresh else draw(tensor.shape)
    return fresh


def redraw_by_tensor(weights, draw):
    fresh = {tensor: draw(tensor.shape) for tensor in set(weights.values())}
    return dict(zip(weights, map(fresh.get, weights.values())))


def redraw_in_place(weights, draw):
    for tensor in weights.values():
        tensor.copy_(draw(tensor.shape))
    return weights


ANSWERS = [
    ("gpt2_logits", gpt2_by_the_library, ""),
    ("gpt2_logits", gpt2_text_by_text, ""),
    ("gpt2_logits", lambda *a: gpt2_by_the_library(*a, ffn="gelu"), "the exact GELU"),
    ("gpt2_logits", lambda *a: gpt2_by_the_library(*a, ffn="relu"), "ReLU in place of GELU"),
    ("gpt2_logits", lambda *a: gpt2_text_by_text(*a, last=99), "the future is seen"),
    ("gpt2_logits", lambda *a: gpt2_text_by_text(*a, last=1), "wrong value"),
    ("gpt2_logits", lambda *a: gpt2_text_by_text(*a, add=False), "attention is not added to the stream"),
    ("gpt2_logits", lambda ids, w, L, H: gpt2_text_by_text(ids, w, L, 1), "one head only"),
    ("gpt2_logits", lambda *a: gpt2_text_by_text(*a).mT, "wrong shape"),
    ("gpt2_logits", lambda *a: gpt2_by_functions(*a, heads_in_order), ""),
    ("gpt2_logits", lambda *a: gpt2_by_functions(*a, heads_scattered), "heads of scattered channels"),
    ("gpt2_logits", lambda *a: gpt2_by_functions(*a, heads_cut_scattered), "heads of scattered channels"),
    ("gpt2_logits", lambda *a: gpt2_by_functions(*a, heads_merged_scattered), "heads transposed when they are merged"),
    ("gpt2_logits", lambda *a: gpt2_by_functions(*a, heads_among_themselves), "heads looking at heads"),
    ("gpt2_logits", lambda *a: gpt2_by_functions(*a, heads_first), "cut into heads before queries, keys and values"),
    ("gpt2_logits", lambda *a: gpt2_text_by_text(*a, positions=False, final=False),
     "two things at once: the final norm forgotten, and positions forgotten"),
    ("gpt2_logits", lambda *a: gpt2_text_by_text(*a, last=99, act=lambda x: x),
     "two things at once: the future is seen, and no activation"),
    ("count_gpt2", count_on_meta, ""),
    ("count_gpt2", lambda *a: int(count_by_shapes(*a)), ""),
    ("count_gpt2", count_by_shapes, "wrong type"),
    ("count_gpt2", lambda *sizes: count_on_meta(*sizes) + 1, "wrong value"),
    ("count_gpt2", lambda *a: count_on_meta(*a, bias=False), "no biases in the linear layers"),
    ("count_gpt2", lambda V, *a: count_on_meta(V, *a) + (not a[-1]) * V, "a bias in the head"),
    ("count_gpt2", lambda *a: count_on_meta(*a[:-1], not a[-1]), "tie read the wrong way round"),
    ("count_gpt2", lambda *a: count_on_meta(*a[:-1], True, norms=False),
     "two things at once: the head is never counted, and the last norm forgotten"),
    ("count_gpt2", lambda *a: count_on_meta(*a, bias=False, positions=False),
     "two things at once: no biases in the linear layers, and positions forgotten"),
    ("lm_loss", loss_target_by_target, ""),
    ("lm_loss", loss_by_pytorch, ""),
    ("lm_loss", loss_by_gather, ""),
    ("lm_loss", loss_of_a_padded_copy, ""),
    ("lm_loss", lambda logits, ids: loss_by_pytorch(logits, ids) * 2, "wrong value"),
    ("lm_loss", lambda *a: loss_target_by_target(*a, base=2), "wrong value"),
    ("lm_loss", lambda *a: float(loss_by_gather(*a)), "wrong type"),
    ("lm_loss", lambda *a: loss_target_by_target(*a, ahead=0), "not shifted at all"),
    ("lm_loss", lambda *a: loss_target_by_target(*a, ahead=2), "shifted twice"),
    ("lm_loss", lambda logits, ids: F.cross_entropy(logits[:, :-1].mT, ids[:, 1:]), "nan when nothing counts"),
    ("lm_loss", lambda logits, ids: loss_by_gather(logits.log_softmax(-1).exp(), ids),
     "softmax before the cross-entropy"),
    ("lm_loss", lambda logits, ids: F.cross_entropy(logits.mT, ids),
     "two things at once: not shifted at all, and nan when nothing counts"),
    ("lm_loss", lambda logits, ids: F.cross_entropy(logits[:, 1:].mT, ids[:, :-1]),
     "two things at once: shifted the wrong way, and nan when nothing counts"),
    ("lm_loss", lambda logits, ids: F.cross_entropy(logits.flatten(0, 1)[:-1], ids.flatten()[1:]),
     "two things at once: flattened before the shift, and nan when nothing counts"),
    ("first_std", std_by_parts, ""),
    ("first_std", std_by_pattern, ""),
    ("first_std", lambda name, n: std_by_parts(name, n) / 2, "wrong value"),
    ("first_std", std_of_the_last_block, "only the last block scaled"),
    ("first_std", lambda *a: std_by_parts(*a, tail=()), "no scaling at all"),
    ("first_std", lambda *a: std_by_parts(*a, tail=("down", "out_proj")), "attention is not scaled"),
    ("first_std", lambda name, n: std_by_parts(name, n / 2, tail=("proj",)),
     "two things at once: one branch a layer, and feed-forward is not scaled"),
    ("first_std", lambda *a: std_by_parts(*a, plain=0.01), "wrong value"),
    ("run_model", run_with_einsum, ""),
    ("run_model", run_with_embedding, ""),
    ("run_model", run_with_positions_at_the_first_block, ""),
    ("run_model", lambda i, t, p, b, n: run_with_einsum(i, t, p, b[::-1], n), "the blocks in reverse"),
    ("run_model", run_recursively, "in every layer, and at the bottom too"),
    ("run_model", lambda i, t, p, b, n: run_with_einsum(i, t, p.flip(0), b, n), "wrong value"),
    ("run_model", lambda i, t, p, b, n: run_with_einsum(i, t, 0 * p, b, lambda x: x),
     "two things at once: positions forgotten, and the final norm forgotten"),
    ("redraw", redraw_by_identity, ""),
    ("redraw", redraw_by_first_name, ""),
    ("redraw", redraw_by_tensor, ""),
    ("redraw", lambda *a: redraw_by_first_name(*a, same=torch.equal), "tied by their numbers"),
    ("redraw", lambda *a: redraw_by_first_name(*a, same=lambda x, y: x.shape == y.shape), "tied by shape"),
    ("redraw", lambda w, draw: dict(sorted(redraw_by_tensor(w, draw).items())), "wrong value"),
    ("redraw", lambda w, draw: redraw_by_first_name(w, lambda shape: draw(shape[::-1])), "wrong value"),
    ("redraw", redraw_in_place, "changed its input"),
    ("redraw", lambda *a: list(redraw_by_tensor(*a).values()), "wrong type"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
