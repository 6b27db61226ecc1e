"""`make course`: the whole way unattended, from an untrained tokenizer to an assistant that answers, and a report.

Each stage leaves its result in data/models/course, so that an interrupted course goes on where it was. At the end every
figure is laid on its band, recorded from several seeds by courseware/course_bands.py; a figure outside ends the command
with status 1.
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
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from courseware import bands, paths, people
from courseware.recipe import FULL, QUICK, Material, Recipe, material, new_model
from minigpt_lib.assistant import fit_history
from minigpt_lib.evaluation import multiple_choice_accuracy
from minigpt_lib.model import MiniGPT
from minigpt_lib.preferences import PreferenceDataset, make_pairs, sample_answers, train_dpo
from minigpt_lib.sft import (
    ChatTokenizer,
    InstructionDataset,
    answer_ids,
    resize_embedding,
    train_sft,
)
from minigpt_lib.training import Trainer

FOLDER = paths.ROOT / "data" / "models" / "course"
TOPICS = {fact: fact for fact in people.FACTS} | {
    "seat": "two steps", "sum": "sums never asked", "stranger": "strangers",
}  # fmt: skip
ROOM = 192  # tokens of a conversation that the model reads: 64 of its 256 are for the answer
ROUGH = 0.02  # a share of n answers is never surer than this, however well the seeds agree


def _refuse_half(run: Trainer) -> None:
    """Raise KeyboardInterrupt if a run was stopped before its end: Trainer has saved it, and returned."""
    if run.step < run.config.steps:
        raise KeyboardInterrupt


def pretrain(stuff: Material, folder: Path, seed: int = 0, on_step=None) -> MiniGPT:
    """Return the model after it has read everything; goes on with a run that is in the folder."""
    config = dataclasses.replace(stuff.recipe.reading, seed=seed, save_every=500)
    model = new_model(stuff.tokenizer, stuff.recipe, seed)
    run = Trainer(model, config, stuff.tokens, folder=folder, existing="resume", on_step=on_step)
    run.train()
    _refuse_half(run)
    return model


def finetune(model, chat, stuff: Material, folder: Path, seed: int = 0, on_step=None) -> MiniGPT:
    """Return the model, with rows for the control tokens, after it has learned to answer."""
    config = dataclasses.replace(stuff.recipe.answering, seed=seed, save_every=100)
    model = resize_embedding(model, chat.vocab_size)
    data = InstructionDataset(stuff.dialogs, chat, config.block_size)
    _refuse_half(train_sft(model, config, data, folder=folder, existing="resume", on_step=on_step))
    return model


def prefer(model, chat, stuff: Material, folder: Path, seed: int = 0, on_step=None) -> MiniGPT:
    """Return the model after DPO on pairs of its own answers: right and short ones are wanted."""
    recipe, reference = stuff.recipe, copy.deepcopy(model)
    config = dataclasses.replace(recipe.preferring, seed=seed, save_every=recipe.preferring.steps)
    wanted = people.short_answers(stuff.asked, recipe.prompts, seed)
    wanted += people.other_answers(stuff.asked, seed)
    prompts, right = zip(*wanted)
    answers = sample_answers(model, chat, prompts, 6, seed=seed)
    for sentence, texts in zip(right, answers):
        if sentence == people.UNKNOWN:  # the model hardly ever says it by itself
            texts.append(sentence)
    grades = {id(prompt): functools.partial(people.grade, wanted=one) for prompt, one in wanted}
    judge = lambda prompt, answer: grades[id(prompt)](answer)  # noqa: E731
    pairs, _ = make_pairs(model, chat, prompts, judge, answers=answers)
    data = PreferenceDataset(pairs, chat, config.block_size)
    options = {"folder": folder, "existing": "resume", "on_step": on_step}
    _refuse_half(train_dpo(model, reference, config, data, beta=recipe.beta, **options))
    return model


def ask_model(model, chat, dialogs, seed: int = 0, **options) -> tuple[list[str], float]:
    """Return the answers to dialogs as texts, and the share that ended as a turn ends, with no other control token."""
    found = answer_ids(model, chat, dialogs, seed=seed, **options)
    texts = [chat.decode([i for i in ids if i not in chat.controls]) for ids in found]
    return texts, statistics.fmean(ids[-1] == chat.end for ids in found)


def measure(model, chat, stuff: Material, n: int = 400) -> dict[str, float]:
    """Return the figures of an assistant, shares from 0 to 1: choices by topic, answers in its own words, turns ended.

    n: how many questions of each kind, at most as many as there are.
    """
    figures, chance = {}, random.Random(0)
    for topic, name in TOPICS.items():
        count = min(n, {"sum": 72, "stranger": 100}.get(topic, len(stuff.held_out)))
        asked = people.questions(stuff.held_out, topic, count)
        figures[f"choice: {name}"] = multiple_choice_accuracy(
            model, chat, asked, template=chat.prompt, batch_size=64
        ).accuracy
    facts = statistics.fmean(figures[f"choice: {fact}"] for fact in people.FACTS)
    figures = {"choice: facts never asked": facts, **figures}
    some = stuff.held_out[:n]
    asked = [(person, chance.choice(people.FACTS)) for person in some]
    said, _ = ask_model(model, chat, [_user(people.ask(*pair, chance)) for pair in asked])
    right = [people.right_answer(*pair) in text for pair, text in zip(asked, said)]
    figures["own words: facts never asked"] = statistics.fmean(right)
    system = [{"role": "system", "content": people.STEP_BY_STEP}]
    for name, before in (("at once", []), ("step by step", system)):
        said, _ = ask_model(
            model, chat, [before + _user(people.ask(p, "seat", chance)) for p in some]
        )
        ends = [f" {person.value('seat')}." in text for person, text in zip(some, said)]
        figures[f"own words: two steps, {name}"] = statistics.fmean(ends)
    asked = people.sums()[72:][:n]
    said, _ = ask_model(model, chat, [_user(f"What is {left}?") for left, _ in asked])
    right = [f"{left} is {total}." in text for (left, total), text in zip(asked, said)]
    figures["own words: sums never asked"] = statistics.fmean(right)
    figures["own words: fourth question"] = _fourth(model, chat, some[:100])
    strangers = people.make_strangers(200)[100:][:n]
    asked = [_user(people.ask(s, chance.choice(people.FACTS), chance)) for s in strangers]
    said, _ = ask_model(model, chat, asked)
    refused = [people.UNKNOWN in text for text in said]
    figures["own words: refuses strangers"] = statistics.fmean(refused)
    wanted = people.short_answers(stuff.held_out, 500 if n >= 400 else n, seed=1)
    options = {"strategy": "sample", "temperature": 1.0, "max_new_tokens": 64}
    said, ended = ask_model(model, chat, [dialog for dialog, _ in wanted], **options)
    grades = [people.grade(text, sentence) for text, (_, sentence) in zip(said, wanted)]
    figures["sampled: right"] = statistics.fmean(grade > 0 for grade in grades)
    figures["sampled: right and short"] = statistics.fmean(grade > 1 for grade in grades)
    figures["sampled: turn ended"] = ended
    return figures


def _fourth(model, chat, persons) -> float:
    """Return the share of conversations whose fourth question is answered rightly, after the model's own answers.

    There are as many as persons. The first turn is small talk; then each question is about the person of the one
    before, or about another one.
    """
    chance, now = random.Random(1), list(persons)
    talks = [list(chance.choice(people.small_talk())[:2]) for _ in persons]
    for _ in range(3):
        now = [person if chance.random() < 0.5 else chance.choice(persons) for person in now]
        asked = [(person, chance.choice(people.FACTS)) for person in now]
        talks = [talk + _user(people.ask(*pair, chance)) for talk, pair in zip(talks, asked)]
        said, talks = _go_on(model, chat, talks)
    return statistics.fmean(people.right_answer(*pair) in text for pair, text in zip(asked, said))


def _go_on(model, chat, talks: list[list[dict]]) -> tuple[list[str], list[list[dict]]]:
    """Return what the model answers to conversations, of which it reads what fits, and the conversations with it."""
    said, _ = ask_model(model, chat, [fit_history(talk, chat, ROOM) for talk in talks])
    answers = [{"role": "assistant", "content": text or "-"} for text in said]
    return said, [[*talk, answer] for talk, answer in zip(talks, answers)]


def _user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


class _Stages:
    """One bar for the whole course; shares: of each stage by name, how much of the time it takes."""

    def __init__(self, shares: dict[str, float], show: bool):
        self.shares, self.done = shares, 0.0
        self.bar = tqdm(total=round(sum(shares.values())), mininterval=0.5, disable=not show,
                        bar_format="{desc:<34} {percentage:3.0f}%|{bar}| {elapsed}")  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    @contextlib.contextmanager
    def stage(self, name: str):
        """Show a stage while it runs; yields a function that takes the part done, from 0 to 1."""
        self.bar.set_description_str(name)
        start, share = self.done, self.shares[name]

        def reached(part: float) -> None:
            self.bar.update(start + share * part - self.bar.n)

        yield reached
        self.done = start + share
        reached(1.0)


class _Clock:
    """Run stages and add up their `seconds`, in a file that an interrupted course goes on with."""

    def __init__(self, stages: _Stages, file: Path):
        self.stages, self.file = stages, file
        self.seconds = _read_json(file) if file.is_file() else {}
        if not all(isinstance(value, (int, float)) for value in self.seconds.values()):
            raise ValueError(f"{file} is damaged: delete it, and run the course again.")

    def __call__(self, name: str, do: Callable, steps: int = 1):
        """Return what a stage returns; the time counts also if it is interrupted."""
        began, before = time.perf_counter(), self.seconds.get(name, 0.0)
        try:
            with self.stages.stage(name) as reached, contextlib.redirect_stdout(io.StringIO()):
                return do(on_step=lambda record: reached(record["step"] / steps))
        finally:
            self.seconds[name] = before + time.perf_counter() - began
            paths.write_atomic(self.file, json.dumps(self.seconds, indent=1))


def run(
    recipe: Recipe = FULL, folder: Path = FOLDER, seed: int = 0, show: bool = True, n: int = 400
) -> dict:
    """Go the whole way and return {"figures", "seconds", "talk"}; what an interrupted run left in the folder is used.

    The seconds are those of all runs together, kept in the folder. Raises ValueError if the folder holds a course
    of other settings, something else, or damaged files.
    """
    folder = Path(folder)
    _claim(folder, recipe, seed)
    shares = {"tokenizer and texts": 1, "reading": 66, "learning to answer": 18, "measuring": 4, "preferring": 7,
              "measuring again": 4}  # fmt: skip
    with _Stages(shares, show) as stages:
        return _whole_way(stages, recipe, folder, seed, n)


def _whole_way(stages: _Stages, recipe: Recipe, folder: Path, seed: int, n: int) -> dict:
    losses, timed = {}, _Clock(stages, folder / "seconds.json")

    def trained(stage: str, name: str, do: Callable, steps: int):
        """Time a stage that trains in the folder `name`; its loss is needed at the end, so look at once."""
        model = timed(stage, functools.partial(do, folder / name, seed), steps)
        last = read_history(folder / name)[-20:]
        losses[f"loss: {name}"] = statistics.fmean(record["loss"] for record in last)
        return model

    stuff = timed("tokenizer and texts", lambda on_step: material(recipe, seed))
    chat = ChatTokenizer(stuff.tokenizer)
    read = functools.partial(pretrain, stuff)
    model = trained("reading", "reading", read, recipe.reading.steps)
    learn = functools.partial(finetune, model, chat, stuff)
    model = trained("learning to answer", "answering", learn, recipe.answering.steps)
    figures = timed("measuring", lambda on_step: measure(model, chat, stuff, n))
    choose = functools.partial(prefer, model, chat, stuff)
    model = trained("preferring", "preferring", choose, recipe.preferring.steps)
    save_assistant(folder / "assistant", model, chat)
    again = timed("measuring again", lambda on_step: measure(model, chat, stuff, n))
    singly = {f"choice: {fact}" for fact in people.FACTS}
    figures |= {f"{name}, after DPO": again[name] for name in again if name not in singly}
    figures |= losses
    talk = converse(model, chat, random.Random(1).sample(stuff.held_out, 4))
    return {"figures": figures, "seconds": timed.seconds, "talk": talk}


def converse(model, chat, persons) -> list[tuple[str, str, str]]:
    """Return the turns of one conversation, a fact about each person: (question, the model's answer, what is right)."""
    talk, turns, chance = [], [], random.Random(0)
    for person, fact in zip(persons, people.FACTS):
        question = people.ask(person, fact, chance)
        (answer,), (talk,) = _go_on(model, chat, [talk + _user(question)])
        turns.append((question, answer, person.value(fact)))
    return turns


def read_history(folder: Path) -> list[dict]:
    """Return the records of the run in a folder, one for each step; ValueError if there are none."""
    file = folder / "history.jsonl"
    try:
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        sound = records and all("loss" in record for record in records[-20:])
    except (FileNotFoundError, ValueError, TypeError):
        sound = False
    if not sound:
        raise ValueError(f"{file} is lost, empty or damaged: delete {folder}, and run it again.")
    return records


def _read_json(file: Path) -> dict:
    """Return the object in a file of ours; ValueError that names the file if it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: delete the folder, and run the course again.")
    return content


def save_assistant(folder: Path, model, chat) -> None:
    """Write a model and its tokenizer as demo.assistant and the command of chapter 16 read them."""
    model.save_pretrained(folder)
    chat.base.save(folder / "tokenizer.json")


def _claim(folder: Path, recipe: Recipe, seed: int) -> None:
    """Refuse a folder whose course had other settings, which its models would silently carry on, or is no course."""
    mine = json.loads(json.dumps({"recipe": dataclasses.asdict(recipe), "seed": seed}))
    file, remedy = folder / "course.json", "delete the folder, or choose another with --folder."
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is no folder: choose another with --folder.")
    if file.is_file():
        if _read_json(file) != mine:
            raise ValueError(f"{folder} holds a course with other settings: {remedy}")
        return
    stages = ("reading", "answering", "preferring", "assistant")
    if found := [name for name in stages if (folder / name).exists()]:
        raise ValueError(
            f"{folder} has {', '.join(found)}, but no course.json says of what: {remedy}"
        )
    paths.write_atomic(file, json.dumps(mine, indent=1))


def record_bands(runs: list[dict], path: Path, **facts) -> dict:
    """Write mean and standard deviation of each figure over the runs of at least five seeds."""
    if len(runs) < bands.MIN_SEEDS:
        raise ValueError(f"expected at least {bands.MIN_SEEDS} runs, got {len(runs)}")
    columns = {name: [run["figures"][name] for run in runs] for name in runs[0]["figures"]}
    found = {
        name: {"mean": round(statistics.fmean(column), 5), "std": round(statistics.stdev(column), 6)}
        for name, column in columns.items()
    }  # fmt: skip
    band = {"seeds": len(runs), "figures": found, **facts}
    paths.write_atomic(path, json.dumps(band, indent=1) + "\n")
    return band


def limits(name: str, entry: dict, seeds: int) -> tuple[float, float]:
    """Return the lowest and the highest value of a figure that a sound run has."""
    mean = entry["mean"]
    (half,) = bands.half_widths({"mean": [mean], "std": [entry["std"]]}, seeds)
    if name.startswith("loss"):
        return mean - half, mean + half
    half = max(half, ROUGH)
    return max(0.0, mean - half), min(1.0, mean + half)


def report(result: dict, band: dict | None) -> tuple[str, bool]:
    """Return a table of all figures as Markdown, and whether each lies in its band."""
    lines, sound = ["| figure | value | band | |", "|---|---:|---:|---|"], True
    for name, value in result["figures"].items():
        show = (lambda v: f"{v:.3f}") if name.startswith("loss") else (lambda v: f"{v:.1%}")
        within, verdict = "", ""
        if band is not None:
            low, high = limits(name, band["figures"][name], band["seeds"])
            inside = low <= value <= high
            within, verdict, sound = (
                f"{show(low)} to {show(high)}",
                "in" if inside else "**out**",
                sound and inside,
            )
        lines.append(f"| {name} | {show(value)} | {within} | {verdict} |")
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in result["seconds"].items())
    lines += [
        "",
        "A conversation about people whom no dialog asked about, and what it had read of them:",
        "",
    ]
    for question, answer, right in result["talk"]:
        lines.append(f"- {question} *{answer}* ({right})")
    lines += ["", f"Time: {spent}."]
    return "\n".join(lines) + "\n", sound


def main(arguments: list[str] | None = None) -> int:
    """Run the course and print its report; 1 if a figure lies outside its band."""
    parser = argparse.ArgumentParser(prog="python -m courseware.course", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="a very small course, without bands")
    parser.add_argument("--folder", type=Path, help="where models and report go")
    chosen = parser.parse_args(arguments)
    recipe = QUICK if chosen.quick else FULL
    folder = chosen.folder or (FOLDER.with_name("course_quick") if chosen.quick else FOLDER)
    band = None
    if not chosen.quick:  # now, not after the work: it could be missing
        band = json.loads((bands.FOLDER / "course.json").read_text(encoding="utf-8"))
    print(
        f"{recipe.people} people; everything goes to {folder}. Ctrl-C stops it, the same command goes on."
    )
    try:
        result = run(recipe, folder, n=400 if not chosen.quick else 20)
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on from here.")
        return 130
    except (ValueError, OSError) as error:
        print(f"\n{error}")
        return 1
    text, sound = report(result, band)
    paths.write_atomic(folder / "report.md", text)
    print(text)
    print(f"Talk to it: python -m minigpt_lib.assistant --model {folder / 'assistant'}")
    return 0 if sound else 1


if __name__ == "__main__":
    raise SystemExit(main())
