"""Chapter 11: its checks accept the generation and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "negative logits are divided": (
        "seen * repetition_penalty, seen / repetition_penalty",
        "seen / repetition_penalty, seen / repetition_penalty",
    ),
    "the token that crosses p is dropped": (
        "cumsum(dim=-1) <= 1 - top_p",
        "cumsum(dim=-1) < 1 - top_p + ordered.softmax(dim=-1)",
    ),
    "no token may be left": ("        out[:, -1] = False\n", ""),
    "the order is not restored": ("out.scatter(1, ids, out)", "out"),
    "min-p relative to the sum": ("min_p * probabilities.amax", "min_p * probabilities.sum"),
    "ties with the k-th are dropped": ("scores < kth", "scores <= kth"),
    "the temperature is ignored": ("scores = scores / temperature", "scores = scores"),
    "one generator for all rows": (
        "torch.multinomial(row, 1, generator=g)",
        "torch.multinomial(row, 1, generator=generator[0])",
    ),
    "every layer advances the length": ("if self.is_last:", "if True:"),
    "keys are written at the start": (
        "self.k[:, :, start:end] = k.detach()",
        "self.k[:, :, : end - start] = k.detach()",
    ),
    "values are not written": ("        self.v[:, :, start:end] = v.detach()\n", ""),
    "only the new keys": ("return self.k[:, :, :end]", "return self.k[:, :, start:end]"),
    "values are not reordered": ("for kept in (layer.k, layer.v):", "for kept in (layer.k,):"),
    "the padding is seen": ("mask = (places >= padding)[:, None, None]", "mask = None"),
    "padding moves positions": (
        "positions = (places - padding)",
        "positions = (places + 0 * padding)",
    ),
    "the cache is kept when sliding": (
        "                    cache.reset()\n",
        "                    cache.truncate(0) if False else None\n",
    ),
    "the whole window is kept": ("max(1, limit // 2)", "limit"),
    "dropout stays on": ("    model.eval()\n", ""),
    "training is not restored": ("model.train(training)", "model.train(False)"),
    "beams are not exchanged": (
        "                store.reorder(rows[going])\n",
        "                pass\n",
    ),
    "scores are not divided by the length": (
        "best[i].item() / n**length_penalty",
        "best[i].item()",
    ),
    "the score so far is forgotten": ("totals = scores + logits", "totals = 0 * scores + logits"),
    "all beams count at first": ("scores[0] = 0.0", "scores[:] = 0.0"),
    "finished beams go on": ("going = (~ended)", "going = (ended | ~ended)"),
    "the filter of a different strategy": (
        "filters[name] = getattr(self, name)",
        "filters['top_k'] = self.top_k",
    ),
    "half a character is shown": ('text = text.rstrip("\\ufffd")', "text = text"),
    "the beginning of a stop is shown": (
        "return self._release(text[:-size])",
        "return self._release(text)",
    ),
    "the first stop of the list wins": ("text[: min(found)]", "text[: found[0]]"),
    "the end is lost": ("            reader.finish()\n", "            pass\n"),
    "the prompt is always included": ("        if include_prompt:", "        if True:"),
    "one seed for all prompts": (
        "range(config.seed, config.seed + len(prompts))",
        "[config.seed] * len(prompts)",
    ),
    "a prompt that is too long is noticed too late": (
        "longest + config.max_new_tokens <= limit",
        "longest <= limit",
    ),
}


def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("11", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("11", tmp_path, *FAULTS[fault])
