"""The people who do not exist: what is read, what is asked, and that the two halves never mix."""

import re

import pytest

from courseware import people
from courseware.recipe import QUICK, material
from minigpt_lib.sft import fault_of

EVERYBODY = people.make_people(120)
ASKED, HELD_OUT = EVERYBODY[:60], EVERYBODY[60:]


def test_a_seed_decides_everything_and_another_seed_other_things():
    assert people.make_people(120) == EVERYBODY
    assert people.make_people(120, seed=1) != EVERYBODY
    assert people.make_people(300)[:120] != people.make_people(300, seed=2)[:120]
    assert list(people.documents(ASKED, 2, 3)) == list(people.documents(ASKED, 2, 3))
    assert list(people.documents(ASKED, 2, 3)) != list(people.documents(ASKED, 2, 4))
    assert people.dialogs(ASKED, 5) == people.dialogs(ASKED, 5) != people.dialogs(ASKED, 6)


def test_names_are_unique_and_strangers_are_nobody():
    everybody = people.make_people(4000)
    names = {person.name for person in everybody}
    assert len(names) == 4000
    strangers = {stranger.name for stranger in people.make_strangers(200)}
    assert len(strangers) == 200
    for seed in range(3):
        assert not strangers & {person.name for person in people.make_people(4000, seed)}
    values = {person.value("city") for person in everybody}
    assert values == set(people.CITIES), "every value occurs"


@pytest.mark.parametrize("make", [people.make_people, people.make_strangers])
@pytest.mark.parametrize("n", [0, -1, 4001])
def test_impossible_numbers_are_refused(make, n):
    with pytest.raises(ValueError, match=f"n={n}: expected 1 to"):
        make(n)


def test_a_telling_says_every_fact_of_everybody_once():
    told = list(people.documents(ASKED, 1))
    for person in ASKED:
        (life,) = (text for text in told if person.name in text)
        assert life.count(person.name) == len(people.FACTS) == life.count(".")
        assert all(person.facts[fact] in life for fact in people.FACTS)
    for company, city in people.SEATS.items():
        assert sum(f"{company} is in {city}." in text for text in told) == 1
    sums = [text for text in told if re.search(r"\b3 plus 4\b", text)]
    assert (
        [text.count("3 plus 4") for text in sums] == [2, 2, 2] == [text.count("7") for text in sums]
    )
    assert len(list(people.documents(ASKED, 3))) == 3 * len(told)


def test_no_two_tellings_of_a_life_are_bound_to_be_equal():
    lives = [text for text in people.documents(ASKED[:1], 30) if ASKED[0].name in text]
    assert len(set(lives)) > 25


def test_dialogs_are_sound_and_ask_only_about_the_people_given():
    made = people.dialogs(ASKED)
    assert not [dialog for dialog in made if fault_of(dialog)]
    text = "\n".join(message["content"] for dialog in made for message in dialog)
    assert all(person.name in text for person in ASKED)
    assert not any(person.name in text for person in HELD_OUT)


def test_every_answer_about_a_person_is_true():
    facts = {person.name: person for person in ASKED}
    seen = 0
    for dialog in people.dialogs(ASKED):
        for question, answer in zip(dialog[-2::-2], dialog[::-2], strict=False):
            names = [name for name in facts if name in question["content"]]
            if not names:
                continue
            (name,) = names
            topic = next(
                topic
                for topic, ways in people.ASKED.items()
                if any(way.format(n=name) == question["content"] for way in ways)
            )
            assert facts[name].value(topic) in answer["content"]
            seen += 1
    assert seen > 5 * len(ASKED)


def questions_in(dialog):
    return [message["content"] for message in dialog if message["role"] == "user"]


def test_a_conversation_changes_its_subject_and_ends_in_time():
    talk = people.small_talk()
    made = people.dialogs(ASKED, talk=talk)
    assert not [dialog for dialog in made if fault_of(dialog)]
    longest = max(len(questions_in(dialog)) for dialog in talk)
    assert max(len(questions_in(dialog)) for dialog in made) == max(5, longest)
    named = [
        {person.name for person in ASKED if any(person.name in q for q in questions_in(dialog))}
        for dialog in made
    ]
    assert sum(len(names) > 1 for names in named) > len(made) / 8, "of one person, then of another"
    said = {question for dialog in talk for question in questions_in(dialog)}
    after = [
        questions_in(d)[0] in said and bool(names) for d, names in zip(made, named, strict=True)
    ]
    assert sum(after) > 10, "of a person after a greeting"
    asked = [question for dialog in made for question in questions_in(dialog)]
    for dialog in talk:
        assert all(question in asked for question in questions_in(dialog)), "nothing is lost"


def test_steps_are_shown_where_the_system_message_asks_for_them_and_only_there():
    facts = {person.name: person for person in ASKED}
    stepwise = 0
    for dialog in people.dialogs(ASKED):
        asks_for_steps = dialog[0]["content"] == people.STEP_BY_STEP
        for question, answer in zip(dialog[-2::-2], dialog[::-2], strict=False):
            steps = [p for p in facts.values() if answer["content"] == people._steps(p)]
            assert bool(steps) == asks_for_steps
            if steps:
                assert steps[0].name in question["content"]
                assert answer["content"].endswith(f" {steps[0].value('seat')}.")
                stepwise += 1
    assert stepwise == 2 * len(ASKED)


def test_the_lessons_of_preferences_are_sound_and_true():
    facts = {person.name: person for person in HELD_OUT}
    short, other = people.short_answers(HELD_OUT, 200), people.other_answers(HELD_OUT)
    for dialog, wanted in short + other:
        assert dialog[-1]["role"] == "user"
        assert fault_of([*dialog, {"role": "assistant", "content": wanted}]) is None
    for dialog, wanted in short:
        (name,) = (name for name in facts if name in dialog[-1]["content"])
        assert wanted in {people.right_answer(facts[name], fact) for fact in people.FACTS}
    system = [dialog[0] == {"role": "system", "content": people.IDENTITY} for dialog, _ in short]
    before = [len(questions_in(dialog)) == 2 for dialog, _ in short]
    assert 70 < sum(system) < 130 and 70 < sum(before) < 130
    assert [wanted for _, wanted in other[:40]] == [people.UNKNOWN] * 40
    assert all(" plus " in wanted for _, wanted in other[40:80])
    for dialog, wanted in other[80:]:
        assert dialog[0]["content"] == people.STEP_BY_STEP and wanted.count(".") == 2
    assert (
        people.short_answers(ASKED, 9)
        == people.short_answers(ASKED, 9)
        != people.short_answers(ASKED, 9, 1)
    )


def test_a_share_of_the_answers_is_wordy():
    opened = [f"{opening} " for opening in people.OPENINGS]
    for share, low, high in ((0.0, 0, 0), (0.5, 0.3, 0.6), (1.0, 0.6, 1.0)):
        turns = [
            message["content"]
            for dialog in people.dialogs(ASKED, wordy_share=share)
            for message in dialog
            if message["role"] == "assistant"
        ]
        wordy = sum(text.startswith(tuple(opened)) for text in turns) / len(turns)
        assert low <= wordy <= high, (share, wordy)


@pytest.mark.parametrize("topic", [*people.ASKED, "stranger"])
def test_questions_have_four_different_choices_and_one_right_one(topic):
    asked = people.questions(HELD_OUT, topic, 40)
    places = [question["answer"] for question in asked]
    assert {0, 1, 2, 3} == set(places)
    for question in asked:
        assert len(set(question["choices"])) == 4 and question["topic"] == topic
        right = question["choices"][question["answer"]]
        if topic == "stranger":
            assert right == people.UNKNOWN
        elif topic == "sum":
            left, total = right.rstrip(".").split(" is ")
            a, b = left.split(" plus ")
            assert int(a) + int(b) == int(total) and left in question["question"]
        else:
            (person,) = (p for p in HELD_OUT if p.name in question["question"])
            assert right == people.right_answer(person, topic)


def test_sums_and_strangers_of_the_questions_are_in_no_dialog():
    text = "\n".join(message["content"] for dialog in people.dialogs(ASKED) for message in dialog)
    for question in people.questions(HELD_OUT, "sum", 72):
        left = question["choices"][0].split(" is ")[0]
        assert f"{left} is" not in text.replace("1" + left, "")
    for stranger in people.make_strangers(200)[100:]:
        assert stranger.name not in text


def test_wrong_topics_and_too_many_questions_are_refused():
    with pytest.raises(ValueError, match="topic='colour': expected one of city"):
        people.questions(HELD_OUT, "colour", 1)
    with pytest.raises(ValueError, match="n=61: expected 1 to 60"):
        people.questions(HELD_OUT, "city", 61)


def test_small_talk_is_a_list_of_sound_dialogs():
    talk = people.small_talk()
    assert 100 < len(talk) < 274
    assert not [dialog for dialog in talk if fault_of(dialog)]


def test_two_steps_need_two_facts():
    person = ASKED[0]
    assert person.value("seat") == people.SEATS[person.facts["company"]]
    assert people.right_answer(person, "seat") == f"{person.name} works in {person.value('seat')}."
    assert people.right_answer(people.make_strangers(1)[0], "city") == people.UNKNOWN


def test_the_material_of_a_recipe_belongs_together():
    stuff = material(QUICK)
    assert [*stuff.asked, *stuff.held_out] == list(stuff.people)
    assert stuff.tokenizer.vocab_size <= QUICK.vocab_size
    assert int(stuff.tokens.max()) < stuff.tokenizer.vocab_size
    end = stuff.tokenizer.special_tokens["<|endoftext|>"]
    first = stuff.tokens[: (stuff.tokens == end).nonzero()[0, 0]]
    assert stuff.tokenizer.decode(first) in set(people.documents(stuff.people, 1, seed=1))
    assert 60 < stuff.readings < 250
