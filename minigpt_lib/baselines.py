"""Measure a language model in nats, bits and perplexity, and give it two small rivals to beat.

Shapes: B batch size, T sequence length, V vocabulary size, N = B * T predictions. A model maps
input ids (B, T) to logits (B, T, V): at each place, a score for every possible next token. Losses
are in nats per token (natural logarithm) unless a name says bits.

Written by notebooks/04_baselines.ipynb (chapter 04): edit it there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from minigpt_lib.data import TextDataset, Tokens, create_dataloader, get_batch

__all__ = [
    "MLPLM",
    "BigramLM",
    "bits_per_char",
    "cross_entropy",
    "evaluate_loss",
    "evaluating",
    "generate",
    "perplexity",
    "train_baseline",
]


def cross_entropy(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Return the mean of -ln p(target) in nats, a scalar, over all targets but the ignored ones.

    logits: (N, V) floats; targets: (N,) integers from 0 to V - 1, or `ignore_index`. Gradients flow
    to the logits. The largest logit of a row is subtracted first, so no exponential overflows.

    Raises ValueError for other shapes, for a target outside the vocabulary (with its position), or
    if every target is ignored (where torch's own function returns nan).
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        shapes = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise ValueError(
            f"expected logits (N, V) and targets (N,), got {shapes}; flatten them first."
        )

    counted = targets != ignore_index
    wrong = (counted & ((targets < 0) | (targets >= logits.shape[1]))).nonzero()
    if len(wrong):
        place = int(wrong[0])
        raise ValueError(
            f"target {int(targets[place])} at position {place} is outside the vocabulary of "
            f"{logits.shape[1]}; expected 0 to {logits.shape[1] - 1}, or {ignore_index}."
        )
    if not counted.any():
        raise ValueError(f"every one of the {len(targets)} targets is ignored: nothing to average.")

    shifted = logits - logits.max(dim=1, keepdim=True).values.detach()
    log_probs = shifted - shifted.exp().sum(dim=1, keepdim=True).log()  # (N, V)
    picked = log_probs.gather(1, targets.masked_fill(~counted, 0)[:, None])[:, 0]
    return -picked[counted].mean()


def perplexity(loss: float) -> float:
    """Return e ** loss for a loss in nats per token: the sides of a fair die that is as hard to guess."""
    return math.exp(float(loss))


def bits_per_char(loss: float, chars_per_token: float = 1.0) -> float:
    """Convert a loss in nats per token to bits per character.

    chars_per_token is the mean length of a token, 1 for a character tokenizer. Raises ValueError if
    it is not positive.
    """
    if not chars_per_token > 0:
        raise ValueError(f"chars_per_token is {chars_per_token}; expected a positive number.")
    return float(loss) / math.log(2) / chars_per_token


def _loss(logits: Tensor, targets: Tensor | None) -> Tensor | None:
    """Return the loss of logits (B, T, V) and targets (B, T), or None without targets."""
    if targets is None:
        return None
    return cross_entropy(logits.flatten(0, 1), targets.flatten())


class BigramLM(nn.Module):
    """Predict the next token from the last one alone: a table of logits, (V, V), row = last token.

    A new table is all zeros: it has no idea, and its loss is ln V. `from_counts` fills in the best one.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocab_size, vocab_size))

    @classmethod
    def from_counts(cls, tokens: Tokens, vocab_size: int, alpha: float = 1.0) -> "BigramLM":
        """Count the pairs of `tokens`, N integer ids, each pair as if seen `alpha` times before.

        p(b | a) = (n_ab + alpha) / (n_a + alpha * V). With alpha = 0 no table has a lower loss on
        `tokens` itself, and a token that nothing followed gets a uniform row.

        Raises ValueError for fewer than 2 tokens, an id outside the vocabulary, or alpha < 0.
        """
        ids = torch.as_tensor(tokens).long()
        if alpha < 0 or len(ids) < 2 or int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
            raise ValueError(
                f"expected alpha >= 0 and at least 2 ids from 0 to {vocab_size - 1}, got "
                f"alpha={alpha} and {len(ids)} ids from {ids.min() if len(ids) else '-'} to "
                f"{ids.max() if len(ids) else '-'}."
            )

        pairs = torch.bincount(ids[:-1] * vocab_size + ids[1:], minlength=vocab_size**2)
        seen = pairs.view(vocab_size, vocab_size).double() + alpha
        total = seen.sum(dim=1, keepdim=True)
        log_probs = torch.where(total > 0, (seen / total).log(), -math.log(vocab_size))
        model = cls(vocab_size)
        model.table.data = log_probs.float()
        return model

    def forward(
        self, input_ids: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Map ids (B, T) to logits (B, T, V) and, with targets (B, T), the loss in nats."""
        logits = self.table[input_ids]
        return logits, _loss(logits, targets)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode (no dropout) in this context, and back into its mode after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.no_grad()
def evaluate_loss(
    model: nn.Module,
    tokens: Tokens,
    block_size: int = 256,
    batch_size: int = 64,
    loss_of: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> float:
    """Return the model's mean loss over all of `tokens`, N ids, in nats per token; deterministic.

    Every token but the first is predicted once, from at most `block_size` tokens before it.
    loss_of(x, y) returns the mean loss of a batch; the default is model(x, y)[1]. The model is in
    evaluation mode meanwhile. Raises ValueError for fewer than 2 tokens.
    """
    total = 0.0
    windows = TextDataset(tokens, max(1, min(block_size, len(tokens) - 1)))
    with evaluating(model):
        for x, y in create_dataloader(windows, batch_size, shuffle=False):
            loss = model(x, y)[1] if loss_of is None else loss_of(x, y)
            total += float(loss) * int((y != -100).sum())

    return total / (len(tokens) - 1)


@torch.no_grad()
def generate(
    model: nn.Module,
    input_ids: Tensor,
    max_new_tokens: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Extend ids (B, T) by sampling, one token at a time: (B, T + max_new_tokens) int64.

    Each new token is drawn from softmax(logits) at the last place; `generator` makes it repeatable.
    Raises ValueError if T is 0: a model needs a token to start from.
    """
    if input_ids.ndim != 2 or input_ids.shape[1] < 1:
        shape = tuple(input_ids.shape)
        raise ValueError(f"expected ids (B, T) with at least one token each, got {shape}.")

    for _ in range(max_new_tokens):
        last = model(input_ids)[0][:, -1]  # (B, V)
        drawn = torch.multinomial(last.softmax(dim=-1), 1, generator=generator)
        input_ids = torch.cat([input_ids, drawn], dim=1)
    return input_ids


class MLPLM(nn.Module):
    """Predict the next token from the last `context` ones: embedding, hidden layer (ReLU), logits.

    n_embd: numbers per token. n_hidden: width of the hidden layer. Places before the beginning of a
    text count as zeros. Bengio et al. (2003), section 2, with ReLU for tanh and without the direct
    connections from embedding to output.

    Raises ValueError if a size is below 1.
    """

    def __init__(
        self, vocab_size: int, n_embd: int = 32, n_hidden: int = 128, context: int = 1
    ) -> None:
        super().__init__()
        if min(vocab_size, n_embd, n_hidden, context) < 1:
            raise ValueError(
                f"vocab_size={vocab_size}, n_embd={n_embd}, n_hidden={n_hidden} and "
                f"context={context} must all be at least 1."
            )
        self.context = context
        self.embedding = nn.Embedding(vocab_size, n_embd)
        self.hidden = nn.Linear(context * n_embd, n_hidden)
        self.output = nn.Linear(n_hidden, vocab_size)

    def forward(
        self, input_ids: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Map ids (B, T) to logits (B, T, V) and, with targets (B, T), the loss in nats."""
        T = input_ids.shape[1]
        x = self.embedding(input_ids)  # (B, T, C)
        x = nn.functional.pad(x, (0, 0, self.context - 1, 0))  # zeros before the beginning
        x = torch.cat([x[:, i : i + T] for i in range(self.context)], dim=-1)  # (B, T, context * C)
        logits = self.output(self.hidden(x).relu())
        return logits, _loss(logits, targets)


def train_baseline(
    model: nn.Module,
    train_tokens: Tokens,
    val_tokens: Tokens,
    *,
    seed: int = 0,
    steps: int = 800,
    batch_size: int = 32,
    block_size: int = 64,
    lr: float = 1e-2,
    eval_every: int = 100,
    draw: Callable[[Tokens, int, int, torch.Generator], tuple[Tensor, Tensor]] = get_batch,
) -> list[dict[str, float]]:
    """Train `model` in place with AdamW, the learning rate falling linearly to 0; return the history.

    The history has a dict every `eval_every` steps: "step", "train_loss" (mean over the batches since
    the last record, nats per token), "val_loss" (all of val_tokens). `seed` decides the batches; pass
    another function than `get_batch` as `draw` to see what a mistake does.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    history = []
    recent: list[float] = []
    for step in range(1, steps + 1):
        x, y = draw(train_tokens, batch_size, block_size, generator)
        loss = model(x, y)[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

        recent.append(loss.item())
        if step % eval_every == 0:
            val_loss = evaluate_loss(model, val_tokens)
            mean = sum(recent) / len(recent)
            history.append({"step": step, "train_loss": mean, "val_loss": val_loss})
            recent = []
    return history
