"""What the tests of several chapters share: faulty modules, a twin's code in Node, answers in another style."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from courseware import exporting, paths, prove
from courseware.build import build
from courseware.chapters import find_chapter
from courseware.exercises import find
from courseware.exercises.engine import judge
from minigpt_lib.data import get_batch


@cache
def _prover(number: str) -> tuple[str, prove.Prover]:
    """Return a chapter's module as text, and its checks with the set-up executed once."""
    chapter = find_chapter(number)
    candidate = build(chapter)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.py"
        path.write_text(candidate.source, encoding="utf-8")
        job = {
            "module": f"minigpt_lib.{candidate.module}",
            "path": str(path),
            "public": candidate.public,
            "imports": exporting._import_lines(candidate.source),
        }
        for kind, name in (("setup", "setup"), ("check", "checks")):
            job[name] = [{"number": c.number, "source": c.source} for c in chapter.of(kind)]
        with _restored(job["module"]):
            return candidate.source, prove.Prover(job)


@contextlib.contextmanager
def _restored(name: str):
    before = sys.modules.get(name)
    yield
    sys.modules.pop(name, None)
    if before is not None:
        sys.modules[name] = before


def survives(number: str, folder: Path, before: str = "", after: str = "") -> bool:
    """Return whether the chapter's module, with `before` replaced by `after`, passes all checks of its chapter."""
    source, prover = _prover(number)
    assert before in source, f"the module of chapter {number} has no line {before!r}"
    path, name = folder / "module.py", prover.job["module"]
    path.write_text(source.replace(before, after), encoding="utf-8")
    with _restored(name):
        prover.module = prove.load_candidate(name, path)
        names = {public: getattr(prover.module, public) for public in prover.job["public"]}
        return all(prover.passes(i, 60.0, names) for i in range(len(prover.codes)))


def in_node(twin: str, expression: str, data) -> object:
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
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def judged(name: str, answer, diagnosis: str) -> None:
    """Assert that the exercise calls the answer right (diagnosis "") or gives it this diagnosis."""
    verdict = judge(find(name), answer)
    assert (verdict.kind == "right") == (diagnosis == ""), verdict.message
    assert verdict.diagnosis == diagnosis, verdict.message


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
