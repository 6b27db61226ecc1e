"""Chapter 09: a GPT-2 from its weights, a parameter count, the loss, the first weights, and two pieces of code with a bug."""

import torch
from torch.nn import functional as F

from courseware.exercises import Exercise, Mistake, normal

HAND = 'chapter 9, "From ids to a loss, by hand"'
TIE = 'chapter 9, "Break it: the tie that came apart"'
BLOCK = 'chapter 9, "One block"'
MODEL = 'chapter 9, "The whole model"'
FRESH = 'chapter 9, "The first weights"'
MERGE = 'chapter 5, "All heads in one go"'


def _probe_gpt2(answer):
    draw = normal(12)
    V, C = 7, 8
    sizes = {"attention.qkv": (3 * C, C), "attention.proj": (C, C), "ffn.up": (4 * C, C), "ffn.down": (C, 4 * C)}  # fmt: skip
    for label, T, n_layer, n_head in (
        ("one block, one head", 4, 1, 1),
        ("one block, two heads", 5, 1, 2),
        ("three blocks, four heads", 6, 3, 4),
        ("one id", 1, 2, 2),
    ):
        parts = {"norm": (C,)}
        for i in range(n_layer):
            block = {"norm1": (C,), "norm2": (C,), **sizes}
            parts |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}

        w = {"embedding.weight": 0.6 * draw(V, C), "position.weight": 0.6 * draw(9, C)}
        for name, shape in parts.items():
            w[f"{name}.weight"] = 0.6 * draw(*shape) + ("norm" in name)
            w[f"{name}.bias"] = 0.6 * draw(shape[0])

        ids = torch.arange(2 * T).view(2, T) * 3 % V
        yield label, answer(ids, w, n_layer, n_head)


GPT2_LOGITS = Exercise(
    "gpt2_logits", _probe_gpt2,
    hints=(
        "Two small helpers save much writing: linear(x, name) and norm(x, name), which look up weight and bias.",
        "Each block does x = x + attention(norm1(x)) and then x = x + ffn(norm2(x)). At the end come one more norm and a product with the embedding.",
        "For attention: qkv.view(B, T, 3 * n_head, -1).transpose(1, 2).chunk(3, dim=1) gives q, k and v; afterwards .transpose(1, 2).flatten(2) lays the heads side by side.",
    ),
    explanation="You have written GPT-2. With OpenAI's weights under these names, your function would write what theirs writes.",
    look='chapter 9, "A GPT in thirty lines"',
    mistakes=(
        Mistake("attention is not added to the stream", "What attention returns replaces x in your code. It must be added: x = x + attention(norm1(x)).",
                edit=("x = x + linear(y", "x = linear(y")),
        Mistake("feed-forward is not added to the stream", "What feed-forward returns replaces x in your code. It must be added: x = x + ffn(norm2(x)).",
                edit=("x = x + linear(hidden", "x = linear(hidden")),
        Mistake("the norm stands on the stream", "You norm x and then add attention to the normed x. The norm belongs inside the branch; the stream itself is never normed.",
                edit=('qkv = linear(norm(x, f"{block}.norm1"),', 'x = norm(x, f"{block}.norm1")\nqkv = linear(x,')),
        Mistake("the second norm stands on the stream", "You norm x and then add feed-forward to the normed x. The norm belongs inside the branch; the stream itself is never normed.",
                edit=('hidden = linear(norm(x, f"{block}.norm2"),', 'x = norm(x, f"{block}.norm2")\nhidden = linear(x,')),
        Mistake("no norm before attention", "Attention reads x as it is. It should read norm1(x).",
                edit=('norm(x, f"{block}.norm1")', "x")),
        Mistake("no norm before feed-forward", "Feed-forward reads x as it is. It should read norm2(x).",
                edit=('norm(x, f"{block}.norm2")', "x")),
        Mistake("norms without weight and bias", "You normed the vectors, but left out the norms' own weight and bias.",
                edit=('(C,), w[f"{name}.weight"], w[f"{name}.bias"]', "(C,)")),
        Mistake("the final norm forgotten", "Your blocks are right, but the output layer reads norm(x), with the weights called norm.",
                edit=('norm(x, "norm")', "x")),
        Mistake("positions forgotten", 'The model cannot know the position of a token: add w["position.weight"][:T] to the embedding.',
                edit=('+ w["position.weight"][:T]', ""), look=HAND),
        Mistake("positions by id", "You look the position up with the id. Position 0 gets row 0 of position.weight, position 1 gets row 1, whatever ids are there.",
                edit=('w["position.weight"][:T]', 'w["position.weight"][ids]'), look=HAND),
        Mistake("biases forgotten", "You left out the biases of the linear layers.",
                edit=('F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])', 'F.linear(x, w[f"{name}.weight"])')),
        Mistake("the future is seen", "Your attention sees the whole text. A language model sees only the past: is_causal=True.",
                edit=("is_causal=True", "is_causal=False"), look='chapter 5, "The mask"'),
        Mistake("one head only", "You attend with one head of width C. Cut queries, keys and values into n_head heads of width C / n_head.",
                edit=("3 * n_head", "3"), look=MERGE),
        Mistake("cut without the transpose", "You viewed (B, T, 3C) as (B, heads, T, D) at once. The numbers of different tokens get mixed: view as (B, T, heads, D), then transpose.",
                edit=("qkv.view(B, T, 3 * n_head, -1).transpose(1, 2)", "qkv.reshape(B, 3 * n_head, T, -1)"), look=MERGE),
        Mistake("merged without the transpose", "You reshaped (B, heads, T, D) to (B, T, C) at once. Transpose back to (B, T, heads, D) first.",
                edit=("y.transpose(1, 2).flatten(2)", "y.reshape(B, T, C)"), look=MERGE),
        Mistake("queries and keys exchanged", "You took keys for queries. The rows of qkv make queries first, then keys, then values.",
                edit=("q, k, v = heads", "k, q, v = heads")),
        Mistake("heads of scattered channels", "Head h of yours has the channels h, h + n_head, h + 2 n_head, ... A head has neighbouring channels: cut C into (n_head, D), not into (D, n_head).",
                edit=(("qkv.view(B, T, 3 * n_head, -1)", "qkv.view(B, T, 3, -1, n_head).transpose(3, 4).flatten(2, 3)"),
                      ("y.transpose(1, 2).flatten(2)", "y.permute(0, 2, 3, 1).flatten(2)")),
                also=(("qkv.view(B, T, 3 * n_head, -1)", "qkv.view(B, T, 3, -1, n_head).transpose(3, 4).flatten(2, 3)"),), look=MERGE),
        Mistake("heads transposed when they are merged", "You merged (B, T, D, heads), so the first numbers of all heads come first. Merge (B, T, heads, D): each head's D numbers stay together.",
                edit=("y.transpose(1, 2).flatten(2)", "y.permute(0, 2, 3, 1).flatten(2)"), look=MERGE),
        Mistake("heads looking at heads", "You left the heads at (B, T, heads, D), so the heads of one token attend to each other. Transpose to (B, heads, T, D): then tokens attend to tokens.",
                edit=(("qkv.view(B, T, 3 * n_head, -1).transpose(1, 2)", "qkv.view(B, T, 3 * n_head, -1)"), ("dim=1", "dim=2"), ("y.transpose(1, 2).flatten(2)", "y.flatten(2)")), look=MERGE),
        Mistake("cut into heads before queries, keys and values", "You cut qkv into heads first and each head into query, key and value. It begins with the queries of all heads, then come all keys, then all values.",
                edit=(("qkv.view(B, T, 3 * n_head, -1)", "qkv.view(B, T, n_head, -1)"), ("chunk(3, dim=1)", "chunk(3, dim=-1)")), look=MERGE),
        Mistake("attention without its projection", "After attention comes a linear layer, attention.proj, which mixes the heads.",
                edit=('linear(y, f"{block}.attention.proj")', "y")),
        Mistake("no activation", "You left out the GELU between the two layers of feed-forward. Without it they are one linear layer.",
                edit=('F.gelu(hidden, approximate="tanh")', "hidden")),
        Mistake("the exact GELU", "Very close: the activation is GELU's tanh form, and you took the exact one. F.gelu(x, approximate=\"tanh\").",
                edit=('approximate="tanh"', 'approximate="none"'), look='chapter 9, "The same numbers as Hugging Face"'),
        Mistake("ReLU in place of GELU", "Your activation is ReLU. GPT-2 has GELU, in its tanh form.",
                edit=('F.gelu(hidden, approximate="tanh")', "F.relu(hidden)")),
        Mistake("both branches read the same x", "Feed-forward reads the x that came into the block. It should read what attention left: one comes after the other.",
                edit=(('block = f"blocks.{i}"', 'block = f"blocks.{i}"\nbefore = x'),
                      ('norm(x, f"{block}.norm2")', 'norm(before, f"{block}.norm2")')),
                look='chapter 9, "Two models, one plan"'),
        Mistake("probabilities in place of logits", "You returned probabilities. The task asks for the logits, before any softmax.",
                wrap=lambda right: lambda *a: right(*a).softmax(dim=-1)),
    ),
)  # fmt: skip


def _probe_count(answer):
    yield "the model of the chapter", answer(5, 3, 4, 1, 2, 2, True)
    yield "GPT-2 small", answer(50257, 1024, 768, 12, 12, 12, True)
    yield "fewer key-value heads", answer(11, 7, 24, 2, 6, 3, True)
    yield "with a head of its own", answer(11, 7, 24, 3, 4, 1, False)


COUNT = Exercise(
    "count_gpt2", _probe_count,
    hints=(
        "A linear layer from a to b has a * b weights and b biases: (a + 1) * b. An embedding is a table without biases.",
        "Keys and values are n_kv_head * (n_embd // n_head) wide each; queries are n_embd wide. After attention comes a projection from n_embd to n_embd.",
        "Each layer has two norms of 2 * n_embd numbers, and there is one more at the end. The output layer costs vocab_size * n_embd if it is not tied, and nothing if it is.",
    ),
    explanation="Almost everything grows with the square of n_embd, times n_layer; only the tables grow with the vocabulary.",
    tolerance=1e-9,  # whole numbers: one parameter too many is wrong
    look='chapter 9, "Count on paper"',
    mistakes=(
        Mistake("no biases in the linear layers", "You counted the matrices only. Each linear layer also has one bias for each number it puts out.",
                edit=(("qkv = (n_embd + 1)", "qkv = n_embd"),
                      ("proj = (n_embd + 1)", "proj = n_embd"),
                      ("ffn = (n_embd + 1)", "ffn = n_embd"),
                      ("(4 * n_embd + 1)", "(4 * n_embd)"))),
        Mistake("the tied head counted twice", "You counted an output layer although it is tied. It is the embedding table, which you have counted already.",
                edit=("0 if tie else", ""), look=TIE),
        Mistake("the head is never counted", "Your count is right for tied models. Without a tie, the output layer is a table of its own: vocab_size * n_embd more.",
                edit=("0 if tie else vocab_size * n_embd", "0")),
        Mistake("a bias in the head", "Your count has vocab_size numbers too many where the model is not tied: the output layer has no bias.",
                edit=("0 if tie else vocab_size * n_embd", "0 if tie else vocab_size * (n_embd + 1)"), look=TIE),
        Mistake("tie read the wrong way round", "You count an output layer when tie is True and none when it is False. Tied means that there is no second table.",
                edit=("if tie", "if not tie")),
        Mistake("key-value heads ignored", "You gave every query head keys and values of its own. With n_kv_head heads they are only n_kv_head * head width wide.",
                edit=("n_kv_head * (n_embd // n_head)", "n_embd"), look='chapter 9, "Two families, one config"'),
        Mistake("the last norm forgotten", "Your layers are right, but after the last one there is one more norm: 2 * n_embd numbers.",
                edit=("+ 2 * n_embd", "")),
        Mistake("one norm in a layer", "You counted one norm in a layer. There are two, one before attention and one before feed-forward.",
                edit=("2 * 2 * n_embd", "2 * n_embd"), look=BLOCK),
        Mistake("norms without bias", "You counted one number per channel in a norm. LayerNorm has two: a weight and a bias.",
                edit=(("2 * 2 * n_embd", "2 * n_embd"), ("+ 2 * n_embd", "+ n_embd"))),
        Mistake("positions forgotten", "The table of positions is missing: max_seq_len * n_embd numbers.",
                edit=("max_seq_len * n_embd +", "")),
        Mistake("attention's projection forgotten", "You counted queries, keys and values, but not the projection from n_embd to n_embd that follows them.",
                edit=("qkv + proj", "qkv")),
    ),
)  # fmt: skip


def _probe_loss(answer):
    generator = torch.Generator().manual_seed(9)
    logits = 2 * torch.randn(3, 6, 7, generator=generator)
    ids = torch.randint(7, (3, 6), generator=generator)
    yield "three texts", answer(logits.clone(), ids.clone())

    ids[0, 2:], ids[1, :4], ids[2, 5:] = -100, -100, -100
    yield "with ignored ids", answer(logits.clone(), ids.clone())
    yield "one text of two ids", answer(logits[:1, :2].clone(), torch.tensor([[1, 4]]))
    yield "nothing counts", answer(logits.clone(), torch.full((3, 6), -100))


LOSS = Exercise(
    "lm_loss", _probe_loss,
    hints=(
        "The logits at position t are about the id at position t + 1. The last logits have nothing to be compared with, and the first id is never predicted.",
        "Compare logits[:, :-1] with ids[:, 1:], once. F.cross_entropy takes (N, V) and (N,): flatten both.",
        'Take reduction="sum" and ignore_index=-100, and divide by the number of targets that are not -100, at least 1.',
    ),
    explanation="Every counted token of the batch weighs the same, and a batch without any gives 0, so that it changes no weight.",
    look=MODEL,
    mistakes=(
        Mistake("not shifted at all", "You compared the logits at each position with the id at the same position, which the model has just read. It would learn to copy.",
                edit=(("ids[:, 1:]", "ids"), ("logits[:, :-1]", "logits")), look=HAND),
        Mistake("shifted twice", "You compared each position with the id two positions on. The model would learn to leave out every second id.",
                edit=(("ids[:, 1:]", "ids[:, 2:]"), ("logits[:, :-1]", "logits[:, :-2]")), look='chapter 9, "Break it: shift twice"'),
        Mistake("shifted the wrong way", "You compared each position with the id before it. The model has seen that one; it should say the next.",
                edit=(("ids[:, 1:]", "ids[:, :-1]"), ("logits[:, :-1]", "logits[:, 1:]")), look=HAND),
        Mistake("shifted around the end", "With roll, the last position is asked for the first id of the text. Cut the ends off: logits[:, :-1] and ids[:, 1:].",
                edit=(("ids[:, 1:]", "ids.roll(-1, dims=1)"), ("logits[:, :-1]", "logits")), look=HAND),
        Mistake("flattened before the shift", "You flattened first and shifted then, so the last position of a text is asked for the first id of the next text. Shift each text, then flatten.",
                edit=(("ids[:, 1:]", "ids.flatten()[1:]"), ("logits[:, :-1].flatten(0, 1)", "logits.flatten(0, 1)[:-1]")), look=HAND),
        Mistake("nan when nothing counts", "All is right until no target counts: then you divide 0 by 0 and get nan, which would spoil every weight. Return 0.",
                edit=(".clamp(min=1)", "")),
        Mistake("-100 counted in the mean", "Ignored targets add nothing to the sum, but you divided by their number too. Divide by those that count.",
                edit=("(targets != -100).sum().clamp(min=1)", "targets.numel()")),
        Mistake("ids counted in place of targets", "You divided by the number of ids that are not -100. The first id of a text is no target: count after the shift.",
                edit=("(targets !=", "(ids !=")),
        Mistake("a mean of means", "You averaged each text first and then the texts, so a token of a short text weighs more. Divide once, by all that count.",
                wrap=lambda right: lambda logits, ids: torch.stack([right(x[None], y[None]) for x, y in zip(logits, ids)]).mean()),
        Mistake("divided by the number of texts", "You divided by the number of texts. The loss is per token: divide by the number of targets that count.",
                edit=("(targets != -100).sum().clamp(min=1)", "len(ids)")),
        Mistake("sum instead of mean", "You returned the sum. The loss is in nats per token: divide by the number of targets that count.",
                edit=("/ (targets != -100).sum().clamp(min=1)", "")),
        Mistake("-100 taken for id 0", "You turned -100 into id 0 and counted it. Ignored targets must not count at all: ignore_index=-100.",
                edit=("ids[:, 1:]", "ids[:, 1:].clamp(min=0)")),
        Mistake("softmax before the cross-entropy", "You gave F.cross_entropy probabilities. It takes the logits and computes their log-softmax itself.",
                wrap=lambda right: lambda logits, ids: right(logits.softmax(dim=-1), ids), look=HAND),
        Mistake("the minus is missing", "Your loss is negative. Log-probabilities are below 0; the loss is minus their mean.",
                edit=("return losses", "return -losses"), look=HAND),
    ),
)  # fmt: skip


def _probe_std(answer):
    names = ["embedding.weight", "position.weight", "head.weight", "norm.weight", "norm.bias"]
    parts = ("attention.qkv", "attention.proj", "ffn.gate", "ffn.up", "ffn.down", "norm1", "norm2")
    tails = [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]

    for n_layer, blocks in ((1, (0,)), (12, (0, 1, 11)), (50, (7, 49))):
        for name in names + [f"blocks.{i}.{tail}" for i in blocks for tail in tails]:
            yield f"1000 times that of {name}, n_layer={n_layer}", 1000 * answer(name, n_layer)


FIRST_STD = Exercise(
    "first_std", _probe_std,
    hints=(
        "There are three kinds: weights drawn with 0.02, weights drawn smaller, and weights that are set to 0 or 1 and not drawn at all.",
        "The last matrix of attention is attention.proj.weight, that of feed-forward ffn.down.weight. str.endswith takes a tuple.",
        "Two branches a layer add up in the stream, and squares add: divide by the square root of 2 * n_layer.",
    ),
    explanation="Only the last matrix of a branch decides how much the branch adds, so only this one is made smaller.",
    look=MODEL,
    mistakes=(
        Mistake("one branch a layer", "You divided by the root of n_layer. Each layer has two branches, attention and feed-forward: 2 * n_layer in all.",
                edit=("2 * n_layer", "n_layer")),
        Mistake("the root is forgotten", "You divided by 2 * n_layer itself. Independent contributions add like squares, so take the square root.",
                edit=("** 0.5", ""), look=FRESH),
        Mistake("all layers scaled", "You made every matrix smaller. Only the last one of each branch writes into the stream; the others keep 0.02.",
                edit=(("if name.endswith", 'if "norm" not in name and name.endswith'),
                      ('"attention.proj.weight", "ffn.down.weight"', '"weight",'))),
        Mistake("no scaling at all", "You gave the last matrices 0.02 like all others. In a deep model the stream would grow with every branch.",
                edit=("/ (2 * n_layer) ** 0.5", ""), look=FRESH),
        Mistake("only the last block scaled", "You scaled the last matrices of the last block alone. Every block writes into the stream, so it is so in all of them.",
                edit=('"ffn.down.weight"))', '"ffn.down.weight")) and f"blocks.{n_layer - 1}." in name')),
        Mistake("feed-forward is not scaled", "You scaled attention's last matrix and forgot that of feed-forward, ffn.down.weight.",
                edit=('"attention.proj.weight", "ffn.down.weight"', '"attention.proj.weight",')),
        Mistake("attention is not scaled", "You scaled feed-forward's last matrix and forgot that of attention, attention.proj.weight.",
                edit=('"attention.proj.weight", "ffn.down.weight"', '"ffn.down.weight",')),
        Mistake("the biases of the last matrices are drawn", "attention.proj.bias and ffn.down.bias have the names of the last matrices, but they are biases and start at 0.",
                edit=('name.endswith(("attention.proj.weight", "ffn.down.weight"))', '"attention.proj" in name or "ffn.down" in name')),
        Mistake("biases are drawn", "You drew the biases at random, too. They start at 0: their standard deviation is 0.",
                edit=('or name.endswith("bias")', "")),
        Mistake("norms are drawn", "You drew the weights of the norms at random. They start at exactly 1: their standard deviation is 0.",
                edit=('"norm" in name or', "")),
        Mistake("the value of the norms", "You returned the 1 to which the norms are set. You are asked for the standard deviation: numbers that are all 1 have 0.",
                edit=("return 0.0", 'return 1.0 if name.endswith("weight") else 0.0')),
    ),
)  # fmt: skip


def _probe_forward(answer):
    draw = normal(7)
    embedding, positions = draw(9, 4), draw(6, 4)
    blocks = [lambda x, m=m: x + torch.tanh(x @ m).cumsum(dim=1) for m in draw(3, 4, 4)]

    def norm(x):
        return F.layer_norm(x, (4,))

    for label, ids, layers in (
        ("one block", [[3, 1, 4, 1, 5]], blocks[:1]),
        ("three blocks, two texts", [[3, 1, 4, 1], [5, 0, 2, 6]], blocks),
        ("one id", [[8]], blocks[:2]),
    ):
        yield label, answer(torch.tensor(ids), embedding.clone(), positions.clone(), layers, norm)


FORWARD = Exercise(
    "run_model", _probe_forward,
    hints=(
        "Follow the vector of one token. How often does it learn its position?",
        "A position is added once, to the embedding, before the first block.",
        "x = embedding[ids] + positions[: ids.shape[1]], and in the loop only x = block(x).",
    ),
    explanation="The stream carries the position upwards with everything else, so once is enough; adding it in every layer drowns the words.",
    look=HAND,
    mistakes=(
        Mistake("positions in every layer", "The position is added before every block, so after 12 layers it is in the stream 12 times. Add it once, at the bottom.",
                of="given", look=MODEL),
        Mistake("in every layer, and at the bottom too", "Now the position is added at the bottom, and at every block as well. Once, at the bottom, is enough.",
                edit=("block(x)", "block(x) + positions[: ids.shape[1]]"), also=(("block(x)", "block(x + positions[: ids.shape[1]])"),), look=MODEL),
        Mistake("positions forgotten", "You removed the positions altogether, so the model cannot know the position of a token. Add them once, at the bottom.",
                edit=("+ positions[: ids.shape[1]]", "")),
        Mistake("the final norm forgotten", "The positions are right now, but the norm after the last block is gone. The output layer reads a normed vector.",
                edit=("norm(x)", "x")),
        Mistake("a norm after every block", "You put a norm on the stream after every block. There is one at the very end; the others are inside the blocks.",
                edit=("block(x)", "norm(block(x))"), look=BLOCK),
        Mistake("the residual added twice", "You add x to what the block returns. A block adds to the stream itself: x = block(x).",
                edit=("= block(x)", "= x + block(x)"), look=BLOCK),
        Mistake("the blocks in reverse", "You run the blocks from last to first. The first in the list comes first.",
                edit=("in blocks", "in reversed(blocks)")),
    ),
)  # fmt: skip


def _probe_redraw(answer):
    table, other = torch.ones(5, 4), torch.ones(5, 4)
    square, again = torch.zeros(4, 4), torch.full((4, 4), 7.0)
    two_matrices = {"first": square, "embedding": table, "second": again, "third": square}
    three_names = {"a": table, "b": square, "c": table, "d": again, "e": square, "f": table}

    for label, weights in (
        ("a tied model", {"embedding": table, "proj": square, "head": table}),
        ("an untied model, its tables alike", {"embedding": table, "proj": square, "head": other}),
        ("another tie, and two matrices of one shape", two_matrices),
        ("two ties, one of three names", three_names),
    ):
        drawn = []

        def draw(shape, drawn=drawn):
            drawn.append(torch.full(tuple(shape), 100.0 + len(drawn)))
            return drawn[-1]

        fresh = answer(weights, draw)
        tensors = list(fresh.values())
        yield f"{label}: names", list(fresh)
        yield f"{label}: shapes", [tuple(t.shape) for t in tensors]
        same = [next(i for i, t in enumerate(tensors) if t is x) for x in tensors]
        yield f"{label}: names of one tensor", same
        alike = [next(i for i, t in enumerate(tensors) if t.equal(x)) for x in tensors]
        yield f"{label}: names of equal numbers", alike
        yield f"{label}: freshly drawn", [bool((t >= 100).all()) for t in tensors]


REDRAW = Exercise(
    "redraw", _probe_redraw,
    hints=(
        "How many tensors does the tied model have before the call, and how many after it? `is` tells whether two names mean one.",
        "Before you draw, ask whether you have met this very tensor under another name. id(tensor) is a number for each object.",
        "fresh = {}: for each tensor whose id is not in fresh, draw once; then build the dict by looking ids up.",
    ),
    explanation="A tie is a fact about objects, not about numbers, shapes or names. Our MiniGPT avoids the question: it has one name for one table.",
    look=TIE,
    mistakes=(
        Mistake("the tie is broken", "Each name gets a tensor of its own, so a tied model comes back untied: the head is no longer the embedding.",
                of="given"),
        Mistake("equal numbers, separate tensors", "Both names have the same numbers now, but they are two tensors: after one training step they differ. Return one object.",
                edit=("fresh[id(tensor)] for", "fresh[id(tensor)].clone() for")),
        Mistake("tied by shape", "You share one tensor among all of the same shape. Two matrices that happen to have one shape are still two.",
                edit=("fresh = {}", "fresh = {}\nid = lambda tensor: tuple(tensor.shape)")),
        Mistake("tied by their numbers", "You took tensors with equal numbers for one. An untied model may start with two equal tables: compare objects with `is`.",
                edit=("fresh = {}", "fresh = {}\nid = lambda tensor: str(tensor.tolist())")),
        Mistake("head and embedding by name", "You tie by the names head and embedding, also in a model that is not tied, and miss a tie between other names.",
                of="given",
                edit=(("return", "fresh ="), ("items()}", 'items()}\nif "head" in fresh:\n    fresh["head"] = fresh["embedding"]\nreturn fresh'))),
    ),
)  # fmt: skip
