"""Chapter 17: the reach explorer shows what the library's masks and caches do, and so does its twin."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from tools import in_node

from courseware.widgets.cache_reach import (
    KEY_HEADS,
    TOKENS,
    cache_reach,
    describe,
    draw,
    held,
    kept,
    per_token,
    reach_data,
    reads,
    size,
)
from minigpt_lib.flash import window_mask
from minigpt_lib.grouped import RollingCache, cache_bytes
from minigpt_lib.model import GPTConfig

REACHES = list(product((1, 2, 6, 23, TOKENS), (0, 1, 4)))


@pytest.fixture(scope="module")
def data():
    return reach_data()


def limit(window: int) -> int | None:
    return None if window == TOKENS else window


@pytest.mark.parametrize(("window", "sinks"), REACHES)
def test_a_token_reads_what_the_mask_allows(data, window, sinks):
    mask = window_mask(TOKENS, window=limit(window), sinks=sinks)

    for token in range(TOKENS):
        assert reads(data, window, sinks, token) == mask[token].nonzero().flatten().tolist()


@pytest.mark.parametrize(("window", "sinks"), REACHES)
def test_what_is_kept_is_what_a_rolling_cache_keeps(data, window, sinks):
    if limit(window) is None:
        assert kept(data, window, sinks, 5) == list(range(6))
        assert held(data, window, sinks, 9999) == 9999
        return
    config = GPTConfig.preset("laptop", n_layer=1)
    cache = RollingCache(config, window, sinks)

    for token in range(TOKENS):
        place = torch.full((1, 1, 1, 1), float(token))
        cache[0].update(place, place)

        places = cache[0].k.flatten().tolist()
        assert kept(data, window, sinks, token) == places
        assert held(data, window, sinks, token + 1) == len(places)


@pytest.mark.parametrize("n_kv_head", KEY_HEADS)
def test_the_bytes_are_those_of_the_library(data, n_kv_head):
    config = replace(GPTConfig.preset("llama3_8b"), n_kv_head=n_kv_head)

    assert per_token(data, n_kv_head) == cache_bytes(config, 1, dtype=torch.bfloat16)


def test_sizes_are_rounded_half_up():
    sizes = (0, 999, 1000, 1250, 2_097_152, 17_179_869_184)
    expected = ["0 bytes", "999 bytes", "1.0 kB", "1.3 kB", "2.1 MB", "17.2 GB"]
    assert [size(n) for n in sizes] == expected
    assert in_node("cache-reach.js", "data.map(m.size)", sizes) == expected


def test_the_sentences_name_the_runs_and_the_share(data):
    said = describe(data, 8, 4, 2, 17, 131_072)
    assert said == [
        "Token 17 reads 6 of 18 keys: 0 to 1, and 14 to 17.",
        "Llama 3 8B with 8 key heads: a token takes 2 × 32 layers × 8 × 128 numbers of 2 bytes, 131,072 bytes.",
        "After 131,072 tokens the cache holds 5: 655.4 kB, 1/104,858 of what multi-head attention keeps.",
    ]
    assert describe(data, 1, 1, 0, 0, 1024)[0::2] == [
        "Token 0 reads 1 of 1 key: 0.",
        "After 1,024 tokens the cache holds 0: nothing at all.",
    ]
    assert describe(data, 32, TOKENS, 0, 3, 8192)[2].endswith(
        "4.3 GB, all that multi-head attention keeps."
    )


def test_the_twin_draws_and_describes_the_same_as_the_widget(data):
    keys = ("n_kv_head", "window", "sinks", "token", "text")
    places = list(product(KEY_HEADS, (1, 5, 17, TOKENS), (0, 3), (0, 17, 23), (1024, 131_072)))
    states = [dict(zip(keys, place, strict=True)) for place in places]
    call = "data.states.map((s) => [m.describe(data.knobs, s), m.draw(data.knobs, s)])"

    theirs = in_node("cache-reach.js", call, {"knobs": data, "states": states})

    assert theirs == [[describe(data, *place), draw(data, *place)] for place in places]


def test_the_widget_follows_its_controls(data):
    heads, window, sinks, token, text, view = cache_reach(data).children
    assert "Token 17 reads 18 of 18 keys: 0 to 17." in view.value
    assert "1.1 GB, 1/4 of" in view.value

    heads.value = 32
    text.value = 131_072
    assert "68.7 GB, all that multi-head attention keeps" in view.value

    window.value = 4
    sinks.value = 1
    token.value = 10
    assert "Token 10 reads 5 of 11 keys: 0, and 7 to 10." in view.value
    assert "the cache holds 4" in view.value
