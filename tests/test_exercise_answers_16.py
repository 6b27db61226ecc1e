"""Chapter 16's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import pytest
import torch
from tools import judged


def turns_by_slices(system, turns, new, room):
    fits = [n for n in range(len(turns) + 1) if system + new + sum(turns[len(turns) - n :]) <= room]
    return max(fits, default=None)


def turns_by_dropping(system, turns, new, room, first=0, enough=lambda used, room: used <= room):
    """Drop turns from one end until the rest fits."""
    turns = list(turns)
    while not enough(system + new + sum(turns), room):
        if not turns:
            return None
        turns.pop(first)
    return len(turns)


def prompt_by_comprehension(system, history, text):
    said = [line for turn in history for line in turn] + [text]
    roles = ["user", "assistant"] * len(said)
    turns = [{"content": line, "role": role} for role, line in zip(roles, said)]
    return [{"role": "system", "content": system}] * (system is not None) + turns


def prompt_recursive(system, history, text):
    if not history:
        head = [{"role": "system", "content": system}] if system is not None else []
        return [*head, {"role": "user", "content": text}]
    *older, (question, answer) = history
    return [
        *prompt_recursive(system, older, question),
        {"role": "assistant", "content": answer},
        {"role": "user", "content": text},
    ]


def appending(system, history, text):
    history.append((text, None))
    return prompt_by_comprehension(system, history, text)[:-2]


def remember_with_except(pieces, note):
    text = ""
    try:
        for piece in pieces:
            text = text + piece
            yield piece
    except BaseException:
        text and note(text)
        raise
    if text:
        note(text)


def remember_without_echo(pieces, note):
    text = ""
    try:
        for piece in pieces:
            if not text.endswith(piece):
                text += piece
            yield piece
    finally:
        if text:
            note(text)


def remember_hastily(pieces, note):
    text = ""
    for piece in pieces:
        yield piece
        text += piece
    note(text)


class RememberAsClass:
    """An iterator with a close of its own."""

    def __init__(self, pieces, note):
        self.going = remember_with_except(pieces, note)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.going)

    def close(self):
        self.going.close()


def attention_in_loops(weights, start):
    L, H, T, _ = weights.shape
    rows = torch.zeros(T - start, T)
    for layer in range(L):
        for head in range(H):
            rows += weights[layer, head, start - 1 : T - 1] / (L * H)
    return rows


def render_by_sum(messages, encode):
    start, end = encode("<|im_start|>", True), encode("<|im_end|>", True)
    turns = [
        start
        + encode(f"{m['role']}\n", False)
        + encode(m["content"], False)
        + end
        + encode("\n", False)
        for m in messages
    ]
    return sum(turns, []) + start + encode("assistant\n", False)


def render_in_pieces(messages, encode, own=True, gap="\n", header=True):
    """Collect pieces and whether control tokens are allowed in each; encode at the end."""
    start, end = ("<|im_start|>", own), ("<|im_end|>", own)
    pieces = []
    for m in messages:
        pieces += [start, (m["role"] + gap, False), (m["content"], False), end, ("\n", False)]
    pieces += [start, ("assistant\n", False)] if header else []
    return [i for text, controls in pieces for i in encode(text, controls)]


ANSWERS = [
    ("keep_turns", turns_by_slices, ""),
    ("keep_turns", turns_by_dropping, ""),
    ("keep_turns", lambda s, t, n, room: turns_by_slices(s, t, n, room) or None, "None where no turn stays"),
    ("keep_turns", lambda s, t, n, room: turns_by_slices(s, t[-9:], n, room), "wrong value"),
    ("keep_turns", lambda s, t, n, room: turns_by_slices(s, t, n, room - 1), "exactly enough refused"),
    ("keep_turns", lambda *a: turns_by_dropping(*a, first=-1), "the oldest kept"),
    ("keep_turns", lambda *a: turns_by_dropping(*a, first=-1, enough=lambda used, room: used < room),
     "two things at once: the oldest kept, and exactly enough refused"),
    ("next_prompt", prompt_by_comprehension, ""),
    ("next_prompt", prompt_recursive, ""),
    ("next_prompt", lambda s, h, t: prompt_by_comprehension(s, h, t + " "), "wrong value"),
    ("next_prompt", lambda s, h, t: prompt_by_comprehension(s, dict(h).items(), t), "questions as keys"),
    ("next_prompt", lambda s, h, t: prompt_by_comprehension(s, dict.fromkeys(h), t), "the same turn only once"),
    ("next_prompt", lambda s, h, t: prompt_by_comprehension(s, h, t.strip()), "blanks cut off the question"),
    ("next_prompt", lambda s, h, t: prompt_by_comprehension(s or "", h, t), "a system message of nothing"),
    ("next_prompt", lambda s, h, t: tuple(prompt_by_comprehension(s, h[-2:], t)), "only the newest turns"),
    ("next_prompt", lambda s, h, t: prompt_recursive(s, h[::-1], t), "newest first"),
    ("next_prompt", appending, "the history changed"),
    ("next_prompt", lambda s, h, t: prompt_recursive(None, h, t.strip()),
     "two things at once: no system message, and blanks cut off the question"),
    ("remember", remember_with_except, ""),
    ("remember", RememberAsClass, ""),
    ("remember", lambda pieces, note: remember_with_except(pieces, lambda t: note(t.strip())), "blanks cut off"),
    ("remember", lambda pieces, note: remember_with_except(pieces, lambda t: note(t.rstrip())), "wrong value"),
    ("remember", remember_without_echo, "repeated pieces are lost"),
    ("remember", lambda pieces, note: iter(remember_with_except(list(pieces), note)), "wrong value"),
    ("remember", lambda pieces, note: [*remember_with_except(pieces, note)],
     "a list instead of a stream"),
    ("remember", remember_hastily,
     "two things at once: only whole answers are kept, and an empty text noted"),
    ("answer_attention", attention_in_loops, ""),
    ("answer_attention", lambda w, start: w.flatten(0, 1).mean(0)[start - 1 : w.shape[-1] - 1], ""),
    ("answer_attention", lambda w, start: w[:, :, start - 1 : -1].median(0).values.mean(0), "wrong value"),
    ("answer_attention", lambda w, start: w[:, 0, start - 1 : -1].mean(0), "only the first head"),
    ("answer_attention", lambda w, start: w.mean(0).mean(0)[start:], "one row too late"),
    ("answer_attention", lambda w, start: w[-1].amax(0)[start - 1 : -1],
     "two things at once: the largest instead of the mean, and only the last layer"),
    ("render_safely", render_by_sum, ""),
    ("render_safely", render_in_pieces, ""),
    ("render_safely", lambda m, encode: render_by_sum(m[-3:], encode), "wrong length"),
    ("render_safely", lambda m, e: render_by_sum(m, e)[:-1], "no line break at the end"),
    ("render_safely", lambda m, e: render_in_pieces(m, lambda text, _: e(text, True)), "one string"),
    ("render_safely", lambda *a: render_in_pieces(*a, own=False), "no control tokens at all"),
    ("render_safely", lambda *a: render_in_pieces(*a, gap=" "), "wrong value"),
    ("render_safely", lambda *a: render_in_pieces(*a, gap="", header=False),
     "two things at once: no line break after the role, and no header for the answer"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
