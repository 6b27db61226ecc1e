"""Every published family: the same logits, text, names and config as transformers', in both directions."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import transformers

from courseware.checks.agreement import agree
from courseware.checks.published import CONFIGS, change_json, random_model, save
from courseware.checks.refusals import refused
from minigpt_lib import families, interop
from minigpt_lib.families import (
    Part,
    config_from_gguf,
    config_from_hf,
    config_to_gguf,
    config_to_hf,
    family_of,
    parts,
    rope_factors,
)
from minigpt_lib.generation import TextGenerator
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.positions import RopeScaling


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """Transformers' random model and ours, loaded from what it saved, with the folder."""
    folder = tmp_path_factory.mktemp("model")
    theirs = save(request.param, folder)
    ours, _ = interop.load(folder)
    return theirs, ours, folder


def test_logits_are_those_of_transformers(pair):
    theirs, ours, _ = pair
    ids = torch.randint(400, (3, 90), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        agree(ours(ids)[0], theirs(ids).logits, of_largest=1e-5, what="logits")


@pytest.mark.slow
def test_64_greedy_tokens_are_those_of_transformers(pair):
    theirs, ours, _ = pair
    ids = torch.randint(400, (4, 20), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = theirs.generate(
            ids, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    writer = TextGenerator(ours, _AnyIds())
    assert writer.generate_ids(ids, 64, "greedy").tolist() == expected.tolist()


class _AnyIds:
    """A tokenizer for ids alone."""

    vocab_size = 400

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def decode(self, ids) -> str:
        return " ".join(map(str, ids))


def test_a_config_goes_there_and_back(pair):
    theirs, ours, _ = pair
    values = config_to_hf(ours.config)
    assert values["model_type"] in (theirs.config.model_type, "llama")
    again = config_from_hf(json.loads(json.dumps(values)))
    assert dataclasses.replace(again, ffn_hidden=None, n_kv_head=None, head_size=None) == (
        dataclasses.replace(ours.config, ffn_hidden=None, n_kv_head=None, head_size=None)
    )
    assert again.head_dim == ours.config.head_dim


def test_transformers_builds_the_same_model_from_our_config_and_names(pair, tmp_path):
    _, ours, _ = pair
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(ours.config)), encoding="utf-8")
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()

    state = ours.state_dict()
    weights = {
        part.name: part.to_theirs(state[part.ours]).contiguous() for part in parts(ours.config)
    }
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    theirs.tie_weights()

    ids = torch.randint(400, (2, 50), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        agree(ours(ids)[0], theirs(ids).logits, of_largest=1e-5, what="logits")


@pytest.mark.parametrize("style", ["hf", "gguf"])
def test_parts_cover_every_number_of_ours_once_and_invert_each_other(pair, style):
    _, ours, _ = pair
    state = ours.state_dict()
    rebuilt = {name: torch.full_like(weight, torch.nan) for name, weight in state.items()}
    names = set()
    for part in parts(ours.config, style):
        theirs = part.to_theirs(state[part.ours])
        assert tuple(theirs.shape) == part.shape
        rows = rebuilt[part.ours][slice(*part.rows)]
        assert rows.isnan().all(), f"{part.name} overlaps"
        rows.copy_(part.to_ours(theirs))
        names.add(part.name)
    assert len(names) == len(parts(ours.config, style))
    for name, weight in state.items():
        assert torch.equal(rebuilt[name], weight), name


def test_names_of_gguf_are_those_of_its_own_converter(pair):
    gguf = pytest.importorskip("gguf")
    _, ours, _ = pair
    family = family_of(ours.config)
    architecture = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[family.gguf]
    table = gguf.get_tensor_name_map(architecture, ours.config.n_layer)
    theirs = {part.ours: [] for part in parts(ours.config, "hf")}
    for part in parts(ours.config, "hf"):
        theirs[part.ours].append(table.get_name(part.name, try_suffixes=(".weight", ".bias")))
    mine = {part.ours: [] for part in parts(ours.config, "hf")}
    for part in parts(ours.config, "gguf"):
        mine[part.ours].append(part.name)
    assert mine == theirs


def test_a_gguf_config_goes_there_and_back(pair):
    _, ours, _ = pair
    if ours.config.ffn == "relu":
        refused("llama.cpp computes GPT-2 with gelu_tanh", config_to_gguf, ours.config)
        return
    values = config_to_gguf(ours.config)
    shapes = {part.name: part.shape for part in parts(ours.config, "gguf")}
    again = config_from_gguf(values, shapes, rope_factors(ours.config))
    same = {"n_kv_head": None, "ffn_hidden": None, "head_size": None, "rope_scaling": None}
    assert dataclasses.replace(again, **same) == dataclasses.replace(ours.config, **same)
    assert again.head_dim == ours.config.head_dim
    if ours.config.rope_scaling is not None:  # with few pairs, several scalings turn alike
        agree(rope_factors(again), rope_factors(ours.config), rtol=1e-5, what="factors")


def test_the_order_of_rows_in_gguf_is_that_of_its_converter():
    """convert_hf_to_gguf.py of llama.cpp, LlamaModel.permute, for one head of four rows: 0 1 2 3 become 0 2 1 3."""
    part = Part("q", "qkv", (4, 1), (0, 4), heads=1)
    rows = torch.arange(4.0)[:, None]
    assert part.to_theirs(rows)[:, 0].tolist() == [0, 2, 1, 3]
    assert part.to_ours(part.to_theirs(rows))[:, 0].tolist() == [0, 1, 2, 3]


WRONG = {
    "gpt2": [
        ({"model_type": "gpt_neo"}, "model_type is 'gpt_neo'"),
        ({"activation_function": "swish"}, "activation_function is 'swish'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"n_embd": ...}, "does not say n_embd"),
        ({"n_embd": "32"}, "n_embd='32'"),
        ({"n_layer": 0}, "n_layer=0"),
        ({"n_head": True}, "n_head=True"),
        ({"tie_word_embeddings": "no"}, "tie_weights='no'"),
    ],
    "llama 3.1": [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantised in a way of their own"),
        ({"attention_bias": True}, "both or none"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "of the type 'yarn'"),
        ({"rope_parameters": [1]}, "expected an object"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "llama3 needs"),
        ({"partial_rotary_factor": 0.5}, "only a part of each head"),
        ({"num_key_value_heads": 3}, "n_kv_head=3"),
        ({"hidden_size": [32]}, "n_embd=[32]"),
        ({"rms_norm_eps": "small"}, "norm_eps='small'"),
    ],
    "qwen3": [({"attention_bias": True}, "attention_bias is True")],
}


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [(name, changes, words) for name, rows in WRONG.items() for changes, words in rows],
)
def test_a_config_that_ours_cannot_express_is_refused(name, changes, words, tmp_path):
    random_model(name).config.save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", **changes)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    refused(words, config_from_hf, values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position": "sinusoidal"}, "position='sinusoidal' has no equivalent"),
        ({"norm_position": "post"}, "norm_position='post'"),
        ({"ffn": "gelu"}, "ffn='gelu' has no equivalent"),
        ({"norm": "layer"}, "norm='layer' has no equivalent"),
        ({"position": "learned"}, "norm='rms' has no equivalent"),
        ({"attention": "qkv_bias", "bias": True}, "bias=True has no equivalent"),
        ({"attention": "qkv_bias", "head_size": 16}, "head_size=16"),
    ],
)
def test_a_config_without_an_equivalent_names_the_field(changes, words):
    families.register_attentions()
    llama = {"position": "rope", "norm": "rms", "ffn": "swiglu", "bias": False, "ffn_hidden": 48}
    config = GPTConfig(**{"vocab_size": 50, "n_embd": 32} | llama | changes)
    refused(words, family_of, config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ffn": "relu2"}, "ffn='relu2'"),
        ({"n_kv_head": 2}, "n_kv_head=2"),
        ({"head_size": 16}, "head_size=16"),
        ({"bias": False}, "bias=False"),
    ],
)
def test_what_gpt2_cannot_express_names_the_field(changes, words):
    refused(words, family_of, GPTConfig(**{"vocab_size": 50, "n_embd": 32} | changes))


def test_older_spellings_of_the_rotation_mean_the_same():
    new = random_model("llama 3.1").config.to_dict()
    old = dict(new)
    rope = dict(old.pop("rope_parameters"))
    old["rope_theta"] = rope.pop("rope_theta")
    rope["type"] = rope.pop("rope_type")
    old["rope_scaling"] = rope
    assert config_from_hf(old) == config_from_hf(new)


def test_other_factors_than_llama3s_are_refused():
    scaling = RopeScaling(8.0, 1.0, 4.0, 64)
    config = GPTConfig.preset(
        "laptop", ffn_hidden=48, max_seq_len=128, rope_scaling=scaling, rope_base=500000.0
    )
    values = config_to_gguf(config)
    shapes = {part.name: part.shape for part in parts(config, "gguf")}
    factors = rope_factors(config)
    assert config_from_gguf(values, shapes, factors).rope_scaling == scaling
    for wrong in (factors * 1.01, torch.ones_like(factors), factors[1:], factors * torch.nan):
        refused("rope_freqs.weight", config_from_gguf, values, shapes, wrong)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"general.architecture": "gemma"}, "general.architecture is 'gemma'"),
        ({"general.architecture": 7}, "general.architecture is '7'"),
        ({"llama.block_count": ...}, "does not say llama.block_count"),
        ({"llama.block_count": "2"}, "n_layer='2'"),
        ({"llama.attention.layer_norm_rms_epsilon": ...}, "layer_norm_rms_epsilon"),
        ({"llama.expert_count": 8}, "expert_count is 8"),
        ({"llama.rope.scaling.type": "yarn"}, "rope.scaling.type is 'yarn'"),
        ({"llama.rope.dimension_count": 2}, "only a part of each head"),
    ],
)
def test_gguf_metadata_that_ours_cannot_express_are_refused(changes, words):
    config = GPTConfig.preset("laptop")
    values = {**config_to_gguf(config), **changes}
    values = {key: value for key, value in values.items() if value is not ...}
    shapes = {part.name: part.shape for part in parts(config, "gguf")}
    refused(words, config_from_gguf, values, shapes)


def test_a_sliding_window_becomes_the_context_of_gguf_too():
    config = GPTConfig.preset("laptop")
    shapes = {part.name: part.shape for part in parts(config, "gguf")}
    values = config_to_gguf(config) | {"llama.attention.sliding_window": 100}
    assert config_from_gguf(values, shapes).max_seq_len == 100


def test_attention_weights_of_qwen3_add_up_and_follow_the_norms(pair):
    theirs, ours, _ = pair
    ids = torch.randint(400, (1, 12), generator=torch.Generator().manual_seed(4))
    theirs.set_attn_implementation("eager")
    with torch.inference_mode():
        expected = theirs(ids, output_attentions=True).attentions[0]
        found = []
        hook = ours.blocks[0].attention.register_forward_pre_hook(
            lambda layer, given: found.append(layer.weights(*given))
        )
        ours(ids)
        hook.remove()
    theirs.set_attn_implementation("sdpa")
    agree(found[0], expected, of_largest=1e-5, what="weights")


def test_a_model_without_weights_is_enough_for_the_names():
    big = GPTConfig.preset("llama3_8b")
    assert sum(torch.Size(part.shape).numel() for part in parts(big)) == 8_030_261_248
    with torch.device("meta"):
        assert len(MiniGPT(big).state_dict()) == len({part.ours for part in parts(big)})


def test_a_window_that_is_no_number_is_named():
    values = config_to_hf(GPTConfig.preset("laptop")) | {"sliding_window": "64"}
    with pytest.raises(ValueError, match="max_seq_len='64'"):
        config_from_hf(values)


@pytest.mark.parametrize(
    ("name", "has_biases"), [("llama", True), ("qwen2", False), ("qwen3", False)]
)
def test_only_a_llama_says_whether_it_has_biases(name, has_biases):
    fixed = families.FAMILIES[name].fixed
    config = dataclasses.replace(GPTConfig.preset("laptop"), attention=fixed["attention"])
    written = config_to_hf(config)

    assert written["model_type"] == name
    assert ("attention_bias" in written, "mlp_bias" in written) == (has_biases, has_biases)
