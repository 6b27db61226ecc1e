"""Break a chapter's modules one operator at a time, and count how many of the mutants its own checks notice.

    python tests/operators.py 05 09 --sample 200

A mutant swaps a comparison or an operation, changes a number, turns a condition around, or drops a statement. Each one
runs in a process of its own, because some of them crash or never end. What survives is listed: either no check looks
there, or the mutant computes the same (a faster path, a default that nobody can tell apart), which a person decides.
`--seed` draws other mutants. A whole chapter takes from minutes to an hour; this is not part of `make test`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import tools

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_SILENT = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)  # what they say is judged elsewhere
_MEMORY = 8 << 30  # bytes; a mutant that asks for more gets a MemoryError


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            changed = deepcopy(node)
            changed.ops[i] = _SWAPS[type(operator)]()
            yield changed
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in _SWAPS:
        changed = deepcopy(node)
        changed.op = _SWAPS[type(node.op)]()
        yield changed
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, (ast.If, ast.IfExp)):
        for value in (True, False):
            changed = deepcopy(node)
            changed.test = ast.Constant(value)
            yield changed
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Expr) and not isinstance(node.value, (ast.Constant, ast.Yield)):
        yield ast.Pass()
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Call) and node.keywords:
        for i, keyword in enumerate(node.keywords):
            if keyword.arg != "dtype":
                changed = deepcopy(node)
                del changed.keywords[i]
                yield changed


def _places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield (parent, field, index, child) for all that is executed: no annotations, docstrings or error messages."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not isinstance(child, _SILENT):
                yield node, field, i, child
                yield from _places(child)


def mutants(source: str) -> Iterator[tuple[int, str, str, str]]:
    """Yield (line, what it was, what it is, source of the mutant) for every single change of a module."""
    tree = ast.parse(source)
    for parent, field, i, child in list(_places(tree)):
        for changed in _changes(child):
            _put(parent, field, i, changed)
            text = ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, field, i, child)
            yield getattr(child, "lineno", 0), _line(child), _line(changed), text


def _put(parent: ast.AST, field: str, i: int | None, node: ast.AST) -> None:
    if i is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[i] = node


def _line(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node)).partition("\n")[0]


def verdict(number: str, sources: dict[str, str], seconds: float) -> str:
    """Return "noticed", "survived" or "too long" for the modules of a chapter, tried in a process of their own."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            with tempfile.TemporaryDirectory() as folder:
                noticed = tools.first_failing(number, Path(folder), sources) is not None
        except BaseException:  # the module does not even load
            noticed = True
        os._exit(0 if noticed else 3)

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 3 else "noticed"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "too long"


def measure(number: str, sample: int, seed: int) -> dict[str, object]:
    """Try up to `sample` mutants of a chapter's modules; return counts, score and survivors."""
    sources = tools.sources(number)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        assert tools.first_failing(number, Path(folder), sources) is None, (
            "fails without a mutation"
        )
    limit = 30 + 10 * (time.monotonic() - began)

    every = [(name, *mutant) for name, source in sources.items() for mutant in mutants(source)]
    drawn = random.Random(seed).sample(every, min(sample, len(every)))
    counts = {"noticed": 0, "survived": 0, "too long": 0}
    survivors = []
    for name, line, was, now, text in sorted(drawn, key=lambda mutant: mutant[:2]):
        found = verdict(number, {**sources, name: text}, limit)
        counts[found] += 1
        if found == "survived":
            survivors.append(f"{name}, line {line}: {was}  ->  {now}")
            print(survivors[-1], flush=True)

    score = 1 - counts["survived"] / max(1, len(drawn))
    return {
        "chapter": number,
        "mutants": len(every),
        "tried": len(drawn),
        **counts,
        "score": round(score, 4),
        "seed": seed,
        "survivors": survivors,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapters", nargs="+", metavar="NN")
    parser.add_argument(
        "--sample", type=int, default=10**9, help="mutants of each chapter; all by default"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for one JSON file per chapter")
    options = parser.parse_args()
    for number in options.chapters:
        result = measure(number, options.sample, options.seed)
        print(
            json.dumps({key: value for key, value in result.items() if key != "survivors"}),
            flush=True,
        )
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            text = json.dumps(result, indent=1) + "\n"
            (options.out / f"{number}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
