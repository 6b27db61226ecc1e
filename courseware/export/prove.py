"""Prove candidate modules in a fresh interpreter: run their checks, then see that the checks can fail.

Run as `python -m courseware.export.prove JOB.json`; the answer is written beside the job, as JSON. The parent
(`courseware.export.exporting`) describes the work in plain data, so nothing of the notebook's state leaks in.

First every check runs against the imported candidates. Then each exported function, and each public method of
an exported class, is replaced by stubs: one that raises, one that returns None, one that returns a wrong
value of the right kind (`courseware.export.stubs`). A check *watches over* a name if it fails under all of them.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
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

from courseware.export import stubs
from courseware.time_limit import TooLong, time_limit

STUB_SECONDS = 5.0  # a check that still runs after this long under a stub has not passed


def load_candidate(name: str, path: Path) -> types.ModuleType:
    """Import the file as the module `name` of its package, in place of the one that is installed."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"expected a Python file, got {path}")

    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)

    package, _, leaf = name.rpartition(".")
    setattr(importlib.import_module(package), leaf, module)  # for `import minigpt_lib.first`
    return module


def _compile(cell: dict) -> types.CodeType:
    """Compile a cell so that tracebacks show its lines."""
    name = f"<code cell {cell['number']}>"
    lines = io.StringIO(cell["source"]).readlines()
    linecache.cache[name] = (len(cell["source"]), None, lines, name)
    return compile(cell["source"], name, "exec")


def _seed() -> None:
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def _explain(error: BaseException, modules: list[dict]) -> dict:
    """Describe an error by its lines in cells and candidates; frames of other code are left out."""
    names = {module["path"]: module["name"] for module in modules}
    lines = []
    inside = None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename in names:
            inside = frame
            place = f"the module {names[frame.filename]}"
        elif frame.filename.startswith("<code cell"):
            place = frame.filename.strip("<>")
        else:
            continue
        lines.append(f"{place}, line {frame.lineno}, in {frame.name}: {frame.line}")

    lines += [line.rstrip("\n") for line in traceback.format_exception_only(error)]
    return {
        "text": "\n".join(lines),
        "missing": getattr(error, "name", None) if isinstance(error, NameError) else None,
        "module": names[inside.filename] if inside else None,
        "module_line": inside.lineno if inside else None,
    }


class Prover:
    """Hold the candidates and run their checks, plainly or under a stub."""

    def __init__(self, job: dict) -> None:
        self.job = job
        self.modules = {
            module["name"]: load_candidate(module["name"], Path(module["path"]))
            for module in job["modules"]
        }
        self.base: dict = {"__name__": "__check__"}
        for module in job["modules"]:
            exec(module["imports"], self.base)
        self.base.update(self.public_names())

        _seed()
        for cell in job["setup"]:
            exec(_compile(cell), self.base)
        self.codes = [_compile(cell) for cell in job["checks"]]
        self.used = [_names_in(cell["source"]) for cell in job["checks"]]

    def public_names(self) -> dict[str, object]:
        """Return the public names of all modules of the chapter, as every check sees them."""
        return {
            name: getattr(self.modules[module["name"]], name)
            for module in self.job["modules"]
            for name in module["public"]
        }

    def run(self, index: int, seconds: float | None = None, replaced: dict | None = None) -> None:
        """Run one check in a namespace of its own and let its exceptions through."""
        _seed()
        with time_limit(seconds):
            exec(self.codes[index], {**self.base, **(replaced or {})})

    def passes(self, index: int, seconds: float, replaced: dict) -> bool:
        """Return whether a check passes with some names replaced, silently and in limited time."""
        silent = io.StringIO()
        try:
            with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
                self.run(index, seconds, replaced)
        except (Exception, SystemExit, TooLong):
            return False
        return True

    def targets(self) -> list[stubs.Target]:
        """List what needs a watching check, over all modules of the chapter."""
        public = {module["name"]: module["public"] for module in self.job["modules"]}
        return stubs.targets(self.modules, public)

    def watchers(
        self, target: stubs.Target, seconds: list[float]
    ) -> tuple[list[int], dict[int, str]]:
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
                with target.replaced(self.modules, kind) as names:
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
        answer["error"] = {"stage": "import", **_explain(error, job["modules"])}
        return answer

    answer["checks"] = [_run_check(prover, index) for index in range(len(job["checks"]))]
    if any(check["failure"] for check in answer["checks"]):
        return answer

    seconds = [check["seconds"] for check in answer["checks"]]
    answer["targets"] = [_watch(prover, target, seconds) for target in prover.targets()]
    return answer


def _run_check(prover: Prover, index: int) -> dict:
    failure = None
    start = time.perf_counter()
    try:
        prover.run(index)
    except (Exception, SystemExit) as error:
        failure = _explain(error, prover.job["modules"])
    seconds = time.perf_counter() - start

    number = prover.job["checks"][index]["number"]
    return {"number": number, "seconds": seconds, "failure": failure}


def _watch(prover: Prover, target: stubs.Target, seconds: list[float]) -> dict:
    """Return which check watches over a target, and which named it but passed under a stub."""
    watching, asleep = prover.watchers(target, seconds)
    numbers = [check["number"] for check in prover.job["checks"]]
    return {
        "name": target.name,
        "by": [numbers[i] for i in watching],
        "asleep": {numbers[i]: kind for i, kind in asleep.items()},
    }


def main() -> None:
    """Prove the job whose file is the first argument."""
    for stream in (sys.stdout, sys.stderr):  # a check may print any character under any locale
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")

    path = Path(sys.argv[1])
    job = json.loads(path.read_text(encoding="utf-8"))
    answer = prove(job)
    path.with_suffix(".answer").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
