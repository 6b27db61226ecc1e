"""Chapter 22: its checks accept the quantization and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "codes are counted in a step that is not kept": (
        "codes = groups / scales.float()[..., None]",
        "codes = groups / (groups.abs().amax(dim=2, keepdim=True) / (half - 1)).clamp(min=1e-30)",
    ),
    "the step is rounded to the nearest": ("step * (1 + 2**-7)", "step * 1"),
    "the step is much too long": ("step * (1 + 2**-7)", "step * (1 + 2**-4)"),
    "equal weights have no step": ("step = step.clamp(min=2.0**-100)", "step = step"),
    "one step too many": (
        "_step(groups.abs().amax(dim=2), half - 1)",
        "_step(groups.abs().amax(dim=2), half)",
    ),
    "the largest, not the largest size": (
        "_step(groups.abs().amax(dim=2), half - 1)",
        "_step(groups.amax(dim=2), half - 1)",
    ),
    "a step too few from the lowest": ("lows.float(), 2 * half - 1)", "lows.float(), 2 * half)"),
    "the lowest is rounded up": ("lows - lows.abs() * 2**-7", "lows + lows.abs() * 2**-7"),
    "codes are cut off": ("codes.round().to(torch.int8)", "codes.to(torch.int8)"),
    "codes are not centred": ("scales.float()[..., None] - half", "scales.float()[..., None]"),
    "restored without the lowest": ("steps * scales + self.lows.float()[..., None]", "steps * scales"),
    "restored without the half": ("steps = groups + 2 ** (self.bits - 1)", "steps = groups"),
    "groups are ignored": (
        "unflatten(1, (-1, group or weight.shape[1]))",
        "unflatten(1, (-1, weight.shape[1]))",
    ),
    "lows are not counted": ("self.scales.numel() * (1 if self.lows is None else 2)", "self.scales.numel()"),
    "halves of a byte swapped": (
        "shifted[:, ::2] | shifted[:, 1::2] << 4",
        "shifted[:, 1::2] | shifted[:, ::2] << 4",
    ),
    "negative codes are lost": ("codes + 8).to(torch.uint8)", "codes.clamp(min=0) + 8).to(torch.uint8)"),
    "4 bits take a byte each": ("matrix.bits == 4 and matrix.codes.shape[1] % 2 == 0", "False"),
    "the result keeps its own type": (
        "F.linear(x, self.weight().to(x.dtype))",
        "F.linear(x.float(), self.weight())",
    ),
    "the scales of the kernel are doubled": (
        "matrix.scales[:, 0].contiguous()",
        "(2 * matrix.scales[:, 0]).contiguous()",
    ),
    "the lowest is forgotten by the kernel": (
        "zeros = (matrix.lows.float() + 8 * matrix.scales.float()).bfloat16()",
        "zeros = matrix.lows",
    ),
    "codes of the kernel are not shifted": (
        "codes = matrix.codes.int() + 8",
        "codes = matrix.codes.int() & 15",
    ),
    "scales of the kernel by row": (
        "pairs.transpose(0, 1).contiguous()",
        "pairs.reshape(-1, len(codes), 2).contiguous()",
    ),
    "a kernel for any number of rows": ("and N % 16 == 0", ""),
    "a kernel for groups of any size": ("group in (32, 64, 128, 256)", "group"),
    "the slowest is chosen": ("min(times, key=times.__getitem__)", "max(times, key=times.__getitem__)"),
    "times are measured each time": ("@functools.cache\n", ""),
    "the bias is lost": ("return y if self.bias is None else y + self.bias", "return y"),
    "any product is taken": ("if product not in usable:", "if product not in PRODUCTS:"),
    "the original is changed": ("model = copy.deepcopy(model).eval()", "model = model.eval()"),
    "the copy can be trained": (".eval().requires_grad_(False)\n    found", ".eval()\n    found"),
    "the table is taken for the head": ("model.embedding if model.head is None else model.head", "model.embedding"),
    "other bits of the head are ignored": ("if head_bits is None:", "if True:"),
    "a model without linear layers is taken": ("if not found:", "if False:"),
    "buffers are not counted": ("(*model.parameters(), *model.buffers())", "(*model.parameters(),)"),
    "the cache keeps no new values": ("new = torch.stack([k, v])", "new = torch.stack([k, k])"),
    "the cache has one step for all": (
        "new.abs().amax(dim=-1, keepdim=True), 127)",
        "new.abs().amax().expand(*new.shape[:-1], 1), 127)",
    ),
    "the cache writes at the start": (
        "self.codes[:, :, :, start:end] = (new",
        "self.codes[:, :, :, : end - start] = (new",
    ),
    "old steps are kept": ("        self.scales[:, :, :, start:end] = steps\n", ""),
    "every layer moves the length": ("if self.is_last:", "if True:"),
    "steps are not reordered": ("for kept in (layer.codes, layer.scales):", "for kept in (layer.codes,):"),
    "more than there is can be kept": ("if not 0 <= length <= self.length:", "if length < 0:"),
    "the cache takes any type": (" or k.dtype != self.dtype:", ":"),
    "infinite weights are taken": ("if not torch.isfinite(weight).all():", "if weight.isnan().any():"),
    "any group is taken": ("or group < 1 or K % group", "or K % group"),
}  # fmt: skip


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_modules(tmp_path):
    assert survives("22", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("22", tmp_path, *FAULTS[fault])
