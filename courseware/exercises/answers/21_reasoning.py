"""Chapter 21: an exact gradient, a baseline, a reward, a mask, a group's loss, a leash, a ratio, a crossing."""

import itertools
import math

import torch

from courseware.exercises import Exercise, Mistake, normal

LEVERS = 'chapter 21, "Two levers"'
BREAK_IT = 'chapter 21, "Break it: five ways to be misled"'
ROLLOUTS = 'chapter 21, "Rollouts"'
ADVANTAGES = 'chapter 21, "Advantages"'
LOSS_OF = 'chapter 21, "The loss"'
PASS_AT_K = 'chapter 21, "pass@k"'


def _probe_expected(answer):
    by_hand = torch.tensor([3.0, 1.0]).log()
    yield "p = 3/4, 1/4, a reward for the second", answer(by_hand.clone(), torch.tensor([0.0, 1.0]))
    draw = normal(1)
    for K in (3, 5, 8):
        yield f"{K} answers", answer(draw(K), draw(K))
    yield "5 answers, one is right", answer(draw(5), torch.eye(5)[3])
    yield "all rewards are 5", answer(draw(4), torch.full((4,), 5.0))


_WEIGHTS = "p * rewards"

EXPECTED = Exercise(
    "expected_gradient", _probe_expected,
    hints=(
        "First p = logits.softmax(dim=0). The gradient of ln p of answer k is a vector: 1 at place k, less p.",
        "torch.eye(K) - p has all these vectors as its rows. Each is weighted by p[k] * rewards[k].",
        "The weighted sum of the rows is (p * rewards) @ (torch.eye(len(p)) - p).",
    ),
    explanation="Drawing an answer and scaling the gradient of its ln p by the reward gives this on average. A reward that is the same for all changes nothing, since the probabilities always add up to 1.",
    look=LEVERS,
    mistakes=(
        Mistake("not weighted by probability", "Every answer counts the same in your sum. A frequent answer is drawn more often: weight each by its probability p.",
                edit=(_WEIGHTS, "rewards")),
        Mistake("the mean over the answers", "You averaged over the answers. The weights are their probabilities, not 1 / K.",
                edit=(_WEIGHTS, "rewards / len(p)")),
        Mistake("weighted twice", "You weighted by the probability twice. The gradient of p is p times that of ln p: use one of the two forms.",
                edit=(_WEIGHTS, "p * p * rewards")),
        Mistake("the minus p is missing", "You took 1 at place k for the gradient of ln p. The softmax lowers all the others: subtract p.",
                edit=("torch.eye(len(p)) - p", "torch.eye(len(p))")),
        Mistake("the sign", "That is the gradient of a loss. The expected reward is to grow: change the sign.",
                edit=("weights @ scores", "-weights @ scores")),
        Mistake("columns instead of rows", "You summed over the logits where the sum runs over the answers: the weights belong to the rows of the table.",
                edit=("weights @ scores", "scores @ weights")),
        Mistake("logits instead of probabilities", "You used the logits as if they were probabilities. Take their softmax first.",
                edit=("logits.softmax(dim=0)", "logits")),
        Mistake("the gradient along the probabilities", "That is the gradient along the probabilities. They cannot move freely, since they add up to 1; go on to the logits.",
                edit=("weights @ scores", "rewards")),
    ),
)  # fmt: skip


def _probe_baselined(answer):
    logits = torch.tensor([0.5, -0.3, 0.1])
    yield "two draws", answer(logits.clone(), torch.tensor([0, 2]), torch.tensor([1.0, 0.0]))
    drawn = torch.tensor([0, 1, 1, 0, 2, 1])
    yield "six draws", answer(logits.clone(), drawn, torch.tensor([1.0, 0.0, 2.0, 0.5, -1.0, 0.0]))
    yield (
        "one answer only",
        answer(logits.clone(), torch.tensor([1, 1, 1]), torch.tensor([1.0, 0.0, 0.5])),
    )
    yield "equal rewards", answer(logits.clone(), drawn.clone(), torch.full((6,), 3.0))

    p = logits.softmax(0)
    worth = torch.tensor([1.0, 0.0, 3.0])
    mean = torch.zeros(3)
    for group in itertools.product(range(3), repeat=3):
        actions = torch.tensor(group)
        mean += p[actions].prod() * torch.as_tensor(answer(logits.clone(), actions, worth[actions]))
    yield "the average over all groups of three draws", mean


_BASELINE = "(rewards.sum() - rewards) / (N - 1)"
_SAME_ANSWER = "torch.stack([rewards[actions == a].mean() for a in actions])"

BASELINED = Exercise(
    "baselined_gradient", _probe_baselined,
    hints=(
        "The mean of the others, for all draws at once: the sum of all rewards, less each one, divided by N - 1.",
        "F.one_hot(actions, K) - p is (N, K): the gradient of ln p for each draw.",
        "Multiply each row by (rewards - baseline)[:, None], and take the mean over dim 0.",
    ),
    explanation="The baseline does not know what was drawn, and the mean of the gradient of ln p is 0: so on average it changes nothing. But what all rewards have in common is gone, and with it much of the noise.",
    look=LEVERS,
    mistakes=(
        Mistake("the draw's own reward", "Your baseline contains the draw's own reward, so it depends on what was drawn: on average the gradient shrinks to (N - 1) / N of itself. Leave the draw out.",
                edit=(_BASELINE, "rewards.mean()")),
        Mistake("a baseline for each answer", "Your baseline depends on the answer that was drawn. It takes away exactly what should be learned, namely which answer is worth more, so the gradient is biased. Use all the other draws.",
                edit=(_BASELINE, _SAME_ANSWER)),
        Mistake("no baseline", "There is no baseline. The estimate is right on average, but even if all rewards are 3 it pushes up whatever happened to be drawn.",
                edit=("rewards - baseline", "rewards")),
        Mistake("one too many below", "You summed N - 1 rewards and divided by N. The mean of the others has N - 1 below.",
                edit=("(N - 1)", "N")),
        Mistake("the sign", "You subtracted the reward from the baseline: what is better than the others would be made rarer.",
                edit=("rewards - baseline", "baseline - rewards")),
        Mistake("the sum over the draws", "You added the draws up. Their mean does not grow with N.",
                edit=("mean(dim=0)", "sum(dim=0)")),
        Mistake("one number", "You averaged over the logits, too. Average over the draws only, dim 0; a gradient has K numbers.",
                edit=("mean(dim=0)", "mean()")),
    ),
)  # fmt: skip

_CITIES = ["Juniper", "Millbrook", "Quarry", "Yarrow"]
_ANSWERS = (
    ("Ida Zander works in Juniper.", "Juniper"),
    ("Ida Zander works in Millbrook.", "Juniper"),
    ("Ida Zander works for Cobalt. Cobalt is in Juniper.", "Juniper"),
    ("Ida Zander works in Millbrook. Cobalt is in Juniper.", "Juniper"),
    ("Cobalt is in Juniper. Ida Zander works in Millbrook.", "Juniper"),
    ("Cobalt is in Juniper. I hope that this helps.", "Juniper"),
    ("It is in Juniper or Millbrook or Quarry or Yarrow.", "Juniper"),
    ("It is in Yarrow or Quarry or Millbrook or Juniper.", "Juniper"),
    ("Ida Zander works in Juniper Juniper Juniper.", "Juniper"),
    ("Ida Zander works in Juniper", "Juniper"),
    ("Ida Zander works in Juniper. ", "Juniper"),
    ("Ida Zander works in Juniper..", "Juniper"),
    ("Ida Zander works in juniper.", "Juniper"),
    ("In Juniper, where nobody is in a quarry.", "Juniper"),
    ("Ida Zander works in one of Juniper's offices.", "Juniper"),
    ("Ida Zander works in Juniper, not in Yarrow's offices.", "Juniper"),
    ("Cobalt is in Juniper. Cobalt is in Juniper", "Juniper"),
    ("Ida Zander is a Quarryman.", "Quarry"),
    ("Ida Zander is a Quarryman in Quarry.", "Quarry"),
    ("Ida Zander, a Quarryman, works in Yarrow.", "Yarrow"),
    ("Yarrow, that is where Ida Zander works.", "Yarrow"),
    ("I do not know.", "Quarry"),
    ("", "Quarry"),
)


def _probe_reward(answer):
    for text, city in _ANSWERS:
        yield f"{text!r}, right is {city}", answer(text, city, list(_CITIES))


_IF = 'if not text.endswith("."): return 0.0'
_LAST = 'text[:-1].split(".")[-1]'
_NAMED = 'named = [word for word in re.findall(r"\\w+", last) if word in cities]'
_RETURN = "return 1.0 if named == [city] else 0.0"

REWARD = Exercise(
    "strict_reward", _probe_reward,
    hints=(
        "Three questions: does the text end with a full stop, what is its last sentence, and which cities does that name?",
        'Without its full stop, text[:-1], the last sentence is what follows the last ".". Its words are re.findall(r"\\w+", last).',
        "Keep the words that are in cities: the list must be exactly [city].",
    ),
    explanation="Each of these conditions closes a gap that a policy finds: to name every city, to repeat the name, to name it first and go on, never to stop. Whether the earlier sentences are true makes no difference to it, so nothing teaches that.",
    look=BREAK_IT,
    mistakes=(
        Mistake("named anywhere", "The name anywhere in the text is enough for you. A policy will learn to list all the cities: look at the last sentence, and at what else it names.",
                edit=((_IF, ""), (_RETURN, "return 1.0 if city in text else 0.0"))),
        Mistake("earlier sentences count", "You read the whole text. A chain of thought may name other cities on its way; only the last sentence counts.",
                edit=(_LAST, "text")),
        Mistake("the first sentence", "You judged the first sentence. The conclusion is in the last one.",
                edit=(_LAST, 'text[:-1].split(".")[0]')),
        Mistake("other cities beside it", "The right city among others gets your reward. A policy will learn to name them all: it must be the only one.",
                edit=(_RETURN, "return 1.0 if city in named else 0.0")),
        Mistake("the first name counts", "You compared the first name only. Others may follow it in the same sentence, and must not.",
                edit=(_RETURN, "return 1.0 if named[:1] == [city] else 0.0")),
        Mistake("the last name counts", "You compared the last name only. Others may stand before it in the same sentence, and must not.",
                edit=(_RETURN, "return 1.0 if named[-1:] == [city] else 0.0")),
        Mistake("repeated names", "Saying the name several times gets your reward. Only one mention is an answer.",
                edit=(_RETURN, "return 1.0 if set(named) == {city} else 0.0")),
        Mistake("parts of words", "You look for the name's letters, and find Quarry in Quarryman. Compare whole words.",
                edit=(_NAMED, "named = re.findall('|'.join(cities), last)")),
        Mistake("only the last word is read", "You read the last word alone. Then \"Yarrow or Juniper.\" passes as well, and an answer that names Juniper first does not: look at all the names in the last sentence.",
                edit=((_IF, ""), (_RETURN, "return 1.0 if text.split()[-1:] in ([city], [city + '.']) else 0.0"))),
        Mistake("a comma belongs to its word", "You split at spaces, so a comma or an apostrophe sticks to its word, and \"Yarrow,\" is in no list. Take the words without it: re.findall(r\"\\w+\", last).",
                edit=('re.findall(r"\\w+", last)', "last.split()")),
        Mistake("capitals", "You ignore capitals. A city's name has one: juniper is not Juniper, and a quarry is not Quarry.",
                edit=((_NAMED, 'named = [word for word in re.findall(r"\\w+", last.lower()) if word in [name.lower() for name in cities]]'),
                      (_RETURN, "return 1.0 if named == [city.lower()] else 0.0"))),
        Mistake("spaces at the end", "You take away the spaces at the end first. The full stop must be the very last character.",
                edit=(_IF, 'text = text.strip()\nif not text.endswith("."):\n    return 0.0')),
        Mistake("an empty last sentence is skipped", "After two full stops the last sentence is empty and names no city. You went back to the one before it.",
                edit=(_LAST, 'text.rstrip(".").split(".")[-1]')),
        Mistake("an answer that was cut off", "An answer without its full stop gets your reward. Then nothing teaches the policy to end its answer.",
                edit=(_IF, 'text = text if text.endswith(".") else text + "."')),
        Mistake("turned around", "You reward the wrong answers, and none of the right ones.",
                wrap=lambda right: lambda *given: 1.0 - right(*given)),
    ),
)  # fmt: skip


def _probe_mask(answer):
    for label, ids, start in (
        ("an answer of three tokens and its end", [5, 6, 0, 7, 8, 9, 0, 1, 1], 3),
        ("padding that consists of ends", [5, 6, 0, 7, 8, 0, 0, 0], 3),
        ("an answer that was cut off", [5, 0, 6, 7, 8], 2),
        ("an earlier turn with an end", [5, 0, 6, 0, 7, 8, 0, 1], 4),
        ("nothing but the end", [5, 6, 0, 1, 1], 2),
        ("an end at the last place", [5, 6, 7, 0], 1),
    ):
        yield f"{label}: {ids}, start {start}, end 0", answer(list(ids), start, 0)


MASK = Exercise(
    "drawn_mask", _probe_mask,
    hints=(
        "The model drew words, and then it drew something else before it stopped. Is that token in the mask?",
        "mask[start:stop] does not include place stop.",
        "The end is at place t, so stop is t + 1.",
    ),
    explanation="To end the turn is a decision like every other. Unless it is in the mask, no reward reaches it.",
    look=ROLLOUTS,
    mistakes=(
        Mistake("the end is left out", "The end of the turn is not in the mask. The model drew it; without it, no reward teaches the model when to stop.",
                of="given"),
        Mistake("the padding counts", "Padding counts in your mask, since it consists of ends here. The answer ends with the *first* end from start on.",
                edit=("break", "")),
        Mistake("the prompt counts", "The prompt is in your mask. The model did not draw it, so a reward says nothing about it.",
                edit=("mask[start:stop]", "mask[:stop]"), look=BREAK_IT),
        Mistake("one token too many", "You go one place beyond the end.",
                edit=("t + 1", "t + 2")),
        Mistake("everything from start on", "You ignore the end: everything from start to the last place is in your mask, padding included.",
                edit=("t + 1", "len(ids)")),
        Mistake("an end in the prompt", "You found the end of an earlier turn. Look for it from start on.",
                edit=("range(start, len(ids))", "range(len(ids))")),
        Mistake("shifted by one", "Your mask is one place early, as if it were about logits. It should mark the drawn tokens where they stand.",
                edit=("mask[start:stop]", "mask[start - 1 : stop - 1]")),
        Mistake("answers that were cut off", "An answer without an end has an empty mask. Its tokens were drawn, too: it reaches to the last place.",
                edit=("stop = len(ids)", "stop = start")),
    ),
)  # fmt: skip


def _made(seed, Q, G, T, moved):
    """Return rewards, two tensors of ln p and a mask of answers with different lengths."""
    draw = normal(seed)
    rewards = (draw(Q, G) > 0.3).float()
    rewards[:, 0], rewards[:, 1] = 1.0, 0.0
    old = -draw(Q, G, T).abs() - 0.2
    new = old + moved * draw(Q, G, T)
    lengths = 1 + torch.arange(Q * G).view(Q, G, 1) % T
    return rewards, new, old, torch.arange(T) < lengths


def _slope(loss, new):
    if torch.is_tensor(loss) and loss.requires_grad:
        (slope,) = torch.autograd.grad(loss.sum(), new, allow_unused=True)
        return torch.zeros_like(new) if slope is None else slope
    return torch.zeros_like(new)


def _probe_loss(answer):
    def on(label, rewards, new, old, mask, clip):
        new = new.detach().requires_grad_()
        loss = answer(rewards, new, old, mask, clip)
        yield label, torch.as_tensor(loss)
        yield f"{label}: its gradient", _slope(loss, new)

    yield from on("2 questions, 4 answers, the first step", *_made(1, 2, 4, 3, 0.0), 0.2)
    yield from on("2 questions, 4 answers, a later step", *_made(2, 2, 4, 5, 0.4), 0.2)
    yield from on("3 questions, 6 answers, clip 0.1", *_made(3, 3, 6, 4, 0.5), 0.1)
    rewards, *others = _made(4, 3, 4, 4, 0.3)
    rewards[0], rewards[1] = 1.0, 0.0
    yield from on("a group all right, one all wrong", rewards, *others, 0.2)
    rewards, *others = _made(5, 2, 3, 4, 0.3)
    yield from on("rewards that are not 0 or 1", rewards * 3 + others[0][:, :, 0], *others, 0.3)
    for label, now, then in (
        ("-inf", -math.inf, -math.inf),
        ("nan", math.nan, math.nan),
        ("-inf now, 0 then,", -math.inf, 0.0),
    ):
        rewards, new, old, mask = _made(6, 2, 4, 5, 0.3)
        new, old = new.masked_fill(~mask, now), old.masked_fill(~mask, then)
        yield from on(f"{label} where nothing was drawn", rewards, new, old, mask, 0.2)


_MEAN = "rewards.mean(dim=1, keepdim=True)"
_STD = "rewards.std(dim=1, keepdim=True)"
_WHERE = "torch.where(std > 0, centred / std, 0.0)"
_FILL = ".masked_fill(~mask, 0.0)"
_MOVED = f"(logprobs - old_logprobs){_FILL}"
_GAIN = "torch.minimum(ratio * advantages, clipped * advantages)"

LOSS = Exercise(
    "group_loss", _probe_loss,
    hints=(
        "Three lines for the advantages: the mean of each group, its std, both with dim=1 and keepdim=True, and the quotient. Give them a last dimension of 1, so that they apply to all tokens of an answer.",
        "ratio = (logprobs - old_logprobs).exp(), and torch.minimum of ratio * advantages and ratio.clamp(1 - clip, 1 + clip) * advantages.",
        "Where std is 0: add 1e-4 to it, or take torch.where(std > 0, centred / std, 0.0). Where mask is false: masked_fill(~mask, 0.0) before the exp, because nan times 0 is nan. Then -(gain * mask).sum() / mask.sum().",
    ),
    explanation="This is GRPO's loss with all tokens alike. At the first step its gradient is the plain policy gradient; the clip only matters once the model has moved.",
    look=LOSS_OF,
    tolerance=1e-3,  # so that a standard deviation with 1e-4 added to it, as in the chapter, is right, too
    mistakes=(
        Mistake("over the batch instead of the group", "Your mean is that of all questions. Then an answer to an easy question is praised for the question: compare each answer with its own group, dim=1.",
                edit=((_MEAN, "rewards.mean()"), (_STD, "rewards.std()")),
                also=((_MEAN, "rewards.mean()"),), look=BREAK_IT),
        Mistake("the batch's standard deviation", "Your standard deviation is that of all questions. Each group has its own, dim=1.",
                edit=(_STD, "rewards.std()"), look=ADVANTAGES),
        Mistake("over the questions", "You compared the answers with the same number to different questions. A group is a row: dim=1.",
                edit=((_MEAN, "rewards.mean(dim=0, keepdim=True)"), (_STD, "rewards.std(dim=0, keepdim=True)")), look=ADVANTAGES),
        Mistake("not divided by the standard deviation", "You did not divide by the group's standard deviation. Dr. GRPO leaves it out on purpose, but here it is asked for.",
                edit=("centred / std", "centred"), look=ADVANTAGES),
        Mistake("G below", "Your standard deviation divides by G. torch's std divides by G - 1.",
                edit=(_STD, "rewards.std(dim=1, keepdim=True, correction=0)"), look=ADVANTAGES),
        Mistake("0 divided by 0", "Where all rewards of a group are equal, you divide 0 by 0, and nan spreads to every weight. Such an answer has the advantage 0.",
                edit=(_WHERE, "(centred / std)"), look=ADVANTAGES),
        Mistake("the mean is not subtracted", "You used the rewards as advantages. Subtract the group's mean: otherwise a wrong answer is never made rarer.",
                edit=(f"rewards - {_MEAN}", "rewards"), look=ADVANTAGES),
        Mistake("the sign", "You return the gain itself. A loss is made small: put a minus before it.",
                edit=("return -", "return"), look=BREAK_IT),
        Mistake("no clip", "The ratio is not clipped. Several steps on the same answers would push on without a bound.",
                edit=("ratio.clamp(1 - clip, 1 + clip)", "ratio")),
        Mistake("clipped without the minimum", "You use the clipped ratio alone. Then an answer that moved the wrong way has no gradient to come back: take the smaller of the two products.",
                edit=(_GAIN, "(clipped * advantages)")),
        Mistake("the larger of the two", "You took the larger product. The smaller one is the cautious one.",
                edit=("torch.minimum", "torch.maximum")),
        Mistake("clipped on one side", "You clip from above only. With a negative advantage it is the lower bound that counts.",
                edit=("ratio.clamp(1 - clip, 1 + clip)", "ratio.clamp(max=1 + clip)")),
        Mistake("the ratio upside down", "Your ratio is old over new. It should grow where the new model gives more.",
                edit=("logprobs - old_logprobs", "old_logprobs - logprobs")),
        Mistake("a quotient of logarithms", "You divided logarithms. The ratio of two probabilities is e to the power of their difference.",
                edit=(("moved.exp()", "moved"), (_MOVED, f"(logprobs / old_logprobs){_FILL.replace('0.0', '1.0')}"))),
        Mistake("the padding counts", "Padding counts in your mean, above and below. Multiply by the mask, and divide by the sum of the mask.",
                edit=((_FILL, ""), ("gain * mask", "gain"), ("/ mask.sum()", "/ mask.numel()"))),
        Mistake("nan times 0", "Your loss is right until something infinite or nan stands where nothing was drawn. Multiplied by a mask of 0 it is still nan: fill it with 0 before the exp, or select the drawn tokens, as in tensor[mask].",
                edit=(_FILL, ""), also=(((_FILL, ""), ("(gain * mask)", "gain.masked_fill(~mask, 0.0)")),)),
        Mistake("divided by all places", "You divide by the number of places, padding included. Divide by the number of drawn tokens, mask.sum().",
                edit=("/ mask.sum()", "/ mask.numel()")),
        Mistake("the mean of each answer first", "You took the mean of each answer first, so a token of a long answer counts less. That is GRPO as first published, but here all drawn tokens count alike.",
                edit=("(gain * mask).sum() / mask.sum()", "((gain * mask).sum(dim=2) / mask.sum(dim=2)).mean()")),
        Mistake("the sum over tokens", "You added the tokens up. Divide by their number.",
                edit=("/ mask.sum()", "")),
        Mistake("no gradient", "The value is right, but it has no gradient: detach, no_grad, .item() or a new tensor cut it off from the model. Nothing can be learned from it.",
                edit=("moved.exp()", "moved.exp().detach()")),
    ),
)  # fmt: skip


def _probe_leash(answer):
    def three(*tensors):
        k1, k2, k3 = answer(*tensors)
        return [torch.as_tensor(value) for value in (k1, k2, k3)]

    draw = normal(6)
    for label, shape in (("one answer", (6,)), ("3 answers, 5 places", (3, 5))):
        logprobs = -draw(*shape).abs()
        reference = logprobs + 0.5 * draw(*shape)
        yield (
            f"{label}, nothing masked",
            three(logprobs, reference, torch.ones(shape, dtype=torch.bool)),
        )
        yield f"{label}, some places masked", three(logprobs, reference, draw(*shape) > -0.3)

    p = torch.tensor([0.5, 0.25, 0.25]).log()
    q = torch.tensor([0.2, 0.2, 0.6]).log()
    drawn = torch.tensor([0, 0, 1, 2])  # in the exact proportions of p
    yield (
        "p = 1/2, 1/4, 1/4 against 0.2, 0.2, 0.6",
        three(p[drawn], q[drawn], torch.ones(4, dtype=torch.bool)),
    )
    yield (
        "a model that is its reference",
        three(p.clone(), p.clone(), torch.ones(3, dtype=torch.bool)),
    )


_K3 = "gap.exp() - 1 - gap"

LEASH = Exercise(
    "leash_estimates", _probe_leash,
    hints=(
        "Begin with d = reference - logprobs, at the drawn tokens only: (reference - logprobs)[mask].",
        "k1 is -d, k2 is d squared over 2, and k3 is e to the power of d, less 1, less d. Each is a tensor with one number a token.",
        "Return k1.mean(), k2.mean(), k3.mean().",
    ),
    explanation="k1 and k3 are right on average, since the mean of e^d is 1 under the policy. k3 is never negative, because e^d is never below 1 + d; that is why GRPO uses it. k2 is close only where d is small.",
    look=LOSS_OF,
    mistakes=(
        Mistake("the difference turned around", "Your d is ln p less ln p of the reference. The tokens were drawn from the policy, so the reference comes first, and d is 0 or less on average.",
                edit=("reference - logprobs", "logprobs - reference")),
        Mistake("k3 turned around", "In your k3 d has the other sign. It is never negative either, but its mean is no longer the divergence, and it can be huge where the reference gives very little.",
                edit=(_K3, "(-gap).exp() - 1 + gap")),
        Mistake("k3 without its 1", "e^d - d is 1 where the two models agree. Subtract the 1.",
                edit=(_K3, "gap.exp() - gap")),
        Mistake("k3 without d", "The mean of e^d - 1 is 0 under the policy, however far it has moved. Subtract d as well.",
                edit=(_K3, "gap.exp() - 1")),
        Mistake("k2 not halved", "k2 is half the square.",
                edit=("gap.square() / 2", "gap.square()")),
        Mistake("the square of the mean", "You squared the mean of d. Take the mean of the squares.",
                edit=("gap.square() / 2", "gap.mean().square() / 2")),
        Mistake("the size of k1", "You took the size of d. A single k1 may be negative, and has to be: otherwise the mean is too large.",
                edit=("k1 = -gap", "k1 = gap.abs()")),
        Mistake("the sign of k1", "k1 is minus d.",
                edit=("k1 = -gap", "k1 = gap")),
        Mistake("places that were not drawn", "Prompts or padding count in your means. Keep the places where mask is true.",
                edit=("(reference - logprobs)[mask]", "(reference - logprobs)")),
        Mistake("zeros for places that were not drawn", "You set the other places to 0 and averaged over all of them. Divide by the number of drawn tokens.",
                edit=("(reference - logprobs)[mask]", "((reference - logprobs) * mask)")),
        Mistake("sums", "You added the tokens up. Return means.",
                edit=("k1.mean(), k2.mean(), k3.mean()", "k1.sum(), k2.sum(), k3.sum()")),
    ),
)  # fmt: skip


def _probe_steps(answer):
    for label, logits, actions, advantages, clip, lr, steps in (
        ("one step", [0.2, 0.1, -0.4], [0, 1, 2, 2], [-0.5, -0.5, 1.5, -0.5], 0.2, 1.0, 1),
        ("six steps", [0.2, 0.1, -0.4], [0, 1, 2, 1], [-0.5, -0.5, 1.5, -0.5], 0.2, 1.0, 6),
        ("ten steps of two answers", [0.0, 1.0], [0, 1], [1.0, -1.0], 0.3, 0.5, 10),
        (
            "five steps, clip 0.1",
            [0.3, -0.2, 1.0, 0.0],
            [0, 0, 3, 2],
            [1.0, 1.0, -2.0, 0.0],
            0.1,
            0.4,
            5,
        ),
        ("no step", [0.3, -0.2], [0, 1], [1.0, -1.0], 0.2, 1.0, 0),
    ):
        largest, after = answer(
            torch.tensor(logits), torch.tensor(actions), torch.tensor(advantages), clip, lr, steps
        )
        yield f"{label}: the largest ratios", largest
        yield f"{label}: the logits afterwards", after


_INSIDE = "old = policy.detach().log_softmax(dim=0)[actions]"

STEPS = Exercise(
    "several_steps", _probe_steps,
    hints=(
        "A ratio compares the model now with the model that drew. When were the answers drawn, before the loop or in each step?",
        "`old` is computed anew in each step, from the policy that has just moved.",
        "Move the line with `old` in front of the loop.",
    ),
    explanation="The old log-probabilities belong to the answers: they are computed once, when these are drawn. Computed anew they move along, every ratio is 1, and the clip has nothing to hold.",
    look=LOSS_OF,
    seconds=60.0,
    mistakes=(
        Mistake("the old model moves along", "`old` still comes from the policy of the same step, so every ratio is 1 and nothing is ever clipped. Compute it once, before the first step.",
                of="given"),
        Mistake("the old model moves along, with a gradient", "`old` comes from the policy of the same step, and without detach: the gradient of the ratio is 0, and nothing is learned at all.",
                of="given", edit=("policy.detach().log_softmax", "policy.log_softmax")),
        Mistake("one step behind", "Your `old` is the policy of the step before. The answers were drawn before the first step, and the ratio is counted from there.",
                edit=(("largest = []", "largest = []\nbefore = logits"), (_INSIDE, ""),
                      ("new = policy", "old = before.log_softmax(dim=0)[actions]\nbefore = policy.detach()\nnew = policy"))),
        Mistake("the old model has a gradient", "`old` is computed once, but with a gradient: in the first step it cancels that of `new`, and the step is lost. Keep the detach.",
                edit=("policy.detach().log_softmax", "policy.log_softmax")),
        Mistake("no clip", "You removed the clip. Now every further step pushes on.",
                edit=("ratio.clamp(1 - clip, 1 + clip)", "ratio")),
        Mistake("downhill", "You step against the gradient. This is a gain, which is to grow.",
                edit=("policy + lr", "policy - lr")),
        Mistake("the sum over the draws", "You added the draws up. Their mean does not grow with N.",
                edit=("clipped * advantages).mean()", "clipped * advantages).sum()")),
    ),
)  # fmt: skip


def _probe_crossing(answer):
    for label, n, before, after in (
        ("4 answers, a question is lost", 4, [1, 1], [4, 0]),
        ("all are better after", 4, [1, 2, 0], [3, 4, 1]),
        ("all are better after, and solved in both", 6, [1, 2, 3], [4, 5, 6]),
        ("nothing has changed", 8, [3, 0, 5], [3, 0, 5]),
        ("worse after training", 8, [3, 4], [2, 1]),
        ("sharper, and a question is lost", 8, [2, 1, 2, 1], [8, 8, 3, 0]),
        ("sharper, and two are lost", 16, [4, 3, 1, 2, 1], [16, 16, 9, 0, 0]),
        ("more is found than lost", 16, [2, 0, 0, 1], [16, 12, 9, 0]),
        ("5 answers, a question is lost", 5, [2, 2], [5, 0]),
        ("one answer to each", 1, [1, 0], [0, 1]),
        ("as good from the first try on", 7, [2, 5, 1], [0, 3, 4]),
    ):
        yield (
            f"{label}: n={n}, before {before}, after {after}",
            answer(n, list(before), list(after)),
        )
    yield "n=2000, before [3, 1], after [2000, 0]", answer(2000, [3, 1], [2000, 0])


_BEFORE = "sum(math.comb(n - c, k) for c in before)"
_AFTER = "sum(math.comb(n - c, k) for c in after)"
_TEST = "missed_before <= missed_after"


def _both(formula):
    """Replace what is summed over the questions, before and after."""
    return tuple(
        (old, formula.replace("LIST", name))
        for old, name in ((_BEFORE, "before"), (_AFTER, "after"))
    )


CROSSING = Exercise(
    "catches_up", _probe_crossing,
    hints=(
        "Of n answers, c are right: math.comb(n - c, k) of the math.comb(n, k) choices of k contain no right one.",
        "The number of choices is the same for every question, so it is enough to compare the sums of math.comb(n - c, k), which are whole numbers. A smaller sum is a larger pass@k.",
        "for k in range(1, n + 1): return k if the sum over `before` is at most the sum over `after`. After the loop, return None.",
    ),
    explanation="A crossing says that training has made some answers frequent and lost others: it has sharpened. If there is none, the trained model solves questions that the other one never did in n tries. That is no proof of a new ability, since n is finite.",
    look=PASS_AT_K,
    mistakes=(
        Mistake("the share put into the formula", "1 - (1 - c/n)^k takes the share for the true probability. Count the choices of k among the n answers instead.",
                edit=_both("sum((1 - c / n) ** k for c in LIST)")),
        Mistake("the counts are pooled", "You added up the right answers to all questions first. A question that is always solved then makes up for one that never is: take pass@k of each question, and then the mean.",
                edit=_both("math.comb(n * len(LIST) - sum(LIST), k)")),
        Mistake("only larger counts", "You ask for more than as good. At least as good is enough: the same pass@k is a crossing, too.",
                edit=(_TEST, "missed_before < missed_after")),
        Mistake("before and after exchanged", "You look for the k at which training pays. The question is when the model before it is at least as good.",
                edit=(_TEST, "missed_after <= missed_before")),
        Mistake("right instead of wrong", "You chose among the right answers. A choice misses if all k come from the n - c wrong ones.",
                edit=_both("sum(math.comb(c, k) for c in LIST)")),
        Mistake("the last k is left out", "You stop at n - 1. All n answers may be tried, so k = n counts.",
                edit=("range(1, n + 1)", "range(1, n)")),
        Mistake("from k = 0", "With no try at all both are equal. Begin with k = 1.",
                edit=("range(1, n + 1)", "range(n + 1)")),
        Mistake("the largest k", "That is the largest such k. The smallest one says how many tries it takes.",
                edit=("range(1, n + 1)", "range(n, 0, -1)")),
        Mistake("0 for none", "If the model never catches up, return None. 0 is a number of tries.",
                edit=("return None", "return 0")),
        Mistake("n for none", "If the model never catches up, return None. n would mean that it does so with n tries.",
                edit=("return None", "return n")),
        Mistake("any of the n", "You asked whether any of the n is right. Only k of them are chosen.",
                edit=_both("sum(c == 0 for c in LIST)")),
        Mistake("too large for a float", "On paper you are right. But the numbers of choices do not fit into a float: compare whole numbers, as math.comb returns them, or divide these by each other first.",
                edit=_both("sum(float(math.comb(n - c, k)) / float(math.comb(n, k)) for c in LIST)")),
    ),
)  # fmt: skip
