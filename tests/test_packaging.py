"""`pip install .`: the wheel holds every file that the code reads, and the library needs no Jupyter."""

from __future__ import annotations

import ast
import email
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from courseware import paths

PROJECT = tomllib.loads((paths.CODE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
JUPYTER = ("IPython", "ipykernel", "ipywidgets", "jupyterlab", "nbformat", "nbclient", "matplotlib")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from what git tracks or would track, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("minigpt_lib", "courseware"):
        shutil.copytree(paths.CODE / name, source / name, ignore=skipped)
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "requirements.txt",
        "requirements-dev.txt",
    ):
        shutil.copy2(paths.CODE / name, source / name)

    code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def requirement_lines(name: str) -> dict[str, str]:
    """Return {package: specifier} of a requirements file."""
    lines = (paths.CODE / name).read_text(encoding="utf-8").splitlines()
    lines = [line.partition("#")[0].strip() for line in lines]
    pairs = [re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", line) for line in lines if line]
    return {pair[1].lower(): pair[2].strip() for pair in pairs}


def test_the_librarys_dependencies_stand_in_requirements_too():
    wanted = requirement_lines("requirements.txt")
    for line in PROJECT["dependencies"]:
        name, specifier = re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", line).groups()
        assert wanted.get(name) == specifier, f"requirements.txt has {name}{wanted.get(name)}"


def test_every_import_of_the_library_is_a_dependency():
    imported = set()
    for file in paths.LIBRARY.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])

    declared = {re.match(r"[A-Za-z0-9_]+", line)[0] for line in PROJECT["dependencies"]}
    brought = {"pyarrow", "pandas", "multiprocess"}  # by datasets, which cannot work without them
    optional = {"IPython", "ipywidgets"}  # imported where a notebook asks for them
    unknown = imported - declared - brought - optional - {"minigpt_lib"} - sys.stdlib_module_names
    assert unknown == set()


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_both_packages(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        file.relative_to(paths.CODE).as_posix()
        for package in ("minigpt_lib", "courseware")
        for file in (paths.CODE / package).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert inside == wanted


@pytest.mark.slow
def test_the_library_needs_no_jupyter(wheel):
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_string(archive.read(name).decode("utf-8"))
    needed = metadata.get_all("Requires-Dist")
    always = [line for line in needed if "extra ==" not in line]
    assert len(always) == len(PROJECT["dependencies"])
    assert not [line for line in always if "jupyter" in line.lower() or "ipy" in line.lower()]
    assert set(metadata.get_all("Provides-Extra")) == {"course", "dev"}
    assert any(line.startswith("jupyterlab") and "course" in line for line in needed)


@pytest.mark.slow
def test_every_module_of_the_wheel_imports_without_jupyter(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"""
import importlib, pathlib, sys
for name in {JUPYTER!r}:
    sys.modules[name] = None  # importing it is now an ImportError
sys.path.insert(0, {str(tmp_path)!r})
for file in sorted(pathlib.Path({str(tmp_path)!r}, "minigpt_lib").glob("[a-z]*.py")):
    module = importlib.import_module("minigpt_lib." + file.stem)
    assert module.__file__ == str(file), module.__file__
import courseware, courseware.paths, courseware.runs.bands
assert courseware.__file__.startswith({str(tmp_path)!r})
assert list(courseware.runs.bands.FOLDER.glob("*.json"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
