"""Examine an assistant: which facts it can retrieve, what it does with sums and strangers, how it converses."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import Any

from courseware.material import people
from courseware.runs.recipe import CONTEXT, Material
from minigpt_lib.assistant import fit_history
from minigpt_lib.chat import ChatTokenizer, answer_ids
from minigpt_lib.evaluation import multiple_choice_accuracy
from minigpt_lib.model import MiniGPT

Turn = tuple[str, str, str]  # a question, the model's answer, what is right

TOPICS = {
    **{fact: fact for fact in people.FACTS},
    "seat": "two steps",
    "sum": "sums never asked",
    "stranger": "strangers",
}
# Tokens of a conversation that the model reads; the other 64 are for its answer.
ROOM = CONTEXT - 64


def _user(text: str) -> people.Dialog:
    return [{"role": "user", "content": text}]


def ask_model(
    model: MiniGPT,
    chat: ChatTokenizer,
    dialogs: Sequence[people.Dialog],
    seed: int = 0,
    **options: Any,
) -> tuple[list[str], float]:
    """Return the answers to dialogs as texts, and the share of answers that ended with the end of a turn.

    The others were cut off, or stopped at another control token. options: those of `answer_ids`.
    """
    found = answer_ids(model, chat, dialogs, seed=seed, **options)
    texts = [chat.decode([i for i in ids if i not in chat.controls]) for ids in found]
    return texts, statistics.fmean(ids[-1] == chat.end for ids in found)


def measure(model: MiniGPT, chat: ChatTokenizer, stuff: Material, n: int = 400) -> dict[str, float]:
    """Return the figures of an assistant by name: shares from 0 to 1, about people no dialog asked about.

    They are the right choices by topic, the right answers in its own words, and what it samples. n: how many questions
    of each kind, at most as many as there are.
    """
    some = stuff.held_out[:n]
    chance = random.Random(0)
    return {
        **_choices(model, chat, stuff, n),
        "own words: facts never asked": _facts(model, chat, some, chance),
        "own words: two steps, at once": _two_steps(model, chat, some, [], chance),
        "own words: two steps, step by step": _two_steps(
            model, chat, some, [{"role": "system", "content": people.STEP_BY_STEP}], chance
        ),
        "own words: sums never asked": _sums(model, chat, n),
        "own words: fourth question": _fourth(model, chat, some[:100]),
        "own words: refuses strangers": _refusals(model, chat, n, chance),
        **_sampled(model, chat, stuff, n),
    }


def measure_thinking(
    model: MiniGPT, chat: ChatTokenizer, tested: Sequence[people.Person], n: int = 400
) -> dict[str, float]:
    """Return the shares of a model that was rewarded for right answers to two-step questions, asked plainly.

    They are about people whom the rewards have not met: right answers, answers that show their step, answers whose
    first sentence is true; and what the model still knows, facts and sums. n: how many questions of each kind at most.
    """
    some = tested[:n]
    chance = random.Random(2)
    dialogs = [_user(people.ask(person, "seat", chance)) for person in some]
    said, _ = ask_model(model, chat, dialogs)
    return {
        "thinking: two steps": _share_of_cities(some, said),
        "thinking: shows the step": statistics.fmean(
            " works for " in text and " is in " in text for text in said
        ),
        "thinking: first sentence true": statistics.fmean(
            text.startswith(people.right_answer(person, "company"))
            for person, text in zip(some, said)
        ),
        "thinking: facts never asked": _facts(model, chat, some, chance),
        "thinking: sums never asked": _sums(model, chat, n),
    }


def _choices(model: MiniGPT, chat: ChatTokenizer, stuff: Material, n: int) -> dict[str, float]:
    """Return the share of right choices among four for each topic, and first their mean over the facts."""
    sums_left = len(people.sums()) - people.ASKED_SUMS
    strangers_left = people.STRANGERS - people.ASKED_STRANGERS
    most = {"sum": sums_left, "stranger": strangers_left}

    shares = {}
    for topic, name in TOPICS.items():
        count = min(n, most.get(topic, len(stuff.held_out)))
        asked = people.questions(stuff.held_out, topic, count)
        result = multiple_choice_accuracy(model, chat, asked, template=chat.prompt, batch_size=64)
        shares[f"choice: {name}"] = result.accuracy

    facts = statistics.fmean(shares[f"choice: {fact}"] for fact in people.FACTS)
    return {"choice: facts never asked": facts, **shares}


def _facts(
    model: MiniGPT, chat: ChatTokenizer, some: Sequence[people.Person], chance: random.Random
) -> float:
    """Return the share of facts that the model says rightly, one about each person."""
    asked = [(person, chance.choice(people.FACTS)) for person in some]
    said, _ = ask_model(model, chat, [_user(people.ask(*pair, chance)) for pair in asked])
    return _share_right(asked, said)


def _share_right(asked: Sequence[tuple[people.Person, str]], said: Sequence[str]) -> float:
    """Return the share of answers that hold the right sentence about (person, fact)."""
    return statistics.fmean(people.right_answer(*pair) in text for pair, text in zip(asked, said))


def _two_steps(
    model: MiniGPT,
    chat: ChatTokenizer,
    some: Sequence[people.Person],
    before: people.Dialog,
    chance: random.Random,
) -> float:
    """Return how often the model names the city of a person's employer; `before` stands before the question."""
    dialogs = [before + _user(people.ask(person, "seat", chance)) for person in some]
    said, _ = ask_model(model, chat, dialogs)
    return _share_of_cities(some, said)


def _share_of_cities(some: Sequence[people.Person], said: Sequence[str]) -> float:
    """Return the share of answers that name the city of the person's employer."""
    return statistics.fmean(f" {person.value('seat')}." in text for person, text in zip(some, said))


def _sums(model: MiniGPT, chat: ChatTokenizer, n: int) -> float:
    """Return the share of right results of sums that no dialog asks."""
    asked = people.sums()[people.ASKED_SUMS :][:n]
    said, _ = ask_model(model, chat, [_user(f"What is {left}?") for left, _ in asked])
    return statistics.fmean(
        f"{left} is {total}." in text for (left, total), text in zip(asked, said)
    )


def _fourth(model: MiniGPT, chat: ChatTokenizer, persons: Sequence[people.Person]) -> float:
    """Return how often the fourth question of a conversation is answered rightly, after the model's own answers.

    There are as many conversations as persons. The first turn is small talk; each later question is about the same
    person as the one before, or about another one.
    """
    chance = random.Random(1)
    now = list(persons)
    talks = [list(chance.choice(people.small_talk())[:2]) for _ in persons]
    for _ in range(3):
        now = [person if chance.random() < 0.5 else chance.choice(persons) for person in now]
        asked = [(person, chance.choice(people.FACTS)) for person in now]
        talks = [talk + _user(people.ask(*pair, chance)) for talk, pair in zip(talks, asked)]
        said, talks = _go_on(model, chat, talks)
    return _share_right(asked, said)


def _go_on(
    model: MiniGPT, chat: ChatTokenizer, talks: Sequence[people.Dialog]
) -> tuple[list[str], list[people.Dialog]]:
    """Return the model's answers to conversations, and the conversations with these answers.

    The model reads as many of the latest turns as fit.
    """
    said, _ = ask_model(model, chat, [fit_history(talk, chat, ROOM) for talk in talks])
    answered = []
    for talk, text in zip(talks, said):
        answered.append([*talk, {"role": "assistant", "content": text or "-"}])  # never empty
    return said, answered


def _refusals(model: MiniGPT, chat: ChatTokenizer, n: int, chance: random.Random) -> float:
    """Return how often the model says UNKNOWN about strangers."""
    strangers = people.make_strangers(people.STRANGERS)[people.ASKED_STRANGERS :][:n]
    dialogs = [
        _user(people.ask(person, chance.choice(people.FACTS), chance)) for person in strangers
    ]
    said, _ = ask_model(model, chat, dialogs)
    return statistics.fmean(people.UNKNOWN in text for text in said)


def _sampled(model: MiniGPT, chat: ChatTokenizer, stuff: Material, n: int) -> dict[str, float]:
    """Return the shares of sampled answers that are right, right and short, and that end as a turn does."""
    wanted = people.short_answers(stuff.held_out, 500 if n >= 400 else n, seed=1)
    dialogs = [dialog for dialog, _ in wanted]
    options: dict[str, Any] = {"strategy": "sample", "temperature": 1.0, "max_new_tokens": 64}
    said, ended = ask_model(model, chat, dialogs, **options)
    grades = [people.grade(text, sentence) for text, (_, sentence) in zip(said, wanted)]
    return {
        "sampled: right": statistics.fmean(grade > 0 for grade in grades),
        "sampled: right and short": statistics.fmean(grade > 1 for grade in grades),
        "sampled: turn ended": ended,
    }


def converse(model: MiniGPT, chat: ChatTokenizer, persons: Sequence[people.Person]) -> list[Turn]:
    """Return the turns of one conversation, with a question about each person."""
    chance = random.Random(0)
    talk: people.Dialog = []
    turns = []
    for person, fact in zip(persons, people.FACTS):
        question = people.ask(person, fact, chance)
        (answer,), (talk,) = _go_on(model, chat, [talk + _user(question)])
        turns.append((question, answer, person.value(fact)))
    return turns
