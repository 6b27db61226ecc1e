"""A headless Chromium for the tests: one that is installed, never a download."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def executable() -> str | None:
    """Return the path of an installed Chromium: $CHROMIUM, or the first usual name that exists."""
    candidates = [os.environ.get("CHROMIUM"), *map(shutil.which, _NAMES), _MAC]

    return next((path for path in candidates if path and Path(path).exists()), None)


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """Yield a running browser, or skip the test and say why."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = executable()
    if path is None:
        pytest.skip("no Chromium found: install one, or set CHROMIUM to its path")

    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve `folder` on localhost and yield the address of its root."""
    from courseware.site import site

    with site.serve(folder) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()

        yield f"http://127.0.0.1:{server.server_port}/"

        server.shutdown()
        thread.join()


def hold_the_first(page: Any, path: str) -> list[Any]:
    """Hold back the first request for this path; return a list with its route as soon as it came."""
    held: list[Any] = []

    def hold(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(f"**/{path}", hold)
    return held


def let_go(page: Any, held: list[Any], path: str) -> None:
    """Let a request go on that was held back, and wait until the page has heard the answer."""
    with page.expect_response(f"**/{path}"):
        held[0].continue_()
    page.wait_for_timeout(100)  # nothing is shown that one could wait for
