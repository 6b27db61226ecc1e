"""Chapter 11: its checks accept the generation and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "negative logits are divided": (
        "seen * penalty, seen / penalty",
        "seen / penalty, seen / penalty",
    ),
    "the token that crosses p is dropped": (
        "cumsum(dim=-1) <= 1 - top_p",
        "cumsum(dim=-1) < 1 - top_p + ordered.softmax(dim=-1)",
    ),
    "no token may be left": ("    dropped[:, -1] = False\n", ""),
    "the order is not restored": ("dropped.scatter(1, ids, dropped)", "dropped"),
    "min-p relative to the sum": ("min_p * probabilities.amax", "min_p * probabilities.sum"),
    "ties with the k-th are dropped": ("scores < kth", "scores <= kth"),
    "the temperature is ignored": ("scores = scores / _bounded(temperature)", "scores = scores"),
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
        "                    pass\n",
    ),
    "the whole window is kept": ("max(1, limit // 2)", "limit"),
    "dropout stays on": (
        "    with evaluating(model):\n        for end",
        "    if True:\n        for end",
    ),
    "dropout stays on in a search": (
        "    with evaluating(model):\n        for n",
        "    if True:\n        for n",
    ),
    "training is not restored": (
        "    with evaluating(model):\n        for end",
        "    model.eval()\n    if True:\n        for end",
    ),
    "beams are not exchanged": (
        "                memory.reorder(rows[going])\n",
        "                pass\n",
    ),
    "scores are not divided by the length": (
        "best[i].item() / n**length_penalty",
        "best[i].item()",
    ),
    "the score so far is forgotten": (
        "totals = scores + log_probs",
        "totals = 0 * scores + log_probs",
    ),
    "all beams count at first": ("scores[0] = 0.0", "scores[:] = 0.0"),
    "finished beams go on": ("going = (~ended)", "going = (ended | ~ended)"),
    "the filter of a different strategy": (
        'top_k=self.top_k if self.strategy == "top_k" else None',
        "top_k=self.top_k",
    ),
    "half a character is shown": ('text = text.rstrip("\\ufffd")', "text = text"),
    "the beginning of a stop is shown": (
        "return self._release(text[:-size])",
        "return self._release(text)",
    ),
    "the first stop of the list wins": ("text[: min(found)]", "text[: found[0]]"),
    "the end is lost": ("            reader.finish()\n", "            pass\n"),
    "the prompt is always included": ("        if not include_prompt:", "        if False:"),
    "one seed for all prompts": (
        "range(config.seed, config.seed + len(prompts))",
        "[config.seed] * len(prompts)",
    ),
    "a prompt that is too long is noticed too late": (
        "longest + config.max_new_tokens <= limit",
        "longest <= limit",
    ),
    "the temperature comes after top-p": (
        """scores = scores / _bounded(temperature)
    if top_k is not None:
        scores = _keep_top_k(scores, top_k)
    if top_p is not None:
        scores = _keep_top_p(scores, top_p)
""",
        """if top_k is not None:
        scores = _keep_top_k(scores, top_k)
    if top_p is not None:
        scores = _keep_top_p(scores, top_p)
    scores = scores / _bounded(temperature)
""",
    ),
    "the penalty of one id several times": (
        "return scores.scatter(1, previous, seen)",
        "return scores.scatter_add(1, previous, seen - scores.gather(1, previous))",
    ),
    "a tiny temperature overflows": (
        "if min(temperature, repetition_penalty) < 1e-6:",
        "if False:",
    ),
    "a tiny penalty overflows": ("_bounded(repetition_penalty)", "repetition_penalty"),
    "a huge temperature makes ruled out ids nan": (
        "scores / _bounded(temperature)",
        "scores / temperature",
    ),
    "padding rows of the model are drawn": (
        "return [*gaps, *range(len(known), vocab_size)]",
        "return gaps",
    ),
    "ids in a gap are drawn": (
        "gaps = [i for i in known if not _decodes(tokenizer, [i])]",
        "gaps = []",
    ),
    "only drawing rules ids out": ("suppress_ids=banned", "suppress_ids=()"),
    "only the search rules ids out": (
        "_rule_out(logits, suppressed), previous",
        "logits, previous",
    ),
    "the search rules out after the softmax": (
        "_rule_out(logits, suppressed).float().log_softmax(dim=-1)",
        "_rule_out(logits.float().log_softmax(dim=-1), suppressed)",
    ),
    "a stop without a token cannot be written": (
        "[i for i in without_token if i not in config.stop]",
        "[i for i in without_token]",
    ),
    "positions start again with each step": (
        "positions = None\n",
        "positions = torch.arange(new.shape[1])\n",
    ),
    "the cache is not handed on": (
        "positions=positions, mask=mask, cache=cache, last_only=True",
        "positions=positions, mask=mask, cache=None, last_only=True",
    ),
    "padding on the right": (
        "prompt[:1] * (longest - len(prompt)) + prompt",
        "prompt + prompt[:1] * (longest - len(prompt))",
    ),
    "the stop id is part of the text": (
        "            return self.finish()\n\n        self.ids.append(token)\n",
        "            self.ids.append(token)\n            return self.finish()\n\n        self.ids.append(token)\n",
    ),
    "a stop is looked for in the new token only": (
        "found = [text.find(stop) for stop in self.stop_texts if stop in text]",
        "found = [text.find(stop) for stop in self.stop_texts if stop in self.decode([token])]",
    ),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("11", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("11", tmp_path, *FAULTS[fault])
