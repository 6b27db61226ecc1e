"""People who do not exist: biographies to read, dialogs to learn answering from, questions to measure with.

After Z. Allen-Zhu and Y. Li, "Physics of Language Models: Part 3.1, Knowledge Storage and Extraction" (2023). Facts
about everybody are read as prose; dialogs ask about one part of the people only. What a model then answers about the
others shows whether it can reach what it has merely read. All is drawn from seeds: the same call, the same words.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


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
SEATS = dict(zip(COMPANIES, CITIES[7:] + CITIES[:7]))  # where each company is

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
FACTS = tuple(
    PROSE
)  # what is read about everybody; "seat" takes two steps: the employer, then its city
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
STEP_BY_STEP = (
    "Answer step by step."  # the system message under which a two-step answer shows its steps
)
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
    """A name, and a value for each of FACTS; a stranger has no facts: nobody ever read of them."""

    name: str
    facts: dict[str, str] | None = None

    def value(self, attribute: str) -> str:
        """Return the value of one of FACTS, or of "seat", the city of the employer."""
        return SEATS[self.facts["company"]] if attribute == "seat" else self.facts[attribute]


@functools.cache
def _names() -> list[str]:
    names = [f"{first} {last}" for first, last in itertools.product(FIRST, LAST)]
    random.Random(0).shuffle(names)
    return names


MOST, STRANGERS = 4000, 200  # names for people, and others that are nobody's


def make_people(n: int, seed: int = 0) -> list[Person]:
    """Return n people with different names; ValueError unless there are 1 to 4,000 of them."""
    if not 1 <= n <= MOST:
        raise ValueError(f"n={n}: expected 1 to {MOST:,} people; the names allow no more.")
    chance, names = random.Random(seed), _names()[:MOST]
    chance.shuffle(names)
    return [
        Person(name, {fact: chance.choice(VALUES[fact]) for fact in FACTS}) for name in names[:n]
    ]


def make_strangers(n: int) -> list[Person]:
    """Return n names that make_people never gives, whatever the seed: 1 to 200, always the same."""
    if not 1 <= n <= STRANGERS:
        raise ValueError(f"n={n}: expected 1 to {STRANGERS} strangers.")
    return [Person(name) for name in _names()[MOST : MOST + n]]


def biography(person: Person, chance: random.Random) -> str:
    """Return one telling of a life: a sentence for each fact, wording and order by chance."""
    sentences = [
        chance.choice(PROSE[fact]).format(n=person.name, v=person.value(fact)) for fact in FACTS
    ]
    chance.shuffle(sentences)
    return " ".join(sentences)


def sums(seed: int = 0) -> list[tuple[str, str]]:
    """Return all sums of two numbers from 1 to 12 as ("3 plus 4", "7"), in an order by chance."""
    pairs = [(f"{a} plus {b}", str(a + b)) for a in range(1, 13) for b in range(1, 13)]
    random.Random(seed).shuffle(pairs)
    return pairs


def documents(people: Sequence[Person], tellings: int, seed: int = 0) -> Iterator[str]:
    """Yield what a model reads: lives in other words at each telling, the companies' cities, small sums, small talk.

    A telling of everything comes in an order by chance, then the next: `tellings` of them. ValueError without people.
    """
    if not people:
        raise ValueError("expected at least one of the people.")
    chance, pairs = random.Random(seed), sums()
    for _ in range(tellings):
        told = [biography(person, chance) for person in people]
        told += [
            chance.choice(["{} is in {}.", "The office of {} is in {}."]).format(*pair)
            for pair in SEATS.items()
        ]
        for pair in pairs * 3:
            told.append(" ".join(chance.sample(SUM_PROSE, 2)).format(*pair))
        told += ["\n".join(turn["content"] for turn in dialog) for dialog in small_talk()]
        chance.shuffle(told)
        yield from told


def _turn(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def right_answer(person: Person, attribute: str) -> str:
    """Return the sentence that answers a question about one of FACTS or "seat"; UNKNOWN for a stranger."""
    return (
        UNKNOWN
        if person.facts is None
        else SAID[attribute].format(n=person.name, v=person.value(attribute))
    )


def ask(person: Person, attribute: str, chance: random.Random) -> str:
    """Return a question about one of FACTS or "seat", its wording by chance."""
    return chance.choice(ASKED[attribute]).format(n=person.name)


def wordy(answer: str, chance: random.Random) -> str:
    """Return an answer between two phrases that say nothing."""
    return f"{chance.choice(OPENINGS)} {answer} {chance.choice(CLOSINGS)}"


def _answered(question: str, answer: str, chance: random.Random, wordy_share: float) -> list[dict]:
    """Return the turn of a question; a share of the answers is wordy."""
    return _turn(question, wordy(answer, chance) if chance.random() < wordy_share else answer)


def _about(person: Person, attribute: str, chance: random.Random, wordy_share: float) -> list[dict]:
    question = ask(person, attribute, chance)
    return _answered(question, right_answer(person, attribute), chance, wordy_share)


def _steps(person: Person) -> str:
    """Return the answer to a two-step question that shows its steps."""
    company = person.facts["company"]
    return f"{SAID['company'].format(n=person.name, v=company)} {company} is in {SEATS[company]}."


def _sum(left: str, total: str, chance: random.Random) -> tuple[str, str]:
    return chance.choice(ASKED["sum"]).format(n=left), SAID["sum"].format(n=left, v=total)


def _joined(topics: list[list[dict]], chance: random.Random, longest: int = 5) -> list[list[dict]]:
    """Return conversations of one to three of the topics, by chance, of at most `longest` questions if they can."""
    chance.shuffle(topics)
    made, rest = [], topics[::-1]
    while rest:
        talk = list(rest.pop())
        for _ in range(chance.randint(0, 2)):
            if rest and len(talk) + len(rest[-1]) <= 2 * longest:
                talk += rest.pop()
        made.append(talk)
    return made


def dialogs(
    people: Sequence[Person],
    seed: int = 0,
    rounds: int = 2,
    wordy_share: float = 0.5,
    talk: Sequence[list[dict]] = (),
) -> list[list[dict]]:
    """Return conversations to learn from, in which each fact of these people is asked `rounds` times.

    One goes through one to three topics: a person, of whom 1 to 3 facts are asked; a two-step question; a stranger,
    whom nobody can know; a sum, of which half are ever asked; the assistant itself; one of the dialogs in `talk`. A
    share of the answers is wordy. Two-step questions come twice: under STEP_BY_STEP as the system message the answer
    shows its steps. Half of the other conversations begin with IDENTITY.
    """
    chance, topics, stepwise = random.Random(seed), list(talk), []
    for _ in range(rounds):
        for person in people:
            facts = chance.sample(FACTS, len(FACTS))
            while facts:
                asked, facts = facts[: (n := chance.randint(1, 3))], facts[n:]
                turns = [_about(person, fact, chance, wordy_share) for fact in asked]
                topics.append([message for turn in turns for message in turn])
            topics.append(_about(person, "seat", chance, 0.0))
            stepwise.append(_turn(ask(person, "seat", chance), _steps(person)))
        for stranger in make_strangers(200)[: min(100, len(people) // 4)]:
            topics.append(_about(stranger, chance.choice(FACTS), chance, wordy_share))
        for left, total in sums()[:72] * 3:
            topics.append(_answered(*_sum(left, total, chance), chance, wordy_share))
        for asked_so, answer in ABOUT_ITSELF * 10:  # so few, and all of them must be known
            topics += [_turn(question, answer) for question in asked_so]
    made = [
        talk if chance.random() < 0.5 else [{"role": "system", "content": IDENTITY}, *talk]
        for talk in _joined(topics, chance)
    ]
    made += [
        [{"role": "system", "content": STEP_BY_STEP}, *talk] for talk in _joined(stepwise, chance)
    ]
    chance.shuffle(made)
    return made


@functools.cache
def small_talk() -> list[list[dict]]:
    """Return the English conversations of the package chatterbot-corpus as dialogs, in its order.

    Everyday talk: greetings, food, money, a little science. Raises ModuleNotFoundError without the package.
    """
    import yaml

    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None:
        raise ModuleNotFoundError(
            "the dialogs come with a package: pip install chatterbot-corpus==1.3.3"
        )
    made = []
    for topic in ("greetings", "conversations", "food", "money", "science", "history"):
        path = Path(spec.origin).parent / "data" / "english" / f"{topic}.yml"
        for lines in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            turns = [str(line).strip() for line in lines][: len(lines) // 2 * 2]
            if turns and all(turns):
                made.append(
                    [turn for i in range(0, len(turns), 2) for turn in _turn(*turns[i : i + 2])]
                )
    return made


def _before(people: Sequence[Person], chance: random.Random) -> list[dict]:
    """Return a turn that a conversation may begin with: a short answer about one of the people, a sum, or talk."""
    kind = chance.choice(("person", "sum", "itself", "talk"))
    if kind == "person":
        return _about(chance.choice(people), chance.choice(FACTS), chance, 0.0)
    if kind == "sum":
        return _turn(*_sum(*chance.choice(sums()[:72]), chance))
    if kind == "itself":
        asked_so, answer = chance.choice(ABOUT_ITSELF)
        return _turn(chance.choice(asked_so), answer)
    return chance.choice(small_talk())[:2]


def short_answers(people: Sequence[Person], n: int, seed: int = 0) -> list[tuple[list[dict], str]]:
    """Return n pairs (dialog that ends with a question about one of FACTS, the sentence that is wanted).

    Half of the dialogs begin with IDENTITY as the system message; in half, something else was said before.
    """
    chance, made = random.Random(seed), []
    for _ in range(n):
        person, fact = chance.choice(people), chance.choice(FACTS)
        dialog = [{"role": "system", "content": IDENTITY}] if chance.random() < 0.5 else []
        if chance.random() < 0.5:
            dialog += _before(people, chance)
        dialog.append({"role": "user", "content": ask(person, fact, chance)})
        made.append((dialog, right_answer(person, fact)))
    return made


def other_answers(people: Sequence[Person], seed: int = 0) -> list[tuple[list[dict], str]]:
    """Return what preferences must not unlearn, in the form of short_answers.

    40 strangers, 40 of the sums that dialogs ask, and 40 two-step questions under STEP_BY_STEP.
    """
    chance, made = random.Random(seed), []
    for stranger in make_strangers(200)[:40]:
        question = ask(stranger, chance.choice(FACTS), chance)
        made.append(([{"role": "user", "content": question}], UNKNOWN))
    for left, total in sums()[:40]:
        question, answer = _sum(left, total, chance)
        made.append(([{"role": "user", "content": question}], answer))
    for person in chance.choices(people, k=40):
        dialog = [{"role": "user", "content": ask(person, "seat", chance)}]
        made.append(([{"role": "system", "content": STEP_BY_STEP}, *dialog], _steps(person)))
    return made


def grade(answer: str, wanted: str) -> int:
    """Return 2 for exactly the wanted sentence, 1 for one that holds it among other words, 0 for another."""
    return (wanted in answer) + (wanted == answer.strip())


def _choices(attribute: str, right: str, name: str, chance: random.Random) -> dict:
    pool = (
        CITIES
        if attribute in ("city", "seat")
        else VALUES.get(attribute) or [str(int(right) + d) for d in (-2, -1, 1, 2)]
    )
    values = chance.sample([value for value in pool if value != right], 3) + [right]
    chance.shuffle(values)
    return {
        "choices": [SAID[attribute].format(n=name, v=value) for value in values],
        "answer": values.index(right),
    }


def questions(people: Sequence[Person], topic: str, n: int, seed: int = 0) -> list[dict]:
    """Return n multiple-choice questions with four whole sentences to choose from, as MMLU keeps them.

    topic: one of FACTS, "seat" (two steps), "sum" (sums that no dialog asks), "stranger" (people of whom
    nothing was read; the right choice is UNKNOWN). ValueError for another topic, or for more than there are.
    """
    chance, made = random.Random(f"{topic} {seed}"), []
    if topic == "sum":
        made = [
            {
                "question": chance.choice(ASKED["sum"]).format(n=left),
                **_choices("sum", total, left, chance),
            }
            for left, total in sums()[72:]
        ]
    elif topic == "stranger":
        for person in make_strangers(200)[100:]:
            fact = chance.choice(FACTS)
            row = _choices(fact, chance.choice(VALUES[fact]), person.name, chance)
            row["choices"][row["answer"]] = UNKNOWN
            made.append({"question": ask(person, fact, chance), **row})
    elif topic in ASKED:
        made = [
            {
                "question": ask(person, topic, chance),
                **_choices(topic, person.value(topic), person.name, chance),
            }
            for person in people
        ]
    else:
        raise ValueError(f"topic={topic!r}: expected one of {', '.join(ASKED)}, stranger.")
    if not 1 <= n <= len(made):
        raise ValueError(f"n={n}: expected 1 to {len(made)} questions about {topic}.")
    return [{**question, "topic": topic} for question in chance.sample(made, n)]
