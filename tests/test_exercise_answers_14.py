"""Chapter 14's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tools import judged
from torch.nn import functional as F


def chatml_by_join(messages):
    return "".join(
        ["<|im_start|>" + m["role"] + "\n" + m["content"] + "<|im_end|>\n" for m in messages]
    )


def chatml_by_template(messages, template="<|im_start|>%s\n%s<|im_end|>\n"):
    return "".join(template % (m["role"], m["content"]) for m in messages)


def chatml_in_lines(messages):
    lines = []
    for m in messages:
        lines += ["<|im_start|>" + m["role"], m["content"] + "<|im_end|>"]
    return "\n".join(lines)


def render_by_masks(messages, encode, start, end):
    pieces = []
    for m in messages:
        mine = m["role"] == "assistant"
        pieces += [([start], False), (encode(m["role"]), False), (encode("\n"), False)]
        pieces += [(encode(m["content"]), mine), ([end], mine), (encode("\n"), False)]
    return sum((p for p, _ in pieces), []), [i if mine else -100 for p, mine in pieces for i in p]


def render_by_where(
    messages, encode, start, end, who=("assistant",), places=(2, 3), special=False, first=0
):
    """Learn what stands at these places: start, role, words, end, line break."""
    ids, learned = [], []
    for m in messages:
        words = encode(m["content"], special=special)
        parts = [[start], encode(m["role"] + "\n"), words, [end], encode("\n")]
        ids.extend(i for part in parts for i in part)
        for place, part in enumerate(parts):
            learned += [m["role"] in who and place in places] * len(part)
    labels = np.where(learned, ids, -100).tolist()
    return ids, labels[first:] + [-100] * first


def render_as_tensors(*arguments):
    return tuple(torch.tensor(row) for row in render_by_masks(*arguments))


def packed_by_loops(lengths, T):
    mask, positions, at = torch.zeros(T, T, dtype=torch.bool), torch.zeros(T).long(), 0
    for n in [*lengths, T - sum(lengths)]:
        for q in range(n):
            mask[at + q, at : at + q + 1] = True
            positions[at + q] = q if at < sum(lengths) else 0
        at += n
    return mask, positions


def packed_by_blocks(lengths, T, padded=torch.zeros_like, kind=torch.bool):
    """Join triangles along the diagonal, and counts behind one another."""
    left = torch.arange(T - sum(lengths))
    sizes = [n for n in [*lengths, len(left)] if n]
    mask = torch.block_diag(*(torch.ones(n, n).tril() for n in sizes)).to(kind)
    return mask, torch.cat([*(torch.arange(n) for n in lengths), padded(left)])


def packed_by_index(lengths, T, first=0, apart=True):
    """Compare the first places of the dialogs; numbers are NumPy's."""
    starts = np.repeat(np.cumsum([0, *lengths]), [*lengths, T - sum(lengths)])
    place = np.arange(T)
    mask = place[:, None] >= place
    if apart:
        mask &= starts[:, None] == starts
    positions = np.where(place < sum(lengths), place - starts + first, 0)
    return torch.from_numpy(mask), torch.from_numpy(positions)


def packed_with_floats(lengths, T):
    mask, positions = packed_by_loops(lengths, T)
    return mask, positions * 1.0


def packed_in_int32(lengths, T):
    mask, positions = packed_by_blocks(lengths, T)
    return mask, positions.int()


def packed_the_wrong_way(lengths, T):
    mask, positions = packed_by_loops(lengths, T)
    return ~mask, positions


def loss_by_gathering(logits, labels):
    found = []
    for row, wanted in zip(logits.log_softmax(-1), labels):
        found += [-row[t - 1, wanted[t]] for t in range(1, len(wanted)) if wanted[t] != -100]
    return torch.stack(found).mean() if found else torch.zeros(())


def loss_by_torch(logits, labels, guard=True):
    """Let cross_entropy skip -100 and take the mean."""
    if guard and labels[:, 1:].max() < 0:
        return logits.sum() * 0
    return F.cross_entropy(logits[:, :-1].mT, labels[:, 1:])


def loss_by_one_hot(logits, labels, shift=1, divide=True):
    T = labels.shape[1]
    wanted = labels[:, shift:]
    table = F.one_hot(wanted.clamp(min=0), logits.shape[-1]) * (wanted >= 0)[..., None]
    nats = -torch.einsum("btv,btv->", table.float(), logits[:, : T - shift].log_softmax(-1))
    return nats / max(1, int((wanted >= 0).sum()) if divide else wanted.numel())


def loss_of_one_long_row(logits, labels):
    scores, wanted = logits.flatten(0, 1)[:-1], labels.flatten()[1:]
    return F.nll_loss(scores.log_softmax(-1), wanted, reduction="sum") / max(1, (wanted >= 0).sum())


def conversation_by_flattening(system, turns, question):
    texts = [text for turn in turns for text in turn] + [question]
    spoken = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + spoken


def conversation_recursive(system, turns, question):
    last = {"role": "user", "content": question}
    if not turns:
        return [*([{"role": "system", "content": system}] if system else ()), last]
    *older, (asked, said) = turns
    so_far = conversation_recursive(system, older, asked)
    return [*so_far, {"role": "assistant", "content": said}, last]


def merged_by_columns(W, A, B, alpha):
    """Ask the layer with its detour for each unit vector."""
    columns = []
    for x in torch.eye(W.shape[1]):
        columns.append(W @ x + alpha * (B @ (A @ x)) / len(A))
    return torch.stack(columns, dim=1)


def merged_by_einsum(W, A, B, alpha, sign=1, rank=len):
    return W + sign * torch.einsum("or,ri->oi", B, A) * alpha / rank(A)


def merged_in_place(W, A, B, alpha):
    W += alpha / len(A) * B @ A
    return W


ANSWERS = [
    ("chatml", chatml_by_join, ""),
    ("chatml", chatml_by_template, ""),
    ("chatml", lambda m: chatml_by_join(m).replace("\n", "\r\n"), "wrong value"),
    ("chatml", lambda m: chatml_by_join(m[::-1]), "wrong value"),
    ("chatml", lambda m: chatml_by_join(m)[:-1], "no line break at the very end"),
    ("chatml", chatml_in_lines, "no line break at the very end"),
    ("chatml", lambda m: chatml_by_template(m[-1:]), "only the last turn"),
    ("chatml", lambda m: chatml_by_template(m, "<|im_start|>%s\n%s\n"), "no end of a turn"),
    ("chatml", lambda m: chatml_by_template(m, "<|im_start|>%s %s<|im_end|>"),
     "two things at once: no line break after a turn, and a space instead of a line break"),
    ("render", render_by_masks, ""),
    ("render", render_by_where, ""),
    ("render", lambda *a: render_by_masks(*a)[::-1], "wrong value"),
    ("render", lambda *a: (render_by_masks(*a)[0], render_by_masks(*a)[0]), "labels are the ids"),
    ("render", render_as_tensors, "wrong type"),
    ("render", lambda *a: tuple(map(tuple, render_by_where(*a))), "wrong type"),
    ("render", lambda *a: render_by_where(*a, places=(0, 1, 2, 3)), "the role learned"),
    ("render", lambda *a: render_by_where(*a, places=(1, 2, 3)), "the role learned"),
    ("render", lambda *a: render_by_where(*a, who=("assistant", "system")), "the system message learned"),
    ("render", lambda *a: render_by_where(*a, who=("assistant", "user"), places=(2,)),
     "two things at once: loss on the user's turn, and end of turn never trained"),
    ("render", lambda *a: render_by_where(*a, special=True, first=1),
     "two things at once: user text tokenized with specials allowed, and labels shifted already"),
    ("packed_row", packed_by_loops, ""),
    ("packed_row", packed_by_blocks, ""),
    ("packed_row", packed_by_index, ""),
    ("packed_row", packed_the_wrong_way, "True where it is forbidden"),
    ("packed_row", lambda lengths, T: packed_by_loops(sorted(lengths), T), "wrong value"),
    ("packed_row", packed_in_int32, "positions of another type"),
    ("packed_row", packed_with_floats, "positions of another type"),
    ("packed_row", lambda *a: (packed_by_loops(*a)[0], packed_by_loops(*a)[1].tolist()), "wrong type"),
    ("packed_row", lambda *a: packed_by_blocks(*a, padded=torch.clone), "padding has positions"),
    ("packed_row", lambda *a: packed_by_blocks(*a, kind=torch.int64), "zeros and ones instead of a boolean mask"),
    ("packed_row", lambda *a: packed_by_index(*a, first=1, apart=False),
     "two things at once: packing that sees the neighbour, and positions from 1"),
    ("answer_loss", loss_by_gathering, ""),
    ("answer_loss", loss_by_torch, ""),
    ("answer_loss", loss_by_one_hot, ""),
    ("answer_loss", lambda x, y: -loss_by_gathering(x, y), "the sign turned"),
    ("answer_loss", lambda x, y: loss_by_gathering(x.softmax(-1), y), "a softmax before the loss"),
    ("answer_loss", lambda x, y: loss_by_torch(x, y, guard=False), "nan for a batch without targets"),
    ("answer_loss", loss_of_one_long_row, "flattened before the shift"),
    ("answer_loss", torch.no_grad()(loss_by_one_hot), "cut off from the logits"),
    ("answer_loss", lambda x, y: loss_by_one_hot(x, y, shift=2), "labels shifted twice"),
    ("answer_loss", lambda x, y: loss_by_torch(x / 2, y), "wrong value"),
    ("answer_loss", lambda x, y: loss_by_one_hot(x, y, shift=0, divide=False),
     "two things at once: not shifted at all, and padding counted in the mean"),
    ("next_messages", conversation_by_flattening, ""),
    ("next_messages", conversation_recursive, ""),
    ("next_messages", lambda s, t, q: conversation_by_flattening(s, t[::-1], q), "newest first"),
    ("next_messages", lambda s, t, q: conversation_by_flattening(s, t[-2:], q), "wrong length"),
    ("next_messages", lambda s, t, q: conversation_recursive(s, list(dict(t).items()), q), "equal questions merged"),
    ("next_messages", lambda s, t, q: conversation_recursive(None, t[-1:], q),
     "two things at once: no system message at all, and only the last turn"),
    ("merge_detour", merged_by_einsum, ""),
    ("merge_detour", merged_by_columns, ""),
    ("merge_detour", lambda W, A, B, alpha: W * (1 + alpha) + B @ A, "wrong value"),
    ("merge_detour", merged_in_place, "changed its input"),
    ("merge_detour", lambda *a: merged_by_einsum(*a, rank=lambda A: len(A[0])), "divided by the width"),
    ("merge_detour", lambda *a: merged_by_einsum(*a, sign=-1, rank=lambda A: 1),
     "two things at once: the rank forgotten, and subtracted"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
