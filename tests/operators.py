"""Break the library one operator at a time, and count how many of the mutants its checks and tests notice.

    python tests/operators.py                       every chapter, a night's work
    python tests/operators.py 05 09 --sample 200
    python tests/operators.py --save --minutes 5    write benchmarks/results/operators.json
    python tests/operators.py --again --save        try the recorded survivors once more

A mutant swaps a comparison or an operation, changes a number, turns a condition around, or drops a statement. The
checks of its chapter see it first, in a process of its own, because some mutants crash or never end. What they let
pass is tried with the quick tests of the chapter's modules. What survives both is listed: either nobody looks there,
or the mutant computes the same (a faster path, a default that nobody can tell apart), which a person decides and
writes down in benchmarks/equivalent_mutants.json. `--seed` draws other mutants. This is not part of `make test`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tools

from courseware import paths
from courseware.export.notebooks import all_chapters, find_chapter
from courseware.site import proof

sys.path.insert(0, str(paths.ROOT / "benchmarks"))
import rivals

RECORD = rivals.RESULTS / "operators.json"
WHAT = (
    "Mutants of the library, each a single changed operator, number, condition or statement: how many the checks "
    "of the chapter notice, how many more its quick tests, and which of them survive."
)
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
_SLACK = 4.0  # a mutant may take so many times as much processor time as the original
_TEST_SECONDS = 300.0  # for the quick tests of a chapter
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


@dataclass(frozen=True)
class Mutant:
    """One change of one module: the `number`-th; `code` is the line of the module where it begins."""

    module: str
    number: int
    line: int
    code: str
    was: str
    now: str

    def place(self) -> dict[str, object]:
        """Return what the record says about it."""
        return {name: getattr(self, name) for name in ("module", "line", "code", "was", "now")}

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}: {self.was}  ->  {self.now}"


def _every_change(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST, ast.AST]]:
    """Yield (parent, field, index, child, what may take the child's place), always in the same order."""
    for parent, field, i, child in list(_places(tree)):
        for changed in _changes(child):
            yield parent, field, i, child, changed


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Yield every single change of a module."""
    lines = source.splitlines()
    for number, change in enumerate(_every_change(ast.parse(source))):
        *_, child, changed = change
        line = getattr(child, "lineno", 0)
        code = lines[line - 1].strip()
        yield Mutant(module, number, line, code, _line(child), _line(changed))


def mutated(source: str, number: int) -> str:
    """Return the source of a module after the change with this number."""
    tree = ast.parse(source)
    parent, field, i, _, changed = next(itertools.islice(_every_change(tree), number, None))
    _put(parent, field, i, changed)
    return ast.unparse(ast.fix_missing_locations(tree))


def _put(parent: ast.AST, field: str, i: int | None, node: ast.AST) -> None:
    if i is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[i] = node


def _line(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node)).partition("\n")[0]


# --- one mutant ---


def verdict(number: str, sources: dict[str, str], cpu: float, seconds: float) -> str:
    """Return "noticed", "survived" or "too long" for the modules of a chapter, tried in a process of their own.

    cpu: how many seconds of processor time it may take; on a busy machine these pass slowly. seconds: how long
    it may take by the clock, for a process that waits forever.
    """
    child = os.fork()
    if child == 0:
        os.setsid()  # what the checks start dies with them
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu), math.ceil(cpu)))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                failing = tools.first_failing(
                    number, place, sources, in_setup=True, seconds=2 * seconds
                )
        except BaseException:  # the module does not even load
            os._exit(0)
        os._exit(3 if failing is None else 0)

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if (
            done
            and os.WIFSIGNALED(status)
            and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        ):
            return "too long"
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 3 else "noticed"
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "too long"


def tested(number: str, module: str, text: str) -> str:
    """Return "passed", "failed" or "too long" for the quick tests of a chapter, with this text as the module."""
    tests = _tests(number)
    if not tests:
        return "passed"

    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "minigpt_lib"
        shutil.copytree(paths.LIBRARY, library, ignore=shutil.ignore_patterns("__pycache__"))
        (library / f"{module.rpartition('.')[2]}.py").write_text(text, encoding="utf-8")

        # -P keeps this folder, which has the library as it should be, from the front of the path.
        command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["-m", "not slow and not browser and not gpu", *tests]
        search = os.pathsep.join([folder, str(paths.ROOT)])
        environment = os.environ | {"PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"}
        with subprocess.Popen(
            command,
            cwd=paths.ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                status = process.wait(_TEST_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return "too long"
    return "failed" if status in (1, 2) else "passed"  # a test failed; a file did not load


def _tests(number: str) -> list[str]:
    """Return the files of tests that are named after the modules of a chapter."""
    names = [module.rpartition(".")[2] for module in tools.sources(number)]
    found = {file for name in names for file in paths.ROOT.glob(f"tests/test_{name}*.py")}
    return sorted(str(file.relative_to(paths.ROOT)) for file in found)


@cache
def _can_test(number: str, module: str) -> bool:
    """Return whether the tests pass with the module as it is, but without its comments and its layout."""
    plain = ast.unparse(ast.parse(tools.sources(number)[module]))
    return bool(_tests(number)) and tested(number, module, plain) == "passed"


# --- a chapter ---


def check(number: str, tried: list[Mutant], minutes: float, tests: bool) -> dict[str, object]:
    """Try mutants of a chapter for so many minutes; return counts, seconds, and the survivors."""
    sources = tools.sources(number)
    began, used = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        failing = tools.first_failing(number, Path(folder), sources, in_setup=True, seconds=600.0)
    assert failing is None, f"chapter {number} fails without a mutation, in code cell {failing}"
    cpu = 10 + _SLACK * (time.process_time() - used)
    seconds = 120 + 10 * (time.monotonic() - began)

    counts = dict.fromkeys(("tried", "noticed", "too_long", "noticed_by_tests", "survived"), 0)
    survivors = []
    began = time.monotonic()
    for mutant in tried:
        if time.monotonic() - began > 60 * minutes:
            break
        text = mutated(sources[mutant.module], mutant.number)
        broken = {**sources, mutant.module: text}
        found = verdict(number, broken, cpu, seconds).replace(" ", "_")
        if found == "survived" and tests and _can_test(number, mutant.module):
            failed = tested(number, mutant.module, text) == "failed"
            found = "noticed_by_tests" if failed else found

        counts["tried"] += 1
        counts[found] += 1
        if found == "survived":
            survivors.append({"chapter": number, **mutant.place()})
            print(f"survived: {mutant}", flush=True)

    seconds_taken = round(time.monotonic() - began)
    return {**counts, "with_tests": tests, "seconds": seconds_taken, "survivors": survivors}


def measure(number: str, options: argparse.Namespace) -> dict[str, object]:
    """Draw mutants of a chapter's modules and try them."""
    every = [m for name, source in tools.sources(number).items() for m in mutants(name, source)]
    tried = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    about = {"chapter": number, "mutants": len(every), "seed": options.seed, "commit": _commit()}
    return {**about, **check(number, tried, options.minutes, options.tests)}


def again(number: str, options: argparse.Namespace) -> dict[str, object]:
    """Try the recorded survivors of a chapter once more; return its row with the counts moved.

    A survivor whose line of code has changed since is no longer a mutant of this module, and leaves the count.
    """
    old = _read()
    (row,) = (row for row in old["chapters"] if row["chapter"] == number)
    left = [place for place in old["survivors"] if place["chapter"] == number]
    every = [m for name, source in tools.sources(number).items() for m in mutants(name, source)]
    reasons = proof.equivalent()
    there = _find(left, every)
    judged = [mutant for mutant in there if proof.key(mutant.place()) in reasons]
    tried = [mutant for mutant in there if mutant not in judged]

    found = check(number, tried, options.minutes, options.tests)
    row = {"survived_first": row["survived"], **row, "with_tests": options.tests}
    row["commit"] = _commit()
    row["mutants"] = len(every)
    row["tried"] -= len(left) - len(there)
    row["survived"] -= len(left) - len(there)
    for how in ("noticed", "too_long", "noticed_by_tests"):
        row[how] += found[how]
        row["survived"] -= found[how]

    not_reached = tried[found["tried"] :]  # when the minutes were over
    rest = [{"chapter": number, **mutant.place()} for mutant in judged + not_reached]
    return {**row, "survivors": rest + found["survivors"]}


def _find(places: list[dict], every: list[Mutant]) -> list[Mutant]:
    """Return the mutants at recorded places, each once: of twins the one nearest to the recorded line."""
    found = []
    for place in places:
        twins = [m for m in every if proof.key(m.place()) == proof.key(place) and m not in found]
        if twins:
            found.append(min(twins, key=lambda m: abs(m.line - place["line"])))
    return found


# --- the record ---


def _commit() -> str:
    """Return the commit that last changed the library."""
    command = ["git", "log", "-1", "--format=%h", "--", "minigpt_lib"]
    answer = subprocess.run(command, cwd=paths.ROOT, capture_output=True, encoding="utf-8")
    return answer.stdout.strip()


def _read() -> dict:
    if not RECORD.exists():
        return {"chapters": [], "survivors": []}
    return json.loads(RECORD.read_text(encoding="utf-8"))


def save(result: dict) -> None:
    """Put a chapter's result in the place of its older one."""
    old = _read()
    row = {name: value for name, value in result.items() if name != "survivors"}
    rows = [other for other in old["chapters"] if other["chapter"] != row["chapter"]]
    left = [place for place in old["survivors"] if place["chapter"] != row["chapter"]]
    rivals.save(
        RECORD,
        {
            "what": WHAT,
            "command": "python tests/operators.py --save",
            "hardware": rivals.hardware(),
            "chapters": sorted([*rows, row], key=lambda row: row["chapter"]),
            "survivors": sorted([*left, *result["survivors"]], key=lambda place: place["chapter"]),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapters", nargs="*", metavar="NN", help="all of them by default")
    parser.add_argument(
        "--sample", type=int, default=10**9, help="mutants of each chapter; all by default"
    )
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="for each chapter; the rest is left out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="only the recorded survivors")
    parser.add_argument("--save", action="store_true", help=f"in {RECORD.relative_to(paths.ROOT)}")
    parser.add_argument(
        "--no-tests", dest="tests", action="store_false", help="only the checks of the chapters"
    )
    options = parser.parse_args()

    with_modules = [chapter.stem[:2] for chapter in all_chapters() if chapter.modules]
    recorded = [row["chapter"] for row in _read()["chapters"]]
    for number in options.chapters or (recorded if options.again else with_modules):
        if not find_chapter(number).modules:
            print(f"chapter {number} has no module", flush=True)
            continue
        result = again(number, options) if options.again else measure(number, options)
        if options.save:
            save(result)
        row = {name: value for name, value in result.items() if name != "survivors"}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
