"""Chapter 16: conversations that stay whole, the command in a terminal, attention, faults, the chat and its twin."""

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
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, survives
from torch.nn import functional as F

from courseware import paths
from courseware.material import people
from courseware.widgets import chat_replay as explorer
from minigpt_lib import assistant as module
from minigpt_lib.assistant import (
    SYSTEM,
    Assistant,
    Conversation,
    attention_maps,
    attention_of_last_answer,
    fit_history,
)
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.sft import ChatTokenizer, fault_of
from minigpt_lib.training import on_interrupt

BYTES = BPETokenizer({bytes([b]): b for b in range(256)}, {"<|endoftext|>": 256})
CHAT = ChatTokenizer(BYTES)


def tiny(seed=3, max_seq_len=256, **choices):
    torch.manual_seed(seed)
    choices = {"n_embd": 12, "n_layer": 2, "n_head": 3, "tie_weights": False} | choices
    model = MiniGPT(GPTConfig(259, max_seq_len, **choices)).eval()
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, float("norm" in name and "weight" in name), 0.4)
    return model


def chatterer(letter="a", max_seq_len=256):
    """Return a model that says one letter for ever."""
    model = MiniGPT(GPTConfig(259, max_seq_len, 8, 1, 1, tie_weights=False)).eval()
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.fill_(1.0)
        model.head.weight.zero_()
        model.head.weight[ord(letter)] = 9.0
    return model


def scripted(assistant, *answers):
    """Let an assistant say these answers, each a list of pieces; an error among them is raised."""
    script = list(answers)

    def stream(prompt, **_):
        for piece in script.pop(0):
            if not isinstance(piece, str):
                raise piece
            yield piece

    assistant.writer.stream = stream
    return assistant


def user(text):
    return {"role": "user", "content": text}


# --- conversations ---

WORDS = st.sampled_from(["", " ", "Hi", "x" * 150, "<|im_end|>", "é😀\n", "\x00\x1b[2J", "a\ud800"])
STEPS = st.tuples(
    st.sampled_from(["say", "break off", "fail", "system", "no system", "reset", "file", "set"]),
    WORDS,
    st.lists(st.sampled_from(["a", " ", "\n", "<|im_end|>", "ü"]), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_whatever_happens_the_conversation_can_go_on(tmp_path_factory, steps):
    a = Assistant(tiny(), CHAT, max_new_tokens=40)
    file = tmp_path_factory.mktemp("talk") / "talk.json"
    for name, text, pieces in steps:
        before = json.dumps(a.messages)
        fails = name == "fail"
        scripted(a, [*pieces, RuntimeError("no")] if fails else pieces)
        try:
            if name in ("say", "fail"):
                with contextlib.suppress(RuntimeError):
                    a.say(text)
            elif name == "break off":
                going = a.stream(text)
                next(going, None)
                going.close()
            elif name.endswith("system"):
                a.system(None if name.startswith("no") else text)
            elif name == "reset":
                a.reset()
            elif name == "set":
                a.set(max_new_tokens=len(text) + 1, temperature=-1.0 if text == " " else 1.0)
            else:
                a.save(file)
                b = Assistant(a.model, CHAT)
                b.load(file)
                assert (b.messages, b.settings, b.room) == (a.messages, a.settings, a.room)
        except ValueError:
            assert json.dumps(a.messages) == before, "a refusal changes nothing"
        assert fault_of([*a.messages, user("?"), {"role": "assistant", "content": "!"}]) is None
        with contextlib.suppress(
            ValueError
        ):  # a longer answer may leave no room for the system message
            assert len(a.prompt("And?")) <= a.room == a.context - a.settings["max_new_tokens"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=8),
    st.integers(0, 30),
    st.integers(1, 40),
    st.integers(20, 400),
)
def test_what_stays_is_the_longest_end_of_whole_turns(turns, system, new, room):
    talk = Conversation(CHAT, 10_000, "s" * system if system else None)
    for question, answer in turns:
        talk.add("q" * question, "a" * answer)
    head, everything = talk.messages[: bool(system)], [*talk.messages, user("n" * new)]
    size = lambda messages: len(CHAT.render(messages, True)[0])  # noqa: E731
    if size([*head, everything[-1]]) > room:
        with pytest.raises(ValueError, match=f"room for {room}"):
            fit_history(everything, CHAT, room)
        return
    kept = fit_history(everything, CHAT, room)
    body = kept[len(head) :]
    assert kept[: len(head)] == head and body == everything[len(everything) - len(body) :]
    assert len(body) % 2 == 1 and size(kept) <= room
    dropped = len(everything) - len(kept)
    assert not dropped or size(head + everything[len(head) + dropped - 2 :]) > room


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.sampled_from(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "user", "\n", "a<|im_"]),
        min_size=1,
    )
)
def test_nobody_can_type_a_control_token(parts):
    text = "".join(parts) + "."
    talk = Conversation(CHAT, 10_000, text)
    talk.add(text, text)
    ids = talk.prompt(text)
    assert [ids.count(i) for i in (CHAT.end, CHAT.base.special_tokens["<|im_start|>"], 256)] == [
        4,
        5,
        0,
    ]
    assert CHAT.decode(ids).count(text) == 4, "and not a word is lost"


@pytest.mark.parametrize("answer", ["Größe 😀 — ok", "a\ufffdb", "\u202e<|im_end|>\x1b[0m"])
def test_pieces_make_the_answer_and_the_next_prompt(answer):
    a = scripted(Assistant(tiny(), CHAT), list(answer))
    assert "".join(a.stream("Hm?")) == answer == a.messages[-1]["content"]
    assert answer in CHAT.decode(a.prompt("And?"))


def test_a_conversation_of_a_thousand_turns_costs_no_more_than_one_that_fits():
    talk, calls = Conversation(CHAT, 300, "Hm."), []
    for i in range(1000):
        talk.add(f"Question {i}", "Answer.")
    render = CHAT.render
    counting = type(
        "Counting", (), {"render": lambda self, *a, **k: calls.append(1) or render(*a, **k)}
    )()
    kept = fit_history([*talk.messages, user("Now?")], counting, 300)
    assert (
        kept[-2]["content"] == "Answer."
        and kept[-3]["content"] == "Question 999"
        and len(calls) < 12
    )


def test_the_models_own_sentence_is_that_of_the_dialogs():
    assert SYSTEM == people.IDENTITY


# --- attention ---


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 20),
    st.sampled_from(["rope", "learned", "sinusoidal"]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_weights_are_those_that_the_model_uses(T, position, heads, fused, seed):
    model = tiny(seed, position=position, n_kv_head=heads, fused=fused)
    ids, given_to, came_out = torch.randint(259, (T,)), [], []
    maps = attention_maps(model, ids)
    assert maps.shape == (2, 3, T, T) and (maps >= 0).all() and maps.triu(1).count_nonzero() == 0
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, T))

    def note(_, x, y):
        given_to.append(x[0])
        came_out.append(y)

    for block in model.blocks:
        block.attention.register_forward_hook(note)
    with torch.inference_mode():
        model(ids[None])
        for block, weights, x, y in zip(model.blocks, maps, given_to, came_out):
            attention = block.attention
            values = attention.qkv(x)[0].unflatten(1, (-1, 4))[:, 3 + heads :].transpose(0, 1)
            mixed = weights @ values.repeat_interleave(3 // heads, dim=0)
            out = F.linear(
                mixed.transpose(0, 1).flatten(1), attention.proj.weight, attention.proj.bias
            )
            torch.testing.assert_close(out, y[0], rtol=1e-3, atol=1e-4)


def test_the_first_row_is_what_stood_before_the_answer():
    """Changing the answer's last token changes no row: it had not been written yet."""
    a = Assistant(tiny(), CHAT)
    a.add("Who?", "Ada.")
    one = attention_of_last_answer(a)
    a.messages[-1]["content"] = "Ada!"
    other = attention_of_last_answer(a)
    torch.testing.assert_close(one.weights, other.weights)
    a.messages[-1]["content"] = "Bda."
    assert not torch.equal(one.weights[..., 1:, :], attention_of_last_answer(a).weights[..., 1:, :])


# --- faults that the chapter's checks must catch ---

FAULTS = [
    ("start >= 2 and size(start - 2) <= room", "start >= 2 and size(start - 2) < room"),
    ("        start -= 2\n", "        start -= 1\n"),
    ('first = messages[:1] if messages[0]["role"] == "system" else []', "first = []"),
    ("    if size(start) > room:\n", "    if size(start) > room + 1:\n"),
    ("if answer.strip():", "if answer:"),
    ('[m for m in self.messages if m["role"] != "system"]', "self.messages"),
    ('self.messages = [m for m in self.messages if m["role"] == "system"]', "self.messages = []"),
    ("tuple(self.chat.base.special_tokens.values())", "(self.chat.end,)"),
    ("tuple(self.chat.base.special_tokens.values())", "tuple(self.chat.controls)"),
    ("        finally:  # also", "        except RuntimeError:  # also"),
    ("going = self._write(text, self.prompt(text))", "going = self._write(text, self.chat.prompt(text))"),
    ('self.context - self.settings["max_new_tokens"]', 'self.context - SETTINGS["max_new_tokens"]'),
    ("if 2 * n > context:", "if 2 * n >= context:"),
    ("_checked({**self.settings, **changes}, self.context)",
     "self.settings | changes; _checked(self.settings, self.context)"),
    ('            self.set(**content["settings"])\n', "            pass\n"),
    ("        part.unlink(missing_ok=True)", "        pass"),
    ("len(prompt) - 1 : -1]", "len(prompt) :]"),
    ("            hook.remove()", "            pass"),
    ("self.weights[layer, None]", "self.weights[layer]"),
    ('ids = torch.tensor((prompt + chat.encode(last["content"]))[: assistant.context])',
     'ids = torch.tensor(prompt + chat.encode(last["content"]))'),
    ('c == "\\n" or unicodedata.category(c)[0] != "C"', "True"),
    ('assistant.system(text or None)', "assistant.system(text)"),
    ("if unread and not before:", "if unread:"),
    ('    folder = options.pop("model")\n', '    folder = options.pop("model") or Path("there")\n'),
    ('for name in ("temperature", "top_k"', 'for name in ("top_k"'),
    ("self.messages += [question, reply]", "self.messages.append(question); self.messages += [reply]"),
    ('if not messages or messages[-1]["role"] != "user":', "if not messages:"),
    ("type(seed) is not int or not -(2**63) <= seed < 2**63", "not isinstance(seed, int)"),
    ("if type(number) in (int, float) and number < 2**63:", "if type(number) in (int, float):"),
    ('if number is not None or name not in ("top_k", "top_p", "min_p"):', "if True:"),
    ("model.config.max_seq_len if context is None else context", "context or model.config.max_seq_len"),
    ("type(self.context) is not int or not 2 <= self.context", "not 2 <= self.context"),
    ("not 2 <= self.context <= ", "not self.context <= "),
    ("            going.close()", "            pass"),
    ("        self._open = weakref.ref(going)", "        self._open = lambda: going"),
    ("        self._settle()\n        self.messages = content", "        self.messages = content"),
    ("        self._settle()\n        content =", "        content ="),
    ("        self._settle()\n        head =", "        head ="),
    ("        self._settle()\n        self.messages = [m", "        self.messages = [m"),
    ('"settings": self.settings}', '"settings": self.settings | {"seed": None}}'),
    ("        part.replace(path)", "        path.unlink(missing_ok=True)\n        part.replace(path)"),
    ('f"{path.name}.{os.getpid()}.part"', 'f"{path.name}.part"'),
    ('path.with_name(f"{path.name}.{os.getpid()}.part")', 'Path(f"{path.name}.{os.getpid()}.part")'),
    ("    path = Path(os.path.realpath(path))", "    path = Path(path)"),
    ('content.get("kind") != _KIND', 'str(content.get("kind"))[:20] != _KIND[:20]'),
    ('            raise ValueError(f"{path}: {error}") from None', "            raise"),
    ("    except Exception as error:  # also", "    except ValueError as error:  # also"),
    ("            model(torch.zeros(1, 1, dtype=torch.int64))", "            pass"),
    ("@torch.inference_mode()\ndef attention_maps", "def attention_maps"),
    ("        model.eval()  # without", "        pass  # without"),
    ("        model.train(training)\n", ""),
    ('        raise ValueError(f"today\'s settings leave the last question no room: {error}") from None',
     "        raise"),
    ('c == "\\n" or unicodedata', 'c in "\\n\\r\\t" or unicodedata'),
    ("print(_printable(_obey(assistant, line)))", "print(_obey(assistant, line))"),
    ('print(_printable(f"({error})"))', 'print(f"({error})")'),
    ("path = Path(text).expanduser()", "path = Path(text)"),
    ('    except RuntimeError:\n        raise ValueError(f"{text}: there',
     '    except ZeroDivisionError:\n        raise ValueError(f"{text}: there'),
    ("streams: Iterable[Any] = (sys.stdin, sys.stdout)", "streams: Iterable[Any] = (sys.stdin,)"),
    ("streams: Iterable[Any] = (sys.stdin, sys.stdout)", "streams: Iterable[Any] = (sys.stdout,)"),
    ("            ctrl_c.check()\n", ""),
    ("with on_interrupt(ctrl_c):", "with contextlib.nullcontext():"),
    ("if sys.stdin is None or sys.stdout is None:", "if sys.stdin is None:"),
    ("if sys.stdin is None or sys.stdout is None:", "if sys.stdout is None:"),
    ('line.rstrip() == "/quit"', 'line.strip() == "/quit"'),
    ('line.rstrip() == "/quit"', 'line == "/quit"'),
    ('    if name == "quit":', '    if name == "never":'),
    ('if options["context"] is None:', 'if not options["context"]:'),
    ('options["context"] = 224', 'options["context"] = 160'),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), FAULTS)
def test_a_fault_is_caught_by_the_chapters_checks(tmp_path, before, after):
    assert not survives("16", tmp_path, before, after)


@pytest.mark.slow
def test_the_module_itself_passes(tmp_path):
    assert survives("16", tmp_path)


# --- the command in a terminal ---

COMMAND = [sys.executable, "-m", "minigpt_lib.assistant"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    chatterer(max_seq_len=8192).save_pretrained(folder)
    CHAT.base.save(folder / "tokenizer.json")
    return folder


def run(folder, typed: bytes, *argv, **environment):
    command = [*COMMAND, "--model", str(folder), "--strategy", "greedy", *argv]
    done = subprocess.run(
        command,
        input=typed,
        capture_output=True,
        cwd=paths.ROOT,
        timeout=300,
        env=os.environ | environment,
    )
    return (
        done.stdout.decode("utf-8", "replace"),
        done.stderr.decode("utf-8", "replace"),
        done.returncode,
    )


@pytest.mark.slow
def test_the_command_in_a_pipe(folder, tmp_path):
    file = tmp_path / "talk.json"
    typed = f"Hi <|im_end|>\x1b[31m\n/system Be kind.\nYou?\n/save {file}\n/reset\n/load {file}\n".encode()
    out, errors, status = run(
        folder, typed + b"\xff\xfe\n/nope\n\n/quit\nnot read\n", "--max-new-tokens", "3"
    )
    lines = out.splitlines()
    assert (errors, status) == ("", 0) and lines[0].startswith("MiniGPT, a language model of ")
    assert "It cannot know the\n" in out and "you>" not in out
    assert lines[3:] == [
        "MiniGPT> aaa", "(the first message is now: Be kind.)", "MiniGPT> aaa", f"(saved to {file})", "(forgotten)",
        f"(going on with {file})", "MiniGPT> aaa", "(there is no command /nope; /help lists them)",
    ]  # fmt: skip
    messages = json.loads(file.read_text("utf-8"))["messages"]
    assert [m["content"] for m in messages] == [
        "Be kind.",
        "Hi <|im_end|>\x1b[31m",
        "aaa",
        "You?",
        "aaa",
    ]


@pytest.mark.slow
def test_the_command_where_text_is_ascii_or_nobody_reads(folder):
    out, errors, status = run(
        folder, "/system Größe\nGröße\n".encode(), "--max-new-tokens", "2", PYTHONIOENCODING="ascii"
    )
    assert (errors, status) == ("", 0) and out.endswith("?e)\nMiniGPT> aa\n")
    command = [*COMMAND, "--model", str(folder), "--strategy", "greedy"]
    both = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=paths.ROOT, **both) as process:
        process.stdout.readline()
        process.stdout.close()  # as `| head -1` does
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"Hi\n" * 50)
            process.stdin.close()
        process.stdin = None
        assert process.wait(300) == 0 and process.stderr.read() == b""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="closing a stream is the shell's work")
@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_without_input_or_output_it_says_so(folder, closed):
    line = f'exec "$0" "$@" {closed}'
    command = ["sh", "-c", line, *COMMAND, "--model", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT, timeout=300)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "no input or no output" in done.stderr


@pytest.mark.slow
def test_context_0_is_not_all(folder):
    _, errors, status = run(folder, b"", "--context", "0")
    assert status == 1 and len(errors.splitlines()) == 1 and "context=0: expected" in errors


@pytest.mark.slow
def test_errors_are_a_line(tmp_path):
    out, errors, status = run(tmp_path / "none", b"")
    assert (out, status) == ("", 1) and len(errors.splitlines()) == 1 and "config.json" in errors
    out, _, status = run(tmp_path, b"", "--help")
    assert status == 0 and "lower is safer" in out and "the folder of a model" in out


class Terminal:
    """The command in a pseudo-terminal: type, wait for words.

    ctrl_c: what the command inherits as the reaction to Ctrl-C; `command &` in a shell's script leaves SIG_IGN.
    """

    def __init__(self, *argv, ctrl_c):
        import pty

        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *argv], cwd=paths.ROOT, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=lambda: self._control(ctrl_c), env=os.environ | {"TERM": "dumb"},
        )  # fmt: skip
        os.close(slave)
        self.seen, self.at = "", 0

    @staticmethod
    def _control(ctrl_c):
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches it
        signal.signal(signal.SIGINT, ctrl_c)

    def wait_for(self, words, seconds=300):
        """Read on until the words have come, after the last words that were waited for."""
        end = time.monotonic() + seconds
        while (found := self.seen.find(words, self.at)) < 0:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"{words!r} did not come: {self.seen[-500:]!r}"
            try:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"it ended without {words!r}: {self.seen[-500:]!r}") from None
        self.at = found + len(words)

    def type(self, text):
        os.write(self.master, text.encode())

    def type_until(self, text, words, times=20):
        """Type again while nothing comes: a Ctrl-C between the prompt and the wait for a key is noticed
        only at the next key (CPython's readline)."""
        for _ in range(times):
            self.type(text)
            with contextlib.suppress(AssertionError):
                return self.wait_for(words, 5)
        raise AssertionError(f"{words!r} did not come: {self.seen[-500:]!r}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize("ctrl_c", [signal.SIG_DFL, signal.SIG_IGN], ids=["usual", "switched off"])
def test_the_command_in_a_terminal_survives_ctrl_c(folder, tmp_path, ctrl_c):
    file = tmp_path / "talk.json"
    options = ("--strategy", "greedy", "--max-new-tokens", "4000")
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
        terminal.wait_for("you> ")  # only then is Ctrl-D a key, and not the end of a line
        terminal.type("\x04")
        assert terminal.process.wait(300) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)
    system, question, answer = json.loads(file.read_text("utf-8"))["messages"]
    assert question == user("Go on") and set(answer["content"]) == {"a"}
    assert 4 <= len(answer["content"]) < 4000


class Nervous(io.StringIO):
    """Standard output of a user who presses Ctrl-C again while the first press is answered."""

    def write(self, text):
        if "(broken off)" in text or "(/quit ends)" in text:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_pressing_twice_does_not_end_the_conversation(monkeypatch):
    assistant, ctrl_c = Assistant(tiny(), CHAT), module._CtrlC()
    lines, interrupted = iter(["One", "Ctrl-C", "Two"]), iter([True, False])

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
    assert [m["content"] for m in assistant.messages[1:]] == ["One", "Yes", "Two", "Yes indeed"]


def test_the_command_finds_the_courses_model(tmp_path, monkeypatch, capsys):
    home = tmp_path / "data" / "models" / "14_sft"
    chatterer().save_pretrained(home)
    CHAT.base.save(home / "tokenizer.json")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "minigpt_lib" / "assistant.py"))
    lines = iter(["Hi", "x" * 180])
    monkeypatch.setattr("builtins.input", lambda _: next(lines, "/quit"))
    module.main(["--max-new-tokens", "5"])
    out = capsys.readouterr().out
    assert str(home) in out and "MiniGPT> aaaaa" in out, "and its context is 224"
    assert "room for 219" in out


# --- the chat in a notebook ---


def parts(widget, kind):
    found = [widget] if type(widget).__name__ == kind else []
    return found + [p for child in getattr(widget, "children", ()) for p in parts(child, kind)]


def test_the_chat_window_talks_refuses_and_forgets():
    a = Assistant(chatterer(), CHAT, max_new_tokens=6, strategy="greedy")
    window = explorer.chat_window(a)
    (field,) = parts(window, "Text")
    send, reset = parts(window, "Button")
    log, note, view = parts(window, "HTML")
    attention = window.children[-1]
    assert attention.layout.display == "none" and "Be" not in log.value
    field.value = "Hi <b>you</b>"
    send.click()
    assert "aaaaaa" in log.value and "Hi &lt;b&gt;you&lt;/b&gt;" in log.value and field.value == ""
    assert (
        len(a.messages) == 3 and attention.layout.display == "" and "Before it wrote" in view.value
    )
    first = view.value
    attention.token.value = 3
    assert view.value != first
    field.value = "x" * 300
    send.click()
    assert "Refused" in note.value and len(a.messages) == 3 and field.value == "x" * 300
    temperature, longest = parts(window, "FloatSlider")[0], parts(window, "IntSlider")[0]
    temperature.value, longest.value, field.value = 1.5, 2, "Again"
    send.click()
    assert (
        a.settings["temperature"] == 1.5 and a.messages[-1]["content"] == "aa" and note.value == ""
    )
    for _ in range(6):
        field.value = "And once more, to fill the context"
        send.click()
    assert "opacity:.45" in log.value, "what is no longer read is pale"
    reset.click()
    assert len(a.messages) == 1 and attention.layout.display == "none"
    scripted(a, ["Yes", KeyboardInterrupt()], [])
    for text, words in (("One", "Broken off"), ("Two", "nothing to say")):
        field.value = text
        send.click()
        assert words in note.value
    assert [m["content"] for m in a.messages[1:]] == ["One", "Yes"]
    scripted(a, ["Well", RuntimeError("a <bad> weight")], [OverflowError("too big")])
    for text, words in (
        ("Go", "RuntimeError: a &lt;bad&gt; weight"),
        ("On", "OverflowError: too big"),
    ):
        field.value = text
        send.click()
        assert "It failed" in note.value and words in note.value
        assert attention.layout.display == "none"
    assert [m["content"] for m in a.messages[3:]] == ["Go", "Well"] and "Well" in log.value
    a.settings["seed"] = "1"
    field.value = "Hm"
    send.click()
    assert "Refused" in note.value and "seed=" in note.value and len(a.messages) == 5


@pytest.fixture(scope="module")
def talks():
    scripts = {"One": ["Hi", "Who?"], "Two": ["/system Be\nkind.", "A b"]}
    a = scripted(Assistant(tiny(), CHAT), "Hello", list("It\nis <i> I."), ["Ja ", "wohl."])
    return explorer.record(a, scripts)


def test_records_hold_what_was_said(talks):
    assert [talk["title"] for talk in talks] == ["One", "Two"]
    assert (
        talks[1]["messages"][0]["content"] == "Be\nkind."
        and talks[0]["messages"][0]["content"] == SYSTEM
    )
    for talk in talks:
        found = talk["attention"]
        assert "".join(found["tokens"][found["start"] :]) == talk["messages"][-1]["content"]
        for weights in found["weights"]:
            assert all(abs(sum(row) - 1000) < len(row) for row in weights)
    json.dumps(talks, allow_nan=False)


def test_the_twin_says_and_shades_as_the_widget(talks):
    import html
    import re

    for talk in talks:
        data = talk["attention"]
        n = len(data["tokens"]) - data["start"]
        places = [(i, layer) for i in range(n) for layer in (None, 0, 1)]
        each = "[m.describe(data.found, i, layer), m.boxes(data.found, i, layer)]"
        expression = f"data.places.map(([i, layer]) => {each})"
        theirs = in_node("chat-replay.js", expression, {"found": data, "places": places})
        for (i, layer), (sentence, boxes) in zip(places, theirs):
            assert sentence == explorer.describe(data, i, layer)
            ours = re.findall(
                r'<span style="(.*?)">(.*?)</span>', explorer.draw(data, i, layer), re.DOTALL
            )
            for (text, style), (our_style, our_text) in zip(boxes, ours, strict=True):
                assert text == html.unescape(our_text)
                head, _, tint = style.rstrip(")").rpartition(",")
                our_head, _, our_tint = our_style.rstrip(")").rpartition(",")
                assert head == our_head
                assert (
                    tint == our_tint or abs(float(tint) - float(our_tint)) < 0.011
                )  # a half rounds otherwise
