"""Chapter 17: its checks notice every fault of this table in a mixture of experts."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "shares do not add up to 1": ("    if normalize:\n", "    if False:\n"),
    "shares always add up to 1": ("    if normalize:\n", "    if True:\n"),
    "a softmax of the chosen scores' probabilities": (
        "shares = shares / shares.sum(dim=-1, keepdim=True)",
        "shares = shares.softmax(dim=-1)",
    ),
    "shares in bfloat16": (
        "logits.float().softmax(dim=-1).topk(top_k)",
        "logits.softmax(dim=-1).topk(top_k)",
    ),
    "the worst experts": (
        ".topk(top_k)\n    if normalize",
        ".topk(top_k, largest=False)\n    if normalize",
    ),
    "balance counts the first choice only": (
        "chosen = probabilities.topk(top_k).indices.flatten()",
        "chosen = probabilities.topk(1).indices.flatten()",
    ),
    "balance without the number of experts": (
        "return n_expert * (used",
        "return (used",
    ),
    "balance counts tokens, not shares": ("/ len(chosen)", "/ len(logits)"),
    "balance sums probabilities": (
        "probabilities.mean(dim=0)).sum()",
        "probabilities.sum(dim=0)).sum()",
    ),
    "balance without a gradient": (
        "probabilities = logits.float().softmax(dim=-1)\n    chosen",
        "probabilities = logits.detach().float().softmax(dim=-1)\n    chosen",
    ),
    "the queue is not sorted": (
        "chosen.flatten().argsort(stable=True)",
        "torch.arange(chosen.numel())",
    ),
    "the queue serves the last first": (
        "chosen.flatten().argsort(stable=True)",
        "chosen.numel() - 1 - chosen.flatten().flip(0).argsort(stable=True)",
    ),
    "all first choices before the second": (
        "order = chosen.flatten().argsort(stable=True)",
        "order = (chosen.T.flatten().argsort(stable=True)); "
        "order = order % len(chosen) * self.top_k + order // len(chosen)",
    ),
    "choices are taken for tokens": (
        "owner = order // self.top_k",
        "owner = order.clamp(max=len(tokens) - 1)",
    ),
    "results stay in the queue's order": (
        "done.new_zeros(tokens.shape).index_add(0, owner, done)",
        "done.new_zeros(tokens.shape).index_add(0, owner.sort().values, done)",
    ),
    "one result replaces another": (
        "done.new_zeros(tokens.shape).index_add(0, owner, done)",
        "done.new_zeros(tokens.shape).index_copy(0, owner, done)",
    ),
    "shares in the wrong order": (
        "shares.flatten()[order, None]",
        "shares.flatten()[: len(order), None]",
    ),
    "no shares": ("done = done * shares.flatten()[order, None].to(done.dtype)", "done = done * 1"),
    "every token meets the same expert": (
        "self._expert(e, part) for e, part",
        "self._expert(0, part) for e, part",
    ),
    "gate and up exchanged": (
        "F.silu(F.linear(x, self.gate.weight[e])) * F.linear(x, self.up.weight[e])",
        "F.silu(F.linear(x, self.up.weight[e])) * F.linear(x, self.gate.weight[e])",
    ),
    "the result is float32": (
        "done * shares.flatten()[order, None].to(done.dtype)",
        "done * shares.flatten()[order, None]",
    ),
    "the default is as wide as a dense layer": (
        "swiglu_hidden(n_embd) // top_k if hidden is None",
        "swiglu_hidden(n_embd) if hidden is None",
    ),
    "capacity in evaluation, too": (
        "if self.capacity is None or not self.training:",
        "if self.capacity is None:",
    ),
    "no capacity": ("if self.capacity is None or not self.training:", "if True:"),
    "capacity rounded down": ("limit = math.ceil(", "limit = math.floor("),
    "capacity counts tokens": (
        "self.capacity * chosen.numel() / self.n_expert",
        "self.capacity * len(chosen) / self.n_expert / self.top_k",
    ),
    "one token too many": ("order[place < limit]", "order[place <= limit]"),
    "the last tokens of an expert": (
        "return order[place < limit]",
        "return order[place.flip(0) < limit]",
    ),
    "dropout stays on": (
        "F.dropout(y.view(x.shape), self.dropout, self.training)",
        "F.dropout(y.view(x.shape), self.dropout)",
    ),
    "no dropout": ("F.dropout(y.view(x.shape), self.dropout, self.training)", "y.view(x.shape)"),
    "normalize is ignored": (
        "route(self.router(tokens), self.top_k, self.normalize)",
        "route(self.router(tokens), self.top_k)",
    ),
    "the router's hooks stay": ("            hook.remove()", "            pass"),
    "what goes into the router is collected": ("seen.append(logits))", "seen.append(inputs[0]))"),
    "the builder forgets the experts": (
        "c.n_embd, c.ffn_hidden, n_expert, top_k, capacity",
        "c.n_embd, c.ffn_hidden, 8, top_k, capacity",
    ),
    "the builder forgets the width": (
        "c.n_embd, c.ffn_hidden, n_expert",
        "c.n_embd, None, n_expert",
    ),
    "the builder forgets the capacity": ("top_k, capacity=capacity,", "top_k, capacity=None,"),
    "the builder forgets dropout": ("capacity=capacity, dropout=c.dropout", "capacity=capacity"),
    "another name in the registry": ('FFNS["moe"] = mixture(8, 2)', 'FFNS["moe"] = mixture(8, 1)'),
    "more choices than experts": ("if not 1 <= top_k <= n_expert:", "if not 1 <= top_k:"),
    "no choice": ("if not 1 <= top_k <= n_expert:", "if not top_k <= n_expert:"),
    "a capacity of 0": ("not capacity > 0:", "capacity < 0:"),
    "a width of 0": ("if min(n_embd, hidden) < 1:", "if min(n_embd, hidden) < 0:"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.mark.parametrize(("before", "after"), FAULTS.values(), ids=FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(folder, before, after):
    assert not survives("17", folder, before, after)
