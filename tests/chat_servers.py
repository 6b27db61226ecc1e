"""Servers of `make chat` for the tests: models that say what a test wants, and the page at an address."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from assistant_models import CHAT, chatterer

from courseware.chat import command
from courseware.chat.server import new_server
from courseware.chat.writing import Models, Source
from minigpt_lib.assistant import Assistant

PATIENCE = 30  # seconds; on a calm machine nothing here needs one
EXAMPLES = ["Where was Ada Holm born?", "What is 7 plus 5?"]


class Script:
    """What the models say: one list of pieces for each answer, in which a function is called at its place.

    prompts: the ids that were read, options: the settings, one for each answer. pieces: how many were asked for.
    closed: how many answers have ended. Without anything to say, a model says "a" as long as it may.
    """

    def __init__(self) -> None:
        self.answers: list[list[Any]] = []
        self.prompts: list[list[int]] = []
        self.options: list[dict[str, Any]] = []
        self.pieces = 0
        self.closed = 0

    def say(self, *answers: Any) -> None:
        """Let the next answers be these: texts, or lists of pieces."""
        self.answers = [[answer] if isinstance(answer, str) else list(answer) for answer in answers]

    def stream(self, prompt: torch.Tensor, max_new_tokens: int, **options: Any) -> Iterator[str]:
        """Stand in for TextGenerator.stream."""
        self.prompts.append(prompt.tolist())
        self.options.append({"max_new_tokens": max_new_tokens, **options})
        pieces = self.answers.pop(0) if self.answers else ["a"] * max_new_tokens
        try:
            for piece in pieces:
                self.pieces += 1
                if callable(piece):
                    piece()
                else:
                    yield piece
        finally:
            self.closed += 1


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds, or fail."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.005)


def save_model(folder: Path, letter: str = "a") -> Path:
    """Write a model into a folder as a chapter does, with examples; return the folder."""
    chatterer(letter).save_pretrained(folder)
    CHAT.base.save(folder / "tokenizer.json")
    (folder / "examples.json").write_text(json.dumps(EXAMPLES), encoding="utf-8")
    return folder


ROBOT = "You are a robot."


def published(folder, *names, loading=lambda: None):
    """Return a function that offers published models of these names; `loading` is called while one is opened."""
    file = folder / "robot.gguf"
    file.touch()

    def open_robot():
        loading()
        return Assistant(chatterer("r"), CHAT, ROBOT)

    sources = {name: Source(file, ROBOT, open_robot, published=True) for name in names}
    return lambda: sources


def serve(home, further=dict):
    """Return the address of a new server of the models in `home` and `further` ones, and a function that ends it."""
    listener = command.listening_socket(0)
    server = new_server(Models(home, further))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()

    def end():
        server.should_exit = True
        thread.join()

    return f"http://127.0.0.1:{listener.getsockname()[1]}/", end
