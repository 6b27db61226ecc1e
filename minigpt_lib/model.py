"""Put the parts together: a GPT and a Llama from one config.

Shapes: B batch size, T sequence length, C = n_embd channels,
V vocabulary size. Losses in nats per token.

Written by notebooks/09_model.ipynb (chapter 09): edit it there.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
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
    "ATTENTIONS",
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


@dataclass(frozen=True)
class GPTConfig:
    """Every choice that makes a model, checked: GPT-2 and Llama 3 are two values of this type.

    None means the default that follows from the other fields: n_kv_head = n_head; ffn_hidden = 4 C, or
    2/3 of that when gated; head_size = C / n_head. `bias` covers the linear layers and LayerNorm. `fused`
    uses torch's kernels where there are any. init_std is the standard deviation of fresh weights.

    Raises ValueError, with the numbers that conflict, for a combination that cannot work.
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
    attention: str = "causal"
    head_size: int | None = None

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise ValueError("this config cannot work: " + "; ".join(problems) + ".")

    @property
    def head_dim(self) -> int:
        """Return the width of one attention head."""
        return self.n_embd // self.n_head if self.head_size is None else self.head_size

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "GPTConfig":
        """Return the config that PRESETS has under `name`, with `changes` to it.

        Raises ValueError for an unknown name.
        """
        if name not in PRESETS:
            raise ValueError(f"preset {name!r} is unknown: expected one of {', '.join(PRESETS)}.")
        return cls(**(PRESETS[name] | changes))


# Each entry builds a part of the model from a config c.
_Builders = dict[str, Callable[[GPTConfig], nn.Module]]

POSITIONS: _Builders = {
    "learned": lambda c: LearnedPositionalEmbedding(c.max_seq_len, c.n_embd),
    "sinusoidal": lambda c: SinusoidalPositionalEncoding(c.max_seq_len, c.n_embd),
    "rope": lambda c: RotaryEmbedding(
        c.head_dim,
        c.max_seq_len,
        c.rope_base,
        c.rope_scaling,
    ),
}
NORMS: _Builders = {
    "layer": lambda c: LayerNorm(c.n_embd, c.norm_eps, c.bias, fused=c.fused),
    "rms": lambda c: RMSNorm(c.n_embd, c.norm_eps, fused=c.fused),
}
ATTENTIONS: _Builders = {
    "causal": lambda c: CausalSelfAttention(
        c.n_embd,
        c.n_head,
        c.n_kv_head,
        bias=c.bias,
        dropout=c.dropout,
        fused=c.fused,
        head_dim=c.head_size,
    ),
}


def _plain_ffn(c: GPTConfig) -> nn.Module:
    return GPTFFN(
        c.n_embd,
        c.ffn_hidden,
        c.ffn,
        bias=c.bias,
        dropout=c.dropout,
        fused=c.fused,
    )


def _gated_ffn(c: GPTConfig) -> nn.Module:
    return SwiGLUFFN(c.n_embd, c.ffn_hidden, bias=c.bias, dropout=c.dropout)


FFNS: _Builders = {**dict.fromkeys(ACTIVATIONS, _plain_ffn), "swiglu": _gated_ffn}


def _wrong_sizes(c: GPTConfig) -> Iterator[str]:
    optional = ("n_kv_head", "ffn_hidden", "head_size")
    for name in ("vocab_size", "max_seq_len", "n_embd", "n_layer", "n_head", *optional):
        size = getattr(c, name)
        is_default = size is None and name in optional
        if not is_default and (type(size) is not int or size < 1):
            yield f"{name}={size!r}, expected a whole number of at least 1"


def _wrong_values(c: GPTConfig) -> Iterator[str]:
    known = {
        "position": POSITIONS,
        "norm": NORMS,
        "ffn": FFNS,
        "attention": ATTENTIONS,
        "norm_position": ("pre", "post"),
    }
    for name, choices in known.items():
        if getattr(c, name) not in tuple(choices):
            yield f"{name}={getattr(c, name)!r}, expected one of {', '.join(choices)}"

    for name in ("tie_weights", "bias", "fused"):
        if type(getattr(c, name)) is not bool:
            yield f"{name}={getattr(c, name)!r}, expected True or False"

    if not (c.rope_scaling is None or isinstance(c.rope_scaling, RopeScaling)):
        yield f"rope_scaling={c.rope_scaling!r}, expected a RopeScaling or None"

    if not (isinstance(c.dropout, (int, float)) and 0 <= c.dropout < 1):
        yield f"dropout={c.dropout!r}, expected at least 0 and below 1"

    for name, bound in (("rope_base", 1), ("norm_eps", 0), ("init_std", 0)):
        number = getattr(c, name)
        if not (isinstance(number, (int, float)) and bound < number < math.inf):
            yield f"{name}={number!r}, expected a finite number above {bound}"


def _conflicts(c: GPTConfig) -> Iterator[str]:
    if c.n_embd % c.n_head and c.head_size is None:
        yield f"n_embd={c.n_embd} cannot be cut into n_head={c.n_head} equal heads"
    if c.n_kv_head is not None and c.n_head % c.n_kv_head:
        yield f"n_head={c.n_head} query heads cannot share n_kv_head={c.n_kv_head} evenly"

    if c.position == "rope" and c.head_dim % 2:
        width = f"n_embd={c.n_embd} / n_head={c.n_head} = {c.head_dim}"
        if c.head_size is not None:
            width = f"head_size={c.head_size}"
        yield f"rope turns pairs, but {width} is odd"
    if c.position == "sinusoidal" and c.n_embd % 2:
        yield f"sines and cosines come in pairs, but n_embd={c.n_embd} is odd"
    if c.position != "rope" and c.rope_scaling is not None:
        yield f"rope_scaling is given, but position={c.position!r} does not rotate"


def _problems(c: GPTConfig) -> list[str]:
    """Return an error message for each setting, and each pair of settings, that cannot work."""
    sizes = [*_wrong_sizes(c)]  # with a wrong size there is nothing to divide
    return sizes or [*_wrong_values(c), *_conflicts(c)]


_GPT2: dict[str, Any] = {
    "position": "learned",
    "norm": "layer",
    "ffn": "gelu_tanh",
    "tie_weights": True,
    "bias": True,
}
_LLAMA: dict[str, Any] = {
    "position": "rope",
    "norm": "rms",
    "ffn": "swiglu",
    "tie_weights": False,
    "bias": False,
}

PRESETS: dict[str, dict[str, Any]] = {
    "laptop": dict(
        _LLAMA, vocab_size=70, max_seq_len=256,
        n_embd=128, n_layer=4, n_head=4, init_std=0.08,
    ),
    "gpt2_124m": dict(
        _GPT2, vocab_size=50304, max_seq_len=1024,
        n_embd=768, n_layer=12, n_head=12,
    ),
    "fineweb_44m": dict(
        _GPT2, vocab_size=9157, max_seq_len=1024,
        n_embd=512, n_layer=12, n_head=8, ffn_hidden=2048,
        position="sinusoidal", ffn="relu",
    ),
    "llama3_8b": dict(
        _LLAMA, vocab_size=128256, max_seq_len=8192,
        n_embd=4096, n_layer=32, n_head=32, n_kv_head=8, ffn_hidden=14336,
        rope_base=500000.0,
    ),
}  # fmt: skip


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each added to the residual stream: (B, T, C) to (B, T, C).

    norm_position "pre": x + f(norm(x)), as in GPT-2 and Llama; "post": norm(x + f(x)), as in Vaswani
    et al. (2017).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        self.pre = c.norm_position == "pre"
        self.norm1 = NORMS[c.norm](c)
        self.norm2 = NORMS[c.norm](c)
        self.attention = ATTENTIONS[c.attention](c)
        self.ffn = FFNS[c.ffn](c)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: Callable[[Tensor], Tensor] | None = None,
        cache: _Cache | None = None,
    ) -> Tensor:
        """Map x (B, T, C) to (B, T, C); see CausalSelfAttention for the other arguments."""
        if self.pre:
            x = x + self.attention(self.norm1(x), mask, rotary, cache)
            return x + self.ffn(self.norm2(x))

        x = self.norm1(x + self.attention(x, mask, rotary, cache))
        return self.norm2(x + self.ffn(x))


class _Caches(Protocol):
    """A cache for each layer, and the number of tokens in them."""

    length: int

    def __getitem__(self, i: int) -> _Cache: ...


class MiniGPT(nn.Module):
    """A decoder-only transformer: ids (B, T) to logits (B, T, V).

    Built under torch.device("meta") it has shapes but no numbers; `to_empty` and `init_weights` give
    it some. With tied weights the embedding table is the output layer, so the tie cannot break.
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
        """Draw all weights anew: normal with standard deviation init_std, biases 0, norms 1.

        The last layer of each branch gets init_std / sqrt(2 n_layer), because 2 n_layer branches add up
        in the residual stream (Radford et al., 2019, section 2.3).
        """
        n_branches = 2 * self.config.n_layer
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                is_last = name.endswith(("attention.proj.weight", "ffn.down.weight"))
                std = self.config.init_std / math.sqrt(n_branches if is_last else 1)
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
        """Map ids (B, T) to logits (B, T, V), and to the loss in nats per token if there are targets.

        targets (B, T): the next ids, already shifted. -100 does not count; without any other target the
        loss is 0. positions: (T,) or (B, T), by default those that follow the cache. mask: see
        CausalSelfAttention. cache: cache[i] is layer i's. last_only: logits (B, 1, V) of the last position.
        Raises ValueError for ids that are not (B, T), or for more than max_seq_len tokens.
        """
        start = 0 if cache is None else cache.length
        x, rotary = self._embed(input_ids, positions, start)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, rotary, None if cache is None else cache[i])

        if last_only:
            x = x[:, -1:]
        x = self.norm(x)
        logits = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)
        if targets is None:
            return logits, None

        total = F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
        )
        n_targets = (targets != -100).sum().clamp(min=1)
        return logits, total / n_targets

    def _embed(
        self, input_ids: Tensor, positions: Tensor | None, start: int
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Return the embedded tokens (B, T, C), and the rotation for attention if there is one.

        start: the number of tokens before these.
        """
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

        x = self.embedding(input_ids)
        if positions is None:
            positions = torch.arange(start, end, device=input_ids.device)
        if isinstance(self.position, RotaryEmbedding):
            return self.dropout(x), self.position.at(positions)

        if self.config.position == "sinusoidal":
            x = x * math.sqrt(self.config.n_embd)  # sinusoids are much larger than it
        return self.dropout(x + self.position(positions).to(x.dtype)), None

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into `folder`, which is made if missing.

        Each file replaces the old one in a single step, so an interrupted save leaves no half file. Raises
        OSError, with the old files untouched, if the disk is full; it says how much room there is.
        """
        _save(self, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> "MiniGPT":
        """Return the model that `save_pretrained` wrote, in evaluation mode.

        Raises FileNotFoundError if one of the two files is missing, ValueError if one is damaged or they
        do not fit each other.
        """
        return _load(cls, Path(folder), device)


def count_parameters(model: MiniGPT) -> dict[str, int]:
    """Return how many numbers each part trains: embedding, position, attention, ffn, norm, head, total.

    Tied weights count once, with the embedding. Works on the meta device too.
    """
    parts = dict.fromkeys(("embedding", "position", "attention", "ffn", "norm", "head"), 0)
    for name, weight in model.named_parameters():
        path = [piece.rstrip("12") for piece in name.split(".")]  # norm1 and norm2 are norms
        part = next(piece for piece in path if piece in parts)
        parts[part] += weight.numel()
    return parts | {"total": sum(parts.values())}


def ladder(**sizes: Any) -> dict[str, GPTConfig]:
    """Return the rungs from GPT-2 to Llama 3, each named by the one choice that it changes.

    sizes: fields of GPTConfig that differ from the laptop preset's. Raises ValueError as GPTConfig does.
    """
    config = GPTConfig.preset("laptop", **{"init_std": 0.02, **_GPT2, **sizes})
    choices: dict[str, Any] = {
        "position": "rope",
        "norm": "rms",
        "ffn": "swiglu",
        "bias": False,
        "n_kv_head": config.n_head // 2,
        "tie_weights": False,
    }

    rungs = {"GPT-2": config}
    for name, choice in choices.items():
        config = dataclasses.replace(config, **{name: choice})
        rungs[f"{name}={choice}"] = config
    return rungs


def _save(model: MiniGPT, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    text = json.dumps(dataclasses.asdict(model.config), indent=2)
    parts = {name: folder / f"{name}.part" for name in ("model.safetensors", "config.json")}

    try:
        save_file(weights, parts["model.safetensors"])
        parts["config.json"].write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:  # a full disk raises either
        free = shutil.disk_usage(folder).free  # before the unfinished files go
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise OSError(
            f"the model {folder} could not be written ({error}; {free / 1e6:,.1f} MB are free). "
            "What was saved before is untouched: free some space, or choose another folder."
        ) from error

    for name, part in parts.items():
        part.replace(folder / name)


def _load(cls: type[MiniGPT], folder: Path, device: str | torch.device) -> MiniGPT:
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
        if any(name.endswith((".A", ".B")) for name in weights):
            raise ValueError("its LoRA layers were saved unmerged; call merge_lora before saving")
        model.load_state_dict(weights, assign=True)
    except (RuntimeError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} does not hold one whole model: {error}") from error
    return model.eval()
