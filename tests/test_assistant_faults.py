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
        "        prompt = self.prompt(text)\n",
        "        prompt = self.chat.prompt(text)\n",
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
    "a file's settings are not loaded": ("        self.settings = settings\n", "        pass\n"),
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
    "the warning about old turns is repeated": (
        "if self._unread and not before:",
        "if self._unread:",
    ),
    "without --model a folder is invented": (
        "    if name is None:\n        raise FileNotFoundError(",
        '    if name is None:\n        return Path("there")\n        raise FileNotFoundError(',
    ),
    "the temperature is not checked": (
        'for name in ("temperature", "top_k"',
        'for name in ("top_k"',
    ),
    "a question is noted before its answer": (
        "self.messages = [*kept, question, reply]",
        "self.messages.append(question); self.messages = [*kept, question, reply]",
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
        "if number is not None or name not in _OPTIONAL:",
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
    "a model that cannot run is accepted": (
        "            model(torch.zeros(1, 1, dtype=torch.int64))",
        "            pass",
    ),
    "attention is computed with gradients": (
        "@torch.inference_mode()\ndef attention_maps",
        "def attention_maps",
    ),
    "dropout is on for attention": ("with evaluating(model):", "if True:"),
    "the model stays in evaluation mode": (
        "with evaluating(model):",
        "model.eval()\n        if True:",
    ),
    "a question without room is not explained": (
        '        raise ValueError(f"today\'s settings leave the last question no room: {error}") from None',
        "        raise",
    ),
    "carriage returns and tabs are printed": (
        'c == "\\n" or unicodedata',
        'c in "\\n\\r\\t" or unicodedata',
    ),
    "a command's reply may contain control characters": (
        "                self.screen.tell(pieces)\n                return pieces",
        "                print(pieces)\n                return pieces",
    ),
    "an error message may contain control characters": (
        '                self.screen.tell(f"({error})")\n\n    def take',
        '                print(f"({error})")\n\n    def take',
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
    "a swallowed Ctrl-C is lost": (
        "                self.screen.piece(piece)\n                self.ctrl_c.check()\n",
        "                self.screen.piece(piece)\n",
    ),
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
    "/quit with words after it is unknown": (
        '        if command == "/quit":',
        '        if command == "/never":',
    ),
    "a context of 0 is replaced by the course's": (
        'if options.get("context") is None and folder',
        'if not options.get("context") and folder',
    ),
    "the course's context is too small": ("OWN_CONTEXT = 224", "OWN_CONTEXT = 160"),
    "an undo leaves the question": (
        "            self.messages = self.messages[:-2]\n",
        "            self.messages = self.messages[:-1]\n",
    ),
    "an undo removes an answered question for one without an answer": (
        "        if self.unanswered is not None:\n            self.unanswered = None\n        elif",
        "        if self.unanswered is not None:\n            self.unanswered = None\n        if",
    ),
    "an undo does not end an answer": (
        "        self._settle()\n        text = self.last_question()",
        "        text = self.last_question()",
    ),
    "a new answer stands beside the old one": (
        "kept = self.messages[:-2] if instead else self.messages",
        "kept = self.messages",
    ),
    "a retry reads the answer that it replaces": (
        "before = self.messages[:-2] if instead else self.messages",
        "before = self.messages",
    ),
    "a retry draws the same again": (
        'options["seed"] += self._tries',
        'options["seed"] += 0',
    ),
    "a new question draws like a retry": (
        "        self._tries = 0\n        return self._begin",
        "        return self._begin",
    ),
    "a stopped question cannot be asked again": (
        "        if not instead:\n            self.unanswered = text\n",
        "",
    ),
    "a reset keeps the question without an answer": (
        '        self.messages = [m for m in self.messages if m["role"] == "system"]\n        self.unanswered = None\n',
        '        self.messages = [m for m in self.messages if m["role"] == "system"]\n',
    ),
    "loading keeps the question without an answer": (
        "        self.settings = settings\n        self.unanswered = None\n",
        "        self.settings = settings\n",
    ),
    "statistics count a question that nobody asked": (
        "len(with_question) - len(alone)",
        "len(with_question)",
    ),
    "statistics count all turns as read": ("turns - turns_read", "0"),
    "statistics confuse the room with the context": (
        "len(with_question) - len(alone), self.room",
        "len(with_question) - len(alone), self.context",
    ),
    "the time of an answer begins with its second piece": (
        "                seconds += time.perf_counter() - began\n                pieces",
        "                pieces",
    ),
    "a filter counts under every strategy": (
        "without = {name for name in _FILTERS if name != strategy}",
        "without = set()",
    ),
    "greedy has a temperature": ('if strategy in ("greedy", "beam"):', 'if strategy == "beam":'),
    "a whole number is read as a fraction": (
        "int(text) if whole else float(text)",
        "float(text)",
    ),
    "off is not None": ('text.lower() in ("none", "off")', 'text == "none"'),
    "the best model is the first by name": (
        "[*best, *sorted(found.keys() - set(best))]",
        "sorted(found)",
    ),
    "a tokenizer alone is a model": (
        'if (folder / "model.safetensors").is_file() and (folder / "config.json").is_file():',
        "if True:",
    ),
    "a folder's name is not a name": (
        "if str(name) in models or str(name) in by_folder:",
        "if str(name) in models:",
    ),
    "the default may be any model": ("if known in OWN_MODELS]", "if known]"),
    "a path to the course's own model has another context": (
        "folder.resolve() in own",
        "folder in own",
    ),
    "every model gets the course's context": (
        'if options.get("context") is None and folder.resolve() in own:',
        'if options.get("context") is None:',
    ),
    "the greeting has no examples": ("    if assistant.examples:\n", "    if False:\n"),
    "examples are not read": (
        '        options.setdefault("examples", _read_examples(folder))\n',
        "        _read_examples(folder)\n",
    ),
    "examples that are given are not taken": (
        'options.setdefault("examples", _read_examples(folder))',
        'options["examples"] = _read_examples(folder)',
    ),
    "an example may be anything": (
        "not is_list or not all(isinstance(text, str) and text.strip() for text in questions)",
        "not is_list",
    ),
    "a setting without effect is not mentioned": (
        "    if name in assistant.in_use():\n        return",
        "    if name:\n        return",
    ),
    "a quoted text may be a command": (
        "self.first.stream(line) if is_quoted else obey(self.first, line)",
        "obey(self.first, line)",
    ),
    "quoted lines are joined": ('line += "\\n" + input(more)', "line += input(more)"),
    "a backslash does not go on": ('while line.endswith("\\\\"):', "while False:"),
    "a loaded conversation is not shown": (
        'if told.startswith("(going on"):',
        'if told.startswith("(never"):',
    ),
    "one question prints a name": ("            if not self.bare:\n", "            if True:\n"),
    "an empty conversation is kept": (
        "if self.keep is None or self.first.messages == self._kept:",
        "if self.keep is None:",
    ),
    "a conversation is not kept": (
        "            self.first.save(self.keep)\n",
        "            pass\n",
    ),
    "--continue forgets the options": (
        "            assistant.set(**options.chosen())\n",
        "",
    ),
    "--continue keeps the old system message": (
        "            if options.system != SYSTEM:\n",
        "            if False:\n",
    ),
    "the second model is not asked": (
        "for name, assistant in self.assistants.items():\n                answers",
        "for name, assistant in list(self.assistants.items())[:1]:\n                answers",
    ),
    "both models save": ('                if command == "/save":\n', "                if False:\n"),
    "colours in a pipe": (
        "self.console.color_system is not None and not self.console.no_color",
        "not self.console.no_color",
    ),
    "colours that the user has switched off": (
        "self.console.color_system is not None and not self.console.no_color",
        "self.console.color_system is not None",
    ),
    "a later chapter's model gets the course's first message": (
        "if options.system != SYSTEM:  # otherwise",
        "if True:  # otherwise",
    ),
    "a later chapter's model keeps its first message": (
        "if options.system != SYSTEM:  # otherwise",
        "if False:  # otherwise",
    ),
    "a trained model hides behind a later chapter's": (
        "if name in openers and name not in trained_models():",
        "if name in openers:",
    ),
    "the options of a later chapter's model are lost": (
        "return openers[name](**given), Path(name)",
        "return openers[name](), Path(name)",
    ),
    "two answers stand one below the other in a terminal": (
        "        if not self.is_terminal:\n",
        "        if True:\n",
    ),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("16", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("16", tmp_path, *FAULTS[fault])
