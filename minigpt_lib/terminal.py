"""Talk with an assistant in a terminal or a pipe: `minigpt`, or `python -m minigpt_lib.terminal`.

Lines that begin with / are commands, everything else is a question; an error is a line, no traceback.

Written by notebooks/16_assistant.ipynb (chapter 16): edit it there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from minigpt_lib.assistant import (
    SETTINGS,
    SYSTEM,
    Assistant,
    _data_folder,
    find_model,
    obey,
    trained_models,
)
from minigpt_lib.model import count_parameters
from minigpt_lib.training import on_interrupt

__all__ = ["main"]


class _CtrlC:
    """A handler for Ctrl-C that loses no press: inside a `with` block it raises KeyboardInterrupt.

    It raises once, so a second press cannot interrupt the code that deals with the first. `pressed`
    stays True until that code has set it to False: a press outside the block waits there, and so does
    one whose exception was swallowed, as Python does in a callback ("Exception ignored in ...").
    """

    def __init__(self) -> None:
        self.pressed = False
        self.raises = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        if self.raises:
            self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C has been pressed."""
        if self.pressed:
            self.raises = False
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        self.raises = True
        self.check()

    def __exit__(self, *_: object) -> None:
        self.raises = False


_COLOURS = {"you": "1;32", "MiniGPT": "1;36"}  # bold green, bold cyan
_NAMES = {"system": "system", "user": "you", "assistant": "MiniGPT"}


def _printable(text: str) -> str:
    """Return a text that can neither move the cursor nor change colours: control characters replaced."""
    kept = (c if c == "\n" or unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)
    return "".join(kept)


class _Screen:
    """Standard output: colours where they are welcome, and nothing that a model could do to a terminal."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False, force_jupyter=False)
        self.has_colour = self.console.color_system is not None and not self.console.no_color
        self.is_terminal = self.console.is_terminal

    def label(self, name: str, for_input: bool = False) -> str:
        """Return "NAME> ", in its colour; for_input: with marks that tell readline it takes no room."""
        text = f"{name}> "
        if not self.has_colour:
            return text
        begin = f"\x1b[{_COLOURS.get(name, '1')}m"
        end = "\x1b[0m"
        if for_input and "readline" in sys.modules:
            begin = f"\x01{begin}\x02"
            end = f"\x01{end}\x02"
        return f"{begin}{text}{end}"

    def tell(self, text: str) -> None:
        """Print lines of our own."""
        print(_printable(text), flush=True)

    def begin(self, name: str) -> None:
        """Print whose turn it is."""
        print(self.label(name), end="", flush=True)

    def piece(self, text: str) -> None:
        """Print a piece of an answer."""
        print(_printable(text), end="", flush=True)

    def show(self, messages: Iterable[Mapping[str, str]]) -> None:
        """Print a conversation."""
        for message in messages:
            self.begin(_NAMES[message["role"]])
            self.tell(message["content"])

    def side_by_side(self, answers: Mapping[str, str]) -> None:
        """Print the answers of several models: in columns in a terminal, else one below the other."""
        if not self.is_terminal:
            for name, answer in answers.items():
                self.begin(name)
                self.tell(answer)
            return

        table = Table.grid(padding=(0, 3), expand=True)
        for _ in answers:
            table.add_column(ratio=1, overflow="fold")  # nothing is cut off
        bold = "bold" if self.has_colour else ""
        table.add_row(*(Text(name, style=bold) for name in answers))
        table.add_row(*(Text(_printable(answer)) for answer in answers.values()))
        # rich takes a terminal that calls itself dumb to have 80 columns.
        self.console.print(table, width=shutil.get_terminal_size().columns)


_QUOTES = '"""'


def _read(prompt: str) -> tuple[str, bool]:
    """Return (what was typed, whether it stood in quotes); a message may have several lines.

    Raises EOFError at the end of the input; within a message, what there is of it counts.
    """
    line = input(prompt)
    more = "...> " if prompt else ""
    is_quoted = line.startswith(_QUOTES)
    with contextlib.suppress(EOFError):
        if is_quoted:
            line = line.removeprefix(_QUOTES)
            while not line.endswith(_QUOTES):
                line += "\n" + input(more)
        else:
            while line.endswith("\\"):
                line = line.removesuffix("\\") + "\n"
                line += input(more)
    return line.removesuffix(_QUOTES).strip("\n") if is_quoted else line.rstrip("\n"), is_quoted


_MORE_HELP = '''/quit            end, as does Ctrl-D; Ctrl-C breaks an answer off
A line that begins with a space is never a command. A line that ends with \\ goes on in the next one, and
so does everything between two """.'''


class _Talk:
    """A conversation at a keyboard, or in a pipe.

    assistants: by name; all get the same questions, and the first one's conversation is saved. keep: the
    file for --continue, or None. bare: print answers without a name before them.
    """

    def __init__(
        self,
        assistants: dict[str, Assistant],
        screen: _Screen,
        ctrl_c: _CtrlC,
        keep: Path | None = None,
        bare: bool = False,
    ) -> None:
        self.assistants = assistants
        self.first = next(iter(assistants.values()))
        self.screen = screen
        self.ctrl_c = ctrl_c
        self.keep = keep
        self.bare = bare
        self._kept = self.first.messages  # as they were saved last
        self._unread = 0  # messages that the last question left out

    def run(self) -> None:
        """Read lines and answer, until /quit or the end of the input."""
        prompt = self.screen.label("you", for_input=True) if sys.stdin.isatty() else ""
        while True:
            try:
                with self.ctrl_c:
                    line, is_quoted = _read(prompt)
                    if not is_quoted and line.rstrip() == "/quit":
                        return
                    self.take(line, is_quoted)
            except EOFError:
                return
            except KeyboardInterrupt:
                print("\n(/quit ends)")
                self.ctrl_c.pressed = False
            except BrokenPipeError:  # nobody reads any more
                raise
            except (ValueError, OSError) as error:
                self.screen.tell(f"({error})")

    def take(self, line: str, is_quoted: bool = False) -> None:
        """Answer a question, or carry out a command."""
        if not line.strip():
            return
        is_command = line.startswith("/") and not is_quoted
        command = line.split(maxsplit=1)[0] if is_command else ""
        if command == "/quit":
            self.screen.tell("(/quit stands alone on its line)")
            return
        if not is_command:
            self._warn(line)

        answer = self._answer if len(self.assistants) == 1 else self._answer_together
        told = answer(line, is_quoted, command)
        if command == "/help":
            self.screen.tell(_MORE_HELP)
        if told.startswith("(going on"):
            self.screen.show(self.first.messages)
        self._save()

    def _warn(self, line: str) -> None:
        """Say so when a question is the first for which old turns are left out."""
        before = self._unread
        self._unread = len(self.first.messages) + 1 - len(self.first.window(line))
        if self._unread and not before:
            self.screen.tell("(from here on the oldest turns are no longer read)")

    def _answer(self, line: str, is_quoted: bool, command: str) -> str:
        """Print an answer while it is written; Ctrl-C breaks it off. Return what a command tells."""
        try:
            pieces = self.first.stream(line) if is_quoted else obey(self.first, line)
            if isinstance(pieces, str):
                self.screen.tell(pieces)
                return pieces

            if not self.bare:
                self.screen.begin("MiniGPT")
            for piece in pieces:
                self.screen.piece(piece)
                self.ctrl_c.check()
            print()
        except KeyboardInterrupt:
            self.first.stop()
            print(" (broken off)")
            self.ctrl_c.pressed = False
        return ""

    def _answer_together(self, line: str, is_quoted: bool, command: str) -> str:
        """Print the answers of all assistants. Return what a command tells."""
        answers = {}
        try:
            for name, assistant in self.assistants.items():
                answers[name] = self._collect(assistant, line, is_quoted)
                if command == "/save":
                    break
        except KeyboardInterrupt:
            for assistant in self.assistants.values():
                assistant.stop()
            print("(broken off)")
            self.ctrl_c.pressed = False
            return ""

        if command in ("", "/retry", "/edit", "/stats"):
            self.screen.side_by_side(answers)
            return ""
        told = next(iter(answers.values()))
        self.screen.tell(told)
        return told

    def _collect(self, assistant: Assistant, line: str, is_quoted: bool) -> str:
        """Return a whole answer, or what a command or an error tells."""
        try:
            pieces = assistant.stream(line) if is_quoted else obey(assistant, line)
        except (ValueError, OSError) as error:
            return f"({error})"

        answer = ""
        for piece in pieces:
            answer += piece
            self.ctrl_c.check()
        return answer

    def _save(self) -> None:
        """Put the conversation where --continue finds it, if it has changed."""
        if self.keep is None or self.first.messages == self._kept:
            return
        try:
            self.keep.parent.mkdir(parents=True, exist_ok=True)
            self.first.save(self.keep)
            self._kept = self.first.messages
        except (ValueError, OSError) as error:
            self.keep = None
            self.screen.tell(f"(this conversation is not kept for --continue: {error})")


def _greeting(assistant: Assistant, folder: Path) -> str:
    n = count_parameters(assistant.model)["total"]
    told = (
        f"MiniGPT, a language model of {n:,} weights from {folder}. It runs on this computer alone.\n"
        "It knows what it has read and been taught in training, and this conversation. It cannot know the\n"
        "news, the time, or who you are; it can be wrong without noticing. /help lists the commands."
    )
    if assistant.examples:
        told += "\nYou might ask: " + "  ".join(assistant.examples[:3])
    return told


@dataclass(frozen=True)
class _Options:
    """Talk with the assistant that you have trained."""

    model: str | None = None  # a trained model's name or folder; None: the course's best
    compare: str | None = None  # a second model, which gets the same questions, such as sft
    # one question: answer and end
    prompt: Annotated[str | None, tyro.conf.arg(aliases=["-p"])] = None
    go_on: Annotated[bool, tyro.conf.arg(name="continue")] = False  # go on where you last stopped
    keep: Path | None = None  # the file for --continue; None: data/conversations/last.json
    forget: bool = False  # keep nothing for --continue
    system: str = SYSTEM  # the message that comes first
    context: int | None = None  # tokens to read and write; None: 224 for the course's own, else all
    strategy: str = SETTINGS["strategy"]  # greedy, sample, top_k, top_p, min_p
    temperature: float = SETTINGS["temperature"]  # lower is safer, higher is wilder
    top_k: int | None = SETTINGS["top_k"]  # counts under the strategy top_k
    top_p: float | None = SETTINGS["top_p"]  # counts under the strategy top_p
    min_p: float | None = SETTINGS["min_p"]  # counts under the strategy min_p
    repetition_penalty: float = SETTINGS["repetition_penalty"]  # above 1: fewer repetitions
    max_new_tokens: int = SETTINGS["max_new_tokens"]  # the longest answer
    seed: int | None = None  # the same seed, the same conversation

    def settings(self) -> dict[str, Any]:
        """Return the settings of an Assistant among the options."""
        return {name: getattr(self, name) for name in SETTINGS}

    def chosen(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults."""
        return {name: value for name, value in self.settings().items() if value != SETTINGS[name]}


def _ready() -> None:
    """Let undecodable bytes and unknown characters be replaced, and lines be edited with arrow keys."""
    if sys.stdin is None or sys.stdout is None:  # closed by whoever started it
        raise SystemExit("there is no input or no output: run it in a terminal or a pipe.")
    with contextlib.suppress(AttributeError, ImportError):
        streams: Iterable[Any] = (sys.stdin, sys.stdout)
        for stream in streams:
            stream.reconfigure(errors="replace")
        import readline  # noqa: F401 (arrow keys)


_Openers = Mapping[str, Callable[..., Assistant]]


def _opened(name: str | None, options: _Options, openers: _Openers) -> tuple[Assistant, Path]:
    """Return the assistant of a model, and its folder, or its name if it has none in data/models."""
    given: dict[str, Any] = {"context": options.context, **options.settings()}
    if name in openers and name not in trained_models():
        if options.system != SYSTEM:  # otherwise the model has a first message of its own
            given["system"] = options.system
        return openers[name](**given), Path(name)

    folder = find_model(name)
    return Assistant.open(folder, system=options.system, **given), folder


def _start(options: _Options, screen: _Screen, ctrl_c: _CtrlC, openers: _Openers) -> _Talk:
    """Return the conversation that the options ask for, greeted or taken up."""
    assistants: dict[str, Assistant] = {}
    names = [options.model] if options.compare is None else [options.model, options.compare]
    for name in names:
        assistant, folder = _opened(name, options, openers)
        if options.prompt is None:
            screen.tell(_greeting(assistant, folder))
        assistants[_name(folder, assistants)] = assistant

    keep = options.keep or _data_folder() / "conversations" / "last.json"
    if options.go_on:
        if not keep.is_file():
            raise ValueError(
                f"there is no conversation in {keep} to go on with: begin without --continue."
            )
        for assistant in assistants.values():
            assistant.load(keep)
            assistant.set(**options.chosen())
            if options.system != SYSTEM:
                assistant.system(options.system)
        if options.prompt is None:
            screen.show(next(iter(assistants.values())).messages)

    bare = options.prompt is not None
    if options.prompt is not None and not options.prompt.strip():
        raise ValueError("expected a question after -p, got an empty one.")
    return _Talk(assistants, screen, ctrl_c, None if options.forget else keep, bare)


def _name(folder: Path, taken: Mapping[str, object]) -> str:
    """Return how a model is called beside others."""
    name = folder.parent.name if folder.name == "assistant" else folder.name
    return f"{name}, again" if name in taken else name


def main(argv: list[str] | None = None, openers: _Openers | None = None) -> None:
    """Run the command line: minigpt --help. An error is a line, no traceback.

    openers: how to open models that are not in data/models, by name: functions that take an Assistant's
    options and return it. A trained model of the same name comes first.
    Raises SystemExit: with status 130, as a shell expects, if Ctrl-C comes before the conversation.
    """
    ctrl_c = _CtrlC()
    try:
        with on_interrupt(ctrl_c):
            with ctrl_c:
                options = tyro.cli(_Options, args=argv, prog="minigpt")
                _ready()
                talk = _start(options, _Screen(), ctrl_c, openers or {})
                if options.prompt is not None:
                    talk.take(options.prompt.encode("utf-8", "replace").decode("utf-8"))
                    return
            talk.run()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        raise SystemExit(130) from None  # 128 + 2, the number of Ctrl-C's signal
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main())
