"""Answer over HTTP as OpenAI's API does: a model, a queue with an end, and one thread that writes.

Lengths in tokens, sizes in bytes, times in seconds. Addresses and fields: OpenAI's API reference,
https://platform.openai.com/docs/api-reference (chat completions, completions, models).

Written by notebooks/23_sharing.ipynb (chapter 23): edit it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import socket
import sys
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import Receive, Scope, Send

from minigpt_lib.assistant import SETTINGS, SYSTEM, Assistant, find_model
from minigpt_lib.chat import ChatTokenizer, chat_of
from minigpt_lib.data import _Tokenizer
from minigpt_lib.generation import GenerationConfig, TextGenerator, _Reader
from minigpt_lib.interop import load
from minigpt_lib.model import MiniGPT

__all__ = ["application", "Engine", "Limits", "server_main"]


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    bytes: of a request. tokens: of an answer. waiting: requests in the queue, besides the one that is being
    answered. seconds: of a request, from its arrival to the last token. Raises ValueError for numbers that are
    not positive.
    """

    bytes: int = 1_000_000
    tokens: int = 512
    waiting: int = 64
    seconds: float = 120.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"Limits: {name}={value!r}, expected a number above 0.")


@dataclass(frozen=True)
class _Begun:
    prompt_tokens: int


@dataclass(frozen=True)
class _Ended:
    reason: str  # "stop": the model or a stop text ended it; "length": a bound did
    tokens: int  # that were written, with the one that ended the answer


class _ServerRefusal(Exception):
    """A request that is not carried out: an HTTP status, a sentence for a person, and a code for a program."""

    def __init__(self, status: int, sentence: str, code: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


@dataclass
class _Job:
    """A request: where its ids come from, how to write, and whom to tell."""

    prompt: Callable[[], list[int]]
    options: dict[str, Any]  # of GenerationConfig, with max_new_tokens as an upper bound
    # called with _Begun, with each piece (a str), and with _Ended or an exception
    notify: Callable[[Any], None]
    end: float  # the moment, of time.monotonic(), at which it is over
    stopped: threading.Event = field(default_factory=threading.Event)


class Engine:
    """A model, a queue and one thread that writes the answers, one after another.

    tokenizer: with a ChatTokenizer it can answer conversations. context: how many tokens a prompt and its
    answer may have, max_seq_len by default. Raises ValueError for fewer than 2, or more than max_seq_len.
    """

    def __init__(
        self,
        model: MiniGPT,
        tokenizer: _Tokenizer | ChatTokenizer,
        context: int | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self.tokenizer = tokenizer
        self.context = model.config.max_seq_len if context is None else context
        if not 2 <= self.context <= model.config.max_seq_len:
            limit = model.config.max_seq_len
            raise ValueError(f"context={context}: expected 2 to {limit}, which the model reads.")
        self.limits = limits
        self._writer = TextGenerator(model, tokenizer)

        base = tokenizer.base if isinstance(tokenizer, ChatTokenizer) else tokenizer
        self._stops = tuple(getattr(base, "special_tokens", {}).values())
        # Bytes of a token; without ranks it is a character, which has at most 4 in UTF-8.
        self._longest = max(map(len, getattr(base, "ranks", [])), default=4)

        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._now: _Job | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt: Callable[[], list[int]],
        options: dict[str, Any],
        notify: Callable[[Any], None],
    ) -> _Job:
        """Put a request into the queue; setting its `stopped` takes it out again, or ends its answer.

        prompt is called in the writing thread. options: max_new_tokens, temperature, top_p, seed and stop
        (texts), those that differ from SETTINGS. notify: called in that thread with what happens. Raises
        an error with status 429 if the queue is full, and 503 if the engine is closed.
        """
        job = _Job(prompt, options, notify, time.monotonic() + self.limits.seconds)
        with self._changed:
            waiting = [other for other in self._jobs if not other.stopped.is_set()]
            self._jobs = deque(waiting)
            if self._closed:
                raise _ServerRefusal(503, "The server is shutting down.", "unavailable")
            if len(waiting) >= self.limits.waiting:
                what = f"{len(waiting)} requests are waiting already; try again in a moment."
                raise _ServerRefusal(429, what, "queue_full")

            self._jobs.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """Refuse what waits, end the answer that is being written, and return when the thread has ended."""
        with self._changed:
            self._closed = True
            waiting = [*self._jobs]
            self._jobs.clear()
            if self._now is not None:
                self._now.stopped.set()
            self._changed.notify()

        for job in waiting:
            job.notify(_ServerRefusal(503, "The server is shutting down.", "unavailable"))
        self._thread.join()

    def refuse_long(self, text: str) -> None:
        """Refuse a text that cannot fit, whatever its tokens: n bytes have at least n / longest of them."""
        if len(text.encode("utf-8")) > self.context * self._longest:
            raise _too_long(f"more than {self.context}", self.context)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._now = None
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs.popleft()
                self._now = job
            if not job.stopped.is_set():
                self._answer(job)

    def _answer(self, job: _Job) -> None:
        """Write the answer to a request, whatever happens."""
        try:
            for event in self._events(job):
                job.notify(event)
        except _ServerRefusal as refusal:
            job.notify(refusal)
        except (
            ValueError
        ) as error:  # of our own library, for a prompt or options that make no sense
            job.notify(_ServerRefusal(400, str(error), "invalid_value"))
        except Exception:
            traceback.print_exc()  # for whoever runs the server; a client hears less
            what = "The model failed on this request."
            job.notify(_ServerRefusal(500, what, "internal_error"))

    def _events(self, job: _Job) -> Iterator[Any]:
        """Yield what happens while a request is answered."""
        if time.monotonic() > job.end:
            raise _ServerRefusal(503, "The queue was too long; try again later.", "queue_timeout")
        prompt = job.prompt()
        room = self.context - len(prompt)
        if room < 1:
            raise _too_long(f"{len(prompt)}", self.context)

        config = self._config(job.options, room)
        reader = _Reader(self.tokenizer, config.stop)
        yield _Begun(len(prompt))

        n_tokens = 0
        going: Any = self._writer._tokens([prompt], config)
        with contextlib.closing(going) as tokens:
            for (token,) in tokens:
                n_tokens += 1
                if piece := reader.feed(token):
                    yield piece
                if reader.done or job.stopped.is_set() or time.monotonic() > job.end:
                    break

        ended = reader.done
        if piece := reader.finish():
            yield piece
        yield _Ended("stop" if ended else "length", n_tokens)

    def _config(self, options: dict[str, Any], room: int) -> GenerationConfig:
        """Return how to write: the defaults of an Assistant, and what the client asks for."""
        chosen = {name: SETTINGS[name] for name in ("temperature", "top_p")} | options
        n = min(chosen.pop("max_new_tokens", room), self.limits.tokens, room)
        stop = (*self._stops, *chosen.pop("stop", ()))

        if chosen["top_p"] == 0:  # the most likely token alone, as with temperature 0
            chosen |= {"temperature": 0.0, "top_p": 1.0}
        return GenerationConfig(n, "top_p", stop=stop, **chosen)


def _too_long(found: str, context: int) -> _ServerRefusal:
    what = f"The prompt has {found} tokens, but this model reads and writes at most {context}."
    return _ServerRefusal(400, what, "context_length_exceeded")


_Zero = Annotated[float, Field(ge=0, le=0)]
_One = Annotated[int, Field(ge=1, le=1)]
_Stop = Annotated[str, Field(min_length=1, max_length=200)]
_LOCAL = ("127.0.0.1", "localhost")
_BODY_SECONDS = 10.0  # that a client may take to send its request


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _StreamOptions(_Checked):
    include_usage: bool = False


class _Asked(_Checked):
    """What both addresses understand; None is the same as a field that is not there."""

    model: str
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4)] = []
    user: str = ""  # who asks: nothing depends on it
    n: _One = 1
    presence_penalty: _Zero = 0.0
    frequency_penalty: _Zero = 0.0
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] = {}

    def options(self) -> dict[str, Any]:
        """Return the options of GenerationConfig that the client has chosen."""
        found = {
            "max_new_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }
        chosen = {name: value for name, value in found.items() if value is not None}
        return chosen | {"stop": [self.stop] if isinstance(self.stop, str) else self.stop}


class _TextPart(_Checked):
    type: Literal["text"]
    text: str


class _ChatMessage(_Checked):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]

    def plain(self) -> dict[str, str]:
        """Return the message as chapter 14 has it; "developer" is OpenAI's newer word for system."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return {"role": role, "content": self.content}
        return {"role": role, "content": "".join(part.text for part in self.content)}


class _AskedChat(_Asked):
    messages: Annotated[list[_ChatMessage], Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1)  # the newer name of max_tokens
    logprobs: Literal[False] = False

    def options(self) -> dict[str, Any]:
        """Return the options; of two bounds of the length the smaller one counts."""
        chosen = super().options()
        if self.max_completion_tokens is not None:
            bound = chosen.get("max_new_tokens", self.max_completion_tokens)
            chosen["max_new_tokens"] = min(bound, self.max_completion_tokens)
        return chosen


class _AskedText(_Asked):
    # Ids are refused: they could be control tokens.
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    best_of: _One = 1
    echo: Literal[False] = False


def _without_null(content: Any) -> Any:
    """Return JSON without the fields that are null: clients send back whole messages, empty fields included."""
    if isinstance(content, dict):
        return {name: _without_null(value) for name, value in content.items() if value is not None}
    if isinstance(content, list):
        return [_without_null(value) for value in content]
    return content


def _parsed(kind: type[_Asked], body: bytes) -> Any:
    """Return a request of this kind; a refusal that names the field for any other body."""
    try:
        content = json.loads(body)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a character is no text
        return kind.model_validate(_without_null(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the request"
        raise _ServerRefusal(400, f"{place}: {first['msg']}.", "invalid_request") from None
    except (ValueError, RecursionError):
        raise _ServerRefusal(400, "The request is not JSON text.", "invalid_json") from None


class _Exchange:
    """A request that is being answered: its job, its events, and a watch over the connection."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._job: _Job | None = None
        self._watch: asyncio.Task[None] | None = None

    def notify(self, event: Any) -> None:
        """Take an event from the writing thread."""
        with contextlib.suppress(RuntimeError):  # the server has ended in the meantime
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def begin(self, job: _Job) -> None:
        """Watch over the connection while this job goes on."""
        self._job = job
        self._watch = asyncio.create_task(self._until_it_closes())

    async def _until_it_closes(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._events.put_nowait(_ServerRefusal(499, "The client has hung up.", "closed"))
        self.end()

    def end(self) -> None:
        """Stop the job, which may have ended already."""
        if self._job is not None:
            self._job.stopped.set()
        if self._watch is not None:
            self._watch.cancel()

    async def next(self) -> Any:
        """Return the next event; raise it if it is an error."""
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event


class _EventStream(StreamingResponse):
    """Server-sent events that end, and stop the job, within a bounded time, also if nobody reads them."""

    def __init__(self, exchange: _Exchange, lines: AsyncIterator[str], seconds: float) -> None:
        super().__init__(
            lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
        self._exchange = exchange
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            pass  # the connection is closed in the middle, which is all that can still be said
        finally:
            self._exchange.end()


class _Api:
    """The addresses, for one model under one name."""

    def __init__(self, engine: Engine, name: str, system: str | None, api_key: str | None) -> None:
        self._engine = engine
        self._name = name
        self._system = system
        self._key = api_key
        self._began = int(time.time())

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        expected = self._key
        if expected is not None and not hmac.compare_digest(given.encode(), expected.encode()):
            raise _ServerRefusal(401, "The API key is missing or wrong.", "invalid_api_key")

    async def _body(self, request: Request) -> bytes:
        """Return the body of a request, of bounded size, which came within a bounded time."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # other types could come from a form on any web page
            raise _ServerRefusal(415, "Expected Content-Type: application/json.", "invalid_type")

        body = b""
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._engine.limits.bytes:
                        what = f"The request has more than {self._engine.limits.bytes:,} bytes."
                        raise _ServerRefusal(413, what, "request_too_large")
        except TimeoutError:
            raise _ServerRefusal(408, "The request came too slowly.", "timeout") from None
        return body

    def _about(self) -> dict[str, Any]:
        return {
            "id": self._name,
            "object": "model",
            "created": self._began,
            "owned_by": "minigpt",
            "max_model_len": self._engine.context,
        }

    async def models(self, request: Request) -> Response:
        """Return the list of models, which is one."""
        self._check_key(request)
        return JSONResponse({"object": "list", "data": [self._about()]})

    async def model(self, request: Request) -> Response:
        """Return what is known about the model of this name."""
        self._check_key(request)
        self._check_name(request.path_params["name"])
        return JSONResponse(self._about())

    def _check_name(self, name: str) -> None:
        if name != self._name:
            what = f"There is no model {name[:80]!r} here, only {self._name!r}."
            raise _ServerRefusal(404, what, "model_not_found")

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        self._check_key(request)
        asked: _AskedChat = _parsed(_AskedChat, await self._body(request))
        self._check_name(asked.model)
        chat = self._engine.tokenizer
        if not isinstance(chat, ChatTokenizer):
            what = "This model was not taught to answer: ask /v1/completions to continue a text."
            raise _ServerRefusal(400, what, "no_chat")

        messages = [message.plain() for message in asked.messages]
        if messages[0]["role"] != "system" and self._system is not None:
            messages.insert(0, {"role": "system", "content": self._system})
        self._engine.refuse_long("".join(message["content"] for message in messages))

        def prompt() -> list[int]:
            return chat.render(messages, add_generation_prompt=True)[0]

        return await self._answer(request, asked, prompt, "chatcmpl")

    async def text(self, request: Request) -> Response:
        """Continue a text."""
        self._check_key(request)
        asked: _AskedText = _parsed(_AskedText, await self._body(request))
        self._check_name(asked.model)
        text = asked.prompt if isinstance(asked.prompt, str) else asked.prompt[0]
        self._engine.refuse_long(text)

        def prompt() -> list[int]:
            ids = self._engine.tokenizer.encode(text)  # no name in it becomes a special token
            if not ids:
                raise ValueError("prompt: expected at least one character to go on from.")
            return ids

        return await self._answer(request, asked, prompt, "cmpl")

    async def _answer(
        self, request: Request, asked: _Asked, prompt: Callable[[], list[int]], kind: str
    ) -> Response:
        """Return the whole answer, or a stream of its pieces."""
        exchange = _Exchange(request)
        exchange.begin(self._engine.submit(prompt, asked.options(), exchange.notify))
        streams = False
        try:
            begun: _Begun = await exchange.next()
            shape = _Shape(kind, self._name)
            if asked.stream:
                lines = self._lines(exchange, shape, begun, asked.stream_options.include_usage)
                response = _EventStream(exchange, lines, 2 * self._engine.limits.seconds)
                streams = True
                return response

            pieces: list[str] = []
            while not isinstance(event := await exchange.next(), _Ended):
                pieces.append(event)
            return JSONResponse(shape.whole("".join(pieces), begun, event))
        finally:
            if not streams:
                exchange.end()

    async def _lines(
        self, exchange: _Exchange, shape: "_Shape", begun: _Begun, with_usage: bool
    ) -> AsyncIterator[str]:
        """Yield an answer as server-sent events."""
        if first := shape.first():
            yield _line(first)
        try:
            while not isinstance(event := await exchange.next(), _Ended):
                yield _line(shape.piece(event))
        except _ServerRefusal as refusal:
            yield _line(_error(refusal))
            return

        yield _line(shape.piece("", event.reason))
        if with_usage:
            yield _line(shape.usage(begun, event))
        yield "data: [DONE]\n\n"


def _line(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _error(refusal: _ServerRefusal) -> dict[str, Any]:
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    return {"error": {"message": str(refusal), "type": kind, "param": None, "code": refusal.code}}


def _refusing(refusal: _ServerRefusal) -> Response:
    """Return the response to a request that is refused; the rest of its body is not waited for."""
    headers = {"Connection": "close"}
    if refusal.status in (429, 503):
        headers["Retry-After"] = "1"
    return JSONResponse(_error(refusal), refusal.status, headers)


class _Shape:
    """How an answer is written in JSON: as a chat completion (kind "chatcmpl"), or a completion ("cmpl")."""

    def __init__(self, kind: str, model: str) -> None:
        self._is_chat = kind == "chatcmpl"
        self._common = {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def _object(self, chunk: bool, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "text_completion"
        if self._is_chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        return {**self._common, "object": kind, "choices": choices}

    def _choice(self, reason: str | None, **content: Any) -> list[dict[str, Any]]:
        return [{"index": 0, "finish_reason": reason, "logprobs": None, **content}]

    def whole(self, text: str, begun: _Begun, ended: _Ended) -> dict[str, Any]:
        """Return a whole answer."""
        content: dict[str, Any] = {"text": text}
        if self._is_chat:
            content = {"message": {"role": "assistant", "content": text}}
        return {
            **self._object(False, self._choice(ended.reason, **content)),
            "usage": _usage(begun, ended),
        }

    def first(self) -> dict[str, Any] | None:
        """Return what a stream of a chat begins with."""
        if not self._is_chat:
            return None
        return self._object(True, self._choice(None, delta={"role": "assistant", "content": ""}))

    def piece(self, text: str, reason: str | None = None) -> dict[str, Any]:
        """Return a piece of a stream; with a reason, its end."""
        content: dict[str, Any] = {"text": text}
        if self._is_chat:
            content = {"delta": {"content": text} if reason is None else {}}
        return self._object(True, self._choice(reason, **content))

    def usage(self, begun: _Begun, ended: _Ended) -> dict[str, Any]:
        """Return the chunk behind the last piece, for clients that ask for it."""
        return {**self._object(True, []), "usage": _usage(begun, ended)}


def _usage(begun: _Begun, ended: _Ended) -> dict[str, int]:
    return {
        "prompt_tokens": begun.prompt_tokens,
        "completion_tokens": ended.tokens,
        "total_tokens": begun.prompt_tokens + ended.tokens,
    }


def application(
    engine: Engine,
    name: str = "minigpt",
    *,
    system: str | None = SYSTEM,
    api_key: str | None = None,
    hosts: tuple[str, ...] = _LOCAL,
) -> FastAPI:
    """Return the web application that answers with this engine: OpenAI's addresses under /v1.

    name: the model's, which requests must name. system: the message that comes first where a client sends
    none, or None. api_key: what clients must send as "Authorization: Bearer KEY", or None. hosts: the names
    under which the server may be addressed ("*" for all), so that no web page can reach it under a name of
    its own (DNS rebinding). The engine is closed when the server ends.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    async def refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, _ServerRefusal)
        return _refusing(error)

    async def no_address(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        what = f"{request.method} {request.url.path[:80]}: {error.detail}."
        return _refusing(_ServerRefusal(error.status_code, what, "no_such_address"))

    async def failure(request: Request, error: Exception) -> Response:
        what = "The server failed on this request."
        return _refusing(_ServerRefusal(500, what, "internal_error"))

    api = _Api(engine, name, system, api_key)
    app = FastAPI(lifespan=lifespan, openapi_url=None)  # no page that loads scripts from elsewhere
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts], www_redirect=False)
    app.add_exception_handler(_ServerRefusal, refusal)
    app.add_exception_handler(HTTPException, no_address)
    app.add_exception_handler(Exception, failure)
    app.add_api_route("/v1/models", api.models, response_model=None)
    app.add_api_route("/v1/models/{name:path}", api.model, response_model=None)
    app.add_api_route("/v1/chat/completions", api.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/completions", api.text, methods=["POST"], response_model=None)
    return app


@dataclass(frozen=True)
class _ServerOptions:
    """Answer as OpenAI's API does, with a model of yours, until Ctrl-C.

    Point any program that speaks this API at the address that is printed, for example
    OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="any"). Understood: GET /v1/models,
    POST /v1/chat/completions and POST /v1/completions, streamed or not, with max_tokens, temperature,
    top_p, seed and stop. Requests are answered one after another.
    """

    # a trained model's name or folder, a GGUF file, or smollm2; None: the course's best
    model: str | None = None
    name: str | None = None  # what clients call it; None: the name of its folder
    host: str = "127.0.0.1"  # where to listen; 0.0.0.0 for other computers too, which needs a key
    port: int = 8000  # 0: any that is free
    api_key: str | None = None  # what clients must send; None: the value of MINIGPT_API_KEY
    system: str = SYSTEM  # the message that comes first where a client sends none; "" for none
    context: int | None = None  # tokens to read and write; None: 224 for the course's own, else all
    max_tokens: int = Limits.tokens  # of an answer
    waiting: int = Limits.waiting  # requests in the queue; one more is told to come back
    seconds: float = Limits.seconds  # of a request, from its arrival to the last token
    max_bytes: int = Limits.bytes  # of a request


def server_main(argv: list[str] | None = None) -> None:
    """Run the command line: python -m minigpt_lib.server --help. An error is a line, no traceback."""
    options = tyro.cli(_ServerOptions, args=argv, prog="python -m minigpt_lib.server")
    try:
        _serve(options)
    except KeyboardInterrupt:  # a process that a script put into the background gets none here
        pass
    except (ValueError, OSError, OverflowError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    print("stopped.", file=sys.stderr)


def _served_model(
    options: _ServerOptions,
) -> tuple[MiniGPT, _Tokenizer | ChatTokenizer, int | None, str]:
    """Return the model, its tokenizer, how many tokens it reads and writes, and what clients call it."""
    try:
        folder = find_model(options.model)
    except FileNotFoundError:
        if options.model is None:
            raise
        model, base = load(options.model)
        name = options.name or Path(options.model).stem
        return model, chat_of(base) or base, options.context, name

    assistant = Assistant.open(folder, context=options.context, max_new_tokens=1)
    return assistant.model, assistant.chat, assistant.context, options.name or folder.name


def _serve(options: _ServerOptions) -> None:
    """Open the model, listen, say where, and answer until Ctrl-C."""
    key = options.api_key or os.environ.get("MINIGPT_API_KEY") or None
    is_local = options.host in _LOCAL
    if not is_local and key is None:
        raise ValueError(
            f"--host {options.host} lets other computers in, so it needs a key: set --api-key, or the "
            "variable MINIGPT_API_KEY."
        )

    limits = Limits(options.max_bytes, options.max_tokens, options.waiting, options.seconds)
    model, tokenizer, context, name = _served_model(options)
    with socket.create_server((options.host, options.port)) as listener:
        port = listener.getsockname()[1]
        engine = Engine(model, tokenizer, context, limits)
        app = application(
            engine,
            name,
            system=options.system or None,
            api_key=key,
            hosts=_LOCAL if is_local else ("*",),
        )
        print(f"{name} answers at http://{options.host}:{port}/v1 (Ctrl-C stops it).", flush=True)
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=4 * (limits.waiting + 1),  # connections, idle ones included
            timeout_graceful_shutdown=2,
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    raise SystemExit(server_main())
