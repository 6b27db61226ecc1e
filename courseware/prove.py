"""Prove a candidate module in a fresh interpreter: run its checks, then see that the checks can fail.

Run as `python -m courseware.prove JOB.json`; the answer is written beside the job, as JSON. The parent
(`courseware.exporting`) describes the work in plain data, so nothing of the notebook's state leaks in.

First every check runs against the imported candidate. Then each exported function, and each public method of
an exported class, is replaced by stubs: one that raises, one that returns None, one that returns a wrong
value of the right kind (`courseware.stubs`). A check *watches over* a name if it fails under all of them.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import linecache
import random
import sys
import time
import traceback
import types
import warnings
from pathlib import Path

from courseware import stubs
from courseware.limits import TooLong, time_limit

STUB_SECONDS = 5.0  # a check that still runs after this long under a stub has not passed


def load_candidate(name: str, path: Path) -> types.ModuleType:
    """Import the file as the module `name`, in place of the one that is installed."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _compile(cell: dict) -> types.CodeType:
    """Compile a cell so that tracebacks show its lines."""
    name = f"<code cell {cell['number']}>"
    linecache.cache[name] = (len(cell["source"]), None, cell["source"].splitlines(True), name)
    return compile(cell["source"], name, "exec")


def _seed() -> None:
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def _explain(error: BaseException, module_path: str) -> dict:
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if f.filename.startswith("<code cell") or f.filename == module_path]
    lines = []
    for frame in mine:
        place = "the module" if frame.filename == module_path else frame.filename.strip("<>")
        lines.append(f"{place}, line {frame.lineno}, in {frame.name}: {frame.line}")
    lines += [line.rstrip("\n") for line in traceback.format_exception_only(error)]
    inside = [f.lineno for f in mine if f.filename == module_path]
    missing = getattr(error, "name", None) if isinstance(error, NameError) else None
    return {
        "text": "\n".join(lines),
        "missing": missing,
        "module_line": inside[-1] if inside else None,
    }


class Prover:
    """Hold the candidate and run its checks, plainly or under a stub."""

    def __init__(self, job: dict) -> None:
        self.job = job
        self.module = load_candidate(job["module"], Path(job["path"]))
        self.base: dict = {"__name__": "__check__"}
        exec(job["imports"], self.base)
        self.base.update({name: getattr(self.module, name) for name in job["public"]})
        _seed()
        for cell in job["setup"]:
            self.current = cell
            exec(_compile(cell), self.base)
        self.codes = [_compile(cell) for cell in job["checks"]]
        self.used = [_names_in(cell["source"]) for cell in job["checks"]]

    def run(self, index: int, seconds: float | None = None, replaced: dict | None = None) -> None:
        """Run one check in a namespace of its own; whatever it raises is the caller's."""
        _seed()
        with time_limit(seconds):
            exec(self.codes[index], {**self.base, **(replaced or {})})

    def passes(self, index: int, seconds: float, replaced: dict) -> bool:
        silent = io.StringIO()
        try:
            with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
                self.run(index, seconds, replaced)
        except (Exception, SystemExit, TooLong):
            return False
        return True

    def watchers(self, target: stubs.Target, seconds: list[float]) -> tuple[list[int], dict]:
        """Return the first check that fails under every stub of `target`, and those that wrongly passed."""
        asleep: dict[int, str] = {}
        likely = sorted(  # never by time: the table must be the same on every machine
            range(len(self.codes)), key=lambda i: (not target.named_in(self.used[i]), i)
        )
        for index in likely:
            if not target.may_be_named_in(self.used[index]):
                continue
            limit = max(STUB_SECONDS, 10 * seconds[index])
            for kind in stubs.KINDS:
                with target.replaced(self.module, kind) as names:
                    if self.passes(index, limit, names):
                        asleep[index] = kind
                        break
            else:
                return [index], asleep
        return [], asleep


def _names_in(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return names


def prove(job: dict) -> dict:
    """Run the whole proof and return it as plain data."""
    warnings.simplefilter("ignore")
    answer: dict = {"checks": [], "targets": [], "error": None}
    try:
        prover = Prover(job)
    except Exception as error:
        answer["error"] = {"stage": "import", **_explain(error, job["path"])}
        return answer
    for index, cell in enumerate(job["checks"]):
        start, failure = time.perf_counter(), None
        try:
            prover.run(index)
        except (Exception, SystemExit) as error:
            failure = _explain(error, job["path"])
        seconds = time.perf_counter() - start
        answer["checks"].append({"number": cell["number"], "seconds": seconds, "failure": failure})
    if any(check["failure"] for check in answer["checks"]):
        return answer
    seconds = [check["seconds"] for check in answer["checks"]]
    for target in stubs.targets(prover.module, job["public"]):
        watching, asleep = prover.watchers(target, seconds)
        numbers = {job["checks"][i]["number"]: kind for i, kind in asleep.items()}
        answer["targets"].append(
            {
                "name": target.name,
                "by": [job["checks"][i]["number"] for i in watching],
                "asleep": numbers,
            }
        )
    return answer


def main() -> None:
    path = Path(sys.argv[1])
    job = json.loads(path.read_text(encoding="utf-8"))
    answer = prove(job)
    path.with_suffix(".answer").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
