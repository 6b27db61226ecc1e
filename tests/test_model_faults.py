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
    "the sum of the losses": ("total / n_targets", "total"),
    "no residual around attention": ("x = x + self.attention(self.norm1(x)", "x = self.attention(self.norm1(x)"),
    "no residual around the ffn": ("return x + self.ffn(self.norm2(x))", "return self.ffn(self.norm2(x))"),
    "the wrong norm before the ffn": ("x + self.ffn(self.norm2(x))", "x + self.ffn(self.norm1(x))"),
    "no norm before attention": ("self.attention(self.norm1(x), mask", "self.attention(x, mask"),
    "post-norm instead of pre-norm": ('c.norm_position == "pre"', 'c.norm_position == "post"'),
    "always pre-norm": ('c.norm_position == "pre"', "True"),
    "no norm after the ffn": ("return self.norm2(x + self.ffn(x))", "return x + self.ffn(x)"),
    "no final norm": ("x = self.norm(x)", "x = x"),
    "a final norm after post-norm": ('NORMS[config.norm](config) if config.norm_position == "pre" else nn.Identity()',
                                     "NORMS[config.norm](config)"),
    "the first position instead of the last": ("x = x[:, -1:]", "x = x[:, :1]"),
    "all positions instead of the last": ("x = x[:, -1:]", "x = x"),
    "scaled by one branch per layer": ("n_branches = 2 * self.config.n_layer", "n_branches = self.config.n_layer"),
    "all matrices scaled": ("n_branches if is_last else 1", "n_branches"),
    "no matrix scaled": ("n_branches if is_last else 1", "1"),
    "only attention's projection scaled": ('("attention.proj.weight", "ffn.down.weight")', '"attention.proj.weight"'),
    "divided by n_branches": ("math.sqrt(n_branches if is_last else 1)", "(n_branches if is_last else 1)"),
    "biases start at 1": ('0.0 if name.endswith("bias") else 1.0', "1.0"),
    "drawn with 0.02 always": ("self.config.init_std / math", "0.02 / math"),
    "a tied head has its own table": ("if not config.tie_weights", "if True"),
    "always tied": ("if self.head is None else self.head(x)", "if True else self.head(x)"),
    "no cache for later layers": ("None if cache is None else cache[i]", "None if cache is None else cache[0]"),
    "the cache is lost": ("None if cache is None else cache[i]", "None"),
    "positions restart": ("torch.arange(start, end,", "torch.arange(0, end - start,"),
    "positions ignored": ("if positions is None:", "if True:"),
    "positions count from 1": ("torch.arange(start, end,", "torch.arange(start + 1, end + 1,"),
    "the sinusoids drown the tokens": ("x = x * math.sqrt(self.config.n_embd)", "x = x"),
    "rotated tokens get a position too": ("return self.dropout(x), self", "return self.dropout(x + 0.02), self"),
    "no dropout at the bottom": ("self.dropout(x + self.position(positions).to(x.dtype))",
                                 "x + self.position(positions).to(x.dtype)"),
    "dropout is lost in attention": ("bias=c.bias, dropout=c.dropout, fused=c.fused, head_dim",
                                     "bias=c.bias, fused=c.fused, head_dim"),
    "head_size is lost in attention": ("fused=c.fused, head_dim=c.head_size", "fused=c.fused"),
    "the mask is lost": ("x = block(x, mask, rotary", "x = block(x, None, rotary"),
    "the rotation is lost": ("x = block(x, mask, rotary", "x = block(x, mask, None"),
    "still in training": ("return model.eval()", "return model"),
    "rope_base is lost": ("c.max_seq_len, c.rope_base, c.rope_scaling", "c.max_seq_len, 10000.0, c.rope_scaling"),
    "the scaling is lost": ("c.rope_base, c.rope_scaling)", "c.rope_base)"),
    "norm_eps is lost": ("RMSNorm(c.n_embd, c.norm_eps, fused", "RMSNorm(c.n_embd, fused"),
    "ffn_hidden is lost": ("SwiGLUFFN(c.n_embd, c.ffn_hidden, bias", "SwiGLUFFN(c.n_embd, bias"),
    "always GELU": ("GPTFFN(c.n_embd, c.ffn_hidden, c.ffn, bias", 'GPTFFN(c.n_embd, c.ffn_hidden, "gelu", bias'),
    "key-value heads are lost": ("c.n_embd, c.n_head, c.n_kv_head, bias", "c.n_embd, c.n_head, None, bias"),
    "every key head is shared by all": ('"n_kv_head": config.n_head // 2', '"n_kv_head": 1'),
    "any word for a boolean": ("if type(getattr(c, name)) is not bool", "if False"),
    "infinite numbers": ("bound < number < math.inf", "bound < number"),
    "one problem at a time": ("[*_wrong_values(c), *_conflicts(c)]", "[*_wrong_values(c)] or [*_conflicts(c)][:1]"),
    "the config is not written": ("for name, part in parts.items():", "for name, part in list(parts.items())[:1]:"),
    "a full disk leaves half a file": ("            part.unlink(missing_ok=True)\n", "            pass\n"),
    "a full disk is not explained": ("except (OSError, SafetensorError) as", "except SafetensorError as"),
}  # fmt: skip


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("09", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("09", tmp_path, *FAULTS[fault])
