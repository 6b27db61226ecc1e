"""Chapter 09: a config is refused or gives a model of the expected size, which is causal and starts as documented."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import expected_parameters, on_meta

from minigpt_lib.feedforward import ACTIVATIONS
from minigpt_lib.model import NORMS, POSITIONS, PRESETS, GPTConfig, MiniGPT, count_parameters

CHOICES = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(1, 40),
        "max_seq_len": st.integers(1, 12),
        "n_embd": st.integers(1, 40),
        "n_layer": st.integers(1, 3),
        "n_head": st.integers(1, 8),
        "n_kv_head": st.none() | st.integers(1, 8),
        "position": st.sampled_from([*POSITIONS]),
        "norm": st.sampled_from([*NORMS]),
        "norm_position": st.sampled_from(["pre", "post"]),
        "ffn": st.sampled_from([*ACTIVATIONS, "swiglu"]),
        "ffn_hidden": st.none() | st.integers(1, 50),
        "tie_weights": st.booleans(),
        "bias": st.booleans(),
        "fused": st.booleans(),
    }
)
SIZES = (
    "vocab_size",
    "max_seq_len",
    "n_embd",
    "n_layer",
    "n_head",
    "n_kv_head",
    "ffn_hidden",
)


def problems(c: dict) -> list[tuple[str, str]]:
    """Return, for each reason why a config is impossible, the two numbers that the message must quote."""
    found = []
    head_width = c["n_embd"] // c["n_head"]

    if c["n_embd"] % c["n_head"]:
        found.append((f"n_embd={c['n_embd']}", f"n_head={c['n_head']}"))
    if c["n_kv_head"] and c["n_head"] % c["n_kv_head"]:
        found.append((f"n_head={c['n_head']}", f"n_kv_head={c['n_kv_head']}"))
    if c["position"] == "rope" and head_width % 2:
        found.append((f"n_head={c['n_head']}", f"= {head_width} is odd"))
    if c["position"] == "sinusoidal" and c["n_embd"] % 2:
        found.append((f"n_embd={c['n_embd']}", "odd"))

    return found


# ---------------------------------------------------------------- configs and sizes


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(CHOICES)
def test_a_config_is_refused_with_the_conflicting_numbers_or_gives_a_model_of_the_expected_size(
    choices,
):
    expected = problems(choices)
    if expected:
        with pytest.raises(ValueError) as error:
            GPTConfig(**choices)
        for numbers in expected:
            assert all(number in str(error.value) for number in numbers)
        return

    counts = count_parameters(on_meta(**choices))
    assert counts["total"] == expected_parameters(GPTConfig(**choices))
    assert counts["total"] == sum(n for part, n in counts.items() if part != "total")


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(SIZES),
    st.integers(max_value=0) | st.floats() | st.text(max_size=3) | st.booleans(),
)
def test_a_size_that_is_not_a_positive_whole_number_is_refused(name, value):
    with pytest.raises(ValueError, match="expected a whole number of at least 1") as error:
        GPTConfig(**{"vocab_size": 5, name: value})

    assert f"{name}={value!r}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("gpt2_124m", 124_439_808 + 47 * 768),  # 47 rows of padding
        ("llama3_8b", 8_030_261_248),
        ("fineweb_44m", 42_518_016),
        ("laptop", 821_888),
    ],
)
def test_the_presets_have_their_published_sizes(name, total):
    assert expected_parameters(GPTConfig.preset(name)) == total
    assert count_parameters(on_meta(**PRESETS[name]))["total"] == total


# ---------------------------------------------------------------- the forward pass


@settings(max_examples=40, deadline=None)
@given(choices=CHOICES, seed=st.integers(0, 2**32), data=st.data())
def test_every_valid_model_is_causal_trains_and_survives_saving(
    choices, seed, data, tmp_path_factory
):
    if problems(choices):
        return

    torch.manual_seed(seed)
    model = MiniGPT(GPTConfig(**choices)).double().eval()
    V = choices["vocab_size"]
    T = data.draw(st.integers(1, choices["max_seq_len"]))
    ids = torch.randint(V, (2, T))

    logits, loss = model(ids, ids)
    assert logits.shape == (2, T, V)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(loss)

    place = data.draw(st.integers(0, T - 1))
    changed = ids.clone()
    changed[:, place:] = torch.randint(V, (2, T - place))
    before_the_change = model(changed)[0][:, :place]
    torch.testing.assert_close(before_the_change, logits[:, :place], rtol=1e-9, atol=1e-9)

    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())

    folder = tmp_path_factory.getbasetemp() / "any_model"
    model.save_pretrained(folder)
    again = MiniGPT.from_pretrained(folder)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    # Not to the last bit: the order of additions depends on the alignment of the weights in memory.
    torch.testing.assert_close(again(ids)[0], logits, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- initial weights


@pytest.mark.parametrize("n_layer", [1, 4, 16])
def test_initial_weights_are_normal_with_the_documented_standard_deviation(n_layer):
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig(500, 64, 64, n_layer, 4, tie_weights=False, init_std=0.05))

    n_scaled = 0
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert weight.unique().tolist() == [0.0 if name.endswith("bias") else 1.0], name
            continue

        std = 0.05
        if name.endswith(("attention.proj.weight", "ffn.down.weight")):
            std /= math.sqrt(2 * n_layer)
            n_scaled += 1

        z = weight.detach().flatten() / std
        n = len(z)
        assert abs(z.mean()) < 5 / math.sqrt(n), name
        assert abs(z.std() - 1) < 5 / math.sqrt(2 * n), name
        within_one = (z.abs() < 1).float().mean()
        assert abs(within_one - 0.6827) < 5 * 0.4654 / math.sqrt(n), name

    assert n_scaled == 2 * n_layer


def test_the_residual_stream_has_the_same_size_at_any_depth():
    sizes = []
    for n_layer in (1, 4, 16):
        torch.manual_seed(0)
        model = MiniGPT(GPTConfig(100, 64, 64, n_layer, 4)).eval()
        model.norm.register_forward_pre_hook(lambda m, args: sizes.append(args[0].std().item()))
        model(torch.randint(100, (4, 64)))

    assert max(sizes) < 1.3 * min(sizes), sizes


def test_init_weights_draws_every_matrix_anew():
    model = MiniGPT(GPTConfig(30, 8, 16, 2, 4))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    model.init_weights()

    changed = [
        name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])
    ]
    assert changed == [name for name, weight in before.items() if weight.ndim > 1]


def test_the_seed_determines_the_initial_weights():
    config = GPTConfig(30, 8, 16, 2, 4)
    torch.manual_seed(1)
    one = MiniGPT(config).state_dict()
    torch.manual_seed(1)
    other = MiniGPT(config).state_dict()

    assert all(torch.equal(one[name], other[name]) for name in one)
