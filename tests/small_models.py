"""Models that several test files build: without memory, or as small as a table of bigrams."""

from __future__ import annotations

import torch

from minigpt_lib.baselines import BigramLM
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.feedforward import swiglu_hidden
from minigpt_lib.model import GPTConfig, MiniGPT

ALPHABET = CharTokenizer("abcdefgh ")

# Two architectures at 64 channels, as the choices of a GPTConfig.
GPT2 = {"ffn": "gelu_tanh", "n_embd": 64, "n_head": 4}
LLAMA = {
    "position": "rope",
    "norm": "rms",
    "ffn": "swiglu",
    "bias": False,
    "n_embd": 64,
    "n_head": 4,
}


def on_meta(**choices) -> MiniGPT:
    """Return a model on the meta device: it has shapes, but needs no memory."""
    with torch.device("meta"):
        return MiniGPT(GPTConfig(**choices))


def expected_parameters(c: GPTConfig) -> int:
    """Count the parameters of a model on paper, from its sizes alone."""
    C = c.n_embd
    bias = int(c.bias)

    kv = (c.n_kv_head or c.n_head) * (C // c.n_head)
    attention = (C + bias) * (C + 2 * kv) + (C + bias) * C

    if c.ffn == "swiglu":
        hidden = c.ffn_hidden or swiglu_hidden(C)
        ffn = 2 * (C + bias) * hidden + (hidden + bias) * C
    else:
        hidden = c.ffn_hidden or 4 * C
        ffn = (C + bias) * hidden + (hidden + bias) * C

    norm = C * (1 + bias if c.norm == "layer" else 1)
    norms = 2 * c.n_layer + (c.norm_position == "pre")
    tables = c.vocab_size * C * (1 if c.tie_weights else 2)
    positions = c.max_seq_len * C if c.position == "learned" else 0

    return tables + positions + c.n_layer * (attention + ffn) + norms * norm


def bigram(seed: int, vocab_size: int = len(ALPHABET.alphabet)) -> BigramLM:
    """Return a table of random bigrams."""
    generator = torch.Generator().manual_seed(seed)
    model = BigramLM(vocab_size)
    model.table.data = 2 * torch.randn(vocab_size, vocab_size, generator=generator)
    return model
