"""Verified export: a chapter's code enters the library only after it has been proved.

`export("05")` is the last cell of chapter 05, and `python -m courseware export 05` does the same from the
command line. The order of the work is the guarantee: read, compare with what was run, build a candidate, prove
it in a fresh interpreter, and only then replace the module, in one step.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from courseware import paths, progress, session
from courseware.build import Candidate, build, refuse_missing_name
from courseware.chapters import Chapter, all_chapters, find_chapter
from courseware.errors import ExportRefused
from courseware.report import Proofs

PROOF_SECONDS = 600  # no chapter's checks come near this; a check that never ends does
LOCK_SECONDS = 120


def export(chapter: str | int | None = None) -> Proofs:
    """Prove the chapter's exported cells and put them into `minigpt_lib`.

    Args:
        chapter: "05", 5 or "05_attention". Without it, the notebook that JupyterLab says is running.

    Returns:
        The table of what was proved, against what, and how long it took.

    Raises:
        ExportRefused: with the cell and the remedy; the module on disk is then unchanged.
    """
    start = time.perf_counter()
    found = find_chapter(chapter if chapter is not None else _running_notebook())
    executed = session.executed_cells()
    if executed is not None:
        session.refuse_other_notebook(found)
        session.refuse_other_state(found, executed)
    with _locked(found):
        candidate = build(found)
        answer = prove(found, candidate)
        target = paths.LIBRARY / f"{candidate.module}.py"
        _replace(target, candidate.source)
    progress.record("chapter", found.stem, "exported")
    _forget(candidate.module, target)
    return Proofs(found, candidate, answer, target, time.perf_counter() - start)


def _running_notebook() -> str:
    name = os.environ.get("JPY_SESSION_NAME", "")
    if not name.endswith(".ipynb"):
        raise ExportRefused(
            "export() cannot tell which chapter this is",
            remedy='name it, for example export("05")',
        )
    return Path(name).name


@contextlib.contextmanager
def _locked(chapter: Chapter):
    """Let one export at a time write to the library."""
    if chapter.module is None:
        build(chapter)  # raises the refusal that says why
    lock_path = paths.STATE / "export.lock"
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path, timeout=LOCK_SECONDS)
        lock.acquire()
    except Timeout:
        raise ExportRefused(
            f"another export has held the library for {LOCK_SECONDS} seconds",
            remedy="let it finish, or restart the kernel of the other notebook",
        ) from None
    except OSError as error:
        raise _not_writable(lock_path.parent, error) from None
    try:
        yield
    finally:
        lock.release()


def _not_writable(folder: Path, error: OSError) -> ExportRefused:
    return ExportRefused(
        f"{folder} cannot be written to ({error.strerror or error})",
        remedy="make the folder writable (chmod u+w), free some disk space, "
        "or clone the course to a folder of your own",
    )


def _replace(target: Path, source: str) -> None:
    for left_over in target.parent.glob(f".{target.name}.*.tmp"):
        left_over.unlink(missing_ok=True)
    try:
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(13, "the file is read-only")
        if not target.exists() or target.read_text(encoding="utf-8") != source:
            paths.write_atomic(target, source)
    except OSError as error:
        place = target if target.exists() else target.parent
        raise _not_writable(place, error) from None


def _forget(module: str, target: Path) -> None:
    """Make the next import in this process see the new file."""
    with contextlib.suppress(OSError):
        Path(importlib.util.cache_from_source(str(target))).unlink(missing_ok=True)
    sys.modules.pop(f"minigpt_lib.{module}", None)
    importlib.invalidate_caches()


def prove(chapter: Chapter, candidate: Candidate) -> dict:
    """Run the chapter's checks in a fresh interpreter and return the answer; refuse unless all is proved."""
    checks = chapter.of("check")
    if not checks:
        raise ExportRefused(
            f"{chapter.stem} proves nothing: it has no cell that begins with `#| check:`",
            remedy="follow each exported cell with a check that compares it with an independent reference",
        )
    name = f"proof-{chapter.stem}-"  # other chapters may be proved at the same time
    for left_over in paths.STATE.glob(f"{name}*"):  # of an export that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=name, dir=paths.STATE) as folder:
        answer = _run_prover(chapter, candidate, Path(folder))
    if answer["error"]:
        _refuse_failure(chapter, candidate, answer["error"], "the module and the setup cells")
    for check, cell in zip(answer["checks"], checks, strict=True):
        if check["failure"]:
            _refuse_failure(chapter, candidate, check["failure"], cell.label)
    _refuse_unwatched(chapter, answer)
    return answer


def _run_prover(chapter: Chapter, candidate: Candidate, folder: Path) -> dict:
    module_path, job_path = folder / f"{candidate.module}.py", folder / "proof.json"
    module_path.write_text(candidate.source, encoding="utf-8")
    job = {
        "module": f"minigpt_lib.{candidate.module}",
        "path": str(module_path),
        "public": candidate.public,
        "imports": _import_lines(candidate.source),
        "setup": [{"number": c.number, "source": c.source} for c in chapter.of("setup")],
        "checks": [{"number": c.number, "source": c.source} for c in chapter.of("check")],
    }
    job_path.write_text(json.dumps(job), encoding="utf-8")
    (folder / "scratch").mkdir()
    search = os.pathsep.join([str(paths.ROOT), str(paths.CODE)])
    environment = {**os.environ, "PYTHONPATH": search, "MPLBACKEND": "agg"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "courseware.prove", str(job_path)],
            capture_output=True,
            text=True,
            cwd=folder / "scratch",
            env=environment,
            timeout=PROOF_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ExportRefused(
            f"the checks were still running after {PROOF_SECONDS} seconds",
            remedy="look for a loop that does not end; checks should take seconds",
        ) from None
    answer_path = job_path.with_suffix(".answer")
    if not answer_path.exists():
        raise ExportRefused(
            "the interpreter that ran the checks stopped before it could answer",
            details=done.stderr[-2000:],
            remedy="look for a cell that ends the process or uses all memory",
        )
    return json.loads(answer_path.read_text(encoding="utf-8"))


def _import_lines(source: str) -> str:
    """Return the module's own imports, which its checks may use too."""
    lines = source.split("__all__", 1)[0].split('"""', 2)[2].strip()
    return lines.replace("from __future__ import annotations", "")


def _refuse_failure(chapter: Chapter, candidate: Candidate, failure: dict, where: str) -> None:
    line = failure["module_line"]
    cell = candidate.cell_at(line) if line else None
    if failure["missing"] and cell:
        refuse_missing_name(failure["missing"], cell.label, chapter)
    remedy = "correct the code, run its cell and its check again, save, and export again"
    if failure["missing"]:
        remedy = (
            f"`{failure['missing']}` is not known to the check: a check sees the exported names, "
            "what `#| setup` cells define, and its own imports, nothing else"
        )
    raise ExportRefused(
        "a check failed"
        if failure.get("stage") != "import"
        else "the module or a setup cell failed",
        where=where + (f", raised from {cell.label}" if cell else ""),
        details=failure["text"],
        remedy=remedy,
    )


def _refuse_unwatched(chapter: Chapter, answer: dict) -> None:
    unwatched = [target for target in answer["targets"] if not target["by"]]
    if not unwatched:
        return
    labels = {str(cell.number): cell.label for cell in chapter.of("check")}
    lines = []
    for target in unwatched:
        asleep = target["asleep"].items()
        passed = "; ".join(f"{labels[n]} still passes when it {kind}" for n, kind in asleep)
        lines.append(f"  {target['name']}: {passed or 'no check names it'}")
    names = ", ".join(target["name"] for target in unwatched)
    raise ExportRefused(
        f"no check would notice if {names} were broken",
        details="\n".join(lines),
        remedy="write a `#| check:` cell that compares its result with a value you know by other means; "
        "if it is only a helper, give it a name with a leading underscore",
    )


def drift(chapter: Chapter) -> str:
    """Return the difference between a chapter's module on disk and what its notebook would write, or ''."""
    candidate = build(chapter)
    target = paths.LIBRARY / f"{candidate.module}.py"
    old = target.read_text(encoding="utf-8") if target.exists() else ""
    lines = difflib.unified_diff(
        old.splitlines(True),
        candidate.source.splitlines(True),
        f"minigpt_lib/{target.name} (on disk)",
        f"minigpt_lib/{target.name} (from {chapter.path.name})",
    )
    return "".join(lines)


def verify(which: list[str] | None = None) -> dict[str, str]:
    """Compare modules with their notebooks; return what differs, by file name. Empty means all is in step."""
    chapters = [find_chapter(name) for name in which] if which else all_chapters()
    found = {f"{c.module}.py": drift(c) for c in chapters if c.module}
    problems = {name: text for name, text in found.items() if text}
    if not which:
        known = {*found, "__init__.py"}
        for path in sorted(paths.LIBRARY.glob("*.py")):
            if path.name not in known:
                problems[path.name] = f"minigpt_lib/{path.name}: no chapter writes this file\n"
    return problems
