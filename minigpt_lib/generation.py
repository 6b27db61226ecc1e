"""Write text with a model: choose tokens, remember what was computed, stop.

Shapes: B batch size, T sequence length, V vocabulary size,
H_kv key heads of width D.

Written by notebooks/11_generation.ipynb (chapter 11): edit it there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from minigpt_lib.baselines import evaluating
from minigpt_lib.data import _Tokenizer
from minigpt_lib.model import GPTConfig, MiniGPT

__all__ = [
    "STRATEGIES",
    "beam_search",
    "filter_logits",
    "GenerationConfig",
    "KVCache",
    "pack_weights",
    "sample",
    "TextGenerator",
]


def _problems(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
) -> Iterator[str]:
    """Yield an error message for each filter setting that makes no sense."""
    if not 0 <= temperature < math.inf:
        yield f"temperature={temperature}, expected at least 0"
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        yield f"top_k={top_k!r}, expected a whole number of at least 1, or None"
    if top_p is not None and not 0 < top_p <= 1:
        yield f"top_p={top_p}, expected above 0 and at most 1, or None"
    if min_p is not None and not 0 <= min_p <= 1:
        yield f"min_p={min_p}, expected 0 to 1, or None"
    if not 0 < repetition_penalty < math.inf:
        yield f"repetition_penalty={repetition_penalty}, expected above 0"


def _refuse(problems: Iterable[str]) -> None:
    """Raise a ValueError that lists the problems, if there are any."""
    listed = "; ".join(problems)
    if listed:
        raise ValueError(f"cannot generate: {listed}.")


def _bounded(factor: float) -> float:
    """Return a factor with the same effect that makes no float32 logit infinite."""
    return min(max(factor, 1e-30), 1e30)


def _penalise(scores: Tensor, previous: Tensor, penalty: float) -> Tensor:
    """Make the ids of previous (B, T) less likely: Keskar et al. (2019)."""
    seen = scores.gather(1, previous)
    seen = torch.where(seen < 0, seen * penalty, seen / penalty)
    return scores.scatter(1, previous, seen)


def _keep_best(scores: Tensor) -> Tensor:
    best = scores.argmax(dim=-1, keepdim=True)  # the lowest id of equals
    return torch.full_like(scores, -math.inf).scatter(1, best, scores.gather(1, best))


def _keep_top_k(scores: Tensor, top_k: int) -> Tensor:
    kth = scores.topk(min(top_k, scores.shape[-1])).values[:, -1:]
    return scores.masked_fill(scores < kth, -math.inf)


def _keep_top_p(scores: Tensor, top_p: float) -> Tensor:
    ordered, ids = scores.sort()  # the most likely last
    dropped = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    dropped[:, -1] = False
    return scores.masked_fill(dropped.scatter(1, ids, dropped), -math.inf)


def _keep_min_p(scores: Tensor, min_p: float) -> Tensor:
    probabilities = scores.softmax(dim=-1)
    least = min_p * probabilities.amax(dim=-1, keepdim=True)
    return scores.masked_fill(probabilities < least, -math.inf)


def filter_logits(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    previous: Tensor | None = None,
) -> Tensor:
    """Return logits (B, V) in float32, with -inf where a token is ruled out.

    None switches a filter off. In this order: repetition_penalty on the ids
    of `previous` (B, T); temperature, where 0 keeps only the best token;
    top_k, with the equals of the k-th; top_p (Holtzman et al., 2020), with
    the token that crosses the threshold; min_p times the largest probability.
    At least one token of each row stays. Raises ValueError for settings that
    make no sense.
    """
    _refuse(_problems(temperature, top_k, top_p, min_p, repetition_penalty))
    scores = logits.float()

    if repetition_penalty != 1:
        if previous is None:
            raise ValueError("repetition_penalty needs the ids so far: previous=ids, (B, T).")
        scores = _penalise(scores, previous, _bounded(repetition_penalty))

    if temperature == 0:
        return _keep_best(scores)
    if min(temperature, repetition_penalty) < 1e-6:  # against infinite quotients
        scores = scores - scores.amax(dim=-1, keepdim=True)
    scores = scores / _bounded(temperature)

    if top_k is not None:
        scores = _keep_top_k(scores, top_k)
    if top_p is not None:
        scores = _keep_top_p(scores, top_p)
    if min_p is not None:
        scores = _keep_min_p(scores, min_p)
    return scores


def sample(
    logits: Tensor, generator: torch.Generator | list[torch.Generator] | None = None
) -> Tensor:
    """Draw an id for each row of logits (B, V) by its probability: (B,) int64.

    generator: a torch.Generator, or a list with one for each row, so that a
    row's draws do not depend on its neighbours. Raises ValueError if the list
    does not have B generators.
    """
    probabilities = logits.float().softmax(dim=-1)
    if not isinstance(generator, (list, tuple)):
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    rows = zip(probabilities, generator, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=g) for row, g in rows])


class _LayerCache:
    """The keys and values of one layer; `owner` knows how many are filled."""

    def __init__(
        self,
        owner: "KVCache",
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: str | torch.device,
        is_last: bool,
    ) -> None:
        self.owner = owner
        self.is_last = is_last
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros_like(self.k)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k and v (B, H_kv, T, D) behind the rest; return all so far."""
        start = self.owner.length
        end = start + k.shape[2]
        B, _, max_len, _ = self.k.shape
        if end > max_len or len(k) != B or k.dtype != self.k.dtype:
            raise ValueError(
                f"the cache holds {B} texts of at most {max_len} tokens in {self.k.dtype}, but it got "
                f"{len(k)} texts with {end} tokens in {k.dtype}: make a KVCache of that size."
            )

        self.k[:, :, start:end] = k.detach()  # no gradient flows through a memory
        self.v[:, :, start:end] = v.detach()
        if self.is_last:  # all layers of a step must see the same length
            self.owner.length = end
        return self.k[:, :, :end], self.v[:, :, :end]


class KVCache:
    """Remember the keys and values of all tokens, so that each is computed once.

    `cache[i]` belongs to layer i; `length` counts the tokens, and moves when
    the last layer has written. The memory is taken at once: n_layer x 2 x B x
    H_kv x max_len x D numbers; max_len is max_seq_len by default. Raises
    ValueError when it is full.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        max_len: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        max_len = config.max_seq_len if max_len is None else max_len
        shape = (batch_size, config.n_kv_head or config.n_head, max_len, config.head_dim)
        last = config.n_layer - 1
        self.layers = [_LayerCache(self, shape, dtype, device, i == last) for i in range(last + 1)]
        self.length = 0

    def __getitem__(self, i: int) -> _LayerCache:
        return self.layers[i]

    def reset(self) -> None:
        """Forget everything; the memory is kept."""
        self.length = 0

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens; raises ValueError if there are fewer."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} tokens: the cache holds {self.length}.")
        self.length = length

    def reorder(self, rows: Tensor) -> None:
        """Let row b go on from what row rows[b] holds, rows (B,), for beams."""
        for layer in self.layers:
            for kept in (layer.k, layer.v):
                kept[:, :, : self.length] = kept[rows, :, : self.length]


def _new_cache(model: MiniGPT, batch_size: int, max_len: int) -> KVCache:
    weight = model.embedding.weight
    return KVCache(model.config, batch_size, max_len, weight.dtype, weight.device)


def _last_logits(
    model: MiniGPT, window: Tensor, lengths: list[int], cache: KVCache | None
) -> Tensor:
    """Return the logits (B, V) after `window` (B, T).

    Its first tokens may be in the cache. lengths[b] tokens at the right of
    row b are real; the padding before them is hidden.
    """
    T = window.shape[1]
    new = window if cache is None else window[:, cache.length :]
    positions = None
    mask = None
    if min(lengths) < T:
        padding = T - torch.tensor(lengths, device=window.device)[:, None]
        places = torch.arange(T, device=window.device)
        positions = (places - padding).clamp(min=0)[:, T - new.shape[1] :]
        mask = (places >= padding)[:, None, None]

    logits, _ = model(new, positions=positions, mask=mask, cache=cache, last_only=True)
    return logits[:, -1]


@torch.inference_mode()
def _steps(
    model: MiniGPT,
    ids: Tensor,
    lengths: list[int],
    n_tokens: int,
    choose: Callable[[Tensor, Tensor], Tensor],
    use_cache: bool,
) -> Iterator[Tensor]:
    """Yield the next ids (B,), n_tokens times.

    ids (B, T): the last lengths[b] tokens of row b are real. A row longer
    than max_seq_len goes on from the last half of it, read again from
    position 0, because the cache was filled at the old positions, by a model
    that still saw the beginning.
    """
    limit = model.config.max_seq_len
    B, T = ids.shape
    text = torch.cat([ids, ids.new_empty(B, n_tokens)], dim=1)
    cache = _new_cache(model, B, min(limit, T + n_tokens)) if use_cache else None
    start = 0  # where the window begins

    with evaluating(model):
        for end in range(T, T + n_tokens):
            if max(lengths) > limit:
                lengths = [n if n <= limit else max(1, limit // 2) for n in lengths]
                start = end - max(lengths)
                if cache is not None:
                    cache.reset()

            logits = _last_logits(model, text[:, start:end], lengths, cache)
            text[:, end] = choose(logits, text[:, :end])
            yield text[:, end]
            lengths = [n + 1 for n in lengths]


def _check_search(model: MiniGPT, ids: Tensor, max_new_tokens: int, num_beams: int) -> None:
    limit = model.config.max_seq_len
    fits = ids.shape[1] + max_new_tokens <= limit
    if len(ids) != 1 or num_beams < 1 or max_new_tokens < 1 or not fits:
        raise ValueError(
            f"expected ids (1, T), a beam, a token, and at most max_seq_len={limit} tokens in all; got "
            f"{tuple(ids.shape)}, num_beams={num_beams}, max_new_tokens={max_new_tokens}."
        )


def _rule_out(logits: Tensor, ids: Tensor) -> Tensor:
    """Return logits (B, V) with -inf at the ids (N,)."""
    return logits.index_fill(1, ids, -math.inf) if len(ids) else logits


def _grow(
    model: MiniGPT,
    beams: Tensor,
    scores: Tensor,
    n_candidates: int,
    suppressed: Tensor,
    memory: KVCache | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best candidates, each (n_candidates,): their scores, their beams, their new ids.

    beams (num_beams, T), scores (num_beams, 1); the ids in suppressed (N,) are ruled out.
    """
    new = beams if memory is None else beams[:, memory.length :]
    logits = model(new, cache=memory, last_only=True)[0][:, -1]
    log_probs = _rule_out(logits, suppressed).float().log_softmax(dim=-1)
    totals = scores + log_probs  # (num_beams, V)

    best, flat = totals.flatten().topk(n_candidates)
    V = totals.shape[1]
    return best, flat // V, flat % V


@torch.inference_mode()
def beam_search(
    model: MiniGPT,
    ids: Tensor,
    max_new_tokens: int,
    num_beams: int,
    *,
    length_penalty: float = 1.0,
    stop_ids: Collection[int] = (),
    cache: bool = True,
    suppress_ids: Collection[int] = (),
) -> Tensor:
    """Return ids (1, T) with the best continuation that is found, (1, T + n).

    It has at most max_new_tokens. Its score is the sum of log probabilities /
    n^length_penalty. num_beams texts grow side by side; one with a stop id is
    finished, and num_beams finished ones end the search, as in Hugging Face
    with early_stopping=True. suppress_ids: never written, as if the model had
    no such rows. Raises ValueError if the texts would not fit.
    """
    _check_search(model, ids, max_new_tokens, num_beams)
    # for each beam a candidate per stop, which may be finished, and one to go on
    n_candidates = max(2, 1 + len(stop_ids)) * num_beams
    n_candidates = min(n_candidates, num_beams * model.config.vocab_size)

    beams = ids.repeat(num_beams, 1)
    scores = torch.full((num_beams, 1), -1e9, device=ids.device)
    scores[0] = 0.0  # at first all beams are one text
    suppressed = torch.tensor([*suppress_ids], dtype=torch.int64, device=ids.device)
    memory = _new_cache(model, num_beams, ids.shape[1] + max_new_tokens) if cache else None
    finished: list[tuple[float, Tensor]] = []

    with evaluating(model):
        for n in range(1, max_new_tokens + 1):
            best, rows, tokens = _grow(model, beams, scores, n_candidates, suppressed, memory)
            grown = torch.cat([beams[rows], tokens[:, None]], dim=1)

            stops = torch.tensor([token in stop_ids for token in tokens.tolist()])
            ended = stops | (n == max_new_tokens)
            for i in ended[:num_beams].nonzero()[:, 0].tolist():
                finished.append((best[i].item() / n**length_penalty, grown[i]))
            if len(finished) >= num_beams or n == max_new_tokens:
                break

            going = (~ended).nonzero()[:num_beams, 0].to(ids.device)
            beams = grown[going]
            scores = best[going, None]
            if memory is not None:
                memory.reorder(rows[going])

    return max(finished, key=lambda pair: pair[0])[1][None]


STRATEGIES = ("greedy", "sample", "top_k", "top_p", "min_p", "beam")
_FILTERS = ("top_k", "top_p", "min_p")  # strategies with a filter of their name


def _wrong_options(c: "GenerationConfig") -> Iterator[str]:
    """Yield an error message for each option, or pair, that makes no sense."""
    yield from _problems(c.temperature, c.top_k, c.top_p, c.min_p, c.repetition_penalty)
    for name in ("max_new_tokens", "num_beams"):
        number = getattr(c, name)
        if type(number) is not int or number < 1:
            yield f"{name}={number!r}, expected a whole number of at least 1"
    if not -50 <= c.length_penalty <= 50:  # 100,000 tokens ** 50 still fits a float
        yield f"length_penalty={c.length_penalty}, expected -50 to 50"

    if c.strategy not in STRATEGIES:
        yield f"strategy={c.strategy!r}, expected one of {', '.join(STRATEGIES)}"
    if c.strategy in _FILTERS and getattr(c, c.strategy) is None:
        yield f"strategy={c.strategy!r} needs a value for {c.strategy}"
    if c.strategy == "beam" and c.repetition_penalty != 1:
        yield f"repetition_penalty={c.repetition_penalty} has no meaning for beam search"

    if c.overflow not in ("slide", "error"):
        yield f"overflow={c.overflow!r}, expected slide or error"
    if not all(type(s) is int or isinstance(s, str) and s for s in c.stop):
        yield f"stop={c.stop}, expected ids or texts of at least one character"


@dataclass(frozen=True)
class GenerationConfig:
    """How to write: every option of TextGenerator's methods.

    Raises ValueError for invalid ones. strategy: greedy, sample, top_k,
    top_p, min_p or beam. The fields top_k, top_p, min_p and num_beams are
    ignored under other strategies. length_penalty: the exponent of the length
    in a beam's score. stop: texts or ids. seed: row b draws with seed + b.
    overflow: when the text would outgrow max_seq_len, "slide" on and forget
    its beginning, or raise an "error" before the first token.
    """

    max_new_tokens: int = 200
    strategy: str = "top_p"
    temperature: float = 0.8
    top_k: int | None = 50
    top_p: float | None = 0.9
    min_p: float | None = None
    num_beams: int = 4
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[int | str, ...] = ()
    seed: int | None = None
    overflow: str = "slide"
    use_cache: bool = True

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, (str, int)) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)  # once, although it is frozen
        _refuse(_wrong_options(self))

    def choose(
        self,
        logits: Tensor,
        previous: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> Tensor:
        """Return the next id of each row, (B,).

        logits (B, V); previous (B, T): the ids so far; generator: as in
        `sample`.
        """
        if self.strategy == "greedy" and self.repetition_penalty == 1:
            return logits.argmax(dim=-1)

        scores = filter_logits(
            logits,
            temperature=0.0 if self.strategy == "greedy" else self.temperature,
            top_k=self.top_k if self.strategy == "top_k" else None,
            top_p=self.top_p if self.strategy == "top_p" else None,
            min_p=self.min_p if self.strategy == "min_p" else None,
            repetition_penalty=self.repetition_penalty,
            previous=previous,
        )
        return sample(scores, generator)


class _Reader:
    """Turn the tokens of a text into pieces that will not change any more."""

    def __init__(self, tokenizer: _Tokenizer, stop: Iterable[int | str]) -> None:
        self.decode = tokenizer.decode
        self.stop_ids = {s for s in stop if isinstance(s, int)}
        self.stop_texts = [s for s in stop if isinstance(s, str)]
        self.longest = max(map(len, self.stop_texts), default=0)
        self.ids: list[int] = []
        self.text = ""
        self.done = False

    def feed(self, token: int) -> str:
        """Take a token; return the new piece of text, which may be empty."""
        if token in self.stop_ids:
            return self.finish()

        self.ids.append(token)
        text = self.decode(self.ids)
        found = [text.find(stop) for stop in self.stop_texts if stop in text]
        if found:
            return self._release(text[: min(found)], done=True)

        text = text.rstrip("\ufffd")  # perhaps the first bytes of a character
        for size in range(self.longest - 1, 0, -1):
            beginnings = tuple(stop[:size] for stop in self.stop_texts if size < len(stop))
            if text.endswith(beginnings):
                return self._release(text[:-size])  # perhaps a stop begins
        return self._release(text)

    def finish(self) -> str:
        """Return what was held back: nothing will follow."""
        return "" if self.done else self._release(self.decode(self.ids), done=True)

    def _release(self, text: str, done: bool = False) -> str:
        piece = text[len(self.text) :]
        self.text += piece
        self.done = done
        return piece


def _check_room(prompts: list[list[int]], config: GenerationConfig, limit: int) -> None:
    """Raise a ValueError for an empty prompt, and for texts that cannot fit."""
    if not all(prompts):
        raise ValueError("an empty prompt: expected a token to go on from, such as a line break.")

    longest = max(map(len, prompts))
    fits = longest + config.max_new_tokens <= limit
    if not fits and (config.overflow == "error" or config.strategy == "beam"):
        raise ValueError(
            f"{longest} tokens and {config.max_new_tokens} new ones, but max_seq_len is {limit}: "
            'ask for fewer, or take overflow="slide" (which beam search cannot).'
        )


def _searched(
    model: MiniGPT, prompts: list[list[int]], config: GenerationConfig, banned: list[int]
) -> Iterator[Sequence[int]]:
    """Yield the ids that beam search finds, one of each row at a time.

    A row that has ended goes on with 0.
    """
    found = []
    for prompt in prompts:
        text = beam_search(
            model,
            torch.tensor([prompt], device=model.embedding.weight.device),
            config.max_new_tokens,
            config.num_beams,
            length_penalty=config.length_penalty,
            stop_ids=[stop for stop in config.stop if isinstance(stop, int)],
            cache=config.use_cache,
            suppress_ids=banned,
        )
        found.append(text[0, len(prompt) :].tolist())
    yield from zip_longest(*found, fillvalue=0)


def _tokens(
    model: MiniGPT,
    prompts: list[list[int]],
    config: GenerationConfig,
    without_token: Collection[int] = (),
) -> Iterator[Sequence[int]]:
    """Yield the next id of each row, again and again.

    An id without a token comes only if it is a stop.
    """
    _check_room(prompts, config, model.config.max_seq_len)
    banned = [i for i in without_token if i not in config.stop]
    if config.strategy == "beam":
        yield from _searched(model, prompts, config, banned)
        return

    device = model.embedding.weight.device
    lengths = [len(prompt) for prompt in prompts]
    longest = max(lengths)
    # a row's own first token is its padding, so the penalty meets no new id
    padded = [prompt[:1] * (longest - len(prompt)) + prompt for prompt in prompts]
    ids = torch.tensor(padded, device=device)
    suppressed = torch.tensor(banned, dtype=torch.int64, device=device)

    generators = None
    if config.seed is not None:
        seeds = range(config.seed, config.seed + len(prompts))
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def choose(logits: Tensor, previous: Tensor) -> Tensor:
        return config.choose(_rule_out(logits, suppressed), previous, generators)

    for tokens in _steps(model, ids, lengths, config.max_new_tokens, choose, config.use_cache):
        yield tokens.tolist()


def _decodes(tokenizer: _Tokenizer, ids: Sequence[int]) -> bool:
    try:
        tokenizer.decode(ids)
    except (ValueError, LookupError):
        return False
    return True


def _ids_without_token(tokenizer: _Tokenizer, vocab_size: int) -> list[int]:
    """Return the ids below vocab_size that the tokenizer cannot decode."""
    known = range(tokenizer.vocab_size)
    gaps = []
    if not _decodes(tokenizer, [*known]):
        gaps = [i for i in known if not _decodes(tokenizer, [i])]
    return [*gaps, *range(len(known), vocab_size)]


class TextGenerator:
    """Write with a model and its tokenizer.

    The options of all methods are those of GenerationConfig. An id for which
    the tokenizer has no token is never written, unless it is named as a stop.
    Raises ValueError if the tokenizer has more ids than the model.
    """

    def __init__(self, model: MiniGPT, tokenizer: _Tokenizer) -> None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}: "
                "they do not belong together."
            )
        self.model = model
        self.tokenizer = tokenizer
        self._without_token = _ids_without_token(tokenizer, model.config.vocab_size)

    def _encode(self, prompt: str | Tensor) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt.tolist()

    def _tokens(
        self, prompts: list[list[int]], config: GenerationConfig
    ) -> Iterator[Sequence[int]]:
        return _tokens(self.model, prompts, config, self._without_token)

    def generate(
        self,
        prompt: str | Tensor | Sequence[str | Tensor],
        max_new_tokens: int = 200,
        strategy: str = "top_p",
        *,
        include_prompt: bool = False,
        **options: Any,
    ) -> str | list[str]:
        """Return the continuation of a prompt, or a list for a list of prompts.

        A prompt is a text, or a tensor (T,) of its ids. Each prompt of a list
        gets what it would get alone (up to rounding). A stop is not part of
        the text, nor is the prompt by default. Raises ValueError for an empty
        prompt.
        """
        config = GenerationConfig(max_new_tokens, strategy, **options)
        if isinstance(prompt, str) or (isinstance(prompt, Tensor) and prompt.ndim == 1):
            return self._continue([prompt], config, include_prompt)[0]

        prompts = list(prompt)
        return self._continue(prompts, config, include_prompt) if prompts else []

    def _continue(
        self, prompts: list[str | Tensor], config: GenerationConfig, include_prompt: bool
    ) -> list[str]:
        """Return the continuation of each prompt."""
        readers = [_Reader(self.tokenizer, config.stop) for _ in prompts]
        encoded = [self._encode(prompt) for prompt in prompts]
        for tokens in self._tokens(encoded, config):
            for reader, token in zip(readers, tokens):
                if not reader.done:
                    reader.feed(token)
            if all(reader.done for reader in readers):
                break

        for reader in readers:
            reader.finish()
        if not include_prompt:
            return [reader.text for reader in readers]

        texts = []
        for prompt, reader in zip(prompts, readers):
            given = prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt.tolist())
            texts.append(given + reader.text)
        return texts

    def stream(
        self,
        prompt: str | Tensor,
        max_new_tokens: int = 200,
        strategy: str = "top_p",
        **options: Any,
    ) -> Generator[str, None, None]:
        """Yield the continuation of a prompt piece by piece, when each is certain."""
        config = GenerationConfig(max_new_tokens, strategy, **options)
        reader = _Reader(self.tokenizer, config.stop)
        for (token,) in self._tokens([self._encode(prompt)], config):
            piece = reader.feed(token)
            if piece:
                yield piece
            if reader.done:
                return

        piece = reader.finish()
        if piece:
            yield piece

    def generate_ids(
        self, ids: Tensor, max_new_tokens: int = 200, strategy: str = "top_p", **options: Any
    ) -> Tensor:
        """Return ids (B, T) with continuations, (B, T + n), a stop id included.

        A row that ended before the others repeats its stop id. Raises
        ValueError for stop texts.
        """
        config = GenerationConfig(max_new_tokens, strategy, **options)
        if any(isinstance(stop, str) for stop in config.stop):
            raise ValueError(f"generate_ids knows no texts: stop={config.stop} must be ids.")

        columns = []
        last: list[int | None] = [None] * len(ids)
        for tokens in self._tokens(ids.tolist(), config):
            last = [old if old in config.stop else new for old, new in zip(last, tokens)]
            columns.append(last)
            if all(token in config.stop for token in last):
                break
        return torch.cat([ids, torch.tensor(columns, device=ids.device).T], dim=1)


class _PackedLinear(nn.Module):
    """A linear layer whose bfloat16 matrix lies as this processor wants it; it cannot be trained."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def _can_pack() -> bool:
    """Return whether torch's oneDNN is there, with the operations that we use, and knows bfloat16."""
    if not (
        torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _pack_linear_layers(model: MiniGPT) -> None:
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, _PackedLinear(layer.weight, layer.bias))
    if model.head is None:  # the embedding is the largest matrix of all
        model.head = _PackedLinear(model.embedding.weight)


def pack_weights(model: MiniGPT) -> MiniGPT:
    """Return a copy of a model that writes faster on a processor: the same numbers, in another order in memory.

    float32: matrices with more rows than columns are kept column by column. bfloat16: all are packed by
    torch's oneDNN, if it is there. Other types and devices: a plain copy. The logits are those of `model` up
    to rounding. The copy takes the memory of the weights again, and cannot be trained or saved.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    weight = model.embedding.weight
    if weight.device.type != "cpu":
        return model

    if weight.dtype == torch.float32:
        for matrix in model.parameters():
            if matrix.ndim == 2 and len(matrix) > matrix.shape[1]:
                matrix.data = matrix.data.t().contiguous().t()
    if weight.dtype == torch.bfloat16 and _can_pack():
        _pack_linear_layers(model)
    return model
