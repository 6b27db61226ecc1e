"""Keep weights and caches in few bits: codes, scales, and the products that use them.

Shapes: N output features, K input features, G weights in a group, B batch size,
T sequence length, H_kv key heads of width D.

Written by notebooks/22_quantization.ipynb (chapter 22): edit it there.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt_lib.model import GPTConfig, MiniGPT

__all__ = [
    "PRODUCTS",
    "choose_product",
    "Int4Product",
    "Int8Product",
    "pack_nibbles",
    "PlainProduct",
    "quantize",
    "quantize_weights",
    "QuantizedKVCache",
    "QuantizedLinear",
    "QuantizedMatrix",
    "time_product",
    "unpack_nibbles",
    "usable_products",
    "weight_bytes",
]


def _step(width: Tensor, n_steps: int) -> Tensor:
    """Return width / n_steps in bfloat16, rounded up so that n_steps of it reach at least `width`."""
    step = width.float() / n_steps
    step = step.clamp(min=2.0**-100)  # a group of equal weights needs some step too
    return (step * (1 + 2**-7)).bfloat16()  # bfloat16 keeps 8 bits: rounding loses at most 2^-8


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix (N, K) as whole numbers: weight = code * scale, or (code + 2^(bits - 1)) * scale + low.

    codes: (N, K) int8. scales, and lows unless the codes are symmetric: (N, K / G) bfloat16.
    """

    codes: Tensor
    scales: Tensor
    lows: Tensor | None
    bits: int

    def dequantize(self) -> Tensor:
        """Return the matrix (N, K) in float32."""
        groups = self.codes.float().unflatten(1, (self.scales.shape[1], -1))
        scales = self.scales.float()[..., None]  # (N, K / G, 1)
        if self.lows is None:
            return (groups * scales).flatten(1)
        steps = groups + 2 ** (self.bits - 1)
        return (steps * scales + self.lows.float()[..., None]).flatten(1)

    @property
    def bits_per_weight(self) -> float:
        """Return the size in bits / (N K), scales and lows included."""
        n_numbers = self.scales.numel() * (1 if self.lows is None else 2)
        return self.bits + 16 * n_numbers / self.codes.numel()


def quantize(
    weight: Tensor, bits: int = 8, group: int | None = None, symmetric: bool = True
) -> QuantizedMatrix:
    """Round a matrix (N, K) to codes of 8 or 4 bits; no weight moves by more than half its scale.

    group: neighbours in a row that share a scale, a whole row by default ("per channel"). symmetric:
    codes from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1 around 0; otherwise 2^bits of them, counted from the
    lowest weight of the group. As in Dettmers et al. (2022), section 2, and GGUF's Q8_0 and Q4_1, but
    with scales in bfloat16. Raises ValueError for another number of bits, a group that does not divide K,
    and weights that are not finite.
    """
    _check(weight, bits, group)
    groups = weight.detach().float().unflatten(1, (-1, group or weight.shape[1]))
    half = 2 ** (bits - 1)

    if symmetric:
        scales = _step(groups.abs().amax(dim=2), half - 1)
        codes = groups / scales.float()[..., None]
        return QuantizedMatrix(_whole(codes), scales, None, bits)

    lows = groups.amin(dim=2)
    lows = (lows - lows.abs() * 2**-7).bfloat16()  # rounded down: no weight is below it
    scales = _step(groups.amax(dim=2) - lows.float(), 2 * half - 1)
    codes = (groups - lows.float()[..., None]) / scales.float()[..., None] - half
    return QuantizedMatrix(_whole(codes), scales, lows, bits)


def _whole(codes: Tensor) -> Tensor:
    return codes.round().to(torch.int8).flatten(1)


def _check(weight: Tensor, bits: int, group: int | None) -> None:
    if bits not in (4, 8):
        raise ValueError(f"bits={bits}: expected 8 or 4.")
    if weight.ndim != 2 or not weight.numel():
        raise ValueError(f"expected a matrix (N, K), got {tuple(weight.shape)}.")
    K = weight.shape[1]
    if group is not None and (type(group) is not int or group < 1 or K % group):
        raise ValueError(f"group={group}: expected a divisor of the {K} input features, or None.")
    if not torch.isfinite(weight).all():
        raise ValueError("expected finite weights, got inf or nan: no step reaches them.")


def pack_nibbles(codes: Tensor) -> Tensor:
    """Put pairs of 4-bit codes (N, K) int8, from -8 to 7, into bytes: (N, K / 2) uint8, even places low."""
    if codes.shape[1] % 2:
        raise ValueError(f"expected an even number of columns, got {codes.shape[1]}.")
    shifted = (codes + 8).to(torch.uint8)
    return shifted[:, ::2] | shifted[:, 1::2] << 4


def unpack_nibbles(packed: Tensor) -> Tensor:
    """Return the codes (N, K) int8 that `pack_nibbles` put into bytes (N, K / 2)."""
    pairs = torch.stack([packed & 15, packed >> 4], dim=2)  # (N, K / 2, 2)
    return pairs.flatten(1).to(torch.int8) - 8


class PlainProduct(nn.Module):
    """Restore the matrix at each call, and multiply: x (..., K) to (..., N). Works everywhere; saves only memory."""

    def __init__(self, matrix: QuantizedMatrix) -> None:
        super().__init__()
        self.bits = matrix.bits
        self.packs = matrix.bits == 4 and matrix.codes.shape[1] % 2 == 0
        self.register_buffer("codes", pack_nibbles(matrix.codes) if self.packs else matrix.codes)
        self.register_buffer("scales", matrix.scales)
        self.register_buffer("lows", matrix.lows)

    def weight(self) -> Tensor:
        """Return the restored matrix (N, K) in float32."""
        codes = unpack_nibbles(self.codes) if self.packs else self.codes
        return QuantizedMatrix(codes, self.scales, self.lows, self.bits).dequantize()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight().to(x.dtype))


def _aligned(x: Tensor) -> Tensor:
    """Return x (..., K) as rows (M, K) in bfloat16 that begin at a multiple of 64 bytes, as kernels want them."""
    rows = x.reshape(-1, x.shape[-1]).bfloat16().contiguous()
    return rows.clone() if rows.data_ptr() % 64 else rows


class Int8Product(nn.Module):
    """Multiply by 8-bit rows with torch's kernel for processors, in bfloat16: x (..., K) to (..., N)."""

    def __init__(self, matrix: QuantizedMatrix) -> None:
        super().__init__()
        self.register_buffer("codes", matrix.codes.contiguous())
        self.register_buffer("scales", matrix.scales[:, 0].contiguous())

    def forward(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(_aligned(x), self.codes, self.scales)
        return y.view(*x.shape[:-1], -1).to(x.dtype)


class Int4Product(nn.Module):
    """Multiply by 4-bit groups with torch's kernel for processors, in bfloat16: x (..., K) to (..., N).

    The kernel's own form is (code - 8) * scale + zero with codes from 0 to 15; ours is the same with
    code + 8, and zero = low + 8 * scale.
    """

    def __init__(self, matrix: QuantizedMatrix) -> None:
        super().__init__()
        codes = matrix.codes.int() + 8
        zeros = torch.zeros_like(matrix.scales)
        if matrix.lows is not None:
            zeros = (matrix.lows.float() + 8 * matrix.scales.float()).bfloat16()

        self.group = matrix.codes.shape[1] // matrix.scales.shape[1]
        self.register_buffer("codes", torch._convert_weight_to_int4pack_for_cpu(codes, 1))
        pairs = torch.stack([matrix.scales, zeros], dim=2)  # (N, K / G, 2)
        self.register_buffer("scales", pairs.transpose(0, 1).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        y = torch._weight_int4pack_mm_for_cpu(_aligned(x), self.codes, self.group, self.scales)
        return y.view(*x.shape[:-1], -1).to(x.dtype)


PRODUCTS: dict[str, type[nn.Module]] = {
    "plain": PlainProduct,
    "int8": Int8Product,
    "int4": Int4Product,
}


def usable_products(matrix: QuantizedMatrix) -> list[str]:
    """Return the names in PRODUCTS that can multiply by this matrix here."""
    N, K = matrix.codes.shape
    group = K // matrix.scales.shape[1]
    on_cpu = matrix.codes.device.type == "cpu"
    names = ["plain"]

    fits_int8 = matrix.bits == 8 and group == K and matrix.lows is None and K % 16 == 0
    if on_cpu and fits_int8 and hasattr(torch, "_weight_int8pack_mm"):
        names.append("int8")

    fits_int4 = matrix.bits == 4 and group in (32, 64, 128, 256) and N % 16 == 0
    if on_cpu and fits_int4 and hasattr(torch, "_weight_int4pack_mm_for_cpu"):
        names.append("int4")
    return names


@functools.cache
def time_product(name: str, N: int, K: int, bits: int, group: int | None, symmetric: bool) -> float:
    """Return the seconds that a product of PRODUCTS takes for one token, the fastest of five calls.

    Matrices of more than 2^20 weights are measured on fewer rows, so that it stays a matter of milliseconds.
    """
    rows = min(N, max(16, 2**20 // K // 16 * 16))
    product = PRODUCTS[name](quantize(torch.ones(rows, K), bits, group, symmetric))
    x = torch.ones(1, K, dtype=torch.bfloat16)

    seconds = []
    with torch.inference_mode():
        for _ in range(5):
            began = time.perf_counter()
            product(x)
            seconds.append(time.perf_counter() - began)
    return min(seconds)


def choose_product(
    matrix: QuantizedMatrix, seconds_of: Callable[..., float] = time_product
) -> tuple[str, str]:
    """Return (name, reason): the fastest product of PRODUCTS for this matrix, here.

    seconds_of(name, N, K, bits, group, symmetric) measures.
    """
    names = usable_products(matrix)
    if len(names) == 1:
        return "plain", "no kernel for this shape, group or device"

    N, K = matrix.codes.shape
    n_groups = matrix.scales.shape[1]
    group = None if n_groups == 1 else K // n_groups
    times = {
        name: seconds_of(name, N, K, matrix.bits, group, matrix.lows is None) for name in names
    }
    figures = ", ".join(f"{name} {1e6 * seconds:.3g} µs" for name, seconds in times.items())
    return min(times, key=times.__getitem__), f"a token takes {figures}"


class QuantizedLinear(nn.Module):
    """A linear layer whose weights are whole numbers of 8 or 4 bits: x (..., K) to (..., N); it cannot be trained.

    bits, group, symmetric: see `quantize`. product: a name in PRODUCTS, or "auto" for the fastest here.
    Raises ValueError as `quantize` does, and for a product that cannot multiply by this matrix.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        bits: int = 8,
        group: int | None = None,
        symmetric: bool = True,
        product: str = "auto",
    ) -> None:
        super().__init__()
        matrix = quantize(weight, bits, group, symmetric)
        usable = usable_products(matrix)
        if product == "auto":
            product, _ = choose_product(matrix)
        if product not in usable:
            raise ValueError(
                f"product={product!r} cannot multiply by {bits}-bit weights {tuple(weight.shape)} in groups of "
                f"{group or 'a row'}, symmetric={symmetric}: expected auto, {', '.join(usable)}."
            )

        self.kind = product
        self.product = PRODUCTS[product](matrix)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., K) to (..., N)."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias


def quantize_weights(
    model: MiniGPT,
    bits: int = 8,
    group: int | None = None,
    symmetric: bool = True,
    product: str = "auto",
    head_bits: int | None = None,
) -> MiniGPT:
    """Return a copy of a model with a QuantizedLinear for every linear layer, output layer included.

    bits, group, symmetric, product: as for QuantizedLinear. head_bits: other bits for the output layer,
    then with a scale for each row. The token table is left as it is, as are norms. The copy is in
    evaluation mode and cannot be trained or saved. bfloat16 models gain most. Raises ValueError as
    QuantizedLinear does, and for a model without linear layers.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    found = 0
    for parent in list(model.blocks.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                found += 1
                small = QuantizedLinear(layer.weight, layer.bias, bits, group, symmetric, product)
                setattr(parent, name, small)
    if not found:
        raise ValueError("found no linear layers: the model has been quantized or packed already.")

    # A tied table is the output layer too.
    table = model.embedding if model.head is None else model.head
    if head_bits is None:
        model.head = QuantizedLinear(table.weight, None, bits, group, symmetric, product)
    else:
        model.head = QuantizedLinear(table.weight, None, head_bits)
    return model


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers; what is shared counts once."""
    parts = {
        part.data_ptr(): part.numel() * part.element_size()
        for part in (*model.parameters(), *model.buffers())
    }
    return sum(parts.values())


class _QuantizedLayer:
    """The keys and values of one layer as bytes; `owner` knows how many are filled."""

    def __init__(
        self,
        owner: "QuantizedKVCache",
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: str | torch.device,
        is_last: bool,
    ) -> None:
        self.owner = owner
        self.is_last = is_last
        self.dtype = dtype
        self.codes = torch.zeros((2, *shape), dtype=torch.int8, device=device)  # keys, values
        self.scales = torch.zeros((2, *shape[:3], 1), dtype=torch.bfloat16, device=device)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k and v (B, H_kv, T, D) behind the rest; return all so far, rounded."""
        start = self.owner.length
        end = start + k.shape[2]
        _, B, _, max_len, _ = self.codes.shape
        if end > max_len or len(k) != B or k.dtype != self.dtype:
            raise ValueError(
                f"the cache holds {B} texts of at most {max_len} tokens in {self.dtype}, but it got "
                f"{len(k)} texts with {end} tokens in {k.dtype}: make a QuantizedKVCache of that size."
            )

        new = torch.stack([k, v]).detach().float()  # (2, B, H_kv, T, D)
        steps = _step(new.abs().amax(dim=-1, keepdim=True), 127)
        self.codes[:, :, :, start:end] = (new / steps.float()).round().to(torch.int8)
        self.scales[:, :, :, start:end] = steps
        if self.is_last:  # all layers of a step must see the same length
            self.owner.length = end

        codes, scales = self.codes[:, :, :, :end], self.scales[:, :, :, :end]
        keys, values = codes.to(self.dtype) * scales.to(self.dtype)
        return keys, values


class QuantizedKVCache:
    """Chapter 11's KVCache with a byte for each number, and a bfloat16 scale for each key and each value.

    Of the size of KVCache in float32 it takes (1 + 2 / D) / 4. Everything is restored to `dtype`, the
    model's, at each step, which takes time that grows with the text. Its methods and errors are KVCache's.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        max_len: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        max_len = config.max_seq_len if max_len is None else max_len
        shape = (batch_size, config.n_kv_head or config.n_head, max_len, config.head_dim)
        last = config.n_layer - 1
        self.layers = [
            _QuantizedLayer(self, shape, dtype, device, i == last) for i in range(last + 1)
        ]
        self.length = 0

    def __getitem__(self, i: int) -> _QuantizedLayer:
        return self.layers[i]

    def reset(self) -> None:
        """Forget everything; the memory is kept."""
        self.length = 0

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens; raises ValueError if there are fewer."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} tokens: the cache holds {self.length}.")
        self.length = length

    def reorder(self, rows: Tensor) -> None:
        """Let row b go on from what row rows[b] holds, rows (B,), for beams."""
        for layer in self.layers:
            for kept in (layer.codes, layer.scales):
                kept[:, :, :, : self.length] = kept[:, rows, :, : self.length]

    @property
    def n_bytes(self) -> int:
        """Return the memory that was taken, in bytes."""
        parts = [part for layer in self.layers for part in (layer.codes, layer.scales)]
        return sum(part.numel() * part.element_size() for part in parts)
