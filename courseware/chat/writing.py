"""Which models there are, and answers that a thread writes, for one question at a time."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from courseware import paths
from minigpt_lib.assistant import SYSTEM, Assistant, trained_models

Message = dict[str, str]
Event = dict[str, Any]

MOST_OWN = 2  # models in memory: as many as can be compared
MOST_PUBLISHED = 1  # each takes half a gigabyte or more


@dataclass(frozen=True)
class Source:
    """A model on the disk: the file of its weights, its default system message, and how to load it."""

    file: Path
    system: str
    load: Callable[[], Assistant]
    published: bool = False


@dataclass(frozen=True)
class _Key:
    """What was read into memory: a model's name, and when its file was written."""

    name: str
    written: int
    published: bool


class Models:
    """The assistants that the page offers, by name; those opened last stay in memory.

    home: the folder with the models that the course has trained, data/models by default. published: a
    function that returns further models by name. A trained model of the same name comes first.
    """

    def __init__(
        self,
        home: Path = paths.ROOT / "data" / "models",
        published: Callable[[], dict[str, Source]] = dict,
    ) -> None:
        self.home = home
        self._published = published
        self._opened: dict[_Key, Assistant] = {}
        self._opening = threading.Lock()

    def sources(self) -> dict[str, Source]:
        """Return all models, the reader's best first; FileNotFoundError if there is none."""
        found = {
            name: Source(folder / "model.safetensors", SYSTEM, partial(Assistant.open, folder))
            for name, folder in trained_models(self.home).items()
        }
        for name, source in self._published().items():
            found.setdefault(name, source)

        if not found:
            raise FileNotFoundError(
                "There is no assistant yet: run chapters 14 and 16, or `make course`; or `make real`, "
                "which installs a published model. Then come back."
            )
        return found

    def examples(self, name: str) -> list[str]:
        """Return questions to begin with; ValueError or OSError if there is no such model, or it cannot be opened."""
        return self._open(name).examples

    def assistant(
        self,
        name: str,
        messages: Sequence[Message] = (),
        settings: dict[str, Any] | None = None,
    ) -> Assistant:
        """Return an assistant in the middle of this conversation.

        Raises ValueError for an unknown model, invalid settings, or messages that are no conversation.
        """
        opened = self._open(name)
        assistant = Assistant(opened.model, opened.chat, None, opened.context, **(settings or {}))

        question = {"role": "user", "content": "?"}
        assistant.chat.render([*messages, question], add_generation_prompt=True)  # can it go on?
        assistant.messages = list(messages)
        return assistant

    def _open(self, name: str) -> Assistant:
        """Return the assistant of this name, read anew if a chapter has replaced it in the meantime."""
        source = self.sources().get(name)
        if source is None:
            raise ValueError(f"There is no model {name!r} here: choose another one.")

        key = _Key(name, source.file.stat().st_mtime_ns, source.published)
        opened = self._opened.get(key)  # without the lock: another model may be loading for seconds
        if opened is not None:
            return opened

        with self._opening:
            if key not in self._opened:
                self._make_room(source.published)
                self._opened[key] = source.load()
            return self._opened[key]

    def _make_room(self, published: bool) -> None:
        """Forget the models of this kind that were opened first, so that there is room for another one."""
        most = MOST_PUBLISHED if published else MOST_OWN
        same_kind = [key for key in self._opened if key.published == published]
        for key in same_kind[: len(same_kind) - most + 1]:
            del self._opened[key]


# --- files ---


def saved(assistant: Assistant) -> str:
    """Return the text of the file in which Assistant.save writes its conversation."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "conversation.json"
        assistant.save(file)
        return file.read_text(encoding="utf-8")


def load(assistant: Assistant, text: str) -> None:
    """Take up the conversation in the text of a file, as Assistant.load does; ValueError if it holds none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "conversation.json"
        try:
            file.write_text(text, encoding="utf-8")
            assistant.load(file)
        except ValueError as error:  # the person at the page knows the file by another name
            raise ValueError(str(error).replace(str(file), "This file")) from None


# --- answers ---


class Writing:
    """One question to one assistant or to two, whose answers are written by a thread.

    `notify` is called in that thread with each event. Its "side" counts the assistants from 0:

    - {"side", "piece"}: the answer goes on;
    - {"side", "end", "stats"}: it has ended: "complete", "stopped", or "failed" (then there is an "error");
      stats are those of Assistant.stats;
    - None: all answers have ended.

    Raises ValueError if the question is empty, or too long for one of the assistants.
    """

    def __init__(
        self,
        assistants: Sequence[Assistant],
        question: str,
        notify: Callable[[Event | None], None],
    ) -> None:
        self.unread = [_unread(assistant, question) for assistant in assistants]
        self._assistants = list(assistants)
        self._answers = [assistant.stream(question) for assistant in assistants]
        self._notify = notify
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """End the answers after the piece that is being written; returns at once."""
        self._stopped.set()

    def join(self, seconds: float) -> None:
        """Wait until nothing is written any more, but no longer than this."""
        self._thread.join(seconds)

    def _run(self) -> None:
        going = list(range(len(self._answers)))
        try:
            while going and not self._stopped.is_set():
                # A piece of each in turn, so that two answers appear side by side.
                going = [side for side in going if self._write_piece(side)]
            for side in going:
                self._answers[side].close()
                self._end(side, "stopped")
        finally:
            self._notify(None)

    def _write_piece(self, side: int) -> bool:
        """Write the next piece of an answer; return whether there may be more."""
        try:
            piece = next(self._answers[side], None)
        except Exception as error:  # whatever a model does, the person at the page must hear of it
            self._end(side, "failed", error=f"{type(error).__name__}: {error}")
            return False

        if piece is None:
            self._end(side, "complete")
            return False
        self._notify({"side": side, "piece": piece})
        return True

    def _end(self, side: int, how: str, **more: Any) -> None:
        stats = asdict(self._assistants[side].stats())
        self._notify({"side": side, "end": how, "stats": stats, **more})


def _unread(assistant: Assistant, question: str) -> int:
    """Return how many turns the model will not read when it answers the question."""
    window = assistant.window(question)
    dropped = len(assistant.messages) + 1 - len(window)
    return dropped // 2  # a question goes with its answer


class Desk:
    """Where one question at a time is answered.

    closed: whether the server is about to end; what begins then is stopped at once.
    """

    def __init__(self) -> None:
        self.closed = False
        self._taken = threading.Lock()
        self._writing: Writing | None = None

    def take(self) -> bool:
        """Return whether the desk was free; if so, it is now taken, until `leave`."""
        return self._taken.acquire(blocking=False)

    def leave(self) -> None:
        """Free the desk for the next question."""
        self._writing = None
        self._taken.release()

    def begin(self, writing: Writing) -> None:
        """Start to write at the desk that was taken; the last event of `writing` must lead to `leave`."""
        self._writing = writing
        if self.closed:
            writing.stop()
        writing.start()

    def close(self) -> None:
        """Stop what is being written; returns at once."""
        self.closed = True
        if (writing := self._writing) is not None:
            writing.stop()

    def wait(self, seconds: float = 5.0) -> None:
        """Wait for the end of what is being written, but no longer than this."""
        if (writing := self._writing) is not None:
            writing.join(seconds)
