"""The benchmark of our questions: scores as chapter 12's function has them, and shares that are counted right."""

from __future__ import annotations

import importlib
import json

import pytest
import torch

from courseware import paths
from courseware.material.questions import load_questions
from minigpt_lib.bpe import GPT2_PATTERN, train_bpe
from minigpt_lib.evaluation import multiple_choice_accuracy
from minigpt_lib.model import GPTConfig, MiniGPT

SOME = load_questions(["physics", "arts"])[::9]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.CODE / "benchmarks"))
    return importlib.import_module("questions")


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    text = " ".join(question["reason"] for question in SOME)
    tokenizer = train_bpe(text, 300, pattern=GPT2_PATTERN)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 300, "init_std": 0.3}
    return MiniGPT(GPTConfig.preset("laptop", **sizes)).eval(), tokenizer


@pytest.mark.parametrize("normalize", ["tokens", "bytes", "none"])
def test_scores_are_those_of_chapter_12(benchmark, pair, normalize):
    template = benchmark.PROMPTS["with the question"]

    # chapter 12 takes the space before a choice from the prompt's end
    expected = multiple_choice_accuracy(*pair, SOME, template=template + " ", normalize=normalize)

    for question, scores in zip(SOME, expected.scores, strict=True):
        prompt = template.format(question=question["question"])
        found = benchmark.choice_scores(*pair, prompt, question["choices"])[normalize]
        assert found == pytest.approx(scores, abs=1e-4)
    right = benchmark.ask(*pair, SOME, template)[normalize]
    assert right == [a == b for a, b in zip(expected.chosen, expected.answers)]


def test_without_the_question_the_prompt_is_always_the_same(benchmark):
    asked = {benchmark.PROMPTS["without it"].format(question=q["question"]) for q in SOME}

    assert asked == {"Answer:"}


def test_shares_are_counted_by_topic_and_level(benchmark):
    questions = [
        {"topic": "arts", "level": 1},
        {"topic": "arts", "level": 2},
        {"topic": "physics", "level": 1},
        {"topic": "physics", "level": 1},
    ]
    right = {
        "tokens": [True, False, True, True],
        "bytes": [True, False, False, False],
        "none": [False] * 4,
    }

    found = benchmark.results_of(questions, right)

    assert found["accuracy"] == 0.75
    assert found["standard_error"] == pytest.approx(0.25)  # sqrt(0.25 / 4)
    assert found["normalized"] == {"tokens": 0.75, "bytes": 0.25, "none": 0.0}
    assert found["topic"] == {"arts": 0.5, "physics": 1.0}
    assert found["level"] == {"1": 1.0, "2": 0.0}
    told = benchmark.report({"questions": 4, "models": {"m": {"with the question": found}}})
    assert (
        "| m, with the question | 75.0% | 25.0% | 100% | 0% | nan% | 25.0% | 0.0% |"
        in told.splitlines()
    )
    assert "| arts | 50% |" in told.splitlines()


def test_a_model_that_is_missing_is_named_and_the_others_are_asked(
    benchmark, pair, monkeypatch, tmp_path, capsys
):
    def load(name):
        if name == "smollm2":
            raise FileNotFoundError("SmolLM2 is not installed.")
        return pair

    monkeypatch.setattr(benchmark, "load", load)
    out = tmp_path / "questions.json"
    monkeypatch.setattr(
        "sys.argv",
        ["questions.py", "--model", "smollm2", "mine", "--limit", "3", "--out", str(out)],
    )

    benchmark.main()

    printed = capsys.readouterr().out
    assert printed.startswith("SmolLM2 is not installed.\nmine: ")
    results = json.loads(out.read_text(encoding="utf-8"))
    assert results["questions"] == 3
    assert list(results["models"]) == ["mine"]
    assert list(results["models"]["mine"]) == ["with the question", "without it"]
