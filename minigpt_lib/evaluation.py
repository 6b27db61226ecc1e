"""Say how good a language model is, and how sure we may be: bits per byte, questions, calibration.

Shapes: B batch size, T sequence length, V vocabulary size, N predictions. Summed losses are in nats; a
model maps ids (B, T) to (logits (B, T, V), loss). Every function runs the model in evaluation mode
and restores its mode afterwards.

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

from minigpt_lib.baselines import evaluating, perplexity
from minigpt_lib.data import _Tokenizer

__all__ = [
    "bits_per_byte",
    "Calibration",
    "calibration",
    "ChoiceResult",
    "compare_accuracy",
    "compute_perplexity",
    "mean_with_error",
    "multiple_choice_accuracy",
    "questions_from_arc",
    "TextLoss",
    "token_log_probs",
]


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Convert the summed loss of a text in nats to bits per UTF-8 byte, for any tokenizer.

    The Pile (Gao et al., 2020), section 3.1. Raises ValueError unless n_bytes is at least 1.
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes is {n_bytes}; expected at least 1 byte of text.")
    return float(nats) / math.log(2) / n_bytes


def token_log_probs(model: nn.Module, input_ids: Tensor, targets: Tensor) -> Tensor:
    """Return ln p of each target, (B, T) float32 on the CPU; 0 where the target is -100.

    input_ids and targets, (B, T) int64, are shifted already: targets[b, t] follows input_ids[b, t],
    and its probability depends on input_ids[b, : t + 1]. They are moved to the device of the weights.
    """
    # A model without weights computes where its ids are.
    weight = next(model.parameters(), input_ids)
    with evaluating(model), torch.no_grad():
        logits = model(input_ids.to(weight.device))[0].flatten(0, 1).float()  # (B * T, V)

    wanted = targets.flatten().to(weight.device)
    losses = F.cross_entropy(logits, wanted, reduction="none")  # 0 for targets of -100
    return -losses.view(targets.shape).cpu()


@dataclass(frozen=True)
class TextLoss:
    """The loss of a text in four units, and how much of the text was predicted.

    loss: nats per token; perplexity: e ** loss; bits_per_byte and bits_per_char: bits per UTF-8 byte
    and per character; tokens, bytes and chars: how many of each were predicted.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    bits_per_char: float
    tokens: int
    bytes: int
    chars: int


def _max_seq_len(model: nn.Module) -> int | None:
    """Return how many tokens the model can read at once, or None if it does not say."""
    return getattr(getattr(model, "config", None), "max_seq_len", None)


def _refuse_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1.")


def _given(
    tokenizer: _Tokenizer, text: str, start: str | Iterable[int] | None
) -> tuple[list[int], list[int], str]:
    """Return the ids that are only read, those that are predicted, and the text of the latter."""
    ids = tokenizer.encode(text)
    if isinstance(start, str):
        return list(tokenizer.encode(start)), ids, text
    if start is not None:
        return list(start), ids, text

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
    """Measure the loss of `text`, counting every token exactly once.

    A window of `block_size` tokens (default: the model's max_seq_len, or 256 if it has none) begins
    every `stride` tokens (default: block_size); the last one is moved back to end with the text. Each
    window counts the targets that no window before it has counted. So a counted token has at least
    block_size - stride + 1 tokens before it (near the beginning: all there are), and the work is about
    block_size / stride times that of one pass. The first token is given, and not predicted. With
    `start`, a text or ids, that is given instead, and all of `text` is predicted.

    Raises ValueError if there is nothing to predict, unless 1 <= stride <= block_size, and for a
    batch_size below 1.
    """
    given, ids, rest = _given(tokenizer, text, start)
    if not given or not ids:
        raise ValueError(
            f"{len(given)} tokens to start from and {len(ids)} to predict: expected at least 1 of each."
        )
    if block_size is None:
        block_size = _max_seq_len(model) or 256
    if stride is None:
        stride = block_size
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride is {stride}; expected 1 to {block_size}, the block size.")
    _refuse_batch_size(batch_size)

    tokens = torch.tensor([*given, *ids])
    T = min(block_size, len(tokens) - 1)
    last = len(tokens) - T - 1
    begins = [*range(0, last, stride), last]

    done = len(given)  # the first token that is neither given nor counted
    nats = 0.0
    for at in range(0, len(begins), batch_size):
        batch = begins[at : at + batch_size]
        windows = tokens.unfold(0, T + 1, 1)[batch]  # (B, T + 1)
        x = windows[:, :-1]
        y = windows[:, 1:].clone()
        for row, begin in enumerate(batch):
            y[row, : done - begin - 1] = -100
            done = max(done, begin + T + 1)
        nats -= float(token_log_probs(model, x, y).double().sum())

    loss = nats / len(ids)
    n_bytes = len(rest.encode("utf-8"))
    return TextLoss(
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_byte=bits_per_byte(nats, n_bytes),
        bits_per_char=bits_per_byte(nats, len(rest)),
        tokens=len(ids),
        bytes=n_bytes,
        chars=len(rest),
    )


def questions_from_arc(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of ARC as {"question", "choices", "answer"}, the form that MMLU has on the hub.

    ARC keeps choices as {"text": [...], "label": [...]}, and the answer as a label, a letter or a digit.
    Raises ValueError for an answerKey that is not among the labels.
    """
    questions = []
    for row in rows:
        labels = list(row["choices"]["label"])
        key = row["answerKey"]
        if key not in labels:
            raise ValueError(f"answerKey is {key!r}, but the choices are {labels}.")
        choices = list(row["choices"]["text"])
        questions.append(
            {"question": row["question"], "choices": choices, "answer": labels.index(key)}
        )
    return questions


def _prompt_and_choice(
    tokenizer: _Tokenizer, prompt: str | Sequence[int], choice: str, limit: int | None
) -> tuple[list[int], list[int], bool]:
    """Return the ids of the prompt, those of the choice, and whether the prompt was cut on the left.

    The spaces between them go to the choice, because the words of most vocabularies begin with one. A
    prompt that is a list of ids already stays as it is. limit: how many tokens the model can read.
    """
    if isinstance(prompt, str):
        read = prompt.rstrip()
        before = tokenizer.encode(read)
        scored = tokenizer.encode(prompt[len(read) :] + choice)
    else:
        before = list(prompt)
        scored = tokenizer.encode(choice)

    room = len(before) if limit is None else limit + 1 - len(scored)  # the last token is not read
    if not before or room < 1:
        raise ValueError(
            f"the prompt has {len(before)} tokens and the choice {choice[:30]!r} {len(scored)}: "
            f"expected at least 1, and at most the {limit} that the model can read."
        )
    return before[-room:], scored, len(before) > room


def _check_question(i: int, question: Mapping[str, Any]) -> None:
    """Refuse a question that cannot be asked, and say what is wrong with it."""
    missing = [key for key in ("question", "choices", "answer") if key not in question]
    if missing:
        raise ValueError(f"question {i} has no {', '.join(missing)}.")

    choices = question["choices"]
    if isinstance(choices, (str, dict)) or len(choices) < 2 or not all(choices):
        raise ValueError(
            f"question {i} has the choices {choices!r}; expected a list of at least 2 texts."
        )
    answer = question["answer"]
    if answer not in range(len(choices)):
        raise ValueError(
            f"question {i} has the answer {answer!r}; expected 0 to {len(choices) - 1}, the place of "
            "the right choice (on the hub -1 means that it is kept secret)."
        )


def mean_with_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of independent values and its standard error, in the values' own unit.

    The error is the sample's standard deviation (divided by n - 1) over sqrt(n); nan for one value.
    Miller (2024), "Adding Error Bars to Evals". Raises ValueError for no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("there is no value; expected at least 1.")
    error = statistics.stdev(values) / math.sqrt(n) if n > 1 else math.nan
    return sum(values) / n, error


@dataclass(frozen=True)
class ChoiceResult:
    """What a model answered, and how much that says.

    accuracy: the share of right answers; standard_error: how far it is typically off with this number
    of questions (nan for one question); chance: the accuracy of blind guessing, the mean of
    1 / choices; n: the number of questions; chosen and answers: the place of the model's choice and of
    the right one; scores: those of each choice; cut: of how many questions only the prompt's end was
    read.
    """

    accuracy: float
    standard_error: float
    chance: float
    n: int
    chosen: tuple[int, ...]
    answers: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]
    cut: int


def _summed_log_probs(
    model: nn.Module, pairs: Sequence[tuple[list[int], list[int]]], batch_size: int
) -> list[float]:
    """Return for each (ids before, ids scored) the sum of ln p of the latter."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    totals = [0.0] * len(pairs)
    for at in range(0, len(order), batch_size):
        batch = order[at : at + batch_size]
        longest = pairs[batch[-1]]
        T = len(longest[0]) + len(longest[1]) - 1
        x = torch.zeros(len(batch), T, dtype=torch.long)  # 0 as padding, on the right
        y = torch.full((len(batch), T), -100)
        for row, i in enumerate(batch):
            before, scored = pairs[i]
            end = len(before) + len(scored) - 1
            x[row, :end] = torch.tensor([*before, *scored[:-1]])
            y[row, len(before) - 1 : end] = torch.tensor(scored)

        sums = token_log_probs(model, x, y).double().sum(dim=1)  # (B,)
        for i, total in zip(batch, sums):
            totals[i] = float(total)
    return totals


def _length(normalize: str, choice: str, ids: Sequence[int]) -> int:
    """Return what the score of a choice is divided by."""
    if normalize == "tokens":
        return len(ids)
    if normalize == "bytes":
        return len(choice.encode("utf-8"))
    return 1


def multiple_choice_accuracy(
    model: nn.Module,
    tokenizer: _Tokenizer,
    questions: Iterable[Mapping[str, Any]],
    *,
    template: str | Callable[[str], str | Sequence[int]] = "{question} ",
    normalize: str = "tokens",
    batch_size: int = 16,
) -> ChoiceResult:
    """Let the model choose the likeliest answer to each question, and count the right ones.

    questions: dicts {"question": str, "choices": [str, ...], "answer": place of the right one}. The
    score of a choice after template.format(question=...) is the sum of ln p over its tokens, never
    those of the prompt, divided by their number ("tokens"), by the UTF-8 bytes of the choice ("bytes")
    or not at all ("none"). If scores are equal, the first of them is chosen. Spaces at the prompt's end
    are scored with the choice. If a prompt is too long for the model, its end is kept. template may
    also be a function of the question that returns the prompt, a text or a list of ids.

    Raises ValueError for questions that cannot be asked, for scores of nan, for another normalize, and
    for a batch_size below 1.
    """
    if normalize not in ("tokens", "bytes", "none"):
        raise ValueError(f"normalize is {normalize!r}; expected tokens, bytes or none.")
    _refuse_batch_size(batch_size)
    questions = list(questions)
    if not questions:
        raise ValueError("there is no question; expected at least 1.")

    limit = _max_seq_len(model)
    pairs: list[tuple[list[int], list[int]]] = []
    lengths: list[int] = []
    cut: set[int] = set()
    for i, question in enumerate(questions):
        _check_question(i, question)
        asked = question["question"]
        prompt = template(asked) if callable(template) else template.format(question=asked)
        for choice in question["choices"]:
            before, scored, was_cut = _prompt_and_choice(tokenizer, prompt, choice, limit)
            pairs.append((before, scored))
            lengths.append(_length(normalize, choice, scored))
            if was_cut:
                cut.add(i)

    sums = zip(_summed_log_probs(model, pairs, batch_size), lengths)
    divided = iter([total / length for total, length in sums])
    scores = tuple(tuple(next(divided) for _ in question["choices"]) for question in questions)
    if any(math.isnan(score) for row in scores for score in row):
        raise ValueError("the model answers nan: its weights are broken, or its logits overflow.")

    chosen = tuple(row.index(max(row)) for row in scores)
    answers = tuple(question["answer"] for question in questions)
    right = [float(choice == answer) for choice, answer in zip(chosen, answers)]
    accuracy, error = mean_with_error(right)
    chance = sum(1 / len(row) for row in scores) / len(scores)
    return ChoiceResult(accuracy, error, chance, len(scores), chosen, answers, scores, len(cut))


def compare_accuracy(one: ChoiceResult, other: ChoiceResult) -> tuple[float, float]:
    """Return the accuracy of `one` less that of `other`, and the standard error of this difference.

    The error is that of the differences question by question, so what both get right, or both wrong,
    adds nothing to it: Miller (2024). Raises ValueError unless both answered the same
    questions.
    """
    if one.answers != other.answers:
        raise ValueError(f"expected the same questions, got {one.n} and {other.n} other answers.")
    rows = zip(one.chosen, other.chosen, one.answers)
    return mean_with_error([float(a == right) - float(b == right) for a, b, right in rows])


@dataclass(frozen=True)
class Calibration:
    """How sure a model was and how often it was right, in bins of equal width from 0 to 1.

    error: the expected calibration error, the mean of |accuracy - confidence| weighted by counts;
    counts, confidence and accuracy: one number for each bin, the last two means, nan in an empty bin.
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
    Bin i of M holds i/M < confidence <= (i+1)/M, and the first bin also 0: Guo et al. (2017), eq. 3.

    Raises ValueError for other shapes, for nothing to count, and for numbers that are not
    probabilities.
    """
    p = torch.as_tensor(probabilities, dtype=torch.float64)
    correct = torch.as_tensor(correct)
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
        p, guess = p.max(dim=1)
        correct = guess == correct

    edges = torch.tensor([i / bins for i in range(1, bins)], dtype=torch.float64, device=p.device)
    place = torch.bucketize(p, edges)  # edges[place - 1] < p <= edges[place]
    counts = torch.bincount(place, minlength=bins)
    sure = torch.bincount(place, p, bins)  # the sum of confidences in each bin
    right = torch.bincount(place, correct.double(), bins)  # how many were right
    return Calibration(
        error=float((sure - right).abs().sum() / len(p)),
        counts=tuple(counts.tolist()),
        confidence=tuple((sure / counts).tolist()),
        accuracy=tuple((right / counts).tolist()),
    )
