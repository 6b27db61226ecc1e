"""Chapter 15: its checks accept the preferences and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "the wrong sign": ("margin = chosen - rejected", "margin = rejected - chosen"),
    "the reference is left out": (
        "beta * (policy_chosen - reference_chosen)",
        "beta * policy_chosen",
    ),
    "beta is outside the sigmoid": (
        "loss = -F.logsigmoid(margin).mean()",
        "loss = -beta * F.logsigmoid(margin / beta).mean()",
    ),
    "the logarithm of a sigmoid": ("F.logsigmoid(margin)", "torch.sigmoid(margin).log()"),
    "the sum over pairs": ("F.logsigmoid(margin).mean()", "F.logsigmoid(margin).sum()"),
    "rewards have a gradient": ("chosen.detach(), ", "chosen, "),
    "ties count as right": ("(self.margin > 0)", "(self.margin >= 0)"),
    "rewards are multiplied by beta": ("rewards / beta)", "rewards * beta)"),
    "the policy is not normalized": (
        "(reference_log_probs + rewards / beta).log_softmax(dim=-1)",
        "(reference_log_probs + rewards / beta)",
    ),
    "the mean per token": (
        "-losses.view(targets.shape).sum(dim=1)",
        "-losses.view(targets.shape).mean(dim=1)",
    ),
    "logarithms in bfloat16": ("model(input_ids)[0].float()", "model(input_ids)[0]"),
    "logarithms in bfloat16, cast afterwards": (
        "model(input_ids)[0].float()",
        "model(input_ids)[0].log_softmax(-1).float()",
    ),
    "an answer that was lost is accepted": (
        "if not (targets != -100)",
        "if False and (targets != -100)",
    ),
    "the prompt counts": ("            labels[:start] = -100", "            labels[:0] = -100"),
    "the first token of an answer is masked": (
        "labels[:start] = -100",
        "labels[: start + 1] = -100",
    ),
    "not shifted": ("pair.append((ids[:-1], labels[1:]))", "pair.append((ids[:-1], labels[:-1]))"),
    "padding counts": ("True, -100)", "True, 0)"),
    "an answer may be one token too long": ("self.block_size + 1:", "self.block_size + 2:"),
    "chosen and rejected answers are interleaved": (
        "[pair[0] for pair in pairs] + [pair[1] for pair in pairs]",
        "[answer for pair in pairs for answer in pair]",
    ),
    "the reference of other pairs": ("self.reference[numbers]}", "self.reference[: len(numbers)]}"),
    "dropout is on for the reference": (
        "with evaluating(model), torch.no_grad():",
        "with torch.no_grad():",
    ),
    "a saved reference is computed again": ("file is not None and file.exists()", "False"),
    "the file of another model is accepted": ("if ours != theirs:", "if False:"),
    "another reference is accepted": ("elif pairs.mark != mark or ", "elif "),
    "the reference is zero": (
        '{"targets": y, "reference": self.reference[numbers]}',
        '{"targets": y, "reference": self.reference[numbers] * 0}',
    ),
    "unfinished answers are kept": ('if ids[-1] == tokenizer.end else ""', 'if ids else ""'),
    "the worst answer is chosen": (
        "best = whole[scores.index(max(scores))]\n        worst = whole[scores.index(min(scores))]",
        "worst = whole[scores.index(max(scores))]\n        best = whole[scores.index(min(scores))]",
    ),
    "of equals the last is chosen": (
        "scores.index(max(scores))",
        "len(scores) - 1 - scores[::-1].index(max(scores))",
    ),
    "ties make pairs": ("if not scores or max(scores) == min(scores):", "if not scores:"),
    "samples are greedy": ('{"strategy": "sample", ', '{"strategy": "greedy", '),
    "pairs are weighted by their tokens": ("return x, torch.tensor(numbers), {", "return x, y, {"),
    "a run with another beta is resumed": ('if state["run"][name] != value:', "if False:"),
    "beta is not passed on": (
        "margins = _Margins(beta)",
        "margins = _Margins(0.1)",
    ),
    "only the last micro-batch is reported": (
        "for result in self.seen]",
        "for result in self.seen[-1:]]",
    ),
    "the fingerprint ignores the weights": (".numpy().tobytes())", ".numpy().tobytes()[:0])"),
    "the fingerprint ignores the dtype": (" {value.dtype} ", " "),
    "the fingerprint ignores the configuration": ("sha256(repr(config).encode())", "sha256()"),
    "the fingerprint depends on dropout": (' | {"dropout": None}', ""),
    "the model is its own reference": (
        "_tie_to(pairs, reference)",
        "_tie_to(pairs, model)",
    ),
    "after an error, another model's fingerprint is kept": (
        "_refuse_infinite(found, len",
        "self.mark = mark; _refuse_infinite(found, len",
    ),
    "a reference is written in place": (
        "    with atomic_write(file) as part:\n        torch.save(facts, part)",
        "    torch.save(facts, file)",
    ),
    "held-out pairs are measured with another beta": (
        "measure_preferences(model, val, beta)",
        "measure_preferences(model, val, 0.1)",
    ),
    "pairs of the steps before are reported": ("        self.seen.clear()\n", ""),
    "a saved reference with missing rows is accepted": ("log_probs.shape != (n, 2) or ", ""),
    "a saved NaN is accepted": (" or not log_probs.isfinite().all()", ""),
    "the seed is ignored": ("_PairReader(train, config.seed, beta)", "_PairReader(train, 0, beta)"),
    "the position is not saved": ('"position": self.position, "seed"', '"position": 0, "seed"'),
    "the same pairs in every step": ("self.position += batch_size", "pass"),
    "weights are not restored": ("return self.policy.load_state_dict(state)", "return None"),
    "only rejected answers can be too long": (
        "+ 1:\n                return",
        '+ 1 and answer is row["rejected"]:\n                return',
    ),
    "only training pairs are checked against the model": (
        '_refuse_unreadable(pairs, model, "model")',
        'pairs is train and _refuse_unreadable(pairs, model, "model")',
    ),
    "pairs are not checked against the reference": (
        '        _refuse_unreadable(pairs, reference, "reference")\n',
        "",
    ),
    "an id outside the vocabulary is accepted": ("config.vocab_size:", "config.vocab_size + 1:"),
    "reordered pairs are accepted": (" or pairs.pairs_mark != pairs._fingerprint()", ""),
    "another trainer's run is resumed": ('if "run" not in state:', "if False:"),
    "a resumed run begins with the first pairs": (
        'self.position = state["position"]',
        "pass",
    ),
    "beta is checked too late": (
        "    _refuse_beta(beta)\n    for pairs in",
        "    for pairs in",
    ),
    "a judge's NaN is accepted": ("if math.isnan(number):", "if False:"),
    "scores are rounded": ("else float(score)", "else int(score)"),
    "the judge sees the last message only": ("judge(prompt, text)", "judge(prompt[-1:], text)"),
    "six samples by default": ("samples: int = 8", "samples: int = 6"),
    "zero samples are accepted": ("if samples < 1:", "if samples < 0:"),
    "a text is judged letter by letter": (
        "if not lists == len(answers) ==",
        "if not len(answers) ==",
    ),
    "answers that differ in an extra key only are a pair": (
        'row[name][0]["content"] for',
        "repr(row[name]) for",
    ),
    "any special token ends a turn": (
        "if ids[-1] == tokenizer.end",
        "if ids[-1] in tokenizer.base.special_tokens.values()",
    ),
    "infinity minus infinity is accepted": ("if margin.isnan().any() and", "if False and"),
    "rewards of another shape are accepted": (
        "if reference_log_probs.shape != rewards.shape:",
        "if False:",
    ),
    "targets of another shape are accepted": ("input_ids.shape != targets.shape or ", ""),
    "small probabilities become zero": (
        "rewards / beta).log_softmax(dim=-1)",
        "rewards / beta).softmax(dim=-1).log()",
    ),
    "dropout is on in training": ("return super().train(False)", "return super().train(mode)"),
    "a bfloat16 run has a float32 reference": ('if run.precision != "float32":', "if False:"),
    "the reference ignores the precision": (
        "return lambda ids: torch.func.functional_call(model, copy, (ids,))",
        "return model",
    ),
    "the rounded reference is kept": (
        "reader.reference = train.log_probs(",
        "train.reference = reader.reference = train.log_probs(",
    ),
    "a batch has the reference of other pairs": (
        'options | {"reference": self.reference[numbers]}',
        'options | {"reference": self.reference[: len(numbers)]}',
    ),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("15", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("15", tmp_path, *FAULTS[fault])
