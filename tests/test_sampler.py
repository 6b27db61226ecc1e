"""Chapter 11: the sampler and its twin filter and describe as the library does."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from tools import in_node

from courseware.widgets import sampler as widget
from minigpt_lib.generation import filter_logits

# Names for up to 40 tokens, with a line break and a blank among them.
NAMES = ["\n", " ", *map(chr, range(ord("c"), ord("z") + 1)), *map(chr, range(65, 79))]


def states() -> list[dict[str, Any]]:
    """Return rows of logits with positions of the sliders; corners and ties are among them."""
    generator = random.Random(0)
    found = []

    for n in range(300):
        size = generator.choice([3, 12, 40])
        logits = [round(generator.gauss(0, 3), 3) for _ in range(size)]
        special = n % 10 == 0
        if special:
            logits = [float(round(logits[0]))] * size
        found.append(
            {
                "logits": logits,
                "temperature": generator.choice([0, 0.05, 0.5, 1, 1.35, 2]),
                "topK": generator.choice([1, 2, size - 1, size]),
                "topP": 1 if special else generator.choice([0.05, 0.5, 0.85, 0.95, 1]),
                "minP": generator.choice([0, 0.01, 0.13, 0.5]),
            }
        )

    return found


def shown_by_the_widget(state: dict[str, Any]) -> list:
    """Return the probabilities before and after the filters, the tokens left, their order, and the sentence."""
    logits = state["logits"]
    sliders = [state[name] for name in ("temperature", "topK", "topP", "minP")]

    before, _ = widget.probabilities(logits, filter_logits)
    after, left = widget.probabilities(
        logits, filter_logits, **widget.settings(*sliders, len(logits))
    )
    return [before, after, left, widget.ranked(before), widget.describe(NAMES, before, after, left)]


def test_the_twin_filters_and_describes_the_same_as_the_widget():
    rows = states()

    expression = (
        "data.rows.map((s) => { const before = m.softmax(s.logits);"
        "const scores = m.filterLogits(s.logits, m.settings(s, s.logits.length));"
        "const after = m.softmax(scores); const left = m.kept(scores);"
        "return [before, after, left, m.ranked(before), m.describe(data.names, before, after, left)]; })"
    )
    theirs = in_node("sampler.js", expression, {"rows": rows, "names": NAMES})

    same_sentence = 0
    for state, other in zip(rows, theirs, strict=True):
        before, after, left, ranked, sentence = shown_by_the_widget(state)
        assert before == pytest.approx(other[0], rel=0, abs=1e-5), state
        assert after == pytest.approx(other[1], rel=0, abs=1e-5), state
        assert left == other[2], state
        has_ties = len(set(state["logits"])) < len(state["logits"])
        assert has_ties or ranked == other[3]
        same_sentence += sentence == other[4]  # the last digit shown may be rounded differently
    assert same_sentence >= 0.98 * len(rows)


def test_the_twin_draws_in_proportion_to_the_probabilities():
    expression = "data.map((r) => m.draw([0.5, 0, 0.25, 0.25, 0], () => r))"

    drawn = in_node("sampler.js", expression, [0, 0.49, 0.5, 0.74, 0.76, 1])

    assert drawn == [0, 0, 2, 2, 3, 3]


def test_a_seed_gives_the_same_even_numbers_again():
    expression = """data.map((seed) => {
      const random = m.seeded(seed);
      return Array.from({ length: 4000 }, () => random());
    })"""
    first, again, other = in_node("sampler.js", expression, [3, 3, 4])

    assert first == again
    assert not set(first) & set(other)
    assert 0 <= min(first) < max(first) < 1
    # A tenth of 4,000 numbers falls into each tenth: 400, with a standard deviation of 19.
    tenths = [sum(int(10 * x) == i for x in first) for i in range(10)]
    assert all(abs(n - 400) < 5 * 19 for n in tenths), tenths


def test_the_widget_follows_its_controls():
    data = {
        "alphabet": [*"abc\n "],
        "prompts": ["x\n", "y"],
        "logits": [[math.log(n) for n in (8, 4, 2, 1, 1)], [0.0, 0.0, 5.0, 0.0, 0.0]],
    }
    box = widget.sampler(data, filter_logits)
    prompt, temperature, top_k, top_p, min_p, view, button, drawn = box.children
    assert "5 of 5 characters are left; they held 100.0 %" in view.value
    assert "x⏎" in prompt.options[0]

    top_p.value = 0.7
    assert "2 of 5 characters are left; they held 75.0 %" in view.value
    assert "66.7 %" in view.value

    top_k.value = 1
    assert "1 of 5 character is left; it held 50.0 %" in view.value

    button.click()
    assert drawn.value.count("a") >= 20

    prompt.value = 1
    assert "“c”" in view.value
    assert not drawn.value

    temperature.value = 0
    top_k.value = 5
    top_p.value = 1.0
    min_p.value = 0.0
    assert "1 of 5 character is left" in view.value
