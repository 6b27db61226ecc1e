"""The warm-ups: attention, a causal mask, a small model, a sampler and a character tokenizer. They need no chapter."""

import math
from functools import cache, partial

import torch
import torch.nn.functional as F

from courseware.exercises import Broken, Exercise, Mistake, normal


def _probe_attention(answer):
    draw = normal(1)
    for name, shape, width in (("one head", (5, 4), 3), ("a batch of heads", (2, 3, 6, 16), 8)):
        q, k, v = 2 * draw(*shape), draw(*shape), draw(*shape[:-1], width)
        yield f"{name}, every position sees every other", answer(q, k, v)
        yield f"{name}, is_causal=True", answer(q, k, v, is_causal=True)


ATTENTION = Exercise(
    "attention", _probe_attention,
    hints=(
        "Three steps: scores between every query and every key, weights from the scores, a weighted sum of values.",
        "`q @ k.transpose(-2, -1)` has one row for each query and one column for each key. Divide by √d.",
        "For the causal case, set the scores of later keys to -inf before the softmax: exp(-inf) is 0.",
        "`torch.ones(T, T, dtype=torch.bool).tril()` is True where a query may look; the softmax runs over dim=-1.",
    ),
    explanation="Scores, scaled by √d; future keys at -inf; softmax over the keys; weighted sum of the values.",
    mistakes=(
        Mistake("the √d is missing", "The weights are too sharp: the scores were not divided by √d, so their standard deviation grows with the width.",
                edit=("/ math.sqrt(q.shape[-1])", ""), look='chapter 5, "Why the square root"'),
        Mistake("divided by d instead of √d", "The weights are too flat: you divided by d. The standard deviation of a sum of d products is √d, not d.",
                edit=("math.sqrt(q.shape[-1])", "q.shape[-1]"), look='chapter 5, "Why the square root"'),
        Mistake("divided by the square root of the sequence length", "You scaled by √T. The size that matters is the width of a query, its last dimension: q.shape[-1], not q.shape[-2].",
                edit=("math.sqrt(q.shape[-1])", "math.sqrt(q.shape[-2])")),
        Mistake("softmax over the queries", "Each column of your weights sums to 1 instead of each row: the softmax ran over the queries. It runs over the keys, dim=-1.",
                edit=("dim=-1", "dim=-2")),
        Mistake("the mask hides the past", "With is_causal=True, each position sees the future and not the past: the mask is on the wrong side. tril keeps what is on and below the diagonal.",
                edit=("tril()", "triu()")),
        Mistake("the mask is off by one: a position cannot see itself", "The diagonal is masked too. The first row then has nothing to look at, and its softmax is nan.",
                edit=("tril()", "tril(-1)")),
        Mistake("the mask is off by one: a position sees one step ahead", "Each position also sees the next one, the very token it should predict. Training would look wonderful.",
                edit=("tril()", "tril(1)")),
        Mistake("forbidden scores set to 0", "A masked score became 0, and exp(0) = 1 is a real weight. Only -inf makes the weight 0.",
                edit=('float("-inf")', "0.0")),
        Mistake("masked after the softmax", "The masked weights are 0, but the others no longer sum to 1: mask the scores, before the softmax.",
                edit=('scores = scores.masked_fill(~allowed, float("-inf"))', "return (torch.softmax(scores, dim=-1) * allowed) @ v")),
        Mistake("is_causal is ignored", "With is_causal=True nothing changes.",
                edit=("if is_causal:", "if False:")),
        Mistake("always causal", "Your mask is there without is_causal=True, too. Then every position may see every other.",
                edit=("if is_causal:", "if True:")),
        Mistake("returned the weights", "You returned the attention weights; the last step, the weighted sum of the values, is missing.",
                edit=("@ v", "")),
    ),
)  # fmt: skip


def _probe_mask(answer):
    toy = torch.tensor([[1.0, 2, 3, 4], [0, 0, 5, 5], [2, 1, 0, 9], [1, 1, 1, 1]])
    mask, weights = answer(toy)
    yield "the mask", mask
    yield "the weights of the toy matrix", weights


_ROWS = "Row = who looks, column = what is looked at: row 0 may see only column 0."
CAUSAL_MASK = Exercise(
    "causal_mask", _probe_mask,
    hints=(
        "Row i says what position i may look at: itself and everything before it. Row 0 has one True.",
        "Write the four rows out: 1, 2, 3, 4 times True, and the rest False.",
        "`scores.masked_fill(~mask, float('-inf'))` puts -inf where the mask is False.",
    ),
    explanation="True on and below the diagonal; -inf elsewhere before a softmax over each row.",
    mistakes=(
        Mistake("the mask hides the past", f"It is True above the diagonal. {_ROWS}",
                edit=("weights =", "mask = mask.T\nweights =")),
        Mistake("the diagonal is missing", "No position may look at itself, so row 0 sees nothing and its weights are nan.",
                edit=("weights =", "mask = mask.tril(-1)\nweights =")),
        Mistake("one step too far", f"Each position sees the next one as well. {_ROWS}",
                edit=("weights =", "mask = torch.ones(4, 4).tril(1).bool()\nweights =")),
        Mistake("True and False swapped", "The weights are right, but your mask is True where looking is forbidden. Here True means allowed.",
                edit=("return mask", "return ~mask")),
        Mistake("what is allowed is filled", "The mask is right, but you filled where it is True. masked_fill(~mask, -inf) fills what is forbidden.",
                edit=("~mask", "mask")),
        Mistake("multiplied instead of filled", "You multiplied the scores by the mask. A masked score became 0, and exp(0) = 1 is a real weight; -inf makes it 0.",
                edit=('scores.masked_fill(~mask, float("-inf"))', "scores * mask")),
        Mistake("masked after the softmax", "Rows of your weights do not sum to 1: mask the scores first, then take the softmax.",
                edit=('scores.masked_fill(~mask, float("-inf")), dim=-1)', "scores, dim=-1) * mask")),
        Mistake("softmax over the columns", "Columns sum to 1 instead of rows: dim=-1.",
                edit=("dim=-1", "dim=0")),
        Mistake("an additive mask", "The weights are right; the mask was asked for as True and False, and yours holds 0 and -inf. PyTorch accepts both kinds, but they must not be mixed up.",
                edit=("return mask", 'return torch.zeros(4, 4).masked_fill(~mask, float("-inf"))')),
    ),
)  # fmt: skip

# ---------------------------------------------------------------- 3. a 2-layer MLP that predicts the next character
#
# Trained models differ between right answers, so this exercise is judged by what must hold: what the model returns, whether
# the reported loss is the model's loss, and whether that loss is where it must be.

CHARACTERS = 200_000  # of the plays; enough for a bigram, and quick
# The counted bigram of the training part has 2.41 nats per character on the validation part, and that of the validation
# part itself 2.34, the least that any function of one character can reach. A trained model is a little above the first.
LOWEST, HIGHEST = 2.3, 2.75


@cache
def bigram_data():
    """Return (train ids, validation ids, vocabulary size) of the beginning of the plays, split 9 to 1."""
    from courseware.material import corpus

    text = corpus.shakespeare()[:CHARACTERS]
    alphabet = sorted(set(text))
    id_of = {character: i for i, character in enumerate(alphabet)}
    ids = torch.tensor([id_of[character] for character in text])
    cut = len(ids) * 9 // 10
    return ids[:cut], ids[cut:], len(alphabet)


def _probe_mlp(answer):
    """Train once; yield what is returned, and the mistake that it shows, if any."""
    train_ids, val_ids, vocab_size = bigram_data()
    model, reported = answer(train_ids.clone(), val_ids.clone(), vocab_size)
    yield "val_loss is a float", type(reported).__name__

    logits = model(val_ids[:6].view(2, 3))
    yield "the shape of model(ids) for ids of shape (2, 3)", tuple(logits.shape)

    mistake = _mlp_mistake(model, reported)
    if mistake:
        yield "what must hold", Broken(mistake)


def _mlp_mistake(model, reported):
    """Return the name of the mistake that a model and its reported loss show, or None."""
    train_ids, val_ids, _ = bigram_data()
    with torch.no_grad():
        logits = model(val_ids[:-1])
        val_loss = F.cross_entropy(logits, val_ids[1:]).item()
        train_loss = F.cross_entropy(model(train_ids[:-1]), train_ids[1:]).item()
        copying = F.cross_entropy(logits, val_ids[:-1]).item()

    if bool((logits >= 0).all()) and torch.allclose(logits.sum(-1), torch.tensor(1.0), atol=1e-3):
        return "softmax before the loss"
    if copying < 0.5 < val_loss:
        return "the target is the input"
    if not val_loss <= HIGHEST:  # so that nan counts as not learned
        return "the model did not learn"

    # Strict, since a bigram does not overfit: its losses on the two parts differ only in the fourth digit.
    is_reported = partial(math.isclose, reported, rel_tol=1e-5)
    for name, value in (
        ("the loss of the training part", train_loss),
        ("a sum instead of a mean", val_loss * (len(val_ids) - 1)),
        ("bits instead of nats", val_loss / math.log(2)),
    ):
        if is_reported(value) and not is_reported(val_loss):
            return name

    if not math.isclose(reported, val_loss, rel_tol=2e-2):  # a sample may be a little off
        return "another loss than the model's"
    return "too good to be true" if val_loss < LOWEST else None


MLP_BIGRAM = Exercise(
    "mlp_bigram", _probe_mlp,
    hints=(
        "The model: Embedding(vocab_size, 32), Linear(32, 64), ReLU, Linear(64, vocab_size). It returns logits.",
        "One step: draw random positions i, predict train_ids[i + 1] from train_ids[i], cross-entropy, backward, step.",
        "AdamW with lr=1e-2 and 400 steps of 1024 positions come below 2.7 nats in a few seconds.",
        "The validation loss: F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item(), without gradients.",
    ),
    explanation="One character in, logits for the next one out; the target is the input shifted by one.",
    seconds=120.0,  # ours takes about two seconds on two free cores
    mistakes=(
        Mistake("the target is the input", "Your model predicts the character that it was given. The target is the *next* one: train_ids[i + 1] for the input train_ids[i]."),
        Mistake("softmax before the loss", "Your model returns probabilities. F.cross_entropy takes logits and applies the softmax itself: leave the last layer linear."),
        Mistake("the model did not learn", f"Its validation loss is above {HIGHEST} nats per character. Are the old gradients set to zero before each backward()? Does the optimizer step after it? Is the learning rate right?"),
        Mistake("the loss of the training part", "The number that you report is the loss on the training text. Evaluate on val_ids."),
        Mistake("a sum instead of a mean", "The number that you report is summed over all positions; it would grow with the text. F.cross_entropy takes the mean by default."),
        Mistake("bits instead of nats", "You divided by ln 2. That is bits per character, a fine unit, but the task asks for nats.",
                look='chapter 4, "Two other ways to say it"'),
        Mistake("another loss than the model's", "The number that you report is not the loss of the model that you return, measured on all of val_ids."),
        Mistake("too good to be true", f"Below {LOWEST} nats: one character does not tell that much about the next. Has it seen val_ids?",
                look='chapter 3, "Set a part aside"'),
    ),
)  # fmt: skip

# The frequency of a token then has a standard error of at most 0.0092. The tolerance, 0.035 of the whole and 0.035 of the frequency,
# is five of them, so a right sampler is rejected less than once in a hundred thousand times; the mistakes are further apart.
_DRAWS = 3000
_SETTINGS = {
    "plain": {},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 0": {"temperature": 0.0},
    "top_k=2": {"top_k": 2},
    "top_p=0.7": {"top_p": 0.7},
    "temperature 2 and top_p=0.6": {"temperature": 2.0, "top_p": 0.6},
}


def _probe_sampler(answer):
    """Yield how often each token is drawn; the reference says it exactly, which is quicker and has no noise."""
    for name, setting in _SETTINGS.items():
        shares = torch.zeros(6)
        draws = 1 if getattr(answer, "exact", False) else 20 if name == "temperature 0" else _DRAWS
        for _ in range(draws):
            drawn = answer(torch.tensor([2.0, 3.0, 0.5, 1.0, -1.0, 2.5]), **setting)
            if isinstance(drawn, torch.Tensor) and draws == 1:
                shares += drawn
            else:
                shares[drawn] += 1 / draws

        if name == "temperature 0":
            yield "temperature 0 always gives token 1", bool(shares[1] > 0.99)
        else:
            yield f"frequencies, {name}", shares


SAMPLER = Exercise(
    "sampler", _probe_sampler,
    hints=(
        "Four steps in this order: divide the logits by the temperature, cut with top-k, softmax, cut with top-p.",
        "Temperature 0 means: take the most likely token. Treat it first, so that nothing is divided by 0.",
        "Top-k: find the k-th largest logit with topk and set everything below it to -inf.",
        "Top-p: sort the probabilities, largest first. Drop a token if those *before* it already reach top_p.",
        "probs[order[before >= top_p]] = 0 writes back through the sorting order; multinomial needs no rescaling.",
    ),
    explanation="The token that crosses top_p is kept: otherwise a very sure model would have nothing left to draw.",
    tolerance=0.035,
    seconds=60.0,
    exact=(("int(torch.multinomial(probs, 1))", "probs / probs.sum()"),),
    mistakes=(
        Mistake("multiplied by the temperature", "A low temperature makes your sampler more random. Divide the logits by it.",
                edit=("/ temperature", "* temperature")),
        Mistake("temperature is ignored", "All temperatures give the same frequencies.",
                edit=("logits = logits / temperature", "")),
        Mistake("temperature after the softmax", "You divided probabilities, not logits, by the temperature. Even temperature 1 then changes them.",
                edit=(("logits = logits / temperature", ""),
                      ("probs = torch.softmax(logits, dim=-1)", "probs = torch.softmax(logits, dim=-1)\nprobs = torch.where(probs > 0, probs, -torch.inf)\nprobs = torch.softmax(probs / temperature, dim=-1)"))),
        Mistake("temperature 0 still draws", "Temperature 0 should always return the most likely token. Treat it first.",
                edit=("if temperature == 0: return int(logits.argmax())\nlogits = logits / temperature", "if temperature > 0:\n    logits = logits / temperature")),
        Mistake("one too many in top-k", "top_k=2 keeps three tokens.",
                edit=("min(top_k,", "min(top_k + 1,")),
        Mistake("top_k is ignored", "top_k=2 changes nothing.",
                edit=("if top_k is not None:", "if False:")),
        Mistake("top-k keeps the least likely", "top_k=2 keeps the two least likely tokens. topk has an argument `largest`, and what is below its last value must go.",
                edit=((").values[-1]", ", largest=False).values[-1]"), ("logits <", "logits >"))),
        Mistake("top_p is ignored", "top_p=0.7 changes nothing.",
                edit=("if top_p is not None:", "if False:")),
        Mistake("top-p without sorting", "You summed the probabilities in the order of the ids. The nucleus is made of the most likely tokens.",
                edit=("probs.sort(descending=True)", "probs, torch.arange(len(probs))")),
        Mistake("top-p before the temperature", "You chose the set for top_p before dividing by the temperature, which changes how many tokens it takes.",
                edit=(("logits = logits / temperature", "raw = logits\nlogits = logits / temperature"),
                      ("probs.sort(", "torch.softmax(raw, dim=-1).sort("))),
        Mistake("top-p begins with the least likely", "You sorted upwards, so the set is filled with the least likely tokens first: sort(descending=True).",
                edit=("descending=True", "descending=False")),
        Mistake("top-p drops the token that crosses the threshold", "The set that you keep has less probability than top_p: the token that reaches it belongs to it. Compare with the sum *before* each token.",
                edit=("ordered.cumsum(-1) - ordered", "ordered.cumsum(-1)")),
        Mistake("ranks instead of ids", "After sorting for top-p, place 0 is the most likely token, whatever its id. You returned the place; order[place] is the id.",
                edit=("probs[order[before >= top_p]] = 0", "probs = ordered * (before < top_p)")),
        Mistake("ranks instead of ids, always", "You sort in every case and return a place in the sorted order: 0 for the most likely token, whatever its id. order[place] is the id.",
                edit=("softmax(logits, dim=-1)", "softmax(logits, dim=-1).sort(descending=True).values")),
        Mistake("always the most likely token", "It never draws: the same token comes every time. torch.multinomial draws with given probabilities.",
                edit=("if temperature == 0:", "if True:")),
    ),
)  # fmt: skip


def _probe_codec(answer):
    encode, decode = answer("hello, world")
    yield "encode('hello')", list(encode("hello"))
    yield "decode(encode('low dell'))", decode(encode("low dell"))
    try:
        yield "encode('hex'), with an unknown character", list(encode("hex"))
    except (KeyError, ValueError):
        yield "encode('hex'), with an unknown character", "an error"


CODEC = Exercise(
    "char_codec", _probe_codec,
    hints=(
        "The alphabet is every distinct character of the text, sorted. A character's id is its place in it.",
        "`{character: i for i, character in enumerate(alphabet)}` finds an id; `alphabet[i]` goes back.",
        "Look the id up with `[...]`, not `.get`: an unknown character must raise, not vanish.",
    ),
    explanation="Sorting makes the ids depend on the text alone; a dictionary makes looking up quick.",
    mistakes=(
        Mistake("in order of appearance", "The ids follow the first appearance of each character, so another text renumbers everything.",
                edit=("sorted(set(text))", "list(dict.fromkeys(text))"), look='chapter 1, "Break it"'),
        Mistake("the alphabet is not sorted", "You used a set as it comes. Its order changes from one start of Python to the next, and the ids with it: sorted(set(text)).",
                edit=("sorted(set(text))", "list(set(text))")),
        Mistake("a character stands more than once", "Your alphabet holds a character as often as the text does, so some ids are never used. Each character once: sorted(set(text)).",
                edit=("sorted(set(text))", "sorted(text)"),
                also=((("sorted(set(text))", "sorted(text)"), ("enumerate(alphabet)", "reversed([*enumerate(alphabet)])")),)),
        Mistake("ids begin at 1", "Your smallest id is 1. Ids index the rows of a table, which begin at 0.",
                edit=(("enumerate(alphabet)", "enumerate(alphabet, 1)"), ("alphabet[i]", "alphabet[i - 1]"))),
        Mistake("decode returns a list", "decode gives a list of characters; the task asks for text: str.join.",
                edit=('"".join', "list")),
        Mistake("the unknown vanishes", "encode('hex') skipped the x. A tokenizer that drops characters can never give the text back.",
                edit=("for character in text]", "for character in text if character in id_of]"), look='chapter 1, "The small print"'),
        Mistake("the unknown becomes None", "encode('hex') has None among its ids: `.get` is silent about what it does not find. Look up with `[...]`.",
                edit=("id_of[character]", "id_of.get(character)")),
        Mistake("the unknown becomes -1", "encode('hex') has -1 among its ids, as str.find gives it. In decode, alphabet[-1] is the last character.",
                edit=("id_of[character]", "id_of.get(character, -1)")),
        Mistake("Unicode numbers as ids", "Your ids are ord(character). They round-trip, but the vocabulary would need over a million rows: ids run from 0 to the number of different characters - 1.",
                edit=(("id_of[character]", "ord(character)"), ("alphabet[i]", "chr(i)"))),
    ),
)  # fmt: skip
