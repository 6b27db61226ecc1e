"""Exercises of chapter 07: LayerNorm, RMSNorm in half precision, and a pre-norm stack with a bug."""

from __future__ import annotations

import torch

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- LayerNorm ---


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * weight + bias


def _layer(eps_at="inside", unbiased=False, dim=-1, centre=True, root=True, affine=True, order=1):
    def answer(x, weight, bias, eps=1e-5):
        centred = x - x.mean(dim=dim, keepdim=True) if centre else x
        share = x.shape[-1] - 1 if unbiased else x.shape[-1]
        if dim == -1:
            variance = centred.square().sum(dim=-1, keepdim=True) / share
        else:
            variance = centred.square().mean(dim=dim, keepdim=True)
        if not root:
            y = centred / (variance + eps)
        elif eps_at == "inside":
            y = centred / torch.sqrt(variance + eps)
        elif eps_at == "outside":
            y = centred / (torch.sqrt(variance) + eps)
        else:
            y = centred / torch.sqrt(variance)
        if not affine:
            return y
        return y * weight + bias if order == 1 else (y + bias) * weight

    return answer


def _run_layer(answer):
    weight, bias = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0.0, 0.5, 10.0])
    plain = torch.ones(3), torch.zeros(3)
    yield "the vector (1, 3, 5)", answer(torch.tensor([1.0, 3.0, 5.0]), *plain)
    x = torch.tensor(
        [[[1.0, 3.0, 8.0], [0.5, -2.0, 0.0]], [[101.0, 103.0, 108.0], [5.0, 5.5, -9.0]]]
    )
    yield "four tokens, with a weight and a bias", answer(x, weight, bias)
    five = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0], [3.0, 0.0, -1.0, 0.5, 2.0]])
    yield "vectors of five numbers", answer(five, torch.ones(5), torch.zeros(5))
    small = torch.tensor([-1e-4, 0.0, 1e-4])
    yield "a vector of size 0.0001", answer(small, *plain)
    yield "a vector of zeros", answer(torch.zeros(3), *plain)
    yield "eps = 0.5", answer(torch.tensor([1.0, 3.0, 5.0]), *plain, 0.5)


LAYER_NORM = Exercise(
    name="layer_norm",
    chapter=7,
    title="LayerNorm by hand",
    minutes=15,
    difficulty=1,
    hints=(
        "Each vector, the last axis of x, is treated by itself: subtract its mean, divide by its typical size.",
        "The variance is the mean of the squared deviations, divided by C, not by C - 1. keepdim=True keeps the axis, so "
        "that shapes fit.",
        "y = centred / sqrt(variance + eps) * weight + bias: eps is added before the root is taken.",
    ),
    run=_run_layer,
    reference=layer_norm,
    explanation="eps inside the root divides a vector of tiny numbers by sqrt(eps) and leaves it small, and gives a vector of zeros a finite gradient.",
    wrong=(
        WrongAnswer(
            "eps outside the root",
            "You added eps to the standard deviation, after the root. On vectors of size 0.0001 your result is 30 times too large.",
            'chapter 7, "Break it: eps outside the root"',
            _layer(eps_at="outside"),
        ),
        WrongAnswer(
            "no eps",
            "A vector of zeros gives 0 / 0 = nan: eps is missing.",
            'chapter 7, "Break it: eps outside the root"',
            _layer(eps_at="none"),
        ),
        WrongAnswer(
            "unbiased variance",
            "You divided the sum of squares by C - 1; torch's var and std do that unless told otherwise. LayerNorm divides by C.",
            'chapter 7, "LayerNorm on three numbers"',
            _layer(unbiased=True),
        ),
        WrongAnswer(
            "the wrong axis",
            "Mean and variance were taken over the first axis, so different texts are mixed. Each vector is the last axis: dim=-1.",
            'chapter 7, "LayerNorm on three numbers"',
            _layer(dim=0),
        ),
        WrongAnswer(
            "one mean for everything",
            "You took one mean and one variance over all numbers of x. Each vector needs its own: dim=-1, keepdim=True.",
            'chapter 7, "LayerNorm on three numbers"',
            lambda x, w, b, eps=1e-5: _layer(dim=tuple(range(x.ndim)))(x, w, b, eps),
        ),
        WrongAnswer(
            "the mean is not removed",
            "You divided by the root mean square without subtracting the mean: that is RMSNorm.",
            'chapter 7, "RMSNorm: leave the mean alone"',
            _layer(centre=False),
        ),
        WrongAnswer(
            "the root is forgotten",
            "You divided by the variance. (1, 3, 5) has variance 8/3 and typical size 1.633: take the root.",
            'chapter 7, "LayerNorm on three numbers"',
            _layer(root=False),
        ),
        WrongAnswer(
            "weight and bias are ignored",
            "The first results are right, but weight and bias were not applied.",
            "hint 3",
            _layer(affine=False),
        ),
        WrongAnswer(
            "the bias before the weight",
            "You added the bias first and multiplied it by the weight as well. Multiply first, then add.",
            "hint 3",
            _layer(order=2),
        ),
    ),
)

# --- RMSNorm in half precision ---


def rms_norm(x, weight, eps=1e-5):
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return (wide * scale * weight.float()).to(x.dtype)


def _rms(eps_at="inside", mean="kept", root=True, wide=True, narrow=True, total=False, dim=-1):
    def answer(x, weight, eps=1e-5):
        inner = x.float() if wide else x
        if mean == "removed":
            inner = inner - inner.mean(dim=-1, keepdim=True)
        square = inner.square()
        if mean == "for the size only":
            square = (inner - inner.mean(dim=-1, keepdim=True)).square()
        square = square.sum(dim, keepdim=True) if total else square.mean(dim, keepdim=True)
        if eps_at == "outside":
            y = inner / (square.sqrt() + eps)
        elif eps_at == "none":
            y = inner / square.sqrt()
        else:
            y = inner / (torch.sqrt(square + eps) if root else square + eps)
        y = y * (weight.float() if wide else weight)
        return y.to(x.dtype) if narrow else y

    return answer


def _run_rms(answer):
    one = torch.ones(3)
    probes = {
        "the vector (1, 5, 7)": (torch.tensor([1.0, 5.0, 7.0]), one),
        "four tokens, with a weight": (
            torch.tensor(
                [[[1.0, 5.0, 7.0], [0.5, -2.0, 0.0]], [[9.0, 1.0, 2.0], [5.0, 5.5, -9.0]]]
            ),
            torch.tensor([2.0, 0.5, -1.0]),
        ),
        "a vector of size 0.0001": (torch.tensor([1e-4, 1e-4, -1e-4]), one),
        "a vector of zeros": (torch.zeros(3), one),
        "(300, -100, -200) in float16": (torch.tensor([300.0, -100.0, -200.0]).half(), one.half()),
        "(1, 5, 7) in bfloat16": (torch.tensor([1.0, 5.0, 7.0]).bfloat16(), one.bfloat16()),
        "six numbers near 100 in bfloat16": (
            torch.tensor([100.0, 101.5, 97.0, 113.0, 125.0, 90.5]).bfloat16(),
            torch.tensor([1.0, 1.5, 3.0, -1.0, 0.75, 2.5]).bfloat16(),
        ),
    }
    for label, (x, weight) in probes.items():
        y = answer(x, weight)
        yield label, y
        yield label + ", dtype", str(y.dtype)
    yield "eps = 3", answer(torch.tensor([1.0, 5.0, 7.0]), one, 3.0)


RMS_NORM = Exercise(
    name="rms_norm",
    chapter=7,
    title="RMSNorm that survives 16 bits",
    minutes=20,
    difficulty=2,
    hints=(
        "The size of a vector is the root of the mean of its squares. There is no mean to subtract and no bias to add.",
        "In float16, 300 squared is infinite. Compute in float32: x.float(), and come back at the end: .to(x.dtype).",
        "wide = x.float(); (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)",
    ),
    run=_run_rms,
    reference=rms_norm,
    explanation="The statistics are float32, the result is rounded once at the very end, as PyTorch does. Llama's own code rounds before the weight as well.",
    wrong=(
        WrongAnswer(
            "statistics in half precision",
            "In float16 the square of 300 is infinite and the whole vector becomes 0. Compute in float32 and narrow the result.",
            'chapter 7, "Half the bits, wrong statistics"',
            _rms(wide=False),
        ),
        WrongAnswer(
            "the result stays wide",
            "The values are right, but a float16 input came back as float32. Return x's own dtype.",
            'chapter 7, "Half the bits, wrong statistics"',
            _rms(narrow=False),
        ),
        WrongAnswer(
            "the mean is removed",
            "You subtracted the mean: that is LayerNorm. RMSNorm keeps the direction of the vector and changes only its length.",
            'chapter 7, "RMSNorm: leave the mean alone"',
            _rms(mean="removed"),
        ),
        WrongAnswer(
            "divided by the standard deviation",
            "You divided x by its standard deviation, which is measured from the mean. The root mean square is measured from 0.",
            'chapter 7, "RMSNorm: leave the mean alone"',
            _rms(mean="for the size only"),
        ),
        WrongAnswer(
            "eps outside the root",
            "You added eps after the root. On vectors of size 0.0001 your result is about 30 times too large.",
            'chapter 7, "Break it: eps outside the root"',
            _rms(eps_at="outside"),
        ),
        WrongAnswer(
            "no eps",
            "A vector of zeros gives 0 / 0 = nan: eps is missing.",
            'chapter 7, "Break it: eps outside the root"',
            _rms(eps_at="none"),
        ),
        WrongAnswer(
            "the root is forgotten",
            "You divided by the mean square, 25 for (1, 5, 7). Its root is 5.",
            'chapter 7, "RMSNorm: leave the mean alone"',
            _rms(root=False),
        ),
        WrongAnswer(
            "sum instead of mean",
            "You took the root of the *sum* of squares, so the vector gets length 1. RMSNorm gives its numbers the size 1.",
            'chapter 7, "RMSNorm: leave the mean alone"',
            _rms(total=True),
        ),
        WrongAnswer(
            "one size for everything",
            "You took one root mean square over all tokens. Each vector needs its own: dim=-1, keepdim=True.",
            "hint 3",
            lambda x, w, eps=1e-5: _rms(dim=tuple(range(x.ndim)))(x, w, eps),
        ),
    ),
)

# --- find the bug: a pre-norm stack ---


def run_stack(x, branches, norm):
    for branch in branches:
        x = x + branch(norm(x))
    return norm(x)


def _given(x, branches, norm):
    """Return the output of a pre-norm stack: x plus what each branch adds, with one norm at the very end."""
    for branch in branches:
        x = norm(x)
        x = x + branch(x)
    return norm(x)


def _stack(step, last=True):
    def answer(x, branches, norm):
        for branch in branches:
            x = step(x, branch, norm)
        return norm(x) if last else x

    return answer


def _all_read_the_start(x, branches, norm):
    return norm(x + sum(branch(norm(x)) for branch in branches))


def _run_stack(answer):
    def norm(x):
        return (
            x
            * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-5)
            * torch.tensor([1.0, 2.0, 0.5])
        )

    generator = torch.Generator().manual_seed(7)
    matrices = torch.randn(4, 3, 3, generator=generator)
    branches = [lambda v, m=m: torch.tanh(v @ m) + 0.25 for m in matrices]
    x = 3 * torch.randn(2, 5, 3, generator=generator)
    yield "no branch", answer(x.clone(), [], norm)
    yield "one branch", answer(x.clone(), branches[:1], norm)
    yield "four branches", answer(x.clone(), list(branches), norm)


STACK = Exercise(
    name="run_stack",
    chapter=7,
    title="find the bug: a pre-norm stack",
    minutes=15,
    difficulty=2,
    hints=(
        "In pre-norm the stream itself is only ever added to, until the very end. What does the buggy loop do to it?",
        "Follow one number of x through the loop: is there a path on which nothing but additions happens to it?",
        "Norm what the branch reads, not what flows past it: x = x + branch(norm(x)).",
    ),
    run=_run_stack,
    reference=run_stack,
    given=_given,
    explanation="The norm sits inside the branch. The stream then has a path from end to beginning without a single norm on it, and that is why deep pre-norm stacks train.",
    wrong=(
        WrongAnswer(
            "the norm is on the stream itself",
            "x = norm(x) replaces the stream: you compute norm(x) + branch(norm(x)), and what flowed past has been rescaled.",
            'chapter 7, "The residual stream"',
            _stack(lambda x, f, n: n(x) + f(n(x))),
        ),
        WrongAnswer(
            "post-norm",
            "You norm after the addition: that is post-norm, as in the first transformer. Here norm(x) goes inside the branch.",
            'chapter 7, "The residual stream"',
            _stack(lambda x, f, n: n(x + f(x)), last=False),
        ),
        WrongAnswer(
            "post-norm, and one more",
            "You norm after every addition, and once more at the end. In pre-norm the branch reads norm(x), and x itself is not normed.",
            'chapter 7, "The residual stream"',
            _stack(lambda x, f, n: n(x + f(x))),
        ),
        WrongAnswer(
            "the branch's output is normed",
            "You norm what the branch returns. The branch should *read* a normed vector: branch(norm(x)).",
            "hint 3",
            _stack(lambda x, f, n: x + n(f(x))),
        ),
        WrongAnswer(
            "the last norm is missing",
            "The loop is right, but the stream has grown by the end: pre-norm needs one norm after the last branch.",
            'chapter 7, "How the stream grows"',
            _stack(lambda x, f, n: x + f(n(x)), last=False),
        ),
        WrongAnswer(
            "no norm in the branches",
            "The branches read the stream as it is, so what they add grows with it. They should read norm(x).",
            'chapter 7, "How the stream grows"',
            _stack(lambda x, f, n: x + f(x)),
        ),
        WrongAnswer(
            "no residual connection",
            "The branch replaces the stream. It should be added: x + branch(norm(x)).",
            'chapter 7, "The residual stream"',
            _stack(lambda x, f, n: f(n(x))),
        ),
        WrongAnswer(
            "every branch reads the start",
            "All branches read the same x. Each should read the stream as the branch before left it.",
            "hint 3",
            _all_read_the_start,
        ),
    ),
)

EXERCISES = (LAYER_NORM, RMS_NORM, STACK)
