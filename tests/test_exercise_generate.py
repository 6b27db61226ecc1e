"""exercises/ is generated from solutions/: markers, stubs, the same bytes every time, drift."""

from __future__ import annotations

import re

import pytest

from courseware import paths
from courseware.exercises import generate, stubs

WARMUPS = paths.ROOT / "solutions" / "00_warmups.ipynb"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("### BEGIN SOLUTION\nx", "BEGIN SOLUTION without"),
        ("x\n### END SOLUTION", "line 2: ### END SOLUTION without"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "inside a solution"),
        ("### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "line 3: a solution outside a function"),
        ("    ### STUB: x = 1", "line 1: ### STUB: outside a solution"),
    ],
)
def test_unbalanced_markers(source, words):
    with pytest.raises(ValueError, match="cell 1, |cell 1: ") as error:
        stubs.strip(source, "cell 1")
    assert words in str(error.value)


def test_stubs():
    source = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
    assert stubs.strip(source, "") == 'def f():\n    raise NotImplementedError("write this")'
    source = "### BEGIN SOLUTION\n### STUB: x = ...\n### STUB:     # more\nx = 1\n### END SOLUTION\ny = 2"
    assert stubs.strip(source, "") == "x = ...\n    # more\ny = 2"


def test_generating_twice_gives_the_same_bytes_and_drift_is_found(tmp_path, monkeypatch, capsys):
    first = generate.pairs()
    assert generate.pairs() == first
    root = tmp_path / "root"
    (root / "solutions").mkdir(parents=True)
    (root / "solutions/00_warmups.ipynb").write_bytes(WARMUPS.read_bytes())
    monkeypatch.setattr(paths, "ROOT", root)
    assert generate.main(["--check"]) == 1
    assert generate.main([]) == 0 and generate.main(["--check"]) == 0
    made = root / "exercises/00_warmups.ipynb"
    text = made.read_text(encoding="utf-8")
    made.write_text(text.replace("write this", "done"), encoding="utf-8")
    (root / "exercises/99_stray.ipynb").write_text("{}")
    capsys.readouterr()
    assert generate.main(["--check"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^-.*done", printed, re.M) and re.search(r"^\+.*write this", printed, re.M)
    assert "99_stray.ipynb: no solution writes this file" in printed
    assert "SOLUTION" not in text and '"outputs": []' in text and '"text/plain"' not in text
