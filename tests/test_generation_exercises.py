"""Chapter 11: the exercises answered in a different style, right and wrong."""

from __future__ import annotations

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


def cut_letter_by_letter(tokens, stops):
    text = "".join(tokens)

    for i in range(len(text)):
        if any(text.startswith(stop, i) for stop in stops):
            return text[:i]

    return text


def pad_with_tensors(prompts, pad):
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    T = int(lengths.max())

    ids = torch.full((len(prompts), T), pad)
    for row, prompt in zip(ids, prompts):
        row[T - len(prompt) :] = torch.tensor(prompt)

    mask = torch.arange(T) >= (T - lengths)[:, None]
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def beam_by_sorting(scores, log_probs):
    N, V = log_probs.shape
    candidates = [(-(scores[i] + log_probs[i, j]).item(), i, j) for i in range(N) for j in range(V)]

    losses, beams, ids = zip(*sorted(candidates)[:N])
    return torch.tensor(beams), torch.tensor(ids), -torch.tensor(losses)


def loop_by_length(forward, prompt, n):
    cache = []
    text = list(prompt)
    scores = forward(list(prompt), list(range(len(prompt))), cache)

    for step in range(n):
        text.append(scores.index(max(scores)))
        if step < n - 1:
            scores = forward(text[-1:], [len(text) - 1], cache)

    return text[len(prompt) :]


ANSWERS = [
    ("penalise", penalise_by_library, ""),
    ("penalise", lambda logits, previous, p: [x - 1 for x in logits], "wrong value"),
    ("penalise", lambda x, ids, p: penalise_by_library(x, ids[-8:], p), "wrong value"),
    ("penalise", lambda x, ids, p: penalise_by_library(x[:7], ids, p), "raised"),
    ("keep_top_p", top_p_one_by_one, ""),
    ("keep_top_p", lambda x, p: top_p_one_by_one(x, p / 2), "wrong value"),
    (
        "keep_top_p",
        lambda x, p: filter_logits(x.log(), top_p=p).softmax(-1),
        "",
    ),  # from the least likely up
    ("keep_top_p", lambda x, p: top_p_one_by_one(x.flip(1), p).flip(1), ""),  # ties: the last one
    ("keep_top_p", lambda x, p: top_p_one_by_one(x, p).squeeze(), "wrong shape"),
    ("keep_top_p", lambda x, p: top_p_one_by_one(x, p) * (p > 0.1), "wrong value"),
    (
        "keep_top_p",
        lambda x, p: filter_logits(x.log(), top_k=8, top_p=p).softmax(-1),
        "wrong value",
    ),
    ("cut_at_stop", cut_letter_by_letter, ""),
    ("cut_at_stop", lambda tokens, stops: "".join(tokens), "wrong value"),
    (
        "cut_at_stop",
        lambda t, s: min(["".join(t), *("".join(t).split(x)[0] for x in s)], key=len),
        "",
    ),
    ("cut_at_stop", lambda t, s: t[0][:0] + cut_letter_by_letter(t, s), "raised"),
    ("cut_at_stop", lambda t, s: cut_letter_by_letter(t, sorted(s)[-1:]), "wrong value"),
    ("pad_left", pad_with_tensors, ""),
    ("pad_left", lambda prompts, pad: pad_with_tensors(prompts, pad + 1), "wrong value"),
    ("pad_left", lambda prompts, pad: pad_with_tensors(prompts, 0), "always padded with 0"),
    (
        "pad_left",  # ids of 8 bits
        lambda *a: [x % 256 if x.dtype == torch.int64 else x for x in pad_with_tensors(*a)],
        "wrong value",
    ),
    ("beam_step", beam_by_sorting, ""),
    ("beam_step", lambda s, p: beam_by_sorting(2 * s, p), "wrong value"),
    (
        "beam_step",  # the best three of each beam
        lambda s, p: beam_by_sorting(s, filter_logits(p, top_k=min(3, p.shape[1]))),
        "wrong value",
    ),
    (
        "beam_step",  # scores + log_probs, where the shapes allow it
        lambda s, p: beam_by_sorting(s, p if len(s) != p.shape[1] else p + s - s[:, None]),
        "wrong value",
    ),
    ("beam_step", lambda s, p: beam_by_sorting(s.exp().log(), p), "wrong value"),
    ("write_cached", loop_by_length, ""),
    (
        "write_cached",  # token by token
        lambda f, *a: loop_by_length(
            lambda ids, at, c: [f([i], [j], c) for i, j in zip(ids, at)][-1], *a
        ),
        "",
    ),
    ("write_cached", lambda f, p, n: loop_by_length(f, p, n + 1)[:n], "one call too many"),
    ("write_cached", lambda f, p, n: loop_by_length(f, p, max(n, 1)), "an id for n = 0"),
    (
        "write_cached",
        lambda f, *a: loop_by_length(lambda *b: f(*b)[:7], *a),
        "wrong value",
    ),
    (
        "write_cached",
        lambda f, prompt, n: loop_by_length(f, prompt[1:] or prompt, n),
        "wrong value",
    ),
]


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_an_answer_in_a_different_style_gets_its_verdict(name, answer, diagnosis):
    judged(name, answer, diagnosis)
