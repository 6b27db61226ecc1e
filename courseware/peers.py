"""Build other people's models with our weights, for the comparisons of chapters and benchmarks.

Chapter 9 spells the copy out; here it stands once for all that come after.
"""

from __future__ import annotations

from transformers import GPT2Config, GPT2LMHeadModel

# Our names and GPT-2's, for the parts of a block.
_PARTS = {
    "norm1": "ln_1", "norm2": "ln_2", "attention.qkv": "attn.c_attn", "attention.proj": "attn.c_proj",
    "ffn.up": "mlp.c_fc", "ffn.down": "mlp.c_proj",
}  # fmt: skip


def as_gpt2(model, eos_token_id=None) -> GPT2LMHeadModel:
    """Return Hugging Face's GPT-2 with the weights of ours, in evaluation mode and of the same type.

    The model must be of GPT-2's family: learned positions, LayerNorm with bias, a plain FFN; its head may
    be tied or not. eos_token_id: the id, or ids, at which `generate` stops. Raises ValueError for
    another model.
    """
    c = model.config
    if (c.position, c.norm, c.bias, c.n_kv_head or c.n_head) != (
        "learned",
        "layer",
        True,
        c.n_head,
    ):
        raise ValueError(f"expected a model of GPT-2's family, got {c}.")
    if c.ffn not in ("gelu", "gelu_tanh"):
        raise ValueError(f"ffn={c.ffn!r}: expected gelu or gelu_tanh.")
    values = model.state_dict()
    copied = {"wte.weight": values["embedding.weight"], "wpe.weight": values["position.weight"]}
    copied |= {f"ln_f.{kind}": values[f"norm.{kind}"] for kind in ("weight", "bias")}
    for i in range(c.n_layer):
        for ours, theirs in _PARTS.items():
            weight = values[f"blocks.{i}.{ours}.weight"]
            copied[f"h.{i}.{theirs}.weight"] = weight if "norm" in ours else weight.T
            copied[f"h.{i}.{theirs}.bias"] = values[f"blocks.{i}.{ours}.bias"]
    copied = {f"transformer.{name}": value for name, value in copied.items()}
    copied["lm_head.weight"] = values["embedding.weight" if c.tie_weights else "head.weight"]
    theirs = GPT2LMHeadModel(GPT2Config(
        vocab_size=c.vocab_size, n_positions=c.max_seq_len, n_embd=c.n_embd, n_layer=c.n_layer, n_head=c.n_head,
        n_inner=c.ffn_hidden, layer_norm_epsilon=c.norm_eps, tie_word_embeddings=c.tie_weights,
        activation_function={"gelu": "gelu", "gelu_tanh": "gelu_new"}[c.ffn],
        resid_pdrop=c.dropout, embd_pdrop=c.dropout, attn_pdrop=c.dropout,
        bos_token_id=None, eos_token_id=eos_token_id, pad_token_id=0))  # fmt: skip
    theirs.load_state_dict(copied)
    theirs.loss_type = "ForCausalLM"  # what it assumes anyway, with a warning
    return theirs.to(model.embedding.weight.dtype).eval()
