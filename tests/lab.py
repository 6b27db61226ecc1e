"""A JupyterLab for the tests: on a copy of the course, with all its own files in a temporary folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from courseware import paths

PATIENCE = 120  # seconds for anything that a reader waits for
COPIED = (
    "notebooks",
    "courseware",
    "minigpt_lib",
    "exercises",
    "solutions",
    "data",
    "pyproject.toml",
)


def copy_course(root: Path) -> None:
    """Copy the course to a folder that is made for it."""
    root.mkdir()
    for name in COPIED:
        source = paths.CODE / name
        if source.is_dir():
            skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(source, root / name, ignore=skip)
        elif source.exists():
            shutil.copy(source, root / name)


def write_settings(home: Path) -> None:
    """Tell JupyterLab to keep all cells in the page, and to ask no other server."""
    settings = home / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True, exist_ok=True)
    # Cells outside the screen would otherwise not be in the page.
    whole_page = json.dumps({"windowingMode": "none"})
    (settings / "tracker.jupyterlab-settings").write_text(whole_page, encoding="utf-8")

    lab = home / "config" / "labconfig"
    lab.mkdir(parents=True)
    # The news come from another server.
    no_news = json.dumps(
        {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    )
    (lab / "page_config.json").write_text(no_news, encoding="utf-8")


def environment_of(root: Path, home: Path) -> dict[str, str]:
    """Return the environment of a JupyterLab that works on `root` and keeps its own files below `home`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "MINIGPT"))}
    return inherited | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "share"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(root),
        "MINIGPT_ROOT": str(root),
    }


def free_port() -> int:
    """Return the number of a port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def jupyterlab(root: Path, home: Path) -> Iterator[str]:
    """Run JupyterLab on `root`, with all its own files below `home`; yield its address."""
    write_settings(home)
    port = free_port()
    command = [
        *[sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"],
        *[f"--port={port}", f"--notebook-dir={root}"],
        *["--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"],
        *["--IdentityProvider.token=", "--ServerApp.password="],
    ]
    log = home / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        server = subprocess.Popen(
            command,
            env=environment_of(root, home),
            cwd=root,
            stdout=file,
            stderr=subprocess.STDOUT,
        )

    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(
            lambda: ask(f"{address}/api/status"),
            lambda: log.read_text(encoding="utf-8", errors="replace")[-2000:],
        )
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def ask(url: str) -> Any:
    """Return the JSON answer of `url`, or None while there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError):
        return None


def wait_for(condition: Callable[[], Any], describe: Callable[[], object]) -> Any:
    """Return the condition's value as soon as it is true; fail with a description if it stays false."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    pytest.fail(f"nothing happened for {PATIENCE} s: {describe()}")


def idle(address: str) -> bool:
    """Return whether a kernel has been started, and no kernel is busy."""
    sessions = ask(f"{address}/api/sessions") or []
    return bool(sessions) and all(s["kernel"]["execution_state"] == "idle" for s in sessions)
