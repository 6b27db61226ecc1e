"""Exercises of chapter 09: a parameter count, the loss, the first weights, and two models with a bug."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- count the parameters of a GPT-2 ---


def count_gpt2(vocab_size, max_seq_len, n_embd, n_layer, n_head, n_kv_head, tie):
    kv = n_kv_head * (n_embd // n_head)
    qkv = (n_embd + 1) * (n_embd + 2 * kv)
    proj = (n_embd + 1) * n_embd
    ffn = (n_embd + 1) * 4 * n_embd + (4 * n_embd + 1) * n_embd
    layer = qkv + proj + ffn + 2 * 2 * n_embd
    head = 0 if tie else vocab_size * n_embd
    return vocab_size * n_embd + max_seq_len * n_embd + n_layer * layer + 2 * n_embd + head


def _count(biases=True, grouped=True, last_norm=True, positions=True, proj=True, norm_bias=True,
           norms=2, head="right", per_head=False):  # fmt: skip
    def answer(vocab_size, max_seq_len, n_embd, n_layer, n_head, n_kv_head, tie):
        one = 1 if biases else 0
        kv = n_kv_head * (n_embd // n_head) if grouped else n_embd
        layer = (n_embd + one) * (n_embd + 2 * kv) * (n_head if per_head else 1)
        layer += (n_embd + one) * n_embd if proj else 0
        layer += (n_embd + one) * 4 * n_embd + (4 * n_embd + one) * n_embd
        norm = (2 if norm_bias else 1) * n_embd
        total = vocab_size * n_embd + n_layer * (layer + norms * norm)
        total += max_seq_len * n_embd if positions else 0
        total += norm if last_norm else 0
        table = vocab_size * n_embd
        if head == "always":
            return total + table
        if head == "never" or tie and head != "reversed" or not tie and head == "reversed":
            return total
        return total + table + (vocab_size if head == "bias" else 0)

    return answer


def _run_count(answer):
    yield "the model of the chapter", answer(5, 3, 4, 1, 2, 2, True)
    yield "GPT-2 small", answer(50257, 1024, 768, 12, 12, 12, True)
    yield "fewer key-value heads", answer(11, 7, 24, 2, 6, 3, True)
    yield "with a head of its own", answer(11, 7, 24, 3, 4, 1, False)


COUNT = Exercise(
    name="count_gpt2",
    chapter=9,
    title="Count before you build",
    minutes=20,
    difficulty=1,
    hints=(
        "A linear layer from a to b has a * b weights and b biases: (a + 1) * b. An embedding is a table without biases.",
        "Keys and values are n_kv_head * (n_embd // n_head) wide each; queries are n_embd wide. After attention comes a "
        "projection from n_embd to n_embd.",
        "Each layer has two norms of 2 * n_embd numbers, and there is one more at the end. The head costs vocab_size * n_embd if "
        "it is not tied, and nothing if it is.",
    ),
    run=_run_count,
    reference=count_gpt2,
    tolerance=1e-9,  # whole numbers: one parameter too many is wrong
    explanation="Almost everything grows with the square of n_embd, times n_layer; only the tables grow with the vocabulary.",
    wrong=(
        WrongAnswer(
            "no biases in the linear layers",
            "You counted the matrices only. Each linear layer also has one bias for each number it puts out.",
            'chapter 9, "Count on paper first"',
            _count(biases=False),
        ),
        WrongAnswer(
            "the tied head counted twice",
            "You counted a head although it is tied. It is the embedding table, which you have counted already.",
            'chapter 9, "Break it: the tie that came apart"',
            _count(head="always"),
        ),
        WrongAnswer(
            "the head is never counted",
            "Your count is right for tied models. Without a tie, the head is a table of its own: vocab_size * n_embd more.",
            'chapter 9, "Count on paper first"',
            _count(head="never"),
        ),
        WrongAnswer(
            "tie read the wrong way round",
            "You count a head when tie is True and none when it is False. Tied means that there is no second table.",
            'chapter 9, "Count on paper first"',
            _count(head="reversed"),
        ),
        WrongAnswer(
            "a bias in the head",
            "You gave the head a bias for each id. In GPT-2, and here, it has none.",
            'chapter 9, "Count on paper first"',
            _count(head="bias"),
        ),
        WrongAnswer(
            "key-value heads ignored",
            "You gave every query head keys and values of its own. With n_kv_head heads they are only n_kv_head * head width wide.",
            'chapter 9, "One config, two families"',
            _count(grouped=False),
        ),
        WrongAnswer(
            "the last norm forgotten",
            "Your layers are right, but after the last one there is one more norm: 2 * n_embd numbers.",
            'chapter 9, "Count on paper first"',
            _count(last_norm=False),
        ),
        WrongAnswer(
            "one norm in a layer",
            "You counted one norm in a layer. There are two, one before attention and one before feed-forward.",
            'chapter 9, "One block"',
            _count(norms=1),
        ),
        WrongAnswer(
            "norms without bias",
            "You counted one number per channel in a norm. LayerNorm has two: a weight and a bias.",
            'chapter 9, "Count on paper first"',
            _count(norm_bias=False),
        ),
        WrongAnswer(
            "positions forgotten",
            "The table of positions is missing: max_seq_len * n_embd numbers.",
            'chapter 9, "Count on paper first"',
            _count(positions=False),
        ),
        WrongAnswer(
            "attention's projection forgotten",
            "You counted queries, keys and values, but not the projection from n_embd to n_embd that follows them.",
            'chapter 9, "Count on paper first"',
            _count(proj=False),
        ),
        WrongAnswer(
            "every head at full width",
            "You multiplied queries, keys and values by n_head. The heads share the width: together they have n_embd numbers.",
            'chapter 9, "Count on paper first"',
            _count(per_head=True),
        ),
    ),
)  # fmt: skip

# --- the loss of a language model ---


def lm_loss(logits, ids):
    targets = ids[:, 1:]
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
    )
    return losses / (targets != -100).sum().clamp(min=1)


def _losses(logits, targets):
    """Return the loss at each place, 0 where the target is ignored."""
    return F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")


def _loss(ahead=1, divide="counted", base_two=False):
    def answer(logits, ids):
        T = ids.shape[1]
        if ahead >= 0:
            logits, targets = logits[:, : T - ahead], ids[:, ahead:]
        else:
            logits, targets = logits[:, 1:], ids[:, :-1]
        losses, counted = _losses(logits, targets), targets != -100
        if divide == "all":
            return losses.mean()
        if divide == "sum":
            return losses.sum()
        if divide == "nan":
            return losses.sum() / counted.sum()
        if divide == "texts":
            return (losses.sum(dim=1) / counted.sum(dim=1).clamp(min=1)).mean()
        if divide == "batch":
            return losses.sum() / len(ids)
        return losses.sum() / counted.sum().clamp(min=1)

    return answer


def _around(logits, ids):
    """Shift with torch.roll: the last place must predict the first id."""
    targets = ids.roll(-1, dims=1)
    return _losses(logits, targets).sum() / (targets != -100).sum().clamp(min=1)


def _ignored_as_zero(logits, ids):
    targets = ids[:, 1:].clamp(min=0)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


def _run_loss(answer):
    generator = torch.Generator().manual_seed(9)
    logits = 2 * torch.randn(3, 6, 7, generator=generator)
    ids = torch.randint(7, (3, 6), generator=generator)
    yield "three texts", answer(logits.clone(), ids.clone())
    ids[0, 2:], ids[1, :4], ids[2, 5:] = -100, -100, -100
    yield "with ignored ids", answer(logits.clone(), ids.clone())
    yield "one text of two ids", answer(logits[:1, :2].clone(), torch.tensor([[1, 4]]))
    yield "nothing counts", answer(logits.clone(), torch.full((3, 6), -100))
    wide = torch.randn(2, 4, 11, generator=generator)
    yield "eleven ids in the vocabulary", answer(wide, torch.tensor([[10, 2, 9, 0], [8, 8, 1, 7]]))


LOSS = Exercise(
    name="lm_loss",
    chapter=9,
    title="The loss of a language model",
    minutes=20,
    difficulty=2,
    hints=(
        "The logits at place t are about the id at place t + 1. The last logits have nothing to be compared with, and the first "
        "id is never predicted.",
        "Compare logits[:, :-1] with ids[:, 1:], once. F.cross_entropy takes (N, V) and (N,): flatten both.",
        'Take reduction="sum" and ignore_index=-100, and divide by the number of targets that are not -100, at least 1.',
    ),
    run=_run_loss,
    reference=lm_loss,
    explanation="Every counted token of the batch weighs the same, and a batch without any gives 0, so that it changes no weight.",
    wrong=(
        WrongAnswer(
            "not shifted at all",
            "You compared the logits at each place with the id at the same place, which the model has just read. It would learn to copy.",
            'chapter 9, "From ids to a loss, by hand"',
            _loss(ahead=0),
        ),
        WrongAnswer(
            "shifted twice",
            "You compared each place with the id two places on. The model would learn to leave out every second id.",
            'chapter 9, "Break it: shift twice"',
            _loss(ahead=2),
        ),
        WrongAnswer(
            "shifted the wrong way",
            "You compared each place with the id before it. The model has seen that one; it should say the next.",
            'chapter 9, "From ids to a loss, by hand"',
            _loss(ahead=-1),
        ),
        WrongAnswer(
            "shifted around the end",
            "With roll, the last place is asked for the first id of the text. Cut the ends off: logits[:, :-1] and ids[:, 1:].",
            "hint 2",
            _around,
        ),
        WrongAnswer(
            "-100 counted in the mean",
            "Ignored targets add nothing to the sum, but you divided by their number too. Divide by those that count.",
            'chapter 9, "The loss, and what does not count"',
            _loss(divide="all"),
        ),
        WrongAnswer(
            "a mean of means",
            "You averaged each text first and then the texts, so a token of a short text weighs more. Divide once, by all that count.",
            'chapter 9, "The loss, and what does not count"',
            _loss(divide="texts"),
        ),
        WrongAnswer(
            "divided by the number of texts",
            "You divided by the number of texts. The loss is per token: divide by the number of targets that count.",
            'chapter 9, "The loss, and what does not count"',
            _loss(divide="batch"),
        ),
        WrongAnswer(
            "sum instead of mean",
            "You returned the sum. The loss is in nats per token: divide by the number of targets that count.",
            'chapter 9, "The loss, and what does not count"',
            _loss(divide="sum"),
        ),
        WrongAnswer(
            "nan when nothing counts",
            "All is right until no target counts: then you divide 0 by 0 and get nan, which would spoil every weight. Return 0.",
            'chapter 9, "The whole model"',
            _loss(divide="nan"),
        ),
        WrongAnswer(
            "-100 taken for id 0",
            "You turned -100 into id 0 and counted it. Ignored targets must not count at all: ignore_index=-100.",
            "hint 3",
            _ignored_as_zero,
        ),
    ),
)

# --- the spread of the first weights ---


def first_std(name, n_layer):
    if name.endswith(("attention.proj.weight", "ffn.down.weight")):
        return 0.02 / (2 * n_layer) ** 0.5
    if "norm" in name or name.endswith("bias"):
        return 0.0
    return 0.02


def _std(
    branches=2, root=True, last=("attention.proj.weight", "ffn.down.weight"), small=(), divide=True
):
    def answer(name, n_layer):
        if "norm" in name and "norm" not in small or name.endswith("bias") and "bias" not in small:
            return 0.0
        scale = branches * n_layer
        scale = scale**0.5 if root else scale
        if name.endswith(tuple(last)):
            return 0.02 / scale if divide else 0.02 * scale
        return 0.02

    return answer


def _run_std(answer):
    names = ("embedding.weight", "position.weight", "head.weight", "norm.weight", "norm.bias")
    parts = ("attention.qkv", "attention.proj", "ffn.gate", "ffn.up", "ffn.down", "norm1", "norm2")
    for n_layer in (1, 12, 50):
        for name in names:
            yield f"{name} of {n_layer} layers", answer(name, n_layer)
        for part in parts:
            for kind in ("weight", "bias"):
                name = f"blocks.{n_layer - 1}.{part}.{kind}"
                yield f"{name} of {n_layer} layers", answer(name, n_layer)


FIRST_STD = Exercise(
    name="first_std",
    chapter=9,
    title="The spread of the first weights",
    minutes=15,
    difficulty=1,
    hints=(
        "Three kinds: what is drawn with 0.02, what is drawn smaller, and what is not drawn at all but set to 0 or 1.",
        "The last matrix of attention is attention.proj.weight, that of feed-forward ffn.down.weight. str.endswith takes a tuple.",
        "Two branches a layer add up in the stream, and squares add: divide by the square root of 2 * n_layer.",
    ),
    run=_run_std,
    reference=first_std,
    explanation="Only the last matrix of a branch decides how much the branch adds, so only this one is made smaller.",
    wrong=(
        WrongAnswer(
            "one branch a layer",
            "You divided by the root of n_layer. Each layer has two branches, attention and feed-forward: 2 * n_layer in all.",
            'chapter 9, "The whole model"',
            _std(branches=1),
        ),
        WrongAnswer(
            "the root is forgotten",
            "You divided by 2 * n_layer itself. Independent contributions add like squares, so take the square root.",
            'chapter 9, "A fresh model knows nothing"',
            _std(root=False),
        ),
        WrongAnswer(
            "multiplied instead of divided",
            "Your factor makes the last matrices larger with depth. They should be smaller: divide.",
            'chapter 9, "A fresh model knows nothing"',
            _std(divide=False),
        ),
        WrongAnswer(
            "all layers scaled",
            "You made every matrix smaller. Only the last one of each branch pours into the stream; the others keep 0.02.",
            'chapter 9, "The whole model"',
            _std(last=("weight",)),
        ),
        WrongAnswer(
            "all matrices of the blocks scaled",
            "Inside the blocks you made every matrix smaller. Only attention.proj and ffn.down are the last of their branch.",
            'chapter 9, "The whole model"',
            _std(last=("qkv.weight", "proj.weight", "gate.weight", "up.weight", "down.weight")),
        ),
        WrongAnswer(
            "no scaling at all",
            "You gave the last matrices 0.02 like all others. In a deep model the stream would grow with every branch.",
            'chapter 9, "A fresh model knows nothing"',
            _std(last=("nothing",)),
        ),
        WrongAnswer(
            "feed-forward is not scaled",
            "You scaled attention's last matrix and forgot that of feed-forward, ffn.down.weight.",
            'chapter 9, "The whole model"',
            _std(last=("attention.proj.weight",)),
        ),
        WrongAnswer(
            "attention is not scaled",
            "You scaled feed-forward's last matrix and forgot that of attention, attention.proj.weight.",
            'chapter 9, "The whole model"',
            _std(last=("ffn.down.weight",)),
        ),
        WrongAnswer(
            "biases are drawn",
            "You drew the biases at random too. They start at 0: their spread is 0.",
            'chapter 9, "The whole model"',
            _std(small=("bias",)),
        ),
        WrongAnswer(
            "norms are drawn",
            "You drew the weights of the norms at random. They start at exactly 1: their spread is 0.",
            'chapter 9, "The whole model"',
            _std(small=("norm",)),
        ),
    ),
)

# --- find the bug: a forward pass ---


def run_model(ids, embedding, places, blocks, norm):
    x = embedding[ids] + places[: ids.shape[1]]
    for block in blocks:
        x = block(x)
    return norm(x) @ embedding.T


def _given_model(ids, embedding, places, blocks, norm):
    """Return the logits (B, T, V) of a GPT with tied weights."""
    x = embedding[ids]
    for block in blocks:
        x = block(x + places[: ids.shape[1]])
    return norm(x) @ embedding.T


def _forward(position="once", last=True, residual=False, reverse=False, every=False):
    def answer(ids, embedding, places, blocks, norm):
        x = embedding[ids]
        T = ids.shape[1]
        if position == "once":
            x = x + places[:T]
        elif position == "by id":
            x = x + places[ids % len(places)]
        elif position == "last":
            x = x + places[len(places) - T :]
        elif position == "one":
            x = x + places[T - 1]
        start = x
        for block in reversed(blocks) if reverse else blocks:
            x = x + block(x) if residual else block(start if every else x)
            if last == "every":
                x = norm(x)
        if position == "top":
            x = x + places[:T]
        return (norm(x) if last else x) @ embedding.T

    return answer


def _in_every_layer(ids, embedding, places, blocks, norm):
    return _given_model(ids, embedding, places, blocks, norm)


def _again_at_every_layer(ids, embedding, places, blocks, norm):
    x = embedding[ids] + places[: ids.shape[1]]
    for block in blocks:
        x = block(x) + places[: ids.shape[1]]
    return norm(x) @ embedding.T


def _run_forward(answer):
    generator = torch.Generator().manual_seed(7)
    embedding, places = (torch.randn(*s, generator=generator) for s in ((9, 4), (6, 4)))
    matrices = torch.randn(3, 4, 4, generator=generator)
    blocks = [lambda x, m=m: x + torch.tanh(x @ m).cumsum(dim=1) for m in matrices]

    def norm(x):
        return F.layer_norm(x, (4,))

    for label, ids, layers in (
        ("no block", [[3, 1, 4, 1, 5]], []),
        ("one block", [[3, 1, 4, 1, 5]], blocks[:1]),
        ("three blocks, two texts", [[3, 1, 4, 1], [5, 0, 2, 6]], blocks),
        ("one id", [[8]], blocks[:2]),
    ):
        yield label, answer(torch.tensor(ids), embedding.clone(), places.clone(), layers, norm)


FORWARD = Exercise(
    name="run_model",
    chapter=9,
    title="find the bug: a forward pass",
    minutes=15,
    difficulty=2,
    hints=(
        "Follow the vector of one token. How often does it learn at which place it stands?",
        "A position is added once, to the embedding, before the first block.",
        "x = embedding[ids] + places[: ids.shape[1]], and in the loop only x = block(x).",
    ),
    run=_run_forward,
    reference=run_model,
    given=_given_model,
    explanation="The stream carries the position upwards with everything else, so once is enough; adding it in every layer makes the place louder than the words.",
    wrong=(
        WrongAnswer(
            "positions in every layer",
            "The position is added before every block, so after 12 layers it is in the stream 12 times. Add it once, at the bottom.",
            'chapter 9, "The whole model"',
            _in_every_layer,
        ),
        WrongAnswer(
            "in every layer, and at the bottom too",
            "Now the position is added before the blocks and after each of them as well. Once, at the bottom, is enough.",
            'chapter 9, "The whole model"',
            _again_at_every_layer,
        ),
        WrongAnswer(
            "positions forgotten",
            "You removed the positions altogether, so the model cannot know at which place a token stands. Add them once, at the bottom.",
            'chapter 9, "From ids to a loss, by hand"',
            _forward(position="none"),
        ),
        WrongAnswer(
            "positions at the top",
            "You add the positions after the last block, where no attention will see them. Add them before the first one.",
            'chapter 9, "From ids to a loss, by hand"',
            _forward(position="top"),
        ),
        WrongAnswer(
            "positions by id",
            "You look the position up with the id. Place 0 gets places[0], place 1 gets places[1], whatever ids are there.",
            "hint 3",
            _forward(position="by id"),
        ),
        WrongAnswer(
            "the last rows of the table",
            "You took the last rows of the table of positions. A text starts at place 0: places[: ids.shape[1]].",
            "hint 3",
            _forward(position="last"),
        ),
        WrongAnswer(
            "one position for all",
            "Every token gets the same position, that of the last place. Each needs its own row: places[: ids.shape[1]].",
            "hint 3",
            _forward(position="one"),
        ),
        WrongAnswer(
            "the final norm forgotten",
            "The positions are right now, but the norm after the last block is gone. The head reads a normed vector.",
            'chapter 9, "From ids to a loss, by hand"',
            _forward(last=False),
        ),
        WrongAnswer(
            "a norm after every block",
            "You put a norm on the stream after every block. There is one at the very end; the others are inside the blocks.",
            'chapter 9, "One block"',
            _forward(last="every"),
        ),
        WrongAnswer(
            "the residual added twice",
            "You add x to what the block returns. A block adds to the stream itself: x = block(x).",
            'chapter 9, "One block"',
            _forward(residual=True),
        ),
        WrongAnswer(
            "every block reads the bottom",
            "All blocks read the embedding, and only the last one counts. Each should read what the block before it left.",
            'chapter 9, "One block"',
            _forward(every=True),
        ),
        WrongAnswer(
            "the blocks in reverse",
            "You run the blocks from last to first. The first in the list comes first.",
            "hint 3",
            _forward(reverse=True),
        ),
    ),
)

# --- find the bug: weights drawn anew ---


def redraw(weights, draw):
    fresh = {}
    for tensor in weights.values():
        if id(tensor) not in fresh:
            fresh[id(tensor)] = draw(tensor.shape)
    return {name: fresh[id(tensor)] for name, tensor in weights.items()}


def _given_redraw(weights, draw):
    """Return fresh weights under the same names; what was one tensor under two names stays one."""
    return {name: draw(tensor.shape) for name, tensor in weights.items()}


def _untied(weights, draw):
    return _given_redraw(weights, draw)


def _by(key):
    def answer(weights, draw):
        fresh = {}
        return {n: fresh.setdefault(key(n, t), draw(t.shape)) for n, t in weights.items()}

    return answer


def _copies(weights, draw):
    return {name: tensor.clone() for name, tensor in redraw(weights, draw).items()}


def _only_head_and_embedding(weights, draw):
    fresh = {name: draw(tensor.shape) for name, tensor in weights.items()}
    if "head" in fresh:
        fresh["head"] = fresh["embedding"]
    return fresh


def _old_one(weights, draw):
    seen, fresh = set(), {}
    for name, tensor in weights.items():
        fresh[name] = tensor if id(tensor) in seen else draw(tensor.shape)
        seen.add(id(tensor))
    return fresh


def _left_out(weights, draw):
    seen, fresh = set(), {}
    for name, tensor in weights.items():
        if id(tensor) not in seen:
            fresh[name] = draw(tensor.shape)
        seen.add(id(tensor))
    return fresh


def _run_redraw(answer):
    table, other = torch.ones(5, 4), torch.ones(5, 4)
    square, again = torch.zeros(4, 4), torch.full((4, 4), 7.0)
    models = {
        "a tied model": {"embedding": table, "proj": square, "head": table},
        "an untied model, its tables alike": {"embedding": table, "proj": square, "head": other},
        "another tie, and two matrices of one shape": {
            "first": square, "embedding": table, "second": again, "third": square
        },
        "two ties, one of three names": {
            "a": table, "b": square, "c": table, "d": again, "e": square, "f": table
        },
    }  # fmt: skip
    for label, weights in models.items():
        drawn = []

        def draw(shape, drawn=drawn):
            drawn.append(torch.full(tuple(shape), 100.0 + len(drawn)))
            return drawn[-1]

        fresh = answer(weights, draw)
        yield f"{label}: names", list(fresh)
        yield f"{label}: shapes", [tuple(tensor.shape) for tensor in fresh.values()]
        tensors = list(fresh.values())
        first = [next(i for i, t in enumerate(tensors) if t is tensor) for tensor in tensors]
        yield f"{label}: names of one tensor", first
        alike = [next(i for i, t in enumerate(tensors) if t.equal(x)) for x in tensors]
        yield f"{label}: names of equal numbers", alike
        yield f"{label}: freshly drawn", [bool((t >= 100).all()) for t in tensors]


REDRAW = Exercise(
    name="redraw",
    chapter=9,
    title="find the bug: weights drawn anew",
    minutes=20,
    difficulty=3,
    hints=(
        "How many tensors does the tied model have before the call, and how many after it? `is` tells whether two names mean one.",
        "Before you draw, ask whether this very tensor has been met under another name. id(tensor) is a number for each object.",
        "fresh = {}: for each tensor whose id is not in fresh, draw once; then build the dict by looking ids up.",
    ),
    run=_run_redraw,
    reference=redraw,
    given=_given_redraw,
    explanation="A tie is a fact about objects, not about numbers, shapes or names. Our MiniGPT avoids the question: it has one name for one table.",
    wrong=(
        WrongAnswer(
            "the tie is broken",
            "Each name gets a tensor of its own, so a tied model comes back untied: the head is no longer the embedding.",
            'chapter 9, "Break it: the tie that came apart"',
            _untied,
        ),
        WrongAnswer(
            "equal numbers, separate tensors",
            "Both names have the same numbers now, but they are two tensors: after one training step they differ. Return one object.",
            'chapter 9, "Break it: the tie that came apart"',
            _copies,
        ),
        WrongAnswer(
            "tied by shape",
            "You share one tensor among all of the same shape. Two matrices that happen to have one shape are still two.",
            "hint 2",
            _by(lambda name, tensor: tuple(tensor.shape)),
        ),
        WrongAnswer(
            "tied by their numbers",
            "You took tensors with equal numbers for one. An untied model may start with two equal tables: compare objects with `is`.",
            "hint 2",
            _by(lambda name, tensor: (tuple(tensor.shape), tuple(tensor.flatten().tolist()))),
        ),
        WrongAnswer(
            "head and embedding by name",
            "You tie by the names head and embedding, also in a model that is not tied, and miss a tie between other names.",
            "hint 2",
            _only_head_and_embedding,
        ),
        WrongAnswer(
            "the second name keeps the old tensor",
            "Under its second name the tensor was left as it was, so the tie is broken and the head is not fresh.",
            'chapter 9, "Break it: the tie that came apart"',
            _old_one,
        ),
        WrongAnswer(
            "the second name is lost",
            "The second name of a tensor is missing in the result. Return all names; two of them may mean one tensor.",
            "hint 3",
            _left_out,
        ),
    ),
)

EXERCISES = (COUNT, LOSS, FIRST_STD, FORWARD, REDRAW)
