"""Ask models our own questions, with and without the question itself: what does a language model know?

    python benchmarks/questions.py [--model NAME ...] [--limit N] [--threads N] [--out FILE]

A model reads "Question: ... Answer:" once, and the cache is used again for each of the four choices. The score of a
choice is the log-probability of its tokens, divided by their number, by its bytes, or not at all. Chance is a quarter.
Without the question, the model sees only "Answer:", so what it gains over chance then is what the choices give away by
themselves. A NAME is anything that `interop.load` takes; by default the installed SmolLM2 and, where there is one,
chapter 14's own model (`sft`). The results go to FILE (benchmarks/results/questions.json).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import RESULTS, hardware, hardware_line, save, table

from courseware.material.questions import TOPICS, load_questions
from minigpt_lib.assistant import trained_models
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.evaluation import mean_with_error
from minigpt_lib.generation import KVCache
from minigpt_lib.interop import load
from minigpt_lib.model import MiniGPT

OUT = RESULTS / "questions.json"
NORMALIZED = (
    "tokens",
    "bytes",
    "none",
)  # as multiple_choice_accuracy calls them; the tables show the first
PROMPTS = {"with the question": "Question: {question}\nAnswer:", "without it": "Answer:"}


@torch.inference_mode()
def choice_scores(
    model: MiniGPT, tokenizer: BPETokenizer, prompt: str, choices: Sequence[str]
) -> dict[str, list[float]]:
    """Return the score of each choice after the prompt for each of NORMALIZED, in nats; the prompt is read once."""
    read = tokenizer.encode(prompt)
    answers = [tokenizer.encode(f" {choice}") for choice in choices]
    cache = KVCache(model.config, 1, len(read) + max(map(len, answers)))
    after_prompt = model(torch.tensor([read]), cache=cache, last_only=True)[0]  # (1, 1, V)

    scores: dict[str, list[float]] = {name: [] for name in NORMALIZED}
    for choice, ids in zip(choices, answers, strict=True):
        logits = after_prompt
        cache.truncate(len(read))
        if len(ids) > 1:
            more = model(torch.tensor([ids[:-1]]), cache=cache)[0]
            logits = torch.cat([after_prompt, more], dim=1)  # (1, n, V)
        wanted = torch.tensor(ids)[:, None]
        total = float(logits[0].log_softmax(dim=-1).gather(1, wanted).sum())
        scores["tokens"].append(total / len(ids))
        scores["bytes"].append(total / len(choice.encode("utf-8")))
        scores["none"].append(total)
    return scores


def ask(
    model: MiniGPT, tokenizer: BPETokenizer, questions: Sequence[dict[str, Any]], template: str
) -> dict[str, list[bool]]:
    """Return for each of NORMALIZED, question by question, whether the likeliest choice is the right one."""
    right: dict[str, list[bool]] = {name: [] for name in NORMALIZED}
    for question in questions:
        prompt = template.format(question=question["question"])
        found = choice_scores(model, tokenizer, prompt, question["choices"])
        for name, scores in found.items():
            right[name].append(scores.index(max(scores)) == question["answer"])
    return right


def results_of(
    questions: Sequence[dict[str, Any]], right: dict[str, Sequence[bool]]
) -> dict[str, Any]:
    """Return the accuracy for each of NORMALIZED; of the first, its standard error and that of topics and levels."""
    first = right[NORMALIZED[0]]
    accuracy, error = mean_with_error([float(hit) for hit in first])
    parts: dict[str, dict[str, float]] = {}
    for key in ("topic", "level"):
        groups: dict[str, list[bool]] = {}
        for question, hit in zip(questions, first, strict=True):
            groups.setdefault(str(question[key]), []).append(hit)
        parts[key] = {name: sum(hits) / len(hits) for name, hits in sorted(groups.items())}
    others = {name: sum(hits) / len(hits) for name, hits in right.items()}
    return {"accuracy": accuracy, "standard_error": error, "normalized": others, **parts}


def report(results: dict[str, Any]) -> str:
    """Return the tables of the results."""
    rows, topics = [], []
    for name, found in results["models"].items():
        for prompt, result in found.items():
            label = f"{name}, {prompt}"
            levels = [f"{result['level'].get(level, float('nan')):.0%}" for level in "123"]
            error = f"{result['standard_error']:.1%}"
            others = [f"{result['normalized'][kind]:.1%}" for kind in NORMALIZED[1:]]
            rows.append([label, f"{result['accuracy']:.1%}", error, *levels, *others])
        by_topic = found["with the question"]["topic"]
        shares = [f"{by_topic.get(topic, float('nan')):.0%}" for topic in TOPICS]
        topics.append((name, shares))

    caption = f"Right answers to {results['questions']} questions with four choices (chance: 25%)"
    columns = ["model", "right", "standard error", "level 1", "level 2", "level 3"]
    columns += ["right, per byte", "right, summed"]
    by_topic = [[topic, *(shares[i] for _, shares in topics)] for i, topic in enumerate(TOPICS)]
    of_topics = table("The same by topic", ["topic", *(name for name, _ in topics)], by_topic)
    return f"{table(caption, columns, rows)}\n\n{of_topics}"


def main() -> None:
    """Ask every model, with the question and without it; print and record the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", help="default: smollm2, and sft if it is trained")
    parser.add_argument("--limit", type=int, help="ask only every so-many-th question, N in all")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--out", type=Path, default=OUT, help="where the results go")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    questions = load_questions()
    if options.limit:
        questions = questions[:: max(1, len(questions) // options.limit)][: options.limit]
    names = options.model or ["smollm2", *(name for name in ("sft",) if name in trained_models())]

    results: dict[str, Any] = {"hardware": hardware(), "questions": len(questions), "models": {}}
    for name in names:
        try:
            model, tokenizer = load(name)
        except FileNotFoundError as error:  # `make bench` runs every script
            print(error)
            continue
        began = time.perf_counter()
        results["models"][name] = {
            label: results_of(questions, ask(model, tokenizer, questions, template))
            for label, template in PROMPTS.items()
        }
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)

    if results["models"]:
        save(options.out, results)
        print(report(results))
        print(f"\n{hardware_line()}")


if __name__ == "__main__":
    main()
