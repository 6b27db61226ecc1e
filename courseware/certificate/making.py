"""Write a certificate, and say of one whether it holds.

`make certificate` writes `certificate/certificate.json` and a page for people beside it. `python -m courseware
certificate --verify FILE` proves everything in the file again from the folder in which it is run.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from courseware import paths, progress
from courseware.certificate import page
from courseware.certificate.deriving import ChapterProof, ExerciseProof, Proof, Say, derive
from courseware.exercises import find

FORMAT = "minigpt-certificate 1"
NAME = "certificate"
_STATUSES = ("exported", "course", "right")

T = TypeVar("T", ChapterProof, ExerciseProof)


@dataclass(frozen=True)
class Written:
    """What `make_certificate` did; displays as its last lines."""

    folder: Path
    proof: Proof

    def __str__(self) -> str:
        exported = sum(chapter.status == "exported" for chapter in self.proof.chapters)
        right = sum(exercise.status == "right" for exercise in self.proof.exercises)
        proved = f"{page.count(exported, 'chapter')} and {page.count(right, 'exercise')}"
        lines = [f"Proved again: {proved}."]
        lines += [f"Not certified: {line}" for line in self.proof.failures]
        lines.append(f"Look at it: {self.folder / NAME}.html")
        lines.append(
            f"Verify it: python -m courseware certificate --verify {self.folder / NAME}.json"
        )
        return "\n".join(lines)


def make_certificate(folder: Path | None = None, say: Say = print) -> Written:
    """Prove the learner's work again, and write a page and a JSON file about it.

    What fails is left out of both and reported. `folder` is `certificate` in the course's folder by default.
    """
    target = folder or paths.ROOT / NAME
    done = progress.read()
    solved = {name for name, status in done.get("exercise", {}).items() if status == "right"}
    proof = derive(set(done.get("chapter", {})), solved, say)

    data = {
        "format": FORMAT,
        "made": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "course": _course(),
        "versions": _versions(),
        "chapters": [asdict(c) for c in proof.chapters if c.status != "failed"],
        "exercises": [asdict(e) for e in proof.exercises if e.status != "failed"],
    }
    titles = {e.name: find(e.name).task.title for e in proof.exercises if e.status == "right"}
    paths.write_atomic(target / f"{NAME}.json", json.dumps(data, indent=1) + "\n")
    paths.write_atomic(target / f"{NAME}.html", page.to_html(data, titles))
    return Written(target, proof)


def verify_certificate(file: Path, say: Say = print) -> list[str]:
    """Prove everything in a certificate again; return what does not hold, empty if all does.

    Raises ValueError if the file is not a certificate.
    """
    _, chapters, exercises = read(file)
    exported = {chapter.chapter for chapter in chapters if chapter.status == "exported"}
    proof = derive(exported, {exercise.name for exercise in exercises}, say)
    return problems_of(chapters, exercises, proof)


def problems_of(
    chapters: Sequence[ChapterProof], exercises: Sequence[ExerciseProof], proof: Proof
) -> list[str]:
    """Return what a certificate's chapters and exercises say that a new proof does not."""
    problems = []
    now = {chapter.chapter: chapter for chapter in proof.chapters}
    for claimed in chapters:
        problems += _chapter_problems(claimed, now.get(claimed.chapter))

    found = {exercise.name: exercise for exercise in proof.exercises}
    for claim in exercises:
        problems += _exercise_problems(claim, found.get(claim.name))
    return problems


def read(file: Path) -> tuple[dict[str, Any], list[ChapterProof], list[ExerciseProof]]:
    """Return what a certificate says: all of it, its chapters, its exercises.

    Raises ValueError if the file cannot be read or is not a certificate of this format.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a certificate: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f'{file} is not a certificate: expected the format "{FORMAT}"')

    try:
        chapters = [_entry(ChapterProof, entry) for entry in data["chapters"]]
        exercises = [_entry(ExerciseProof, entry) for entry in data["exercises"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is not a whole certificate: {error}") from None
    if not chapters and not exercises:
        raise ValueError(f"{file} certifies nothing: it has no chapter and no exercise")
    return data, chapters, exercises


def _entry(kind: type[T], entry: dict[str, Any]) -> T:
    """Return a chapter or an exercise of the file; TypeError or ValueError if it is not one."""
    proof = kind(**entry)
    for field in fields(kind):
        value = getattr(proof, field.name)
        expected = {"own": bool, "own_checks": bool, "modules": dict}.get(field.name, str)
        if not isinstance(value, expected):
            raise TypeError(f"{field.name} is {value!r}")
    if proof.status not in _STATUSES:
        raise ValueError(f"the status {proof.status!r} is unknown")
    return proof


# --- what does not hold ---


def _chapter_problems(claimed: ChapterProof, now: ChapterProof | None) -> list[str]:
    number = claimed.chapter[:2]
    if now is None:
        return [f"chapter {number}: this course has no {claimed.chapter}"]

    problems = []
    if now.notebook != claimed.notebook:
        problems.append(f"chapter {number}: the notebook has changed")
    if now.status == "failed":
        return [*problems, f"chapter {number}: {now.why}"]

    for name in sorted(claimed.modules.keys() | now.modules.keys()):
        if claimed.modules.get(name) != now.modules.get(name):
            problems.append(f"chapter {number}: the module {name} is another one")
    if now.own != claimed.own:
        whose = "the learner's own" if now.own else "the course's"
        problems.append(f"chapter {number}: the code is {whose}")
    if now.own_checks and not claimed.own_checks:
        problems.append(f"chapter {number}: its checks are not the course's")
    return problems


def _exercise_problems(claimed: ExerciseProof, now: ExerciseProof | None) -> list[str]:
    if now is None or now.chapter != claimed.chapter:
        return [f"exercise {claimed.name}: this course has none of that name in {claimed.chapter}"]
    if now.status == "failed":
        return [f"exercise {claimed.name}: it is not right"]
    if now.notebook != claimed.notebook:
        return [f"exercise {claimed.name}: the notebook has changed"]
    return []


# --- where it was made ---


def _versions() -> dict[str, str]:
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _course() -> dict[str, str]:
    """Return which course this is: its version, its commit, and a digest of the code that checks."""
    import tomllib

    settings = tomllib.loads((paths.CODE / "pyproject.toml").read_text(encoding="utf-8"))
    return {
        "version": settings["project"]["version"],
        "commit": _commit(),
        "checks": _digest_of_code(sorted((paths.CODE / "courseware").rglob("*.py"))),
    }


def _commit() -> str:
    command = ["git", "-C", str(paths.CODE), "log", "-1", "--format=%H"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _digest_of_code(files: Sequence[Path]) -> str:
    """Return the SHA-256 of several files and their names."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(paths.CODE).as_posix().encode("utf-8") + b"\0")
        digest.update(file.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()
