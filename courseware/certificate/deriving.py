"""Prove a learner's work again in a clean copy of it: every exported chapter, every solved exercise.

The copy is a git clone of the folder with the notebooks of the working tree, so nothing counts that is neither in the
course's history nor in a notebook. Each export and each exercise notebook runs in a Python of its own, without the
network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from courseware import paths
from courseware.exercises import registry
from courseware.export.errors import ExportRefused
from courseware.export.notebooks import Chapter, all_chapters
from courseware.export.reset import checksum, original_notebook, read_list

EXPORT_SECONDS = 900  # the prover itself stops after 600
REPLAY_SECONDS = 900
_LEFT_OUT = (".git", ".venv", ".course", "data", "runs", "_build", "certificate", "__pycache__")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "GIT_ALLOW_PROTOCOL": "file"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class ChapterProof:
    """What became of a chapter: "exported" again, "course" for the course's own, or "failed"."""

    chapter: str  # such as "05_attention"
    status: str
    own: bool  # whether its code differs from the course's
    own_checks: bool  # whether its checks or its set-up differ from the course's
    notebook: str  # sha256 of the notebook
    modules: dict[str, str]  # module -> sha256 of what it exports
    why: str = ""  # what failed, in one line


@dataclass(frozen=True)
class ExerciseProof:
    """What became of an exercise that counts as solved: "right" again, or "failed"."""

    name: str
    chapter: str
    status: str
    notebook: str  # sha256 of the exercise notebook


@dataclass(frozen=True)
class Proof:
    """Everything that was proved again, chapter by chapter and exercise by exercise."""

    chapters: list[ChapterProof]
    exercises: list[ExerciseProof]

    @property
    def failures(self) -> list[str]:
        """Return a line for each chapter and each exercise that failed."""
        lines = [f"chapter {c.chapter[:2]}: {c.why}" for c in self.chapters if c.status == "failed"]
        wrong = [e for e in self.exercises if e.status == "failed"]
        return lines + [f"exercise {e.name} of chapter {e.chapter[:2]} is not right" for e in wrong]


def derive(exported: Collection[str], solved: Collection[str], say: Say = print) -> Proof:
    """Prove chapters and exercises again in a clean copy of this folder.

    Args:
        exported: the chapters that the learner has exported, such as "05_attention"; all others must be the course's.
        solved: the names of the exercises that the learner has solved.
        say: is given a line for each chapter and each exercise notebook as soon as it is done.
    """
    with clean_copy() as copy:
        chapters = [_prove(chapter, exported, copy, say) for chapter in all_chapters()]
        exercises = _replay(solved, copy, say)
    return Proof([proof for proof in chapters if proof is not None], exercises)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a text file with `\\n` at the line ends, 64 hex digits; "" if there is no such file."""
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


# --- the clean copy ---


@contextlib.contextmanager
def clean_copy() -> Iterator[Path]:
    """Yield a temporary folder with the course as committed and the notebooks as they are now."""
    with tempfile.TemporaryDirectory(prefix="certificate-") as folder:
        copy = Path(folder) / "course"
        if not _cloned(copy):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(paths.ROOT, copy, ignore=_left_out)
        for name in ("notebooks", "exercises"):
            (copy / name).mkdir(exist_ok=True)
            for notebook in (paths.ROOT / name).glob("[0-9]*.ipynb"):
                shutil.copy(notebook, copy / name / notebook.name)
        yield copy


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Return what is not copied: in the course's own folder, everything that is not part of the course."""
    left_out = set(_LEFT_OUT) if Path(folder) == paths.ROOT else {"__pycache__"}
    return left_out & set(names)


def _cloned(copy: Path) -> bool:
    """Clone this folder's git repository; return False if it has none, or git cannot."""
    if not (paths.ROOT / ".git").exists():
        return False
    command = ["git", "clone", "--quiet", "--depth=1", paths.ROOT.as_uri(), str(copy)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=300, env={**os.environ, **_OFFLINE}
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _run(copy: Path, words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a module of the course in the copy; a run that takes too long has failed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MINIGPT", "JPY_"))}
    environment = kept | _OFFLINE
    environment["MINIGPT_ROOT"] = str(copy)
    environment["PYTHONPATH"] = os.pathsep.join([str(copy), str(paths.CODE)])
    command = [sys.executable, "-m", *words]
    try:
        return subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"it took longer than {seconds:.0f} s")


# --- chapters ---


def _prove(
    chapter: Chapter, exported: Collection[str], copy: Path, say: Say
) -> ChapterProof | None:
    """Export a chapter again, or compare it with the course's own; None if it builds no part of the library."""
    start = time.perf_counter()
    try:
        modules = chapter.modules
    except ExportRefused as refusal:
        proof = ChapterProof(
            chapter.stem, "failed", True, True, sha256(chapter.path), {}, refusal.why
        )
    else:
        if not modules:
            return None
        is_exported = chapter.stem in exported
        prove = _export if is_exported else _compare
        proof = prove(chapter, modules, copy)

    words = {"exported": "proved", "course": "the course's own", "failed": f"failed: {proof.why}"}
    say(f"{chapter.stem}: {words[proof.status]} ({time.perf_counter() - start:.0f} s)")
    return proof


def _export(chapter: Chapter, modules: list[str], copy: Path) -> ChapterProof:
    done = _run(copy, ["courseware", "export", chapter.stem], EXPORT_SECONDS)
    digests = {name: sha256(copy / "minigpt_lib" / f"{name}.py") for name in modules}

    why = ""
    if done.returncode:
        why = in_one_line(done.stderr)
        digests = {}
    for name, digest in digests.items():
        if sha256(paths.LIBRARY / f"{name}.py") != digest:
            why = (
                f"minigpt_lib/{name}.py is not what notebooks/{chapter.path.name} exports; "
                f"run: python -m courseware export {chapter.stem[:2]}"
            )
    status = "failed" if why else "exported"
    own = _differs_from_course(chapter.stem, modules, copy)
    own_checks = _checks_differ_from_course(chapter)
    return ChapterProof(chapter.stem, status, own, own_checks, sha256(chapter.path), digests, why)


def _compare(chapter: Chapter, modules: list[str], copy: Path) -> ChapterProof:
    """Return the proof of a chapter that the learner has not exported: its modules must be the course's own."""
    digests = {name: sha256(paths.LIBRARY / f"{name}.py") for name in modules}
    why = ""
    if _differs_from_course(chapter.stem, modules, paths.ROOT):
        why = (
            "its part of the library differs from the course's, but was never exported; "
            f"run: python -m courseware export {chapter.stem[:2]}, or: make reset CH={chapter.stem[:2]}"
        )
    else:
        for name in modules:
            shutil.copy(paths.LIBRARY / f"{name}.py", copy / "minigpt_lib" / f"{name}.py")
    status = "failed" if why else "course"
    return ChapterProof(chapter.stem, status, bool(why), False, sha256(chapter.path), digests, why)


def _differs_from_course(stem: str, modules: list[str], root: Path) -> bool:
    """Return whether a chapter's modules in a folder are others than the course ships."""
    listed = read_list().get(stem, {})
    for name in modules:
        path = root / "minigpt_lib" / f"{name}.py"
        try:
            found = checksum(path.read_bytes())
        except OSError:
            return True
        if found != listed.get(f"minigpt_lib/{name}.py"):
            return True
    return False


def _checks_differ_from_course(chapter: Chapter) -> bool:
    """Return whether a notebook proves its code by other cells than the course's own notebook."""
    try:
        original = original_notebook(chapter.stem)
    except ExportRefused:  # nobody can tell
        return True
    return any(
        [cell.source for cell in chapter.of(kind)] != [cell.source for cell in original.of(kind)]
        for kind in ("setup", "check")
    )


def in_one_line(message: str) -> str:
    """Return a refusal in one line: what was refused, where, and the last line of its details."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    why = next(
        (x.removeprefix("Not exported: ") for x in lines if x.startswith("Not exported:")), ""
    )
    where = next((x.removeprefix("Where: ") for x in lines if x.startswith("Where:")), "")
    details = [x for x in lines if not x.startswith(("Not exported:", "Where:", "What to do:"))]
    parts = [why, where, details[-1] if details else ""]
    return "; ".join(part for part in parts if part) or "the export stopped without a message"


# --- exercises ---


def _replay(solved: Collection[str], copy: Path, say: Say) -> list[ExerciseProof]:
    """Run the notebooks of the solved exercises, and return what their checks say."""
    wanted = [exercise for exercise in registry().values() if exercise.name in solved]
    progress = copy / ".course" / "progress.json"

    proofs = []
    for stem in dict.fromkeys(exercise.stem for exercise in wanted):
        start = time.perf_counter()
        progress.unlink(missing_ok=True)
        _run(copy, ["courseware.certificate.replay", stem], REPLAY_SECONDS)
        states = _exercise_states(progress)

        names = [exercise.name for exercise in wanted if exercise.stem == stem]
        right = [name for name in names if states.get(name) == "right"]
        digest = sha256(paths.ROOT / "exercises" / f"{stem}.ipynb")
        for name in names:
            proofs.append(ExerciseProof(name, stem, "right" if name in right else "failed", digest))
        seconds = time.perf_counter() - start
        say(f"exercises {stem}: {len(right)} of {len(names)} right again ({seconds:.0f} s)")
    return proofs


def _exercise_states(progress: Path) -> dict[str, str]:
    try:
        return json.loads(progress.read_text(encoding="utf-8")).get("exercise", {})
    except (OSError, ValueError):
        return {}
