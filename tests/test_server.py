"""Chapter 23's server, asked by OpenAI's own client, by clients that misbehave, and by many at once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
import torch
from assistant_models import CHAT, chatterer, tiny, user
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import help_of

from courseware import paths
from courseware.checks.servers import Address, running
from minigpt_lib import server
from minigpt_lib.assistant import SYSTEM
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.generation import TextGenerator
from minigpt_lib.server import Engine, Limits, application

openai = pytest.importorskip("openai", reason="these tests need the package openai")

PATIENCE = 30.0  # seconds; on a calm machine nothing here needs one
CHAT_PATH = "/v1/chat/completions"
STOP = tuple(CHAT.base.special_tokens.values())


def test_a_text_is_not_too_long_where_a_token_is_a_character_of_several_bytes():
    tokenizer = CharTokenizer("\u00e9\u20ac\U0001f600")
    engine = Engine(tiny(max_seq_len=64), tokenizer)
    try:
        for character in tokenizer.alphabet:
            engine.refuse_long(40 * character)  # 40 tokens, of 80, 120 and 160 bytes
        with pytest.raises(server._ServerRefusal, match="more than 64"):
            engine.refuse_long(300 * "\u20ac")
    finally:
        engine.close()


@pytest.fixture(scope="module")
def model():
    """Return a random model whose predictions differ."""
    return tiny()


@pytest.fixture(scope="module")
def address(model) -> Iterator[Address]:
    """Serve the random model."""
    with running(application(Engine(model, CHAT), "tiny")) as address:
        yield address


def client_of(address: Address, key: str = "any", **options: Any) -> Any:
    """Return OpenAI's client for a server of ours."""
    options = {"max_retries": 0, "timeout": PATIENCE} | options
    return openai.OpenAI(base_url=address.url, api_key=key, **options)


def asked(text: str = "Hi", **more: Any) -> dict[str, Any]:
    """Return a conversation of one message."""
    return {"model": "tiny", "messages": [user(text)], **more}


def expected_answer(model, text: str, n: int, seed: int) -> str:
    """Return what the library writes without a server."""
    messages = [{"role": "system", "content": SYSTEM}, user(text)]
    ids = torch.tensor(CHAT.render(messages, add_generation_prompt=True)[0])
    options = {"temperature": 1.0, "top_p": 0.9, "seed": seed, "stop": STOP}
    return TextGenerator(model, CHAT).generate(ids, n, "top_p", **options)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds, or fail."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.005)


# ---------------------------------------------------------------- the official client


def test_the_official_client_gets_an_answer_and_its_counts(model, address):
    answer = client_of(address).chat.completions.create(
        **asked("Who are you?", max_tokens=20, temperature=1.0, seed=3)
    )

    assert answer.choices[0].message.content == expected_answer(model, "Who are you?", 20, 3)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    messages = [{"role": "system", "content": SYSTEM}, user("Who are you?")]
    n_prompt = len(CHAT.render(messages, add_generation_prompt=True)[0])
    assert answer.usage.prompt_tokens == n_prompt
    assert 1 <= answer.usage.completion_tokens <= 20
    assert answer.usage.total_tokens == n_prompt + answer.usage.completion_tokens


def test_the_official_client_streams_the_same_answer(model, address):
    options = asked("Who?", max_tokens=20, temperature=1.0, seed=4)
    client = client_of(address)
    whole = client.chat.completions.create(**options)
    chunks = list(
        client.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
    )

    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_conversation_goes_on_with_what_the_client_got():
    messages: list[Any] = [user("One?")]
    with running(application(Engine(chatterer(), CHAT), "tiny")) as address:
        client = client_of(address)
        for question in ("Two?", "Three?"):
            answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=5)
            assert answer.choices[0].message.content == "aaaaa"
            messages += [answer.choices[0].message, user(question)]  # with all its empty fields
        assert answer.usage.prompt_tokens > 90


def test_the_official_client_continues_a_text(model, address):
    client = client_of(address)
    answer = client.completions.create(model="tiny", prompt="To be", max_tokens=9, temperature=0)
    expected = TextGenerator(model, CHAT).generate("To be", 9, "greedy", stop=STOP)
    assert answer.choices[0].text == expected

    chunks = client.completions.create(
        model="tiny", prompt="To be", max_tokens=9, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected


def test_a_stop_text_ends_an_answer_and_is_not_part_of_it(address):
    client = client_of(address)
    options = {"prompt": "To be", "max_tokens": 60, "temperature": 1.0, "seed": 8}
    whole = client.completions.create(model="tiny", **options).choices[0].text
    stop = whole[4:6]
    cut = client.completions.create(model="tiny", stop=["never this", stop], **options)

    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_the_official_client_lists_the_model(address):
    client = client_of(address)
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "minigpt"


def test_errors_are_the_kinds_that_the_client_knows(address):
    client = client_of(address)
    with pytest.raises(openai.NotFoundError, match="only 'tiny'"):
        client.chat.completions.create(model="gpt-9", messages=[user("Hi")])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt/9")
    with pytest.raises(openai.BadRequestError, match="at most 256"):
        client.chat.completions.create(**asked("x" * 300))
    with pytest.raises(openai.BadRequestError, match="response_format"):
        client.chat.completions.create(**asked(response_format={"type": "json_object"}))
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="tiny", input="Hi")


def test_a_key_is_asked_for(model):
    with running(application(Engine(model, CHAT), "tiny", api_key="secret")) as address:
        for wrong in ("", "secre", "secrets", "sécret"):
            status, told = address.ask(
                CHAT_PATH, asked(), {"Authorization": f"Bearer {wrong}".encode("latin-1")}
            )
            assert status == 401 and "key" in told["error"]["message"]
        with pytest.raises(openai.AuthenticationError):
            client_of(address, "other").models.list()
        assert client_of(address, "secret").chat.completions.create(**asked(max_tokens=1))


# ---------------------------------------------------------------- clients that misbehave


def test_a_client_that_hangs_up_in_mid_stream_stops_the_answer():
    tokens: list[int] = []
    real = TextGenerator._tokens

    def counted(self, prompts, config):
        for token in real(self, prompts, config):
            tokens.append(1)
            time.sleep(0.002)
            yield token

    limits = Limits(tokens=3000)
    engine = Engine(chatterer("a", 4000), CHAT, limits=limits)
    with (
        mock.patch.object(TextGenerator, "_tokens", counted),
        running(application(engine, "tiny")) as address,
    ):
        client = client_of(address)
        stream = client.chat.completions.create(**asked(stream=True))
        for i, _ in enumerate(stream):
            if i == 20:
                break
        stream.close()
        answer = client.chat.completions.create(**asked(max_tokens=3))

        assert answer.choices[0].message.content == "aaa"
        assert 20 <= len(tokens) < 1000, f"{len(tokens)} tokens were written"


@pytest.mark.slow
def test_a_client_that_reads_nothing_keeps_nobody_waiting():
    engine = Engine(chatterer("a", 4000), CHAT, limits=Limits(tokens=3000))
    with running(application(engine, "tiny")) as address:
        connection, _ = address.request(CHAT_PATH, asked(stream=True, max_tokens=1500))
        try:
            client = client_of(address)
            assert (
                client.chat.completions.create(**asked(max_tokens=2)).choices[0].message.content
                == "aa"
            )
        finally:
            connection.close()


@pytest.mark.slow
def test_sixty_four_at_once_get_their_own_answers(model):
    engine = Engine(model, CHAT, limits=Limits(waiting=64))
    with running(application(engine, "tiny")) as address:

        def ask(i: int) -> tuple[str, str]:
            client = client_of(address)
            options = asked(f"Question {i}?", max_tokens=8, temperature=1.0, seed=i)
            if i % 2:
                answer = client.chat.completions.create(**options).choices[0].message.content
            else:
                chunks = client.chat.completions.create(**options, stream=True)
                answer = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            return answer, expected_answer(model, f"Question {i}?", 8, i)

        with ThreadPoolExecutor(64) as pool:
            pairs = list(pool.map(ask, range(64)))
    assert [got for got, _ in pairs] == [expected for _, expected in pairs]
    assert len({got for got, _ in pairs}) > 32, "the answers differ, so none can be mistaken"


@pytest.mark.slow
def test_a_full_queue_is_a_rate_limit_and_the_client_comes_back_by_itself():
    go_on = threading.Event()
    real = TextGenerator._tokens

    def held(self, prompts, config):
        go_on.wait(PATIENCE)
        yield from real(self, prompts, config)

    engine = Engine(chatterer(), CHAT, limits=Limits(waiting=1))
    with (
        mock.patch.object(TextGenerator, "_tokens", held),
        running(application(engine, "tiny")) as address,
        ThreadPoolExecutor(3) as pool,
    ):
        client = client_of(address)
        first = pool.submit(client.chat.completions.create, **asked(max_tokens=1))
        wait_for(lambda: engine._now is not None and not engine._jobs, "the first")
        second = pool.submit(client.chat.completions.create, **asked(max_tokens=1))
        wait_for(lambda: len(engine._jobs) == 1, "the second")
        with pytest.raises(openai.RateLimitError, match="waiting already"):
            client.chat.completions.create(**asked())

        patient = client_of(address, max_retries=2)
        third = pool.submit(patient.chat.completions.create, **asked(max_tokens=1))
        go_on.set()
        for answer in (first, second, third):
            assert answer.result(PATIENCE).choices[0].message.content == "a"


FIELDS = st.sampled_from(
    ["model", "messages", "role", "content", "prompt", "max_tokens", "stop", "stream", "seed", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.dictionaries(FIELDS, JSON, max_size=5), st.sampled_from([CHAT_PATH, "/v1/completions"]))
def test_no_json_breaks_the_server(address, content, path):
    body = json.dumps({"max_tokens": 1, "model": "tiny"} | content).encode()
    status, told = address.ask(path, body)
    assert status in (200, 400, 404), (status, told)
    if status != 200:
        assert told["error"]["message"]


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_server(address, body):
    status, told = address.ask(CHAT_PATH, body)
    assert status == 400 and told["error"]["message"]


def raw(address: Address, data: bytes) -> bytes:
    """Return what the server says to these bytes on a connection, until it closes it."""
    with socket.create_connection((address.host, address.port), timeout=PATIENCE) as connection:
        with contextlib.suppress(OSError):  # it may have been closed already
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        told = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                told += piece
        return told


def test_what_is_no_http_is_turned_away(address):
    for data in (
        b"",
        b"\x00" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST " + b"x" * 100_000,
        b"GET /v1/models HTTP/1.1\r\n" + b"a: b\r\n" * 50_000,
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    ):
        assert b"200 OK" not in raw(address, data)
    status, _ = address.ask("/v1/models")
    assert status == 200


def test_a_request_of_any_size_is_cut_off_at_the_bound(address):
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    sent = 0
    with socket.create_connection((address.host, address.port), timeout=PATIENCE) as connection:
        connection.sendall(head)
        with contextlib.suppress(ConnectionError):
            for _ in range(3000):  # 300 MB, if anybody took them
                connection.sendall(b"186a0\r\n" + b" " * 100_000 + b"\r\n")
                sent += 100_000
        with contextlib.suppress(ConnectionError):
            assert b" 413 " in connection.recv(65536).partition(b"\r\n")[0]
    assert sent < 100_000_000, f"the server took {sent:,} bytes"
    assert address.ask("/v1/models")[0] == 200


def test_a_body_that_never_comes_is_not_waited_for(address):
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    with (
        mock.patch.object(server, "_BODY_SECONDS", 0.2),
        socket.create_connection((address.host, address.port), timeout=PATIENCE) as connection,
    ):
        connection.sendall(head)
        assert b" 408 " in connection.recv(65536).partition(b"\r\n")[0]


def test_a_long_text_is_refused_before_it_is_encoded(address):
    with mock.patch.object(type(CHAT.base), "encode", side_effect=AssertionError("encoded")):
        for path, body in (
            (CHAT_PATH, asked("x" * 900_000)),
            ("/v1/completions", {"model": "tiny", "prompt": "x" * 900_000}),
        ):
            status, told = address.ask(path, body)
            assert status == 400 and told["error"]["code"] == "context_length_exceeded"


NAMES = st.sampled_from([*CHAT.base.special_tokens, "\n", "assistant", "system", "x", " "])


@pytest.fixture(scope="module")
def roomy_address() -> Iterator[Address]:
    """Serve a model that reads 4000 tokens."""
    with running(application(Engine(tiny(max_seq_len=4000), CHAT), "tiny")) as address:
        yield address


@pytest.mark.slow
@settings(max_examples=100)
@given(st.lists(NAMES, min_size=1, max_size=8).map("".join), st.booleans())
def test_nothing_that_a_client_sends_becomes_a_control_token(roomy_address, text, is_chat):
    read: list[list[int]] = []

    def tokens(self, prompts, config):
        read.extend(prompts)
        yield [STOP[0]]

    messages = [user(text), {"role": "assistant", "content": text}, user(text)]
    body = {"messages": messages} if is_chat else {"prompt": text}
    path = CHAT_PATH if is_chat else "/v1/completions"
    with mock.patch.object(TextGenerator, "_tokens", tokens):
        status, _ = roomy_address.ask(path, {"model": "tiny", **body})
    if status == 400:  # white space alone is no message
        assert is_chat and not text.strip()
        return

    assert status == 200
    found = [token for token in read[0] if token in STOP]
    assert len(found) == (9 if is_chat else 0)  # five turns begin, and the last of them has no end


# ---------------------------------------------------------------- the command


@pytest.mark.slow
@pytest.mark.parametrize(
    "handler", [signal.SIG_DFL, signal.SIG_IGN], ids=["terminal", "background"]
)
def test_the_command_serves_a_folder_until_ctrl_c(model, tmp_path, handler):
    model.save_pretrained(tmp_path / "mine")
    CHAT.base.save(tmp_path / "mine" / "tokenizer.json")
    command = [sys.executable, "-m", "minigpt_lib.server", "--model", str(tmp_path / "mine")]
    running_command = subprocess.Popen(
        [*command, "--port", "0"],
        cwd=paths.ROOT,
        env={**os.environ, "MINIGPT_API_KEY": "k"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),  # a script's `&` ignores Ctrl-C
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        line = running_command.stdout.readline()
        found = re.fullmatch(
            r"mine answers at http://127\.0\.0\.1:(\d+)/v1 \(Ctrl-C stops it\)\.\n", line
        )
        assert found, line + running_command.stderr.read()
        client = client_of(Address("127.0.0.1", int(found[1])), "k")
        options = {"max_tokens": 8, "temperature": 1.0, "seed": 6}
        answer = client.chat.completions.create(model="mine", messages=[user("Hi")], **options)
        assert answer.choices[0].message.content == expected_answer(model, "Hi", 8, 6)

        running_command.send_signal(signal.SIGINT)
        _, errors = running_command.communicate(timeout=PATIENCE)
        assert running_command.returncode == 0
        assert errors == "stopped.\n"
    finally:
        running_command.kill()
        running_command.wait()


# ---------------------------------------------------------------- small print


@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 503])
def test_only_a_busy_server_asks_to_try_again(status):
    refusal = server._ServerRefusal(status, "No.", "no")
    again = server._refusing(refusal).headers.get("Retry-After")
    assert again == ("1" if status in (429, 503) else None)


@pytest.mark.parametrize("name", ["n", "best_of"])
@pytest.mark.parametrize("number", [0, 2])
def test_one_answer_is_all_that_can_be_asked_for(name, number):
    body = {"model": "tiny", "prompt": "a"}
    assert server._parsed(server._AskedText, json.dumps(body | {name: 1}).encode()).prompt == "a"
    with pytest.raises(server._ServerRefusal, match=name):
        server._parsed(server._AskedText, json.dumps(body | {name: number}).encode())


def test_a_context_that_has_room_for_the_system_message_and_one_token_is_served(model, tmp_path):
    model.save_pretrained(tmp_path)
    CHAT.base.save(tmp_path / "tokenizer.json")
    first = [{"role": "system", "content": SYSTEM}, user("?")]
    shortest = 1 + len(CHAT.render(first, add_generation_prompt=True)[0])
    options = server._ServerOptions(model=str(tmp_path), context=shortest)
    assert server._served_model(options)[2] == shortest


def test_the_module_is_a_program():
    assert help_of("minigpt_lib.server").startswith("usage: python -m minigpt_lib.server ")
