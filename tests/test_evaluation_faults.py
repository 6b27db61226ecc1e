"""Chapter 12: its checks accept the evaluation and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "nats instead of bits": ("float(nats) / math.log(2) / n_bytes", "float(nats) / n_bytes"),
    "multiplied by ln 2": ("float(nats) / math.log(2)", "float(nats) * math.log(2)"),
    "characters instead of bytes": ("len(ids), len(rest.encode())", "len(ids), len(rest)"),
    "bytes instead of characters": ("bits_per_byte(nats, len(rest))", "bits_per_byte(nats, n_bytes)"),
    "the bytes of the first token are counted": ("ids[1:], text[len(first) :]", "ids[1:], text"),
    "dropout stays on": ("    model.eval()\n", "    pass\n"),
    "evaluation stays on": ("        model.train(training)\n", "        pass\n"),
    "the logarithms in half precision": (".flatten(0, 1).float()", ".flatten(0, 1)"),
    "the overlap is counted twice": ("y[row, : done - begin - 1] = -100", "y[row, :0] = -100"),
    "one target too few": ("done - begin - 1] = -100", "done - begin] = -100"),
    "one target too many": ("done - begin - 1] = -100", "max(0, done - begin - 2)] = -100"),
    "the start is predicted too": ("len(given), 0.0", "1, 0.0"),
    "the tail is left out": ("[*range(0, last, stride), last]", "[*range(0, last, stride)] or [0]"),
    "the mean of block means": ("nats / len(ids), len(rest", "nats / len(starts) / T, len(rest"),
    "a prompt loses its end": ("return before[-room:]", "return before[:room]"),
    "one token of the prompt too many": ("limit + 1 - len(scored)", "limit + 2 - len(scored)"),
    "the space stays with the prompt": ("read = prompt.rstrip()", "read = prompt"),
    "the prompt is scored too": ("y[row, len(before) - 1 : end] = torch.tensor(scored)",
                              "y[row, :end] = torch.tensor([*before[1:], *scored])"),
    "the first token of a choice is left out": ("y[row, len(before) - 1 : end] = torch.tensor(scored)",
                                                "y[row, len(before) : end] = torch.tensor(scored[1:])"),
    "padding on the left": ("x[row, :end] =", "x[row, T - end :] ="),
    "scores go to another question": ("totals[i] = float(total)", "totals[at] = float(total)"),
    "characters count as bytes": ("len(choice.encode())", "len(choice)"),
    "ties go to the last": ("row.index(max(row))", "len(row) - 1 - row[::-1].index(max(row))"),
    "the least likely choice": ("row.index(max(row))", "row.index(min(row))"),
    "the deviation of the population": ("statistics.stdev(values)", "statistics.pstdev(values)"),
    "the error of one question": ("statistics.stdev(values) / math.sqrt(n)", "statistics.stdev(values)"),
    "chance of the first question": ("sum(1 / len(row) for row in scores) / len(scores)", "1 / len(scores[0])"),
    "the difference is not paired": ("float(a == right) - float(b == right)", "float(a == right)"),
    "borders belong to the bin above": ("torch.bucketize(p, edges)", "torch.bucketize(p, edges, right=True)"),
    "gaps cancel": ("(sums[0] - sums[1]).abs().sum()", "(sums[0] - sums[1]).sum().abs()"),
    "all bins have the same weight": ("float((sums[0] - sums[1]).abs().sum() / len(p))",
                         "float(((sums[0] - sums[1]) / counts.clamp(min=1)).abs().sum() / (counts > 0).sum())"),
}  # fmt: skip


def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("12", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("12", tmp_path, *FAULTS[fault])
