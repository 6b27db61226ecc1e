"""The workflows can run: what they call exists, and the shell can read it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from courseware import paths

WORKFLOWS = paths.ROOT / ".github" / "workflows"


def commands(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("name", ["test.yml", "site.yml"])
def test_what_a_workflow_calls_exists(name):
    text = "\n".join(commands(WORKFLOWS / name))

    makefile = (paths.ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake (\w+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for file in re.findall(r"\b(?:tests|courseware)/[\w/]+\.py\b", text):
        assert (paths.ROOT / file).is_file(), file
    for module in re.findall(r"-m (courseware[\w.]*)", text):
        found = paths.ROOT / module.replace(".", "/")
        assert (found / "__main__.py").is_file() or found.with_suffix(".py").is_file(), module
    assert re.search(r"\bmake \w+|-m courseware", text), "the test would not notice anything"


@pytest.mark.parametrize("name", ["test.yml", "site.yml"])
def test_the_shell_can_read_every_command_of_a_workflow(name):
    if shutil.which("bash") is None:
        pytest.skip("no bash found")
    for command in commands(WORKFLOWS / name):
        plain = re.sub(r"\$\{\{.*?\}\}", "x", command)
        read = subprocess.run(["bash", "-n", "-c", plain], capture_output=True, encoding="utf-8")
        assert read.returncode == 0, read.stderr


@pytest.mark.slow
def test_the_options_that_the_site_workflow_uses_exist():
    for module in ("courseware.site", "courseware/setup/environment.py"):
        command = [sys.executable, *(["-m"] if "/" not in module else [])]
        command += [module if "/" not in module else str(paths.CODE / module)]
        command += ["build", "--help"] if module == "courseware.site" else ["--help"]
        answer = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": str(paths.CODE)},
            cwd=paths.CODE,
        )
        option = "--out" if module == "courseware.site" else "--dev"
        assert option in answer.stdout, answer.stderr


def test_pages_are_deployed_only_after_they_were_built_and_tested():
    text = (WORKFLOWS / "site.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    steps = [step.get("name") or step.get("uses") for step in jobs["build"]["steps"]]

    assert jobs["deploy"]["needs"] == "build"
    assert steps.index("Test the pages") < steps.index("Build the newest pages")
    assert steps[-1].startswith("actions/upload-pages-artifact@")
    assert jobs["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
