"""Verified export: a chapter's code enters the library only after it has been proved.

`export("05")` is the last cell of chapter 05, and `python -m courseware export 05` does the same from the
command line. The order of the work is the guarantee: read, compare with what was run, build the candidates, prove
them in a fresh interpreter, and only then replace the chapter's modules, all or none.
"""

from __future__ import annotations

import difflib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from courseware import paths, progress
from courseware.export import session, transaction
from courseware.export.build import Candidate, build, refuse_missing_name
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import Cell, Chapter, all_chapters, find_chapter
from courseware.export.report import Proofs

PROOF_SECONDS = 600  # no chapter's checks come near this; a check that never ends does


def export(chapter: str | int | None = None) -> Proofs:
    """Prove the chapter's exported cells and put them into `minigpt_lib`.

    Args:
        chapter: "05", 5 or "05_attention". Without it, the notebook that JupyterLab says is running.

    Returns:
        The table of what was proved, against what, and how long it took.

    Raises:
        ExportRefused: with the cell and the remedy; the modules on disk are then unchanged.
    """
    start = time.perf_counter()
    found = find_chapter(chapter if chapter is not None else _running_notebook())
    executed = session.executed_cells()
    if executed is not None:
        session.refuse_other_notebook(found)
        session.refuse_other_state(found, executed)
    if not found.modules:
        build(found)  # raises the refusal that says why

    with transaction.locked():
        candidates = build(found)
        answer = prove(found, candidates)
        transaction.replace_all({c.path: c.source for c in candidates})

    progress.record("chapter", found.stem, "exported")
    _forget(candidates)
    return Proofs(found, candidates, answer, time.perf_counter() - start)


def _running_notebook() -> str:
    name = os.environ.get("JPY_SESSION_NAME", "")
    if not name.endswith(".ipynb"):
        raise ExportRefused(
            "export() cannot tell which chapter this is",
            remedy='name it, for example export("05")',
        )
    return Path(name).name


def _forget(candidates: list[Candidate]) -> None:
    """Make the next import in this process see the new files."""
    package = sys.modules.get("minigpt_lib")
    for candidate in candidates:
        sys.modules.pop(f"minigpt_lib.{candidate.module}", None)
        if package is not None:
            vars(package).pop(candidate.module, None)
    importlib.invalidate_caches()


# --- the proof ---


def prove(chapter: Chapter, candidates: list[Candidate]) -> dict:
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
        answer = _run_prover(job_of(chapter, candidates, Path(folder)), Path(folder))

    if answer["error"]:
        _refuse_failure(
            chapter, candidates, answer["error"], "the exported cells and the setup cells"
        )
    for check, cell in zip(answer["checks"], checks, strict=True):
        if check["failure"]:
            _refuse_failure(chapter, candidates, check["failure"], cell.label)
    _refuse_unwatched(chapter, answer)
    return answer


def job_of(chapter: Chapter, candidates: list[Candidate], folder: Path) -> dict:
    """Write the candidates into `folder` and describe in plain data what the prover must do."""
    modules = []
    for candidate in candidates:
        path = folder / candidate.path.name
        path.write_bytes(candidate.source.encode("utf-8"))
        modules.append(
            {
                "name": f"minigpt_lib.{candidate.module}",
                "path": str(path),
                "public": candidate.public,
                "imports": candidate.imports,
            }
        )
    return {
        "modules": modules,
        "setup": [_plain(cell) for cell in chapter.of("setup")],
        "checks": [_plain(cell) for cell in chapter.of("check")],
    }


def _plain(cell: Cell) -> dict:
    return {"number": cell.number, "source": cell.source}


def _run_prover(job: dict, folder: Path) -> dict:
    job_path = folder / "proof.json"
    job_path.write_text(json.dumps(job), encoding="utf-8")
    scratch = folder / "scratch"
    scratch.mkdir()

    search = os.pathsep.join([str(paths.ROOT), str(paths.CODE)])
    environment = {**os.environ, "PYTHONPATH": search, "MPLBACKEND": "agg"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "courseware.export.prove", str(job_path)],
            capture_output=True,
            cwd=scratch,
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
            details=done.stderr.decode("utf-8", errors="replace")[-2000:],
            remedy="look for a cell that ends the process or uses all memory",
        )
    return json.loads(answer_path.read_text(encoding="utf-8"))


def _refuse_failure(
    chapter: Chapter, candidates: list[Candidate], failure: dict, where: str
) -> None:
    cell = _failing_cell(candidates, failure)
    if failure["missing"] and cell:
        refuse_missing_name(failure["missing"], cell.label, chapter)

    remedy = "correct the code, run its cell and its check again, save, and export again"
    if failure["missing"]:
        remedy = (
            f"`{failure['missing']}` is not known to the check: a check sees the exported names, "
            "what `#| setup` cells define, and its own imports, nothing else"
        )
    at_import = failure.get("stage") == "import"
    raise ExportRefused(
        "the module or a setup cell failed" if at_import else "a check failed",
        where=f"{where}, raised from {cell.label}" if cell else where,
        details=failure["text"],
        remedy=remedy,
    )


def _failing_cell(candidates: list[Candidate], failure: dict) -> Cell | None:
    """Return the cell whose line in a module raised the failure, if it was raised there."""
    for candidate in candidates:
        if failure["module"] == f"minigpt_lib.{candidate.module}":
            return candidate.cell_at(failure["module_line"])
    return None


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


# --- the library compared with the chapters ---


def drift(chapter: Chapter, course: list[Chapter] | None = None) -> dict[str, str]:
    """Compare a chapter's modules on disk with what its notebook would write.

    Returns:
        A unified diff for each file that differs, by file name.
    """
    differences = {}
    for candidate in build(chapter, course):
        name = candidate.path.name
        old = _text_of(candidate.path)
        lines = difflib.unified_diff(
            io.StringIO(old).readlines(),
            io.StringIO(candidate.source).readlines(),
            f"minigpt_lib/{name} (on disk)",
            f"minigpt_lib/{name} (from {chapter.path.name})",
        )
        difference = "".join(lines)
        if difference:
            differences[name] = difference
    return differences


def _text_of(path: Path) -> str:
    """Return the text of a module, '' if there is none, with `\\n` at the line ends as in every module."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    return content.decode("utf-8", errors="backslashreplace").replace("\r\n", "\n")


def verify(which: list[str] | None = None) -> dict[str, str]:
    """Compare modules with their notebooks; return what differs, by file name. Empty means all is in step."""
    transaction.recover()
    course = all_chapters()
    chapters = [find_chapter(name) for name in which] if which else course

    problems: dict[str, str] = {}
    known = {"__init__.py"}
    for chapter in chapters:
        if chapter.modules:
            problems |= drift(chapter, course)
            known |= {f"{module}.py" for module in chapter.modules}

    if not which:
        for path in sorted(paths.LIBRARY.glob("*.py")):
            if path.name not in known:
                problems[path.name] = f"minigpt_lib/{path.name}: no chapter writes this file\n"
    return problems
