"""Make the environment `.venv` of this course, once, with uv if it is there and with venv and pip otherwise.

Run as a plain script (`python courseware/setup_env.py [--dev]`) by any Python from 3.11 to 3.13: it needs
nothing that is not in the standard library. A second run notices that nothing changed and ends at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
OLDEST, NEWEST = (3, 11), (3, 13)
FREE_GIB = 8  # torch with its GPU libraries is about 5 GiB on Linux, the rest about 1.5


def find_python() -> str:
    """Return a Python of a supported version: the one that runs this, or the newest on the PATH."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    here = ".".join(map(str, sys.version_info[:3]))
    sys.exit(
        f"This course needs Python 3.11, 3.12 or 3.13; this is {here}, and none of them is on the PATH.\n"
        "Install one (python.org, your package manager, or `uv python install 3.13`), then run\n"
        "    make lab PYTHON=/path/to/python3.13"
    )


def venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(dev: bool) -> str:
    """Return a text that changes when the requirements change."""
    names = ["requirements.txt", "requirements.lock", *(["requirements-dev.txt"] if dev else [])]
    parts = [(ROOT / name).read_bytes() for name in names]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def up_to_date(dev: bool) -> bool:
    if not venv_python().exists():
        return False
    wanted = [True] if dev else [False, True]  # the developers' environment holds the learner's
    stamps = [VENV / f".set-up{'-dev' if kind else ''}" for kind in wanted]
    return any(
        stamp.exists() and stamp.read_text().strip() == fingerprint(kind)
        for stamp, kind in zip(stamps, wanted, strict=True)
    )


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        sys.exit(
            f"\nSetting up stopped at: {' '.join(command)}\n"
            "Nothing is half done that a second try would not repair: check the network and the free disk "
            "space,\nthen run the same command again. To start afresh, delete the folder .venv."
        )


def install(dev: bool) -> None:
    """Create `.venv` if it is missing and install the requirements at the locked versions."""
    python, uv = find_python(), shutil.which("uv")
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < FREE_GIB and not VENV.exists():
        print(
            f"Only {free:.1f} GiB of disk are free; the environment may need up to {FREE_GIB} GiB."
        )
    requirements = "requirements-dev.txt" if dev else "requirements.txt"
    print(
        f"Setting up .venv with {'uv' if uv else 'venv and pip'}; the first time takes minutes ..."
    )
    if not venv_python().exists():
        if VENV.exists():
            shutil.rmtree(VENV)
        run(
            [uv, "venv", "--python", python, str(VENV)] if uv else [python, "-m", "venv", str(VENV)]
        )
    pip = [uv, "pip", "install", "--python", str(venv_python())]
    if not uv:
        pip = [str(venv_python()), "-m", "pip", "install", "--disable-pip-version-check"]
    run([*pip, "--quiet", "-r", requirements, "-c", LOCK.name])
    _make_importable()
    _keep_jupyterlab_quiet()


def _keep_jupyterlab_quiet() -> None:
    """Switch off the part of JupyterLab that asks its makers for news: the course needs no network."""
    config = VENV / "etc" / "jupyter" / "labconfig" / "page_config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    off = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    config.write_text(json.dumps(off, indent=2) + "\n", encoding="utf-8")


def _make_importable() -> None:
    """Let every notebook import `courseware` and `minigpt_lib` from this folder, wherever it runs."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([venv_python(), "-c", code], capture_output=True, text=True, check=True)
    Path(done.stdout.strip(), "minigpt_course.pth").write_text(f"{ROOT}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dev", action="store_true", help="also install what the tests need")
    dev = parser.parse_args().dev
    if up_to_date(dev):
        return
    start = time.perf_counter()
    install(dev)
    (VENV / f".set-up{'-dev' if dev else ''}").write_text(fingerprint(dev) + "\n")
    print(f"Ready after {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
