"""The exercises: solutions pass, stubs are not attempted, every recorded wrong answer gets its own diagnosis."""

from __future__ import annotations

import math
import random
import re

import nbformat
import numpy as np
import pytest
import torch

from courseware import paths, progress
from courseware.chapters import all_chapters
from courseware.exercises import check, find, generate, hint, learner, registry, solution
from courseware.exercises.engine import Exercise, judge, same

ALL = list(registry().values())
WRONG = [(e, w) for e in ALL for w in e.wrong]
NOTEBOOKS = sorted((paths.ROOT / "solutions").glob("*.ipynb"))
CHECK = re.compile(r'^check\("(\w+)", (\w+)\)$')


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "STATE", tmp_path / ".course")
    monkeypatch.setattr(learner, "_given", {})
    torch.set_num_threads(1)


def answers(path) -> dict:
    """Run a notebook's code without its checks; return what each check would be given, by exercise."""
    space: dict = {}
    for cell in nbformat.read(path, as_version=4).cells:
        found = CHECK.match(cell.source)
        if found:
            space.setdefault("answers", {})[found[1]] = space[found[2]]
        elif cell.cell_type == "code":
            exec(cell.source, space)
    return space["answers"]


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)
def test_the_reference_is_right_twice(exercise):
    assert judge(exercise, exercise.reference).kind == "right"
    assert judge(exercise, exercise.reference).kind == "right"


@pytest.mark.parametrize(("exercise", "wrong"), WRONG, ids=lambda x: x.name)
def test_every_wrong_answer_gets_its_own_diagnosis(exercise, wrong):
    verdict = judge(exercise, wrong.answer)
    assert verdict.kind == "wrong"
    assert verdict.diagnosis == wrong.name
    assert verdict.message == wrong.diagnosis and verdict.look


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_solutions_are_right_and_stubs_are_not(path):
    solved = answers(path)
    stubs = answers(paths.ROOT / "exercises" / path.name)
    number = int(path.name[:2])
    assert list(solved) == [e.name for e in ALL if e.chapter == number] == list(stubs)
    for name, answer in solved.items():
        assert judge(find(name), answer).kind == "right", name
    for name, stub in stubs.items():
        verdict = judge(find(name), stub)
        if find(name).title.startswith("find the bug"):
            assert verdict.kind == "wrong" and verdict.diagnosis in {
                w.name for w in find(name).wrong
            }
        else:
            assert verdict.kind == "not attempted", name


def test_the_course_asks_enough():
    for chapter in range(5):
        mine = [e for e in ALL if e.chapter == chapter]
        assert len(mine) >= (5 if chapter == 0 else 3)
        assert chapter == 0 or any(e.title.startswith("find the bug") for e in mine)
    for exercise in ALL:
        least = 6 if exercise.name in ("attention", "causal_mask", "sampler") else 3
        assert len(exercise.wrong) >= least, exercise.name
        assert exercise.hints and exercise.minutes > 0 and exercise.difficulty in (1, 2, 3)


def test_where_to_look_is_a_place_that_exists():
    headings = {
        c.number: set(re.findall(r"^## (.+)$", "\n".join(c.markdown), re.MULTILINE))
        for c in all_chapters()
    }
    places = [
        (int(n), h) for _, w in WRONG for n, h in re.findall(r'chapter (\d+), "(.+?)"', w.look)
    ]
    assert len(places) >= 8
    assert [place for place in places if place[1] not in headings[place[0]]] == []


def test_exercises_are_in_step_with_solutions():
    assert generate.out_of_step() == "", "run: python -m courseware generate"


# --- the same mistakes, and right answers, written by somebody else ---


def loops(scale=True, keys=True, include=0):
    """Attention with Python loops, for two dimensions and more."""

    def attention(q, k, v, is_causal=False):
        if q.dim() > 2:
            return torch.stack([attention(a, b, c, is_causal) for a, b, c in zip(q, k, v)])
        size, width = q.shape
        table = [
            [sum(float(a * b) for a, b in zip(q[i], k[j])) for j in range(size)]
            for i in range(size)
        ]
        for i in range(size):
            for j in range(size):
                table[i][j] = table[i][j] / math.sqrt(width) if scale else table[i][j]
                if is_causal and j > i + include:
                    table[i][j] = -math.inf
        weights = np.exp(np.array(table))
        weights = weights / weights.sum(axis=1 if keys else 0, keepdims=True)
        return torch.from_numpy(weights).float() @ v

    return attention


def einsum_attention(q, k, v, is_causal=False):
    scores = torch.einsum("...id,...jd->...ij", q, k) * q.size(-1) ** -0.5
    if is_causal:
        scores = scores + torch.full(scores.shape[-2:], -math.inf).triu(1)
    scores = scores.exp()
    return torch.einsum("...ij,...jd->...id", scores / scores.sum(-1, keepdim=True), v)


def library_attention(q, k, v, is_causal=False):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def np_mask(scores, side=1, fill=-np.inf):
    array = scores.numpy().astype(float)
    mask = np.array([[(j <= i) if side == 1 else (j >= i) for j in range(4)] for i in range(4)])
    array = np.where(mask, array, fill)
    weights = np.exp(array - array.max(axis=1, keepdims=True))
    return mask, weights / weights.sum(axis=1, keepdims=True)


def list_mask(scores):
    rows = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    mask = torch.tensor(rows) == 1
    scores[mask == False] = -torch.inf  # noqa: E712 - as a learner may write it, in place
    return mask, torch.softmax(scores, 1)


def plain_sampler(crossing=True, multiply=False, ids=True):
    def sample(logits, temperature=1.0, top_k=None, top_p=None):
        values = logits.tolist()
        if temperature == 0:
            return values.index(max(values))
        values = [v * temperature if multiply else v / temperature for v in values]
        order = sorted(range(len(values)), key=lambda i: -values[i])
        if top_k:
            order = order[:top_k]
        weights = [math.exp(values[i]) for i in order]
        total, kept, reached = sum(weights), [], 0.0
        for i, weight in zip(order, weights):
            share = weight / total
            if top_p is not None and kept and reached + (0 if crossing else share) >= top_p:
                break
            kept.append((i, share))
            reached += share
        chosen = random.choices(range(len(kept)), [share for _, share in kept])[0]
        return kept[chosen][0] if ids else chosen

    return sample


@pytest.mark.parametrize(
    ("name", "answer", "diagnosis"),
    [
        ("attention", loops(), None),
        ("attention", einsum_attention, None),
        ("attention", library_attention, None),
        ("attention", loops(scale=False), "the √d is missing"),
        ("attention", loops(keys=False), "softmax over the queries"),
        ("attention", loops(include=1), "the mask is off by one: a position sees one step ahead"),
        ("causal_mask", np_mask, None),
        ("causal_mask", list_mask, None),
        ("causal_mask", lambda s: np_mask(s, side=-1), "the mask hides the past"),
        (
            "causal_mask",
            lambda s: np_mask(s * np_mask(s)[0], fill=0.0),
            "multiplied instead of filled",
        ),
        ("sampler", plain_sampler(), None),
        ("sampler", plain_sampler(multiply=True), "multiplied by the temperature"),
        (
            "sampler",
            plain_sampler(crossing=False),
            "top-p drops the token that crosses the threshold",
        ),
        ("sampler", plain_sampler(ids=False), "wrong value"),
        ("sampler", lambda logits, **_: int(logits.argmax()), "always the most likely token"),
        (
            "char_codec",
            lambda t: (
                lambda s: [sorted(set(t)).index(c) for c in s],
                lambda i: "".join(sorted(set(t))[x] for x in i),
            ),
            None,
        ),
    ],
)
def test_answers_in_another_style(name, answer, diagnosis):
    random.seed(0)
    verdict = judge(find(name), answer)
    assert (verdict.kind, verdict.diagnosis) == (
        ("right", "") if diagnosis is None else ("wrong", diagnosis)
    )


def test_a_batched_validation_loss_is_right():
    def answer(train_ids, val_ids, vocab_size):
        model = torch.nn.Sequential(
            torch.nn.Embedding(vocab_size, 48),
            torch.nn.Linear(48, 96),
            torch.nn.GELU(),
            torch.nn.Linear(96, vocab_size),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(400):
            i = torch.randint(
                len(train_ids) - 1, (512,), generator=torch.Generator().manual_seed(step)
            )
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(train_ids[i]), train_ids[i + 1]).backward()
            optimizer.step()
        total = sum(
            torch.nn.functional.cross_entropy(model(a[:-1]), a[1:], reduction="sum").item()
            for a in val_ids.unfold(0, 101, 100)
        )
        return model, total / (100 * len(val_ids.unfold(0, 101, 100)))

    assert judge(find("mlp_bigram"), answer).kind == "right"


# --- the engine ---


def one(run=None, reference=lambda x: x + 1, **more):
    def default(answer):
        yield "f(1)", answer(1)

    fields = {
        "name": "one",
        "chapter": 0,
        "title": "one",
        "minutes": 1,
        "difficulty": 1,
        "hints": ("a",),
    }
    return Exercise(**fields, run=run or default, reference=reference, explanation="", **more)


def loop_forever(x):
    while True:
        x += 1


@pytest.mark.parametrize(
    ("answer", "diagnosis", "words"),
    [
        (lambda x: None, "returned None", "return statement"),
        (lambda x: 1 / 0, "raised", "ZeroDivisionError"),
        (lambda: 1, "raised", "TypeError"),
        (lambda x: "2", "wrong type", "expected int, got str"),
        (lambda x: 3, "wrong value", "f(1): expected 2, got 3"),
        (5, "raised", "not callable"),
    ],
)
def test_general_diagnoses(answer, diagnosis, words):
    verdict = judge(one(), answer)
    assert verdict.kind == "wrong" and verdict.diagnosis == diagnosis and words in verdict.message


def test_wrong_shape_is_named():
    exercise = one(reference=lambda x: torch.zeros(2, 3))
    verdict = judge(exercise, lambda x: torch.zeros(3, 2))
    assert (
        verdict.diagnosis == "wrong shape"
        and "expected shape (2, 3), got (3, 2)" in verdict.message
    )


def test_an_endless_loop_is_stopped(monkeypatch):
    from courseware.exercises import engine

    real = engine.collect
    monkeypatch.setattr(engine, "collect", lambda run, answer, seconds=0.3: real(run, answer, 0.3))
    assert "still running" in judge(one(), loop_forever).message


def todo(x):
    raise NotImplementedError("write this")


@pytest.mark.parametrize("answer", [None, ..., todo])
def test_not_attempted_is_not_wrong(answer):
    assert judge(one(), answer).kind == "not attempted"


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (torch.tensor([1.0]), np.array([1.0]), True),
        (torch.tensor([1.0]), torch.tensor([1.1]), False),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), True),
        (torch.ones(2), torch.ones(2, 1), False),
        (torch.ones(2), [1, 1], False),
        (True, 1, False),
        (1, 1.0, True),
        ("a", b"a", False),
        ([1, (2, 3)], [1, [2, 3]], True),
        ({"a": 1}, {"a": 2}, False),
        (math.inf, math.inf, True),
        (math.nan, math.nan, True),
    ],
)
def test_comparison(a, b, equal):
    assert same(a, b) is equal


def test_cards_and_progress():
    shown = check("char_codec", find("char_codec").reference)
    assert "Right" in repr(shown) and "Right" in shown._repr_html_()
    assert progress.read()["exercise"]["char_codec"] == "right"
    wrong = check("extend_alphabet", lambda alphabet, text: alphabet)
    assert repr(wrong).startswith("Not yet") and "expected" in repr(wrong)
    assert progress.read()["exercise"]["extend_alphabet"] == "wrong"
    assert "Not attempted" in repr(check("attention", None))


def test_hints_come_one_by_one_and_end():
    count = len(find("attention").hints)
    texts = [repr(hint("attention")) for _ in range(count)]
    assert len(set(texts)) == count and texts[0].startswith(f"Hint 1 of {count}")
    assert "no more hints" in repr(hint("attention"))
    assert "def attention(q, k, v" in repr(solution("attention"))


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(ValueError, match="did you mean attention"):
        check("atention", None)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("### BEGIN SOLUTION\nx", "BEGIN SOLUTION without"),
        ("x\n### END SOLUTION", "line 2: ### END SOLUTION without"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "inside a solution"),
    ],
)
def test_unbalanced_markers(source, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        generate.strip(source, "cell 1")


def test_stubs():
    source = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
    assert generate.strip(source, "") == 'def f():\n    raise NotImplementedError("write this")'
    source = "### BEGIN SOLUTION\n### STUB: x = ...\n### STUB:     # more\nx = 1\n### END SOLUTION\ny = 2"
    assert generate.strip(source, "") == "x = ...\n    # more\ny = 2"


def test_generating_twice_gives_the_same_bytes_and_drift_is_found(tmp_path, monkeypatch):
    first = generate.pairs()
    assert generate.pairs() == first
    root = tmp_path / "root"
    (root / "solutions").mkdir(parents=True)
    (root / "solutions/00_warmups.ipynb").write_text(NOTEBOOKS[0].read_text())
    monkeypatch.setattr(paths, "ROOT", root)
    assert generate.main(["--check"]) == 1
    assert generate.main([]) == 0 and generate.main(["--check"]) == 0
    made = root / "exercises/00_warmups.ipynb"
    made.write_text(made.read_text().replace("write this", "done"))
    (root / "exercises/99_stray.ipynb").write_text("{}")
    difference = generate.out_of_step()
    assert "+" in difference and "99_stray.ipynb: no solution writes this file" in difference
    assert "BEGIN SOLUTION" not in made.read_text() and 'outputs": []' in made.read_text()
