"""Break a chapter's module in every way that mutmut knows, and see whether the chapter's own checks notice.

    pip install "mutmut>=3.8,<4"
    python tests/mutants.py 05 [06 07 ...]

A copy of the library goes to a temporary folder. mutmut changes one thing at a time (an operator, a number, an
argument), runs the `#| check` cells of the chapter, and this script prints every change that no check noticed. Cells
that call torch.compile are left out: the code that mutmut inserts to switch between its versions cannot be traced.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from courseware import paths
from courseware.export.build import build
from courseware.export.notebooks import find_chapter

SETTINGS = """
[tool.mutmut]
source_paths = ["minigpt_lib/"]
only_mutate = ["minigpt_lib/{module}.py"]
pytest_add_cli_args_test_selection = ["tests/"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
"""

TEST = """
import importlib, os, sys
sys.path.append({root!r})
os.chdir({root!r} + "/notebooks")
import threading, pytest, torch
from tqdm import tqdm
torch.set_num_threads(1)
tqdm.set_lock(threading.RLock())  # its usual lock is shared, and a process killed while it holds it stops all others
from courseware.export import prove
from courseware.export.build import build
from courseware.export.notebooks import find_chapter
chapter = find_chapter({number!r})
base = {{"__name__": "__check__"}}
candidates = build(chapter)
for candidate in candidates:
    exec(candidate.imports, base)
for candidate in candidates:
    module = importlib.import_module("minigpt_lib." + candidate.module)
    base.update({{name: getattr(module, name) for name in candidate.public}})
prove._seed()
for cell in chapter.of("setup"):
    exec(prove._compile({{"number": cell.number, "source": cell.source}}), base)
CELLS = [c for c in chapter.of("check") if "torch.compile(" not in c.source]
CODES = [prove._compile({{"number": c.number, "source": c.source}}) for c in CELLS]

@pytest.mark.parametrize("code", CODES, ids=[str(c.number) for c in CELLS])
def test_check(code):
    prove._seed()
    exec(code, {{**base}})
"""


def run(number: str, folder: Path) -> None:
    """Mutate the modules of a chapter, each in a folder of its own, and print the scores and the survivors."""
    for candidate in build(find_chapter(number)):
        run_module(number, candidate.module, folder / candidate.module)


def run_module(number: str, module: str, folder: Path) -> None:
    """Mutate one module in `folder` and print the score and the survivors."""
    shutil.copytree(paths.ROOT / "minigpt_lib", folder / "minigpt_lib")
    (folder / "tests").mkdir()
    test = TEST.format(root=str(paths.ROOT), number=number)
    (folder / "tests" / "test_checks.py").write_text(test, encoding="utf-8")
    (folder / "pyproject.toml").write_text(SETTINGS.format(module=module), encoding="utf-8")

    done = _mutmut(folder, "run")
    if done.returncode or "mutations/second" not in done.stdout:
        raise SystemExit(
            f"mutmut stopped (is it installed?):\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    total, killed = re.findall(r"(\d+)/\1  🎉 (\d+)", done.stdout)[-1]
    print(f"chapter {number}, {module}: {total} mutants, {killed} noticed")

    for line in _mutmut(folder, "results").stdout.splitlines():
        name, _, status = line.strip().partition(": ")
        if status and status != "killed":
            shown = _mutmut(folder, "show", name).stdout
            changed = [row for row in shown.splitlines() if re.match(r"[-+] ", row)]
            print(f"\n{status}: {name.rpartition('.')[2]}", *changed, sep="\n  ")


def _mutmut(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mutmut in `folder`; it prints symbols, so both sides speak UTF-8."""
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


def main() -> None:
    if not sys.argv[1:]:
        raise SystemExit(__doc__)
    for number in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            run(number, Path(folder))


if __name__ == "__main__":
    main()
