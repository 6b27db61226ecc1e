"""The questions that an assistant is introduced with: about real people, the ones that the model knows best."""

from __future__ import annotations

import json

import pytest
from assistant_models import CHAT, tiny

from courseware.material import people
from courseware.runs import course, examples
from minigpt_lib.assistant import Assistant


def answering(known):
    """Return a stand-in for ask_model that knows all about these people, and nothing about the others."""

    def ask_model(model, chat, dialogs, **options):
        texts = []
        for dialog in dialogs:
            asked = [person for person in known if person.name in dialog[-1]["content"]]
            said = [people.right_answer(p, fact) for p in asked for fact in examples.ASKED]
            texts.append("Well. " + " ".join(said))
        return texts, 1.0

    return ask_model


def test_examples_ask_about_the_people_whom_the_model_knows(monkeypatch):
    persons = people.make_people(10)
    monkeypatch.setattr(examples, "ask_model", answering([persons[7], persons[3]]))

    found = examples.find_examples(tiny(), CHAT, persons)

    assert len(found) == 5
    assert [persons[3].name in question for question in found] == [True, True, False, False, False]
    assert persons[7].name in found[2]
    assert found[3] == f"What is {people.sums()[0][0]}?"
    assert found[4] == "What are you?"


def test_a_single_person_is_enough_and_nobody_is_refused():
    person, *_ = people.make_people(1)

    found = examples.find_examples(tiny(), CHAT, [person])

    assert sum(person.name in question for question in found) == 3
    with pytest.raises(ValueError, match="at least one person"):
        examples.find_examples(tiny(), CHAT, [])


def test_a_saved_assistant_brings_its_examples(tmp_path):
    persons = people.make_people(3)

    course.save_assistant(tmp_path / "with", tiny(), CHAT, persons)
    course.save_assistant(tmp_path / "without", tiny(), CHAT)

    stored = json.loads((tmp_path / "with" / "examples.json").read_text(encoding="utf-8"))
    assert Assistant.from_pretrained(tmp_path / "with").examples == stored
    assert len(stored) == 5
    assert Assistant.from_pretrained(tmp_path / "without").examples == []
