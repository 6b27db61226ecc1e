"""Talk with a model: a conversation that fits its context, answers piece by piece, and what they looked at.

Shapes: T tokens in a conversation, A of them in its last answer, L layers, H heads. A message is
{"role": "system" | "user" | "assistant", "content": str}.

Written by notebooks/16_assistant.ipynb (chapter 16): edit it there.
"""

from __future__ import annotations

import inspect
import json
import os
import time
import weakref
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt_lib.baselines import evaluating
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.chat import ChatTokenizer, Dialog, chat_of
from minigpt_lib.generation import GenerationConfig, TextGenerator
from minigpt_lib.model import MiniGPT

__all__ = [
    "COMMANDS",
    "OWN_CONTEXT",
    "OWN_MODELS",
    "SETTINGS",
    "SYSTEM",
    "AnswerAttention",
    "Assistant",
    "attention_maps",
    "attention_of_last_answer",
    "Conversation",
    "find_model",
    "fit_history",
    "obey",
    "parse_setting",
    "Stats",
    "trained_models",
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
    or None. Raises ValueError if that is empty or too long.
    """

    def __init__(self, chat: ChatTokenizer, room: int, system: str | None = None) -> None:
        self.chat = chat
        self._room = room
        self.messages: list[dict[str, str]] = []
        self.unanswered: str | None = None  # the last question, if no answer came of it
        self.system(system)

    @property
    def room(self) -> int:
        """Return how many tokens a prompt may have."""
        return self._room

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
        self.unanswered = None

    def window(self, text: str) -> list[dict[str, str]]:
        """Return the messages that a model reads to answer `text`, which is the last of them.

        Raises ValueError if it is empty or too long.
        """
        said = [*self.messages, {"role": "user", "content": text}]
        return fit_history(said, self.chat, self.room)

    def prompt(self, text: str) -> list[int]:
        """Return the ids of `window(text)`, with the header of the answer at the end."""
        return self.chat.render(self.window(text), add_generation_prompt=True)[0]

    def add(self, text: str, answer: str, instead: bool = False) -> None:
        """Note a turn, or put it in place of the last one; a turn without an answer is not kept.

        An answer of nothing but spaces and line breaks counts as none.
        """
        if answer.strip():
            kept = self.messages[:-2] if instead else self.messages
            question = {"role": "user", "content": text}
            reply = {"role": "assistant", "content": answer}
            self.unanswered = None
            self.messages = [*kept, question, reply]  # in one step: Ctrl-C may come at any time

    def last_question(self) -> str | None:
        """Return what was asked last, answered or not, or None if nothing was."""
        asked = [message["content"] for message in self.messages if message["role"] == "user"]
        if self.unanswered is not None:
            return self.unanswered
        return asked[-1] if asked else None

    def undo(self) -> str | None:
        """Remove the last question with its answer; return the question, or None if there is none."""
        self._settle()
        text = self.last_question()
        if self.unanswered is not None:
            self.unanswered = None
        elif text is not None:
            self.messages = self.messages[:-2]
        return text


_KIND = "MiniGPT conversation 1"
OWN_MODELS = ("preferences", "sft", "course", "course/before")  # the best first


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
    except OSError as error:  # the one of a full disk names no file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def _read_examples(folder: str | Path) -> list[str]:
    """Return the questions in a folder's examples.json, or none; ValueError if it holds anything else."""
    file = Path(folder) / "examples.json"
    try:
        questions = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: it is not JSON ({error}).") from None

    is_list = isinstance(questions, list)
    if not is_list or not all(isinstance(text, str) and text.strip() for text in questions):
        raise ValueError(f"{file} is damaged: expected a list of questions.")
    return questions


def _data_folder() -> Path:
    """Return the folder data beside the library."""
    return Path(inspect.getfile(MiniGPT)).parent.parent / "data"


def trained_models(home: str | Path | None = None) -> dict[str, Path]:
    """Return the folders of the models that can answer, by name, the course's best first.

    home: the folder to look in, the course's data/models by default. A chapter's number is not part
    of the name: 15_preferences is "preferences". Raises nothing if there is no such folder.
    """
    home = _data_folder() / "models" if home is None else Path(home)
    found = {}
    for file in [*home.glob("*/tokenizer.json"), *home.glob("*/*/tokenizer.json")]:
        folder = file.parent
        if (folder / "model.safetensors").is_file() and (folder / "config.json").is_file():
            parts = folder.relative_to(home).parts
            if parts[-1] == "assistant":
                parts = parts[:-1]  # of `make course`: data/models/course/assistant
            name = "/".join(parts)
            found[name.lstrip("0123456789").lstrip("_") or name] = folder

    best = [name for name in OWN_MODELS if name in found]
    return {name: found[name] for name in [*best, *sorted(found.keys() - set(best))]}


def find_model(name: str | Path | None = None) -> Path:
    """Return the folder of a model: of this name, of this path, or the best of the course's own.

    Raises FileNotFoundError, and lists the names, if there is none.
    """
    models = trained_models()
    own = [folder for known, folder in models.items() if known in OWN_MODELS]
    if name is None and own:
        return own[0]
    if name is None:
        raise FileNotFoundError(
            "there is no assistant in data/models yet: run `make course`, or chapter 14; or name the "
            "folder of a model."
        )

    by_folder = {folder.name: folder for folder in models.values()}
    if str(name) in models or str(name) in by_folder:
        return models.get(str(name)) or by_folder[str(name)]
    if not Path(name).is_dir():
        raise FileNotFoundError(
            f"there is no model {name}: expected the folder of one, or a name among "
            f"{', '.join(models) or '(none is trained yet: run `make course`)'}."
        )
    return Path(name)


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
    except ValueError as error:
        raise ValueError(f"{file} holds no tokenizer: {error}") from error
    chat = chat_of(base)
    if chat is None:
        raise ValueError(f"{file} has no format's control tokens: was this model taught to answer?")
    return model, chat


_OPTIONAL = ("top_k", "top_p", "min_p", "seed")  # settings that None switches off
_FILTERS = ("top_k", "top_p", "min_p")  # each counts under the strategy of its name
OWN_CONTEXT = 224  # tokens for the course's own models, whose dialogs were no longer


def _checked(settings: dict[str, Any], context: int) -> dict[str, Any]:
    """Return the settings; ValueError if a name is unknown, a value no use, or an answer too long."""
    if unknown := sorted(settings.keys() - SETTINGS.keys()):
        raise ValueError(f"{', '.join(unknown)}: expected settings among {', '.join(SETTINGS)}.")

    seed = settings["seed"]
    if seed is not None and (type(seed) is not int or not -(2**63) <= seed < 2**63):
        raise ValueError(f"seed={seed!r}: expected a whole number of 64 bits, or None.")
    for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens"):
        number = settings[name]
        if type(number) in (int, float) and number < 2**63:
            continue
        if number is not None or name not in _OPTIONAL:
            raise ValueError(f"cannot generate: {name}={number!r}, expected a number below 2**63.")

    GenerationConfig(**settings)
    n = settings["max_new_tokens"]
    if 2 * n > context:
        raise ValueError(f"max_new_tokens={n}: more than half of the context of {context}.")
    return settings


def parse_setting(name: str, text: str) -> Any:
    """Return the value that a text such as "0.7", "20", "greedy" or "none" gives a setting.

    Raises ValueError for a name that is not in SETTINGS, or a text that is no value of it; whether the
    value makes sense is for Assistant.set to say.
    """
    if name not in SETTINGS:
        raise ValueError(f"{name}: expected settings among {', '.join(SETTINGS)}.")
    if name == "strategy":
        return text
    if name in _OPTIONAL and text.lower() in ("none", "off"):
        return None

    whole = name in ("top_k", "seed", "max_new_tokens")
    try:
        return int(text) if whole else float(text)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        more = ", or none" if name in _OPTIONAL else ""
        raise ValueError(f"{name}={text}: expected {kind}{more}.") from None


@dataclass(frozen=True)
class Stats:
    """How full the window is, and how fast the last answer came.

    tokens: those of the system message and of the newest turns that the next question will find in the
    window; room: how many there may be, with that question and the header of its answer; context: the
    room and the longest answer. turns, unread: all turns, and those that are no longer read.
    answer_tokens, seconds: of the last answer that was written, 0 before there is one.
    """

    tokens: int
    room: int
    context: int
    turns: int
    unread: int
    answer_tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        """Return how fast the last answer came, or None before there is one."""
        return self.answer_tokens / self.seconds if self.seconds > 0 else None


class Assistant(Conversation):
    """A model in conversation: `messages` has all that was said; the model reads what fits its context.

    chat: a ChatTokenizer. system: the message that comes first, or None. context: how many tokens the
    model may read and write for one answer, by default max_seq_len. examples: questions to begin with.
    settings: some of SETTINGS, see GenerationConfig. Raises ValueError for invalid ones.
    """

    def __init__(
        self,
        model: MiniGPT,
        chat: ChatTokenizer,
        system: str | None = SYSTEM,
        context: int | None = None,
        *,
        examples: Iterable[str] = (),
        **settings: Any,
    ) -> None:
        self.model = model
        self.writer = TextGenerator(model, chat)
        self.examples = list(examples)
        self._open: Callable[[], Generator[str, None, None] | None] = lambda: None
        self._tries = 0  # how often the last question has been said again
        self._speed = (0, 0.0)  # tokens and seconds of the last answer

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

        Its examples are the questions in examples.json, if there is one. Raises FileNotFoundError if a
        file is missing, ValueError if one is damaged or knows no format.
        """
        model, chat = _open_model(folder)
        options.setdefault("examples", _read_examples(folder))
        return cls(model, chat, **options)

    @classmethod
    def open(cls, name: str | Path | None = None, **options: Any) -> "Assistant":
        """Return the assistant of a trained model, by its name in trained_models(), by default the best.

        A path is taken as in from_pretrained. For the course's own models the context is 224 by default:
        64 tokens for the answer, and prompts as long as their dialogs were. Raises FileNotFoundError,
        with the names that there are, for another one.
        """
        folder = find_model(name)
        models = trained_models()
        own = [models[known].resolve() for known in OWN_MODELS if known in models]
        if options.get("context") is None and folder.resolve() in own:
            options["context"] = OWN_CONTEXT
        return cls.from_pretrained(folder, **options)

    @property
    def room(self) -> int:
        """Return how many tokens a prompt may have: the context without the longest answer."""
        return self.context - self.settings["max_new_tokens"]

    def set(self, **changes: Any) -> None:
        """Change settings; if it raises ValueError, none of them. A longer answer leaves less room."""
        self.settings = _checked({**self.settings, **changes}, self.context)

    def in_use(self) -> dict[str, Any]:
        """Return the settings that count under the present strategy."""
        strategy = self.settings["strategy"]
        without = {name for name in _FILTERS if name != strategy}
        if strategy in ("greedy", "beam"):
            without |= {"temperature", "seed"}
        return {name: value for name, value in self.settings.items() if name not in without}

    def stream(self, text: str) -> Generator[str, None, None]:
        """Return an iterator over the pieces of the answer; ended or broken off, the turn is kept.

        The next call of stream, retry, edit, undo, system, reset, load or save breaks it off. Raises
        ValueError at once, with nothing lost, for a text that is empty or too long.
        """
        self._settle()
        prompt = self.prompt(text)
        self._tries = 0
        return self._begin(text, prompt, instead=False)

    def retry(self) -> Generator[str, None, None]:
        """Ask the last question again, as `stream` does; the new answer takes the place of the old one.

        The old answer stays if the new one is broken off before its first word. With a seed, each retry
        draws with the next seed. Raises ValueError if nothing has been said.
        """
        return self.edit(None)

    def edit(self, text: str | None) -> Generator[str, None, None]:
        """Ask this in place of the last question (None: the same again); otherwise as retry."""
        self._settle()
        last = self.last_question()
        if last is None:
            raise ValueError("nothing has been said yet: ask something first.")

        asked = last if text is None else text
        instead = self.unanswered is None
        before = self.messages[:-2] if instead else self.messages
        kept = fit_history([*before, {"role": "user", "content": asked}], self.chat, self.room)
        prompt = self.chat.render(kept, add_generation_prompt=True)[0]
        self._tries = self._tries + 1 if text is None else 0
        return self._begin(asked, prompt, instead)

    def _begin(self, text: str, prompt: list[int], instead: bool) -> Generator[str, None, None]:
        """Return the generator of an answer, and remember that it is open."""
        going = self._write(text, prompt, instead)
        if not instead:
            self.unanswered = text
        self._open = weakref.ref(going)
        return going

    def _write(self, text: str, prompt: list[int], instead: bool) -> Generator[str, None, None]:
        """Yield the pieces of an answer, and note the turn however it ends."""
        options = dict(self.settings)
        if options["seed"] is not None:
            options["seed"] += self._tries
        stop = tuple(self.chat.base.special_tokens.values())
        pieces: list[str] = []
        seconds = 0.0  # without those in which nobody asked for more
        began = time.perf_counter()
        try:
            for piece in self.writer.stream(torch.tensor(prompt), stop=stop, **options):
                seconds += time.perf_counter() - began
                pieces.append(piece)
                yield piece
                began = time.perf_counter()
        finally:  # also at Ctrl-C, and when nobody asks for more
            answer = "".join(pieces)
            self.add(text, answer, instead)
            self._speed = (len(self.chat.encode(answer)), seconds)

    def _settle(self) -> None:
        if (going := self._open()) is not None:
            going.close()

    def stop(self) -> None:
        """End the answer that is being written; what was written of it is kept."""
        self._settle()

    def say(self, text: str) -> str:
        """Return the whole answer; everything else as in stream."""
        return "".join(self.stream(text))

    def stats(self) -> Stats:
        """Return how full the window is, and how fast the last answer came."""
        try:
            read = self.window("?")[:-1]
        except ValueError:  # the settings leave no room, not even for a question
            read = [message for message in self.messages if message["role"] == "system"]

        turns = sum(message["role"] == "user" for message in self.messages)
        turns_read = sum(message["role"] == "user" for message in read)
        question = [{"role": "user", "content": "?"}]
        with_question = self.chat.render([*read, *question], add_generation_prompt=True)[0]
        alone = self.chat.render(question, add_generation_prompt=True)[0]
        return Stats(
            len(with_question) - len(alone),
            self.room,
            self.context,
            turns,
            turns - turns_read,
            *self._speed,
        )

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
            settings = _checked({**self.settings, **content["settings"]}, self.context)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self._settle()
        self.messages = content["messages"]
        self.settings = settings
        self.unanswered = None
        self._tries = 0


@torch.inference_mode()
def attention_maps(model: MiniGPT, ids: Tensor) -> Tensor:
    """Return the attention weights of all layers and heads for ids (T,): (L, H, T, T), float32, on the CPU."""
    maps, hooks = [], []
    blocks: Iterable[Any] = model.blocks

    def note(attention: Any, given: tuple[Any, ...]) -> None:
        maps.append(attention.weights(*given)[0].float().cpu())

    try:
        for block in blocks:
            hooks.append(block.attention.register_forward_pre_hook(note))
        with evaluating(model):  # without dropout, as when it wrote
            model(ids[None].to(model.embedding.weight.device))
    finally:
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


COMMANDS = {
    "/retry": "answer the last question again",
    "/edit TEXT": "ask TEXT in place of the last question",
    "/undo": "take back the last question and its answer",
    "/reset": "forget the conversation",
    "/system TEXT": "put another message first; without TEXT, none",
    "/set NAME VALUE": "change a setting, as in /set temperature 0.7; alone, show them",
    "/stats": "show how full the window is, and how fast the last answer came",
    "/examples": "show questions to begin with",
    "/save FILE": "write the conversation into a file",
    "/load FILE": "go on with the conversation in a file",
    "/help": "show this",
}


def obey(assistant: Assistant, line: str) -> str | Generator[str, None, None]:
    """Carry out a line that a user has typed: return what to tell them, or the pieces of an answer.

    A line that begins with / is one of COMMANDS, and any other is a question. Raises ValueError, with
    nothing changed, for what cannot be asked or set; OSError for a file.
    """
    if not line.startswith("/"):
        return assistant.stream(line)

    name, _, text = line[1:].partition(" ")
    text = text.strip()
    if name == "retry":
        return assistant.retry()
    if name == "edit":
        return assistant.edit(text)
    if name == "undo":
        question = assistant.undo()
        return "(nothing has been said yet)" if question is None else f"(taken back: {question})"
    if name == "reset":
        assistant.reset()
        return "(forgotten)"
    if name == "system":
        assistant.system(text or None)
        return f"(the first message is now: {text})" if text else "(there is no first message now)"
    if name == "set":
        return _change_setting(assistant, text)
    if name == "stats":
        return _told(assistant.stats())
    if name == "examples":
        return "\n".join(assistant.examples) or "(this model came without examples)"
    if name in ("save", "load"):
        return _use_file(assistant, name, text)
    if name == "help":
        width = max(map(len, COMMANDS)) + 2
        return "\n".join(f"{command:{width}}{what}" for command, what in COMMANDS.items())
    return f"(there is no command /{name}; /help lists them)"


def _change_setting(assistant: Assistant, text: str) -> str:
    """Carry out /set: change a setting, or tell them all."""
    name, _, value = text.partition(" ")
    if not text:
        in_use = assistant.in_use()
        lines = [f"{name} {value}" for name, value in in_use.items()]
        idle = [name for name in assistant.settings if name not in in_use]
        strategy = assistant.settings["strategy"]
        return "\n".join(
            [*lines, f"({', '.join(idle)}: without effect while strategy is {strategy})"]
        )
    if not value.strip():
        return f"({name} needs a value, as in /set temperature 0.7)"

    parsed = parse_setting(name, value.strip())
    assistant.set(**{name: parsed})
    if name in assistant.in_use():
        return f"({name} is now {parsed})"
    return f"({name} is now {parsed}, but has no effect while strategy is {assistant.settings['strategy']})"


def _told(stats: Stats) -> str:
    """Return statistics in words."""
    answer = stats.context - stats.room
    told = [f"window: {stats.tokens} of {stats.room} tokens, and {answer} more for the answer"]
    told.append(f"turns: {stats.turns}, of which {stats.unread} are no longer read")
    if stats.tokens_per_second is not None:
        speed = f"{stats.answer_tokens} tokens, {stats.tokens_per_second:.0f} tokens per second"
        told.append(f"last answer: {speed}")
    return "(" + "\n ".join(told) + ")"


def _use_file(assistant: Assistant, name: str, text: str) -> str:
    """Carry out /save or /load."""
    if not text:
        return f"(/{name} needs the name of a file)"
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text}: there is no such user's folder.") from None

    try:
        if name == "save":
            assistant.save(path)
            return f"(saved to {text})"
        assistant.load(path)
        return f"(going on with {text})"
    except OSError as error:  # whose own words begin with a number: [Errno 2]
        raise type(error)(f"{text}: {error.strerror or error}.") from None
