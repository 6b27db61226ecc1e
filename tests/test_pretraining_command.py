"""Chapter 13: the command explains its options, goes on where it stopped, and reports a mistake in one line."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow
import pytest
from pretraining_texts import SMALL, fineweb, needs_fork, same_files, words
from pyarrow import parquet
from tools import help_of

from courseware import paths
from minigpt_lib import pretraining
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.distributed import DistributedConfig
from minigpt_lib.documents import END, DataConfig, prepare, read_manifest
from minigpt_lib.model import MiniGPT
from minigpt_lib.pretraining import PretrainConfig
from minigpt_lib.training import TrainConfig

COMMAND = ["-m", "minigpt_lib.pretraining"]
ON_TWO_PROCESSES = [
    *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    *["-m", "minigpt_lib.distributed"],
]


def hear_ctrl_c():
    """Undo what a child would inherit from a parent that ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(*arguments, module=COMMAND, **environment):
    """Run the command in a process of its own; return the finished process."""
    usual = {"PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *module, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        env={**os.environ, **usual, **environment},
        preexec_fn=hear_ctrl_c if os.name == "posix" else None,
    )


# ---------------------------------------------------------------- runs

SETTINGS = (PretrainConfig, DataConfig, TrainConfig)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "kinds"),
    [("pretraining", SETTINGS), ("distributed", (*SETTINGS, DistributedConfig))],
)
def test_help_explains_every_option(module, kinds):
    of_module = ["-m", f"minigpt_lib.{module}"]

    done = command("--preset", "gpt2_124m", "--help", module=of_module, COLUMNS="300")

    assert done.returncode == 0, done.stderr
    text = re.sub(r"[│╭╮╰╯─]", " ", done.stdout)
    options = re.findall(r"--[a-z-]+", text.split("defaults below", 1)[1])
    fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    for name in fields - {"tokens", "train", "run"}:
        option = f"--{name.replace('_', '-')}"
        assert option in options, name
        line = re.search(rf"\n\s*{option}[ ,].*?\(default: ", text, re.DOTALL)[0]
        explanation = re.sub(r"--\S+|\b[A-Z]{3,}\b|\{.*?\}|\(default.*", "", line)
        assert len(explanation.split()) >= 2, line
    assert "(default: 19000)" in text
    assert "(default: gpt2)" in text


@pytest.mark.slow
def test_the_same_command_goes_on_and_a_different_one_is_refused(tmp_path):
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(words(12)):
        (tmp_path / "texts" / f"{i:02d}.txt").write_text(text * 3, encoding="utf-8")
    arguments = [
        *["--data", tmp_path / "texts", "--folder", tmp_path / "run"],
        *["--vocab-size", 280, "--val-fraction", 0.4],
        *["--steps", 4, "--warmup-steps", 1, "--block-size", 16, "--save-every", 2],
        "--no-progress",
    ]

    first = command(*arguments)
    second = command(*arguments)
    other = command(*arguments, "--vocab-size", 290)

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "from step 0 to 4" in first.stdout
    assert "from step 4 to 4" in second.stdout
    assert first.stdout.splitlines()[1:] == second.stdout.splitlines()[1:]

    # The code in the report works.
    code = re.findall(r"MiniGPT.from_pretrained\(.*\)|BPETokenizer.load\(.*\)", first.stdout)
    names = {"MiniGPT": MiniGPT, "BPETokenizer": BPETokenizer}
    model, tokenizer = (eval(line, names) for line in code)
    assert model.config.vocab_size == tokenizer.vocab_size

    assert other.returncode == 1
    assert "vocab_size is 280 there and 290 here" in other.stderr
    assert "Traceback" not in other.stderr


def history_of(folder):
    """Return the records of a run."""
    lines = (folder / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_two_processes_under_torchrun_have_the_losses_of_one(tmp_path):
    source = fineweb(tmp_path / "text", words(60))
    arguments = [
        *["--data", source, "--vocab-size", 280, "--val-fraction", 0.2],
        *["--precision", "float32", "--device", "cpu"],
        *["--steps", 4, "--warmup-steps", 1, "--block-size", 16, "--batch-size", 8],
        *["--eval-every", 2, "--eval-tokens", 300, "--sample-every", 0, "--save-every", 4],
        "--no-progress",
    ]

    alone = command(*arguments, "--folder", tmp_path / "one")
    both = command(*arguments, "--folder", tmp_path / "two", module=ON_TWO_PROCESSES)

    assert alone.returncode == both.returncode == 0, alone.stderr + both.stderr
    one = history_of(tmp_path / "one")
    two = history_of(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-5)
    assert one[-1]["val_loss"] == pytest.approx(two[-1]["val_loss"], abs=2e-5)
    assert same_files(tmp_path / "one" / "data", tmp_path / "two" / "data")


STOPPED = "stopped: the same command goes on with the preparation of the text.\n"


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("ctrl_c", [signal.SIG_DFL, signal.SIG_IGN], ids=["usual", "ignored"])
def test_ctrl_c_with_several_processes_is_reported_in_one_line(tmp_path, ctrl_c):
    (tmp_path / "a.txt").write_text("\n\n".join(words(12_000, seed=3)), encoding="utf-8")
    arguments = [
        *["--data", tmp_path / "a.txt", "--folder", tmp_path, "--vocab-size", 280],
        *["--num-proc", 2, "--shard-chars", 400_000, "--prepare-only", "--no-progress"],
    ]
    child = subprocess.Popen(
        [sys.executable, *COMMAND, *map(str, arguments)],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(paths.ROOT)},
        start_new_session=True,
        # A shell script that starts the command with `command &` leaves SIG_IGN.
        preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),
    )

    while not list(tmp_path.glob("data/train-*")) and child.poll() is None:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to all of them

    assert child.communicate(timeout=60)[1] == STOPPED
    assert child.returncode == 130
    assert not read_manifest(tmp_path / "data")["finished"]


# ---------------------------------------------------------------- mistakes

LIMIT = ["--max-documents", 40]


def save_columns(path, **columns):
    parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def with_a_foreign_manifest(home, content="{}"):
    (home / "data").mkdir()
    (home / "data" / "manifest.json").write_text(content, encoding="utf-8")
    return LIMIT


def with_a_list_as_manifest(home):
    return with_a_foreign_manifest(home, "[]")


def with_a_tokenizer_without_end(home):
    source = save_columns(home / "x.parquet", text=words(30))
    prepare(source, home / "data", SMALL, progress=False)
    path = home / "data" / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(END, "<other>"), encoding="utf-8")

    settings = ["--vocab-size", 300, "--tokenizer-chars", 5000, "--shard-chars", 4000]
    return ["--data", source, *settings, "--val-fraction", 0.2]


def with_scores_as_text(home):
    source = save_columns(home / "x.parquet", text=["a", "b"], score=["3.5", "4"])
    return [*LIMIT, "--data", source, "--min-score", 2]


def without_a_source(home):
    return [*LIMIT, "--data", ""]


def with_a_file_in_place_of_the_folder(home):
    (home / "data").write_text("mine", encoding="utf-8")
    return LIMIT


def with_an_unknown_device(home):
    return [*LIMIT, "--device", "gpu"]


def with_a_gpu_that_is_not_there(home):
    return [*LIMIT, "--device", "cuda:99"]


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (with_a_foreign_manifest, "manifest.json is damaged, or is not ours"),
        (with_a_list_as_manifest, "manifest.json is damaged, or is not ours"),
        (with_a_tokenizer_without_end, "tokenizer.json has no token <|endoftext|>"),
        (with_scores_as_text, "x.parquet, row 1: score is '3.5', expected a number"),
        (without_a_source, "the source is empty"),
        (with_a_file_in_place_of_the_folder, "data cannot be written"),
        (with_an_unknown_device, "device='gpu': expected auto, or a device of this machine: cpu"),
        (with_a_gpu_that_is_not_there, "device='cuda:99': expected auto, or a device of this"),
    ],
)
def test_the_command_reports_a_mistake_in_one_line(tmp_path, arrange, said):
    arguments = ["--folder", tmp_path, "--no-progress", "--num-proc", 1, *arrange(tmp_path)]

    with pytest.raises(SystemExit) as stopped:
        pretraining.main([str(argument) for argument in arguments])

    assert isinstance(stopped.value.code, str)
    assert said in stopped.value.code
    assert re.match(r"\w+: ", stopped.value.code), "it begins with the kind of error"


def test_a_folder_that_is_a_file_is_reported_without_advice_about_space(tmp_path):
    (tmp_path / "run").write_text("mine", encoding="utf-8")

    with pytest.raises(SystemExit) as stopped:
        pretraining.main(["--folder", str(tmp_path / "run"), "--no-progress"])

    assert "run cannot be written" in stopped.value.code
    assert "a file is in the place of a folder" in stopped.value.code
    assert "space" not in stopped.value.code


# ---------------------------------------------------------------- small runs, longer runs


def options_of(tmp_path):
    """Return the options of a run that takes a second, on a text of some kilobytes."""
    (tmp_path / "a.txt").write_text("\n\n".join(words(40, seed=5)), encoding="utf-8")
    arguments = [
        *["--data", tmp_path / "a.txt", "--folder", tmp_path / "run", "--num-proc", 1],
        *["--vocab-size", 280, "--batch-size", 2, "--block-size", 16, "--eval-every", 0],
        *["--sample-every", 0, "--save-every", 0, "--device", "cpu", "--precision", "float32"],
        "--no-progress",
    ]
    return [str(argument) for argument in arguments]


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["4", "20", "60"])
def test_the_warm_up_fits_a_short_run(tmp_path, steps, capsys):
    pretraining.main([*options_of(tmp_path), "--steps", steps])

    assert f"from step 0 to {steps}" in capsys.readouterr().out
    rates = [record["lr"] for record in history_of(tmp_path / "run")]
    assert max(rates[: int(steps) // 10 + 1]) == max(rates) == 2.5e-3


@pytest.mark.slow
def test_a_run_can_be_made_longer_and_says_what_follows(tmp_path, capsys):
    pretraining.main([*options_of(tmp_path), "--steps", "60", "--save-every", "60"])
    pretraining.main([*options_of(tmp_path), "--steps", "80", "--save-every", "60"])

    said = capsys.readouterr()
    assert "from step 60 to 80" in said.out
    assert "planned for 60 steps and now for 80" in said.err
    assert "keeps its warm-up of 6 steps" in said.err
    assert "the learning rate jumps up" in said.err
    rates = [record["lr"] for record in history_of(tmp_path / "run")]
    assert len(rates) == 80
    assert rates[60] > 2 * rates[59], "the rate jumps up, as it says"
    assert rates[79] < rates[60]

    with pytest.raises(SystemExit, match="has made 80 steps already"):
        pretraining.main([*options_of(tmp_path), "--steps", "70"])


def test_an_interrupted_run_can_be_made_longer(monkeypatch, tmp_path, capsys):
    assert interrupted_run(monkeypatch, tmp_path, press_at(3)) == 130

    pretraining.main([*options_of(tmp_path), "--steps", "12"])

    assert "from step 3 to 12" in capsys.readouterr().out


def test_a_run_that_is_made_shorter_says_that_its_rate_falls_faster(monkeypatch, tmp_path, capsys):
    assert interrupted_run(monkeypatch, tmp_path, press_at(3)) == 130

    pretraining.main([*options_of(tmp_path), "--steps", "6"])

    assert "the learning rate falls faster" in capsys.readouterr().err


def test_a_warm_up_that_is_asked_for_is_not_changed(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        pretraining.main([*options_of(tmp_path), "--steps=5", "--warmup_steps=9"])

    assert stopped.value.code == 2  # refused by the settings themselves


def test_chars_per_token_is_measured_unless_it_is_given(tmp_path):
    for extra, folder in (([], "a"), (["--chars-per-token", "2.0"], "b")):
        arguments = [*options_of(tmp_path), "--steps", "2", "--eval-every", "1", *extra]
        pretraining.main([*arguments, "--folder", str(tmp_path / folder)])
    one, two = (history_of(tmp_path / folder)[-1] for folder in ("a", "b"))

    assert one["val_loss"] == two["val_loss"]
    assert two["bits_per_char"] == pytest.approx(two["val_loss"] / math.log(2) / 2.0)
    assert one["bits_per_char"] != two["bits_per_char"]


# ---------------------------------------------------------------- Ctrl-C


@pytest.mark.slow
def test_ctrl_c_during_the_imports_ends_in_one_line(tmp_path):
    """The module `datasets` stands for any import: there Ctrl-C is pressed."""
    pressed = "import signal\nsignal.raise_signal(signal.SIGINT)\n"
    (tmp_path / "datasets.py").write_text(pressed, encoding="utf-8")

    stopped = command("--help", PYTHONPATH=f"{tmp_path}{os.pathsep}{paths.ROOT}")

    assert stopped.stderr == "stopped.\n"
    assert stopped.returncode == -signal.SIGINT, "which a shell calls 130"


def press_at(step, times=1):
    """Return a callback for a run that presses Ctrl-C at a step."""

    def on_step(record):
        if record["step"] == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return on_step


def interrupted_run(monkeypatch, tmp_path, on_step, *arguments):
    """Run the command with a callback, and return its exit status."""
    usual = pretraining.pretrain
    monkeypatch.setattr(pretraining, "pretrain", lambda settings: usual(settings, on_step))
    with pytest.raises(SystemExit) as stopped:
        pretraining.main([*options_of(tmp_path), "--steps", "9", *arguments])
    monkeypatch.setattr(pretraining, "pretrain", usual)
    return stopped.value.code


def test_an_interrupted_training_is_saved_and_ends_with_status_130(monkeypatch, tmp_path, capsys):
    assert interrupted_run(monkeypatch, tmp_path, press_at(3)) == 130
    assert "stopped after step 3, as asked, and saved" in capsys.readouterr().out

    pretraining.main([*options_of(tmp_path), "--steps", "9"])
    assert "from step 3 to 9" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says", "goes_on"),
    [
        (
            [],
            "stopped: no step was saved, so the same command trains from step 0",
            "from step 0 to 9",
        ),
        (
            ["--save-every", "2"],
            "stopped: the same command goes on from step 2",
            "from step 2 to 9",
        ),
    ],
    ids=["nothing saved", "saved before"],
)
def test_a_second_ctrl_c_says_what_was_saved(
    monkeypatch, tmp_path, capsys, arguments, says, goes_on
):
    assert interrupted_run(monkeypatch, tmp_path, press_at(3, times=2), *arguments) == 130
    assert says in capsys.readouterr().err

    pretraining.main([*options_of(tmp_path), "--steps", "9", *arguments])
    assert goes_on in capsys.readouterr().out


# ---------------------------------------------------------------- help


def test_the_help_is_made_of_phrases_and_names_no_docstring(capsys):
    with pytest.raises(SystemExit):
        pretraining.main(["--help"])
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())

    assert "ValueError" not in text
    assert re.search(r"How documents become tokens\.\W+tokenizer", text)
    assert re.search(r"How the model is trained\.\W+steps", text)
    explanations = re.findall(r"--[a-z-]+ (?:[A-Z{][\w{},|]* )*([a-z].*?) \(default", text)
    assert len(explanations) > 25
    assert not [phrase for phrase in explanations if phrase.startswith(("or ", "and ", "of "))]


def test_gpt2_has_more_rows_than_ids_and_every_other_vocabulary_its_own():
    config = pretraining._model_config("gpt2_124m", 50257, 512)
    assert (config.vocab_size, config.max_seq_len) == (50304, 512)

    assert pretraining._model_config("gpt2_124m", 100_277, 512).vocab_size == 100_277
    assert pretraining._model_config("laptop", 4096, 64).vocab_size == 4096


def test_the_module_is_a_program():
    assert help_of("minigpt_lib.pretraining").startswith(
        "usage: python -m minigpt_lib.pretraining "
    )
