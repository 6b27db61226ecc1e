"""Chapter 12: its checks accept the evaluation and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "nats instead of bits": ("float(nats) / math.log(2) / n_bytes", "float(nats) / n_bytes"),
    "multiplied by ln 2": ("float(nats) / math.log(2)", "float(nats) * math.log(2)"),
    "no byte is accepted": ("    if n_bytes < 1:\n", "    if n_bytes < 0:\n"),
    "characters instead of bytes": ('n_bytes = len(rest.encode("utf-8"))', "n_bytes = len(rest)"),
    "bytes instead of characters": ("bits_per_byte(nats, len(rest))", "bits_per_byte(nats, n_bytes)"),
    "the bytes of the first token are counted": ("ids[1:], text[len(first) :]", "ids[1:], text"),
    "dropout stays on": ("with evaluating(model), torch.no_grad():", "with torch.no_grad():"),
    "evaluation stays on": ("with evaluating(model), torch.no_grad():", "model.eval()\n    with torch.no_grad():"),
    "the ids stay on the CPU": ("input_ids.to(weight.device)", "input_ids"),
    "the sign of the loss": ("return -losses.view", "return losses.view"),
    "the logarithms in half precision": (".flatten(0, 1).float()", ".flatten(0, 1)"),
    "the overlap is counted twice": ("y[row, : done - begin - 1] = -100", "y[row, :0] = -100"),
    "one target too few": ("done - begin - 1] = -100", "done - begin] = -100"),
    "one target too many": ("done - begin - 1] = -100", "max(0, done - begin - 2)] = -100"),
    "the start is predicted too": ("done = len(given)  #", "done = 1  #"),
    "the tail is left out": ("[*range(0, last, stride), last]", "[*range(0, last, stride)] or [0]"),
    "the mean of block means": ("loss = nats / len(ids)", "loss = nats / len(begins) / T"),
    "the given token is divided by, too": ("loss = nats / len(ids)", "loss = nats / len(tokens)"),
    "perplexity in bits": ("perplexity=perplexity(loss)", "perplexity=2**loss"),
    "half a block by default": ("        stride = block_size\n", "        stride = max(1, block_size // 2)\n"),
    "a batch of no windows": ("    if batch_size < 1:\n", "    if batch_size < -1:\n"),
    "the label as a number": ("labels.index(key)", "ord(key) - 65"),
    "a prompt loses its end": ("return before[-room:]", "return before[:room]"),
    "one token of the prompt too many": ("limit + 1 - len(scored)", "limit + 2 - len(scored)"),
    "one token of the prompt too few": ("limit + 1 - len(scored)", "limit - len(scored)"),
    "the space stays with the prompt": ("read = prompt.rstrip()", "read = prompt"),
    "the prompt is scored too": ("y[row, len(before) - 1 : end] = torch.tensor(scored)",
                              "y[row, :end] = torch.tensor([*before[1:], *scored])"),
    "the first token of a choice is left out": ("y[row, len(before) - 1 : end] = torch.tensor(scored)",
                                                "y[row, len(before) : end] = torch.tensor(scored[1:])"),
    "padding on the left": ("x[row, :end] =", "x[row, T - end :] ="),
    "scores go to another question": ("totals[i] = float(total)", "totals[at] = float(total)"),
    "characters count as bytes": ('len(choice.encode("utf-8"))', "len(choice)"),
    "tokens and bytes are exchanged": ('if normalize == "tokens":', 'if normalize == "bytes":'),
    "ties go to the last": ("row.index(max(row))", "len(row) - 1 - row[::-1].index(max(row))"),
    "the least likely choice": ("row.index(max(row))", "row.index(min(row))"),
    "the deviation of the population": ("statistics.stdev(values)", "statistics.pstdev(values)"),
    "the error of one question": ("statistics.stdev(values) / math.sqrt(n)", "statistics.stdev(values)"),
    "chance of the first question": ("sum(1 / len(row) for row in scores) / len(scores)", "1 / len(scores[0])"),
    "every choice counts as cut": ("cut.add(i)", "cut.add(len(pairs))"),
    "the difference is not paired": ("float(a == right) - float(b == right)", "float(a == right)"),
    "the difference the other way round": ("float(a == right) - float(b == right)",
                                           "float(b == right) - float(a == right)"),
    "borders belong to the bin above": ("torch.bucketize(p, edges)", "torch.bucketize(p, edges, right=True)"),
    "gaps cancel": ("(sure - right).abs().sum()", "(sure - right).sum().abs()"),
    "all bins have the same weight": ("float((sure - right).abs().sum() / len(p))",
                         "float(((sure - right) / counts.clamp(min=1)).abs().sum() / (counts > 0).sum())"),
    "the middle of the bin": ("confidence=tuple((sure / counts).tolist())",
                              "confidence=tuple((i + 0.5) / bins for i in range(bins))"),
    "logits are accepted": ("if not (p.min() >= 0 and", "if False and not (p.min() >= 0 and"),
}  # fmt: skip


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("12", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("12", tmp_path, *FAULTS[fault])
