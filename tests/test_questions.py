"""Our own questions: four choices, exactly one of them right, and its form does not give it away."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from fractions import Fraction

import pytest
from small_models import bigram

from courseware.material.questions import FOLDER, TOPICS, load_questions
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.evaluation import multiple_choice_accuracy

QUESTIONS = load_questions()
COMPUTED = [question for question in QUESTIONS if "check" in question]
COMPUTED_TOPICS = {question["topic"] for question in COMPUTED}


WORDS = [
    "none",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]


def number_in(choice):
    """Return the number that a choice begins with ("12", "-7", "3/4", "75 km/h", "six"), or None."""
    number = re.fullmatch(r"(-?\d+(?:\.\d+)?(?:/\d+)?)(?: \D.*)?", choice)
    if number:
        return Fraction(number[1])
    return WORDS.index(choice) if choice in WORDS else None


def right(question):
    return question["choices"][question["answer"]]


def share_right(questions, pick):
    """Return how often somebody is right who takes a choice of the length pick(lengths), guessing among several."""
    hits = 0.0
    for question in questions:
        lengths = [len(choice) for choice in question["choices"]]
        wanted = pick(lengths)
        if len(right(question)) == wanted:
            hits += 1 / lengths.count(wanted)
    return hits / len(questions)


# ---------------------------------------------------------------- the form


def test_there_are_at_least_300_questions_in_twelve_topics_of_at_least_25():
    counts = Counter(question["topic"] for question in QUESTIONS)
    assert len(TOPICS) == len(counts) == 12
    assert min(counts.values()) >= 25, counts
    assert len(QUESTIONS) >= 300
    assert {file.stem for file in FOLDER.glob("*.jsonl")} == set(TOPICS)


@pytest.mark.parametrize("topic", TOPICS)
def test_every_level_has_several_questions(topic):
    levels = Counter(question["level"] for question in load_questions(topic))
    assert set(levels) == {1, 2, 3}
    assert min(levels.values()) >= 6, levels


@pytest.mark.parametrize("topic", TOPICS)
def test_the_questions_are_well_formed(topic):
    keys = {"topic", "level", "question", "choices", "answer", "reason"}
    for question in load_questions(topic):
        assert keys <= set(question) <= keys | {"check"}, question
        assert len(question["choices"]) == 4, question
        assert len({choice.casefold() for choice in question["choices"]}) == 4, question
        assert question["question"].endswith("?"), question
        assert len(question["reason"]) >= 12 and question["reason"].endswith((".", '."')), question
        for text in (question["question"], question["reason"], *question["choices"]):
            assert text and text == " ".join(text.split()), f"stray spaces: {question}"


@pytest.mark.slow
def test_the_evaluation_of_chapter_12_takes_them():
    text = "".join(question["question"] + "".join(question["choices"]) for question in QUESTIONS)
    tokenizer = CharTokenizer.from_text(text)
    model = bigram(0, tokenizer.vocab_size)

    result = multiple_choice_accuracy(model, tokenizer, QUESTIONS, batch_size=256)
    assert result.answers == tuple(question["answer"] for question in QUESTIONS)
    assert 0.15 < result.accuracy < 0.35, "random weights know nothing"
    assert result.chance == 0.25
    assert result.cut == 0


def test_no_question_is_asked_twice():
    texts = [question["question"].casefold() for question in QUESTIONS]
    asked = Counter(re.sub(r"\W+", " ", text).strip() for text in texts)
    assert [text for text, n in asked.items() if n > 1] == []


# ---------------------------------------------------------------- the form of the right choice does not give it away


@pytest.mark.parametrize("topic", [None, *TOPICS])
def test_the_right_choice_stands_in_every_place_equally_often(topic):
    questions = load_questions(topic)
    places = Counter(question["answer"] for question in questions)
    for place in range(4):
        assert 0.2 <= places[place] / len(questions) <= 0.3, places


def test_the_length_of_a_choice_says_nothing():
    """Chance is 0.25; taking the longest choice, or the shortest, must not be right much more often, or less."""
    assert 0.15 <= share_right(QUESTIONS, max) <= 0.35
    assert 0.15 <= share_right(QUESTIONS, min) <= 0.35


@pytest.mark.parametrize("topic", TOPICS)
def test_the_length_of_a_choice_says_nothing_in_any_topic(topic):
    """About 30 questions have a standard error of 0.08, so the bounds are wider than those for all of them."""
    assert 0.1 <= share_right(load_questions(topic), max) <= 0.4
    assert 0.1 <= share_right(load_questions(topic), min) <= 0.4


def test_no_choice_stands_out_by_its_length():
    for question in QUESTIONS:
        lengths = sorted(len(choice) for choice in question["choices"])
        assert lengths[-1] <= 2 * lengths[0] + 8, question


def test_the_right_choice_does_not_stand_out_by_how_it_begins():
    """The only one with a capital letter, or the only one with an article, would give itself away."""
    articles = {"a", "an", "the"}
    for question in QUESTIONS:
        capitals = [choice[0].isupper() for choice in question["choices"]]
        assert capitals.count(capitals[question["answer"]]) > 1, question

        with_article = [choice.split()[0] in articles for choice in question["choices"]]
        assert with_article.count(with_article[question["answer"]]) > 1, question


def test_the_size_of_a_number_says_nothing():
    """Whoever invents wrong numbers around the right one makes it one of the two in the middle too often."""
    ranks = Counter()
    for question in QUESTIONS:
        numbers = [number_in(choice) for choice in question["choices"]]
        if None not in numbers:
            ranks[sorted(numbers).index(numbers[question["answer"]])] += 1

    assert ranks.total() > 90
    for rank in range(4):
        assert 0.15 <= ranks[rank] / ranks.total() <= 0.35, ranks


# ---------------------------------------------------------------- the answers that can be computed


class _Exact(ast.NodeTransformer):
    """Make every number of an expression a fraction, so that 1 / 2 + 1 / 4 is exactly 3/4."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str):
            return node
        exact = ast.parse(f"Fraction({str(node.value)!r})", mode="eval").body
        return ast.copy_location(exact, node)


def is_prime(n):
    return n > 1 and all(n % divisor for divisor in range(2, int(n)))


def clock(minutes):
    """Return the time that is so many minutes after midnight, as 09:05."""
    return f"{int(minutes) // 60:02}:{int(minutes) % 60:02}"


NAMES = {
    "Fraction": Fraction,
    "is_prime": is_prime,
    "clock": clock,
    "len": len,
    "mirrored": lambda text: str(text)[::-1],
    "round": round,
    "sum": sum,
    "range": lambda *limits: range(*(int(limit) for limit in limits)),
    "binary": lambda n: int(f"{int(n):b}"),
    "comb": lambda n, k: math.comb(int(n), int(k)),
    "factorial": lambda n: math.factorial(int(n)),
    "gcd": lambda a, b: math.gcd(int(a), int(b)),
    "lcm": lambda a, b: math.lcm(int(a), int(b)),
}


def holds(check, choice):
    tree = ast.fix_missing_locations(_Exact().visit(ast.parse(check, mode="eval")))
    number = number_in(choice)
    names = {**NAMES, "x": choice if number is None else number, "__builtins__": {}}
    return bool(eval(compile(tree, "check", "eval"), names))


@pytest.mark.parametrize("topic", sorted(COMPUTED_TOPICS))
def test_a_condition_is_true_of_the_right_choice_alone(topic):
    computed = [question for question in COMPUTED if question["topic"] == topic]
    assert computed
    for question in computed:
        kept = [choice for choice in question["choices"] if holds(question["check"], choice)]
        assert kept == [right(question)], question


def test_all_of_arithmetic_is_computed():
    assert all("check" in question for question in load_questions("arithmetic"))
    assert {"physics", "chemistry", "everyday", "computing", "reasoning"} <= COMPUTED_TOPICS


def test_a_wrong_condition_would_be_noticed():
    assert holds("x == 1 / 2 + 1 / 4", "3/4") and not holds("x == 1 / 2 + 1 / 4", "0.7")
    assert holds("x == 0.1 + 0.2", "0.3")
    assert holds("x == 150 / 2", "75 km/h") and not holds("x == 150 / 2", "70 km/h")
    assert holds("x == clock(9 * 60 + 5)", "09:05") and not holds("x == clock(9 * 60)", "09:05")
    assert holds("x == mirrored(x)", "level") and not holds("x == mirrored(x)", "table")
    assert holds("is_prime(x)", "59") and not holds("is_prime(x)", "57")
    assert holds("x == binary(13)", "1101")


# ---------------------------------------------------------------- loading


def test_topics_are_chosen_by_name():
    assert load_questions("physics") == load_questions(["physics"])
    both = load_questions(["physics", "arts"])
    assert both == load_questions("physics") + load_questions("arts")
    assert {question["topic"] for question in both} == {"physics", "arts"}
    assert load_questions(TOPICS) == QUESTIONS


def test_an_unknown_topic_is_refused_with_the_list_of_topics():
    with pytest.raises(ValueError, match="expected topics among arithmetic, .*; got 'cooking'"):
        load_questions(["physics", "cooking"])
