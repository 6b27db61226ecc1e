"""Chapter 20: its checks accept the race and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "the warm-up begins at 0": (
        "return (step + 1) / self.warmup_steps",
        "return step / self.warmup_steps",
    ),
    "the cosine is a line": ('if self.schedule == "cosine":', "if False:"),
    "the line is a cosine": ('if self.schedule == "cosine":', "if True:"),
    "the rate falls to 0": ("1 - (1 - self.min_lr_ratio) * progress", "1 - progress"),
    "a stage is a step too long": (
        "if step < share * self.steps:",
        "if step <= share * self.steps:",
    ),
    "stages are ignored": (
        "            if step < share * self.steps:\n",
        "            if False:\n",
    ),
    "the cap does not bend": (
        "self.cap * torch.tanh(super().forward(input) / self.cap)",
        "super().forward(input)",
    ),
    "the cap is only inside": ("self.cap * torch.tanh(", "torch.tanh("),
    "the next token is added": ("(0, 0, 1, 0))[:, :-1]", "(0, 0, 0, 1))[:, 1:]"),
    "the last token wraps around": (
        "nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]",
        "x.roll(1, dims=1)",
    ),
    "the shift is 1 at first": ("torch.zeros(n_embd)", "torch.ones(n_embd)"),
    "n-grams are one token shorter": ("range(2, longest + 1)", "range(2, longest)"),
    "the tables are drawn": ("            nn.init.zeros_(table.weight)\n", "            pass\n"),
    "n-grams lie ahead": ("(back, 0))[:, : input.shape[1]]", "(0, back))[:, -input.shape[1] :]"),
    "digits in another base": ("number * self.num_embeddings", "number * 10"),
    "only the last n-gram counts": ("            x = x + table(row)", "            x = table(row)"),
    "rows are not scrambled": ("(number * _HASH >> 16)", "number"),
    "the n-grams are forgotten": ("    elif recipe.ngrams > 1:\n", "    elif False:\n"),
    "embeddings keep torch's deviation": (
        "    nn.init.normal_(model.embedding.weight, 0.0, std)\n",
        "",
    ),
    "only its own values": (
        "self.mix[0] * v + self.mix[1] * self.first[0]",
        "(self.mix[0] + self.mix[1]) * v",
    ),
    "the mix is upside down": (
        "self.mix[0] * v + self.mix[1] * self.first[0]",
        "self.mix[1] * v + self.mix[0] * self.first[0]",
    ),
    "values begin as twice their size": (
        "            nn.init.constant_(block.attention.mix, 0.5)",
        "            nn.init.constant_(block.attention.mix, 1.0)",
    ),
    "every block is the first": ("attention is attentions[0]", "True"),
    "values of a pass are kept": ("attention is attentions[-1]", "False"),
    "blocks have lists of their own": ("        attention.first = attentions[0].first\n", ""),
    "QK-norm is forgotten": ('"qk_norm" if recipe.qk_norm else "causal"', '"causal"'),
    "the cap is forgotten": ("    if recipe.soft_cap:\n", "    if False:\n"),
    "the shift is forgotten": ("    if recipe.token_shift:\n", "    if False:\n"),
    "embeddings keep their deviation": ("if recipe.embedding_std is None else", "if True else"),
    "the head is not zero": (
        "            nn.init.zeros_(model.head.weight)\n",
        "            pass\n",
    ),
    "a branch is not zero": ("            nn.init.zeros_(block.ffn.down.weight)\n", ""),
    "the split": ("cut = int(0.9 * len(ids))", "cut = int(0.8 * len(ids))"),
    "the score is on the training text": ("cls(ids[:cut], ids[cut:]", "cls(ids[:cut], ids[:cut]"),
    "another million": ("load_text()[:TRACK_CHARACTERS]", "load_text()[-TRACK_CHARACTERS:]"),
    "all batches are alike": (
        "        self.step += 1\n        return get_batch",
        "        return get_batch",
    ),
    "the seed is forgotten": (
        "    torch.manual_seed(seed)\n    model = build",
        "    model = build",
    ),
    "the batches have one seed": ("clip=recipe.clip, seed=seed", "clip=recipe.clip, seed=0"),
    "the Trainer's schedule stays": (
        "    trainer.scheduler = LambdaLR(optimizer, recipe.share_at)\n",
        "",
    ),
    "AdamW for all": ('if recipe.optimizer == "adamw":', "if True:"),
    "the others have AdamW's default rate": ("recipe.adamw_lr, betas", "3e-3, betas"),
    "the momentum is the default": ("momentum=recipe.momentum", "momentum=0.95"),
    "the Newton-Schulz steps are the default": ("steps=recipe.newton_steps", "steps=5"),
    "the clip is the default": ("clip=recipe.clip", "clip=1.0"),
    "the decay is the default": (
        "groups = param_groups(model, recipe.weight_decay)",
        "groups = param_groups(model, 0.1)",
    ),
    "the score is on a part": (
        "evaluate_loss(model, track.val,",
        "evaluate_loss(model, track.val[:50],",
    ),
    "the clock has milliseconds": (
        'batch * block / record["tokens_per_second"]',
        '1000 * batch * block / record["tokens_per_second"]',
    ),
    "the score is that of the first evaluation": ("curve[-1][1], trainer", "curve[0][1], trainer"),
    "the time to a loss is that of the last passing": (
        "    for i, (seconds, value) in enumerate(curve):\n        if value <= loss:",
        "    for i, (seconds, value) in reversed(list(enumerate(curve))):\n        if value <= loss:",
    ),
    "the time to a loss is not interpolated": (
        "            return earlier + (seconds - earlier) * (above - loss) / (above - value)\n",
        "            return seconds\n",
    ),
    "one-sided": ("return max(0.0, 1 - inside)", "return max(0.0, 1 - inside) / 2"),
    "the sign of t counts": ("math.atan2(abs(t), ", "math.atan2(t, "),
    "a term too few": (
        "range(2 if odd else 1, freedom, 2)",
        "range(2 if odd else 1, freedom - 1, 2)",
    ),
    "odd and even": ("odd = freedom % 2 == 1", "odd = freedom % 2 == 0"),
    "n degrees of freedom": ("len(values) - 1))", "len(values)))"),
    "the deviation of a population": ("statistics.stdev(values)", "statistics.pstdev(values)"),
    "the deviation is not divided": ("/ math.sqrt(len(values))", ""),
    "always the recipe first": ("if i % 2 == 0:\n            ours", "if True:\n            ours"),
    "the baseline has another seed": (
        "            theirs = race(baseline, track, seed)\n            ours = race(recipe, track, seed)\n",
        "            theirs = race(baseline, track, seed + 1)\n            ours = race(recipe, track, seed)\n",
    ),
    "p of the seconds": ("math.log(share) for share in shares", "share - 1 for share in shares"),
    "the mean share": ("share=statistics.median(shares)", "share=statistics.fmean(shares)"),
    "a slower one passes": ("reached and test.mean < 0 and", "reached and"),
    "any p passes": ("test.mean < 0 and test.p < 0.05", "test.mean < 0"),
    "the loss does not matter": ("passed=reached and", "passed="),
    "one seed is enough": ("reached = all(", "reached = any("),
    "it counts at once": ('"counts": False', '"counts": True'),
    "the second round has the same seeds": ("range(seeds, 2 * seeds)", "range(seeds)"),
    "the second round decides nothing": ('"counts": again.passed', '"counts": True'),
    "a failed entry is run again": ("    if not first.passed:\n        return entry\n", ""),
    "the second round is not written": (
        '"counts": again.passed}\n    _write_entry(board, entry)',
        '"counts": again.passed}',
    ),
    "an entry is written twice": (
        'if (one["name"], one["time"]) != key]',
        "]",
    ),
    "the slowest is at the top": (
        '(not entry["counts"], entry["first"]["share"])',
        '(not entry["counts"], -entry["first"]["share"])',
    ),
    "what does not count may lead": (
        '(not entry["counts"], entry["first"]["share"])',
        'entry["first"]["share"]',
    ),
    "a damaged line is skipped": (
        '            raise ValueError(f"{path}, line {number} is no entry: {line[:60]!r}") from error\n',
        "            continue\n",
    ),
    "code without a recipe is accepted": ("if not isinstance(recipe, Recipe):", "if False:"),
    "the command forgets its text": ("None if options.text is None else", "None if True else"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("20", tmp_path, *FAULTS[fault])
