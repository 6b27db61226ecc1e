"""Put the rooms together: a GPT and a Llama from one config.

Shapes: B texts, T tokens, C = n_embd channels, V ids in the vocabulary. Losses are nats per token.

Written by notebooks/09_model.ipynb (chapter 09): edit it there.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt_lib.attention import CausalSelfAttention, _Cache
from minigpt_lib.feedforward import ACTIVATIONS, GPTFFN, SwiGLUFFN
from minigpt_lib.norms import LayerNorm, RMSNorm
from minigpt_lib.positions import (
    LearnedPositionalEmbedding,
    RopeScaling,
    RotaryEmbedding,
    SinusoidalPositionalEncoding,
)

__all__ = [
    "FFNS",
    "NORMS",
    "POSITIONS",
    "PRESETS",
    "count_parameters",
    "GPTConfig",
    "ladder",
    "MiniGPT",
    "TransformerBlock",
]

# A part of a model is a function of the config. A later chapter adds an entry.
POSITIONS = {
    "learned": lambda c: LearnedPositionalEmbedding(c.max_seq_len, c.n_embd),
    "sinusoidal": lambda c: SinusoidalPositionalEncoding(c.max_seq_len, c.n_embd),
    "rope": lambda c: RotaryEmbedding(c.head_dim, c.max_seq_len, c.rope_base, c.rope_scaling),
}
NORMS = {
    "layer": lambda c: LayerNorm(c.n_embd, c.norm_eps, c.bias, fused=c.fused),
    "rms": lambda c: RMSNorm(c.n_embd, c.norm_eps, fused=c.fused),
}


def _plain_ffn(c: "GPTConfig") -> GPTFFN:
    return GPTFFN(c.n_embd, c.ffn_hidden, c.ffn, bias=c.bias, dropout=c.dropout, fused=c.fused)


def _gated_ffn(c: "GPTConfig") -> SwiGLUFFN:
    return SwiGLUFFN(c.n_embd, c.ffn_hidden, bias=c.bias, dropout=c.dropout)


FFNS = dict.fromkeys(ACTIVATIONS, _plain_ffn) | {"swiglu": _gated_ffn}

# fmt: off
_GPT2 = {"position": "learned", "norm": "layer", "ffn": "gelu_tanh", "tie_weights": True, "bias": True}
_LLAMA = {"position": "rope", "norm": "rms", "ffn": "swiglu", "tie_weights": False, "bias": False}
_SIZES = ("vocab_size", "max_seq_len", "n_embd", "n_layer", "n_head")
PRESETS = {
    "laptop": dict(zip(_SIZES, (70, 256, 128, 4, 4))) | _LLAMA | {"init_std": 0.08},
    "gpt2_124m": dict(zip(_SIZES, (50257, 1024, 768, 12, 12))) | _GPT2,
    "fineweb_44m": dict(zip(_SIZES, (9157, 1024, 512, 12, 8))) | _GPT2
    | {"position": "sinusoidal", "ffn": "relu", "ffn_hidden": 2048},
    "llama3_8b": dict(zip(_SIZES, (128256, 8192, 4096, 32, 32))) | _LLAMA
    | {"n_kv_head": 8, "ffn_hidden": 14336, "rope_base": 500000.0},
}
# fmt: on


def _problems(c: "GPTConfig") -> Iterator[str]:
    """Yield a sentence for each thing in the config that cannot work."""
    for name in (*_SIZES, "n_kv_head", "ffn_hidden"):
        value = getattr(c, name)
        if (type(value) is not int or value < 1) and (name in _SIZES or value is not None):
            yield f"{name}={value!r}, expected a whole number of at least 1"
            return
    known = {"position": POSITIONS, "norm": NORMS, "ffn": FFNS, "norm_position": ("pre", "post")}
    for name, choices in known.items():
        if getattr(c, name) not in choices:
            yield f"{name}={getattr(c, name)!r}, expected one of {', '.join(choices)}"
    if c.n_embd % c.n_head:
        yield f"n_embd={c.n_embd} cannot be cut into n_head={c.n_head} equal heads"
    if c.n_head % (c.n_kv_head or 1):
        yield f"n_head={c.n_head} query heads cannot share n_kv_head={c.n_kv_head} evenly"
    if c.position == "rope" and c.head_dim % 2:
        yield f"rope turns pairs, but n_embd={c.n_embd} / n_head={c.n_head} = {c.head_dim} is odd"
    if c.position == "sinusoidal" and c.n_embd % 2:
        yield f"sines and cosines come in pairs, but n_embd={c.n_embd} is odd"
    if c.rope_scaling is not None and c.position != "rope":
        yield f"rope_scaling is given, but position={c.position!r} does not rotate"
    if not 0 <= c.dropout < 1:
        yield f"dropout={c.dropout}, expected at least 0 and below 1"
    if not (c.rope_base > 1 and c.norm_eps > 0 and c.init_std > 0):
        yield f"need rope_base={c.rope_base} above 1, norm_eps={c.norm_eps}, init_std={c.init_std} above 0"


@dataclass(frozen=True)
class GPTConfig:
    """Every choice that makes a model, checked: GPT-2 and Llama 3 are two values of this type.

    None means: n_kv_head as many as n_head; ffn_hidden the usual width (4 C, or 2/3 of it when gated).
    `bias` covers the linear layers and LayerNorm. `fused` takes torch's kernels where there are some.
    init_std is the spread of fresh weights. Raises ValueError, quoting both numbers, for a
    combination that cannot work.
    """

    vocab_size: int
    max_seq_len: int = 256
    n_embd: int = 128
    n_layer: int = 4
    n_head: int = 4
    n_kv_head: int | None = None
    position: str = "learned"
    norm: str = "layer"
    norm_position: str = "pre"
    ffn: str = "gelu"
    ffn_hidden: int | None = None
    tie_weights: bool = True
    bias: bool = True
    dropout: float = 0.0
    rope_base: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    fused: bool = True
    init_std: float = 0.02

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ValueError("this config cannot work: " + "; ".join(problems) + ".")

    @property
    def head_dim(self) -> int:
        """Return the width of one head."""
        return self.n_embd // self.n_head

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "GPTConfig":
        """Return the config of a name in PRESETS, with `changes` to it. ValueError for another name."""
        if name not in PRESETS:
            raise ValueError(f"preset {name!r} is unknown: expected one of {', '.join(PRESETS)}.")
        settings: dict[str, Any] = PRESETS[name] | changes
        return cls(**settings)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each added to what flows past: (B, T, C) to (B, T, C).

    norm_position "pre": x + f(norm(x)), as in GPT-2 and Llama; "post": norm(x + f(x)), as in Vaswani
    et al. (2017).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        self.pre = c.norm_position == "pre"
        self.norm1, self.norm2 = NORMS[c.norm](c), NORMS[c.norm](c)
        self.attention = CausalSelfAttention(
            c.n_embd, c.n_head, c.n_kv_head, bias=c.bias, dropout=c.dropout, fused=c.fused
        )
        self.ffn = FFNS[c.ffn](c)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: Callable[[Tensor], Tensor] | None = None,
        cache: _Cache | None = None,
    ) -> Tensor:
        """Map x (B, T, C) to (B, T, C); the other arguments are attention's."""
        if self.pre:
            x = x + self.attention(self.norm1(x), mask, rotary, cache)
            return x + self.ffn(self.norm2(x))
        x = self.norm1(x + self.attention(x, mask, rotary, cache))
        return self.norm2(x + self.ffn(x))


class _Caches(Protocol):
    """The cache of each layer, and how many tokens they hold."""

    length: int

    def __getitem__(self, i: int) -> _Cache: ...


class MiniGPT(nn.Module):
    """A decoder-only transformer: ids (B, T) to logits (B, T, V).

    Built under torch.device("meta") it has shapes but no numbers; `to_empty` and `init_weights` give
    it some. With tied weights the head is the embedding table itself, so the tie cannot break.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position = POSITIONS[config.position](config)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layer))
        self.norm = NORMS[config.norm](config) if config.norm_position == "pre" else nn.Identity()
        self.head = None
        if not config.tie_weights:
            self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw all weights afresh: normal with standard deviation init_std, biases 0, norms 1.

        The last layer of each branch gets init_std / sqrt(2 n_layer): 2 n_layer branches add up in the
        residual stream (Radford et al., 2019, section 2.3).
        """
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                last = name.endswith(("attention.proj.weight", "ffn.down.weight"))
                std = self.config.init_std / math.sqrt(2 * self.config.n_layer if last else 1)
                nn.init.normal_(weight, 0.0, std)
            else:
                nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)

    def forward(
        self,
        input_ids: Tensor,
        targets: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: _Caches | None = None,
        last_only: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Map ids (B, T) to (logits (B, T, V), loss in nats per token, or None without targets).

        targets (B, T) are already shifted; those of -100 do not count, and without any other the loss
        is 0. positions, (T,) or (B, T), go on after the cache's `length` unless told; cache[i] is layer
        i's, see CausalSelfAttention; mask as there. last_only: logits (B, 1, V) of the last place alone.
        Raises ValueError for ids that are not (B, T), or beyond max_seq_len.
        """
        x, rotary = self._embed(input_ids, positions, 0 if cache is None else cache.length)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, rotary, None if cache is None else cache[i])
        x = self.norm(x[:, -1:] if last_only else x)
        logits = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)
        if targets is None:
            return logits, None
        total = F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
        )
        return logits, total / (targets != -100).sum().clamp(min=1)

    def _embed(
        self, input_ids: Tensor, positions: Tensor | None, start: int
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Return the embedded tokens (B, T, C) and the rotation for attention, if there is one."""
        if input_ids.ndim != 2 or not input_ids.shape[1]:
            raise ValueError(
                f"expected ids (B, T), got {tuple(input_ids.shape)}: ids[None] is a batch of 1."
            )
        end = start + input_ids.shape[1]
        if end > self.config.max_seq_len:
            raise ValueError(
                f"{end} tokens ({start} of them in the cache), but max_seq_len is "
                f"{self.config.max_seq_len}: shorten the text, or build a model that reads more."
            )
        if positions is None:
            positions = torch.arange(start, end, device=input_ids.device)
        x = self.embedding(input_ids)
        if isinstance(self.position, RotaryEmbedding):
            return self.dropout(x), self.position.at(positions)
        if self.config.position == "sinusoidal":
            x = x * math.sqrt(self.config.n_embd)  # so that the waves do not drown the tokens
        return self.dropout(x + self.position(positions).to(x.dtype)), None

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into `folder`, made if missing; each file at once or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors.part")
        text = json.dumps(dataclasses.asdict(self.config), indent=2)
        (folder / "config.json.part").write_text(text, encoding="utf-8")
        for name in ("model.safetensors", "config.json"):
            (folder / f"{name}.part").replace(folder / name)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> "MiniGPT":
        """Return the model that `save_pretrained` wrote, in evaluation mode.

        Raises FileNotFoundError without the two files, ValueError if one is damaged or they do not fit
        each other.
        """
        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} has no {name}: save_pretrained writes it.")
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if values.get("rope_scaling"):
                values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
            with torch.device("meta"):
                model = cls(GPTConfig(**values))
            weights = load_file(folder / "model.safetensors", device=str(device))
            model.load_state_dict(weights, assign=True)
        except (RuntimeError, TypeError, AttributeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{folder} does not hold one whole model: {error}") from error
        return model.eval()


def count_parameters(model: MiniGPT) -> dict[str, int]:
    """Return how many numbers each part trains: embedding, position, attention, ffn, norm, head, total.

    Tied weights count once, with the embedding. Works on the meta device too.
    """
    parts = dict.fromkeys(("embedding", "position", "attention", "ffn", "norm", "head"), 0)
    for name, weight in model.named_parameters():
        part = next(part for part in parts if part in name)
        parts[part] += weight.numel()
    return parts | {"total": sum(parts.values())}


def ladder(**sizes: Any) -> dict[str, GPTConfig]:
    """Return the rungs from GPT-2 to Llama 3: each one flag away from the rung before, named by it.

    sizes: those of the laptop preset unless told. Raises ValueError as GPTConfig does.
    """
    config = GPTConfig.preset("laptop", **{"init_std": 0.02, **_GPT2, **sizes})
    rungs = {"GPT-2": config}
    for name in ("position", "norm", "ffn", "bias", "n_kv_head", "tie_weights"):
        value: Any = _LLAMA.get(name, config.n_head // 2)
        config = dataclasses.replace(config, **{name: value})
        rungs[f"{name}={value}"] = config
    return rungs
