"""Chapter 16: its checks accept the assistant and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "a turn that fits exactly is dropped": (
        "start >= 2 and size(start - 2) <= room",
        "start >= 2 and size(start - 2) < room",
    ),
    "half a turn is kept": ("        start -= 2\n", "        start -= 1\n"),
    "the system message is dropped": (
        'first = messages[:1] if messages[0]["role"] == "system" else []',
        "first = []",
    ),
    "a prompt may be one token too long": (
        "    if size(start) > room:\n",
        "    if size(start) > room + 1:\n",
    ),
    "a blank answer is kept": ("if answer.strip():", "if answer:"),
    "an old system message stays behind the new one": (
        '[m for m in self.messages if m["role"] != "system"]',
        "self.messages",
    ),
    "a reset forgets the system message": (
        'self.messages = [m for m in self.messages if m["role"] == "system"]',
        "self.messages = []",
    ),
    "only the format's end token stops an answer": (
        "tuple(self.chat.base.special_tokens.values())",
        "(self.chat.end,)",
    ),
    "<|endoftext|> does not stop an answer": (
        "tuple(self.chat.base.special_tokens.values())",
        "tuple(self.chat.controls)",
    ),
    "a turn is kept only after an error": (
        "        finally:  # also",
        "        except RuntimeError:  # also",
    ),
    "the whole conversation is the prompt": (
        "going = self._write(text, self.prompt(text))",
        "going = self._write(text, self.chat.prompt(text))",
    ),
    "a longer answer does not shrink the room": (
        'self.context - self.settings["max_new_tokens"]',
        'self.context - SETTINGS["max_new_tokens"]',
    ),
    "an answer may not be half of the context": ("if 2 * n > context:", "if 2 * n >= context:"),
    "settings are checked without the changes": (
        "_checked({**self.settings, **changes}, self.context)",
        "self.settings | changes; _checked(self.settings, self.context)",
    ),
    "a file's settings are not loaded": (
        '            self.set(**content["settings"])\n',
        "            pass\n",
    ),
    "a failed save leaves its part": ("        part.unlink(missing_ok=True)", "        pass"),
    "attention of the token itself": ("len(prompt) - 1 : -1]", "len(prompt) :]"),
    "hooks stay on the model": ("            hook.remove()", "            pass"),
    "a layer's mean is over its tokens": ("self.weights[layer, None]", "self.weights[layer]"),
    "an answer beyond the context is read whole": (
        'ids = torch.tensor((prompt + chat.encode(last["content"]))[: assistant.context])',
        'ids = torch.tensor(prompt + chat.encode(last["content"]))',
    ),
    "control characters are printed": ('c == "\\n" or unicodedata.category(c)[0] != "C"', "True"),
    "an empty /system is an empty message": (
        "assistant.system(text or None)",
        "assistant.system(text)",
    ),
    "the warning about old turns is repeated": ("if unread and not before:", "if unread:"),
    "without --model a folder is invented": (
        '    folder = options.pop("model")\n',
        '    folder = options.pop("model") or Path("there")\n',
    ),
    "the temperature is not checked": (
        'for name in ("temperature", "top_k"',
        'for name in ("top_k"',
    ),
    "a question is noted before its answer": (
        "self.messages += [question, reply]",
        "self.messages.append(question); self.messages += [reply]",
    ),
    "a history that ends with an answer is accepted": (
        'if not messages or messages[-1]["role"] != "user":',
        "if not messages:",
    ),
    "a seed may have more than 64 bits": (
        "type(seed) is not int or not -(2**63) <= seed < 2**63",
        "not isinstance(seed, int)",
    ),
    "a number may have more than 64 bits": (
        "if type(number) in (int, float) and number < 2**63:",
        "if type(number) in (int, float):",
    ),
    "None is refused for every setting": (
        'if number is not None or name not in ("top_k", "top_p", "min_p"):',
        "if True:",
    ),
    "a context of 0 is the default": (
        "model.config.max_seq_len if context is None else context",
        "context or model.config.max_seq_len",
    ),
    "a context may be a fraction": (
        "type(self.context) is not int or not 2 <= self.context",
        "not 2 <= self.context",
    ),
    "a context may be one token": ("not 2 <= self.context <= ", "not self.context <= "),
    "an unfinished answer stays open": ("            going.close()", "            pass"),
    "an answer that nobody holds is kept open": (
        "        self._open = weakref.ref(going)",
        "        self._open = lambda: going",
    ),
    "loading does not end an answer": (
        "        self._settle()\n        self.messages = content",
        "        self.messages = content",
    ),
    "saving does not end an answer": (
        "        self._settle()\n        content =",
        "        content =",
    ),
    "a new system message does not end an answer": (
        "        self._settle()\n        head =",
        "        head =",
    ),
    "a reset does not end an answer": (
        "        self._settle()\n        self.messages = [m",
        "        self.messages = [m",
    ),
    "the seed is not saved": (
        '"settings": self.settings}',
        '"settings": self.settings | {"seed": None}}',
    ),
    "a save deletes the old file first": (
        "        part.replace(path)",
        "        path.unlink(missing_ok=True)\n        part.replace(path)",
    ),
    "two processes write the same part": (
        'f"{path.name}.{os.getpid()}.part"',
        'f"{path.name}.part"',
    ),
    "the part is written to the current folder": (
        'path.with_name(f"{path.name}.{os.getpid()}.part")',
        'Path(f"{path.name}.{os.getpid()}.part")',
    ),
    "a link is replaced by a file": (
        "    path = Path(os.path.realpath(path))",
        "    path = Path(path)",
    ),
    "a later version's file is accepted": (
        'content.get("kind") != _KIND',
        'str(content.get("kind"))[:20] != _KIND[:20]',
    ),
    "an error in a file's settings does not name the file": (
        '            raise ValueError(f"{path}: {error}") from None',
        "            raise",
    ),
    "a tokenizer's other errors have no explanation": (
        "    except Exception as error:  # also",
        "    except ValueError as error:  # also",
    ),
    "a model that cannot run is accepted": (
        "            model(torch.zeros(1, 1, dtype=torch.int64))",
        "            pass",
    ),
    "attention is computed with gradients": (
        "@torch.inference_mode()\ndef attention_maps",
        "def attention_maps",
    ),
    "dropout is on for attention": ("        model.eval()  # without", "        pass  # without"),
    "the model stays in evaluation mode": ("        model.train(training)\n", ""),
    "a question without room is not explained": (
        '        raise ValueError(f"today\'s settings leave the last question no room: {error}") from None',
        "        raise",
    ),
    "carriage returns and tabs are printed": (
        'c == "\\n" or unicodedata',
        'c in "\\n\\r\\t" or unicodedata',
    ),
    "a command's reply may contain control characters": (
        "print(_printable(_obey(assistant, line)))",
        "print(_obey(assistant, line))",
    ),
    "an error message may contain control characters": (
        'print(_printable(f"({error})"))',
        'print(f"({error})")',
    ),
    "a ~ in a path is not expanded": ("path = Path(text).expanduser()", "path = Path(text)"),
    "an unknown user's folder is a traceback": (
        '    except RuntimeError:\n        raise ValueError(f"{text}: there',
        '    except ZeroDivisionError:\n        raise ValueError(f"{text}: there',
    ),
    "the output refuses characters that it cannot encode": (
        "streams: Iterable[Any] = (sys.stdin, sys.stdout)",
        "streams: Iterable[Any] = (sys.stdin,)",
    ),
    "the input refuses bytes that are not text": (
        "streams: Iterable[Any] = (sys.stdin, sys.stdout)",
        "streams: Iterable[Any] = (sys.stdout,)",
    ),
    "a swallowed Ctrl-C is lost": ("            ctrl_c.check()\n", ""),
    "Ctrl-C has no handler": ("with on_interrupt(ctrl_c):", "with contextlib.nullcontext():"),
    "a closed output is not noticed": (
        "if sys.stdin is None or sys.stdout is None:",
        "if sys.stdin is None:",
    ),
    "a closed input is not noticed": (
        "if sys.stdin is None or sys.stdout is None:",
        "if sys.stdout is None:",
    ),
    "an indented /quit ends": ('line.rstrip() == "/quit"', 'line.strip() == "/quit"'),
    "/quit with a space after it does not end": ('line.rstrip() == "/quit"', 'line == "/quit"'),
    "/quit with words after it is unknown": ('    if name == "quit":', '    if name == "never":'),
    "a context of 0 is replaced by the course's": (
        'if options["context"] is None:',
        'if not options["context"]:',
    ),
    "the course's context is too small": ('options["context"] = 224', 'options["context"] = 160'),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("16", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("16", tmp_path, *FAULTS[fault])
