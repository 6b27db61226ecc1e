"""Talk with a model: a conversation that fits its context, answers piece by piece, and what they looked at.

Shapes: T tokens in a conversation, A of them in its last answer, L layers, H heads. A message is
{"role": "system" | "user" | "assistant", "content": str}.

Written by notebooks/16_assistant.ipynb (chapter 16): edit it there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import unicodedata
import weakref
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.chat import FORMATS, ChatTokenizer, Dialog
from minigpt_lib.generation import GenerationConfig, TextGenerator
from minigpt_lib.model import MiniGPT, count_parameters
from minigpt_lib.training import on_interrupt

__all__ = [
    "SETTINGS",
    "SYSTEM",
    "AnswerAttention",
    "Assistant",
    "attention_maps",
    "attention_of_last_answer",
    "Conversation",
    "fit_history",
    "main",
]

SYSTEM = "You are MiniGPT, a small assistant."
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 64,
    "strategy": "top_p",
    "temperature": 0.3,
    "top_k": 50,
    "top_p": 0.9,
    "min_p": 0.1,
    "repetition_penalty": 1.0,
    "seed": None,
}


def fit_history(messages: Dialog, chat: ChatTokenizer, room: int) -> list[dict[str, str]]:
    """Return the messages that fit into `room` tokens, counted with the header of the answer to come.

    The system message and the last message, a user's, always stay; of the turns between, the newest, each
    a question with its answer. Raises ValueError if what must stay is too long, or if the last is no user's.
    """
    messages = list(messages)
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("expected messages of which the last is the user's.")
    first = messages[:1] if messages[0]["role"] == "system" else []
    turns = messages[len(first) :]

    def size(start: int) -> int:
        return len(chat.render(first + turns[start:], add_generation_prompt=True)[0])

    start = len(turns) - 1
    if size(start) > room:
        what = "this message and the system message have" if first else "this message has"
        raise ValueError(
            f"{what} {size(start)} tokens with the headers, but there is room for {room}: say it shorter."
        )
    while start >= 2 and size(start - 2) <= room:
        start -= 2
    return first + turns[start:]


class Conversation:
    """What was said: `messages`, empty or a well-formed dialog, whatever happens.

    chat: a ChatTokenizer. room: how many tokens a prompt may have. system: the message that comes first,
    or None. ValueError if that is empty or too long.
    """

    def __init__(self, chat: ChatTokenizer, room: int, system: str | None = None) -> None:
        self.chat, self.room = chat, room
        self.messages: list[dict[str, str]] = []
        self.system(system)

    def _settle(self) -> None:
        """End an answer that is still being written. Nothing is written here; an Assistant does more."""

    def system(self, text: str | None) -> None:
        """Put another message first, or none; what was said stays. ValueError if it is empty or too long."""
        self._settle()
        head = [{"role": "system", "content": text}] if text is not None else []
        fit_history([*head, {"role": "user", "content": "?"}], self.chat, self.room)
        self.messages = head + [m for m in self.messages if m["role"] != "system"]

    def reset(self) -> None:
        """Forget everything but the system message."""
        self._settle()
        self.messages = [m for m in self.messages if m["role"] == "system"]

    def window(self, text: str) -> list[dict[str, str]]:
        """Return the messages that a model reads to answer `text`, which is the last of them.

        Raises ValueError if it is empty or too long.
        """
        said = [*self.messages, {"role": "user", "content": text}]
        return fit_history(said, self.chat, self.room)

    def prompt(self, text: str) -> list[int]:
        """Return the ids of `window(text)`, with the header of the answer at the end."""
        return self.chat.render(self.window(text), add_generation_prompt=True)[0]

    def add(self, text: str, answer: str) -> None:
        """Note a turn. One without an answer (nothing, or blanks alone) is not kept."""
        if answer.strip():
            question = {"role": "user", "content": text}
            reply = {"role": "assistant", "content": answer}
            self.messages += [question, reply]  # both at once: Ctrl-C may come at any time


_KIND = "MiniGPT conversation 1"


def _read_conversation(path: str | Path, chat: ChatTokenizer) -> dict[str, Any]:
    """Return {"messages", "settings"} of a file that Assistant.save wrote; ValueError for any other file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no conversation: it is not JSON ({error}).") from None
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise ValueError(f"{path} is no conversation: expected a file that save wrote.")
    messages = content.get("messages")
    if not isinstance(messages, list) or not isinstance(content.get("settings"), dict):
        raise ValueError(f"{path} is damaged: expected a list of messages, and settings.")
    try:  # can it go on?
        chat.render([*messages, {"role": "user", "content": "?"}], add_generation_prompt=True)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return content


def _write_conversation(path: str | Path, content: dict[str, Any], chat: ChatTokenizer) -> None:
    """Write the file at once or not at all, over nothing but another conversation."""
    path = Path(os.path.realpath(path))  # of a link the file that it leads to
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}.")
    if path.exists():
        try:
            _read_conversation(path, chat)
        except (ValueError, OSError):
            raise FileExistsError(
                f"{path} is there, and no conversation: take another name."
            ) from None
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _open_model(folder: str | Path) -> tuple[MiniGPT, ChatTokenizer]:
    """Return the model and the chat tokenizer in a folder; errors as of Assistant.from_pretrained."""
    model, file = MiniGPT.from_pretrained(folder), Path(folder) / "tokenizer.json"
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 1, dtype=torch.int64))
    except Exception as error:
        raise ValueError(f"{folder}/config.json describes no model that works: {error}") from error
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no tokenizer.json: BPETokenizer.save writes it.")
    try:
        base = BPETokenizer.load(file)
    except OSError:
        raise
    except Exception as error:  # also of its pattern, and of brackets without end
        raise ValueError(f"{file} holds no tokenizer: {error}") from error
    for name, form in FORMATS.items():
        if set(form.controls) <= base.special_tokens.keys():
            return model, ChatTokenizer(base, name)
    raise ValueError(f"{file} has no format's control tokens: was this model taught to answer?")


def _checked(settings: dict[str, Any], context: int) -> dict[str, Any]:
    """Return the settings; ValueError if a name is unknown, a value no use, or an answer too long."""
    if unknown := sorted(settings.keys() - SETTINGS.keys()):
        raise ValueError(f"{', '.join(unknown)}: expected settings among {', '.join(SETTINGS)}.")
    seed, n = settings["seed"], settings["max_new_tokens"]
    if seed is not None and (type(seed) is not int or not -(2**63) <= seed < 2**63):
        raise ValueError(f"seed={seed!r}: expected a whole number of 64 bits, or None.")
    for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens"):
        number = settings[name]
        if type(number) in (int, float) and number < 2**63:
            continue
        if number is not None or name not in ("top_k", "top_p", "min_p"):
            raise ValueError(f"cannot generate: {name}={number!r}, expected a number below 2**63.")
    GenerationConfig(**settings)
    if 2 * n > context:
        raise ValueError(f"max_new_tokens={n}: more than half of the context of {context}.")
    return settings


class Assistant(Conversation):
    """A model in conversation: `messages` has all that was said; the model reads what fits its context.

    chat: a ChatTokenizer. system: the message that comes first, or None. context: how many tokens the
    model may read and write for one answer, max_seq_len unless told. settings: some of SETTINGS, see
    GenerationConfig. ValueError for what cannot work.
    """

    def __init__(
        self,
        model: MiniGPT,
        chat: ChatTokenizer,
        system: str | None = SYSTEM,
        context: int | None = None,
        **settings: Any,
    ) -> None:
        self.model, self.writer = model, TextGenerator(model, chat)
        self._open: Callable[[], Generator[str, None, None] | None] = lambda: None
        self.context = model.config.max_seq_len if context is None else context
        if type(self.context) is not int or not 2 <= self.context <= model.config.max_seq_len:
            whole = f"a whole number from 2 to {model.config.max_seq_len}, which the model reads"
            raise ValueError(f"context={context!r}: expected {whole}, or None.")
        self.settings = SETTINGS
        self.set(**settings)
        super().__init__(chat, self.room, system)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> "Assistant":
        """Return the assistant in a folder: a model, and a tokenizer.json with the control tokens of its format.

        Raises FileNotFoundError if a file is missing, ValueError if one is damaged or knows no format.
        """
        return cls(*_open_model(folder), **options)

    def set(self, **changes: Any) -> None:
        """Change settings; if it raises ValueError, none of them. A longer answer leaves less room."""
        self.settings = _checked({**self.settings, **changes}, self.context)
        self.room = self.context - self.settings["max_new_tokens"]

    def stream(self, text: str) -> Generator[str, None, None]:
        """Return an iterator over the pieces of the answer; ended or broken off, the turn is kept.

        The next call of stream, system, reset, load or save breaks it off. Raises ValueError at once, with
        nothing lost, for a text that is empty or too long.
        """
        self._settle()
        going = self._write(text, self.prompt(text))
        self._open = weakref.ref(going)
        return going

    def _write(self, text: str, prompt: list[int]) -> Generator[str, None, None]:
        stop, pieces = tuple(self.chat.base.special_tokens.values()), []
        try:
            for piece in self.writer.stream(torch.tensor(prompt), stop=stop, **self.settings):
                pieces.append(piece)
                yield piece
        finally:  # also at Ctrl-C, and when nobody asks for more
            self.add(text, "".join(pieces))

    def _settle(self) -> None:
        if (going := self._open()) is not None:
            going.close()

    def say(self, text: str) -> str:
        """Return the whole answer; everything else as in stream."""
        return "".join(self.stream(text))

    def save(self, path: str | Path) -> None:
        """Write messages and settings as JSON, whole or not at all.

        Raises FileExistsError rather than replace a file that is no conversation.
        """
        self._settle()
        content = {"kind": _KIND, "messages": self.messages, "settings": self.settings}
        _write_conversation(path, content, self.chat)

    def load(self, path: str | Path) -> None:
        """Take up a conversation that `save` wrote; ValueError, with nothing changed, for another file."""
        content = _read_conversation(path, self.chat)
        try:
            self.set(**content["settings"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self._settle()
        self.messages = content["messages"]


@torch.inference_mode()
def attention_maps(model: MiniGPT, ids: Tensor) -> Tensor:
    """Return the attention weights of all layers and heads for ids (T,): (L, H, T, T), float32, on the CPU."""
    maps, hooks, training = [], [], model.training
    blocks: Iterable[Any] = model.blocks

    def note(attention: Any, given: tuple[Any, ...]) -> None:
        maps.append(attention.weights(*given)[0].float().cpu())

    try:
        model.eval()  # without dropout, as when it wrote
        for block in blocks:
            hooks.append(block.attention.register_forward_pre_hook(note))
        model(ids[None].to(model.embedding.weight.device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return torch.stack(maps)


@dataclass(frozen=True)
class AnswerAttention:
    """What the model looked at while it wrote an answer.

    tokens: T texts, one for each token of the conversation that it read, the answer's A at the end; start:
    the place of the answer's first. weights (L, H, A, T), float32: row i is the attention of the place
    before the answer's token i, from which that token was written. Each row adds up to 1.
    """

    tokens: list[str]
    start: int
    weights: Tensor

    def mean(self, layer: int | None = None) -> Tensor:
        """Return the mean over the heads of a layer, counted from 0, or of all layers: (A, T)."""
        return (self.weights if layer is None else self.weights[layer, None]).mean(dim=(0, 1))


def attention_of_last_answer(assistant: Assistant) -> AnswerAttention:
    """Return what the last answer looked at, computed again from the messages and today's settings.

    Raises ValueError if nothing has been said, or if today's settings leave its question no room.
    """
    *before, last = assistant.messages or [{"role": "system"}]
    if last["role"] != "assistant":
        raise ValueError("nothing has been said yet: ask something first.")
    chat = assistant.chat
    try:
        kept = fit_history(before, chat, assistant.room)
    except ValueError as error:
        raise ValueError(f"today's settings leave the last question no room: {error}") from None
    prompt, _ = chat.render(kept, add_generation_prompt=True)
    ids = torch.tensor((prompt + chat.encode(last["content"]))[: assistant.context])
    maps = attention_maps(assistant.model, ids)[:, :, len(prompt) - 1 : -1]
    return AnswerAttention([chat.decode([i]) for i in ids.tolist()], len(prompt), maps)


_HELP = """/reset        forget the conversation
/system TEXT  put another message first; without TEXT, none
/save FILE    write the conversation into a file
/load FILE    go on with the conversation in a file
/help         show this
/quit         end, as does Ctrl-D; Ctrl-C breaks an answer off
A line that begins with a space is never a command."""


def _printable(text: str) -> str:
    """Return a text that can neither move the cursor nor change colours: control characters replaced."""
    kept = (c if c == "\n" or unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)
    return "".join(kept)


def _greeting(assistant: Assistant, folder: Path) -> str:
    n = count_parameters(assistant.model)["total"]
    return (
        f"MiniGPT, a language model of {n:,} weights from {folder}. It runs on this computer alone.\n"
        "It knows what it has read and been taught in training, and this conversation. It cannot know the\n"
        "news, the time, or who you are; it can be wrong without noticing. /help lists the commands."
    )


def _obey(assistant: Assistant, line: str) -> str:
    """Carry out a command; return what to tell the user."""
    name, _, text = line[1:].partition(" ")
    text = text.strip()
    if name == "help":
        return _HELP
    if name == "reset":
        assistant.reset()
        return "(forgotten)"
    if name == "system":
        assistant.system(text or None)
        return f"(the first message is now: {text})" if text else "(there is no first message now)"
    if name == "quit":
        return "(/quit stands alone on its line)"
    if name not in ("save", "load"):
        return f"(there is no command /{name}; /help lists them)"
    if not text:
        return f"(/{name} needs the name of a file)"
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text}: there is no such user's folder.") from None
    getattr(assistant, name)(path)
    return f"(saved to {text})" if name == "save" else f"(going on with {text})"


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


def _answer(assistant: Assistant, line: str, ctrl_c: _CtrlC) -> None:
    """Print an answer while it is written; Ctrl-C breaks it off."""
    try:
        pieces = assistant.stream(line)
        print("MiniGPT> ", end="", flush=True)
        for piece in pieces:
            print(_printable(piece), end="", flush=True)
            ctrl_c.check()
        print()
    except KeyboardInterrupt:
        assistant._settle()
        print(" (broken off)")
        ctrl_c.pressed = False


def _converse(assistant: Assistant, ctrl_c: _CtrlC) -> None:
    """Read lines and answer, until /quit or the end of the input."""
    prompt, unread = "you> " if sys.stdin.isatty() else "", 0
    while True:
        try:
            with ctrl_c:
                line = input(prompt)
                if line.rstrip() == "/quit":
                    return
                if line.startswith("/"):
                    print(_printable(_obey(assistant, line)))
                elif line.strip():
                    before = unread  # of the messages, when the last question was answered
                    unread = len(assistant.messages) + 1 - len(assistant.window(line))  # and now
                    if unread and not before:
                        print("(from here on the oldest turns are no longer read)")
                    _answer(assistant, line, ctrl_c)
        except EOFError:
            return
        except KeyboardInterrupt:
            print("\n(/quit ends)")
            ctrl_c.pressed = False
        except BrokenPipeError:  # nobody reads any more
            raise
        except (ValueError, OSError) as error:
            print(_printable(f"({error})"))


def _find_model() -> Path:
    """Return the folder of the best assistant that the course has made here."""
    home = Path(__file__).parent.parent / "data" / "models"
    for name in ("15_preferences", "14_sft", "course/assistant"):
        if (home / name / "tokenizer.json").is_file():
            return home / name
    raise FileNotFoundError(
        f"there is no assistant in {home} yet: run `make course`, or chapter 14; or name a folder with --model."
    )


@dataclass(frozen=True)
class _Options:
    """Talk with the assistant that you have trained."""

    model: Path | None = None  # the folder of a model; None: the course's own
    system: str = SYSTEM  # the message that comes first
    context: int | None = None  # tokens to read and write; None: 224 for the course's own, else all
    strategy: str = SETTINGS["strategy"]  # greedy, sample, top_k, top_p, min_p
    temperature: float = SETTINGS["temperature"]  # lower is safer, higher is wilder
    top_p: float = SETTINGS["top_p"]  # counts under the strategy top_p
    max_new_tokens: int = SETTINGS["max_new_tokens"]  # the longest answer
    seed: int | None = None  # the same seed, the same conversation


def _start(argv: list[str] | None) -> Assistant:
    """Return the assistant that the options ask for, greeted, with the terminal ready for it."""
    try:
        import tyro
    except ImportError:
        raise SystemExit("the command line needs tyro: pip install tyro") from None
    options = tyro.cli(_Options, args=argv, prog="python -m minigpt_lib.assistant").__dict__.copy()

    if sys.stdin is None or sys.stdout is None:  # closed by whoever started it
        raise SystemExit("there is no input or no output: run it in a terminal or a pipe.")
    with contextlib.suppress(AttributeError, ImportError):
        streams: Iterable[Any] = (sys.stdin, sys.stdout)
        for stream in streams:
            stream.reconfigure(errors="replace")  # bytes that are no text end no conversation
        import readline  # noqa: F401 (arrow keys)

    folder = options.pop("model")
    if folder is None:
        folder = _find_model()
        if options["context"] is None:
            options["context"] = 224  # answers of 64, and prompts as long as its dialogs were
    assistant = Assistant.from_pretrained(folder, **options)
    print(_greeting(assistant, folder))
    return assistant


def main(argv: list[str] | None = None) -> None:
    """Run the command line: python -m minigpt_lib.assistant --help. An error is a line, no traceback.

    Raises SystemExit: with status 130, as a shell expects, if Ctrl-C comes before the conversation.
    """
    ctrl_c = _CtrlC()
    try:
        with on_interrupt(ctrl_c):
            with ctrl_c:
                assistant = _start(argv)
            _converse(assistant, ctrl_c)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        raise SystemExit(130) from None  # 128 + 2, the number of Ctrl-C's signal
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main())
