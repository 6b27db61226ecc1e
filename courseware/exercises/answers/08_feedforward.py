"""Chapter 08: GELU by its formula, the gate of SwiGLU, widths and costs, and a ReLU² with a bug."""

import torch

from courseware.exercises import Exercise, Mistake, normal

GELU = 'chapter 8, "GELU and ReLU²"'
GATE = 'chapter 8, "A gate"'
COST = 'chapter 8, "What it costs"'
LAYER = 'chapter 8, "The layer of GPT-2"'


def _probe_gelu(answer):
    yield "x = 1", answer(torch.tensor([1.0]))
    yield "x from -3 to 3", answer(torch.linspace(-3.0, 3.0, 13))
    yield "six numbers in two rows", answer(torch.tensor([[0.25, -0.1, 4.0], [-2.5, 0.0, 1.75]]))
    yield "100 and -100", answer(torch.tensor([100.0, -100.0]))
    yield "a single number, of shape ()", answer(torch.tensor(0.5))


GELU_TANH = Exercise(
    "gelu_tanh", _probe_gelu,
    hints=(
        "The formula has five parts from outside to inside: half of x; times 1 plus; a tanh; of a root times; x plus a small cube.",
        "math.sqrt(2 / math.pi) is 0.79788. For x = 1: 0.79788 * 1.044715 = 0.83356, its tanh 0.68238, the result 0.84119.",
        "0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))",
    ),
    explanation="It stays within 0.0005 of the exact form. GPT-2 was trained with it, so GPT-2 has to be run with it.",
    look=GELU,
    mistakes=(
        Mistake("the exact GELU", "This is x times the probability itself, with erf. It differs by up to 0.0005; GPT-2 needs the form with tanh.",
                edit=("torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))", "torch.erf(x / math.sqrt(2))")),
        Mistake("the factor 0.5 is forgotten", "Your result is twice as large as it should be: for a large x, 1 + tanh is 2, and GELU should be x.",
                edit=("0.5 *", "")),
        Mistake("a square for the cube", "The small term is 0.044715 times x to the power of 3. A square has the same sign on both sides, a cube does not.",
                edit=("x**3", "x**2")),
        Mistake("the root is missing", "The factor sqrt(2 / pi) = 0.79788 before the bracket is missing.",
                edit=("math.sqrt(2 / math.pi) *", "")),
        Mistake("the root multiplies x alone", "Your root multiplies x, but not the cube behind it. Put the sum in brackets: sqrt(2 / pi) * (x + 0.044715 * x**3).",
                edit=("* (x + 0.044715 * x**3)", "* x + 0.044715 * x**3")),
        Mistake("2 / pi without the root", "You multiplied by 2 / pi = 0.6366. Take its root, 0.79788.",
                edit=("math.sqrt(2 / math.pi)", "2 / math.pi")),
        Mistake("the root of 2 alone", "You divided the root of 2 by pi, 0.4502. Take the root of the whole fraction 2 / pi, 0.79788.",
                edit=("(2 / math.pi)", "(2) / math.pi")),
        Mistake("the 1 is missing", "0.5 * x * tanh(...) is the same for x and -x. Without the 1 nothing is stopped on the negative side.",
                edit=("1 +", "")),
        Mistake("a tanh by hand that overflows", "Your tanh divides infinity by infinity where x is large. Use torch.tanh.",
                edit=("torch.tanh(", "(lambda z: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()))(")),
        Mistake("the quick approximation", "x times sigmoid(1.702 x) is another approximation of GELU, off by up to 0.02. GPT-2 uses the one with tanh.",
                edit=("0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))", "x * torch.sigmoid(1.702 * x)")),
    ),
)  # fmt: skip


def _probe_swiglu(answer):
    one = torch.ones(1, 1)
    yield "one channel, weights 1, 2 and 3, x = 1", answer(one, one, 2 * one, 3 * one)

    draw = normal(8)
    yield "4 tokens, C = 3, hidden = 3", answer(draw(4, 3), *draw(3, 3, 3))

    gate, up = draw(2, 5, 3)
    yield "2 texts of 4 tokens, C = 3, hidden = 5", answer(draw(2, 4, 3), gate, up, draw(3, 5))


SWIGLU = Exercise(
    "swiglu", _probe_swiglu,
    hints=(
        "x @ gate.T has shape (..., hidden), and so has x @ up.T. They are multiplied number by number.",
        "Only the gate goes through SiLU: silu(z) = z * sigmoid(z), not sigmoid(z) alone. silu(1) is 0.7311 and silu(-1) is -0.2689.",
        "z = x @ gate.T; (z * torch.sigmoid(z) * (x @ up.T)) @ down.T",
    ),
    explanation="With a product in the middle, the layer can multiply two things that it finds in x. Sums alone cannot.",
    look=GATE,
    mistakes=(
        Mistake("gate and up swapped", "You put x @ up.T through SiLU. Both have the same shape, so nothing complains, but it is x @ gate.T that goes through SiLU.",
                edit=("opened =", "gate, up = up, gate\nopened ="), look='chapter 8, "Break it: gate and up swapped"'),
        Mistake("sigmoid instead of silu", "Your gate is sigmoid(z), as in the first gated units. SwiGLU multiplies by z once more: z * sigmoid(z).",
                edit=("(opened * torch", "(torch")),
        Mistake("x times the sigmoid", "You multiplied the sigmoid by x itself. SiLU multiplies it by its own input, z = x @ gate.T: z * sigmoid(z).",
                edit=("(opened * torch", "(x * torch")),
        Mistake("no SiLU on the gate", "You multiplied the gate as it is. Put it through SiLU first: z * sigmoid(z).",
                edit=("* torch.sigmoid(opened)", "")),
        Mistake("GELU in the gate", "With GELU in the gate it is GEGLU, a relative. SwiGLU has SiLU there: z * sigmoid(z).",
                edit=("opened * torch.sigmoid(opened)", "torch.nn.functional.gelu(opened)"),
                also=(("opened * torch.sigmoid(opened)", 'torch.nn.functional.gelu(opened, approximate="tanh")'),)),
        Mistake("added instead of multiplied", "You added gate and up. A gate multiplies: where it is 0, nothing passes.",
                edit=("* (x @ up.T)", "+ (x @ up.T)")),
        Mistake("no gate at all", "You left up out: down(silu(gate(x))) is an ungated layer with SiLU.",
                edit=("* (x @ up.T)", "")),
        Mistake("the matrices are not transposed", "One channel is right, but nn.Linear stores a matrix as (out, in): multiply by the transposes, x @ gate.T, x @ up.T and @ down.T.",
                edit=(("gate.T", "gate"), ("up.T", "up"), ("down.T", "down"))),
    ),
)  # fmt: skip


def _probe_price(answer):
    for n_embd, multiple in ((384, 32), (128, 32), (4096, 256), (100, 1), (24, 64), (125, 64)):
        yield f"n_embd={n_embd}, multiple_of={multiple}", answer(n_embd, multiple)


PRICE = Exercise(
    "gated_price", _probe_price,
    hints=(
        "The ungated layer is 4 n_embd wide. Two thirds of that, cut to a whole number, then up to the next multiple.",
        "Rounding up: math.ceil(width / multiple_of) * multiple_of. A width that is a multiple already stays.",
        "Three matrices of n_embd times hidden. Each weight takes part in one multiplication and one addition: two FLOPs.",
    ),
    explanation="For n_embd = 384 the width is 1024, and three matrices of 384 x 1024 have exactly as many weights as two of 384 x 1536.",
    tolerance=1e-9,  # whole numbers: one weight too many is wrong
    look='chapter 8, "Two thirds"',
    mistakes=(
        Mistake("the two thirds are forgotten", "Your layer is 4 n_embd wide. It has three matrices, so at that width it costs half as much again as an ungated one.",
                edit=("8 * n_embd / 3", "4 * n_embd")),
        Mistake("two thirds of n_embd", "You took two thirds of n_embd. The ungated layer is 4 n_embd wide, and two thirds of that are 8 n_embd / 3.",
                edit=("8 * n_embd / 3", "2 * n_embd / 3")),
        Mistake("rounded down", "You rounded down to a multiple. Llama rounds up, so that the layer is never narrower than two thirds.",
                edit=("math.ceil", "math.floor")),
        Mistake("rounded to the nearest", "You rounded to the nearest multiple. Llama rounds up.",
                edit=("math.ceil", "round")),
        Mistake("not rounded to a multiple", "Your width is not a multiple of multiple_of. Round it up: math.ceil(width / multiple_of) * multiple_of.",
                edit=(("math.ceil(", "("), ("/ multiple_of) * multiple_of", ")"))),
        Mistake("not cut to a whole number", "Two thirds of 4 * 100 are 266.67. Cut that to 266 first; the next multiple of 1 is then 266, not 267.",
                edit=("int(8 * n_embd / 3)", "8 * n_embd / 3")),
        Mistake("one multiple too far", "A width that is a multiple already, such as 1024 for 32, must stay: you went on to the next.",
                edit=("math.ceil(int(8 * n_embd / 3) / multiple_of)", "(int(8 * n_embd / 3) // multiple_of + 1)")),
        Mistake("FLOPs count multiplications only", "You counted one FLOP for each weight. The products are also added up: two for each.",
                edit=("2 * weights", "weights"), look=COST),
        Mistake("FLOPs of training", "You counted 6 FLOPs for each weight, which includes the backward pass. One token on its way forward costs 2.",
                edit=("2 * weights", "6 * weights"), look=COST),
        Mistake("biases in the weights", "You counted biases among the weights. Llama's layer has none.",
                edit=("hidden, weights", "hidden, weights + 2 * hidden + n_embd"),
                also=(("n_embd * hidden", "n_embd * hidden + 2 * hidden + n_embd"),), look=COST),
        Mistake("FLOPs before weights", "All three numbers are right, in the wrong order: return the width, the weights, the FLOPs.",
                edit=("weights, 2 * weights", "2 * weights, weights"), look=COST),
        Mistake("two matrices", "You counted two matrices. A gated layer has three: gate, up and down.",
                edit=("3 * n_embd", "2 * n_embd"), look=GATE),
    ),
)  # fmt: skip


def _probe_relu2(answer):
    one, none = torch.ones(1, 1), torch.zeros(1)
    both = torch.tensor([[3.0], [-3.0]])
    yield "one channel, weights 1, biases 0, x = 3 and -3", answer(both, one, none, one, none)

    draw = normal(9)
    layer = draw(5, 3), draw(5), draw(3, 5), draw(3)
    yield "2 texts of 4 tokens, C = 3, hidden = 5", answer(draw(2, 4, 3), *layer)


RELU2 = Exercise(
    "relu2_layer", _probe_relu2,
    hints=(
        "Try one number: what should ReLU² make of 3, and what of -3?",
        "Print (-3) squared. What is left for ReLU to stop?",
        "ReLU first, then the square: .relu().square().",
    ),
    explanation="A square is never negative, so ReLU after it does nothing, and x and -x become the same. Apply ReLU first, then square.",
    look=GELU,
    mistakes=(
        Mistake("squared before ReLU", "A square is never negative, so a ReLU after it has nothing to stop: 3 and -3 give the same. Apply ReLU first, then square.",
                of="given"),
        Mistake("not squared", "This is plain ReLU. ReLU² squares what ReLU lets through: 3 becomes 9.",
                edit=(".square()", "")),
        Mistake("the sign is kept", "Your activation lets negative numbers through, as minus their square. ReLU² makes 0 of them.",
                edit=(".relu().square()", ".square() * (x @ up.T + up_bias).sign()")),
        Mistake("the first bias is missing", "The first bias, up_bias, is not added.",
                edit=("+ up_bias", ""), look=LAYER),
        Mistake("the last bias is missing", "The second bias, down_bias, is not added.",
                edit=("+ down_bias", ""), look=LAYER),
    ),
)  # fmt: skip
