"""Build other libraries' models with our weights, as references for chapters and benchmarks.

Chapter 9 spells this copy out; the chapters and benchmarks after it use this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import GPT2Config, GPT2LMHeadModel

if TYPE_CHECKING:
    from torch import Tensor

    from minigpt_lib.model import GPTConfig, MiniGPT

# The parts of a block: our name and GPT-2's.
_PARTS = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
}
# The activations: our name and Hugging Face's.
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new"}


def as_gpt2(model: MiniGPT, eos_token_id: int | list[int] | None = None) -> GPT2LMHeadModel:
    """Return Hugging Face's GPT-2 with our model's weights and dtype, in evaluation mode.

    The model must belong to GPT-2's family: learned positions, LayerNorm with bias, a plain FFN with GELU, as many
    key heads as heads. Its head may be tied or not. eos_token_id: the id, or ids, at which `generate` stops.

    Raises ValueError for any other model.
    """
    config = model.config
    _refuse_other_families(config)

    theirs = GPT2LMHeadModel(_their_config(config, eos_token_id))
    theirs.load_state_dict(_their_weights(model))
    theirs.loss_type = "ForCausalLM"  # the default anyway, but without it there is a warning
    # pyrefly: ignore[bad-argument-type]  transformers wraps `to`, and its types lose `self`
    return theirs.to(model.embedding.weight.dtype).eval()


def _refuse_other_families(config: GPTConfig) -> None:
    family = (config.position, config.norm, config.bias, config.n_kv_head or config.n_head)
    if family != ("learned", "layer", True, config.n_head):
        raise ValueError(
            "expected a model of GPT-2's family (learned positions, LayerNorm, biases, no shared key heads), "
            f"got {config}."
        )
    if config.ffn not in _ACTIVATIONS:
        raise ValueError(f"ffn={config.ffn!r}: expected {' or '.join(_ACTIVATIONS)}.")


def _their_config(config: GPTConfig, eos_token_id: int | list[int] | None) -> GPT2Config:
    return GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.max_seq_len,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_inner=config.ffn_hidden,
        activation_function=_ACTIVATIONS[config.ffn],
        layer_norm_epsilon=config.norm_eps,
        tie_word_embeddings=config.tie_weights,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        bos_token_id=None,
        eos_token_id=eos_token_id,
        pad_token_id=0,
    )


def _their_weights(model: MiniGPT) -> dict[str, Tensor]:
    """Return our weights under GPT-2's names; its matrices are transposed."""
    config = model.config
    ours = model.state_dict()

    weights = {
        "transformer.wte.weight": ours["embedding.weight"],
        "transformer.wpe.weight": ours["position.weight"],
        "transformer.ln_f.weight": ours["norm.weight"],
        "transformer.ln_f.bias": ours["norm.bias"],
        "lm_head.weight": ours["embedding.weight" if config.tie_weights else "head.weight"],
    }
    for i in range(config.n_layer):
        for our_name, their_name in _PARTS.items():
            weight = ours[f"blocks.{i}.{our_name}.weight"]
            target = f"transformer.h.{i}.{their_name}"
            weights[f"{target}.weight"] = weight if "norm" in our_name else weight.T
            weights[f"{target}.bias"] = ours[f"blocks.{i}.{our_name}.bias"]
    return weights
