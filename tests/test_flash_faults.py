"""Chapter 17: its checks notice every fault of this table in the tiles, and in heads that share their keys."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    # tiles
    "earlier tiles are not shrunk": (
        "total = shrink * total + weights",
        "total = total + weights",
    ),
    "the mix is not shrunk": ("mix = shrink * mix + weights", "mix = mix + weights"),
    "the largest score of the tile alone": (
        "new_top = torch.maximum(top, scores.amax(dim=-1, keepdim=True))",
        "new_top = scores.amax(dim=-1, keepdim=True)",
    ),
    "no score is subtracted": (
        "new_top = torch.maximum(top, scores.amax(dim=-1, keepdim=True))",
        "new_top = 0 * scores.amax(dim=-1, keepdim=True).nan_to_num(neginf=0.0)",
    ),
    "the mix is not divided": ("= mix / total\n", "= mix\n"),
    "the total is not remembered": ("= top + total.log()", "= top"),
    "the largest score is not remembered": ("= top + total.log()", "= total.log()"),
    "scores are not divided": ("q.to(dtype) / math.sqrt(q.shape[-1])", "q.to(dtype)"),
    "scores are divided by D": (
        "q.to(dtype) / math.sqrt(q.shape[-1])",
        "q.to(dtype) / q.shape[-1]",
    ),
    "the average slope is not subtracted": (".mT - mean[..., rows, :]", ".mT"),
    "the average of all rows": (
        "mean = (slope * y).sum(dim=-1, keepdim=True)",
        "mean = (slope * y).sum(dim=-1, keepdim=True).mean() + 0 * log_total",
    ),
    "values get slopes of one tile": (
        "dv[..., columns, :] += weights.mT",
        "dv[..., columns, :] = weights.mT",
    ),
    "keys get slopes of one tile": (
        "dk[..., columns, :] += d_scores",
        "dk[..., columns, :] = d_scores",
    ),
    "queries get slopes of one tile": (
        "dq[..., rows, :] += d_scores",
        "dq[..., rows, :] = d_scores",
    ),
    "keys and queries get no slope": ("return dq, dk, dv,", "return 0 * dq, 0 * dk, dv,"),
    "a token sees the next one": ("past = keys <= queries", "past = keys <= queries + 1"),
    "a token does not see itself": ("past = keys <= queries", "past = keys < queries"),
    "the window is one token longer": (
        "queries - keys < window)",
        "queries - keys <= window)",
    ),
    "sinks of the future are seen": (
        "past & ((queries - keys < window) | (keys < sinks))",
        "(past & (queries - keys < window)) | (keys < sinks)",
    ),
    "a sink too many": ("| (keys < sinks))", "| (keys <= sinks))"),
    "queries are the first tokens": (
        "queries = places[k.shape[-2] - q.shape[-2] :][rows, None]",
        "queries = places[rows, None]",
    ),
    "the mask's queries are the first tokens": (
        "keys[n_keys - n_queries :, None]",
        "keys[:n_queries, None]",
    ),
    "a tile of the window is skipped": (
        "oldest = 0 if window is None else start + shift - window + 1",
        "oldest = 0 if window is None else stop + shift - window",
    ),
    "tiles outside the window are computed": (
        "if left + size > oldest or left < sinks",
        "if True",
    ),
    "a tile too many": ("if left + size > oldest", "if left + size >= oldest"),
    "the tiles of sinks are skipped": (
        "if left + size > oldest or left < sinks",
        "if left + size > oldest",
    ),
    "a tile of nothing but future": ("n_seen = stop + shift", "n_seen = Tk"),
    "bfloat16 is summed in bfloat16": (
        "dtype = torch.promote_types(q.dtype, torch.float32)",
        "dtype = q.dtype",
    ),
    "the result is float32": (
        "block_size, window, sinks).to(q.dtype)",
        "block_size, window, sinks)",
    ),
    "float64 is summed in float32": (
        "dtype = torch.promote_types(q.dtype, torch.float32)",
        "dtype = torch.float32",
    ),
    "the weights are kept": (
        "ctx.save_for_backward(q, k, v, y, log_total)",
        "ctx.save_for_backward(q, k, v, y, log_total); ctx.table = q @ k.mT",
    ),
    "values must be as wide as keys": ("*q.shape[:-1], v.shape[-1])", "*q.shape)"),
    "more queries than keys": ("if n_queries > n_keys:", "if False:"),
    "a window of 0": (
        "if window is not None and window < 1:",
        "if window is not None and window < 0:",
    ),
    "negative sinks": ("if sinks < 0:", "if False:"),
    "a block of 0": ("if block_size < 1:", "if block_size < 0:"),
    # heads that share their keys
    "key heads take turns": (
        "rows = q.view(len(q), G, H // G, self.head_dim)",
        "rows = q.view(len(q), H // G, G, self.head_dim).transpose(1, 2)",
    ),
    "key heads take turns in a window": (
        "q = q.unflatten(1, (G, H // G))",
        "q = q.unflatten(1, (H // G, G)).transpose(1, 2)",
    ),
    "keys are copied while writing": (
        "y = F.scaled_dot_product_attention(rows, k, v, seen, dropout_p)",
        "y = F.scaled_dot_product_attention("
        "q, *(x.repeat_interleave(H // G, dim=1) for x in (k, v)), seen, dropout_p)",
    ),
    "a mask by head is read as one": ("or seen.shape[-3] == 1)", "or True)"),
    "a mask replaces causality": (
        "seen = past if mask is None else mask & past",
        "seen = past if mask is None else mask",
    ),
    "a new token sees the whole cache of a window": (
        "if window or mask is not None or T not in (1, Tk):",
        "if (window and T > 1) or mask is not None or T not in (1, Tk):",
    ),
    "new tokens see the oldest of a cache": ("or T not in (1, Tk):", "or False:"),
    "the window is forgotten under a mask": (
        "past = window_mask(T, Tk, window, self.sinks, q.device)",
        "past = window_mask(T, Tk, device=q.device)",
    ),
    "the sinks are forgotten in tiles": ("window=window, sinks=self.sinks)", "window=window)"),
    "the sinks are forgotten under a mask": (
        "window_mask(T, Tk, window, self.sinks, q.device)",
        "window_mask(T, Tk, window, 0, q.device)",
    ),
    "dropout stays on": (
        "dropout_p = self.dropout if self.training else 0.0",
        "dropout_p = self.dropout",
    ),
    "weights get no dropout": (
        "dropout_p = self.dropout if self.training else 0.0",
        "dropout_p = 0.0",
    ),
    "the output gets no dropout": (
        "return F.dropout(y, self.dropout, self.training)\n\n    def weights",
        "return y\n\n    def weights",
    ),
    "values are rotated": (
        "qk, v = heads.split([H + G, G], dim=1)",
        "heads = heads if rotary is None else rotary(heads); qk, v = heads.split([H + G, G], dim=1)",
    ),
    "nothing is rotated": ("(qk if rotary is None else rotary(qk))", "qk"),
    "the cache gets nothing": ("k, v = cache.update(k, v)", "cache.update(k, v)"),
    "shown weights ignore the window": (
        "window_mask(q.shape[2], k.shape[2], self.window, self.sinks, q.device)",
        "window_mask(q.shape[2], k.shape[2], None, 0, q.device)",
    ),
    "shown weights take key heads in turns": (
        "k = k.repeat_interleave(self.n_head // self.n_kv_head, dim=1)",
        "k = k.repeat(1, self.n_head // self.n_kv_head, 1, 1)",
    ),
    "shown weights ignore the mask": (
        "seen if mask is None else mask & seen)\n\n    def _heads",
        "seen)\n\n    def _heads",
    ),
    "the head width is not passed on": ("dropout=dropout, head_dim=head_dim)", "dropout=dropout)"),
    "the shared heads are not passed on": ("n_head, n_kv_head, bias=bias", "n_head, bias=bias"),
    "the bias is not passed on": ("bias=bias, dropout=dropout", "dropout=dropout"),
    "dropout is not passed on": ("bias=bias, dropout=dropout", "bias=bias"),
    "a window is not checked": (
        "head_dim=head_dim)\n        window_mask(1, window=window, sinks=sinks)",
        "head_dim=head_dim)",
    ),
    # caches
    "a cache of all heads": (
        "n_kv_head = config.n_kv_head or config.n_head",
        "n_kv_head = config.n_head",
    ),
    "keys without values": ("numbers = 2 * config.n_layer", "numbers = config.n_layer"),
    "always four bytes": ("numbers * dtype.itemsize", "numbers * 4"),
    "the builder forgets the window": (
        "window=window, sinks=sinks,\n        )",
        "sinks=sinks,\n        )",
    ),
    "the builder forgets the sinks": (
        "window=window, sinks=sinks,\n        )",
        "window=window,\n        )",
    ),
    "the builder forgets the shared heads": (
        "c.n_embd, c.n_head, c.n_kv_head, head_dim",
        "c.n_embd, c.n_head, head_dim",
    ),
    "the builder forgets the width": ("head_dim=c.head_dim, bias", "bias"),
    "the builder forgets the bias": ("bias=c.bias, dropout", "dropout"),
    "the builder forgets dropout": ("dropout=c.dropout,\n            window", "window"),
    "the rolling cache keeps one too few": (
        "sinks, recent = self.owner.sinks, self.owner.window - 1",
        "sinks, recent = self.owner.sinks, max(0, self.owner.window - 2)",
    ),
    "the rolling cache keeps one too many": (
        "sinks, recent = self.owner.sinks, self.owner.window - 1",
        "sinks, recent = self.owner.sinks, self.owner.window",
    ),
    "the rolling cache forgets sinks": (
        "torch.cat([x[:, :, :sinks], x[:, :, x.shape[2] - recent :]], dim=2)",
        "x[:, :, x.shape[2] - recent - sinks :]",
    ),
    "the new tokens are cut before they are read": (
        "        return k, v\n\n    def _kept",
        "        return self.k, self.v\n\n    def _kept",
    ),
    "every layer advances the length": ("if self.is_last:", "if True:"),
    "the length counts steps": ("self.owner.length += n_new", "self.owner.length += 1"),
    "the length counts what is kept": (
        "n_new = k.shape[2]\n        if self.k",
        "n_new = k.shape[2] + (0 if self.k is None else self.k.shape[2])\n        if self.k",
    ),
    "values follow the keys": (
        "self.v = self._kept(v.detach())",
        "self.v = self._kept(k.detach())",
    ),
    "gradients flow through the cache": (
        "self.k = self._kept(k.detach())",
        "self.k = self._kept(k)",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_the_modules(folder):
    assert survives("17", folder)


@pytest.mark.parametrize(("before", "after"), FAULTS.values(), ids=FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(folder, before, after):
    assert not survives("17", folder, before, after)
