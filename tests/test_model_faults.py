"""Chapter 09: its checks accept the model and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "shifted twice": ("logits.float().flatten(0, 1), targets.flatten()",
                      "logits[:, :-1].float().flatten(0, 1), targets[:, 1:].flatten()"),
    "-100 counts in the mean": ("(targets != -100).sum().clamp(min=1)", "targets.numel()"),
    "nan when nothing counts": (".sum().clamp(min=1)", ".sum()"),
    "the loss in half precision": ("logits.float().flatten", "logits.flatten"),
    "no residual around attention": ("x = x + self.attention(self.norm1(x)", "x = self.attention(self.norm1(x)"),
    "no residual around the ffn": ("return x + self.ffn(self.norm2(x))", "return self.ffn(self.norm2(x))"),
    "the wrong norm before the ffn": ("x + self.ffn(self.norm2(x))", "x + self.ffn(self.norm1(x))"),
    "no final norm": ("x = self.norm(x[:, -1:] if last_only else x)", "x = x[:, -1:] if last_only else x"),
    "the first position instead of the last": ("x[:, -1:] if", "x[:, :1] if"),
    "scaled by one branch per layer": ("2 * self.config.n_layer if last", "self.config.n_layer if last"),
    "all matrices scaled": ("2 * self.config.n_layer if last else 1", "2 * self.config.n_layer"),
    "a tied head has its own table": ("if not config.tie_weights", "if True"),
    "no cache for later layers": ("None if cache is None else cache[i]", "None if cache is None else cache[0]"),
    "positions restart": ("torch.arange(start, end,", "torch.arange(0, end - start,"),
    "positions ignored": ("if positions is None:", "if True:"),
    "the sinusoids drown the tokens": ("x = x * math.sqrt(self.config.n_embd)", "x = x"),
    "rotated tokens get a position too": ("return self.dropout(x), self", "return self.dropout(x + 0.02), self"),
    "the mask is lost": ("x = block(x, mask, rotary", "x = block(x, None, rotary"),
    "still in training": ("return model.eval()", "return model"),
    "rope_base is lost": ("c.max_seq_len, c.rope_base, c.rope_scaling", "c.max_seq_len, 10000.0, c.rope_scaling"),
    "the scaling is lost": ("c.rope_base, c.rope_scaling)", "c.rope_base)"),
    "key-value heads are lost": ("c.n_embd, c.n_head, c.n_kv_head, bias", "c.n_embd, c.n_head, None, bias"),
}  # fmt: skip


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("09", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("09", tmp_path, *FAULTS[fault])
