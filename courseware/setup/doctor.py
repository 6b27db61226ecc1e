"""Look at this computer and say whether it is ready for the course, and what would make it better."""

from __future__ import annotations

import html
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from courseware import paths

OLDEST, NEWEST = (3, 11), (3, 13)  # versions of Python, as in pyproject.toml
PACKAGES = ("torch", "numpy", "jupyterlab", "tiktoken", "datasets", "ipywidgets", "matplotlib")
FREE_GIB = 2.0  # data, checkpoints and Arrow files of the whole course stay below this
MEMORY_GIB = 4.0  # with less, two notebooks at a time may not fit


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and advice if that is not good enough."""

    what: str
    found: str
    advice: str = ""

    @property
    def ok(self) -> bool:
        return not self.advice


class Report:
    """All findings; a notebook shows them as a table."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = findings

    @property
    def ready(self) -> bool:
        """Whether every finding is fine."""
        return all(finding.ok for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The report in one sentence."""
        if self.ready:
            return "This computer is ready for the course."
        return "The course may not run well here: see the advice."

    def __repr__(self) -> str:
        width = max(len(finding.what) for finding in self.findings)
        lines = []
        for finding in self.findings:
            mark = "ok " if finding.ok else "!! "
            lines.append(f"{mark} {finding.what:<{width}}  {finding.found}")
        lines += [
            f"- {finding.what}: {finding.advice}" for finding in self.findings if not finding.ok
        ]
        return "\n".join([*lines, self.verdict])

    def _repr_html_(self) -> str:
        rows = "".join(_row(finding) for finding in self.findings)
        return f"<table><tbody>{rows}</tbody></table><p><strong>{self.verdict}</strong></p>"


def _row(finding: Finding) -> str:
    mark = "&#10003;" if finding.ok else "<strong>!</strong>"
    advice = "" if finding.ok else f"<br><em>{html.escape(finding.advice)}</em>"
    return (
        f"<tr><td>{mark}</td>"
        f'<td style="text-align:left;padding:0 1em 0 0.5em">{html.escape(finding.what)}</td>'
        f'<td style="text-align:left">{html.escape(finding.found)}{advice}</td></tr>'
    )


def report() -> Report:
    """Return what there is to say about Python, packages, processor, memory, accelerator and disk."""
    return Report([_python(), *_packages(), _processor(), _memory(), _accelerator(), _disk()])


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()}"
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return Finding("Python", found)
    return Finding("Python", found, "use Python 3.11, 3.12 or 3.13: make lab PYTHON=python3.13")


def _packages() -> list[Finding]:
    """Return one finding for all installed packages, and one for each that is missing."""
    present = []
    missing = []
    for name in PACKAGES:
        try:
            present.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            advice = "run `make lab` or pip install -r requirements.txt"
            missing.append(Finding(name, "not installed", advice))
    return [Finding("packages", ", ".join(present)), *missing]


def _processor() -> Finding:
    import torch

    cores = os.cpu_count() or 1
    threads = torch.get_num_threads()
    found = f"{_number(cores, 'core')}, torch uses {_number(threads, 'thread')}"
    if threads <= cores:
        return Finding("processor", found)

    advice = f"torch uses more threads than there are cores: torch.set_num_threads({cores})"
    return Finding("processor", found, advice)


def _number(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return Finding("memory", "unknown on this system")

    found = f"{total:.1f} GiB"
    if total >= MEMORY_GIB:
        return Finding("memory", found)
    return Finding("memory", found, f"under {MEMORY_GIB:.0f} GiB, run one notebook at a time")


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("accelerator", f"CUDA: {torch.cuda.get_device_name(0)}")
    if torch.backends.mps.is_available():
        return Finding("accelerator", "Apple GPU (mps)")
    return Finding("accelerator", "none: fine, every chapter is made for a laptop's processor")


def _disk() -> Finding:
    free = shutil.disk_usage(paths.ROOT).free / 2**30
    found = f"{free:.0f} GiB"
    if free >= FREE_GIB:
        return Finding("free disk", found)

    advice = f"free at least {FREE_GIB:.0f} GiB, or set MINIGPT_DATA to a folder on another disk"
    return Finding("free disk", found, advice)
