"""Chapter 22: speculative decoding over generated input, and next to Hugging Face's prompt lookup."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt_lib.generation import TextGenerator
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.speculative import ModelDraft, NGramDraft, accept, speculate

V = 11
TOKENIZER = SimpleNamespace(vocab_size=V, decode=str)


def model_of(seed: int, **choices) -> MiniGPT:
    torch.manual_seed(seed)
    model = MiniGPT(GPTConfig(V, 40, **{"n_embd": 24, "n_layer": 2, "n_head": 2} | choices)).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.5)
    return model


@settings(max_examples=30)
@given(st.integers(0, 2**20), st.integers(2, 9), st.integers(1, 4))
def test_the_token_after_any_guess_has_the_distribution_p(seed, size, m):
    """The probabilities of what comes out are computed, not drawn: over all guesses, with all luck."""
    generator = torch.Generator().manual_seed(seed)
    p = (3 * torch.randn(m + 1, size, generator=generator)).softmax(-1)
    q = (3 * torch.randn(m, size, generator=generator)).softmax(-1)
    guesses = torch.multinomial(q, 1, generator=generator)[:, 0]

    n, token = accept(p, q, guesses, generator)

    assert 0 <= n <= m and 0 <= token < size
    if n < m:  # a rejected token is replaced by one of which q has too little
        assert p[n, token] > q[n, token] and p[n, guesses[n]] < q[n, guesses[n]]


@pytest.mark.slow
@settings(max_examples=20)
@given(st.integers(0, 50), st.integers(1, 20), st.integers(1, 20), st.integers(0, 7))
def test_greedy_text_does_not_depend_on_the_draft(seed, length, n_new, n_guesses):
    model = model_of(3, position="rope")
    ids = torch.randint(V, (length,), generator=torch.Generator().manual_seed(seed))
    expected = TextGenerator(model, TOKENIZER).generate_ids(ids[None], n_new, "greedy")[0]

    for draft in (NGramDraft(V), ModelDraft(model_of(seed, n_layer=1))):
        found = speculate(model, ids, draft, n_new, n_guesses, temperature=0.0)

        assert torch.equal(found.ids, expected)
        assert found.n_passes + found.n_accepted == n_new


def test_a_seed_gives_a_text():
    model = model_of(3)
    ids = torch.tensor([1, 2, 3])

    def text(seed):
        generator = torch.Generator().manual_seed(seed)
        return speculate(model, ids, NGramDraft(V), 30, generator=generator).ids.tolist()

    assert text(1) == text(1) != text(2)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 5), st.integers(0, 6))
def test_the_lookup_is_that_of_two_loops(ids, longest, n):
    expected = []
    for length in range(min(longest, len(ids) - 1), 0, -1):
        starts = [i for i in range(len(ids) - length) if ids[i : i + length] == ids[-length:]]
        if starts:
            expected = ids[starts[-1] + length :][:n]
            break

    guesses, _ = NGramDraft(4, longest).propose(torch.tensor(ids), n, None)

    assert guesses.tolist() == expected


def test_bfloat16_models_can_speculate():
    model = model_of(3).bfloat16()

    found = speculate(model, torch.tensor([1, 2]), ModelDraft(model), 12, temperature=0.7)

    assert len(found.ids) == 14


@pytest.mark.slow
def test_hugging_face_with_prompt_lookup_writes_the_same():
    from courseware.material.peers import as_gpt2

    model = model_of(3, ffn="gelu_tanh")
    theirs = as_gpt2(model)
    ids = torch.tensor([[1, 2, 3, 1, 2]])

    expected = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=30,
        do_sample=False,
        prompt_lookup_num_tokens=4,
        pad_token_id=0,
        eos_token_id=None,
    )

    found = speculate(model, ids[0], NGramDraft(V), 30, temperature=0.0)
    assert torch.equal(found.ids, expected[0])
