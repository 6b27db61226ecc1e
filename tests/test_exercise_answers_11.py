"""Chapter 11's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
import torch
from tools import judged

from minigpt_lib.generation import filter_logits


def penalise_by_library(logits, previous, penalty):
    if not previous:
        return logits

    scores = torch.tensor([logits])
    seen = torch.tensor([previous])
    return filter_logits(scores, repetition_penalty=penalty, previous=seen)[0].tolist()


def penalise_one_by_one(logits, previous, penalty):
    """Go through the logits, not through the ids."""
    new = []
    for i, logit in enumerate(logits):
        if i not in previous:
            new.append(logit)
        elif logit < 0:
            new.append(logit * penalty)
        else:
            new.append(logit / penalty)
    return new


def penalise_again_and_again(logits, previous, penalty):
    logits = logits.copy()
    for i in previous:
        if logits[i] > 0:
            logits[i] /= penalty
        else:
            logits[i] *= penalty
    return logits


def penalise_in_place(logits, previous, penalty):
    for i in set(previous):
        logits[i] *= penalty if logits[i] < 0 else 1 / penalty
    return logits


def penalise_recent(logits, previous, penalty, window=1):
    recent = set(previous[-window:])
    return [x / penalty if i in recent else x for i, x in enumerate(logits)]


def top_p_one_by_one(probabilities, p):
    result = torch.zeros_like(probabilities)

    for b, row in enumerate(probabilities):
        total = 0.0
        for i in sorted(range(len(row)), key=lambda i: -row[i]):
            if total >= p:
                break
            result[b, i] = row[i]
            total = total + row[i]

    return result / result.sum(dim=1, keepdim=True)


def top_p_in_numpy(probabilities, p, undo=True, drop=True, normalise=True):
    """Sort, cut, and undo the sort with a second argsort."""
    x = probabilities.numpy()
    order = np.argsort(-x, axis=1, kind="stable")
    ordered = np.take_along_axis(x, order, 1)
    total = np.cumsum(ordered, axis=1)
    before = np.concatenate([np.zeros_like(total[:, :1]), total[:, :-1]], axis=1)

    kept = np.where((before if drop else total) < p, ordered, 0)
    kept = torch.from_numpy(np.take_along_axis(kept, np.argsort(order) if undo else order, 1))
    return kept / kept.sum(1, keepdim=True) if normalise else kept


def top_p_without_the_last(x, p):
    """Keep the best while their sum is at most p, and the very best in any case."""
    kept = torch.zeros_like(x)
    for b, row in enumerate(x.tolist()):
        total = 0.0
        for i in sorted(range(len(row)), key=row.__getitem__, reverse=True):
            total += row[i]
            if total <= p or total == row[i]:
                kept[b, i] = row[i]
    return kept / kept.sum(dim=1, keepdim=True)


def top_p_and_softmax(probabilities, p):
    kept = top_p_in_numpy(probabilities, p, normalise=False)
    return torch.softmax(kept, dim=-1)


def cut_letter_by_letter(tokens, stops):
    text = "".join(tokens)

    for i in range(len(text)):
        if any(text.startswith(stop, i) for stop in stops):
            return text[:i]

    return text


def cut_by_parts(tokens, stops, clean=str):
    """Take the shortest of what stands before each stop."""
    text = "".join(tokens)
    best = text
    for stop in stops:
        before = text.partition(stop)[0]
        if len(before) < len(best):
            best = before
    return clean(best)


def cut_at_the_least_find(tokens, stops):
    text = "".join(tokens)
    place = min((text.find(stop) for stop in stops), default=len(text))
    return text[:place]


def cut_while_streaming(tokens, stops):
    """Stop as soon as one stop is complete, letter by letter."""
    text = ""
    for letter in "".join(tokens):
        text += letter
        done = [stop for stop in stops if text.endswith(stop)]
        if done:
            return text[: -max(map(len, done))]
    return text


def cut_and_keep(tokens, stops, first=False):
    text = "".join(tokens)
    ends = [
        text.index(stop) + len(stop) for stop in (stops[:1] if first else stops) if stop in text
    ]
    return text[: min(ends, default=None)]


def pad_with_tensors(prompts, pad):
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    T = int(lengths.max())

    ids = torch.full((len(prompts), T), pad)
    for row, prompt in zip(ids, prompts):
        row[T - len(prompt) :] = torch.tensor(prompt)

    mask = torch.arange(T) >= (T - lengths)[:, None]
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def pad_with_torch(prompts, pad, side="left", least=0, by_id=False):
    """Pad with PyTorch's own function, the ids and then a list of ones."""
    rows = [torch.tensor(prompt) for prompt in prompts]
    pads = torch.nn.utils.rnn.pad_sequence
    ids = pads(rows, batch_first=True, padding_value=pad, padding_side=side)
    ones = pads([x * 0 + 1 for x in rows], batch_first=True, padding_value=0, padding_side=side)
    mask = ids != pad if by_id else ones > 0
    positions = (ones.cumsum(1) - 1).clamp(min=least) * (ones if least == 0 else 1)
    return ids, mask, positions


def pad_by_id(prompts, pad):
    """Mask and positions from the ids."""
    ids, _, _ = pad_with_tensors(prompts, pad)
    mask = ids != pad
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def pad_as_transformers(prompts, pad):
    """The positions of Hugging Face's generate: 1 where the mask is 0."""
    ids, mask, _ = pad_with_tensors(prompts, pad)
    positions = mask.long().cumsum(-1) - 1
    return ids, mask.long(), positions.masked_fill(~mask, 1)


def beam_by_sorting(scores, log_probs):
    N, V = log_probs.shape
    candidates = [(-(scores[i] + log_probs[i, j]).item(), i, j) for i in range(N) for j in range(V)]

    losses, beams, ids = zip(*sorted(candidates)[:N])
    return torch.tensor(beams), torch.tensor(ids), -torch.tensor(losses)


def beam_by_heap(scores, log_probs, best=heapq.nlargest, total=lambda a, b: a + b):
    N = len(scores)
    found = [
        (total(float(s), float(p)), b, i)
        for b, (s, row) in enumerate(zip(scores, log_probs))
        for i, p in enumerate(row)
    ]
    top = best(N, found, key=lambda candidate: candidate[0])
    return [torch.tensor([t[k] for t in top]) for k in (1, 2, 0)]


def beam_in_two_rounds(scores, log_probs):
    """The N best of each beam compete."""
    N, V = log_probs.shape
    values, ids = (log_probs + scores.unsqueeze(1)).topk(min(N, V), dim=1)
    best, places = values.view(-1).topk(N)
    beams = places.div(min(N, V), rounding_mode="floor")
    return beams, ids.view(-1)[places], best


def beam_of_own_children(scores, log_probs):
    best, ids = log_probs.max(-1)
    best = best + scores
    order = best.argsort(descending=True)
    return order, ids[order], best[order]


def loop_by_length(forward, prompt, n):
    cache = []
    text = list(prompt)
    scores = forward(list(prompt), list(range(len(prompt))), cache)

    for step in range(n):
        text.append(scores.index(max(scores)))
        if step < n - 1:
            scores = forward(text[-1:], [len(text) - 1], cache)

    return text[len(prompt) :]


def loop_with_two_calls(forward, prompt, n, shift=0, best=np.argmax):
    """Read the prompt, then one id after another."""
    if n == 0:
        return []

    cache = []
    scores = forward(prompt, [*range(len(prompt))], cache)
    written = [int(best(scores))]
    while len(written) < n:
        position = len(prompt) + len(written) - 1 + shift
        scores = forward([written[-1]], [position], cache)
        written.append(int(best(scores)))
    return written


def loop_recursive(forward, prompt, n, cache=None, start=0):
    if n == 0:
        return []
    cache = [] if cache is None else cache
    scores = forward(list(prompt), list(range(start, start + len(prompt))), cache)
    new = int(torch.tensor(scores).argmax())
    return [new, *loop_recursive(forward, [new], n - 1, cache, start + len(prompt))]


def last_argmax(scores):
    return len(scores) - 1 - int(np.argmax(scores[::-1]))


ANSWERS = [
    ("penalise", penalise_by_library, ""),
    ("penalise", penalise_one_by_one, ""),
    ("penalise", lambda logits, previous, p: [x - 1 for x in logits], "wrong value"),
    ("penalise", lambda x, ids, p: penalise_by_library(x, ids[-8:], p), "wrong value"),
    ("penalise", lambda x, ids, p: penalise_by_library(x[:7], ids, p), "raised"),
    ("penalise", penalise_again_and_again, "once for each time"),
    ("penalise", penalise_in_place, "changed its input"),
    ("penalise", lambda x, ids, p: torch.tensor(penalise_one_by_one(x, ids, p)), "wrong type"),
    ("penalise", lambda x, ids, p: penalise_one_by_one(x, ids, 1 / p), "the signs exchanged"),
    ("penalise", lambda x, ids, p: penalise_one_by_one(x, ids[-1:], p), "only the last id"),
    ("penalise", penalise_recent, "two things at once: divided whatever the sign, and only the last id"),
    ("keep_top_p", top_p_one_by_one, ""),
    ("keep_top_p", top_p_in_numpy, ""),
    ("keep_top_p", lambda x, p: top_p_one_by_one(x, p / 2), "wrong value"),
    ("keep_top_p", lambda x, p: filter_logits(x.log(), top_p=p).softmax(-1), ""),  # from the least likely up
    ("keep_top_p", lambda x, p: top_p_one_by_one(x.flip(1), p).flip(1), ""),  # ties: the last one
    ("keep_top_p", lambda x, p: top_p_one_by_one(x, p).squeeze(), "wrong shape"),
    ("keep_top_p", lambda x, p: top_p_one_by_one(x, p) * (p > 0.1), "wrong value"),
    ("keep_top_p", lambda x, p: filter_logits(x.log(), top_k=8, top_p=p).softmax(-1), "wrong value"),
    ("keep_top_p", lambda x, p: top_p_in_numpy(x, p, normalise=False), "not normalised"),
    ("keep_top_p", lambda x, p: top_p_in_numpy(x, p, undo=False), "gathered in place of scattered"),
    ("keep_top_p", lambda x, p: top_p_in_numpy(x, p, drop=False), "the crossing token dropped"),
    ("keep_top_p", top_p_and_softmax, "a softmax of probabilities"),
    ("keep_top_p", lambda x, p: top_p_without_the_last(x, p - 1e-6), "the crossing token dropped"),
    ("keep_top_p", lambda x, p: top_p_without_the_last(x, p + 1e-6), "the sum must not pass p"),
    ("keep_top_p", lambda x, p: top_p_in_numpy(x, p, undo=False, drop=False),
     "two things at once: the crossing token dropped, and gathered in place of scattered"),
    ("cut_at_stop", cut_letter_by_letter, ""),
    ("cut_at_stop", cut_by_parts, ""),
    ("cut_at_stop", lambda tokens, stops: "".join(tokens), "wrong value"),
    ("cut_at_stop", lambda t, s: min(["".join(t), *("".join(t).split(x)[0] for x in s)], key=len), ""),
    ("cut_at_stop", lambda t, s: t[0][:0] + cut_letter_by_letter(t, s), "raised"),
    ("cut_at_stop", lambda t, s: cut_letter_by_letter(t, sorted(s)[-1:]), "wrong value"),
    ("cut_at_stop", lambda t, s: cut_by_parts(t, s[:1]), "only the first stop looked for"),
    ("cut_at_stop", lambda t, s: cut_by_parts(t, s, clean=str.rstrip), "blanks cut off"),
    ("cut_at_stop", cut_at_the_least_find, "a missing stop found at -1"),
    ("cut_at_stop", cut_while_streaming, "the stop completed first"),
    ("cut_at_stop", cut_and_keep, "the stop is kept"),
    ("cut_at_stop", lambda t, s: cut_and_keep(t, s, first=True),
     "two things at once: the stop is kept, and only the first stop looked for"),
    ("pad_left", pad_with_tensors, ""),
    ("pad_left", pad_with_torch, ""),
    ("pad_left", lambda prompts, pad: pad_with_tensors(prompts, pad + 1), "wrong value"),
    ("pad_left", lambda prompts, pad: pad_with_tensors(prompts, 0), "always padded with 0"),
    ("pad_left",  # ids of 8 bits
     lambda *a: [x % 256 if x.dtype == torch.int64 else x for x in pad_with_tensors(*a)], "wrong value"),
    ("pad_left", lambda *a: pad_with_torch(*a, side="right"), "padded on the right"),
    ("pad_left", lambda *a: pad_with_torch(*a, least=-1), "negative positions"),
    ("pad_left", lambda *a: pad_with_torch(*a, by_id=True), "hidden by its id"),
    ("pad_left", pad_by_id, "hidden by its id"),
    ("pad_left", pad_as_transformers,
     "two things at once: a mask of 0 and 1, and padding at position 1"),
    ("beam_step", beam_by_sorting, ""),
    ("beam_step", beam_by_heap, ""),
    ("beam_step", beam_in_two_rounds, ""),
    ("beam_step", lambda s, p: beam_by_sorting(2 * s, p), "wrong value"),
    ("beam_step",  # the best three of each beam
     lambda s, p: beam_by_sorting(s, filter_logits(p, top_k=min(3, p.shape[1]))), "wrong value"),
    ("beam_step",  # scores + log_probs, where the shapes allow it
     lambda s, p: beam_by_sorting(s, p if len(s) != p.shape[1] else p + s - s[:, None]), "wrong value"),
    ("beam_step", lambda s, p: beam_by_sorting(s.exp().log(), p), "wrong value"),
    ("beam_step", beam_of_own_children, "each beam keeps its own best"),
    ("beam_step", lambda s, p: beam_by_heap(s, p, best=heapq.nsmallest), "the worst are kept"),
    ("beam_step", lambda s, p: [x.flip(0) for x in beam_by_heap(s, p)], "the best comes last"),
    ("beam_step", lambda s, p: beam_by_heap(s, p, total=lambda a, b: a * b), "logarithms multiplied"),
    ("beam_step", lambda s, p: beam_by_heap(s, p, best=heapq.nsmallest, total=lambda a, b: b),
     "two things at once: the score so far is forgotten, and the worst are kept"),
    ("write_cached", loop_by_length, ""),
    ("write_cached", loop_with_two_calls, ""),
    ("write_cached", loop_recursive, ""),
    ("write_cached",  # token by token
     lambda f, *a: loop_by_length(lambda ids, at, c: [f([i], [j], c) for i, j in zip(ids, at)][-1], *a), ""),
    ("write_cached", lambda f, p, n: loop_by_length(f, p, n + 1)[:n], "one call too many"),
    ("write_cached", lambda f, p, n: loop_by_length(f, p, max(n, 1)), "an id for n = 0"),
    ("write_cached", lambda f, *a: loop_by_length(lambda *b: f(*b)[:7], *a), "wrong value"),
    ("write_cached", lambda f, prompt, n: loop_by_length(f, prompt[1:] or prompt, n), "wrong value"),
    ("write_cached", lambda *a: loop_with_two_calls(*a, shift=1), "one position too late"),
    ("write_cached", lambda *a: loop_with_two_calls(*a, best=last_argmax), "the last of equal scores"),
    ("write_cached", lambda *a: loop_with_two_calls(*a, shift=-1, best=last_argmax),
     "two things at once: one position too early, and the last of equal scores"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
