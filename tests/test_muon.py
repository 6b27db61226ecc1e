"""Chapter 20: Muon over generated shapes and settings, beside torch.optim.Muon and singular values."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from courseware.checks.short_runs import small_model
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.muon import (
    COEFFICIENTS,
    Muon,
    OptimizerPair,
    muon_groups,
    muon_with_adamw,
    orthogonalize,
)

sizes = st.integers(1, 24)


def random_matrix(rows, columns, seed):
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=draws, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(0, 8), st.integers(0, 10**6))
def test_each_singular_value_goes_through_the_polynomial(rows, columns, steps, seed):
    matrix = random_matrix(rows, columns, seed)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(steps):
        s = sum(factor * s**power for factor, power in zip(COEFFICIENTS, (1, 3, 5)))

    found = orthogonalize(matrix, steps=steps, dtype=torch.float64)

    torch.testing.assert_close(found, u * s @ v, rtol=0, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, st.integers(0, 10**6))
def test_a_transposed_or_scaled_matrix_gives_the_transposed_or_same_result(rows, columns, seed):
    matrix = random_matrix(rows, columns, seed)

    found = orthogonalize(matrix, dtype=torch.float64)

    torch.testing.assert_close(orthogonalize(matrix.mT, dtype=torch.float64), found.mT)
    torch.testing.assert_close(orthogonalize(-300 * matrix, dtype=torch.float64), -found)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4),
    st.floats(1e-4, 0.5),
    st.floats(0, 0.99),
    st.booleans(),
    st.floats(0, 0.5),
    st.integers(1, 6),
    st.sampled_from(["original", "match_rms_adamw"]),
    st.integers(0, 10**6),
)
def test_steps_are_those_of_torch(shapes, lr, momentum, nesterov, decay, steps, adjust, seed):
    ours = [torch.nn.Parameter(random_matrix(*shape, seed).float()) for shape in shapes]
    theirs = copy.deepcopy(ours)
    same = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    mine = Muon(ours, lr, **same, steps=steps, adjust_lr=adjust)
    other = torch.optim.Muon(theirs, lr, **same, ns_steps=steps, adjust_lr_fn=adjust)

    for step in range(3):
        for number, (one, two) in enumerate(zip(ours, theirs)):
            one.grad = random_matrix(*one.shape, seed + 7 * step + number).float()
            two.grad = one.grad.clone()
        before = [one.detach().clone() for one in theirs]
        mine.step()
        other.step()
        for was, one, two in zip(before, ours, theirs):
            largest = (two.detach() - was).abs().max().item()
            # bfloat16 has 8 bits; five steps let its roundings add up to a few per cent.
            torch.testing.assert_close(
                one.detach(), two.detach(), rtol=1e-4, atol=0.06 * largest + 1e-7
            )
            one.data.copy_(two.data)


def test_parts_are_orthogonalized_by_themselves():
    gradient = random_matrix(12, 6, 0).float()
    whole = torch.nn.Parameter(torch.zeros(12, 6))
    whole.grad = gradient.clone()
    thirds = [torch.nn.Parameter(torch.zeros(4, 6)) for _ in range(3)]
    for third, slope in zip(thirds, gradient.split(4)):
        third.grad = slope.clone()

    Muon([whole], 0.1, parts=3, dtype=torch.float32).step()
    Muon(thirds, 0.1, dtype=torch.float32).step()

    torch.testing.assert_close(whole.detach(), torch.cat([third.detach() for third in thirds]))
    assert (torch.linalg.svdvals(whole.detach()[:4]) > 0.05).all()


def test_a_group_added_later_is_checked_and_refused_whole():
    optimizer = Muon([torch.nn.Parameter(torch.ones(2, 2))])

    with pytest.raises(ValueError, match="AdamW"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    with pytest.raises(ValueError, match="parts=3"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(4, 2))], "parts": 3})

    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(4, 2))], "parts": 2})
    assert len(optimizer.param_groups) == 2


def test_every_weight_has_one_optimizer_and_no_head_or_table_is_muons():
    model = small_model(tie_weights=False, n_kv_head=1)
    matrices, others = muon_groups(model)

    weights = {id(weight) for weight in model.parameters()}
    assert {id(weight) for weight in [*matrices, *others]} == weights
    assert len(matrices) + len(others) == len(weights)
    assert not any(weight is model.embedding.weight for weight in matrices)
    assert not any(weight is model.head.weight for weight in matrices)

    pair = muon_with_adamw(model, 0.02, 0.003)
    parts = [group["parts"] for group in pair.first.param_groups]
    assert parts == [1, 1], "queries have more heads than keys here, so they are no equal parts"
    assert [group["parts"] for group in muon_with_adamw(small_model()).first.param_groups] == [3, 1]


def test_a_pair_survives_its_state_and_a_schedule_still_reaches_it():
    def one_step(model, pair):
        x = torch.arange(16).view(2, 8) % 31
        pair.zero_grad()
        model(x, x.roll(1, 1))[1].backward()
        pair.step()

    model = small_model()
    pair = muon_with_adamw(model)
    one_step(model, pair)
    other = copy.deepcopy(model)
    again = muon_with_adamw(other, lr=1.0)
    again.load_state_dict(copy.deepcopy(pair.state_dict()))
    for group in again.param_groups:
        group["lr"] *= 0.5
    for group in pair.param_groups:
        group["lr"] *= 0.5

    one_step(model, pair)
    one_step(other, again)

    for name, weight in other.named_parameters():
        torch.testing.assert_close(weight, model.get_parameter(name), rtol=0, atol=0)
    assert isinstance(again, OptimizerPair)
    assert again.first.param_groups[0]["lr"] == pair.first.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize(("n_kv_head", "parts"), [(None, 3), (4, 3), (2, 1), (1, 1)])
def test_queries_keys_and_values_are_three_matrices_only_if_they_are_equally_large(
    n_kv_head, parts
):
    model = MiniGPT(GPTConfig(11, 16, 16, 1, 4, n_kv_head=n_kv_head))
    pair = muon_with_adamw(model, lr=0.1)
    qkv = model.blocks[0].attention.qkv.weight
    (group,) = [g for g in pair.first.param_groups if any(weight is qkv for weight in g["params"])]
    assert group["parts"] == parts
