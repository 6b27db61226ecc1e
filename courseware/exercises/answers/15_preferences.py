"""Chapter 15: the loss of DPO, the price of an answer, the tilt, pairs, and a reference that moves."""

import torch

from courseware.exercises import Exercise, Mistake

BREAK_IT = 'chapter 15, "Break it: four small mistakes"'


def _probe_loss(answer):
    def on(beta, *values):
        return torch.as_tensor(answer(*(torch.tensor(row) for row in values), beta))

    yield "the pair of the chapter", on(0.5, [-2.0], [-5.0], [-3.0], [-4.0])
    three = [-3.0, -1.0, -8.0], [-4.0, -2.5, -6.0], [-3.5, -0.5, -9.0], [-6.0, -2.0, -5.0]
    yield "three pairs", on(0.1, *three)
    yield "a model that is the reference", on(0.3, *([-2.0, -7.0], [-9.0, -1.0]) * 2)
    yield "a hopeless pair", on(1.0, [-900.0], [-10.0], [-20.0], [-30.0])
    yield "a pair that is safe", on(1.0, [-5.0], [-700.0], [-6.0], [-8.0])

    four = [torch.tensor(x) for x in ([-2.0, -7.0], [-5.0, -6.0], [-3.0, -4.0], [-4.0, -6.5])]
    learned = [x.requires_grad_() for x in four[:2]]
    loss = answer(*four, 0.5)
    slopes = [None, None]
    if torch.is_tensor(loss) and loss.requires_grad:
        slopes = torch.autograd.grad(loss.sum(), learned, allow_unused=True)
    yield "the slopes of two pairs, chosen", torch.zeros(2) if slopes[0] is None else slopes[0]
    yield "the slopes of two pairs, rejected", torch.zeros(2) if slopes[1] is None else slopes[1]


LOSS = Exercise(
    "preference_loss", _probe_loss,
    hints=(
        "Begin with two log ratios: how many nats likelier has the chosen answer become, and how many the rejected one?",
        "The margin is beta times (the chosen one's log ratio less the rejected one's). The loss is -ln sigmoid of it.",
        "-F.logsigmoid(margin).mean(), where margin = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)).",
    ),
    explanation="Four numbers a pair: both answers are compared with what the reference thought of them, and only the difference counts.",
    look='chapter 15, "Four numbers a pair"',
    mistakes=(
        Mistake("the wrong sign", "Your margin is rejected less chosen: training would teach the answers that were refused.",
                edit=("chosen - rejected", "rejected - chosen"), look=BREAK_IT),
        Mistake("the reference is forgotten", "You compared the two answers by the model alone. Then an answer that is rare in itself counts as disliked; subtract what the reference thought of each.",
                edit=(("- reference_chosen", ""), ("- reference_rejected", ""))),
        Mistake("the reference turned around", "The reference's part has the wrong sign: either you added its ln p where a ratio asks for a difference, or you took its chosen for its rejected answer.",
                edit=(("- reference_chosen", "+ reference_chosen"), ("- reference_rejected", "+ reference_rejected"))),
        Mistake("beta outside", "You multiplied the loss by beta instead of the margin. That only changes the step size; beta belongs inside the sigmoid.",
                edit=(("-F", "-beta * F"), ("(beta *", "("))),
        Mistake("beta is forgotten", "There is no beta in your margin, which is the same as beta = 1.",
                edit=("beta *", "")),
        Mistake("beta on one side", "Only the chosen answer's log ratio was multiplied by beta. Both are rewards, and both need it.",
                edit=("beta * (chosen - rejected)", "beta * chosen - rejected")),
        Mistake("no logarithm", "You returned minus the probability of the choice. Cross-entropy is minus its logarithm.",
                edit=("F.logsigmoid", "torch.sigmoid")),
        Mistake("the logarithm of 0", "On paper you are right. But for a hopeless pair the sigmoid becomes 0, or e to the power of -m infinite, and the loss with it. F.logsigmoid computes all in one.",
                edit=(("F.logsigmoid", "torch.sigmoid"), (".mean()", ".log().mean()"))),
        Mistake("no gradient", "The value is right, but it has no gradient: detach, no_grad, .item() or a new tensor cut it off from the model. Nothing can be learned from it; return the tensor as it was computed.",
                edit=(".mean()", ".mean().detach()")),
        Mistake("the rejected answer has no gradient", "The value is right, but no gradient reaches the rejected answer: training would raise the chosen one and leave the other alone. Detach at most what the reference says.",
                edit=("policy_rejected -", "policy_rejected.detach() -")),
        Mistake("a positive loss turned negative", "You returned the mean of ln sigmoid, which is to be made large. A loss is to be made small: put a minus before it.",
                edit=("-F", "F")),
        Mistake("the sum over pairs", "You added up the pairs. The mean does not change with the size of a batch.",
                edit=("mean", "sum")),
        Mistake("a loss for each pair", "You returned the loss of each pair. Take their mean, one number.",
                edit=(".mean()", "")),
        Mistake("the loss of the mean margin", "You averaged the margins first. A safe pair then pays for a hopeless one; take the loss of each pair, then the mean.",
                edit=("(chosen - rejected)).mean()", "(chosen - rejected).mean())")),
    ),
)  # fmt: skip


def _probe_price(answer):
    chance = torch.Generator().manual_seed(0)
    for label, T, V, start, more in (
        ("3 tokens of 7", 7, 5, 4, 1.0), ("the last token alone", 6, 4, 5, 1.0), ("all but the first", 5, 6, 1, 1.0),
        ("9 tokens of 12", 12, 8, 3, 1.0), ("logits near 200", 6, 5, 3, 200.0), ("an answer of 400 tokens", 410, 20, 10, 0.0),
    ):  # fmt: skip
        logits = torch.randn(T, V, generator=chance) * 3 + more
        ids = torch.randint(V, (T,), generator=chance)
        yield label, torch.as_tensor(answer(logits, ids, start))


_SOFTMAX = "logits.log_softmax(dim=-1)"
_PRODUCT = (("log_softmax", "softmax"), ("return sum(", "product = math.prod("))

PRICE = Exercise(
    "answer_log_prob", _probe_price,
    hints=(
        "Which row of `logits` says what the model thought of the token at place t? Not row t: that one is about the next token.",
        "Take log_softmax over the last dimension. The answer's tokens are those at places start, start + 1, ..., len(ids) - 1.",
        "Add up log_probs[t - 1, ids[t]] over these places; nothing before `start`, and no division.",
    ),
    explanation="The logits at place t - 1 are about token t. The sum is the logarithm of the probability of the whole answer; the prompt is given, and costs nothing.",
    look='chapter 15, "The price of a whole answer"',
    mistakes=(
        Mistake("the prompt counted", "The tokens of the prompt count as well. They are given: begin at `start`.",
                edit=("range(start", "range(1"), look=BREAK_IT),
        Mistake("a mean per token", "You divided by the number of tokens. That is right for comparing choices, but the log ratio of an answer is the sum.",
                edit=("return", "sum = lambda terms: torch.stack([*terms]).mean()\nreturn")),
        Mistake("not shifted", "You read the logits at the token's own place, which are about the next token. Go back by one.",
                edit=("t - 1", "t")),
        Mistake("shifted twice", "You went back by two places. The logits at t - 1 are about token t.",
                edit=("t - 1", "t - 2"), also=((("t - 1", "t - 2"), ("range(start", "range(max(start, 2)")),)),
        Mistake("the end left out", "The last token is missing, the end of the turn. An answer that does not end is another answer.",
                edit=("len(ids)", "len(ids) - 1")),
        Mistake("the first token left out", "The answer's first token is missing: it stands at place `start` and is predicted at start - 1.",
                edit=("range(start", "range(start + 1")),
        Mistake("logits added up", "You added raw logits. Only after log_softmax are they logarithms of probabilities.",
                edit=(".log_softmax(dim=-1)", "")),
        Mistake("probabilities added up", "You added probabilities. They multiply; their logarithms add.",
                edit=("log_softmax", "softmax")),
        Mistake("a probability returned", "That is the probability of the answer. For long answers it is too small for any float: return its logarithm.",
                edit=("return", "return math.e **")),
        Mistake("the product underflows", "On paper you are right. But the product of 400 probabilities is too small for any float: it becomes 0, and its logarithm minus infinity, or an error. Add up logarithms instead.",
                edit=(*_PRODUCT, ("len(ids)))", "len(ids)))\nreturn product.log()")),
                also=((*_PRODUCT, ("ids[t]] for", "ids[t]].item() for"), ("len(ids)))", "len(ids)))\nreturn math.log(product)")),)),
        Mistake("e to the power of 200", "On paper you are right. But e to the power of 200 is infinite in float32, and so is the sum. log_softmax and logsumexp subtract the largest logit first.",
                edit=(_SOFTMAX, "(logits.exp() / logits.exp().sum(dim=-1, keepdim=True)).log()"),
                also=((_SOFTMAX, "logits - logits.exp().sum(dim=-1, keepdim=True).log()"),)),
        Mistake("a loss returned", "The sign is turned: you returned what the answer costs. The exercise asks for ln p, which is not above 0.",
                edit=("= logits", "= -logits")),
    ),
)  # fmt: skip


def _probe_tilt(answer):
    def on(*a):
        return [float(value) for value in answer(*a)]

    yield "the answers of the chapter", on([0.3, 0.4, 0.2, 0.1], [1.0, 0.0, 0.0, 0.0], 1.0)
    yield "a short leash", on([0.5, 0.25, 0.25], [2.0, -1.0, 0.5], 4.0)
    yield "an answer that the reference never gives", on([0.6, 0.0, 0.4], [0.0, 40.0, 1.0], 1.0)
    yield "very large rewards", on([0.25, 0.5, 0.25], [2000.0, 1999.0, 0.0], 0.5)
    yield "a large reward for what is never said", on([0.0, 0.5, 0.5], [2000.0, 1.0, 0.0], 1.0)


_WEIGHT = "p * math.exp((r - most) / beta) if p > 0 else 0.0"

TILT = Exercise(
    "tilted", _probe_tilt,
    hints=(
        "Multiply each probability by e to the power of reward / beta, then divide by the sum.",
        "math.exp(2000) is too large for a float. Only differences of rewards count, so you may subtract the largest reward from all first.",
        "weights = [p * math.exp((r - most) / beta) if p > 0 else 0.0 ...], with `most` the largest reward among the answers with p > 0; return each divided by the sum of all.",
    ),
    explanation="The reference is what the policy falls back on: what it never says stays unsaid, and where the rewards are alike nothing moves.",
    look='chapter 15, "Two ideas on paper"',
    tolerance=1e-3,  # float32 keeps seven digits, and 2000 needs four of them
    mistakes=(
        Mistake("too large for a float", "On paper you are right, but e to the power of a large reward is beyond any float. Subtract the largest reward first (the mean is not enough): only differences count.",
                edit=("r - most", "r")),
        Mistake("too large for a tensor", "On paper you are right, but e to the power of 2000 is infinite, and infinity divided by infinity is no number. Subtract the largest reward first: only differences count.",
                edit=(_WEIGHT, "p * torch.tensor(r / beta).double().exp().item()")),
        Mistake("a tiny number in place of 0", "You added a tiny number so that the logarithm of 0 exists. A large reward makes it grow again: what the reference never says must stay at 0.",
                edit=("zip(reference,", "zip([p + 1e-12 for p in reference],")),
        Mistake("multiplied by beta", "You multiplied the reward by beta. A small beta is a long leash, so it must make the reward count for more: divide.",
                edit=("/ beta", "* beta")),
        Mistake("an answer that is never given decides", "You subtract the largest reward of all. Where it belongs to an answer that the reference never gives, all others are rounded to 0, and you divide 0 by 0. Take the largest among answers with p > 0.",
                edit=("max(r for p, r in pairs if p > 0)", "max(rewards)")),
        Mistake("the reference is forgotten", "You took the softmax of the rewards alone. The policy starts from the reference: multiply by its probabilities.",
                edit=(_WEIGHT, "math.exp((r - max(rewards)) / beta)")),
        Mistake("not divided by the sum", "Your numbers do not add up to 1. Divide each by the sum of all.",
                edit=("weight / sum(weights)", "weight"),
                also=((("max(r for p, r in pairs if p > 0)", "max(rewards)"), ("weight / sum(weights)", "weight")),)),
        Mistake("the reward is punished", "The sign of the reward is turned: the worst answers gain.",
                edit=("rewards))", "[-r for r in rewards]))")),
        Mistake("beta is forgotten", "There is no beta in your tilt, which is the same as beta = 1.",
                edit=("/ beta", "")),
        Mistake("the logarithm of 0", "An answer that the reference never gives has the logarithm minus infinity, and math.log refuses. Multiply probabilities instead, or leave such an answer at 0.",
                edit=(_WEIGHT, "math.exp(math.log(p) + (r - most) / beta)")),
        Mistake("probabilities taken for logarithms", "You added the probability to reward / beta inside the exponential. It is the logarithm of the probability that belongs there.",
                edit=(_WEIGHT, "math.exp(p + (r - max(rewards)) / beta)")),
    ),
)  # fmt: skip


def _probe_pairs(answer):
    yield "one question", answer([["in Rome", "in Oslo", "I know not"]], [[2.0, 0.0, 1.0]])
    yield "no answer is better", answer([["a", "bb"], ["c", "dd"]], [[1.0, 1.0], [0.0, 3.0]])

    texts = [["good", None, "poor"], [None, None], ["one", None], [None, "x", "yy", None]]
    scores = [[1.0, 9.0, 0.5], [1.0, 2.0], [3.0, -5.0], [-9.0, 0.0, 4.0, 9.0]]
    yield "answers that were no whole turn", answer(texts, scores)

    scores = [[1.0, 3.0, 0.0, 3.0, 0.0, 3.0, 0.0]]
    yield "equal best and equal worst", answer([["p", "m", "n", "z", "b", "k", "q"]], scores)
    yield "an empty text, which is not None", answer([["", "so", "mid"]], [[2.0, 1.0, 0.0]])


_FIND = "find(known, key=lambda pair: pair[0])"
_SORTED = (_FIND, "sorted(known, key=lambda pair: -pair[0])[find]")

PAIRS = Exercise(
    "choose_pairs", _probe_pairs,
    hints=(
        "For each question: leave out the answers that are None, together with their scores.",
        "If the best score equals the worst, nothing can be learned from this question: no pair.",
        "Of several answers with the best (or the worst) score take the first.",
    ),
    explanation="A pair says that one answer is better than the other, so there must be a difference; and both must be answers that the model really finished.",
    mistakes=(
        Mistake("pairs without a preference", "Where all answers are equally good you made a pair nevertheless. It says nothing, and yet it would pull. If the best score equals the worst, make none.",
                edit=("if best[0] > worst[0]:", "if True:")),
        Mistake("chosen and rejected swapped", "The worst answer comes first in your pairs. Training would teach it.",
                edit=("best[1], worst[1]", "worst[1], best[1]"), look=BREAK_IT),
        Mistake("unfinished answers", "An answer that is None became part of a pair. It was no whole turn; leave it out together with its score.",
                edit=("if text is not None", "")),
        Mistake("a question without answers", "Where all texts of a question are None there is nothing to choose from: go on to the next question.",
                edit=("if known:", "if True:")),
        Mistake("the last of equals", "Of several answers with the same score you took the last. The exercise asks for the first.",
                edit=("zip(numbers, texts)", "[*zip(numbers, texts)][::-1]")),
        Mistake("texts decide between equals", "Where scores are equal you compared the texts, as max, min and sorted do with pairs of score and text. The exercise asks for the first: compare the scores alone.",
                edit=(_FIND, "find(known)")),
        Mistake("sorted, and the ends taken", "You sorted the answers and took both ends. Among equally bad answers that takes the last; the exercise asks for the first.",
                edit=(_SORTED, ("(max, min)", "(0, -1)"))),
        Mistake("sorted upwards, and the ends taken", "You sorted from worst to best and took both ends. Among equally good answers that takes the last; the exercise asks for the first.",
                edit=((_FIND, "sorted(known, key=lambda pair: pair[0])[find]"), ("(max, min)", "(-1, 0)"))),
        Mistake("empty answers left out", 'You leave out empty texts, too: `if text` is false for "" as well as for None. Compare with `is not None`.',
                edit=("text is not None", "text")),
        Mistake("every better against every worse", "You made every pair that there is. The exercise asks for one pair a question, so that no question counts more than another.",
                edit=(f"best, worst = ({_FIND} for find in (max, min)) if best[0] > worst[0]: pairs.append((best[1], worst[1]))", "pairs += [(t, u) for n, t in known for m, u in known if n > m]")),
    ),
)  # fmt: skip


def _probe_training(answer):
    for label, policy, reference, beta, lr, steps in (
        ("from the reference, 4 steps", [0.0, 1.0, 0.5], [0.0, 1.0, 0.5], 0.5, 2.0, 4),
        ("from elsewhere, 3 steps", [0.3, -0.2, 1.0, 0.0], [1.0, 0.5, 0.0, -1.0], 1.0, 0.5, 3),
        ("one step", [0.2, 0.1, -0.4], [-0.3, 0.6, 0.2], 0.1, 1.0, 1),
        ("no step", [0.2, 0.1, -0.4], [0.2, 0.1, -0.4], 0.1, 1.0, 0),
    ):
        losses, after = answer(torch.tensor(policy), torch.tensor(reference), beta, lr, steps)
        yield f"{label}: the losses", losses
        yield f"{label}: the logits afterwards", after


TRAINING = Exercise(
    "preference_training", _probe_training,
    hints=(
        "The loss is ln 2 when the margin is 0. Whose ln p is subtracted from whose?",
        "`reference` is an argument, and the function never uses it.",
        "The two fixed numbers are reference.log_softmax(-1)[:2], in every step the same.",
    ),
    explanation="The reference is the model as it was, for the whole run. Taken from the model that learns, it moves along: every margin is 0, the slope never shrinks, and nothing holds the model back.",
    seconds=60.0,  # torch.optim needs up to ten seconds when it is used for the first time
    look=BREAK_IT,
    mistakes=(
        Mistake("the reference moves along", "The fixed numbers still come from the policy of the same step, so the margin is always 0 and the loss ln 2.",
                of="given"),
        Mistake("the reference moves along, with a gradient", "Policy less policy is 0 for all weights: without detach even the slope is 0, and nothing is learned at all.",
                of="given", edit=("policy.detach().log_softmax", "policy.log_softmax")),
        Mistake("the policy's own start", "You kept the policy as it was at the start. Often that is the reference, but here `reference` is given, and may be another.",
                edit=("losses = []", "losses = []\nreference = policy")),
        Mistake("no reference at all", "You left the reference out of the margin. Then nothing says where the leash is tied.",
                edit=("reference.log_softmax(-1)[:2]", "0.0, 0.0")),
        Mistake("the wrong sign", "The margin is turned: now the rejected answer is learned.",
                edit=("beta *", "-beta *")),
        Mistake("uphill", "You step along the slope, which makes the loss larger. A step goes against it.",
                edit=("policy - lr", "policy + lr")),
    ),
)  # fmt: skip
