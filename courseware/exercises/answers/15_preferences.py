"""Exercises of chapter 15: DPO's loss, the price of an answer, the tilt, pairs, and a reference that moves."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- the loss ---


def preference_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    chosen = policy_chosen - reference_chosen
    rejected = policy_rejected - reference_rejected
    return -F.logsigmoid(beta * (chosen - rejected)).mean()


def _loss(margin, end=lambda m: -F.logsigmoid(m).mean()):
    """Return an answer with another margin, or another way to end."""
    return lambda c, d, rc, rd, beta: end(margin(c, d, rc, rd, beta))


def _right_margin(c, d, rc, rd, beta):
    return beta * ((c - rc) - (d - rd))


def _run_loss(answer):
    def on(values, beta):
        return torch.as_tensor(answer(*(torch.tensor(row) for row in values), beta))

    yield "the pair of the chapter", on([[-2.0], [-5.0], [-3.0], [-4.0]], 0.5)
    yield (
        "three pairs",
        on([[-3.0, -1.0, -8.0], [-4.0, -2.5, -6.0], [-3.5, -0.5, -9.0], [-6.0, -2.0, -5.0]], 0.1),
    )
    yield (
        "two pairs, a long leash",
        on([[-30.0, -12.0], [-41.0, -10.0], [-33.0, -13.0], [-40.0, -12.5]], 0.7),
    )
    yield "a model that is the reference", on([[-2.0, -7.0], [-9.0, -1.0]] * 2, 0.3)
    yield "a hopeless pair", on([[-900.0], [-10.0], [-20.0], [-30.0]], 1.0)
    yield "a pair that is safe", on([[-5.0], [-700.0], [-6.0], [-8.0]], 1.0)
    yield (
        "the slopes of two pairs",
        _slopes(answer, [[-2.0, -7.0], [-5.0, -6.0], [-3.0, -4.0], [-4.0, -6.5]], 0.5),
    )


def _slopes(answer, values, beta):
    """Return the gradient of the loss for the model's ln p of chosen and rejected answers, 0 where there is none."""
    four = [torch.tensor(row, requires_grad=i < 2) for i, row in enumerate(values)]
    loss = answer(*four, beta)
    if not torch.is_tensor(loss) or not loss.requires_grad:
        return [torch.zeros(2), torch.zeros(2)]
    slopes = torch.autograd.grad(loss.sum(), four[:2], allow_unused=True)
    return [torch.zeros(2) if slope is None else slope for slope in slopes]


LOSS = Exercise(
    name="preference_loss",
    chapter=15,
    title="The loss of DPO",
    minutes=15,
    difficulty=1,
    hints=(
        "Begin with two log ratios: how many nats likelier has the chosen answer become, and how many the rejected one?",
        "The margin is beta times (the chosen one's log ratio less the rejected one's). The loss is -ln sigmoid of it.",
        "-F.logsigmoid(margin).mean(), where margin = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)).",
    ),
    run=_run_loss,
    reference=preference_loss,
    explanation="Four numbers a pair: both answers are compared with what the reference thought of them, and only the difference counts.",
    wrong=(
        WrongAnswer(
            "the wrong sign",
            "Your margin is rejected less chosen: training would teach the answers that were refused.",
            'chapter 15, "Break it: four small mistakes"',
            _loss(lambda *a: -_right_margin(*a)),
        ),
        WrongAnswer(
            "the reference is forgotten",
            "You compared the two answers by the model alone. Then an answer that is rare in itself counts as disliked; subtract what the reference thought of each.",
            'chapter 15, "The reward disappears"',
            _loss(lambda c, d, rc, rd, b: b * (c - d)),
        ),
        WrongAnswer(
            "the reference turned around",
            "The reference's part has the wrong sign: either you added its ln p where a ratio asks for a difference, or you took its chosen for its rejected answer.",
            "hint 3",
            _loss(lambda c, d, rc, rd, b: b * ((c + rc) - (d + rd))),
        ),
        WrongAnswer(
            "beta outside",
            "You multiplied the loss by beta instead of the margin. That only changes the step size; beta belongs inside the sigmoid.",
            "hint 2",
            lambda c, d, rc, rd, b: -b * F.logsigmoid((c - rc) - (d - rd)).mean(),
        ),
        WrongAnswer(
            "beta is forgotten",
            "There is no beta in your margin, which is the same as beta = 1.",
            "hint 2",
            _loss(lambda c, d, rc, rd, b: (c - rc) - (d - rd)),
        ),
        WrongAnswer(
            "beta on one side",
            "Only the chosen answer's log ratio was multiplied by beta. Both are rewards, and both need it.",
            "hint 2",
            _loss(lambda c, d, rc, rd, b: b * (c - rc) - (d - rd)),
        ),
        WrongAnswer(
            "divided by beta",
            "You divided by beta. A reward is beta times a log ratio.",
            'chapter 15, "The reward disappears"',
            _loss(lambda c, d, rc, rd, b: ((c - rc) - (d - rd)) / b),
        ),
        WrongAnswer(
            "no logarithm",
            "You returned minus the probability of the choice. Cross-entropy is minus its logarithm.",
            'chapter 15, "The reward disappears"',
            _loss(_right_margin, lambda m: -torch.sigmoid(m).mean()),
        ),
        WrongAnswer(
            "the logarithm of 0",
            "On paper you are right. But for a hopeless pair the sigmoid becomes 0, or e to the power of -m infinite, and the loss with it. F.logsigmoid computes all in one.",
            "hint 3",
            _loss(_right_margin, lambda m: -torch.log(torch.sigmoid(m)).mean()),
        ),
        WrongAnswer(
            "no gradient",
            "The value is right, but it has no gradient: detach, no_grad, .item() or a new tensor cut it off from the model. Nothing can be learned from it; return the tensor as it was computed.",
            'chapter 15, "The reward disappears"',
            _loss(_right_margin, lambda m: -F.logsigmoid(m).mean().detach()),
        ),
        WrongAnswer(
            "the rejected answer has no gradient",
            "The value is right, but no gradient reaches the rejected answer: training would raise the chosen one and leave the other alone. Detach at most what the reference says.",
            'chapter 15, "The reward disappears"',
            _loss(lambda c, d, rc, rd, b: _right_margin(c, d.detach(), rc, rd, b)),
        ),
        WrongAnswer(
            "the chosen answer has no gradient",
            "The value is right, but no gradient reaches the chosen answer: training would lower the rejected one and leave the other alone. Detach at most what the reference says.",
            'chapter 15, "The reward disappears"',
            _loss(lambda c, d, rc, rd, b: _right_margin(c.detach(), d, rc, rd, b)),
        ),
        WrongAnswer(
            "a positive loss turned negative",
            "You returned the mean of ln sigmoid, which is to be made large. A loss is to be made small: put a minus before it.",
            "hint 2",
            _loss(_right_margin, lambda m: F.logsigmoid(m).mean()),
        ),
        WrongAnswer(
            "the sum over pairs",
            "You added up the pairs. The mean does not change with the size of a batch.",
            "hint 3",
            _loss(_right_margin, lambda m: -F.logsigmoid(m).sum()),
        ),
        WrongAnswer(
            "the loss of the mean margin",
            "You averaged the margins first. A safe pair then pays for a hopeless one; take the loss of each pair, then the mean.",
            "hint 3",
            _loss(_right_margin, lambda m: -F.logsigmoid(m.mean())),
        ),
        WrongAnswer(
            "a margin without end",
            "You made the margin itself as large as possible, without the sigmoid. Then pairs that are right already pull as hard as those that are wrong.",
            'chapter 15, "The reward disappears"',
            _loss(_right_margin, lambda m: -m.mean()),
        ),
    ),
)

# --- the price of an answer ---


def answer_log_prob(logits, ids, start):
    logs = logits.log_softmax(-1)
    return sum(logs[t - 1, ids[t]] for t in range(start, len(ids)))


def _price(first=0, last=0, shift=1, end=sum, scale=lambda x: x.log_softmax(-1)):
    def answer(logits, ids, start):
        logs = scale(logits)
        places = range(max(start + first, shift), len(ids) + last)
        return end([logs[t - shift, ids[t]] for t in places])

    return answer


def _run_price(answer):
    chance = torch.Generator().manual_seed(0)
    for label, T, V, start in (
        ("3 tokens of 7", 7, 5, 4),
        ("the last token alone", 6, 4, 5),
        ("all but the first", 5, 6, 1),
        ("9 tokens of 12", 12, 8, 3),
    ):
        logits = torch.randn(T, V, generator=chance) * 3 + 1
        ids = torch.randint(V, (T,), generator=chance)
        yield label, torch.as_tensor(answer(logits, ids, start), dtype=torch.float32)
    table = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5]]).log()
    yield "a table", torch.as_tensor(answer(table, torch.tensor([0, 1, 0]), 1))
    for label, T, V, start, more in (
        ("logits near 200", 6, 5, 3, 200.0),
        ("an answer of 400 tokens", 410, 20, 10, 0.0),
    ):
        logits = torch.randn(T, V, generator=chance) * 3 + more
        ids = torch.randint(V, (T,), generator=chance)
        yield label, torch.as_tensor(answer(logits, ids, start), dtype=torch.float32)


def _product(logs):
    return torch.stack(logs).prod().log()


def _product_in_python(logs):
    return math.log(math.prod(value.item() for value in logs))


PRICE = Exercise(
    name="answer_log_prob",
    chapter=15,
    title="The price of an answer",
    minutes=15,
    difficulty=2,
    hints=(
        "Which row of `logits` says what the model thought of the token at place t? Not row t: that one is about the next token.",
        "Take log_softmax over the last dimension. The answer's tokens are those at places start, start + 1, ..., len(ids) - 1.",
        "Add up log_probs[t - 1, ids[t]] over these places; nothing before `start`, and no division.",
    ),
    run=_run_price,
    reference=answer_log_prob,
    explanation="The logits at place t - 1 are about token t. The sum is the logarithm of the probability of the whole answer; the prompt is given, and costs nothing.",
    wrong=(
        WrongAnswer(
            "the prompt counted",
            "The tokens of the prompt count as well. They are given: begin at `start`.",
            'chapter 15, "Break it: four small mistakes"',
            lambda x, ids, start: answer_log_prob(x, ids, 1),
        ),
        WrongAnswer(
            "a mean per token",
            "You divided by the number of tokens. That is right for comparing choices, but the log ratio of an answer is the sum.",
            'chapter 15, "The price of a whole answer"',
            _price(end=lambda logs: sum(logs) / len(logs)),
        ),
        WrongAnswer(
            "not shifted",
            "You read the logits at the token's own place, which are about the next token. Go back by one.",
            "hint 1",
            _price(shift=0),
        ),
        WrongAnswer(
            "shifted twice",
            "You went back by two places. The logits at t - 1 are about token t.",
            "hint 1",
            _price(shift=2),
        ),
        WrongAnswer(
            "the end left out",
            "The last token is missing, the end of the turn. An answer that does not end is another answer.",
            'chapter 15, "The price of a whole answer"',
            _price(last=-1),
        ),
        WrongAnswer(
            "the first token left out",
            "The answer's first token is missing: it stands at place `start` and is predicted at start - 1.",
            "hint 2",
            _price(first=1),
        ),
        WrongAnswer(
            "one token of the prompt",
            "You began one place too early: the last token of the prompt is given.",
            "hint 2",
            _price(first=-1),
        ),
        WrongAnswer(
            "logits added up",
            "You added raw logits. Only after log_softmax are they logarithms of probabilities.",
            "hint 2",
            _price(scale=lambda x: x),
        ),
        WrongAnswer(
            "probabilities added up",
            "You added probabilities. They multiply; their logarithms add.",
            'chapter 15, "The price of a whole answer"',
            _price(scale=lambda x: x.softmax(-1)),
        ),
        WrongAnswer(
            "a probability returned",
            "That is the probability of the answer. For long answers it is too small for any float: return its logarithm.",
            'chapter 15, "The price of a whole answer"',
            _price(end=lambda logs: torch.exp(sum(logs))),
        ),
        WrongAnswer(
            "the product underflows",
            "On paper you are right. But the product of 400 probabilities is too small for any float: it becomes 0, and its logarithm minus infinity. Add up logarithms instead.",
            'chapter 15, "The price of a whole answer"',
            _price(end=_product, scale=lambda x: x.softmax(-1)),
        ),
        WrongAnswer(
            "the product underflows, in Python",
            "On paper you are right. But the product of 400 probabilities is too small for any float: it becomes 0, which has no logarithm. Add up logarithms instead.",
            'chapter 15, "The price of a whole answer"',
            _price(end=_product_in_python, scale=lambda x: x.softmax(-1)),
        ),
        WrongAnswer(
            "e to the power of 200",
            "On paper you are right. But e to the power of 200 is infinite in float32, and infinity divided by infinity is no number. log_softmax subtracts the largest logit first.",
            "hint 2",
            _price(scale=lambda x: (x.exp() / x.exp().sum(-1, keepdim=True)).log()),
        ),
        WrongAnswer(
            "the logarithm of a sum, by hand",
            "On paper you are right. But e to the power of 200 is infinite in float32, and the logarithm of the sum with it. log_softmax and logsumexp subtract the largest logit first.",
            "hint 2",
            _price(scale=lambda x: x - x.exp().sum(-1, keepdim=True).log()),
        ),
        WrongAnswer(
            "softmax over the places",
            "Your softmax runs over the tokens of the text. It must run over the vocabulary, the last dimension.",
            "hint 2",
            _price(scale=lambda x: x.log_softmax(0)),
        ),
        WrongAnswer(
            "a loss returned",
            "The sign is turned: you returned what the answer costs. The exercise asks for ln p, which is not above 0.",
            "hint 3",
            _price(end=lambda logs: -sum(logs)),
        ),
        WrongAnswer(
            "logarithms to base 2",
            "These are bits. The chapter counts in nats, with the natural logarithm.",
            'chapter 15, "The price of a whole answer"',
            _price(end=lambda logs: sum(logs) / math.log(2)),
        ),
    ),
)

# --- the tilt ---


def tilted(reference, rewards, beta):
    logs = [math.log(p) + r / beta if p > 0 else -math.inf for p, r in zip(reference, rewards)]
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    return [weight / sum(weights) for weight in weights]


def _shares(weights):
    return [weight / sum(weights) for weight in weights]


def _tilt(weight, shares=_shares):
    return lambda reference, rewards, beta: shares(
        [weight(p, r, beta) for p, r in zip(reference, rewards)]
    )


def _softmax_of(p, r, beta):
    return math.exp(p + r / beta)


def _all_on_the_best(reference, rewards, beta):
    best = max(range(len(rewards)), key=rewards.__getitem__)
    return [float(i == best) for i in range(len(rewards))]


def _mixed(reference, rewards, beta):
    best = _all_on_the_best(reference, rewards, beta)
    return [(q + beta * p) / (1 + beta) for p, q in zip(reference, best)]


def _run_tilt(answer):
    def on(*a):
        return [float(value) for value in answer(*a)]

    yield "the answers of the chapter", on([0.3, 0.4, 0.2, 0.1], [1.0, 0.0, 0.0, 0.0], 1.0)
    yield "a longer leash", on([0.3, 0.4, 0.2, 0.1], [1.0, 0.0, -0.5, 0.25], 0.3)
    yield "a short leash", on([0.5, 0.25, 0.25], [2.0, -1.0, 0.5], 4.0)
    yield "rewards all alike", on([0.7, 0.2, 0.1], [3.0, 3.0, 3.0], 0.5)
    yield "an answer that the reference never gives", on([0.6, 0.0, 0.4], [0.0, 40.0, 1.0], 1.0)
    yield "very large rewards", on([0.25, 0.5, 0.25], [2000.0, 1999.0, 0.0], 0.5)
    yield "a large reward for what is never said", on([0.0, 0.5, 0.5], [2000.0, 1.0, 0.0], 1.0)


TILT = Exercise(
    name="tilted",
    chapter=15,
    title="The best policy on a leash",
    minutes=15,
    difficulty=2,
    hints=(
        "Multiply each probability by e to the power of reward / beta, then divide by the sum.",
        "math.exp(2000) is too large for a float. Only differences of rewards count, so you may subtract the largest reward from all first.",
        "weights = [p * math.exp((r - most) / beta) if p > 0 else 0.0 ...], with `most` the largest reward among the answers with p > 0; return each divided by the sum of all.",
    ),
    run=_run_tilt,
    tolerance=1e-3,  # float32 keeps seven digits, and 2000 needs four of them
    reference=tilted,
    explanation="The reference is what the policy falls back on: what it never says stays unsaid, and where the rewards are alike nothing moves.",
    wrong=(
        WrongAnswer(
            "too large for a float",
            "On paper you are right, but e to the power of a large reward is beyond any float. Subtract the largest reward first (the mean is not enough): only differences count.",
            "hint 2",
            _tilt(lambda p, r, b: p * math.exp(r / b)),
        ),
        WrongAnswer(
            "too large for a tensor",
            "On paper you are right, but e to the power of 2000 is infinite, and infinity divided by infinity is no number. Subtract the largest reward first: only differences count.",
            "hint 2",
            _tilt(lambda p, r, b: torch.tensor(p).double() * torch.tensor(r / b).double().exp()),
        ),
        WrongAnswer(
            "a tiny number in place of 0",
            "You added a tiny number so that the logarithm of 0 exists. A large reward makes it grow again: what the reference never says must stay at 0.",
            "hint 3",
            lambda reference, rewards, beta: tilted([p + 1e-12 for p in reference], rewards, beta),
        ),
        WrongAnswer(
            "multiplied by beta",
            "You multiplied the reward by beta. A small beta is a long leash, so it must make the reward count for more: divide.",
            'chapter 15, "Two ideas on paper"',
            _tilt(lambda p, r, b: p * math.exp((r - 2000 * (r > 1000)) * b)),
        ),
        WrongAnswer(
            "multiplied by beta, and too large",
            "You multiplied the reward by beta: a small beta is a long leash, so it must make the reward count for more. Divide. (And e to the power of 2000 is beyond any float.)",
            'chapter 15, "Two ideas on paper"',
            _tilt(lambda p, r, b: p * math.exp(r * b)),
        ),
        WrongAnswer(
            "multiplied by beta, the largest subtracted",
            "You multiplied the reward by beta. A small beta is a long leash, so it must make the reward count for more: divide.",
            'chapter 15, "Two ideas on paper"',
            lambda reference, rewards, beta: _shares(
                [p * math.exp((r - max(rewards)) * beta) for p, r in zip(reference, rewards)]
            ),
        ),
        WrongAnswer(
            "an answer that is never given decides",
            "You subtract the largest reward of all. Where it belongs to an answer that the reference never gives, all others are rounded to 0, and you divide 0 by 0. Take the largest among answers with p > 0.",
            "hint 3",
            lambda reference, rewards, beta: _shares(
                [p * math.exp((r - max(rewards)) / beta) for p, r in zip(reference, rewards)]
            ),
        ),
        WrongAnswer(
            "the reference is forgotten",
            "You took the softmax of the rewards alone. The policy starts from the reference: multiply by its probabilities.",
            'chapter 15, "Two ideas on paper"',
            lambda reference, rewards, beta: _shares(
                [math.exp((r - max(rewards)) / beta) for r in rewards]
            ),
        ),
        WrongAnswer(
            "probabilities taken for logarithms",
            "You added the probability to reward / beta inside the exponential. It is the logarithm of the probability that belongs there.",
            "hint 1",
            lambda reference, rewards, beta: _shares(
                [math.exp(p + (r - max(rewards)) / beta) for p, r in zip(reference, rewards)]
            ),
        ),
        WrongAnswer(
            "not divided by the sum",
            "Your numbers do not add up to 1. Divide each by the sum of all.",
            "hint 1",
            lambda reference, rewards, beta: [
                p * math.exp((r - max(rewards)) / beta) for p, r in zip(reference, rewards)
            ],
        ),
        WrongAnswer(
            "everything on the best answer",
            "All probability goes to the answer with the highest reward. That is the limit of beta near 0, without any leash.",
            'chapter 15, "Two ideas on paper"',
            _all_on_the_best,
        ),
        WrongAnswer(
            "a mixture of reference and best answer",
            "You mixed the reference with the best answer. The tilt multiplies: answers with middling rewards gain as well.",
            "hint 1",
            _mixed,
        ),
        WrongAnswer(
            "the reward is punished",
            "The sign of the reward is turned: the worst answers gain.",
            "hint 1",
            lambda reference, rewards, beta: tilted(reference, [-r for r in rewards], beta),
        ),
        WrongAnswer(
            "beta is forgotten",
            "There is no beta in your tilt, which is the same as beta = 1.",
            "hint 1",
            lambda reference, rewards, beta: tilted(reference, rewards, 1.0),
        ),
        WrongAnswer(
            "the logarithm of 0",
            "An answer that the reference never gives has the logarithm minus infinity, and math.log refuses. Multiply probabilities instead, or leave such an answer at 0.",
            "hint 3",
            lambda reference, rewards, beta: _shares(
                [
                    math.exp(math.log(p) + (r - max(rewards)) / beta)
                    for p, r in zip(reference, rewards)
                ]
            ),
        ),
    ),
)

# --- pairs ---


def choose_pairs(answers, scores):
    pairs = []
    for texts, numbers in zip(answers, scores):
        known = [(number, text) for number, text in zip(numbers, texts) if text is not None]
        if not known:
            continue
        best = max(number for number, _ in known)
        worst = min(number for number, _ in known)
        if best > worst:
            first = [next(t for n, t in known if n == wanted) for wanted in (best, worst)]
            pairs.append(tuple(first))
    return pairs


def _choose(tie=False, none=True, swap=False, key=None, pick=None):
    """Return an answer that picks another way; pick gets (score, text) pairs, the best first, equals in order."""

    def answer(answers, scores):
        pairs = []
        for texts, numbers in zip(answers, scores):
            known = [(n, t) for n, t in zip(numbers, texts) if t is not None or not none]
            known = [(key(n, t), t) for n, t in known] if key else known
            if not known:
                continue
            known.sort(key=lambda pair: -pair[0])
            worst = next(pair for pair in known if pair[0] == known[-1][0])
            best, worst = pick(known) if pick else (known[0], worst)
            if best[0] > worst[0] or tie:
                pairs.append((worst[1], best[1]) if swap else (best[1], worst[1]))
        return pairs

    return answer


def _all_combinations(answers, scores):
    pairs = []
    for texts, numbers in zip(answers, scores):
        known = [(n, t) for n, t in zip(numbers, texts) if t is not None]
        pairs += [(t, u) for n, t in known for m, u in known if n > m]
    return pairs


def _run_pairs(answer):
    def on(answers, scores):
        return [[str(text) for text in pair] for pair in answer(answers, scores)]

    yield "one question", on([["in Rome", "in Oslo", "I know not"]], [[2.0, 0.0, 1.0]])
    yield "no answer is better", on([["a", "bb"], ["c", "dd"]], [[1.0, 1.0], [0.0, 3.0]])
    yield (
        "answers that were no whole turn",
        on(
            [["good", None, "poor"], [None, None], ["one", None], [None, "x", "yy", None]],
            [[1.0, 9.0, 0.5], [1.0, 2.0], [3.0, -5.0], [-9.0, 0.0, 4.0, 9.0]],
        ),
    )
    yield (
        "equal best and equal worst",
        on([["p", "q", "r", "s", "t"]], [[1.0, 3.0, 0.0, 3.0, 0.0]]),
    )
    yield "scores below 0", on([["long one", "so", "mid"]], [[-8.0, -2.0, -3.0]])
    yield "an empty text, which is not None", on([["", "so", "mid"]], [[2.0, 1.0, 0.0]])
    yield "nothing asked", on([], [])


PAIRS = Exercise(
    name="choose_pairs",
    chapter=15,
    title="Best against worst",
    minutes=15,
    difficulty=1,
    hints=(
        "For each question: leave out the answers that are None, together with their scores.",
        "If the best score equals the worst, nothing can be learned from this question: no pair.",
        "Of several answers with the best (or the worst) score take the first.",
    ),
    run=_run_pairs,
    reference=choose_pairs,
    explanation="A pair says that one answer is better than the other, so there must be a difference; and both must be answers that the model really finished.",
    wrong=(
        WrongAnswer(
            "pairs without a preference",
            "Where all answers are equally good you made a pair nevertheless. It says nothing, and yet it would pull.",
            "hint 2",
            _choose(tie=True),
        ),
        WrongAnswer(
            "chosen and rejected swapped",
            "The worst answer comes first in your pairs. Training would teach it.",
            'chapter 15, "Break it: four small mistakes"',
            _choose(swap=True),
        ),
        WrongAnswer(
            "unfinished answers",
            "An answer that is None became part of a pair. It was no whole turn; leave it out together with its score.",
            "hint 1",
            _choose(none=False),
        ),
        WrongAnswer(
            "the longest against the shortest",
            "You looked at the lengths instead of the scores.",
            'chapter 15, "Break it: the wrong judge"',
            _choose(key=lambda n, t: len(t)),
        ),
        WrongAnswer(
            "the last of equals",
            "Of several answers with the same score you took the last. The exercise asks for the first.",
            "hint 3",
            _choose(pick=lambda known: ([p for p in known if p[0] == known[0][0]][-1], known[-1])),
        ),
        WrongAnswer(
            "sorted, and the ends taken",
            "You sorted the answers and took both ends. Among equally bad answers that takes the last; the exercise asks for the first.",
            "hint 3",
            _choose(pick=lambda known: (known[0], known[-1])),
        ),
        WrongAnswer(
            "sorted upwards, and the ends taken",
            "You sorted from worst to best and took both ends. Among equally good answers that takes the last; the exercise asks for the first.",
            "hint 3",
            _choose(
                pick=lambda known: (
                    [p for p in known if p[0] == known[0][0]][-1],
                    next(p for p in known if p[0] == known[-1][0]),
                )
            ),
        ),
        WrongAnswer(
            "empty answers left out",
            'You leave out empty texts, too: `if text` is false for "" as well as for None. Compare with `is not None`.',
            "hint 1",
            lambda answers, scores: choose_pairs(
                [[t or None for t in texts] for texts in answers], scores
            ),
        ),
        WrongAnswer(
            "best against second best",
            "You compared the best with the second best. The exercise asks for the worst.",
            "hint 3",
            _choose(pick=lambda known: (known[0], known[min(1, len(known) - 1)])),
        ),
        WrongAnswer(
            "every better against every worse",
            "You made every pair that there is. The exercise asks for one pair a question, so that no question counts more than another.",
            "hint 3",
            _all_combinations,
        ),
    ),
)

# --- find the bug: the reference that moves ---


def given_training(policy, reference, beta, lr, steps):
    losses = []
    policy = policy.clone().requires_grad_()
    for _ in range(steps):
        chosen, rejected = policy.log_softmax(-1)[:2]
        fixed_chosen, fixed_rejected = policy.detach().log_softmax(-1)[:2]
        margin = beta * ((chosen - fixed_chosen) - (rejected - fixed_rejected))
        loss = -F.logsigmoid(margin)
        (slope,) = torch.autograd.grad(loss, policy)
        policy = (policy - lr * slope).detach().requires_grad_()
        losses.append(loss.item())
    return losses, policy.detach()


def _training(fixed="reference", sign=1.0, step=1.0):
    """Return an answer with another reference, margin or step."""

    def answer(policy, reference, beta, lr, steps):
        kept = {"reference": reference, "start": policy, "none": torch.zeros_like(reference)}
        losses, policy = [], policy.clone().requires_grad_()
        for _ in range(steps):
            moving = {"moving": policy, "detached": policy.detach()}
            base = (kept | moving)[fixed].log_softmax(-1)
            logs = policy.log_softmax(-1)
            loss = -F.logsigmoid(sign * beta * ((logs[0] - base[0]) - (logs[1] - base[1])))
            (slope,) = torch.autograd.grad(loss, policy)
            policy = (policy - step * lr * slope).detach().requires_grad_()
            losses.append(loss.item())
        return losses, policy.detach()

    return answer


def preference_training(policy, reference, beta, lr, steps):
    losses = []
    policy = policy.clone().requires_grad_()
    fixed_chosen, fixed_rejected = reference.log_softmax(-1)[:2]
    for _ in range(steps):
        chosen, rejected = policy.log_softmax(-1)[:2]
        margin = beta * ((chosen - fixed_chosen) - (rejected - fixed_rejected))
        loss = -F.logsigmoid(margin)
        (slope,) = torch.autograd.grad(loss, policy)
        policy = (policy - lr * slope).detach().requires_grad_()
        losses.append(loss.item())
    return losses, policy.detach()


def _one_behind(policy, reference, beta, lr, steps):
    losses, policy, base = [], policy.clone().requires_grad_(), reference
    for _ in range(steps):
        logs, past = policy.log_softmax(-1), base.log_softmax(-1)
        loss = -F.logsigmoid(beta * ((logs[0] - past[0]) - (logs[1] - past[1])))
        (slope,) = torch.autograd.grad(loss, policy)
        base = policy.detach()
        policy = (policy - lr * slope).detach().requires_grad_()
        losses.append(loss.item())
    return losses, policy.detach()


def _run_training(answer):
    for label, policy, reference, beta, lr, steps in (
        ("from the reference, 4 steps", [0.0, 1.0, 0.5], [0.0, 1.0, 0.5], 0.5, 2.0, 4),
        ("from elsewhere, 3 steps", [0.3, -0.2, 1.0, 0.0], [1.0, 0.5, 0.0, -1.0], 1.0, 0.5, 3),
        ("one step", [0.2, 0.1, -0.4], [-0.3, 0.6, 0.2], 0.1, 1.0, 1),
        ("no step", [0.2, 0.1, -0.4], [0.2, 0.1, -0.4], 0.1, 1.0, 0),
    ):
        losses, after = answer(torch.tensor(policy), torch.tensor(reference), beta, lr, steps)
        yield label, [[float(loss) for loss in losses], torch.as_tensor(after)]


TRAINING = Exercise(
    name="preference_training",
    chapter=15,
    title="find the bug: a loss that stays at ln 2",
    minutes=15,
    difficulty=2,
    hints=(
        "The loss is ln 2 when the margin is 0. Whose ln p is subtracted from whose?",
        "`reference` is an argument, and the function never uses it.",
        "The two fixed numbers are reference.log_softmax(-1)[:2], in every step the same.",
    ),
    run=_run_training,
    seconds=60.0,  # torch.optim needs up to ten seconds when it is used for the first time
    reference=preference_training,
    given=given_training,
    explanation="The reference is the model as it was, for the whole run. Taken from the model that learns, it moves along: every margin is 0, the slope never shrinks, and nothing holds the model back.",
    wrong=(
        WrongAnswer(
            "the reference moves along",
            "The fixed numbers still come from the policy of the same step, so the margin is always 0 and the loss ln 2.",
            'chapter 15, "Break it: four small mistakes"',
            _training("detached"),
        ),
        WrongAnswer(
            "the reference moves along, with a gradient",
            "Policy less policy is 0 for all weights: without detach even the slope is 0, and nothing is learned at all.",
            'chapter 15, "Break it: four small mistakes"',
            _training("moving"),
        ),
        WrongAnswer(
            "the policy's own start",
            "You kept the policy as it was at the start. Often that is the reference, but here `reference` is given, and may be another.",
            "hint 2",
            _training("start"),
        ),
        WrongAnswer(
            "one step behind",
            "Your reference is the policy of the step before. It must stay the same for the whole run.",
            "hint 3",
            _one_behind,
        ),
        WrongAnswer(
            "no reference at all",
            "You left the reference out of the margin. Then nothing says where the leash is tied.",
            "hint 3",
            _training("none"),
        ),
        WrongAnswer(
            "the wrong sign",
            "The margin is turned: now the rejected answer is learned.",
            'chapter 15, "Break it: four small mistakes"',
            _training(sign=-1.0),
        ),
        WrongAnswer(
            "uphill",
            "You step along the slope, which makes the loss larger. A step goes against it.",
            "hint 1",
            _training(step=-1.0),
        ),
    ),
)

EXERCISES = (LOSS, PRICE, TILT, PAIRS, TRAINING)
