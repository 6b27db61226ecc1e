"""Break a chapter's module in every way that mutmut knows, and see whether the chapter's own checks notice.

    pip install "mutmut>=3.8,<4"
    python tests/mutants.py 05 [06 07 ...]

A copy of the library goes to a temporary folder. mutmut changes one thing at a time (an operator, a number, an
argument), runs the `#| check` cells of the chapter, and this script prints every change that no check noticed. Cells
that call torch.compile are left out: the code that mutmut inserts to switch between its versions cannot be traced.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from courseware import paths
from courseware.build import build
from courseware.chapters import find_chapter

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
from courseware import exporting, prove
from courseware.build import build
from courseware.chapters import find_chapter
module = importlib.import_module("minigpt_lib.{module}")
chapter = find_chapter({number!r})
candidate = build(chapter)
base = {{"__name__": "__check__"}}
exec(exporting._import_lines(candidate.source), base)
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
    """Mutate the module of a chapter in `folder` and print the score and the survivors."""
    module = build(find_chapter(number)).module
    shutil.copytree(paths.ROOT / "minigpt_lib", folder / "minigpt_lib")
    (folder / "tests").mkdir()
    test = TEST.format(root=str(paths.ROOT), module=module, number=number)
    (folder / "tests" / "test_checks.py").write_text(test, encoding="utf-8")
    (folder / "pyproject.toml").write_text(SETTINGS.format(module=module), encoding="utf-8")
    mutmut = [sys.executable, "-m", "mutmut"]
    done = subprocess.run([*mutmut, "run"], cwd=folder, capture_output=True, text=True)
    if done.returncode or "mutations/second" not in done.stdout:
        raise SystemExit(
            f"mutmut stopped (is it installed?):\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    total, killed = re.findall(r"(\d+)/\1  🎉 (\d+)", done.stdout)[-1]
    print(f"chapter {number}, {module}: {total} mutants, {killed} noticed")
    results = subprocess.run([*mutmut, "results"], cwd=folder, capture_output=True, text=True)
    for line in results.stdout.splitlines():
        name, _, status = line.strip().partition(": ")
        if status and status != "killed":
            shown = subprocess.run(
                [*mutmut, "show", name], cwd=folder, capture_output=True, text=True
            )
            changed = [row for row in shown.stdout.splitlines() if re.match(r"[-+] ", row)]
            print(f"\n{status}: {name.rpartition('.')[2]}", *changed, sep="\n  ")


def main() -> None:
    if not sys.argv[1:]:
        raise SystemExit(__doc__)
    for number in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            run(number, Path(folder))


if __name__ == "__main__":
    main()
