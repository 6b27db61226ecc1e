"""Chapter 10: AdamW, the schedule, micro-batches, clipping, a scaled loss, and the best model."""

import math

import torch

from courseware.exercises import Exercise, Mistake, normal

COUNT = 'chapter 10, "Break it: count the wrong thing"'
EXACT = 'chapter 10, "How exact must the numbers be?"'


def _probe_adamw(answer):
    draw = normal(0)
    for step in (1, 2, 3):
        weight, grad, m, v = draw(4, 2, 3)
        before = float(step > 1)  # the means begin at 0
        settings = (step, 0.1, (0.8, 0.95), 0.05, 0.3)
        yield f"step {step}", answer(weight, 2 * grad, before * m, before * v.abs(), *settings)

    weight, grad = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    settings = (grad / 3, grad**2 / 5, 7, 0.02, (0.9, 0.99), 1e-3, 0.4)
    yield "a vector at step 7, with means from before", answer(weight, grad, *settings)


ADAMW = Exercise(
    "adamw_step", _probe_adamw,
    hints=(
        "Four lines: the two running means, their corrections, the decay, the step. Which of them use `step`?",
        "m becomes beta1 * m + (1 - beta1) * grad, and v the same with beta2 and grad squared. The correction divides by 1 - beta ** step.",
        "weight * (1 - lr * weight_decay) - lr * m_hat / (v_hat.sqrt() + eps), and return it with m and v, uncorrected.",
    ),
    explanation="Decay and step are separate: the gradient never sees the decay, so it is not divided by the root of v.",
    look='chapter 10, "One weight, by hand"',
    mistakes=(
        Mistake("no bias correction", "You took m and v as they are. They start at 0 and are too small at first: divide each by 1 - beta ** step.",
                edit=(("m / (1 - beta1**step)", "m"), ("v / (1 - beta2**step)", "v"))),
        Mistake("only m corrected", "You corrected m and not v. Both start at 0, and each has its own beta.",
                edit=("v / (1 - beta2**step)", "v")),
        Mistake("decay added to the gradient", "You added weight_decay * weight to the gradient. That is the old way (L2): Adam then divides the decay by the root of v. Shrink the weight itself.",
                edit=(("beta1, beta2 = betas", "beta1, beta2 = betas\ngrad = grad + weight_decay * weight"),
                      ("weight = weight * (1 - lr * weight_decay)", ""))),
        Mistake("no decay", "The weight never shrinks by itself: multiply it by 1 - lr * weight_decay before the step.",
                edit=("weight = weight * (1 - lr * weight_decay)", "")),
        Mistake("decay without the learning rate", "You shrank the weight by weight_decay. At each step it shrinks by lr * weight_decay.",
                edit=("1 - lr * weight_decay", "1 - weight_decay")),
        Mistake("decay after the step", "You let the new weight shrink, its step included. The weight shrinks first, then it moves.",
                edit=(("weight = weight * (1 - lr * weight_decay)", ""),
                      ("return weight -", "return (1 - lr * weight_decay) * (weight -"),
                      ("+ eps)", "+ eps))"))),
        Mistake("eps inside the root", "Your eps stands under the root. It belongs outside: v_hat.sqrt() + eps.",
                edit=("v_hat.sqrt() + eps", "(v_hat + eps).sqrt()")),
        Mistake("betas swapped", "You used the second beta for m and the first for v. betas is (that of m, that of v).",
                edit=("beta1, beta2 = betas", "beta2, beta1 = betas")),
        Mistake("step counted from 0", "You corrected with step + 1. The first step has the number 1 here, and 1 - beta ** 1 is its correction.",
                edit=(("beta1**step", "beta1 ** (step + 1)"), ("beta2**step", "beta2 ** (step + 1)"))),
        Mistake("no root", "You divided by v itself. v is a mean of squares: its root has the size of a gradient.",
                edit=("v_hat.sqrt()", "v_hat")),
        Mistake("the gradient added whole", "You added the whole gradient to m. Only 1 - beta1 of it is new; beta1 of m stays.",
                edit=("(1 - beta1) * grad", "grad")),
        Mistake("m and v in the wrong order", "The new weight is right, but you returned v before m.",
                edit=("eps), m, v", "eps), v, m")),
        Mistake("the corrected means returned", "The new weight is right, but you returned the corrected means. The next step starts from m and v themselves and corrects them anew.",
                edit=("eps), m, v", "eps), m_hat, v_hat")),
    ),
)  # fmt: skip


def _probe_rate(answer):
    for accumulate in (1, 4):
        for step in (0, 1, 4, 5, 7, 10, 14):
            for part in {0, accumulate - 1}:
                label = f"update {step + 1} of 15, micro-batch {part + 1} of {accumulate}"
                yield label, answer(step * accumulate + part, accumulate, 5, 15, 0.02, 0.1)

    yield "without warm-up", answer(0, 2, 0, 6, 1.0, 0.0)
    rate = answer(4, 1, 4, 5, 1.0, 0.25)
    yield "a warm-up of 4 and one more update: is it lr or floor * lr", rate in (1.0, 0.25)


RATE = Exercise(
    "learning_rate", _probe_rate,
    hints=(
        "First find out which update of the weights the micro-batch belongs to. Everything else counts updates.",
        "micro_batch // accumulate is the update, from 0. In the warm-up the rate is lr * (update + 1) / warmup_steps.",
        "After it, progress = (update - warmup_steps) / (total_steps - 1 - warmup_steps) goes from 0 to 1, and the share is "
        "floor + (1 - floor) * (1 + cos(pi * progress)) / 2.",
    ),
    explanation="There are three chances to be off by one: the first update has 1 / warmup_steps of the rate and not 0, the last one is number total_steps - 1, and a micro-batch has the rate of the update it belongs to.",
    look='chapter 10, "A learning rate that warms up and cools down"',
    mistakes=(
        Mistake("micro-steps", "You counted micro-batches. With 4 per update your schedule is over after a quarter of the run.",
                edit=("micro_batch // accumulate", "min(micro_batch, total_steps - 1)"), also=(("micro_batch // accumulate", "micro_batch"),),
                look=COUNT),
        Mistake("a share of an update", "You divided by accumulate with a remainder. All micro-batches of an update have its rate: //, not /.",
                edit=("micro_batch // accumulate", "min(micro_batch / accumulate, total_steps - 1)"),
                also=(("micro_batch // accumulate", "micro_batch / accumulate"),), look=COUNT),
        Mistake("the first update does nothing", "Your warm-up starts at 0, so the first update has the learning rate 0 and is wasted. It has 1 / warmup_steps of the rate.",
                edit=("step + 1", "step")),
        Mistake("the warm-up begins at the floor", "Your warm-up climbs from the floor. It climbs from 0: the first update has 1 / warmup_steps of the rate.",
                edit=("(step + 1) / warmup_steps", "(floor + (1 - floor) * (step + 1) / warmup_steps)")),
        Mistake("the floor is never reached", "At the last update you are still above the floor. The last one has the number total_steps - 1, counted from 0.",
                edit=("total_steps - 1 - warmup_steps", "total_steps - warmup_steps")),
        Mistake("a division by zero after the warm-up", "With one update after the warm-up, total_steps - 1 - warmup_steps is 0, and you divide by it. Divide by at least 1.",
                edit=("max(1, total_steps - 1 - warmup_steps)", "(total_steps - 1 - warmup_steps)")),
        Mistake("the cosine begins too early", "You let the cosine run from the first update, so the rate jumps where the warm-up ends. It begins when the warm-up is over.",
                edit=(("(step - warmup_steps)", "step"), ("1 - warmup_steps", "1"))),
        Mistake("a straight line", "Your rate falls in a line. It should fall along half a cosine: slowly at first and at the end.",
                edit=("(1 + math.cos(math.pi * progress)) / 2", "(1 - progress)")),
        Mistake("down to zero", "Your rate falls to 0. It should end at floor * lr.",
                edit=("(floor + (1 - floor) *", "(")),
        Mistake("the floor on top", "You added the floor to the whole cosine, so after the warm-up the rate is above lr. Scale the cosine by 1 - floor.",
                edit=("(1 - floor) *", "")),
        Mistake("cut off at the floor", "You cut the cosine off where it meets the floor. It should reach the floor only at the last update: squeeze it between the floor and 1.",
                edit=("(floor + (1 - floor) *", "max(floor,")),
    ),
)  # fmt: skip


def _probe_large(answer):
    noise = torch.Generator().manual_seed(1)
    draw = normal(1)
    for label, shapes, ignored in (
        ("one token and three", ((1, 3), (1, 3)), (2, 0)),
        ("other numbers of texts, and other lengths", ((2, 4), (1, 6), (3, 3)), (1, 4, 2)),
        ("nothing counts in one of them", ((2, 2), (2, 3)), (4, 1)),
    ):
        targets = [torch.randint(1, 9, shape, generator=noise) for shape in shapes]
        gradients = [draw(2, 2) for _ in shapes]
        for i, n in enumerate(ignored):
            targets[i].view(-1)[:n] = -100
            if n == targets[i].numel():
                gradients[i].fill_(math.nan)
        yield label, answer(gradients, targets)

    targets = [torch.tensor([0, -100, 5]), torch.tensor([[[0, 0], [7, -100]]]), torch.tensor([3])]
    gradients = list(draw(3, 3))
    yield "targets of other shapes, some of them 0", answer(gradients, targets)

    gradients[1][1] = math.nan
    yield "a nan in a gradient that counts", answer(gradients, targets)


LARGE = Exercise(
    "large_batch_gradient", _probe_large,
    hints=(
        "Each gradient is a mean over the tokens that count in its micro-batch. What was it before it was divided by their number?",
        "Weight each gradient by its share: the tokens that count in it, divided by those that count in all of them.",
        "Leave out a micro-batch in which nothing counts: its gradient is 0 / 0, that is nan, and nan * 0 is nan again.",
    ),
    explanation="A mean of means is only the mean if all have equally many members; otherwise weight each by its share.",
    look='chapter 10, "Micro-batches: one large batch in small pieces"',
    mistakes=(
        Mistake("a mean of means", "You gave each micro-batch the same weight. One with a single token then counts as much as one with a thousand.",
                edit=(("if count:", "if True:"), ("count / sum(counted)", "1 / len(counted)"))),
        Mistake("a mean of means, without the empty one", "You left out the micro-batch in which nothing counts, but the others all weigh the same. Weight each by its tokens that count.",
                edit=("count / sum(counted)", "1 / sum(n > 0 for n in counted)")),
        Mistake("no division", "You added the gradients as they are. The result grows with the number of micro-batches.",
                edit=(("if count:", "if True:"), ("* (count / sum(counted))", "")), also=(("* (count / sum(counted))", ""),)),
        Mistake("weighted, not divided", "You multiplied by the numbers of tokens that count but never divided by their sum.",
                edit=("(count / sum(counted))", "count")),
        Mistake("-100 counted", "You weighted by all tokens. Targets of -100 are not part of the mean and give no weight.",
                edit=(("int((y != -100).sum())", "y.numel() * bool((y != -100).any())"), ("sum(counted)", "sum(y.numel() for y in targets)")),
                also=(("int((y != -100).sum())", "y.numel()"), ("int((y != -100).sum())", "y.numel() * bool((y != -100).any())"))),
        Mistake("weighted by texts", "You weighted by the number of texts. They differ in length: count the tokens that count.",
                edit=(("int((y != -100).sum())", "y.shape[0] * bool((y != -100).any())"), ("sum(counted)", "sum(y.shape[0] for y in targets)")),
                also=(("int((y != -100).sum())", "y.shape[0]"), ("int((y != -100).sum())", "y.shape[0] * bool((y != -100).any())"))),
        Mistake("cleared inside the loop", "Only the last micro-batch is left: you begin anew with every one, as if zero_grad stood inside the loop.",
                edit=("total = total + gradient", "total = gradient")),
        Mistake("nan let through", "Your weights are right, but nan * 0 is nan: leave out a micro-batch in which nothing counts.",
                edit=("if count:", "if True:")),
        Mistake("every nan hidden", "You turned nan into 0 wherever it was. Where tokens count, a nan is a warning: leave out only the micro-batches in which nothing counts.",
                edit=("gradient * (", "gradient.nan_to_num() * (")),
    ),
)  # fmt: skip


def _probe_clip(answer):
    yield "norm 5, cap 1", answer([torch.tensor([3.0]), torch.tensor([0.0, 4.0])], 1.0)
    yield "norm 0.5, cap 1", answer([torch.tensor([0.3]), torch.tensor([0.0, -0.4])], 1.0)

    table = torch.tensor([[2.0, -1.0], [4.0, 0.5]])
    yield "a table and a vector, cap 2", answer([table, torch.tensor([-6.0, 1.0, 0.25])], 2.0)
    yield "all zero", answer([torch.zeros(2), torch.zeros(2, 2)], 1.0)
    yield "norm 1.5, cap 2", answer([torch.tensor([1.5]), torch.zeros(2)], 2.0)


CLIPPING = Exercise(
    "clip", _probe_clip,
    hints=(
        "Imagine all the numbers of all tensors in one long vector. Its length is one number.",
        "The norm is the square root of the sum of all squares. If it is above max_norm, everything is multiplied by max_norm / norm.",
        "A norm of 0 needs no scaling, and must not be divided by. Return the norm from before.",
    ),
    explanation="All tensors are scaled by one factor, so the direction of the step is kept; only its length is capped.",
    look='chapter 10, "Clipping: a cap on the whole gradient"',
    mistakes=(
        Mistake("each tensor by itself", "You clipped every tensor by its own norm. This changes the direction. One norm over all, one factor for all.",
                edit=("g * factor", "g * min(1.0, max_norm / max(float(g.norm()), 1e-12))")),
        Mistake("each value by itself", "You cut each number off at max_norm. This changes the direction, and the whole may still be too long.",
                edit=("g * factor", "g.clamp(-max_norm, max_norm)")),
        Mistake("small gradients made larger", "You scaled a gradient up to max_norm. Clipping is a cap: below it, nothing happens.",
                edit=("min(1.0, max_norm / norm)", "max_norm / norm")),
        Mistake("a division by a norm of 0", "Where all gradients are 0, so is their norm, and you divided by it. They need no scaling.",
                edit=("if norm else 1.0", ""), also=(("else 1.0", "else math.nan"),)),
        Mistake("the norm from after", "The gradients are right, but you returned the norm after clipping. The one before says whether something is wrong.",
                edit=("gradients], norm", "gradients], norm * factor")),
        Mistake("the root forgotten", "You took the sum of the squares for the norm. Its square root is missing.",
                edit=("math.sqrt", "float")),
        Mistake("the sum of sizes", "You added up absolute values. The norm adds squares and takes the root.",
                edit=(("math.sqrt", "float"), ("g.square()", "g.abs()"))),
        Mistake("the norms added", "You added the norms of the tensors. Add their squares, and take the root of the sum.",
                edit=(("math.sqrt", "float"), ("g.square().sum()", "g.norm()"))),
        Mistake("divided by the norm alone", "You divided by the norm, so the result is 1 long whatever max_norm says. Multiply by max_norm as well.",
                edit=("max_norm / norm", "(1 / norm if norm > max_norm else 1.0)")),
    ),
)  # fmt: skip


def _probe_unscale(answer):
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
        ("a nan in the middle of the second", (large, partly), 64.0, 2, 4),
        ("plus infinity, at the scale 1", (small, upward), 1.0, 2, 4),
        ("large, and all finite", (border, large), 1.0, 3, 4),
        ("one before the last", (large, small), 65536.0, 8, 10),
    ):
        gradients, new, count = answer([value.clone() for value in values], scale, good, interval)
        skipped = "left out" if gradients is None else "made"
        gradients = [torch.as_tensor(g) for g in gradients or []]
        yield f"{label}: is the step made or left out", skipped
        yield f"{label}: gradients times a million", [g.float() * 1e6 for g in gradients]
        yield f"{label}: dtype of the gradients", sorted({str(g.dtype) for g in gradients})
        yield f"{label}: scale", new
        yield f"{label}: good steps", count


SCALE = Exercise(
    "unscale", _probe_unscale,
    hints=(
        "Two cases: some number is not finite (infinite or nan), or all are finite.",
        "Not finite: no gradients, half the scale, and the count begins at 0. torch's isfinite says it for a whole tensor.",
        "Finite: first widen to float32, then divide by the scale that the loss had. If this is the interval-th good step in a row, return twice the scale and the count 0.",
    ),
    explanation="The scale feels its way up to the edge of float16 and steps back when it is over it; a step lost now and then is the price.",
    mistakes=(
        Mistake("divided in float16", "You divided before you widened. The small gradients vanish, which is what the scale was for: float() first.",
                edit=("g.float() / scale", "(g / scale).float()"), also=(("g.float() / scale", "g / scale"),), look=EXACT),
        Mistake("float64", "Your gradients are float64, which takes twice the memory. The task asks for float32.",
                edit=("g.float()", "g.double()"), look=EXACT),
        Mistake("multiplied by the scale", "You multiplied by the scale. The loss was multiplied by it, so the gradients have to be divided.",
                edit=("g.float() / scale", "g.float() * scale")),
        Mistake("nan overlooked", "You looked for infinities only. An overflow can also end as nan: use isfinite.",
                edit=("g.isfinite().all()", "not g.isinf().any()"), look=EXACT),
        Mistake("infinity overlooked", "You looked for nan only. An overflow ends as an infinity first: use isfinite.",
                edit=("g.isfinite().all()", "not g.isnan().any()"), look=EXACT),
        Mistake("the sum overflows, not the numbers", "You looked at the sum of a tensor. In float16 the sum of finite numbers can be infinite: ask every number, with isfinite.",
                edit=("g.isfinite().all()", "g.sum().isfinite()")),
        Mistake("the scale stays after an overflow", "After an overflow you kept the scale. The next step would overflow again: halve it.",
                edit=("scale / 2", "scale")),
        Mistake("the count goes on after an overflow", "After an overflow the good steps begin at 0 again.",
                edit=("scale / 2, 0", "scale / 2, good_steps")),
        Mistake("the count goes on after doubling", "After doubling the scale the count begins at 0 again; yours goes on.",
                edit=("0 if grown else good_steps + 1", "good_steps + 1")),
        Mistake("doubled one step late", "This step counts too: with good_steps = interval - 1, it is the one that fills the interval.",
                edit=("good_steps + 1 ==", "good_steps ==")),
        Mistake("the broken gradients returned", "After an overflow you returned the gradients all the same. The step must be left out: return None for them.",
                edit=("return None,", "return [g.float() / scale for g in gradients],")),
    ),
)  # fmt: skip


def _probe_keep(answer):
    def update(weights):
        weights += 1

    for label, losses in (
        ("it gets better, then worse", [3.0, 2.0, 1.0, 1.5, 2.5]),
        ("the best in the middle, twice", [2.0, 1.0, 3.0, 1.0, 4.0]),
        ("the best at the end", [5.0, 4.0, 4.5, 2.0]),
    ):

        def validate(weights, table=(0.5, *losses)):
            return table[int(weights[0])]

        yield label, answer(torch.zeros(2), update, validate, len(losses))

    calls = []

    def another_step(weights):  # as with other batches
        calls.append(1)
        weights += len(calls)

    def loss_of(weights):
        return {1.0: 90.0, 3.0: 30.0, 6.0: 60.0}.get(float(weights[0]), 25.0)

    yield "every update is different", answer(torch.zeros(2), another_step, loss_of, 3)


KEEP = Exercise(
    "keep_best", _probe_keep,
    hints=(
        "The loss it returns is right. Compare the weights that it returns with those of the last step.",
        "update changes the weights in place. Which tensor does `kept` name while the training goes on?",
        "`kept = weights` gives the same tensor a second name. Keep a copy: weights.clone().",
    ),
    explanation="A second name does not copy anything. model.state_dict() has the same trap: its tensors are the model's own, and go on changing.",
    look='chapter 10, "The loop"',
    mistakes=(
        Mistake("a second name, not a copy", "`kept` is another name of the tensor that goes on being trained, so you return the last weights. Copy them when they are the best.",
                of="given"),
        Mistake("the loss of the step before", "You validate before the update and keep the weights from after it: the loss belongs to other weights.",
                edit=("update(weights)\nloss = validate(weights)", "loss = validate(weights)\nupdate(weights)")),
        Mistake("the last weights", "You keep the weights after every step, whatever the loss. Only a lower one counts.",
                edit=("loss < best", "True")),
        Mistake("the worst model", "You keep the weights with the highest loss. Lower is better.",
                edit=(("math.inf", "-math.inf"), ("loss < best", "loss > best"))),
        Mistake("the later of two equals", "Of two equal losses you keep the later one. Only a lower loss replaces the best.",
                edit=("loss < best", "loss <= best")),
        Mistake("compared with the first loss for ever", "You replace the weights but not the loss that they are compared with. Update both.",
                edit=("kept = loss,", "kept = loss if kept is None else best,")),
    ),
)  # fmt: skip
