"""Chapter 11: filters keep the likeliest tokens; batches, caches, windows and streams do not change what is written."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
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


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=25),
    st.lists(st.text("ab\né—", min_size=1, max_size=3), max_size=3),
    st.integers(0, 9),
)
def test_a_stream_consists_of_whole_characters_up_to_the_first_stop(text, stops, missing):
    """The model may stop in the middle of a character, so the last bytes of the text are sometimes missing."""
    data = text.encode()
    said = [*data, 0][: max(1, len(data) - missing)]
    writer = TextGenerator(model_that_says(said), BYTES)

    pieces = list(writer.stream("?", len(said), "greedy", stop=stops))

    whole = BYTES.decode(said)
    found = [whole.find(stop) for stop in stops if stop in whole]
    expected = whole[: min(found)] if found else whole
    assert "".join(pieces) == expected
    assert writer.generate("?", len(said), "greedy", stop=stops) == expected
    assert all(pieces)
    if "\ufffd" not in whole:
        assert not any("\ufffd" in piece for piece in pieces[:-1])


PROMPT = torch.tensor([[1, 2, 3]])


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
