"""Published architectures as values of GPTConfig, and back: their configs, and the names and layout of their tensors.

Shapes: C = n_embd channels, H heads of width D, G key heads. "hf" is Hugging Face's form of a model,
"gguf" that of llama.cpp.

Written by notebooks/19_real_models.ipynb (chapter 19): edit it there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt_lib.attention import CausalSelfAttention, _Cache
from minigpt_lib.feedforward import swiglu_hidden
from minigpt_lib.model import ATTENTIONS, GPTConfig, MiniGPT
from minigpt_lib.norms import RMSNorm
from minigpt_lib.positions import (
    RopeScaling,
    half_split_to_interleaved,
    interleaved_to_half_split,
    rotary_frequencies,
)

__all__ = [
    "FAMILIES",
    "config_from_gguf",
    "config_from_hf",
    "config_to_gguf",
    "config_to_hf",
    "Family",
    "family_of",
    "Part",
    "parts",
    "QKNormAttention",
    "QKVBiasAttention",
    "register_attentions",
    "rope_factors",
]


class QKVBiasAttention(CausalSelfAttention):
    """Attention with biases for queries, keys and values and none for the output, as in Qwen 2."""

    def __init__(self, c: GPTConfig) -> None:
        super().__init__(
            c.n_embd,
            c.n_head,
            c.n_kv_head,
            bias=True,
            dropout=c.dropout,
            fused=c.fused,
            head_dim=c.head_dim,
        )
        self.proj = nn.Linear(c.n_head * c.head_dim, c.n_embd, bias=False)


class QKNormAttention(CausalSelfAttention):
    """Attention that normalises each head's queries and keys before it rotates them, as in Qwen 3."""

    def __init__(self, c: GPTConfig) -> None:
        super().__init__(
            c.n_embd,
            c.n_head,
            c.n_kv_head,
            bias=c.bias,
            dropout=c.dropout,
            fused=c.fused,
            head_dim=c.head_dim,
        )
        self.q_norm = RMSNorm(c.head_dim, c.norm_eps, fused=c.fused)
        self.k_norm = RMSNorm(c.head_dim, c.norm_eps, fused=c.fused)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: Callable[[Tensor], Tensor] | None = None,
        cache: _Cache | None = None,
    ) -> Tensor:
        """Map x (B, T, C) to (B, T, C); the arguments are CausalSelfAttention's."""
        return super().forward(x, mask, self._normed(rotary), cache)

    def weights(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: Callable[[Tensor], Tensor] | None = None,
        cache: _Cache | None = None,
    ) -> Tensor:
        """Return the attention weights (B, H, T, Tk) that `forward` would use."""
        return super().weights(x, mask, self._normed(rotary), cache)

    def _normed(self, rotary: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
        """Return what rotary does, with the norms in front of it."""

        def turn(qk: Tensor) -> Tensor:
            q, k = qk.split([self.n_head, self.n_kv_head], dim=1)
            normed = torch.cat([self.q_norm(q), self.k_norm(k)], dim=1)  # (B, H + G, T, D)
            return normed if rotary is None else rotary(normed)

        return turn


def register_attentions() -> None:
    """Put the attention of Qwen 2 and Qwen 3 into the model's registry."""
    ATTENTIONS["qkv_bias"] = QKVBiasAttention
    ATTENTIONS["qk_norm"] = QKNormAttention


@dataclass(frozen=True)
class Family:
    """A published architecture.

    name: Hugging Face's model_type. architecture: its class there. gguf: general.architecture in a GGUF
    file. fixed: the fields of GPTConfig in which all its models agree. fields: what Hugging Face calls the
    others; of these, `optional` may be missing. must: entries of config.json that may only have this value.
    interleaved: whether GGUF keeps the rows of queries and keys in interleaved order.
    """

    name: str
    architecture: str
    gguf: str
    fixed: Mapping[str, Any]
    fields: Mapping[str, str]
    optional: Mapping[str, Any]
    must: Mapping[str, Any]
    interleaved: bool = False


_GPT2_ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
_GPT2_FIELDS = {
    "vocab_size": "vocab_size",
    "max_seq_len": "n_positions",
    "n_embd": "n_embd",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "ffn_hidden": "n_inner",
    "norm_eps": "layer_norm_epsilon",
    "tie_weights": "tie_word_embeddings",
}
_LLAMA_FIELDS = {
    "vocab_size": "vocab_size",
    "max_seq_len": "max_position_embeddings",
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "head_size": "head_dim",
    "ffn_hidden": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "tie_weights": "tie_word_embeddings",
}
_GPT2_FIXED = {"position": "learned", "norm": "layer", "norm_position": "pre", "bias": True}
_LLAMA_FIXED = {"position": "rope", "norm": "rms", "norm_position": "pre", "ffn": "swiglu"}
_LLAMA_OPTIONAL = {"n_kv_head": None, "head_size": None, "norm_eps": 1e-6, "tie_weights": False}

FAMILIES = {
    "gpt2": Family(
        "gpt2",
        "GPT2LMHeadModel",
        gguf="gpt2",
        fixed=_GPT2_FIXED | {"attention": "causal"},
        fields=_GPT2_FIELDS,
        optional={"ffn_hidden": None, "norm_eps": 1e-5, "tie_weights": True},
        must={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
    ),
    "llama": Family(
        "llama",
        "LlamaForCausalLM",
        gguf="llama",
        fixed=_LLAMA_FIXED | {"attention": "causal"},
        fields=_LLAMA_FIELDS,
        optional=_LLAMA_OPTIONAL,
        must={"hidden_act": "silu"},
        interleaved=True,
    ),
    "mistral": Family(
        "mistral",
        "MistralForCausalLM",
        gguf="llama",
        fixed=_LLAMA_FIXED | {"attention": "causal", "bias": False},
        fields=_LLAMA_FIELDS,
        optional=_LLAMA_OPTIONAL,
        must={"hidden_act": "silu"},
        interleaved=True,
    ),
    "qwen2": Family(
        "qwen2",
        "Qwen2ForCausalLM",
        gguf="qwen2",
        fixed=_LLAMA_FIXED | {"attention": "qkv_bias", "bias": False},
        fields={ours: theirs for ours, theirs in _LLAMA_FIELDS.items() if ours != "head_size"},
        optional=_LLAMA_OPTIONAL,
        must={"hidden_act": "silu"},
    ),
    "qwen3": Family(
        "qwen3",
        "Qwen3ForCausalLM",
        gguf="qwen3",
        fixed=_LLAMA_FIXED | {"attention": "qk_norm", "bias": False},
        fields=_LLAMA_FIELDS,
        optional=_LLAMA_OPTIONAL,
        must={"hidden_act": "silu", "attention_bias": False},
    ),
}


def family_of(config: GPTConfig) -> Family:
    """Return the family that a config belongs to; a Mistral is a Llama.

    Raises ValueError that names the field which no published family shares.
    """
    if config.position == "learned":
        candidates = [FAMILIES["gpt2"]]
    else:
        candidates = [FAMILIES[name] for name in ("llama", "qwen2", "qwen3")]
        same = [family for family in candidates if family.fixed["attention"] == config.attention]
        candidates = same or candidates[:1]

    family = candidates[0]
    for name, value in family.fixed.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"{name}={getattr(config, name)!r} has no equivalent in a published family: {family.name}, "
                f"which is nearest, has {name}={value!r}."
            )
    if family.name == "gpt2":
        _refuse_un_gpt2(config)
    if family.name == "qwen2" and config.head_dim * config.n_head != config.n_embd:
        raise ValueError(
            f"head_size={config.head_size!r}: heads of Qwen 2 have n_embd / n_head channels."
        )
    return family


def _refuse_un_gpt2(config: GPTConfig) -> None:
    if config.ffn not in _GPT2_ACTIVATIONS.values():
        raise ValueError(f"ffn={config.ffn!r} has no equivalent in GPT-2.")
    if config.n_kv_head not in (None, config.n_head):
        raise ValueError(f"n_kv_head={config.n_kv_head}: GPT-2's heads do not share keys.")
    if config.head_dim * config.n_head != config.n_embd:
        raise ValueError(
            f"head_size={config.head_size!r}: GPT-2's heads have n_embd / n_head channels."
        )


def config_from_hf(values: Mapping[str, Any]) -> GPTConfig:
    """Return the GPTConfig of a Hugging Face config.json, read as a dict.

    A Mistral with a sliding window becomes a model that reads no more than one window, within which they are
    equal. Raises ValueError for another architecture, and for an entry that ours cannot express.
    """
    register_attentions()
    family = FAMILIES.get(str(values.get("model_type")))
    if family is None:
        raise ValueError(
            f"model_type is {values.get('model_type')!r}, expected one of {', '.join(FAMILIES)}."
        )
    if values.get("quantization_config") is not None:
        raise ValueError(
            "the weights are quantised in a way of their own: take the full ones, or a GGUF file."
        )
    for name, value in family.must.items():
        if values.get(name, value) != value:
            raise ValueError(f"{name} is {values[name]!r}, but ours can only do {value!r}.")

    fields: dict[str, Any] = dict(family.fixed)
    for ours, theirs in family.fields.items():
        if theirs in values:
            fields[ours] = values[theirs]
        elif ours in family.optional:
            fields[ours] = family.optional[ours]
        else:
            raise ValueError(f"config.json does not say {theirs}.")

    if family.name == "gpt2":
        fields["ffn"] = _gpt2_activation(values)
    else:
        fields["bias"] = _llama_bias(values)
        fields |= _rope_from_hf(values)
        fields["max_seq_len"] = _within_window(values, fields["max_seq_len"])
    return GPTConfig(**fields)


def _gpt2_activation(values: Mapping[str, Any]) -> str:
    name = str(values.get("activation_function", "gelu_new"))
    if name not in _GPT2_ACTIVATIONS:
        raise ValueError(
            f"activation_function is {name!r}, expected one of {', '.join(_GPT2_ACTIVATIONS)}."
        )
    return _GPT2_ACTIVATIONS[name]


def _llama_bias(values: Mapping[str, Any]) -> Any:
    attention, mlp = (values.get(name, False) for name in ("attention_bias", "mlp_bias"))
    if attention != mlp:
        raise ValueError(
            f"attention_bias is {attention!r} and mlp_bias {mlp!r}, but ours has both or none."
        )
    return attention


def _rope_from_hf(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return rope_base and rope_scaling; newer files keep both in rope_parameters."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ValueError(f"the rotation is described by {str(rope)[:40]!r}, expected an object.")

    base = rope.get("rope_theta", values.get("rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if values.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ValueError("only a part of each head is rotated, which ours cannot do.")
    if kind == "default":
        return {"rope_base": base, "rope_scaling": None}
    if kind != "llama3":
        raise ValueError(f"the rotation is of the type {kind!r}, expected 'default' or 'llama3'.")

    names = {ours: theirs for ours, theirs in _ROPE_FIELDS.items() if theirs in rope}
    if len(names) < len(_ROPE_FIELDS):
        raise ValueError(f"the rotation of type llama3 needs {', '.join(_ROPE_FIELDS.values())}.")
    scaling = RopeScaling(**{ours: rope[theirs] for ours, theirs in names.items()})
    return {"rope_base": base, "rope_scaling": scaling}


_ROPE_FIELDS = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_seq_len": "original_max_position_embeddings",
}


def _within_window(values: Mapping[str, Any], max_seq_len: Any) -> Any:
    window = values.get("sliding_window")
    if window is None or values.get("use_sliding_window") is False:
        return max_seq_len
    return (
        window
        if type(max_seq_len) is not int or type(window) is not int
        else min(window, max_seq_len)
    )


def config_to_hf(config: GPTConfig) -> dict[str, Any]:
    """Return the config.json, as a dict, with which transformers builds the same model.

    Raises ValueError as family_of does.
    """
    family = family_of(config)
    values: dict[str, Any] = {"architectures": [family.architecture], "model_type": family.name}
    for ours, theirs in family.fields.items():
        values[theirs] = getattr(config, ours)

    if family.name == "gpt2":
        published = {ours: theirs for theirs, ours in reversed(_GPT2_ACTIVATIONS.items())}
        dropout = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout)
        return values | dropout | {"activation_function": published[config.ffn]}

    values |= {"num_key_value_heads": config.n_kv_head or config.n_head, "hidden_act": "silu"}
    if "head_dim" in values:
        values["head_dim"] = config.head_dim
    values["intermediate_size"] = config.ffn_hidden or swiglu_hidden(config.n_embd)
    if family.name == "llama":
        values |= {"attention_bias": config.bias, "mlp_bias": config.bias}
    values["rope_theta"] = config.rope_base
    if config.rope_scaling is not None:
        scaling = {
            theirs: getattr(config.rope_scaling, ours) for ours, theirs in _ROPE_FIELDS.items()
        }
        values["rope_scaling"] = {"rope_type": "llama3"} | scaling
    return values


@dataclass(frozen=True)
class Part:
    """A tensor of a published file, and the rows of one of ours that hold the same numbers.

    name: theirs. ours: the name in MiniGPT.state_dict(). shape: theirs. rows: of ours, start and end.
    transposed: theirs is ours transposed (GPT-2's Conv1D). heads: rows of each of so many heads are
    interleaved in theirs, as GGUF keeps a Llama's queries and keys; 0 if they are in our order.
    """

    name: str
    ours: str
    shape: tuple[int, ...]
    rows: tuple[int, int]
    transposed: bool = False
    heads: int = 0

    def to_ours(self, theirs: Tensor) -> Tensor:
        """Return the rows of ours that a published tensor holds."""
        found = theirs.T if self.transposed else theirs
        if self.heads:
            by_head = found.unflatten(0, (self.heads, -1))  # (H, D, ...)
            found = interleaved_to_half_split(by_head, dim=1).flatten(0, 1)
        return found

    def to_theirs(self, ours: Tensor) -> Tensor:
        """Return the published tensor of one of ours, given whole."""
        start, end = self.rows
        found = ours[start:end]
        if self.heads:
            by_head = found.unflatten(0, (self.heads, -1))
            found = half_split_to_interleaved(by_head, dim=1).flatten(0, 1)
        return found.T if self.transposed else found


# Ours, Hugging Face's and GGUF's name of each module; of those in a block, without the block's own prefix.
_GPT2_MODULES = {
    "embedding": ("transformer.wte", "token_embd"),
    "position": ("transformer.wpe", "position_embd"),
    "norm": ("transformer.ln_f", "output_norm"),
    "head": ("lm_head", "output"),
    "norm1": ("ln_1", "attn_norm"),
    "norm2": ("ln_2", "ffn_norm"),
    "attention.qkv": ("attn.c_attn", "attn_qkv"),
    "attention.proj": ("attn.c_proj", "attn_output"),
    "ffn.up": ("mlp.c_fc", "ffn_up"),
    "ffn.down": ("mlp.c_proj", "ffn_down"),
}
_LLAMA_MODULES = {
    "embedding": ("model.embed_tokens", "token_embd"),
    "norm": ("model.norm", "output_norm"),
    "head": ("lm_head", "output"),
    "norm1": ("input_layernorm", "attn_norm"),
    "norm2": ("post_attention_layernorm", "ffn_norm"),
    "attention.q": ("self_attn.q_proj", "attn_q"),
    "attention.k": ("self_attn.k_proj", "attn_k"),
    "attention.v": ("self_attn.v_proj", "attn_v"),
    "attention.proj": ("self_attn.o_proj", "attn_output"),
    "attention.q_norm": ("self_attn.q_norm", "attn_q_norm"),
    "attention.k_norm": ("self_attn.k_norm", "attn_k_norm"),
    "ffn.gate": ("mlp.gate_proj", "ffn_gate"),
    "ffn.up": ("mlp.up_proj", "ffn_up"),
    "ffn.down": ("mlp.down_proj", "ffn_down"),
}
_BLOCK = {"hf": {"gpt2": "transformer.h.{}.", "llama": "model.layers.{}."}, "gguf": "blk.{}."}


def parts(config: GPTConfig, style: str = "hf") -> list[Part]:
    """Return the published tensors that make a model of this config, in the order of our state_dict.

    style: "hf" or "gguf". Raises ValueError as family_of does.
    """
    register_attentions()
    family = family_of(config)
    with torch.device("meta"):  # shapes without numbers
        weights = MiniGPT(config).state_dict()
    found = []
    for ours, weight in weights.items():
        found += _parts_of(ours, tuple(weight.shape), config, family, style)
    return found


def _parts_of(
    ours: str, shape: tuple[int, ...], c: GPTConfig, family: Family, style: str
) -> Iterator[Part]:
    """Yield the published tensors that make one of ours."""
    path, _, suffix = ours.rpartition(".")  # blocks.3.attention.qkv, weight
    in_block = path.startswith("blocks.")
    prefix = ""
    if in_block:
        _, layer, path = path.split(".", 2)
        block = (
            _BLOCK["gguf"]
            if style == "gguf"
            else _BLOCK["hf"]["gpt2" if family.name == "gpt2" else "llama"]
        )
        prefix = block.format(layer)

    if family.name == "gpt2":
        name = _GPT2_MODULES[path][style == "gguf"]
        transposed = style == "hf" and in_block and len(shape) == 2
        theirs = tuple(reversed(shape)) if transposed else shape
        yield Part(f"{prefix}{name}.{suffix}", ours, theirs, (0, shape[0]), transposed)
        return

    if path != "attention.qkv":
        name = _LLAMA_MODULES[path][style == "gguf"]
        yield Part(f"{prefix}{name}.{suffix}", ours, shape, (0, shape[0]))
        return

    start = 0
    n_kv_head = c.n_kv_head or c.n_head
    for letter, heads in (("q", c.n_head), ("k", n_kv_head), ("v", n_kv_head)):
        end = start + heads * c.head_dim
        name = _LLAMA_MODULES[f"attention.{letter}"][style == "gguf"]
        interleaved = style == "gguf" and family.interleaved and letter != "v"
        yield Part(
            f"{prefix}{name}.{suffix}",
            ours,
            (end - start, *shape[1:]),
            (start, end),
            heads=heads if interleaved else 0,
        )
        start = end


# Ours, and GGUF's key after the architecture's name: gguf.constants.Keys.
_GGUF_FIELDS = {
    "max_seq_len": "context_length",
    "n_embd": "embedding_length",
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_kv_head": "attention.head_count_kv",
    "head_size": "attention.key_length",
    "ffn_hidden": "feed_forward_length",
    "rope_base": "rope.freq_base",
}
_GGUF_EPS = {"rms": "attention.layer_norm_rms_epsilon", "layer": "attention.layer_norm_epsilon"}


def config_from_gguf(
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    rope_factors: Tensor | None = None,
) -> GPTConfig:
    """Return the GPTConfig of a GGUF file.

    shapes: of its tensors, by name; they say whether weights are tied and layers have biases. rope_factors:
    the tensor rope_freqs.weight (D / 2,), if there is one. Raises ValueError for another architecture, and
    for what ours cannot express.
    """
    register_attentions()
    metadata = {
        key: value for key, value in metadata.items() if isinstance(value, (str, int, float))
    }
    architecture = metadata.get("general.architecture")
    family = next((f for f in FAMILIES.values() if f.gguf == architecture), None)
    if family is None:
        known = ", ".join(dict.fromkeys(f.gguf for f in FAMILIES.values()))
        raise ValueError(
            f"general.architecture is {str(architecture)[:40]!r}, expected one of {known}"
        )
    for key, harmless in (("expert_count", 0), ("rope.scaling.type", "none")):
        if metadata.get(f"{architecture}.{key}", harmless) != harmless:
            raise ValueError(
                f"{key} is {metadata[f'{architecture}.{key}']!r}, which ours cannot do"
            )

    fields: dict[str, Any] = dict(family.fixed)
    for ours, key in _GGUF_FIELDS.items():
        if f"{architecture}.{key}" in metadata:
            fields[ours] = metadata[f"{architecture}.{key}"]
    eps = f"{architecture}.{_GGUF_EPS[family.fixed['norm']]}"
    for needed in ("max_seq_len", "n_embd", "n_layer", "n_head", "ffn_hidden"):
        if needed not in fields:
            raise ValueError(f"it does not say {architecture}.{_GGUF_FIELDS[needed]}")
    if eps not in metadata:
        raise ValueError(f"it does not say {eps}")
    fields["norm_eps"] = _rounded(metadata[eps])

    table = shapes.get("token_embd.weight", ())
    if len(table) != 2:
        raise ValueError(f"token_embd.weight has the shape {list(table)}, expected 2 dimensions")
    fields["vocab_size"] = table[0]
    fields["tie_weights"] = "output.weight" not in shapes
    if family.name == "gpt2":
        fields["ffn"] = "gelu_tanh"  # as llama.cpp computes it
        fields.pop("head_size", None)
        fields.pop("rope_base", None)
        return GPTConfig(**fields)

    fields.setdefault("bias", "blk.0.ffn_up.bias" in shapes)
    fields["max_seq_len"] = _within_window(
        {"sliding_window": metadata.get(f"{architecture}.attention.sliding_window")},
        fields["max_seq_len"],
    )
    config = GPTConfig(**fields)
    if metadata.get(f"{architecture}.rope.dimension_count", config.head_dim) != config.head_dim:
        raise ValueError("only a part of each head is rotated, which ours cannot do")
    if rope_factors is None:
        return config
    return dataclasses.replace(config, rope_scaling=_scaling_of(rope_factors, config))


def _rounded(number: Any) -> Any:
    """Return a float32 as it was written: 1e-05 where it reads 9.999999747378752e-06."""
    return float(f"{number:.6g}") if isinstance(number, float) else number


def rope_factors(config: GPTConfig) -> Tensor | None:
    """Return by how much each pair turns more slowly than without rope_scaling: (D / 2,) float32, or None.

    GGUF keeps them as the tensor rope_freqs.weight.
    """
    if config.rope_scaling is None:
        return None
    plain = rotary_frequencies(config.head_dim, config.rope_base)
    return plain / rotary_frequencies(config.head_dim, config.rope_base, config.rope_scaling)


def _scaling_of(factors: Tensor, config: GPTConfig) -> RopeScaling:
    """Return the RopeScaling that has these factors; ValueError if none of Llama 3's has."""
    if factors.shape != (config.head_dim // 2,) or not torch.isfinite(factors).all():
        raise ValueError(f"rope_freqs.weight has the shape {list(factors.shape)}")
    largest = float(factors.max())
    for original in (8192, 4096, 2048, 1024, 512, 256, 128, 64):
        if largest > 1:
            scaling = RopeScaling(factor=_rounded(largest), original_max_seq_len=original)
            same = rope_factors(dataclasses.replace(config, rope_scaling=scaling))
            if same is not None and torch.allclose(same, factors.float(), rtol=1e-4):
                return scaling
    raise ValueError("rope_freqs.weight holds another scaling than Llama 3's")


def config_to_gguf(config: GPTConfig) -> dict[str, Any]:
    """Return what a GGUF file says about a model of this config, by key; rope_factors(config) goes beside it.

    Raises ValueError as family_of does, and for a GPT-2 with another activation than the tanh form of GELU.
    """
    family = family_of(config)
    if family.name == "gpt2" and config.ffn != "gelu_tanh":
        raise ValueError(f"ffn={config.ffn!r}: llama.cpp computes GPT-2 with gelu_tanh.")

    name = family.gguf
    hidden = config.ffn_hidden or (
        4 * config.n_embd if family.name == "gpt2" else swiglu_hidden(config.n_embd)
    )
    sizes = dataclasses.replace(
        config, ffn_hidden=hidden, n_kv_head=config.n_kv_head or config.n_head
    )
    values: dict[str, Any] = {"general.architecture": name}
    for ours, key in _GGUF_FIELDS.items():
        values[f"{name}.{key}"] = getattr(sizes, ours)
    values[f"{name}.{_GGUF_EPS[config.norm]}"] = config.norm_eps
    values[f"{name}.vocab_size"] = config.vocab_size

    if family.name == "gpt2":
        del values[f"{name}.rope.freq_base"]
        del values[f"{name}.attention.key_length"]
    else:
        values[f"{name}.attention.key_length"] = config.head_dim
        values[f"{name}.attention.value_length"] = config.head_dim
        values[f"{name}.rope.dimension_count"] = config.head_dim
    return values
