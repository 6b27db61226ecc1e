"""Tell the model where each token stands: a learned table, fixed sinusoids, or a rotation.

Shapes: positions (T,) or (B, T), integers counted from 0; C = n_embd channels; D = head width, even;
vectors to be rotated (B, H, T, D). Angles in radians.

Written by notebooks/06_positions.ipynb (chapter 06): edit it there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = [
    "apply_rotary",
    "half_split_to_interleaved",
    "interleaved_to_half_split",
    "LearnedPositionalEmbedding",
    "RopeScaling",
    "rotary_frequencies",
    "RotaryEmbedding",
    "SinusoidalPositionalEncoding",
]


def _check_positions(positions: Tensor, max_seq_len: int) -> None:
    """Refuse positions outside 0 .. max_seq_len - 1.

    On a GPU, checking the values would make the processor wait, and while tracing there are none.
    """
    if torch.compiler.is_compiling() or positions.device.type != "cpu" or not positions.numel():
        return

    low = int(positions.min())
    high = int(positions.max())
    if low < 0 or high >= max_seq_len:
        raise ValueError(
            f"positions from {low} to {high}, but max_seq_len is {max_seq_len}: expected 0 to "
            f"{max_seq_len - 1}. Shorten the text, or build the model with a larger max_seq_len."
        )


class LearnedPositionalEmbedding(nn.Module):
    """A table with one trained vector for each position, as in GPT-2: positions to (..., C).

    max_seq_len: number of rows. n_embd: C. A new table has standard deviation 0.02.
    """

    def __init__(self, max_seq_len: int, n_embd: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(max_seq_len, n_embd) * 0.02)

    def forward(self, positions: Tensor) -> Tensor:
        """Return the vectors of `positions`, (T,) or (B, T), as (..., C).

        Raises ValueError for a position outside the table.
        """
        _check_positions(positions, len(self.weight))
        return nn.functional.embedding(positions, self.weight)


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.1 stretches its rotation to texts longer than those of pretraining.

    Wavelengths longer than original_max_seq_len / low_freq_factor tokens are stretched `factor` times,
    those shorter than original_max_seq_len / high_freq_factor stay, and between them it is a blend.
    Raises ValueError for numbers that are not positive and finite, and unless low < high.
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_seq_len: int = 8192

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kinds = int if name == "original_max_seq_len" else (int, float)
            is_number = isinstance(value, kinds) and not isinstance(value, bool)
            if not is_number or not 0 < value < math.inf:
                kind = "integer" if kinds is int else "finite number"
                raise ValueError(f"RopeScaling: {name}={value!r}, expected a positive {kind}.")

        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"RopeScaling: low_freq_factor={self.low_freq_factor!r} must be smaller than "
                f"high_freq_factor={self.high_freq_factor!r}."
            )


def _check_even(name: str, size: int) -> None:
    if size < 2 or size % 2:
        raise ValueError(f"{name}={size}: sines and cosines come in pairs, so it must be even.")


def rotary_frequencies(
    dim: int,
    base: float = 10000.0,
    scaling: RopeScaling | None = None,
    device: str | torch.device | None = None,
) -> Tensor:
    """Return the D/2 angles by which the pairs of a vector turn per position: float32, falling.

    Pair i turns by base^(-2i / D): Su et al. (2021), section 3.2.2. scaling slows the slow pairs, as in
    Llama 3.1. Raises ValueError for an odd dim, and for a scaling that is not a RopeScaling.
    """
    _check_even("dim", dim)
    if scaling is not None and not isinstance(scaling, RopeScaling):
        raise ValueError(f"scaling={scaling!r}: expected a RopeScaling or None.")

    pairs = torch.arange(0, dim, 2, device=device, dtype=torch.float32)
    frequencies = 1.0 / base ** (pairs / dim)
    if scaling is None:
        return frequencies

    turns = scaling.original_max_seq_len * frequencies / (2 * math.pi)  # over the original context
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(frequencies / scaling.factor, frequencies, blend.clamp(0, 1))


class SinusoidalPositionalEncoding(nn.Module):
    """Sinusoids of many wavelengths, sine and cosine in turn: Vaswani et al. (2017), section 3.5.

    Channel 2i is sin(p / 10000^(2i / C)), channel 2i + 1 the cosine of the same. Nothing is trained or
    stored. Raises ValueError for odd n_embd.
    """

    def __init__(self, max_seq_len: int, n_embd: int) -> None:
        super().__init__()
        _check_even("n_embd", n_embd)
        self.max_seq_len = max_seq_len
        self.n_embd = n_embd

    def forward(self, positions: Tensor) -> Tensor:
        """Return the sinusoids at `positions`, (T,) or (B, T), as (..., C) float32."""
        _check_positions(positions, self.max_seq_len)
        angles = positions[..., None] * rotary_frequencies(self.n_embd, device=positions.device)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class _Rotation:
    """Cosines and sines of some positions, ready to turn any x (B, H, T, D) of theirs."""

    def __init__(self, angles: Tensor) -> None:  # (T, D/2) or (B, T, D/2)
        angles = angles if angles.ndim == 2 else angles[:, None]  # the same for every head
        self.cos = angles.cos()
        self.sin = angles.sin()

    def __call__(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)  # pair i is (x_i, x_{i + D/2})
        turned = torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], dim=-1)
        return turned.to(x.dtype)  # the products were float32 also for half-precision x


class RotaryEmbedding(nn.Module):
    """Rotary position embedding (RoPE): turn queries and keys by angles that grow with the position.

    dim is the head width D; base and scaling as for `rotary_frequencies`. Pairs are split in halves as
    in Hugging Face's Llama, where Su et al. (2021), equation 34, pair neighbours. Angles are float32
    whatever the model's dtype. Raises ValueError for an odd dim or an invalid scaling.
    """

    def __init__(
        self,
        dim: int,
        max_seq_len: int,
        base: float = 10000.0,
        scaling: RopeScaling | None = None,
    ) -> None:
        super().__init__()
        # Raises ValueError for an odd dim or an invalid scaling.
        rotary_frequencies(dim, base, scaling)
        self.dim = dim
        self.max_seq_len = max_seq_len
        self.base = base
        self.scaling = scaling

    def at(self, positions: Tensor) -> _Rotation:
        """Return a function that turns x (B, H, T, D) by `positions`, (T,) or (B, T): one for all layers."""
        _check_positions(positions, self.max_seq_len)
        frequencies = rotary_frequencies(self.dim, self.base, self.scaling, positions.device)
        return _Rotation(positions[..., None] * frequencies)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return x (B, H, T, D), each token turned by its position; same dtype."""
        return self.at(positions)(x)


def interleaved_to_half_split(x: Tensor, dim: int = -1) -> Tensor:
    """Reorder the pairs (0, 1), (2, 3), ... along `dim` into first halves, then second halves.

    [a0, b0, a1, b1] becomes [a0, a1, b0, b1]. For the weights of a projection, view them as
    (H, D, C) and take dim=1.
    """
    x = x.movedim(dim, -1)
    return torch.cat([x[..., 0::2], x[..., 1::2]], dim=-1).movedim(-1, dim)


def half_split_to_interleaved(x: Tensor, dim: int = -1) -> Tensor:
    """Undo `interleaved_to_half_split`: [a0, a1, b0, b1] becomes [a0, b0, a1, b1]."""
    x = x.movedim(dim, -1)
    return torch.stack(x.chunk(2, dim=-1), dim=-1).flatten(-2).movedim(-1, dim)


def apply_rotary(
    x: Tensor,
    positions: Tensor,
    base: float = 10000.0,
    scaling: RopeScaling | None = None,
    interleaved: bool = False,
) -> Tensor:
    """Turn x (B, H, T, D) by `positions`, (T,) or (B, T), as a function of its arguments alone.

    interleaved=True pairs neighbours (2i, 2i + 1), as Su et al. and Meta's Llama weights do.
    """
    frequencies = rotary_frequencies(x.shape[-1], base, scaling, x.device)
    rotation = _Rotation(positions[..., None] * frequencies)
    if not interleaved:
        return rotation(x)
    return half_split_to_interleaved(rotation(interleaved_to_half_split(x)))
