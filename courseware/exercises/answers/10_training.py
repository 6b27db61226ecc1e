"""Exercises of chapter 10: AdamW, the schedule, micro-batches, clipping, a scaled loss, and the best model."""

from __future__ import annotations

import math

import torch

from courseware.exercises.engine import Exercise, WrongAnswer

HAND = 'chapter 10, "One weight, by hand"'
SCHEDULE = 'chapter 10, "A learning rate that warms up and cools down"'
MICRO = 'chapter 10, "Micro-batches: one large batch in small pieces"'
CLIP = 'chapter 10, "Clipping: a cap on the whole gradient"'
EXACT = 'chapter 10, "How exact must the numbers be?"'
LOOP = 'chapter 10, "The loop"'

# --- a step of AdamW ---


def adamw_step(weight, grad, m, v, step, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    weight = weight * (1 - lr * weight_decay)
    return weight - lr * m_hat / (v_hat.sqrt() + eps), m, v


def _adamw(corrected=True, coupled=False, eps_inside=False, swapped=False, ahead=0, after=False,
           with_lr=True, sign=1.0, rooted=True, squared=True, old=False, share=True, half=False,
           hat=False, vectors=True):  # fmt: skip
    def answer(weight, grad, m, v, step, lr, betas, eps, weight_decay):
        weight_decay = weight_decay if vectors or weight.ndim > 1 else 0.0
        beta1, beta2 = betas[::-1] if swapped else betas
        if coupled:
            grad = grad + weight_decay * weight
        new_m = beta1 * m + ((1 - beta1) if share else 1) * grad
        new_v = beta2 * v + (1 - beta2) * (grad**2 if squared else grad.abs())
        m_hat, v_hat = (m, v) if old else (new_m, new_v)
        if corrected:
            m_hat, v_hat = (
                m_hat / (1 - beta1 ** (step + ahead)),
                v_hat if half else v_hat / (1 - beta2 ** (step + ahead)),
            )
        eps = eps / (1 - beta2**step) ** 0.5 if hat else eps
        below = (v_hat + eps).sqrt() if eps_inside else (v_hat.sqrt() if rooted else v_hat) + eps
        update, keep = sign * lr * m_hat / below, 1 - (lr if with_lr else 1) * weight_decay
        if coupled:
            keep = 1
        weight = (weight - update) * keep if after else weight * keep - update
        return weight, new_m, new_v

    return answer


def _run_adamw(answer):
    noise = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, generator=noise)
    m, v = torch.zeros(2, 3), torch.zeros(2, 3)
    for step in (1, 2, 3):
        grad = torch.randn(2, 3, generator=noise) * 2
        settings = (step, 0.1, (0.8, 0.95), 0.05, 0.3)
        after = adamw_step(weight, grad, m, v, *settings)  # before an answer can change anything
        yield f"step {step}", answer(weight, grad, m, v, *settings)
        weight, m, v = after
    still = torch.zeros(2, 3)
    yield "a gradient of 0", answer(weight, still, still, still, 1, 0.1, (0.9, 0.95), 1e-8, 0.5)
    weight, grad = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    settings = (grad / 3, grad**2 / 5, 7, 0.02, (0.9, 0.99), 1e-3, 0.4)
    yield "a vector at step 7, with means from before", answer(weight, grad, *settings)


ADAMW = Exercise(
    name="adamw_step",
    chapter=10,
    title="A step of AdamW",
    minutes=15,
    difficulty=1,
    hints=(
        "Four lines: the two running means, their corrections, the decay, the step. Which of them use `step`?",
        "m becomes beta1 * m + (1 - beta1) * grad, and v the same with beta2 and grad squared. The correction divides by 1 - beta ** step.",
        "weight * (1 - lr * weight_decay) - lr * m_hat / (v_hat.sqrt() + eps), and return it with m and v, uncorrected.",
    ),
    run=_run_adamw,
    reference=adamw_step,
    explanation="Decay and step are separate: the gradient never sees the decay, so it is not divided by the root of v.",
    wrong=(
        WrongAnswer(
            "no bias correction",
            "You took m and v as they are. They start at 0 and are too small at first: divide each by 1 - beta ** step.",
            HAND,
            _adamw(corrected=False),
        ),
        WrongAnswer(
            "decay added to the gradient",
            "You added weight_decay * weight to the gradient. That is the old way (L2): Adam then divides the decay by the root of v. Shrink the weight itself.",
            HAND,
            _adamw(coupled=True),
        ),
        WrongAnswer(
            "eps inside the root",
            "Your eps stands under the root. It belongs outside: v_hat.sqrt() + eps.",
            HAND,
            _adamw(eps_inside=True),
        ),
        WrongAnswer(
            "betas swapped",
            "You used the second beta for m and the first for v. betas is (that of m, that of v).",
            HAND,
            _adamw(swapped=True),
        ),
        WrongAnswer(
            "step counted from 0",
            "You corrected with step + 1. The first step has the number 1 here, and 1 - beta ** 1 is its correction.",
            HAND,
            _adamw(ahead=1),
        ),
        WrongAnswer(
            "decay after the step",
            "You let the new weight shrink, its step included. The weight shrinks first, then it moves.",
            HAND,
            _adamw(after=True),
        ),
        WrongAnswer(
            "decay without the learning rate",
            "You shrank the weight by weight_decay. At each step it shrinks by lr * weight_decay.",
            HAND,
            _adamw(with_lr=False),
        ),
        WrongAnswer(
            "uphill",
            "You added the step. The gradient points uphill; subtract it.",
            HAND,
            _adamw(sign=-1.0),
        ),
        WrongAnswer(
            "no root",
            "You divided by v itself. v is a mean of squares: its root has the size of a gradient.",
            HAND,
            _adamw(rooted=False),
        ),
        WrongAnswer(
            "v without squares",
            "You averaged the size of the gradient in v. Adam averages its square.",
            HAND,
            _adamw(squared=False),
        ),
        WrongAnswer(
            "yesterday's means",
            "You moved by the means from before this gradient. Update m and v first, then use them.",
            HAND,
            _adamw(old=True),
        ),
        WrongAnswer(
            "the gradient added whole",
            "You added the whole gradient to m. Only 1 - beta1 of it is new; beta1 of m stays.",
            HAND,
            _adamw(share=False),
        ),
        WrongAnswer(
            "only m corrected",
            "You corrected m and not v. Both start at 0, and each has its own beta.",
            HAND,
            _adamw(half=True),
        ),
        WrongAnswer(
            "eps before the correction",
            "You added eps to the root of the uncorrected v. It comes after the correction: v_hat.sqrt() + eps.",
            HAND,
            _adamw(hat=True),
        ),
        WrongAnswer(
            "vectors do not decay",
            "You left the decay out for vectors. That is the choice of the one who builds the groups; a step decays by the weight_decay it is given.",
            'chapter 10, "Which weights should decay"',
            _adamw(vectors=False),
        ),
    ),
)

# --- the learning rate of a micro-batch ---


def learning_rate(micro_batch, accumulate, warmup_steps, total_steps, lr, floor):
    step = micro_batch // accumulate
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return lr * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)


def _rate(micro=False, first=1, last=1, periods=0.5, keep_floor=True, shape="cosine", whole=False,
          scaled=True, rounded=False, rise=0.0, absolute=False, cut=False):  # fmt: skip
    def answer(micro_batch, accumulate, warmup_steps, total_steps, lr, floor):
        step = micro_batch if micro else micro_batch // accumulate
        if rounded:
            step = -(-micro_batch // accumulate)
        if step < warmup_steps:
            return lr * (rise * floor + (1 - rise * floor) * (step + first) / warmup_steps)
        start = 0 if whole else warmup_steps
        progress = min(1.0, (step - start) / max(1, total_steps - last - start))
        wave = (1 + math.cos(2 * math.pi * periods * progress)) / 2
        share = wave if shape == "cosine" else 1 - progress
        low = floor / (lr if absolute else 1) if keep_floor else 0.0
        if cut:
            return lr * max(floor, share)
        return lr * (low + ((1 - low) if scaled else 1) * share)

    return answer


def _run_rate(answer):
    for accumulate in (1, 4):
        for step in (0, 1, 4, 5, 7, 10, 14):
            for part in {0, accumulate - 1}:
                label = f"update {step + 1} of 15, micro-batch {part + 1} of {accumulate}"
                yield label, answer(step * accumulate + part, accumulate, 5, 15, 0.02, 0.1)
    yield "without warm-up", answer(0, 2, 0, 6, 1.0, 0.0)
    for step in (3, 5):
        yield f"without warm-up, update {step + 1} of 6", answer(2 * step, 2, 0, 6, 1.0, 0.25)


RATE = Exercise(
    name="learning_rate",
    chapter=10,
    title="The rate of a micro-batch",
    minutes=20,
    difficulty=2,
    hints=(
        "First find out which update of the weights the micro-batch belongs to. Everything else counts updates.",
        "micro_batch // accumulate is the update, from 0. In the warm-up the rate is lr * (update + 1) / warmup_steps.",
        "After it, progress = (update - warmup_steps) / (total_steps - 1 - warmup_steps) goes from 0 to 1, and the share is "
        "floor + (1 - floor) * (1 + cos(pi * progress)) / 2.",
    ),
    run=_run_rate,
    reference=learning_rate,
    explanation="Three fences with posts: the first update is number 1 of the warm-up, the last is number total_steps - 1 from 0, and all micro-batches of an update share its rate.",
    wrong=(
        WrongAnswer(
            "micro-steps",
            "You counted micro-batches. With 4 per update your schedule is over after a quarter of the run.",
            'chapter 10, "Break it: count the wrong thing"',
            _rate(micro=True),
        ),
        WrongAnswer(
            "the first update does nothing",
            "Your warm-up starts at 0, so the first update has the learning rate 0 and is wasted. It has 1 / warmup_steps of the rate.",
            SCHEDULE,
            _rate(first=0),
        ),
        WrongAnswer(
            "the floor is never reached",
            "At the last update you are still above the floor. The last one has the number total_steps - 1, counted from 0.",
            SCHEDULE,
            _rate(last=0),
        ),
        WrongAnswer(
            "a whole wave",
            "Your cosine goes down and up again. Half a wave is wanted: cos from 0 to pi.",
            SCHEDULE,
            _rate(periods=1.0),
        ),
        WrongAnswer(
            "a quarter of a wave",
            "Your cosine ends in the middle: pi / 2 at the end. It has to run up to pi.",
            SCHEDULE,
            _rate(periods=0.25),
        ),
        WrongAnswer(
            "down to zero",
            "Your rate falls to 0. It should end at floor * lr.",
            SCHEDULE,
            _rate(keep_floor=False),
        ),
        WrongAnswer(
            "the floor on top",
            "You added the floor to the whole cosine, so after the warm-up the rate is above lr. Scale the cosine by 1 - floor.",
            SCHEDULE,
            _rate(scaled=False),
        ),
        WrongAnswer(
            "a straight line",
            "Your rate falls in a line. It should fall along half a cosine: slowly at first and at the end.",
            SCHEDULE,
            _rate(shape="line"),
        ),
        WrongAnswer(
            "the cosine begins too early",
            "You let the cosine run from the first update, so the rate jumps where the warm-up ends. It begins when the warm-up is over.",
            SCHEDULE,
            _rate(whole=True),
        ),
        WrongAnswer(
            "the later micro-batches belong to the next update",
            "You rounded up. Micro-batches 0, 1, 2, 3 all belong to update 0 when there are 4 for each.",
            'chapter 10, "Break it: count the wrong thing"',
            _rate(rounded=True),
        ),
        WrongAnswer(
            "the warm-up begins at the floor",
            "Your warm-up climbs from the floor. It climbs from 0: the first update has 1 / warmup_steps of the rate.",
            SCHEDULE,
            _rate(rise=1.0),
        ),
        WrongAnswer(
            "the floor taken as a rate",
            "You took floor as a learning rate. It is a share of lr: the last rate is floor * lr.",
            SCHEDULE,
            _rate(absolute=True),
        ),
        WrongAnswer(
            "cut off at the floor",
            "You cut the cosine off where it meets the floor. It should reach the floor only at the last update: squeeze it between the floor and 1.",
            SCHEDULE,
            _rate(cut=True),
        ),
    ),
)

# --- the gradient of a large batch ---


def large_batch_gradient(gradients, targets):
    counted = [int((y != -100).sum()) for y in targets]
    total = torch.zeros_like(gradients[0])
    for gradient, count in zip(gradients, counted, strict=True):
        if count:
            total = total + gradient * (count / sum(counted))
    return total


def _large(weigh, skip=True, last=False, divide=True):
    def answer(gradients, targets):
        weights = [weigh(y) for y in targets]
        total = torch.zeros_like(gradients[0])
        for gradient, y, weight in zip(gradients, targets, weights, strict=True):
            if last:
                total = torch.zeros_like(total)
            if not skip or (y != -100).any():
                total = total + gradient * weight
        return total / sum(weights) if divide else total

    return answer


def _counted(y):
    return int((y != -100).sum())


def _mean_of_counted(gradients, targets):
    kept = [g for g, y in zip(gradients, targets, strict=True) if (y != -100).any()]
    return sum(kept) / len(kept)


def _run_large(answer):
    noise = torch.Generator().manual_seed(1)
    for label, shapes, ignored in (
        ("one token and three", ((1, 3), (1, 3)), (2, 0)),
        ("other numbers of texts, and other lengths", ((2, 4), (1, 6), (3, 3)), (1, 4, 2)),
        ("nothing counts in one of them", ((2, 2), (2, 3)), (4, 1)),
    ):
        targets, gradients = [], []
        for shape, n in zip(shapes, ignored, strict=True):
            y = torch.randint(1, 9, shape, generator=noise)
            y.view(-1)[:n] = -100
            targets.append(y)
            empty = n == y.numel()
            fill = torch.full((2, 2), math.nan)
            gradients.append(fill if empty else torch.randn(2, 2, generator=noise))
        yield label, answer(gradients, targets)
    targets = [torch.tensor([0, -100, 5]), torch.tensor([[[0, 0], [7, -100]]]), torch.tensor([3])]
    gradients = [
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([-4.0, 0.0, 1.0]),
        torch.tensor([10.0, 20.0, 30.0]),
    ]
    yield "targets of other shapes, some of them 0", answer(gradients, targets)


LARGE = Exercise(
    name="large_batch_gradient",
    chapter=10,
    title="One gradient from many",
    minutes=15,
    difficulty=2,
    hints=(
        "Each gradient is a mean over the tokens that count in its micro-batch. What was it before it was divided by their number?",
        "Weight each gradient by its share: the tokens that count in it, divided by those that count in all of them.",
        "Leave out a micro-batch in which nothing counts: its gradient is 0 / 0, that is nan, and nan * 0 is nan again.",
    ),
    run=_run_large,
    reference=large_batch_gradient,
    explanation="A mean of means is only the mean if all have equally many members; otherwise weight each by its share.",
    wrong=(
        WrongAnswer(
            "a mean of means",
            "You gave each micro-batch the same weight. One with a single token then counts as much as one with a thousand.",
            MICRO,
            _large(lambda y: 1, skip=False),
        ),
        WrongAnswer(
            "a mean of means, without the empty one",
            "You left out the micro-batch in which nothing counts, but the others all weigh the same. Weight each by its tokens that count.",
            MICRO,
            _mean_of_counted,
        ),
        WrongAnswer(
            "no division",
            "You added the gradients as they are. The result grows with the number of micro-batches.",
            MICRO,
            _large(lambda y: 1, skip=False, divide=False),
        ),
        WrongAnswer(
            "weighted, not divided",
            "You multiplied by the numbers of tokens that count but never divided by their sum.",
            MICRO,
            _large(_counted, divide=False),
        ),
        WrongAnswer(
            "-100 counted",
            "You weighted by all tokens. Targets of -100 are not part of the mean and give no weight.",
            MICRO,
            _large(lambda y: y.numel()),
        ),
        WrongAnswer(
            "the id 0 left out",
            "You counted the targets above 0. The token with the id 0 counts like any other; only -100 does not.",
            MICRO,
            _large(lambda y: int((y > 0).sum())),
        ),
        WrongAnswer(
            "weighted by texts",
            "You weighted by the number of texts. They differ in length: count the tokens that count.",
            MICRO,
            _large(lambda y: y.shape[0]),
        ),
        WrongAnswer(
            "cleared inside the loop",
            "Only the last micro-batch is left: you begin anew with every one, as if zero_grad stood inside the loop.",
            MICRO,
            _large(_counted, last=True),
        ),
        WrongAnswer(
            "nan let through",
            "Your weights are right, but nan * 0 is nan: leave out a micro-batch in which nothing counts.",
            "hint 3",
            _large(_counted, skip=False),
        ),
    ),
)

# --- clipping ---


def clip(gradients, max_norm):
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    factor = min(1.0, max_norm / norm) if norm else 1.0
    return [g * factor for g in gradients], norm


def _norm(gradients):
    return math.sqrt(sum(float(g.square().sum()) for g in gradients))


def _clip(norm_of=_norm, always=False, report="before", turn=lambda norm, cap: cap / norm):
    def answer(gradients, max_norm):
        norm = norm_of(gradients)
        if not norm:
            return gradients, 0.0
        factor = turn(norm, max_norm)
        factor = factor if always else min(1.0, factor)
        clipped = [g * factor for g in gradients]
        return clipped, norm if report == "before" else norm_of(clipped)

    return answer


def _per_tensor(gradients, max_norm):
    norms = [float(g.norm()) for g in gradients]
    pairs = zip(gradients, norms, strict=True)
    return [g * min(1.0, max_norm / n) if n else g for g, n in pairs], _norm(gradients)


def _each_value(gradients, max_norm):
    return [g.clamp(-max_norm, max_norm) for g in gradients], _norm(gradients)


def _dropped(gradients, max_norm):
    norm = _norm(gradients)
    return [g * (norm <= max_norm) for g in gradients], norm


def _run_clip(answer):
    yield "norm 5, cap 1", answer([torch.tensor([3.0]), torch.tensor([0.0, 4.0])], 1.0)
    yield "norm 0.5, cap 1", answer([torch.tensor([0.3]), torch.tensor([0.0, -0.4])], 1.0)
    table = torch.tensor([[2.0, -1.0], [4.0, 0.5]])
    yield "a table and a vector, cap 2", answer([table, torch.tensor([-6.0, 1.0, 0.25])], 2.0)
    yield "all zero", answer([torch.zeros(2), torch.zeros(2, 2)], 1.0)
    yield "norm 1.5, cap 2", answer([torch.tensor([1.5]), torch.zeros(2)], 2.0)
    short = [torch.tensor([0.8, 0.4]), torch.tensor([-0.8])]
    yield "only all together above the cap", answer(short, 1.0)


CLIPPING = Exercise(
    name="clip",
    chapter=10,
    title="Clip by the norm of all",
    minutes=15,
    difficulty=1,
    hints=(
        "Imagine all the numbers of all tensors in one long vector. Its length is one number.",
        "The norm is the square root of the sum of all squares. If it is above max_norm, everything is multiplied by max_norm / norm.",
        "A norm of 0 needs no scaling, and must not be divided by. Return the norm from before.",
    ),
    run=_run_clip,
    reference=clip,
    explanation="All tensors are scaled by one factor, so the direction of the step is kept; only its length is capped.",
    wrong=(
        WrongAnswer(
            "each tensor by itself",
            "You clipped every tensor by its own norm. This changes the direction. One norm over all, one factor for all.",
            CLIP,
            _per_tensor,
        ),
        WrongAnswer(
            "each value by itself",
            "You cut each number off at max_norm. This changes the direction, and the whole may still be too long.",
            CLIP,
            _each_value,
        ),
        WrongAnswer(
            "small gradients made larger",
            "You scaled a gradient up to max_norm. Clipping is a cap: below it, nothing happens.",
            CLIP,
            _clip(always=True),
        ),
        WrongAnswer(
            "the norm from after",
            "The gradients are right, but you returned the norm after clipping. The one before says whether something is wrong.",
            CLIP,
            _clip(report="after"),
        ),
        WrongAnswer(
            "the root forgotten",
            "You took the sum of the squares for the norm. Its square root is missing.",
            CLIP,
            _clip(lambda g: _norm(g) ** 2),
        ),
        WrongAnswer(
            "the sum of sizes",
            "You added up absolute values. The norm adds squares and takes the root.",
            CLIP,
            _clip(lambda gs: sum(float(g.abs().sum()) for g in gs)),
        ),
        WrongAnswer(
            "the norms added",
            "You added the norms of the tensors. Add their squares, and take the root of the sum.",
            CLIP,
            _clip(lambda gs: sum(float(g.norm()) for g in gs)),
        ),
        WrongAnswer(
            "divided by the norm alone",
            "You divided by the norm, so the result is 1 long whatever max_norm says. Multiply by max_norm as well.",
            CLIP,
            _clip(turn=lambda norm, cap: 1 / norm if norm > cap else 1.0),
        ),
        WrongAnswer(
            "too large means zero",
            "You threw the gradient away when it was above the cap. Scale it down instead.",
            CLIP,
            _dropped,
        ),
        WrongAnswer(
            "compared with 1",
            "You asked whether the norm is above 1. Compare it with max_norm, or a short gradient is made longer.",
            CLIP,
            _clip(always=True, turn=lambda norm, cap: cap / norm if norm > 1 else 1.0),
        ),
    ),
)

# --- the scaled loss ---


def unscale(gradients, scale, good_steps, interval):
    if not all(bool(g.isfinite().all()) for g in gradients):
        return None, scale / 2, 0
    grown = good_steps + 1 == interval
    return (
        [g.float() / scale for g in gradients],
        scale * (2 if grown else 1),
        0 if grown else good_steps + 1,
    )


def _unscale(bad=lambda gs: not all(bool(g.isfinite().all()) for g in gs), half=0.5, reset=True, late=False,
             narrow=False, every=False, give=False, off=1, keep=False):  # fmt: skip
    def answer(gradients, scale, good_steps, interval):
        wide = [(g / scale).float() if narrow else g.float() / scale for g in gradients]
        if bad(gradients):
            return (wide if give else None), scale * half, 0 if reset else good_steps
        grown = every or good_steps + off == interval
        new = scale * (2 if grown else 1)
        if late:
            wide = [g.float() / new for g in gradients]
        return wide, new, 0 if grown and not keep else good_steps + 1

    return answer


def _run_unscale(answer):
    half = torch.float16
    small = torch.tensor([6e-5, 0.25, -3.0], dtype=half)
    large = torch.tensor([[8.0, -40.0]], dtype=half)
    partly = torch.tensor([2.0, math.nan, 1.0], dtype=half)
    upward = torch.tensor([-1.0, math.inf, 2.0], dtype=half)
    border = torch.tensor([60000.0, 60000.0, -1.0], dtype=half)
    for label, values, scale, good, interval in (
        ("all is well", (small, large), 65536.0, 3, 10),
        ("the interval is full", (small, large), 65536.0, 9, 10),
        ("an infinity", (small, large * 4000), 65536.0, 4, 10),
        ("an infinity in the first", (large * 4000, small), 65536.0, 9, 10),
        ("a nan", (small * math.nan, large), 65536.0, 5, 10),
        ("a nan in the middle of the second", (large, partly), 64.0, 2, 4),
        ("plus infinity, at the scale 1", (small, upward), 1.0, 2, 4),
        ("large, and all finite", (border, large), 1.0, 3, 4),
        ("after an overflow", (small, large), 65536.0, 0, 10),
        ("one before the last", (large, small), 65536.0, 8, 10),
    ):
        gradients, new, count = answer(list(values), scale, good, interval)
        if gradients is not None:
            gradients = [torch.as_tensor(g).float() * 1e6 for g in gradients]
        skipped = "left out" if gradients is None else "made"
        yield f"{label}: is the step made or left out", skipped
        yield f"{label}: gradients times a million", gradients or []
        yield f"{label}: scale", new
        yield f"{label}: good steps", count


def _sum_is_finite(gradients):
    return not all(bool(g.sum().isfinite()) for g in gradients)


SCALE = Exercise(
    name="unscale",
    chapter=10,
    title="A loss that was scaled",
    minutes=20,
    difficulty=2,
    hints=(
        "Two cases: some number is not finite (infinite or nan), or all are finite.",
        "Not finite: no gradients, half the scale, and the count begins at 0. torch's isfinite says it for a whole tensor.",
        "Finite: first widen to float32, then divide by the scale that the loss had. If this is the interval-th good step in a row, return twice the scale and the count 0.",
    ),
    run=_run_unscale,
    reference=unscale,
    explanation="The scale feels its way up to the edge of float16 and steps back when it is over it; a step now and then is the price.",
    wrong=(
        WrongAnswer(
            "divided in float16",
            "You divided before you widened. The small gradients vanish, which is what the scale was for: float() first.",
            EXACT,
            _unscale(narrow=True),
        ),
        WrongAnswer(
            "nan overlooked",
            "You looked for infinities only. An overflow can also end as nan: use isfinite.",
            EXACT,
            _unscale(bad=lambda gs: any(bool(g.isinf().any()) for g in gs)),
        ),
        WrongAnswer(
            "the sum overflows, not the numbers",
            "You looked at the sum of a tensor. In float16 the sum of finite numbers can be infinite: ask every number, with isfinite.",
            "hint 2",
            _unscale(bad=_sum_is_finite),
        ),
        WrongAnswer(
            "the wrong way round",
            "You leave the step out when all is finite, and make it when something is not. It is the other way round.",
            "hint 1",
            _unscale(bad=lambda gs: all(bool(g.isfinite().all()) for g in gs)),
        ),
        WrongAnswer(
            "only the first tensor looked at",
            "You looked at the first tensor only. The overflow may be in any of them.",
            "hint 2",
            _unscale(bad=lambda gs: not bool(gs[0].isfinite().all())),
        ),
        WrongAnswer(
            "larger after an overflow",
            "You doubled the scale after an overflow. It was too large already: halve it.",
            "hint 2",
            _unscale(half=2.0),
        ),
        WrongAnswer(
            "the scale stays after an overflow",
            "After an overflow you kept the scale. The next step would overflow again: halve it.",
            "hint 2",
            _unscale(half=1.0),
        ),
        WrongAnswer(
            "the count goes on after an overflow",
            "After an overflow the good steps begin at 0 again.",
            "hint 2",
            _unscale(reset=False),
        ),
        WrongAnswer(
            "the count goes on after doubling",
            "After doubling the scale the count begins at 0 again; yours goes on.",
            "hint 3",
            _unscale(keep=True),
        ),
        WrongAnswer(
            "divided by the new scale",
            "You divided by the scale that is meant for the next step. These gradients belong to the old one.",
            "hint 3",
            _unscale(late=True),
        ),
        WrongAnswer(
            "doubled at every step",
            "You doubled the scale at every good step. Wait for `interval` good steps in a row.",
            "hint 3",
            _unscale(every=True),
        ),
        WrongAnswer(
            "doubled one step late",
            "This step counts too: with good_steps = interval - 1, it is the one that fills the interval.",
            "hint 3",
            _unscale(off=0),
        ),
        WrongAnswer(
            "the broken gradients returned",
            "After an overflow you returned the gradients all the same. The step must be left out: return None for them.",
            "hint 2",
            _unscale(give=True),
        ),
    ),
)

# --- find the bug: the best model ---


def keep_best(start, update, validate, steps):
    weights = start.clone()
    best, kept = math.inf, None
    for _ in range(steps):
        update(weights)
        loss = validate(weights)
        if loss < best:
            best, kept = loss, weights.clone()
    return best, kept


def _given_keep_best(start, update, validate, steps):
    """Train for `steps` steps; return the lowest validation loss and the weights that had it."""
    weights = start.clone()
    best, kept = math.inf, None
    for _ in range(steps):
        update(weights)
        loss = validate(weights)
        if loss < best:
            best, kept = loss, weights
    return best, kept


def _alias(start, update, validate, steps):
    return _given_keep_best(start, update, validate, steps)


def _keep(better=lambda loss, best: loss < best, order="after", remember=True, with_start=False):
    def answer(start, update, validate, steps):
        weights = start.clone()
        best, kept = (validate(weights), weights.clone()) if with_start else (math.inf, None)
        for _ in range(steps):
            before = weights.clone()
            if order == "stale":  # the loss from before the update, the weights from after it
                loss = validate(weights)
                update(weights)
            else:
                update(weights)
                loss = validate(weights)
            if kept is None or better(loss, best):
                kept = before if order == "before" else weights.clone()
                best = loss if remember or best == math.inf else best
        return best, kept

    return answer


def _run_keep(answer):
    paths = {
        "it gets better, then worse": [3.0, 2.0, 1.0, 1.5, 2.5],
        "the best in the middle, twice": [2.0, 1.0, 3.0, 1.0, 4.0],
        "the best at the end": [5.0, 4.0, 4.5, 2.0],
        "the best at once": [1.0, 3.0, 2.0],
    }
    for label, losses in paths.items():
        table = {float(i + 1): loss for i, loss in enumerate(losses)} | {0.0: 0.5}

        def update(weights):
            weights += 1

        def validate(weights, table=table):
            return table[float(weights[0])]

        yield label, answer(torch.zeros(2), update, validate, len(losses))

    calls, table = [], {1.0: 90.0, 3.0: 30.0, 6.0: 60.0}

    def update(weights):  # another step each time, as with other batches
        calls.append(1)
        weights += len(calls)

    yield (
        "no update is like the last",
        answer(torch.zeros(2), update, lambda w: table.get(float(w[0]), 25.0), 3),
    )


KEEP = Exercise(
    name="keep_best",
    chapter=10,
    title="find the bug: the best model",
    minutes=15,
    difficulty=2,
    hints=(
        "The loss it returns is right. Compare the weights that it returns with those of the last step.",
        "update changes the weights in place. Which tensor does `kept` name while the training goes on?",
        "`kept = weights` gives the same tensor a second name. Keep a copy: weights.clone().",
    ),
    run=_run_keep,
    reference=keep_best,
    given=_given_keep_best,
    explanation="A second name is no copy. model.state_dict() has the same trap: its tensors are the model's own, and go on changing.",
    wrong=(
        WrongAnswer(
            "a second name, not a copy",
            "`kept` is another name of the tensor that goes on being trained, so you return the last weights. Copy them when they are the best.",
            LOOP,
            _alias,
        ),
        WrongAnswer(
            "the weights of the step before",
            "You kept the weights from before the update, but the loss is that of the weights after it.",
            LOOP,
            _keep(order="before"),
        ),
        WrongAnswer(
            "the loss of the step before",
            "You validate before the update and keep the weights from after it: the loss belongs to other weights.",
            LOOP,
            _keep(order="stale"),
        ),
        WrongAnswer(
            "the last weights",
            "You keep the weights after every step, whatever the loss. Only a lower one counts.",
            LOOP,
            _keep(better=lambda loss, best: True),
        ),
        WrongAnswer(
            "the worst model",
            "You keep the weights with the highest loss. Lower is better.",
            LOOP,
            _keep(better=lambda loss, best: loss > best),
        ),
        WrongAnswer(
            "the later of two equals",
            "Of two equal losses you keep the later one. Only a lower loss replaces the best.",
            "hint 1",
            _keep(better=lambda loss, best: loss <= best),
        ),
        WrongAnswer(
            "compared with the first loss for ever",
            "You replace the weights but not the loss that they are compared with. Update both.",
            LOOP,
            _keep(remember=False),
        ),
        WrongAnswer(
            "the untrained model counts",
            "You let the weights compete that nobody trained. Validation begins after the first step.",
            LOOP,
            _keep(with_start=True),
        ),
    ),
)

EXERCISES = (ADAMW, RATE, LARGE, CLIPPING, SCALE, KEEP)
