"""Look at this computer and say whether it is ready for the course, and what would make it better."""

from __future__ import annotations

import html
import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass

from courseware import paths

PACKAGES = ("torch", "numpy", "jupyterlab", "tiktoken", "datasets", "ipywidgets", "matplotlib")
FREE_GIB = 2.0  # data, checkpoints and Arrow files of the whole course stay below this
MEMORY_GIB = 4.0


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, whether it is fine, and advice if not."""

    what: str
    found: str
    ok: bool = True
    advice: str = ""


class Report:
    """All findings; displays as a table."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings

    @property
    def ready(self) -> bool:
        return all(finding.ok for finding in self.findings)

    @property
    def verdict(self) -> str:
        if self.ready:
            return "This computer is ready for the course."
        return "The course may not run well here: see the advice."

    def __repr__(self) -> str:
        width = max(len(f.what) for f in self.findings)
        lines = [f"{'ok ' if f.ok else '!! '} {f.what:<{width}}  {f.found}" for f in self.findings]
        advice = [f"- {f.what}: {f.advice}" for f in self.findings if f.advice]
        return "\n".join([*lines, *advice, self.verdict])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'&#10003;' if f.ok else '<strong>!</strong>'}</td>"
            f'<td style="text-align:left">{html.escape(f.what)}</td>'
            f'<td style="text-align:left">{html.escape(f.found)}'
            + (f"<br><em>{html.escape(f.advice)}</em>" if f.advice else "")
            + "</td></tr>"
            for f in self.findings
        )
        return f"<table><tbody>{rows}</tbody></table><p><strong>{self.verdict}</strong></p>"


def report() -> Report:
    """Look at Python, packages, processor, memory, accelerator and disk."""
    return Report([_python(), *_packages(), _processor(), _memory(), _accelerator(), _disk()])


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = "" if ok else "use Python 3.11, 3.12 or 3.13: make lab PYTHON=python3.13"
    return Finding("Python", f"{platform.python_version()} on {platform.system()}", ok, advice)


def _packages() -> list[Finding]:
    findings, present = [], []
    for name in PACKAGES:
        try:
            present.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            findings.append(
                Finding(
                    name,
                    "not installed",
                    False,
                    "run `make lab` or pip install -r requirements.txt",
                )
            )
    return [Finding("packages", ", ".join(present)), *findings]


def _processor() -> Finding:
    import torch

    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    advice = ""
    if threads > cores:
        advice = f"torch uses more threads than there are cores: torch.set_num_threads({cores})"
    return Finding(
        "processor", f"{cores} cores, torch uses {threads} threads", threads <= cores, advice
    )


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return Finding("memory", "unknown on this system")
    ok = total >= MEMORY_GIB
    advice = "" if ok else f"under {MEMORY_GIB:.0f} GiB, run one notebook at a time"
    return Finding("memory", f"{total:.1f} GiB", ok, advice)


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("accelerator", f"CUDA: {torch.cuda.get_device_name(0)}")
    if torch.backends.mps.is_available():
        return Finding("accelerator", "Apple GPU (mps)")
    return Finding("accelerator", "none: fine, every chapter is made for a laptop's processor")


def _disk() -> Finding:
    free = shutil.disk_usage(paths.ROOT).free / 2**30
    ok = free >= FREE_GIB
    advice = (
        "" if ok else f"free at least {FREE_GIB:.0f} GiB, or set MINIGPT_DATA to a folder elsewhere"
    )
    return Finding("free disk", f"{free:.0f} GiB", ok, advice)
