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
from tools import help_of

from courseware import paths
from minigpt_lib import assistant as assistant_module
from minigpt_lib import terminal as module
from minigpt_lib.assistant import Assistant
from minigpt_lib.chat import fault_of
from minigpt_lib.training import on_interrupt

COMMAND = [sys.executable, "-m", "minigpt_lib.terminal"]


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
        [*COMMAND, "--forget", "--model", str(folder), "--strategy", "greedy", *argv],
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
    assert "you> MiniGPT" not in out  # no prompts
    assert out.splitlines()[3:] == [
        "MiniGPT> aaa",
        "(the first message is now: Be kind.)",
        "MiniGPT> aaa",
        f"(saved to {file})",
        "(forgotten)",
        f"(going on with {file})",
        "system> Be kind.",
        "you> Hi <|im_end|>\ufffd[31m",
        "MiniGPT> aaa",
        "you> You?",
        "MiniGPT> aaa",
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
        [*COMMAND, "--forget", "--model", str(folder), "--strategy", "greedy"],
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


def _without_a_size():
    """Return the environment without COLUMNS and LINES, which would hide the size of the terminal."""
    return {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}


class Terminal:
    """The command in a pseudo-terminal: type, wait for words.

    ctrl_c: how the process reacts to Ctrl-C before the command begins. A shell script that starts it with
    `command &` leaves SIG_IGN. width: of the window, in characters. variables: of the environment.
    """

    def __init__(self, *argv, ctrl_c=signal.SIG_DFL, width=100, **variables):
        import fcntl
        import pty
        import struct
        import termios

        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *argv],
            cwd=paths.ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: self._control(ctrl_c),
            env=_without_a_size() | {"TERM": "dumb"} | variables,
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
    options = ["--forget", "--strategy", "greedy", "--max-new-tokens", "4000"]
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


@pytest.fixture
def open_terminal(folder):
    """Return a function that opens the command in a terminal, ready to be typed into."""
    opened = []

    def begin(*argv, **options):
        terminal = Terminal("--model", str(folder), "--strategy", "greedy", *argv, **options)
        opened.append(terminal)
        return terminal

    yield begin
    for terminal in opened:
        terminal.close()


posix = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")


@pytest.mark.slow
@posix
def test_what_people_expect_of_a_terminal(open_terminal, tmp_path):
    """Retry, undo, settings, statistics, several lines, save and load, as somebody types them."""
    file = tmp_path / "talk.json"
    terminal = open_terminal("--forget", "--max-new-tokens", "3")
    dialog = [
        ("Hm?", "MiniGPT> aaa"),
        ("/set max_new_tokens 5", "(max_new_tokens is now 5)"),
        ("/retry", "MiniGPT> aaaaa"),
        ("/set temperature hot", "(temperature=hot: expected a number"),
        ("/set top_k 7", "(top_k is now 7, but has no effect while strategy is greedy)"),
        ("/edit Who?", "MiniGPT> aaaaa"),
        ("/stats", "tokens per second)"),
        ('"""/not a command', "...> "),
        ('two"""', "MiniGPT> aaaaa"),
        ("on\\", "...> "),
        ("and on", "MiniGPT> aaaaa"),
        (f"/save {file}", "(saved to"),
        ("/undo", "(taken back: on"),
        ("/reset", "(forgotten)"),
        ("/undo", "(nothing has been said yet)"),
        (f"/load {file}", "you> on"),
        ("/load not-there.json", "(not-there.json: No such file or directory.)"),
        ("/examples", "(this model came without examples)"),
        ("/help", "/retry"),
        ("x" * 200, "MiniGPT> aaaaa"),
        ("/nonsense", "(there is no command /nonsense"),
    ]

    terminal.wait_for("you> ")
    for typed, shown in dialog:
        terminal.type(typed + "\n")
        terminal.wait_for(shown)
        if shown != "...> ":
            terminal.wait_for("\nyou> ")
    terminal.type("/quit\n")

    assert terminal.process.wait(300) == 0
    asked = [m["content"] for m in json.loads(file.read_text())["messages"][1::2]]
    assert asked == ["Who?", "/not a command\ntwo", "on\nand on"]
    assert "\x1b[" not in terminal.seen.replace("\x1b[?2004h", "").replace("\x1b[?2004l", "")


@pytest.mark.slow
@posix
@pytest.mark.parametrize(("variables", "has_colour"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_names_have_colours_unless_the_user_wants_none(open_terminal, variables, has_colour):
    terminal = open_terminal(
        "--forget", "--max-new-tokens", "2", TERM="xterm-256color", **variables
    )

    terminal.wait_for("you> ")
    terminal.type("Hm?\n")
    terminal.wait_for("aa")
    terminal.wait_for("you> ")

    assert ("\x1b[1;36mMiniGPT> \x1b[0m" in terminal.seen) == has_colour
    assert ("\x1b[1;32m" in terminal.seen) == has_colour


@pytest.mark.slow
@posix
@pytest.mark.parametrize(("term", "width"), [("xterm", 60), ("dumb", 40)])
def test_two_models_answer_side_by_side(open_terminal, tmp_path, term, width):
    other = tmp_path / "other"
    chatterer("b").save_pretrained(other)
    CHAT.base.save(other / "tokenizer.json")
    options = ["--compare", str(other), "--forget", "--max-new-tokens", "60"]
    terminal = open_terminal(*options, width=width, TERM=term, NO_COLOR="1")

    terminal.wait_for("you> ")
    terminal.type("Hm?\n")
    terminal.wait_for("a   b", 60)
    terminal.wait_for("\nyou> ")

    rows = [line for line in terminal.seen.splitlines() if line.startswith("aaa")]
    assert len(rows) > 1
    assert all(len(row) <= width for row in rows)
    assert [sum(row.count(letter) for row in rows) for letter in "ab"] == [60, 60]


@pytest.mark.slow
@posix
def test_undecodable_bytes_and_a_full_window_are_a_line(open_terminal):
    terminal = open_terminal("--forget", "--context", "80", "--max-new-tokens", "5")

    terminal.wait_for("you> ")
    for typed, shown in ((b"\xff\xfe?\n", "MiniGPT> aaaaa"), (b"y" * 90 + b"\n", "say it shorter")):
        os.write(terminal.master, typed)
        terminal.wait_for(shown)
        terminal.wait_for("\nyou> ")
    terminal.type("/undo\n")
    terminal.wait_for("(taken back: ")

    assert "Traceback" not in terminal.seen


@pytest.mark.slow
@posix
def test_ctrl_c_at_many_moments_of_one_conversation(open_terminal, tmp_path):
    """While it starts, reads, answers and saves: the conversation can go on, and ends as the user wants."""
    keep = tmp_path / "last.json"
    terminal = open_terminal("--keep", str(keep), "--max-new-tokens", "4000")
    terminal.wait_for("you> ")

    for i in range(12):
        terminal.type(f"Question {i}\n")
        time.sleep(0.013 * i)
        terminal.type("\x03")
        terminal.type_until("\n", "you> ")
    terminal.type_until("/set max_new_tokens 3\n", "is now 3")
    terminal.type_until("Last?\n", "MiniGPT> aaa")
    terminal.wait_for("you> ")
    terminal.type_until("/quit\n", "/quit")

    assert terminal.process.wait(300) == 0
    assert "Traceback" not in terminal.seen
    messages = json.loads(keep.read_text(encoding="utf-8"))["messages"]
    assert messages[-2:] == [user("Last?"), {"role": "assistant", "content": "aaa"}]
    assert fault_of(messages) is None


# ---------------------------------------------------------------- one question, and going on


@pytest.mark.slow
def test_one_question_prints_the_answer_alone_and_can_be_continued(folder, tmp_path):
    keep = tmp_path / "last.json"
    command = [*COMMAND, "--model", str(folder), "--strategy", "greedy", "--keep", str(keep)]

    def ask(*argv):
        return subprocess.run(
            [*command, *argv], capture_output=True, encoding="utf-8", cwd=paths.ROOT, timeout=300
        )

    first = ask("--max-new-tokens", "3", "-p", "One?")
    second = ask("--continue", "-p", "Two?")
    wrong = ask("-p", "")
    too_long = ask("-p", "x" * 9000)

    assert (first.stdout, first.stderr, first.returncode) == ("aaa\n", "", 0)
    assert (second.stdout, second.stderr, second.returncode) == ("aaa\n", "", 0)
    assert (wrong.stdout, wrong.returncode) == ("", 1)
    assert len(wrong.stderr.splitlines()) == 1
    assert (too_long.stdout, too_long.returncode) == ("", 1)
    assert "say it shorter" in too_long.stderr
    said = [m["content"] for m in json.loads(keep.read_text(encoding="utf-8"))["messages"]]
    assert said[1:] == ["One?", "aaa", "Two?", "aaa"]


@pytest.mark.slow
def test_a_question_of_undecodable_bytes_is_answered(folder):
    command = [
        *COMMAND,
        "--model",
        str(folder),
        "--forget",
        "--max-new-tokens",
        "3",
        "-p",
        b"\xff?",
    ]

    done = subprocess.run(command, capture_output=True, cwd=paths.ROOT, timeout=300)

    assert (done.stdout, done.stderr, done.returncode) == (b"aaa\n", b"", 0)


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
        module._Talk({"a": assistant}, module._Screen(), ctrl_c).run()

    assert shown.getvalue() == "MiniGPT> Yes (broken off)\n\n(/quit ends)\nMiniGPT> Yes indeed\n"
    said = [message["content"] for message in assistant.messages[1:]]
    assert said == ["One", "Yes", "Two", "Yes indeed"]


def test_ctrl_c_breaks_the_answers_of_two_models_off_once(monkeypatch):
    ctrl_c = module._CtrlC()
    lines = iter(["One", "Two"])
    interrupted = iter([True, False, False])

    def typed(prompt):
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    def stream(prompt, **_):
        if next(interrupted):
            signal.raise_signal(signal.SIGINT)
        yield "Yes"

    assistants = {name: Assistant(tiny(), CHAT) for name in ("a", "b")}
    for assistant in assistants.values():
        assistant.writer.stream = stream
    monkeypatch.setattr("builtins.input", typed)
    with on_interrupt(ctrl_c), contextlib.redirect_stdout(io.StringIO()) as shown:
        module._Talk(assistants, module._Screen(), ctrl_c).run()

    assert shown.getvalue() == "(broken off)\na> Yes\nb> Yes\n"


def test_the_command_finds_the_courses_own_model_and_gives_it_a_context_of_224(
    tmp_path, monkeypatch, capsys
):
    home = tmp_path / "data" / "models" / "14_sft"
    chatterer().save_pretrained(home)
    CHAT.base.save(home / "tokenizer.json")
    lines = iter(["Hi", "x" * 180])
    monkeypatch.setattr(assistant_module, "_data_folder", lambda: tmp_path / "data")
    monkeypatch.setattr(module, "_data_folder", lambda: tmp_path / "data")
    monkeypatch.setattr("builtins.input", lambda _: next(lines, "/quit"))

    module.main(["--max-new-tokens", "5"])

    out = capsys.readouterr().out
    assert str(home) in out
    assert "MiniGPT> aaaaa" in out
    assert "room for 219" in out


def test_the_module_is_a_program():
    assert help_of("minigpt_lib.terminal").startswith("usage: minigpt ")
