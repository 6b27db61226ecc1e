"""What the tests of several chapters share: faulty modules, a twin's code in Node, answers in another style."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
from handlers import handlers_put_back
from mutation import mutate

from courseware import paths
from courseware.exercises import find
from courseware.exercises.engine import judge
from courseware.export import exporting, prove
from courseware.export.build import build
from courseware.export.notebooks import find_chapter
from minigpt_lib.data import get_batch

_seconds: defaultdict[tuple[str, int], float] = defaultdict(float)  # by chapter and check, so far


@cache
def _prover(number: str) -> tuple[dict[str, str], prove.Prover]:
    """Return the sources of a chapter's modules by name, and its checks with the set-up executed once."""
    chapter = find_chapter(number)
    candidates = build(chapter)
    with tempfile.TemporaryDirectory() as folder:
        job = exporting.job_of(chapter, candidates, Path(folder))
        with _restored(job):
            prover = prove.Prover(job)
    sources = {module["name"]: c.source for module, c in zip(job["modules"], candidates)}
    return sources, prover


@contextlib.contextmanager
def _restored(job: dict) -> Iterator[None]:
    """Bring back, however the block ends, the handlers of Ctrl-C and the modules that candidates replaced."""
    package = importlib.import_module("minigpt_lib")
    names = [module["name"] for module in job["modules"]]
    leaves = [name.rpartition(".")[2] for name in names]
    modules = {name: sys.modules.get(name) for name in names}
    attributes = {leaf: vars(package).get(leaf) for leaf in leaves}
    try:
        with handlers_put_back():  # a fault may leave another one
            yield
    finally:
        for name, module in modules.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
        for leaf, attribute in attributes.items():
            vars(package).pop(leaf, None)
            if attribute is not None:
                setattr(package, leaf, attribute)


def survives(number: str, folder: Path, before: str = "", after: str = "", check: str = "") -> bool:
    """Return whether a chapter's modules, with `before` replaced by `after`, pass the checks of the chapter.

    With `check`, only the one check whose title begins so is run.
    """
    return noticed_by(number, folder, before, after, check) is None


def noticed_by(
    number: str,
    folder: Path,
    before: str = "",
    after: str = "",
    check: str = "",
    in_setup: bool = False,
) -> int | None:
    """Return the code cell of a check that fails with `before` replaced by `after`, or None if all pass.

    Checks that took longest so far run last, since one that fails is enough. With `in_setup`, the functions
    that set-up cells define see the faulty modules too.
    """
    return first_failing(number, folder, _mutated(sources(number), before, after), check, in_setup)


def sources(number: str) -> dict[str, str]:
    """Return the sources of a chapter's modules by name."""
    return _prover(number)[0]


def first_failing(
    number: str,
    folder: Path,
    broken: dict[str, str],
    check: str = "",
    in_setup: bool = False,
    seconds: float = 60.0,
) -> int | None:
    """Return the code cell of a check that fails with these sources, or None if all pass; see `noticed_by`.

    A check that takes longer than `seconds` fails.
    """
    _, prover = _prover(number)
    base = dict(prover.base)

    with _restored(prover.job):
        for name, source in broken.items():
            path = folder / f"{name}.py"
            path.write_text(source, encoding="utf-8")
            prover.modules[name] = prove.load_candidate(name, path)

        names = prover.public_names()
        if in_setup:
            prover.base.update(names)
        try:
            for i in sorted(_checks(prover, check), key=lambda i: _seconds[number, i]):
                start = time.perf_counter()
                passed = prover.passes(i, seconds, names)
                _seconds[number, i] = max(_seconds[number, i], time.perf_counter() - start)
                if not passed:
                    return prover.job["checks"][i]["number"]
        finally:
            prover.base.update(base)
    return None


def _mutated(sources: dict[str, str], before: str, after: str) -> dict[str, str]:
    """Return the sources with `before` replaced by `after` in the first module that has it."""
    for name, source in sources.items():
        with contextlib.suppress(AssertionError):
            return {**sources, name: mutate(source, before, after)}
    raise AssertionError(f"the modules {', '.join(sources)} have no code {before!r}")


def _checks(prover: prove.Prover, title: str) -> list[int]:
    """Return the places of the checks that are to run: all, or the one whose title begins so."""
    firsts = [cell["source"].partition("\n")[0] for cell in prover.job["checks"]]
    found = [i for i, first in enumerate(firsts) if first.startswith(f"#| check: {title}")]
    assert len(found) == 1 or not title, f"{len(found)} checks begin with {title!r}"
    return found if title else list(range(len(firsts)))


def in_node(twin: str, expression: str, data: object) -> object:
    """Evaluate a JavaScript expression with the twin's module as `m` and `data`; skip where there is no Node."""
    if shutil.which("node") is None:
        pytest.skip("no node found: the twin is compared where there is one")
    module = (paths.ROOT / "book" / "_static" / "twins" / twin).as_uri()
    code = (
        f"const m = await import({json.dumps(module)});"
        f"const data = {json.dumps(data)};"
        f"process.stdout.write(JSON.stringify({expression}));"
    )
    command = ["node", "--input-type=module", "--no-warnings", "-e", code]
    answer = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def help_of(module: str) -> str:
    """Return what `python -m MODULE --help` prints, without starting another Python."""
    with (
        mock.patch.object(sys, "argv", [module, "--help"]),
        contextlib.redirect_stdout(io.StringIO()) as shown,
        contextlib.suppress(SystemExit),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)  # it has been imported already
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return shown.getvalue()


def judged(name: str, answer, diagnosis: str) -> None:
    """Assert that the exercise calls the answer right (diagnosis "") or gives it this diagnosis."""
    verdict = judge(find(name), answer)
    found = f"{verdict.kind}: {verdict.diagnosis!r} ({verdict.message})"
    assert (verdict.kind == "right") == (diagnosis == ""), found
    assert verdict.diagnosis == diagnosis, found


# Batches with the usual mistakes, for any training function that takes `draw`.


def unshifted(tokens, batch_size, block_size, generator):
    x, _ = get_batch(tokens, batch_size, block_size, generator)
    return x, x


def shifted_twice(tokens, batch_size, block_size, generator):
    x, y = get_batch(tokens, batch_size, block_size + 1, generator)
    return x[:, :-1], y[:, 1:]


def backwards(tokens, batch_size, block_size, generator):
    x, y = get_batch(tokens, batch_size, block_size, generator)
    return y, x
