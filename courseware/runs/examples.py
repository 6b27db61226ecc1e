"""Questions to begin a conversation with an assistant, about people whom it knows: tried on the model itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from courseware import paths
from courseware.material import people
from courseware.runs.exam import ask_model
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.model import MiniGPT

FILE = "examples.json"  # in the model's folder, where Assistant.from_pretrained looks for it
ASKED = ("city", "company", "work")  # what the examples ask about a person
MOST = 20  # people who are tried


def find_examples(
    model: MiniGPT, chat: ChatTokenizer, persons: Sequence[people.Person]
) -> list[str]:
    """Return questions to begin with: about two of these people, about a sum, and about the model itself.

    The two are those about whom the model knows most, the first in case of a tie. ValueError without people.
    """
    if not persons:
        raise ValueError("expected at least one person to ask about, got none.")

    some = list(persons)[:MOST]
    asked = [(person, fact) for person in some for fact in ASKED]
    dialogs = [
        [
            {"role": "system", "content": people.IDENTITY},
            {"role": "user", "content": people.ASKED[fact][0].format(n=person.name)},
        ]
        for person, fact in asked
    ]
    said, _ = ask_model(model, chat, dialogs, max_new_tokens=40)

    known = {person.name: 0 for person in some}
    for (person, fact), answer in zip(asked, said):
        known[person.name] += people.right_answer(person, fact) in answer
    best = sorted(known, key=lambda name: -known[name])[:2]

    questions = [people.ASKED[fact][0].format(n=best[0]) for fact in ASKED[:2]]
    questions.append(people.ASKED[ASKED[2]][1].format(n=best[-1]))
    left, _ = people.sums()[0]
    return [*questions, f"What is {left}?", people.ABOUT_ITSELF[0][0][0]]


def write_examples(
    folder: Path, model: MiniGPT, chat: ChatTokenizer, persons: Sequence[people.Person]
) -> None:
    """Write examples into the folder of a model, where its assistant finds them."""
    questions = find_examples(model, chat, persons)
    paths.write_atomic(folder / FILE, json.dumps(questions, indent=1, ensure_ascii=False) + "\n")
