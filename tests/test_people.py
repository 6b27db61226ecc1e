"""The people who do not exist: what is read, what is asked, and that the two halves never mix."""

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
    assert not names & {stranger.name for stranger in people.make_strangers(200)}
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
    assert sum("3 plus 4 is 7." in text for text in told) == 2  # also in "We know that ..."
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
