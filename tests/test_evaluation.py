"""Chapter 12: each token once, bits whatever the tokens, questions, calibration, faults the checks catch, the twin."""

import math
import random
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, judged, survives
from torch import nn

from courseware.explorer_evaluation import (
    begin_of,
    begins,
    describe,
    draw,
    sliding_window,
    window_data,
)
from minigpt_lib.baselines import BigramLM, evaluate_loss
from minigpt_lib.bpe import train_bpe
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.evaluation import (
    calibration,
    compare_accuracy,
    compute_perplexity,
    multiple_choice_accuracy,
    questions_from_arc,
    token_log_probs,
)
from minigpt_lib.model import GPTConfig, MiniGPT

ALPHABET = CharTokenizer("abcdefgh ")


def bigram(seed: int, vocab_size: int = 9) -> BigramLM:
    model = BigramLM(vocab_size)
    model.table.data = 2 * torch.randn(
        vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed)
    )
    return model


def model_of(max_seq_len: int, **choices) -> MiniGPT:
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig(9, max_seq_len, 12, 1, 2, **choices))
    for weight in model.parameters():
        nn.init.normal_(weight, 0.0, 0.4)
    return model.eval()


TEXTS = st.text("abcdefgh ", min_size=2, max_size=40)


# --- texts ---


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.integers(1, 12), st.data())
def test_a_bigram_costs_the_same_through_any_window(text, block, data):
    stride = data.draw(st.integers(1, block))
    start = data.draw(st.sampled_from([None, "a", "abc", [3, 4]]))
    found = compute_perplexity(
        bigram(1), ALPHABET, text, block_size=block, stride=stride, start=start, batch_size=3
    )
    before = ALPHABET.encode(start) if isinstance(start, str) else start or []
    ids = [*before, *ALPHABET.encode(text)]
    prices = -bigram(1).table.detach().log_softmax(-1)[ids[:-1], ids[1:]].double()
    nats = float(prices[max(0, len(before) - 1) :].sum())
    assert found.tokens == len(text) - (start is None)
    assert found.loss * found.tokens == pytest.approx(nats, rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(TEXTS, st.integers(1, 10))
def test_blocks_are_evaluate_loss(text, block):
    model = model_of(10)
    found = compute_perplexity(model, ALPHABET, text, block_size=block)
    ids = torch.tensor(ALPHABET.encode(text))
    assert found.loss == pytest.approx(evaluate_loss(model, ids, block), rel=1e-4)


@settings(deadline=None, max_examples=15)
@given(TEXTS)
def test_a_stride_of_one_is_the_whole_truth_for_a_text_that_fits(text):
    model = model_of(40)
    whole = compute_perplexity(model, ALPHABET, text)
    assert whole.loss == pytest.approx(
        compute_perplexity(model, ALPHABET, text, block_size=39, stride=1).loss, rel=1e-5
    )


@settings(deadline=None, max_examples=30)
@given(
    st.text(min_size=1, max_size=30).filter(lambda t: t.isprintable()), st.sampled_from([256, 270])
)
def test_bytes_are_those_of_the_text_whatever_the_tokens(text, vocab_size):
    tokenizer = train_bpe("é€ the the thé " * 4, vocab_size)
    model = BigramLM(tokenizer.vocab_size)
    found = compute_perplexity(model, tokenizer, text, start="\n")
    assert (found.bytes, found.chars) == (len(text.encode()), len(text))
    assert found.tokens == len(tokenizer.encode(text))
    expected = found.tokens * math.log2(tokenizer.vocab_size) / found.bytes
    assert found.bits_per_byte == pytest.approx(expected, rel=1e-5)


def test_a_text_that_begins_inside_a_character_needs_a_start():
    tokenizer = train_bpe("abc", 256)
    with pytest.raises(ValueError, match="ends inside a character.*start="):
        compute_perplexity(BigramLM(256), tokenizer, "€ and more")


def test_dropout_is_off_and_the_mode_comes_back_even_after_an_error():
    model = model_of(8, dropout=0.9).train()
    ids = torch.randint(9, (2, 6))
    assert torch.equal(token_log_probs(model, ids, ids), token_log_probs(model, ids, ids))
    with pytest.raises(ValueError, match="max_seq_len"):
        compute_perplexity(model, ALPHABET, "abc" * 9, block_size=20)
    assert model.training and torch.is_grad_enabled()


# --- questions ---

WORDS = st.text("abcdefgh", min_size=1, max_size=5)
QUESTIONS = st.lists(
    st.tuples(WORDS, st.lists(WORDS, min_size=2, max_size=4)).map(
        lambda q: {"question": q[0], "choices": q[1], "answer": 0}
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=40)
@given(QUESTIONS, st.integers(1, 7), st.sampled_from(["tokens", "bytes", "none"]))
def test_scores_are_those_of_one_choice_at_a_time(questions, batch_size, normalize):
    model = model_of(12)
    found = multiple_choice_accuracy(
        model, ALPHABET, questions, normalize=normalize, batch_size=batch_size
    )
    assert found.cut == 0
    for question, scores in zip(questions, found.scores, strict=True):
        for choice, score in zip(question["choices"], scores, strict=True):
            ids = torch.tensor([ALPHABET.encode(f"{question['question']} {choice}")])
            logs = model(ids)[0].detach().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
            n = len(choice) + 1
            size = {"tokens": n, "bytes": n - 1, "none": 1}[normalize]
            assert score == pytest.approx(float(logs[-n:].sum()) / size, rel=1e-4, abs=1e-4)


@settings(deadline=None, max_examples=30)
@given(QUESTIONS, st.randoms())
def test_the_order_of_the_questions_and_of_the_choices_does_not_matter(questions, chance):
    found = multiple_choice_accuracy(bigram(2), ALPHABET, questions, batch_size=2)
    mixed = [{**q, "choices": chance.sample(q["choices"], len(q["choices"]))} for q in questions]
    again = multiple_choice_accuracy(bigram(2), ALPHABET, mixed[::-1], batch_size=3)
    for one, other in zip(found.scores, again.scores[::-1], strict=True):
        assert sorted(one) == pytest.approx(sorted(other), rel=1e-5)
    assert found.chance == pytest.approx(again.chance)


def test_the_error_bar_covers_the_truth_as_often_as_it_says():
    chance, covered = random.Random(0), 0
    for _ in range(200):
        questions = [
            {"question": "a", "choices": ["b", "c"], "answer": int(chance.random() < 0.3)}
            for _ in range(50)
        ]
        found = multiple_choice_accuracy(BigramLM(9), ALPHABET, questions)
        covered += abs(found.accuracy - 0.7) <= found.standard_error
    assert 110 < covered < 160, covered  # 68% of 200 are 137


def test_a_paired_difference_is_the_mean_of_differences():
    questions = [{"question": "a", "choices": ["b", "c", "de"], "answer": i % 3} for i in range(30)]
    for i, question in enumerate(questions):
        question["question"] = "abcdefgh"[i % 8]
    one, other = (
        multiple_choice_accuracy(bigram(seed), ALPHABET, questions, template="{question}")
        for seed in (3, 4)
    )
    difference, error = compare_accuracy(one, other)
    assert difference == pytest.approx(one.accuracy - other.accuracy)
    rows = [
        (a == r) - (b == r) for a, b, r in zip(one.chosen, other.chosen, one.answers, strict=True)
    ]
    assert error == pytest.approx(statistics.stdev(rows) / math.sqrt(30))


def test_arc_with_five_choices_and_numbers():
    row = {"question": "?", "choices": {"text": list("vwxyz"), "label": list("12345")}, "answerKey": "4"}  # fmt: skip
    assert questions_from_arc([row])[0] == {"question": "?", "choices": list("vwxyz"), "answer": 3}


# --- calibration ---


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12)
)
def test_bins_hold_everything_and_the_error_is_their_weighted_gap(pairs, bins):
    confidences, correct = zip(*pairs)
    found = calibration(confidences, correct, bins)
    assert sum(found.counts) == len(pairs) and len(found.counts) == bins
    total, hits = 0.0, 0.0
    for i, n in enumerate(found.counts):
        if n:
            slack = 1e-9
            assert i / bins - slack <= found.confidence[i] <= (i + 1) / bins + slack
            total, hits = total + n * found.confidence[i], hits + n * found.accuracy[i]
        else:
            assert math.isnan(found.confidence[i]) and math.isnan(found.accuracy[i])
    assert total == pytest.approx(sum(confidences)) and hits == pytest.approx(sum(correct))
    assert abs(total - hits) / len(pairs) - 1e-9 <= found.error <= 1 + 1e-9


# --- faults ---

FAULTS = {
    "nats for bits": ("float(nats) / math.log(2) / n_bytes", "float(nats) / n_bytes"),
    "multiplied by ln 2": ("float(nats) / math.log(2)", "float(nats) * math.log(2)"),
    "characters for bytes": ("len(ids), len(rest.encode())", "len(ids), len(rest)"),
    "bytes for characters": ("bits_per_byte(nats, len(rest))", "bits_per_byte(nats, n_bytes)"),
    "the first token's bytes counted": ("ids[1:], text[len(first) :]", "ids[1:], text"),
    "dropout stays on": ("    model.eval()\n", "    pass\n"),
    "evaluation stays on": ("        model.train(training)\n", "        pass\n"),
    "the logarithms in half precision": (".flatten(0, 1).float()", ".flatten(0, 1)"),
    "the overlap counted twice": ("y[row, : done - begin - 1] = -100", "y[row, :0] = -100"),
    "one target too few": ("done - begin - 1] = -100", "done - begin] = -100"),
    "one target too many": ("done - begin - 1] = -100", "max(0, done - begin - 2)] = -100"),
    "the start predicted too": ("len(given), 0.0", "1, 0.0"),
    "the tail left out": ("[*range(0, last, stride), last]", "[*range(0, last, stride)] or [0]"),
    "the mean of block means": ("nats / len(ids), len(rest", "nats / len(starts) / T, len(rest"),
    "a prompt loses its end": ("return before[-room:]", "return before[:room]"),
    "one token of the prompt too many": ("limit + 1 - len(scored)", "limit + 2 - len(scored)"),
    "the space stays with the prompt": ("read = prompt.rstrip()", "read = prompt"),
    "the prompt scored too": ("y[row, len(before) - 1 : end] = torch.tensor(scored)",
                              "y[row, :end] = torch.tensor([*before[1:], *scored])"),
    "the first token of a choice left out": ("y[row, len(before) - 1 : end] = torch.tensor(scored)",
                                             "y[row, len(before) : end] = torch.tensor(scored[1:])"),
    "padding on the left": ("x[row, :end] =", "x[row, T - end :] ="),
    "scores of another question": ("totals[i] = float(total)", "totals[at] = float(total)"),
    "bytes are characters": ("len(choice.encode())", "len(choice)"),
    "ties go to the last": ("row.index(max(row))", "len(row) - 1 - row[::-1].index(max(row))"),
    "the least likely": ("row.index(max(row))", "row.index(min(row))"),
    "the error of the population": ("statistics.stdev(values)", "statistics.pstdev(values)"),
    "the error of one question": ("statistics.stdev(values) / math.sqrt(n)", "statistics.stdev(values)"),
    "chance of the first question": ("sum(1 / len(row) for row in scores) / len(scores)", "1 / len(scores[0])"),
    "unpaired": ("float(a == right) - float(b == right)", "float(a == right)"),
    "borders to the bin above": ("torch.bucketize(p, edges)", "torch.bucketize(p, edges, right=True)"),
    "gaps cancel": ("(sums[0] - sums[1]).abs().sum()", "(sums[0] - sums[1]).sum().abs()"),
    "bins count alike": ("float((sums[0] - sums[1]).abs().sum() / len(p))",
                         "float(((sums[0] - sums[1]) / counts.clamp(min=1)).abs().sum() / (counts > 0).sum())"),
}  # fmt: skip


def test_the_module_itself_passes(tmp_path):
    assert survives("12", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_checks(tmp_path, fault):
    assert not survives("12", tmp_path, *FAULTS[fault])


# --- the explorer and its twin ---


def data():
    return window_data(bigram(5), ALPHABET, "a bad cab  " * 7)


def test_the_explorers_prices_are_the_librarys():
    shown = data()
    for key, nats in shown["nats"].items():
        block, stride = map(int, key.split("-"))
        found = compute_perplexity(
            bigram(5), ALPHABET, shown["text"], block_size=block, stride=stride
        )
        assert sum(nats) / len(nats) == pytest.approx(found.loss, abs=0.005)


@pytest.mark.parametrize(("n", "block", "stride"), [(77, 8, 3), (11, 4, 2), (12, 4, 4), (9, 8, 8)])
def test_every_character_belongs_to_the_first_window_that_reaches_it(n, block, stride):
    for i in range(1, n):
        begin = begin_of(n, block, stride, i)
        assert begin < i <= begin + block
        assert all(b + block < i for b in begins(n, block, stride) if b < begin)
        assert i - begin >= min(i, block - stride + 1)


def test_the_twin_says_and_draws_the_same():
    shown = {**data(), "text": "a bad <b>\n& 'cab'" * 4 + "x" * 9}
    states = [
        {"block": block, "stride": stride, "i": i}
        for block in (2, 8, 64)
        for stride in (1, 4, 64)
        for i in (1, 9, 40, 76)
    ]
    expression = "data.states.map((s) => [m.describe(data, s), m.draw(data, s)])"
    theirs = in_node("sliding-window.js", expression, {**shown, "states": states})
    assert theirs == [[describe(shown, **s), draw(shown, **s)] for s in states]


def test_the_widget_answers_its_controls():
    box = sliding_window(data())
    block, stride, place, view = box.children
    assert "Block 8, stride 8" in view.value and "Character 17" in view.value
    block.value, stride.value, place.value = 4, 64, 5
    assert "Block 4, stride 4" in view.value and "after 1 character:" in view.value
    stride.value = 1
    assert "after 4 characters" in view.value and "73 windows" in view.value


# --- exercises answered in other ways ---


def perplexity_by_products(blocks):
    n = sum(len(block) for block in blocks)
    return math.prod(math.exp(price / n) for block in blocks for price in block)


def bits_by_torch(text, loss, n):
    return float(loss * n * math.log2(math.e) / len(bytearray(text, "utf-8")))


def plan_by_sets(n, block, stride):
    block, counted, plan, begin = min(block, n - 1), {0}, [], 0
    while True:
        begin = min(begin, n - 1 - block)
        new = sorted(set(range(begin + 1, begin + block + 1)) - counted)
        counted |= set(new)
        plan.append([begin, new])
        if begin == n - 1 - block:
            return plan
        begin += stride


def score_by_cross_entropy(logits, ids, n_prompt):
    loss = nn.functional.cross_entropy(logits[n_prompt - 1 : -1].double(), ids[n_prompt:])
    return -loss


def accuracy_by_torch(totals, lengths, answers):
    right = []
    for row, sizes, answer in zip(totals, lengths, answers, strict=True):
        best = max(range(len(row)), key=lambda i: (row[i] / sizes[i], -i))
        right.append(float(best == answer))
    right = torch.tensor(right, dtype=torch.float64)
    return right.mean(), right.std() / len(right) ** 0.5


def calibration_by_library(confidence, correct, bins):
    return calibration(confidence, correct, bins).error


ANSWERS = [
    ("text_perplexity", perplexity_by_products, ""),
    ("text_perplexity", lambda blocks: 1 / perplexity_by_products(blocks), "wrong value"),
    ("text_perplexity", lambda blocks: perplexity_by_products([{*sum(blocks, [])}]), "wrong value"),
    ("text_perplexity", lambda blocks: min(perplexity_by_products(blocks), 150.0), "wrong value"),
    (
        "text_perplexity",  # infinite, where math.exp would raise
        lambda b: math.prod(map(math.exp, sum(b, []))) ** (1 / len(sum(b, []))),
        "the root at the end",
    ),
    ("to_bits_per_byte", bits_by_torch, ""),
    ("to_bits_per_byte", lambda *a: 8 / bits_by_torch(*a), "wrong value"),
    (
        "to_bits_per_byte",
        lambda text, *a: bits_by_torch(text.replace("\r\n", "\n"), *a),
        "wrong value",
    ),
    ("to_bits_per_byte", lambda t, *a: bits_by_torch(t.replace("e\u0301", "é"), *a), "wrong value"),
    ("window_plan", plan_by_sets, ""),
    ("window_plan", lambda n, b, s: plan_by_sets(n, b, max(1, s - 1)), "wrong length"),
    ("answer_score", score_by_cross_entropy, ""),
    ("answer_score", lambda *a: -score_by_cross_entropy(*a), "wrong value"),
    (
        "answer_score",
        lambda x, *a: score_by_cross_entropy(x.softmax(1).log(), *a),
        "wrong value",
    ),
    ("accuracy_with_error", accuracy_by_torch, ""),
    ("accuracy_with_error", lambda t, n, a: accuracy_by_torch(t, n, a)[::-1], "wrong value"),
    (
        "accuracy_with_error",
        lambda t, n, a: accuracy_by_torch([x[:3] for x in t], n, a),
        "wrong value",
    ),
    (
        "accuracy_with_error",
        lambda t, n, a: accuracy_by_torch([[math.exp(x) for x in row] for row in t], n, a),
        "probabilities divided by the length",
    ),
    ("calibration_error", calibration_by_library, ""),
    ("calibration_error", lambda *a: 1 - calibration_by_library(*a), "wrong value"),
]


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_in_another_style(name, answer, diagnosis):
    judged(name, answer, diagnosis)
