"""Exercises of chapter 08: GELU by its formula, the gate of SwiGLU, widths and costs, and a ReLU² with a bug."""

from __future__ import annotations

import math

import torch

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- GELU as in GPT-2 ---

_ROOT = math.sqrt(2 / math.pi)


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(_ROOT * (x + 0.044715 * x**3)))


def _gelu(half=0.5, power=3, root=_ROOT, one=1.0, around=True):
    def answer(x):
        inner = root * (x + 0.044715 * x**power) if around else root * x + 0.044715 * x**power
        return half * x * (one + torch.tanh(inner))

    return answer


def _run_gelu(answer):
    yield "x = 1", answer(torch.tensor([1.0]))
    yield "x from -3 to 3", answer(torch.linspace(-3.0, 3.0, 13))
    yield "six numbers in two rows", answer(torch.tensor([[0.25, -0.1, 4.0], [-2.5, 0.0, 1.75]]))
    yield "10 and -10", answer(torch.tensor([10.0, -10.0]))
    yield "100 and -100", answer(torch.tensor([100.0, -100.0]))


GELU_TANH = Exercise(
    name="gelu_tanh",
    chapter=8,
    title="GELU as in GPT-2",
    minutes=10,
    difficulty=1,
    hints=(
        "The formula has five parts from outside to inside: half of x; times 1 plus; a tanh; of a root times; x plus a small cube.",
        "math.sqrt(2 / math.pi) is 0.79788. For x = 1: 0.79788 * 1.044715 = 0.83356, its tanh 0.68238, the result 0.84119.",
        "0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))",
    ),
    run=_run_gelu,
    reference=gelu_tanh,
    explanation="It stays within 0.0005 of the exact form, and GPT-2 was trained with it, so GPT-2 has to be run with it.",
    wrong=(
        WrongAnswer(
            "the exact GELU",
            "This is x times the probability itself, with erf. It differs by up to 0.0005; GPT-2 needs the form with tanh.",
            'chapter 8, "Four bends"',
            lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
        ),
        WrongAnswer(
            "the factor 0.5 is forgotten",
            "Your result is twice as large as it should be: for a large x, 1 + tanh is 2, and GELU should be x.",
            'chapter 8, "Four bends"',
            _gelu(half=1.0),
        ),
        WrongAnswer(
            "a square for the cube",
            "The small term is 0.044715 times x to the power of 3. A square has the same sign on both sides, a cube does not.",
            'chapter 8, "Four bends"',
            _gelu(power=2),
        ),
        WrongAnswer(
            "the root is missing",
            "The factor sqrt(2 / pi) = 0.79788 before the bracket is missing.",
            "hint 2",
            _gelu(root=1.0),
        ),
        WrongAnswer(
            "2 / pi without the root",
            "You multiplied by 2 / pi = 0.6366. Take its root, 0.79788.",
            "hint 2",
            _gelu(root=2 / math.pi),
        ),
        WrongAnswer(
            "the root is not on the cube",
            "sqrt(2 / pi) multiplies the whole bracket, the cube too.",
            "hint 3",
            _gelu(around=False),
        ),
        WrongAnswer(
            "the 1 is missing",
            "0.5 * x * tanh(...) is the same for x and -x. Without the 1 nothing is stopped on the negative side.",
            "hint 3",
            _gelu(one=0.0),
        ),
        WrongAnswer(
            "the quick approximation",
            "x times sigmoid(1.702 x) is another approximation of GELU, off by up to 0.02. GPT-2 uses the one with tanh.",
            'chapter 8, "Four bends"',
            lambda x: x * torch.sigmoid(1.702 * x),
        ),
        WrongAnswer(
            "SiLU",
            "x times sigmoid(x) is SiLU, the bend of Llama's gate.",
            'chapter 8, "The gate"',
            torch.nn.functional.silu,
        ),
    ),
)

# --- SwiGLU ---


def swiglu(x, gate, up, down):
    opened = x @ gate.T
    return (opened * torch.sigmoid(opened) * (x @ up.T)) @ down.T


def _silu(z):
    return z * torch.sigmoid(z)


def _swiglu(bend=_silu, swap=False, join=torch.mul, late=False, other=lambda z: z):
    def answer(x, gate, up, down):
        gate, up = (up, gate) if swap else (gate, up)
        opened, passed = x @ gate.T, other(x @ up.T)
        inner = bend(opened * passed) if late else join(bend(opened), passed)
        return inner @ down.T

    return answer


def _run_swiglu(answer):
    one = torch.ones(1, 1)
    for x in (1.0, -1.0):
        yield (
            f"one channel, weights 1, 2 and 3, x = {x:g}",
            answer(torch.tensor([[x]]), one, 2 * one, 3 * one),
        )
    generator = torch.Generator().manual_seed(8)
    gate, up = torch.randn(2, 5, 3, generator=generator)
    down = torch.randn(3, 5, generator=generator)
    yield (
        "2 texts of 4 tokens, C = 3, hidden = 5",
        answer(torch.randn(2, 4, 3, generator=generator), gate, up, down),
    )


SWIGLU = Exercise(
    name="swiglu",
    chapter=8,
    title="the gate of Llama",
    minutes=15,
    difficulty=2,
    hints=(
        "x @ gate.T has shape (..., hidden), and so has x @ up.T. They are multiplied number by number.",
        "Only the gate bends: silu(z) = z * sigmoid(z), not sigmoid(z) alone. silu(1) is 0.7311 and silu(-1) is -0.2689.",
        "z = x @ gate.T; (z * torch.sigmoid(z) * (x @ up.T)) @ down.T",
    ),
    run=_run_swiglu,
    reference=swiglu,
    explanation="With a product in the middle, the layer can multiply two things that it finds in x. Sums alone cannot.",
    wrong=(
        WrongAnswer(
            "gate and up swapped",
            "You bent x @ up.T. Both have the same shape, so nothing complains, but only the gate goes through silu.",
            'chapter 8, "Break it: gate and up swapped"',
            _swiglu(swap=True),
        ),
        WrongAnswer(
            "sigmoid instead of silu",
            "Your gate is sigmoid(z), as in the first gated units. SwiGLU multiplies by z once more: z * sigmoid(z).",
            'chapter 8, "The gate"',
            _swiglu(bend=torch.sigmoid),
        ),
        WrongAnswer(
            "the gate does not bend",
            "The product is right, but the gate went in as it is. Bend it first: z * sigmoid(z).",
            "hint 2",
            _swiglu(bend=lambda z: z),
        ),
        WrongAnswer(
            "GELU in the gate",
            "With GELU in the gate it is GEGLU, a relative. SwiGLU's bend is z * sigmoid(z).",
            'chapter 8, "The gate"',
            _swiglu(bend=torch.nn.functional.gelu),
        ),
        WrongAnswer(
            "ReLU in the gate",
            "With ReLU in the gate it is ReGLU, a relative. SwiGLU's bend is z * sigmoid(z).",
            'chapter 8, "The gate"',
            _swiglu(bend=torch.relu),
        ),
        WrongAnswer(
            "added instead of multiplied",
            "You added gate and up. A gate multiplies: where it is 0, nothing passes.",
            'chapter 8, "The gate"',
            _swiglu(join=torch.add),
        ),
        WrongAnswer(
            "bent after the product",
            "You multiplied first and bent the product. Bend the gate alone, then multiply.",
            "hint 3",
            _swiglu(late=True),
        ),
        WrongAnswer(
            "both are bent",
            "You bent gate and up. Only the gate bends; up passes as it is.",
            "hint 2",
            _swiglu(other=_silu),
        ),
        WrongAnswer(
            "no gate at all",
            "You left up out: down(silu(gate(x))) is an ungated layer with SiLU.",
            "hint 1",
            _swiglu(join=lambda opened, passed: opened),
        ),
    ),
)

# --- width and price of a gated layer ---


def gated_price(n_embd, multiple_of):
    hidden = math.ceil(int(8 * n_embd / 3) / multiple_of) * multiple_of
    weights = 3 * n_embd * hidden
    return hidden, weights, 2 * weights


def _price(factor=8 / 3, rounding=math.ceil, matrices=3, flops=2, biases=False, one_more=False):
    def answer(n_embd, multiple_of):
        hidden = rounding(int(factor * n_embd + 1e-9) / multiple_of) * multiple_of
        if one_more:
            hidden = (int(8 * n_embd / 3) // multiple_of + 1) * multiple_of
        weights = matrices * n_embd * hidden
        extra = 2 * hidden + n_embd if biases else 0
        return hidden, weights, flops * weights + extra

    return answer


def _with_biases_everywhere(n_embd, multiple_of):
    hidden, weights, flops = gated_price(n_embd, multiple_of)
    return hidden, weights + 2 * hidden + n_embd, flops


def _run_price(answer):
    for arguments in ((384, 32), (128, 32), (4096, 256), (100, 1), (24, 64), (125, 64)):
        yield (
            f"n_embd={arguments[0]}, multiple_of={arguments[1]}",
            list(answer(*arguments)),
        )


PRICE = Exercise(
    name="gated_price",
    chapter=8,
    title="two thirds, and what it costs",
    minutes=15,
    difficulty=2,
    hints=(
        "The ungated layer is 4 n_embd wide. Two thirds of that, cut to a whole number, then up to the next multiple.",
        "Rounding up: math.ceil(width / multiple_of) * multiple_of. A width that is a multiple already stays.",
        "Three matrices of n_embd times hidden. Each weight takes part in one multiplication and one addition: two FLOPs.",
    ),
    run=_run_price,
    reference=gated_price,
    explanation="For n_embd = 384 the width is 1024, and three matrices of 384 x 1024 are exactly as many weights as two of 384 x 1536.",
    wrong=(
        WrongAnswer(
            "the two thirds are forgotten",
            "Your layer is 4 n_embd wide. It has three matrices, so at that width it costs half as much again as an ungated one.",
            'chapter 8, "Two thirds"',
            _price(factor=4),
        ),
        WrongAnswer(
            "rounded down",
            "You rounded down to a multiple. Llama rounds up, so that the layer is never narrower than two thirds.",
            'chapter 8, "Two thirds"',
            _price(rounding=math.floor),
        ),
        WrongAnswer(
            "rounded to the nearest",
            "You rounded to the nearest multiple. Llama rounds up.",
            'chapter 8, "Two thirds"',
            _price(rounding=round),
        ),
        WrongAnswer(
            "not rounded to a multiple",
            "Your width is not a multiple of multiple_of.",
            "hint 2",
            lambda c, m: _price()(c, 1),
        ),
        WrongAnswer(
            "one multiple too far",
            "A width that is a multiple already, such as 1024 for 32, must stay: you went on to the next.",
            "hint 2",
            _price(one_more=True),
        ),
        WrongAnswer(
            "FLOPs count multiplications only",
            "You counted one FLOP for each weight. The product is also added up: two for each.",
            'chapter 8, "What it costs"',
            _price(flops=1),
        ),
        WrongAnswer(
            "biases in the FLOPs",
            "Your FLOPs contain the biases. Llama's layer has none, and FLOP counts leave them out anyway.",
            'chapter 8, "What it costs"',
            _price(biases=True),
        ),
        WrongAnswer(
            "biases in the weights",
            "You counted biases among the weights. Llama's layer has none.",
            'chapter 8, "What it costs"',
            _with_biases_everywhere,
        ),
        WrongAnswer(
            "two matrices",
            "You counted two matrices. A gated layer has three: gate, up and down.",
            'chapter 8, "The gate"',
            _price(matrices=2),
        ),
    ),
)

# --- find the bug: ReLU² ---


def relu2_layer(x, up, up_bias, down, down_bias):
    hidden = (x @ up.T + up_bias).relu().square()
    return hidden @ down.T + down_bias


def _given(x, up, up_bias, down, down_bias):
    """Return a feed-forward layer with ReLU²: x (..., C), up (hidden, C), down (C, hidden), two biases."""
    hidden = (x @ up.T + up_bias).square().relu()
    return hidden @ down.T + down_bias


def _relu2(bend, first=1.0, last=1.0):
    def answer(x, up, up_bias, down, down_bias):
        return bend(x @ up.T + first * up_bias) @ down.T + last * down_bias

    return answer


def _run_relu2(answer):
    one, none = torch.ones(1, 1), torch.zeros(1)
    for x in (3.0, -3.0):
        yield (
            f"one channel, weights 1, biases 0, x = {x:g}",
            answer(torch.tensor([[x]]), one, none, one, none),
        )
    generator = torch.Generator().manual_seed(9)
    up, up_bias = torch.randn(5, 3, generator=generator), torch.randn(5, generator=generator)
    down, down_bias = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
    x = torch.randn(2, 4, 3, generator=generator)
    yield "2 texts of 4 tokens, C = 3, hidden = 5", answer(x, up, up_bias, down, down_bias)


RELU2 = Exercise(
    name="relu2_layer",
    chapter=8,
    title="find the bug: a layer with ReLU²",
    minutes=10,
    difficulty=2,
    hints=(
        "Try one number: what should ReLU² make of 3, and what of -3?",
        "Print (-3) squared. What is left for ReLU to stop?",
        "Bend first, then square: .relu().square().",
    ),
    run=_run_relu2,
    reference=relu2_layer,
    given=_given,
    explanation="A square is never negative, so ReLU after it does nothing, and x and -x become the same. Bend first, then square.",
    wrong=(
        WrongAnswer(
            "squared before the bend",
            "A square is never negative, so your ReLU has nothing to stop: 3 and -3 give the same. Bend first, then square.",
            'chapter 8, "Four bends"',
            _relu2(torch.square),
        ),
        WrongAnswer(
            "not squared",
            "This is plain ReLU. ReLU² squares what ReLU lets through: 3 becomes 9.",
            'chapter 8, "Four bends"',
            _relu2(torch.relu),
        ),
        WrongAnswer(
            "the sign is kept",
            "Your bend lets negative numbers through, as minus their square. ReLU² makes 0 of them.",
            'chapter 8, "Four bends"',
            _relu2(lambda z: z * z.abs()),
        ),
        WrongAnswer(
            "times x instead of squared",
            "You doubled what ReLU lets through. ReLU² multiplies it by itself: 3 becomes 9, not 6.",
            'chapter 8, "Four bends"',
            _relu2(lambda z: 2 * z.relu()),
        ),
        WrongAnswer(
            "squared after the way down",
            "You squared the layer's output. The square belongs to the bend, before the second matrix.",
            'chapter 8, "The layer of GPT-2"',
            lambda x, u, a, d, b: ((x @ u.T + a).relu() @ d.T + b).square(),
        ),
        WrongAnswer(
            "bent after the way down",
            "You bent the layer's output instead of the hidden numbers: between the two matrices nothing bends.",
            'chapter 8, "Why it has to bend"',
            lambda x, u, a, d, b: ((x @ u.T + a) @ d.T + b).relu().square(),
        ),
        WrongAnswer(
            "the bias after the bend",
            "You added the first bias after the bend. It belongs inside: it decides where the bend is.",
            'chapter 8, "The layer of GPT-2"',
            lambda x, u, a, d, b: ((x @ u.T).relu().square() + a) @ d.T + b,
        ),
        WrongAnswer(
            "the last bias is missing",
            "The second bias, down_bias, is not added.",
            'chapter 8, "The layer of GPT-2"',
            _relu2(lambda z: z.relu().square(), last=0.0),
        ),
    ),
)

EXERCISES = (GELU_TANH, SWIGLU, PRICE, RELU2)
