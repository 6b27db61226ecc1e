"""The command `make chat`: find a port, open the browser, and serve the page until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator

PORT = 8160  # chapter 16; nothing well known listens there


def listening_socket(port: int) -> socket.socket:
    """Return a socket that listens on this computer's own address, on another port if `port` is taken.

    Raises OSError if there is no port at all.
    """
    for choice in (port, 0):  # 0: any that is free
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name != "nt":  # on Windows, this option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", choice))
            listener.listen()
        except OSError:
            listener.close()
            if choice == 0:
                raise
        else:
            break
    return listener


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, got {text!r}")
    return int(text)


def _open_browser(address: str) -> None:
    """Open the page without waiting for it: some browsers return only when they are closed."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process without a KeyboardInterrupt, which packages may swallow while they are imported."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # a script's `&` ignores Ctrl-C
        yield
        return

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(chosen: argparse.Namespace) -> None:
    with _ending_at_once():
        from courseware.chat.published import published_models
        from courseware.chat.server import run
        from courseware.chat.writing import Models

        models = Models(published=published_models)
        models.sources()  # without any, there is nothing to talk with

    with listening_socket(chosen.port) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        print(f"Your assistant is at {address} (Ctrl-C stops it).", flush=True)
        if chosen.browser:
            _open_browser(address)
        run(listener, models)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: `python -m courseware.chat [--no-browser] [--port N]`; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m courseware.chat", description=__doc__)
    parser.add_argument(
        "--no-browser", dest="browser", action="store_false", help="only print the address"
    )
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"the port to try first (default: {PORT})"
    )
    chosen = parser.parse_args(arguments)

    try:
        _serve(chosen)
    except KeyboardInterrupt:
        pass
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
