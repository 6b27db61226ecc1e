"""Chapter 21: its checks accept the module and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "a name among others is right": ("words[-1].removesuffix", "words[0].removesuffix"),
    "the full stop counts": ('words[-1].removesuffix(".")', "words[-1]"),
    "one sentence is a step": ("len(sentences) >= 2", "len(sentences) >= 1"),
    "padding is seen": (
        "(places >= padding[:, None])[:, None, None]\n    logits",
        "(places >= 0)[None, None, None]\n    logits",
    ),
    "padding counts as positions": (
        "positions = (places - padding[:, None]).clamp(min=0)",
        "positions = places.expand(len(prompts), -1)",
    ),
    "later tokens have the positions of padding": (
        "positions=(cache.length - padding)[:, None]",
        "positions=(cache.length + 0 * padding)[:, None]",
    ),
    "the cache keeps the rows that have ended": (
        "                _keep_rows(cache, kept)\n",
        "                _keep_rows(cache, torch.arange(len(kept), device=device))\n",
    ),
    "the cache keeps the prompts alone": ("        _keep_rows(cache, rows)\n", ""),
    "the draws of a row that has ended go to its neighbour": (
        "going, tokens, padding = going[kept], tokens[kept], padding[kept]",
        "going, tokens, padding = going[: len(kept)], tokens[kept], padding[kept]",
    ),
    "only the end of a turn ends an answer": (
        "stops = torch.tensor(sorted(chat.base.special_tokens.values()), device=device)",
        "stops = torch.tensor([chat.end], device=device)",
    ),
    "the mask forgets the end of the turn": (
        "mask[row, start : start + n] = True",
        "mask[row, start : start + n - 1] = True",
    ),
    "the mask has the prompt": (
        "mask[row, start : start + n] = True",
        "mask[row, : start + n] = True",
    ),
    "an answer that was cut off has a text": (
        "if answer[-1] == chat.end else None",
        "if True else None",
    ),
    "answers are drawn from sharper probabilities": (
        "logs.double().exp().cumsum",
        "(2 * logs.double()).exp().cumsum",
    ),
    "ln p belongs to the next token": (
        "return F.pad(-losses.view(len(ids), -1), (1, 0))",
        "return F.pad(-losses.view(len(ids), -1), (0, 1))",
    ),
    "the model is left in evaluation mode": (
        "    with evaluating(model):\n        logits, padding",
        "    model.eval()\n    if True:\n        logits, padding",
    ),
    "the mean of the batch": (
        "rewards.reshape(1, -1) if over_batch else rewards",
        "rewards.reshape(1, -1)",
    ),
    "the deviation of a population": (
        "groups.std(dim=1, keepdim=True)",
        "groups.std(dim=1, keepdim=True, correction=0)",
    ),
    "the deviation is not guarded": (
        "groups.std(dim=1, keepdim=True) + 1e-4",
        "groups.std(dim=1, keepdim=True)",
    ),
    "rounding is an advantage": ("advantages.masked_fill(equal, 0.0)", "advantages"),
    "leave one out is forgotten": ("advantages * (G / (G - 1))", "advantages * 1.0"),
    "the sign": ("losses = -gain * mask", "losses = gain * mask"),
    "the ratio is upside down": ("(logprobs - old_logprobs)", "(old_logprobs - logprobs)"),
    "the ratio has no gradient": (
        "ratio = (logprobs - old_logprobs)",
        "ratio = (logprobs.detach() - old_logprobs)",
    ),
    "the clip holds on both sides": (
        "torch.minimum(ratio * advantages[:, None], clipped * advantages[:, None])",
        "clipped * advantages[:, None]",
    ),
    "no clip": (
        "torch.minimum(ratio * advantages[:, None], clipped * advantages[:, None])",
        "ratio * advantages[:, None]",
    ),
    "the clips are swapped": (
        "ratio.clamp(1 - clip_low, 1 + clip_high)",
        "ratio.clamp(1 - clip_high, 1 + clip_low)",
    ),
    "the leash pulls away": ("gain = gain - leash", "gain = gain + leash"),
    "the leash is k1": ("(away.exp() - away - 1)", "(-away)"),
    "the divergence is of the other direction": (
        "away = (reference - logprobs)",
        "away = (logprobs - reference)",
    ),
    "padding is counted": ("losses.sum() / mask.sum().clamp(min=1)", "losses.mean()"),
    "the mean over answers is a sum": (
        "(losses.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()",
        "(losses.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).sum()",
    ),
    "the length is forgotten": ("(length or losses.shape[1])", "losses.shape[1]"),
    "infinite padding spoils the ratio": (
        "ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0).exp()",
        "ratio = (logprobs - old_logprobs).exp()",
    ),
    "pass@k with replacement": (
        "1 - math.comb(n - c, k) / math.comb(n, k)",
        "1 - (1 - c / n) ** k",
    ),
    "an answer without an end is rewarded": (
        "0.0 if text is None else reward(questions[group], text)",
        "reward(questions[group], text or '')",
    ),
    "the reward of another question": (
        "reward(questions[group], text)",
        "reward(questions[0], text)",
    ),
    "answers are used for ever": (
        '            self._left = self.settings["reuse"]',
        "            self._left = 10**9",
    ),
    "answers are drawn anew each time": (
        "        if not self._left:\n            self._batch",
        "        if True:\n            self._batch",
    ),
    "old ln p is that of the present model": (
        "ratio = (logprobs - old_logprobs)",
        "ratio = (logprobs - logprobs.detach())",
    ),
    "left-out answers do not count": (
        'counts = len(found.ids) if s["per"] != "token" else int(found.mask.sum())',
        'counts = len(found.ids[useful]) if s["per"] != "token" else int(found.mask[useful].sum())',
    ),
    "useless answers are left out on a leash": (
        'if s["leash"] else advantages != 0',
        "if False else advantages != 0",
    ),
    "the place among the questions is not saved": (
        '        self.position = state["position"]\n        self.seed = state["seed"]\n        self._left',
        '        self.seed = state["seed"]\n        self._left',
    ),
    "answers to be used again are not saved": (
        '        self._left = state["left"]',
        "        self._left = 0",
    ),
    "other questions are accepted": ('"list of questions": digest}', '"list of questions": ""}'),
    "the reference learns": (
        "copy.deepcopy(model).eval() if leash else None",
        "model if leash else None",
    ),
    "half precision is accepted": ('if config.precision not in ("auto", "float32"):', "if False:"),
    "val_loss falls when the reward does": ('"val_loss": 1 - found', '"val_loss": found'),
    "questions that do not fit are noticed late": (
        "    sample_groups(model, chat, [q.dialog for q in questions], 1, max_new_tokens=1)\n",
        "    Trainer\n",
    ),
    "a file without questions is accepted": ("    if not questions:\n", "    if False:\n"),
    "a system message is lost": ('if "system" in row:', "if False:"),
    "the command writes no tokenizer": ('    chat.base.save(o.out / "tokenizer.json")\n', ""),
    "the command begins anew": (
        'existing="resume",\n        on_step',
        'existing="refuse",\n        on_step',
    ),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("21", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("21", tmp_path, *FAULTS[fault])
