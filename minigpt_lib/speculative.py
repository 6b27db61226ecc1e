"""Write several tokens for each pass of a model: guess cheaply, check the guesses at once, keep the distribution.

Shapes: B batch size (1 here), T sequence length, V vocabulary size, m guesses.

Written by notebooks/22_quantization.ipynb (chapter 22): edit it there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from minigpt_lib.baselines import evaluating
from minigpt_lib.generation import KVCache, filter_logits
from minigpt_lib.model import MiniGPT

__all__ = ["accept", "Draw", "ModelDraft", "NGramDraft", "speculate", "Speculated"]


def accept(
    p: Tensor, q: Tensor, guesses: Tensor, generator: torch.Generator | None = None
) -> tuple[int, int]:
    """Return (n, token): how many guesses to keep, and the token that follows them, so that all are drawn from p.

    p (m + 1, V): the model's probabilities before and after each guess. q (m, V): those that the guesses
    (m,) were drawn with. Leviathan et al. (2022), algorithm 1.
    """
    chances = p[:-1].gather(1, guesses[:, None]) / q.gather(1, guesses[:, None])  # (m, 1)
    luck = torch.rand(len(guesses), 1, generator=generator, device=p.device)
    rejected = (luck >= chances)[:, 0].nonzero()
    if not len(rejected):
        return len(guesses), int(torch.multinomial(p[-1], 1, generator=generator))

    n = int(rejected[0])
    left = (p[n] - q[n]).clamp(min=0)
    if not left.any():  # p and q are equal but for rounding
        left = p[n]
    return n, int(torch.multinomial(left, 1, generator=generator))


# logits (1, V) -> an id (1,) and the probabilities (1, V) it was drawn with
Draw = Callable[[Tensor], tuple[Tensor, Tensor]]


class _Draft(Protocol):
    """Whatever guesses how a text goes on."""

    def propose(self, ids: Tensor, n: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return at most n guesses (m,) after ids (T,), and the probabilities (m, V) they were drawn with."""
        ...


class NGramDraft:
    """Guess that the text goes on as it did after the last occurrence of its last `longest` tokens, or fewer.

    Saxena (2023), prompt lookup decoding. Raises ValueError unless longest is at least 1.
    """

    def __init__(self, vocab_size: int, longest: int = 3) -> None:
        if longest < 1:
            raise ValueError(f"longest={longest}: expected at least 1 token to look up.")
        self.vocab_size = vocab_size
        self.longest = longest

    def propose(self, ids: Tensor, n: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return at most n guesses after ids (T,); none if the last token is new."""
        guesses = ids[:0]
        for length in range(min(self.longest, len(ids) - 1), 0, -1):
            windows = ids[:-1].unfold(0, length, 1)  # all that end before the last token
            found = (windows == ids[-length:]).all(dim=1).nonzero()
            if len(found):
                after = int(found[-1]) + length
                guesses = ids[after : after + n]
                break
        sure = torch.nn.functional.one_hot(guesses, self.vocab_size).float()
        return guesses, sure


class ModelDraft:
    """Guess with a small model of the same vocabulary. Its cache keeps what a text shares with the one before."""

    def __init__(self, model: MiniGPT) -> None:
        self.model = model
        weight = model.embedding.weight
        self.cache = KVCache(model.config, 1, dtype=weight.dtype, device=weight.device)
        self.seen = torch.empty(0, dtype=torch.int64, device=weight.device)  # what the cache holds

    def propose(self, ids: Tensor, n: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return at most n guesses after ids (T,); fewer where the model's window ends."""
        n = min(n, self.model.config.max_seq_len - len(ids))
        common = min(len(self.seen), len(ids) - 1)
        differs = (self.seen[:common] != ids[:common]).nonzero()
        self.cache.truncate(int(differs[0]) if len(differs) else common)

        text, rows = ids, []
        with evaluating(self.model):
            for _ in range(n):
                new = text[None, self.cache.length :]
                logits, _ = self.model(new, cache=self.cache, last_only=True)
                token, chances = draw(logits[:, -1])
                text = torch.cat([text, token])
                rows.append(chances)
        self.seen = text[: self.cache.length]
        none = torch.empty(0, self.model.config.vocab_size, device=ids.device)
        return text[len(ids) :], torch.cat([none, *rows])


@dataclass(frozen=True)
class Speculated:
    """A text, ids (T + n,), and what it took: passes of the model, guesses checked, guesses accepted."""

    ids: Tensor
    n_passes: int
    n_guesses: int
    n_accepted: int


@torch.inference_mode()
def speculate(
    model: MiniGPT,
    ids: Tensor,
    draft: _Draft,
    max_new_tokens: int = 200,
    n_guesses: int = 4,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    generator: torch.Generator | None = None,
    stop_ids: Collection[int] = (),
) -> Speculated:
    """Write after ids (T,) as the model alone would, with guesses of a draft checked several at a time.

    Each token has the distribution of filter_logits with these settings; temperature 0 is greedy, and
    gives the greedy text (but for near-equal logits: a pass over several tokens rounds differently). A stop
    id ends the text and is part of it. Raises ValueError if ids are not (T,), T >= 1, if the text would not
    fit into max_seq_len, and for settings that make no sense.
    """
    _check_request(model, ids, max_new_tokens, n_guesses)
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}

    def chances_of(logits: Tensor) -> Tensor:
        return filter_logits(logits, **settings).softmax(dim=-1)

    def draw(logits: Tensor) -> tuple[Tensor, Tensor]:
        chances = chances_of(logits)
        return torch.multinomial(chances, 1, generator=generator)[:, 0], chances

    weight = model.embedding.weight
    end = len(ids) + max_new_tokens
    cache = KVCache(model.config, 1, end, weight.dtype, weight.device)
    n_passes = n_checked = n_accepted = 0

    with evaluating(model):
        if len(ids) > 1:  # all but the last token of the prompt, whose logits nobody needs
            model(ids[None, :-1], cache=cache, last_only=True)
        while len(ids) < end:
            room = end - len(ids) - 1  # a pass adds a token of the model's own
            guesses, q = draft.propose(ids, min(n_guesses, room), draw)
            logits, _ = model(torch.cat([ids[-1:], guesses])[None], cache=cache)
            kept, token = accept(chances_of(logits[0]), q, guesses, generator)

            n_passes += 1
            n_checked += len(guesses)
            n_accepted += kept
            written = [*guesses[:kept].tolist(), token]
            stops = [i for i, new in enumerate(written) if new in stop_ids]
            written = written[: stops[0] + 1] if stops else written
            ids = torch.cat([ids, ids.new_tensor(written)])
            if stops:
                break
            cache.truncate(len(ids) - 1)  # the last token has not been read yet

    return Speculated(ids, n_passes, n_checked, n_accepted)


def _check_request(model: MiniGPT, ids: Tensor, max_new_tokens: int, n_guesses: int) -> None:
    if ids.ndim != 1 or not len(ids):
        raise ValueError(
            f"expected the ids of one text, (T,) with T of at least 1, got {tuple(ids.shape)}."
        )
    if max_new_tokens < 1 or n_guesses < 0:
        raise ValueError(
            f"max_new_tokens={max_new_tokens}, n_guesses={n_guesses}: expected at least 1 and 0."
        )
    limit = model.config.max_seq_len
    if len(ids) + max_new_tokens > limit:
        raise ValueError(
            f"{len(ids)} tokens and {max_new_tokens} new ones, but max_seq_len is {limit}: ask for fewer."
        )
