"""Chapter 03: the split, the shifted target, and the last window."""

import torch

from courseware.exercises import Broken, Exercise, Mistake


def _probe_split(answer):
    for length, fraction in ((10, 0.1), (20, 0.25), (7, 0.5), (9, 0.25), (5, 0.1)):
        tokens = torch.arange(length) * 3
        train, val = answer(tokens.clone(), fraction)
        label = f"{length} tokens, val_fraction={fraction}"
        if _shuffled(tokens, train, val):
            yield label, Broken("shuffled before splitting")
        yield f"{label}, train", train
        yield f"{label}, validation", val


def _shuffled(tokens, *parts):
    """Return whether the parts hold all tokens out of order; each shuffle gives other results."""
    if not all(isinstance(part, torch.Tensor) and part.dim() == 1 for part in parts):
        return False
    everything = torch.cat(parts).sort().values
    in_order = all(bool((part.diff() > 0).all()) for part in parts)
    return torch.equal(everything, tokens) and not in_order


SPLIT = Exercise(
    "split", _probe_split,
    hints=(
        "The validation part is the *last* part of the text, and no token is in both parts.",
        "Its length is int(len(tokens) * val_fraction).",
        "cut = len(tokens) - int(len(tokens) * val_fraction), then tokens[:cut] and tokens[cut:]",
    ),
    explanation="Two slices that meet at one place: nothing is lost and nothing is in both.",
    look='chapter 3, "Set a part aside"',
    mistakes=(
        Mistake("the validation part comes first", "The validation part is taken from the beginning; the task asks for the end.",
                edit=("return tokens[:cut], tokens[cut:]", "cut = len(tokens) - cut\nreturn tokens[cut:], tokens[:cut]")),
        Mistake("shuffled before splitting", "You shuffled single tokens. The text is destroyed, and neighbours of validation tokens are in training."),
        Mistake("the parts are swapped", "The larger part is your validation part: val_fraction is the fraction for validation.",
                edit=("cut = len(tokens) - int", "cut = int"), also=(("* val_fraction", "* (1 - val_fraction)"),)),
        Mistake("validation returned first", "You return the validation part first. The task asks for (train, validation).",
                edit=("tokens[:cut], tokens[cut:]", "tokens[cut:], tokens[:cut]")),
        Mistake("one token in both parts", "The first validation token is also the last training token. Both slices need the same cut.",
                edit=("tokens[:cut]", "tokens[: cut + 1]")),
        Mistake("one token in neither part", "The token at the cut is in neither part. Both slices need the same cut.",
                edit=("tokens[cut:]", "tokens[cut + 1 :]")),
        Mistake("the training part rounded down", "Where the fraction is not a whole number of tokens, your training part is one too short: round the validation part down.",
                edit=("len(tokens) - int(len(tokens) * val_fraction)", "int(len(tokens) * (1 - val_fraction))")),
        Mistake("rounded to the nearest", "The size of the validation part is int(...), which rounds down. You rounded to the nearest whole number.",
                edit=("int(", "round(")),
        Mistake("tokens[-0:] is everything", "Where the validation part has no tokens, tokens[:-0] is empty and tokens[-0:] is the whole text. Count the cut from the front.",
                edit=("len(tokens) - int(", "-int(")),
    ),
)  # fmt: skip


def _probe_batch(answer):
    tokens = torch.arange(100, 130) ** 2 % 97
    for starts, size in (([2, 5, 11], 4), ([24], 4), ([7, 3, 7], 3)):
        x, y = answer(tokens.clone(), list(starts), size)
        yield f"x for starts {starts}", x
        yield f"y for starts {starts}", y


BATCH = Exercise(
    "batch", _probe_batch,
    hints=(
        "x holds block_size tokens from each start; y holds the block_size tokens from start + 1.",
        "tokens[s : s + block_size] and tokens[s + 1 : s + block_size + 1]",
        "torch.stack turns a list of B rows of T tokens into a (B, T) tensor.",
    ),
    explanation="At every position t the model sees x[:, :t+1] and should predict y[:, t], the token that comes next.",
    look='chapter 3, "Break it: forget the shift"',
    mistakes=(
        Mistake("y is x", "The targets are the inputs. The model would learn to copy, and its loss would go to 0.",
                edit=("tokens[s + 1 : s + block_size + 1]", "tokens[s : s + block_size]")),
        Mistake("shifted twice", "The targets are two tokens ahead. This happens when both the data and the model shift: shift exactly once.",
                edit=("tokens[s + 1 : s + block_size + 1]", "tokens[s + 2 : s + block_size + 2]")),
        Mistake("shifted backwards", "The targets are the tokens *before* the inputs: the model would predict what it has already seen.",
                edit=("tokens[s + 1 : s + block_size + 1]", "tokens[s - 1 : s + block_size - 1]")),
        Mistake("inputs and targets exchanged", "You return (y, x). The inputs come first, the targets second.",
                edit=("return x, y", "return y, x")),
        Mistake("only the last target", "You return one target for each row. Every position has a target: a block of T tokens gives T lessons.",
                edit=("return x, y", "return x, y[:, -1]")),
        Mistake("the last target is missing", "Your y is one token shorter than x. The end of its slice moves, too: s + block_size + 1.",
                edit=("s + block_size + 1", "s + block_size")),
        Mistake("the first token as the last target", "You rolled the rows, so the last target of a row is its first token. The right one stands in the text: tokens[s + block_size].",
                edit=("torch.stack([tokens[s + 1 : s + block_size + 1] for s in starts])", "x.roll(-1, dims=1)")),
        Mistake("time before batch", "The result has shape (T, B). Each row should be one sequence, (B, T): stack along dim 0.",
                edit=("return x, y", "return x.mT, y.mT")),
        Mistake("all rows in one", "You joined the rows end to end with torch.cat. torch.stack puts one below the other: (B, T).",
                edit=(("x = torch.stack", "x = torch.cat"), ("y = torch.stack", "y = torch.cat"))),
    ),
)  # fmt: skip


def _probe_windows(answer):
    for n, block, stride in ((9, 4, 4), (10, 4, 1), (5, 4, 2), (4, 4, 1), (13, 3, 5), (2, 4, 3)):
        yield f"window_starts({n}, {block}, {stride})", answer(n, block, stride)


WINDOWS = Exercise(
    "window_starts", _probe_windows,
    hints=(
        "A window that starts at s needs tokens s to s + block_size: block_size inputs, and one more for the last target.",
        "So the last start that fits is s = n_tokens - block_size - 1. Does range include its end?",
        "range(0, n_tokens - block_size, stride)",
    ),
    explanation="s + block_size + 1 <= n_tokens is the condition; range stops before its end, so the - 1 is already there.",
    look='chapter 3, "Every token once"',
    mistakes=(
        Mistake("the last window is lost", "The last window that fits is left out, so some tokens are never trained on. range does not include its end.",
                edit=("- block_size", "- block_size - 1")),
        Mistake("a window without its last target", "The last window has block_size inputs but one target too few: a window needs block_size + 1 tokens.",
                edit=("- block_size", "- block_size + 1")),
        Mistake("runs over the end", "Some windows start so late that the text ends before they do. The last start is n_tokens - block_size - 1.",
                edit=("- block_size", "")),
        Mistake("the stride is ignored", "The distance of your windows does not depend on the stride: it is the third argument of range.",
                edit=("stride))", "block_size))"), also=((", stride))", "))"),)),
    ),
)  # fmt: skip
