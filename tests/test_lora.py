"""Chapter 14: LoRA agrees with peft, merging changes no output, and a larger vocabulary keeps the old logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sft_dialogs import BASE, CHATS, model_of
from torch import nn

from minigpt_lib.lora import LoRALinear, add_lora, merge_lora
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.sft import resize_embedding


def test_a_lora_layer_agrees_with_peft():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(9, 6))
    ours = LoRALinear(nn.Linear(9, 6), rank=4, alpha=6.0)
    ours.linear.load_state_dict(plain[0].state_dict())
    theirs = peft.get_peft_model(plain, peft.LoraConfig(r=4, lora_alpha=6.0, target_modules=["0"]))
    layer = theirs.base_model.model[0]
    nn.init.normal_(ours.B)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(ours.A)
        layer.lora_B["default"].weight.copy_(ours.B)
    x = torch.randn(3, 9)

    torch.testing.assert_close(ours(x), theirs(x))
    merged = theirs.merge_and_unload()
    torch.testing.assert_close(ours.merge().weight, merged[0].weight)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 16), st.floats(0.5, 32), st.booleans())
def test_merging_changes_no_output(rank, alpha, tied):
    model = add_lora(model_of(40, tie_weights=tied, norm="rms", ffn="swiglu"), rank, alpha)
    for name, weight in model.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(weight, 0.0, 0.1)
    ids = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(rank))
    before = model(ids)[0]

    after = merge_lora(model)(ids)[0]

    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(part, LoRALinear) for part in model.modules())


def test_a_larger_vocabulary_keeps_the_logits_of_the_old_tokens():
    model = model_of(BASE.vocab_size)
    ids = torch.tensor([BASE.encode("Who employs Ada?")])

    larger = resize_embedding(model, CHATS["llama3"].vocab_size)

    torch.testing.assert_close(larger(ids)[0][..., : BASE.vocab_size], model(ids)[0])


def test_a_model_saved_with_its_detours_is_refused_with_the_remedy(tmp_path):
    model = add_lora(MiniGPT(GPTConfig(13, 8, n_embd=12, n_layer=1, n_head=3)), 2)
    model.save_pretrained(tmp_path)

    with pytest.raises(ValueError, match="merge_lora") as caught:
        MiniGPT.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)

    merge_lora(model).save_pretrained(tmp_path)
    MiniGPT.from_pretrained(tmp_path)
