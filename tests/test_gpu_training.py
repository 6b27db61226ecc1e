"""Training on a GPU: three types of number, compiling, the flash kernel, steps without targets, resuming."""

from __future__ import annotations

import math

import pytest
import torch
from gpu_runs import DEVICE, FAMILIES, NEEDS_GPU, SIZES, make_model, settings, tokens
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from minigpt_lib.data import get_batch
from minigpt_lib.training import PRECISIONS, Trainer, choose_device, choose_precision

pytestmark = NEEDS_GPU


def losses(history):
    """Return the loss of every step."""
    return [record["loss"] for record in history]


# ---------------------------------------------------------------- types of number


def test_the_gpu_is_chosen_and_its_precision_has_a_reason():
    assert choose_device("auto") == DEVICE

    precision, reason = choose_precision(DEVICE)
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    assert precision == ("bfloat16" if has_bfloat16 else "float16")
    assert "this GPU" in reason


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_learns_in_every_precision_with_weights_in_float32(precision):
    model = make_model("gpt2")
    seen = set()
    model.blocks[1].ffn.up.register_forward_hook(lambda _, __, output: seen.add(output.dtype))

    history = Trainer(model, settings(precision=precision), tokens()).train()

    assert seen == {PRECISIONS[precision]}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert {weight.device.type for weight in model.parameters()} == {DEVICE}
    assert history[0]["loss"] > math.log(SIZES["vocab_size"]) - 0.5
    assert history[-1]["loss"] < 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gpu_and_the_processor_train_alike_in_float32(family):
    runs = {}
    for device in ("cpu", DEVICE):
        config = settings(device=device, steps=8, precision="float32")
        runs[device] = losses(Trainer(make_model(family), config, tokens()).train())

    # AdamW's first steps go by the sign of a gradient, and that of a tiny one is rounding.
    assert runs[DEVICE] == pytest.approx(runs["cpu"], abs=5e-3)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("empty", [1, 3])
def test_a_step_without_targets_changes_no_weight_and_training_goes_on(precision, empty):
    drawn = 0

    def draw(*arguments):
        nonlocal drawn
        drawn += 1
        x, y = get_batch(*arguments)
        return x, torch.full_like(y, -100) if drawn == empty else y

    model = make_model("gpt2")
    weights = [model.blocks[0].ffn.up.weight.detach().cpu().clone()]

    def on_step(_):
        weights.append(model.blocks[0].ffn.up.weight.detach().cpu().clone())

    config = settings(precision=precision, steps=40)
    history = Trainer(model, config, tokens(), draw=draw, on_step=on_step).train()

    unchanged = [torch.equal(a, b) for a, b in zip(weights, weights[1:])]
    assert unchanged[empty - 1]
    assert not unchanged[-1]
    assert len(history) == 40
    assert history[-1]["loss"] < history[empty]["loss"] - 1


# ---------------------------------------------------------------- compiling and kernels


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_compiles_as_one_graph_with_the_same_loss_and_gradients(family):
    model = make_model(family).to(DEVICE)
    x, y = (part.to(DEVICE) for part in get_batch(tokens(), 4, 64))
    compiled = torch.compile(model, fullgraph=True)

    found = {}
    for name, forward in (("plain", model), ("compiled", compiled)):
        model.zero_grad()
        loss = forward(x, y)[1]
        loss.backward()
        gradients = [weight.grad.flatten() for weight in model.parameters()]
        found[name] = loss.item(), torch.cat(gradients)

    loss, gradient = found["plain"]
    assert found["compiled"][0] == pytest.approx(loss, abs=1e-4)
    assert (found["compiled"][1] - gradient).norm() < 1e-3 * gradient.norm()


def test_a_compiled_run_has_the_losses_of_a_plain_one(monkeypatch):
    compiled = []
    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda *args, **kwargs: compiled.append(1) or real(*args, **kwargs)
    )

    runs = {}
    for wanted in (False, True):
        config = settings(compile=wanted, steps=10, precision="float32")
        runs[wanted] = losses(Trainer(make_model("llama"), config, tokens()).train())

    assert compiled == [1]
    assert runs[True] == pytest.approx(runs[False], abs=2e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_flash_kernel_can_train_every_family(family, precision):
    config = settings(precision=precision, steps=3, warmup_steps=1)

    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):  # raises if it cannot take this attention
        history = Trainer(make_model(family), config, tokens()).train()

    assert all(math.isfinite(loss) for loss in losses(history))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fused_kernel_is_taken_without_being_asked_for(family):
    config = settings(precision="bfloat16", steps=2, warmup_steps=1)
    run = Trainer(make_model(family), config, tokens())

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run.train()

    called = {event.key for event in profiled.key_averages()}
    assert called & {
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_cudnn_attention",
    }
    assert "aten::_scaled_dot_product_attention_math" not in called


# ---------------------------------------------------------------- resuming


class Crash(RuntimeError):
    """The end of a run that is to be resumed."""


def crash(record):
    """End the run in step 14, after the checkpoint of step 13."""
    if record["step"] == 14:
        raise Crash


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_that_died_goes_on_bit_for_bit(precision, tmp_path):
    config = settings(precision=precision, steps=30, save_every=13)
    whole_model = make_model("gpt2", dropout=0.1)
    whole = Trainer(whole_model, config, tokens()).train()

    dying = Trainer(
        make_model("gpt2", dropout=0.1), config, tokens(), folder=tmp_path, on_step=crash
    )
    with pytest.raises(Crash):
        dying.train()
    model = make_model("gpt2", dropout=0.1)
    torch.manual_seed(1)  # dropout draws on the GPU: the checkpoint must bring back its generator
    model.init_weights()
    resumed = Trainer(model, config, tokens(), folder=tmp_path, existing="resume")
    began = len(resumed.history)
    resumed.train()

    assert began == 13
    assert losses(resumed.history) == losses(whole)
    for name, weight in whole_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
