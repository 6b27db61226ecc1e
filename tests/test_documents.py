"""The documents: every command in them runs, every link and path exists, and what they promise is true."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from threading import Thread

import pytest
import yaml

from courseware import paths

ROOT = paths.CODE
PATIENCE = 300  # seconds; on a calm machine no command needs 30
GUIDES = (
    *("README.md", "CONTRIBUTING.md", "AGENTS.md", "SECURITY.md", "CHANGELOG.md"),
    *("exercises/AGENTS.md", ".github/PULL_REQUEST_TEMPLATE.md"),
)
BOOK = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "book").rglob("*.md"))
FORMS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(".github/ISSUE_TEMPLATE/*"))
DOCUMENTS = (*GUIDES, *BOOK, *FORMS)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------- find the commands

_PROGRAMS = (
    *("make", "python", "python3", "py", "pip", "pipx", "uv", "uvx", "conda", "git", "gh", "cd"),
    *("torchrun", "pytest", "ruff", "mypy", "jupyter", "jupyter-book", "jupytext", "nbval"),
    *("pre-commit", "docker", "curl", "wget", "sudo", "apt", "apt-get", "brew", "export", "bash"),
)
_PROGRAM = re.compile(rf"(\.venv[/\\]\S+|({'|'.join(map(re.escape, _PROGRAMS))})(?=\s))")
_FENCE = re.compile(r"^([ \t]*)(`{3,})[ \t]*([^\n`]*)\n(.*?)^[ \t]*\2[ \t]*$", re.M | re.S)
_SHELL = ("", "bash", "sh", "shell", "console", "powershell")
_CODE = ("python", "python3", "yaml", "json", "toml", "mermaid", "{raw} html")


def split_document(text: str) -> tuple[list[str], str]:
    """Return the lines of a document's shell blocks, and the text without any block of code."""
    lines: list[str] = []

    def take(match: re.Match) -> str:
        language, body = match[3].strip(), match[4]
        if language in _SHELL:
            lines.extend(body.splitlines())
        return "" if language in (*_SHELL, *_CODE) else body  # a table or a glossary is prose

    prose = _FENCE.sub(take, text)
    return lines, prose


def inline_code(text: str) -> list[str]:
    """Return what stands between backticks in the prose of a document, and in its HTML."""
    _, prose = split_document(text)
    return [
        *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose),
        *re.findall(r"<code>([^<]+)</code>", prose),
    ]


def commands_in(text: str) -> list[str]:
    """Return the commands that a document names, in its blocks and in its prose."""
    lines, _ = split_document(text)
    without_comments = [re.sub(r"(^|\s)#(\s.*)?$", "", line).strip() for line in lines]
    found = [line.removeprefix("$ ") for line in without_comments if line]
    found += [code for code in inline_code(text) if _PROGRAM.match(code)]
    return found


def normal(command: str) -> str:
    """Return a command as a reader on Linux would type it for chapter 1, with one word for Python."""
    command = command.replace(".venv\\Scripts\\", ".venv/bin/").replace("NN", "01")
    command = re.sub(r"^(\.venv/bin/python|python3|py -3(\.\d+)?)(?=\s)", "python", command)
    return " ".join(command.split())


def all_commands() -> dict[str, str]:
    """Return {command in its normal form: the first document that names it}."""
    found: dict[str, str] = {}
    for name in DOCUMENTS:
        if name != "CHANGELOG.md":  # it may name what is gone
            for command in commands_in(read(name)):
                found.setdefault(normal(command), name)
    return found


COMMANDS = all_commands()


# ---------------------------------------------------------------- a place to run them


@dataclass
class Place:
    """A copy of the checkout in which a command may change whatever it likes."""

    root: Path
    environment: dict[str, str]

    @property
    def python(self) -> str:
        return str(self.root / ".venv" / "bin" / "python")

    def words(self, command: str, *more: str) -> list[str]:
        """Return the words of a command in its normal form, with more words appended."""
        words = shlex.split(command)
        program = words[0].removeprefix(".venv/bin/")
        if program == "python":
            words[:1] = [self.python]
        elif words[0].startswith(".venv/bin/"):
            module = {"torchrun": "torch.distributed.run"}.get(program, program)
            words[:1] = [self.python, "-m", module]
        elif program == "make":
            words[1:1] = [f"PYTHON={self.python}"]
        return [*words, *more]

    def run(self, words: list[str], typed: str = "", folder: Path | None = None) -> str:
        """Run a command to its end; return what it printed, or fail with that."""
        done = subprocess.run(
            words,
            cwd=folder or self.root,
            env=self.environment,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
        )
        assert done.returncode == 0, (
            f"{shlex.join(words)}: {done.returncode}\n{done.stdout[-4000:]}"
        )
        return done.stdout

    def until(self, words: list[str], pattern: str) -> str:
        """Run a command until it has printed `pattern`, then press Ctrl-C; return what it printed."""
        with _started(words, self.root, self.environment) as (process, pieces):
            begin = time.monotonic()
            while not re.search(pattern, "".join(pieces)):
                ended = process.poll() is not None
                if ended:
                    time.sleep(0.5)  # the last words may still be on their way
                found = re.search(pattern, "".join(pieces))
                if not found and (ended or time.monotonic() - begin > PATIENCE):
                    why = f"ended with {process.returncode}" if ended else "took too long"
                    text = "".join(pieces)[-4000:]
                    pytest.fail(f"{shlex.join(words)} {why} before it printed {pattern!r}\n{text}")
                time.sleep(0.05)
            return "".join(pieces)


@contextlib.contextmanager
def _started(words: list[str], folder: Path, environment: dict[str, str]) -> Iterator[tuple]:
    """Start a command in a process group of its own, and end the whole group afterwards."""
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    pieces: list[str] = []

    def listen() -> None:
        while piece := os.read(process.stdout.fileno(), 65536):
            pieces.append(piece.decode("utf-8", errors="replace"))

    listener = Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield process, pieces
    finally:
        for number, patience in ((signal.SIGINT, 5), (signal.SIGTERM, 5), (signal.SIGKILL, 30)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=patience)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whoever it left behind
        listener.join(timeout=10)
        process.stdout.close()


_COPIED = (
    *("benchmarks", "book", "courseware", "exercises", "minigpt_lib", "notebooks", "solutions"),
    *("tests", ".github", *(path.name for path in ROOT.iterdir() if path.is_file())),
)


@pytest.fixture(scope="module")
def environment_folder(tmp_path_factory) -> Path:
    """Make a `.venv` that sees the packages of this one and is not changed by what is done in it."""
    folder = tmp_path_factory.mktemp("environment") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/*/site-packages")
    here = sysconfig.get_path("purelib")
    (packages / "here.pth").write_text(
        f"import site; site.addsitedir({here!r})\n", encoding="utf-8"
    )

    prefix = Path(sys.prefix)
    (folder / "share").symlink_to(prefix / "share")
    for script in (prefix / "bin").glob("*"):
        if not (folder / "bin" / script.name).exists():
            (folder / "bin" / script.name).symlink_to(script)
    if (prefix / "etc" / "jupyter").is_dir():
        shutil.copytree(prefix / "etc" / "jupyter", folder / "etc" / "jupyter")
    return folder


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    """Return a folder for the text that chapters read, which is prepared only once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def place(tmp_path, environment_folder, data_folder) -> Place:
    """Copy the checkout, with an environment that is up to date and no way to the network."""
    root = tmp_path / "minigpt-from-scratch"
    root.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, root / name)
    (root / ".venv").symlink_to(environment_folder)

    own = tmp_path / "own"
    dead = "http://127.0.0.1:9"  # nobody listens there
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MINIGPT", "JUPYTER", "JPY", "PYTEST", "MAKE", "COV"))
    }
    environment |= {
        "PATH": os.pathsep.join([str(environment_folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(root),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "MINIGPT_DATA": str(data_folder),
        "BROWSER": f"{_browser(tmp_path)} %s",
        "JUPYTER_CONFIG_DIR": str(own / "config"),
        "JUPYTER_DATA_DIR": str(own / "share"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "IPYTHONDIR": str(own / "ipython"),
        "HF_HUB_OFFLINE": "1",
        "GIT_ALLOW_PROTOCOL": "file",
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        **{f"{kind}_proxy": dead for kind in ("http", "https")},
        **{f"{kind}_PROXY": dead for kind in ("HTTP", "HTTPS")},
        "no_proxy": "127.0.0.1,localhost",
    }
    here = Place(root, environment)
    _stamp(here)
    return here


def _browser(folder: Path) -> Path:
    """Write a program that prints the page that it is asked to open, and return its path."""
    program = folder / "browser"
    program.write_text('#!/bin/sh\necho "$1"\ncat "${1#file://}"\n', encoding="utf-8")
    program.chmod(0o755)
    return program


def _stamp(place: Place) -> None:
    """Tell the set-up of the copy that its environment is up to date, and make sure that it believes it."""
    code = (
        "import runpy, sys; m = runpy.run_path('courseware/setup/environment.py')\n"
        "for dev in (False, True):\n"
        "    m['stamp'](dev).write_text(m['fingerprint'](dev), encoding='utf-8')\n"
        "sys.exit(not m['up_to_date'](True))"
    )
    place.run([place.python, "-c", code])


# ---------------------------------------------------------------- how each command is run

Runner = Callable[[Place, str], None]


def whole(*more: str, prints: str = "") -> Runner:
    """Run the command to its end, with more words appended; it must succeed and print the pattern."""

    def run(place: Place, command: str) -> None:
        text = place.run(place.words(command, *more))
        assert re.search(prints, text), text

    return run


def until(pattern: str, *more: str) -> Runner:
    """Run the command up to its first useful output, then press Ctrl-C."""

    def run(place: Place, command: str) -> None:
        place.until(place.words(command, *more), pattern)

    return run


def dry_run(*expected: str) -> Runner:
    """Ask make what it would do: it takes too long. Modules and scripts that it names must exist."""

    def run(place: Place, command: str) -> None:
        text = place.run(place.words(command, "-n"))
        for words in expected:
            assert words in text
        _assert_known(place, text)

    return run


def _assert_known(place: Place, text: str) -> None:
    for module in re.findall(r"-m ([\w.]+)", text):
        assert importlib.util.find_spec(module), f"there is no module {module}"
    for script in re.findall(r"(?<=\s)\S+\.py\b", text):
        assert (place.root / script).is_file(), f"there is no script {script}"


def shrunk(code: str, prints: str) -> Runner:
    """Call the `main` of the module or script with the command's own words, after code that makes its work smaller."""

    def run(place: Place, command: str) -> None:
        words = shlex.split(command)[1:]
        if words[0] == "-m":
            del words[0]
            package, _, name = words[0].rpartition(".")
            loading = f"from {package} import {name} as m"
        else:
            script = Path(words[0])
            loading = f"sys.path.insert(0, {script.parent.name!r})\nimport {script.stem} as m"
        calling = f"sys.argv = {words!r}\nsys.exit(m.main())"
        place.until([place.python, "-c", f"import sys\n{loading}\n{code}\n{calling}"], prints)

    return run


# Other processes would import the modules again, with the settings as they are.
_ONE_PROCESS = """
from dataclasses import replace
from courseware.runs import bands
bands.run_seeds = lambda work, seeds, workers=1: map(work, range(seeds))
"""
_LITTLE_TEXT = """
from minigpt_lib import data
text = data.load_text()[:50_000]
data.load_text = lambda: text
"""
_SHORT_TRAINING = """
full = m.training_config
def short(seed=0, **changes):
    return replace(full(seed, **changes), steps=4, warmup_steps=1, eval_every=2, eval_tokens=1000)
m.training_config = short
"""
_SHORT_BASELINE = """
import functools
from minigpt_lib import baselines
baselines.train_baseline = functools.partial(baselines.train_baseline, steps=20, eval_every=10)
"""
_FEW_SIZES = """
sizes, rows_of = m.size_configs()[:3], m.rows_of
m.size_configs = lambda: sizes
m.CONTEXTS = (64, 128)
m.rows_of = lambda cases, repeat: rows_of(cases, 1)
"""
_SMALL_GPT2 = """
sizes = {"vocab_size": 300, "max_seq_len": 160, "n_embd": 32, "n_layer": 2, "n_head": 2}
full = m.GPTConfig.preset
m.GPTConfig.preset = lambda name, **changes: full(name, **sizes | changes)
m.MEGABYTES = 8
"""
_TINY_COURSE = """
import functools
sys.path.insert(0, "tests")
import tiny_course
m.FULL = tiny_course.TINY
m.course.SAMPLES = 1
m.course.run = functools.partial(m.course.run, n=tiny_course.QUESTIONS)

def pairs(model, chat, prompts, judge, **options):  # such a model has no complete answers of its own
    good, bad = ([{"role": "assistant", "content": text}] for text in ("Yes.", "Well, let me see."))
    return [{"prompt": prompt, "chosen": good, "rejected": bad} for prompt in prompts], {}
m.course.make_pairs = pairs
"""


def lab(place: Place, command: str) -> None:
    """Start JupyterLab on a free port, until it has sent the browser to the first notebook."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--allow-root --ServerApp.ip=127.0.0.1 --port={port}"
    more = [f"LAB_ARGS={options}"] if command.startswith("make") else options.split()
    page = rf"http://(127\.0\.0\.1|localhost):{port}/lab/tree/notebooks/00_start_here\.ipynb"
    text = place.until(place.words(command, *more), page)
    assert f"local directory: {place.root}" in text


def _save_tiny_assistant(place: Place) -> None:
    """Write a very small assistant into the folder where `make course` would have put one."""
    from minigpt_lib.bpe import BPETokenizer
    from minigpt_lib.chat import ChatTokenizer
    from minigpt_lib.model import GPTConfig, MiniGPT

    ranks = {bytes([byte]): byte for byte in range(256)}
    chat = ChatTokenizer(BPETokenizer(ranks, {"<|endoftext|>": 256}))
    folder = place.root / "data" / "models" / "course" / "assistant"
    MiniGPT(GPTConfig(chat.vocab_size, 256, n_embd=8, n_layer=1, n_head=1)).save_pretrained(folder)
    chat.base.save(folder / "tokenizer.json")


def talk(place: Place, command: str) -> None:
    """Talk with a very small assistant."""
    _save_tiny_assistant(place)
    text = place.run(place.words(command, "--max-new-tokens", "5"), typed="Hello\n")
    assert "course/assistant" in text and "Traceback" not in text


def chat_page(place: Place, command: str) -> None:
    """Start the server of the chat page, until it has sent the browser there."""
    _save_tiny_assistant(place)
    more = ["CHAT_ARGS=--port=0"] if command.startswith("make") else ["--port=0"]
    line = r"Your assistant is at (http://127\.0\.0\.1:\d+/) \(Ctrl-C stops it\)\.\n"
    text = place.until(place.words(command, *more), line + r"(.*\n)*\1\n")
    assert "Traceback" not in text


def reset(place: Place, command: str) -> None:
    """Damage the chapter that the command names, and get it back."""
    (number,) = re.findall(r"CH=(\d\d)", command)
    (notebook,) = place.root.glob(f"notebooks/{number}_*.ipynb")
    place.run([place.python, "-m", "courseware", "originals"])
    place.run(place.words("make setup"))  # keeps copies
    before = notebook.read_bytes()
    notebook.write_text("{}", encoding="utf-8")
    text = place.run(place.words(command))
    assert notebook.read_bytes() == before
    assert notebook.name in text


def code_along(place: Place, command: str) -> None:
    """Blank the chapter that the command names."""
    (number,) = re.findall(r"CH=(\d\d)", command)
    (notebook,) = place.root.glob(f"notebooks/{number}_*.ipynb")
    place.run([place.python, "-m", "courseware", "originals"])
    text = place.run(place.words(command))
    assert f"make reset CH={number}" in text
    assert f'NotImplementedError(\\"chapter {int(number)}: write ' in notebook.read_text("utf-8")


def certificate(place: Place, command: str) -> None:
    """Certify somebody who has exported nothing yet, or verify that certificate."""
    place.run([place.python, "-m", "courseware", "originals"])
    text = place.run(place.words("make certificate"))
    assert "Proved again: 0 chapters and 0 exercises." in text
    assert (place.root / "certificate" / "certificate.html").is_file()
    if "--verify" in command:
        assert "It holds" in place.run(place.words(command))


def change_and_export(place: Place, command: str) -> None:
    """Remove the chapter's module: the command must write it again, proved."""
    module = place.root / "minigpt_lib" / "char_tokenizer.py"
    before = module.read_bytes()
    module.unlink()
    place.run(place.words(command))
    assert module.read_bytes() == before


def renew_originals(place: Place, command: str) -> None:
    """Change a chapter: the list is out of step until the command has run."""
    place.run(place.words(command))
    notebook = place.root / "notebooks" / "01_characters.ipynb"
    text = notebook.read_text(encoding="utf-8")
    notebook.write_text(text.replace("smallest", "tiniest", 1), encoding="utf-8")
    text = place.run(place.words(command))
    assert "01_characters" in text
    place.run(place.words(command, "--check"))


def generate(place: Place, command: str) -> None:
    """Delete an exercise notebook: the command must write it again."""
    notebook = place.root / "exercises" / "01_characters.ipynb"
    before = notebook.read_bytes()
    notebook.unlink()
    place.run(place.words(command))
    assert notebook.read_bytes() == before


def to_text(place: Place, command: str) -> None:
    """Write a notebook as text."""
    (place.root / ".course").mkdir()  # set-up makes it
    place.run(place.words(command))
    text = (place.root / shlex.split(command)[-1]).read_text(encoding="utf-8")
    assert "#| export" in text and "# # 1. Characters" in text


def back_to_notebook(place: Place, command: str) -> None:
    """Change a sentence of a notebook as text: nothing else may change on the way back."""
    (convert,) = (c for c in COMMANDS if ROWS[rows_of(c)[0]] is to_text)
    to_text(place, convert)
    script = place.root / shlex.split(convert)[-1]
    notebook = place.root / shlex.split(command)[-1]
    before = notebook.read_text(encoding="utf-8")

    text = script.read_text(encoding="utf-8")
    assert text.count("Shakespeare wrote letters") == 1
    script.write_text(text.replace("wrote letters", "wrote plays"), encoding="utf-8")
    place.run(place.words(command))

    expected = before.replace("Shakespeare wrote letters", "Shakespeare wrote plays")
    assert json.loads(notebook.read_text("utf-8"))["cells"] == json.loads(expected)["cells"]


def clone(place: Place, command: str) -> None:
    """Clone this repository in place of the one on the network, whose address must be the book's."""
    (url,) = re.findall(r"https://\S+", command)
    assert url == yaml.safe_load(read("_config.yml"))["repository"]["url"]
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this checkout has no git repository to clone")
    words = [ROOT.as_uri() if word == url else word for word in shlex.split(command)]
    folder = place.root.parent / "cloned"
    folder.mkdir()
    place.run([*words, url.rpartition("/")[2], "--depth=1", "--quiet"], folder=folder)
    assert (folder / url.rpartition("/")[2] / "Makefile").is_file()


def enter(place: Place, command: str) -> None:
    """The folder has the name that git gives to a clone."""
    url = yaml.safe_load(read("_config.yml"))["repository"]["url"]
    assert command.split() == ["cd", url.rpartition("/")[2]]


def commit_id(place: Place, command: str) -> None:
    """Ask for this checkout's commit."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this checkout has no git repository")
    done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, encoding="utf-8")
    assert re.fullmatch(r"[0-9a-f]{7,}\n", done.stdout), done.stderr


def small_torch(place: Place, command: str) -> None:
    """Make the environment; pip cannot download here, so its words are compared with its help."""
    make, install = (part.strip() for part in command.split("&&"))
    empty = place.root.parent / "empty"
    empty.mkdir()
    place.run([sys.executable, *shlex.split(make)[1:], "--without-pip"], folder=empty)
    assert (empty / ".venv" / "bin" / "python").exists()
    pip, action, package, option, url = shlex.split(install)
    assert (pip, action, package) == (".venv/bin/pip", "install", "torch")
    assert option == "--index-url" and url == "https://download.pytorch.org/whl/cpu"
    if importlib.util.find_spec("pip"):
        assert option in place.run([place.python, "-m", "pip", action, "--help"])


def many_processes(place: Place, command: str) -> None:
    """Train in 2 processes for 8, a tiny model on a local text for the large one on the data set of the hub."""
    from minigpt_lib.distributed import DistributedConfig

    words = place.words(command)
    assert "--preset" in words and "--data" in words
    preset = words[words.index("--preset") + 1]
    assert DistributedConfig.recipe(preset).run.preset == preset

    text = " ".join(f"Line {i} says that {i} times {i} is {i * i}.\n\n" for i in range(4000))
    (place.root / "text.txt").write_text(text, encoding="utf-8")
    words[words.index("--nproc-per-node") + 1] = "2"
    words[words.index("--data") + 1] = "text.txt"
    words[words.index("--preset") + 1] = "laptop"
    small = (
        "--vocab-size 280 --block-size 16 --batch-size 4 --steps 3 --warmup-steps 1 --save-every 0"
    )
    quiet = "--eval-every 0 --sample-every 0 --no-progress --device cpu --precision float32"
    place.until([*words, *small.split(), *quiet.split()], r"3 steps, \d+ tokens")


def pre_commit(place: Place, command: str) -> None:
    """pre-commit itself needs the network for its first run; what it would run locally must succeed."""
    repositories = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    (local,) = (r for r in repositories if r["repo"] == "local")
    for hook in local["hooks"]:
        place.run(place.words(normal(hook["entry"])))


def renew_versions(place: Place, command: str) -> None:
    """Versions and vulnerabilities are looked up on the network: compare what the command reads with what there is."""
    words = shlex.split(command)
    files = [word for word in words if word.startswith("requirements")]
    assert files and all((place.root / name).is_file() for name in files)
    if words[0] == "pipx":
        jobs = load(".github/workflows/test.yml")["jobs"]
        assert command in [step.get("run") for step in jobs["audit"]["steps"]]
        assert "--strict" in words  # without it, what could not be looked up counts as sound
    else:
        assert command in read("requirements-hashed.lock")


ROWS: dict[str, Runner] = {
    # first steps
    r"git clone https://\S+": clone,
    r"cd \S+": enter,
    r"git log -1 --format=%h": commit_id,
    r"make lab": lab,
    r"make help": whole(prints=r"(?m)^lab .*\n(.*\n)*test "),
    r"make (test|check)": dry_run("courseware.setup.testing"),
    r"make setup LOCKED=1": dry_run("--locked"),
    r"(uv pip compile|pipx run pip-audit).*": renew_versions,
    r"make chat": chat_page,
    r"make real": dry_run("--real"),
    r"make course": until(r"reading\s*:?\s+\d+%"),
    r"make book": until(r"reading sources\.\.\."),
    r"make bench": until(r"== benchmarks/ablations\.py\n(.*\n)*\| position \| rope"),
    r"make verify": whole(prints="every module is what its chapter says"),
    r"make progress": whole(prints="01  Characters"),
    r"make certificate": certificate,
    r"python -m courseware certificate --verify certificate/certificate\.json": certificate,
    r"make code-along CH=\d\d": code_along,
    r"make reset CH=\d\d": reset,
    # without make
    r"python courseware/setup/environment\.py": whole(),
    r"python -m courseware\.material\.corpus": whole(prints=r"[\d,]{7,} characters"),
    r"python -m jupyterlab --ServerApp\.root_dir=\. \S+": lab,
    r"python -m courseware\.setup\.testing": until(r"== linter: \d+ s"),
    r"python -m venv .venv && .venv/bin/pip install .*": small_torch,
    # the course's own commands
    r"python -m courseware doctor": whole(prints="This computer is ready|The course may not run"),
    r"python -m courseware\.chat": chat_page,
    r"python -m courseware verify": whole(prints="every module is what its chapter says"),
    r"python -m courseware (export|run) 01": change_and_export,
    r"python -m courseware run solutions/\S+": whole(prints=r"\d+ cells in [\d.]+ s"),
    r"python -m courseware originals": renew_originals,
    r"python -m courseware generate": generate,
    r"python -m courseware\.site build": until(r"reading sources\.\.\."),
    r"python -m minigpt_lib\.terminal": talk,
    r"python -m minigpt_lib\.interop --model smollm2": until(
        "SmolLM2 is not installed|from smollm2"
    ),
    r"\.venv/bin/torchrun --nproc-per-node 8 -m minigpt_lib\.distributed .*": many_processes,
    r"mkdir -p \.course": whole(),
    r"\.venv/bin/jupytext --to py:percent .*": to_text,
    r"\.venv/bin/jupytext --update .*": back_to_notebook,
    r"python -m pytest (--nbval .*)?\S+": whole(prints=r"\[100%\]"),
    r"python -m pytest -m \"not slow and not browser\"": whole(
        *("-k", "citation", "tests/test_documents.py"), prints=r"\[100%\]"
    ),
    r"python tests/operators\.py \d\d": until(r"noticed", "--sample=1", "--no-tests"),
    r"python tests/operators\.py --save": until(r"noticed", "--sample=1", "--no-tests", "07"),
    r"python tests/fuzz\.py": until(r"characters +50 cases", "--cases=50"),
    r"python tests/kills\.py": whole("preparation", "--kills=1", prints="nothing lost"),
    r"pre-commit install": pre_commit,
    # recorded figures
    r"python -m courseware\.runs\.bands record 04_baselines": shrunk(
        _ONE_PROCESS + _LITTLE_TEXT + _SHORT_BASELINE,
        r"seed 9: .*loss(.*\n)+val_loss: [\d.]+ ± [\d.]+",
    ),
    r"python -m courseware\.runs\.bands record 10_training --seeds 8": shrunk(
        _ONE_PROCESS + _LITTLE_TEXT + _SHORT_TRAINING,
        r"seed 7: .*loss(.*\n)+train_loss: [\d.]+ ± [\d.]+",
    ),
    r"python -m courseware\.runs\.course_bands": shrunk(
        _ONE_PROCESS + _TINY_COURSE, r"seed 0: .*choice: facts never asked"
    ),
    r"python benchmarks/ablations\.py": whole(prints=r"\| position \| rope \|"),
    r"python benchmarks/bpe\.py": until(r"ours, pure Python +\d+\.\d+", "--repeat=1"),
    r"python benchmarks/generation\.py": shrunk(
        _SMALL_GPT2, r"bfloat16, ours \| [\d.]+ \|(.*\n)+.*rounds"
    ),
    r"python benchmarks/determinism\.py": until("'same_bits': True", "--quick"),
    r"python benchmarks/finetuning\.py": whole(prints=r"\| bare words \|"),
    r"python benchmarks/people_scaling\.py": whole(prints=r"\| 800 \| 89 \|"),
    r"python benchmarks/pretraining_memory\.py( --only memory)?": whole(
        *("--only=memory", "--sizes", "0.2"), prints=r"\| 0\.2 \|(.*\n)+.*fineweb_44m"
    ),
    r"python benchmarks/pretraining_scaling\.py.*": whole(
        *("--megabytes=0.3", "--rounds=1"), prints=r"\| 2 \|(.*\n)+.*\| 16 \|"
    ),
    r"python benchmarks/gpu\.py": whole(prints="GPU"),
    r"python benchmarks/quantization\.py.*": until(
        r"SmolLM2 is not installed|model loaded|tokens after a prompt", "--repeat=1"
    ),
    r"python benchmarks/questions\.py.*": until(
        r"SmolLM2 is not installed|smollm2: \d+ s", "--limit=2", "--out=out.json"
    ),
    r"python benchmarks/reasoning(_broken|_kinds|_sums|_variants)?\.py.*": until(
        "model of chapter 14|model of `make course`|training its assistant"
    ),
    r"python benchmarks/reasoning_real\.py.*": until(
        r"SmolLM2 is not installed|seed 1: 24 updates"
    ),
    r"python benchmarks/real_model\.py.*": until(
        r"SmolLM2 is not installed|loading: ", "--repeat=1"
    ),
    r"python benchmarks/scaling\.py": shrunk(
        _FEW_SIZES,
        r"Training the laptop preset(.*\n)+.*GFLOP/s.*\n.*rounds",
    ),
    r"python benchmarks/scaling_law\.py": until(r"'n_layer': 3.*'loss': \d", "--out=out.json"),
    r"python benchmarks/training\.py": whole(prints="give --nanogpt FOLDER and --text FILE"),
}


def rows_of(command: str) -> list[str]:
    return [pattern for pattern in ROWS if re.fullmatch(pattern, command)]


# ---------------------------------------------------------------- tests of the commands


def test_the_collector_finds_commands_in_blocks_tables_and_prose():
    text = """
Run `make lab`, or `.venv\\Scripts\\python -m x` on Windows. `make` alone, `export("01")` and `a / b` are none.

| do | `make reset CH=01` |

1. In a list:

   ```bash
   # a comment
   $ git clone https://example.org/x
   pytest -q  # tests
   ```

```python
make(1)
```

```{table} Title
| `python benchmarks/x.py` | <code>uv sync --dev</code> |
```
"""
    assert commands_in(text) == [
        "git clone https://example.org/x",
        "pytest -q",
        "make lab",
        ".venv\\Scripts\\python -m x",
        "make reset CH=01",
        "python benchmarks/x.py",
        "uv sync --dev",
    ]
    assert normal("py -3.13 a.py") == normal(".venv\\Scripts\\python  a.py") == "python a.py"
    assert normal(".venv/bin/python -m courseware run NN") == "python -m courseware run 01"


def test_every_command_has_one_row_and_every_row_a_command():
    strangers = {command: name for command, name in COMMANDS.items() if len(rows_of(command)) != 1}
    assert not strangers, "add a row to ROWS that runs it"
    unused = [row for row in ROWS if not any(re.fullmatch(row, command) for command in COMMANDS)]
    assert not unused, "no document names these commands any more"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_looks_like_a_command_was_collected(name):
    found = commands_in(read(name))
    for code in inline_code(read(name)):
        has_options = re.search(r"\S\s+(-m|--?[a-z][\w-]*)(\s|=|$)", code)
        assert code in found or not has_options, f"`{code}`: is its program missing in _PROGRAMS?"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the commands are those of a POSIX shell")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs(command, place):
    if command.startswith("make") and shutil.which("make") is None:
        pytest.skip("make is not installed")
    (row,) = rows_of(command)
    ROWS[row](place, command)


def test_the_targets_that_the_readme_lists_exist():
    (text,) = re.findall(r"`make help` lists the other\s+targets: ([^.]+)\.", read("README.md"))
    targets = set(re.findall(r"^([a-z-]+):.*##", read("Makefile"), re.M))
    listed = set(re.findall(r"`([\w-]+)`", text))
    assert listed == targets - {"help", "lab", "test"}


# ---------------------------------------------------------------- links and paths

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"\.?[\w-]+(/[\w.*-]+)*/?")
_MADE = (
    ".venv/*",
    ".course/*",
    "certificate/*",
    "data/*",
    "runs/*",
    "_build/*",
)  # not in the repository
_EXAMPLES = ("config.json", "model.safetensors", ".metadata")  # files of a saved model


def links_of(name: str) -> list[str]:
    text = _FENCE.sub("", read(name))
    return [target for target in _LINK.findall(text) if not target.startswith(("http", "mailto"))]


def headings_of(path: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings, as GitHub and MyST make them."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("name", [*GUIDES, *BOOK])
def test_every_relative_link_leads_somewhere(name):
    for target in links_of(name):
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in headings_of(path), f"{name} links to {target}"


@pytest.mark.parametrize("page", BOOK)
def test_every_card_and_figure_of_a_page_exists(page):
    text = read(page)
    for target in re.findall(r"^:link: (\S+)$", text, re.M):
        assert list((ROOT / "book").glob(f"{target}.*")), f"{page} links to {target}"
    for target in re.findall(r"^:file: (\S+)$", text, re.M):
        assert (ROOT / "book" / target).is_file(), f"{page} shows {target}"


def paths_of(name: str) -> set[str]:
    """Return what looks like a file or folder of this repository in the code of a document."""
    lines, _ = split_document(read(name))
    words = {
        word.strip("'\"") for code in [*lines, *inline_code(read(name))] for word in code.split()
    }
    ending = re.compile(r"\.(py|ipynb|md|json|ya?ml|cff|lock|txt|toml|cfg)$")
    found = {
        word for word in words if _PATH.fullmatch(word) and ("/" in word or ending.search(word))
    }
    return {word for word in found if not any(fnmatch(word, made) for made in _MADE)}


@pytest.mark.parametrize("name", [*GUIDES, *BOOK])
def test_every_path_exists(name):
    for word in paths_of(name) - set(_EXAMPLES):
        pattern = word.rstrip("/").replace("NN_topic", "[0-9][0-9]_*")
        places = (ROOT, (ROOT / name).parent)
        assert any(list(folder.glob(pattern)) for folder in places), f"{name} names {word}"


def test_the_drawn_house_has_the_rooms_that_exist():
    text = read("book/figures/house.html")
    wide, narrow = text.split('<svg class="narrow"')
    rooms = {path.parent.name for path in (ROOT / "courseware").glob("*/__init__.py")}
    for drawing in (wide, narrow):
        drawn = re.findall(r'<text class="name"[^>]*>([^<]+)<', drawing)
        below = set(drawn) - {"notebooks", "book", "tests", "benchmarks", "What you open"}
        assert below - {"courseware", "minigpt_lib"} == rooms
        modules = re.findall(r'<text class="mono"[^>]*>(\w+)<', drawing)
        assert modules[0] == "char_tokenizer" and modules[-1] == "assistant"
        for module in modules:
            assert (ROOT / "minigpt_lib" / f"{module}.py").is_file()
    for room in rooms:
        assert f"`{room}`" in read("book/the-house.md")


@pytest.mark.parametrize("figure", sorted(p.name for p in (ROOT / "book/figures").glob("*.html")))
def test_a_drawn_figure_is_described_and_has_no_script(figure):
    text = read(f"book/figures/{figure}")
    for svg in re.findall(r"<svg[^>]*>", text):
        assert 'role="img"' in svg and re.search(r'aria-label="[^"]{80,}"', svg)
    assert "<script" not in text and not re.search(r"\son\w+=", text) and "http" not in text
    assert int(re.search(r'class="narrow" viewBox="0 0 (\d+)', text)[1]) <= 344
    for file in re.findall(r">(export/\w+\.py)<", text):
        assert (ROOT / "courseware" / file).is_file()


# ---------------------------------------------------------------- the files that other programs read


def load(name: str) -> dict:
    return yaml.safe_load(read(name))


def test_the_citation_is_valid_and_of_this_version():
    citation = load("CITATION.cff")
    version = re.search(r'^version = "(.+)"', read("pyproject.toml"), re.M)[1]
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["authors"] == [{"name": "The authors of MiniGPT from scratch"}]
    assert citation["version"] == version
    assert citation["license"] == "MIT" and "MIT License" in read("LICENSE")
    assert citation["url"] == load("_config.yml")["repository"]["url"]
    assert {"message", "title", "abstract", "date-released"} <= citation.keys()
    assert f"## [{version}] - {citation['date-released']}" in read("CHANGELOG.md")


def test_the_changelog_has_the_form_of_keep_a_changelog():
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## (.+)$", text, re.M)
    assert versions[0] == "[Unreleased]"
    for version in versions[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds


def test_dependabot_groups_what_it_updates_once_a_month():
    config = load(".github/dependabot.yml")
    assert config["version"] == 2
    assert {update["package-ecosystem"] for update in config["updates"]} == {
        "pip",
        "github-actions",
    }
    for update in config["updates"]:
        assert update["directory"] == "/" and update["schedule"] == {"interval": "monthly"}
        assert all(group["patterns"] == ["*"] for group in update["groups"].values())


def test_pre_commit_uses_the_ruff_of_the_lock():
    repositories = {r["repo"]: r for r in load(".pre-commit-config.yaml")["repos"]}
    ruff = repositories["https://github.com/astral-sh/ruff-pre-commit"]
    locked = re.search(r"^ruff==(.+)$", read("requirements.lock"), re.M)[1]
    assert ruff["rev"] == f"v{locked}"
    assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]
    for hook in repositories["local"]["hooks"]:
        assert {"id", "name", "entry", "language", "files"} <= hook.keys()
        assert hook["pass_filenames"] is False
        assert rows_of(normal(hook["entry"].removesuffix(" --check"))), "no test runs it"


@pytest.mark.parametrize("form", [form for form in FORMS if not form.endswith("config.yml")])
def test_an_issue_form_is_one_that_github_takes(form):
    content = load(form)
    assert {"name", "description", "body"} <= content.keys()
    kinds = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    assert {item["type"] for item in content["body"]} <= kinds
    names = [item["id"] for item in content["body"]]
    assert len(names) == len(set(names))
    for item in content["body"]:
        assert item["attributes"]["label"]
        assert isinstance(item["validations"]["required"], bool)


def test_the_templates_ask_for_what_we_need():
    forms = {Path(form).stem: read(form) for form in FORMS}
    assert forms.keys() == {"bug", "page", "run", "config"}
    for name in ("bug", "run"):
        assert "python -m courseware doctor" in forms[name]
    (link,) = load(".github/ISSUE_TEMPLATE/config.yml")["contact_links"]
    assert link["url"] in read("SECURITY.md")
    assert read(".github/PULL_REQUEST_TEMPLATE.md").count("- [ ] ") >= 5


def test_ci_runs_what_the_documents_say():
    workflow = load(".github/workflows/test.yml")
    jobs = workflow["jobs"]
    commands = {name: [s["run"] for s in job["steps"] if "run" in s] for name, job in jobs.items()}
    assert "pip-audit" in commands["audit"][-1]
    assert commands["check"][-1] == "make check" and commands["test"][-1] == "make test"
    assert jobs["test"]["needs"] == "check"
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert workflow["permissions"] == {"contents": "read"}


def test_every_address_of_the_repository_is_that_of_the_book():
    url = load("_config.yml")["repository"]["url"]
    for name in (*DOCUMENTS, "CITATION.cff"):
        for found in re.findall(r"https://github\.com/[\w.-]+/minigpt-from-scratch", read(name)):
            assert found == url, name


def test_text_has_the_same_line_ends_everywhere():
    lines = read(".gitattributes").splitlines()
    assert "* text=auto eol=lf" in lines and "*.ipynb text eol=lf" in lines
    for name in DOCUMENTS:
        assert b"\r" not in (ROOT / name).read_bytes()


# ---------------------------------------------------------------- what the documents promise


def test_an_assistant_in_the_exercises_tutors_and_never_hands_out_an_answer():
    text = read("exercises/AGENTS.md")
    assert "**Never hand out an answer**" in text
    for word in (
        'check("name", fn)',
        'hint("name")',
        'solution("name")',
        "solutions/",
        "diagnosis",
    ):
        assert word in text
    for name in ("README.md", "AGENTS.md"):
        assert "exercises/AGENTS.md" in read(name)
    assert "never to hand out an\nanswer" in read("README.md")


def test_the_rules_for_assistants_forbid_what_would_spoil_the_course():
    text = read("AGENTS.md").partition("## Never")[2]
    for words in ("edit a generated file", "loosen a check", "a figure that nobody measured"):
        assert words in text
    for words in ("data from the internet", "paired files", "into `exercises/`"):
        assert words in text


@pytest.mark.slow
def test_files_are_read_as_the_security_page_says():
    found = []
    for path in [*ROOT.glob("minigpt_lib/*.py"), *ROOT.glob("courseware/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if _runs_code(node):
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    # PyTorch's sharded checkpoints have an index that is a pickle; SECURITY.md says so.
    assert [line.partition(":")[0] for line in found if "dcp.load" in line] == ["distributed.py"]
    assert not [line for line in found if "dcp.load" not in line]
    assert "`torch.distributed.checkpoint`" in read("SECURITY.md")


def _runs_code(node: ast.AST) -> bool:
    """Return whether a statement could execute what a file contains."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
        return bool({"pickle", "dill", "joblib", "marshal", "shelve"} & set(names))
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    options = {option.arg: ast.unparse(option.value) for option in node.keywords}
    unsafe = name in ("yaml.load", "yaml.unsafe_load", "dcp.load") or "trust_remote_code" in options
    return unsafe or (name == "torch.load" and options.get("weights_only") != "True")
