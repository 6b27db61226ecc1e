"""Run a web application in a thread, and ask it as a program would."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from uvicorn import Config, Server

PATIENCE = 10.0  # seconds that a server may take to start, or to answer


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Return the address that a client of OpenAI's API wants."""
        return f"http://{self.host}:{self.port}/v1"

    def request(
        self,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = PATIENCE,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request; return the connection, and the response as soon as it begins.

        body: bytes are sent as they are, None makes it a GET, and anything else is sent as JSON.
        """
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode("utf-8")
        sent = {} if raw is None else {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        method = "GET" if raw is None else "POST"
        connection.request(method, path, body=raw, headers={**sent, **(headers or {})})
        return connection, connection.getresponse()

    def ask(
        self,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = PATIENCE,
    ) -> tuple[int, Any]:
        """Return (status, content) of a request; JSON is decoded, and other content is a text."""
        connection, response = self.request(path, body, headers, seconds)
        try:
            text = str(response.read(), "utf-8")
        finally:
            connection.close()
        is_json = "json" in response.headers.get("content-type", "")
        return response.status, json.loads(text) if is_json else text


@contextlib.contextmanager
def running(application: Any, host: str = "127.0.0.1") -> Iterator[Address]:
    """Serve an application on a free port until the block ends.

    Raises RuntimeError if it does not start.
    """
    config = Config(
        application,
        host=host,
        port=0,
        log_level="critical",
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + PATIENCE
    while not server.started:
        if not thread.is_alive() or time.monotonic() > end:
            raise RuntimeError("the server did not start")
        time.sleep(0.005)

    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Address(host, port)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def events(text: str) -> list[Any]:
    """Return the data of server-sent events, decoded, with "[DONE]" as it is."""
    found = []
    for block in text.strip().split("\n\n"):
        if not block.startswith("data: "):
            raise AssertionError(f"expected lines that begin with 'data: ', got {block[:60]!r}")
        data = block.removeprefix("data: ")
        found.append(data if data == "[DONE]" else json.loads(data))
    return found
