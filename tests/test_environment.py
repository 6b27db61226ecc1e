"""The set-up script and the report on the computer."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from courseware import environment, paths, progress


@pytest.fixture
def setup_env(monkeypatch, tmp_path):
    """Load the set-up script as a module whose root is a temporary folder."""
    spec = importlib.util.spec_from_file_location(
        "setup_env", paths.CODE / "courseware/setup_env.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("requirements.txt", "requirements-dev.txt", "requirements.lock"):
        (tmp_path / name).write_text((paths.CODE / name).read_text())
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    return module


def test_second_set_up_does_nothing_until_the_requirements_change(setup_env, tmp_path):
    assert not setup_env.up_to_date(dev=False)
    setup_env.venv_python().parent.mkdir(parents=True)
    setup_env.venv_python().touch()
    assert not setup_env.up_to_date(dev=False)
    (tmp_path / ".venv/.set-up").write_text(setup_env.fingerprint(False))
    assert setup_env.up_to_date(dev=False) and not setup_env.up_to_date(dev=True)
    (tmp_path / ".venv/.set-up-dev").write_text(setup_env.fingerprint(True))
    assert setup_env.up_to_date(dev=True)
    (tmp_path / "requirements.txt").write_text("torch\n")
    assert not setup_env.up_to_date(dev=False) and not setup_env.up_to_date(dev=True)


def test_the_tests_environment_serves_the_learner(setup_env, tmp_path):
    setup_env.venv_python().parent.mkdir(parents=True)
    setup_env.venv_python().touch()
    (tmp_path / ".venv/.set-up-dev").write_text(setup_env.fingerprint(True))
    assert setup_env.up_to_date(dev=False)


def test_an_old_python_is_told_what_to_do(setup_env, monkeypatch):
    monkeypatch.setattr(setup_env.sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="needs Python 3.11, 3.12 or 3.13; this is 3.9.1"):
        setup_env.find_python()


def test_a_failed_install_says_what_to_do(setup_env):
    with pytest.raises(SystemExit, match="run the same command again"):
        setup_env.run([sys.executable, "-c", "raise SystemExit(1)"])


def test_the_report_finds_this_computer_ready():
    report = environment.report()
    assert report.ready, report
    assert "torch 2" in repr(report) and "<table>" in report._repr_html_()


def test_the_report_gives_advice(monkeypatch):
    monkeypatch.setattr(environment.sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    monkeypatch.setattr(environment, "PACKAGES", ("no-such-package",))
    report = environment.report()
    assert not report.ready
    for words in ("make lab PYTHON=", "not installed", "MINIGPT_DATA"):
        assert words in repr(report) and words in report._repr_html_()


def test_progress_lists_every_chapter():
    text = progress.summary()
    assert "01  Characters" in text and "00  Start here" in text


@pytest.mark.parametrize("command", [["--help"], ["progress"], ["verify"], ["doctor"]])
def test_the_command_line(command):
    done = subprocess.run(
        [sys.executable, "-m", "courseware", *command],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and len(done.stdout) > 20, done.stderr


def test_the_command_line_says_what_it_cannot_do():
    done = subprocess.run(
        [sys.executable, "-m", "courseware", "export", "77"],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "What to do: the chapters are" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lab_serves_the_whole_course():
    done = subprocess.run(["make", "-n", "lab"], cwd=paths.ROOT, capture_output=True, text=True)
    lab = next(line for line in done.stdout.splitlines() if "-m jupyterlab" in line)
    assert f'--ServerApp.root_dir="{paths.ROOT}"' in lab  # the chapters link to ../exercises
    assert "notebooks/00_start_here.ipynb" in lab


def test_jupyterlab_asks_nobody_for_news(setup_env, tmp_path):
    setup_env._keep_jupyterlab_quiet()
    config = json.loads((tmp_path / ".venv/etc/jupyter/labconfig/page_config.json").read_text())
    assert config["disabledExtensions"]["@jupyterlab/apputils-extension:announcements"] is True


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_help_lists_the_targets():
    done = subprocess.run(["make", "help"], cwd=paths.ROOT, capture_output=True, text=True)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"lab", "test", "book", "course", "progress", "reset", "bench", "verify"} <= set(names)
