"""`mutate` finds a fragment wherever the formatter put the line breaks, and changes nothing else."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize

import pytest
from mutation import flatten, mutate

from courseware import paths

MODULES = sorted(paths.LIBRARY.glob("[a-z]*.py"))
LINE_LENGTHS = (50, 100, 240)
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)

MODULE = '''
"""A module with everything that a formatter moves."""

import math


@decorated((1, 2), name="a decorator")
def mean_loss(losses, counts, *, weights_of_the_batches=None, reduction="mean", eps=1e-5):
    """Return the mean loss per token."""
    total = sum(loss * count for loss, count in zip(losses, counts)) / max(1, sum(counts))  # tokens
    if reduction == "none" and (weights_of_the_batches is None or len(counts) > 1):  # nothing to do
        return losses, counts
    elif (total * 2) + 1 > 0 and isinstance(total, (int, float)) and not math.isnan(total):
        raise ValueError(f"expected losses of {len(counts)} batches, " "got a total of nan in {1}")
    for loss, count in [(total, 1), (total, 2), (total, 3), (total, 4), (total, 5), (total, 6)]:
        total = (total + loss) * count if weights_of_the_batches is None else (total - loss)
    single = (total,)
    total = (total + eps).real + sum(single) + sum(losses) + sum(counts) + sum(losses) + len(losses) + 1
    return total


def other(x):
    try:
        x.finish()
    finally:  # also after Ctrl-C
        x.close()
    return x.real
'''

FAULTS = {
    "part of an expression": ("max(1, sum(counts))", "sum(counts)"),
    "no whole expression": ("loss * count for", "loss for"),
    "from the middle of a call": ("len(counts) > 1):", "len(counts) > 2):"),
    "a parenthesis that is needed": ("(total + eps).real", "total + eps.real"),
    "parentheses that the formatter adds": ("total = (total + loss) *", "total = total + loss *"),
    "a parenthesis that opens alone": ("return losses, counts", "return counts, losses"),
    "parentheses that the formatter keeps": ("(total * 2) + 1 > 0", "(total * 3) + 1 > 0"),
    "the last argument": ('reduction="mean", eps=1e-5)', 'reduction="sum", eps=1e-5)'),
    "a comma that matters": ("single = (total,)", "single = [total, total]"),
    "a decorator": ('decorated((1, 2), name="a decorator")', "decorated((2, 1))"),
    "other quotes": ("reduction == 'none'", "reduction == 'sum'"),
    "the beginning of a string": ('raise ValueError(f"expected losses of', 'raise TypeError(f"of'),
    "the inside of a string": ("of nan in", "of infinity in"),
    "a whole line": ("        x.finish()\n", "        pass\n"),
    "two lines": ("x.close()\n    return x.real", "return x.real"),
    "a comment to tell two places apart": ("finally:  # also", "except OSError:  # also"),
    "several places": (".real", ".imag"),
    "a line that is left out": ("    single = (total,)\n", ""),
}


def formatted(source: str, line_length: int) -> str:
    """Return the module as ruff writes it with lines of this length."""
    options = ["--config", "format.skip-magic-trailing-comma = true"]
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        f"--line-length={line_length}",
        *options,
        "-",
    ]
    done = subprocess.run(command, input=source, capture_output=True, encoding="utf-8", check=True)
    return done.stdout


@pytest.fixture(scope="module")
def layouts() -> list[str]:
    """Return the module in short, usual and long lines."""
    found = [formatted(MODULE, line_length) for line_length in LINE_LENGTHS]
    assert len(set(found)) == len(found)
    return found


def tree(source: str) -> str:
    return ast.dump(ast.parse(source))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mutant_does_not_depend_on_the_layout(layouts, fault):
    before, after = FAULTS[fault]

    mutants = {tree(mutate(layout, before, after)) for layout in layouts}

    assert len(mutants) == 1
    assert mutants != {tree(MODULE)}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mutant_is_the_one_that_a_search_for_the_text_makes(layouts, fault):
    before, after = (text.replace("'", '"') for text in FAULTS[fault])
    module = next(layout for layout in layouts if before in layout)

    assert tree(mutate(module, before, after)) == tree(module.replace(before, after))


def test_a_comment_between_two_lines_does_not_matter():
    mutant = mutate(MODULE, "finally:\n        x.close()", "finally:\n        x.finish()")

    assert "x.close()" not in mutant
    assert mutant.count("x.finish()") == 2


def test_a_pair_of_parentheses_stays_a_pair():
    wrapped = "total = (\n    first\n    + second\n)\n"

    assert tree(mutate(wrapped, "total = first", "total = third")) == tree("total = third + second")
    assert tree(mutate(wrapped, "+ second", "- third")) == tree("total = first - third")
    assert tree(mutate(wrapped, "first + second", "0")) == tree("total = 0")


def test_redundant_parentheses_of_the_fragment_need_not_be_in_the_module():
    assert tree(mutate("total = a + b", "total = (a + b)", "total = c")) == tree("total = c")


@pytest.mark.parametrize("fragment", ["a + c", "b + a", "mean", "(a + b) * c", "a + b  # why"])
def test_a_fragment_that_is_not_there_is_named(fragment):
    with pytest.raises(AssertionError, match="the module has no code") as error:
        mutate("total = a + b * c\nmeaning = 1\n", fragment, "0")

    assert repr(fragment) in str(error.value)


def test_a_fragment_that_should_be_unique_is_refused_if_it_occurs_twice():
    source = "x = f(1)\ny = f(2)\n"

    assert mutate(source, "f(", "g(") == "x = g(1)\ny = g(2)\n"
    assert mutate(source, "f(1)", "0", unique=True) == "x = 0\ny = f(2)\n"
    with pytest.raises(AssertionError, match=r"the module has the code 'f\(' 2 times"):
        mutate(source, "f(", "g(", unique=True)


def test_no_fragment_leaves_the_module_as_it_is():
    assert mutate(MODULE, "", "") == MODULE


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_tokens_of_the_library_are_pythons_own(path):
    source = path.read_text(encoding="utf-8")
    text, tokens = flatten(source)

    assert tree(text) == tree(source)

    theirs = tokenize.generate_tokens(io.StringIO(text).readline)
    expected = [token.string for token in theirs if token.string and token.type not in LAYOUT]
    if sys.version_info < (3, 12):  # since then, an f-string is several tokens
        assert [token.text for token in tokens if token.kind != "comment"] == expected
