"""`make course`: the whole way unattended, from an untrained tokenizer to an assistant that answers, with a report.

Each stage leaves its result in data/models/course, so an interrupted course resumes where it was. At the end every
figure is compared with its band, recorded from several seeds by courseware/runs/course_bands.py; if a figure lies
outside, the command ends with status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import io
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tqdm.auto import tqdm

from courseware import paths
from courseware.material import people
from courseware.runs import bands
from courseware.runs.exam import ask_model, converse, measure, measure_thinking
from courseware.runs.examples import write_examples
from courseware.runs.recipe import FULL, QUICK, Material, Recipe, material, new_model
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.checkpoints import locked
from minigpt_lib.model import MiniGPT
from minigpt_lib.preferences import PreferenceDataset, make_pairs, sample_answers, train_dpo
from minigpt_lib.reasoning import Question, train_grpo
from minigpt_lib.sft import InstructionDataset, resize_embedding, train_sft
from minigpt_lib.training import TrainConfig, Trainer

OnStep = Callable[[dict[str, Any]], None]  # is given each record of a Trainer
T = TypeVar("T")

FOLDER = paths.ROOT / "data" / "models" / "course"
THOUGHT = 24  # tokens of an answer that is rewarded
SAMPLES = 6  # answers to each prompt, among which DPO finds a better and a worse one
ROUGH = 0.02  # a share is never known better than this, however well the seeds agree
SHARES: dict[str, float] = {  # of the time that each stage takes, for the progress bar
    "tokenizer and texts": 1,
    "reading": 66,
    "learning to answer": 18,
    "measuring": 4,
    "preferring": 7,
    "measuring again": 4,
    "showing steps": 1,
    "rewarding": 10,
    "measuring a third time": 1,
}


# --- the trainings ---


def _pass_on_interrupt(run: Trainer) -> None:
    """Raise KeyboardInterrupt if Ctrl-C ended a run, or came in its last step: the Trainer has saved and returned."""
    if run.stop_asked:
        raise KeyboardInterrupt


def pretrain(
    stuff: Material, folder: Path, seed: int = 0, on_step: OnStep | None = None
) -> MiniGPT:
    """Return the model after it has read everything; resumes the run in the folder if there is one."""
    config = dataclasses.replace(stuff.recipe.reading, seed=seed, save_every=500)
    model = new_model(stuff.tokenizer, stuff.recipe, seed)
    run = Trainer(model, config, stuff.tokens, folder=folder, existing="resume", on_step=on_step)
    run.train()
    _pass_on_interrupt(run)
    return model


def finetune(
    model: MiniGPT,
    chat: ChatTokenizer,
    stuff: Material,
    folder: Path,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> MiniGPT:
    """Return a copy of the model with rows for the control tokens, after it has learned to answer."""
    config = dataclasses.replace(stuff.recipe.answering, seed=seed, save_every=100)
    model = resize_embedding(model, chat.vocab_size)
    return _imitate(model, chat, stuff.dialogs, config, folder, on_step)


def _imitate(
    model: MiniGPT,
    chat: ChatTokenizer,
    dialogs: Sequence[people.Dialog],
    config: TrainConfig,
    folder: Path,
    on_step: OnStep | None,
) -> MiniGPT:
    """Return the model, trained in place on the answers of dialogs."""
    data = InstructionDataset(dialogs, chat, config.block_size)
    _pass_on_interrupt(
        train_sft(model, config, data, folder=folder, existing="resume", on_step=on_step)
    )
    return model


def prefer(
    model: MiniGPT,
    chat: ChatTokenizer,
    stuff: Material,
    folder: Path,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> MiniGPT:
    """Return the model after DPO on pairs of its own answers, where right and short answers are preferred."""
    recipe = stuff.recipe
    reference = copy.deepcopy(model)
    config = dataclasses.replace(recipe.preferring, seed=seed, save_every=recipe.preferring.steps)
    pairs = _preference_pairs(model, chat, stuff, seed)
    data = PreferenceDataset(pairs, chat, config.block_size)
    options: dict[str, Any] = {"folder": folder, "existing": "resume", "on_step": on_step}
    _pass_on_interrupt(train_dpo(model, reference, config, data, beta=recipe.beta, **options))
    return model


def _preference_pairs(
    model: MiniGPT, chat: ChatTokenizer, stuff: Material, seed: int
) -> list[dict[str, Any]]:
    """Let the model answer, and return pairs of a better and a worse answer to the same prompt."""
    wanted = people.short_answers(stuff.asked, stuff.recipe.prompts, seed)
    wanted += people.other_answers(stuff.asked, seed)
    prompts = [prompt for prompt, _ in wanted]

    answers = sample_answers(model, chat, prompts, SAMPLES, seed=seed)
    for (_, sentence), texts in zip(wanted, answers):
        if sentence == people.UNKNOWN:  # the model hardly ever says it by itself
            texts.append(sentence)

    # By identity: a prompt is a list and cannot be a key, and make_pairs passes on the same object.
    sentences = {id(prompt): sentence for prompt, sentence in wanted}

    def judge(prompt: Sequence[dict[str, str]], answer: str) -> int:
        return people.grade(answer, sentences[id(prompt)])

    pairs, _ = make_pairs(model, chat, prompts, judge, answers=answers)
    return pairs


def show_steps(
    model: MiniGPT,
    chat: ChatTokenizer,
    stuff: Material,
    folder: Path,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> MiniGPT:
    """Return the model after a few answers to two-step questions, some of which show their step."""
    recipe = stuff.recipe
    config = dataclasses.replace(recipe.showing, seed=seed, save_every=recipe.showing.steps)
    dialogs = people.two_step_dialogs(stuff.asked, recipe.two_steps, recipe.shown, seed)
    return _imitate(model, chat, dialogs, config, folder, on_step)


def reward(
    model: MiniGPT,
    chat: ChatTokenizer,
    stuff: Material,
    folder: Path,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> MiniGPT:
    """Return the model after GRPO on two-step questions, where an answer that ends with the right city is rewarded."""
    config = dataclasses.replace(stuff.recipe.rewarding, seed=seed, save_every=10)
    practised, _ = _halves(stuff)
    questions = two_step_questions(practised, seed)
    options: dict[str, Any] = {"folder": folder, "existing": "resume", "on_step": on_step}
    _pass_on_interrupt(
        train_grpo(model, chat, config, questions, max_new_tokens=THOUGHT, **options)
    )
    return model


def two_step_questions(persons: Sequence[people.Person], seed: int) -> list[Question]:
    """Return a two-step question about each person, in random wording."""
    chance = random.Random(seed)
    return [
        Question([{"role": "user", "content": people.ask(p, "seat", chance)}], p.value("seat"))
        for p in persons
    ]


def _halves(stuff: Material) -> tuple[Sequence[people.Person], Sequence[people.Person]]:
    """Return the people about whom no dialog asks: those of the rewarded questions, and those of the test."""
    half = len(stuff.held_out) // 2
    return stuff.held_out[:half], stuff.held_out[half:]


def save_assistant(
    folder: Path, model: MiniGPT, chat: ChatTokenizer, persons: Sequence[people.Person] = ()
) -> None:
    """Write a model and its tokenizer as demo.assistant and chapter 16's command read them.

    persons: people whom it knows; questions about some of them are stored as examples.
    """
    model.save_pretrained(folder)
    chat.base.save(folder / "tokenizer.json")
    if persons:
        write_examples(folder, model, chat, persons)


# --- progress and time ---


class _Stages:
    """One progress bar for the whole course; shares: how much of the time each stage takes, by its name."""

    def __init__(self, shares: dict[str, float], show: bool) -> None:
        self.shares = shares
        self.done = 0.0
        self.bar = tqdm(
            total=round(sum(shares.values())),
            mininterval=0.5,
            disable=not show,
            bar_format="{desc:<34} {percentage:3.0f}%|{bar}| {elapsed}",
        )

    def __enter__(self) -> _Stages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Show a stage while it runs; yields a function to call with the part that is done, from 0 to 1."""
        start = self.done
        share = self.shares[name]
        self.bar.set_description_str(name)

        def reached(part: float) -> None:
            self.bar.update(start + share * part - self.bar.n)

        yield reached
        self.done = start + share
        reached(1.0)


class _Clock:
    """Run stages and add up their `seconds`, in a file from which an interrupted course continues.

    `losses` has the mean of the last losses of each stage that trains.
    """

    def __init__(self, stages: _Stages, file: Path) -> None:
        self.stages = stages
        self.file = file
        self.losses: dict[str, float] = {}
        self.seconds: dict[str, float] = _read_json(file) if file.is_file() else {}
        if not all(isinstance(value, (int, float)) for value in self.seconds.values()):
            raise ValueError(f"{file} is damaged: delete it, and run the course again.")

    def __call__(self, name: str, do: Callable[..., T], steps: int = 1) -> T:
        """Return what do(on_step=...) returns; its time counts even if it is interrupted."""
        began = time.perf_counter()
        before = self.seconds.get(name, 0.0)
        try:
            with self.stages.stage(name) as reached, contextlib.redirect_stdout(io.StringIO()):
                return do(on_step=lambda record: reached(record["step"] / steps))
        finally:
            self.seconds[name] = before + time.perf_counter() - began
            paths.write_atomic(self.file, json.dumps(self.seconds, indent=1))

    def train(
        self, name: str, do: Callable[..., MiniGPT], folder: Path, seed: int, steps: int
    ) -> MiniGPT:
        """Return the model of a stage that trains in a folder; look at once whether its losses were saved there."""
        model = self(name, functools.partial(do, folder, seed), steps)
        last = read_history(folder)[-20:]
        self.losses[f"loss: {folder.name}"] = statistics.fmean(record["loss"] for record in last)
        return model


# --- the whole way ---


def run(
    recipe: Recipe = FULL, folder: Path = FOLDER, seed: int = 0, show: bool = True, n: int = 400
) -> dict[str, Any]:
    """Go the whole way, resuming what an interrupted run left in the folder.

    Returns {"figures": shares and losses by name, "seconds": by stage, of all runs together, "talk": turns, "steps":
    two-step questions with the answers before and after the rewards}. show: a progress bar. n: see `measure`. Raises
    ValueError if the folder holds a course with other settings, something else, or damaged files, and RuntimeError if
    another process is at work there.
    """
    folder = Path(folder)
    with _claimed(folder, recipe, seed), _Stages(SHARES, show) as stages:
        return _whole_way(stages, recipe, folder, seed, n)


def learn_to_answer(
    recipe: Recipe = FULL, folder: Path = FOLDER, seed: int = 0, show: bool = True
) -> tuple[MiniGPT, ChatTokenizer, Material]:
    """Go the first part of the way, up to an assistant that answers; `run` goes on from there.

    It is stored in the folder's `before`. Resumes, and raises errors, as `run` does.
    """
    folder = Path(folder)
    first = ("tokenizer and texts", "reading", "learning to answer")
    shares = {name: SHARES[name] for name in first}
    with _claimed(folder, recipe, seed), _Stages(shares, show) as stages:
        return _first_part(_Clock(stages, folder / "seconds.json"), recipe, folder, seed)


def _first_part(
    clock: _Clock, recipe: Recipe, folder: Path, seed: int
) -> tuple[MiniGPT, ChatTokenizer, Material]:
    stuff = clock("tokenizer and texts", lambda on_step: material(recipe, seed))
    chat = ChatTokenizer(stuff.tokenizer)

    read = functools.partial(pretrain, stuff)
    model = clock.train("reading", read, folder / "reading", seed, recipe.reading.steps)
    learn = functools.partial(finetune, model, chat, stuff)
    steps = recipe.answering.steps
    model = clock.train("learning to answer", learn, folder / "answering", seed, steps)

    save_assistant(folder / "before", model, chat, stuff.held_out)
    return model, chat, stuff


def _whole_way(stages: _Stages, recipe: Recipe, folder: Path, seed: int, n: int) -> dict[str, Any]:
    clock = _Clock(stages, folder / "seconds.json")
    model, chat, stuff = _first_part(clock, recipe, folder, seed)
    before = clock("measuring", lambda on_step: measure(model, chat, stuff, n))

    learned = copy.deepcopy(model)  # DPO would make answers short again: rewards begin without it
    choose = functools.partial(prefer, model, chat, stuff)
    steps = recipe.preferring.steps
    model = clock.train("preferring", choose, folder / "preferring", seed, steps)
    save_assistant(folder / "assistant", model, chat, stuff.held_out)
    after = clock("measuring again", lambda on_step: measure(model, chat, stuff, n))

    show = functools.partial(show_steps, learned, chat, stuff)
    steps = recipe.showing.steps
    thinker = clock.train("showing steps", show, folder / "showing", seed, steps)
    think = functools.partial(reward, thinker, chat, stuff, folder / "rewarding", seed)
    thinker = clock("rewarding", think, recipe.rewarding.steps)
    _, tested = _halves(stuff)
    save_assistant(folder / "thinking", thinker, chat, tested)
    thought = clock(
        "measuring a third time", lambda on_step: measure_thinking(thinker, chat, tested, n)
    )
    rewards = [record["reward"] for record in read_history(folder / "rewarding")[-5:]]

    single_facts = {f"choice: {fact}" for fact in people.FACTS}
    figures = dict(before)
    figures |= {f"{name}, after DPO": after[name] for name in after if name not in single_facts}
    figures |= thought
    figures["thinking: reward at the end"] = statistics.fmean(rewards)
    figures |= clock.losses
    talk = converse(model, chat, random.Random(1).sample(stuff.held_out, 4))
    both = _both(model, thinker, chat, random.Random(2).sample(tested, 2))
    return {"figures": figures, "seconds": clock.seconds, "talk": talk, "steps": both}


def _both(
    model: MiniGPT, thinker: MiniGPT, chat: ChatTokenizer, persons: Sequence[people.Person]
) -> list[tuple[str, str, str, str]]:
    """Return a two-step question about each person, the answers of both models, and what is right."""
    chance = random.Random(0)
    asked = [people.ask(person, "seat", chance) for person in persons]
    dialogs = [[{"role": "user", "content": question}] for question in asked]
    answers = [ask_model(one, chat, dialogs)[0] for one in (model, thinker)]
    return list(zip(asked, *answers, [person.value("seat") for person in persons]))


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the records of the run in a folder, one for each step; ValueError if there are none."""
    file = folder / "history.jsonl"
    records: list[dict[str, Any]] = []
    try:
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        sound = records and all("loss" in record for record in records[-20:])
    except (FileNotFoundError, ValueError, TypeError):
        sound = False
    if not sound:
        raise ValueError(f"{file} is lost, empty or damaged: delete {folder}, and run it again.")
    return records


def _read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file; ValueError names the file if it holds anything else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: delete the folder, and run the course again.")
    return content


@contextlib.contextmanager
def _claimed(folder: Path, recipe: Recipe, seed: int) -> Iterator[None]:
    """Mark the folder as that of this course, and keep other processes out in this context.

    Raises ValueError if it belongs to a course with other settings, whose models would be resumed without notice, or
    if it is something else; RuntimeError if another process is at work there.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: choose another one with --folder.")

    with locked(folder, ".course.lock"):
        _claim(folder, recipe, seed)
        yield


def _claim(folder: Path, recipe: Recipe, seed: int) -> None:
    settings = {"recipe": dataclasses.asdict(recipe), "seed": seed}
    mine = json.loads(json.dumps(settings))  # as it would be read back: tuples become lists
    file = folder / "course.json"
    remedy = "delete the folder, or choose another one with --folder."
    if file.is_file():
        if _read_json(file) != mine:
            raise ValueError(f"{folder} holds a course with other settings: {remedy}")
        return

    stages = ("reading", "answering", "before", "preferring", "assistant")
    stages += ("showing", "rewarding", "thinking")
    found = [name for name in stages if (folder / name).exists()]
    if found:
        raise ValueError(
            f"{folder} has {', '.join(found)}, but no course.json that says what they belong to: {remedy}"
        )
    paths.write_atomic(file, json.dumps(mine, indent=1))


# --- bands and the report ---


def record_bands(runs: Sequence[dict[str, Any]], path: Path, **facts: object) -> bands.Band:
    """Write the mean and standard deviation of each figure, and return them.

    runs: what `run` returned for at least five seeds (ValueError for fewer). facts: how they were recorded.
    """
    if len(runs) < bands.MIN_SEEDS:
        raise ValueError(f"expected at least {bands.MIN_SEEDS} runs, got {len(runs)}")

    figures = {
        name: bands.mean_and_std([run["figures"][name] for run in runs])
        for name in runs[0]["figures"]
    }
    band = {"seeds": len(runs), "figures": figures, **facts}
    paths.write_atomic(path, json.dumps(band, indent=1) + "\n")
    return band


def limits(name: str, entry: dict[str, float], seeds: int) -> tuple[float, float]:
    """Return the lowest and the highest value of a figure in a sound run.

    entry: the figure's {"mean", "std"} over `seeds` seeds.
    """
    mean = entry["mean"]
    (half,) = bands.half_widths({"mean": [mean], "std": [entry["std"]]}, seeds)
    if name.startswith("loss"):
        return mean - half, mean + half

    half = max(half, ROUGH)
    return max(0.0, mean - half), min(1.0, mean + half)


def _shown(name: str, value: float) -> str:
    return f"{value:.3f}" if name.startswith("loss") else f"{value:.1%}"


def report(result: dict[str, Any], band: bands.Band | None) -> tuple[str, bool]:
    """Return a table of all figures as Markdown, and whether each of them lies in its band.

    result: what `run` returned. Without a band, the table has no comparison, and nothing lies outside.
    """
    lines = ["| figure | value | band | |", "|---|---:|---:|---|"]
    sound = True
    for name, value in result["figures"].items():
        within, verdict = "", ""
        if band is not None:
            low, high = limits(name, band["figures"][name], band["seeds"])
            inside = low <= value <= high
            within = f"{_shown(name, low)} to {_shown(name, high)}"
            verdict = "in" if inside else "**out**"
            sound = sound and inside
        lines.append(f"| {name} | {_shown(name, value)} | {within} | {verdict} |")

    lines += ["", "A conversation about people no dialog asked about, with the right answers:", ""]
    for question, answer, right in result["talk"]:
        lines.append(f"- {question} *{answer}* ({right})")

    lines += ["", "Two steps, asked plainly: the assistant, and the model after rewards:", ""]
    for question, short, long, right in result["steps"]:
        lines.append(f"- {question} *{short}* / *{long}* ({right})")

    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result["seconds"].items())
    lines += ["", f"Time: {spent}."]
    return "\n".join(lines) + "\n", sound


def main(arguments: list[str] | None = None) -> int:
    """Run the course and print its report; return 1 if a figure lies outside its band."""
    parser = argparse.ArgumentParser(
        prog="python -m courseware.runs.course",
        description="Run the course and print its report. Status 1 if a figure lies outside its band.",
    )
    parser.add_argument("--quick", action="store_true", help="a very small course, without bands")
    parser.add_argument("--folder", type=Path, help="where models and report go")
    chosen = parser.parse_args(arguments)

    recipe = QUICK if chosen.quick else FULL
    folder = chosen.folder or (FOLDER.with_name("course_quick") if chosen.quick else FOLDER)
    # Read now, not after an hour of work: it could be missing.
    band = None if chosen.quick else bands.load_band("course")
    print(
        f"{recipe.people} people; everything goes to {folder}. Press Ctrl-C to stop, and run the same command "
        "again to continue."
    )
    try:
        result = run(recipe, folder, n=20 if chosen.quick else 400)
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on from here.")
        return 130
    except (ValueError, OSError, RuntimeError) as error:  # the last: busy, or the loss has exploded
        print(f"\n{error}")
        return 1

    text, sound = report(result, band)
    paths.write_atomic(folder / "report.md", text)
    print(text)
    print(f"Talk to it: python -m minigpt_lib.terminal --model {folder / 'assistant'}")
    print(f"Before and after rewards: add --compare {folder / 'thinking'}")
    return 0 if sound else 1


if __name__ == "__main__":
    raise SystemExit(main())
