"""Chapter 05's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tools import judged


def staircase(n_new, n_cached, see=lambda i, j: j <= i):
    rows = range(n_cached, n_cached + n_new)
    return torch.tensor([[see(i, j) for j in range(n_cached + n_new)] for i in rows])


def weights_by_hand(
    q, k, real, see=lambda i, j: j <= i, pad=True, scale=0.5, fill=-math.inf, empty=True
):
    """Return the weights of a padded batch, number by number."""
    B, T, D = q.shape
    weights = torch.zeros(B, T, T)
    for b, i in itertools.product(range(B), range(T)):
        seen = torch.tensor([see(i, j) and (bool(real[b, j]) or not pad) for j in range(T)])
        scores = torch.stack([(q[b, i] * k[b, j]).sum() / D**scale for j in range(T)])
        weights[b, i] = scores.masked_fill(~seen, fill).softmax(0)
        if empty and not seen.any():
            weights[b, i] = 0
    return weights


def with_nan_to_num(q, k, real):
    hidden = torch.ones(q.shape[1], q.shape[1]).triu(1).bool() | ~real.unsqueeze(1)
    scores = torch.einsum("bid,bjd->bij", q, k) * q.size(-1) ** -0.5
    return torch.nan_to_num(torch.where(hidden, -torch.inf, scores).softmax(-1))


def inverted(q, k, real):
    shown = torch.ones(q.shape[1], q.shape[1]).tril().bool() & real.unsqueeze(1)
    scores = q @ k.mT / math.sqrt(q.size(-1))
    return torch.nan_to_num(torch.where(shown, -torch.inf, scores).softmax(-1))


def head_by_head(q, k):
    group = q.shape[1] // k.shape[1]
    heads = [q[:, i] @ k[:, i // group].mT for i in range(q.shape[1])]
    return torch.stack(heads, dim=1) * q.shape[-1] ** -0.5


def heads_in_turn(q, k, scale=True):
    heads = [q[:, i] @ k[:, i % k.shape[1]].mT for i in range(q.shape[1])]
    return torch.stack(heads, dim=1) * (q.shape[-1] ** -0.5 if scale else 1)


def by_torch(q, k, v, n_head):
    q, k, v = (x.unflatten(-1, (n_head, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)


def in_pieces(q, k, v, n_head, width=None):
    """Attend with each slice of the channels by itself, and lay the results side by side."""
    parts = zip(*(x.chunk(n_head, dim=-1) for x in (q, k, v)))
    scale = (width or q.shape[-1] // n_head) ** -0.5
    heads = [F.scaled_dot_product_attention(*part, is_causal=True, scale=scale) for part in parts]
    return torch.cat(heads, dim=-1)


def head_by_torch(x, w_q, w_k, w_v):
    q, k, v = (x.matmul(w) for w in (w_q, w_k, w_v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def head_token_by_token(x, w_q, w_k, w_v, last=1, scale=True, dim=0):
    """Attend with a loop over texts and queries; each sees `last` keys up to its own place."""
    D = w_q.shape[1] if scale else 1
    result = torch.zeros(*x.shape[:2], w_v.shape[1])
    for b, t in itertools.product(range(x.shape[0]), range(x.shape[1])):
        seen = x[b, : t + last]
        scores = torch.mv(seen @ w_k, x[b, t] @ w_q) / D**0.5
        result[b, t] = F.softmax(scores, dim) @ (seen @ w_v)
    return result


def head_by_einsum(x, w_q, w_k, w_v):
    scores = torch.einsum("btc,cd,bsd->bts", x, w_q, x @ w_k) / w_q.size(1) ** 0.5
    T = x.size(1)
    scores = scores + torch.full((T, T), -torch.inf).triu(1)
    return scores.exp() / scores.exp().sum(-1, keepdim=True) @ x @ w_v


ANSWERS = [
    ("attention_head", head_by_torch, ""),
    ("attention_head", head_token_by_token, ""),
    ("attention_head", head_by_einsum, ""),
    ("attention_head", lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x @ v), "the mask is missing"),
    ("attention_head", lambda *a: head_token_by_token(*a, last=2), "a token sees the next one"),
    ("attention_head", lambda *a: head_token_by_token(*a, scale=False), "the square root is missing"),
    ("attention_head", lambda x, q, k, v: head_by_torch(x, k, q, v), "queries and keys exchanged"),
    ("attention_head", lambda x, q, k, v: head_by_torch(x.flip(1), q, k, v).flip(1), "the mask is on the wrong side"),
    ("attention_head", lambda *a: head_token_by_token(*a, last=2, scale=False),
     "two things at once: the square root is missing, and a token sees the next one"),
    ("step_mask", staircase, ""),
    ("step_mask", lambda n, c: torch.ones(n, n + c).tril(c).bool(), ""),
    ("step_mask", lambda n, c: torch.ones(n, n + c).tril(c), "wrong dtype"),
    ("step_mask", lambda n, c: torch.ones(n, n + c).tril(c + 1).bool(), "a new token sees the next one"),
    ("step_mask", lambda n, c: torch.ones(n, n + c).tril(c - 1).bool(), "a new token cannot see itself"),
    ("step_mask", lambda n, c: torch.ones(n, n + c).triu(c).bool(), "the future in place of the past"),
    ("step_mask", lambda n, c: torch.ones(n, n + c).tril().bool(), "aligned at the upper left"),
    ("step_mask", lambda n, c: torch.ones(n + c, n + c).tril().bool(), "rows for the cached tokens, too"),
    ("step_mask", lambda n, c: staircase(n, c, lambda i, j: c <= j <= i), "the cache is hidden"),
    ("step_mask", lambda n, c: torch.ones(n, n + c).triu().bool(),
     "two things at once: aligned at the upper left, and the future in place of the past"),
    ("masked_weights", weights_by_hand, ""),
    ("masked_weights", with_nan_to_num, ""),
    ("masked_weights", lambda *a: weights_by_hand(*a) * 2, "wrong value"),
    ("masked_weights", lambda q, k, real: weights_by_hand(k, q, real), "queries and keys exchanged"),
    ("masked_weights", lambda q, k, real: weights_by_hand(q, k, ~real), "the padding mask is inverted"),
    ("masked_weights", inverted, "the whole mask is inverted"),
    ("masked_weights", lambda *a: weights_by_hand(*a, fill=-1e9, empty=False),
     "a large negative number in place of -inf"),
    ("masked_weights", lambda *a: weights_by_hand(*a, fill=0.0, empty=False), "forbidden scores set to 0"),
    ("masked_weights", lambda *a: weights_by_hand(*a, empty=False), "nan for a query that sees nothing"),
    ("masked_weights", lambda *a: weights_by_hand(*a, scale=1, see=lambda i, j: j < i),
     "two things at once: a token cannot see itself, and divided by D"),
    ("masked_weights", lambda *a: weights_by_hand(*a, pad=False, scale=0),
     "two things at once: the padding mask is missing, and the square root of D is missing"),
    ("grouped_scores", head_by_head, ""),
    ("grouped_scores", lambda q, k: head_by_head(q.flip(1), k.flip(1)).flip(1), ""),
    ("grouped_scores", lambda q, k: head_by_head(q.flip(1), k), "wrong value"),
    ("grouped_scores", heads_in_turn, "key heads in turn"),
    ("grouped_scores", lambda q, k: torch.softmax(head_by_head(q, k), -1), "a softmax as well"),
    ("grouped_scores", lambda q, k: heads_in_turn(q, k, scale=False),
     "two things at once: key heads in turn, and the square root is missing"),
    ("multi_head", by_torch, ""),
    ("multi_head", in_pieces, ""),
    ("multi_head", lambda q, k, v, n: by_torch(q, k, v, 1), "a single head"),
    ("multi_head", lambda q, k, v, n: by_torch(k, q, v, n), "queries and keys exchanged"),
    ("multi_head", lambda *a: in_pieces(*a, width=a[0].shape[-1]), "scaled by the width of all heads"),
    ("multi_head", lambda q, k, v, n: in_pieces(k, q, v, n, width=q.shape[-1]),
     "two things at once: scaled by the width of all heads, and queries and keys exchanged"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
