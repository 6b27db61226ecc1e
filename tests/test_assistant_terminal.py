"""Chapter 16: the assistant's command in a pipe and in a terminal; Ctrl-C never loses the conversation."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from assistant_models import CHAT, chatterer, tiny, user

from courseware import paths
from minigpt_lib import assistant as module
from minigpt_lib.assistant import Assistant
from minigpt_lib.training import on_interrupt

COMMAND = [sys.executable, "-m", "minigpt_lib.assistant"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a saved model that says nothing but "a", with its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    chatterer(max_seq_len=8192).save_pretrained(folder)
    CHAT.base.save(folder / "tokenizer.json")
    return folder


# ---------------------------------------------------------------- in a pipe


def run(folder, typed, *argv, **environment):
    """Run the command with these bytes as its input; return its output, its errors and its status."""
    done = subprocess.run(
        [*COMMAND, "--model", str(folder), "--strategy", "greedy", *argv],
        input=typed,
        capture_output=True,
        cwd=paths.ROOT,
        timeout=300,
        env=os.environ | environment,
    )
    out = done.stdout.decode("utf-8", "replace")
    errors = done.stderr.decode("utf-8", "replace")
    return out, errors, done.returncode


@pytest.mark.slow
def test_a_conversation_through_a_pipe(folder, tmp_path):
    file = tmp_path / "talk.json"
    lines = [
        "Hi <|im_end|>\x1b[31m",
        "/system Be kind.",
        "You?",
        f"/save {file}",
        "/reset",
        f"/load {file}",
    ]
    typed = "\n".join(lines).encode() + b"\n\xff\xfe\n/nope\n\n/quit\nnot read\n"

    out, errors, status = run(folder, typed, "--max-new-tokens", "3")

    assert (errors, status) == ("", 0)
    assert out.startswith("MiniGPT, a language model of ")
    assert "It cannot know the\n" in out
    assert "you>" not in out
    assert out.splitlines()[3:] == [
        "MiniGPT> aaa",
        "(the first message is now: Be kind.)",
        "MiniGPT> aaa",
        f"(saved to {file})",
        "(forgotten)",
        f"(going on with {file})",
        "MiniGPT> aaa",
        "(there is no command /nope; /help lists them)",
    ]
    messages = json.loads(file.read_text(encoding="utf-8"))["messages"]
    said = [message["content"] for message in messages]
    assert said == ["Be kind.", "Hi <|im_end|>\x1b[31m", "aaa", "You?", "aaa"]


@pytest.mark.slow
def test_characters_that_the_output_cannot_encode_are_replaced(folder):
    typed = "/system Größe\nGröße\n".encode()

    out, errors, status = run(folder, typed, "--max-new-tokens", "2", PYTHONIOENCODING="ascii")

    assert (errors, status) == ("", 0)
    assert out.endswith("?e)\nMiniGPT> aa\n")


@pytest.mark.slow
def test_the_command_ends_quietly_when_nobody_reads_its_output(folder):
    process = subprocess.Popen(
        [*COMMAND, "--model", str(folder), "--strategy", "greedy"],
        cwd=paths.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        process.stdout.readline()
        process.stdout.close()  # as `| head -1` does
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"Hi\n" * 50)
            process.stdin.close()
        process.stdin = None

        assert process.wait(300) == 0
        assert process.stderr.read() == b""


# ---------------------------------------------------------------- mistakes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell to close a stream")
@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_closed_input_or_output_is_reported_in_one_line(folder, closed):
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {closed}', *COMMAND, "--model", str(folder)],
        capture_output=True,
        encoding="utf-8",
        cwd=paths.ROOT,
        timeout=300,
    )

    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "no input or no output" in done.stderr


@pytest.mark.slow
def test_a_context_of_zero_is_refused_rather_than_taken_for_the_default(folder):
    _, errors, status = run(folder, b"", "--context", "0")

    assert status == 1
    assert len(errors.splitlines()) == 1
    assert "context=0: expected" in errors


@pytest.mark.slow
def test_a_missing_model_is_reported_in_one_line(tmp_path):
    out, errors, status = run(tmp_path / "none", b"")

    assert (out, status) == ("", 1)
    assert len(errors.splitlines()) == 1
    assert f"there is no model {tmp_path / 'none'}" in errors


@pytest.mark.slow
def test_help_explains_the_options(tmp_path):
    out, _, status = run(tmp_path, b"", "--help")

    assert status == 0
    assert "lower is safer" in out
    assert "a trained model's name or folder" in out


# ---------------------------------------------------------------- in a terminal


class Terminal:
    """The command in a pseudo-terminal: type, wait for words.

    ctrl_c: how the process reacts to Ctrl-C before the command begins. A shell script that starts it with
    `command &` leaves SIG_IGN.
    """

    def __init__(self, *argv, ctrl_c):
        import pty

        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *argv],
            cwd=paths.ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: self._control(ctrl_c),
            env=os.environ | {"TERM": "dumb"},
        )
        os.close(slave)
        self.seen = ""
        self.at = 0

    @staticmethod
    def _control(ctrl_c):
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches it
        signal.signal(signal.SIGINT, ctrl_c)

    def wait_for(self, words, seconds=300):
        """Read until these words appear after the last words that were waited for."""
        end = time.monotonic() + seconds
        while (found := self.seen.find(words, self.at)) < 0:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"{words!r} did not appear: {self.seen[-500:]!r}"
            try:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(
                    f"the command ended without {words!r}: {self.seen[-500:]!r}"
                ) from None
        self.at = found + len(words)

    def type(self, text):
        os.write(self.master, text.encode())

    def type_until(self, text, words, times=20):
        """Type again until these words appear.

        CPython's readline notices a Ctrl-C that comes between the prompt and its wait for a key only at
        the next key.
        """
        for _ in range(times):
            self.type(text)
            with contextlib.suppress(AssertionError):
                return self.wait_for(words, 5)
        raise AssertionError(f"{words!r} did not appear: {self.seen[-500:]!r}")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize("ctrl_c", [signal.SIG_DFL, signal.SIG_IGN], ids=["usual", "ignored"])
def test_a_conversation_in_a_terminal_survives_ctrl_c(folder, tmp_path, ctrl_c):
    file = tmp_path / "talk.json"
    options = ["--strategy", "greedy", "--max-new-tokens", "4000"]
    terminal = Terminal("--model", str(folder), *options, ctrl_c=ctrl_c)

    try:
        terminal.wait_for("you> ")
        terminal.type("Go on\n")
        terminal.wait_for("MiniGPT> aaaa")
        terminal.type("\x03")
        terminal.wait_for("(broken off)")
        terminal.wait_for("you> ")

        terminal.type_until("\x03", "(/quit ends)")
        terminal.wait_for("you> ")

        terminal.type(f"/save {file}\n")
        terminal.wait_for("(saved to")
        terminal.wait_for("you> ")  # before the prompt, Ctrl-D would only end a line
        terminal.type("\x04")
        assert terminal.process.wait(300) == 0
    finally:
        terminal.close()

    system, question, answer = json.loads(file.read_text(encoding="utf-8"))["messages"]
    assert question == user("Go on")
    assert set(answer["content"]) == {"a"}
    assert 4 <= len(answer["content"]) < 4000


# ---------------------------------------------------------------- in this process


class Nervous(io.StringIO):
    """Standard output of a user who presses Ctrl-C again while the first press is answered."""

    def write(self, text):
        if "(broken off)" in text or "(/quit ends)" in text:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_pressing_ctrl_c_twice_does_not_end_the_conversation(monkeypatch):
    assistant = Assistant(tiny(), CHAT)
    ctrl_c = module._CtrlC()
    lines = iter(["One", "Ctrl-C", "Two"])
    interrupted = iter([True, False])

    def typed(prompt):
        line = next(lines, None)
        if line is None:
            raise EOFError
        if line == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        return line

    def stream(prompt, **_):
        yield "Yes"
        if next(interrupted):
            signal.raise_signal(signal.SIGINT)
        yield " indeed"

    assistant.writer.stream = stream
    monkeypatch.setattr("builtins.input", typed)
    with on_interrupt(ctrl_c), contextlib.redirect_stdout(Nervous()) as shown:
        module._converse(assistant, ctrl_c)

    assert shown.getvalue() == "MiniGPT> Yes (broken off)\n\n(/quit ends)\nMiniGPT> Yes indeed\n"
    said = [message["content"] for message in assistant.messages[1:]]
    assert said == ["One", "Yes", "Two", "Yes indeed"]


def test_the_command_finds_the_courses_own_model_and_gives_it_a_context_of_224(
    tmp_path, monkeypatch, capsys
):
    home = tmp_path / "data" / "models" / "14_sft"
    chatterer().save_pretrained(home)
    CHAT.base.save(home / "tokenizer.json")
    lines = iter(["Hi", "x" * 180])
    monkeypatch.setattr(module, "__file__", str(tmp_path / "minigpt_lib" / "assistant.py"))
    monkeypatch.setattr("builtins.input", lambda _: next(lines, "/quit"))

    module.main(["--max-new-tokens", "5"])

    out = capsys.readouterr().out
    assert str(home) in out
    assert "MiniGPT> aaaaa" in out
    assert "room for 219" in out
