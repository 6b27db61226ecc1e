"""Say how good a language model is, and how sure we may be: bits per byte, questions, calibration.

Shapes: B texts, T tokens, V ids, N predictions. Sums of losses are nats; a model maps ids (B, T) to
(logits (B, T, V), loss). Every function runs the model in evaluation mode and leaves it as it was.

Written by notebooks/12_evaluation.ipynb (chapter 12): edit it there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt_lib.baselines import perplexity
from minigpt_lib.data import _Tokenizer

__all__ = [
    "bits_per_byte",
    "Calibration",
    "calibration",
    "ChoiceResult",
    "compare_accuracy",
    "compute_perplexity",
    "multiple_choice_accuracy",
    "questions_from_arc",
    "TextLoss",
    "token_log_probs",
]


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Convert the summed loss of a text in nats to bits per UTF-8 byte, whatever its tokens were.

    Raises ValueError without a byte to divide by.
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes is {n_bytes}; expected at least 1 byte of text.")
    return float(nats) / math.log(2) / n_bytes


def token_log_probs(model: nn.Module, input_ids: Tensor, targets: Tensor) -> Tensor:
    """Return ln p(target | ids up to its place), (B, T) float32 on the CPU; 0 for targets of -100.

    input_ids and targets (B, T) are shifted already: targets[b, t] follows input_ids[b, t]. They go to
    the device of the model's weights.
    """
    training, weight = model.training, next(model.parameters(), input_ids)
    model.eval()
    try:
        with torch.no_grad():
            logits = model(input_ids.to(weight.device))[0].flatten(0, 1).float()  # (B * T, V)
    finally:
        model.train(training)
    wanted = targets.flatten().to(weight.device)
    return -F.cross_entropy(logits, wanted, reduction="none").view(targets.shape).cpu()


@dataclass(frozen=True)
class TextLoss:
    """What a text cost a model, in four currencies, and how much of it was predicted.

    loss: nats per token; perplexity: e ** loss; tokens, bytes (UTF-8) and chars: those predicted.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    bits_per_char: float
    tokens: int
    bytes: int
    chars: int


def _max_seq_len(model: nn.Module) -> int | None:
    """Return how many tokens the model can read at once; None if it does not say."""
    return getattr(getattr(model, "config", None), "max_seq_len", None)


def _given(
    tokenizer: _Tokenizer, text: str, start: str | Iterable[int] | None
) -> tuple[list[int], list[int], str]:
    """Return the ids that are only read, those that are predicted, and the text of the latter."""
    ids = tokenizer.encode(text)
    if start is not None:
        return list(tokenizer.encode(start) if isinstance(start, str) else start), ids, text
    first = tokenizer.decode(ids[:1])
    if not text.startswith(first):
        raise ValueError(
            f"the first token of {text[:10]!r} ends inside a character, so nobody can say how many "
            'bytes the others have: pass start="\\n", and the whole text is predicted.'
        )
    return ids[:1], ids[1:], text[len(first) :]


def compute_perplexity(
    model: nn.Module,
    tokenizer: _Tokenizer,
    text: str,
    *,
    block_size: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
    start: str | Iterable[int] | None = None,
) -> TextLoss:
    """Measure what `text` costs the model, every token exactly once.

    A window of `block_size` tokens (the model's max_seq_len unless told, 256 if it has none) begins
    every `stride` tokens (block_size unless told), the last one so that it ends with the text. In each
    window count the targets that the windows before it did not reach. So a counted token sees at least
    block_size - stride + 1 tokens before it (the first few see what there is), and the work is
    block_size / stride times that of one pass. The first token is given, and not predicted; or `start`
    is, a text or ids, and then all of the text is predicted.

    Raises ValueError if there is nothing to predict, or unless 1 <= stride <= block_size.
    """
    given, ids, rest = _given(tokenizer, text, start)
    if not given or not ids:
        raise ValueError(
            f"{len(given)} tokens to start from and {len(ids)} to predict: expected at least 1 of each."
        )
    block_size = (_max_seq_len(model) or 256) if block_size is None else block_size
    stride = block_size if stride is None else stride
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride is {stride}; expected 1 to {block_size}, the block size.")
    tokens = torch.tensor([*given, *ids])
    T = min(block_size, len(tokens) - 1)
    last = len(tokens) - T - 1
    starts, done, nats = [*range(0, last, stride), last], len(given), 0.0
    for at in range(0, len(starts), batch_size):
        batch = starts[at : at + batch_size]
        windows = tokens.unfold(0, T + 1, 1)[batch]  # (B, T + 1)
        x, y = windows[:, :-1], windows[:, 1:].clone()
        for row, begin in enumerate(batch):
            y[row, : done - begin - 1] = -100  # the tokens before `done` are given or counted
            done = max(done, begin + T + 1)
        nats -= float(token_log_probs(model, x, y).double().sum())
    loss, n_bytes = nats / len(ids), len(rest.encode())
    bits = bits_per_byte(nats, n_bytes), bits_per_byte(nats, len(rest))
    return TextLoss(loss, perplexity(loss), *bits, len(ids), n_bytes, len(rest))


def questions_from_arc(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of ARC as {"question", "choices", "answer"}, the form that MMLU has on the hub.

    ARC keeps choices as {"text": [...], "label": [...]} and the answer as a label, a letter or a digit.
    Raises ValueError for an answerKey that is no label.
    """
    questions = []
    for row in rows:
        labels, key = list(row["choices"]["label"]), row["answerKey"]
        if key not in labels:
            raise ValueError(f"answerKey is {key!r}, but the choices are {labels}.")
        choices, answer = list(row["choices"]["text"]), labels.index(key)
        questions.append({"question": row["question"], "choices": choices, "answer": answer})
    return questions


def _check_question(i: int, question: Mapping[str, Any]) -> None:
    """Refuse a question that cannot be asked, naming what is wrong with it."""
    missing = [key for key in ("question", "choices", "answer") if key not in question]
    if missing:
        raise ValueError(f"question {i} has no {', '.join(missing)}.")
    choices, answer = question["choices"], question["answer"]
    if isinstance(choices, (str, dict)) or len(choices) < 2 or not all(choices):
        raise ValueError(
            f"question {i} has the choices {choices!r}; expected a list of at least 2 texts."
        )
    if answer not in range(len(choices)):
        raise ValueError(
            f"question {i} has the answer {answer!r}; expected 0 to {len(choices) - 1}, the place of "
            "the right choice (on the hub -1 means that it is kept secret)."
        )


def _prompt_and_choice(
    tokenizer: _Tokenizer, prompt: str | Sequence[int], choice: str, limit: int | None
) -> tuple[list[int], list[int], bool]:
    """Return the ids of the prompt, cut on the left if too long, those of the choice, whether cut.

    The spaces between them go to the choice, as the words of most vocabularies begin with one. A prompt
    that is a list of ids already stays as it is.
    """
    if isinstance(prompt, str):
        read = prompt.rstrip()
        before = tokenizer.encode(read)
        scored = tokenizer.encode(prompt[len(read) :] + choice)
    else:
        before, scored = list(prompt), tokenizer.encode(choice)
    room = len(before) if limit is None else limit + 1 - len(scored)
    if not before or room < 1:
        raise ValueError(
            f"the prompt has {len(before)} tokens and the choice {choice[:30]!r} {len(scored)}: "
            f"expected at least 1, and at most the {limit} that the model can read."
        )
    return before[-room:], scored, len(before) > room


@dataclass(frozen=True)
class ChoiceResult:
    """What a model answered, and how much that says.

    accuracy: the share of right answers; standard_error: how far it is off, typically, with so few
    questions (nan for one); chance: the accuracy of blind guessing, the mean of 1 / choices; n: how
    many questions; chosen and answers: the place of the model's choice and of the right one; scores:
    those of each choice; cut: how many questions had a prompt of which only the end was read.
    """

    accuracy: float
    standard_error: float
    chance: float
    n: int
    chosen: tuple[int, ...]
    answers: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]
    cut: int


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return a mean and its standard error, the sample's standard deviation / sqrt(n)."""
    n = len(values)
    return sum(values) / n, statistics.stdev(values) / math.sqrt(n) if n > 1 else math.nan


def _summed_log_probs(
    model: nn.Module, pairs: Sequence[tuple[list[int], list[int]]], batch_size: int
) -> list[float]:
    """Return for each (ids before, ids scored) the sum of ln p of the latter; short ones first."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    totals = [0.0] * len(pairs)
    for at in range(0, len(order), batch_size):
        batch = order[at : at + batch_size]
        T = sum(map(len, pairs[batch[-1]])) - 1
        x, y = torch.zeros(len(batch), T).long(), torch.full((len(batch), T), -100)
        for row, i in enumerate(batch):
            before, scored = pairs[i]
            end = len(before) + len(scored) - 1
            x[row, :end] = torch.tensor([*before, *scored[:-1]])  # what is padded, nobody looks at
            y[row, len(before) - 1 : end] = torch.tensor(scored)
        for i, total in zip(batch, token_log_probs(model, x, y).double().sum(dim=1)):
            totals[i] = float(total)
    return totals


def multiple_choice_accuracy(
    model: nn.Module,
    tokenizer: _Tokenizer,
    questions: Iterable[Mapping[str, Any]],
    *,
    template: str | Callable[[str], str | Sequence[int]] = "{question} ",
    normalize: str = "tokens",
    batch_size: int = 16,
) -> ChoiceResult:
    """Let the model choose among answers, the one that it finds likeliest, and count the right ones.

    questions: dicts {"question": str, "choices": [str, ...], "answer": place of the right one}. The
    score of a choice after template.format(question=...) is the sum of ln p over its tokens, never
    those of the prompt, divided by their number ("tokens"), by the UTF-8 bytes of the choice ("bytes")
    or by nothing ("none"); of equal scores the first counts. Spaces at the prompt's end are scored with
    the choice. Of a prompt that is too long for the model the end is kept. template may also be a
    function of the question that returns the prompt, a text or a list of ids.

    Raises ValueError for questions that cannot be asked, and for scores of nan.
    """
    if normalize not in ("tokens", "bytes", "none"):
        raise ValueError(f"normalize is {normalize!r}; expected tokens, bytes or none.")
    questions = list(questions)
    if not questions:
        raise ValueError("there is no question; expected at least 1.")
    ask = template if callable(template) else lambda text: template.format(question=text)
    pairs, sizes, cut = [], [], set()
    for i, question in enumerate(questions):
        _check_question(i, question)
        prompt = ask(question["question"])
        for choice in question["choices"]:
            *pair, was_cut = _prompt_and_choice(tokenizer, prompt, choice, _max_seq_len(model))
            pairs.append(pair)
            sizes.append(
                {"tokens": len(pair[1]), "bytes": len(choice.encode()), "none": 1}[normalize]
            )
            cut |= {i} if was_cut else set()
    totals = iter(zip(_summed_log_probs(model, pairs, batch_size), sizes))
    scores = tuple(tuple(t / n for _, (t, n) in zip(q["choices"], totals)) for q in questions)
    if any(math.isnan(score) for row in scores for score in row):
        raise ValueError("the model answers nan: its weights are broken, or its logits overflow.")
    chosen = tuple(row.index(max(row)) for row in scores)
    answers = tuple(question["answer"] for question in questions)
    accuracy = _mean([float(a == b) for a, b in zip(chosen, answers)])
    chance = sum(1 / len(row) for row in scores) / len(scores)
    return ChoiceResult(*accuracy, chance, len(scores), chosen, answers, scores, len(cut))


def compare_accuracy(one: ChoiceResult, other: ChoiceResult) -> tuple[float, float]:
    """Return the accuracy of `one` less that of `other`, and the standard error of this difference.

    Question by question: what both get right, or wrong, is no noise. Miller (2024). Raises
    ValueError unless both answered the same questions.
    """
    if one.answers != other.answers:
        raise ValueError(f"expected the same questions, got {one.n} and {other.n} other answers.")
    rows = zip(one.chosen, other.chosen, one.answers)
    return _mean([float(a == right) - float(b == right) for a, b, right in rows])


@dataclass(frozen=True)
class Calibration:
    """How sure a model was and how often it was right, in bins of equal width from 0 to 1.

    counts, confidence, accuracy: a number for each bin, the last two means, nan where it is empty.
    error: the expected calibration error, the mean of |accuracy - confidence| weighted by counts.
    """

    error: float
    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


def calibration(
    probabilities: Tensor | Sequence[float] | Sequence[Sequence[float]],
    correct: Tensor | Sequence[bool] | Sequence[int],
    bins: int = 10,
) -> Calibration:
    """Compare how sure a model was with how often it was right.

    Either confidences (N,) from 0 to 1, with `correct` (N,) of True and False; or probabilities (N, V)
    of all ids, with the targets (N,) in place of `correct`: then the confidence is the largest one.
    Bin i of M holds i/M < confidence <= (i+1)/M, and the first one 0 too: Guo et al. (2017).

    Raises ValueError for other shapes, for nothing to count, and for what is no probability.
    """
    p, correct = torch.as_tensor(probabilities, dtype=torch.float64), torch.as_tensor(correct)
    if p.ndim not in (1, 2) or correct.shape != p.shape[:1] or not p.numel() or bins < 1:
        shapes = f"{tuple(p.shape)}, {tuple(correct.shape)} and {bins} bins"
        raise ValueError(f"expected (N,) or (N, V), then (N,), and at least 1 bin; got {shapes}.")
    total = p.sum(dim=1) if p.ndim == 2 else p.new_ones(1)
    if not (p.min() >= 0 and p.max() < 1.01 and (total - 1).abs().max() < 0.01):
        raise ValueError(
            f"expected probabilities, got numbers from {float(p.min()):.3g} to {float(p.max()):.3g} "
            f"(a row adds up to {float(total[0]):.3g}): apply softmax to logits first."
        )
    if p.ndim == 2:
        p, top = p.max(dim=1)
        correct = top == correct
    edges = torch.tensor([i / bins for i in range(1, bins)], dtype=torch.float64)
    place = torch.bucketize(p, edges)  # edges[place - 1] < p <= edges[place]
    counts = torch.bincount(place, minlength=bins)
    sums = [torch.bincount(place, v.double(), bins) for v in (p, correct)]
    error = float((sums[0] - sums[1]).abs().sum() / len(p))
    return Calibration(error, *(tuple(v.tolist()) for v in (counts, *(s / counts for s in sums))))
