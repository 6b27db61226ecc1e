"""Exercises of chapter 03: the split, the shifted target, and the last window."""

from __future__ import annotations

import torch

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- the split ---


def split(tokens, val_fraction):
    cut = len(tokens) - int(len(tokens) * val_fraction)
    return tokens[:cut], tokens[cut:]


def _shuffled(tokens, val_fraction):
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    mixed = torch.as_tensor(tokens)[order]
    cut = len(tokens) - int(len(tokens) * val_fraction)
    return mixed[:cut], mixed[cut:]


def _run_split(answer):
    for length, fraction in ((10, 0.1), (20, 0.25), (7, 0.5)):
        train, val = answer(torch.arange(length), fraction)
        yield f"split(torch.arange({length}), {fraction}), train", train
        yield f"split(torch.arange({length}), {fraction}), validation", val


SPLIT = Exercise(
    name="split",
    chapter=3,
    title="the contiguous split",
    minutes=10,
    difficulty=1,
    hints=(
        "The validation part is the *last* part of the text, and no token is in both parts.",
        "Its length is int(len(tokens) * val_fraction).",
        "cut = len(tokens) - int(len(tokens) * val_fraction), then tokens[:cut] and tokens[cut:]",
    ),
    run=_run_split,
    reference=split,
    explanation="Two slices that meet at one place: nothing is lost and nothing is in both.",
    wrong=(
        WrongAnswer(
            "the validation part comes first",
            "The validation part is taken from the beginning; the task asks for the end.",
            "which slice is which",
            lambda t, f: (t[int(len(t) * f) :], t[: int(len(t) * f)]),
        ),
        WrongAnswer(
            "shuffled before splitting",
            "You shuffled single tokens. The text is destroyed, and neighbours of validation tokens are in training.",
            'chapter 3, "Set a part aside"',
            _shuffled,
        ),
        WrongAnswer(
            "the parts are swapped",
            "The larger part is your validation part: val_fraction is the fraction for validation.",
            "the order of the results",
            lambda t, f: (t[: int(len(t) * f)], t[int(len(t) * f) :]),
        ),
        WrongAnswer(
            "one token in both parts",
            "The first validation token is also the last training token.",
            "both slices use the same cut",
            lambda t, f: (t[: len(t) - int(len(t) * f) + 1], t[len(t) - int(len(t) * f) :]),
        ),
    ),
)

# --- inputs and targets ---


def batch(tokens, starts, block_size):
    x = torch.stack([tokens[s : s + block_size] for s in starts])
    y = torch.stack([tokens[s + 1 : s + block_size + 1] for s in starts])
    return x, y


def _shifted(by, transpose=False):
    def answer(tokens, starts, block_size):
        x = torch.stack([tokens[s : s + block_size] for s in starts])
        y = torch.stack([tokens.roll(-by)[s : s + block_size] for s in starts])
        return (x.T, y.T) if transpose else (x, y)

    return answer


def _last_only(tokens, starts, block_size):
    x, y = batch(tokens, starts, block_size)
    return x, y[:, -1]


def _run_batch(answer):
    tokens = torch.arange(100, 130) ** 2 % 97
    for starts, size in (([0, 5, 9], 4), ([25], 4)):
        x, y = answer(tokens.clone(), list(starts), size)
        yield f"x for starts {starts}", x
        yield f"y for starts {starts}", y


BATCH = Exercise(
    name="batch",
    chapter=3,
    title="inputs and targets",
    minutes=15,
    difficulty=2,
    hints=(
        "x holds block_size tokens from each start; y holds the block_size tokens from start + 1.",
        "tokens[s : s + block_size] and tokens[s + 1 : s + block_size + 1]",
        "torch.stack turns a list of B rows of T tokens into a (B, T) tensor.",
    ),
    run=_run_batch,
    reference=batch,
    explanation="At every position t the model sees x[:, :t+1] and should predict y[:, t], the token that comes next.",
    wrong=(
        WrongAnswer(
            "y is x",
            "The targets are the inputs. The model would learn to copy, and its loss would go to 0.",
            'chapter 3, "Break it: forget the shift"',
            _shifted(0),
        ),
        WrongAnswer(
            "shifted twice",
            "The targets are two tokens ahead. This happens when both the data and the model shift.",
            "shift exactly once",
            _shifted(2),
        ),
        WrongAnswer(
            "shifted backwards",
            "The targets are the tokens *before* the inputs: the model would predict what it has already seen.",
            "start + 1, not start - 1",
            _shifted(-1),
        ),
        WrongAnswer(
            "only the last target",
            "You return one target for each row. Every position has a target: a block of T tokens gives T lessons.",
            "y has the shape of x",
            _last_only,
        ),
        WrongAnswer(
            "time before batch",
            "The result has shape (T, B). Each row should be one sequence: (B, T).",
            "torch.stack along dim 0",
            _shifted(1, transpose=True),
        ),
    ),
)

# --- find the bug: the last window ---


def window_starts(n_tokens, block_size, stride):
    return list(range(0, n_tokens - block_size, stride))


def _given(n_tokens, block_size, stride):
    """Return the list of starts of all windows that fit, with one more token for the last target."""
    return list(range(0, n_tokens - block_size - 1, stride))


def _run_windows(answer):
    for n, block, stride in ((9, 4, 4), (10, 4, 1), (5, 4, 2), (4, 4, 1), (13, 3, 5)):
        yield f"window_starts({n}, {block}, {stride})", list(answer(n, block, stride))


WINDOWS = Exercise(
    name="window_starts",
    chapter=3,
    title="find the bug: the last window",
    minutes=15,
    difficulty=2,
    hints=(
        "A window that starts at s needs tokens s to s + block_size: block_size inputs, and one more for the last target.",
        "So the last start that fits is s = n_tokens - block_size - 1. Does range include its end?",
        "range(0, n_tokens - block_size, stride)",
    ),
    run=_run_windows,
    reference=window_starts,
    given=_given,
    explanation="s + block_size + 1 <= n_tokens is the condition; range stops before its end, so the - 1 is already there.",
    wrong=(
        WrongAnswer(
            "the last window is lost",
            "The last window that fits is left out, so some tokens are never trained on.",
            "range does not include its end",
            lambda n, block, stride: list(range(0, n - block - 1, stride)),
        ),
        WrongAnswer(
            "a window without its last target",
            "The last window has block_size inputs but one target too few.",
            "a window needs block_size + 1 tokens",
            lambda n, block, stride: list(range(0, n - block + 1, stride)),
        ),
        WrongAnswer(
            "runs over the end",
            "Some windows start so late that the text ends before they do.",
            "the last start is n_tokens - block_size - 1",
            lambda n, block, stride: list(range(0, n, stride)),
        ),
        WrongAnswer(
            "the stride is ignored",
            "The windows are block_size apart, whatever the stride is.",
            "the third argument of range",
            lambda n, block, stride: list(range(0, n - block, block)),
        ),
    ),
)

EXERCISES = (SPLIT, BATCH, WINDOWS)
