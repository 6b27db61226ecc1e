"""Chapter 22: its checks accept speculative decoding and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "rejected guesses are drawn from p again": ("left = (p[n] - q[n]).clamp(min=0)", "left = p[n]"),
    "what q has too much of is drawn": ("(p[n] - q[n]).clamp(min=0)", "(q[n] - p[n]).clamp(min=0)"),
    "the size of the difference": ("(p[n] - q[n]).clamp(min=0)", "(p[n] - q[n]).abs()"),
    "nothing is left after rounding": ("    if not left.any():", "    if False:"),
    "the quotient upside down": (
        "chances = p[:-1].gather(1, guesses[:, None]) / q.gather(1, guesses[:, None])",
        "chances = q.gather(1, guesses[:, None]) / p[:-1].gather(1, guesses[:, None])",
    ),
    "accepted by p alone": ("/ q.gather(1, guesses[:, None])", ""),
    "the last rejection counts": ("n = int(rejected[0])", "n = int(rejected[-1])"),
    "the rows of p are one late": ("p[:-1].gather", "p[1:].gather"),
    "the extra token from another row": ("torch.multinomial(p[-1], 1", "torch.multinomial(p[0], 1"),
    "one lucky number for all": ("torch.rand(len(guesses), 1,", "torch.rand(1, 1,"),
    "everything is accepted": ("(luck >= chances)", "(luck >= 2 + chances)"),
    "the first occurrence": ("after = int(found[-1]) + length", "after = int(found[0]) + length"),
    "the shortest piece": (
        "range(min(self.longest, len(ids) - 1), 0, -1)",
        "range(1, min(self.longest, len(ids) - 1) + 1)",
    ),
    "the end finds itself": ("windows = ids[:-1].unfold", "windows = ids.unfold"),
    "the match itself": ("after = int(found[-1]) + length", "after = int(found[-1])"),
    "too many guesses": ("guesses = ids[after : after + n]", "guesses = ids[after:]"),
    "the draft remembers rejected guesses": (
        "self.cache.truncate(int(differs[0]) if len(differs) else common)",
        "self.cache.truncate(common)",
    ),
    "the draft forgets what it has read": ("self.seen = text[: self.cache.length]", "self.seen = text[:0]"),
    "the draft outgrows its window": ("n = min(n, self.model.config.max_seq_len - len(ids))", "n = n"),
    "the draft draws with other chances": ("rows.append(chances)", "rows.append(logits[:, -1].softmax(-1))"),
    "the temperature is ignored": (
        "filter_logits(logits, **settings).softmax(dim=-1)",
        "logits.softmax(dim=-1)",
    ),
    "more tokens than asked for": ("room = end - len(ids) - 1", "room = end - len(ids) + 1"),
    "rejected guesses stay in the cache": (
        "            cache.truncate(len(ids) - 1)  # the last token has not been read yet\n",
        "            cache.truncate(min(cache.length, len(ids)))\n",
    ),
    "accepted guesses are not counted": ("n_accepted += kept", "n_accepted += 0"),
    "the model's own token is lost": (
        "written = [*guesses[:kept].tolist(), token]",
        "written = guesses[:kept].tolist() or [token]",
    ),
    "stops are ignored": ("if new in stop_ids]", "if False]"),
    "the text goes on behind a stop": (
        "written = written[: stops[0] + 1] if stops else written",
        "written = written",
    ),
    "the stop is left out": ("written[: stops[0] + 1]", "written[: stops[0]]"),
    "dropout stays on": (
        "    with evaluating(model):\n        if len(ids) > 1",
        "    if True:\n        if len(ids) > 1",
    ),
    "any number of tokens": ("if max_new_tokens < 1 or n_guesses < 0:", "if n_guesses < 0:"),
    "a batch is taken": ("if ids.ndim != 1 or not len(ids):", "if not len(ids):"),
    "the window is ignored": ("if len(ids) + max_new_tokens > limit:", "if len(ids) > limit:"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("22", tmp_path, *FAULTS[fault])
