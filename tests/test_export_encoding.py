"""Everything is read, written and piped in UTF-8, whatever the system's encoding is."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ASCII, EXPORT, SETUP, Course

from courseware import paths
from courseware.export import exporting, reset

MODULE = "#| module: toy\n# Größe und π, 文 😀."
WORDS = EXPORT + "\n\nMARKS = {'✓': 'größe', '\u2028': 'π'}  # für €\n"
CHECKS = [
    "#| check: größer | against: Übung ✓\nprint('✓ größe')\nassert double(3) == 6",
    "#| check: Zeichen\nassert MARKS['✓'] == 'gr\\xf6\\xdfe' and len(MARKS) == 2",
]


@pytest.fixture
def foreign(course: Course, monkeypatch: pytest.MonkeyPatch) -> Course:
    """A course as it is shipped, with one chapter that no encoding except Unicode's can hold."""
    monkeypatch.setattr(paths, "ORIGINALS", course.root / "courseware/export/originals.json")
    course.chapter(SETUP, WORDS, *CHECKS, module=MODULE)
    exporting.export("05")
    reset.write_list()
    reset.keep_copies()
    return course


def test_the_tests_locale_is_not_utf_8():
    code = "import locale, sys; print(locale.getpreferredencoding(False), sys.flags.utf8_mode)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **ASCII}, capture_output=True, encoding="utf-8", check=True
    )
    encoding, utf8_mode = done.stdout.split()
    assert "utf" not in encoding.lower() and utf8_mode == "0"


def run(course: Course, *arguments: str) -> str:
    """Run a command of the course in that locale; return what it prints."""
    process = course.command(*arguments, **ASCII)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, out + errors
    return out


@pytest.mark.slow
def test_export_and_verify_and_reset_in_another_locale(foreign):
    expected = foreign.files()
    assert "größe" in expected["toy.py"] and "文 😀" in expected["toy.py"]
    foreign.target.unlink()

    assert "gr\\xf6\\xdfer" in run(foreign, "export", "05")  # a console that cannot show it
    assert foreign.files() == expected
    assert "every module is what its chapter says" in run(foreign, "verify")

    edited = WORDS.replace("mul(x, 2)", "add(x, x)").replace("für €", "für ¥")
    foreign.chapter(SETUP, edited, *CHECKS, module=MODULE)
    run(foreign, "export", "05")
    assert "für ¥" in foreign.files()["toy.py"]
    assert "the course's own again" in run(foreign, "reset", "05")
    assert foreign.files() == expected


def test_a_difference_and_a_refusal_can_be_printed_in_another_locale(foreign):
    foreign.target.write_text("# größe ✓\n", encoding="utf-8")
    process = foreign.command("verify", **ASCII)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and errors == ""
    assert "-# gr\\xf6\\xdfe \\u2713" in out and "+MARKS = " in out

    foreign.chapter(SETUP, WORDS, CHECKS[1].replace("2", "3"), CHECKS[0], module=MODULE)
    process = foreign.command("export", "05", **ASCII)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and out == ""
    assert "a check failed" in errors and "MARKS['\\u2713']" in errors


@pytest.mark.slow
def test_the_real_course_in_another_locale(tmp_path):
    for name in ("notebooks", "minigpt_lib"):
        shutil.copytree(paths.CODE / name, tmp_path / name)
    course_of = {
        **os.environ,
        **ASCII,
        "MINIGPT_ROOT": str(tmp_path),
        "PYTHONPATH": str(paths.CODE),
    }
    for arguments in (["verify"], ["export", "03"], ["verify", "03"]):
        command = [sys.executable, "-m", "courseware", *arguments]
        done = subprocess.run(
            command, env=course_of, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["verify"], ["export", "05"], ["reset", "05"]], ids=str)
def test_no_call_relies_on_the_systems_encoding(foreign, arguments):
    """Python can warn of each call that names no encoding; other people's packages are not our concern."""
    edited = WORDS.replace("mul(x, 2)", "add(x, x)")
    foreign.chapter(SETUP, edited, *CHECKS, module=MODULE)
    exporting.export("05")

    process = foreign.command(
        *arguments, PYTHONWARNDEFAULTENCODING="1", PYTHONWARNINGS="always::EncodingWarning"
    )
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, out + errors
    ours = [line for line in errors.splitlines() if "courseware" in line]
    assert ours == []


def test_every_call_in_courseware_names_its_encoding():
    faults = []
    for file in sorted((paths.CODE / "courseware").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and relies_on_the_system(node):
                faults.append(f"{file.relative_to(paths.CODE)}, line {node.lineno}")
    assert faults == []


def relies_on_the_system(call: ast.Call) -> bool:
    """Return whether a call reads, writes or pipes text without naming the encoding."""
    function = ast.unparse(call.func)
    keywords = {keyword.arg for keyword in call.keywords}
    if "encoding" in keywords or function in ("os.open", "webbrowser.open", "Assistant.open"):
        return False

    name = function.rpartition(".")[2]
    if name in ("open", "fdopen", "NamedTemporaryFile"):
        texts = [
            ast.unparse(argument) for argument in [*call.args, *(k.value for k in call.keywords)]
        ]
        return not any(text.strip("'") in ("rb", "wb", "ab", "xb", "r+b", "w+b") for text in texts)
    if name in ("read_text", "write_text"):
        return True
    return bool(keywords & {"text", "universal_newlines"})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open(path)", True),
        ("path.open('w')", True),
        ("open(path, mode='rb')", False),
        ("open(path, encoding='utf-8')", False),
        ("path.read_text()", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, capture_output=True)", False),
    ],
)
def test_the_search_finds_calls_without_an_encoding(code, expected):
    assert relies_on_the_system(ast.parse(code, mode="eval").body) == expected


def test_the_folder_may_have_a_blank_and_an_umlaut(tmp_path):
    root = tmp_path / "mein größter Kurs"
    root.mkdir()
    course = Course(root)
    course.good()
    for arguments in (["export", "05"], ["verify"]):
        process = course.command(*arguments)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, out + errors
    assert "def double" in course.target.read_text(encoding="utf-8")
