"""Chapter 23: the checks of its server accept the module and notice every fault in this table."""

from __future__ import annotations

import pytest
from mutation import mutate
from tools import first_failing, sources, survives

ENGINE = "the engine writes one after another"
HTTP = "answers over HTTP"
COMMAND = "the command of the server"
REFUSALS = "requests that are refused"
CLIENTS = "clients that hang up, and a full queue"

FAULTS = {
    "the last request is answered first": (ENGINE, "self._jobs.popleft()", "self._jobs.pop()"),
    "the queue has no end": (ENGINE, "if len(waiting) >= self.limits.waiting:", "if False:"),
    "those who hung up keep their place": (
        ENGINE,
        "[other for other in self._jobs if not other.stopped.is_set()]",
        "[*self._jobs]",
    ),
    "those who hung up are answered": (CLIENTS, "if not job.stopped.is_set():", "if True:"),
    "an answer goes on for nobody": (
        ENGINE,
        "if reader.done or job.stopped.is_set() or",
        "if reader.done or",
    ),
    "an answer may take forever": (
        ENGINE,
        "or job.stopped.is_set() or time.monotonic() > job.end",
        "or job.stopped.is_set()",
    ),
    "a request may wait forever": (
        ENGINE,
        "if time.monotonic() > job.end:\n            raise",
        "if False:\n            raise",
    ),
    "an answer may be of any length": (
        ENGINE,
        'min(chosen.pop("max_new_tokens", room), self.limits.tokens, room)',
        'min(chosen.pop("max_new_tokens", room), room)',
    ),
    "an answer may outgrow the context": (
        ENGINE,
        'min(chosen.pop("max_new_tokens", room), self.limits.tokens, room)',
        'min(chosen.pop("max_new_tokens", room), self.limits.tokens)',
    ),
    "what the client asks for is not the bound": (
        ENGINE,
        'min(chosen.pop("max_new_tokens", room), self.limits.tokens, room)',
        'min(chosen.pop("max_new_tokens", room) + 99, self.limits.tokens, room)',
    ),
    "a prompt may fill the context": (ENGINE, "if room < 1:", "if room < 0:"),
    "the text before a stop is lost": (ENGINE, "if piece := reader.finish():", "if False:"),
    "the seed is not used": (
        ENGINE,
        'return GenerationConfig(n, "top_p", stop=stop, **chosen)',
        'return GenerationConfig(n, "top_p", stop=stop, **(chosen | {"seed": None}))',
    ),
    "top_p 0 is passed on": (ENGINE, 'if chosen["top_p"] == 0:', "if False:"),
    "top_p 0 draws": (
        ENGINE,
        'chosen |= {"temperature": 0.0, "top_p": 1.0}',
        'chosen |= {"top_p": 1.0}',
    ),
    "the token that ends an answer is not counted": (
        ENGINE,
        "n_tokens += 1",
        "n_tokens += token not in self._stops",
    ),
    "control tokens do not end an answer": (
        ENGINE,
        'stop = (*self._stops, *chosen.pop("stop", ()))',
        'stop = (*chosen.pop("stop", ()),)',
    ),
    "an error ends the thread": (ENGINE, "except Exception:\n", "except ZeroDivisionError:\n"),
    "a client hears the inside of an error": (
        ENGINE,
        'what = "The model failed on this request."',
        "what = traceback.format_exc()",
    ),
    "an error is told to nobody": (ENGINE, "traceback.print_exc()", "pass"),
    "closing forgets those who wait": (ENGINE, "for job in waiting:\n", "for job in []:\n"),
    "a closed engine takes requests": (
        ENGINE,
        "            if self._closed:\n                raise",
        "            if False:\n                raise",
    ),
    "closing does not end the thread": (ENGINE, "        self._thread.join()", "        pass"),
    "a long text is encoded": (
        ENGINE,
        'len(text.encode("utf-8")) > self.context * self._longest',
        "False",
    ),
    "a text that just fits is refused": (
        ENGINE,
        'len(text.encode("utf-8")) > self.context * self._longest',
        'len(text.encode("utf-8")) >= self.context * self._longest',
    ),
    "bounds may be 0": (ENGINE, "if not value > 0:", "if not value >= 0:"),
    "names in a text become control tokens": (
        HTTP,
        "ids = self._engine.tokenizer.encode(text)",
        'ids = self._engine.tokenizer.base.encode(text, "all")',
    ),
    "the system message is forgotten": (
        HTTP,
        'if messages[0]["role"] != "system" and self._system is not None:',
        "if False:",
    ),
    "two system messages": (
        HTTP,
        'if messages[0]["role"] != "system" and self._system is not None:',
        "if self._system is not None:",
    ),
    "a developer's message is unknown": (
        HTTP,
        'role = "system" if self.role == "developer" else self.role',
        "role = self.role",
    ),
    "the older bound counts": (
        HTTP,
        'chosen["max_new_tokens"] = min(bound, self.max_completion_tokens)',
        'chosen["max_new_tokens"] = bound',
    ),
    "usage counts the prompt twice": (
        HTTP,
        '"total_tokens": begun.prompt_tokens + ended.tokens',
        '"total_tokens": 2 * begun.prompt_tokens + ended.tokens',
    ),
    "a stream has no end": (HTTP, 'yield "data: [DONE]\\n\\n"', "return"),
    "a stream does not say why it ended": (
        HTTP,
        'yield _line(shape.piece("", event.reason))',
        "pass",
    ),
    "usage is not streamed": (HTTP, "        if with_usage:\n", "        if False:\n"),
    "empty fields are refused": (
        HTTP,
        "_without_null(value) for name, value in content.items() if value is not None",
        "_without_null(value) for name, value in content.items()",
    ),
    "the whole network may ask without a key": (
        COMMAND,
        "if not is_local and key is None:",
        "if False:",
    ),
    "the key is not passed on": (COMMAND, "api_key=key,", "api_key=None,"),
    "the variable is not read": (COMMAND, 'os.environ.get("MINIGPT_API_KEY")', "None"),
    "other names are let in nowhere": (
        COMMAND,
        'hosts=_LOCAL if is_local else ("*",),',
        "hosts=(),",
    ),
    "connections are not bounded": (COMMAND, "4 * (limits.waiting + 1)", "None"),
    "the context is not passed on": (
        COMMAND,
        "assistant.chat, assistant.context, options.name",
        "assistant.chat, None, options.name",
    ),
    "a traceback for a port that is taken": (
        COMMAND,
        "except (ValueError, OSError, OverflowError) as error:",
        "except (ValueError, OverflowError) as error:",
    ),
    "fields that are not understood are ignored": (
        REFUSALS,
        'ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)',
        'ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)',
    ),
    "a true is a number": (
        REFUSALS,
        'ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)',
        'ConfigDict(extra="forbid", allow_inf_nan=False)',
    ),
    "a prompt may be ids": (
        REFUSALS,
        "prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]",
        "prompt: str | list[str] | list[int]",
    ),
    "half a character is passed on": (
        REFUSALS,
        'json.dumps(content, ensure_ascii=False).encode("utf-8")',
        "pass",
    ),
    "a request may have any size": (
        REFUSALS,
        "if len(body) > self._engine.limits.bytes:",
        "if False:",
    ),
    "a form is a request": (REFUSALS, 'if kind != "application/json":', "if False:"),
    "any name leads here": (
        REFUSALS,
        "allowed_hosts=[*hosts]",
        'allowed_hosts=["*"]',
    ),
    "any model is this one": (REFUSALS, "if name != self._name:", "if False:"),
    "the list of models needs no key": (
        REFUSALS,
        "        self._check_key(request)\n        return JSONResponse({",
        "        return JSONResponse({",
    ),
    "a wrong key is let in": (
        REFUSALS,
        "if expected is not None and not hmac.compare_digest(given.encode(), expected.encode()):",
        'if expected is not None and given == "":',
    ),
    "a base model is asked to talk": (
        REFUSALS,
        "if not isinstance(chat, ChatTokenizer):",
        "if False:",
    ),
    "an empty prompt is passed on": (REFUSALS, "if not ids:", "if False:"),
    "pages that load scripts from elsewhere": (REFUSALS, "openapi_url=None", 'title="MiniGPT"'),
    "our own mistakes are no JSON": (
        REFUSALS,
        "app.add_exception_handler(Exception, failure)",
        "pass",
    ),
    "nobody watches the connection": (
        CLIENTS,
        "self._watch = asyncio.create_task(self._until_it_closes())",
        "pass",
    ),
    "a client that waits is not told of": (
        CLIENTS,
        "        if self._job is not None:\n            self._job.stopped.set()\n",
        "        pass\n",
    ),
    "an error in a stream is not told": (
        CLIENTS,
        "yield _line(_error(refusal))",
        "pass",
    ),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    for check in (ENGINE, HTTP, COMMAND, REFUSALS, CLIENTS):
        assert survives("23", tmp_path, check=check)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    check, before, after = FAULTS[fault]
    whole = sources("23")
    name = "minigpt_lib.server"
    broken = whole | {name: mutate(whole[name], before, after)}
    assert first_failing("23", tmp_path, broken, check) is not None
