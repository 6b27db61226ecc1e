"""Chapter 04: the loss agrees with PyTorch's, counted bigrams are optimal, and invalid input is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import survives, unshifted
from torch.nn import functional as F

from minigpt_lib.baselines import (
    MLPLM,
    BigramLM,
    bits_per_char,
    cross_entropy,
    evaluate_loss,
    generate,
    perplexity,
    train_baseline,
)
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.data import load_text, train_val_split


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 20), st.integers(1, 30), st.floats(0.0, 1e4), st.integers(0, 2**32))
def test_cross_entropy_and_its_gradient_agree_with_pytorch(n, vocab_size, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, vocab_size, generator=generator, dtype=torch.float64) * scale
    logits.requires_grad_()
    targets = torch.randint(vocab_size, (n,), generator=generator)
    targets[1:][torch.rand(n - 1, generator=generator) < 0.3] = -100

    ours = cross_entropy(logits, targets)
    theirs = F.cross_entropy(logits, targets)

    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, logits)[0]
    )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_huge_logits_give_a_finite_loss(dtype, tolerance):
    logits = torch.tensor([[1e4, 1e4, 0.0], [-1e4, 0.0, -3e38]], dtype=dtype)

    loss = cross_entropy(logits, torch.tensor([0, 1]))

    assert abs(float(loss) - math.log(2) / 2) < tolerance


def test_a_logit_of_minus_infinity_forbids_a_token():
    logits = torch.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)

    allowed = cross_entropy(logits, torch.tensor([2]))
    forbidden = cross_entropy(logits.detach(), torch.tensor([1]))

    assert float(allowed.detach()) == pytest.approx(math.log(2))
    assert torch.isfinite(torch.autograd.grad(allowed, logits)[0]).all()
    assert float(forbidden) == math.inf


def test_the_ignored_target_can_be_chosen():
    logits = torch.randn(4, 5)
    targets = torch.tensor([0, 1, 0, 2])

    expected = F.cross_entropy(logits, targets, ignore_index=0)
    torch.testing.assert_close(cross_entropy(logits, targets, ignore_index=0), expected)


@pytest.mark.parametrize(
    "logits, targets, message",
    [
        (torch.zeros(4), torch.tensor(1), "expected logits"),
        (torch.zeros(3, 4), torch.zeros(2).long(), r"got \(3, 4\) and \(2,\)"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 2).long(), "flatten them first"),
        (torch.zeros(2, 4), torch.tensor([0, 4]), "target 4 at position 1.*0 to 3"),
        (torch.zeros(2, 4), torch.tensor([-7, 0]), "target -7 at position 0"),
        (torch.zeros(2, 4), torch.tensor([-100, -100]), "every one of the 2 targets is ignored"),
        (torch.zeros(0, 4), torch.zeros(0).long(), "every one of the 0 targets"),
    ],
)
def test_invalid_logits_and_targets_are_refused(logits, targets, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(logits, targets)


def test_loss_perplexity_and_bits_per_char_agree():
    assert perplexity(math.log(70)) == pytest.approx(70)
    assert 2 ** bits_per_char(2.49) == pytest.approx(perplexity(2.49))
    assert bits_per_char(4.0, chars_per_token=4) == pytest.approx(bits_per_char(1.0))


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_an_invalid_number_of_characters_per_token_is_refused(wrong):
    with pytest.raises(ValueError, match="positive"):
        bits_per_char(1.0, wrong)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=100), st.integers(0, 2**32))
def test_no_table_beats_the_counted_bigrams_on_their_own_text(ids, seed):
    stream = torch.tensor(ids)
    best = BigramLM.from_counts(stream, 6, alpha=0)
    other = BigramLM(6)
    noise = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed))
    other.table.data = best.table.data.clamp(min=-20) + noise

    x = stream[None, :-1]
    y = stream[None, 1:]
    assert best(x, y)[1].item() <= other(x, y)[1].item() + 1e-5
    torch.testing.assert_close(best.table.exp().sum(dim=1), torch.ones(6))


def test_training_converges_to_the_counted_bigrams():
    stream = torch.randint(4, (2000,), generator=torch.Generator().manual_seed(0))
    counted = BigramLM.from_counts(stream, 4, alpha=0)
    model = BigramLM(4)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = model(stream[None, :-1], stream[None, 1:])[1]
        loss.backward()
        return loss

    optimizer.step(closure)

    torch.testing.assert_close(model.table.softmax(1), counted.table.exp(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "ids, alpha", [([], 1), ([0], 1), ([0, 3], 1), ([-1, 0], 1), ([0, 1], -0.5)]
)
def test_bigrams_of_invalid_ids_or_a_negative_alpha_are_refused(ids, alpha):
    with pytest.raises(ValueError, match="at least 2 ids from 0 to 2"):
        BigramLM.from_counts(ids, 3, alpha)


@pytest.mark.parametrize("context", [1, 2, 5, 12])
def test_an_mlp_depends_on_exactly_its_context(context):
    torch.manual_seed(0)
    model = MLPLM(9, 4, 8, context)
    ids = torch.randint(9, (1, 10))
    inputs = model.embedding(ids).detach().requires_grad_()
    model.embedding.forward = lambda _: inputs

    for t in range(10):
        (gradient,) = torch.autograd.grad(model(ids)[0][0, t].sum(), inputs)
        influence = gradient[0].abs().sum(dim=1)
        influential = [s for s in range(10) if influence[s] > 0]
        assert influential == list(range(max(0, t - context + 1), t + 1))


@pytest.mark.slow
def test_a_bigram_mlp_cannot_beat_the_counted_bigrams_on_their_own_text():
    text = load_text()
    stream = torch.tensor(CharTokenizer.from_text(text).encode(text[:20_000]))
    floor = evaluate_loss(BigramLM.from_counts(stream, 70, alpha=0), stream)

    torch.manual_seed(0)
    model = MLPLM(70)
    train_baseline(model, stream, stream, steps=150, eval_every=150)

    assert floor <= evaluate_loss(model, stream) < floor + 0.2


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 200), st.integers(1, 250), st.integers(1, 5))
def test_the_measured_loss_does_not_depend_on_block_size_and_batch_size(
    length, block_size, batch_size
):
    stream = torch.randint(5, (length,), generator=torch.Generator().manual_seed(length))
    model = BigramLM.from_counts(stream, 5)
    expected = model(stream[None, :-1], stream[None, 1:])[1].item()

    found = evaluate_loss(model, stream, block_size, batch_size)

    assert found == pytest.approx(expected, abs=1e-5)


def test_the_loss_of_a_single_token_is_refused():
    with pytest.raises(ValueError, match="1 tokens are too few"):
        evaluate_loss(BigramLM(3), torch.tensor([1]))


def test_the_batches_depend_on_the_seed_and_not_on_the_global_random_state():
    stream = torch.arange(300) % 7

    histories = []
    for drawn_before in (0, 5):
        model = BigramLM(7)
        torch.rand(drawn_before)
        history = train_baseline(model, stream, stream[:100], block_size=8, steps=6, eval_every=2)
        histories.append(history)

    assert len(histories[0]) == 3
    assert histories[0] == histories[1]


@pytest.fixture
def counting_model():
    """Return a model that knows only that 1 follows 0, 2 follows 1 and 0 follows 2."""
    return BigramLM.from_counts([0, 1, 2, 0], 3, alpha=0)


def test_generate_continues_every_row_and_keeps_the_prompt(counting_model):
    prompt = torch.tensor([[0, 1], [1, 2]])

    assert generate(counting_model, prompt, 3).tolist() == [[0, 1, 2, 0, 1], [1, 2, 0, 1, 2]]
    assert torch.equal(generate(counting_model, prompt, 0), prompt)


@pytest.mark.parametrize("prompt", [torch.tensor([0, 1]), torch.zeros(1, 0, dtype=torch.int64)])
def test_generate_refuses_a_prompt_without_tokens_or_rows(counting_model, prompt):
    with pytest.raises(ValueError, match="at least one token"):
        generate(counting_model, prompt, 1)


def test_targets_without_a_shift_show_in_both_losses():
    train, valid = train_val_split(torch.arange(4000) * 17 % 11)

    torch.manual_seed(0)
    last = train_baseline(MLPLM(11), train, valid, steps=60, eval_every=60, draw=unshifted)[-1]

    assert last["train_loss"] < 0.5
    assert last["val_loss"] > math.log(11)


# ---------------------------------------------------------------- faults that the chapter's checks must notice

FAULTS = {
    "the largest score is not subtracted": ("logits - logits.max(dim=1, keepdim=True).values.detach()", "logits"),
    "the largest score of the column is subtracted": (
        "logits.max(dim=1, keepdim=True).values", "logits.max(dim=0, keepdim=True).values"),
    "no minus sign": ("return -picked[counted].mean()", "return picked[counted].mean()"),
    "the sum of the penalties": ("return -picked[counted].mean()", "return -picked[counted].sum()"),
    "the logarithm is to base 2": ("return -picked[counted].mean()", "return -picked[counted].mean() / math.log(2)"),
    "ignored targets count as token 0": ("return -picked[counted].mean()", "return -picked.mean()"),
    "ignored targets count in the number": (
        "return -picked[counted].mean()", "return -picked[counted].sum() / len(targets)"),
    "only -100 can be ignored": ("counted = targets != ignore_index", "counted = targets != -100"),
    "the exponentials are not added up": (
        "log_probs = shifted - shifted.exp().sum(dim=1, keepdim=True).log()", "log_probs = shifted"),
    "the gradient does not flow through the sum": ("shifted.exp().sum(dim=1, keepdim=True).log()",
                                                   "shifted.detach().exp().sum(dim=1, keepdim=True).log()"),
    "negative targets are accepted": ("(targets < 0) | (targets >= logits.shape[1])", "(targets >= logits.shape[1])"),
    "the mean of nothing is nan": ("if not counted.any():", "if False:"),
    "any shape is accepted": ("if logits.ndim != 2 or targets.shape != logits.shape[:1]:", "if False:"),
    "perplexity is 2 ** loss": ("return math.exp(float(loss))", "return 2 ** float(loss)"),
    "bits are nats": ("float(loss) / math.log(2) / chars_per_token", "float(loss) / chars_per_token"),
    "bits are multiplied by the characters": ("/ math.log(2) / chars_per_token", "/ math.log(2) * chars_per_token"),
    "a token without characters": ("if not chars_per_token > 0:", "if False:"),
    "pairs are counted backwards": ("ids[:-1] * vocab_size + ids[1:]", "ids[1:] * vocab_size + ids[:-1]"),
    "the columns add up to 1": ("total = seen.sum(dim=1, keepdim=True)", "total = seen.sum(dim=0, keepdim=True)"),
    "pairs over the whole text, not by the row": ("total = seen.sum(dim=1, keepdim=True)", "total = seen.sum()"),
    "alpha is not added": (".double() + alpha", ".double()"),
    "no smoothing by default": ("alpha: float = 1.0", "alpha: float = 0.0"),
    "the total does not know of alpha": (
        "total = seen.sum(dim=1, keepdim=True)", "total = pairs.view(vocab_size, vocab_size).sum(dim=1, keepdim=True)"),
    "nan for a token that nothing followed": (
        "torch.where(total > 0, (seen / total).log(), -math.log(vocab_size))", "(seen / total).log()"),
    "probabilities in place of logits": ("(seen / total).log()", "(seen / total)"),
    "a new table is random": ("torch.zeros(vocab_size, vocab_size)", "torch.randn(vocab_size, vocab_size)"),
    "the column of the last token": ("logits = self.table[input_ids]", "logits = self.table.T[input_ids]"),
    "every batch weighs the same": (
        "total += float(loss) * int((y != -100).sum())",
        "total += float(loss) * (len(tokens) - 1) / -(-len(windows) // batch_size)"),
    "ignored targets weigh, too": ("int((y != -100).sum())", "y.numel()"),
    "divided by the tokens": ("return total / (len(tokens) - 1)", "return total / len(tokens)"),
    "the model stays in evaluation mode": ("model.train(training)", "pass"),
    "the model stays in evaluation mode after an error": (
        "    try:\n        yield\n    finally:\n        model.train(training)", "    yield\n    model.train(training)"),
    "measured in training mode": ("model.eval()", "pass"),
    "loss measured in training mode": ("with evaluating(model):", "if True:"),
    "loss_of is ignored": ("model(x, y)[1] if loss_of is None else loss_of(x, y)", "model(x, y)[1]"),
    "always the likeliest token": (
        "torch.multinomial(last.softmax(dim=-1), 1, generator=generator)", "last.argmax(dim=-1, keepdim=True)"),
    "drawn from the first place": ("model(input_ids)[0][:, -1]", "model(input_ids)[0][:, 0]"),
    "the new token goes to the front": ("torch.cat([input_ids, drawn], dim=1)", "torch.cat([drawn, input_ids], dim=1)"),
    "sampling without the generator": ("last.softmax(dim=-1), 1, generator=generator)", "last.softmax(dim=-1), 1)"),
    "the temperature is 1/2": ("last.softmax(dim=-1)", "(2 * last).softmax(dim=-1)"),
    "the zeros are at the end": ("(0, 0, self.context - 1, 0)", "(0, 0, 0, self.context - 1)"),
    "the next token is seen": ("(0, 0, self.context - 1, 0)", "(0, 0, self.context - 2, 1)"),
    "the context is in reverse": ("for i in range(self.context)]", "for i in reversed(range(self.context))]"),
    "no ReLU": ("self.hidden(x).relu()", "self.hidden(x)"),
    "tanh for ReLU": ("self.hidden(x).relu()", "self.hidden(x).tanh()"),
    "gradients add up": ("optimizer.zero_grad()", ""),
    "the learning rate does not fall": ("schedule.step()", ""),
    "the seed is ignored": ("torch.Generator().manual_seed(seed)", "torch.Generator().manual_seed(0)"),
    "draw is ignored": ("draw(train_tokens, batch_size", "get_batch(train_tokens, batch_size"),
    "batches are drawn at random": ("draw(train_tokens, batch_size, block_size, generator)",
                                    "draw(train_tokens, batch_size, block_size, None)"),
    "train_loss is the mean since the beginning": ("recent = []", ""),
    "train_loss is the last batch's": ("mean = sum(recent) / len(recent)", "mean = recent[-1]"),
    "a step too few": ("for step in range(1, steps + 1):", "for step in range(1, steps):"),
    "the loss of the training text": ("evaluate_loss(model, val_tokens)", "recent[-1]"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("04", tmp_path, *FAULTS[fault])
