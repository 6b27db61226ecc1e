"""A headless Firefox for the tests, driven by WebDriver BiDi, which it speaks by itself: no driver is installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("firefox-esr", "firefox")
_SECONDS = 120  # for one answer of a browser on a busy machine
_QUIET = """
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
"""


class Firefox:
    """A running Firefox with one tab; it notes errors and requests since the last page was opened."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._n_commands = 0
        self._tab = ""
        self.errors: list[str] = []
        self.requested: list[str] = []

    async def start(self) -> None:
        await self._command("session.new", capabilities={})
        events = ["log.entryAdded", "network.beforeRequestSent"]
        await self._command("session.subscribe", events=events)
        tree = await self._command("browsingContext.getTree")
        self._tab = tree["contexts"][0]["context"]

    async def open(self, url: str) -> None:
        """Open a page and wait until its scripts are ready."""
        self.errors.clear()
        self.requested.clear()
        await self._command("browsingContext.navigate", context=self._tab, url=url, wait="complete")
        await self.wait_for("document.documentElement.dataset.ready ?? null")

    async def reload(self) -> None:
        """Load the page again and wait until its scripts are ready."""
        await self._command("browsingContext.reload", context=self._tab, wait="complete")
        await self.wait_for("document.documentElement.dataset.ready ?? null")

    async def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        for _ in range(300):
            if await self.evaluate(expression):
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{expression} did not become true")

    async def type(self, text: str) -> None:
        """Press the keys of a text, wherever the focus is."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        await self._act("key", keys)

    async def click(self, element: str) -> None:
        """Click on the middle of an element, which this expression finds."""
        middle = f"""(() => {{
            const box = ({element}).getBoundingClientRect();
            return JSON.stringify([box.x + box.width / 2, box.y + box.height / 2].map(Math.round));
        }})()"""
        x, y = json.loads(await self.evaluate(middle))
        move = {"type": "pointerMove", "x": x, "y": y}
        down = {"type": "pointerDown", "button": 0}
        await self._act("pointer", [move, down, {"type": "pointerUp", "button": 0}])

    async def _act(self, kind: str, actions: list[dict[str, Any]]) -> None:
        source = {"type": kind, "id": kind, "actions": actions}
        await self._command("input.performActions", context=self._tab, actions=[source])

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, which must be a string, a number, true, false or null."""
        target = {"context": self._tab}
        answer = await self._command(
            "script.evaluate", expression=expression, target=target, awaitPromise=True
        )
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return answer["result"].get("value")

    async def _command(self, method: str, **params: Any) -> Any:
        self._n_commands += 1
        number = self._n_commands
        message = json.dumps({"id": number, "method": method, "params": params})
        await self._connection.write_message(message)

        while True:
            text = await asyncio.wait_for(self._connection.read_message(), _SECONDS)
            answer = json.loads(text)
            if answer.get("id") == number:
                if answer["type"] == "error":
                    raise RuntimeError(f"{method}: {answer['message']}")
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "log.entryAdded" and params["level"] == "error":
            self.errors.append(str(params.get("text")))
        if event.get("method") == "network.beforeRequestSent":
            self.requested.append(params["request"]["url"])


@contextlib.asynccontextmanager
async def running(profile: Path) -> AsyncIterator[Firefox]:
    """Yield a Firefox with a fresh profile in this folder, or skip the test and say why."""
    websocket = pytest.importorskip("tornado.websocket", reason="tornado is not installed")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Firefox found: install one")

    (profile / "user.js").write_text(_QUIET, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [path, "--headless", "--no-remote", "--profile", str(profile)]
    command += ["--remote-debugging-port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    try:
        connection = await _connected(websocket, f"ws://127.0.0.1:{port}/session")
        firefox = Firefox(connection)
        await firefox.start()
        yield firefox
    finally:
        process.terminate()
        process.wait(timeout=30)


async def _connected(websocket: Any, address: str) -> Any:
    for _ in range(2 * _SECONDS):
        try:
            return await websocket.websocket_connect(address, max_message_size=2**27)
        except OSError:
            await asyncio.sleep(0.5)
    raise TimeoutError("Firefox did not open its port")
