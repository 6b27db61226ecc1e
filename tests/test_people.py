"""The invented people: what is read about them, what is asked about them, and that the two halves never mix."""

from __future__ import annotations

import re
from collections import Counter

import nbformat
import pytest

from courseware import paths
from courseware.material import people
from courseware.runs.recipe import QUICK, material
from minigpt_lib.chat import fault_of

EVERYBODY = people.make_people(120)
ASKED = EVERYBODY[:60]
HELD_OUT = EVERYBODY[60:]
PERSON_CALLED = {person.name: person for person in EVERYBODY}


def contents(dialogs):
    """Return the text of every message."""
    return "\n".join(message["content"] for dialog in dialogs for message in dialog)


def questions_in(dialog):
    return [message["content"] for message in dialog if message["role"] == "user"]


def exchanges_in(dialogs):
    """Yield every question of the dialogs with its answer."""
    for dialog in dialogs:
        for question, answer in zip(dialog[-2::-2], dialog[::-2], strict=False):
            yield question["content"], answer["content"]


def invalid(dialogs):
    return [dialog for dialog in dialogs if fault_of(dialog)]


# ---------------------------------------------------------------- people and documents


def test_the_seed_determines_the_people():
    assert people.make_people(120) == EVERYBODY
    assert people.make_people(120, seed=1) != EVERYBODY
    assert people.make_people(300)[:120] != people.make_people(300, seed=2)[:120]


def test_the_seed_determines_the_documents():
    assert list(people.documents(ASKED, 2, 3)) == list(people.documents(ASKED, 2, 3))
    assert list(people.documents(ASKED, 2, 3)) != list(people.documents(ASKED, 2, 4))


def test_the_seed_determines_the_dialogs():
    assert people.dialogs(ASKED, 5) == people.dialogs(ASKED, 5)
    assert people.dialogs(ASKED, 5) != people.dialogs(ASKED, 6)


def test_names_are_unique_and_never_those_of_strangers():
    strangers = {stranger.name for stranger in people.make_strangers(200)}
    assert len(strangers) == 200

    for seed in range(3):
        names = {person.name for person in people.make_people(4000, seed)}
        assert len(names) == 4000
        assert not strangers & names


def test_every_city_occurs():
    cities = {person.value("city") for person in people.make_people(4000)}

    assert cities == set(people.CITIES)


@pytest.mark.parametrize("make", [people.make_people, people.make_strangers])
@pytest.mark.parametrize("n", [0, -1, 4001])
def test_an_impossible_number_of_people_is_refused(make, n):
    with pytest.raises(ValueError, match=f"n={n}: expected 1 to"):
        make(n)


@pytest.fixture(scope="module")
def one_reading():
    """Return the documents that state everything once."""
    return list(people.documents(ASKED, 1))


def test_the_documents_state_every_fact_about_everybody_once(one_reading):
    for person in ASKED:
        (biography,) = (text for text in one_reading if person.name in text)
        assert biography.count(person.name) == len(people.FACTS)
        assert biography.count(".") == len(people.FACTS)
        assert all(person.facts[fact] in biography for fact in people.FACTS)


def test_the_documents_state_the_city_of_every_company_once(one_reading):
    for company, city in people.SEATS.items():
        assert sum(f"{company} is in {city}." in text for text in one_reading) == 1


def test_the_documents_repeat_every_sum_in_three_of_them(one_reading):
    sums = [text for text in one_reading if re.search(r"\b3 plus 4\b", text)]

    assert [text.count("3 plus 4") for text in sums] == [2, 2, 2]
    assert [text.count("7") for text in sums] == [2, 2, 2]


def test_three_readings_have_three_times_as_many_documents(one_reading):
    assert len(list(people.documents(ASKED, 3))) == 3 * len(one_reading)


def test_the_biographies_of_a_person_differ_in_their_wording():
    biographies = [text for text in people.documents(ASKED[:1], 30) if ASKED[0].name in text]

    assert len(set(biographies)) > 25


# ---------------------------------------------------------------- dialogs


def test_dialogs_are_valid_and_ask_only_about_the_given_people():
    dialogs = people.dialogs(ASKED)

    assert not invalid(dialogs)
    text = contents(dialogs)
    assert all(person.name in text for person in ASKED)
    assert not any(person.name in text for person in HELD_OUT)


def test_every_answer_about_a_person_is_true():
    answered = 0

    for question, answer in exchanges_in(people.dialogs(ASKED)):
        names = [person.name for person in ASKED if person.name in question]
        if not names:
            continue

        (name,) = names
        topic = next(
            topic
            for topic, ways in people.ASKED.items()
            if any(way.format(n=name) == question for way in ways)
        )
        assert PERSON_CALLED[name].value(topic) in answer
        answered += 1

    assert answered > 5 * len(ASKED)


@pytest.fixture(scope="module")
def talk():
    return people.small_talk()


@pytest.fixture(scope="module")
def dialogs_with_talk(talk):
    return people.dialogs(ASKED, talk=talk)


def names_in(dialog):
    """Return the names of the people whom a dialog asks about."""
    asked = "\n".join(questions_in(dialog))
    return {person.name for person in ASKED if person.name in asked}


def test_dialogs_with_small_talk_are_valid_and_not_too_long(talk, dialogs_with_talk):
    longest = max(len(questions_in(dialog)) for dialog in talk)

    assert not invalid(dialogs_with_talk)
    assert max(len(questions_in(dialog)) for dialog in dialogs_with_talk) == max(5, longest)


def test_many_dialogs_go_on_to_another_person(dialogs_with_talk):
    several = [dialog for dialog in dialogs_with_talk if len(names_in(dialog)) > 1]

    assert len(several) > len(dialogs_with_talk) / 8


def test_some_dialogs_ask_about_a_person_after_small_talk(talk, dialogs_with_talk):
    small = {question for dialog in talk for question in questions_in(dialog)}
    after_talk = [
        dialog
        for dialog in dialogs_with_talk
        if questions_in(dialog)[0] in small and names_in(dialog)
    ]

    assert len(after_talk) > 10


def test_no_small_talk_is_lost(talk, dialogs_with_talk):
    asked = {question for dialog in dialogs_with_talk for question in questions_in(dialog)}

    for dialog in talk:
        assert asked.issuperset(questions_in(dialog))


def test_small_talk_is_a_list_of_valid_dialogs(talk):
    assert 100 < len(talk) < 274
    assert not invalid(talk)


def test_steps_are_shown_only_where_the_system_message_asks_for_them():
    stepwise = 0

    for dialog in people.dialogs(ASKED):
        asks_for_steps = dialog[0]["content"] == people.STEP_BY_STEP
        for question, answer in exchanges_in([dialog]):
            of_persons = [person for person in ASKED if answer == people.worked_answer(person)]
            assert bool(of_persons) == asks_for_steps
            for person in of_persons[:1]:
                assert person.name in question
                assert answer.endswith(f" {person.value('seat')}.")
                stepwise += 1

    assert stepwise == 2 * len(ASKED)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.5, 0.3, 0.6), (1.0, 0.6, 1.0)])
def test_the_given_share_of_answers_is_wordy(share, low, high):
    openings = tuple(f"{opening} " for opening in people.OPENINGS)

    turns = [
        message["content"]
        for dialog in people.dialogs(ASKED, wordy_share=share)
        for message in dialog
        if message["role"] == "assistant"
    ]

    assert low <= sum(text.startswith(openings) for text in turns) / len(turns) <= high


# ---------------------------------------------------------------- preferences


def test_the_preferred_answers_complete_valid_dialogs():
    for dialog, wanted in people.short_answers(HELD_OUT, 200) + people.other_answers(HELD_OUT):
        assert dialog[-1]["role"] == "user"
        assert fault_of([*dialog, {"role": "assistant", "content": wanted}]) is None


def test_the_short_answers_are_true():
    for dialog, wanted in people.short_answers(HELD_OUT, 200):
        (person,) = (person for person in HELD_OUT if person.name in dialog[-1]["content"])
        assert wanted in {people.right_answer(person, fact) for fact in people.FACTS}


def test_half_of_the_short_answers_follow_a_system_message_or_another_turn():
    short = people.short_answers(HELD_OUT, 200)

    identity = {"role": "system", "content": people.IDENTITY}
    assert 70 < sum(dialog[0] == identity for dialog, _ in short) < 130
    assert 70 < sum(len(questions_in(dialog)) == 2 for dialog, _ in short) < 130


def test_the_seed_determines_the_short_answers():
    assert people.short_answers(ASKED, 9) == people.short_answers(ASKED, 9)
    assert people.short_answers(ASKED, 9) != people.short_answers(ASKED, 9, 1)


def test_the_first_of_the_two_step_dialogs_show_their_step():
    made = people.two_step_dialogs(ASKED, 8, shown=3)

    assert people.two_step_dialogs(ASKED, 8, shown=3) == made
    assert people.two_step_dialogs(ASKED, 8, shown=3, seed=1) != made
    for i, (question, answer) in enumerate(made):
        (person,) = (one for one in ASKED if one.name in question["content"])
        assert question["role"] == "user"
        assert answer["content"].endswith(f" {person.value('seat')}.")
        assert (f" for {person.value('company')}." in answer["content"]) == (i < 3)
    assert len({question["content"] for question, _ in made}) == 8, "nobody twice"


def test_the_other_answers_refuse_strangers_add_numbers_and_show_steps():
    other = people.other_answers(HELD_OUT)

    assert [wanted for _, wanted in other[:40]] == [people.UNKNOWN] * 40
    assert all(" plus " in wanted for _, wanted in other[40:80])
    for dialog, wanted in other[80:]:
        assert dialog[0]["content"] == people.STEP_BY_STEP
        assert wanted.count(".") == 2


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize("topic", [*people.ASKED, "stranger"])
def test_questions_have_four_different_choices_one_of_them_right(topic):
    asked = people.questions(HELD_OUT, topic, 40)
    assert {question["answer"] for question in asked} == {0, 1, 2, 3}

    for question in asked:
        assert len(set(question["choices"])) == 4
        assert question["topic"] == topic

        right = question["choices"][question["answer"]]
        if topic == "stranger":
            assert right == people.UNKNOWN
        elif topic == "sum":
            left, total = right.rstrip(".").split(" is ")
            a, b = left.split(" plus ")
            assert int(a) + int(b) == int(total)
            assert left in question["question"]
        else:
            (person,) = (p for p in HELD_OUT if p.name in question["question"])
            assert right == people.right_answer(person, topic)


def test_no_dialog_contains_a_sum_or_a_stranger_of_the_questions():
    text = contents(people.dialogs(ASKED))

    for question in people.questions(HELD_OUT, "sum", 72):
        left = question["choices"][0].split(" is ")[0]
        assert f"{left} is" not in text.replace("1" + left, "")
    for stranger in people.make_strangers(200)[100:]:
        assert stranger.name not in text


def test_an_unknown_topic_is_refused():
    with pytest.raises(ValueError, match="topic='colour': expected one of city"):
        people.questions(HELD_OUT, "colour", 1)


def test_more_questions_than_people_are_refused():
    with pytest.raises(ValueError, match="n=61: expected 1 to 60"):
        people.questions(HELD_OUT, "city", 61)


def test_the_place_of_work_follows_from_two_facts():
    person = ASKED[0]

    assert person.value("seat") == people.SEATS[person.facts["company"]]
    assert people.right_answer(person, "seat") == f"{person.name} works in {person.value('seat')}."


def test_the_right_answer_about_a_stranger_is_that_nobody_knows():
    assert people.right_answer(people.make_strangers(1)[0], "city") == people.UNKNOWN


# ---------------------------------------------------------------- the material of a recipe


def test_the_parts_of_the_material_match():
    stuff = material(QUICK)

    assert [*stuff.asked, *stuff.held_out] == list(stuff.people)
    assert stuff.tokenizer.vocab_size <= QUICK.vocab_size
    assert int(stuff.tokens.max()) < stuff.tokenizer.vocab_size
    assert 60 < stuff.readings < 250

    end = stuff.tokenizer.special_tokens["<|endoftext|>"]
    first = stuff.tokens[: (stuff.tokens == end).nonzero()[0, 0]]
    assert stuff.tokenizer.decode(first) in set(people.documents(stuff.people, 1, seed=1))


def test_chapter_14_says_how_often_each_fact_is_asked():
    stuff = material(QUICK)
    asked = Counter(question for question, _ in exchanges_in(stuff.dialogs))
    chapter = nbformat.read(paths.CODE / "notebooks" / "14_sft.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in chapter.cells)
    (times,) = re.findall(r"\| facts about people .* \| each fact (\w+) \|", text)
    (steps,) = re.findall(r"\| in which city each of them works.* \| (\w+): ", text)

    for person in stuff.asked:
        for fact in people.FACTS:
            wordings = [wording.format(n=person.name) for wording in people.ASKED[fact]]
            assert sum(asked[question] for question in wordings) == {"once": 1, "twice": 2}[times]
        wordings = [wording.format(n=person.name) for wording in people.ASKED["seat"]]
        assert sum(asked[question] for question in wordings) == {"once": 1, "twice": 2}[steps]


def test_the_only_questions_that_are_read_are_those_of_the_small_talk():
    read = list(people.documents(EVERYBODY, 1))
    with_questions = {text for text in read if "?" in text}
    talk = {"\n".join(message["content"] for message in dialog) for dialog in people.small_talk()}

    assert with_questions, "chapter 14 says that there are some"
    assert with_questions <= talk
    assert not [text for text in read if people.UNKNOWN in text]
