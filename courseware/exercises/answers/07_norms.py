"""Chapter 07: LayerNorm, RMSNorm in half precision, a norm folded into a layer, and a pre-norm stack with a bug."""

import torch

from courseware.exercises import Exercise, Mistake, normal

LAYER = 'chapter 7, "LayerNorm"'
RMS = 'chapter 7, "RMSNorm: leave the mean alone"'
EPS = 'chapter 7, "Break it: eps outside the root"'
HALF = 'chapter 7, "Half the bits, wrong statistics"'
GROWTH = 'chapter 7, "How the stream grows"'


def _probe_layer(answer):
    plain = torch.ones(3), torch.zeros(3)
    yield "the vector (1, 3, 5)", answer(torch.tensor([1.0, 3.0, 5.0]), *plain)

    tokens = torch.tensor([[[1.0, 3, 8], [0.5, -2, 0]], [[101.0, 103, 108], [5.0, 5.5, -9]]])
    weight, bias = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0.0, 0.5, 10.0])
    yield "four tokens, with a weight and a bias", answer(tokens, weight, bias)

    yield "a vector of size 0.0001", answer(torch.tensor([-1e-4, 0.0, 1e-4]), *plain)
    yield "a vector of zeros", answer(torch.zeros(3), *plain)
    yield "eps = 0.5", answer(torch.tensor([1.0, 3.0, 5.0]), *plain, 0.5)


LAYER_NORM = Exercise(
    "layer_norm", _probe_layer,
    hints=(
        "Treat each vector, the last axis of x, by itself: subtract its mean, divide by its typical size.",
        "The variance is the mean of the squared deviations, divided by C, not by C - 1. keepdim=True keeps the axis, so that shapes fit.",
        "y = centred / sqrt(variance + eps) * weight + bias: eps is added before the root is taken.",
    ),
    explanation="eps inside the root divides a vector of tiny numbers by sqrt(eps) and leaves it small, and gives a vector of zeros a finite gradient.",
    look=LAYER,
    mistakes=(
        Mistake("eps outside the root", "You added eps to the standard deviation, after the root. On vectors of size 0.0001 your result is 30 times too large.",
                edit=("torch.sqrt(variance + eps)", "(torch.sqrt(variance) + eps)"), look=EPS),
        Mistake("no eps", "A vector of zeros gives 0 / 0 = nan: eps is missing.",
                edit=("+ eps", ""), look=EPS),
        Mistake("unbiased variance", "You divided the sum of squares by C - 1, as torch's var and std do by default. LayerNorm divides by C.",
                edit=("square().mean(dim=-1, keepdim=True)", "square().sum(dim=-1, keepdim=True) / (x.shape[-1] - 1)")),
        Mistake("the wrong axis", "You took mean and variance over the first axis, so different texts are mixed. Each vector is the last axis: dim=-1.",
                edit=(("x.mean(dim=-1", "x.mean(dim=0"), ("square().mean(dim=-1", "square().mean(dim=0"))),
        Mistake("one mean for everything", "You took one mean and one variance over all numbers of x. Each vector needs its own: dim=-1, keepdim=True.",
                edit=(("x.mean(dim=-1, keepdim=True)", "x.mean()"), ("square().mean(dim=-1, keepdim=True)", "square().mean()"))),
        Mistake("the mean is not removed", "You divided by the root mean square without subtracting the mean: that is RMSNorm.",
                edit=("x - x.mean(dim=-1, keepdim=True)", "x"), look=RMS),
        Mistake("the root is forgotten", "You divided by the variance. (1, 3, 5) has variance 8/3 and typical size 1.633: take the root.",
                edit=("torch.sqrt(", "(")),
        Mistake("the weight is ignored", "You did not multiply by the weight.",
                edit=("* weight", "")),
        Mistake("the bias is ignored", "You did not add the bias.",
                edit=("+ bias", "")),
    ),
)  # fmt: skip


def _probe_rms(answer):
    one = torch.ones(3)
    small = torch.tensor([1e-4, 1e-4, -1e-4])
    plain = torch.tensor([1.0, 5.0, 7.0])
    large = torch.tensor([300.0, -100.0, -200.0])
    tokens = torch.tensor([[[1.0, 5, 7], [0.5, -2, 0]], [[9.0, 1, 2], [5.0, 5.5, -9]]])
    hundreds = torch.tensor([100.0, 101.5, 97.0, 113.0, 125.0, 90.5])
    weights = torch.tensor([1.0, 1.5, 3.0, -1.0, 0.75, 2.5])

    for label, x, weight in (
        ("the vector (1, 5, 7)", plain, one),
        ("four tokens, with a weight", tokens, torch.tensor([2.0, 0.5, -1.0])),
        ("a vector of size 0.0001", small, one),
        ("a vector of zeros", torch.zeros(3), one),
        ("(300, -100, -200) in float16", large.half(), one.half()),
        ("six numbers near 100 in bfloat16", hundreds.bfloat16(), weights.bfloat16()),
    ):
        y = answer(x.clone(), weight.clone())
        yield label, y
        yield f"{label}, dtype", str(y.dtype)

    yield "eps = 3", answer(plain, one, 3.0)


RMS_NORM = Exercise(
    "rms_norm", _probe_rms,
    hints=(
        "The size of a vector is the root of the mean of its squares. There is no mean to subtract and no bias to add.",
        "In float16, 300 squared is infinite. Compute in float32: x.float(), and come back at the end: .to(x.dtype).",
        "wide = x.float(); (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)",
    ),
    explanation="The statistics are float32, and the result is rounded once, at the very end, as PyTorch does. Llama's own code rounds before the weight as well.",
    look=RMS,
    mistakes=(
        Mistake("statistics in half precision", "In float16 the square of 300 is infinite and the whole vector becomes 0. Compute in float32, and narrow the result.",
                edit=(("x.float()", "x"), ("weight.float()", "weight")),
                also=(("wide.square().mean(dim=-1, keepdim=True)", "x.square().mean(dim=-1, keepdim=True).float()"),), look=HALF),
        Mistake("the result stays wide", "The values are right, but a float16 input came back as float32. Return x's own dtype.",
                edit=(".to(x.dtype)", ""), look=HALF),
        Mistake("the mean is removed", "You subtracted the mean: that is LayerNorm. RMSNorm keeps the direction of the vector and changes only its length.",
                edit=("scale =", "wide = wide - wide.mean(dim=-1, keepdim=True)\nscale =")),
        Mistake("eps outside the root", "You added eps after the root. On vectors of size 0.0001 your result is about 30 times too large.",
                edit=(("torch.rsqrt(", "1 / (torch.sqrt("), ("+ eps)", ") + eps)")), look=EPS),
        Mistake("no eps", "A vector of zeros gives 0 / 0 = nan: eps is missing.",
                edit=("+ eps", ""), look=EPS),
        Mistake("the root is forgotten", "You divided by the mean square, 25 for (1, 5, 7). Its root is 5.",
                edit=("torch.rsqrt(", "1 / (")),
        Mistake("sum instead of mean", "You took the root of the *sum* of squares, so the vector gets length 1. RMSNorm gives its numbers the size 1.",
                edit=("mean(", "sum(")),
        Mistake("one size for everything", "You took one root mean square over all tokens. Each vector needs its own: dim=-1, keepdim=True.",
                edit=("dim=-1, keepdim=True", "")),
    ),
)  # fmt: skip


def _probe_fold(answer):
    gain, shift = torch.tensor([2.0, 3.0]), torch.tensor([1.0, -1.0])
    weight, bias = torch.tensor([[5.0, 7.0], [1.0, 0.0]]), torch.tensor([10.0, 0.0])
    yield "the layer ((5, 7), (1, 0))", answer(gain, shift, weight, bias)

    draw = normal(8)
    for D, C in ((4, 4), (3, 5)):
        given = draw(C) + 2, draw(C), draw(D, C), draw(D)
        kept = [x.clone() for x in given]
        label = f"{C} channels in, {D} out"
        yield label, answer(*given)
        yield f"{label}: what you were given, afterwards", all(map(torch.equal, given, kept))


FOLD_NORM = Exercise(
    "fold_norm", _probe_fold,
    hints=(
        "Multiply the bracket out: which part of y depends on z, and which part is there when z is 0?",
        "Channel c of z meets gain[c] first and then column c of weight. The shift meets weight, too, but never the gain.",
        "new_weight = weight * gain scales the columns; new_bias = weight @ shift + bias, with the weight that you were given.",
    ),
    explanation="A gain is a diagonal matrix, and two matrices in a row are one. The model computes the same with one multiplication less.",
    look=LAYER,
    mistakes=(
        Mistake("the rows are scaled", "You multiplied the rows of weight by the gain. gain[c] belongs to channel c of what comes in, and that is column c.",
                edit=("weight * gain", "weight * gain[:, None]")),
        Mistake("the shift through the new weight", "You sent the shift through the scaled weight, so the gain multiplied it. In gain * z + shift, it does not.",
                edit=("weight @ shift", "(weight * gain) @ shift")),
        Mistake("the shift is forgotten", "Your bias is the old one. The shift goes through weight as well, and what comes out is the same for every z.",
                edit=("weight @ shift + bias", "bias.clone()")),
        Mistake("the old bias is forgotten", "Your bias is what the shift becomes. The layer's own bias has to be added.",
                edit=("weight @ shift + bias", "weight @ shift")),
        Mistake("the shift is added as it is", "You added the shift to the bias. It is added before the layer, so it goes through weight first.",
                edit=("weight @ shift", "shift")),
        Mistake("the gain is ignored", "Your new weight is the old one. Its columns should be multiplied by the gain.",
                edit=("weight * gain", "weight.clone()")),
        Mistake("the old bias is scaled", "You multiplied the layer's own bias by the gain. It is added after the gain has done its work.",
                edit=("weight @ shift + bias", "weight @ shift + bias * gain")),
        Mistake("the weight is transposed", "You returned weight.T, shape (C, D). Keep nn.Linear's order, (D, C).",
                edit=("weight * gain", "(weight * gain).T")),
        Mistake("the given weight is changed", "You changed the weight in place, so whoever gave it to you has lost it. Make a new tensor.",
                edit=("weight * gain", "weight.mul_(gain)")),
    ),
)  # fmt: skip


def _probe_stack(answer):
    def norm(x):
        size = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-5)
        return x * size * torch.tensor([1.0, 2.0, 0.5])

    draw = normal(7)
    branches = [lambda v, m=m: torch.tanh(v @ m) + 0.25 for m in draw(4, 3, 3)]
    x = 3 * draw(2, 5, 3)
    yield "no branch", answer(x.clone(), [], norm)
    yield "four branches", answer(x.clone(), list(branches), norm)


STACK = Exercise(
    "run_stack", _probe_stack,
    hints=(
        "In pre-norm the stream itself is only ever added to, until the very end. What does the buggy loop do to it?",
        "Follow one number of x through the loop: is there a path on which it meets only additions?",
        "Norm what the branch reads, not what flows past it: x = x + branch(norm(x)).",
    ),
    explanation="The norm sits inside the branch. The stream then has a path from end to beginning without a single norm on it, and that is why deep pre-norm stacks train.",
    look='chapter 7, "Where does the norm go?"',
    mistakes=(
        Mistake("the norm is on the stream itself", "x = norm(x) replaces the stream: you compute norm(x) + branch(norm(x)), and what flowed past has been rescaled.",
                of="given"),
        Mistake("normed twice", "The branch reads norm(x) now, but the line `x = norm(x)` is still there and rescales the stream. Remove it.",
                of="given", edit=("branch(x)", "branch(norm(x))")),
        Mistake("post-norm", "You norm after the addition: that is post-norm, as in the first transformer. Here norm(x) goes inside the branch.",
                edit=(("x + branch(norm(x))", "norm(x + branch(x))"), ("return norm(x)", "return x"))),
        Mistake("the branch's output is normed", "You norm what the branch returns. The branch should *read* a normed vector: branch(norm(x)).",
                edit=("branch(norm(x))", "norm(branch(x))")),
        Mistake("the last norm is missing", "The loop is right, but the stream has grown by the end: pre-norm needs one norm after the last branch.",
                edit=("return norm(x)", "return x"), look=GROWTH),
        Mistake("no norm in the branches", "The branches read the stream as it is, so what they add grows with it. They should read norm(x).",
                edit=("branch(norm(x))", "branch(x)"), look=GROWTH),
        Mistake("no residual connection", "The branch replaces the stream. It should be added: x + branch(norm(x)).",
                edit=("x + branch", "branch")),
    ),
)  # fmt: skip
