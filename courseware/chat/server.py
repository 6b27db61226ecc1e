"""The server of the page: for this computer alone, one answer at a time, streamed piece by piece.

The page keeps the conversation; each request brings all that the server must know. So two tabs don't disturb each
other, and a conversation survives a restart of the server. A browser runs pages from anywhere, and any of them could
send requests to this address. Three rules keep them out: the name in the Host header must be this computer's, or
another site's name could lead here (DNS rebinding); a request that changes something must come from our own page
(Origin, Sec-Fetch-Site) and be JSON, which no form can send; and nobody is allowed to read an answer from elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import functools
import hashlib
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from courseware.chat.writing import Desk, Event, Models, Writing, load, saved
from minigpt_lib.assistant import SETTINGS, Assistant

PAGE = Path(__file__).with_name("page.html")
HOSTS = ["127.0.0.1", "localhost"]
MOST_BYTES = 1_000_000  # of a request; a conversation of a thousand turns has about a fifth of that
PATIENCE = 1.0  # seconds that a question waits for the end of an answer that was just stopped

Endpoint = Callable[[Request], Awaitable[ASGIApp]]
Result = TypeVar("Result")


class Refused(Exception):
    """A request that is not carried out: an HTTP status, and a sentence for the person at the page."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


# --- who may ask ---


def _check_origin(request: Request) -> None:
    """Refuse a request that a page of another site has sent."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.headers.get('host')}":
        raise Refused(403, "Only this server's own page may ask.")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "Only this server's own page may ask.")


async def _body(request: Request) -> dict[str, Any]:
    """Return the JSON object in a request of bounded size."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "Expected JSON.")

    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Refused(413, "This is too long: expected at most 1 MB with the conversation.")

    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "Expected JSON.") from None
    if not isinstance(content, dict):
        raise Refused(400, "Expected a JSON object.")
    return content


def _take(content: dict[str, Any], name: str, kind: type) -> Any:
    """Return a value of the request, of this type."""
    value = content.get(name)
    if not isinstance(value, kind):
        raise Refused(400, f"Expected {name!r}, a {kind.__name__}.")
    return value


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the request: plain values, which the assistant checks."""
    settings = _take(content, "settings", dict)
    for name, value in settings.items():
        if value is not None and not isinstance(value, (str, int, float)):
            raise Refused(400, f"{name}: expected a number or a word.")
    return settings


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint with its errors as JSON: {"error": a sentence}."""

    async def answer(request: Request) -> ASGIApp:
        try:
            _check_origin(request)
            return await endpoint(request)
        except Refused as refused:
            return JSONResponse({"error": str(refused)}, refused.status)
        except (ValueError, OSError) as error:
            return JSONResponse({"error": str(error)}, 400)

    return answer


def _begin(function: Callable[[], Result]) -> concurrent.futures.Future[Result]:
    """Call a function in a thread of its own, for whose end neither the server nor Python waits."""
    result: concurrent.futures.Future[Result] = concurrent.futures.Future()
    result.set_running_or_notify_cancel()

    def call() -> None:
        try:
            result.set_result(function())
        except Exception as error:
            result.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return result


# --- the page ---


def page_headers(html: str) -> dict[str, str]:
    """Return the headers of the page: nothing is loaded or sent elsewhere, and no script runs but its own."""

    def sources(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        digests = [hashlib.sha256(text.encode()).digest() for text in found]
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    policy = {
        "default-src": "'none'",
        "script-src": sources("script"),
        "style-src": sources("style"),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


# --- an answer, streamed ---


class _Stream:
    """The response to a question: the events of a Writing, a line of JSON for each.

    If the browser goes away, the writing is stopped, however the response ended.
    """

    def __init__(self, writing: Writing, events: asyncio.Queue[Event | None]) -> None:
        self.writing = writing
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        response = StreamingResponse(
            self._lines(), headers=headers, media_type="application/x-ndjson"
        )
        try:
            await response(scope, receive, send)
        finally:
            self.writing.stop()

    async def _lines(self) -> AsyncIterator[str]:
        yield json.dumps({"unread": self.writing.unread}) + "\n"
        while (event := await self.events.get()) is not None:
            yield json.dumps(event) + "\n"


class ChatServer:
    """What the page asks for."""

    def __init__(self, models: Models, desk: Desk) -> None:
        self.models = models
        self.desk = desk
        self.html = PAGE.read_text(encoding="utf-8")
        self.headers = page_headers(self.html)

    async def page(self, request: Request) -> Response:
        """Return the page."""
        return HTMLResponse(self.html, headers=self.headers)

    async def about(self, request: Request) -> Response:
        """Return the names of the models, the default system message of each, and the default settings."""
        try:
            sources = await self._result(self.models.sources)
        except FileNotFoundError as error:
            raise Refused(503, str(error)) from None
        systems = {name: source.system for name, source in sources.items()}
        return JSONResponse({"models": list(sources), "systems": systems, "settings": SETTINGS})

    async def examples(self, request: Request) -> Response:
        """Return {"examples": questions to begin with} of a model, once it is in memory."""
        content = await _body(request)
        name = _take(content, "model", str)
        return JSONResponse({"examples": await self._result(self.models.examples, name)})

    async def stats(self, request: Request) -> Response:
        """Return {"stats": how full the window is} of a conversation."""
        assistant = await self._assistant(await _body(request))
        stats = await self._result(assistant.stats)
        return JSONResponse({"stats": asdict(stats)})

    async def save(self, request: Request) -> Response:
        """Return the file of a conversation, as the class Assistant writes it."""
        assistant = await self._assistant(await _body(request))
        text = await self._result(saved, assistant)
        return Response(text, media_type="application/json")

    async def _assistant(self, content: dict[str, Any]) -> Assistant:
        """Return the assistant in the conversation of a request: {"model", "messages", "settings"}."""
        return await self._result(
            self.models.assistant,
            _take(content, "model", str),
            _take(content, "messages", list),
            _settings(content),
        )

    async def load(self, request: Request) -> Response:
        """Return {"messages", "settings"} of the text of a saved conversation."""
        content = await _body(request)
        assistant = await self._result(self.models.assistant, _take(content, "model", str))
        await self._result(load, assistant, _take(content, "file", str))
        return JSONResponse({"messages": assistant.messages, "settings": assistant.settings})

    async def answer(self, request: Request) -> ASGIApp:
        """Return the answers of one model or two to a question, streamed."""
        content = await _body(request)
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def notify(event: Event | None) -> None:
            if event is None:
                self.desk.leave()
            with contextlib.suppress(RuntimeError):  # the server has ended in the meantime
                loop.call_soon_threadsafe(events.put_nowait, event)

        # First, because it may have to load a model, and others need not wait for that.
        writing = await self._result(self._prepare, content, notify)
        if await request.is_disconnected():  # somebody did not want to wait for the model
            return Response(status_code=204)
        if not await self._take_desk():
            raise Refused(409, "Another answer is being written. Wait for its end, or stop it.")

        self.desk.begin(writing)
        return _Stream(writing, events)

    async def _result(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return what a function returns that may take long, such as one that loads a model.

        Raises Refused if the server is to end before that.
        """
        begun = _begin(functools.partial(function, *arguments))
        result = asyncio.wrap_future(begun)
        while not result.done():
            if self.desk.closed:
                result.cancel()  # the thread goes on, but nobody hears of it
                raise Refused(503, "The server has been stopped.")
            await asyncio.wait([result], timeout=0.05)
        return result.result()

    async def _take_desk(self) -> bool:
        """Take the desk; return whether that was possible within PATIENCE."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not self.desk.take():
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.sleep(0.02)
        return True

    def _prepare(self, content: dict[str, Any], notify: Callable[[Event | None], None]) -> Writing:
        """Return the answers that the request asks for, not yet begun."""
        sides = _take(content, "sides", list)
        if not 1 <= len(sides) <= 2 or not all(isinstance(side, dict) for side in sides):
            raise Refused(400, "Expected one side, or two.")

        settings = _settings(content)
        assistants = [
            self.models.assistant(
                _take(side, "model", str), _take(side, "messages", list), settings
            )
            for side in sides
        ]
        return Writing(assistants, _take(content, "text", str), notify)


def application(models: Models, desk: Desk | None = None) -> Starlette:
    """Return the application that serves the page and answers it."""
    server = ChatServer(models, desk or Desk())
    routes = [
        Route("/", server.page),
        Route("/api/about", _guarded(server.about)),
        Route("/api/answer", _guarded(server.answer), methods=["POST"]),
        Route("/api/examples", _guarded(server.examples), methods=["POST"]),
        Route("/api/stats", _guarded(server.stats), methods=["POST"]),
        Route("/api/save", _guarded(server.save), methods=["POST"]),
        Route("/api/load", _guarded(server.load), methods=["POST"]),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts])


def new_server(models: Models, desk: Desk | None = None) -> uvicorn.Server:
    """Return the server of the page, not yet started; it prints nothing but errors."""
    config = uvicorn.Config(
        application(models, desk),
        http="h11",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,  # seconds; a stopped answer ends much sooner
    )
    return uvicorn.Server(config)


async def _serve(listener: socket.socket, models: Models, desk: Desk) -> None:
    server = new_server(models, desk)

    async def close_desk() -> None:
        while not server.should_exit:
            await asyncio.sleep(0.05)
        desk.close()

    watcher = asyncio.create_task(close_desk())
    await server.serve(sockets=[listener])
    await watcher


def run(listener: socket.socket, models: Models) -> None:
    """Serve the page on this socket until Ctrl-C, which also stops an answer that is being written.

    A model that is being loaded is not waited for. Raises KeyboardInterrupt when the server has ended.
    """
    desk = Desk()
    try:
        asyncio.run(_serve(listener, models, desk))
    finally:
        desk.wait()
