"""Chapter 07's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
import torch.nn.functional as F
from tools import judged


def layer_norm_in_numpy(x, weight, bias, eps=1e-5):
    a = x.numpy().astype("float64")
    y = (a - a.mean(-1, keepdims=True)) / (a.var(-1, keepdims=True) + eps) ** 0.5
    return torch.from_numpy(y).float() * weight + bias


def layer_norm_by_loop(x, weight, bias, eps=1e-5, correction=0, affine=True):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        variance = row.var(correction=correction)
        row = (row - sum(row) / len(row)) / (variance + eps) ** 0.5
        rows.append(row * weight + bias if affine else row)
    return torch.stack(rows).reshape(x.shape)


def layer_norm_by_std(x, weight, bias, eps=1e-5, axes=-1):
    std, mean = torch.std_mean(x, dim=axes, keepdim=True, correction=0)
    return torch.addcmul(bias, (x - mean) / (std**2 + eps).sqrt(), weight)


def rms_norm_by_length(x, weight, eps=1e-5, wide=torch.float32, mean=True, root=0.5):
    """Divide by the Euclidean length over the root of the number of channels."""
    y = x.to(wide)
    size = y.norm(dim=-1, keepdim=True) ** 2
    size = size / x.shape[-1] if mean else size
    return (y / (size + eps) ** root * weight).to(x.dtype)


def rms_norm_widened_late(x, weight, eps=1e-5):
    mean_square = x.square().mean(-1, keepdim=True).float()
    return (x.float() / (mean_square + eps).sqrt() * weight.float()).to(x.dtype)


def rms_norm_by_einsum(x, weight, eps=1e-5):
    y = x.to(torch.float64)
    scale = (torch.einsum("...c,...c->...", y, y) / y.shape[-1] + eps) ** -0.5
    return torch.einsum("...c,...,c->...c", y, scale, weight.double()).type_as(x)


def rms_norm_of_llama(x, weight, eps=1e-5):
    y = x.to(torch.float32)
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    return weight * y.to(x.dtype)


def walk(x, branches, norm):
    return walk(x + branches[0](norm(x)), branches[1:], norm) if branches else x


def stack_by_list(x, branches, norm):
    stream = [x]
    for branch in branches:
        stream.append(branch(norm(sum(stream))))
    return norm(sum(stream))


def stack_with_post_norm(x, branches, norm):
    for branch in branches:
        x = norm(torch.add(x, branch(x)))
    return x


def fold_by_probing(gain, shift, weight, bias):
    """Push zeros and unit vectors through norm and layer, and read the new layer off."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, bias
    with torch.no_grad():
        at_zero = layer(shift)
        return (layer(torch.diag(gain) + shift) - at_zero).T, at_zero


def fold_in_numpy(gain, shift, weight, bias):
    w = weight.double().numpy()
    rows = [[float(v) * g for v, g in zip(row, gain.tolist())] for row in w]
    return [torch.tensor(rows), torch.from_numpy((w * shift.numpy()).sum(1)).float() + bias]


def fold_in_place(gain, shift, weight, bias):
    bias = bias + F.linear(shift, weight)
    weight *= gain
    return weight, bias


ANSWERS = [
    ("layer_norm", layer_norm_in_numpy, ""),
    ("layer_norm", layer_norm_by_loop, ""),
    ("layer_norm", layer_norm_by_std, ""),
    ("layer_norm", lambda x, w, b, e=1e-5: F.layer_norm(x, w.shape, w, b, e), ""),
    ("layer_norm", lambda x, w, b, e=1e-5: F.layer_norm(x, w.shape, b, w, e), "wrong value"),
    ("layer_norm", lambda x, w, b, e=1e-5: layer_norm_by_std(x, w, b), "wrong value"),
    ("layer_norm", lambda *a: layer_norm_by_loop(*a, affine=False),
     "two things at once: the weight is ignored, and the bias is ignored"),
    ("layer_norm", lambda *a: layer_norm_by_std(*a, axes=0), "the wrong axis"),
    ("layer_norm", lambda x, w, b, e=1e-5: (x - x.mean(-1)) / (x.var(-1, False) + e) ** 0.5 * w + b, "raised"),
    ("layer_norm", lambda x, w, b, e=1e-5: (x - x.mean(-1, True)) / (x.var(-1, keepdim=True) + e) ** 0.5 * w + b,
     "unbiased variance"),
    ("layer_norm", lambda x, w, b, e=1e-5: F.rms_norm(x, w.shape, w, e) + b, "the mean is not removed"),
    ("layer_norm", lambda x, w, b, e=1e-5: (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + e) * w + b,
     "two things at once: eps outside the root, and unbiased variance"),
    ("layer_norm", lambda x, w, b, *e: layer_norm_by_loop(x, torch.ones_like(w), b, *e, correction=1),
     "two things at once: unbiased variance, and the weight is ignored"),
    ("rms_norm", lambda x, w, e=1e-5: F.rms_norm(x, w.shape, w, e), ""),
    ("rms_norm", rms_norm_by_length, ""),
    ("rms_norm", rms_norm_by_einsum, ""),
    ("rms_norm", lambda *a: rms_norm_by_length(*a, wide=a[0].dtype), "statistics in half precision"),
    ("rms_norm", rms_norm_widened_late, "statistics in half precision"),
    ("rms_norm", lambda *a: rms_norm_by_length(*a, root=1), "the root is forgotten"),
    ("rms_norm", rms_norm_of_llama, ""),
    ("rms_norm", lambda x, w, e=1e-5: F.layer_norm(x, w.shape, w, None, e), "the mean is removed"),
    ("rms_norm", lambda *a: rms_norm_by_length(*a, mean=False), "sum instead of mean"),
    ("rms_norm", lambda *a: rms_norm_by_length(*a, mean=False, root=1),
     "two things at once: the root is forgotten, and sum instead of mean"),
    ("rms_norm", lambda x, w, e=1e-5: F.normalize(x.float(), dim=-1).to(x.dtype) * w, "wrong value"),
    ("fold_norm", fold_by_probing, ""),
    ("fold_norm", fold_in_numpy, ""),
    ("fold_norm", lambda g, s, w, b: (w @ g.diag(), F.linear(s, w, b)), ""),
    ("fold_norm", lambda g, s, w, b: (torch.einsum("dc,c->dc", w, g), F.linear(s, w * g, b)),
     "the shift through the new weight"),
    ("fold_norm", lambda g, s, w, b: (w @ g.diag(), b), "the shift is forgotten"),
    ("fold_norm", lambda g, s, w, b: (w @ g.diag(), torch.mv(w, s)), "the old bias is forgotten"),
    ("fold_norm", lambda g, s, w, b: (g.diag() @ w, F.linear(s, w, b)), "the rows are scaled"),
    ("fold_norm", lambda g, s, w, b: (w @ g.diag(), s.add(b)), "the shift is added as it is"),
    ("fold_norm", lambda g, s, w, b: (g[:, None] * w.mT, F.linear(s, w, b)), "the weight is transposed"),
    ("fold_norm", fold_in_place, "the given weight is changed"),
    ("fold_norm", lambda g, s, w, b: (w, torch.mv(w, s)),
     "two things at once: the old bias is forgotten, and the gain is ignored"),
    ("run_stack", lambda x, branches, norm: norm(walk(x, branches, norm)), ""),
    ("run_stack", lambda x, branches, norm: norm(reduce(lambda y, f: y + f(norm(y)), branches, x)), ""),
    ("run_stack", stack_by_list, ""),
    ("run_stack", walk, "the last norm is missing"),
    ("run_stack", stack_with_post_norm, "post-norm"),
    ("run_stack", lambda x, branches, norm: stack_by_list(x, branches, lambda y: y),
     "two things at once: the last norm is missing, and no norm in the branches"),
    ("run_stack", lambda x, branches, norm: norm(walk(x, branches[::-1], norm)), "wrong value"),
    ("run_stack", lambda x, branches, norm: reduce(lambda y, f: f(norm(y)), branches, x),
     "two things at once: the last norm is missing, and no residual connection"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
