"""Chapter 12: texts are scored token by token whatever the window, questions by their likeliest choice; calibration."""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

import datasets
import pandas
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ALPHABET, bigram
from torch import nn

from minigpt_lib.baselines import BigramLM, evaluate_loss
from minigpt_lib.bpe import train_bpe
from minigpt_lib.evaluation import (
    calibration,
    compare_accuracy,
    compute_perplexity,
    mean_with_error,
    multiple_choice_accuracy,
    questions_from_arc,
    token_log_probs,
)
from minigpt_lib.model import GPTConfig, MiniGPT

TEXTS = st.text("abcdefgh ", min_size=2, max_size=40)
WORDS = st.text("abcdefgh", min_size=1, max_size=5)


def small_model(max_seq_len: int, **choices) -> MiniGPT:
    """Return a model with weights large enough for its predictions to differ."""
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig(9, max_seq_len, 12, 1, 2, **choices))
    for weight in model.parameters():
        nn.init.normal_(weight, 0.0, 0.4)
    return model.eval()


# ---------------------------------------------------------------- texts


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.integers(1, 12), st.data())
def test_the_loss_of_a_bigram_model_does_not_depend_on_the_window(text, block, data):
    stride = data.draw(st.integers(1, block))
    start = data.draw(st.sampled_from([None, "a", "abc", [3, 4]]))
    model = bigram(1)

    found = compute_perplexity(
        model, ALPHABET, text, block_size=block, stride=stride, start=start, batch_size=3
    )

    before = ALPHABET.encode(start) if isinstance(start, str) else start or []
    ids = [*before, *ALPHABET.encode(text)]
    losses = -model.table.detach().log_softmax(-1)[ids[:-1], ids[1:]].double()
    nats = float(losses[max(0, len(before) - 1) :].sum())
    assert found.tokens == len(text) - (start is None)
    assert found.loss * found.tokens == pytest.approx(nats, rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(TEXTS, st.integers(1, 10))
def test_the_loss_in_blocks_is_that_of_evaluate_loss(text, block):
    model = small_model(10)

    found = compute_perplexity(model, ALPHABET, text, block_size=block)

    ids = torch.tensor(ALPHABET.encode(text))
    assert found.loss == pytest.approx(evaluate_loss(model, ids, block), rel=1e-4)


@settings(deadline=None, max_examples=15)
@given(TEXTS)
def test_a_stride_of_one_gives_the_exact_loss_of_a_text_that_fits(text):
    model = small_model(40)

    exact = compute_perplexity(model, ALPHABET, text)
    sliding = compute_perplexity(model, ALPHABET, text, block_size=39, stride=1)

    assert sliding.loss == pytest.approx(exact.loss, rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    st.text(min_size=1, max_size=30).filter(lambda t: t.isprintable()), st.sampled_from([256, 270])
)
def test_bytes_and_characters_are_those_of_the_text_whatever_the_tokens(text, vocab_size):
    tokenizer = train_bpe("é€ the the thé " * 4, vocab_size)
    uniform = BigramLM(tokenizer.vocab_size)

    found = compute_perplexity(uniform, tokenizer, text, start="\n")

    assert found.bytes == len(text.encode())
    assert found.chars == len(text)
    assert found.tokens == len(tokenizer.encode(text))
    expected = found.tokens * math.log2(tokenizer.vocab_size) / found.bytes
    assert found.bits_per_byte == pytest.approx(expected, rel=1e-5)


def test_a_text_whose_first_token_ends_inside_a_character_needs_a_start():
    tokenizer = train_bpe("abc", 256)

    with pytest.raises(ValueError, match="ends inside a character.*start="):
        compute_perplexity(BigramLM(256), tokenizer, "€ and more")


def test_dropout_is_off_during_evaluation():
    model = small_model(8, dropout=0.9).train()
    ids = torch.randint(9, (2, 6))

    assert torch.equal(token_log_probs(model, ids, ids), token_log_probs(model, ids, ids))


def test_training_mode_and_gradients_are_restored_even_after_an_error():
    model = small_model(8, dropout=0.9).train()

    with pytest.raises(ValueError, match="max_seq_len"):
        compute_perplexity(model, ALPHABET, "abc" * 9, block_size=20)

    assert model.training
    assert torch.is_grad_enabled()


# ---------------------------------------------------------------- questions


@st.composite
def questions(draw):
    """Draw up to six questions with two to four choices each."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        choices = draw(st.lists(WORDS, min_size=2, max_size=4))
        found.append({"question": draw(WORDS), "choices": choices, "answer": 0})
    return found


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(questions(), st.integers(1, 7), st.sampled_from(["tokens", "bytes", "none"]))
def test_a_score_is_that_of_its_choice_alone(asked, batch_size, normalize):
    model = small_model(12)

    found = multiple_choice_accuracy(
        model, ALPHABET, asked, normalize=normalize, batch_size=batch_size
    )

    assert found.cut == 0
    for question, scores in zip(asked, found.scores, strict=True):
        for choice, score in zip(question["choices"], scores, strict=True):
            ids = torch.tensor([ALPHABET.encode(f"{question['question']} {choice}")])
            log_probs = model(ids)[0].detach().log_softmax(-1)[0, :-1]
            of_ids = log_probs.gather(1, ids[0, 1:, None])[:, 0]
            n = len(choice) + 1  # with the space
            size = {"tokens": n, "bytes": n - 1, "none": 1}[normalize]
            assert score == pytest.approx(float(of_ids[-n:].sum()) / size, rel=1e-4, abs=1e-4)


@settings(deadline=None, max_examples=30)
@given(questions(), st.randoms())
def test_the_order_of_questions_and_choices_does_not_matter(asked, generator):
    shuffled = [
        {**question, "choices": generator.sample(question["choices"], len(question["choices"]))}
        for question in asked
    ]

    found = multiple_choice_accuracy(bigram(2), ALPHABET, asked, batch_size=2)
    again = multiple_choice_accuracy(bigram(2), ALPHABET, shuffled[::-1], batch_size=3)

    for one, other in zip(found.scores, again.scores[::-1], strict=True):
        assert sorted(one) == pytest.approx(sorted(other), rel=1e-5)
    assert found.chance == pytest.approx(again.chance)


@pytest.mark.slow
def test_the_standard_error_covers_the_true_accuracy_in_about_68_percent_of_the_samples():
    generator = random.Random(0)
    covered = 0

    for _ in range(200):
        asked = [
            {"question": "a", "choices": ["b", "c"], "answer": int(generator.random() < 0.3)}
            for _ in range(50)
        ]
        found = multiple_choice_accuracy(BigramLM(9), ALPHABET, asked)
        covered += abs(found.accuracy - 0.7) <= found.standard_error

    assert 110 < covered < 160, covered  # 137 expected


def test_two_models_are_compared_by_the_differences_per_question():
    asked = [
        {"question": "abcdefgh"[i % 8], "choices": ["b", "c", "de"], "answer": i % 3}
        for i in range(30)
    ]
    one = multiple_choice_accuracy(bigram(3), ALPHABET, asked, template="{question}")
    other = multiple_choice_accuracy(bigram(4), ALPHABET, asked, template="{question}")

    difference, error = compare_accuracy(one, other)

    assert difference == pytest.approx(one.accuracy - other.accuracy)
    differences = [
        (a == right) - (b == right)
        for a, b, right in zip(one.chosen, other.chosen, one.answers, strict=True)
    ]
    assert error == pytest.approx(statistics.stdev(differences) / math.sqrt(30))


def test_arc_questions_may_have_five_choices_with_numbers_as_labels():
    choices = {"text": list("vwxyz"), "label": list("12345")}

    found = questions_from_arc([{"question": "?", "choices": choices, "answerKey": "4"}])

    assert found[0] == {"question": "?", "choices": list("vwxyz"), "answer": 3}


# The features that allenai/ai2_arc and cais/mmlu declare on the hub, and the types that their Parquet files have.
STRING = datasets.Value("string")
ARC = datasets.Features(
    {
        "id": STRING,
        "question": STRING,
        "choices": {"text": datasets.Sequence(STRING), "label": datasets.Sequence(STRING)},
        "answerKey": STRING,
    }
)
MMLU = datasets.Features(
    {
        "question": STRING,
        "subject": STRING,
        "choices": datasets.Sequence(STRING),
        "answer": datasets.ClassLabel(names=["A", "B", "C", "D"]),
    }
)
ARC_TYPES = {
    "id": "string",
    "question": "string",
    "choices": "struct<text: list<element: string>, label: list<element: string>>",
    "answerKey": "string",
}
MMLU_TYPES = {
    "question": "string",
    "subject": "string",
    "choices": "list<element: string>",
    "answer": "int64",
}


def arc_row(i: int, choices: list[str], labels: str, key: str) -> dict:
    listed = {"text": choices, "label": list(labels)}
    return {"id": f"Made_up_{i}", "question": "abc" * i, "choices": listed, "answerKey": key}


ARC_ROWS = [
    arc_row(1, ["a", "b", "c", "d"], "ABCD", "C"),
    arc_row(2, ["ab", "cd", "ef", "gh"], "1234", "4"),  # some of ARC's exams number their choices
    arc_row(3, ["a", "bb", "c"], "ABC", "A"),
    arc_row(4, ["a", "b", "c", "d", "e"], "ABCDE", "E"),
]
MMLU_ROWS = [
    {"question": "abc", "subject": "letters", "choices": ["a", "b", "c", "d"], "answer": 3},
    {"question": "h", "subject": "letters", "choices": ["ab", "bb", "cb", "db"], "answer": 0},
]


def read_in_three_ways(path: Path) -> dict[str, list[dict]]:
    """Return the rows of a Parquet file as datasets, pandas and pyarrow give them."""
    hub = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=str(path.parent / "cache")
    )
    return {
        "datasets": list(hub),
        "pandas": pandas.read_parquet(path).to_dict("records"),
        "pyarrow": pyarrow.parquet.read_table(path).to_pylist(),
    }


def types_of(path: Path) -> dict[str, str]:
    return {field.name: str(field.type) for field in pyarrow.parquet.read_schema(path)}


@pytest.mark.parametrize("reader", ["datasets", "pandas", "pyarrow"])
def test_a_file_with_the_schema_of_arc_becomes_questions(tmp_path, reader):
    path = tmp_path / "test-00000-of-00001.parquet"
    datasets.Dataset.from_list(ARC_ROWS, features=ARC).to_parquet(str(path))
    assert types_of(path) == ARC_TYPES

    asked = questions_from_arc(read_in_three_ways(path)[reader])
    found = multiple_choice_accuracy(bigram(3), ALPHABET, asked)

    assert [question["question"] for question in asked] == [row["question"] for row in ARC_ROWS]
    assert [question["choices"] for question in asked] == [
        row["choices"]["text"] for row in ARC_ROWS
    ]
    assert found.answers == (2, 3, 0, 4)
    assert found.chance == pytest.approx((1 / 4 + 1 / 4 + 1 / 3 + 1 / 5) / 4)


@pytest.mark.parametrize("reader", ["datasets", "pandas", "pyarrow"])
def test_a_file_with_the_schema_of_mmlu_is_asked_as_it_is(tmp_path, reader):
    path = tmp_path / "test-00000-of-00001.parquet"
    datasets.Dataset.from_list(MMLU_ROWS, features=MMLU).to_parquet(str(path))
    assert types_of(path) == MMLU_TYPES

    found = multiple_choice_accuracy(bigram(3), ALPHABET, read_in_three_ways(path)[reader])
    plain = multiple_choice_accuracy(bigram(3), ALPHABET, MMLU_ROWS)

    assert found == plain
    assert found.answers == (3, 0)


# ---------------------------------------------------------------- errors


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_the_error_of_a_mean_is_the_samples_deviation_over_the_root_of_n(values):
    mean, error = mean_with_error(values)

    assert mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert error == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-9)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_no_texts_is_refused_and_not_measured_as_zero(size):
    asked = [{"question": "a", "choices": ["b", "c"], "answer": 0}]

    with pytest.raises(ValueError, match=f"batch_size is {size}"):
        compute_perplexity(bigram(1), ALPHABET, "abc", batch_size=size)
    with pytest.raises(ValueError, match=f"batch_size is {size}"):
        multiple_choice_accuracy(bigram(1), ALPHABET, asked, batch_size=size)


# ---------------------------------------------------------------- calibration


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12)
)
def test_the_calibration_error_is_the_weighted_gap_of_bins_that_hold_all_predictions(pairs, bins):
    confidences, correct = zip(*pairs)

    found = calibration(confidences, correct, bins)

    assert len(found.counts) == bins
    assert sum(found.counts) == len(pairs)
    rounding = 1e-9
    total = 0.0
    hits = 0.0
    for i, n in enumerate(found.counts):
        if n:
            assert i / bins - rounding <= found.confidence[i] <= (i + 1) / bins + rounding
            total += n * found.confidence[i]
            hits += n * found.accuracy[i]
        else:
            assert math.isnan(found.confidence[i])
            assert math.isnan(found.accuracy[i])
    assert total == pytest.approx(sum(confidences))
    assert hits == pytest.approx(sum(correct))
    assert abs(total - hits) / len(pairs) - rounding <= found.error <= 1 + rounding
