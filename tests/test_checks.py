"""What check cells call: each function passes what is right, fails what is wrong, and says why."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from courseware import paths
from courseware.checks import agreement, caches, causality, refusals, sequences
from courseware.checks.agreement import agree, gradients, roughen
from courseware.checks.causality import sees_only_the_past
from courseware.checks.ranks import ranks
from courseware.checks.refusals import refused
from courseware.checks.sequences import same_sequence
from minigpt_lib.attention import CausalSelfAttention, scaled_dot_product_attention
from minigpt_lib.baselines import MLPLM
from minigpt_lib.feedforward import GPTFFN
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.norms import LayerNorm, RMSNorm


@pytest.mark.parametrize("module", [agreement, caches, causality, refusals, sequences])
def test_the_examples_in_the_docstrings_are_true(module):
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted >= 1 and not result.failed


def test_refusals_does_not_import_torch():
    code = "import sys; import courseware.checks.refusals; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=paths.CODE,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.strip() == "False"


# --- sequences ---


def test_equal_sequences_agree_whatever_their_kind():
    same_sequence([1, 2], (1, 2), what="ids")
    same_sequence("ab", ["a", "b"], what="letters")


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (
            [1, 2, 3, 4, 5],
            [1, 2, 3, 9, 5],
            "number 3 of 5 differs: expected …, 2, 3, 9, 5, got …, 2, 3, 4, 5",
        ),
        ([1], [1, 2], "number 1 of 2 differs: expected 1, 2, got 1"),
        ([], [1], "number 0 of 1 differs: expected 1, got nothing"),
        ([], [], "expected items to compare, got none on both sides"),
    ],
)
def test_the_first_difference_is_shown_with_its_neighbours(ours, theirs, said):
    with pytest.raises(AssertionError) as error:
        same_sequence(ours, theirs, what="ids")
    assert str(error.value) == f"ids: {said}"


def test_items_are_shown_as_asked_and_as_they_are_if_that_fails():
    with pytest.raises(AssertionError, match="expected 'a', got 7"):
        same_sequence([7], [0], what="ids", show=["a"].__getitem__)


# --- refusals ---


def half(n: int, *, allow_odd: bool = False) -> int:
    if n % 2 and not allow_odd:
        raise ValueError(f"n={n}: expected an even number.")
    return n // 2


def test_the_message_of_a_refusal_is_returned():
    assert refused("n=3", half, 3) == "n=3: expected an even number."
    assert refused(["n=3", "even"], half, 3, allow_odd=False)
    assert refused("", half, 3) and refused((), half, 3)


def test_options_and_positional_names_reach_the_function():
    def picky(words, function, *, limit):
        raise ValueError(f"{words} {function} {limit}")

    assert refused("a b 3", picky, "a", "b", limit=3) == "a b 3"


def test_accepted_input_fails_and_the_call_is_quoted():
    with pytest.raises(AssertionError) as caught:
        refused("n=4", half, 4)
    assert str(caught.value) == (
        "half(4) was accepted and returned 2; expected a ValueError that says 'n=4'"
    )


def test_missing_words_fail_and_only_these_are_named():
    with pytest.raises(AssertionError) as caught:
        refused(["n=3", "odd"], half, 3)
    assert str(caught.value) == (
        "half(3) was refused with 'n=3: expected an even number.', without 'odd'"
    )


def test_another_kind_of_error_fails_and_is_the_cause():
    with pytest.raises(
        AssertionError, match="raised TypeError: .*; expected a ValueError"
    ) as found:
        refused("n=", half, "x", "y")
    assert isinstance(found.value.__cause__, TypeError)


def test_other_kinds_can_be_expected_one_or_several():
    assert refused("'x'", {}.__getitem__, "x", kind=KeyError)
    assert refused("'x'", {}.__getitem__, "x", kind=LookupError), "a subclass counts"
    assert refused("n=3", half, 3, kind=(TypeError, ValueError))
    with pytest.raises(AssertionError, match="expected an OSError"):
        refused("", half, 4, kind=OSError)
    with pytest.raises(AssertionError, match="expected a KeyError or TypeError"):
        refused("", half, 3, kind=(KeyError, TypeError))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_refusal_unless_it_is_expected(kind):
    def stop():
        raise kind("now")

    assert refused("now", stop, kind=kind) == "now"
    with pytest.raises(kind):
        refused("now", stop)


def test_long_arguments_are_shortened():
    with pytest.raises(AssertionError) as caught:
        refused("", lambda *_, **__: None, torch.zeros(30, 40), "x" * 1000, names=["y"] * 1000)
    message = str(caught.value)
    assert "Tensor of shape (30, 40)" in message and "names=['y'," in message
    assert len(message) < 300


def test_a_module_is_called_by_its_class():
    with pytest.raises(AssertionError, match=r"^Linear\(Tensor of shape \(2, 3\)\) was accepted"):
        refused("", nn.Linear(3, 4), torch.zeros(2, 3))


# --- agreement ---


@pytest.mark.parametrize(
    "thing",
    [
        torch.randn(2, 3),
        torch.arange(4),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
        torch.tensor([1.0, float("inf"), -float("inf")]),
        torch.tensor(2.0),
        1.5,
        7,
        [torch.ones(2), (torch.zeros(1), 3)],
        {"a": torch.ones(2), "b": [1.0, None, "text"]},
    ],
)
def test_everything_agrees_with_itself(thing):
    agree(thing, thing)
    agree(thing, thing, atol=0)
    agree(thing, thing, of_largest=0)


def test_what_asserts_close_agrees_and_the_other_way_round():
    """The defaults are those that torch.testing.assert_close documents."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for exponent in range(-9, 0):
            theirs = torch.randn(20, generator=generator).to(dtype)
            ours = (theirs.double() * (1 + 10.0**exponent)).to(dtype)
            outcomes = []
            for check in (agree, torch.testing.assert_close):
                try:
                    check(ours, theirs)
                    outcomes.append(True)
                except AssertionError:
                    outcomes.append(False)
            assert outcomes[0] == outcomes[1], (dtype, exponent)


def test_the_place_that_is_furthest_off_is_named_with_both_values():
    theirs = torch.zeros(2, 3, dtype=torch.float64)
    ours = theirs.clone()
    ours[0, 1] = 0.25
    ours[1, 2] = -0.5
    with pytest.raises(AssertionError) as caught:
        agree(ours, theirs, atol=0.1, what="logits")
    assert str(caught.value) == (
        "logits: 2 of 6 numbers differ, most of all at [1, 2]: expected 0.0, got -0.5 "
        "(off by 0.5, allowed 0.1)"
    )


def test_furthest_off_is_measured_against_what_is_allowed():
    theirs = torch.tensor([1000.0, 1.0])
    ours = torch.tensor([1001.0, 1.5])  # the first is within a thousandth
    with pytest.raises(AssertionError, match=r"1 of 2 numbers differ, most of all at \[1\]"):
        agree(ours, theirs, rtol=1e-3)


def test_a_scalar_has_no_place():
    with pytest.raises(AssertionError) as caught:
        agree(torch.tensor(2.5), 2.0, atol=0.25, what="loss")
    assert str(caught.value) == "loss: expected 2.0, got 2.5 (off by 0.5, allowed 0.25)"


def test_tolerances_are_borders():
    agree(torch.tensor([1.5]), torch.tensor([1.0]), atol=0.5)
    agree(torch.tensor([3.0]), torch.tensor([2.0]), rtol=0.5)
    agree(torch.tensor([4.0]), torch.tensor([2.0]), rtol=0.5, atol=1.0)
    agree(torch.tensor([1.0, 8.0]), torch.tensor([0.0, 8.0]), of_largest=0.125)
    for tolerance in ({"atol": 0.49}, {"rtol": 0.49}, {"of_largest": 0.49}):
        with pytest.raises(AssertionError):
            agree(torch.tensor([1.5]), torch.tensor([1.0]), **tolerance)
    with pytest.raises(AssertionError):
        agree(torch.tensor([1.0, 8.0]), torch.tensor([0.0, 8.0]), rtol=0.125)


@pytest.mark.parametrize("tolerance", [{"atol": -1.0}, {"rtol": float("nan")}])
def test_impossible_tolerances_are_refused(tolerance):
    with pytest.raises(ValueError, match="0 or more"):
        agree(1.0, 1.0, **tolerance)
    with pytest.raises(ValueError, match="either of_largest or"):
        agree(1.0, 1.0, of_largest=0.1, atol=0.1)


@pytest.mark.parametrize("atol", [None, 1e9])
def test_nan_agrees_with_nothing_and_is_named_first(atol):
    theirs = torch.tensor([1.0, 2.0, 3.0])
    for nan in (theirs.clone(), theirs * 1e12):
        nan[1] = float("nan")
        with pytest.raises(AssertionError, match=r"at \[1\]: expected 2.0, got nan"):
            agree(nan, theirs, atol=atol)
    with pytest.raises(AssertionError):
        agree(torch.tensor([float("nan")]), torch.tensor([float("nan")]), atol=atol)


def test_infinity_agrees_only_with_itself():
    infinite = torch.tensor([float("inf")])
    for other in (-infinite, torch.tensor([1e30])):
        with pytest.raises(AssertionError):
            agree(infinite, other, atol=1e9)
        with pytest.raises(AssertionError):
            agree(other, infinite, atol=1e9)


def test_whole_numbers_too_large_for_float64_are_told_apart():
    large = torch.tensor([2**60])
    agree(large, large.clone())
    with pytest.raises(AssertionError, match="expected 1152921504606846977"):
        agree(large, large + 1)
    agree(torch.tensor([5]), torch.tensor([6]), atol=1)


def test_shapes_and_dtypes_count():
    for ours, words in (
        (torch.ones(2, 1), r"expected shape \(2,\), got \(2, 1\)"),
        (torch.ones(2).double(), "expected torch.float32, got torch.float64"),
        (torch.ones(2, device="meta"), "expected a tensor on cpu, got one on meta"),
    ):
        with pytest.raises(AssertionError, match=words):
            agree(ours, torch.ones(2))


def test_a_plain_number_is_compared_in_the_tensors_dtype():
    agree(torch.tensor(0.1), 0.1)
    agree(0.1, torch.tensor(0.1))
    agree(3, 3.0)
    with pytest.raises(AssertionError, match="expected 2, got 3"):
        agree(3, 2)
    with pytest.raises(AssertionError):
        agree(True, 1)


def test_a_structure_is_compared_by_name():
    theirs = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    agree({name: value.clone() for name, value in theirs.items()}, theirs)
    ours = {**theirs, "bias": torch.tensor([0.0, 1.0])}
    with pytest.raises(AssertionError, match=r"^result\['bias'\]: 1 of 2 .* at \[1\]"):
        agree(ours, theirs)
    with pytest.raises(AssertionError, match=r"missing keys \['bias'\], unexpected keys \['b'\]"):
        agree({"weight": torch.ones(2, 2), "b": 0}, theirs)
    with pytest.raises(AssertionError, match=r"^pair\[1\]: expected shape"):
        agree([torch.ones(2), torch.ones(3)], (torch.ones(2), torch.ones(4)), what="pair")
    with pytest.raises(AssertionError, match="expected 2 entries, got 1"):
        agree([1.0], [1.0, 2.0])
    with pytest.raises(AssertionError, match="expected None, got 1.0"):
        agree([1.0], [None])
    with pytest.raises(AssertionError, match="expected 'a', got 'b'"):
        agree("b", "a")


@pytest.mark.parametrize("empty", [[], {}, torch.empty(0, 4), [torch.empty(0), torch.empty(2, 0)]])
def test_nothing_to_compare_is_no_agreement(empty):
    with pytest.raises(AssertionError, match="none on both sides"):
        agree(empty, empty)


def test_an_empty_part_beside_numbers_is_fine():
    agree([torch.empty(0), 1.0], [torch.empty(0), 1.0])


def test_a_common_factor_is_named():
    theirs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError, match="Every number is 8 times the expected one"):
        agree(8 * theirs, theirs)
    with pytest.raises(AssertionError, match="Every number is -1 times"):
        agree(-theirs, theirs)
    for ours in (theirs + 1, theirs.flip(0), torch.zeros_like(theirs), 1.0005 * theirs):
        with pytest.raises(AssertionError) as caught:
            agree(ours, theirs)
        assert "times" not in str(caught.value)


def test_a_wrong_weight_anywhere_in_a_model_is_found():
    config = GPTConfig(13, 8, 12, 1, 3)
    torch.manual_seed(0)
    model = MiniGPT(config)
    for name in model.state_dict():
        copy = MiniGPT(config)
        copy.load_state_dict(model.state_dict())
        agree(copy.state_dict(), model.state_dict(), atol=0)
        copy.state_dict()[name].view(-1)[-1].add_(1e-3)
        with pytest.raises(AssertionError, match=f"'{name}'"):
            agree(copy.state_dict(), model.state_dict(), atol=0)


# --- gradients ---


def test_gradients_of_equal_functions_agree_in_every_form():
    x = torch.randn(4, 7, requires_grad=True)
    weight, bias = torch.randn(7, requires_grad=True), torch.randn(7, requires_grad=True)
    ours = LayerNorm(7, fused=False)
    ours.weight.data, ours.bias.data = weight.detach().clone(), bias.detach().clone()
    y, z = ours(x), F.layer_norm(x, (7,), weight, bias)
    agree(gradients(y, x), gradients(z, x), rtol=1e-4, atol=1e-5)
    agree(
        gradients(y, [x, ours.weight, ours.bias]),
        gradients(z, [x, weight, bias]),
        rtol=1e-4,
        atol=1e-5,
    )
    named = gradients(y, {"weight": ours.weight, "bias": ours.bias})
    agree(named, gradients(z, {"weight": weight, "bias": bias}), rtol=1e-4, atol=1e-5)


def test_a_wrong_gradient_is_found_where_the_values_are_right():
    x = torch.randn(3, 5, requires_grad=True)
    for wrong in (x.detach() + 0 * x, x.detach() + 2 * x - 2 * x.detach()):
        agree(wrong, x)
        with pytest.raises(AssertionError, match="gradient"):
            agree(gradients(wrong, [x]), gradients(1 * x, [x]), what="gradient")


def test_gradients_do_not_cancel_as_those_of_a_sum_do():
    x = torch.randn(6, 7, requires_grad=True)
    y = x.softmax(dim=-1)
    assert torch.autograd.grad(y.sum(), x, retain_graph=True)[0].abs().max() < 1e-6
    assert gradients(y, x).abs().max() > 1e-2


def test_a_scalar_is_differentiated_as_it_is():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert gradients(x.square().sum(), x).tolist() == [2.0, 4.0]


def test_gradients_leave_the_graph_and_the_random_numbers_alone():
    x = torch.randn(3, requires_grad=True)
    y = x.exp()
    state = torch.get_rng_state()
    agree(gradients(y, x), gradients(y, x), atol=0)
    assert torch.equal(torch.get_rng_state(), state) and x.grad is None


def test_a_lost_gradient_is_named():
    x, unused = torch.randn(3, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    with pytest.raises(AssertionError, match=r"does not depend on input 1, of shape \(2, 5\)"):
        gradients(x.exp(), [x, unused])
    with pytest.raises(AssertionError, match="was it detached"):
        gradients(x.detach().exp(), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_gradients_keep_the_dtype(dtype):
    x = torch.randn(3, dtype=dtype, requires_grad=True)
    assert gradients(x * 2, x).dtype == dtype


# --- rough weights ---


def test_a_rough_model_has_large_weights_and_norms_around_1():
    torch.manual_seed(0)
    fresh = MiniGPT(GPTConfig(31, 12, 96, 2, 3))
    model = roughen(fresh, 0.3)
    assert model is fresh
    for name, weight in model.named_parameters():
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        assert abs(weight.mean().item() - mean) < 0.15, name
        assert weight.numel() < 50 or abs(weight.std().item() - 0.3) < 0.08, name


def test_a_generator_decides_the_weights_alone():
    models = []
    for seed in (1, 1, 2):
        torch.rand(3)  # the global generator must not matter
        generator = torch.Generator().manual_seed(seed)
        models.append(roughen(MiniGPT(GPTConfig(7, 4, 8, 1, 2)), generator=generator).state_dict())
    agree(models[0], models[1], atol=0)
    with pytest.raises(AssertionError):
        agree(models[0], models[2])


# --- only the past ---


def causal_layer(fused: bool) -> CausalSelfAttention:
    torch.manual_seed(0)
    return CausalSelfAttention(12, 3, fused=fused)


@pytest.mark.parametrize("fused", [True, False])
def test_causal_attention_sees_only_the_past(fused):
    sees_only_the_past(causal_layer(fused), torch.randn(2, 6, 12))


def test_another_axis_of_time():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 6, 4)
    sees_only_the_past(
        lambda k: scaled_dot_product_attention(q, k, v - k, is_causal=True), k, dim=2
    )
    with pytest.raises(AssertionError, match="Look at the mask"):
        sees_only_the_past(lambda k: scaled_dot_product_attention(q, k, v - k), k, dim=2)


def test_a_model_sees_only_the_past():
    torch.manual_seed(0)
    model = roughen(MiniGPT(GPTConfig(13, 8, 12, 2, 3))).double().eval()
    ids = torch.randint(13, (3, 7))
    sees_only_the_past(lambda ids: model(ids)[0], ids, atol=1e-9)
    with pytest.raises(AssertionError, match="token . reached token .*Look at the mask"):
        sees_only_the_past(lambda ids: model(ids)[0] + model(ids.flip(1))[0].flip(1), ids)


@pytest.mark.parametrize("context", [1, 4])
def test_a_model_with_a_short_memory_reaches_as_far_as_it_reads(context):
    torch.manual_seed(0)
    model = MLPLM(11, n_embd=4, n_hidden=6, context=context)
    ids = torch.randint(11, (1, 9))
    sees_only_the_past(lambda ids: model(ids)[0], ids, reach=context)
    with pytest.raises(AssertionError, match=f"token 0 did not reach token {context}"):
        sees_only_the_past(lambda ids: model(ids)[0], ids, reach=context + 1)
    if context > 1:
        message = f"token 0 reached token {context - 1}.*reach only {context - 1} places"
        with pytest.raises(AssertionError, match=message):
            sees_only_the_past(lambda ids: model(ids)[0], ids, reach=context - 1)


@pytest.mark.parametrize("layer", [LayerNorm(7), RMSNorm(7), GPTFFN(7, 9)])
def test_a_layer_that_keeps_tokens_apart_has_reach_1(layer):
    sees_only_the_past(layer, torch.randn(2, 5, 7), reach=1)


def test_a_mean_over_the_texts_or_over_time_is_found():
    x = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError, match="text 0 of the batch reached text 1"):
        sees_only_the_past(lambda x: x - x.mean(dim=0), x)
    with pytest.raises(AssertionError, match="token 1 reached token 0"):
        sees_only_the_past(lambda x: x - x.mean(dim=1, keepdim=True), x, reach=1)


@pytest.mark.parametrize("offset", [1, 2])
def test_a_mask_that_is_off_by_one_is_found_in_both_directions(offset):
    T = 5
    x = torch.randn(2, T, 3, generator=torch.Generator().manual_seed(0))
    too_much = torch.ones(T, T).tril(offset)
    with pytest.raises(AssertionError, match="token 1 reached token 0: .*Look at the mask"):
        sees_only_the_past(lambda x: too_much @ x, x)
    too_little = torch.ones(T, T).tril(-offset)
    with pytest.raises(AssertionError, match="token 0 did not reach token 0"):
        sees_only_the_past(lambda x: too_little @ x, x)


def test_a_small_change_may_be_allowed():
    leak = torch.ones(4, 4).tril() + 1e-8 * torch.ones(4, 4)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    sees_only_the_past(lambda x: leak.double() @ x, x, atol=1e-6)
    with pytest.raises(AssertionError, match="e-08 when only token"):
        sees_only_the_past(lambda x: leak.double() @ x, x)


def test_unusable_functions_and_inputs_are_refused():
    x = torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match="is dropout on"):
        sees_only_the_past(nn.Dropout(0.5), x)
    with pytest.raises(ValueError, match=r"4 places on axis 1, got shape \(2, 3\)"):
        sees_only_the_past(lambda x: x.mean(dim=1), x)
    with pytest.raises(ValueError, match="two different ids"):
        sees_only_the_past(lambda ids: ids.float(), torch.ones(2, 4, dtype=torch.long))
    with pytest.raises(AssertionError, match="contains NaN"):
        sees_only_the_past(lambda x: x * float("nan"), x)


def test_a_change_to_nan_counts():
    def spoil(x):
        return torch.where(x[:, -1:] > 0, x, float("nan"))

    x = torch.ones(1, 3)
    x[0, -1] = 0.5
    with pytest.raises(AssertionError, match="token 2 reached token 0: its result changed by inf"):
        sees_only_the_past(lambda x: spoil(1.2 - x), x)


def test_the_inputs_stay_as_they_were():
    x = torch.randn(2, 4, 3, requires_grad=True)
    before = x.detach().clone()
    sees_only_the_past(lambda x: 2 * x, x, reach=1)
    assert torch.equal(x, before)


def _add_up(exits: tuple[int, ...] = ()):
    if dist.get_rank() in exits:
        os._exit(9)
    if exits:
        return dist.get_rank()
    mine = torch.ones(3) * dist.get_rank()
    dist.all_reduce(mine)
    return mine, {torch.float32}


def test_ranks_hear_each_other_and_return_what_they_computed():
    for mine, kinds in ranks(3, _add_up):
        assert mine.tolist() == [3.0, 3.0, 3.0]
        assert kinds == {torch.float32}


def test_a_rank_that_died_or_failed_is_named():
    assert ranks(2, _add_up, (1,), failing=True) == [0, None]
    with pytest.raises(AssertionError, match="rank 1 of 2 died"):
        ranks(2, _add_up, (1,))

    def fail():
        raise ValueError("a mistake of one's own")

    told = ranks(2, fail, failing=True)
    assert [(answer["kind"], answer["error"]) for answer in told] == [
        ("ValueError", "a mistake of one's own")
    ] * 2
