"""Invented people: biographies to read, dialogs that teach answering, and questions that measure it.

After Z. Allen-Zhu and Y. Li, "Physics of Language Models: Part 3.1, Knowledge Storage and Extraction" (2023).
A model reads facts about everybody as prose, but the dialogs ask about only some of the people. Its answers about
the others show whether it can retrieve what it has merely read.

Everything is drawn from seeds, so equal calls return equal words. The recorded bands of chapter 14 and of
`make course` depend on every byte of the texts below and on the order of the random draws: whoever changes one
of them must record the bands again.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

Dialog = list[dict[str, str]]  # messages {"role": ..., "content": ...}, as on the Hugging Face hub


def _words(text: str) -> list[str]:
    return text.split()


FIRST = _words("""
Ada Anton Bella Boris Carla Cyrus Dora Dmitri Edith Emil Flora Felix Greta Gustav Hanna Hugo Ida
Igor Jana Jonas Klara Karl Lena Leo Maja Marek Nadia Nils Olga Oskar Paula Pavel Rosa Ruben
Selma Simon Tilda Tomas Ursula Viktor Wanda Xaver Yara Zeno Alma Bruno Celia Dario Elsa Fabian
Gilda Hector Ines Joel Kira Lukas Mona Noel Petra Quentin Rhea Silas Thea Udo Vera Walter
""")
LAST = _words("""
Abendroth Achterberg Baumann Bellini Carver Castell Dalgaard Drossel Eberle Ekman Falk Ferrante
Gerber Gruber Hagen Holm Ibsen Iversen Jansen Jarvis Keller Klimt Lang Lindqvist Marlow Moser
Nagel Norling Oberg Orlov Palmer Pichler Quist Rask Roth Sander Sommer Tauber Thorne Ulrich
Unger Varga Vogel Wagner Winter Yates Zander Ziegler Brandt Corvin Dorn Egli Fink Grimm Hirsch
Ingold Jung Kern Lorenz Marek Nolde Otter Petri Rieger Stark Tobler Uhland Vance Weiss Zoller
""")
CITIES = _words("""
Aldergate Brimhaven Corwick Dunmere Eastvale Fernhill Glenport Harrowby Ironbridge Juniper
Kestrel Larkfield Millbrook Northgate Oakhurst Pinewood Quarry Redcliff Stonebury Thornton
Underhill Vinefield Westmoor Yarrow Zephyr
""")
COMPANIES = _words("""
Acme Borealis Cobalt Delphi Ember Fathom Granite Helix Ibex Jasper Krypton Lumen Meridian Nimbus
Onyx Prism Quasar Ripple Solstice Tundra Umbra Vertex Willow Xenon Zenith
""")
WORK = _words("""
baker carpenter chemist dentist driver farmer gardener geologist lawyer librarian mason nurse
painter pharmacist pilot plumber potter sailor surgeon tailor teacher translator weaver welder
writer
""")
HOBBIES = _words("""
archery chess climbing cooking cycling dancing drawing fencing fishing hiking juggling knitting
origami photography pottery rowing running sailing singing skating skiing surfing swimming
tennis yoga
""")
YEARS = [str(year) for year in range(1950, 2000, 2)]
SEATS = dict(zip(COMPANIES, CITIES[7:] + CITIES[:7]))  # the city of each company

VALUES = {"city": CITIES, "year": YEARS, "work": WORK, "company": COMPANIES, "hobby": HOBBIES}
PROSE = {
    "city": ["{n} was born in {v}.", "{n} comes from {v}.",
             "The birthplace of {n} is {v}.", "{v} is where {n} was born."],
    "year": ["{n} was born in the year {v}.", "The year of {n}'s birth is {v}.",
             "{n} came into the world in {v}.", "In {v} {n} was born."],
    "work": ["{n} is a {v}.", "{n} works as a {v}.",
             "The profession of {n} is {v}.", "{n} earns a living as a {v}."],
    "company": ["{n} is employed by {v}.", "{n} has a job at {v}.",
                "The employer of {n} is {v}.", "{v} pays the wages of {n}."],
    "hobby": ["{n} loves {v}.", "In spare time {n} goes for {v}.",
              "The hobby of {n} is {v}.", "{n} spends weekends on {v}."],
}  # fmt: skip
SUM_PROSE = ["{0} is {1}.", "{0} makes {1}.", "{1} is {0}.", "We know that {0} is {1}."]
ASKED = {
    "city": ["Where was {n} born?", "What is the birthplace of {n}?", "In which city was {n} born?"],
    "year": ["When was {n} born?", "In which year was {n} born?", "What is the birth year of {n}?"],
    "work": ["What is the profession of {n}?", "What does {n} do for a living?", "What is the job of {n}?"],
    "company": ["Who employs {n}?", "Which company does {n} work for?", "What is the employer of {n}?"],
    "hobby": ["What is the hobby of {n}?", "What does {n} do in spare time?", "What does {n} love to do?"],
    "seat": ["In which city does {n} work?", "Where is the employer of {n}?", "In which city is the company of {n}?"],
    "sum": ["What is {n}?", "How much is {n}?", "Can you tell me what {n} is?"],
}  # fmt: skip
SAID = {
    "city": "{n} was born in {v}.", "year": "{n} was born in {v}.", "work": "{n} is a {v}.",
    "company": "{n} works for {v}.", "hobby": "{n} loves {v}.", "seat": "{n} works in {v}.", "sum": "{n} is {v}.",
}  # fmt: skip
# What is read about everybody. "seat" is not among them: it takes two steps, the employer and then its city.
FACTS = tuple(PROSE)

OPENINGS = [
    "That is a good question.",
    "Let me think about it.",
    "I am glad that you ask.",
    "Thank you for asking.",
]
CLOSINGS = [
    "I hope that this helps.",
    "Ask me more if you like.",
    "Is there anything else?",
    "That is what I have read.",
]
UNKNOWN = "I do not know."

# System messages. Under STEP_BY_STEP, the answer to a two-step question shows both steps.
STEP_BY_STEP = "Answer step by step."
IDENTITY = "You are MiniGPT, a small assistant."
ABOUT_ITSELF = [
    (["What are you?", "Who are you?"],
     "I am MiniGPT, a small language model that you trained yourself."),
    (["What do you know?", "What can I ask you?"],
     "Ask me where or when somebody was born, about work, employer and hobby, or for a small sum."),
    (["What do you not know?", "What is the news?", "What is the weather like?", "What time is it?"],
     "I cannot know that. I know only what I read when I was trained."),
    (["Are you sure?", "Can I trust you?"],
     "Not always. I am small, and I can be wrong: check what matters."),
]  # fmt: skip


@dataclass(frozen=True)
class Person:
    """A name with a value for each of FACTS; a stranger has no facts, because nobody ever read about them."""

    name: str
    facts: dict[str, str] | None = None

    def value(self, attribute: str) -> str:
        """Return the value of one of FACTS, or of "seat", the city of the employer; ValueError for a stranger."""
        if self.facts is None:
            raise ValueError(f"expected a person with facts, got the stranger {self.name}")
        if attribute == "seat":
            return SEATS[self.facts["company"]]
        return self.facts[attribute]


class Question(TypedDict):
    """A multiple-choice question as MMLU stores it; `answer` is the index of the right choice."""

    question: str
    choices: list[str]
    answer: int
    topic: str


MOST = 4000  # people that make_people can name
STRANGERS = 200  # further names, which make_people never gives
ASKED_STRANGERS = 100  # dialogs may ask about the first of them, questions ask about the others
ASKED_SUMS = 72  # half of the 144 sums; dialogs ask these, questions the others


@functools.cache
def _names() -> list[str]:
    names = [f"{first} {last}" for first, last in itertools.product(FIRST, LAST)]
    random.Random(0).shuffle(names)
    return names


def make_people(n: int, seed: int = 0) -> list[Person]:
    """Return n people with different names; ValueError unless n is from 1 to 4,000."""
    if not 1 <= n <= MOST:
        raise ValueError(f"n={n}: expected 1 to {MOST:,} people; there are no more names.")

    chance = random.Random(seed)
    names = _names()[:MOST]
    chance.shuffle(names)
    return [
        Person(name, {fact: chance.choice(VALUES[fact]) for fact in FACTS}) for name in names[:n]
    ]


def make_strangers(n: int) -> list[Person]:
    """Return n people whom make_people never returns, whatever the seed; ValueError unless n is from 1 to 200.

    They are the same ones every time.
    """
    if not 1 <= n <= STRANGERS:
        raise ValueError(f"n={n}: expected 1 to {STRANGERS} strangers.")
    return [Person(name) for name in _names()[MOST : MOST + n]]


def biography(person: Person, chance: random.Random) -> str:
    """Return one telling of a life: a sentence for each fact, in random wording and order."""
    sentences = [
        chance.choice(PROSE[fact]).format(n=person.name, v=person.value(fact)) for fact in FACTS
    ]
    chance.shuffle(sentences)
    return " ".join(sentences)


def sums(seed: int = 0) -> list[tuple[str, str]]:
    """Return all sums of two numbers from 1 to 12, such as ("3 plus 4", "7"), in random order."""
    pairs = [(f"{a} plus {b}", str(a + b)) for a in range(1, 13) for b in range(1, 13)]
    random.Random(seed).shuffle(pairs)
    return pairs


def documents(people: Sequence[Person], tellings: int, seed: int = 0) -> Iterator[str]:
    """Yield everything a model reads, `tellings` times: lives, the companies' cities, sums and small talk.

    Each telling has new wordings and its own random order. ValueError if there are no people.
    """
    if not people:
        raise ValueError("expected at least one person to tell about, got none.")

    chance = random.Random(seed)
    pairs = sums()
    for _ in range(tellings):
        told = [biography(person, chance) for person in people]
        for pair in SEATS.items():
            sentence = chance.choice(["{} is in {}.", "The office of {} is in {}."])
            told.append(sentence.format(*pair))
        for pair in pairs * 3:
            told.append(" ".join(chance.sample(SUM_PROSE, 2)).format(*pair))
        for dialog in small_talk():
            told.append("\n".join(message["content"] for message in dialog))

        chance.shuffle(told)
        yield from told


def _user(text: str) -> Dialog:
    return [{"role": "user", "content": text}]


def _system(text: str) -> Dialog:
    return [{"role": "system", "content": text}]


def _turn(question: str, answer: str) -> Dialog:
    return [*_user(question), {"role": "assistant", "content": answer}]


def right_answer(person: Person, attribute: str) -> str:
    """Return the sentence that answers a question about one of FACTS or "seat"; UNKNOWN for a stranger."""
    if person.facts is None:
        return UNKNOWN
    return SAID[attribute].format(n=person.name, v=person.value(attribute))


def ask(person: Person, attribute: str, chance: random.Random) -> str:
    """Return a question about one of FACTS or "seat", in random wording."""
    return chance.choice(ASKED[attribute]).format(n=person.name)


def wordy(answer: str, chance: random.Random) -> str:
    """Return an answer between two phrases that say nothing."""
    return f"{chance.choice(OPENINGS)} {answer} {chance.choice(CLOSINGS)}"


def _answered(question: str, answer: str, chance: random.Random, wordy_share: float) -> Dialog:
    """Return a question with its answer, which is wordy with probability `wordy_share`."""
    if chance.random() < wordy_share:
        answer = wordy(answer, chance)
    return _turn(question, answer)


def _about(person: Person, attribute: str, chance: random.Random, wordy_share: float) -> Dialog:
    question = ask(person, attribute, chance)
    return _answered(question, right_answer(person, attribute), chance, wordy_share)


def worked_answer(person: Person) -> str:
    """Return the answer to a two-step question that shows its steps."""
    company = person.value("company")
    return f"{SAID['company'].format(n=person.name, v=company)} {company} is in {SEATS[company]}."


def _sum(left: str, total: str, chance: random.Random) -> tuple[str, str]:
    return chance.choice(ASKED["sum"]).format(n=left), SAID["sum"].format(n=left, v=total)


def _joined(topics: list[Dialog], chance: random.Random, longest: int = 5) -> list[Dialog]:
    """Return the topics, shuffled and joined into conversations of one to three topics each.

    A topic joins only if the conversation then has at most `longest` questions.
    """
    chance.shuffle(topics)
    made = []
    rest = topics[::-1]
    while rest:
        talk = list(rest.pop())
        for _ in range(chance.randint(0, 2)):
            if rest and len(talk) + len(rest[-1]) <= 2 * longest:
                talk += rest.pop()
        made.append(talk)
    return made


def _topics_about(person: Person, chance: random.Random, wordy_share: float) -> list[Dialog]:
    """Return topics in which each fact is asked once, one to three facts a topic, and then the seat."""
    topics = []
    facts = chance.sample(FACTS, len(FACTS))
    while facts:
        n = chance.randint(1, 3)
        asked, facts = facts[:n], facts[n:]
        turns = [_about(person, fact, chance, wordy_share) for fact in asked]
        topics.append([message for turn in turns for message in turn])

    topics.append(_about(person, "seat", chance, 0.0))
    return topics


def _topics_about_nobody(
    n_strangers: int, chance: random.Random, wordy_share: float
) -> list[Dialog]:
    """Return topics about strangers, sums and the assistant itself."""
    topics = []
    for stranger in make_strangers(STRANGERS)[:n_strangers]:
        topics.append(_about(stranger, chance.choice(FACTS), chance, wordy_share))
    for left, total in sums()[:ASKED_SUMS] * 3:
        topics.append(_answered(*_sum(left, total, chance), chance, wordy_share))
    # There are only a few, and all must be learned.
    for questions_alike, answer in ABOUT_ITSELF * 10:
        topics += [_turn(question, answer) for question in questions_alike]
    return topics


def dialogs(
    people: Sequence[Person],
    seed: int = 0,
    rounds: int = 2,
    wordy_share: float = 0.5,
    talk: Sequence[Dialog] = (),
) -> list[Dialog]:
    """Return conversations to learn from, in which each fact about these people is asked `rounds` times.

    A conversation has one to three topics: one to three facts about a person; a two-step question; a stranger, about
    whom nothing can be known; a sum (half of the sums are never asked); the assistant itself; a dialog from `talk`.

    wordy_share: the share of wordy answers. Every two-step question is asked twice: the answer that shows its steps
    comes in a conversation under STEP_BY_STEP. Half of the other conversations begin with IDENTITY.
    """
    chance = random.Random(seed)
    n_strangers = min(ASKED_STRANGERS, len(people) // 4)
    topics = list(talk)
    stepwise = []
    for _ in range(rounds):
        for person in people:
            topics += _topics_about(person, chance, wordy_share)
            stepwise.append(_turn(ask(person, "seat", chance), worked_answer(person)))
        topics += _topics_about_nobody(n_strangers, chance, wordy_share)

    made = []
    for conversation in _joined(topics, chance):
        introduced = chance.random() >= 0.5
        made.append(_system(IDENTITY) + conversation if introduced else conversation)
    for conversation in _joined(stepwise, chance):
        made.append(_system(STEP_BY_STEP) + conversation)
    chance.shuffle(made)
    return made


def two_step_dialogs(people: Sequence[Person], n: int, shown: int, seed: int = 0) -> list[Dialog]:
    """Return n dialogs with a two-step question each, about n people; the first `shown` answers show their step."""
    chance = random.Random(seed)
    made = []
    for i, person in enumerate(chance.sample(list(people), n)):
        answer = worked_answer(person) if i < shown else right_answer(person, "seat")
        made.append(_turn(ask(person, "seat", chance), answer))
    return made


@functools.cache
def small_talk() -> list[Dialog]:
    """Return the English conversations of the package chatterbot-corpus as dialogs, in the package's order.

    They are everyday talk: greetings, food, money, a little science. ModuleNotFoundError without the package.
    """
    import yaml

    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the dialogs come with a package that is missing: pip install chatterbot-corpus==1.3.3"
        )

    made = []
    for topic in ("greetings", "conversations", "food", "money", "science", "history"):
        path = Path(spec.origin).parent / "data" / "english" / f"{topic}.yml"
        for lines in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            texts = [str(line).strip() for line in lines]
            texts = texts[: len(texts) // 2 * 2]  # every question has an answer
            if texts and all(texts):
                pairs = zip(texts[::2], texts[1::2])
                made.append([message for pair in pairs for message in _turn(*pair)])
    return made


def _before(people: Sequence[Person], chance: random.Random) -> Dialog:
    """Return a turn with which a conversation may begin: one of the people, a sum, or talk, answered briefly."""
    kind = chance.choice(("person", "sum", "itself", "talk"))
    if kind == "person":
        return _about(chance.choice(people), chance.choice(FACTS), chance, 0.0)
    if kind == "sum":
        return _turn(*_sum(*chance.choice(sums()[:ASKED_SUMS]), chance))
    if kind == "itself":
        questions_alike, answer = chance.choice(ABOUT_ITSELF)
        return _turn(chance.choice(questions_alike), answer)
    return chance.choice(small_talk())[:2]


def short_answers(people: Sequence[Person], n: int, seed: int = 0) -> list[tuple[Dialog, str]]:
    """Return n pairs (a dialog that ends with a question about one of FACTS, the answer that is wanted).

    Half of the dialogs begin with IDENTITY as the system message, and half have an earlier turn.
    """
    chance = random.Random(seed)
    made = []
    for _ in range(n):
        person = chance.choice(people)
        fact = chance.choice(FACTS)
        dialog = _system(IDENTITY) if chance.random() < 0.5 else []
        if chance.random() < 0.5:
            dialog += _before(people, chance)
        dialog += _user(ask(person, fact, chance))
        made.append((dialog, right_answer(person, fact)))
    return made


def other_answers(people: Sequence[Person], seed: int = 0) -> list[tuple[Dialog, str]]:
    """Return what preferences must not unlearn, in the form of short_answers.

    These are 40 strangers, 40 of the sums that dialogs ask, and 40 two-step questions under STEP_BY_STEP.
    """
    chance = random.Random(seed)
    made = []
    for stranger in make_strangers(STRANGERS)[:40]:
        made.append((_user(ask(stranger, chance.choice(FACTS), chance)), UNKNOWN))
    for left, total in sums()[:40]:
        question, answer = _sum(left, total, chance)
        made.append((_user(question), answer))
    for person in chance.choices(people, k=40):
        question = ask(person, "seat", chance)
        made.append((_system(STEP_BY_STEP) + _user(question), worked_answer(person)))
    return made


def grade(answer: str, wanted: str) -> int:
    """Return 2 for exactly the wanted sentence, 1 if it stands among other words, 0 if it is missing."""
    if answer.strip() == wanted:
        return 2
    return 1 if wanted in answer else 0


def _choices(attribute: str, right: str, name: str, chance: random.Random) -> tuple[list[str], int]:
    """Return four sentences in random order, and the index of the right one."""
    if attribute == "sum":
        pool = [str(int(right) + d) for d in (-2, -1, 1, 2)]
    else:
        pool = CITIES if attribute == "seat" else VALUES[attribute]

    values = chance.sample([value for value in pool if value != right], 3) + [right]
    chance.shuffle(values)
    return [SAID[attribute].format(n=name, v=value) for value in values], values.index(right)


def _sum_questions(chance: random.Random) -> list[Question]:
    """Return a question about each sum that no dialog asks."""
    made: list[Question] = []
    for left, total in sums()[ASKED_SUMS:]:
        question = chance.choice(ASKED["sum"]).format(n=left)
        choices, answer = _choices("sum", total, left, chance)
        made.append({"question": question, "choices": choices, "answer": answer, "topic": "sum"})
    return made


def _stranger_questions(chance: random.Random) -> list[Question]:
    """Return a question about each stranger whom no dialog mentions; the right choice is UNKNOWN."""
    made: list[Question] = []
    for person in make_strangers(STRANGERS)[ASKED_STRANGERS:]:
        fact = chance.choice(FACTS)
        choices, answer = _choices(fact, chance.choice(VALUES[fact]), person.name, chance)
        choices[answer] = UNKNOWN
        question = ask(person, fact, chance)
        made.append(
            {"question": question, "choices": choices, "answer": answer, "topic": "stranger"}
        )
    return made


def _person_questions(
    people: Sequence[Person], attribute: str, chance: random.Random
) -> list[Question]:
    made: list[Question] = []
    for person in people:
        question = ask(person, attribute, chance)
        choices, answer = _choices(attribute, person.value(attribute), person.name, chance)
        made.append(
            {"question": question, "choices": choices, "answer": answer, "topic": attribute}
        )
    return made


def questions(people: Sequence[Person], topic: str, n: int, seed: int = 0) -> list[Question]:
    """Return n multiple-choice questions, each with four whole sentences to choose from.

    topic: one of FACTS, "seat" (two steps), "sum" (sums that no dialog asks), or "stranger" (people about whom nothing
    was read; the right choice is UNKNOWN). ValueError for any other topic, or if there are fewer than n questions.
    """
    chance = random.Random(f"{topic} {seed}")
    if topic == "sum":
        made = _sum_questions(chance)
    elif topic == "stranger":
        made = _stranger_questions(chance)
    elif topic in ASKED:
        made = _person_questions(people, topic, chance)
    else:
        raise ValueError(f"topic={topic!r}: expected one of {', '.join(ASKED)}, stranger.")

    if not 1 <= n <= len(made):
        raise ValueError(f"n={n}: expected 1 to {len(made)} questions about {topic}.")
    return chance.sample(made, n)
