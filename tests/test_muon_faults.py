"""Chapter 20: its checks accept Muon and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "the coefficients of the cubic": ("3.4445, -4.7750, 2.0315", "1.5, -0.5, 0.0"),
    "a wrong digit": ("-4.7750", "-4.7150"),
    "tall matrices are not turned": ("tall = x.shape[1] > x.shape[2]", "tall = x.shape[1] < 0"),
    "tall matrices are not turned back": (
        "    if tall:\n        x = x.mT\n    return",
        "    return",
    ),
    "divided by the largest entry": (
        "x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)",
        "x.abs().amax(dim=(1, 2), keepdim=True).clamp(min=eps)",
    ),
    "one norm for all matrices": ("x.norm(dim=(1, 2), keepdim=True)", "x.norm()"),
    "eps is added": (".clamp(min=eps)", ".add(eps)"),
    "a norm of 0 is not guarded": (".clamp(min=eps)", ""),
    "b and c are swapped": ("beta=b, alpha=c", "beta=c, alpha=b"),
    "a step too many": ("for _ in range(steps):", "for _ in range(steps + 1):"),
    "the gram matrix of the first step": (
        "    for _ in range(steps):\n        gram = x @ x.mT\n",
        "    gram = x @ x.mT\n    for _ in range(steps):\n",
    ),
    "the dtype of the input is lost": (
        "reshape(matrix.shape).to(matrix.dtype)",
        "reshape(matrix.shape)",
    ),
    "the dtype asked for is ignored": ("matrix.to(dtype)", "matrix.to(torch.bfloat16)"),
    "the input is changed": ("    x = x / x.norm", "    x /= x.norm"),
    "whole numbers are accepted": ("or not matrix.is_floating_point()", ""),
    "negative steps are accepted": ("    if steps < 0:\n", "    if steps < -9:\n"),
    "the mean begins with the gradient": (
        'state["momentum_buffer"] = torch.zeros_like(weight)',
        'state["momentum_buffer"] = weight.grad.clone()',
    ),
    "the mean forgets at once": (
        'grad, 1 - group["momentum"]',
        'weight.grad, group["momentum"]',
    ),
    "always Nesterov": (' if group["nesterov"] else mean)', ")"),
    "never Nesterov": (
        'grad.lerp(mean, group["momentum"]) if group["nesterov"] else mean',
        "mean",
    ),
    "the look ahead is all gradient": (
        'grad.lerp(mean, group["momentum"])',
        'grad.lerp(mean, 1 - group["momentum"])',
    ),
    "the momentum is applied twice": (
        "updates.append(grad.lerp(mean",
        "updates.append(mean.lerp(mean",
    ),
    "wide ones are scaled": ("max(1.0, rows / columns)", "max(1.0, columns / rows)"),
    "nothing is scaled": ("scale = math.sqrt(max(1.0, rows / columns))", "scale = 1.0"),
    "the scale is squared": ("math.sqrt(max(1.0, rows / columns))", "max(1.0, rows / columns)"),
    "Moonshot's scale has the wrong side": (
        "0.2 * math.sqrt(max(rows, columns))",
        "0.2 * math.sqrt(min(rows, columns))",
    ),
    "Moonshot's scale is ignored": ('if group["adjust_lr"] == "match_rms_adamw":', "if False:"),
    "the decay grows": (
        '1 - group["lr"] * group["weight_decay"]',
        '1 + group["lr"] * group["weight_decay"]',
    ),
    "the decay is not scaled by the rate": (
        'group["lr"] * group["weight_decay"]',
        'group["weight_decay"]',
    ),
    "the sign": ("weight.sub_(move", "weight.add_(move"),
    "weights of a shape share a move": (
        "zip(weights, moves)",
        "zip(weights, moves[:1].expand_as(moves))",
    ),
    "weights without a gradient move": ("if weight.grad is not None:\n", "if True:\n"),
    "the closure has no gradient": (
        "            with torch.enable_grad():\n                loss = closure()\n\n        for group",
        "            loss = closure()\n\n        for group",
    ),
    "parts are ignored": ('rows //= group["parts"]', "pass"),
    "vectors are accepted": ("if weight.ndim != 2:", "if weight.ndim == 0:"),
    "a refused group stays": (
        '                self.param_groups.pop()\n                raise ValueError(\n                    f"Muon',
        '                raise ValueError(\n                    f"Muon',
    ),
    "the table is Muon's": ("model.blocks.parameters() if", "model.parameters() if"),
    "frozen weights are trained": ("if weight.requires_grad]", "if True]"),
    "vectors of the blocks are nobody's": (
        "others = [weight for weight in weights if id(weight) not in inside]",
        "others = [weight for weight in weights if weight.ndim == 2 and id(weight) not in inside]",
    ),
    "only the first one steps": ("        self.second.step()\n", ""),
    "the second one's state is lost": (
        '        self.second.load_state_dict(state_dict["second"])\n',
        "",
    ),
    "after loading a schedule moves nothing": (
        "        self.param_groups = [*self.first.param_groups, *self.second.param_groups]\n",
        "",
    ),
    "the pair copies its groups": (
        "[*first.param_groups, *second.param_groups], {})",
        "[dict(g) for g in [*first.param_groups, *second.param_groups]], {})",
    ),
    "the others decay": (
        "betas, weight_decay=0.0, fused",
        "betas, weight_decay=weight_decay, fused",
    ),
    "AdamW has Muon's rate": ("AdamW(others, adamw_lr", "AdamW(others, lr"),
    "queries, keys and values are one": ("parts = 3 if", "parts = 1 if"),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_modules(tmp_path):
    assert survives("20", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("20", tmp_path, *FAULTS[fault])
