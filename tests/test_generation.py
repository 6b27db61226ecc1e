"""Chapter 11: filters keep the likeliest tokens; batches, caches, windows and streams do not change what is written."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.generation import (
    GenerationConfig,
    KVCache,
    TextGenerator,
    beam_search,
    filter_logits,
    sample,
)
from minigpt_lib.model import GPTConfig, MiniGPT

LETTERS = CharTokenizer("abcdefghijklm")
BYTES = BPETokenizer({bytes([b]): b for b in range(256)})
POSITIONS = ("rope", "learned", "sinusoidal")
SEEDS = st.integers(0, 2**32)


def small_model(seed=3, vocab_size=13, max_seq_len=24, **choices):
    """Return a model with weights large enough for its predictions to differ."""
    torch.manual_seed(seed)
    choices = {"n_embd": 12, "n_layer": 2, "n_head": 3, "tie_weights": False} | choices
    model = MiniGPT(GPTConfig(vocab_size, max_seq_len, **choices)).eval()

    for name, weight in model.named_parameters():
        mean = float("norm" in name and name.endswith("weight"))
        torch.nn.init.normal_(weight, mean, 0.1 if weight.ndim == 1 else 0.8)

    return model


# ---------------------------------------------------------------- filters


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 40),
    st.floats(0.05, 5),
    st.integers(1, 45) | st.none(),
    st.floats(0.01, 1) | st.none(),
    st.floats(0, 1) | st.none(),
    SEEDS,
)
def test_filters_keep_the_likeliest_tokens_and_at_least_one(
    B, V, temperature, top_k, top_p, min_p, seed
):
    logits = 3 * torch.randn(B, V, generator=torch.Generator().manual_seed(seed))

    scores = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)

    kept = scores > -math.inf
    assert kept.any(dim=-1).all()
    assert kept.gather(1, logits.argmax(-1, keepdim=True)).all()
    torch.testing.assert_close(scores[kept], (logits / temperature)[kept])
    for row, left in zip(logits, kept):
        assert left.all() or row[left].min() >= row[~left].max(), "a better token was dropped"
    if top_k is not None:
        assert (kept.sum(-1) <= top_k).all()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 40),
    st.floats(0.05, 5),
    st.integers(1, 45) | st.none(),
    st.floats(0.01, 1),
    SEEDS,
)
def test_top_p_keeps_the_fewest_tokens_whose_probabilities_sum_to_p(
    B, V, temperature, top_k, top_p, seed
):
    logits = 3 * torch.randn(B, V, generator=torch.Generator().manual_seed(seed))
    probabilities = filter_logits(logits, temperature=temperature, top_k=top_k).softmax(-1)

    scores = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p)

    kept = scores > -math.inf
    total = (probabilities * kept).sum(-1)
    assert (total >= top_p - 1e-5).all(), "the kept tokens hold less than p"
    smallest = torch.where(kept, probabilities, 2.0).amin(-1)
    only_one = kept.sum(-1) == 1
    assert ((total - smallest < top_p + 1e-5) | only_one).all(), "one token too many"


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.floats(1.01, 5))
def test_a_repetition_penalty_lowers_every_seen_id_and_no_other(seed, penalty):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 9, generator=generator)
    previous = torch.randint(9, (3, 4), generator=generator)

    after = filter_logits(logits, repetition_penalty=penalty, previous=previous)

    seen = torch.zeros(3, 9, dtype=torch.bool).scatter(1, previous, True)
    assert (after[seen] < logits[seen]).all()
    assert torch.equal(after[~seen], logits[~seen])


@pytest.mark.parametrize("rows", [[0], [4, 1], [3, 2, 0]])
def test_the_sample_of_a_row_does_not_depend_on_the_other_rows(rows):
    logits = torch.randn(5, 30)

    def generators(seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = sample(logits, generators(range(5)))

    assert sample(logits[rows], generators(rows)).tolist() == together[rows].tolist()


# ---------------------------------------------------------------- the cache


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.sampled_from(POSITIONS),
    st.sampled_from([1, 3]),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 99),
)
def test_cached_chunks_give_the_logits_of_the_whole_text(sizes, position, kv_heads, B, fused, seed):
    model = small_model(seed, max_seq_len=30, position=position, n_kv_head=kv_heads, fused=fused)
    ids = torch.randint(13, (B, sum(sizes)))
    cache = KVCache(model.config, B, sum(sizes))

    with torch.inference_mode():
        whole, _ = model(ids)
        tolerance = 1e-4 * whole.abs().max().item()
        start = 0
        for size in sizes:
            end = start + size
            part, _ = model(ids[:, start:end], cache=cache)
            torch.testing.assert_close(part, whole[:, start:end], rtol=1e-4, atol=tolerance)
            start = end

    assert cache.length == start


def test_a_refused_step_leaves_the_cache_unchanged():
    model = small_model()
    cache = KVCache(model.config, 1, 6)
    ids = torch.randint(13, (1, 6))

    with torch.inference_mode():
        model(ids[:, :4], cache=cache)
        with pytest.raises(ValueError, match="at most 6 tokens"):
            model(ids[:, :3], cache=cache)
        logits, _ = model(ids[:, 4:], cache=cache)

        torch.testing.assert_close(logits, model(ids)[0][:, 4:])


# ---------------------------------------------------------------- whole texts


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text("abcdefghijklm", min_size=1, max_size=40), min_size=1, max_size=4),
    st.integers(1, 40),
    st.sampled_from(POSITIONS),
    st.sampled_from(["greedy", "sample", "top_p", "top_k"]),
    st.integers(0, 9),
    st.booleans(),
)
def test_a_text_does_not_depend_on_batch_cache_and_streaming(
    prompts, n, position, strategy, seed, use_cache
):
    writer = TextGenerator(small_model(seed, position=position, n_kv_head=1), LETTERS)
    options = {"temperature": 1.5, "repetition_penalty": 1.1}

    together = writer.generate(prompts, n, strategy, seed=seed, **options)

    for i, prompt in enumerate(prompts):
        one = {**options, "seed": seed + i, "use_cache": use_cache}
        alone = writer.generate(prompt, n, strategy, **one)
        assert alone == together[i]
        assert len(alone) == n
        assert "".join(writer.stream(prompt, n, strategy, **one)) == alone


def model_that_says(said: list[int]) -> MiniGPT:
    """Return a model that predicts these bytes one after the other."""
    table = F.one_hot(torch.tensor(said), 256).float()
    model = small_model(vocab_size=256, max_seq_len=200)
    model.forward = lambda ids, **_: (table[ids.shape[1] - 1][None, None], None)
    return model


def until_a_stop_is_complete(text: str, stops: list[str]) -> str:
    """Return what is in front of the stop that is complete first; of several, the one that begins first."""
    for end in range(len(text) + 1):
        found = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if found:
            return text[: min(found)]
    return text


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=25),
    st.lists(st.text("ab\né—", min_size=1, max_size=3), max_size=3),
    st.integers(0, 9),
)
@example("é\n—", ["\n", "é\n—"], 0)  # the stop that begins first is complete last
def test_a_stream_consists_of_whole_characters_up_to_the_first_stop(text, stops, missing):
    """The model may stop in the middle of a character, so the last bytes of the text are sometimes missing."""
    data = text.encode()
    said = [*data, 0][: max(1, len(data) - missing)]
    writer = TextGenerator(model_that_says(said), BYTES)

    pieces = list(writer.stream("?", len(said), "greedy", stop=stops))

    whole = BYTES.decode(said)
    expected = until_a_stop_is_complete(whole, stops)
    assert "".join(pieces) == expected
    assert writer.generate("?", len(said), "greedy", stop=stops) == expected
    assert all(pieces)
    if "\ufffd" not in whole:
        assert not any("\ufffd" in piece for piece in pieces[:-1])


PROMPT = torch.tensor([[1, 2, 3]])
STRATEGIES_THAT_DRAW = ("sample", "top_k", "top_p", "min_p")


@pytest.mark.parametrize("num_beams", [1, 2, 13])
def test_beam_search_finds_the_same_with_and_without_a_cache(num_beams):
    model = small_model(5)

    cached = beam_search(model, PROMPT, 8, num_beams)

    assert torch.equal(cached, beam_search(model, PROMPT, 8, num_beams, cache=False))


def test_beam_search_with_one_beam_is_greedy():
    model = small_model(5)

    greedy = TextGenerator(model, LETTERS).generate_ids(PROMPT, 8, "greedy")

    assert torch.equal(beam_search(model, PROMPT, 8, 1), greedy)


def test_beam_search_with_a_beam_for_each_token_finds_the_best_pair():
    model = small_model(5)
    pairs = torch.cartesian_prod(torch.arange(13), torch.arange(13))

    logits, _ = model(torch.cat([PROMPT.expand(169, 3), pairs], 1))
    log_probs = logits.log_softmax(-1)[:, 2:4].gather(2, pairs[..., None])
    best = pairs[log_probs.sum((1, 2)).argmax()]

    assert beam_search(model, PROMPT, 2, 13)[0, 3:].tolist() == best.tolist()


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"temperature": 3.0}, {"repetition_penalty": 3.0}, {"strategy": "greedy"}],
    ids=str,
)
def test_every_option_changes_the_text(change):
    writer = TextGenerator(small_model(), LETTERS)
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    options = {"strategy": "sample", "seed": 1, "temperature": 1.5}

    plain = writer.generate_ids(ids, 12, **options)

    assert not torch.equal(writer.generate_ids(ids, 12, **options | change), plain)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="colour"):
        TextGenerator(small_model(), LETTERS).generate_ids(PROMPT, 3, colour="blue")


def test_the_options_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        GenerationConfig().seed = 3


# ---------------------------------------------------------------- ids without a token


def padded(model: MiniGPT, n_rows: int) -> MiniGPT:
    """Return a copy of a model with more rows in its embedding and its head, which it would like to draw."""
    config = dataclasses.replace(model.config, vocab_size=n_rows)
    wide = MiniGPT(config).eval()
    weights = model.state_dict()
    for name, weight in wide.state_dict().items():
        weight[: len(weights[name])] = weights[name]
    with torch.no_grad():
        wide.head.weight[model.config.vocab_size :] = 3 * torch.randn(config.n_embd)
    return wide


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(14, 80), st.sampled_from(POSITIONS), st.integers(0, 9), st.booleans())
def test_rows_without_a_token_change_no_text(n_rows, position, seed, use_cache):
    model = small_model(seed, position=position)
    plain = TextGenerator(model, LETTERS)
    writer = TextGenerator(padded(model, n_rows), LETTERS)

    for strategy, n in (("greedy", 30), ("beam", 8)):
        options = {"use_cache": use_cache}
        expected = plain.generate("abc", n, strategy, **options)
        assert writer.generate("abc", n, strategy, **options) == expected
        assert "".join(writer.stream("abc", n, strategy, **options)) == expected


@pytest.mark.parametrize("strategy", STRATEGIES_THAT_DRAW)
def test_rows_without_a_token_are_never_drawn(strategy):
    writer = TextGenerator(padded(small_model(), 64), LETTERS)
    options = {"seed": 1, "temperature": 2.0, "min_p": 0.01, "top_k": 64, "top_p": 1.0}

    texts = writer.generate(["abc", "m"], 60, strategy, **options)
    rows = writer.generate_ids(PROMPT.expand(50, 3), 10, strategy, **options)

    assert texts[0] == "".join(writer.stream("abc", 60, strategy, **options))
    assert all(len(text) == 60 for text in texts)
    assert rows.max() < 13
    assert len(set(rows[:, 3:].flatten().tolist())) == 13


GAP = BPETokenizer({bytes([b]): b for b in range(256)}, {"<end>": 300})  # 256 to 299: nothing


@pytest.mark.parametrize("strategy", ["greedy", "beam", *STRATEGIES_THAT_DRAW])
def test_ids_in_a_gap_of_the_vocabulary_are_never_written(strategy):
    model = small_model(vocab_size=320, max_seq_len=200)
    with torch.no_grad():
        model.head.weight[256:300] = 3 * model.head.weight[65]
    writer = TextGenerator(model, GAP)
    options = {"seed": 1, "temperature": 2.0, "min_p": 0.01}

    rows = writer.generate_ids(torch.tensor([[65], [66]]), 100, strategy, **options)

    assert ((rows < 256) | (rows == 300)).all()
    text = writer.generate("A", 100, strategy, **options)
    assert "".join(writer.stream("A", 100, strategy, **options)) == text


@pytest.mark.parametrize("strategy", ["greedy", "beam", *STRATEGIES_THAT_DRAW])
def test_a_stop_may_be_an_id_without_a_token(strategy):
    """An end-of-text id behind a character tokenizer's alphabet is such a stop."""
    model = small_model(vocab_size=14)
    with torch.no_grad():
        model.head.weight[:13] = 0
        model.head.weight[13] = 1000 * model.norm.bias
        model.norm.weight.zero_()  # the logits no longer depend on the text: 13 is always the best
    writer = TextGenerator(model, LETTERS)

    rows = writer.generate_ids(PROMPT, 20, strategy, stop=13, temperature=0.1, min_p=0.1, seed=0)

    assert rows.tolist() == [[1, 2, 3, 13]]
    assert writer.generate("abc", 20, strategy, stop=13, temperature=0.1, min_p=0.1, seed=0) == ""


def test_a_prompt_may_contain_an_id_without_a_token():
    writer = TextGenerator(small_model(vocab_size=14), LETTERS)
    start = torch.tensor([[13, 1]])

    rows = writer.generate_ids(start, 10, repetition_penalty=1.5, seed=0)

    assert torch.equal(rows[:, :2], start)
    assert rows[:, 2:].max() < 13


@pytest.mark.parametrize("error", [ValueError, KeyError, IndexError])
def test_a_tokenizer_may_refuse_an_id_in_its_own_way(error):
    class Sparse:
        vocab_size = 13

        def encode(self, text):
            return [int(letter) for letter in text]

        def decode(self, ids):
            if any(i % 2 for i in ids):
                raise error("odd")
            return "".join(map(str, ids))

    rows = TextGenerator(small_model(), Sparse()).generate_ids(PROMPT, 20, "sample", seed=0)

    assert not (rows[:, 3:] % 2).any()


# ---------------------------------------------------------------- extreme settings


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1e-45, 1e-7),
    st.sampled_from(STRATEGIES_THAT_DRAW),
    st.sampled_from([1.0, 1.3]),
    SEEDS,
)
def test_a_tiny_temperature_is_greedy(temperature, strategy, penalty, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(4, 30, generator=generator)
    previous = torch.randint(30, (4, 3), generator=generator)
    config = GenerationConfig(
        9, strategy, temperature=temperature, min_p=0.1, repetition_penalty=penalty
    )
    greedy = GenerationConfig(9, "greedy", repetition_penalty=penalty)

    chosen = config.choose(logits, previous, generator)

    assert torch.equal(chosen, greedy.choose(logits, previous))


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-45, 1e-20), st.sampled_from([1e-38, 0.5, 1.0]), SEEDS)
def test_a_tiny_penalty_takes_the_best_id_so_far(penalty, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.rand(4, 30, generator=generator) + 0.1
    previous = torch.randint(30, (4, 3), generator=generator)

    scores = filter_logits(
        logits, temperature=temperature, repetition_penalty=penalty, previous=previous
    )

    seen = logits.gather(1, previous)
    best = previous.gather(1, seen.argmax(dim=1, keepdim=True))[:, 0]
    assert torch.equal(sample(scores, generator), best)


@pytest.mark.parametrize("strategy", ["greedy", *STRATEGIES_THAT_DRAW])
@pytest.mark.parametrize("temperature", [1e-38, 1.0, 1e39])
@pytest.mark.parametrize("penalty", [1e-39, 1.0, 1e39])
def test_a_text_can_be_written_with_extreme_settings(strategy, temperature, penalty):
    writer = TextGenerator(padded(small_model(), 20), LETTERS)

    text = writer.generate(
        "abc", 30, strategy, temperature=temperature, repetition_penalty=penalty, min_p=0.1, seed=0
    )

    assert len(text) == 30


@pytest.mark.parametrize("length_penalty", [-50.1, 1000, math.nan, math.inf])
def test_a_length_penalty_that_no_float_can_hold_is_refused(length_penalty):
    with pytest.raises(ValueError, match="length_penalty=.*expected -50 to 50"):
        GenerationConfig(strategy="beam", length_penalty=length_penalty)
