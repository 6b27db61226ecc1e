"""Chapter 20: Newton-Schulz, momentum, a Muon step, its weights, a schedule, a cap, QK-norm, a race and its test."""

from typing import Any

import numpy as np
import torch

from courseware.exercises import Exercise, Mistake, normal

DIRECTIONS_OF = 'chapter 20, "All directions at once"'
ORTHOGONALIZE = 'chapter 20, "Orthogonalize"'
OPTIMIZER = 'chapter 20, "The optimizer"'
GROUPS = 'chapter 20, "Which weights, and two optimizers as one"'
MODEL = 'chapter 20, "A recipe and its model"'
RUN = 'chapter 20, "The track, and one run"'
TEST = 'chapter 20, "In turns, and a test"'
SCHEDULE = 'chapter 10, "A learning rate that warms up and cools down"'
ROOT = 'chapter 5, "Why the square root"'
RMS = 'chapter 7, "RMSNorm: leave the mean alone"'

_CUBIC = (1.5, -0.5, 0.0)
_QUINTIC = (3.4445, -4.7750, 2.0315)


def _probe_even_out(answer):
    yield "3 and 4, one step of the cubic", answer(torch.tensor([3.0, 4.0]), _CUBIC, 1)
    yield "3 and 4, one step of the quintic", answer(torch.tensor([3.0, 4.0]), _QUINTIC, 1)
    yield "3 and 4, no step", answer(torch.tensor([3.0, 4.0]), _QUINTIC, 0)
    uneven = torch.tensor([0.02, 1.1, 1.0, 0.3])
    for steps in (2, 5):
        yield (
            f"0.02, 1.1, 1 and 0.3, {steps} steps of the cubic",
            answer(uneven.clone(), _CUBIC, steps),
        )
    yield "0.02, 1.1, 1 and 0.3, 5 steps of the quintic", answer(uneven.clone(), _QUINTIC, 5)
    yield "a single 0.8, 3 steps of the quintic", answer(torch.tensor([0.8]), _QUINTIC, 3)
    yield "one of three is 0", answer(torch.tensor([1.0, 0.0, 2.0]), _QUINTIC, 2)
    yield "other coefficients", answer(torch.tensor([0.5, 0.1, 0.2]), (2.0, -1.5, 0.5), 2)


_FROBENIUS = "singular.square().sum().sqrt()"
_POLYNOMIAL = "a * s + b * s**3 + c * s**5"

EVEN_OUT = Exercise(
    "even_out", _probe_even_out,
    hints=(
        "Two parts: one division before the loop, and one polynomial inside it.",
        "The divisor is singular.square().sum().sqrt(). After it, no value is above 1.",
        "In each step: s = a * s + b * s**3 + c * s**5. The next step begins with the new s.",
    ),
    explanation="Near 0 a step multiplies by a: 1.5 for the cubic, 3.44 for the quintic. The cubic settles at 1 exactly; the quintic hurries, and then wanders between about 0.7 and 1.2. For an optimizer that is good enough, and from 0.01 it needs 4 steps to pass 0.7, the cubic 11.",
    look=DIRECTIONS_OF,
    mistakes=(
        Mistake("not divided first", "You skipped the division. The polynomial is made for values up to 1; larger ones run away.",
                edit=(f"singular / {_FROBENIUS}", "singular")),
        Mistake("divided by the largest", "You divided by the largest singular value. On a matrix that would need its singular values; the Frobenius norm needs only its entries. Here it is the root of the sum of the squares.",
                edit=(_FROBENIUS, "singular.max()")),
        Mistake("divided by the sum", "You divided by the sum of the singular values. The Frobenius norm is the root of the sum of their squares.",
                edit=(_FROBENIUS, "singular.sum()")),
        Mistake("the root is missing", "You divided by the sum of the squares. Take its square root.",
                edit=(_FROBENIUS, "singular.square().sum()")),
        Mistake("divided by the root mean square", "You took the mean of the squares. The Frobenius norm takes their sum.",
                edit=(_FROBENIUS, "singular.square().mean().sqrt()")),
        Mistake("divided in each step", "You divide before each step. Once, before the first, is enough; after that it undoes what the polynomial has done.",
                edit=((f"s = singular / {_FROBENIUS}", "s = singular"),
                      (f"s = {_POLYNOMIAL}", f"s = s / s.square().sum().sqrt()\ns = {_POLYNOMIAL}"))),
        Mistake("one step only", "The result is that of one step, however many were asked for. Does each of your steps go on from the result of the one before?",
                edit=("range(steps)", "range(min(steps, 1))")),
        Mistake("one step too many", "You took one step more than was asked for. With steps = 0 only the division is left.",
                edit=("range(steps)", "range(steps + 1)")),
        Mistake("powers 1, 2 and 3", "Your powers are 1, 2 and 3. Only odd ones keep the singular vectors: 1, 3 and 5.",
                edit=(_POLYNOMIAL, "a * s + b * s**2 + c * s**3")),
        Mistake("powers 0, 2 and 4", "Your powers are 0, 2 and 4. These are the factors by which s is multiplied: take them times s.",
                edit=(_POLYNOMIAL, "a + b * s**2 + c * s**4")),
        Mistake("coefficients in reverse", "You gave a to the fifth power and c to the first. a belongs to s itself.",
                edit=(_POLYNOMIAL, "c * s + b * s**3 + a * s**5")),
        Mistake("always the quintic", "You always take Muon's coefficients. Take the three that are given.",
                edit=("a, b, c = coefficients", "a, b, c = COEFFICIENTS")),
        Mistake("added to the old values", "You added the polynomial to s. It takes the place of s.",
                edit=(_POLYNOMIAL, "s + a * s + b * s**3 + c * s**5")),
    ),
)  # fmt: skip


def _diagonal(draw, shape):
    """Return a matrix with two uneven entries that stand out, so that the usual mistakes stay finite on it."""
    matrix = 0.03 * draw(*shape)
    matrix[0, 0] -= 1.0
    matrix[1, 1] += 0.4
    return matrix


def _probe_orthogonalized(answer):
    single = torch.zeros(2, 3)
    single[1, 2] = -4.0
    yield "a matrix with a single entry", answer(single, 5)
    draw = normal(20)
    square, wide = draw(3, 3), draw(2, 5)
    yield "3 x 3, one step", answer(square.clone(), 1)
    yield "2 x 5, one step", answer(wide.clone(), 1)
    yield "2 x 5, 10,000 times smaller", answer(wide / 10_000, 1)
    yield "2 x 5, 10,000 times larger", answer(wide * 10_000, 1)
    yield "all ones, 4 x 4, two steps", answer(torch.ones(4, 4), 2)
    yield "3 x 3, no step", answer(square.clone(), 0)
    for shape in ((3, 3), (2, 5), (6, 2)):
        yield (
            f"{shape[0]} x {shape[1]}, nearly diagonal, five steps",
            answer(_diagonal(draw, shape), 5),
        )


_LARGEST = "x / x.abs().max()"

ORTHOGONALIZED = Exercise(
    "orthogonalized", _probe_orthogonalized,
    hints=(
        "All singular values have to be at most about 1 before the first step. What does x.abs().max() promise about them? Try a matrix full of ones.",
        "A number that no singular value exceeds is the root of the sum of all squared entries, the Frobenius norm.",
        "x.norm() is the Frobenius norm of a matrix: x = x / x.norm().",
    ),
    explanation="A matrix of n × n ones has a largest entry of 1 and a singular value of n. The Frobenius norm is at least as large as every singular value. Usually it is far larger than the largest, which costs a step or two, but it is cheap.",
    tolerance=1e-3,  # five steps multiply the rounding of a small singular value by up to 500
    look=ORTHOGONALIZE,
    mistakes=(
        Mistake("still the largest entry", "You still divide by the largest entry. A singular value can be larger than every entry: a matrix of 4 × 4 ones has the singular value 4.",
                of="given"),
        Mistake("the largest value, with its sign", "You divide by the largest entry with its sign, which can even be 0 or negative. Take the Frobenius norm.",
                of="given", edit=(_LARGEST, "x / x.max()")),
        Mistake("not divided at all", "You removed the division. Then only gradients that happen to be small survive the first step.",
                edit=("x = x / x.norm()", "")),
        Mistake("divided by the largest singular value", "Dividing by the largest singular value is safe, and even the best one can do. But to find it costs more than the whole iteration; Muon divides by the Frobenius norm.",
                edit=("x.norm()", "torch.linalg.matrix_norm(x, ord=2)")),
        Mistake("each row by itself", "You divided each row by its own norm. That changes the singular vectors, and a sum of k rows of length 1 can have a singular value of root k. One number divides them all.",
                edit=("x.norm()", "x.norm(dim=1, keepdim=True)")),
        Mistake("each column by itself", "You divided each column by its own norm. That changes the singular vectors. One number divides them all.",
                edit=("x.norm()", "x.norm(dim=0, keepdim=True)")),
        Mistake("the root is missing", "You divided by the sum of the squares. Take its square root.",
                edit=("x.norm()", "x.square().sum()")),
        Mistake("the sum of the entries", "You divided by the sum of the absolute entries. That is safe but far too large, and the singular values begin too small. Take the root of the sum of the squares.",
                edit=("x.norm()", "x.abs().sum()")),
        Mistake("the root mean square", "You took the mean of the squared entries, so the divisor is too small by the root of their number. Take their sum.",
                edit=("x.norm()", "x.square().mean().sqrt()")),
        Mistake("divided in each step", "You divide in each step. Once, before the first, is enough; after that it makes the singular values small again.",
                edit=(("x = x / x.norm()", ""), ("gram = x @ x.T", "x = x / x.norm()\ngram = x @ x.T"))),
        Mistake("not transposed back", "A tall matrix comes back as a wide one. It was transposed at the start: transpose it back.",
                edit=("return x.T if tall else x", "return x")),
    ),
)  # fmt: skip


def _probe_directions(answer):
    ones = [torch.ones(1, 2) for _ in range(4)]
    yield "four gradients of 1, momentum 0.5", answer(ones, 0.5)
    draw = normal(21)
    several = [draw(2, 3) for _ in range(5)]
    for momentum in (0.9, 0.5, 0.0):
        yield f"five gradients, momentum {momentum}", answer([g.clone() for g in several], momentum)
    alone = [torch.eye(2), *(torch.zeros(2, 2) for _ in range(5))]
    yield "one gradient and then none, momentum 0.9", answer(alone, 0.9)
    yield "a single gradient, momentum 0.95", answer([draw(3, 1)], 0.95)


_BUFFER = "buffer = buffer.lerp(gradient, 1 - momentum)"
_AHEAD = "ahead = buffer.lerp(gradient, 1 - momentum)"

DIRECTIONS = Exercise(
    "directions", _probe_directions,
    hints=(
        "Write down the buffer after each of two steps, with gradients 1 and 0 and μ = 0.5. It should be 0.5 and then 0.25.",
        "One of the two lines changes more than the name on its left. Which methods of a tensor work in place?",
        "lerp_ with an underscore stores its result in the buffer. Remove the underscore.",
    ),
    explanation="The underscore made the look-ahead part of the memory: each step multiplied the old gradients by μ² instead of μ. Nothing crashes, and the loss even falls. It only falls more slowly than it could.",
    look=OPTIMIZER,
    mistakes=(
        Mistake("the buffer goes along", "Looking ahead still changes the buffer, so each gradient enters it twice, and the old ones fade with μ² instead of μ. The direction is a tensor of its own.",
                of="given"),
        Mistake("no look-ahead", "Your direction is the buffer itself, with each gradient in it once. That is plain momentum. Update the buffer first; Nesterov's direction then goes the share 1 − μ further to the same gradient.",
                edit=(_AHEAD, "ahead = buffer")),
        Mistake("ahead by the wrong share", "You look ahead by the share μ. The same gradient once more would move the buffer by 1 − μ.",
                edit=(_AHEAD, "ahead = buffer.lerp(gradient, momentum)")),
        Mistake("the buffer moves by the wrong share", "Your buffer moves by the share μ to each gradient. It should keep the share μ of itself, and move by 1 − μ.",
                edit=(_BUFFER, "buffer = buffer.lerp(gradient, momentum)")),
        Mistake("a sum instead of an average", "Your buffer adds the whole gradient, as SGD's momentum does. Here it is an average: the new gradient has the weight 1 − μ.",
                edit=(_BUFFER, "buffer = momentum * buffer + gradient")),
        Mistake("the whole gradient ahead", "You add the whole gradient to the share of the buffer, as SGD's Nesterov does. Here both are averages: the gradient has the weight 1 − μ in the direction, too.",
                edit=(_AHEAD, "ahead = momentum * buffer + gradient")),
        Mistake("corrected as in Adam", "You divided by 1 − μ^t, as Adam does. Muon leaves that out, since orthogonalizing makes all directions equally long.",
                edit=(_AHEAD, "ahead = buffer.lerp(gradient, 1 - momentum) / (1 - momentum ** (len(found) + 1))")),
        Mistake("it starts at the first gradient", "Your buffer starts as the first gradient. Muon's starts at zero. Its first direction is short, but orthogonalizing makes up for that.",
                edit=("torch.zeros_like(gradients[0])", "gradients[0]")),
        Mistake("one tensor for all steps", "All the directions in your list are the same tensor, changed in place by each step. Make a new one in each.",
                edit=((_BUFFER, "buffer.lerp_(gradient, 1 - momentum)"), (_AHEAD, "ahead = buffer"))),
    ),
)  # fmt: skip


def _probe_muon(answer):
    draw = normal(22)

    def on(label, shape, lr, momentum, decay, fresh=False):
        weight, gradient = draw(*shape), _diagonal(draw, shape)
        buffer = 0.5 * _diagonal(draw, shape)
        if fresh:
            buffer.zero_()
        after, kept = answer(weight, gradient, buffer, lr, momentum, decay)
        yield f"{label}: the weight", after
        yield f"{label}: the buffer", kept

    yield from on("3 x 3, the first step", (3, 3), 0.4, 0.9, 0.0, fresh=True)
    yield from on("3 x 3, a later step", (3, 3), 0.4, 0.9, 0.0)
    yield from on("2 x 6, with decay", (2, 6), 0.3, 0.8, 0.5)
    yield from on("6 x 2, with decay", (6, 2), 0.3, 0.8, 0.5)
    yield from on("4 x 3, momentum 0", (4, 3), 0.2, 0.0, 0.1)
    weight, small = draw(2, 4), 1e-2 * _diagonal(draw, (2, 4))
    after, kept = answer(weight, small, torch.zeros(2, 4), 0.3, 0.9, 0.0)
    yield "a small gradient: the weight", after
    yield "a small gradient: the buffer, times 100", [100 * x for x in kept.flatten().tolist()]
    after, kept = answer(draw(3, 2), torch.zeros(3, 2), torch.zeros(3, 2), 0.5, 0.95, 0.2)
    yield "a gradient of zeros: the weight", after
    yield "a gradient of zeros: the buffer", kept


_KEPT = "buffer = momentum * buffer + (1 - momentum) * gradient"
_LOOKED = "ahead = momentum * buffer + (1 - momentum) * gradient"
_SCALE = "math.sqrt(max(1, rows / columns))"
_DECAYED = "weight * (1 - lr * decay) - lr * scale * update"
_BACK = "update = x.T if rows > columns else x"

MUON_STEP = Exercise(
    "muon_step", _probe_muon,
    hints=(
        "Three parts, one after the other: two lines for the buffer and the direction, the iteration of exercise 2 on the direction, and one line for the weight.",
        "So that zeros stay zeros, divide by x.norm().clamp(min=1e-7).",
        "The last line is weight * (1 - lr * decay) - lr * math.sqrt(max(1, rows / columns)) * update, and the buffer beside it.",
    ),
    explanation="All directions in which the gradient can push get about the same step, also those in which it is weak. How long the gradient is makes no difference: only lr decides how far the weight goes.",
    look=OPTIMIZER,
    tolerance=1e-4,  # five steps multiply the rounding of a small singular value by up to 500
    mistakes=(
        Mistake("no look-ahead", "Your direction is the buffer itself, with this gradient in it once. Update the buffer first; the direction is then μ · buffer + (1 − μ) · gradient, with the new buffer.",
                edit=(_LOOKED, "ahead = buffer")),
        Mistake("the buffer goes along", "You return the direction as the buffer. Then each gradient enters it twice, and old ones fade with μ² instead of μ.",
                edit=(_LOOKED, _LOOKED + "\nbuffer = ahead")),
        Mistake("the whole gradient ahead", "You add the whole gradient to the share of the buffer, as SGD's Nesterov does. Here the gradient has the weight 1 − μ in the direction, too.",
                edit=(_LOOKED, "ahead = momentum * buffer + gradient")),
        Mistake("no momentum", "You orthogonalized the gradient alone, so the buffer has no effect on the weight.",
                edit=(_LOOKED, "ahead = gradient")),
        Mistake("a sum instead of an average", "Your buffer adds the whole gradient, as SGD's momentum does. Here the new gradient has the weight 1 − μ.",
                edit=(_KEPT, "buffer = momentum * buffer + gradient")),
        Mistake("μ and 1 − μ exchanged", "Your buffer keeps the share 1 − μ of itself. It should keep the share μ: with 0.95, nearly all.",
                edit=(_KEPT, "buffer = (1 - momentum) * buffer + momentum * gradient")),
        Mistake("the old buffer is returned", "The weight is right, but you return the buffer as it came. It would never fill.",
                edit=((_KEPT, "old = buffer\n" + _KEPT), ("update, buffer", "update, old"))),
        Mistake("not orthogonalized", "You subtracted the direction itself, which is SGD with momentum. Orthogonalize it first.",
                edit=(_BACK, "update = ahead")),
        Mistake("only divided by the norm", "You divided the direction by its norm, but took no step. Its singular values are as uneven as before.",
                edit=("range(5)", "range(0)")),
        Mistake("another number of steps", "You took another number of Newton-Schulz steps. Here it is five.",
                edit=("range(5)", "range(4)"), also=(("range(5)", "range(6)"), ("range(5)", "range(10)"))),
        Mistake("exactly orthogonal", "You made the direction exactly orthogonal. That is what the iteration aims at, and about as good, but here the five steps are asked for: they leave the singular values between 0.7 and 1.2.",
                edit=(_BACK, "u, _, v = torch.linalg.svd(ahead, full_matrices=False)\nupdate = (u @ v) * (ahead.norm() > 0)")),
        Mistake("the classic cubic", "You took the coefficients of the cubic. Muon's are in COEFFICIENTS.",
                edit=("a, b, c = COEFFICIENTS", "a, b, c = 1.5, -0.5, 0.0")),
        Mistake("not divided first", "You did not divide by the norm before the iteration, so large directions explode, and small ones never arrive.",
                edit=("x = x / x.norm().clamp(min=1e-7)", "")),
        Mistake("divided by the largest singular value", "You divided by the largest singular value. That is safe, but to find it costs more than the iteration; Muon divides by the Frobenius norm.",
                edit=("x.norm()", "torch.linalg.matrix_norm(x, ord=2)")),
        Mistake("divided by the largest entry", "You divided by the largest entry. A singular value can be larger than that: divide by the norm.",
                edit=("x.norm()", "x.abs().max()")),
        Mistake("0 divided by 0", "Where the direction is all zeros, you divide 0 by 0, and nan spreads to every weight. Let the divisor be at least a small number.",
                edit=(".clamp(min=1e-7)", "")),
        Mistake("not transposed back", "A tall matrix comes out of your iteration transposed, and does not fit its weight.",
                edit=(_BACK, "update = x")),
        Mistake("in bfloat16", "You orthogonalized in bfloat16, as PyTorch does. It is fine for training, but has only three digits: calculate in float32 here.",
                edit=(("ahead.T if rows > columns else ahead", "(ahead.T if rows > columns else ahead).bfloat16()"),
                      (_BACK, "update = (x.T if rows > columns else x).float()"))),
        Mistake("not scaled by the shape", "You forgot the shape. A tall matrix gets the step times the root of rows over columns.",
                edit=(_SCALE, "1.0")),
        Mistake("scaled by columns over rows", "You scale wide matrices, and leave the tall ones alone. It is rows over columns.",
                edit=(_SCALE, "math.sqrt(max(1, columns / rows))")),
        Mistake("scaled without the root", "You scaled by rows over columns. Take the square root.",
                edit=(_SCALE, "max(1, rows / columns)")),
        Mistake("wide matrices are scaled down", "A wide matrix gets a smaller step from you. The factor is never below 1.",
                edit=(_SCALE, "math.sqrt(rows / columns)")),
        Mistake("scaled to match AdamW", "You scaled by 0.2 times the root of the longer side. That is the other convention, which takes over AdamW's learning rates. Here it is the root of rows over columns, at least 1.",
                edit=(_SCALE, "0.2 * math.sqrt(max(rows, columns))")),
        Mistake("no decay", "The weight does not decay.",
                edit=(_DECAYED, "weight - lr * scale * update")),
        Mistake("decay without the learning rate", "Your weight loses the share `decay` in each step. It is lr · decay, so that a schedule slows down both.",
                edit=(_DECAYED, "weight * (1 - decay) - lr * scale * update")),
        Mistake("the decay is scaled, too", "You scaled the decay by the shape as well. The shape concerns the orthogonal step only.",
                edit=(_DECAYED, "weight * (1 - lr * scale * decay) - lr * scale * update")),
        Mistake("the step decays, too", "You let the new weight decay, its step included. The decay takes its share of the old weight.",
                edit=(_DECAYED, "(weight - lr * scale * update) * (1 - lr * decay)")),
        Mistake("the decay goes through the iteration", "You added the decay to the gradient. After orthogonalizing, nobody can tell it apart from the gradient: shrink the weight directly.",
                edit=((_KEPT, "gradient = gradient + decay * weight\n" + _KEPT), (_DECAYED, "weight - lr * scale * update"))),
        Mistake("uphill", "You added the step. The gradient points uphill: subtract.",
                edit=(_DECAYED, "weight * (1 - lr * decay) + lr * scale * update")),
        Mistake("the weights grow", "Your decay makes the weights larger. They lose the share lr · decay.",
                edit=(_DECAYED, "weight * (1 + lr * decay) - lr * scale * update")),
    ),
)  # fmt: skip


def _models():
    """Yield small models of several kinds, each with a description."""
    from minigpt_lib.model import GPTConfig, MiniGPT  # the other exercises need no library

    torch.manual_seed(0)
    small: dict[str, Any] = {
        "vocab_size": 11,
        "max_seq_len": 6,
        "n_embd": 8,
        "n_layer": 2,
        "n_head": 2,
    }
    yield "a GPT-2 with a tied head", MiniGPT(GPTConfig(**small))
    llama: dict[str, Any] = small | {
        "position": "rope",
        "norm": "rms",
        "ffn": "swiglu",
        "bias": False,
    }
    yield "a Llama with a head of its own", MiniGPT(GPTConfig(**llama, tie_weights=False))

    both = MiniGPT(GPTConfig(**small, tie_weights=False))
    yield "learned positions and a head of its own", both

    frozen = MiniGPT(GPTConfig(**small, tie_weights=False))
    frozen.blocks[0].requires_grad_(False)
    frozen.embedding.requires_grad_(False)
    yield "a model whose first block and embedding are frozen", frozen

    mixed = MiniGPT(GPTConfig(**llama))
    mixed.blocks[1].register_parameter("experts", torch.nn.Parameter(torch.zeros(2, 8, 8)))
    mixed.blocks[1].register_parameter("gain", torch.nn.Parameter(torch.ones(())))
    mixed.blocks[0].register_parameter("mix", torch.nn.Parameter(torch.zeros(11, 8)))
    yield "blocks with one more matrix, a stack of matrices and a scalar", mixed


def _probe_names(answer):
    for label, model in _models():
        matrices, others = answer(list(model.named_parameters()))
        yield f"{label}: for Muon", matrices
        yield f"{label}: for AdamW", others


_RULE = 'name.startswith("blocks.") and weight.ndim == 2'
_FROZEN = "if not weight.requires_grad:\n            continue"

MUON_NAMES = Exercise(
    "muon_names", _probe_names,
    hints=(
        "Print the names and shapes of a small model. Which beginning do the names of all weights in the blocks have?",
        'Three questions, in this order: is weight.requires_grad true, does its name start with "blocks.", and is weight.ndim equal to 2?',
        'if name.startswith("blocks.") and weight.ndim == 2, then it is for Muon, otherwise for AdamW; frozen weights were skipped before.',
    ),
    explanation="A row of an embedding stands for one token, and a row of the head, too. They are tables rather than maps between hidden vectors, and most rows are rare. AdamW gives each entry a rate of its own, which suits them.",
    look=GROUPS,
    mistakes=(
        Mistake("every matrix", "You gave all matrices to Muon, embeddings and head included. Only those inside the blocks are meant.",
                edit=(_RULE, "weight.ndim == 2")),
        Mistake("the head goes to Muon", "You gave the head to Muon. It is a linear layer, but each of its rows stands for a token: it belongs to AdamW.",
                edit=(_RULE, 'weight.ndim == 2 and name.startswith(("blocks.", "head."))')),
        Mistake("the positions go to Muon", "You gave the position embeddings to Muon. They are a table with a row for each place: AdamW takes them.",
                edit=(_RULE, 'weight.ndim == 2 and name.startswith(("blocks.", "position."))')),
        Mistake("only the token embedding is left out", "You left out the token embedding only. Position embeddings and the head are tables, too.",
                edit=(_RULE, 'weight.ndim == 2 and name != "embedding.weight"')),
        Mistake("vectors, too", "You gave everything in the blocks to Muon. Norms and biases are vectors, and cannot be orthogonalized.",
                edit=(_RULE, 'name.startswith("blocks.")')),
        Mistake("by the name alone", "You asked whether a name ends with weight. The gain of a norm does, too: look at the number of dimensions.",
                edit=(_RULE, 'name.startswith("blocks.") and name.endswith("weight")')),
        Mistake("stacks of matrices, too", "You gave Muon a weight with three dimensions. Exactly two are asked for.",
                edit=(_RULE, 'name.startswith("blocks.") and weight.ndim >= 2')),
        Mistake("frozen weights", "You listed frozen weights. An optimizer should not get weights with requires_grad=False.",
                edit=(_FROZEN, "")),
        Mistake("frozen weights go to AdamW", "You gave the frozen weights to AdamW. They go to neither.",
                edit=((_FROZEN, ""),
                      (_RULE, _RULE + " and weight.requires_grad"))),
        Mistake("the lists exchanged", "You returned the names for AdamW first.",
                edit=("return matrices, others", "return others, matrices")),
        Mistake("one layer only", "You looked at the first block only.",
                edit=('"blocks."', '"blocks.0."')),
        Mistake("only attention", "You left the feed-forward layers to AdamW. Their matrices are maps between hidden vectors, too.",
                edit=(_RULE, '".attention." in name and weight.ndim == 2')),
        Mistake("in alphabetical order", "You sorted the names. They keep the order of the list.",
                edit=("return matrices, others", "return sorted(matrices), sorted(others)")),
    ),
)  # fmt: skip


def _probe_share(answer):
    for total, warmup, cooldown in (
        (12, 4, 5),
        (30, 12, 15),
        (10, 1, 2),
        (10, 0, 4),
        (10, 3, 0),
        (9, 4, 5),
        (6, 0, 6),
        (4, 4, 0),
        (3, 0, 0),
    ):
        label = f"{total} steps, {warmup} of warm-up, {cooldown} of cool-down"
        yield label, [answer(step, total, warmup, cooldown) for step in range(total)]


_FALL = "left / cooldown"

PLATEAU = Exercise(
    "plateau_share", _probe_share,
    hints=(
        "How many steps are left at the last step, this one included? total - step is 1 there.",
        "Rising: (step + 1) / warmup. Falling: (total - step) / cooldown. Which conditions tell that you are in one of them?",
        "if step < warmup, return (step + 1) / warmup; if total - step < cooldown, return (total - step) / cooldown; otherwise 1.",
    ),
    explanation="The plateau can be prolonged, and a checkpoint on it can be cooled down at any time. A cosine has to know its end from the start. A rate of exactly 0 would waste a step, at either end.",
    look=SCHEDULE,
    mistakes=(
        Mistake("the first step is lost", "Your first step has a rate of 0, so it changes nothing. It should have 1 / warmup: count it as the first.",
                edit=("(step + 1) / warmup", "step / warmup"), also=(("(step + 1) / warmup", "step / max(1, warmup - 1)"),)),
        Mistake("the last step is lost", "Your last step has a rate of 0, so it changes nothing. It should have 1 / cooldown.",
                edit=("left = total - step", "left = total - step - 1"), also=((_FALL, "(left - 1) / (cooldown - 1)"),)),
        Mistake("the cool-down begins too late", "Your rate is too high in the cool-down by one part: at the last step it should be 1 / cooldown.",
                edit=("left = total - step", "left = total - step + 1")),
        Mistake("no warm-up", "Your rate does not warm up.",
                edit=("if step < warmup:", "if step < 0:")),
        Mistake("no cool-down", "Your rate does not cool down.",
                edit=("if left < cooldown:", "if left < 0:")),
        Mistake("no plateau", "Your rate falls from the end of the warm-up on. It should stay at 1 until the last `cooldown` steps.",
                edit=(("if left < cooldown:", "if left < total - warmup:"), (_FALL, "left / (total - warmup)"))),
        Mistake("cooldown taken for a step", "You took `cooldown` for the step at which the rate begins to fall. It is the number of steps at the end.",
                edit=(("if left < cooldown:", "if step > cooldown:"), (_FALL, "left / (total - cooldown)"))),
        Mistake("a share of all steps", "You divided by `total`, so the rate jumps down at the start of the cool-down. Divide by `cooldown`.",
                edit=(_FALL, "left / total")),
        Mistake("along a cosine", "Your rate falls along a cosine. Here it falls in equal parts.",
                edit=(_FALL, "(1 - math.cos(math.pi * left / cooldown)) / 2")),
        Mistake("along a root", "Your rate falls along a root. That is a good schedule, too, but here it falls in equal parts.",
                edit=(_FALL, "1 - math.sqrt(1 - left / cooldown)")),
        Mistake("one part too many", "You divided the rise into one part more than it has steps, so the last step of the warm-up is not yet at 1.",
                edit=("(step + 1) / warmup", "(step + 1) / (warmup + 1)")),
        Mistake("a lower bound", "Your rate stops falling at a tenth, as chapter 10's cosine does. Here the last step has 1 / cooldown, however little that is.",
                edit=(_FALL, "max(0.1, left / cooldown)")),
        Mistake("upside down", "Your rate begins the cool-down near 0 and ends it near 1.",
                edit=(_FALL, "1 - left / cooldown")),
    ),
)  # fmt: skip


def _probe_cap(answer):
    draw = normal(23)
    for label, logits, targets, cap in (
        ("one logit of 2, one of 0, cap 2", torch.tensor([[2.0, 0.0]]), [1], 2.0),
        ("3 tokens, cap 5", 3 * draw(3, 4), [1, 0, 3], 5.0),
        ("4 tokens, cap 15", 10 * draw(4, 6), [5, 2, 2, 0], 15.0),
        ("2 tokens far beyond a cap of 1", 20 * draw(2, 3), [0, 2], 1.0),
    ):
        loss, gradient = answer(logits, torch.tensor(targets), cap)
        yield f"{label}: the loss", torch.as_tensor(loss)
        yield f"{label}: the gradient", torch.as_tensor(gradient)


_SLOPES = "1 - bent.square()"
_BENT = "(logits / cap).tanh()"

SOFT_CAP = Exercise(
    "soft_capped_loss", _probe_cap,
    hints=(
        "Three factors: how the loss depends on a capped logit, how the cap depends on tanh, and how tanh depends on the raw logit.",
        "For the capped logits the gradient is that of every cross-entropy: (softmax of them - one-hot) / N.",
        "The slope of cap * tanh(z / cap) is cap * (1 - tanh²) / cap = 1 - tanh². Multiply by it.",
    ),
    explanation="The slope is 1 at 0 and fades beyond the cap. A logit that is far outside hardly learns, whichever way it should go, so the cap has to be generous. Gemma 2 took 30.",
    look=MODEL,
    mistakes=(
        Mistake("the gradient goes around the cap", "Your gradient is that of the capped logits. Go on to the raw ones: multiply by the slope of the cap.",
                edit=("errors / len(targets) * slopes", "errors / len(targets)")),
        Mistake("the slope times the cap", "You forgot the inner division: tanh(z / cap) changes 1 / cap times as fast as z, and that cancels the cap in front.",
                edit=(_SLOPES, "cap * (1 - bent.square())")),
        Mistake("the slope over the cap", "You forgot the cap in front of tanh: it cancels the 1 / cap inside.",
                edit=(_SLOPES, "(1 - bent.square()) / cap")),
        Mistake("the square of the capped logit", "You squared the capped logit. The slope is 1 minus the square of tanh, without the cap in front.",
                edit=(_SLOPES, "1 - capped.square()")),
        Mistake("the square is missing", "The slope of tanh is 1 minus its square.",
                edit=(_SLOPES, "1 - bent")),
        Mistake("the slope at the raw logit", "You took the slope at z. It is taken where tanh is: at z / cap.",
                edit=(_SLOPES, "1 - logits.tanh().square()")),
        Mistake("not divided before tanh", "You capped z itself: cap · tanh(z). Then small logits are stretched by the cap. Divide by the cap first.",
                edit=(_BENT, "logits.tanh()")),
        Mistake("not multiplied after tanh", "Your logits lie between −1 and 1. Multiply by the cap after tanh.",
                edit=("capped = cap * bent", "capped = bent")),
        Mistake("a hard cap", "You cut the logits off. Beyond the cap the gradient is then exactly 0, and such a logit never comes back.",
                edit=(("capped = cap * bent", "capped = logits.clamp(-cap, cap)"), (_SLOPES, "(logits.abs() <= cap).float()"))),
        Mistake("the loss without the cap", "Your loss is that of the raw logits.",
                edit=("F.cross_entropy(capped, targets)", "F.cross_entropy(logits, targets)")),
        Mistake("the softmax of the raw logits", "The loss is right, but in the gradient you took the softmax of the raw logits. The model's probabilities are those after the cap.",
                edit=("capped.softmax(dim=1)", "logits.softmax(dim=1)")),
        Mistake("no cap at all", "That is the plain cross-entropy and its gradient. Cap the logits first.",
                edit=((_BENT, "(logits * 0.0)"), ("capped = cap * bent", "capped = logits"))),
        Mistake("not divided by N", "Your gradient is that of the sum. The loss is a mean over the N tokens.",
                edit=("errors / len(targets)", "errors")),
        Mistake("the sum over the tokens", "You added up the loss and its gradient. Return the mean over the N tokens.",
                edit=(("F.cross_entropy(capped, targets)", 'F.cross_entropy(capped, targets, reduction="sum")'), ("errors / len(targets)", "errors"))),
        Mistake("divided by all logits", "You divided by N · V. The mean runs over the N tokens.",
                edit=("errors / len(targets)", "errors / logits.numel()")),
        Mistake("the sign", "Your gradient points the other way. It is softmax minus one-hot.",
                edit=("return loss, errors", "return loss, -errors")),
        Mistake("the one-hot is missing", "You took the softmax alone. The gradient is softmax minus 1 at the target.",
                edit=("- F.one_hot(targets, logits.shape[1])", "")),
    ),
)  # fmt: skip


def _probe_qk(answer):
    one = torch.tensor([[[[3.0, 4.0], [0.0, 2.0]]]])
    yield "two tokens, D = 2", answer(one.clone(), one.clone(), 0.0)
    draw = normal(24)
    q, k = draw(2, 3, 4, 6) + 0.5, 2 * draw(2, 3, 4, 6) + 0.3
    yield "2 texts, 3 heads, 4 tokens, D = 6", answer(q.clone(), k.clone(), 1e-6)
    yield "keys 100 times as large", answer(q.clone(), 100 * k, 1e-6)
    yield "eps = 0.5", answer(q.clone(), k.clone(), 0.5)
    q, k = draw(1, 2, 3, 16), draw(1, 2, 3, 16)
    k[:, :, 1] *= 10
    k[:, :, 0] = 3 * q[:, :, 0]
    q[:, 1] *= 5
    yield "one head louder, one key longer, one along its query", answer(q, k, 1e-5)


_Q = "(q.square().mean(dim=-1, keepdim=True) + eps).sqrt()"
_K = "(k.square().mean(dim=-1, keepdim=True) + eps).sqrt()"
_SCORES = "q @ k.transpose(-2, -1) / math.sqrt(D)"


def _both(before, after):
    """Return the same edit for queries and for keys."""
    return tuple((before.format(x=x), after.format(x=x)) for x in "qk")


_X = "({x}.square().mean(dim=-1, keepdim=True) + eps).sqrt()"

QK_NORM = Exercise(
    "qk_norm_scores", _probe_qk,
    hints=(
        "Norm each last dimension by itself: mean(dim=-1, keepdim=True) over D.",
        "q / (q.square().mean(dim=-1, keepdim=True) + eps).sqrt(), and the same with k.",
        "Then the scores are those of chapter 5: q @ k.transpose(-2, -1) / math.sqrt(D).",
    ),
    explanation="A normed query has the length root D, and a normed key, too. So a score is root D times the cosine of the angle between them, and never larger. No weight can make the softmax explode; a rotation changes no length, so it may come before or after.",
    look=RMS,
    mistakes=(
        Mistake("only the queries", "You normed the queries only. A long key still gets large scores.",
                edit=(_K, "1.0")),
        Mistake("only the keys", "You normed the keys only. A long query still gets large scores.",
                edit=(_Q, "1.0")),
        Mistake("not normed", "These are plain scores: neither queries nor keys are normed.",
                edit=((_Q, "1.0"), (_K, "1.0"))),
        Mistake("length 1", "You divided by the length, so all scores are at most 1 / root D, and the softmax can hardly choose. The root mean square gives a vector the length root D.",
                edit=_both(_X, "({x}.square().sum(dim=-1, keepdim=True) + eps).sqrt()")),
        Mistake("the mean is subtracted", "You subtracted the mean, as LayerNorm does. An RMS norm leaves it alone.",
                edit=_both(f"{{x}} / {_X}", "({x} - {x}.mean(dim=-1, keepdim=True)) / ({x}.var(dim=-1, keepdim=True, correction=0) + eps).sqrt()")),
        Mistake("over the tokens", "You took the mean over the tokens. Each token has a query of its own: the mean runs over D, the last dimension.",
                edit=_both(_X, "({x}.square().mean(dim=-2, keepdim=True) + eps).sqrt()")),
        Mistake("over all heads", "You took one mean over all heads. Each head is normed by itself.",
                edit=_both(_X, "({x}.square().mean(dim=(1, 3), keepdim=True) + eps).sqrt()"), look=ROOT),
        Mistake("over tokens and widths", "You took one mean over all tokens of a head. Each token is normed by itself.",
                edit=_both(_X, "({x}.square().mean(dim=(2, 3), keepdim=True) + eps).sqrt()")),
        Mistake("one number for everything", "You divided everything by one number. Each query has a root mean square of its own.",
                edit=_both(_X, "({x}.square().mean() + eps).sqrt()")),
        Mistake("the root is missing", "You divided by the mean square. Take its root.",
                edit=_both(_X, "({x}.square().mean(dim=-1, keepdim=True) + eps)")),
        Mistake("the square is missing", "You took the mean of the absolute numbers. It is the root of the mean of the squares.",
                edit=_both(_X, "({x}.abs().mean(dim=-1, keepdim=True) + eps)")),
        Mistake("eps outside the root", "You added eps after the root. It belongs to the mean square, inside.",
                edit=_both(_X, "({x}.square().mean(dim=-1, keepdim=True).sqrt() + eps)"), look='chapter 7, "Break it: eps outside the root"'),
        Mistake("no eps", "You left eps out, or took a tiny one of your own. It keeps a vector of zeros from becoming nan: take the one that is given.",
                edit=_both(_X, "{x}.square().mean(dim=-1, keepdim=True).sqrt()")),
        Mistake("not divided by root D", "You forgot to divide the scores by the root of D.",
                edit=(_SCORES, "q @ k.transpose(-2, -1)"), look=ROOT),
        Mistake("divided by D", "You divided by D. It is the root of D. (With D, the score is the cosine of the angle.)",
                edit=("/ math.sqrt(D)", "/ D"), look=ROOT),
        Mistake("queries and keys exchanged", "Your rows are keys. Each row of the scores belongs to a query.",
                edit=(_SCORES, "k @ q.transpose(-2, -1) / math.sqrt(D)")),
        Mistake("the scores are normed", "You normed the scores. The queries and the keys are normed, before they meet.",
                edit=((_Q, "1.0"), (_K, "1.0"),
                      ("return " + _SCORES, "s = q @ k.transpose(-2, -1) / math.sqrt(D)\nreturn s / (s.square().mean(dim=-1, keepdim=True) + eps).sqrt()"))),
        Mistake("the softmax is taken", "You went on to the weights. Return the scores, before the softmax.",
                edit=("return " + _SCORES, "return (q @ k.transpose(-2, -1) / math.sqrt(D)).softmax(dim=-1)")),
    ),
)  # fmt: skip


def _probe_time(answer):
    for label, seconds, losses, target in (
        ("3 after 10 s, 2 after 30 s", [10.0, 30.0], [3.0, 2.0], 2.5),
        ("a target close to the later loss", [10.0, 30.0], [3.0, 2.0], 2.1),
        ("reached in the third interval", [1.0, 4.0, 9.0, 13.0], [4.2, 3.3, 2.9, 2.5], 2.8),
        ("exactly at a measurement", [5.0, 10.0, 25.0, 30.0], [3.0, 2.0, 1.5, 1.2], 2.0),
        ("up again afterwards", [2.0, 4.0, 6.0, 8.0, 10.0], [3.0, 1.9, 2.6, 1.8, 1.7], 2.2),
        ("touched, and up again", [2.0, 5.0, 6.0], [3.0, 2.0, 2.5], 2.0),
        ("up first", [2.0, 4.0, 6.0, 8.0], [3.0, 3.5, 2.5, 2.0], 2.75),
        ("nearly there at first", [2.0, 4.0, 8.0], [3.0, 2.04, 1.6], 2.0),
        ("at once", [7.0, 9.0], [1.5, 1.4], 1.9),
        ("at once, and up again", [7.0, 9.0, 11.0], [1.5, 2.4, 1.2], 1.9),
        ("never", [5.0, 10.0, 15.0], [3.0, 2.5, 2.4], 2.2),
        ("a single measurement, too high", [4.0], [3.0], 2.2),
        ("a single measurement, low enough", [4.0], [2.0], 2.2),
    ):
        yield f"{label}, target {target}", answer(list(seconds), list(losses), target)


_SHARE = "(losses[i - 1] - target) / (losses[i - 1] - loss)"
_LINE = "seconds[i - 1] + share * (seconds[i] - seconds[i - 1])"
_LATER = "losses[j] <= target < losses[j - 1] for j in range(i + 1, len(losses))"
_PROLONGED = """if len(losses) > 1:
    fall = (losses[-2] - losses[-1]) / (seconds[-1] - seconds[-2])
    return seconds[-1] + (losses[-1] - target) / fall
return None"""


def _interpolated(seconds, losses, target):
    if min(losses) > target:
        return None
    return float(np.interp(target, losses[::-1], seconds[::-1]))


TIME = Exercise(
    "time_to_loss", _probe_time,
    hints=(
        "Walk through the losses until one is at most the target. The crossing lies between it and the one before.",
        "How far along the interval is it? (loss before - target) / (loss before - this loss).",
        "Return seconds[i - 1] + share * (seconds[i] - seconds[i - 1]); seconds[0] if i is 0; None after the loop.",
    ),
    explanation="A run that never gets there has no time, and its last second would flatter it. (The library returns infinity, which comes last in every order.) Noise makes the first crossing early, and the more often you look, the earlier. So two recipes have to be measured equally often, and on the same data.",
    look=RUN,
    mistakes=(
        Mistake("not interpolated", "You return the time of the measurement after the crossing. Draw a straight line from the one before.",
                edit=(_LINE, "seconds[i]")),
        Mistake("the measurement before", "You return the time of the last measurement above the target. Draw a straight line to the next one.",
                edit=(_LINE, "seconds[i - 1]")),
        Mistake("halfway", "You return the middle of the interval. Where the target lies between the two losses decides.",
                edit=(_SHARE, "0.5")),
        Mistake("from the wrong end", "Your share is measured from the lower end: it is the way that is left, not the way that is done.",
                edit=(_SHARE, "(target - loss) / (losses[i - 1] - loss)")),
        Mistake("time from 0", "You forgot to add the time at which the interval begins.",
                edit=(_LINE, "share * (seconds[i] - seconds[i - 1])")),
        Mistake("a share of the whole time", "You multiplied the share by the time of the later measurement. Multiply by the length of the interval.",
                edit=(_LINE, "seconds[i - 1] + share * seconds[i]")),
        Mistake("below, not at", "A loss that is equal to the target has reached it: at most counts, not below.",
                edit=("loss <= target", "loss < target")),
        Mistake("the last crossing", "You found the last crossing. The race was over at the first; whether the loss goes up again does not count.",
                edit=("if loss <= target:", f"if loss <= target and not any({_LATER}):")),
        Mistake("the first loss is skipped", "You began with the second measurement, so a run that was there at once is late, or never there.",
                edit=("if loss <= target:", "if loss <= target and i > 0:")),
        Mistake("at once takes no time", "You return 0 if the first measurement is low enough. It was measured at seconds[0].",
                edit=("return seconds[0]", "return 0.0")),
        Mistake("the last second instead of None", "The target was never reached, and you return the time of the last measurement. Then a run that gives up early wins: return None.",
                edit=("return None", "return seconds[-1]")),
        Mistake("infinity instead of None", "The target was never reached, and you return infinity. Return None, as the task says.",
                edit=("return None", "return math.inf")),
        Mistake("extrapolated", "The target was never reached, and you prolonged the last line. Nobody knows how the run would have gone on: return None.",
                edit=("return None", _PROLONGED)),
        Mistake("searched as if it were sorted", "You searched the losses as if they only ever fell, as bisect and np.interp do. A real loss also rises: walk through it from the start.",
                answer=_interpolated),
        Mistake("the index instead of the time", "You return which measurement it was. Return seconds.",
                edit=(("return seconds[0]", "return i"), (_LINE, "i"))),
    ),
)  # fmt: skip


def _probe_paired(answer):
    warm = [61.0, 64.5, 70.2, 78.9, 83.1]  # the machine grows slower, and both with it
    short = [31.0, 30.6, 30.1, 32.2]
    small = [0.3, 0.4, 0.2, 0.5, 0.1, 0.4, 0.3, 0.2, 0.6, 0.3]
    mixed = [0.2, -0.9, -0.3, 0.6, -1.3, -0.6, -1.8, 0.0, -1.1, -0.4]
    base = [40.0 + 3 * (i % 4) for i in range(10)]
    for label, ours, theirs in (
        ("differences of -1 and -3 s", [10.0, 11.0], [11.0, 14.0]),
        (
            "2 s less in each of five pairs, on a machine that grows slower",
            [t - d for t, d in zip(warm, (2.1, 1.8, 2.2, 1.7, 2.0))],
            warm,
        ),
        (
            "2 s more in each of five pairs",
            [t + d for t, d in zip(warm, (2.1, 1.6, 2.2, 1.9, 2.3))],
            warm,
        ),
        ("no difference to be seen", [50.1, 49.2, 51.0, 50.4], [49.8, 49.9, 50.6, 50.9]),
        ("nearly shown", short, [32.0, 31.0, 30.8, 32.3]),
        ("barely shown", short, [32.0, 31.1, 30.9, 32.5]),
        ("nearly shown to be slower", [32.0, 31.0, 30.8, 32.3], short),
        ("one run that went wrong", [20.0, 20.5, 19.8, 90.0], [25.0, 25.2, 25.1, 24.9]),
        ("ten small differences", [t - d for t, d in zip(base, small)], base),
        ("ten mixed differences", [t + d for t, d in zip(base, mixed)], base),
        (
            "six, not quite shown",
            [21.05, 22.25, 20.35, 19.95, 23.65, 21.15],
            [20, 22, 19, 20, 23, 21],
        ),
        ("three that agree", [20.0, 21.0, 22.0], [21.0, 22.1, 23.4]),
    ):
        pair = (torch.tensor(seconds, dtype=torch.float64) for seconds in (ours, theirs))
        p, verdict = answer(*pair)
        yield f"{label}: p", p
        yield f"{label}: the verdict", verdict


_ERROR = "differences.std() / math.sqrt(n)"
_P = "2 * upper_tail(abs(t), n - 1)"
_N = "n = len(differences)"

PAIRED = Exercise(
    "paired_verdict", _probe_paired,
    hints=(
        "Everything is about the differences: ours - theirs, their mean, and their standard deviation, differences.std().",
        "t = differences.mean() / (differences.std() / math.sqrt(n)). One side is upper_tail(abs(t), n - 1); there are two.",
        'p = 2 * upper_tail(abs(t), n - 1). Above or at 0.05 it is "not shown", otherwise the sign of t decides.',
    ),
    explanation="What both runs of a pair share, such as a machine that grows warm, drops out of their difference. Don't read too much into it: \"not shown\" isn't \"equally fast\", p is not the probability that you are right, and of twenty changes that do nothing, one on average will look as if it did something.",
    look=TEST,
    tolerance=1e-4,
    mistakes=(
        Mistake("not paired", "You compared the two means as if the runs had nothing to do with each other. Then a machine that grows warm hides a difference which every single pair shows. Test the differences.",
                edit=((_ERROR, "((ours.var() + theirs.var()) / n).sqrt()"), (_P, "2 * upper_tail(abs(t), 2 * n - 2)"))),
        Mistake("not paired, with n − 1", "You took the errors of the two means together. The runs are pairs: take the standard deviation of their differences.",
                edit=(_ERROR, "((ours.var() + theirs.var()) / n).sqrt()")),
        Mistake("n degrees of freedom", "You took n degrees of freedom. The mean was estimated from the same differences, so n - 1 are left.",
                edit=(_P, "2 * upper_tail(abs(t), n)")),
        Mistake("2 n − 2 degrees of freedom", "2 n - 2 degrees of freedom belong to two separate samples. There are n differences, so n - 1 are left.",
                edit=(_P, "2 * upper_tail(abs(t), 2 * n - 2)")),
        Mistake("n below", "Your standard deviation divides by n. With few runs that makes it too small: n - 1.",
                edit=(_ERROR, "differences.std(correction=0) / math.sqrt(n)")),
        Mistake("the root of n is missing", "You divided by the standard deviation of one difference. Their mean varies less, by the root of n.",
                edit=(_ERROR, "differences.std()")),
        Mistake("the root of n − 1", "You divided by the root of n - 1. The n - 1 is in the standard deviation already; the error of a mean has the root of n.",
                edit=(_ERROR, "differences.std() / math.sqrt(n - 1)")),
        Mistake("n instead of its root", "You divided the standard deviation by n. It is the root of n.",
                edit=(_ERROR, "differences.std() / n")),
        Mistake("the variance", "You took the variance. Student's t has the standard deviation.",
                edit=(_ERROR, "differences.var() / math.sqrt(n)")),
        Mistake("one side", "You counted one side only, after you had seen which side it is. That halves p, and doubles the false alarms: take both.",
                edit=(_P, "upper_tail(abs(t), n - 1)")),
        Mistake("one side, chosen beforehand", "You counted one side only, so a difference on the other side has a p near 1. Both sides count: 2 * upper_tail(abs(t), n - 1).",
                edit=(_P, "upper_tail(-t, n - 1)"), also=((_P, "upper_tail(t, n - 1)"),)),
        Mistake("the sign of t is kept", "For a negative t, upper_tail is more than a half, and your p is above 1. Take abs(t).",
                edit=("abs(t)", "t")),
        Mistake("a normal distribution", "You took the normal distribution. With few runs the standard deviation itself is uncertain, and Student's t allows for that.",
                edit=(_P, "math.erfc(abs(t) / math.sqrt(2))")),
        Mistake("the probability that it is true", "You returned 1 - p. That is not the probability of a difference, and neither is p the probability of none.",
                edit=("return p, \"faster\"", "return 1 - p, \"faster\""), also=(("return p, \"not shown\"", "return 1 - p, \"not shown\""),
                      (("return p, \"faster\"", "return 1 - p, \"faster\""), ("return p, \"not shown\"", "return 1 - p, \"not shown\"")))),
        Mistake("faster and slower exchanged", "Fewer seconds are faster.",
                edit=("t < 0", "t > 0")),
        Mistake("a verdict without a test", "You let the mean alone decide. Where p is 0.05 or more, nothing was shown.",
                edit=("if p >= 0.05:", "if False:")),
        Mistake("equal is claimed", "You call two recipes equal where the test found nothing. Four noisy runs find nothing about large differences, too: \"not shown\" is all that may be said.",
                edit=('"not shown"', '"equal"')),
        Mistake("p above the threshold counts", "You took a large p for a success. A small one says that such differences are rare by chance.",
                edit=("p >= 0.05", "p < 0.05")),
        Mistake("another threshold", "Your threshold is not 0.05. It is fixed before the runs, and not moved after them.",
                edit=("p >= 0.05", "p >= 0.1"), also=(("p >= 0.05", "p >= 0.01"),)),
        Mistake("shares instead of seconds", "You tested the shares ours / theirs. That is a fair question, too, but here the seconds were asked for.",
                edit=("ours - theirs", "ours / theirs - 1"), also=(("ours - theirs", "(ours / theirs).log()"),)),
    ),
)  # fmt: skip
